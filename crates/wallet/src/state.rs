//! What the wallet remembers, as it stands in the encrypted file.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::pseudonym::RootSecret;
use waybill_protocol::ids::{HospitalId, ProofId, Timestamp};
use waybill_protocol::messages::{
    AuthorityStatementBody, Delegation, EndState, KeptBack, ProofBundle, Purpose, ReceiptOpening, RevocationBody,
    StatementBody, VoucherGrant,
};
use waybill_protocol::patient::{Contact, Draft, Enrolment, Exchange};
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use crate::mailbox::{MailboxName, RelayHost, ReplyMailbox};
use crate::trust::TrustSettings;

/// The most hospitals a wallet is registered at.
pub(crate) const MAX_CONTACTS: usize = 256;
/// The most registrations and logins under way.
pub(crate) const MAX_EXCHANGES: usize = 64;
/// The most open cases.
pub(crate) const MAX_OPEN_CASES: usize = 256;
/// The most closed cases that are kept; the oldest goes first.
pub(crate) const MAX_CLOSED_CASES: usize = 1_000;
/// The most notices a case keeps.
pub(crate) const MAX_NOTICES: usize = 32;

/// A case in this wallet: which derivation of the delegation's keys it uses. Never leaves the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct CaseNumber(#[n(0)] pub u64);

impl CaseNumber {
    /// The number people see: 1 for the first case of this wallet. Unique in one wallet, because only the low half counts.
    #[must_use]
    pub fn ordinal(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) + 1
    }
}

impl fmt::Display for CaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ordinal().fmt(f)
    }
}

/// An errand in this wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct ErrandId(#[n(0)] pub u64);

/// Somebody the wallet writes to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Party {
    /// The authority.
    #[n(0)]
    Authority,
    /// A hospital.
    #[n(1)]
    Hospital(#[n(0)] HospitalId),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("the authority"),
            Self::Hospital(id) => id.fmt(f),
        }
    }
}

/// A parcel to post. Given out again by [`crate::Wallet::errands`] until [`crate::Wallet::posted`] is told.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Errand {
    /// Its name.
    #[n(0)]
    pub id: ErrandId,
    /// To whom.
    #[n(1)]
    pub to: Party,
    /// The mailbox to post to.
    #[n(2)]
    pub address: String,
    /// What it is.
    #[n(3)]
    pub kind: Kind,
    /// The parcel's bytes.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub parcel: Vec<u8>,
    /// Where the answer comes to.
    #[n(5)]
    pub answer: MailboxName,
    /// The case it belongs to.
    #[n(6)]
    pub case: Option<CaseNumber>,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errand({:?} to {}, {} bytes)", self.kind, self.to, self.parcel.len())
    }
}

/// A registration that waits for its answer.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PendingRegistration {
    #[n(0)]
    pub enrolment: Enrolment,
    #[n(1)]
    pub epoch: u32,
    #[n(2)]
    pub exchange: Exchange,
    #[n(3)]
    pub mailbox: ReplyMailbox,
    #[n(4)]
    pub begun: Timestamp,
}

/// A login that waits for its answer.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PendingLogin {
    #[n(0)]
    pub contact: Contact,
    #[n(1)]
    pub purpose: Purpose,
    #[n(2)]
    pub exchange: Exchange,
    #[n(3)]
    pub mailbox: ReplyMailbox,
    #[n(4)]
    pub begun: Timestamp,
    /// The case that waits for a voucher.
    #[n(5)]
    pub case: Option<CaseNumber>,
}

/// Where an open case stands, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// Logged in at the source, which must vouch for the delegation key.
    #[n(0)]
    AwaitingVoucher,
    /// Delegated; the authority must issue its proof.
    #[n(1)]
    AwaitingProof,
    /// The proof says what was delegated; nothing moves before the patient consents.
    #[n(2)]
    ProofHeld,
    /// Consented and presented; the case must end.
    #[n(3)]
    AwaitingEnd,
    /// The destination had the key and gave no receipt in time. A late one still closes the case.
    #[n(4)]
    Unacknowledged,
}

impl Stage {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingVoucher => "awaiting-voucher",
            Self::AwaitingProof => "awaiting-proof",
            Self::ProofHeld => "proof-held",
            Self::AwaitingEnd => "awaiting-end",
            Self::Unacknowledged => "unacknowledged",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody signed against the case, or the wallet found wrong with what somebody signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Notice {
    /// Who.
    #[n(0)]
    pub from: Party,
    /// What.
    #[n(1)]
    pub code: Code,
    /// When the wallet learned it.
    #[n(2)]
    pub time: Timestamp,
}

/// An open case.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct Case {
    /// Its number.
    #[n(0)]
    pub number: CaseNumber,
    /// Where it stands.
    #[n(1)]
    pub stage: Stage,
    /// The source as pinned when the case began.
    #[n(2)]
    pub source: Contact,
    /// The destination as pinned when the case began.
    #[n(3)]
    pub destination: Contact,
    /// When it began.
    #[n(4)]
    pub begun: Timestamp,
    /// The case's id, once there is a proof.
    #[n(5)]
    pub proof: Option<ProofId>,
    /// What went wrong on the way.
    #[n(6)]
    pub notices: Vec<Notice>,
    #[n(7)]
    pub(crate) draft: Draft,
    #[n(8)]
    pub(crate) mailbox: ReplyMailbox,
    #[n(9)]
    pub(crate) bundle: Option<ProofBundle>,
    /// The parcel the proof came in: after a restart it is compared again before anybody consents.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub(crate) proof_parcel: Option<Vec<u8>>,
    #[cbor(n(11), with = "minicbor::bytes")]
    pub(crate) presentation: Option<Vec<u8>>,
    #[cbor(n(12), with = "minicbor::bytes")]
    pub(crate) revocation: Option<Vec<u8>>,
    /// That the destination gave no receipt in time, where the authority said so.
    #[n(13)]
    pub(crate) statement: Option<StatementBody>,
    /// What the source said beforehand would stay, and why.
    #[n(14)]
    pub foretold: Option<Vec<KeptBack>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}: {} -> {}, {})", self.number, self.source.hospital, self.destination.hospital, self.stage)
    }
}

impl Case {
    /// The scope and hides that were delegated, with the terms.
    #[must_use]
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The proof with its evidence, once there is one.
    #[must_use]
    pub fn bundle(&self) -> Option<&ProofBundle> {
        self.bundle.as_ref()
    }

    /// Whether the patient has asked to stop it.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.revocation.is_some()
    }

    /// The mailbox in which the case's answers arrive.
    #[must_use]
    pub fn mailbox(&self) -> MailboxName {
        self.mailbox.name()
    }

    /// Remembers a notice once. Bounded: who fills a mailbox does not fill the wallet.
    pub(crate) fn note(&mut self, notice: Notice) {
        note(&mut self.notices, notice);
    }
}

/// Adds a notice that is not known, while there is room.
pub(crate) fn note(notices: &mut Vec<Notice>, notice: Notice) {
    let known = notices.iter().any(|n| n.from == notice.from && n.code == notice.code);
    if !known && notices.len() < MAX_NOTICES {
        notices.push(notice);
    }
}

/// How a case ended for the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Outcome {
    /// With the authority's signed and logged statement.
    #[n(0)]
    Ended(#[n(0)] EndState),
    /// Refused before there was a proof.
    #[n(1)]
    Refused(#[n(0)] Code),
    /// The patient gave it up. What was not consented to by then never moves.
    #[n(2)]
    Abandoned,
}

impl Outcome {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended(state) => state.as_str(),
            Self::Refused(_) => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A case that is over: the evidence of it, and none of its secrets.
///
/// Security: the delegation's reply key and openings went with the draft; what was hidden stays for the patient's own eyes; only the mailbox key stays for a while, so that what
/// still arrives there can be read and dropped.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct ClosedCase {
    /// Its number.
    #[n(0)]
    pub number: CaseNumber,
    /// The source as pinned.
    #[n(1)]
    pub source: Contact,
    /// The destination as pinned.
    #[n(2)]
    pub destination: Contact,
    /// When it began.
    #[n(3)]
    pub begun: Timestamp,
    /// When the wallet learned that it was over.
    #[n(4)]
    pub ended: Timestamp,
    /// How it ended.
    #[n(5)]
    pub outcome: Outcome,
    /// The case's id, where there was a proof.
    #[n(6)]
    pub proof: Option<ProofId>,
    /// What went wrong on the way.
    #[n(7)]
    pub notices: Vec<Notice>,
    /// The signed delegation.
    #[n(8)]
    pub delegation: Option<SignedBytes<Delegation>>,
    /// The proof with its evidence.
    #[n(9)]
    pub bundle: Option<ProofBundle>,
    /// The authority's statement with its evidence.
    #[n(10)]
    pub statement: Option<StatementBody>,
    /// The destination's inner receipt.
    #[n(11)]
    pub receipt: Option<ReceiptOpening>,
    #[cbor(n(12), with = "minicbor::bytes")]
    pub(crate) presentation: Option<Vec<u8>>,
    #[n(13)]
    pub(crate) mailbox: Option<ReplyMailbox>,
    /// The source's voucher for the delegation key.
    #[n(14)]
    pub voucher: Option<VoucherGrant>,
    /// The authority's description of its keys when the case ended.
    #[n(15)]
    pub authority: Option<AuthorityStatementBody>,
    /// What was allowed to travel.
    #[n(16)]
    pub scope: Option<Scope>,
    /// What was not, item by item.
    #[n(17)]
    pub hides: Option<Hides>,
    #[cbor(n(18), with = "minicbor::bytes")]
    pub(crate) revocation: Option<Vec<u8>>,
    /// What the source said beforehand would stay, and why: the destination's receipt does not know the reasons.
    #[n(19)]
    pub foretold: Option<Vec<KeptBack>>,
}

impl ClosedCase {
    /// Whether the authority's signed end names this wallet's own revocation as its cause.
    #[must_use]
    pub fn is_revoked_by_wallet(&self) -> bool {
        let own = || {
            let parcel = Parcel::parse(self.revocation.as_deref()?).ok()?;
            let body: RevocationBody = parcel.open(Kind::Revocation, "revocation").ok()?;
            Some(body.revocation.parse().ok()?.message_id())
        };
        let cause = || self.statement.as_ref()?.statement.parse().ok()?.peek().cause;
        self.outcome == Outcome::Ended(EndState::Revoked) && cause().is_some_and(|cause| own() == Some(cause))
    }

    /// Whether a hospital says that staff stopped the case.
    #[must_use]
    pub fn is_stopped_by_staff(&self) -> bool {
        self.notices.iter().any(|notice| notice.code == Code::StoppedByStaff)
    }

    /// The hospital whose staff stopped the case, where that can be told: the destination passes on what the source says, so its word
    /// is its own only where the source says something else. The source is never told of the destination's staff.
    #[must_use]
    pub fn stopped_by_staff_of(&self) -> Option<&HospitalId> {
        let source = Party::Hospital(self.source.hospital.clone());
        let mut said = self.notices.iter().filter(|notice| notice.from == source).peekable();
        match (self.is_stopped_by_staff(), said.peek().is_some()) {
            (true, true) if said.any(|notice| notice.code == Code::StoppedByStaff) => Some(&self.source.hospital),
            (true, true) => Some(&self.destination.hospital),
            _ => None,
        }
    }

    /// Whether somebody else than this wallet stopped the case, and it is not known who.
    #[must_use]
    pub fn is_stopped_by_somebody(&self) -> bool {
        matches!(self.outcome, Outcome::Ended(EndState::Revoked | EndState::Refused))
            && !self.is_revoked_by_wallet()
            && self.stopped_by_staff_of().is_none()
    }
}

impl fmt::Debug for ClosedCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (&self.source.hospital, &self.destination.hospital);
        write!(f, "ClosedCase({}: {from} -> {to}, {})", self.number, self.outcome.as_str())
    }
}

/// The whole of it.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(crate) struct State {
    #[n(0)]
    pub root: RootSecret,
    #[n(1)]
    pub relay: RelayHost,
    #[n(2)]
    pub trust: Option<TrustSettings>,
    #[n(3)]
    pub contacts: Vec<Contact>,
    #[n(4)]
    pub next_case: u64,
    #[n(5)]
    pub next_errand: u64,
    #[n(6)]
    pub registrations: Vec<PendingRegistration>,
    #[n(7)]
    pub logins: Vec<PendingLogin>,
    #[n(8)]
    pub cases: Vec<Case>,
    #[n(9)]
    pub closed: Vec<ClosedCase>,
    #[n(10)]
    pub outbox: Vec<Errand>,
    #[n(11)]
    pub ignored: u64,
}

impl State {
    pub(crate) fn new(root: RootSecret, relay: RelayHost, trust: Option<TrustSettings>, first_case: u64) -> Self {
        Self {
            root,
            relay,
            trust,
            contacts: Vec::new(),
            next_case: first_case,
            next_errand: 1,
            registrations: Vec::new(),
            logins: Vec::new(),
            cases: Vec::new(),
            closed: Vec::new(),
            outbox: Vec::new(),
            ignored: 0,
        }
    }

    pub(crate) fn case(&self, number: CaseNumber) -> Option<&Case> {
        self.cases.iter().find(|case| case.number == number)
    }

    pub(crate) fn case_mut(&mut self, number: CaseNumber) -> Option<&mut Case> {
        self.cases.iter_mut().find(|case| case.number == number)
    }

    /// Puts a parcel into the outbox.
    pub(crate) fn send(&mut self, parcel: Outgoing) -> Errand {
        let Outgoing { to, address, kind, parcel, answer, case } = parcel;
        let errand = Errand { id: ErrandId(self.next_errand), to, address, kind, parcel, answer, case };
        self.next_errand += 1;
        self.outbox.push(errand.clone());
        errand
    }

    /// An exchange is over: what was to be posted for it need not be any more.
    pub(crate) fn settle(&mut self, answer: MailboxName) {
        self.outbox.retain(|errand| errand.answer != answer);
    }

    /// A case is over: its secrets go, its evidence stays.
    pub(crate) fn close(&mut self, number: CaseNumber, now: Timestamp, ending: Closing) {
        let Some(place) = self.cases.iter().position(|case| case.number == number) else { return };
        let case = self.cases.remove(place);
        self.settle(case.mailbox.name());
        self.logins.retain(|login| login.case != Some(number));
        self.closed.push(ClosedCase {
            number,
            source: case.source,
            destination: case.destination,
            begun: case.begun,
            ended: now,
            outcome: ending.outcome,
            proof: case.proof,
            notices: case.notices,
            delegation: case.draft.delegation.clone(),
            bundle: case.bundle,
            statement: ending.statement,
            receipt: ending.receipt,
            presentation: case.presentation,
            mailbox: Some(case.mailbox),
            voucher: case.draft.voucher.clone(),
            authority: self.trust.as_ref().and_then(|trust| trust.statement()).cloned(),
            scope: Some(case.draft.scope.clone()),
            hides: Some(case.draft.hides.clone()),
            revocation: case.revocation,
            foretold: case.foretold,
        });
        let surplus = self.closed.len().saturating_sub(MAX_CLOSED_CASES);
        self.closed.drain(..surplus);
    }
}

/// A parcel before it has a number.
pub(crate) struct Outgoing {
    pub to: Party,
    pub address: String,
    pub kind: Kind,
    pub parcel: Vec<u8>,
    pub answer: MailboxName,
    pub case: Option<CaseNumber>,
}

/// With what a case is closed.
pub(crate) struct Closing {
    pub outcome: Outcome,
    pub statement: Option<StatementBody>,
    pub receipt: Option<ReceiptOpening>,
}

impl From<Outcome> for Closing {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, statement: None, receipt: None }
    }
}
