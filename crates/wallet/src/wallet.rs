//! The patient's steps. Each is durable before its errand is given out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use waybill_crypto::backend::Backend;
use waybill_crypto::passphrase::Cost;
use waybill_crypto::pseudonym::RootSecret;
use waybill_protocol::authority::RECEIPT_DEADLINE_SECONDS;
use waybill_protocol::ids::{HospitalId, ProofId, Timestamp};
use waybill_protocol::messages::{EndState, KeptBack, Purpose, RevocationReason, Terms};
use waybill_protocol::patient::{Contact, Enrolment, Patient, ProofCompared, Wish};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{Kind, Parcel, from_cbor, to_cbor};
use zeroize::Zeroizing;

use crate::error::WalletError;
use crate::file::{FileError, MAX_FILE_BYTES, WalletFile};
use crate::mailbox::{MailboxName, RelayHost, ReplyMailbox, Watch};
use crate::recovery::RecoveryCode;
use crate::state::{
    Case, CaseNumber, ClosedCase, Closing, Errand, ErrandId, MAX_CONTACTS, MAX_EXCHANGES, MAX_OPEN_CASES, Outcome,
    Outgoing, Party, PendingLogin, PendingRegistration, Stage, State,
};
use crate::trust::TrustSettings;

/// How long the mailbox of a closed case, or of an unanswered exchange, is still read. Units: seconds.
pub const LINGER_SECONDS: u64 = 86_400;

/// What a new wallet needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The relay that keeps the wallet's reply mailboxes.
    pub relay: RelayHost,
    /// The authority; can be told later.
    pub trust: Option<TrustSettings>,
    /// What guessing the passphrase shall cost.
    pub cost: Cost,
}

/// One person's wallet, open. Whoever also acts for another person (a child, say) keeps a second file for them.
///
/// Security: pseudonyms and keys derive from the root secret and the hospital, so one root stands for one person everywhere.
pub struct Wallet {
    pub(crate) backend: Arc<dyn Backend>,
    file: WalletFile,
    pub(crate) state: State,
    pub(crate) trust: Option<Trust>,
    /// What was compared since the wallet was opened; after a restart the stored parcel is compared again.
    pub(crate) compared: BTreeMap<CaseNumber, ProofCompared>,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wallet({:?}, {} open cases)", self.file, self.state.cases.len())
    }
}

/// Making, opening, keeping.
impl Wallet {
    /// Makes a wallet with a fresh root secret. Show its [`Self::recovery_code`] to be written down.
    ///
    /// # Errors
    /// [`FileError`]; an existing file stays untouched.
    pub fn create(
        backend: Arc<dyn Backend>,
        path: &Path,
        passphrase: &str,
        settings: Settings,
    ) -> Result<Self, WalletError> {
        let root = RootSecret::random(&*backend);
        Self::with_root(backend, path, passphrase, settings, root)
    }

    /// Makes a wallet from a recovery code: every lasting key is back, no server is asked. Hospitals are enrolled at again, in
    /// person: their keys are pinned from what is shown there, and they find the patient by the same pseudonym.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn recover(
        backend: Arc<dyn Backend>,
        path: &Path,
        passphrase: &str,
        settings: Settings,
        code: &RecoveryCode,
    ) -> Result<Self, WalletError> {
        Self::with_root(backend, path, passphrase, settings, code.root().clone())
    }

    fn with_root(
        backend: Arc<dyn Backend>,
        path: &Path,
        passphrase: &str,
        settings: Settings,
        root: RootSecret,
    ) -> Result<Self, WalletError> {
        // Case numbers derive the delegation keys, and one delegation per key is a rule of the authority's: a recovered
        // wallet, which does not know the numbers used before, must not count from the same start.
        let mut start = [0; 4];
        backend.random(&mut start);
        let first_case = u64::from(u32::from_be_bytes(start)) << 32;
        let state = State::new(root, settings.relay, settings.trust, first_case);
        let file = WalletFile::create(&*backend, path, passphrase, settings.cost, &Zeroizing::new(to_cbor(&state)))?;
        Ok(Self { backend, file, state, trust: None, compared: BTreeMap::new() })
    }

    /// Opens a wallet.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(backend: Arc<dyn Backend>, path: &Path, passphrase: &str) -> Result<Self, WalletError> {
        let (file, bytes) = WalletFile::open(&*backend, path, passphrase)?;
        let state = decode(&bytes).ok_or_else(|| FileError::Damaged(path.to_owned()))?;
        Ok(Self { backend, file, state, trust: None, compared: BTreeMap::new() })
    }

    /// Seals the file under another passphrase.
    ///
    /// # Errors
    /// [`FileError`]; the old passphrase then still holds.
    pub fn change_passphrase(&mut self, passphrase: &str, cost: Cost) -> Result<(), WalletError> {
        let bytes = Zeroizing::new(to_cbor(&self.state));
        Ok(self.file.change_passphrase(&*self.backend, passphrase, cost, &bytes)?)
    }

    /// The code that restores every lasting key.
    ///
    /// Security: whoever reads it is the patient.
    #[must_use]
    pub fn recovery_code(&self) -> RecoveryCode {
        RecoveryCode::new(self.state.root.clone())
    }

    /// The hospitals this wallet is registered at, by name.
    #[must_use]
    pub fn contacts(&self) -> &[Contact] {
        &self.state.contacts
    }

    /// The open cases, oldest first.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.state.cases
    }

    /// The closed cases, in the order they ended.
    #[must_use]
    pub fn closed(&self) -> &[ClosedCase] {
        &self.state.closed
    }

    /// How many parcels that were not ours arrived so far.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.state.ignored
    }

    /// What is still to be posted, oldest first.
    #[must_use]
    pub fn errands(&self) -> &[Errand] {
        &self.state.outbox
    }

    /// The mailboxes in which something may still arrive.
    #[must_use]
    pub fn watches(&self) -> Vec<Watch> {
        let state = &self.state;
        let registrations = state.registrations.iter().map(|pending| &pending.mailbox);
        let logins = state.logins.iter().map(|pending| &pending.mailbox);
        let cases = state.cases.iter().map(|case| &case.mailbox);
        let closed = state.closed.iter().filter_map(|case| case.mailbox.as_ref());
        registrations.chain(logins).chain(cases).chain(closed).filter_map(ReplyMailbox::watch).collect()
    }

    /// The mailbox accepted the parcel: it need not be posted again.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn posted(&mut self, errand: ErrandId) -> Result<(), WalletError> {
        if !self.state.outbox.iter().any(|e| e.id == errand) {
            return Ok(());
        }
        self.commit(|state| state.outbox.retain(|e| e.id != errand))
    }

    /// Drops mailboxes and exchanges nothing is expected from any more.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn tidy(&mut self, now: Timestamp) -> Result<(), WalletError> {
        let fresh = move |begun: Timestamp| now < begun.plus(LINGER_SECONDS);
        self.commit(|state| {
            state.registrations.retain(|pending| fresh(pending.begun));
            state.logins.retain(|pending| fresh(pending.begun));
            for case in state.closed.iter_mut().filter(|case| !fresh(case.ended)) {
                case.mailbox = None;
            }
            let mut live: Vec<MailboxName> = state.registrations.iter().map(|pending| pending.mailbox.name()).collect();
            live.extend(state.logins.iter().map(|pending| pending.mailbox.name()));
            live.extend(state.cases.iter().map(|case| case.mailbox.name()));
            live.extend(state.closed.iter().filter_map(|case| case.mailbox.as_ref()).map(ReplyMailbox::name));
            state.outbox.retain(|errand| live.contains(&errand.answer));
        })
    }

    /// Changes the state and saves it; when saving fails, the change is undone.
    pub(crate) fn commit<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> Result<T, WalletError> {
        let before = Zeroizing::new(to_cbor(&self.state));
        let value = change(&mut self.state);
        let after = Zeroizing::new(to_cbor(&self.state));
        if before == after {
            return Ok(value);
        }
        if let Err(error) = self.file.save(&*self.backend, &after) {
            self.state = decode(&before).expect("what was just encoded decodes");
            return Err(error.into());
        }
        Ok(value)
    }

    pub(crate) fn patient(&self, now: Timestamp) -> Patient<'_> {
        Patient { ctx: Ctx { now, backend: &*self.backend }, root: &self.state.root }
    }

    fn fresh_mailbox(&self) -> ReplyMailbox {
        ReplyMailbox::fresh(&*self.backend, &self.state.relay)
    }
}

/// Decodes a state. Its size was bounded when the file was read.
fn decode(bytes: &[u8]) -> Option<State> {
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    from_cbor("wallet", bytes, limit).ok()
}

/// Registration and login.
impl Wallet {
    /// Registers at a hospital with the code it handed over in person. A registration under way there is replaced.
    ///
    /// # Errors
    /// [`WalletError::TooMany`], [`WalletError::Rejected`] for an enrolment whose key is none, [`FileError`].
    pub fn enrol(&mut self, now: Timestamp, enrolment: &Enrolment) -> Result<Errand, WalletError> {
        let others = self.state.registrations.iter().filter(|pending| pending.enrolment.hospital != enrolment.hospital);
        bounded("registrations under way", others.count(), MAX_EXCHANGES)?;
        let known = self.state.contacts.iter().find(|contact| contact.hospital == enrolment.hospital);
        if known.is_none() {
            bounded("hospitals", self.state.contacts.len(), MAX_CONTACTS)?;
        }
        let epoch = known.map_or(0, |contact| contact.epoch);
        let mailbox = self.fresh_mailbox();
        let (exchange, parcel) = self.patient(now).register(enrolment, epoch, &mailbox.address())?;
        let outgoing = Outgoing {
            to: Party::Hospital(enrolment.hospital.clone()),
            address: enrolment.mailbox.clone(),
            kind: Kind::Registration,
            parcel,
            answer: mailbox.name(),
            case: None,
        };
        let pending = PendingRegistration { enrolment: enrolment.clone(), epoch, exchange, mailbox, begun: now };
        self.commit(|state| {
            let replaced = state.registrations.iter().position(|p| p.enrolment.hospital == pending.enrolment.hospital);
            if let Some(place) = replaced {
                let old = state.registrations.remove(place);
                state.settle(old.mailbox.name());
            }
            state.registrations.push(pending);
            state.send(outgoing)
        })
    }

    /// Asks a hospital something about oneself: a preview, a page of items, who looked, or how a case stands there.
    ///
    /// # Errors
    /// [`WalletError::NotRegistered`], [`WalletError::RegistrationExpired`], [`WalletError::TooMany`], [`FileError`];
    /// [`WalletError::Rejected`] with `unexpected-message` for a voucher, which belongs to [`Self::delegate`].
    pub fn ask(&mut self, now: Timestamp, hospital: &HospitalId, purpose: Purpose) -> Result<Errand, WalletError> {
        if matches!(purpose, Purpose::Voucher { .. }) {
            return Err(Rejection::from(Code::UnexpectedMessage).into());
        }
        let contact = self.contact(now, hospital)?.clone();
        if matches!(purpose, Purpose::Watch { .. }) {
            self.withdraw(hospital, &purpose)?;
        }
        self.login(now, contact, purpose, None)
    }

    /// Withdraws a question that was not answered: whoever asks again and again fills neither the wallet nor the relay.
    fn withdraw(&mut self, hospital: &HospitalId, purpose: &Purpose) -> Result<(), WalletError> {
        let logins = self.state.logins.iter();
        let old = logins.filter(|login| &login.purpose == purpose && &login.contact.hospital == hospital);
        let old: Vec<MailboxName> = old.map(|login| login.mailbox.name()).collect();
        self.commit(|state| {
            state.logins.retain(|login| !old.contains(&login.mailbox.name()));
            old.into_iter().for_each(|mailbox| state.settle(mailbox));
        })
    }

    /// Whether a hospital still owes an answer to the question how this case stands.
    #[must_use]
    pub fn is_asking(&self, hospital: &HospitalId, proof: ProofId) -> bool {
        let purpose = Purpose::Watch { proof };
        self.state.logins.iter().any(|login| login.purpose == purpose && &login.contact.hospital == hospital)
    }

    fn login(
        &mut self,
        now: Timestamp,
        contact: Contact,
        purpose: Purpose,
        case: Option<CaseNumber>,
    ) -> Result<Errand, WalletError> {
        bounded("logins under way", self.state.logins.len(), MAX_EXCHANGES)?;
        let (pending, outgoing) = self.prepare_login(now, contact, purpose, case)?;
        self.commit(|state| {
            state.logins.push(pending);
            state.send(outgoing)
        })
    }

    fn prepare_login(
        &self,
        now: Timestamp,
        contact: Contact,
        purpose: Purpose,
        case: Option<CaseNumber>,
    ) -> Result<(PendingLogin, Outgoing), WalletError> {
        let mailbox = self.fresh_mailbox();
        let (exchange, parcel) = self.patient(now).login(&contact, purpose.clone(), &mailbox.address())?;
        let outgoing = Outgoing {
            to: Party::Hospital(contact.hospital.clone()),
            address: contact.mailbox.clone(),
            kind: Kind::Login,
            parcel,
            answer: mailbox.name(),
            case,
        };
        Ok((PendingLogin { contact, purpose, exchange, mailbox, begun: now, case }, outgoing))
    }

    /// A hospital the wallet may still log in at.
    fn contact(&self, now: Timestamp, hospital: &HospitalId) -> Result<&Contact, WalletError> {
        let found = self.state.contacts.iter().find(|contact| &contact.hospital == hospital);
        let contact = found.ok_or_else(|| WalletError::NotRegistered(hospital.clone()))?;
        if now > contact.expires { Err(WalletError::RegistrationExpired(hospital.clone())) } else { Ok(contact) }
    }
}

/// Cases.
impl Wallet {
    /// Begins a case: drafts the delegation and logs in at the source for the voucher. When that arrives, the delegation is signed.
    ///
    /// # Errors
    /// [`WalletError::NoTrust`], [`WalletError::SameHospital`], [`WalletError::Window`], [`WalletError::NotRegistered`],
    /// [`WalletError::RegistrationExpired`], [`WalletError::TooMany`], [`FileError`].
    pub fn delegate(
        &mut self,
        now: Timestamp,
        source: &HospitalId,
        destination: &HospitalId,
        wish: Wish,
    ) -> Result<(CaseNumber, Errand), WalletError> {
        if self.state.trust.is_none() {
            return Err(WalletError::NoTrust);
        }
        if source == destination {
            return Err(WalletError::SameHospital);
        }
        check_window(now, &wish)?;
        bounded("open cases", self.state.cases.len(), MAX_OPEN_CASES)?;
        bounded("logins under way", self.state.logins.len(), MAX_EXCHANGES)?;
        let (source, destination) = (self.contact(now, source)?.clone(), self.contact(now, destination)?.clone());
        let number = CaseNumber(self.state.next_case);
        let patient = self.patient(now);
        let draft = patient.draft(number.0, &source, &destination, wish);
        let purpose = patient.voucher_purpose(&draft);
        let (pending, outgoing) = self.prepare_login(now, source.clone(), purpose, Some(number))?;
        let case = Case {
            number,
            stage: Stage::AwaitingVoucher,
            source,
            destination,
            begun: now,
            proof: None,
            notices: Vec::new(),
            draft,
            mailbox: self.fresh_mailbox(),
            bundle: None,
            proof_parcel: None,
            presentation: None,
            revocation: None,
            statement: None,
            foretold: None,
        };
        let errand = self.commit(|state| {
            state.next_case += 1;
            state.cases.push(case);
            state.logins.push(pending);
            state.send(outgoing)
        })?;
        Ok((number, errand))
    }

    /// Logs in again for the voucher: a login is only good for a few minutes, and one may be refused for the time being.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`WalletError::WrongStage`], [`FileError`].
    pub fn retry_voucher(&mut self, now: Timestamp, number: CaseNumber) -> Result<Errand, WalletError> {
        let case = self.case(number)?;
        expect(case, &[Stage::AwaitingVoucher], "there is a voucher already")?;
        let purpose = self.patient(now).voucher_purpose(&case.draft);
        let (pending, outgoing) = self.prepare_login(now, case.source.clone(), purpose, Some(number))?;
        self.commit(|state| {
            let mailboxes =
                state.logins.iter().filter(|login| login.case == Some(number)).map(|login| login.mailbox.name());
            for mailbox in mailboxes.collect::<Vec<_>>() {
                state.settle(mailbox);
            }
            state.logins.retain(|login| login.case != Some(number));
            state.logins.push(pending);
            state.send(outgoing)
        })
    }

    /// Consents at the source and presents the proof at the destination: the patient's last word, after which the record moves.
    ///
    /// The proof was compared with the delegation when it arrived; after a restart it is compared again. Taken twice, the same
    /// bytes are given out again.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`WalletError::WrongStage`], [`WalletError::Rejected`] when the proof no longer verifies,
    /// [`WalletError::TrustInvalid`], [`FileError`].
    pub fn consent(&mut self, now: Timestamp, number: CaseNumber) -> Result<Errand, WalletError> {
        let case = self.case(number)?;
        if case.stage == Stage::AwaitingEnd {
            return self.present_again(number);
        }
        expect(case, &[Stage::ProofHeld], "consent needs a proof that was compared with the delegation")?;
        if case.is_stopping() {
            let hint = "it was revoked; who revokes does not consent afterwards";
            return Err(WalletError::WrongStage { case: number, stage: case.stage, hint });
        }
        let compared = self.compared_proof(now, number)?;
        let case = self.case(number)?;
        let address = case.mailbox.address();
        let parcel = self.patient(now).present(&case.draft, &compared, &case.source, &case.destination, &address)?;
        let outgoing = presentation(number, &case.destination, case.mailbox.name(), parcel.clone());
        self.commit(|state| {
            if let Some(case) = state.case_mut(number) {
                case.stage = Stage::AwaitingEnd;
                case.presentation = Some(parcel);
            }
            state.send(outgoing)
        })
    }

    /// Takes the comparison from memory, or makes it again from the stored parcel.
    fn compared_proof(&mut self, now: Timestamp, number: CaseNumber) -> Result<ProofCompared, WalletError> {
        if let Some(compared) = self.compared.get(&number) {
            return Ok(compared.clone());
        }
        self.ready_trust(now)?;
        let trust = self.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let case = self.case(number)?;
        let bytes = case.proof_parcel.as_deref().unwrap_or_default();
        let parcel = Parcel::parse(bytes).map_err(Rejection::from)?;
        let compared = self.patient(now).accept_proof(trust, &case.draft, &parcel)?;
        self.compared.insert(number, compared.clone());
        Ok(compared)
    }

    /// The same presentation once more, byte for byte: for a destination that lost it. A case that is over gives it too; the
    /// destination then refuses, because a proof is good for one transfer.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`] also when nothing was presented, [`FileError`].
    pub fn present_again(&mut self, number: CaseNumber) -> Result<Errand, WalletError> {
        let waiting = |errand: &&Errand| errand.case == Some(number) && errand.kind == Kind::Presentation;
        if let Some(errand) = self.state.outbox.iter().find(waiting) {
            return Ok(errand.clone());
        }
        let open = self.state.case(number).map(|c| (&c.destination, c.presentation.as_ref(), Some(c.mailbox.name())));
        let closed = || self.state.closed.iter().find(|c| c.number == number);
        let closed =
            || closed().map(|c| (&c.destination, c.presentation.as_ref(), c.mailbox.as_ref().map(ReplyMailbox::name)));
        let Some((destination, Some(parcel), Some(mailbox))) = open.or_else(closed) else {
            return Err(WalletError::UnknownCase(number));
        };
        let outgoing = presentation(number, destination, mailbox, parcel.clone());
        self.commit(|state| state.send(outgoing))
    }

    /// Stops a case: tells authority, source and destination. It works until the key is released; who was faster, the
    /// authority's statement says.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`WalletError::WrongStage`] before there is a proof, [`WalletError::NoTrust`], [`FileError`].
    pub fn revoke(
        &mut self,
        now: Timestamp,
        number: CaseNumber,
        reason: RevocationReason,
    ) -> Result<Vec<Errand>, WalletError> {
        let authority = self.state.trust.as_ref().ok_or(WalletError::NoTrust)?.authority_mailbox.clone();
        let case = self.case(number)?;
        let stages = [Stage::ProofHeld, Stage::AwaitingEnd];
        expect(case, &stages, "only a case with a proof whose key is not out can be revoked; forget it instead")?;
        let proof = case.proof.ok_or(WalletError::UnknownCase(number))?;
        // The same bytes however often it is asked for, so that every party sees one revocation.
        let parcel = case.revocation.clone().unwrap_or_else(|| self.patient(now).revoke(&case.draft, proof, reason));
        let answer = case.mailbox.name();
        let hospitals =
            [&case.source, &case.destination].map(|c| (Party::Hospital(c.hospital.clone()), c.mailbox.clone()));
        let all = [(Party::Authority, authority)].into_iter().chain(hospitals);
        let outgoing: Vec<Outgoing> = all
            .map(|(to, address)| Outgoing {
                to,
                address,
                kind: Kind::Revocation,
                parcel: parcel.clone(),
                answer,
                case: Some(number),
            })
            .collect();
        self.commit(|state| {
            if let Some(case) = state.case_mut(number) {
                case.revocation = Some(parcel);
            }
            state.outbox.retain(|errand| errand.case != Some(number));
            outgoing.into_iter().map(|parcel| state.send(parcel)).collect()
        })
    }

    /// Keeps what the source's preview said would stay, and why. Afterwards nobody says it: the destination, whose receipt ends the
    /// case, must not learn the reasons.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`FileError`].
    pub fn foretell(&mut self, number: CaseNumber, kept: Vec<KeptBack>) -> Result<(), WalletError> {
        self.case(number)?;
        self.commit(|state| {
            if let Some(case) = state.case_mut(number) {
                case.foretold = Some(kept);
            }
        })
    }

    /// An open case.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`].
    pub fn open_case(&self, number: CaseNumber) -> Result<&Case, WalletError> {
        self.case(number)
    }

    /// Gives a case up. Without a consent nothing ever moves; where there is one, revoke it first and wait for the end.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`WalletError::WrongStage`] while the case may still move, [`FileError`].
    pub fn forget(&mut self, now: Timestamp, number: CaseNumber) -> Result<(), WalletError> {
        let case = self.case(number)?;
        let over = now > case.draft.terms.expires.plus(RECEIPT_DEADLINE_SECONDS);
        if case.stage == Stage::AwaitingEnd && !over {
            let hint = "the record may still move: revoke the case, or wait for its end";
            return Err(WalletError::WrongStage { case: number, stage: case.stage, hint });
        }
        let outcome = match case.stage {
            Stage::Unacknowledged => Outcome::Ended(EndState::Unacknowledged),
            _ => Outcome::Abandoned,
        };
        let closing = Closing { outcome, statement: case.statement.clone(), receipt: None };
        self.commit(|state| state.close(number, now, closing))?;
        self.compared.remove(&number);
        Ok(())
    }

    pub(crate) fn case(&self, number: CaseNumber) -> Result<&Case, WalletError> {
        self.state.case(number).ok_or(WalletError::UnknownCase(number))
    }
}

fn presentation(number: CaseNumber, destination: &Contact, answer: MailboxName, parcel: Vec<u8>) -> Outgoing {
    Outgoing {
        to: Party::Hospital(destination.hospital.clone()),
        address: destination.mailbox.clone(),
        kind: Kind::Presentation,
        parcel,
        answer,
        case: Some(number),
    }
}

fn expect(case: &Case, stages: &[Stage], hint: &'static str) -> Result<(), WalletError> {
    if stages.contains(&case.stage) {
        return Ok(());
    }
    Err(WalletError::WrongStage { case: case.number, stage: case.stage, hint })
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), WalletError> {
    if count < limit { Ok(()) } else { Err(WalletError::TooMany { what, limit }) }
}

fn check_window(now: Timestamp, wish: &Wish) -> Result<(), WalletError> {
    let lifetime = wish.expires.0.checked_sub(wish.not_before.0);
    // The authority also counts from its own clock.
    let ahead = wish.expires.0.saturating_sub(now.0);
    let plausible = lifetime.is_some_and(|l| l <= Terms::MAX_LIFETIME_SECONDS)
        && (1..=Terms::MAX_LIFETIME_SECONDS).contains(&ahead);
    if plausible { Ok(()) } else { Err(WalletError::Window { max_days: Terms::MAX_LIFETIME_SECONDS / 86_400 }) }
}
