//! What must never happen, and what must be possible.

use stateright::Property;
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{EndState, OutcomeClass};
use waybill_protocol::migration::{AuthorityState, DestinationState, SourceState};
use waybill_protocol::wire::Kind;

use crate::authority::{fold, logged};
use crate::model::Waybill;
use crate::state::State;
use crate::things::{Entry, Letter, Mark};

/// The invariants, each under the name that its twin is caught by.
pub mod never {
    pub const TWO_SESSIONS: &str = "a proof is granted to one session at a time";
    pub const TWO_RELEASES: &str = "a key is released once, for the session granted";
    pub const UNPAID: &str = "a key is released when lodgement and delivery receipt of its session are logged";
    pub const AFTER_THE_END: &str = "after an end nothing is granted, lodged, delivered or released";
    pub const TWO_ENDS: &str = "the authority signs one end, or silence and then what the late receipt says";
    pub const UNFOLDED: &str = "the authority's row is the fold of its log";
    pub const TOO_LATE: &str = "nothing is granted or released after the proof's end";
    pub const SUSPENDED: &str = "nothing is granted or released to or from a suspended hospital";
    pub const UNCOSIGNED: &str = "what the authority answers is in a cosigned checkpoint";
    pub const UNGRANTED: &str = "a record leaves only for a session whose grant is in the witnessed log";
    pub const UNCONSENTED: &str = "a record leaves only with the consent that the patient signed";
    pub const TWO_KEYS: &str = "the key of at most one session is opened";
    pub const UNRELEASED: &str = "a key is opened only when its release is in the witnessed log";
    pub const EARLY_RECEIPT: &str = "a receipt is signed only after the key was released";
    pub const FILED_TWICE: &str = "a record is filed at most once";
    pub const NOT_STORED: &str = "what is acknowledged as filed is in the store";
    pub const TWO_RECEIPTS: &str = "the destination signs one outcome";
    pub const SOURCE_END: &str = "the end that the source was told stands";
    pub const DESTINATION_END: &str = "the end that the destination was told stands";
    pub const CONTRADICTION: &str = "source and destination hold no contradicting ends, and only the authority's";
    pub const BLAMED: &str = "an honest source is never blamed";
    pub const MISLED: &str = "the patient reads the end that was signed";
    pub const UNREVIEWED: &str = "a record leaves in doubt only when a person vouched for the two patients";
    pub const STUCK: &str = "whatever was lost, the parties come to a signed end that all of them hold";
}

fn before<'a>(state: &'a State, entry: &Entry) -> &'a [Entry] {
    let at = state.log.value.iter().position(|other| logged(other) == logged(entry)).unwrap();
    &state.log.value[..at]
}

fn all(state: &State, kind: LeafKind) -> impl Iterator<Item = &Entry> {
    state.log.value.iter().filter(move |entry| entry.kind() == kind)
}

fn letters(state: &State, kind: Kind) -> impl Iterator<Item = &Letter> {
    state.letters.iter().map(|letter| &**letter).filter(move |letter| letter.kind == kind)
}

/// The leaves since the attempt began that was open before a leaf.
fn attempt<'a>(state: &'a State, entry: &Entry) -> &'a [Entry] {
    let earlier = before(state, entry);
    let began = earlier.iter().rposition(|entry| entry.kind() == LeafKind::ATTEMPT_FAILED).map_or(0, |at| at + 1);
    &earlier[began..]
}

fn has(entries: &[Entry], kind: LeafKind, session: Option<u64>) -> bool {
    entries.iter().any(|entry| entry.kind() == kind && entry.says.session == session)
}

/// Leaves that a cosigned checkpoint covers.
fn cosigned(state: &State) -> &[Entry] {
    &state.log.value[..state.answered]
}

fn one_session(_: &Waybill, state: &State) -> bool {
    all(state, LeafKind::GRANT).all(|grant| attempt(state, grant).iter().all(|e| e.kind() != LeafKind::GRANT))
}

fn one_release(_: &Waybill, state: &State) -> bool {
    let granted = |release: &Entry| has(attempt(state, release), LeafKind::GRANT, release.says.session);
    all(state, LeafKind::RELEASE).count() <= 1 && all(state, LeafKind::RELEASE).all(granted)
}

fn paid(_: &Waybill, state: &State) -> bool {
    let paid_for = |release: &Entry| {
        let (open, session) = (attempt(state, release), release.says.session);
        has(open, LeafKind::LODGEMENT, session) && has(open, LeafKind::DELIVERY, session)
    };
    all(state, LeafKind::RELEASE).all(paid_for)
}

fn nothing_after_the_end(_: &Waybill, state: &State) -> bool {
    let mut entries = state.log.value.iter().skip_while(|entry| entry.kind() != LeafKind::STATEMENT);
    entries.all(|entry| entry.kind() == LeafKind::STATEMENT)
}

/// Whether these ends may follow each other.
fn stands(ends: &[EndState]) -> bool {
    matches!(ends, [] | [_] | [EndState::Unacknowledged, EndState::Filed | EndState::Rejected])
}

fn one_end(_: &Waybill, state: &State) -> bool {
    let ends: Vec<_> = all(state, LeafKind::STATEMENT).filter_map(|entry| entry.says.end).collect();
    let released = all(state, LeafKind::RELEASE).next().is_some();
    let by_receipt = |end: &EndState| matches!(end, EndState::Filed | EndState::Rejected | EndState::Unacknowledged);
    stands(&ends) && ends.iter().all(|end| by_receipt(end) == released)
}

fn folded(_: &Waybill, state: &State) -> bool {
    fold(&state.log) == state.authority.value.state
}

fn in_time(_: &Waybill, state: &State) -> bool {
    !state.marks.contains(&Mark::Late)
}

fn in_good_standing(_: &Waybill, state: &State) -> bool {
    !state.marks.contains(&Mark::Suspended)
}

fn patient_reads(_: &Waybill, state: &State) -> bool {
    !state.marks.contains(&Mark::PatientMisled)
}

fn answered_cosigned(_: &Waybill, state: &State) -> bool {
    let seen = |letter: &Letter| cosigned(state).iter().any(|entry| Some(logged(entry)) == letter.says.logged);
    state.halted || state.letters.iter().filter(|letter| letter.says.logged.is_some()).all(|letter| seen(letter))
}

fn left_granted(_: &Waybill, state: &State) -> bool {
    let granted = |letter: &Letter| has(cosigned(state), LeafKind::GRANT, letter.says.session);
    state.halted || letters(state, Kind::Manifest).all(granted)
}

fn left_consented(_: &Waybill, state: &State) -> bool {
    !state.marks.contains(&Mark::Unconsented)
}

fn one_key(_: &Waybill, state: &State) -> bool {
    state.opened.len() <= 1
}

fn opened_released(_: &Waybill, state: &State) -> bool {
    let released = |session: &u64| has(cosigned(state), LeafKind::RELEASE, Some(*session));
    state.halted || state.opened.iter().all(released)
}

fn receipt_after_release(_: &Waybill, state: &State) -> bool {
    let released = cosigned(state).iter().any(|entry| entry.kind() == LeafKind::RELEASE);
    state.halted || released || letters(state, Kind::ImportReceipt).next().is_none()
}

fn filed_once(_: &Waybill, state: &State) -> bool {
    state.stored <= 1
}

fn acknowledged_is_stored(_: &Waybill, state: &State) -> bool {
    let says_filed = letters(state, Kind::ImportReceipt).any(|letter| letter.says.outcome == Some(OutcomeClass::Filed));
    let told_filed = state.authority.value.state == AuthorityState::Ended(EndState::Filed)
        || state.source_ends.contains(&EndState::Filed);
    state.stored > 0 || !(says_filed || told_filed)
}

fn one_outcome(_: &Waybill, state: &State) -> bool {
    let said = |outcome| letters(state, Kind::ImportReceipt).any(|letter| letter.says.outcome == Some(outcome));
    !(said(OutcomeClass::Filed) && said(OutcomeClass::Rejected))
}

fn source_end(_: &Waybill, state: &State) -> bool {
    stands(&state.source_ends)
}

fn destination_end(_: &Waybill, state: &State) -> bool {
    stands(&state.destination_ends)
}

fn ends_agree(_: &Waybill, state: &State) -> bool {
    let (source, destination) = (state.source_ends.last(), state.destination_ends.last());
    let signed = |end: &EndState| cosigned(state).iter().any(|entry| entry.says.end == Some(*end));
    let agree = match (source, destination) {
        (Some(one), Some(other)) => one == other || stands(&[*one, *other]) || stands(&[*other, *one]),
        _ => true,
    };
    agree && (state.halted || source.into_iter().chain(destination).all(signed))
}

fn never_blamed(_: &Waybill, state: &State) -> bool {
    state.destination.as_ref().is_none_or(|row| row.value.revealed_key.is_none())
}

fn reviewed(model: &Waybill, state: &State) -> bool {
    !model.doubt() || state.approved || letters(state, Kind::Manifest).next().is_none()
}

fn comes_to_an_end(model: &Waybill, state: &State) -> bool {
    model.recovers(state)
}

/// Every invariant.
pub fn invariants() -> Vec<Property<Waybill>> {
    vec![
        Property::always(never::TWO_SESSIONS, one_session),
        Property::always(never::TWO_RELEASES, one_release),
        Property::always(never::UNPAID, paid),
        Property::always(never::AFTER_THE_END, nothing_after_the_end),
        Property::always(never::TWO_ENDS, one_end),
        Property::always(never::UNFOLDED, folded),
        Property::always(never::TOO_LATE, in_time),
        Property::always(never::SUSPENDED, in_good_standing),
        Property::always(never::UNCOSIGNED, answered_cosigned),
        Property::always(never::UNGRANTED, left_granted),
        Property::always(never::UNCONSENTED, left_consented),
        Property::always(never::TWO_KEYS, one_key),
        Property::always(never::UNRELEASED, opened_released),
        Property::always(never::EARLY_RECEIPT, receipt_after_release),
        Property::always(never::FILED_TWICE, filed_once),
        Property::always(never::NOT_STORED, acknowledged_is_stored),
        Property::always(never::TWO_RECEIPTS, one_outcome),
        Property::always(never::SOURCE_END, source_end),
        Property::always(never::DESTINATION_END, destination_end),
        Property::always(never::CONTRADICTION, ends_agree),
        Property::always(never::BLAMED, never_blamed),
        Property::always(never::MISLED, patient_reads),
        Property::always(never::UNREVIEWED, reviewed),
        Property::always(never::STUCK, comes_to_an_end),
    ]
}

/// Everybody holds the signed end.
fn ended(state: &State, end: EndState) -> bool {
    let told = |ends: &[EndState]| ends.last() == Some(&end);
    state.authority.value.state == AuthorityState::Ended(end)
        && told(&state.source_ends)
        && told(&state.destination_ends)
}

macro_rules! reachable {
    ($($name:ident $text:literal $condition:expr;)*) => {
        /// What must be possible, each where its bounds allow it.
        pub mod sometimes {
            use super::*;
            $(pub fn $name() -> Property<Waybill> { Property::sometimes($text, |_, state| $condition(state)) })*
        }
    };
}

reachable! {
    filed "a record is filed, and everybody holds the signed end" |state: &State| {
        ended(state, EndState::Filed) && state.source_state() == Some(SourceState::Closed) && state.stored == 1
    };
    filed_again "a record is filed in the second attempt" |state: &State| {
        ended(state, EndState::Filed) && state.source.as_ref().is_some_and(|row| row.value.attempt == 2)
    };
    filed_late "a late receipt closes an unacknowledged case" |state: &State| {
        state.source_ends == [EndState::Unacknowledged, EndState::Filed]
    };
    rejected "a record is turned away, and everybody holds the signed end" |state: &State| ended(state, EndState::Rejected);
    revoked "a case is revoked, and everybody holds the signed end" |state: &State| ended(state, EndState::Revoked);
    expired "a case expires, and everybody holds the signed end" |state: &State| ended(state, EndState::Expired);
    refused "a case is refused, and everybody holds the signed end" |state: &State| ended(state, EndState::Refused);
    unacknowledged "a destination is silent, and everybody holds the signed end" |state: &State| {
        ended(state, EndState::Unacknowledged)
    };
    revoked_delivered "a revocation comes when every byte has travelled, and nothing is released" |state: &State| {
        ended(state, EndState::Revoked) && state.destination.as_ref().is_some_and(|row| row.value.delivery.is_some())
    };
    unreadable "a destination that lost its key says so, and the case ends" |state: &State| {
        ended(state, EndState::Rejected) && state.opened.is_empty()
    };
    halted "a restored authority refuses to serve" |state: &State| state.halted;
    filed_restored "a record is filed although the source began anew" |state: &State| {
        state.lives[1] > 0 && state.stored > 0 && state.authority.value.state == AuthorityState::Ended(EndState::Filed)
    };
}

/// Whether everybody who has the case holds its signed end: where every state must be able to come to.
pub fn is_over(state: &State) -> bool {
    let AuthorityState::Ended(end) = state.authority.value.state else { return false };
    let told = |has: bool, ends: &[EndState]| !has || ends.last() == Some(&end);
    let done = state.destination.is_none() || state.destination_state() == Some(DestinationState::Closed);
    told(state.source.is_some(), &state.source_ends)
        && told(state.destination.is_some(), &state.destination_ends)
        && done
}
