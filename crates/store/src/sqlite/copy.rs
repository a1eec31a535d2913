//! Copies of a database while it is in use, and a view of every value in one that is not.

use super::{FILE, SqliteStore, error};
use crate::folder::open_private;
use crate::{Cause, OpenError, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Connection, Row};
use std::path::Path;
use std::sync::Arc;

/// One row of a database, without regard to what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedRow {
    /// The table.
    pub table: String,
    /// Column and value, in the table's order; numbers as decimal text.
    pub values: Vec<(String, Vec<u8>)>,
}

/// The name of the database in a data folder; beside it lie the write-ahead log (`-wal`) and its index (`-shm`).
pub const DATABASE_FILE: &str = FILE;

impl SqliteStore {
    /// Writes a copy of the whole database, as of one instant, to a new private file; writers are not held up.
    ///
    /// Errors: `Unavailable` also when the file exists with content.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let io = |error: std::io::Error| StoreError::Unavailable(Arc::new(error) as Cause);
        let target = path.to_str().ok_or_else(|| io(std::io::Error::other("the path is not UTF-8")))?;
        // an empty file is what SQLite accepts as a target, and it keeps the permissions it has
        open_private(path).map_err(io)?;
        let own = SqliteConnectOptions::new().filename(self.folder.path().join(FILE)).create_if_missing(false);
        let mut connection = own.connect().await.map_err(error::read)?;
        sqlx::query("VACUUM INTO ?").bind(target).execute(&mut connection).await.map_err(error::read)?;
        connection.close().await.map_err(error::read)?;
        open_private(path).and_then(|file| file.sync_all()).map_err(io)
    }
}

/// Hands every row of every table to `each`, whatever the schema: what an inspector sees who trusts no program's view.
///
/// The database must not be in use: a copy of the file, with its write-ahead log beside it if there is one.
///
/// # Errors
/// [`OpenError`].
pub async fn dump(path: &Path, each: &mut (dyn FnMut(DumpedRow) + Send)) -> Result<(), OpenError> {
    let failed = |error| error::open(path, error);
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let mut connection = options.connect().await.map_err(failed)?;
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.map_err(failed)?;
    for table in tables {
        dump_table(&mut connection, &table, each).await.map_err(failed)?;
    }
    connection.close().await.map_err(failed)
}

async fn dump_table(
    connection: &mut SqliteConnection,
    table: &str,
    each: &mut (dyn FnMut(DumpedRow) + Send),
) -> Result<(), sqlx::Error> {
    use futures::TryStreamExt;
    let all = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
    let mut rows = sqlx::query(AssertSqlSafe(all)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let mut values = Vec::with_capacity(row.len());
        for (at, column) in row.columns().iter().enumerate() {
            // SQLite gives any value as bytes: a text as its UTF-8, a number as its decimal text.
            let value: Option<Vec<u8>> = row.try_get_unchecked(at)?;
            values.push((column.name().to_owned(), value.unwrap_or_default()));
        }
        each(DumpedRow { table: table.to_owned(), values });
    }
    Ok(())
}
