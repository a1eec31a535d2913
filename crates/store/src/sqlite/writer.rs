//! The writer task: collects waiting batches and commits them together, so that one flush to disk serves many.

use super::apply::{self, Failure};
use super::error;
use crate::{Area, Batch, Changes, CommitError, Committed, Op};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

const GROUP_BATCHES: usize = 128;
const GROUP_BYTES: usize = 16 * 1024 * 1024;

type Outcome = Result<Committed, CommitError>;

/// A checked batch and whom to answer.
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) size_bytes: usize,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// Owner of the only writing connection.
pub(super) struct Writer {
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    changes: Arc<Changes>,
}

impl Request {
    /// Whether it moves rows inside the database; such a batch runs alone, because a savepoint would keep every page it
    /// changes in memory.
    fn is_bulk(&self) -> bool {
        self.batch.ops.iter().any(|op| matches!(op, Op::Promote { .. } | Op::Copy { .. } | Op::DeletePrefix { .. }))
    }

    fn answer(self, outcome: Outcome, changes: &Changes) {
        match &outcome {
            Ok(_) => changes.notify(Area::touched(&self.batch.ops)),
            Err(CommitError::Conflict { space, .. }) => {
                tracing::debug!(batch = self.batch.name, ?space, "a batch met a conflict");
            }
            Err(error) => tracing::warn!(batch = self.batch.name, %error, "a batch failed"),
        }
        // the caller may have gone away; the batch stands all the same
        let _ = self.answer.send(outcome);
    }
}

impl Writer {
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions, changes: Arc<Changes>) -> Self {
        Self { connection: Some(connection), options, changes }
    }

    /// A writer whose connection broke.
    #[cfg(test)]
    pub(super) fn lost(options: SqliteConnectOptions, changes: Arc<Changes>) -> Self {
        Self { connection: None, options, changes }
    }

    /// Serves until every sender is gone, then closes the connection.
    pub(super) async fn run(mut self, mut incoming: mpsc::Receiver<Request>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(request) => request,
                None => match incoming.recv().await {
                    Some(request) => request,
                    None => break,
                },
            };
            let mut group = vec![first];
            let mut bytes = group[0].size_bytes;
            while !group[0].is_bulk() && group.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
                match incoming.try_recv() {
                    Ok(request) if request.is_bulk() => {
                        held = Some(request);
                        break;
                    }
                    Ok(request) => {
                        bytes += request.size_bytes;
                        group.push(request);
                    }
                    Err(_) => break,
                }
            }
            self.serve(group).await;
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    async fn serve(&mut self, group: Vec<Request>) {
        if let [only] = group.as_slice() {
            let outcome = self.alone(&only.batch).await;
            return group.into_iter().for_each(|request| request.answer(outcome.clone(), &self.changes));
        }
        match self.together(&group).await {
            Ok(outcomes) => {
                group.into_iter().zip(outcomes).for_each(|(request, outcome)| request.answer(outcome, &self.changes));
            }
            // what failed may be the fault of one batch (too big for the disk): each gets its own transaction and verdict
            Err(_) => {
                for request in group {
                    let outcome = self.alone(&request.batch).await;
                    request.answer(outcome, &self.changes);
                }
            }
        }
    }

    /// One batch in a transaction of its own.
    async fn alone(&mut self, batch: &Batch) -> Outcome {
        match self.attempt(batch, true).await {
            Err(Failure::Narrow) => self.attempt(batch, false).await,
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::Conflict(conflict) => conflict,
            Failure::Database(cause) => error::commit(cause),
            Failure::Narrow => unreachable!("a narrow run never asks for another"),
        })
    }

    async fn attempt(&mut self, batch: &Batch, wide: bool) -> Result<Committed, Failure> {
        let connection = self.connection().await?;
        run(connection, "BEGIN IMMEDIATE").await?;
        let mut result = apply::all(connection, &batch.ops, wide).await;
        if result.is_ok()
            && let Err(cause) = run(connection, "COMMIT").await
        {
            result = Err(Failure::Database(cause));
        }
        if result.is_err() {
            self.roll_back().await;
        }
        result
    }

    /// Many batches in one transaction, each in a savepoint, so that a conflict takes back one of them only.
    async fn together(&mut self, group: &[Request]) -> Result<Vec<Outcome>, sqlx::Error> {
        let connection = self.connection().await?;
        run(connection, "BEGIN IMMEDIATE").await?;
        let result = nested(connection, group).await;
        if result.is_err() {
            self.roll_back().await;
        }
        result
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(self.options.connect().await?);
        }
        Ok(self.connection.as_mut().expect("it was filled above"))
    }

    /// Leaves the connection outside any transaction, or drops it.
    async fn roll_back(&mut self) {
        let Some(connection) = self.connection.as_mut() else { return };
        // SQLite may have rolled back by itself (full disk, I/O error), which makes this an error of no meaning;
        // a connection that cannot begin and roll back afterwards is not used again
        let _ = run(connection, "ROLLBACK").await;
        if run(connection, "BEGIN").await.is_err() || run(connection, "ROLLBACK").await.is_err() {
            self.connection = None;
        }
    }
}

async fn nested(connection: &mut SqliteConnection, group: &[Request]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(group.len());
    for request in group {
        run(connection, "SAVEPOINT batch").await?;
        let mut result = apply::all(connection, &request.batch.ops, true).await;
        if let Err(Failure::Narrow) = result {
            run(connection, "ROLLBACK TO batch").await?;
            result = apply::all(connection, &request.batch.ops, false).await;
        }
        outcomes.push(match result {
            Ok(done) => Ok(done),
            Err(Failure::Conflict(conflict)) => {
                run(connection, "ROLLBACK TO batch").await?;
                Err(conflict)
            }
            Err(Failure::Database(cause)) => return Err(cause),
            Err(Failure::Narrow) => unreachable!("a narrow run never asks for another"),
        });
        run(connection, "RELEASE batch").await?;
    }
    run(connection, "COMMIT").await?;
    Ok(outcomes)
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(|_| ())
}
