//! Batches: every change of a store, as pure data.

use crate::{Address, Hasher, Key, Space};
use std::fmt;

/// Most operations in one batch.
pub const MAX_BATCH_OPS: usize = 10_000;
/// Most bytes (keys, values, bodies) in one batch.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// Longest key.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest value: a mailbox message of 4 MiB in its envelope. Above 1 MiB an object with its address in the row is the better home.
pub const MAX_VALUE_BYTES: usize = 4 * 1024 * 1024 + 64 * 1024;
/// Longest body of an outgoing message.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A value with the number of times its row was written since it was last inserted.
///
/// The version starts at 1 and grows by 1 with every `Put`. Deleting a row and inserting it again restarts it, so rows that
/// are compared by version must not be deleted while anyone may still hold an old version.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// 1 after the insert, then one more after each write.
    pub version: u64,
    /// The bytes written last.
    pub value: Vec<u8>,
}

/// What must be true of a row for the operation, and with it the whole batch, to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Any,
    /// No such row: the unique rows that single use rests on.
    Absent,
    /// The row with exactly this version: compare-and-swap.
    Version(u64),
}

/// One operation of a batch; a batch runs them in order and each sees the effects of those before it.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a row.
    Put {
        /// Where.
        space: Space,
        /// Which row.
        key: Key,
        /// What to write.
        value: Vec<u8>,
        /// What must be there.
        expect: Expect,
    },
    /// Deletes a row; with `Expect::Any` an absent row is fine.
    Delete {
        /// Where.
        space: Space,
        /// Which row.
        key: Key,
        /// What must be there.
        expect: Expect,
    },
    /// Writes nothing, but fails the batch unless the row is as expected.
    Require {
        /// Where.
        space: Space,
        /// Which row.
        key: Key,
        /// What must be there.
        expect: Expect,
    },
    /// Moves every row under a prefix; a row that the target holds already is kept there (first writer wins) and counted.
    ///
    /// Takes memory that does not grow with the number of rows. Moved rows start at version 1.
    Promote {
        /// Where the rows are.
        from_space: Space,
        /// Their common prefix, replaced by `to_prefix`.
        from_prefix: Key,
        /// Where they go.
        to_space: Space,
        /// Their new prefix.
        to_prefix: Key,
    },
    /// As `Promote`, but the source rows stay.
    Copy {
        /// Where the rows are.
        from_space: Space,
        /// Their common prefix, replaced by `to_prefix`.
        from_prefix: Key,
        /// Where they go.
        to_space: Space,
        /// Their new prefix.
        to_prefix: Key,
    },
    /// Deletes every row under a prefix.
    DeletePrefix {
        /// Where.
        space: Space,
        /// The prefix; the empty key empties the space.
        prefix: Key,
    },
    /// Puts a message into the outbox; an item with the same id is left as it is.
    Enqueue(OutboxItem),
    /// Removes every outbox item that waits for this reply.
    Settle {
        /// The `reply_key` of the items; not empty.
        reply_key: Vec<u8>,
    },
    /// Removes one outbox item, settled or not.
    Withdraw {
        /// Which.
        id: OutboxId,
    },
    /// Notes a delivery attempt; an item that was settled meanwhile is no error.
    Attempted {
        /// Which.
        id: OutboxId,
        /// When to try again. Units: Unix milliseconds.
        next_at: u64,
        /// Whether the mailbox acknowledged; removes the item when it settles on delivery.
        delivered: bool,
    },
    /// Sets a timer, replacing the one with the same key.
    SetTimer(Timer),
    /// Clears a timer; an absent one is no error.
    ClearTimer {
        /// Which.
        key: Key,
    },
    /// Appends a leaf; its index is the number of leaves before it, without gaps, decided inside the transaction.
    AppendLeaf {
        /// What the log commits to.
        entry: [u8; 32],
        /// Opaque to the store: for example which answer waits for this leaf.
        note: Vec<u8>,
    },
}

/// The identity of an outbox item, derived from what is sent, so that enqueuing again changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId([u8; 32]);

/// A message to be sent until it is answered or its deadline passes.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Mailbox URL.
    pub to: String,
    /// What to post; empty when `blob` names it. At most [`MAX_BODY_BYTES`].
    pub body: Vec<u8>,
    /// What settles the item (see [`Op::Settle`]); may be empty only if it settles on delivery.
    pub reply_key: Vec<u8>,
    /// First attempt. Units: Unix milliseconds.
    pub not_before: u64,
    /// No attempt from here on. Units: Unix milliseconds.
    pub deadline: u64,
    /// For logs and metrics; never health data.
    pub kind: String,
    /// The object to put as a blob instead of posting a body. The caller keeps the object until the item is gone.
    pub blob: Option<Address>,
    /// Whether the acknowledgement of the mailbox is enough.
    pub settle_on_delivery: bool,
}

impl OutboxItem {
    /// The receiver up to the first slash after `https://`: whoever shares it shares a server, and its slowness.
    #[must_use]
    pub fn host(&self) -> &str {
        const SCHEME: usize = "https://".len();
        let end = self.to.get(SCHEME..).and_then(|rest| rest.find('/'));
        end.and_then(|end| self.to.get(..=SCHEME + end)).unwrap_or(&self.to)
    }
}

/// An outbox item with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueItem {
    /// Its identity.
    pub id: OutboxId,
    /// The item.
    pub item: OutboxItem,
    /// Attempts so far.
    pub attempts: u64,
    /// Whether the mailbox acknowledged it at least once.
    pub delivered: bool,
}

/// Something to look at when its time comes.
#[derive(Clone, PartialEq, Eq)]
pub struct Timer {
    /// Unique among timers.
    pub key: Key,
    /// When. Units: Unix milliseconds.
    pub at: u64,
    /// Opaque to the store.
    pub payload: Vec<u8>,
}

/// An appended leaf.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Position in the log, from 0.
    pub index: u64,
    /// What the log commits to.
    pub entry: [u8; 32],
    /// What was noted beside it.
    pub note: Vec<u8>,
}

/// A named transaction: all of it happens, or none.
///
/// Pure data, so it can be run again: after `CommitError::Unavailable` the outcome is unknown and the same batch may be
/// committed once more; its expectations then tell "happened already" (a conflict) from "did not happen".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// For logs and metrics.
    pub name: &'static str,
    /// Run in order.
    pub ops: Vec<Op>,
}

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Index of each appended leaf, in the order of the operations.
    pub leaf_indexes: Vec<u64>,
    /// What each `Promote` and `Copy` did, in the order of the operations.
    pub promoted: Vec<Promoted>,
}

/// What a `Promote` or `Copy` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Rows that are new at the target.
    pub moved: u64,
    /// Rows that the target held already.
    pub already_held: u64,
}

/// A batch that no back end accepts: our own mistake, never the peer's nor the disk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// More than [`MAX_BATCH_OPS`].
    #[error("the batch has more than {MAX_BATCH_OPS} operations")]
    TooManyOps,
    /// More than [`MAX_BATCH_BYTES`].
    #[error("the batch has more than {MAX_BATCH_BYTES} bytes")]
    TooManyBytes,
    /// A key above [`MAX_KEY_BYTES`].
    #[error("a key is longer than {MAX_KEY_BYTES} bytes")]
    KeyTooLong,
    /// A value above [`MAX_VALUE_BYTES`].
    #[error("a value is longer than {MAX_VALUE_BYTES} bytes")]
    ValueTooLong,
    /// A body above [`MAX_BODY_BYTES`].
    #[error("an outgoing body is longer than {MAX_BODY_BYTES} bytes")]
    BodyTooLong,
    /// An empty key where a row is meant.
    #[error("a row needs a key")]
    EmptyKey,
    /// A reply key that is empty and would match items that wait for nothing.
    #[error("an outbox item needs a reply key unless it settles on delivery")]
    EmptyReplyKey,
    /// A body and a blob at once.
    #[error("an outbox item has a body or a blob, not both")]
    BodyAndBlob,
    /// Source and target of a promotion or copy in one space, which no back end can do in constant memory.
    #[error("a promotion or copy needs two different spaces")]
    SameSpace,
    /// A number above what back ends can hold (2^63 - 1).
    #[error("a time or version is too large")]
    NumberTooLarge,
}

impl OutboxId {
    /// Takes bytes that an id gave out earlier.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl OutboxItem {
    /// The identity: a hash of kind, receiver, reply key and content, but not of times, which differ when a batch is made again.
    pub fn id(&self) -> OutboxId {
        let mut hasher = Hasher::new();
        let blob = self.blob.as_ref().map_or(&[][..], |address| address.as_bytes());
        for part in [self.kind.as_bytes(), self.to.as_bytes(), &self.reply_key, &self.body, blob] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        OutboxId(*hasher.finish().as_bytes())
    }
}

impl Batch {
    /// An empty batch.
    pub const fn new(name: &'static str) -> Self {
        Self { name, ops: Vec::new() }
    }

    /// Appends an operation.
    pub fn with(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Appends a `Put`.
    pub fn put(self, space: Space, key: Key, value: Vec<u8>, expect: Expect) -> Self {
        self.with(Op::Put { space, key, value, expect })
    }

    /// Appends a `Delete`.
    pub fn delete(self, space: Space, key: Key, expect: Expect) -> Self {
        self.with(Op::Delete { space, key, expect })
    }

    /// Checks every bound, before any back end looks at the content; returns the size in bytes.
    pub fn check(&self) -> Result<usize, BatchError> {
        if self.ops.len() > MAX_BATCH_OPS {
            return Err(BatchError::TooManyOps);
        }
        let mut size_bytes = 0;
        for op in &self.ops {
            size_bytes += op.check()?;
            if size_bytes > MAX_BATCH_BYTES {
                return Err(BatchError::TooManyBytes);
            }
        }
        Ok(size_bytes)
    }
}

impl Op {
    fn check(&self) -> Result<usize, BatchError> {
        match self {
            Op::Put { key, value, expect, .. } => {
                check_expect(*expect)?;
                Ok(check_row(key)? + check_value(value)?)
            }
            Op::Delete { key, expect, .. } | Op::Require { key, expect, .. } => {
                check_expect(*expect)?;
                check_row(key)
            }
            Op::Promote { from_space, from_prefix, to_space, to_prefix }
            | Op::Copy { from_space, from_prefix, to_space, to_prefix } => {
                if from_space == to_space {
                    return Err(BatchError::SameSpace);
                }
                Ok(check_key(from_prefix)? + check_key(to_prefix)?)
            }
            Op::DeletePrefix { prefix, .. } => check_key(prefix),
            Op::Enqueue(item) => item.check(),
            Op::Settle { reply_key } => match reply_key.len() {
                0 => Err(BatchError::EmptyReplyKey),
                length if length > MAX_KEY_BYTES => Err(BatchError::KeyTooLong),
                length => Ok(length),
            },
            Op::Withdraw { .. } => Ok(0),
            Op::Attempted { next_at, .. } => check_number(*next_at),
            Op::SetTimer(timer) => {
                check_number(timer.at)?;
                Ok(check_row(&timer.key)? + check_value(&timer.payload)?)
            }
            Op::ClearTimer { key } => check_row(key),
            Op::AppendLeaf { note, .. } => Ok(32 + check_value(note)?),
        }
    }
}

impl OutboxItem {
    fn check(&self) -> Result<usize, BatchError> {
        if self.body.len() > MAX_BODY_BYTES {
            return Err(BatchError::BodyTooLong);
        }
        if self.blob.is_some() && !self.body.is_empty() {
            return Err(BatchError::BodyAndBlob);
        }
        if self.reply_key.is_empty() && !self.settle_on_delivery {
            return Err(BatchError::EmptyReplyKey);
        }
        if [self.reply_key.len(), self.to.len(), self.kind.len()].iter().any(|length| *length > MAX_KEY_BYTES) {
            return Err(BatchError::KeyTooLong);
        }
        check_number(self.not_before)?;
        check_number(self.deadline)?;
        Ok(self.body.len() + self.reply_key.len() + self.to.len() + self.kind.len())
    }
}

fn check_number(number: u64) -> Result<usize, BatchError> {
    i64::try_from(number).map(|_| 0).map_err(|_| BatchError::NumberTooLarge)
}

fn check_expect(expect: Expect) -> Result<usize, BatchError> {
    match expect {
        Expect::Version(version) => check_number(version),
        Expect::Any | Expect::Absent => Ok(0),
    }
}

fn check_key(key: &Key) -> Result<usize, BatchError> {
    let length = key.as_bytes().len();
    if length > MAX_KEY_BYTES { Err(BatchError::KeyTooLong) } else { Ok(length) }
}

fn check_row(key: &Key) -> Result<usize, BatchError> {
    if key.as_bytes().is_empty() { Err(BatchError::EmptyKey) } else { check_key(key) }
}

fn check_value(value: &[u8]) -> Result<usize, BatchError> {
    if value.len() > MAX_VALUE_BYTES { Err(BatchError::ValueTooLong) } else { Ok(value.len()) }
}

// Debug below shows lengths, never content: values, bodies and notes may be health data or keys.

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versioned({}, {} bytes)", self.version, self.value.len())
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Put { space, value, expect, .. } => write!(f, "Put({space:?}, {} bytes, {expect:?})", value.len()),
            Op::Delete { space, expect, .. } => write!(f, "Delete({space:?}, {expect:?})"),
            Op::Require { space, expect, .. } => write!(f, "Require({space:?}, {expect:?})"),
            Op::Promote { from_space, to_space, .. } => write!(f, "Promote({from_space:?}, {to_space:?})"),
            Op::Copy { from_space, to_space, .. } => write!(f, "Copy({from_space:?}, {to_space:?})"),
            Op::DeletePrefix { space, .. } => write!(f, "DeletePrefix({space:?})"),
            Op::Enqueue(item) => write!(f, "Enqueue({item:?})"),
            Op::Settle { .. } => f.write_str("Settle"),
            Op::Withdraw { id } => write!(f, "Withdraw({id:?})"),
            Op::Attempted { id, next_at, delivered } => write!(f, "Attempted({id:?}, {next_at}, {delivered})"),
            Op::SetTimer(timer) => write!(f, "SetTimer({timer:?})"),
            Op::ClearTimer { .. } => f.write_str("ClearTimer"),
            Op::AppendLeaf { entry, .. } => write!(f, "AppendLeaf({})", hex::encode(entry)),
        }
    }
}

impl fmt::Debug for OutboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxId({})", hex::encode(self.0))
    }
}

impl fmt::Debug for OutboxItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxItem({}, {} bytes, deadline {})", self.kind, self.body.len(), self.deadline)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer(at {})", self.at)
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({}, {})", self.index, hex::encode(self.entry))
    }
}
