//! What arrived and could not be filed: it waits for a person, who takes it into the chart or discards it.

use waybill_protocol::ids::{HospitalId, SessionId};
use waybill_protocol::registrar::LocalPatient;
use waybill_record::compartment::Relation;
use waybill_record::facts::facts;
use waybill_record::resource::{Resource, ResourceKey};
use waybill_record::types::ResourceType;
use waybill_store::{Address, Expect, Key, Op, Space, Versioned};

use super::Shelf;
use super::bridge::Bridge;
use super::error::ShelfError;
use super::file::parse;
use super::incoming::IncomingPool;
use super::load::{origins_of, patient_id};
use super::rows::{self, SetAside};

/// Which item in quarantine.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Whose chart it is to join.
    pub patient: LocalPatient,
    /// Where it came from.
    pub origin: HospitalId,
    /// In which session.
    pub session: SessionId,
    /// What it is.
    pub item: ResourceKey,
}

impl std::fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quarantined({} from {})", self.item.resource_type.as_str(), self.origin)
    }
}

impl Quarantined {
    fn row(&self) -> Key {
        let prefix = rows::quarantine(&self.patient, &self.origin).extend().fixed(self.session.as_bytes()).done();
        rows::under(&prefix, &self.item)
    }

    fn of_row(key: &Key) -> Result<Self, ShelfError> {
        let damaged = || ShelfError::Damaged("quarantine");
        let mut parts = key.read();
        let (patient, origin) = (parts.text().map_err(|_| damaged())?, parts.text().map_err(|_| damaged())?);
        let session = parts.fixed::<32>().map_err(|_| damaged())?;
        let (name, id) = (parts.text().map_err(|_| damaged())?, parts.text().map_err(|_| damaged())?);
        Ok(Self {
            patient: LocalPatient(patient),
            origin: HospitalId::parse(&origin).map_err(|_| damaged())?,
            session: SessionId(waybill_crypto::digest::Digest(session)),
            item: ResourceKey::new(&name, &id).map_err(|_| damaged())?,
        })
    }
}

impl Shelf {
    /// What waits, in order of patients, and why; of one patient only, where one is named. At most `limit`.
    ///
    /// # Errors
    /// [`ShelfError::Damaged`].
    pub async fn quarantine(
        &self,
        patient: Option<&LocalPatient>,
        limit: usize,
    ) -> Result<Vec<(Quarantined, String)>, ShelfError> {
        let prefix = patient.map_or_else(Key::empty, |patient| Key::build().text(&patient.0).done());
        let page = self.store.scan(Space::Quarantine, &prefix, None, limit).await?;
        let line = |(key, row): (Key, Versioned)| {
            let aside: SetAside = rows::decode("quarantine", &row.value)?;
            Ok((Quarantined::of_row(&key)?, aside.reason))
        };
        page.into_iter().map(line).collect()
    }

    /// The exact bytes of an item, and why it waits.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchItem`].
    pub async fn quarantined_item(&self, which: &Quarantined) -> Result<(Vec<u8>, String), ShelfError> {
        let which = which.clone();
        self.run(which.row(), move |bridge| {
            let (aside, _) = waiting(bridge, &which)?;
            Ok((bridge.body(&aside.held)?, aside.reason))
        })
        .await
    }

    /// The operations that take an item into the chart, for the batch of whoever writes it down.
    ///
    /// Whom it is about a person may decide where the bytes do not say it; what another patient is named in, nobody may file.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchItem`]; [`ShelfError::StillUnfit`] when it cannot be filed now either.
    pub async fn accept(&self, which: &Quarantined) -> Result<Vec<Op>, ShelfError> {
        let which = which.clone();
        self.run(which.row(), move |bridge| {
            let (aside, version) = waiting(bridge, &which)?;
            fit(bridge, &which, &bridge.body(&aside.held)?)?;
            let chart = rows::chart(&which.patient, which.origin.as_str());
            let key = rows::under_version(&chart, &which.item, &aside.held.sha256);
            let value = rows::encode(&aside.held);
            Ok(vec![
                Op::Delete { space: Space::Quarantine, key: which.row(), expect: Expect::Version(version) },
                Op::Put { space: Space::Chart, key, value, expect: Expect::Any },
            ])
        })
        .await
    }

    /// The operations that discard an item. What its object holds goes with [`Shelf::forget_discarded`], after the batch.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchItem`].
    pub async fn discard_quarantined(&self, which: &Quarantined) -> Result<(Vec<Op>, Option<Address>), ShelfError> {
        let which = which.clone();
        self.run(which.row(), move |bridge| {
            let (aside, version) = waiting(bridge, &which)?;
            let address = aside.held.inline.is_none().then(|| aside.held.address());
            let op = Op::Delete { space: Space::Quarantine, key: which.row(), expect: Expect::Version(version) };
            Ok((vec![op], address))
        })
        .await
    }

    /// Deletes the object of an item that was discarded, unless something else needs it.
    ///
    /// # Errors
    /// [`ShelfError`] of the stores.
    pub async fn forget_discarded(&self, which: &Quarantined, address: Address) -> Result<(), ShelfError> {
        let holder = rows::filing_holder(&which.session);
        self.run(which.row(), move |bridge| bridge.release_one(&holder, &address)).await
    }
}

fn waiting(bridge: &Bridge, which: &Quarantined) -> Result<(SetAside, u64), ShelfError> {
    let row = bridge.load(Space::Quarantine, &which.row())?.ok_or(ShelfError::NoSuchItem)?;
    Ok((rows::decode("quarantine", &row.value)?, row.version))
}

/// Whether an item can be filed: a resource of the name it came under, about nobody else.
fn fit(bridge: &Bridge, which: &Quarantined, body: &[u8]) -> Result<(), ShelfError> {
    let unfit = |why| ShelfError::StillUnfit(why);
    let resource = Resource::parse_exact(body).map_err(|_| unfit("its bytes are not a FHIR resource"))?;
    if resource.key() != &which.item {
        return Err(unfit("its bytes have another name than it came under"));
    }
    facts(body).map_err(|_| unfit("its facts cannot be read"))?;
    let known = origins_of(bridge, &which.patient)?.into_iter().find(|(origin, _)| origin == which.origin.as_str());
    let mut patients = Vec::new();
    for id in known.map(|(_, origin)| origin.patient_ids).unwrap_or_default() {
        patients.push(ResourceKey::new("Patient", &id).map_err(|_| ShelfError::Damaged("charts"))?);
    }
    if patients.is_empty() {
        patients.push(ResourceKey { resource_type: ResourceType::PATIENT, id: patient_id(&which.patient)? });
    }
    let prefix = rows::chart(&which.patient, which.origin.as_str());
    let pool = IncomingPool { bridge, space: Space::Chart, prefix, patients };
    match pool.relation(&parse(body)?)? {
        Relation::Own | Relation::Supporting | Relation::Unknown => Ok(()),
        Relation::Shared | Relation::Another | Relation::NamesAnother => Err(unfit("it names another patient")),
    }
}
