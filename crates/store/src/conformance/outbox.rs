//! Checks of the outbox, timers, leaves and change signals.

use super::{commit, key};
use crate::{Area, Batch, CommitError, DueItem, Expect, Op, OutboxItem, Space, Store, Timer};
use futures::future::join_all;

pub(super) fn item(kind: &str, reply_key: &[u8]) -> OutboxItem {
    OutboxItem {
        to: "https://relay.example/mailbox/00".to_owned(),
        body: vec![0, 0xff, 7],
        reply_key: reply_key.to_vec(),
        not_before: 100,
        deadline: 1_000,
        kind: kind.to_owned(),
        blob: None,
        settle_on_delivery: false,
    }
}

async fn enqueue(store: &impl Store, item: &OutboxItem) {
    commit(store, Batch::new("enqueue").with(Op::Enqueue(item.clone()))).await;
}

async fn due(store: &impl Store, now: u64) -> Vec<DueItem> {
    store.outbox_due(now, 100).await.expect("read")
}

pub(super) async fn items_are_resent_until_settled(store: &impl Store) {
    let first = item("request", b"reply 1");
    enqueue(store, &first).await;
    enqueue(store, &item("request", b"reply 2")).await;
    assert_eq!(due(store, 99).await, vec![]);
    assert_eq!(store.outbox_wake(0).await.expect("read"), Some(100));
    let found = due(store, 100).await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], DueItem { id: first.id(), item: first.clone(), attempts: 0, delivered: false });
    store.outbox_attempted(first.id(), 200, true).await.expect("noted");
    assert_eq!(due(store, 199).await.len(), 1);
    store.outbox_attempted(first.id(), 300, false).await.expect("noted");
    let again = due(store, 300).await;
    let again = again.iter().find(|due| due.id == first.id()).expect("an acknowledged item waits for its reply");
    assert_eq!((again.attempts, again.delivered), (2, true), "an acknowledgement is not forgotten");
    commit(store, Batch::new("settle").with(Op::Settle { reply_key: b"reply 1".to_vec() })).await;
    let left = due(store, 300).await;
    assert_eq!(left.iter().map(|due| due.item.reply_key.as_slice()).collect::<Vec<_>>(), vec![b"reply 2"]);
    store.outbox_attempted(first.id(), 400, false).await.expect("an attempt that a reply overtook is no error");
    assert_eq!(store.outbox_count().await.expect("read"), 1);
}

pub(super) async fn enqueuing_again_changes_nothing(store: &impl Store) {
    let sent = item("request", b"r");
    enqueue(store, &sent).await;
    store.outbox_attempted(sent.id(), 500, true).await.expect("noted");
    let later = OutboxItem { not_before: 1, deadline: 9_999, ..sent.clone() };
    assert_eq!(later.id(), sent.id(), "times are not part of the identity");
    enqueue(store, &later).await;
    assert_eq!(store.outbox_count().await.expect("read"), 1);
    assert_eq!(due(store, 499).await, vec![]);
    let kept = due(store, 500).await;
    assert_eq!((kept[0].attempts, kept[0].item.deadline), (1, 1_000));
    let others = [
        OutboxItem { kind: "other".to_owned(), ..sent.clone() },
        OutboxItem { to: "https://other.example".to_owned(), ..sent.clone() },
        OutboxItem { body: vec![1], ..sent.clone() },
        OutboxItem { reply_key: b"q".to_vec(), ..sent.clone() },
        OutboxItem { body: vec![], blob: Some(crate::Address::from_bytes([3; 32])), ..sent.clone() },
    ];
    for other in &others {
        enqueue(store, other).await;
    }
    assert_eq!(store.outbox_count().await.expect("read"), 6, "everything sent is part of the identity");
    let blob = due(store, 100).await.into_iter().find_map(|due| due.item.blob);
    assert_eq!(blob, Some(crate::Address::from_bytes([3; 32])));
}

pub(super) async fn delivery_settles_only_where_it_says_so(store: &impl Store) {
    let parcel = OutboxItem { settle_on_delivery: true, ..item("blob", b"") };
    enqueue(store, &parcel).await;
    store.outbox_attempted(parcel.id(), 200, false).await.expect("noted");
    assert_eq!(due(store, 200).await.len(), 1, "a failed attempt keeps it");
    store.outbox_attempted(parcel.id(), 300, true).await.expect("noted");
    assert_eq!(store.outbox_count().await.expect("read"), 0);
}

pub(super) async fn deadlines_end_attempts(store: &impl Store) {
    let late = item("late", b"r");
    enqueue(store, &late).await;
    assert_eq!(due(store, 999).await.len(), 1);
    assert_eq!(store.outbox_expired(999, 10).await.expect("read"), vec![]);
    assert_eq!(due(store, 1_000).await, vec![]);
    assert_eq!(store.outbox_wake(1_000).await.expect("read"), None);
    let expired = store.outbox_expired(1_000, 10).await.expect("read");
    assert_eq!(expired.iter().map(|due| due.id).collect::<Vec<_>>(), vec![late.id()]);
    commit(store, Batch::new("withdraw").with(Op::Withdraw { id: late.id() })).await;
    assert_eq!(store.outbox_count().await.expect("read"), 0);
}

pub(super) async fn the_longest_due_comes_first(store: &impl Store) {
    for (kind, not_before) in [("third", 300), ("first", 100), ("second", 200), ("second too", 200)] {
        enqueue(store, &OutboxItem { not_before, ..item(kind, b"r") }).await;
    }
    let kinds: Vec<_> = due(store, 500).await.into_iter().map(|due| due.item.kind).collect();
    assert_eq!(kinds, ["first", "second", "second too", "third"]);
    assert_eq!(store.outbox_due(500, 2).await.expect("read").len(), 2);
}

pub(super) async fn no_host_hides_another(store: &impl Store) {
    let to = |host: &str, number: u64| format!("https://{host}/mailbox/{number}");
    for number in 0..20 {
        enqueue(store, &OutboxItem { to: to("slow.example", number), not_before: number, ..item("slow", b"r") }).await;
    }
    enqueue(store, &OutboxItem { to: to("quick.example:8443", 1), not_before: 50, ..item("quick", b"r") }).await;
    enqueue(store, &OutboxItem { to: "no address".to_owned(), not_before: 60, ..item("odd", b"r") }).await;
    enqueue(store, &OutboxItem { to: to("later.example", 1), not_before: 900, ..item("later", b"r") }).await;
    let found = |now, per_host, limit| async move {
        let due = store.outbox_due_by_host(now, per_host, limit).await.expect("read");
        due.into_iter().map(|due| due.item.kind).collect::<Vec<_>>()
    };
    assert_eq!(found(100, 2, 100).await, ["slow", "slow", "quick", "odd"]);
    assert_eq!(found(100, 2, 3).await, ["slow", "slow", "quick"]);
    assert_eq!(found(100, 100, 100).await.len(), 22);
    assert_eq!(found(1_000, 2, 100).await, Vec::<String>::new(), "their deadline is over");
}

pub(super) async fn timers_fire_until_cleared(store: &impl Store) {
    let timer = |name: &str, at| Timer { key: key(name), at, payload: name.as_bytes().to_vec() };
    assert_eq!(store.timers_wake().await.expect("read"), None);
    for timer in [timer("b", 20), timer("a", 20), timer("c", 10), timer("moved", 5)] {
        commit(store, Batch::new("set").with(Op::SetTimer(timer))).await;
    }
    commit(store, Batch::new("set").with(Op::SetTimer(timer("moved", 30)))).await;
    assert_eq!(store.timers_wake().await.expect("read"), Some(10));
    assert_eq!(store.timers_due(9, 10).await.expect("read"), vec![]);
    let due = store.timers_due(20, 10).await.expect("read");
    assert_eq!(due, vec![timer("c", 10), timer("a", 20), timer("b", 20)]);
    assert_eq!(store.timers_due(20, 1).await.expect("read"), vec![timer("c", 10)]);
    for name in ["c", "a", "b", "never set"] {
        commit(store, Batch::new("clear").with(Op::ClearTimer { key: key(name) })).await;
    }
    assert_eq!(store.timers_due(100, 10).await.expect("read"), vec![timer("moved", 30)]);
}

pub(super) async fn leaves_have_no_gaps(store: &impl Store) {
    let append = |n: u8| {
        let batch = Batch::new("append").with(Op::AppendLeaf { entry: [n; 32], note: vec![n] });
        let batch = batch.with(Op::AppendLeaf { entry: [n; 32], note: vec![] });
        // every third batch is refused after its leaves were appended
        let expect = if n.is_multiple_of(3) { Expect::Version(9) } else { Expect::Any };
        store.commit(batch.put(Space::Log, key("head"), vec![n], expect))
    };
    let outcomes = join_all((0..60).map(append)).await;
    let mut indexes = Vec::new();
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(done) => {
                assert_eq!(done.leaf_indexes.len(), 2);
                assert_eq!(done.leaf_indexes[0] + 1, done.leaf_indexes[1], "leaves of a batch are neighbours");
                let leaves = store.leaves(done.leaf_indexes[0], 2).await.expect("read");
                assert_eq!(leaves[0].entry, [n as u8; 32], "the index that was answered is the one that was stored");
                assert_eq!(leaves[0].note, [n as u8]);
                indexes.extend(done.leaf_indexes);
            }
            Err(error) => assert!(matches!(error, CommitError::Conflict { .. }) && n.is_multiple_of(3), "{error:?}"),
        }
    }
    indexes.sort_unstable();
    assert_eq!(indexes, (0..80).collect::<Vec<_>>());
    assert_eq!(store.leaf_count().await.expect("read"), 80);
    let page: Vec<_> = store.leaves(70, 100).await.expect("read").into_iter().map(|leaf| leaf.index).collect();
    assert_eq!(page, (70..80).collect::<Vec<_>>());
    assert!(store.leaves(u64::MAX, 1).await.expect("read").is_empty());
}

pub(super) async fn changes_are_signalled(store: &impl Store) {
    let areas = [Area::Outbox, Area::Timers, Area::Leaves, Area::Space(Space::Mail), Area::Space(Space::Case)];
    let mut watched: Vec<_> = areas.iter().map(|area| store.changed(*area)).collect();
    let batch = Batch::new("mail")
        .put(Space::Mail, key("m"), vec![], Expect::Any)
        .with(Op::Enqueue(item("signal", b"r")))
        .with(Op::SetTimer(Timer { key: key("t"), at: 1, payload: vec![] }))
        .with(Op::AppendLeaf { entry: [0; 32], note: vec![] });
    commit(store, batch).await;
    let seen: Vec<_> = watched.iter_mut().map(|area| area.has_changed().expect("open")).collect();
    assert_eq!(seen, [true, true, true, true, false], "what was touched is signalled, before the commit is answered");
    watched.iter_mut().for_each(|area| drop(area.borrow_and_update()));
    let refused = Batch::new("refused").put(Space::Mail, key("m"), vec![], Expect::Absent);
    store.commit(refused).await.expect_err("the row exists");
    assert!(!watched[3].has_changed().expect("open"), "what was refused is not signalled");
}
