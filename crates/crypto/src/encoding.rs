//! Fixed-length byte newtypes: hexadecimal outside, CBOR byte strings on the wire.

use thiserror::Error;

/// Text is not the lowercase or uppercase hexadecimal form of a value of the expected length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not {expected} bytes in hexadecimal")]
pub struct HexError {
    /// How many bytes the type holds.
    pub expected: usize,
}

/// Parses exactly `N` bytes of hexadecimal.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| HexError { expected: N })?;
    Ok(out)
}

/// Decodes a definite-length CBOR byte string of exactly `N` bytes.
pub(crate) fn decode_array<const N: usize>(
    decoder: &mut minicbor::Decoder<'_>,
) -> Result<[u8; N], minicbor::decode::Error> {
    let position = decoder.position();
    let bytes = decoder.bytes()?;
    <[u8; N]>::try_from(bytes)
        .map_err(|_| minicbor::decode::Error::message("byte string of the wrong length").at(position))
}

/// A CBOR encoder over memory, for the small tuples that domain-separate a hash.
///
/// Bytes: a definite-length array; text, byte strings and unsigned integers in their shortest form (RFC 8949 section 4.2.1).
pub(crate) struct Tuple(minicbor::Encoder<Vec<u8>>);

impl Tuple {
    /// Opens an array of `len` items whose first is `domain`.
    pub(crate) fn new(len: u64, domain: &str) -> Self {
        Self::untagged(len).text(domain)
    }

    /// Opens an array of `len` items, for a hash that a salt already separates.
    pub(crate) fn untagged(len: u64) -> Self {
        let mut encoder = minicbor::Encoder::new(Vec::with_capacity(128));
        encoder.array(len).expect("writing to memory does not fail");
        Self(encoder)
    }

    pub(crate) fn text(mut self, value: &str) -> Self {
        self.0.str(value).expect("writing to memory does not fail");
        self
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.bytes(value).expect("writing to memory does not fail");
        self
    }

    pub(crate) fn uint(mut self, value: u64) -> Self {
        self.0.u64(value).expect("writing to memory does not fail");
        self
    }

    pub(crate) fn null(mut self) -> Self {
        self.0.null().expect("writing to memory does not fail");
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

/// Defines a public (not secret) value of fixed length.
macro_rules! byte_newtype {
    ($(#[$meta:meta])* $name:ident, $len:literal) => {
        byte_newtype!(@cbor $name, $len);

        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::encoding::HexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::encoding::parse_hex(text).map(Self)
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
    (@cbor $name:ident, $len:literal) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                $crate::encoding::decode_array(decoder).map(Self)
            }
        }
    };
}

/// Defines a 32-byte secret: redacted in `Debug`, wiped on drop, compared in constant time, not `Copy`.
macro_rules! secret_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Takes the secret bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// A fresh value from the back end's generator.
            #[must_use]
            pub fn random(backend: &dyn $crate::backend::Backend) -> Self {
                let mut bytes = [0; 32];
                backend.random(&mut bytes);
                Self(bytes)
            }

            /// The secret bytes. Security: whoever calls this keeps them out of logs and wipes copies.
            #[must_use]
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                use subtle::ConstantTimeEq as _;
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                $crate::encoding::decode_array(decoder).map(Self)
            }
        }
    };
}

pub(crate) use {byte_newtype, secret_newtype};
