use super::*;
use crate::{Expect, Key, MAX_VALUE_BYTES, MemoryStore, Op, OutboxItem, Space, Store, StoreError, Timer};
use proptest::prelude::*;
use sqlx::ConnectOptions;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

async fn open_with(path: &Path, options: SqliteOptions) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(DataFolder::open(path)?, options).await
}

async fn open(path: &Path) -> SqliteStore {
    open_with(path, SqliteOptions::default()).await.unwrap()
}

fn number(n: u64) -> Key {
    Key::build().number(n).done()
}

fn put(n: u64, size_bytes: usize) -> Batch {
    Batch::new("put").put(Space::Case, number(n), vec![n as u8; size_bytes], Expect::Absent)
}

async fn script(path: &Path, sql: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(path.join(FILE)).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

#[tokio::test]
async fn conforms() {
    let home = tempfile::tempdir().unwrap();
    let serial = AtomicU64::new(0);
    crate::conformance::store(async || {
        open(&home.path().join(serial.fetch_add(1, Ordering::Relaxed).to_string())).await
    })
    .await;
}

#[tokio::test]
async fn everything_survives_closing_and_opening() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    let item = OutboxItem {
        to: "https://relay.example".to_owned(),
        body: vec![1, 2],
        reply_key: vec![3],
        not_before: 1,
        deadline: 10,
        kind: "kind".to_owned(),
        blob: None,
        settle_on_delivery: false,
    };
    let timer = Timer { key: number(1), at: 4, payload: vec![5] };
    let batch = put(1, 3).with(Op::Enqueue(item.clone())).with(Op::SetTimer(timer.clone()));
    store.commit(batch.with(Op::AppendLeaf { entry: [9; 32], note: vec![8] })).await.unwrap();
    store.close().await;
    assert!(matches!(store.commit(put(2, 1)).await, Err(CommitError::Closed)));
    assert!(matches!(store.load(Space::Case, &number(1)).await, Err(StoreError::Closed)));
    drop(store);
    let store = open(home.path()).await;
    assert_eq!(store.load(Space::Case, &number(1)).await.unwrap().unwrap().value, [1; 3]);
    assert_eq!(store.outbox_due(1, 9).await.unwrap()[0].item, item);
    assert_eq!(store.timers_due(4, 9).await.unwrap(), [timer]);
    let next = store.commit(Batch::new("append").with(Op::AppendLeaf { entry: [7; 32], note: vec![] })).await.unwrap();
    assert_eq!(next.leaf_indexes, [1]);
}

#[tokio::test]
async fn files_are_private_and_the_folder_is_locked() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    store.commit(put(1, 1)).await.unwrap();
    for file in ["waybill.sqlite", "waybill.sqlite-wal", "waybill.sqlite-shm"] {
        let mode = std::fs::metadata(home.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert!(matches!(DataFolder::open(home.path()), Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn durability_is_full_and_the_log_is_ahead() {
    let home = tempfile::tempdir().unwrap();
    let _store = open(home.path()).await;
    let mut connection = writing(&home.path().join(FILE), &SqliteOptions::default()).connect().await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_only_that() {
    let home = tempfile::tempdir().unwrap();
    let options = SqliteOptions { max_pages: Some(400), ..SqliteOptions::default() };
    let store = open_with(home.path(), options).await.unwrap();
    store.commit(put(0, 10)).await.unwrap();
    // all at once, so that they meet in one group
    let sizes = [10, MAX_VALUE_BYTES, 10, MAX_VALUE_BYTES, 10];
    let puts = sizes.iter().enumerate().map(|(n, size_bytes)| store.commit(put(n as u64 + 1, *size_bytes)));
    for (outcome, size_bytes) in futures::future::join_all(puts).await.into_iter().zip(sizes) {
        match outcome {
            Ok(_) => assert_eq!(size_bytes, 10),
            Err(error) => {
                assert!(matches!(error, CommitError::Full(_)), "{error:?}");
                assert!(error.is_retryable());
                assert_eq!(size_bytes, MAX_VALUE_BYTES);
            }
        }
    }
    assert_eq!(store.count(Space::Case, &Key::empty()).await.unwrap(), 4);
    store.commit(put(9, 10)).await.unwrap();
}

#[tokio::test]
async fn a_read_only_store_answers_and_refuses_to_change() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    store.commit(put(1, 1)).await.unwrap();
    store.close().await;
    drop(store);
    let options = SqliteOptions { read_only: true, ..SqliteOptions::default() };
    let store = open_with(home.path(), options).await.unwrap();
    assert!(matches!(store.commit(put(2, 1)).await, Err(CommitError::ReadOnly(_))));
    assert!(store.load(Space::Case, &number(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).await.close().await;
    script(home.path(), "PRAGMA user_version = 99").await;
    let before = std::fs::read(home.path().join(FILE)).unwrap();
    let refused = open_with(home.path(), SqliteOptions::default()).await.err().unwrap();
    assert!(matches!(refused, OpenError::NewerSchema { found: 99, supported, .. } if supported == schema::newest()));
    assert_eq!(std::fs::read(home.path().join(FILE)).unwrap(), before);
}

#[tokio::test]
async fn a_foreign_database_is_refused() {
    let home = tempfile::tempdir().unwrap();
    std::fs::File::create(home.path().join(FILE)).unwrap();
    script(home.path(), "CREATE TABLE theirs (a)").await;
    let before = std::fs::read(home.path().join(FILE)).unwrap();
    let refused = open_with(home.path(), SqliteOptions::default()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    assert_eq!(std::fs::read(home.path().join(FILE)).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    for n in 0..200 {
        store.commit(put(n, 1_000)).await.unwrap();
    }
    store.close().await;
    drop(store);
    assert!(!home.path().join("waybill.sqlite-wal").exists(), "closing folds the log into the file");
    let file = home.path().join(FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    // every page but the first, which holds the schema
    bytes[4096..].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&file, &bytes).unwrap();
    let refused = open_with(home.path(), SqliteOptions::default()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    std::fs::write(&file, b"no database, only some text that is long enough to be looked at").unwrap();
    let refused = open_with(home.path(), SqliteOptions::default()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
}

#[tokio::test]
async fn migrations_go_down_and_up_again() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).await.close().await;
    let mut connection = writing(&home.path().join(FILE), &SqliteOptions::default()).connect().await.unwrap();
    let tables = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let full: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    schema::migrate(&mut connection, 0).await.unwrap();
    let empty: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    schema::migrate(&mut connection, schema::newest()).await.unwrap();
    let again: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    assert_eq!((empty, again), (0, full));
}

#[tokio::test]
async fn a_lost_writing_connection_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(home.path()).unwrap();
    let path = folder.path().join(FILE);
    crate::folder::open_private(&path).unwrap();
    let options = writing(&path, &SqliteOptions::default());
    let connection = schema::open(&path, &options).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let (requests, incoming) = mpsc::channel(1);
    let task = tokio::spawn(writer::Writer::lost(options, Arc::new(Changes::new())).run(incoming));
    let (answer, outcome) = oneshot::channel();
    requests.send(writer::Request { batch: put(1, 1), size_bytes: 9, answer }).await.unwrap();
    outcome.await.unwrap().unwrap();
    drop(requests);
    task.await.unwrap();
}

#[tokio::test]
async fn waiting_batches_share_one_flush() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).await.close().await;
    let path = home.path().join(FILE);
    let options = writing(&path, &SqliteOptions::default());
    let connection = options.connect().await.unwrap();
    let (requests, incoming) = mpsc::channel(100);
    let mut outcomes = Vec::new();
    for n in 0..100 {
        let (answer, outcome) = oneshot::channel();
        let request = writer::Request { batch: put(n, 1), size_bytes: 10, answer };
        assert!(requests.try_send(request).is_ok());
        outcomes.push(outcome);
    }
    let writer = writer::Writer::new(connection, options, Arc::new(Changes::new()));
    let task = tokio::spawn(writer.run(incoming));
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
    // a commit of its own would cost each batch at least one page in the log
    let log_bytes = std::fs::metadata(home.path().join("waybill.sqlite-wal")).unwrap().len();
    assert!(log_bytes < 50 * 4096, "{log_bytes}");
    drop(requests);
    task.await.unwrap();
}

fn any_key() -> impl Strategy<Value = Key> {
    (prop::sample::select(vec!["a", "ab", "b"]), 0u64..3).prop_map(|(name, n)| Key::build().text(name).number(n).done())
}

fn any_prefix() -> impl Strategy<Value = Key> {
    prop::sample::select(vec!["a", "ab", "b", ""]).prop_map(|name| match name {
        "" => Key::empty(),
        name => Key::build().text(name).done(),
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let space = || prop::sample::select(vec![Space::Case, Space::Filed, Space::Chart]);
    let expect =
        || prop_oneof![3 => Just(Expect::Any), 1 => Just(Expect::Absent), 1 => (1u64..3).prop_map(Expect::Version)];
    let item = (0u8..4, any::<bool>(), 0u64..10, 0u64..10).prop_map(|(n, settle, not_before, deadline)| OutboxItem {
        to: "to".to_owned(),
        body: vec![n],
        reply_key: vec![n % 2],
        not_before,
        deadline,
        kind: "kind".to_owned(),
        blob: None,
        settle_on_delivery: settle,
    });
    prop_oneof![
        6 => (space(), any_key(), any::<u8>(), expect())
            .prop_map(|(space, key, value, expect)| Op::Put { space, key, value: vec![value], expect }),
        2 => (space(), any_key(), expect()).prop_map(|(space, key, expect)| Op::Delete { space, key, expect }),
        1 => (space(), any_key(), expect()).prop_map(|(space, key, expect)| Op::Require { space, key, expect }),
        1 => (any_prefix(), any_prefix()).prop_map(|(from_prefix, to_prefix)| Op::Promote {
            from_space: Space::Filed, from_prefix, to_space: Space::Chart, to_prefix,
        }),
        1 => (any_prefix(), any_prefix()).prop_map(|(from_prefix, to_prefix)| Op::Copy {
            from_space: Space::Chart, from_prefix, to_space: Space::Case, to_prefix,
        }),
        1 => (space(), any_prefix()).prop_map(|(space, prefix)| Op::DeletePrefix { space, prefix }),
        2 => item.clone().prop_map(Op::Enqueue),
        1 => (0u8..2).prop_map(|n| Op::Settle { reply_key: vec![n] }),
        1 => item.clone().prop_map(|item| Op::Withdraw { id: item.id() }),
        2 => (item, 0u64..10, any::<bool>())
            .prop_map(|(item, next_at, delivered)| Op::Attempted { id: item.id(), next_at, delivered }),
        1 => (any_key(), 0u64..10).prop_map(|(key, at)| Op::SetTimer(Timer { key, at, payload: vec![at as u8] })),
        1 => any_key().prop_map(|key| Op::ClearTimer { key }),
        1 => any::<u8>().prop_map(|n| Op::AppendLeaf { entry: [n; 32], note: vec![n] }),
    ]
}

/// Everything that can be read.
async fn all(store: &impl Store) -> String {
    let mut seen = String::new();
    for space in [Space::Case, Space::Filed, Space::Chart] {
        for (key, row) in store.scan(space, &Key::empty(), None, 1_000).await.unwrap() {
            seen += &format!("{space:?} {} {} {}\n", hex::encode(key.as_bytes()), row.version, hex::encode(row.value));
        }
    }
    for now in [0, 5, 10] {
        seen += &format!("{:?}\n", store.outbox_due(now, 100).await.unwrap());
        seen += &format!("{:?}\n", store.outbox_expired(now, 100).await.unwrap());
        seen += &format!("{:?}\n", store.outbox_wake(now).await.unwrap());
    }
    for timer in store.timers_due(100, 100).await.unwrap() {
        seen += &format!("{} {timer:?}\n", hex::encode(timer.key.as_bytes()));
    }
    seen + &format!("{:?}", store.leaves(0, 1_000).await.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_memory(
        script in prop::collection::vec(prop::collection::vec(any_op(), 1..12), 1..16),
        at_once in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (memory, sqlite) = (MemoryStore::new(), open(home.path()).await);
            let batches: Vec<_> = script.into_iter().map(|ops| Batch { name: "random", ops }).collect();
            let expected = batches.iter().cloned().map(|batch| memory.commit(batch));
            let expected = futures::future::join_all(expected).await;
            let found = if at_once {
                futures::future::join_all(batches.into_iter().map(|batch| sqlite.commit(batch))).await
            } else {
                let mut found = Vec::new();
                for batch in batches {
                    found.push(sqlite.commit(batch).await);
                }
                found
            };
            for (found, expected) in found.into_iter().zip(expected) {
                match (found, expected) {
                    (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected),
                    (
                        Err(CommitError::Conflict { space, key, expect }),
                        Err(CommitError::Conflict { space: space2, key: key2, expect: expect2 }),
                    ) => prop_assert_eq!((space, key, expect), (space2, key2, expect2)),
                    (found, expected) => prop_assert!(false, "{found:?} instead of {expected:?}"),
                }
            }
            prop_assert_eq!(all(&sqlite).await, all(&memory).await);
            sqlite.close().await;
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_dump_shows_every_value_whatever_the_schema() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path()).await;
    let key = Key::build().text("k").done();
    let large = vec![0x5a; 20_000];
    store.commit(Batch::new("test").put(Space::Case, key.clone(), large.clone(), Expect::Absent)).await.unwrap();
    store.close().await;
    let mut rows = Vec::new();
    crate::dump(&place.path().join(FILE), &mut |row| rows.push(row)).await.unwrap();
    let case = rows.iter().find(|row| row.table == Space::Case.table()).unwrap();
    let value = |name: &str| case.values.iter().find(|(column, _)| column == name).unwrap().1.clone();
    assert_eq!((value("key"), value("value"), value("version")), (key.as_bytes().to_vec(), large, b"1".to_vec()));
}
