//! Whom a party believes: the pinned root, the revocation list, the log with its witnesses, the authority's online keys.

use std::collections::BTreeMap;

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::{CertificateError, ChainCache, Crl, Profile, TrustAnchor, VerifiedCertificate};
use waybill_crypto::keys::{HpkePublicKey, KeyId, VerifyingKey};

use crate::ids::{HospitalId, MessageId, Timestamp};
use crate::log::{CheckpointPolicy, CosignedCheckpoint, LeafKind, LogEvidence};
use crate::messages::{AuthorityStatementBody, Chain, MigrationProof, ProofBundle};
use crate::rejection::{Code, Rejection};
use crate::signed::{Message, Signed, SignedBytes};

/// A clock and the primitives: what every handler is given besides its input.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// The caller's clock.
    pub now: Timestamp,
    /// Primitives and randomness.
    pub backend: &'a dyn Backend,
}

/// A hospital whose signing certificate was verified for this purpose at this time.
///
/// Only [`Trust::verify_hospital`] makes one.
#[derive(Debug, Clone)]
pub struct HospitalVerified {
    id: HospitalId,
    key: VerifyingKey,
}

impl HospitalVerified {
    /// Its id, from the certificate.
    pub fn id(&self) -> &HospitalId {
        &self.id
    }

    /// Its signing key, from the certificate.
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }
}

/// A proof that the authority signed and logged before enough witnesses.
///
/// Only [`Trust::verify_proof`] makes one.
#[derive(Debug, Clone)]
pub struct ProofVerified {
    proof: Signed<MigrationProof>,
    checkpoint: CosignedCheckpoint,
}

impl ProofVerified {
    /// The proof.
    pub fn proof(&self) -> &Signed<MigrationProof> {
        &self.proof
    }

    /// The log view that shows it.
    pub fn checkpoint(&self) -> &CosignedCheckpoint {
        &self.checkpoint
    }
}

/// What a hospital or a wallet believes. Kept current by the shell (CRL, authority statement); the root never changes.
pub struct Trust {
    authority: HospitalId,
    anchor: TrustAnchor,
    log: CheckpointPolicy,
    crl: Crl,
    chains: ChainCache,
    authority_keys: BTreeMap<KeyId, Chain>,
    lodgement_key: Option<HpkePublicKey>,
}

impl Trust {
    /// Trust in one authority, with what was pinned at set-up and the newest verified revocation list.
    #[must_use]
    pub fn new(authority: HospitalId, anchor: TrustAnchor, log: CheckpointPolicy, crl: Crl) -> Self {
        let (chains, authority_keys) = (ChainCache::default(), BTreeMap::new());
        Self { authority, anchor, log, crl, chains, authority_keys, lodgement_key: None }
    }

    /// The authority's id.
    pub fn authority(&self) -> &HospitalId {
        &self.authority
    }

    /// The pinned root.
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// The log and the witnesses it must be seen by.
    pub fn log(&self) -> &CheckpointPolicy {
        &self.log
    }

    /// The authority's lodgement key, once its statement was accepted.
    pub fn lodgement_key(&self) -> Option<&HpkePublicKey> {
        self.lodgement_key.as_ref()
    }

    /// The revocation list in force.
    pub fn crl(&self) -> &Crl {
        &self.crl
    }

    /// Puts a newer revocation list in place.
    pub fn renew_crl(&mut self, crl: Crl) {
        self.crl = crl;
    }

    /// Accepts the authority's signed description of its online keys.
    ///
    /// # Errors
    /// A [`Rejection`] when it is not signed under the pinned root, or describes another authority or log than the one pinned.
    pub fn accept_statement(&mut self, ctx: &Ctx<'_>, body: &AuthorityStatementBody) -> Result<(), Rejection> {
        let verified = self.verify_chain(ctx, &body.chain, Profile::ProofSigning)?;
        let statement =
            body.statement.parse()?.verify(ctx.backend, &verified.public_key).map_err(|_| Code::SignatureInvalid)?;
        let said = statement.message();
        if said.authority != self.authority || verified.subject != self.authority.as_str() {
            return Err(Code::SenderWrong.into());
        }
        if said.log_origin != self.log.origin().as_str() || &said.log_key != self.log.log_key().public_key() {
            return Err(Code::LogInconsistent.into());
        }
        self.lodgement_key = Some(said.lodgement_key);
        self.authority_keys.insert(verified.public_key.kid(), body.chain.clone());
        Ok(())
    }

    /// Verifies a hospital's signing chain: path, usage, validity, revocation.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `sender`.
    pub fn verify_hospital(&self, ctx: &Ctx<'_>, chain: &Chain) -> Result<HospitalVerified, Rejection> {
        let verified = self.verify_chain(ctx, chain, Profile::HospitalSigning)?;
        let id = HospitalId::parse(&verified.subject).map_err(|_| Code::CertificateInvalid)?;
        Ok(HospitalVerified { id, key: verified.public_key })
    }

    /// Verifies a proof's signature, its chain and its place in the witnessed log.
    ///
    /// # Errors
    /// `proof-invalid`, `log-evidence-invalid`, or a certificate's rejection.
    pub fn verify_proof(&self, ctx: &Ctx<'_>, bundle: &ProofBundle) -> Result<ProofVerified, Rejection> {
        let verified = self.verify_chain(ctx, &bundle.chain, Profile::ProofSigning)?;
        if verified.subject != self.authority.as_str() {
            return Err(Code::ProofInvalid.into());
        }
        let proof = bundle.proof.parse()?.verify(ctx.backend, &verified.public_key).map_err(|_| Code::ProofInvalid)?;
        if proof.message().authority != self.authority {
            return Err(Code::ProofInvalid.into());
        }
        let checkpoint = self.verify_logged(ctx, &bundle.evidence, LeafKind::PROOF, proof.id())?;
        Ok(ProofVerified { proof, checkpoint })
    }

    /// Verifies any other message of the authority under the keys its statement brought, whose chains are checked each time: a
    /// key that expired or was revoked since says nothing more.
    ///
    /// # Errors
    /// `signature-invalid` or a certificate's rejection.
    pub fn verify_authority<M: Message>(&self, ctx: &Ctx<'_>, bytes: &SignedBytes<M>) -> Result<Signed<M>, Rejection> {
        let unverified = bytes.parse()?;
        let chain = self.authority_keys.get(&unverified.kid()).ok_or(Code::SignatureInvalid)?;
        let certified = self.verify_chain(ctx, chain, Profile::ProofSigning)?;
        unverified.verify(ctx.backend, &certified.public_key).map_err(|_| Code::SignatureInvalid.into())
    }

    /// Verifies that a message is in the witnessed log.
    ///
    /// # Errors
    /// `log-evidence-invalid`.
    pub fn verify_logged(
        &self,
        ctx: &Ctx<'_>,
        evidence: &LogEvidence,
        kind: LeafKind,
        message: MessageId,
    ) -> Result<CosignedCheckpoint, Rejection> {
        evidence.verify(ctx.backend, &self.log, kind, &message.0).map_err(|_| Code::LogEvidenceInvalid.into())
    }

    fn verify_chain(&self, ctx: &Ctx<'_>, chain: &Chain, profile: Profile) -> Result<VerifiedCertificate, Rejection> {
        let certificates = chain.certificates()?;
        self.chains.verify_chain(ctx.backend, &self.anchor, &certificates, profile, ctx.now.0, &self.crl).map_err(|e| {
            let code = match e {
                CertificateError::Expired | CertificateError::NotYetValid => Code::CertificateExpired,
                CertificateError::Revoked => Code::CertificateRevoked,
                CertificateError::StaleCrl => Code::CrlStale,
                _ => Code::CertificateInvalid,
            };
            Rejection { code }
        })
    }
}
