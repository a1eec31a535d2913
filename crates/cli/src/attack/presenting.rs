//! Attacks on B, and on both hospitals at once: records that B never asked for, from a source the patient never named, or of another
//! patient.

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::Digest;
use waybill_crypto::native::Native;
use waybill_protocol::ids::{ProofId, SessionId};
use waybill_protocol::messages::Presentation;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::asking::narrow;
use super::hands::authority::nonce;
use super::hands::patient::{pack_presentation, seal_consent};
use super::hands::source::{Asked, pack_manifest, seal_manifest};
use super::hands::{Ask, Authority, Case, Destination, Patient, Shipment, Source, opening};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, Scene, id};
use super::sending::{filed_bytes, measured};
use crate::demo::network::{HOSPITAL_A, HOSPITAL_B};
use crate::failure::Failure;

const A: &str = "hospital-a";
const B: &str = "hospital-b";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "no-presentation",
        what: "A sends B a record that no patient presented a proof for",
        attacker: "hospital A with its own keys",
        stopped_by: "a case at B is opened by a presentation and by nothing else (6.2)",
        tries: &[
            Try::new("a manifest for a session that B never opened", B, "unknown-case"),
            Try::new("a presentation that A signed itself", B, "patient-unknown"),
        ],
        run: |scene| no_presentation(scene).boxed_local(),
    },
    Attack {
        name: "source-key-not-pinned",
        what: "a false record in a genuine case, signed by a key that is certified under A's name",
        attacker: "the authority with its issuing key",
        stopped_by: "A's keys in the presentation, learned by the wallet from A itself (6.2)",
        tries: &[
            Try::new("a manifest signed by another certificate of A's name", B, "manifest-invalid"),
            Try::new("a manifest of A's signed under its real key, with the false certificate", B, "manifest-invalid"),
        ],
        run: |scene| source_key(scene).boxed_local(),
    },
    Attack {
        name: "resealed-manifest",
        what: "one patient's record sealed again into another patient's case",
        attacker: "whoever learned one session's key, and hospital A",
        stopped_by: "pf and tr in the signed manifest (6.2)",
        tries: &[
            Try::new("P's signed manifest in Q's session", B, "manifest-invalid"),
            Try::new("the same with Q's proof and P's session in it", B, "manifest-invalid"),
            Try::new("the same with P's proof and Q's session in it", B, "manifest-invalid"),
        ],
        run: |scene| resealed(scene).boxed_local(),
    },
    Attack {
        name: "trapdoor-commitment",
        what: "one scope is shown to A and another to B",
        attacker: "a dishonest patient",
        stopped_by: "com_S opens one way only, at both hospitals (3.4; 6.1, 13; 6.2, 6)",
        tries: &[
            Try::new("a wider scope at B", B, "commitment-mismatch"),
            Try::new("a wider scope at A", A, "commitment-mismatch"),
        ],
        run: |scene| trapdoor(scene).boxed_local(),
    },
    Attack {
        name: "swapped-patients",
        what: "the messages of two patients with cases at the same time, swapped field by field",
        attacker: "hospital B, and each patient with the other's values",
        stopped_by: "pf, commitments, pairwise keys and the identity claim (6.1, 4 to 14; 6.2, 2 to 7)",
        tries: &[
            Try::new("at B: Q's pseudonym in P's presentation", B, "consent-signature-invalid"),
            Try::new("at B: Q's opening of the pseudonym", B, "commitment-mismatch"),
            Try::new("at B: Q's opening of the scope", B, "commitment-mismatch"),
            Try::new("at B: Q's proof named in P's presentation", B, "presentation-invalid"),
            Try::new("at B: Q's proof beside P's presentation", B, "presentation-invalid"),
            Try::new("at B: Q's consent beside P's presentation", B, "presentation-invalid"),
            Try::new("at B: P's presentation signed by Q", B, "consent-signature-invalid"),
            Try::new("at A: Q's proof beside P's request", A, "proof-invalid"),
            Try::new("at A: P's consent under Q's proof", A, "consent-for-other"),
            Try::new("at A: Q's consent under P's proof", A, "consent-for-other"),
            Try::new("at A: Q's person in the identity claim", A, "identity-mismatch"),
            Try::new("at A: Q's pseudonym in P's consent", A, "commitment-mismatch"),
            Try::new("at A: Q's opening of the pseudonym", A, "commitment-mismatch"),
            Try::new("at A: Q's opening of the scope", A, "commitment-mismatch"),
            Try::new("at A: Q's opening of the hides", A, "commitment-mismatch"),
            Try::new("at A: P's consent signed by Q", A, "consent-signature-invalid"),
        ],
        run: |scene| swapped(scene).boxed_local(),
    },
];

/// A request that nobody made.
fn invented(like: &Asked) -> Asked {
    let mut request = like.request.clone();
    request.session_key = *Native.generate_hpke_key().public();
    request.nonce = nonce();
    let random = || Digest(opening().0);
    Asked { proof: ProofId(random()), session: SessionId(random()), request, body: like.body.clone() }
}

async fn no_presentation(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, a, asked) = super::sending::set(scene, Scope::full()).await?;
    let never = invented(&asked);
    let shipment = Shipment::of(&never, &patient.sample.lines)?;
    let (_, parcel) = pack_manifest(shipment.manifest, &a.identity.signing, &a.identity.chain, &never)?;
    let mut seen = vec![scene.try_post(B, parcel).await?];
    // A knows no pseudonym of B's: it makes one up, and signs with its own key.
    let authority = Authority::take(scene)?;
    let mut minted = patient.draft(Scope::full(), Hides::default());
    minted.bundle =
        Some(authority.prove(minted.terms.clone(), waybill_protocol::ids::MessageId(Digest([5; 32])), true));
    let consent = seal_consent(patient.consent(&minted), &a.identity.signing, &patient.a)?;
    let mut presentation = patient.presentation(&minted, consent.digest());
    presentation.pid = waybill_crypto::pseudonym::Pseudonym(opening().0);
    let parcel = pack_presentation(presentation, &a.identity.signing, &patient.b, minted.proof(), &consent)?;
    seen.push(scene.try_post(B, parcel).await?);
    let stolen = filed_bytes(scene, &patient).await?;
    a.ship(scene, &asked, &Shipment::of(&asked, &patient.sample.lines)?).await?;
    let view = scene.case(B, &asked.proof, |view| view.ended.is_some()).await?;
    let twin = view.and_then(|view| view.ended).as_deref() == Some("filed");
    let read = measured(scene, stolen, &patient).await?;
    Ok(Finding::new(seen, read, twin, "the presented case is filed"))
}

async fn source_key(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate_all(scene).await?;
    let mut a = Source::take(scene).await?;
    patient.present(scene, &case).await?;
    let asked = a.asked(scene, case.id()).await?;
    let (impostor, chain) = Authority::take(scene)?.impostor(HOSPITAL_A)?;
    let shipment = Shipment::of(&asked, &patient.sample.lines[..1])?;
    let mut seen = Vec::new();
    for key in [&impostor, &a.identity.signing] {
        let (_, parcel) = pack_manifest(shipment.manifest.clone(), key, &chain, &asked)?;
        seen.push(scene.try_post(B, parcel).await?);
    }
    let stolen = filed_bytes(scene, &patient).await?;
    scene.servant(A).restart()?;
    let twin = scene.is_filed(&case.id()).await?;
    let read = measured(scene, stolen, &patient).await?;
    Ok(Finding::new(seen, read, twin, "A itself answers, and its record is filed"))
}

async fn resealed(scene: &mut Scene) -> Result<Finding, Failure> {
    let (p, q) = (Patient::register(scene).await?, Patient::register(scene).await?);
    let (case_p, case_q) = (p.delegate_all(scene).await?, q.delegate_all(scene).await?);
    let mut a = Source::take(scene).await?;
    p.present(scene, &case_p).await?;
    let asked_p = a.begin(scene, case_p.id()).await?;
    q.present(scene, &case_q).await?;
    let asked_q = a.asked(scene, case_q.id()).await?;
    let shipment = Shipment::of(&asked_p, &p.sample.lines)?;
    let signed = waybill_protocol::signed::Signed::sign(&Native, &a.identity.signing, shipment.manifest.clone());
    let chain = a.identity.chain.clone();
    let parcel = seal_manifest(waybill_protocol::signed::SignedBytes::from(&signed), &chain, &asked_q)?;
    let mut seen = vec![scene.try_post(B, parcel).await?];
    for (proof, session) in [(asked_q.proof, asked_p.session), (asked_p.proof, asked_q.session)] {
        let mut manifest = shipment.manifest.clone();
        (manifest.proof, manifest.session) = (proof, session);
        let (_, parcel) = pack_manifest(manifest, &a.identity.signing, &chain, &asked_q)?;
        seen.push(scene.try_post(B, parcel).await?);
    }
    a.ship(scene, &asked_p, &shipment).await?;
    let view = scene.case(B, &case_p.id(), |view| view.ended.is_some()).await?;
    let twin = view.and_then(|view| view.ended).as_deref() == Some("filed");
    // P's record would lie in Q's chart.
    let read = measured(scene, filed_bytes(scene, &q).await?, &p).await?;
    Ok(Finding::new(seen, read, twin, "the same manifest in its own session is filed"))
}

async fn trapdoor(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate(scene, narrow(), Hides::default()).await?;
    let consent = patient.seal_consent(patient.consent(&case))?;
    let mut wide = patient.presentation(&case, consent.digest());
    wide.scope = Scope::full();
    let parcel = patient.pack_presentation(wide, case.proof(), &consent)?;
    let mut seen = vec![scene.try_post(B, parcel).await?];
    let mut b = Destination::take(scene).await?;
    let mut wide = patient.consent(&case);
    wide.scope = Scope::full();
    let mut ask = Ask::honest(&b, &patient, &case)?;
    ask.show_consent(patient.seal_consent(wide)?);
    seen.push(b.try_ask(scene, ask).await?);
    scene.servant(B).restart()?;
    patient.present(scene, &case).await?;
    let twin = scene.is_filed(&case.id()).await?;
    let read = measured(scene, b.measured().stolen, &patient).await?;
    Ok(Finding::new(seen, read, twin, "one scope at both hospitals is filed"))
}

/// P's presentation with something of Q's in it, signed by P or by Q.
async fn at_b(
    scene: &Scene,
    (p, case_p): (&Patient, &Case),
    (q, case_q): (&Patient, &Case),
) -> Result<Vec<Seen>, Failure> {
    let (key_p, key_q) = (p.consent_key(&id(HOSPITAL_B)), q.consent_key(&id(HOSPITAL_B)));
    let consent_p = p.seal_consent(p.consent(case_p))?;
    let consent_q = q.seal_consent(q.consent(case_q))?;
    let honest = p.presentation(case_p, consent_p.digest());
    let other = q.presentation(case_q, consent_q.digest());
    let with = |alter: &dyn Fn(&mut Presentation)| {
        let mut presentation = honest.clone();
        alter(&mut presentation);
        presentation
    };
    let swapped = [
        (with(&|said| said.pid = other.pid), &key_p, case_p, &consent_p),
        (with(&|said| said.pid_opening = other.pid_opening.clone()), &key_p, case_p, &consent_p),
        (with(&|said| said.scope_opening = other.scope_opening.clone()), &key_p, case_p, &consent_p),
        (with(&|said| said.proof = other.proof), &key_p, case_p, &consent_p),
        (honest.clone(), &key_p, case_q, &consent_p),
        (honest.clone(), &key_p, case_p, &consent_q),
        (honest.clone(), &key_q, case_p, &consent_p),
    ];
    let mut seen = Vec::new();
    for (presentation, key, case, consent) in swapped {
        let parcel = pack_presentation(presentation, key, &p.b, case.proof(), consent)?;
        seen.push(scene.try_post(B, parcel).await?);
    }
    Ok(seen)
}

/// P's request with something of Q's in it.
async fn at_a(
    scene: &Scene,
    b: &mut Destination,
    (p, case_p): (&Patient, &Case),
    (q, case_q): (&Patient, &Case),
) -> Result<Vec<Seen>, Failure> {
    let consent_q = q.seal_consent(q.consent(case_q))?;
    let mut asks = Vec::new();
    asks.push(Ask { proof: case_q.proof().clone(), ..Ask::honest(b, p, case_p)? });
    asks.push(Ask { proof: case_q.proof().clone(), proof_id: case_q.id(), ..Ask::honest(b, p, case_p)? });
    let mut ask = Ask::honest(b, p, case_p)?;
    ask.show_consent(consent_q);
    asks.push(ask);
    asks.push(Ask { claim: q.sample.demographics.clone(), ..Ask::honest(b, p, case_p)? });
    let (honest, other) = (p.consent(case_p), q.consent(case_q));
    for field in 0..4 {
        let mut consent = honest.clone();
        match field {
            0 => consent.pid = other.pid,
            1 => consent.pid_opening = other.pid_opening.clone(),
            2 => consent.scope_opening = other.scope_opening.clone(),
            _ => consent.hides_opening = other.hides_opening.clone(),
        }
        let mut ask = Ask::honest(b, p, case_p)?;
        ask.show_consent(p.seal_consent(consent)?);
        asks.push(ask);
    }
    let mut ask = Ask::honest(b, p, case_p)?;
    ask.show_consent(seal_consent(honest, &q.consent_key(&id(HOSPITAL_A)), &p.a)?);
    asks.push(ask);
    let mut seen = Vec::new();
    for ask in asks {
        seen.push(b.try_ask(scene, ask).await?);
    }
    Ok(seen)
}

async fn swapped(scene: &mut Scene) -> Result<Finding, Failure> {
    let (p, q) = (Patient::register(scene).await?, Patient::register(scene).await?);
    let (case_p, case_q) = (p.delegate_all(scene).await?, q.delegate_all(scene).await?);
    let mut seen = at_b(scene, (&p, &case_p), (&q, &case_q)).await?;
    let mut b = Destination::take(scene).await?;
    seen.extend(at_a(scene, &mut b, (&p, &case_p), (&q, &case_q)).await?);
    scene.servant(B).restart().or_fail("B does not start again")?;
    let stolen = b.measured().stolen + filed_bytes(scene, &p).await? + filed_bytes(scene, &q).await?;
    p.present(scene, &case_p).await?;
    q.present(scene, &case_q).await?;
    let twin = scene.is_filed(&case_p.id()).await? && scene.is_filed(&case_q.id()).await?;
    let read = measured(scene, stolen, &p).await?;
    Ok(Finding::new(seen, read, twin, "both patients' own messages are filed"))
}
