//! The destination: asks, receives, verifies every resource, files exactly once, signs the receipt.

mod checks;
mod ending;

pub use checks::{PresentationOpened, PresentationVerified, PresenterVerified};

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, HpkeSecretKey, KeyId, Thumb};
use waybill_crypto::stream::{RecordKey, StreamKeys};
use waybill_record::identity::Demographics;
use waybill_record::loss::LossReport;
use waybill_record::scope::Scope;
use zeroize::Zeroizing;

use crate::ids::{HospitalId, ManifestId, Nonce, ProofId, SessionId, Timestamp};
use crate::log::LeafKind;
use crate::messages::{
    Chain, DeliveryBody, DeliveryReceipt, ImportReceipt, KeyLodgement, KeyRelease, MAX_INNER_RECEIPT_BYTES, Manifest,
    ManifestBody, ManifestPlain, OutcomeClass, ProofBundle, ReceiptBody, ReceiptDetail, ReceiptOpening, ReleaseBody,
    StatementBody, TransferBody, TransferRequest,
};
use crate::migration::{DestinationState, Effect, Recipient, post, settle};
use crate::registrar::{HospitalIdentity, LocalPatient};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, SignedBytes};
use crate::source::{RECEIPT_COMMITMENT, identity_binding};
use crate::trust::{Ctx, Trust};
use crate::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};

/// The destination's role.
pub struct Destination<'a> {
    /// Clock and primitives.
    pub ctx: Ctx<'a>,
    /// Who we are.
    pub hospital: &'a HospitalIdentity,
    /// Whom we believe.
    pub trust: &'a Trust,
}

/// How many attempts a destination makes under one proof.
pub const MOST_ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles with each. Units: seconds.
const PAUSE_SECONDS: u64 = 2;

/// The row of a case at the destination, keyed by proof id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DestinationCase {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// The session of the open attempt.
    #[n(1)]
    pub session: SessionId,
    /// Where it stands.
    #[n(2)]
    pub state: DestinationState,
    /// The local patient.
    #[n(3)]
    pub local: LocalPatient,
    /// The source.
    #[n(4)]
    pub source: HospitalId,
    /// Its keys: whatever it signs in this case is verified under these only.
    #[n(5)]
    pub source_keys: HospitalKeys,
    /// What may travel.
    #[n(6)]
    pub scope: Scope,
    /// The attempt.
    #[n(7)]
    pub attempt: u32,
    /// Last second of the proof.
    #[n(8)]
    pub expires: Timestamp,
    /// The patient's receipt key.
    #[n(9)]
    pub patient_key: HpkePublicKey,
    /// The request as sent.
    #[n(10)]
    pub request: TransferBody,
    /// The manifest.
    #[n(11)]
    pub manifest: Option<SignedBytes<Manifest>>,
    /// Our receipt for the ciphertext.
    #[n(12)]
    pub delivery: Option<SignedBytes<DeliveryReceipt>>,
    /// The key's release.
    #[n(13)]
    pub release: Option<ReleaseBody>,
    /// Our receipt for the record.
    #[n(14)]
    pub receipt: Option<ReceiptBody>,
    /// The inner receipt.
    #[n(15)]
    pub receipt_opening: Option<ReceiptOpening>,
    /// Why it was rejected or refused.
    #[n(16)]
    pub code: Option<Code>,
    /// The authority's statement.
    #[n(17)]
    pub statement: Option<StatementBody>,
    /// The one-time private key, revealed only to convict a source that lodged a wrong key.
    #[n(18)]
    pub revealed_key: Option<RevealedKey>,
    /// The mailbox the patient hears refusals in.
    #[n(19)]
    pub reply_to: Option<String>,
    /// The chain that came with the manifest: it certifies the source's pinned key, for evidence.
    #[n(20)]
    pub source_chain: Option<Chain>,
    /// The keys of ours that the patient pinned, and that sign in this case: after a change of keys, those that were replaced.
    #[n(21)]
    pub own: Thumb,
    /// Which key presented: when that key is withdrawn, so is the case.
    #[n(22)]
    pub presenter: KeyId,
}

/// A one-time private key given away as evidence: its session is over and nothing else was sealed to it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RevealedKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl std::fmt::Debug for RevealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RevealedKey(..)")
    }
}

/// What filing gave, as the shell counted it.
#[derive(Debug, Clone)]
pub struct Filing {
    /// The inner receipt.
    pub detail: ReceiptDetail,
    /// Filed or rejected.
    pub outcome: OutcomeClass,
}

/// A new row with what else must happen.
pub type Transition = (DestinationCase, Vec<Effect>);

impl Destination<'_> {
    /// Opens the case: a fresh one-time key, our claim about the patient sealed to the source, the request signed.
    ///
    /// The shell makes the one-time key durable, outside backups, before it commits the case.
    ///
    /// # Errors
    /// `malformed` when the source's HPKE key is no point.
    pub fn open_case(
        &self,
        verified: PresentationVerified,
        ours: &Demographics,
        attempt: u32,
    ) -> Result<(HpkeSecretKey, Transition), Rejection> {
        let proof = verified.proof();
        let terms = verified.migration_proof().message().terms.clone();
        let said = verified.presentation.message();
        let (secret, request) = self.request(proof, said.consent, &said.source, ours, attempt)?;
        let session = SessionId(request.id().0);
        let body = TransferBody {
            request: SignedBytes::from(&request),
            chain: self.hospital.chain.clone(),
            proof: verified.bundle.clone(),
            consent: verified.consent.clone(),
        };
        let case = DestinationCase {
            proof,
            session,
            state: DestinationState::Requested,
            local: verified.local.clone(),
            source: terms.source.clone(),
            source_keys: said.source.clone(),
            scope: said.scope.clone(),
            attempt,
            expires: terms.expires,
            patient_key: terms.reply_key,
            request: body,
            manifest: None,
            delivery: None,
            release: None,
            receipt: None,
            receipt_opening: None,
            code: None,
            statement: None,
            revealed_key: None,
            reply_to: said.reply_to.clone(),
            source_chain: None,
            own: self.hospital.keys().thumb(),
            presenter: verified.presentation.kid(),
        };
        let effects = vec![self.ask(&case), Effect::Deadline(case.expires.plus(1))];
        Ok((secret, (case, effects)))
    }

    /// A further attempt under the same proof, with a fresh one-time key: the old session is dead.
    ///
    /// # Errors
    /// `malformed`, as [`Destination::open_case`].
    pub fn next_attempt(
        &self,
        mut case: DestinationCase,
        ours: &Demographics,
    ) -> Result<(HpkeSecretKey, Transition), Rejection> {
        if case.state != DestinationState::AttemptFailed {
            return Err(Code::UnexpectedMessage.into());
        }
        let consent = case.request.consent.digest();
        let attempt = case.attempt + 1;
        let (secret, request) = self.request(case.proof, consent, &case.source_keys, ours, attempt)?;
        case.request.request = SignedBytes::from(&request);
        case.session = SessionId(request.id().0);
        (case.state, case.attempt) = (DestinationState::Requested, attempt);
        (case.manifest, case.source_chain, case.delivery, case.release) = (None, None, None, None);
        let effects = vec![self.ask(&case), Effect::Deadline(case.expires.plus(1))];
        Ok((secret, (case, effects)))
    }

    fn request(
        &self,
        proof: ProofId,
        consent: Digest,
        source: &HospitalKeys,
        ours: &Demographics,
        attempt: u32,
    ) -> Result<(HpkeSecretKey, Signed<TransferRequest>), Rejection> {
        let secret = self.ctx.backend.generate_hpke_key();
        let bound = identity_binding(proof, secret.public());
        let claim = to_cbor(ours);
        let identity_claim =
            SealedBytes::seal(self.ctx.backend, &source.hpke, SealPurpose::IdentityClaim, &bound, &claim)
                .map_err(|_| Code::Malformed)?;
        let request = TransferRequest {
            proof,
            consent,
            session_key: *secret.public(),
            attempt,
            nonce: Nonce::random(self.ctx.backend),
            time: self.ctx.now,
            identity_claim,
            keys: self.hospital.keys(),
        };
        Ok((secret, Signed::sign(self.ctx.backend, &self.hospital.signing, request)))
    }

    /// The request of a case, to be posted until a manifest comes.
    #[must_use]
    pub fn ask(&self, case: &DestinationCase) -> Effect {
        let parcel = Parcel::pack(Kind::TransferRequest, &case.request);
        post(Recipient::Hospital(case.source.clone()), parcel, case.session.0, Kind::Manifest)
    }

    /// Takes the manifest: it opens under the session's one-time key, the source's pinned key signed it for this session, and the
    /// chain beside it certifies that key.
    ///
    /// # Errors
    /// `manifest-invalid`, `manifest-too-large`, `unexpected-message`, or a certificate's rejection.
    pub fn handle_manifest(
        &self,
        mut case: DestinationCase,
        body: &ManifestBody,
        secret: &HpkeSecretKey,
        largest_stream_bytes: u64,
    ) -> Result<Transition, Rejection> {
        if case.state != DestinationState::Requested || body.session != case.session {
            return Err(Code::UnexpectedMessage.into());
        }
        let plain = body
            .sealed
            .open(self.ctx.backend, secret, SealPurpose::Manifest, case.session.as_bytes())
            .map_err(|_| Code::ManifestInvalid)?;
        let plain: ManifestPlain = from_cbor("manifest", &plain, MAX_PARCEL_BYTES)?;
        let (bytes, chain) = (plain.manifest, plain.chain);
        let manifest =
            bytes.parse()?.verify(self.ctx.backend, &case.source_keys.signing).map_err(|_| Code::ManifestInvalid)?;
        let certified = self.trust.verify_hospital(&self.ctx, &chain)?;
        if certified.id() != &case.source || certified.key() != &case.source_keys.signing {
            return Err(Code::ManifestInvalid.into());
        }
        let said = manifest.message();
        if said.proof != case.proof || said.session != case.session {
            return Err(Code::ManifestInvalid.into());
        }
        if said.stream_bytes > largest_stream_bytes {
            return Err(Code::ManifestTooLarge.into());
        }
        case.state = DestinationState::Receiving;
        (case.manifest, case.source_chain) = (Some(bytes), Some(chain));
        let effects = vec![settle(case.session.0, Kind::Manifest)];
        Ok((case, effects))
    }

    /// Every chunk is here, durable, and under the manifest's root: sign for the ciphertext.
    ///
    /// # Errors
    /// `unexpected-message`.
    pub fn handle_delivered(&self, mut case: DestinationCase, root: &Digest) -> Result<Transition, Rejection> {
        let manifest = self.manifest_of(&case)?;
        if case.state != DestinationState::Receiving || root != &manifest.1.merkle_root {
            return Err(Code::UnexpectedMessage.into());
        }
        let delivery =
            DeliveryReceipt { proof: case.proof, manifest: manifest.0, session: case.session, time: self.ctx.now };
        let delivery = Signed::sign(self.ctx.backend, &self.hospital.signing, delivery);
        let body = DeliveryBody { delivery: SignedBytes::from(&delivery), chain: self.hospital.chain.clone() };
        case.state = DestinationState::Delivered;
        case.delivery = Some(SignedBytes::from(&delivery));
        let parcel = Parcel::pack(Kind::DeliveryReceipt, &body);
        let effects = vec![post(Recipient::Authority, parcel, case.proof.0, Kind::KeyRelease)];
        Ok((case, effects))
    }

    /// The manifest of a case. It was verified when it came in and is kept as its exact bytes.
    ///
    /// # Errors
    /// `unexpected-message` when none has come.
    pub fn manifest_of(&self, case: &DestinationCase) -> Result<(ManifestId, Manifest), Rejection> {
        let parsed = case.manifest.as_ref().ok_or(Code::UnexpectedMessage)?.parse()?;
        Ok((ManifestId(parsed.message_id().0), parsed.peek().clone()))
    }

    /// Takes the released key: the authority signed and logged the release, the source's pinned key signed the lodgement for this
    /// manifest, and the key is the one the manifest commits to.
    ///
    /// With a wrong key the case ends here, rejected, and the one-time private key is revealed: anybody can then see who lied.
    ///
    /// # Errors
    /// `release-invalid`, `log-evidence-invalid`, `unexpected-message`.
    pub fn handle_release(
        &self,
        case: DestinationCase,
        body: ReleaseBody,
        secret: &HpkeSecretKey,
    ) -> Result<(Option<StreamKeys>, Transition), Rejection> {
        let lodgement = self.verify_release(&case, &body)?;
        let (hm, manifest) = self.manifest_of(&case)?;
        let keys = open_key(&self.ctx, &lodgement.message().sealed_key, secret, hm, &case.session, &manifest);
        let (mut case, mut effects) = hold(case, body);
        if keys.is_none() {
            case.revealed_key = Some(RevealedKey(*secret.to_bytes()));
            let detail = rejection_detail(&manifest, Code::WrongKeyLodged);
            let (case, more) = self.handle_filed(case, &Filing { detail, outcome: OutcomeClass::Rejected })?;
            effects.extend(more);
            return Ok((None, (case, effects)));
        }
        Ok((keys, (case, effects)))
    }

    /// Takes the released key without the one-time secret that would open it (this store was restored from a backup): nothing can
    /// be filed, but the receipt that says so, `session-lost`, still ends the case for everybody.
    ///
    /// # Errors
    /// As [`Destination::handle_release`].
    pub fn hold_without_key(&self, case: DestinationCase, body: ReleaseBody) -> Result<Transition, Rejection> {
        self.verify_release(&case, &body)?;
        Ok(hold(case, body))
    }

    fn verify_release(&self, case: &DestinationCase, body: &ReleaseBody) -> Result<Signed<KeyLodgement>, Rejection> {
        if case.state != DestinationState::Delivered {
            return Err(Code::UnexpectedMessage.into());
        }
        let (hm, _) = self.manifest_of(case)?;
        let release: Signed<KeyRelease> = self.trust.verify_authority(&self.ctx, &body.release)?;
        self.trust.verify_logged(&self.ctx, &body.evidence, LeafKind::RELEASE, release.id())?;
        let lodgement = body.lodgement.parse()?.verify(self.ctx.backend, &case.source_keys.signing);
        let lodgement = lodgement.map_err(|_| Code::LodgementInvalid)?;
        let delivery = case.delivery.as_ref().ok_or(Code::UnexpectedMessage)?.parse()?.message_id();
        let said = release.message();
        let bound = said.proof == case.proof
            && said.lodgement == lodgement.id()
            && said.delivery == delivery
            && lodgement.message().proof == case.proof
            && lodgement.message().session == case.session
            && lodgement.message().manifest == hm;
        if bound { Ok(lodgement) } else { Err(Code::ReleaseInvalid.into()) }
    }

    /// Recovers the stream keys after a restart.
    #[must_use]
    pub fn stream_keys(&self, case: &DestinationCase, secret: &HpkeSecretKey) -> Option<StreamKeys> {
        let (hm, manifest) = self.manifest_of(case).ok()?;
        let lodgement = case.release.as_ref()?.lodgement.parse().ok()?;
        open_key(&self.ctx, &lodgement.peek().sealed_key, secret, hm, &case.session, &manifest)
    }

    /// Filing is decided: sign the receipt. The shell makes the record visible in the same transaction.
    ///
    /// # Errors
    /// `unexpected-message` in another state; `malformed` when a reply key is no point.
    pub fn handle_filed(&self, mut case: DestinationCase, filing: &Filing) -> Result<Transition, Rejection> {
        if case.state != DestinationState::KeyHeld {
            return Err(Code::UnexpectedMessage.into());
        }
        let (hm, manifest) = self.manifest_of(&case)?;
        let mut opening = [0; 32];
        self.ctx.backend.random(&mut opening);
        let opening = ReceiptOpening { opening: Opening(opening), detail: bounded_detail(&filing.detail) };
        let commitment = Commitment::commit(RECEIPT_COMMITMENT, &opening.opening, &opening.detail);
        let receipt =
            ImportReceipt { proof: case.proof, manifest: hm, outcome: filing.outcome, commitment, time: self.ctx.now };
        let receipt = Signed::sign(self.ctx.backend, &self.hospital.signing, receipt);
        let plain = to_cbor(&opening);
        let seal = |to: &HpkePublicKey, purpose| {
            SealedBytes::seal(self.ctx.backend, to, purpose, hm.as_bytes(), &plain)
                .map_err(|_| Rejection::from(Code::Malformed))
        };
        let body = ReceiptBody {
            receipt: SignedBytes::from(&receipt),
            chain: self.hospital.chain.clone(),
            for_source: seal(&manifest.reply_key, SealPurpose::ReceiptSource)?,
            for_patient: seal(&case.patient_key, SealPurpose::ReceiptPatient)?,
        };
        let parcel = Parcel::pack(Kind::ImportReceipt, &body);
        case.state = match filing.outcome {
            OutcomeClass::Filed => DestinationState::Filed,
            OutcomeClass::Rejected => DestinationState::Rejected,
        };
        case.code = filing.detail.code;
        case.receipt = Some(body);
        case.receipt_opening = Some(opening);
        let effects = vec![post(Recipient::Authority, parcel, case.proof.0, Kind::CaseStatement)];
        Ok((case, effects))
    }
}

/// The release is here, and with it the word of the authority: whatever was noted while we waited for it is overtaken.
fn hold(mut case: DestinationCase, body: ReleaseBody) -> Transition {
    (case.state, case.code, case.release) = (DestinationState::KeyHeld, None, Some(body));
    let effects = vec![settle(case.proof.0, Kind::KeyRelease)];
    (case, effects)
}

/// Opens the sealed record key and holds it against the manifest's commitment.
fn open_key(
    ctx: &Ctx<'_>,
    sealed: &SealedBytes,
    secret: &HpkeSecretKey,
    hm: ManifestId,
    session: &SessionId,
    manifest: &Manifest,
) -> Option<StreamKeys> {
    let plain = Zeroizing::new(sealed.open(ctx.backend, secret, SealPurpose::RecordKey, hm.as_bytes()).ok()?);
    let key = RecordKey::from_bytes(plain.as_slice().try_into().ok()?);
    let keys = StreamKeys::derive(&session.0, &key);
    keys.match_commitment(&manifest.key_commitment).then_some(keys)
}

/// What sealing and the opening around a detail add to it, at most. Units: bytes.
const INNER_OVERHEAD_BYTES: usize = 128;

/// The detail as it travels: where it would be too large for a receipt, the loss report goes without its lists of items and keeps
/// every number; a report that cannot be read (the source's, of a record that was rejected unread) does not go at all.
fn bounded_detail(detail: &ReceiptDetail) -> Vec<u8> {
    let whole = to_cbor(detail);
    if whole.len() + INNER_OVERHEAD_BYTES <= MAX_INNER_RECEIPT_BYTES {
        return whole;
    }
    let report: Option<LossReport> = from_cbor("loss report", &detail.loss, MAX_PARCEL_BYTES).ok();
    let loss = report.map_or_else(Vec::new, |report| to_cbor(&report.without_lists()));
    to_cbor(&ReceiptDetail { loss, ..detail.clone() })
}

/// The inner receipt of a record of which nothing was filed.
#[must_use]
pub fn rejection_detail(manifest: &Manifest, code: Code) -> ReceiptDetail {
    ReceiptDetail {
        inventory: Vec::new(),
        offered: manifest.inventory.iter().map(|t| t.count).sum(),
        filed: 0,
        quarantined: 0,
        digest: waybill_crypto::lthash::RecordDigest::default().short(),
        code: Some(code),
        loss: manifest.loss.clone(),
    }
}

/// The bundle of a case's proof.
impl DestinationCase {
    /// Proof, chain and log evidence.
    #[must_use]
    pub fn proof_bundle(&self) -> &ProofBundle {
        &self.request.proof
    }
}
