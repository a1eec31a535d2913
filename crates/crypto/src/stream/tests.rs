use super::*;
use crate::{merkle, portable::Portable};

const SESSION: Digest = Digest([7; 32]);

fn keys() -> StreamKeys {
    StreamKeys::derive(&SESSION, &RecordKey([1; 32]))
}

fn backend() -> Portable {
    Portable::from_seed([0; 32])
}

/// Cuts and seals a plaintext as a source does.
fn seal_all(plaintext: &[u8]) -> Vec<Blob> {
    let chunks: Vec<&[u8]> = if plaintext.is_empty() { vec![&[]] } else { plaintext.chunks(CHUNK_SIZE).collect() };
    let last = chunks.len() - 1;
    let seal = |(index, chunk): (usize, &&[u8])| {
        seal_chunk(&backend(), &keys(), &SESSION, index as u64, index == last, &mut chunk.to_vec()).unwrap()
    };
    chunks.iter().enumerate().map(seal).collect()
}

fn open_all(blobs: &[Blob]) -> Result<Vec<u8>, StreamError> {
    let mut plaintext = Vec::new();
    for (index, blob) in blobs.iter().enumerate() {
        let mut bytes = blob.as_bytes().to_vec();
        let last = index + 1 == blobs.len();
        plaintext.extend_from_slice(open_chunk(&backend(), &keys(), &SESSION, index as u64, last, &mut bytes)?);
    }
    Ok(plaintext)
}

#[test]
fn every_length_around_a_chunk_reads_back() {
    for length in [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE] {
        let plaintext: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let blobs = seal_all(&plaintext);
        assert_eq!(blobs.len(), length.div_ceil(CHUNK_SIZE).max(1));
        assert!(blobs.iter().all(|blob| blob.as_bytes().len() <= MAX_BLOB_LEN));
        assert!(open_all(&blobs).unwrap() == plaintext, "length {length}");
    }
}

#[test]
fn leaf_is_the_hash_of_the_blob_and_of_the_specified_fields() {
    let blob = seal_all(b"abc").remove(0);
    assert_eq!(blob.leaf(), leaf(blob.as_bytes()));
    let ciphertext = &blob.as_bytes()[HEADER_LEN..];
    assert_eq!(blob.leaf(), sha256(&[&[0], &0_u64.to_be_bytes(), &19_u32.to_be_bytes(), ciphertext]));
}

#[test]
fn truncation_shows_in_the_last_flag() {
    let mut blobs = seal_all(&vec![5; 2 * CHUNK_SIZE]);
    blobs.pop();
    assert_eq!(open_all(&blobs), Err(StreamError::Seal));
}

#[test]
fn extension_shows_in_the_last_flag() {
    let mut blobs = seal_all(&vec![5; CHUNK_SIZE]);
    let more = seal_chunk(&backend(), &keys(), &SESSION, 1, true, &mut b"more".to_vec()).unwrap();
    blobs.push(more);
    assert_eq!(open_all(&blobs), Err(StreamError::Seal));
}

#[test]
fn reordered_chunks_do_not_open_even_with_a_forged_header() {
    let mut blobs = seal_all(&vec![5; 3 * CHUNK_SIZE]);
    blobs.swap(0, 1);
    assert_eq!(open_all(&blobs), Err(StreamError::Header));
    for (index, blob) in blobs.iter_mut().enumerate() {
        blob.bytes[1..9].copy_from_slice(&(index as u64).to_be_bytes());
    }
    assert_eq!(open_all(&blobs), Err(StreamError::Seal));
}

#[test]
fn another_session_key_or_flipped_bit_does_not_open() {
    let blob = seal_all(b"abc").remove(0);
    let open = |keys: &StreamKeys, session: &Digest, last: bool, flip: Option<usize>| {
        let mut bytes = blob.as_bytes().to_vec();
        if let Some(position) = flip {
            bytes[position] ^= 1;
        }
        open_chunk_range(&backend(), keys, session, 0, last, &mut bytes)
    };
    assert_eq!(open(&keys(), &SESSION, true, None), Ok(HEADER_LEN..HEADER_LEN + 3));
    assert_eq!(open(&keys(), &Digest([8; 32]), true, None), Err(StreamError::Seal));
    let other = StreamKeys::derive(&SESSION, &RecordKey([2; 32]));
    assert_eq!(open(&other, &SESSION, true, None), Err(StreamError::Seal));
    for position in 0..blob.as_bytes().len() {
        let expected = if position < HEADER_LEN { StreamError::Header } else { StreamError::Seal };
        assert_eq!(open(&keys(), &SESSION, true, Some(position)), Err(expected));
    }
}

#[test]
fn a_short_chunk_that_is_not_the_last_is_refused_both_ways() {
    let sealed = seal_chunk(&backend(), &keys(), &SESSION, 0, false, &mut b"abc".to_vec());
    assert_eq!(sealed.unwrap_err(), StreamError::Length);
    let mut bytes = seal_all(b"abc").remove(0).into_bytes();
    assert_eq!(open_chunk_range(&backend(), &keys(), &SESSION, 0, false, &mut bytes), Err(StreamError::Length));
}

#[test]
fn limits_of_length_and_index_hold() {
    let long = seal_chunk(&backend(), &keys(), &SESSION, 0, true, &mut vec![0; CHUNK_SIZE + 1]);
    assert_eq!(long.unwrap_err(), StreamError::Length);
    let far = seal_chunk(&backend(), &keys(), &SESSION, MAX_CHUNKS, true, &mut Vec::new());
    assert_eq!(far.unwrap_err(), StreamError::TooManyChunks);
    let far = open_chunk_range(&backend(), &keys(), &SESSION, MAX_CHUNKS, true, &mut [0; 64]);
    assert_eq!(far, Err(StreamError::TooManyChunks));
    let long = open_chunk_range(&backend(), &keys(), &SESSION, 0, true, &mut vec![0; MAX_BLOB_LEN + 1]);
    assert_eq!(long, Err(StreamError::Length));
    for length in 0..HEADER_LEN + TAG_LEN {
        let opened = open_chunk_range(&backend(), &keys(), &SESSION, 0, true, &mut vec![0; length]);
        assert_eq!(opened, Err(StreamError::Header));
    }
}

#[test]
fn nonces_differ_by_index() {
    let keys = keys();
    assert_eq!(keys.nonce(0), keys.iv);
    let distinct: std::collections::BTreeSet<_> =
        [0, 1, 255, 256, 1 << 31, MAX_CHUNKS - 1].map(|index| keys.nonce(index)).into();
    assert_eq!(distinct.len(), 6);
}

#[test]
fn a_buffer_of_full_capacity_is_sealed_where_it_lies() {
    let mut buf = Vec::with_capacity(MAX_BLOB_LEN);
    buf.resize(CHUNK_SIZE, 1);
    let place = buf.as_ptr();
    let blob = seal_chunk(&backend(), &keys(), &SESSION, 0, true, &mut buf).unwrap();
    assert_eq!(blob.as_bytes().as_ptr(), place);
    assert!(buf.is_empty());
}

#[test]
fn merkle_builder_makes_the_root_of_the_leaves() {
    let leaves: Vec<_> = (0..9_u8).map(|i| sha256(&[&[i]])).collect();
    let mut builder = MerkleBuilder::new();
    leaves.iter().for_each(|leaf| builder.append(*leaf));
    assert_eq!(builder.root(), merkle_root(&leaves));
    assert_eq!(merkle_root(&leaves[..1]), leaves[0]);
    assert_eq!(merkle_root(&leaves[..2]), merkle::node_hash(&leaves[0], &leaves[1]));
    assert_ne!(merkle_root(&leaves[..8]), merkle_root(&leaves));
}

#[test]
fn padme_matches_its_definition() {
    for (length, padded) in
        [(0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (10, 10), (11, 12), (100, 104), (1000, 1024)]
    {
        assert_eq!(padme(length), padded, "length {length}");
    }
    assert_eq!(padme((1 << 30) + 1), (1 << 30) + (1 << 25));
}

proptest::proptest! {
    #[test]
    fn padme_never_shrinks_adds_at_most_12_percent_and_is_idempotent(length in 0..u64::MAX / 4) {
        let padded = padme(length);
        proptest::prop_assert!(padded >= length);
        proptest::prop_assert!(padded - length <= length / 8);
        proptest::prop_assert_eq!(padme(padded), padded);
    }

    #[test]
    fn arbitrary_bytes_never_open_nor_panic(mut bytes: Vec<u8>, index: u64, last: bool) {
        proptest::prop_assert!(open_chunk_range(&backend(), &keys(), &SESSION, index, last, &mut bytes).is_err());
    }
}

#[test]
fn debug_shows_no_key() {
    let keys = keys();
    let shown = format!("{keys:?} {:?}", RecordKey([0xa5; 32]));
    assert!(!shown.contains(&hex::encode(keys.key.as_slice())) && !shown.contains(&"a5".repeat(32)));
    assert!(shown.contains("redacted"));
}

/// The attack that the key commitment is for: one ciphertext that opens under two keys.
mod two_keys {
    use aes_gcm::aes::{
        Aes256,
        cipher::{BlockCipherEncrypt as _, KeyInit as _},
    };

    use super::*;

    /// AES-256 of one block, as the number that GHASH reads.
    fn block(key: &[u8; 32], input: [u8; 16]) -> u128 {
        let mut block = input.into();
        Aes256::new(key.into()).encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }

    /// Product in GHASH's field (NIST SP 800-38D section 6.3).
    fn multiply(x: u128, mut y: u128) -> u128 {
        let mut product = 0;
        for bit in (0..128).rev() {
            if x >> bit & 1 == 1 {
                product ^= y;
            }
            y = (y >> 1) ^ if y & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        product
    }

    /// x^(2^128 - 2), the inverse.
    fn invert(x: u128) -> u128 {
        let (mut power, mut result) = (multiply(x, x), 1 << 127);
        for _ in 1..128 {
            result = multiply(result, power);
            power = multiply(power, power);
        }
        result
    }

    struct Gcm {
        hash_key: u128,
        mask: u128,
    }

    impl Gcm {
        fn new(keys: &StreamKeys) -> Self {
            let mut counter = [0; 16];
            counter[..12].copy_from_slice(&keys.nonce(0));
            counter[15] = 1;
            Self { hash_key: block(&keys.key, [0; 16]), mask: block(&keys.key, counter) }
        }

        /// The tag as a number, over whole blocks of additional data and ciphertext and then their lengths.
        fn tag(&self, aad: &[u8], ciphertext: &[u8]) -> u128 {
            let blocks = aad.chunks(16).chain(ciphertext.chunks(16)).map(|chunk| {
                let mut padded = [0; 16];
                padded[..chunk.len()].copy_from_slice(chunk);
                u128::from_be_bytes(padded)
            });
            let lengths = (aad.len() as u128 * 8) << 64 | (ciphertext.len() as u128 * 8);
            let hash = blocks.chain([lengths]).fold(0, |sum, block| multiply(sum ^ block, self.hash_key));
            hash ^ self.mask
        }
    }

    #[test]
    fn a_ciphertext_that_opens_under_two_keys_is_caught_by_the_key_commitment() {
        let pair = [1, 2].map(|key| StreamKeys::derive(&SESSION, &RecordKey([key; 32])));
        let [one, two] = [Gcm::new(&pair[0]), Gcm::new(&pair[1])];
        let aad = additional_data(&SESSION, 0, true);
        // The tags differ by a number that is linear in the last block: solve for the block that makes it zero.
        let mut ciphertext = [0x5a; 32];
        ciphertext[16..].fill(0);
        let difference = one.tag(&aad, &ciphertext) ^ two.tag(&aad, &ciphertext);
        let factor = multiply(one.hash_key, one.hash_key) ^ multiply(two.hash_key, two.hash_key);
        ciphertext[16..].copy_from_slice(&multiply(difference, invert(factor)).to_be_bytes());
        let tag = one.tag(&aad, &ciphertext).to_be_bytes();
        let blob = [header(0, 48).as_slice(), &ciphertext, &tag].concat();

        // It opens under both keys, with different plaintexts and the same leaf: only the commitment tells them apart.
        let opened = pair.each_ref().map(|keys| {
            let mut bytes = blob.clone();
            open_chunk(&backend(), keys, &SESSION, 0, true, &mut bytes).unwrap().to_vec()
        });
        assert_ne!(opened[0], opened[1]);
        assert!(pair[0].match_commitment(&pair[0].commitment()));
        assert!(!pair[1].match_commitment(&pair[0].commitment()));
    }
}
