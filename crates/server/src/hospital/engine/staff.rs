//! What the hospital's staff decides about cases: release, refuse, stop, send again.

use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::ProofId;
use waybill_protocol::messages::{DeliveryBody, EndState, StatementBody};
use waybill_protocol::migration::{DestinationState, Effect, Post, Recipient, SourceState};
use waybill_protocol::policy::Action;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::identity::{Demographics, IdentityMatch};
use waybill_store::Expect;

use super::queue::ended;
use super::{Engine, of_destination, of_source, once};
use crate::hospital::audit::{Actor, AuditRow};
use crate::hospital::staff::Member;
use crate::party::{ServiceError, run_again};

/// Whether a case could still be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hospital) enum MayStop {
    /// It is stopped, here or, once the manifest is out, by a revocation at the authority.
    Stopped,
    /// It is over, or its key is released.
    TooLate,
}

/// The two patients of a case, side by side.
pub struct BothPatients {
    /// Ours.
    pub ours: Demographics,
    /// The one that the destination claims.
    pub theirs: Demographics,
    /// What does not simply match.
    pub differences: Vec<String>,
}

pub(super) fn too_late() -> ServiceError {
    Rejection::from(Code::UnexpectedMessage).into()
}

pub(super) fn unknown() -> ServiceError {
    Rejection::from(Code::UnknownCase).into()
}

impl Engine {
    /// A person has compared the two patients and vouches for them.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when the case does not wait for a review, `consent-signature-invalid` when the key that
    /// consented was withdrawn.
    pub async fn approve(&self, by: &Member, id: &ProofId) -> Result<(), ServiceError> {
        run_again(|| async {
            let (case, version) = self.source_case(id).await?.ok_or_else(unknown)?;
            if case.state != SourceState::AwaitingReview {
                return Err(too_late());
            }
            let (stands, mut ops) = self.consent_stands(&case).await?;
            let known = self.known_checkpoint().await?;
            let (case, effects) =
                self.as_source("Redeem", case.own, |s| s.approve_review(&stands, case, known.as_ref()))?;
            let audit = of_source(&case, by.into(), Action::ReviewIdentity.as_str());
            ops.extend(self.audit(audit.with_note("the two patients are one person")));
            self.save_source("approved", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }

    /// A person has compared the two patients and found them different.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when the manifest is out already.
    pub async fn refuse(&self, by: &Member, id: &ProofId, reason: &str) -> Result<(), ServiceError> {
        run_again(|| async {
            let (case, version) = self.source_case(id).await?.ok_or_else(unknown)?;
            if !has_not_left(case.state) {
                return Err(too_late());
            }
            let action = Action::ReviewIdentity.as_str();
            self.end_at_source((case, version), Code::IdentityMismatch, by.into(), action, reason).await
        })
        .await
    }

    /// Staff stops a case. It works until the key is released: what has not left does not leave; once the manifest is out, the
    /// authority is sent our signed revocation.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when it is too late.
    pub async fn abort(&self, by: &Member, id: &ProofId, reason: &str) -> Result<(), ServiceError> {
        match self.stop(id, by.into(), Action::AbortCase.as_str(), reason).await? {
            MayStop::Stopped => Ok(()),
            MayStop::TooLate => Err(too_late()),
        }
    }

    pub(in crate::hospital) async fn stop(
        &self,
        id: &ProofId,
        by: Actor,
        action: &str,
        reason: &str,
    ) -> Result<MayStop, ServiceError> {
        run_again(|| async {
            if let Some((case, version)) = self.source_case(id).await? {
                if was_stopped(case.code, case.statement.as_ref()) {
                    return Ok(MayStop::Stopped);
                }
                return match case.state {
                    state if has_not_left(state) => {
                        let code = Code::StoppedByStaff;
                        self.end_at_source((case, version), code, by.clone(), action, reason).await?;
                        Ok(MayStop::Stopped)
                    }
                    SourceState::Lodged | SourceState::AttemptFailed => {
                        self.revoke_at_source(case, version, by.clone(), action, reason).await?;
                        Ok(MayStop::Stopped)
                    }
                    _ => Ok(MayStop::TooLate),
                };
            }
            let (case, version) = self.destination_case(id).await?.ok_or_else(unknown)?;
            if was_stopped(case.code, case.statement.as_ref()) {
                return Ok(MayStop::Stopped);
            }
            self.stop_at_destination(case, version, by.clone(), action, reason).await
        })
        .await
    }

    /// Ends a case of which nothing has left. The refusal ends a redeemed proof; one that nobody redeemed is ended by our revocation.
    async fn end_at_source(
        &self,
        (case, version): (SourceCase, u64),
        code: Code,
        by: Actor,
        action: &str,
        reason: &str,
    ) -> Result<(), ServiceError> {
        let (case, mut effects) = self.as_source("Refusal", case.own, |s| s.abort(case, code));
        effects.extend(self.decline(case.proof, case.own, vec![Recipient::Authority]));
        effects.push(Effect::Deadline(case.expires.plus(1)));
        let ops = self.audit(of_source(&case, by, action).with_note(&format!("{code}: {reason}")));
        self.save_source("stopped", &case, Expect::Version(version), ops, effects).await
    }

    async fn revoke_at_source(
        &self,
        mut case: SourceCase,
        version: u64,
        by: Actor,
        action: &str,
        reason: &str,
    ) -> Result<(), ServiceError> {
        case.code = Some(Code::StoppedByStaff);
        let to = vec![Recipient::Authority, Recipient::Hospital(case.destination.clone())];
        let effects = self.decline(case.proof, case.own, to);
        let ops = self.audit(of_source(&case, by, action).with_note(&format!("revoked at the authority: {reason}")));
        self.save_source("revoked-by-staff", &case, Expect::Version(version), ops, effects).await
    }

    async fn stop_at_destination(
        &self,
        case: DestinationCase,
        version: u64,
        by: Actor,
        action: &str,
        reason: &str,
    ) -> Result<MayStop, ServiceError> {
        let to = vec![Recipient::Authority, Recipient::Hospital(case.source.clone())];
        let revocation = self.decline(case.proof, case.own, to);
        let (case, mut effects) = match case.state {
            DestinationState::Requested | DestinationState::Receiving | DestinationState::AttemptFailed => {
                self.as_destination("Refusal", case.own, |d| d.give_up(case, Code::StoppedByStaff))
            }
            // The key may be on its way: the authority's release or statement decides.
            DestinationState::Delivered => (DestinationCase { code: Some(Code::StoppedByStaff), ..case }, Vec::new()),
            _ => return Ok(MayStop::TooLate),
        };
        effects.extend(revocation);
        effects.push(Effect::Deadline(case.expires.plus(1)));
        let ops = self.audit(of_destination(&case, by, action).with_note(reason));
        self.save_destination("stopped", &case, Expect::Version(version), ops, effects).await?;
        Ok(MayStop::Stopped)
    }

    /// Posts again what a case waits for, without waiting for the next turn of the outbox.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when nothing of it is awaited from elsewhere.
    pub async fn resend(&self, by: &Member, id: &ProofId) -> Result<(), ServiceError> {
        let action = Action::ResendCase.as_str();
        if let Some((case, _)) = self.source_case(id).await? {
            let ops = self.audit(of_source(&case, by.into(), action));
            return match case.state {
                SourceState::Redeeming => {
                    let redeem = self.as_source("Redeem", case.own, |s| s.redeem(&case));
                    self.commit("sent-again", &id.0, ops, vec![once(redeem)]).await
                }
                SourceState::Lodged if self.send_again(&case, ops).await? => Ok(()),
                _ => Err(too_late()),
            };
        }
        let (case, _) = self.destination_case(id).await?.ok_or_else(unknown)?;
        let ops = self.audit(of_destination(&case, by.into(), action));
        let parcel = match case.state {
            DestinationState::Requested | DestinationState::Receiving => {
                let ask = self.as_destination("TransferRequest", case.own, |d| d.ask(&case));
                return self.commit("sent-again", &id.0, ops, vec![once(ask)]).await;
            }
            DestinationState::Delivered => case.delivery.clone().map(|delivery| {
                let chain = self.identities.of(&case.own).chain.clone();
                Parcel::pack(Kind::DeliveryReceipt, &DeliveryBody { delivery, chain })
            }),
            DestinationState::Filed | DestinationState::Rejected => {
                case.receipt.as_ref().map(|receipt| Parcel::pack(Kind::ImportReceipt, receipt))
            }
            _ => None,
        };
        let parcel = parcel.ok_or_else(too_late)?;
        let post = Effect::Post(Post { to: Recipient::Authority, parcel, awaits: None });
        self.commit("sent-again", &id.0, ops, vec![post]).await
    }

    /// The two patients of a case in which we are the source, for a person who must compare them; written down before it is shown.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn both_patients(&self, by: &Member, id: &ProofId) -> Result<BothPatients, ServiceError> {
        let (case, _) = self.source_case(id).await?.ok_or_else(unknown)?;
        let ours = self.shelf.demographics(&case.local).await?;
        let theirs = self.as_source("IdentityClaim", case.own, |s| s.claimed_person(&case))?;
        let audit = of_source(&case, by.into(), Action::ReviewIdentity.as_str());
        self.note(audit.with_note("both patients' demographics were shown")).await?;
        let differences = match ours.compare(&theirs) {
            IdentityMatch::Match => Vec::new(),
            IdentityMatch::Doubt(reasons) | IdentityMatch::Mismatch(reasons) => {
                reasons.iter().map(ToString::to_string).collect()
            }
        };
        Ok(BothPatients { ours, theirs, differences })
    }

    /// Writes down that staff read something, before it is shown.
    ///
    /// # Errors
    /// [`ServiceError`]; then nothing may be shown.
    pub async fn note_read(&self, by: &Member, action: Action) -> Result<(), ServiceError> {
        self.note(AuditRow::new(by.into(), action.as_str())).await
    }
}

/// Whether nothing of the record has left yet.
fn has_not_left(state: SourceState) -> bool {
    matches!(state, SourceState::AwaitingReview | SourceState::Redeeming | SourceState::Granted)
}

/// Whether staff has stopped a case already; once is enough. What the authority ended otherwise was not stopped.
fn was_stopped(code: Option<Code>, statement: Option<&StatementBody>) -> bool {
    let released = matches!(ended(statement), Some(EndState::Filed | EndState::Rejected | EndState::Unacknowledged));
    code == Some(Code::StoppedByStaff) && !released
}
