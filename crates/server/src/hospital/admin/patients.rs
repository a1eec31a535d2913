//! The registrar's desk: patients, enrolment codes, and who speaks for a patient.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_crypto::keys::{Digest, KeyId};
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::messages::{Limits, Relation};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::wire::to_cbor;
use waybill_record::scope::Scope;

use super::{Admin, Shared, read_json, service, shelf};
use crate::hospital::audit::AuditRow;
use crate::hospital::engine::{Attested, CodeWish, KeyView};
use crate::hospital::staff::Member;
use crate::problem::Problem;

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
    fn wish(&self, now: Timestamp) -> Result<CodeWish, Problem> {
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
        let destinations = destinations.map_err(|_| Problem::malformed("a destination is not a hospital id"))?;
        let key_expires = self.key_days.map_or(Timestamp(u64::MAX), |days| now.plus(days.saturating_mul(86_400)));
        let limits = Limits { scope, destinations };
        Ok(CodeWish { local: LocalPatient(self.local.clone()), relation, limits, key_expires })
    }
}

fn form(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|_| Problem::malformed("the form is named by its SHA-256, 64 hex digits"))
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
    let wish = asked.wish(admin.engine.party.ctx().now)?;
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
    let wish = asked.wish(admin.engine.party.ctx().now)?;
    let form = form(asked.form.as_deref().unwrap_or_default())?;
    attested(&admin, admin.engine.attest(&member, wish, form).await.map_err(|e| service(&e))?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Countersign {
    form: String,
}

/// The second one does, and is given the code.
pub(super) async fn countersign(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Path(number): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: Countersign = read_json(&body, "expected the form's SHA-256")?;
    let number = hex::decode(number).ok().and_then(|bytes| bytes.try_into().ok()).map(Nonce);
    let number = number.ok_or_else(Problem::not_found)?;
    let outcome = admin.engine.countersign(&member, &number, form(&asked.form)?).await.map_err(|e| service(&e))?;
    attested(&admin, outcome)
}

fn attested(admin: &Admin, outcome: Attested) -> Result<Json<Value>, Problem> {
    Ok(Json(match outcome {
        Attested::Half(number) => json!({"attestation": hex::encode(number.0)}),
        Attested::Whole(code, expires) => enrolment(admin, code, expires),
    }))
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
    let keys = admin.engine.keys_of(&patient).await.map_err(|e| service(&e))?;
    Ok(Json(keys.iter().map(key_view).collect()))
}

fn key_view(view: &KeyView) -> Value {
    let key = &view.key;
    let relation = match key.relation {
        Relation::OneSelf => "self",
        Relation::Guardian => "guardian",
        Relation::Deputy => "deputy",
        Relation::Executor => "executor",
        Relation::RegistrarAttested => "registrar-attested",
    };
    json!({
        "key": hex::encode(view.id.0),
        "relation": relation,
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
    let (keys, cases) = outcome.map_err(|e| service(&e))?;
    if keys == 0 {
        return Err(Problem::not_found());
    }
    Ok(Json(json!({
        "withdrawn": keys,
        "stopped_cases": cases.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })))
}
