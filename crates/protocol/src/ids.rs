//! Identifiers and times: one newtype each, so that none can stand in for another.

use std::fmt;

use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::Digest;

/// Seconds since 1970-01-01T00:00:00Z.
///
/// Units: seconds. The core never reads a clock; every handler is given `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Default)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// This instant moved later by `seconds`, stopping at the end of time.
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Distance between two instants, in seconds, whichever is later.
    #[must_use]
    pub fn distance_seconds(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

/// Why a text is not a hospital (or authority) id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an id is 1 to 63 characters of a-z, 0-9, '-' and '.', beginning with a letter or digit")]
pub struct IdError;

/// The registered name of a hospital, or of the authority itself.
///
/// Bytes: 1 to 63 ASCII characters `[a-z0-9][a-z0-9.-]*`. Security: never used as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HospitalId(String);

impl HospitalId {
    /// Parses a name.
    ///
    /// # Errors
    /// [`IdError`] when the text has another shape.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let first_ok = bytes.first().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest_ok = bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-' || *c == b'.');
        if first_ok && rest_ok && bytes.len() <= 63 { Ok(Self(text.to_owned())) } else { Err(IdError) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HospitalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for HospitalId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for HospitalId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::parse(d.str()?).map_err(|_| minicbor::decode::Error::message("hospital id"))
    }
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub Digest);

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

digest_id!(
    /// `pf`: the SHA-256 of a migration proof's to-be-signed bytes. Names the case.
    ProofId
);
digest_id!(
    /// `tr`: the SHA-256 of a transfer request's to-be-signed bytes. Names the session.
    SessionId
);
digest_id!(
    /// `hm`: the SHA-256 of a manifest's to-be-signed bytes.
    ManifestId
);
digest_id!(
    /// The SHA-256 of any signed message's to-be-signed bytes (never of its signed bytes: ECDSA is malleable).
    MessageId
);

/// 16 random bytes that make a message, or a log leaf, unrepeatable and unguessable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Nonce(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

waybill_crypto::opaque_debug!(Nonce);

impl Nonce {
    /// A fresh one.
    pub fn random(backend: &dyn Backend) -> Self {
        let mut out = [0; 16];
        backend.random(&mut out);
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_look_like_paths_or_markup_are_refused() {
        for bad in ["", "../etc", "a/b", "A", "a b", ".a", "-a", "a\n", "é", &"a".repeat(64)] {
            assert!(HospitalId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(HospitalId::parse("hospital-a.example").is_ok());
    }
}
