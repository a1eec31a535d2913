//! A consistent copy of a running server's data folder.

use std::path::Path;

use thiserror::Error;
use waybill_store::{DataFolder, FileObjects, ObjectError, Objects, OpenError, SqliteStore};

/// Addresses of one page.
const PAGE: usize = 1000;

/// A backup that was not made. What was written by then is no backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The target folder, or the copy of the database in it.
    #[error("the database cannot be copied")]
    Folder(#[from] OpenError),
    /// An object.
    #[error("an object cannot be copied")]
    Object(#[from] ObjectError),
}

/// Copies database and objects into a new data folder; gives how many objects. The server goes on meanwhile.
///
/// The database is as of one instant. Objects are copied before and after it, so that every object that a row of that instant points
/// at is in the copy, unless it was deleted meanwhile because nobody needed it any more.
///
/// # Errors
/// [`BackupError`]; an existing database is never overwritten.
pub async fn copy(store: &SqliteStore, objects: &dyn Objects, to: &Path) -> Result<u64, BackupError> {
    let folder = DataFolder::open(to)?;
    let target = FileObjects::open(folder.clone(), None)?;
    let before = copy_objects(objects, &target).await?;
    store.copy_to(&folder).await?;
    Ok(before + copy_objects(objects, &target).await?)
}

async fn copy_objects(from: &dyn Objects, to: &FileObjects) -> Result<u64, BackupError> {
    let (mut after, mut copied) = (None, 0);
    loop {
        let page = from.list(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(copied) };
        after = Some(*last);
        for address in &page {
            if to.exists(address).await? {
                continue;
            }
            match from.get(address).await {
                Ok(bytes) => {
                    to.put(bytes).await?;
                    copied += 1;
                }
                // Deleted since it was listed.
                Err(_) if !from.exists(address).await? => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
