//! One entry of an input, read and named.

use waybill_crypto::digest::sha256;

use super::stream;
use crate::json::{self, Document, Value};
use crate::reference::{Identifier, Reference};
use crate::resource::{MAX_RESOURCE_BYTES, ResourceKey, ResourceProblem, type_of};
use crate::types::ResourceType;

/// What an entry is.
pub(super) enum Reading {
    /// A resource to load.
    Resource(Entry),
    /// An OperationOutcome that a search added about itself.
    Outcome,
    /// A request without a body.
    NoResource,
}

/// A resource of an input under the name it will be held by.
pub(super) struct Entry {
    /// The name.
    pub key: ResourceKey,
    /// Whether the id was made here.
    pub is_id_assigned: bool,
    /// `entry.fullUrl`.
    pub full_url: Option<String>,
    /// The identifier of `entry.request.ifNoneExist`.
    pub if_none_exist: Option<Identifier>,
    /// The resource on one line, with its id.
    text: Vec<u8>,
}

impl Entry {
    /// Reads an element of `Bundle.entry`, or a resource by itself.
    pub(super) fn read(document: &Document<'_>, is_entry: bool) -> Result<Reading, ResourceProblem> {
        let root = document.root();
        if root.kind() != json::Kind::Object {
            return Err(ResourceProblem::NotAnObject);
        }
        let resource = match (is_entry, root.member("resource")) {
            (false, _) => root,
            (true, Some(resource)) => resource,
            (true, None) => return Ok(Reading::NoResource),
        };
        let resource_type = type_of(resource)?;
        let frame = is_entry.then_some(root);
        let search = frame.and_then(|frame| frame.member("search"));
        let mode = search.and_then(|search| search.text_of("mode"));
        if resource_type.as_str() == "OperationOutcome" && mode.as_deref() == Some("outcome") {
            return Ok(Reading::Outcome);
        }
        let full_url = frame.and_then(|frame| frame.text_of("fullUrl")).map(|url| url.into_owned());
        let request = frame.and_then(|frame| frame.member("request"));
        let if_none_exist = request.and_then(|request| request.text_of("ifNoneExist"));
        let if_none_exist = if_none_exist.and_then(|query| Identifier::from_query(&query));
        let mut text = resource.compact().into_owned();
        let is_id_assigned = resource.member("id").is_none();
        let key = match resource.member("id") {
            Some(id) => ResourceKey::new(resource_type.as_str(), &id.as_str().ok_or(ResourceProblem::Id)?)?,
            None => {
                let request_url = request.and_then(|request| request.text_of("url"));
                let key = assigned_key(resource_type, full_url.as_deref(), request_url.as_deref(), &text);
                text = with_id(&text, &key);
                key
            }
        };
        if text.len() > MAX_RESOURCE_BYTES {
            return Err(ResourceProblem::TooLarge);
        }
        Ok(Reading::Resource(Self { key, is_id_assigned, full_url, if_none_exist, text }))
    }

    /// The resource, scanned.
    pub(super) fn document(&self) -> Document<'_> {
        stream::parse(&self.text).expect("the text was cut out of a scanned document at the spans of its tokens")
    }

    /// Whether the resource carries other resources with references of their own, so that it must stay as it is.
    pub(super) fn is_container(&self) -> bool {
        self.key.resource_type == ResourceType::BUNDLE
    }
}

/// The id of a resource that has none: what its `fullUrl` or its PUT address says, else a hash of its content.
///
/// It is the same at every reading, so that loading twice files once.
fn assigned_key(
    resource_type: ResourceType,
    full_url: Option<&str>,
    request_url: Option<&str>,
    text: &[u8],
) -> ResourceKey {
    let named = |address: Option<&str>| match Reference::parse(address?) {
        Reference::Local { key, .. } | Reference::Absolute { tail: Some(key), .. } => Some(key),
        _ => None,
    };
    let of_type = |key: &ResourceKey| key.resource_type == resource_type;
    let uuid = full_url.and_then(|url| url.strip_prefix("urn:uuid:")).map(str::to_ascii_lowercase);
    let from_uuid = uuid.and_then(|uuid| ResourceKey::new(resource_type.as_str(), &uuid).ok());
    let candidates = [from_uuid, named(full_url), named(request_url)];
    candidates.into_iter().flatten().find(of_type).unwrap_or_else(|| {
        let digest = sha256(&[b"waybill/1 id", text]).to_string();
        let id = &digest[..32];
        ResourceKey::new(resource_type.as_str(), id).expect("32 hexadecimal digits are an id")
    })
}

/// Splices the id in right after `resourceType`.
fn with_id(text: &[u8], key: &ResourceKey) -> Vec<u8> {
    let document = stream::parse(text).expect("the text was cut out of a scanned document");
    let after = document.root().member("resourceType").map(Value::span).expect("type_of has found it").end;
    json::splice(text, &[(after..after, format!(",\"id\":\"{}\"", key.id).into_bytes())])
}
