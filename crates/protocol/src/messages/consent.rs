//! The patient's word to each hospital: consent for the source, presentation for the destination.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::Opening;
use waybill_crypto::keys::{Digest, HospitalKeys, Thumb};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::{ProofBundle, check_mailbox};
use crate::ids::ProofId;
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};
use crate::wire::DecodeError;

/// Patient -> source, signed by the pairwise key at the source, sealed to the source's **pinned** key.
///
/// Security: names the proof and the destination's keys, so the authority can neither redirect nor widen it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Consent {
    /// **The proof this consents to.**
    #[n(0)]
    pub proof: ProofId,
    /// The pseudonym at the source.
    #[n(1)]
    pub pid: Pseudonym,
    /// Opens com_A.
    #[n(2)]
    pub pid_opening: Opening,
    /// What may travel.
    #[n(3)]
    pub scope: Scope,
    /// Opens com_S.
    #[n(4)]
    pub scope_opening: Opening,
    /// Particular items that may not.
    #[n(5)]
    pub hides: Hides,
    /// Opens com_H.
    #[n(6)]
    pub hides_opening: Opening,
    /// **The destination's keys, as the wallet learned them from the destination itself.**
    #[n(7)]
    pub destination: Thumb,
}

impl Message for Consent {
    const TYP: &'static str = "waybill-consent";
    /// Hides may name ten thousand items.
    const MAX_BYTES: usize = 2 * 1024 * 1024;
}

/// Patient -> destination, signed by the pairwise key at the destination.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Presentation {
    /// **The proof presented.**
    #[n(0)]
    pub proof: ProofId,
    /// The pseudonym at the destination: tells which local patient this is.
    #[n(1)]
    pub pid: Pseudonym,
    /// Opens com_B.
    #[n(2)]
    pub pid_opening: Opening,
    /// What may travel, so that the destination checks it again.
    #[n(3)]
    pub scope: Scope,
    /// Opens com_S.
    #[n(4)]
    pub scope_opening: Opening,
    /// **The source's keys, both, as the wallet learned them from the source itself.**
    #[n(5)]
    pub source: HospitalKeys,
    /// **Hash of the sealed consent that travels with this.**
    #[n(6)]
    pub consent: Digest,
    /// The mailbox where the patient hears why, if the destination or the source refuses. Silence is the main failure of the
    /// systems in use.
    #[n(7)]
    pub reply_to: Option<String>,
}

impl Message for Presentation {
    const TYP: &'static str = "waybill-presentation";
    const MAX_BYTES: usize = 64 * 1024;
    fn check(&self) -> Result<(), DecodeError> {
        self.reply_to.as_deref().map_or(Ok(()), |address| check_mailbox(address, Self::TYP))
    }
}

/// The plaintext of what is posted to the destination, sealed to its **pinned** key.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PresentationBody {
    /// The signed presentation.
    #[n(0)]
    pub presentation: SignedBytes<Presentation>,
    /// The proof.
    #[n(1)]
    pub proof: ProofBundle,
    /// The consent, which only the source can open.
    #[n(2)]
    pub consent: SealedBytes,
}

// Pseudonyms, scopes and hides are health-related: none of them reaches a log through Debug.
impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consent(proof {})", self.proof)
    }
}

impl fmt::Debug for Presentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presentation(proof {})", self.proof)
    }
}
