//! What a hospital holds, what would move and what would stay: `preview`, `items`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::messages::{Item, KeptBack, Preview, Purpose};
use waybill_protocol::rejection::Code;
use waybill_record::hides::Hides;
use waybill_record::mentions::{NOT_SEARCHED, SEARCHED, read_line};
use waybill_record::scope::Scope;
use waybill_record::types::{ResourceType, SAFETY_TYPES};
use waybill_wallet::Received;
use waybill_wallet::summary::reason_in_words;

use super::session::{ANSWER, Session, wallet_failure};
use super::words;
use crate::args::PartArgs;
use crate::console::Console;
use crate::courier::now;
use crate::failure::{Exit, Failure};
use crate::when::moment;

/// How long the destination is asked for its limits.
const BRIEFLY: Duration = Duration::from_secs(15);
/// How many places a hidden item is shown to be mentioned in, for people; JSON has all that the hospital named.
const SHOWN_MENTIONS: usize = 8;

/// Which part of a record, read from the command line.
#[derive(Debug, Clone)]
pub struct Part {
    /// What may travel.
    pub scope: Scope,
    /// But for these items.
    pub hides: Hides,
}

impl Part {
    /// Reads it.
    ///
    /// # Errors
    /// [`Failure`] with exit code 2.
    pub fn read(args: &PartArgs) -> Result<Self, Failure> {
        let scope = args.scope.as_deref().map_or_else(|| Ok(Scope::full()), str::parse);
        let scope = scope.map_err(|e| {
            Failure::usage("--scope cannot be read")
                .caused_by(e)
                .hint("waybill patient preview --help says what a scope is made of")
        })?;
        let hides = Hides::parse(args.hide.iter().map(String::as_str)).map_err(|e| {
            Failure::usage("--hide cannot be read")
                .caused_by(e)
                .hint("waybill patient items --at A TYPE lists what there is to hide")
        })?;
        Ok(Self { scope, hides })
    }

    /// The safety-relevant types of which this might leave something behind, whatever the record holds.
    #[must_use]
    pub fn may_withhold(&self) -> Vec<&'static str> {
        let all_of = |name: &str| format!("types={name};labels=*").parse::<Scope>().ok();
        let hidden = |name: &str| self.hides.items().iter().any(|item| item.resource_type.as_str() == name);
        SAFETY_TYPES
            .into_iter()
            .filter(|name| hidden(name) || !all_of(name).is_some_and(|all| all.is_within(&self.scope)))
            .collect()
    }
}

/// Counts of one type.
#[derive(Default, Serialize)]
pub struct TypeView {
    /// How many are held.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// How many would move.
    pub moves: u64,
    /// Their bytes.
    pub moves_bytes: u64,
    /// How many would stay, by reason.
    pub stays: BTreeMap<String, u64>,
}

/// One place where a hidden item is still mentioned.
#[derive(Serialize)]
pub struct MentionView {
    /// The item that mentions it.
    pub item: String,
    /// How it was found: `reference`, `code` or `text`.
    pub found: String,
    /// In which element; empty where the hospital does not say.
    pub at: String,
}

impl MentionView {
    fn of(line: &str) -> Self {
        let (item, found, at) = read_line(line);
        Self { item: item.to_owned(), found: found.to_owned(), at: at.to_owned() }
    }
}

/// What becomes of one hidden item.
#[derive(Serialize)]
pub struct HiddenView {
    /// `Type/id`.
    pub item: String,
    /// Whether the record holds it at all.
    pub held: bool,
    /// Where it is still mentioned: the first ones.
    pub mentions: Vec<MentionView>,
    /// In how many items.
    pub mentioned_total: u64,
}

/// A number of resources of one type, with a status where there is one.
#[derive(Serialize)]
pub struct CountView {
    /// FHIR resource type.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How many.
    pub count: u64,
}

/// A preview as reports show it; the names are stable.
#[derive(Serialize)]
pub struct PreviewView {
    /// The hospital that holds the record.
    pub hospital: String,
    /// When it was counted. Units: unix seconds.
    pub at: u64,
    /// What may travel, in the words of a scope.
    pub scope: String,
    /// Counts by type.
    pub types: BTreeMap<String, TypeView>,
    /// What was to be hidden.
    pub hidden: Vec<HiddenView>,
    /// Where mentions of it were not looked for; empty where nothing was to be hidden.
    pub not_searched: Vec<&'static str>,
    /// Safety-relevant types of which something would stay.
    pub warnings: Vec<CountView>,
    /// What is not final yet.
    pub pending: Vec<CountView>,
    /// What would travel, padded. Units: bytes.
    pub stream_bytes: u64,
    /// The largest record that the hospital sends. Units: bytes.
    pub largest_bytes: u64,
    /// The hospital that is to have it, where it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationView>,
}

/// What the destination takes.
#[derive(Serialize)]
pub struct DestinationView {
    /// Which.
    pub hospital: String,
    /// The largest record that it accepts. Units: bytes; `null` where it does not say.
    pub largest_bytes: Option<u64>,
    /// Whether the record fits; `null` where it does not say.
    pub fits: Option<bool>,
}

impl PreviewView {
    /// Reads a preview.
    #[must_use]
    pub fn of(hospital: &HospitalId, scope: &Scope, preview: &Preview) -> Self {
        let mut types: BTreeMap<String, TypeView> = BTreeMap::new();
        for held in &preview.held {
            let entry = types.entry(held.resource_type.clone()).or_default();
            (entry.held, entry.held_bytes) = (held.count, held.size_bytes);
        }
        for moves in &preview.offered {
            let entry = types.entry(moves.resource_type.clone()).or_default();
            (entry.moves, entry.moves_bytes) = (moves.count, moves.size_bytes);
        }
        for kept in &preview.kept {
            *types.entry(kept.resource_type.clone()).or_default().stays.entry(kept.reason.clone()).or_default() +=
                kept.count;
        }
        let hidden = preview.hidden.iter().map(|item| HiddenView {
            item: item.item.clone(),
            held: item.held,
            mentions: item.mentioned_in.iter().map(|line| MentionView::of(line)).collect(),
            mentioned_total: item.mentioned_total,
        });
        let warnings = preview.warnings.iter().map(|warning| CountView {
            resource_type: warning.resource_type.clone(),
            status: None,
            count: warning.count,
        });
        let pending = preview.pending.iter().map(|item| CountView {
            resource_type: item.resource_type.clone(),
            status: Some(item.status.clone()),
            count: item.count,
        });
        Self {
            hospital: hospital.to_string(),
            at: preview.at.0,
            scope: scope.to_string(),
            types,
            hidden: hidden.collect(),
            not_searched: if preview.hidden.is_empty() { Vec::new() } else { NOT_SEARCHED.to_vec() },
            warnings: warnings.collect(),
            pending: pending.collect(),
            stream_bytes: preview.stream_bytes,
            largest_bytes: preview.largest_bytes,
            destination: None,
        }
    }

    /// What would stay, by type and reason.
    #[must_use]
    pub fn kept(&self) -> Vec<KeptBack> {
        let kept = self.types.iter().flat_map(|(name, counts)| {
            counts.stays.iter().map(|(reason, count)| KeptBack {
                resource_type: name.clone(),
                reason: reason.clone(),
                count: *count,
            })
        });
        kept.collect()
    }

    /// Whether the record is larger than one of the hospitals handles.
    #[must_use]
    pub fn too_large(&self) -> Option<&str> {
        if self.stream_bytes > self.largest_bytes {
            return Some(&self.hospital);
        }
        self.destination.as_ref().filter(|to| to.fits == Some(false)).map(|to| to.hospital.as_str())
    }

    /// Says all of it to people.
    pub fn tell(&self, console: Console) {
        let sum = |count: fn(&TypeView) -> u64| self.types.values().map(count).sum::<u64>();
        console.say(format!("{} at {}:", self.hospital, moment(waybill_protocol::ids::Timestamp(self.at))));
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "type",
            "held",
            "bytes",
            "would move",
            "would stay",
        ]);
        for (name, counts) in &self.types {
            let stays: Vec<String> =
                counts.stays.iter().map(|(reason, count)| format!("{count} {}", reason_in_words(reason))).collect();
            table.add_row([
                name.clone(),
                counts.held.to_string(),
                counts.held_bytes.to_string(),
                counts.moves.to_string(),
                stays.join(", "),
            ]);
        }
        table.add_row([
            "all".to_owned(),
            sum(|t| t.held).to_string(),
            sum(|t| t.held_bytes).to_string(),
            sum(|t| t.moves).to_string(),
            sum(|t| t.stays.values().sum()).to_string(),
        ]);
        for column in 1..=3 {
            table.column_mut(column).expect("the table has five columns").set_cell_alignment(CellAlignment::Right);
        }
        console.say(table.to_string());
        let whole = self.scope == Scope::full().to_string();
        console.say(format!("Allowed to move: {}", if whole { "the whole record" } else { &self.scope }));
        for pending in &self.pending {
            let status = pending.status.as_deref().unwrap_or_default();
            console.say(format!(
                "Not final yet: {} {} ({status}); what comes later does not follow by itself.",
                pending.count, pending.resource_type
            ));
        }
        self.tell_sizes(console);
        self.tell_hidden(console);
        self.tell_warnings(console);
    }

    fn tell_sizes(&self, console: Console) {
        console.say(format!(
            "Sealed it is {} bytes; {} sends at most {}.",
            self.stream_bytes, self.hospital, self.largest_bytes
        ));
        if let Some(to) = &self.destination {
            match to.largest_bytes {
                Some(largest) => console.say(format!("{} accepts at most {largest} bytes.", to.hospital)),
                None => console.say(format!("{} does not say how large a record it accepts.", to.hospital)),
            }
        }
        if let Some(hospital) = self.too_large() {
            console.say(format!(
                "TOO LARGE for {hospital}: move it in parts, for example with --scope 'from=...;to=...'."
            ));
        }
    }

    fn tell_hidden(&self, console: Console) {
        for hidden in &self.hidden {
            if !hidden.held {
                console.say(format!("Hidden: {} - {} holds no such item.", hidden.item, self.hospital));
                continue;
            }
            if hidden.mentioned_total == 0 {
                console.say(format!("Hidden: {} - no mention was found in what moves.", hidden.item));
                continue;
            }
            let found =
                hidden.mentions.iter().map(|mention| mention.item.as_str()).collect::<BTreeSet<_>>().len() as u64;
            console.say(format!(
                "Hidden: {} - STILL MENTIONED in {} item(s) that move. Hide those too, or let them go:",
                hidden.item, hidden.mentioned_total
            ));
            for mention in hidden.mentions.iter().take(SHOWN_MENTIONS) {
                console.say(format!("  {} ({}: {})", mention.item, mention.found, mention.at));
            }
            if hidden.mentions.len() > SHOWN_MENTIONS || found < hidden.mentioned_total {
                console.say("  ... and more; --json has all that the hospital named.");
            }
        }
        if !self.not_searched.is_empty() {
            console.say(format!("Looked for: {SEARCHED}."));
            console.say(format!("NOT looked into: {}.", self.not_searched.join("; ")));
        }
    }

    fn tell_warnings(&self, console: Console) {
        if self.warnings.is_empty() {
            return;
        }
        let list: Vec<String> = self.warnings.iter().map(|w| format!("{} {}", w.count, w.resource_type)).collect();
        tell_danger(console, &list.join(", "));
    }
}

/// The loud warning.
pub fn tell_danger(console: Console, what: &str) {
    let line = "!".repeat(76);
    console.say(format!(
        "{line}\n!! WARNING: allergies, medications or alerts would stay behind:\n!!   {what}\n\
         !! Whoever treats you there will not know what is missing. This can do harm.\n{line}"
    ));
}

/// Asks a hospital for a preview; its refusal is an answer too.
///
/// # Errors
/// [`Failure`] when it does not answer in time.
pub async fn ask(
    session: &mut Session,
    hospital: &HospitalId,
    part: &Part,
    patience: Duration,
) -> Result<Result<Preview, Code>, Failure> {
    let purpose = Purpose::Preview { scope: part.scope.clone(), hides: part.hides.clone() };
    session.wallet.ask(now(), hospital, purpose).map_err(wallet_failure)?;
    let progress = session.console.progress(format!("asking {hospital} what it holds"));
    let answer = session.answer(patience, |received| match received {
        Received::Preview { hospital: at, preview } if at == hospital => Some(Ok(preview.clone())),
        Received::LoginRefused { hospital: at, code, case: None, .. } if at == hospital => Some(Err(*code)),
        _ => None,
    });
    let answer = answer.await;
    drop(progress);
    answer
}

/// As [`ask`], at the source and, for its limits, at the destination.
///
/// # Errors
/// [`Failure`] when the source does not answer.
pub async fn ask_both(
    session: &mut Session,
    source: &HospitalId,
    destination: Option<&HospitalId>,
    part: &Part,
) -> Result<Result<PreviewView, Code>, Failure> {
    let mut view = match ask(session, source, part, ANSWER).await? {
        Ok(preview) => PreviewView::of(source, &part.scope, &preview),
        Err(code) => return Ok(Err(code)),
    };
    if let Some(destination) = destination {
        // The destination never learns what is hidden.
        let open = Part { scope: part.scope.clone(), hides: Hides::default() };
        // That it does not say what it takes is no reason to stop: it refuses what is too large with a code of its own.
        let said = ask(session, destination, &open, BRIEFLY).await;
        let largest_bytes = said.ok().and_then(Result::ok).map(|preview| preview.largest_bytes);
        let fits = largest_bytes.map(|largest| view.stream_bytes <= largest);
        view.destination = Some(DestinationView { hospital: destination.to_string(), largest_bytes, fits });
    }
    Ok(Ok(view))
}

/// `waybill patient preview`.
///
/// # Errors
/// [`Failure`].
pub async fn show(session: &mut Session, at: &str, to: Option<&str>, part: &PartArgs) -> Result<Exit, Failure> {
    let part = Part::read(part)?;
    let source = session.hospital(at)?.hospital.clone();
    let destination = to.map(|to| session.hospital(to).map(|contact| contact.hospital.clone())).transpose()?;
    match ask_both(session, &source, destination.as_ref(), &part).await? {
        Ok(view) => {
            view.tell(session.console);
            session.console.json(&view);
            Ok(Exit::Success)
        }
        Err(code) => Err(refused(&source, code)),
    }
}

fn refused(hospital: &HospitalId, code: Code) -> Failure {
    Failure::failed(format!("{hospital} refuses: {} ({code})", code.sentence())).hint(words::advice(code))
}

/// One item as lists show it.
#[derive(Serialize)]
struct ItemView {
    item: String,
    date: Option<String>,
    title: Option<String>,
}

/// `waybill patient items`.
///
/// # Errors
/// [`Failure`].
pub async fn items(session: &mut Session, at: &str, resource_type: &str, most: usize) -> Result<Exit, Failure> {
    let hospital = session.hospital(at)?.hospital.clone();
    let Some(known) = ResourceType::parse(resource_type) else {
        return Err(Failure::usage(format!("`{resource_type}` is no FHIR resource type"))
            .hint(format!("`waybill patient preview --at {hospital}` lists the types there are")));
    };
    let (items, more) = all_items(session, &hospital, known.as_str(), most).await?;
    let views: Vec<ItemView> = items
        .into_iter()
        .map(|item| ItemView { item: format!("{}/{}", known.as_str(), item.id), date: item.date, title: item.title })
        .collect();
    session.console.json(&serde_json::json!({ "hospital": hospital.to_string(), "items": views, "more": more }));
    if views.is_empty() {
        session.console.say(format!("{hospital} holds no {resource_type} of yours."));
        return Ok(Exit::Success);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["date", "what", "to hide it"]);
    for view in &views {
        let (date, title) = (view.date.as_deref().unwrap_or(""), view.title.as_deref().unwrap_or(""));
        table.add_row([date, title, &format!("--hide {}", view.item)]);
    }
    session.console.say(table.to_string());
    if more {
        session.console.say(format!("There are more than {most}: see all with --most."));
    }
    Ok(Exit::Success)
}

/// The items of a type, page by page, and whether there are more than `most`.
async fn all_items(
    session: &mut Session,
    hospital: &HospitalId,
    resource_type: &str,
    most: usize,
) -> Result<(Vec<Item>, bool), Failure> {
    let mut all: Vec<Item> = Vec::new();
    loop {
        let after = all.last().map(|item| item.id.clone());
        let purpose = Purpose::Items { resource_type: resource_type.to_owned(), after: after.clone() };
        session.wallet.ask(now(), hospital, purpose).map_err(wallet_failure)?;
        let progress = session.console.progress(format!("{} items", all.len()));
        let answer = session.answer(ANSWER, |received| match received {
            Received::Items { hospital: at, items, more } if at == hospital => Some(Ok((items.clone(), *more))),
            Received::LoginRefused { hospital: at, code, case: None, .. } if at == hospital => Some(Err(*code)),
            _ => None,
        });
        let answer = answer.await;
        drop(progress);
        let (items, more) = answer?.map_err(|code| refused(hospital, code))?;
        // A hospital that gives the same page again and again would keep us for ever.
        let ends = !more || items.last().is_none_or(|last| Some(&last.id) <= after.as_ref());
        all.extend(items);
        if all.len() > most {
            all.truncate(most);
            return Ok((all, true));
        }
        if ends {
            return Ok((all, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_protocol::ids::Timestamp;
    use waybill_protocol::messages::{HiddenItem, PendingItems, SafetyWarning, TypeCount};

    fn part(scope: &str, hides: &[&str]) -> Part {
        Part { scope: scope.parse().unwrap(), hides: Hides::parse(hides.iter().copied()).unwrap() }
    }

    #[test]
    fn whatever_could_leave_safety_relevant_items_behind_is_noticed_without_asking_anybody() {
        assert!(part("types=*;labels=*", &["Condition/c1"]).may_withhold().is_empty());
        assert_eq!(part("types=*;labels=*", &["Flag/f1"]).may_withhold(), ["Flag"]);
        assert_eq!(part("types=!AllergyIntolerance;labels=*", &[]).may_withhold(), ["AllergyIntolerance"]);
        assert_eq!(part("types=Condition;labels=*", &[]).may_withhold(), SAFETY_TYPES);
        assert_eq!(part("types=*;labels=*;from=2015-01-01", &[]).may_withhold(), SAFETY_TYPES);
    }

    #[test]
    fn a_view_keeps_every_number_and_says_what_does_not_fit() {
        let count = |name: &str, count| TypeCount { resource_type: name.to_owned(), count, size_bytes: count * 100 };
        let preview = Preview {
            at: Timestamp(1_800_000_000),
            held: vec![count("Condition", 5), count("Flag", 1)],
            offered: vec![count("Condition", 3)],
            kept: vec![
                KeptBack { resource_type: "Condition".to_owned(), reason: "hidden".to_owned(), count: 2 },
                KeptBack { resource_type: "Flag".to_owned(), reason: "type-not-in-scope".to_owned(), count: 1 },
            ],
            hidden: vec![HiddenItem {
                item: "Condition/c1".to_owned(),
                held: true,
                mentioned_in: vec!["Encounter/e1 code reasonCode[0].coding[0].code".to_owned()],
                mentioned_total: 3,
            }],
            warnings: vec![SafetyWarning { resource_type: "Flag".to_owned(), count: 1 }],
            pending: vec![PendingItems {
                resource_type: "Observation".to_owned(),
                status: "preliminary".to_owned(),
                count: 4,
            }],
            stream_bytes: 1_024,
            largest_bytes: 2_048,
        };
        let hospital = HospitalId::parse("hospital-a.example").unwrap();
        let mut view = PreviewView::of(&hospital, &Scope::full(), &preview);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["types"]["Condition"]["stays"]["hidden"], 2);
        assert_eq!(json["types"]["Condition"]["moves"], 3);
        assert_eq!(json["types"]["Flag"]["held"], 1);
        assert_eq!(json["hidden"][0]["mentioned_total"], 3);
        let mention =
            serde_json::json!({ "item": "Encounter/e1", "found": "code", "at": "reasonCode[0].coding[0].code" });
        assert_eq!(json["hidden"][0]["mentions"], serde_json::json!([mention]));
        assert_eq!(json["not_searched"].as_array().unwrap().len(), NOT_SEARCHED.len());
        assert_eq!(json["warnings"][0]["type"], "Flag");
        assert_eq!(json["pending"][0]["status"], "preliminary");
        assert_eq!(view.kept(), preview.kept);
        assert_eq!(view.too_large(), None);
        view.destination =
            Some(DestinationView { hospital: "b".to_owned(), largest_bytes: Some(1_000), fits: Some(false) });
        assert_eq!(view.too_large(), Some("b"));
        view.largest_bytes = 1_023;
        assert_eq!(view.too_large(), Some("hospital-a.example"));
    }
}
