//! Durable storage behind traits that say what they guarantee.
//!
//! The crate knows no protocol: it keeps opaque values in named [`Space`]s, an outbox, timers and an
//! append-only list of leaves ([`Store`]), and opaque bytes under their SHA-256 ([`Objects`]).
//! Every change is one [`Batch`]: pure data, so it can be run again, and all or nothing.
//! Objects are written first; then one batch flips the rows that point at them *and* enqueues the outgoing message.
//!
//! Back ends: [`MemoryStore`] and [`MemoryObjects`] for tests and simulation, [`SqliteStore`] and
//! [`FileObjects`] for servers. Whatever passes the `conformance` suite may replace them.

mod address;
mod batch;
mod change;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod files;
mod folder;
mod key;
mod memory;
mod space;
mod sqlite;
mod traits;

pub use address::{Address, AddressError, Hasher};
pub use batch::{
    Batch, BatchError, Committed, DueItem, Expect, Leaf, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_BODY_BYTES, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, Op, OutboxId, OutboxItem, Promoted, Timer, Versioned,
};
pub use change::{Area, Changes};
pub use error::{Cause, CommitError, ObjectError, StoreError};
pub use files::FileObjects;
pub use folder::{DataFolder, OpenError};
pub use key::{Key, KeyBuilder, KeyError, KeyReader};
pub use memory::{MemoryObjects, MemoryStore};
pub use space::Space;
pub use sqlite::{DATABASE_FILE, DumpedRow, SqliteOptions, SqliteStore, dump};
pub use traits::{ByteStream, MAX_OBJECT_IN_MEMORY, MAX_PAGE, Objects, Store, Stored};
