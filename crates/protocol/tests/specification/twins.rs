//! Holds `formal/twins.toml` to the twins in the headers of the models, and to the tests and attacks that it names.
//!
//! What a test really does is for its reader to judge. Here it is asked whether every twin has its place, whether the named test, mutation
//! or attack is there, and whether the expected code is a code of the catalogue that the one who plays the attack speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use waybill_protocol::rejection::Code;

use super::common_table::{Table, repository};

const FOLDERS: [(&str, &str); 3] = [("scyther", "spdl"), ("proverif", "pv"), ("verifpal", "vp")];
const MUTATION: &str = "protocol/tests/mutation/";
const JUDGE: &str = "protocol/src/evidence/judge.rs";

fn files(folder: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, suffix, found);
        } else if path.extension().is_some_and(|e| e == suffix) {
            found.push(path);
        }
    }
}

/// The twins in a model's header, each after the model's name.
fn twins_of(model: &str, text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.trim().trim_start_matches("//").trim_start())
        .filter_map(|line| line.strip_prefix("@twin "))
        .map(|rest| format!("{model} {}", rest.split(' ').next().unwrap()))
        .collect()
}

fn all_twins() -> BTreeSet<String> {
    let mut twins = BTreeSet::new();
    for (folder, suffix) in FOLDERS {
        let mut models = Vec::new();
        files(&repository("formal").join(folder), suffix, &mut models);
        for file in models {
            let name = format!("{folder}/{}", file.file_name().unwrap().to_str().unwrap());
            twins.extend(twins_of(&name, &std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(!twins.is_empty());
    twins
}

// The file.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Refused,
    Construction,
    Missing,
}

struct Row {
    sort: Sort,
    what: String,
    twins: Vec<String>,
    by: Vec<String>,
    codes: Vec<String>,
    findings: Vec<String>,
}

/// Reads the file, insisting that it has these keys and no others.
fn rows(source: &str) -> Vec<Row> {
    let table: toml::Table = source.parse().unwrap();
    let mut out = Vec::new();
    for (key, list) in table {
        let (sort, what, keys): (_, _, &[&str]) = match key.as_str() {
            "refused" => (Sort::Refused, "what", &["what", "twins", "by", "codes", "findings"]),
            "construction" => (Sort::Construction, "what", &["what", "twins", "by"]),
            "missing" => (Sort::Missing, "why", &["why", "twins"]),
            other => panic!("{other} is no kind of row"),
        };
        for entry in list.as_array().unwrap() {
            let entry = entry.as_table().unwrap();
            assert!(entry.keys().all(|key| keys.contains(&key.as_str())), "a key of {entry:?} is none of {keys:?}");
            let texts = |key: &str| {
                let list = entry.get(key).map(|list| list.as_array().unwrap().clone()).unwrap_or_default();
                list.iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let what = entry[what].as_str().unwrap().to_owned();
            assert!(!what.is_empty());
            let (twins, by, codes, findings) = (texts("twins"), texts("by"), texts("codes"), texts("findings"));
            out.push(Row { sort, what, twins, by, codes, findings });
        }
    }
    out
}

// The code.

struct Function {
    file: String,
    name: String,
    is_test: bool,
    text: String,
}

/// The name of the function that begins on a line.
fn begins(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    while let Some(shorter) = ["pub ", "pub(crate) ", "pub(super) ", "async ", "const ", "unsafe "]
        .iter()
        .find_map(|word| rest.strip_prefix(word))
    {
        rest = shorter;
    }
    let rest = rest.strip_prefix("fn ")?;
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').map(|end| &rest[..end])
}

/// Every function of a formatted file: it ends with the brace below its first letter.
fn functions(file: &str, source: &str) -> Vec<Function> {
    let lines: Vec<_> = source.lines().collect();
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = begins(line) else { continue };
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let short = line.ends_with('}') || line.ends_with(';');
        let length = if short { Some(0) } else { lines[at..].iter().position(|line| *line == end) };
        let text = lines[at..=at + length.unwrap_or(0)].join("\n");
        let attributes = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with(['#', '/']));
        let is_test = attributes.into_iter().any(|line| ["#[test]", "#[tokio::test"].iter().any(|a| line.contains(a)));
        out.push(Function { file: file.to_owned(), name: name.to_owned(), is_test, text });
    }
    out
}

/// Whether a text has this name, and not only a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

struct Sources(Vec<Function>);

impl Sources {
    fn read() -> Self {
        let (crates, mut paths) = (repository("crates"), Vec::new());
        files(&crates, "rs", &mut paths);
        let one = |path: &PathBuf| {
            let name = path.strip_prefix(&crates).unwrap().to_str().unwrap().to_owned();
            functions(&name, &std::fs::read_to_string(path).unwrap())
        };
        Self(paths.iter().flat_map(one).collect())
    }

    /// A test with the functions of its file that it calls.
    fn body(&self, name: &str) -> Result<String, String> {
        let mut tests = self.0.iter().filter(|f| f.is_test && f.name == name);
        let (Some(test), None) = (tests.next(), tests.next()) else {
            let found = self.0.iter().filter(|f| f.is_test && f.name == name).count();
            return Err(format!("{found} tests are called {name}"));
        };
        let mut taken = vec![test];
        let mut next = 0;
        while let Some(caller) = taken.get(next).copied() {
            next += 1;
            let called = self.0.iter().filter(|f| {
                f.file == test.file && !f.is_test && has_word(&caller.text, &f.name) && caller.name != f.name
            });
            for function in called {
                if !taken.iter().any(|t| std::ptr::eq(*t, function)) {
                    taken.push(function);
                }
            }
        }
        Ok(taken.iter().map(|f| f.text.as_str()).collect::<Vec<_>>().join("\n"))
    }

    /// What the mutation test has of a message, after the table has said that there is this field.
    fn mutation(&self, table: &Table, of: &str) -> Result<String, String> {
        let (message, field) = of.split_once('.').map_or((of, None), |(message, field)| (message, Some(field)));
        let known = table.messages.iter().find(|known| known.name == message);
        let Some(known) = known else { return Err(format!("the table has no message {message}")) };
        let mut places = known.fields.iter().flat_map(|outer| {
            let inside: Vec<_> = table.inside(outer).into_iter().flatten().collect();
            let parts = inside.iter().map(|inner| format!("{}.{}", outer.name, inner.name));
            if inside.is_empty() { vec![outer.name.clone()] } else { parts.collect() }
        });
        if let Some(field) = field.filter(|field| places.all(|place| place != **field)) {
            return Err(format!("{message} has no place {field}"));
        }
        let speaks = [format!("row!({message}:"), format!("message: \"{message}\"")];
        let found = self.0.iter().filter(|f| f.file.starts_with(MUTATION) && speaks.iter().any(|s| f.text.contains(s)));
        let text = found.map(|f| f.text.as_str()).collect::<Vec<_>>().join("\n");
        if text.is_empty() { Err(format!("no mutation alters a {message}")) } else { Ok(text) }
    }
}

/// The attacks of docs/ATTACKS.md, each with its row.
fn attacks(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once("` |")?;
        Some((name.to_owned(), line.to_owned()))
    });
    rows.collect()
}

// The comparison.

struct Held<'a> {
    twins: &'a BTreeSet<String>,
    sources: &'a Sources,
    table: &'a Table,
    attacks: &'a BTreeMap<String, String>,
    judge: &'a str,
}

impl Held<'_> {
    fn text(&self, by: &str) -> Result<String, String> {
        if let Some(name) = by.strip_prefix("attack ") {
            return self.attacks.get(name).cloned().ok_or_else(|| format!("there is no attack {name}"));
        }
        by.strip_prefix("mutation:").map_or_else(|| self.sources.body(by), |of| self.sources.mutation(self.table, of))
    }

    /// Every twin has one place of each sort that it has, and a missing one no other.
    fn places(&self, rows: &[Row]) -> Vec<String> {
        let mut out = Vec::new();
        let mut seen: BTreeMap<&str, Vec<Sort>> = BTreeMap::new();
        for row in rows {
            for twin in &row.twins {
                let sorts = seen.entry(twin).or_default();
                if !self.twins.contains(twin) {
                    out.push(format!("no model has the twin {twin}"));
                }
                if sorts.contains(&row.sort) {
                    out.push(format!("{twin} is {:?} twice", row.sort));
                }
                sorts.push(row.sort);
            }
        }
        let both =
            |sorts: &Vec<Sort>| sorts.contains(&Sort::Missing) && sorts.iter().any(|sort| *sort != Sort::Missing);
        out.extend(
            seen.iter().filter(|(_, sorts)| both(sorts)).map(|(twin, _)| format!("{twin} is missing, and is not")),
        );
        let nowhere = self.twins.iter().filter(|twin| !seen.contains_key(twin.as_str()));
        out.extend(nowhere.map(|twin| format!("nobody plays {twin}")));
        out
    }

    /// What a row expects, and how a text would speak of it.
    fn expected<'r>(&self, row: &'r Row, out: &mut Vec<String>) -> Vec<(&'r str, [String; 2])> {
        let mut expected = Vec::new();
        for code in &row.codes {
            match Code::ALL.iter().find(|known| known.as_str() == code) {
                Some(known) => expected.push((code.as_str(), [format!("{known:?}"), format!("`{code}`")])),
                None => out.push(format!("{}: {code} is no code of the catalogue", row.what)),
            }
        }
        for finding in &row.findings {
            let quoted = format!("\"{finding}\"");
            if !self.judge.contains(&quoted) {
                out.push(format!("{}: the judge has no sentence {finding}", row.what));
            }
            expected.push((finding.as_str(), [quoted.clone(), quoted]));
        }
        expected
    }

    fn row(&self, row: &Row) -> Vec<String> {
        let mut out = Vec::new();
        if row.sort == Sort::Missing {
            return out;
        }
        let expected = self.expected(row, &mut out);
        if row.by.is_empty() || (row.sort == Sort::Refused && row.codes.len() + row.findings.len() == 0) {
            out.push(format!("{}: nobody plays it, or nothing is expected", row.what));
        }
        let mut unheard: BTreeSet<&str> = expected.iter().map(|(name, _)| *name).collect();
        for by in &row.by {
            let text = match self.text(by) {
                Ok(text) => text,
                Err(why) => {
                    out.push(format!("{}: {why}", row.what));
                    continue;
                }
            };
            let says = |words: &[String; 2]| words.iter().any(|word| has_word(&text, word));
            let said: Vec<_> = expected.iter().filter(|(_, words)| says(words)).map(|(name, _)| *name).collect();
            if said.is_empty() && !expected.is_empty() {
                out.push(format!("{}: {by} expects nothing of {:?}", row.what, row.codes));
            }
            said.iter().for_each(|name| _ = unheard.remove(name));
        }
        out.extend(unheard.iter().map(|name| format!("{}: nobody expects {name}", row.what)));
        out
    }

    fn problems(&self, source: &str) -> Vec<String> {
        let rows = rows(source);
        self.places(&rows).into_iter().chain(rows.iter().flat_map(|row| self.row(row))).collect()
    }
}

#[test]
fn every_twin_is_played_against_the_code_or_said_not_to_be() {
    let read = |path: &str| std::fs::read_to_string(repository(path)).unwrap();
    let held = Held {
        twins: &all_twins(),
        sources: &Sources::read(),
        table: &Table::read(),
        attacks: &attacks(&read("docs/ATTACKS.md")),
        judge: &read(&format!("crates/{JUDGE}")),
    };
    let found = held.problems(&read("formal/twins.toml"));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

const SAMPLE_HEADERS: &str =
    "// @twin one in all breaks X: why\n(*\n@twin two breaks Y: why\n@twin three breaks Z: why\n";
const SAMPLE_CODE: [(&str, &str); 2] = [
    (
        "protocol/tests/roles/sample.rs",
        "fn helper(expected: Code) {\n    assert_eq!(code(), Code::GrantInvalid);\n}\n\n#[test]\nfn direct() {\n    \
         refused(Code::ProofSpent);\n}\n\n#[test]\nfn by_helper() {\n    helper();\n    blamed(\"manifest\");\n}\n",
    ),
    (
        "protocol/tests/mutation/sample.rs",
        "fn grant() -> Delivery<Grant> {\n    forged: Code::SignatureInvalid,\n    row!(Grant: nonce = x => invalid)\n}\n",
    ),
];
const SAMPLE_ROWS: &str = r#"
[[refused]]
what = "r"
twins = ["m one"]
by = ["direct", "by_helper", "mutation:Grant.nonce", "attack forged"]
codes = ["proof-spent", "grant-invalid", "signature-invalid"]
findings = ["manifest"]
[[construction]]
what = "c"
twins = ["m two", "m one"]
by = ["direct"]
[[missing]]
why = "w"
twins = ["m three"]
"#;

fn sample(rows: &str, attack: &str) -> Vec<String> {
    let held = Held {
        twins: &twins_of("m", SAMPLE_HEADERS).into_iter().collect(),
        sources: &Sources(SAMPLE_CODE.iter().flat_map(|(file, text)| functions(file, text)).collect()),
        table: &Table::read(),
        attacks: &attacks(attack),
        judge: "\"manifest\" \"lodgement\"",
    };
    held.problems(rows)
}

#[test]
fn the_test_of_the_twins_sees_what_is_wrong() {
    let attack = "| attack | code |\n|---|---|\n| `forged` | what | `grant-invalid` (a) |\n";
    assert_eq!(sample(SAMPLE_ROWS, attack), Vec::<String>::new());
    for (from, to, expected) in [
        // Twins.
        (r#""m two", "#, "", "nobody plays m two"),
        (r#"["m three"]"#, r#"["m three", "m four"]"#, "no model has the twin m four"),
        (r#""m two", "#, r#""m two", "m two", "#, "m two is Construction twice"),
        (r#"["m three"]"#, r#"["m three", "m two"]"#, "m two is missing, and is not"),
        // Who plays them.
        (r#"["direct", "#, r#"["direct", "directly", "#, "r: 0 tests are called directly"),
        (r#"["direct", "#, r#"["direct", "helper", "#, "r: 0 tests are called helper"),
        (r#"["direct"]"#, "[]", "c: nobody plays it, or nothing is expected"),
        ("mutation:Grant.nonce", "mutation:Grants", "r: the table has no message Grants"),
        ("mutation:Grant.nonce", "mutation:Grant.scope", "r: Grant has no place scope"),
        (r#"["direct"]"#, r#"["direct", "mutation:Redeem"]"#, "c: no mutation alters a Redeem"),
        (r#"["direct"]"#, r#"["direct", "attack forge"]"#, "c: there is no attack forge"),
        // What they expect.
        ("\"proof-spent\"", "\"proof-spend\"", "r: proof-spend is no code of the catalogue"),
        ("\"proof-spent\"", "\"proof-spent\", \"malformed\"", "r: nobody expects malformed"),
        ("[\"manifest\"]", "[\"manifest\", \"statement\"]", "r: the judge has no sentence statement"),
        ("[\"manifest\"]", "[\"manifest\", \"lodgement\"]", "r: nobody expects lodgement"),
    ] {
        assert!(SAMPLE_ROWS.contains(from), "{from}");
        let found = sample(&SAMPLE_ROWS.replace(from, to), attack);
        assert!(found.contains(&expected.to_owned()), "{from} as {to}: {found:?}");
    }
    // One that expects nothing of what the row says, and an attack that is refused for another reason.
    let found = sample(&SAMPLE_ROWS.replace("\"proof-spent\", ", ""), attack);
    assert!(found.iter().any(|line| line.starts_with("r: direct expects nothing of")), "{found:?}");
    let found = sample(SAMPLE_ROWS, &attack.replace("grant-invalid", "grant-invalidated"));
    assert!(found.iter().any(|line| line.starts_with("r: attack forged expects nothing of")), "{found:?}");
    let empty = sample(&SAMPLE_ROWS.replace("codes = [", "codes = []\n# [").replace("findings", "# findings"), attack);
    assert!(empty.contains(&"r: nobody plays it, or nothing is expected".to_owned()), "{empty:?}");
    // Two tests of one name: nobody could say which is meant.
    let twice = Sources(functions("x.rs", "#[test]\nfn a() {}\nmod m {\n    #[tokio::test]\n    async fn a() {}\n}\n"));
    assert_eq!(twice.body("a"), Err("2 tests are called a".to_owned()));
}
