use super::*;
use proptest::prelude::*;

const HIV: &str = r#"{"resourceType":"Condition","id":"hiv","clinicalStatus":{"coding":[{"system":"urn:s","code":"active"}]},
"code":{"coding":[{"system":"http://snomed.info/sct","code":"86406008","display":"HIV infection (disorder)"}],"text":"Infección por VIH"}}"#;

fn search() -> Search {
    let mut search = Search::new(&Hides::parse(["Condition/hiv", "Condition/other"]).unwrap());
    search.learn(&"Condition/hiv".parse().unwrap(), HIV.as_bytes());
    search
}

/// Everything that is found, as `found path`.
fn found(search: &Search, body: &str) -> Vec<String> {
    let line = |mention: Mention<'_>| {
        assert_eq!(mention.item.to_string(), "Condition/hiv");
        format!("{} {}", mention.found, mention.path)
    };
    search.mentions_in(body.as_bytes()).into_iter().map(line).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        (0..=part.len()).for_each(|at| out.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63])));
        (part.len()..3).for_each(|_| out.push('='));
    }
    out
}

fn attached(kind: &str, bytes: &[u8]) -> String {
    format!(r#"{{"content":[{{"attachment":{{"contentType":"{kind}","data":"{}"}}}}]}}"#, base64(bytes))
}

#[test]
fn the_same_code_is_found_wherever_it_is_coded() {
    let coded = r#"{"resourceType":"Encounter","id":"e","reasonCode":[{"coding":[{"code":"x"},{"system":"http://snomed.info/sct","code":"86406008"}]}]}"#;
    assert_eq!(found(&search(), coded), ["code reasonCode[0].coding[1].code"]);
    for other in [
        r#"{"reasonCode":[{"coding":[{"system":"http://snomed.info/sct","code":"864060080"}]}]}"#,
        r#"{"clinicalStatus":{"coding":[{"system":"urn:s","code":"active"}]}}"#,
    ] {
        assert_eq!(found(&search(), other), [""; 0], "{other}");
    }
    // A short code is an accident as a word, and counts only with its system.
    let mut short = Search::new(&Hides::parse(["Condition/hiv"]).unwrap());
    let body = br#"{"code":{"coding":[{"system":"urn:icd","code":"B20"}]}}"#;
    short.learn(&"Condition/hiv".parse().unwrap(), body);
    assert_eq!(found(&short, r#"{"a":{"system":"urn:icd","code":"B20"}}"#), ["code a.code"]);
    assert_eq!(found(&short, r#"{"a":{"system":"urn:room","code":"B20"},"b":"room B20"}"#), [""; 0]);
}

#[test]
fn its_names_are_found_in_any_string_whatever_the_case_and_accents() {
    for (body, expected) in [
        (r#"{"note":[{"text":"Known HIV  Infection since 2010."}]}"#, "text note[0].text"),
        (r#"{"a":"hiv-infection"}"#, "text a"),
        (r#"{"a":"INFECCIO\u0301N POR VIH"}"#, "text a"),
        (r#"{"a":"sct 86406008"}"#, "code a"),
    ] {
        assert_eq!(found(&search(), body), [expected], "{body}");
    }
    for body in
        [r#"{"a":"HIV test, no infection"}"#, r#"{"a":"HIV infections"}"#, r#"{"id":"hiv infection"}"#, "not JSON"]
    {
        assert_eq!(found(&search(), body), [""; 0], "{body}");
    }
}

#[test]
fn narratives_are_read_without_their_tags_and_with_their_attributes() {
    for div in [
        "<div><p>Plan for <b>HIV</b>&#160;infection</p></div>",
        "<div><td>HIV</td><td>infection</td></div>",
        "<div>H<b>I</b>V infection</div>",
        "<div><img alt='HIV infection'/></div>",
        "<div>Infecci&oacute;n por VIH</div>",
        "<div>Infecci&#xf3;n por VIH</div>",
    ] {
        let body = format!(r#"{{"text":{{"div":{}}}}}"#, json::quote(div));
        assert_eq!(found(&search(), &body), ["text text.div"], "{div}");
    }
}

#[test]
fn attachments_that_are_text_are_read_and_others_are_not() {
    let place = "text content[0].attachment.data";
    for (kind, bytes) in [
        ("text/plain", &b"History: HIV infection."[..]),
        ("text/plain; charset=iso-8859-1", b"Infecci\xf3n por VIH"),
        ("application/octet-stream", b"HIV infection"),
        ("text/html", b"<p>HIV <i>infection</i></p>"),
    ] {
        assert_eq!(found(&search(), &attached(kind, bytes)), [place], "{kind}");
    }
    let cda = br#"<value code="86406008" codeSystem="2.16.840.1.113883.6.96"/>"#;
    assert_eq!(found(&search(), &attached("text/xml", cda)), ["code content[0].attachment.data"]);
    let named = b"see Condition/hiv";
    assert_eq!(found(&search(), &attached("text/plain", named)), ["reference content[0].attachment.data"]);
    let binary = r#"{"resourceType":"Binary","id":"b","contentType":"text/plain","data":"SElWIGluZmVjdGlvbg=="}"#;
    assert_eq!(found(&search(), binary), ["text data"]);
    assert_eq!(found(&search(), &attached("application/pdf", b"%PDF-1.4\xff\x00 HIV infection")), [""; 0]);
    // Reading stops at a bound, and says so.
    let mut long = vec![b' '; text::MAX_ATTACHMENT_BYTES];
    long.extend_from_slice(b"HIV infection");
    assert_eq!(found(&search(), &attached("text/plain", &long)), [""; 0]);
    assert!(NOT_SEARCHED.iter().any(|sentence| sentence.contains("4 MiB")));
}

#[test]
fn what_names_nothing_in_particular_is_not_looked_for() {
    for name in ["Final", "final", "Other", "MS", "42", "Problem (finding)", "Clinical note", "Medical history"] {
        let mut search = Search::new(&Hides::parse(["Condition/hiv"]).unwrap());
        let body = format!(r#"{{"code":{{"text":"{name}"}}}}"#);
        search.learn(&"Condition/hiv".parse().unwrap(), body.as_bytes());
        assert_eq!(found(&search, &format!(r#"{{"status":"{name}"}}"#)), [""; 0], "{name}");
    }
    let mut chinese = Search::new(&Hides::parse(["Condition/hiv"]).unwrap());
    chinese.learn(&"Condition/hiv".parse().unwrap(), r#"{"code":{"text":"高血压"}}"#.as_bytes());
    assert_eq!(found(&chinese, r#"{"note":"患者有高血压病史"}"#), ["text note"]);
}

#[test]
fn references_are_found_without_learning_anything_and_only_hidden_items_teach() {
    let mut search = Search::new(&Hides::parse(["Condition/hiv"]).unwrap());
    search.learn(&"Condition/another".parse().unwrap(), HIV.as_bytes());
    assert_eq!(found(&search, HIV), [""; 0]);
    assert_eq!(found(&search, r#"{"basedOn":[{"reference":"Condition/hiv"}]}"#), ["reference basedOn[0].reference"]);
    assert!(Search::new(&Hides::default()).mentions_in(HIV.as_bytes()).is_empty());
    assert_eq!(format!("{:?}", self::search().mentions_in(HIV.as_bytes())[0]), "Mention(code)");
}

#[test]
fn a_line_says_who_mentions_it_how_and_where() {
    let all = search();
    let line = all.mentions_in(br#"{"a b":"HIV infection"}"#)[0].in_words(&"Encounter/e".parse().unwrap());
    assert_eq!(line, "Encounter/e text a b");
    assert_eq!(read_line(&line), ("Encounter/e", "text", "a b"));
    assert_eq!(read_line("Encounter/e"), ("Encounter/e", "reference", ""));
}

#[test]
fn paths_are_bounded() {
    let body = format!(r#"{{"{}é":"HIV infection"}}"#, "k".repeat(MAX_PATH_BYTES - 1));
    let all = search();
    assert_eq!(all.mentions_in(body.as_bytes())[0].path.len(), MAX_PATH_BYTES - 1);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "[<>&;#x/A-Zé\u{301}高 hivnfectio]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let search = search();
        for body in [
            format!(r#"{{"text":{{"div":{0}}},"note":{0}}}"#, json::quote(&text)),
            attached("text/html", text.as_bytes()),
            attached("text/plain", &bytes),
            format!(r#"{{"contentType":"text/plain","data":{}}}"#, json::quote(&text)),
        ] {
            let _ = search.mentions_in(body.as_bytes());
        }
        let _ = search.mentions_in(&bytes);
    }

    #[test]
    fn a_name_is_found_in_any_text_around_it(before in "[a-z ,.]{0,30}", after in "[a-z ,.]{0,30}") {
        let body = format!(r#"{{"note":"{before} HIV infection {after}"}}"#);
        prop_assert_eq!(found(&search(), &body), ["text note"]);
    }
}
