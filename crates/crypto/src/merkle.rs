//! The Merkle tree of RFC 9162 section 2.1 (the same as RFC 6962's): hashing, and proofs made and verified.
//!
//! Own code: the one kept library for this (`ct-merkle`) holds the tree in memory, while a log reads it from tiles. The proofs
//! are made against a [`HashReader`], verified against nothing but their input.

use thiserror::Error;

use crate::digest::{Digest, sha256};

/// The most hashes a proof can have: a tree has at most 2^63 leaves here.
pub const MAX_PROOF_HASHES: usize = 63;

/// Why a proof does not show what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MerkleError {
    /// The leaf index is not below the tree size, or the first tree is larger than the second.
    #[error("index or tree sizes are out of range")]
    Range,
    /// The proof has more or fewer hashes than the shape of the tree asks for.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// The hashes do not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// SHA-256(00 || data). Source: RFC 9162 section 2.1.1.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Digest {
    sha256(&[&[0], data])
}

/// SHA-256(01 || left || right). Source: RFC 9162 section 2.1.1.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}

/// The root over leaf hashes that lie in memory.
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    let mut builder = TreeBuilder::new();
    for leaf in leaves {
        builder.append(*leaf);
    }
    builder.root()
}

/// Computes a root leaf by leaf, keeping one hash a level: the roots of the complete subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeBuilder {
    size: u64,
    peaks: Vec<Digest>,
}

impl TreeBuilder {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf hash.
    pub fn append(&mut self, leaf: Digest) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is a peak for every bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// How many leaves were appended.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of what was appended so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Where the hashes of complete subtrees are read from.
///
/// Guarantees: `read(level, index)` is the root of the 2^level leaves that begin at leaf `index * 2^level`; it is asked only for
/// subtrees that lie wholly inside the tree for which a proof is made.
pub trait HashReader {
    /// Why a hash cannot be had.
    type Error;
    /// The root of one complete subtree.
    ///
    /// # Errors
    /// Whatever the storage behind it reports.
    fn read(&mut self, level: u8, index: u64) -> Result<Digest, Self::Error>;
}

/// Why a proof was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError<E> {
    /// The leaf index is not below the tree size, or the first tree is larger than the second.
    #[error("index or tree sizes are out of range")]
    Range,
    /// The storage behind the reader failed.
    #[error("a tree hash could not be read")]
    Read(E),
}

/// The root of the leaves `low..high`; empty ranges have the empty root.
fn range_root<R: HashReader>(reader: &mut R, low: u64, high: u64) -> Result<Digest, R::Error> {
    if low >= high {
        return Ok(empty_root());
    }
    // The complete subtrees of the range, left to right; each is aligned because `low` is a multiple of the first one's size.
    let mut peaks = Vec::new();
    let mut start = low;
    while start < high {
        let level = (high - start).ilog2();
        peaks.push(reader.read(u8::try_from(level).expect("a u64 has 64 bits"), start >> level)?);
        start += 1 << level;
    }
    let last = peaks.pop().expect("a range that is not empty has a subtree");
    Ok(peaks.iter().rev().fold(last, |right, left| node_hash(left, &right)))
}

/// The root of the first `size` leaves.
///
/// # Errors
/// The reader's.
pub fn tree_root<R: HashReader>(reader: &mut R, size: u64) -> Result<Digest, R::Error> {
    range_root(reader, 0, size)
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The audit path of the leaf `index` in the tree of the first `size` leaves, lowest hash first. Source: RFC 9162 section 2.1.3.1.
///
/// # Errors
/// [`ProofError`].
pub fn inclusion_proof<R: HashReader>(
    reader: &mut R,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, ProofError<R::Error>> {
    if index >= size || size > 1 << 63 {
        return Err(ProofError::Range);
    }
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        let sibling = if index < middle {
            let sibling = range_root(reader, middle, high);
            high = middle;
            sibling
        } else {
            let sibling = range_root(reader, low, middle);
            low = middle;
            sibling
        };
        path.push(sibling.map_err(ProofError::Read)?);
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of the first `old` leaves is a prefix of that of the first `new`. Source: RFC 9162 section 2.1.4.1.
///
/// # Errors
/// [`ProofError`].
pub fn consistency_proof<R: HashReader>(
    reader: &mut R,
    old: u64,
    new: u64,
) -> Result<Vec<Digest>, ProofError<R::Error>> {
    if old > new || new > 1 << 63 {
        return Err(ProofError::Range);
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut low, mut high) = (0, new);
    let mut proof = Vec::new();
    // Descend to the subtree whose right end is the old tree's.
    while high != old {
        let middle = low + split(high - low);
        let sibling = if old <= middle {
            let sibling = range_root(reader, middle, high);
            high = middle;
            sibling
        } else {
            let sibling = range_root(reader, low, middle);
            low = middle;
            sibling
        };
        proof.push(sibling.map_err(ProofError::Read)?);
    }
    // The verifier knows that subtree's root already when it is the whole old tree.
    if low != 0 {
        proof.push(range_root(reader, low, high).map_err(ProofError::Read)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Verifies that `leaf` is the leaf hash at `index` of the tree of `size` leaves with this root.
///
/// # Errors
/// [`MerkleError`]; no input panics. Source: RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    path: &[Digest],
    root: &Digest,
) -> Result<(), MerkleError> {
    if index >= size {
        return Err(MerkleError::Range);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(MerkleError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(MerkleError::Length);
    }
    if hash == *root { Ok(()) } else { Err(MerkleError::Root) }
}

/// Verifies that the tree of `old` leaves is a prefix of the tree of `new` leaves.
///
/// # Errors
/// [`MerkleError`]; no input panics. Source: RFC 9162 section 2.1.4.2; the empty tree is a prefix of every tree, by an empty proof.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), MerkleError> {
    if old > new {
        return Err(MerkleError::Range);
    }
    if old == 0 || old == new {
        if !proof.is_empty() {
            return Err(MerkleError::Length);
        }
        let same = if old == new { old_root == new_root } else { *old_root == empty_root() };
        return if same && (new != 0 || *new_root == empty_root()) { Ok(()) } else { Err(MerkleError::Root) };
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut rest = proof.iter();
    let start = if old.is_power_of_two() { *old_root } else { *rest.next().ok_or(MerkleError::Length)? };
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in rest {
        if last == 0 {
            return Err(MerkleError::Length);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(MerkleError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(MerkleError::Root) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 9162 section 2.1.1, word for word.
    fn reference_root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node_hash(&reference_root(&leaves[..k]), &reference_root(&leaves[k..]))
            }
        }
    }

    struct InMemory(Vec<Digest>);

    impl HashReader for InMemory {
        type Error = Infallible;

        fn read(&mut self, level: u8, index: u64) -> Result<Digest, Infallible> {
            let width = 1_usize << level;
            let start = usize::try_from(index).unwrap() * width;
            Ok(reference_root(&self.0[start..start + width]))
        }
    }

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf_hash(&(i as u64).to_be_bytes())).collect()
    }

    /// The eight leaves that the RFC 6962 reference implementation tests itself with.
    fn known_leaves() -> Vec<Digest> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|data| leaf_hash(&hex::decode(data).unwrap()))
            .collect()
    }

    fn hash(text: &str) -> Digest {
        text.parse().unwrap()
    }

    #[test]
    fn known_roots_of_the_reference_implementation() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = known_leaves();
        for (i, expected) in roots.iter().enumerate() {
            assert_eq!(root(&leaves[..=i]), hash(expected), "size {}", i + 1);
        }
        assert_eq!(empty_root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }

    #[test]
    fn known_paths_of_the_reference_implementation() {
        let mut reader = InMemory(known_leaves());
        assert_eq!(
            inclusion_proof(&mut reader, 0, 8).unwrap(),
            [
                hash("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                hash("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                hash("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ]
        );
        assert_eq!(
            consistency_proof(&mut reader, 6, 8).unwrap(),
            [
                hash("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"),
                hash("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                hash("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ]
        );
    }

    #[test]
    fn every_leaf_of_sizes_around_powers_of_two_is_proven_and_no_other() {
        for size in [1_usize, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33] {
            let all = leaves(size);
            let expected = reference_root(&all);
            let mut reader = InMemory(all.clone());
            let n = size as u64;
            assert_eq!(tree_root(&mut reader, n).unwrap(), expected);
            for (i, leaf) in all.iter().enumerate() {
                let path = inclusion_proof(&mut reader, i as u64, n).unwrap();
                verify_inclusion(leaf, i as u64, n, &path, &expected).unwrap();
                assert!(verify_inclusion(&leaf_hash(b"x"), i as u64, n, &path, &expected).is_err());
                assert!(verify_inclusion(leaf, i as u64 + 1, n, &path, &expected).is_err());
                let mut longer = path.clone();
                longer.push(expected);
                assert_eq!(verify_inclusion(leaf, i as u64, n, &longer, &expected), Err(MerkleError::Length));
                if let Some((_, shorter)) = path.split_last() {
                    assert_eq!(verify_inclusion(leaf, i as u64, n, shorter, &expected), Err(MerkleError::Length));
                }
            }
            assert_eq!(inclusion_proof(&mut reader, n, n), Err(ProofError::Range));
        }
    }

    #[test]
    fn every_prefix_is_proven_and_no_other() {
        let all = leaves(33);
        let mut reader = InMemory(all.clone());
        for new in 0..=33_usize {
            let new_root = reference_root(&all[..new]);
            for old in 0..=new {
                let old_root = reference_root(&all[..old]);
                let proof = consistency_proof(&mut reader, old as u64, new as u64).unwrap();
                let check = |old_root: &Digest, proof: &[Digest]| {
                    verify_consistency(old as u64, old_root, new as u64, &new_root, proof)
                };
                check(&old_root, &proof).unwrap();
                assert_eq!(check(&leaf_hash(b"other history"), &proof), Err(MerkleError::Root), "{old} {new}");
                let mut longer = proof.clone();
                longer.push(old_root);
                assert!(check(&old_root, &longer).is_err());
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(check(&old_root, shorter).is_err());
                }
            }
        }
        let root = reference_root(&all);
        assert_eq!(verify_consistency(34, &root, 33, &root, &[]), Err(MerkleError::Range));
        assert_eq!(consistency_proof(&mut reader, 34, 33), Err(ProofError::Range));
    }

    #[test]
    fn sizes_near_the_end_of_the_number_range_do_not_overflow() {
        let digest = leaf_hash(b"");
        let path = vec![digest; 70];
        for size in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1] {
            assert!(verify_inclusion(&digest, size - 1, size, &path, &digest).is_err());
            assert!(verify_consistency(size - 1, &digest, size, &digest, &path).is_err());
        }
    }

    proptest! {
        #[test]
        fn verification_never_panics(
            index: u64, size: u64, new: u64, path in prop::collection::vec(any::<[u8; 32]>().prop_map(Digest), 0..70),
        ) {
            let digest = leaf_hash(b"");
            let _ = verify_inclusion(&digest, index, size, &path, &digest);
            let _ = verify_consistency(size, &digest, new, &digest, &path);
        }

        #[test]
        fn random_sizes_are_proven(size in 1_usize..600, a: prop::sample::Index, b: prop::sample::Index) {
            let all = leaves(size);
            let expected = reference_root(&all);
            prop_assert_eq!(root(&all), expected);
            let (i, old) = (a.index(size), b.index(size + 1));
            let mut reader = InMemory(all.clone());
            let path = inclusion_proof(&mut reader, i as u64, size as u64).unwrap();
            prop_assert!(path.len() <= MAX_PROOF_HASHES);
            prop_assert_eq!(verify_inclusion(&all[i], i as u64, size as u64, &path, &expected), Ok(()));
            let proof = consistency_proof(&mut reader, old as u64, size as u64).unwrap();
            let old_root = reference_root(&all[..old]);
            prop_assert_eq!(verify_consistency(old as u64, &old_root, size as u64, &expected, &proof), Ok(()));
        }
    }
}
