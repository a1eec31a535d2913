//! The wallet file: one encrypted state, replaced as a whole or not at all.
//!
//! Bytes: `"waybill wallet\n"` and a version byte; a CBOR array of the file key sealed under the passphrase (Argon2id and
//! AES-256-GCM, see `waybill_crypto::passphrase`), a nonce, and the state sealed under the file key with everything before as
//! additional data; SHA-256 over all of that. The digest tells a damaged file from a wrong passphrase. The file key makes saving
//! cheap: Argon2id runs once when the wallet is opened, not once a step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::passphrase::{self, Cost, PassphraseError};
use waybill_protocol::wire::{from_cbor, to_cbor};
use zeroize::Zeroizing;

const MAGIC: &[u8; 15] = b"waybill wallet\n";
/// The version this code writes and reads.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1;
const DIGEST_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// What the passphrase seals here; the same passphrase's other files do not open as a wallet.
const PURPOSE: &str = "wallet";

/// The largest wallet file. Units: bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why the wallet file could not be read or written. Carries paths, never content.
#[derive(Debug, Error)]
pub enum FileError {
    /// There is a file already; a wallet is never overwritten.
    #[error("{0} exists already: choose another path, or open it")]
    Exists(PathBuf),
    /// No such file.
    #[error("there is no wallet at {0}")]
    Missing(PathBuf),
    /// Another process has it open.
    #[error("{0} is in use by another process: close that one first")]
    Locked(PathBuf),
    /// Something else than a wallet.
    #[error("{0} is not a wallet file")]
    NotAWallet(PathBuf),
    /// Written by another version.
    #[error("{path} is of version {version}, which this program does not read: update it")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// Cut short or changed.
    #[error("{0} is damaged: restore a copy, or recover the keys from the recovery code")]
    Damaged(PathBuf),
    /// Larger than any wallet.
    #[error("{path} has more than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is wrong.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// An empty passphrase.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The passphrase could not be turned into a key.
    #[error("the passphrase could not be turned into a key")]
    Derivation(#[source] PassphraseError),
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What follows the header.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Body {
    #[cbor(n(0), with = "minicbor::bytes")]
    sealed_key: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(2), with = "minicbor::bytes")]
    sealed_state: Vec<u8>,
}

/// An open wallet file; holds a lock beside it (`<path>.lock`) until dropped.
pub struct WalletFile {
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
    sealed_key: Vec<u8>,
    // Held, not read: the lock ends with it.
    _lock: File,
}

impl std::fmt::Debug for WalletFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WalletFile({})", self.path.display())
    }
}

impl WalletFile {
    /// Makes a new file; what is there already stays untouched.
    ///
    /// # Errors
    /// [`FileError::Exists`], [`FileError::Locked`], [`FileError::EmptyPassphrase`], [`FileError::Io`].
    pub fn create(
        backend: &dyn Backend,
        path: &Path,
        passphrase: &str,
        cost: Cost,
        state: &[u8],
    ) -> Result<Self, FileError> {
        let lock = lock(path)?;
        // Under the lock, so that two processes cannot both find nothing. A dangling link counts as something.
        match fs::symlink_metadata(path) {
            Ok(_) => return Err(FileError::Exists(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FileError::Io { doing: "look at", path: path.to_owned(), source }),
        }
        let mut key = Zeroizing::new([0; 32]);
        backend.random(key.as_mut_slice());
        let sealed_key = seal_key(backend, passphrase, cost, &key)?;
        let file = Self { path: path.to_owned(), key, sealed_key, _lock: lock };
        file.save(backend, state)?;
        Ok(file)
    }

    /// Opens a file and gives the state in it.
    ///
    /// # Errors
    /// [`FileError`]: bounds and form first, then damage, then the passphrase.
    pub fn open(backend: &dyn Backend, path: &Path, passphrase: &str) -> Result<(Self, Zeroizing<Vec<u8>>), FileError> {
        if !path.try_exists().map_err(|source| FileError::Io { doing: "look at", path: path.to_owned(), source })? {
            return Err(FileError::Missing(path.to_owned()));
        }
        let lock = lock(path)?;
        let bytes = read(path)?;
        let Body { sealed_key, nonce, sealed_state } = unwrap(path, &bytes)?;
        let key = open_key(backend, passphrase, &sealed_key)?;
        let damaged = || FileError::Damaged(path.to_owned());
        let mut state = Zeroizing::new(sealed_state);
        let length = state.len().checked_sub(TAG_BYTES).ok_or_else(damaged)?;
        let tag: [u8; TAG_BYTES] = state[length..].try_into().expect("the tag's length was split off");
        state.truncate(length);
        backend.aead_open(&key, &nonce, &additional(&sealed_key), &mut state, &tag).map_err(|_| damaged())?;
        Ok((Self { path: path.to_owned(), key, sealed_key, _lock: lock }, state))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the state: written beside, made durable, renamed over the old one, the folder made durable too.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::TooLarge`]; the old file is then still whole.
    pub fn save(&self, backend: &dyn Backend, state: &[u8]) -> Result<(), FileError> {
        let mut nonce = [0; 12];
        // Random: 2^32 saves would be needed before a repetition becomes likely enough to matter.
        backend.random(&mut nonce);
        let mut sealed_state = Vec::with_capacity(state.len() + TAG_BYTES);
        sealed_state.extend_from_slice(state);
        let tag = backend.aead_seal(&self.key, &nonce, &additional(&self.sealed_key), &mut sealed_state);
        sealed_state.extend_from_slice(&tag);
        let body = Body { sealed_key: self.sealed_key.clone(), nonce, sealed_state };
        let mut bytes = header().to_vec();
        bytes.extend_from_slice(&to_cbor(&body));
        let digest = sha256(&[&bytes]);
        bytes.extend_from_slice(digest.as_bytes());
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(FileError::TooLarge { path: self.path.clone() });
        }
        replace(&self.path, &bytes)
    }

    /// Seals the file key under another passphrase. The state must be saved with it: the additional data names both.
    ///
    /// # Errors
    /// [`FileError::EmptyPassphrase`], [`FileError::Io`]; the old passphrase then still holds.
    pub fn change_passphrase(
        &mut self,
        backend: &dyn Backend,
        passphrase: &str,
        cost: Cost,
        state: &[u8],
    ) -> Result<(), FileError> {
        let sealed_key = seal_key(backend, passphrase, cost, &self.key)?;
        let old = std::mem::replace(&mut self.sealed_key, sealed_key);
        self.save(backend, state).inspect_err(|_| self.sealed_key = old)
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut out = [VERSION; HEADER_BYTES];
    out[..MAGIC.len()].copy_from_slice(MAGIC);
    out
}

/// What the sealed state is bound to: the header and the sealed key, so that no part can come from another file.
fn additional(sealed_key: &[u8]) -> Vec<u8> {
    [&header(), sealed_key].concat()
}

fn unwrap(path: &Path, bytes: &[u8]) -> Result<Body, FileError> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(FileError::NotAWallet(path.to_owned()));
    }
    let damaged = || FileError::Damaged(path.to_owned());
    let version = *bytes.get(MAGIC.len()).ok_or_else(damaged)?;
    if version != VERSION {
        return Err(FileError::Version { path: path.to_owned(), version });
    }
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or_else(damaged)?;
    if content.len() < HEADER_BYTES || sha256(&[content]).0 != *digest {
        return Err(damaged());
    }
    from_cbor("wallet file", &content[HEADER_BYTES..], content.len()).map_err(|_| damaged())
}

fn seal_key(backend: &dyn Backend, passphrase: &str, cost: Cost, key: &[u8; 32]) -> Result<Vec<u8>, FileError> {
    if passphrase.is_empty() {
        return Err(FileError::EmptyPassphrase);
    }
    passphrase::seal(backend, passphrase, cost, PURPOSE, key).map_err(FileError::Derivation)
}

fn open_key(backend: &dyn Backend, passphrase: &str, sealed_key: &[u8]) -> Result<Zeroizing<[u8; 32]>, FileError> {
    let plain = passphrase::open(backend, passphrase, PURPOSE, sealed_key).map_err(|error| match error {
        PassphraseError::Wrong => FileError::WrongPassphrase,
        other => FileError::Derivation(other),
    })?;
    let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| FileError::WrongPassphrase)?;
    Ok(Zeroizing::new(key))
}

/// A path beside the wallet's.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

/// Security: readable by its owner only; secrets must not pass through a file with a wider mode even for a moment.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Locks a file beside the wallet: the wallet itself is another file after every save.
fn lock(path: &Path) -> Result<File, FileError> {
    let lock_path = beside(path, ".lock");
    let file = private().truncate(false).open(&lock_path);
    let file = file.map_err(|source| FileError::Io { doing: "make", path: lock_path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(FileError::Io { doing: "lock", path: lock_path, source }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Io { doing: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, without trusting its stated length.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(FileError::TooLarge { path: path.to_owned() }) } else { Ok(bytes) }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fresh = beside(path, ".new");
    let failed = |doing, path: &Path, source| FileError::Io { doing, path: path.to_owned(), source };
    // What a crash left behind is of no use; a new file also gets the right mode.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &fresh, error)),
        _ => {}
    }
    let write = || -> io::Result<()> {
        let mut file = private().create_new(true).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| failed("write", &fresh, source))?;
    fs::rename(&fresh, path).map_err(|source| failed("replace", path, source))?;
    sync_folder(path).map_err(|source| failed("make durable", path, source))
}

/// A rename is durable only when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::portable::Portable;

    const PASSPHRASE: &str = "correct horse battery staple";

    fn backend() -> Portable {
        Portable::from_seed([4; 32])
    }

    fn made(state: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet");
        drop(WalletFile::create(&backend(), &path, PASSPHRASE, Cost::LEAST, state).unwrap());
        (folder, path)
    }

    fn open(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        WalletFile::open(&backend(), path, PASSPHRASE).map(|(_, state)| state)
    }

    #[test]
    fn what_is_saved_reads_back_and_stands_nowhere_in_the_clear() {
        let (_folder, path) = made(b"the first state of it");
        let (file, state) = WalletFile::open(&backend(), &path, PASSPHRASE).unwrap();
        assert_eq!(**state, *b"the first state of it");
        file.save(&backend(), b"the second").unwrap();
        drop(file);
        assert_eq!(**open(&path).unwrap(), *b"the second");
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"second"));
        assert!(!beside(&path, ".new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, path) = made(b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_wrong_and_an_empty_passphrase_are_clear_errors() {
        let (_folder, path) = made(b"x");
        let wrong = WalletFile::open(&backend(), &path, "Correct horse battery staple");
        assert!(matches!(wrong, Err(FileError::WrongPassphrase)));
        let other = path.with_file_name("other");
        assert!(matches!(
            WalletFile::create(&backend(), &other, "", Cost::LEAST, b"x"),
            Err(FileError::EmptyPassphrase)
        ));
        assert!(!other.exists());
    }

    #[test]
    fn damage_is_told_from_a_wrong_passphrase_wherever_it_is() {
        let (_folder, path) = made(b"some state");
        let whole = fs::read(&path).unwrap();
        for place in HEADER_BYTES..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            assert!(matches!(unwrap(&path, &bytes), Err(FileError::Damaged(_))), "byte {place}");
        }
        for length in 0..whole.len() {
            assert!(matches!(unwrap(&path, &whole[..length]), Err(FileError::Damaged(_))), "length {length}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(open(&path), Err(FileError::Damaged(_))));
    }

    #[test]
    fn parts_of_two_files_do_not_make_one() {
        let (_folder, path) = made(b"some state");
        let body = unwrap(&path, &fs::read(&path).unwrap()).unwrap();
        let (file, _) = WalletFile::open(&backend(), &path, PASSPHRASE).unwrap();
        let other =
            WalletFile { sealed_key: seal_key(&backend(), PASSPHRASE, Cost::LEAST, &file.key).unwrap(), ..file };
        other.save(&backend(), b"other state").unwrap();
        let mixed = Body { sealed_key: body.sealed_key, ..unwrap(&path, &fs::read(&path).unwrap()).unwrap() };
        let mut bytes = [header().as_slice(), &to_cbor(&mixed)].concat();
        bytes.extend_from_slice(&sha256(&[&bytes]).0);
        fs::write(&path, &bytes).unwrap();
        drop(other);
        assert!(matches!(open(&path), Err(FileError::Damaged(_))));
    }

    #[test]
    fn other_files_and_versions_are_named() {
        let (_folder, path) = made(b"x");
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len()] = 2;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(open(&path), Err(FileError::Version { version: 2, .. })));
        fs::write(&path, b"{\"resourceType\":\"Patient\"}").unwrap();
        assert!(matches!(open(&path), Err(FileError::NotAWallet(_))));
        assert!(matches!(open(&path.with_file_name("none")), Err(FileError::Missing(_))));
    }

    #[test]
    fn a_wallet_is_never_overwritten_and_opened_once_at_a_time() {
        let (_folder, path) = made(b"precious");
        let (file, _) = WalletFile::open(&backend(), &path, PASSPHRASE).unwrap();
        assert!(matches!(open(&path), Err(FileError::Locked(_))));
        drop(file);
        assert!(matches!(
            WalletFile::create(&backend(), &path, PASSPHRASE, Cost::LEAST, b"new"),
            Err(FileError::Exists(_))
        ));
        assert_eq!(**open(&path).unwrap(), *b"precious");
    }

    #[test]
    fn what_a_crash_left_beside_it_does_no_harm() {
        let (_folder, path) = made(b"old");
        fs::write(beside(&path, ".new"), b"half a wal").unwrap();
        let (file, state) = WalletFile::open(&backend(), &path, PASSPHRASE).unwrap();
        assert_eq!(**state, *b"old");
        file.save(&backend(), b"new").unwrap();
        drop(file);
        assert_eq!(**open(&path).unwrap(), *b"new");
    }

    #[test]
    fn another_passphrase_opens_after_the_change_and_the_old_one_does_not() {
        let (_folder, path) = made(b"x");
        let (mut file, state) = WalletFile::open(&backend(), &path, PASSPHRASE).unwrap();
        file.change_passphrase(&backend(), "another", Cost::LEAST, &state).unwrap();
        drop(file);
        assert!(matches!(open(&path), Err(FileError::WrongPassphrase)));
        assert_eq!(**WalletFile::open(&backend(), &path, "another").unwrap().1, *b"x");
    }
}
