//! Certificates and log: what an authority has before the first patient comes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::{
    Crl, Issuer, KeySigner, PartyName, Profile, Revoked, RootKey, Serial, Subject, TrustAnchor, issue_root,
};
use waybill_crypto::keys::{Digest, Ed25519SecretKey, SigningKey, VerifyingKey};
use waybill_crypto::portable::Portable;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::tiles::{LogEdge, TileKind, TileSet};
use waybill_protocol::log::{
    Checkpoint, CheckpointPolicy, KeyName, LeafKind, LogEvidence, NoteKeyKind, NoteSigner, leaf_entry,
};
use waybill_protocol::messages::Chain;

/// The instant at which tests take place.
pub const NOW: Timestamp = Timestamp(1_800_000_000);
pub const DAY: u64 = 86_400;

pub const AUTHORITY: &str = "authority.example";
pub const A: &str = "hospital-a.example";
pub const B: &str = "hospital-b.example";
pub const C: &str = "hospital-c.example";

const CRL_URL: &str = "https://authority.example/crl";

pub fn id(text: &str) -> HospitalId {
    HospitalId::parse(text).unwrap()
}

/// Root and issuing key, both made long ago, so that certificates of any age can be issued.
pub struct Network {
    pub backend: Portable,
    pub anchor: TrustAnchor,
    issuing_key: SigningKey,
    issuing: Vec<u8>,
}

/// A root, the issuing key below it, and that key's certificate.
type Made = (TrustAnchor, SigningKey, Vec<u8>);

/// The networks made so far: a root's signature is made with fresh randomness, so one is made for each seed and then kept.
static MADE: Mutex<BTreeMap<u8, Made>> = Mutex::new(BTreeMap::new());

impl Network {
    /// The network of a seed, with a back end that begins anew each time.
    pub fn new(seed: u8) -> Self {
        let made = MADE.lock().unwrap().entry(seed).or_insert_with(|| Self::make(seed)).clone();
        let (anchor, issuing_key, issuing) = made;
        Self { backend: Portable::from_seed([seed; 32]), anchor, issuing_key, issuing }
    }

    fn make(seed: u8) -> (TrustAnchor, SigningKey, Vec<u8>) {
        let backend = Portable::from_seed([!seed; 32]);
        let began = NOW.0 - 100 * DAY;
        let (root_key, issuing_key) = (RootKey::generate(&backend), backend.generate_signing_key());
        let name = PartyName::parse(AUTHORITY).unwrap();
        let root = issue_root(&backend, &root_key, &name, began, 10 * 365 * DAY).unwrap();
        let subject =
            Subject { profile: Profile::Issuing, name: &name, public_key: issuing_key.public(), loopback: false };
        let issuer = Issuer::new(&backend, &root_key, &root.der, CRL_URL).unwrap();
        let issuing = issuer.issue(&subject, began, 365 * DAY).unwrap().der;
        (TrustAnchor::from_der(&root.der).unwrap(), issuing_key, issuing)
    }

    fn with_issuer<T>(&self, use_it: impl FnOnce(&Issuer<'_>) -> T) -> T {
        let signer = KeySigner { backend: &self.backend, key: &self.issuing_key };
        use_it(&Issuer::new(&self.backend, &signer, &self.issuing, CRL_URL).unwrap())
    }

    /// A chain made at `at`, good for 30 days.
    pub fn chain(&self, profile: Profile, party: &str, key: &VerifyingKey, at: Timestamp) -> (Chain, Serial) {
        let name = PartyName::parse(party).unwrap();
        let loopback = profile == Profile::ServiceTls;
        let subject = Subject { profile, name: &name, public_key: key, loopback };
        let issued = self.with_issuer(|issuer| issuer.issue(&subject, at.0, 30 * DAY).unwrap());
        (Chain::new([issued.der, self.issuing.clone()]), issued.serial)
    }

    pub fn crl(&self, revoked: &[Serial], at: Timestamp) -> Crl {
        let revoked: Vec<_> = revoked.iter().map(|serial| Revoked { serial: *serial, at: at.0 }).collect();
        let der = self.with_issuer(|issuer| issuer.issue_crl(&revoked, 1, at.0).unwrap());
        let issuer = self.anchor.verify_issuer(&self.issuing, NOW.0).unwrap();
        Crl::parse_and_verify(&self.backend, &der, &issuer).unwrap()
    }
}

/// The authority's log with two witnesses, both of which must cosign.
pub struct TestLog {
    edge: LogEdge,
    tiles: TileSet,
    signer: NoteSigner,
    witnesses: [NoteSigner; 2],
    /// How many of the witnesses cosign what is appended next.
    pub cosigners: usize,
}

/// The keys of the log and of its two witnesses: the same in every run.
pub fn note_signers() -> (NoteSigner, [NoteSigner; 2]) {
    let signer = |name: &str, kind, seed| {
        NoteSigner::new(KeyName::parse(name).unwrap(), kind, Ed25519SecretKey::from_bytes(&[seed; 32]))
    };
    let witness = |name: &str, seed| signer(name, NoteKeyKind::Witness, seed);
    let log = signer("authority.example/log", NoteKeyKind::Log, 10);
    (log, [witness("witness-1.example", 11), witness("witness-2.example", 12)])
}

impl TestLog {
    pub fn new() -> Self {
        let (signer, witnesses) = note_signers();
        Self { edge: LogEdge::empty(), tiles: TileSet::new(), signer, witnesses, cosigners: 2 }
    }

    pub fn policy(&self) -> CheckpointPolicy {
        let witnesses = self.witnesses.iter().map(|w| w.public().clone()).collect();
        CheckpointPolicy::new(self.signer.public().clone(), witnesses, 2).unwrap()
    }

    pub fn log_key(&self) -> waybill_crypto::keys::Ed25519PublicKey {
        *self.signer.public().public_key()
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: self.signer.public().name().clone(), size: self.edge.size(), root: self.edge.root() }
    }

    /// Appends one decision and shows it in a checkpoint that `cosigners` witnesses have seen.
    pub fn append(&mut self, backend: &Portable, kind: LeafKind, message: &Digest, nonce: [u8; 16]) -> LogEvidence {
        let index = self.edge.size();
        let appended = self.edge.append(&[leaf_entry(kind, message, &nonce)]);
        self.edge = appended.edge;
        for (path, bytes) in appended.tiles {
            if path.id.kind != TileKind::Entries {
                self.tiles.insert(path.id, &bytes).unwrap();
            }
        }
        let checkpoint = self.checkpoint();
        let mut note = checkpoint.sign(backend, &self.signer);
        for witness in &self.witnesses[..self.cosigners] {
            note.extend(witness.sign(backend, &checkpoint.to_text(), NOW).into_bytes());
        }
        let path = self.tiles.prove_inclusion(index, self.edge.size()).unwrap();
        LogEvidence { index, nonce, path, checkpoint: note }
    }

    pub fn consistency(&self, from: u64) -> Vec<Digest> {
        if from == 0 { Vec::new() } else { self.tiles.prove_consistency(from, self.edge.size()).unwrap() }
    }
}
