//! Full disks, crashes and callers that go away: nothing is lost, nothing twice, and the next call goes on.

use super::*;
use crate::shelf::bridge::Bridge;
use crate::shelf::frontier::StoreFrontier;
use crate::shelf::pool::{LocalPool, StoreIndex};
use waybill_record::closure::{Decision, Findings, Frontier, MemoryFrontier, close};
use waybill_record::load::LoadIndex;
use waybill_record::resource::{ResourceId, ResourceKey};

/// Runs an operation with a disk that is full after 0, 1, 2 ... commits until it succeeds.
async fn at_every_commit<T, F: Future<Output = Result<T, ShelfError>>>(
    store: &Flaky,
    mut operation: impl FnMut() -> F,
) -> T {
    for commits in 0.. {
        store.fail_after(commits);
        match operation().await {
            Ok(done) => {
                assert!(commits > 0, "an operation that changes something commits something");
                store.heal();
                return done;
            }
            Err(error) => assert!(error.is_full(), "{error:?}"),
        }
    }
    unreachable!("the loop has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_can_be_interrupted_at_every_commit() {
    let (a, b, calm) = (Hospital::in_memory(), Hospital::in_memory(), Hospital::in_memory());
    let (patient, bytes) = sample(0, 80, 2);
    calm.load("sample", bytes.clone(), Purpose::Record).await.unwrap();
    at_every_commit(&a.store, || a.load("sample", bytes.clone(), Purpose::Record)).await;
    let record = a.export(&patient, Which::Held).await;
    assert_eq!(record, calm.export(&patient, Which::Held).await);
    let theirs = register(&a, &patient, &b).await;
    let (everything, one) = (Scope::full(), session("one"));
    at_every_commit(&a.store, || a.freeze("one", &patient, &everything)).await;
    let staged = at_every_commit(&a.store, || a.stage("one")).await;
    let manifest = manifest("one", &staged);
    carry(&a, &b, &manifest).await;
    let filing = || file(&b, &theirs, &everything, &manifest, keys("one", &staged));
    let result = at_every_commit(&b.store, filing).await;
    assert_eq!(b.export(&theirs, Which::Filed(origin())).await, b"", "filed by the case's own batch only");
    commit(&b, &result).await;
    assert_eq!(b.export(&theirs, Which::Filed(origin())).await, record);
    at_every_commit(&a.store, || a.shelf.discard(&one)).await;
    at_every_commit(&b.store, || b.shelf.discard(&one)).await;
    assert_eq!(a.objects.total_size().await.unwrap(), calm.objects.total_size().await.unwrap(), "no orphans");
    assert_eq!(b.objects.total_size().await.unwrap(), calm.objects.total_size().await.unwrap(), "no orphans");
    assert_eq!(b.export(&theirs, Which::Filed(origin())).await, record);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_stops_the_work_and_may_come_back() {
    let a = Hospital::on_disk().await;
    let (patient, bytes) = sample(0, 200, 4);
    a.load("sample", bytes, Purpose::Record).await.unwrap();
    let everything = Scope::full();
    for polls in [1, 5, 50] {
        let mut freeze = Box::pin(a.freeze("one", &patient, &everything));
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut freeze => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    a.freeze("one", &patient, &everything).await.unwrap();
    drop(Box::pin(a.stage("one")));
    let staged = a.stage("one").await.unwrap();
    let b = Hospital::in_memory();
    let theirs = register(&a, &patient, &b).await;
    let manifest = manifest("one", &staged);
    carry(&a, &b, &manifest).await;
    let result = file(&b, &theirs, &everything, &manifest, keys("one", &staged)).await.unwrap();
    commit(&b, &result).await;
    assert_eq!(b.export(&theirs, Which::Filed(origin())).await, a.export(&patient, Which::Held).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_needs_a_snapshot_and_uses_another_key_each_time() {
    let a = Hospital::in_memory();
    let (patient, bytes) = sample(0, 10, 0);
    a.load("sample", bytes, Purpose::Record).await.unwrap();
    assert!(matches!(a.stage("one").await, Err(ShelfError::NotFrozen)));
    a.freeze("one", &patient, &Scope::full()).await.unwrap();
    let first = a.stage("one").await.unwrap();
    let size = a.objects.total_size().await.unwrap();
    let second = a.stage("one").await.unwrap();
    assert_ne!(first.merkle_root, second.merkle_root);
    assert_eq!(a.objects.total_size().await.unwrap(), size, "the first ciphertext is gone");
    let nobody = LocalPatient("nobody".to_owned());
    assert!(matches!(a.freeze("two", &nobody, &Scope::full()).await, Err(ShelfError::NoSuchPatient)));
    let mut out = Vec::new();
    let missing = a.shelf.export_ndjson(&patient, Which::Scope(session("two")), &mut out).await;
    assert!(matches!(missing, Err(ShelfError::NotFrozen)));
}

/// Runs a test body where the shelf's own blocking work runs.
async fn blocking<T: Send + 'static>(a: &Hospital, body: impl FnOnce(&Bridge) -> T + Send + 'static) -> T {
    a.shelf.run(Key::build().text("test").done(), move |bridge| Ok(body(bridge))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_spills_decides_like_one_in_memory() {
    let a = Hospital::in_memory();
    let (patient, bytes) = sample(0, 120, 2);
    a.load("sample", bytes, Purpose::Record).await.unwrap();
    let patient = ResourceId::parse(&patient.0).unwrap();
    blocking(&a, move |bridge| {
        let pool = LocalPool::new(bridge);
        let (mut memory, mut findings) = (MemoryFrontier::default(), Findings::default());
        let expected = close(&patient, &pool, &mut memory, &mut findings).unwrap();
        for max_in_memory in [1, 7, 100_000] {
            let work = Key::build().text("scratch").text("test").done();
            let mut frontier = StoreFrontier::with_memory(bridge, work, max_in_memory).unwrap();
            let found = close(&patient, &pool, &mut frontier, &mut findings).unwrap();
            assert_eq!(found, expected);
            for page in [1, 3, 1000] {
                assert_eq!(all(&frontier, page), all(&memory, page), "{max_in_memory} in memory, pages of {page}");
            }
            frontier.clear().unwrap();
        }
    })
    .await;
    assert_eq!(a.store.count(Space::Frontier, &Key::empty()).await.unwrap(), 0);
}

fn all(frontier: &dyn Frontier, page: usize) -> Vec<(ResourceKey, Decision)> {
    let mut found: Vec<(ResourceKey, Decision)> = Vec::new();
    loop {
        let next = frontier.decided(found.last().map(|(key, _)| key), page).unwrap();
        let is_last = next.len() < page;
        found.extend(next);
        if is_last {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_spill_are_found_again() {
    let a = Hospital::in_memory();
    blocking(&a, |bridge| {
        let work = Key::build().text("scratch").text("names").done();
        let mut index = StoreIndex::with_memory(bridge, work.clone(), 2).unwrap();
        let key = |n: usize| ResourceKey::new("Patient", &n.to_string()).unwrap();
        for n in 0..10 {
            index.insert(&format!("name {}", n % 5), &key(n)).unwrap();
            index.insert("everybody", &key(n)).unwrap();
        }
        for n in 0..5 {
            assert_eq!(index.find(&format!("name {n}")).unwrap(), [key(n), key(n + 5)]);
        }
        assert_eq!(index.find("everybody").unwrap(), [key(0), key(1)], "two are enough to know that it is ambiguous");
        assert!(index.find("nobody").unwrap().is_empty());
        let fresh = StoreIndex::with_memory(bridge, work, 2).unwrap();
        assert!(fresh.find("name 1").unwrap().is_empty(), "each load begins empty");
    })
    .await;
}
