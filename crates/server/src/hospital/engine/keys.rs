//! Who speaks for a patient: enrolment codes, and the keys registered with them.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, KeyId};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::messages::{Limits, Relation};
use waybill_protocol::policy::{Action, decide_second};
use waybill_protocol::registrar::{Attestation, ConsentKey, EnrolmentCode, LocalPatient, Registered, enrolment_row};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, MAX_PAGE, Op, Space};

use super::Engine;
use crate::hospital::audit::AuditRow;
use crate::hospital::staff::Member;
use crate::party::ServiceError;

/// How long an enrolment code holds. Units: seconds.
const CODE_LIFETIME_SECONDS: u64 = 3_600;
/// How long the second member of staff may take to attest. Units: seconds.
const ATTESTING_SECONDS: u64 = 7 * 86_400;

/// What a registrar wants a code for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CodeWish {
    /// The patient.
    #[n(0)]
    pub local: LocalPatient,
    /// In what capacity the key will speak.
    #[n(1)]
    pub relation: Relation,
    /// What it may decide.
    #[n(2)]
    pub limits: Limits,
    /// For how long it may speak, from the day the code is made; without an end, as long as any registration. Units: days.
    #[n(3)]
    pub key_days: Option<u64>,
}

impl CodeWish {
    /// In which members another wish is not this one. Names only: what they hold is the patient's business.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let members = [
            ("patient", self.local == other.local),
            ("relation", self.relation == other.relation),
            ("scope", self.limits.scope == other.limits.scope),
            ("destinations", self.limits.destinations == other.limits.destinations),
            ("key_days", self.key_days == other.key_days),
        ];
        members.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// The wish in words, for the audit trail. The patient is named beside it.
    fn describe(&self) -> String {
        let destinations: Vec<&str> = self.limits.destinations.iter().map(HospitalId::as_str).collect();
        let to = if destinations.is_empty() { "any".to_owned() } else { destinations.join(" ") };
        let days = self.key_days.map_or_else(|| "no end of its own".to_owned(), |days| format!("{days} days"));
        format!("{:?}; scope {}; destinations {to}; {days}", self.relation, self.limits.scope)
    }
}

/// An attestation that waits for a second member of staff.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct HalfAttested {
    #[n(0)]
    wish: CodeWish,
    /// SHA-256 of the signed form.
    #[n(1)]
    form: Digest,
    /// Who attested first.
    #[n(2)]
    by: String,
    #[n(3)]
    until: Timestamp,
}

/// What became of a second attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Countersigned {
    /// Two members of staff attest the same: the code, until when it holds, and who attested first.
    Whole {
        /// The code.
        code: Nonce,
        /// Its last second.
        expires: Timestamp,
        /// The first of the two.
        first: String,
    },
    /// The second one means something else, in these members; nothing was made.
    Differs(Vec<&'static str>),
}

/// A key that speaks for a patient, as staff sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// How it is named in signatures.
    pub id: KeyId,
    /// The key.
    pub key: ConsentKey,
}

fn attestation_row(number: &Nonce) -> Key {
    Key::build().text("attestation").fixed(&number.0).done()
}

fn index(patient: &LocalPatient) -> Key {
    Key::build().text("keys").text(&patient.0).done()
}

/// Writes a registration back as it was read. What is decided under it is committed with this, so that the batch that withdraws a key
/// and the one that opens a case under it cannot both go through without one of them seeing the other.
pub(super) fn touch_op(pid: &Pseudonym, registered: &Registered, version: u64) -> Op {
    let (key, value) = (Key::build().fixed(pid.as_bytes()).done(), to_cbor(registered));
    Op::Put { space: Space::Registration, key, value, expect: Expect::Version(version) }
}

/// Makes a patient's registrations findable by their local id.
pub(super) fn index_op(patient: &LocalPatient, pid: &Pseudonym) -> Op {
    let key = index(patient).extend().fixed(pid.as_bytes()).done();
    Op::Put { space: Space::Patient, key, value: Vec::new(), expect: Expect::Any }
}

impl Engine {
    /// Makes a one-time enrolment code for a patient who is held here; what is stored is its hash.
    ///
    /// # Errors
    /// [`ServiceError`]; `patient-unknown`.
    pub async fn issue_code(&self, by: &Member, wish: CodeWish) -> Result<(Nonce, Timestamp), ServiceError> {
        self.code(by, wish, None, Vec::new()).await
    }

    async fn code(
        &self,
        by: &Member,
        wish: CodeWish,
        attestation: Option<Attestation>,
        mut ops: Vec<Op>,
    ) -> Result<(Nonce, Timestamp), ServiceError> {
        self.shelf.demographics(&wish.local).await?;
        let code = Nonce::random(self.party.backend.as_ref());
        let expires = self.party.ctx().now.plus(CODE_LIFETIME_SECONDS);
        let by_whom =
            attestation.as_ref().map(|two| format!("; form {}; attested by {}", two.form, two.staff.join(", ")));
        let note = wish.describe() + &by_whom.unwrap_or_default();
        let CodeWish { local, relation, limits, key_days } = wish;
        let ends = |days: u64| self.party.ctx().now.plus(days.saturating_mul(86_400));
        let key_expires = key_days.map_or(Timestamp(u64::MAX), ends);
        let row = EnrolmentCode { local, relation, expires, limits, key_expires, attestation };
        let key = Key::build().fixed(&enrolment_row(&code).0).done();
        ops.push(Op::Put { space: Space::Enrolment, key, value: to_cbor(&row), expect: Expect::Absent });
        let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&row.local).with_note(&note);
        ops.extend(self.audit(audit));
        self.party.store.commit(Batch { name: "enrolment-code", ops }).await?;
        Ok((code, expires))
    }

    /// The first of two members of staff attests that the patient signed a form; the second one does under the number given.
    ///
    /// # Errors
    /// [`ServiceError`]; `patient-unknown`.
    pub async fn attest(&self, by: &Member, wish: CodeWish, form: Digest) -> Result<Nonce, ServiceError> {
        self.shelf.demographics(&wish.local).await?;
        let number = Nonce::random(self.party.backend.as_ref());
        let until = self.party.ctx().now.plus(ATTESTING_SECONDS);
        let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&wish.local);
        let note = format!("{}; attests form {form}; a second member of staff must, too", wish.describe());
        let mut ops = self.audit(audit.with_note(&note));
        let row = HalfAttested { wish, form, by: by.user.clone(), until };
        let key = attestation_row(&number);
        ops.push(Op::Put { space: Space::Setting, key, value: to_cbor(&row), expect: Expect::Absent });
        self.party.store.commit(Batch { name: "half-attested", ops }).await?;
        Ok(number)
    }

    /// The second one does, and says for whom and what: only when both mean the same there is a code. So nobody signs for a patient, or
    /// for more, than they were told.
    ///
    /// # Errors
    /// [`ServiceError`]; `enrolment-code-invalid` for a number that is unknown or too old, or the same member of staff.
    pub async fn countersign(
        &self,
        by: &Member,
        number: &Nonce,
        wish: CodeWish,
        form: Digest,
    ) -> Result<Countersigned, ServiceError> {
        let invalid = || ServiceError::from(Rejection::from(Code::CodeInvalid));
        let key = attestation_row(number);
        let found: Option<(HalfAttested, u64)> = self.load(Space::Setting, &key, "attestation").await?;
        let (half, version) = found.ok_or_else(invalid)?;
        let denied = |why: &str| {
            let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&half.wish.local);
            AuditRow { outcome: "denied".to_owned(), ..audit.with_note(why) }
        };
        let second = decide_second(&half.by, &by.user);
        if self.party.ctx().now > half.until || !second.allowed {
            self.note(denied(if second.allowed { "too late" } else { second.reason })).await?;
            return Err(invalid());
        }
        let mut differs = half.wish.differences(&wish);
        differs.extend((half.form != form).then_some("form"));
        if !differs.is_empty() {
            self.note(denied(&format!("countersigns something else: {}", differs.join(", ")))).await?;
            return Ok(Countersigned::Differs(differs));
        }
        let first = half.by.clone();
        let attestation = Attestation { form, staff: vec![half.by, by.user.clone()] };
        attestation.verify()?;
        let used = vec![Op::Delete { space: Space::Setting, key, expect: Expect::Version(version) }];
        let (code, expires) = self.code(by, wish, Some(attestation), used).await?;
        Ok(Countersigned::Whole { code, expires, first })
    }

    pub(super) async fn registrations(
        &self,
        patient: &LocalPatient,
    ) -> Result<Vec<(Key, Registered, u64)>, ServiceError> {
        let (prefix, mut found) = (index(patient), Vec::new());
        for key in self.party.store.keys(Space::Patient, &prefix, None, MAX_PAGE).await? {
            let corrupt = || ServiceError::Corrupt("registrations");
            let pid: [u8; 32] = key.read_after(&prefix).and_then(|mut k| k.fixed().ok()).ok_or_else(corrupt)?;
            let row = Key::build().fixed(&pid).done();
            if let Some((registered, version)) =
                self.load::<Registered>(Space::Registration, &row, "registration").await?
            {
                found.push((row, registered, version));
            }
        }
        Ok(found)
    }

    /// The keys that speak for a patient.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn keys_of(&self, patient: &LocalPatient) -> Result<Vec<KeyView>, ServiceError> {
        let found = self.registrations(patient).await?.into_iter().flat_map(|(_, registered, _)| registered.keys);
        Ok(found.map(|key| KeyView { id: key.key.kid(), key }).collect())
    }

    /// Forgets attestations that nobody completed.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn forget_attestations(&self) -> Result<(), ServiceError> {
        let (prefix, now) = (Key::build().text("attestation").done(), self.party.ctx().now);
        let page = self.party.store.scan(Space::Setting, &prefix, None, MAX_PAGE).await?;
        let is_over = |value: &[u8]| {
            from_cbor::<HalfAttested>("attestation", value, MAX_PARCEL_BYTES).is_ok_and(|half| half.until < now)
        };
        let delete = |key: Key| Op::Delete { space: Space::Setting, key, expect: Expect::Any };
        let ops: Vec<Op> =
            page.into_iter().filter(|(_, row)| is_over(&row.value)).map(|(key, _)| delete(key)).collect();
        if !ops.is_empty() {
            self.party.store.commit(Batch { name: "attestations-forgotten", ops }).await?;
        }
        Ok(())
    }
}
