//! What may happen in an exploration, beside what the parties do and the network does anyway.

/// What the clock does, which all parties read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Still,
    /// It passes every deadline once.
    Passes,
    /// It passes every deadline and is set back, as often as it likes.
    Jumps,
}

/// What can happen in a run, beside what the parties do anyway.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Attempts that the destination makes.
    pub attempts: u32,
    pub clock: Clock,
    /// The destination is suspended, and reinstated.
    pub suspension: bool,
    /// The patient revokes.
    pub revocation: bool,
    /// The staff of either hospital stops the case.
    pub staff: bool,
    /// The destination turns a record away.
    pub rejection: bool,
    /// The destination's one-time key is lost.
    pub lost_key: bool,
    /// A request comes whose consent the patient did not sign.
    pub forgery: bool,
    /// The destination knows the patient under another name, so that a person must compare the two.
    pub doubt: bool,
    /// One handler at a time may be slow: others commit before it does, or its party crashes and it never does.
    pub slow: bool,
    /// How often a party's store is restored from a backup of before the case.
    pub restores: u8,
}

/// Nothing but the parties, the network and a clock that stands still.
const CALM: Bounds = Bounds {
    attempts: 1,
    clock: Clock::Still,
    suspension: false,
    revocation: false,
    staff: false,
    rejection: false,
    lost_key: false,
    forgery: false,
    doubt: false,
    slow: false,
    restores: 0,
};

/// The patient, time, the registry, and a record that is not what the manifest says.
pub const PATIENT: Bounds =
    Bounds { clock: Clock::Passes, revocation: true, rejection: true, suspension: true, ..CALM };
/// Everybody changes their mind.
pub const PEOPLE: Bounds = Bounds { revocation: true, staff: true, rejection: true, suspension: true, ..CALM };
/// A clock that is set forward and back at any time.
pub const CLOCK: Bounds = Bounds { clock: Clock::Jumps, ..CALM };
/// One-time keys that are lost, and a second attempt.
pub const ATTEMPTS: Bounds = Bounds { attempts: 2, lost_key: true, revocation: true, ..CALM };
/// Handlers that are overtaken, or crash.
pub const SLOW: Bounds = Bounds { slow: true, revocation: true, rejection: true, ..CALM };
/// The same, and a store that comes back from a backup.
pub const SLOW_RESTORED: Bounds = Bounds { slow: true, restores: 1, ..CALM };
/// Stores that come back from backups, up to all three.
pub const RESTORED: Bounds = Bounds { restores: 3, ..CALM };
/// A review by a person, with its deadline.
pub const DOUBT: Bounds = Bounds { doubt: true, clock: Clock::Passes, revocation: true, ..CALM };
/// A destination that asks without the patient.
pub const FORGERY: Bounds = Bounds { forgery: true, revocation: true, ..CALM };

/// One attempt, and everything but crashes and backups at once.
pub const DEEP_ONE_ATTEMPT: Bounds = Bounds { staff: true, lost_key: true, ..PATIENT };
/// Two attempts with everybody in them.
pub const DEEP_ATTEMPTS: Bounds = Bounds { staff: true, rejection: true, ..ATTEMPTS };
/// Two attempts, and time.
pub const DEEP_TIME: Bounds = Bounds { clock: Clock::Passes, revocation: false, ..ATTEMPTS };
/// Slow handlers, crashes, and time.
pub const DEEP_SLOW: Bounds = Bounds { clock: Clock::Passes, suspension: true, ..SLOW };
/// Slow handlers, crashes, and two backups.
pub const DEEP_RESTORED: Bounds = Bounds { restores: 2, ..SLOW_RESTORED };
/// A backup between two attempts.
pub const DEEP_RESTORED_ATTEMPTS: Bounds = Bounds { restores: 1, revocation: false, ..ATTEMPTS };
