//! A whole network in memory: authority with log and witnesses, two hospitals, one patient registered at both. Every step calls the
//! role functions that the servers call, with the portable back end, so that every run gives the same bytes.
#![allow(dead_code, unused_imports, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod forge;
mod network;
mod steps;

pub use forge::Forge;
pub use network::{A, AUTHORITY, B, C, DAY, NOW, Network, TestLog, id, note_signers};
pub use steps::{Migration, Step};

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::{Profile, Serial};
use waybill_crypto::keys::{HpkeSecretKey, SigningKey};
use waybill_crypto::pseudonym::RootSecret;
use waybill_protocol::authority::{Authority, AuthorityKeys};
use waybill_protocol::destination::Destination;
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::messages::{
    AuthorityStatement, AuthorityStatementBody, Chain, Preview, Purpose, SUITE, Standing, TypeCount,
};
use waybill_protocol::migration::{Effect, Leaf, Post, Recipient};
use waybill_protocol::patient::{Contact, Enrolment, Patient};
use waybill_protocol::registrar::{
    EnrolmentCode, HospitalIdentity, LocalPatient, Registered, Registrar, enrolment_row,
};
use waybill_protocol::rejection::Code;
use waybill_protocol::rejection::Rejection;
use waybill_protocol::sealed::SealedBytes;
use waybill_protocol::signed::{Message, Signed, SignedBytes};
use waybill_protocol::source::{ConsentStands, Source, SourceCase};
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{Kind, Parcel};
use waybill_record::hides::Hides;
use waybill_record::identity::Demographics;
use waybill_record::scope::Scope;

/// Every mailbox of the patient.
pub const REPLY: &str = "https://relay.example/mailbox/patient";

/// How long a case may wait for a review.
pub const REVIEW_SECONDS: u64 = 3 * DAY;

/// A hospital with what it believes and whom it knows.
pub struct Party {
    pub identity: HospitalIdentity,
    pub trust: Trust,
    pub serial: Serial,
    pub patient: Demographics,
    pub registered: Registered,
    /// What the wallet pinned here.
    pub contact: Contact,
}

pub struct World {
    pub network: Network,
    pub log: TestLog,
    pub now: Timestamp,
    pub authority: AuthorityKeys,
    pub authority_serial: Serial,
    pub authority_trust: Trust,
    pub statement: AuthorityStatementBody,
    pub a: Party,
    pub b: Party,
    pub root: RootSecret,
    /// What the patient believes.
    pub patient_trust: Trust,
}

/// The code of a refusal.
pub fn code<T>(result: Result<T, Rejection>) -> Code {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(rejection) => rejection.code,
    }
}

pub fn demographics(id: &str, family: &str, birth: &str) -> Demographics {
    let json = format!(
        r#"{{"resourceType":"Patient","id":"{id}","identifier":[{{"system":"urn:example:national","value":"1234"}}],"name":[{{"family":"{family}","given":["Ada"]}}],"gender":"female","birthDate":"{birth}"}}"#
    );
    Demographics::from_patient(json.as_bytes()).unwrap()
}

fn trust(network: &Network, log: &TestLog) -> Trust {
    Trust::new(id(AUTHORITY), network.anchor.clone(), log.policy(), network.crl(&[], NOW))
}

fn statement(network: &Network, log: &TestLog, keys: &AuthorityKeys) -> AuthorityStatementBody {
    let said = AuthorityStatement {
        suite: SUITE,
        authority: id(AUTHORITY),
        lodgement_key: *keys.lodgement.public(),
        log_origin: log.policy().origin().as_str().to_owned(),
        log_key: log.log_key(),
        time: NOW,
    };
    let signed = Signed::sign(&network.backend, &keys.proof_signing, said);
    AuthorityStatementBody { statement: SignedBytes::from(&signed), chain: keys.chain.clone() }
}

impl World {
    pub fn new() -> Self {
        let (network, log) = (Network::new(1), TestLog::new());
        let proof_signing = network.backend.generate_signing_key();
        let (chain, authority_serial) = network.chain(Profile::ProofSigning, AUTHORITY, proof_signing.public(), NOW);
        let authority = AuthorityKeys { proof_signing, lodgement: network.backend.generate_hpke_key(), chain };
        let statement = statement(&network, &log, &authority);
        let root = RootSecret::from_bytes([7; 32]);
        let believing = || {
            let mut trust = trust(&network, &log);
            trust.accept_statement(&Ctx { now: NOW, backend: &network.backend }, &statement).unwrap();
            trust
        };
        let party = |name: &str, local: &str| {
            let (identity, serial) = hospital(&network, name);
            let (registered, contact) = register(&network, &root, &identity, local);
            let patient = demographics(local, "Lovelace", "1815-12-10");
            Party { identity, trust: believing(), serial, patient, registered, contact }
        };
        let (a, b) = (party(A, "patient-at-a"), party(B, "patient-at-b"));
        let (authority_trust, patient_trust) = (trust(&network, &log), believing());
        Self {
            now: NOW,
            authority,
            authority_serial,
            authority_trust,
            statement,
            a,
            b,
            root,
            patient_trust,
            log,
            network,
        }
    }

    pub fn ctx(&self) -> Ctx<'_> {
        Ctx { now: self.now, backend: &self.network.backend }
    }

    pub fn source(&self) -> Source<'_> {
        Source { ctx: self.ctx(), hospital: &self.a.identity, trust: &self.a.trust }
    }

    /// The patient's key is registered at the source as it was.
    pub fn stands(&self, case: &SourceCase) -> ConsentStands {
        ConsentStands::verify(case, std::slice::from_ref(&self.a.registered)).unwrap()
    }

    pub fn destination(&self) -> Destination<'_> {
        Destination { ctx: self.ctx(), hospital: &self.b.identity, trust: &self.b.trust }
    }

    pub fn authority(&self) -> Authority<'_> {
        Authority { ctx: self.ctx(), trust: &self.authority_trust, keys: &self.authority }
    }

    pub fn patient(&self) -> Patient<'_> {
        Patient { ctx: self.ctx(), root: &self.root }
    }

    pub fn registrar(&self) -> Registrar<'_> {
        Registrar { ctx: self.ctx(), hospital: &self.a.identity }
    }

    /// Appends a leaf and gives what the authority posts once it is covered.
    pub fn finish(&mut self, leaf: Leaf) -> Vec<Post> {
        let evidence = self.log.append(&self.network.backend, leaf.kind, &leaf.message.0, leaf.nonce.0);
        let consistency = leaf.answer.known_log_size().map_or_else(Vec::new, |from| self.log.consistency(from));
        self.authority().finish(leaf.answer, evidence, consistency).unwrap()
    }

    /// A fresh hospital signing key with another name's or the same name's certificate.
    pub fn stranger(&self, name: &str) -> (SigningKey, Chain) {
        let key = self.network.backend.generate_signing_key();
        let (chain, _) = self.network.chain(Profile::HospitalSigning, name, key.public(), NOW);
        (key, chain)
    }
}

pub fn all_active(_: &HospitalId) -> Option<Standing> {
    Some(Standing::Active)
}

fn hospital(network: &Network, name: &str) -> (HospitalIdentity, Serial) {
    let signing = network.backend.generate_signing_key();
    let (chain, serial) = network.chain(Profile::HospitalSigning, name, signing.public(), NOW);
    let hpke = network.backend.generate_hpke_key();
    (HospitalIdentity { id: id(name), signing, hpke, chain, change: None }, serial)
}

/// Registration in person, by the messages.
pub fn register(
    network: &Network,
    root: &RootSecret,
    hospital: &HospitalIdentity,
    local: &str,
) -> (Registered, Contact) {
    let ctx = Ctx { now: NOW, backend: &network.backend };
    let (registrar, patient) = (Registrar { ctx, hospital }, Patient { ctx, root });
    let enrolment = Enrolment {
        hospital: hospital.id.clone(),
        keys: hospital.keys(),
        mailbox: format!("https://relay.example/mailbox/{}", hospital.id),
        code: Nonce::random(&network.backend),
    };
    let (exchange, parcel) = patient.register(&enrolment, 0, REPLY).unwrap();
    let opened = registrar.open_registration(&sealed(&parcel, Kind::Registration)).unwrap();
    assert_eq!(opened.code_row(), enrolment_row(&enrolment.code));
    let code = EnrolmentCode::for_oneself(LocalPatient(local.into()), NOW.plus(3600));
    let (registered, effects) = registrar.handle_registration(&opened, Some(&code), None).unwrap();
    let answer = posted(&effects, Kind::RegistrationAnswer);
    let contact = patient.accept_registration(&exchange, &enrolment, 0, &answer).unwrap();
    (registered, contact)
}

/// The sealed body of a parcel.
pub fn sealed(parcel: &[u8], kind: Kind) -> SealedBytes {
    Parcel::parse(parcel).unwrap().open(kind, "sealed").unwrap()
}

/// The only parcel of a kind among the effects.
pub fn posted(effects: &[Effect], kind: Kind) -> Parcel {
    let parcels = effects.iter().filter_map(|e| if let Effect::Post(post) = e { Some(post) } else { None });
    let found: Vec<_> =
        parcels.map(|p| Parcel::parse(&p.parcel).unwrap()).filter(|parcel| parcel.kind == kind).collect();
    assert_eq!(found.len(), 1, "one {kind:?} is posted");
    found.into_iter().next().unwrap()
}

/// To whom parcels of a kind are posted.
pub fn recipients(effects: &[Effect], kind: Kind) -> Vec<Recipient> {
    let parcels = effects.iter().filter_map(|e| if let Effect::Post(post) = e { Some(post) } else { None });
    parcels.filter(|p| Parcel::parse(&p.parcel).unwrap().kind == kind).map(|p| p.to.clone()).collect()
}

/// The leaves among the effects, in order.
pub fn leaves(effects: &[Effect]) -> Vec<Leaf> {
    effects.iter().filter_map(|e| if let Effect::Log(leaf) = e { Some(Leaf::clone(leaf)) } else { None }).collect()
}

/// The same signed bytes with the last bit of the signature changed.
pub fn forged<M: Message>(bytes: &SignedBytes<M>) -> SignedBytes<M> {
    let mut bytes = bytes.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    SignedBytes::from(bytes)
}

/// The message changed, and signed again by whom the test says.
pub fn resigned<M: Message + Clone>(
    world: &World,
    key: &SigningKey,
    bytes: &SignedBytes<M>,
    change: impl FnOnce(&mut M),
) -> SignedBytes<M> {
    let mut message = bytes.parse().unwrap().peek().clone();
    change(&mut message);
    SignedBytes::from(&Signed::sign(&world.network.backend, key, message))
}

/// A whole preview of a record of one resource.
pub fn preview() -> Preview {
    Preview {
        at: NOW,
        held: vec![TypeCount { resource_type: "Patient".into(), count: 1, size_bytes: 34 }],
        offered: Vec::new(),
        kept: Vec::new(),
        hidden: Vec::new(),
        warnings: Vec::new(),
        pending: Vec::new(),
        stream_bytes: 0,
        largest_bytes: 1 << 30,
    }
}

/// The question that the whole record would travel.
pub fn preview_all() -> Purpose {
    Purpose::Preview { scope: Scope::full(), hides: Hides::default() }
}

pub fn fresh_hpke(world: &World) -> HpkeSecretKey {
    world.network.backend.generate_hpke_key()
}

impl Party {
    /// The registration stored under a pseudonym, as the shell would look it up.
    pub fn registered_at(&self, root: &RootSecret, pid: &waybill_crypto::pseudonym::Pseudonym) -> Option<&Registered> {
        (*pid == root.pid(self.identity.id.as_str(), 0)).then_some(&self.registered)
    }
}

pub fn commitment(
    kind: &str,
    opening: &waybill_crypto::commitment::Opening,
    value: &[u8],
) -> waybill_crypto::commitment::Commitment {
    waybill_crypto::commitment::Commitment::commit(kind, opening, value)
}
