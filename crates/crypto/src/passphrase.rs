//! A secret at rest under a passphrase: Argon2id (RFC 9106), then AES-256-GCM.

use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::bytes::ByteVec;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    encoding::{Tuple, decode_array},
};

const FORMAT: &str = "waybill/1 passphrase";
/// The longest file that is read; a wallet is a few KiB.
const MAX_LEN: usize = 16 << 20;

/// What one guess of the passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106 section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// The least that Argon2 takes. Security: for tests only, it costs an attacker nothing.
    pub const LEAST: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// The most that opening a file may cost: 1 GiB, 16 passes, 16 lanes.
    const MOST: Self = Self { memory_kib: 1 << 20, passes: 16, lanes: 16 };

    const fn is_bounded(self) -> bool {
        self.memory_kib <= Self::MOST.memory_kib && self.passes <= Self::MOST.passes && self.lanes <= Self::MOST.lanes
    }
}

/// A sealed file was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// Not a sealed file, or one of another version, or above 16 MiB.
    #[error("this is not a file sealed under a passphrase by this version")]
    Format,
    /// The file asks for less than Argon2 takes, or for more memory or time than a sane file does.
    #[error("the file asks for an unreasonable key derivation")]
    Cost,
    /// Wrong passphrase, or the file was altered, or it was sealed for another purpose: these cannot be told apart.
    #[error("the passphrase is wrong, or the file was altered")]
    Wrong,
}

fn derive(passphrase: &str, salt: &[u8; 16], cost: Cost) -> Result<Zeroizing<[u8; 32]>, PassphraseError> {
    if !cost.is_bounded() {
        return Err(PassphraseError::Cost);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| PassphraseError::Cost)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(|_| PassphraseError::Cost)?;
    Ok(key)
}

/// CBOR[format, purpose, memory, passes, lanes, salt]: what the ciphertext is bound to.
fn additional_data(purpose: &str, cost: Cost, salt: &[u8; 16]) -> Vec<u8> {
    Tuple::new(6, FORMAT)
        .text(purpose)
        .uint(u64::from(cost.memory_kib))
        .uint(u64::from(cost.passes))
        .uint(u64::from(cost.lanes))
        .bytes(salt)
        .finish()
}

/// Seals `plaintext` under a passphrase for a purpose, such as "wallet".
///
/// Bytes: CBOR["waybill/1 passphrase", memory in KiB, passes, lanes, salt (16), nonce (12), ciphertext || tag].
///
/// Errors: [`PassphraseError::Cost`] for a cost outside the limits, [`PassphraseError::Format`] for a plaintext above 16 MiB.
pub fn seal(
    backend: &dyn Backend,
    passphrase: &str,
    cost: Cost,
    purpose: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, PassphraseError> {
    if plaintext.len() > MAX_LEN - 1024 {
        return Err(PassphraseError::Format);
    }
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    backend.random(&mut salt);
    backend.random(&mut nonce);
    let key = derive(passphrase, &salt, cost)?;
    let mut ciphertext = Vec::with_capacity(plaintext.len() + 16);
    ciphertext.extend_from_slice(plaintext);
    let tag = backend.aead_seal(&key, &nonce, &additional_data(purpose, cost, &salt), &mut ciphertext);
    ciphertext.extend_from_slice(&tag);
    Ok(Tuple::new(7, FORMAT)
        .uint(u64::from(cost.memory_kib))
        .uint(u64::from(cost.passes))
        .uint(u64::from(cost.lanes))
        .bytes(&salt)
        .bytes(&nonce)
        .bytes(&ciphertext)
        .finish())
}

struct Parsed {
    cost: Cost,
    salt: [u8; 16],
    nonce: [u8; 12],
    ciphertext: Vec<u8>,
}

fn parse(file: &[u8]) -> Result<Parsed, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(file);
    if decoder.array()? != Some(7) || decoder.str()? != FORMAT {
        return Err(minicbor::decode::Error::message("another format"));
    }
    let cost = Cost { memory_kib: decoder.u32()?, passes: decoder.u32()?, lanes: decoder.u32()? };
    let (salt, nonce) = (decode_array(&mut decoder)?, decode_array(&mut decoder)?);
    let ciphertext = decoder.decode::<ByteVec>()?.into();
    if decoder.position() != file.len() {
        return Err(minicbor::decode::Error::message("bytes after the end"));
    }
    Ok(Parsed { cost, salt, nonce, ciphertext })
}

/// Opens what [`seal`] made for the same purpose.
///
/// Errors: [`PassphraseError`]. Security: a file of an attacker's making costs at most 1 GiB and 16 passes.
pub fn open(
    backend: &dyn Backend,
    passphrase: &str,
    purpose: &str,
    file: &[u8],
) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
    if file.len() > MAX_LEN {
        return Err(PassphraseError::Format);
    }
    let Parsed { cost, salt, nonce, ciphertext } = parse(file).map_err(|_| PassphraseError::Format)?;
    let mut plaintext = Zeroizing::new(ciphertext);
    let length = plaintext.len().checked_sub(16).ok_or(PassphraseError::Format)?;
    let tag = plaintext[length..].try_into().expect("what is left is the tag");
    plaintext.truncate(length);
    let key = derive(passphrase, &salt, cost)?;
    backend
        .aead_open(&key, &nonce, &additional_data(purpose, cost, &salt), &mut plaintext, &tag)
        .map_err(|_| PassphraseError::Wrong)?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portable::Portable;

    fn backend() -> Portable {
        Portable::from_seed([1; 32])
    }

    fn file(cost: Cost) -> Vec<u8> {
        seal(&backend(), "correct horse", cost, "wallet", b"secret").unwrap()
    }

    #[test]
    fn opens_with_the_passphrase_and_purpose_only() {
        let file = file(Cost::LEAST);
        let open = |passphrase, purpose| open(&backend(), passphrase, purpose, &file);
        assert_eq!(*open("correct horse", "wallet").unwrap(), b"secret");
        assert_eq!(open("correct hors", "wallet").unwrap_err(), PassphraseError::Wrong);
        assert_eq!(open("", "wallet").unwrap_err(), PassphraseError::Wrong);
        assert_eq!(open("correct horse", "backup").unwrap_err(), PassphraseError::Wrong);
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        let file = file(Cost::LEAST);
        for position in 0..file.len() {
            let mut bad = file.clone();
            bad[position] ^= 1;
            assert!(open(&backend(), "correct horse", "wallet", &bad).is_err(), "byte {position}");
            assert!(open(&backend(), "correct horse", "wallet", &file[..position]).is_err(), "length {position}");
        }
        let mut longer = file;
        longer.push(0);
        assert_eq!(open(&backend(), "correct horse", "wallet", &longer).unwrap_err(), PassphraseError::Format);
    }

    #[test]
    fn a_file_that_asks_for_too_much_is_refused_before_it_costs_anything() {
        for cost in [
            Cost { memory_kib: u32::MAX, ..Cost::LEAST },
            Cost { passes: 17, ..Cost::LEAST },
            Cost { memory_kib: 1 << 10, lanes: 17, passes: 1 },
            Cost { passes: 0, ..Cost::LEAST },
            Cost { memory_kib: 7, ..Cost::LEAST },
        ] {
            assert_eq!(derive("x", &[0; 16], cost).unwrap_err(), PassphraseError::Cost);
        }
        assert!(Cost::RECOMMENDED.is_bounded());
        let oversized = open(&backend(), "x", "wallet", &vec![0; MAX_LEN + 1]);
        assert_eq!(oversized.unwrap_err(), PassphraseError::Format);
    }

    #[test]
    fn argon2id_matches_rfc_9106_in_its_default_version() {
        // The reference implementation's `argon2 -id -t 2 -k 256 -p 1 -v 13` vector: password "password", salt "somesalt".
        let params = Params::new(256, 2, 1, Some(32)).unwrap();
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(b"password", b"somesalt", &mut key)
            .unwrap();
        assert_eq!(hex::encode(key), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    }
}
