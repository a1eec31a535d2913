//! What is left when a case closes.

use waybill_protocol::ids::SessionId;
use waybill_record::loss::LossReport;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::bridge::Bridge;
use super::error::ShelfError;
use super::stage;
use super::{Shelf, rows};

impl Shelf {
    /// Deletes ciphertext, snapshot and unfinished filing of a session. What was filed stays, and so does its loss report.
    ///
    /// Called when the case is closed and nothing of it is in the outbox any more; calling it again changes nothing.
    ///
    /// # Errors
    /// [`ShelfError`] of the stores.
    pub async fn discard(&self, session: &SessionId) -> Result<(), ShelfError> {
        let session = *session;
        self.run(Key::build().fixed(session.as_bytes()).done(), move |bridge| discard(bridge, &session)).await
    }

    /// The loss report of a session: at the source with the items that stayed, at the destination as it was filed.
    ///
    /// # Errors
    /// [`ShelfError::Damaged`].
    pub async fn loss_report(&self, session: &SessionId) -> Result<Option<LossReport>, ShelfError> {
        let row = self.store.load(Space::Loss, &rows::loss(session)).await?;
        row.map(|row| rows::decode("loss reports", &row.value)).transpose()
    }
}

pub(super) fn discard(bridge: &Bridge, session: &SessionId) -> Result<(), ShelfError> {
    stage::clear(bridge, &rows::sealed(session), session)?;
    stage::clear(bridge, &rows::arrived(session), session)?;
    let delete = |space, prefix| Op::DeletePrefix { space, prefix };
    let batch = Batch::new("shelf-discard")
        .delete(Space::Snapshot, rows::snapshot_meta(session), Expect::Any)
        .with(delete(Space::Snapshot, rows::snapshot_rows(session)))
        .with(delete(Space::Filed, rows::incoming(session)))
        .with(delete(Space::Filed, rows::set_aside(session)));
    bridge.commit(batch)?;
    bridge.release(&rows::snapshot_holder(session))?;
    // The chart needs the objects that its filing put.
    if bridge.exists(Space::Chart, &rows::filed_mark(session))? {
        return Ok(());
    }
    bridge.release(&rows::filing_holder(session))
}
