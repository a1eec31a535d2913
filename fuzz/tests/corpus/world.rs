//! Seeds from whole cases, played in memory by the role functions: parcels, bodies, rows, evidence.

use minicbor::Encode;
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::Digest;
use waybill_fuzz::fixture;
use waybill_fuzz::targets::messages::BODY_NAMES;
use waybill_protocol::destination::RevealedKey;
use waybill_protocol::evidence::{Evidence, Signer};
use waybill_protocol::log::tiles::LogEdge;
use waybill_protocol::log::witness::WitnessState;
use waybill_protocol::messages::{
    LoginOutcome, ManifestPlain, PresentationBody, Purpose, ReceiptOpening, RegistrationBody, RevocationBody,
};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::digest::Inventory;
use waybill_record::hides::Hides;
use waybill_record::loss::{LossOutcome, LossReport};
use waybill_record::resource::ResourceKey;
use waybill_record::scope::Scope;
use waybill_record::types::ResourceType;

use crate::Seeds;
use crate::common::{A, Migration, REPLY, Step, World, id, preview, preview_all};

struct Bodies<'a>(&'a mut Seeds);

impl Bodies<'_> {
    /// A seed of the target `body`, under its place in the target's list.
    fn add<T: Encode<()>>(&mut self, value: &T) {
        let path = std::any::type_name::<T>();
        let name = path.rsplit("::").next().unwrap();
        self.add_as(name, "", value);
    }

    fn add_as<T: Encode<()>>(&mut self, name: &str, suffix: &str, value: &T) {
        let which = BODY_NAMES.iter().position(|known| *known == name);
        let which = which.unwrap_or_else(|| panic!("{name} is no structure of the target `body`"));
        self.0.add_of("body", &format!("ok-{name}{suffix}"), which, &to_cbor(value));
    }
}

pub fn add(seeds: &mut Seeds) {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    evidence(seeds, &world, &m);
    parcels(seeds, &m);
    let mut bodies = Bodies(seeds);
    posted(&mut bodies, &world, &m);
    rows(&mut bodies, &world, &m);
    record(&mut bodies);
}

/// What all of a case's parties hold together, and what one of them holds.
fn evidence(seeds: &mut Seeds, world: &World, m: &Migration) {
    let policy = || world.log.policy();
    let own = Signer { keys: world.a.identity.keys(), chain: world.a.identity.chain.clone() };
    let destination = Evidence::of_destination(world.statement.clone(), policy(), &m.destination());
    let source = Evidence::of_source(world.statement.clone(), policy(), &m.source(), own);
    let mut whole = destination.clone();
    whole.merge(source.clone());
    whole.add_delegation(&m.draft, m.delegation.clone());
    let mut accusing = whole.clone();
    accusing.revealed_key = Some(RevealedKey(*m.secret().to_bytes()));
    for (name, file) in
        [("ok-whole", whole), ("ok-destination", destination), ("ok-source", source), ("ok-accusing", accusing)]
    {
        seeds.add("evidence", name, file.to_bytes());
    }
    if std::env::var_os("WAYBILL_WRITE_VECTORS").is_some() {
        std::fs::write(crate::folder("fixtures/evidence-root.der"), world.network.anchor.as_der()).unwrap();
    }
}

fn parcels(seeds: &mut Seeds, m: &Migration) {
    let mut add = |kind: Kind, bytes: Vec<u8>| seeds.add("parcel", &format!("ok-{kind:?}"), bytes);
    add(Kind::Delegation, Parcel::pack(Kind::Delegation, &m.delegation));
    add(Kind::Presentation, Parcel::pack(Kind::Presentation, m.presentation.as_ref().unwrap()));
    add(Kind::TransferRequest, Parcel::pack(Kind::TransferRequest, m.request.as_ref().unwrap()));
    add(Kind::Redeem, Parcel::pack(Kind::Redeem, m.redeem.as_ref().unwrap()));
    add(Kind::Grant, Parcel::pack(Kind::Grant, m.grant.as_ref().unwrap()));
    add(Kind::Manifest, Parcel::pack(Kind::Manifest, m.manifest.as_ref().unwrap()));
    add(Kind::KeyLodgement, Parcel::pack(Kind::KeyLodgement, m.lodgement.as_ref().unwrap()));
    add(Kind::DeliveryReceipt, Parcel::pack(Kind::DeliveryReceipt, m.delivery.as_ref().unwrap()));
    add(Kind::KeyRelease, Parcel::pack(Kind::KeyRelease, m.release.as_ref().unwrap()));
    add(Kind::ImportReceipt, Parcel::pack(Kind::ImportReceipt, m.receipt.as_ref().unwrap()));
    add(Kind::CaseStatement, Parcel::pack(Kind::CaseStatement, m.statement.as_ref().unwrap()));
}

/// What travels, in parcels or sealed.
fn posted(bodies: &mut Bodies<'_>, world: &World, m: &Migration) {
    let backend = fixture::backend();
    let sealed =
        SealedBytes::seal(backend, fixture::hpke_key().public(), SealPurpose::Consent, b"x", b"plain").unwrap();
    let bundle = &m.request.as_ref().unwrap().proof;
    bodies.add(&sealed);
    bodies.add(&bundle.chain);
    bodies.add(&bundle.evidence);
    bodies.add(&m.delegation);
    bodies.add(m.request.as_ref().unwrap());
    bodies.add(m.redeem.as_ref().unwrap());
    bodies.add(m.grant.as_ref().unwrap());
    bodies.add(m.manifest.as_ref().unwrap());
    bodies.add(m.lodgement.as_ref().unwrap());
    bodies.add(m.delivery.as_ref().unwrap());
    bodies.add(m.release.as_ref().unwrap());
    bodies.add(m.receipt.as_ref().unwrap());
    bodies.add(m.statement.as_ref().unwrap());
    bodies.add(&RevocationBody { revocation: SignedBytes::from(vec![0xd2, 0x84]), chain: bundle.chain.clone() });
    bodies.add(&RegistrationBody { registration: SignedBytes::from(vec![0xd2, 0x84]) });
    bodies.add(&world.statement);
    bodies.add(bundle);
    let consent = m.request.as_ref().unwrap().consent.clone();
    bodies.add(&PresentationBody { presentation: SignedBytes::from(vec![0xd2]), proof: bundle.clone(), consent });
    let manifest = m.source().manifest.unwrap();
    bodies.add(&ManifestPlain { manifest, chain: world.a.identity.chain.clone() });
    bodies.add(&ReceiptOpening { opening: Opening::from_bytes([3; 32]), detail: to_cbor(&m.detail()) });
    bodies.add(&m.detail());
    bodies.add(&m.delegation.voucher);
    let voucher = Purpose::Voucher {
        delegation_key: Digest([1; 32]),
        com_source: Commitment(Digest([2; 32])),
        opening: Opening::from_bytes([3; 32]),
    };
    bodies.add(&voucher);
    bodies.add_as("Purpose", "-preview", &preview_all());
    bodies.add_as(
        "Purpose",
        "-items",
        &Purpose::Items { resource_type: "Observation".into(), after: Some("o1".into()) },
    );
    bodies.add(&LoginOutcome::Preview { preview: preview() });
    bodies.add_as("LoginOutcome", "-refused", &LoginOutcome::Refused { code: Code::LoginRefused });
    bodies.add(&preview());
    bodies.add(&world.a.contact.limits);
    bodies.add(&world.a.patient);
    bodies.add(&id(A));
    bodies.add(&Code::Malformed);
    bodies.add(fixture::signing_key().public());
}

/// What parties keep.
fn rows(bodies: &mut Bodies<'_>, world: &World, m: &Migration) {
    let contact = &world.a.contact;
    let code = waybill_protocol::ids::Nonce([3; 16]);
    let enrolment =
        Enrolment { hospital: contact.hospital.clone(), keys: contact.keys.clone(), mailbox: REPLY.to_owned(), code };
    bodies.add(&enrolment);
    bodies.add(contact);
    bodies.add(&m.draft);
    bodies.add(&world.a.registered);
    bodies.add(&m.authority);
    bodies.add(&m.source());
    bodies.add(&m.destination());
    bodies.add(&RevealedKey([7; 32]));
    bodies.add(&world.log.policy());
    bodies.add(fixture::log_signer().public());
    bodies.add(&WitnessState::default());
    bodies.add(&LogEdge::empty().append(&[[1; 32], [2; 32], [3; 32]]).edge);
}

fn record(bodies: &mut Bodies<'_>) {
    let keys: Vec<ResourceKey> = ["Observation/o1", "Patient/p", "Binary/b"].map(|text| text.parse().unwrap()).into();
    let mut loss = LossReport::new();
    for key in &keys {
        loss.offer(key);
    }
    loss.file(&keys[1]);
    loss.withhold(&keys[0], "hidden");
    loss.quarantine(&keys[2], "malformed");
    loss.note_unresolved(&keys[0], "subject.reference", "unknown");
    loss.note_still_mentioned(&keys[0]);
    loss.add_kept_back(ResourceType::BUNDLE, LossOutcome::NotMovable, "unreadable", 2);
    bodies.add(&loss);
    let mut inventory = Inventory::default();
    for key in &keys {
        inventory.add(key.resource_type, 300);
    }
    bodies.add(&inventory);
    bodies.add(&Scope::full());
    let scope: Scope = "types=Observation,Condition;from=2015;to=2020-06;labels=none,N".parse().unwrap();
    bodies.add_as("Scope", "-narrow", &scope);
    bodies.add(&Hides::new(keys).unwrap());
}
