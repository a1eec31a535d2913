//! Copies of a hospital's data while it runs, marked as copies, and without what must not be copied: the one-time keys.
//!
//! What is restored from one starts a new incarnation ([`super::incarnation`]): it must not go on with sessions that went on without it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::wire::to_cbor;
use waybill_store::{
    Batch, CommitError, DataFolder, Expect, FileObjects, ObjectError, Objects, OpenError, Space, SqliteOptions,
    SqliteStore, Store,
};

use super::incarnation::backup_mark;

/// Objects listed at once.
const PAGE: usize = 500;

/// A copy could not be made.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is something at the place already.
    #[error("{0} exists already; name a new folder")]
    Exists(PathBuf),
    /// A relative path would be the server's, not the caller's.
    #[error("{0} is not an absolute path")]
    Relative(PathBuf),
    /// The copy's folder or database.
    #[error("the copy cannot be opened")]
    Open(#[from] OpenError),
    /// The copy's database.
    #[error("the copy cannot be marked")]
    Commit(#[from] CommitError),
    /// An object.
    #[error("an object cannot be copied")]
    Object(#[from] ObjectError),
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Objects.
    pub objects: u64,
    /// Their bytes. Units: bytes.
    pub size_bytes: u64,
}

/// Copies one running hospital's data.
#[derive(Clone)]
pub struct Copier {
    /// Its database.
    pub store: Arc<SqliteStore>,
    /// Its objects.
    pub objects: Arc<FileObjects>,
}

impl Copier {
    /// Copies database and objects to a new folder, which can be started as a hospital's data folder.
    ///
    /// Objects are copied before and after the database: one that the database names was there before it was copied, or is there after. What
    /// is deleted in between belongs to sessions, which do not survive a restore.
    ///
    /// # Errors
    /// [`BackupError`]; a copy that failed is left where it is, unmarked and incomplete, for a person to remove.
    pub async fn copy(&self, to: &Path, now: Timestamp) -> Result<Copied, BackupError> {
        if !to.is_absolute() {
            return Err(BackupError::Relative(to.to_owned()));
        }
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let folder = DataFolder::open(to)?;
        let objects = FileObjects::open(folder.clone(), None)?;
        let mut copied = Copied::default();
        self.copy_objects(&objects, &mut copied).await?;
        self.store.copy_to(&folder).await?;
        self.copy_objects(&objects, &mut copied).await?;
        let store = SqliteStore::open(folder, SqliteOptions::default()).await?;
        let mark = Batch::new("backup-mark").put(Space::Setting, backup_mark(), to_cbor(&now), Expect::Any);
        store.commit(mark).await?;
        store.close().await;
        Ok(copied)
    }

    async fn copy_objects(&self, to: &FileObjects, copied: &mut Copied) -> Result<(), BackupError> {
        let mut after = None;
        loop {
            let page = self.objects.list(after.as_ref(), PAGE).await?;
            for address in &page {
                if to.exists(address).await? {
                    continue;
                }
                match self.objects.get(address).await {
                    Ok(bytes) => {
                        (copied.objects, copied.size_bytes) =
                            (copied.objects + 1, copied.size_bytes + bytes.len() as u64);
                        to.put(bytes).await?;
                    }
                    // Deleted since it was listed.
                    Err(ObjectError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().copied();
        }
    }
}
