//! Who looked at a record, as the hospitals wrote it down: `disclosures`, and the part of it that a receipt shows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::messages::{Disclosure, Purpose};
use waybill_wallet::{Received, Wallet};

use super::session::{Session, wallet_failure};
use crate::courier::now;
use crate::failure::{Exit, Failure};
use crate::when::moment;

/// Most entries of one hospital that are kept: the newest.
const MOST_ENTRIES: usize = 10_000;
/// Most questions with which the end of a longer list is looked for.
const MOST_PROBES: u32 = 128;
/// How long a hospital is asked who looked.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is written down when a record leaves or arrives.
const TRANSFERS: [&str; 2] = ["record-sent", "record-received"];

/// One entry of who looked.
#[derive(Clone, Serialize)]
pub struct LookView {
    /// At which hospital.
    pub at: String,
    /// Its number in that hospital's list.
    pub number: u64,
    /// When. Units: unix seconds.
    pub time: u64,
    /// In which role.
    pub role: String,
    /// What was done.
    pub action: String,
    /// For which case.
    pub case: Option<String>,
    /// The other hospital of that case.
    pub counterpart: Option<String>,
    /// Whether it succeeded, was denied or failed.
    pub outcome: String,
}

impl LookView {
    fn of(at: &HospitalId, entry: &Disclosure) -> Self {
        Self {
            at: at.to_string(),
            number: entry.number,
            time: entry.time.0,
            role: entry.role.clone(),
            action: entry.action.clone(),
            case: entry.case.map(|case| case.to_string()),
            counterpart: entry.counterpart.as_ref().map(ToString::to_string),
            outcome: entry.outcome.clone(),
        }
    }

    fn line(&self) -> String {
        let time = moment(Timestamp(self.time));
        format!("{time}  {}  {}: {} ({})", self.at, self.role, self.action, self.outcome)
    }
}

/// A case of this patient's record that is none of this wallet's.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ForeignCase {
    /// Which.
    pub case: String,
    /// At which hospital it is written down.
    pub at: String,
    /// The other hospital.
    pub counterpart: Option<String>,
    /// When it was first written down there. Units: unix seconds.
    pub first: u64,
    /// What was done, in order, each once.
    pub actions: Vec<String>,
    /// Whether a record left or arrived for it.
    pub transferred: bool,
}

impl ForeignCase {
    fn line(&self) -> String {
        let what = if self.transferred { "RECORD MOVED" } else { "CASE" };
        let with = self.counterpart.as_deref().unwrap_or("a hospital that is not named");
        let time = moment(Timestamp(self.first));
        let actions = self.actions.join(", ");
        format!(
            "!! {what}, NOT ASKED FOR BY THIS WALLET: {time}, {}, with {with}: {actions}; case {}",
            self.at, self.case
        )
    }
}

/// The list of one hospital, or as much of it as is kept.
#[derive(Clone, Serialize)]
pub struct Trail {
    /// Which hospital.
    pub at: String,
    /// The newest entries, newest first.
    pub entries: Vec<LookView>,
    /// How many older ones the hospital has that are not among them.
    pub older: u64,
}

/// What hospitals say of who looked.
#[derive(Default, Serialize)]
pub struct Looks {
    /// The entries that are shown: for a receipt in the order they happened.
    pub entries: Vec<LookView>,
    /// Cases of this record, of any time, that this wallet never began.
    pub not_asked_for: Vec<ForeignCase>,
    /// How many entries there are beside those that are shown.
    pub not_shown: u64,
    /// How many older entries were not even read.
    pub not_read: u64,
    /// Hospitals that did not say, with the reason.
    pub unknown: Vec<String>,
}

impl Looks {
    /// Adds what is to be shown of hospitals' lists to a page.
    pub fn write(&self, out: &mut String) {
        for look in &self.entries {
            let _ = writeln!(out, "  {}", look.line());
        }
        for unknown in &self.unknown {
            let _ = writeln!(out, "  not known at {unknown}");
        }
        if self.entries.is_empty() && self.unknown.is_empty() {
            let _ = writeln!(out, "  nobody, say both hospitals");
        }
        for case in &self.not_asked_for {
            let _ = writeln!(out, "{}", case.line());
        }
        if !self.not_asked_for.is_empty() {
            let _ = writeln!(out, "!! {FOREIGN_ADVICE}");
        }
        if self.not_shown > 0 {
            let _ =
                writeln!(out, "  {} more entries are not of this case: waybill patient disclosures", self.not_shown);
        }
        if self.not_read > 0 {
            let _ = writeln!(out, "  CUT: {} older entries were not read; ask the hospital for them", self.not_read);
        }
    }
}

const FOREIGN_ADVICE: &str =
    "Somebody else may hold a key to this record: ask at that hospital which keys are registered for it, and by whom.";

/// `waybill patient disclosures`.
///
/// # Errors
/// [`Failure`]; a hospital that does not say is named, and a failure only if none does.
pub async fn show(session: &mut Session, at: Option<&str>) -> Result<Exit, Failure> {
    let hospitals: Vec<HospitalId> = match at {
        Some(at) => vec![session.hospital(at)?.hospital.clone()],
        None => session.wallet.contacts().iter().map(|contact| contact.hospital.clone()).collect(),
    };
    if hospitals.is_empty() {
        return Err(Failure::failed("this wallet is registered at no hospital")
            .hint("enrol with the code of a hospital: waybill patient enrol"));
    }
    let (trails, unknown) = trails(session, &hospitals).await?;
    let not_asked_for = foreign(&trails, &own_cases(&session.wallet));
    session.console.json(&serde_json::json!({
        "hospitals": trails, "not_asked_for": not_asked_for, "unknown": unknown,
    }));
    let mut out = String::new();
    for trail in &trails {
        let _ = writeln!(out, "{} has written down, newest first:", trail.at);
        trail.entries.iter().for_each(|look| {
            let case = look.case.as_deref().map(|case| format!("  case {case}")).unwrap_or_default();
            let _ = writeln!(out, "  {}{case}", look.line());
        });
        if trail.entries.is_empty() {
            let _ = writeln!(out, "  nothing");
        }
        if trail.older > 0 {
            let _ = writeln!(out, "  CUT: {} older entries are not shown; ask the hospital for them", trail.older);
        }
    }
    unknown.iter().for_each(|unknown| {
        let _ = writeln!(out, "Not known at {unknown}");
    });
    not_asked_for.iter().for_each(|case| {
        let _ = writeln!(out, "{}", case.line());
    });
    if !not_asked_for.is_empty() {
        let _ = writeln!(out, "!! {FOREIGN_ADVICE}");
    }
    session.console.say(out.trim_end());
    if trails.is_empty() {
        Err(Failure::failed("no hospital said who looked").hint("try again later"))
    } else {
        Ok(Exit::Success)
    }
}

/// Asks both hospitals of a case who looked: what happened for this case, what happened since it began for none, and what happened at
/// any time for a case that this wallet never began.
///
/// # Errors
/// [`Failure`] of the wallet itself.
pub async fn who_looked(
    session: &mut Session,
    at: &[HospitalId],
    begun: Timestamp,
    proof: Option<&str>,
) -> Result<Looks, Failure> {
    let (trails, unknown) = trails(session, at).await?;
    let not_asked_for = foreign(&trails, &own_cases(&session.wallet));
    let not_read = trails.iter().map(|trail| trail.older).sum();
    let (mut entries, other): (Vec<_>, Vec<_>) =
        trails.into_iter().flat_map(|trail| trail.entries).partition(|look| match &look.case {
            Some(case) => Some(case.as_str()) == proof,
            None => look.time >= begun.0,
        });
    entries.sort_by_key(|look| (look.time, look.number));
    Ok(Looks { entries, not_asked_for, not_shown: other.len() as u64, not_read, unknown })
}

/// The lists of hospitals, and who did not give theirs.
async fn trails(session: &mut Session, at: &[HospitalId]) -> Result<(Vec<Trail>, Vec<String>), Failure> {
    let (mut trails, mut unknown) = (Vec::new(), Vec::new());
    for hospital in at {
        let progress = session.console.progress(format!("asking {hospital} who looked"));
        let read = newest(async |after| page(session, hospital, after).await).await;
        drop(progress);
        match read {
            Ok((entries, older)) => {
                let entries = entries.iter().rev().map(|entry| LookView::of(hospital, entry)).collect();
                trails.push(Trail { at: hospital.to_string(), entries, older });
            }
            Err(failure) => unknown.push(format!("{hospital}: {failure}")),
        }
    }
    Ok((trails, unknown))
}

/// The ids of every case that this wallet began.
fn own_cases(wallet: &Wallet) -> BTreeSet<String> {
    let proofs = wallet.cases().iter().map(|case| case.proof).chain(wallet.closed().iter().map(|case| case.proof));
    proofs.flatten().map(|proof| proof.to_string()).collect()
}

/// The cases in these lists that are not this wallet's own, oldest first.
fn foreign(trails: &[Trail], own: &BTreeSet<String>) -> Vec<ForeignCase> {
    let mut found: BTreeMap<(&str, &str), ForeignCase> = BTreeMap::new();
    for look in trails.iter().flat_map(|trail| trail.entries.iter().rev()) {
        let Some(case) = look.case.as_deref().filter(|case| !own.contains(*case)) else { continue };
        let entry = found.entry((&look.at, case)).or_insert_with(|| ForeignCase {
            case: case.to_owned(),
            at: look.at.clone(),
            counterpart: look.counterpart.clone(),
            first: look.time,
            actions: Vec::new(),
            transferred: false,
        });
        entry.transferred |= TRANSFERS.contains(&look.action.as_str());
        if !entry.actions.contains(&look.action) {
            entry.actions.push(look.action.clone());
        }
    }
    let mut found: Vec<ForeignCase> = found.into_values().collect();
    found.sort_by_key(|case| case.first);
    found
}

/// One page of a hospital's list: the entries after a number, and whether there are more.
async fn page(session: &mut Session, hospital: &HospitalId, after: u64) -> Result<(Vec<Disclosure>, bool), Failure> {
    session.wallet.ask(now(), hospital, Purpose::Disclosures { after }).map_err(wallet_failure)?;
    let answer = session.answer(PATIENCE, |received| match received {
        Received::Disclosures { hospital: at, entries, more } if at == hospital => Some(Ok((entries.clone(), *more))),
        Received::LoginRefused { hospital: at, code, case: None, .. } if at == hospital => Some(Err(*code)),
        _ => None,
    });
    answer.await?.map_err(|code| Failure::failed(code.sentence()))
}

/// The newest entries of a list in its order, and how many older ones there are.
///
/// A list is read from its oldest entry; where it is long, its end is looked for first, by its numbers, which have no gaps. However
/// a hospital answers, the questions are bounded.
async fn newest(
    mut page: impl AsyncFnMut(u64) -> Result<(Vec<Disclosure>, bool), Failure>,
) -> Result<(VecDeque<Disclosure>, u64), Failure> {
    let (all, more) = read_on(&mut page, 0, MOST_ENTRIES).await?;
    let most = MOST_ENTRIES as u64;
    let Some(last) = all.back().map(|entry| entry.number).filter(|_| more) else { return Ok((all, 0)) };
    let (mut least, mut beyond) = (last, u64::MAX);
    // There is an entry `least`, and none after `beyond`.
    let mut probes = 0;
    while least < beyond && probes < MOST_PROBES {
        probes += 1;
        let after = if beyond == u64::MAX { least.saturating_mul(2) } else { least + (beyond - least) / 2 };
        let (entries, more) = page(after).await?;
        match entries.last().map(|entry| entry.number).filter(|number| *number > after) {
            Some(number) => least = number,
            None => beyond = after,
        }
        if !more && least > after {
            break;
        }
    }
    let from = least.saturating_sub(most);
    // Each of our own questions has made the list longer by one.
    let (mut all, _) = read_on(&mut page, from, 2 * MOST_ENTRIES).await?;
    let surplus = all.len().saturating_sub(MOST_ENTRIES);
    all.drain(..surplus);
    Ok((all, from + surplus as u64))
}

/// Reads pages from a number on until there are no more or that many, and whether there are more.
async fn read_on(
    page: &mut impl AsyncFnMut(u64) -> Result<(Vec<Disclosure>, bool), Failure>,
    from: u64,
    enough: usize,
) -> Result<(VecDeque<Disclosure>, bool), Failure> {
    let mut all: VecDeque<Disclosure> = VecDeque::new();
    loop {
        let after = all.back().map_or(from, |entry| entry.number);
        let (entries, more) = page(after).await?;
        // A hospital that gives the same page again and again would keep us for ever.
        let grows = entries.last().is_some_and(|last| last.number > after);
        all.extend(entries);
        if !more || !grows || all.len() >= enough {
            return Ok((all, more && grows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Disclosure {
        Disclosure {
            number,
            time: Timestamp(number),
            role: "clinician".to_owned(),
            action: "read-record".to_owned(),
            case: None,
            counterpart: None,
            outcome: "done".to_owned(),
        }
    }

    /// Reads a list of so many entries; gives the first and last number, how many are older, and the questions asked.
    async fn read(length: u64) -> (u64, u64, u64, u32) {
        let mut asked = 0;
        let (all, older) = newest(async |after| {
            asked += 1;
            let end = length.min(after.saturating_add(500));
            Ok(((after.saturating_add(1)..=end).map(entry).collect(), end < length))
        })
        .await
        .unwrap();
        let number = |entry: Option<&Disclosure>| entry.map_or(0, |entry| entry.number);
        assert!(all.iter().zip(all.iter().skip(1)).all(|(a, b)| a.number + 1 == b.number));
        (number(all.front()), number(all.back()), older, asked)
    }

    #[tokio::test]
    async fn of_a_long_list_the_newest_are_kept_and_the_rest_is_counted() {
        assert_eq!(read(0).await, (0, 0, 0, 1));
        assert_eq!(read(700).await, (1, 700, 0, 2));
        assert_eq!(read(10_000).await, (1, 10_000, 0, 20));
        for length in [10_001, 10_499, 20_000, 123_456, 5_000_000] {
            let (first, last, older, asked) = read(length).await;
            assert_eq!((last, older, first), (length, length - 10_000, length - 9_999), "{length}");
            assert!(asked < 100, "{length}: {asked}");
        }
    }

    #[tokio::test]
    async fn a_hospital_that_answers_anyhow_does_not_keep_us() {
        let mut asked = 0;
        let same = newest(async |_| {
            asked += 1;
            Ok((vec![entry(1)], true))
        });
        same.await.unwrap();
        assert_eq!(asked, 2);
        let mut asked = 0;
        let endless = newest(async |after: u64| {
            asked += 1;
            Ok((vec![entry(after.saturating_add(1))], true))
        });
        let (all, _) = endless.await.unwrap();
        assert!(all.len() <= MOST_ENTRIES && asked <= 3 * MOST_ENTRIES as u32 + MOST_PROBES, "{asked}");
    }

    #[test]
    fn cases_of_others_are_told_once_with_what_happened() {
        let look = |case: &str, action: &str, time| LookView {
            at: "hospital-a.example".to_owned(),
            number: time,
            time,
            role: "system".to_owned(),
            action: action.to_owned(),
            case: (!case.is_empty()).then(|| case.to_owned()),
            counterpart: Some("hospital-b.example".to_owned()),
            outcome: "done".to_owned(),
        };
        let entries = vec![
            look("", "vouched", 6),
            look("theirs", "record-sent", 5),
            look("mine", "record-sent", 4),
            look("tried", "requested", 3),
            look("theirs", "requested", 2),
            look("theirs", "requested", 1),
        ];
        let trail = Trail { at: "hospital-a.example".to_owned(), entries, older: 0 };
        let found = foreign(&[trail], &BTreeSet::from(["mine".to_owned()]));
        let told: Vec<_> = found
            .iter()
            .map(|case| (case.case.as_str(), case.first, case.actions.join(","), case.transferred))
            .collect();
        let expected =
            [("theirs", 1, "requested,record-sent".to_owned(), true), ("tried", 3, "requested".to_owned(), false)];
        assert_eq!(told, expected);
        let looks = Looks { not_asked_for: found, ..Looks::default() };
        let mut page = String::new();
        looks.write(&mut page);
        assert!(
            page.contains("!! RECORD MOVED, NOT ASKED FOR BY THIS WALLET") && page.contains("case theirs"),
            "{page}"
        );
    }
}
