//! Replacing names that mean something only in their input by names that mean something in the hospital.

use std::collections::BTreeSet;

use super::entry::Entry;
use super::{Input, Loader, MAX_LISTED, Unresolved, UnresolvedKind, identifier_name, scoped_name};
use crate::json::{self, Document};
use crate::pool::PoolError;
use crate::reference::{Identifier, Link, LinkKind, Reference, links};
use crate::resource::ResourceKey;
use crate::types::ResourceType;

/// What a name was found to stand for.
enum Found {
    One(ResourceKey),
    None(UnresolvedKind),
    /// Not a name that is replaced.
    NotAName,
}

impl Loader<'_> {
    /// Replaces what can be resolved at its exact spans and lists the rest; nothing if no byte changes.
    pub(super) fn rewrite(
        &mut self,
        input: &Input<'_>,
        entry: &Entry,
        document: &Document<'_>,
    ) -> Result<Option<Vec<u8>>, PoolError> {
        let mut edits = Vec::new();
        for link in links(document) {
            match self.find(input, &link)? {
                Found::One(key) => {
                    let text = link.text();
                    let fragment = text.split_once('#').map_or(String::new(), |(_, fragment)| format!("#{fragment}"));
                    edits.push((link.value.span(), json::quote(&format!("{key}{fragment}")).into_bytes()));
                }
                Found::None(kind) if link.kind == LinkKind::Reference => {
                    self.report.unresolved_count += 1;
                    if self.report.unresolved.len() < MAX_LISTED {
                        let path = link.value.path();
                        self.report.unresolved.push(Unresolved { from: entry.key.clone(), path, kind });
                    }
                }
                Found::None(_) | Found::NotAName => {}
            }
        }
        self.report.references_resolved += edits.len() as u64;
        Ok((!edits.is_empty()).then(|| json::splice(document.text().as_bytes(), &edits)))
    }

    fn find(&self, input: &Input<'_>, link: &Link<'_>) -> Result<Found, PoolError> {
        match link.reference() {
            Reference::Urn(urn) => self.find_urn(input, &urn),
            Reference::Conditional { identifier: None, .. } => Ok(Found::None(UnresolvedKind::ConditionalUnsupported)),
            Reference::Conditional { resource_type, identifier: Some(identifier) } => {
                self.find_identifier(resource_type, &identifier)
            }
            _ => Ok(Found::NotAName),
        }
    }

    /// A `urn:` means first what its own Bundle says, then what the sources loaded together say.
    fn find_urn(&self, input: &Input<'_>, urn: &str) -> Result<Found, PoolError> {
        let mut found = self.index.find(&scoped_name(input.number, urn))?;
        if found.is_empty() {
            found = self.index.find(urn)?;
        }
        Ok(match found.as_slice() {
            [] => Found::None(UnresolvedKind::UrnWithoutEntry),
            [key] => Found::One(key.clone()),
            _ => Found::None(UnresolvedKind::UrnAmbiguous),
        })
    }

    /// A search means what the load and the hospital hold together under that identifier, if that is one resource.
    fn find_identifier(&self, resource_type: ResourceType, identifier: &Identifier) -> Result<Found, PoolError> {
        let loaded = self.index.find(&identifier_name(resource_type, identifier))?;
        let held = self.sink.by_identifier(resource_type, identifier)?;
        let found: BTreeSet<ResourceKey> = loaded.into_iter().chain(held).collect();
        Ok(match found.len() {
            0 => Found::None(UnresolvedKind::ConditionalWithoutMatch),
            1 => found.into_iter().next().map_or(Found::NotAName, Found::One),
            _ => Found::None(UnresolvedKind::ConditionalAmbiguous),
        })
    }
}
