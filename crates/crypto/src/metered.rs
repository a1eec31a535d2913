//! Counting what cryptography costs, by what it is done for.
//!
//! Nothing is global: a [`Meter`] belongs to whoever made it, reads no clock of its own and only grows.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    backend::{Backend, PrimitiveError, Sealed},
    keys::{Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey, VerifyingKey},
};

/// The label of whatever runs outside a [`scope`].
pub const OTHER: &str = "other";

thread_local! {
    static LABEL: Cell<&'static str> = const { Cell::new(OTHER) };
}

/// Runs `body`, counting what it does on this thread under `label`; scopes nest, the inner one counts.
///
/// For synchronous code: a future does not carry the label over its awaits.
pub fn scope<T>(label: &'static str, body: impl FnOnce() -> T) -> T {
    /// Restores the outer label also when `body` panics.
    struct Restore(&'static str);
    impl Drop for Restore {
        fn drop(&mut self) {
            LABEL.set(self.0);
        }
    }
    let _restore = Restore(LABEL.replace(label));
    body()
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Backend::random`].
    Random,
    /// [`Backend::sign`].
    Sign,
    /// [`Backend::verify`].
    Verify,
    /// [`Backend::generate_signing_key`].
    GenerateSigningKey,
    /// [`Backend::generate_hpke_key`].
    GenerateHpkeKey,
    /// [`Backend::seal`].
    Seal,
    /// [`Backend::open`].
    Open,
    /// [`Backend::aead_seal`].
    AeadSeal,
    /// [`Backend::aead_open`].
    AeadOpen,
    /// [`Backend::ed25519_sign`].
    Ed25519Sign,
    /// [`Backend::ed25519_verify`].
    Ed25519Verify,
    /// Derivation of keys and pseudonyms, timed by [`Meter::time`].
    Derive,
    /// Hashing of record bytes, timed by [`Meter::time`].
    Hash,
    /// Certificates and chains, timed by [`Meter::time`].
    Certificate,
}

impl Operation {
    /// A stable name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::GenerateSigningKey => "generate_signing_key",
            Self::GenerateHpkeKey => "generate_hpke_key",
            Self::Seal => "seal",
            Self::Open => "open",
            Self::AeadSeal => "aead_seal",
            Self::AeadOpen => "aead_open",
            Self::Ed25519Sign => "ed25519_sign",
            Self::Ed25519Verify => "ed25519_verify",
            Self::Derive => "derive",
            Self::Hash => "hash",
            Self::Certificate => "certificate",
        }
    }
}

/// How often one operation ran under one label, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// What it was done for.
    pub label: &'static str,
    /// What was done.
    pub operation: Operation,
    /// How often.
    pub count: u64,
    /// CPU time of the calling thread, in nanoseconds.
    pub cpu_ns: u64,
}

#[derive(Default, Clone, Copy)]
struct Tally {
    count: u64,
    cpu_ns: u64,
}

struct Shared {
    clock: fn() -> u64,
    tallies: Mutex<BTreeMap<(&'static str, Operation), Tally>>,
}

/// Counters that only grow. Clones share them.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

impl Meter {
    /// A meter over a clock of the current thread's CPU time, in nanoseconds.
    #[must_use]
    pub fn new(clock: fn() -> u64) -> Self {
        Self(Arc::new(Shared { clock, tallies: Mutex::default() }))
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<(&'static str, Operation), Tally>> {
        // A counter has no invariant that a panic elsewhere could have broken.
        self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs and counts `body` as one `operation` under the current label.
    pub fn time<T>(&self, operation: Operation, body: impl FnOnce() -> T) -> T {
        let start = (self.0.clock)();
        let result = body();
        let elapsed = (self.0.clock)().saturating_sub(start);
        let mut tallies = self.tallies();
        let tally = tallies.entry((LABEL.get(), operation)).or_default();
        tally.count += 1;
        tally.cpu_ns += elapsed;
        result
    }

    /// All counters, by label and operation. A difference of two snapshots is what happened between them.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Count> {
        let count = |(&(label, operation), tally): (_, &Tally)| Count {
            label,
            operation,
            count: tally.count,
            cpu_ns: tally.cpu_ns,
        };
        self.tallies().iter().map(count).collect()
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.snapshot()).finish()
    }
}

/// A back end that counts what it is asked.
#[derive(Debug, Clone)]
pub struct Metered<B> {
    inner: B,
    meter: Meter,
}

impl<B: Backend> Metered<B> {
    /// Wraps a back end.
    #[must_use]
    pub const fn new(inner: B, meter: Meter) -> Self {
        Self { inner, meter }
    }

    /// The counters.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<B: Backend> Backend for Metered<B> {
    fn random(&self, out: &mut [u8]) {
        self.meter.time(Operation::Random, || self.inner.random(out));
    }

    fn sign(&self, key: &SigningKey, message: &[u8]) -> Signature {
        self.meter.time(Operation::Sign, || self.inner.sign(key, message))
    }

    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &Signature) -> Result<(), PrimitiveError> {
        self.meter.time(Operation::Verify, || self.inner.verify(key, message, signature))
    }

    fn generate_signing_key(&self) -> SigningKey {
        self.meter.time(Operation::GenerateSigningKey, || self.inner.generate_signing_key())
    }

    fn generate_hpke_key(&self) -> HpkeSecretKey {
        self.meter.time(Operation::GenerateHpkeKey, || self.inner.generate_hpke_key())
    }

    fn seal(&self, to: &HpkePublicKey, info: &[u8], plaintext: &[u8]) -> Result<Sealed, PrimitiveError> {
        self.meter.time(Operation::Seal, || self.inner.seal(to, info, plaintext))
    }

    fn open(&self, key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError> {
        self.meter.time(Operation::Open, || self.inner.open(key, info, sealed))
    }

    fn aead_seal(&self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; 16] {
        self.meter.time(Operation::AeadSeal, || self.inner.aead_seal(key, nonce, aad, in_out))
    }

    fn aead_open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), PrimitiveError> {
        self.meter.time(Operation::AeadOpen, || self.inner.aead_open(key, nonce, aad, in_out, tag))
    }

    fn ed25519_sign(&self, key: &Ed25519SecretKey, message: &[u8]) -> [u8; 64] {
        self.meter.time(Operation::Ed25519Sign, || self.inner.ed25519_sign(key, message))
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519PublicKey,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), PrimitiveError> {
        self.meter.time(Operation::Ed25519Verify, || self.inner.ed25519_verify(key, message, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portable::Portable;

    thread_local! {
        static TICKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Ten nanoseconds between any two readings.
    fn clock() -> u64 {
        TICKS.set(TICKS.get() + 10);
        TICKS.get()
    }

    fn count(label: &'static str, operation: Operation, count: u64) -> Count {
        Count { label, operation, count, cpu_ns: 10 * count }
    }

    #[test]
    fn counts_by_label_and_operation_and_only_grows() {
        let backend = Metered::new(Portable::from_seed([0; 32]), Meter::new(clock));
        let key = backend.generate_signing_key();
        let signature = scope("Delegation", || {
            let signature = backend.sign(&key, b"m");
            scope("Voucher", || backend.verify(key.public(), b"m", &signature)).unwrap();
            backend.verify(key.public(), b"m", &signature).unwrap();
            signature
        });
        let first = backend.meter().snapshot();
        assert_eq!(
            first,
            [
                count("Delegation", Operation::Sign, 1),
                count("Delegation", Operation::Verify, 1),
                count("Voucher", Operation::Verify, 1),
                count(OTHER, Operation::GenerateSigningKey, 1),
            ]
        );
        scope("Voucher", || backend.verify(key.public(), b"other", &signature)).unwrap_err();
        assert_eq!(backend.meter().snapshot()[2], count("Voucher", Operation::Verify, 2));
    }

    #[test]
    fn a_panic_restores_the_label() {
        let panicked = std::panic::catch_unwind(|| scope("Inner", || panic!("expected by this test")));
        assert!(panicked.is_err());
        assert_eq!(LABEL.get(), OTHER);
    }
}
