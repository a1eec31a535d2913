//! One patient's migration, from the first registration to the refusal of the second attempt.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use waybill_crypto::certificate::TrustAnchor;
use waybill_crypto::metered::scope;
use waybill_protocol::evidence::{Evidence, MAX_EVIDENCE_BYTES};
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::log::CheckpointPolicy;
use waybill_protocol::messages::{DelegationBody, EndState, Terms};
use waybill_protocol::patient::Wish;
use waybill_protocol::rejection::Code;
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_server::mailbox::journal::Posted;
use waybill_wallet::{CaseNumber, Received};

use super::costs::{PATIENT, Reading};
use super::network::{HOSPITAL_A, HOSPITAL_B, Network};
use super::person::{ANSWER, Person, unexpected};
use super::records;
use super::report::{DigestStates, EvidenceReport, Message, PatientReport, ReplayReport, Stage, TypeCounts};
use super::watch::{Watcher, case};
use crate::console::Console;
use crate::courier::now;
use crate::failure::{Exit, Failure};
use crate::hospital;
use crate::verify::judge_bytes;

/// How long the delegation runs. Units: seconds.
const LIFETIME_SECONDS: u64 = 7 * 86_400;
/// Longest migration.
const END: Duration = Duration::from_secs(6 * 3600);
/// How long both hospitals may take to close a case that the wallet knows has ended.
const CLOSING: Duration = Duration::from_secs(60);
/// Messages from login to proof.
const LOGIN_TO_PROOF: [&str; 4] = ["Login", "LoginAnswer", "Delegation", "ProofAnswer"];
/// Parties that keep a journal of what they post.
const POSTING: [&str; 3] = ["authority", "hospital-a", "hospital-b"];

/// What every migration of a demo shares.
pub struct Stageplay<'a> {
    /// The network.
    pub network: &'a Network,
    /// What is delegated.
    pub scope: &'a Scope,
    /// The authority's root.
    pub root: &'a TrustAnchor,
    /// The log and the witnesses that evidence is judged under.
    pub policy: &'a CheckpointPolicy,
    /// Where people look.
    pub console: &'a Console,
    /// Whether each stage is told.
    pub verbose: bool,
}

/// A patient's files.
pub struct Files {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it stays.
    pub kept: bool,
}

impl Files {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Stageplay<'_> {
    /// Migrates a patient; whatever goes wrong is in the report.
    pub async fn migrate(&self, id: &str, index: usize, files: &Files) -> PatientReport {
        let mut report = PatientReport { id: id.to_owned(), outcome: "failed".to_owned(), ..PatientReport::default() };
        if let Err(failure) = self.act(index, files, &mut report).await {
            report.failure = Some(failure.to_string());
            report.require("the migration came to its end", false);
        }
        report
    }

    async fn act(&self, index: usize, files: &Files, report: &mut PatientReport) -> Result<(), Failure> {
        let network = self.network;
        let progress = self.console.progress(format!("registering patient {}", report.id));
        let source = files.at("source.ndjson");
        hospital::export(&network.admin("hospital-a"), &report.id, None, &source).await?;
        let mut person = self.register(index, &source, report).await?;
        drop(progress);

        let journals = Journals::read(network).await?;
        let before = Reading::take(network, &person.meter, &person.courier).await?;
        let (carried, begun) = (person.courier.carried().len(), Instant::now());
        let (number, proof) = self.obtain_proof(&mut person, begun, report).await?;
        let proven = Reading::take(network, &person.meter, &person.courier).await?;
        report.crypto_cpu_us_login_to_proof = proven.since(&before).protocol_us();
        report.proof = Some(proof.to_string());
        let outcome = self.transfer(&mut person, number, proof, begun, report).await?;
        report.seconds = begun.elapsed().as_secs_f64();
        self.settle(&proof).await?;
        let after = Reading::take(network, &person.meter, &person.courier).await?;
        let spent = after.since(&before);
        report.crypto_cpu_us = spent.protocol_us();
        (report.record_cpu_us, report.mailbox_cpu_us, report.wire_bytes) =
            (spent.record_us, spent.mailbox_us, spent.wire_bytes());
        (report.crypto, report.wire) = (spent.protocol, spent.wire);
        report.messages.extend(journals.messages(network, &person, carried, "migration").await?);
        let early =
            report.messages.iter().filter(|m| m.phase == "migration" && LOGIN_TO_PROOF.contains(&m.name.as_str()));
        report.login_to_proof_bytes = early.map(|m| m.bytes).sum();
        if let Some(outcome) = outcome {
            report.outcome = outcome.as_str().to_owned();
        }
        self.inspect(&person, &proof, carried, files, report).await?;
        self.replay(&mut person, number, report).await
    }

    /// A wallet for the patient, registered at A and, as a new local patient with the same demographics, at B.
    async fn register(&self, index: usize, source: &Path, report: &mut PatientReport) -> Result<Person, Failure> {
        let network = self.network;
        let wallets = network.folder().join("wallets");
        std::fs::create_dir_all(&wallets)
            .map_err(|e| Failure::environment("the folder for wallets cannot be made", e))?;
        let mut person = Person::new(network, &wallets.join(format!("patient-{index}.wallet")), &report.id).await?;
        let local = format!("b-{:05}", index + 1);
        let patient = records::registration_of(source, &report.id, &local)?;
        let journals = Journals::read(network).await?;
        let before = Reading::take(network, &person.meter, &person.courier).await?;
        let answer: Value = network.admin("hospital-b").post_bytes("/patients", patient.into()).await?;
        person.destination_id = answer["local"].as_str().unwrap_or(&local).to_owned();
        person.register(network, "hospital-a", &report.id).await?;
        let at_b = person.destination_id.clone();
        person.register(network, "hospital-b", &at_b).await?;
        let spent = Reading::take(network, &person.meter, &person.courier).await?.since(&before);
        report.crypto_cpu_us_registration = spent.protocol_us();
        report.destination_id = at_b;
        report.messages.extend(journals.messages(network, &person, 0, "registration").await?);
        self.tell(None, &format!("registered at {HOSPITAL_A} and, as {}, at {HOSPITAL_B}", report.destination_id));
        Ok(person)
    }

    fn tell(&self, since: Option<Duration>, what: &str) {
        if self.verbose {
            let time = since.map_or_else(|| " ".repeat(10), |since| format!("{:8.3} s", since.as_secs_f64()));
            self.console.say(format!("  {time}  {what}"));
        }
    }

    fn reached(&self, report: &mut PatientReport, begun: Instant, name: &str, what: &str) {
        report.stages.push(Stage { name: name.to_owned(), seconds: begun.elapsed().as_secs_f64() });
        self.tell(Some(begun.elapsed()), what);
    }

    /// Login, voucher, delegation, proof; the wallet has compared the proof with its delegation.
    async fn obtain_proof(
        &self,
        person: &mut Person,
        begun: Instant,
        report: &mut PatientReport,
    ) -> Result<(CaseNumber, ProofId), Failure> {
        let (a, b) = parties();
        let now = now();
        let wish =
            Wish { scope: self.scope.clone(), hides: Hides::default(), not_before: now, expires: now.plus(lifetime()) };
        let begun_case = scope("Login", || person.wallet.delegate(now, &a, &b, wish));
        let (number, _) = begun_case.map_err(|e| Failure::failed("the wallet refuses to delegate").caused_by(e))?;
        match person.courier.next(&mut person.wallet, ANSWER).await? {
            Received::Vouched { .. } => {
                self.reached(report, begun, "vouched", "logged in at A; A vouches for a fresh delegation key")
            }
            Received::LoginRefused { code, .. } => return Err(refused(report, code)),
            other => return Err(unexpected(&other)),
        }
        match person.courier.next(&mut person.wallet, ANSWER).await? {
            Received::Proof { proof, .. } => {
                self.reached(
                    report,
                    begun,
                    "proof",
                    "delegated; the authority's logged proof says in every field what was delegated",
                );
                Ok((number, proof))
            }
            Received::ProofRefused { code, .. } => Err(refused(report, code)),
            Received::Refused { notice, .. } => Err(refused(report, notice.code)),
            other => Err(unexpected(&other)),
        }
    }

    /// Consent and presentation; then the record moves until somebody signs the end.
    async fn transfer(
        &self,
        person: &mut Person,
        number: CaseNumber,
        proof: ProofId,
        begun: Instant,
        report: &mut PatientReport,
    ) -> Result<Option<EndState>, Failure> {
        let consented = scope("Presentation", || person.wallet.consent(now(), number));
        consented.map_err(|e| Failure::failed("the wallet refuses to consent").caused_by(e))?;
        self.reached(report, begun, "consented", "the patient consents at A and presents the proof at B");
        let progress = self.console.progress("the record moves");
        let mut watcher = Watcher::new(self.network, proof, begun, &progress);
        let received = tokio::select! {
            received = person.courier.next(&mut person.wallet, END) => received,
            stuck = watcher.follow() => match stuck { Err(failure) => Err(failure), Ok(never) => match never {} },
        };
        report.reviewed = watcher.reviewed;
        let stages = std::mem::take(&mut watcher.stages);
        drop(progress);
        for stage in stages {
            self.tell(Some(Duration::from_secs_f64(stage.seconds)), &stage.name);
            report.stages.push(stage);
        }
        if report.reviewed {
            self.tell(
                None,
                "the two patients were not certainly one person: released by the records officer (this demo)",
            );
        }
        match received? {
            Received::Ended { state, .. } => {
                self.reached(
                    report,
                    begun,
                    state.as_str(),
                    &format!("the authority's signed and logged end: {}", state.as_str()),
                );
                Ok(Some(state))
            }
            Received::Refused { notice, .. } => {
                report.code = Some(notice.code.as_str().to_owned());
                report.outcome = "refused".to_owned();
                self.reached(report, begun, "refused", &format!("{} refuses: {}", notice.from, notice.code.sentence()));
                Ok(None)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until both hospitals have the signed end, too.
    async fn settle(&self, proof: &ProofId) -> Result<(), Failure> {
        let deadline = Instant::now() + CLOSING;
        for party in ["hospital-a", "hospital-b"] {
            let admin = self.network.admin(party);
            while Instant::now() < deadline {
                match case(&admin, proof).await {
                    Ok(Some(view)) if view.ended.is_none() => {}
                    Err(Failure { exit: Exit::Environment, .. }) => {}
                    Err(failure) => return Err(failure),
                    Ok(_) => break,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Reads what both hospitals hold, and checks everything that must be so.
    async fn inspect(
        &self,
        person: &Person,
        proof: &ProofId,
        carried: usize,
        files: &Files,
        report: &mut PatientReport,
    ) -> Result<(), Failure> {
        let (a, b) = (self.network.admin("hospital-a"), self.network.admin("hospital-b"));
        let (at_a, at_b) = (case(&a, proof).await?.unwrap_or_default(), case(&b, proof).await?.unwrap_or_default());
        report.code = report.code.take().or_else(|| at_b.code.clone()).or_else(|| at_a.code.clone());
        let manifest = at_a.manifest.unwrap_or_default();
        let receipt = at_b.receipt.unwrap_or_default();
        report.record_bytes = manifest.inventory.values().map(|tally| tally.bytes).sum();
        (report.stream_bytes, report.chunks) = (manifest.stream_bytes, manifest.chunks);
        report.digest_source = manifest.digest_scope.clone();
        report.digest_full = manifest.digest_full;
        report.digest_states = DigestStates { scope: manifest.digest_scope_state, full: manifest.digest_full_state };
        report.digest_destination = receipt.digest;
        if let Some(mut loss) = b.find::<Value>(&format!("/cases/{proof}/loss")).await? {
            // Towards B all that stayed looks alike; A's own report has the reasons, for A and its patient.
            loss["source"] = a.find(&format!("/cases/{proof}/loss")).await?.unwrap_or_default();
            write(&files.at("loss-report.json"), &serde_json::to_vec_pretty(&loss).expect("JSON is JSON"))?;
            read_loss(&loss, report);
        }
        let destination = files.at("destination.ndjson");
        hospital::export(&b, &person.destination_id, Some(HOSPITAL_A), &destination).await?;
        let same = records::are_same(&files.at("source.ndjson"), self.scope, &destination)?;
        report.require("offered = filed + quarantined", report.offered == report.filed + report.quarantined);
        report.require(
            "held = offered + withheld + not_movable",
            report.held == report.offered + report.withheld + report.not_movable,
        );
        report.require("counts of manifest, receipt and loss report agree", {
            (manifest.offered, receipt.offered, receipt.filed, receipt.quarantined)
                == (report.offered, report.offered, report.filed, report.quarantined)
        });
        report.require(
            "digests of source and destination are equal",
            !report.digest_source.is_empty() && report.digest_source == report.digest_destination,
        );
        report.require("what A holds in scope is at B byte for byte", report.quarantined > 0 || same);
        self.judge(person, proof, carried, files, report).await
    }

    /// Joins what the three parties hold into one file of evidence, and judges it offline.
    async fn judge(
        &self,
        person: &Person,
        proof: &ProofId,
        carried: usize,
        files: &Files,
        report: &mut PatientReport,
    ) -> Result<(), Failure> {
        let path = format!("/cases/{proof}/evidence");
        let mut parts = Vec::new();
        for party in ["hospital-b", "hospital-a"] {
            let bytes = self.network.admin(party).read_bytes(&path).await?;
            debug_assert!(bytes.len() <= MAX_EVIDENCE_BYTES, "a hospital writes no larger evidence");
            parts.push(
                Evidence::parse(&bytes)
                    .map_err(|e| Failure::failed(format!("{party}'s evidence does not read back")).caused_by(e))?,
            );
        }
        let mut parts = parts.into_iter();
        let mut evidence = parts.next().expect("two hospitals were asked");
        parts.for_each(|part| evidence.merge(part));
        evidence.delegation = person.posted(Kind::Delegation, carried).and_then(delegation);
        let bytes = evidence.to_bytes();
        let file = files.at("evidence.cbor");
        write(&file, &bytes)?;
        let verdict = judge_bytes(&bytes, self.root, Some(self.policy));
        report.require("the evidence holds", verdict.holds && verdict.end == Some("filed"));
        let file = files.kept.then(|| file.display().to_string());
        report.evidence = Some(EvidenceReport { bytes: bytes.len() as u64, file, verdict });
        Ok(())
    }

    /// Presents the same proof again: it must be refused, with a signature.
    async fn replay(&self, person: &mut Person, number: CaseNumber, report: &mut PatientReport) -> Result<(), Failure> {
        let journals = Journals::read(self.network).await?;
        let carried = person.courier.carried().len();
        person
            .wallet
            .present_again(number)
            .map_err(|e| Failure::failed("the wallet cannot present again").caused_by(e))?;
        let replay = match person.courier.next(&mut person.wallet, ANSWER).await? {
            Received::Refused { notice, .. } => {
                ReplayReport { refused: true, by: notice.from.to_string(), code: notice.code.as_str().to_owned() }
            }
            other => ReplayReport { refused: false, by: String::new(), code: format!("{other:?}") },
        };
        report.messages.extend(journals.messages(self.network, person, carried, "replay").await?);
        self.tell(None, &format!("the same proof presented again: refused by {} ({})", replay.by, replay.code));
        report.require("a proof is good once", replay.refused && replay.code == Code::ProofSpent.as_str());
        report.replay = Some(replay);
        Ok(())
    }
}

fn parties() -> (HospitalId, HospitalId) {
    let parse = |name| HospitalId::parse(name).expect("the demo's names are well formed");
    (parse(HOSPITAL_A), parse(HOSPITAL_B))
}

fn lifetime() -> u64 {
    LIFETIME_SECONDS.min(Terms::MAX_LIFETIME_SECONDS)
}

fn refused(report: &mut PatientReport, code: Code) -> Failure {
    report.outcome = "refused".to_owned();
    report.code = Some(code.as_str().to_owned());
    Failure::failed(code.sentence())
}

fn delegation(parcel: &[u8]) -> Option<DelegationBody> {
    Parcel::parse(parcel).ok()?.open(Kind::Delegation, "delegation").ok()
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes).map_err(|e| Failure::environment(format!("cannot write {}", file.display()), e))
}

/// Takes the counts over from B's loss report.
fn read_loss(loss: &Value, report: &mut PatientReport) {
    let counts: TypeCounts = serde_json::from_value(loss.clone()).unwrap_or_default();
    (report.held, report.offered, report.filed) = (counts.held, counts.offered, counts.filed);
    (report.withheld, report.not_movable, report.quarantined) =
        (counts.withheld, counts.not_movable, counts.quarantined);
    report.types = serde_json::from_value(loss["by_type"].clone()).unwrap_or_default();
    report.reasons = serde_json::from_value(loss["source"]["reasons"].clone()).unwrap_or_default();
    if let Some(quarantined) = loss["reasons"].get("quarantined") {
        let at_b = serde_json::from_value(quarantined.clone()).unwrap_or_default();
        report.reasons.insert("quarantined".to_owned(), at_b);
    }
}

/// How far each party's journal of posted parcels has come.
struct Journals([u64; 3]);

impl Journals {
    async fn read(network: &Network) -> Result<Self, Failure> {
        let mut last = [0; 3];
        for (place, party) in last.iter_mut().zip(POSTING) {
            let posted: Vec<Posted> = network.admin(party).read("/parcels").await?;
            *place = posted.last().map_or(0, |posted| posted.seq);
        }
        Ok(Self(last))
    }

    /// What was posted since then by everybody, in the order of the protocol.
    async fn messages(
        &self,
        network: &Network,
        person: &Person,
        carried: usize,
        phase: &'static str,
    ) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        for carried in person.courier.carried().get(carried..).unwrap_or_default() {
            let Some(to) = &carried.to else { continue };
            let to = match to.to_string().as_str() {
                HOSPITAL_A => "hospital-a",
                HOSPITAL_B => "hospital-b",
                _ => "authority",
            };
            let (name, bytes) = (format!("{:?}", carried.kind), carried.parcel.len() as u64);
            messages.push((
                carried.kind as u64,
                Message { name, from: PATIENT.to_owned(), to: to.to_owned(), bytes, phase },
            ));
        }
        for (after, party) in self.0.iter().zip(POSTING) {
            let posted: Vec<Posted> = network.admin(party).read(&format!("/parcels?after={after}")).await?;
            for posted in posted {
                let order = KINDS
                    .iter()
                    .position(|kind| format!("{kind:?}") == posted.kind)
                    .map_or(u64::MAX, |at| KINDS[at] as u64);
                let to = network.owner_of(&posted.to).to_owned();
                messages.push((
                    order,
                    Message { name: posted.kind, from: party.to_owned(), to, bytes: posted.size_bytes, phase },
                ));
            }
        }
        messages.sort_by_key(|(order, _)| *order);
        Ok(messages.into_iter().map(|(_, message)| message).collect())
    }
}

/// Every kind of message, in the order of the protocol.
const KINDS: [Kind; 18] = [
    Kind::Registration,
    Kind::RegistrationAnswer,
    Kind::Login,
    Kind::LoginAnswer,
    Kind::Delegation,
    Kind::ProofAnswer,
    Kind::Presentation,
    Kind::TransferRequest,
    Kind::Redeem,
    Kind::Grant,
    Kind::Manifest,
    Kind::KeyLodgement,
    Kind::DeliveryReceipt,
    Kind::KeyRelease,
    Kind::ImportReceipt,
    Kind::CaseStatement,
    Kind::Revocation,
    Kind::Refusal,
];
