//! The DER that `x509-cert` does not give out: structures to build, private usages, ECDSA signatures, names and times.

use der::asn1::{Any, BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use der::{Decode, Encode, Sequence, Tag, Tagged as _};
use std::time::Duration;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::digest::sha256;
use crate::keys::{Signature, VerifyingKey};

use super::Serial;
use super::profile::PartyName;
use super::root::RootPublicKey;

pub(super) const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
pub(super) const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(super) const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
pub(super) const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
pub(super) const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
pub(super) const ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
pub(super) const CRL_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
pub(super) const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVE_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const CURVE_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// The group order of P-256, big-endian.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// TBSCertificate (RFC 5280 section 4.1) without unique identifiers, to build one; `x509-cert` keeps its fields to itself.
#[derive(Clone, Debug, Sequence)]
pub(super) struct ToBeSigned {
    /// 2, which means version 3.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub version: u8,
    pub serial_number: SerialNumber,
    pub signature: AlgorithmIdentifierOwned,
    pub issuer: Name,
    pub validity: Validity,
    pub subject: Name,
    pub subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    pub extensions: Vec<Extension>,
}

/// What a certificate and a revocation list have in common: SEQUENCE { to-be-signed, algorithm, signature }.
#[derive(Clone, Debug, Sequence)]
struct SignedStructure {
    to_be_signed: Any,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// Joins to-be-signed bytes and a signature.
pub(super) fn assemble(to_be_signed: &[u8], algorithm: ObjectIdentifier, signature: &[u8]) -> der::Result<Vec<u8>> {
    SignedStructure {
        to_be_signed: Any::from_der(to_be_signed)?,
        algorithm: algorithm_identifier(algorithm),
        signature: BitString::from_bytes(signature)?,
    }
    .to_der()
}

/// An ECDSA algorithm; its parameters are absent (RFC 5758 section 3.2).
pub(super) const fn algorithm_identifier(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: None }
}

/// A subject's key of one of the two curves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SubjectKey {
    P256(VerifyingKey),
    P384(RootPublicKey),
}

impl SubjectKey {
    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn from_spki(spki: &SubjectPublicKeyInfoOwned) -> Option<Self> {
        let curve = spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        let point = spki.subject_public_key.as_bytes()?;
        match (spki.algorithm.oid == EC_PUBLIC_KEY, curve) {
            (true, CURVE_P256) => VerifyingKey::from_sec1(point).ok().map(Self::P256),
            (true, CURVE_P384) => RootPublicKey::from_sec1(point).ok().map(Self::P384),
            _ => None,
        }
    }

    pub(super) fn to_spki(&self) -> der::Result<SubjectPublicKeyInfoOwned> {
        let (curve, point): (_, &[u8]) = match self {
            Self::P256(key) => (CURVE_P256, key.as_sec1()),
            Self::P384(key) => (CURVE_P384, key.as_sec1()),
        };
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&curve)?) },
            subject_public_key: BitString::from_bytes(point)?,
        })
    }

    /// The first 160 bits of SHA-256 over the point. Source: RFC 7093 section 2, method 1.
    pub(super) fn key_id(&self) -> [u8; 20] {
        let point: &[u8] = match self {
            Self::P256(key) => key.as_sec1(),
            Self::P384(key) => key.as_sec1(),
        };
        sha256(&[point]).0[..20].try_into().expect("a digest has more than 20 bytes")
    }

    /// The algorithm with which this key signs.
    pub(super) const fn algorithm(&self) -> ObjectIdentifier {
        match self {
            Self::P256(_) => ECDSA_SHA256,
            Self::P384(_) => ECDSA_SHA384,
        }
    }
}

/// `CN=<name>` as UTF8String, one attribute.
pub(super) fn common_name(name: &PartyName) -> der::Result<Name> {
    // The characters of a party's name need no escaping in RFC 4514 syntax.
    format!("CN={name}").parse()
}

/// The only attribute of a subject, when it is a common name that is a party's name.
pub(super) fn read_common_name(name: &Name) -> Option<PartyName> {
    let text = PartyName::parse(&name.common_name().ok()??.value()).ok()?;
    let rebuilt = common_name(&text).ok()?;
    (rebuilt == *name).then_some(text)
}

pub(super) fn time(unix_seconds: u64) -> der::Result<Time> {
    let duration = Duration::from_secs(unix_seconds);
    match UtcTime::from_unix_duration(duration) {
        Ok(time) => Ok(Time::UtcTime(time)),
        Err(_) => GeneralizedTime::from_unix_duration(duration).map(Time::GeneralTime),
    }
}

pub(super) fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> der::Result<Extension> {
    Ok(Extension { extn_id: oid, critical, extn_value: OctetString::new(value)? })
}

/// ExtKeyUsageSyntax from the content bytes of its OIDs.
///
/// `ObjectIdentifier` holds arcs of 32 bits only; the arc of a UUID has 128.
pub(super) fn extended_usage(usages: &[&[u8]]) -> der::Result<Vec<u8>> {
    let oids: Result<Vec<Any>, _> = usages.iter().map(|oid| Any::new(Tag::ObjectIdentifier, *oid)).collect();
    oids?.to_der()
}

/// Reads an ExtKeyUsageSyntax into the content bytes of its OIDs.
pub(super) fn read_extended_usage(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let oids = Vec::<Any>::from_der(value).ok()?;
    let oid = |any: &Any| (any.tag() == Tag::ObjectIdentifier).then(|| any.value().to_vec());
    oids.iter().map(oid).collect()
}

pub(super) fn dns_name(name: &str) -> der::Result<GeneralName> {
    Ia5String::new(name).map(GeneralName::DnsName)
}

pub(super) fn uri(text: &str) -> der::Result<GeneralName> {
    Ia5String::new(text).map(GeneralName::UniformResourceIdentifier)
}

/// ECDSA-Sig-Value (RFC 3279 section 2.2.3).
#[derive(Sequence)]
struct EcdsaValue<'a> {
    r: der::asn1::UintRef<'a>,
    s: der::asn1::UintRef<'a>,
}

pub(super) fn signature_to_der(signature: &Signature) -> der::Result<Vec<u8>> {
    let (r, s) = signature.0.split_at(32);
    EcdsaValue { r: der::asn1::UintRef::new(r)?, s: der::asn1::UintRef::new(s)? }.to_der()
}

/// Reads an ECDSA signature of P-256. A high s stays high: [`crate::backend::Backend::verify`] then refuses it.
pub(super) fn signature_from_der(bytes: &[u8]) -> Option<Signature> {
    let value = EcdsaValue::from_der(bytes).ok()?;
    let mut signature = [0; 64];
    for (half, number) in signature.chunks_exact_mut(32).zip([value.r.as_bytes(), value.s.as_bytes()]) {
        half[32_usize.checked_sub(number.len())?..].copy_from_slice(number);
    }
    Some(Signature(signature))
}

/// The same signature with a low s: n - s when s is above half the order.
///
/// For certificate requests only: other tools make them with either, and nothing depends on their bytes.
pub(super) fn with_low_s(mut signature: Signature) -> Signature {
    let mut negated = [0; 32];
    let mut borrow = 0_i16;
    for i in (0..32).rev() {
        let difference = i16::from(P256_ORDER[i]) - i16::from(signature.0[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        negated[i] = u8::try_from(difference + 256 * borrow).expect("a digit in base 256");
    }
    if borrow == 0 && negated[..] < signature.0[32..] {
        signature.0[32..].copy_from_slice(&negated);
    }
    signature
}

pub(super) fn read_serial(serial: &SerialNumber) -> Option<Serial> {
    let bytes: [u8; 16] = serial.as_bytes().try_into().ok()?;
    (0x40..0x80).contains(&bytes[0]).then_some(Serial(bytes))
}

pub(super) fn serial_number(serial: &Serial) -> der::Result<SerialNumber> {
    SerialNumber::new(serial.as_bytes())
}
