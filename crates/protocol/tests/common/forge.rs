//! A transfer request and a presentation made by hand, every input of them honest until a test alters exactly one.

use waybill_crypto::backend::Backend as _;
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, SigningKey};
use waybill_protocol::ids::{HospitalId, MessageId, Nonce, ProofId, Timestamp};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    Chain, Consent, MigrationProof, Presentation, PresentationBody, ProofBundle, SUITE, Terms, TransferBody,
    TransferRequest,
};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::to_cbor;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::{A, AUTHORITY, B, REPLY, World, id};

pub struct Forge {
    // The proof and its place in the log.
    pub terms: Terms,
    pub authority: HospitalId,
    pub proof_key: SigningKey,
    pub proof_chain: Chain,
    pub leaf: LeafKind,
    pub cosigners: usize,
    // The consent; its proof is filled in unless a test names another.
    pub consent: Consent,
    pub consent_proof: Option<ProofId>,
    pub consent_key: SigningKey,
    pub consent_to: HpkePublicKey,
    pub consent_bound: String,
    pub consent_plain: Option<Vec<u8>>,
    pub consent_forged: bool,
    // The presentation.
    pub presentation: Presentation,
    pub presentation_proof: Option<ProofId>,
    pub presentation_consent: Option<Digest>,
    pub presentation_key: SigningKey,
    pub presentation_to: HpkePublicKey,
    pub presentation_bound: String,
    // The request.
    pub sender_key: SigningKey,
    pub sender_keys: HospitalKeys,
    pub sender_chain: Chain,
    pub request_proof: Option<ProofId>,
    pub request_consent: Option<Digest>,
    pub request_forged: bool,
    pub claim: Vec<u8>,
    pub claim_bound: Option<[u8; 32]>,
}

impl Forge {
    pub fn honest(world: &World) -> Self {
        let (a, b) = (&world.a, &world.b);
        let opening = |n: u8| Opening::from_bytes([n; 32]);
        let (pid_a, pid_b) = (world.patient().pid(&id(A), 0), world.patient().pid(&id(B), 0));
        let (scope, hides) = (Scope::full(), Hides::default());
        let commit = |kind: &str, n: u8, value: &[u8]| Commitment::commit(kind, &opening(n), value);
        let terms = Terms {
            source: id(A),
            destination: id(B),
            com_source: commit("pid-source", 1, &to_cbor(&pid_a)),
            com_destination: commit("pid-destination", 2, &to_cbor(&pid_b)),
            com_scope: commit("scope", 3, &to_cbor(&scope)),
            com_hides: commit("hides", 4, &to_cbor(&hides)),
            not_before: Timestamp(world.now.0 - 60),
            expires: world.now.plus(3600),
            revocation_key: world.root.revocation_key(99).public().clone(),
            reply_key: *super::fresh_hpke(world).public(),
        };
        let nowhere = ProofId(Digest([0; 32]));
        let consent = Consent {
            proof: nowhere,
            pid: pid_a,
            pid_opening: opening(1),
            scope: scope.clone(),
            scope_opening: opening(3),
            hides,
            hides_opening: opening(4),
            destination: b.identity.keys().thumb(),
        };
        let presentation = Presentation {
            proof: nowhere,
            pid: pid_b,
            pid_opening: opening(2),
            scope,
            scope_opening: opening(3),
            source: a.identity.keys(),
            consent: Digest([0; 32]),
            reply_to: Some(REPLY.to_owned()),
        };
        Self {
            terms,
            authority: id(AUTHORITY),
            proof_key: world.authority.proof_signing.clone(),
            proof_chain: world.authority.chain.clone(),
            leaf: LeafKind::PROOF,
            cosigners: 2,
            consent,
            consent_proof: None,
            consent_key: world.root.consent_key(A, 0),
            consent_to: a.identity.keys().hpke,
            consent_bound: A.to_owned(),
            consent_plain: None,
            consent_forged: false,
            presentation,
            presentation_proof: None,
            presentation_consent: None,
            presentation_key: world.root.consent_key(B, 0),
            presentation_to: b.identity.keys().hpke,
            presentation_bound: B.to_owned(),
            sender_key: b.identity.signing.clone(),
            sender_keys: b.identity.keys(),
            sender_chain: b.identity.chain.clone(),
            request_proof: None,
            request_consent: None,
            request_forged: false,
            claim: to_cbor(&b.patient),
            claim_bound: None,
        }
    }

    /// The proof, signed and logged as the fields say.
    pub fn bundle(&self, world: &mut World) -> (ProofId, ProofBundle) {
        let proof = MigrationProof {
            suite: SUITE,
            authority: self.authority.clone(),
            delegation: MessageId(Digest([9; 32])),
            terms: self.terms.clone(),
            issued_at: world.now,
        };
        let proof = Signed::sign(&world.network.backend, &self.proof_key, proof);
        world.log.cosigners = self.cosigners;
        let evidence = world.log.append(&world.network.backend, self.leaf, &proof.id().0, [3; 16]);
        world.log.cosigners = 2;
        let bundle = ProofBundle { proof: SignedBytes::from(&proof), chain: self.proof_chain.clone(), evidence };
        (ProofId(proof.id().0), bundle)
    }

    pub fn sealed_consent(&self, world: &World, proof: ProofId) -> SealedBytes {
        let backend = &world.network.backend;
        let consent = Consent { proof: self.consent_proof.unwrap_or(proof), ..self.consent.clone() };
        let mut bytes = Signed::sign(backend, &self.consent_key, consent).bytes().to_vec();
        if self.consent_forged {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let plain = self.consent_plain.as_ref().unwrap_or(&bytes);
        SealedBytes::seal(backend, &self.consent_to, SealPurpose::Consent, self.consent_bound.as_bytes(), plain)
            .unwrap()
    }

    /// What the destination would post.
    pub fn request(&self, world: &mut World) -> TransferBody {
        let (id, proof) = self.bundle(world);
        let backend = &world.network.backend;
        let consent = self.sealed_consent(world, id);
        let session_key = *backend.generate_hpke_key().public();
        let bound = self.claim_bound.unwrap_or_else(|| sha256(&[id.as_bytes(), &session_key.0]).0);
        let to = world.a.identity.keys().hpke;
        let identity_claim = SealedBytes::seal(backend, &to, SealPurpose::IdentityClaim, &bound, &self.claim).unwrap();
        let request = TransferRequest {
            proof: self.request_proof.unwrap_or(id),
            consent: self.request_consent.unwrap_or_else(|| consent.digest()),
            session_key,
            attempt: 1,
            nonce: Nonce([4; 16]),
            time: world.now,
            identity_claim,
            keys: self.sender_keys.clone(),
        };
        let mut request = SignedBytes::from(&Signed::sign(backend, &self.sender_key, request));
        if self.request_forged {
            request = super::forged(&request);
        }
        TransferBody { request, chain: self.sender_chain.clone(), proof, consent }
    }

    /// What the patient would post.
    pub fn presentation(&self, world: &mut World) -> SealedBytes {
        let (id, proof) = self.bundle(world);
        let backend = &world.network.backend;
        let consent = self.sealed_consent(world, id);
        let presentation = Presentation {
            proof: self.presentation_proof.unwrap_or(id),
            consent: self.presentation_consent.unwrap_or_else(|| consent.digest()),
            ..self.presentation.clone()
        };
        let presentation = Signed::sign(backend, &self.presentation_key, presentation);
        let body = PresentationBody { presentation: SignedBytes::from(&presentation), proof, consent };
        let bound = self.presentation_bound.as_bytes();
        SealedBytes::seal(backend, &self.presentation_to, SealPurpose::Presentation, bound, &to_cbor(&body)).unwrap()
    }
}
