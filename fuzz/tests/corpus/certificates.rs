//! Seeds from our own issuer: certificates of every profile, requests, lists, and the files they are kept in.

use waybill_crypto::certificate::files::{PemLabel, chain_to_pem, root_key_to_pkcs8, signing_key_to_pkcs8, to_pem};
use waybill_crypto::certificate::{PartyName, Profile, Revoked, Serial, Subject, create_csr};
use waybill_fuzz::fixture;

use crate::Seeds;

const LEAVES: [(&str, Profile, bool); 4] = [
    ("proof-signing", Profile::ProofSigning, false),
    ("hospital-tls", Profile::HospitalTls, false),
    ("hospital-signing", Profile::HospitalSigning, false),
    ("service-tls", Profile::ServiceTls, true),
];

pub fn add(seeds: &mut Seeds) {
    let (backend, key) = (fixture::backend(), fixture::issuing_key());
    let name = PartyName::parse("hospital-a.example").unwrap();
    let mut leaf = Vec::new();
    for (what, profile, loopback) in LEAVES {
        let subject = Subject { profile, name: &name, public_key: key.public(), loopback };
        let issue =
            |issuer: &waybill_crypto::certificate::Issuer<'_>| issuer.issue(&subject, fixture::NOW, 30 * fixture::DAY);
        leaf = fixture::with_issuer(backend, fixture::CRL_URL, issue).unwrap().der;
        seeds.add("certificate", &format!("ok-{what}"), leaf.clone());
        let request = create_csr(backend, key, &name, profile, loopback).unwrap();
        seeds.add("csr", &format!("ok-{what}"), request.clone());
        if profile == Profile::HospitalTls {
            seeds.add("pem", "ok-request", to_pem(PemLabel::Request, &request).unwrap().as_bytes());
        }
    }
    seeds.add("certificate", "ok-root", fixture::ROOT);
    seeds.add("certificate", "ok-issuing", fixture::ISSUING);
    let mut list = |what: &str, revoked: &[Revoked]| {
        let der = fixture::with_issuer(backend, fixture::CRL_URL, |issuer| issuer.issue_crl(revoked, 7, fixture::NOW))
            .unwrap();
        seeds.add("crl", &format!("ok-{what}"), der.clone());
        der
    };
    list("empty", &[]);
    let revoked = [0x41, 0x7f].map(|first| Revoked { serial: Serial([first; 16]), at: fixture::NOW - 60 });
    let crl = list("two", &revoked);
    seeds.add("pem", "ok-crl", to_pem(PemLabel::Crl, &crl).unwrap().as_bytes());
    seeds.add("pem", "ok-certificate", to_pem(PemLabel::Certificate, &leaf).unwrap().as_bytes());
    seeds.add("pem", "ok-chain", chain_to_pem(&[&leaf, fixture::ISSUING]).unwrap());
    let signing = signing_key_to_pkcs8(key);
    seeds.add("pem", "ok-key", to_pem(PemLabel::PrivateKey, &signing).unwrap().as_bytes());
    seeds.add("pem", "no-key", signing.as_slice());
    seeds.add("pem", "no-root-key", root_key_to_pkcs8(&fixture::root_key()).as_slice());
}
