//! The source: releases a record only against the authority's proof *and* the patient's own consent.
//!
//! [`checks`] is the gate, one capability type a check; this file is what follows: redeem, freeze, stage, lodge, close.

mod checks;
mod standing;

pub use checks::{
    ConsentOpened, ConsentVerified, IdentityCompared, IdentityVerdict, InWindow, PartiesVerified, ProofChecked,
    Received, SenderVerified,
};
pub(crate) use checks::{commitment_kind, identity_binding};
pub use standing::ConsentStands;

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, HpkeSecretKey, KeyId, Thumb};
use waybill_crypto::lthash::RecordDigest;
use waybill_crypto::stream::RecordKey;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use crate::ids::{HospitalId, ManifestId, Nonce, ProofId, SessionId, Timestamp};
use crate::log::{Checkpoint, CosignedCheckpoint, LeafKind, verify_consistency};
use crate::messages::{
    Chain, EndState, Grant, GrantBody, KeyLodgement, LodgementBody, Manifest, ManifestBody, ManifestPlain,
    OutcomeClass, ProofBundle, ReceiptDetail, ReceiptOpening, Redeem, RedeemBody, Refusal, RefusalBody, RevocationBody,
    Standing, StatementBody, TransferBody, TypeCount,
};
use crate::migration::{Effect, Recipient, SourceState, post, settle, tell};
use crate::registrar::{HospitalIdentity, LocalPatient};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, SignedBytes};
use crate::trust::{Ctx, Trust};
use crate::wire::{Kind, Parcel, from_cbor, to_cbor};

/// How far the source's clock may lie from the authority's. Units: seconds.
pub const CLOCK_SKEW_SECONDS: u64 = 300;

/// The source's role.
pub struct Source<'a> {
    /// Clock and primitives.
    pub ctx: Ctx<'a>,
    /// Who we are.
    pub hospital: &'a HospitalIdentity,
    /// Whom we believe.
    pub trust: &'a Trust,
}

/// The row of a case at the source, keyed by proof id: at once the durable single-use row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SourceCase {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// The session this attempt serves.
    #[n(1)]
    pub session: SessionId,
    /// Where it stands.
    #[n(2)]
    pub state: SourceState,
    /// The local patient.
    #[n(3)]
    pub local: LocalPatient,
    /// The destination.
    #[n(4)]
    pub destination: HospitalId,
    /// Its keys: whatever it signs in this case is verified under these only.
    #[n(5)]
    pub destination_keys: HospitalKeys,
    /// The destination's one-time key.
    #[n(6)]
    pub session_key: HpkePublicKey,
    /// The attempt.
    #[n(7)]
    pub attempt: u32,
    /// What may travel.
    #[n(8)]
    pub scope: Scope,
    /// What may not.
    #[n(9)]
    pub hides: Hides,
    /// Last second of the proof.
    #[n(10)]
    pub expires: Timestamp,
    /// The whole request as received: evidence.
    #[n(11)]
    pub request: TransferBody,
    /// The nonce of our redemption.
    #[n(12)]
    pub nonce: Nonce,
    /// The grant.
    #[n(13)]
    pub grant: Option<GrantBody>,
    /// The manifest.
    #[n(14)]
    pub manifest: Option<SignedBytes<Manifest>>,
    /// The lodgement, and what was posted of it.
    #[n(15)]
    pub lodgement: Option<SignedBytes<KeyLodgement>>,
    /// Why it ended, when it ended here.
    #[n(16)]
    pub code: Option<Code>,
    /// The authority's statement.
    #[n(17)]
    pub statement: Option<StatementBody>,
    /// Our copy of the destination's receipt, opened.
    #[n(18)]
    pub receipt: Option<ReceiptOpening>,
    /// Parcels of this attempt, to be posted again when the destination asks again.
    #[n(19)]
    pub manifest_parcel: Option<minicbor::bytes::ByteVec>,
    /// The newest log checkpoint known here when the authority was asked, as text. The answer proves that the log only grew since
    /// *this* one, whatever other cases have shown us in the meantime.
    #[n(20)]
    pub known: Option<String>,
    /// When we asked the authority, by our clock: no honest grant is older.
    #[n(21)]
    pub redeemed_at: Timestamp,
    /// Our chain when we signed manifest and lodgement: evidence needs that one, not a later renewal.
    #[n(22)]
    pub chain: Option<Chain>,
    /// The keys of ours that the patient pinned, and that sign in this case: after a change of keys, those that were replaced.
    #[n(23)]
    pub own: Thumb,
    /// Which key consented: when that key is withdrawn, so is the case.
    #[n(24)]
    pub consent_key: KeyId,
    /// By when a person must have compared the two patients, where one must.
    #[n(25)]
    pub review_by: Option<Timestamp>,
}

/// The right to read the record of one case: the authority granted, freshly and in the witnessed log.
///
/// Only [`Source::handle_grant`] makes one; freezing a snapshot demands it.
#[derive(Debug)]
pub struct Granted {
    proof: ProofId,
}

impl Granted {
    /// Of which case.
    #[must_use]
    pub fn proof(&self) -> ProofId {
        self.proof
    }

    /// Recovers the right after a restart, from a case that is durably in state `Granted`.
    #[must_use]
    pub fn resume(case: &SourceCase) -> Option<Self> {
        (case.state == SourceState::Granted && case.grant.is_some()).then_some(Self { proof: case.proof })
    }
}

/// What the shell staged: ciphertext chunks are durable, nothing has left.
pub struct Staged {
    /// When the record was frozen.
    pub snapshot_at: Timestamp,
    /// What travels, by type, ascending.
    pub inventory: Vec<TypeCount>,
    /// Padded plaintext length. Units: bytes.
    pub stream_bytes: u64,
    /// Plaintext bytes of a chunk.
    pub chunk_bytes: u32,
    /// How many chunks.
    pub chunk_count: u64,
    /// Address of the leaf list.
    pub leaf_list: Digest,
    /// Merkle root.
    pub merkle_root: Digest,
    /// Key commitment.
    pub key_commitment: Digest,
    /// Digest of what travels.
    pub digest_scope: RecordDigest,
    /// Digest of all that could.
    pub digest_full: RecordDigest,
    /// The source's part of the loss report, CBOR.
    pub loss: Vec<u8>,
    /// The record key. Destroyed once lodged.
    pub key: RecordKey,
    /// Our one-time key for the receipt; the shell keeps its secret half outside backups until the case closes.
    pub reply_key: HpkePublicKey,
}

/// What became of our copy of the inner receipt.
enum Inner {
    Opened(ReceiptOpening),
    Unread,
    Garbage,
}

/// A new row with what else must happen.
pub type Transition = (SourceCase, Vec<Effect>);

/// How a request with an unknown session may open a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The proof was never used here.
    First,
    /// The attempt before was declared failed by us.
    Next,
}

/// The source's own single-use rule, beside the authority's: one session a proof, unless we ourselves declared the attempt before
/// it failed.
///
/// # Errors
/// `proof-spent`.
pub fn admit(existing: Option<&SourceCase>, attempt: u32) -> Result<Admission, Rejection> {
    match existing {
        None => Ok(Admission::First),
        Some(case) if case.state == SourceState::AttemptFailed && attempt == case.attempt + 1 => Ok(Admission::Next),
        Some(_) => Err(Code::ProofSpent.into()),
    }
}

impl Source<'_> {
    /// After every check: the case row, and the redemption that asks the authority. With a doubt it waits for a person first, for
    /// `review_seconds` at most and never past the proof's end ([`Self::handle_overdue`]).
    #[must_use]
    pub fn open_case(&self, checked: IdentityCompared, known: Option<&Checkpoint>, review_seconds: u64) -> Transition {
        let doubt = checked.verdict() == IdentityVerdict::Doubt;
        let (consent, nonce) = (checked.into_consent(), Nonce::random(self.ctx.backend));
        let request = consent.request();
        let case = SourceCase {
            proof: ProofId(consent.proof().id().0),
            session: SessionId(request.id().0),
            state: if doubt { SourceState::AwaitingReview } else { SourceState::Redeeming },
            local: consent.local().clone(),
            destination: consent.proof().message().terms.destination.clone(),
            destination_keys: request.message().keys.clone(),
            session_key: request.message().session_key,
            attempt: request.message().attempt,
            scope: consent.consent().scope.clone(),
            hides: consent.consent().hides.clone(),
            expires: consent.proof().message().terms.expires,
            nonce,
            grant: None,
            manifest: None,
            lodgement: None,
            code: doubt.then_some(Code::IdentityDoubt),
            statement: None,
            receipt: None,
            manifest_parcel: None,
            known: known.map(Checkpoint::to_text),
            redeemed_at: self.ctx.now,
            chain: None,
            own: self.hospital.keys().thumb(),
            consent_key: consent.consent_key(),
            review_by: doubt.then(|| self.ctx.now.plus(review_seconds).min(consent.proof().message().terms.expires)),
            request: consent.into_body(),
        };
        let mut effects = vec![Effect::Deadline(case.review_by.unwrap_or(case.expires).plus(1))];
        if !doubt {
            effects.push(self.redeem(&case));
        }
        (case, effects)
    }

    /// A person has compared the two patients and vouches for them.
    ///
    /// # Errors
    /// `unexpected-message` when the case does not wait for a review.
    pub fn approve_review(
        &self,
        stands: &ConsentStands,
        mut case: SourceCase,
        known: Option<&Checkpoint>,
    ) -> Result<Transition, Rejection> {
        stands.expect(&case)?;
        if case.state != SourceState::AwaitingReview {
            return Err(Code::UnexpectedMessage.into());
        }
        (case.state, case.code) = (SourceState::Redeeming, None);
        (case.known, case.redeemed_at) = (known.map(Checkpoint::to_text), self.ctx.now);
        case.review_by = None;
        let effects = vec![Effect::Deadline(case.expires.plus(1)), self.redeem(&case)];
        Ok((case, effects))
    }

    /// Nobody has compared the two patients in time: the case is refused. `None` when it does not wait, or still may.
    #[must_use]
    pub fn handle_overdue(&self, case: SourceCase) -> Option<Transition> {
        let due = case.review_by.is_some_and(|by| self.ctx.now > by);
        (case.state == SourceState::AwaitingReview && due).then(|| self.abort(case, Code::ReviewOverdue))
    }

    /// The redemption of a case.
    #[must_use]
    pub fn redeem(&self, case: &SourceCase) -> Effect {
        let known_log_size = known_checkpoint(case).ok().flatten().map_or(0, |known| known.size);
        let redeem = Redeem {
            proof: case.proof,
            session: case.session,
            nonce: case.nonce,
            attempt: case.attempt,
            known_log_size,
        };
        let redeem = Signed::sign(self.ctx.backend, &self.hospital.signing, redeem);
        let body = RedeemBody { redeem: SignedBytes::from(&redeem), chain: self.hospital.chain.clone() };
        post(Recipient::Authority, Parcel::pack(Kind::Redeem, &body), case.proof.0, Kind::Grant)
    }

    /// Takes the grant: signed by the authority, for this session and nonce, made since we asked, both in good standing, in a log view that
    /// only grew since the one known here when the authority was asked.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `redeem` or `log`.
    pub fn handle_grant(
        &self,
        stands: &ConsentStands,
        mut case: SourceCase,
        body: GrantBody,
    ) -> Result<(Granted, CosignedCheckpoint, Transition), Rejection> {
        stands.expect(&case)?;
        if case.state != SourceState::Redeeming {
            return Err(Code::UnexpectedMessage.into());
        }
        let grant: Signed<Grant> = self.trust.verify_authority(&self.ctx, &body.grant)?;
        let said = grant.message();
        let answers = said.proof == case.proof
            && said.session == case.session
            && said.nonce == case.nonce
            && said.attempt == case.attempt
            && said.to == case.destination;
        if !answers {
            return Err(Code::GrantInvalid.into());
        }
        // The answer may have waited long in a mailbox; but it was not made before the question, and not in the future.
        if said.time.plus(CLOCK_SKEW_SECONDS) < case.redeemed_at || said.time > self.ctx.now.plus(CLOCK_SKEW_SECONDS) {
            return Err(Code::ClockSkew.into());
        }
        if said.source != Standing::Active || said.destination != Standing::Active {
            return Err(Code::StandingLost.into());
        }
        let checkpoint = self.trust.verify_logged(&self.ctx, &body.evidence, LeafKind::GRANT, grant.id())?;
        if let Some(known) = known_checkpoint(&case)? {
            verify_consistency(&known, checkpoint.checkpoint(), &body.consistency)
                .map_err(|_| Code::LogInconsistent)?;
        }
        case.state = SourceState::Granted;
        case.grant = Some(body);
        let granted = Granted { proof: case.proof };
        let effects = vec![settle(case.proof.0, Kind::Grant)];
        Ok((granted, checkpoint, (case, effects)))
    }

    /// Everything is staged: sign the manifest, seal it to the session key, lodge the record key. The chunks follow as blobs.
    ///
    /// # Errors
    /// `malformed` when the destination's one-time key is no point; `unexpected-message` in another state.
    pub fn handle_staged(
        &self,
        stands: &ConsentStands,
        mut case: SourceCase,
        staged: &Staged,
    ) -> Result<Transition, Rejection> {
        stands.expect(&case)?;
        if case.state != SourceState::Granted {
            return Err(Code::UnexpectedMessage.into());
        }
        let lodgement_to = self.trust.lodgement_key().ok_or(Code::LodgementInvalid)?;
        let manifest = Manifest {
            proof: case.proof,
            session: case.session,
            snapshot_at: staged.snapshot_at,
            inventory: staged.inventory.clone(),
            stream_bytes: staged.stream_bytes,
            chunk_bytes: staged.chunk_bytes,
            chunk_count: staged.chunk_count,
            leaf_list: staged.leaf_list,
            merkle_root: staged.merkle_root,
            key_commitment: staged.key_commitment,
            digest_scope: staged.digest_scope.clone(),
            digest_full: staged.digest_full.clone(),
            loss: staged.loss.clone(),
            reply_key: staged.reply_key,
        };
        let manifest = Signed::sign(self.ctx.backend, &self.hospital.signing, manifest);
        let hm = ManifestId(manifest.id().0);
        let seal = |to: &HpkePublicKey, purpose, bound: &[u8], plain: &[u8]| {
            SealedBytes::seal(self.ctx.backend, to, purpose, bound, plain).map_err(|_| Rejection::from(Code::Malformed))
        };
        let plain = ManifestPlain { manifest: SignedBytes::from(&manifest), chain: self.hospital.chain.clone() };
        let sealed = seal(&case.session_key, SealPurpose::Manifest, case.session.as_bytes(), &to_cbor(&plain))?;
        let manifest_parcel = Parcel::pack(Kind::Manifest, &ManifestBody { session: case.session, sealed });
        let sealed_key = seal(&case.session_key, SealPurpose::RecordKey, hm.as_bytes(), staged.key.expose())?;
        let lodgement = KeyLodgement { proof: case.proof, manifest: hm, session: case.session, sealed_key };
        let lodgement = Signed::sign(self.ctx.backend, &self.hospital.signing, lodgement);
        let sealed = seal(lodgement_to, SealPurpose::KeyLodgement, case.proof.as_bytes(), lodgement.bytes())?;
        let lodgement_parcel = Parcel::pack(Kind::KeyLodgement, &LodgementBody { proof: case.proof, sealed });
        case.state = SourceState::Lodged;
        case.manifest = Some(plain.manifest);
        case.chain = Some(plain.chain);
        case.lodgement = Some(SignedBytes::from(&lodgement));
        case.manifest_parcel = Some(manifest_parcel.clone().into());
        let destination = Recipient::Hospital(case.destination.clone());
        let effects = vec![
            tell(destination, manifest_parcel),
            post(Recipient::Authority, lodgement_parcel, case.proof.0, Kind::CaseStatement),
        ];
        Ok((case, effects))
    }

    /// The manifest of a session under way, to be sent again; `None` when there is none yet, or the case is over.
    #[must_use]
    pub fn resend_manifest(&self, case: &SourceCase) -> Option<Effect> {
        let parcel = case.manifest_parcel.as_ref().filter(|_| case.state == SourceState::Lodged)?;
        Some(tell(Recipient::Hospital(case.destination.clone()), parcel.to_vec()))
    }

    /// The authority's signed end of the case, with the destination's receipt where there is one. The outer receipt decides; with
    /// an inner one that does not open the case closes with code `receipt-invalid`.
    ///
    /// # Errors
    /// `signature-invalid`, `log-evidence-invalid`, `receipt-invalid`; `unexpected-message` when the case has its end already.
    pub fn handle_statement(
        &self,
        mut case: SourceCase,
        body: StatementBody,
        reply_secret: Option<&HpkeSecretKey>,
    ) -> Result<Transition, Rejection> {
        let statement = self.trust.verify_authority(&self.ctx, &body.statement)?;
        if statement.message().proof != case.proof {
            return Err(Code::UnknownCase.into());
        }
        expect_new_end(case.statement.as_ref(), statement.message().state)?;
        self.trust.verify_logged(&self.ctx, &body.evidence, LeafKind::STATEMENT, statement.id())?;
        if statement.message().state == EndState::Unacknowledged {
            // A late receipt still closes the case.
            case.statement = Some(body);
            return Ok((case, Vec::new()));
        }
        case.receipt = match self.open_receipt(&case, &body, statement.message().state, reply_secret)? {
            Inner::Opened(opening) => Some(opening),
            Inner::Unread => None,
            Inner::Garbage => {
                case.code = Some(Code::ReceiptInvalid);
                None
            }
        };
        case.state = SourceState::Closed;
        case.statement = Some(body);
        let subject = case.proof.0;
        let effects = vec![settle(subject, Kind::CaseStatement), settle(subject, Kind::Grant), Effect::NoDeadline];
        Ok((case, effects))
    }

    fn open_receipt(
        &self,
        case: &SourceCase,
        body: &StatementBody,
        state: EndState,
        reply_secret: Option<&HpkeSecretKey>,
    ) -> Result<Inner, Rejection> {
        let outcome = match state {
            EndState::Filed => OutcomeClass::Filed,
            EndState::Rejected => OutcomeClass::Rejected,
            _ => return Ok(Inner::Unread),
        };
        let receipt = body.receipt.as_ref().ok_or(Code::ReceiptInvalid)?;
        let ours = case.manifest.as_ref().map(SignedBytes::parse).transpose()?.map(|manifest| manifest.message_id());
        let signed = receipt.receipt.parse()?.verify(self.ctx.backend, &case.destination_keys.signing);
        let signed = signed.map_err(|_| Code::ReceiptInvalid)?;
        let said = signed.message();
        if said.proof != case.proof || ours.is_some_and(|hm| said.manifest.0 != hm.0) || said.outcome != outcome {
            return Err(Code::ReceiptInvalid.into());
        }
        // A source whose store is older than its manifest cannot tell which one is meant: the destination's signature ends the case,
        // and what it says of the record is not believed.
        if ours.is_none() {
            return Ok(Inner::Garbage);
        }
        // Without the one-time secret (restored from a backup) the outer receipt still closes the case.
        let Some(secret) = reply_secret else { return Ok(Inner::Unread) };
        let plain =
            receipt.for_source.open(self.ctx.backend, secret, SealPurpose::ReceiptSource, said.manifest.as_bytes());
        // What a destination seals badly must not keep a case open that its signed receipt ends.
        let opened = plain.ok().and_then(|plain| open_receipt_detail(&plain, &said.commitment).ok());
        Ok(opened.map_or(Inner::Garbage, |(opening, _)| Inner::Opened(opening)))
    }

    /// Refuses a request before anything left: publicly with the generic code, to the verified counterpart sealed with the full.
    #[must_use]
    pub fn refuse(
        &self,
        proof: ProofId,
        session: SessionId,
        attempt: u32,
        to: &HospitalId,
        seal_to: &HpkePublicKey,
        code: Code,
    ) -> Vec<Effect> {
        let retry = code.retryable();
        let refusal = Refusal {
            subject: proof.0,
            session: Some(session),
            attempt,
            code: code.public(),
            retry,
            time: self.ctx.now,
        };
        let refusal = Signed::sign(self.ctx.backend, &self.hospital.signing, refusal);
        let detail = SealedBytes::seal(
            self.ctx.backend,
            seal_to,
            SealPurpose::RejectionDetail,
            session.as_bytes(),
            &to_cbor(&code.for_counterpart()),
        )
        .ok();
        let (refusal, chain) = (SignedBytes::from(&refusal), self.hospital.chain.clone());
        let body = RefusalBody { refusal, chain, detail };
        vec![tell(Recipient::Hospital(to.clone()), Parcel::pack(Kind::Refusal, &body))]
    }

    /// A refusal about a case of ours: the authority's (the proof cannot be redeemed) or the destination's (it cannot go on).
    ///
    /// # Errors
    /// `signature-invalid` when neither of them signed it, `unknown-case`, `unexpected-message`.
    pub fn handle_refusal(&self, case: SourceCase, body: &RefusalBody) -> Result<Transition, Rejection> {
        let unverified = body.refusal.parse()?;
        let by_destination = unverified.kid() == case.destination_keys.signing.kid();
        let refusal = if by_destination {
            unverified.verify(self.ctx.backend, &case.destination_keys.signing).map_err(|_| Code::SignatureInvalid)?
        } else {
            self.trust.verify_authority(&self.ctx, &body.refusal)?
        };
        let said = refusal.message();
        if said.subject != case.proof.0 || said.session != Some(case.session) {
            return Err(Code::UnknownCase.into());
        }
        match case.state {
            SourceState::Redeeming | SourceState::AwaitingReview => {}
            // Once the authority has granted, it takes its word back by a signed end only.
            SourceState::Granted | SourceState::Lodged if by_destination => {}
            _ => return Err(Code::UnexpectedMessage.into()),
        }
        // A redemption can overtake the report that the attempt before it failed: then it is not spent, only early.
        let early = !by_destination && said.code == Code::ProofSpent && case.attempt > 1;
        Ok(self.abort(case, if early { Code::AttemptInvalid } else { said.code }))
    }

    /// The holder, or the destination, revokes: nothing leaves any more.
    ///
    /// # Errors
    /// `signature-invalid`, `unexpected-message` when the manifest is out already (the authority then decides).
    pub fn handle_revocation(&self, case: SourceCase, body: &RevocationBody) -> Result<Transition, Rejection> {
        verify_revocation(&self.ctx, body, &case.request.proof, &case.destination_keys)?;
        match case.state {
            SourceState::Redeeming | SourceState::AwaitingReview | SourceState::Granted => {
                Ok(self.abort(case, Code::ProofRevoked))
            }
            _ => Err(Code::UnexpectedMessage.into()),
        }
    }

    /// Ends a case of ours before the key was released: tells destination and authority.
    #[must_use]
    pub fn abort(&self, mut case: SourceCase, code: Code) -> Transition {
        let mut effects = self.refuse(
            case.proof,
            case.session,
            case.attempt,
            &case.destination.clone(),
            &case.session_key.clone(),
            code,
        );
        let retry = code.retryable();
        let refusal = Refusal {
            subject: case.proof.0,
            session: Some(case.session),
            attempt: case.attempt,
            code: code.public(),
            retry,
            time: self.ctx.now,
        };
        let refusal = Signed::sign(self.ctx.backend, &self.hospital.signing, refusal);
        let body =
            RefusalBody { refusal: SignedBytes::from(&refusal), chain: self.hospital.chain.clone(), detail: None };
        effects.push(tell(Recipient::Authority, Parcel::pack(Kind::Refusal, &body)));
        effects.push(settle(case.proof.0, Kind::Grant));
        effects.push(settle(case.proof.0, Kind::CaseStatement));
        case.state = if retry { SourceState::AttemptFailed } else { SourceState::Refused };
        case.code = Some(code);
        (case, effects)
    }
}

/// What was known of the log when this case asked the authority. It was verified then, and is stored as its own text.
fn known_checkpoint(case: &SourceCase) -> Result<Option<Checkpoint>, Rejection> {
    let parse = |text| Checkpoint::parse(text).map_err(|_| Code::LogInconsistent.into());
    case.known.as_deref().map(parse).transpose()
}

/// A signed end stands, but for one: a receipt may still come after the deadline. So no replay changes how a case ended.
///
/// # Errors
/// `unexpected-message`.
pub(crate) fn expect_new_end(known: Option<&StatementBody>, offered: EndState) -> Result<(), Rejection> {
    let known = known.map(|body| body.statement.parse()).transpose()?.map(|statement| statement.peek().state);
    match known {
        None => Ok(()),
        Some(EndState::Unacknowledged) if matches!(offered, EndState::Filed | EndState::Rejected) => Ok(()),
        Some(_) => Err(Code::UnexpectedMessage.into()),
    }
}

/// Verifies a revocation under the holder's key from the proof, or under the other hospital's pinned key.
///
/// # Errors
/// `signature-invalid`, `unknown-case`.
pub(crate) fn verify_revocation(
    ctx: &Ctx<'_>,
    body: &RevocationBody,
    proof: &ProofBundle,
    counterpart: &HospitalKeys,
) -> Result<(), Rejection> {
    // The proof was verified when the case was opened.
    let proof = proof.proof.parse()?;
    let key = if body.chain.0.is_empty() { &proof.peek().terms.revocation_key } else { &counterpart.signing };
    let revocation = body.revocation.parse()?.verify(ctx.backend, key).map_err(|_| Code::SignatureInvalid)?;
    if revocation.message().proof.0 == proof.message_id().0 { Ok(()) } else { Err(Code::UnknownCase.into()) }
}

/// Checks an opened inner receipt against the outer one's commitment.
///
/// # Errors
/// `receipt-invalid`.
pub(crate) fn open_receipt_detail(
    plain: &[u8],
    commitment: &waybill_crypto::commitment::Commitment,
) -> Result<(ReceiptOpening, ReceiptDetail), Rejection> {
    let opening: ReceiptOpening = from_cbor("receipt", plain, crate::wire::MAX_PARCEL_BYTES)?;
    commitment.verify(RECEIPT_COMMITMENT, &opening.opening, &opening.detail).map_err(|_| Code::ReceiptInvalid)?;
    let detail = from_cbor("receipt detail", &opening.detail, crate::wire::MAX_PARCEL_BYTES)?;
    Ok((opening, detail))
}

/// The commitment kind of receipts.
pub const RECEIPT_COMMITMENT: &str = "receipt";
