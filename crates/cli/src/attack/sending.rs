//! Attacks by A: a source that sends other things, another key, or to other people than was agreed.

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::evidence::Evidence;
use waybill_protocol::signed::Signed;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::asking::narrow;
use super::hands::source::{Asked, lodgement, pack_lodgement, record_key};
use super::hands::{Patient, Shipment, Source};
use super::outcome::{Attack, Finding, Measured, Seen, Try};
use super::scene::{OrFail as _, Scene};
use crate::demo::network::HOSPITAL_A;
use crate::failure::Failure;
use crate::hospital;
use crate::verify::{judge_bytes, read_root};

const B: &str = "hospital-b";
const AUTHORITY: &str = "authority";
const TWIN: &str = "the same hand-made shipment, unaltered, is filed";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "extra-resource",
        what: "A sends one resource outside the consented scope",
        attacker: "hospital A with its own keys",
        stopped_by: "B decides the scope again from each resource's own bytes (6.2, filing)",
        tries: &[Try::new("one resource more than the scope", B, "out-of-scope")],
        run: |scene| extra_resource(scene).boxed_local(),
    },
    Attack {
        name: "another-patients-resource",
        what: "A mixes a resource about somebody else into the record",
        attacker: "hospital A with its own keys",
        stopped_by: "B reads from each resource whom it is about (6.2, filing)",
        tries: &[
            Try::new("another patient's observation", B, "wrong-patient"),
            Try::new("another patient's whole record", B, "wrong-patient"),
        ],
        run: |scene| another_patient(scene).boxed_local(),
    },
    Attack {
        name: "wrong-content",
        what: "what arrives is not what the signed manifest describes",
        attacker: "hospital A with its own keys",
        stopped_by: "inventory, digest and Merkle root of the manifest (3.6, 3.7; 6.2)",
        tries: &[
            Try::new("a digest of other resources", B, "digest-mismatch"),
            Try::new("an inventory with one resource fewer", B, "digest-mismatch"),
            Try::new("a chunk list that does not lead to the root", B, "manifest-invalid"),
        ],
        run: |scene| wrong_content(scene).boxed_local(),
    },
    Attack {
        name: "wrong-key",
        what: "A lodges another key than the manifest commits to, and takes the receipt for it",
        attacker: "hospital A with its own keys",
        stopped_by: "the key commitment (3.6); the revealed one-time key convicts the source (10)",
        tries: &[
            Try::new("a key that is not the manifest's", B, "wrong-key-lodged"),
            Try::new("who lied, from the evidence alone", "verify", "blames-source"),
        ],
        run: |scene| wrong_key(scene).boxed_local(),
    },
    Attack {
        name: "two-key-ciphertext",
        what: "a ciphertext that opens under two keys: one is committed to, the other lodged",
        attacker: "hospital A with its own keys",
        stopped_by: "the key commitment, which AES-GCM alone does not give (3.6)",
        tries: &[Try::new("the second key of the ciphertext", B, "wrong-key-lodged")],
        run: |scene| two_keys(scene).boxed_local(),
    },
    Attack {
        name: "lodgement-of-another-manifest",
        what: "A lodges a key for one manifest while B's receipt is for another",
        attacker: "hospital A with its own keys",
        stopped_by: "both must name one manifest (6.3)",
        tries: &[Try::new("lodgement and receipt name different manifests", AUTHORITY, "lodgement-mismatch")],
        run: |scene| other_manifest(scene).boxed_local(),
    },
    Attack {
        name: "unsigned-lodgement",
        what: "somebody else lodges a key in A's case",
        attacker: "whoever knows the case, and the authority's public lodgement key",
        stopped_by: "the lodgement is signed by the key that redeemed (6.3)",
        tries: &[
            Try::new("signed by another key", AUTHORITY, "lodgement-invalid"),
            Try::new("signed by another certificate of A's name", AUTHORITY, "lodgement-invalid"),
            Try::new("for another session", AUTHORITY, "attempt-invalid"),
        ],
        run: |scene| unsigned_lodgement(scene).boxed_local(),
    },
];

/// A patient whose case B has requested, and A in our hands with the proof redeemed.
pub(super) async fn set(scene: &mut Scene, scope: Scope) -> Result<(Patient, Source, Asked), Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate(scene, scope, Hides::default()).await?;
    let mut a = Source::take(scene).await?;
    patient.present(scene, &case).await?;
    let asked = a.begin(scene, case.id()).await?;
    Ok((patient, a, asked))
}

/// A further case of a patient, when A is in our hands already: only A's login needs its process.
async fn again(scene: &mut Scene, a: &mut Source, patient: &Patient, scope: Scope) -> Result<Asked, Failure> {
    // What was sent to these hands is not for the honest process.
    a.mailbox.empty(scene).await?;
    scene.servant("hospital-a").restart()?;
    let case = patient.delegate(scene, scope, Hides::default()).await?;
    scene.servant("hospital-a").kill()?;
    patient.present(scene, &case).await?;
    a.begin(scene, case.id()).await
}

/// What B makes of a shipment: the code of its case row once the case is over.
async fn outcome(scene: &Scene, asked: &Asked) -> Result<Seen, Failure> {
    let over = |view: &crate::demo::watch::CaseView| {
        view.ended.is_some() || ["rejected", "closed"].contains(&view.state.as_str())
    };
    let view = scene.case(B, &asked.proof, over).await?.or_fail("B knows no such case")?;
    Ok(match view.code {
        Some(code) => Seen::refused(B, code, "case row"),
        None => Seen::Passed(format!("B's case is {} ({:?})", view.state, view.ended)),
    })
}

/// Bytes in the chart of B's local patient that came from A.
pub(super) async fn filed_bytes(scene: &Scene, patient: &Patient) -> Result<u64, Failure> {
    let out = tempfile::tempdir().or_fail("no temporary folder")?;
    let file = out.path().join("chart");
    hospital::export(&scene.network.admin(B), &patient.sample.at_b, Some(HOSPITAL_A), &file).await?;
    Ok(std::fs::metadata(&file).or_fail("no export")?.len())
}

/// What was filed by the attack, and what lies in the chart of the twin's patient after the twin.
///
/// # Errors
/// [`Failure`].
pub(super) async fn measured(scene: &Scene, stolen: u64, twin: &Patient) -> Result<Measured, Failure> {
    Ok(Measured { stolen, control: filed_bytes(scene, twin).await? })
}

/// The unattacked twin: the shipment as it is, shipped by the same hands.
async fn twin(
    scene: &mut Scene,
    a: &mut Source,
    patient: &Patient,
    scope: Scope,
    lines: &[Vec<u8>],
) -> Result<bool, Failure> {
    let asked = again(scene, a, patient, scope).await?;
    a.ship(scene, &asked, &Shipment::of(&asked, lines)?).await?;
    let view = scene.case(B, &asked.proof, |view| view.ended.is_some()).await?;
    Ok(view.and_then(|view| view.ended).as_deref() == Some("filed") && filed_bytes(scene, patient).await? > 0)
}

fn of_types(lines: &[Vec<u8>], names: &[&str]) -> Vec<Vec<u8>> {
    let is = |line: &[u8]| {
        names.iter().any(|name| {
            let word = format!("\"resourceType\":\"{name}\"");
            super::scene::occurrences(line, word.as_bytes()) > 0
        })
    };
    lines.iter().filter(|line| is(line)).cloned().collect()
}

async fn extra_resource(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, mut a, asked) = set(scene, narrow()).await?;
    let inside = of_types(&patient.sample.lines, &["Patient", "AllergyIntolerance"]);
    let mut lines = inside.clone();
    lines.extend(of_types(&patient.sample.lines, &["Observation"]).into_iter().take(1));
    a.ship(scene, &asked, &Shipment::of(&asked, &lines)?).await?;
    let seen = vec![outcome(scene, &asked).await?];
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, narrow(), &inside).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn another_patient(scene: &mut Scene) -> Result<Finding, Failure> {
    let other = Patient::register(scene).await?;
    let (patient, mut a, asked) = set(scene, Scope::full()).await?;
    let mut mixed = patient.sample.lines.clone();
    mixed.extend(of_types(&other.sample.lines, &["Observation"]).into_iter().take(1));
    a.ship(scene, &asked, &Shipment::of(&asked, &mixed)?).await?;
    let mut seen = vec![outcome(scene, &asked).await?];
    let asked = again(scene, &mut a, &patient, Scope::full()).await?;
    a.ship(scene, &asked, &Shipment::of(&asked, &other.sample.lines)?).await?;
    seen.push(outcome(scene, &asked).await?);
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, Scope::full(), &patient.sample.lines).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn wrong_content(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, mut a, mut asked) = set(scene, Scope::full()).await?;
    let lines = patient.sample.lines.clone();
    let mut seen = Vec::new();
    for number in 0..3 {
        if number > 0 {
            asked = again(scene, &mut a, &patient, Scope::full()).await?;
        }
        let mut shipment = Shipment::of(&asked, &lines)?;
        let fewer = Shipment::of(&asked, &lines[1..])?;
        match number {
            0 => shipment.manifest.digest_scope = fewer.manifest.digest_scope,
            1 => shipment.manifest.inventory = fewer.manifest.inventory,
            _ => shipment.manifest.merkle_root = fewer.manifest.merkle_root,
        }
        a.ship(scene, &asked, &shipment).await?;
        seen.push(outcome(scene, &asked).await?);
    }
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, Scope::full(), &lines).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

/// Whom B's own evidence of a case convicts.
async fn liar(scene: &Scene, asked: &Asked) -> Result<Seen, Failure> {
    let path = format!("/cases/{}/evidence", asked.proof);
    let bytes = scene.network.admin(B).read_bytes(&path).await?;
    Evidence::parse(&bytes).or_fail("B's evidence does not parse")?;
    let verdict = judge_bytes(&bytes, &read_root(&scene.network.root())?, Some(&scene.network.policy()?));
    Ok(match (verdict.holds, verdict.liar.as_deref()) {
        (true, Some(HOSPITAL_A)) => Seen::refused("verify", "blames-source", "evidence verdict"),
        (true, Some(other)) => Seen::refused("verify", format!("blames {other}"), "evidence verdict"),
        (_, liar) => Seen::Passed(format!("the verdict is {:?}, liar {liar:?}", verdict.failed_check)),
    })
}

async fn wrong_key(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, mut a, asked) = set(scene, Scope::full()).await?;
    let shipment = Shipment::of(&asked, &patient.sample.lines)?;
    let hm = a.send(scene, &asked, &shipment).await?;
    a.lodge(scene, &asked, hm, &record_key()).await?;
    let mut seen = vec![outcome(scene, &asked).await?];
    scene.case(B, &asked.proof, |view| view.ended.is_some()).await?;
    seen.push(liar(scene, &asked).await?);
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, Scope::full(), &patient.sample.lines).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn two_keys(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, mut a, asked) = set(scene, Scope::full()).await?;
    let mut shipment = Shipment::of(&asked, &patient.sample.lines)?;
    let second = record_key();
    let chunk = super::collide::two_key_chunk(&shipment.key, &second, &asked.session)?;
    shipment.chunks = vec![chunk];
    shipment.manifest.stream_bytes = super::collide::PLAIN_BYTES;
    shipment.manifest.chunk_count = 1;
    super::hands::source::list_chunks(&mut shipment.manifest, &shipment.chunks);
    let hm = a.send(scene, &asked, &shipment).await?;
    a.lodge(scene, &asked, hm, &second).await?;
    let seen = vec![outcome(scene, &asked).await?];
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, Scope::full(), &patient.sample.lines).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn other_manifest(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, mut a, asked) = set(scene, Scope::full()).await?;
    let shipment = Shipment::of(&asked, &patient.sample.lines)?;
    let other = Shipment::of(&asked, &patient.sample.lines[1..])?;
    let mark = scene.mark(AUTHORITY);
    a.send(scene, &asked, &shipment).await?;
    // Signed by A in order, but for a manifest that B never saw.
    let (hm, _) = super::hands::source::pack_manifest(other.manifest, &a.identity.signing, &a.identity.chain, &asked)?;
    a.lodge(scene, &asked, hm, &shipment.key).await?;
    let seen = vec![scene.seen(AUTHORITY, mark).await];
    let stolen = filed_bytes(scene, &patient).await?;
    let twin = twin(scene, &mut a, &patient, Scope::full(), &patient.sample.lines).await?;
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn unsigned_lodgement(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, a, asked) = set(scene, Scope::full()).await?;
    let shipment = Shipment::of(&asked, &patient.sample.lines)?;
    let hm = a.send(scene, &asked, &shipment).await?;
    let (impostor, _) = super::hands::Authority::take(scene)?.impostor(HOSPITAL_A)?;
    let said = lodgement(&asked, hm, &record_key())?;
    let mut seen = Vec::new();
    for key in [Native.generate_signing_key(), impostor] {
        let signed = Signed::sign(&Native, &key, said.clone());
        seen.push(lodge(scene, &asked, signed.bytes()).await?);
    }
    let mut elsewhere = said;
    elsewhere.session = waybill_protocol::ids::SessionId(waybill_crypto::keys::Digest([1; 32]));
    let signed = Signed::sign(&Native, &a.identity.signing, elsewhere);
    seen.push(lodge(scene, &asked, signed.bytes()).await?);
    let stolen = filed_bytes(scene, &patient).await?;
    // None of them has kept the genuine lodgement from its place.
    a.lodge(scene, &asked, hm, &shipment.key).await?;
    let view = scene.case(B, &asked.proof, |view| view.ended.is_some()).await?;
    let twin = view.and_then(|view| view.ended).as_deref() == Some("filed");
    Ok(Finding::new(seen, measured(scene, stolen, &patient).await?, twin, TWIN))
}

async fn lodge(scene: &Scene, asked: &Asked, signed: &[u8]) -> Result<Seen, Failure> {
    scene.try_post(AUTHORITY, pack_lodgement(scene, asked.proof, signed).await?).await
}
