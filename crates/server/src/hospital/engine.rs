//! A hospital's shell: takes parcels, loads rows, calls the role, commits row and outbox in one batch.
//!
//! Long work (staging, receiving, filing) is not done here: a handler only moves the case to the state in which
//! [`super::work`] picks it up, also after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, Thumb};
use waybill_crypto::metered::scope;
use waybill_protocol::destination::{Destination, DestinationCase, PresentationVerified};
use waybill_protocol::ids::ProofId;
use waybill_protocol::log::Checkpoint;
use waybill_protocol::messages::{
    GrantBody, LoginOutcome, ManifestBody, Purpose, RefusalBody, ReleaseBody, Revocation, RevocationBody,
    RevocationReason, StatementBody,
};
use waybill_protocol::migration::{DestinationState, Effect, Post, Recipient, SourceState};
use waybill_protocol::registrar::{EnrolmentCode, HospitalIdentity, Registered, Registrar};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::SealedBytes;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{Admission, Received, SenderVerified, Source, SourceCase, admit};
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::identities::Identities;
use super::onetime::OneTimeKeys;
use crate::party::deadlines::Sleeper;
use crate::party::effects::{case_timer, operations};
use crate::party::{AddressBook, ParcelHandler, Party, ServiceError, run_again};
use crate::shelf::Shelf;

/// A hospital's running state.
#[derive(Clone)]
pub struct Engine {
    /// Storage, time, primitives, trust.
    pub party: Party,
    /// Who we are, and were.
    pub identities: Identities,
    /// How long a case may wait for a person. Units: seconds.
    pub review_seconds: u64,
    /// Our records.
    pub shelf: Arc<Shelf>,
    /// Keys that live for one session.
    pub one_time: OneTimeKeys,
    /// Where others' mailboxes are.
    pub book: Arc<dyn AddressBook>,
    /// The largest record accepted. Units: bytes.
    pub largest_stream_bytes: u64,
    /// When each session was last sent again.
    pub resends: Resends,
}

/// Keeps a request that comes again and again from sending the whole record each time.
#[derive(Debug, Clone, Default)]
pub struct Resends(Arc<Mutex<BTreeMap<ProofId, u64>>>);

impl Resends {
    /// Least time between two. Units: milliseconds.
    const PAUSE_MS: u64 = 60_000;
    /// Most cases remembered.
    const MOST: usize = 10_000;

    fn take(&self, id: &ProofId, now_ms: u64) -> bool {
        let mut last = self.0.lock().expect("nobody panics while holding the resends");
        if last.get(id).is_some_and(|at| now_ms < at.saturating_add(Self::PAUSE_MS)) {
            return false;
        }
        if last.len() >= Self::MOST {
            last.clear();
        }
        last.insert(*id, now_ms);
        true
    }
}

/// The row of a case in which we are the source.
#[must_use]
pub fn source_row(id: &ProofId) -> Key {
    Key::build().text("source").fixed(id.as_bytes()).done()
}

/// The row of a case in which we are the destination.
#[must_use]
pub fn destination_row(id: &ProofId) -> Key {
    Key::build().text("destination").fixed(id.as_bytes()).done()
}

fn spent_row(id: &ProofId, attempt: u32) -> Key {
    Key::build().fixed(id.as_bytes()).number(u64::from(attempt)).done()
}

fn checkpoint_row() -> Key {
    Key::build().text("authority").done()
}

/// A login's nonce, filed under its minute so that old ones can be swept.
fn nonce_row(minute: u64, nonce: &[u8; 16]) -> Key {
    Key::build().number(minute).fixed(nonce).done()
}

impl Engine {
    /// Handles one parcel.
    ///
    /// # Errors
    /// [`ServiceError`]; a rejection is final, everything else leaves the parcel to be handled again.
    pub async fn handle(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        let parcel = Parcel::parse(bytes).map_err(Rejection::from)?;
        match parcel.kind {
            Kind::Registration => self.registration(&open(&parcel)?).await,
            Kind::Login => self.login(&open(&parcel)?).await,
            Kind::Presentation => self.presentation(&open(&parcel)?).await,
            Kind::TransferRequest => run_again(|| self.transfer_request(&parcel)).await,
            Kind::Grant => self.grant(open(&parcel)?).await,
            Kind::Manifest => self.manifest(open(&parcel)?).await,
            Kind::KeyRelease => self.release(open(&parcel)?).await,
            Kind::CaseStatement => self.statement(open(&parcel)?).await,
            Kind::Revocation => self.revocation(open(&parcel)?).await,
            Kind::Refusal => self.refusal(open(&parcel)?).await,
            _ => Err(Rejection::from(Code::UnexpectedMessage).into()),
        }
    }

    /// Runs a source role function under a cost label, as whom the case knows us.
    pub(super) fn as_source<T>(&self, label: &'static str, own: Thumb, run: impl FnOnce(&Source<'_>) -> T) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        self.party.with_trust(|trust| scope(label, || run(&Source { ctx, hospital: &hospital, trust })))
    }

    /// Runs a destination role function under a cost label, as whom the case knows us.
    pub(super) fn as_destination<T>(
        &self,
        label: &'static str,
        own: Thumb,
        run: impl FnOnce(&Destination<'_>) -> T,
    ) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        self.party.with_trust(|trust| scope(label, || run(&Destination { ctx, hospital: &hospital, trust })))
    }

    fn as_registrar<T>(&self, label: &'static str, own: Thumb, run: impl FnOnce(&Registrar<'_>) -> T) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        scope(label, || run(&Registrar { ctx, hospital: &hospital }))
    }

    /// Tries what a stranger sealed under each of our keys, the current ones first: a patient may still pin replaced ones.
    fn opened<T>(&self, open: impl Fn(Thumb) -> Result<T, Rejection>) -> Result<(Thumb, T), Rejection> {
        let mut first = None;
        for identity in self.identities.all() {
            let own = identity.keys().thumb();
            match open(own) {
                Ok(opened) => return Ok((own, opened)),
                Err(rejection) => first = first.or(Some(rejection)),
            }
        }
        Err(first.unwrap_or(Code::UnexpectedMessage.into()))
    }

    async fn load<T: Encode<()> + for<'b> Decode<'b, ()>>(
        &self,
        space: Space,
        key: &Key,
        what: &'static str,
    ) -> Result<Option<(T, u64)>, ServiceError> {
        let Some(found) = self.party.store.load(space, key).await? else { return Ok(None) };
        let row = from_cbor(what, &found.value, MAX_PARCEL_BYTES).map_err(|_| ServiceError::Corrupt(what))?;
        Ok(Some((row, found.version)))
    }

    /// A case in which we are the source.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn source_case(&self, id: &ProofId) -> Result<Option<(SourceCase, u64)>, ServiceError> {
        self.load(Space::Case, &source_row(id), "source case").await
    }

    /// A case in which we are the destination.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn destination_case(&self, id: &ProofId) -> Result<Option<(DestinationCase, u64)>, ServiceError> {
        self.load(Space::Case, &destination_row(id), "destination case").await
    }

    async fn registered(
        &self,
        pid: &waybill_crypto::pseudonym::Pseudonym,
    ) -> Result<Option<(Registered, u64)>, ServiceError> {
        self.load(Space::Registration, &Key::build().fixed(pid.as_bytes()).done(), "registration").await
    }

    pub(super) async fn commit(
        &self,
        name: &'static str,
        case: &Digest,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.extend(operations(case, effects, self.book.as_ref(), self.party.clock.now_ms()).await?);
        self.party.store.commit(Batch { name, ops }).await?;
        Ok(())
    }

    pub(super) async fn save_source(
        &self,
        name: &'static str,
        case: &SourceCase,
        expect: Expect,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.insert(0, Op::Put { space: Space::Case, key: source_row(&case.proof), value: to_cbor(case), expect });
        self.commit(name, &case.proof.0, ops, effects).await
    }

    pub(super) async fn save_destination(
        &self,
        name: &'static str,
        case: &DestinationCase,
        expect: Expect,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.insert(0, Op::Put { space: Space::Case, key: destination_row(&case.proof), value: to_cbor(case), expect });
        self.commit(name, &case.proof.0, ops, effects).await
    }

    async fn registration(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) =
            self.opened(|own| self.as_registrar("Registration", own, |r| r.open_registration(sealed)))?;
        let code_key = Key::build().fixed(&opened.code_row().0).done();
        let code: Option<(EnrolmentCode, u64)> = self.load(Space::Enrolment, &code_key, "enrolment code").await?;
        let existing = self.registered(opened.pid()).await?;
        let version = existing.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        let (registered, effects) = self.as_registrar("Registration", own, |r| {
            r.handle_registration(&opened, code.as_ref().map(|(code, _)| code), existing.map(|(row, _)| row))
        })?;
        let code_version = code.map_or(Expect::Any, |(_, version)| Expect::Version(version));
        let ops = vec![
            Op::Delete { space: Space::Enrolment, key: code_key, expect: code_version },
            Op::Put {
                space: Space::Registration,
                key: Key::build().fixed(opened.pid().as_bytes()).done(),
                value: to_cbor(&registered),
                expect: version,
            },
        ];
        self.commit("registered", &opened.code_row(), ops, effects).await
    }

    async fn login(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) = self.opened(|own| self.as_registrar("Login", own, |r| r.open_login(sealed)))?;
        let nonce = opened.nonce_row();
        let registered = self.registered(opened.pid()).await?.map(|(row, _)| row);
        let login = self.as_registrar("Login", own, |r| r.verify_login(opened, registered.as_ref()))?;
        let minute = self.party.clock.now_seconds() / 60;
        let nonce_op =
            Op::Put { space: Space::Nonce, key: nonce_row(minute, &nonce.0), value: vec![1], expect: Expect::Absent };
        if self.seen_recently(minute, &nonce.0).await? {
            return Err(Rejection::from(Code::LoginReplayed).into());
        }
        let outcome = match (login.refusal(), login.purpose()) {
            (Some(refusal), _) => refusal,
            (None, Purpose::Voucher { .. }) => self.as_registrar("Voucher", own, |r| r.issue_voucher(&login))?,
            (None, Purpose::Watch { proof }) => self.watch(&login, proof).await?,
            (None, Purpose::Preview { .. } | Purpose::Items { .. } | Purpose::Disclosures { .. }) => {
                LoginOutcome::Refused { code: Code::UnexpectedMessage }
            }
        };
        let answer = self.as_registrar("LoginAnswer", own, |r| r.answer_login(&login, outcome))?;
        match self.commit("login", &login.id().0, vec![nonce_op], vec![answer]).await {
            Err(ServiceError::Raced) => Err(Rejection::from(Code::LoginReplayed).into()),
            other => other,
        }
    }

    /// Nonces are kept by minute for the whole login window, on both sides of it.
    async fn seen_recently(&self, minute: u64, nonce: &[u8; 16]) -> Result<bool, ServiceError> {
        let window = waybill_protocol::registrar::LOGIN_WINDOW_SECONDS / 60 * 2 + 1;
        for earlier in minute.saturating_sub(window)..=minute {
            if self.party.store.load(Space::Nonce, &nonce_row(earlier, nonce)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn watch(
        &self,
        login: &waybill_protocol::registrar::LoginVerified,
        proof: &ProofId,
    ) -> Result<LoginOutcome, ServiceError> {
        let found = match (self.source_case(proof).await?, self.destination_case(proof).await?) {
            (Some((case, _)), _) if &case.local == login.local() => Some((case.state.as_str(), case.code)),
            (_, Some((case, _))) if &case.local == login.local() => Some((case.state.as_str(), case.code)),
            // Somebody else's case looks like no case.
            _ => None,
        };
        Ok(found.map_or(LoginOutcome::Refused { code: Code::UnknownCase }, |(state, code)| LoginOutcome::Watch {
            state: state.to_owned(),
            code,
        }))
    }

    async fn presentation(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) =
            self.opened(|own| self.as_destination("Presentation", own, |d| d.open_presentation(sealed)))?;
        let registered = self.registered(opened.pid()).await?.map(|(row, _)| row);
        let verified = self.as_destination("Presentation", own, |d| {
            d.verify_presenter(opened, registered.as_ref()).and_then(|presenter| d.verify_presentation(presenter))
        })?;
        let proof = verified.proof();
        if let Some((case, _)) = self.destination_case(&proof).await? {
            return self.presented_again(&case, &verified).await;
        }
        let ours = self.shelf.demographics(verified.local()).await?;
        let (secret, (case, effects)) =
            self.as_destination("TransferRequest", own, |d| d.open_case(verified, &ours, 1))?;
        self.keep_one_time(&case.session.0, &secret)?;
        let ops = vec![super::work::session_op(&case), super::work::open_op(&case.proof)];
        self.save_destination("presented", &case, Expect::Absent, ops, effects).await
    }

    /// One proof, one transfer: the patient is told so, signed.
    async fn presented_again(
        &self,
        case: &DestinationCase,
        verified: &PresentationVerified,
    ) -> Result<(), ServiceError> {
        let refusal = self.as_destination("Refusal", case.own, |d| d.refuse_presentation(verified, Code::ProofSpent));
        self.commit("presented-again", &case.proof.0, Vec::new(), refusal.into_iter().collect()).await?;
        Err(Rejection::from(Code::ProofSpent).into())
    }

    async fn transfer_request(&self, parcel: &Parcel) -> Result<(), ServiceError> {
        let received = Received::parse(parcel)?;
        let (proof, session, attempt) = (received.proof(), received.session(), received.attempt());
        let existing = self.source_case(&proof).await?;
        let current = self.identities.current().keys().thumb();
        let sender = self.as_source("TransferRequest", current, |s| s.verify_sender(received))?;
        if let Some((case, _)) = &existing
            && case.session == session
        {
            return self.requested_again(case).await;
        }
        let (to, seal_to) = (sender.sender().clone(), *sender.session_key());
        let own = self.keys_pinned_in(&sender).unwrap_or(current);
        let outcome = self.check_request(own, sender, existing, attempt).await;
        if let Err(ServiceError::Rejected(rejection)) = &outcome {
            let refusal =
                self.as_source("Refusal", own, |s| s.refuse(proof, session, 0, &to, &seal_to, rejection.code));
            self.commit("request-refused", &proof.0, Vec::new(), refusal).await?;
        }
        outcome
    }

    /// Which of our keys the patient pinned shows in the one that opens the consent. Looked at only after a change of keys.
    fn keys_pinned_in(&self, sender: &SenderVerified) -> Option<Thumb> {
        let all = self.identities.all();
        let pinned = |own: &&Arc<HospitalIdentity>| sender.consent_opens_for(self.party.backend.as_ref(), own);
        if all.len() == 1 { None } else { all.iter().find(pinned).map(|own| own.keys().thumb()) }
    }

    async fn check_request(
        &self,
        own: Thumb,
        sender: SenderVerified,
        existing: Option<(SourceCase, u64)>,
        attempt: u32,
    ) -> Result<(), ServiceError> {
        let opened = self.as_source("TransferRequest", own, |s| {
            let checked = s.verify_proof(sender)?;
            let parties = s.verify_parties(checked)?;
            s.open_consent(s.verify_window(parties)?)
        })?;
        let registered = self.registered(opened.pid()).await?.map(|(row, _)| row);
        let consent = self.as_source("TransferRequest", own, |s| s.verify_consent(opened, registered.as_ref()))?;
        let expect = match (admit(existing.as_ref().map(|(case, _)| case), attempt)?, &existing) {
            (Admission::Next, Some((_, version))) => Expect::Version(*version),
            (Admission::First | Admission::Next, _) => Expect::Absent,
        };
        let ours = self.shelf.demographics(consent.local()).await?;
        let known = self.known_checkpoint().await?;
        let (case, effects) = self.as_source("Redeem", own, |s| {
            s.compare_identity(consent, &ours).map(|checked| s.open_case(checked, known.as_ref(), self.review_seconds))
        })?;
        let spent = Op::Put {
            space: Space::Spent,
            key: spent_row(&case.proof, case.attempt),
            value: case.session.as_bytes().to_vec(),
            expect: Expect::Absent,
        };
        let open = super::work::open_op(&case.proof);
        self.save_source("requested", &case, expect, vec![spent, open], effects).await
    }

    /// A person has compared the two patients and vouches for them.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when the case does not wait for a review.
    pub async fn approve(&self, id: &ProofId) -> Result<(), ServiceError> {
        run_again(|| async {
            let (case, version) = self.source_case(id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            let known = self.known_checkpoint().await?;
            let (case, effects) = self.as_source("Redeem", case.own, |s| s.approve_review(case, known.as_ref()))?;
            self.save_source("approved", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }

    /// A person has compared the two patients and found them different, or stops the case for another reason.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when the manifest is out already.
    pub async fn refuse(&self, id: &ProofId) -> Result<(), ServiceError> {
        run_again(|| async {
            let (case, version) = self.source_case(id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if !matches!(case.state, SourceState::AwaitingReview | SourceState::Redeeming | SourceState::Granted) {
                return Err(Rejection::from(Code::UnexpectedMessage).into());
            }
            let (case, effects) = self.as_source("Refusal", case.own, |s| s.abort(case, Code::IdentityMismatch));
            self.save_source("refused-by-staff", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }

    /// The destination asks again for a session that is under way: what was sent is sent again.
    async fn requested_again(&self, case: &SourceCase) -> Result<(), ServiceError> {
        if !self.resends.take(&case.proof, self.party.clock.now_ms()) {
            return Ok(());
        }
        let Some(effect) = self.as_source("Manifest", case.own, |s| s.resend_manifest(case)) else { return Ok(()) };
        let mut ops = super::work::blob_items(self, case).await?;
        while ops.len() > super::work::BLOBS {
            let rest = ops.split_off(super::work::BLOBS);
            self.party.store.commit(Batch { name: "blobs-again", ops }).await?;
            ops = rest;
        }
        self.commit("manifest-again", &case.proof.0, ops, vec![effect]).await
    }

    async fn known_checkpoint(&self) -> Result<Option<Checkpoint>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Checkpoint, &checkpoint_row()).await? else { return Ok(None) };
        let text = std::str::from_utf8(&found.value).map_err(|_| ServiceError::Corrupt("checkpoint"))?;
        Checkpoint::parse(text).map(Some).map_err(|_| ServiceError::Corrupt("checkpoint"))
    }

    async fn grant(&self, body: GrantBody) -> Result<(), ServiceError> {
        let id = peek(&body.grant)?.proof;
        run_again(|| async {
            let (case, version) = self.source_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if case.state != SourceState::Redeeming {
                return Ok(());
            }
            let known = self.known_checkpoint().await?;
            let (_, checkpoint, (case, effects)) =
                self.as_source("Grant", case.own, |s| s.handle_grant(case, body.clone()))?;
            let newest = checkpoint.checkpoint();
            let mut ops = Vec::new();
            if known.is_none_or(|known| newest.size > known.size) {
                let value = newest.to_text().into_bytes();
                ops.push(Op::Put { space: Space::Checkpoint, key: checkpoint_row(), value, expect: Expect::Any });
            }
            self.save_source("granted", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }

    async fn manifest(&self, body: ManifestBody) -> Result<(), ServiceError> {
        let Some(id) = self.case_of_session(&body.session).await? else {
            return Err(Rejection::from(Code::UnknownCase).into());
        };
        run_again(|| async {
            let (case, version) = self.destination_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if case.state != DestinationState::Requested {
                return Ok(());
            }
            let Some(secret) = self.one_time_key(&case.session.0)? else {
                return self.lose_session(case, version).await;
            };
            let result = self.as_destination("Manifest", case.own, |d| {
                d.handle_manifest(case.clone(), &body, &secret, self.largest_stream_bytes)
            });
            match result {
                Ok((case, effects)) => {
                    self.save_destination("manifest", &case, Expect::Version(version), Vec::new(), effects).await
                }
                Err(rejection) if rejection.code == Code::ManifestTooLarge => {
                    let (case, effects) = self.as_destination("Refusal", case.own, |d| d.give_up(case, rejection.code));
                    self.save_destination("gave-up", &case, Expect::Version(version), Vec::new(), effects).await
                }
                // Anybody can post a forged manifest: it is ignored, the genuine one may still come.
                Err(rejection) => Err(rejection.into()),
            }
        })
        .await
    }

    /// The one-time key is gone (this store was restored from a backup): the session is dead, another attempt may follow.
    async fn lose_session(&self, case: DestinationCase, version: u64) -> Result<(), ServiceError> {
        let (case, effects) = self.as_destination("Refusal", case.own, |d| d.give_up(case, Code::SessionLost));
        self.save_destination("session-lost", &case, Expect::Version(version), Vec::new(), effects).await
    }

    /// A destination's cases are keyed by proof; the session names one of the open ones.
    async fn case_of_session(
        &self,
        session: &waybill_protocol::ids::SessionId,
    ) -> Result<Option<ProofId>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Unique, &super::work::session_row(session)).await? else {
            return Ok(None);
        };
        let id: [u8; 32] = found.value.as_slice().try_into().map_err(|_| ServiceError::Corrupt("session"))?;
        Ok(Some(ProofId(Digest(id))))
    }

    /// A one-time key is durable before anything that needs it is committed.
    fn keep_one_time(
        &self,
        session: &Digest,
        secret: &waybill_crypto::keys::HpkeSecretKey,
    ) -> Result<(), ServiceError> {
        self.one_time.keep(session, secret).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    pub(super) fn destroy_one_time(&self, session: &Digest) -> Result<(), ServiceError> {
        self.one_time.destroy(session).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    pub(super) fn one_time_key(
        &self,
        session: &Digest,
    ) -> Result<Option<waybill_crypto::keys::HpkeSecretKey>, ServiceError> {
        self.one_time.find(session).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    async fn release(&self, body: ReleaseBody) -> Result<(), ServiceError> {
        let id = peek(&body.release)?.proof;
        run_again(|| async {
            let (case, version) = self.destination_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if case.state != DestinationState::Delivered {
                return Ok(());
            }
            let Some(secret) = self.one_time_key(&case.session.0)? else {
                return self.lose_session(case, version).await;
            };
            let (_, (case, effects)) =
                self.as_destination("KeyRelease", case.own, |d| d.handle_release(case, body.clone(), &secret))?;
            self.save_destination("key-held", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }

    async fn statement(&self, body: StatementBody) -> Result<(), ServiceError> {
        let id = peek(&body.statement)?.proof;
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let secret = self.one_time_key(&super::work::reply_slot(&case))?;
                let (case, effects) = self.as_source("CaseStatement", case.own, |s| {
                    s.handle_statement(case, body.clone(), secret.as_ref())
                })?;
                return self.save_source("closed", &case, Expect::Version(version), Vec::new(), effects).await;
            }
            if let Some((case, version)) = self.destination_case(&id).await? {
                let (case, effects) =
                    self.as_destination("CaseStatement", case.own, |d| d.handle_statement(case, body.clone()))?;
                return self.save_destination("closed", &case, Expect::Version(version), Vec::new(), effects).await;
            }
            Err(Rejection::from(Code::UnknownCase).into())
        })
        .await
    }

    async fn revocation(&self, body: RevocationBody) -> Result<(), ServiceError> {
        let id = peek(&body.revocation)?.proof;
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let (case, effects) = self.as_source("Revocation", case.own, |s| s.handle_revocation(case, &body))?;
                return self.save_source("revoked", &case, Expect::Version(version), Vec::new(), effects).await;
            }
            if let Some((case, version)) = self.destination_case(&id).await? {
                let (case, effects) =
                    self.as_destination("Revocation", case.own, |d| d.handle_revocation(case, &body))?;
                return self.save_destination("revoked", &case, Expect::Version(version), Vec::new(), effects).await;
            }
            Err(Rejection::from(Code::UnknownCase).into())
        })
        .await
    }

    async fn refusal(&self, body: RefusalBody) -> Result<(), ServiceError> {
        let id = ProofId(peek(&body.refusal)?.subject);
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let (case, effects) = self.as_source("Refusal", case.own, |s| s.handle_refusal(case, &body))?;
                return self.save_source("refused", &case, Expect::Version(version), Vec::new(), effects).await;
            }
            let (case, version) = self.destination_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            let secret = self.one_time_key(&case.session.0)?;
            let (case, effects) =
                self.as_destination("Refusal", case.own, |d| d.handle_refusal(case, &body, secret.as_ref()))?;
            self.save_destination("refused", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }
}

fn open<T: Encode<()> + for<'b> Decode<'b, ()>>(parcel: &Parcel) -> Result<T, Rejection> {
    Ok(parcel.open(parcel.kind, "parcel body")?)
}

fn peek<M: waybill_protocol::signed::Message + Clone>(
    bytes: &waybill_protocol::signed::SignedBytes<M>,
) -> Result<M, Rejection> {
    Ok(bytes.parse()?.peek().clone())
}

#[async_trait]
impl ParcelHandler for Engine {
    async fn handle_parcel(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.handle(bytes).await
    }
}

#[async_trait]
impl Sleeper for Engine {
    /// A failed attempt is followed by the next. Past the proof's end the authority has decided; its statement closes the case,
    /// and until it comes the case is looked at every hour.
    async fn wake(&self, case: Digest) -> Result<(), ServiceError> {
        let id = ProofId(case);
        if let Some((failed, version)) = self.destination_case(&id).await?
            && failed.state == DestinationState::AttemptFailed
        {
            // The failed session's key and chunks go before the next session's come.
            self.destroy_one_time(&failed.session.0)?;
            self.shelf.discard(&failed.session).await?;
            let ours = self.shelf.demographics(&failed.local).await?;
            let (secret, (next, effects)) =
                self.as_destination("TransferRequest", failed.own, |d| d.next_attempt(failed, &ours))?;
            self.keep_one_time(&next.session.0, &secret)?;
            let ops = vec![super::work::session_op(&next)];
            return self.save_destination("next-attempt", &next, Expect::Version(version), ops, effects).await;
        }
        tracing::info!(%case, "a case waits for the authority's statement; asking for it");
        let at = self.party.clock.now_ms().saturating_add(3_600_000);
        let timer = waybill_store::Timer { key: case_timer(&case), at, payload: case.0.to_vec() };
        self.commit("statement-asked", &case, vec![Op::SetTimer(timer)], vec![self.decline(id)]).await
    }
}

impl Engine {
    /// Past its end a case that is still open is revoked by us; the authority answers with the signed end, whichever it is.
    fn decline(&self, proof: ProofId) -> Effect {
        let (ctx, own) = (self.party.ctx(), self.identities.current());
        let revocation = Revocation { proof, reason: RevocationReason::HospitalDeclines, time: ctx.now };
        let signed = scope("Revocation", || Signed::sign(ctx.backend, &own.signing, revocation));
        let body = RevocationBody { revocation: SignedBytes::from(&signed), chain: own.chain.clone() };
        let parcel = Parcel::pack(Kind::Revocation, &body);
        Effect::Post(Post { to: Recipient::Authority, parcel, awaits: None })
    }
}
