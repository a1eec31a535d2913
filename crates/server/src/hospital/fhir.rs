//! What the hospital says about itself in FHIR R4: audit events in the shapes of IHE BALP, and, at the destination, a Provenance and
//! a Consent for each record that was filed.
//!
//! Both hospitals of a case write the case's id as the same identifier, so that their events pair up.

use serde_json::{Map, Value, json};
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::{HospitalId, ManifestId, ProofId, Timestamp};
use waybill_protocol::messages::{Manifest, ReceiptDetail};
use waybill_record::dates::Day;
use waybill_record::scope::Scope;

use super::audit::{Actor, AuditRow, Place, event};

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle";
const SNOMED: &str = "http://snomed.info/sct";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const BALP: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure";
/// The system of a case's id, at both hospitals.
pub const CASE_SYSTEM: &str = "urn:waybill:case";
/// The system of hospitals' names.
pub const HOSPITAL_SYSTEM: &str = "urn:waybill:hospital";
/// The system of a manifest's id.
pub const MANIFEST_SYSTEM: &str = "urn:waybill:manifest";
/// The system of record digests, in their short form.
pub const DIGEST_SYSTEM: &str = "urn:waybill:record-digest";
/// The system of the words for what was done.
pub const ACTION_SYSTEM: &str = "urn:waybill:audit-action";

/// A moment as FHIR writes it, in UTC. Units of the argument: Unix milliseconds.
#[must_use]
pub fn instant(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (day, rest) = (Day::of_unix_days(seconds / 86_400), seconds % 86_400);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The same for a moment of the protocol, which may be another party's and of any size.
fn moment(time: Timestamp) -> String {
    instant(time.0.saturating_mul(1000))
}

fn hospital(id: &HospitalId) -> Value {
    json!({ "identifier": { "system": HOSPITAL_SYSTEM, "value": id.as_str() }, "display": id.as_str() })
}

fn case(proof: &ProofId) -> Value {
    json!({ "identifier": { "system": CASE_SYSTEM, "value": proof.to_string() } })
}

fn patient(local: &str) -> Value {
    json!({ "reference": format!("Patient/{local}") })
}

fn concept(system: &str, code: &str, display: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code, "display": display }] })
}

/// An agent of an event; BALP wants the network of both ends, which here is a name: mailboxes stand between them.
fn agent(kind: Value, who: Value, requestor: bool, network: Option<&HospitalId>) -> Value {
    let mut agent = json!({ "type": kind, "who": who, "requestor": requestor });
    if let Some(name) = network {
        agent["network"] = json!({ "address": name.as_str(), "type": "1" });
    }
    agent
}

/// One row of the audit trail as a FHIR AuditEvent.
#[must_use]
pub fn audit_event(own: &HospitalId, place: Place, row: &AuditRow) -> Value {
    let disclosure = match row.action.as_str() {
        event::RECORD_SENT => Some(("Source", "110106", "Export", "R")),
        event::RECORD_RECEIVED => Some(("Recipient", "110107", "Import", "C")),
        _ => None,
    };
    let (kind, action) = match disclosure {
        Some((_, code, display, action)) => (json!({ "system": DCM, "code": code, "display": display }), action),
        None if row.outcome == "denied" => {
            (json!({ "system": DCM, "code": "110113", "display": "Security Alert" }), "E")
        }
        None if row.patient.is_some() => {
            (json!({ "system": DCM, "code": "110110", "display": "Patient Record" }), letter(&row.action))
        }
        None => (json!({ "system": DCM, "code": "110100", "display": "Application Activity" }), letter(&row.action)),
    };
    let mut subtypes = vec![json!({ "system": ACTION_SYSTEM, "code": row.action })];
    if disclosure.is_some() {
        subtypes.insert(
            0,
            json!({ "system": LIFECYCLE, "code": "disclose", "display": "Disclose Record Lifecycle Event" }),
        );
    }
    let outcome = match row.outcome.as_str() {
        "done" => "0",
        "denied" => "4",
        _ => "8",
    };
    let mut found = json!({
        "resourceType": "AuditEvent",
        "id": format!("waybill-{}", place.to_text()),
        "type": kind,
        "subtype": subtypes,
        "action": action,
        "recorded": instant(row.time_ms),
        "outcome": outcome,
        "outcomeDesc": row.note.as_ref().map_or_else(|| row.outcome.clone(), |note| format!("{}: {note}", row.outcome)),
        "agent": agents(own, row, disclosure.is_some()),
        "source": { "observer": hospital(own), "type": [{
            "system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4", "display": "Application Server",
        }] },
        "entity": entities(row),
    });
    if let Some((side, ..)) = disclosure {
        found["meta"] = json!({ "profile": [format!("{BALP}.{side}")] });
        found["purposeOfEvent"] =
            json!([concept("http://terminology.hl7.org/CodeSystem/v3-ActReason", "PATRQT", "patient requested")]);
    }
    found
}

/// The letter of what was done: read, created or changed, deleted, executed.
fn letter(action: &str) -> &'static str {
    match action {
        "read-record"
        | "read-case"
        | "read-keys"
        | "read-loss"
        | "read-evidence"
        | "read-audit"
        | "read-status"
        | "read-quarantine"
        | "read-quarantined-item"
        | "list-patients" => "R",
        "register-patient" | "load-record" | "issue-enrolment-code" | event::KEY_REGISTERED => "C",
        "withhold-item" | "decide-quarantine" => "U",
        "withdraw-keys" => "D",
        _ => "E",
    }
}

fn agents(own: &HospitalId, row: &AuditRow, is_disclosure: bool) -> Vec<Value> {
    let mut agents = Vec::new();
    if let Some(other) = row.counterpart.as_ref().filter(|_| is_disclosure) {
        let (from, to) = if row.action == event::RECORD_SENT { (own, other) } else { (other, own) };
        agents.push(agent(concept(DCM, "110153", "Source Role ID"), hospital(from), false, Some(from)));
        agents.push(agent(concept(DCM, "110152", "Destination Role ID"), hospital(to), false, Some(to)));
        agents.push(agent(concept(SNOMED, "159541003", "Record keeping/library clerk"), hospital(from), false, None));
        let who = row.patient.as_ref().map_or_else(|| json!({}), |local| patient(&local.0));
        agents.push(agent(concept(SNOMED, "429577009", "Patient advocate"), who, true, None));
        return agents;
    }
    let (who, requestor) = match &row.actor {
        Actor::Staff { user, .. } => (json!({ "identifier": { "value": user }, "display": user }), true),
        Actor::Patient => {
            (row.patient.as_ref().map_or_else(|| json!({ "display": "patient" }), |p| patient(&p.0)), true)
        }
        Actor::Hospital => (row.counterpart.as_ref().map_or_else(|| json!({ "display": "hospital" }), hospital), true),
        Actor::Authority => (json!({ "display": "authority" }), true),
        Actor::System => (hospital(own), true),
    };
    agents.push(agent(concept("urn:waybill:role", row.actor.role(), row.actor.role()), who, requestor, None));
    agents
}

fn entities(row: &AuditRow) -> Vec<Value> {
    let mut entities = Vec::new();
    if let Some(local) = &row.patient {
        entities.push(json!({
            "what": patient(&local.0),
            "type": { "system": ENTITY_TYPE, "code": "1", "display": "Person" },
            "role": { "system": OBJECT_ROLE, "code": "1", "display": "Patient" },
        }));
    }
    if let Some(proof) = &row.case {
        entities.push(json!({
            "what": case(proof),
            "type": { "system": ENTITY_TYPE, "code": "2", "display": "System Object" },
            "role": { "system": OBJECT_ROLE, "code": "20", "display": "Job" },
        }));
        // The consent is the patient's, for this case: at the destination it is a resource of this name.
        entities.push(json!({
            "what": { "identifier": { "system": CASE_SYSTEM, "value": format!("{proof}#consent") } },
            "type": { "system": "http://hl7.org/fhir/resource-types", "code": "Consent", "display": "Consent" },
            "role": { "system": OBJECT_ROLE, "code": "4", "display": "Domain Resource" },
        }));
    }
    entities
}

/// The ids of what is made for a case: from the case's own, so that making it again makes the same.
fn made_id(kind: &str, proof: &ProofId) -> String {
    format!("waybill-{kind}-{}", &proof.to_string()[..32])
}

/// The Provenance of a record that was filed: from whom, when, in which case, under which signed manifest, with which digest.
#[must_use]
pub fn provenance(
    own: &HospitalId,
    case_row: &DestinationCase,
    (id, manifest): (ManifestId, &Manifest),
    filed: &ReceiptDetail,
    now: Timestamp,
) -> Value {
    let counts: Map<String, Value> =
        filed.inventory.iter().map(|line| (line.resource_type.clone(), json!(line.count))).collect();
    let total = filed.filed;
    let summary: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let text = format!("{total} resources filed from {}: {}", case_row.source.as_str(), summary.join(", "));
    let entity = |system: &str, value: String| json!({ "role": "source", "what": { "identifier": { "system": system, "value": value } } });
    let kind = |code: &str, display: &str| {
        concept("http://terminology.hl7.org/CodeSystem/provenance-participant-type", code, display)
    };
    json!({
        "resourceType": "Provenance",
        "id": made_id("provenance", &case_row.proof),
        "text": narrative(&text),
        "target": [patient(&case_row.local.0)],
        "occurredDateTime": moment(manifest.snapshot_at),
        "recorded": moment(now),
        "policy": [format!("{CASE_SYSTEM}:{}", case_row.proof)],
        "activity": concept("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "CREATE", "create"),
        "agent": [
            { "type": kind("author", "Author"), "who": hospital(&case_row.source) },
            { "type": kind("custodian", "Custodian"), "who": hospital(own) },
        ],
        "entity": [
            entity(CASE_SYSTEM, case_row.proof.to_string()),
            entity(MANIFEST_SYSTEM, id.to_string()),
            entity(DIGEST_SYSTEM, manifest.digest_scope.short().to_string()),
        ],
    })
}

/// The patient's consent to one migration, with its scope as provisions.
#[must_use]
pub fn consent(own: &HospitalId, case_row: &DestinationCase, now: Timestamp) -> Value {
    let scope = case_row.scope.to_string();
    let act_code = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
    let mut provision = json!({
        "type": "permit",
        "period": { "end": moment(case_row.expires) },
        "actor": [{
            "role": concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP", "information recipient"),
            "reference": hospital(own),
        }],
        "action": [concept("http://terminology.hl7.org/CodeSystem/consentaction", "disclose", "Disclose")],
    });
    provisions(&case_row.scope, &mut provision);
    json!({
        "resourceType": "Consent",
        "id": made_id("consent", &case_row.proof),
        "text": narrative(&format!("One migration from {} to {}: {scope}", case_row.source.as_str(), own.as_str())),
        "identifier": [{ "system": CASE_SYSTEM, "value": format!("{}#consent", case_row.proof) }],
        "status": "active",
        "scope": concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy", "Privacy Consent"),
        "category": [concept(act_code, "IDSCL", "information disclosure")],
        "patient": patient(&case_row.local.0),
        "dateTime": moment(now),
        "organization": [hospital(&case_row.source)],
        "policyRule": concept(act_code, "OPTIN", "opt-in"),
        "provision": provision,
    })
}

/// Writes a scope's clauses as provisions.
fn provisions(scope: &Scope, provision: &mut Value) {
    let class = |name: &str| json!({ "system": "http://hl7.org/fhir/resource-types", "code": name });
    let text = scope.to_string();
    let clause = |name: &str| text.split(';').find_map(|clause| clause.trim().strip_prefix(name)?.strip_prefix('='));
    if let Some(types) = clause("types").filter(|types| *types != "*") {
        let names: Vec<Value> = types.split(',').map(|name| class(name.trim_start_matches('!'))).collect();
        if types.starts_with('!') {
            provision["provision"] = json!([{ "type": "deny", "class": names }]);
        } else {
            provision["class"] = json!(names);
        }
    }
    let mut period = Map::new();
    for (from, to) in [("from", "start"), ("to", "end")] {
        if let Some(day) = clause(from) {
            period.insert(to.to_owned(), json!(day));
        }
    }
    if !period.is_empty() {
        provision["dataPeriod"] = Value::Object(period);
    }
    if let Some(labels) = clause("labels").filter(|labels| *labels != "*") {
        let label =
            |code: &str| json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": code });
        let labels: Vec<Value> = labels.split(',').filter(|code| *code != "none").map(label).collect();
        if !labels.is_empty() {
            provision["securityLabel"] = json!(labels);
        }
    }
}

fn narrative(text: &str) -> Value {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{escaped}</div>") })
}

/// What is made for a record that was filed, as exact bytes.
#[must_use]
pub fn made_for(
    own: &HospitalId,
    case_row: &DestinationCase,
    manifest: (ManifestId, &Manifest),
    filed: &ReceiptDetail,
    now: Timestamp,
) -> Vec<Vec<u8>> {
    [provenance(own, case_row, manifest, filed, now), consent(own, case_row, now)]
        .iter()
        .map(|resource| serde_json::to_vec(resource).expect("JSON made of maps, lists and texts is written"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::keys::Digest;
    use waybill_protocol::registrar::LocalPatient;

    fn id(name: &str) -> HospitalId {
        HospitalId::parse(name).unwrap()
    }

    #[test]
    fn moments_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_001, "2025-01-01T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(instant(ms), text);
        }
        // A source may date its snapshot as it likes.
        assert!(moment(Timestamp(u64::MAX)).starts_with("9999-12-31T"));
    }

    /// What the two BALP profiles demand, and what pairs the two events.
    #[test]
    fn a_disclosure_is_told_by_both_sides_under_one_case() {
        let (a, b) = (id("hospital-a.example"), id("hospital-b.example"));
        let proof = ProofId(Digest([5; 32]));
        let place = Place { time_ms: 7, id: [1; 8] };
        let row = |action: &str, local: &str, other: &HospitalId| {
            AuditRow::new(Actor::System, action).of(&LocalPatient(local.to_owned())).in_case(proof, other)
        };
        let sent = audit_event(&a, place, &row(event::RECORD_SENT, "pa", &b));
        let received = audit_event(&b, place, &row(event::RECORD_RECEIVED, "pb", &a));
        for (event, code, action, profile) in
            [(&sent, "110106", "R", "Source"), (&received, "110107", "C", "Recipient")]
        {
            assert_eq!((event["type"]["code"].as_str(), event["action"].as_str()), (Some(code), Some(action)));
            assert!(event["meta"]["profile"][0].as_str().unwrap().ends_with(profile));
            assert_eq!(event["subtype"][0]["code"], "disclose");
            let agents = event["agent"].as_array().unwrap();
            let of = |code: &str| agents.iter().find(|agent| agent["type"]["coding"][0]["code"] == code).unwrap();
            assert_eq!(of("110153")["who"]["display"], "hospital-a.example");
            assert_eq!(of("110152")["who"]["display"], "hospital-b.example");
            assert!(of("110153")["network"]["address"].is_string() && of("110152")["network"]["address"].is_string());
            assert_eq!(event["entity"][0]["role"]["code"], "1");
        }
        assert_eq!(sent["agent"][0]["who"], sent["source"]["observer"], "the source is the observer at the source");
        assert_eq!(received["agent"][1]["who"], received["source"]["observer"]);
        assert_eq!(sent["entity"][1]["what"], received["entity"][1]["what"]);
        assert_ne!(sent["entity"][0]["what"], received["entity"][0]["what"], "each names its own patient");
    }

    #[test]
    fn a_scope_becomes_provisions() {
        let provision = |text: &str| {
            let mut provision = json!({});
            provisions(&text.parse().unwrap(), &mut provision);
            provision
        };
        let only = provision("types=Condition,Observation;from=2020-01-01;to=2021;labels=none,N");
        assert_eq!(only["class"][1]["code"], "Observation");
        assert_eq!(only["dataPeriod"]["start"], "2020-01-01");
        assert_eq!(only["securityLabel"][0]["code"], "N");
        let except = provision("types=!Media");
        assert_eq!(
            (&except["provision"][0]["type"], &except["provision"][0]["class"][0]["code"]),
            (&json!("deny"), &json!("Media"))
        );
        assert_eq!(provision("types=*;labels=*"), json!({}));
    }
}
