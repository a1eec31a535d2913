//! The plaintext inside the chunks: a header, one frame a resource in order of type and id, an end, and padding.
//!
//! ```text
//! stream  = frame(header) *frame(resource) frame(end) *%x00      ; zeros up to Padme of the length before them
//! frame   = u16be head-length, head (CBOR), body                 ; only a resource frame has a body
//! header  = [0, "waybill/1 record"]
//! resource= [1, type, id, version / null, salt (16 bytes), body-length]
//! end     = [2, resources, sum of body-lengths]
//! ```
//!
//! Resources come in strictly ascending order of type and id, so nothing can come twice. The padding is part of the
//! authenticated plaintext and its length is checked, so it can carry nothing.

mod reader;
mod salt;

pub use reader::{BodyError, FrameReader, FramedResource, Frames};
pub use salt::{Salt, Salts};

use crate::resource::{MAX_RESOURCE_BYTES, ResourceId, ResourceKey};
use minicbor::{Decode, Encode};
use std::io::{self, Write};
use thiserror::Error;
use waybill_crypto::stream::padme;

/// The longest head of a frame, in bytes: a type, two ids, a salt and two numbers fit several times.
pub const MAX_HEAD_BYTES: usize = 512;
/// The name that the header frame carries.
const FORMAT: &str = "waybill/1 record";

/// The head of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Header,
    Resource { key: ResourceKey, version: Option<ResourceId>, salt: Salt, length: u64 },
    End { resources: u64, resource_bytes: u64 },
}

/// What a whole stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameTotals {
    /// The number of resources.
    pub resources: u64,
    /// The sum of the lengths of the resources, in bytes.
    pub resource_bytes: u64,
    /// The length of the stream before padding, in bytes.
    pub content_bytes: u64,
    /// The length of the stream with its padding, in bytes.
    pub padded_bytes: u64,
}

/// Why a resource could not be written into a stream.
#[derive(Debug, Error)]
pub enum FrameWriteError {
    /// The resource does not come after the one before it.
    #[error("resources are written in ascending order of type and id, each once")]
    Order,
    /// The resource is larger than the protocol carries.
    #[error("a resource has at most {MAX_RESOURCE_BYTES} bytes")]
    TooLarge,
    /// The sink failed.
    #[error("the sink of the record stream failed")]
    Sink(#[source] io::Error),
}

/// Why a stream is refused; the case ends with it, because the sender signed what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The head of a frame is longer than any head can be, or empty.
    #[error("a frame head has 1 to {MAX_HEAD_BYTES} bytes")]
    HeadLength,
    /// A head is not the deterministic CBOR of a frame.
    #[error("a frame head is malformed")]
    Head,
    /// The stream does not begin with its header.
    #[error("the stream does not begin with the header of this version")]
    Header,
    /// A header stands in the middle.
    #[error("a second header")]
    SecondHeader,
    /// A resource announces more bytes than the protocol carries.
    #[error("a resource announces more than {MAX_RESOURCE_BYTES} bytes")]
    TooLarge,
    /// A resource does not come after the one before it.
    #[error("resources are not in ascending order of type and id, or one comes twice")]
    Order,
    /// The end names other totals than arrived.
    #[error("the totals at the end differ from what arrived")]
    Totals,
    /// Something other than zeros follows the end.
    #[error("the padding is not zero")]
    Padding,
    /// More or fewer zeros than the length demands.
    #[error("the padding has the wrong length")]
    PaddingLength,
    /// The stream stops before its end frame.
    #[error("the stream stops before its end")]
    Truncated,
    /// A caller stopped taking resources while bytes were left.
    #[error("the stream was abandoned in the middle of a chunk")]
    Abandoned,
}

/// Writes resources as a record stream into a sink; needs no memory for what it has written.
pub struct FrameWriter<W> {
    sink: W,
    last: Option<ResourceKey>,
    totals: FrameTotals,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a stream with its header.
    ///
    /// Errors: [`FrameWriteError::Sink`].
    pub fn new(sink: W) -> Result<Self, FrameWriteError> {
        let mut writer = Self { sink, last: None, totals: FrameTotals::default() };
        writer.write_head(&Head::Header)?;
        Ok(writer)
    }

    /// Writes one resource.
    ///
    /// Errors: [`FrameWriteError`] if it is out of order or too large, or the sink fails.
    pub fn push(
        &mut self,
        key: &ResourceKey,
        version: Option<&ResourceId>,
        salt: Salt,
        bytes: &[u8],
    ) -> Result<(), FrameWriteError> {
        if self.last.as_ref().is_some_and(|last| last >= key) {
            return Err(FrameWriteError::Order);
        }
        if bytes.len() > MAX_RESOURCE_BYTES {
            return Err(FrameWriteError::TooLarge);
        }
        let length = bytes.len() as u64;
        self.write_head(&Head::Resource { key: key.clone(), version: version.cloned(), salt, length })?;
        self.write(bytes)?;
        self.totals.resources += 1;
        self.totals.resource_bytes += length;
        self.last = Some(key.clone());
        Ok(())
    }

    /// Ends the stream, pads it and gives back the sink with the totals.
    ///
    /// Errors: [`FrameWriteError::Sink`].
    pub fn finish(mut self) -> Result<(W, FrameTotals), FrameWriteError> {
        let FrameTotals { resources, resource_bytes, .. } = self.totals;
        self.write_head(&Head::End { resources, resource_bytes })?;
        self.totals.padded_bytes = padme(self.totals.content_bytes);
        let mut left = self.totals.padded_bytes - self.totals.content_bytes;
        let zeros = [0; 16 * 1024];
        while left > 0 {
            let block = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
            self.sink.write_all(&zeros[..block]).map_err(FrameWriteError::Sink)?;
            left -= block as u64;
        }
        Ok((self.sink, self.totals))
    }

    fn write_head(&mut self, head: &Head) -> Result<(), FrameWriteError> {
        let head = minicbor::to_vec(head).expect("writing into memory does not fail");
        let length = u16::try_from(head.len()).expect("types and ids are bounded, so a head fits");
        self.write(&length.to_be_bytes())?;
        self.write(&head)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FrameWriteError> {
        self.sink.write_all(bytes).map_err(FrameWriteError::Sink)?;
        self.totals.content_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// How long a stream would be, without its bodies at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameMeter {
    totals: FrameTotals,
}

impl FrameMeter {
    /// Counts one resource.
    pub fn add(&mut self, key: &ResourceKey, version: Option<&ResourceId>, length: u64) {
        let salt = Salt::from_bytes([0; 16]);
        let head = Head::Resource { key: key.clone(), version: version.cloned(), salt, length };
        self.totals.content_bytes += head_bytes(&head) + length;
        self.totals.resources += 1;
        self.totals.resource_bytes += length;
    }

    /// The totals of the stream that a [`FrameWriter`] would make of the same resources.
    #[must_use]
    pub fn finish(mut self) -> FrameTotals {
        let FrameTotals { resources, resource_bytes, .. } = self.totals;
        self.totals.content_bytes += head_bytes(&Head::Header) + head_bytes(&Head::End { resources, resource_bytes });
        self.totals.padded_bytes = padme(self.totals.content_bytes);
        self.totals
    }
}

/// A head with its length before it.
fn head_bytes(head: &Head) -> u64 {
    2 + minicbor::to_vec(head).expect("writing into memory does not fail").len() as u64
}

impl<C> Encode<C> for Head {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Header => e.array(2)?.u8(0)?.str(FORMAT)?.ok(),
            Self::Resource { key, version, salt, length } => {
                e.array(6)?.u8(1)?.str(key.resource_type.as_str())?.str(key.id.as_str())?;
                match version {
                    Some(version) => e.str(version.as_str())?,
                    None => e.null()?,
                };
                e.bytes(salt.as_bytes())?.u64(*length)?.ok()
            }
            Self::End { resources, resource_bytes } => e.array(3)?.u8(2)?.u64(*resources)?.u64(*resource_bytes)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Head {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let malformed = minicbor::decode::Error::message;
        match (d.array()?, d.u8()?) {
            (Some(2), 0) if d.str()? == FORMAT => Ok(Self::Header),
            (Some(6), 1) => {
                let name = d.str()?;
                let key = ResourceKey::new(name, d.str()?).map_err(|_| malformed("not a resource of FHIR R4"))?;
                let version = match d.datatype()? {
                    minicbor::data::Type::Null => d.null().map(|()| None)?,
                    _ => Some(ResourceId::parse(d.str()?).map_err(|_| malformed("not a version"))?),
                };
                let salt = d.bytes()?.try_into().map(Salt::from_bytes).map_err(|_| malformed("a salt has 16 bytes"))?;
                Ok(Self::Resource { key, version, salt, length: d.u64()? })
            }
            (Some(3), 2) => Ok(Self::End { resources: d.u64()?, resource_bytes: d.u64()? }),
            _ => Err(malformed("no such frame")),
        }
    }
}

#[cfg(test)]
mod tests;
