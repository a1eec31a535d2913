//! Deterministic CBOR (RFC 8949 section 4.2.1) and the parcel that travels through mailboxes.
//!
//! Every structure is a definite-length array. Bytes are refused unless decoding and encoding again gives the same bytes, so that
//! one meaning has exactly one encoding: no trailing data, no long integers, no indefinite lengths, no unknown extra fields.

use minicbor::{Decode, Encode};
use thiserror::Error;

/// A parcel's largest size. A manifest with its lists is the largest thing that is not a blob.
///
/// Units: bytes.
pub const MAX_PARCEL_BYTES: usize = 4 * 1024 * 1024;

/// The protocol version every parcel begins with.
pub const VERSION: u8 = 1;

/// Why bytes are not one of our structures. Carries the structure's name, never its content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than the limit of its kind; nothing was parsed.
    #[error("{what}: {size_bytes} bytes are more than the {limit_bytes} allowed")]
    TooLarge {
        /// Which structure.
        what: &'static str,
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Not CBOR of the expected shape.
    #[error("{0}: not the expected CBOR structure")]
    Malformed(&'static str),
    /// CBOR of the right shape, in another than the one deterministic encoding.
    #[error("{0}: not in deterministic encoding")]
    NotCanonical(&'static str),
    /// Another protocol version.
    #[error("protocol version {0} is not supported; this is version 1")]
    Version(u8),
    /// A suite or algorithm that is not known here.
    #[error("{0}: unknown suite or algorithm")]
    Suite(&'static str),
    /// A known structure where another one was expected.
    #[error("expected {expected}")]
    Unexpected {
        /// What was expected.
        expected: &'static str,
    },
}

/// Encodes a structure. Writing to memory cannot fail.
#[must_use]
pub fn to_cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding into a Vec does not fail")
}

/// Decodes a structure of at most `limit_bytes`, refusing every encoding but the deterministic one.
///
/// # Errors
/// [`DecodeError`]; sizes are checked before anything is parsed.
pub fn from_cbor<T>(what: &'static str, bytes: &[u8], limit_bytes: usize) -> Result<T, DecodeError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    if bytes.len() > limit_bytes {
        return Err(DecodeError::TooLarge { what, size_bytes: bytes.len(), limit_bytes });
    }
    let value: T = minicbor::decode(bytes).map_err(|_| DecodeError::Malformed(what))?;
    if to_cbor(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical(what)) }
}

/// What kind of body a parcel carries. The numbers are the wire format (docs/PROTOCOL.md section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// patient -> hospital, sealed.
    #[n(1)]
    Registration,
    /// hospital -> patient, sealed.
    #[n(2)]
    RegistrationAnswer,
    /// patient -> hospital, sealed.
    #[n(3)]
    Login,
    /// hospital -> patient, sealed.
    #[n(4)]
    LoginAnswer,
    /// patient -> authority.
    #[n(5)]
    Delegation,
    /// authority -> patient, sealed.
    #[n(6)]
    ProofAnswer,
    /// patient -> destination, sealed.
    #[n(7)]
    Presentation,
    /// destination -> source.
    #[n(8)]
    TransferRequest,
    /// source -> authority.
    #[n(9)]
    Redeem,
    /// authority -> source.
    #[n(10)]
    Grant,
    /// source -> destination, sealed.
    #[n(11)]
    Manifest,
    /// source -> authority, sealed.
    #[n(12)]
    KeyLodgement,
    /// destination -> authority.
    #[n(13)]
    DeliveryReceipt,
    /// authority -> destination.
    #[n(14)]
    KeyRelease,
    /// destination -> authority.
    #[n(15)]
    ImportReceipt,
    /// authority -> every party: the signed terminal state, with the receipt where there is one.
    #[n(16)]
    CaseStatement,
    /// holder or hospital -> authority, source and destination.
    #[n(17)]
    Revocation,
    /// source -> destination and authority; authority -> patient: a signed refusal.
    #[n(18)]
    Refusal,
}

/// One posted message: version, kind, body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Parcel {
    #[n(0)]
    version: u8,
    /// What the body is.
    #[n(1)]
    pub kind: Kind,
    /// CBOR of the kind's own structure.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

impl Parcel {
    /// Wraps a body and gives the bytes to post.
    #[must_use]
    pub fn pack<T: Encode<()>>(kind: Kind, body: &T) -> Vec<u8> {
        to_cbor(&Self { version: VERSION, kind, body: to_cbor(body) })
    }

    /// The only door for bytes that arrive: bounded, canonical, of this version.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let parcel: Self = from_cbor("parcel", bytes, MAX_PARCEL_BYTES)?;
        if parcel.version == VERSION { Ok(parcel) } else { Err(DecodeError::Version(parcel.version)) }
    }

    /// The kind a parcel claims to be, for statistics: nothing else of it is read or checked.
    #[must_use]
    pub fn peek_kind(bytes: &[u8]) -> Option<Kind> {
        let mut decoder = minicbor::Decoder::new(bytes);
        (decoder.array().ok()? == Some(3) && decoder.u8().ok()? == VERSION).then_some(())?;
        decoder.decode().ok()
    }

    /// Decodes the body as the structure of the expected kind.
    ///
    /// # Errors
    /// [`DecodeError::Unexpected`] for another kind, otherwise as [`from_cbor`].
    pub fn open<T>(&self, kind: Kind, what: &'static str) -> Result<T, DecodeError>
    where
        T: Encode<()> + for<'b> Decode<'b, ()>,
    {
        if self.kind != kind {
            return Err(DecodeError::Unexpected { expected: what });
        }
        from_cbor(what, &self.body, MAX_PARCEL_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_can_be_peeked_at_and_nothing_else_is_a_kind() {
        assert_eq!(Parcel::peek_kind(&Parcel::pack(Kind::KeyRelease, &7u8)), Some(Kind::KeyRelease));
        assert_eq!(Parcel::peek_kind(&[0x83, 2, 3, 0x41, 7]), None);
        assert_eq!(Parcel::peek_kind(b"not a parcel"), None);
    }

    #[test]
    fn what_is_as_large_as_it_may_be_is_taken() {
        let body = minicbor::bytes::ByteVec::from(vec![7; 1000]);
        let bytes = to_cbor(&body);
        assert_eq!(from_cbor("body", &bytes, bytes.len()), Ok(body));
        let refused = from_cbor::<minicbor::bytes::ByteVec>("body", &bytes, bytes.len() - 1);
        assert_eq!(refused, Err(DecodeError::TooLarge { what: "body", size_bytes: 1003, limit_bytes: 1002 }));
        let parcel = Parcel::pack(Kind::Manifest, &minicbor::bytes::ByteVec::from(vec![7; (4 << 20) - 20]));
        assert_eq!(Parcel::parse(&parcel).unwrap().kind, Kind::Manifest);
    }

    #[test]
    fn only_the_deterministic_encoding_is_accepted() {
        let bytes = Parcel::pack(Kind::Login, &7u8);
        assert_eq!(Parcel::parse(&bytes).unwrap().kind, Kind::Login);
        // [1, 3, h'07'] with the version as a two-byte integer
        assert_eq!(Parcel::parse(&[0x83, 0x18, 1, 3, 0x41, 7]), Err(DecodeError::NotCanonical("parcel")));
        // indefinite-length array
        assert_eq!(Parcel::parse(&[0x9f, 1, 3, 0x41, 7, 0xff]), Err(DecodeError::NotCanonical("parcel")));
        // trailing byte, extra element, truncation
        assert_eq!(Parcel::parse(&[0x83, 1, 3, 0x41, 7, 0]), Err(DecodeError::NotCanonical("parcel")));
        assert_eq!(Parcel::parse(&[0x84, 1, 3, 0x41, 7, 0]), Err(DecodeError::NotCanonical("parcel")));
        assert_eq!(Parcel::parse(&bytes[..bytes.len() - 1]), Err(DecodeError::Malformed("parcel")));
        assert_eq!(Parcel::parse(&[0x83, 2, 3, 0x41, 7]), Err(DecodeError::Version(2)));
        assert_eq!(Parcel::parse(&[0x83, 1, 99, 0x41, 7]), Err(DecodeError::Malformed("parcel")));
        assert!(matches!(Parcel::parse(&vec![0; MAX_PARCEL_BYTES + 1]), Err(DecodeError::TooLarge { .. })));
    }
}
