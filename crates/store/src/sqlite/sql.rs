//! The statements of each space, made once from its table name.

use crate::Space;
use std::sync::LazyLock;

/// Rows in one wide insert.
pub(super) const WIDE: usize = 32;

pub(super) struct SpaceSql {
    pub(super) load: String,
    pub(super) scan: String,
    pub(super) keys: String,
    pub(super) count: String,
    pub(super) version: String,
    pub(super) put: String,
    pub(super) put_wide: String,
    pub(super) insert: String,
    pub(super) insert_wide: String,
    pub(super) swap: String,
    pub(super) delete: String,
    pub(super) delete_version: String,
    pub(super) delete_prefix: String,
    /// Target n: copy the rows of a range of this space there.
    pub(super) copy_to: Vec<String>,
}

static STATEMENTS: LazyLock<Vec<SpaceSql>> =
    LazyLock::new(|| Space::ALL.iter().map(|space| SpaceSql::new(*space)).collect());

pub(super) fn of(space: Space) -> &'static SpaceSql {
    &STATEMENTS[space.index()]
}

impl SpaceSql {
    fn new(space: Space) -> Self {
        let table = space.table();
        let values = |rows| vec!["(?, 1, ?)"; rows].join(", ");
        let put = |rows| {
            let values = values(rows);
            format!(
                "INSERT INTO {table} (key, version, value) VALUES {values} \
                 ON CONFLICT (key) DO UPDATE SET version = version + 1, value = excluded.value"
            )
        };
        let insert = |rows| {
            let values = values(rows);
            format!("INSERT INTO {table} (key, version, value) VALUES {values} ON CONFLICT (key) DO NOTHING")
        };
        // OR IGNORE, not ON CONFLICT: the former needs no journal of the statement, so its memory does not grow with the rows
        let copy = |to: &Space| {
            let to = to.table();
            format!(
                "INSERT OR IGNORE INTO {to} (key, version, value) \
                 SELECT CAST(? || substr(key, ?) AS BLOB), 1, value FROM {table} WHERE key >= ? AND key < ? ORDER BY key"
            )
        };
        Self {
            load: format!("SELECT version, value FROM {table} WHERE key = ?"),
            scan: format!("SELECT key, version, value FROM {table} WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"),
            keys: format!("SELECT key FROM {table} WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"),
            count: format!("SELECT COUNT(*) FROM {table} WHERE key >= ? AND key < ?"),
            version: format!("SELECT version FROM {table} WHERE key = ?"),
            put: put(1),
            put_wide: put(WIDE),
            insert: insert(1),
            insert_wide: insert(WIDE),
            swap: format!("UPDATE {table} SET version = version + 1, value = ? WHERE key = ? AND version = ?"),
            delete: format!("DELETE FROM {table} WHERE key = ?"),
            delete_version: format!("DELETE FROM {table} WHERE key = ? AND version = ?"),
            delete_prefix: format!("DELETE FROM {table} WHERE key >= ? AND key < ?"),
            copy_to: Space::ALL.iter().map(copy).collect(),
        }
    }
}
