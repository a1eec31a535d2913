//! What arrived and could not be filed: list, look, take into the chart, discard.

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use waybill_protocol::ids::{HospitalId, SessionId};
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;
use waybill_store::{Batch, Op};

use super::{Admin, Shared, read_json, service, shelf};
use crate::hospital::audit::AuditRow;
use crate::hospital::staff::Member;
use crate::problem::Problem;
use crate::shelf::Quarantined;

/// Items shown at once.
const MOST: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Whose {
    patient: Option<String>,
}

/// One item, as it is named everywhere.
#[derive(Deserialize, Serialize)]
pub(super) struct Name {
    patient: String,
    origin: String,
    session: String,
    item: String,
    #[serde(default, skip_serializing)]
    reason: String,
}

impl Name {
    fn of(which: &Quarantined) -> Self {
        Self {
            patient: which.patient.0.clone(),
            origin: which.origin.as_str().to_owned(),
            session: which.session.to_string(),
            item: which.item.to_string(),
            reason: String::new(),
        }
    }

    fn read(&self) -> Result<Quarantined, Problem> {
        let malformed =
            || Problem::malformed("expected patient, origin, session and item (Type/id), as the list shows them");
        Ok(Quarantined {
            patient: LocalPatient(self.patient.clone()),
            origin: HospitalId::parse(&self.origin).map_err(|_| malformed())?,
            session: SessionId(self.session.parse().map_err(|_| malformed())?),
            item: self.item.parse().map_err(|_| malformed())?,
        })
    }
}

pub(super) async fn list(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, Problem> {
    let action = Action::ReadQuarantine;
    let patient = whose.patient.map(LocalPatient);
    let row = AuditRow::new((&member).into(), action.as_str());
    let (row, subject) = match &patient {
        Some(patient) => (row.of(patient), patient.0.as_str()),
        None => (row, ""),
    };
    admin.look(&member, action, subject, row).await?;
    let found = admin.engine.shelf.quarantine(patient.as_ref(), MOST).await.map_err(|e| shelf(&e))?;
    let line = |(which, reason): (Quarantined, String)| {
        let mut line = json!(Name::of(&which));
        line["reason"] = json!(reason);
        line
    };
    Ok(Json(found.into_iter().map(line).collect()))
}

pub(super) async fn item(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    Query(name): Query<Name>,
) -> Result<Json<Value>, Problem> {
    let which = name.read()?;
    let row = AuditRow::new((&member).into(), Action::ReadQuarantinedItem.as_str()).of(&which.patient);
    admin.engine.note(row).await.map_err(|e| service(&e))?;
    let (body, reason) = admin.engine.shelf.quarantined_item(&which).await.map_err(|e| shelf(&e))?;
    // Its bytes may be no JSON, and no text: what can be read of them.
    Ok(Json(json!({"reason": reason, "bytes": body.len(), "text": String::from_utf8_lossy(&body)})))
}

async fn decide(
    admin: &Admin,
    member: &Member,
    which: &Quarantined,
    mut ops: Vec<Op>,
    what: &str,
) -> Result<(), Problem> {
    let row = AuditRow::new(member.into(), Action::DecideQuarantine.as_str()).of(&which.patient);
    ops.extend(admin.engine.audit(AuditRow { counterpart: Some(which.origin.clone()), ..row }.with_note(what)));
    let batch = Batch { name: "quarantine", ops };
    admin.engine.party.store.commit(batch).await.map_err(|e| service(&e.into()))?;
    Ok(())
}

pub(super) async fn accept(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let name: Name = read_json(&body, "expected patient, origin, session and item")?;
    let which = name.read()?;
    let ops = admin.engine.shelf.accept(&which).await.map_err(|e| shelf(&e))?;
    decide(&admin, &member, &which, ops, "taken into the chart").await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn discard(
    State(admin): Shared,
    Extension(member): Extension<Member>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let name: Name = read_json(&body, "expected patient, origin, session, item and reason")?;
    let which = name.read()?;
    if name.reason.is_empty() {
        return Err(Problem::malformed("a reason is needed"));
    }
    let (ops, object) = admin.engine.shelf.discard_quarantined(&which).await.map_err(|e| shelf(&e))?;
    decide(&admin, &member, &which, ops, &format!("discarded: {}", name.reason)).await?;
    if let Some(address) = object {
        admin.engine.shelf.forget_discarded(&which, address).await.map_err(|e| shelf(&e))?;
    }
    Ok(StatusCode::NO_CONTENT)
}
