//! Attacks on A: whoever asks for a record that the patient did not mean for them.

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::HospitalKeys;
use waybill_crypto::native::Native;
use waybill_protocol::messages::SUITE;
use waybill_protocol::sealed::SealPurpose;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::bytes::{flipped_algorithm, mirrored};
use super::hands::destination::size_bytes;
use super::hands::patient::{seal, seal_consent};
use super::hands::{Ask, Authority, Case, Destination, Heard, Patient, opening};
use super::outcome::{Attack, Finding, Measured, Seen, Try};
use super::scene::{OrFail as _, PATIENCE, Scene, id};
use crate::demo::network::{HOSPITAL_A, HOSPITAL_B};
use crate::failure::Failure;

const A: &str = "hospital-a";
/// What the twin of most attacks here does.
const TWIN: &str = "B's unaltered request brings exactly the delegated record";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "second-session",
        what: "B asks again under a proof that was spent on one session, with the next attempt's number and without",
        attacker: "hospital B with its own keys",
        stopped_by: "A's single-use row (6.1, 15) beside the authority's swap (6.3)",
        tries: &[
            Try::new("a second session under the same proof", A, "proof-spent"),
            Try::new("the same as a second attempt", A, "proof-spent"),
        ],
        run: |scene| second_session(scene).boxed_local(),
    },
    Attack {
        name: "wrong-hospital",
        what: "hospital C, certified and enrolled, shows B's proof and consent as its own",
        attacker: "hospital C with its own keys and B's messages",
        stopped_by: "the proof names its destination (6.1, 7), the consent pins its keys (6.1, 12)",
        tries: &[
            Try::new("C asks under its own name", A, "sender-wrong"),
            Try::new("C signs, the keys named are B's", A, "sender-wrong"),
        ],
        run: |scene| wrong_hospital(scene).boxed_local(),
    },
    Attack {
        name: "forged-hospital",
        what: "a malicious authority certifies keys of its own under B's name and asks for the record",
        attacker: "the authority with its issuing key, holding proof and consent",
        stopped_by: "thumb_B in the consent, learned by the wallet from B itself (6.1, 12)",
        tries: &[
            Try::new("false signing key under B's name", A, "destination-wrong"),
            Try::new("false signing and HPKE keys under B's name", A, "destination-wrong"),
            Try::new("B's real signing key with an HPKE key of the attacker's", A, "destination-wrong"),
        ],
        run: |scene| forged_hospital(scene).boxed_local(),
    },
    Attack {
        name: "no-destination-thumbprint",
        what: "the consent names no destination, or the attacker's, and the attacker is certified under B's name",
        attacker: "the authority with its issuing key, and a wallet that pins what the directory says",
        stopped_by: "the consent must name the thumb of the sender's keys (6.1, 12)",
        tries: &[Try::new("a consent with an empty thumbprint", A, "destination-wrong")],
        run: |scene| no_thumbprint(scene).boxed_local(),
    },
    Attack {
        name: "scope-widened",
        what: "a narrow scope was delegated, the consent that is shown opens a wider one",
        attacker: "a dishonest patient together with hospital B",
        stopped_by: "com_S in the proof (6.1, 13)",
        tries: &[
            Try::new("the whole record under the narrow scope's opening", A, "commitment-mismatch"),
            Try::new("the whole record under a fresh opening", A, "commitment-mismatch"),
        ],
        run: |scene| scope_widened(scene).boxed_local(),
    },
    Attack {
        name: "hidden-resource",
        what: "an item was hidden, the consent that is shown hides nothing",
        attacker: "hospital B together with whoever alters the consent",
        stopped_by: "com_H in the proof (6.1, 13); A itself keeps the hidden item back",
        tries: &[
            Try::new("hides emptied, signed by the patient's key", A, "commitment-mismatch"),
            Try::new("hides emptied, signed by nobody's key", A, "consent-signature-invalid"),
        ],
        run: |scene| hidden_resource(scene).boxed_local(),
    },
    Attack {
        name: "consent-of-another-proof",
        what: "the consent to one proof is shown with another proof of the same patient",
        attacker: "hospital B with two proofs and one consent",
        stopped_by: "pf in the signed consent (6.1, 9)",
        tries: &[
            Try::new("another proof's consent", A, "consent-for-other"),
            Try::new("a consent that names no proof", A, "consent-for-other"),
            Try::new("another consent than the signed request names", A, "consent-for-other"),
        ],
        run: |scene| consent_of_another(scene).boxed_local(),
    },
    Attack {
        name: "proof-without-consent",
        what: "a genuine proof of the malicious authority, without the patient's consent",
        attacker: "the authority with all its keys and its witness's, together with hospital B; it even knows the pseudonym",
        stopped_by: "the two-key rule: the consent signature under the key registered at A (6.1, 9 and 11)",
        tries: &[
            Try::new("no consent: random bytes", A, "consent-unreadable"),
            Try::new("a consent sealed to another key", A, "consent-unreadable"),
            Try::new("a consent signed by the attacker", A, "consent-signature-invalid"),
            Try::new("a consent for a pseudonym that nobody has", A, "patient-unknown"),
        ],
        run: |scene| without_consent(scene).boxed_local(),
    },
    Attack {
        name: "malleable-signature",
        what: "(r, n - s) instead of (r, s) in request, proof and consent",
        attacker: "the relay",
        stopped_by: "s must be in the lower half (3.2)",
        tries: &[
            Try::new("in the request", A, "signature-invalid"),
            Try::new("in the proof", A, "proof-invalid"),
            Try::new("in the consent", A, "consent-signature-invalid"),
        ],
        run: |scene| malleable(scene).boxed_local(),
    },
    Attack {
        name: "suite-or-usage",
        what: "another algorithm, another suite, a certificate for another use",
        attacker: "hospital B, and the authority with its proof-signing key",
        stopped_by: "one suite (3), one header (3.2), usages that never pass as another's (3.8)",
        tries: &[
            Try::new("another COSE algorithm in the request", A, "unknown-suite"),
            Try::new("another suite in the signed proof", A, "unknown-suite"),
            Try::new("signed with B's TLS certificate", A, "certificate-invalid"),
            Try::new("a chain without the issuing certificate", A, "certificate-invalid"),
        ],
        run: |scene| suite_or_usage(scene).boxed_local(),
    },
    Attack {
        name: "probing-for-patients",
        what: "asking A for people, to learn from the answers who is registered there",
        attacker: "hospital B with genuine proofs for pseudonyms of its choice",
        stopped_by: "one public code and one sealed code for all of them (9), one verification's time (6.1)",
        tries: &[Try::new("unknown person against known person with a bad consent: contents and lengths", A, "alike")],
        run: |scene| probing(scene).boxed_local(),
    },
];

/// A registered patient, a case, and B in our hands.
pub(crate) async fn set(scene: &mut Scene) -> Result<(Patient, Case, Destination), Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate_all(scene).await?;
    Ok((patient, case, Destination::take(scene).await?))
}

/// The unattacked twin: the same hand-made request, unaltered, brings exactly the record; gives its bytes.
pub(super) async fn twin(scene: &Scene, b: &mut Destination, patient: &Patient, case: &Case) -> Result<bool, Failure> {
    let (session, manifest) = b.ask(scene, Ask::honest(b, patient, case)?).await?;
    let record = b.read(scene, &session, &manifest).await?;
    let expected: u64 = patient.sample.lines.iter().map(|line| line.len() as u64).sum();
    Ok(size_bytes(&record) == expected)
}

async fn second_session(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let first = twin(scene, &mut b, &patient, &case).await?;
    let mut seen = Vec::new();
    for attempt in [1, 2] {
        let ask = Ask { attempt, ..Ask::honest(&b, &patient, &case)? };
        seen.push(b.try_ask(scene, ask).await?);
    }
    Ok(Finding::new(seen, b.measured(), first, TWIN))
}

async fn wrong_hospital(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let authority = Authority::take(scene)?;
    let name = "hospital-c.example";
    let (signing, chain) = authority.impostor(name)?;
    let entry = serde_json::json!({ "id": name, "mailbox": b.mailbox.url.to_string() });
    scene.network.admin("authority").post::<serde_json::Value>("/hospitals", &entry).await?;
    let own = HospitalKeys { signing: signing.public().clone(), hpke: *Native.generate_hpke_key().public() };
    let mut seen = Vec::new();
    for keys in [own, b.identity.keys()] {
        let ask = Ask { signing: signing.clone(), chain: chain.clone(), keys, ..Ask::honest(&b, &patient, &case)? };
        seen.push(b.try_ask(scene, ask).await?);
    }
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

async fn forged_hospital(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let (signing, chain) = Authority::take(scene)?.impostor(HOSPITAL_B)?;
    let false_hpke = *Native.generate_hpke_key().public();
    let real = b.identity.keys();
    let keys =
        |signing: &waybill_crypto::keys::SigningKey, hpke| HospitalKeys { signing: signing.public().clone(), hpke };
    let forged = [
        (signing.clone(), chain.clone(), keys(&signing, real.hpke)),
        (signing.clone(), chain, keys(&signing, false_hpke)),
        (b.identity.signing.clone(), b.identity.chain.clone(), keys(&b.identity.signing, false_hpke)),
    ];
    let mut seen = Vec::new();
    for (signing, chain, keys) in forged {
        let ask = Ask { signing, chain, keys, ..Ask::honest(&b, &patient, &case)? };
        seen.push(b.try_ask(scene, ask).await?);
    }
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

async fn no_thumbprint(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let (signing, chain) = Authority::take(scene)?.impostor(HOSPITAL_B)?;
    let keys = HospitalKeys { signing: signing.public().clone(), hpke: *Native.generate_hpke_key().public() };
    let mut consent = patient.consent(&case);
    consent.destination = waybill_crypto::keys::Thumb(waybill_crypto::keys::Digest([0; 32]));
    let mut ask = Ask { signing, chain, keys, ..Ask::honest(&b, &patient, &case)? };
    ask.show_consent(patient.seal_consent(consent)?);
    let seen = vec![b.try_ask(scene, ask).await?];
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

/// A scope that leaves most of the record at A.
pub(super) fn narrow() -> Scope {
    "types=Patient,AllergyIntolerance;labels=*".parse().expect("the scope is well formed")
}

async fn scope_widened(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate(scene, narrow(), Hides::default()).await?;
    let mut b = Destination::take(scene).await?;
    let mut seen = Vec::new();
    for scope_opening in [case.openings[2].clone(), opening()] {
        let mut consent = patient.consent(&case);
        (consent.scope, consent.scope_opening) = (Scope::full(), scope_opening);
        let mut ask = Ask::honest(&b, &patient, &case)?;
        ask.show_consent(patient.seal_consent(consent)?);
        seen.push(b.try_ask(scene, ask).await?);
    }
    let (session, manifest) = b.ask(scene, Ask::honest(&b, &patient, &case)?).await?;
    let record = b.read(scene, &session, &manifest).await?;
    let outside = record.iter().filter(|r| !["Patient", "AllergyIntolerance"].contains(&r.key.resource_type.as_str()));
    let outside: u64 = outside.map(|r| r.bytes.len() as u64).sum();
    let twin = outside == 0 && !record.is_empty() && record.len() < patient.sample.lines.len();
    let read = b.measured();
    let read = Measured { stolen: read.stolen + outside, ..read };
    Ok(Finding::new(seen, read, twin, "the narrow scope brings its own resources and no other"))
}

async fn hidden_resource(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let resources = super::hands::source::in_order(&patient.sample.lines)?;
    let hidden = resources.iter().map(waybill_record::resource::Resource::key);
    let hidden = hidden.filter(|key| key.resource_type.as_str() == "Observation").take(1).cloned();
    let hides = Hides::new(hidden).or_fail("no hides")?;
    let case = patient.delegate(scene, Scope::full(), hides.clone()).await?;
    let mut b = Destination::take(scene).await?;
    let mut emptied = patient.consent(&case);
    emptied.hides = Hides::default();
    let mut seen = Vec::new();
    for key in [patient.consent_key(&id(HOSPITAL_A)), Native.generate_signing_key()] {
        let mut ask = Ask::honest(&b, &patient, &case)?;
        ask.show_consent(seal_consent(emptied.clone(), &key, &patient.a)?);
        seen.push(b.try_ask(scene, ask).await?);
    }
    let (session, manifest) = b.ask(scene, Ask::honest(&b, &patient, &case)?).await?;
    let record = b.read(scene, &session, &manifest).await?;
    let leaked = record.iter().filter(|r| hides.contains(r.key.resource_type.as_str(), r.key.id.as_str()));
    let leaked: u64 = leaked.map(|r| r.bytes.len() as u64).sum();
    let twin = record.len() == patient.sample.lines.len() - 1;
    let read = b.measured();
    let read = Measured { stolen: read.stolen + leaked, ..read };
    Ok(Finding::new(seen, read, twin, "everything but the hidden item arrives"))
}

async fn consent_of_another(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (case, other) = (patient.delegate_all(scene).await?, patient.delegate_all(scene).await?);
    let mut b = Destination::take(scene).await?;
    let others = patient.seal_consent(patient.consent(&other))?;
    let mut unnamed = patient.consent(&case);
    unnamed.proof = waybill_protocol::ids::ProofId(waybill_crypto::keys::Digest([0; 32]));
    let mut seen = Vec::new();
    for consent in [others.clone(), patient.seal_consent(unnamed)?] {
        let mut ask = Ask::honest(&b, &patient, &case)?;
        ask.show_consent(consent);
        seen.push(b.try_ask(scene, ask).await?);
    }
    let swapped = Ask { consent: others, ..Ask::honest(&b, &patient, &case)? };
    seen.push(b.try_ask(scene, swapped).await?);
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

async fn without_consent(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, genuine, mut b) = set(scene).await?;
    let authority = Authority::take(scene)?;
    // The authority signs and logs a proof that no patient delegated; it knows the pseudonym and opens every commitment itself.
    let mut minted = patient.draft(Scope::full(), Hides::default());
    minted.bundle =
        Some(authority.prove(minted.terms.clone(), waybill_protocol::ids::MessageId(opening_digest()), true));
    let attacker = Native.generate_signing_key();
    let garbage = seal(&patient.a.keys.hpke, SealPurpose::Consent, HOSPITAL_A.as_bytes(), &[7; 300])?;
    let elsewhere = waybill_protocol::patient::Contact {
        keys: HospitalKeys { hpke: *Native.generate_hpke_key().public(), ..patient.a.keys.clone() },
        ..patient.a.clone()
    };
    let elsewhere = seal_consent(patient.consent(&minted), &attacker, &elsewhere)?;
    let forged = seal_consent(patient.consent(&minted), &attacker, &patient.a)?;
    let mut seen = Vec::new();
    for consent in [garbage, elsewhere, forged] {
        let mut ask = Ask::honest(&b, &patient, &minted)?;
        ask.show_consent(consent);
        seen.push(b.try_ask(scene, ask).await?);
    }
    let (nobody, consent) = stranger(&authority, &patient)?;
    let mut ask = Ask::honest(&b, &patient, &nobody)?;
    ask.show_consent(consent);
    seen.push(b.try_ask(scene, ask).await?);
    let twin = twin(scene, &mut b, &patient, &genuine).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

fn opening_digest() -> waybill_crypto::keys::Digest {
    waybill_crypto::keys::Digest(opening().0)
}

/// A minted proof and a consent for a pseudonym that is registered nowhere, signed by some key.
pub(crate) fn stranger(
    authority: &Authority,
    patient: &Patient,
) -> Result<(Case, waybill_protocol::sealed::SealedBytes), Failure> {
    let pid = waybill_crypto::pseudonym::Pseudonym(opening().0);
    let mut case = patient.draft(Scope::full(), Hides::default());
    let value = waybill_protocol::wire::to_cbor(&pid);
    case.terms.com_source = waybill_crypto::commitment::Commitment::commit("pid-source", &case.openings[0], &value);
    case.bundle = Some(authority.prove(case.terms.clone(), waybill_protocol::ids::MessageId(opening_digest()), true));
    let mut consent = patient.consent(&case);
    consent.pid = pid;
    let sealed = seal_consent(consent, &Native.generate_signing_key(), &patient.a)?;
    Ok((case, sealed))
}

async fn malleable(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let mut session = Ask::honest(&b, &patient, &case)?.sign()?;
    session.body.request = SignedBytes::from(mirrored(session.body.request.as_bytes()));
    let mut seen = vec![b.try_session(scene, &session).await?];
    let mut ask = Ask::honest(&b, &patient, &case)?;
    ask.proof.proof = SignedBytes::from(mirrored(ask.proof.proof.as_bytes()));
    seen.push(b.try_ask(scene, ask).await?);
    let signed = Signed::sign(&Native, &patient.consent_key(&id(HOSPITAL_A)), patient.consent(&case));
    let consent = mirrored(signed.bytes());
    let consent = seal(&patient.a.keys.hpke, SealPurpose::Consent, HOSPITAL_A.as_bytes(), &consent)?;
    let mut ask = Ask::honest(&b, &patient, &case)?;
    ask.show_consent(consent);
    seen.push(b.try_ask(scene, ask).await?);
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

async fn suite_or_usage(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let authority = Authority::take(scene)?;
    let mut session = Ask::honest(&b, &patient, &case)?.sign()?;
    session.body.request = SignedBytes::from(flipped_algorithm(session.body.request.as_bytes()));
    let mut seen = vec![b.try_session(scene, &session).await?];
    let mut ask = Ask::honest(&b, &patient, &case)?;
    let said = ask.proof.proof.parse().or_fail("a proof does not parse")?.peek().clone();
    let other = waybill_protocol::messages::MigrationProof { suite: SUITE + 1, ..said };
    ask.proof.proof = SignedBytes::from(&Signed::sign(&Native, &authority.keys.proof_signing, other));
    seen.push(b.try_ask(scene, ask).await?);
    let tls = authority.certify(HOSPITAL_B, Profile::HospitalTls, b.identity.signing.public())?;
    let bare = waybill_protocol::messages::Chain(b.identity.chain.0[..1].to_vec());
    for chain in [tls, bare] {
        let ask = Ask { chain, ..Ask::honest(&b, &patient, &case)? };
        seen.push(b.try_ask(scene, ask).await?);
    }
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(seen, b.measured(), twin, TWIN))
}

/// What A's refusal of one request looks like from outside, and opened by the counterpart.
struct Answer {
    code: waybill_protocol::rejection::Code,
    full: Option<waybill_protocol::rejection::Code>,
    bytes: usize,
}

async fn probing(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let authority = Authority::take(scene)?;
    let (nobody, unknown) = stranger(&authority, &patient)?;
    let known = seal_consent(patient.consent(&case), &Native.generate_signing_key(), &patient.a)?;
    let mut answers = Vec::new();
    for (case, consent) in [(&nobody, unknown), (&case, known)] {
        let mut ask = Ask::honest(&b, &patient, case)?;
        ask.show_consent(consent);
        let session = ask.sign()?;
        scene.post(&scene.address(A)?, Parcel::pack(Kind::TransferRequest, &session.body)).await?;
        match b.hear(scene, &session, PATIENCE).await? {
            Some(Heard::Refused(code, full)) => answers.push(Answer { code, full, bytes: b.last_bytes }),
            Some(Heard::Manifest(manifest)) => {
                return Ok(Finding::new(vec![b.steal(scene, &session, &manifest).await], b.measured(), true, TWIN));
            }
            None => return Err(Failure::failed("A does not answer")),
        }
    }
    let (one, two) = (&answers[0], &answers[1]);
    let alike = one.code == two.code && one.full == two.full && one.bytes == two.bytes;
    let seen = if alike && one.code.as_str() == "consent-refused" {
        Seen::refused(A, "alike", "signed refusal")
    } else {
        Seen::Passed(format!("{}/{} bytes against {}/{} bytes", one.code, one.bytes, two.code, two.bytes))
    };
    let twin = twin(scene, &mut b, &patient, &case).await?;
    Ok(Finding::new(vec![seen], b.measured(), twin, TWIN))
}
