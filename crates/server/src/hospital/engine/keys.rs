//! Who speaks for a patient: enrolment codes, the keys registered with them, and their withdrawal.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, KeyId};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_protocol::ids::{Nonce, ProofId, Timestamp};
use waybill_protocol::messages::{Limits, Relation};
use waybill_protocol::policy::{Action, decide_second};
use waybill_protocol::registrar::{Attestation, ConsentKey, EnrolmentCode, LocalPatient, Registered, enrolment_row};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, MAX_PAGE, Op, Space};

use super::{Engine, staff::MayStop};
use crate::hospital::audit::{Actor, AuditRow};
use crate::hospital::staff::Member;
use crate::party::{ServiceError, run_again};

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
    /// Until when it may speak.
    #[n(3)]
    pub key_expires: Timestamp,
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

/// What became of an attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// One member of staff has attested; under this number another one may.
    Half(Nonce),
    /// Two have: the code.
    Whole(Nonce, Timestamp),
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
        let CodeWish { local, relation, limits, key_expires } = wish;
        let note = format!("{relation:?}");
        let row = EnrolmentCode { local, relation, expires, limits, key_expires, attestation };
        let key = Key::build().fixed(&enrolment_row(&code).0).done();
        ops.push(Op::Put { space: Space::Enrolment, key, value: to_cbor(&row), expect: Expect::Absent });
        let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&row.local).with_note(&note);
        ops.extend(self.audit(audit));
        self.party.store.commit(Batch { name: "enrolment-code", ops }).await?;
        Ok((code, expires))
    }

    /// The first of two members of staff attests that the patient signed a form.
    ///
    /// # Errors
    /// [`ServiceError`]; `patient-unknown`.
    pub async fn attest(&self, by: &Member, wish: CodeWish, form: Digest) -> Result<Attested, ServiceError> {
        self.shelf.demographics(&wish.local).await?;
        let number = Nonce::random(self.party.backend.as_ref());
        let until = self.party.ctx().now.plus(ATTESTING_SECONDS);
        let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&wish.local);
        let mut ops = self.audit(audit.with_note(&format!("attests form {form}; a second member of staff must, too")));
        let row = HalfAttested { wish, form, by: by.user.clone(), until };
        let key = attestation_row(&number);
        ops.push(Op::Put { space: Space::Setting, key, value: to_cbor(&row), expect: Expect::Absent });
        self.party.store.commit(Batch { name: "half-attested", ops }).await?;
        Ok(Attested::Half(number))
    }

    /// The second one does, over the same form: then there is a code.
    ///
    /// # Errors
    /// [`ServiceError`]; `enrolment-code-invalid` for a number that is unknown or too old, another form, or the same member of staff.
    pub async fn countersign(&self, by: &Member, number: &Nonce, form: Digest) -> Result<Attested, ServiceError> {
        let invalid = || ServiceError::from(Rejection::from(Code::CodeInvalid));
        let key = attestation_row(number);
        let found: Option<(HalfAttested, u64)> = self.load(Space::Setting, &key, "attestation").await?;
        let (half, version) = found.ok_or_else(invalid)?;
        let second = decide_second(&half.by, &by.user);
        if self.party.ctx().now > half.until || half.form != form || !second.allowed {
            let audit = AuditRow::new(by.into(), Action::IssueEnrolmentCode.as_str()).of(&half.wish.local);
            let why = if second.allowed { "another form, or too late" } else { second.reason };
            self.note(AuditRow { outcome: "denied".to_owned(), ..audit.with_note(why) }).await?;
            return Err(invalid());
        }
        let attestation = Attestation { form, staff: vec![half.by, by.user.clone()] };
        attestation.verify()?;
        let used = vec![Op::Delete { space: Space::Setting, key, expect: Expect::Version(version) }];
        let (code, expires) = self.code(by, half.wish, Some(attestation), used).await?;
        Ok(Attested::Whole(code, expires))
    }

    async fn registrations(&self, patient: &LocalPatient) -> Result<Vec<(Key, Registered, u64)>, ServiceError> {
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

    /// Withdraws one of a patient's keys, or all of them: a wallet that was lost or stolen. Cases that they decided are stopped as far
    /// as they still can be: what has not left, here; the rest at the authority, before it releases the key. Gives the number of keys and
    /// the cases.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn withdraw_keys(
        &self,
        by: &Member,
        patient: &LocalPatient,
        only: Option<KeyId>,
        reason: &str,
    ) -> Result<(usize, Vec<ProofId>), ServiceError> {
        let withdrawn = run_again(|| async {
            let mut ops = Vec::new();
            let mut withdrawn = Vec::new();
            for (key, mut registered, version) in self.registrations(patient).await? {
                let is_meant = |key: &ConsentKey| only.is_none_or(|only| key.key.kid() == only);
                let (gone, left): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut registered.keys).into_iter().partition(is_meant);
                if gone.is_empty() {
                    continue;
                }
                registered.keys = left;
                withdrawn.extend(gone.into_iter().map(|key| key.key.kid()));
                let (space, value, expect) = (Space::Registration, to_cbor(&registered), Expect::Version(version));
                ops.push(Op::Put { space, key, value, expect });
            }
            if !withdrawn.is_empty() {
                let audit = AuditRow::new(by.into(), Action::WithdrawKeys.as_str()).of(patient);
                ops.extend(self.audit(audit.with_note(&format!("{} keys: {reason}", withdrawn.len()))));
                self.party.store.commit(Batch { name: "keys-withdrawn", ops }).await?;
            }
            Ok(withdrawn)
        })
        .await?;
        let mut stopped = Vec::new();
        for proof in self.open_cases().await? {
            if self.is_decided_by(&proof, patient, &withdrawn).await?
                && self.stop(&proof, Actor::from(by), Action::WithdrawKeys.as_str(), reason).await? == MayStop::Stopped
            {
                stopped.push(proof);
            }
        }
        Ok((withdrawn.len(), stopped))
    }

    /// Whether one of these keys decided a case. At the destination the presentation is not kept: there every case of the patient counts.
    async fn is_decided_by(
        &self,
        proof: &ProofId,
        patient: &LocalPatient,
        keys: &[KeyId],
    ) -> Result<bool, ServiceError> {
        if let Some((case, _)) = self.source_case(proof).await? {
            return Ok(&case.local == patient && keys.contains(&case.consent_key));
        }
        let case = self.destination_case(proof).await?;
        Ok(!keys.is_empty() && case.is_some_and(|(case, _)| &case.local == patient))
    }

    /// The cases on the list of open ones.
    pub(in crate::hospital) async fn open_cases(&self) -> Result<Vec<ProofId>, ServiceError> {
        let (prefix, mut open, mut after) = (Key::build().text("open").done(), Vec::new(), None);
        loop {
            let page = self.party.store.scan(Space::Setting, &prefix, after.as_ref(), MAX_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(open) };
            after = Some(last.clone());
            for (_, row) in page {
                let id: [u8; 32] = row.value.as_slice().try_into().map_err(|_| ServiceError::Corrupt("open case"))?;
                open.push(ProofId(Digest(id)));
            }
        }
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
