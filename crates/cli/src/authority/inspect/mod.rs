//! `waybill authority inspect`: that authority, relay and witness hold nothing of a record, and that no two cases are linked.

mod chance;
mod link;
mod places;
mod search;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use waybill_store::{DATABASE_FILE, DataFolder, SqliteOptions, SqliteStore};

use self::chance::Stretches;
use self::link::Linkability;
use self::search::{Hit, Searcher};
use self::terms::{Term, Terms};
use crate::args::InspectArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// How many findings are told to people; JSON has them all.
const TOLD: usize = 20;

#[derive(Debug, Serialize)]
struct Inspection {
    inspected: Vec<Inspected>,
    search: Option<Search>,
    linkability: Linkability,
    clean: bool,
}

/// How much of a place was looked at.
#[derive(Debug, Serialize)]
struct Inspected {
    path: PathBuf,
    files: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Search {
    /// How many terms of each kind.
    terms: BTreeMap<&'static str, usize>,
    too_short: usize,
    /// How many findings there would be if the text, digits, hex and base64 that were searched were random characters.
    expected_by_chance: f64,
    found: Vec<Finding>,
    control: Control,
}

/// A term where it must not be.
#[derive(Debug, Serialize)]
struct Finding {
    /// Which of the terms; without `--show-terms` nothing else is told, for a term is health data.
    number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<String>,
    kind: &'static str,
    encoding: &'static str,
    place: String,
    #[serde(flatten)]
    spot: Spot,
}

/// Where in a place a term first begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Spot {
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<u64>,
    offset: u64,
}

/// Every term found, with its encoding and place, and where it first begins there.
type Hits = BTreeMap<(Hit, String), Spot>;

/// What the same search finds where the record is known to be.
#[derive(Debug, Serialize)]
struct Control {
    found: BTreeMap<&'static str, usize>,
    /// Kinds of which nothing was found there: about them the search proves nothing.
    unproven: Vec<&'static str>,
}

/// Inspects, searches, compares.
pub(super) async fn run(args: &InspectArgs, console: &Console) -> Result<Exit, Failure> {
    let places: Vec<&Path> =
        std::iter::once(args.folder.as_path()).chain(args.also.iter().map(PathBuf::as_path)).collect();
    let progress = console.progress("inspecting");
    let terms = if args.search { Some(gather(args).await?) } else { None };
    let (mut inspected, mut found, mut stretches) = (Vec::new(), Vec::new(), Stretches::default());
    let list: Vec<Term> = terms.iter().flat_map(|t| t.terms.iter().cloned()).collect();
    let searcher = Searcher::new(&list);
    for place in &places {
        let mut hits = Hits::new();
        let bytes = search_place(&searcher, place, &mut hits, Some(&mut stretches)).await?;
        found.extend(hits.into_iter().map(|((hit, place), spot)| {
            let term = &list[hit.term];
            let shown = args.show_terms.then(|| term.label());
            Finding { number: hit.term, term: shown, kind: term.kind, encoding: hit.encoding, place, spot }
        }));
        inspected.push(Inspected { path: place.to_path_buf(), files: places::files(place)?.len(), bytes });
    }
    let search = match &terms {
        None => None,
        Some(terms) => Some(Search {
            terms: count_kinds(list.iter()),
            too_short: terms.too_short.len(),
            expected_by_chance: searcher.expected_by_chance(&list, &stretches),
            found,
            control: control(args, &searcher, &list).await?,
        }),
    };
    let linkability = linkability(args).await?;
    drop(progress);
    let quiet = search.as_ref().is_none_or(|s| s.found.is_empty() && s.control.unproven.is_empty());
    let clean = quiet && linkability.links.is_empty();
    let inspection = Inspection { inspected, search, linkability, clean };
    tell(&inspection, console);
    console.json(&inspection);
    conclude(&inspection)
}

async fn linkability(args: &InspectArgs) -> Result<Linkability, Failure> {
    let database = args.folder.join("data").join(DATABASE_FILE);
    let (link, other) = (args.link.as_slice(), args.other.as_deref());
    match (link, other) {
        ([first, second], Some(other)) => {
            if !database.exists() {
                return Err(Failure::usage("the cases cannot be compared: the folder holds no authority's database"));
            }
            link::compare_named(&database, [first, second], other).await
        }
        _ if database.exists() => link::compare(&database).await,
        _ => Ok(Linkability::default()),
    }
}

async fn gather(args: &InspectArgs) -> Result<Terms, Failure> {
    let mut terms = Terms::default();
    let read =
        |path: &Path| fs::read(path).map_err(|e| Failure::environment(format!("{} cannot be read", path.display()), e));
    for record in &args.record {
        let added = terms.add_record(&read(record)?);
        added.map_err(|e| Failure::usage(format!("{} is no JSON and no NDJSON", record.display())).caused_by(e))?;
    }
    terms.finish();
    args.term.iter().for_each(|term| terms.add("given", term));
    if let Some(file) = &args.terms_file {
        String::from_utf8_lossy(&read(file)?).lines().for_each(|term| terms.add("given", term));
    }
    for home in &args.pseudonyms_of {
        for file in places::files(home)?.iter().filter(|f| f.file_name().is_some_and(|name| name == DATABASE_FILE)) {
            places::rows(file, &mut |row| {
                let key = row.values.iter().find(|(column, _)| column == "key");
                if let Some((_, key)) = key.filter(|_| row.table == "space_registration") {
                    // The key of a registration is the pseudonym, 32 bytes; whatever its key's form adds stands before it.
                    terms.add_bytes("pseudonym", &key[key.len().saturating_sub(32)..]);
                }
            })
            .await?;
        }
    }
    leave_out_common(&mut terms).await?;
    if terms.terms.is_empty() {
        return Err(Failure::usage("there is nothing to search for")
            .hint("give --record FILE, --term TEXT or --terms-file FILE"));
    }
    Ok(terms)
}

/// A word that an empty store contains, such as a table's name, says nothing about anybody.
async fn leave_out_common(terms: &mut Terms) -> Result<(), Failure> {
    let failed = |e| Failure::environment("an empty store cannot be made to compare with", e);
    let empty =
        tempfile::tempdir().map_err(|e| Failure::environment("an empty store cannot be made to compare with", e))?;
    let folder = DataFolder::open(empty.path()).map_err(failed)?;
    SqliteStore::open(folder, SqliteOptions::default()).await.map_err(failed)?.close().await;
    let list: Vec<Term> = terms.terms.iter().cloned().collect();
    let mut hits = Hits::new();
    search_place(&Searcher::new(&list), empty.path(), &mut hits, None).await?;
    for (hit, _) in hits.into_keys() {
        terms.terms.remove(&list[hit.term]);
        terms.too_short.insert(list[hit.term].label());
    }
    Ok(())
}

async fn search_place(
    searcher: &Searcher,
    place: &Path,
    hits: &mut Hits,
    mut stretches: Option<&mut Stretches>,
) -> Result<u64, Failure> {
    places::everything(place, &mut |found| {
        if let Some(stretches) = &mut stretches {
            stretches.measure(found.bytes);
        }
        let mut here = BTreeMap::new();
        searcher.search(found.bytes, &mut here);
        for (hit, at) in here {
            let spot = Spot { row: found.row, offset: found.offset + at as u64 };
            hits.entry((hit, found.place.clone())).or_insert(spot);
        }
    })
    .await
}

fn count_kinds<'a>(terms: impl Iterator<Item = &'a Term>) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    terms.for_each(|term| *kinds.entry(term.kind).or_insert(0) += 1);
    kinds
}

/// The same search where everything must be found: without it, finding nothing could mean a search that cannot find.
async fn control(args: &InspectArgs, searcher: &Searcher, list: &[Term]) -> Result<Control, Failure> {
    let mut hits = Hits::new();
    for place in &args.control {
        search_place(searcher, place, &mut hits, None).await?;
    }
    let terms: BTreeSet<usize> = hits.keys().map(|(hit, _)| hit.term).collect();
    let found = count_kinds(terms.iter().map(|index| &list[*index]));
    let unproven = count_kinds(list.iter()).into_keys().filter(|kind| !found.contains_key(kind)).collect();
    Ok(Control { found, unproven })
}

fn tell(inspection: &Inspection, console: &Console) {
    for place in &inspection.inspected {
        console.say(format!("{}: {} files, {} bytes", place.path.display(), place.files, place.bytes));
    }
    if let Some(search) = &inspection.search {
        for (kind, count) in &search.terms {
            let there = search.control.found.get(kind).unwrap_or(&0);
            let here = search.found.iter().filter(|f| f.kind == *kind).count();
            console.say(format!("{kind:<11} {count:>6} terms   found here {here}   at the control {there} of {count}"));
        }
        console.say(format!(
            "{} terms were too short or too common to mean anything; {:.1e} findings were to be expected by chance, if the text, \
             digits, hex and base64 here were random characters",
            search.too_short, search.expected_by_chance
        ));
        for finding in search.found.iter().take(TOLD) {
            let shown = finding.term.as_ref().map(|term| format!(" {term}")).unwrap_or_default();
            let row = finding.spot.row.map(|row| format!(", row {row}")).unwrap_or_default();
            console.say(format!(
                "FOUND term {}{shown} ({}, as {}) in {}{row}, byte {}",
                finding.number, finding.kind, finding.encoding, finding.place, finding.spot.offset
            ));
        }
    }
    tell_links(&inspection.linkability, console);
}

fn tell_links(links: &Linkability, console: &Console) {
    console.say(format!(
        "{} cases, {} of them comparable, {} values of 8 bytes or more: {} links",
        links.cases,
        links.compared,
        links.values,
        links.links.len()
    ));
    if links.compared == 0 {
        console.say("NOTHING WAS COMPARED: it takes three cases of a kind, or --link and --other");
    }
    for kind in links.kinds.iter().filter(|kind| !kind.compared) {
        let of = &kind.kind;
        let what = format!("{} in attempt {}, with {}", of.state, of.attempt, of.messages.join(", "));
        console.say(format!(
            "NOT COMPARED with each other: {} from {} to {} ({what}): it takes three of a kind",
            kind.cases, of.source, of.destination
        ));
    }
    for link in links.links.iter().take(TOLD) {
        console.say(format!("LINK {}: {} bytes in {}", link.cases.join(" and "), link.bytes, link.places.join(", ")));
    }
}

fn conclude(inspection: &Inspection) -> Result<Exit, Failure> {
    if let Some(search) = &inspection.search {
        if let Some(finding) = search.found.first() {
            let said =
                format!("something of the record is where it must not be: {} in {}", finding.kind, finding.place);
            return Err(Failure::failed(said).hint("take this as an incident: docs/OPERATIONS.md"));
        }
        if !search.control.unproven.is_empty() {
            let kinds = search.control.unproven.join(", ");
            return Err(Failure::failed(format!(
                "the control finds nothing of: {kinds}; the search proves nothing about it"
            ))
            .hint("name with --control a folder that does hold this record"));
        }
    }
    if !inspection.linkability.links.is_empty() {
        return Err(Failure::failed("cases share a value that others of their kind do not: they can be linked"));
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_planted_in_utf_16_is_found_at_its_offset_in_a_folder_within() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let searcher = Searcher::new(&[Term { kind: "name", bytes: b"Okonkwo-Lovelace".to_vec(), is_text: true }]);
        fs::write(deep.join("log"), "nothing of anybody").unwrap();
        let mut hits = Hits::new();
        search_place(&searcher, folder.path(), &mut hits, None).await.unwrap();
        assert!(hits.is_empty());
        let wide: Vec<u8> = "Okonkwo-Lovelace".encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(deep.join("log"), [b"log: ", &wide[..]].concat()).unwrap();
        search_place(&searcher, folder.path(), &mut hits, None).await.unwrap();
        let spots: Vec<_> = hits.iter().map(|((hit, _), spot)| (hit.encoding, *spot)).collect();
        assert_eq!(spots, [("utf-16", Spot { row: None, offset: 5 })]);
    }

    #[test]
    fn a_finding_is_told_without_its_term() {
        let spot = Spot { row: Some(3), offset: 7 };
        let finding = Finding { number: 1, term: None, kind: "name", encoding: "hex", place: "log".to_owned(), spot };
        let told = serde_json::json!({ "number": 1, "kind": "name", "encoding": "hex", "place": "log", "row": 3, "offset": 7 });
        assert_eq!(serde_json::to_value(&finding).unwrap(), told);
    }
}
