//! Reading a record stream piece by piece.

use super::{FrameError, FrameTotals, Head, MAX_HEAD_BYTES, Salt};
use crate::resource::{MAX_RESOURCE_BYTES, Resource, ResourceId, ResourceKey, ResourceProblem};
use thiserror::Error;
use waybill_crypto::stream::padme;

/// How much memory is taken on the mere announcement of a length, in bytes.
const TRUSTED_RESERVE_BYTES: usize = 1024 * 1024;

/// One resource as it arrived; its body has not been looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct FramedResource {
    /// The type and id that the head names.
    pub key: ResourceKey,
    /// The version that the head names.
    pub version: Option<ResourceId>,
    /// The salt of its digest.
    pub salt: Salt,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for FramedResource {
    /// Names the type and the size only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FramedResource({}, {} bytes)", self.key.resource_type, self.bytes.len())
    }
}

/// Why one arrived resource cannot be filed; the others can.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// The body is not a resource that this protocol carries.
    #[error("the body is not a resource")]
    Resource(#[source] ResourceProblem),
    /// The body is another resource, or another version, than the head names.
    #[error("the body is not the resource that the head names")]
    OtherResource,
    /// The body has white space between tokens, so filing it would change its bytes.
    #[error("the body is not compact")]
    NotCompact,
}

impl BodyError {
    /// The stable name that reports use.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Resource(_) => "malformed",
            Self::OtherResource => "other-resource",
            Self::NotCompact => "not-compact",
        }
    }
}

impl FramedResource {
    /// Reads the body and checks that it is what the head names.
    ///
    /// Errors: [`BodyError`]; the destination quarantines such an item.
    ///
    /// Security: without this check a source could pass the scope of one type with the body of another.
    pub fn verify_body(&self) -> Result<Resource, BodyError> {
        let resource = Resource::parse(&self.bytes).map_err(BodyError::Resource)?;
        if *resource.key() != self.key || resource.version() != self.version.as_ref() {
            return Err(BodyError::OtherResource);
        }
        if resource.bytes() != self.bytes {
            return Err(BodyError::NotCompact);
        }
        Ok(resource)
    }
}

/// What the reader waits for.
#[derive(Debug)]
enum Expect {
    /// The two bytes of a head's length.
    HeadLength,
    /// This many bytes of a head.
    Head(usize),
    /// This many bytes of a body, beside what its head said.
    Body { key: ResourceKey, version: Option<ResourceId>, salt: Salt, length: usize },
    /// Zeros until the stream stops.
    Padding,
    /// Nothing: the stream has been refused.
    Refused(FrameError),
}

/// Reads a record stream from pieces of any size; holds at most one resource.
#[derive(Debug)]
pub struct FrameReader {
    expect: Expect,
    buffer: Vec<u8>,
    begun: bool,
    last: Option<ResourceKey>,
    totals: FrameTotals,
}

/// The resources that are complete within one piece of the stream.
///
/// Take them all: a reader whose resources were left untaken refuses the rest of the stream.
#[derive(Debug)]
pub struct Frames<'a> {
    reader: &'a mut FrameReader,
    piece: &'a [u8],
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// A reader at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            expect: Expect::HeadLength,
            buffer: Vec::new(),
            begun: false,
            last: None,
            totals: FrameTotals::default(),
        }
    }

    /// Takes the next piece of plaintext; iterate over the answer to its end.
    pub fn feed<'a>(&'a mut self, piece: &'a [u8]) -> Frames<'a> {
        Frames { reader: self, piece }
    }

    /// Ends the stream.
    ///
    /// Errors: [`FrameError`] if the end frame is missing, the padding has the wrong length, or the stream was refused.
    pub fn finish(mut self) -> Result<FrameTotals, FrameError> {
        match self.expect {
            Expect::Padding if padme(self.totals.content_bytes) == self.totals.padded_bytes => Ok(self.totals),
            Expect::Padding => Err(FrameError::PaddingLength),
            Expect::Refused(error) => Err(error),
            _ => {
                self.buffer.clear();
                Err(FrameError::Truncated)
            }
        }
    }

    /// Takes what it can of a piece and returns a resource as soon as one is complete.
    fn advance(&mut self, piece: &mut &[u8]) -> Result<Option<FramedResource>, FrameError> {
        loop {
            let wanted = match &self.expect {
                Expect::HeadLength => 2,
                Expect::Head(length) => *length,
                Expect::Body { length, .. } => *length,
                Expect::Padding => return self.take_padding(piece).map(|()| None),
                Expect::Refused(error) => return Err(*error),
            };
            let (taken, rest) = piece.split_at(piece.len().min(wanted - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            *piece = rest;
            if self.buffer.len() < wanted {
                return Ok(None);
            }
            let whole = std::mem::take(&mut self.buffer);
            self.totals.content_bytes += whole.len() as u64;
            if let Some(resource) = self.complete(whole)? {
                return Ok(Some(resource));
            }
        }
    }

    /// Handles what was waited for, once all its bytes are here.
    fn complete(&mut self, whole: Vec<u8>) -> Result<Option<FramedResource>, FrameError> {
        match std::mem::replace(&mut self.expect, Expect::HeadLength) {
            Expect::HeadLength => {
                let length = usize::from(u16::from_be_bytes([whole[0], whole[1]]));
                if !(1..=MAX_HEAD_BYTES).contains(&length) {
                    return Err(FrameError::HeadLength);
                }
                self.expect = Expect::Head(length);
                Ok(None)
            }
            Expect::Head(_) => self.complete_head(&whole).map(|()| None),
            Expect::Body { key, version, salt, .. } => {
                self.totals.resources += 1;
                self.totals.resource_bytes += whole.len() as u64;
                Ok(Some(FramedResource { key, version, salt, bytes: whole }))
            }
            Expect::Padding | Expect::Refused(_) => unreachable!("these wait for no bytes"),
        }
    }

    fn complete_head(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let head: Head = minicbor::decode(bytes).map_err(|_| self.malformed())?;
        if minicbor::to_vec(&head).is_ok_and(|canonical| canonical != bytes) {
            return Err(FrameError::Head);
        }
        match head {
            Head::Header if self.begun => return Err(FrameError::SecondHeader),
            Head::Header => self.begun = true,
            _ if !self.begun => return Err(FrameError::Header),
            Head::Resource { key, version, salt, length } => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > MAX_RESOURCE_BYTES {
                    return Err(FrameError::TooLarge);
                }
                if self.last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(FrameError::Order);
                }
                self.last = Some(key.clone());
                self.buffer.reserve(length.min(TRUSTED_RESERVE_BYTES));
                self.expect = Expect::Body { key, version, salt, length };
            }
            Head::End { resources, resource_bytes } => {
                if (resources, resource_bytes) != (self.totals.resources, self.totals.resource_bytes) {
                    return Err(FrameError::Totals);
                }
                self.totals.padded_bytes = self.totals.content_bytes;
                self.expect = Expect::Padding;
            }
        }
        Ok(())
    }

    fn malformed(&self) -> FrameError {
        if self.begun { FrameError::Head } else { FrameError::Header }
    }

    fn take_padding(&mut self, piece: &mut &[u8]) -> Result<(), FrameError> {
        if piece.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Padding);
        }
        self.totals.padded_bytes += piece.len() as u64;
        *piece = &[];
        if self.totals.padded_bytes > padme(self.totals.content_bytes) {
            return Err(FrameError::PaddingLength);
        }
        Ok(())
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<FramedResource, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.piece.is_empty() {
            return None;
        }
        match self.reader.advance(&mut self.piece) {
            Ok(resource) => resource.map(Ok),
            Err(error) => {
                self.piece = &[];
                self.reader.expect = Expect::Refused(error);
                Some(Err(error))
            }
        }
    }
}

impl Drop for Frames<'_> {
    fn drop(&mut self) {
        if !self.piece.is_empty() {
            self.reader.expect = Expect::Refused(FrameError::Abandoned);
        }
    }
}
