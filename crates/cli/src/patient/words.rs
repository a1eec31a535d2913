//! Who must act, and what arrived, in words for people.

use serde::Serialize;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::messages::{EndState, Limits, Relation};
use waybill_protocol::patient::Contact;
use waybill_protocol::rejection::{Actor, Code};
use waybill_wallet::{Case, Notice, Received, Stage};

use crate::when::{day, moment};

/// In what capacity a wallet's owner acts at a hospital.
#[must_use]
pub fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::OneSelf => "the patient",
        Relation::Guardian => "parent or guardian",
        Relation::Deputy => "deputy",
        Relation::Executor => "executor",
        Relation::RegistrarAttested => "the patient, on a signed form",
    }
}

/// The same as a stable word.
#[must_use]
pub fn relation_word(relation: Relation) -> &'static str {
    match relation {
        Relation::OneSelf => "self",
        Relation::Guardian => "guardian",
        Relation::Deputy => "deputy",
        Relation::Executor => "executor",
        Relation::RegistrarAttested => "registrar-attested",
    }
}

/// What a key may decide.
#[must_use]
pub fn limits(limits: &Limits) -> String {
    let scope = if limits.scope.is_full() { "the whole record".to_owned() } else { limits.scope.to_string() };
    if limits.destinations.is_empty() {
        return format!("{scope}, to any hospital");
    }
    let names: Vec<&str> = limits.destinations.iter().map(|hospital| hospital.as_str()).collect();
    format!("{scope}, to {} only", names.join(" or "))
}

/// A hospital as lists show it.
#[derive(Debug, Serialize)]
pub struct ContactView {
    /// Its name.
    pub hospital: String,
    /// `self`, `guardian`, `deputy`, `executor` or `registrar-attested`.
    pub relation: &'static str,
    /// What may be decided there.
    pub limits: LimitsView,
    /// Until when the registration holds. Units: unix seconds.
    pub expires: u64,
    /// Whether that is over.
    pub expired: bool,
    /// The fingerprint of its pinned keys, hexadecimal.
    pub keys: String,
    /// The card, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
}

/// What a key may decide.
#[derive(Debug, Serialize)]
pub struct LimitsView {
    /// The largest scope.
    pub scope: String,
    /// The only destinations; empty for any.
    pub destinations: Vec<String>,
}

impl ContactView {
    /// Reads a contact.
    #[must_use]
    pub fn of(contact: &Contact, now: Timestamp, card: Option<String>) -> Self {
        let limits = LimitsView {
            scope: contact.limits.scope.to_string(),
            destinations: contact.limits.destinations.iter().map(ToString::to_string).collect(),
        };
        Self {
            hospital: contact.hospital.to_string(),
            relation: relation_word(contact.relation),
            limits,
            expires: contact.expires.0,
            expired: now > contact.expires,
            keys: contact.keys.thumb().to_string(),
            card,
        }
    }
}

/// How a case stands at a hospital, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Which.
    pub at: String,
    /// The state's name there; `unknown` where it knows no such case (yet), `no-answer` where nothing came.
    pub state: String,
    /// Where a code says more.
    pub code: Option<&'static str>,
}

/// An open case as lists show it.
#[derive(Debug, Serialize)]
pub struct OpenView {
    /// Its number in this wallet.
    pub case: u64,
    /// Always `open`.
    pub outcome: &'static str,
    /// Where the record comes from.
    pub source: String,
    /// Where it goes to.
    pub destination: String,
    /// The wallet's own stage: `awaiting-voucher`, `awaiting-proof`, `proof-held`, `awaiting-end` or `unacknowledged`.
    pub stage: &'static str,
    /// Whether the patient has asked to stop it.
    pub stopping: bool,
    /// What it waits for, in one sentence.
    pub waits_for: String,
    /// Who must act: `patient`, `source`, `destination`, `authority` or `nobody` (it passes).
    pub who: &'static str,
    /// When it began. Units: unix seconds.
    pub begun: u64,
    /// Until when it may happen. Units: unix seconds.
    pub expires: u64,
    /// The case's id, once there is a proof.
    pub proof: Option<String>,
    /// What both hospitals say.
    pub standings: Vec<Standing>,
    /// What went wrong on the way.
    pub notices: Vec<NoticeView>,
}

/// Something that went wrong on the way.
#[derive(Debug, Serialize)]
pub struct NoticeView {
    /// Who said so.
    pub from: String,
    /// The catalogue's code.
    pub code: &'static str,
    /// Its sentence.
    pub sentence: &'static str,
    /// Who can put it right.
    pub who: &'static str,
}

impl NoticeView {
    /// Reads a notice.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        let Notice { from, code, .. } = notice;
        Self { from: from.to_string(), code: code.as_str(), sentence: code.sentence(), who: code.actor().as_str() }
    }
}

impl OpenView {
    /// Reads an open case, with what the hospitals said of it.
    #[must_use]
    pub fn of(case: &Case, standings: &[Standing]) -> Self {
        let (waits_for, who) = waiting(case, standings);
        Self {
            case: case.number.ordinal(),
            outcome: "open",
            source: case.source.hospital.to_string(),
            destination: case.destination.hospital.to_string(),
            stage: case.stage.as_str(),
            stopping: case.is_stopping(),
            waits_for,
            who: who.as_str(),
            begun: case.begun.0,
            expires: case.draft().terms.expires.0,
            proof: case.proof.map(|proof| proof.to_string()),
            standings: standings.to_vec(),
            notices: case.notices.iter().map(NoticeView::of).collect(),
        }
    }

    /// Plain text, without a line break at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "Case {}: {} -> {}, open until {}",
                self.case,
                self.source,
                self.destination,
                moment(Timestamp(self.expires))
            ),
            format!("  {}", self.waits_for),
            format!("  Who must act: {}", self.actor()),
        ];
        for standing in &self.standings {
            let code = standing.code.map(|code| format!(" ({code})")).unwrap_or_default();
            lines.push(format!("  {} says: {}{code}", standing.at, state(&standing.state)));
        }
        for notice in &self.notices {
            lines.push(format!("  {} said: {} ({})", notice.from, notice.sentence, notice.code));
        }
        if let Some(proof) = &self.proof {
            lines.push(format!("  Id {proof}"));
        }
        lines.join("\n")
    }

    fn actor(&self) -> String {
        match self.who {
            "patient" => "you".to_owned(),
            "source" => format!("the staff of {}", self.source),
            "destination" => format!("the staff of {}", self.destination),
            "authority" => "the authority".to_owned(),
            _ => "nobody, it goes on by itself".to_owned(),
        }
    }
}

/// A hospital's state in words.
#[must_use]
pub fn state(word: &str) -> &str {
    match word {
        "awaiting-review" => "a person there must compare the two patients before anything leaves",
        "redeeming" => "everything was checked; the authority is asked for its grant",
        "granted" => "the record is being frozen and sealed",
        "lodged" => "everything was sent, sealed; the key is lodged with the authority",
        "attempt-failed" => "this attempt failed; another one follows by itself",
        "refused" => "refused before anything left",
        "requested" => "the source was asked for the record",
        "receiving" => "the sealed record is arriving",
        "delivered" => "every sealed byte is here; it waits for the key",
        "key-held" => "the key is here; the record is being checked and filed",
        "filed" => "the record is filed",
        "rejected" => "the record was turned away",
        "closed" => "the case is closed",
        "unknown" => "no such case (yet)",
        "no-answer" => "no answer yet",
        other => other,
    }
}

/// What an open case waits for, and who must act.
fn waiting(case: &Case, standings: &[Standing]) -> (String, Actor) {
    let (source, destination) = (&case.source.hospital, &case.destination.hospital);
    let at = |hospital: &str| standings.iter().find(|standing| standing.at == hospital).map(|s| s.state.as_str());
    match case.stage {
        Stage::AwaitingVoucher => {
            let resume = format!(
                "{source} must vouch for you. If it takes long: waybill patient migrate --resume {}",
                case.number
            );
            (resume, Actor::Nobody)
        }
        Stage::AwaitingProof
            if case.notices.iter().any(|n| matches!(n.code, Code::ProofMismatch | Code::LogEvidenceInvalid)) =>
        {
            (
                format!(
                    "The authority signed something else than you delegated. Nothing was consented to; give it up with `waybill patient stop {}` and tell both hospitals.",
                    case.number
                ),
                Actor::Authority,
            )
        }
        Stage::AwaitingProof => ("The authority must issue its proof.".to_owned(), Actor::Nobody),
        Stage::ProofHeld if case.is_stopping() => {
            ("You asked to stop it; nothing was consented to, and the authority ends it.".to_owned(), Actor::Nobody)
        }
        Stage::ProofHeld => {
            let number = case.number;
            (format!("Nothing moves before you consent: waybill patient migrate --resume {number}"), Actor::Patient)
        }
        Stage::Unacknowledged => (
            format!("{destination} was given the key and never said what became of the record; ask there."),
            Actor::Destination,
        ),
        Stage::AwaitingEnd if case.is_stopping() => {
            ("You asked to stop it; the authority decides who was faster.".to_owned(), Actor::Nobody)
        }
        Stage::AwaitingEnd => match (at(source.as_str()), at(destination.as_str())) {
            (Some("awaiting-review"), _) => {
                (format!("A person at {source} must compare the two patients before anything leaves."), Actor::Source)
            }
            (_, Some("key-held")) => {
                (format!("{destination} has the key; it checks and files the record."), Actor::Nobody)
            }
            (_, Some("delivered")) => {
                ("The record has arrived, sealed; the authority must release the key.".to_owned(), Actor::Nobody)
            }
            (_, Some("receiving")) => ("The sealed record is on its way.".to_owned(), Actor::Nobody),
            _ => match case.notices.iter().find(|notice| !notice.code.retryable()) {
                None if at(destination.as_str()) == Some("unknown") => (
                    format!(
                        "{destination} does not know the case yet. If that stays so, ask at its counter: it says nothing to a proof that it does not accept."
                    ),
                    Actor::Destination,
                ),
                Some(notice) => (
                    format!(
                        "{} said no: {} It ends when its time is over; `waybill patient stop {}` ends it now.",
                        notice.from,
                        notice.code.sentence(),
                        case.number
                    ),
                    notice.code.actor(),
                ),
                None => ("Both hospitals are at work.".to_owned(), Actor::Nobody),
            },
        },
    }
}

/// Something that arrived beside what was waited for, where a person wants to know.
#[must_use]
pub fn news(received: &Received) -> Option<String> {
    match received {
        Received::Registered { hospital, keys_changed } => Some(registered(hospital.as_str(), *keys_changed)),
        Received::Ended { case, state } => Some(format!("Case {case} has ended: {}.", end(*state))),
        Received::Refused { case, notice } => {
            Some(format!("Case {case}: {} said: {} ({})", notice.from, notice.code.sentence(), notice.code))
        }
        Received::ProofRefused { case, code } => Some(format!(
            "Case {case}: the authority signed something else than you delegated ({code}). Nothing was consented to; tell both hospitals."
        )),
        _ => None,
    }
}

/// That a registration arrived.
#[must_use]
pub fn registered(hospital: &str, keys_changed: bool) -> String {
    let changed =
        "\nIts keys are others than before; you have just been shown them in person, so the wallet believes these now.";
    format!("This wallet is registered at {hospital}.{}", if keys_changed { changed } else { "" })
}

/// How a case ended, in a few words.
#[must_use]
pub fn end(state: EndState) -> &'static str {
    match state {
        EndState::Filed => "the record is filed",
        EndState::Rejected => "the record was turned away at the destination",
        EndState::Unacknowledged => "the destination had the key and gave no receipt in time; a late one still counts",
        EndState::Revoked => "stopped before the key was released; nothing can be read",
        EndState::Expired => "its time ran out before the key was released; nothing can be read",
        EndState::Refused => "the source refused",
    }
}

/// What a person can do about a refusal.
#[must_use]
pub fn advice(code: Code) -> &'static str {
    match (code, code.actor()) {
        (Code::LoginStale, _) => "set this device's clock, then: waybill patient migrate --resume",
        (Code::ConsentLimit, _) => {
            "choose a narrower --scope or an allowed hospital; `waybill patient hospitals` shows the limits"
        }
        (Code::WindowInvalid | Code::ProofExpired, _) => "begin again with a later --until",
        (_, _) if code.retryable() => "try again later: waybill patient migrate --resume",
        (_, Actor::Patient) => {
            "ask at the hospital's counter; `waybill patient hospitals` shows what is registered there"
        }
        (_, Actor::Source) => "ask the hospital that holds the record",
        (_, Actor::Destination) => "ask the hospital that is to have the record",
        (_, Actor::Authority) => "tell the authority, and the hospital that holds the record",
        _ => "update this program, or report the fault to whoever gave it to you",
    }
}

/// A registration's end, with a warning when it is near or over.
#[must_use]
pub fn expiry(expires: Timestamp, now: Timestamp) -> String {
    let soon = now.plus(30 * 86_400) > expires;
    let text = day(expires);
    match (now > expires, soon) {
        (true, _) => format!("{text} (over: enrol again, in person)"),
        (false, true) => format!("{text} (soon: enrol again, in person)"),
        _ => text,
    }
}
