//! Attacks at the counter and on the wallet: enrolment codes, logins, and answers that are not what was asked.

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::commitment::Commitment;
use waybill_crypto::digest::sha256;
use waybill_crypto::native::Native;
use waybill_crypto::pseudonym::{Pseudonym, RootSecret};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::messages::{LoginBody, LoginRequest, Purpose, SUITE, Terms};
use waybill_protocol::patient::{Exchange, Wish};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_wallet::Received;

use super::hands::authority::nonce;
use super::hands::patient::{register_with, seal};
use super::hands::{Authority, Patient, opening};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, PATIENCE, Scene, id, occurrences, read_all, url};
use crate::courier::now;
use crate::demo::network::{HOSPITAL_A, HOSPITAL_B};
use crate::demo::person::{ANSWER, Person};
use crate::failure::Failure;
use crate::hospital;

const A: &str = "hospital-a";
/// Codes that are guessed.
const GUESSES: usize = 20;

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "enrolment-codes",
        what: "registering as somebody else: codes guessed, used twice, used elsewhere, or for a pseudonym that has its person",
        attacker: "a stranger at a distance, and a registered patient with a code of their own",
        stopped_by: "a code of 128 random bits, used once, in one hospital; a pseudonym never moves (6.4)",
        tries: &[
            Try::new("twenty guessed codes", A, "enrolment-code-invalid"),
            Try::new("a code that was used", A, "enrolment-code-invalid"),
            Try::new("a code of hospital B's at A", A, "enrolment-code-invalid"),
            Try::new("another patient's code for one's own pseudonym", A, "enrolment-code-invalid"),
        ],
        run: |scene| codes(scene).boxed_local(),
    },
    Attack {
        name: "login-replay",
        what: "a login that was seen on its way is posted again, changed, or made for a guessed pseudonym",
        attacker: "the relay with every parcel; a stranger who knows the person",
        stopped_by: "nonce, time window and registered key (6.4)",
        tries: &[
            Try::new("the same parcel again", A, "login-replayed"),
            Try::new("A's login at hospital B", "hospital-b", "login-refused"),
            Try::new("a pseudonym with the attacker's key", A, "login-refused"),
            Try::new("an hour old", A, "login-stale"),
        ],
        run: |scene| logins(scene).boxed_local(),
    },
    Attack {
        name: "pseudonym-guessing",
        what: "computing a pseudonym from all that is known of the person, as an unkeyed hash would allow",
        attacker: "whoever knows name, birth date, identifiers and record numbers",
        stopped_by: "pseudonyms are keyed with the wallet's root secret (3.5)",
        tries: &[Try::new("hashes of everything known, with and without the hospital's name", "search", "not-guessed")],
        run: |scene| guessing(scene).boxed_local(),
    },
    Attack {
        name: "answer-of-another-login",
        what: "the answer to one login is handed to another one of the same patient",
        attacker: "the relay; and hospital A itself, which can seal it again",
        stopped_by: "the answer names the hash of its request, and is sealed to that request's key (6.4)",
        tries: &[
            Try::new("the other answer as it was posted", "patient", "unexpected-message"),
            Try::new("the other answer sealed again for this login", "patient", "unexpected-message"),
        ],
        run: |scene| answers(scene).boxed_local(),
    },
    Attack {
        name: "proof-of-other-terms",
        what: "the authority signs and logs something else than was delegated, and hopes that the wallet does not compare",
        attacker: "the authority with all its keys and its witness's",
        stopped_by: "the wallet compares every field before it consents (6.4)",
        tries: &[
            Try::new("another destination", "wallet", "proof-mismatch"),
            Try::new("another scope", "wallet", "proof-mismatch"),
            Try::new("another pseudonym at A", "wallet", "proof-mismatch"),
            Try::new("a longer time", "wallet", "proof-mismatch"),
            Try::new("another reply key", "wallet", "proof-mismatch"),
            Try::new("another revocation key", "wallet", "proof-mismatch"),
            Try::new("the right terms in a log that nobody cosigned", "wallet", "log-evidence-invalid"),
        ],
        run: |scene| other_terms(scene).boxed_local(),
    },
];

fn root() -> RootSecret {
    RootSecret::from_bytes(opening().0)
}

async fn codes(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let other = scene.admit().await?;
    let enrolment = hospital::enrolment_code(&scene.network.admin(A), &other.id, "self").await?;
    let mut seen = Vec::new();
    let mark = scene.mark(A);
    for _ in 0..GUESSES {
        let mut guessed = enrolment.clone();
        guessed.code = nonce();
        if register_with(scene, &root(), &guessed).await?.is_some() {
            return Err(Failure::failed("a guessed code was accepted"));
        }
    }
    let refused = scene.refusals(A, mark);
    let all = refused.len() == GUESSES && refused.iter().all(|code| *code == Code::CodeInvalid);
    seen.push(if all {
        Seen::refused(A, Code::CodeInvalid, "log")
    } else {
        Seen::Passed(format!("{} of {GUESSES} guesses were refused", refused.len()))
    });
    // The patient's own pseudonym with somebody else's code: it would move the pseudonym to another record.
    let takeover = try_code(scene, &patient.root, &enrolment).await?;
    let twin = register_with(scene, &root(), &enrolment).await?.is_some();
    seen.push(try_code(scene, &root(), &enrolment).await?);
    let mut elsewhere = hospital::enrolment_code(&scene.network.admin("hospital-b"), &other.at_b, "self").await?;
    (elsewhere.hospital, elsewhere.keys) = (enrolment.hospital.clone(), enrolment.keys.clone());
    elsewhere.mailbox.clone_from(&enrolment.mailbox);
    seen.push(try_code(scene, &root(), &elsewhere).await?);
    seen.push(takeover);
    Ok(Finding::new(seen, None, twin, "the code itself registers its patient once"))
}

async fn try_code(
    scene: &Scene,
    root: &RootSecret,
    enrolment: &waybill_protocol::patient::Enrolment,
) -> Result<Seen, Failure> {
    let mark = scene.mark(A);
    match register_with(scene, root, enrolment).await? {
        Some(_) => Ok(Seen::Passed("A registered it".to_owned())),
        None => Ok(scene.seen(A, mark).await),
    }
}

/// A login made by hand, sealed to a hospital.
fn login_by_hand(
    patient: &Patient,
    said: LoginRequest,
    key: &waybill_crypto::keys::SigningKey,
) -> Result<Vec<u8>, Failure> {
    let body = LoginBody { request: SignedBytes::from(&Signed::sign(&Native, key, said)) };
    let sealed = seal(&patient.a.keys.hpke, SealPurpose::Login, HOSPITAL_A.as_bytes(), &to_cbor(&body))?;
    Ok(Parcel::pack(Kind::Login, &sealed))
}

async fn logins(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.draft(Scope::full(), Hides::default());
    let purpose = Patient::voucher_purpose(&case);
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let made = patient.role(scene).login(&patient.a, purpose.clone(), &reply.url.to_string());
    let (_, parcel) = made.or_fail("no login")?;
    scene.post(&url(&patient.a.mailbox)?, parcel.clone()).await?;
    let twin = reply.next(scene, PATIENCE).await?.is_some();
    let mut seen = vec![scene.try_post(A, parcel.clone()).await?, scene.try_post("hospital-b", parcel).await?];
    let said = |pid: Pseudonym, age: u64| LoginRequest {
        suite: SUITE,
        hospital: id(HOSPITAL_A),
        pid,
        nonce: nonce(),
        time: waybill_protocol::ids::Timestamp(now().0 - age),
        reply_key: *Native.generate_hpke_key().public(),
        reply_to: reply.url.to_string(),
        purpose: purpose.clone(),
    };
    let pid = patient.pid(&id(HOSPITAL_A));
    let stranger = login_by_hand(&patient, said(pid, 0), &Native.generate_signing_key())?;
    seen.push(scene.try_post(A, stranger).await?);
    let late = login_by_hand(&patient, said(pid, 3_600), &patient.consent_key(&id(HOSPITAL_A)))?;
    seen.push(scene.try_post(A, late).await?);
    Ok(Finding::new(seen, None, twin, "the login itself is answered"))
}

/// Everything a stranger may know of a person.
fn known(patient: &Patient) -> Vec<String> {
    let person = &patient.sample.demographics;
    let mut words =
        vec![patient.sample.id.clone(), patient.sample.at_b.clone(), format!("Patient/{}", patient.sample.id)];
    words.extend(person.birth_date.clone());
    words.extend(person.identifiers.iter().flat_map(|i| [i.value.clone(), format!("{}|{}", i.system, i.value)]));
    for name in &person.names {
        let family = name.family.clone().unwrap_or_default();
        let given = name.given.join(" ");
        let birth = person.birth_date.clone().unwrap_or_default();
        words.extend([family.clone(), given.clone(), format!("{given} {family}"), format!("{family}{given}{birth}")]);
    }
    words
}

async fn guessing(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let mut stored = Vec::new();
    for hospital in [A, "hospital-b"] {
        stored.extend(read_all(&scene.folder(hospital).join("data"))?);
    }
    let held = |digest: &[u8; 32]| stored.iter().any(|bytes| occurrences(bytes, digest) > 0);
    let mut guessed = 0;
    for word in known(&patient) {
        for hospital in ["", HOSPITAL_A, HOSPITAL_B, A, "hospital-b"] {
            for parts in [[hospital.as_bytes(), word.as_bytes()], [word.as_bytes(), hospital.as_bytes()]] {
                let digest = sha256(&parts);
                let pids = [patient.pid(&id(HOSPITAL_A)), patient.pid(&id(HOSPITAL_B))];
                guessed += usize::from(pids.iter().any(|pid| *pid.as_bytes() == digest.0) || held(&digest.0));
            }
        }
    }
    let seen = if guessed == 0 {
        Seen::refused("search", "not-guessed", "hospitals' stores")
    } else {
        Seen::Passed(format!("{guessed} guesses are pseudonyms"))
    };
    // The control: what is looked for is there and would be found.
    let twin = held(patient.pid(&id(HOSPITAL_A)).as_bytes()) && held(patient.pid(&id(HOSPITAL_B)).as_bytes());
    Ok(Finding::new(vec![seen], None, twin, "the pseudonyms themselves are found where they are stored"))
}

/// A login's exchange, its opened request, and its answer as it was posted.
async fn login_and_answer(scene: &Scene, patient: &Patient) -> Result<(Exchange, LoginRequest, Vec<u8>), Failure> {
    let case = patient.draft(Scope::full(), Hides::default());
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let purpose: Purpose = Patient::voucher_purpose(&case);
    let made = patient.role(scene).login(&patient.a, purpose, &reply.url.to_string());
    let (exchange, parcel) = made.or_fail("no login")?;
    let sealed: SealedBytes =
        Parcel::parse(&parcel).or_fail("no parcel")?.open(Kind::Login, "login").or_fail("no login")?;
    let identity = super::hands::identity(scene, A)?;
    let plain = sealed.open(&Native, &identity.hpke, SealPurpose::Login, HOSPITAL_A.as_bytes()).or_fail("no login")?;
    let body: LoginBody = waybill_protocol::wire::from_cbor("login", &plain, 1 << 22).or_fail("no login")?;
    let request = body.request.parse().or_fail("no login")?.peek().clone();
    scene.post(&url(&patient.a.mailbox)?, parcel).await?;
    let answer = reply.next(scene, PATIENCE).await?.or_fail("A does not answer")?;
    Ok((exchange, request, answer))
}

async fn answers(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (one, _, answer) = login_and_answer(scene, &patient).await?;
    let (two, request, _) = login_and_answer(scene, &patient).await?;
    let parsed = Parcel::parse(&answer).or_fail("no answer")?;
    let accept = |exchange: &Exchange, parcel: &Parcel| {
        patient.role(scene).read_login(exchange, &patient.a, parcel).map(|_| ()).map_err(|rejection| rejection.code)
    };
    let seen_of = |result: Result<(), Code>| match result {
        Ok(()) => Seen::Passed("the patient takes it".to_owned()),
        Err(code) => Seen::refused("patient", code, "the patient's role"),
    };
    let first = seen_of(accept(&two, &parsed));
    // Hospital A signs again what it answered to the first login, and seals it for the second.
    let identity = super::hands::identity(scene, A)?;
    let said = waybill_protocol::messages::LoginAnswer {
        request: one.request(),
        hospital: id(HOSPITAL_A),
        time: now(),
        outcome: waybill_protocol::messages::LoginOutcome::Refused { code: Code::LoginRefused },
        key_change: None,
    };
    let signed = to_cbor(&SignedBytes::from(&Signed::sign(&Native, &identity.signing, said)));
    let sealed = seal(&request.reply_key, SealPurpose::LoginAnswer, two.request().as_bytes(), &signed)?;
    let resealed = Parcel::parse(&Parcel::pack(Kind::LoginAnswer, &sealed)).or_fail("no parcel")?;
    let second = seen_of(accept(&two, &resealed));
    let twin = accept(&one, &parsed).is_ok();
    Ok(Finding::new(vec![first, second], None, twin, "each answer belongs to its own login"))
}

/// What the authority might sign instead of what was delegated.
fn altered(terms: &Terms) -> Vec<Terms> {
    let commit = |kind: &str| Commitment::commit(kind, &opening(), b"another");
    let mut all = vec![terms.clone(); 6];
    all[0].destination = id("hospital-c.example");
    all[1].com_scope = commit("scope");
    all[2].com_source = commit("pid-source");
    all[3].expires = terms.expires.plus(60);
    all[4].reply_key = *Native.generate_hpke_key().public();
    all[5].revocation_key = Native.generate_signing_key().public().clone();
    all
}

async fn other_terms(scene: &mut Scene) -> Result<Finding, Failure> {
    let sample = scene.admit().await?;
    let file = scene.network.folder().join("attacked.wallet");
    let mut person = Person::new(&scene.network, &file, &sample.id).await?;
    person.register(&scene.network, A, &sample.id).await?;
    person.register(&scene.network, "hospital-b", &sample.at_b).await?;
    let (a, b): (HospitalId, HospitalId) = (id(HOSPITAL_A), id(HOSPITAL_B));
    let wish = Wish { scope: Scope::full(), hides: Hides::default(), not_before: now(), expires: now().plus(3_600) };
    person.wallet.delegate(now(), &a, &b, wish).or_fail("the wallet does not delegate")?;
    match person.courier.next(&mut person.wallet, ANSWER).await? {
        Received::Vouched { .. } => {}
        other => return Err(crate::demo::person::unexpected(&other)),
    }
    // With its witness down, the authority's own answer waits.
    scene.servant("witness").kill()?;
    person.courier.post(&mut person.wallet).await?;
    let parcel = person.posted(Kind::Delegation, 0).or_fail("nothing was delegated")?.to_vec();
    let body: waybill_protocol::messages::DelegationBody =
        Parcel::parse(&parcel).or_fail("no parcel")?.open(Kind::Delegation, "delegation").or_fail("no delegation")?;
    let delegation = body.delegation.parse().or_fail("no delegation")?;
    let (said, did) = (delegation.peek().clone(), delegation.message_id());
    let authority = Authority::take(scene)?;
    let mut bundles: Vec<_> = altered(&said.terms).into_iter().map(|terms| authority.prove(terms, did, true)).collect();
    bundles.push(authority.prove(said.terms.clone(), did, false));
    let mut seen = Vec::new();
    for bundle in bundles {
        let sealed = seal(&said.terms.reply_key, SealPurpose::ProofAnswer, did.as_bytes(), &to_cbor(&bundle))?;
        scene.post(&url(&said.reply_to)?, Parcel::pack(Kind::ProofAnswer, &sealed)).await?;
        seen.push(match person.courier.next(&mut person.wallet, ANSWER).await? {
            Received::ProofRefused { code, .. } => Seen::refused("wallet", code, "the wallet's word"),
            other => Seen::Passed(format!("{other:?}")),
        });
    }
    scene.servant("witness").restart()?;
    let twin = matches!(person.courier.next(&mut person.wallet, ANSWER).await?, Received::Proof { .. });
    Ok(Finding::new(seen, None, twin, "the wallet takes the proof of what it delegated"))
}
