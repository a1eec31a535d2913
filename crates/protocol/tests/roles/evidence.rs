//! Evidence and its judge (PROTOCOL section 10): what a file proves, what it does not, and who lied.

use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::{Digest, HpkeSecretKey};
use waybill_crypto::stream::RecordKey;
use waybill_protocol::destination::RevealedKey;
use waybill_protocol::evidence::{Evidence, Finding, Sentence, Signer, Verdict, judge};
use waybill_protocol::ids::ProofId;
use waybill_protocol::log::CheckpointPolicy;
use waybill_protocol::messages::{Chain, EndState, Revocation, RevocationBody, RevocationReason};
use waybill_protocol::migration::DestinationState;
use waybill_protocol::signed::{Message, Signed, SignedBytes};
use waybill_protocol::wire::Kind;

use crate::common::*;

fn signer(world: &World) -> Signer {
    Signer { keys: world.a.identity.keys(), chain: world.a.identity.chain.clone() }
}

/// All that the parties of a case hold together.
fn evidence(world: &World, m: &Migration) -> Evidence {
    let policy = || world.log.policy();
    let mut file = Evidence::of_destination(world.statement.clone(), policy(), &m.destination());
    file.merge(Evidence::of_source(world.statement.clone(), policy(), &m.source(), signer(world)));
    file.add_delegation(&m.draft, m.delegation.clone());
    file
}

fn read(world: &World, file: &Evidence) -> Verdict {
    judge(&world.network.backend, &world.network.anchor, None, &Evidence::parse(&file.to_bytes()).unwrap())
}

fn finding(verdict: &Verdict, check: &str) -> Finding {
    verdict.sentences.iter().find(|s| s.check == check).unwrap_or_else(|| panic!("no sentence {check}")).finding
}

fn failed(verdict: &Verdict) -> Vec<&'static str> {
    verdict.sentences.iter().filter(|s| s.finding == Finding::Failed).map(|s| s.check).collect()
}

#[test]
fn a_whole_case_proves_every_sentence() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let verdict = read(&world, &evidence(&world, &m));
    assert!(verdict.holds());
    assert!(verdict.sentences.iter().all(|s| s.finding == Finding::Proven), "{:?}", verdict.sentences);
    assert_eq!((verdict.end, verdict.liar.as_deref()), (Some(EndState::Filed), None));
    let checks: Vec<_> = verdict.sentences.iter().map(|s| s.check).collect();
    let expected = [
        "authority",
        "proof",
        "proof-logged",
        "delegation",
        "voucher",
        "request",
        "source-key",
        "grant",
        "grant-logged",
        "manifest",
        "delivery",
        "lodgement",
        "release",
        "release-logged",
        "statement",
        "statement-logged",
        "receipt",
        "receipt-detail",
        "checksum",
    ];
    assert_eq!(checks, expected);
}

#[test]
fn one_partys_file_proves_its_part_and_fails_nothing() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let file = Evidence::of_destination(world.statement.clone(), world.log.policy(), &m.destination());
    let verdict = read(&world, &file);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    for check in ["delegation", "grant"] {
        assert_eq!(finding(&verdict, check), Finding::Absent, "{check}");
    }
    for check in ["source-key", "manifest", "lodgement", "release"] {
        assert_eq!(finding(&verdict, check), Finding::Proven, "{check}");
    }
    let file = Evidence::of_source(world.statement.clone(), world.log.policy(), &m.source(), signer(&world));
    let verdict = read(&world, &file);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    assert_eq!(finding(&verdict, "release"), Finding::Absent);
    assert_eq!(verdict.end, Some(EndState::Filed));
}

#[test]
fn any_flipped_byte_is_noticed() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let bytes = evidence(&world, &m).to_bytes();
    for at in (0..bytes.len()).step_by(97).chain(bytes.len() - 40..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let holds = Evidence::parse(&flipped)
            .is_ok_and(|file| judge(&world.network.backend, &world.network.anchor, None, &file).holds());
        assert!(!holds, "byte {at}");
    }
}

#[test]
fn a_file_under_another_root_proves_nothing() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let verdict = judge(&world.network.backend, &Network::new(2).anchor, None, &evidence(&world, &m));
    assert!(!verdict.holds());
    assert_eq!(verdict.first_failure().unwrap().check, "authority");
}

#[test]
fn nothing_holds_without_the_proof_whatever_else_does() {
    let said = |check: &'static str, finding| Sentence { check, text: String::new(), signer: String::new(), finding };
    let verdict = |sentences| Verdict { sentences, end: None, liar: None }.holds();
    assert!(!verdict(vec![]));
    assert!(!verdict(vec![said("checksum", Finding::Proven)]));
    assert!(verdict(vec![said("checksum", Finding::Proven), said("proof", Finding::Proven)]));
    assert!(!verdict(vec![said("checksum", Finding::Failed), said("proof", Finding::Proven)]));
}

#[test]
fn a_reader_may_choose_the_witnesses() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let file = evidence(&world, &m);
    let judged = |policy: &CheckpointPolicy| {
        judge(&world.network.backend, &world.network.anchor, Some(policy), &Evidence::parse(&file.to_bytes()).unwrap())
    };
    let own = world.log.policy();
    assert!(judged(&own).holds());
    assert_eq!(finding(&judged(&own), "log-policy"), Finding::Proven);
    // A reader who believes one witness only is told that the file relied on others.
    let fewer = CheckpointPolicy::new(own.log_key().clone(), own.witnesses()[..1].to_vec(), 1).unwrap();
    assert_eq!(failed(&judged(&fewer)), ["log-policy"]);
    // So is one who believes the same witnesses, and asks for fewer of them.
    let lax = CheckpointPolicy::new(own.log_key().clone(), own.witnesses().to_vec(), own.quorum() - 1).unwrap();
    assert_eq!((own.quorum(), lax.quorum()), (2, 1));
    assert_eq!(failed(&judged(&lax)), ["log-policy"]);
}

#[test]
fn the_source_that_vouched_is_the_source_that_sent() {
    altered(&["source-key"], |file, world, _| {
        let (key, chain) = world.stranger(A);
        let signer = file.source.as_mut().unwrap();
        (signer.keys.signing, signer.chain) = (key.public().clone(), chain);
    });
}

/// The file of a closed case with one part replaced; exactly the named checks fail.
fn altered(expected: &[&str], alter: impl FnOnce(&mut Evidence, &mut World, &Migration)) {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let mut file = evidence(&world, &m);
    alter(&mut file, &mut world, &m);
    let verdict = read(&world, &file);
    assert_eq!(failed(&verdict), expected);
}

fn resign<M: Message + Clone>(
    world: &World,
    key: &waybill_crypto::keys::SigningKey,
    bytes: &mut SignedBytes<M>,
    change: impl FnOnce(&mut M),
) {
    *bytes = resigned(world, key, bytes, change);
}

#[test]
fn each_sentence_stands_or_falls_by_its_own_signature_and_bindings() {
    altered(&["delegation"], |file, _, _| {
        let body = file.delegation.as_mut().unwrap();
        body.delegation = forged(&body.delegation);
    });
    altered(&["voucher"], |file, world, _| {
        let body = file.delegation.as_mut().unwrap();
        body.voucher.voucher = resigned(world, &world.b.identity.signing, &body.voucher.voucher, |_| {});
    });
    altered(&["grant", "grant-logged"], |file, world, _| {
        let key = world.authority.proof_signing.clone();
        resign(world, &key, &mut file.grant.as_mut().unwrap().grant, |g| g.to = id(C));
    });
    altered(&["grant-logged"], |file, _, _| file.grant.as_mut().unwrap().evidence.nonce = [0; 16]);
    altered(&["proof-logged"], |file, _, _| {
        file.proof.evidence.nonce = [0; 16];
        file.request.as_mut().unwrap().proof.evidence.nonce = [0; 16];
    });
    altered(&["delivery"], |file, world, _| {
        // A destination cannot be made to have signed for something else ...
        let key = world.a.identity.signing.clone();
        resign(world, &key, file.delivery.as_mut().unwrap(), |_| {});
    });
    altered(&["delivery"], |file, world, _| {
        // ... and what it really signs for another manifest is not what the authority traded the key for.
        let key = world.b.identity.signing.clone();
        resign(world, &key, file.delivery.as_mut().unwrap(), |d| d.manifest.0 = Digest([1; 32]));
    });
    altered(&["release-logged"], |file, _, _| file.release.as_mut().unwrap().evidence.nonce = [0; 16]);
    altered(&["statement-logged"], |file, _, _| file.statement.as_mut().unwrap().evidence.nonce = [0; 16]);
    altered(&["receipt-detail"], |file, _, _| *file.receipt.as_mut().unwrap().detail.last_mut().unwrap() ^= 1);
}

#[test]
fn a_receipt_under_another_key_of_the_destinations_name_is_not_believed() {
    altered(&["receipt", "receipt-detail"], |file, world, _| {
        let (key, chain) = world.stranger(B);
        let body = file.statement.as_mut().unwrap().receipt.as_mut().unwrap();
        body.receipt = resigned(world, &key, &body.receipt, |_| {});
        body.chain = chain;
    });
}

#[test]
fn a_filed_case_without_its_receipt_says_that_it_is_missing() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let mut file = evidence(&world, &m);
    file.statement.as_mut().unwrap().receipt = None;
    assert_eq!(finding(&read(&world, &file), "receipt"), Finding::Absent);
}

fn revocation(world: &World, key: &waybill_crypto::keys::SigningKey, proof: ProofId, chain: Chain) -> RevocationBody {
    let said = Revocation { proof, reason: RevocationReason::Withdrawn, time: world.now };
    RevocationBody { revocation: SignedBytes::from(&Signed::sign(&world.network.backend, key, said)), chain }
}

#[test]
fn a_revocation_counts_from_the_holder_or_a_hospital_of_the_case_only() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let with = |key: &waybill_crypto::keys::SigningKey, proof, chain| {
        let mut file = evidence(&world, &m);
        file.revocation = Some(revocation(&world, key, proof, chain));
        finding(&read(&world, &file), "revocation")
    };
    let (a, holder, pf) = (&world.a.identity, world.root.revocation_key(0), m.proof.id());
    assert_eq!(with(&holder, pf, Chain::default()), Finding::Proven);
    assert_eq!(with(&a.signing, pf, a.chain.clone()), Finding::Proven);
    assert_eq!(with(&holder, ProofId(Digest([1; 32])), Chain::default()), Finding::Failed);
    let (stranger, chain) = world.stranger(C);
    assert_eq!(with(&stranger, pf, chain), Finding::Failed, "an enrolled hospital that has no part in the case");
    let tls = world.network.chain(Profile::HospitalTls, A, a.signing.public(), NOW).0;
    assert_eq!(with(&a.signing, pf, tls), Finding::Failed);
}

/// A source that lodges another key than its manifest commits to.
fn wrong_key(world: &mut World) -> Migration {
    let mut m = world.migrate(0, Step::Granted);
    let mut staged = world.stage(&mut m);
    staged.key = RecordKey::from_bytes([0x66; 32]);
    let (case, effects) = world.source().handle_staged(&world.stands(&m.source()), m.source(), &staged).unwrap();
    m.source = Some(case);
    m.manifest = Some(posted(&effects, Kind::Manifest).open(Kind::Manifest, "manifest").unwrap());
    m.lodgement = Some(posted(&effects, Kind::KeyLodgement).open(Kind::KeyLodgement, "lodgement").unwrap());
    world.lodge(&mut m);
    world.advance(&mut m, Step::Lodged, Step::Delivered);
    let release = world.release(&mut m);
    let (keys, (case, effects)) =
        world.destination().handle_release(m.destination(), release.clone(), &m.secret()).unwrap();
    assert!(keys.is_none());
    assert_eq!(case.state, DestinationState::Rejected);
    m.receipt = Some(posted(&effects, Kind::ImportReceipt).open(Kind::ImportReceipt, "receipt").unwrap());
    (m.destination, m.release) = (Some(case), Some(release));
    m
}

#[test]
fn a_source_that_lodges_a_wrong_key_is_named() {
    let mut world = World::new();
    let mut m = wrong_key(&mut world);
    let statement = world.end_with_receipt(&mut m);
    let (source, _) = world.source().handle_statement(m.source(), statement.clone(), m.reply_secret.as_ref()).unwrap();
    let (destination, _) = world.destination().handle_statement(m.destination(), statement).unwrap();
    (m.source, m.destination) = (Some(source), Some(destination));
    let verdict = read(&world, &evidence(&world, &m));
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    assert_eq!((verdict.liar.as_deref(), verdict.end), (Some(A), Some(EndState::Rejected)));
}

#[test]
fn a_destination_that_complains_falsely_is_named_and_an_honest_source_never_blamed() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let mut file = evidence(&world, &m);
    let guilty = {
        let mut other = World::new();
        wrong_key(&mut other).destination().revealed_key
    };
    // The one-time key of another session is not this session's.
    file.revealed_key = Some(RevealedKey([0x42; 32]));
    let verdict = read(&world, &file);
    assert_eq!((failed(&verdict), verdict.liar.as_deref()), (vec!["revealed-key"], None));
    // The genuine key opens the lodgement, and it is the right one.
    file.revealed_key = Some(RevealedKey(*m.secret().to_bytes()));
    let verdict = read(&world, &file);
    assert_eq!((failed(&verdict), verdict.liar.as_deref()), (vec![], Some(B)));
    assert!(guilty.is_some());
}

#[test]
fn nobody_is_blamed_on_a_lodgement_that_the_source_did_not_sign() {
    let mut world = World::new();
    let mut m = wrong_key(&mut world);
    let statement = world.end_with_receipt(&mut m);
    let (source, _) = world.source().handle_statement(m.source(), statement, m.reply_secret.as_ref()).unwrap();
    m.source = Some(source);
    let mut file = evidence(&world, &m);
    let body = file.release.as_mut().unwrap();
    body.lodgement = resigned(&world, &world.b.identity.signing, &body.lodgement, |_| {});
    let verdict = read(&world, &file);
    assert!(verdict.liar.is_none());
    assert!(failed(&verdict).contains(&"lodgement"));
}

#[test]
fn an_honest_source_is_not_blamed_by_a_file_put_together_from_several_sessions() {
    let accused = |key: Option<&HpkeSecretKey>, alter: &dyn Fn(&mut Evidence, &World)| {
        let mut world = World::new();
        let m = world.migrate(0, Step::Closed);
        let mut file = evidence(&world, &m);
        let secret = m.secret();
        file.revealed_key = Some(RevealedKey(*key.unwrap_or(&secret).to_bytes()));
        alter(&mut file, &world);
        let verdict = read(&world, &file);
        (failed(&verdict), verdict.liar)
    };
    assert_eq!(accused(None, &|_, _| {}), (vec![], Some(B.to_owned())), "the file as it is accuses falsely");
    // The destination signs a request for a key of its own, which the source never saw, and reveals that key.
    let own = HpkeSecretKey::from_bytes(&[0x42; 32]);
    let (failed, liar) = accused(Some(&own), &|file, world| {
        let body = file.request.as_mut().unwrap();
        body.request = resigned(world, &world.b.identity.signing, &body.request, |r| r.session_key = *own.public());
    });
    assert!(failed.contains(&"manifest") && liar.is_none(), "{failed:?}");
    // A lodgement that the source truly signed, for another manifest of this proof.
    let (failed, liar) = accused(None, &|file, world| {
        let body = file.release.as_mut().unwrap();
        body.lodgement = resigned(world, &world.a.identity.signing, &body.lodgement, |l| {
            l.manifest.0 = Digest([1; 32]);
        });
    });
    assert!(failed.contains(&"lodgement") && liar.is_none(), "{failed:?}");
    // A manifest that the source did not sign, with a commitment that its key does not meet.
    let (failed, liar) = accused(None, &|file, world| {
        let manifest = file.manifest.as_mut().unwrap();
        *manifest = resigned(world, &world.b.identity.signing, manifest, |m| m.key_commitment = Digest([1; 32]));
    });
    assert!(failed.contains(&"manifest") && liar.is_none(), "{failed:?}");
}
