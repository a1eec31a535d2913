//! The destination's checks of a presentation, in order, failing closed; each consumes what the one before it proved.
//!
//! Source: docs/PROTOCOL.md section 6.2.

use waybill_crypto::pseudonym::Pseudonym;

use super::Destination;
use crate::ids::ProofId;
use crate::messages::{MigrationProof, Presentation, PresentationBody, ProofBundle};
use crate::registrar::{LocalPatient, Registered, SignedByRegistered};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, Unverified};
use crate::source::commitment_kind;
use crate::trust::ProofVerified;
use crate::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};

/// A presentation that opened under our key.
pub struct PresentationOpened {
    presentation: Unverified<Presentation>,
    bundle: ProofBundle,
    consent: SealedBytes,
}

/// ... that a registered key of one of our patients signed.
pub struct PresenterVerified {
    presentation: Signed<Presentation>,
    bundle: ProofBundle,
    consent: SealedBytes,
    local: LocalPatient,
}

/// ... with a proof the authority signed and logged, that names us, is valid now, and whose commitments it opens.
pub struct PresentationVerified {
    pub(super) presentation: Signed<Presentation>,
    pub(super) bundle: ProofBundle,
    pub(super) consent: SealedBytes,
    pub(super) local: LocalPatient,
    pub(super) proof: ProofVerified,
}

impl PresentationOpened {
    /// Whose registration to load.
    #[must_use]
    pub fn pid(&self) -> &Pseudonym {
        &self.presentation.peek().pid
    }
}

impl PresentationVerified {
    /// Which case this opens.
    #[must_use]
    pub fn proof(&self) -> ProofId {
        ProofId(self.proof.proof().id().0)
    }

    /// The verified proof.
    #[must_use]
    pub fn migration_proof(&self) -> &Signed<MigrationProof> {
        self.proof.proof()
    }

    /// The local patient the record will be filed under.
    #[must_use]
    pub fn local(&self) -> &LocalPatient {
        &self.local
    }
}

impl Destination<'_> {
    /// Check 1: frame limits and encoding; the seal opens under our key.
    ///
    /// # Errors
    /// `presentation-invalid` or a frame code.
    pub fn open_presentation(&self, sealed: &SealedBytes) -> Result<PresentationOpened, Rejection> {
        let id = self.hospital.id.as_str().as_bytes();
        let plain = sealed
            .open(self.ctx.backend, &self.hospital.hpke, SealPurpose::Presentation, id)
            .map_err(|_| Code::PresentationInvalid)?;
        let body: PresentationBody = from_cbor("presentation", &plain, MAX_PARCEL_BYTES)?;
        let presentation = body.presentation.parse()?;
        Ok(PresentationOpened { presentation, bundle: body.proof, consent: body.consent })
    }

    /// Check 2: a key registered here for that pseudonym signed it, within its limits.
    ///
    /// # Errors
    /// Stage `consent`.
    pub fn verify_presenter(
        &self,
        opened: PresentationOpened,
        registered: Option<&Registered>,
    ) -> Result<PresenterVerified, Rejection> {
        let PresentationOpened { presentation, bundle, consent } = opened;
        let SignedByRegistered { signed: presentation, limits } =
            Registered::verify(registered, &self.ctx, presentation)?;
        limits.verify(&presentation.message().scope, None)?;
        let local = registered.map(|r| r.local.clone()).ok_or(Code::PatientUnknown)?;
        Ok(PresenterVerified { presentation, bundle, consent, local })
    }

    /// Checks 3 to 7: the proof is the authority's and logged; it is the one presented; it names us; its window is open; pseudonym
    /// and scope open its commitments; the consent that came along is the one the presentation names.
    ///
    /// # Errors
    /// Stages `proof`, `log`, `consent`.
    pub fn verify_presentation(&self, presenter: PresenterVerified) -> Result<PresentationVerified, Rejection> {
        let PresenterVerified { presentation, bundle, consent, local } = presenter;
        let proof = self.trust.verify_proof(&self.ctx, &bundle)?;
        let said = presentation.message();
        if said.proof.0 != proof.proof().id().0 {
            return Err(Code::PresentationInvalid.into());
        }
        let terms = &proof.proof().message().terms;
        if terms.destination != self.hospital.id {
            return Err(Code::ProofNotForUs.into());
        }
        if self.ctx.now < terms.not_before {
            return Err(Code::ProofNotYetValid.into());
        }
        if self.ctx.now > terms.expires {
            return Err(Code::ProofExpired.into());
        }
        let pid = terms.com_destination.verify(commitment_kind::DESTINATION, &said.pid_opening, &to_cbor(&said.pid));
        let scope = terms.com_scope.verify(commitment_kind::SCOPE, &said.scope_opening, &to_cbor(&said.scope));
        pid.and(scope).map_err(|_| Code::CommitmentMismatch)?;
        if consent.digest() != said.consent {
            return Err(Code::PresentationInvalid.into());
        }
        Ok(PresentationVerified { presentation, bundle, consent, local, proof })
    }
}
