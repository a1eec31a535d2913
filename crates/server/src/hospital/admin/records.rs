//! Records in and out, and what of them the hospital itself keeps back.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;
use waybill_record::load::Purpose;
use waybill_record::resource::ResourceKey;
use waybill_store::Batch;

use super::cases::proof_id;
use super::{Shared, read_json, service, shelf, unusable};
use crate::hospital::audit::AuditRow;
use crate::hospital::inputs;
use crate::hospital::staff::Member;
use crate::problem::Problem;
use crate::shelf::{MAX_MARKS, Mark, Which};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadRequest {
    inputs: Vec<PathBuf>,
    kind: LoadKind,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum LoadKind {
    Record,
    Context,
}

/// Loads records. A load is many transactions, so it is written down before it begins, and for each patient when it is done.
pub(super) async fn load(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: LoadRequest = read_json(&body, "expected inputs and kind")?;
    let sources = inputs::sources(&asked.inputs).map_err(|e| unusable(&e))?;
    let purpose = match asked.kind {
        LoadKind::Record => Purpose::Record,
        LoadKind::Context => Purpose::Context,
    };
    let action = Action::LoadRecord.as_str();
    let begun = AuditRow::new((&member).into(), action).with_note("begun");
    admin.engine.note(begun).await.map_err(|e| service(&e))?;
    let loaded = admin.engine.shelf.load(sources, purpose, Arc::new(|_| {})).await.map_err(|e| shelf(&e))?;
    let report = &loaded.report;
    for patient in &report.patients {
        let local = LocalPatient(patient.as_str().to_owned());
        admin.engine.note(AuditRow::new((&member).into(), action).of(&local)).await.map_err(|e| service(&e))?;
    }
    let filed = counts(&loaded.filed);
    Ok(Json(json!({
        "patients": report.patients.iter().map(|p| p.as_str()).collect::<Vec<_>>(),
        "read": report.read,
        "filed": report.filed,
        "filed_by_type": filed,
        "already_held": report.already_held,
        "unresolved": report.unresolved_count,
        "differing": report.differing_count,
    })))
}

fn counts(inventory: &waybill_record::digest::Inventory) -> Value {
    let by_type = inventory
        .iter()
        .map(|(name, tally)| (name.as_str().to_owned(), json!({"count": tally.count, "bytes": tally.bytes})));
    Value::Object(by_type.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportRequest {
    patient: String,
    /// `held`, `filed` (with origin), `made-here`, or `scope` (with proof).
    which: String,
    origin: Option<String>,
    proof: Option<String>,
    path: PathBuf,
}

pub(super) async fn export(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: ExportRequest = read_json(&body, "expected patient, which and path")?;
    let which = match (asked.which.as_str(), &asked.origin, &asked.proof) {
        ("held", None, None) => Which::Held,
        ("made-here", None, None) => Which::Filed(admin.engine.identities.current().id.clone()),
        ("filed", Some(origin), None) => {
            Which::Filed(HospitalId::parse(origin).map_err(|_| Problem::malformed("origin is not a hospital id"))?)
        }
        ("scope", None, Some(proof)) => {
            let id = proof_id(proof)?;
            let (case, _) =
                admin.engine.source_case(&id).await.map_err(|e| service(&e))?.ok_or_else(Problem::not_found)?;
            Which::Scope(case.session)
        }
        _ => return Err(Problem::malformed("which is held, filed with origin, made-here, or scope with proof")),
    };
    let patient = LocalPatient(asked.patient);
    let row = AuditRow::new((&member).into(), Action::ReadRecord.as_str()).of(&patient).with_note(&asked.which);
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    let file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&asked.path).await;
    let file = file.map_err(|e| unusable(&format_args!("cannot write {}: {e}", asked.path.display())))?;
    let mut writer = tokio::io::BufWriter::new(file);
    match admin.engine.shelf.export_ndjson(&patient, which, &mut writer).await {
        Ok(lines) => Ok(Json(json!({"resources": lines}))),
        Err(error) => {
            // Half an export would pass for a whole one.
            if let Err(error) = tokio::fs::remove_file(&asked.path).await {
                tracing::warn!(%error, "a part of a failed export could not be removed");
            }
            Err(shelf(&error))
        }
    }
}

/// What the hospital keeps back of a patient's record.
pub(super) async fn withheld(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(local): Path<String>,
) -> Result<Json<Value>, Problem> {
    let patient = LocalPatient(local);
    let row = AuditRow::new((&member).into(), Action::WithholdItem.as_str()).of(&patient).with_note("listed");
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    let marked = admin.engine.shelf.marked(&patient).await.map_err(|e| shelf(&e))?;
    let line = |(item, mark): (ResourceKey, Mark)| json!({"item": item.to_string(), "reason": mark.reason, "by": mark.by, "at": mark.at.0});
    Ok(Json(marked.into_iter().map(line).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRequest {
    items: Vec<String>,
    #[serde(default)]
    reason: String,
}

impl MarkRequest {
    fn read(body: &[u8]) -> Result<(Vec<ResourceKey>, String), Problem> {
        let asked: Self = read_json(body, "expected items (Type/id) and reason")?;
        if asked.items.is_empty() || asked.items.len() > MAX_MARKS {
            return Err(Problem::malformed("between 1 and 10,000 items, each Type/id"));
        }
        let items: Result<Vec<ResourceKey>, _> = asked.items.iter().map(|item| item.parse()).collect();
        Ok((items.map_err(|_| Problem::malformed("an item is not Type/id"))?, asked.reason))
    }
}

/// Marks items as withheld by the source. Cases whose record is frozen already are not changed.
pub(super) async fn withhold(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(local): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let (items, reason) = MarkRequest::read(&body)?;
    if reason.is_empty() {
        return Err(Problem::malformed("a reason is needed, such as third-party"));
    }
    let (engine, patient) = (&admin.engine, LocalPatient(local));
    let mark = Mark { reason: reason.clone(), by: member.user.clone(), at: engine.party.ctx().now };
    let mut ops = engine.shelf.mark(&patient, items.clone(), &mark).await.map_err(|e| shelf(&e))?;
    let row = AuditRow::new((&member).into(), Action::WithholdItem.as_str()).of(&patient);
    ops.extend(engine.audit(row.with_note(&format!("{} items: {reason}", items.len()))));
    let batch = Batch { name: "withheld", ops };
    engine.party.store.commit(batch).await.map_err(|e| service(&e.into()))?;
    let (named_in, total) = engine.shelf.still_naming(&patient, &items).await.map_err(|e| shelf(&e))?;
    Ok(Json(json!({"withheld": items.len(), "still_named_in": named_in, "still_named_total": total})))
}

/// Lets marked items travel again.
pub(super) async fn lift(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(local): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let (items, reason) = MarkRequest::read(&body)?;
    let (engine, patient) = (&admin.engine, LocalPatient(local));
    let mut ops = engine.shelf.unmark(&patient, &items);
    let row = AuditRow::new((&member).into(), Action::WithholdItem.as_str()).of(&patient);
    ops.extend(engine.audit(row.with_note(&format!("{} items lifted: {reason}", items.len()))));
    let batch = Batch { name: "withheld-lifted", ops };
    engine.party.store.commit(batch).await.map_err(|e| service(&e.into()))?;
    Ok(Json(json!({"lifted": items.len()})))
}
