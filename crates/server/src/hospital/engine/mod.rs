//! A hospital's shell: takes parcels, loads rows, calls the role, commits row, outbox and audit row in one batch.
//!
//! [`front_desk`](self) answers registrations and logins, `source` and `destination` keep the cases, `staff` does what people decide,
//! `withdrawal` what follows when keys are withdrawn,
//! `deadlines` what time decides. Long work (staging, receiving, filing) is not done here: a handler only moves the case to the state
//! in which [`super::work`] picks it up, also after a restart.

mod deadlines;
mod destination;
mod endings;
mod front_desk;
mod keys;
mod queue;
mod source;
mod staff;
mod turns;
mod withdrawal;

pub use keys::{CodeWish, Countersigned, KeyView};
pub use queue::{Listed, Place, Queue, QueueEntry, arrived_op, is_filed};
pub use turns::Turns;
pub use withdrawal::Withdrawn;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HpkeSecretKey, Thumb};
use waybill_crypto::metered::scope;
use waybill_protocol::destination::{Destination, DestinationCase};
use waybill_protocol::ids::ProofId;
use waybill_protocol::messages::{Revocation, RevocationBody, RevocationReason};
use waybill_protocol::migration::{Effect, Post, Recipient};
use waybill_protocol::registrar::{Registered, Registrar};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{Source, SourceCase};
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::audit::{Actor, AuditRow};
use super::identities::Identities;
use super::onetime::OneTimeKeys;
use crate::party::effects::operations;
use crate::party::{AddressBook, ParcelHandler, Party, ServiceError, run_again};
use crate::shelf::Shelf;

/// A hospital's running state.
#[derive(Clone)]
pub struct Engine {
    /// Storage, time, primitives, trust.
    pub party: Party,
    /// Who we are, and were.
    pub identities: Identities,
    /// Our records.
    pub shelf: Arc<Shelf>,
    /// Keys that live for one session.
    pub one_time: OneTimeKeys,
    /// How outgoing parcels name their receivers, whose mailboxes the sender looks up.
    pub book: Arc<dyn AddressBook>,
    /// The largest record accepted. Units: bytes.
    pub largest_stream_bytes: u64,
    /// How long a person has to decide an identity doubt. Units: seconds.
    pub review_seconds: u64,
    /// When each session was last sent again.
    pub resends: Resends,
    /// What each patient asks of the front desk.
    pub turns: Turns,
}

/// Keeps a request that comes again and again from sending the whole record each time.
#[derive(Debug, Clone, Default)]
pub struct Resends(Arc<Mutex<BTreeMap<ProofId, u64>>>);

impl Resends {
    /// Least time between two. Units: milliseconds.
    pub(super) const PAUSE_MS: u64 = 60_000;
    /// Most cases remembered.
    const MOST: usize = 10_000;

    fn take(&self, id: &ProofId, now_ms: u64) -> bool {
        let mut last = self.0.lock().expect("nobody panics while holding the resends");
        if last.get(id).is_some_and(|at| now_ms < at.saturating_add(Self::PAUSE_MS)) {
            return false;
        }
        if last.len() >= Self::MOST {
            last.clear();
        }
        last.insert(*id, now_ms);
        true
    }
}

/// The row of a case in which we are the source.
#[must_use]
pub fn source_row(id: &ProofId) -> Key {
    Key::build().text("source").fixed(id.as_bytes()).done()
}

/// The row of a case in which we are the destination.
#[must_use]
pub fn destination_row(id: &ProofId) -> Key {
    Key::build().text("destination").fixed(id.as_bytes()).done()
}

impl Engine {
    /// Handles one parcel.
    ///
    /// # Errors
    /// [`ServiceError`]; a rejection is final, everything else leaves the parcel to be handled again.
    pub async fn handle(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        let parcel = Parcel::parse(bytes).map_err(Rejection::from)?;
        match parcel.kind {
            Kind::Registration => self.registration(&open(&parcel)?).await,
            Kind::Login => self.login(&open(&parcel)?).await,
            Kind::Presentation => self.presentation(&open(&parcel)?).await,
            Kind::TransferRequest => run_again(|| self.transfer_request(&parcel)).await,
            Kind::Grant => self.grant(open(&parcel)?).await,
            Kind::Manifest => self.manifest(open(&parcel)?).await,
            Kind::KeyRelease => self.release(open(&parcel)?).await,
            Kind::CaseStatement => self.statement(open(&parcel)?).await,
            Kind::Revocation => self.revocation(open(&parcel)?).await,
            Kind::Refusal => self.refusal(open(&parcel)?).await,
            _ => Err(Rejection::from(Code::UnexpectedMessage).into()),
        }
    }

    /// Runs a source role function under a cost label, as whom the case knows us.
    pub(super) fn as_source<T>(&self, label: &'static str, own: Thumb, run: impl FnOnce(&Source<'_>) -> T) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        self.party.with_trust(|trust| scope(label, || run(&Source { ctx, hospital: &hospital, trust })))
    }

    /// Runs a destination role function under a cost label, as whom the case knows us.
    pub(super) fn as_destination<T>(
        &self,
        label: &'static str,
        own: Thumb,
        run: impl FnOnce(&Destination<'_>) -> T,
    ) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        self.party.with_trust(|trust| scope(label, || run(&Destination { ctx, hospital: &hospital, trust })))
    }

    fn as_registrar<T>(&self, label: &'static str, own: Thumb, run: impl FnOnce(&Registrar<'_>) -> T) -> T {
        let (ctx, hospital) = (self.party.ctx(), self.identities.of(&own));
        scope(label, || run(&Registrar { ctx, hospital: &hospital }))
    }

    /// Tries what a stranger sealed under each of our keys, the current ones first: a patient may still pin replaced ones.
    fn opened<T>(&self, open: impl Fn(Thumb) -> Result<T, Rejection>) -> Result<(Thumb, T), Rejection> {
        let mut first = None;
        for identity in self.identities.all() {
            let own = identity.keys().thumb();
            match open(own) {
                Ok(opened) => return Ok((own, opened)),
                Err(rejection) => first = first.or(Some(rejection)),
            }
        }
        Err(first.unwrap_or(Code::UnexpectedMessage.into()))
    }

    async fn load<T: Encode<()> + for<'b> Decode<'b, ()>>(
        &self,
        space: Space,
        key: &Key,
        what: &'static str,
    ) -> Result<Option<(T, u64)>, ServiceError> {
        let Some(found) = self.party.store.load(space, key).await? else { return Ok(None) };
        let row = from_cbor(what, &found.value, MAX_PARCEL_BYTES).map_err(|_| ServiceError::Corrupt(what))?;
        Ok(Some((row, found.version)))
    }

    /// A case in which we are the source.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn source_case(&self, id: &ProofId) -> Result<Option<(SourceCase, u64)>, ServiceError> {
        self.load(Space::Case, &source_row(id), "source case").await
    }

    /// A case in which we are the destination.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn destination_case(&self, id: &ProofId) -> Result<Option<(DestinationCase, u64)>, ServiceError> {
        self.load(Space::Case, &destination_row(id), "destination case").await
    }

    async fn registered(
        &self,
        pid: &waybill_crypto::pseudonym::Pseudonym,
    ) -> Result<Option<(Registered, u64)>, ServiceError> {
        self.load(Space::Registration, &Key::build().fixed(pid.as_bytes()).done(), "registration").await
    }

    /// The operations that write an audit row, for the batch of the change it records.
    pub(super) fn audit(&self, row: AuditRow) -> Vec<Op> {
        row.ops(self.party.clock.now_ms(), self.party.backend.as_ref())
    }

    /// Writes an audit row by itself: for what changes nothing, before it is shown.
    ///
    /// # Errors
    /// [`ServiceError`]; then nothing may be shown.
    pub async fn note(&self, row: AuditRow) -> Result<(), ServiceError> {
        self.party.store.commit(Batch { name: "audited", ops: self.audit(row) }).await?;
        Ok(())
    }

    pub(super) async fn commit(
        &self,
        name: &'static str,
        case: &Digest,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.extend(operations(case, effects, self.book.as_ref(), self.party.clock.now_ms()).await?);
        self.party.store.commit(Batch { name, ops }).await?;
        Ok(())
    }

    pub(super) async fn save_source(
        &self,
        name: &'static str,
        case: &SourceCase,
        expect: Expect,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.insert(0, Op::Put { space: Space::Case, key: source_row(&case.proof), value: to_cbor(case), expect });
        self.commit(name, &case.proof.0, ops, effects).await
    }

    pub(super) async fn save_destination(
        &self,
        name: &'static str,
        case: &DestinationCase,
        expect: Expect,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.insert(0, Op::Put { space: Space::Case, key: destination_row(&case.proof), value: to_cbor(case), expect });
        self.commit(name, &case.proof.0, ops, effects).await
    }

    /// A one-time key is durable before anything that needs it is committed.
    fn keep_one_time(&self, session: &Digest, secret: &HpkeSecretKey) -> Result<(), ServiceError> {
        self.one_time.keep(session, secret).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    pub(super) fn destroy_one_time(&self, session: &Digest) -> Result<(), ServiceError> {
        self.one_time.destroy(session).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    pub(super) fn one_time_key(&self, session: &Digest) -> Result<Option<HpkeSecretKey>, ServiceError> {
        self.one_time.find(session).map_err(|e| ServiceError::unavailable("the one-time key folder", e))
    }

    /// Our revocation of a case, as each who must hear of it is sent it. Before the key is released it ends the case; later the
    /// authority answers with the signed end, whichever it is.
    fn decline(&self, proof: ProofId, own: Thumb, to: Vec<Recipient>) -> Vec<Effect> {
        let (ctx, own) = (self.party.ctx(), self.identities.of(&own));
        let revocation = Revocation { proof, reason: RevocationReason::HospitalDeclines, time: ctx.now };
        let signed = scope("Revocation", || Signed::sign(ctx.backend, &own.signing, revocation));
        let body = RevocationBody { revocation: SignedBytes::from(&signed), chain: own.chain.clone() };
        let parcel = Parcel::pack(Kind::Revocation, &body);
        to.into_iter().map(|to| Effect::Post(Post { to, parcel: parcel.clone(), awaits: None })).collect()
    }
}

/// An audit row of a case in which we are the source.
pub(super) fn of_source(case: &SourceCase, actor: Actor, action: &str) -> AuditRow {
    AuditRow::new(actor, action).of(&case.local).in_case(case.proof, &case.destination)
}

/// An audit row of a case in which we are the destination.
pub(super) fn of_destination(case: &DestinationCase, actor: Actor, action: &str) -> AuditRow {
    AuditRow::new(actor, action).of(&case.local).in_case(case.proof, &case.source)
}

/// A parcel sent without waiting for its answer: an earlier item waits for the same already.
pub(super) fn once(effect: Effect) -> Effect {
    match effect {
        Effect::Post(post) => Effect::Post(Post { awaits: None, ..post }),
        other => other,
    }
}

fn open<T: Encode<()> + for<'b> Decode<'b, ()>>(parcel: &Parcel) -> Result<T, Rejection> {
    Ok(parcel.open(parcel.kind, "parcel body")?)
}

fn peek<M: waybill_protocol::signed::Message + Clone>(bytes: &SignedBytes<M>) -> Result<M, Rejection> {
    Ok(bytes.parse()?.peek().clone())
}

#[async_trait]
impl ParcelHandler for Engine {
    async fn handle_parcel(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.handle(bytes).await
    }

    /// A login may ask for a walk through a whole record.
    fn takes_long(&self, bytes: &[u8]) -> bool {
        Parcel::peek_kind(bytes) == Some(Kind::Login)
    }
}
