//! The salt of a resource, which keeps a digest from confirming guesses about what stayed behind.

use crate::resource::{ResourceId, ResourceKey};
use waybill_crypto::digest::Digest;
use waybill_crypto::lthash::SaltSecret;

/// The 16 bytes that go into the digest of one resource and travel with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// A salt that came with a resource.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// The salts of one patient's record at one hospital.
///
/// The same version of a resource always gets the same salt within a record, so the digests of successive partial
/// migrations add up to the digest of the whole. Two patients who share a supporting resource get two salts for it.
///
/// Security: whoever knows the secret can test guesses of resources against a digest. It never leaves the hospital.
///
/// Source: PROTOCOL section 8.
pub struct Salts<'a> {
    secret: &'a SaltSecret,
    record: &'a [u8],
}

impl std::fmt::Debug for Salts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts(..)")
    }
}

impl<'a> Salts<'a> {
    /// The salts of the record that `record` names: the patient's pseudonym at this hospital.
    pub fn new(secret: &'a SaltSecret, record: &'a [u8]) -> Self {
        Self { secret, record }
    }

    /// The salt of one version of a resource.
    pub fn salt(&self, key: &ResourceKey, version: Option<&ResourceId>, sha256: &Digest) -> Salt {
        let version = version.map(ResourceId::as_str);
        Salt(self.secret.salt(self.record, key.resource_type.as_str(), key.id.as_str(), version, sha256))
    }
}
