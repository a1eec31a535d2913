//! Checkpoints, evidence and witnesses together: each refusal has its case.

use proptest::prelude::*;
use waybill_crypto::keys::{Digest, Ed25519SecretKey};
use waybill_crypto::merkle;
use waybill_crypto::portable::Portable;

use super::checkpoint::open_signed;
use super::note::Note;
use super::tiles::{LogEdge, TileSet};
use super::witness::{
    AddCheckpoint, WitnessRefusal, WitnessState, accept_cosignature, handle_add_checkpoint, judge_conflict,
};
use super::*;
use crate::ids::Timestamp;

const KIND: LeafKind = LeafKind(3);
const NONCE: [u8; 16] = [9; 16];

fn backend() -> Portable {
    Portable::from_seed([1; 32])
}

fn signer(name: &str, kind: NoteKeyKind, seed: u8) -> NoteSigner {
    NoteSigner::new(KeyName::parse(name).unwrap(), kind, Ed25519SecretKey::from_bytes(&[seed; 32]))
}

fn log_signer() -> NoteSigner {
    signer("authority.example/log", NoteKeyKind::Log, 10)
}

fn witness_signer(n: u8) -> NoteSigner {
    signer(&format!("witness-{n}.example"), NoteKeyKind::Witness, 20 + n)
}

fn policy(quorum: usize) -> CheckpointPolicy {
    let witnesses = (0..3).map(|n| witness_signer(n).public().clone()).collect();
    CheckpointPolicy::new(log_signer().public().clone(), witnesses, quorum).unwrap()
}

fn message_id(n: u64) -> Digest {
    merkle::leaf_hash(&n.to_be_bytes())
}

/// A log of `size` decisions: its tiles and its checkpoint.
fn log(size: u64) -> (TileSet, Checkpoint) {
    let entries: Vec<_> = (0..size).map(|n| leaf_entry(KIND, &message_id(n), &NONCE)).collect();
    let appended = LogEdge::empty().append(&entries);
    let mut tiles = TileSet::new();
    for (path, bytes) in appended.tiles {
        if path.id.kind != tiles::TileKind::Entries {
            tiles.insert(path.id, &bytes).unwrap();
        }
    }
    let origin = log_signer().public().name().clone();
    (tiles, Checkpoint { origin, size, root: appended.root })
}

/// The signed note of a checkpoint with cosignatures of the given witnesses at the given times.
fn cosigned(checkpoint: &Checkpoint, witnesses: &[(u8, u64)]) -> Vec<u8> {
    let mut note = checkpoint.sign(&backend(), &log_signer());
    for (n, time) in witnesses {
        note.extend(witness_signer(*n).sign(&backend(), &checkpoint.to_text(), Timestamp(*time)).into_bytes());
    }
    note
}

fn evidence(size: u64, index: u64) -> LogEvidence {
    let (tiles, checkpoint) = log(size);
    let path = tiles.prove_inclusion(index, size).unwrap();
    LogEvidence { index, nonce: NONCE, path, checkpoint: cosigned(&checkpoint, &[(0, 100), (1, 90)]) }
}

#[test]
fn the_published_example_of_signed_notes_verifies() {
    let key: NoteKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    assert_eq!(key.kind(), NoteKeyKind::Log);
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let note = format!("{text}\n\u{2014} PeterNeumann {signature}\n");
    let parsed = Note::parse(note.as_bytes()).unwrap();
    assert_eq!(parsed.text(), text);
    assert_eq!(key.verify(&backend(), &parsed), Ok(Some(Timestamp(0))));
    let altered = Note::parse(note.replace("your problem,", "our problem,").as_bytes()).unwrap();
    assert_eq!(key.verify(&backend(), &altered), Err(LogError::Signature(key.name().clone())));
}

#[test]
fn keys_read_back_and_wrong_ones_are_refused() {
    for key in [log_signer().public().clone(), witness_signer(0).public().clone()] {
        assert_eq!(key.to_string().parse::<NoteKey>().unwrap(), key);
        assert_eq!(minicbor::decode::<NoteKey>(&minicbor::to_vec(&key).unwrap()).unwrap(), key);
    }
    let text = log_signer().public().to_string();
    for bad in ["", "a", "a+b", "a+00000000+AAAA", &text[1..], &text.replace("+", " "), &format!("{text}A")] {
        assert!(bad.parse::<NoteKey>().is_err(), "{bad}");
    }
    let same_key_as_witness =
        NoteKey::new(log_signer().public().name().clone(), NoteKeyKind::Witness, *log_signer().public().public_key());
    assert_ne!(same_key_as_witness.key_id(), log_signer().public().key_id());
    for bad in ["", "two words", "plus+sign", "tab\t", "line\n", &"x".repeat(129)] {
        assert!(KeyName::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn evidence_verifies_for_its_message_and_for_no_other() {
    let backend = backend();
    for (size, index) in [(1, 0), (7, 6), (8, 0), (300, 255)] {
        let evidence = evidence(size, index);
        let cosigned = evidence.verify(&backend, &policy(2), KIND, &message_id(index)).unwrap();
        assert_eq!((cosigned.checkpoint().size, cosigned.cosigned_at()), (size, Timestamp(90)));
        let bytes = minicbor::to_vec(&evidence).unwrap();
        assert_eq!(minicbor::decode::<LogEvidence>(&bytes).unwrap(), evidence);
    }
    let good = evidence(7, 3);
    let verify = |evidence: &LogEvidence| evidence.verify(&backend, &policy(2), KIND, &message_id(3)).map(|_| ());
    assert_eq!(verify(&good), Ok(()));
    assert_eq!(
        good.verify(&backend, &policy(2), KIND, &message_id(4)).map(|_| ()),
        Err(LogError::NotIncluded),
        "another message"
    );
    assert_eq!(
        good.verify(&backend, &policy(2), LeafKind(4), &message_id(3)).map(|_| ()),
        Err(LogError::NotIncluded),
        "another kind"
    );
    assert_eq!(verify(&LogEvidence { nonce: [0; 16], ..good.clone() }), Err(LogError::NotIncluded));
    assert_eq!(verify(&LogEvidence { index: 2, ..good.clone() }), Err(LogError::NotIncluded));
    assert_eq!(verify(&LogEvidence { index: 7, ..good.clone() }), Err(LogError::Range));
    let mut path = good.path.clone();
    path.pop();
    assert_eq!(verify(&LogEvidence { path, ..good.clone() }), Err(LogError::ProofLength));
    let long = LogEvidence { path: vec![message_id(0); MAX_PROOF_HASHES + 1], ..good.clone() };
    assert_eq!(verify(&long), Err(LogError::ProofLength));
    assert!(minicbor::decode::<LogEvidence>(&minicbor::to_vec(&long).unwrap()).is_err());
    assert_eq!(verify(&LogEvidence { checkpoint: vec![b'a'; MAX_NOTE_BYTES + 1], ..good }), Err(LogError::TooLarge));
}

#[test]
fn a_checkpoint_needs_the_log_and_a_quorum_of_distinct_witnesses() {
    let (_, checkpoint) = log(5);
    let verify = |quorum, note: &[u8]| policy(quorum).verify(&backend(), note).map(|c| c.cosigned_at().0);
    assert_eq!(verify(1, &cosigned(&checkpoint, &[(0, 7)])), Ok(7));
    assert_eq!(verify(2, &cosigned(&checkpoint, &[(0, 7), (1, 9), (2, 8)])), Ok(8));
    assert_eq!(verify(1, &cosigned(&checkpoint, &[])), Err(LogError::Quorum { found: 0, needed: 1 }));
    assert_eq!(verify(2, &cosigned(&checkpoint, &[(0, 7)])), Err(LogError::Quorum { found: 1, needed: 2 }));
    assert_eq!(
        verify(2, &cosigned(&checkpoint, &[(0, 7), (0, 8)])),
        Err(LogError::Quorum { found: 1, needed: 2 }),
        "one witness twice is one witness"
    );
    assert_eq!(
        verify(1, &cosigned(&checkpoint, &[(9, 7)])),
        Err(LogError::Quorum { found: 0, needed: 1 }),
        "an unknown witness is ignored and does not count"
    );
    let mut unsigned = checkpoint.to_text() + "\n";
    unsigned.push_str(&witness_signer(0).sign(&backend(), &checkpoint.to_text(), Timestamp(7)));
    assert_eq!(verify(1, unsigned.as_bytes()), Err(LogError::Unsigned));
    let impostor = signer("authority.example/log", NoteKeyKind::Log, 99);
    assert_eq!(verify(1, &checkpoint.sign(&backend(), &impostor)), Err(LogError::Unsigned), "same name, other key");
    let other = signer("other.example/log", NoteKeyKind::Log, 10);
    let of_other = Checkpoint { origin: other.public().name().clone(), ..checkpoint.clone() };
    assert_eq!(verify(1, &of_other.sign(&backend(), &other)), Err(LogError::Origin));
}

#[test]
fn a_signature_of_a_known_key_that_does_not_verify_refuses_the_note() {
    let (_, checkpoint) = log(5);
    let (_, other) = log(6);
    let backend = backend();
    let mut note = cosigned(&checkpoint, &[(0, 7)]);
    note.extend(witness_signer(1).sign(&backend, &other.to_text(), Timestamp(7)).into_bytes());
    assert_eq!(
        policy(1).verify(&backend, &note).map(|_| ()),
        Err(LogError::Signature(witness_signer(1).public().name().clone()))
    );
    let line = log_signer().sign(&backend, &other.to_text(), Timestamp(0));
    let forged = note::assemble(&checkpoint.to_text(), &[line]);
    assert_eq!(
        open_signed(&backend, log_signer().public(), &forged).map(|_| ()),
        Err(LogError::Signature(log_signer().public().name().clone()))
    );
    // A cosignature moved to another time does not verify.
    let genuine = witness_signer(0).sign(&backend, &checkpoint.to_text(), Timestamp(7));
    let moved = witness_signer(0).sign(&backend, &checkpoint.to_text(), Timestamp(8));
    assert_ne!(genuine, moved);
}

#[test]
fn policies_that_prove_nothing_are_refused() {
    let log = log_signer().public().clone();
    let witness = |n| witness_signer(n).public().clone();
    let new = |witnesses, quorum| CheckpointPolicy::new(log.clone(), witnesses, quorum).map(|_| ());
    assert_eq!(new(vec![witness(0)], 1), Ok(()));
    assert_eq!(new(vec![], 0), Err(PolicyError::Quorum));
    assert_eq!(new(vec![witness(0)], 0), Err(PolicyError::Quorum));
    assert_eq!(new(vec![witness(0)], 2), Err(PolicyError::Quorum));
    assert_eq!(new(vec![witness(0), witness(0)], 2), Err(PolicyError::Duplicate));
    let renamed =
        NoteKey::new(KeyName::parse("alias.example").unwrap(), NoteKeyKind::Witness, *witness(0).public_key());
    assert_eq!(new(vec![witness(0), renamed], 2), Err(PolicyError::Duplicate), "one key under two names");
    let own = NoteKey::new(KeyName::parse("own.example").unwrap(), NoteKeyKind::Witness, *log.public_key());
    assert_eq!(new(vec![own], 1), Err(PolicyError::Duplicate), "the log as its own witness");
    assert_eq!(new(vec![log.clone()], 1), Err(PolicyError::Kind));
    assert_eq!(CheckpointPolicy::new(witness(0), vec![witness(1)], 1).map(|_| ()), Err(PolicyError::Kind));
    assert_eq!(new((0..16).map(witness).collect(), 1), Err(PolicyError::TooMany));
    let bytes = minicbor::to_vec(policy(2)).unwrap();
    assert_eq!(minicbor::decode::<CheckpointPolicy>(&bytes).unwrap(), policy(2));
    let mut zero = bytes.clone();
    *zero.last_mut().unwrap() = 0;
    assert!(minicbor::decode::<CheckpointPolicy>(&zero).is_err());
}

#[test]
fn malformed_notes_and_checkpoints_are_refused() {
    let (_, checkpoint) = log(5);
    let note = String::from_utf8(cosigned(&checkpoint, &[(0, 7)])).unwrap();
    let line = note.lines().last().unwrap();
    let bad_notes = [
        String::new(),
        checkpoint.to_text(),
        note.trim_end().to_owned(),
        note.replace('\u{2014}', "-"),
        note.replace("\u{2014} ", "\u{2014}"),
        format!("{note}\n"),
        format!("{note}\u{2014} name \n"),
        format!("{note}\u{2014} name AAAAAA==\n"),
        format!("{note}\u{2014} name !!!!\n"),
        note.replace("authority", "author\tity"),
    ];
    for bad in &bad_notes {
        assert!(matches!(Note::parse(bad.as_bytes()), Err(LogError::Note(_))), "{bad}");
    }
    assert!(matches!(Note::parse(&[0xff, b'\n', b'\n']), Err(LogError::Note(_))));
    let many = format!("{note}{}", format!("{line}\n").repeat(MAX_SIGNATURES));
    assert_eq!(Note::parse(many.as_bytes()), Err(LogError::TooLarge));
    assert_eq!(Note::parse(&[b'\n'; 8193]), Err(LogError::TooLarge));
    assert!(matches!(Note::parse(&[b'\n'; 8192]), Err(LogError::Note(_))), "8 KiB are not too much");
    let text = checkpoint.to_text();
    assert_eq!(Checkpoint::parse(&text).unwrap(), checkpoint);
    for bad in [
        "".to_owned(),
        text.replace("\n5\n", "\n05\n"),
        text.replace("\n5\n", "\n+5\n"),
        text.replace("\n5\n", "\n\n"),
        text.replace("\n5\n", "\n18446744073709551616\n"),
        text.replace('=', ""),
        format!("{text}extension\n"),
        text.trim_end().to_owned(),
    ] {
        assert!(matches!(Checkpoint::parse(&bad), Err(LogError::Malformed(_))), "{bad:?}");
    }
}

#[test]
fn consistency_shows_growth_and_refuses_rollback_and_split_views() {
    let (tiles, five) = (log(9).0, log(5).1);
    let (_, nine) = log(9);
    let proof = tiles.prove_consistency(5, 9).unwrap();
    assert_eq!(verify_consistency(&five, &nine, &proof), Ok(()));
    assert_eq!(verify_consistency(&five, &five, &[]), Ok(()));
    assert_eq!(verify_consistency(&nine, &five, &proof), Err(LogError::RolledBack { seen: 9, offered: 5 }));
    let forked = Checkpoint { root: message_id(1), ..five.clone() };
    assert_eq!(verify_consistency(&forked, &nine, &proof), Err(LogError::Inconsistent));
    assert_eq!(verify_consistency(&forked, &five, &[]), Err(LogError::Inconsistent));
    assert_eq!(verify_consistency(&five, &nine, &proof[1..]), Err(LogError::ProofLength));
    assert_eq!(verify_consistency(&five, &nine, &[message_id(0); 64]), Err(LogError::ProofLength));
    let other = Checkpoint { origin: KeyName::parse("other").unwrap(), ..nine };
    assert_eq!(verify_consistency(&five, &other, &proof), Err(LogError::Origin));
}

/// A request that takes a witness from `old` to `new` leaves.
fn request(old: u64, new: u64) -> AddCheckpoint {
    let (tiles, checkpoint) = log(new);
    let proof = tiles.prove_consistency(old, new).unwrap();
    AddCheckpoint { old_size: old, proof, note: checkpoint.sign(&backend(), &log_signer()) }
}

fn ask(state: &WitnessState, request: &AddCheckpoint) -> Result<(WitnessState, String), WitnessRefusal> {
    let parsed = AddCheckpoint::parse(&request.to_bytes())?;
    assert_eq!(&parsed, request);
    let log_key = log_signer().public().clone();
    handle_add_checkpoint(state, &log_key, &parsed, Timestamp(50), &witness_signer(0), &backend())
        .map(|cosigned| (cosigned.state, cosigned.line))
}

#[test]
fn a_witness_follows_a_growing_log_and_its_cosignature_counts() {
    let backend = backend();
    let mut state = WitnessState::default();
    for (old, new) in [(0, 0), (0, 1), (1, 5), (5, 5), (5, 9)] {
        let request = request(old, new);
        assert_eq!(request.origin().unwrap(), *log_signer().public().name());
        let (next, line) = ask(&state, &request).unwrap();
        assert_eq!((next.size, next.root), (new, log(new).1.root));
        let note = accept_cosignature(&backend, witness_signer(0).public(), &request.note, line.as_bytes()).unwrap();
        assert_eq!(policy(1).verify(&backend, &note).unwrap().cosigned_at(), Timestamp(50));
        let bytes = minicbor::to_vec(&next).unwrap();
        state = minicbor::decode(&bytes).unwrap();
    }
}

#[test]
fn a_witness_refuses_everything_else() {
    let (state, _) = ask(&WitnessState::default(), &request(0, 5)).unwrap();
    let refusal = |request: &AddCheckpoint| ask(&state, request).unwrap_err();
    let stale = refusal(&request(0, 9));
    assert_eq!(stale, WitnessRefusal::Stale(5));
    assert_eq!((stale.status(), stale.size_body().unwrap().as_str()), (409, "5\n"));
    assert_eq!(refusal(&request(7, 9)), WitnessRefusal::Stale(5), "a witness that is behind says so");
    let smaller = AddCheckpoint { old_size: 5, proof: vec![], ..request(0, 3) };
    assert_eq!((refusal(&smaller), refusal(&smaller).status()), (WitnessRefusal::Backwards, 400));
    let rolled_back = AddCheckpoint { old_size: 3, proof: vec![], ..request(0, 3) };
    assert_eq!(refusal(&rolled_back), WitnessRefusal::Stale(5), "a log restored from an old copy");

    let sign = |checkpoint: &Checkpoint| checkpoint.sign(&backend(), &log_signer());
    let fork = Checkpoint { root: message_id(1), ..log(5).1 };
    let forked = AddCheckpoint { old_size: 5, proof: vec![], note: sign(&fork) };
    assert_eq!((refusal(&forked), refusal(&forked).status()), (WitnessRefusal::Forked(5), 409));
    let split = AddCheckpoint { note: sign(&Checkpoint { root: message_id(1), ..log(9).1 }), ..request(5, 9) };
    assert_eq!(refusal(&split), WitnessRefusal::Inconsistent(LogError::Inconsistent));
    let no_proof = AddCheckpoint { proof: vec![], ..request(5, 9) };
    assert_eq!(refusal(&no_proof), WitnessRefusal::Inconsistent(LogError::ProofLength));
    assert_eq!(refusal(&no_proof).status(), 422);

    let impostor = signer("authority.example/log", NoteKeyKind::Log, 99);
    let unsigned = AddCheckpoint { note: log(9).1.sign(&backend(), &impostor), ..request(5, 9) };
    assert_eq!(refusal(&unsigned), WitnessRefusal::Unsigned(LogError::Unsigned));
    assert_eq!(refusal(&unsigned).status(), 403);
    let other = signer("other.example/log", NoteKeyKind::Log, 98);
    let unknown = Checkpoint { origin: other.public().name().clone(), ..log(9).1 };
    let unknown = AddCheckpoint { note: unknown.sign(&backend(), &other), ..request(5, 9) };
    assert_eq!((refusal(&unknown), refusal(&unknown).status()), (WitnessRefusal::UnknownLog, 404));
    let malformed = AddCheckpoint { note: b"no note".to_vec(), ..request(5, 9) };
    assert_eq!(refusal(&malformed).status(), 400);
}

#[test]
fn malformed_requests_are_refused() {
    let good = String::from_utf8(request(5, 9).to_bytes()).unwrap();
    for bad in [
        String::new(),
        good.replacen("old 5", "old 05", 1),
        good.replacen("old 5", "new 5", 1),
        good.replacen("old 5\n", "old 5\nAAAA\n", 1),
        good.replacen("old 5\n", &format!("old 5\n{}", format!("{}=\n", "A".repeat(43)).repeat(64)), 1),
        "x".repeat(witness::MAX_ADD_CHECKPOINT_BYTES + 1),
    ] {
        assert!(matches!(AddCheckpoint::parse(bad.as_bytes()), Err(WitnessRefusal::Malformed(_))), "{bad}");
    }
}

#[test]
fn the_log_keeps_only_what_its_witness_signed_and_notices_that_it_lost_leaves() {
    let backend = backend();
    let (_, checkpoint) = log(5);
    let note = checkpoint.sign(&backend, &log_signer());
    let witness = witness_signer(0);
    let line = |n: u8| witness_signer(n).sign(&backend, &checkpoint.to_text(), Timestamp(7));
    let accept = |answer: &str| accept_cosignature(&backend, witness.public(), &note, answer.as_bytes());
    let extra = accept(&format!("{}{}", line(0), line(1))).unwrap();
    assert_eq!(extra, accept(&line(0)).unwrap(), "another key's line in a witness' answer is dropped");
    assert!(accept(&line(1)).is_err());
    assert!(accept("").is_err());
    assert!(accept(line(0).trim_end()).is_err());
    assert!(accept("<html>\n").is_err());
    let elsewhere = witness.sign(&backend, &log(6).1.to_text(), Timestamp(7));
    assert_eq!(accept(&elsewhere), Err(LogError::Signature(witness.public().name().clone())));

    assert_eq!(judge_conflict(9, b"5\n"), Ok(5));
    assert_eq!(judge_conflict(9, b"9\n"), Ok(9));
    assert_eq!(judge_conflict(9, b"10\n"), Err(LogError::RolledBack { seen: 10, offered: 9 }));
    for bad in [&b""[..], b"5", b"05\n", b"-1\n", b"\xff\n"] {
        assert!(matches!(judge_conflict(9, bad), Err(LogError::Malformed(_))));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "\\PC{0,200}\n\n\\PC{0,200}\n") {
        for input in [&bytes[..], text.as_bytes()] {
            let _ = Note::parse(input);
            let _ = AddCheckpoint::parse(input);
            let _ = policy(1).verify(&backend(), input);
            let _ = minicbor::decode::<LogEvidence>(input);
            let _ = judge_conflict(1, input);
        }
        let _ = Checkpoint::parse(&text);
        let _ = text.parse::<NoteKey>();
    }

    #[test]
    fn a_flipped_byte_never_verifies(position: prop::sample::Index, bit in 0_u8..8) {
        let good = evidence(9, 4);
        let mut bytes = minicbor::to_vec(&good).unwrap();
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(altered) = minicbor::decode::<LogEvidence>(&bytes) {
            // Both cosignatures are needed, so that every byte of the note matters.
            let strict = CheckpointPolicy::new(
                log_signer().public().clone(),
                (0..2).map(|n| witness_signer(n).public().clone()).collect(),
                2,
            ).unwrap();
            let verdict = altered.verify(&backend(), &strict, KIND, &message_id(4));
            prop_assert!(altered == good || verdict.is_err());
        }
    }
}
