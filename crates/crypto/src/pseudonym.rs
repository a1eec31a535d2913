//! A patient's root secret and everything that derives from it.
//!
//! One printed recovery code restores every lasting key and contacts no server; two hospitals see unrelated pseudonyms.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    DOMAIN,
    encoding::{Tuple, decode_array, secret_newtype},
    hkdf,
    keys::SigningKey,
};

/// How one hospital knows one patient.
///
/// Bytes: 32, uniformly distributed. Security: shows nothing in `Debug` and has no `Display`, since a pseudonym in a log links a
/// patient's cases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub [u8; 32]);

impl Pseudonym {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonym(redacted)")
    }
}

impl<C> minicbor::Encode<C> for Pseudonym {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Pseudonym {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decode_array(decoder).map(Self)
    }
}

secret_newtype! {
    /// A wallet's one secret, 32 uniformly random bytes.
    RootSecret
}

impl RootSecret {
    /// HKDF-Expand(root, CBOR["waybill/1", label, hospital, epoch], 32).
    fn at_hospital(&self, label: &str, hospital: &str, epoch: u32) -> Zeroizing<[u8; 32]> {
        let info = Tuple::new(4, DOMAIN).text(label).text(hospital).uint(u64::from(epoch)).finish();
        hkdf::expand(&self.0, &info)
    }

    /// HKDF-Expand(root, CBOR["waybill/1", label, number], 32).
    fn numbered(&self, label: &str, number: u64) -> Zeroizing<[u8; 32]> {
        hkdf::expand(&self.0, &Tuple::new(3, DOMAIN).text(label).uint(number).finish())
    }

    /// The pseudonym at a hospital. Source: PROTOCOL section 4.
    #[must_use]
    pub fn pid(&self, hospital: &str, epoch: u32) -> Pseudonym {
        Pseudonym(*self.at_hospital("pid", hospital, epoch))
    }

    /// The pairwise key that signs consents and logins at a hospital.
    #[must_use]
    pub fn consent_key(&self, hospital: &str, epoch: u32) -> SigningKey {
        SigningKey::derive(&self.at_hospital("consent", hospital, epoch))
    }

    /// The one-time key of the delegation with this number.
    #[must_use]
    pub fn delegation_key(&self, number: u64) -> SigningKey {
        SigningKey::derive(&self.numbered("delegation", number))
    }

    /// The key that revokes the delegation with this number.
    #[must_use]
    pub fn revocation_key(&self, number: u64) -> SigningKey {
        SigningKey::derive(&self.numbered("revocation", number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_derived_differs_by_root_label_hospital_epoch_and_number() {
        let (one, two) = (RootSecret([1; 32]), RootSecret([2; 32]));
        let mut seen = std::collections::BTreeSet::new();
        for root in [&one, &two] {
            for hospital in ["a.example", "b.example"] {
                for epoch in [0, 1] {
                    assert!(seen.insert(root.pid(hospital, epoch).0));
                    assert!(seen.insert(*root.consent_key(hospital, epoch).to_scalar_bytes()));
                }
            }
            for number in [0, 1] {
                assert!(seen.insert(*root.delegation_key(number).to_scalar_bytes()));
                assert!(seen.insert(*root.revocation_key(number).to_scalar_bytes()));
            }
        }
        assert_eq!(one.pid("a.example", 0), RootSecret([1; 32]).pid("a.example", 0));
    }

    #[test]
    fn debug_shows_neither_root_nor_pseudonym() {
        let root = RootSecret([0xa5; 32]);
        assert_eq!(format!("{root:?}"), "RootSecret(redacted)");
        assert_eq!(format!("{:?}", root.pid("a", 0)), "Pseudonym(redacted)");
    }
}
