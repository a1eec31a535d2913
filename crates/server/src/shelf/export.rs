//! Records out of the hospital's store: one resource a line, exact bytes, in order of type and id.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use waybill_crypto::digest::sha256;
use waybill_crypto::lthash::{Element, RecordDigest};
use waybill_protocol::ids::{HospitalId, SessionId, Timestamp};
use waybill_protocol::registrar::LocalPatient;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_store::{Batch, Expect, Key, Space};

use super::Shelf;
use super::error::ShelfError;
use super::freeze::{Cut, Unobserved};
use super::rows::{self, Held, SetAside, SnapshotRow};

/// Rows read at once; each may hold a body of 128 KiB.
const PAGE: usize = 64;

/// Finds the body that a row exports, if it does.
type BodyOf = dyn Fn(&[u8]) -> Result<Option<Held>, ShelfError> + Send + Sync;

/// Which part of a chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All that the hospital holds of the patient and that could travel: its own record and what was filed.
    Held,
    /// What was filed from one hospital.
    Filed(HospitalId),
    /// What one session offers, while its snapshot exists.
    Scope(SessionId),
}

impl Shelf {
    /// Writes a part of a chart as NDJSON; gives the number of resources.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`], [`ShelfError::NotFrozen`], [`ShelfError::Export`] when the writer fails.
    pub async fn export_ndjson(
        &self,
        patient: &LocalPatient,
        which: Which,
        writer: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, ShelfError> {
        let written = match which {
            Which::Filed(origin) => {
                let prefix = rows::chart(patient, origin.as_str());
                let body = |row: &[u8]| rows::decode::<Held>("charts", row).map(Some);
                self.export_rows(Space::Chart, &prefix, &body, writer).await?
            }
            Which::Scope(session) => self.export_snapshot(&session, writer).await?,
            Which::Held => self.export_held(patient, writer).await?,
        };
        writer.flush().await.map_err(ShelfError::Export)?;
        Ok(written)
    }

    /// The digest of everything that was filed into a chart from one hospital: after successive partial migrations it is the
    /// source's digest of the whole.
    ///
    /// # Errors
    /// [`ShelfError::Damaged`].
    pub async fn filed_digest(&self, patient: &LocalPatient, origin: &HospitalId) -> Result<RecordDigest, ShelfError> {
        let prefix = rows::chart(patient, origin.as_str());
        let (mut digest, mut after) = (RecordDigest::new(), None);
        loop {
            let page = self.store.scan(Space::Chart, &prefix, after.as_ref(), PAGE).await?;
            for (key, row) in &page {
                let resource = rows::resource_after(key, &prefix, "charts")?;
                let held: Held = rows::decode("charts", &row.value)?;
                digest.add(&Element {
                    salt: held.salt()?,
                    resource_type: resource.resource_type.as_str(),
                    id: resource.id.as_str(),
                    version: held.version.as_deref(),
                    sha256: held.sha256,
                });
            }
            if page.len() < PAGE {
                return Ok(digest);
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }

    /// What waits for a person in a chart: `Type/id` and why, at most `limit`.
    ///
    /// # Errors
    /// [`ShelfError::Damaged`].
    pub async fn quarantined(
        &self,
        patient: &LocalPatient,
        origin: &HospitalId,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<(String, String)>, ShelfError> {
        let prefix = rows::quarantine(patient, origin).extend().fixed(session.as_bytes()).done();
        let page = self.store.scan(Space::Quarantine, &prefix, None, limit).await?;
        let line = |(key, row): (Key, waybill_store::Versioned)| {
            let aside: SetAside = rows::decode("quarantine", &row.value)?;
            Ok((rows::resource_after(&key, &prefix, "quarantine")?.to_string(), aside.reason))
        };
        page.into_iter().map(line).collect()
    }

    /// Whether anything of a session waits in quarantine.
    ///
    /// # Errors
    /// [`ShelfError::Store`].
    pub async fn has_quarantined(
        &self,
        patient: &LocalPatient,
        origin: &HospitalId,
        session: &SessionId,
    ) -> Result<bool, ShelfError> {
        let prefix = rows::quarantine(patient, origin).extend().fixed(session.as_bytes()).done();
        Ok(!self.store.keys(Space::Quarantine, &prefix, None, 1).await?.is_empty())
    }

    /// Freezes the whole record under a scratch name, which is the one order in which several origins come together.
    async fn export_held(
        &self,
        patient: &LocalPatient,
        writer: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, ShelfError> {
        let session = SessionId(sha256(&[b"waybill/1 export", self.scratch().as_bytes()]));
        // What an export of an earlier process left under this name is older than the record.
        self.discard(&session).await?;
        // What the hospital keeps back from others it does not keep back from itself.
        let everything = Cut::travelling(patient.clone(), Scope::full(), Hides::default());
        let cut = Cut { respects_marks: false, ..everything };
        self.freeze_cut(session, cut, Timestamp(0), Unobserved).await?;
        let written = self.export_snapshot(&session, writer).await;
        self.discard(&session).await?;
        let batch = Batch::new("shelf-export").delete(Space::Loss, rows::loss(&session), Expect::Any);
        self.store.commit(batch).await?;
        written
    }

    async fn export_snapshot(
        &self,
        session: &SessionId,
        writer: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, ShelfError> {
        if self.store.load(Space::Snapshot, &rows::snapshot_meta(session)).await?.is_none() {
            return Err(ShelfError::NotFrozen);
        }
        let body = |row: &[u8]| rows::decode::<SnapshotRow>("snapshots", row).map(|row| row.held);
        self.export_rows(Space::Snapshot, &rows::snapshot_rows(session), &body, writer).await
    }

    async fn export_rows(
        &self,
        space: Space,
        prefix: &Key,
        body: &BodyOf,
        writer: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, ShelfError> {
        let (mut written, mut after) = (0, None);
        loop {
            let page = self.store.scan(space, prefix, after.as_ref(), PAGE).await?;
            for (_, row) in &page {
                let Some(held) = body(&row.value)? else { continue };
                match &held.inline {
                    Some(inline) => writer.write_all(inline).await,
                    None => writer.write_all(&self.objects.get(&held.address()).await?).await,
                }
                .map_err(ShelfError::Export)?;
                writer.write_all(b"\n").await.map_err(ShelfError::Export)?;
                written += 1;
            }
            if page.len() < PAGE {
                return Ok(written);
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }
}
