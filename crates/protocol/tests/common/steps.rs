//! A migration step by step, each by the role function that does it; tests stop where they want and look.

use waybill_crypto::keys::{Digest, HpkeSecretKey};
use waybill_crypto::lthash::RecordDigest;
use waybill_crypto::stream::{RecordKey, StreamKeys, seal_chunk};
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::destination::{DestinationCase, Filing};
use waybill_protocol::ids::Timestamp;
use waybill_protocol::messages::{
    DelegationBody, DeliveryBody, GrantBody, LodgementBody, LoginOutcome, ManifestBody, OutcomeClass, ReceiptBody,
    ReceiptDetail, RedeemBody, ReleaseBody, StatementBody, TransferBody, TypeCount,
};
use waybill_protocol::migration::{AuthorityState, DestinationState, SourceState};
use waybill_protocol::patient::{Draft, ProofCompared, Wish};
use waybill_protocol::rejection::Rejection;
use waybill_protocol::sealed::SealedBytes;
use waybill_protocol::source::{IdentityCompared, Received, SourceCase, Staged};
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::{REPLY, World, all_active, leaves, posted, sealed};

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Proof,
    Requested,
    Redeeming,
    Granted,
    Lodged,
    Delivered,
    Released,
    Filed,
    Closed,
}

impl Step {
    pub const ALL: [Self; 9] = [
        Self::Proof,
        Self::Requested,
        Self::Redeeming,
        Self::Granted,
        Self::Lodged,
        Self::Delivered,
        Self::Released,
        Self::Filed,
        Self::Closed,
    ];
}

/// One case as every party has it, with the messages that were sent. What lies beyond the step reached is `None`.
#[derive(Clone)]
pub struct Migration {
    pub draft: Draft,
    pub delegation: DelegationBody,
    pub proof: ProofCompared,
    pub authority: AuthorityCase,
    pub presentation: Option<SealedBytes>,
    pub destination: Option<DestinationCase>,
    pub session_secret: Option<HpkeSecretKey>,
    pub request: Option<TransferBody>,
    pub source: Option<SourceCase>,
    pub redeem: Option<RedeemBody>,
    pub grant: Option<GrantBody>,
    pub record_key: Option<RecordKey>,
    pub chunk: Option<Vec<u8>>,
    pub reply_secret: Option<HpkeSecretKey>,
    pub manifest: Option<ManifestBody>,
    pub lodgement: Option<LodgementBody>,
    pub delivery: Option<DeliveryBody>,
    pub release: Option<ReleaseBody>,
    pub receipt: Option<ReceiptBody>,
    pub statement: Option<StatementBody>,
}

pub const PLAIN: &[u8] = b"a record, as the stream carries it";

impl Migration {
    /// The case at the source; a test that asks has come that far.
    pub fn source(&self) -> SourceCase {
        self.source.clone().unwrap()
    }

    pub fn destination(&self) -> DestinationCase {
        self.destination.clone().unwrap()
    }

    pub fn secret(&self) -> HpkeSecretKey {
        self.session_secret.clone().unwrap()
    }

    /// What the honest destination reports.
    pub fn detail(&self) -> ReceiptDetail {
        let inventory = vec![TypeCount { resource_type: "Patient".into(), count: 1, size_bytes: 34 }];
        let digest = RecordDigest::default().short();
        ReceiptDetail { inventory, offered: 1, filed: 1, quarantined: 0, digest, code: None, loss: vec![0x80] }
    }
}

impl World {
    pub fn wish(&self) -> Wish {
        Wish {
            scope: Scope::full(),
            hides: Hides::default(),
            not_before: Timestamp(self.now.0 - 60),
            expires: self.now.plus(7 * super::DAY),
        }
    }

    /// Login for a voucher, then the signed delegation.
    pub fn delegate(&mut self, number: u64) -> (Draft, DelegationBody) {
        let patient = self.patient();
        let (a, b) = (&self.a, &self.b);
        let mut draft = patient.draft(number, &a.contact, &b.contact, self.wish());
        let (exchange, login) = patient.login(&a.contact, patient.voucher_purpose(&draft), REPLY).unwrap();
        let registrar = self.registrar();
        let opened = registrar.open_login(&sealed(&login, Kind::Login)).unwrap();
        let verified = registrar.verify_login(opened, Some(&a.registered)).unwrap();
        let outcome = registrar.issue_voucher(&verified).unwrap();
        let effect = registrar.answer_login(&verified, outcome).unwrap();
        let answer = posted(&[effect], Kind::LoginAnswer);
        let LoginOutcome::Voucher { grant } = patient.accept_login(&exchange, &a.contact, &answer).unwrap() else {
            panic!("a voucher was asked for");
        };
        let parcel = patient.delegate(&mut draft, &a.contact, grant, REPLY).unwrap();
        let body = Parcel::parse(&parcel).unwrap().open(Kind::Delegation, "delegation").unwrap();
        (draft, body)
    }

    /// The proof for a delegation, in the log, compared by the wallet.
    pub fn prove(&mut self, number: u64) -> Migration {
        let (draft, delegation) = self.delegate(number);
        let intent = self.authority().check_delegation(&delegation, &all_active).unwrap();
        let (authority, effects) = self.authority().issue_proof(&intent).unwrap();
        let posts = self.finish(leaves(&effects).remove(0));
        let answer = Parcel::parse(&posts[0].parcel).unwrap();
        let proof = self.patient().accept_proof(&self.patient_trust, &draft, &answer).unwrap();
        Migration {
            draft,
            delegation,
            proof,
            authority,
            presentation: None,
            destination: None,
            session_secret: None,
            request: None,
            source: None,
            redeem: None,
            grant: None,
            record_key: None,
            chunk: None,
            reply_secret: None,
            manifest: None,
            lodgement: None,
            delivery: None,
            release: None,
            receipt: None,
            statement: None,
        }
    }

    pub fn migrate(&mut self, number: u64, until: Step) -> Migration {
        let mut m = self.prove(number);
        self.advance(&mut m, Step::Proof, until);
        m
    }

    /// Goes on from a step that was reached.
    pub fn advance(&mut self, m: &mut Migration, from: Step, until: Step) {
        for step in Step::ALL.into_iter().filter(|s| *s > from && *s <= until) {
            match step {
                Step::Proof => {}
                Step::Requested => self.step_requested(m),
                Step::Redeeming => self.step_redeeming(m),
                Step::Granted => self.step_granted(m),
                Step::Lodged => self.step_lodged(m),
                Step::Delivered => self.step_delivered(m),
                Step::Released => self.step_released(m),
                Step::Filed => self.step_filed(m),
                Step::Closed => self.step_closed(m),
            }
        }
    }

    fn step_requested(&mut self, m: &mut Migration) {
        let parcel = self.patient().present(&m.draft, &m.proof, &self.a.contact, &self.b.contact, REPLY).unwrap();
        let presentation = sealed(&parcel, Kind::Presentation);
        let destination = self.destination();
        let opened = destination.open_presentation(&presentation).unwrap();
        let presenter = destination.verify_presenter(opened, Some(&self.b.registered)).unwrap();
        let verified = destination.verify_presentation(presenter).unwrap();
        let (secret, (case, effects)) = destination.open_case(verified, &self.b.patient, 1).unwrap();
        let parcel = posted(&effects, Kind::TransferRequest);
        assert_eq!(case.state, DestinationState::Requested);
        m.request = Some(parcel.open(Kind::TransferRequest, "request").unwrap());
        (m.presentation, m.destination, m.session_secret) = (Some(presentation), Some(case), Some(secret));
    }

    /// All of the source's checks before it asks the authority, in order.
    pub fn source_checks(&self, body: &TransferBody) -> Result<IdentityCompared, Rejection> {
        let source = self.source();
        let received = Received::parse(&Parcel::parse(&Parcel::pack(Kind::TransferRequest, body))?)?;
        let sender = source.verify_sender(received)?;
        let proof = source.verify_proof(sender)?;
        let parties = source.verify_parties(proof)?;
        let window = source.verify_window(parties)?;
        let opened = source.open_consent(window)?;
        let known = self.a.registered_at(&self.root, opened.pid());
        let consent = source.verify_consent(opened, known)?;
        source.compare_identity(consent, &self.a.patient)
    }

    fn step_redeeming(&mut self, m: &mut Migration) {
        let checked = self.source_checks(m.request.as_ref().unwrap()).unwrap();
        let (case, effects) = self.source().open_case(checked, Some(&self.log.checkpoint()), super::REVIEW_SECONDS);
        assert_eq!(case.state, SourceState::Redeeming);
        let parcel = posted(&effects, Kind::Redeem);
        (m.source, m.redeem) = (Some(case), Some(parcel.open(Kind::Redeem, "redeem").unwrap()));
    }

    fn step_granted(&mut self, m: &mut Migration) {
        let body = m.redeem.as_ref().unwrap();
        let (from, redeem) = self.authority().verify_redeem(body).unwrap();
        let granted = self.authority().handle_redeem(m.authority.clone(), &from, &body.chain, &redeem, &all_active);
        let (case, effects) = granted.unwrap();
        assert!(case.has_granted(redeem.message()));
        m.authority = case;
        let posts = self.finish(leaves(&effects).remove(0));
        let grant: GrantBody = Parcel::parse(&posts[0].parcel).unwrap().open(Kind::Grant, "grant").unwrap();
        let (right, seen, (case, _)) =
            self.source().handle_grant(&self.stands(&m.source()), m.source(), grant.clone()).unwrap();
        assert_eq!((right.proof(), case.state), (m.proof.id(), SourceState::Granted));
        assert_eq!(seen.checkpoint(), &self.log.checkpoint());
        (m.source, m.grant) = (Some(case), Some(grant));
    }

    /// A staged record of one chunk, sealed under the key that the manifest commits to.
    pub fn stage(&self, m: &mut Migration) -> Staged {
        let backend = &self.network.backend;
        let session = m.source().session;
        let key = RecordKey::random(backend);
        let keys = StreamKeys::derive(&session.0, &key);
        let blob = seal_chunk(backend, &keys, &session.0, 0, true, &mut PLAIN.to_vec()).unwrap();
        let reply = super::fresh_hpke(self);
        let root = blob.leaf();
        m.chunk = Some(blob.into_bytes());
        (m.record_key, m.reply_secret) = (Some(key.clone()), Some(reply.clone()));
        Staged {
            snapshot_at: self.now,
            inventory: vec![TypeCount { resource_type: "Patient".into(), count: 1, size_bytes: 34 }],
            stream_bytes: PLAIN.len() as u64,
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
        }
    }

    fn step_lodged(&mut self, m: &mut Migration) {
        let staged = self.stage(m);
        let (case, effects) = self.source().handle_staged(&self.stands(&m.source()), m.source(), &staged).unwrap();
        m.source = Some(case);
        m.manifest = Some(posted(&effects, Kind::Manifest).open(Kind::Manifest, "manifest").unwrap());
        m.lodgement = Some(posted(&effects, Kind::KeyLodgement).open(Kind::KeyLodgement, "lodgement").unwrap());
        self.lodge(m);
    }

    /// Brings the lodgement to the authority.
    pub fn lodge(&mut self, m: &mut Migration) {
        let lodgement = self.authority().open_lodgement(m.lodgement.as_ref().unwrap()).unwrap();
        let (case, effects) = self.authority().handle_lodgement(m.authority.clone(), &lodgement, &all_active).unwrap();
        assert_eq!(case.state, AuthorityState::Lodged);
        m.authority = case;
        assert!(self.finish(leaves(&effects).remove(0)).is_empty());
    }

    fn step_delivered(&mut self, m: &mut Migration) {
        let body = m.manifest.clone().unwrap();
        let (case, _) = self.destination().handle_manifest(m.destination(), &body, &m.secret(), u64::MAX).unwrap();
        assert_eq!(case.state, DestinationState::Receiving);
        let root = waybill_crypto::stream::leaf(m.chunk.as_ref().unwrap());
        let (case, effects) = self.destination().handle_delivered(case, &root).unwrap();
        assert_eq!(case.state, DestinationState::Delivered);
        m.destination = Some(case);
        m.delivery = Some(posted(&effects, Kind::DeliveryReceipt).open(Kind::DeliveryReceipt, "delivery").unwrap());
    }

    /// The authority's answer to a delivery receipt that completes the exchange.
    pub fn release(&mut self, m: &mut Migration) -> ReleaseBody {
        let body = m.delivery.clone().unwrap();
        let (case, effects) = self.authority().handle_delivery(m.authority.clone(), &body, &all_active).unwrap();
        assert_eq!(case.state, AuthorityState::KeyReleased);
        m.authority = case;
        let posts: Vec<_> = leaves(&effects).into_iter().flat_map(|leaf| self.finish(leaf)).collect();
        assert_eq!(posts.len(), 1);
        Parcel::parse(&posts[0].parcel).unwrap().open(Kind::KeyRelease, "release").unwrap()
    }

    fn step_released(&mut self, m: &mut Migration) {
        let release = self.release(m);
        let answer = self.destination().handle_release(m.destination(), release.clone(), &m.secret()).unwrap();
        let (keys, (case, _)) = answer;
        let mut chunk = m.chunk.clone().unwrap();
        let keys = keys.unwrap();
        let backend = &self.network.backend;
        let plain = waybill_crypto::stream::open_chunk(backend, &keys, &case.session.0, 0, true, &mut chunk).unwrap();
        assert!(plain == PLAIN);
        assert_eq!(case.state, DestinationState::KeyHeld);
        assert!(self.destination().stream_keys(&case, &m.secret()).is_some(), "also after a restart");
        (m.release, m.destination) = (Some(release), Some(case));
    }

    fn step_filed(&mut self, m: &mut Migration) {
        let filing = Filing { detail: m.detail(), outcome: OutcomeClass::Filed };
        let (case, effects) = self.destination().handle_filed(m.destination(), &filing).unwrap();
        assert_eq!(case.state, DestinationState::Filed);
        m.receipt = Some(posted(&effects, Kind::ImportReceipt).open(Kind::ImportReceipt, "receipt").unwrap());
        m.destination = Some(case);
    }

    /// The authority's signed end, as everybody gets it.
    pub fn end_with_receipt(&mut self, m: &mut Migration) -> StatementBody {
        let body = m.receipt.clone().unwrap();
        let (case, effects) = self.authority().handle_receipt(m.authority.clone(), &body).unwrap();
        m.authority = case;
        let posts = self.finish(leaves(&effects).remove(0));
        assert_eq!(posts.len(), 3, "source, destination and patient hear of it");
        Parcel::parse(&posts[0].parcel).unwrap().open(Kind::CaseStatement, "statement").unwrap()
    }

    fn step_closed(&mut self, m: &mut Migration) {
        let statement = self.end_with_receipt(m);
        let reply = m.reply_secret.clone().unwrap();
        let (source, _) = self.source().handle_statement(m.source(), statement.clone(), Some(&reply)).unwrap();
        let (destination, _) = self.destination().handle_statement(m.destination(), statement.clone()).unwrap();
        assert_eq!((source.state, destination.state), (SourceState::Closed, DestinationState::Closed));
        (m.source, m.destination, m.statement) = (Some(source), Some(destination), Some(statement));
    }
}
