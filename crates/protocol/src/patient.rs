//! The patient: registers, logs in, delegates, compares, consents, and holds everybody to it.
//!
//! Pure functions over the root secret; the wallet crate keeps the state and talks to mailboxes.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, HpkeSecretKey, OneTimeSecret, SigningKey};
use waybill_crypto::pseudonym::{Pseudonym, RootSecret};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use crate::ids::{HospitalId, MessageId, Nonce, ProofId, Timestamp};
use crate::log::LeafKind;
use crate::messages::{
    Chain, Consent, Delegation, DelegationBody, EndState, KeyChange, Limits, LoginAnswer, LoginBody, LoginOutcome,
    LoginRequest, OutcomeClass, Presentation, PresentationBody, ProofBundle, Purpose, ReceiptDetail, ReceiptOpening,
    Refusal, RefusalBody, Registration, RegistrationAnswer, RegistrationBody, Relation, Revocation, RevocationBody,
    RevocationReason, SUITE, StatementBody, Terms, VoucherGrant,
};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Message, Signed, SignedBytes, Unverified};
use crate::source::{commitment_kind, open_receipt_detail};
use crate::trust::{Ctx, Trust};
use crate::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};

/// What a hospital hands to a patient in person, as a QR code: where to go, whom to believe, and a one-time code.
///
/// Security: carries the hospital's keys, so that the wallet pins what it was *shown*, never what a directory says.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Enrolment {
    /// The hospital.
    #[n(0)]
    pub hospital: HospitalId,
    /// Its keys, to be pinned.
    #[n(1)]
    pub keys: HospitalKeys,
    /// Its mailbox.
    #[n(2)]
    pub mailbox: String,
    /// The one-time code. Bytes: 16.
    #[n(3)]
    pub code: Nonce,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolment({})", self.hospital)
    }
}

/// A hospital the patient is registered at, with what the wallet pinned there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Contact {
    /// The hospital.
    #[n(0)]
    pub hospital: HospitalId,
    /// Its pinned keys.
    #[n(1)]
    pub keys: HospitalKeys,
    /// Its mailbox.
    #[n(2)]
    pub mailbox: String,
    /// Which derivation of pseudonym and keys is in use there.
    #[n(3)]
    pub epoch: u32,
    /// In what capacity.
    #[n(4)]
    pub relation: Relation,
    /// Until when the registration holds.
    #[n(5)]
    pub expires: Timestamp,
    /// What the key registered there may decide.
    #[n(6)]
    pub limits: Limits,
}

/// The patient's role.
pub struct Patient<'a> {
    /// Clock and primitives.
    pub ctx: Ctx<'a>,
    /// The one secret.
    pub root: &'a RootSecret,
}

/// What is needed to read the answer to a request; kept in the wallet file until the answer came.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct Exchange {
    #[n(0)]
    request: MessageId,
    #[n(1)]
    reply_secret: OneTimeSecret,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.request)
    }
}

impl Exchange {
    fn new(request: MessageId, reply: &HpkeSecretKey) -> Self {
        Self { request, reply_secret: OneTimeSecret::from_bytes(*reply.to_bytes()) }
    }

    /// The request that was made.
    #[must_use]
    pub fn request(&self) -> MessageId {
        self.request
    }

    /// Opens an answer and verifies that the pinned key signed it.
    fn open<M: Message>(
        &self,
        ctx: &Ctx<'_>,
        parcel: &Parcel,
        kind: Kind,
        purpose: SealPurpose,
        keys: &HospitalKeys,
    ) -> Result<M, Rejection> {
        let sealed: SealedBytes = parcel.open(kind, M::TYP)?;
        let plain = sealed
            .open(ctx.backend, &HpkeSecretKey::from_bytes(self.reply_secret.expose()), purpose, self.request.as_bytes())
            .map_err(|_| Code::UnexpectedMessage)?;
        let bytes: SignedBytes<M> = from_cbor(M::TYP, &plain, MAX_PARCEL_BYTES)?;
        let signed = bytes.parse()?.verify(ctx.backend, &keys.signing).map_err(|_| Code::SignatureInvalid)?;
        Ok(signed.into_message())
    }
}

/// What the patient wants moved.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Which part.
    pub scope: Scope,
    /// But for these items.
    pub hides: Hides,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}

/// A delegation in the making; kept in the wallet file until the case is over.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct Draft {
    /// Which derivation of the delegation's own keys.
    #[n(0)]
    pub number: u64,
    /// Random, so that two delegations share no key.
    #[n(1)]
    reply_secret: OneTimeSecret,
    /// The terms.
    #[n(2)]
    pub terms: Terms,
    /// Opens com_A.
    #[n(3)]
    source_opening: Opening,
    /// Opens com_B.
    #[n(4)]
    destination_opening: Opening,
    /// Opens com_S.
    #[n(5)]
    scope_opening: Opening,
    /// Opens com_H.
    #[n(6)]
    hides_opening: Opening,
    /// What may travel.
    #[n(7)]
    pub scope: Scope,
    /// What may not.
    #[n(8)]
    pub hides: Hides,
    /// The signed delegation, once there is a voucher.
    #[n(9)]
    pub delegation: Option<SignedBytes<Delegation>>,
    /// The voucher.
    #[n(10)]
    pub voucher: Option<VoucherGrant>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} -> {})", self.terms.source, self.terms.destination)
    }
}

impl Draft {
    /// The key the authority and the destination seal to.
    #[must_use]
    pub fn reply_key(&self) -> HpkeSecretKey {
        HpkeSecretKey::from_bytes(self.reply_secret.expose())
    }
}

/// A proof that says exactly what was delegated. Only [`Patient::accept_proof`] makes one; consenting demands it.
#[derive(Debug, Clone)]
pub struct ProofCompared {
    bundle: ProofBundle,
    id: ProofId,
}

impl ProofCompared {
    /// The case.
    #[must_use]
    pub fn id(&self) -> ProofId {
        self.id
    }

    /// The proof with its evidence.
    #[must_use]
    pub fn bundle(&self) -> &ProofBundle {
        &self.bundle
    }
}

/// What a hospital answered to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRead {
    /// What was asked.
    pub outcome: LoginOutcome,
    /// The hospital's new keys, vouched for by the pinned one.
    pub new_keys: Option<HospitalKeys>,
}

/// How a case ended, for the patient.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The state.
    pub state: EndState,
    /// The destination's inner receipt, verified under its pinned key, for filed and rejected cases.
    pub receipt: Option<(ReceiptOpening, ReceiptDetail)>,
    /// `receipt-invalid` when the destination's signed receipt ended the case but its inner part does not open.
    pub code: Option<Code>,
}

impl Patient<'_> {
    /// The pseudonym at a hospital.
    #[must_use]
    pub fn pid(&self, hospital: &HospitalId, epoch: u32) -> Pseudonym {
        self.root.pid(hospital.as_str(), epoch)
    }

    fn consent_key(&self, contact: &Contact) -> SigningKey {
        self.root.consent_key(contact.hospital.as_str(), contact.epoch)
    }

    /// Asks a hospital to register this wallet.
    ///
    /// # Errors
    /// `malformed` when the enrolment's HPKE key is no point.
    pub fn register(
        &self,
        enrolment: &Enrolment,
        epoch: u32,
        reply_to: &str,
    ) -> Result<(Exchange, Vec<u8>), Rejection> {
        let id = enrolment.hospital.as_str();
        let key = self.root.consent_key(id, epoch);
        let reply = self.ctx.backend.generate_hpke_key();
        let registration = Registration {
            suite: SUITE,
            hospital: enrolment.hospital.clone(),
            code: enrolment.code,
            pid: self.root.pid(id, epoch),
            consent_key: key.public().clone(),
            reply_key: *reply.public(),
            reply_to: reply_to.to_owned(),
            nonce: Nonce::random(self.ctx.backend),
            time: self.ctx.now,
        };
        let signed = Signed::sign(self.ctx.backend, &key, registration);
        let body = RegistrationBody { registration: SignedBytes::from(&signed) };
        let sealed = self.seal(&enrolment.keys.hpke, SealPurpose::Registration, id.as_bytes(), &to_cbor(&body))?;
        Ok((Exchange::new(signed.id(), &reply), Parcel::pack(Kind::Registration, &sealed)))
    }

    /// Takes the hospital's answer: signed by the key from the enrolment code, repeating both keys.
    ///
    /// # Errors
    /// `signature-invalid`, `registration-invalid`.
    pub fn accept_registration(
        &self,
        exchange: &Exchange,
        enrolment: &Enrolment,
        epoch: u32,
        parcel: &Parcel,
    ) -> Result<Contact, Rejection> {
        let answer: RegistrationAnswer = exchange.open(
            &self.ctx,
            parcel,
            Kind::RegistrationAnswer,
            SealPurpose::RegistrationAnswer,
            &enrolment.keys,
        )?;
        let fits = answer.request == exchange.request
            && answer.hospital == enrolment.hospital
            && answer.keys == enrolment.keys;
        if !fits {
            return Err(Code::RegistrationInvalid.into());
        }
        Ok(Contact {
            hospital: answer.hospital,
            keys: answer.keys,
            mailbox: enrolment.mailbox.clone(),
            epoch,
            relation: answer.relation,
            expires: answer.expires,
            limits: answer.limits,
        })
    }

    /// Logs in at a hospital for one purpose.
    ///
    /// # Errors
    /// `malformed` when the pinned HPKE key is no point.
    pub fn login(&self, contact: &Contact, purpose: Purpose, reply_to: &str) -> Result<(Exchange, Vec<u8>), Rejection> {
        let reply = self.ctx.backend.generate_hpke_key();
        let request = LoginRequest {
            suite: SUITE,
            hospital: contact.hospital.clone(),
            pid: self.pid(&contact.hospital, contact.epoch),
            nonce: Nonce::random(self.ctx.backend),
            time: self.ctx.now,
            reply_key: *reply.public(),
            reply_to: reply_to.to_owned(),
            purpose,
        };
        let signed = Signed::sign(self.ctx.backend, &self.consent_key(contact), request);
        let body = LoginBody { request: SignedBytes::from(&signed) };
        let id = contact.hospital.as_str().as_bytes();
        let sealed = self.seal(&contact.keys.hpke, SealPurpose::Login, id, &to_cbor(&body))?;
        Ok((Exchange::new(signed.id(), &reply), Parcel::pack(Kind::Login, &sealed)))
    }

    /// Takes the answer: signed by the pinned key, for exactly this request. That is the mutual authentication.
    ///
    /// # Errors
    /// `signature-invalid`, `unexpected-message`, or the code of a refused login.
    pub fn accept_login(
        &self,
        exchange: &Exchange,
        contact: &Contact,
        parcel: &Parcel,
    ) -> Result<LoginOutcome, Rejection> {
        match self.read_login(exchange, contact, parcel)?.outcome {
            LoginOutcome::Refused { code } => Err(code.into()),
            outcome => Ok(outcome),
        }
    }

    /// As [`Self::accept_login`], but a refusal is an outcome: the hospital's own word, unlike a parcel that is not its answer. Where
    /// the hospital has changed its keys, the new ones come along, to be pinned for what begins from now on.
    ///
    /// # Errors
    /// `signature-invalid`, `unexpected-message`.
    pub fn read_login(&self, exchange: &Exchange, contact: &Contact, parcel: &Parcel) -> Result<LoginRead, Rejection> {
        let answer: LoginAnswer =
            exchange.open(&self.ctx, parcel, Kind::LoginAnswer, SealPurpose::LoginAnswer, &contact.keys)?;
        if answer.request != exchange.request || answer.hospital != contact.hospital {
            return Err(Code::UnexpectedMessage.into());
        }
        let new_keys = answer.key_change.map(|change| self.accept_key_change(contact, &change)).transpose()?;
        Ok(LoginRead { outcome: answer.outcome, new_keys })
    }

    /// Takes a hospital's statement of new keys: signed by the pinned key, naming the pinned keys as those that are replaced.
    ///
    /// # Errors
    /// `signature-invalid`; `unexpected-message` for another hospital's, or a change from other keys.
    pub fn accept_key_change(
        &self,
        contact: &Contact,
        change: &SignedBytes<KeyChange>,
    ) -> Result<HospitalKeys, Rejection> {
        let change = change.parse()?.verify(self.ctx.backend, &contact.keys.signing);
        let change = change.map_err(|_| Code::SignatureInvalid)?.into_message();
        if change.hospital != contact.hospital || change.from != contact.keys.thumb() || change.to == contact.keys {
            return Err(Code::UnexpectedMessage.into());
        }
        Ok(change.to)
    }

    /// Drafts a delegation: fresh openings, fresh keys, nothing signed yet.
    #[must_use]
    pub fn draft(&self, number: u64, source: &Contact, destination: &Contact, wish: Wish) -> Draft {
        let opening = || {
            let mut bytes = [0; 32];
            self.ctx.backend.random(&mut bytes);
            Opening(bytes)
        };
        let (source_opening, destination_opening) = (opening(), opening());
        let (scope_opening, hides_opening) = (opening(), opening());
        let reply = self.ctx.backend.generate_hpke_key();
        let pid = |contact: &Contact| to_cbor(&self.pid(&contact.hospital, contact.epoch));
        let terms = Terms {
            source: source.hospital.clone(),
            destination: destination.hospital.clone(),
            com_source: Commitment::commit(commitment_kind::SOURCE, &source_opening, &pid(source)),
            com_destination: Commitment::commit(commitment_kind::DESTINATION, &destination_opening, &pid(destination)),
            com_scope: Commitment::commit(commitment_kind::SCOPE, &scope_opening, &to_cbor(&wish.scope)),
            com_hides: Commitment::commit(commitment_kind::HIDES, &hides_opening, &to_cbor(&wish.hides)),
            not_before: wish.not_before,
            expires: wish.expires,
            revocation_key: self.root.revocation_key(number).public().clone(),
            reply_key: *reply.public(),
        };
        Draft {
            number,
            reply_secret: OneTimeSecret::from_bytes(*reply.to_bytes()),
            terms,
            source_opening,
            destination_opening,
            scope_opening,
            hides_opening,
            scope: wish.scope,
            hides: wish.hides,
            delegation: None,
            voucher: None,
        }
    }

    /// What to log in for, to obtain the voucher of this draft.
    #[must_use]
    pub fn voucher_purpose(&self, draft: &Draft) -> Purpose {
        let delegation_key = self.root.delegation_key(draft.number).public().thumbprint();
        Purpose::Voucher { delegation_key, com_source: draft.terms.com_source, opening: draft.source_opening.clone() }
    }

    /// Signs the delegation. The voucher is first compared with what was asked for.
    ///
    /// # Errors
    /// `voucher-invalid`.
    pub fn delegate(
        &self,
        draft: &mut Draft,
        source: &Contact,
        voucher: VoucherGrant,
        reply_to: &str,
    ) -> Result<Vec<u8>, Rejection> {
        let key = self.root.delegation_key(draft.number);
        let thumbprint = key.public().thumbprint();
        let said = voucher
            .voucher
            .parse()?
            .verify(self.ctx.backend, &source.keys.signing)
            .map_err(|_| Code::VoucherInvalid)?;
        let said = said.message();
        if said.delegation_key != thumbprint
            || said.com_source != draft.terms.com_source
            || said.source != source.hospital
        {
            return Err(Code::VoucherInvalid.into());
        }
        let delegation = Delegation {
            suite: SUITE,
            nonce: Nonce::random(self.ctx.backend),
            delegation_key: thumbprint,
            terms: draft.terms.clone(),
            reply_to: reply_to.to_owned(),
        };
        let signed = Signed::sign(self.ctx.backend, &key, delegation);
        draft.delegation = Some(SignedBytes::from(&signed));
        draft.voucher = Some(voucher.clone());
        let body = DelegationBody { delegation: SignedBytes::from(&signed), key: key.public().clone(), voucher };
        Ok(Parcel::pack(Kind::Delegation, &body))
    }

    /// Takes the proof: the authority's, logged, and in **every field** what was delegated.
    ///
    /// # Errors
    /// `proof-mismatch`, `proof-invalid`, `log-evidence-invalid`, `unexpected-message`.
    pub fn accept_proof(&self, trust: &Trust, draft: &Draft, parcel: &Parcel) -> Result<ProofCompared, Rejection> {
        let delegation = draft.delegation.as_ref().ok_or(Code::UnexpectedMessage)?.parse()?.message_id();
        let sealed: SealedBytes = parcel.open(Kind::ProofAnswer, "proof answer")?;
        let plain = sealed
            .open(self.ctx.backend, &draft.reply_key(), SealPurpose::ProofAnswer, delegation.as_bytes())
            .map_err(|_| Code::UnexpectedMessage)?;
        let bundle: ProofBundle = from_cbor("proof", &plain, MAX_PARCEL_BYTES)?;
        let verified = trust.verify_proof(&self.ctx, &bundle)?;
        let proof = verified.proof();
        if proof.message().delegation != delegation || proof.message().terms != draft.terms {
            return Err(Code::ProofMismatch.into());
        }
        Ok(ProofCompared { id: ProofId(proof.id().0), bundle })
    }

    /// Consents at the source and presents at the destination: one parcel, sealed to the destination's pinned key, with the
    /// consent inside sealed to the source's.
    ///
    /// # Errors
    /// `malformed` when a pinned HPKE key is no point.
    pub fn present(
        &self,
        draft: &Draft,
        proof: &ProofCompared,
        source: &Contact,
        destination: &Contact,
        reply_to: &str,
    ) -> Result<Vec<u8>, Rejection> {
        let consent = Consent {
            proof: proof.id,
            pid: self.pid(&source.hospital, source.epoch),
            pid_opening: draft.source_opening.clone(),
            scope: draft.scope.clone(),
            scope_opening: draft.scope_opening.clone(),
            hides: draft.hides.clone(),
            hides_opening: draft.hides_opening.clone(),
            destination: destination.keys.thumb(),
        };
        let consent = Signed::sign(self.ctx.backend, &self.consent_key(source), consent);
        let consent =
            self.seal(&source.keys.hpke, SealPurpose::Consent, source.hospital.as_str().as_bytes(), consent.bytes())?;
        let presentation = Presentation {
            proof: proof.id,
            pid: self.pid(&destination.hospital, destination.epoch),
            pid_opening: draft.destination_opening.clone(),
            scope: draft.scope.clone(),
            scope_opening: draft.scope_opening.clone(),
            source: source.keys.clone(),
            consent: consent.digest(),
            reply_to: Some(reply_to.to_owned()),
        };
        let presentation = Signed::sign(self.ctx.backend, &self.consent_key(destination), presentation);
        let body =
            PresentationBody { presentation: SignedBytes::from(&presentation), proof: proof.bundle.clone(), consent };
        let id = destination.hospital.as_str().as_bytes();
        let sealed = self.seal(&destination.keys.hpke, SealPurpose::Presentation, id, &to_cbor(&body))?;
        Ok(Parcel::pack(Kind::Presentation, &sealed))
    }

    /// Takes the signed end of the case; the receipt is verified under the destination's **pinned** key and opened. The outer
    /// receipt decides: an inner one that does not open is noted in [`Ending::code`].
    ///
    /// # Errors
    /// `unknown-case`, `signature-invalid`, `log-evidence-invalid`, `receipt-invalid`.
    pub fn accept_statement(
        &self,
        trust: &Trust,
        draft: &Draft,
        proof: ProofId,
        destination: &Contact,
        body: &StatementBody,
    ) -> Result<Ending, Rejection> {
        let statement = trust.verify_authority(&self.ctx, &body.statement)?;
        if statement.message().proof != proof {
            return Err(Code::UnknownCase.into());
        }
        trust.verify_logged(&self.ctx, &body.evidence, LeafKind::STATEMENT, statement.id())?;
        let state = statement.message().state;
        let outcome = match state {
            EndState::Filed => OutcomeClass::Filed,
            EndState::Rejected => OutcomeClass::Rejected,
            _ => return Ok(Ending { state, receipt: None, code: None }),
        };
        let receipt = body.receipt.as_ref().ok_or(Code::ReceiptInvalid)?;
        let signed = receipt.receipt.parse()?.verify(self.ctx.backend, &destination.keys.signing);
        let signed = signed.map_err(|_| Code::ReceiptInvalid)?;
        let said = signed.message();
        if said.proof != proof || said.outcome != outcome {
            return Err(Code::ReceiptInvalid.into());
        }
        let plain = receipt
            .for_patient
            .open(self.ctx.backend, &draft.reply_key(), SealPurpose::ReceiptPatient, said.manifest.as_bytes())
            .ok();
        // What a destination seals badly must not keep a case open that its signed receipt ends.
        let receipt = plain.and_then(|plain| open_receipt_detail(&plain, &said.commitment).ok());
        Ok(Ending { state, code: receipt.is_none().then_some(Code::ReceiptInvalid), receipt })
    }

    /// Reads a signed refusal of `subject`, the case's proof or its delegation: a hospital's under its pinned key, or the authority's.
    ///
    /// # Errors
    /// `signature-invalid` when neither the contact nor the authority signed it; `unknown-case` when it is of something else.
    pub fn accept_refusal(
        &self,
        trust: &Trust,
        draft: &Draft,
        subject: Digest,
        contact: &Contact,
        body: &RefusalBody,
    ) -> Result<Code, Rejection> {
        let unverified: Unverified<Refusal> = body.refusal.parse()?;
        let refusal = if unverified.kid() == contact.keys.signing.kid() {
            unverified.verify(self.ctx.backend, &contact.keys.signing).map_err(|_| Code::SignatureInvalid)?
        } else {
            trust.verify_authority(&self.ctx, &body.refusal)?
        };
        let said = refusal.message();
        if said.subject != subject {
            return Err(Code::UnknownCase.into());
        }
        let full = body.detail.as_ref().and_then(|sealed| {
            let key = draft.reply_key();
            let plain = sealed.open(self.ctx.backend, &key, SealPurpose::RejectionDetail, &said.subject.0).ok()?;
            from_cbor::<Code>("code", &plain, 16).ok()
        });
        Ok(full.filter(|c| c.public() == said.code).unwrap_or(said.code))
    }

    /// Stops a case, until the key is released.
    #[must_use]
    pub fn revoke(&self, draft: &Draft, proof: ProofId, reason: RevocationReason) -> Vec<u8> {
        let key = self.root.revocation_key(draft.number);
        let signed = Signed::sign(self.ctx.backend, &key, Revocation { proof, reason, time: self.ctx.now });
        Parcel::pack(
            Kind::Revocation,
            &RevocationBody { revocation: SignedBytes::from(&signed), chain: Chain::default() },
        )
    }

    fn seal(
        &self,
        to: &HpkePublicKey,
        purpose: SealPurpose,
        bound: &[u8],
        plain: &[u8],
    ) -> Result<SealedBytes, Rejection> {
        SealedBytes::seal(self.ctx.backend, to, purpose, bound, plain).map_err(|_| Code::Malformed.into())
    }
}
