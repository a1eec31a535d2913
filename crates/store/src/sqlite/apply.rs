//! The operations of a batch as statements, inside a transaction that the writer opened.

use super::sql::{self, WIDE};
use crate::batch::{OutboxItem, Promoted};
use crate::key::Key;
use crate::{CommitError, Committed, Expect, Op, OutboxId, Space};
use sqlx::sqlite::SqliteConnection;

/// Why a batch stopped: its own affair, or everybody's in the same transaction.
pub(super) enum Failure {
    /// A row was not as expected; the others in the group go on.
    Conflict(CommitError),
    /// A wide insert met a row that exists; run narrow to learn which.
    Narrow,
    /// The database failed.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Database(error)
    }
}

/// The range of keys under `prefix`: from the first, up to but without the second.
pub(super) fn range(prefix: &Key) -> (Vec<u8>, Vec<u8>) {
    // without an end of its own the range ends above every key that the bounds on batches let in
    let end = prefix.prefix_end().unwrap_or_else(|| vec![u8::MAX; 4 * crate::MAX_KEY_BYTES]);
    (prefix.as_bytes().to_vec(), end)
}

/// Runs every operation in order; `wide` joins neighbouring inserts into one statement.
pub(super) async fn all(connection: &mut SqliteConnection, ops: &[Op], wide: bool) -> Result<Committed, Failure> {
    let mut done = Committed::default();
    let mut rest = ops;
    while let Some(op) = rest.first() {
        let taken = match wide_run(rest) {
            Some((space, expect)) if wide => {
                put_wide(connection, space, expect, &rest[..WIDE]).await?;
                WIDE
            }
            _ => {
                one(connection, op, &mut done).await?;
                1
            }
        };
        rest = &rest[taken..];
    }
    Ok(done)
}

/// Whether the first `WIDE` operations are puts into one space with one expectation other than a version.
fn wide_run(ops: &[Op]) -> Option<(Space, Expect)> {
    let Some(Op::Put { space, expect: expect @ (Expect::Any | Expect::Absent), .. }) = ops.first() else { return None };
    let same = |op: &Op| matches!(op, Op::Put { space: s, expect: e, .. } if s == space && e == expect);
    (ops.len() >= WIDE && ops[..WIDE].iter().all(same)).then_some((*space, *expect))
}

async fn put_wide(connection: &mut SqliteConnection, space: Space, expect: Expect, ops: &[Op]) -> Result<(), Failure> {
    let statements = sql::of(space);
    let absent = expect == Expect::Absent;
    let mut query = sqlx::query(if absent { statements.insert_wide.as_str() } else { statements.put_wide.as_str() });
    for op in ops {
        if let Op::Put { key, value, .. } = op {
            query = query.bind(key.as_bytes()).bind(value.as_slice());
        }
    }
    let changed = query.execute(connection).await?.rows_affected();
    if absent && changed != ops.len() as u64 { Err(Failure::Narrow) } else { Ok(()) }
}

async fn one(connection: &mut SqliteConnection, op: &Op, done: &mut Committed) -> Result<(), Failure> {
    match op {
        Op::Put { space, key, value, expect } => put(connection, *space, key, value, *expect).await?,
        Op::Delete { space, key, expect } => delete(connection, *space, key, *expect).await?,
        Op::Require { space, key, expect } => require(connection, *space, key, *expect).await?,
        Op::Promote { from_space, from_prefix, to_space, to_prefix } => {
            let moved = copy(connection, (*from_space, from_prefix), (*to_space, to_prefix)).await?;
            let total = delete_prefix(connection, *from_space, from_prefix).await?;
            done.promoted.push(Promoted { moved, already_held: total - moved });
        }
        Op::Copy { from_space, from_prefix, to_space, to_prefix } => {
            let (start, end) = range(from_prefix);
            let count = sqlx::query_scalar::<_, i64>(sql::of(*from_space).count.as_str()).bind(start).bind(end);
            let total = count.fetch_one(&mut *connection).await?.unsigned_abs();
            let moved = copy(connection, (*from_space, from_prefix), (*to_space, to_prefix)).await?;
            done.promoted.push(Promoted { moved, already_held: total - moved });
        }
        Op::DeletePrefix { space, prefix } => {
            delete_prefix(connection, *space, prefix).await?;
        }
        Op::Enqueue(item) => enqueue(connection, item).await?,
        Op::Settle { reply_key } => {
            sqlx::query("DELETE FROM outbox WHERE reply_key = ?")
                .bind(reply_key.as_slice())
                .execute(connection)
                .await?;
        }
        Op::Withdraw { id } => {
            sqlx::query("DELETE FROM outbox WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
        }
        Op::Attempted { id, next_at, delivered } => attempted(connection, *id, *next_at, *delivered).await?,
        Op::SetTimer(timer) => {
            let set = "INSERT INTO timers (key, due_at, payload) VALUES (?, ?, ?) \
                       ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at, payload = excluded.payload";
            let query = sqlx::query(set).bind(timer.key.as_bytes()).bind(signed(timer.at));
            query.bind(timer.payload.as_slice()).execute(connection).await?;
        }
        Op::ClearTimer { key } => {
            sqlx::query("DELETE FROM timers WHERE key = ?").bind(key.as_bytes()).execute(connection).await?;
        }
        Op::AppendLeaf { entry, note } => {
            // the writer is alone and leaves are never deleted, so the next index leaves no gap
            let append = "INSERT INTO leaves (leaf_index, entry, note) \
                          VALUES ((SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM leaves), ?, ?) RETURNING leaf_index";
            let query = sqlx::query_scalar::<_, i64>(append).bind(&entry[..]).bind(note.as_slice());
            done.leaf_indexes.push(query.fetch_one(connection).await?.unsigned_abs());
        }
    }
    Ok(())
}

fn conflict(space: Space, key: &Key, expect: Expect) -> Failure {
    Failure::Conflict(CommitError::Conflict { space, key: key.clone(), expect })
}

/// Times and versions were bounded by [`crate::Batch::check`].
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn put(
    connection: &mut SqliteConnection,
    space: Space,
    key: &Key,
    value: &[u8],
    expect: Expect,
) -> Result<(), Failure> {
    let statements = sql::of(space);
    let query = match expect {
        Expect::Any => sqlx::query(statements.put.as_str()).bind(key.as_bytes()).bind(value),
        Expect::Absent => sqlx::query(statements.insert.as_str()).bind(key.as_bytes()).bind(value),
        Expect::Version(version) => {
            sqlx::query(statements.swap.as_str()).bind(value).bind(key.as_bytes()).bind(signed(version))
        }
    };
    match query.execute(connection).await?.rows_affected() {
        0 => Err(conflict(space, key, expect)),
        _ => Ok(()),
    }
}

async fn delete(connection: &mut SqliteConnection, space: Space, key: &Key, expect: Expect) -> Result<(), Failure> {
    let statements = sql::of(space);
    let query = match expect {
        Expect::Any => sqlx::query(statements.delete.as_str()).bind(key.as_bytes()),
        Expect::Absent => return require(connection, space, key, expect).await,
        Expect::Version(version) => {
            sqlx::query(statements.delete_version.as_str()).bind(key.as_bytes()).bind(signed(version))
        }
    };
    match query.execute(connection).await?.rows_affected() {
        0 if expect != Expect::Any => Err(conflict(space, key, expect)),
        _ => Ok(()),
    }
}

async fn require(connection: &mut SqliteConnection, space: Space, key: &Key, expect: Expect) -> Result<(), Failure> {
    let query = sqlx::query_scalar::<_, i64>(sql::of(space).version.as_str()).bind(key.as_bytes());
    let found = query.fetch_optional(connection).await?;
    let met = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found == Some(signed(version)),
    };
    if met { Ok(()) } else { Err(conflict(space, key, expect)) }
}

async fn copy(connection: &mut SqliteConnection, from: (Space, &Key), to: (Space, &Key)) -> Result<u64, Failure> {
    let (start, end) = range(from.1);
    // substr counts from 1
    let rest = start.len() as i64 + 1;
    let query = sqlx::query(sql::of(from.0).copy_to[to.0.index()].as_str()).bind(to.1.as_bytes()).bind(rest);
    Ok(query.bind(start).bind(end).execute(connection).await?.rows_affected())
}

async fn delete_prefix(connection: &mut SqliteConnection, space: Space, prefix: &Key) -> Result<u64, Failure> {
    let (start, end) = range(prefix);
    let query = sqlx::query(sql::of(space).delete_prefix.as_str()).bind(start).bind(end);
    Ok(query.execute(connection).await?.rows_affected())
}

async fn enqueue(connection: &mut SqliteConnection, item: &OutboxItem) -> Result<(), Failure> {
    let insert = "INSERT INTO outbox (id, kind, receiver, body, blob, reply_key, not_before, next_at, deadline, \
                  settle_on_delivery, attempts, delivered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, 0, 0) \
                  ON CONFLICT (id) DO NOTHING";
    let id = item.id();
    sqlx::query(insert)
        .bind(&id.as_bytes()[..])
        .bind(item.kind.as_str())
        .bind(item.to.as_str())
        .bind(item.body.as_slice())
        .bind(item.blob.as_ref().map(|address| &address.as_bytes()[..]))
        .bind(item.reply_key.as_slice())
        .bind(signed(item.not_before))
        .bind(signed(item.deadline))
        .bind(item.settle_on_delivery)
        .execute(connection)
        .await?;
    Ok(())
}

async fn attempted(
    connection: &mut SqliteConnection,
    id: OutboxId,
    next_at: u64,
    delivered: bool,
) -> Result<(), Failure> {
    if delivered {
        let settle = "DELETE FROM outbox WHERE id = ? AND settle_on_delivery";
        sqlx::query(settle).bind(&id.as_bytes()[..]).execute(&mut *connection).await?;
    }
    let note = "UPDATE outbox SET attempts = attempts + 1, next_at = ?, delivered = MAX(delivered, ?) WHERE id = ?";
    let query = sqlx::query(note).bind(signed(next_at)).bind(delivered).bind(&id.as_bytes()[..]);
    query.execute(connection).await?;
    Ok(())
}
