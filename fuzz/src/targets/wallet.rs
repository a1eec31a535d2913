//! What a wallet reads: codes on paper and on screens, and its own file.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use data_encoding::BASE32_NOPAD;
use waybill_crypto::digest::sha256;
use waybill_crypto::passphrase::{self, Cost};
use waybill_crypto::pseudonym::RootSecret;
use waybill_wallet::{RecoveryCode, Settings, Wallet, WalletFile, parse_enrolment, qr_terminal};

use crate::{cbor, fixture};

/// The passphrase of the corpus' files.
pub const PASSPHRASE: &str = "correct horse";

/// The text of some content, with the checksum that its kind asks for.
fn coded(prefix: &str, domain: &[u8], content: &[u8]) -> String {
    let check = sha256(&[domain, content]).0;
    format!("{prefix}{}", BASE32_NOPAD.encode(&[content, &check[..4]].concat()))
}

/// An enrolment code as it is typed; and the same bytes as its content, behind a checksum that fits.
pub fn enrolment_text(data: &[u8]) -> bool {
    let typed = std::str::from_utf8(data).ok().and_then(|text| parse_enrolment(text).ok());
    let text = coded("WAYBILL1:", b"waybill/1 enrolment text", data);
    let inside = parse_enrolment(&text).ok();
    if let Some(enrolment) = &inside {
        assert!(cbor::is_deterministic(data), "two encodings of one code");
        assert_eq!(waybill_wallet::enrolment_text(enrolment), text, "a code reads back");
        assert!(enrolment.mailbox.starts_with("https://"));
    }
    if let Some(enrolment) = &typed {
        let again = waybill_wallet::enrolment_text(enrolment);
        assert_eq!(parse_enrolment(&again).as_ref(), Ok(enrolment), "a code reads back");
        let spaced: String = again.to_lowercase().chars().flat_map(|c| [c, ' ']).collect();
        assert_eq!(parse_enrolment(&spaced).as_ref(), Ok(enrolment), "spaces and case do not matter");
        assert!(qr_terminal(&again).is_ok(), "a code fits a picture");
    }
    typed.is_some() || inside.is_some()
}

/// A wallet of the fixed root, in a folder of this process.
static WALLET: LazyLock<(tempfile::TempDir, Mutex<Wallet>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let code = RecoveryCode::new(RootSecret::from_bytes([7; 32]));
    let path = folder.path().join("wallet");
    let wallet = Wallet::recover(fixture::shared_backend(), &path, PASSPHRASE, settings(), &code);
    (folder, Mutex::new(wallet.expect("a wallet in an empty folder")))
});

/// The wallet that signed the corpus' cards.
pub fn wallet() -> &'static Mutex<Wallet> {
    &WALLET.1
}

/// A wallet that knows nobody yet; its passphrase costs nothing to try.
pub fn settings() -> Settings {
    Settings { relay: "relay.example".parse().expect("a host"), trust: None, cost: Cost::LEAST }
}

/// A contact card as it is typed; and the same bytes as its content, behind a checksum that fits. Nobody but the wallet makes one.
pub fn card_text(data: &[u8]) -> bool {
    let mut wallet = wallet().lock().expect("no target panics while it holds the wallet and goes on");
    let text = coded("WAYBILL-CARD1:", b"waybill/1 contact card", data);
    let mut taken = false;
    for text in [std::str::from_utf8(data).ok(), Some(&*text)].into_iter().flatten() {
        let Ok((contact, _)) = wallet.accept_card(text) else { continue };
        taken = true;
        let again = wallet.card(&contact);
        assert_eq!(wallet.accept_card(&again).ok(), Some((contact, false)), "a card reads back");
    }
    taken
}

/// A recovery code as it is typed; and 32 of the bytes as a root, in which one character is then mistyped.
pub fn recovery_code(data: &[u8]) -> bool {
    let typed = std::str::from_utf8(data).ok().and_then(|text| RecoveryCode::parse(text).ok());
    if let Some(code) = &typed {
        assert_reads_back(code);
    }
    let Some((root, rest)) = data.split_first_chunk::<32>() else { return typed.is_some() };
    let code = RecoveryCode::new(RootSecret::from_bytes(*root));
    assert_reads_back(&code);
    let (Some(at), Some(letter)) = (rest.first(), rest.get(1)) else { return typed.is_some() };
    let mut text = code.to_text().to_string().into_bytes();
    let (at, letter) = (usize::from(*at) % text.len(), b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[usize::from(*letter) % 32]);
    if text[at] != b'-' && text[at] != letter {
        text[at] = letter;
        let text = String::from_utf8(text).expect("letters and digits");
        assert!(RecoveryCode::parse(&text).is_err(), "a mistyped character is not noticed");
    }
    typed.is_some()
}

fn assert_reads_back(code: &RecoveryCode) {
    for text in [code.to_text(), code.printed()] {
        let read = RecoveryCode::parse(&text).expect("what is printed reads back");
        assert_eq!(read.root(), code.root());
    }
}

static SCRATCH: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// The first byte says what the rest is: a wallet's file, the same without its digest, its state, or a passphrase' envelope.
///
/// What asks for a costly derivation is left out here: within the bounds it is somebody's choice, and only slow.
pub fn wallet_file(data: &[u8]) -> bool {
    let Some((&kind, bytes)) = data.split_first() else { return false };
    match kind {
        0 => opens(bytes),
        1 => opens(&[bytes, &sha256(&[bytes]).0].concat()),
        2 => {
            let path = fresh_path();
            let file = WalletFile::create(fixture::backend(), &path, PASSPHRASE, Cost::LEAST, bytes);
            drop(file.expect("a file of any state can be made"));
            let (file, state) = WalletFile::open(fixture::backend(), &path, PASSPHRASE).expect("what was made opens");
            assert_eq!(&**state, bytes, "the state reads back");
            drop(file);
            let wallet = Wallet::open(fixture::shared_backend(), &path, PASSPHRASE);
            assert!(wallet.is_err() || cbor::is_deterministic(bytes), "two encodings of one state");
            wallet.is_ok()
        }
        3 if is_cheap(bytes) => passphrase::open(fixture::backend(), PASSPHRASE, "wallet", bytes).is_ok(),
        _ => false,
    }
}

fn fresh_path() -> PathBuf {
    let path = SCRATCH.path().join("wallet");
    let _ = std::fs::remove_file(&path);
    path
}

fn opens(bytes: &[u8]) -> bool {
    // Magic, version, the head of the array; then the sealed key as a byte string.
    let sealed_key = bytes.get(17..).and_then(|rest| minicbor::Decoder::new(rest).bytes().ok().map(<[u8]>::to_vec));
    if sealed_key.is_some_and(|sealed| !is_cheap(&sealed)) {
        return false;
    }
    let path = fresh_path();
    std::fs::write(&path, bytes).expect("the temporary folder takes a file");
    Wallet::open(fixture::shared_backend(), &path, PASSPHRASE).is_ok()
}

/// Whether an envelope asks for little memory and time, or is none.
fn is_cheap(envelope: &[u8]) -> bool {
    let mut decoder = minicbor::Decoder::new(envelope);
    let head = decoder.array().is_ok() && decoder.str().is_ok();
    let costs = [decoder.u32(), decoder.u32(), decoder.u32()].map(|cost| cost.unwrap_or(u32::MAX));
    !head || costs == [u32::MAX; 3] || (costs[0] <= 1024 && costs[1] <= 4 && costs[2] <= 16)
}
