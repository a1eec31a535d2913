//! The texts of which generated records are made; `$word` is filled in.

/// A resource that all patients of a seed share.
pub(super) struct Shared {
    pub(super) name: &'static str,
    /// The identifier value under which conditional references find it.
    identifier: Option<&'static str>,
    pub(super) template: &'static str,
}

impl Shared {
    /// `identifier=system|value`, as conditional references write it.
    pub(super) fn identifier_query(&self) -> Option<String> {
        let kind = self.name.to_ascii_lowercase();
        self.identifier.map(|value| format!("identifier=https://sample.example/{kind}|{value}"))
    }
}

macro_rules! practitioner {
    ($value:literal, $family:literal, $given:literal) => {
        Shared {
            name: "Practitioner",
            identifier: Some($value),
            template: concat!(
                r#"{"resourceType":"Practitioner","id":"$id","identifier":[{"system":"https://sample.example/practitioner","value":""#,
                $value,
                r#""}],"active":true,"name":[{"family":""#,
                $family,
                r#"","given":[""#,
                $given,
                r#""],"prefix":["Dr."]}]}"#
            ),
        }
    };
}

pub(super) const SHARED: &[Shared] = &[
    Shared {
        name: "Organization",
        identifier: Some("ORG-1"),
        template: r#"{"resourceType":"Organization","id":"$id","identifier":[{"system":"https://sample.example/organization","value":"ORG-1"}],"active":true,"name":"Sankt-Änne-Klinik","telecom":[{"system":"phone","value":"+00 555 0100"}]}"#,
    },
    Shared {
        name: "Location",
        identifier: Some("LOC-1"),
        template: r#"{"resourceType":"Location","id":"$id","identifier":[{"system":"https://sample.example/location","value":"LOC-1"}],"status":"active","name":"Ward 3 – Süd","position":{"longitude":8.4030000000000000,"latitude":49.0060}}"#,
    },
    practitioner!("PR-1", "Þórsdóttir", "Ólöf"),
    practitioner!("PR-2", "Nguyễn", "Hương"),
    practitioner!("PR-3", "Okonkwo", "Chidi"),
    Shared {
        name: "Medication",
        identifier: None,
        template: r#"{"resourceType":"Medication","id":"$id","code":{"text":"Paracetamol 500 mg"},"ingredient":[{"itemCodeableConcept":{"text":"Paracetamol"},"strength":{"numerator":{"value":500.0,"unit":"mg"},"denominator":{"value":1,"unit":"tablet"}}}]}"#,
    },
    Shared {
        name: "Medication",
        identifier: None,
        template: r#"{"resourceType":"Medication","id":"$id","code":{"text":"Levothyroxin 0.0750 mg"},"amount":{"numerator":{"value":0.0750,"unit":"mg"},"denominator":{"value":1}}}"#,
    },
];

pub(super) const PATIENT: &str = r#"{"resourceType":"Patient","id":"$id","meta":{"source":"https://sample.example/generator"},"text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>Generated &amp; fictitious \u2013 no real person</p></div>"},"identifier":[{"use":"usual","system":"https://sample.example/mrn","value":"$mrn"}],"active":true,"name":[{"use":"official","family":"$family","given":["$given","$given"],"_given":[null,{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/iso21090-EN-qualifier","valueCode":"IN"}]}]}],"gender":"$sex","birthDate":"$birth","_birthDate":{"extension":[{"url":"https://sample.example/birth-minute","valueInteger":$count}]},"address":[{"city":"Musterstadt","extension":[{"url":"http://hl7.org/fhir/StructureDefinition/geolocation","extension":[{"url":"latitude","valueDecimal":$decimal},{"url":"longitude","valueDecimal":$decimal}]}]}],"multipleBirthBoolean":false,"managingOrganization":{"reference":"$organization"}}"#;

pub(super) const RELATED_PERSON: &str = r#"{"resourceType":"RelatedPerson","id":"$id","patient":{"reference":"$patient"},"relationship":[{"text":"sister"}],"name":[{"family":"$family","given":["$given"]}]}"#;

/// The resources of one visit; each refers to earlier ones only, so a block may be cut anywhere.
pub(super) const BLOCK: [(&str, &str); 16] = [
    (
        "Encounter",
        r#"{"resourceType":"Encounter","id":"$id","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"},"subject":{"reference":"$patient"},"participant":[{"individual":{"reference":"$practitioner"}}],"period":{"start":"$dateT08:$minute:00+01:00","end":"$dateT09:$minute:00+01:00"},"location":[{"location":{"reference":"$location"}}],"serviceProvider":{"reference":"$organization"}}"#,
    ),
    (
        "Condition",
        r#"{"resourceType":"Condition","id":"$id"$label,"text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">$narrative</div>"},"clinicalStatus":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/condition-clinical","code":"active"}]},"code":{"text":"$disorder"},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"onsetDateTime":"$date","recordedDate":"$date"}"#,
    ),
    (
        "Observation",
        r#"{"resourceType":"Observation","id":"$id","status":"final","category":[{"coding":[{"code":"vital-signs"}]}],"code":{"coding":[{"system":"http://loinc.org","code":"8302-2","display":"Body Height"}]},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"effectiveDateTime":"$dateT08:$minute:30+01:00","valueQuantity":{"value":$decimal,"unit":"cm"}}"#,
    ),
    (
        "Observation",
        r#"{"resourceType":"Observation","id":"$id"$label,"status":"final","code":{"text":"$lab"},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"effectiveDateTime":"$date","issued":"$dateT12:$minute:00.123Z","performer":[{"reference":"$practitioner"}],"valueQuantity":{"value":$decimal,"unit":"µmol/L"},"referenceRange":[{"low":{"value":$decimal},"high":{"value":$decimal}}]}"#,
    ),
    (
        "Observation",
        r#"{"resourceType":"Observation","id":"$id","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"85354-9"}]},"subject":{"reference":"$patient"},"effectivePeriod":{"start":"$date"},"component":[{"code":{"text":"systolic"},"valueQuantity":{"value":12$count.0,"unit":"mm[Hg]"}},{"code":{"text":"diastolic"},"valueQuantity":{"value":8$count.00,"unit":"mm[Hg]"}}]}"#,
    ),
    (
        "Observation",
        r#"{"resourceType":"Observation","id":"$id","status":"preliminary","code":{"text":"$lab"},"subject":{"reference":"$patient"},"effectiveDateTime":"$date","valueSampledData":{"origin":{"value":$decimal},"period":$count.0,"dimensions":1,"data":"1 2 E U L 3.10"}}"#,
    ),
    (
        "DiagnosticReport",
        r#"{"resourceType":"DiagnosticReport","id":"$id","status":"final","code":{"text":"$lab"},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"effectiveDateTime":"$date","result":[{"reference":"$vital"},{"reference":"$laboratory"},{"reference":"$pressure"}],"conclusion":"$narrative"}"#,
    ),
    (
        "MedicationRequest",
        r##"{"resourceType":"MedicationRequest","id":"$id","contained":[{"resourceType":"Medication","id":"m1","code":{"text":"$drug"}}],"status":"active","intent":"order","medicationReference":{"reference":"#m1"},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"authoredOn":"$date","requester":{"reference":"$practitioner"},"reasonReference":[{"reference":"$condition"}],"dosageInstruction":[{"text":"$count-0-$count","doseAndRate":[{"doseQuantity":{"value":$decimal}}]}]}"##,
    ),
    (
        "MedicationRequest",
        r#"{"resourceType":"MedicationRequest","id":"$id","status":"completed","intent":"order","medicationReference":{"reference":"$medication"},"subject":{"reference":"$patient"},"authoredOn":"$date"}"#,
    ),
    (
        "Procedure",
        r#"{"resourceType":"Procedure","id":"$id"$label,"status":"completed","code":{"text":"Suture of wound"},"subject":{"reference":"$patient"},"encounter":{"reference":"$encounter"},"performedPeriod":{"start":"$dateT08:10:00Z","end":"$dateT08:40:00Z"},"reasonReference":[{"reference":"$condition"}]}"#,
    ),
    (
        "Immunization",
        r#"{"resourceType":"Immunization","id":"$id","status":"completed","vaccineCode":{"text":"$vaccine"},"patient":{"reference":"$patient"},"occurrenceDateTime":"$date","location":{"reference":"$location"},"doseQuantity":{"value":0.50,"unit":"mL"}}"#,
    ),
    (
        "AllergyIntolerance",
        r#"{"resourceType":"AllergyIntolerance","id":"$id","code":{"text":"Nüsse / nuts"},"patient":{"reference":"$patient"},"recordedDate":"$date","criticality":"high","reaction":[{"manifestation":[{"text":"Urticaria"}]}]}"#,
    ),
    (
        "CarePlan",
        r#"{"resourceType":"CarePlan","id":"$id","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">$narrative</div>"},"status":"active","intent":"plan","subject":{"reference":"$patient"},"period":{"start":"$date"},"addresses":[{"reference":"$condition"}],"activity":[{"detail":{"status":"in-progress","description":"Diät – Überprüfung in $count Wochen"}}]}"#,
    ),
    (
        "DocumentReference",
        r#"{"resourceType":"DocumentReference","id":"$id","status":"current","type":{"text":"Note"},"subject":{"reference":"$patient"},"date":"$dateT10:00:00Z","content":[{"attachment":{"contentType":"text/plain","data":"R2VuZXJhdGVkIG5vdGUu","title":"$disorder"}}]}"#,
    ),
    (
        "FamilyMemberHistory",
        r#"{"resourceType":"FamilyMemberHistory","id":"$id","extension":[{"url":"http://hl7.org/fhir/StructureDefinition/familymemberhistory-patient-record","valueReference":{"reference":"$relative"}}],"status":"completed","patient":{"reference":"$patient"},"date":"$date","relationship":{"text":"sister"},"condition":[{"code":{"text":"$disorder"}}]}"#,
    ),
    (
        "Provenance",
        r#"{"resourceType":"Provenance","id":"$id","target":[{"reference":"$encounter"},{"reference":"$condition"}],"recorded":"$dateT18:00:00.000+01:00","agent":[{"who":{"reference":"$practitioner"},"onBehalfOf":{"reference":"$organization"}}]}"#,
    ),
];

pub(super) const DOCUMENT: &str = r#"{"resourceType":"DocumentReference","id":"$id","status":"current","type":{"text":"Scan"},"subject":{"reference":"$patient"},"date":"$dateT10:00:00Z","content":[{"attachment":{"contentType":"application/octet-stream","url":"$binary","size":$size}}]}"#;

pub(super) const BINARY_HEAD: &str =
    r#"{"resourceType":"Binary","id":"$binaryid","contentType":"application/octet-stream","data":""#;
pub(super) const BINARY_TAIL: &str = r#""}"#;

pub(super) const FAMILIES: &[&str] =
    &["Müller", "Wiśniewska", "Núñez", "Ærø", "Петрова", "王", "O'Neill", "Παπαδοπούλου", "Al-Ḥakīm", "Smith"];
pub(super) const GIVENS: &[&str] =
    &["Zoë", "Łukasz", "José", "Søren", "Аня", "小明", "Gráinne", "Ελένη", "Yūsuf", "Anna"];
pub(super) const LABS: &[&str] = &["Creatinine", "Glucose \\u2013 fasting", "TSH", "γ-GT", "Hémoglobine"];
pub(super) const DRUGS: &[&str] = &["Ibuprofen 400 mg", "Amoxicillin 1 g", "Metformin 850 mg"];
pub(super) const VACCINES: &[&str] = &["Influenza", "Tetanus/Diphtheria", "Measles"];
pub(super) const CONDITIONS: &[&str] =
    &["Hypertension", "Diabète de type 2", "Asthma", "Otitis media", "Angst\\u00f6rung"];
/// A `meta` member, or nothing: most resources carry no label.
pub(super) const LABELS: &[&str] = &[
    "",
    "",
    "",
    r#","meta":{"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-Confidentiality","code":"N"}]}"#,
    r#","meta":{"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-Confidentiality","code":"R"},{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"PSY"}]}"#,
];
pub(super) const NARRATIVES: &[&str] = &[
    "<p>No acute distress &#8211; follow up in 2&#160;weeks.</p>",
    "<table><tr><td>Weight</td><td>70.50 kg</td></tr></table>",
    "<p>Patient reports \\\"feeling well\\\"; diet &lt; 2000 kcal.</p>",
];
