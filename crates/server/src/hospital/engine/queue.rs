//! The queue that staff works from: where each case is in it, what is on it, and how a record that came leaves it.
//!
//! | space | key | value |
//! |---|---|---|
//! | `Setting` | `"open", proof` | the proof: the case is not over |
//! | `Setting` | `"arrived", proof` | the proof: its record was filed, and nobody who treats the patient has looked at it |

use waybill_crypto::keys::Digest;
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::{HospitalId, ProofId, Timestamp};
use waybill_protocol::messages::{EndState, StatementBody};
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::policy::Action;
use waybill_protocol::source::SourceCase;
use waybill_store::{Batch, Expect, Key, MAX_PAGE, Op, Space};

use super::staff::{too_late, unknown};
use super::{Engine, of_destination};
use crate::hospital::staff::Member;
use crate::party::{ServiceError, run_again};

/// In which part of the work queue a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Its proof ended and no signed end came.
    Overdue,
    /// A person must compare the two patients.
    NeedsIdentityCheck,
    /// Items of it wait in quarantine.
    Quarantined,
    /// The record is in the chart, ready for who treats the patient.
    Ready,
    /// The hospital works on it.
    Working,
    /// It waits for the other hospital or the authority.
    WaitingForCounterpart,
    /// Who treats the patient has looked at the record that came, and it ended well.
    Reconciled,
    /// Over.
    Closed,
}

impl Queue {
    /// Every part, the most urgent first.
    pub const ALL: [Self; 8] = [
        Self::Overdue,
        Self::NeedsIdentityCheck,
        Self::Quarantined,
        Self::Ready,
        Self::Working,
        Self::WaitingForCounterpart,
        Self::Reconciled,
        Self::Closed,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overdue => "overdue",
            Self::NeedsIdentityCheck => "needs-identity-check",
            Self::Quarantined => "quarantined",
            Self::Ready => "ready",
            Self::Working => "working",
            Self::WaitingForCounterpart => "waiting-for-counterpart",
            Self::Reconciled => "reconciled",
            Self::Closed => "closed",
        }
    }
}

/// A case as the queue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// Where it is in the queue.
    pub queue: Queue,
    /// Who must act: a role, `source`, `destination`, `authority`, or nobody.
    pub who: Option<&'static str>,
    /// By when.
    pub due: Option<Timestamp>,
}

/// A list of cases, in parts that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// What is to be done: open cases, and records that came and wait for a clinician.
    Open,
    /// Every case there ever was.
    All,
}

impl Listed {
    fn parts(self) -> [(Space, &'static str); 2] {
        match self {
            Self::Open => [(Space::Setting, "open"), (Space::Setting, "arrived")],
            Self::All => [(Space::Case, "destination"), (Space::Case, "source")],
        }
    }
}

/// Where a page of a [`Listed`] list ended, and the next one goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    part: usize,
    proof: ProofId,
}

impl Place {
    /// The place of a text, as [`Self::to_text`] gave it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (part, proof) = text.split_once('-')?;
        let part = ["0", "1"].iter().position(|known| *known == part)?;
        Some(Self { part, proof: ProofId(proof.parse().ok()?) })
    }

    /// The text of a place.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{}-{}", self.part, self.proof)
    }

    /// The case at this place.
    #[must_use]
    pub fn proof(self) -> ProofId {
        self.proof
    }
}

fn arrived_row(id: &ProofId) -> Key {
    Key::build().text("arrived").fixed(id.as_bytes()).done()
}

/// Puts a record that was filed before whoever treats the patient; in the batch that files it.
#[must_use]
pub fn arrived_op(id: &ProofId) -> Op {
    Op::Put { space: Space::Setting, key: arrived_row(id), value: id.as_bytes().to_vec(), expect: Expect::Any }
}

pub(super) fn ended(statement: Option<&StatementBody>) -> Option<EndState> {
    statement.and_then(|body| body.statement.parse().ok()).map(|statement| statement.peek().state)
}

/// Whether the record of a case is in the chart here.
#[must_use]
pub fn is_filed(case: &DestinationCase) -> bool {
    case.state == DestinationState::Filed || ended(case.statement.as_ref()) == Some(EndState::Filed)
}

impl Engine {
    /// Where a case in which we are the source is in the queue.
    #[must_use]
    pub fn queue_of_source(&self, case: &SourceCase) -> QueueEntry {
        let (queue, who) = match case.state {
            SourceState::AwaitingReview => (Queue::NeedsIdentityCheck, Some("records-officer")),
            SourceState::Closed => (Queue::Closed, None),
            _ if self.party.ctx().now > case.expires => (Queue::Overdue, Some("records-officer")),
            SourceState::Redeeming | SourceState::Refused => (Queue::WaitingForCounterpart, Some("authority")),
            SourceState::Granted => (Queue::Working, None),
            SourceState::Lodged | SourceState::AttemptFailed => (Queue::WaitingForCounterpart, Some("destination")),
        };
        let due = (queue != Queue::Closed).then(|| case.review_by.unwrap_or(case.expires));
        QueueEntry { queue, who, due }
    }

    /// Where a case in which we are the destination is in the queue.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn queue_of_destination(&self, case: &DestinationCase) -> Result<QueueEntry, ServiceError> {
        let is_filed = is_filed(case);
        let origin: &HospitalId = &case.source;
        let (queue, who) = if is_filed && self.shelf.has_quarantined(&case.local, origin, &case.session).await? {
            (Queue::Quarantined, Some("records-officer"))
        } else if is_filed && self.waits_for_clinician(&case.proof).await? {
            (Queue::Ready, Some("clinician"))
        } else {
            match case.state {
                DestinationState::Closed if is_filed => (Queue::Reconciled, None),
                DestinationState::Closed => (Queue::Closed, None),
                DestinationState::KeyHeld => (Queue::Working, None),
                _ if self.party.ctx().now > case.expires => (Queue::Overdue, Some("records-officer")),
                DestinationState::Requested | DestinationState::Receiving | DestinationState::AttemptFailed => {
                    (Queue::WaitingForCounterpart, Some("source"))
                }
                _ => (Queue::WaitingForCounterpart, Some("authority")),
            }
        };
        let has_end = matches!(queue, Queue::Quarantined | Queue::Ready | Queue::Reconciled | Queue::Closed);
        let due = (!has_end).then_some(case.expires);
        Ok(QueueEntry { queue, who, due })
    }

    async fn waits_for_clinician(&self, id: &ProofId) -> Result<bool, ServiceError> {
        Ok(self.party.store.load(Space::Setting, &arrived_row(id)).await?.is_some())
    }

    /// Who treats the patient has looked at the record that came; the case leaves the queue.
    ///
    /// # Errors
    /// [`ServiceError`]; `unexpected-message` when no record of it waits for that, or items of it wait in quarantine.
    pub async fn reconcile(&self, by: &Member, id: &ProofId) -> Result<(), ServiceError> {
        run_again(|| async {
            let (case, _) = self.destination_case(id).await?.ok_or_else(unknown)?;
            if self.queue_of_destination(&case).await?.queue != Queue::Ready {
                return Err(too_late());
            }
            let (space, key) = (Space::Setting, arrived_row(id));
            let listed = self.party.store.load(space, &key).await?.ok_or_else(too_late)?;
            let mut ops = vec![Op::Delete { space, key, expect: Expect::Version(listed.version) }];
            ops.extend(self.audit(of_destination(&case, by.into(), Action::ReconcileCase.as_str())));
            self.party.store.commit(Batch { name: "reconciled", ops }).await?;
            Ok(())
        })
        .await
    }

    /// A page of a list of cases, in the order of the store; a case is on it once.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn cases(&self, listed: Listed, after: Option<Place>, limit: usize) -> Result<Vec<Place>, ServiceError> {
        let (first, mut found) = (after.map_or(0, |place| place.part), Vec::new());
        for (part, (space, name)) in listed.parts().into_iter().enumerate().skip(first) {
            let prefix = Key::build().text(name).done();
            let row = |proof: &ProofId| prefix.extend().fixed(proof.as_bytes()).done();
            let mut from = after.filter(|place| place.part == part).map(|place| row(&place.proof));
            while found.len() < limit {
                let page = self.party.store.keys(space, &prefix, from.as_ref(), limit.min(MAX_PAGE)).await?;
                let Some(last) = page.last() else { break };
                from = Some(last.clone());
                for key in page {
                    let id = key.read_after(&prefix).and_then(|mut rest| rest.fixed().ok());
                    let proof = ProofId(Digest(id.ok_or(ServiceError::Corrupt("list of cases"))?));
                    let is_twice = listed == Listed::Open && part == 1 && self.is_open(&proof).await?;
                    if !is_twice && found.len() < limit {
                        found.push(Place { part, proof });
                    }
                }
            }
        }
        Ok(found)
    }

    /// The cases on the list of open ones.
    pub(in crate::hospital) async fn open_cases(&self) -> Result<Vec<ProofId>, ServiceError> {
        let (prefix, mut open, mut after) = (Key::build().text("open").done(), Vec::new(), None);
        loop {
            let page = self.party.store.scan(Space::Setting, &prefix, after.as_ref(), MAX_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(open) };
            after = Some(last.clone());
            for (_, row) in page {
                let id: [u8; 32] = row.value.as_slice().try_into().map_err(|_| ServiceError::Corrupt("open case"))?;
                open.push(ProofId(Digest(id)));
            }
        }
    }

    async fn is_open(&self, id: &ProofId) -> Result<bool, ServiceError> {
        let key = Key::build().text("open").fixed(id.as_bytes()).done();
        Ok(self.party.store.load(Space::Setting, &key).await?.is_some())
    }
}
