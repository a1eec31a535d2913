use super::*;
use crate::pool::MemoryPool;
use crate::resource::Resource;

fn pool(resources: &[&str]) -> MemoryPool {
    let mut pool = MemoryPool::default();
    for text in resources {
        pool.insert(Resource::parse(text.as_bytes()).expect(text)).unwrap();
    }
    pool
}

fn relation_of(text: &str, resources: &[&str]) -> Relation {
    let document = json::parse(text.as_bytes()).expect(text);
    relation(&"Patient/p".parse().unwrap(), &document, &pool(resources)).unwrap()
}

fn to(key: &str) -> String {
    format!(r#"{{"reference":"{key}"}}"#)
}

#[test]
fn the_rules_are_sorted_and_of_r4() {
    assert!(RULES.windows(2).all(|pair| pair[0].resource_type < pair[1].resource_type), "binary search needs order");
    for rule in RULES {
        assert!(ResourceType::parse(rule.resource_type).is_some(), "{}", rule.resource_type);
        assert!(!rule.owner.is_empty() || !rule.inherits.is_empty());
    }
    for name in ATTACHED_TYPES {
        assert!(!rule(ResourceType::parse(name).unwrap()).unwrap().inherits.is_empty());
    }
}

/// The types of the R4 Patient CompartmentDefinition: each must be owned or inherit, or a patient's data would pass as
/// supporting.
#[test]
fn every_type_of_the_compartment_has_a_rule() {
    let compartment = "Account AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic BodyStructure \
        CarePlan CareTeam ChargeItem Claim ClaimResponse ClinicalImpression Communication CommunicationRequest Composition \
        Condition Consent Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue DeviceRequest \
        DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference Encounter EnrollmentRequest EpisodeOfCare \
        ExplanationOfBenefit FamilyMemberHistory Flag Goal Group ImagingStudy Immunization ImmunizationEvaluation \
        ImmunizationRecommendation Invoice List MeasureReport Media MedicationAdministration MedicationDispense \
        MedicationRequest MedicationStatement MolecularSequence NutritionOrder Observation Person Procedure Provenance \
        QuestionnaireResponse RelatedPerson RequestGroup ResearchSubject RiskAssessment Schedule ServiceRequest Specimen \
        SupplyDelivery SupplyRequest VisionPrescription";
    for name in compartment.split_whitespace() {
        assert!(rule(ResourceType::parse(name).expect(name)).is_some(), "{name}");
    }
}

/// Every owner path of every rule, with this patient and with another: nothing is left to a list kept by hand.
#[test]
fn every_owner_path_decides() {
    for rule in RULES {
        for path in rule.owner {
            let with = |key: &str| {
                let element = path.rsplit('.').fold(to(key), |inner, name| format!(r#"{{"{name}":[{inner}]}}"#));
                format!(r#"{{"resourceType":"{}",{}"#, rule.resource_type, &element[1..])
            };
            assert_eq!(relation_of(&with("Patient/p"), &[]), Relation::Own, "{} {path}", rule.resource_type);
            assert_eq!(relation_of(&with("Patient/q"), &[]), Relation::Another, "{} {path}", rule.resource_type);
            let last = path.rsplit('.').next().unwrap();
            let one = format!(r#""{last}":["#);
            let both = with("Patient/p").replacen(&one, &format!("{one}{},", to("Patient/q")), 1);
            assert_eq!(relation_of(&both, &[]), Relation::Shared, "{} {path}", rule.resource_type);
        }
    }
}

#[test]
fn several_owners_share() {
    let text = format!(
        r#"{{"resourceType":"Appointment","participant":[{{"actor":{}}},{{"actor":{}}},{{"actor":{{"display":"Dr"}}}}]}}"#,
        to("Patient/p"),
        to("Patient/q")
    );
    assert_eq!(relation_of(&text, &[]), Relation::Shared);
    let alone = text.replace("Patient/q", "Practitioner/d");
    assert_eq!(relation_of(&alone, &[]), Relation::Own, "a doctor without a reference is not another patient");
}

#[test]
fn a_patient_is_its_own_whatever_it_links_to() {
    let text = format!(r#"{{"resourceType":"Patient","id":"p","link":[{{"other":{}}}]}}"#, to("Patient/q"));
    assert_eq!(relation_of(&text, &[]), Relation::Own);
    assert_eq!(relation_of(&text.replace(r#""id":"p""#, r#""id":"q""#), &[]), Relation::Another);
    let relative = format!(r#"{{"resourceType":"RelatedPerson","patient":{}}}"#, to("Patient/p"));
    assert_eq!(relation_of(&relative, &[]), Relation::Own);
    assert_eq!(relation_of(&relative.replace("Patient/p", "Patient/q"), &[]), Relation::Another);
}

#[test]
fn a_group_stands_for_its_members() {
    let group = |members: &[&str]| {
        let members: Vec<_> = members.iter().map(|key| format!(r#"{{"entity":{}}}"#, to(key))).collect();
        format!(r#"{{"resourceType":"Group","id":"g","member":[{}]}}"#, members.join(","))
    };
    let about = format!(r#"{{"resourceType":"Observation","subject":{}}}"#, to("Group/g"));
    let alone = group(&["Patient/p", "Device/d"]);
    let family = group(&["Patient/p", "Patient/q"]);
    assert_eq!(relation_of(&alone, &[]), Relation::Own);
    assert_eq!(relation_of(&family, &[]), Relation::Shared);
    assert_eq!(relation_of(&about, &[&alone]), Relation::Own);
    assert_eq!(relation_of(&about, &[&family]), Relation::Shared);
    assert_eq!(relation_of(&about, &[]), Relation::Unknown, "a group we do not hold may be anybody");
    let circle = group(&["Group/g"]);
    assert_eq!(relation_of(&about, &[&circle]), Relation::Supporting, "a circle of groups ends");
}

#[test]
fn doubt_is_not_ownership() {
    let about = |subject: &str| format!(r#"{{"resourceType":"Observation","subject":{subject}}}"#);
    for subject in [
        r#"{"display":"Mr X"}"#,
        r#"{"identifier":{"value":"1"}}"#,
        r#"{"reference":"urn:uuid:1"}"#,
        r#"{"reference":"http://h/x"}"#,
        r#"{"reference":"nonsense"}"#,
        r##"{"reference":"#c"}"##,
    ] {
        let text = about(subject).replacen('{', r#"{"contained":[{"resourceType":"Patient","id":"c"}],"#, 1);
        assert_eq!(relation_of(&text, &[]), Relation::Unknown, "{subject}");
    }
    assert_eq!(relation_of(&about(&to("http://h/f/Patient/p")), &[]), Relation::Another, "a server we do not know");
    assert_eq!(relation_of(&about(&to("Patient?identifier=a|b")), &[]), Relation::Another);
    for subject in [r#"{"display":"Pump","type":"Device"}"#, r#"{"reference":"Location/l"}"#, r#"{"extension":[]}"#] {
        assert_eq!(relation_of(&about(subject), &[]), Relation::Supporting, "{subject}");
    }
}

#[test]
fn the_attached_inherits_its_owner() {
    let flag = |id: &str, patient: &str| format!(r#"{{"resourceType":"Flag","id":"{id}","subject":{}}}"#, to(patient));
    let organization = r#"{"resourceType":"Organization","id":"o"}"#;
    let resources = [&*flag("mine", "Patient/p"), &*flag("other", "Patient/q"), organization];
    let provenance = |keys: &[&str]| {
        let targets: Vec<_> = keys.iter().map(|key| to(key)).collect();
        format!(r#"{{"resourceType":"Provenance","id":"v","target":[{}]}}"#, targets.join(","))
    };
    for (targets, expected) in [
        (&["Flag/mine", "Organization/o"][..], Relation::Own),
        (&["Flag/mine", "Flag/other"], Relation::Shared),
        (&["Flag/other"], Relation::Another),
        (&["Organization/o"], Relation::Supporting),
        (&["Patient/p"], Relation::Own),
        (&["Flag/nowhere"], Relation::Supporting),
    ] {
        assert_eq!(relation_of(&provenance(targets), &resources), expected, "{targets:?}");
    }
    let folder = |subject: &str| {
        format!(
            r#"{{"resourceType":"List"{subject},"entry":[{{"item":{}}},{{"item":{}}}]}}"#,
            to("Flag/mine"),
            to("Flag/other")
        )
    };
    assert_eq!(relation_of(&folder(""), &resources), Relation::Shared, "a shared folder");
    let own = format!(r#","subject":{}"#, to("Patient/p"));
    assert_eq!(relation_of(&folder(&own), &resources), Relation::Own, "its own subject comes first");
}

#[test]
fn inheritance_ends() {
    let mut resources: Vec<String> = (0..9)
        .map(|n| {
            format!(r#"{{"resourceType":"List","id":"l{n}","entry":[{{"item":{}}}]}}"#, to(&format!("List/l{}", n + 1)))
        })
        .collect();
    resources.push(format!(r#"{{"resourceType":"List","id":"l9","subject":{}}}"#, to("Patient/p")));
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    assert_eq!(relation_of(resources[7], &resources), Relation::Own);
    assert_eq!(relation_of(resources[0], &resources), Relation::Unknown);
}

#[test]
fn the_supporting_may_name_nobody_else() {
    let device = |extra: &str| format!(r#"{{"resourceType":"Substance"{extra}}}"#);
    assert_eq!(relation_of(&device(""), &[]), Relation::Supporting);
    let naming = |key: &str| device(&format!(r#","extension":[{{"url":"u","valueReference":{}}}]"#, to(key)));
    assert_eq!(relation_of(&naming("Patient/p"), &[]), Relation::Supporting);
    for key in ["Patient/q", "Patient/q/_history/1", "http://h/Patient/p", "Patient?identifier=a|b"] {
        assert_eq!(relation_of(&naming(key), &[]), Relation::NamesAnother, "{key}");
    }
    let contained = device(r#","contained":[{"resourceType":"Patient","id":"c"}]"#);
    assert_eq!(relation_of(&contained, &[]), Relation::NamesAnother);
}

#[test]
fn a_container_is_about_everybody_in_it() {
    let bundle = |ids: &[&str]| {
        let entries: Vec<_> =
            ids.iter().map(|id| format!(r#"{{"resource":{{"resourceType":"Patient","id":"{id}"}}}}"#)).collect();
        format!(r#"{{"resourceType":"Bundle","id":"b","entry":[{}]}}"#, entries.join(","))
    };
    assert_eq!(relation_of(&bundle(&["p"]), &[]), Relation::Own);
    assert_eq!(relation_of(&bundle(&["q"]), &[]), Relation::Another);
    assert_eq!(relation_of(&bundle(&["p", "q"]), &[]), Relation::Shared);
    let naming = format!(r#"{{"resourceType":"Parameters","parameter":[{{"valueReference":{}}}]}}"#, to("Patient/q"));
    assert_eq!(relation_of(&naming, &[]), Relation::Another);
}
