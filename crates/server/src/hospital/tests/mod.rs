//! A real engine on a store in memory, with a clock that tests turn and an outbox that they read. What comes to it was made by the
//! protocol's own roles ([`crate::case_world`]).

mod desk;
mod queue;
mod routes;
mod strays;
mod withdrawal;

use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::case_world::{self as common, AUTHORITY, NOW, Party as Known, World, id};
use async_trait::async_trait;
use waybill_crypto::lthash::SaltSecret;
use waybill_crypto::native::Native;
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::migration::Recipient;
use waybill_protocol::policy::Role;
use waybill_protocol::registrar::{HospitalIdentity, LocalPatient};
use waybill_protocol::rejection::Code;
use waybill_protocol::source::SourceCase;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_store::{Batch, Expect, Key, MemoryObjects, MemoryStore, Op, Space, Store};

use super::audit::{self, AuditRow, Which};
use super::engine::{Engine, Resends, Turns, destination_row, source_row};
use super::identities::Identities;
use super::onetime::OneTimeKeys;
use super::staff::Member;
use super::work::{Stages, Worker, open_op};
use crate::clock::Clock;
use crate::mailbox::{Inbox, InboxError, Letter, MailboxId, MailboxUrl};
use crate::party::{AddressBook, Party, ServiceError};
use crate::shelf::Shelf;

/// A clock that a test turns.
struct Turned(AtomicU64);

impl Clock for Turned {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A relay that is not among those below which patients are answered.
const ELSEWHERE: &str = "https://elsewhere.example";

/// Everybody else has a mailbox.
struct Book;

#[async_trait]
impl AddressBook for Book {
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError> {
        Ok(Some(match to {
            Recipient::Authority => "authority".to_owned(),
            Recipient::Hospital(id) => id.to_string(),
            Recipient::Mailbox(url) if url.starts_with(ELSEWHERE) => return Ok(None),
            Recipient::Mailbox(_) => "patient".to_owned(),
        }))
    }
}

/// A hospital with its stores in reach.
struct House {
    engine: Engine,
    store: Arc<MemoryStore>,
    clock: Arc<Turned>,
    local: LocalPatient,
    _folder: tempfile::TempDir,
}

fn identity(of: &HospitalIdentity) -> HospitalIdentity {
    HospitalIdentity {
        id: of.id.clone(),
        signing: of.signing.clone(),
        hpke: of.hpke.clone(),
        chain: of.chain.clone(),
        change: None,
    }
}

fn officer(user: &str) -> Member {
    Member { user: user.to_owned(), role: Role::RecordsOfficer }
}

impl House {
    /// A hospital of the world, its patient held and registered.
    async fn new(world: &World, known: &Known) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = &world.network;
        let crl = network.crl(&[], NOW);
        let mut trust = Trust::new(id(AUTHORITY), network.anchor.clone(), world.log.policy(), crl);
        trust.accept_statement(&Ctx { now: NOW, backend: &network.backend }, &world.statement).unwrap();
        let (store, objects) = (Arc::new(MemoryStore::new()), Arc::new(MemoryObjects::default()));
        let clock = Arc::new(Turned(AtomicU64::new(world.now.0 * 1000)));
        let party = Party {
            store: store.clone(),
            objects: objects.clone(),
            clock: clock.clone(),
            backend: Arc::new(Native),
            trust: Arc::new(RwLock::new(trust)),
        };
        let engine = Engine {
            party,
            identities: Identities::new(identity(&known.identity), Vec::new()),
            shelf: Arc::new(Shelf::new(store.clone(), objects, SaltSecret::from_bytes([7; 32]))),
            one_time: OneTimeKeys::open(&folder.path().join("one-time")).unwrap(),
            book: Arc::new(Book),
            largest_stream_bytes: 1 << 30,
            review_seconds: common::REVIEW_SECONDS,
            resends: Resends::default(),
            turns: Turns::default(),
        };
        let local = known.registered.local.clone();
        let house = Self { engine, store, clock, local, _folder: folder };
        house.hold(known).await;
        let pid = world.root.pid(known.identity.id.as_str(), 0);
        let batch = Batch::new("test")
            .put(
                Space::Registration,
                Key::build().fixed(pid.as_bytes()).done(),
                to_cbor(&known.registered),
                Expect::Any,
            )
            .put(
                Space::Patient,
                Key::build().text("keys").text(&house.local.0).fixed(pid.as_bytes()).done(),
                Vec::new(),
                Expect::Any,
            );
        house.store.commit(batch).await.unwrap();
        house
    }

    async fn hold(&self, known: &Known) {
        let person = &known.patient;
        let (name, identifier) = (&person.names[0], &person.identifiers[0]);
        let patient = serde_json::json!({
            "resourceType": "Patient", "id": self.local.0,
            "identifier": [{"system": identifier.system, "value": identifier.value}],
            "name": [{"family": name.family, "given": name.given}],
            "gender": person.sex, "birthDate": person.birth_date,
        });
        self.engine.shelf.register_local(&serde_json::to_vec(&patient).unwrap()).await.unwrap();
    }

    fn turn(&self, to: Timestamp) {
        self.clock.0.store(to.0 * 1000, Ordering::Relaxed);
    }

    /// What waits in the outbox, by receiver and kind; it is taken out.
    async fn sent(&self) -> Vec<(String, Kind, Parcel)> {
        let items = self.store.outbox_due(self.clock.now_ms(), 1000).await.unwrap();
        let ops = items.iter().map(|item| Op::Withdraw { id: item.id }).collect();
        self.store.commit(Batch { name: "test", ops }).await.unwrap();
        let parcels = items.into_iter().filter(|item| item.item.blob.is_none());
        parcels
            .map(|item| {
                let parcel = Parcel::parse(&item.item.body).unwrap();
                (item.item.to, parcel.kind, parcel)
            })
            .collect()
    }

    async fn kinds(&self) -> Vec<(String, Kind)> {
        let mut kinds: Vec<_> = self.sent().await.into_iter().map(|(to, kind, _)| (to, kind)).collect();
        kinds.sort_by_key(|(to, kind)| (to.clone(), *kind as u8));
        kinds
    }

    async fn put_source(&self, case: &SourceCase) {
        let put =
            Op::Put { space: Space::Case, key: source_row(&case.proof), value: to_cbor(case), expect: Expect::Any };
        self.store.commit(Batch { name: "test", ops: vec![put, open_op(&case.proof)] }).await.unwrap();
    }

    async fn put_destination(&self, case: &DestinationCase) {
        let key = destination_row(&case.proof);
        let put = Op::Put { space: Space::Case, key, value: to_cbor(case), expect: Expect::Any };
        self.store.commit(Batch { name: "test", ops: vec![put, open_op(&case.proof)] }).await.unwrap();
    }

    async fn trail(&self) -> Vec<AuditRow> {
        let rows = audit::read(self.store.as_ref(), &Which::All, None, 1000).await.unwrap();
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn worker(&self, known: &Known) -> Worker {
        let id = MailboxId::of(known.identity.signing.public());
        let inbox = Arc::new(Nowhere(MailboxUrl::new("relay.example", id).unwrap()));
        Worker { engine: self.engine.clone(), inbox, stages: Stages::default() }
    }

    async fn actions(&self) -> Vec<(String, String)> {
        self.trail().await.into_iter().map(|row| (row.action, row.outcome)).collect()
    }
}

/// A mailbox that nobody asks.
struct Nowhere(MailboxUrl);

#[async_trait]
impl Inbox for Nowhere {
    fn url(&self) -> &MailboxUrl {
        &self.0
    }
    async fn letters(&self, _: Option<u64>, _: std::time::Duration) -> Result<Vec<Letter>, InboxError> {
        Ok(Vec::new())
    }
    async fn acknowledge(&self, _: u64) -> Result<(), InboxError> {
        Ok(())
    }
    async fn blob(&self, _: &waybill_store::Address) -> Result<bytes::Bytes, InboxError> {
        Err(InboxError::NoBlob)
    }
    async fn delete_blob(&self, _: &waybill_store::Address) -> Result<(), InboxError> {
        Ok(())
    }
    async fn blobs(&self, _: Option<&waybill_store::Address>) -> Result<Vec<crate::mailbox::BlobEntry>, InboxError> {
        Ok(Vec::new())
    }
}

fn refused(result: Result<(), ServiceError>) -> Code {
    match result {
        Err(ServiceError::Rejected(rejection)) => rejection.code,
        other => panic!("this must be refused: {other:?}"),
    }
}

fn hospital(name: &str) -> HospitalId {
    id(name)
}
