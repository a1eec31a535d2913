//! Two patients who move their records between the same hospitals at the same time, step by step, and what both say at the front desk.

use minicbor::bytes::ByteArray;
use waybill_crypto::keys::{HpkeSecretKey, SigningKey};
use waybill_crypto::pseudonym::{Pseudonym, RootSecret};
use waybill_protocol::ids::{MessageId, Nonce};
use waybill_protocol::messages::{
    KeyChange, LoginAnswer, LoginBody, LoginRequest, PresentationBody, Registration, RegistrationAnswer,
    RegistrationBody,
};
use waybill_protocol::patient::{Enrolment, Exchange};
use waybill_protocol::registrar::{EnrolmentCode, LocalPatient, Registered};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Message, SignedBytes};
use waybill_protocol::wire::{Kind, from_cbor, to_cbor};

use crate::common::*;
use crate::questions::{Asked, ask};

pub const LIMIT: usize = 1 << 22;

/// What one patient and hospital A say to each other at the front desk.
#[derive(Clone)]
pub struct Visit {
    pub enrolment: Enrolment,
    pub code: EnrolmentCode,
    pub registering: Exchange,
    pub registration_sealed: SealedBytes,
    pub registration: SignedBytes<Registration>,
    /// What the hospital then has under the pseudonym that this registers.
    pub registered: (Pseudonym, Registered),
    pub registration_answer_sealed: SealedBytes,
    pub registration_answer: SignedBytes<RegistrationAnswer>,
    pub logging_in: Exchange,
    pub login_sealed: SealedBytes,
    pub login: SignedBytes<LoginRequest>,
    pub login_answer_sealed: SealedBytes,
    pub login_answer: SignedBytes<LoginAnswer>,
    pub key_change: SignedBytes<KeyChange>,
    /// What else is asked there.
    pub asked: Vec<Asked>,
}

/// One patient's run: the case after every step, and the visit.
pub struct Run {
    steps: Vec<Migration>,
    pub visit: Visit,
    pub at_a: (Pseudonym, Registered),
    pub at_b: (Pseudonym, Registered),
}

impl Run {
    /// The case right after a step.
    pub fn at(&self, step: Step) -> Migration {
        self.steps[Step::ALL.iter().position(|s| *s == step).unwrap()].clone()
    }

    pub fn closed(&self) -> &Migration {
        self.steps.last().unwrap()
    }

    pub fn presentation(&self, world: &World) -> PresentationBody {
        let sealed = self.closed().presentation.as_ref().unwrap();
        let identity = &world.b.identity;
        opened("presentation", sealed, world, &identity.hpke, SealPurpose::Presentation, B.as_bytes())
    }
}

/// Our patient's run and the other's.
pub struct Bench {
    pub ours: Run,
    pub other: Run,
}

impl Bench {
    pub fn new(world: &mut World) -> Self {
        let ours = run(world);
        let before = become_other(world);
        let other = run(world);
        come_back(world, before);
        Self { ours, other }
    }

    /// Who is registered at A under a pseudonym, as a shell that knows both patients would find it: the other's visit is over.
    pub fn registered_at_a(&self, pid: &Pseudonym) -> Option<&Registered> {
        [&self.ours.at_a, &self.other.at_a, &self.other.visit.registered]
            .into_iter()
            .find(|(known, _)| known == pid)
            .map(|(_, r)| r)
    }

    pub fn registered_at_b(&self, pid: &Pseudonym) -> Option<&Registered> {
        [&self.ours.at_b, &self.other.at_b].into_iter().find(|(known, _)| known == pid).map(|(_, r)| r)
    }
}

fn run(world: &mut World) -> Run {
    let mut m = world.prove(0);
    let mut steps = vec![m.clone()];
    for pair in Step::ALL.windows(2) {
        world.advance(&mut m, pair[0], pair[1]);
        steps.push(m.clone());
    }
    let at = |hospital: &str, registered: &Registered| (world.root.pid(hospital, 0), registered.clone());
    let (at_a, at_b) = (at(A, &world.a.registered), at(B, &world.b.registered));
    Run { steps, visit: visit(world), at_a, at_b }
}

pub fn opened<T>(
    what: &'static str,
    sealed: &SealedBytes,
    world: &World,
    key: &HpkeSecretKey,
    purpose: SealPurpose,
    bound: &[u8],
) -> T
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    from_cbor(what, &sealed.open(&world.network.backend, key, purpose, bound).unwrap(), LIMIT).unwrap()
}

/// The key that opens the answer of an exchange.
pub fn reply_secret(exchange: &Exchange) -> HpkeSecretKey {
    let (_, secret): (MessageId, ByteArray<32>) = minicbor::decode(&to_cbor(exchange)).unwrap();
    HpkeSecretKey::from_bytes(&secret)
}

/// A second key is registered at A, and a login asks for a voucher, while A has changed its keys.
fn visit(world: &mut World) -> Visit {
    let identity = &mut world.a.identity;
    if identity.change.is_none() {
        let keys = world.b.identity.keys();
        let ctx = waybill_protocol::trust::Ctx { now: world.now, backend: &world.network.backend };
        identity.change = Some(identity.sign_change(&ctx, keys));
    }
    let (patient, registrar, a) = (world.patient(), world.registrar(), &world.a.identity);
    let code = EnrolmentCode::for_oneself(world.a.registered.local.clone(), world.now.plus(60));
    let mailbox = "https://relay.example/mailbox/a".to_owned();
    let enrolment = Enrolment { hospital: id(A), keys: a.keys(), mailbox, code: Nonce::random(&world.network.backend) };
    let (registering, parcel) = patient.register(&enrolment, 1, REPLY).unwrap();
    let registration_sealed = sealed(&parcel, Kind::Registration);
    let body: RegistrationBody =
        opened("body", &registration_sealed, world, &a.hpke, SealPurpose::Registration, A.as_bytes());
    let said = registrar.open_registration(&registration_sealed).unwrap();
    let (registered, effects) = registrar.handle_registration(&said, Some(&code), None).unwrap();
    let registration_answer_sealed: SealedBytes =
        posted(&effects, Kind::RegistrationAnswer).open(Kind::RegistrationAnswer, "answer").unwrap();
    let answer = |sealed: &SealedBytes, exchange: &Exchange, purpose| {
        sealed.open(&world.network.backend, &reply_secret(exchange), purpose, exchange.request().as_bytes()).unwrap()
    };
    let plain = answer(&registration_answer_sealed, &registering, SealPurpose::RegistrationAnswer);

    let draft = patient.draft(1, &world.a.contact, &world.b.contact, world.wish());
    let (logging_in, parcel) = patient.login(&world.a.contact, patient.voucher_purpose(&draft), REPLY).unwrap();
    let login_sealed = sealed(&parcel, Kind::Login);
    let login: LoginBody = opened("login", &login_sealed, world, &a.hpke, SealPurpose::Login, A.as_bytes());
    let login_opened = registrar.open_login(&login_sealed).unwrap();
    let verified = registrar.verify_login(login_opened, Some(&world.a.registered)).unwrap();
    let effect = registrar.answer_login(&verified, registrar.issue_voucher(&verified).unwrap()).unwrap();
    let login_answer_sealed: SealedBytes =
        posted(&[effect], Kind::LoginAnswer).open(Kind::LoginAnswer, "answer").unwrap();
    let login_plain = answer(&login_answer_sealed, &logging_in, SealPurpose::LoginAnswer);
    Visit {
        enrolment,
        code,
        registering,
        registration_sealed,
        registration: body.registration,
        registered: (*said.pid(), registered),
        registration_answer_sealed,
        registration_answer: from_cbor("answer", &plain, LIMIT).unwrap(),
        logging_in,
        login_sealed,
        login: login.request,
        login_answer_sealed,
        login_answer: from_cbor("answer", &login_plain, LIMIT).unwrap(),
        key_change: a.change.clone().unwrap(),
        asked: ask(world),
    }
}

type Person =
    (RootSecret, waybill_protocol::registrar::Registered, Registered, [waybill_protocol::patient::Contact; 2]);

/// From here on the world's patient is another one, registered at the same hospitals.
pub fn become_other(world: &mut World) -> Person {
    let root = RootSecret::from_bytes([8; 32]);
    let (at_a, contact_a) = register(&world.network, &root, &world.a.identity, "other-at-a");
    let (at_b, contact_b) = register(&world.network, &root, &world.b.identity, "other-at-b");
    assert_eq!(at_a.local, LocalPatient("other-at-a".into()));
    come_back(world, (root, at_a, at_b, [contact_a, contact_b]))
}

pub fn come_back(world: &mut World, person: Person) -> Person {
    let (root, at_a, at_b, [contact_a, contact_b]) = person;
    let replace = std::mem::replace::<Registered>;
    (
        std::mem::replace(&mut world.root, root),
        replace(&mut world.a.registered, at_a),
        replace(&mut world.b.registered, at_b),
        [std::mem::replace(&mut world.a.contact, contact_a), std::mem::replace(&mut world.b.contact, contact_b)],
    )
}

/// The keys that a signer of the table signs with.
pub fn keys_of(world: &World, signer: &str) -> Vec<SigningKey> {
    let consent = |hospital: &str| vec![world.root.consent_key(hospital, 0), world.root.consent_key(hospital, 1)];
    match signer {
        "consent key at the hospital" | "consent key at the source" => consent(A),
        "consent key at the destination" => consent(B),
        "hospital" | "source" => vec![world.a.identity.signing.clone()],
        "destination" => vec![world.b.identity.signing.clone()],
        "authority" => vec![world.authority.proof_signing.clone()],
        "delegation key" => vec![world.root.delegation_key(0), world.root.delegation_key(1)],
        "revocation key" => vec![world.root.revocation_key(0)],
        other => panic!("nobody in this run is the table's {other}"),
    }
}

/// A message's place in the authority's log, whatever its signature is worth.
pub fn logged<M: Message>(
    world: &mut World,
    kind: waybill_protocol::log::LeafKind,
    bytes: &SignedBytes<M>,
) -> waybill_protocol::log::LogEvidence {
    let id = bytes.parse().map_or(waybill_crypto::keys::Digest([0; 32]), |message| message.message_id().0);
    world.log.append(&world.network.backend, kind, &id, [3; 16])
}
