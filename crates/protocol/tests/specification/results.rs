//! Holds `formal/RESULTS.md` to the models and to the runner: what the headers declare was run, as they are today, and came out well.
//!
//! What is expected is derived from the models, not from the file: every property as the model is and in each setting, and every twin.

use std::collections::BTreeMap;

use super::common_table::repository;
use super::models::{Model, models};

const AS_IT_IS: &str = "as it is";

struct Section<'a> {
    name: &'a str,
    text: &'a str,
}

fn sections(results: &str) -> Vec<Section<'_>> {
    let parts = results.split("\n## ").skip(1);
    parts.map(|text| Section { name: text.lines().next().unwrap(), text }).collect()
}

/// A property and where it is asked, with whether it is an end; a twin, as its row calls it, and what it must break.
#[derive(Default)]
struct Expected {
    properties: BTreeMap<(String, String), bool>,
    twins: BTreeMap<String, Vec<String>>,
}

fn words(list: &str) -> Vec<String> {
    list.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The claims of a Scyther model in one setting, with whether they are ends.
fn claims(text: &str, setting: &str) -> Vec<(String, bool)> {
    let here = |names: &str| words(names).iter().any(|name| name == setting);
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        let line = match line.strip_prefix("//+ ").map(|rest| rest.split_once(": ").unwrap()) {
            Some((names, line)) if here(names) => line,
            Some(_) => continue,
            None => line,
        };
        if line.rsplit_once("//- ").is_some_and(|(_, names)| here(names)) {
            continue;
        }
        let Some((name, rest)) = line.strip_prefix("claim_").and_then(|rest| rest.split_once('(')) else { continue };
        out.push((name.to_owned(), rest.split([',', ')']).nth(1).unwrap().trim() == "Reachable"));
    }
    out
}

fn expected(model: &Model) -> Expected {
    let head = |line: &str| line.split(": ").next().unwrap().to_owned();
    let settings: Vec<_> = model.header("@setting ").into_iter().map(head).collect();
    let everywhere: Vec<_> = std::iter::once(AS_IT_IS).chain(settings.iter().map(String::as_str)).collect();
    let mut out = Expected::default();
    for place in &everywhere {
        for (name, end) in claims(&model.text, place) {
            out.properties.insert((name, (*place).to_owned()), end);
        }
    }
    for head in model.header("@property ").into_iter().map(head) {
        let (name, places) = head.split_once(" in ").unwrap_or((&head, ""));
        let places = words(places);
        let asked = |place: &&&str| {
            let called = if **place == AS_IT_IS { "base" } else { **place };
            places.is_empty() || places.iter().any(|p| p == called)
        };
        for place in everywhere.iter().filter(asked) {
            out.properties.insert((name.to_owned(), (*place).to_owned()), name.starts_with("reach-"));
        }
    }
    for head in model.header("@twin ").into_iter().map(head) {
        let (twin, broken) = head.split_once(" breaks ").unwrap();
        let (name, place) = twin.split_once(" in ").unwrap_or((twin, AS_IT_IS));
        for place in if place == "all" { everywhere.clone() } else { vec![place] } {
            let row = if place == AS_IT_IS { name.to_owned() } else { format!("{name} ({place})") };
            out.twins.insert(row, words(broken));
        }
    }
    out
}

/// What is wrong with a property's row. A time-out shows nothing, and a property without a twin may hold because nothing is asked.
fn wrong_property(cells: &[&str], end: bool) -> bool {
    let results: &[&str] = if end { &["reached"] } else { &["holds", "holds within the bound"] };
    let twins_missing = ["none", ""].contains(&cells[4]) || (!end && cells[4].starts_with('('));
    !results.contains(&cells[2]) || twins_missing
}

/// What is wrong with a twin's row: each property that it must break has to be broken. Of an equivalence ProVerif never says that it is
/// false: it shows a trace that tells the two sides apart.
fn wrong_twin(cells: &[&str], broken: &[String]) -> bool {
    const TRACE: &str = "attack found: a trace tells the sides apart (ProVerif says 'cannot be proved')";
    let said: Vec<_> = cells[3].split(", ").collect();
    let good = |(said, mark): (&&str, &String)| {
        ["attack found", TRACE].iter().any(|verdict| **said == format!("{mark}: {verdict}"))
    };
    words(cells[2]) != broken || said.len() != broken.len() || !said.iter().zip(broken).all(good)
}

/// What a section leaves out, has too much, or says against the protocol or a twin.
fn unsound(section: &Section<'_>, mut expected: Expected) -> Vec<String> {
    let (mut twins, mut out) = (false, Vec::new());
    for line in section.text.lines().filter(|line| line.starts_with("| ")) {
        if line.starts_with("| property |") || line.starts_with("| broken twin |") {
            twins = line.starts_with("| broken twin |");
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let wrong = if twins {
            expected.twins.remove(cells[0]).is_none_or(|broken| cells.len() != 5 || wrong_twin(&cells, &broken))
        } else {
            let mark = cells[0].rsplit_once("(`").and_then(|(_, rest)| rest.strip_suffix("`)")).unwrap_or("");
            let key = (mark.to_owned(), cells.get(1).unwrap_or(&"").to_string());
            expected.properties.remove(&key).is_none_or(|end| cells.len() != 5 || wrong_property(&cells, end))
        };
        if wrong {
            out.push(line.to_owned());
        }
    }
    out.extend(expected.properties.keys().map(|(mark, place)| format!("{mark} was not asked, {place}")));
    out.extend(expected.twins.keys().map(|twin| format!("the twin {twin} was not run")));
    out
}

fn digest(text: &str) -> String {
    waybill_crypto::digest::sha256(&[text.as_bytes()]).to_string()
}

/// What is wrong with a file of results, for these models and this runner.
fn stale(results: &str, models: &[Model], runner: &str) -> Vec<String> {
    let sections = sections(results);
    let mut out = Vec::new();
    for model in models {
        let name = &model.name;
        let of: Vec<_> = sections.iter().filter(|s| s.name == name).collect();
        let [one] = of.as_slice() else {
            out.push(format!("{name} has {} sections: formal/run {name}", of.len()));
            continue;
        };
        if !one.text.contains(&format!("\n`sha256 {}`, ", digest(&model.text))) {
            out.push(format!("{name} has changed since it was run: formal/run {name}"));
        }
        if !one.text.contains(&format!(" by the runner `sha256 {}`\n", digest(runner))) {
            out.push(format!("the runner has changed since it ran {name}: formal/run {name}"));
        }
        out.extend(unsound(one, expected(model)).into_iter().map(|line| format!("{name}: {line}")));
    }
    let gone = sections.iter().filter(|section| models.iter().all(|model| model.name != section.name));
    out.extend(gone.map(|section| format!("{} is gone", section.name)));
    out
}

#[test]
fn the_results_are_those_of_the_models_and_of_the_runner_as_they_are() {
    let read = |file: &str| std::fs::read_to_string(repository(file)).unwrap();
    let found = stale(&read("formal/RESULTS.md"), &models(), &read("formal/run"));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

const MODEL: &str = "(*\n@setting group: g\n@property reach-end: e | 1 | x\n@property p: P | 1 | x\n@property q in base: Q | 1 | x\n\
                     @twin t in all breaks p: w\n@twin u breaks p q: w\n*)\n";

fn example() -> String {
    let rows = [
        "| property | setting | result | seconds | twins that break it |",
        "|---|---|---|---|---|",
        "| e (`reach-end`) | as it is | reached | 0.1 | (an end that is reached) |",
        "| P (`p`) | as it is | holds | 0.1 | t, u |",
        "| Q (`q`) | as it is | holds within the bound | 0.1 | u |",
        "| e (`reach-end`) | group | reached | 0.1 | (an end that is reached) |",
        "| P (`p`) | group | holds | 0.1 | t |",
        "",
        "| broken twin | what is broken | must break | result | seconds |",
        "|---|---|---|---|---|",
        "| t | w | p | p: attack found | 0.1 |",
        "| t (group) | w | p | p: attack found | 0.1 |",
        "| u | w | p, q | p: attack found, q: attack found | 0.1 |",
    ];
    let (model, runner) = (digest(MODEL), digest("runner"));
    let head = format!("`sha256 {model}`, run on 2026-01-01 by the runner `sha256 {runner}`");
    format!("# T\n\n## proverif/x.pv\n\n{head}\n\n{}\n", rows.join("\n"))
}

#[test]
fn the_test_of_the_results_sees_what_is_wrong() {
    let models = [Model { name: "proverif/x.pv".into(), text: MODEL.into() }];
    let good = example();
    assert_eq!(stale(&good, &models, "runner"), Vec::<String>::new());
    assert_eq!(stale(&good, &models, "another runner").len(), 1, "another runner");
    assert_eq!(stale(&good, &[], "runner").len(), 1, "a model that is gone");
    assert_eq!(stale("# T\n", &models, "runner").len(), 1, "a model that was never run");
    let other = [Model { name: "proverif/x.pv".into(), text: format!("{MODEL} ") }];
    assert_eq!(stale(&good, &other, "runner").len(), 1, "another text was run");
    let more = [Model { name: "proverif/x.pv".into(), text: MODEL.replace("*)", "@property r: R | 1 | x\n*)") }];
    assert_eq!(stale(&good, &more, "runner").len(), 3, "a new property: the text, and it was asked in neither place");
    for line in good.lines().filter(|line| line.starts_with("| ") && line.contains("0.1")) {
        let found = |text: &str| stale(&good.replace(&format!("{line}\n"), text), &models, "runner").len();
        assert_eq!(found(""), 1, "a row is missing: {line}");
        assert_eq!(found(&format!("{line}\n{line}\n")), 1, "a row is there twice: {line}");
    }
    for (said, other) in [
        ("| holds |", "| time-out |"),
        ("| holds |", "| fail |"),
        ("| holds |", "| not run |"),
        ("| holds |", "| no answer |"),
        ("| holds |", "| 3 answers to 4 queries |"),
        ("| holds |", "| reached |"),
        ("| reached |", "| holds |"),
        ("| u |\n", "| none |\n"),
        ("| u |\n", "| (an end that is reached) |\n"),
        ("q: attack found", "q: NOT BROKEN"),
        ("q: attack found", "q: time-out"),
        ("q: attack found", "r: attack found"),
        (", q: attack found", ""),
        ("| p, q |", "| p |"),
        ("| P (`p`) | group", "| P (`p`) | field"),
    ] {
        let worse = good.replacen(said, other, 1);
        assert_ne!(worse, good, "{said}");
        assert!(!stale(&worse, &models, "runner").is_empty(), "{said} as {other}");
    }
    let nothing = good.split("| property |").next().unwrap();
    assert_eq!(stale(nothing, &models, "runner").len(), 8, "a section with the hashes and nothing else");
}

#[test]
fn claims_are_read_as_the_runner_reads_them() {
    let text = "    claim(P, Running, X);\n    claim_Ps(P, Secret, f(a, b)); //- leak-after\n    claim_Pr(P, Reachable);\n\
                \x20   //+ leak-after: claim_Pt(P, Niagree);\n// @twin x breaks Ps: y\n";
    assert_eq!(claims(text, AS_IT_IS), [("Ps".to_owned(), false), ("Pr".to_owned(), true)]);
    assert_eq!(claims(text, "leak-after"), [("Pr".to_owned(), true), ("Pt".to_owned(), false)]);
}
