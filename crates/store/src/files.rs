//! Objects as files, named by their hash, two digits a folder.

use crate::folder::{private_folder, sync_folder};
use crate::{
    Address, ByteStream, Cause, DataFolder, Hasher, MAX_OBJECT_IN_MEMORY, MAX_PAGE, ObjectError, Objects, OpenError,
    Stored,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const FOLDER: &str = "objects";
const INCOMING: &str = "incoming";
const FILE_MODE: u32 = 0o600;
const PIECE: usize = 256 * 1024;
const WRITE_AT: usize = 1024 * 1024;

/// [`Objects`] in files of a data folder.
///
/// An object is written to `objects/incoming`, flushed, renamed to `objects/ab/cdef...` and the folder flushed, in this order.
/// What a crash leaves in `incoming` is removed at the next start.
pub struct FileObjects {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    quota_bytes: u64,
    used_bytes: AtomicU64,
    serial: AtomicU64,
    /// Held while a name appears or disappears, so that racing puts of the same bytes count once.
    naming: Mutex<()>,
    _folder: Arc<DataFolder>,
}

/// A file in `incoming`, counted against the quota from its first byte; removed and discounted unless it got its name.
struct Incoming {
    inner: Arc<Inner>,
    path: PathBuf,
    file: File,
    size_bytes: u64,
    named: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.named {
            self.inner.used_bytes.fetch_sub(self.size_bytes, Ordering::Relaxed);
            // what cannot be removed now is removed at the next start
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Incoming {
    fn begin(inner: &Arc<Inner>) -> Result<Self, ObjectError> {
        let path = inner.root.join(INCOMING).join(inner.serial.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path).map_err(object_error)?;
        Ok(Self { inner: Arc::clone(inner), path, file, size_bytes: 0, named: false })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        let room = |used: u64| used.checked_add(bytes.len() as u64).filter(|used| *used <= self.inner.quota_bytes);
        if self.inner.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return Err(object_error(io::Error::from(ErrorKind::QuotaExceeded)));
        }
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(object_error)
    }

    /// Gives the complete file its name, durably; a whole copy that is there already stays.
    fn finish(mut self, address: Address) -> Result<(), ObjectError> {
        if self.inner.holds_whole(&address)? {
            return Ok(());
        }
        let (shelf, file) = self.inner.place(&address);
        self.file.sync_all().map_err(object_error)?;
        let naming = self.inner.naming.lock().expect("no holder of this lock panics");
        let replaced = fs::metadata(&file).map_or(0, |old| old.len());
        fs::rename(&self.path, &file).map_err(object_error)?;
        self.named = true;
        self.inner.used_bytes.fetch_sub(replaced, Ordering::Relaxed);
        drop(naming);
        sync_folder(&shelf).map_err(object_error)
    }
}

impl FileObjects {
    /// Opens the objects of a folder, creating what is missing and removing what a crash left half written.
    pub fn open(folder: Arc<DataFolder>, quota_bytes: Option<u64>) -> Result<Self, OpenError> {
        let root = folder.path().join(FOLDER);
        let used_bytes = prepare(&root).map_err(|error| OpenError::io(&root, error))?;
        let inner = Inner {
            root,
            quota_bytes: quota_bytes.unwrap_or(u64::MAX),
            used_bytes: AtomicU64::new(used_bytes),
            serial: AtomicU64::new(0),
            naming: Mutex::default(),
            _folder: folder,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs blocking file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| Err(ObjectError::Unavailable(Arc::new(error))))
    }
}

/// Creates the folders, empties `incoming`, and adds up what is stored.
fn prepare(root: &Path) -> io::Result<u64> {
    private_folder(root)?;
    private_folder(&root.join(INCOMING))?;
    for entry in fs::read_dir(root.join(INCOMING))? {
        fs::remove_file(entry?.path())?;
    }
    let mut used_bytes = 0;
    for shelf in 0..=u8::MAX {
        let shelf = root.join(hex::encode([shelf]));
        if !shelf.is_dir() {
            private_folder(&shelf)?;
        }
        for entry in fs::read_dir(shelf)? {
            used_bytes += entry?.metadata()?.len();
        }
    }
    Ok(used_bytes)
}

fn object_error(error: io::Error) -> ObjectError {
    let kind = error.kind();
    let cause: Cause = Arc::new(error);
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ObjectError::Full(cause),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => ObjectError::ReadOnly(cause),
        _ => ObjectError::Unavailable(cause),
    }
}

fn missing_or(address: &Address) -> impl Fn(io::Error) -> ObjectError {
    let address = *address;
    move |error| match error.kind() {
        ErrorKind::NotFound => ObjectError::NotFound(address),
        _ => object_error(error),
    }
}

impl Inner {
    fn place(&self, address: &Address) -> (PathBuf, PathBuf) {
        let name = address.to_string();
        let shelf = self.root.join(&name[..2]);
        let file = shelf.join(&name[2..]);
        (shelf, file)
    }

    /// Whether an undamaged copy is there already; then its name is durable as well.
    fn holds_whole(&self, address: &Address) -> Result<bool, ObjectError> {
        match self.read(address, None) {
            // whoever renamed it may not have flushed the folder yet
            Ok(_) => sync_folder(&self.place(address).0).map_err(object_error).map(|()| true),
            Err(ObjectError::NotFound(_) | ObjectError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hashes the whole object and keeps the wanted part.
    fn read(&self, address: &Address, wanted: Option<Range<u64>>) -> Result<Vec<u8>, ObjectError> {
        let mut file = File::open(self.place(address).1).map_err(missing_or(address))?;
        let size_bytes = file.metadata().map_err(object_error)?.len();
        let wanted = wanted.unwrap_or(0..0);
        if wanted.start > wanted.end || wanted.end > size_bytes {
            return Err(ObjectError::OutOfRange);
        }
        let length = wanted.end - wanted.start;
        if length > MAX_OBJECT_IN_MEMORY {
            return Err(ObjectError::TooLarge { limit_bytes: MAX_OBJECT_IN_MEMORY });
        }
        let mut kept = Vec::with_capacity(length as usize);
        let mut piece = vec![0; PIECE.min(size_bytes as usize).max(1)];
        let mut hasher = Hasher::new();
        let mut position = 0;
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(object_error(error)),
            };
            hasher.update(&piece[..count]);
            let end = position + count as u64;
            let from = wanted.start.clamp(position, end) - position;
            let to = wanted.end.clamp(position, end) - position;
            kept.extend_from_slice(&piece[from as usize..to as usize]);
            position = end;
        }
        if hasher.finish() == *address { Ok(kept) } else { Err(ObjectError::Damaged(*address)) }
    }

    fn size(&self, address: &Address) -> Result<Option<u64>, ObjectError> {
        match fs::metadata(self.place(address).1) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(object_error(error)),
        }
    }

    fn delete(&self, address: &Address) -> Result<bool, ObjectError> {
        let naming = self.naming.lock().expect("no holder of this lock panics");
        let Some(size_bytes) = self.size(address)? else { return Ok(false) };
        let (shelf, file) = self.place(address);
        match fs::remove_file(file) {
            Ok(()) => {
                self.used_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
                drop(naming);
                sync_folder(&shelf).map_err(object_error)?;
                Ok(true)
            }
            Err(error) => Err(object_error(error)),
        }
    }

    fn list(&self, after: Option<Address>, limit: usize) -> Result<Vec<Address>, ObjectError> {
        let limit = limit.min(MAX_PAGE);
        let mut found = Vec::new();
        for shelf in after.map_or(0, |after| after.as_bytes()[0])..=u8::MAX {
            let shelf = hex::encode([shelf]);
            let mut names = Vec::new();
            for entry in fs::read_dir(self.root.join(&shelf)).map_err(object_error)? {
                let name = entry.map_err(object_error)?.file_name();
                // anything else in the folder is not ours to name
                names.extend(name.to_str().and_then(|name| Address::parse(&format!("{shelf}{name}")).ok()));
            }
            names.sort_unstable();
            found.extend(names.into_iter().filter(|address| after.is_none_or(|after| *address > after)));
            if found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

#[async_trait]
impl Objects for FileObjects {
    async fn put(&self, bytes: Bytes) -> Result<Address, ObjectError> {
        self.blocking(move |inner| {
            let address = Address::of(&bytes);
            if !inner.holds_whole(&address)? {
                let mut incoming = Incoming::begin(inner)?;
                incoming.append(&bytes)?;
                incoming.finish(address)?;
            }
            Ok(address)
        })
        .await
    }

    async fn put_stream(
        &self,
        mut stream: ByteStream<'_>,
        limit_bytes: u64,
        expected: Option<Address>,
    ) -> Result<Stored, ObjectError> {
        let mut incoming = self.blocking(Incoming::begin).await?;
        let mut hasher = Hasher::new();
        let mut waiting = Vec::new();
        let mut size_bytes = 0;
        loop {
            let piece = stream.next().await.transpose().map_err(|error| ObjectError::Stream(Arc::new(error)))?;
            let ended = piece.is_none();
            if let Some(piece) = piece {
                size_bytes += piece.len() as u64;
                if size_bytes > limit_bytes {
                    return Err(ObjectError::TooLarge { limit_bytes });
                }
                waiting.extend_from_slice(&piece);
            }
            if ended || waiting.len() >= WRITE_AT {
                let bytes = std::mem::take(&mut waiting);
                let write = move |_: &Arc<Inner>| {
                    hasher.update(&bytes);
                    incoming.append(&bytes).map(|()| (incoming, hasher))
                };
                (incoming, hasher) = self.blocking(write).await?;
            }
            if ended {
                break;
            }
        }
        let address = hasher.finish();
        if let Some(expected) = expected.filter(|expected| *expected != address) {
            return Err(ObjectError::Mismatch { expected, found: address });
        }
        self.blocking(move |_| incoming.finish(address)).await?;
        Ok(Stored { address, size_bytes })
    }

    async fn get(&self, address: &Address) -> Result<Bytes, ObjectError> {
        let address = *address;
        self.blocking(move |inner| {
            let size_bytes = inner.size(&address)?.ok_or(ObjectError::NotFound(address))?;
            match inner.read(&address, Some(0..size_bytes)) {
                // it shrank between the two looks, which a whole object never does
                Err(ObjectError::OutOfRange) => Err(ObjectError::Damaged(address)),
                other => other.map(Bytes::from),
            }
        })
        .await
    }

    async fn range(&self, address: &Address, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let address = *address;
        self.blocking(move |inner| inner.read(&address, Some(range)).map(Bytes::from)).await
    }

    async fn size(&self, address: &Address) -> Result<Option<u64>, ObjectError> {
        let address = *address;
        self.blocking(move |inner| inner.size(&address)).await
    }

    async fn delete(&self, address: &Address) -> Result<bool, ObjectError> {
        let address = *address;
        self.blocking(move |inner| inner.delete(&address)).await
    }

    async fn list(&self, after: Option<&Address>, limit: usize) -> Result<Vec<Address>, ObjectError> {
        let after = after.copied();
        self.blocking(move |inner| inner.list(after, limit)).await
    }

    async fn total_size(&self) -> Result<u64, ObjectError> {
        Ok(self.inner.used_bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
