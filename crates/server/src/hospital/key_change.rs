//! A hospital's change of keys on disk: new keys are made in `next/`, certified there, and taken into use; the old ones go to
//! `replaced/`, with the statement that names their successors, and stay usable for what patients began under them.
//!
//! Source: docs/PROTOCOL.md section 5.1. Security: this is for keys that are tired, not for keys that may have been stolen: those are
//! revoked, because whoever holds one can name its successor.

use std::fs;
use std::path::{Path, PathBuf};

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{PemLabel, to_pem};
use waybill_crypto::certificate::{PartyName, Profile, create_csr};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::messages::KeyChange;
use waybill_protocol::registrar::HospitalIdentity;
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::trust::Ctx;

use crate::files::{self, FileError};
use crate::shell::StartError;

/// Where new keys wait for their certificate.
const NEXT: &str = "next";
/// Where old keys stay.
const REPLACED: &str = "replaced";
/// Present in `next` once the old keys are safe under `replaced`: from then on the change can only be finished.
const ADOPTING: &str = "adopting";
const CHANGE: &str = "change.cbor";
/// What moves from `next` to the folder of the keys; the TLS key stays, its chain is fresh.
const MOVES: [&str; 4] = ["signing.key", "consent.key", "signing.pem", "tls.pem"];

/// Makes new signing and consent keys and the two certificate requests, in `next` below the folder of the keys; gives that folder.
///
/// # Errors
/// [`StartError`]; no existing file is overwritten.
pub fn prepare(keys: &Path, name: &str, backend: &dyn Backend) -> Result<PathBuf, StartError> {
    let party = PartyName::parse(name).map_err(|e| StartError::Config(e.to_string()))?;
    let next = keys.join(NEXT);
    files::make_folder(&next)?;
    let signing = backend.generate_signing_key();
    let tls = files::read_signing_key(&keys.join("tls.key"))?;
    files::write_signing_key(&next.join("signing.key"), &signing)?;
    files::write_secret(&next.join("consent.key"), &backend.generate_hpke_key().to_bytes())?;
    for (file, profile, key) in [("tls", Profile::HospitalTls, &tls), ("signing", Profile::HospitalSigning, &signing)] {
        let csr = create_csr(backend, key, &party, profile, false).map_err(|e| StartError::Config(e.to_string()))?;
        let pem = to_pem(PemLabel::Request, &csr).map_err(|e| StartError::Config(e.to_string()))?;
        files::write_public(&next.join(format!("{file}.csr")), pem.as_bytes())?;
    }
    Ok(next)
}

/// Whether new keys wait in `next`.
#[must_use]
pub fn is_prepared(keys: &Path) -> bool {
    keys.join(NEXT).exists()
}

/// Takes the certified keys of `next` into use. Run again after a crash, it finishes what it began.
///
/// # Errors
/// [`StartError`] when a key or chain is missing, or a chain does not certify its key.
pub fn adopt(keys: &Path, name: &str, ctx: &Ctx<'_>) -> Result<(), StartError> {
    let next = keys.join(NEXT);
    if !next.join(ADOPTING).exists() {
        keep_old(keys, &next, name, ctx)?;
        files::write_public(&next.join(ADOPTING), b"")?;
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { path, source }
    };
    for file in MOVES {
        let from = next.join(file);
        if from.exists() {
            fs::rename(&from, keys.join(file)).map_err(io(&from))?;
        }
    }
    fs::remove_dir_all(&next).map_err(io(&next))?;
    Ok(())
}

/// Copies the old keys away and signs, with them and with all that were replaced before, the statement of the new ones.
fn keep_old(keys: &Path, next: &Path, name: &str, ctx: &Ctx<'_>) -> Result<(), StartError> {
    let (old, new) = (read(keys, name)?, read(next, name)?);
    files::read_chain(&next.join("tls.pem"))?;
    let mut replaced = read_replaced(keys, name)?;
    let folder = keys.join(REPLACED).join(old.keys().thumb().to_string());
    files::make_folder(&folder)?;
    for (file, write) in [("signing.key", true), ("consent.key", true), ("signing.pem", false)] {
        let (bytes, to) = (files::read(&keys.join(file))?, folder.join(file));
        // A copy that an interrupted run left is the same, or not whole: it is made again.
        if write && to.exists() {
            fs::remove_file(&to).map_err(|source| FileError::Io { path: to.clone(), source })?;
        }
        if write { files::write_private(&to, &bytes)? } else { files::write_public(&to, &bytes)? }
    }
    if !replaced.iter().any(|known| known.keys() == old.keys()) {
        replaced.push(old);
    }
    for identity in replaced {
        let folder = keys.join(REPLACED).join(identity.keys().thumb().to_string());
        let change = identity.sign_change(ctx, new.keys());
        files::write_public(&folder.join(CHANGE), change.as_bytes())?;
    }
    Ok(())
}

/// Reads an identity from a folder of keys.
///
/// # Errors
/// [`StartError`].
pub fn read(keys: &Path, name: &str) -> Result<HospitalIdentity, StartError> {
    Ok(HospitalIdentity {
        id: HospitalId::parse(name).map_err(|e| StartError::Config(e.to_string()))?,
        signing: files::read_signing_key(&keys.join("signing.key"))?,
        hpke: files::read_hpke_key(&keys.join("consent.key"))?,
        chain: files::read_chain(&keys.join("signing.pem"))?,
        change: None,
    })
}

/// Reads the replaced identities, those replaced last first.
///
/// # Errors
/// [`StartError`] for a folder that is not whole, or a change of keys that was begun and not finished.
pub fn read_replaced(keys: &Path, name: &str) -> Result<Vec<HospitalIdentity>, StartError> {
    let folder = keys.join(REPLACED);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(Timestamp, HospitalIdentity)> = Vec::new();
    let io = |source| FileError::Io { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(io)? {
        let home = entry.map_err(io)?.path();
        // Without its statement the copy was interrupted, and the keys are still the current ones.
        if !home.join(CHANGE).exists() {
            continue;
        }
        let bytes: SignedBytes<KeyChange> = SignedBytes::from(files::read(&home.join(CHANGE))?.to_vec());
        let change =
            bytes.parse().map_err(|_| FileError::Content { path: home.join(CHANGE), what: "a change of keys" })?;
        let time = change.peek().time;
        found.push((time, HospitalIdentity { change: Some(bytes), ..read(&home, name)? }));
    }
    found.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    Ok(found.into_iter().map(|(_, identity)| identity).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::native::Native;

    const NAME: &str = "hospital-a.example";

    /// Keys as `hospital init` makes them; any bytes in PEM armour serve as chains here, which this room only carries.
    fn keys(folder: &Path) {
        super::super::init(folder, NAME, &Native).unwrap();
        chains(folder, 1);
    }

    fn chains(folder: &Path, mark: u8) {
        let pem = to_pem(PemLabel::Certificate, &[0x30, 1, mark]).unwrap();
        for file in ["signing.pem", "tls.pem"] {
            files::write_public(&folder.join(file), pem.as_bytes()).unwrap();
        }
    }

    fn change(folder: &Path, mark: u8, now: u64) -> HospitalIdentity {
        let next = prepare(folder, NAME, &Native).unwrap();
        chains(&next, mark);
        adopt(folder, NAME, &Ctx { now: Timestamp(now), backend: &Native }).unwrap();
        read(folder, NAME).unwrap()
    }

    fn successor(identity: &HospitalIdentity) -> waybill_crypto::keys::HospitalKeys {
        let change = identity.change.as_ref().unwrap().parse().unwrap();
        change.verify(&Native, &identity.keys().signing).unwrap().into_message().to
    }

    #[test]
    fn every_replaced_key_names_the_current_ones_as_its_successors() {
        let folder = tempfile::tempdir().unwrap();
        keys(folder.path());
        let first = read(folder.path(), NAME).unwrap();
        let second = change(folder.path(), 2, 100);
        assert_ne!(first.keys(), second.keys());
        let third = change(folder.path(), 3, 200);
        assert!(!is_prepared(folder.path()));
        let replaced = read_replaced(folder.path(), NAME).unwrap();
        assert_eq!(replaced.len(), 2);
        for old in [&first, &second] {
            let kept = replaced.iter().find(|r| r.keys() == old.keys()).expect("old keys are kept");
            assert_eq!((successor(kept), &kept.chain), (third.keys(), &old.chain));
        }
    }

    #[test]
    fn a_change_that_was_interrupted_at_any_file_is_finished_by_running_it_again() {
        for moved in 0..=MOVES.len() {
            let folder = tempfile::tempdir().unwrap();
            keys(folder.path());
            let first = read(folder.path(), NAME).unwrap();
            let next = prepare(folder.path(), NAME, &Native).unwrap();
            chains(&next, 2);
            let expected = read(&next, NAME).unwrap().keys();
            let ctx = Ctx { now: Timestamp(100), backend: &Native };
            keep_old(folder.path(), &next, NAME, &ctx).unwrap();
            files::write_public(&next.join(ADOPTING), b"").unwrap();
            for file in MOVES.iter().take(moved) {
                fs::rename(next.join(file), folder.path().join(file)).unwrap();
            }
            adopt(folder.path(), NAME, &ctx).unwrap();
            assert_eq!(read(folder.path(), NAME).unwrap().keys(), expected, "after {moved} files");
            let replaced = read_replaced(folder.path(), NAME).unwrap();
            assert_eq!(replaced.iter().map(HospitalIdentity::keys).collect::<Vec<_>>(), [first.keys()]);
            assert!(!is_prepared(folder.path()));
        }
    }

    #[test]
    fn keys_without_their_certificate_are_not_taken_into_use() {
        let folder = tempfile::tempdir().unwrap();
        keys(folder.path());
        let before = read(folder.path(), NAME).unwrap().keys();
        prepare(folder.path(), NAME, &Native).unwrap();
        assert!(adopt(folder.path(), NAME, &Ctx { now: Timestamp(1), backend: &Native }).is_err());
        assert_eq!(read(folder.path(), NAME).unwrap().keys(), before);
        assert!(read_replaced(folder.path(), NAME).unwrap().is_empty());
    }
}
