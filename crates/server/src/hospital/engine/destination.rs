//! Cases in which we are the destination, as far as parcels move them.

use waybill_crypto::keys::Digest;
use waybill_protocol::destination::{DestinationCase, PresentationVerified};
use waybill_protocol::ids::{ProofId, SessionId};
use waybill_protocol::messages::{ManifestBody, ReleaseBody};
use waybill_protocol::migration::DestinationState;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::SealedBytes;
use waybill_store::{Expect, Space};

use super::{Engine, keys, of_destination, peek};
use crate::hospital::audit::{Actor, event};
use crate::hospital::work::{open_op, session_op, session_row};
use crate::party::{ServiceError, run_again};

impl Engine {
    pub(super) async fn presentation(&self, sealed: &SealedBytes) -> Result<(), ServiceError> {
        let (own, opened) =
            self.opened(|own| self.as_destination("Presentation", own, |d| d.open_presentation(sealed)))?;
        let pid = *opened.pid();
        let registered = self.registered(&pid).await?;
        let verified = self.as_destination("Presentation", own, |d| {
            let speaks = registered.as_ref().map(|(row, _)| row);
            d.verify_presenter(opened, speaks).and_then(|presenter| d.verify_presentation(presenter))
        })?;
        let proof = verified.proof();
        if let Some((case, _)) = self.destination_case(&proof).await? {
            return self.presented_again(&case, &verified).await;
        }
        let ours = self.shelf.demographics(verified.local()).await?;
        let (secret, (case, effects)) =
            self.as_destination("TransferRequest", own, |d| d.open_case(verified, &ours, 1))?;
        self.keep_one_time(&case.session.0, &secret)?;
        let mut ops = vec![session_op(&case), open_op(&case.proof)];
        ops.extend(registered.map(|(row, version)| keys::touch_op(&pid, &row, version)));
        ops.extend(self.audit(of_destination(&case, Actor::Patient, event::PRESENTED)));
        let saved = self.save_destination("presented", &case, Expect::Absent, ops, effects).await;
        if matches!(saved, Err(ServiceError::Raced)) {
            // The next try makes a session of its own.
            self.destroy_one_time(&case.session.0)?;
        }
        saved
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

    pub(super) async fn manifest(&self, body: ManifestBody) -> Result<(), ServiceError> {
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
                    let ops =
                        self.audit(of_destination(&case, Actor::System, event::CASE_STOPPED).with_code(case.code));
                    self.save_destination("gave-up", &case, Expect::Version(version), ops, effects).await
                }
                // Anybody can post a forged manifest: it is ignored, the genuine one may still come.
                Err(rejection) => Err(rejection.into()),
            }
        })
        .await
    }

    /// The one-time key is gone (this store was restored from a backup): the session is dead, another attempt may follow.
    pub(in crate::hospital) async fn lose_session(
        &self,
        case: DestinationCase,
        version: u64,
    ) -> Result<(), ServiceError> {
        let (case, effects) = self.as_destination("Refusal", case.own, |d| d.give_up(case, Code::SessionLost));
        let ops = self.audit(of_destination(&case, Actor::System, event::CASE_STOPPED).with_code(case.code));
        self.save_destination("session-lost", &case, Expect::Version(version), ops, effects).await
    }

    /// A destination's cases are keyed by proof; the session names one of the open ones.
    async fn case_of_session(&self, session: &SessionId) -> Result<Option<ProofId>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Unique, &session_row(session)).await? else {
            return Ok(None);
        };
        let id: [u8; 32] = found.value.as_slice().try_into().map_err(|_| ServiceError::Corrupt("session"))?;
        Ok(Some(ProofId(Digest(id))))
    }

    pub(super) async fn release(&self, body: ReleaseBody) -> Result<(), ServiceError> {
        let id = peek(&body.release)?.proof;
        run_again(|| async {
            let (case, version) = self.destination_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            if case.state != DestinationState::Delivered {
                return Ok(());
            }
            let (case, effects) = match self.one_time_key(&case.session.0)? {
                Some(secret) => {
                    self.as_destination("KeyRelease", case.own, |d| d.handle_release(case, body.clone(), &secret))?.1
                }
                // The key can no longer be opened: nothing will be filed, and the receipt that says so ends the case.
                None => self.as_destination("KeyRelease", case.own, |d| d.hold_without_key(case, body.clone()))?,
            };
            self.save_destination("key-held", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }
}
