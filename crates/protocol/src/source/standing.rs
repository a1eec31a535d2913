//! Whether the key that consented still speaks for the patient. A case lasts for days; a wallet is stolen in a minute.

use super::SourceCase;
use crate::ids::ProofId;
use crate::registrar::Registered;
use crate::rejection::{Code, Rejection};

/// The key that consented in one case is still registered for its patient: nobody withdrew it.
///
/// Whatever brings the record closer to leaving demands it: a person's approval, the grant, the manifest. The shell makes it from the
/// rows of this moment, and has the commit require that they did not change. A key that merely expired since then stands: what it
/// decided it decided in time.
#[derive(Debug)]
pub struct ConsentStands {
    proof: ProofId,
}

impl ConsentStands {
    /// Looks for the case's consent key among the registrations of its patient.
    ///
    /// # Errors
    /// `consent-signature-invalid` when none of them holds it any more.
    pub fn verify(case: &SourceCase, registered: &[Registered]) -> Result<Self, Rejection> {
        let speaks = |one: &Registered| one.local == case.local && one.holds(case.consent_key);
        if registered.iter().any(speaks) {
            Ok(Self { proof: case.proof })
        } else {
            Err(Code::ConsentSignatureInvalid.into())
        }
    }

    /// # Errors
    /// `consent-signature-invalid` for another case than the one that was looked at.
    pub(super) fn expect(&self, case: &SourceCase) -> Result<(), Rejection> {
        if self.proof == case.proof { Ok(()) } else { Err(Code::ConsentSignatureInvalid.into()) }
    }
}
