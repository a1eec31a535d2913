//! The hospitals an authority has enrolled: standing and mailbox.

use std::collections::BTreeMap;

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::messages::Standing;
use waybill_protocol::migration::Recipient;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Space};

use crate::party::{AddressBook, Party, ServiceError};

/// What is kept of a hospital.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Enrolled {
    /// Its name.
    #[n(0)]
    pub id: HospitalId,
    /// Whether it may take part.
    #[n(1)]
    pub standing: Standing,
    /// Its mailbox URL.
    #[n(2)]
    pub mailbox: String,
    /// When it was enrolled.
    #[n(3)]
    pub since: Timestamp,
}

/// The registry, with the mailboxes it knows of.
#[derive(Clone)]
pub struct Registry {
    party: Party,
    relays: Vec<String>,
}

/// The largest row. Units: bytes.
const MAX_ROW_BYTES: usize = 4096;

fn row(id: &HospitalId) -> Key {
    Key::build().text("hospital").text(id.as_str()).done()
}

impl Registry {
    /// A registry that lets patients be answered below these relays (`https://host[:port]/`).
    #[must_use]
    pub fn new(party: Party, relays: Vec<String>) -> Self {
        Self { party, relays: crate::party::below(relays) }
    }

    /// A hospital, if enrolled.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn find(&self, id: &HospitalId) -> Result<Option<Enrolled>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Setting, &row(id)).await? else { return Ok(None) };
        from_cbor("hospital", &found.value, MAX_ROW_BYTES).map(Some).map_err(|_| ServiceError::Corrupt("hospital"))
    }

    /// Enrols a hospital, or changes its mailbox or standing.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn put(&self, hospital: &Enrolled) -> Result<(), ServiceError> {
        let batch = Batch::new("hospital").put(Space::Setting, row(&hospital.id), to_cbor(hospital), Expect::Any);
        self.party.store.commit(batch).await?;
        Ok(())
    }

    /// Every hospital, by name.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn all(&self) -> Result<Vec<Enrolled>, ServiceError> {
        let prefix = Key::build().text("hospital").done();
        let rows = self.party.store.scan(Space::Setting, &prefix, None, 10_000).await?;
        rows.iter()
            .map(|(_, row)| {
                from_cbor("hospital", &row.value, MAX_ROW_BYTES).map_err(|_| ServiceError::Corrupt("hospital"))
            })
            .collect()
    }

    /// The standing of a few hospitals, as roles ask for it.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn standings(&self, ids: [&HospitalId; 2]) -> Result<BTreeMap<HospitalId, Standing>, ServiceError> {
        let mut standings = BTreeMap::new();
        for id in ids {
            if let Some(hospital) = self.find(id).await? {
                standings.insert(hospital.id, hospital.standing);
            }
        }
        Ok(standings)
    }
}

#[async_trait]
impl AddressBook for Registry {
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError> {
        match to {
            Recipient::Hospital(id) => Ok(self.find(id).await?.map(|h| h.mailbox)),
            Recipient::Mailbox(url) => Ok(self.relays.iter().any(|relay| url.starts_with(relay)).then(|| url.clone())),
            Recipient::Authority => Ok(None),
        }
    }
}
