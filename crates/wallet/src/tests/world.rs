//! Everybody the wallet talks to, in memory: the protocol's own roles, a log of one witness, no network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::{
    Crl, Issuer, KeySigner, PartyName, Profile, RootKey, Subject, TrustAnchor, issue_root,
};
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, Ed25519SecretKey, HospitalKeys, VerifyingKey};
use waybill_crypto::passphrase::Cost;
use waybill_crypto::portable::Portable;
use waybill_protocol::authority::{Authority, AuthorityCase, AuthorityKeys};
use waybill_protocol::destination::Destination;
use waybill_protocol::ids::{HospitalId, ManifestId, Nonce, ProofId, Timestamp};
use waybill_protocol::log::note::assemble;
use waybill_protocol::log::tiles::{LogEdge, TileKind, TileSet};
use waybill_protocol::log::{Checkpoint, CheckpointPolicy, KeyName, LogEvidence, NoteKeyKind, NoteSigner, leaf_entry};
use waybill_protocol::messages::{
    AuthorityStatement, AuthorityStatementBody, Chain, DelegationBody, ImportReceipt, KeyLodgement, LoginOutcome,
    OutcomeClass, Preview, Purpose, ReceiptBody, ReceiptDetail, ReceiptOpening, Refusal, RefusalBody, Revocation,
    RevocationBody, RevocationReason, SUITE, Standing, TypeCount,
};
use waybill_protocol::migration::{AuthorityState, Effect, Leaf, Post, Recipient};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::registrar::{EnrolmentCode, HospitalIdentity, LocalPatient, Registered, Registrar};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::RECEIPT_COMMITMENT;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::hides::Hides;
use waybill_record::loss::LossReport;
use waybill_record::scope::Scope;

use crate::state::{Errand, Party};
use crate::trust::TrustSettings;
use crate::wallet::{Settings, Wallet};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);
pub(crate) const PASSPHRASE: &str = "a passphrase";
const DAY: u64 = 86_400;

/// A letter on its way into one of the wallet's mailboxes.
pub(crate) type Letter = (String, Vec<u8>);

pub(crate) struct Hospital {
    pub identity: HospitalIdentity,
    pub mailbox: String,
    pub registered: Option<Registered>,
    pub code: Nonce,
    /// Presentations that verified.
    pub presented: Vec<ProofId>,
}

pub(crate) struct World {
    pub backend: Arc<dyn Backend>,
    pub folder: tempfile::TempDir,
    pub root: Vec<u8>,
    pub policy: CheckpointPolicy,
    pub crl: Vec<u8>,
    pub statement: Vec<u8>,
    pub keys: AuthorityKeys,
    pub trust: Trust,
    pub hospitals: BTreeMap<HospitalId, Hospital>,
    pub cases: BTreeMap<ProofId, AuthorityCase>,
    log: NoteSigner,
    witness: NoteSigner,
    edge: LogEdge,
    tiles: TileSet,
}

pub(crate) fn id(text: &str) -> HospitalId {
    HospitalId::parse(text).unwrap()
}

pub(crate) fn a() -> HospitalId {
    id("hospital-a.example")
}

pub(crate) fn b() -> HospitalId {
    id("hospital-b.example")
}

fn authority_mailbox() -> String {
    "https://authority.example/mailbox/authority".to_owned()
}

impl World {
    pub(crate) fn new() -> Self {
        let backend: Arc<dyn Backend> = Arc::new(Portable::from_seed([42; 32]));
        let name = |text: &str| PartyName::parse(text).unwrap();
        let root_key = RootKey::generate(&*backend);
        let root = issue_root(&*backend, &root_key, &name("authority.example"), NOW.0, 3650 * DAY).unwrap().der;
        let url = "https://authority.example/crl";
        let root_issuer = Issuer::new(&*backend, &root_key, &root, url).unwrap();
        let issue = |issuer: &Issuer<'_>, profile, party: &str, key: &VerifyingKey| {
            let subject = Subject { profile, name: &name(party), public_key: key, loopback: false };
            issuer.issue(&subject, NOW.0, 30 * DAY).unwrap().der
        };
        let issuing_key = backend.generate_signing_key();
        let issuing = issue(&root_issuer, Profile::Issuing, "authority.example", issuing_key.public());
        let signer = KeySigner { backend: &*backend, key: &issuing_key };
        let issuer = Issuer::new(&*backend, &signer, &issuing, url).unwrap();
        let crl = issuer.issue_crl(&[], 1, NOW.0).unwrap();
        let note_signer = |text: &str, kind, seed| {
            NoteSigner::new(KeyName::parse(text).unwrap(), kind, Ed25519SecretKey::from_bytes(&[seed; 32]))
        };
        let log = note_signer("authority.example/log", NoteKeyKind::Log, 1);
        let witness = note_signer("witness.example", NoteKeyKind::Witness, 2);
        let policy = CheckpointPolicy::new(log.public().clone(), vec![witness.public().clone()], 1).unwrap();
        let proof_signing = backend.generate_signing_key();
        let chain = |profile, party: &str, key: &VerifyingKey| {
            Chain::new([issue(&issuer, profile, party, key), issuing.clone()])
        };
        let keys = AuthorityKeys {
            chain: chain(Profile::ProofSigning, "authority.example", proof_signing.public()),
            proof_signing,
            lodgement: backend.generate_hpke_key(),
        };
        let hospitals = [a(), b()].map(|id| {
            let signing = backend.generate_signing_key();
            let chain = chain(Profile::HospitalSigning, id.as_str(), signing.public());
            let identity =
                HospitalIdentity { id: id.clone(), signing, hpke: backend.generate_hpke_key(), chain, change: None };
            let mailbox = format!("https://{id}/mailbox/{}", "0".repeat(64));
            let code = Nonce::random(&*backend);
            (id, Hospital { identity, mailbox, registered: None, code, presented: Vec::new() })
        });
        let said = AuthorityStatement {
            suite: SUITE,
            authority: id("authority.example"),
            lodgement_key: *keys.lodgement.public(),
            log_origin: policy.origin().as_str().to_owned(),
            log_key: *policy.log_key().public_key(),
            time: NOW,
        };
        let said = Signed::sign(&*backend, &keys.proof_signing, said);
        let said = AuthorityStatementBody { statement: SignedBytes::from(&said), chain: keys.chain.clone() };
        let anchor = TrustAnchor::from_der(&root).unwrap();
        let verified = anchor.verify_issuer(&issuing, NOW.0).unwrap();
        let list = Crl::parse_and_verify(&*backend, &crl, &verified).unwrap();
        let mut trust = Trust::new(id("authority.example"), anchor, policy.clone(), list);
        trust.accept_statement(&Ctx { now: NOW, backend: &*backend }, &said).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            root,
            policy,
            crl,
            statement: to_cbor(&said),
            keys,
            trust,
            hospitals: hospitals.into(),
            cases: BTreeMap::new(),
            log,
            witness,
            edge: LogEdge::empty(),
            tiles: TileSet::new(),
            backend,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("wallet")
    }

    pub(crate) fn trust_settings(&self) -> TrustSettings {
        TrustSettings::new(id("authority.example"), authority_mailbox(), self.root.clone(), self.policy.clone())
    }

    pub(crate) fn settings(&self) -> Settings {
        let relay = "relay.example".parse().unwrap();
        Settings { relay, trust: Some(self.trust_settings()), cost: Cost::LEAST }
    }

    /// A wallet that knows the authority and nobody else.
    pub(crate) fn wallet(&self) -> Wallet {
        let backend = Arc::new(Portable::from_seed([7; 32]));
        let mut wallet = Wallet::create(backend, &self.path(), PASSPHRASE, self.settings()).unwrap();
        wallet.renew_trust(NOW, &self.crl, &self.statement).unwrap();
        wallet
    }

    /// Kills the wallet and opens it again.
    pub(crate) fn restart(&self, wallet: Wallet) -> Wallet {
        let backend = wallet.backend.clone();
        drop(wallet);
        Wallet::open(backend, &self.path(), PASSPHRASE).unwrap()
    }

    pub(crate) fn ctx(&self) -> Ctx<'_> {
        Ctx { now: NOW, backend: &*self.backend }
    }

    pub(crate) fn enrolment(&self, hospital: &HospitalId) -> Enrolment {
        let at = &self.hospitals[hospital];
        Enrolment { hospital: hospital.clone(), keys: at.identity.keys(), mailbox: at.mailbox.clone(), code: at.code }
    }

    /// Posts a parcel and gives what comes back.
    pub(crate) fn post(&mut self, errand: &Errand) -> Vec<Letter> {
        let parcel = Parcel::parse(&errand.parcel).unwrap();
        assert_eq!(parcel.kind, errand.kind);
        match &errand.to {
            Party::Authority => {
                assert_eq!(errand.address, authority_mailbox());
                self.at_authority(&parcel)
            }
            Party::Hospital(id) => {
                assert_eq!(errand.address, self.hospitals[id].mailbox);
                self.at_hospital(id, &parcel)
            }
        }
    }

    fn at_hospital(&mut self, id: &HospitalId, parcel: &Parcel) -> Vec<Letter> {
        match parcel.kind {
            Kind::Registration => self.register(id, parcel),
            Kind::Login => self.login(id, parcel),
            Kind::Presentation => self.present(id, parcel),
            Kind::Revocation => Vec::new(),
            kind => panic!("{kind:?} at a hospital"),
        }
    }

    fn register(&mut self, id: &HospitalId, parcel: &Parcel) -> Vec<Letter> {
        let backend = self.backend.clone();
        let at = self.hospitals.get_mut(id).unwrap();
        let registrar = Registrar { ctx: Ctx { now: NOW, backend: &*backend }, hospital: &at.identity };
        let sealed: SealedBytes = parcel.open(Kind::Registration, "registration").unwrap();
        let opened = registrar.open_registration(&sealed).unwrap();
        let code = EnrolmentCode::for_oneself(LocalPatient("p1".to_owned()), NOW.plus(600));
        let (registered, effects) = registrar.handle_registration(&opened, Some(&code), at.registered.clone()).unwrap();
        at.registered = Some(registered);
        letters(effects)
    }

    fn login(&mut self, id: &HospitalId, parcel: &Parcel) -> Vec<Letter> {
        let at = &self.hospitals[id];
        let registrar = Registrar { ctx: self.ctx(), hospital: &at.identity };
        let sealed: SealedBytes = parcel.open(Kind::Login, "login").unwrap();
        let login = registrar.verify_login(registrar.open_login(&sealed).unwrap(), at.registered.as_ref()).unwrap();
        let outcome = match login.purpose() {
            Purpose::Voucher { .. } => registrar.issue_voucher(&login).unwrap(),
            // Here the source knows every case, and the destination none.
            Purpose::Watch { .. } if id == &a() => LoginOutcome::Watch { state: "lodged".to_owned(), code: None },
            Purpose::Watch { .. } => LoginOutcome::Refused { code: Code::UnknownCase },
            _ => LoginOutcome::Preview { preview: preview() },
        };
        letters(vec![registrar.answer_login(&login, outcome).unwrap()])
    }

    /// A hospital changes its keys; whoever still pins the old ones is answered under them and told.
    pub fn replace_keys(&mut self, id: &HospitalId) -> HospitalKeys {
        let backend = self.backend.clone();
        let new = HospitalKeys {
            signing: backend.generate_signing_key().public().clone(),
            hpke: *backend.generate_hpke_key().public(),
        };
        let ctx = Ctx { now: NOW, backend: &*backend };
        let identity = &mut self.hospitals.get_mut(id).unwrap().identity;
        identity.change = Some(identity.sign_change(&ctx, new.clone()));
        new
    }

    fn present(&mut self, id: &HospitalId, parcel: &Parcel) -> Vec<Letter> {
        let at = &self.hospitals[id];
        let destination = Destination { ctx: self.ctx(), hospital: &at.identity, trust: &self.trust };
        let sealed: SealedBytes = parcel.open(Kind::Presentation, "presentation").unwrap();
        let opened = destination.open_presentation(&sealed).unwrap();
        let presenter = destination.verify_presenter(opened, at.registered.as_ref()).unwrap();
        let verified = destination.verify_presentation(presenter).unwrap();
        let proof = verified.proof();
        let again = at.presented.contains(&proof);
        let refusal = again.then(|| destination.refuse_presentation(&verified, Code::ProofSpent)).flatten();
        self.hospitals.get_mut(id).unwrap().presented.push(proof);
        letters(refusal.into_iter().collect())
    }

    pub(crate) fn authority(&self, now: Timestamp) -> Authority<'_> {
        Authority { ctx: Ctx { now, backend: &*self.backend }, trust: &self.trust, keys: &self.keys }
    }

    fn at_authority(&mut self, parcel: &Parcel) -> Vec<Letter> {
        match parcel.kind {
            Kind::Delegation => {
                let body: DelegationBody = parcel.open(Kind::Delegation, "delegation").unwrap();
                let authority = self.authority(NOW);
                let intent = authority.check_delegation(&body, &|_| Some(Standing::Active)).unwrap();
                let transition = authority.issue_proof(&intent).unwrap();
                self.settle(NOW, transition)
            }
            Kind::Revocation => {
                let body: RevocationBody = parcel.open(Kind::Revocation, "revocation").unwrap();
                let proof = body.revocation.parse().unwrap().peek().proof;
                let transition = self.authority(NOW).handle_revocation(self.cases[&proof].clone(), &body).unwrap();
                self.settle(NOW, transition)
            }
            kind => panic!("{kind:?} at the authority"),
        }
    }

    /// A hospital of the case revokes it with its own key.
    pub(crate) fn declined_by(&mut self, hospital: &HospitalId, proof: ProofId) -> Vec<Letter> {
        let identity = &self.hospitals[hospital].identity;
        let revocation = Revocation { proof, reason: RevocationReason::HospitalDeclines, time: NOW };
        let revocation = (&Signed::sign(&*self.backend, &identity.signing, revocation)).into();
        let body = RevocationBody { revocation, chain: identity.chain.clone() };
        let transition = self.authority(NOW).handle_revocation(self.cases[&proof].clone(), &body).unwrap();
        self.settle(NOW, transition)
    }

    /// Stores the row, logs, cosigns, answers.
    pub(crate) fn settle(&mut self, now: Timestamp, (case, effects): (AuthorityCase, Vec<Effect>)) -> Vec<Letter> {
        self.cases.insert(case.id, case);
        let leaves = effects.into_iter().filter_map(|effect| match effect {
            Effect::Log(leaf) => Some(*leaf),
            _ => None,
        });
        let mut out = Vec::new();
        for leaf in leaves.collect::<Vec<_>>() {
            let evidence = self.log(&leaf);
            let posts = self.authority(now).finish(leaf.answer, evidence, Vec::new()).unwrap();
            out.extend(posts.into_iter().filter_map(letter));
        }
        out
    }

    fn log(&mut self, leaf: &Leaf) -> LogEvidence {
        let index = self.edge.size();
        let appended = self.edge.append(&[leaf_entry(leaf.kind, &leaf.message.0, &leaf.nonce.0)]);
        self.edge = appended.edge;
        for (path, bytes) in appended.tiles {
            if path.id.kind != TileKind::Entries {
                self.tiles.insert(path.id, &bytes).unwrap();
            }
        }
        let checkpoint = Checkpoint { origin: self.policy.origin().clone(), size: index + 1, root: appended.root };
        let text = checkpoint.to_text();
        let lines = [&self.log, &self.witness].map(|signer| signer.sign(&*self.backend, &text, NOW));
        let path = self.tiles.prove_inclusion(index, index + 1).unwrap();
        LogEvidence { index, nonce: leaf.nonce.0, path, checkpoint: assemble(&text, &lines) }
    }

    /// The destination's receipt, sealed to the patient; `signer` signs it.
    pub(crate) fn receipt(
        &self,
        proof: ProofId,
        outcome: OutcomeClass,
        signer: &HospitalId,
    ) -> (ManifestId, ReceiptBody) {
        let manifest = ManifestId(Digest([5; 32]));
        let mut loss = LossReport::new();
        loss.offer(&"Patient/p1".parse().unwrap());
        loss.file(&"Patient/p1".parse().unwrap());
        loss.withhold(&"Condition/c1".parse().unwrap(), "hidden");
        let detail = ReceiptDetail {
            inventory: vec![TypeCount { resource_type: "Patient".to_owned(), count: 1, size_bytes: 321 }],
            offered: 1,
            filed: 1,
            quarantined: 0,
            digest: Digest([8; 32]),
            code: (outcome == OutcomeClass::Rejected).then_some(Code::DigestMismatch),
            loss: to_cbor(&loss),
        };
        let opening = Opening::random(&*self.backend);
        let detail = to_cbor(&detail);
        let commitment = Commitment::commit(RECEIPT_COMMITMENT, &opening, &detail);
        let plain = to_cbor(&ReceiptOpening { opening, detail });
        let to = &self.cases[&proof].terms.reply_key;
        let seal = |purpose| SealedBytes::seal(&*self.backend, to, purpose, manifest.as_bytes(), &plain).unwrap();
        let identity = &self.hospitals[signer].identity;
        let receipt = ImportReceipt { proof, manifest, outcome, commitment, time: NOW };
        let body = ReceiptBody {
            receipt: SignedBytes::from(&Signed::sign(&*self.backend, &identity.signing, receipt)),
            chain: identity.chain.clone(),
            for_source: seal(SealPurpose::ReceiptSource),
            for_patient: seal(SealPurpose::ReceiptPatient),
        };
        (manifest, body)
    }

    /// The key was released: the state in which the authority waits for the receipt.
    pub(crate) fn release(&mut self, proof: ProofId) {
        let backend = self.backend.clone();
        let case = self.cases.get_mut(&proof).unwrap();
        let sealed_key =
            SealedBytes::seal(&*backend, &case.terms.reply_key, SealPurpose::RecordKey, &[], b"opaque").unwrap();
        let session = waybill_protocol::ids::SessionId(Digest([6; 32]));
        let lodgement = KeyLodgement { proof, manifest: ManifestId(Digest([5; 32])), session, sealed_key };
        let signed = Signed::sign(&*backend, &self.hospitals[&a()].identity.signing, lodgement);
        case.lodgement = Some(SignedBytes::from(&signed));
        case.state = AuthorityState::KeyReleased;
    }

    /// The destination filed (or rejected) the record: what the authority tells the patient.
    pub(crate) fn end(&mut self, proof: ProofId, outcome: OutcomeClass) -> Vec<Letter> {
        let (_, body) = self.receipt(proof, outcome, &b());
        let transition = self.authority(NOW).handle_receipt(self.cases[&proof].clone(), &body).unwrap();
        self.settle(NOW, transition)
    }

    /// A refusal by a hospital, in the clear.
    pub(crate) fn refusal(&self, by: &HospitalId, subject: Digest, code: Code) -> Vec<u8> {
        let identity = &self.hospitals[by].identity;
        let refusal = Refusal { subject, session: None, attempt: 0, code, retry: code.retryable(), time: NOW };
        let refusal = Signed::sign(&*self.backend, &identity.signing, refusal);
        let body = RefusalBody { refusal: SignedBytes::from(&refusal), chain: identity.chain.clone(), detail: None };
        Parcel::pack(Kind::Refusal, &body)
    }

    /// A refusal by the authority.
    pub(crate) fn authority_refusal(&self, subject: Digest, code: Code) -> Vec<u8> {
        let to = Recipient::Mailbox(String::new());
        let Effect::Post(post) = self.authority(NOW).refuse(to, subject, None, 0, code) else { panic!("not a post") };
        post.parcel
    }
}

fn letter(post: Post) -> Option<Letter> {
    match post.to {
        Recipient::Mailbox(address) => Some((address, post.parcel)),
        _ => None,
    }
}

fn letters(effects: Vec<Effect>) -> Vec<Letter> {
    let posts = effects.into_iter().filter_map(|effect| match effect {
        Effect::Post(post) => letter(post),
        _ => None,
    });
    posts.collect()
}

fn preview() -> Preview {
    Preview {
        at: NOW,
        held: vec![TypeCount { resource_type: "Patient".to_owned(), count: 1, size_bytes: 9 }],
        offered: Vec::new(),
        kept: Vec::new(),
        hidden: Vec::new(),
        warnings: Vec::new(),
        pending: Vec::new(),
        stream_bytes: 16,
        largest_bytes: 1 << 30,
    }
}

/// The question that the whole record would travel.
pub fn preview_all() -> Purpose {
    Purpose::Preview { scope: Scope::full(), hides: Hides::default() }
}
