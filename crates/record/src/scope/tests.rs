use super::*;
use crate::facts::facts;
use proptest::prelude::*;

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn decide(text: &str, resource: &str) -> Decision {
    scope(text).decide(&facts(resource.as_bytes()).unwrap())
}

fn refused(text: &str) -> (usize, usize, ScopeErrorKind) {
    let error = text.parse::<Scope>().unwrap_err();
    (error.clause, error.position, error.kind)
}

const OBSERVATION: &str = r#"{"resourceType":"Observation","effectiveDateTime":"2015-06-01"}"#;

#[test]
fn types_allow_only_what_they_name() {
    let outside = Decision::Withheld(WithheldReason::TypeNotInScope);
    assert_eq!(decide("types=Observation,Condition", OBSERVATION), Decision::InScope);
    assert_eq!(decide("types=Condition", OBSERVATION), outside);
    assert_eq!(decide("types=!Condition", OBSERVATION), Decision::InScope);
    assert_eq!(decide("types=!Condition,!Observation", OBSERVATION), outside);
    assert_eq!(decide("types=*", OBSERVATION), Decision::InScope);
}

#[test]
fn dates_are_inclusive_on_both_sides() {
    for (text, decision) in [
        ("from=2015-06-01", Decision::InScope),
        ("from=2015-06-02", Decision::Withheld(WithheldReason::BeforeFrom)),
        ("to=2015-06-01", Decision::InScope),
        ("to=2015-05", Decision::Withheld(WithheldReason::AfterTo)),
        ("from=2015;to=2015", Decision::InScope),
    ] {
        assert_eq!(decide(text, OBSERVATION), decision, "{text}");
    }
}

#[test]
fn undated_resources_stay_behind_once_a_date_is_given() {
    let patient = r#"{"resourceType":"Patient","birthDate":"2016-01-01"}"#;
    let undated = Decision::Withheld(WithheldReason::Undated);
    assert_eq!(decide("from=2015", patient), undated);
    assert_eq!(decide("from=2015;undated=include", patient), Decision::InScope);
    assert_eq!(decide("types=*", patient), Decision::InScope);
    assert_eq!(decide("undated=exclude", patient), undated);
}

#[test]
fn every_label_must_be_allowed() {
    let with = |codes: &str| {
        let list: Vec<String> = codes.split_whitespace().map(|code| format!(r#"{{"code":"{code}"}}"#)).collect();
        format!(r#"{{"resourceType":"Condition","meta":{{"security":[{}]}}}}"#, list.join(","))
    };
    let plain = r#"{"resourceType":"Condition"}"#;
    let label = Decision::Withheld(WithheldReason::Label);
    assert_eq!(decide("types=*", plain), Decision::InScope);
    assert_eq!(decide("types=*", &with("N")), Decision::InScope);
    assert_eq!(decide("types=*", &with("R")), label);
    assert_eq!(decide("types=*", &with("N HIV")), label);
    assert_eq!(decide("labels=N,HIV", &with("N HIV")), Decision::InScope);
    assert_eq!(decide("labels=N,HIV", plain), label);
    assert_eq!(decide("labels=none", plain), Decision::InScope);
    assert_eq!(decide("labels=none", &with("N")), label);
    assert_eq!(decide("labels=*", &with("V")), Decision::InScope);
    let unreadable = r#"{"resourceType":"Condition","meta":{"security":[{}]}}"#;
    assert_eq!(decide("labels=none,N", unreadable), label);
}

#[test]
fn errors_name_the_clause_and_the_character() {
    use ScopeErrorKind as Kind;
    assert_eq!(refused(""), (1, 1, Kind::EmptyClause));
    assert_eq!(refused("types=*;"), (2, 9, Kind::EmptyClause));
    assert_eq!(refused("types"), (1, 1, Kind::NoValue));
    assert_eq!(refused("types=*; kinds=A"), (2, 10, Kind::UnknownClause));
    assert_eq!(refused("to=2015;to=2016"), (2, 9, Kind::RepeatedClause("to")));
    assert_eq!(refused("types="), (1, 7, Kind::EmptyValue("types")));
    assert_eq!(refused("types=Patient,"), (1, 15, Kind::EmptyValue("types")));
    assert_eq!(refused("types=Patient,*"), (1, 15, Kind::StarNotAlone("types")));
    assert_eq!(refused("types=!*"), (1, 7, Kind::StarNotAlone("types")));
    assert_eq!(refused("types=Patient,!Condition"), (1, 15, Kind::MixedExclusion));
    assert_eq!(refused("types=!Patient,Condition"), (1, 16, Kind::MixedExclusion));
    assert_eq!(refused("from=2015;to=2014"), (2, 14, Kind::FromAfterTo));
    assert_eq!(refused("to=2014;from=2015"), (2, 14, Kind::FromAfterTo));
    assert_eq!(refused("from=15"), (1, 6, Kind::Date(crate::dates::DateError::Form)));
    assert_eq!(refused("undated=maybe"), (1, 9, Kind::Undated));
    assert_eq!(refused("labels=N,a b"), (1, 10, Kind::Label));
    assert_eq!(refused(&format!("labels=N{}", ",N".repeat(5000))), (1, 1, Kind::TooLong));
    let many: Vec<String> = (0..65).map(|n| format!("L{n}")).collect();
    assert_eq!(refused(&format!("labels={}", many.join(","))), (1, 8, Kind::TooManyLabels));
}

#[test]
fn a_mistyped_type_is_answered_with_the_nearest_one() {
    let error = "types=Patient,imunization".parse::<Scope>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "scope, clause 1, character 15: `imunization` is not a FHIR R4 resource type; did you mean `Immunization`?"
    );
    let error = "types=Vaccine".parse::<Scope>().unwrap_err();
    assert_eq!(error.to_string(), "scope, clause 1, character 7: `Vaccine` is not a FHIR R4 resource type");
}

#[test]
fn the_text_is_canonical_and_reads_back() {
    assert_eq!(
        scope(" types = Immunization , AllergyIntolerance,Immunization; from = 2015 ").to_string(),
        "types=AllergyIntolerance,Immunization;from=2015-01-01;undated=exclude;labels=none,L,M,N,U"
    );
    assert_eq!(Scope::full().to_string(), "types=*;undated=include;labels=*");
    assert_eq!(scope("types=*;labels=*"), Scope::full());
    assert!(scope("labels=*").is_full());
    assert!(!scope("types=*").is_full());
}

/// The test's own writer of scope bytes, so that refused ones can be made.
fn raw(types: (u8, &[&str]), from: Option<u32>, to: Option<u32>, labels: (u8, bool, &[&str])) -> Vec<u8> {
    minicbor::to_vec((types, from, to, true, labels)).unwrap()
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let all: (u8, bool, &[&str]) = (0, true, &[]);
    let accepted = |bytes: Vec<u8>| minicbor::decode::<Scope>(&bytes).is_ok();
    assert!(accepted(raw((1, &["Condition", "Patient"]), None, None, all)));
    assert!(!accepted(raw((1, &["Patient", "Condition"]), None, None, all)));
    assert!(!accepted(raw((1, &["Patient", "Patient"]), None, None, all)));
    assert!(!accepted(raw((1, &["Nonsense"]), None, None, all)));
    assert!(!accepted(raw((1, &[]), None, None, all)));
    assert!(!accepted(raw((0, &["Patient"]), None, None, all)));
    assert!(!accepted(raw((3, &["Patient"]), None, None, all)));
    assert!(!accepted(raw((0, &[]), Some(20_160_101), Some(20_150_101), all)));
    assert!(!accepted(raw((0, &[]), Some(20_160_231), None, all)));
    assert!(!accepted(raw((0, &[]), None, None, (0, false, &[]))));
    assert!(!accepted(raw((0, &[]), None, None, (0, true, &["N"]))));
    assert!(!accepted(raw((0, &[]), None, None, (1, false, &[]))));
    assert!(!accepted(raw((0, &[]), None, None, (1, true, &["R", "N"]))));
    assert!(!accepted(raw((0, &[]), None, None, (1, true, &["none"]))));
    assert!(!accepted(raw((0, &[]), None, None, (1, true, &["a b"]))));
    assert!(!accepted(raw((0, &[]), None, None, (2, true, &[]))));
    let full = minicbor::to_vec(Scope::full()).unwrap();
    assert_eq!(full, raw((0, &[]), None, None, all));
}

#[test]
fn reason_codes_are_the_names_that_reports_use() {
    use WithheldReason as Reason;
    for reason in
        [Reason::TypeNotInScope, Reason::BeforeFrom, Reason::AfterTo, Reason::Undated, Reason::Label, Reason::Hidden]
    {
        assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.code()));
    }
}

fn any_scope() -> impl Strategy<Value = String> {
    let types = prop_oneof![
        Just("*".to_owned()),
        proptest::sample::subsequence(crate::types::RESOURCE_TYPES.to_vec(), 1..8).prop_map(|names| names.join(",")),
        proptest::sample::subsequence(crate::types::RESOURCE_TYPES.to_vec(), 1..8)
            .prop_map(|names| format!("!{}", names.join(",!"))),
    ];
    let labels = prop_oneof![Just("*".to_owned()), Just("none,R".to_owned()), "[A-Z]{1,5}(,[A-Z]{1,5}){0,4}"];
    (types, labels, 1900..2000u32, 2000..2100u32, any::<(bool, bool)>(), prop_oneof!["include", "exclude"]).prop_map(
        |(types, labels, from, to, (has_from, has_to), undated)| {
            let mut text = format!("types={types};labels={labels};undated={undated}");
            if has_from {
                text += &format!(";from={from}");
            }
            if has_to {
                text += &format!(";to={to}");
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn text_and_bytes_round_trip(text in any_scope()) {
        let scope = scope(&text);
        prop_assert_eq!(&scope.to_string().parse::<Scope>().unwrap(), &scope);
        let bytes = minicbor::to_vec(&scope).unwrap();
        let back: Scope = minicbor::decode(&bytes).unwrap();
        prop_assert_eq!(&back, &scope);
        prop_assert_eq!(minicbor::to_vec(&back).unwrap(), bytes);
    }

    #[test]
    fn complementary_ranges_divide_a_record_exactly(start in "(19[5-9][0-9]|20[0-4][0-9])(-(0[1-9]|1[0-2])(-(0[1-9]|1[0-9]|2[0-8]))?)?") {
        let encounter = format!(r#"{{"resourceType":"Encounter","period":{{"start":"{start}","end":"2099-01-01"}}}}"#);
        let before = decide("to=2014-12-31;labels=*", &encounter) == Decision::InScope;
        let after = decide("from=2015-01-01;undated=include;labels=*", &encounter) == Decision::InScope;
        prop_assert!(before != after);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}|(types|from|to|undated|labels|;|=|,|!|\\*|é| |2015){0,12}") {
        let _ = text.parse::<Scope>();
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = minicbor::decode::<Scope>(&bytes);
    }
}
