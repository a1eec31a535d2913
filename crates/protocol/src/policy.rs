//! Who may do what at a hospital and at the authority: a pure table that gives its reason.
//!
//! docs/HOSPITAL.md shows the table of a hospital's staff; a test holds both together. What is not in the table is refused.

/// A person's role at a hospital, or an operator's at the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Registers patients in person.
    Registrar,
    /// Keeps the records and the queue of cases.
    RecordsOfficer,
    /// Answers for privacy.
    PrivacyOfficer,
    /// Treats patients.
    Clinician,
    /// Looks, and changes nothing.
    Auditor,
    /// Keeps the authority's registry.
    AuthorityOperator,
}

impl Role {
    /// Every role of a hospital's staff.
    pub const STAFF: [Self; 5] =
        [Self::Registrar, Self::RecordsOfficer, Self::PrivacyOfficer, Self::Clinician, Self::Auditor];

    /// The role of a name, as front ends and the audit trail write it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::STAFF.into_iter().chain([Self::AuthorityOperator]).find(|role| role.as_str() == name)
    }

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registrar => "registrar",
            Self::RecordsOfficer => "records-officer",
            Self::PrivacyOfficer => "privacy-officer",
            Self::Clinician => "clinician",
            Self::Auditor => "auditor",
            Self::AuthorityOperator => "authority-operator",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident => $text:literal, $who:expr, $reason:literal;)*) => {
        /// Something a person asks the system to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// Every action, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable word, as the audit trail writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $text),* } }

            /// Who may, the usual role first.
            #[must_use]
            pub fn allowed(self) -> &'static [Role] { match self { $(Self::$name => &$who),* } }

            /// The rule, as a sentence.
            fn rule(self) -> &'static str { match self { $(Self::$name => $reason),* } }
        }
    };
}

use Role::{Auditor, AuthorityOperator, Clinician, PrivacyOfficer, RecordsOfficer, Registrar};

actions! {
    /// See what this hospital is called and where its mailbox is.
    ReadStatus => "read-status", [RecordsOfficer, Registrar, PrivacyOfficer, Clinician, Auditor],
        "every member of staff may see which hospital this is";
    /// See which patients are held.
    ListPatients => "list-patients", [RecordsOfficer, Registrar, PrivacyOfficer, Clinician],
        "whoever works with patients may find them";
    /// Make a patient known who comes from elsewhere.
    RegisterPatient => "register-patient", [Registrar], "a registrar registers patients in person";
    /// Make an enrolment code, or countersign one.
    IssueEnrolmentCode => "issue-enrolment-code", [Registrar], "a registrar registers patients in person";
    /// See which keys speak for a patient.
    ReadKeys => "read-keys", [Registrar, PrivacyOfficer, Auditor],
        "registrars, privacy staff and auditors may see who speaks for a patient";
    /// Stop keys from speaking for a patient.
    WithdrawKeys => "withdraw-keys", [Registrar, PrivacyOfficer],
        "a lost or stolen wallet is reported to the registrar or to privacy staff";
    /// Load records from files.
    LoadRecord => "load-record", [RecordsOfficer], "a records officer keeps the records";
    /// Write a record to a file.
    ReadRecord => "read-record", [RecordsOfficer, Clinician],
        "records officers keep the records, clinicians read their patients' charts";
    /// Keep items of a record back at the source.
    WithholdItem => "withhold-item", [PrivacyOfficer, Clinician],
        "privacy staff and clinicians decide what is about third parties";
    /// See the cases and where they stand.
    ReadCase => "read-case", [RecordsOfficer, Registrar, PrivacyOfficer, Clinician, Auditor],
        "staff follow the cases they work on";
    /// Say that the record that came was looked at by who treats the patient.
    ReconcileCase => "reconcile-case", [Clinician], "who treats the patient looks at the record that came";
    /// Take a case's signed messages away.
    ReadEvidence => "read-evidence", [RecordsOfficer, PrivacyOfficer, Auditor],
        "records and privacy staff and auditors keep the evidence";
    /// See what of a record did not move, and why.
    ReadLoss => "read-loss", [RecordsOfficer, PrivacyOfficer, Auditor],
        "records and privacy staff and auditors see what did not move";
    /// Compare the two patients of a case, and release or refuse it.
    ReviewIdentity => "review-identity", [RecordsOfficer, PrivacyOfficer],
        "an identity doubt is decided by records or privacy staff";
    /// Stop a case before its key is released.
    AbortCase => "abort-case", [RecordsOfficer, PrivacyOfficer], "records or privacy staff may stop a case";
    /// Post again what a case waits for.
    ResendCase => "resend-case", [RecordsOfficer], "a records officer keeps the queue of cases";
    /// See what arrived and could not be filed.
    ReadQuarantine => "read-quarantine", [RecordsOfficer, PrivacyOfficer, Auditor],
        "records and privacy staff and auditors see what waits in quarantine";
    /// Read an item in quarantine.
    ReadQuarantinedItem => "read-quarantined-item", [RecordsOfficer, Clinician],
        "whoever may read records may read what waits to join one";
    /// Take an item into the chart, or discard it.
    DecideQuarantine => "decide-quarantine", [RecordsOfficer], "a records officer keeps the records";
    /// Read the audit trail.
    ReadAudit => "read-audit", [PrivacyOfficer, Auditor], "privacy staff and auditors read the audit trail";
    /// Copy the hospital's data.
    MakeBackup => "make-backup", [RecordsOfficer], "a records officer keeps the records, and their copies";
    /// Enrol a hospital at the authority.
    EnrolHospital => "enrol-hospital", [AuthorityOperator], "the authority's operators keep its registry";
    /// Suspend, revoke or reinstate a hospital.
    ChangeStanding => "change-standing", [AuthorityOperator], "the authority's operators keep its registry";
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
    if action.allowed().contains(&role) {
        Decision { allowed: true, reason: action.rule() }
    } else {
        Decision { allowed: false, reason: "no rule gives this role this action" }
    }
}

/// Decides whether somebody who may see cases sees this one: for who treats patients, what came for them and not what leaves.
#[must_use]
pub fn decide_case(role: Role, has_arrived: bool) -> Decision {
    if role == Role::Clinician && !has_arrived {
        Decision { allowed: false, reason: "a clinician sees the cases whose record came here" }
    } else {
        decide(role, Action::ReadCase)
    }
}

/// Decides what one person alone may not do: the second of two must be somebody else.
#[must_use]
pub fn decide_second(first: &str, second: &str) -> Decision {
    if first == second {
        Decision { allowed: false, reason: "this takes two members of staff; another one must confirm it" }
    } else {
        Decision { allowed: true, reason: "two members of staff agree" }
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
        assert!(decide_case(Role::Clinician, true).allowed && !decide_case(Role::Clinician, false).allowed);
        assert!(decide_case(Role::RecordsOfficer, false).allowed);
        assert!(!decide_second("anna", "anna").allowed && decide_second("anna", "berta").allowed);
    }

    #[test]
    fn auditors_change_nothing_and_operators_and_staff_share_no_action() {
        let changes = [
            Action::RegisterPatient,
            Action::IssueEnrolmentCode,
            Action::WithdrawKeys,
            Action::LoadRecord,
            Action::WithholdItem,
            Action::ReviewIdentity,
            Action::AbortCase,
            Action::ResendCase,
            Action::ReconcileCase,
            Action::DecideQuarantine,
            Action::MakeBackup,
        ];
        for action in changes {
            assert!(!decide(Role::Auditor, action).allowed, "{action:?}");
        }
        for action in Action::ALL {
            let operator = decide(Role::AuthorityOperator, *action).allowed;
            assert!(!operator || Role::STAFF.iter().all(|role| !decide(*role, *action).allowed), "{action:?}");
            assert!(!action.allowed().is_empty());
        }
    }

    /// The table that people read says for every role and action what is decided.
    #[test]
    fn the_table_of_the_guide_is_the_table_that_decides() {
        let guide = include_str!("../../../docs/HOSPITAL.md");
        let rows: Vec<Vec<&str>> = guide
            .lines()
            .skip_while(|line| !line.starts_with("| action | registrar |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let of_staff = |action: &&Action| !action.allowed().contains(&Role::AuthorityOperator);
        let expected: Vec<Vec<&str>> = Action::ALL
            .iter()
            .filter(of_staff)
            .map(|action| {
                let cells = Role::STAFF.map(|role| if decide(role, *action).allowed { "yes" } else { "" });
                std::iter::once(action.as_str()).chain(cells).collect()
            })
            .collect();
        let rows: Vec<Vec<&str>> =
            rows.into_iter().map(|row| row.into_iter().map(|cell| cell.trim_matches('`')).collect()).collect();
        assert_eq!(rows, expected);
    }
}
