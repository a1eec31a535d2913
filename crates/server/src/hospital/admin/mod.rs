//! The hospital's local administration, over a Unix socket. JSON in, JSON out; docs/HOSPITAL.md lists the routes.
//!
//! Security: this door shows health data; it has no network address. Every route is registered with the action it is, and a guard
//! asks the policy before the handler runs.

mod access;
mod cases;
mod decisions;
mod patients;
mod quarantine;
mod records;
mod trail;

pub use access::{Looks, owner_only};

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::messages::AuthorityStatementBody;
use waybill_protocol::policy::Action;

use super::backup::Copier;
use super::engine::Engine;
use super::staff::Staff;
use super::work::Stages;
use crate::outbox::FullMailboxes;
use crate::party::ServiceError;
use crate::problem::Problem;
use crate::shelf::ShelfError;
use access::Guard;

/// The largest body of a request: a Patient resource that is registered by hand. Units: bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What the admin routes need.
pub struct Admin {
    /// The hospital.
    pub engine: Engine,
    /// How far its work is.
    pub stages: Stages,
    /// Its mailbox.
    pub mailbox: String,
    /// The authority's statement, for evidence.
    pub statement: AuthorityStatementBody,
    /// Who may do what.
    pub staff: Staff,
    /// Copies the data folder; absent where there is none.
    pub copier: Option<Copier>,
    /// Who looked at what a moment ago.
    pub looks: Looks,
    /// Whose mailbox had no room.
    pub full: FullMailboxes,
}

type Shared = State<Arc<Admin>>;

/// One route with the action it is.
struct Route {
    method: Method,
    path: &'static str,
    action: Action,
    handler: MethodRouter<Arc<Admin>>,
}

/// Every route.
fn routes() -> Vec<Route> {
    use Action::*;
    let reads = |path, action, handler| Route { method: Method::GET, path, action, handler };
    let does = |path, action, handler| Route { method: Method::POST, path, action, handler };
    vec![
        reads("/hospital", ReadStatus, get(about)),
        does("/load", LoadRecord, post(records::load)),
        does("/export", ReadRecord, post(records::export)),
        reads("/patients", ListPatients, get(patients::list)),
        does("/patients", RegisterPatient, post(patients::register)),
        does("/enrolment-codes", IssueEnrolmentCode, post(patients::enrolment_code)),
        does("/attestations", IssueEnrolmentCode, post(patients::attest)),
        does("/attestations/{number}", IssueEnrolmentCode, post(patients::countersign)),
        reads("/patients/{local}/keys", ReadKeys, get(patients::keys)),
        does("/patients/{local}/keys/withdraw", WithdrawKeys, post(patients::withdraw_keys)),
        reads("/patients/{local}/withheld", WithholdItem, get(records::withheld)),
        does("/patients/{local}/withheld", WithholdItem, post(records::withhold)),
        does("/patients/{local}/withheld/lift", WithholdItem, post(records::lift)),
        reads("/cases", ReadCase, get(cases::list)),
        reads("/cases/{proof}", ReadCase, get(cases::case)),
        reads("/cases/{proof}/identity", ReviewIdentity, get(cases::identity)),
        does("/cases/{proof}/approve", ReviewIdentity, post(decisions::approve)),
        does("/cases/{proof}/refuse", ReviewIdentity, post(decisions::refuse)),
        does("/cases/{proof}/abort", AbortCase, post(decisions::abort)),
        does("/cases/{proof}/resend", ResendCase, post(decisions::resend)),
        does("/cases/{proof}/reconcile", ReconcileCase, post(decisions::reconcile)),
        reads("/cases/{proof}/evidence", ReadEvidence, get(cases::evidence)),
        reads("/cases/{proof}/loss", ReadLoss, get(cases::loss)),
        reads("/quarantine", ReadQuarantine, get(quarantine::list)),
        reads("/quarantine/item", ReadQuarantinedItem, get(quarantine::item)),
        does("/quarantine/accept", DecideQuarantine, post(quarantine::accept)),
        does("/quarantine/discard", DecideQuarantine, post(quarantine::discard)),
        reads("/audit", ReadAudit, get(trail::list)),
        reads("/audit/chain", ReadAudit, get(trail::chain)),
        does("/backup", MakeBackup, post(trail::backup)),
    ]
}

/// Every route's method, path and action: for the test that asks each of them as everybody, and for documents.
#[must_use]
pub fn listed() -> Vec<(Method, &'static str, Action)> {
    routes().into_iter().map(|route| (route.method, route.path, route.action)).collect()
}

/// The admin router.
pub fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let guarded = |router: Router<Arc<Admin>>, route: Route| {
        let guard = Guard { admin: admin.clone(), action: route.action };
        router.route(route.path, route.handler.layer(middleware::from_fn_with_state(guard, access::guard)))
    };
    routes().into_iter().fold(Router::new(), guarded).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(admin)
}

async fn about(State(admin): Shared) -> Json<Value> {
    let own = admin.engine.identities.current();
    let keys = own.keys();
    Json(json!({
        "hospital": own.id.as_str(),
        "mailbox": admin.mailbox,
        "thumb": keys.thumb().0.to_string(),
    }))
}

fn read_json<T: for<'de> Deserialize<'de>>(body: &[u8], what: &'static str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|_| Problem::malformed(what))
}

/// Why something is done, as staff must say.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Because {
    reason: String,
}

impl Because {
    /// Reads a body that may be empty.
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() { Ok(Self::default()) } else { read_json(body, "expected a reason") }
    }
}

fn unusable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable-input", "the input cannot be used")
        .with_detail(error.to_string())
}

fn shelf(error: &ShelfError) -> Problem {
    match error {
        ShelfError::Load(_) | ShelfError::NotAPatient(_) | ShelfError::PatientDiffers | ShelfError::TooManyMarks => {
            unusable(&chain(error))
        }
        ShelfError::NoSuchPatient | ShelfError::NoSuchItem => Problem::not_found(),
        ShelfError::StillUnfit(_) => {
            Problem::new(StatusCode::CONFLICT, "still-unfit", "the item cannot be filed").with_detail(error.to_string())
        }
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "an admin request failed");
            Problem::unavailable().with_detail(chain(other))
        }
    }
}

fn service(error: &ServiceError) -> Problem {
    match error {
        ServiceError::Rejected(rejection) => {
            Problem::new(StatusCode::CONFLICT, rejection.code.as_str(), rejection.code.sentence())
        }
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "an admin request failed");
            Problem::unavailable()
        }
    }
}

/// An error with its causes, for the hospital's own staff.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
