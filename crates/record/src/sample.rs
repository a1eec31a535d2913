//! A seeded generator of plausible FHIR R4 patients of any size, for demos, tests and benchmarks.
//!
//! Nothing is copied from a real record. What is difficult in real records is here on purpose: decimals with trailing
//! zeros, exponents and 17 digits, XHTML narratives, names outside ASCII, `_primitive` siblings, contained resources,
//! `urn:uuid` and conditional references (in the Bundle form), security labels, Provenance, attachments in Binary, and
//! a link to a patient whose record must not travel. The same seed gives the same bytes for ever; memory does not grow
//! with the record.
//!
//! Both forms say the same: a loaded Bundle gives the resources of the NDJSON form, byte for byte.

mod fill;
mod random;
mod templates;

use fill::{Scene, fill};
use random::{Random, uuid};
use std::io::{self, Write};
use templates::{BINARY_HEAD, BINARY_TAIL, BLOCK, DOCUMENT, PATIENT, RELATED_PERSON, SHARED};

/// The largest attachment, in bytes: its base64 form still fits into one resource.
pub const MAX_ATTACHMENT_BYTES: u64 = 40 * 1024 * 1024;
/// Bytes of an attachment that are made at a time; a multiple of 3, so that base64 needs no padding in between.
const ATTACHMENT_BLOCK_BYTES: usize = 48 * 1024;

/// How large a generated patient is; shared resources (hospital, practitioners, medications) come on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleSize {
    /// The patient's own resources without attachments; at least one, the Patient itself, is made.
    pub resources: u64,
    /// The number of attachments, each one a DocumentReference and a Binary.
    pub attachments: u64,
    /// The size of each attachment, cut to [`MAX_ATTACHMENT_BYTES`].
    pub attachment_bytes: u64,
}

/// The form in which a patient is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleForm {
    /// One resource a line, relative references.
    Ndjson,
    /// One transaction Bundle with `urn:uuid` and conditional references, as record generators write it.
    TransactionBundle,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// The patient's own resources, attachments included.
    pub own: u64,
    /// Shared resources.
    pub shared: u64,
}

/// Makes patients; a value of its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    seed: u64,
}

/// One patient that can be written any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplePatient {
    seed: u64,
    index: u64,
    size: SampleSize,
}

impl Generator {
    /// A generator whose output depends on nothing but this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The patient with this number.
    pub fn patient(&self, index: u64, size: SampleSize) -> SamplePatient {
        SamplePatient { seed: self.seed, index, size }
    }

    /// Writes the shared resources alone: the same bytes that come with every patient of this seed.
    ///
    /// Errors: those of the sink.
    pub fn write_shared(&self, form: SampleForm, sink: &mut dyn Write) -> io::Result<SampleCounts> {
        let size = SampleSize { resources: 0, attachments: 0, attachment_bytes: 0 };
        let mut output = Output { form, sink, first: true };
        output.begin()?;
        let shared = self.patient(0, size).write_shared_to(&mut output)?;
        output.end()?;
        Ok(SampleCounts { own: 0, shared })
    }
}

impl SamplePatient {
    /// The FHIR id of the Patient resource.
    pub fn id(&self) -> String {
        uuid(self.seed, &["patient"], self.index)
    }

    /// Writes the patient with the shared resources that the record refers to.
    ///
    /// Errors: those of the sink.
    pub fn write(&self, form: SampleForm, sink: &mut dyn Write) -> io::Result<SampleCounts> {
        let mut output = Output { form, sink, first: true };
        output.begin()?;
        let shared = self.write_shared_to(&mut output)?;
        let mut own = 0;
        for number in 0..self.size.resources.max(1) {
            let (name, template) = template_of(number);
            let scene = self.scene(form, number);
            let id = scene.own_id(number);
            output.resource(name, &id, None, |sink| sink.write_all(fill(template, &scene).as_bytes()))?;
            own += 1;
        }
        for number in 0..self.size.attachments {
            self.write_attachment(&mut output, number)?;
            own += 2;
        }
        output.end()?;
        Ok(SampleCounts { own, shared })
    }

    fn scene(&self, form: SampleForm, number: u64) -> Scene {
        Scene::new(self.seed, self.index, form, number)
    }

    fn write_shared_to(&self, output: &mut Output<'_>) -> io::Result<u64> {
        for (number, shared) in SHARED.iter().enumerate() {
            let scene = Scene::shared(self.seed, output.form, number);
            let (id, query) = (uuid(self.seed, &["shared"], number as u64), shared.identifier_query());
            output.resource(shared.name, &id, query.as_deref(), |sink| {
                sink.write_all(fill(shared.template, &scene).as_bytes())
            })?;
        }
        Ok(SHARED.len() as u64)
    }

    /// Writes a Binary piece by piece, and the DocumentReference that names it.
    fn write_attachment(&self, output: &mut Output<'_>, number: u64) -> io::Result<()> {
        let bytes = self.size.attachment_bytes.min(MAX_ATTACHMENT_BYTES);
        let scene = Scene::attachment(self.seed, self.index, output.form, number, bytes);
        let mut random = Random::new(self.seed, &["attachment"], self.index.rotate_left(32) ^ number);
        output.resource("Binary", &scene.binary_id(), None, |sink| {
            sink.write_all(fill(BINARY_HEAD, &scene).as_bytes())?;
            write_base64(sink, bytes, &mut random)?;
            sink.write_all(BINARY_TAIL.as_bytes())
        })?;
        output.resource("DocumentReference", &scene.document_id(), None, |sink| {
            sink.write_all(fill(DOCUMENT, &scene).as_bytes())
        })
    }
}

/// The type and the template of a patient's resource by its number: Patient, RelatedPerson, then blocks of one visit.
fn template_of(number: u64) -> (&'static str, &'static str) {
    match number {
        0 => ("Patient", PATIENT),
        1 => ("RelatedPerson", RELATED_PERSON),
        _ => BLOCK[fill::slot_of(number)],
    }
}

/// Writes random bytes as base64 without holding them all.
fn write_base64(sink: &mut dyn Write, bytes: u64, random: &mut Random) -> io::Result<()> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut left = bytes;
    let mut text = Vec::with_capacity(ATTACHMENT_BLOCK_BYTES / 3 * 4);
    while left > 0 {
        let block = usize::try_from(left).unwrap_or(usize::MAX).min(ATTACHMENT_BLOCK_BYTES);
        text.clear();
        for group in 0..block.div_ceil(3) {
            let (word, size) = (random.next(), (block - group * 3).min(3));
            let kept = word & (0xff_ffff << (8 * (3 - size))) & 0xff_ffff;
            for place in 0..4 {
                let letter = ALPHABET[(kept >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= size { letter } else { b'=' });
            }
        }
        sink.write_all(&text)?;
        left -= block as u64;
    }
    Ok(())
}

/// Puts resources into the frame of a form.
struct Output<'a> {
    form: SampleForm,
    sink: &'a mut dyn Write,
    first: bool,
}

impl Output<'_> {
    fn begin(&mut self) -> io::Result<()> {
        match self.form {
            SampleForm::Ndjson => Ok(()),
            SampleForm::TransactionBundle => {
                self.sink.write_all(br#"{"resourceType":"Bundle","type":"transaction","entry":["#)
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.form {
            SampleForm::Ndjson => Ok(()),
            SampleForm::TransactionBundle => self.sink.write_all(b"\n]}\n"),
        }
    }

    fn resource(
        &mut self,
        name: &str,
        id: &str,
        if_none_exist: Option<&str>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.form == SampleForm::Ndjson {
            write(self.sink)?;
            return self.sink.write_all(b"\n");
        }
        let separator = if std::mem::take(&mut self.first) { "\n" } else { ",\n" };
        write!(self.sink, r#"{separator}{{"fullUrl":"urn:uuid:{id}","resource":"#)?;
        write(self.sink)?;
        write!(self.sink, r#","request":{{"method":"POST","url":"{name}""#)?;
        if let Some(query) = if_none_exist {
            write!(self.sink, r#","ifNoneExist":"{query}""#)?;
        }
        self.sink.write_all(b"}}")
    }
}

#[cfg(test)]
mod tests;
