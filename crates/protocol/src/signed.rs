//! One profile of COSE_Sign1 (RFC 9052): protected `{alg: ES256, kid, typ}`, empty unprotected map, external_aad `"waybill/1"`.
//!
//! [`Unverified`] is what bytes become when their shape is right; [`Signed`] is what it becomes when its signature has been
//! verified, or when we signed it. There is no other way to make a `Signed`: holding one is the proof.

use std::fmt;
use std::marker::PhantomData;

use minicbor::{Decode, Encode};
use waybill_crypto::backend::{Backend, PrimitiveError};
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{KeyId, Signature, SigningKey, VerifyingKey};

use crate::ids::MessageId;
use crate::wire::{DecodeError, from_cbor, to_cbor};

/// The external additional data of every signature: separates this protocol from any other use of the keys.
pub const EXTERNAL_AAD: &[u8] = b"waybill/1";

/// COSE algorithm identifier of ES256, which this protocol pins to P-256 with SHA-256.
const ALG_ES256: i8 = -7;
/// COSE tag of COSE_Sign1.
const TAG_SIGN1: u64 = 18;

/// A structure that travels signed.
pub trait Message: Encode<()> + for<'b> Decode<'b, ()> {
    /// The `typ` header (RFC 9596), distinct for every message: a signature never serves as another message's.
    const TYP: &'static str;
    /// The largest signed size. Units: bytes.
    const MAX_BYTES: usize = 16 * 1024;

    /// Checks that the type alone cannot express (known suites, sorted lists, bounded counts).
    ///
    /// # Errors
    /// [`DecodeError`] naming the message.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// A message of the right shape, in the one deterministic encoding, whose signature nobody has verified yet.
#[derive(Clone)]
pub struct Unverified<M> {
    message: M,
    kid: KeyId,
    to_be_signed: Vec<u8>,
    signature: Signature,
    bytes: Vec<u8>,
}

impl<M: Message> Unverified<M> {
    /// Parses the bytes of a COSE_Sign1.
    ///
    /// # Errors
    /// [`DecodeError`] for any other profile, type, algorithm or encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > M::MAX_BYTES {
            return Err(DecodeError::TooLarge { what: M::TYP, size_bytes: bytes.len(), limit_bytes: M::MAX_BYTES });
        }
        let (protected, payload, signature) = split(bytes).ok_or(DecodeError::Malformed(M::TYP))?;
        let kid = parse_protected(&protected, M::TYP)?;
        let message: M = from_cbor(M::TYP, &payload, M::MAX_BYTES)?;
        message.check()?;
        if assemble(&protected, &payload, &signature) != bytes {
            return Err(DecodeError::NotCanonical(M::TYP));
        }
        let to_be_signed = sig_structure(&protected, &payload);
        Ok(Self { message, kid, to_be_signed, signature, bytes: bytes.to_vec() })
    }

    /// The content, to find the key that should verify it. Security: not yet to be believed.
    pub fn peek(&self) -> &M {
        &self.message
    }

    /// Which key claims to have signed.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The message's identity, which depends on no signature.
    pub fn message_id(&self) -> MessageId {
        MessageId(sha256(&[&self.to_be_signed]))
    }

    /// Spends the time of a verification under a key that is not the signer's; tells whether it failed, as it must.
    pub(crate) fn verify_as_decoy(&self, backend: &dyn Backend, key: &VerifyingKey) -> bool {
        backend.verify(key, &self.to_be_signed, &self.signature).is_err()
    }

    /// Verifies the signature under `key`.
    ///
    /// # Errors
    /// [`PrimitiveError::Signature`] when the key id or the signature does not fit.
    pub fn verify(self, backend: &dyn Backend, key: &VerifyingKey) -> Result<Signed<M>, PrimitiveError> {
        if self.kid != key.kid() {
            return Err(PrimitiveError::Signature);
        }
        backend.verify(key, &self.to_be_signed, &self.signature)?;
        let id = self.message_id();
        Ok(Signed { message: self.message, id, kid: self.kid, bytes: self.bytes })
    }
}

/// A message whose signature verified, or that we signed ourselves.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<M> {
    message: M,
    id: MessageId,
    kid: KeyId,
    bytes: Vec<u8>,
}

impl<M: Message> Signed<M> {
    /// Signs a message.
    pub fn sign(backend: &dyn Backend, key: &SigningKey, message: M) -> Self {
        let protected = protected_header(key.public().kid(), M::TYP);
        let payload = to_cbor(&message);
        let to_be_signed = sig_structure(&protected, &payload);
        let signature = backend.sign(key, &to_be_signed);
        let bytes = assemble(&protected, &payload, &signature);
        Self { message, id: MessageId(sha256(&[&to_be_signed])), kid: key.public().kid(), bytes }
    }

    /// The content.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The message's identity: SHA-256 of its to-be-signed bytes.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The key that signed.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The signed bytes, as they travel.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The content, when the proof of its signature is no longer needed.
    pub fn into_message(self) -> M {
        self.message
    }
}

impl<M: Message> fmt::Debug for Signed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed<{}>({})", M::TYP, self.id)
    }
}

impl<M: Message> fmt::Debug for Unverified<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified<{}>", M::TYP)
    }
}

/// A signed message kept inside another structure as its exact bytes; parsed again, never re-encoded.
#[derive(PartialEq, Eq)]
pub struct SignedBytes<M> {
    bytes: Vec<u8>,
    kind: PhantomData<fn() -> M>,
}

impl<C, M> Encode<C> for SignedBytes<M> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C, M> Decode<'b, C> for SignedBytes<M> {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self { bytes: d.bytes()?.to_vec(), kind: PhantomData })
    }
}

impl<M> Clone for SignedBytes<M> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), kind: PhantomData }
    }
}

impl<M> fmt::Debug for SignedBytes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedBytes({} bytes)", self.bytes.len())
    }
}

impl<M: Message> SignedBytes<M> {
    /// Parses the message inside.
    ///
    /// # Errors
    /// As [`Unverified::parse`].
    pub fn parse(&self) -> Result<Unverified<M>, DecodeError> {
        Unverified::parse(&self.bytes)
    }

    /// The exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<M: Message> From<&Signed<M>> for SignedBytes<M> {
    fn from(signed: &Signed<M>) -> Self {
        Self { bytes: signed.bytes.clone(), kind: PhantomData }
    }
}

impl<M: Message> From<Vec<u8>> for SignedBytes<M> {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, kind: PhantomData }
    }
}

fn protected_header(kid: KeyId, typ: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut e = minicbor::Encoder::new(&mut out);
    // Keys 1 (alg), 4 (kid), 16 (typ): ascending, as deterministic encoding demands.
    e.map(3)
        .and_then(|e| e.u8(1)?.i8(ALG_ES256)?.u8(4)?.bytes(&kid.0)?.u8(16)?.str(typ))
        .expect("encoding into a Vec does not fail");
    out
}

/// The header is the one we would have written, but for its key id: so it is canonical, complete and of this type.
fn parse_protected(bytes: &[u8], typ: &'static str) -> Result<KeyId, DecodeError> {
    let parse = || -> Result<(i64, KeyId), minicbor::decode::Error> {
        let mut d = minicbor::Decoder::new(bytes);
        d.map()?;
        d.u8()?;
        let alg = d.i64()?;
        d.u8()?;
        let kid = d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("kid"))?;
        Ok((alg, KeyId(kid)))
    };
    let (alg, kid) = parse().map_err(|_| DecodeError::Malformed(typ))?;
    if alg != i64::from(ALG_ES256) {
        return Err(DecodeError::Suite(typ));
    }
    if protected_header(kid, typ) == bytes { Ok(kid) } else { Err(DecodeError::Unexpected { expected: typ }) }
}

fn split(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Signature)> {
    let mut d = minicbor::Decoder::new(bytes);
    if d.tag().ok()?.as_u64() != TAG_SIGN1 || d.array().ok()?? != 4 {
        return None;
    }
    let protected = d.bytes().ok()?.to_vec();
    if d.map().ok()?? != 0 {
        return None;
    }
    let payload = d.bytes().ok()?.to_vec();
    let signature: [u8; 64] = d.bytes().ok()?.try_into().ok()?;
    Some((protected, payload, Signature(signature)))
}

fn assemble(protected: &[u8], payload: &[u8], signature: &Signature) -> Vec<u8> {
    let mut out = Vec::with_capacity(protected.len() + payload.len() + 80);
    let mut e = minicbor::Encoder::new(&mut out);
    e.tag(minicbor::data::Tag::new(TAG_SIGN1))
        .and_then(|e| e.array(4)?.bytes(protected)?.map(0)?.bytes(payload)?.bytes(&signature.0))
        .expect("encoding into a Vec does not fail");
    out
}

/// RFC 9052 section 4.4.
fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(protected.len() + payload.len() + 32);
    let mut e = minicbor::Encoder::new(&mut out);
    e.array(4)
        .and_then(|e| e.str("Signature1")?.bytes(protected)?.bytes(EXTERNAL_AAD)?.bytes(payload))
        .expect("encoding into a Vec does not fail");
    out
}

#[cfg(test)]
mod tests {
    use minicbor::bytes::ByteVec;
    use waybill_crypto::keys::SigningKey;
    use waybill_crypto::portable::Portable;

    use super::*;

    #[derive(Encode, Decode)]
    #[cbor(array)]
    struct Note(#[n(0)] ByteVec);

    impl Message for Note {
        const TYP: &'static str = "waybill-note";
    }

    #[test]
    fn a_message_may_be_as_large_as_its_limit_and_no_larger() {
        let backend = Portable::from_seed([1; 32]);
        let key = SigningKey::derive(&[2; 32]);
        let signed = |bytes: usize| Signed::sign(&backend, &key, Note(ByteVec::from(vec![7; bytes]))).bytes().to_vec();
        let around = signed(10_000).len() - 10_000;
        let (largest, larger) = (signed(16_384 - around), signed(16_385 - around));
        assert_eq!((largest.len(), larger.len()), (16_384, 16_385));
        assert!(Unverified::<Note>::parse(&largest).unwrap().verify(&backend, key.public()).is_ok());
        let refused = Unverified::<Note>::parse(&larger).map(|_| ());
        assert_eq!(
            refused,
            Err(DecodeError::TooLarge { what: "waybill-note", size_bytes: 16_385, limit_bytes: 16_384 })
        );
    }
}
