//! The evidence of a closed case: its signed messages in one file, which anybody can check offline, for ever.
//!
//! Bytes: one deterministic CBOR array ([`Evidence`]); its last element is the SHA-256 of everything before it, so that also a
//! byte that no signature covers (a certificate's place, a sealed part nobody here can open) cannot change unnoticed.
//!
//! Source: docs/PROTOCOL.md section 10.

mod judge;

pub use judge::{Finding, Sentence, Verdict, judge};

use minicbor::{Decode, Encode};
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HospitalKeys};

use crate::destination::{DestinationCase, RevealedKey};
use crate::log::CheckpointPolicy;
use crate::messages::{
    AuthorityStatementBody, Chain, DelegationBody, DeliveryReceipt, GrantBody, Manifest, ProofBundle, ReceiptOpening,
    ReleaseBody, RevocationBody, StatementBody, TransferBody,
};
use crate::patient::Draft;
use crate::signed::SignedBytes;
use crate::source::SourceCase;
use crate::wire::{DecodeError, VERSION, from_cbor, to_cbor};

/// The largest evidence file. Units: bytes.
pub const MAX_EVIDENCE_BYTES: usize = 32 * 1024 * 1024;

/// The messages of one case, as far as the party that wrote the file holds them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Evidence {
    #[n(0)]
    version: u8,
    /// The authority's description of its keys, signed under the root.
    #[n(1)]
    pub authority: AuthorityStatementBody,
    /// Log and witnesses that this party relied on.
    #[n(2)]
    pub log: CheckpointPolicy,
    /// The proof, its chain, its place in the log.
    #[n(3)]
    pub proof: ProofBundle,
    /// The delegation with its voucher: the patient's copy has it.
    #[n(4)]
    pub delegation: Option<DelegationBody>,
    /// The destination's request with the sealed consent.
    #[n(5)]
    pub request: Option<TransferBody>,
    /// The grant: the source's copy has it.
    #[n(6)]
    pub grant: Option<GrantBody>,
    /// The source's keys and signing chain.
    #[n(7)]
    pub source: Option<Signer>,
    /// The manifest, opened.
    #[n(8)]
    pub manifest: Option<SignedBytes<Manifest>>,
    /// The destination's receipt for the ciphertext.
    #[n(9)]
    pub delivery: Option<SignedBytes<DeliveryReceipt>>,
    /// The release with the lodgement inside.
    #[n(10)]
    pub release: Option<ReleaseBody>,
    /// The statement that ended the case, with the receipt.
    #[n(11)]
    pub statement: Option<StatementBody>,
    /// The inner receipt.
    #[n(12)]
    pub receipt: Option<ReceiptOpening>,
    /// The revocation, where there was one.
    #[n(13)]
    pub revocation: Option<RevocationBody>,
    /// The destination's one-time key, revealed to convict a source that lodged a wrong key.
    #[n(14)]
    pub revealed_key: Option<RevealedKey>,
    /// SHA-256 over the encoding of elements 0 to 14.
    #[n(15)]
    checksum: Digest,
}

/// A hospital's public keys with the chain that certifies its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Signer {
    /// Both public keys.
    #[n(0)]
    pub keys: HospitalKeys,
    /// Signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
}

impl Evidence {
    /// An empty file around a proof.
    #[must_use]
    pub fn new(authority: AuthorityStatementBody, log: CheckpointPolicy, proof: ProofBundle) -> Self {
        Self {
            version: VERSION,
            authority,
            log,
            proof,
            delegation: None,
            request: None,
            grant: None,
            source: None,
            manifest: None,
            delivery: None,
            release: None,
            statement: None,
            receipt: None,
            revocation: None,
            revealed_key: None,
            checksum: Digest([0; 32]),
        }
    }

    /// What the source holds of a case; `own` are its keys, with the chain of today where the case keeps none of its own time.
    #[must_use]
    pub fn of_source(authority: AuthorityStatementBody, log: CheckpointPolicy, case: &SourceCase, own: Signer) -> Self {
        let own = Signer { chain: case.chain.clone().unwrap_or(own.chain), keys: own.keys };
        Self {
            request: Some(case.request.clone()),
            grant: case.grant.clone(),
            source: Some(own),
            manifest: case.manifest.clone(),
            statement: case.statement.clone(),
            receipt: case.receipt.clone(),
            ..Self::new(authority, log, case.request.proof.clone())
        }
    }

    /// What the destination holds of a case.
    #[must_use]
    pub fn of_destination(authority: AuthorityStatementBody, log: CheckpointPolicy, case: &DestinationCase) -> Self {
        let source = case.source_chain.clone().map(|chain| Signer { keys: case.source_keys.clone(), chain });
        Self {
            request: Some(case.request.clone()),
            source,
            manifest: case.manifest.clone(),
            delivery: case.delivery.clone(),
            release: case.release.clone(),
            statement: case.statement.clone(),
            receipt: case.receipt_opening.clone(),
            revealed_key: case.revealed_key.clone(),
            ..Self::new(authority, log, case.request.proof.clone())
        }
    }

    /// Adds the patient's delegation.
    pub fn add_delegation(&mut self, draft: &Draft, body: DelegationBody) {
        debug_assert!(draft.delegation.as_ref() == Some(&body.delegation), "the body is this draft's");
        self.delegation = Some(body);
    }

    /// Takes over from another party's file of the same case whatever is missing here.
    pub fn merge(&mut self, other: Self) {
        fn fill<T>(mine: &mut Option<T>, theirs: Option<T>) {
            if mine.is_none() {
                *mine = theirs;
            }
        }
        fill(&mut self.delegation, other.delegation);
        fill(&mut self.request, other.request);
        fill(&mut self.grant, other.grant);
        fill(&mut self.source, other.source);
        fill(&mut self.manifest, other.manifest);
        fill(&mut self.delivery, other.delivery);
        fill(&mut self.release, other.release);
        fill(&mut self.statement, other.statement);
        fill(&mut self.receipt, other.receipt);
        fill(&mut self.revocation, other.revocation);
        fill(&mut self.revealed_key, other.revealed_key);
    }

    /// The file's bytes, with its checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_cbor(&Self { checksum: self.compute_checksum(), ..self.clone() })
    }

    /// Parses a file. Its checksum is judged, not parsed: a damaged file still tells what is damaged.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let evidence: Self = from_cbor("evidence", bytes, MAX_EVIDENCE_BYTES)?;
        if evidence.version == VERSION { Ok(evidence) } else { Err(DecodeError::Version(evidence.version)) }
    }

    fn compute_checksum(&self) -> Digest {
        let zeroed = to_cbor(&Self { checksum: Digest([0; 32]), ..self.clone() });
        sha256(&[b"waybill/1 evidence", &zeroed])
    }

    fn checksum_holds(&self) -> bool {
        self.checksum == self.compute_checksum()
    }
}
