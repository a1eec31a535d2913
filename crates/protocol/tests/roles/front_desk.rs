//! Registration and login: what the hospital checks, and what the wallet checks of its answer (PROTOCOL section 6.4).

use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, SigningKey};
use waybill_crypto::metered::{Meter, Metered, Operation};
use waybill_crypto::portable::Portable;
use waybill_protocol::ids::{MessageId, Nonce, Timestamp};
use waybill_protocol::messages::{
    KeyChange, Limits, LoginAnswer, LoginBody, LoginOutcome, LoginRequest, Purpose, Registration, RegistrationAnswer,
    RegistrationBody, Relation, SUITE,
};
use waybill_protocol::patient::{Enrolment, LoginRead};
use waybill_protocol::registrar::{
    Attestation, EnrolmentCode, LOGIN_WINDOW_SECONDS, LocalPatient, Registered, Registrar,
};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Message, Signed, SignedBytes};
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::{Kind, Parcel, from_cbor, to_cbor};
use waybill_record::hides::Hides;

use crate::common::*;

fn enrolment(world: &World) -> Enrolment {
    Enrolment {
        hospital: id(A),
        keys: world.a.identity.keys(),
        mailbox: "https://relay.example/mailbox/a".into(),
        code: Nonce([5; 16]),
    }
}

fn code_of(local: &str) -> EnrolmentCode {
    EnrolmentCode::for_oneself(LocalPatient(local.into()), NOW.plus(60))
}

/// A registration, honest but for one field.
fn registration(
    world: &World,
    to: &HpkePublicKey,
    key: &SigningKey,
    alter: impl FnOnce(&mut Registration),
) -> SealedBytes {
    let own = world.root.consent_key(A, 1);
    let mut said = Registration {
        suite: SUITE,
        hospital: id(A),
        code: Nonce([5; 16]),
        pid: world.root.pid(A, 1),
        consent_key: own.public().clone(),
        reply_key: *fresh_hpke(world).public(),
        reply_to: REPLY.into(),
        nonce: Nonce([1; 16]),
        time: world.now,
    };
    alter(&mut said);
    let body = RegistrationBody { registration: SignedBytes::from(&Signed::sign(&world.network.backend, key, said)) };
    SealedBytes::seal(&world.network.backend, to, SealPurpose::Registration, A.as_bytes(), &to_cbor(&body)).unwrap()
}

#[test]
fn a_registration_must_be_meant_for_us_fresh_and_signed_by_the_key_it_registers() {
    let world = World::new();
    let (to, key) = (world.a.identity.keys().hpke, world.root.consent_key(A, 1));
    let open = |sealed: SealedBytes| world.registrar().open_registration(&sealed);
    assert!(open(registration(&world, &to, &key, |_| {})).is_ok());
    let wrong = [
        registration(&world, &to, &key, |r| r.hospital = id(B)),
        registration(&world, &to, &key, |r| r.time = r.time.plus(LOGIN_WINDOW_SECONDS + 1)),
        registration(&world, &to, &SigningKey::derive(&[1; 32]), |_| {}),
        registration(&world, &to, &key, |r| r.consent_key = SigningKey::derive(&[1; 32]).public().clone()),
        registration(&world, fresh_hpke(&world).public(), &key, |_| {}),
    ];
    for sealed in wrong {
        assert_eq!(code(open(sealed)), Code::RegistrationInvalid);
    }
}

#[test]
fn an_enrolment_code_serves_once_in_time_for_one_patient() {
    let world = World::new();
    let (to, key) = (world.a.identity.keys().hpke, world.root.consent_key(A, 1));
    let opened = world.registrar().open_registration(&registration(&world, &to, &key, |_| {})).unwrap();
    let register = |code: Option<&EnrolmentCode>, existing: Option<Registered>| {
        world.registrar().handle_registration(&opened, code, existing).map(|(registered, _)| registered)
    };
    assert_eq!(code(register(None, None)), Code::CodeInvalid);
    let stale = EnrolmentCode { expires: Timestamp(NOW.0 - 1), ..code_of("p") };
    assert_eq!(code(register(Some(&stale), None)), Code::CodeInvalid);
    let first = register(Some(&code_of("p")), None).unwrap();
    assert_eq!(first.keys.len(), 1);
    assert_eq!(
        first.keys[0].expires,
        NOW.plus(5 * 365 * DAY),
        "without a limit of its own a key speaks for five years"
    );
    // A pseudonym stays with its patient; the same key again is not a second key.
    assert_eq!(code(register(Some(&code_of("q")), Some(first.clone()))), Code::CodeInvalid);
    assert_eq!(register(Some(&code_of("p")), Some(first)).unwrap().keys.len(), 1);
}

/// What a wallet asks in a registration.
fn asked_for(world: &World, parcel: &[u8]) -> Registration {
    let (backend, key) = (&world.network.backend, &world.a.identity.hpke);
    let plain = sealed(parcel, Kind::Registration).open(backend, key, SealPurpose::Registration, A.as_bytes()).unwrap();
    let body: RegistrationBody = from_cbor("registration", &plain, 1 << 16).unwrap();
    body.registration.parse().unwrap().peek().clone()
}

#[test]
fn no_two_registrations_of_a_wallet_share_a_reply_key() {
    let world = World::new();
    let enrolment = enrolment(&world);
    let again = || asked_for(&world, &world.patient().register(&enrolment, 1, REPLY).unwrap().1);
    let (one, two) = (again(), again());
    assert_eq!((&one.pid, &one.consent_key), (&two.pid, &two.consent_key));
    assert_ne!(one.reply_key, two.reply_key, "a lasting one would open what was recorded");
}

#[test]
fn the_wallet_accepts_a_registration_only_under_the_keys_it_was_shown() {
    let world = World::new();
    let enrolment = enrolment(&world);
    let (exchange, parcel) = world.patient().register(&enrolment, 1, REPLY).unwrap();
    let reply = asked_for(&world, &parcel).reply_key;
    let answer = |key: &SigningKey, alter: &dyn Fn(&mut RegistrationAnswer)| {
        let mut said = RegistrationAnswer {
            request: exchange.request(),
            hospital: id(A),
            keys: world.a.identity.keys(),
            relation: Relation::OneSelf,
            expires: NOW.plus(60),
            limits: Limits::none(),
        };
        alter(&mut said);
        answered(
            &world,
            key,
            &reply,
            SealPurpose::RegistrationAnswer,
            exchange.request(),
            Kind::RegistrationAnswer,
            said,
        )
    };
    let accept = |parcel: Parcel| world.patient().accept_registration(&exchange, &enrolment, 1, &parcel);
    let own = &world.a.identity.signing;
    assert!(accept(answer(own, &|_| {})).is_ok());
    assert_eq!(code(accept(answer(&world.stranger(A).0, &|_| {}))), Code::SignatureInvalid);
    for parcel in [
        answer(own, &|a| a.request = MessageId(Digest([1; 32]))),
        answer(own, &|a| a.hospital = id(B)),
        answer(own, &|a| a.keys = world.b.identity.keys()),
    ] {
        assert_eq!(code(accept(parcel)), Code::RegistrationInvalid);
    }
}

fn answered<M: Message>(
    world: &World,
    key: &SigningKey,
    to: &HpkePublicKey,
    purpose: SealPurpose,
    bound: MessageId,
    kind: Kind,
    said: M,
) -> Parcel {
    let backend = &world.network.backend;
    let plain = to_cbor(&SignedBytes::from(&Signed::sign(backend, key, said)));
    let sealed = SealedBytes::seal(backend, to, purpose, bound.as_bytes(), &plain).unwrap();
    Parcel::parse(&Parcel::pack(kind, &sealed)).unwrap()
}

// Login.

struct Login {
    said: LoginRequest,
    key: SigningKey,
}

fn login(world: &World) -> Login {
    let said = LoginRequest {
        suite: SUITE,
        hospital: id(A),
        pid: world.root.pid(A, 0),
        nonce: Nonce([1; 16]),
        time: world.now,
        reply_key: *fresh_hpke(world).public(),
        reply_to: REPLY.into(),
        purpose: preview_all(),
    };
    Login { said, key: world.root.consent_key(A, 0) }
}

fn seal_login(world: &World, login: &Login) -> SealedBytes {
    let backend = &world.network.backend;
    let body = LoginBody { request: SignedBytes::from(&Signed::sign(backend, &login.key, login.said.clone())) };
    let to = world.a.identity.keys().hpke;
    SealedBytes::seal(backend, &to, SealPurpose::Login, A.as_bytes(), &to_cbor(&body)).unwrap()
}

fn log_in(world: &World, login: &Login) -> Result<(), Code> {
    let registrar = world.registrar();
    let opened = registrar.open_login(&seal_login(world, login)).map_err(|r| r.code)?;
    let known = world.a.registered_at(&world.root, opened.pid());
    registrar.verify_login(opened, known).map(|_| ()).map_err(|r| r.code)
}

#[test]
fn a_login_is_refused_alike_whoever_asks_and_whatever_is_wrong() {
    let mut world = World::new();
    assert_eq!(log_in(&world, &login(&world)), Ok(()));
    let mut elsewhere = login(&world);
    elsewhere.said.hospital = id(B);
    assert_eq!(log_in(&world, &elsewhere), Err(Code::LoginRefused));
    let mut unknown = login(&world);
    unknown.said.pid = world.root.pid(A, 1);
    assert_eq!(log_in(&world, &unknown), Err(Code::LoginRefused));
    let mut unregistered = login(&world);
    unregistered.key = world.network.backend.generate_signing_key();
    assert_eq!(log_in(&world, &unregistered), Err(Code::LoginRefused));
    for time in [NOW.plus(LOGIN_WINDOW_SECONDS + 1), Timestamp(NOW.0 - LOGIN_WINDOW_SECONDS - 1)] {
        let mut stale = login(&world);
        stale.said.time = time;
        assert_eq!(log_in(&world, &stale), Err(Code::LoginStale));
    }
    let honest = login(&world);
    world.a.registered.keys[0].expires = Timestamp(NOW.0 - 1);
    assert_eq!(log_in(&world, &honest), Err(Code::RegistrationExpired));
    world.a.registered.keys[0].expires = NOW;
    assert_eq!(log_in(&world, &honest), Ok(()), "the last second counts");
    for code in [Code::LoginStale, Code::RegistrationExpired, Code::LoginReplayed] {
        assert_eq!(code.public(), Code::LoginRefused, "the outside sees one refusal");
    }
}

#[test]
fn an_unknown_key_costs_the_verification_that_a_known_one_costs() {
    let world = World::new();
    let meter = Meter::new(|| 0);
    let backend = Metered::new(Portable::from_seed([1; 32]), meter.clone());
    let ctx = Ctx { now: world.now, backend: &backend };
    let verifications = || meter.snapshot().iter().filter(|c| c.operation == Operation::Verify).map(|c| c.count).sum();
    let stranger = world.network.backend.generate_signing_key();
    let known = login(&world);
    let ours = Some(&world.a.registered);
    for (key, registered, taken) in [(&known.key, ours, true), (&stranger, ours, false), (&stranger, None, false)] {
        let before: u64 = verifications();
        let message = SignedBytes::from(&Signed::sign(&world.network.backend, key, known.said.clone()));
        let verified = Registered::verify(registered, &ctx, message.parse().unwrap());
        assert_eq!(verified.is_ok(), taken);
        assert_eq!(verifications() - before, 1);
    }
}

#[test]
fn a_login_sealed_to_another_hospital_does_not_open_here() {
    let world = World::new();
    let sealed = seal_login(&world, &login(&world));
    let other = Registrar { ctx: world.ctx(), hospital: &world.b.identity };
    assert_eq!(code(other.open_login(&sealed).map(|_| ())), Code::LoginRefused);
}

#[test]
fn a_replayed_login_meets_its_nonces_row() {
    let world = World::new();
    let sealed = seal_login(&world, &login(&world));
    let rows = [(); 2].map(|()| world.registrar().open_login(&sealed).unwrap().nonce_row());
    assert_eq!(rows[0], rows[1], "the shell inserts this row once; a conflict is login-replayed");
}

#[test]
fn a_voucher_is_given_only_to_a_login_that_asks_for_one() {
    let world = World::new();
    let registrar = world.registrar();
    let opened = registrar.open_login(&seal_login(&world, &login(&world))).unwrap();
    let verified = registrar.verify_login(opened, Some(&world.a.registered)).unwrap();
    assert_eq!(code(registrar.issue_voucher(&verified)), Code::UnexpectedMessage);
}

#[test]
fn a_voucher_is_given_only_for_the_pseudonym_that_asks() {
    use waybill_crypto::commitment::Opening;
    let world = World::new();
    let opening = Opening::from_bytes([1; 32]);
    let vouch = |com_source, opening: &Opening| {
        let mut asked = login(&world);
        let delegation_key = Digest([2; 32]);
        asked.said.purpose = Purpose::Voucher { delegation_key, com_source, opening: opening.clone() };
        let registrar = world.registrar();
        let opened = registrar.open_login(&seal_login(&world, &asked)).unwrap();
        let verified = registrar.verify_login(opened, Some(&world.a.registered)).unwrap();
        registrar.issue_voucher(&verified)
    };
    let to = |epoch| commitment("pid-source", &opening, &to_cbor(&world.root.pid(A, epoch)));
    assert!(vouch(to(0), &opening).is_ok());
    assert_eq!(code(vouch(to(1), &opening)), Code::LoginRefused, "another's pseudonym");
    assert_eq!(code(vouch(to(0), &Opening::from_bytes([3; 32]))), Code::LoginRefused);
}

#[test]
fn an_answer_must_be_the_pinned_hospitals_to_exactly_this_request() {
    let world = World::new();
    let contact = &world.a.contact;
    let (exchange, parcel) = world.patient().login(contact, preview_all(), REPLY).unwrap();
    let opened = sealed(&parcel, Kind::Login);
    let own = &world.a.identity;
    let plain = opened.open(&world.network.backend, &own.hpke, SealPurpose::Login, A.as_bytes()).unwrap();
    let body: LoginBody = waybill_protocol::wire::from_cbor("login", &plain, 1 << 20).unwrap();
    let reply = body.request.parse().unwrap().peek().reply_key;
    let answer = |key: &SigningKey, to: &HpkePublicKey, bound: MessageId, alter: &dyn Fn(&mut LoginAnswer)| {
        let outcome = LoginOutcome::Preview { preview: preview() };
        let mut said =
            LoginAnswer { request: exchange.request(), hospital: id(A), time: NOW, outcome, key_change: None };
        alter(&mut said);
        answered(&world, key, to, SealPurpose::LoginAnswer, bound, Kind::LoginAnswer, said)
    };
    let other = MessageId(Digest([1; 32]));
    let accept = |parcel: Parcel| world.patient().accept_login(&exchange, contact, &parcel);
    let key = &own.signing;
    assert!(accept(answer(key, &reply, exchange.request(), &|_| {})).is_ok());
    let wrong = [
        (answer(key, &reply, exchange.request(), &|a| a.request = other), Code::UnexpectedMessage),
        (answer(key, &reply, exchange.request(), &|a| a.hospital = id(B)), Code::UnexpectedMessage),
        (answer(key, &reply, other, &|_| {}), Code::UnexpectedMessage),
        (answer(key, fresh_hpke(&world).public(), exchange.request(), &|_| {}), Code::UnexpectedMessage),
        (answer(&world.stranger(A).0, &reply, exchange.request(), &|_| {}), Code::SignatureInvalid),
        (answer(&world.b.identity.signing, &reply, exchange.request(), &|_| {}), Code::SignatureInvalid),
    ];
    for (parcel, expected) in wrong {
        assert_eq!(code(accept(parcel)), expected);
    }
    let refused = |a: &mut LoginAnswer| a.outcome = LoginOutcome::Refused { code: Code::LoginRefused };
    let parcel = answer(key, &reply, exchange.request(), &refused);
    assert_eq!(code(accept(parcel.clone())), Code::LoginRefused);
    let read = world.patient().read_login(&exchange, contact, &parcel).unwrap();
    assert!(matches!(read, LoginRead { outcome: LoginOutcome::Refused { .. }, new_keys: None }));
}

#[test]
fn an_answer_to_an_earlier_request_answers_no_later_one() {
    let world = World::new();
    let (patient, registrar, enrolment) = (world.patient(), world.registrar(), enrolment(&world));
    let register = || {
        let (exchange, parcel) = patient.register(&enrolment, 1, REPLY).unwrap();
        let opened = registrar.open_registration(&sealed(&parcel, Kind::Registration)).unwrap();
        let (_, effects) = registrar.handle_registration(&opened, Some(&code_of("p")), None).unwrap();
        (exchange, posted(&effects, Kind::RegistrationAnswer))
    };
    // Both are sealed to the same lasting key; what keeps them apart is the request that each of them is bound to.
    let ((one, earlier), (two, answer)) = (register(), register());
    let accept = |exchange, parcel| patient.accept_registration(exchange, &enrolment, 1, parcel);
    assert!(accept(&one, &earlier).is_ok() && accept(&two, &answer).is_ok());
    assert_eq!(code(accept(&two, &earlier)), Code::UnexpectedMessage);

    let contact = &world.a.contact;
    let log_in = || {
        let (exchange, parcel) = patient.login(contact, preview_all(), REPLY).unwrap();
        let opened = registrar.open_login(&sealed(&parcel, Kind::Login)).unwrap();
        let verified = registrar.verify_login(opened, Some(&world.a.registered)).unwrap();
        let answer = registrar.answer_login(&verified, LoginOutcome::Preview { preview: preview() }).unwrap();
        (exchange, posted(&[answer], Kind::LoginAnswer))
    };
    let ((one, earlier), (two, answer)) = (log_in(), log_in());
    let accept = |exchange, parcel| patient.accept_login(exchange, contact, parcel);
    assert!(accept(&one, &earlier).is_ok() && accept(&two, &answer).is_ok());
    assert_eq!(code(accept(&two, &earlier)), Code::UnexpectedMessage);
}

// What a key may decide.

fn limited() -> Limits {
    Limits { scope: "types=Immunization".parse().unwrap(), destinations: vec![id(B)] }
}

#[test]
fn a_preview_beyond_the_keys_limits_is_refused_and_within_them_answered() {
    let mut world = World::new();
    world.a.registered.keys[0].limits = limited();
    let refusal = |scope: &str| {
        let mut asked = login(&world);
        asked.said.purpose = Purpose::Preview { scope: scope.parse().unwrap(), hides: Hides::default() };
        let registrar = world.registrar();
        let opened = registrar.open_login(&seal_login(&world, &asked)).unwrap();
        registrar.verify_login(opened, Some(&world.a.registered)).unwrap().refusal()
    };
    assert_eq!(refusal("types=Immunization"), None);
    let limit = Some(LoginOutcome::Refused { code: Code::ConsentLimit });
    assert_eq!(refusal("types=Immunization,Observation"), limit);
    assert_eq!(refusal("types=*;labels=*"), limit);
}

#[test]
fn a_code_for_another_carries_its_limits_and_end_into_the_registration() {
    let world = World::new();
    let (to, key) = (world.a.identity.keys().hpke, world.root.consent_key(A, 1));
    let opened = world.registrar().open_registration(&registration(&world, &to, &key, |_| {})).unwrap();
    let code = EnrolmentCode {
        relation: Relation::Guardian,
        limits: limited(),
        key_expires: NOW.plus(86_400),
        ..code_of("p")
    };
    let (registered, _) = world.registrar().handle_registration(&opened, Some(&code), None).unwrap();
    let [key] = registered.keys.as_slice() else { panic!("one key") };
    assert_eq!((key.relation, &key.limits, key.expires), (Relation::Guardian, &limited(), NOW.plus(86_400)));
}

#[test]
fn a_key_on_a_signed_form_needs_two_people_who_saw_it() {
    let world = World::new();
    let (to, key) = (world.a.identity.keys().hpke, world.root.consent_key(A, 1));
    let opened = world.registrar().open_registration(&registration(&world, &to, &key, |_| {})).unwrap();
    let attested = |staff: Option<&[&str]>| {
        let attestation = staff.map(|staff| Attestation {
            form: Digest([9; 32]),
            staff: staff.iter().map(|name| (*name).to_owned()).collect(),
        });
        let code = EnrolmentCode { relation: Relation::RegistrarAttested, attestation, ..code_of("p") };
        world.registrar().handle_registration(&opened, Some(&code), None).map(|_| ()).map_err(|r| r.code)
    };
    assert_eq!(attested(Some(&["ada", "grace"])), Ok(()));
    for staff in [None, Some(&["ada"][..]), Some(&["ada", "ada"]), Some(&["ada", ""]), Some(&["a", "b", "c"])] {
        assert_eq!(attested(staff), Err(Code::CodeInvalid), "{staff:?}");
    }
}

// A change of keys.

#[test]
fn new_keys_are_believed_only_when_the_pinned_key_names_them_as_its_successors() {
    let world = World::new();
    let (contact, own) = (&world.a.contact, &world.a.identity);
    let new = HospitalKeys { signing: world.stranger(A).0.public().clone(), hpke: *fresh_hpke(&world).public() };
    let accept = |bytes: &SignedBytes<KeyChange>| world.patient().accept_key_change(contact, bytes);
    let honest = own.sign_change(&world.ctx(), new.clone());
    assert_eq!(accept(&honest), Ok(new.clone()));
    let altered = |key: &SigningKey, alter: &dyn Fn(&mut KeyChange)| accept(&resigned(&world, key, &honest, alter));
    assert_eq!(code(altered(&world.stranger(A).0, &|_| {})), Code::SignatureInvalid, "another certificate of A's name");
    assert_eq!(code(accept(&forged(&honest))), Code::SignatureInvalid);
    let key = &own.signing;
    assert_eq!(code(altered(key, &|c| c.hospital = id(B))), Code::UnexpectedMessage);
    assert_eq!(code(altered(key, &|c| c.from = world.b.identity.keys().thumb())), Code::UnexpectedMessage);
    assert_eq!(code(altered(key, &|c| c.to = own.keys())), Code::UnexpectedMessage);
}

#[test]
fn a_wallet_that_pins_replaced_keys_is_answered_under_them_and_told_the_new_ones() {
    let mut world = World::new();
    let new = HospitalKeys { signing: world.stranger(A).0.public().clone(), hpke: *fresh_hpke(&world).public() };
    world.a.identity.change = Some(world.a.identity.sign_change(&world.ctx(), new.clone()));
    let (exchange, parcel) = world.patient().login(&world.a.contact, preview_all(), REPLY).unwrap();
    let registrar = world.registrar();
    let opened = registrar.open_login(&sealed(&parcel, Kind::Login)).unwrap();
    let verified = registrar.verify_login(opened, Some(&world.a.registered)).unwrap();
    let answer = registrar.answer_login(&verified, LoginOutcome::Preview { preview: preview() }).unwrap();
    let answer = posted(&[answer], Kind::LoginAnswer);
    let read = world.patient().read_login(&exchange, &world.a.contact, &answer).unwrap();
    assert_eq!(read.new_keys, Some(new));
}
