use super::*;
use proptest::prelude::*;

fn graded(left: &str, right: &str) -> Comparison {
    compare(left.as_bytes(), right.as_bytes(), CompareOptions::default()).unwrap()
}

fn first(left: &str, right: &str) -> (String, DifferenceKind) {
    let mut found = graded(left, right);
    assert_eq!((found.grade, found.total), (Grade::Changed, 1), "{left} {right}");
    let difference = found.differences.remove(0);
    (difference.path, difference.kind)
}

#[test]
fn key_order_white_space_and_escapes_do_not_count() {
    let found = graded(r#"{"a":1,"b":[true,"é"]}"#, "{ \"b\" : [ true, \"\\u00e9\" ], \"a\": 1 }");
    assert_eq!(found, Comparison { grade: Grade::Same, differences: vec![], total: 0 });
}

#[test]
fn lost_precision_is_reported_but_no_failure() {
    let found = graded(r#"{"v":{"value":1.10}}"#, r#"{"v":{"value":1.1}}"#);
    assert_eq!(found.grade, Grade::PrecisionLost);
    assert_eq!(found.differences, [Difference { path: "v.value".into(), kind: DifferenceKind::PrecisionLost }]);
}

#[test]
fn every_change_is_found_with_its_place() {
    use DifferenceKind as Kind;
    assert_eq!(first(r#"{"a":[1,{"b":2}]}"#, r#"{"a":[1,{"b":3}]}"#), ("a[1].b".into(), Kind::NumberChanged));
    assert_eq!(first(r#"{"a":"x"}"#, r#"{"a":"X"}"#), ("a".into(), Kind::TextChanged));
    assert_eq!(first("{\"a\":\"é\"}", "{\"a\":\"e\u{301}\"}"), ("a".into(), Kind::TextChanged));
    assert_eq!(first(r#"{"a":true}"#, r#"{"a":false}"#), ("a".into(), Kind::KindChanged));
    assert_eq!(first(r#"{"a":1}"#, r#"{"a":"1"}"#), ("a".into(), Kind::KindChanged));
    assert_eq!(first(r#"{"a":1,"b":2}"#, r#"{"a":1}"#), ("b".into(), Kind::Missing));
    assert_eq!(first(r#"{"a":1}"#, r#"{"a":1,"_a":{}}"#), ("_a".into(), Kind::Added));
    assert_eq!(first(r#"{"a":[1]}"#, r#"{"a":[1,2]}"#), ("a".into(), Kind::LengthChanged));
    assert_eq!(graded(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#).total, 2);
    assert_eq!(first(r#"{"meta":{"versionId":"1"}}"#, r#"{"meta":{"versionId":"2"}}"#).1, Kind::TextChanged);
}

#[test]
fn what_servers_replace_can_be_overlooked() {
    let options = CompareOptions { ignore_server_meta: true, id_map: None };
    let grade = |left: &str, right: &str| compare(left.as_bytes(), right.as_bytes(), options).unwrap().grade;
    let served = r#"{"id":"a","meta":{"versionId":"9","lastUpdated":"2026-01-01T00:00:00Z"}}"#;
    assert_eq!(grade(r#"{"id":"a"}"#, served), Grade::Same);
    assert_eq!(grade(served, r#"{"id":"a"}"#), Grade::Same);
    assert_eq!(grade(r#"{"id":"a","meta":{"versionId":"1"}}"#, served), Grade::Same);
    assert_eq!(grade(r#"{"id":"a","meta":{"source":"x"}}"#, served), Grade::Changed);
    assert_eq!(grade(r#"{"id":"a"}"#, r#"{"id":"a","meta":{"tag":[]}}"#), Grade::Changed);
    assert_eq!(grade(r#"{"x":{"meta":{"versionId":"1"}}}"#, r#"{"x":{"meta":{"versionId":"2"}}}"#), Grade::Changed);
}

struct Renamed;

impl IdMap for Renamed {
    fn mapped(&self, reference: &str) -> Option<String> {
        (reference == "Condition/a" || reference == "Patient/p").then(|| reference.replace('/', "/new-"))
    }
}

#[test]
fn ids_are_followed_through_the_map() {
    let options = CompareOptions { ignore_server_meta: false, id_map: Some(&Renamed) };
    let grade = |left: &str, right: &str| compare(left.as_bytes(), right.as_bytes(), options).unwrap().grade;
    let left = r#"{"resourceType":"Condition","id":"a","subject":{"reference":"Patient/p"}}"#;
    assert_eq!(
        grade(left, r#"{"resourceType":"Condition","id":"new-a","subject":{"reference":"Patient/new-p"}}"#),
        Grade::Same
    );
    assert_eq!(
        grade(left, r#"{"resourceType":"Condition","id":"new-a","subject":{"reference":"Patient/other"}}"#),
        Grade::Changed
    );
    assert_eq!(
        grade(left, r#"{"resourceType":"Condition","id":"b","subject":{"reference":"Patient/new-p"}}"#),
        Grade::Changed
    );
    assert_eq!(grade(r#"{"note":"Patient/p"}"#, r#"{"note":"Patient/new-p"}"#), Grade::Changed);
}

#[test]
fn differences_are_counted_beyond_the_list() {
    let left = format!("[{}]", vec!["1"; 300].join(","));
    let found = graded(&left, &left.replace('1', "2"));
    assert_eq!((found.differences.len(), found.total), (MAX_LISTED_DIFFERENCES, 300));
}

#[test]
fn texts_that_are_no_json_are_named_by_side() {
    let options = CompareOptions::default();
    assert!(matches!(compare(b"{", b"{}", options), Err(CompareError::Left(_))));
    assert!(matches!(compare(b"{}", b"{", options), Err(CompareError::Right(_))));
}

proptest! {
    #[test]
    fn a_text_equals_itself_and_arbitrary_bytes_never_panic(left in "[\\[\\]{}:,\"a0-9. ]{0,40}", right in "[\\[\\]{}:,\"a0-9. ]{0,40}") {
        let options = CompareOptions::default();
        if let Ok(found) = compare(left.as_bytes(), left.as_bytes(), options) {
            prop_assert_eq!(found.grade, Grade::Same);
        }
        let _ = compare(left.as_bytes(), right.as_bytes(), options);
    }
}
