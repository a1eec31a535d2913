//! Attacks on what must stay unknown: at the authority, on the wire, and after the case when lasting keys leak.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::HpkeSecretKey;
use waybill_crypto::native::Native;
use waybill_crypto::stream::RecordKey;
use waybill_protocol::ids::SessionId;
use waybill_protocol::messages::{DelegationBody, LodgementBody};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_server::files;
use waybill_server::hospital::onetime::OneTimeKeys;

use super::asking::set;
use super::hands::destination::{open_key, read_chunks, size_bytes};
use super::hands::source::{lodgement, pack_lodgement, pack_manifest};
use super::hands::{Ask, Authority, Case, Patient, Shipment};
use super::outcome::{Attack, Finding, Measured, Seen, Try};
use super::scene::{OrFail as _, Scene};
use crate::failure::Failure;

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "linked-delegations",
        what: "looking for a value that two delegations of one patient share, and another patient's does not",
        attacker: "the authority with everything that was ever posted to it",
        stopped_by: "a fresh delegation key, fresh openings, a fresh reply key, no account (3.5, 5.2)",
        tries: &[Try::new("every 16 bytes of both delegations, vouchers and proofs", "search", "nothing-shared")],
        run: |scene| linked(scene).boxed_local(),
    },
    Attack {
        name: "lasting-keys-leak",
        what: "every lasting key leaks after the case: what was recorded on the wire is tried with all of them, and the next release of \
               the same record with the record key of this one",
        attacker: "whoever recorded everything, and later holds all keys of A, B, authority and wallet",
        stopped_by: "the session key is used once and destroyed (5.4; 8); each release has a record key of its own (5.6)",
        tries: &[
            Try::new("the recorded manifest", "recording", "does-not-open"),
            Try::new("the recorded record key", "recording", "does-not-open"),
            Try::new("the next release under this one's record key", "recording", "does-not-open"),
        ],
        run: |scene| lasting_keys(scene).boxed_local(),
    },
    Attack {
        name: "lodgement-overheard",
        what: "B reads the lodgement on its way to the authority, to have the key without a receipt",
        attacker: "hospital B with its one-time key, listening before the authority",
        stopped_by: "the outer seal to the authority's lodgement key (5.6)",
        tries: &[Try::new("the lodgement under B's one-time key", "recording", "does-not-open")],
        run: |scene| overheard(scene).boxed_local(),
    },
    Attack {
        name: "directory-instead-of-pins",
        what: "the authority's directory sends B's request to the attacker, who answers as A",
        attacker: "the authority with its registry, its issuing key and false keys for A",
        stopped_by: "claim and consent are sealed to A's pinned key, the manifest is verified under it (3.4; 6.2)",
        tries: &[
            Try::new("the consent under every key of the authority's", "recording", "does-not-open"),
            Try::new("the identity claim under every key of the authority's", "recording", "does-not-open"),
            Try::new("an answer under false keys of A's name", "hospital-b", "manifest-invalid"),
        ],
        run: |scene| directory(scene).boxed_local(),
    },
];

/// Every run of `length` bytes.
fn windows(bytes: &[u8], length: usize) -> BTreeSet<&[u8]> {
    bytes.windows(length).collect()
}

/// What the authority sees of a case.
fn at_authority(case: &Case) -> Vec<u8> {
    let body: &DelegationBody = case.body.as_ref().expect("the case was delegated");
    // The log's own nonces and hashes are the authority's, not the patient's.
    [to_cbor(body), case.proof().proof.as_bytes().to_vec()].concat()
}

/// How many runs of 16 bytes two cases share of which a third one, another patient's, holds no 8.
///
/// (Without the second half, 15 bytes that every case holds and one digit that two hold by chance would count: `:8443/mailbox/d`.)
fn shared(one: &[u8], two: &[u8], other: &[u8]) -> usize {
    let (second, everybodys) = (windows(two, 16), windows(other, 8));
    let own = |window: &&[u8]| window.windows(8).all(|part| !everybodys.contains(part));
    windows(one, 16).into_iter().filter(|window| second.contains(window)).filter(own).count()
}

async fn linked(scene: &mut Scene) -> Result<Finding, Failure> {
    let (p, q) = (Patient::register(scene).await?, Patient::register(scene).await?);
    let one = p.delegate_all(scene).await?;
    let two = p.delegate_all(scene).await?;
    let other = q.delegate_all(scene).await?;
    let found = shared(&at_authority(&one), &at_authority(&two), &at_authority(&other));
    let seen = if found == 0 {
        Seen::refused("search", "nothing-shared", "posted messages")
    } else {
        Seen::Passed(format!("{found} runs of 16 bytes are shared"))
    };
    // The control: a wallet with a lasting reply key, or a lasting account key, would be found.
    let mut found_in_broken = true;
    for number in 0..2 {
        let mut lasting = p.draft(Scope::full(), Hides::default());
        if number == 0 {
            lasting.terms.reply_key = one.terms.reply_key;
            lasting.reply_key = HpkeSecretKey::from_bytes(&one.reply_key.to_bytes());
        } else {
            lasting.terms.revocation_key = one.terms.revocation_key.clone();
        }
        let voucher = p.vouch(scene, &lasting).await?;
        super::hands::patient::obtain(scene, &mut lasting, voucher).await?;
        found_in_broken &= shared(&at_authority(&one), &at_authority(&lasting), &at_authority(&other)) > 0;
    }
    Ok(Finding::new(vec![seen], None, found_in_broken, "a reply key or account key that is used twice is found"))
}

/// Every lasting key that opens anything, of everybody. (A wallet has none: its reply keys are used once.)
fn lasting(scene: &Scene) -> Result<Vec<HpkeSecretKey>, Failure> {
    let consent = |hospital: &str| files::read_hpke_key(&scene.folder(hospital).join("keys/consent.key"));
    Ok(vec![
        consent("hospital-a").or_fail("no key")?,
        consent("hospital-b").or_fail("no key")?,
        Authority::take(scene)?.keys.lodgement,
    ])
}

const PURPOSES: [SealPurpose; 5] = [
    SealPurpose::Manifest,
    SealPurpose::RecordKey,
    SealPurpose::KeyLodgement,
    SealPurpose::Consent,
    SealPurpose::IdentityClaim,
];

/// What any of the keys opens of a sealed message under any purpose and any of the bindings.
fn opened(sealed: &SealedBytes, keys: &[HpkeSecretKey], bindings: &[&[u8]]) -> Option<Vec<u8>> {
    let bound = |bound: &[u8]| {
        let open = |key: &HpkeSecretKey| {
            PURPOSES.iter().find_map(|purpose| Some(sealed.open(&Native, key, *purpose, bound).ok()?.to_vec()))
        };
        keys.iter().find_map(open)
    };
    bindings.iter().copied().find_map(bound)
}

/// Bytes that are readable with what was opened: the record's if it is its key, else its own.
fn readable(opened: Option<&Vec<u8>>, session: &SessionId, chunks: &[Vec<u8>]) -> u64 {
    let Some(opened) = opened else { return 0 };
    let record = opened.as_slice().try_into().ok().map(RecordKey::from_bytes);
    let record = record.and_then(|key| read_chunks(&key, session, chunks));
    record.map_or(opened.len() as u64, |record| size_bytes(&record))
}

fn closed(bytes: u64, what: &str) -> Seen {
    if bytes > 0 {
        Seen::Passed(format!("{what} opens, and {bytes} bytes can be read"))
    } else {
        Seen::refused("recording", "does-not-open", "trying every key")
    }
}

async fn lasting_keys(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let (session, manifest) = b.ask(scene, Ask::honest(&b, &patient, &case)?).await?;
    let recorded = waybill_protocol::messages::ManifestPlain {
        manifest: manifest.signed.clone(),
        chain: b.identity.chain.clone(),
    };
    // The manifest as it lay in the mailbox, and the record key as the authority released it.
    let sealed = super::hands::patient::seal(
        session.secret.public(),
        SealPurpose::Manifest,
        session.id.as_bytes(),
        &to_cbor(&recorded),
    )?;
    let chunks = b.chunks(scene, &manifest.said).await?;
    let release = b.sign_for(scene, &session, manifest.id).await?;
    let lodged = release.lodgement.parse().or_fail("no lodgement")?.peek().sealed_key.clone();
    let keys = lasting(scene)?;
    let bindings: [&[u8]; 3] = [session.id.as_bytes(), manifest.id.as_bytes(), session.proof.as_bytes()];
    let manifest_bytes = readable(opened(&sealed, &keys, &bindings).as_ref(), &session.id, &chunks);
    let record_bytes = readable(opened(&lodged, &keys, &bindings).as_ref(), &session.id, &chunks);
    let mut seen = vec![closed(manifest_bytes, "the manifest"), closed(record_bytes, "the record key")];
    // The control: what was recorded is all that is needed, with the one-time key.
    let key = open_key(&lodged, &session.secret, manifest.id).or_fail("the recording is not complete")?;
    let one_time = [HpkeSecretKey::from_bytes(&session.secret.to_bytes())];
    let control = readable(opened(&lodged, &one_time, &bindings).as_ref(), &session.id, &chunks);
    let next = patient.delegate_all(scene).await?;
    let (other, listed) = b.ask(scene, Ask::honest(&b, &patient, &next)?).await?;
    let released = b.chunks(scene, &listed.said).await?;
    let next_bytes = read_chunks(&key, &other.id, &released).map_or(0, |record| size_bytes(&record));
    seen.push(closed(next_bytes, "the next release"));
    // And the process destroys its own one-time key with the end of the case.
    scene.servant("hospital-b").restart()?;
    let (_, filed) = patient.migrate(scene).await?;
    let mut gone = false;
    for _ in 0..400 {
        let left = keys_left(&scene.folder("hospital-b").join("one-time"));
        gone = left == 0;
        if gone {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let read = Measured { stolen: manifest_bytes + record_bytes + next_bytes, control };
    Ok(Finding::new(
        seen,
        read,
        control > 32 && filed && gone,
        "the one-time key opens the recording, and B destroys its own",
    ))
}

async fn overheard(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, a, asked) = super::sending::set(scene, Scope::full()).await?;
    let shipment = Shipment::of(&asked, &patient.sample.lines)?;
    let (hm, _) = pack_manifest(shipment.manifest.clone(), &a.identity.signing, &a.identity.chain, &asked)?;
    let hm_sent = a.send(scene, &asked, &shipment).await?;
    let signed =
        waybill_protocol::signed::Signed::sign(&Native, &a.identity.signing, lodgement(&asked, hm, &shipment.key)?);
    let parcel = pack_lodgement(scene, asked.proof, signed.bytes()).await?;
    let body: LodgementBody =
        Parcel::parse(&parcel).or_fail("no parcel")?.open(Kind::KeyLodgement, "lodgement").or_fail("no lodgement")?;
    // B's own one-time key, from the folder in which it keeps it.
    let one_time = OneTimeKeys::open(&scene.folder("hospital-b").join("one-time")).or_fail("no one-time keys")?;
    let secret = one_time.find(&asked.session.0).or_fail("no one-time key")?.or_fail("B has no one-time key")?;
    let bindings: [&[u8]; 3] = [asked.session.as_bytes(), hm.as_bytes(), asked.proof.as_bytes()];
    let keys = [secret];
    let bytes = |sealed| readable(opened(sealed, &keys, &bindings).as_ref(), &asked.session, &shipment.chunks);
    let stolen = bytes(&body.sealed);
    let seen = vec![closed(stolen, "the lodgement")];
    // The control: without the outer seal it would open.
    let inner = lodgement(&asked, hm, &shipment.key)?.sealed_key;
    let control = bytes(&inner);
    scene.post(&scene.address("authority")?, parcel).await?;
    let view = scene.case("hospital-b", &asked.proof, |view| view.ended.is_some()).await?;
    let filed = hm == hm_sent && view.and_then(|view| view.ended).as_deref() == Some("filed");
    let read = Measured { stolen, control };
    Ok(Finding::new(seen, read, control > 32 && filed, "against its receipt B gets the very same lodgement"))
}

async fn directory(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate_all(scene).await?;
    let admin = scene.network.admin("authority");
    let mut trap = scene.mailbox(Native.generate_signing_key()).await?;
    let entry =
        |mailbox: String| serde_json::json!({ "id": patient.a.hospital.as_str(), "mailbox": mailbox, "replace": true });
    admin.post::<serde_json::Value>("/hospitals", &entry(trap.url.to_string())).await?;
    patient.present(scene, &case).await?;
    let letter = trap.next(scene, super::scene::PATIENCE).await?.or_fail("B asks nobody")?;
    let parcel = Parcel::parse(&letter).or_fail("no parcel")?;
    let body: waybill_protocol::messages::TransferBody =
        parcel.open(Kind::TransferRequest, "request").or_fail("no request")?;
    let unverified = body.request.parse().or_fail("no request")?;
    let request = unverified.peek().clone();
    let (false_hpke, authority) = (Native.generate_hpke_key(), Authority::take(scene)?);
    let keys = [false_hpke, authority.keys.lodgement.clone()];
    let claim_bound = waybill_crypto::digest::sha256(&[request.proof.as_bytes(), &request.session_key.0]);
    let bindings: [&[u8]; 2] = [patient.a.hospital.as_str().as_bytes(), claim_bound.as_bytes()];
    // No record, but what says whose it is and what of it shall move.
    let bytes = |sealed, keys: &[HpkeSecretKey]| opened(sealed, keys, &bindings).map_or(0, |plain| plain.len() as u64);
    let (consent, claim) = (bytes(&body.consent, &keys), bytes(&request.identity_claim, &keys));
    let mut seen = vec![closed(consent, "the consent"), closed(claim, "the identity claim")];
    // The control: A's own key opens both.
    let own = [super::hands::identity(scene, "hospital-a")?.hpke];
    let (own_consent, own_claim) = (bytes(&body.consent, &own), bytes(&request.identity_claim, &own));
    let control = own_consent > 0 && own_claim > 0;
    let session = waybill_protocol::ids::SessionId(unverified.message_id().0);
    let asked = super::hands::source::Asked { proof: request.proof, session, request, body };
    let (impostor, chain) = authority.impostor(patient.a.hospital.as_str())?;
    let shipment = Shipment::of(&asked, &patient.sample.lines[..1])?;
    let (_, forged) = pack_manifest(shipment.manifest, &impostor, &chain, &asked)?;
    seen.push(scene.try_post("hospital-b", forged).await?);
    // The attacker gives up and forwards what it caught.
    let real = scene.address("hospital-a")?;
    admin.post::<serde_json::Value>("/hospitals", &entry(real.to_string())).await?;
    scene.post(&real, letter).await?;
    let filed = scene.is_filed(&case.id()).await?;
    let read = Measured { stolen: consent + claim, control: own_consent + own_claim };
    Ok(Finding::new(seen, read, control && filed, "A's own keys open the request, and the record is filed"))
}

/// How many keys a folder of one-time keys holds; each is named by its session, 64 hex digits.
fn keys_left(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().len() == 64).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::hands::patient::seal;

    #[test]
    fn what_opens_is_counted_and_what_does_not_is_nothing() {
        let (right, wrong) = (Native.generate_hpke_key(), Native.generate_hpke_key());
        let session = SessionId(waybill_crypto::digest::sha256(&[b"session"]));
        let sealed = seal(right.public(), SealPurpose::Manifest, b"bound", &[7; 100]).unwrap();
        let bytes =
            |keys: &[HpkeSecretKey], bound: &[u8]| readable(opened(&sealed, keys, &[bound]).as_ref(), &session, &[]);
        assert_eq!(bytes(std::slice::from_ref(&wrong), b"bound"), 0);
        assert_eq!(bytes(std::slice::from_ref(&right), b"another"), 0);
        let all = [wrong, right];
        assert_eq!(bytes(&all, b"bound"), 100);
        assert!(matches!(closed(bytes(&all, b"bound"), "it"), Seen::Passed(what) if what.contains("100 bytes")));
    }

    #[test]
    fn a_lasting_value_is_found_and_a_digit_by_chance_is_not() {
        let case = |key, mailbox| {
            format!("hospital-a.example{key}https://authority.example:8443/mailbox/{mailbox}").into_bytes()
        };
        let one = case("0123456789abcdef", "d2f8");
        // One digit of two mailboxes is the same.
        assert_eq!(shared(&one, &case("fedcba9876543210", "d71a"), &case("ghijklmnopqrstuv", "a6e3")), 0);
        // One key of 16 bytes is the same.
        assert!(shared(&one, &case("0123456789abcdef", "e71a"), &case("ghijklmnopqrstuv", "a6e3")) > 0);
        // What everybody holds tells nobody apart.
        assert_eq!(shared(&one, &case("0123456789abcdef", "e71a"), &case("0123456789abcdef", "a6e3")), 0);
    }
}
