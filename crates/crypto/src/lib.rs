//! The only place where primitives appear: keys, signatures, sealing, the chunk stream, digests that add up, derived
//! pseudonyms, certificates.
//!
//! No input, no output, no clock. Two back ends stand behind one trait ([`backend::Backend`]): `native` (aws-lc) for servers and
//! `portable` (RustCrypto, injected randomness, RFC 6979) for vectors, simulation and browsers; tests hold them equal on
//! every operation.

/// First element of every derivation of ours, so that no other protocol's hash is ever one of ours.
pub const DOMAIN: &str = "waybill/1";

mod encoding;

pub mod backend;
pub mod certificate;
pub mod commitment;
pub mod digest;
pub mod hkdf;
pub mod keys;
pub mod lthash;
pub mod merkle;
pub mod metered;
#[cfg(feature = "native")]
pub mod native;
pub mod passphrase;
pub mod portable;
pub mod pseudonym;
pub mod stream;

pub use encoding::HexError;

/// `Debug` that shows a type's name and nothing of its value: for whatever holds a secret or health data, so that no log line, error or
/// failed assertion can show it.
#[macro_export]
macro_rules! opaque_debug {
    ($name:ident $(< $life:lifetime >)?) => {
        impl std::fmt::Debug for $name $(< $life >)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}
