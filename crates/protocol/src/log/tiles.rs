//! The log as tiles: what to write when leaves are appended, and proofs computed from tiles.
//!
//! A tile holds up to 256 hashes side by side: tile (level, index) those of the subtrees of 256^level leaves, from subtree
//! 256 * index on. Entry bundles hold the leaves themselves. Source: C2SP tlog-tiles.
//!
//! Nothing here reads storage: [`tiles_for_inclusion`] and [`tiles_for_consistency`] say which tiles a proof needs, the caller loads
//! them as it can, [`TileSet`] computes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::keys::Digest;
use waybill_crypto::merkle::{self, HashReader, ProofError, TreeBuilder};

/// How many hashes a full tile, and how many entries a full bundle, has.
pub const TILE_WIDTH: usize = 256;

/// Hashes of a tile combine into one of the next tile level after this many tree levels.
const TILE_HEIGHT: u8 = 8;

/// Tile levels of a tree of 2^63 leaves.
const MAX_TILE_LEVELS: usize = 8;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileKind {
    /// The hashes of subtrees of 256^level leaves.
    Hashes(u8),
    /// The leaves themselves.
    Entries,
}

/// Where a tile lies: what it holds, and its number from the left. The width is no part of it; see [`TilePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileId {
    /// What it holds.
    pub kind: TileKind,
    /// Its number from the left.
    pub index: u64,
}

impl TileId {
    /// How many hashes or entries this tile has in a log of `size` leaves; 0 when it does not exist yet.
    #[must_use]
    pub fn width(&self, size: u64) -> usize {
        let below = match self.kind {
            TileKind::Entries => size,
            TileKind::Hashes(level) => size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0),
        };
        let before = self.index.saturating_mul(TILE_WIDTH as u64);
        usize::try_from(below.saturating_sub(before)).unwrap_or(usize::MAX).min(TILE_WIDTH)
    }
}

/// A tile's public name: `tile/<level>/<index>[.p/<width>]` or `tile/entries/<index>[.p/<width>]`.
///
/// Bytes: the index in groups of three digits, all but the last with an `x` before it; the width only when below 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    /// Which tile.
    pub id: TileId,
    /// How many hashes or entries of it: 1 to 256.
    pub width: usize,
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let digits = self.id.index.to_string();
        let padded = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
        let groups = padded.len() / 3;
        for (i, start) in (0..padded.len()).step_by(3).enumerate() {
            let (mark, end) = if i + 1 < groups { ("x", "/") } else { ("", "") };
            write!(f, "{mark}{}{end}", &padded[start..start + 3])?;
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The text is no tile's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the name of a tile")]
pub struct TilePathError;

impl FromStr for TilePath {
    type Err = TilePathError;

    fn from_str(text: &str) -> Result<Self, TilePathError> {
        let rest = text.strip_prefix("tile/").filter(|_| text.len() <= 64).ok_or(TilePathError)?;
        let (kind, rest) = rest.split_once('/').ok_or(TilePathError)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().map_err(|_| TilePathError)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| TilePathError)?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = number.chars().filter(|c| c.is_ascii_digit()).collect();
        let path = Self { id: TileId { kind, index: digits.parse().map_err(|_| TilePathError)? }, width };
        // Writing it again settles all questions of form: groups, marks, leading zeros, signs.
        let levels_ok = !matches!(kind, TileKind::Hashes(level) if usize::from(level) >= MAX_TILE_LEVELS);
        if (1..=TILE_WIDTH).contains(&width) && levels_ok && path.to_string() == text {
            Ok(path)
        } else {
            Err(TilePathError)
        }
    }
}

/// The right edge of the log: what must be known to append, at most 255 hashes a level and 255 entries.
///
/// Bytes: CBOR, at most some 70 KiB; stored by the log with each append, in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct LogEdge {
    /// How many leaves.
    #[n(0)]
    size: u64,
    /// The hashes of the last, partial tile of each level, lowest level first.
    #[n(1)]
    levels: Vec<Vec<Digest>>,
    /// The entries of the last, partial bundle.
    #[n(2)]
    entries: Vec<Digest>,
}

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The new right edge.
    pub edge: LogEdge,
    /// The tiles and bundles to write, before a checkpoint of this size is signed.
    pub tiles: Vec<(TilePath, Vec<u8>)>,
    /// The new root.
    pub root: Digest,
}

impl LogEdge {
    /// The log without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut right: Option<Digest> = None;
        for hashes in &self.levels {
            // The complete subtrees that this level's partial tile holds, each joined to everything right of it.
            let mut end = hashes.len();
            while end > 0 {
                let width = 1 << end.trailing_zeros();
                let peak = merkle::root(&hashes[end - width..end]);
                right = Some(right.map_or(peak, |right| merkle::node_hash(&peak, &right)));
                end -= width;
            }
        }
        right.unwrap_or_else(merkle::empty_root)
    }

    /// Appends leaves: pure, so that it can be run again after a failed commit.
    #[must_use]
    pub fn append(&self, entries: &[[u8; 32]]) -> Appended {
        let mut edge = self.clone();
        let mut tiles = Vec::new();
        for entry in entries {
            edge.push(Digest(*entry), &mut tiles);
        }
        if !entries.is_empty() {
            edge.partial_tiles(&mut tiles);
        }
        Appended { root: edge.root(), edge, tiles }
    }

    fn push(&mut self, entry: Digest, tiles: &mut Vec<(TilePath, Vec<u8>)>) {
        self.entries.push(entry);
        if self.entries.len() == TILE_WIDTH {
            let id = TileId { kind: TileKind::Entries, index: self.size / TILE_WIDTH as u64 };
            tiles.push((TilePath { id, width: TILE_WIDTH }, encode_bundle(&self.entries)));
            self.entries.clear();
        }
        let mut hash = merkle::leaf_hash(entry.as_bytes());
        let mut index = self.size;
        for level in 0..MAX_TILE_LEVELS {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() < TILE_WIDTH {
                break;
            }
            index /= TILE_WIDTH as u64;
            let kind = TileKind::Hashes(u8::try_from(level).expect("there are 8 levels"));
            tiles.push((TilePath { id: TileId { kind, index }, width: TILE_WIDTH }, encode_hashes(hashes)));
            hash = merkle::root(hashes);
            hashes.clear();
        }
        self.size += 1;
    }

    /// The partial tiles at the right edge. They may be overwritten by wider ones: a wider tile begins with the narrower.
    fn partial_tiles(&self, tiles: &mut Vec<(TilePath, Vec<u8>)>) {
        for (level, hashes) in (0_u8..).zip(&self.levels) {
            if !hashes.is_empty() {
                let id = TileId {
                    kind: TileKind::Hashes(level),
                    index: self.size >> (u32::from(level + 1) * u32::from(TILE_HEIGHT)).min(63),
                };
                tiles.push((TilePath { id, width: hashes.len() }, encode_hashes(hashes)));
            }
        }
        if !self.entries.is_empty() {
            let id = TileId { kind: TileKind::Entries, index: self.size / TILE_WIDTH as u64 };
            tiles.push((TilePath { id, width: self.entries.len() }, encode_bundle(&self.entries)));
        }
    }
}

fn encode_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Entries one after the other, each behind its length as a big-endian u16.
fn encode_bundle(entries: &[Digest]) -> Vec<u8> {
    entries.iter().flat_map(|entry| [0, 32].into_iter().chain(entry.0)).collect()
}

/// Reads an entry bundle, for auditors and for rebuilding a log from its bundles.
///
/// # Errors
/// [`TileError::Malformed`] unless it is 1 to 256 entries of 32 bytes.
pub fn parse_bundle(bytes: &[u8]) -> Result<Vec<[u8; 32]>, TileError> {
    if bytes.is_empty() || bytes.len() > TILE_WIDTH * 34 || !bytes.len().is_multiple_of(34) {
        return Err(TileError::Malformed);
    }
    bytes
        .chunks_exact(34)
        .map(|entry| entry.strip_prefix(&[0, 32]).and_then(|rest| rest.try_into().ok()).ok_or(TileError::Malformed))
        .collect()
}

/// Why a tile cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TileError {
    /// A tile that the proof needs was not given, or is narrower than needed.
    #[error("a tile that the proof needs is missing")]
    Missing(TileId),
    /// The bytes are no tile.
    #[error("the bytes are no tile")]
    Malformed,
}

/// Tiles in memory, from which proofs are computed.
#[derive(Debug, Clone, Default)]
pub struct TileSet {
    tiles: BTreeMap<TileId, Vec<Digest>>,
}

impl TileSet {
    /// No tiles yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tile of hashes. A tile wider than a proof needs serves as well.
    ///
    /// # Errors
    /// [`TileError::Malformed`] unless it has 1 to 256 hashes and is no entry bundle.
    pub fn insert(&mut self, id: TileId, bytes: &[u8]) -> Result<(), TileError> {
        let fits = !bytes.is_empty() && bytes.len() <= TILE_WIDTH * 32 && bytes.len().is_multiple_of(32);
        if !fits || id.kind == TileKind::Entries {
            return Err(TileError::Malformed);
        }
        let hashes = bytes.chunks_exact(32).map(|hash| Digest::try_from(hash).expect("chunks of 32 bytes")).collect();
        self.tiles.insert(id, hashes);
        Ok(())
    }

    /// The proof that leaf `index` is in the log of `size` leaves.
    ///
    /// # Errors
    /// [`ProofError`]: out of range, or a tile is missing.
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, ProofError<TileError>> {
        merkle::inclusion_proof(&mut Reader(self), index, size)
    }

    /// The proof that the log of `old` leaves is a prefix of that of `new`.
    ///
    /// # Errors
    /// [`ProofError`]: out of range, or a tile is missing.
    pub fn prove_consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, ProofError<TileError>> {
        merkle::consistency_proof(&mut Reader(self), old, new)
    }

    /// The root of the first `size` leaves, for a check of the stored tiles against a checkpoint.
    ///
    /// # Errors
    /// [`TileError::Missing`].
    pub fn root(&self, size: u64) -> Result<Digest, TileError> {
        merkle::tree_root(&mut Reader(self), size)
    }
}

/// The tile that holds a subtree's root or the hashes under it, and where in that tile they begin and how many they are.
fn locate(level: u8, index: u64) -> (TileId, usize, usize) {
    let (tile_level, within) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
    let first = index << within;
    let start = usize::try_from(first % TILE_WIDTH as u64).expect("below 256");
    let id = TileId { kind: TileKind::Hashes(tile_level), index: first / TILE_WIDTH as u64 };
    (id, start, 1 << within)
}

struct Reader<'a>(&'a TileSet);

impl HashReader for Reader<'_> {
    type Error = TileError;

    fn read(&mut self, level: u8, index: u64) -> Result<Digest, TileError> {
        let (id, start, width) = locate(level, index);
        let hashes = self.0.tiles.get(&id).and_then(|tile| tile.get(start..start + width));
        let mut builder = TreeBuilder::new();
        for hash in hashes.ok_or(TileError::Missing(id))? {
            builder.append(*hash);
        }
        Ok(builder.root())
    }
}

/// Notes which tiles are asked for, and answers nothing of use.
#[derive(Default)]
struct Recorder(BTreeMap<TileId, ()>);

impl HashReader for Recorder {
    type Error = Infallible;

    fn read(&mut self, level: u8, index: u64) -> Result<Digest, Infallible> {
        self.0.insert(locate(level, index).0, ());
        Ok(merkle::empty_root())
    }
}

impl Recorder {
    fn tiles(self) -> Vec<TileId> {
        self.0.into_keys().collect()
    }
}

/// The tiles that [`TileSet::prove_inclusion`] needs; none when the index is out of range.
#[must_use]
pub fn tiles_for_inclusion(index: u64, size: u64) -> Vec<TileId> {
    let mut recorder = Recorder::default();
    match merkle::inclusion_proof(&mut recorder, index, size) {
        Ok(_) => recorder.tiles(),
        Err(_) => Vec::new(),
    }
}

/// The tiles that [`TileSet::prove_consistency`] needs; none when the sizes are out of range.
#[must_use]
pub fn tiles_for_consistency(old: u64, new: u64) -> Vec<TileId> {
    let mut recorder = Recorder::default();
    match merkle::consistency_proof(&mut recorder, old, new) {
        Ok(_) => recorder.tiles(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(i: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        bytes
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<[u8; 32]> {
        range.map(entry).collect()
    }

    fn grow(edge: &LogEdge, stored: &mut BTreeMap<TileId, Vec<u8>>, range: std::ops::Range<u64>) -> LogEdge {
        let appended = edge.append(&entries(range));
        for (path, bytes) in appended.tiles {
            assert_eq!(path.width, path.id.width(appended.edge.size()), "{path}");
            assert_eq!(path.to_string().parse(), Ok(path));
            stored.insert(path.id, bytes);
        }
        assert_eq!(appended.root, appended.edge.root());
        appended.edge
    }

    fn reference_root(size: u64) -> Digest {
        let leaves: Vec<Digest> = (0..size).map(|i| merkle::leaf_hash(&entry(i))).collect();
        merkle::root(&leaves)
    }

    fn load(stored: &BTreeMap<TileId, Vec<u8>>, ids: &[TileId]) -> TileSet {
        let mut set = TileSet::new();
        for id in ids {
            set.insert(*id, &stored[id]).unwrap();
        }
        set
    }

    #[test]
    fn names_follow_the_standard() {
        let path = |kind, index, width| TilePath { id: TileId { kind, index }, width }.to_string();
        assert_eq!(path(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(TileKind::Hashes(1), 0, 8), "tile/1/000.p/8");
        assert_eq!(path(TileKind::Entries, 273, 112), "tile/entries/273.p/112");
        for bad in [
            "tile/0/x001/234/067",
            "tile/0/1",
            "tile/0/0001",
            "tile/0/x000/001",
            "tile/0/001.p/256",
            "tile/0/001.p/0",
            "tile/0/001.p/01",
            "tile/00/001",
            "tile/8/001",
            "tile/-1/001",
            "tile/data/001",
            "tile/0/001/",
            "tile/0/+01",
            "0/001",
            "tile/0/",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(bad.parse::<TilePath>(), Err(TilePathError), "{bad}");
        }
    }

    #[test]
    fn appending_in_any_steps_gives_the_same_tiles_root_and_proofs() {
        let mut stored = BTreeMap::new();
        let mut edge = LogEdge::empty();
        assert_eq!(edge.root(), merkle::empty_root());
        let mut size = 0;
        for step in [1_u64, 1, 2, 251, 1, 1, 255, 256, 300, 1000] {
            edge = grow(&edge, &mut stored, size..size + step);
            size += step;
            assert_eq!(edge.root(), reference_root(size), "size {size}");
        }
        let mut at_once = BTreeMap::new();
        let one = grow(&LogEdge::empty(), &mut at_once, 0..size);
        assert_eq!(one, edge);
        assert_eq!(at_once, stored);
        let decoded: LogEdge = minicbor::decode(&minicbor::to_vec(&edge).unwrap()).unwrap();
        assert_eq!(decoded, edge);

        let root = reference_root(size);
        for index in [0, 1, 255, 256, 511, 512, size - 1] {
            let set = load(&stored, &tiles_for_inclusion(index, size));
            let path = set.prove_inclusion(index, size).unwrap();
            merkle::verify_inclusion(&merkle::leaf_hash(&entry(index)), index, size, &path, &root).unwrap();
        }
        for old in [0, 1, 2, 255, 256, 257, 512, 767, size - 1, size] {
            let set = load(&stored, &tiles_for_consistency(old, size));
            let proof = set.prove_consistency(old, size).unwrap();
            merkle::verify_consistency(old, &reference_root(old), size, &root, &proof).unwrap();
        }
        assert!(matches!(TileSet::new().prove_inclusion(0, size), Err(ProofError::Read(TileError::Missing(_)))));
        assert!(tiles_for_inclusion(size, size).is_empty());
    }

    #[test]
    fn three_levels_of_tiles_agree_with_the_definition() {
        let size = 256 * 256 + 257;
        let mut stored = BTreeMap::new();
        let edge = grow(&LogEdge::empty(), &mut stored, 0..size);
        let root = reference_root(size);
        assert_eq!(edge.root(), root);
        assert_eq!(edge.levels.len(), 3);
        let set = load(&stored, &tiles_for_inclusion(77, size));
        let path = set.prove_inclusion(77, size).unwrap();
        merkle::verify_inclusion(&merkle::leaf_hash(&entry(77)), 77, size, &path, &root).unwrap();
        let set = load(&stored, &tiles_for_consistency(300, size));
        assert_eq!(set.root(256).unwrap(), reference_root(256));
        let proof = set.prove_consistency(300, size).unwrap();
        merkle::verify_consistency(300, &reference_root(300), size, &root, &proof).unwrap();
    }

    #[test]
    fn bundles_read_back_and_malformed_ones_are_refused() {
        let appended = LogEdge::empty().append(&entries(0..3));
        let (_, bundle) = appended.tiles.iter().find(|(path, _)| path.id.kind == TileKind::Entries).unwrap();
        assert_eq!(parse_bundle(bundle).unwrap(), entries(0..3));
        let mut wrong_length = bundle.clone();
        wrong_length[1] = 31;
        for bad in [&[][..], &bundle[1..], &wrong_length, &vec![0; 34 * 257]] {
            assert_eq!(parse_bundle(bad), Err(TileError::Malformed));
        }
        let id = TileId { kind: TileKind::Hashes(0), index: 0 };
        for bad in [&[][..], &[0; 31], &[0; 32 * 257]] {
            assert_eq!(TileSet::new().insert(id, bad), Err(TileError::Malformed));
        }
        assert_eq!(
            TileSet::new().insert(TileId { kind: TileKind::Entries, index: 0 }, &[0; 32]),
            Err(TileError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn names_never_panic(text in "\\PC{0,80}", index: u64, size: u64) {
            let _ = text.parse::<TilePath>();
            let _ = tiles_for_inclusion(index, size);
            let _ = tiles_for_consistency(index, size);
        }
    }
}
