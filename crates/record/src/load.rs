//! Loading records into a hospital: Bundles, single resources and NDJSON, one entry in memory at a time.
//!
//! A load reads its sources several times (they can be opened again) rather than keeping them:
//!
//! 1. what each source is ([`stream`]);
//! 2. the names: which entry carries which `fullUrl`, which patients there are, which searches stand in references;
//! 3. only if searches were found: the identifiers they ask for;
//! 4. the resources: an id is spliced in where there is none, `urn:` and conditional references are replaced by
//!    `Type/id` at their exact spans, every other byte stays; what cannot be resolved stays as it is and is listed.
//!
//! **Which Bundles are opened.** Transaction, batch and searchset Bundles are envelopes and are always opened. Collection
//! and document Bundles are opened when they are given as records; in a folder of single resources
//! ([`Source::folder`]) they are one of the resources and are kept whole. A Bundle on a line of NDJSON is kept whole.
//!
//! **Collisions.** What is held is never overwritten. The same `Type/id` with the same bytes is counted as already held.
//! With different bytes the first stays and the second is listed ([`LoadReport::differing`]): hospitals and practitioners
//! from two exports differ in a counter or a telephone number, carry the same identifier, and must not keep a patient
//! from being loaded. Where the resource says whom it is about, a reader could lose a finding that way:
//! [`LoadReport::require_no_lost_findings`] refuses such a load as a whole.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::compartment::is_about_someone;
use crate::json::{self, Document, JsonProblem};
use crate::pool::{Pool, PoolError, targets};
use crate::reference::{Identifier, LinkKind, Reference, links};
use crate::resource::{Resource, ResourceId, ResourceKey, ResourceProblem};
use crate::types::ResourceType;

mod entry;
mod rewrite;
mod stream;

use entry::{Entry, Reading};
use stream::{Piece, Shape};

/// Resources handed to the sink at once.
pub const BATCH_RESOURCES: usize = 256;
/// Bytes after which a batch is handed over.
pub const BATCH_BYTES: usize = 4 << 20;
/// Items kept of each list of a report; the totals stay exact.
pub const MAX_LISTED: usize = 10_000;

/// An input that can be read more than once.
pub trait Source {
    /// Opens it at its beginning.
    ///
    /// # Errors
    /// The operating system's error.
    fn open(&self) -> io::Result<Box<dyn io::Read + '_>>;

    /// The name shown to the user.
    fn name(&self) -> &str;

    /// The folder of single resources this file was found in, if it was given as part of a folder.
    fn folder(&self) -> Option<&str> {
        None
    }
}

/// An input in memory.
#[derive(Clone)]
pub struct MemorySource {
    /// The name shown to the user.
    pub name: String,
    /// The folder it counts to.
    pub folder: Option<String>,
    /// The text.
    pub bytes: Vec<u8>,
}

impl Source for MemorySource {
    fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
        Ok(Box::new(&*self.bytes))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }
}

/// A place in the input that a person can find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The source's name.
    pub source: String,
    /// The entry of the Bundle or the line of the NDJSON file, from 1.
    pub entry: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.entry.map_or(Ok(()), |entry| write!(f, ", entry {entry}"))
    }
}

/// Why an input cannot be loaded.
///
/// Security: names places and rules, never values of a record.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A source cannot be read.
    #[error("{source_name} cannot be read")]
    Read {
        /// Its name.
        source_name: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The frame of a file is not JSON.
    #[error("{source_name}: {problem} at byte {offset}")]
    Json {
        /// Its name.
        source_name: String,
        /// Bytes before the problem.
        offset: u64,
        /// The rule.
        problem: JsonProblem,
    },
    /// A resource or entry is not one we can hold.
    #[error("{place}: {problem}")]
    Resource {
        /// Where.
        place: Place,
        /// The rule.
        problem: ResourceProblem,
    },
    /// A Bundle of a type that does not carry a record.
    #[error(
        "{source_name}: a Bundle of this type is not a record; give a transaction, batch, collection, searchset or document"
    )]
    BundleType {
        /// Its name.
        source_name: String,
    },
    /// Nothing in the file.
    #[error("{source_name} is empty")]
    Empty {
        /// Its name.
        source_name: String,
    },
    /// A record without a patient.
    #[error("there is no Patient in the record; load shared resources as context instead")]
    NoPatient,
    /// Something about a patient is held already with other content.
    #[error(
        "{count} resources about a patient are held already with other content, {first} first; nothing was overwritten"
    )]
    DifferentFinding {
        /// How many.
        count: u64,
        /// The first of them.
        first: ResourceKey,
    },
    /// The store failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// What a load is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Patients' records: at least one Patient must be in it.
    Record,
    /// Resources that records share.
    Context,
}

/// One resource on its way into the store, with what the store indexes.
#[derive(Clone)]
pub struct LoadedResource {
    /// The resource.
    pub resource: Resource,
    /// What it references, sorted, each once.
    pub targets: Vec<ResourceKey>,
    /// Its identifiers, for conditional references of later loads.
    pub identifiers: Vec<Identifier>,
    /// The absolute addresses it was loaded under.
    pub aliases: Vec<String>,
}

waybill_crypto::opaque_debug!(LoadedResource);

impl LoadedResource {
    /// Indexes a resource that came another way than by loading, such as one filed by a migration.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    pub fn index(resource: Resource, pool: &dyn Pool) -> Result<Self, PoolError> {
        let document = json::parse(resource.bytes()).expect("a Resource holds JSON that was scanned when it was made");
        let (targets, identifiers) = (targets(&document, pool)?, Identifier::of(document.root()));
        Ok(Self { targets, identifiers, aliases: Vec::new(), resource })
    }
}

/// What became of a resource handed to a [`Sink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOutcome {
    /// It is held now.
    Filed,
    /// The same bytes were held before.
    AlreadyHeld,
    /// Other bytes are held under this key and stay.
    Different,
}

/// Where loaded resources go.
///
/// Guarantees asked of an implementation: one batch is one transaction; nothing held is overwritten; outcomes come in the
/// order of the batch, which may hold the same key twice.
pub trait Sink: Pool {
    /// Files a batch.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails; then nothing of the batch is held.
    fn file(&mut self, batch: Vec<LoadedResource>) -> Result<Vec<FileOutcome>, PoolError>;
}

/// Names learned while loading: `fullUrl`s of entries, and the identifiers that references search for.
///
/// Guarantees asked of an implementation: starts empty for each load; a name may stand for several keys, of which the
/// first two distinct ones are kept.
pub trait LoadIndex {
    /// Notes that a name stands for a resource.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn insert(&mut self, name: &str, key: &ResourceKey) -> Result<(), PoolError>;

    /// What a name stands for, at most two keys.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn find(&self, name: &str) -> Result<Vec<ResourceKey>, PoolError>;
}

/// Why a reference could not be resolved while loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnresolvedKind {
    /// A `urn:` that is no entry's `fullUrl`.
    UrnWithoutEntry,
    /// A `urn:` that is the `fullUrl` of several different entries.
    UrnAmbiguous,
    /// A search that finds nothing.
    ConditionalWithoutMatch,
    /// A search that finds several resources.
    ConditionalAmbiguous,
    /// A search for something other than one identifier.
    ConditionalUnsupported,
}

/// A reference that stays as it is because nothing single is known by that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The resource it stands in.
    pub from: ResourceKey,
    /// Where it stands.
    pub path: String,
    /// Why.
    pub kind: UnresolvedKind,
}

/// A resource that was not filed because other content is held under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The key.
    pub key: ResourceKey,
    /// Where the content that was not filed stands.
    pub place: Place,
    /// Whether it says whom it is about (a finding), rather than being shared.
    pub is_finding: bool,
}

/// What a load did, in numbers and lists of at most [`MAX_LISTED`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Resources found.
    pub read: u64,
    /// Resources that are held now and were not before.
    pub filed: u64,
    /// Resources held before with the same bytes, or that a conditional create found.
    pub already_held: u64,
    /// OperationOutcomes of a search that were left out.
    pub outcomes_skipped: u64,
    /// Entries without a resource.
    pub entries_without_resource: u64,
    /// Resources that came without an id and were given one.
    pub ids_assigned: u64,
    /// References replaced by `Type/id`.
    pub references_resolved: u64,
    /// The Patients found, each once, in order.
    pub patients: BTreeSet<ResourceId>,
    /// All references that stay unresolved.
    pub unresolved_count: u64,
    /// The first of them.
    pub unresolved: Vec<Unresolved>,
    /// All resources not filed because other content is held.
    pub differing_count: u64,
    /// The first of them.
    pub differing: Vec<Differing>,
    findings_lost: u64,
    first_finding_lost: Option<ResourceKey>,
}

impl LoadReport {
    /// Refuses a load in which content about a patient differs from what is held.
    ///
    /// # Errors
    /// [`LoadError::DifferentFinding`].
    pub fn require_no_lost_findings(&self) -> Result<(), LoadError> {
        match &self.first_finding_lost {
            Some(first) => Err(LoadError::DifferentFinding { count: self.findings_lost, first: first.clone() }),
            None => Ok(()),
        }
    }

    fn note_differing(&mut self, differing: Differing) {
        self.differing_count += 1;
        if differing.is_finding {
            self.findings_lost += 1;
            self.first_finding_lost.get_or_insert_with(|| differing.key.clone());
        }
        if self.differing.len() < MAX_LISTED {
            self.differing.push(differing);
        }
    }
}

/// Loads sources together: references may lead from any of them to any other, and to what the sink holds.
///
/// # Errors
/// [`LoadError`]. Malformed input and a missing patient are found before anything is filed; after a failure of the store
/// the load can be run again.
pub fn load(
    sources: &[&dyn Source],
    purpose: Purpose,
    index: &mut dyn LoadIndex,
    sink: &mut dyn Sink,
) -> Result<LoadReport, LoadError> {
    let inputs = inputs(sources)?;
    let mut loader =
        Loader { index, sink, report: LoadReport::default(), batch: Vec::new(), batch_bytes: 0, is_counting: false };
    let searched = loader.learn_names(&inputs)?;
    if purpose == Purpose::Record && loader.report.patients.is_empty() {
        return Err(LoadError::NoPatient);
    }
    loader.learn_identifiers(&inputs, &searched)?;
    loader.file_all(&inputs)?;
    Ok(loader.report)
}

/// A source with what the first reading found.
struct Input<'s> {
    source: &'s dyn Source,
    shape: Shape,
    number: usize,
}

fn inputs<'s>(sources: &[&'s dyn Source]) -> Result<Vec<Input<'s>>, LoadError> {
    let mut inputs = Vec::new();
    for (number, &source) in sources.iter().enumerate() {
        let shape = stream::shape(source)?;
        if shape == Shape::Empty {
            return Err(LoadError::Empty { source_name: source.name().to_owned() });
        }
        inputs.push(Input { source, shape, number });
    }
    let single_folders: BTreeSet<&str> =
        inputs.iter().filter(|input| input.shape == Shape::Single).filter_map(|input| input.source.folder()).collect();
    for input in &mut inputs {
        let Shape::Bundle(bundle_type) = &input.shape else { continue };
        let is_among_resources = input.source.folder().is_some_and(|folder| single_folders.contains(folder));
        match bundle_type.as_str() {
            "transaction" | "batch" | "searchset" => {}
            _ if is_among_resources => input.shape = Shape::Single,
            "collection" | "document" => {}
            _ => return Err(LoadError::BundleType { source_name: input.source.name().to_owned() }),
        }
    }
    Ok(inputs)
}

struct Loader<'a> {
    index: &'a mut dyn LoadIndex,
    sink: &'a mut dyn Sink,
    report: LoadReport,
    batch: Vec<(LoadedResource, Place, bool)>,
    batch_bytes: usize,
    /// Whether this is the last reading, which counts what is left out.
    is_counting: bool,
}

/// What is done with every resource of an input.
type EachEntry<'e, 'a> = &'e mut dyn FnMut(&mut Loader<'a>, &Input<'_>, Place, Entry) -> Result<(), LoadError>;

/// The name of an identifier in the index.
fn identifier_name(resource_type: ResourceType, identifier: &Identifier) -> String {
    format!("{resource_type}?{}|{}", identifier.system, identifier.value)
}

/// The name of a `fullUrl` that holds within one source: a `urn:` means nothing outside its Bundle.
fn scoped_name(source_number: usize, full_url: &str) -> String {
    format!("{source_number}#{full_url}")
}

/// The name under which it is noted that a conditional create created nothing.
fn not_created_name(place: &Place) -> String {
    format!("not created {place}")
}

impl<'a> Loader<'a> {
    /// Calls `each` for every resource of every source.
    fn for_each(&mut self, inputs: &[Input<'_>], each: EachEntry<'_, 'a>) -> Result<(), LoadError> {
        for input in inputs {
            stream::walk(input.source, &input.shape, &mut |place, piece| {
                let bytes = match piece {
                    Piece::Resource(bytes) | Piece::Entry(bytes) => bytes,
                };
                let fail = |problem| LoadError::Resource { place: place.clone(), problem };
                let document = stream::parse(bytes).map_err(|e| fail(ResourceProblem::Json(e)))?;
                let is_entry = matches!(piece, Piece::Entry(_));
                match Entry::read(&document, is_entry).map_err(fail)? {
                    Reading::Resource(entry) => return each(self, input, place, entry),
                    Reading::Outcome => self.report.outcomes_skipped += u64::from(self.is_counting),
                    Reading::NoResource => self.report.entries_without_resource += u64::from(self.is_counting),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn learn_names(&mut self, inputs: &[Input<'_>]) -> Result<BTreeSet<String>, LoadError> {
        let mut searched = BTreeSet::new();
        self.for_each(inputs, &mut |loader, input, place, entry| {
            if let Some(held) = loader.created_before(&place, &entry)? {
                return loader.learn_url(input, &entry, &held);
            }
            if entry.key.resource_type == ResourceType::PATIENT {
                loader.report.patients.insert(entry.key.id.clone());
            }
            let document = entry.document();
            for link in links(&document).filter(|link| link.kind == LinkKind::Reference && !entry.is_container()) {
                if let Reference::Conditional { resource_type, identifier: Some(identifier) } = link.reference() {
                    searched.insert(identifier_name(resource_type, &identifier));
                }
            }
            let key = entry.key.clone();
            loader.learn_url(input, &entry, &key)
        })?;
        Ok(searched)
    }

    /// What a conditional create finds: a resource held before this load, or one created by an earlier entry of it.
    ///
    /// Decided once and noted, so that the last reading, which sees its own resources held, decides alike.
    fn created_before(&mut self, place: &Place, entry: &Entry) -> Result<Option<ResourceKey>, LoadError> {
        let Some(identifier) = &entry.if_none_exist else { return Ok(None) };
        let resource_type = entry.key.resource_type;
        let name = format!("create {}", identifier_name(resource_type, identifier));
        let mut found = self.sink.by_identifier(resource_type, identifier)?;
        if found.is_empty() {
            found = self.index.find(&name)?;
        }
        match found.as_slice() {
            [held] => {
                self.index.insert(&not_created_name(place), held)?;
                Ok(Some(held.clone()))
            }
            _ => {
                self.index.insert(&name, &entry.key)?;
                Ok(None)
            }
        }
    }

    fn learn_url(&mut self, input: &Input<'_>, entry: &Entry, key: &ResourceKey) -> Result<(), LoadError> {
        if let Some(url) = &entry.full_url {
            self.index.insert(&scoped_name(input.number, url), key)?;
            self.index.insert(url, key)?;
        }
        Ok(())
    }

    fn learn_identifiers(&mut self, inputs: &[Input<'_>], searched: &BTreeSet<String>) -> Result<(), LoadError> {
        if searched.is_empty() {
            return Ok(());
        }
        self.for_each(inputs, &mut |loader, _, _, entry| {
            for identifier in Identifier::of(entry.document().root()) {
                let name = identifier_name(entry.key.resource_type, &identifier);
                if searched.contains(&name) {
                    loader.index.insert(&name, &entry.key)?;
                }
            }
            Ok(())
        })
    }

    fn file_all(&mut self, inputs: &[Input<'_>]) -> Result<(), LoadError> {
        self.is_counting = true;
        self.for_each(inputs, &mut |loader, input, place, entry| loader.file_one(input, place, &entry))?;
        self.flush()
    }

    fn file_one(&mut self, input: &Input<'_>, place: Place, entry: &Entry) -> Result<(), LoadError> {
        self.report.read += 1;
        if entry.if_none_exist.is_some() && !self.index.find(&not_created_name(&place))?.is_empty() {
            self.report.already_held += 1;
            return Ok(());
        }
        self.report.ids_assigned += u64::from(entry.is_id_assigned);
        let document = entry.document();
        let edited = if entry.is_container() { None } else { self.rewrite(input, entry, &document)? };
        let resource = match &edited {
            None => Resource::from_document(&document),
            Some(bytes) => Resource::parse(bytes),
        };
        let resource = resource.map_err(|problem| LoadError::Resource { place: place.clone(), problem })?;
        let document = json::parse(resource.bytes()).expect("a Resource holds JSON that was scanned when it was made");
        let targets = self.targets(&document)?;
        let is_finding = is_about_someone(&document);
        let identifiers = Identifier::of(document.root());
        let aliases = entry.full_url.iter().filter(|url| url.starts_with("http")).cloned().collect();
        self.batch_bytes += resource.bytes().len();
        self.batch.push((LoadedResource { targets, identifiers, aliases, resource }, place, is_finding));
        if self.batch.len() >= BATCH_RESOURCES || self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// The targets as the store will see them: aliases of this load count although they may not be filed yet.
    fn targets(&self, document: &Document<'_>) -> Result<Vec<ResourceKey>, PoolError> {
        let mut found: BTreeSet<ResourceKey> = targets(document, &*self.sink)?.into_iter().collect();
        for link in links(document).filter(|link| link.kind != LinkKind::Value) {
            if let Reference::Absolute { url, .. } = link.reference()
                && let [key] = self.index.find(&url)?.as_slice()
            {
                found.insert(key.clone());
            }
        }
        Ok(found.into_iter().collect())
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let (mut resources, mut notes) = (Vec::new(), Vec::new());
        for (loaded, place, is_finding) in batch {
            notes.push(Differing { key: loaded.resource.key().clone(), place, is_finding });
            resources.push(loaded);
        }
        if resources.is_empty() {
            return Ok(());
        }
        for (outcome, note) in self.sink.file(resources)?.into_iter().zip(notes) {
            match outcome {
                FileOutcome::Filed => self.report.filed += 1,
                FileOutcome::AlreadyHeld => self.report.already_held += 1,
                FileOutcome::Different => self.report.note_differing(note),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "real_data_tests.rs"]
mod real_data_tests;
#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
