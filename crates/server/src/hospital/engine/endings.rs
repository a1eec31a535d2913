//! How cases end from outside: the authority's statement, a revocation, a refusal.

use waybill_protocol::ids::ProofId;
use waybill_protocol::messages::{CaseStatement, RefusalBody, RevocationBody, StatementBody};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::SignedBytes;
use waybill_store::Expect;

use super::{Engine, of_destination, of_source, peek};
use crate::hospital::audit::{Actor, event};
use crate::party::{ServiceError, run_again};

/// How the authority says a case ended, as the audit trail writes it.
fn end(statement: &SignedBytes<CaseStatement>) -> String {
    statement.parse().map_or_else(|_| String::new(), |statement| statement.peek().state.as_str().to_owned())
}

impl Engine {
    pub(super) async fn statement(&self, body: StatementBody) -> Result<(), ServiceError> {
        let id = peek(&body.statement)?.proof;
        let ended = end(&body.statement);
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let secret = self.one_time_key(&crate::hospital::work::reply_slot(&case))?;
                let (case, effects) = self.as_source("CaseStatement", case.own, |s| {
                    s.handle_statement(case, body.clone(), secret.as_ref())
                })?;
                let ops = self.audit(of_source(&case, Actor::Authority, event::CASE_ENDED).with_note(&ended));
                return self.save_source("closed", &case, Expect::Version(version), ops, effects).await;
            }
            if let Some((case, version)) = self.destination_case(&id).await? {
                let (case, effects) =
                    self.as_destination("CaseStatement", case.own, |d| d.handle_statement(case, body.clone()))?;
                let ops = self.audit(of_destination(&case, Actor::Authority, event::CASE_ENDED).with_note(&ended));
                return self.save_destination("closed", &case, Expect::Version(version), ops, effects).await;
            }
            Err(Rejection::from(Code::UnknownCase).into())
        })
        .await
    }

    pub(super) async fn revocation(&self, body: RevocationBody) -> Result<(), ServiceError> {
        let id = peek(&body.revocation)?.proof;
        let by = if body.chain.0.is_empty() { Actor::Patient } else { Actor::Hospital };
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let (case, effects) = self.as_source("Revocation", case.own, |s| s.handle_revocation(case, &body))?;
                let ops = self.audit(of_source(&case, by.clone(), event::CASE_STOPPED).with_code(case.code));
                return self.save_source("revoked", &case, Expect::Version(version), ops, effects).await;
            }
            if let Some((case, version)) = self.destination_case(&id).await? {
                let (case, effects) =
                    self.as_destination("Revocation", case.own, |d| d.handle_revocation(case, &body))?;
                let ops = self.audit(of_destination(&case, by.clone(), event::CASE_STOPPED).with_code(case.code));
                return self.save_destination("revoked", &case, Expect::Version(version), ops, effects).await;
            }
            Err(Rejection::from(Code::UnknownCase).into())
        })
        .await
    }

    pub(super) async fn refusal(&self, body: RefusalBody) -> Result<(), ServiceError> {
        let id = ProofId(peek(&body.refusal)?.subject);
        run_again(|| async {
            if let Some((case, version)) = self.source_case(&id).await? {
                let (case, effects) = self.as_source("Refusal", case.own, |s| s.handle_refusal(case, &body))?;
                let ops = self.audit(of_source(&case, Actor::Hospital, event::CASE_STOPPED).with_code(case.code));
                return self.save_source("refused", &case, Expect::Version(version), ops, effects).await;
            }
            let (case, version) = self.destination_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            let secret = self.one_time_key(&case.session.0)?;
            let (case, effects) =
                self.as_destination("Refusal", case.own, |d| d.handle_refusal(case, &body, secret.as_ref()))?;
            let ops = self.audit(of_destination(&case, Actor::Hospital, event::CASE_STOPPED).with_code(case.code));
            self.save_destination("refused", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }
}
