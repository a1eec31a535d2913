//! The registrar's desk: patients, enrolment codes, and who speaks for a patient.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_crypto::keys::{Digest, KeyId};
use waybill_protocol::ids::{HospitalId, Nonce, ProofId, Timestamp};
use waybill_protocol::messages::{Limits, Relation};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::wire::to_cbor;
use waybill_record::scope::Scope;

use super::{Admin, Shared, read_json, service, shelf};
use crate::hospital::audit::AuditRow;
use crate::hospital::engine::{CodeWish, Countersigned, KeyView};
use crate::hospital::staff::Member;
use crate::problem::Problem;
use crate::shelf::ShelfError;

/// Most destinations that limits may name: what a registration's answer carries.
const MAX_DESTINATIONS: usize = 64;
/// Patients of one page.
const PAGE: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
}

pub(super) async fn list(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let action = Action::ListPatients;
    admin.look(&member, action, "", AuditRow::new((&member).into(), action.as_str())).await?;
    let after = page.after.map(LocalPatient);
    let found = admin.engine.shelf.patients(after.as_ref(), PAGE).await.map_err(|e| shelf(&e))?;
    Ok(Json(json!(found.iter().map(|p| &p.0).collect::<Vec<_>>())))
}

pub(super) async fn register(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let local = admin.engine.shelf.register_local(&body).await.map_err(|e| shelf(&e))?;
    let row = AuditRow::new((&member).into(), Action::RegisterPatient.as_str()).of(&local);
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    Ok(Json(json!({"local": local.0})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeRequest {
    local: String,
    #[serde(default = "oneself")]
    relation: String,
    /// The largest scope the key may decide about; without one, the whole record.
    scope: Option<String>,
    /// The only destinations; without any, all.
    #[serde(default)]
    destinations: Vec<String>,
    /// For how long the key speaks. Units: days.
    key_days: Option<u64>,
    /// SHA-256 of the signed form, for an attestation.
    form: Option<String>,
}

fn oneself() -> String {
    "self".to_owned()
}

impl CodeRequest {
    fn wish(&self) -> Result<CodeWish, Problem> {
        let relation = match self.relation.as_str() {
            "self" => Relation::OneSelf,
            "guardian" => Relation::Guardian,
            "deputy" => Relation::Deputy,
            "executor" => Relation::Executor,
            "registrar-attested" => Relation::RegistrarAttested,
            _ => return Err(Problem::malformed("relation is self, guardian, deputy, executor or registrar-attested")),
        };
        let scope = match &self.scope {
            Some(text) => text.parse::<Scope>().map_err(|_| Problem::malformed("the scope is not well formed"))?,
            None => Scope::full(),
        };
        if self.destinations.len() > MAX_DESTINATIONS {
            return Err(Problem::malformed("too many destinations"));
        }
        let destinations: Result<Vec<HospitalId>, _> = self.destinations.iter().map(|d| HospitalId::parse(d)).collect();
        let mut destinations = destinations.map_err(|_| Problem::malformed("a destination is not a hospital id"))?;
        // A set: the order in which somebody names them says nothing.
        destinations.sort();
        destinations.dedup();
        let limits = Limits { scope, destinations };
        Ok(CodeWish { local: LocalPatient(self.local.clone()), relation, limits, key_days: self.key_days })
    }

    /// SHA-256 of the signed form.
    fn form(&self) -> Result<Digest, Problem> {
        let text = self.form.as_deref().unwrap_or_default();
        text.parse().map_err(|_| Problem::malformed("the form is named by its SHA-256, 64 hex digits"))
    }
}

fn enrolment(admin: &Admin, code: Nonce, expires: Timestamp) -> Value {
    let identity = admin.engine.identities.current();
    let enrolment =
        Enrolment { hospital: identity.id.clone(), keys: identity.keys(), mailbox: admin.mailbox.clone(), code };
    json!({"enrolment": hex::encode(to_cbor(&enrolment)), "expires": expires.0})
}

/// Makes a one-time enrolment code for a patient who is held here; what is stored is its hash.
pub(super) async fn enrolment_code(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: CodeRequest = read_json(&body, "expected local, relation and limits")?;
    let wish = asked.wish()?;
    if wish.relation == Relation::RegistrarAttested {
        return Err(Problem::new(StatusCode::CONFLICT, "two-staff-needed", "this takes two members of staff")
            .with_detail("attest the signed form first; another member of staff countersigns and is given the code"));
    }
    let (code, expires) = admin.engine.issue_code(&member, wish).await.map_err(|e| service(&e))?;
    Ok(Json(enrolment(&admin, code, expires)))
}

/// The first of two members of staff attests a signed form.
pub(super) async fn attest(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: CodeRequest = read_json(&body, "expected local, relation, form and limits")?;
    let wish = asked.wish()?;
    let number = admin.engine.attest(&member, wish, asked.form()?).await.map_err(|e| service(&e))?;
    Ok(Json(json!({"attestation": hex::encode(number.0)})))
}

/// The second one does, saying the same for itself, and is given the code with what was attested.
pub(super) async fn countersign(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(number): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: CodeRequest =
        read_json(&body, "expected what the first one attested: local, relation, form and limits")?;
    let (wish, form) = (asked.wish()?, asked.form()?);
    let number = hex::decode(number).ok().and_then(|bytes| bytes.try_into().ok()).map(Nonce);
    let number = number.ok_or_else(Problem::not_found)?;
    let outcome = admin.engine.countersign(&member, &number, wish.clone(), form).await.map_err(|e| service(&e))?;
    match outcome {
        Countersigned::Differs(members) => {
            let title = "the first member of staff attested something else";
            let differs = format!("it differs in: {}; ask them what the patient signed", members.join(", "));
            Err(Problem::new(StatusCode::CONFLICT, "attestation-differs", title).with_detail(differs))
        }
        Countersigned::Whole { code, expires, first } => {
            let mut answer = enrolment(&admin, code, expires);
            answer["attested"] = json!({
                "patient": wish.local.0,
                "relation": relation_word(wish.relation),
                "scope": wish.limits.scope.to_string(),
                "destinations": wish.limits.destinations.iter().map(HospitalId::as_str).collect::<Vec<_>>(),
                "key_days": wish.key_days,
                "form": form.to_string(),
                "first": first,
                "second": member.user,
            });
            Ok(Json(answer))
        }
    }
}

/// The keys that speak for a patient.
pub(super) async fn keys(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(local): Path<String>,
) -> Result<Json<Value>, Problem> {
    let patient = LocalPatient(local);
    let row = AuditRow::new((&member).into(), Action::ReadKeys.as_str()).of(&patient);
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    held(&admin, &patient).await?;
    let keys = admin.engine.keys_of(&patient).await.map_err(|e| service(&e))?;
    Ok(Json(keys.iter().map(key_view).collect()))
}

/// A patient whom nobody knows here is told apart from one without keys.
async fn held(admin: &Admin, patient: &LocalPatient) -> Result<(), Problem> {
    match admin.engine.shelf.demographics(patient).await {
        Err(ShelfError::NoSuchPatient) => Err(Problem::not_found().with_detail("no such patient is held here")),
        other => other.map(drop).map_err(|e| shelf(&e)),
    }
}

fn relation_word(relation: Relation) -> &'static str {
    match relation {
        Relation::OneSelf => "self",
        Relation::Guardian => "guardian",
        Relation::Deputy => "deputy",
        Relation::Executor => "executor",
        Relation::RegistrarAttested => "registrar-attested",
    }
}

fn key_view(view: &KeyView) -> Value {
    let key = &view.key;
    json!({
        "key": hex::encode(view.id.0),
        "relation": relation_word(key.relation),
        "expires": key.expires.0,
        "scope": key.limits.scope.to_string(),
        "destinations": key.limits.destinations.iter().map(HospitalId::as_str).collect::<Vec<_>>(),
        "attested_by": key.attestation.as_ref().map(|attestation| &attestation.staff),
        "form": key.attestation.as_ref().map(|attestation| attestation.form.to_string()),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithdrawRequest {
    /// The key; without one, all of the patient's.
    key: Option<String>,
    reason: String,
}

/// Withdraws keys, and stops what they decided as far as that is possible.
pub(super) async fn withdraw_keys(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(local): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: WithdrawRequest = read_json(&body, "expected reason, and key for one key only")?;
    let only = match &asked.key {
        Some(text) => {
            let id = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(KeyId);
            Some(id.ok_or_else(|| Problem::malformed("a key is named by 32 hex digits"))?)
        }
        None => None,
    };
    let patient = LocalPatient(local);
    let outcome = admin.engine.withdraw_keys(&member, &patient, only, &asked.reason).await;
    let done = outcome.map_err(|e| service(&e))?;
    if done.keys + done.before == 0 {
        return Err(Problem::not_found().with_detail("no such key speaks for this patient, and none was withdrawn"));
    }
    let named = |cases: &[ProofId]| cases.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(Json(json!({
        "withdrawn": done.keys,
        "withdrawn_before": done.before,
        "stopped_cases": named(&done.stopped),
        "too_late_cases": named(&done.too_late),
        "waiting_cases": named(&done.waiting),
    })))
}
