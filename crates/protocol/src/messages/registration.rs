//! Registration in person, and the authority's own signed description.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Ed25519PublicKey, HospitalKeys, HpkePublicKey, Thumb, VerifyingKey};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_record::scope::Scope;

use super::{Chain, check_mailbox, check_suite};
use crate::ids::{HospitalId, MessageId, Nonce, Timestamp};
use crate::rejection::{Code, Rejection};
use crate::signed::{Message, SignedBytes};
use crate::wire::DecodeError;

/// In what capacity a consent key speaks for the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Relation {
    /// The patient in person.
    #[n(0)]
    OneSelf,
    /// A parent or guardian.
    #[n(1)]
    Guardian,
    /// A person the patient deputised.
    #[n(2)]
    Deputy,
    /// The executor of a deceased patient.
    #[n(3)]
    Executor,
    /// The hospital's registrar attests a form signed on paper.
    #[n(4)]
    RegistrarAttested,
}

/// The most destinations that limits name.
pub const MAX_DESTINATIONS: usize = 64;

/// What a consent key may decide at most.
///
/// Security: held by the hospital at every consent, presentation and preview; told to the wallet so that it need not find out by
/// being refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Limits {
    /// The largest scope.
    #[n(0)]
    pub scope: Scope,
    /// The only destinations; empty for any.
    #[n(1)]
    pub destinations: Vec<HospitalId>,
}

impl Limits {
    /// No limits: the patient in person.
    #[must_use]
    pub fn none() -> Self {
        Self { scope: Scope::full(), destinations: Vec::new() }
    }

    /// Holds a decision to the limits.
    ///
    /// # Errors
    /// `consent-limit`.
    pub fn verify(&self, scope: &Scope, destination: Option<&HospitalId>) -> Result<(), Rejection> {
        let there =
            destination.is_none_or(|to| self.destinations.is_empty() || self.destinations.iter().any(|d| d == to));
        if there && scope.is_within(&self.scope) { Ok(()) } else { Err(Code::ConsentLimit.into()) }
    }
}

/// Patient -> hospital: "this is my pseudonym and these are my keys here"; signed by the consent key (proof of possession), sealed
/// to the hospital's key from the enrolment code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Registration {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// The hospital meant.
    #[n(1)]
    pub hospital: HospitalId,
    /// The one-time enrolment code, handed over in person. Bytes: 16.
    #[n(2)]
    pub code: Nonce,
    /// The patient's pseudonym at this hospital.
    #[n(3)]
    pub pid: Pseudonym,
    /// The pairwise consent key, whose signature this message carries.
    #[n(4)]
    pub consent_key: VerifyingKey,
    /// Where the answer is sealed to.
    #[n(5)]
    pub reply_key: HpkePublicKey,
    /// The mailbox the answer is posted to.
    #[n(6)]
    pub reply_to: String,
    /// Freshness.
    #[n(7)]
    pub nonce: Nonce,
    /// When.
    #[n(8)]
    pub time: Timestamp,
}

impl Message for Registration {
    const TYP: &'static str = "waybill-registration";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)?;
        check_mailbox(&self.reply_to, Self::TYP)
    }
}

/// Hospital -> patient: the registration was accepted; signed by the hospital, sealed to the reply key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RegistrationAnswer {
    /// The request answered.
    #[n(0)]
    pub request: MessageId,
    /// Who answers.
    #[n(1)]
    pub hospital: HospitalId,
    /// Its keys, which the wallet compares with those in the enrolment code.
    #[n(2)]
    pub keys: HospitalKeys,
    /// In what capacity the key was registered.
    #[n(3)]
    pub relation: Relation,
    /// Until when the registration holds.
    #[n(4)]
    pub expires: Timestamp,
    /// What the key may decide.
    #[n(5)]
    pub limits: Limits,
}

impl Message for RegistrationAnswer {
    const TYP: &'static str = "waybill-registration-answer";
    fn check(&self) -> Result<(), DecodeError> {
        if self.limits.destinations.len() <= MAX_DESTINATIONS { Ok(()) } else { Err(DecodeError::Malformed(Self::TYP)) }
    }
}

/// Hospital -> whoever pinned its keys: these are my new ones; signed by the **old** signing key.
///
/// Security: whoever holds the old key can name its successor, so a key that may have been stolen is revoked, not changed: its
/// patients enrol again in person. The authority has no part in this: it could otherwise mint itself a hospital.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyChange {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// Whose keys.
    #[n(1)]
    pub hospital: HospitalId,
    /// The thumb of the keys that are replaced.
    #[n(2)]
    pub from: Thumb,
    /// The new keys.
    #[n(3)]
    pub to: HospitalKeys,
    /// When it was signed.
    #[n(4)]
    pub time: Timestamp,
}

impl Message for KeyChange {
    const TYP: &'static str = "waybill-key-change";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)
    }
}

/// A registration's plaintext inside its seal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RegistrationBody {
    /// The signed registration.
    #[n(0)]
    pub registration: SignedBytes<Registration>,
}

/// The authority's description of its own online keys, signed by its proof-signing key.
///
/// Security: the proof-signing certificate chains to the pinned root, so nobody else can name a lodgement key. Whom to trust as
/// witness is *not* in here: that is the reader's own choice.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AuthorityStatement {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// The authority.
    #[n(1)]
    pub authority: HospitalId,
    /// Its lodgement HPKE key.
    #[n(2)]
    pub lodgement_key: HpkePublicKey,
    /// The log's origin line.
    #[n(3)]
    pub log_origin: String,
    /// The log's Ed25519 key.
    #[n(4)]
    pub log_key: Ed25519PublicKey,
    /// When it was made.
    #[n(5)]
    pub time: Timestamp,
}

impl Message for AuthorityStatement {
    const TYP: &'static str = "waybill-authority-statement";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)?;
        if self.log_origin.is_empty() || self.log_origin.len() > 128 {
            Err(DecodeError::Malformed(Self::TYP))
        } else {
            Ok(())
        }
    }
}

/// The authority statement with the chain of the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AuthorityStatementBody {
    /// The signed statement.
    #[n(0)]
    pub statement: SignedBytes<AuthorityStatement>,
    /// Proof-signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
}
