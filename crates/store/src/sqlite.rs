//! The embedded back end: SQLite with a write-ahead log, full durability and group commit.
//!
//! One writer task owns the only writing connection; readers use a pool of their own and are never blocked by it.

mod apply;
mod dump;
mod error;
mod read;
mod schema;
mod sql;
mod writer;

pub use dump::{DATABASE_FILE, DumpedRow, dump};

use crate::folder::open_private;
use crate::{Batch, Cause, Changes, CommitError, Committed, DataFolder, OpenError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const FILE: &str = "waybill.sqlite";
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE_BATCHES: usize = 256;
const STATEMENTS: usize = 512;

/// How to open a [`SqliteStore`].
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Connections for reading.
    pub readers: u32,
    /// Quota in pages of 4 KiB, as the disk's own limit when absent.
    pub max_pages: Option<u32>,
    /// Refuse every batch, for looking at a store.
    pub read_only: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { readers: 4, max_pages: None, read_only: false }
    }
}

/// A [`crate::Store`] in one SQLite file of a data folder.
///
/// Dropping a `commit` future does not take the batch back: it may still be committed.
pub struct SqliteStore {
    readers: SqlitePool,
    requests: Mutex<Option<mpsc::Sender<writer::Request>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    changes: Arc<Changes>,
    folder: Arc<DataFolder>,
}

impl SqliteStore {
    /// Opens the store of a folder, creating or upgrading it; must be called inside a Tokio runtime.
    ///
    /// Errors: a damaged, foreign or newer database is refused and left as it is.
    pub async fn open(folder: Arc<DataFolder>, options: SqliteOptions) -> Result<Self, OpenError> {
        let path = folder.path().join(FILE);
        // SQLite creates its side files with the permissions of the main file, so the main file is made private first
        open_private(&path).map_err(|error| OpenError::io(&path, error))?;
        let connection = schema::open(&path, &writing(&path, &options)).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .test_before_acquire(false)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(connect(&path).pragma("query_only", "ON"))
            .await
            .map_err(|error| error::open(&path, error))?;
        let changes = Arc::new(Changes::new());
        let (requests, incoming) = mpsc::channel(QUEUE_BATCHES);
        let writer = writer::Writer::new(connection, writing(&path, &options), Arc::clone(&changes));
        let task = tokio::spawn(writer.run(incoming));
        Ok(Self { readers, requests: Mutex::new(Some(requests)), task: Mutex::new(Some(task)), changes, folder })
    }

    /// Commits what was handed in before, then closes the file; later calls fail with `Closed`.
    pub async fn close(&self) {
        let requests = self.requests.lock().expect("no holder of this lock panics").take();
        // the writer goes last: two connections that close at once each leave the other to fold the log into the file
        self.readers.close().await;
        drop(requests);
        let task = self.task.lock().expect("no holder of this lock panics").take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writer ended badly");
        }
    }

    /// Writes a consistent copy of the database into another data folder, while this one is in use.
    ///
    /// # Errors
    /// [`OpenError`]; the copy is then not whole.
    pub async fn copy_to(&self, folder: &DataFolder) -> Result<(), OpenError> {
        let (from, to) = (self.folder.path().join(FILE), folder.path().join(FILE));
        let io = |error| error::open(&to, error);
        let text = to.to_str().ok_or_else(|| OpenError::io(&to, std::io::ErrorKind::InvalidInput.into()))?;
        let mut connection = connect(&from).connect().await.map_err(io)?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&mut connection).await.map_err(io)?;
        connection.close().await.map_err(io)
    }

    async fn hand_in(&self, batch: Batch) -> Result<Committed, CommitError> {
        let size_bytes = batch.check().map_err(CommitError::Invalid)?;
        let requests = self.requests.lock().expect("no holder of this lock panics").clone();
        let (answer, outcome) = oneshot::channel();
        let request = writer::Request { batch, size_bytes, answer };
        requests.ok_or(CommitError::Closed)?.send(request).await.map_err(|_| CommitError::Closed)?;
        // the writer answers everything it takes; losing it in between leaves the outcome open
        outcome.await.map_err(|error| CommitError::Unavailable(Arc::new(error) as Cause))?
    }
}

fn connect(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS)
        // sorted and undone pages are health data: they stay in memory, never in a shared folder for temporary files
        .pragma("temp_store", "MEMORY")
        .pragma("secure_delete", "FAST")
        .pragma("trusted_schema", "OFF")
        .pragma("journal_size_limit", "67108864")
}

fn writing(path: &Path, options: &SqliteOptions) -> SqliteConnectOptions {
    let mut connect = connect(path);
    if let Some(pages) = options.max_pages {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    if options.read_only {
        connect = connect.pragma("query_only", "ON");
    }
    connect
}

#[cfg(test)]
mod tests;
