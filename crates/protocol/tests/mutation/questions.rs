//! What a login can ask besides a voucher, and what can be answered: the fields of every variant are altered as all others are.

use waybill_crypto::keys::Digest;
use waybill_protocol::ids::ProofId;
use waybill_protocol::messages::{
    Disclosure, Item, LoginAnswer, LoginBody, LoginOutcome, LoginRequest, Preview, Purpose,
};
use waybill_protocol::migration::Effect;
use waybill_protocol::patient::Exchange;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::SealPurpose;
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::wire::Kind;
use waybill_record::hides::Hides;

use crate::Expected::Kept;
use crate::bench::{Bench, opened, reply_secret};
use crate::common::*;
use crate::front_desk::{OTHER, OWN_REQUEST, answer, answer_rows, login_rows, sealed_to_a};
use crate::{Delivery, Held, Row};

/// A question at A's front desk and its answer.
#[derive(Clone)]
pub struct Asked {
    pub exchange: Exchange,
    pub request: SignedBytes<LoginRequest>,
    pub answer: SignedBytes<LoginAnswer>,
}

/// Asks everything but a voucher, and is refused once.
pub fn ask(world: &World) -> Vec<Asked> {
    let watched = ProofId(Digest([7; 32]));
    let items = vec![Item { id: "o1".into(), date: None, title: None }];
    let entry = Disclosure {
        number: 1,
        time: world.now,
        role: "registrar".into(),
        action: "patient-read".into(),
        case: None,
        counterpart: None,
        outcome: "success".into(),
    };
    let asked = [
        (preview_all(), LoginOutcome::Preview { preview: preview() }),
        (
            Purpose::Watch { proof: watched },
            LoginOutcome::Watch { state: "lodged".into(), code: Some(Code::ConsentLimit) },
        ),
        (
            Purpose::Items { resource_type: "Observation".into(), after: Some("o0".into()) },
            LoginOutcome::Items { items, more: false },
        ),
        (Purpose::Disclosures { after: 0 }, LoginOutcome::Disclosures { entries: vec![entry], more: false }),
        (preview_all(), LoginOutcome::Refused { code: Code::ConsentLimit }),
    ];
    asked.into_iter().map(|(purpose, outcome)| one(world, purpose, outcome)).collect()
}

fn one(world: &World, purpose: Purpose, outcome: LoginOutcome) -> Asked {
    let (patient, a, contact) = (world.patient(), &world.a.identity, &world.a.contact);
    let (exchange, parcel) = patient.login(contact, purpose, REPLY).unwrap();
    let body: LoginBody =
        opened("login", &sealed(&parcel, Kind::Login), world, &a.hpke, SealPurpose::Login, A.as_bytes());
    let answered = answered(world, Some(&world.a.registered), body.request.clone(), outcome).unwrap();
    let parcel = posted(&[answered], Kind::LoginAnswer);
    let answer = opened(
        "answer",
        &parcel.open(Kind::LoginAnswer, "answer").unwrap(),
        world,
        &reply_secret(&exchange),
        SealPurpose::LoginAnswer,
        exchange.request().as_bytes(),
    );
    Asked { exchange, request: body.request, answer }
}

fn answered(
    world: &World,
    known: Option<&waybill_protocol::registrar::Registered>,
    request: SignedBytes<LoginRequest>,
    outcome: LoginOutcome,
) -> Result<Effect, Rejection> {
    let registrar = world.registrar();
    let body = waybill_protocol::wire::to_cbor(&LoginBody { request });
    let opened = registrar.open_login(&sealed_to_a(world, SealPurpose::Login, &body))?;
    let known = known.filter(|_| *opened.pid() == world.root.pid(A, 0));
    registrar.answer_login(&registrar.verify_login(opened, known)?, outcome)
}

pub fn deliveries() -> Vec<Box<dyn Held>> {
    let logins = asked_fields().into_iter().enumerate().map(|(n, rows)| Box::new(login(n, rows)) as Box<dyn Held>);
    let answers =
        answered_fields().into_iter().enumerate().map(|(n, rows)| Box::new(login_answer(n, rows)) as Box<dyn Held>);
    logins.chain(answers).collect()
}

fn login(n: usize, fields: Vec<Row<LoginRequest>>) -> Delivery<LoginRequest> {
    let refused = || LoginOutcome::Refused { code: Code::LoginRefused };
    let known = |world: &World| Some(world.a.registered.clone());
    Delivery {
        message: "LoginRequest",
        to: "hospital",
        signer: "consent key at the hospital",
        forged: Code::LoginRefused,
        take: Box::new(move |_, run| run.visit.asked[n].request.clone()),
        deliver: Box::new(move |world, _, bytes| {
            answered(world, known(world).as_ref(), bytes, refused()).map(|_| Vec::new()).map_err(|r| r.code)
        }),
        later: Some(Box::new(move |world, bench, bytes| {
            let parcel =
                posted(&[answered(world, known(world).as_ref(), bytes, refused()).unwrap()], Kind::LoginAnswer);
            let exchange = &bench.ours.visit.asked[n].exchange;
            world.patient().read_login(exchange, &world.a.contact, &parcel).map(|_| ()).map_err(|r| r.code)
        })),
        rows: login_rows().into_iter().chain(fields).collect(),
    }
}

fn login_answer(n: usize, fields: Vec<Row<LoginAnswer>>) -> Delivery<LoginAnswer> {
    Delivery {
        message: "LoginAnswer",
        to: "patient",
        signer: "hospital",
        forged: Code::SignatureInvalid,
        take: Box::new(move |_, run| run.visit.asked[n].answer.clone()),
        deliver: Box::new(move |world, bench, bytes| read(world, bench, n, &bytes).map_err(|r| r.code)),
        later: None,
        rows: answer_rows().into_iter().chain(fields).collect(),
    }
}

fn read(world: &World, bench: &Bench, n: usize, bytes: &SignedBytes<LoginAnswer>) -> Result<Vec<u8>, Rejection> {
    let exchange = &bench.ours.visit.asked[n].exchange;
    let parcel = answer(world, exchange, SealPurpose::LoginAnswer, Kind::LoginAnswer, bytes);
    let read = world.patient().read_login(exchange, &world.a.contact, &parcel)?;
    Ok(waybill_protocol::wire::to_cbor(&(read.outcome, read.new_keys)))
}

/// `variant!(LoginRequest.purpose: Purpose::Preview.scope = value => expected)`: one field of the variant that is there.
macro_rules! variant {
    ($message:ident.$of:ident: $choice:ident::$variant:ident.$field:ident = $value:expr => $expected:expr) => {
        Row::<$message>::new(
            concat!(stringify!($of), ".", stringify!($field)),
            $expected,
            Box::new(|m, _| {
                let $choice::$variant { $field, .. } = &mut m.$of else { panic!("another variant") };
                *$field = $value;
            }),
        )
        .same()
    };
}

/// What the patient asks is the patient's own; the answer is bound to it.
fn asked_fields() -> Vec<Vec<Row<LoginRequest>>> {
    vec![
        vec![
            variant!(LoginRequest.purpose: Purpose::Preview.scope = "types=Immunization".parse().unwrap() => OWN_REQUEST),
            variant!(LoginRequest.purpose: Purpose::Preview.hides = Hides::parse(["Observation/o1"]).unwrap() => OWN_REQUEST),
        ],
        vec![variant!(LoginRequest.purpose: Purpose::Watch.proof = ProofId(OTHER) => OWN_REQUEST)],
        vec![
            variant!(LoginRequest.purpose: Purpose::Items.resource_type = "Condition".into() => OWN_REQUEST),
            variant!(LoginRequest.purpose: Purpose::Items.after = Some("o1".into()) => OWN_REQUEST),
        ],
        vec![variant!(LoginRequest.purpose: Purpose::Disclosures.after = 9 => OWN_REQUEST)],
    ]
}

fn answered_fields() -> Vec<Vec<Row<LoginAnswer>>> {
    const SAID: crate::Expected = Kept("what the hospital says of what it holds; nobody else can know better");
    vec![
        vec![
            variant!(LoginAnswer.outcome: LoginOutcome::Preview.preview = Preview { stream_bytes: 1, ..crate::common::preview() } => SAID),
        ],
        vec![
            variant!(LoginAnswer.outcome: LoginOutcome::Watch.state = "closed".into() => SAID),
            variant!(LoginAnswer.outcome: LoginOutcome::Watch.code = Some(Code::ReviewOverdue) => SAID),
        ],
        vec![
            variant!(LoginAnswer.outcome: LoginOutcome::Items.items = Vec::new() => SAID),
            variant!(LoginAnswer.outcome: LoginOutcome::Items.more = true => SAID),
        ],
        vec![
            variant!(LoginAnswer.outcome: LoginOutcome::Disclosures.entries = Vec::new() => SAID),
            variant!(LoginAnswer.outcome: LoginOutcome::Disclosures.more = true => SAID),
        ],
        vec![variant!(LoginAnswer.outcome: LoginOutcome::Refused.code = Code::LoginStale => SAID)],
    ]
}
