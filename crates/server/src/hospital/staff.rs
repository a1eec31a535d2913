//! Who of the hospital's staff is at the other end of the admin socket, and in which role.
//!
//! The kernel says which local user opened the socket (SO_PEERCRED); the `[staff]` table says which roles that user has. Without a
//! table the socket is its owner's alone, who has every role and acts in the usual one of each action.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;
use waybill_protocol::policy::{Action, Role, decide};

/// The `[staff]` table of hospital.toml.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaffTable {
    /// Roles by user: a local user's name or number, or a name that a front end gives.
    pub users: BTreeMap<String, Vec<String>>,
    /// Local users (names or numbers) whose programs know their own users and may say for whom they act.
    pub front_ends: Vec<String>,
}

/// The table cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StaffError {
    /// No such role.
    #[error(
        "[staff.users] `{user}`: `{role}` is no role; write registrar, records-officer, privacy-officer, clinician or auditor"
    )]
    UnknownRole {
        /// Of whom.
        user: String,
        /// What is written.
        role: String,
    },
    /// A front end must be known to the operating system.
    #[error("[staff] front_ends: there is no local user `{0}`")]
    UnknownUser(String),
}

/// Local users by number.
#[derive(Debug, Clone, Default)]
pub struct LocalUsers(BTreeMap<u32, String>);

impl LocalUsers {
    /// Reads a file in the form of `/etc/passwd`; without one, users are known by number only.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.nth(2)?.parse().ok()?, line.split(':').next()?.to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// A user's name, or the number where it has none.
    #[must_use]
    pub fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(_, known)| known.as_str() == name).map(|(uid, _)| *uid).or_else(|| name.parse().ok())
    }
}

/// A member of staff who may do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: String,
    /// In which role.
    pub role: Role,
}

/// Somebody who may not, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Who, as far as it is known.
    pub user: String,
    /// In which role, where one was named or found.
    pub role: Option<Role>,
    /// The rule, as a sentence.
    pub reason: &'static str,
}

/// As whom somebody asks to act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// For whom; the caller themselves when absent.
    pub user: Option<String>,
    /// In which role; the usual one when absent.
    pub role: Option<Role>,
}

/// The staff of a hospital.
#[derive(Debug, Clone)]
pub struct Staff {
    users: BTreeMap<String, BTreeSet<Role>>,
    front_ends: BTreeSet<u32>,
    locals: LocalUsers,
    owner: u32,
}

impl Staff {
    /// The staff of a table; `owner` is the user whose process serves.
    ///
    /// # Errors
    /// [`StaffError`].
    pub fn new(table: &StaffTable, locals: LocalUsers, owner: u32) -> Result<Self, StaffError> {
        let mut users = BTreeMap::new();
        for (user, names) in &table.users {
            let role = |name: &String| {
                Role::parse(name)
                    .filter(|role| Role::STAFF.contains(role))
                    .ok_or_else(|| StaffError::UnknownRole { user: user.clone(), role: name.clone() })
            };
            users.insert(user.clone(), names.iter().map(role).collect::<Result<_, _>>()?);
        }
        let number = |name: &String| locals.number(name).ok_or_else(|| StaffError::UnknownUser(name.clone()));
        let front_ends = table.front_ends.iter().map(number).collect::<Result<_, _>>()?;
        Ok(Self { users, front_ends, locals, owner })
    }

    /// Whether there is a table: then others than the owner may open the socket.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether this is the user whose process serves.
    #[must_use]
    pub fn is_owner(&self, uid: Option<u32>) -> bool {
        uid == Some(self.owner)
    }

    /// Decides whether a local user may do something, as whom they ask to do it.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn admit(&self, uid: Option<u32>, asked: &Asked, action: Action) -> Result<Member, Denied> {
        let own = uid.map_or_else(|| "unknown".to_owned(), |uid| self.locals.name(uid));
        let user = asked.user.clone().unwrap_or_else(|| own.clone());
        let denied = |role, reason| Err(Denied { user: user.clone(), role, reason });
        let usual = action.allowed()[0];
        let role = if self.has_table() {
            let speaks_for_others = uid.is_some_and(|uid| self.front_ends.contains(&uid));
            if user != own && !speaks_for_others {
                return denied(asked.role, "only a front end named in the staff table may act for somebody else");
            }
            let by_number = || uid.filter(|_| user == own).and_then(|uid| self.users.get(&uid.to_string()));
            let Some(roles) = self.users.get(&user).or_else(by_number) else {
                return denied(asked.role, "this user is not in the staff table");
            };
            match asked.role {
                Some(role) if roles.contains(&role) => role,
                Some(role) => return denied(Some(role), "the staff table does not give this user this role"),
                None => {
                    let fitting = action.allowed().iter().find(|role| roles.contains(role));
                    let Some(role) = fitting.or_else(|| roles.first()) else {
                        return denied(None, "the staff table gives this user no role");
                    };
                    *role
                }
            }
        } else if self.is_owner(uid) {
            asked.role.unwrap_or(usual)
        } else {
            return denied(asked.role, "without a staff table only the server's own user is served");
        };
        let decision = decide(role, action);
        if decision.allowed { Ok(Member { user, role }) } else { denied(Some(role), decision.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 1000;

    fn staff(table: &str) -> Staff {
        let table: StaffTable = toml::from_str(table).unwrap();
        let locals =
            LocalUsers::parse("root:x:0:0::/root:/bin/sh\nowner:x:1000:1000::/:\nanna:x:1001:1::/:\nui:x:1002:1::/:\n");
        Staff::new(&table, locals, OWNER).unwrap()
    }

    fn asked(user: Option<&str>, role: Option<Role>) -> Asked {
        Asked { user: user.map(str::to_owned), role }
    }

    #[test]
    fn without_a_table_the_owner_has_every_role_and_nobody_else_any() {
        let staff = staff("");
        let member = staff.admit(Some(OWNER), &Asked::default(), Action::ReadAudit).unwrap();
        assert_eq!(member, Member { user: "owner".to_owned(), role: Role::PrivacyOfficer });
        let clinician = asked(Some("anna"), Some(Role::Clinician));
        assert_eq!(staff.admit(Some(OWNER), &clinician, Action::ReadRecord).unwrap().user, "anna");
        let denied = staff.admit(Some(OWNER), &clinician, Action::ReadAudit).unwrap_err();
        assert_eq!(denied.reason, "no rule gives this role this action");
        for stranger in [Some(0), Some(1001), None] {
            assert!(staff.admit(stranger, &Asked::default(), Action::ReadStatus).is_err());
        }
    }

    #[test]
    fn a_table_gives_roles_to_users_and_lets_front_ends_speak_for_them() {
        let staff = staff(
            "front_ends = [\"ui\"]\n[users]\nanna = [\"registrar\", \"auditor\"]\nberta = [\"records-officer\"]\n1000 = [\"privacy-officer\"]\n",
        );
        let anna = staff.admit(Some(1001), &Asked::default(), Action::ReadKeys).unwrap();
        assert_eq!((anna.user.as_str(), anna.role), ("anna", Role::Registrar));
        assert_eq!(staff.admit(Some(1001), &Asked::default(), Action::ReadAudit).unwrap().role, Role::Auditor);
        let why = |uid, asked: &Asked, action| staff.admit(Some(uid), asked, action).unwrap_err().reason;
        assert_eq!(why(1001, &Asked::default(), Action::ReadRecord), "no rule gives this role this action");
        let as_officer = asked(None, Some(Role::RecordsOfficer));
        assert_eq!(why(1001, &as_officer, Action::ReadRecord), "the staff table does not give this user this role");
        let for_berta = asked(Some("berta"), None);
        assert!(why(1001, &for_berta, Action::ReadRecord).contains("front end"));
        assert_eq!(staff.admit(Some(1002), &for_berta, Action::ReadRecord).unwrap().user, "berta");
        assert_eq!(why(1002, &Asked::default(), Action::ReadStatus), "this user is not in the staff table");
        assert!(staff.admit(Some(OWNER), &Asked::default(), Action::ReadAudit).is_ok(), "listed by number");
        assert!(
            staff.admit(Some(OWNER), &Asked::default(), Action::ReadRecord).is_err(),
            "a table binds the owner, too"
        );
        assert_eq!(why(4711, &Asked::default(), Action::ReadStatus), "this user is not in the staff table");
    }

    #[test]
    fn a_table_that_says_nonsense_is_refused() {
        let locals = LocalUsers::parse("anna:x:1001:1::/:\n");
        let table = |text: &str| Staff::new(&toml::from_str(text).unwrap(), locals.clone(), 0).map(drop);
        assert!(matches!(table("[users]\nanna = [\"king\"]"), Err(StaffError::UnknownRole { .. })));
        assert!(matches!(table("[users]\nanna = [\"authority-operator\"]"), Err(StaffError::UnknownRole { .. })));
        assert_eq!(table("front_ends = [\"nobody-here\"]"), Err(StaffError::UnknownUser("nobody-here".to_owned())));
        assert!(toml::from_str::<StaffTable>("user = 1").is_err());
    }
}
