//! The transparency log: notes, checkpoints, cosignatures, the witness' request, tiles and proofs.

use std::str::FromStr as _;

use waybill_crypto::keys::Digest;
use waybill_crypto::merkle;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::log::note::{self, Note};
use waybill_protocol::log::tiles::{
    LogEdge, TILE_WIDTH, TileId, TileKind, TilePath, TileSet, parse_bundle, tiles_for_consistency, tiles_for_inclusion,
};
use waybill_protocol::log::witness::{
    AddCheckpoint, MAX_ADD_CHECKPOINT_BYTES, WitnessState, accept_cosignature, handle_add_checkpoint, judge_conflict,
};
use waybill_protocol::log::{Checkpoint, MAX_NOTE_BYTES, MAX_PROOF_HASHES, NoteKey, open_signed, verify_consistency};

use crate::fixture;

/// A signed note; its text once more, signed by log and witness; and the whole as the text of a verifier key.
pub fn note(data: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = NoteKey::from_str(text)
    {
        // Base64 of the same bytes is one text, so a key has one form.
        assert_eq!(key.to_string(), text, "a key reads back");
    }
    let parsed = Note::parse(data);
    let text = match &parsed {
        Ok(note) => {
            assert!(data.len() <= MAX_NOTE_BYTES && note.text().ends_with('\n'));
            assert!(data.starts_with(note.text().as_bytes()), "the text stands in the note");
            let _ = fixture::policy().verify(fixture::backend(), data);
            Some(note.text())
        }
        Err(_) => std::str::from_utf8(data).ok(),
    };
    if let Some(text) = text {
        signed_by_all(text);
    }
    parsed.is_ok()
}

/// Any text under the right signatures is taken exactly if it is a checkpoint of this log.
fn signed_by_all(text: &str) {
    let (backend, log, witness) = (fixture::backend(), fixture::log_signer(), fixture::witness_signer());
    let checkpoint = Checkpoint::parse(text);
    if let Ok(checkpoint) = &checkpoint {
        assert_eq!(checkpoint.to_text(), text, "a checkpoint reads back");
    }
    let lines = [log.sign(backend, text, Timestamp(0)), witness.sign(backend, text, Timestamp(7))];
    let signed = note::assemble(text, &lines);
    let printable = !text.chars().any(|c| c < ' ' && c != '\n');
    let expected = checkpoint.as_ref().is_ok_and(|c| c.origin == *log.public().name())
        && signed.len() <= MAX_NOTE_BYTES
        && printable;
    let verified = fixture::policy().verify(backend, &signed);
    assert_eq!(verified.is_ok(), expected, "{verified:?}");
    if let (Ok(verified), Ok(checkpoint)) = (verified, checkpoint) {
        assert_eq!((verified.checkpoint(), verified.cosigned_at()), (&checkpoint, Timestamp(7)));
        let alone = note::assemble(text, &lines[..1]);
        assert!(open_signed(backend, log.public(), &alone).is_ok());
        assert!(fixture::policy().verify(backend, &alone).is_err(), "taken without its witness");
        // A log of no leaves has one root; another one is believed of nobody by anybody: nothing is in it, and no witness takes it.
        let possible = checkpoint.size > 0 || checkpoint.root == merkle::empty_root();
        assert_eq!(
            verify_consistency(&checkpoint, &checkpoint, &[]).is_ok(),
            possible,
            "a log is consistent with itself"
        );
    }
}

/// What a log posts to a witness, and what a witness answers.
pub fn add_checkpoint(data: &[u8]) -> bool {
    let (backend, log, witness) = (fixture::backend(), fixture::log_signer(), fixture::witness_signer());
    let _ = judge_conflict(5, data);
    let base = Checkpoint { origin: log.public().name().clone(), size: 0, root: merkle::empty_root() };
    if let Ok(note) = accept_cosignature(backend, witness.public(), &base.sign(backend, &log), data) {
        assert!(fixture::policy().verify(backend, &note).is_ok(), "accepted, and not good for the policy");
    }
    let Ok(request) = AddCheckpoint::parse(data) else { return false };
    assert!(data.len() <= MAX_ADD_CHECKPOINT_BYTES && request.proof.len() <= MAX_PROOF_HASHES);
    assert_eq!(request.to_bytes(), data, "a request reads back");
    let fresh = WitnessState::default();
    let mut states = vec![fresh.clone()];
    if let Ok(note) = Note::parse(&request.note)
        && let Ok(checkpoint) = Checkpoint::parse(note.text())
    {
        states.push(WitnessState { size: checkpoint.size, root: checkpoint.root });
    }
    for state in states {
        let Ok(done) = handle_add_checkpoint(&state, log.public(), &request, Timestamp(7), &witness, backend) else {
            continue;
        };
        assert!(done.state.size >= state.size, "a witness went back");
        assert!(done.state.size > state.size || done.state.root == state.root, "a witness cosigned a fork");
        let whole = accept_cosignature(backend, witness.public(), &request.note, done.line.as_bytes());
        // The request's note may already carry as many signatures as fit.
        assert!(whole.is_ok() || request.note.len() + done.line.len() > 1024, "an own cosignature is accepted");
    }
    true
}

/// A tile's name, a bundle, and a tile's bytes.
pub fn tile(data: &[u8]) -> bool {
    let name = std::str::from_utf8(data).ok().and_then(|text| TilePath::from_str(text).ok().map(|path| (text, path)));
    if let Some((text, path)) = name {
        assert_eq!(path.to_string(), text, "a tile's name reads back");
        assert!((1..=TILE_WIDTH).contains(&path.width));
        assert!(path.id.width(u64::MAX) <= TILE_WIDTH && path.id.width(0) == 0);
    }
    let bundle = parse_bundle(data);
    if let Ok(entries) = &bundle {
        assert!((1..=TILE_WIDTH).contains(&entries.len()));
        let rebuilt: Vec<u8> = entries.iter().flat_map(|entry| [0, 32].into_iter().chain(*entry)).collect();
        assert_eq!(rebuilt, data, "a bundle reads back");
        proves_itself(entries);
    }
    let id = TileId { kind: TileKind::Hashes(0), index: 0 };
    let mut tiles = TileSet::new();
    let taken = tiles.insert(id, data).is_ok();
    if taken {
        let hashes: Vec<Digest> = data.chunks_exact(32).map(|h| Digest::try_from(h).expect("32 bytes")).collect();
        assert_eq!(tiles.root(hashes.len() as u64).ok(), Some(merkle::root(&hashes)), "the root is the tree's");
        assert!(tiles.root(hashes.len() as u64 + 1).is_err(), "a root over what is not there");
    }
    name.is_some() || bundle.is_ok() || taken
}

/// A log made of these entries proves each of them, and that it only grew.
fn proves_itself(entries: &[[u8; 32]]) {
    let cut = entries.len() / 2;
    let mut edge = LogEdge::empty();
    let (mut tiles, mut roots) = (TileSet::new(), Vec::new());
    for part in [&entries[..cut], &entries[cut..]] {
        let appended = edge.append(part);
        for (path, bytes) in &appended.tiles {
            if path.id.kind != TileKind::Entries {
                tiles.insert(path.id, bytes).expect("what is written is a tile");
            }
        }
        edge = appended.edge;
        assert_eq!(edge.root(), appended.root);
        roots.push((edge.size(), edge.root()));
    }
    let (size, root) = (edge.size(), edge.root());
    assert_eq!(tiles.root(size).ok(), Some(root));
    for index in [0, size / 2, size - 1] {
        let path = tiles.prove_inclusion(index, size).expect("every tile is there");
        let leaf = merkle::leaf_hash(&entries[index as usize]);
        merkle::verify_inclusion(&leaf, index, size, &path, &root).expect("what is in the log is shown to be");
    }
    if let [(old, old_root), _] = roots[..]
        && old > 0
    {
        let proof = tiles.prove_consistency(old, size).expect("every tile is there");
        merkle::verify_consistency(old, &old_root, size, &root, &proof).expect("a log that grew is shown to have");
    }
}

/// Proofs with any numbers and hashes: two numbers, a root, a leaf or an older root, and the path.
pub fn proof(data: &[u8]) -> bool {
    let Some((numbers, rest)) = data.split_at_checked(16) else { return false };
    let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
    let (small, large) = (number(0), number(8));
    let hashes: Vec<Digest> = rest.chunks_exact(32).map(|h| Digest::try_from(h).expect("32 bytes")).collect();
    for tiles in [tiles_for_inclusion(small, large), tiles_for_consistency(small, large)] {
        assert!(tiles.len() <= 2 * MAX_PROOF_HASHES, "a proof of too many tiles");
        assert!(tiles.iter().all(|id| id.width(large) > 0), "a tile that does not exist");
    }
    let tiles = TileSet::new();
    let _ = (tiles.prove_inclusion(small, large), tiles.prove_consistency(small, large), tiles.root(large));
    let [root, other, path @ ..] = hashes.as_slice() else { return false };
    let included = merkle::verify_inclusion(other, small, large, path, root).is_ok();
    assert!(!included || (small < large && path.len() <= MAX_PROOF_HASHES), "included beyond the end");
    let consistent = merkle::verify_consistency(small, other, large, root, path).is_ok();
    assert!(!consistent || (small <= large && path.len() <= MAX_PROOF_HASHES), "consistent backwards");
    assert!(!consistent || small != large || (root == other && path.is_empty()), "two roots of one size");
    included || consistent
}
