//! The patient's own evidence of a case: what it held when the case ended, for whoever is to judge it.

use waybill_protocol::evidence::Evidence;
use waybill_protocol::messages::{DelegationBody, EndState};
use waybill_protocol::wire::{Kind, Parcel};

use crate::state::{CaseNumber, Outcome};
use crate::wallet::Wallet;

impl Wallet {
    /// The evidence of a case that is over, as far as the patient holds it; `None` for one that never had a proof.
    #[must_use]
    pub fn evidence(&self, number: CaseNumber) -> Option<Evidence> {
        let case = self.state.closed.iter().find(|case| case.number == number)?;
        let log = self.state.trust.as_ref()?.log.clone();
        let mut evidence = Evidence::new(case.authority.clone()?, log, case.bundle.clone()?);
        if let (Some(delegation), Some(voucher)) = (case.delegation.clone(), case.voucher.clone()) {
            let key = self.state.root.delegation_key(number.0).public().clone();
            evidence.delegation = Some(DelegationBody { delegation, key, voucher });
        }
        evidence.statement = case.statement.clone();
        evidence.receipt = case.receipt.clone();
        if case.outcome == Outcome::Ended(EndState::Revoked) {
            let parcel = case.revocation.as_deref().and_then(|bytes| Parcel::parse(bytes).ok());
            evidence.revocation = parcel.and_then(|parcel| parcel.open(Kind::Revocation, "revocation").ok());
        }
        Some(evidence)
    }
}
