//! The authority: checks delegations, issues proofs, spends them once, trades key for receipt, ends every case.
//!
//! Every transition is one leaf of the log; what leaves the authority leaves only when a cosigned checkpoint covers its leaf
//! ([`Authority::finish`]). Security: nothing the authority ever holds names a patient or opens a record.

mod answers;

pub use answers::Answer;
use answers::lint_proof;

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HpkeSecretKey, SigningKey};

use crate::ids::{HospitalId, MessageId, Nonce, ProofId, SessionId};
use crate::log::LeafKind;
use crate::messages::{
    CaseStatement, Chain, Delegation, DelegationBody, DeliveryBody, DeliveryReceipt, EndState, Grant, ImportReceipt,
    KeyLodgement, KeyRelease, LodgementBody, MAX_INNER_RECEIPT_BYTES, MigrationProof, OutcomeClass, ReceiptBody,
    Redeem, RedeemBody, Refusal, RefusalBody, RevocationBody, SUITE, Standing, Terms,
};
use crate::migration::{AuthorityState, Effect, Leaf, Recipient, tell};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, SignedBytes};
use crate::trust::{Ctx, HospitalVerified, Trust};
use crate::wire::{Kind, Parcel};

/// How long the destination may take from the key to its receipt. Units: seconds.
pub const RECEIPT_DEADLINE_SECONDS: u64 = 7 * 86_400;

/// The keys that answer online. The issuing key is not among them: no public listener lives where it does.
pub struct AuthorityKeys {
    /// Signs proofs, grants, releases, statements.
    pub proof_signing: SigningKey,
    /// Opens lodgements.
    pub lodgement: HpkeSecretKey,
    /// Proof-signing certificate and issuing certificate.
    pub chain: Chain,
}

/// The authority's role.
pub struct Authority<'a> {
    /// Clock and primitives.
    pub ctx: Ctx<'a>,
    /// Who we are and whom we believe.
    pub trust: &'a Trust,
    /// Our keys.
    pub keys: &'a AuthorityKeys,
}

/// The row of a case, keyed by proof id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AuthorityCase {
    /// The signed proof.
    #[n(0)]
    pub proof: SignedBytes<MigrationProof>,
    /// Its id.
    #[n(1)]
    pub id: ProofId,
    /// The terms.
    #[n(2)]
    pub terms: Terms,
    /// The patient's mailbox.
    #[n(3)]
    pub reply_to: String,
    /// Where the case stands.
    #[n(4)]
    pub state: AuthorityState,
    /// The open attempt, from 1.
    #[n(5)]
    pub attempt: u32,
    /// The session the proof is spent on in this attempt.
    #[n(6)]
    pub session: Option<SessionId>,
    /// The grant of this attempt.
    #[n(7)]
    pub grant: Option<SignedBytes<Grant>>,
    /// The lodged key of this attempt.
    #[n(8)]
    pub lodgement: Option<SignedBytes<KeyLodgement>>,
    /// The receipt for the ciphertext in this attempt.
    #[n(9)]
    pub delivery: Option<SignedBytes<DeliveryReceipt>>,
    /// The release.
    #[n(10)]
    pub release: Option<SignedBytes<KeyRelease>>,
    /// The statement that ended the case.
    #[n(11)]
    pub statement: Option<SignedBytes<CaseStatement>>,
    /// The chain the source redeemed under: the lodgement must come from the same key.
    #[n(12)]
    pub redeemer: Option<Chain>,
}

impl AuthorityCase {
    /// Whether this redemption was granted before: then the same answer is sent again, and nothing is spent twice.
    #[must_use]
    pub fn has_granted(&self, redeem: &Redeem) -> bool {
        let granted = self.grant.as_ref().and_then(|g| g.parse().ok());
        granted.is_some_and(|g| g.peek().session == redeem.session && g.peek().nonce == redeem.nonce)
    }
}

/// A checked delegation, before the proof is signed. The shell stores it as the intent, under the delegation key's unique row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Intent {
    /// The unique row: one delegation per key thumbprint, ever.
    #[n(0)]
    pub delegation_key: Digest,
    /// What will be signed.
    #[n(1)]
    pub proof: MigrationProof,
    /// The patient's mailbox.
    #[n(2)]
    pub reply_to: String,
}

/// A new row with what else must happen.
pub type Transition = (AuthorityCase, Vec<Effect>);

impl Authority<'_> {
    /// Checks a delegation and prepares the proof: the intent the shell stores before anything is signed.
    ///
    /// Order: delegation signature, reply key, voucher's chain and signature, voucher against delegation, hospitals' standing, time
    /// window.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `delegation` or `sender`.
    pub fn check_delegation(
        &self,
        body: &DelegationBody,
        standing: &dyn Fn(&HospitalId) -> Option<Standing>,
    ) -> Result<Intent, Rejection> {
        let delegation =
            body.delegation.parse()?.verify(self.ctx.backend, &body.key).map_err(|_| Code::DelegationInvalid)?;
        let said = delegation.message();
        if body.key.thumbprint() != said.delegation_key {
            return Err(Code::DelegationInvalid.into());
        }
        // The answer is sealed to this key: a key that takes no seal would leave a logged proof that nobody can be told of.
        SealedBytes::seal(self.ctx.backend, &said.terms.reply_key, SealPurpose::ProofAnswer, &[], &[])
            .map_err(|_| Code::DelegationInvalid)?;
        self.check_voucher(body, said)?;
        for hospital in [&said.terms.source, &said.terms.destination] {
            match standing(hospital) {
                Some(Standing::Active) => {}
                Some(_) => return Err(Code::HospitalSuspended.into()),
                None => return Err(Code::HospitalUnknown.into()),
            }
        }
        let latest = self.ctx.now.plus(Terms::MAX_LIFETIME_SECONDS);
        if said.terms.expires <= self.ctx.now || said.terms.expires > latest {
            return Err(Code::WindowInvalid.into());
        }
        let proof = MigrationProof {
            suite: SUITE,
            authority: self.trust.authority().clone(),
            delegation: delegation.id(),
            terms: said.terms.clone(),
            issued_at: self.ctx.now,
        };
        Ok(Intent { delegation_key: said.delegation_key, proof, reply_to: said.reply_to.clone() })
    }

    fn check_voucher(&self, body: &DelegationBody, said: &Delegation) -> Result<(), Rejection> {
        let source = self.trust.verify_hospital(&self.ctx, &body.voucher.chain)?;
        let voucher =
            body.voucher.voucher.parse()?.verify(self.ctx.backend, source.key()).map_err(|_| Code::VoucherInvalid)?;
        let voucher = voucher.message();
        let fits = source.id() == &voucher.source
            && voucher.source == said.terms.source
            && voucher.delegation_key == said.delegation_key
            && voucher.com_source == said.terms.com_source;
        if !fits {
            return Err(Code::VoucherInvalid.into());
        }
        if self.ctx.now > voucher.not_after { Err(Code::VoucherExpired.into()) } else { Ok(()) }
    }

    /// Rehearses the signature on a throwaway key, lints the twin, and only then signs the stored intent.
    ///
    /// # Errors
    /// `malformed`, when the twin does not read back as exactly what was intended: our bug, and nothing was signed.
    pub fn issue_proof(&self, intent: &Intent) -> Result<Transition, Rejection> {
        let throwaway = self.ctx.backend.generate_signing_key();
        let twin = Signed::sign(self.ctx.backend, &throwaway, intent.proof.clone());
        lint_proof(twin.bytes(), intent)?;
        let proof = Signed::sign(self.ctx.backend, &self.keys.proof_signing, intent.proof.clone());
        let terms = intent.proof.terms.clone();
        let answer = Answer::Proof {
            proof: SignedBytes::from(&proof),
            delegation: intent.proof.delegation,
            reply_key: terms.reply_key,
            reply_to: intent.reply_to.clone(),
        };
        let deadline = Effect::Deadline(terms.expires.plus(1));
        let effects = vec![self.leaf(ProofId(proof.id().0), LeafKind::PROOF, proof.id(), answer), deadline];
        let case = AuthorityCase {
            id: ProofId(proof.id().0),
            proof: SignedBytes::from(&proof),
            terms,
            reply_to: intent.reply_to.clone(),
            state: AuthorityState::Issued,
            attempt: 1,
            session: None,
            grant: None,
            lodgement: None,
            delivery: None,
            release: None,
            statement: None,
            redeemer: None,
        };
        Ok((case, effects))
    }

    /// Verifies who redeems. The shell then loads the case the request names.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `sender` or `frame`.
    pub fn verify_redeem(&self, body: &RedeemBody) -> Result<(HospitalVerified, Signed<Redeem>), Rejection> {
        let source = self.trust.verify_hospital(&self.ctx, &body.chain)?;
        let redeem = body.redeem.parse()?.verify(self.ctx.backend, source.key()).map_err(|_| Code::SignatureInvalid)?;
        Ok((source, redeem))
    }

    /// Spends the proof on one session: the compare-and-swap that makes it single-use.
    ///
    /// # Errors
    /// `proof-spent`, `proof-revoked`, `proof-expired`, `proof-not-yet-valid`, `attempt-invalid`, `standing-lost`.
    pub fn handle_redeem(
        &self,
        mut case: AuthorityCase,
        from: &HospitalVerified,
        chain: &Chain,
        redeem: &Signed<Redeem>,
        standing: &dyn Fn(&HospitalId) -> Option<Standing>,
    ) -> Result<Transition, Rejection> {
        let said = redeem.message();
        if from.id() != &case.terms.source || said.proof != case.id {
            return Err(Code::SenderWrong.into());
        }
        match case.state {
            AuthorityState::Issued => {}
            AuthorityState::Ended(EndState::Revoked) => return Err(Code::ProofRevoked.into()),
            AuthorityState::Ended(EndState::Expired) => return Err(Code::ProofExpired.into()),
            _ => return Err(Code::ProofSpent.into()),
        }
        // Attempts are the source's count; the authority only demands that it never goes back.
        if said.attempt < case.attempt {
            return Err(Code::AttemptInvalid.into());
        }
        case.attempt = said.attempt;
        self.check_window(&case.terms)?;
        let standings = [&case.terms.source, &case.terms.destination].map(|h| standing(h).unwrap_or(Standing::Revoked));
        if standings.iter().any(|s| *s != Standing::Active) {
            return Err(Code::StandingLost.into());
        }
        let grant = Grant {
            proof: case.id,
            session: said.session,
            nonce: said.nonce,
            attempt: said.attempt,
            time: self.ctx.now,
            source: standings[0],
            destination: standings[1],
            to: case.terms.destination.clone(),
        };
        let grant = Signed::sign(self.ctx.backend, &self.keys.proof_signing, grant);
        let answer = Answer::Grant {
            grant: SignedBytes::from(&grant),
            source: case.terms.source.clone(),
            known_log_size: said.known_log_size,
        };
        case.state = AuthorityState::Redeemed;
        case.session = Some(said.session);
        case.grant = Some(SignedBytes::from(&grant));
        case.redeemer = Some(chain.clone());
        let effects = vec![self.leaf(case.id, LeafKind::GRANT, grant.id(), answer)];
        Ok((case, effects))
    }

    fn check_window(&self, terms: &Terms) -> Result<(), Rejection> {
        if self.ctx.now < terms.not_before {
            return Err(Code::ProofNotYetValid.into());
        }
        if self.ctx.now > terms.expires { Err(Code::ProofExpired.into()) } else { Ok(()) }
    }

    /// Opens a lodgement and reads who must have signed it. Opaque: the key inside stays sealed to the destination.
    ///
    /// # Errors
    /// `lodgement-invalid`.
    pub fn open_lodgement(&self, body: &LodgementBody) -> Result<SignedBytes<KeyLodgement>, Rejection> {
        let plain = body
            .sealed
            .open(self.ctx.backend, &self.keys.lodgement, SealPurpose::KeyLodgement, body.proof.as_bytes())
            .map_err(|_| Code::LodgementInvalid)?;
        Ok(SignedBytes::from(plain))
    }

    /// Takes the lodged key, signed by the key that redeemed; its certificate is verified again, so that a source revoked in
    /// the meantime lodges nothing.
    ///
    /// # Errors
    /// `lodgement-invalid`, `lodgement-mismatch`, `attempt-invalid`, `standing-lost`, `unexpected-message`, or an end state's
    /// code.
    pub fn handle_lodgement(
        &self,
        mut case: AuthorityCase,
        lodgement: &SignedBytes<KeyLodgement>,
        standing: &dyn Fn(&HospitalId) -> Option<Standing>,
    ) -> Result<Transition, Rejection> {
        let chain = case.redeemer.as_ref().ok_or(Code::UnexpectedMessage)?;
        let from = self.trust.verify_hospital(&self.ctx, chain)?;
        let signed = lodgement.parse()?.verify(self.ctx.backend, from.key()).map_err(|_| Code::LodgementInvalid)?;
        if signed.message().proof != case.id {
            return Err(Code::LodgementInvalid.into());
        }
        self.expect_before_release(&case, &[AuthorityState::Redeemed])?;
        expect_session(&case, signed.message().session)?;
        case.state = AuthorityState::Lodged;
        case.lodgement = Some(lodgement.clone());
        let mut effects = vec![self.leaf(case.id, LeafKind::LODGEMENT, signed.id(), Answer::Nothing)];
        self.release_if_complete(&mut case, &mut effects, standing)?;
        Ok((case, effects))
    }

    /// Takes the destination's receipt for the ciphertext.
    ///
    /// # Errors
    /// `sender-wrong`, `signature-invalid`, `lodgement-mismatch`, `attempt-invalid`, `standing-lost`, `unexpected-message`, or an
    /// end state's code.
    pub fn handle_delivery(
        &self,
        mut case: AuthorityCase,
        body: &DeliveryBody,
        standing: &dyn Fn(&HospitalId) -> Option<Standing>,
    ) -> Result<Transition, Rejection> {
        let from = self.trust.verify_hospital(&self.ctx, &body.chain)?;
        let delivery =
            body.delivery.parse()?.verify(self.ctx.backend, from.key()).map_err(|_| Code::SignatureInvalid)?;
        if from.id() != &case.terms.destination || delivery.message().proof != case.id {
            return Err(Code::SenderWrong.into());
        }
        self.expect_before_release(&case, &[AuthorityState::Redeemed, AuthorityState::Lodged])?;
        expect_session(&case, delivery.message().session)?;
        if case.delivery.is_some() {
            return Err(Code::UnexpectedMessage.into());
        }
        case.delivery = Some(body.delivery.clone());
        let mut effects = vec![self.leaf(case.id, LeafKind::DELIVERY, delivery.id(), Answer::Nothing)];
        self.release_if_complete(&mut case, &mut effects, standing)?;
        Ok((case, effects))
    }

    /// The one atomic step of fair exchange: both are here, name the same manifest, and come from hospitals in good standing at
    /// this moment, so the key goes.
    fn release_if_complete(
        &self,
        case: &mut AuthorityCase,
        effects: &mut Vec<Effect>,
        standing: &dyn Fn(&HospitalId) -> Option<Standing>,
    ) -> Result<(), Rejection> {
        let (Some(lodgement), Some(delivery)) = (&case.lodgement, &case.delivery) else { return Ok(()) };
        // Both were verified when they came in; here only their content and ids matter.
        let (lodged, delivered) = (lodgement.parse()?, delivery.parse()?);
        if lodged.peek().manifest != delivered.peek().manifest {
            return Err(Code::LodgementMismatch.into());
        }
        if [&case.terms.source, &case.terms.destination].iter().any(|h| standing(h) != Some(Standing::Active)) {
            return Err(Code::StandingLost.into());
        }
        let release = KeyRelease {
            proof: case.id,
            lodgement: lodged.message_id(),
            delivery: delivered.message_id(),
            time: self.ctx.now,
        };
        let release = Signed::sign(self.ctx.backend, &self.keys.proof_signing, release);
        let answer = Answer::Release {
            release: SignedBytes::from(&release),
            lodgement: lodgement.clone(),
            destination: case.terms.destination.clone(),
        };
        effects.push(self.leaf(case.id, LeafKind::RELEASE, release.id(), answer));
        effects.push(Effect::Deadline(self.ctx.now.plus(RECEIPT_DEADLINE_SECONDS)));
        case.state = AuthorityState::KeyReleased;
        case.release = Some(SignedBytes::from(&release));
        Ok(())
    }

    fn expect_before_release(&self, case: &AuthorityCase, allowed: &[AuthorityState]) -> Result<(), Rejection> {
        match case.state {
            AuthorityState::Ended(EndState::Revoked) => Err(Code::ProofRevoked.into()),
            AuthorityState::Ended(EndState::Expired) => Err(Code::ProofExpired.into()),
            state if !allowed.contains(&state) => Err(Code::UnexpectedMessage.into()),
            _ if self.ctx.now > case.terms.expires => Err(Code::ProofExpired.into()),
            _ => Ok(()),
        }
    }

    /// Ends the case with the destination's receipt, also after the deadline.
    ///
    /// # Errors
    /// `sender-wrong`, `receipt-invalid`, `unexpected-message`.
    pub fn handle_receipt(&self, case: AuthorityCase, body: &ReceiptBody) -> Result<Transition, Rejection> {
        let from = self.trust.verify_hospital(&self.ctx, &body.chain)?;
        let receipt: Signed<ImportReceipt> =
            body.receipt.parse()?.verify(self.ctx.backend, from.key()).map_err(|_| Code::SignatureInvalid)?;
        if from.id() != &case.terms.destination || receipt.message().proof != case.id {
            return Err(Code::SenderWrong.into());
        }
        if [&body.for_source, &body.for_patient].iter().any(|part| part.size_bytes() > MAX_INNER_RECEIPT_BYTES) {
            return Err(Code::ReceiptInvalid.into());
        }
        let open = matches!(case.state, AuthorityState::KeyReleased | AuthorityState::Ended(EndState::Unacknowledged));
        let released = case.lodgement.as_ref().map(SignedBytes::parse).transpose()?.map(|l| l.peek().manifest);
        if !open {
            return Err(Code::UnexpectedMessage.into());
        }
        if released != Some(receipt.message().manifest) {
            return Err(Code::ReceiptInvalid.into());
        }
        let end = match receipt.message().outcome {
            OutcomeClass::Filed => EndState::Filed,
            OutcomeClass::Rejected => EndState::Rejected,
        };
        Ok(self.end(case, end, Some(receipt.id()), Some(body.clone())))
    }

    /// Revokes, until the key is released.
    ///
    /// # Errors
    /// `signature-invalid`, `sender-wrong`, `unexpected-message` when it comes too late.
    pub fn handle_revocation(&self, case: AuthorityCase, body: &RevocationBody) -> Result<Transition, Rejection> {
        let revocation = body.revocation.parse()?;
        let revocation = if body.chain.0.is_empty() {
            revocation.verify(self.ctx.backend, &case.terms.revocation_key)
        } else {
            let from = self.trust.verify_hospital(&self.ctx, &body.chain)?;
            if from.id() != &case.terms.source && from.id() != &case.terms.destination {
                return Err(Code::SenderWrong.into());
            }
            revocation.verify(self.ctx.backend, from.key())
        }
        .map_err(|_| Code::SignatureInvalid)?;
        if revocation.message().proof != case.id {
            return Err(Code::SenderWrong.into());
        }
        match case.state {
            AuthorityState::Issued | AuthorityState::Redeemed | AuthorityState::Lodged => {
                Ok(self.end(case, EndState::Revoked, Some(revocation.id()), None))
            }
            _ => Err(Code::UnexpectedMessage.into()),
        }
    }

    /// The source says no: finally, or for this attempt.
    ///
    /// # Errors
    /// `sender-wrong`, `signature-invalid`, `attempt-invalid`, `unexpected-message`.
    pub fn handle_refusal(&self, mut case: AuthorityCase, body: &RefusalBody) -> Result<Transition, Rejection> {
        let from = self.trust.verify_hospital(&self.ctx, &body.chain)?;
        let refusal: Signed<Refusal> =
            body.refusal.parse()?.verify(self.ctx.backend, from.key()).map_err(|_| Code::SignatureInvalid)?;
        let said = refusal.message();
        if from.id() != &case.terms.source || said.subject != case.id.0 {
            return Err(Code::SenderWrong.into());
        }
        // Nothing is open in `Issued`: there a refusal may be of an attempt whose redemption has not come, and must not come later.
        let known = match case.state {
            AuthorityState::Issued => said.attempt >= case.attempt,
            _ => said.attempt == case.attempt && (case.session.is_none() || said.session == case.session),
        };
        if !known {
            return Err(Code::AttemptInvalid.into());
        }
        match (case.state, said.retry) {
            (AuthorityState::Issued | AuthorityState::Redeemed | AuthorityState::Lodged, true) => {
                case.state = AuthorityState::Issued;
                case.attempt = said.attempt.checked_add(1).ok_or(Code::AttemptInvalid)?;
                (case.session, case.grant, case.lodgement, case.delivery) = (None, None, None, None);
                let effects = vec![self.leaf(case.id, LeafKind::ATTEMPT_FAILED, refusal.id(), Answer::Nothing)];
                Ok((case, effects))
            }
            (AuthorityState::Issued | AuthorityState::Redeemed | AuthorityState::Lodged, false) => {
                Ok(self.end(case, EndState::Refused, Some(refusal.id()), None))
            }
            _ => Err(Code::UnexpectedMessage.into()),
        }
    }

    /// The deadline of the case has come: decides expiry, by the authority's clock alone. `None` when it is not yet due.
    #[must_use]
    pub fn handle_deadline(&self, case: AuthorityCase) -> Option<Transition> {
        match case.state {
            AuthorityState::Issued | AuthorityState::Redeemed | AuthorityState::Lodged => {
                (self.ctx.now > case.terms.expires).then(|| self.end(case, EndState::Expired, None, None))
            }
            AuthorityState::KeyReleased => {
                let released = case.release.as_ref().and_then(|r| r.parse().ok()).map(|r| r.peek().time)?;
                let due = self.ctx.now >= released.plus(RECEIPT_DEADLINE_SECONDS);
                due.then(|| self.end(case, EndState::Unacknowledged, None, None))
            }
            AuthorityState::Ended(_) => None,
        }
    }

    /// A signed refusal, for the mailbox of whoever asked.
    #[must_use]
    pub fn refuse(
        &self,
        to: Recipient,
        subject: Digest,
        session: Option<SessionId>,
        attempt: u32,
        code: Code,
    ) -> Effect {
        let retry = code.retryable();
        let refusal = Refusal { subject, session, attempt, code: code.public(), retry, time: self.ctx.now };
        let refusal = Signed::sign(self.ctx.backend, &self.keys.proof_signing, refusal);
        let body = RefusalBody { refusal: SignedBytes::from(&refusal), chain: self.keys.chain.clone(), detail: None };
        tell(to, Parcel::pack(Kind::Refusal, &body))
    }

    fn end(
        &self,
        mut case: AuthorityCase,
        state: EndState,
        cause: Option<MessageId>,
        receipt: Option<ReceiptBody>,
    ) -> Transition {
        let statement = CaseStatement { proof: case.id, state, cause, time: self.ctx.now };
        let statement = Signed::sign(self.ctx.backend, &self.keys.proof_signing, statement);
        case.state = AuthorityState::Ended(state);
        case.statement = Some(SignedBytes::from(&statement));
        let answer = Answer::Statement {
            statement: SignedBytes::from(&statement),
            receipt,
            source: case.terms.source.clone(),
            destination: case.terms.destination.clone(),
            reply_to: case.reply_to.clone(),
        };
        let effects = vec![self.leaf(case.id, LeafKind::STATEMENT, statement.id(), answer), Effect::NoDeadline];
        (case, effects)
    }

    fn leaf(&self, case: ProofId, kind: LeafKind, message: MessageId, answer: Answer) -> Effect {
        Effect::Log(Box::new(Leaf { case, kind, message, nonce: Nonce::random(self.ctx.backend), answer }))
    }
}

/// What was signed in an earlier attempt does not count in this one.
fn expect_session(case: &AuthorityCase, named: SessionId) -> Result<(), Rejection> {
    if case.session == Some(named) { Ok(()) } else { Err(Code::AttemptInvalid.into()) }
}
