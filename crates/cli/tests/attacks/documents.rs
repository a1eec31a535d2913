//! What the security documents name exists: tests, attacks, files, and what they say of models.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use waybill_cli::attack;

const SECURITY: &str = include_str!("../../../../docs/SECURITY.md");
const ASVS: &str = include_str!("../../../../docs/ASVS.md");
/// Endings by which a word in backticks is known as a file of the repository.
const ENDINGS: [&str; 9] = [".rs", ".md", ".toml", ".json", ".pv", ".spdl", ".vp", ".pem", ".key"];
/// Folders of the repository that documents name, but for the files of a party's own data folder.
const ROOTS: [&str; 9] = ["crates/", "docs/", "formal/", "fuzz/", "vectors/", ".ci/", "README", "Cargo", "deny"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every word in backticks, in order.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The name in a line `fn name(` or `async fn name(`.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split('(').next()
}

/// Every test, also those that a macro writes: functions below `#[test]`, `#[tokio::test]`, or inside `proptest!`.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut is_test = false;
        for line in text.lines() {
            let trimmed = line.trim_start();
            if trimmed.starts_with("#[test") || trimmed.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = function(line)
                && std::mem::take(&mut is_test)
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// Words that look like the name of a test: at least three parts in small letters.
fn looks_like_a_test(word: &str) -> bool {
    let small = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    small && word.matches('_').count() >= 2
}

fn missing(document: &str) -> Vec<String> {
    let (tests, attacks): (_, BTreeSet<_>) = (tests(), attack::all().map(|attack| attack.name).collect());
    let mut missing = Vec::new();
    for word in words(document) {
        let exists = if let Some(name) = word.strip_prefix("attack ") {
            ["NAME", "all", "list"].contains(&name) || attacks.contains(name)
        } else if looks_like_a_test(word) {
            word == "like_this" || tests.contains(word)
        } else if ROOTS.iter().any(|folder| word.starts_with(folder)) && ENDINGS.iter().any(|end| word.ends_with(end)) {
            root().join(word).exists()
        } else {
            true
        };
        if !exists {
            missing.push(word.to_owned());
        }
    }
    missing
}

#[test]
fn what_the_security_documents_name_exists() {
    for (name, document) in [("SECURITY.md", SECURITY), ("ASVS.md", ASVS)] {
        assert_eq!(missing(document), Vec::<String>::new(), "{name}");
        let named = words(document).filter(|word| looks_like_a_test(word)).count();
        assert!(named > 50, "{name} names {named} tests: this reads it wrongly");
    }
    let false_ones = "`attack nobodys` and `a_test_that_nobody_wrote` and `crates/cli/src/nowhere.rs` and `like_this`";
    assert_eq!(missing(false_ones).len(), 3, "what does not exist is seen");
}

/// In SECURITY.md, words in parentheses behind a model's file are properties, settings or twins of it that were run.
#[test]
fn what_the_document_says_of_models_stands_in_the_results() {
    let results = fs::read_to_string(root().join("formal/RESULTS.md")).unwrap();
    let mut compared = 0;
    for (at, _) in SECURITY.match_indices("`formal/") {
        let text = &SECURITY[at + 1..];
        let Some((file, after)) = text.split_once('`') else { continue };
        let Some(model) = file.strip_prefix("formal/").filter(|file| file.contains('/')) else { continue };
        let section = results.split("\n## ").find(|section| section.starts_with(&format!("{model}\n")));
        let section = section.unwrap_or_else(|| panic!("{model} has no results"));
        let Some(named) = after.strip_prefix(" (").and_then(|rest| rest.split(')').next()) else { continue };
        for word in words(named) {
            let known = section.contains(&format!("`{word}`"))
                || section.contains(&format!("| {word} |"))
                || section.contains(&format!("| {word} ("));
            assert!(known, "{word} is nothing of {model}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} words were compared: this reads the document wrongly");
}

/// ASVS.md: each requirement once, and the summary counts what stands below it.
#[test]
fn the_checklist_counts_what_it_lists() {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<_> = ASVS.lines().filter(|line| line.starts_with("| v5.0.0-")).map(cells).collect();
    let numbers: BTreeSet<_> = rows.iter().map(|row| row[1].clone()).collect();
    assert_eq!(numbers.len(), rows.len(), "a requirement stands twice");
    let states = ["met", "partly", "not met", "does not apply"];
    let mut chapters = 0;
    for summary in ASVS.lines().filter(|line| line.starts_with("| V") || line.starts_with("| all ")).map(cells) {
        let Ok(counts) = summary[2..].iter().take(4).map(|cell| cell.parse()).collect::<Result<Vec<usize>, _>>() else {
            continue;
        };
        let chapter = summary[1].split(' ').next().unwrap().replacen('V', "v5.0.0-", 1) + ".";
        let of_chapter = |row: &&Vec<String>| summary[1] == "all" || row[1].starts_with(&chapter);
        let found = states.map(|state| rows.iter().filter(of_chapter).filter(|row| row[4] == state).count());
        assert_eq!(counts, found, "{}", summary[1]);
        chapters += 1;
    }
    assert_eq!(chapters, 15, "14 chapters and their sum");
}
