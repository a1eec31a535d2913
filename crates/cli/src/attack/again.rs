//! Attacks with what was said before: every message of a migration posted again, and evidence that was altered.

use futures::FutureExt as _;
use serde_json::Value;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::destination::RevealedKey;
use waybill_protocol::evidence::Evidence;
use waybill_protocol::messages::DeliveryBody;
use waybill_protocol::wire::{Kind, Parcel};

use super::hands::{Case, Patient};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, Scene};
use crate::demo::network::HOSPITAL_A;
use crate::failure::Failure;
use crate::hospital;
use crate::verify::{judge_bytes, read_root};

const A: &str = "hospital-a";
const B: &str = "hospital-b";
const AUTHORITY: &str = "authority";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "replayed-messages",
        what: "every message of an honest migration is posted again to its recipient: after its end, while the next case is open \
               and waits, and after that one's end",
        attacker: "the relay, which kept every parcel",
        stopped_by: "rows keyed by proof and session, ends that stand, single use at A and at the authority (6, 8)",
        tries: &[
            Try::new("after the end of its own case", "network", "nothing-changed"),
            Try::new("while another case of the same patient is being redeemed", "network", "nothing-changed"),
            Try::new("after the end of that case", "network", "nothing-changed"),
        ],
        run: |scene| replayed(scene).boxed_local(),
    },
    Attack {
        name: "altered-evidence",
        what: "the evidence of an honest case is altered so that it might blame the source",
        attacker: "hospital B, or whoever holds the file",
        stopped_by: "an accusation needs the source's own signature under both manifest and lodgement (10)",
        tries: &[
            Try::new("a one-time key that is made up", "verify", "not-blamed"),
            Try::new("another case's manifest", "verify", "not-blamed"),
            Try::new("another case's release with its lodgement", "verify", "not-blamed"),
            Try::new("another case's request", "verify", "not-blamed"),
            Try::new("without the source's key", "verify", "not-blamed"),
            Try::new("every 97th byte changed, one at a time", "verify", "not-blamed"),
        ],
        run: |scene| altered(scene).boxed_local(),
    },
];

/// Everything posted in a case, as its parties hold it, with the recipient of each parcel.
async fn recorded(scene: &mut Scene, patient: &Patient, case: &Case) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let evidence = |party: &'static str| {
        let admin = scene.network.admin(party);
        let path = format!("/cases/{}/evidence", case.id());
        async move { Evidence::parse(&admin.read_bytes(&path).await?).or_fail("evidence does not parse") }
    };
    let (at_a, at_b) = (evidence(A).await?, evidence(B).await?);
    let consent = at_b.request.as_ref().or_fail("no request")?.consent.clone();
    let mut parcels = vec![
        (AUTHORITY, Parcel::pack(Kind::Delegation, case.body.as_ref().or_fail("no delegation")?)),
        (B, patient.pack_presentation(patient.presentation(case, consent.digest()), case.proof(), &consent)?),
        (A, Parcel::pack(Kind::TransferRequest, at_b.request.as_ref().or_fail("no request")?)),
        (A, Parcel::pack(Kind::Grant, at_a.grant.as_ref().or_fail("no grant")?)),
        (B, Parcel::pack(Kind::KeyRelease, at_b.release.as_ref().or_fail("no release")?)),
    ];
    let delivery = at_b.delivery.clone().or_fail("no receipt for the ciphertext")?;
    let chain = scene.chain(B)?;
    parcels.push((AUTHORITY, Parcel::pack(Kind::DeliveryReceipt, &DeliveryBody { delivery, chain })));
    for (party, file) in [(A, &at_a), (B, &at_b)] {
        let statement = file.statement.as_ref().or_fail("no statement")?;
        parcels.push((party, Parcel::pack(Kind::CaseStatement, statement)));
        if let Some(receipt) = &statement.receipt {
            parcels.push((AUTHORITY, Parcel::pack(Kind::ImportReceipt, receipt)));
        }
    }
    parcels.extend(from_store(scene, case).await?);
    Ok(parcels)
}

/// What only A's store still has byte for byte: the manifest as it was posted, and the redemption and lodgement made of its rows.
async fn from_store(scene: &mut Scene, case: &Case) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    scene.servant(A).kill()?;
    let row = super::deciding::source_case(&scene.folder(A), case).await?;
    scene.servant(A).restart()?;
    let identity = super::hands::identity(scene, A)?;
    let trust = scene.trust().await?;
    let source = waybill_protocol::source::Source { ctx: scene.ctx(), hospital: &identity, trust: &trust };
    let redeem = match source.redeem(&row) {
        waybill_protocol::migration::Effect::Post(post) => post.parcel,
        _ => return Err(Failure::failed("a redemption is a parcel")),
    };
    let lodgement = row.lodgement.as_ref().or_fail("no lodgement")?;
    let lodgement = super::hands::source::pack_lodgement(scene, case.id(), lodgement.as_bytes()).await?;
    let manifest = row.manifest_parcel.or_fail("no manifest")?.to_vec();
    Ok(vec![(AUTHORITY, redeem), (AUTHORITY, lodgement), (B, manifest)])
}

/// What a replay may not change: every case at both hospitals, the log, and B's chart.
#[derive(Debug, PartialEq)]
struct State {
    cases: Vec<Value>,
    log: String,
    chart: Vec<u8>,
}

impl State {
    async fn of(scene: &Scene, patient: &Patient) -> Result<Self, Failure> {
        let mut cases = Vec::new();
        for party in [A, B] {
            let admin = scene.network.admin(party);
            let list: Vec<Value> = admin.read("/cases").await?;
            for entry in list {
                let proof = entry["proof"].as_str().unwrap_or_default().to_owned();
                cases.push(admin.read(&format!("/cases/{proof}")).await?);
            }
        }
        let page = scene.page("/checkpoint").await.or_fail("no checkpoint")?;
        // Size and root; the cosignature's time may be another.
        let log = String::from_utf8_lossy(&page).lines().take(3).collect::<Vec<_>>().join("\n");
        let folder = tempfile::tempdir().or_fail("no temporary folder")?;
        let file = folder.path().join("chart");
        hospital::export(&scene.network.admin(B), &patient.sample.at_b, Some(HOSPITAL_A), &file).await?;
        Ok(Self { cases, log, chart: std::fs::read(&file).or_fail("no chart")? })
    }
}

/// Posts everything again and says whether anything is another afterwards.
async fn replay(scene: &Scene, patient: &Patient, parcels: &[(&'static str, Vec<u8>)]) -> Result<Seen, Failure> {
    let before = State::of(scene, patient).await?;
    for (party, parcel) in parcels {
        scene.post(&scene.address(party)?, parcel.clone()).await?;
    }
    // Each party handles its letters in order: once it has refused one posted after them all, it has handled them.
    for party in [A, B, AUTHORITY] {
        let mark = scene.mark(party);
        scene.post(&scene.address(party)?, vec![0xff; 3]).await?;
        let until = std::time::Instant::now() + super::scene::PATIENCE;
        while !scene.refusals(party, mark).contains(&waybill_protocol::rejection::Code::Malformed) {
            if std::time::Instant::now() >= until {
                return Err(Failure::failed(format!("{party} does not get through its letters")));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    // An answer that was sent again, or a step that was taken, would show by now.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let after = State::of(scene, patient).await?;
    Ok(if before == after {
        Seen::refused("network", "nothing-changed", "cases, log, chart")
    } else {
        Seen::Passed(format!(
            "cases same: {}, log same: {}, chart same: {}",
            before.cases == after.cases,
            before.log == after.log,
            before.chart == after.chart
        ))
    })
}

async fn replayed(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (case, filed) = patient.migrate(scene).await?;
    filed.then_some(()).or_fail("the first case was not filed")?;
    let parcels = recorded(scene, &patient, &case).await?;
    let mut seen = vec![replay(scene, &patient, &parcels).await?];
    let next = patient.delegate_all(scene).await?;
    scene.servant("witness").kill()?;
    patient.present(scene, &next).await?;
    scene.case(A, &next.id(), |view| view.state == "redeeming").await?;
    seen.push(replay(scene, &patient, &parcels).await?);
    scene.servant("witness").restart()?;
    let twin = scene.is_filed(&next.id()).await?;
    let mut all = recorded(scene, &patient, &next).await?;
    all.extend(parcels);
    seen.push(replay(scene, &patient, &all).await?);
    Ok(Finding::new(seen, 0, twin, "the next case is filed all the same"))
}

async fn evidence(scene: &Scene, case: &Case) -> Result<Evidence, Failure> {
    let mut parts = Vec::new();
    for party in [B, A] {
        let bytes = scene.network.admin(party).read_bytes(&format!("/cases/{}/evidence", case.id())).await?;
        parts.push(Evidence::parse(&bytes).or_fail("evidence does not parse")?);
    }
    let second = parts.pop().or_fail("two files were read")?;
    let mut first = parts.pop().or_fail("two files were read")?;
    first.merge(second);
    Ok(first)
}

async fn altered(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (case, one) = patient.migrate(scene).await?;
    let (other, two) = patient.migrate(scene).await?;
    let (honest, others) = (evidence(scene, &case).await?, evidence(scene, &other).await?);
    let (root, policy) = (read_root(&scene.network.root())?, scene.network.policy()?);
    let blamed = |bytes: &[u8]| judge_bytes(bytes, &root, Some(&policy)).liar.as_deref() == Some(HOSPITAL_A);
    let key = RevealedKey(*Native.generate_hpke_key().to_bytes());
    let with = |alter: &dyn Fn(&mut Evidence)| {
        let mut file = honest.clone();
        file.revealed_key = Some(key.clone());
        alter(&mut file);
        blamed(&file.to_bytes())
    };
    let mut blames = vec![
        with(&|_| {}),
        with(&|file| file.manifest = others.manifest.clone()),
        with(&|file| file.release = others.release.clone()),
        with(&|file| file.request = others.request.clone()),
        with(&|file| file.source = None),
    ];
    let mut accused = honest.clone();
    accused.revealed_key = Some(key.clone());
    let bytes = accused.to_bytes();
    let flipped = (0..bytes.len()).step_by(97).any(|at| {
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        blamed(&copy)
    });
    blames.push(flipped);
    let seen = blames.into_iter().map(|blames| {
        if blames {
            Seen::Passed("the source is blamed".to_owned())
        } else {
            Seen::refused("verify", "not-blamed", "evidence verdict")
        }
    });
    let verdict = judge_bytes(&honest.to_bytes(), &root, Some(&policy));
    let twin = one && two && verdict.holds && verdict.liar.is_none();
    Ok(Finding::new(seen.collect(), 0, twin, "the unaltered evidence holds and blames nobody"))
}
