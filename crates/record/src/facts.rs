//! What a scope decision needs to know about one resource: its type, its clinical date and its security labels.

use crate::dates::{Day, PartialDate};
use crate::types::ResourceType;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use thiserror::Error;

/// How deep resources inside resources are searched for security labels.
const MAX_NESTED_RESOURCES: usize = 8;

/// The facts a scope decision is taken on; nothing else about the resource may influence it.
///
/// Security: both hospitals take these from the same exact bytes, so the destination can check the decision again.
#[derive(Clone, PartialEq, Eq)]
pub struct ResourceFacts {
    /// The resource type.
    pub resource_type: ResourceType,
    /// The day the resource is about, taken from the first path of [`clinical_date_paths`] that is present.
    pub clinical_date: Option<Day>,
    /// The codes of `meta.security`, of this resource and of every resource inside it, sorted without repetition.
    ///
    /// A label that has no readable code is kept as the empty text, which no allow-list can name.
    pub labels: Vec<String>,
}

impl std::fmt::Debug for ResourceFacts {
    /// Shows the type only: dates and labels of a record are health data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceFacts").field("resource_type", &self.resource_type).finish_non_exhaustive()
    }
}

/// Why no facts could be taken from the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FactsError {
    /// The bytes are not one JSON object.
    #[error("the resource is not a JSON object")]
    NotAnObject,
    /// `resourceType` is absent or not a type of FHIR R4.
    #[error("resourceType is missing or is not a FHIR R4 resource type")]
    UnknownType,
    /// Resources are nested deeper than any record needs.
    #[error("resources are nested more than {MAX_NESTED_RESOURCES} deep")]
    TooDeep,
}

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Takes the facts from the exact bytes of one resource.
///
/// The bytes have passed the strict scanner before (no duplicate keys); numbers are never converted here.
///
/// Errors: [`FactsError`] for bytes that are not one R4 resource.
pub fn facts(bytes: &[u8]) -> Result<ResourceFacts, FactsError> {
    let fields: Fields<'_> = serde_json::from_slice(bytes).map_err(|_| FactsError::NotAnObject)?;
    let name = fields.get("resourceType").copied().and_then(text).ok_or(FactsError::UnknownType)?;
    let resource_type = ResourceType::parse(&name).ok_or(FactsError::UnknownType)?;
    let clinical_date = clinical_date(resource_type.as_str(), &fields);
    let mut labels = Vec::new();
    collect_labels(&fields, 0, &mut labels)?;
    labels.sort_unstable();
    labels.dedup();
    Ok(ResourceFacts { resource_type, clinical_date, labels })
}

/// The first path that is present decides; when its value is not a date, the resource counts as undated.
fn clinical_date(resource_type: &str, fields: &Fields<'_>) -> Option<Day> {
    let found = clinical_date_paths(resource_type).iter().find_map(|path| {
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let value = *fields.get(head)?;
        walk(value, rest)
    })?;
    PartialDate::parse_date_time(&found).ok().map(PartialDate::earliest)
}

/// Follows a dotted path to a text; of a list the first item counts.
fn walk<'a>(value: &'a RawValue, path: &str) -> Option<Cow<'a, str>> {
    let value = match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(items) => *items.first()?,
        Err(_) => value,
    };
    if path.is_empty() {
        return text(value).map(Cow::Owned);
    }
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let fields: Fields<'a> = serde_json::from_str(value.get()).ok()?;
    walk(fields.get(head)?, rest)
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Collects the label codes of a resource, of its contained resources and of the entries of a Bundle inside it.
fn collect_labels(fields: &Fields<'_>, depth: usize, labels: &mut Vec<String>) -> Result<(), FactsError> {
    if depth > MAX_NESTED_RESOURCES {
        return Err(FactsError::TooDeep);
    }
    if let Some(meta) = fields.get("meta") {
        match serde_json::from_str::<Fields<'_>>(meta.get()) {
            Ok(meta) => meta.get("security").into_iter().for_each(|security| push_codes(security, labels)),
            Err(_) => labels.push(String::new()),
        }
    }
    for contained in items(fields.get("contained")) {
        if let Ok(inner) = serde_json::from_str::<Fields<'_>>(contained.get()) {
            collect_labels(&inner, depth + 1, labels)?;
        }
    }
    for entry in items(fields.get("entry")) {
        let Ok(entry) = serde_json::from_str::<Fields<'_>>(entry.get()) else { continue };
        if let Some(inner) =
            entry.get("resource").and_then(|inner| serde_json::from_str::<Fields<'_>>(inner.get()).ok())
        {
            collect_labels(&inner, depth + 1, labels)?;
        }
    }
    Ok(())
}

fn items<'a>(list: Option<&&'a RawValue>) -> Vec<&'a RawValue> {
    list.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default()
}

/// The code of each Coding; whatever cannot be read becomes the label that nobody may name.
fn push_codes(security: &RawValue, labels: &mut Vec<String>) {
    let Ok(codings) = serde_json::from_str::<Vec<&RawValue>>(security.get()) else {
        labels.push(String::new());
        return;
    };
    labels.extend(codings.into_iter().map(|coding| {
        serde_json::from_str::<Fields<'_>>(coding.get())
            .ok()
            .and_then(|coding| coding.get("code").copied().and_then(text))
            .unwrap_or_default()
    }));
}

/// The paths that say when a resource of this type took place, the most clinical first; the start of a period only.
///
/// Only the start counts, so that two scopes that meet at a day divide a record exactly: nothing falls in both,
/// nothing in neither. Types that are not listed (Patient, Practitioner, Medication, ...) have no clinical date.
pub fn clinical_date_paths(resource_type: &str) -> &'static [&'static str] {
    match resource_type {
        "Account" => &["servicePeriod.start"],
        "AdverseEvent" => &["date", "detected", "recordedDate"],
        "AllergyIntolerance" => &["onsetDateTime", "onsetPeriod.start", "recordedDate", "lastOccurrence"],
        "Appointment" => &["start", "requestedPeriod.start", "created"],
        "AppointmentResponse" | "Slot" => &["start"],
        "AuditEvent" => &["period.start", "recorded"],
        "Basic" | "ClaimResponse" | "DocumentManifest" | "EnrollmentRequest" | "EnrollmentResponse" => &["created"],
        "PaymentNotice" | "PaymentReconciliation" => &["created"],
        "Bundle" => &["timestamp"],
        "CarePlan" => &["period.start", "created"],
        "CareTeam" | "Coverage" | "Encounter" | "EpisodeOfCare" | "Flag" | "ResearchSubject" => &["period.start"],
        "ChargeItem" => &["occurrenceDateTime", "occurrencePeriod.start", "occurrenceTiming.event", "enteredDate"],
        "Claim" | "ExplanationOfBenefit" => &["billablePeriod.start", "created"],
        "ClinicalImpression" => &["effectiveDateTime", "effectivePeriod.start", "date"],
        "Communication" => &["sent", "received"],
        "CommunicationRequest" | "DeviceRequest" | "ServiceRequest" | "SupplyRequest" => {
            &["occurrenceDateTime", "occurrencePeriod.start", "occurrenceTiming.event", "authoredOn"]
        }
        "Composition"
        | "FamilyMemberHistory"
        | "ImmunizationEvaluation"
        | "ImmunizationRecommendation"
        | "Invoice"
        | "List" => &["date"],
        "Condition" => &["onsetDateTime", "onsetPeriod.start", "recordedDate"],
        "Consent" => &["dateTime", "provision.period.start"],
        "Contract" => &["applies.start", "issued"],
        "CoverageEligibilityRequest" | "CoverageEligibilityResponse" => {
            &["servicedDate", "servicedPeriod.start", "created"]
        }
        "DetectedIssue" => &["identifiedDateTime", "identifiedPeriod.start"],
        "DeviceUseStatement" => &["timingDateTime", "timingPeriod.start", "timingTiming.event", "recordedOn"],
        "DiagnosticReport" => &["effectiveDateTime", "effectivePeriod.start", "issued"],
        "DocumentReference" => &["context.period.start", "date"],
        "Goal" => &["startDate", "statusDate"],
        "GuidanceResponse" => &["occurrenceDateTime"],
        "ImagingStudy" => &["started"],
        "Immunization" => &["occurrenceDateTime", "recorded"],
        "MeasureReport" => &["period.start", "date"],
        "Media" => &["createdDateTime", "createdPeriod.start", "issued"],
        "MedicationAdministration" => &["effectiveDateTime", "effectivePeriod.start"],
        "MedicationDispense" => &["whenHandedOver", "whenPrepared"],
        "MedicationRequest" | "RequestGroup" => &["authoredOn"],
        "MedicationStatement" => &["effectiveDateTime", "effectivePeriod.start", "dateAsserted"],
        "NutritionOrder" => &["dateTime"],
        "Observation" => {
            &["effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "effectiveTiming.event", "issued"]
        }
        "Procedure" => &["performedDateTime", "performedPeriod.start"],
        "Provenance" => &["occurredDateTime", "occurredPeriod.start", "recorded"],
        "QuestionnaireResponse" => &["authored"],
        "RiskAssessment" | "SupplyDelivery" => {
            &["occurrenceDateTime", "occurrencePeriod.start", "occurrenceTiming.event"]
        }
        "Schedule" => &["planningHorizon.start"],
        "Specimen" => &["collection.collectedDateTime", "collection.collectedPeriod.start", "receivedTime"],
        "Task" => &["executionPeriod.start", "authoredOn"],
        "VisionPrescription" => &["dateWritten", "created"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RESOURCE_TYPES;
    use proptest::prelude::*;

    fn day(resource: &str) -> Option<u32> {
        facts(resource.as_bytes()).unwrap().clinical_date.map(Day::number)
    }

    #[test]
    fn the_most_clinical_date_decides_and_only_the_start_of_a_period() {
        assert_eq!(
            day(r#"{"resourceType":"Observation","issued":"2020-01-01T00:00:00Z","effectiveDateTime":"2019-05"}"#),
            Some(20_190_501)
        );
        assert_eq!(
            day(r#"{"resourceType":"Encounter","period":{"end":"2021-01-01","start":"2018-12-31T23:00:00-05:00"}}"#),
            Some(20_181_231)
        );
        assert_eq!(day(r#"{"resourceType":"Encounter","period":{"end":"2021-01-01"}}"#), None);
        assert_eq!(
            day(r#"{"resourceType":"Appointment","requestedPeriod":[{"start":"2014-02-03"},{"start":"2010-01-01"}]}"#),
            Some(20_140_203)
        );
        assert_eq!(day(r#"{"resourceType":"Patient","birthDate":"1970-01-01"}"#), None);
    }

    #[test]
    fn a_date_that_cannot_be_read_does_not_fall_back_to_a_less_clinical_one() {
        assert_eq!(
            day(r#"{"resourceType":"Condition","onsetDateTime":"circa 2015","recordedDate":"2015-01-01"}"#),
            None
        );
    }

    #[test]
    fn labels_are_collected_from_every_resource_inside() {
        let taken = facts(
            br#"{"resourceType":"Bundle","meta":{"security":[{"code":"R"},{"display":"?"}]},
            "entry":[{"resource":{"resourceType":"Condition","meta":{"security":[{"code":"PSY"}]},
            "contained":[{"resourceType":"List","meta":{"security":[{"code":"HIV"},{"code":"R"}]}}]}}]}"#,
        )
        .unwrap();
        assert_eq!(taken.labels, ["", "HIV", "PSY", "R"]);
    }

    #[test]
    fn malformed_labels_are_never_no_label() {
        for meta in [r#"{"security":{"code":"N"}}"#, r#"{"security":[5]}"#, r#"{"security":[{"code":7}]}"#, "[]"] {
            let bytes = format!(r#"{{"resourceType":"Condition","meta":{meta}}}"#);
            assert_eq!(facts(bytes.as_bytes()).unwrap().labels, [""], "{meta}");
        }
    }

    #[test]
    fn numbers_beyond_every_float_do_no_harm() {
        assert_eq!(
            day(r#"{"resourceType":"Observation","valueDecimal":1E999,"effectiveDateTime":"2019-05-06"}"#),
            Some(20_190_506)
        );
    }

    #[test]
    fn what_is_no_resource_is_refused() {
        assert_eq!(facts(b"[]"), Err(FactsError::NotAnObject));
        assert_eq!(facts(b"{\"resourceType\":\"Observation\""), Err(FactsError::NotAnObject));
        assert_eq!(facts(b"{}"), Err(FactsError::UnknownType));
        assert_eq!(facts(br#"{"resourceType":"Prescription"}"#), Err(FactsError::UnknownType));
        let mut nested = String::from(r#"{"resourceType":"List"}"#);
        for _ in 0..10 {
            nested = format!(r#"{{"resourceType":"List","contained":[{nested}]}}"#);
        }
        assert_eq!(facts(nested.as_bytes()), Err(FactsError::TooDeep));
    }

    #[test]
    fn debug_shows_neither_date_nor_label() {
        let taken =
            facts(br#"{"resourceType":"Condition","onsetDateTime":"2015-01-01","meta":{"security":[{"code":"HIV"}]}}"#);
        let shown = format!("{taken:?}");
        assert!(!shown.contains("2015") && !shown.contains("HIV"), "{shown}");
    }

    #[test]
    fn every_type_with_a_date_is_an_r4_type() {
        let dated = RESOURCE_TYPES.iter().filter(|name| !clinical_date_paths(name).is_empty()).count();
        assert_eq!(dated, 68, "as many as the table has names: none is misspelt");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = facts(&bytes);
        }
    }
}
