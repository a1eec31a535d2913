//! Registrations and logins: what a wallet asks, answered for the patient whose key signed it.

use waybill_crypto::keys::Thumb;
use waybill_protocol::ids::{ProofId, Timestamp};
use waybill_protocol::messages::{Disclosure, Item, LoginOutcome, Purpose};
use waybill_protocol::migration::Recipient;
use waybill_protocol::registrar::{EnrolmentCode, LocalPatient, LoginVerified};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::SealedBytes;
use waybill_protocol::wire::to_cbor;
use waybill_record::types::ResourceType;
use waybill_store::{Expect, Key, Op, Space};

use super::turns::{WINDOW, Walk};
use super::{Engine, keys};
use crate::hospital::audit::{self, Actor, AuditRow, event};
use crate::party::ServiceError;
use crate::shelf::{MAX_ITEMS, MAX_PREVIEWED_HIDES};

/// Entries of one page of the list of who looked.
const MAX_DISCLOSURES: usize = 500;

/// A login's nonce, filed under its minute so that old ones can be swept.
fn nonce_row(minute: u64, nonce: &[u8; 16]) -> Key {
    Key::build().number(minute).fixed(nonce).done()
}

impl Engine {
    pub(super) async fn registration(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) =
            self.opened(|own| self.as_registrar("Registration", own, |r| r.open_registration(sealed)))?;
        // An answer that cannot be sent would spend the code for nothing.
        let reply_to = Recipient::Mailbox(opened.reply_to().to_owned());
        if self.book.mailbox(&reply_to).await?.is_none() {
            tracing::warn!(
                "a registration asks to be answered below a relay that is not among hospital.relays; its code is not spent"
            );
            return Err(Rejection::from(Code::RegistrationInvalid).into());
        }
        let code_key = Key::build().fixed(&opened.code_row().0).done();
        let code: Option<(EnrolmentCode, u64)> = self.load(Space::Enrolment, &code_key, "enrolment code").await?;
        let existing = self.registered(opened.pid()).await?;
        let version = existing.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        let (registered, effects) = self.as_registrar("Registration", own, |r| {
            r.handle_registration(&opened, code.as_ref().map(|(code, _)| code), existing.map(|(row, _)| row))
        })?;
        let code_version = code.map_or(Expect::Any, |(_, version)| Expect::Version(version));
        let mut ops = vec![
            Op::Delete { space: Space::Enrolment, key: code_key, expect: code_version },
            Op::Put {
                space: Space::Registration,
                key: Key::build().fixed(opened.pid().as_bytes()).done(),
                value: to_cbor(&registered),
                expect: version,
            },
            keys::index_op(&registered.local, opened.pid()),
        ];
        ops.extend(self.audit(AuditRow::new(Actor::Patient, event::KEY_REGISTERED).of(&registered.local)));
        self.commit("registered", &opened.code_row(), ops, effects).await
    }

    pub(super) async fn login(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) = self.opened(|own| self.as_registrar("Login", own, |r| r.open_login(sealed)))?;
        let (nonce, pid) = (opened.nonce_row(), *opened.pid());
        let Some(_answering) = self.turns.begin(nonce.0) else {
            return Err(Rejection::from(Code::LoginReplayed).into());
        };
        let registered = self.registered(&pid).await?;
        let row = registered.as_ref().map(|(row, _)| row);
        // From here on the login counts as made in time, however long its turn takes; its nonce is filed under this minute, too.
        let login = self.as_registrar("Login", own, |r| r.verify_login(opened, row))?;
        let minute = self.party.clock.now_seconds() / 60;
        let nonce_op =
            Op::Put { space: Space::Nonce, key: nonce_row(minute, &nonce.0), value: vec![1], expect: Expect::Absent };
        if self.seen_recently(minute, &nonce.0).await? {
            return Err(Rejection::from(Code::LoginReplayed).into());
        }
        let (outcome, action) = self.outcome(own, &login).await?;
        // A key that was changed or withdrawn while the login waited for its turn is told nothing: it is looked at again.
        let now = self.registered(&pid).await?;
        if now.map(|(_, version)| version) != registered.map(|(_, version)| version) {
            return Err(ServiceError::Raced);
        }
        let answer = self.as_registrar("LoginAnswer", own, |r| r.answer_login(&login, outcome))?;
        let mut ops = vec![nonce_op];
        if let Some(action) = action {
            ops.extend(self.audit(AuditRow::new(Actor::Patient, action).of(login.local())));
        }
        match self.commit("login", &login.id().0, ops, vec![answer]).await {
            Err(ServiceError::Raced) => Err(Rejection::from(Code::LoginReplayed).into()),
            other => other,
        }
    }

    /// What is answered, and how the audit trail calls it. Watching a case tells nothing of a record and is asked often, so it is not
    /// written down.
    async fn outcome(
        &self,
        own: Thumb,
        login: &LoginVerified,
    ) -> Result<(LoginOutcome, Option<&'static str>), ServiceError> {
        let refused = |code| Ok((LoginOutcome::Refused { code }, None));
        if let Some(refusal) = login.refusal() {
            return Ok((refusal, None));
        }
        let is_watching = matches!(login.purpose(), Purpose::Watch { .. });
        if !is_watching && !self.turns.admits(login.local(), self.party.clock.now_ms()) {
            return refused(Code::LoginRefused);
        }
        Ok(match login.purpose() {
            Purpose::Voucher { .. } => {
                (self.as_registrar("Voucher", own, |r| r.issue_voucher(login))?, Some(event::VOUCHED))
            }
            Purpose::Preview { hides, .. } if hides.len() > MAX_PREVIEWED_HIDES => return refused(Code::TooLarge),
            Purpose::Preview { scope, hides } => {
                let Some(_turn) = self.turns.wait(login.local()).await else { return refused(Code::LoginRefused) };
                let (now, largest) = (self.party.ctx().now, self.largest_stream_bytes);
                let allowed = &login.limits().scope;
                let preview = self.shelf.preview(login.local(), allowed, scope, hides, now, largest).await?;
                (LoginOutcome::Preview { preview }, Some(event::PREVIEWED))
            }
            Purpose::Items { resource_type, after } => {
                let Some(of_type) = ResourceType::parse(resource_type) else { return refused(Code::Malformed) };
                let page = self.items(login, of_type, after.as_deref()).await?;
                let Some((items, more)) = page else { return refused(Code::LoginRefused) };
                (LoginOutcome::Items { items, more }, Some(event::ITEMS_LISTED))
            }
            Purpose::Disclosures { after } => {
                let (entries, more) = self.disclosures(login.local(), *after).await?;
                (LoginOutcome::Disclosures { entries, more }, Some(event::DISCLOSURES_LISTED))
            }
            Purpose::Watch { proof } => (self.watch(login, proof).await?, None),
        })
    }

    /// A page of a patient's items: of a walk that is kept when it follows a page of that walk, else of a new one. `None` when too many
    /// of this patient's walks wait already.
    async fn items(
        &self,
        login: &LoginVerified,
        of_type: ResourceType,
        after: Option<&str>,
    ) -> Result<Option<(Vec<Item>, bool)>, ServiceError> {
        // What a key may not decide about it may not see.
        let (patient, scope) = (login.local(), &login.limits().scope);
        let (name, now_ms) = (scope.to_string(), self.party.clock.now_ms());
        let kept = after.and_then(|_| self.turns.kept(patient, &name, of_type, now_ms));
        if let Some(page) = kept.and_then(|walk| walk.page(after, MAX_ITEMS)) {
            return Ok(Some(page));
        }
        let Some(_turn) = self.turns.wait(patient).await else { return Ok(None) };
        let (items, more) = self.shelf.items(patient, scope, of_type, after, WINDOW).await?;
        let (patient, after) = (patient.clone(), after.map(str::to_owned));
        let walk = Walk { patient, scope: name, of_type, after: after.clone(), items, more, at_ms: now_ms };
        let page = walk.page(after.as_deref(), MAX_ITEMS);
        self.turns.keep(walk);
        Ok(page)
    }

    /// Who looked at a patient's record, numbered in the order in which they did, after a number; and whether there are more.
    async fn disclosures(&self, patient: &LocalPatient, after: u64) -> Result<(Vec<Disclosure>, bool), ServiceError> {
        let store = self.party.store.as_ref();
        let rows = audit::read_numbered(store, patient, after, MAX_DISCLOSURES + 1).await?;
        let more = rows.len() > MAX_DISCLOSURES;
        let entry = |(number, row): (u64, AuditRow)| Disclosure {
            number,
            time: Timestamp(row.time_ms / 1000),
            role: row.actor.role().to_owned(),
            action: row.action,
            case: row.case,
            counterpart: row.counterpart,
            outcome: row.outcome,
        };
        Ok((rows.into_iter().take(MAX_DISCLOSURES).map(entry).collect(), more))
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

    async fn watch(&self, login: &LoginVerified, proof: &ProofId) -> Result<LoginOutcome, ServiceError> {
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
}
