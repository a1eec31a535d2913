//! Reading, on connections of their own.

use super::apply::{range, signed};
use super::{SqliteStore, error, sql};
use crate::{
    Address, Area, Batch, CommitError, Committed, DueItem, Key, Leaf, MAX_PAGE, OutboxId, OutboxItem, Space, Store,
    StoreError, Timer, Versioned,
};
use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::watch;

const DUE: &str = "SELECT id, kind, receiver, body, blob, reply_key, not_before, deadline, settle_on_delivery, attempts, \
                   delivered FROM outbox WHERE next_at <= ?1 AND deadline > ?1 ORDER BY next_at, sequence LIMIT ?2";
/// The first few due items of each host: from one host to the next by the index, never through all that wait for one.
const DUE_BY_HOST: &str = "WITH RECURSIVE hosts(host) AS (SELECT MIN(host) FROM outbox UNION ALL \
     SELECT (SELECT MIN(host) FROM outbox WHERE host > hosts.host) FROM hosts WHERE hosts.host IS NOT NULL) \
     SELECT o.id, o.kind, receiver, body, blob, reply_key, not_before, deadline, settle_on_delivery, attempts, delivered \
     FROM hosts CROSS JOIN outbox o WHERE o.sequence IN (SELECT sequence FROM outbox \
     WHERE host = hosts.host AND next_at <= ?1 AND deadline > ?1 ORDER BY next_at, sequence LIMIT ?3) \
     ORDER BY o.next_at, o.sequence LIMIT ?2";
const EXPIRED: &str = "SELECT id, kind, receiver, body, blob, reply_key, not_before, deadline, settle_on_delivery, \
                       attempts, delivered FROM outbox WHERE deadline <= ?1 ORDER BY next_at, sequence LIMIT ?2";

fn page(limit: usize) -> i64 {
    limit.min(MAX_PAGE) as i64
}

/// The range of a page: under `prefix`, above `after`.
fn page_range(prefix: &Key, after: Option<&Key>) -> (Vec<u8>, Vec<u8>) {
    let (start, end) = range(prefix);
    let start = match after {
        Some(after) if after >= prefix => {
            // the smallest key above `after`
            let mut next = after.as_bytes().to_vec();
            next.push(0);
            next
        }
        _ => start,
    };
    (start, end)
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn array(bytes: Vec<u8>) -> Result<[u8; 32], sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode("a hash is not 32 bytes".into()))
}

fn key(row: &SqliteRow) -> Result<Key, sqlx::Error> {
    Ok(Key::from_bytes(row.try_get("key")?))
}

fn versioned(row: &SqliteRow) -> Result<Versioned, sqlx::Error> {
    Ok(Versioned { version: unsigned(row, "version")?, value: row.try_get("value")? })
}

fn due_item(row: &SqliteRow) -> Result<DueItem, sqlx::Error> {
    let blob: Option<Vec<u8>> = row.try_get("blob")?;
    Ok(DueItem {
        id: OutboxId::from_bytes(array(row.try_get("id")?)?),
        item: OutboxItem {
            to: row.try_get("receiver")?,
            body: row.try_get("body")?,
            reply_key: row.try_get("reply_key")?,
            not_before: unsigned(row, "not_before")?,
            deadline: unsigned(row, "deadline")?,
            kind: row.try_get("kind")?,
            blob: blob.map(array).transpose()?.map(Address::from_bytes),
            settle_on_delivery: row.try_get("settle_on_delivery")?,
        },
        attempts: unsigned(row, "attempts")?,
        delivered: row.try_get("delivered")?,
    })
}

fn timer(row: &SqliteRow) -> Result<Timer, sqlx::Error> {
    Ok(Timer { key: key(row)?, at: unsigned(row, "due_at")?, payload: row.try_get("payload")? })
}

fn leaf(row: &SqliteRow) -> Result<Leaf, sqlx::Error> {
    let index = unsigned(row, "leaf_index")?;
    Ok(Leaf { index, entry: array(row.try_get("entry")?)?, note: row.try_get("note")? })
}

fn each<T>(
    rows: Result<Vec<SqliteRow>, sqlx::Error>,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, StoreError> {
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(error::read)
}

impl SqliteStore {
    async fn outbox(&self, sql: &'static str, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        each(sqlx::query(sql).bind(signed(now)).bind(page(limit)).fetch_all(&self.readers).await, due_item)
    }

    async fn number(&self, sql: &'static str) -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = sqlx::query_scalar(sql).fetch_one(&self.readers).await.map_err(error::read)?;
        Ok(number.map(i64::unsigned_abs))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, space: Space, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let query = sqlx::query(sql::of(space).load.as_str()).bind(key.as_bytes());
        let row = query.fetch_optional(&self.readers).await.map_err(error::read)?;
        row.as_ref().map(versioned).transpose().map_err(error::read)
    }

    async fn scan(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let (start, end) = page_range(prefix, after);
        let query = sqlx::query(sql::of(space).scan.as_str()).bind(start).bind(end).bind(page(limit));
        each(query.fetch_all(&self.readers).await, |row| Ok((key(row)?, versioned(row)?)))
    }

    async fn keys(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let (start, end) = page_range(prefix, after);
        let query = sqlx::query(sql::of(space).keys.as_str()).bind(start).bind(end).bind(page(limit));
        each(query.fetch_all(&self.readers).await, key)
    }

    async fn count(&self, space: Space, prefix: &Key) -> Result<u64, StoreError> {
        let (start, end) = range(prefix);
        let query = sqlx::query_scalar::<_, i64>(sql::of(space).count.as_str()).bind(start).bind(end);
        query.fetch_one(&self.readers).await.map(i64::unsigned_abs).map_err(error::read)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        self.hand_in(batch).await
    }

    async fn outbox_due(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        self.outbox(DUE, now, limit).await
    }

    async fn outbox_due_by_host(&self, now: u64, per_host: usize, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        let query = sqlx::query(DUE_BY_HOST).bind(signed(now)).bind(page(limit)).bind(page(per_host));
        each(query.fetch_all(&self.readers).await, due_item)
    }

    async fn outbox_expired(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        self.outbox(EXPIRED, now, limit).await
    }

    async fn outbox_wake(&self, now: u64) -> Result<Option<u64>, StoreError> {
        let first = "SELECT next_at FROM outbox WHERE deadline > ? ORDER BY next_at LIMIT 1";
        let query = sqlx::query_scalar::<_, i64>(first).bind(signed(now));
        Ok(query.fetch_optional(&self.readers).await.map_err(error::read)?.map(i64::unsigned_abs))
    }

    async fn outbox_count(&self) -> Result<u64, StoreError> {
        Ok(self.number("SELECT COUNT(*) FROM outbox").await?.unwrap_or(0))
    }

    async fn timers_due(&self, now: u64, limit: usize) -> Result<Vec<Timer>, StoreError> {
        let due = "SELECT key, due_at, payload FROM timers WHERE due_at <= ? ORDER BY due_at, key LIMIT ?";
        each(sqlx::query(due).bind(signed(now)).bind(page(limit)).fetch_all(&self.readers).await, timer)
    }

    async fn timers_wake(&self) -> Result<Option<u64>, StoreError> {
        self.number("SELECT MIN(due_at) FROM timers").await
    }

    async fn leaves(&self, from: u64, limit: usize) -> Result<Vec<Leaf>, StoreError> {
        let page_of = "SELECT leaf_index, entry, note FROM leaves WHERE leaf_index >= ? ORDER BY leaf_index LIMIT ?";
        each(sqlx::query(page_of).bind(signed(from)).bind(page(limit)).fetch_all(&self.readers).await, leaf)
    }

    async fn leaf_count(&self) -> Result<u64, StoreError> {
        Ok(self.number("SELECT MAX(leaf_index) + 1 FROM leaves").await?.unwrap_or(0))
    }

    fn changed(&self, area: Area) -> watch::Receiver<u64> {
        self.changes.subscribe(area)
    }
}
