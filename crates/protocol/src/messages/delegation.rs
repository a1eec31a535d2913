//! The patient's delegation and the migration proof that answers it.

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::Commitment;
use waybill_crypto::keys::{Digest, HpkePublicKey, VerifyingKey};

use super::{Chain, VoucherGrant, check_mailbox, check_suite};
use crate::ids::{HospitalId, MessageId, Nonce, Timestamp};
use crate::log::LogEvidence;
use crate::signed::{Message, SignedBytes};
use crate::wire::DecodeError;

/// What the patient decided, as the authority sees it: who, when, and commitments. The same in Delegation and MigrationProof.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Terms {
    /// The hospital that holds the record.
    #[n(0)]
    pub source: HospitalId,
    /// The hospital that is to receive it.
    #[n(1)]
    pub destination: HospitalId,
    /// com_A: commitment to the pseudonym at the source.
    #[n(2)]
    pub com_source: Commitment,
    /// com_B: commitment to the pseudonym at the destination.
    #[n(3)]
    pub com_destination: Commitment,
    /// com_S: commitment to the scope.
    #[n(4)]
    pub com_scope: Commitment,
    /// com_H: commitment to the hides.
    #[n(5)]
    pub com_hides: Commitment,
    /// First second of validity.
    #[n(6)]
    pub not_before: Timestamp,
    /// Last second of validity.
    #[n(7)]
    pub expires: Timestamp,
    /// Whoever signs with this key may revoke.
    #[n(8)]
    pub revocation_key: VerifyingKey,
    /// Receipts for the patient are sealed to this key.
    #[n(9)]
    pub reply_key: HpkePublicKey,
}

impl Terms {
    /// The longest time a delegation may run. Units: seconds.
    pub const MAX_LIFETIME_SECONDS: u64 = 90 * 86_400;

    fn check(&self, what: &'static str) -> Result<(), DecodeError> {
        let window = self.expires.0.checked_sub(self.not_before.0);
        let plausible = self.source != self.destination && window.is_some_and(|w| w <= Self::MAX_LIFETIME_SECONDS);
        if plausible { Ok(()) } else { Err(DecodeError::Malformed(what)) }
    }
}

/// Patient -> authority, signed by the one-time delegation key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Delegation {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// Makes the hash of this message unguessable, so that the proof that carries the hash links to nobody.
    #[n(1)]
    pub nonce: Nonce,
    /// **Thumbprint of the key that signs this.** One delegation per thumbprint, ever.
    #[n(2)]
    pub delegation_key: Digest,
    /// What is delegated.
    #[n(3)]
    pub terms: Terms,
    /// The mailbox where the patient waits.
    #[n(4)]
    pub reply_to: String,
}

impl Message for Delegation {
    const TYP: &'static str = "waybill-delegation";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)?;
        self.terms.check(Self::TYP)?;
        check_mailbox(&self.reply_to, Self::TYP)
    }
}

/// What is posted to the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DelegationBody {
    /// The signed delegation.
    #[n(0)]
    pub delegation: SignedBytes<Delegation>,
    /// The key it is signed with.
    #[n(1)]
    pub key: VerifyingKey,
    /// The source's voucher for that key.
    #[n(2)]
    pub voucher: VoucherGrant,
}

/// Authority -> patient: the single-use, expiring, publicly logged permission, signed by the proof-signing key.
///
/// Security: binds every field of the delegation by value or by commitment, but neither the delegation key nor its nonce, which
/// would link the case to the patient's talk with the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MigrationProof {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// The issuing authority.
    #[n(1)]
    pub authority: HospitalId,
    /// The delegation answered.
    #[n(2)]
    pub delegation: MessageId,
    /// The delegated terms.
    #[n(3)]
    pub terms: Terms,
    /// When it was issued.
    #[n(4)]
    pub issued_at: Timestamp,
}

impl Message for MigrationProof {
    const TYP: &'static str = "waybill-proof";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)?;
        self.terms.check(Self::TYP)
    }
}

/// A proof with all that is needed to believe it: the signer's chain and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ProofBundle {
    /// The signed proof.
    #[n(0)]
    pub proof: SignedBytes<MigrationProof>,
    /// Proof-signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
    /// Log index, inclusion proof and cosigned checkpoint.
    #[n(2)]
    pub evidence: LogEvidence,
}
