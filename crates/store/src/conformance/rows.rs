//! Checks of rows and batches.

use super::{assert_conflict, commit, key, load, put, values};
use crate::{
    Batch, BatchError, CommitError, Expect, Key, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, Promoted, Space,
    Store, Timer,
};
use futures::future::join_all;

pub(super) async fn puts_count_versions(store: &impl Store) {
    let row = key("a");
    assert_eq!(load(store, Space::Case, &row).await, None, "an empty store holds nothing");
    put(store, Space::Case, &row, b"one").await;
    assert_eq!(load(store, Space::Case, &row).await, Some((1, b"one".to_vec())));
    put(store, Space::Case, &row, b"").await;
    assert_eq!(load(store, Space::Case, &row).await, Some((2, vec![])));
    let swap = Batch::new("swap").put(Space::Case, row.clone(), b"three".to_vec(), Expect::Version(2));
    commit(store, swap).await;
    assert_eq!(load(store, Space::Case, &row).await, Some((3, b"three".to_vec())));
    commit(store, Batch::new("delete").delete(Space::Case, row.clone(), Expect::Version(3))).await;
    assert_eq!(load(store, Space::Case, &row).await, None);
    commit(store, Batch::new("delete").delete(Space::Case, row.clone(), Expect::Any)).await;
    commit(store, Batch::new("insert").put(Space::Case, row.clone(), vec![4], Expect::Absent)).await;
    assert_eq!(load(store, Space::Case, &row).await, Some((1, vec![4])), "a new row starts at version 1");
}

pub(super) async fn expectations_are_kept(store: &impl Store) {
    let (here, gone) = (key("here"), key("gone"));
    put(store, Space::Spent, &here, b"1").await;
    for (row, expect) in [
        (&here, Expect::Absent),
        (&here, Expect::Version(0)),
        (&here, Expect::Version(2)),
        (&gone, Expect::Version(1)),
        (&gone, Expect::Version(0)),
    ] {
        let put = Op::Put { space: Space::Spent, key: row.clone(), value: vec![2], expect };
        let delete = Op::Delete { space: Space::Spent, key: row.clone(), expect };
        let require = Op::Require { space: Space::Spent, key: row.clone(), expect };
        for op in [put, delete, require] {
            assert_conflict(store.commit(Batch::new("refused").with(op)).await, Space::Spent, row, expect);
        }
    }
    for (row, expect) in
        [(&here, Expect::Any), (&here, Expect::Version(1)), (&gone, Expect::Any), (&gone, Expect::Absent)]
    {
        let require = Op::Require { space: Space::Spent, key: row.clone(), expect };
        commit(store, Batch::new("met").with(require)).await;
    }
    let absent = Batch::new("met").delete(Space::Spent, gone.clone(), Expect::Absent);
    commit(store, absent).await;
    assert_eq!(load(store, Space::Spent, &here).await, Some((1, b"1".to_vec())), "a requirement writes nothing");
    assert_eq!(load(store, Space::Spent, &gone).await, None);
}

pub(super) async fn a_failed_batch_leaves_nothing(store: &impl Store) {
    let (taken, other) = (key("taken"), key("other"));
    put(store, Space::Unique, &taken, b"first").await;
    put(store, Space::Staged, &other, b"staged").await;
    commit(store, Batch::new("timer").with(Op::SetTimer(Timer { key: other.clone(), at: 5, payload: vec![] }))).await;
    let doomed = Batch::new("doomed")
        .put(Space::Case, other.clone(), vec![1], Expect::Any)
        .put(Space::Unique, key("more"), vec![1], Expect::Absent)
        .delete(Space::Staged, other.clone(), Expect::Any)
        .with(Op::Promote {
            from_space: Space::Unique,
            from_prefix: key("more"),
            to_space: Space::Chart,
            to_prefix: key("more"),
        })
        .with(Op::ClearTimer { key: other.clone() })
        .with(Op::AppendLeaf { entry: [1; 32], note: vec![] })
        .with(Op::Enqueue(super::outbox::item("doomed", b"r")))
        .put(Space::Unique, taken.clone(), b"second".to_vec(), Expect::Absent);
    assert_conflict(store.commit(doomed).await, Space::Unique, &taken, Expect::Absent);
    assert_eq!(load(store, Space::Case, &other).await, None);
    assert_eq!(load(store, Space::Unique, &key("more")).await, None);
    assert_eq!(load(store, Space::Staged, &other).await, Some((1, b"staged".to_vec())));
    assert_eq!(load(store, Space::Unique, &taken).await, Some((1, b"first".to_vec())));
    assert_eq!(values(store, Space::Chart, &Key::empty()).await, vec![]);
    assert_eq!(store.leaf_count().await.expect("read"), 0);
    assert_eq!(store.outbox_count().await.expect("read"), 0);
    assert_eq!(store.timers_wake().await.expect("read"), Some(5));
}

pub(super) async fn a_batch_sees_its_own_effects(store: &impl Store) {
    let row = key("a");
    let batch = Batch::new("chain")
        .put(Space::Case, row.clone(), vec![1], Expect::Absent)
        .put(Space::Case, row.clone(), vec![2], Expect::Version(1))
        .delete(Space::Case, row.clone(), Expect::Version(2))
        .put(Space::Case, row.clone(), vec![3], Expect::Absent);
    commit(store, batch).await;
    assert_eq!(load(store, Space::Case, &row).await, Some((1, vec![3])));
    let twice = Batch::new("twice").put(Space::Case, key("b"), vec![1], Expect::Absent).put(
        Space::Case,
        key("b"),
        vec![2],
        Expect::Absent,
    );
    assert_conflict(store.commit(twice).await, Space::Case, &key("b"), Expect::Absent);
}

pub(super) async fn many_inserts_name_the_one_that_exists(store: &impl Store) {
    let row = |n: u64| Key::build().number(n).done();
    let insert = |from: u64, to: u64, expect| {
        (from..to)
            .fold(Batch::new("many"), |batch, n| batch.put(Space::Nonce, row(n), n.to_be_bytes().to_vec(), expect))
    };
    commit(store, insert(100, 300, Expect::Absent)).await;
    assert_conflict(store.commit(insert(0, 200, Expect::Absent)).await, Space::Nonce, &row(100), Expect::Absent);
    assert_eq!(store.count(Space::Nonce, &Key::empty()).await.expect("read"), 200);
    commit(store, insert(0, 200, Expect::Any)).await;
    assert_eq!(load(store, Space::Nonce, &row(99)).await, Some((1, 99u64.to_be_bytes().to_vec())));
    assert_eq!(load(store, Space::Nonce, &row(100)).await, Some((2, 100u64.to_be_bytes().to_vec())));
    assert_eq!(load(store, Space::Nonce, &row(200)).await, Some((1, 200u64.to_be_bytes().to_vec())));
    // one row many times over in one batch
    let same = (0..80).fold(Batch::new("same"), |batch, n| batch.put(Space::Case, row(7), vec![n], Expect::Any));
    commit(store, same).await;
    assert_eq!(load(store, Space::Case, &row(7)).await, Some((80, vec![79])));
}

pub(super) async fn scans_are_ordered_and_paged(store: &impl Store) {
    let row = |group: &str, n: u64| Key::build().text(group).number(n).done();
    let mut batch = Batch::new("fill");
    for n in (0..50).rev() {
        for group in ["b", "a", "ab"] {
            batch = batch.put(Space::Resource, row(group, n), n.to_be_bytes().to_vec(), Expect::Any);
        }
    }
    commit(store, batch).await;
    let expected: Vec<_> = (0..50).map(|n| row("a", n)).collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(Space::Resource, &key("a"), after.as_ref(), 7).await.expect("read");
        let keys = store.keys(Space::Resource, &key("a"), after.as_ref(), 7).await.expect("read");
        assert_eq!(page.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys, "keys and scan agree");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(keys);
    }
    assert_eq!(seen, expected, "every row under the prefix once, in order");
    let behind = store.scan(Space::Resource, &key("a"), Some(&key("b")), 7).await.expect("read");
    assert!(behind.is_empty(), "nothing lies after a key above the prefix");
    let before = store.keys(Space::Resource, &key("b"), Some(&key("a")), 1).await.expect("read");
    assert_eq!(before, vec![row("b", 0)], "a key below the prefix starts at the prefix");
    assert_eq!(store.count(Space::Resource, &key("a")).await.expect("read"), 50);
    assert_eq!(store.count(Space::Resource, &Key::empty()).await.expect("read"), 150);
    assert!(store.scan(Space::Resource, &Key::empty(), None, 0).await.expect("read").is_empty());
}

pub(super) async fn odd_keys_and_values_survive(store: &impl Store) {
    let keys =
        [vec![0], vec![0, 0], vec![0, 0xff], b"'; DROP".to_vec(), vec![0xff], vec![0xff; 8], vec![0xff; MAX_KEY_BYTES]];
    for bytes in &keys {
        put(store, Space::Setting, &Key::from_bytes(bytes.clone()), bytes).await;
    }
    let mut expected: Vec<_> = keys.iter().map(|bytes| (Key::from_bytes(bytes.clone()), bytes.clone())).collect();
    expected.sort();
    assert_eq!(values(store, Space::Setting, &Key::empty()).await, expected);
    let high = values(store, Space::Setting, &Key::from_bytes(vec![0xff])).await;
    assert_eq!(high.len(), 3, "a prefix without an upper end");
    let large = vec![0xa5; MAX_VALUE_BYTES];
    put(store, Space::Mail, &key("large"), &large).await;
    assert_eq!(load(store, Space::Mail, &key("large")).await, Some((1, large)));
    // bytes that are not text keep their zeros when they get a new prefix
    let promote = Op::Promote {
        from_space: Space::Setting,
        from_prefix: Key::from_bytes(vec![0]),
        to_space: Space::Chart,
        to_prefix: Key::from_bytes(vec![0xc3, 0, 0x28]),
    };
    commit(store, Batch::new("odd").with(promote)).await;
    let moved: Vec<_> =
        values(store, Space::Chart, &Key::empty()).await.into_iter().map(|(key, _)| key.into_bytes()).collect();
    assert_eq!(moved, vec![vec![0xc3, 0, 0x28], vec![0xc3, 0, 0x28, 0], vec![0xc3, 0, 0x28, 0xff]]);
}

pub(super) async fn prefixes_are_deleted_alone(store: &impl Store) {
    for name in ["a", "ab", "b"] {
        put(store, Space::Frontier, &key(name).extend().number(1).done(), b"").await;
    }
    commit(store, Batch::new("drop").with(Op::DeletePrefix { space: Space::Frontier, prefix: key("a") })).await;
    assert_eq!(store.count(Space::Frontier, &Key::empty()).await.expect("read"), 2);
    commit(store, Batch::new("drop").with(Op::DeletePrefix { space: Space::Frontier, prefix: Key::empty() })).await;
    assert_eq!(store.count(Space::Frontier, &Key::empty()).await.expect("read"), 0);
}

pub(super) async fn promotion_moves_once(store: &impl Store) {
    let staged = |n: u64| key("session").extend().number(n).done();
    let filed = |n: u64| key("patient").extend().number(n).done();
    for n in 0..3 {
        put(store, Space::Filed, &staged(n), &[n as u8]).await;
        put(store, Space::Filed, &staged(n), &[n as u8]).await;
    }
    put(store, Space::Filed, &key("sessions"), b"other").await;
    put(store, Space::Chart, &filed(1), b"held").await;
    let promote = Op::Promote {
        from_space: Space::Filed,
        from_prefix: key("session"),
        to_space: Space::Chart,
        to_prefix: key("patient"),
    };
    let mark = Batch::new("file").with(promote).put(Space::Case, key("mark"), vec![], Expect::Absent);
    assert_eq!(commit(store, mark.clone()).await.promoted, vec![Promoted { moved: 2, already_held: 1 }]);
    let expected = vec![(filed(0), vec![0]), (filed(1), b"held".to_vec()), (filed(2), vec![2])];
    assert_eq!(values(store, Space::Chart, &Key::empty()).await, expected, "the first writer wins");
    assert_eq!(load(store, Space::Chart, &filed(0)).await, Some((1, vec![0])), "moved rows start at version 1");
    assert_eq!(values(store, Space::Filed, &Key::empty()).await, vec![(key("sessions"), b"other".to_vec())]);
    assert_conflict(store.commit(mark).await, Space::Case, &key("mark"), Expect::Absent);
}

pub(super) async fn copies_stay(store: &impl Store) {
    let source = key("p").extend().number(1).done();
    put(store, Space::Chart, &source, b"1").await;
    let copy =
        Op::Copy { from_space: Space::Chart, from_prefix: key("p"), to_space: Space::Snapshot, to_prefix: key("s") };
    let frozen = key("s").extend().number(1).done();
    let done = commit(store, Batch::new("freeze").with(copy.clone())).await;
    assert_eq!(done.promoted, vec![Promoted { moved: 1, already_held: 0 }]);
    put(store, Space::Chart, &source, b"2").await;
    assert_eq!(load(store, Space::Snapshot, &frozen).await, Some((1, b"1".to_vec())), "a copy does not follow");
    let again = commit(store, Batch::new("freeze").with(copy)).await;
    assert_eq!(again.promoted, vec![Promoted { moved: 0, already_held: 1 }]);
    assert_eq!(load(store, Space::Snapshot, &frozen).await, Some((1, b"1".to_vec())));
}

pub(super) async fn one_of_many_writers_wins(store: &impl Store) {
    let spend = |n: u8| {
        let mine = Key::build().number(n.into()).done();
        let batch = Batch::new("spend").put(Space::Evidence, mine, vec![n], Expect::Absent);
        store.commit(batch.put(Space::Spent, key("proof"), vec![n], Expect::Absent))
    };
    let outcomes = join_all((0..64).map(spend)).await;
    let winners: Vec<_> = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_ok()).collect();
    assert_eq!(winners.len(), 1, "a proof is spent once");
    for outcome in outcomes.iter().filter(|outcome| outcome.is_err()) {
        assert_conflict(outcome.clone(), Space::Spent, &key("proof"), Expect::Absent);
    }
    let winner = winners[0].0 as u8;
    assert_eq!(load(store, Space::Spent, &key("proof")).await, Some((1, vec![winner])));
    assert_eq!(store.count(Space::Evidence, &Key::empty()).await.expect("read"), 1, "losers leave nothing");
    put(store, Space::Case, &key("swap"), b"").await;
    let swap = |n: u8| store.commit(Batch::new("swap").put(Space::Case, key("swap"), vec![n], Expect::Version(1)));
    let swapped = join_all((0..64).map(swap)).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(swapped, 1, "of many swaps from one version one goes through");
}

pub(super) async fn bounds_are_refused(store: &impl Store) {
    let put = |key: Key, value: Vec<u8>| Batch::new("bounds").put(Space::Case, key, value, Expect::Any);
    let long = Key::from_bytes(vec![1; MAX_KEY_BYTES + 1]);
    let many =
        (0..=MAX_BATCH_OPS).fold(Batch::new("many"), |batch, _| batch.delete(Space::Case, key("a"), Expect::Any));
    let heavy = (0..17)
        .fold(Batch::new("heavy"), |batch, _| batch.put(Space::Case, key("a"), vec![0; MAX_VALUE_BYTES], Expect::Any));
    let same =
        Op::Promote { from_space: Space::Case, from_prefix: key("a"), to_space: Space::Case, to_prefix: key("b") };
    let mut both = super::outbox::item("both", b"r");
    both.blob = Some(crate::Address::from_bytes([1; 32]));
    let mut endless = super::outbox::item("endless", b"r");
    endless.deadline = u64::MAX;
    for (batch, expected) in [
        (put(long, vec![]), BatchError::KeyTooLong),
        (put(Key::empty(), vec![]), BatchError::EmptyKey),
        (put(key("a"), vec![0; MAX_VALUE_BYTES + 1]), BatchError::ValueTooLong),
        (many, BatchError::TooManyOps),
        (heavy, BatchError::TooManyBytes),
        (Batch::new("same").with(same), BatchError::SameSpace),
        (Batch::new("settle").with(Op::Settle { reply_key: vec![] }), BatchError::EmptyReplyKey),
        (Batch::new("reply").with(Op::Enqueue(super::outbox::item("none", b""))), BatchError::EmptyReplyKey),
        (Batch::new("both").with(Op::Enqueue(both)), BatchError::BodyAndBlob),
        (Batch::new("endless").with(Op::Enqueue(endless)), BatchError::NumberTooLarge),
    ] {
        match store.commit(batch).await {
            Err(CommitError::Invalid(found)) => assert_eq!(found, expected),
            other => panic!("expected {expected:?}, got {other:?}"),
        }
    }
    assert_eq!(store.count(Space::Case, &Key::empty()).await.expect("read"), 0);
}

pub(super) async fn spaces_are_separate(store: &impl Store) {
    for (n, space) in Space::ALL.iter().enumerate() {
        put(store, *space, &key("same"), &[n as u8]).await;
    }
    for (n, space) in Space::ALL.iter().enumerate() {
        assert_eq!(load(store, *space, &key("same")).await, Some((1, vec![n as u8])), "{space:?}");
    }
}
