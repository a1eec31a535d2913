//! Is this the same person? Demographics taken from a Patient resource, and the rule that compares two of them.
//!
//! # The rule
//!
//! | what | agrees | doubt | mismatch |
//! |---|---|---|---|
//! | birth date | same text | missing on one side, or one is a less exact form of the other | differs |
//! | sex | same code | missing or `unknown` on one side; differs, but an identifier is shared | differs |
//! | name | one name with the same family and first given name | missing on one side; one of the two differs; both differ, but an identifier is shared | both differ |
//! | identifiers | one shared, or no system in common | same system, no common value | never |
//!
//! What is missing on *both* sides is a doubt unless an identifier (system and value) is shared. Any mismatch makes the
//! whole a mismatch; otherwise any doubt makes it a doubt, which a person decides before anything is released. Names
//! are folded: case, diacritics, ligatures, spaces and punctuation do not count; digits do (generated test patients
//! carry them).

pub(crate) mod fold;

use crate::json::{self, Value};
use fold::fold;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use thiserror::Error;

/// The most names, given names or identifiers that are taken from a Patient.
const MAX_ITEMS: usize = 32;
/// The longest text that is taken, in bytes; a longer one counts as missing.
const MAX_TEXT_BYTES: usize = 256;

/// One name of a person.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PersonName {
    /// The family name.
    #[n(0)]
    pub family: Option<String>,
    /// The given names in order.
    #[n(1)]
    pub given: Vec<String>,
}

/// One identifier: a number and who gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct PersonIdentifier {
    /// The naming system, a URI.
    #[n(0)]
    pub system: String,
    /// The value within the system.
    #[n(1)]
    pub value: String,
}

/// What identifies a person: names, birth date, sex and identifiers.
///
/// Bytes: CBOR array of the four; at most 32 names, given names and identifiers, texts of at most 256 bytes.
///
/// Security: the most identifying data of all. Travels sealed only, and `Debug` shows nothing of it.
#[derive(Clone, Default, PartialEq, Eq, Encode)]
#[cbor(array)]
pub struct Demographics {
    /// The names.
    #[n(0)]
    pub names: Vec<PersonName>,
    /// The birth date as FHIR writes it, possibly partial.
    #[n(1)]
    pub birth_date: Option<String>,
    /// The administrative sex code: male, female, other or unknown.
    #[n(2)]
    pub sex: Option<String>,
    /// The identifiers that have a system and a value.
    #[n(3)]
    pub identifiers: Vec<PersonIdentifier>,
}

impl std::fmt::Debug for PersonName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonName(..)")
    }
}

impl std::fmt::Debug for PersonIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonIdentifier(..)")
    }
}

impl std::fmt::Debug for Demographics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demographics(..)")
    }
}

/// Why no demographics could be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DemographicsError {
    /// The bytes are not JSON.
    #[error("the Patient resource is not valid JSON")]
    Json(#[source] json::JsonError),
    /// The bytes are another resource.
    #[error("the resource is not a Patient")]
    NotAPatient,
}

/// The part of an identity that a reason is about; never a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IdentityField {
    /// The birth date.
    #[n(0)]
    BirthDate,
    /// The administrative sex.
    #[n(1)]
    Sex,
    /// The family name.
    #[n(2)]
    FamilyName,
    /// The first given name.
    #[n(3)]
    GivenName,
    /// The identifiers.
    #[n(4)]
    Identifier,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IdentityProblem {
    /// One or both sides do not say.
    #[n(0)]
    Missing,
    /// One side is less exact than the other.
    #[n(1)]
    Inexact,
    /// The sides say different things.
    #[n(2)]
    Differs,
}

/// Why two demographics do not simply match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct IdentityReason {
    /// The field.
    #[n(0)]
    pub field: IdentityField,
    /// What is wrong with it.
    #[n(1)]
    pub problem: IdentityProblem,
}

impl std::fmt::Display for IdentityReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = match self.field {
            IdentityField::BirthDate => "birth date",
            IdentityField::Sex => "sex",
            IdentityField::FamilyName => "family name",
            IdentityField::GivenName => "given name",
            IdentityField::Identifier => "identifiers",
        };
        let problem = match self.problem {
            IdentityProblem::Missing => "missing",
            IdentityProblem::Inexact => "inexact",
            IdentityProblem::Differs => "different",
        };
        write!(f, "{field}: {problem}")
    }
}

/// The outcome of comparing two demographics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityMatch {
    /// The same person as far as the rule can tell.
    Match,
    /// A person has to decide, before anything is released.
    Doubt(Vec<IdentityReason>),
    /// Not the same person.
    Mismatch(Vec<IdentityReason>),
}

impl Demographics {
    /// Takes the demographics from the bytes of a Patient resource.
    ///
    /// Errors: [`DemographicsError`] if the bytes are not a Patient; a field that is absent or malformed is missing.
    pub fn from_patient(bytes: &[u8]) -> Result<Self, DemographicsError> {
        let document = json::parse(bytes).map_err(DemographicsError::Json)?;
        let root = document.root();
        if root.text_of("resourceType").as_deref() != Some("Patient") {
            return Err(DemographicsError::NotAPatient);
        }
        let list = |name: &str| root.select(name).into_iter().take(MAX_ITEMS);
        let names = list("name").map(|name| PersonName {
            family: text_of(name, "family"),
            given: name.select("given").into_iter().filter_map(text).take(MAX_ITEMS).collect(),
        });
        let identifiers = list("identifier").filter_map(|identifier| {
            Some(PersonIdentifier { system: text_of(identifier, "system")?, value: text_of(identifier, "value")? })
        });
        Ok(Self {
            names: names.filter(|name| *name != PersonName::default()).collect(),
            birth_date: text_of(root, "birthDate"),
            sex: text_of(root, "gender"),
            identifiers: identifiers.collect(),
        })
    }

    /// Compares by the rule of the module; symmetric, and a pure function of the two.
    ///
    /// Security: decides whether a record is attached to a person; a wrong match discloses one patient to another.
    pub fn compare(&self, other: &Self) -> IdentityMatch {
        let mut findings = Findings::default();
        let shared = self.compare_identifiers(other, &mut findings);
        self.compare_birth_date(other, shared, &mut findings);
        self.compare_sex(other, shared, &mut findings);
        self.compare_names(other, shared, &mut findings);
        findings.into_match()
    }

    /// Returns whether an identifier is shared.
    fn compare_identifiers(&self, other: &Self, findings: &mut Findings) -> bool {
        let mine: BTreeSet<_> = self.identifiers.iter().collect();
        let shared: BTreeSet<&str> =
            other.identifiers.iter().filter(|theirs| mine.contains(theirs)).map(|both| both.system.as_str()).collect();
        let differs = other.identifiers.iter().any(|theirs| {
            !shared.contains(theirs.system.as_str()) && self.identifiers.iter().any(|mine| mine.system == theirs.system)
        });
        if differs {
            findings.doubt(IdentityField::Identifier, IdentityProblem::Differs);
        }
        !shared.is_empty()
    }

    fn compare_birth_date(&self, other: &Self, shared: bool, findings: &mut Findings) {
        let field = IdentityField::BirthDate;
        match (&self.birth_date, &other.birth_date) {
            (None, None) if shared => {}
            (Some(mine), Some(theirs)) if mine == theirs => {}
            (Some(mine), Some(theirs)) if mine.starts_with(theirs.as_str()) || theirs.starts_with(mine.as_str()) => {
                findings.doubt(field, IdentityProblem::Inexact);
            }
            (Some(_), Some(_)) => findings.mismatch(field),
            _ => findings.doubt(field, IdentityProblem::Missing),
        }
    }

    fn compare_sex(&self, other: &Self, shared: bool, findings: &mut Findings) {
        let known = |sex: &Option<String>| sex.clone().filter(|code| code != "unknown");
        match (known(&self.sex), known(&other.sex)) {
            (None, None) if shared => {}
            (Some(mine), Some(theirs)) if mine == theirs => {}
            (Some(_), Some(_)) if shared => findings.doubt(IdentityField::Sex, IdentityProblem::Differs),
            (Some(_), Some(_)) => findings.mismatch(IdentityField::Sex),
            _ => findings.doubt(IdentityField::Sex, IdentityProblem::Missing),
        }
    }

    fn compare_names(&self, other: &Self, shared: bool, findings: &mut Findings) {
        use IdentityField::{FamilyName, GivenName};
        let (mine, theirs) = (self.folded_names(), other.folded_names());
        if mine.is_empty() && theirs.is_empty() && shared || mine.intersection(&theirs).next().is_some() {
            return;
        }
        if mine.is_empty() || theirs.is_empty() {
            findings.doubt(FamilyName, IdentityProblem::Missing);
            return;
        }
        let pairs = || mine.iter().flat_map(|mine| theirs.iter().map(move |theirs| (mine, theirs)));
        let family = pairs().any(|(mine, theirs)| mine.0 == theirs.0);
        let given = pairs().any(|(mine, theirs)| mine.1 == theirs.1);
        match (family, given) {
            (false, false) if !shared => {
                findings.mismatch(FamilyName);
                findings.mismatch(GivenName);
            }
            (true, false) => findings.doubt(GivenName, IdentityProblem::Differs),
            (false, true) => findings.doubt(FamilyName, IdentityProblem::Differs),
            _ => {
                findings.doubt(FamilyName, IdentityProblem::Differs);
                findings.doubt(GivenName, IdentityProblem::Differs);
            }
        }
    }

    /// Family and first given name of each name, folded; names that fold to nothing are no names.
    fn folded_names(&self) -> BTreeSet<(String, String)> {
        let folded = self.names.iter().map(|name| {
            (fold(name.family.as_deref().unwrap_or_default()), fold(name.given.first().map_or("", String::as_str)))
        });
        folded.filter(|(family, given)| !family.is_empty() || !given.is_empty()).collect()
    }
}

/// The reasons found so far.
#[derive(Default)]
struct Findings {
    doubts: BTreeSet<IdentityReason>,
    mismatches: BTreeSet<IdentityReason>,
}

impl Findings {
    fn doubt(&mut self, field: IdentityField, problem: IdentityProblem) {
        self.doubts.insert(IdentityReason { field, problem });
    }

    fn mismatch(&mut self, field: IdentityField) {
        self.mismatches.insert(IdentityReason { field, problem: IdentityProblem::Differs });
    }

    fn into_match(self) -> IdentityMatch {
        match (self.mismatches.is_empty(), self.doubts.is_empty()) {
            (true, true) => IdentityMatch::Match,
            (true, false) => IdentityMatch::Doubt(self.doubts.into_iter().collect()),
            (false, _) => IdentityMatch::Mismatch(self.mismatches.into_iter().collect()),
        }
    }
}

fn text_of(value: Value<'_>, name: &str) -> Option<String> {
    value.member(name).and_then(text)
}

/// A text that is neither empty nor longer than what is taken.
fn text(value: Value<'_>) -> Option<String> {
    value.as_str().filter(|text| is_text(text)).map(std::borrow::Cow::into_owned)
}

fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_TEXT_BYTES
}

/// The bytes of demographics; the bounds are checked when they become [`Demographics`].
#[derive(Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    names: Vec<PersonName>,
    #[n(1)]
    birth_date: Option<String>,
    #[n(2)]
    sex: Option<String>,
    #[n(3)]
    identifiers: Vec<PersonIdentifier>,
}

impl<'b, C> Decode<'b, C> for Demographics {
    fn decode(d: &mut minicbor::Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let Wire { names, birth_date, sex, identifiers } = Wire::decode(d, context)?;
        let counts = names.len() <= MAX_ITEMS
            && identifiers.len() <= MAX_ITEMS
            && names.iter().all(|name| name.given.len() <= MAX_ITEMS);
        let fits = names
            .iter()
            .flat_map(|name| name.family.iter().chain(&name.given))
            .chain(&birth_date)
            .chain(&sex)
            .chain(identifiers.iter().flat_map(|identifier| [&identifier.system, &identifier.value]))
            .all(|text| is_text(text));
        if !counts || !fits {
            return Err(minicbor::decode::Error::message("demographics out of bounds"));
        }
        Ok(Self { names, birth_date, sex, identifiers })
    }
}

#[cfg(test)]
mod tests;
