//! One FHIR resource: its type, its id and its exact bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::json::{self, Document, JsonError, Limits};
use crate::types::ResourceType;

/// The largest resource we carry, in bytes.
pub const MAX_RESOURCE_BYTES: usize = 64 << 20;

/// The logical id of a resource: 1 to 64 characters of `A-Z a-z 0-9 - .`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(Arc<str>);

impl ResourceId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`ResourceProblem::Id`] if it is empty, too long or has other characters.
    pub fn parse(id: &str) -> Result<Self, ResourceProblem> {
        let fits = (1..=64).contains(&id.len());
        let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        if fits && plain { Ok(Self(id.into())) } else { Err(ResourceProblem::Id) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What names a resource within one hospital: `Type/id`. Orders by type, then id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The type.
    pub resource_type: ResourceType,
    /// The id within the type.
    pub id: ResourceId,
}

impl ResourceKey {
    /// Puts a key together from a type and an id that are checked here.
    ///
    /// # Errors
    /// [`ResourceProblem::UnknownType`] or [`ResourceProblem::Id`].
    pub fn new(resource_type: &str, id: &str) -> Result<Self, ResourceProblem> {
        let resource_type = ResourceType::parse(resource_type).ok_or(ResourceProblem::UnknownType)?;
        Ok(Self { resource_type, id: ResourceId::parse(id)? })
    }
}

impl FromStr for ResourceKey {
    type Err = ResourceProblem;

    fn from_str(text: &str) -> Result<Self, ResourceProblem> {
        let (resource_type, id) = text.split_once('/').ok_or(ResourceProblem::Id)?;
        Self::new(resource_type, id)
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource_type, self.id)
    }
}

impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why bytes are not a resource we can hold.
///
/// Security: names the rule and the byte, never a value of the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceProblem {
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(#[source] JsonError),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// No `resourceType`, or not a string.
    #[error("no resourceType")]
    NoType,
    /// A `resourceType` that R4 does not have.
    #[error("resourceType is not one of FHIR R4")]
    UnknownType,
    /// No `id`.
    #[error("no id")]
    NoId,
    /// An `id` outside the rule.
    #[error("the id is not 1 to 64 characters of A-Z, a-z, 0-9, '-' and '.'")]
    Id,
    /// A `meta.versionId` outside the rule for ids.
    #[error("meta.versionId is not a valid id")]
    Version,
    /// White space between tokens, where exact bytes on one line are asked for.
    #[error("white space between tokens")]
    NotCompact,
    /// Larger than [`MAX_RESOURCE_BYTES`].
    #[error("larger than {MAX_RESOURCE_BYTES} bytes")]
    TooLarge,
}

/// A checked resource with the exact bytes it came in (white space between tokens aside).
///
/// Bytes: UTF-8 JSON on one line, without insignificant white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    key: ResourceKey,
    version: Option<ResourceId>,
    bytes: Vec<u8>,
}

impl Resource {
    /// Checks bytes and compacts them to one line, changing no token.
    ///
    /// # Errors
    /// [`ResourceProblem`] naming the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, ResourceProblem> {
        if bytes.len() > MAX_RESOURCE_BYTES {
            return Err(ResourceProblem::TooLarge);
        }
        let limits = Limits { bytes: MAX_RESOURCE_BYTES, ..Limits::default() };
        let document = json::parse_within(bytes, limits).map_err(ResourceProblem::Json)?;
        Self::from_document(&document)
    }

    /// Checks bytes that must be kept as they are: what another hospital sealed is filed byte for byte or not at all.
    ///
    /// # Errors
    /// [`ResourceProblem`] naming the rule, [`ResourceProblem::NotCompact`] if they are not on one line already.
    pub fn parse_exact(bytes: &[u8]) -> Result<Self, ResourceProblem> {
        let resource = Self::parse(bytes)?;
        if resource.bytes == bytes { Ok(resource) } else { Err(ResourceProblem::NotCompact) }
    }

    /// Checks a scanned document, which must be one resource.
    ///
    /// # Errors
    /// [`ResourceProblem`] naming the rule.
    pub fn from_document(document: &Document<'_>) -> Result<Self, ResourceProblem> {
        let root = document.root();
        let resource_type = type_of(root)?;
        let id = root.member("id").ok_or(ResourceProblem::NoId)?.as_str().ok_or(ResourceProblem::Id)?;
        let version = match root.member("meta").and_then(|meta| meta.member("versionId")) {
            None => None,
            Some(value) => {
                let text = value.as_str().ok_or(ResourceProblem::Version)?;
                Some(ResourceId::parse(&text).map_err(|_| ResourceProblem::Version)?)
            }
        };
        let bytes = root.compact();
        if bytes.len() > MAX_RESOURCE_BYTES {
            return Err(ResourceProblem::TooLarge);
        }
        let key = ResourceKey { resource_type, id: ResourceId::parse(&id)? };
        Ok(Self { key, version, bytes: bytes.into_owned() })
    }

    /// `Type/id`.
    #[must_use]
    pub fn key(&self) -> &ResourceKey {
        &self.key
    }

    /// The type.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        self.key.resource_type
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &ResourceId {
        &self.key.id
    }

    /// `meta.versionId`, where the resource has one (most do not).
    #[must_use]
    pub fn version(&self) -> Option<&ResourceId> {
        self.version.as_ref()
    }

    /// The exact bytes: one line, UTF-8.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the bytes away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Resource {
    /// Names the resource and its size, never its content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}, {} bytes)", self.key, self.bytes.len())
    }
}

/// The type of a scanned resource, with or without an id.
pub(crate) fn type_of(root: json::Value<'_>) -> Result<ResourceType, ResourceProblem> {
    if root.kind() != json::Kind::Object {
        return Err(ResourceProblem::NotAnObject);
    }
    let name = root.text_of("resourceType").ok_or(ResourceProblem::NoType)?;
    ResourceType::parse(&name).ok_or(ResourceProblem::UnknownType)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_keeps_its_bytes() {
        let text = br#"{ "resourceType":"Observation", "id":"a-1.b",
            "meta":{"versionId":"7"}, "valueQuantity":{"value":1.10} }"#;
        let resource = Resource::parse(text).unwrap();
        assert_eq!(resource.key().to_string(), "Observation/a-1.b");
        assert_eq!(resource.version().unwrap().as_str(), "7");
        assert_eq!(
            resource.bytes(),
            br#"{"resourceType":"Observation","id":"a-1.b","meta":{"versionId":"7"},"valueQuantity":{"value":1.10}}"#
        );
        assert!(!format!("{resource:?}").contains("1.10"));
    }

    #[test]
    fn every_rule_has_its_refusal() {
        use ResourceProblem as P;
        let refused = |text: &str| Resource::parse(text.as_bytes()).expect_err(text);
        assert!(matches!(refused("{"), P::Json(_)));
        assert_eq!(refused("[]"), P::NotAnObject);
        assert_eq!(refused("{}"), P::NoType);
        assert_eq!(refused(r#"{"resourceType":1,"id":"a"}"#), P::NoType);
        assert_eq!(refused(r#"{"resourceType":"Pateint","id":"a"}"#), P::UnknownType);
        assert_eq!(refused(r#"{"resourceType":"Patient"}"#), P::NoId);
        for id in ["", "a/b", "a_b", "é", &"x".repeat(65)] {
            assert_eq!(refused(&format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#)), P::Id);
        }
        assert_eq!(refused(r#"{"resourceType":"Patient","id":7}"#), P::Id);
        assert_eq!(refused(r#"{"resourceType":"Patient","id":"a","meta":{"versionId":1}}"#), P::Version);
        assert!(
            Resource::parse(format!(r#"{{"resourceType":"Patient","id":"{}"}}"#, "x".repeat(64)).as_bytes()).is_ok()
        );
        assert_eq!(Resource::parse(&vec![b' '; MAX_RESOURCE_BYTES + 1]).expect_err("too large"), P::TooLarge);
    }

    #[test]
    fn exact_bytes_are_kept_or_refused() {
        let text = br#"{"resourceType":"Patient","id":"p","n":1.10}"#;
        assert_eq!(Resource::parse_exact(text).unwrap().bytes(), text);
        for loose in ["{\"resourceType\":\"Patient\",\n\"id\":\"p\"}", "{\"resourceType\":\"Patient\",\"id\":\"p\"} "] {
            assert_eq!(Resource::parse_exact(loose.as_bytes()), Err(ResourceProblem::NotCompact));
        }
    }

    #[test]
    fn keys_order_by_type_then_id() {
        let key = |text: &str| text.parse::<ResourceKey>().unwrap();
        assert!(key("Condition/9") < key("Patient/1") && key("Patient/1") < key("Patient/2"));
        assert!("Patient".parse::<ResourceKey>().is_err() && "Patient/a/b".parse::<ResourceKey>().is_err());
    }
}
