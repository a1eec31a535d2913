//! A chunk that opens under two keys: AES-GCM does not commit to its key, and this is the ciphertext that shows it.
//!
//! Of a ciphertext of n blocks all but one are free; the last is solved for, so that both tags are the same. Tags are linear in the
//! ciphertext over GF(2^128), so that one division does it.

use waybill_crypto::backend::Backend as _;
use waybill_crypto::hkdf;
use waybill_crypto::native::Native;
use waybill_crypto::stream::{HEADER_LEN, RecordKey, StreamKeys, TAG_LEN, open_chunk};
use waybill_protocol::ids::SessionId;

use super::scene::OrFail as _;
use crate::failure::Failure;

/// Plaintext bytes of the chunk, under either key. Units: bytes.
pub const PLAIN_BYTES: u64 = 1024;
const BLOCKS: usize = PLAIN_BYTES as usize / 16;

/// What GCM derives from a key and a nonce: the hash key and the mask of the tag.
struct Gcm {
    hash_key: u128,
    mask: u128,
}

/// x * y in GF(2^128), in GCM's order of bits.
fn multiply(x: u128, y: u128) -> u128 {
    let (mut product, mut v) = (0, y);
    for bit in (0..128).rev() {
        if (x >> bit) & 1 == 1 {
            product ^= v;
        }
        let carry = v & 1;
        v >>= 1;
        if carry == 1 {
            v ^= 0xe1 << 120;
        }
    }
    product
}

/// x^n.
fn power(x: u128, mut n: u128) -> u128 {
    // The one of this field is the first bit.
    let (mut result, mut base) = (1 << 127, x);
    while n > 0 {
        if n & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        n >>= 1;
    }
    result
}

/// 1 / x: x^(2^128 - 2).
fn inverse(x: u128) -> u128 {
    power(x, u128::MAX - 1)
}

fn tag(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8]) -> u128 {
    u128::from_be_bytes(Native.aead_seal(key, nonce, aad, &mut []))
}

impl Gcm {
    /// From two tags over nothing: of no additional data the tag is the mask; of one zero block it is L * H + mask.
    fn of(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let mask = tag(key, nonce, &[]);
        let lengths: u128 = 128 << 64;
        let hash_key = multiply(tag(key, nonce, &[0; 16]) ^ mask, inverse(lengths));
        Self { hash_key, mask }
    }

    /// The tag over blocks, the length block among them.
    fn tag(&self, blocks: &[u128]) -> u128 {
        blocks.iter().fold(0, |sum, block| multiply(sum ^ block, self.hash_key)) ^ self.mask
    }
}

/// Makes a chunk 0, the last of its stream, that opens under both keys of a session; and has opened it under both.
///
/// # Errors
/// [`Failure`] when it does not open under both: then there is no attack.
pub fn two_key_chunk(one: &RecordKey, two: &RecordKey, session: &SessionId) -> Result<Vec<u8>, Failure> {
    let gcm = |key: &RecordKey| {
        // The derivation of docs/PROTOCOL.md section 3.6; chunk 0 has the unchanged nonce.
        let prk = hkdf::extract(session.0.as_bytes(), key.expose());
        Gcm::of(&hkdf::expand(&prk, b"waybill/1 key"), &hkdf::expand(&prk, b"waybill/1 iv"))
    };
    let (first, second) = (gcm(one), gcm(two));
    let mut aad = session.as_bytes().to_vec();
    aad.extend([0; 8]);
    aad.push(1);
    let aad_bits = aad.len() as u128 * 8;
    aad.resize(48, 0);
    let block = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("a block has 16 bytes"));
    let mut blocks: Vec<u128> = aad.chunks(16).map(block).collect();
    let mut noise = vec![0; PLAIN_BYTES as usize];
    Native.random(&mut noise);
    blocks.extend(noise.chunks(16).map(block));
    let free = blocks.len() - 1;
    blocks[free] = 0;
    blocks.push((aad_bits << 64) | (u128::from(PLAIN_BYTES) * 8));
    // The free block stands before the length block: it is multiplied by H^2.
    let difference = first.tag(&blocks) ^ second.tag(&blocks);
    let slope = multiply(first.hash_key, first.hash_key) ^ multiply(second.hash_key, second.hash_key);
    blocks[free] = multiply(difference, inverse(slope));
    let tag = first.tag(&blocks);

    let mut chunk = vec![0; HEADER_LEN];
    let length = u32::try_from(PLAIN_BYTES as usize + TAG_LEN).expect("a short chunk");
    chunk[9..].copy_from_slice(&length.to_be_bytes());
    chunk.extend(blocks[3..3 + BLOCKS].iter().flat_map(|block| block.to_be_bytes()));
    chunk.extend(tag.to_be_bytes());
    for key in [one, two] {
        let keys = StreamKeys::derive(&session.0, key);
        let mut copy = chunk.clone();
        open_chunk(&Native, &keys, &session.0, 0, true, &mut copy)
            .or_fail("the chunk does not open under both keys")?;
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::keys::Digest;

    #[test]
    fn one_ciphertext_opens_under_two_keys_to_two_plaintexts() {
        let (one, two) = (RecordKey::from_bytes([1; 32]), RecordKey::from_bytes([2; 32]));
        let session = SessionId(Digest([3; 32]));
        let chunk = two_key_chunk(&one, &two, &session).unwrap();
        let plain = |key: &RecordKey| {
            let mut copy = chunk.clone();
            let keys = StreamKeys::derive(&session.0, key);
            open_chunk(&Native, &keys, &session.0, 0, true, &mut copy).unwrap().to_vec()
        };
        assert_ne!(plain(&one), plain(&two));
        let keys = [&one, &two].map(|key| StreamKeys::derive(&session.0, key).commitment());
        assert_ne!(keys[0], keys[1], "the commitment tells them apart");
    }
}
