//! A wallet that was lost or stolen: its keys are withdrawn in one commit, and what they decided is stopped for certain.
//!
//! The commit that takes the keys away writes down which open cases they decided; those are stopped right after it and, should that be
//! interrupted, by whoever keeps the house. A case cannot slip through: opening one touches the registration it was verified under, so
//! the list is complete, and whatever brings a record closer to leaving requires the registration unchanged
//! ([`ConsentStands`](waybill_protocol::source::ConsentStands)).
//!
//! | space | key | value |
//! |---|---|---|
//! | `Setting` | `"withdrawal", patient, key` | [`Withdrawal`] |
//! | `Setting` | `"withdrawing", patient, key` | empty, while cases of it wait to be stopped |

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use waybill_crypto::keys::KeyId;
use waybill_protocol::ids::ProofId;
use waybill_protocol::policy::Action;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::source::{ConsentStands, SourceCase};
use waybill_protocol::wire::to_cbor;
use waybill_store::{Batch, Expect, Key, MAX_PAGE, Op, Space};

use super::{Engine, staff::MayStop};
use crate::hospital::audit::{Actor, AuditRow, event};
use crate::hospital::staff::Member;
use crate::party::{ServiceError, run_again};

/// The withdrawal of one key, and what became of the cases it decided.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct Withdrawal {
    /// Who withdrew it.
    #[n(0)]
    by: Actor,
    /// Why.
    #[n(1)]
    reason: String,
    /// The open cases it had decided that are still to be stopped.
    #[n(2)]
    waiting: Vec<ProofId>,
    #[n(3)]
    stopped: Vec<ProofId>,
    #[n(4)]
    too_late: Vec<ProofId>,
}

/// What withdrawing keys did, now or when it was asked for before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Keys that were withdrawn now.
    pub keys: usize,
    /// Keys that had been withdrawn before.
    pub before: usize,
    /// The cases that are stopped: here, or by our revocation at the authority.
    pub stopped: Vec<ProofId>,
    /// The cases whose key was released, or that were over.
    pub too_late: Vec<ProofId>,
    /// The cases that are stopped as soon as the store answers again.
    pub waiting: Vec<ProofId>,
}

fn row(patient: &LocalPatient, key: KeyId) -> Key {
    Key::build().text("withdrawal").text(&patient.0).fixed(&key.0).done()
}

fn waiting_row(patient: &LocalPatient, key: KeyId) -> Key {
    Key::build().text("withdrawing").text(&patient.0).fixed(&key.0).done()
}

impl Engine {
    /// The key that consented in a case still speaks, and what a commit must require so that it does at that moment.
    ///
    /// # Errors
    /// [`ServiceError`]; `consent-signature-invalid` when the key was withdrawn.
    pub(in crate::hospital) async fn consent_stands(
        &self,
        case: &SourceCase,
    ) -> Result<(ConsentStands, Vec<Op>), ServiceError> {
        let found = self.registrations(&case.local).await?;
        let require = found.iter().filter(|(_, one, _)| one.holds(case.consent_key)).map(|(key, _, version)| {
            let expect = Expect::Version(*version);
            Op::Require { space: Space::Registration, key: key.clone(), expect }
        });
        let require = require.collect();
        let registered: Vec<_> = found.into_iter().map(|(_, one, _)| one).collect();
        Ok((ConsentStands::verify(case, &registered)?, require))
    }

    /// Stops a case whose consent key was withdrawn before the one who withdrew it got to the case.
    pub(in crate::hospital) async fn stop_unconsented(&self, id: &ProofId) -> Result<(), ServiceError> {
        let reason = "the key that consented was withdrawn";
        self.stop(id, Actor::System, event::CASE_STOPPED, reason).await.map(drop)
    }

    /// Withdraws one of a patient's keys, or all of them, in one commit; then stops the cases that they decided as far as that is still
    /// possible: what has not left, here; the rest at the authority, before it releases the key. Asked again it goes on, and says the
    /// same.
    ///
    /// # Errors
    /// [`ServiceError`]: then nothing is withdrawn.
    pub async fn withdraw_keys(
        &self,
        by: &Member,
        patient: &LocalPatient,
        only: Option<KeyId>,
        reason: &str,
    ) -> Result<Withdrawn, ServiceError> {
        let now = run_again(|| self.take_keys_away(by, patient, only, reason)).await?;
        if let Err(error) = self.work_off_withdrawals().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cases of withdrawn keys wait to be stopped");
        }
        let mut done = Withdrawn { keys: now.len(), ..Withdrawn::default() };
        for (key, withdrawal, _) in self.withdrawals_of(patient).await? {
            if only.is_none_or(|only| key == only) {
                done.before += usize::from(!now.contains(&key));
                done.stopped.extend(withdrawal.stopped);
                done.too_late.extend(withdrawal.too_late);
                done.waiting.extend(withdrawal.waiting);
            }
        }
        Ok(done)
    }

    /// The commit alone: after it nothing that these keys decided comes closer to leaving.
    pub(in crate::hospital) async fn take_keys_away(
        &self,
        by: &Member,
        patient: &LocalPatient,
        only: Option<KeyId>,
        reason: &str,
    ) -> Result<Vec<KeyId>, ServiceError> {
        let (mut ops, mut keys) = (Vec::new(), BTreeMap::new());
        // The registrations come first: a case that is opened after they are read changes them, and this is run again.
        for (key, mut registered, version) in self.registrations(patient).await? {
            let is_meant = |key: KeyId| only.is_none_or(|only| key == only);
            let (gone, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut registered.keys).into_iter().partition(|key| is_meant(key.key.kid()));
            if gone.is_empty() {
                continue;
            }
            registered.keys = left;
            keys.extend(gone.into_iter().map(|key| (key.key.kid(), Vec::new())));
            let (space, value, expect) = (Space::Registration, to_cbor(&registered), Expect::Version(version));
            ops.push(Op::Put { space, key, value, expect });
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        for proof in self.open_cases().await? {
            if let Some(cases) = self.decided_by(&proof, patient).await?.and_then(|key| keys.get_mut(&key)) {
                cases.push(proof);
            }
        }
        let audit = AuditRow::new(by.into(), Action::WithdrawKeys.as_str()).of(patient);
        ops.extend(self.audit(audit.with_note(&format!("{} keys: {reason}", keys.len()))));
        let names = keys.keys().copied().collect();
        for (key, cases) in keys {
            ops.extend(self.withdrawal_ops(patient, key, cases, (by, reason)).await?);
        }
        self.party.store.commit(Batch { name: "keys-withdrawn", ops }).await?;
        Ok(names)
    }

    /// A key that was withdrawn, registered again and is withdrawn once more keeps what became of its earlier cases.
    async fn withdrawal_ops(
        &self,
        patient: &LocalPatient,
        key: KeyId,
        cases: Vec<ProofId>,
        (by, reason): (&Member, &str),
    ) -> Result<[Op; 2], ServiceError> {
        let before = self.load::<Withdrawal>(Space::Setting, &row(patient, key), "withdrawal").await?;
        let expect = before.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        let before = before.map(|(before, _)| before);
        let (stopped, too_late) = before.map(|b| (b.stopped, b.too_late)).unwrap_or_default();
        let withdrawal = Withdrawal { by: by.into(), reason: reason.to_owned(), waiting: cases, stopped, too_late };
        let (space, value) = (Space::Setting, to_cbor(&withdrawal));
        let waits = Op::Put { space, key: waiting_row(patient, key), value: Vec::new(), expect: Expect::Any };
        Ok([Op::Put { space, key: row(patient, key), value, expect }, waits])
    }

    /// Which of a patient's keys decided an open case; nothing for somebody else's.
    async fn decided_by(&self, proof: &ProofId, patient: &LocalPatient) -> Result<Option<KeyId>, ServiceError> {
        if let Some((case, _)) = self.source_case(proof).await? {
            return Ok((&case.local == patient).then_some(case.consent_key));
        }
        let case = self.destination_case(proof).await?.map(|(case, _)| case);
        Ok(case.filter(|case| &case.local == patient).map(|case| case.presenter))
    }

    async fn withdrawals_of(&self, patient: &LocalPatient) -> Result<Vec<(KeyId, Withdrawal, u64)>, ServiceError> {
        let prefix = Key::build().text("withdrawal").text(&patient.0).done();
        let mut found = Vec::new();
        for key in self.party.store.keys(Space::Setting, &prefix, None, MAX_PAGE).await? {
            let corrupt = || ServiceError::Corrupt("withdrawal");
            let id = key.read_after(&prefix).and_then(|mut rest| rest.fixed().ok()).map(KeyId).ok_or_else(corrupt)?;
            let (withdrawal, version) = self.load(Space::Setting, &key, "withdrawal").await?.ok_or_else(corrupt)?;
            found.push((id, withdrawal, version));
        }
        Ok(found)
    }

    /// Stops what withdrawn keys decided, as far as it waits for that; called again it goes on.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn work_off_withdrawals(&self) -> Result<(), ServiceError> {
        let (prefix, mut failed) = (Key::build().text("withdrawing").done(), None);
        for key in self.party.store.keys(Space::Setting, &prefix, None, MAX_PAGE).await? {
            let corrupt = || ServiceError::Corrupt("withdrawal");
            let mut rest = key.read_after(&prefix).ok_or_else(corrupt)?;
            let patient = rest.text().map(|text| LocalPatient(text.to_owned())).map_err(|_| corrupt())?;
            let id = KeyId(rest.fixed().map_err(|_| corrupt())?);
            if let Err(error) = self.stop_what_it_decided(&patient, id).await {
                // One that cannot go on does not keep the others waiting.
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn stop_what_it_decided(&self, patient: &LocalPatient, key: KeyId) -> Result<(), ServiceError> {
        let (place, action) = (row(patient, key), Action::WithdrawKeys.as_str());
        let Some((mut withdrawal, version)) = self.load::<Withdrawal>(Space::Setting, &place, "withdrawal").await?
        else {
            return Err(ServiceError::Corrupt("withdrawal"));
        };
        for proof in std::mem::take(&mut withdrawal.waiting) {
            match self.stop(&proof, withdrawal.by.clone(), action, &withdrawal.reason).await? {
                MayStop::Stopped => withdrawal.stopped.push(proof),
                MayStop::TooLate => withdrawal.too_late.push(proof),
            }
        }
        let (space, value, expect) = (Space::Setting, to_cbor(&withdrawal), Expect::Version(version));
        let ops = vec![
            Op::Put { space, key: place, value, expect },
            Op::Delete { space, key: waiting_row(patient, key), expect: Expect::Any },
        ];
        match self.party.store.commit(Batch { name: "withdrawal-worked-off", ops }).await {
            // Somebody else worked it off, or withdrew the key once more: then it waits again.
            Err(waybill_store::CommitError::Conflict { .. }) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
