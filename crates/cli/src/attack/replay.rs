//! A relay that kept every parcel posts them all again, in every state in which a migration can wait.
//!
//! The migration is held in a state by taking away what it waits for: without its witness the authority's answers stay where they
//! are, without hospital B's process nothing is received.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use serde_json::Value;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::evidence::Evidence;
use waybill_protocol::messages::DeliveryBody;
use waybill_protocol::migration::Effect;
use waybill_protocol::rejection::Code;
use waybill_protocol::source::Source;
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_server::authority::operator::Overview;
use waybill_server::mailbox::MailboxUrl;

use super::hands::patient::{Answer, answer, delegation, delegation_body};
use super::hands::{Case, Patient};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{Mailbox, OrFail as _, PATIENCE, Scene};
use crate::demo::network::HOSPITAL_A;
use crate::failure::Failure;
use crate::hospital;

const A: &str = "hospital-a";
const B: &str = "hospital-b";
const AUTHORITY: &str = "authority";
const WITNESS: &str = "witness";

const fn at(state: &'static str) -> Try {
    Try::new(state, "network", "nothing-changed")
}

/// The attack of this file.
pub const TABLE: &[Attack] = &[Attack {
    name: "replayed-messages",
    what: "every message of an honest migration, from registration to the signed end, is posted again to its recipient in each state \
           in which the next migration waits, with that one's own messages so far",
    attacker: "the relay, which kept every parcel",
    stopped_by: "login nonces, rows keyed by proof and session, ends that stand, single use at A and at the authority (6, 8)",
    tries: &[
        at("after the end of its own case"),
        at("the next delegation waits for its proof"),
        at("A waits for the authority's grant"),
        at("the key is lodged, and B has not received"),
        at("B has received, and the key's release waits for the log"),
        at("B has filed, and the signed end waits for the log"),
        at("after the end of that case"),
    ],
    run: |scene| replayed(scene).boxed_local(),
}];

/// Parcels with the mailbox that each goes to.
type Tape = Vec<(MailboxUrl, Vec<u8>)>;

/// What the hospitals and the authority have said in a case so far, from what its parties hold: byte for byte, but for redemption and
/// lodgement, which hospital A signs and seals anew from its row as it does when it sends them again.
async fn said(scene: &mut Scene, case: &Case, running: &[&'static str]) -> Result<Tape, Failure> {
    let mut parcels = Vec::new();
    for party in [A, B].into_iter().filter(|party| running.contains(party)) {
        let path = format!("/cases/{}/evidence", case.id());
        // A hospital that has not heard of the case has no evidence of it.
        if let Ok(bytes) = scene.network.admin(party).read_bytes(&path).await {
            parcels.extend(in_evidence(scene, party, &Evidence::parse(&bytes).or_fail("evidence does not parse")?)?);
        }
    }
    parcels.extend(in_rows(scene, case).await?);
    parcels.into_iter().map(|(party, parcel)| Ok((scene.address(party)?, parcel))).collect()
}

fn in_evidence(scene: &Scene, party: &'static str, file: &Evidence) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let mut parcels = Vec::new();
    let mut keep = |to, parcel: Option<Vec<u8>>| parcels.extend(parcel.map(|parcel| (to, parcel)));
    keep(A, file.request.as_ref().map(|body| Parcel::pack(Kind::TransferRequest, body)));
    keep(A, file.grant.as_ref().map(|body| Parcel::pack(Kind::Grant, body)));
    keep(B, file.release.as_ref().map(|body| Parcel::pack(Kind::KeyRelease, body)));
    if let Some(delivery) = file.delivery.clone().filter(|_| party == B) {
        let body = DeliveryBody { delivery, chain: scene.chain(B)? };
        keep(AUTHORITY, Some(Parcel::pack(Kind::DeliveryReceipt, &body)));
    }
    if let Some(statement) = &file.statement {
        keep(party, Some(Parcel::pack(Kind::CaseStatement, statement)));
        keep(AUTHORITY, statement.receipt.as_ref().map(|body| Parcel::pack(Kind::ImportReceipt, body)));
    }
    Ok(parcels)
}

/// What lies in A's row: the manifest as it was posted, and the redemption and lodgement that are made of it.
async fn in_rows(scene: &mut Scene, case: &Case) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    if !is_known(scene, case).await? {
        return Ok(Vec::new());
    }
    scene.servant(A).kill()?;
    let row = super::deciding::source_case(&scene.folder(A), case).await?;
    scene.servant(A).restart()?;
    let (identity, trust) = (super::hands::identity(scene, A)?, scene.trust().await?);
    let source = Source { ctx: scene.ctx(), hospital: &identity, trust: &trust };
    let Effect::Post(redeem) = source.redeem(&row) else { return Err(Failure::failed("a redemption is a parcel")) };
    let mut parcels = vec![(AUTHORITY, redeem.parcel)];
    if let Some(lodgement) = &row.lodgement {
        let lodgement = super::hands::source::pack_lodgement(scene, case.id(), lodgement.as_bytes()).await?;
        parcels.push((AUTHORITY, lodgement));
    }
    parcels.extend(row.manifest_parcel.map(|manifest| (B, manifest.to_vec())));
    Ok(parcels)
}

async fn is_known(scene: &Scene, case: &Case) -> Result<bool, Failure> {
    let list: Vec<Value> = scene.network.admin(A).read("/cases").await?;
    let id = case.id().to_string();
    Ok(list.iter().any(|entry| entry["proof"].as_str() == Some(&id)))
}

/// What a replay may not change: every case and the patient's keys at the hospitals that run, the log, and B's chart.
#[derive(Debug, PartialEq)]
struct State {
    cases: Vec<Value>,
    keys: Vec<Value>,
    /// Leaves, also those that no checkpoint covers, the newest checkpoint, and the authority's cases by state.
    log: (u64, String, BTreeMap<String, u64>),
    chart: Vec<u8>,
}

impl State {
    async fn of(scene: &Scene, patient: &Patient, running: &[&str]) -> Result<Self, Failure> {
        let (mut cases, mut keys, mut chart) = (Vec::new(), Vec::new(), Vec::new());
        for (party, local) in [(A, &patient.sample.id), (B, &patient.sample.at_b)] {
            if !running.contains(&party) {
                continue;
            }
            let admin = scene.network.admin(party);
            let list: Vec<Value> = admin.read("/cases").await?;
            for entry in list {
                let proof = entry["proof"].as_str().unwrap_or_default().to_owned();
                cases.push(admin.read(&format!("/cases/{proof}")).await?);
            }
            keys.push(admin.read(&format!("/patients/{local}/keys")).await?);
            if party == B {
                let folder = tempfile::tempdir().or_fail("no temporary folder")?;
                let file = folder.path().join("chart");
                hospital::export(&admin, local, Some(HOSPITAL_A), &file).await?;
                chart = std::fs::read(&file).or_fail("no chart")?;
            }
        }
        let page = scene.page("/checkpoint").await.or_fail("no checkpoint")?;
        // Size and root; the cosignature's time may be another.
        let checkpoint = String::from_utf8_lossy(&page).lines().take(3).collect::<Vec<_>>().join("\n");
        let overview: Overview = scene.network.admin(AUTHORITY).read("/overview").await?;
        let log = (overview.log.leaves, checkpoint, overview.cases);
        Ok(Self { cases, keys, log, chart })
    }

    fn compare(&self, after: &Self) -> Seen {
        if self == after {
            return Seen::refused("network", "nothing-changed", "cases, keys, log, chart");
        }
        let same = [
            ("cases", self.cases == after.cases),
            ("keys", self.keys == after.keys),
            ("log", self.log == after.log),
            ("chart", self.chart == after.chart),
        ];
        let changed: Vec<_> = same.iter().filter(|(_, same)| !same).map(|(what, _)| *what).collect();
        Seen::Passed(format!("changed: {}", changed.join(", ")))
    }
}

/// Posts everything again and says whether anything is another afterwards.
async fn replay(scene: &Scene, patient: &Patient, tape: &Tape, running: &[&'static str]) -> Result<Seen, Failure> {
    let before = State::of(scene, patient, running).await?;
    for (address, parcel) in tape {
        scene.post(address, parcel.clone()).await?;
    }
    // Each party handles its letters in order: once it has refused one posted after them all, it has handled them.
    for party in running {
        let mark = scene.mark(party);
        scene.post(&scene.address(party)?, vec![0xff; 3]).await?;
        let until = std::time::Instant::now() + PATIENCE;
        while !scene.refusals(party, mark).contains(&Code::Malformed) {
            if std::time::Instant::now() >= until {
                return Err(Failure::failed(format!("{party} does not get through its letters")));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    // An answer that was sent again, or a step that was taken, would show by now.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    Ok(before.compare(&State::of(scene, patient, running).await?))
}

/// The next migration, and everything said before it began.
struct Next<'a> {
    scene: &'a mut Scene,
    patient: &'a Patient,
    before: Tape,
    /// How much of what the patient posted is in `before`.
    posted: usize,
    case: Case,
    seen: Vec<Seen>,
}

impl Next<'_> {
    /// Replays everything said so far, in this migration and before it.
    async fn replay(&mut self, running: &[&'static str]) -> Result<(), Failure> {
        let mut tape = self.before.clone();
        tape.extend(self.scene.posted().split_off(self.posted));
        let posted = tape.len();
        if self.case.bundle.is_some() {
            tape.extend(said(self.scene, &self.case, running).await?);
        }
        let seen = replay(self.scene, self.patient, &tape, running).await?;
        self.seen.push(seen);
        // What was just replayed is not the patient's.
        self.before = tape[..posted].to_vec();
        self.posted = self.scene.posted().len();
        Ok(())
    }

    /// The delegation is posted and the authority's proof waits for the witness; then it comes.
    async fn delegate(&mut self) -> Result<(), Failure> {
        let voucher = self.patient.vouch(self.scene, &self.case).await?;
        let mut reply: Mailbox = self.scene.mailbox(Native.generate_signing_key()).await?;
        let body = delegation_body(delegation(&self.case, &reply), &self.case.delegation_key, voucher);
        self.scene.servant(WITNESS).kill()?;
        self.scene.post(&self.scene.address(AUTHORITY)?, Parcel::pack(Kind::Delegation, &body)).await?;
        self.replay(&[A, B, AUTHORITY]).await?;
        self.scene.servant(WITNESS).restart()?;
        let mark = self.scene.mark(AUTHORITY);
        match answer(self.scene, &self.case, &body, &mut reply, mark).await? {
            Answer::Proof(bundle) => (self.case.body, self.case.bundle) = (Some(body), Some(*bundle)),
            _ => return Err(Failure::failed("the authority issues no proof")),
        }
        Ok(())
    }

    async fn is_at(&mut self, hospital: &str, state: &str) -> Result<(), Failure> {
        let view = self.scene.case(hospital, &self.case.id(), |view| view.state == state).await?;
        let reached = view.is_some_and(|view| view.state == state);
        reached.then_some(()).or_fail(&format!("the case never waits as {state} at {hospital}"))
    }

    /// Presents the case, and holds it in each state until everything was posted again.
    async fn migrate(&mut self) -> Result<(), Failure> {
        const ALL: &[&str] = &[A, B, AUTHORITY];
        self.scene.servant(WITNESS).kill()?;
        self.patient.present(self.scene, &self.case).await?;
        self.is_at(A, "redeeming").await?;
        self.replay(ALL).await?;
        self.scene.servant(B).kill()?;
        self.scene.servant(WITNESS).restart()?;
        self.is_at(A, "lodged").await?;
        self.replay(&[A, AUTHORITY]).await?;
        self.scene.servant(WITNESS).kill()?;
        self.scene.servant(B).restart()?;
        self.is_at(B, "delivered").await?;
        self.replay(ALL).await?;
        // The release is let through to B's mailbox, the end is not.
        self.scene.servant(B).kill()?;
        self.scene.servant(WITNESS).restart()?;
        self.released().await?;
        self.scene.servant(WITNESS).kill()?;
        self.scene.servant(B).restart()?;
        self.is_at(B, "filed").await?;
        self.replay(ALL).await?;
        self.scene.servant(WITNESS).restart()
    }

    /// Waits until the key lies in B's mailbox.
    async fn released(&mut self) -> Result<(), Failure> {
        let mut mailbox = self.scene.mailbox_of(B).await?;
        while let Some(letter) = mailbox.next(self.scene, PATIENCE).await? {
            if Parcel::peek_kind(&letter) == Some(Kind::KeyRelease) {
                return Ok(());
            }
        }
        Err(Failure::failed("the key is not released"))
    }
}

async fn replayed(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (first, filed) = patient.migrate(scene).await?;
    filed.then_some(()).or_fail("the first case was not filed")?;
    let mut before = scene.posted();
    before.extend(said(scene, &first, &[A, B]).await?);
    let seen = vec![replay(scene, &patient, &before, &[A, B, AUTHORITY]).await?];
    let posted = scene.posted().len();
    let case = patient.draft(Scope::full(), Hides::default());
    let mut next = Next { scene, patient: &patient, before, posted, case, seen };
    next.delegate().await?;
    next.migrate().await?;
    let twin = next.scene.is_filed(&next.case.id()).await?;
    next.replay(&[A, B, AUTHORITY]).await?;
    Ok(Finding::new(next.seen, None, twin, "the next case is filed all the same"))
}
