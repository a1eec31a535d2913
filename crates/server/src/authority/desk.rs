//! The operator's desk: the issuing key at work, where no public listener is.
//!
//! It remembers what it signed: the intent before, the chain after. Renewal is by that memory: a certificate for the same name, the
//! same use and the same key as one that is still good.

use std::fs;
use std::path::{Path, PathBuf};

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{PemLabel, chain_from_pem, chain_to_pem, from_pem};
use waybill_crypto::certificate::{
    CertificateRequest, Issuer, KeySigner, PartyName, Profile, RequestError, Serial, Subject, TrustAnchor,
    VerifiedCertificate, verify_chain_offline, verify_csr,
};
use waybill_crypto::digest::Digest;
use waybill_crypto::keys::{SigningKey, VerifyingKey};

use super::ceremony::{CeremonyError, Folder, crl_url, name, pem};
use super::revoked::RevokedList;
use crate::files::{self, FileError};

/// Every use a leaf certificate of ours can have.
const LEAVES: [Profile; 4] =
    [Profile::HospitalTls, Profile::HospitalSigning, Profile::ServiceTls, Profile::ProofSigning];

/// The operator's desk.
pub struct Desk<'a> {
    folder: Folder,
    backend: &'a dyn Backend,
    authority: String,
    key: SigningKey,
    certificate: Vec<u8>,
}

/// A hospital's two chains, in PEM, leaf first.
pub struct HospitalCertificates {
    /// The hospital's name.
    pub name: String,
    /// For its TLS client and server.
    pub tls: String,
    /// For its messages.
    pub signing: String,
}

/// A hospital's two requests: each proves its key, they are one hospital's, and no certificate of these keys was revoked.
pub struct HospitalRequests {
    tls: CertificateRequest,
    signing: CertificateRequest,
}

impl HospitalRequests {
    /// The hospital's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tls.name.as_str()
    }

    /// The thumbprints of the TLS and of the signing key, to be compared in person.
    #[must_use]
    pub fn thumbprints(&self) -> [Digest; 2] {
        self.keys().map(VerifyingKey::thumbprint)
    }

    fn keys(&self) -> [&VerifyingKey; 2] {
        [&self.tls.public_key, &self.signing.public_key]
    }
}

/// The authority's name, as its issuing certificate carries it.
///
/// # Errors
/// [`CeremonyError`]; [`CeremonyError::Name`] when root and issuing certificate do not belong together or have expired.
pub fn authority_name(folder: &Folder, now: u64) -> Result<String, CeremonyError> {
    let issuing = files::read_certificate(&folder.join("issuing/issuing.pem"))?;
    let issuer = anchor(folder)?.verify_issuer(&issuing, now);
    let issuer = issuer.map_err(|_| CeremonyError::Name("the issuing certificate".to_owned()))?;
    let full = issuer.name().as_str();
    Ok(full.strip_prefix("issuing.").unwrap_or(full).to_owned())
}

/// The root, as it is pinned by everybody.
///
/// # Errors
/// [`CeremonyError::File`].
pub fn anchor(folder: &Folder) -> Result<TrustAnchor, CeremonyError> {
    let path = folder.root_certificate();
    let der = files::read_certificate(&path)?;
    Ok(TrustAnchor::from_der(&der).map_err(|_| FileError::Content { path, what: "a root certificate" })?)
}

/// What a chain file of ours holds, whatever it is for; nothing when it is not ours or not good at this time.
#[must_use]
pub fn read_leaf(backend: &dyn Backend, anchor: &TrustAnchor, pem: &[u8], now: u64) -> Option<VerifiedCertificate> {
    let chain = chain_from_pem(pem).ok()?;
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    LEAVES.into_iter().find_map(|profile| verify_chain_offline(backend, anchor, &chain, profile, now).ok())
}

impl<'a> Desk<'a> {
    /// Opens the desk of an authority that was initialised.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn open(folder: &Folder, authority: &str, backend: &'a dyn Backend) -> Result<Self, CeremonyError> {
        let key = files::read_signing_key(&folder.join("issuing/issuing.key"))?;
        let certificate = files::read_certificate(&folder.join("issuing/issuing.pem"))?;
        Ok(Self::new(folder, authority, backend, key, certificate))
    }

    pub(super) fn new(
        folder: &Folder,
        authority: &str,
        backend: &'a dyn Backend,
        key: SigningKey,
        certificate: Vec<u8>,
    ) -> Self {
        Self { folder: folder.clone(), backend, authority: authority.to_owned(), key, certificate }
    }

    pub(super) fn issue(
        &self,
        profile: Profile,
        name: &PartyName,
        key: &VerifyingKey,
        loopback: bool,
        now: u64,
    ) -> Result<String, CeremonyError> {
        let subject = Subject { profile, name, public_key: key, loopback };
        let signer = KeySigner { backend: self.backend, key: &self.key };
        let crl_url = crl_url(&self.authority);
        let issuer = Issuer::new(self.backend, &signer, &self.certificate, &crl_url)?;
        let prepared = issuer.prepare(&subject, now, profile.max_lifetime_seconds())?;
        self.record_intent(name.as_str(), &prepared.serial(), prepared.to_be_signed())?;
        let issued = issuer.sign(&prepared)?;
        let chain = chain_to_pem(&[&issued.der, &self.certificate]).expect("two certificates fit a file");
        self.remember(name.as_str(), &prepared.serial(), &chain)?;
        Ok(chain)
    }

    /// What is about to be signed is on disk before it is signed.
    fn record_intent(&self, name: &str, serial: &Serial, to_be_signed: &[u8]) -> Result<(), CeremonyError> {
        let folder = self.intents_folder();
        files::make_folder(&folder)?;
        let file = folder.join(format!("{}-{}.tbs", hex::encode(serial.0), hex::encode(name)));
        Ok(files::write_private(&file, to_be_signed)?)
    }

    fn remember(&self, name: &str, serial: &Serial, chain: &str) -> Result<(), CeremonyError> {
        let folder = self.issued_folder();
        files::make_folder(&folder)?;
        let file = folder.join(format!("{}-{}.pem", hex::encode(serial.0), hex::encode(name)));
        Ok(files::write_private(&file, chain.as_bytes())?)
    }

    fn intents_folder(&self) -> PathBuf {
        self.folder.join("issuing/intents")
    }

    fn issued_folder(&self) -> PathBuf {
        self.folder.join("issuing/issued")
    }

    /// The certificates issued so far that are good at this time, newest end first; of one party, or of all.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn issued(&self, of: Option<&str>, now: u64) -> Result<Vec<VerifiedCertificate>, CeremonyError> {
        let (anchor, revoked) = (anchor(&self.folder)?, RevokedList::load(&self.folder)?);
        let mut found = Vec::new();
        for path in list(&self.issued_folder())? {
            if of.is_some_and(|name| !names(&path, name)) {
                continue;
            }
            if let Some(leaf) = read_leaf(self.backend, &anchor, &files::read(&path)?, now)
                && !revoked.contains(&leaf.serial)
            {
                found.push(leaf);
            }
        }
        found.sort_by_key(|leaf| std::cmp::Reverse(leaf.not_after));
        Ok(found)
    }

    /// The serial numbers of everything ever prepared for a party, also of what a crash kept from being handed out.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn serials_of(&self, party: &str) -> Result<Vec<Serial>, CeremonyError> {
        let intents = list(&self.intents_folder())?;
        Ok(intents.iter().filter(|path| names(path, party)).filter_map(|path| serial_of(path)).collect())
    }

    /// Makes key and certificate for a service (relay, witness) into `folder/tls.key` and `folder/tls.pem`.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn certify_service(&self, service: &str, folder: &Path, now: u64) -> Result<(), CeremonyError> {
        files::make_folder(folder)?;
        let key = self.backend.generate_signing_key();
        let chain = self.issue(Profile::ServiceTls, &name(service)?, key.public(), true, now)?;
        files::write_signing_key(&folder.join("tls.key"), &key)?;
        Ok(files::write_public(&folder.join("tls.pem"), chain.as_bytes())?)
    }

    /// Signs a new certificate for the key of one that is still good, in place: `<stem>.key` stays, `<stem>.pem` is replaced in one
    /// step. Gives the new end. For the authority's own online files, a relay's, a witness'. Units: unix seconds.
    ///
    /// # Errors
    /// [`CeremonyError::Lapsed`] when the certificate is not ours or not good any more: then a new one is issued by hand.
    /// [`CeremonyError::RevokedKey`] when a certificate of the key was revoked.
    pub fn renew_file(&self, stem: &Path, now: u64) -> Result<u64, CeremonyError> {
        let (key_file, chain_file) = (stem.with_extension("key"), stem.with_extension("pem"));
        let key = files::read_signing_key(&key_file)?;
        let anchor = anchor(&self.folder)?;
        let held = read_leaf(self.backend, &anchor, &files::read(&chain_file)?, now);
        let held = held.ok_or_else(|| CeremonyError::Lapsed(chain_file.display().to_string()))?;
        if held.public_key != *key.public() {
            return Err(CeremonyError::OtherKey(held.subject));
        }
        self.refuse_revoked(&held.subject, &[key.public()])?;
        let loopback = held.profile == Profile::ServiceTls;
        let chain = self.issue(held.profile, &name(&held.subject)?, key.public(), loopback, now)?;
        files::write_public(&chain_file, chain.as_bytes())?;
        Ok(now + held.profile.max_lifetime_seconds())
    }

    /// Reads a hospital's two requests, whose proofs of possession are verified here.
    ///
    /// # Errors
    /// [`CeremonyError::Pair`], [`CeremonyError::RevokedKey`].
    pub fn read_hospital(&self, tls_csr: &[u8], signing_csr: &[u8]) -> Result<HospitalRequests, CeremonyError> {
        let (tls, signing) = read_request_pair(self.backend, tls_csr, signing_csr)?;
        let requests = HospitalRequests { tls, signing };
        self.refuse_revoked(requests.name(), &requests.keys())?;
        Ok(requests)
    }

    /// A key is not certified when a certificate of it was ever revoked, whoever's it was and for whichever use.
    fn refuse_revoked(&self, holder: &str, keys: &[&VerifyingKey]) -> Result<(), CeremonyError> {
        let revoked = RevokedList::load(&self.folder)?;
        let keys: Vec<_> = keys.iter().map(|key| key.to_spki_der()).collect();
        for path in list(&self.intents_folder())? {
            if !serial_of(&path).is_some_and(|serial| revoked.contains(&serial)) {
                continue;
            }
            // What was to be signed holds the key as it stands in the certificate.
            let prepared = files::read(&path)?;
            if keys.iter().any(|key| prepared.windows(key.len()).any(|part| part == key)) {
                return Err(CeremonyError::RevokedKey(holder.to_owned()));
            }
        }
        Ok(())
    }

    /// Certifies a hospital. Who it is was found out before, in person.
    ///
    /// # Errors
    /// [`CeremonyError`]; [`CeremonyError::RevokedKey`] also for what was revoked since the requests were read.
    pub fn certify_hospital(
        &self,
        requests: &HospitalRequests,
        now: u64,
    ) -> Result<HospitalCertificates, CeremonyError> {
        self.refuse_revoked(requests.name(), &requests.keys())?;
        let certify = |request: &CertificateRequest| {
            self.issue(request.profile, &request.name, &request.public_key, request.loopback, now)
        };
        Ok(HospitalCertificates {
            name: requests.name().to_owned(),
            tls: certify(&requests.tls)?,
            signing: certify(&requests.signing)?,
        })
    }

    /// Certifies a hospital's keys for another term: the same name, the same uses, the same keys as certificates that are still good
    /// and not revoked. Another key is another enrolment, in person.
    ///
    /// # Errors
    /// [`CeremonyError::OtherKey`], [`CeremonyError::RevokedKey`], [`CeremonyError::Pair`] when the requests are by another hospital
    /// than `hospital`.
    pub fn renew_hospital(
        &self,
        hospital: &str,
        tls_csr: &[u8],
        signing_csr: &[u8],
        now: u64,
    ) -> Result<HospitalCertificates, CeremonyError> {
        let requests = self.read_hospital(tls_csr, signing_csr)?;
        if requests.name() != hospital {
            return Err(CeremonyError::Pair);
        }
        let held = self.issued(Some(hospital), now)?;
        let same = |request: &CertificateRequest| {
            held.iter().any(|leaf| leaf.profile == request.profile && leaf.public_key == request.public_key)
        };
        if !same(&requests.tls) || !same(&requests.signing) {
            return Err(CeremonyError::OtherKey(hospital.to_owned()));
        }
        self.certify_hospital(&requests, now)
    }

    /// Adds certificates to what is revoked, and signs a fresh list; gives its number and how many it names.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn renew_crl(&self, revoke: &[Serial], now: u64) -> Result<(u64, usize), CeremonyError> {
        let mut list = RevokedList::load(&self.folder)?;
        for serial in revoke {
            list.add(serial, now);
        }
        list.number += 1;
        // First the intent, then the signature: a number is never used twice.
        list.save(&self.folder)?;
        self.sign_crl(&list, now)?;
        Ok((list.number, list.len()))
    }

    pub(super) fn sign_crl(&self, list: &RevokedList, now: u64) -> Result<(), CeremonyError> {
        let signer = KeySigner { backend: self.backend, key: &self.key };
        let crl_url = crl_url(&self.authority);
        let issuer = Issuer::new(self.backend, &signer, &self.certificate, &crl_url)?;
        let der = issuer.issue_crl(&list.revoked(), list.number, now)?;
        Ok(files::write_public(&self.folder.crl(), pem(PemLabel::Crl, &der).as_bytes())?)
    }
}

/// Reads a hospital's two requests and verifies that each proves its key, and that they are one hospital's, for the two uses, with
/// two keys.
///
/// # Errors
/// [`CeremonyError::Request`], [`CeremonyError::Pair`].
pub fn read_request_pair(
    backend: &dyn Backend,
    tls_csr: &[u8],
    signing_csr: &[u8],
) -> Result<(CertificateRequest, CertificateRequest), CeremonyError> {
    let read = |bytes: &[u8]| -> Result<CertificateRequest, CeremonyError> {
        let der = from_pem(PemLabel::Request, bytes).map_err(|_| RequestError::Malformed)?;
        Ok(verify_csr(backend, &der)?)
    };
    let (tls, signing) = (read(tls_csr)?, read(signing_csr)?);
    let pair = tls.profile == Profile::HospitalTls && signing.profile == Profile::HospitalSigning;
    if pair && tls.name == signing.name && tls.public_key != signing.public_key {
        Ok((tls, signing))
    } else {
        Err(CeremonyError::Pair)
    }
}

/// Whether a file of the desk's memory is about a party: `<serial>-<hex of the name>.<what>`.
fn names(path: &Path, party: &str) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.split_once('-'));
    stem.is_some_and(|(_, name)| name == hex::encode(party))
}

/// The serial number by which a file of the desk's memory is named.
fn serial_of(path: &Path) -> Option<Serial> {
    let (serial, _) = path.file_stem()?.to_str()?.split_once('-')?;
    hex::decode(serial).ok()?.try_into().ok().map(Serial)
}

/// The files of a folder, by name; none when there is no folder yet.
fn list(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let io = |source| FileError::Io { path: folder.to_owned(), source };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(io)?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::ceremony;
    use crate::party::read_crl;
    use waybill_crypto::certificate::files::to_pem;
    use waybill_crypto::certificate::{CertificateError, create_csr, verify_chain};
    use waybill_crypto::native::Native;
    use waybill_protocol::ids::Timestamp;
    use waybill_protocol::messages::Chain;

    const START: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;
    const HOSPITAL: &str = "hospital-a.example";

    struct Office {
        place: tempfile::TempDir,
        keys: [SigningKey; 2],
    }

    impl Office {
        fn open() -> Self {
            let place = tempfile::tempdir().unwrap();
            ceremony::init(&Folder::new(place.path()), "authority.example", &Native, START).unwrap();
            Self { place, keys: [Native.generate_signing_key(), Native.generate_signing_key()] }
        }

        fn folder(&self) -> Folder {
            Folder::new(self.place.path())
        }

        fn desk(&self) -> Desk<'static> {
            Desk::open(&self.folder(), "authority.example", &Native).unwrap()
        }

        fn requests(&self, keys: &[SigningKey; 2], name: &str) -> [Vec<u8>; 2] {
            let name = PartyName::parse(name).unwrap();
            let csr = |key, profile| {
                let der = create_csr(&Native, key, &name, profile, false).unwrap();
                to_pem(PemLabel::Request, &der).unwrap().as_bytes().to_vec()
            };
            [csr(&keys[0], Profile::HospitalTls), csr(&keys[1], Profile::HospitalSigning)]
        }

        fn renew(&self, keys: &[SigningKey; 2], name: &str, now: u64) -> Result<HospitalCertificates, CeremonyError> {
            let [tls, signing] = self.requests(keys, name);
            self.desk().renew_hospital(HOSPITAL, &tls, &signing, now)
        }

        fn enrol(&self, now: u64) -> HospitalCertificates {
            self.certify(&self.keys, HOSPITAL, now).unwrap()
        }

        fn certify(&self, keys: &[SigningKey; 2], name: &str, now: u64) -> Result<HospitalCertificates, CeremonyError> {
            let [tls, signing] = self.requests(keys, name);
            self.desk().certify_hospital(&self.desk().read_hospital(&tls, &signing)?, now)
        }

        /// What another hospital makes of this signing chain, with the list that lies on disk.
        fn judged(&self, pem: &str, now: u64) -> Result<(), CertificateError> {
            let anchor = anchor(&self.folder()).unwrap();
            let chain = Chain::new(chain_from_pem(pem.as_bytes()).unwrap());
            let list = files::read(&self.folder().crl()).unwrap();
            let crl = read_crl(&Native, Timestamp(now), &anchor, &list, &chain).unwrap();
            let certificates = chain.certificates().unwrap();
            verify_chain(&Native, &anchor, &certificates, Profile::HospitalSigning, now, &crl).map(|_| ())
        }
    }

    #[test]
    fn a_desk_that_is_away_for_four_days_stops_nothing_at_any_hour_of_ten_weeks() {
        let office = Office::open();
        let mut held = office.enrol(START);
        let (mut made, mut listed) = (START, START);
        for hour in 0..70 * 24 {
            let now = START + hour * 3600;
            // Friday to Monday of every week nobody is at the desk, and holidays begin on the tenth day.
            let away = hour / 24 % 7 >= 3;
            if !away && now >= listed + 20 * 3600 {
                office.desk().renew_crl(&[], now).unwrap();
                listed = now;
            }
            if !away && now >= made + 10 * DAY {
                held = office.renew(&office.keys, HOSPITAL, now).unwrap();
                made = now;
            }
            assert_eq!(office.judged(&held.signing, now), Ok(()), "hour {hour}");
        }
        assert!(office.desk().issued(Some(HOSPITAL), START + 70 * DAY).unwrap().len() >= 2, "renewed more than once");
    }

    #[test]
    fn a_stale_list_refuses_everybody_and_a_fresh_one_ends_that() {
        let office = Office::open();
        let held = office.enrol(START);
        assert_eq!(office.judged(&held.signing, START + 7 * DAY), Ok(()));
        let late = START + 7 * DAY + 1;
        assert_eq!(office.judged(&held.signing, late), Err(CertificateError::StaleCrl));
        office.desk().renew_crl(&[], late).unwrap();
        assert_eq!(office.judged(&held.signing, late), Ok(()));
    }

    #[test]
    fn only_keys_with_a_good_certificate_are_renewed() {
        let office = Office::open();
        office.enrol(START);
        let refused = |keys: &[SigningKey; 2], name, now| office.renew(keys, name, now).err();
        let [tls, signing] = &office.keys;
        let other = Native.generate_signing_key();
        let with_other = [tls.clone(), other.clone()];
        assert!(matches!(refused(&with_other, HOSPITAL, START), Some(CeremonyError::OtherKey(_))));
        assert!(matches!(refused(&[other, signing.clone()], HOSPITAL, START), Some(CeremonyError::OtherKey(_))));
        assert!(matches!(refused(&office.keys, "hospital-b.example", START), Some(CeremonyError::Pair)));
        let crossed = [signing.clone(), tls.clone()];
        assert!(matches!(refused(&crossed, HOSPITAL, START), Some(CeremonyError::OtherKey(_))), "each key for its use");
        let expired = START + 31 * DAY;
        assert!(matches!(refused(&office.keys, HOSPITAL, expired), Some(CeremonyError::OtherKey(_))));
        assert!(office.renew(&office.keys, HOSPITAL, START + 29 * DAY).is_ok());
        // Revoked: everything the desk ever prepared for the hospital, and then not even its own keys are renewed.
        let serials = office.desk().serials_of(HOSPITAL).unwrap();
        assert_eq!(serials.len(), 4, "two at the enrolment, two at the renewal");
        assert_eq!(office.desk().renew_crl(&serials, START + 29 * DAY).unwrap(), (2, 4));
        assert!(matches!(refused(&office.keys, HOSPITAL, START + 29 * DAY), Some(CeremonyError::RevokedKey(_))));
    }

    #[test]
    fn a_key_whose_certificate_was_revoked_is_never_certified_again_under_any_name_or_use() {
        let office = Office::open();
        let [tls, signing] = office.requests(&office.keys, HOSPITAL);
        let read_before = office.desk().read_hospital(&tls, &signing).unwrap();
        office.enrol(START);
        let spare = [Native.generate_signing_key(), Native.generate_signing_key()];
        assert!(office.certify(&spare, HOSPITAL, START).is_ok(), "a change of keys");
        let [first, second] = [&office.keys[0], &office.keys[1]];
        let serials = office.desk().serials_of(HOSPITAL).unwrap();
        assert_eq!(serials.len(), 4);
        // Only the first key's certificate for TLS is revoked.
        let leaves = office.desk().issued(Some(HOSPITAL), START).unwrap();
        let leaf = leaves.iter().find(|leaf| leaf.public_key == *first.public()).unwrap();
        office.desk().renew_crl(&[leaf.serial], START).unwrap();
        let refused = |keys: &[SigningKey; 2], name| {
            assert!(
                matches!(office.certify(keys, name, START + 60 * DAY), Err(CeremonyError::RevokedKey(_))),
                "{name}"
            );
        };
        refused(&office.keys, HOSPITAL);
        refused(&office.keys, "hospital-b.example");
        refused(&[second.clone(), first.clone()], HOSPITAL);
        refused(&[spare[0].clone(), first.clone()], "hospital-c.example");
        assert!(matches!(office.desk().certify_hospital(&read_before, START), Err(CeremonyError::RevokedKey(_))));
        assert!(office.certify(&[spare[0].clone(), second.clone()], HOSPITAL, START).is_ok(), "neither was revoked");
        // A certificate that ran out long ago burns its key all the same.
        let late = office.desk().serials_of(HOSPITAL).unwrap();
        office.desk().renew_crl(&late, START + 400 * DAY).unwrap();
        refused(&spare, "hospital-d.example");
    }

    #[test]
    fn own_certificates_are_renewed_for_the_same_key_while_they_are_good() {
        let office = Office::open();
        let stem = office.folder().join("online/tls");
        let before = files::read_chain(&stem.with_extension("pem")).unwrap();
        office.desk().renew_file(&stem, START + 30 * DAY).unwrap();
        let after = files::read_chain(&stem.with_extension("pem")).unwrap();
        assert_ne!(before, after);
        let leaf = |now| {
            let pem = files::read(&stem.with_extension("pem")).unwrap();
            read_leaf(&Native, &anchor(&office.folder()).unwrap(), &pem, now)
        };
        assert_eq!(leaf(START + 100 * DAY).unwrap().subject, "authority.example", "good beyond the first term");
        // Revoked, as after a break-in: the daily work does not certify the key again.
        let serial = leaf(START + 100 * DAY).unwrap().serial;
        office.desk().renew_crl(&[serial], START + 100 * DAY).unwrap();
        assert!(matches!(office.desk().renew_file(&stem, START + 101 * DAY), Err(CeremonyError::RevokedKey(_))));
        assert!(matches!(office.desk().renew_file(&stem, START + 200 * DAY), Err(CeremonyError::Lapsed(_))));
    }

    #[test]
    fn the_root_signs_the_same_issuing_key_again_also_after_its_certificate_ended() {
        const YEAR: u64 = 365 * DAY;
        let office = Office::open();
        let (folder, held) = (office.folder(), office.enrol(START));
        let (root, issuing) = (folder.join("root/root.key"), folder.join("issuing/issuing.pem"));
        let before = files::read_certificate(&issuing).unwrap();
        // Before the end: what was issued under the old certificate stays good, with the list that is signed from now on.
        let until = ceremony::issue_issuing(&folder, &root, &Native, START + 10 * DAY).unwrap();
        assert_eq!(until, START + 10 * DAY + 5 * YEAR);
        assert_ne!(files::read_certificate(&issuing).unwrap(), before);
        office.desk().renew_crl(&[], START + 10 * DAY).unwrap();
        assert_eq!(office.judged(&held.signing, START + 10 * DAY), Ok(()));
        let renewed = office.renew(&office.keys, HOSPITAL, START + 10 * DAY).unwrap();
        assert_eq!(office.judged(&renewed.signing, START + 10 * DAY), Ok(()));
        // After the end nothing is issued until the root has signed again.
        let late = until + YEAR;
        assert!(anchor(&folder).unwrap().verify_issuer(&files::read_certificate(&issuing).unwrap(), late).is_err());
        assert!(office.certify(&office.keys, HOSPITAL, late).is_err());
        ceremony::issue_issuing(&folder, &root, &Native, late).unwrap();
        office.desk().renew_crl(&[], late).unwrap();
        let again = office.certify(&office.keys, HOSPITAL, late).unwrap();
        assert_eq!(office.judged(&again.signing, late), Ok(()));
        // Another root's key signs nothing here, and a certificate that this root never signed is given no other.
        let elsewhere = Office::open();
        let other = elsewhere.folder().join("root/root.key");
        assert!(matches!(ceremony::issue_issuing(&folder, &other, &Native, late), Err(CeremonyError::Issue(_))));
        let foreign = files::read(&elsewhere.folder().join("issuing/issuing.pem")).unwrap();
        files::write_public(&issuing, &foreign).unwrap();
        assert!(matches!(ceremony::issue_issuing(&folder, &root, &Native, late), Err(CeremonyError::Lapsed(_))));
    }
}
