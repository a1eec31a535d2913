use super::*;
use crate::pool::{MemoryIndex, MemoryPool};

fn source(name: &str, text: &str) -> MemorySource {
    MemorySource { name: name.into(), folder: None, bytes: text.as_bytes().to_vec() }
}

fn load_as(purpose: Purpose, pool: &mut MemoryPool, sources: &[MemorySource]) -> Result<LoadReport, LoadError> {
    let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
    load(&sources, purpose, &mut MemoryIndex::default(), pool)
}

fn load_text(pool: &mut MemoryPool, text: &str) -> Result<LoadReport, LoadError> {
    load_as(Purpose::Context, pool, &[source("in", text)])
}

fn held(pool: &MemoryPool, key: &str) -> String {
    String::from_utf8(pool.bytes(&key.parse().unwrap()).unwrap().expect("is held")).unwrap()
}

fn keys(pool: &MemoryPool) -> Vec<String> {
    pool.keys().map(ToString::to_string).collect()
}

fn bundle(kind: &str, entries: &[&str]) -> String {
    format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{}]}}"#, entries.join(","))
}

#[test]
fn every_form_of_input_is_loaded() {
    let patient = r#"{ "resourceType" : "Patient", "id" : "p" }"#;
    let entry = format!(r#"{{"resource":{patient}}}"#);
    let mut inputs: Vec<String> =
        ["transaction", "batch", "collection", "searchset", "document"].map(|kind| bundle(kind, &[&entry])).to_vec();
    inputs.push(patient.to_owned());
    inputs.push(format!("\n\n{patient}\r\n\n  {patient}\n\n"));
    // The frame's members may come in any order, and around any white space.
    inputs.push(format!("{{ \"entry\" : [ {entry}\n ] , \"type\" :\t\"batch\", \"resourceType\":\"Bundle\" }} \n"));
    for text in inputs {
        let mut pool = MemoryPool::default();
        let report = load_as(Purpose::Record, &mut pool, &[source("in", &text)]).expect(&text);
        assert_eq!(held(&pool, "Patient/p"), r#"{"resourceType":"Patient","id":"p"}"#, "{text}");
        assert_eq!((report.filed, report.patients.len()), (1, 1), "{text}");
    }
}

#[test]
fn a_list_has_entries_and_is_no_bundle() {
    let mut pool = MemoryPool::default();
    load_text(&mut pool, r#"{"entry":[{"item":{"reference":"Patient/p"}}],"id":"l","resourceType":"List"}"#).unwrap();
    assert_eq!(keys(&pool), ["List/l"]);
}

#[test]
fn urns_and_searches_become_names_and_nothing_else_changes() {
    let practitioner = r#"{"fullUrl":"urn:uuid:11","resource":{"resourceType":"Practitioner","id":"d","identifier":[{"system":"http://n","value":"7"}]}}"#;
    let patient = r#"{"fullUrl":"urn:uuid:22","resource":{"resourceType":"Patient","id":"p","identifier":[{"system":"urn:ietf:rfc:3986","value":"urn:uuid:22"}]}}"#;
    let observation = r#"{"fullUrl":"urn:uuid:33","resource":{ "resourceType":"Observation","id":"o",
        "contained":[{"resourceType":"Basic","id":"b","subject":{"reference":"urn:uuid:22"}}],
        "subject":{"reference":"urn\u003auuid:22"}, "performer":[{"reference":"Practitioner?identifier=http://n|7"}],
        "valueQuantity":{"value":1.10},"extension":[{"url":"urn:uuid:22","valueUri":"urn:uuid:22"}] }}"#;
    let mut pool = MemoryPool::default();
    let report = load_text(&mut pool, &bundle("transaction", &[observation, patient, practitioner])).unwrap();
    assert_eq!(
        held(&pool, "Observation/o"),
        r#"{"resourceType":"Observation","id":"o","contained":[{"resourceType":"Basic","id":"b","subject":{"reference":"Patient/p"}}],"subject":{"reference":"Patient/p"},"performer":[{"reference":"Practitioner/d"}],"valueQuantity":{"value":1.10},"extension":[{"url":"urn:uuid:22","valueUri":"Patient/p"}]}"#
    );
    assert!(held(&pool, "Patient/p").contains("urn:uuid:22"), "an identifier is not a reference");
    assert_eq!((report.references_resolved, report.unresolved_count, report.filed), (4, 0, 3));
    let referrers = pool.referrers(&"Patient/p".parse().unwrap(), None, None, 9).unwrap();
    assert_eq!(referrers, ["Observation/o".parse().unwrap()]);
}

#[test]
fn searches_also_find_what_is_held() {
    let mut pool = MemoryPool::default();
    load_text(&mut pool, r#"{"resourceType":"Practitioner","id":"d","identifier":[{"system":"s","value":"1"}]}"#)
        .unwrap();
    load_text(&mut pool, r#"{"resourceType":"Basic","id":"b","author":{"reference":"Practitioner?identifier=s|1"}}"#)
        .unwrap();
    assert!(held(&pool, "Basic/b").contains(r#""reference":"Practitioner/d""#));
}

#[test]
fn the_unresolved_is_listed_and_left() {
    let practitioner = |id: &str| {
        format!(
            r#"{{"resource":{{"resourceType":"Practitioner","id":"{id}","identifier":{{"system":"s","value":"2"}}}}}}"#
        )
    };
    let references = [
        "urn:uuid:9",
        "Practitioner?identifier=s|1",
        "Practitioner?identifier=s|2",
        "Practitioner?name=x",
        "urn:uuid:7",
    ];
    let authors: Vec<_> = references.iter().map(|r| format!(r#"{{"reference":"{r}"}}"#)).collect();
    let basic = format!(r#"{{"resource":{{"resourceType":"CareTeam","id":"c","author":[{}]}}}}"#, authors.join(","));
    let twice =
        ["a", "b"].map(|id| format!(r#"{{"fullUrl":"urn:uuid:7","resource":{{"resourceType":"Flag","id":"{id}"}}}}"#));
    let mut pool = MemoryPool::default();
    let text = bundle("batch", &[&practitioner("x"), &practitioner("y"), &basic, &twice[0], &twice[1]]);
    let report = load_text(&mut pool, &text).unwrap();
    use UnresolvedKind as U;
    let kinds: Vec<_> = report.unresolved.iter().map(|u| (u.kind, u.path.clone(), u.from.to_string())).collect();
    let expected = [
        (U::UrnWithoutEntry, 0),
        (U::ConditionalWithoutMatch, 1),
        (U::ConditionalAmbiguous, 2),
        (U::ConditionalUnsupported, 3),
        (U::UrnAmbiguous, 4),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(kind, at)| (*kind, format!("author[{at}].reference"), "CareTeam/c".to_owned())).collect();
    assert_eq!(kinds, expected);
    assert_eq!(report.unresolved_count, 5);
    for reference in references {
        assert!(held(&pool, "CareTeam/c").contains(reference));
    }
}

#[test]
fn a_urn_means_what_its_own_bundle_says() {
    let bundle_of = |id: &str| {
        let patient = format!(r#"{{"fullUrl":"urn:uuid:1","resource":{{"resourceType":"Patient","id":"{id}"}}}}"#);
        let flag =
            format!(r#"{{"resource":{{"resourceType":"Flag","id":"{id}","subject":{{"reference":"urn:uuid:1"}}}}}}"#);
        bundle("batch", &[&flag, &patient])
    };
    let mut pool = MemoryPool::default();
    let report =
        load_as(Purpose::Record, &mut pool, &[source("a", &bundle_of("a")), source("b", &bundle_of("b"))]).unwrap();
    assert_eq!((report.patients.len(), report.unresolved_count), (2, 0));
    for id in ["a", "b"] {
        assert!(held(&pool, &format!("Flag/{id}")).contains(&format!("Patient/{id}")));
    }
}

#[test]
fn absolute_names_stay_and_resolve() {
    let patient = r#"{"fullUrl":"http://h/f/Patient/p","resource":{"resourceType":"Patient","id":"q"}}"#;
    let flag =
        r#"{"resource":{"resourceType":"Flag","id":"f","subject":{"reference":"http://h/f/Patient/p/_history/3"}}}"#;
    let mut pool = MemoryPool::default();
    load_text(&mut pool, &bundle("collection", &[flag, patient])).unwrap();
    assert!(held(&pool, "Flag/f").contains("http://h/f/Patient/p/_history/3"));
    assert_eq!(pool.referrers(&"Patient/q".parse().unwrap(), None, None, 9).unwrap().len(), 1);
    assert_eq!(pool.by_alias("http://h/f/Patient/p").unwrap().len(), 1);
}

#[test]
fn an_id_is_spliced_in_where_there_is_none() {
    let entries = [
        r#"{"fullUrl":"urn:uuid:0F4E0A5C-0000-4000-8000-000000000001","resource":{"status":"final","resourceType":"Observation","x":1}}"#,
        r#"{"fullUrl":"http://h/Flag/f7","resource":{"resourceType":"Flag"}}"#,
        r#"{"request":{"method":"PUT","url":"Goal/g7"},"resource":{"resourceType":"Goal"}}"#,
        r#"{"fullUrl":"http://h/Patient/7","resource":{"resourceType":"Basic"}}"#,
    ];
    let mut pool = MemoryPool::default();
    let report = load_text(&mut pool, &bundle("batch", &entries)).unwrap();
    assert_eq!(report.ids_assigned, 4);
    assert_eq!(
        held(&pool, "Observation/0f4e0a5c-0000-4000-8000-000000000001"),
        r#"{"status":"final","resourceType":"Observation","id":"0f4e0a5c-0000-4000-8000-000000000001","x":1}"#
    );
    assert_eq!(held(&pool, "Flag/f7"), r#"{"resourceType":"Flag","id":"f7"}"#);
    assert_eq!(held(&pool, "Goal/g7"), r#"{"resourceType":"Goal","id":"g7"}"#);
    let again = load_text(&mut pool, &bundle("batch", &entries)).unwrap();
    assert_eq!((again.filed, again.already_held), (0, 4), "a made id is the same at every load");
}

#[test]
fn nothing_is_overwritten() {
    let mut pool = MemoryPool::default();
    let organization = |n: u32| format!(r#"{{"resourceType":"Organization","id":"o","n":{n}}}"#);
    let flag = |n: u32| format!(r#"{{"resourceType":"Flag","id":"f","n":{n},"subject":{{"reference":"Patient/p"}}}}"#);
    load_text(&mut pool, &organization(1)).unwrap();
    load_text(&mut pool, &flag(1)).unwrap();
    let same = load_text(&mut pool, &organization(1)).unwrap();
    assert_eq!((same.already_held, same.differing_count), (1, 0));
    let shared = load_text(&mut pool, &organization(2)).unwrap();
    assert_eq!((shared.differing_count, shared.differing[0].is_finding), (1, false));
    assert!(shared.require_no_lost_findings().is_ok());
    let finding = load_text(&mut pool, &flag(2)).unwrap();
    assert!(finding.differing[0].is_finding);
    assert!(matches!(finding.require_no_lost_findings(), Err(LoadError::DifferentFinding { count: 1, .. })));
    assert_eq!((held(&pool, "Organization/o"), held(&pool, "Flag/f")), (organization(1), flag(1)));
}

#[test]
fn what_carries_no_resource_is_counted() {
    let outcome = r#"{"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome","id":"x"}}"#;
    let request = r#"{"request":{"method":"DELETE","url":"Flag/1"}}"#;
    let mut pool = MemoryPool::default();
    let report = load_text(&mut pool, &bundle("searchset", &[outcome, request])).unwrap();
    assert_eq!((report.outcomes_skipped, report.entries_without_resource, report.read), (1, 1, 0));
    assert!(keys(&pool).is_empty());
}

#[test]
fn a_conditional_create_creates_once() {
    let organization = |url: &str, id: &str| {
        format!(
            r#"{{"fullUrl":"{url}","resource":{{"resourceType":"Organization","id":"{id}","identifier":[{{"system":"s","value":"1"}}]}},
            "request":{{"method":"POST","url":"Organization","ifNoneExist":"identifier=s|1"}}}}"#
        )
    };
    let flag = |url: &str, id: &str| {
        format!(r#"{{"resource":{{"resourceType":"Flag","id":"{id}","author":{{"reference":"{url}"}}}}}}"#)
    };
    let mut pool = MemoryPool::default();
    let text = bundle(
        "transaction",
        &[
            &organization("urn:uuid:1", "a"),
            &organization("urn:uuid:2", "b"),
            &flag("urn:uuid:1", "x"),
            &flag("urn:uuid:2", "y"),
        ],
    );
    let report = load_text(&mut pool, &text).unwrap();
    assert_eq!((report.filed, report.already_held), (3, 1));
    let again =
        load_text(&mut pool, &bundle("transaction", &[&organization("urn:uuid:3", "c"), &flag("urn:uuid:3", "z")]));
    assert_eq!(again.unwrap().already_held, 1);
    assert_eq!(keys(&pool), ["Flag/x", "Flag/y", "Flag/z", "Organization/a"]);
    for flag in ["x", "y", "z"] {
        assert!(held(&pool, &format!("Flag/{flag}")).contains("Organization/a"));
    }
}

#[test]
fn a_document_among_single_resources_is_kept_whole() {
    let inner = r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"inner"}}"#;
    let flag = r#"{"resource":{"resourceType":"Flag","id":"inner","subject":{"reference":"urn:uuid:1"}}}"#;
    let document = bundle("document", &[inner, flag]).replacen('{', r#"{"id":"d","#, 1);
    let in_folder = |text: &str| MemorySource { folder: Some("f".into()), ..source("in", text) };
    let mut pool = MemoryPool::default();
    let patient = r#"{"resourceType":"Patient","id":"p"}"#;
    let report = load_as(Purpose::Record, &mut pool, &[in_folder(&document), in_folder(patient)]).unwrap();
    assert_eq!(keys(&pool), ["Bundle/d", "Patient/p"]);
    assert_eq!(held(&pool, "Bundle/d"), document);
    assert_eq!((report.patients.len(), report.unresolved_count), (1, 0));
    let mut pool = MemoryPool::default();
    load_as(Purpose::Record, &mut pool, &[in_folder(&document), source("in", patient)]).unwrap();
    assert_eq!(keys(&pool), ["Flag/inner", "Patient/inner", "Patient/p"]);
}

#[test]
fn a_record_needs_a_patient_and_files_nothing_without() {
    let mut pool = MemoryPool::default();
    let text = r#"{"resourceType":"Flag","id":"f"}"#;
    let refused = load_as(Purpose::Record, &mut pool, &[source("in", text)]);
    assert!(matches!(refused, Err(LoadError::NoPatient)));
    assert!(keys(&pool).is_empty());
    assert!(load_as(Purpose::Context, &mut pool, &[source("in", text)]).is_ok());
}

#[test]
fn bad_input_names_place_and_rule_and_files_nothing() {
    let good = r#"{"resource":{"resourceType":"Flag","id":"f"}}"#;
    let deep =
        format!(r#"{{"resource":{{"resourceType":"Flag","id":"g","x":{}1{}}}}}"#, "[".repeat(80), "]".repeat(80));
    let long_name = format!(r#"{{"{}":1}}"#, "k".repeat(300));
    for (text, message) in [
        ("".to_owned(), "in is empty"),
        ("  \n ".to_owned(), "in is empty"),
        ("[]".to_owned(), "in: not a JSON object"),
        ("\u{feff}{}".to_owned(), "in: not a JSON object"),
        (r#"{"resourceType":"Flag","id":"f""#.to_owned(), "in: the text ends too early at byte 31"),
        (r#"{"resourceType":"Flag""#.to_owned(), "in: the text ends too early at byte 22"),
        (r#"{"resourceType":"Flag","id":"f"} x"#.to_owned(), "in: text after the value at byte 33"),
        (
            r#"{"resourceType":"Flag","id":"f","id":"f"}"#.to_owned(),
            "in: not valid JSON: a key that stands twice in one object at byte 32",
        ),
        (r#"{"resourceType":"Flog","id":"f"}"#.to_owned(), "in: resourceType is not one of FHIR R4"),
        (
            bundle("history", &[good]),
            "in: a Bundle of this type is not a record; give a transaction, batch, collection, searchset or document",
        ),
        (
            bundle("batch", &[good, r#"{"resource":{"resourceType":"Flag","id":"a b"}}"#]),
            "in, entry 2: the id is not 1 to 64 characters of A-Z, a-z, 0-9, '-' and '.'",
        ),
        (bundle("batch", &[good, &deep]), "in, entry 2: not valid JSON: nested too deeply at byte 110"),
        (bundle("batch", &[good, "7"]), "in, entry 2: not a JSON object"),
        (bundle("batch", &[good]).replace("]}", "],}"), "in: unexpected byte at byte 96"),
        (bundle("batch", &[good]).replace("]}", "]"), "in: the text ends too early at byte 95"),
        (
            bundle("batch", &[good]).replace("]}", r#"],"type":1}"#),
            "in: a key that stands twice in one object at byte 103",
        ),
        (
            bundle("batch", &[good]).replace("]}", r#"],"x":{"a":1,"a":2}}"#),
            "in: a key that stands twice in one object at byte 107",
        ),
        (
            format!("{}\n{}\n", r#"{"resourceType":"Flag","id":"f"}"#, "{bad}"),
            "in, entry 2: not valid JSON: unexpected byte at byte 1",
        ),
        (long_name, "in: too many bytes at byte 1"),
    ] {
        let mut pool = MemoryPool::default();
        let refused = load_text(&mut pool, &text).expect_err(&text);
        assert_eq!(refused.to_string(), message, "{text}");
        assert!(keys(&pool).is_empty(), "{text}");
    }
}

/// A reader that gives one byte at a time, so that every buffer boundary is met.
struct Drip(Vec<u8>);

impl Source for Drip {
    fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
        struct Reader<'a>(&'a [u8]);
        impl io::Read for Reader<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let one = buffer.len().min(1);
                io::Read::read(&mut self.0, &mut buffer[..one])
            }
        }
        Ok(Box::new(Reader(&self.0)))
    }

    fn name(&self) -> &str {
        "drip"
    }
}

#[test]
fn buffer_boundaries_do_not_matter() {
    let patient = r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"p","x":"\"]}\\","n":1E-22}}"#;
    let text = bundle("batch", &[patient, patient]);
    let mut pool = MemoryPool::default();
    let report = load(&[&Drip(text.into_bytes())], Purpose::Record, &mut MemoryIndex::default(), &mut pool).unwrap();
    assert_eq!((report.filed, report.already_held), (1, 1));
    assert_eq!(held(&pool, "Patient/p"), r#"{"resourceType":"Patient","id":"p","x":"\"]}\\","n":1E-22}"#);
}

proptest::proptest! {
    #[test]
    fn arbitrary_input_never_panics(text in "[\\[\\]{}\",:a1 \\\\\n]{0,60}", at in 0usize..200) {
        let mut pool = MemoryPool::default();
        let _ = load_text(&mut pool, &text);
        let mut good = bundle("batch", &[r#"{"resource":{"resourceType":"Flag","id":"f","x":[1,{"y":"z"}]}}"#]);
        let at = at.min(good.len());
        good.insert_str(at, &text);
        let _ = load_text(&mut pool, &good);
    }
}
