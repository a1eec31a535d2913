//! The source's checks, in order, failing closed. Each consumes what the one before it proved: skipping one does not compile.
//!
//! [`Received`] → [`SenderVerified`] → `ProofChecked` → `PartiesVerified` → [`InWindow`] → [`ConsentOpened`] →
//! [`ConsentVerified`] → [`IdentityCompared`]; then the authority is asked, and only its grant lets the record be read.
//!
//! Source: docs/PROTOCOL.md section 6.1.

use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{HpkePublicKey, KeyId};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_record::identity::{Demographics, IdentityMatch};

use super::Source;
use crate::ids::{HospitalId, ProofId, SessionId};
use crate::messages::{Consent, MigrationProof, TransferBody, TransferRequest};
use crate::registrar::{HospitalIdentity, LocalPatient, Registered, SignedByRegistered};
use crate::rejection::{Code, Rejection};
use crate::sealed::SealPurpose;
use crate::signed::{Signed, Unverified};
use crate::trust::ProofVerified;
use crate::wire::{Kind, Parcel, from_cbor, to_cbor};

/// Commitment kinds (docs/PROTOCOL.md section 3.4).
pub(crate) mod commitment_kind {
    pub const SOURCE: &str = "pid-source";
    pub const DESTINATION: &str = "pid-destination";
    pub const SCOPE: &str = "scope";
    pub const HIDES: &str = "hides";
}

/// A request of the right shape and size.
pub struct Received {
    body: TransferBody,
    request: Unverified<TransferRequest>,
}

/// ... whose sender's certificate and signature hold.
pub struct SenderVerified {
    body: TransferBody,
    request: Signed<TransferRequest>,
    sender: HospitalId,
}

/// ... whose proof the authority signed and logged.
pub struct ProofChecked {
    body: TransferBody,
    request: Signed<TransferRequest>,
    sender: HospitalId,
    proof: ProofVerified,
}

/// ... that names us as source and the sender as destination.
pub struct PartiesVerified {
    body: TransferBody,
    request: Signed<TransferRequest>,
    proof: ProofVerified,
}

/// ... and is valid now.
pub struct InWindow(PartiesVerified);

/// ... with a consent that opens under our key and is for this proof and these commitments.
pub struct ConsentOpened {
    checked: PartiesVerified,
    consent: Unverified<Consent>,
}

/// ... that a registered key of the patient signed for this very destination, scope and hides.
pub struct ConsentVerified {
    checked: PartiesVerified,
    consent: Signed<Consent>,
    local: LocalPatient,
}

/// How the two hospitals' patients compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityVerdict {
    /// The same person.
    Same,
    /// A person must look first.
    Doubt,
}

/// ... for a patient who is the same person at both hospitals, as far as a machine can tell.
pub struct IdentityCompared {
    consent: ConsentVerified,
    verdict: IdentityVerdict,
}

impl Received {
    /// Decodes a parcel: the only door.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `frame`.
    pub fn parse(parcel: &Parcel) -> Result<Self, Rejection> {
        let body: TransferBody = parcel.open(Kind::TransferRequest, "transfer request")?;
        let request = body.request.parse()?;
        Ok(Self { body, request })
    }

    /// Which case it claims to be about.
    #[must_use]
    pub fn proof(&self) -> ProofId {
        self.request.peek().proof
    }

    /// Which session it would be.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(self.request.message_id().0)
    }

    /// Which attempt it claims to be.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.request.peek().attempt
    }
}

impl SenderVerified {
    /// The sender, to whom a refusal may now be addressed.
    #[must_use]
    pub fn sender(&self) -> &HospitalId {
        &self.sender
    }

    /// Whether the consent beside the request was sealed to this identity's key: after a change of keys, which of them the patient
    /// pinned.
    #[must_use]
    pub fn consent_opens_for(&self, backend: &dyn Backend, hospital: &HospitalIdentity) -> bool {
        let id = hospital.id.as_str().as_bytes();
        self.body.consent.open(backend, &hospital.hpke, SealPurpose::Consent, id).is_ok()
    }

    /// The key a refusal's detail is sealed to.
    #[must_use]
    pub fn session_key(&self) -> &HpkePublicKey {
        &self.request.message().session_key
    }
}

impl ConsentOpened {
    /// Whose registration to load.
    #[must_use]
    pub fn pid(&self) -> &Pseudonym {
        &self.consent.peek().pid
    }
}

impl ConsentVerified {
    /// The local patient whose demographics are compared next.
    #[must_use]
    pub fn local(&self) -> &LocalPatient {
        &self.local
    }

    pub(super) fn proof(&self) -> &Signed<MigrationProof> {
        self.checked.proof.proof()
    }

    pub(super) fn request(&self) -> &Signed<TransferRequest> {
        &self.checked.request
    }

    pub(super) fn consent(&self) -> &Consent {
        self.consent.message()
    }

    pub(super) fn consent_key(&self) -> KeyId {
        self.consent.kid()
    }

    pub(super) fn into_body(self) -> TransferBody {
        self.checked.body
    }
}

impl IdentityCompared {
    /// Whether a person must look first.
    #[must_use]
    pub fn verdict(&self) -> IdentityVerdict {
        self.verdict
    }

    pub(super) fn into_consent(self) -> ConsentVerified {
        self.consent
    }
}

impl Source<'_> {
    /// Check 1: the sender's chain, usage, validity and revocation; then the signature under that certificate's key, which must
    /// be the key the request carries.
    ///
    /// # Errors
    /// Stage `sender`.
    pub fn verify_sender(&self, received: Received) -> Result<SenderVerified, Rejection> {
        let Received { body, request } = received;
        let sender = self.trust.verify_hospital(&self.ctx, &body.chain)?;
        let request = request.verify(self.ctx.backend, sender.key()).map_err(|_| Code::SignatureInvalid)?;
        if &request.message().keys.signing != sender.key() {
            return Err(Code::SenderWrong.into());
        }
        Ok(SenderVerified { sender: sender.id().clone(), body, request })
    }

    /// Check 2: the proof's signature, version and suite, its inclusion in a checkpoint that enough witnesses cosigned; and it is
    /// the proof the request names.
    ///
    /// # Errors
    /// Stages `proof` and `log`.
    pub fn verify_proof(&self, sender: SenderVerified) -> Result<ProofChecked, Rejection> {
        let SenderVerified { body, request, sender } = sender;
        let proof = self.trust.verify_proof(&self.ctx, &body.proof)?;
        if request.message().proof.0 != proof.proof().id().0 {
            return Err(Code::ProofInvalid.into());
        }
        Ok(ProofChecked { body, request, sender, proof })
    }

    /// Checks 3 and 4: the proof's source is this hospital, its destination is the sender.
    ///
    /// # Errors
    /// `proof-not-for-us`, `sender-wrong`.
    pub fn verify_parties(&self, checked: ProofChecked) -> Result<PartiesVerified, Rejection> {
        let ProofChecked { body, request, sender, proof } = checked;
        let terms = &proof.proof().message().terms;
        if terms.source != self.hospital.id {
            return Err(Code::ProofNotForUs.into());
        }
        if terms.destination != sender {
            return Err(Code::SenderWrong.into());
        }
        Ok(PartiesVerified { body, request, proof })
    }

    /// Check 5: the time window.
    ///
    /// # Errors
    /// `proof-not-yet-valid`, `proof-expired`.
    pub fn verify_window(&self, checked: PartiesVerified) -> Result<InWindow, Rejection> {
        let terms = &checked.proof.proof().message().terms;
        if self.ctx.now < terms.not_before {
            return Err(Code::ProofNotYetValid.into());
        }
        if self.ctx.now > terms.expires { Err(Code::ProofExpired.into()) } else { Ok(InWindow(checked)) }
    }

    /// Check 6: the consent is the one the request names, opens under our key, names this proof, and its pseudonym opens com_A.
    ///
    /// # Errors
    /// Stage `consent`.
    pub fn open_consent(&self, in_window: InWindow) -> Result<ConsentOpened, Rejection> {
        let checked = in_window.0;
        let sealed = &checked.body.consent;
        if sealed.digest() != checked.request.message().consent {
            return Err(Code::ConsentForOther.into());
        }
        let plain = sealed
            .open(self.ctx.backend, &self.hospital.hpke, SealPurpose::Consent, self.hospital.id.as_str().as_bytes())
            .map_err(|_| Code::ConsentUnreadable)?;
        let consent: Unverified<Consent> = Unverified::parse(&plain).map_err(|_| Code::ConsentUnreadable)?;
        let said = consent.peek();
        let proof = checked.proof.proof();
        if said.proof.0 != proof.id().0 {
            return Err(Code::ConsentForOther.into());
        }
        let com = &proof.message().terms.com_source;
        com.verify(commitment_kind::SOURCE, &said.pid_opening, &to_cbor(&said.pid))
            .map_err(|_| Code::CommitmentMismatch)?;
        Ok(ConsentOpened { checked, consent })
    }

    /// Checks 7 to 9: a registered, valid key signed it; it names the sender's keys; scope and hides open their commitments; the key
    /// may decide that much.
    ///
    /// # Errors
    /// Stage `consent`.
    pub fn verify_consent(
        &self,
        opened: ConsentOpened,
        registered: Option<&Registered>,
    ) -> Result<ConsentVerified, Rejection> {
        let ConsentOpened { checked, consent } = opened;
        let SignedByRegistered { signed: consent, limits } = Registered::verify(registered, &self.ctx, consent)?;
        let local = registered.map(|r| r.local.clone()).ok_or(Code::PatientUnknown)?;
        let said = consent.message();
        if said.destination != checked.request.message().keys.thumb() {
            return Err(Code::DestinationWrong.into());
        }
        let terms = &checked.proof.proof().message().terms;
        let scope = terms.com_scope.verify(commitment_kind::SCOPE, &said.scope_opening, &to_cbor(&said.scope));
        let hides = terms.com_hides.verify(commitment_kind::HIDES, &said.hides_opening, &to_cbor(&said.hides));
        scope.and(hides).map_err(|_| Code::CommitmentMismatch)?;
        limits.verify(&said.scope, Some(&terms.destination))?;
        Ok(ConsentVerified { checked, consent, local })
    }

    /// Check 10: the destination's claim about its patient against ours. Doubt goes to a person, mismatch is refused.
    ///
    /// # Errors
    /// `identity-mismatch`; `malformed` when the claim does not open.
    pub fn compare_identity(
        &self,
        consent: ConsentVerified,
        ours: &Demographics,
    ) -> Result<IdentityCompared, Rejection> {
        let claimed = self.open_claim(consent.request().message())?;
        let verdict = match ours.compare(&claimed) {
            IdentityMatch::Match => IdentityVerdict::Same,
            IdentityMatch::Doubt(_) => IdentityVerdict::Doubt,
            IdentityMatch::Mismatch(_) => return Err(Code::IdentityMismatch.into()),
        };
        Ok(IdentityCompared { consent, verdict })
    }

    /// The person whom the destination claims in a case, for somebody who must compare the two patients.
    ///
    /// Security: the most identifying data of another hospital's patient; shown to whoever may review, and never stored open.
    ///
    /// # Errors
    /// `identity-mismatch` when the claim does not open, or a frame code.
    pub fn claimed_person(&self, case: &super::SourceCase) -> Result<Demographics, Rejection> {
        let request = case.request.request.parse()?;
        self.open_claim(request.peek())
    }

    fn open_claim(&self, request: &TransferRequest) -> Result<Demographics, Rejection> {
        let plain = request
            .identity_claim
            .open(
                self.ctx.backend,
                &self.hospital.hpke,
                SealPurpose::IdentityClaim,
                &identity_binding(request.proof, &request.session_key),
            )
            .map_err(|_| Code::IdentityMismatch)?;
        Ok(from_cbor("identity claim", &plain, MAX_CLAIM_BYTES)?)
    }
}

/// The largest identity claim. Units: bytes.
const MAX_CLAIM_BYTES: usize = 32 * 1024;

/// What an identity claim is bound to: the proof and the one-time key, so that it serves in one session only.
pub(crate) fn identity_binding(proof: ProofId, session_key: &HpkePublicKey) -> [u8; 32] {
    sha256(&[proof.as_bytes(), &session_key.0]).0
}
