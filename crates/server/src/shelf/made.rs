//! Resources that the hospital itself makes about a patient: they join the chart under the hospital's own name, beside what came
//! from elsewhere, and travel on with it.

use waybill_crypto::digest::sha256;
use waybill_protocol::ids::{HospitalId, SessionId};
use waybill_protocol::registrar::LocalPatient;
use waybill_record::resource::Resource;
use waybill_store::{Expect, Op, Space};

use super::Shelf;
use super::error::ShelfError;
use super::rows::{self, Held, MAX_INLINE_BYTES, Origin};

impl Shelf {
    /// The operations that add resources made here to a patient's chart.
    ///
    /// # Errors
    /// [`ShelfError::Stream`] for bytes that are no resource or exceed 128 KiB: our own mistake.
    pub fn made_here(
        &self,
        own: &HospitalId,
        patient: &LocalPatient,
        session: &SessionId,
        bodies: Vec<Vec<u8>>,
    ) -> Result<Vec<Op>, ShelfError> {
        let put = |key, value| Op::Put { space: Space::Chart, key, value, expect: Expect::Any };
        // No Patient of our own travels under this name: the chart is about the local patient, who travels anyway.
        let origin = Origin { patient_ids: Vec::new(), session: *session };
        let mut ops = vec![put(rows::origin(patient, own), rows::encode(&origin))];
        for body in bodies {
            let ours = |what: &dyn std::fmt::Display| ShelfError::Stream(what.to_string());
            if body.len() > MAX_INLINE_BYTES {
                return Err(ours(&"a resource made here is too large"));
            }
            let key = Resource::parse_exact(&body).map_err(|e| ours(&e))?.key().clone();
            let (hash, size_bytes) = (sha256(&[&body]), body.len() as u64);
            let salt = self.salts.salt(patient.0.as_bytes(), key.resource_type.as_str(), key.id.as_str(), None, &hash);
            let salt = Some(minicbor::bytes::ByteVec::from(salt.as_ref().to_vec()));
            let held = Held { sha256: hash, size_bytes, version: None, inline: Some(body.into()), salt };
            let row = rows::under_version(&rows::chart(patient, own.as_str()), &key, &hash);
            ops.push(put(row, rows::encode(&held)));
        }
        Ok(ops)
    }
}
