//! Keys, key ids and signatures; how they look on the wire.
//!
//! A key parses once: with the `native` feature each value carries the form its library computes with, so that signing and
//! verifying pay for no parsing.

use std::fmt;

#[cfg(feature = "native")]
use std::sync::Arc;

#[cfg(feature = "native")]
use aws_lc_rs::{
    agreement,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use zeroize::Zeroizing;

use crate::{
    backend::PrimitiveError,
    encoding::{Tuple, byte_newtype, decode_array, secret_newtype},
    hkdf,
};

pub use crate::digest::Digest;

secret_newtype! {
    /// The secret of a one-time HPKE key, as a wallet keeps it until the answer has come: 32 bytes, wiped when dropped.
    OneTimeSecret
}

byte_newtype! {
    /// Which P-256 key: the first 16 bytes of SHA-256 over its 65-byte SEC1 form.
    KeyId, 16
}

byte_newtype! {
    /// An ES256 signature.
    ///
    /// Bytes: r then s, 32 each, big-endian. Security: s is at most half the group order, enforced when signing and when
    /// verifying, so that nobody without the key makes a second valid signature from a first.
    Signature, 64
}

byte_newtype! {
    /// An X25519 public key for HPKE (RFC 9180 DHKEM(X25519, HKDF-SHA256)).
    HpkePublicKey, 32
}

byte_newtype! {
    /// An Ed25519 public key (RFC 8032): log checkpoints and witness cosignatures.
    Ed25519PublicKey, 32
}

/// The order n of the P-256 group, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// (n - 1) / 2, big-endian: the greatest s that we accept.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

impl Signature {
    /// Whether s is at most half the group order.
    #[must_use]
    pub fn is_low_s(&self) -> bool {
        // Big-endian bytes of equal length compare as numbers do; a signature is public, so time may depend on it.
        self.0[32..] <= HALF_ORDER[..]
    }

    /// The one of the two signatures (r, s) and (r, n - s) whose s is low: for signatures of other makers' signers.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        if !self.is_low_s() {
            let mut borrow = 0;
            for (s, n) in self.0[32..].iter_mut().zip(ORDER).rev() {
                let difference = i16::from(n) - i16::from(*s) - borrow;
                borrow = i16::from(difference < 0);
                *s = difference.rem_euclid(256) as u8;
            }
        }
        self
    }
}

/// SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480 section 2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 public key that lies on the curve.
///
/// Bytes: SEC1 uncompressed, 65 (04 || x || y); on the wire a byte string of those.
#[derive(Clone)]
pub struct VerifyingKey {
    sec1: [u8; 65],
    #[cfg(feature = "native")]
    parsed: Arc<aws_lc_rs::signature::ParsedPublicKey>,
}

impl VerifyingKey {
    /// Parses the uncompressed SEC1 form.
    ///
    /// Errors: [`PrimitiveError::Key`] for another length or form, a point off the curve, or the point at infinity.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, PrimitiveError> {
        let sec1: [u8; 65] = bytes.try_into().map_err(|_| PrimitiveError::Key)?;
        if sec1[0] != 4 {
            return Err(PrimitiveError::Key);
        }
        #[cfg(feature = "native")]
        {
            let parsed = aws_lc_rs::signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, sec1)
                .map_err(|_| PrimitiveError::Key)?;
            Ok(Self { sec1, parsed: Arc::new(parsed) })
        }
        #[cfg(not(feature = "native"))]
        {
            p256::PublicKey::from_sec1_bytes(&sec1).map_err(|_| PrimitiveError::Key)?;
            Ok(Self { sec1 })
        }
    }

    /// The uncompressed SEC1 form.
    #[must_use]
    pub const fn as_sec1(&self) -> &[u8; 65] {
        &self.sec1
    }

    /// The short name of this key in message headers.
    #[must_use]
    pub fn kid(&self) -> KeyId {
        let digest = crate::digest::sha256(&[&self.sec1]);
        KeyId(digest.0[..16].try_into().expect("a digest has more than 16 bytes"))
    }

    /// The SubjectPublicKeyInfo, 91 bytes of DER (RFC 5480).
    #[must_use]
    pub fn to_spki_der(&self) -> [u8; 91] {
        let mut der = [0; 91];
        der[..26].copy_from_slice(&SPKI_PREFIX);
        der[26..].copy_from_slice(&self.sec1);
        der
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn thumbprint(&self) -> Digest {
        crate::digest::sha256(&[&self.to_spki_der()])
    }

    #[cfg(feature = "native")]
    pub(crate) fn parsed(&self) -> &aws_lc_rs::signature::ParsedPublicKey {
        &self.parsed
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.sec1 == other.sec1
    }
}

impl Eq for VerifyingKey {}

impl PartialOrd for VerifyingKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VerifyingKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sec1.cmp(&other.sec1)
    }
}

impl std::hash::Hash for VerifyingKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.sec1.hash(state);
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", hex::encode(self.sec1))
    }
}

impl<C> minicbor::Encode<C> for VerifyingKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.sec1)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for VerifyingKey {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let position = decoder.position();
        let sec1 = decode_array::<65>(decoder)?;
        Self::from_sec1(&sec1).map_err(|_| minicbor::decode::Error::message("not a P-256 point").at(position))
    }
}

/// A P-256 secret key for ES256.
///
/// Security: redacted in `Debug`, wiped on drop.
#[derive(Clone)]
pub struct SigningKey {
    scalar: Zeroizing<[u8; 32]>,
    public: VerifyingKey,
    #[cfg(feature = "native")]
    pair: Arc<EcdsaKeyPair>,
}

impl SigningKey {
    /// Takes the secret scalar, 32 bytes big-endian.
    ///
    /// Errors: [`PrimitiveError::Key`] unless it lies in 1..n.
    pub fn from_scalar_bytes(scalar: &[u8; 32]) -> Result<Self, PrimitiveError> {
        #[cfg(feature = "native")]
        {
            let der = rfc_5915(scalar);
            let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_slice())
                .map_err(|_| PrimitiveError::Key)?;
            Self::from_pair(Zeroizing::new(*scalar), pair)
        }
        #[cfg(not(feature = "native"))]
        {
            let secret = p256::SecretKey::from_slice(scalar).map_err(|_| PrimitiveError::Key)?;
            let public = VerifyingKey::from_sec1(&secret.public_key().to_sec1_bytes())?;
            Ok(Self { scalar: Zeroizing::new(*scalar), public })
        }
    }

    #[cfg(feature = "native")]
    pub(crate) fn from_pair(scalar: Zeroizing<[u8; 32]>, pair: EcdsaKeyPair) -> Result<Self, PrimitiveError> {
        let public = VerifyingKey::from_sec1(pair.public_key().as_ref())?;
        Ok(Self { scalar, public, pair: Arc::new(pair) })
    }

    /// The secret scalar, 32 bytes big-endian. Security: for sealed storage only.
    #[must_use]
    pub fn to_scalar_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.scalar.clone()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Derives a key from a uniformly random seed by rejection sampling: the first of HKDF-Expand(seed,
    /// CBOR["waybill/1", "scalar", counter]) for counter 0, 1, ... that lies in 1..n (uniform, unlike a reduction).
    #[must_use]
    pub fn derive(seed: &[u8; 32]) -> Self {
        (0..=u64::MAX)
            .find_map(|counter| {
                let info = Tuple::new(3, crate::DOMAIN).text("scalar").uint(counter).finish();
                Self::from_scalar_bytes(&hkdf::expand(seed, &info)).ok()
            })
            .expect("each candidate is refused with probability 2^-32 only")
    }

    #[cfg(feature = "native")]
    pub(crate) fn pair(&self) -> &EcdsaKeyPair {
        &self.pair
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(redacted, kid {})", self.public.kid())
    }
}

/// The ECPrivateKey structure of RFC 5915 around a scalar, without the public key (which the parser then computes).
#[cfg(feature = "native")]
fn rfc_5915(scalar: &[u8; 32]) -> Zeroizing<[u8; 51]> {
    let mut der = Zeroizing::new([0; 51]);
    der[..7].copy_from_slice(&[0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20]);
    der[7..39].copy_from_slice(scalar);
    der[39..].copy_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    der
}

/// An X25519 secret key for HPKE.
///
/// Security: redacted in `Debug`, wiped on drop.
#[derive(Clone)]
pub struct HpkeSecretKey {
    secret: Zeroizing<[u8; 32]>,
    public: HpkePublicKey,
    #[cfg(feature = "native")]
    parsed: Arc<agreement::PrivateKey>,
}

impl HpkeSecretKey {
    /// Takes 32 secret bytes; every value is a key (RFC 7748 section 5 clamps).
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        let secret = Zeroizing::new(*secret);
        #[cfg(feature = "native")]
        {
            let parsed = agreement::PrivateKey::from_private_key(&agreement::X25519, secret.as_slice())
                .expect("every 32 bytes are an X25519 key");
            let public = parsed.compute_public_key().expect("an X25519 key has a public half");
            let public = HpkePublicKey::try_from(public.as_ref()).expect("an X25519 public key has 32 bytes");
            Self { secret, public, parsed: Arc::new(parsed) }
        }
        #[cfg(not(feature = "native"))]
        {
            let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*secret));
            Self { secret, public: HpkePublicKey(public.to_bytes()) }
        }
    }

    /// The secret bytes. Security: for sealed storage only.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &HpkePublicKey {
        &self.public
    }

    #[cfg(feature = "native")]
    pub(crate) fn parsed(&self) -> &agreement::PrivateKey {
        &self.parsed
    }
}

impl fmt::Debug for HpkeSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HpkeSecretKey(redacted, public {})", self.public)
    }
}

/// An Ed25519 secret key (RFC 8032).
///
/// Security: redacted in `Debug`, wiped on drop.
#[derive(Clone)]
pub struct Ed25519SecretKey {
    seed: Zeroizing<[u8; 32]>,
    public: Ed25519PublicKey,
    #[cfg(feature = "native")]
    pair: Arc<Ed25519KeyPair>,
}

impl Ed25519SecretKey {
    /// Takes the 32-byte seed; every value is a key.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        let seed = Zeroizing::new(*seed);
        #[cfg(feature = "native")]
        {
            let pair =
                Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).expect("every 32 bytes are an Ed25519 seed");
            let public = Ed25519PublicKey::try_from(pair.public_key().as_ref()).expect("a public key has 32 bytes");
            Self { seed, public, pair: Arc::new(pair) }
        }
        #[cfg(not(feature = "native"))]
        {
            let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
            Self { seed, public: Ed25519PublicKey(public.to_bytes()) }
        }
    }

    /// The seed. Security: for sealed storage only.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &Ed25519PublicKey {
        &self.public
    }

    #[cfg(feature = "native")]
    pub(crate) fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }
}

impl fmt::Debug for Ed25519SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519SecretKey(redacted, public {})", self.public)
    }
}

/// A hospital's lasting public keys, as a wallet pins them and a consent binds them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct HospitalKeys {
    /// Verifies what the hospital signs.
    #[n(0)]
    pub signing: VerifyingKey,
    /// Seals to the hospital.
    #[n(1)]
    pub hpke: HpkePublicKey,
}

impl HospitalKeys {
    /// SHA-256 over CBOR["waybill/1 thumb", signing, hpke].
    ///
    /// Security: covers *both* keys; over the signing key alone, an authority could pair a hospital's real signing key with
    /// an HPKE key of its own and read what is sealed to the hospital. Source: PROTOCOL, thumb_X.
    #[must_use]
    pub fn thumb(&self) -> Thumb {
        let cbor = Tuple::new(3, "waybill/1 thumb").bytes(self.signing.as_sec1()).bytes(self.hpke.as_bytes()).finish();
        Thumb(crate::digest::sha256(&[&cbor]))
    }
}

/// Names a hospital by its public keys; see [`HospitalKeys::thumb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Thumb(#[n(0)] pub Digest);

impl fmt::Display for Thumb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_range_is_enforced() {
        assert!(SigningKey::from_scalar_bytes(&[0; 32]).is_err());
        let mut scalar = ORDER;
        assert!(SigningKey::from_scalar_bytes(&scalar).is_err());
        scalar[31] -= 1;
        assert!(SigningKey::from_scalar_bytes(&scalar).is_ok());
        assert!(SigningKey::from_scalar_bytes(&[0xff; 32]).is_err());
    }

    #[test]
    fn normalising_turns_high_s_into_its_negative_and_leaves_low_s() {
        let with_s = |s: [u8; 32]| {
            let mut bytes = [7; 64];
            bytes[32..].copy_from_slice(&s);
            Signature(bytes)
        };
        let mut above = HALF_ORDER;
        above[31] += 1;
        assert!(with_s(HALF_ORDER).is_low_s() && !with_s(above).is_low_s());
        assert_eq!(with_s(HALF_ORDER).normalised(), with_s(HALF_ORDER));
        // n - (n + 1) / 2 = (n - 1) / 2.
        assert_eq!(with_s(above).normalised(), with_s(HALF_ORDER));
        let mut greatest = ORDER;
        greatest[31] -= 1;
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(with_s(greatest).normalised(), with_s(one));
    }

    #[test]
    fn rfc_6979_public_key() {
        // RFC 6979 appendix A.2.5.
        let scalar =
            crate::encoding::parse_hex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").unwrap();
        let key = SigningKey::from_scalar_bytes(&scalar).unwrap();
        assert_eq!(
            hex::encode(key.public().as_sec1()),
            "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
             7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
        );
        assert_eq!(*key.to_scalar_bytes(), scalar);
    }

    #[test]
    fn points_off_the_curve_and_other_forms_are_refused() {
        let key = SigningKey::derive(&[1; 32]);
        let sec1 = *key.public().as_sec1();
        assert_eq!(VerifyingKey::from_sec1(&sec1).unwrap(), *key.public());
        let mut off = sec1;
        off[64] ^= 1;
        assert_eq!(VerifyingKey::from_sec1(&off).unwrap_err(), PrimitiveError::Key);
        let mut compressed = [0; 33];
        compressed.copy_from_slice(&sec1[..33]);
        compressed[0] = 2 + (sec1[64] & 1);
        assert!(VerifyingKey::from_sec1(&compressed).is_err());
        assert!(VerifyingKey::from_sec1(&[0]).is_err());
        assert!(VerifyingKey::from_sec1(&[0; 65]).is_err());
        // The hybrid form (6 or 7) that some parsers accept.
        let mut hybrid = sec1;
        hybrid[0] = 6 + (sec1[64] & 1);
        assert!(VerifyingKey::from_sec1(&hybrid).is_err());
        let mut cbor = minicbor::to_vec(key.public()).unwrap();
        assert_eq!(minicbor::decode::<VerifyingKey>(&cbor).unwrap(), *key.public());
        *cbor.last_mut().unwrap() ^= 1;
        assert!(minicbor::decode::<VerifyingKey>(&cbor).is_err());
    }

    #[test]
    fn rfc_8032_public_key() {
        // RFC 8032 section 7.1, test 1.
        let seed =
            crate::encoding::parse_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        assert_eq!(
            Ed25519SecretKey::from_bytes(&seed).public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let seed = [0xa5; 32];
        let signing = SigningKey::derive(&seed);
        let shown = [
            format!("{signing:?}"),
            format!("{:?}", HpkeSecretKey::from_bytes(&seed)),
            format!("{:?}", Ed25519SecretKey::from_bytes(&seed)),
        ];
        let secrets = [hex::encode(signing.to_scalar_bytes()), hex::encode(seed)];
        for text in &shown {
            assert!(text.contains("redacted"));
            assert!(secrets.iter().all(|secret| !text.contains(secret)));
        }
    }

    #[test]
    fn thumb_covers_both_keys() {
        let keys = |signing: u8, hpke: u8| HospitalKeys {
            signing: SigningKey::derive(&[signing; 32]).public().clone(),
            hpke: *HpkeSecretKey::from_bytes(&[hpke; 32]).public(),
        };
        assert_eq!(keys(1, 2).thumb(), keys(1, 2).thumb());
        assert_ne!(keys(1, 2).thumb(), keys(1, 3).thumb());
        assert_ne!(keys(1, 2).thumb(), keys(3, 2).thumb());
        let cbor = minicbor::to_vec(keys(1, 2)).unwrap();
        assert_eq!(minicbor::decode::<HospitalKeys>(&cbor).unwrap(), keys(1, 2));
    }
}
