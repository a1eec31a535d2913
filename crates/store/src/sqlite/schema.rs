//! The schema: numbered migrations in pairs, the version in the file itself.

use super::error;
use crate::OpenError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::path::Path;

/// Marks the file as ours ("WAYB").
const APPLICATION_ID: i64 = 0x5741_5942;

/// One step of the schema: how to take it and how to take it back.
pub(super) struct Migration {
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

/// Step n leads from version n to version n + 1. Published steps never change; a change is a new step.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        up: include_str!("../../migrations/0001_spaces.up.sql"),
        down: include_str!("../../migrations/0001_spaces.down.sql"),
    },
    Migration {
        up: include_str!("../../migrations/0002_outbox_hosts.up.sql"),
        down: include_str!("../../migrations/0002_outbox_hosts.down.sql"),
    },
];

pub(super) fn newest() -> u32 {
    MIGRATIONS.len() as u32
}

/// Connects, checks that the file is ours, whole and not newer than this program, and upgrades it.
pub(super) async fn open(path: &Path, options: &SqliteConnectOptions) -> Result<SqliteConnection, OpenError> {
    let database = |error| error::open(path, error);
    check(path).await?;
    let mut connection = options.connect().await.map_err(database)?;
    migrate(&mut connection, newest()).await.map_err(database)?;
    Ok(connection)
}

/// Looks at the file without settings that would change it.
async fn check(path: &Path) -> Result<(), OpenError> {
    let database = |error| error::open(path, error);
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let mut connection = options.connect().await.map_err(database)?;
    let tables: i64 = scalar(&mut connection, "SELECT COUNT(*) FROM sqlite_schema").await.map_err(database)?;
    let application: i64 = scalar(&mut connection, "PRAGMA application_id").await.map_err(database)?;
    if application != APPLICATION_ID && (tables != 0 || application != 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let found = version(&mut connection).await.map_err(database)?;
    if found > newest() {
        return Err(OpenError::NewerSchema { path: path.to_owned(), found, supported: newest() });
    }
    let verdict: String = scalar(&mut connection, "PRAGMA quick_check(1)").await.map_err(database)?;
    if verdict != "ok" {
        return Err(OpenError::Damaged { path: path.to_owned() });
    }
    connection.close().await.map_err(database)
}

/// Brings the schema to `target`, each step in a transaction of its own.
pub(super) async fn migrate(connection: &mut SqliteConnection, target: u32) -> Result<(), sqlx::Error> {
    loop {
        let from = version(connection).await?;
        let (script, to) = match from.cmp(&target) {
            std::cmp::Ordering::Less => (MIGRATIONS[from as usize].up, from + 1),
            std::cmp::Ordering::Greater => (MIGRATIONS[from as usize - 1].down, from - 1),
            std::cmp::Ordering::Equal => return Ok(()),
        };
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(script).execute(&mut *transaction).await?;
        let mark = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {to}");
        sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
}

async fn version(connection: &mut SqliteConnection) -> Result<u32, sqlx::Error> {
    let version: i64 = scalar(connection, "PRAGMA user_version").await?;
    // a negative version can only come from elsewhere: as good as newer
    Ok(u32::try_from(version).unwrap_or(u32::MAX))
}

async fn scalar<T>(connection: &mut SqliteConnection, sql: &'static str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(connection).await
}
