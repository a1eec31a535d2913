//! What the authority says once the log shows it, and the lint of a proof before its signature.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HpkePublicKey};

use super::{Authority, Intent};
use crate::ids::{HospitalId, MessageId};
use crate::log::LogEvidence;
use crate::messages::{
    CaseStatement, Grant, GrantBody, KeyLodgement, KeyRelease, MigrationProof, ProofBundle, ReceiptBody, ReleaseBody,
    SUITE, StatementBody,
};
use crate::migration::{Post, Recipient};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{SignedBytes, Unverified};
use crate::wire::{Kind, Parcel, to_cbor};

/// What goes out once a leaf is covered by a cosigned checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Answer {
    /// Nothing: the leaf only records a transition.
    #[n(0)]
    Nothing,
    /// The proof, to the patient.
    #[n(1)]
    Proof {
        /// The proof.
        #[n(0)]
        proof: SignedBytes<MigrationProof>,
        /// The delegation the seal is bound to.
        #[n(1)]
        delegation: MessageId,
        /// The key it is sealed to.
        #[n(2)]
        reply_key: HpkePublicKey,
        /// The patient's mailbox.
        #[n(3)]
        reply_to: String,
    },
    /// The grant, to the source.
    #[n(2)]
    Grant {
        /// The grant.
        #[n(0)]
        grant: SignedBytes<Grant>,
        /// The source.
        #[n(1)]
        source: HospitalId,
        /// The log size the source knew.
        #[n(2)]
        known_log_size: u64,
    },
    /// The key, to the destination.
    #[n(3)]
    Release {
        /// The release.
        #[n(0)]
        release: SignedBytes<KeyRelease>,
        /// The lodgement.
        #[n(1)]
        lodgement: SignedBytes<KeyLodgement>,
        /// The destination.
        #[n(2)]
        destination: HospitalId,
    },
    /// The end, to everybody.
    #[n(4)]
    Statement {
        /// The statement.
        #[n(0)]
        statement: SignedBytes<CaseStatement>,
        /// The receipt, where there is one.
        #[n(1)]
        receipt: Option<ReceiptBody>,
        /// The source.
        #[n(2)]
        source: HospitalId,
        /// The destination.
        #[n(3)]
        destination: HospitalId,
        /// The patient's mailbox.
        #[n(4)]
        reply_to: String,
    },
}

impl Answer {
    /// The log size from which the answer proves consistency, where it does.
    #[must_use]
    pub fn known_log_size(&self) -> Option<u64> {
        match self {
            Self::Grant { known_log_size, .. } => Some(*known_log_size),
            _ => None,
        }
    }
}

impl Authority<'_> {
    /// Turns a pending answer into what is posted, now that a cosigned checkpoint covers its leaf.
    ///
    /// # Errors
    /// `malformed` when the patient's reply key is no point: nobody could ever read the answer.
    pub fn finish(
        &self,
        answer: Answer,
        evidence: LogEvidence,
        consistency: Vec<Digest>,
    ) -> Result<Vec<Post>, Rejection> {
        let tell = |to, parcel| Post { to, parcel, awaits: None };
        Ok(match answer {
            Answer::Nothing => Vec::new(),
            Answer::Proof { proof, delegation, reply_key, reply_to } => {
                let bundle = ProofBundle { proof, chain: self.keys.chain.clone(), evidence };
                let sealed = SealedBytes::seal(
                    self.ctx.backend,
                    &reply_key,
                    SealPurpose::ProofAnswer,
                    &delegation.0.0,
                    &to_cbor(&bundle),
                )
                .map_err(|_| Code::Malformed)?;
                vec![tell(Recipient::Mailbox(reply_to), Parcel::pack(Kind::ProofAnswer, &sealed))]
            }
            Answer::Grant { grant, source, .. } => {
                let body = GrantBody { grant, evidence, consistency };
                vec![tell(Recipient::Hospital(source), Parcel::pack(Kind::Grant, &body))]
            }
            Answer::Release { release, lodgement, destination } => {
                let body = ReleaseBody { release, lodgement, evidence };
                vec![tell(Recipient::Hospital(destination), Parcel::pack(Kind::KeyRelease, &body))]
            }
            Answer::Statement { statement, receipt, source, destination, reply_to } => {
                let parcel = Parcel::pack(Kind::CaseStatement, &StatementBody { statement, evidence, receipt });
                [Recipient::Hospital(source), Recipient::Hospital(destination), Recipient::Mailbox(reply_to)]
                    .map(|to| tell(to, parcel.clone()))
                    .into()
            }
        })
    }
}

/// Reads a proof back as a stranger would and compares it with what was intended.
pub(super) fn lint_proof(bytes: &[u8], intent: &Intent) -> Result<(), Rejection> {
    let read: Unverified<MigrationProof> = Unverified::parse(bytes)?;
    let p = read.peek();
    let sound = p == &intent.proof
        && p.suite == SUITE
        && p.issued_at <= p.terms.expires
        && p.terms.source != p.terms.destination;
    if sound { Ok(()) } else { Err(Code::Malformed.into()) }
}
