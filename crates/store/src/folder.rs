//! The data folder of one server: private to its user, and to one process at a time.

use crate::Cause;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOCK_FILE: &str = "lock";
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A data folder, locked for this process until it is dropped.
///
/// Security: folder 0700 and files 0600; looser permissions found on opening are tightened.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder or what is in it cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("the data folder {} is in use by another server; stop it or give this one a folder of its own", .folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The file was written by a newer program.
    #[error("{} has schema {found}, this program knows up to {supported}; run the newer program", .path.display())]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version known here.
        supported: u32,
    },
    /// A database, but of another program.
    #[error("{} is not a Waybill database", .path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The integrity check failed, or the file is no database at all.
    #[error("{} is damaged; restore it from a backup", .path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot open {}", .path.display())]
    Io {
        /// What was to be opened.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Cause,
    },
}

impl DataFolder {
    /// Creates the folder if needed, makes it private and takes its lock.
    ///
    /// Errors: `InUse` when another process, or another value in this one, holds it.
    pub fn open(path: &Path) -> Result<Arc<Self>, OpenError> {
        let io = |error| OpenError::io(path, error);
        private_folder(path).map_err(io)?;
        let lock = open_private(&path.join(LOCK_FILE)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Arc::new(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl OpenError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        OpenError::Io { path: path.to_owned(), cause: Arc::new(error) }
    }
}

/// Creates a folder with its parents, or tightens an existing one, and makes its name durable.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o777 != FOLDER_MODE {
        fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))?;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Creates a file that only this user can read, or tightens an existing one.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Makes the names inside a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_opener_is_told_which_folder_is_in_use() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let first = DataFolder::open(&path).unwrap();
        let error = DataFolder::open(&path).unwrap_err();
        assert!(matches!(&error, OpenError::InUse { folder } if *folder == path), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn folder_and_files_are_private_even_when_they_were_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join(LOCK_FILE), b"").unwrap();
        fs::set_permissions(path.join(LOCK_FILE), Permissions::from_mode(0o644)).unwrap();
        let _folder = DataFolder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::write(&path, b"").unwrap();
        assert!(matches!(DataFolder::open(&path), Err(OpenError::Io { path: named, .. }) if named == path));
    }
}
