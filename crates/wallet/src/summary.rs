//! What became of a record, for the person it is about.

use std::fmt::Write as _;

use serde::Serialize;
use waybill_protocol::messages::{EndState, KeptBack, ReceiptDetail};
use waybill_protocol::rejection::Code;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};
use waybill_record::hides::Hides;
use waybill_record::loss::{LossOutcome, LossReport};
use waybill_record::scope::Scope;

use crate::state::{ClosedCase, Notice, Outcome};

/// The reason of the loss report for what the patient hid.
const HIDDEN: &str = "hidden";

/// A closed case in numbers and words; its JSON names are stable.
///
/// Security: health data. `Debug` is not derived, so that it reaches no log.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The case's number in this wallet.
    pub case: u64,
    /// Where the record came from.
    pub source: String,
    /// Where it went to.
    pub destination: String,
    /// `filed`, `rejected`, `unacknowledged`, `revoked`, `expired`, `refused` or `abandoned`.
    pub outcome: &'static str,
    /// One sentence for it.
    pub sentence: String,
    /// When the case began. Units: unix seconds.
    pub begun: u64,
    /// When the wallet learned of the end. Units: unix seconds.
    pub ended: u64,
    /// What was allowed to travel, in the words of a scope.
    pub scope: Option<String>,
    /// What was not, item by item: as far as the source said beforehand that it holds it and would keep it back.
    pub hidden: Vec<String>,
    /// What was to be hidden and the source did not hold: nothing was kept back for it.
    pub hide_not_held: Vec<String>,
    /// What was to be hidden, where the source did not say whether it holds it.
    pub hide_unconfirmed: Vec<String>,
    /// The case's id, hexadecimal.
    pub proof: Option<String>,
    /// The catalogue's code, when something was refused or rejected.
    pub code: Option<&'static str>,
    /// Who stopped a case that was revoked or refused: `wallet`, or the hospital whose staff did; `null` where neither is known.
    pub stopped_by: Option<String>,
    /// What the source said beforehand would stay, and why; `null` where it was not asked. The destination, whose receipt this is, knows
    /// how much was kept back and never why.
    pub foretold: Option<Vec<KeptSummary>>,
    /// What the destination's receipt says.
    pub receipt: Option<ReceiptSummary>,
    /// What went wrong on the way.
    pub notices: Vec<NoticeSummary>,
}

/// What the source said beforehand would stay.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct KeptSummary {
    /// FHIR resource type.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// The reason code.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// The destination's receipt.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptSummary {
    /// How many resources the source sent.
    pub offered: u64,
    /// How many of them are in the destination's store.
    pub filed: u64,
    /// How many wait there for a person.
    pub quarantined: u64,
    /// How many the source kept back because of scope or hides.
    pub withheld: u64,
    /// How many could not travel with this patient.
    pub not_movable: u64,
    /// What was filed.
    pub types: Vec<TypeSummary>,
    /// Why something did not arrive.
    pub reasons: Vec<ReasonSummary>,
    /// Short digest of what arrived, hexadecimal.
    pub digest: String,
    /// The loss report came with the receipt and could be read.
    pub loss_report: bool,
}

/// Resources of one type.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct TypeSummary {
    /// FHIR resource type.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

/// One reason and how often it applied.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ReasonSummary {
    /// `withheld`, `not_movable` or `quarantined`.
    pub outcome: LossOutcome,
    /// The reason code.
    pub reason: String,
    /// How many resources.
    pub count: u64,
}

/// Something that went wrong on the way.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct NoticeSummary {
    /// Who said so.
    pub from: String,
    /// The catalogue's code.
    pub code: &'static str,
    /// Its sentence.
    pub sentence: &'static str,
}

impl Summary {
    /// Reads a closed case. The receipt was verified when it arrived.
    #[must_use]
    pub fn of(case: &ClosedCase) -> Self {
        let detail =
            case.receipt.as_ref().and_then(|opening| from_cbor("receipt", &opening.detail, MAX_PARCEL_BYTES).ok());
        let detail: Option<ReceiptDetail> = detail;
        let code = match case.outcome {
            Outcome::Refused(code) => Some(code),
            Outcome::Ended(EndState::Rejected) => detail.as_ref().and_then(|detail| detail.code),
            Outcome::Ended(EndState::Revoked) if case.is_revoked_by_wallet() => None,
            Outcome::Ended(EndState::Revoked | EndState::Refused) if case.is_stopped_by_staff() => {
                Some(Code::StoppedByStaff)
            }
            Outcome::Ended(EndState::Refused) => case.notices.last().map(|notice| notice.code),
            _ => None,
        };
        let hides = Hidden::of(case.hides.as_ref(), case.foretold.as_deref());
        Self {
            case: case.number.ordinal(),
            source: case.source.hospital.to_string(),
            destination: case.destination.hospital.to_string(),
            outcome: case.outcome.as_str(),
            sentence: sentence(case, code),
            begun: case.begun.0,
            ended: case.ended.0,
            scope: case.scope.as_ref().map(ToString::to_string),
            hidden: hides.kept,
            hide_not_held: hides.not_held,
            hide_unconfirmed: hides.unconfirmed,
            proof: case.proof.map(|proof| proof.to_string()),
            code: code.map(Code::as_str),
            stopped_by: stopped_by(case),
            foretold: case.foretold.as_ref().map(|kept| kept.iter().map(KeptSummary::of).collect()),
            receipt: detail.as_ref().map(ReceiptSummary::of),
            notices: case.notices.iter().map(NoticeSummary::of).collect(),
        }
    }

    /// Plain text, ending with a line break.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{} -> {}: {}\n{}\n", self.source, self.destination, self.outcome, self.sentence);
        if let Some(receipt) = &self.receipt {
            receipt.write(&mut out);
        }
        for kept in self.foretold.iter().flatten() {
            let KeptSummary { resource_type, reason, count } = kept;
            let reason = reason_in_words(reason);
            line(
                &mut out,
                format_args!("{} said beforehand: {count} {resource_type} would stay, {reason}", self.source),
            );
        }
        for notice in &self.notices {
            line(&mut out, format_args!("On the way, {} said: {} ({})", notice.from, notice.sentence, notice.code));
        }
        if let Some(scope) = &self.scope {
            let whole = *scope == Scope::full().to_string();
            line(&mut out, format_args!("You allowed: {}", if whole { "the whole record" } else { scope }));
        }
        if !self.hidden.is_empty() {
            line(&mut out, format_args!("You hid: {}", self.hidden.join(", ")));
        }
        if !self.hide_not_held.is_empty() {
            let items = self.hide_not_held.join(", ");
            line(&mut out, format_args!("You asked to hide, NOT HELD at {}: {items}", self.source));
        }
        if !self.hide_unconfirmed.is_empty() {
            let items = self.hide_unconfirmed.join(", ");
            line(
                &mut out,
                format_args!("You asked to hide ({} did not say whether it holds all of it): {items}", self.source),
            );
        }
        if let Some(proof) = &self.proof {
            line(&mut out, format_args!("Case {proof}"));
        }
        out
    }
}

/// What became of the patient's hides, by what the source said beforehand.
#[derive(Default)]
struct Hidden {
    kept: Vec<String>,
    not_held: Vec<String>,
    unconfirmed: Vec<String>,
}

impl Hidden {
    /// The source names no item, only how many of a type it would keep back as hidden; so items of a type stand or fall together.
    fn of(hides: Option<&Hides>, foretold: Option<&[KeptBack]>) -> Self {
        let mut sorted = Self::default();
        // Items are sorted, so those of one type stand together.
        for items in hides.map(Hides::items).unwrap_or_default().chunk_by(|a, b| a.resource_type == b.resource_type) {
            let of_type = items[0].resource_type.as_str();
            let kept = foretold.map(|kept| {
                let hidden = kept.iter().filter(|kept| kept.reason == HIDDEN && kept.resource_type == of_type);
                hidden.map(|kept| kept.count).sum::<u64>()
            });
            let list = match kept {
                Some(0) => &mut sorted.not_held,
                Some(kept) if kept >= items.len() as u64 => &mut sorted.kept,
                _ => &mut sorted.unconfirmed,
            };
            list.extend(items.iter().map(ToString::to_string));
        }
        sorted
    }
}

impl KeptSummary {
    fn of(kept: &KeptBack) -> Self {
        Self { resource_type: kept.resource_type.clone(), reason: kept.reason.clone(), count: kept.count }
    }
}

impl ReceiptSummary {
    fn of(detail: &ReceiptDetail) -> Self {
        let report: Option<LossReport> = from_cbor("loss report", &detail.loss, MAX_PARCEL_BYTES).ok();
        let counts = report.as_ref().map(LossReport::counts).unwrap_or_default();
        let reasons = report.iter().flat_map(|report| report.reasons()).flat_map(|(outcome, reasons)| {
            reasons.iter().map(|(reason, count)| ReasonSummary {
                outcome: *outcome,
                reason: reason.clone(),
                count: *count,
            })
        });
        let types = detail.inventory.iter().map(|entry| TypeSummary {
            resource_type: entry.resource_type.clone(),
            count: entry.count,
            size_bytes: entry.size_bytes,
        });
        Self {
            offered: detail.offered,
            filed: detail.filed,
            quarantined: detail.quarantined,
            withheld: counts.withheld,
            not_movable: counts.not_movable,
            types: types.collect(),
            reasons: reasons.collect(),
            digest: detail.digest.to_string(),
            loss_report: report.is_some(),
        }
    }

    fn write(&self, out: &mut String) {
        let Self { offered, filed, quarantined, withheld, not_movable, .. } = self;
        line(
            out,
            format_args!("Of {offered} entries sent, {filed} were filed and {quarantined} wait for a person to look."),
        );
        for entry in &self.types {
            line(out, format_args!("  {:>8}  {} ({} bytes)", entry.count, entry.resource_type, entry.size_bytes));
        }
        if !self.loss_report {
            line(
                out,
                format_args!(
                    "What stayed behind is not known: the receipt came without a loss report that can be read."
                ),
            );
        } else if withheld + not_movable + quarantined == 0 {
            line(out, format_args!("Nothing stayed behind."));
        } else {
            line(out, format_args!("{withheld} were kept back, {not_movable} could not travel. Reasons:"));
        }
        for entry in &self.reasons {
            let outcome = match entry.outcome {
                LossOutcome::Withheld => "kept back",
                LossOutcome::NotMovable => "could not travel",
                LossOutcome::Quarantined => "arrived, not filed",
            };
            line(out, format_args!("  {:>8}  {outcome}: {}", entry.count, reason_in_words(&entry.reason)));
        }
        line(out, format_args!("Digest of what arrived: {}", self.digest));
    }
}

impl NoticeSummary {
    fn of(notice: &Notice) -> Self {
        Self { from: notice.from.to_string(), code: notice.code.as_str(), sentence: notice.code.sentence() }
    }
}

/// A reason code of the loss report for the person whose record it is; an unknown one as it stands.
#[must_use]
pub fn reason_in_words(reason: &str) -> &str {
    match reason {
        "type-not-in-scope" => "of a type you did not allow",
        "before-from" => "older than you allowed",
        "after-to" => "newer than you allowed",
        "undated" => "without a date, which you did not allow",
        "label" => "marked as sensitive, or not marked, which you did not allow",
        "hidden" => "hidden by you",
        "withheld" => "by your decision or the source's; the destination is not told which",
        "withheld-by-source" => "kept by the hospital itself, because it concerns somebody else",
        "another-patient" => "another patient's",
        "shared-with-others" => "shared with other patients",
        "names-another-patient" => "names another patient",
        "owner-unknown" => "it is not known whose it is",
        other => other,
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).and_then(|()| out.write_str("\n")).expect("writing to a String does not fail");
}

fn stopped_by(case: &ClosedCase) -> Option<String> {
    if case.is_revoked_by_wallet() {
        return Some("wallet".to_owned());
    }
    let ended = matches!(case.outcome, Outcome::Ended(EndState::Revoked | EndState::Refused));
    case.stopped_by_staff_of().filter(|_| ended).map(ToString::to_string)
}

fn sentence(case: &ClosedCase, code: Option<Code>) -> String {
    let (source, destination) = (&case.source.hospital, &case.destination.hospital);
    let because = code.map(|code| format!(" {}", code.sentence())).unwrap_or_default();
    match case.outcome {
        Outcome::Ended(EndState::Filed) => format!("{destination} has filed your record and signed for it."),
        Outcome::Ended(EndState::Rejected) => format!("{destination} opened your record and did not file it.{because}"),
        Outcome::Ended(EndState::Unacknowledged) => {
            format!("{destination} was given the key to your record and never said what became of it; ask there.")
        }
        Outcome::Ended(EndState::Revoked) => {
            let who = match case.stopped_by_staff_of() {
                _ if case.is_revoked_by_wallet() => "You stopped the case".to_owned(),
                Some(hospital) => format!("The staff of {hospital} stopped the case"),
                None if case.is_stopped_by_staff() => format!("The staff of {source} or {destination} stopped the case"),
                None => "The case was stopped, not by this wallet: by a hospital of it, or with a copy of this wallet's keys,".to_owned(),
            };
            format!("{who} before the key was released: nothing can be read.")
        }
        Outcome::Ended(EndState::Expired) => {
            "The time ran out before the key was released: nothing can be read.".to_owned()
        }
        Outcome::Ended(EndState::Refused) => format!("{source} refused to send your record.{because}"),
        Outcome::Refused(_) => format!("The delegation was refused before anything moved.{because}"),
        Outcome::Abandoned => "You gave the case up before anything moved.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_to_be_hidden_is_called_hidden_only_if_the_source_held_it() {
        let hides = Hides::parse(["Condition/a", "Condition/b", "Flag/f", "Media/m"]).unwrap();
        let kept = |of_type: &str, reason: &str, count| KeptBack {
            resource_type: of_type.to_owned(),
            reason: reason.to_owned(),
            count,
        };
        let foretold = [kept("Condition", "hidden", 1), kept("Flag", "hidden", 1), kept("Media", "undated", 3)];
        let sorted = Hidden::of(Some(&hides), Some(&foretold));
        assert_eq!((sorted.kept, sorted.not_held), (vec!["Flag/f".to_owned()], vec!["Media/m".to_owned()]));
        assert_eq!(sorted.unconfirmed, ["Condition/a", "Condition/b"], "one of the two, and it is not said which");
        let unasked = Hidden::of(Some(&hides), None);
        assert_eq!((unasked.kept.len(), unasked.not_held.len(), unasked.unconfirmed.len()), (0, 0, 4));
    }
}
