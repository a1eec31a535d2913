//! Which part of a record a patient lets travel: an allow-list of types, dates and security labels.
//!
//! # Text form
//!
//! ```text
//! scope   = clause *( ";" clause )          each clause at most once; spaces around tokens are ignored
//! clause  = "types=" types / "from=" date / "to=" date / "undated=" ("include" / "exclude") / "labels=" labels
//! types   = "*" / name *( "," name ) / "!" name *( "," "!" name )
//! labels  = "*" / label *( "," label )
//! label   = "none" / code                   "none" stands for resources without any label
//! date    = YYYY [ "-" MM [ "-" DD ] ]      "from" means its first day, "to" its last day, both inclusive
//! ```
//!
//! Absent clauses: `types=*`; no date limit; `undated=include` without a date limit and `undated=exclude` with one;
//! `labels=none,L,M,N,U`. A resource without labels is *not* known to be unrestricted (most systems never label), but
//! withholding all of them would withhold most records; whoever wants to be strict leaves `none` out.
//! A whole record is `types=*;labels=*`. The full grammar with examples is in docs/SCOPE.md.

mod text;
mod within;

pub use text::{ScopeError, ScopeErrorKind};

use crate::dates::Day;
use crate::facts::ResourceFacts;
use crate::types::resource_type;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The most label codes that one scope may name.
pub const MAX_SCOPE_LABELS: usize = 64;
/// The longest text of a scope, in bytes.
pub const MAX_SCOPE_TEXT_BYTES: usize = 8 * 1024;
/// The longest label code, in bytes.
const MAX_LABEL_BYTES: usize = 64;

/// The allow-list a patient signs: what is not named does not travel.
///
/// Bytes: CBOR array `[types, from, to, undated, labels]`; lists sorted and without repetition, else refused.
///
/// Security: opened to source and destination, which both decide every resource by it; a wrong answer discloses what
/// the patient did not allow.
///
/// Source: PROTOCOL section 5, Scope.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    types: TypeRule,
    from: Option<Day>,
    to: Option<Day>,
    undated: bool,
    labels: LabelRule,
}

waybill_crypto::opaque_debug!(Scope);

/// Which resource types are in scope.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TypeRule {
    All,
    Only(Vec<&'static str>),
    Except(Vec<&'static str>),
}

/// Which security labels are in scope.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRule {
    All,
    Only { unlabelled: bool, codes: Vec<String> },
}

/// Whether a resource is inside a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every rule of the scope allows the resource.
    InScope,
    /// The first rule that does not allow it.
    Withheld(WithheldReason),
}

/// Why a resource stays behind, in the order in which the rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum WithheldReason {
    /// The scope does not name the resource type.
    #[n(0)]
    TypeNotInScope,
    /// It took place before the first day of the scope.
    #[n(1)]
    BeforeFrom,
    /// It took place after the last day of the scope.
    #[n(2)]
    AfterTo,
    /// It has no date that can be read, and the scope excludes such resources.
    #[n(3)]
    Undated,
    /// It carries a label that the scope does not name, or none where the scope demands one.
    #[n(4)]
    Label,
    /// The patient hides this particular item; only the source ever says so.
    #[n(5)]
    Hidden,
}

impl WithheldReason {
    /// The stable name that reports use.
    pub fn code(self) -> &'static str {
        match self {
            Self::TypeNotInScope => "type-not-in-scope",
            Self::BeforeFrom => "before-from",
            Self::AfterTo => "after-to",
            Self::Undated => "undated",
            Self::Label => "label",
            Self::Hidden => "hidden",
        }
    }
}

impl Scope {
    /// The whole record: `types=*;labels=*`.
    pub fn full() -> Self {
        Self { types: TypeRule::All, from: None, to: None, undated: true, labels: LabelRule::All }
    }

    /// Whether this scope withholds nothing at all.
    pub fn is_full(&self) -> bool {
        *self == Self::full()
    }

    /// Decides one resource; a pure function of the scope and the facts.
    pub fn decide(&self, facts: &ResourceFacts) -> Decision {
        let name = facts.resource_type.as_str();
        let type_allowed = match &self.types {
            TypeRule::All => true,
            TypeRule::Only(names) => names.binary_search(&name).is_ok(),
            TypeRule::Except(names) => names.binary_search(&name).is_err(),
        };
        if !type_allowed {
            return Decision::Withheld(WithheldReason::TypeNotInScope);
        }
        match facts.clinical_date {
            None if !self.undated => return Decision::Withheld(WithheldReason::Undated),
            Some(day) if self.from.is_some_and(|from| day < from) => {
                return Decision::Withheld(WithheldReason::BeforeFrom);
            }
            Some(day) if self.to.is_some_and(|to| day > to) => return Decision::Withheld(WithheldReason::AfterTo),
            _ => {}
        }
        if self.labels.allows(&facts.labels) { Decision::InScope } else { Decision::Withheld(WithheldReason::Label) }
    }
}

impl LabelRule {
    /// What a scope without a `labels` clause allows.
    fn default_codes() -> Self {
        Self::Only { unlabelled: true, codes: ["L", "M", "N", "U"].map(String::from).to_vec() }
    }

    /// Every label has to be allowed: one that is not named withholds the resource.
    fn allows(&self, labels: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Only { unlabelled, .. } if labels.is_empty() => *unlabelled,
            Self::Only { codes, .. } => labels.iter().all(|label| codes.binary_search(label).is_ok()),
        }
    }
}

/// Whether a text may be a label code of a scope.
fn is_label_code(code: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// The bytes of a scope; the rules about sorting are checked when it becomes a [`Scope`].
#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    types: WireTypes,
    #[n(1)]
    from: Option<Day>,
    #[n(2)]
    to: Option<Day>,
    #[n(3)]
    undated: bool,
    #[n(4)]
    labels: WireLabels,
}

/// `[0, []]` all, `[1, names]` only these, `[2, names]` all but these.
#[derive(Encode, Decode)]
#[cbor(array)]
struct WireTypes {
    #[n(0)]
    rule: u8,
    #[n(1)]
    names: Vec<String>,
}

/// `[0, true, []]` all, `[1, unlabelled, codes]` only these.
#[derive(Encode, Decode)]
#[cbor(array)]
struct WireLabels {
    #[n(0)]
    rule: u8,
    #[n(1)]
    unlabelled: bool,
    #[n(2)]
    codes: Vec<String>,
}

impl From<&Scope> for Wire {
    fn from(scope: &Scope) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let types = match &scope.types {
            TypeRule::All => WireTypes { rule: 0, names: Vec::new() },
            TypeRule::Only(only) => WireTypes { rule: 1, names: names(only) },
            TypeRule::Except(except) => WireTypes { rule: 2, names: names(except) },
        };
        let labels = match &scope.labels {
            LabelRule::All => WireLabels { rule: 0, unlabelled: true, codes: Vec::new() },
            LabelRule::Only { unlabelled, codes } => {
                WireLabels { rule: 1, unlabelled: *unlabelled, codes: codes.clone() }
            }
        };
        Self { types, from: scope.from, to: scope.to, undated: scope.undated, labels }
    }
}

impl TryFrom<Wire> for Scope {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, &'static str> {
        let sorted = |list: &[String]| list.windows(2).all(|pair| pair[0] < pair[1]);
        if !sorted(&wire.types.names) || !sorted(&wire.labels.codes) {
            return Err("the lists of a scope are sorted and without repetition");
        }
        let names = wire.types.names.iter().map(|name| resource_type(name)).collect::<Option<Vec<_>>>();
        let names = names.ok_or("a scope names resource types of FHIR R4 only")?;
        let types = match (wire.types.rule, names.is_empty()) {
            (0, true) => TypeRule::All,
            (1, false) => TypeRule::Only(names),
            (2, false) => TypeRule::Except(names),
            _ => return Err("no such type rule"),
        };
        let codes = wire.labels.codes;
        if codes.len() > MAX_SCOPE_LABELS || !codes.iter().all(|code| is_label_code(code) && code != "none") {
            return Err("the label codes of a scope are at most 64 codes of 64 characters");
        }
        let labels = match (wire.labels.rule, wire.labels.unlabelled, codes.is_empty()) {
            (0, true, true) => LabelRule::All,
            (1, false, true) => return Err("no label is in scope"),
            (1, unlabelled, _) => LabelRule::Only { unlabelled, codes },
            _ => return Err("no such label rule"),
        };
        if wire.from.zip(wire.to).is_some_and(|(from, to)| from > to) {
            return Err("the scope begins after it ends");
        }
        Ok(Self { types, from: wire.from, to: wire.to, undated: wire.undated, labels })
    }
}

impl<C> Encode<C> for Scope {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        Wire::from(self).encode(e, context)
    }
}

impl<'b, C> Decode<'b, C> for Scope {
    fn decode(d: &mut minicbor::Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        Wire::decode(d, context)?.try_into().map_err(minicbor::decode::Error::message)
    }
}

#[cfg(test)]
mod tests;
