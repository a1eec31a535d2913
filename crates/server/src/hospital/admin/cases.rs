//! The queue of cases, and one case with what belongs to it.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::evidence::{Evidence, Signer};
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::messages::{Manifest, ReceiptDetail, ReceiptOpening, StatementBody, TypeCount};
use waybill_protocol::migration::Recipient;
use waybill_protocol::policy::{Action, Decision, decide_case};
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};
use waybill_record::identity::Demographics;
use waybill_record::loss::LossReport;

use super::{Admin, Shared, service, shelf};
use crate::hospital::audit::AuditRow;
use crate::hospital::engine::{Listed, Place, QueueEntry, is_filed};
use crate::hospital::staff::Member;
use crate::problem::Problem;

/// Most cases of one page.
const PAGE: usize = 500;

/// Who asks, as the guard admitted them.
pub(super) type Who = Extension<Member>;

/// A case's id in a path; another text looks like a case that is not there.
pub(super) fn proof_id(text: &str) -> Result<ProofId, Problem> {
    text.parse().map(ProofId).map_err(|_| Problem::not_found())
}

/// A case, whichever side of it we are.
pub(super) enum Case {
    Source(Box<SourceCase>),
    Destination(Box<DestinationCase>),
}

impl Case {
    pub(super) async fn find(admin: &Admin, id: &ProofId) -> Result<Self, Problem> {
        if let Some((case, _)) = admin.engine.source_case(id).await.map_err(|e| service(&e))? {
            return Ok(Self::Source(Box::new(case)));
        }
        let case = admin.engine.destination_case(id).await.map_err(|e| service(&e))?;
        case.map(|(case, _)| Self::Destination(Box::new(case))).ok_or_else(Problem::not_found)
    }

    /// The stable word of its state, and how the authority says it ended.
    pub(super) fn state(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Source(case) => (case.state.as_str(), case.statement.as_ref().and_then(ended)),
            Self::Destination(case) => (case.state.as_str(), case.statement.as_ref().and_then(ended)),
        }
    }

    /// Whether a member of staff who may see cases sees this one.
    fn shown_to(&self, member: &Member) -> Decision {
        decide_case(member.role, matches!(self, Self::Destination(case) if is_filed(case)))
    }

    fn local(&self) -> &LocalPatient {
        match self {
            Self::Source(case) => &case.local,
            Self::Destination(case) => &case.local,
        }
    }

    fn counterpart(&self) -> &HospitalId {
        match self {
            Self::Source(case) => &case.destination,
            Self::Destination(case) => &case.source,
        }
    }

    pub(super) async fn queue(&self, admin: &Admin) -> Result<QueueEntry, Problem> {
        match self {
            Self::Source(case) => Ok(admin.engine.queue_of_source(case)),
            Self::Destination(case) => admin.engine.queue_of_destination(case).await.map_err(|e| service(&e)),
        }
    }

    /// A look at this case, for the audit trail.
    fn row(&self, member: &Member, action: Action, id: ProofId) -> AuditRow {
        AuditRow::new(member.into(), action.as_str()).of(self.local()).in_case(id, self.counterpart())
    }
}

/// What a case is: role, state, code, whom it is about and with whom; the same words everywhere.
fn summary(case: &Case, queue: &QueueEntry) -> Value {
    let (role, state, code, attempt, scope, statement) = match case {
        Case::Source(case) => {
            ("source", case.state.as_str(), case.code, case.attempt, &case.scope, case.statement.as_ref())
        }
        Case::Destination(case) => {
            ("destination", case.state.as_str(), case.code, case.attempt, &case.scope, case.statement.as_ref())
        }
    };
    json!({
        "role": role,
        "state": state,
        "code": code.map(Code::as_str),
        "patient": case.local().0,
        "counterpart": case.counterpart().as_str(),
        "attempt": attempt,
        "scope": scope.to_string(),
        "ended": statement.and_then(ended),
        "queue": queue.queue.as_str(),
        "who_must_act": queue.who,
        "due": queue.due.map(|due| due.0),
    })
}

fn ended(body: &StatementBody) -> Option<&'static str> {
    body.statement.parse().ok().map(|statement| statement.peek().state.as_str())
}

/// Which page of which list.
#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    open: bool,
    after: Option<String>,
    limit: Option<usize>,
}

/// The cases, a page at a time: each line says where it is in the queue, and its place is where the next page begins.
pub(super) async fn list(
    State(admin): Shared,
    Extension(member): Who,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let action = Action::ReadCase;
    admin.look(&member, action, "", AuditRow::new((&member).into(), action.as_str())).await?;
    let place = |text: &String| Place::parse(text).ok_or_else(|| Problem::malformed("`after` is a place of a list"));
    let mut after = page.after.as_ref().map(place).transpose()?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let listed = if page.open { Listed::Open } else { Listed::All };
    let mut lines = Vec::new();
    // What somebody may not see leaves no gap, so that only the end of the list is an empty page.
    while lines.len() < limit {
        let found = admin.engine.cases(listed, after, limit - lines.len()).await.map_err(|e| service(&e))?;
        let Some(last) = found.last() else { break };
        after = Some(*last);
        for place in found {
            let id = place.proof();
            let case = Case::find(&admin, &id).await?;
            if case.shown_to(&member).allowed {
                let mut line = summary(&case, &case.queue(&admin).await?);
                line["proof"] = json!(id.to_string());
                line["place"] = json!(place.to_text());
                lines.push(line);
            }
        }
    }
    Ok(Json(lines.into()))
}

pub(super) async fn case(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<Json<Value>, Problem> {
    let id = proof_id(&proof)?;
    let case = Case::find(&admin, &id).await?;
    let shown = case.shown_to(&member);
    if !shown.allowed {
        let row = case.row(&member, Action::ReadCase, id).with_note(shown.reason);
        admin.engine.note(AuditRow { outcome: "denied".to_owned(), ..row }).await.map_err(|e| service(&e))?;
        return Err(Problem::not_found());
    }
    admin.look(&member, Action::ReadCase, &proof, case.row(&member, Action::ReadCase, id)).await?;
    let mut answer = summary(&case, &case.queue(&admin).await?);
    let (manifest, receipt) = match &case {
        Case::Source(case) => (case.manifest.as_ref().and_then(peek_manifest), case.receipt.as_ref()),
        Case::Destination(case) => {
            let manifest = admin.engine.as_destination("status", case.own, |d| d.manifest_of(case));
            (manifest.ok().map(|(_, manifest)| manifest), case.receipt_opening.as_ref())
        }
    };
    answer["manifest"] = json!(manifest.as_ref().map(manifest_status));
    answer["receipt"] = json!(receipt.and_then(receipt_status));
    if let Some(stage) = admin.stages.find(&id) {
        answer["stage"] = json!({
            "name": stage.name,
            "resources": stage.progress.resources,
            "bytes": stage.progress.size_bytes,
            "total_bytes": stage.progress.total_bytes,
        });
    }
    if admin.full.is_empty() {
        return Ok(Json(answer));
    }
    let to = admin.engine.book.mailbox(&Recipient::Hospital(case.counterpart().clone())).await;
    if to.map_err(|e| service(&e))?.is_some_and(|to| admin.full.holds(&to)) {
        answer["waits"] = json!(format!("the mailbox of {} is full", case.counterpart()));
    }
    Ok(Json(answer))
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

/// The two patients of a case side by side, for whoever may review.
pub(super) async fn identity(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<Json<Value>, Problem> {
    let id = proof_id(&proof)?;
    let both = admin.engine.both_patients(&member, &id).await;
    let both = both.map_err(|error| match error {
        crate::party::ServiceError::Rejected(rejection) if rejection.code == Code::UnknownCase => Problem::not_found(),
        error => service(&error),
    })?;
    Ok(Json(json!({
        "ours": person(&both.ours),
        "theirs": person(&both.theirs),
        "differences": both.differences,
    })))
}

fn person(person: &Demographics) -> Value {
    let names = person.names.iter().map(|name| json!({"family": name.family, "given": name.given}));
    let identifiers = person.identifiers.iter().map(|id| json!({"system": id.system, "value": id.value}));
    json!({
        "names": names.collect::<Vec<_>>(),
        "birth_date": person.birth_date,
        "sex": person.sex,
        "identifiers": identifiers.collect::<Vec<_>>(),
    })
}

pub(super) async fn evidence(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<Response, Problem> {
    let id = proof_id(&proof)?;
    let case = Case::find(&admin, &id).await?;
    let action = Action::ReadEvidence;
    admin.engine.note(case.row(&member, action, id)).await.map_err(|e| service(&e))?;
    let log = admin.engine.party.with_trust(|trust| trust.log().clone());
    let statement = admin.statement.clone();
    let file = match &case {
        Case::Source(case) => {
            let own = admin.engine.identities.of(&case.own);
            let own = Signer { keys: own.keys(), chain: own.chain.clone() };
            Evidence::of_source(statement, log, case, own)
        }
        Case::Destination(case) => Evidence::of_destination(statement, log, case),
    };
    Ok(([(header::CONTENT_TYPE, "application/cbor")], file.to_bytes()).into_response())
}

/// At the source its own report, with every item and its reason; at the destination the report as it was signed, or the source's
/// part while there is none.
pub(super) async fn loss(
    State(admin): Shared,
    Extension(member): Who,
    Path(proof): Path<String>,
) -> Result<Json<LossReport>, Problem> {
    let id = proof_id(&proof)?;
    let case = Case::find(&admin, &id).await?;
    let action = Action::ReadLoss;
    admin.look(&member, action, &proof, case.row(&member, action, id)).await?;
    let case = match case {
        Case::Source(case) => {
            let own = admin.engine.shelf.loss_report(&case.session).await.map_err(|e| shelf(&e))?;
            return own.map(Json).ok_or_else(Problem::not_found);
        }
        Case::Destination(case) => case,
    };
    let (opening, manifest) = (case.receipt_opening, case.manifest);
    let detail: Option<ReceiptDetail> =
        opening.and_then(|opening| from_cbor("receipt", &opening.detail, MAX_PARCEL_BYTES).ok());
    let bytes = detail.map(|d| d.loss).or_else(|| manifest.as_ref().and_then(peek_manifest).map(|m| m.loss));
    let report = bytes.and_then(|bytes| from_cbor("loss report", &bytes, MAX_PARCEL_BYTES).ok());
    report.map(Json).ok_or_else(Problem::not_found)
}
