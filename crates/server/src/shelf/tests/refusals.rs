//! Records that must not be filed, or not all of them; each test fails when its check is removed.

use super::*;
use crate::shelf::ReceiveError;
use bytes::Bytes;
use waybill_crypto::lthash::RecordDigest;
use waybill_crypto::stream::{CHUNK_SIZE, merkle_root, seal_chunk};
use waybill_protocol::messages::{OutcomeClass, TypeCount};
use waybill_protocol::rejection::Code;
use waybill_record::digest::RecordTally;
use waybill_record::frame::{FrameWriter, Salt};
use waybill_record::loss::LossReport;
use waybill_record::resource::ResourceKey;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","name":[{"family":"Müller","given":["Ann"]}],"gender":"female","birthDate":"1970-01-02"}"#;

/// A source that seals whatever it likes.
struct Forger {
    key: RecordKey,
    manifest: Manifest,
    plain: Vec<u8>,
}

impl Forger {
    fn new(items: &[(&str, &str)]) -> Self {
        let mut writer = FrameWriter::new(Vec::new()).unwrap();
        let mut tally = RecordTally::new();
        for (name, body) in items {
            let key: ResourceKey = name.parse().unwrap();
            let salt = Salt::from_bytes([5; 16]);
            writer.push(&key, None, salt, body.as_bytes()).unwrap();
            tally.add(&key, None, salt, body.as_bytes());
        }
        let (plain, totals) = writer.finish().unwrap();
        let manifest = Manifest {
            proof: ProofId(Digest([1; 32])),
            session: session("forged"),
            snapshot_at: NOW,
            inventory: crate::shelf::type_counts(tally.inventory()),
            stream_bytes: totals.padded_bytes,
            chunk_bytes: u32::try_from(CHUNK_SIZE).unwrap(),
            chunk_count: 1,
            leaf_list: Digest([0; 32]),
            merkle_root: Digest([0; 32]),
            key_commitment: Digest([0; 32]),
            digest_scope: tally.digest().clone(),
            digest_full: tally.digest().clone(),
            loss: minicbor::to_vec(LossReport::new()).unwrap(),
            reply_key: *Native.generate_hpke_key().public(),
        };
        Self { key: RecordKey::random(&Native), manifest, plain }
    }

    fn keys(&self) -> StreamKeys {
        StreamKeys::derive(&self.manifest.session.0, &self.key)
    }

    /// Seals the plaintext as one chunk and hands everything over.
    async fn deliver(&mut self, to: &Hospital) {
        let session = self.manifest.session.0;
        let blob = seal_chunk(&Native, &self.keys(), &session, 0, true, &mut self.plain.clone()).unwrap();
        self.manifest.merkle_root = merkle_root(&[blob.leaf()]);
        self.manifest.leaf_list = sha256(&[blob.leaf().as_bytes()]);
        let list = Bytes::copy_from_slice(blob.leaf().as_bytes());
        to.shelf.take_leaf_list(&self.manifest, list).await.unwrap();
        to.shelf.take_blob(&self.manifest, blob.into_bytes().into()).await.unwrap();
    }

    /// Delivers, files, and gives the code of a rejection.
    async fn rejection(mut self, scope: &Scope) -> Option<Code> {
        let (b, theirs) = destination().await;
        self.deliver(&b).await;
        let result = file(&b, &theirs, scope, &self.manifest, self.keys()).await.unwrap();
        let rejected = result.filing.outcome == OutcomeClass::Rejected;
        assert_eq!(rejected, result.filing.detail.code.is_some());
        commit(&b, &result).await;
        if rejected {
            assert_eq!(b.export(&theirs, Which::Filed(origin())).await, b"", "nothing of it is in the chart");
            assert_eq!(b.store.count(Space::Filed, &Key::empty()).await.unwrap(), 0);
        }
        result.filing.detail.code
    }
}

async fn destination() -> (Hospital, LocalPatient) {
    let b = Hospital::in_memory();
    let ours = PATIENT.replace(r#""id":"p""#, r#""id":"mrn-1""#);
    let theirs = b.shelf.register_local(ours.as_bytes()).await.unwrap();
    (b, theirs)
}

fn condition(id: &str, subject: &str) -> String {
    format!(r#"{{"resourceType":"Condition","id":"{id}","subject":{{"reference":"{subject}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_record_is_filed() {
    let record = Forger::new(&[("Condition/a", &condition("a", "Patient/p")), ("Patient/p", PATIENT)]);
    assert_eq!(record.rejection(&Scope::full()).await, None);
    let absolute =
        Forger::new(&[("Condition/a", &condition("a", "https://x.example/Patient/p")), ("Patient/p", PATIENT)]);
    assert_eq!(absolute.rejection(&Scope::full()).await, None);
    let without_patient = Forger::new(&[("Condition/a", &condition("a", "Patient/p"))]);
    assert_eq!(without_patient.rejection(&Scope::full()).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_outside_the_scope_ends_the_case() {
    let items = [("Condition/a", condition("a", "Patient/p")), ("Patient/p", PATIENT.to_owned())];
    let items = [(items[0].0, items[0].1.as_str()), (items[1].0, items[1].1.as_str())];
    assert_eq!(Forger::new(&items).rejection(&scope("types=Patient")).await, Some(Code::OutOfScope));
    let undated = scope("types=*;from=2020;undated=exclude;labels=*");
    assert_eq!(Forger::new(&items).rejection(&undated).await, Some(Code::OutOfScope));
    // Not even to be set aside.
    let unreadable = Forger::new(&[("Condition/a", "{}"), ("Patient/p", PATIENT)]);
    assert_eq!(unreadable.rejection(&scope("types=Patient")).await, Some(Code::OutOfScope));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_about_somebody_else_ends_the_case() {
    let stranger = PATIENT.replace("1970", "1971");
    assert_eq!(Forger::new(&[("Patient/p", &stranger)]).rejection(&Scope::full()).await, Some(Code::WrongPatient));
    let mixed = [condition("a", "Patient/p"), condition("b", "Patient/q")];
    let with_patient = [("Condition/a", &*mixed[0]), ("Condition/b", &*mixed[1]), ("Patient/p", PATIENT)];
    for items in [&with_patient[..], &with_patient[..2]] {
        assert_eq!(Forger::new(items).rejection(&Scope::full()).await, Some(Code::WrongPatient));
    }
    let elsewhere = condition("a", "https://x.example/Patient/q");
    let elsewhere = Forger::new(&[("Condition/a", &elsewhere), ("Patient/p", PATIENT)]);
    assert_eq!(elsewhere.rejection(&Scope::full()).await, Some(Code::WrongPatient));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_does_not_describe_ends_the_case() {
    let forger = || Forger::new(&[("Condition/a", &condition("a", "Patient/p")), ("Patient/p", PATIENT)]);
    let mut wrong = forger();
    wrong.manifest.digest_scope = RecordDigest::new();
    assert_eq!(wrong.rejection(&Scope::full()).await, Some(Code::DigestMismatch));
    let mut wrong = forger();
    wrong.manifest.inventory[0].size_bytes += 1;
    assert_eq!(wrong.rejection(&Scope::full()).await, Some(Code::DigestMismatch));
    let mut wrong = forger();
    wrong.manifest.inventory.push(TypeCount { resource_type: "Task".to_owned(), count: 1, size_bytes: 1 });
    assert_eq!(wrong.rejection(&Scope::full()).await, Some(Code::DigestMismatch));
    let mut wrong = forger();
    wrong.manifest.loss = b"x".to_vec();
    assert_eq!(wrong.rejection(&Scope::full()).await, Some(Code::ManifestInvalid));
    let mut wrong = forger();
    let mut loss = LossReport::new();
    loss.offer(&"Task/t".parse().unwrap());
    wrong.manifest.loss = minicbor::to_vec(loss).unwrap();
    assert_eq!(wrong.rejection(&Scope::full()).await, Some(Code::ManifestInvalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_stream_ends_the_case() {
    let forger = || Forger::new(&[("Patient/p", PATIENT)]);
    let mut cut = forger();
    cut.plain.truncate(100);
    assert_eq!(cut.rejection(&Scope::full()).await, Some(Code::StreamInvalid));
    let mut padded = forger();
    padded.plain.push(0);
    assert_eq!(padded.rejection(&Scope::full()).await, Some(Code::StreamInvalid));
    let mut announced = forger();
    announced.manifest.stream_bytes += 1;
    assert_eq!(announced.rejection(&Scope::full()).await, Some(Code::StreamInvalid));
    let (b, theirs) = destination().await;
    let mut sealed = forger();
    sealed.deliver(&b).await;
    let other = StreamKeys::derive(&sealed.manifest.session.0, &RecordKey::random(&Native));
    let result = file(&b, &theirs, &Scope::full(), &sealed.manifest, other).await.unwrap();
    assert_eq!(result.filing.detail.code, Some(Code::StreamInvalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_items_that_cannot_be_filed_wait_for_a_person() {
    let (b, theirs) = destination().await;
    let (good, group) = (condition("d", "Patient/p"), condition("e", "Group/unknown"));
    let mut forger = Forger::new(&[
        ("Condition/a", r#"{ "resourceType":"Condition","id":"a","subject":{"reference":"Patient/p"}}"#),
        ("Condition/b", &condition("x", "Patient/p")),
        ("Condition/c", "not json"),
        ("Condition/d", &good),
        ("Condition/e", &group),
        ("Patient/p", PATIENT),
    ]);
    forger.deliver(&b).await;
    let result = file(&b, &theirs, &Scope::full(), &forger.manifest, forger.keys()).await.unwrap();
    commit(&b, &result).await;
    let detail = &result.filing.detail;
    assert_eq!((detail.offered, detail.filed, detail.quarantined, detail.code), (6, 2, 4, None));
    assert_eq!(detail.digest, forger.manifest.digest_scope.short());
    let filed = String::from_utf8(b.export(&theirs, Which::Filed(origin())).await).unwrap();
    assert_eq!(filed, format!("{good}\n{PATIENT}\n"));
    let waiting = b.shelf.quarantined(&theirs, &origin(), &session("forged"), 10).await.unwrap();
    let waiting: Vec<_> = waiting.iter().map(|(key, reason)| (key.as_str(), reason.as_str())).collect();
    let expected = [
        ("Condition/a", "not-compact"),
        ("Condition/b", "other-resource"),
        ("Condition/c", "malformed"),
        ("Condition/e", "owner-unknown"),
    ];
    assert_eq!(waiting, expected);
    let again = file(&b, &theirs, &Scope::full(), &forger.manifest, forger.keys()).await;
    assert!(matches!(again, Err(ShelfError::AlreadyFiled)));

    // A person decides: what can be filed joins the chart, what cannot be is discarded or stays.
    let queue = b.shelf.quarantine(Some(&theirs), 10).await.unwrap();
    assert_eq!(queue.len(), 4);
    let of = |id: &str| queue.iter().find(|(which, _)| which.item.id.as_str() == id).unwrap().0.clone();
    for id in ["a", "b", "c"] {
        let refused = b.shelf.accept(&of(id)).await;
        assert!(matches!(refused, Err(ShelfError::StillUnfit(_))), "{id}");
    }
    assert_eq!(b.shelf.quarantined_item(&of("c")).await.unwrap().0, b"not json");
    let ops = b.shelf.accept(&of("e")).await.unwrap();
    b.store.commit(Batch { name: "test", ops }).await.unwrap();
    let filed = String::from_utf8(b.export(&theirs, Which::Filed(origin())).await).unwrap();
    assert_eq!(filed, format!("{good}\n{group}\n{PATIENT}\n"));
    let (ops, object) = b.shelf.discard_quarantined(&of("c")).await.unwrap();
    b.store.commit(Batch { name: "test", ops }).await.unwrap();
    assert!(object.is_none(), "small items lie in their rows");
    assert!(matches!(b.shelf.quarantined_item(&of("c")).await, Err(ShelfError::NoSuchItem)));
    let left = b.shelf.quarantine(None, 10).await.unwrap();
    assert_eq!(left.iter().map(|(which, _)| which.item.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(b.shelf.has_quarantined(&theirs, &origin(), &session("forged")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_file_what_names_another_patient() {
    let (b, theirs) = destination().await;
    let stranger = condition("e", "Patient/somebody-else");
    let held = crate::shelf::rows::Held {
        sha256: sha256(&[stranger.as_bytes()]),
        size_bytes: stranger.len() as u64,
        version: None,
        inline: Some(stranger.clone().into_bytes().into()),
        salt: None,
    };
    let which = crate::shelf::Quarantined {
        patient: theirs.clone(),
        origin: origin(),
        session: session("forged"),
        item: "Condition/e".parse().unwrap(),
    };
    let prefix = crate::shelf::rows::quarantine(&theirs, &origin()).extend().fixed(which.session.as_bytes()).done();
    let row = crate::shelf::rows::encode(&crate::shelf::rows::SetAside { reason: "owner-unknown".into(), held });
    let key = crate::shelf::rows::under(&prefix, &which.item);
    b.store.commit(Batch::new("test").put(Space::Quarantine, key, row, Expect::Any)).await.unwrap();
    assert!(matches!(b.shelf.accept(&which).await, Err(ShelfError::StillUnfit(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_not_the_manifests_are_not_taken() {
    let a = Hospital::in_memory();
    let (patient, bytes) = sample(0, 30, 5);
    a.load("sample", bytes, Purpose::Record).await.unwrap();
    a.freeze("one", &patient, &Scope::full()).await.unwrap();
    let staged = a.stage("one").await.unwrap();
    let manifest = manifest("one", &staged);
    let (b, theirs) = destination().await;
    let chunk = a.shelf.blobs(&session("one"), None, 1).await.unwrap()[0];
    let blob = a.objects.get(&chunk.address).await.unwrap();
    assert!(matches!(b.shelf.take_blob(&manifest, blob.clone()).await, Err(ReceiveError::NoLeafList)));
    assert!(matches!(b.shelf.missing(&manifest, None, 1).await, Err(ReceiveError::NoLeafList)));
    assert_eq!(b.shelf.delivered(&manifest).await.unwrap(), None);

    let list = a.objects.get(&Shelf::expected_leaf_list(&manifest).unwrap()).await.unwrap();
    let longer = Bytes::from([&list[..], &[0; 32]].concat());
    assert!(matches!(b.shelf.take_leaf_list(&manifest, longer.clone()).await, Err(ReceiveError::LeafList)));
    let mut lying = manifest.clone();
    lying.leaf_list = sha256(&[&longer]);
    assert!(matches!(b.shelf.take_leaf_list(&lying, longer.clone()).await, Err(ReceiveError::LeafList)));
    lying.chunk_count += 1;
    assert!(matches!(b.shelf.take_leaf_list(&lying, longer).await, Err(ReceiveError::LeafList)));
    lying.chunk_bytes -= 1;
    assert!(matches!(Shelf::expected_leaf_list(&lying), Err(ReceiveError::Manifest)));
    let mut huge = manifest.clone();
    huge.chunk_count = 1 << 20;
    assert!(matches!(Shelf::expected_leaf_list(&huge), Err(ReceiveError::Manifest)));

    b.shelf.take_leaf_list(&manifest, list).await.unwrap();
    let mut flipped = blob.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut moved = blob.to_vec();
    moved[8] ^= 1;
    let mut far = blob.to_vec();
    far[1] = 0xff;
    for wrong in [flipped, moved, far, blob[..12].to_vec(), Vec::new()] {
        assert!(matches!(b.shelf.take_blob(&manifest, wrong.into()).await, Err(ReceiveError::NotAChunk)));
    }
    let all = b.shelf.missing(&manifest, None, 100).await.unwrap();
    assert!(all.len() > 1 && all.len() as u64 == manifest.chunk_count);
    b.shelf.take_blob(&manifest, blob).await.unwrap();
    assert_eq!(b.shelf.missing(&manifest, None, 100).await.unwrap(), all[1..]);
    assert_eq!(b.shelf.missing(&manifest, Some(1), 1).await.unwrap(), all[2..3.min(all.len())]);
    assert_eq!(b.shelf.delivered(&manifest).await.unwrap(), None);
    let early = file(&b, &theirs, &Scope::full(), &manifest, keys("one", &staged)).await;
    assert!(matches!(early, Err(ShelfError::Incomplete)));
}
