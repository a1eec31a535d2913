//! The audit trail, and copies of the data.

use std::path::PathBuf;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;

use super::cases::proof_id;
use super::{Shared, chain as causes, read_json, service, unusable};
use crate::hospital::audit::{self, AuditRow, Place, Which};
use crate::hospital::fhir;
use crate::hospital::staff::Member;
use crate::problem::Problem;

/// Rows of one page.
const PAGE: usize = 500;

#[derive(Deserialize)]
pub(super) struct Asked {
    patient: Option<String>,
    case: Option<String>,
    after: Option<String>,
    #[serde(default)]
    fhir: bool,
}

/// Rows of the audit trail, oldest first, page by page: JSON, or AuditEvents as NDJSON.
pub(super) async fn list(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let which = match (&asked.patient, &asked.case) {
        (None, None) => Which::All,
        (Some(patient), None) => Which::Patient(LocalPatient(patient.clone())),
        (None, Some(case)) => Which::Case(proof_id(case)?),
        (Some(_), Some(_)) => return Err(Problem::malformed("name a patient or a case, not both")),
    };
    let after = match &asked.after {
        Some(text) => {
            Some(Place::parse(text).ok_or_else(|| Problem::malformed("after is a place of the page before"))?)
        }
        None => None,
    };
    if after.is_none() {
        let row = AuditRow::new((&member).into(), Action::ReadAudit.as_str());
        let row = match &which {
            Which::Patient(patient) => row.of(patient),
            Which::Case(case) => AuditRow { case: Some(*case), ..row },
            Which::All => row,
        };
        admin.engine.note(row).await.map_err(|e| service(&e))?;
    }
    let rows = audit::read(admin.engine.party.store.as_ref(), &which, after, PAGE).await.map_err(|e| service(&e))?;
    if asked.fhir {
        let own = &admin.engine.identities.current().id;
        let line = |(place, row): &(Place, AuditRow)| format!("{}\n", fhir::audit_event(own, *place, row));
        let events: String = rows.iter().map(line).collect();
        return Ok(([(header::CONTENT_TYPE, "application/fhir+ndjson")], events).into_response());
    }
    let line = |(place, row): &(Place, AuditRow)| {
        let mut line = json!(row);
        line["place"] = json!(place.to_text());
        line["time"] = json!(fhir::instant(row.time_ms));
        line
    };
    Ok(Json(rows.iter().map(line).collect::<Vec<Value>>()).into_response())
}

/// Walks along the chain of the audit trail.
pub(super) async fn chain(State(admin): Shared, Extension(member): Extension<Member>) -> Result<Json<Value>, Problem> {
    let row = AuditRow::new((&member).into(), Action::ReadAudit.as_str()).with_note("chain");
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    let chain = audit::verify(admin.engine.party.store.as_ref()).await.map_err(|e| service(&e))?;
    let holds = chain.holds();
    let mut answer = json!(chain);
    answer["holds"] = json!(holds);
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    path: PathBuf,
}

/// Copies database and objects to a new folder, while running. One-time keys are not among them.
pub(super) async fn backup(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: BackupRequest = read_json(&body, "expected path, an absolute folder that does not exist")?;
    let Some(copier) = &admin.copier else { return Err(Problem::not_found()) };
    let row = AuditRow::new((&member).into(), Action::MakeBackup.as_str());
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    let now = admin.engine.party.ctx().now;
    let copied = copier.copy(&asked.path, now).await.map_err(|e| unusable(&causes(&e)))?;
    Ok(Json(json!({"objects": copied.objects, "bytes": copied.size_bytes})))
}
