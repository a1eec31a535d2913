//! LtHash16-1024: a digest of a set of resources that adds up.
//!
//! The digest of a whole record is the sum of the digests of its parts, so a destination can show that successive partial
//! migrations together are the record. Source: PROTOCOL section 8; Lewi et al., "Securing Update Propagation with
//! Homomorphic Hashing" (IACR 2019/227).

use std::fmt;

use crate::{
    digest::Digest,
    encoding::{Tuple, secret_newtype},
};

const LANES: usize = 1024;

secret_newtype! {
    /// A hospital's secret from which it derives salts, so that a resource keeps its salt from one migration to the next and
    /// digests of successive parts add up.
    SaltSecret
}

impl SaltSecret {
    /// The salt of one resource: the first 16 bytes of BLAKE3 keyed by this secret over
    /// CBOR["waybill/1 salt", scope, type, id, version or null, SHA-256 of the resource's bytes].
    ///
    /// Security: `scope` names whose record it is (the patient's pseudonym here). A resource shared by two patients then has two
    /// salts, so a destination of one cannot test whether it was withheld in the record of the other.
    #[must_use]
    pub fn salt(
        &self,
        scope: &[u8],
        resource_type: &str,
        id: &str,
        version: Option<&str>,
        sha256: &Digest,
    ) -> [u8; 16] {
        let tuple = Tuple::new(6, "waybill/1 salt").bytes(scope);
        let hash = blake3::keyed_hash(self.expose(), &fields(tuple, resource_type, id, version, sha256));
        hash.as_bytes()[..16].try_into().expect("a hash has more than 16 bytes")
    }
}

/// What a digest says of one resource.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    /// Random or derived bytes that blind the element and travel with the resource; see [`SaltSecret::salt`].
    ///
    /// Security: without them, whoever knows a digest of the whole and of a part could test guesses of what was withheld.
    pub salt: [u8; 16],
    /// FHIR resource type.
    pub resource_type: &'a str,
    /// Logical id.
    pub id: &'a str,
    /// `meta.versionId`, where there is one.
    pub version: Option<&'a str>,
    /// SHA-256 of the exact bytes.
    pub sha256: Digest,
}

impl Element<'_> {
    /// BLAKE3-XOF(salt || CBOR[type, id, version or null, sha256]), 2,048 bytes read as little-endian lanes.
    fn lanes(&self) -> [u16; LANES] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.salt);
        hasher.update(&fields(Tuple::untagged(4), self.resource_type, self.id, self.version, &self.sha256));
        let mut bytes = [0; 2 * LANES];
        hasher.finalize_xof().fill(&mut bytes);
        from_le(&bytes)
    }
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Element(redacted)")
    }
}

fn fields(tuple: Tuple, resource_type: &str, id: &str, version: Option<&str>, sha256: &Digest) -> Vec<u8> {
    let tuple = tuple.text(resource_type).text(id);
    match version {
        Some(version) => tuple.text(version),
        None => tuple.null(),
    }
    .bytes(sha256.as_bytes())
    .finish()
}

fn from_le(bytes: &[u8; 2 * LANES]) -> [u16; LANES] {
    std::array::from_fn(|lane| u16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]))
}

/// The digest of a set of resources: 1,024 sums modulo 2^16.
///
/// Bytes: 2,048, the lanes in order, each little-endian. The default is the digest of nothing. Security: it detects accidents and
/// later denial, not a source that lies from the start; a repeated element must be refused elsewhere (2^16 copies cancel out).
#[derive(Clone, PartialEq, Eq)]
pub struct RecordDigest(Box<[u16; LANES]>);

impl Default for RecordDigest {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl RecordDigest {
    /// Length of the full state in bytes.
    pub const LEN: usize = 2 * LANES;

    /// The digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a resource.
    pub fn add(&mut self, element: &Element<'_>) {
        for (sum, lane) in self.0.iter_mut().zip(element.lanes()) {
            *sum = sum.wrapping_add(lane);
        }
    }

    /// Takes away a resource that was added.
    pub fn remove(&mut self, element: &Element<'_>) {
        for (sum, lane) in self.0.iter_mut().zip(element.lanes()) {
            *sum = sum.wrapping_sub(lane);
        }
    }

    /// Adds all that another digest covers; the two sets must not overlap.
    pub fn combine(&mut self, other: &Self) {
        for (sum, lane) in self.0.iter_mut().zip(*other.0) {
            *sum = sum.wrapping_add(lane);
        }
    }

    /// The sum of two digests.
    #[must_use]
    pub fn combined(mut self, other: &Self) -> Self {
        self.combine(other);
        self
    }

    /// The short form: BLAKE3-256 of the bytes. It compares, it does not add.
    #[must_use]
    pub fn short(&self) -> Digest {
        Digest(*blake3::hash(&self.to_bytes()).as_bytes())
    }

    /// The full state.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (out, lane) in bytes.chunks_exact_mut(2).zip(self.0.iter()) {
            out.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// Reads the full state; every 2,048 bytes are one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(Box::new(from_le(bytes)))
    }
}

impl fmt::Debug for RecordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordDigest(short {})", self.short())
    }
}

impl<C> minicbor::Encode<C> for RecordDigest {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for RecordDigest {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        crate::encoding::decode_array::<{ Self::LEN }>(decoder).map(|bytes| Self::from_bytes(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Owned(u8, String, String, Option<String>, [u8; 32]);

    impl Owned {
        fn element(&self) -> Element<'_> {
            Element {
                salt: [self.0; 16],
                resource_type: &self.1,
                id: &self.2,
                version: self.3.as_deref(),
                sha256: Digest(self.4),
            }
        }
    }

    fn elements() -> impl Strategy<Value = Vec<Owned>> {
        let one = (any::<u8>(), "[A-Z][a-z]{0,8}", "[a-z0-9-]{1,16}", proptest::option::of("[0-9]"), any::<[u8; 32]>());
        proptest::collection::vec(one.prop_map(|(a, b, c, d, e)| Owned(a, b, c, d, e)), 0..12)
    }

    fn digest_of(elements: &[Owned]) -> RecordDigest {
        let mut digest = RecordDigest::new();
        elements.iter().for_each(|owned| digest.add(&owned.element()));
        digest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn order_does_not_matter_and_parts_add_up(elements in elements(), cut in any::<prop::sample::Index>()) {
            let whole = digest_of(&elements);
            let reversed: Vec<_> = elements.iter().rev().cloned().collect();
            prop_assert_eq!(&digest_of(&reversed), &whole);
            let (left, right) = elements.split_at(cut.index(elements.len() + 1));
            prop_assert_eq!(&digest_of(left).combined(&digest_of(right)), &whole);
            let mut rest = whole.clone();
            left.iter().for_each(|owned| rest.remove(&owned.element()));
            prop_assert_eq!(rest, digest_of(right));
        }

        #[test]
        fn a_missing_element_shows(elements in elements()) {
            prop_assume!(!elements.is_empty());
            prop_assert_ne!(digest_of(&elements[1..]).short(), digest_of(&elements).short());
        }

        #[test]
        fn bytes_and_cbor_read_back(elements in elements()) {
            let digest = digest_of(&elements);
            prop_assert_eq!(&RecordDigest::from_bytes(&digest.to_bytes()), &digest);
            let cbor = minicbor::to_vec(&digest).unwrap();
            prop_assert_eq!(minicbor::decode::<RecordDigest>(&cbor).unwrap(), digest);
        }
    }

    #[test]
    fn every_field_counts() {
        let base = Owned(1, "Observation".into(), "x".into(), Some("1".into()), [2; 32]);
        let mut others = vec![base.clone(); 6];
        others[1].0 = 9;
        others[2].1 = "Condition".into();
        others[3].2 = "y".into();
        others[4].3 = None;
        others[5].4 = [3; 32];
        let distinct: std::collections::BTreeSet<_> =
            others.iter().map(|owned| digest_of(std::slice::from_ref(owned)).short()).collect();
        assert_eq!(distinct.len(), 6);
        assert!(
            minicbor::decode::<RecordDigest>(&minicbor::to_vec(minicbor::bytes::ByteVec::from(vec![0; 2047])).unwrap())
                .is_err()
        );
    }

    #[test]
    fn salts_repeat_and_differ_by_secret_scope_and_resource() {
        let (secret, sha256) = (SaltSecret([1; 32]), Digest([2; 32]));
        let salt = secret.salt(b"p", "Observation", "x", None, &sha256);
        assert_eq!(salt, secret.salt(b"p", "Observation", "x", None, &sha256));
        assert_ne!(salt, SaltSecret([2; 32]).salt(b"p", "Observation", "x", None, &sha256));
        assert_ne!(salt, secret.salt(b"q", "Observation", "x", None, &sha256));
        assert_ne!(salt, secret.salt(b"p", "Observation", "x", Some("1"), &sha256));
        assert_ne!(salt, secret.salt(b"p", "Observation", "y", None, &sha256));
        assert_ne!(salt, secret.salt(b"p", "Observation", "x", None, &Digest([3; 32])));
    }
}
