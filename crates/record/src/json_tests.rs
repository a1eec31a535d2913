use super::*;
use proptest::prelude::*;

fn problem(text: &[u8]) -> (usize, JsonProblem) {
    let e = parse(text).expect_err("must be refused");
    (e.offset, e.problem)
}

#[test]
fn every_rule_is_enforced() {
    use JsonProblem as P;
    for (text, offset, rule) in [
        (&b""[..], 0, P::Truncated),
        (b"  ", 2, P::Truncated),
        (b"{", 1, P::Truncated),
        (b"[1", 2, P::Truncated),
        (b"tru", 0, P::Truncated),
        (b"\"ab", 3, P::Truncated),
        (b"{\"a\":1,}", 7, P::Unexpected),
        (b"[1,]", 3, P::Unexpected),
        (b"[1 2]", 3, P::Unexpected),
        (b"{\"a\" 1}", 5, P::Unexpected),
        (b"{1:2}", 1, P::Unexpected),
        (b"[}", 1, P::Unexpected),
        (b"{\"a\":1]", 6, P::Unexpected),
        (b"nul1", 0, P::Unexpected),
        (b"\xEF\xBB\xBF{}", 0, P::ByteOrderMark),
        (b"\"\xff\"", 1, P::Utf8),
        (b"\"\xed\xa0\x80\"", 1, P::Utf8),
        (b"\"a\nb\"", 2, P::ControlCharacter),
        (b"\"\\x\"", 1, P::Escape),
        (b"\"\\u12g4\"", 1, P::Escape),
        (b"\"\\ud800\"", 1, P::LoneSurrogate),
        (b"\"\\ud800\\u0041\"", 1, P::LoneSurrogate),
        (b"\"\\udc00\"", 1, P::LoneSurrogate),
        (b"01", 0, P::Number),
        (b"1.x", 0, P::Number),
        (b"-x", 0, P::Number),
        (b"1e+x", 0, P::Number),
        (b"+1", 0, P::Unexpected),
        (b"{\"a\":1,\"b\":2,\"a\":3}", 13, P::DuplicateKey),
        (b"{\"a\":1,\"\\u0061\":3}", 7, P::DuplicateKey),
        (b"{} {}", 3, P::Trailing),
        (b"1 x", 2, P::Trailing),
    ] {
        assert_eq!(problem(text), (offset, rule), "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn limits_hold() {
    let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
    assert!(parse(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(problem(&deep(MAX_DEPTH + 1)), (MAX_DEPTH, JsonProblem::TooDeep));
    // A text that only opens must not take a stack frame a byte.
    assert_eq!(problem(&vec![b'['; 10_000_000]).1, JsonProblem::TooDeep);
    let limits = Limits { nodes: 3, ..Limits::default() };
    assert!(parse_within(b"[1,2]", limits).is_ok());
    assert_eq!(parse_within(b"[1,2,3]", limits).expect_err("four values").problem, JsonProblem::TooMany);
    let limits = Limits { bytes: 3, ..Limits::default() };
    assert_eq!(parse_within(b"1000", limits).expect_err("four bytes").problem, JsonProblem::TooLong);
}

#[test]
fn tokens_are_kept_exactly() {
    let text = r#" { "a" : [ 1.10 , 1E-22, -1.000000000000000000E+245, 0.1234567890123456789012345678 ] , "b\u00e9" : "x \" \\ y\/" } "#;
    let compacted = compact(text.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(compacted).unwrap(),
        r#"{"a":[1.10,1E-22,-1.000000000000000000E+245,0.1234567890123456789012345678],"b\u00e9":"x \" \\ y\/"}"#
    );
    let document = parse(text.as_bytes()).unwrap();
    let tokens: Vec<_> = document.root().select("a").iter().map(|v| v.token()).collect();
    assert_eq!(tokens[..3], ["1.10", "1E-22", "-1.000000000000000000E+245"]);
    assert_eq!(document.root().text_of("bé").unwrap(), "x \" \\ y/");
}

#[test]
fn cursors_find_their_way() {
    let text =
        br#"{"p":[{"actor":{"reference":"A/1"}},{"actor":{"reference":"B/2"}},{"x":[]}],"e":{},"\ud83d\ude00":null}"#;
    let document = parse(text).unwrap();
    let found = document.root().select("p.actor.reference");
    assert_eq!(found.iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>(), ["A/1", "B/2"]);
    assert_eq!(found[1].path(), "p[1].actor.reference");
    assert_eq!(document.root().members().map(|(k, _)| k.into_owned()).collect::<Vec<_>>(), ["p", "e", "😀"]);
    assert_eq!(document.descendants().filter(|v| v.kind() == Kind::String).count(), 2);
    assert_eq!(document.root().member("p").unwrap().elements().count(), 3);
    assert_eq!(document.root().member("p").unwrap().members().count(), 0);
    assert!(document.root().member("none").is_none());
    assert!(!format!("{:?}", found[0]).contains("A/1"));
}

#[test]
fn splice_touches_only_its_spans() {
    let text = br#"{"a": "x", "b": 1.10}"#;
    let document = parse(text).unwrap();
    let span = document.root().member("a").unwrap().span();
    assert_eq!(
        splice(text, &[(1..1, b"\"id\":1,".to_vec()), (span, b"\"long\"".to_vec())]),
        br#"{"id":1,"a": "long", "b": 1.10}"#
    );
}

fn json_value() -> impl Strategy<Value = String> {
    let space = "[ \t\r\n]{0,2}";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| quote(&text)),
        Just("\"\\ud83d\\ude00\\n\\/\"".to_owned()),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space)
                .prop_map(|(items, s)| format!("[{s}{}{s}]", items.join(&format!("{s},{s}")))),
            (prop::collection::btree_map(any::<String>(), inner, 0..6), space).prop_map(|(members, s)| {
                let members: Vec<_> = members.iter().map(|(k, v)| format!("{}{s}:{s}{v}", quote(k))).collect();
                format!("{{{s}{}{s}}}", members.join(&format!("{s},{s}")))
            }),
        ]
    })
}

fn tokens(bytes: &[u8]) -> Vec<String> {
    let document = parse(bytes).unwrap();
    let leaves = document.descendants().filter(|v| !matches!(v.kind(), Kind::Object | Kind::Array));
    leaves.map(|v| format!("{:?}={}", v.key_value().map(Value::token), v.token())).collect()
}

proptest! {
    #[test]
    fn compacting_keeps_tokens_and_is_idempotent(text in json_value()) {
        let once = compact(text.as_bytes()).unwrap();
        prop_assert_eq!(tokens(&once), tokens(text.as_bytes()));
        prop_assert_eq!(compact(&once).unwrap(), once.clone());
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if theirs != serde_json::Value::Null {
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&once).unwrap(), theirs);
        }
    }

    #[test]
    fn whatever_we_accept_others_accept(text in json_value(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        if let Ok(document) = parse(&bytes) {
            for value in document.descendants() {
                let _ = (value.as_str(), value.path());
            }
            // serde_json refuses numbers beyond f64, which we must keep; everything else it must agree with.
            if let Err(e) = serde_json::from_slice::<serde_json::Value>(&bytes) {
                prop_assert!(e.to_string().contains("number out of range"), "{}", e);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = compact(&bytes);
    }

    #[test]
    fn quoted_text_comes_back(text in any::<String>()) {
        let quoted = quote(&text);
        let document = parse(quoted.as_bytes()).unwrap();
        prop_assert_eq!(document.root().as_str().unwrap(), text);
    }
}
