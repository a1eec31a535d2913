//! Whom a resource is about: the R4 Patient compartment, turned into a decision that never lets another patient's
//! resource travel.
//!
//! The compartment lists, for every type, the elements that may name a patient. They are not alike: `subject` says whom
//! the resource is *about*, `author` or `recipient` only that a patient had a hand in it. Ownership is read from the
//! first kind only ([`Rule::owner`]). A resource that names no owner itself may inherit one from what it is attached to
//! ([`Rule::inherits`]: a Provenance is about whatever its targets are about). What has no owner either way is a
//! supporting resource (an organization, a medication) and may travel with any record that needs it, unless it names
//! some other patient anywhere.
//!
//! Security: a wrong `Own` discloses another patient's data. Whatever is in doubt (a subject that is contained, given by
//! identifier only, or on a server we do not know) is therefore not this patient's.
//!
//! Source: hl7.org/fhir/R4/compartmentdefinition-patient.html; PROTOCOL section 7.

use std::collections::BTreeSet;

use crate::json::{self, Document, Kind, Value};
use crate::pool::{Pool, PoolError, resolve};
use crate::reference::{LinkKind, Reference, links};
use crate::resource::{ResourceKey, type_of};
use crate::types::ResourceType;

/// How far ownership is inherited (a Provenance of a List of a Task), and how deep groups contain groups.
const MAX_INHERITANCE: usize = 4;

/// Where a type says whom it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The type.
    pub resource_type: &'static str,
    /// Elements that name whom the resource is about.
    pub owner: &'static [&'static str],
    /// Elements whose targets' owners are the owners, where `owner` names nobody.
    pub inherits: &'static [&'static str],
}

const fn about(resource_type: &'static str, owner: &'static [&'static str]) -> Rule {
    Rule { resource_type, owner, inherits: &[] }
}

const fn attached(
    resource_type: &'static str,
    owner: &'static [&'static str],
    inherits: &'static [&'static str],
) -> Rule {
    Rule { resource_type, owner, inherits }
}

const SUBJECT: &[&str] = &["subject"];
const PATIENT: &[&str] = &["patient"];

/// The rules of every type that is ever about a patient, in alphabetical order; types that are absent never are.
pub const RULES: &[Rule] = &[
    about("Account", SUBJECT),
    about("AdverseEvent", SUBJECT),
    about("AllergyIntolerance", PATIENT),
    about("Appointment", &["participant.actor"]),
    attached("AppointmentResponse", &["actor"], &["appointment"]),
    about("AuditEvent", &["agent.who", "entity.what"]),
    about("Basic", SUBJECT),
    attached("Binary", &[], &["securityContext"]),
    about("BiologicallyDerivedProduct", &["collection.source"]),
    about("BodyStructure", PATIENT),
    about("CarePlan", SUBJECT),
    about("CareTeam", SUBJECT),
    about("ChargeItem", SUBJECT),
    about("Claim", PATIENT),
    about("ClaimResponse", PATIENT),
    about("ClinicalImpression", SUBJECT),
    attached("Communication", SUBJECT, &["about"]),
    attached("CommunicationRequest", SUBJECT, &["about"]),
    attached("Composition", SUBJECT, &["section.entry"]),
    about("Condition", SUBJECT),
    about("Consent", PATIENT),
    about("Contract", SUBJECT),
    about("Coverage", &["beneficiary"]),
    about("CoverageEligibilityRequest", PATIENT),
    attached("CoverageEligibilityResponse", PATIENT, &["request"]),
    attached("DetectedIssue", PATIENT, &["implicated"]),
    about("Device", PATIENT),
    attached("DeviceMetric", &[], &["source"]),
    about("DeviceRequest", SUBJECT),
    about("DeviceUseStatement", SUBJECT),
    about("DiagnosticReport", SUBJECT),
    attached("DocumentManifest", SUBJECT, &["content"]),
    about("DocumentReference", SUBJECT),
    about("Encounter", SUBJECT),
    about("EnrollmentRequest", &["candidate"]),
    attached("EnrollmentResponse", &[], &["request"]),
    about("EpisodeOfCare", PATIENT),
    about("ExplanationOfBenefit", PATIENT),
    about("FamilyMemberHistory", PATIENT),
    about("Flag", SUBJECT),
    about("Goal", SUBJECT),
    about("Group", &["member.entity"]),
    about("GuidanceResponse", SUBJECT),
    about("ImagingStudy", SUBJECT),
    about("Immunization", PATIENT),
    about("ImmunizationEvaluation", PATIENT),
    about("ImmunizationRecommendation", PATIENT),
    about("Invoice", SUBJECT),
    attached("Linkage", &[], &["item.resource"]),
    attached("List", SUBJECT, &["entry.item"]),
    about("MeasureReport", SUBJECT),
    about("Media", SUBJECT),
    about("MedicationAdministration", SUBJECT),
    about("MedicationDispense", SUBJECT),
    about("MedicationRequest", SUBJECT),
    about("MedicationStatement", SUBJECT),
    attached("MessageHeader", &[], &["focus"]),
    about("MolecularSequence", PATIENT),
    about("NutritionOrder", PATIENT),
    about("Observation", SUBJECT),
    attached("PaymentNotice", &[], &["request", "response"]),
    about("Person", &["link.target"]),
    about("Procedure", SUBJECT),
    attached("Provenance", &[], &["target"]),
    about("QuestionnaireResponse", SUBJECT),
    about("RelatedPerson", PATIENT),
    about("RequestGroup", SUBJECT),
    about("ResearchSubject", &["individual"]),
    about("RiskAssessment", SUBJECT),
    about("Schedule", &["actor"]),
    about("ServiceRequest", SUBJECT),
    attached("Slot", &[], &["schedule"]),
    about("Specimen", SUBJECT),
    about("SupplyDelivery", PATIENT),
    attached("SupplyRequest", &["deliverTo"], &["requester"]),
    attached("Task", &["for"], &["focus", "basedOn"]),
    attached("VerificationResult", &[], &["target"]),
    about("VisionPrescription", PATIENT),
];

/// The types that belong to a patient's record by being attached to something of it, and that nothing else leads to.
pub const ATTACHED_TYPES: &[&str] = &["Linkage", "List", "Provenance"];

/// The rule of a type, if it is ever about a patient.
#[must_use]
pub fn rule(resource_type: ResourceType) -> Option<&'static Rule> {
    RULES.binary_search_by_key(&resource_type.as_str(), |rule| rule.resource_type).ok().map(|at| &RULES[at])
}

/// How a resource relates to one patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// About this patient and nobody else.
    Own,
    /// About nobody: a supporting resource that names no other patient.
    Supporting,
    /// About this patient and somebody else.
    Shared,
    /// About another patient.
    Another,
    /// About nobody, but some other patient is named in it.
    NamesAnother,
    /// About somebody who cannot be made out.
    Unknown,
}

/// Who was found in the owner elements so far.
#[derive(Debug, Clone, Copy, Default)]
struct Owners {
    this: bool,
    another: bool,
    unknown: bool,
}

impl Owners {
    fn is_nobody(self) -> bool {
        !(self.this || self.another || self.unknown)
    }

    fn is_settled(self) -> bool {
        self.this && self.another
    }
}

/// Says how a resource relates to a patient.
///
/// # Errors
/// [`PoolError`] if the store fails.
pub fn relation(patient: &ResourceKey, document: &Document<'_>, pool: &dyn Pool) -> Result<Relation, PoolError> {
    let mut reader = Reader { patient, pool, owners: Owners::default(), followed: BTreeSet::new() };
    reader.read(document, 0)?;
    let owners = reader.owners;
    Ok(match owners {
        Owners { this: true, another: false, unknown: false } => Relation::Own,
        Owners { this: true, .. } => Relation::Shared,
        Owners { another: true, .. } => Relation::Another,
        Owners { unknown: true, .. } => Relation::Unknown,
        _ if names_another(patient, document, pool)? => Relation::NamesAnother,
        _ => Relation::Supporting,
    })
}

/// Whether the resource's own elements say whom it is about, by its type.
#[must_use]
pub fn is_about_someone(document: &Document<'_>) -> bool {
    let Ok(resource_type) = type_of(document.root()) else { return false };
    let named = |rule: &Rule| rule.owner.iter().any(|path| !document.root().select(path).is_empty());
    resource_type == ResourceType::PATIENT || rule(resource_type).is_some_and(named)
}

/// Any reference to a patient other than this one, anywhere in the text, or a patient contained in it.
fn names_another(patient: &ResourceKey, document: &Document<'_>, pool: &dyn Pool) -> Result<bool, PoolError> {
    let contained = document.root().select("contained");
    if contained.iter().any(|inner| inner.text_of("resourceType").as_deref() == Some("Patient")) {
        return Ok(true);
    }
    for link in links(document).filter(|link| link.kind == LinkKind::Reference) {
        let reference = link.reference();
        let is_another = match (resolve(&reference, pool)?, &reference) {
            (Some(key), _) => key.resource_type == ResourceType::PATIENT && key != *patient,
            (None, Reference::Absolute { tail: Some(key), .. }) => key.resource_type == ResourceType::PATIENT,
            (None, Reference::Conditional { resource_type, .. }) => *resource_type == ResourceType::PATIENT,
            (None, _) => false,
        };
        if is_another {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Reader<'p> {
    patient: &'p ResourceKey,
    pool: &'p dyn Pool,
    owners: Owners,
    followed: BTreeSet<ResourceKey>,
}

impl Reader<'_> {
    fn read(&mut self, document: &Document<'_>, depth: usize) -> Result<(), PoolError> {
        let root = document.root();
        let Ok(resource_type) = type_of(root) else {
            self.owners.unknown = true;
            return Ok(());
        };
        if resource_type == ResourceType::PATIENT {
            self.note_patient(root.text_of("id").as_deref());
            return Ok(());
        }
        if matches!(resource_type.as_str(), "Bundle" | "Parameters") {
            return self.read_container(document);
        }
        let Some(rule) = rule(resource_type) else { return Ok(()) };
        let before = std::mem::take(&mut self.owners);
        for path in rule.owner {
            for element in root.select(path) {
                self.read_owner(root, element, is_single_subject(path), depth)?;
            }
        }
        if self.owners.is_nobody() {
            for path in rule.inherits {
                self.inherit(root, path, depth)?;
            }
        }
        let found = self.owners;
        self.owners = Owners {
            this: before.this || found.this,
            another: before.another || found.another,
            unknown: before.unknown || found.unknown,
        };
        Ok(())
    }

    fn note_patient(&mut self, id: Option<&str>) {
        if id == Some(self.patient.id.as_str()) {
            self.owners.this = true;
        } else {
            self.owners.another = true;
        }
    }

    /// A resource that holds whole resources is about every patient that is in it or named in it.
    fn read_container(&mut self, document: &Document<'_>) -> Result<(), PoolError> {
        for value in document.descendants().filter(|value| value.kind() == Kind::Object) {
            if value.text_of("resourceType").as_deref() == Some("Patient") {
                self.note_patient(value.text_of("id").as_deref());
            }
        }
        for link in links(document).filter(|link| link.kind == LinkKind::Reference) {
            let reference = link.reference();
            match resolve(&reference, self.pool)? {
                Some(key) if key.resource_type == ResourceType::PATIENT => self.note_patient(Some(key.id.as_str())),
                Some(_) => {}
                None => self.note_foreign(&reference, false),
            }
        }
        Ok(())
    }

    /// A name that leads to nothing we hold: at worst, somebody else.
    fn note_foreign(&mut self, reference: &Reference, is_single_subject: bool) {
        let foreign_type = match reference {
            Reference::Absolute { tail: Some(key), .. } => Some(key.resource_type),
            Reference::Conditional { resource_type, .. } => Some(*resource_type),
            _ => None,
        };
        match foreign_type {
            Some(ResourceType::PATIENT) => self.owners.another = true,
            Some(ResourceType::GROUP) => self.owners.unknown = true,
            Some(_) => {}
            None => self.owners.unknown |= is_single_subject,
        }
    }

    fn read_owner(&mut self, root: Value<'_>, element: Value<'_>, single: bool, depth: usize) -> Result<(), PoolError> {
        let declared = element.text_of("type").and_then(|name| ResourceType::parse(&name));
        let may_be_patient = declared.is_none_or(|t| t == ResourceType::PATIENT || t == ResourceType::GROUP);
        let Some(text) = element.text_of("reference") else {
            // "Reported for Mr X": somebody, whom nothing ties to this patient.
            let is_somebody = element.member("identifier").is_some() || element.member("display").is_some();
            self.owners.unknown |= single && may_be_patient && is_somebody;
            return Ok(());
        };
        let reference = Reference::parse(&text);
        if let Reference::Contained(id) = &reference {
            self.read_contained(root, id);
            return Ok(());
        }
        match resolve(&reference, self.pool)? {
            Some(key) => self.read_key(&key, depth),
            None => {
                self.note_foreign(&reference, single && may_be_patient);
                Ok(())
            }
        }
    }

    fn read_contained(&mut self, root: Value<'_>, id: &str) {
        let contained = root.select("contained").into_iter().find(|inner| inner.text_of("id").as_deref() == Some(id));
        let Some(contained) = contained else { return };
        // A contained patient has no identity of its own to compare.
        let name = contained.text_of("resourceType");
        self.owners.unknown |= matches!(name.as_deref(), Some("Patient" | "Group" | "RelatedPerson") | None);
    }

    fn read_key(&mut self, key: &ResourceKey, depth: usize) -> Result<(), PoolError> {
        match key.resource_type.as_str() {
            "Patient" => self.note_patient(Some(key.id.as_str())),
            "Group" | "RelatedPerson" => {
                let is_held = self.follow(key, depth)?;
                // Whoever is in a group we do not hold may be anybody; a relative we do not hold is not the patient.
                self.owners.unknown |= !is_held && key.resource_type == ResourceType::GROUP;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the owners of another held resource; false if it is not held.
    fn follow(&mut self, key: &ResourceKey, depth: usize) -> Result<bool, PoolError> {
        if depth >= MAX_INHERITANCE {
            self.owners.unknown = true;
            return Ok(true);
        }
        // Whoever a resource is about was noted the first time; lists of lists must not cost their product.
        if !self.followed.insert(key.clone()) {
            return Ok(true);
        }
        let Some(bytes) = self.pool.bytes(key)? else { return Ok(false) };
        match json::parse(&bytes) {
            Ok(document) => self.read(&document, depth + 1)?,
            Err(_) => self.owners.unknown = true,
        }
        Ok(true)
    }

    fn inherit(&mut self, root: Value<'_>, path: &str, depth: usize) -> Result<(), PoolError> {
        for element in root.select(path) {
            if self.owners.is_settled() {
                return Ok(());
            }
            let Some(text) = element.text_of("reference") else { continue };
            let reference = Reference::parse(&text);
            match resolve(&reference, self.pool)? {
                Some(key) if key.resource_type == ResourceType::PATIENT => self.note_patient(Some(key.id.as_str())),
                Some(key) => {
                    self.follow(&key, depth)?;
                }
                None => self.note_foreign(&reference, false),
            }
        }
        Ok(())
    }
}

/// Whether a path names exactly whom the resource is about, so that a name without a reference still means somebody.
fn is_single_subject(path: &str) -> bool {
    matches!(path, "subject" | "patient" | "beneficiary" | "for" | "individual" | "candidate")
}

#[cfg(test)]
#[path = "compartment_tests.rs"]
mod tests;
