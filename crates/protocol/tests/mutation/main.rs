//! Every signed field of every message of an honest run, altered: after signing, and by the very party that signs; and exchanged for the
//! same field of a second patient's run between the same hospitals at the same time.
//!
//! Each [`Delivery`] is one message at one of its receivers, with a row for every field that `formal/messages.toml` lists. A row says
//! with which code the receiver refuses the alteration, or why the field is the signer's own to choose, and then what the choice is
//! bound to: what comes later refuses the other value, or the receiver keeps and passes on what was signed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod delegation;
mod endings;
mod exchange;
mod front_desk;
mod impersonation;
mod questions;
mod seals;
#[path = "../common/table.rs"]
mod table;
mod transfer;

use std::collections::BTreeSet;
use std::ops::Range;

use minicbor::bytes::ByteVec;
use waybill_crypto::keys::SigningKey;
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::{Message, Signed, SignedBytes};
use waybill_protocol::wire::to_cbor;

use bench::{Bench, Run, become_other, come_back, keys_of};
use common::World;
use table::Table;

/// What becomes of an altered field that its signer signed.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// The receiver refuses it.
    Refused(Code),
    /// The signer's own choice, and why; a later step with the unaltered value is refused.
    Later(&'static str, Code),
    /// The signer's own choice, and why; what the receiver keeps, or does next, carries it.
    Kept(&'static str),
    /// The signer's own word, and why nothing at this receiver hangs on it.
    Unread(&'static str),
}

use Expected::{Kept, Later, Refused, Unread};

/// What the other run's value is to this one.
enum Swap {
    AsAltered,
    /// Both runs have the same value here.
    Same,
    Other(Expected),
}

/// One field, altered.
pub struct Row<M> {
    field: String,
    alter: Alter<M>,
    expected: Expected,
    unsigned: Option<Code>,
    swap: Swap,
}

impl<M> Row<M> {
    fn new(field: &str, expected: Expected, alter: Alter<M>) -> Self {
        Self { field: field.replace(' ', ""), alter, expected, unsigned: None, swap: Swap::AsAltered }
    }

    /// Altered after signing, it meets another check before the signature's.
    fn unsigned(self, code: Code) -> Self {
        Self { unsigned: Some(code), ..self }
    }

    fn same(self) -> Self {
        Self { swap: Swap::Same, ..self }
    }

    fn swapped(self, expected: Expected) -> Self {
        Self { swap: Swap::Other(expected), ..self }
    }
}

/// `row!(Message: field = value => expected)`, with `|message, world|` before the field where the value depends on them.
#[macro_export]
macro_rules! row {
    ($message:ty: |$m:ident, $w:ident| $($field:ident).+ = $value:expr => $expected:expr) => {
        $crate::Row::<$message>::new(stringify!($($field).+), $expected, Box::new(|$m, $w| {
            let _ = &$w;
            let value = $value;
            $m.$($field).+ = value;
        }))
    };
    ($message:ty: $($field:ident).+ = $value:expr => $expected:expr) => {
        row!($message: |m, w| $($field).+ = $value => $expected)
    };
}

type Alter<M> = Box<dyn Fn(&mut M, &World)>;
type Take<M> = Box<dyn Fn(&World, &Run) -> SignedBytes<M>>;
type Deliver<M> = Box<dyn Fn(&mut World, &Bench, SignedBytes<M>) -> Result<Vec<u8>, Code>>;
type Continue<M> = Box<dyn Fn(&mut World, &Bench, SignedBytes<M>) -> Result<(), Code>>;

/// One message at one receiver.
pub struct Delivery<M> {
    message: &'static str,
    to: &'static str,
    signer: &'static str,
    /// The code of a signature that does not verify.
    forged: Code,
    take: Take<M>,
    /// Gives the message to the receiver; what it keeps or does next, in bytes that differ where the message made a difference.
    deliver: Deliver<M>,
    /// Goes on from a message that was taken, with everybody else honest, until somebody refuses.
    later: Option<Continue<M>>,
    rows: Vec<Row<M>>,
}

/// A delivery of any message.
pub trait Held {
    /// Message and signer, as the table has them.
    fn names(&self) -> (&'static str, &'static str);
    /// Which variant of each choice of the table the honest message has: the choice, and the variant's number.
    fn variants(&self, world: &World, bench: &Bench, table: &Table) -> Vec<(String, usize)>;
    /// Alters every field and holds the receiver to the rows.
    fn hold(&self, world: &mut World, bench: &Bench, table: &Table);
    /// Signs it with the receiver's own keys; with which code each is refused.
    fn impersonate(&self, world: &mut World, bench: &Bench, table: &Table) -> Vec<Code>;
}

/// The bytes of one element of nested arrays.
fn element(cbor: &[u8], place: &[usize]) -> Range<usize> {
    let mut decoder = minicbor::Decoder::new(cbor);
    for index in place {
        let length = decoder.array().unwrap().unwrap();
        assert!((*index as u64) < length);
        (0..*index).for_each(|_| decoder.skip().unwrap());
    }
    let start = decoder.position();
    decoder.skip().unwrap();
    start..decoder.position()
}

fn spliced(cbor: &[u8], place: &[usize], from: &[u8]) -> Vec<u8> {
    let (here, there) = (element(cbor, place), element(from, place));
    [&cbor[..here.start], &from[there], &cbor[here.end..]].concat()
}

/// The choice that a field is of, if it is of one.
fn chosen(table: &Table, field: &table::Field) -> Option<String> {
    table.choices.iter().map(|choice| &choice.name).find(|name| Some(*name) == field.of.as_ref()).cloned()
}

/// The number of the variant that is in a field.
fn variant(cbor: &[u8], field: usize) -> usize {
    minicbor::decode(&cbor[element(cbor, &[field, 0])]).unwrap()
}

/// Every field of a message that the table lists, down to the parts of structures and of the variant that is there, with its place in
/// the CBOR.
fn places(table: &Table, message: &str, cbor: &[u8]) -> Vec<(String, Vec<usize>)> {
    let mut out = Vec::new();
    for (n, field) in table.message(message).fields.iter().enumerate() {
        let variants = table.inside(field);
        let (inside, first) = if chosen(table, field).is_some() {
            (variants[variant(cbor, n)], 1)
        } else if let [structure] = variants.as_slice() {
            (*structure, 0)
        } else {
            out.push((field.name.clone(), vec![n]));
            continue;
        };
        let parts = inside.iter().enumerate();
        out.extend(parts.map(|(i, part)| (format!("{}.{}", field.name, part.name), vec![n, first + i])));
    }
    out
}

fn payload(signed: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut decoder = minicbor::Decoder::new(signed);
    decoder.tag().unwrap();
    decoder.array().unwrap();
    let protected = decoder.bytes().unwrap().to_vec();
    decoder.map().unwrap();
    (protected, decoder.bytes().unwrap().to_vec(), decoder.bytes().unwrap().to_vec())
}

/// A COSE_Sign1 of these parts.
fn assembled<M: Message>(protected: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>) -> SignedBytes<M> {
    let empty = std::collections::BTreeMap::<u8, u8>::new();
    let [protected, payload, signature] = [protected, payload, signature].map(ByteVec::from);
    let cose = minicbor::data::Tagged::<18, _>::from((protected, empty, payload, signature));
    SignedBytes::from(minicbor::to_vec(cose).unwrap())
}

/// The same header and signature around another payload.
fn altered_after_signing<M: Message>(signed: &SignedBytes<M>, other: Vec<u8>) -> SignedBytes<M> {
    let (protected, _, signature) = payload(signed.as_bytes());
    assembled(protected, other, signature)
}

impl<M: Message + Clone> Delivery<M> {
    /// The key that the honest message is signed with.
    fn key(&self, world: &World, honest: &SignedBytes<M>) -> SigningKey {
        let kid = honest.parse().unwrap().kid();
        let key = keys_of(world, self.signer).into_iter().find(|key| key.public().kid() == kid);
        key.unwrap_or_else(|| panic!("{} is not signed by the {}", self.message, self.signer))
    }

    fn resigned(&self, world: &World, honest: &SignedBytes<M>, message: M) -> SignedBytes<M> {
        SignedBytes::from(&Signed::sign(&world.network.backend, &self.key(world, honest), message))
    }

    fn expect(&self, world: &mut World, bench: &Bench, what: &str, bytes: SignedBytes<M>, expected: Expected) {
        let honest = (self.take)(world, &bench.ours);
        let kept = (self.deliver)(world, bench, honest).unwrap();
        let taken = (self.deliver)(world, bench, bytes.clone());
        match expected {
            Refused(code) => assert_eq!(taken.err(), Some(code), "{what}"),
            Later(reason, code) => {
                assert!(!reason.is_empty());
                taken.unwrap_or_else(|refused| panic!("{what} is the signer's own, and refused with {refused}"));
                let later = self.later.as_ref().unwrap_or_else(|| panic!("{what}: nothing comes later"));
                assert_eq!(later(world, bench, bytes), Err(code), "{what}, later");
            }
            Kept(reason) | Unread(reason) => {
                assert!(!reason.is_empty());
                let taken =
                    taken.unwrap_or_else(|refused| panic!("{what} is the signer's own, and refused with {refused}"));
                assert_eq!(taken != kept, matches!(expected, Kept(_)), "{what} makes a difference");
            }
        }
    }
}

impl<M: Message + Clone> Held for Delivery<M> {
    fn names(&self) -> (&'static str, &'static str) {
        (self.message, self.signer)
    }

    fn variants(&self, world: &World, bench: &Bench, table: &Table) -> Vec<(String, usize)> {
        let cbor = payload((self.take)(world, &bench.ours).as_bytes()).1;
        let fields = table.message(self.message).fields.iter().enumerate();
        fields.filter_map(|(n, field)| Some((chosen(table, field)?, variant(&cbor, n)))).collect()
    }

    fn hold(&self, world: &mut World, bench: &Bench, table: &Table) {
        let name = format!("{} by the {} at the {}", self.message, self.signer, self.to);
        let honest = (self.take)(world, &bench.ours);
        let ours = payload(honest.as_bytes()).1;
        let person = become_other(world);
        let other = payload((self.take)(world, &bench.other).as_bytes()).1;
        come_back(world, person);
        (self.deliver)(world, bench, honest.clone()).unwrap_or_else(|code| panic!("{name}: honest, and {code}"));
        let places = places(table, self.message, &ours);
        let listed: BTreeSet<_> = places.iter().map(|(field, _)| field.as_str()).collect();
        let held: BTreeSet<_> = self.rows.iter().map(|row| row.field.as_str()).collect();
        assert_eq!(held, listed, "{name}: every field of the table has a row, and no other");
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            let what = format!("{name}: {}", row.field);
            let (_, place) = places.iter().find(|(field, _)| field == &row.field).unwrap();
            let mut message = honest.parse().unwrap().peek().clone();
            (row.alter)(&mut message, world);
            let altered = to_cbor(&message);
            // The field is where the table has it: this element differs, and nothing else does.
            assert!(ours[element(&ours, place)] != altered[element(&altered, place)], "{what} is altered");
            assert!(spliced(&altered, place, &ours) == ours, "{what} is element {place:?}, and all that is altered");
            let forged = altered_after_signing(&honest, altered);
            let refused = Refused(row.unsigned.unwrap_or(self.forged));
            self.expect(world, bench, &format!("{what}, altered after signing"), forged, refused);
            let resigned = self.resigned(world, &honest, message);
            self.expect(world, bench, &format!("{what}, altered by its signer"), resigned, row.expected);
            if seen.insert(&row.field) {
                self.swap(world, bench, &what, row, &honest, spliced(&ours, place, &other));
            }
        }
    }

    fn impersonate(&self, world: &mut World, bench: &Bench, table: &Table) -> Vec<Code> {
        self.signed_by_its_receiver(world, bench, table)
    }
}

impl<M: Message + Clone> Delivery<M> {
    fn swap(
        &self,
        world: &mut World,
        bench: &Bench,
        what: &str,
        row: &Row<M>,
        honest: &SignedBytes<M>,
        swapped: Vec<u8>,
    ) {
        let same = payload(honest.as_bytes()).1 == swapped;
        let expected = match row.swap {
            Swap::Same => return assert!(same, "{what}: the two runs differ"),
            Swap::AsAltered => row.expected,
            Swap::Other(expected) => expected,
        };
        assert!(!same, "{what}: the two runs have the same value");
        let message: M = minicbor::decode(&swapped).unwrap();
        let resigned = self.resigned(world, honest, message);
        self.expect(world, bench, &format!("{what} of the other patient's run"), resigned, expected);
    }
}

fn all() -> Vec<Box<dyn Held>> {
    [
        front_desk::deliveries(),
        questions::deliveries(),
        delegation::deliveries(),
        transfer::deliveries(),
        exchange::deliveries(),
        endings::deliveries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn hold(deliveries: Vec<Box<dyn Held>>) {
    let table = Table::read();
    let mut world = World::new();
    let bench = Bench::new(&mut world);
    for delivery in deliveries {
        delivery.hold(&mut world, &bench, &table);
    }
}

#[test]
fn registrations_logins_and_what_hospitals_and_authority_say_of_themselves() {
    hold(front_desk::deliveries());
}

#[test]
fn every_question_at_the_front_desk_and_every_answer() {
    hold(questions::deliveries());
}

#[test]
fn delegations_proofs_consents_and_presentations() {
    hold(delegation::deliveries());
}

#[test]
fn requests_redemptions_grants_and_manifests() {
    hold(transfer::deliveries());
}

#[test]
fn lodgements_delivery_receipts_releases_and_receipts() {
    hold(exchange::deliveries());
}

#[test]
fn revocations_refusals_and_statements() {
    hold(endings::deliveries());
}

#[test]
fn whoever_has_a_receivers_own_keys_cannot_play_others_to_it() {
    let table = Table::read();
    let mut world = World::new();
    let bench = Bench::new(&mut world);
    let refused: Vec<_> = all().iter().flat_map(|d| d.impersonate(&mut world, &bench, &table)).collect();
    assert!(refused.len() >= 40, "{} keys were tried", refused.len());
    let codes: BTreeSet<_> = refused.iter().map(|code| code.as_str()).collect();
    let expected = [
        Code::RegistrationInvalid,
        Code::LoginRefused,
        Code::VoucherInvalid,
        Code::DelegationInvalid,
        Code::ProofInvalid,
        Code::ConsentSignatureInvalid,
        Code::ManifestInvalid,
        Code::LodgementInvalid,
        Code::ReceiptInvalid,
        Code::SignatureInvalid,
    ];
    assert_eq!(codes, expected.iter().map(|code| code.as_str()).collect());
}

#[test]
fn every_message_is_altered_under_every_signer_that_the_table_lists() {
    let table = Table::read();
    let listed: BTreeSet<(String, String)> = table
        .messages
        .iter()
        .flat_map(|message| message.signer.iter().map(|signer| (message.name.clone(), signer.clone())))
        .collect();
    let held: BTreeSet<_> = all().iter().map(|d| d.names()).map(|(m, s)| (m.to_owned(), s.to_owned())).collect();
    assert_eq!(held, listed);
}

#[test]
fn every_variant_of_every_choice_is_altered() {
    let table = Table::read();
    let mut world = World::new();
    let bench = Bench::new(&mut world);
    let held: BTreeSet<_> = all().iter().flat_map(|delivery| delivery.variants(&world, &bench, &table)).collect();
    let numbered =
        |choice: &table::Choice| (0..choice.variants.len()).map(|n| (choice.name.clone(), n)).collect::<Vec<_>>();
    assert_eq!(held, table.choices.iter().flat_map(numbered).collect());
}
