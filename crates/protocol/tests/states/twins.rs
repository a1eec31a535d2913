//! Broken twins: the same role functions in a shell that makes one mistake. Each must be caught by the property that forbids it.

use crate::bounds::{self, Bounds};
use crate::properties::never;
use crate::things::Party;

/// The mistake. What is wrong is always the shell's part: what it keeps, when it keeps it, or which row it hands to the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Twin {
    /// The authority commits a row without comparing the version it was computed from.
    SwapSkipped,
    /// The authority reads a case's state from a cache that missed its end.
    StatusFromCache,
    /// The authority reads a row from before the release.
    ReleaseForgotten,
    /// The authority keeps neither the end nor that there is no deadline any more: it comes, and finds the key released.
    EndNotKept,
    /// The authority puts something else than the destination's receipt in the row when the key is lodged.
    DeliveryInvented,
    /// The authority keeps row and leaf in two batches.
    LeafInSecondBatch,
    /// The authority answers before a cosigned checkpoint covers the leaf.
    AnsweredUncosigned,
    /// The authority serves a restored backup without asking the witnesses.
    RestoredUnchecked,
    /// The authority sends the end without the receipt that shows it.
    ReceiptLeftOut,
    /// The authority does not look at the registry again.
    StandingNotAsked,
    /// The authority's clock stands still.
    ClockStands,
    /// The source takes the session to be the one that the grant names.
    GrantOfAnotherSession,
    /// The source believes a key that nobody registered.
    ForgerRegistered,
    /// The source takes a case that waits for a review up as if it did not.
    ReviewOverlooked,
    /// The source stages twice and lodges the key of the other staging.
    StagedTwice,
    /// The source forgets which end it was told.
    SourceForgetsEnd,
    /// The destination forgets which end it was told.
    DestinationForgetsEnd,
    /// The destination files before it holds the key.
    FiledBeforeKey,
    /// The destination makes the record visible in a batch before the one that says so.
    StoredInFirstBatch,
    /// The destination posts its receipt before the batch is committed.
    ReceiptBeforeCommit,
    /// The destination signs "filed" and does not store.
    FiledWithoutStoring,
    /// A party's outbox forgets what it posted once.
    OutboxForgets,
    /// The authority does not repeat an answer.
    AnswersOnce,
}

impl Twin {
    /// Whether the mistake shows in what this party's role is asked, and so in what it gives. The others are mistakes of keeping.
    pub fn alters(self, party: Party) -> bool {
        let whose = match self {
            Self::StatusFromCache | Self::ReleaseForgotten | Self::EndNotKept | Self::DeliveryInvented => {
                Party::Authority
            }
            Self::ReceiptLeftOut | Self::StandingNotAsked | Self::ClockStands => Party::Authority,
            Self::GrantOfAnotherSession | Self::ForgerRegistered | Self::ReviewOverlooked => Party::Source,
            Self::StagedTwice | Self::SourceForgetsEnd => Party::Source,
            Self::DestinationForgetsEnd | Self::FiledBeforeKey | Self::FiledWithoutStoring => Party::Destination,
            Self::SwapSkipped | Self::LeafInSecondBatch | Self::AnsweredUncosigned | Self::RestoredUnchecked => {
                return false;
            }
            Self::StoredInFirstBatch | Self::ReceiptBeforeCommit | Self::OutboxForgets | Self::AnswersOnce => {
                return false;
            }
        };
        whose == party
    }
}

/// Who is caught by what, and in which bounds: the same in which the unbroken shell is explored.
pub const CAUGHT: &[(Twin, &str, Bounds)] = &[
    (Twin::SwapSkipped, never::TWO_SESSIONS, bounds::SLOW_RESTORED),
    (Twin::SwapSkipped, never::AFTER_THE_END, bounds::SLOW),
    (Twin::StatusFromCache, never::AFTER_THE_END, bounds::PATIENT),
    (Twin::StatusFromCache, never::CONTRADICTION, bounds::PATIENT),
    (Twin::ReleaseForgotten, never::TWO_RELEASES, bounds::PATIENT),
    (Twin::EndNotKept, never::TWO_ENDS, bounds::PATIENT),
    (Twin::DeliveryInvented, never::UNPAID, bounds::PATIENT),
    (Twin::LeafInSecondBatch, never::UNFOLDED, bounds::SLOW),
    (Twin::AnsweredUncosigned, never::UNCOSIGNED, bounds::PATIENT),
    (Twin::RestoredUnchecked, never::UNGRANTED, bounds::RESTORED),
    (Twin::RestoredUnchecked, never::UNRELEASED, bounds::RESTORED),
    (Twin::RestoredUnchecked, never::TWO_KEYS, bounds::RESTORED),
    (Twin::ReceiptLeftOut, never::MISLED, bounds::PATIENT),
    (Twin::StandingNotAsked, never::SUSPENDED, bounds::PATIENT),
    (Twin::ClockStands, never::TOO_LATE, bounds::PATIENT),
    (Twin::GrantOfAnotherSession, never::UNGRANTED, bounds::RESTORED),
    (Twin::ForgerRegistered, never::UNCONSENTED, bounds::FORGERY),
    (Twin::ReviewOverlooked, never::UNREVIEWED, bounds::DOUBT),
    (Twin::StagedTwice, never::BLAMED, bounds::PATIENT),
    (Twin::SourceForgetsEnd, never::SOURCE_END, bounds::PATIENT),
    (Twin::DestinationForgetsEnd, never::DESTINATION_END, bounds::PATIENT),
    (Twin::FiledBeforeKey, never::EARLY_RECEIPT, bounds::PATIENT),
    (Twin::StoredInFirstBatch, never::FILED_TWICE, bounds::SLOW),
    (Twin::ReceiptBeforeCommit, never::TWO_RECEIPTS, bounds::SLOW),
    (Twin::FiledWithoutStoring, never::NOT_STORED, bounds::PATIENT),
    (Twin::OutboxForgets, never::STUCK, bounds::PATIENT),
    (Twin::AnswersOnce, never::STUCK, bounds::PATIENT),
];
