use super::*;
use IdentityField::{BirthDate, FamilyName, GivenName, Identifier, Sex};
use IdentityProblem::{Differs, Inexact, Missing};
use proptest::prelude::*;

fn person(patient: &str) -> Demographics {
    Demographics::from_patient(format!(r#"{{"resourceType":"Patient"{patient}}}"#).as_bytes()).unwrap()
}

fn whole(family: &str, given: &str, birth: &str, sex: &str, number: &str) -> Demographics {
    person(&format!(
        r#","name":[{{"family":"{family}","given":["{given}","Q."]}}],"birthDate":"{birth}","gender":"{sex}","identifier":[{{"system":"urn:example:{number}","value":"{number}"}}]"#
    ))
}

fn doubt(reasons: &[(IdentityField, IdentityProblem)]) -> IdentityMatch {
    IdentityMatch::Doubt(
        reasons.iter().map(|(field, problem)| IdentityReason { field: *field, problem: *problem }).collect(),
    )
}

fn mismatch(fields: &[IdentityField]) -> IdentityMatch {
    let reason = |field: &IdentityField| IdentityReason { field: *field, problem: Differs };
    IdentityMatch::Mismatch(fields.iter().map(reason).collect())
}

fn base() -> Demographics {
    whole("Müller", "Zoë", "1970-01-02", "female", "1")
}

#[test]
fn spelling_and_local_numbers_do_not_matter() {
    assert_eq!(base().compare(&whole("MULLER", "zoe", "1970-01-02", "female", "2")), IdentityMatch::Match);
    assert_eq!(base().compare(&base()), IdentityMatch::Match);
}

#[test]
fn birth_date_and_sex_are_exact() {
    let other = |birth: &str, sex: &str, number: &str| base().compare(&whole("Müller", "Zoë", birth, sex, number));
    assert_eq!(other("1970-01-03", "female", "1"), mismatch(&[BirthDate]));
    assert_eq!(other("1970-01", "female", "2"), doubt(&[(BirthDate, Inexact)]));
    assert_eq!(other("1970-01-02", "male", "2"), mismatch(&[Sex]));
    assert_eq!(other("1970-01-02", "male", "1"), doubt(&[(Sex, Differs)]));
    assert_eq!(other("1970-01-02", "unknown", "1"), doubt(&[(Sex, Missing)]));
}

#[test]
fn names_that_differ_go_to_a_person_or_end_the_case() {
    let other =
        |family: &str, given: &str, number: &str| base().compare(&whole(family, given, "1970-01-02", "female", number));
    assert_eq!(other("Schmidt", "Zoe", "2"), doubt(&[(FamilyName, Differs)]));
    assert_eq!(other("Muller", "Anna", "2"), doubt(&[(GivenName, Differs)]));
    assert_eq!(other("Schmidt", "Anna", "2"), mismatch(&[FamilyName, GivenName]));
    assert_eq!(other("Schmidt", "Anna", "1"), doubt(&[(FamilyName, Differs), (GivenName, Differs)]));
}

#[test]
fn any_of_several_names_may_match() {
    let born = person(
        r#","name":[{"family":"Schmidt","given":["Zoe"]},{"use":"maiden","family":"Muller","given":["Zoe"]}],"birthDate":"1970-01-02","gender":"female""#,
    );
    assert_eq!(base().compare(&born), IdentityMatch::Match);
}

#[test]
fn one_system_with_two_values_is_a_doubt() {
    let mut other = base();
    other.identifiers[0].value = "other".to_owned();
    assert_eq!(base().compare(&other), doubt(&[(Identifier, Differs)]));
    other.identifiers.push(base().identifiers[0].clone());
    assert_eq!(base().compare(&other), IdentityMatch::Match);
}

#[test]
fn what_nobody_says_needs_a_shared_identifier() {
    let bare = person(r#","identifier":[{"system":"urn:a","value":"1"}]"#);
    assert_eq!(bare.compare(&bare), IdentityMatch::Match);
    let nobody = person("");
    assert_eq!(nobody.compare(&nobody), doubt(&[(BirthDate, Missing), (Sex, Missing), (FamilyName, Missing)]));
    assert_eq!(base().compare(&nobody), doubt(&[(BirthDate, Missing), (Sex, Missing), (FamilyName, Missing)]));
    let unsystematic = person(r#","identifier":[{"value":"1"}]"#);
    assert!(
        matches!(unsystematic.compare(&unsystematic), IdentityMatch::Doubt(_)),
        "a value alone is shared by chance"
    );
}

#[test]
fn only_patients_have_demographics() {
    assert!(matches!(Demographics::from_patient(b"{"), Err(DemographicsError::Json(_))));
    let other = br#"{"resourceType":"Practitioner","name":[{"family":"A"}]}"#;
    assert_eq!(Demographics::from_patient(other), Err(DemographicsError::NotAPatient));
    let odd = person(r#","name":"x","birthDate":5,"gender":null,"identifier":{"system":"s","value":"v"}"#);
    assert_eq!((odd.names.len(), odd.birth_date, odd.sex, odd.identifiers.len()), (0, None, None, 1));
}

#[test]
fn bytes_are_bounded_and_debug_shows_nothing() {
    let bytes = minicbor::to_vec(base()).unwrap();
    assert_eq!(minicbor::decode::<Demographics>(&bytes).unwrap(), base());
    assert_eq!(format!("{:?}{:?}{:?}", base(), base().names, base().identifiers).matches("1970").count(), 0);
    assert!(!format!("{:?}{:?}", base().names, base().identifiers).contains("ller"));
    let decodes = |person: &Demographics| minicbor::decode::<Demographics>(&minicbor::to_vec(person).unwrap()).is_ok();
    let mut long = base();
    long.birth_date = Some("x".repeat(257));
    let mut many = base();
    many.names = vec![many.names[0].clone(); 33];
    let mut given = base();
    given.names[0].given = vec!["A".to_owned(); 33];
    let mut empty = base();
    empty.sex = Some(String::new());
    assert!([long, many, given, empty].iter().all(|person| !decodes(person)));
}

fn any_person() -> impl Strategy<Value = Demographics> {
    ("[AB]{0,1}", "[AB]{0,1}", "(1970|1970-01|1971)?", "(male|female)?", "[12]")
        .prop_map(|(family, given, birth, sex, number)| whole(&family, &given, &birth, &sex, &number))
}

proptest! {
    #[test]
    fn the_rule_is_symmetric_and_a_known_person_is_never_a_stranger(left in any_person(), right in any_person()) {
        prop_assert_eq!(left.compare(&right), right.compare(&left));
        prop_assert_eq!(left.compare(&left), IdentityMatch::Match);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), name in "\\PC{0,20}") {
        let _ = Demographics::from_patient(&bytes);
        let _ = minicbor::decode::<Demographics>(&bytes);
        let _ = fold(&name);
    }
}
