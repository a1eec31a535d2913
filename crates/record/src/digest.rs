//! What a set of resources amounts to: counts, bytes by type, and one digest that adds up.

use crate::frame::Salt;
use crate::resource::{ResourceId, ResourceKey};
use crate::types::{RESOURCE_TYPES, ResourceType};
use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use waybill_crypto::digest::{Digest, sha256};
use waybill_crypto::lthash::{Element, RecordDigest};

/// The number and the size of the resources of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Resources.
    pub count: u64,
    /// Their exact bytes, added up.
    pub bytes: u64,
}

/// Counts and bytes by resource type.
///
/// Bytes: CBOR array of arrays `[type, count, bytes]`, ascending by type, each type once, no count of zero.
///
/// Security: health data (a count of a type tells what a patient has); never shown to the authority or the log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<ResourceType, Tally>);

waybill_crypto::opaque_debug!(Inventory);

impl Inventory {
    /// Counts one resource.
    pub fn add(&mut self, resource_type: ResourceType, bytes: u64) {
        let tally = self.0.entry(resource_type).or_default();
        tally.count += 1;
        tally.bytes += bytes;
    }

    /// The tally of one type.
    pub fn of(&self, resource_type: ResourceType) -> Tally {
        self.0.get(&resource_type).copied().unwrap_or_default()
    }

    /// The types that occur, in order, with their tallies.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceType, Tally)> {
        self.0.iter().map(|(resource_type, tally)| (*resource_type, *tally))
    }

    /// All types together.
    pub fn total(&self) -> Tally {
        self.0.values().fold(Tally::default(), |sum, tally| Tally {
            count: sum.count.saturating_add(tally.count),
            bytes: sum.bytes.saturating_add(tally.bytes),
        })
    }
}

impl Serialize for Inventory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(resource_type, tally)| (resource_type.as_str(), tally)))
    }
}

impl<C> Encode<C> for Inventory {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        for (resource_type, tally) in &self.0 {
            e.array(3)?.str(resource_type.as_str())?.u64(tally.count)?.u64(tally.bytes)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Inventory {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let refused = minicbor::decode::Error::message;
        let length = d.array()?.filter(|length| *length <= RESOURCE_TYPES.len() as u64);
        let mut inventory = BTreeMap::new();
        for _ in 0..length.ok_or_else(|| refused("an inventory has at most one line for each type"))? {
            if d.array()? != Some(3) {
                return Err(refused("a line of an inventory is type, count and bytes"));
            }
            let name = ResourceType::parse(d.str()?).ok_or_else(|| refused("not a resource type of FHIR R4"))?;
            let tally = Tally { count: d.u64()?, bytes: d.u64()? };
            if tally.count == 0 || inventory.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(refused("an inventory is ascending and counts no type that is absent"));
            }
            inventory.insert(name, tally);
        }
        Ok(Self(inventory))
    }
}

/// Counts and digest of the resources seen so far, in whatever order they come.
///
/// Source: PROTOCOL section 8, Record digest.
#[derive(Clone, Default)]
pub struct RecordTally {
    inventory: Inventory,
    digest: RecordDigest,
}

impl std::fmt::Debug for RecordTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordTally").field("total", &self.inventory.total()).finish_non_exhaustive()
    }
}

impl RecordTally {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one resource and returns the SHA-256 of its bytes.
    pub fn add(&mut self, key: &ResourceKey, version: Option<&ResourceId>, salt: Salt, bytes: &[u8]) -> Digest {
        let sha256 = sha256(&[bytes]);
        self.add_hashed(key, version, salt, sha256, bytes.len() as u64);
        sha256
    }

    /// Adds one resource whose SHA-256 is known already.
    pub fn add_hashed(
        &mut self,
        key: &ResourceKey,
        version: Option<&ResourceId>,
        salt: Salt,
        sha256: Digest,
        bytes: u64,
    ) {
        self.inventory.add(key.resource_type, bytes);
        self.digest.add(&Element {
            salt: *salt.as_bytes(),
            resource_type: key.resource_type.as_str(),
            id: key.id.as_str(),
            version: version.map(ResourceId::as_str),
            sha256,
        });
    }

    /// Counts and bytes by type.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The homomorphic digest.
    pub fn digest(&self) -> &RecordDigest {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Salts;
    use waybill_crypto::lthash::SaltSecret;

    fn tally(items: &[(&str, &[u8])]) -> RecordTally {
        let secret = SaltSecret::from_bytes([3; 32]);
        let salts = Salts::new(&secret, b"patient");
        let mut tally = RecordTally::new();
        for (name, bytes) in items {
            let key: ResourceKey = name.parse().unwrap();
            tally.add(&key, None, salts.salt(&key, None, &sha256(&[bytes])), bytes);
        }
        tally
    }

    #[test]
    fn parts_of_a_record_add_up_to_the_whole() {
        let whole = tally(&[("Condition/a", b"one"), ("Condition/b", b"two"), ("Patient/p", b"three")]);
        let mut sum = tally(&[("Patient/p", b"three"), ("Condition/a", b"one")]).digest().clone();
        sum.combine(tally(&[("Condition/b", b"two")]).digest());
        assert_eq!(sum.short(), whole.digest().short());
        assert_ne!(sum.short(), tally(&[("Condition/b", b"two")]).digest().short());
    }

    #[test]
    fn everything_about_a_resource_is_in_its_digest() {
        let (key, other): (ResourceKey, ResourceKey) = ("Condition/a".parse().unwrap(), "Consent/a".parse().unwrap());
        let version = ResourceId::parse("1").unwrap();
        let digest = |key: &ResourceKey, version: Option<&ResourceId>, salt: u8, bytes: &[u8]| {
            let mut tally = RecordTally::new();
            tally.add(key, version, Salt::from_bytes([salt; 16]), bytes);
            tally.digest().short()
        };
        let base = digest(&key, None, 0, b"x");
        assert_eq!(base, digest(&key, None, 0, b"x"));
        assert_ne!(base, digest(&other, None, 0, b"x"));
        assert_ne!(base, digest(&key, Some(&version), 0, b"x"));
        assert_ne!(base, digest(&key, None, 1, b"x"));
        assert_ne!(base, digest(&key, None, 0, b"y"));
    }

    #[test]
    fn inventories_count_and_round_trip() {
        let tally = tally(&[("Patient/p", b"12345"), ("Condition/b", b"1"), ("Condition/a", b"22")]);
        let inventory = tally.inventory();
        assert_eq!(inventory.total(), Tally { count: 3, bytes: 8 });
        assert_eq!(inventory.of(ResourceType::PATIENT), Tally { count: 1, bytes: 5 });
        let bytes = minicbor::to_vec(inventory).unwrap();
        assert_eq!(&minicbor::decode::<Inventory>(&bytes).unwrap(), inventory);
        assert_eq!(
            serde_json::to_string(inventory).unwrap(),
            r#"{"Condition":{"count":2,"bytes":3},"Patient":{"count":1,"bytes":5}}"#
        );
    }

    #[test]
    fn inventories_that_are_not_canonical_are_refused() {
        let refused =
            |lines: &[(&str, u64, u64)]| minicbor::decode::<Inventory>(&minicbor::to_vec(lines).unwrap()).is_err();
        assert!(!refused(&[("Condition", 1, 0), ("Patient", 1, 9)]));
        assert!(refused(&[("Patient", 1, 9), ("Condition", 1, 0)]));
        assert!(refused(&[("Patient", 1, 9), ("Patient", 1, 9)]));
        assert!(refused(&[("Patient", 0, 0)]));
        assert!(refused(&[("Nonsense", 1, 1)]));
        assert!(refused(&vec![("Patient", 1, 1); 147]));
    }
}
