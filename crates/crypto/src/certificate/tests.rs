//! Certificates from key to verified chain, and each refusal.

use der::{Decode as _, Encode as _};
use proptest::prelude::*;

use super::encoding;
use super::files::{self, FileError, PemLabel};
use super::*;
use crate::backend::Backend;
use crate::keys::{Signature, SigningKey};
use crate::portable::Portable;

mod canonical;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 60 * 60;
const CRL_URL: &str = "https://authority.example/crl";

/// A small authority with everything that a network has.
struct Network {
    backend: Portable,
    root_key: RootKey,
    issuing_key: SigningKey,
    anchor: TrustAnchor,
    issuing: Vec<u8>,
}

fn name(text: &str) -> PartyName {
    PartyName::parse(text).unwrap()
}

fn leaf_key() -> SigningKey {
    SigningKey::derive(&[7; 32])
}

impl Network {
    fn new(seed: u8) -> Self {
        let backend = Portable::from_seed([seed; 32]);
        let root_key = RootKey::generate(&backend);
        let issuing_key = backend.generate_signing_key();
        let authority = name("authority.example");
        let root = issue_root(&backend, &root_key, &authority, NOW, 10 * 365 * DAY).unwrap();
        let anchor = TrustAnchor::from_der(&root.der).unwrap();
        let issuer = Issuer::new(&backend, &root_key, &root.der, CRL_URL).unwrap();
        let subject =
            Subject { profile: Profile::Issuing, name: &authority, public_key: issuing_key.public(), loopback: false };
        let issuing = issuer.issue(&subject, NOW, 365 * DAY).unwrap().der;
        Self { backend, root_key, issuing_key, anchor, issuing }
    }

    fn with_issuer<T>(&self, use_it: impl FnOnce(&Issuer<'_>) -> T) -> T {
        let signer = KeySigner { backend: &self.backend, key: &self.issuing_key };
        use_it(&Issuer::new(&self.backend, &signer, &self.issuing, CRL_URL).unwrap())
    }

    fn issue(&self, profile: Profile, party: &str, loopback: bool) -> Result<Issued, IssueError> {
        let (party, key) = (name(party), leaf_key());
        let subject = Subject { profile, name: &party, public_key: key.public(), loopback };
        self.with_issuer(|issuer| issuer.issue(&subject, NOW, 30 * DAY))
    }

    fn leaf(&self, profile: Profile) -> Vec<u8> {
        self.issue(profile, "hospital-a.example", profile == Profile::ServiceTls).unwrap().der
    }

    fn crl_der(&self, revoked: &[Revoked], number: u64, at: u64) -> Vec<u8> {
        self.with_issuer(|issuer| issuer.issue_crl(revoked, number, at).unwrap())
    }

    fn crl(&self, revoked: &[Revoked]) -> Crl {
        let issuer = self.anchor.verify_issuer(&self.issuing, NOW).unwrap();
        Crl::parse_and_verify(&self.backend, &self.crl_der(revoked, 1, NOW), &issuer).unwrap()
    }

    fn verify(&self, leaf: &[u8], profile: Profile, now: u64) -> Result<VerifiedCertificate, CertificateError> {
        verify_chain(&self.backend, &self.anchor, &[leaf, &self.issuing], profile, now, &self.crl(&[]))
    }
}

const LEAVES: [Profile; 4] =
    [Profile::ProofSigning, Profile::HospitalTls, Profile::HospitalSigning, Profile::ServiceTls];

#[test]
fn every_profile_verifies_for_its_own_use_and_for_no_other() {
    let network = Network::new(1);
    for profile in LEAVES {
        let issued = network.issue(profile, "hospital-a.example", profile == Profile::ServiceTls).unwrap();
        let verified = network.verify(&issued.der, profile, NOW).unwrap();
        assert_eq!(verified.subject, "hospital-a.example");
        assert_eq!(verified.public_key, *leaf_key().public());
        assert_eq!((verified.serial, verified.not_after), (issued.serial, NOW + 30 * DAY));
        assert_eq!(verified.fingerprint, crate::digest::sha256(&[&issued.der]));
        for other in LEAVES {
            // The two TLS profiles differ in lifetime and loopback names only; these two tell them apart, either way.
            let refusal = match (profile.is_tls(), other.is_tls()) {
                (true, true) => CertificateError::Profile(Link::Leaf, LintFailure::AlternativeName),
                _ => CertificateError::WrongUsage,
            };
            if other != profile {
                assert_eq!(network.verify(&issued.der, other, NOW), Err(refusal), "{profile} as {other}");
            }
        }
        for other in [Profile::Root, Profile::Issuing] {
            assert_eq!(network.verify(&issued.der, other, NOW), Err(CertificateError::WrongUsage));
        }
    }
    let service = network.issue(Profile::ServiceTls, "relay.example", true).unwrap();
    network.verify(&service.der, Profile::ServiceTls, NOW).unwrap();
    assert!(matches!(
        network.verify(&service.der, Profile::HospitalTls, NOW),
        Err(CertificateError::Profile(Link::Leaf, LintFailure::AlternativeName))
    ));
}

#[test]
fn validity_is_checked_at_both_ends_of_every_link() {
    let network = Network::new(2);
    let leaf = network.leaf(Profile::HospitalSigning);
    let offline = |at| {
        let chain = [&leaf[..], &network.issuing];
        verify_chain_offline(&network.backend, &network.anchor, &chain, Profile::HospitalSigning, at).map(|_| ())
    };
    let begin = NOW - BACKDATE_SECONDS;
    assert_eq!(offline(begin), Ok(()));
    assert_eq!(offline(begin - 1), Err(CertificateError::NotYetValid));
    assert_eq!(offline(NOW + 30 * DAY), Ok(()));
    assert_eq!(offline(NOW + 30 * DAY + 1), Err(CertificateError::Expired));
    assert_eq!(offline(NOW + 366 * DAY), Err(CertificateError::Expired), "issuing");
    assert_eq!(offline(NOW + 11 * 365 * DAY), Err(CertificateError::Expired), "root");
    assert_eq!(lint(&leaf, Profile::HospitalSigning, begin - 1), Err(LintFailure::NotYetValid));
    assert_eq!(lint(&leaf, Profile::HospitalSigning, NOW + 31 * DAY), Err(LintFailure::Expired));
}

#[test]
fn foreign_and_altered_chains_are_refused() {
    let (network, other) = (Network::new(3), Network::new(4));
    let leaf = network.leaf(Profile::HospitalSigning);
    let crl = network.crl(&[]);
    let verify = |anchor, chain: &[&[u8]]| {
        verify_chain(&network.backend, anchor, chain, Profile::HospitalSigning, NOW, &crl).map(|_| ())
    };
    assert_eq!(verify(&network.anchor, &[&leaf, &network.issuing]), Ok(()));
    assert_eq!(verify(&other.anchor, &[&leaf, &network.issuing]), Err(CertificateError::UnknownIssuer));
    assert_eq!(verify(&network.anchor, &[&leaf, &other.issuing]), Err(CertificateError::UnknownIssuer));
    assert_eq!(
        verify(&other.anchor, &[&leaf, &other.issuing]),
        Err(CertificateError::UnknownIssuer),
        "same names, other keys"
    );
    assert_eq!(verify(&network.anchor, &[&leaf]), Err(CertificateError::ChainLength));
    assert_eq!(verify(&network.anchor, &[]), Err(CertificateError::ChainLength));
    let root = network.anchor.as_der();
    assert_eq!(verify(&network.anchor, &[&leaf, &network.issuing, root]), Err(CertificateError::ChainLength));
    assert!(verify(&network.anchor, &[&leaf, root]).is_err(), "a root as issuing certificate");
    let wrong_place = |link| Err(CertificateError::Profile(link, LintFailure::SignatureAlgorithm));
    assert_eq!(verify(&network.anchor, &[&leaf, &leaf]), wrong_place(Link::Issuing), "a leaf as issuer");
    assert_eq!(
        verify(&network.anchor, &[&network.issuing, &network.issuing]),
        wrong_place(Link::Leaf),
        "an issuer as leaf"
    );

    // A leaf with the right names and identifiers, signed by another key.
    let signer = KeySigner { backend: &other.backend, key: &other.issuing_key };
    let forged = resign(&leaf, &signer.sign(&to_be_signed(&leaf)).unwrap());
    assert_eq!(verify(&network.anchor, &[&forged, &network.issuing]), Err(CertificateError::Signature));
    let forged = resign(&network.issuing, &other.root_key.sign(&to_be_signed(&network.issuing)).unwrap());
    assert_eq!(verify(&network.anchor, &[&leaf, &forged]), Err(CertificateError::Signature));
    let forged = resign(root, &other.root_key.sign(&to_be_signed(root)).unwrap());
    assert_eq!(TrustAnchor::from_der(&forged).map(|_| ()), Err(CertificateError::Signature));
    assert!(TrustAnchor::from_der(&network.issuing).is_err());
}

fn to_be_signed(certificate: &[u8]) -> Vec<u8> {
    x509_cert::Certificate::from_der(certificate).unwrap().tbs_certificate().to_der().unwrap()
}

fn resign(certificate: &[u8], signature: &[u8]) -> Vec<u8> {
    let algorithm = x509_cert::Certificate::from_der(certificate).unwrap().signature_algorithm().oid;
    encoding::assemble(&to_be_signed(certificate), algorithm, signature).unwrap()
}

#[test]
fn a_second_valid_signature_by_high_s_is_refused() {
    let network = Network::new(5);
    let leaf = network.leaf(Profile::HospitalSigning);
    let certificate = x509_cert::Certificate::from_der(&leaf).unwrap();
    let signature = encoding::signature_from_der(certificate.signature().as_bytes().unwrap()).unwrap();
    assert_eq!(encoding::with_low_s(signature), signature, "ours are low already");
    let high = negate(signature);
    assert_eq!(encoding::with_low_s(high), signature);
    let forged = resign(&leaf, &encoding::signature_to_der(&high).unwrap());
    assert_eq!(network.verify(&forged, Profile::HospitalSigning, NOW), Err(CertificateError::Signature));
}

/// The other signature that ECDSA by itself would accept.
fn negate(signature: Signature) -> Signature {
    let order: [u8; 32] =
        crate::encoding::parse_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let mut high = signature;
    let mut borrow = 0_i32;
    for i in (0..32).rev() {
        let difference = i32::from(order[i]) - i32::from(signature.0[32 + i]) - borrow;
        borrow = i32::from(difference < 0);
        high.0[32 + i] = u8::try_from(difference & 0xff).unwrap();
    }
    high
}

#[test]
fn revocation_and_stale_lists_stop_a_certificate() {
    let network = Network::new(6);
    let issued = network.issue(Profile::HospitalSigning, "hospital-a.example", false).unwrap();
    let verify = |crl: &Crl, now| {
        let chain = [&issued.der[..], &network.issuing];
        verify_chain(&network.backend, &network.anchor, &chain, Profile::HospitalSigning, now, crl).map(|_| ())
    };
    let revoked = Revoked { serial: issued.serial, at: NOW };
    let other = Revoked { serial: Serial([0x41; 16]), at: NOW - 1 };
    let clean = network.crl(&[other]);
    assert!(clean.is_revoked(&other.serial) && !clean.is_revoked(&issued.serial));
    assert_eq!((clean.number(), clean.this_update(), clean.next_update()), (1, NOW, NOW + CRL_LIFETIME_SECONDS));
    assert_eq!(verify(&clean, NOW), Ok(()));
    assert_eq!(verify(&network.crl(&[other, revoked, revoked]), NOW), Err(CertificateError::Revoked));
    assert_eq!(verify(&clean, NOW + CRL_LIFETIME_SECONDS), Ok(()));
    assert_eq!(verify(&clean, NOW + CRL_LIFETIME_SECONDS + 1), Err(CertificateError::StaleCrl));
    let issuer = network.anchor.verify_issuer(&network.issuing, NOW).unwrap();
    let future = network.crl_der(&[], 2, NOW + BACKDATE_SECONDS + 1);
    let future = Crl::parse_and_verify(&network.backend, &future, &issuer).unwrap();
    assert_eq!(verify(&future, NOW), Err(CertificateError::StaleCrl));
    assert_eq!(verify(&Network::new(7).crl(&[]), NOW), Err(CertificateError::WrongCrl));
}

#[test]
fn lists_of_others_and_altered_lists_are_refused() {
    let (network, other) = (Network::new(8), Network::new(9));
    let issuer = network.anchor.verify_issuer(&network.issuing, NOW).unwrap();
    let parse = |der: &[u8]| Crl::parse_and_verify(&network.backend, der, &issuer).map(|crl| crl.number());
    let good = network.crl_der(&[Revoked { serial: Serial([0x41; 16]), at: NOW }], 258, NOW);
    assert_eq!(parse(&good), Ok(258));
    assert_eq!(parse(&other.crl_der(&[], 1, NOW)), Err(CrlError::Issuer));
    assert_eq!(parse(&vec![0; MAX_CRL_BYTES + 1]), Err(CrlError::TooLarge));
    assert_eq!(parse(&[]), Err(CrlError::Malformed));
    let mut altered = good.clone();
    let serial_at = altered.windows(16).position(|window| window == [0x41; 16]).unwrap();
    altered[serial_at + 15] = 0x42;
    assert_eq!(parse(&altered), Err(CrlError::Signature));
    for cut in [1, good.len() / 2, good.len() - 1] {
        assert!(parse(&good[..cut]).is_err());
    }
    // A root signs no lists of leaves.
    let root = network.anchor.as_der();
    let by_root = Issuer::new(&network.backend, &network.root_key, root, CRL_URL).unwrap();
    assert_eq!(by_root.issue_crl(&[], 1, NOW), Err(IssueError::Issuer));
}

#[test]
fn the_real_key_signs_nothing_that_fails_its_lint() {
    struct Counting<'a>(KeySigner<'a>, std::sync::atomic::AtomicUsize);
    impl CertificateSigner for Counting<'_> {
        fn public_point(&self) -> Vec<u8> {
            self.0.public_point()
        }
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, crate::backend::PrimitiveError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.sign(message)
        }
    }
    let network = Network::new(10);
    let key = KeySigner { backend: &network.backend, key: &network.issuing_key };
    let signer = Counting(key, std::sync::atomic::AtomicUsize::new(0));
    let issuer = Issuer::new(&network.backend, &signer, &network.issuing, CRL_URL).unwrap();
    let (hospital, leaf) = (name("hospital-a.example"), leaf_key());
    let subject = |profile, loopback| Subject { profile, name: &hospital, public_key: leaf.public(), loopback };
    let issue = |subject: &Subject<'_>, days| issuer.issue(subject, NOW, days * DAY).map(|_| ());
    assert_eq!(issue(&subject(Profile::HospitalTls, false), 31), Err(IssueError::Lint(LintFailure::Lifetime)));
    assert_eq!(issue(&subject(Profile::HospitalTls, true), 30), Err(IssueError::Lint(LintFailure::AlternativeName)));
    assert_eq!(issue(&subject(Profile::ServiceTls, false), 30), Err(IssueError::Lint(LintFailure::AlternativeName)));
    let dots = name("a..b");
    let no_dns_name = Subject { name: &dots, ..subject(Profile::HospitalTls, false) };
    assert_eq!(issue(&no_dns_name, 30), Err(IssueError::Lint(LintFailure::AlternativeName)));
    assert_eq!(issue(&subject(Profile::Issuing, false), 30), Err(IssueError::Issuer));
    assert_eq!(issue(&subject(Profile::Root, false), 30), Err(IssueError::Issuer));
    assert_eq!(issue(&subject(Profile::ServiceTls, false), 400), Err(IssueError::Outlives));
    let no_https = Issuer::new(&network.backend, &signer, &network.issuing, "http://authority.example/crl").unwrap();
    let refused = no_https.issue(&subject(Profile::HospitalTls, false), NOW, DAY).map(|_| ());
    assert_eq!(refused, Err(IssueError::Lint(LintFailure::CrlPoint)));
    let prepared = issuer.prepare(&subject(Profile::HospitalTls, false), NOW, DAY).unwrap();
    assert_eq!(signer.1.load(std::sync::atomic::Ordering::Relaxed), 0, "preparing does not touch the real key");
    let issued = issuer.sign(&prepared).unwrap();
    assert_eq!(signer.1.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!((to_be_signed(&issued.der), issued.serial), (prepared.to_be_signed().to_vec(), prepared.serial()));

    let other = KeySigner { backend: &network.backend, key: &leaf };
    let wrong_key = Issuer::new(&network.backend, &other, &network.issuing, CRL_URL).map(|_| ());
    assert_eq!(wrong_key, Err(IssueError::Key));
    let leaf_as_issuer = Issuer::new(&network.backend, &other, &issued.der, CRL_URL).map(|_| ());
    assert_eq!(leaf_as_issuer, Err(IssueError::Issuer));
    let by_root = Issuer::new(&network.backend, &network.root_key, network.anchor.as_der(), CRL_URL).unwrap();
    let refused = by_root.issue(&subject(Profile::HospitalTls, false), NOW, DAY).map(|_| ());
    assert_eq!(refused, Err(IssueError::Issuer), "a root issues no leaves");
}

#[test]
fn a_signer_that_signs_wrongly_is_noticed() {
    struct Faulty<'a>(KeySigner<'a>);
    impl CertificateSigner for Faulty<'_> {
        fn public_point(&self) -> Vec<u8> {
            self.0.public_point()
        }
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, crate::backend::PrimitiveError> {
            self.0.sign(b"something else")
        }
    }
    let network = Network::new(11);
    let signer = Faulty(KeySigner { backend: &network.backend, key: &network.issuing_key });
    let issuer = Issuer::new(&network.backend, &signer, &network.issuing, CRL_URL).unwrap();
    let (hospital, leaf) = (name("hospital-a.example"), leaf_key());
    let subject =
        Subject { profile: Profile::HospitalTls, name: &hospital, public_key: leaf.public(), loopback: false };
    let refused = issuer.issue(&subject, NOW, DAY).map(|_| ());
    assert_eq!(refused, Err(IssueError::Signer(crate::backend::PrimitiveError::Signature)));
}

/// A certificate whose fields were changed by `change`; lint does not look at the signature.
fn changed(network: &Network, profile: Profile, change: impl FnOnce(&mut encoding::ToBeSigned)) -> Vec<u8> {
    let leaf = network.leaf(profile);
    let mut content = encoding::ToBeSigned::from_der(&to_be_signed(&leaf)).unwrap();
    change(&mut content);
    let algorithm = content.signature.oid;
    encoding::assemble(&content.to_der().unwrap(), algorithm, &[0; 70]).unwrap()
}

#[test]
fn lint_notices_every_departure() {
    use der::asn1::ObjectIdentifier;
    type Change = fn(&mut encoding::ToBeSigned);

    fn drop_extension(content: &mut encoding::ToBeSigned, oid: ObjectIdentifier) {
        content.extensions.retain(|extension| extension.extn_id != oid);
    }
    fn flip_criticality(content: &mut encoding::ToBeSigned, oid: ObjectIdentifier) {
        let extension = content.extensions.iter_mut().find(|extension| extension.extn_id == oid).unwrap();
        extension.critical = !extension.critical;
    }
    fn set(content: &mut encoding::ToBeSigned, oid: ObjectIdentifier, value: &[u8]) {
        let extension = content.extensions.iter_mut().find(|extension| extension.extn_id == oid).unwrap();
        extension.extn_value = der::asn1::OctetString::new(value).unwrap();
    }
    fn push(content: &mut encoding::ToBeSigned, oid: &str, critical: bool) {
        let oid = ObjectIdentifier::new(oid).unwrap();
        content.extensions.push(encoding::extension(oid, critical, &[0x05, 0x00]).unwrap());
    }

    let network = Network::new(12);
    let cases: [(LintFailure, Change); 26] = [
        (LintFailure::Version, |c| c.version = 1),
        (LintFailure::Serial, |c| c.serial_number = 5_u32.into()),
        (LintFailure::Serial, |c| c.serial_number = encoding::serial_number(&Serial([0x80; 16])).unwrap()),
        (LintFailure::SignatureAlgorithm, |c| c.signature.oid = encoding::ECDSA_SHA384),
        (LintFailure::SignatureAlgorithm, |c| c.signature.parameters = Some(der::asn1::Any::null())),
        (LintFailure::Name, |c| c.subject = "CN=Hospital".parse().unwrap()),
        (LintFailure::Name, |c| c.subject = "CN=hospital-a.example,O=other".parse().unwrap()),
        (LintFailure::Name, |c| c.issuer = "O=authority".parse().unwrap()),
        (LintFailure::Lifetime, |c| c.validity.not_after = encoding::time(NOW + 31 * DAY).unwrap()),
        (LintFailure::Lifetime, |c| c.validity.not_after = encoding::time(NOW - DAY).unwrap()),
        (LintFailure::BasicConstraints, |c| drop_extension(c, encoding::BASIC_CONSTRAINTS)),
        (LintFailure::BasicConstraints, |c| flip_criticality(c, encoding::BASIC_CONSTRAINTS)),
        (LintFailure::BasicConstraints, |c| set(c, encoding::BASIC_CONSTRAINTS, &[0x30, 0x03, 0x01, 0x01, 0xff])),
        (LintFailure::KeyUsage, |c| drop_extension(c, encoding::KEY_USAGE)),
        (LintFailure::KeyUsage, |c| set(c, encoding::KEY_USAGE, &[0x03, 0x02, 0x02, 0x84])),
        (LintFailure::ExtendedKeyUsage, |c| drop_extension(c, encoding::EXTENDED_KEY_USAGE)),
        (LintFailure::ExtendedKeyUsage, |c| flip_criticality(c, encoding::EXTENDED_KEY_USAGE)),
        (LintFailure::SubjectKeyId, |c| drop_extension(c, encoding::SUBJECT_KEY_ID)),
        (LintFailure::SubjectKeyId, |c| set(c, encoding::SUBJECT_KEY_ID, &[&[0x04, 0x14][..], &[0; 20]].concat())),
        (LintFailure::AuthorityKeyId, |c| drop_extension(c, encoding::AUTHORITY_KEY_ID)),
        (LintFailure::AuthorityKeyId, |c| set(c, encoding::AUTHORITY_KEY_ID, &[0x30, 0x03, 0x80, 0x01, 0x00])),
        (LintFailure::AlternativeName, |c| drop_extension(c, encoding::ALTERNATIVE_NAME)),
        (LintFailure::AlternativeName, |c| c.subject = "CN=hospital-b.example".parse().unwrap()),
        (LintFailure::CrlPoint, |c| drop_extension(c, encoding::CRL_POINTS)),
        (LintFailure::UnexpectedExtension, |c| push(c, "1.2.3.4", true)),
        (LintFailure::UnexpectedExtension, |c| push(c, "2.5.29.15", true)),
    ];
    for (i, (expected, change)) in cases.into_iter().enumerate() {
        let der = changed(&network, Profile::HospitalSigning, change);
        assert_eq!(lint(&der, Profile::HospitalSigning, NOW), Err(expected), "case {i}");
    }
    let unchanged = changed(&network, Profile::HospitalSigning, |_| ());
    assert_eq!(lint(&unchanged, Profile::HospitalSigning, NOW), Ok(()));
    let large_key = encoding::SubjectKey::P384(network.root_key.public().clone()).to_spki().unwrap();
    let der = changed(&network, Profile::HospitalSigning, |c| c.subject_public_key_info = large_key);
    assert_eq!(lint(&der, Profile::HospitalSigning, NOW), Err(LintFailure::SubjectKey));
    assert_eq!(lint(&vec![0x30; MAX_CERTIFICATE_BYTES + 1], Profile::Root, NOW), Err(LintFailure::TooLarge));
    let mut trailing = unchanged;
    trailing.push(0);
    assert_eq!(lint(&trailing, Profile::HospitalSigning, NOW), Err(LintFailure::Malformed));
}

#[test]
fn requests_prove_possession_and_ask_for_one_profile() {
    let backend = Portable::from_seed([13; 32]);
    let (hospital, key) = (name("hospital-a.example"), leaf_key());
    for (profile, loopback) in [
        (Profile::HospitalTls, false),
        (Profile::HospitalSigning, false),
        (Profile::ProofSigning, false),
        (Profile::ServiceTls, true),
    ] {
        let der = create_csr(&backend, &key, &hospital, profile, loopback).unwrap();
        let request = verify_csr(&backend, &der).unwrap();
        assert_eq!((&request.name, request.profile, request.loopback), (&hospital, profile, loopback));
        assert_eq!(request.public_key, *key.public());
        for cut in [0, 1, der.len() - 1] {
            assert_eq!(verify_csr(&backend, &der[..cut]), Err(RequestError::Malformed));
        }
    }
    let refused = |profile, loopback| create_csr(&backend, &key, &hospital, profile, loopback).unwrap_err();
    assert_eq!(refused(Profile::Issuing, false), RequestError::Usage);
    assert_eq!(refused(Profile::ServiceTls, false), RequestError::Usage);
    assert_eq!(refused(Profile::HospitalTls, true), RequestError::Usage);
    assert_eq!(verify_csr(&backend, &vec![0; MAX_CERTIFICATE_BYTES + 1]), Err(RequestError::Malformed));

    // Somebody else's key under one's own name, and one's own request under another name.
    let der = create_csr(&backend, &key, &hospital, Profile::HospitalSigning, false).unwrap();
    let other_key = SigningKey::derive(&[8; 32]);
    let replace = |from: &[u8], to: &[u8]| {
        let at = der.windows(from.len()).position(|window| window == from).unwrap();
        [&der[..at], to, &der[at + from.len()..]].concat()
    };
    let stolen = replace(key.public().as_sec1(), other_key.public().as_sec1());
    assert_eq!(verify_csr(&backend, &stolen), Err(RequestError::Possession));
    assert_eq!(verify_csr(&backend, &replace(b"hospital-a", b"hospital-b")), Err(RequestError::Usage));
    assert_eq!(verify_csr(&backend, &replace(b"hospital-a", b"HOSPITAL-A")), Err(RequestError::Name));
    let invalid_point = replace(&key.public().as_sec1()[1..], &[1; 64]);
    assert_eq!(verify_csr(&backend, &invalid_point), Err(RequestError::Key));
}

#[test]
fn requests_with_a_high_s_are_taken_as_other_tools_make_them() {
    let backend = Portable::from_seed([14; 32]);
    let der = create_csr(&backend, &leaf_key(), &name("hospital-a.example"), Profile::HospitalTls, false).unwrap();
    let mut request = x509_cert::request::CertReq::from_der(&der).unwrap();
    let signature = encoding::signature_from_der(request.signature.as_bytes().unwrap()).unwrap();
    let high = encoding::signature_to_der(&negate(signature)).unwrap();
    request.signature = der::asn1::BitString::from_bytes(&high).unwrap();
    assert!(verify_csr(&backend, &request.to_der().unwrap()).is_ok());
}

#[test]
fn the_cache_checks_what_changes_each_time() {
    let network = Network::new(15);
    let issued = network.issue(Profile::HospitalSigning, "hospital-a.example", false).unwrap();
    let cache = ChainCache::default();
    let verify = |profile, now, crl: &Crl| {
        let chain = [&issued.der[..], &network.issuing];
        cache.verify_chain(&network.backend, &network.anchor, &chain, profile, now, crl).map(|_| ())
    };
    let crl = network.crl(&[]);
    for _ in 0..2 {
        assert_eq!(verify(Profile::HospitalSigning, NOW, &crl), Ok(()));
        assert_eq!(verify(Profile::HospitalTls, NOW, &crl), Err(CertificateError::WrongUsage));
        assert_eq!(verify(Profile::HospitalSigning, NOW - DAY, &crl), Err(CertificateError::NotYetValid));
        assert_eq!(verify(Profile::HospitalSigning, NOW + 31 * DAY, &crl), Err(CertificateError::Expired));
        assert_eq!(verify(Profile::HospitalSigning, NOW + 8 * DAY, &crl), Err(CertificateError::StaleCrl));
        let revoked = network.crl(&[Revoked { serial: issued.serial, at: NOW }]);
        assert_eq!(verify(Profile::HospitalSigning, NOW, &revoked), Err(CertificateError::Revoked));
    }
    let other = Network::new(16);
    let chain = [&issued.der[..], &network.issuing];
    let refused =
        cache.verify_chain(&network.backend, &other.anchor, &chain, Profile::HospitalSigning, NOW, &crl).map(|_| ());
    assert_eq!(refused, Err(CertificateError::UnknownIssuer), "known under another root does not count");
    let refused =
        cache.verify_chain(&network.backend, &network.anchor, &[], Profile::HospitalSigning, NOW, &crl).map(|_| ());
    assert_eq!(refused, Err(CertificateError::ChainLength));
}

#[test]
fn the_cache_knows_a_chain_again_and_stays_bounded() {
    let network = Network::new(18);
    let meter = crate::metered::Meter::new(|| 0);
    let backend = crate::metered::Metered::new(Portable::from_seed([19; 32]), meter.clone());
    let (cache, crl) = (ChainCache::default(), network.crl(&[]));
    let signatures = |leaf: &[u8]| {
        let before: u64 = meter.snapshot().iter().map(|count| count.count).sum();
        let chain = [leaf, &network.issuing];
        cache.verify_chain(&backend, &network.anchor, &chain, Profile::HospitalSigning, NOW, &crl).unwrap();
        meter.snapshot().iter().map(|count| count.count).sum::<u64>() - before
    };
    let leaf = |n: usize| network.issue(Profile::HospitalSigning, &format!("hospital-{n}.example"), false).unwrap().der;
    let first = leaf(0);
    assert!(signatures(&first) > 0, "a chain is verified once");
    assert_eq!(signatures(&first), 0, "and then known");
    for n in 1..=1024 {
        signatures(&leaf(n));
    }
    assert!(signatures(&first) > 0, "the oldest of more than 1,024 is forgotten");
}

#[test]
fn anchors_and_issuers_say_until_when_they_are_good() {
    let network = Network::new(20);
    assert_eq!(network.anchor.not_after(), NOW + 10 * 365 * DAY);
    let issuer = network.anchor.verify_issuer(&network.issuing, NOW).unwrap();
    assert_eq!(issuer.not_after(), NOW + 365 * DAY);
}

#[test]
fn keys_and_chains_read_back_from_files() {
    let network = Network::new(17);
    let key = leaf_key();
    let pkcs8 = files::signing_key_to_pkcs8(&key);
    assert_eq!(files::signing_key_from_pkcs8(&pkcs8).unwrap().public(), key.public());
    let root = files::root_key_to_pkcs8(&network.root_key);
    assert_eq!(files::root_key_from_pkcs8(&root).unwrap().public(), network.root_key.public());
    let pem = files::to_pem(PemLabel::PrivateKey, &pkcs8).unwrap();
    assert_eq!(*files::from_pem(PemLabel::PrivateKey, pem.as_bytes()).unwrap(), *pkcs8);
    assert_eq!(files::from_pem(PemLabel::Crl, pem.as_bytes()).unwrap_err(), FileError::Pem("X509 CRL"));
    assert_eq!(files::signing_key_from_pkcs8(&root).unwrap_err(), FileError::Key);
    assert_eq!(files::root_key_from_pkcs8(&pkcs8).unwrap_err(), FileError::Key);
    let mut mismatched = pkcs8.to_vec();
    *mismatched.last_mut().unwrap() ^= 1;
    assert_eq!(files::signing_key_from_pkcs8(&mismatched).unwrap_err(), FileError::Key);
    assert_eq!(files::signing_key_from_pkcs8(&pkcs8[..80]).unwrap_err(), FileError::Key);

    let leaf = network.leaf(Profile::HospitalTls);
    let text = files::chain_to_pem(&[&leaf, &network.issuing]).unwrap();
    assert_eq!(files::chain_from_pem(text.as_bytes()).unwrap(), [leaf, network.issuing.clone()]);
    assert!(files::chain_from_pem(b"").is_err());
    assert!(files::chain_from_pem(text.repeat(5).as_bytes()).is_err());
    assert_eq!(files::chain_from_pem(&vec![b'-'; files::MAX_PEM_BYTES + 1]), Err(FileError::TooLarge));
}

#[test]
fn both_libraries_agree_on_root_signatures() {
    let key = RootKey::generate(&Portable::from_seed([18; 32]));
    for signature in [key.sign(b"message").unwrap(), key.sign_portable(b"message").unwrap()] {
        assert_eq!(key.public().verify(b"message", &signature), Ok(()));
        assert_eq!(key.public().verify_portable(b"message", &signature), Ok(()));
        assert!(key.public().verify(b"other", &signature).is_err());
        assert!(key.public().verify_portable(b"other", &signature).is_err());
    }
    assert!(RootKey::from_scalar_bytes(&[0; 48]).is_err());
    assert!(RootKey::from_scalar_bytes(&[0xff; 48]).is_err());
    let mut off = *key.public().as_sec1();
    off[96] ^= 1;
    assert!(RootPublicKey::from_sec1(&off).is_err());
    assert!(!format!("{key:?}").contains(&hex::encode(&key.to_scalar_bytes()[..8])));
}

#[test]
fn names_of_parties_have_one_form() {
    for good in ["a", "hospital-a.example", "0.example", &"x".repeat(63)] {
        assert_eq!(PartyName::parse(good).unwrap().as_str(), good);
    }
    for bad in ["", "-a", ".a", "A", "a_b", "a b", "a/b", "é", &"x".repeat(64)] {
        assert_eq!(PartyName::parse(bad), Err(PartyNameError), "{bad}");
    }
}

/// Our chains, keys and lists in the hands of rustls, whose path validation is independent of ours.
#[cfg(feature = "native")]
mod with_rustls {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::server::WebPkiClientVerifier;
    use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};

    use super::*;

    fn roots(network: &Network) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(network.anchor.as_der().to_vec())).unwrap();
        Arc::new(roots)
    }

    #[test]
    fn rustls_accepts_our_tls_chains_and_refuses_what_it_should() {
        let network = Network::new(19);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let issued = network.issue(Profile::ServiceTls, "relay.example", true).unwrap();
        let chain = files::rustls_chain(&[&issued.der, &network.issuing]);
        let signing = network.leaf(Profile::HospitalSigning);
        let verify = |leaf: &CertificateDer<'_>, host: &'static str, now, revoked: &[Revoked]| {
            let crl = CertificateRevocationListDer::from(network.crl_der(revoked, 1, NOW));
            let verifier = WebPkiServerVerifier::builder_with_provider(roots(&network), provider.clone())
                .with_crls([crl])
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration()
                .build()
                .unwrap();
            let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
            verifier.verify_server_cert(leaf, &chain[1..], &ServerName::try_from(host).unwrap(), &[], time).map(|_| ())
        };
        for host in ["relay.example", "localhost", "127.0.0.1"] {
            assert_eq!(verify(&chain[0], host, NOW, &[]), Ok(()), "{host}");
        }
        assert!(verify(&chain[0], "other.example", NOW, &[]).is_err());
        assert!(verify(&chain[0], "relay.example", NOW + 31 * DAY, &[]).is_err());
        assert!(verify(&chain[0], "relay.example", NOW + 8 * DAY, &[]).is_err(), "stale list");
        assert!(verify(&chain[0], "relay.example", NOW, &[Revoked { serial: issued.serial, at: NOW }]).is_err());
        assert!(verify(&CertificateDer::from(signing), "hospital-a.example", NOW, &[]).is_err(), "no TLS usage");

        let hospital = network.leaf(Profile::HospitalTls);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&network), provider.clone()).build().unwrap();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        verifier.verify_client_cert(&CertificateDer::from(hospital), &chain[1..], time).unwrap();

        let key = files::rustls_key(&leaf_key());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key);
        assert!(config.is_ok(), "rustls reads our key and finds that it fits the certificate");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let backend = Portable::from_seed([20; 32]);
        let _ = lint(&bytes, Profile::HospitalTls, NOW);
        let _ = verify_csr(&backend, &bytes);
        let _ = TrustAnchor::from_der(&bytes);
        let _ = files::chain_from_pem(&bytes);
        let _ = files::signing_key_from_pkcs8(&bytes);
    }

    #[test]
    fn a_flipped_bit_never_verifies(position: prop::sample::Index, bit in 0_u8..8) {
        let network = Network::new(21);
        let mut leaf = network.leaf(Profile::HospitalSigning);
        let at = position.index(leaf.len());
        leaf[at] ^= 1 << bit;
        prop_assert!(network.verify(&leaf, Profile::HospitalSigning, NOW).is_err());
    }
}
