//! The closure of a patient's record: everything that is this patient's, and what it needs to be understood.
//!
//! Breadth first from the Patient: *backward* to every resource that references the patient (a superset of the R4 Patient
//! compartment) and to what is attached to something of the patient's (a Provenance, a List); *forward* along every
//! reference (relative, versioned, absolute by alias, `Binary` in an attachment's url; contained ones stay inside).
//! [`compartment::relation`] decides on each; only what travels is expanded further, so another patient's resources are
//! reached at most as the first step across the border, and listed as not movable.
//!
//! The walk holds one resource at a time. What was reached and decided lives behind [`Frontier`], so that a store can
//! keep it and the memory of the process does not grow with the record.
//!
//! Source: PROTOCOL section 7.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::compartment::{self, ATTACHED_TYPES, Relation};
use crate::json::{self, Document};
use crate::load::MAX_LISTED;
use crate::pool::{Pool, PoolError, resolve};
use crate::reference::{Link, LinkKind, Reference, links};
use crate::resource::{ResourceId, ResourceKey};
use crate::types::ResourceType;

/// Keys asked of a pool at once.
const PAGE: usize = 500;

/// Why a held resource does not travel with this patient's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotMovable {
    /// It is about another patient.
    AnotherPatient,
    /// It is about this patient and somebody else.
    SharedWithOthers,
    /// It is about nobody, but names another patient.
    NamesAnotherPatient,
    /// It cannot be made out whom it is about.
    OwnerUnknown,
    /// The held bytes cannot be read as a resource.
    Unreadable,
}

impl NotMovable {
    /// The stable code used in loss reports.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AnotherPatient => "another-patient",
            Self::SharedWithOthers => "shared-with-others",
            Self::NamesAnotherPatient => "names-another-patient",
            Self::OwnerUnknown => "owner-unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What the closure decided on a resource it reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It belongs to what may travel.
    Movable {
        /// Its exact length in bytes.
        size_bytes: u64,
        /// Whether it is the patient's own, rather than a supporting resource.
        is_own: bool,
    },
    /// It stays, and is listed.
    NotMovable(NotMovable),
}

/// Why a reference of a travelling resource leads to nothing that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DanglingReason {
    /// `Type/id`, and no such resource is held.
    NotHeld,
    /// An absolute address that nothing was loaded under.
    ForeignAddress,
    /// An absolute address under which several resources were loaded.
    AmbiguousAddress,
    /// A `urn:` that named no entry when it was loaded.
    UnresolvedUrn,
    /// A search that named no single resource when it was loaded.
    UnresolvedConditional,
    /// Not a reference that FHIR knows.
    Unusable,
}

impl DanglingReason {
    /// The stable code used in loss reports.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotHeld => "not-held",
            Self::ForeignAddress => "foreign-address",
            Self::AmbiguousAddress => "ambiguous-address",
            Self::UnresolvedUrn => "unresolved-urn",
            Self::UnresolvedConditional => "unresolved-conditional",
            Self::Unusable => "unusable",
        }
    }
}

/// A reference that leads nowhere, in a resource that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// The resource it stands in.
    pub from: ResourceKey,
    /// Where it stands, such as `participant[1].individual.reference`.
    pub path: String,
    /// Why it leads nowhere.
    pub reason: DanglingReason,
    /// What it names, where that is a type and an id.
    pub target: Option<ResourceKey>,
}

/// A resource that was reached and is not decided yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The resource.
    pub key: ResourceKey,
    /// From where it was reached first; none for the patient.
    pub from: Option<ResourceKey>,
}

/// Where a closure keeps what it reached and decided.
///
/// Guarantees asked of an implementation: a key is reached once; `next` gives undecided keys in the order they were
/// reached and gives the same one again until it is decided, so that an interrupted walk goes on where it was.
pub trait Frontier {
    /// Notes a key, unless it is known; says whether it was new.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn reach(&mut self, key: &ResourceKey, from: Option<&ResourceKey>) -> Result<bool, PoolError>;

    /// Whether a key was reached before.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn is_known(&self, key: &ResourceKey) -> Result<bool, PoolError>;

    /// The first key that is reached and not decided.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn next(&mut self) -> Result<Option<Reached>, PoolError>;

    /// Notes the decision on a reached key.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn decide(&mut self, key: &ResourceKey, decision: Decision) -> Result<(), PoolError>;

    /// The decided keys in the order of type and id, after a key, at most `limit`.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn decided(&self, after: Option<&ResourceKey>, limit: usize) -> Result<Vec<(ResourceKey, Decision)>, PoolError>;
}

/// Who is told what the closure finds, as it finds it.
pub trait Visitor {
    /// A decision was taken on a resource.
    fn decided(&mut self, reached: &Reached, decision: Decision);
    /// A reference of a travelling resource leads nowhere; told of the first [`MAX_LISTED`] of a walk, all are counted.
    fn dangling(&mut self, dangling: Dangling);
}

/// What a closure found, in numbers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClosureSummary {
    /// Movable resources and their bytes by type.
    pub movable: BTreeMap<ResourceType, (u64, u64)>,
    /// Reached resources that do not travel, by reason.
    pub not_movable: BTreeMap<NotMovable, u64>,
    /// References that lead nowhere, by reason.
    pub dangling: BTreeMap<DanglingReason, u64>,
}

waybill_crypto::opaque_debug!(ClosureSummary);

impl ClosureSummary {
    /// Movable resources of all types.
    #[must_use]
    pub fn movable_count(&self) -> u64 {
        self.movable.values().map(|(count, _)| count).sum()
    }

    /// Bytes of all movable resources.
    #[must_use]
    pub fn movable_bytes(&self) -> u64 {
        self.movable.values().map(|(_, size_bytes)| size_bytes).sum()
    }
}

/// Why a closure could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// The hospital holds no such Patient.
    #[error("no such patient is held here")]
    NoSuchPatient,
    /// The store failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// A closure under way.
pub struct Closure<'a> {
    patient: ResourceKey,
    pool: &'a dyn Pool,
    frontier: &'a mut dyn Frontier,
    visitor: &'a mut dyn Visitor,
    summary: ClosureSummary,
    dangling_told: usize,
}

/// Computes the closure of one patient.
///
/// # Errors
/// [`ClosureError::NoSuchPatient`] if the patient is not held, [`ClosureError::Pool`] if the store fails.
pub fn close(
    patient: &ResourceId,
    pool: &dyn Pool,
    frontier: &mut dyn Frontier,
    visitor: &mut dyn Visitor,
) -> Result<ClosureSummary, ClosureError> {
    let mut closure = Closure::start(patient, pool, frontier, visitor)?;
    while closure.step()? {}
    Ok(closure.finish())
}

impl<'a> Closure<'a> {
    /// Puts the patient into an empty frontier, or goes on with one that an earlier walk left.
    ///
    /// # Errors
    /// As [`close`].
    pub fn start(
        patient: &ResourceId,
        pool: &'a dyn Pool,
        frontier: &'a mut dyn Frontier,
        visitor: &'a mut dyn Visitor,
    ) -> Result<Self, ClosureError> {
        let patient = ResourceKey { resource_type: ResourceType::PATIENT, id: patient.clone() };
        if !pool.holds(&patient)? {
            return Err(ClosureError::NoSuchPatient);
        }
        frontier.reach(&patient, None)?;
        Ok(Self { patient, pool, frontier, visitor, summary: ClosureSummary::default(), dangling_told: 0 })
    }

    /// Decides on one resource; false when none is left.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails; the step can be repeated.
    pub fn step(&mut self) -> Result<bool, PoolError> {
        let Some(reached) = self.frontier.next()? else { return Ok(false) };
        let bytes = self.pool.bytes(&reached.key)?.unwrap_or_default();
        let decision = match json::parse(&bytes) {
            Err(_) => Decision::NotMovable(NotMovable::Unreadable),
            Ok(document) => {
                let relation = compartment::relation(&self.patient, &document, self.pool)?;
                let decision = decision(relation, bytes.len() as u64);
                if let Decision::Movable { is_own, .. } = decision {
                    self.expand_forward(&reached.key, &document)?;
                    if is_own {
                        self.expand_backward(&reached.key)?;
                    }
                }
                decision
            }
        };
        self.frontier.decide(&reached.key, decision)?;
        self.count(&reached.key, decision);
        self.visitor.decided(&reached, decision);
        Ok(true)
    }

    /// The numbers of this walk.
    #[must_use]
    pub fn finish(self) -> ClosureSummary {
        self.summary
    }

    fn count(&mut self, key: &ResourceKey, decision: Decision) {
        match decision {
            Decision::Movable { size_bytes, .. } => {
                let entry = self.summary.movable.entry(key.resource_type).or_default();
                entry.0 += 1;
                entry.1 += size_bytes;
            }
            Decision::NotMovable(reason) => *self.summary.not_movable.entry(reason).or_default() += 1,
        }
    }

    fn expand_forward(&mut self, from: &ResourceKey, document: &Document<'_>) -> Result<(), PoolError> {
        // A Bundle kept whole carries its references' targets inside; only what is held here is followed.
        let is_container = from.resource_type == ResourceType::BUNDLE;
        for link in links(document).filter(|link| link.kind != LinkKind::Value) {
            let reference = link.reference();
            let target = resolve(&reference, self.pool)?;
            if let Some(key) = &target {
                if self.frontier.is_known(key)? {
                    continue;
                }
                if self.pool.holds(key)? {
                    self.frontier.reach(key, Some(from))?;
                    continue;
                }
            }
            if let Some(reason) = self.dangling_reason(&link, &reference)?.filter(|_| !is_container) {
                *self.summary.dangling.entry(reason).or_default() += 1;
                self.dangling_told += 1;
                if self.dangling_told > MAX_LISTED {
                    continue;
                }
                let target = target.or(match reference {
                    Reference::Absolute { tail, .. } => tail,
                    _ => None,
                });
                self.visitor.dangling(Dangling { from: from.clone(), path: link.value.path(), reason, target });
            }
        }
        Ok(())
    }

    fn dangling_reason(&self, link: &Link<'_>, reference: &Reference) -> Result<Option<DanglingReason>, PoolError> {
        let is_reference = link.kind == LinkKind::Reference;
        Ok(match reference {
            Reference::Contained(_) => None,
            Reference::Local { .. } => Some(DanglingReason::NotHeld),
            // An address in a url is an address; only one that names a Binary was meant to be part of the record.
            Reference::Absolute { tail, .. }
                if !is_reference && tail.as_ref().is_none_or(|key| key.resource_type.as_str() != "Binary") =>
            {
                None
            }
            Reference::Absolute { url, .. } if self.pool.by_alias(url)?.len() > 1 => {
                Some(DanglingReason::AmbiguousAddress)
            }
            Reference::Absolute { .. } => Some(DanglingReason::ForeignAddress),
            Reference::Urn(_) => is_reference.then_some(DanglingReason::UnresolvedUrn),
            Reference::Conditional { .. } => Some(DanglingReason::UnresolvedConditional),
            Reference::Unusable => is_reference.then_some(DanglingReason::Unusable),
        })
    }

    fn expand_backward(&mut self, from: &ResourceKey) -> Result<(), PoolError> {
        if *from == self.patient {
            return self.reach_referrers(from, None);
        }
        for name in ATTACHED_TYPES {
            self.reach_referrers(from, ResourceType::parse(name))?;
        }
        Ok(())
    }

    fn reach_referrers(&mut self, target: &ResourceKey, of_type: Option<ResourceType>) -> Result<(), PoolError> {
        let mut after = None;
        loop {
            let page = self.pool.referrers(target, of_type, after.as_ref(), PAGE)?;
            for key in &page {
                self.frontier.reach(key, Some(target))?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.into_iter().next_back();
        }
    }
}

fn decision(relation: Relation, size_bytes: u64) -> Decision {
    match relation {
        Relation::Own => Decision::Movable { size_bytes, is_own: true },
        Relation::Supporting => Decision::Movable { size_bytes, is_own: false },
        Relation::Shared => Decision::NotMovable(NotMovable::SharedWithOthers),
        Relation::Another => Decision::NotMovable(NotMovable::AnotherPatient),
        Relation::NamesAnother => Decision::NotMovable(NotMovable::NamesAnotherPatient),
        Relation::Unknown => Decision::NotMovable(NotMovable::OwnerUnknown),
    }
}

/// A frontier in memory: it grows with the record.
#[derive(Debug, Default)]
pub struct MemoryFrontier {
    reached: BTreeMap<ResourceKey, Option<Decision>>,
    queue: VecDeque<Reached>,
}

impl Frontier for MemoryFrontier {
    fn reach(&mut self, key: &ResourceKey, from: Option<&ResourceKey>) -> Result<bool, PoolError> {
        if self.reached.contains_key(key) {
            return Ok(false);
        }
        self.reached.insert(key.clone(), None);
        self.queue.push_back(Reached { key: key.clone(), from: from.cloned() });
        Ok(true)
    }

    fn is_known(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.reached.contains_key(key))
    }

    fn next(&mut self) -> Result<Option<Reached>, PoolError> {
        Ok(self.queue.front().cloned())
    }

    fn decide(&mut self, key: &ResourceKey, decision: Decision) -> Result<(), PoolError> {
        self.reached.insert(key.clone(), Some(decision));
        if self.queue.front().is_some_and(|first| first.key == *key) {
            self.queue.pop_front();
        }
        Ok(())
    }

    fn decided(&self, after: Option<&ResourceKey>, limit: usize) -> Result<Vec<(ResourceKey, Decision)>, PoolError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let rest = self.reached.range((after.map_or(Unbounded, Excluded), Unbounded));
        let decided = rest.filter_map(|(key, decision)| Some((key.clone(), (*decision)?)));
        Ok(decided.take(limit).collect())
    }
}

/// A visitor that keeps everything, for tests and small records.
#[derive(Debug, Default)]
pub struct Findings {
    /// Held resources that do not travel, why, and from where they were reached.
    pub not_movable: Vec<(Reached, NotMovable)>,
    /// References that lead nowhere.
    pub dangling: Vec<Dangling>,
}

impl Visitor for Findings {
    fn decided(&mut self, reached: &Reached, decision: Decision) {
        if let Decision::NotMovable(reason) = decision {
            self.not_movable.push((reached.clone(), reason));
        }
    }

    fn dangling(&mut self, dangling: Dangling) {
        self.dangling.push(dangling);
    }
}

#[cfg(test)]
#[path = "closure_tests.rs"]
mod tests;
