//! The network in which the model runs: real keys, certificates, proof and consent; a clock with two positions; randomness that
//! follows from what is done, so that doing the same again gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use waybill_crypto::backend::Backend as _;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HpkeSecretKey};
use waybill_crypto::lthash::RecordDigest;
use waybill_crypto::portable::Portable;
use waybill_crypto::stream::{RecordKey, StreamKeys, seal_chunk};
use waybill_protocol::authority::{Authority, AuthorityCase};
use waybill_protocol::destination::Destination;
use waybill_protocol::ids::{HospitalId, Nonce, ProofId, SessionId, Timestamp};
use waybill_protocol::log::{Checkpoint, LogEvidence};
use waybill_protocol::messages::{
    Consent, PresentationBody, ProofBundle, Standing, StatementBody, TransferBody, TransferRequest, TypeCount,
};
use waybill_protocol::migration::{Leaf, Post, Recipient};
use waybill_protocol::patient::{Draft, Patient};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{Source, Staged};
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};

use crate::common::{A, B, DAY, NOW, REPLY, TestLog, World, demographics, id, leaves, sealed};
use crate::things::{Entry, Kept, Letter, Log, Outcome, Party, Says, Shared, message, short};
use crate::twins::Twin;

/// When everything that has a deadline is past it.
pub const LATE: Timestamp = Timestamp(NOW.0 + 7 * DAY + 60);

pub struct Bench {
    /// The network early and late; the keys are the same.
    worlds: [World; 2],
    /// Whether a person must compare the two patients.
    pub doubt: bool,
    pub proof: ProofId,
    draft: Draft,
    /// The authority's row and log when the proof has been issued.
    pub issued: Shared<AuthorityCase>,
    pub log: Arc<Log>,
    /// The checkpoint that the source has seen by then.
    pub known: Shared<String>,
    /// The patient's presentation, and the revocation for each who gets one.
    pub presentation: Arc<Letter>,
    pub revocations: Vec<Arc<Letter>>,
    /// A request of the destination's with a consent that the patient did not sign.
    pub forged: Arc<Letter>,
    pub consent: u64,
    /// One-time keys by session: what the destination's folder holds unless it was lost.
    one_time: Mutex<BTreeMap<SessionId, HpkeSecretKey>>,
    /// What the roles gave: asked the same, they give the same.
    done: Mutex<HashMap<Asked, Option<Arc<Outcome>>>>,
}

/// What a step was computed from: twin, party, rows, what it is about, and what surrounds it.
pub type Asked = (Option<Twin>, Party, [u64; 3], u64, (bool, bool, u8));

/// A record staged for a session.
pub struct Stage {
    pub staged: Staged,
    pub root: Digest,
    pub reply: HpkeSecretKey,
}

/// The world as it begins; with a doubt the destination knows the patient under another family name.
fn early_world(doubt: bool) -> World {
    let mut world = World::new();
    if doubt {
        world.b.patient = demographics("patient-at-b", "Byron", "1815-12-10");
    }
    world
}

/// The world as it is late: the same keys, a fresh revocation list.
fn late_world(doubt: bool) -> World {
    let mut world = early_world(doubt);
    world.now = LATE;
    let crl = || world.network.crl(&[], LATE);
    let lists = [crl(), crl(), crl(), crl()];
    let trusts = [&mut world.a.trust, &mut world.b.trust, &mut world.authority_trust, &mut world.patient_trust];
    trusts.into_iter().zip(lists).for_each(|(trust, list)| trust.renew_crl(list));
    world
}

fn letter(to: Recipient, parcel: Vec<u8>) -> Arc<Letter> {
    Letter::new(&Post { to, parcel, awaits: None }).unwrap()
}

impl Bench {
    pub fn new(doubt: bool) -> Self {
        let mut world = early_world(doubt);
        let (draft, delegation) = world.delegate(0);
        let role = world.authority();
        let intent = role.check_delegation(&delegation, &crate::common::all_active).unwrap();
        let (case, effects) = role.issue_proof(&intent).unwrap();
        let leaf = leaves(&effects).remove(0);
        let log = Log::of(vec![Entry { leaf: leaf.clone(), says: Says::default() }]);
        let known = Kept::new(world.log.checkpoint().to_text());
        let posts = world.finish(leaf);
        let answer = Parcel::parse(&posts[0].parcel).unwrap();
        let patient = world.patient();
        let compared = patient.accept_proof(&world.patient_trust, &draft, &answer).unwrap();
        let parcel = patient.present(&draft, &compared, &world.a.contact, &world.b.contact, REPLY).unwrap();
        let presentation = letter(Recipient::Hospital(id(B)), parcel.clone());
        let sealed_consent = world.consent_in(&sealed(&parcel, Kind::Presentation));
        let consent = short(&sealed_consent.digest());
        let stop = patient.revoke(&draft, case.id, waybill_protocol::messages::RevocationReason::Withdrawn);
        let to = [Recipient::Authority, Recipient::Hospital(id(A)), Recipient::Hospital(id(B))];
        let revocations = to.into_iter().map(|to| letter(to, stop.clone())).collect();
        let forged = world.forged_request(compared.bundle(), case.id, &sealed_consent);
        Self {
            proof: case.id,
            draft,
            issued: Kept::new(case),
            log,
            known,
            presentation,
            revocations,
            forged: letter(Recipient::Hospital(id(A)), Parcel::pack(Kind::TransferRequest, &forged)),
            consent,
            one_time: Mutex::default(),
            done: Mutex::default(),
            worlds: [world, late_world(doubt)],
            doubt,
        }
    }

    /// What was given for the same before, or is given now.
    pub fn remember(&self, asked: Asked, give: impl FnOnce() -> Option<Outcome>) -> Option<Arc<Outcome>> {
        if let Some(done) = self.done.lock().unwrap().get(&asked) {
            return done.clone();
        }
        let outcome = give().map(Arc::new);
        self.done.lock().unwrap().insert(asked, outcome.clone());
        outcome
    }

    pub fn world(&self, late: bool) -> &World {
        &self.worlds[usize::from(late)]
    }

    /// Randomness for one thing that is done: it follows from what is done, to what, and in which life of the party.
    pub fn backend(&self, what: &str, of: u64, life: u8) -> Portable {
        Portable::from_seed(sha256(&[what.as_bytes(), &of.to_be_bytes(), &[life]]).0)
    }

    fn ctx<'a>(&self, late: bool, backend: &'a Portable) -> Ctx<'a> {
        Ctx { now: self.world(late).now, backend }
    }

    pub fn authority<'a>(&'a self, late: bool, backend: &'a Portable) -> Authority<'a> {
        let world = self.world(late);
        Authority { ctx: self.ctx(late, backend), trust: &world.authority_trust, keys: &world.authority }
    }

    pub fn source<'a>(&'a self, late: bool, backend: &'a Portable) -> Source<'a> {
        let party = &self.world(late).a;
        Source { ctx: self.ctx(late, backend), hospital: &party.identity, trust: &party.trust }
    }

    pub fn destination<'a>(&'a self, late: bool, backend: &'a Portable) -> Destination<'a> {
        let party = &self.world(late).b;
        Destination { ctx: self.ctx(late, backend), hospital: &party.identity, trust: &party.trust }
    }

    /// Keeps the one-time key of a session.
    pub fn keep_one_time(&self, session: SessionId, secret: HpkeSecretKey) {
        self.one_time.lock().unwrap().insert(session, secret);
    }

    pub fn one_time(&self, session: SessionId) -> HpkeSecretKey {
        self.one_time.lock().unwrap()[&session].clone()
    }

    /// The record as it is staged for a session, always the same.
    pub fn stage(&self, session: SessionId) -> Stage {
        let backend = self.backend("stage", short(&session.0), 0);
        let key = RecordKey::random(&backend);
        let keys = StreamKeys::derive(&session.0, &key);
        let mut plain = b"a record, as the stream carries it".to_vec();
        let stream_bytes = plain.len() as u64;
        let root = seal_chunk(&backend, &keys, &session.0, 0, true, &mut plain).unwrap().leaf();
        let reply = backend.generate_hpke_key();
        let staged = Staged {
            snapshot_at: NOW,
            inventory: vec![TypeCount { resource_type: "Patient".into(), count: 1, size_bytes: 34 }],
            stream_bytes,
            chunk_bytes: 1 << 20,
            chunk_count: 1,
            leaf_list: Digest([5; 32]),
            merkle_root: root,
            key_commitment: keys.commitment(),
            digest_scope: RecordDigest::default(),
            digest_full: RecordDigest::default(),
            loss: vec![0x80],
            key,
            reply_key: *reply.public(),
        };
        Stage { staged, root, reply }
    }

    /// Where a leaf is in the log, in a checkpoint that both witnesses cosigned, and that this extends what somebody knew.
    pub fn evidence(&self, log: &Log, index: usize, known: u64) -> (LogEvidence, Vec<Digest>) {
        let mut built = TestLog::new();
        let backend = self.backend("log", 0, 0);
        let append = |leaf: &Leaf| built.append(&backend, leaf.kind, &leaf.message.0, leaf.nonce.0);
        let evidence = log.value[..=index].iter().map(|entry| &entry.leaf).map(append).last().unwrap();
        (evidence, built.consistency(known))
    }

    /// What a source remembers of a checkpoint.
    pub fn checkpoint(text: &str) -> Checkpoint {
        Checkpoint::parse(text).unwrap()
    }

    /// Whether the patient, with no more than a wallet holds, reads in a statement what it says.
    pub fn patient_reads(&self, late: bool, statement: &Letter) -> bool {
        let (world, backend) = (self.world(late), self.backend("patient", 0, 0));
        let body: StatementBody = statement.parcel().open(Kind::CaseStatement, "statement").unwrap();
        let patient = Patient { ctx: self.ctx(late, &backend), root: &world.root };
        let read = patient.accept_statement(&world.patient_trust, &self.draft, self.proof, &world.b.contact, &body);
        read.is_ok_and(|ending| Some(ending.state) == statement.says.end && ending.code.is_none())
    }

    /// Who is in good standing.
    pub fn standing(suspended: bool) -> impl Fn(&HospitalId) -> Option<Standing> {
        move |hospital| Some(if suspended && *hospital == id(B) { Standing::Suspended } else { Standing::Active })
    }
}

impl World {
    fn consent_in(&self, presentation: &SealedBytes) -> SealedBytes {
        let hpke = &self.b.identity.hpke;
        let plain = presentation.open(&self.network.backend, hpke, SealPurpose::Presentation, B.as_bytes()).unwrap();
        let body: PresentationBody = from_cbor("presentation", &plain, MAX_PARCEL_BYTES).unwrap();
        body.consent
    }

    /// A destination that asks without the patient: proof, request and even the openings are genuine, but a key of its own signed the
    /// consent.
    fn forged_request(&self, proof: &ProofBundle, proof_id: ProofId, consent: &SealedBytes) -> TransferBody {
        let backend = &self.network.backend;
        let plain = consent.open(backend, &self.a.identity.hpke, SealPurpose::Consent, A.as_bytes()).unwrap();
        let genuine: Consent = message(&SignedBytes::from(plain));
        let signed = Signed::sign(backend, &forger(self), genuine);
        let to = self.a.identity.keys().hpke;
        let consent = SealedBytes::seal(backend, &to, SealPurpose::Consent, A.as_bytes(), signed.bytes()).unwrap();
        let session_key = *backend.generate_hpke_key().public();
        let bound = sha256(&[proof_id.as_bytes(), &session_key.0]).0;
        let claim = to_cbor(&self.b.patient);
        let identity_claim = SealedBytes::seal(backend, &to, SealPurpose::IdentityClaim, &bound, &claim).unwrap();
        let request = TransferRequest {
            proof: proof_id,
            consent: consent.digest(),
            session_key,
            attempt: 1,
            nonce: Nonce([4; 16]),
            time: self.now,
            identity_claim,
            keys: self.b.identity.keys(),
        };
        let request = SignedBytes::from(&Signed::sign(backend, &self.b.identity.signing, request));
        TransferBody { request, chain: self.b.identity.chain.clone(), proof: proof.clone(), consent }
    }
}

/// The key of whoever forges a consent.
pub fn forger(world: &World) -> waybill_crypto::keys::SigningKey {
    world.root.consent_key("nobody.example", 0)
}
