//! What an attack declares, what was seen of it, and whether the two agree.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use serde::Serialize;
use waybill_protocol::rejection::Code;

use super::scene::Scene;
use crate::failure::Failure;

/// One attack: who attacks with what, and how each of its tries must end. The table of the command, of the tests and of
/// `docs/ATTACKS.md`.
pub struct Attack {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is tried, in one sentence.
    pub what: &'static str,
    /// Who attacks, holding what.
    pub attacker: &'static str,
    /// What stops it, with the section of `docs/PROTOCOL.md`.
    pub stopped_by: &'static str,
    /// What is tried in order, and who must refuse it with which code.
    pub tries: &'static [Try],
    /// Plays it on a fresh network, and its unattacked twin.
    pub run: Play,
}

/// How an attack is played.
pub type Play = for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, Result<Finding, Failure>>;

/// One try of an attack: what is altered, and the refusal that it must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// What is altered.
    pub what: &'static str,
    /// Which party must refuse.
    pub by: &'static str,
    /// With which code.
    pub code: &'static str,
}

impl Try {
    /// A try that `by` must refuse with `code`.
    #[must_use]
    pub const fn new(what: &'static str, by: &'static str, code: &'static str) -> Self {
        Self { what, by, code }
    }
}

/// What was seen of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It was refused.
    Refused {
        /// By whom.
        by: String,
        /// With which code: the catalogue's, a problem document's, or a word of this command for what is no message.
        code: String,
        /// Where the refusal was read.
        shown_by: &'static str,
    },
    /// It was not refused; what happened instead.
    Passed(String),
}

impl Seen {
    /// A refusal.
    pub fn refused(by: &str, code: impl ToString, shown_by: &'static str) -> Self {
        Self::Refused { by: by.to_owned(), code: code.to_string(), shown_by }
    }
}

/// Bytes of a record, measured in one way twice: so that a zero says that nothing was read, not that nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// What somebody could read who may not, or what was filed where it does not belong.
    pub stolen: u64,
    /// What the same measure gives for the twin, or for whoever holds the right key.
    pub control: u64,
}

/// What playing an attack gave.
#[derive(Debug)]
pub struct Finding {
    /// What was seen, one for each declared try, in the same order.
    pub seen: Vec<Seen>,
    /// Bytes of a record; nothing where the attack, had it passed, would have brought no record to anybody before it is judged.
    pub read: Option<Measured>,
    /// Why the unattacked twin did not succeed; nothing when it did.
    pub twin_failure: Option<String>,
}

impl Finding {
    /// A finding whose twin succeeded if `twin` holds; `what` says what it should have done.
    #[must_use]
    pub fn new(seen: Vec<Seen>, read: impl Into<Option<Measured>>, twin: bool, what: &str) -> Self {
        Self { seen, read: read.into(), twin_failure: (!twin).then(|| what.to_owned()) }
    }
}

/// One line of the result; the names are stable.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The attack.
    pub name: &'static str,
    /// Every try was refused by somebody.
    pub rejected: bool,
    /// With which codes, each once, joined by commas.
    pub code: String,
    /// The stages of these codes.
    pub stage: String,
    /// Bytes of a record that somebody could read who may not; `null` where none could be measured.
    pub record_bytes_read: Option<u64>,
    /// What the same measure gives for the twin, which may: it shows that the measure measures.
    pub twin_bytes_read: Option<u64>,
    /// The same without the attack came to its proper end.
    pub twin_succeeded: bool,
    /// Everything was as the attack declares it.
    pub as_expected: bool,
    /// Who refused.
    pub by: String,
    /// What is tried.
    pub what: &'static str,
    /// Who attacks.
    pub attacker: &'static str,
    /// The tries.
    pub tries: Vec<TryRow>,
    /// What went wrong, when something did.
    pub failure: Option<String>,
    /// How long it took.
    pub took_seconds: f64,
}

/// One try in the result.
#[derive(Debug, Clone, Serialize)]
pub struct TryRow {
    /// What was altered.
    pub what: &'static str,
    /// Who refused; empty when nobody did.
    pub by: String,
    /// The code; empty when nobody refused, then `passed` says what happened.
    pub code: String,
    /// The stage of the code.
    pub stage: String,
    /// Where it was read.
    pub shown_by: &'static str,
    /// What happened instead of a refusal.
    pub passed: Option<String>,
    /// Who was expected to refuse.
    pub expected_by: String,
    /// The expected code.
    pub expected_code: String,
}

impl TryRow {
    fn is_expected(&self) -> bool {
        self.by == self.expected_by && self.code == self.expected_code
    }
}

/// Refusal expected instead of the declared ones: it shows that the check can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Who must refuse.
    pub by: String,
    /// With which code.
    pub code: String,
}

impl std::str::FromStr for Expectation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (by, code) = text.split_once(':').ok_or("expected PARTY:CODE")?;
        Ok(Self { by: by.to_owned(), code: code.to_owned() })
    }
}

/// The stage a code belongs to: the catalogue's, or where a refusal that is no message arises.
#[must_use]
pub fn stage_of(code: &str) -> &'static str {
    if let Some(code) = Code::ALL.iter().find(|known| known.as_str() == code) {
        return code.stage().as_str();
    }
    match code {
        "log-behind-witness" | "crl-missing" | "crl-forged" => "start",
        "tls-alert" | "tls-broken" => "tls",
        "does-not-open" => "seal",
        "not-guessed" | "nothing-shared" => "search",
        "not-blamed" | "blames-destination" | "blames-source" => "evidence",
        "nothing-changed" => "replay",
        "alike" => "answer",
        "usage" => "command",
        _ => "http",
    }
}

/// Holds what was seen against what is expected.
#[must_use]
pub fn judge(
    attack: &'static Attack,
    instead: Option<&Expectation>,
    finding: Result<Finding, Failure>,
    took: Duration,
) -> Row {
    let mut row = Row {
        name: attack.name,
        rejected: false,
        code: String::new(),
        stage: String::new(),
        record_bytes_read: None,
        twin_bytes_read: None,
        twin_succeeded: false,
        as_expected: false,
        by: String::new(),
        what: attack.what,
        attacker: attack.attacker,
        tries: Vec::new(),
        failure: None,
        took_seconds: took.as_secs_f64(),
    };
    let finding = match finding {
        Ok(finding) => finding,
        Err(failure) => {
            row.failure = Some(failure.to_string());
            return row;
        }
    };
    let whole = finding.seen.len() == attack.tries.len();
    row.tries = attack.tries.iter().zip(finding.seen).map(|(tried, seen)| try_row(tried, instead, seen)).collect();
    row.rejected = whole && row.tries.iter().all(|tried| tried.passed.is_none());
    row.code = joined(row.tries.iter().map(|tried| tried.code.as_str()));
    row.stage = joined(row.tries.iter().map(|tried| tried.stage.as_str()));
    row.by = joined(row.tries.iter().map(|tried| tried.by.as_str()));
    row.record_bytes_read = finding.read.map(|read| read.stolen);
    row.twin_bytes_read = finding.read.map(|read| read.control);
    row.twin_succeeded = finding.twin_failure.is_none();
    row.failure = finding.twin_failure.map(|what| format!("the twin failed: {what}"));
    if !whole {
        row.failure = Some(format!("{} of {} tries were made", row.tries.len(), attack.tries.len()));
    } else if let Some(other) = row.tries.iter().find(|tried| !tried.is_expected()) {
        let seen = other.passed.clone().unwrap_or_else(|| format!("{} by {}", other.code, other.by));
        let expected = format!("{} by {}", other.expected_code, other.expected_by);
        row.failure = Some(format!("{}: expected {expected}, saw {seen}", other.what));
    } else if let Some(read) = finding.read.filter(|read| read.stolen > 0) {
        row.failure = Some(format!("{} bytes of a record could be read", read.stolen));
    } else if finding.read.is_some_and(|read| read.control == 0) && row.failure.is_none() {
        row.failure = Some("the measure finds nothing of the twin's record either".to_owned());
    }
    row.as_expected = row.failure.is_none();
    row
}

fn try_row(tried: &Try, instead: Option<&Expectation>, seen: Seen) -> TryRow {
    let (by, code, shown_by, passed) = match seen {
        Seen::Refused { by, code, shown_by } => (by, code, shown_by, None),
        Seen::Passed(what) => (String::new(), String::new(), "", Some(what)),
    };
    TryRow {
        what: tried.what,
        stage: if code.is_empty() { String::new() } else { stage_of(&code).to_owned() },
        by,
        code,
        shown_by,
        passed,
        expected_by: instead.map_or(tried.by, |other| &other.by).to_owned(),
        expected_code: instead.map_or(tried.code, |other| &other.code).to_owned(),
    }
}

/// Each word once, in the order of its first use.
fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    static ONE: Attack = Attack {
        name: "one",
        what: "",
        attacker: "",
        stopped_by: "",
        tries: &[Try::new("a", "hospital-a", "proof-spent")],
        run: |_| async { Ok(Finding::new(Vec::new(), None, true, "")) }.boxed_local(),
    };

    fn row(seen: Vec<Seen>, stolen: u64, twin: bool) -> Row {
        measured(seen, Measured { stolen, control: 7 }, twin)
    }

    fn measured(seen: Vec<Seen>, read: impl Into<Option<Measured>>, twin: bool) -> Row {
        judge(&ONE, None, Ok(Finding::new(seen, read, twin, "it stood still")), Duration::ZERO)
    }

    fn spent() -> Seen {
        Seen::refused("hospital-a", "proof-spent", "log")
    }

    #[test]
    fn only_the_declared_refusal_without_a_byte_read_and_with_its_twin_is_as_expected() {
        let good = row(vec![spent()], 0, true);
        assert!(good.as_expected && good.rejected && good.twin_succeeded);
        assert_eq!((good.code.as_str(), good.stage.as_str(), good.by.as_str()), ("proof-spent", "proof", "hospital-a"));
        let bad = [
            row(vec![Seen::refused("hospital-a", "proof-expired", "log")], 0, true),
            row(vec![Seen::refused("authority", "proof-spent", "log")], 0, true),
            row(vec![Seen::Passed("a manifest came".to_owned())], 0, true),
            row(Vec::new(), 0, true),
            row(vec![spent()], 1, true),
            row(vec![spent()], 0, false),
            measured(vec![spent()], Measured { stolen: 0, control: 0 }, true),
            judge(&ONE, None, Err(Failure::failed("no")), Duration::ZERO),
        ];
        assert!(bad.iter().all(|row| !row.as_expected && row.failure.is_some()));
        assert!(!bad[2].rejected && !bad[3].rejected && bad[0].rejected);
    }

    #[test]
    fn what_was_read_is_a_number_and_what_was_not_measured_is_none() {
        let row_of = |read: Option<Measured>| serde_json::to_value(measured(vec![spent()], read, true)).unwrap();
        let read = row_of(Some(Measured { stolen: 1_234, control: 9 }));
        assert_eq!((&read["record_bytes_read"], &read["twin_bytes_read"]), (&1_234.into(), &9.into()));
        assert_eq!((&read["as_expected"], read["failure"].is_string()), (&false.into(), true));
        let unmeasured = row_of(None);
        assert!(unmeasured["record_bytes_read"].is_null() && unmeasured["twin_bytes_read"].is_null());
        assert_eq!(unmeasured["as_expected"], true);
    }

    #[test]
    fn another_expectation_fails_what_was_as_declared() {
        let other: Expectation = "hospital-a:proof-expired".parse().unwrap();
        let row = judge(&ONE, Some(&other), Ok(Finding::new(vec![spent()], None, true, "")), Duration::ZERO);
        assert!(!row.as_expected && row.failure.unwrap().contains("proof-expired"));
        assert!("proof-expired".parse::<Expectation>().is_err());
    }
}
