//! Wallet and hospitals: `init`, `recover`, `enrol`, `hospitals`, `remove`, `passphrase`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use waybill_crypto::native::Native;
use waybill_crypto::passphrase::Cost;
use waybill_protocol::patient::Enrolment;
use waybill_server::files;
use waybill_wallet::{Received, RecoveryCode, Settings, Wallet, parse_enrolment};
use zeroize::Zeroizing;

use super::session::{Session, wallet_failure, write_private};
use super::words::{self, ContactView};
use super::{paper, passphrase};
use crate::args::WalletArgs;
use crate::console::Console;
use crate::courier::now;
use crate::failure::{Exit, Failure};
use crate::network_file::NetworkFile;

/// Longest code that is read from standard input. Units: bytes.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

fn settings(network: &NetworkFile) -> Result<Settings, Failure> {
    Ok(Settings { relay: network.relay_host()?, trust: Some(network.trust()?), cost: Cost::RECOMMENDED })
}

/// Refuses early where a wallet is already, before anybody thinks of a passphrase.
fn vacant(args: &WalletArgs) -> Result<(), Failure> {
    if std::fs::symlink_metadata(&args.wallet).is_ok() {
        return Err(wallet_failure(waybill_wallet::FileError::Exists(args.wallet.clone()).into()));
    }
    Ok(())
}

/// Makes a wallet and shows its recovery code.
///
/// # Errors
/// [`Failure`]; an existing file stays untouched.
pub async fn init(args: &WalletArgs, network: &Path, paper: Option<&Path>, console: &Console) -> Result<Exit, Failure> {
    vacant(args)?;
    let network = NetworkFile::read(network)?;
    let passphrase = passphrase::choose(args.passphrase_file.as_deref(), *console)?;
    let wallet = Wallet::create(Arc::new(Native), &args.wallet, &passphrase, settings(&network)?);
    let wallet = wallet.map_err(wallet_failure)?;
    let code = wallet.recovery_code();
    let mut session = Session::around(wallet, console);
    // The wallet is made whether or not the authority answers now; it is asked again whenever it is needed.
    let reached = session.refresh_trust().await;
    if let Some(paper) = paper {
        write_private(paper, paper::sheet(&session.wallet).as_bytes())?;
    }
    told_network(console, &network);
    console.say(format!("The wallet is {}.", args.wallet.display()));
    console.say("\nRecovery code - write it down now, it is not shown again:\n");
    console.say(code.printed().as_str());
    if let Some(paper) = paper {
        console.say(format!("It is also in {}. Print it, then delete the file.", paper.display()));
    }
    console.say("Next: waybill patient enrol CODE, with the code that a hospital hands you at its counter.");
    if let Err(failure) = &reached {
        console.note(format!("note: {failure}; it is asked again when it is needed"));
    }
    console.json(&json!({
        "wallet": args.wallet,
        "recovery_code": code.to_text().as_str(),
        "authority": network.name,
        "fingerprint": network.fingerprint()?,
        "authority_reached": reached.is_ok(),
        "paper": paper,
    }));
    Ok(Exit::Success)
}

fn told_network(console: &Console, network: &NetworkFile) {
    console.say(format!("You trust {}; the fingerprint of its root is", network.name));
    console.say(format!("  {}", network.fingerprint().unwrap_or_default()));
    console.say("Compare it with one that you got another way.");
}

/// Makes a wallet again from its code, and its hospitals from their cards. No server is asked.
///
/// # Errors
/// [`Failure`]; an existing file stays untouched.
pub fn recover(
    args: &WalletArgs,
    network: &Path,
    code_file: Option<&Path>,
    cards: &[PathBuf],
    console: &Console,
) -> Result<Exit, Failure> {
    vacant(args)?;
    let network = NetworkFile::read(network)?;
    let (code, mut texts) = find_code(code_file, console)?;
    for file in cards {
        let found = paper::read_cards(&read_text(file)?);
        if found.is_empty() {
            return Err(Failure::usage(format!("there is no contact card in {}", file.display()))
                .hint("a card begins with WAYBILL-CARD1: and is printed by `hospitals --card` and `init --paper`"));
        }
        texts.extend(found);
    }
    let passphrase = passphrase::choose(args.passphrase_file.as_deref(), *console)?;
    let wallet = Wallet::recover(Arc::new(Native), &args.wallet, &passphrase, settings(&network)?, &code);
    let mut wallet = wallet.map_err(wallet_failure)?;
    for text in &texts {
        if let Err(error) = wallet.accept_card(text) {
            // A wallet with half its hospitals would look whole: begin again instead.
            drop(wallet);
            let removed = std::fs::remove_file(&args.wallet);
            let hint = match removed {
                Ok(()) => "no wallet was made; leave the card out, and enrol at that hospital again, in person",
                Err(_) => "remove the wallet's file, leave the card out, and enrol at that hospital again, in person",
            };
            return Err(wallet_failure(error).hint(hint));
        }
    }
    let hospitals: Vec<String> = wallet.contacts().iter().map(|contact| contact.hospital.to_string()).collect();
    told_network(console, &network);
    console.say(format!("The wallet is {} again. No server was asked.", args.wallet.display()));
    if hospitals.is_empty() {
        console.say("It knows no hospital yet: enrol at each one again, in person, or recover with --card.");
    } else {
        console.say(format!("It knows {} from their cards.", hospitals.join(", ")));
    }
    console.json(&json!({ "wallet": args.wallet, "authority": network.name, "hospitals": hospitals }));
    Ok(Exit::Success)
}

/// The recovery code, and the cards that stand on the same sheet.
fn find_code(file: Option<&Path>, console: &Console) -> Result<(RecoveryCode, Vec<String>), Failure> {
    let text = match file {
        Some(file) => read_text(file)?,
        None if console.can_ask() => ask_code(*console)?,
        None => {
            return Err(Failure::usage("the recovery code is needed and nobody can be asked")
                .hint("name a file that holds it with --code-file"));
        }
    };
    Ok((paper::read_code(&text)?, paper::read_cards(&text)))
}

/// Asks line by line until 64 characters are there, as they stand on the paper.
fn ask_code(console: Console) -> Result<Zeroizing<String>, Failure> {
    console.note("Type the recovery code as it stands on the paper, in one line or several; end with an empty line.");
    let mut text = Zeroizing::new(String::new());
    loop {
        let mut line = Zeroizing::new(String::new());
        let read = std::io::stdin()
            .read_line(&mut line)
            .map_err(|e| Failure::environment("the terminal cannot be read", e))?;
        if read == 0 || line.trim().is_empty() {
            return Ok(text);
        }
        text.push_str(&line);
    }
}

fn read_text(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = files::read(file).map_err(|e| Failure::environment("the file cannot be read", e))?;
    let text =
        String::from_utf8(bytes.to_vec()).map_err(|_| Failure::usage(format!("{} is not text", file.display())))?;
    Ok(Zeroizing::new(text))
}

/// Reads an enrolment code that was given as text, as a file, or on standard input.
///
/// # Errors
/// [`Failure`] with exit code 2 for a text that is none.
pub fn read_code(given: &str) -> Result<Enrolment, Failure> {
    let text = if given == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text);
        read.map_err(|e| Failure::environment("standard input cannot be read", e))?;
        Zeroizing::new(text)
    } else if Path::new(given).is_file() {
        read_text(Path::new(given))?
    } else {
        Zeroizing::new(given.to_owned())
    };
    // A file that a hospital printed also holds the picture and some words.
    let line = text.lines().map(str::trim).find(|line| line.to_ascii_uppercase().starts_with("WAYBILL"));
    parse_enrolment(line.filter(|_| text.lines().count() > 1).unwrap_or(&text)).map_err(|e| {
        Failure::usage("the enrolment code cannot be used").caused_by(e).hint(
            "give the whole text that begins with WAYBILL1:, or a file that holds it; the hospital's counter makes a new one",
        )
    })
}

/// Registers at a hospital.
///
/// # Errors
/// [`Failure`] also when the hospital refuses, or does not answer in time: to a code that it does not know it says nothing at all.
pub async fn enrol(session: &mut Session, enrolment: &Enrolment, wait: Duration) -> Result<Exit, Failure> {
    let hospital = enrolment.hospital.clone();
    session.wallet.enrol(now(), enrolment).map_err(wallet_failure)?;
    let progress = session.console.progress(format!("registering at {hospital}"));
    let answer = session.answer(wait, |received| match received {
        Received::Registered { hospital: at, keys_changed } if *at == hospital => Some(Ok(*keys_changed)),
        Received::RegistrationRefused { hospital: at, code } if *at == hospital => Some(Err(*code)),
        _ => None,
    });
    let answer = answer.await;
    drop(progress);
    let answer = answer.map_err(|failure| match failure.exit {
        Exit::Failed => failure.hint(format!(
            "a code that was used or has run out is not answered: ask for a new one at {hospital}; if it is new, try again later, or ask \
             there whether the relay in this wallet's network file is one that it answers to (the code is not spent otherwise)"
        )),
        _ => failure,
    });
    match answer? {
        Ok(keys_changed) => {
            let contact = session.hospital(hospital.as_str())?;
            session.console.say(words::registered(hospital.as_str(), keys_changed));
            session.console.say(format!(
                "  as {}, for {}, until {}",
                words::relation(contact.relation),
                words::limits(&contact.limits),
                words::expiry(contact.expires, now())
            ));
            session.console.say("Its card belongs beside the recovery code: waybill patient hospitals --card");
            session.console.json(&ContactView::of(contact, now(), None));
            Ok(Exit::Success)
        }
        Err(code) => Err(Failure::failed(format!("{hospital} refuses to register this wallet: {}", code.sentence()))
            .hint("ask at its counter for a new code; each is good once, and for a short time")),
    }
}

/// Lists the hospitals, with cards where they were asked for.
///
/// # Errors
/// [`Failure`].
pub fn hospitals(session: &Session, only: Option<&str>, cards: bool, out: Option<&Path>) -> Result<Exit, Failure> {
    let chosen = match only {
        Some(text) => vec![session.hospital(text)?],
        None => session.wallet.contacts().iter().collect(),
    };
    let card = |contact| cards.then(|| session.wallet.card(contact));
    let views: Vec<ContactView> = chosen.iter().map(|contact| ContactView::of(contact, now(), card(contact))).collect();
    session.console.json(&views);
    if chosen.is_empty() {
        session.console.say(
            "This wallet is registered at no hospital. Enrol with the code that a hospital hands you at its counter:",
        );
        session.console.say("  waybill patient enrol CODE");
        return Ok(Exit::Success);
    }
    if cards {
        let text: Vec<String> = chosen.iter().map(|contact| paper::card(&session.wallet, contact)).collect();
        match out {
            Some(file) => {
                write_private(file, text.join("\n").as_bytes())?;
                session.console.say(format!("{} card(s) are in {}.", text.len(), file.display()));
            }
            None => session.console.say(text.join("\n")),
        }
        return Ok(Exit::Success);
    }
    for contact in chosen {
        session.console.say(format!("{}", contact.hospital));
        session.console.say(format!("  registered as  {}", words::relation(contact.relation)));
        session.console.say(format!("  may decide     {}", words::limits(&contact.limits)));
        session.console.say(format!("  until          {}", words::expiry(contact.expires, now())));
        session.console.say(format!("  pinned keys    {}", contact.keys.thumb()));
    }
    Ok(Exit::Success)
}

/// Removes the wallet's file. Its passphrase was asked for, so that nobody removes somebody else's by mistake.
///
/// # Errors
/// [`Failure`] while a case is open: its end could not be read any more.
pub fn remove(session: Session, file: &Path, yes: bool) -> Result<Exit, Failure> {
    let console = session.console;
    if let Some(open) = session.wallet.cases().first() {
        return Err(Failure::failed(format!(
            "case {} is still open, and only this wallet can read its end",
            open.number
        ))
        .hint("follow it with `waybill patient watch`, or stop it with `waybill patient stop`"));
    }
    let question =
        "Remove this wallet? Only the recovery code on paper brings its keys back; receipts and history are gone.";
    if !yes && !console.confirm(question, "add --yes when receipts and evidence are printed or kept elsewhere")? {
        return Err(Failure::failed("nothing was removed"));
    }
    drop(session);
    std::fs::remove_file(file).map_err(|e| Failure::environment(format!("{} cannot be removed", file.display()), e))?;
    // The lock beside it is empty; one that stays harms nobody.
    let mut lock = file.as_os_str().to_owned();
    lock.push(".lock");
    let _ = std::fs::remove_file(lock);
    console.result(&json!({ "removed": file }), format!("{} is removed from this machine.", file.display()));
    Ok(Exit::Success)
}

/// Seals the wallet under another passphrase.
///
/// # Errors
/// [`Failure`]; the old passphrase then still holds.
pub fn change_passphrase(session: &mut Session, file: Option<&Path>) -> Result<Exit, Failure> {
    let chosen = match file {
        Some(file) => passphrase::choose(Some(file), session.console)?,
        None if session.console.can_ask() => passphrase::choose_at_terminal()?,
        None => {
            return Err(Failure::usage("a new passphrase is needed and nobody can be asked")
                .hint("name a file that holds it with --new-passphrase-file"));
        }
    };
    session.wallet.change_passphrase(&chosen, Cost::RECOMMENDED).map_err(wallet_failure)?;
    session.console.result(&json!({ "changed": true }), "The wallet opens with the new passphrase from now on.");
    Ok(Exit::Success)
}
