//! What the operator's desk has revoked so far, and the number of its newest list.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use waybill_crypto::certificate::{Revoked, Serial};

use super::ceremony::{CeremonyError, Folder};
use crate::files::{self, FileError};

/// Where it lies, beside the issuing key.
const FILE: &str = "issuing/revoked.json";

/// What was revoked so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RevokedList {
    /// The number of the newest revocation list.
    pub number: u64,
    certificates: Vec<RevokedEntry>,
}

/// One revoked certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RevokedEntry {
    serial: String,
    since: u64,
}

impl RevokedList {
    fn path(folder: &Folder) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads it; before the first renewal there is none, and `init` has signed number 1.
    ///
    /// # Errors
    /// [`CeremonyError::File`].
    pub fn load(folder: &Folder) -> Result<Self, CeremonyError> {
        let path = Self::path(folder);
        if !path.exists() {
            return Ok(Self { number: 1, certificates: Vec::new() });
        }
        let text = files::read(&path)?;
        let list: Self = serde_json::from_slice(&text)
            .map_err(|_| FileError::Content { path: path.clone(), what: "a list of revoked certificates" })?;
        list.entries().map_err(|()| FileError::Content { path, what: "serial numbers of revoked certificates" })?;
        Ok(list)
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`CeremonyError::File`].
    pub fn save(&self, folder: &Folder) -> Result<(), CeremonyError> {
        let text = serde_json::to_vec_pretty(self).expect("numbers and hex are JSON");
        Ok(files::write_public(&Self::path(folder), &text)?)
    }

    /// Adds a certificate, once.
    pub fn add(&mut self, serial: &Serial, since: u64) {
        let serial = hex::encode(serial.0);
        if !self.certificates.iter().any(|known| known.serial == serial) {
            self.certificates.push(RevokedEntry { serial, since });
        }
    }

    /// Whether a certificate is on it.
    #[must_use]
    pub fn contains(&self, serial: &Serial) -> bool {
        let serial = hex::encode(serial.0);
        self.certificates.iter().any(|known| known.serial == serial)
    }

    /// How many it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// As a revocation list takes them.
    fn entries(&self) -> Result<Vec<Revoked>, ()> {
        let entry = |entry: &RevokedEntry| {
            let serial = hex::decode(&entry.serial).ok().and_then(|bytes| bytes.try_into().ok());
            serial.map(|serial| Revoked { serial: Serial(serial), at: entry.since }).ok_or(())
        };
        self.certificates.iter().map(entry).collect()
    }

    /// As a revocation list takes them.
    #[must_use]
    pub fn revoked(&self) -> Vec<Revoked> {
        self.entries().expect("checked when it was read, and written from serials")
    }
}
