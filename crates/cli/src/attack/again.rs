//! Attacks on what was said before: evidence that was altered.

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::destination::RevealedKey;
use waybill_protocol::evidence::Evidence;

use super::hands::{Case, Patient};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, Scene};
use crate::demo::network::HOSPITAL_A;
use crate::failure::Failure;
use crate::verify::{judge_bytes, read_root};

const A: &str = "hospital-a";
const B: &str = "hospital-b";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[Attack {
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
}];

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
    Ok(Finding::new(seen.collect(), None, twin, "the unaltered evidence holds and blames nobody"))
}
