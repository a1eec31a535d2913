//! A wallet that was opened for one command, and its way to the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_crypto::keys::HospitalKeys;
use waybill_crypto::native::Native;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::patient::Contact;
use waybill_wallet::{Case, CaseNumber, ClosedCase, FileError, Received, Wallet, WalletError};

use super::passphrase;
use super::words;
use crate::args::WalletArgs;
use crate::console::Console;
use crate::courier::{Courier, now};
use crate::failure::{Exit, Failure};

/// Longest wait for an answer to a single question, where a person waits.
pub const ANSWER: Duration = Duration::from_secs(90);
/// After this time a host that cannot be reached ends the wait for an answer.
const UNREACHABLE: Duration = Duration::from_secs(20);
/// How long is waited between two looks at whether the hosts can be reached.
const SLICE: Duration = Duration::from_secs(5);
/// Shortest beginning of a case's id that names it.
const SHORTEST_ID: usize = 4;

/// A wallet that was opened for one command.
pub struct Session {
    /// The wallet.
    pub wallet: Wallet,
    /// Where words go.
    pub console: Console,
    courier: Option<Courier>,
    /// The keys that were pinned when the person was last told of them.
    pins: BTreeMap<HospitalId, HospitalKeys>,
}

impl Session {
    /// Opens the wallet.
    ///
    /// # Errors
    /// [`Failure`]: exit code 1 for a wrong passphrase, 3 for a file that is not there, in use or damaged.
    pub fn open(args: &WalletArgs, console: &Console) -> Result<Self, Failure> {
        // A wallet that is not there needs no passphrase.
        if !args.wallet.exists() {
            return Err(wallet_failure(FileError::Missing(args.wallet.clone()).into()));
        }
        let source = passphrase::find(args.passphrase_file.as_deref(), *console)?;
        let mut tries = source.tries();
        loop {
            let opened = Wallet::open(Arc::new(Native), &args.wallet, &source.next()?);
            tries -= 1;
            match opened {
                Ok(mut wallet) => {
                    wallet.tidy(now()).map_err(wallet_failure)?;
                    return Ok(Self::around(wallet, console));
                }
                Err(WalletError::File(FileError::WrongPassphrase)) if tries > 0 => {
                    console.note("The passphrase is wrong; once more.");
                }
                Err(error) => return Err(wallet_failure(error)),
            }
        }
    }

    /// A session around a wallet that was just made.
    #[must_use]
    pub fn around(wallet: Wallet, console: &Console) -> Self {
        let pins = pins(&wallet);
        Self { wallet, console: *console, courier: None, pins }
    }

    /// The way to the others.
    ///
    /// # Errors
    /// [`Failure`] for a wallet that does not know its authority.
    pub fn courier(&mut self) -> Result<&mut Courier, Failure> {
        if self.courier.is_none() {
            let trust = self.wallet.trust_settings().ok_or_else(|| wallet_failure(WalletError::NoTrust))?;
            let url = trust.url.as_deref().unwrap_or_default();
            self.courier = Some(Courier::trusting(&trust.root, url)?);
        }
        Ok(self.courier.as_mut().expect("it was just made"))
    }

    /// Makes ready to judge what the authority signs: asks for its newest revocation list and statement. When it cannot be reached and
    /// what the wallet holds still counts, the wallet goes on with that.
    ///
    /// # Errors
    /// [`Failure`] when the authority does not answer and the wallet holds nothing that counts, or refuses what it says.
    pub async fn refresh_trust(&mut self) -> Result<(), Failure> {
        match self.ask_authority().await {
            Err(failure) if failure.exit == Exit::Environment && self.wallet.has_usable_trust(now()) => {
                self.console.note(format!("note: {failure}; going on with what the wallet holds"));
                Ok(())
            }
            other => other,
        }
    }

    async fn ask_authority(&mut self) -> Result<(), Failure> {
        let known = self.wallet.trust_settings().is_some_and(|trust| !trust.authority_mailbox.is_empty());
        self.courier()?;
        let Self { wallet, courier: Some(courier), .. } = self else { unreachable!("it was just made") };
        if !known {
            let about = courier.about().await?;
            let mut settings = wallet.trust_settings().cloned().ok_or_else(|| wallet_failure(WalletError::NoTrust))?;
            settings.authority_mailbox = about.mailbox;
            wallet.set_trust(settings).map_err(wallet_failure)?;
        }
        courier.renew_trust(wallet).await
    }

    /// Posts and reads for at most `patience`, and tells the person what arrived beside what is waited for; gives the first thing
    /// that `wanted` makes something of, or `None`.
    ///
    /// # Errors
    /// [`Failure`] when the wallet's file cannot be written.
    pub async fn wait<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&Received) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let deadline = Instant::now() + patience;
        self.courier()?;
        loop {
            let Self { wallet, courier: Some(courier), console, pins: told } = self else {
                unreachable!("it was just made")
            };
            if wallet.watches().is_empty() {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(received) = courier.poll(wallet, left).await? else { return Ok(None) };
            tell_new_keys(*console, told, wallet, &received);
            if let Some(found) = wanted(&received) {
                return Ok(Some(found));
            }
            if let Some(news) = words::news(&received) {
                console.note(news);
            }
        }
    }

    /// As [`Self::wait`], where no answer is a failure. A host that cannot be reached for a while ends the waiting early: a person
    /// sits before it.
    ///
    /// # Errors
    /// [`Failure`] also when nothing came: the host that did not answer, if there was one.
    pub async fn answer<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&Received) -> Option<T>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let mut well = begun;
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            if let Some(found) = self.wait(left.min(SLICE), &mut wanted).await? {
                return Ok(found);
            }
            if self.courier()?.trouble().is_none() {
                well = Instant::now();
            }
            if begun.elapsed() >= patience || well.elapsed() >= UNREACHABLE || self.wallet.watches().is_empty() {
                return Err(self.courier()?.overdue());
            }
        }
    }

    /// The hospital that a text names: its name, or a beginning of it that no other hospital of the wallet has.
    ///
    /// # Errors
    /// [`Failure`] with the hospitals there are.
    pub fn hospital(&self, text: &str) -> Result<&Contact, Failure> {
        let contacts = self.wallet.contacts();
        if let Some(exact) = contacts.iter().find(|contact| contact.hospital.as_str() == text) {
            return Ok(exact);
        }
        let lower = text.to_ascii_lowercase();
        let found: Vec<&Contact> = contacts
            .iter()
            .filter(|contact| !lower.is_empty() && contact.hospital.as_str().to_ascii_lowercase().starts_with(&lower))
            .collect();
        match found[..] {
            [contact] => Ok(contact),
            [] if contacts.is_empty() => Err(Failure::failed("this wallet is registered at no hospital")
                .hint("enrol with the code that a hospital hands you at its counter: waybill patient enrol CODE")),
            [] => {
                Err(Failure::usage(format!("this wallet is not registered at `{text}`")).hint(names(contacts.iter())))
            }
            _ => Err(Failure::usage(format!("`{text}` names more than one hospital")).hint(names(found.into_iter()))),
        }
    }

    /// A case that the person named by number or by the beginning of its id; without a name, the only open one.
    ///
    /// # Errors
    /// [`Failure`] with the cases there are.
    pub fn open_case(&self, text: Option<&str>) -> Result<CaseNumber, Failure> {
        let cases = self.wallet.cases();
        match text.filter(|text| !text.is_empty()) {
            Some(text) => cases.iter().find(|case| names_open(case, text)).map(|case| case.number).ok_or_else(|| {
                Failure::usage(format!("there is no open case {text} in this wallet"))
                    .hint("list them with `waybill patient history`")
            }),
            None => match cases {
                [case] => Ok(case.number),
                [] => {
                    Err(Failure::failed("no case is open").hint("`waybill patient history` lists those that are over"))
                }
                _ => Err(Failure::usage("more than one case is open: say which").hint(format!(
                    "open are: {}",
                    cases.iter().map(|case| case.number.to_string()).collect::<Vec<_>>().join(", ")
                ))),
            },
        }
    }

    /// A closed case that the person named, or the one that ended last.
    ///
    /// # Errors
    /// [`Failure`] when there is none; for an open one, with what to do until it is over.
    pub fn closed_case(&self, text: Option<&str>) -> Result<&ClosedCase, Failure> {
        let closed = self.wallet.closed();
        let found = match text {
            Some(text) => closed.iter().rev().find(|case| names_closed(case, text)),
            None => closed.last(),
        };
        found.ok_or_else(|| match text {
            Some(text) if self.wallet.cases().iter().any(|case| names_open(case, text)) => {
                Failure::failed(format!("case {text} is not over yet")).hint("follow it with `waybill patient watch`")
            }
            Some(text) => Failure::usage(format!("there is no case {text} in this wallet"))
                .hint("list them with `waybill patient history`"),
            None => {
                Failure::failed("no case of this wallet is over yet").hint("`waybill patient status` says what is open")
            }
        })
    }
}

fn pins(wallet: &Wallet) -> BTreeMap<HospitalId, HospitalKeys> {
    wallet.contacts().iter().map(|contact| (contact.hospital.clone(), contact.keys.clone())).collect()
}

/// Says of a hospital that its keys have changed: its old key signed for the new ones, and the wallet has pinned them.
fn tell_new_keys(
    console: Console,
    told: &mut BTreeMap<HospitalId, HospitalKeys>,
    wallet: &Wallet,
    received: &Received,
) {
    let now_pinned = pins(wallet);
    let in_person = |at: &HospitalId| matches!(received, Received::Registered { hospital, .. } if hospital == at);
    for (hospital, keys) in &now_pinned {
        if told.get(hospital).is_some_and(|known| known != keys) && !in_person(hospital) {
            console.note(format!(
                "note: {hospital} has new keys; the old key has signed for them, and the wallet believes them from now on. \
                 Print its card again: waybill patient hospitals --card"
            ));
        }
    }
    *told = now_pinned;
}

fn names<'a>(contacts: impl Iterator<Item = &'a Contact>) -> String {
    let names: Vec<&str> = contacts.map(|contact| contact.hospital.as_str()).collect();
    format!("it is registered at: {}", names.join(", "))
}

fn names_case(number: CaseNumber, id: Option<String>, text: &str) -> bool {
    text == number.to_string()
        || (text.len() >= SHORTEST_ID && id.is_some_and(|id| id.starts_with(&text.to_ascii_lowercase())))
}

fn names_open(case: &Case, text: &str) -> bool {
    names_case(case.number, case.proof.map(|proof| proof.to_string()), text)
}

fn names_closed(case: &ClosedCase, text: &str) -> bool {
    names_case(case.number, case.proof.map(|proof| proof.to_string()), text)
}

/// The two hospitals of a case.
#[must_use]
pub fn parties(case: &Case) -> [HospitalId; 2] {
    [case.source.hospital.clone(), case.destination.hospital.clone()]
}

/// What the wallet refuses, with what to do next.
#[must_use]
pub fn wallet_failure(error: WalletError) -> Failure {
    match error {
        WalletError::File(error) => file_failure(error),
        WalletError::Rejected(rejection) => Failure::failed(rejection.code.sentence().to_owned()),
        WalletError::SameHospital | WalletError::Window { .. } | WalletError::UnknownCase(_) | WalletError::Card(_) => {
            Failure::usage("the wallet refuses").caused_by(error)
        }
        WalletError::NotRegistered(_) | WalletError::RegistrationExpired(_) => Failure::failed("the wallet refuses")
            .caused_by(error)
            .hint("ask for an enrolment code at the hospital's counter, then: waybill patient enrol CODE"),
        other => Failure::failed("the wallet refuses").caused_by(other),
    }
}

fn file_failure(error: FileError) -> Failure {
    let hint = match &error {
        FileError::Missing(_) => {
            "name the file with --wallet or WAYBILL_WALLET; a new one is made by `waybill patient init`, a lost one by `recover`"
        }
        FileError::Exists(_) => "name another file with --wallet; a wallet is never overwritten",
        FileError::Locked(_) => {
            "another command has it open, perhaps `migrate` or `watch`: end that one with Ctrl-C (nothing is lost), then try again"
        }
        FileError::WrongPassphrase => {
            "try again; a forgotten passphrase cannot be restored, but `waybill patient recover` makes the wallet again from the recovery code"
        }
        FileError::Damaged(_) => "restore a copy, or make the wallet again with `waybill patient recover`",
        FileError::NotAWallet(_) => "name the wallet's file with --wallet",
        _ => "check the path, its permissions and the free space",
    };
    match error {
        FileError::WrongPassphrase => Failure::failed("the passphrase is wrong").hint(hint),
        FileError::EmptyPassphrase | FileError::NotAWallet(_) => {
            Failure::usage("the wallet cannot be opened").caused_by(error).hint(hint)
        }
        other => Failure::environment("the wallet cannot be opened or kept", other).hint(hint),
    }
}

/// Writes a file that holds secrets, or says where its owner is treated: for its owner only, and never over another.
///
/// # Errors
/// [`Failure`].
pub fn write_private(file: &Path, text: &[u8]) -> Result<(), Failure> {
    waybill_server::files::write_private(file, text)
        .map_err(|e| Failure::environment(format!("{} cannot be written", file.display()), e))
}
