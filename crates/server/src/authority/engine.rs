//! The authority's shell: takes parcels, calls the role, commits row, leaf and deadline in one batch.
//!
//! Answers are not sent from here: they wait beside their leaf until [`super::sequencer`] has a cosigned checkpoint over it.

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use waybill_crypto::keys::Digest;
use waybill_crypto::metered::scope;
use waybill_protocol::authority::{Authority, AuthorityCase, Intent, Transition};
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::messages::{
    DelegationBody, DeliveryBody, LodgementBody, ReceiptBody, RedeemBody, RefusalBody, RevocationBody, Standing,
};
use waybill_protocol::migration::{Effect, Recipient};
use waybill_protocol::rejection::{Code, Rejection, Stage};
use waybill_protocol::trust::HospitalVerified;
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Op, Space, Versioned};

use super::keys::OnlineKeys;
use super::registry::Registry;
use crate::party::deadlines::Sleeper;
use crate::party::effects::{case_timer, operations};
use crate::party::{ParcelHandler, Party, ServiceError, run_again};

/// The authority's running state.
#[derive(Clone)]
pub struct Engine {
    /// Storage, time, primitives, trust.
    pub party: Party,
    /// The online keys.
    pub keys: OnlineKeys,
    /// The hospitals.
    pub registry: Registry,
}

/// The unique row of a delegation key: the intent, and the proof once signed.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct IntentRow {
    #[n(0)]
    intent: Intent,
    #[n(1)]
    issued: Option<ProofId>,
}

/// The row of a case.
pub(super) fn case_row(id: &ProofId) -> Key {
    Key::build().fixed(id.as_bytes()).done()
}

/// The row of an answer that was sent, to be sent again when the same question comes again.
pub(super) fn answer_row(id: &ProofId, kind: Kind) -> Key {
    Key::build().fixed(id.as_bytes()).number(kind as u64).done()
}

fn intent_row(key: &Digest) -> Key {
    Key::build().text("delegation").fixed(&key.0).done()
}

/// The answer that ends every wait.
const STATEMENT: &[Kind] = &[Kind::CaseStatement];

/// The registry, as roles ask it.
type StandingOf<'a> = &'a dyn Fn(&HospitalId) -> Option<Standing>;

/// A row of a case may hold a receipt and many certificates. Units: bytes.
const MAX_ROW_BYTES: usize = MAX_PARCEL_BYTES;

impl Engine {
    /// Handles one parcel.
    ///
    /// # Errors
    /// [`ServiceError`]; a rejection is final, everything else leaves the parcel to be handled again.
    pub async fn handle(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        let parcel = Parcel::parse(bytes).map_err(Rejection::from)?;
        match parcel.kind {
            Kind::Delegation => self.delegation(&parcel).await,
            Kind::Redeem => self.redeem(&parcel).await,
            Kind::KeyLodgement => self.lodgement(&parcel).await,
            Kind::DeliveryReceipt => {
                let body: DeliveryBody = open(&parcel, "delivery receipt")?;
                let id = parsed(&body.delivery)?.proof;
                let answers = &[Kind::KeyRelease, Kind::CaseStatement];
                self.step("DeliveryReceipt", id, answers, |a, case, standing| a.handle_delivery(case, &body, standing))
                    .await
            }
            Kind::ImportReceipt => {
                let body: ReceiptBody = open(&parcel, "import receipt")?;
                let id = parsed(&body.receipt)?.proof;
                self.step("ImportReceipt", id, STATEMENT, |a, case, _| a.handle_receipt(case, &body)).await
            }
            Kind::Revocation => {
                let body: RevocationBody = open(&parcel, "revocation")?;
                let id = parsed(&body.revocation)?.proof;
                self.step("Revocation", id, STATEMENT, |a, case, _| a.handle_revocation(case, &body)).await
            }
            Kind::Refusal => {
                let body: RefusalBody = open(&parcel, "refusal")?;
                let id = ProofId(parsed(&body.refusal)?.subject);
                self.step("Refusal", id, STATEMENT, |a, case, _| a.handle_refusal(case, &body)).await
            }
            _ => Err(Rejection::from(Code::UnexpectedMessage).into()),
        }
    }

    fn with_role<T>(&self, label: &'static str, run: impl FnOnce(&Authority<'_>) -> T) -> T {
        let (ctx, online) = (self.party.ctx(), self.keys.current());
        self.party.with_trust(|trust| scope(label, || run(&Authority { ctx, trust, keys: &online.keys })))
    }

    async fn delegation(&self, parcel: &Parcel) -> Result<(), ServiceError> {
        let body: DelegationBody = open(parcel, "delegation")?;
        let unverified = body.delegation.parse().map_err(Rejection::from)?;
        let terms = unverified.peek().terms.clone();
        let (reply_to, subject) = (unverified.peek().reply_to.clone(), unverified.message_id().0);
        let standings = self.registry.standings([&terms.source, &terms.destination]).await?;
        let checked =
            self.with_role("Delegation", |a| a.check_delegation(&body, &|id: &HospitalId| standings.get(id).copied()));
        let outcome = match checked {
            Ok(intent) => self.issue(intent).await,
            Err(rejection) => Err(rejection.into()),
        };
        if let Err(ServiceError::Rejected(rejection)) = &outcome {
            // Without a hospital's voucher there is no patient to answer to: strangers make nothing happen.
            let stranger = matches!(rejection.code.stage(), Stage::Sender | Stage::Frame)
                || matches!(rejection.code, Code::DelegationInvalid | Code::VoucherInvalid);
            if !stranger {
                let refusal = self
                    .with_role("Refusal", |a| a.refuse(Recipient::Mailbox(reply_to), subject, None, 0, rejection.code));
                self.commit("refusal", &subject, Vec::new(), vec![refusal]).await?;
            }
        }
        outcome
    }

    /// Stores the intent, then signs. A crash between the two leaves an intent that the same delegation picks up again.
    async fn issue(&self, intent: Intent) -> Result<(), ServiceError> {
        let key = intent_row(&intent.delegation_key);
        let row = match self.party.store.load(Space::Unique, &key).await? {
            None => {
                let row = IntentRow { intent, issued: None };
                let batch =
                    Batch::new("delegation-intent").put(Space::Unique, key.clone(), to_cbor(&row), Expect::Absent);
                self.party.store.commit(batch).await?;
                row
            }
            Some(found) => {
                let row: IntentRow = read(&found, "delegation intent")?;
                if row.intent.proof.delegation != intent.proof.delegation {
                    return Err(Rejection::from(Code::DelegationRepeated).into());
                }
                row
            }
        };
        if let Some(issued) = row.issued {
            return self.repeat_answer(&issued, Kind::ProofAnswer).await;
        }
        let (case, effects) = self.with_role("MigrationProof", |a| a.issue_proof(&row.intent))?;
        let issued = IntentRow { issued: Some(case.id), ..row };
        let ops = vec![
            Op::Put { space: Space::Case, key: case_row(&case.id), value: to_cbor(&case), expect: Expect::Absent },
            Op::Put { space: Space::Unique, key, value: to_cbor(&issued), expect: Expect::Any },
        ];
        self.commit("proof-issued", &case.id.0, ops, effects).await
    }

    async fn redeem(&self, parcel: &Parcel) -> Result<(), ServiceError> {
        let body: RedeemBody = open(parcel, "redeem")?;
        let (from, redeem) = self.with_role("Redeem", |a| a.verify_redeem(&body))?;
        let said = redeem.message();
        let outcome = match self.load_case(&said.proof).await? {
            Some((case, _)) if case.has_granted(said) => return self.repeat_answer(&said.proof, Kind::Grant).await,
            Some((case, version)) => {
                let standings = self.registry.standings([&case.terms.source, &case.terms.destination]).await?;
                let standing = |id: &HospitalId| -> Option<Standing> { standings.get(id).copied() };
                let result =
                    self.with_role("Redeem", |a| a.handle_redeem(case, &from, &body.chain, &redeem, &standing));
                match result {
                    Ok(transition) => self.save("redeemed", transition, version).await,
                    Err(rejection) => Err(rejection.into()),
                }
            }
            None => Err(Rejection::from(Code::UnknownCase).into()),
        };
        if let Err(ServiceError::Rejected(rejection)) = &outcome {
            self.refuse_source(&from, said.proof, said.session, said.attempt, rejection.code).await?;
        }
        outcome
    }

    async fn refuse_source(
        &self,
        from: &HospitalVerified,
        proof: ProofId,
        session: waybill_protocol::ids::SessionId,
        attempt: u32,
        code: Code,
    ) -> Result<(), ServiceError> {
        let to = Recipient::Hospital(from.id().clone());
        let refusal = self.with_role("Refusal", |a| a.refuse(to, proof.0, Some(session), attempt, code));
        self.commit("refusal", &proof.0, Vec::new(), vec![refusal]).await
    }

    async fn lodgement(&self, parcel: &Parcel) -> Result<(), ServiceError> {
        let body: LodgementBody = open(parcel, "key lodgement")?;
        let lodgement = self.with_role("KeyLodgement", |a| a.open_lodgement(&body))?;
        self.step("KeyLodgement", body.proof, STATEMENT, |a, case, standing| {
            a.handle_lodgement(case, &lodgement, standing)
        })
        .await
    }

    /// Loads a case, runs the role, saves. A message that verifies but comes too late is a repetition: the answers it waits for
    /// are sent again.
    async fn step<F>(&self, label: &'static str, id: ProofId, answers: &[Kind], role: F) -> Result<(), ServiceError>
    where
        F: Fn(&Authority<'_>, AuthorityCase, StandingOf<'_>) -> Result<Transition, Rejection>,
    {
        run_again(|| async {
            let (case, version) = self.load_case(&id).await?.ok_or(Rejection::from(Code::UnknownCase))?;
            let standings = self.registry.standings([&case.terms.source, &case.terms.destination]).await?;
            let standing = |id: &HospitalId| standings.get(id).copied();
            match self.with_role(label, |a| role(a, case, &standing)) {
                Ok(transition) => self.save(label, transition, version).await,
                Err(late) if matches!(late.code, Code::UnexpectedMessage | Code::ProofRevoked | Code::ProofExpired) => {
                    for kind in answers {
                        self.repeat_answer(&id, *kind).await?;
                    }
                    Ok(())
                }
                Err(rejection) => Err(rejection.into()),
            }
        })
        .await
    }

    /// A case and its version.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn load_case(&self, id: &ProofId) -> Result<Option<(AuthorityCase, u64)>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Case, &case_row(id)).await? else { return Ok(None) };
        Ok(Some((read(&found, "case")?, found.version)))
    }

    async fn save(&self, name: &'static str, (case, effects): Transition, version: u64) -> Result<(), ServiceError> {
        let put = Op::Put {
            space: Space::Case,
            key: case_row(&case.id),
            value: to_cbor(&case),
            expect: Expect::Version(version),
        };
        self.commit(name, &case.id.0, vec![put], effects).await
    }

    async fn commit(
        &self,
        name: &'static str,
        case: &Digest,
        mut ops: Vec<Op>,
        effects: Vec<Effect>,
    ) -> Result<(), ServiceError> {
        ops.extend(operations(case, effects, &self.registry, self.party.clock.now_ms()).await?);
        self.party.store.commit(Batch { name, ops }).await?;
        Ok(())
    }

    /// Sends an answer again that was sent before. When its leaf is not covered yet, it will be sent anyway.
    async fn repeat_answer(&self, id: &ProofId, kind: Kind) -> Result<(), ServiceError> {
        let Some(found) = self.party.store.load(Space::Evidence, &answer_row(id, kind)).await? else { return Ok(()) };
        let sent: super::sequencer::Sent = read(&found, "answer")?;
        let effects = sent.into_posts().into_iter().map(Effect::Post).collect();
        self.commit("answer-repeated", &id.0, Vec::new(), effects).await
    }
}

fn open<T: Encode<()> + for<'b> Decode<'b, ()>>(parcel: &Parcel, what: &'static str) -> Result<T, Rejection> {
    Ok(parcel.open(parcel.kind, what)?)
}

fn parsed<M: waybill_protocol::signed::Message + Clone>(
    bytes: &waybill_protocol::signed::SignedBytes<M>,
) -> Result<M, Rejection> {
    Ok(bytes.parse()?.peek().clone())
}

pub(super) fn read<T: Encode<()> + for<'b> Decode<'b, ()>>(
    row: &Versioned,
    what: &'static str,
) -> Result<T, ServiceError> {
    from_cbor(what, &row.value, MAX_ROW_BYTES).map_err(|_| ServiceError::Corrupt(what))
}

#[async_trait]
impl ParcelHandler for Engine {
    async fn handle_parcel(&self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.handle(bytes).await
    }
}

#[async_trait]
impl Sleeper for Engine {
    async fn wake(&self, case: Digest) -> Result<(), ServiceError> {
        let id = ProofId(case);
        run_again(|| async {
            let Some((row, version)) = self.load_case(&id).await? else {
                self.party
                    .store
                    .commit(Batch::new("timer-orphan").with(Op::ClearTimer { key: case_timer(&case) }))
                    .await?;
                return Ok(());
            };
            match self.with_role("Deadline", |a| a.handle_deadline(row)) {
                Some(transition) => self.save("deadline", transition, version).await,
                None => Ok(()),
            }
        })
        .await
    }
}
