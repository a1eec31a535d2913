//! Cases in which we are the source, as far as parcels move them.

use std::sync::Arc;

use waybill_crypto::keys::Thumb;
use waybill_protocol::ids::ProofId;
use waybill_protocol::log::Checkpoint;
use waybill_protocol::messages::GrantBody;
use waybill_protocol::migration::SourceState;
use waybill_protocol::registrar::HospitalIdentity;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::source::{Admission, Received, SenderVerified, SourceCase, admit};
use waybill_protocol::wire::Parcel;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::{Engine, keys, of_source, peek};
use crate::hospital::audit::{Actor, event};
use crate::hospital::work::{BLOBS, blob_items, open_op};
use crate::party::{ServiceError, run_again};

fn spent_row(id: &ProofId, attempt: u32) -> Key {
    Key::build().fixed(id.as_bytes()).number(u64::from(attempt)).done()
}

fn checkpoint_row() -> Key {
    Key::build().text("authority").done()
}

impl Engine {
    pub(super) async fn transfer_request(&self, parcel: &Parcel) -> Result<(), ServiceError> {
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
        let pid = *opened.pid();
        let registered = self.registered(&pid).await?;
        let speaks = registered.as_ref().map(|(row, _)| row);
        let consent = self.as_source("TransferRequest", own, |s| s.verify_consent(opened, speaks))?;
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
        let mut ops = vec![spent, open_op(&case.proof)];
        ops.extend(registered.map(|(row, version)| keys::touch_op(&pid, &row, version)));
        ops.extend(self.audit(of_source(&case, Actor::Hospital, event::REQUESTED)));
        if case.state == SourceState::AwaitingReview {
            ops.extend(self.audit(of_source(&case, Actor::System, event::REVIEW_OPENED).with_code(case.code)));
        }
        self.save_source("requested", &case, expect, ops, effects).await
    }

    /// The destination asks again for a session that is under way: what was sent is sent again, though not all the time.
    async fn requested_again(&self, case: &SourceCase) -> Result<(), ServiceError> {
        if !self.resends.take(&case.proof, self.party.clock.now_ms()) {
            return Ok(());
        }
        self.send_again(case, Vec::new()).await.map(|_| ())
    }

    /// Sends manifest and chunks of a session once more; says whether there was something to send.
    pub(super) async fn send_again(&self, case: &SourceCase, more: Vec<Op>) -> Result<bool, ServiceError> {
        let Some(effect) = self.as_source("Manifest", case.own, |s| s.resend_manifest(case)) else { return Ok(false) };
        let mut ops = blob_items(self, case).await?;
        while ops.len() > BLOBS {
            let rest = ops.split_off(BLOBS);
            self.party.store.commit(Batch { name: "blobs-again", ops }).await?;
            ops = rest;
        }
        ops.extend(more);
        self.commit("manifest-again", &case.proof.0, ops, vec![effect]).await?;
        Ok(true)
    }

    pub(super) async fn known_checkpoint(&self) -> Result<Option<Checkpoint>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Checkpoint, &checkpoint_row()).await? else { return Ok(None) };
        let text = std::str::from_utf8(&found.value).map_err(|_| ServiceError::Corrupt("checkpoint"))?;
        Checkpoint::parse(text).map(Some).map_err(|_| ServiceError::Corrupt("checkpoint"))
    }

    pub(super) async fn grant(&self, body: GrantBody) -> Result<(), ServiceError> {
        let id = peek(&body.grant)?.proof;
        run_again(|| async {
            let (case, version) = self.source_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if case.state != SourceState::Redeeming {
                return Ok(());
            }
            let (stands, mut ops) = match self.consent_stands(&case).await {
                Err(ServiceError::Rejected(_)) => return self.stop_unconsented(&id).await,
                other => other?,
            };
            let known = self.known_checkpoint().await?;
            let (_, checkpoint, (case, effects)) =
                self.as_source("Grant", case.own, |s| s.handle_grant(&stands, case, body.clone()))?;
            let newest = checkpoint.checkpoint();
            if known.is_none_or(|known| newest.size > known.size) {
                let value = newest.to_text().into_bytes();
                ops.push(Op::Put { space: Space::Checkpoint, key: checkpoint_row(), value, expect: Expect::Any });
            }
            self.save_source("granted", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }
}
