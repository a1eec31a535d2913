//! The hospital's local administration, over a Unix socket that only its own user can open. JSON in, JSON out.
//!
//! Security: this door shows health data; it has no network address.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::evidence::{Evidence, Signer};
use waybill_protocol::ids::{HospitalId, Nonce, ProofId};
use waybill_protocol::messages::{
    AuthorityStatementBody, Manifest, ReceiptDetail, ReceiptOpening, Relation, TypeCount,
};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::policy::{Action, Role, decide};
use waybill_protocol::registrar::{EnrolmentCode, LocalPatient, enrolment_row};
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};
use waybill_record::load::Purpose;
use waybill_record::loss::LossReport;
use waybill_store::{Batch, Expect, Key, Space};

use super::engine::Engine;
use super::inputs;
use super::work::Stages;
use crate::party::ServiceError;
use crate::problem::Problem;
use crate::shelf::{ShelfError, Which};

/// How long an enrolment code holds. Units: seconds.
const CODE_LIFETIME_SECONDS: u64 = 3_600;
/// The largest Patient resource that is registered by hand. Units: bytes.
const MAX_PATIENT_BYTES: usize = 1024 * 1024;

/// What the admin routes need.
pub(super) struct Admin {
    pub engine: Engine,
    pub stages: Stages,
    pub mailbox: String,
    pub statement: AuthorityStatementBody,
}

type Shared = State<Arc<Admin>>;

/// The admin router.
pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/hospital", get(about))
        .route("/load", post(load))
        .route("/patients", get(patients).post(register))
        .route("/enrolment-codes", post(enrolment_code))
        .route("/cases", get(cases))
        .route("/cases/{proof}", get(case))
        .route("/cases/{proof}/approve", post(approve))
        .route("/cases/{proof}/refuse", post(refuse))
        .route("/cases/{proof}/evidence", get(evidence))
        .route("/cases/{proof}/loss", get(loss))
        .route("/export", post(export))
        .layer(DefaultBodyLimit::max(MAX_PATIENT_BYTES))
        .with_state(Arc::new(admin))
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

async fn load(State(admin): Shared, Query(acting): Query<Acting>, body: Bytes) -> Result<Json<Value>, Problem> {
    permit(&acting, Role::RecordsOfficer, Action::LoadRecord)?;
    let asked: LoadRequest = read_json(&body, "expected inputs and kind")?;
    let sources = inputs::sources(&asked.inputs).map_err(|e| unusable(&e))?;
    let purpose = match asked.kind {
        LoadKind::Record => Purpose::Record,
        LoadKind::Context => Purpose::Context,
    };
    let loaded = admin.engine.shelf.load(sources, purpose, Arc::new(|_| {})).await.map_err(|e| shelf(&e))?;
    let report = &loaded.report;
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
struct Page {
    after: Option<String>,
}

async fn patients(State(admin): Shared, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let after = page.after.map(LocalPatient);
    let found = admin.engine.shelf.patients(after.as_ref(), 1000).await.map_err(|e| shelf(&e))?;
    Ok(Json(json!(found.iter().map(|p| &p.0).collect::<Vec<_>>())))
}

async fn register(State(admin): Shared, body: Bytes) -> Result<Json<Value>, Problem> {
    let local = admin.engine.shelf.register_local(&body).await.map_err(|e| shelf(&e))?;
    Ok(Json(json!({"local": local.0})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeRequest {
    local: String,
    #[serde(default = "oneself")]
    relation: String,
}

fn oneself() -> String {
    "self".to_owned()
}

/// Makes a one-time enrolment code for a patient who is held here; what is stored is its hash.
async fn enrolment_code(
    State(admin): Shared,
    Query(acting): Query<Acting>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    permit(&acting, Role::Registrar, Action::IssueEnrolmentCode)?;
    let asked: CodeRequest = read_json(&body, "expected local and relation")?;
    let relation = match asked.relation.as_str() {
        "self" => Relation::OneSelf,
        "guardian" => Relation::Guardian,
        "deputy" => Relation::Deputy,
        "executor" => Relation::Executor,
        "registrar-attested" => Relation::RegistrarAttested,
        _ => return Err(Problem::malformed("relation is self, guardian, deputy, executor or registrar-attested")),
    };
    let local = LocalPatient(asked.local);
    admin.engine.shelf.demographics(&local).await.map_err(|e| shelf(&e))?;
    let party = &admin.engine.party;
    let code = Nonce::random(party.backend.as_ref());
    let expires = party.ctx().now.plus(CODE_LIFETIME_SECONDS);
    let row = EnrolmentCode { relation, ..EnrolmentCode::for_oneself(local, expires) };
    let key = Key::build().fixed(&enrolment_row(&code).0).done();
    let batch = Batch::new("enrolment-code").put(Space::Enrolment, key, to_cbor(&row), Expect::Absent);
    party.store.commit(batch).await.map_err(|e| service(&e.into()))?;
    let identity = admin.engine.identities.current();
    let enrolment =
        Enrolment { hospital: identity.id.clone(), keys: identity.keys(), mailbox: admin.mailbox.clone(), code };
    Ok(Json(json!({"enrolment": hex::encode(to_cbor(&enrolment)), "expires": expires.0})))
}

fn proof_id(text: &str) -> Result<ProofId, Problem> {
    text.parse().map(ProofId).map_err(|_| Problem::not_found())
}

async fn cases(State(admin): Shared) -> Result<Json<Value>, Problem> {
    let rows = admin.engine.party.store.keys(Space::Case, &Key::build().done(), None, 10_000).await;
    let rows = rows.map_err(|e| service(&e.into()))?;
    let mut list = Vec::new();
    for key in rows {
        let mut reader = key.read();
        let (Ok(role), Ok(id)) = (reader.text(), reader.fixed::<32>()) else { continue };
        list.push(json!({"role": role, "proof": hex::encode(id)}));
    }
    Ok(Json(Value::Array(list)))
}

async fn case(State(admin): Shared, Path(proof): Path<String>) -> Result<Json<Value>, Problem> {
    let id = proof_id(&proof)?;
    let mut answer = if let Some((case, _)) = admin.engine.source_case(&id).await.map_err(|e| service(&e))? {
        source_status(&case)
    } else if let Some((case, _)) = admin.engine.destination_case(&id).await.map_err(|e| service(&e))? {
        destination_status(&admin, &case)
    } else {
        return Err(Problem::not_found());
    };
    if let Some(stage) = admin.stages.find(&id) {
        answer["stage"] = json!({
            "name": stage.name,
            "resources": stage.progress.resources,
            "bytes": stage.progress.size_bytes,
            "total_bytes": stage.progress.total_bytes,
        });
    }
    Ok(Json(answer))
}

fn source_status(case: &SourceCase) -> Value {
    let manifest = case.manifest.as_ref().and_then(peek_manifest);
    json!({
        "role": "source",
        "state": case.state.as_str(),
        "code": case.code.map(Code::as_str),
        "patient": case.local.0,
        "counterpart": case.destination.as_str(),
        "attempt": case.attempt,
        "scope": case.scope.to_string(),
        "manifest": manifest.as_ref().map(manifest_status),
        "receipt": case.receipt.as_ref().and_then(receipt_status),
        "ended": case.statement.as_ref().and_then(|s| s.statement.parse().ok()).map(|s| s.peek().state.as_str()),
    })
}

fn destination_status(admin: &Admin, case: &DestinationCase) -> Value {
    let manifest =
        admin.engine.as_destination("status", case.own, |d| d.manifest_of(case)).ok().map(|(_, manifest)| manifest);
    json!({
        "role": "destination",
        "state": case.state.as_str(),
        "code": case.code.map(Code::as_str),
        "patient": case.local.0,
        "counterpart": case.source.as_str(),
        "attempt": case.attempt,
        "scope": case.scope.to_string(),
        "manifest": manifest.as_ref().map(manifest_status),
        "receipt": case.receipt_opening.as_ref().and_then(receipt_status),
        "ended": case.statement.as_ref().and_then(|s| s.statement.parse().ok()).map(|s| s.peek().state.as_str()),
    })
}

fn peek_manifest(bytes: &SignedBytes<Manifest>) -> Option<Manifest> {
    bytes.parse().ok().map(|m| m.peek().clone())
}

fn by_type(inventory: &[TypeCount]) -> Value {
    let entry = |t: &TypeCount| (t.resource_type.clone(), json!({"count": t.count, "bytes": t.size_bytes}));
    Value::Object(inventory.iter().map(entry).collect())
}

fn manifest_status(manifest: &Manifest) -> Value {
    json!({
        "offered": manifest.inventory.iter().map(|t| t.count).sum::<u64>(),
        "inventory": by_type(&manifest.inventory),
        "stream_bytes": manifest.stream_bytes,
        "chunks": manifest.chunk_count,
        "digest_scope": manifest.digest_scope.short().to_string(),
        "digest_full": manifest.digest_full.short().to_string(),
        "digest_scope_state": hex::encode(manifest.digest_scope.to_bytes()),
        "digest_full_state": hex::encode(manifest.digest_full.to_bytes()),
    })
}

fn receipt_status(opening: &ReceiptOpening) -> Option<Value> {
    let detail: ReceiptDetail = from_cbor("receipt", &opening.detail, MAX_PARCEL_BYTES).ok()?;
    Some(json!({
        "offered": detail.offered,
        "filed": detail.filed,
        "quarantined": detail.quarantined,
        "inventory": by_type(&detail.inventory),
        "digest": detail.digest.to_string(),
        "code": detail.code.map(Code::as_str),
    }))
}

/// In which role a member of staff acts: `?role=`. Whoever opens the socket is staff; the role is for the audit trail and for
/// front ends that know their users.
#[derive(Deserialize)]
struct Acting {
    role: Option<String>,
}

fn permit(acting: &Acting, usual: Role, action: Action) -> Result<(), Problem> {
    let role = match acting.role.as_deref() {
        None => usual,
        Some(name) => Role::parse(name).ok_or_else(|| Problem::malformed("the role is not known"))?,
    };
    let decision = decide(role, action);
    tracing::info!(?role, ?action, allowed = decision.allowed, reason = decision.reason, "staff action");
    if decision.allowed {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::FORBIDDEN, "not-permitted", "the role may not do this")
            .with_detail(decision.reason))
    }
}

async fn refuse(
    State(admin): Shared,
    Query(acting): Query<Acting>,
    Path(proof): Path<String>,
) -> Result<StatusCode, Problem> {
    permit(&acting, Role::RecordsOfficer, Action::AbortCase)?;
    admin.engine.refuse(&proof_id(&proof)?).await.map_err(|e| service(&e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn approve(
    State(admin): Shared,
    Query(acting): Query<Acting>,
    Path(proof): Path<String>,
) -> Result<StatusCode, Problem> {
    permit(&acting, Role::RecordsOfficer, Action::ReviewIdentity)?;
    admin.engine.approve(&proof_id(&proof)?).await.map_err(|e| service(&e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn evidence(State(admin): Shared, Path(proof): Path<String>) -> Result<Response, Problem> {
    let id = proof_id(&proof)?;
    let log = admin.engine.party.with_trust(|trust| trust.log().clone());
    let statement = admin.statement.clone();
    let file = if let Some((case, _)) = admin.engine.source_case(&id).await.map_err(|e| service(&e))? {
        let own = admin.engine.identities.of(&case.own);
        let own = Signer { keys: own.keys(), chain: own.chain.clone() };
        Evidence::of_source(statement, log, &case, own)
    } else if let Some((case, _)) = admin.engine.destination_case(&id).await.map_err(|e| service(&e))? {
        Evidence::of_destination(statement, log, &case)
    } else {
        return Err(Problem::not_found());
    };
    Ok(([(header::CONTENT_TYPE, "application/cbor")], file.to_bytes()).into_response())
}

/// At the source its own report, with every item and its reason; at the destination the report as it was signed, or the source's
/// part while there is none.
async fn loss(State(admin): Shared, Path(proof): Path<String>) -> Result<Json<LossReport>, Problem> {
    let id = proof_id(&proof)?;
    if let Some((case, _)) = admin.engine.source_case(&id).await.map_err(|e| service(&e))? {
        let own = admin.engine.shelf.loss_report(&case.session).await.map_err(|e| shelf(&e))?;
        return own.map(Json).ok_or_else(Problem::not_found);
    }
    let case = admin.engine.destination_case(&id).await.map_err(|e| service(&e))?;
    let Some((case, _)) = case else { return Err(Problem::not_found()) };
    let (opening, manifest) = (case.receipt_opening, case.manifest);
    let detail: Option<ReceiptDetail> =
        opening.and_then(|opening| from_cbor("receipt", &opening.detail, MAX_PARCEL_BYTES).ok());
    let bytes = detail.map(|d| d.loss).or_else(|| manifest.as_ref().and_then(peek_manifest).map(|m| m.loss));
    let report = bytes.and_then(|bytes| from_cbor("loss report", &bytes, MAX_PARCEL_BYTES).ok());
    report.map(Json).ok_or_else(Problem::not_found)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportRequest {
    patient: String,
    /// `held`, `filed` (with origin), or `scope` (with proof).
    which: String,
    origin: Option<String>,
    proof: Option<String>,
    path: PathBuf,
}

async fn export(State(admin): Shared, Query(acting): Query<Acting>, body: Bytes) -> Result<Json<Value>, Problem> {
    permit(&acting, Role::RecordsOfficer, Action::ReadRecord)?;
    let asked: ExportRequest = read_json(&body, "expected patient, which and path")?;
    let which = match (asked.which.as_str(), &asked.origin, &asked.proof) {
        ("held", None, None) => Which::Held,
        ("filed", Some(origin), None) => {
            Which::Filed(HospitalId::parse(origin).map_err(|_| Problem::malformed("origin is not a hospital id"))?)
        }
        ("scope", None, Some(proof)) => {
            let id = proof_id(proof)?;
            let (case, _) =
                admin.engine.source_case(&id).await.map_err(|e| service(&e))?.ok_or_else(Problem::not_found)?;
            Which::Scope(case.session)
        }
        _ => return Err(Problem::malformed("which is held, filed with origin, or scope with proof")),
    };
    let file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&asked.path).await;
    let file = file.map_err(|e| unusable(&format_args!("cannot write {}: {e}", asked.path.display())))?;
    let mut writer = tokio::io::BufWriter::new(file);
    let patient = LocalPatient(asked.patient);
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

fn read_json<T: for<'de> Deserialize<'de>>(body: &[u8], what: &'static str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|_| Problem::malformed(what))
}

fn unusable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable-input", "the input cannot be used")
        .with_detail(error.to_string())
}

fn shelf(error: &ShelfError) -> Problem {
    match error {
        ShelfError::Load(_) | ShelfError::NotAPatient(_) | ShelfError::PatientDiffers => unusable(&chain(error)),
        ShelfError::NoSuchPatient => Problem::not_found(),
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
