//! What arrives. A mailbox can be filled by anybody who learns its address, so nothing that arrives is ever an error: what is
//! not ours is ignored and counted.

use waybill_crypto::keys::{Digest, HospitalKeys};
use waybill_protocol::ids::{HospitalId, ProofId, Timestamp};
use waybill_protocol::messages::{
    Disclosure, EndState, Item, LoginOutcome, Preview, Purpose, Refusal, RefusalBody, StatementBody, VoucherGrant,
};
use waybill_protocol::patient::Contact;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::Unverified;
use waybill_protocol::wire::{Kind, Parcel};

use crate::error::WalletError;
use crate::mailbox::MailboxName;
use crate::state::{
    CaseNumber, ClosedCase, Closing, Errand, Notice, Outcome, Outgoing, Party, PendingLogin, PendingRegistration,
    Stage, note,
};
use crate::wallet::Wallet;

/// Why a parcel was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Nothing is expected in this mailbox (any more).
    Unwatched,
    /// Not what is expected: not for us, not signed by whom it must be, or not of this protocol.
    NotOurs(Code),
}

/// What a parcel was. Acknowledge it to the mailbox, unless it is [`Self::NeedsFreshTrust`].
#[derive(Debug, Clone)]
pub enum Received {
    /// Not ours; counted, nothing else.
    Ignored(Ignored),
    /// An answer that came before.
    Duplicate,
    /// May be ours, but cannot be judged with an outdated revocation list or authority statement. Fetch them
    /// ([`Wallet::renew_trust`]) and hand the parcel in again; if it is still so, leave it in the mailbox and go on.
    NeedsFreshTrust(Code),
    /// A hospital registered the wallet.
    Registered {
        /// Which.
        hospital: HospitalId,
        /// It was registered there before, and the hospital's keys have changed since.
        keys_changed: bool,
    },
    /// A hospital refused to register it.
    RegistrationRefused {
        /// Which.
        hospital: HospitalId,
        /// Why.
        code: Code,
    },
    /// What a hospital holds.
    Preview {
        /// Which.
        hospital: HospitalId,
        /// What is held, and what would travel.
        preview: Preview,
    },
    /// A page of what a hospital holds of one type.
    Items {
        /// Which.
        hospital: HospitalId,
        /// In order of their ids.
        items: Vec<Item>,
        /// Whether there are more.
        more: bool,
    },
    /// A page of who looked at the record.
    Disclosures {
        /// Where.
        hospital: HospitalId,
        /// In the order they happened.
        entries: Vec<Disclosure>,
        /// Whether there are more.
        more: bool,
    },
    /// How a case stands at a hospital.
    Watched {
        /// Which.
        hospital: HospitalId,
        /// The case.
        proof: ProofId,
        /// The state's name there.
        state: String,
        /// Where a code says more.
        code: Option<Code>,
    },
    /// A hospital refused a login. A case that needed it is closed, unless the code says that it can be tried again.
    LoginRefused {
        /// Which.
        hospital: HospitalId,
        /// Why.
        code: Code,
        /// The case that waits for a voucher.
        case: Option<CaseNumber>,
        /// The case that was asked about.
        about: Option<ProofId>,
    },
    /// The source vouched; the delegation is signed and to be posted.
    Vouched {
        /// The case.
        case: CaseNumber,
        /// The delegation, to the authority.
        errand: Errand,
    },
    /// The proof came and says in every field what was delegated. [`Wallet::consent`] is next.
    Proof {
        /// The case.
        case: CaseNumber,
        /// Its id.
        proof: ProofId,
    },
    /// The authority signed something else than was delegated, or did not log it: do not consent, tell the auditors.
    ProofRefused {
        /// The case.
        case: CaseNumber,
        /// What is wrong.
        code: Code,
    },
    /// Somebody in the case signed a refusal. Before there is a proof it ends the case.
    Refused {
        /// The case.
        case: CaseNumber,
        /// Who and why.
        notice: Notice,
    },
    /// The case's end, signed, logged, and with a receipt that the destination signed where there is one.
    Ended {
        /// The case.
        case: CaseNumber,
        /// How it ended.
        state: EndState,
    },
}

impl Wallet {
    /// Takes a parcel from a mailbox.
    ///
    /// # Errors
    /// [`WalletError::File`] alone: then it must be handed in again.
    pub fn receive(&mut self, now: Timestamp, mailbox: MailboxName, letter: &[u8]) -> Result<Received, WalletError> {
        let received = match Parcel::parse(letter) {
            Ok(parcel) => self.dispatch(now, mailbox, &parcel, letter),
            Err(error) => Err(Stop::NotOurs(Rejection::from(error).code)),
        };
        match received {
            Ok(received) => Ok(received),
            Err(Stop::File(error)) => Err(error),
            Err(Stop::NotOurs(code)) => Ok(self.ignore(Ignored::NotOurs(code))),
            Err(Stop::Unwatched) => Ok(self.ignore(Ignored::Unwatched)),
            Err(Stop::FreshTrust(code)) => Ok(Received::NeedsFreshTrust(code)),
        }
    }

    /// Counts; becomes durable with the next step, so that a flood of strangers' parcels costs no writing.
    fn ignore(&mut self, why: Ignored) -> Received {
        self.state.ignored = self.state.ignored.saturating_add(1);
        Received::Ignored(why)
    }

    fn dispatch(
        &mut self,
        now: Timestamp,
        mailbox: MailboxName,
        parcel: &Parcel,
        letter: &[u8],
    ) -> Result<Received, Stop> {
        let state = &self.state;
        if let Some(pending) = state.registrations.iter().find(|pending| pending.mailbox.name() == mailbox).cloned() {
            return self.receive_registration(now, &pending, parcel);
        }
        if let Some(pending) = state.logins.iter().find(|pending| pending.mailbox.name() == mailbox).cloned() {
            return self.receive_login(now, &pending, parcel);
        }
        if let Some(number) = state.cases.iter().find(|case| case.mailbox.name() == mailbox).map(|case| case.number) {
            return match parcel.kind {
                Kind::ProofAnswer => self.receive_proof(now, number, parcel, letter),
                Kind::CaseStatement => self.receive_statement(now, number, parcel),
                Kind::Refusal => self.receive_refusal(now, number, parcel),
                _ => Err(Stop::NotOurs(Code::UnexpectedMessage)),
            };
        }
        let late = state.closed.iter().position(|case| case.mailbox.as_ref().is_some_and(|m| m.name() == mailbox));
        late.map_or(Err(Stop::Unwatched), |place| self.receive_late(now, place, parcel))
    }

    fn receive_registration(
        &mut self,
        now: Timestamp,
        pending: &PendingRegistration,
        parcel: &Parcel,
    ) -> Result<Received, Stop> {
        let (mailbox, hospital) = (pending.mailbox.name(), pending.enrolment.hospital.clone());
        if parcel.kind == Kind::Refusal {
            let body: RefusalBody = parcel.open(Kind::Refusal, "refusal")?;
            let refusal = body.refusal.parse()?.verify(&*self.backend, &pending.enrolment.keys.signing);
            let refusal = refusal.map_err(|_| Stop::NotOurs(Code::SignatureInvalid))?;
            if refusal.message().subject != pending.exchange.request().0 {
                return Err(Stop::NotOurs(Code::UnexpectedMessage));
            }
            let code = refusal.message().code;
            self.commit(|state| {
                state.registrations.retain(|p| p.mailbox.name() != mailbox);
                state.settle(mailbox);
            })?;
            return Ok(Received::RegistrationRefused { hospital, code });
        }
        let contact =
            self.patient(now).accept_registration(&pending.exchange, &pending.enrolment, pending.epoch, parcel)?;
        let keys_changed = self.commit(|state| {
            state.registrations.retain(|p| p.mailbox.name() != mailbox);
            state.settle(mailbox);
            let known = state.contacts.iter().position(|c| c.hospital == contact.hospital);
            let old = known.map(|place| state.contacts.remove(place));
            let keys_changed = old.is_some_and(|old| old.keys != contact.keys);
            let place = state.contacts.partition_point(|c| c.hospital < contact.hospital);
            state.contacts.insert(place, contact);
            keys_changed
        })?;
        Ok(Received::Registered { hospital, keys_changed })
    }

    fn receive_login(&mut self, now: Timestamp, pending: &PendingLogin, parcel: &Parcel) -> Result<Received, Stop> {
        let (contact, hospital) = (&pending.contact, pending.contact.hospital.clone());
        if parcel.kind == Kind::Refusal {
            let (signer, code) = self.verify_refusal(now, parcel, &[contact], pending.exchange.request().0)?;
            return if signer == Party::Authority {
                Err(Stop::NotOurs(Code::SenderWrong))
            } else {
                self.login_refused(now, pending, code)
            };
        }
        let read = self.patient(now).read_login(&pending.exchange, contact, parcel)?;
        if let Some(keys) = read.new_keys {
            self.repin(&hospital, contact, keys)?;
        }
        let received = match (read.outcome, pending.case) {
            (LoginOutcome::Refused { code }, _) => return self.login_refused(now, pending, code),
            (LoginOutcome::Voucher { grant }, Some(case)) => return self.vouched(now, pending, case, grant),
            (LoginOutcome::Preview { preview }, None) => Received::Preview { hospital, preview },
            (LoginOutcome::Items { items, more }, None) => Received::Items { hospital, items, more },
            (LoginOutcome::Disclosures { entries, more }, None) => Received::Disclosures { hospital, entries, more },
            (LoginOutcome::Watch { state, code }, None) => match pending.purpose {
                Purpose::Watch { proof } => Received::Watched { hospital, proof, state, code },
                _ => return Err(Stop::NotOurs(Code::UnexpectedMessage)),
            },
            _ => return Err(Stop::NotOurs(Code::UnexpectedMessage)),
        };
        self.end_login(pending.mailbox.name())?;
        Ok(received)
    }

    /// The hospital has new keys, and the pinned one says so: what begins from now on is under these. Cases under way go on under
    /// the keys they began with.
    fn repin(&mut self, hospital: &HospitalId, asked: &Contact, keys: HospitalKeys) -> Result<(), WalletError> {
        self.commit(|state| {
            let pinned = state.contacts.iter_mut().find(|c| &c.hospital == hospital && c.keys == asked.keys);
            if let Some(pinned) = pinned {
                pinned.keys = keys;
            }
        })
    }

    fn end_login(&mut self, mailbox: MailboxName) -> Result<(), WalletError> {
        self.commit(|state| {
            state.logins.retain(|login| login.mailbox.name() != mailbox);
            state.settle(mailbox);
        })
    }

    fn login_refused(&mut self, now: Timestamp, pending: &PendingLogin, code: Code) -> Result<Received, Stop> {
        let (mailbox, hospital, case) = (pending.mailbox.name(), pending.contact.hospital.clone(), pending.case);
        let notice = Notice { from: Party::Hospital(hospital.clone()), code, time: now };
        self.commit(|state| {
            state.logins.retain(|login| login.mailbox.name() != mailbox);
            state.settle(mailbox);
            if let Some(open) = case.and_then(|number| state.case_mut(number)) {
                open.note(notice);
                let number = open.number;
                if !code.retryable() {
                    state.close(number, now, Outcome::Refused(code).into());
                }
            }
        })?;
        let about = match pending.purpose {
            Purpose::Watch { proof } => Some(proof),
            _ => None,
        };
        Ok(Received::LoginRefused { hospital, code, case, about })
    }

    /// The voucher came: the delegation is signed at once, since the patient decided when the case began.
    fn vouched(
        &mut self,
        now: Timestamp,
        pending: &PendingLogin,
        number: CaseNumber,
        grant: VoucherGrant,
    ) -> Result<Received, Stop> {
        let case = self.case(number)?;
        let settings = self.state.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let mut draft = case.draft.clone();
        let parcel = self.patient(now).delegate(&mut draft, &case.source, grant, &case.mailbox.address())?;
        let outgoing = Outgoing {
            to: Party::Authority,
            address: settings.authority_mailbox.clone(),
            kind: Kind::Delegation,
            parcel,
            answer: case.mailbox.name(),
            case: Some(number),
        };
        let mailbox = pending.mailbox.name();
        let errand = self.commit(|state| {
            state.logins.retain(|login| login.mailbox.name() != mailbox);
            state.settle(mailbox);
            if let Some(case) = state.case_mut(number) {
                case.draft = draft;
                case.stage = Stage::AwaitingProof;
            }
            state.send(outgoing)
        })?;
        Ok(Received::Vouched { case: number, errand })
    }

    fn receive_proof(
        &mut self,
        now: Timestamp,
        number: CaseNumber,
        parcel: &Parcel,
        letter: &[u8],
    ) -> Result<Received, Stop> {
        let case = self.case(number)?;
        if case.proof_parcel.as_deref() == Some(letter) {
            return Ok(Received::Duplicate);
        }
        if case.stage == Stage::AwaitingVoucher {
            return Err(Stop::NotOurs(Code::UnexpectedMessage));
        }
        self.trust_for(now)?;
        let case = self.case(number)?;
        let trust = self.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let compared = match self.patient(now).accept_proof(trust, &case.draft, parcel) {
            Ok(compared) => compared,
            // Both are found only after the authority's signature was verified: its word, and wrong.
            Err(Rejection { code: code @ (Code::ProofMismatch | Code::LogEvidenceInvalid) }) => {
                let notice = Notice { from: Party::Authority, code, time: now };
                self.commit(|state| state.case_mut(number).into_iter().for_each(|case| case.note(notice.clone())))?;
                return Ok(Received::ProofRefused { case: number, code });
            }
            Err(Rejection { code }) if code.retryable() => return Err(Stop::FreshTrust(code)),
            Err(rejection) => return Err(rejection.into()),
        };
        let proof = compared.id();
        match case.proof {
            // The seal differs every time, the proof does not.
            Some(known) if known == proof => return Ok(Received::Duplicate),
            Some(_) => return Err(Stop::NotOurs(Code::UnexpectedMessage)),
            None => {}
        }
        let bundle = compared.bundle().clone();
        self.commit(|state| {
            if let Some(case) = state.case_mut(number) {
                case.stage = Stage::ProofHeld;
                case.proof = Some(proof);
                case.bundle = Some(bundle);
                case.proof_parcel = Some(letter.to_vec());
            }
            state.outbox.retain(|errand| errand.case != Some(number));
        })?;
        self.compared.insert(number, compared);
        Ok(Received::Proof { case: number, proof })
    }

    fn receive_statement(&mut self, now: Timestamp, number: CaseNumber, parcel: &Parcel) -> Result<Received, Stop> {
        let body: StatementBody = parcel.open(Kind::CaseStatement, "case statement")?;
        self.trust_for(now)?;
        let case = self.case(number)?;
        let proof = case.proof.ok_or(Stop::NotOurs(Code::UnexpectedMessage))?;
        let trust = self.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let ending = self.patient(now).accept_statement(trust, &case.draft, proof, &case.destination, &body);
        let ending = ending.map_err(|rejection| match rejection.code {
            // The authority may have a new signing key that an older statement of it does not name.
            code @ (Code::SignatureInvalid | Code::CertificateExpired | Code::CrlStale) => Stop::FreshTrust(code),
            code => Stop::NotOurs(code),
        })?;
        let state = ending.state;
        if state == EndState::Unacknowledged {
            if case.stage == Stage::Unacknowledged {
                return Ok(Received::Duplicate);
            }
            // The receipt may still come, so the key that opens it stays.
            self.commit(|state| {
                state.outbox.retain(|errand| errand.case != Some(number));
                if let Some(case) = state.case_mut(number) {
                    case.stage = Stage::Unacknowledged;
                    case.statement = Some(body);
                }
            })?;
            return Ok(Received::Ended { case: number, state });
        }
        // The destination's signed receipt ends the case even when its inner part does not open; the wallet says so.
        let complaint = ending.code.map(|code| Notice {
            from: Party::Hospital(case.destination.hospital.clone()),
            code,
            time: now,
        });
        let receipt = ending.receipt.map(|(opening, _)| opening);
        let closing = Closing { outcome: Outcome::Ended(state), statement: Some(body), receipt };
        self.commit(|state| {
            if let (Some(case), Some(complaint)) = (state.case_mut(number), complaint) {
                case.note(complaint);
            }
            state.close(number, now, closing);
        })?;
        self.compared.remove(&number);
        Ok(Received::Ended { case: number, state })
    }

    fn receive_refusal(&mut self, now: Timestamp, number: CaseNumber, parcel: &Parcel) -> Result<Received, Stop> {
        let case = self.case(number)?;
        let delegation = case.draft.delegation.as_ref().and_then(|d| d.parse().ok()).map(|d| d.message_id().0);
        // About the delegation until there is a proof, about the proof from then on.
        let subject = case.proof.map(|proof| proof.0).or(delegation);
        let subject = subject.ok_or(Stop::NotOurs(Code::UnexpectedMessage))?;
        let (from, public) =
            self.verify_refusal(now, parcel, &[&case.source.clone(), &case.destination.clone()], subject)?;
        let case = self.case(number)?;
        let code = self.refusal_detail(now, number, subject, parcel).unwrap_or(public);
        let notice = Notice { from, code, time: now };
        if case.stage == Stage::AwaitingProof && code == Code::VoucherExpired && notice.from == Party::Authority {
            return self.voucher_expired(number, notice);
        }
        // A delegation that was posted twice is refused the second time; the proof of the first is on its way.
        let ends =
            case.stage == Stage::AwaitingProof && code != Code::DelegationRepeated && notice.from == Party::Authority;
        if case.notices.iter().any(|known| known.from == notice.from && known.code == code) {
            return Ok(Received::Duplicate);
        }
        let noted = notice.clone();
        self.commit(|state| {
            if let Some(case) = state.case_mut(number) {
                case.note(noted);
            }
            if ends {
                state.close(number, now, Outcome::Refused(code).into());
            }
        })?;
        Ok(Received::Refused { case: number, notice })
    }

    /// The delegation came too late for its voucher, and none was recorded: the case waits for a new voucher
    /// ([`Wallet::retry_voucher`]) for the same key.
    fn voucher_expired(&mut self, number: CaseNumber, notice: Notice) -> Result<Received, Stop> {
        self.commit(|state| {
            state.outbox.retain(|errand| errand.case != Some(number));
            if let Some(case) = state.case_mut(number) {
                case.stage = Stage::AwaitingVoucher;
                case.draft.delegation = None;
                case.draft.voucher = None;
            }
        })?;
        Ok(Received::Refused { case: number, notice })
    }

    /// The full code, when the refusal carries one that opens under the case's reply key.
    fn refusal_detail(&self, now: Timestamp, number: CaseNumber, subject: Digest, parcel: &Parcel) -> Option<Code> {
        let case = self.case(number).ok()?;
        let body: RefusalBody = parcel.open(Kind::Refusal, "refusal").ok()?;
        let signer = body.refusal.parse().ok()?.kid();
        let contact = if signer == case.source.keys.signing.kid() { &case.source } else { &case.destination };
        self.patient(now).accept_refusal(self.trust.as_ref()?, &case.draft, subject, contact, &body).ok()
    }

    /// Something for a case that is over: its end once more, or the refusal of a proof that was presented again.
    fn receive_late(&mut self, now: Timestamp, place: usize, parcel: &Parcel) -> Result<Received, Stop> {
        let case = self.state.closed.get(place).ok_or(Stop::Unwatched)?;
        match parcel.kind {
            Kind::CaseStatement => {
                let body: StatementBody = parcel.open(Kind::CaseStatement, "case statement")?;
                let known = case.statement.as_ref().map(|known| &known.statement);
                if known == Some(&body.statement) {
                    Ok(Received::Duplicate)
                } else {
                    Err(Stop::NotOurs(Code::UnexpectedMessage))
                }
            }
            Kind::Refusal => {
                let ClosedCase { number, source, destination, proof, .. } = case.clone();
                let subject = proof.ok_or(Stop::NotOurs(Code::UnexpectedMessage))?;
                let (from, code) = self.verify_refusal(now, parcel, &[&source, &destination], subject.0)?;
                Ok(Received::Refused { case: number, notice: Notice { from, code, time: now } })
            }
            _ => Err(Stop::NotOurs(Code::UnexpectedMessage)),
        }
    }

    /// Verifies a refusal of this very thing under a pinned key, or as the authority's.
    fn verify_refusal(
        &mut self,
        now: Timestamp,
        parcel: &Parcel,
        contacts: &[&Contact],
        subject: Digest,
    ) -> Result<(Party, Code), Stop> {
        let body: RefusalBody = parcel.open(Kind::Refusal, "refusal")?;
        let unverified: Unverified<Refusal> = body.refusal.parse()?;
        if unverified.peek().subject != subject {
            return Err(Stop::NotOurs(Code::UnexpectedMessage));
        }
        if let Some(contact) = contacts.iter().find(|contact| contact.keys.signing.kid() == unverified.kid()) {
            let refusal = unverified.verify(&*self.backend, &contact.keys.signing);
            let refusal = refusal.map_err(|_| Stop::NotOurs(Code::SignatureInvalid))?;
            // Opening the detail needs the trust too, so it is made ready where it can be.
            let _ = self.ready_trust(now);
            return Ok((Party::Hospital(contact.hospital.clone()), refusal.message().code));
        }
        self.trust_for(now)?;
        let trust = self.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let ctx = self.patient(now).ctx;
        let refusal =
            trust.verify_authority(&ctx, &body.refusal).map_err(|rejection| Stop::FreshTrust(rejection.code))?;
        Ok((Party::Authority, refusal.message().code))
    }

    /// Keeps what a hospital said of a case after it was over, such as that its staff stopped it.
    ///
    /// # Errors
    /// [`WalletError::UnknownCase`], [`crate::file::FileError`].
    pub fn note_end(&mut self, number: CaseNumber, notice: Notice) -> Result<(), WalletError> {
        let place = self.state.closed.iter().position(|case| case.number == number);
        let place = place.ok_or(WalletError::UnknownCase(number))?;
        self.commit(|state| note(&mut state.closed[place].notices, notice))
    }

    /// The trust, or the reason why the parcel must wait for a newer one.
    fn trust_for(&mut self, now: Timestamp) -> Result<(), Stop> {
        self.ready_trust(now).map_err(|error| match error {
            WalletError::Rejected(rejection) => Stop::FreshTrust(rejection.code),
            _ => Stop::FreshTrust(Code::CrlStale),
        })
    }
}

/// Why a parcel changes nothing.
enum Stop {
    File(WalletError),
    Unwatched,
    NotOurs(Code),
    FreshTrust(Code),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::NotOurs(rejection.code)
    }
}

impl From<waybill_protocol::wire::DecodeError> for Stop {
    fn from(error: waybill_protocol::wire::DecodeError) -> Self {
        Rejection::from(error).into()
    }
}

impl From<WalletError> for Stop {
    fn from(error: WalletError) -> Self {
        match error {
            WalletError::Rejected(rejection) => rejection.into(),
            WalletError::NoTrust | WalletError::TrustInvalid(_) => Self::FreshTrust(Code::CrlStale),
            WalletError::UnknownCase(_) => Self::Unwatched,
            other => Self::File(other),
        }
    }
}
