//! How a case ends at the destination other than by filing: refusals, revocations, the authority's statement.

use waybill_crypto::keys::{HpkePublicKey, HpkeSecretKey};

use super::{Destination, DestinationCase, MOST_ATTEMPTS, PAUSE_SECONDS, PresentationVerified, Transition};
use crate::ids::{ProofId, SessionId};
use crate::log::LeafKind;
use crate::messages::{EndState, Refusal, RefusalBody, RevocationBody, StatementBody};
use crate::migration::{DestinationState, Effect, Recipient, settle, tell};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, SignedBytes};
use crate::source::{expect_new_end, verify_revocation};
use crate::wire::{Kind, Parcel, from_cbor, to_cbor};

impl Destination<'_> {
    /// The source refuses: with another attempt, or for good. The patient hears of it either way.
    ///
    /// Once our receipt for the ciphertext is out the authority may have released already: then the code is noted, and release or
    /// statement decide.
    ///
    /// # Errors
    /// `signature-invalid`, `unknown-case`, `unexpected-message`.
    pub fn handle_refusal(
        &self,
        mut case: DestinationCase,
        body: &RefusalBody,
        secret: Option<&HpkeSecretKey>,
    ) -> Result<Transition, Rejection> {
        let refusal = body.refusal.parse()?.verify(self.ctx.backend, &case.source_keys.signing);
        let refusal = refusal.map_err(|_| Code::SignatureInvalid)?;
        let said = refusal.message();
        if said.subject != case.proof.0 || said.session != Some(case.session) {
            return Err(Code::UnknownCase.into());
        }
        if !matches!(
            case.state,
            DestinationState::Requested | DestinationState::Receiving | DestinationState::Delivered
        ) {
            return Err(Code::UnexpectedMessage.into());
        }
        let full = body.detail.as_ref().zip(secret).and_then(|(sealed, secret)| {
            let plain =
                sealed.open(self.ctx.backend, secret, SealPurpose::RejectionDetail, case.session.as_bytes()).ok()?;
            from_cbor::<Code>("code", &plain, 16).ok()
        });
        let code = full.filter(|c| c.public() == said.code).unwrap_or(said.code);
        case.code = Some(code);
        if case.state == DestinationState::Delivered {
            return Ok((case, Vec::new()));
        }
        let mut effects = vec![settle(case.session.0, Kind::Manifest), settle(case.proof.0, Kind::KeyRelease)];
        if said.retry && said.attempt == 0 {
            // No attempt was opened: the same request is posted again until it is taken or the proof expires.
            return Ok((case, Vec::new()));
        }
        if said.retry && case.attempt < MOST_ATTEMPTS {
            case.state = DestinationState::AttemptFailed;
            effects.push(Effect::Deadline(self.ctx.now.plus(PAUSE_SECONDS << case.attempt)));
        } else {
            case.state = DestinationState::Rejected;
            effects.extend(self.tell_patient(&case, code));
        }
        Ok((case, effects))
    }

    /// The holder, or the source, revokes before the key is here. As with a refusal, once our receipt is out the authority decides.
    ///
    /// # Errors
    /// `signature-invalid`, `unexpected-message` when the key is here already.
    pub fn handle_revocation(&self, mut case: DestinationCase, body: &RevocationBody) -> Result<Transition, Rejection> {
        verify_revocation(&self.ctx, body, &case.request.proof, &case.source_keys)?;
        match case.state {
            DestinationState::Delivered => {
                case.code = Some(Code::ProofRevoked);
                Ok((case, Vec::new()))
            }
            DestinationState::Requested | DestinationState::Receiving => {
                (case.state, case.code) = (DestinationState::Rejected, Some(Code::ProofRevoked));
                let effects = vec![settle(case.session.0, Kind::Manifest), settle(case.proof.0, Kind::KeyRelease)];
                Ok((case, effects))
            }
            _ => Err(Code::UnexpectedMessage.into()),
        }
    }

    /// Gives an attempt up, signed, so that the source reports it to the authority.
    #[must_use]
    pub fn give_up(&self, mut case: DestinationCase, code: Code) -> Transition {
        let retry = code.retryable();
        let (subject, session, attempt) = (case.proof.0, Some(case.session), case.attempt);
        let refusal = Refusal { subject, session, attempt, code: code.public(), retry, time: self.ctx.now };
        let refusal = Signed::sign(self.ctx.backend, &self.hospital.signing, refusal);
        let (refusal, chain) = (SignedBytes::from(&refusal), self.hospital.chain.clone());
        let parcel = Parcel::pack(Kind::Refusal, &RefusalBody { refusal, chain, detail: None });
        let mut effects = vec![
            tell(Recipient::Hospital(case.source.clone()), parcel),
            settle(case.session.0, Kind::Manifest),
            settle(case.proof.0, Kind::KeyRelease),
        ];
        case.code = Some(code);
        if !retry {
            case.state = DestinationState::Rejected;
            effects.extend(self.tell_patient(&case, code));
        }
        (case, effects)
    }

    /// Tells the patient, signed, why their presentation or case went no further.
    #[must_use]
    pub fn tell_patient(&self, case: &DestinationCase, code: Code) -> Option<Effect> {
        self.refuse_patient(case.reply_to.as_deref()?, &case.patient_key, case.proof, Some(case.session), code)
    }

    /// As [`Destination::tell_patient`], for a presentation that opens no case.
    #[must_use]
    pub fn refuse_presentation(&self, verified: &PresentationVerified, code: Code) -> Option<Effect> {
        let key = &verified.migration_proof().message().terms.reply_key;
        let reply_to = verified.presentation.message().reply_to.as_deref()?;
        self.refuse_patient(reply_to, key, verified.proof(), None, code)
    }

    fn refuse_patient(
        &self,
        reply_to: &str,
        patient_key: &HpkePublicKey,
        proof: ProofId,
        session: Option<SessionId>,
        code: Code,
    ) -> Option<Effect> {
        let retry = code.retryable();
        let refusal = Refusal { subject: proof.0, session, attempt: 0, code: code.public(), retry, time: self.ctx.now };
        let refusal = Signed::sign(self.ctx.backend, &self.hospital.signing, refusal);
        let detail = SealedBytes::seal(
            self.ctx.backend,
            patient_key,
            SealPurpose::RejectionDetail,
            proof.as_bytes(),
            &to_cbor(&code),
        )
        .ok();
        let body = RefusalBody { refusal: SignedBytes::from(&refusal), chain: self.hospital.chain.clone(), detail };
        Some(tell(Recipient::Mailbox(reply_to.to_owned()), Parcel::pack(Kind::Refusal, &body)))
    }

    /// The authority's signed end of the case.
    ///
    /// # Errors
    /// `signature-invalid`, `unknown-case`, `log-evidence-invalid`; `unexpected-message` when the case has its end already.
    pub fn handle_statement(&self, mut case: DestinationCase, body: StatementBody) -> Result<Transition, Rejection> {
        let statement = self.trust.verify_authority(&self.ctx, &body.statement)?;
        if statement.message().proof != case.proof {
            return Err(Code::UnknownCase.into());
        }
        expect_new_end(case.statement.as_ref(), statement.message().state)?;
        self.trust.verify_logged(&self.ctx, &body.evidence, LeafKind::STATEMENT, statement.id())?;
        let subject = case.proof.0;
        let decided = matches!(statement.message().state, EndState::Filed | EndState::Rejected);
        let has_key = match case.state {
            DestinationState::KeyHeld | DestinationState::Filed => true,
            DestinationState::Rejected => case.receipt.is_some(),
            _ => false,
        };
        if has_key && !decided {
            // Whoever holds the key files and answers: a late receipt still closes an unacknowledged case.
            case.statement = Some(body);
            return Ok((case, Vec::new()));
        }
        let effects = vec![
            settle(subject, Kind::CaseStatement),
            settle(subject, Kind::KeyRelease),
            settle(case.session.0, Kind::Manifest),
            Effect::NoDeadline,
        ];
        case.state = DestinationState::Closed;
        case.statement = Some(body);
        Ok((case, effects))
    }
}
