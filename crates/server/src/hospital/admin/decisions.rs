//! What staff decides about a case, and why it may be too late for that.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use waybill_protocol::rejection::Code;

use super::cases::{Case, Who, proof_id};
use super::{Admin, Because, Shared, service};
use crate::hospital::engine::Queue;
use crate::party::ServiceError;
use crate::problem::Problem;

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Approve,
    Refuse,
    Abort,
    Resend,
    Reconcile,
}

impl Verb {
    /// When it can be done.
    fn when(self) -> &'static str {
        match self {
            Self::Approve => "only a case that waits for an identity check is approved",
            Self::Refuse => "a case is refused before its manifest is out",
            Self::Abort => "a case is stopped before its key is released",
            Self::Resend => "a case is sent again while something of it is awaited from elsewhere",
            Self::Reconcile => "a case is reconciled once, when its record is in the chart",
        }
    }
}

pub(super) async fn approve(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<StatusCode, Problem> {
    let outcome = admin.engine.approve(&member, &proof_id(&proof)?).await;
    decided(&admin, &proof, Verb::Approve, outcome).await
}

pub(super) async fn refuse(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let because = Because::read(&body)?;
    let outcome = admin.engine.refuse(&member, &proof_id(&proof)?, &because.reason).await;
    decided(&admin, &proof, Verb::Refuse, outcome).await
}

pub(super) async fn abort(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let because = Because::read(&body)?;
    let outcome = admin.engine.abort(&member, &proof_id(&proof)?, &because.reason).await;
    decided(&admin, &proof, Verb::Abort, outcome).await
}

pub(super) async fn resend(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<StatusCode, Problem> {
    let outcome = admin.engine.resend(&member, &proof_id(&proof)?).await;
    decided(&admin, &proof, Verb::Resend, outcome).await
}

pub(super) async fn reconcile(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<StatusCode, Problem> {
    let outcome = admin.engine.reconcile(&member, &proof_id(&proof)?).await;
    decided(&admin, &proof, Verb::Reconcile, outcome).await
}

/// What was decided is answered with nothing; what could not be is explained to the staff, whose own case it is.
async fn decided(
    admin: &Admin,
    proof: &str,
    verb: Verb,
    outcome: Result<(), ServiceError>,
) -> Result<StatusCode, Problem> {
    let Err(error) = outcome else { return Ok(StatusCode::NO_CONTENT) };
    let ServiceError::Rejected(rejection) = &error else { return Err(service(&error)) };
    match rejection.code {
        Code::UnknownCase => Err(Problem::not_found()),
        Code::UnexpectedMessage => Err(not_now(admin, proof, verb).await?),
        Code::ConsentSignatureInvalid => Err(service(&error).with_detail(
            "the key that consented to it was withdrawn: the case is being stopped, and releases nothing",
        )),
        _ => Err(service(&error)),
    }
}

/// Says in which state the case is, and what can be done in it.
async fn not_now(admin: &Admin, proof: &str, verb: Verb) -> Result<Problem, Problem> {
    let case = Case::find(admin, &proof_id(proof)?).await?;
    let queue = case.queue(admin).await?.queue;
    let (state, ended) = case.state();
    let end = ended.map(|end| format!(", ended `{end}`")).unwrap_or_default();
    let todo = match (verb, queue, state) {
        (_, Queue::Closed | Queue::Reconciled, _) => "it is over: its evidence stays, see `hospital evidence`",
        (Verb::Reconcile, Queue::Quarantined, _) => {
            "items of it wait in quarantine: a records officer decides them first"
        }
        (Verb::Reconcile, ..) => "its record is not in the chart",
        (_, Queue::Ready | Queue::Quarantined, _) => "its record is in the chart: correct it there",
        (_, _, "refused" | "rejected") => "nothing leaves or is filed any more: wait for the authority's signed end",
        (Verb::Abort, _, _) => "its key is released: wait for the signed end",
        (Verb::Refuse, _, "lodged") | (Verb::Approve, _, "lodged" | "redeeming" | "granted") => {
            "to stop it now use `hospital abort`"
        }
        _ => "see where it stands with `hospital case`",
    };
    let detail = format!("the case is `{state}`{end}; {}; {todo}", verb.when());
    Ok(Problem::new(StatusCode::CONFLICT, "not-in-this-state", "the case's state does not allow this")
        .with_detail(detail))
}
