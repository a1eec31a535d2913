//! Broken twins: the same role functions in a shell that makes one mistake. Each must be caught by the property that forbids it.

/// The mistake. What is wrong is always the shell's part: what it keeps, when it keeps it, or which row it hands to the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Twin {
    /// The authority commits a row without comparing the version it was computed from.
    SwapSkipped,
    /// The authority reads a case's state from a cache that missed its end.
    StatusFromCache,
    /// The authority keeps no end when it wakes a case: the deadline finds the key still released.
    EndNotKept,
    /// The authority puts something else than the destination's receipt in the row when the key is lodged.
    DeliveryInvented,
    /// The authority keeps row and leaf in two batches.
    LeafInSecondBatch,
    /// The authority answers before a cosigned checkpoint covers the leaf.
    AnsweredUncosigned,
    /// The authority serves a restored backup without asking the witnesses.
    RestoredUnchecked,
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
