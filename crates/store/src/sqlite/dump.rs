//! A view of every value in a database, for inspection.

use super::{FILE, error};
use crate::OpenError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Connection, Row};
use std::path::Path;

/// One row of a database, without regard to what it means.
#[derive(Clone, PartialEq, Eq)]
pub struct DumpedRow {
    /// The table.
    pub table: String,
    /// Column and value, in the table's order; numbers as decimal text.
    pub values: Vec<(String, Vec<u8>)>,
}

waybill_crypto::opaque_debug!(DumpedRow);

/// The name of the database in a data folder; beside it lie the write-ahead log (`-wal`) and its index (`-shm`).
pub const DATABASE_FILE: &str = FILE;

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
