//! Who may do what at a hospital and at the authority: a pure table that gives its reason.

/// A person's role at a hospital, or an operator's at the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Role {
    Registrar,
    RecordsOfficer,
    PrivacyOfficer,
    Clinician,
    Auditor,
    AuthorityOperator,
}

impl Role {
    /// The role of a name, as front ends and the audit trail write it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "registrar" => Self::Registrar,
            "records-officer" => Self::RecordsOfficer,
            "privacy-officer" => Self::PrivacyOfficer,
            "clinician" => Self::Clinician,
            "auditor" => Self::Auditor,
            "authority-operator" => Self::AuthorityOperator,
            _ => return None,
        })
    }
}

/// Something a person asks the system to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Action {
    IssueEnrolmentCode,
    LoadRecord,
    ReadRecord,
    ReviewIdentity,
    AbortCase,
    ReadCase,
    ReadAudit,
    EnrolHospital,
    ChangeStanding,
}

/// Why an action is allowed or not; goes into the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule, as a sentence.
    pub reason: &'static str,
}

/// Decides. Everything that no rule allows is refused.
#[must_use]
pub fn decide(role: Role, action: Action) -> Decision {
    use Action::*;
    use Role::*;
    let allow = |reason| Decision { allowed: true, reason };
    match (role, action) {
        (Registrar, IssueEnrolmentCode) => allow("a registrar registers patients in person"),
        (RecordsOfficer, LoadRecord | ReadRecord) => allow("a records officer keeps the records"),
        (RecordsOfficer | PrivacyOfficer, ReviewIdentity) => {
            allow("an identity doubt is decided by records or privacy staff")
        }
        (RecordsOfficer | PrivacyOfficer, AbortCase) => allow("records or privacy staff may stop a case"),
        (Clinician, ReadRecord) => allow("a clinician reads the charts of the hospital's patients"),
        (Registrar | RecordsOfficer | PrivacyOfficer | Auditor, ReadCase) => {
            allow("staff follow the cases they work on")
        }
        (PrivacyOfficer | Auditor, ReadAudit) => allow("privacy staff and auditors read the audit trail"),
        (AuthorityOperator, EnrolHospital | ChangeStanding) => allow("the authority's operators keep its registry"),
        _ => Decision { allowed: false, reason: "no rule gives this role this action" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_allows_is_refused() {
        assert!(decide(Role::Registrar, Action::IssueEnrolmentCode).allowed);
        assert!(!decide(Role::Registrar, Action::ReadRecord).allowed);
        assert!(!decide(Role::AuthorityOperator, Action::ReadRecord).allowed);
        assert!(!decide(Role::Auditor, Action::ReviewIdentity).allowed);
    }
}
