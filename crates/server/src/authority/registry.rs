//! The hospitals an authority has enrolled: standing and mailbox.

use std::collections::BTreeMap;

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use thiserror::Error;
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

/// Why the registry stays as it is.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The name is taken, and a replacement was not asked for.
    #[error("{0} is enrolled already")]
    Enrolled(HospitalId),
    /// The name was revoked, which is for good.
    #[error("{0} is revoked, and a revocation is for good")]
    Revoked(HospitalId),
    /// Nobody of this name is enrolled.
    #[error("{0} is not enrolled")]
    Unknown(HospitalId),
    /// The store.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// What became of a hospital in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is kept of it now.
    pub now: Enrolled,
    /// What was kept of it before, if it was enrolled.
    pub before: Option<Enrolled>,
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
        Ok(self.load(id).await?.map(|(hospital, _)| hospital))
    }

    async fn load(&self, id: &HospitalId) -> Result<Option<(Enrolled, u64)>, ServiceError> {
        let Some(found) = self.party.store.load(Space::Setting, &row(id)).await? else { return Ok(None) };
        let hospital = from_cbor("hospital", &found.value, MAX_ROW_BYTES);
        hospital.map(|hospital| Some((hospital, found.version))).map_err(|_| ServiceError::Corrupt("hospital"))
    }

    async fn put(&self, hospital: &Enrolled, expect: Expect) -> Result<(), ServiceError> {
        let batch = Batch::new("hospital").put(Space::Setting, row(&hospital.id), to_cbor(hospital), expect);
        self.party.store.commit(batch).await?;
        Ok(())
    }

    /// Enrols a hospital, active when its name is new; with `replace` also one that is enrolled, which keeps its standing.
    ///
    /// # Errors
    /// [`RegistryError::Enrolled`] without `replace`; [`RegistryError::Revoked`] whatever was asked.
    pub async fn enrol(&self, id: &HospitalId, mailbox: String, replace: bool) -> Result<Change, RegistryError> {
        let Some((held, version)) = self.load(id).await? else {
            let since = self.party.ctx().now;
            let now = Enrolled { id: id.clone(), standing: Standing::Active, mailbox, since };
            self.put(&now, Expect::Absent).await?;
            return Ok(Change { now, before: None });
        };
        if held.standing == Standing::Revoked {
            return Err(RegistryError::Revoked(held.id));
        }
        if !replace {
            return Err(RegistryError::Enrolled(held.id));
        }
        let now = Enrolled { mailbox, ..held.clone() };
        self.put(&now, Expect::Version(version)).await?;
        Ok(Change { now, before: Some(held) })
    }

    /// Changes a standing. A revoked hospital stays revoked.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Revoked`].
    pub async fn change_standing(&self, id: &HospitalId, standing: Standing) -> Result<Change, RegistryError> {
        let (held, version) = self.load(id).await?.ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        if held.standing == Standing::Revoked && standing != Standing::Revoked {
            return Err(RegistryError::Revoked(held.id));
        }
        let now = Enrolled { standing, ..held.clone() };
        self.put(&now, Expect::Version(version)).await?;
        Ok(Change { now, before: Some(held) })
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
