//! Certificates, requests, revocation lists, and the files they are kept in.
//!
//! A mutated certificate has a wrong signature, so what an attacker without the key can reach ends early. The targets therefore sign
//! the altered content again with the issuing key: what is tested is that not even its holder gets another form past the profiles.
//! They verify with the servers' back end, which does so several times faster.

use std::sync::Mutex;

use der::{Decode as _, Encode as _};
use waybill_crypto::backend::{Backend, PrimitiveError, Sealed};
use waybill_crypto::certificate::files::{self, PemLabel};
use waybill_crypto::certificate::{
    BACKDATE_SECONDS, Crl, MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES, PartyName, Profile, Serial, Subject, TrustAnchor,
    VerifiedCertificate, create_csr, lint, verify_chain_offline, verify_csr,
};
use waybill_crypto::keys::{
    Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey, VerifyingKey,
};
use waybill_crypto::native::Native;
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::ext::pkix::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::request::CertReqInfo;

use crate::fixture;

const PROFILES: [Profile; 6] = [
    Profile::Root,
    Profile::Issuing,
    Profile::ProofSigning,
    Profile::HospitalTls,
    Profile::HospitalSigning,
    Profile::ServiceTls,
];

/// ecdsa-with-SHA256, as an AlgorithmIdentifier.
const ES256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A certificate, as it is and signed again by the issuing key.
///
/// It has at most one profile; a leaf that is taken is, to the byte, what the issuer would have made of the same name, key, serial
/// number and times.
pub fn certificate(data: &[u8]) -> bool {
    let profiles: Vec<Profile> = PROFILES.into_iter().filter(|profile| form_holds(data, *profile)).collect();
    assert!(profiles.len() <= 1, "a certificate of two profiles");
    assert!(profiles.is_empty() || data.len() <= MAX_CERTIFICATE_BYTES);
    let root = TrustAnchor::from_der(data);
    assert!(root.is_err() || profiles == [Profile::Root], "a root that is none");
    let issuer = fixture::anchor().verify_issuer(data, fixture::NOW);
    assert!(issuer.is_err() || profiles == [Profile::Issuing], "an issuer that is none");
    let Some(&profile) = profiles.first() else { return false };
    if matches!(profile, Profile::Root | Profile::Issuing) {
        return true;
    }
    let again = signed_again(data).expect("what holds is a sequence of three");
    let verified: Vec<VerifiedCertificate> = PROFILES
        .into_iter()
        .filter_map(|profile| {
            let chain = [again.as_slice(), fixture::ISSUING];
            verify_chain_offline(&Native, fixture::anchor(), &chain, profile, fixture::NOW).ok()
        })
        .collect();
    assert!(verified.len() <= 1, "a chain of two profiles");
    if let Some(leaf) = verified.first() {
        assert_eq!(leaf.profile, profile, "verified for another use than it has");
        assert_made_alike(&again, leaf);
    }
    true
}

/// Whether the form is a profile's at any time of its window.
fn form_holds(der: &[u8], profile: Profile) -> bool {
    use waybill_crypto::certificate::LintFailure::{Expired, NotYetValid};
    matches!(lint(der, profile, fixture::NOW), Ok(()) | Err(Expired | NotYetValid))
}

/// The first element of a signed DER sequence, under a signature of the issuing key.
fn signed_again(der: &[u8]) -> Option<Vec<u8>> {
    let content = first_element(der)?;
    let signature = fixture::issue_signature(content);
    let mut value = vec![0];
    value.extend(signature);
    Some(sequence(&[content, ES256, &element(0x03, &value)]))
}

/// Reads `SEQUENCE { element, ... }` and gives the first element with its head.
fn first_element(der: &[u8]) -> Option<&[u8]> {
    let (head, _) = element_lengths(der)?;
    let inside = der.get(head..)?;
    let (head, length) = element_lengths(inside)?;
    inside.get(..head.checked_add(length)?)
}

/// The lengths of an element's head and value.
fn element_lengths(der: &[u8]) -> Option<(usize, usize)> {
    match *der.get(1)? {
        short @ 0..=0x7f => Some((2, usize::from(short))),
        0x81 => Some((3, usize::from(*der.get(2)?))),
        0x82 => Some((4, usize::from(*der.get(2)?) << 8 | usize::from(*der.get(3)?))),
        0x83 => Some((5, der.get(2..5)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))),
        _ => None,
    }
}

fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        0x100..=0xffff => out.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => out.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    out.extend(value);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// A certificate that was taken is the one that the issuer makes of the same particulars.
fn assert_made_alike(der: &[u8], leaf: &VerifiedCertificate) {
    let certificate = Certificate::from_der(der).expect("verified, so a certificate");
    let content = certificate.tbs_certificate();
    let begins = content.validity().not_before.to_unix_duration().as_secs();
    let now = begins + BACKDATE_SECONDS;
    assert_eq!(content.validity().not_after.to_unix_duration().as_secs(), leaf.not_after);
    assert_eq!(content.serial_number().as_bytes(), leaf.serial.as_bytes());
    let Some(lifetime) = leaf.not_after.checked_sub(now) else { return };
    let (points, loopback) = places(content);
    let [url] = points.as_slice() else { panic!("a leaf names one revocation list: {points:?}") };
    let name = PartyName::parse(&leaf.subject).expect("a verified name");
    let scripted = Scripted { serial: Mutex::new(Some(leaf.serial)), inner: fixture::backend() };
    let subject = Subject { profile: leaf.profile, name: &name, public_key: &leaf.public_key, loopback };
    let made = fixture::with_issuer(&scripted, url, |issuer| issuer.prepare(&subject, now, lifetime));
    // What outlives the issuing key is never issued; it is not believed longer than that key either.
    let Ok(made) = made else { return };
    assert_eq!(made.to_be_signed(), first_element(der).expect("a sequence"), "taken, and not as it is issued");
}

/// Where the certificate's revocation lists are, and whether it names the loopback.
fn places(content: &x509_cert::TbsCertificate) -> (Vec<String>, bool) {
    let (mut points, mut loopback) = (Vec::new(), false);
    for extension in content.extensions().into_iter().flatten() {
        let value = extension.extn_value.as_bytes();
        loopback |= value.windows(9).any(|window| window == b"localhost") && value.ends_with(&[127, 0, 0, 1]);
        let Ok(CrlDistributionPoints(found)) = CrlDistributionPoints::from_der(value) else { continue };
        for point in found {
            let Some(DistributionPointName::FullName(names)) = point.distribution_point else { continue };
            points.extend(names.iter().filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
                _ => None,
            }));
        }
    }
    (points, loopback)
}

/// A back end whose next randomness is a serial number, and everything else as it was.
struct Scripted<'a> {
    serial: Mutex<Option<Serial>>,
    inner: &'a dyn Backend,
}

impl Backend for Scripted<'_> {
    fn random(&self, out: &mut [u8]) {
        match self.serial.lock().expect("nobody panics while drawing").take() {
            Some(serial) if out.len() == Serial::LEN => out.copy_from_slice(serial.as_bytes()),
            _ => self.inner.random(out),
        }
    }
    fn sign(&self, key: &SigningKey, message: &[u8]) -> Signature {
        self.inner.sign(key, message)
    }
    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &Signature) -> Result<(), PrimitiveError> {
        self.inner.verify(key, message, signature)
    }
    fn generate_signing_key(&self) -> SigningKey {
        self.inner.generate_signing_key()
    }
    fn generate_hpke_key(&self) -> HpkeSecretKey {
        self.inner.generate_hpke_key()
    }
    fn seal(&self, to: &HpkePublicKey, info: &[u8], plaintext: &[u8]) -> Result<Sealed, PrimitiveError> {
        self.inner.seal(to, info, plaintext)
    }
    fn open(&self, key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError> {
        self.inner.open(key, info, sealed)
    }
    fn aead_seal(&self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; 16] {
        self.inner.aead_seal(key, nonce, aad, in_out)
    }
    fn aead_open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), PrimitiveError> {
        self.inner.aead_open(key, nonce, aad, in_out, tag)
    }
    fn ed25519_sign(&self, key: &Ed25519SecretKey, message: &[u8]) -> [u8; 64] {
        self.inner.ed25519_sign(key, message)
    }
    fn ed25519_verify(
        &self,
        key: &Ed25519PublicKey,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), PrimitiveError> {
        self.inner.ed25519_verify(key, message, signature)
    }
}

/// A revocation list, as it is and signed again. What is taken revokes exactly the serial numbers that another reader finds in it.
pub fn crl(data: &[u8]) -> bool {
    let read = |der: &[u8]| Crl::parse_and_verify(&Native, der, fixture::issuer());
    let as_it_is = read(data).is_ok();
    assert!(!as_it_is || data.len() <= MAX_CRL_BYTES);
    // A signature is what costs: only what is some list's content is signed again.
    let is_content = |content: &&[u8]| TbsCertList::<Rfc5280>::from_der(content).is_ok();
    let Some(again) = first_element(data).filter(is_content).and_then(|_| signed_again(data)) else { return as_it_is };
    let Ok(crl) = read(&again) else {
        assert!(!as_it_is, "the same content is refused under another signature of the same key");
        return false;
    };
    let list = CertificateList::<Rfc5280>::from_der(&again).expect("taken, so a list");
    assert_eq!(list.to_der().ok().as_deref(), Some(&again[..]), "two encodings of one list");
    let content = &list.tbs_cert_list;
    assert_eq!(content.this_update.to_unix_duration().as_secs(), crl.this_update());
    assert_eq!(content.next_update.map(|time| time.to_unix_duration().as_secs()), Some(crl.next_update()));
    let made = fixture::with_issuer(fixture::backend(), fixture::CRL_URL, |issuer| {
        issuer.issue_crl(&[], crl.number(), crl.this_update())
    });
    let made = CertificateList::<Rfc5280>::from_der(&made.expect("a list of nothing")).expect("as it was made");
    assert_eq!(content.crl_extensions, made.tbs_cert_list.crl_extensions, "taken, and not as it is issued");
    assert_eq!(content.this_update, made.tbs_cert_list.this_update, "one instant, two forms");
    let mut revoked = Vec::new();
    for entry in content.revoked_certificates.iter().flatten() {
        let serial = Serial::try_from(entry.serial_number.as_bytes()).expect("taken, so of 16 bytes");
        assert!(crl.is_revoked(&serial), "in the list, and not revoked");
        revoked.push(serial);
    }
    for serial in &revoked {
        let mut other = *serial;
        other.0[15] ^= 1;
        assert_eq!(crl.is_revoked(&other), revoked.contains(&other), "revoked, and not in the list");
    }
    true
}

/// A request, as it is and signed again by the key of the corpus. What is taken is what the same applicant would have made.
pub fn csr(data: &[u8]) -> bool {
    let as_it_is = verify_csr(&Native, data).is_ok();
    let is_content = |content: &&[u8]| CertReqInfo::from_der(content).is_ok();
    let Some(content) = first_element(data).filter(is_content) else { return as_it_is };
    let key = fixture::issuing_key();
    let mut value = vec![0];
    value.extend(fixture::issue_signature(content));
    let again = sequence(&[content, ES256, &element(0x03, &value)]);
    if let Ok(request) = verify_csr(&Native, &again) {
        assert_eq!(&request.public_key, key.public(), "a key that nobody showed to have");
        let made = create_csr(fixture::backend(), key, &request.name, request.profile, request.loopback)
            .expect("a leaf's profile");
        assert_eq!(first_element(&made), Some(content), "taken, and not as it is asked");
        return true;
    }
    as_it_is
}

const LABELS: [PemLabel; 4] = [PemLabel::Certificate, PemLabel::Request, PemLabel::Crl, PemLabel::PrivateKey];

/// PEM files and private keys in PKCS#8.
pub fn pem(data: &[u8]) -> bool {
    let mut taken = false;
    for label in LABELS {
        let Ok(der) = files::from_pem(label, data) else { continue };
        assert!(!taken, "one block, two labels");
        taken = true;
        let text = files::to_pem(label, &der).expect("what came from a file fits into one");
        assert_eq!(files::from_pem(label, text.as_bytes()).as_deref(), Ok(&*der), "a block reads back");
        keys(&der);
    }
    keys(data);
    let Ok(chain) = files::chain_from_pem(data) else { return taken };
    let slices: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let text = files::chain_to_pem(&slices).expect("what came from a file fits into one");
    assert_eq!(files::chain_from_pem(text.as_bytes()), Ok(chain), "a chain reads back");
    true
}

fn keys(der: &[u8]) {
    if let Ok(key) = files::signing_key_from_pkcs8(der) {
        assert_eq!(files::signing_key_to_pkcs8(&key).as_slice(), der, "one key, one file");
    }
    if let Ok(key) = files::root_key_from_pkcs8(der) {
        assert_eq!(files::root_key_to_pkcs8(&key).as_slice(), der, "one key, one file");
    }
}
