//! Attacks on the authority, with its keys, and on its log.

use std::fs;
use std::path::Path;

use futures::FutureExt as _;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::commitment::Commitment;
use waybill_crypto::keys::SigningKey;
use waybill_crypto::native::Native;
use waybill_protocol::ids::SessionId;
use waybill_protocol::log::{LeafKind, LogEvidence};
use waybill_protocol::messages::{
    Chain, Grant, GrantBody, ImportReceipt, OutcomeClass, ReceiptBody, ReceiptDetail, ReceiptOpening, Standing,
};
use waybill_protocol::sealed::SealPurpose;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_server::hospital::engine::source_row;
use waybill_store::{DataFolder, Space, SqliteOptions, SqliteStore, Store as _};

use super::asking::{set, twin};
use super::hands::authority::{ForgedLog, nonce};
use super::hands::patient::{Answer, delegation, delegation_body, seal, submit};
use super::hands::{Ask, Authority, Case, Listed, Patient, Session, opening};
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, Scene, id};
use crate::authority::renew_crl;
use crate::courier::now;
use crate::demo::network::{AUTHORITY as NAME, HOSPITAL_B};
use crate::failure::Failure;

const A: &str = "hospital-a";
const AUTHORITY: &str = "authority";

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "copied-delegation",
        what: "a delegation seen on its way is signed again under another key",
        attacker: "the relay, with the delegation and its voucher",
        stopped_by: "the voucher names the delegation key, the delegation its own (6.3)",
        tries: &[
            Try::new("the same terms and voucher under the attacker's key", AUTHORITY, "voucher-invalid"),
            Try::new("the attacker signs, the original's key is named", AUTHORITY, "delegation-invalid"),
            Try::new("the original's key beside the attacker's signature", AUTHORITY, "delegation-invalid"),
            Try::new("the voucher with another commitment", AUTHORITY, "voucher-invalid"),
        ],
        run: |scene| copied(scene).boxed_local(),
    },
    Attack {
        name: "one-voucher-many-delegations",
        what: "a patient delegates again under the same voucher",
        attacker: "a dishonest patient",
        stopped_by: "one unique row for each delegation key (6.3)",
        tries: &[Try::new("a second delegation under one voucher", AUTHORITY, "delegation-repeated")],
        run: |scene| repeated(scene).boxed_local(),
    },
    Attack {
        name: "receipt-of-the-same-name",
        what: "the import receipt is signed by another certificate of B's name",
        attacker: "the authority with its issuing key",
        stopped_by: "A verifies it under thumb_B (6.1)",
        tries: &[Try::new("a receipt under a false certificate of B's name", A, "receipt-invalid")],
        run: |scene| same_name(scene).boxed_local(),
    },
    Attack {
        name: "forged-grant",
        what: "A is told that its redemption was granted, by somebody else or for something else",
        attacker: "hospital B, and the authority with its proof-signing key; both know session and nonce",
        stopped_by: "the grant is the authority's, for this proof, session, nonce and attempt (6.1)",
        tries: &[
            Try::new("signed by nobody", A, "signature-invalid"),
            Try::new("signed by hospital B", A, "signature-invalid"),
            Try::new("the authority's, for another nonce", A, "grant-invalid"),
            Try::new("the authority's, for another session", A, "grant-invalid"),
            Try::new("the authority's, for another destination", A, "grant-invalid"),
            Try::new("the authority's, an hour old", A, "clock-skew"),
            Try::new("the authority's, with B suspended", A, "standing-lost"),
        ],
        run: |scene| forged_grant(scene).boxed_local(),
    },
    Attack {
        name: "split-view",
        what: "A is shown another log than everybody else",
        attacker: "the authority with its log key; for the last two its witness helps",
        stopped_by: "the witness's cosignature, and consistency with what A knew (6.1, 7)",
        tries: &[
            Try::new("a fork that no witness cosigned", A, "log-evidence-invalid"),
            Try::new("a leaf that is not in the log", A, "log-evidence-invalid"),
            Try::new("a cosigned log shorter than the known one", A, "log-inconsistent"),
            Try::new("a cosigned longer log that does not extend the known one", A, "log-inconsistent"),
        ],
        run: |scene| split_view(scene).boxed_local(),
    },
    Attack {
        name: "checkpoint-rolled-back",
        what: "the authority is restored from an older copy of its data, in which a spent proof is unspent",
        attacker: "the authority's operator",
        stopped_by: "the witness has seen more: it does not start (7)",
        tries: &[Try::new("a copy from before the last case", AUTHORITY, "log-behind-witness")],
        run: |scene| rolled_back(scene).boxed_local(),
    },
    Attack {
        name: "revocation-list",
        what: "a stale, a missing and a forged revocation list; and a revoked certificate",
        attacker: "whoever stands between A and the authority's page, and hospital B after its key was stolen",
        stopped_by: "with an older list nobody is believed; the list is the issuing key's (3.8)",
        tries: &[
            Try::new("a list eight days old", A, "crl-stale"),
            Try::new("no list", A, "crl-missing"),
            Try::new("a list with one bit changed", A, "crl-forged"),
            Try::new("B asks with a revoked certificate", A, "certificate-revoked"),
        ],
        run: |scene| lists(scene).boxed_local(),
    },
];

async fn copied(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.draft(waybill_record::scope::Scope::full(), waybill_record::hides::Hides::default());
    let voucher = patient.vouch(scene, &case).await?;
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let attacker = Native.generate_signing_key();
    let said = delegation(&case, &reply);
    let mut own = said.clone();
    own.delegation_key = attacker.public().thumbprint();
    let mut other = said.clone();
    other.terms.com_source = Commitment::commit("pid-source", &opening(), b"another");
    let mut beside = delegation_body(said.clone(), &attacker, voucher.clone());
    beside.key = case.delegation_key.public().clone();
    let bodies = [
        delegation_body(own, &attacker, voucher.clone()),
        delegation_body(said.clone(), &attacker, voucher.clone()),
        beside,
        delegation_body(other, &case.delegation_key, voucher.clone()),
    ];
    let mut seen = Vec::new();
    for body in bodies {
        seen.push(scene.try_post(AUTHORITY, Parcel::pack(Kind::Delegation, &body)).await?);
    }
    let honest = delegation_body(said, &case.delegation_key, voucher);
    let twin = matches!(submit(scene, &case, &honest, &mut reply).await?, Answer::Proof(_));
    Ok(Finding::new(seen, None, twin, "the delegation itself gets its proof"))
}

async fn repeated(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let case = patient.delegate_all(scene).await?;
    let voucher = case.body.as_ref().or_fail("no delegation")?.voucher.clone();
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let again = delegation_body(delegation(&case, &reply), &case.delegation_key, voucher);
    let seen = match submit(scene, &case, &again, &mut reply).await? {
        Answer::Refused(code) => Seen::refused(AUTHORITY, code, "signed refusal"),
        Answer::Silent(code) => Seen::refused(AUTHORITY, code, "log"),
        Answer::Proof(_) => Seen::Passed("a second proof was issued".to_owned()),
    };
    patient.present(scene, &case).await?;
    let twin = scene.is_filed(&case.id()).await?;
    Ok(Finding::new(vec![seen], None, twin, "the first delegation is filed"))
}

/// The receipt of a whole record, signed by any key.
fn receipt(
    case: &Case,
    session: &Session,
    manifest: &Listed,
    key: &SigningKey,
    chain: Chain,
) -> Result<Vec<u8>, Failure> {
    let said = &manifest.said;
    let count = said.inventory.iter().map(|t| t.count).sum();
    let detail = ReceiptDetail {
        inventory: said.inventory.clone(),
        offered: count,
        filed: count,
        quarantined: 0,
        digest: said.digest_scope.short(),
        code: None,
        loss: said.loss.clone(),
    };
    let opening = ReceiptOpening { opening: opening(), detail: to_cbor(&detail) };
    let commitment = Commitment::commit("receipt", &opening.opening, &opening.detail);
    let outcome = OutcomeClass::Filed;
    let receipt = ImportReceipt { proof: session.proof, manifest: manifest.id, outcome, commitment, time: now() };
    let (bound, plain) = (manifest.id.as_bytes(), to_cbor(&opening));
    let body = ReceiptBody {
        receipt: SignedBytes::from(&Signed::sign(&Native, key, receipt)),
        chain,
        for_source: seal(&said.reply_key, SealPurpose::ReceiptSource, bound, &plain)?,
        for_patient: seal(&case.terms.reply_key, SealPurpose::ReceiptPatient, bound, &plain)?,
    };
    Ok(Parcel::pack(Kind::ImportReceipt, &body))
}

async fn same_name(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let honest = patient.delegate_all(scene).await?;
    let (impostor, chain) = Authority::take(scene)?.impostor(HOSPITAL_B)?;
    let (session, manifest) = b.ask(scene, Ask::honest(&b, &patient, &case)?).await?;
    b.read(scene, &session, &manifest).await?;
    let mark = scene.mark(A);
    scene.post(&scene.address(AUTHORITY)?, receipt(&case, &session, &manifest, &impostor, chain)?).await?;
    let seen = vec![scene.seen(A, mark).await];
    let (session, manifest) = b.ask(scene, Ask::honest(&b, &patient, &honest)?).await?;
    b.read(scene, &session, &manifest).await?;
    let own = receipt(&honest, &session, &manifest, &b.identity.signing, b.identity.chain.clone())?;
    scene.post(&scene.address(AUTHORITY)?, own).await?;
    let view = scene.case(A, &honest.id(), |view| view.ended.is_some()).await?;
    let twin = view.is_some_and(|view| view.ended.as_deref() == Some("filed") && view.receipt.is_some());
    Ok(Finding::new(seen, None, twin, "B's own receipt closes the case at A"))
}

/// A case whose redemption the authority cannot answer, because its witness is down; and what A waits for.
async fn redeeming(scene: &mut Scene) -> Result<(Case, SourceCase), Failure> {
    let patient = Patient::register(scene).await?;
    // An earlier case: so A knows a checkpoint, and everybody knows where the others are.
    let (_, filed) = patient.migrate(scene).await?;
    filed.then_some(()).or_fail("the first case was not filed")?;
    let case = patient.delegate_all(scene).await?;
    scene.servant("witness").kill()?;
    patient.present(scene, &case).await?;
    let view = scene.case(A, &case.id(), |view| view.state == "redeeming").await?;
    view.filter(|view| view.state == "redeeming").or_fail("A does not redeem")?;
    // Redemption and nonce are no secret of A's: the authority knows them, too.
    scene.servant(A).kill()?;
    let row = source_case(&scene.folder(A), &case).await?;
    scene.servant(A).restart()?;
    Ok((case, row))
}

/// A case's row in the store of hospital A, which must be stopped.
pub(super) async fn source_case(folder: &Path, case: &Case) -> Result<SourceCase, Failure> {
    let data = DataFolder::open(&folder.join("data")).or_fail("A's data cannot be opened")?;
    let store = SqliteStore::open(data, SqliteOptions::default()).await.or_fail("A's store cannot be opened")?;
    let found = store.load(Space::Case, &source_row(&case.id())).await.or_fail("A's store cannot be read")?;
    store.close().await;
    from_cbor("source case", &found.or_fail("A has no such case")?.value, MAX_PARCEL_BYTES).or_fail("no source case")
}

fn grant_for(row: &SourceCase) -> Grant {
    Grant {
        proof: row.proof,
        session: row.session,
        nonce: row.nonce,
        attempt: row.attempt,
        time: now(),
        source: Standing::Active,
        destination: Standing::Active,
        to: id(HOSPITAL_B),
    }
}

fn pack_grant(grant: &Signed<Grant>, evidence: LogEvidence, consistency: Vec<waybill_crypto::keys::Digest>) -> Vec<u8> {
    Parcel::pack(Kind::Grant, &GrantBody { grant: SignedBytes::from(grant), evidence, consistency })
}

/// With its witness back the authority answers, and the case goes on to its end.
async fn goes_on(scene: &mut Scene, case: &Case) -> Result<bool, Failure> {
    scene.servant("witness").restart()?;
    scene.is_filed(&case.id()).await
}

async fn forged_grant(scene: &mut Scene) -> Result<Finding, Failure> {
    let (case, row) = redeeming(scene).await?;
    let authority = Authority::take(scene)?;
    let b = super::hands::identity(scene, "hospital-b")?;
    let (nobody, real) = (Native.generate_signing_key(), authority.keys.proof_signing.clone());
    let honest = grant_for(&row);
    let with = |alter: &dyn Fn(&mut Grant)| {
        let mut grant = honest.clone();
        alter(&mut grant);
        grant
    };
    let other_session = SessionId(waybill_crypto::keys::Digest(opening().0));
    let forged = [
        (honest.clone(), &nobody),
        (honest.clone(), &b.signing),
        (with(&|grant| grant.nonce = nonce()), &real),
        (with(&|grant| grant.session = other_session), &real),
        (with(&|grant| grant.to = id("hospital-c.example")), &real),
        (with(&|grant| grant.time.0 -= 3_600), &real),
        (with(&|grant| grant.destination = Standing::Suspended), &real),
    ];
    let mut seen = Vec::new();
    for (grant, key) in forged {
        let signed = Signed::sign(&Native, key, grant);
        let evidence = authority.log(&mut ForgedLog::default(), LeafKind::GRANT, signed.id(), true);
        seen.push(scene.try_post(A, pack_grant(&signed, evidence, Vec::new())).await?);
    }
    let twin = goes_on(scene, &case).await?;
    Ok(Finding::new(seen, None, twin, "the genuine grant lets the case go on"))
}

async fn split_view(scene: &mut Scene) -> Result<Finding, Failure> {
    let (case, row) = redeeming(scene).await?;
    let authority = Authority::take(scene)?;
    let signed = Signed::sign(&Native, &authority.keys.proof_signing, grant_for(&row));
    let leaf = |log: &mut ForgedLog, cosigned| authority.log(log, LeafKind::GRANT, signed.id(), cosigned);
    let fork = leaf(&mut ForgedLog::default(), false);
    let mut elsewhere = leaf(&mut ForgedLog::default(), true);
    elsewhere.nonce = nonce().0;
    let shorter = leaf(&mut ForgedLog::default(), true);
    let mut log = ForgedLog::default();
    for _ in 0..40 {
        let other = waybill_protocol::ids::MessageId(waybill_crypto::keys::Digest(opening().0));
        let _ = authority.log(&mut log, LeafKind::PROOF, other, true);
    }
    let longer = leaf(&mut log, true);
    let consistency = authority.consistency(&log, 5);
    let mut seen = Vec::new();
    for (evidence, consistency) in
        [(fork, Vec::new()), (elsewhere, Vec::new()), (shorter, Vec::new()), (longer, consistency)]
    {
        seen.push(scene.try_post(A, pack_grant(&signed, evidence, consistency)).await?);
    }
    let twin = goes_on(scene, &case).await?;
    Ok(Finding::new(seen, None, twin, "the genuine log lets the case go on"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).or_fail("a folder cannot be made")?;
    for entry in fs::read_dir(from).or_fail("a folder cannot be read")? {
        let entry = entry.or_fail("a folder cannot be read")?;
        let kind = entry.file_type().or_fail("a folder cannot be read")?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).or_fail("a file cannot be copied")?;
        }
    }
    Ok(())
}

/// Starts a server again and says how it refuses to start, if it says one of the expected words.
fn try_start(scene: &mut Scene, party: &str, words: &[(&str, &str)]) -> Seen {
    let mark = scene.mark(party);
    match scene.servant(party).restart() {
        Ok(()) => Seen::Passed(format!("{party} started")),
        Err(_) => {
            let text = scene.logged(party, mark);
            match words.iter().find(|(word, _)| text.contains(word)) {
                Some((_, code)) => Seen::refused(party, code, "start"),
                None => Seen::Passed(format!("{party} does not start: {text}")),
            }
        }
    }
}

/// The sizes that a refusal to start names: the store's own, and the witness's.
fn two_sizes(text: &str) -> Option<(u64, u64)> {
    let after = |word: &str| {
        let rest = &text[text.find(word)? + word.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    Some((after("this store's log has ")?, after("a witness has seen ")?))
}

async fn rolled_back(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    patient.migrate(scene).await?;
    let data = scene.folder(AUTHORITY).join("data");
    let (old, newest) = (data.with_extension("old"), data.with_extension("newest"));
    scene.servant(AUTHORITY).kill()?;
    copy_folder(&data, &old)?;
    scene.servant(AUTHORITY).restart()?;
    patient.migrate(scene).await?;
    scene.servant(AUTHORITY).kill()?;
    let swap = |from: &Path, to: &Path| fs::rename(from, to).or_fail("a folder cannot be moved");
    swap(&data, &newest)?;
    swap(&old, &data)?;
    let mark = scene.mark(AUTHORITY);
    let mut seen = try_start(scene, AUTHORITY, &[("log-behind-witness", "log-behind-witness")]);
    let sizes = two_sizes(&scene.logged(AUTHORITY, mark));
    if !matches!(seen, Seen::Passed(_)) && sizes.is_none_or(|(own, witnessed)| own >= witnessed) {
        seen = Seen::Passed("the two sizes are not named".to_owned());
    }
    fs::remove_dir_all(&data).or_fail("a folder cannot be removed")?;
    swap(&newest, &data)?;
    scene.servant(AUTHORITY).restart()?;
    let (_, twin) = patient.migrate(scene).await?;
    Ok(Finding::new(vec![seen], None, twin, "with its newest data the authority serves"))
}

async fn lists(scene: &mut Scene) -> Result<Finding, Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let later = patient.delegate_all(scene).await?;
    let authority = Authority::take(scene)?;
    let file = scene.folder(AUTHORITY).join("crl.pem");
    let good = fs::read(&file).or_fail("no revocation list")?;
    let stale = authority.revocation_list(&[], 9, now().0 - 8 * 86_400)?;
    let text = String::from_utf8_lossy(&good).into_owned();
    // One bit of the signature, which stands at the end.
    let at = text.rfind("\n-----END").or_fail("no PEM")? - 8;
    let mut forged = good.clone();
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let mut seen = Vec::new();
    let words: &[(&str, &str)] = &[
        ("crl-stale", "crl-stale"),
        ("does not answer /crl", "crl-missing"),
        ("the revocation list cannot be used", "crl-forged"),
    ];
    for list in [Some(stale), None, Some(forged)] {
        match list {
            Some(bytes) => fs::write(&file, bytes).or_fail("a file cannot be written")?,
            None => fs::remove_file(&file).or_fail("a file cannot be removed")?,
        }
        seen.push(try_start(scene, A, words));
    }
    fs::write(&file, &good).or_fail("a file cannot be written")?;
    scene.servant(A).restart()?;
    let twin = twin(scene, &mut b, &patient, &case).await?;
    let signing = scene.folder("hospital-b").join("keys/signing.pem");
    renew_crl(&scene.folder(AUTHORITY), NAME, &[signing], None)?;
    scene.servant(A).restart()?;
    seen.push(b.try_ask(scene, Ask::honest(&b, &patient, &later)?).await?);
    Ok(Finding::new(seen, b.measured(), twin, "with a fresh list B's request brings the record"))
}
