//! A real engine and sequencer on a store in memory, with a clock that tests turn, witnesses that can be away, and an outbox that
//! they read. What comes to it was made by the protocol's own roles ([`crate::case_world`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use waybill_crypto::certificate::Serial;
use waybill_crypto::native::Native;
use waybill_protocol::authority::AuthorityKeys;
use waybill_protocol::ids::Nonce;
use waybill_protocol::log::witness::AddCheckpoint;
use waybill_protocol::log::{CheckpointPolicy, NoteSigner, open_signed};
use waybill_protocol::messages::{DelegationBody, RefusalBody, Standing};
use waybill_protocol::migration::Recipient;
use waybill_protocol::registrar::VOUCHER_LIFETIME_SECONDS;
use waybill_protocol::rejection::Code;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{Kind, Parcel};
use waybill_store::{Batch, MemoryObjects, MemoryStore, Op, Store};

use super::ceremony::{self, Folder};
use super::desk::Desk;
use super::engine::Engine;
use super::keys::{Current, OnlineFiles, OnlineKeys};
use super::registry::{Registry, RegistryError};
use super::sequencer::Sequencer;
use crate::case_world::{A, AUTHORITY, B, DAY, NOW, REPLY, World, code, id, note_signers, resigned};
use crate::clock::{Clock as _, ManualClock};
use crate::net::client::ClientError;
use crate::party::{AddressBook as _, Party, ServiceError, read_trust};
use crate::witness::{Cosigner, WitnessAnswer, WitnessClientError};

/// A witness in this process that signs what it is given, unless it is away.
struct Witness {
    signer: NoteSigner,
    away: Arc<AtomicBool>,
}

#[async_trait]
impl Cosigner for Witness {
    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<WitnessAnswer, WitnessClientError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(ClientError::Url.into());
        }
        let (log, _) = note_signers();
        let checkpoint = open_signed(&Native, log.public(), &request.note).unwrap().0;
        let line = self.signer.sign(&Native, &checkpoint.to_text(), NOW);
        Ok(WitnessAnswer::Cosigned([request.note.clone(), line.into_bytes()].concat()))
    }
}

/// An authority with its store in reach.
struct Office {
    engine: Engine,
    sequencer: Sequencer,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    witnesses_away: Arc<AtomicBool>,
}

fn party(trust: Trust) -> (Party, Arc<MemoryStore>, Arc<ManualClock>) {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::new(NOW.0 * 1000));
    let party = Party {
        store: store.clone(),
        objects: Arc::new(MemoryObjects::default()),
        clock: clock.clone(),
        backend: Arc::new(Native),
        trust: Arc::new(RwLock::new(trust)),
    };
    (party, store, clock)
}

impl Office {
    /// The world's authority, with both hospitals enrolled.
    async fn new(world: &World) -> Self {
        let network = &world.network;
        let mut trust = Trust::new(id(AUTHORITY), network.anchor.clone(), world.log.policy(), network.crl(&[], NOW));
        trust.accept_statement(&Ctx { now: NOW, backend: &Native }, &world.statement).unwrap();
        let (party, store, clock) = party(trust);
        let registry = Registry::new(party.clone(), vec!["https://relay.example".to_owned()]);
        for hospital in [A, B] {
            let mailbox = format!("https://relay.example/mailbox/{hospital}");
            registry.enrol(&id(hospital), mailbox, false).await.unwrap();
        }
        let keys = AuthorityKeys {
            proof_signing: world.authority.proof_signing.clone(),
            lodgement: world.authority.lodgement.clone(),
            chain: world.authority.chain.clone(),
        };
        let keys = OnlineKeys::new(Current { keys, statement: world.statement.clone() });
        let engine = Engine { party, keys, registry };
        let (signer, witnesses) = note_signers();
        let witnesses_away = Arc::new(AtomicBool::new(false));
        let cosigner = |signer| Arc::new(Witness { signer, away: witnesses_away.clone() }) as Arc<dyn Cosigner>;
        let witnesses = witnesses.into_iter().map(cosigner).collect();
        let sequencer = Sequencer { engine: engine.clone(), signer, witnesses, gather: Duration::ZERO };
        Self { engine, sequencer, store, clock, witnesses_away }
    }

    async fn delegated(&self, body: &DelegationBody) -> Result<(), ServiceError> {
        self.engine.handle(&Parcel::pack(Kind::Delegation, body)).await
    }

    /// What waits in the outbox, by receiver and kind; it is taken out.
    async fn sent(&self) -> Vec<(String, Parcel)> {
        let items = self.store.outbox_due(self.clock.now_ms(), 1000).await.unwrap();
        let ops = items.iter().map(|item| Op::Withdraw { id: item.id }).collect();
        self.store.commit(Batch { name: "test", ops }).await.unwrap();
        items.into_iter().map(|item| (item.item.to, Parcel::parse(&item.item.body).unwrap())).collect()
    }

    async fn kinds(&self) -> Vec<(String, Kind)> {
        self.sent().await.into_iter().map(|(to, parcel)| (to, parcel.kind)).collect()
    }

    async fn leaves(&self) -> usize {
        self.store.leaves(0, 1000).await.unwrap().len()
    }
}

fn refused(result: Result<(), ServiceError>) -> Code {
    code(result.map_err(|error| match error {
        ServiceError::Rejected(rejection) => rejection,
        other => panic!("this must be refused: {other:?}"),
    }))
}

#[tokio::test]
async fn a_delegation_key_serves_one_delegation_and_asking_again_repeats_its_answer() {
    let mut world = World::new();
    let office = Office::new(&world).await;
    let (draft, body) = world.delegate(1);
    office.delegated(&body).await.unwrap();
    assert!(office.kinds().await.is_empty(), "nothing goes out before its leaf is in a cosigned checkpoint");
    assert!(office.sequencer.round().await.unwrap());
    assert_eq!(office.kinds().await, [(REPLY.to_owned(), Kind::ProofAnswer)]);
    // The wallet did not hear it and asks again: the same answer, no second proof.
    office.delegated(&body).await.unwrap();
    assert_eq!(office.kinds().await, [(REPLY.to_owned(), Kind::ProofAnswer)]);
    assert_eq!(office.leaves().await, 1);
    // The key signs something else: the hospital vouched for the key, and would still.
    let key = world.root.delegation_key(draft.number);
    let other = DelegationBody {
        delegation: resigned(&world, &key, &body.delegation, |said| said.nonce = Nonce([9; 16])),
        ..body.clone()
    };
    let subject = other.delegation.parse().unwrap().message_id().0;
    assert_eq!(refused(office.delegated(&other).await), Code::DelegationRepeated);
    let sent = office.sent().await;
    assert_eq!(sent.len(), 1);
    let refusal: RefusalBody = sent[0].1.open(Kind::Refusal, "refusal").unwrap();
    let refusal = refusal.refusal.parse().unwrap().peek().clone();
    assert_eq!((refusal.subject, refusal.code, refusal.retry), (subject, Code::DelegationRepeated, false));
    assert_eq!(office.leaves().await, 1);
    assert!(!office.sequencer.round().await.unwrap(), "there is nothing to do");
}

#[tokio::test]
async fn answers_wait_for_the_witnesses_and_then_go_out_once() {
    let mut world = World::new();
    let office = Office::new(&world).await;
    office.witnesses_away.store(true, Ordering::SeqCst);
    office.delegated(&world.delegate(1).1).await.unwrap();
    for _ in 0..2 {
        let error = office.sequencer.round().await.unwrap_err();
        assert!(matches!(error, ServiceError::Unavailable { .. }), "{error}");
        assert!(office.kinds().await.is_empty());
    }
    // The leaf is in the tree already; another one comes before the witnesses do.
    office.delegated(&world.delegate(2).1).await.unwrap();
    office.witnesses_away.store(false, Ordering::SeqCst);
    assert!(office.sequencer.round().await.unwrap());
    assert_eq!(office.kinds().await.len(), 2);
    assert!(!office.sequencer.round().await.unwrap());
    assert!(office.kinds().await.is_empty());
    let (row, _) = office.sequencer.load().await.unwrap();
    assert_eq!((row.edge.size(), row.answered, row.cosigned.unwrap().size), (2, 2, 2));
}

#[tokio::test]
async fn one_leaf_that_cannot_be_answered_keeps_no_other_waiting() {
    let mut world = World::new();
    let office = Office::new(&world).await;
    office.delegated(&world.delegate(1).1).await.unwrap();
    let damaged = Op::AppendLeaf { entry: [9; 32], note: vec![0xff] };
    office.store.commit(Batch { name: "test", ops: vec![damaged] }).await.unwrap();
    office.delegated(&world.delegate(2).1).await.unwrap();
    assert!(office.sequencer.round().await.unwrap());
    assert_eq!(office.kinds().await.len(), 2, "both that can be answered are");
    assert_eq!(office.sequencer.load().await.unwrap().0.answered, 3);
    assert!(!office.sequencer.round().await.unwrap(), "the damaged one is not tried for ever");
}

#[tokio::test]
async fn a_weekend_without_a_fresh_list_ends_in_a_refusal_that_a_fresh_list_ends() {
    let mut world = World::new();
    let office = Office::new(&world).await;
    let renew = |world: &World, revoked: &[Serial]| {
        office.engine.party.renew_crl(world.network.crl(revoked, world.now));
    };
    office.clock.advance_ms(7 * DAY * 1000);
    world.now = NOW.plus(7 * DAY);
    office.delegated(&world.delegate(1).1).await.unwrap();
    office.clock.advance_ms(1000);
    world.now = world.now.plus(1);
    let (_, late) = world.delegate(2);
    assert_eq!(refused(office.delegated(&late).await), Code::CrlStale);
    renew(&world, &[]);
    office.delegated(&late).await.unwrap();
    // The hospital that vouches is revoked; then its patient's delegation counts for nothing, whatever was fine a second ago.
    renew(&world, &[world.a.serial]);
    assert_eq!(refused(office.delegated(&world.delegate(3).1).await), Code::CertificateRevoked);
    assert_eq!(office.leaves().await, 2);
}

#[tokio::test]
async fn a_voucher_that_expired_counts_for_nothing_and_a_fresh_one_does() {
    let mut world = World::new();
    let office = Office::new(&world).await;
    let (_, kept) = world.delegate(1);
    office.clock.advance_ms((VOUCHER_LIFETIME_SECONDS + 1) * 1000);
    assert_eq!(refused(office.delegated(&kept).await), Code::VoucherExpired);
    let sent = office.kinds().await;
    assert_eq!(sent, [(REPLY.to_owned(), Kind::Refusal)], "the wallet hears of it, and asks for another one");
    world.now = world.now.plus(VOUCHER_LIFETIME_SECONDS + 1);
    office.delegated(&world.delegate(2).1).await.unwrap();
    assert_eq!(office.leaves().await, 1);
}

#[tokio::test]
async fn a_patient_is_answered_below_a_configured_relay_only() {
    let world = World::new();
    let office = Office::new(&world).await;
    let mailbox = |url: &str| {
        let to = Recipient::Mailbox(url.to_owned());
        let registry = office.engine.registry.clone();
        async move { registry.mailbox(&to).await.unwrap() }
    };
    assert_eq!(mailbox(REPLY).await.as_deref(), Some(REPLY));
    for url in
        ["https://relay.example.evil/mailbox/x", "https://relay.exampl/mailbox/x", "http://relay.example/mailbox/x"]
    {
        assert_eq!(mailbox(url).await, None, "{url}");
    }
    assert_eq!(office.engine.registry.mailbox(&Recipient::Hospital(id("hospital-z.example"))).await.unwrap(), None);
}

/// An authority whose files a ceremony made, for what is read from disk.
struct Desks {
    place: tempfile::TempDir,
    files: OnlineFiles,
    party: Party,
    clock: Arc<ManualClock>,
    online: OnlineKeys,
}

impl Desks {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path());
        ceremony::init(&folder, AUTHORITY, &Native, NOW.0).unwrap();
        let log = ceremony::log_signer(&folder, AUTHORITY).unwrap();
        let files = OnlineFiles { folder: folder.clone(), name: id(AUTHORITY), log: log.public().clone() };
        let ctx = Ctx { now: NOW, backend: &Native };
        let current = files.read(&ctx).unwrap();
        let (_, witnesses) = note_signers();
        let witnesses = witnesses.iter().map(|w| w.public().clone()).collect();
        let policy = CheckpointPolicy::new(log.public().clone(), witnesses, 2).unwrap();
        let list = crate::files::read(&folder.crl()).unwrap();
        let (root, chain) = (folder.root_certificate(), &current.keys.chain);
        let mut trust = read_trust(&Native, NOW, id(AUTHORITY), &root, &list, chain, policy).unwrap();
        trust.accept_statement(&ctx, &current.statement).unwrap();
        let (party, _, clock) = party(trust);
        Self { place, files, party, clock, online: OnlineKeys::new(current) }
    }

    fn desk(&self) -> Desk<'static> {
        Desk::open(&self.files.folder, AUTHORITY, &Native).unwrap()
    }

    fn list_number(&self) -> u64 {
        self.party.with_trust(|trust| trust.crl().number())
    }

    fn reload(&self) -> bool {
        self.files.reload(&self.party, &self.online).is_ok()
    }
}

#[test]
fn a_renewed_list_is_taken_and_neither_a_damaged_nor_an_older_one_is() {
    let desks = Desks::new();
    let first = std::fs::read(desks.files.crl()).unwrap();
    let revoked = desks.desk().serials_of(AUTHORITY).unwrap();
    desks.desk().renew_crl(&revoked[..1], NOW.0 + 60).unwrap();
    assert_eq!(desks.list_number(), 1);
    assert!(desks.reload());
    assert_eq!(desks.list_number(), 2);
    let second = std::fs::read(desks.files.crl()).unwrap();
    let mut damaged = second.clone();
    damaged[200] ^= 1;
    std::fs::write(desks.files.crl(), damaged).unwrap();
    assert!(!desks.reload());
    assert_eq!(desks.list_number(), 2);
    std::fs::write(desks.files.crl(), first).unwrap();
    desks.reload();
    assert_eq!(desks.list_number(), 2, "what was revoked stays revoked");
}

#[test]
fn a_renewed_certificate_is_taken_and_another_key_is_not() {
    let desks = Desks::new();
    let stem = desks.files.folder.join("online/proof-signing");
    let before = desks.online.current().keys.chain.clone();
    desks.desk().renew_file(&stem, NOW.0 + 60).unwrap();
    desks.clock.advance_ms(60_000);
    assert!(desks.reload());
    let after = desks.online.current();
    assert_ne!(after.keys.chain, before);
    assert_eq!(after.statement.chain, after.keys.chain, "what everybody is told is the new one, too");
    // A stranger's key and certificate under the same names.
    let stranger = Desks::new();
    for file in ["online/proof-signing.key", "online/proof-signing.pem"] {
        std::fs::copy(stranger.place.path().join(file), desks.place.path().join(file)).unwrap();
    }
    assert!(!desks.reload());
    assert_eq!(desks.online.current().keys.chain, after.keys.chain);
}

#[tokio::test]
async fn an_enrolled_name_is_replaced_only_when_asked_and_no_enrolment_changes_a_standing() {
    let world = World::new();
    let registry = Office::new(&world).await.engine.registry;
    let (b, other) = (id(B), || "https://relay.example/mailbox/other".to_owned());
    let before = registry.find(&b).await.unwrap().unwrap();
    let taken = registry.enrol(&b, other(), false).await;
    assert!(matches!(taken, Err(RegistryError::Enrolled(name)) if name == b));
    assert_eq!(registry.find(&b).await.unwrap().unwrap(), before);

    registry.change_standing(&b, Standing::Suspended).await.unwrap();
    let replaced = registry.enrol(&b, other(), true).await.unwrap();
    assert_eq!((replaced.now.standing, replaced.now.mailbox), (Standing::Suspended, other()));
    assert_eq!(replaced.before.unwrap().mailbox, before.mailbox);
    assert_eq!(registry.change_standing(&b, Standing::Active).await.unwrap().now.standing, Standing::Active);

    registry.change_standing(&b, Standing::Revoked).await.unwrap();
    for replace in [false, true] {
        let burnt = registry.enrol(&b, before.mailbox.clone(), replace).await;
        assert!(matches!(burnt, Err(RegistryError::Revoked(name)) if name == b));
    }
    for standing in [Standing::Active, Standing::Suspended] {
        assert!(matches!(registry.change_standing(&b, standing).await, Err(RegistryError::Revoked(_))));
    }
    // Its certificates may have to be listed yet: saying it again is no change.
    registry.change_standing(&b, Standing::Revoked).await.unwrap();
    let kept = registry.find(&b).await.unwrap().unwrap();
    assert_eq!((kept.standing, kept.mailbox), (Standing::Revoked, other()));
    let nobody = registry.change_standing(&id("nobody.example"), Standing::Suspended).await;
    assert!(matches!(nobody, Err(RegistryError::Unknown(_))));
}
