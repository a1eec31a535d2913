//! The keys, certificates and log that targets hold their inputs against: fixed, so that a crash is one everywhere.
//!
//! A root signs with fresh randomness, so the two certificates that it signed are files in `fixtures/`; `tests/seeds.rs` made them.

use std::sync::{Arc, LazyLock};

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::{CertificateSigner as _, Issuer, KeySigner, RootKey, TrustAnchor, VerifiedIssuer};
use waybill_crypto::keys::{Digest, Ed25519SecretKey, HpkeSecretKey, SigningKey};
use waybill_crypto::portable::Portable;
use waybill_protocol::log::{CheckpointPolicy, KeyName, NoteKeyKind, NoteSigner};

/// The time at which everything here is looked at.
pub const NOW: u64 = 1_800_000_000;
/// When root and issuing key were made.
pub const BEGAN: u64 = NOW - 100 * DAY;
/// Units: seconds.
pub const DAY: u64 = 86_400;
/// The authority's name.
pub const AUTHORITY: &str = "authority.example";
/// Where the revocation list is.
pub const CRL_URL: &str = "https://authority.example/crl";
/// What the corpus of sealed parts is bound to.
pub const SEAL_BOUND: [u8; 32] = counting(0x70);
/// The session of the corpus of chunks.
pub const SESSION: Digest = Digest(counting(0x21));

const fn counting<const N: usize>(first: u8) -> [u8; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = first.wrapping_add((i % 256) as u8);
        i += 1;
    }
    out
}

static BACKEND: LazyLock<Arc<Portable>> = LazyLock::new(|| Arc::new(Portable::from_seed([0x57; 32])));
static SIGNING_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::derive(&counting(0)));
static HPKE_KEY: LazyLock<HpkeSecretKey> = LazyLock::new(|| HpkeSecretKey::from_bytes(&counting(0x20)));
static ISSUING_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::derive(&counting(0x40)));

/// The root certificate, DER.
pub const ROOT: &[u8] = include_bytes!("../fixtures/root.der");
/// The issuing certificate, DER.
pub const ISSUING: &[u8] = include_bytes!("../fixtures/issuing.der");
/// The root under which the corpus of evidence was made, DER.
pub const EVIDENCE_ROOT: &[u8] = include_bytes!("../fixtures/evidence-root.der");

static ANCHOR: LazyLock<TrustAnchor> = LazyLock::new(|| TrustAnchor::from_der(ROOT).expect("the fixture is a root"));
static ISSUER: LazyLock<VerifiedIssuer> =
    LazyLock::new(|| ANCHOR.verify_issuer(ISSUING, NOW).expect("the fixture is an issuing certificate"));
static EVIDENCE_ANCHOR: LazyLock<TrustAnchor> =
    LazyLock::new(|| TrustAnchor::from_der(EVIDENCE_ROOT).expect("the fixture is a root"));

/// The primitives.
pub fn backend() -> &'static dyn Backend {
    &**BACKEND
}

/// The primitives, for who keeps them.
pub fn shared_backend() -> Arc<dyn Backend> {
    BACKEND.clone()
}

/// The key that signed the samples of `vectors/protocol-messages.json`.
pub fn signing_key() -> &'static SigningKey {
    &SIGNING_KEY
}

/// The key that the samples of `vectors/protocol-sealed.json` are sealed to.
pub fn hpke_key() -> &'static HpkeSecretKey {
    &HPKE_KEY
}

/// The authority's root key.
///
/// # Panics
/// Never: the scalar is one of the curve.
pub fn root_key() -> RootKey {
    RootKey::from_scalar_bytes(&counting(0x01)).expect("a scalar below the order")
}

/// The authority's issuing key.
pub fn issuing_key() -> &'static SigningKey {
    &ISSUING_KEY
}

/// The authority's root.
pub fn anchor() -> &'static TrustAnchor {
    &ANCHOR
}

/// The issuing key as its certificate shows it.
pub fn issuer() -> &'static VerifiedIssuer {
    &ISSUER
}

/// The root of the corpus of evidence.
pub fn evidence_anchor() -> &'static TrustAnchor {
    &EVIDENCE_ANCHOR
}

/// Lends the issuer under `ISSUING`, with randomness and list's place of the caller's choice.
///
/// # Panics
/// Never: key and certificate belong together.
pub fn with_issuer<T>(backend: &dyn Backend, crl_url: &str, use_it: impl FnOnce(&Issuer<'_>) -> T) -> T {
    let signer = KeySigner { backend, key: issuing_key() };
    use_it(&Issuer::new(backend, &signer, ISSUING, crl_url).expect("the fixture's key and certificate"))
}

/// Signs with the issuing key, in the form of certificates.
///
/// # Panics
/// Never.
pub fn issue_signature(to_be_signed: &[u8]) -> Vec<u8> {
    KeySigner { backend: backend(), key: issuing_key() }.sign(to_be_signed).expect("a key signs")
}

fn note_signer(name: &str, kind: NoteKeyKind, seed: u8) -> NoteSigner {
    NoteSigner::new(KeyName::parse(name).expect("a name"), kind, Ed25519SecretKey::from_bytes(&[seed; 32]))
}

/// The log's key.
pub fn log_signer() -> NoteSigner {
    note_signer("authority.example/log", NoteKeyKind::Log, 10)
}

/// A witness' key.
pub fn witness_signer() -> NoteSigner {
    note_signer("witness.example", NoteKeyKind::Witness, 11)
}

/// Log and witness, who must both have signed.
///
/// # Panics
/// Never: the keys differ.
pub fn policy() -> CheckpointPolicy {
    CheckpointPolicy::new(log_signer().public().clone(), vec![witness_signer().public().clone()], 1)
        .expect("one of one")
}
