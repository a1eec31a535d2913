//! The one catalogue of rejections: code, stage, whether to retry, and who must act.
//!
//! Source: docs/PROTOCOL.md section 9, which a test holds equal to this table. Security: outside, a patient-related refusal shows
//! only its generic [`Code::public`]; the full code goes sealed to the verified counterpart, so that nobody can probe whether a
//! patient exists.

use std::fmt;

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::wire::DecodeError;

/// In which step of a migration a rejection arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Stage {
    Frame,
    Registration,
    Login,
    Delegation,
    Sender,
    Proof,
    Log,
    Consent,
    Identity,
    Redeem,
    Export,
    Manifest,
    Transfer,
    Key,
    Filing,
    Receipt,
}

impl Stage {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Registration => "registration",
            Self::Login => "login",
            Self::Delegation => "delegation",
            Self::Sender => "sender",
            Self::Proof => "proof",
            Self::Log => "log",
            Self::Consent => "consent",
            Self::Identity => "identity",
            Self::Redeem => "redeem",
            Self::Export => "export",
            Self::Manifest => "manifest",
            Self::Transfer => "transfer",
            Self::Key => "key",
            Self::Filing => "filing",
            Self::Receipt => "receipt",
        }
    }
}

/// Who can put it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The patient, or whoever acts for them.
    Patient,
    /// The source's staff.
    Source,
    /// The destination's staff.
    Destination,
    /// The authority's operators.
    Authority,
    /// Whoever wrote the sending software.
    Sender,
    /// Nobody: it passes.
    Nobody,
}

impl Actor {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Authority => "authority",
            Self::Sender => "sender",
            Self::Nobody => "nobody",
        }
    }
}

macro_rules! catalogue {
    ($($number:literal $variant:ident $text:literal $stage:ident $retryable:literal $actor:ident $public:ident $sentence:literal;)*) => {
        /// Why something was refused. The numbers are the wire format and never change meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
        #[cbor(index_only)]
        pub enum Code {
            $(#[doc = $sentence] #[n($number)] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The wire number.
            #[must_use]
            pub fn number(self) -> u16 { match self { $(Self::$variant => $number),* } }
            /// The stable word for JSON, logs and pages.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),* } }
            /// The step it belongs to.
            #[must_use]
            pub fn stage(self) -> Stage { match self { $(Self::$variant => Stage::$stage),* } }
            /// Whether the same thing may succeed when tried again later.
            #[must_use]
            pub fn retryable(self) -> bool { match self { $(Self::$variant => $retryable),* } }
            /// Who can put it right.
            #[must_use]
            pub fn actor(self) -> Actor { match self { $(Self::$variant => Actor::$actor),* } }
            /// The code shown to anybody but the verified counterpart.
            #[must_use]
            pub fn public(self) -> Self { match self { $(Self::$variant => Self::$public),* } }
            /// The code that goes sealed to the other hospital of a case: whether a patient is registered here, and under which
            /// keys, is nobody else's business; our own case and log keep the full code.
            #[must_use]
            pub fn for_counterpart(self) -> Self {
                match self {
                    Self::PatientUnknown
                    | Self::ConsentSignatureInvalid
                    | Self::ConsentKeyExpired
                    | Self::ConsentLimit => Self::ConsentRefused,
                    other => other,
                }
            }
            /// One sentence for people.
            #[must_use]
            pub fn sentence(self) -> &'static str { match self { $(Self::$variant => $sentence),* } }
        }
    };
}

catalogue! {
    10 Malformed "malformed" Frame false Sender Malformed "The bytes are not a message of this protocol.";
    11 TooLarge "too-large" Frame false Sender TooLarge "The message is larger than its kind may be.";
    12 NotCanonical "not-canonical" Frame false Sender NotCanonical "The message is not in the one deterministic encoding.";
    13 UnknownVersion "unknown-version" Frame false Sender UnknownVersion "The protocol version is not supported here.";
    14 UnknownSuite "unknown-suite" Frame false Sender UnknownSuite "The cryptographic suite is not supported here.";
    15 UnexpectedMessage "unexpected-message" Frame false Sender UnexpectedMessage "The message does not belong to the state the case is in.";
    16 UnknownCase "unknown-case" Frame false Sender UnknownCase "There is no such case here.";
    20 CodeInvalid "enrolment-code-invalid" Registration false Patient CodeInvalid "The enrolment code is unknown, used or expired; ask the registrar for a new one.";
    21 RegistrationInvalid "registration-invalid" Registration false Patient RegistrationInvalid "The registration is not signed by the key it registers, or is meant for another hospital.";
    30 LoginRefused "login-refused" Login false Patient LoginRefused "The login is refused.";
    31 LoginStale "login-stale" Login true Patient LoginRefused "The login's time is outside the window; check the device's clock.";
    32 LoginReplayed "login-replayed" Login false Patient LoginRefused "This login was seen before.";
    33 RegistrationExpired "registration-expired" Login false Patient LoginRefused "The registration here has expired; register again in person.";
    40 DelegationInvalid "delegation-invalid" Delegation false Patient DelegationInvalid "The delegation is not signed by the key it names.";
    41 VoucherInvalid "voucher-invalid" Delegation false Patient VoucherInvalid "The voucher does not vouch for this delegation.";
    42 VoucherExpired "voucher-expired" Delegation true Patient VoucherExpired "The voucher has expired; log in again for a new one.";
    43 DelegationRepeated "delegation-repeated" Delegation false Patient DelegationRepeated "This delegation key was used before.";
    44 HospitalUnknown "hospital-unknown" Delegation false Authority HospitalUnknown "A hospital named is not enrolled with this authority.";
    45 HospitalSuspended "hospital-suspended" Delegation true Authority HospitalSuspended "A hospital named is suspended or revoked.";
    46 WindowInvalid "window-invalid" Delegation false Patient WindowInvalid "The delegation has expired, or runs too long.";
    47 ProofMismatch "proof-mismatch" Delegation false Authority ProofMismatch "The proof does not say what was delegated; do not consent.";
    50 CertificateInvalid "certificate-invalid" Sender false Sender CertificateInvalid "The sender's certificate does not chain to the authority's root, or is for another use.";
    51 CertificateExpired "certificate-expired" Sender true Sender CertificateExpired "The sender's certificate has expired or is not yet valid.";
    52 CertificateRevoked "certificate-revoked" Sender false Authority CertificateRevoked "The sender's certificate is revoked.";
    53 CrlStale "crl-stale" Sender true Authority CrlStale "The revocation list here is out of date; it is fetched again.";
    54 SignatureInvalid "signature-invalid" Sender false Sender SignatureInvalid "The message's signature does not verify.";
    55 SenderWrong "sender-wrong" Sender false Sender SenderWrong "The sender is not the party that the proof and the consent name.";
    60 ProofInvalid "proof-invalid" Proof false Sender ProofInvalid "The migration proof is not signed by the authority.";
    61 ProofNotForUs "proof-not-for-us" Proof false Sender ProofNotForUs "The migration proof names another hospital.";
    62 ProofNotYetValid "proof-not-yet-valid" Proof true Nobody ProofNotYetValid "The migration proof is not valid yet.";
    63 ProofExpired "proof-expired" Proof false Patient ProofExpired "The migration proof has expired; the patient must delegate again.";
    64 ProofSpent "proof-spent" Proof false Patient ProofSpent "The migration proof was used before; it is good for one transfer.";
    65 ProofRevoked "proof-revoked" Proof false Patient ProofRevoked "The migration proof was revoked.";
    70 LogEvidenceInvalid "log-evidence-invalid" Log false Authority LogEvidenceInvalid "The message is not shown to be in the authority's witnessed log.";
    71 LogInconsistent "log-inconsistent" Log false Authority LogInconsistent "The authority's log contradicts what was seen of it before; tell the auditors.";
    80 ConsentRefused "consent-refused" Consent false Patient ConsentRefused "The consent is refused.";
    81 ConsentUnreadable "consent-unreadable" Consent false Patient ConsentRefused "The consent does not open under this hospital's key.";
    82 ConsentForOther "consent-for-other" Consent false Patient ConsentRefused "The consent is for another proof.";
    83 PatientUnknown "patient-unknown" Consent false Patient ConsentRefused "No such patient is registered here.";
    84 ConsentSignatureInvalid "consent-signature-invalid" Consent false Patient ConsentRefused "The consent is not signed by a key registered for this patient.";
    85 ConsentKeyExpired "consent-key-expired" Consent false Patient ConsentRefused "The consent key's registration has expired or does not cover this.";
    86 CommitmentMismatch "commitment-mismatch" Consent false Patient ConsentRefused "The consent does not open the proof's commitments.";
    87 DestinationWrong "destination-wrong" Consent false Patient ConsentRefused "The consent names other destination keys than the sender's.";
    88 PresentationInvalid "presentation-invalid" Consent false Patient ConsentRefused "The presentation does not fit the proof and consent that came with it.";
    89 ConsentLimit "consent-limit" Consent false Patient ConsentRefused "The consent key may not decide this: its limits at the hospital are narrower.";
    90 IdentityMismatch "identity-mismatch" Identity false Destination ConsentRefused "The two hospitals' patients differ in name, birth date, sex or identifiers.";
    91 IdentityDoubt "identity-doubt" Identity false Source ConsentRefused "A person must compare the two patients before release.";
    92 ReviewOverdue "review-overdue" Identity false Source ConsentRefused "Nobody compared the two patients in time.";
    93 StoppedByStaff "stopped-by-staff" Identity false Source ConsentRefused "The staff of a hospital of the case stopped it.";
    100 GrantInvalid "grant-invalid" Redeem false Authority GrantInvalid "The grant does not answer this redemption.";
    101 ClockSkew "clock-skew" Redeem true Source ClockSkew "The clock here differs from the authority's by more than five minutes; set it.";
    102 StandingLost "standing-lost" Redeem false Authority StandingLost "A hospital of the case is no longer in good standing.";
    103 AttemptInvalid "attempt-invalid" Redeem true Source AttemptInvalid "The attempt's number is not the one now open.";
    110 RecordMissing "record-missing" Export false Source ConsentRefused "The patient's record is not in the store it should be in.";
    120 ManifestInvalid "manifest-invalid" Manifest false Source ManifestInvalid "The manifest is not the source's, or belongs to another session.";
    121 ManifestTooLarge "manifest-too-large" Manifest false Destination ManifestTooLarge "The record is larger than the destination accepts.";
    130 SessionLost "session-lost" Transfer true Destination SessionLost "The destination no longer holds the session's one-time key; the next attempt makes a new one.";
    140 LodgementInvalid "lodgement-invalid" Key false Source LodgementInvalid "The lodged key is not from the source of this case.";
    141 LodgementMismatch "lodgement-mismatch" Key false Source LodgementMismatch "Lodgement and delivery receipt name different manifests.";
    142 WrongKeyLodged "wrong-key-lodged" Key false Source WrongKeyLodged "The released key is not the one the manifest commits to; the evidence shows who lied.";
    143 ReleaseInvalid "release-invalid" Key false Authority ReleaseInvalid "The key release is not the authority's, or is for another case.";
    150 StreamInvalid "stream-invalid" Filing false Source StreamInvalid "The record stream is malformed inside.";
    151 DigestMismatch "digest-mismatch" Filing false Source DigestMismatch "What arrived is not what the manifest describes.";
    152 OutOfScope "out-of-scope" Filing false Source OutOfScope "The source sent a resource that is outside the consented scope.";
    153 WrongPatient "wrong-patient" Filing false Source WrongPatient "The record is about another patient.";
    154 ResourceInvalid "resource-invalid" Filing false Destination ResourceInvalid "A resource could not be filed and waits in quarantine.";
    155 StorageFull "storage-full" Filing true Destination StorageFull "The destination has no room to file the record.";
    160 ReceiptInvalid "receipt-invalid" Receipt false Destination ReceiptInvalid "The receipt is not the destination's, or does not open.";
    161 DeadlinePassed "deadline-passed" Receipt false Destination DeadlinePassed "The deadline passed.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal by the rules: the peer's fault, never ours and never the environment's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {}", code.sentence())]
pub struct Rejection {
    /// Which rule.
    pub code: Code,
}

impl From<Code> for Rejection {
    fn from(code: Code) -> Self {
        Self { code }
    }
}

impl From<DecodeError> for Rejection {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge { .. } => Code::TooLarge,
            DecodeError::Malformed(_) => Code::Malformed,
            DecodeError::NotCanonical(_) => Code::NotCanonical,
            DecodeError::Version(_) => Code::UnknownVersion,
            DecodeError::Suite(_) => Code::UnknownSuite,
            DecodeError::Unexpected { .. } => Code::UnexpectedMessage,
        };
        Self { code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_unique_and_public_codes_are_their_own_public_code() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        let numbers: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.number()).collect();
        assert_eq!((words.len(), numbers.len()), (Code::ALL.len(), Code::ALL.len()));
        for code in Code::ALL {
            assert_eq!(code.public().public(), code.public(), "{code}");
        }
    }

    #[test]
    fn an_unknown_patient_looks_like_any_other_refused_consent() {
        for code in Code::ALL.iter().filter(|c| matches!(c.stage(), Stage::Consent | Stage::Identity)) {
            assert_eq!(code.public(), Code::ConsentRefused, "{code}");
        }
    }
}
