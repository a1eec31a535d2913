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

fn about(name: &str, id: &str, patient: &str, extra: &str) -> String {
    format!(r#"{{"resourceType":"{name}","id":"{id}","subject":{{"reference":"Patient/{patient}"}}{extra}}}"#)
}

struct Outcome {
    movable: Vec<String>,
    findings: Findings,
    summary: ClosureSummary,
}

fn close_p(resources: &[&str]) -> Outcome {
    let (mut frontier, mut findings) = (MemoryFrontier::default(), Findings::default());
    let id = ResourceId::parse("p").unwrap();
    let summary = close(&id, &pool(resources), &mut frontier, &mut findings).unwrap();
    let decided = frontier.decided(None, usize::MAX).unwrap();
    let movable = decided.iter().filter(|(_, decision)| matches!(decision, Decision::Movable { .. }));
    Outcome { movable: movable.map(|(key, _)| key.to_string()).collect(), findings, summary }
}

const P: &str = r#"{"resourceType":"Patient","id":"p","link":[{"other":{"reference":"Patient/q"}}],"managingOrganization":{"reference":"Organization/o"}}"#;
const Q: &str = r#"{"resourceType":"Patient","id":"q"}"#;
const O: &str = r#"{"resourceType":"Organization","id":"o","partOf":{"reference":"Organization/top"}}"#;
const TOP: &str = r#"{"resourceType":"Organization","id":"top"}"#;

#[test]
fn forward_and_backward() {
    let observation = about("Observation", "o1", "p", r#","performer":[{"reference":"Practitioner/d/_history/2"}]"#);
    let document = about("DocumentReference", "d1", "p", r#","content":[{"attachment":{"url":"Binary/b"}}]"#);
    let provenance = r#"{"resourceType":"Provenance","id":"v","target":[{"reference":"Observation/o1"}]}"#;
    let list = r#"{"resourceType":"List","id":"l","entry":[{"item":{"reference":"DocumentReference/d1"}}]}"#;
    let unrelated = about("Observation", "o2", "q", "");
    let outcome = close_p(&[
        P,
        Q,
        O,
        TOP,
        &observation,
        &document,
        provenance,
        list,
        &unrelated,
        r#"{"resourceType":"Practitioner","id":"d"}"#,
        r#"{"resourceType":"Binary","id":"b","contentType":"text/plain"}"#,
        r#"{"resourceType":"Practitioner","id":"unneeded"}"#,
    ]);
    let expected = "Binary/b DocumentReference/d1 List/l Observation/o1 Organization/o Organization/top Patient/p Practitioner/d \
                    Provenance/v";
    assert_eq!(outcome.movable.join(" "), expected);
    let (reached, why) = &outcome.findings.not_movable[0];
    assert_eq!((reached.key.to_string().as_str(), *why), ("Patient/q", NotMovable::AnotherPatient));
    assert_eq!(reached.from.as_ref().unwrap().to_string(), "Patient/p");
    assert!(outcome.findings.dangling.is_empty());
    assert_eq!((outcome.summary.movable_count(), outcome.summary.not_movable[&NotMovable::AnotherPatient]), (9, 1));
    assert_eq!(outcome.summary.movable[&ResourceType::parse("Observation").unwrap()], (1, observation.len() as u64));
}

#[test]
fn what_is_others_or_shared_is_listed_and_leads_nowhere() {
    let report = about(
        "DiagnosticReport",
        "r",
        "p",
        r#","result":[{"reference":"Observation/theirs"}],"encounter":{"reference":"Encounter/g"}"#,
    );
    let theirs = about("Observation", "theirs", "q", r#","performer":[{"reference":"Practitioner/theirs"}]"#);
    let group = r#"{"resourceType":"Group","id":"g","member":[{"entity":{"reference":"Patient/p"}},{"entity":{"reference":"Patient/q"}}]}"#;
    let shared = about("Encounter", "g", "p", "").replace("Patient/p", "Group/g");
    let folder = r#"{"resourceType":"List","id":"f","entry":[{"item":{"reference":"DiagnosticReport/r"}},{"item":{"reference":"Observation/theirs"}}]}"#;
    let team = r#"{"resourceType":"Location","id":"t","extension":[{"url":"u","valueReference":{"reference":"Patient/q"}},{"url":"u","valueReference":{"reference":"Patient/p"}}]}"#;
    let outcome = close_p(&[
        P,
        Q,
        O,
        TOP,
        &report,
        &theirs,
        group,
        &shared,
        folder,
        team,
        r#"{"resourceType":"Practitioner","id":"theirs"}"#,
    ]);
    assert_eq!(outcome.movable.join(" "), "DiagnosticReport/r Organization/o Organization/top Patient/p");
    let mut listed: Vec<_> =
        outcome.findings.not_movable.iter().map(|(reached, why)| format!("{} {}", reached.key, why.code())).collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "Encounter/g shared-with-others",
            "Group/g shared-with-others",
            "List/f shared-with-others",
            "Location/t names-another-patient",
            "Observation/theirs another-patient",
            "Patient/q another-patient",
        ]
    );
}

#[test]
fn what_leads_nowhere_is_listed() {
    let references =
        ["Encounter/none", "http://h/Encounter/x", "urn:uuid:1", "Practitioner?identifier=a|b", "nonsense", "#inside"];
    let authors: Vec<_> = references.iter().map(|text| format!(r#"{{"reference":"{text}"}}"#)).collect();
    let urls = ["Binary/none", "http://h/Binary/b", "http://h/page.html", "urn:oid:1.2", "text"];
    let contents: Vec<_> = urls.iter().map(|url| format!(r#"{{"attachment":{{"url":"{url}"}}}}"#)).collect();
    let extra = format!(r#","author":[{}],"content":[{}]"#, authors.join(","), contents.join(","));
    let document = about("DocumentReference", "d", "p", &extra);
    let outcome = close_p(&[P, Q, O, TOP, &document]);
    let listed: Vec<_> = outcome.findings.dangling.iter().map(|d| format!("{} {}", d.path, d.reason.code())).collect();
    assert_eq!(
        listed,
        [
            "author[0].reference not-held",
            "author[1].reference foreign-address",
            "author[2].reference unresolved-urn",
            "author[3].reference unresolved-conditional",
            "author[4].reference unusable",
            "content[0].attachment.url not-held",
            "content[1].attachment.url foreign-address",
        ]
    );
    assert_eq!(outcome.findings.dangling[0].target.as_ref().unwrap().to_string(), "Encounter/none");
    assert_eq!(outcome.summary.dangling.values().sum::<u64>(), 7);
}

#[test]
fn many_referrers_come_in_pages() {
    let observations: Vec<_> = (0..PAGE * 2).map(|n| about("Observation", &format!("o{n}"), "p", "")).collect();
    let mut resources: Vec<&str> = observations.iter().map(String::as_str).collect();
    resources.extend([P, Q, O, TOP]);
    assert_eq!(close_p(&resources).movable.len(), PAGE * 2 + 3);
}

#[test]
fn an_interrupted_walk_goes_on() {
    let observation = about("Observation", "o1", "p", "");
    let pool = pool(&[P, Q, O, TOP, &observation]);
    let id = ResourceId::parse("p").unwrap();
    let (mut frontier, mut findings) = (MemoryFrontier::default(), Findings::default());
    let mut first = Closure::start(&id, &pool, &mut frontier, &mut findings).unwrap();
    assert!(first.step().unwrap() && first.step().unwrap());
    drop(first);
    close(&id, &pool, &mut frontier, &mut findings).unwrap();
    assert_eq!(frontier.decided(None, 9).unwrap().len(), 5);
    assert_eq!(
        frontier.decided(Some(&"Organization/o".parse().unwrap()), 1).unwrap()[0].0.to_string(),
        "Organization/top"
    );
}

#[test]
fn a_stranger_has_no_closure() {
    let id = ResourceId::parse("nobody").unwrap();
    let refused = close(&id, &pool(&[P]), &mut MemoryFrontier::default(), &mut Findings::default());
    assert!(matches!(refused, Err(ClosureError::NoSuchPatient)));
}

#[test]
fn the_dangling_are_all_counted_and_the_first_told() {
    let authors = vec![r#"{"reference":"Encounter/none"}"#; MAX_LISTED + 5].join(",");
    let document = about("DocumentReference", "d", "p", &format!(r#","author":[{authors}]"#));
    let outcome = close_p(&[P, Q, O, TOP, &document]);
    assert_eq!(outcome.findings.dangling.len(), MAX_LISTED);
    assert_eq!(outcome.summary.dangling[&DanglingReason::NotHeld], MAX_LISTED as u64 + 5);
}
