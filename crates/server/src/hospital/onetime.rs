//! One-time private keys, in a folder of their own that backups leave out: what is destroyed here is gone.
//!
//! Security: forward secrecy of a record's transfer rests on these files. A restored backup must not bring one back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use waybill_crypto::keys::{Digest, HpkeSecretKey};
use zeroize::Zeroizing;

use super::incarnation::Outside;

/// The file that says to which incarnation of the database the keys belong.
const INCARNATION: &str = "incarnation";

/// The folder of one-time keys.
#[derive(Debug, Clone)]
pub struct OneTimeKeys {
    folder: PathBuf,
}

impl OneTimeKeys {
    /// Opens or makes the folder (mode 0700).
    ///
    /// # Errors
    /// Any [`io::Error`] of making it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Which incarnation of the database the keys belong to; `None` in a new folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file that does not read back; otherwise as reading.
    pub fn outside(&self) -> io::Result<Option<Outside>> {
        match fs::read(self.folder.join(INCARNATION)) {
            Ok(bytes) => minicbor::decode(&bytes).map(Some).map_err(|_| io::Error::from(io::ErrorKind::InvalidData)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes the incarnation, durably and all at once.
    ///
    /// # Errors
    /// Any [`io::Error`]; the note before then stands.
    pub fn note_outside(&self, outside: &Outside) -> io::Result<()> {
        let (path, fresh) = (self.folder.join(INCARNATION), self.folder.join("incarnation.next"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&minicbor::to_vec(outside).expect("writing into memory does not fail"))?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Destroys every key: they belong to an incarnation that is over.
    ///
    /// # Errors
    /// Any [`io::Error`].
    pub fn destroy_all(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(session) = name.to_str().and_then(|name| name.parse().ok()) {
                self.destroy(&session)?;
            }
        }
        Ok(())
    }

    fn path(&self, session: &Digest) -> PathBuf {
        self.folder.join(hex::encode(session.0))
    }

    /// Makes a key durable before anything that needs it is committed.
    ///
    /// # Errors
    /// Any [`io::Error`]; the key is then not kept.
    pub fn keep(&self, session: &Digest, key: &HpkeSecretKey) -> io::Result<()> {
        let path = self.path(session);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(key.to_bytes().as_slice())?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Reads a key; `None` when it was destroyed or never here.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file of another length; otherwise as reading.
    pub fn find(&self, session: &Digest) -> io::Result<Option<HpkeSecretKey>> {
        let bytes = match fs::read(self.path(session)) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let secret: Zeroizing<[u8; 32]> =
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?);
        Ok(Some(HpkeSecretKey::from_bytes(&secret)))
    }

    /// Destroys a key: overwritten, then removed. One that is gone is no error.
    ///
    /// # Errors
    /// Any other [`io::Error`].
    pub fn destroy(&self, session: &Digest) -> io::Result<()> {
        let path = self.path(session);
        match OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => {
                file.write_all(&[0; 32])?;
                file.sync_all()?;
                fs::remove_file(&path)?;
                File::open(&self.folder)?.sync_all()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::backend::Backend;

    #[test]
    fn a_destroyed_key_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let keys = OneTimeKeys::open(&folder.path().join("one-time")).unwrap();
        let (session, key) = (Digest([7; 32]), waybill_crypto::native::Native.generate_hpke_key());
        assert!(keys.find(&session).unwrap().is_none());
        keys.keep(&session, &key).unwrap();
        assert_eq!(keys.find(&session).unwrap().unwrap().public(), key.public());
        keys.destroy(&session).unwrap();
        keys.destroy(&session).unwrap();
        assert!(keys.find(&session).unwrap().is_none());
    }
}
