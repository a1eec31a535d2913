//! Registration, login, the voucher, and what hospitals and authority say of themselves.

use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, Ed25519PublicKey, HpkePublicKey, SigningKey};
use waybill_protocol::ids::{MessageId, Nonce};
use waybill_protocol::messages::{
    AuthorityStatement, AuthorityStatementBody, DelegationBody, KeyChange, LoginAnswer, LoginBody, LoginOutcome,
    LoginRequest, Purpose, Registration, RegistrationAnswer, RegistrationBody, Relation, Voucher, VoucherGrant,
};
use waybill_protocol::migration::Effect;
use waybill_protocol::patient::Exchange;
use waybill_protocol::registrar::{LOGIN_WINDOW_SECONDS, Registered, VOUCHER_LIFETIME_SECONDS, enrolment_row};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Message, SignedBytes};
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

use crate::Expected::{Kept, Later, Refused, Unread};
use crate::bench::{Bench, reply_secret};
use crate::common::*;
use crate::{Delivery, Held, Row, row};

pub const OTHER: Digest = Digest([0xee; 32]);

pub fn deliveries() -> Vec<Box<dyn Held>> {
    vec![
        Box::new(registration()),
        Box::new(registration_answer()),
        Box::new(login()),
        Box::new(login_answer()),
        Box::new(voucher_at_patient()),
        Box::new(voucher_at_authority()),
        Box::new(key_change()),
        Box::new(authority_statement()),
    ]
}

fn key(n: u8) -> SigningKey {
    SigningKey::derive(&[n; 32])
}

pub fn sealed_to_a(world: &World, purpose: SealPurpose, plain: &[u8]) -> SealedBytes {
    SealedBytes::seal(&world.network.backend, &world.a.identity.keys().hpke, purpose, A.as_bytes(), plain).unwrap()
}

/// The patient's own: the answer names the request that it answers.
pub const OWN_REQUEST: crate::Expected =
    Later("the patient's own: the answer names the request it answers", Code::UnexpectedMessage);

/// An answer, sealed as the hospital seals it.
pub fn answer<M: Message>(
    world: &World,
    exchange: &Exchange,
    purpose: SealPurpose,
    kind: Kind,
    bytes: &SignedBytes<M>,
) -> Parcel {
    let to = reply_secret(exchange);
    let bound = exchange.request();
    let sealed =
        SealedBytes::seal(&world.network.backend, to.public(), purpose, bound.as_bytes(), &to_cbor(bytes)).unwrap();
    Parcel::parse(&Parcel::pack(kind, &sealed)).unwrap()
}

// Registration.

fn registered(
    world: &World,
    bench: &Bench,
    registration: SignedBytes<Registration>,
) -> Result<(Registered, Vec<Effect>), Rejection> {
    let sealed = sealed_to_a(world, SealPurpose::Registration, &to_cbor(&RegistrationBody { registration }));
    let visit = &bench.ours.visit;
    let opened = world.registrar().open_registration(&sealed)?;
    // The other patient has used their code: its row is gone.
    let code = Some(&visit.code).filter(|_| opened.code_row() == enrolment_row(&visit.enrolment.code));
    world.registrar().handle_registration(&opened, code, bench.registered_at_a(opened.pid()).cloned())
}

fn registration() -> Delivery<Registration> {
    let own = OWN_REQUEST;
    let invalid = Refused(Code::RegistrationInvalid);
    Delivery {
        message: "Registration",
        to: "hospital",
        signer: "consent key at the hospital",
        forged: Code::RegistrationInvalid,
        take: Box::new(|_, run| run.visit.registration.clone()),
        deliver: Box::new(|world, bench, bytes| {
            registered(world, bench, bytes).map(|(known, _)| to_cbor(&known)).map_err(|r| r.code)
        }),
        later: Some(Box::new(|world, bench, bytes| {
            let (_, effects) = registered(world, bench, bytes).unwrap();
            let (visit, parcel) = (&bench.ours.visit, posted(&effects, Kind::RegistrationAnswer));
            let accepted = world.patient().accept_registration(&visit.registering, &visit.enrolment, 1, &parcel);
            accepted.map(|_| ()).map_err(|r| r.code)
        })),
        rows: vec![
            row!(Registration: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(Registration: hospital = id(B) => invalid).same(),
            row!(Registration: code = Nonce([9; 16]) => Refused(Code::CodeInvalid)),
            // A pseudonym stays with its patient.
            row!(Registration: |m, w| pid = w.root.pid(A, 2) => own).swapped(Refused(Code::CodeInvalid)),
            row!(Registration: consent_key = key(1).public().clone() => invalid),
            row!(Registration: |m, w| reply_key = *fresh_hpke(w).public() => own),
            row!(Registration: reply_to = "https://relay.example/mailbox/else".into() => own).same(),
            row!(Registration: nonce = Nonce([9; 16]) => own),
            row!(Registration: |m, w| time = m.time.plus(LOGIN_WINDOW_SECONDS + 1) => invalid).same(),
            row!(Registration: |m, w| time = m.time.plus(LOGIN_WINDOW_SECONDS) => own),
        ],
    }
}

fn registration_answer() -> Delivery<RegistrationAnswer> {
    let invalid = Refused(Code::RegistrationInvalid);
    let decided = Kept(
        "what the hospital decides about the key; the wallet keeps it, the hospital holds the key to its own record of it",
    );
    Delivery {
        message: "RegistrationAnswer",
        to: "patient",
        signer: "hospital",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.visit.registration_answer.clone()),
        deliver: Box::new(|world, bench, bytes| {
            let visit = &bench.ours.visit;
            let (purpose, kind) = (SealPurpose::RegistrationAnswer, Kind::RegistrationAnswer);
            let parcel = answer(world, &visit.registering, purpose, kind, &bytes);
            let accepted = world.patient().accept_registration(&visit.registering, &visit.enrolment, 1, &parcel);
            accepted.map(|contact| to_cbor(&contact)).map_err(|r| r.code)
        }),
        later: None,
        rows: vec![
            row!(RegistrationAnswer: request = MessageId(OTHER) => invalid),
            row!(RegistrationAnswer: hospital = id(B) => invalid).same(),
            row!(RegistrationAnswer: keys.signing = key(1).public().clone() => invalid).same(),
            row!(RegistrationAnswer: |m, w| keys.hpke = *fresh_hpke(w).public() => invalid).same(),
            row!(RegistrationAnswer: relation = Relation::Deputy => decided).same(),
            row!(RegistrationAnswer: |m, w| expires = m.expires.plus(1) => decided).same(),
            row!(RegistrationAnswer: limits.scope = "types=Immunization".parse().unwrap() => decided).same(),
            row!(RegistrationAnswer: limits.destinations = vec![id(C)] => decided).same(),
        ],
    }
}

// Login.

fn answered(world: &World, bench: &Bench, request: SignedBytes<LoginRequest>) -> Result<Effect, Rejection> {
    let registrar = world.registrar();
    let opened = registrar.open_login(&sealed_to_a(world, SealPurpose::Login, &to_cbor(&LoginBody { request })))?;
    let known = bench.registered_at_a(opened.pid());
    let verified = registrar.verify_login(opened, known)?;
    registrar.answer_login(&verified, registrar.issue_voucher(&verified)?)
}

fn purpose(m: &mut LoginRequest) -> (&mut Digest, &mut Commitment, &mut Opening) {
    let Purpose::Voucher { delegation_key, com_source, opening } = &mut m.purpose else { panic!("a voucher") };
    (delegation_key, com_source, opening)
}

fn login() -> Delivery<LoginRequest> {
    let (own, refused) = (OWN_REQUEST, Refused(Code::LoginRefused));
    let voucher = [
        Row::new("purpose.delegation_key", own, Box::new(|m, _| *purpose(m).0 = OTHER)),
        Row::new("purpose.com_source", refused, Box::new(|m, _| purpose(m).1.0 = OTHER)),
        Row::new("purpose.opening", refused, Box::new(|m, _| *purpose(m).2 = Opening::from_bytes([9; 32]))),
    ];
    Delivery {
        message: "LoginRequest",
        to: "hospital",
        signer: "consent key at the hospital",
        forged: Code::LoginRefused,
        take: Box::new(|_, run| run.visit.login.clone()),
        deliver: Box::new(|world, bench, bytes| answered(world, bench, bytes).map(|_| Vec::new()).map_err(|r| r.code)),
        later: Some(Box::new(|world, bench, bytes| {
            let parcel = posted(&[answered(world, bench, bytes).unwrap()], Kind::LoginAnswer);
            let read = world.patient().read_login(&bench.ours.visit.logging_in, &world.a.contact, &parcel);
            read.map(|_| ()).map_err(|r| r.code)
        })),
        rows: login_rows().into_iter().chain(voucher).collect(),
    }
}

/// Every field of a login but what it is for.
pub fn login_rows() -> Vec<Row<LoginRequest>> {
    let (own, refused) = (OWN_REQUEST, Refused(Code::LoginRefused));
    vec![
        row!(LoginRequest: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
        row!(LoginRequest: hospital = id(B) => refused).same(),
        row!(LoginRequest: |m, w| pid = w.root.pid(A, 1) => refused),
        row!(LoginRequest: nonce = Nonce([9; 16]) => own),
        row!(LoginRequest: |m, w| time = m.time.plus(LOGIN_WINDOW_SECONDS + 1) => Refused(Code::LoginStale)).same(),
        row!(LoginRequest: |m, w| time = m.time.plus(LOGIN_WINDOW_SECONDS) => own),
        row!(LoginRequest: |m, w| reply_key = *fresh_hpke(w).public() => own),
        row!(LoginRequest: reply_to = "https://relay.example/mailbox/else".into() => own).same(),
    ]
}

fn login_answer() -> Delivery<LoginAnswer> {
    let grant = Row::new(
        "outcome.grant",
        Kept("what the hospital answers; a voucher is itself a message, and compared before it is used"),
        Box::new(|m: &mut LoginAnswer, w: &World| {
            let LoginOutcome::Voucher { grant } = &mut m.outcome else { panic!("a voucher") };
            grant.chain = w.b.identity.chain.clone();
        }),
    );
    Delivery {
        message: "LoginAnswer",
        to: "patient",
        signer: "hospital",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.visit.login_answer.clone()),
        deliver: Box::new(|world, bench, bytes| {
            let exchange = &bench.ours.visit.logging_in;
            let parcel = answer(world, exchange, SealPurpose::LoginAnswer, Kind::LoginAnswer, &bytes);
            let read = world.patient().read_login(exchange, &world.a.contact, &parcel).map_err(|r| r.code)?;
            Ok(to_cbor(&(read.outcome, read.new_keys)))
        }),
        later: None,
        rows: answer_rows().into_iter().chain([grant]).collect(),
    }
}

/// Every field of an answer but what it says.
pub fn answer_rows() -> Vec<Row<LoginAnswer>> {
    let elsewhere = Refused(Code::UnexpectedMessage);
    vec![
        row!(LoginAnswer: request = MessageId(OTHER) => elsewhere),
        row!(LoginAnswer: hospital = id(B) => elsewhere).same(),
        row!(LoginAnswer: |m, w| time = m.time.plus(1) => Unread("the answer is fresh because it names the request"))
            .same(),
        row!(LoginAnswer: |m, w| key_change = Some(resigned(w, &key(1), m.key_change.as_ref().unwrap(), |_| {}))
            => Refused(Code::SignatureInvalid))
        .same(),
    ]
}

// The voucher.

fn voucher_at_patient() -> Delivery<Voucher> {
    let invalid = Refused(Code::VoucherInvalid);
    Delivery {
        message: "Voucher",
        to: "patient",
        signer: "source",
        forged: Code::VoucherInvalid,
        take: Box::new(|_, run| run.closed().delegation.voucher.voucher.clone()),
        deliver: Box::new(|world, bench, voucher| {
            let m = bench.ours.closed();
            let grant = VoucherGrant { voucher, chain: m.delegation.voucher.chain.clone() };
            let mut draft = m.draft.clone();
            let parcel = world.patient().delegate(&mut draft, &world.a.contact, grant, REPLY).map_err(|r| r.code)?;
            let body: DelegationBody = Parcel::parse(&parcel).unwrap().open(Kind::Delegation, "delegation").unwrap();
            Ok(to_cbor(&body.voucher))
        }),
        later: None,
        rows: vec![
            row!(Voucher: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(Voucher: source = id(B) => invalid).same(),
            row!(Voucher: delegation_key = OTHER => invalid),
            row!(Voucher: com_source = Commitment(OTHER) => invalid),
            row!(Voucher: |m, w| not_after = m.not_after.plus(1) => Kept("the source's choice; the authority holds it to it"))
                .same(),
        ],
    }
}

fn voucher_at_authority() -> Delivery<Voucher> {
    let invalid = Refused(Code::VoucherInvalid);
    Delivery {
        message: "Voucher",
        to: "authority",
        signer: "source",
        forged: Code::VoucherInvalid,
        take: Box::new(|_, run| run.closed().delegation.voucher.voucher.clone()),
        deliver: Box::new(|world, bench, voucher| {
            let mut body = bench.ours.closed().delegation.clone();
            body.voucher.voucher = voucher;
            world.authority().check_delegation(&body, &all_active).map(|i| to_cbor(&i)).map_err(|r| r.code)
        }),
        later: None,
        rows: vec![
            row!(Voucher: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(Voucher: source = id(B) => invalid).same(),
            row!(Voucher: delegation_key = OTHER => invalid),
            row!(Voucher: com_source = Commitment(OTHER) => invalid),
            row!(Voucher: |m, w| not_after = waybill_protocol::ids::Timestamp(m.not_after.0 - VOUCHER_LIFETIME_SECONDS - 1)
                => Refused(Code::VoucherExpired))
            .same(),
            row!(Voucher: |m, w| not_after = m.not_after.plus(1) => Unread("the source's choice, of which only the end matters")),
        ],
    }
}

// What hospitals and authority say of themselves.

fn key_change() -> Delivery<KeyChange> {
    let elsewhere = Refused(Code::UnexpectedMessage);
    let own = Kept("the hospital's new keys, which it alone can name");
    Delivery {
        message: "KeyChange",
        to: "patient",
        signer: "hospital",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.visit.key_change.clone()),
        deliver: Box::new(|world, _, bytes| {
            let accepted = world.patient().accept_key_change(&world.a.contact, &bytes);
            accepted.map(|keys| to_cbor(&keys)).map_err(|r| r.code)
        }),
        later: None,
        rows: vec![
            row!(KeyChange: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(KeyChange: hospital = id(B) => elsewhere).same(),
            row!(KeyChange: |m, w| from = w.b.identity.keys().thumb() => elsewhere).same(),
            row!(KeyChange: to.signing = key(1).public().clone() => own).same(),
            row!(KeyChange: |m, w| to.hpke = *fresh_hpke(w).public() => own).same(),
            row!(KeyChange: |m, w| time = m.time.plus(1) => Unread("a change is taken whenever it comes, once")).same(),
        ],
    }
}

fn authority_statement() -> Delivery<AuthorityStatement> {
    Delivery {
        message: "AuthorityStatement",
        to: "patient",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: Box::new(|world, _| world.statement.statement.clone()),
        deliver: Box::new(|world, _, statement| {
            let body = AuthorityStatementBody { statement, chain: world.authority.chain.clone() };
            let ctx = Ctx { now: world.now, backend: &world.network.backend };
            world.patient_trust.accept_statement(&ctx, &body).map_err(|r| r.code)?;
            Ok(to_cbor(world.patient_trust.lodgement_key().unwrap()))
        }),
        later: None,
        rows: vec![
            row!(AuthorityStatement: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(AuthorityStatement: authority = id("other.example") => Refused(Code::SenderWrong)).same(),
            row!(AuthorityStatement: lodgement_key = HpkePublicKey([9; 32]) => Kept("the authority's own key")).same(),
            row!(AuthorityStatement: log_origin = "other.example/log".into() => Refused(Code::LogInconsistent)).same(),
            row!(AuthorityStatement: log_key = Ed25519PublicKey([9; 32]) => Refused(Code::LogInconsistent)).same(),
            row!(AuthorityStatement: |m, w| time = m.time.plus(1) => Unread("a newer statement is taken whenever it comes")).same(),
        ],
    }
}
