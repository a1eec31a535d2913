//! `waybill sample`: generated patients in files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use waybill_record::sample::{Generator, SampleForm, SamplePatient, SampleSize};

use crate::args::{Form, SampleArgs};
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// One written patient.
#[derive(Debug, Serialize)]
struct Written {
    patient: String,
    file: PathBuf,
    resources: u64,
    shared: u64,
}

/// Writes what was asked for.
///
/// # Errors
/// [`Failure`] when a file cannot be written; no existing file is overwritten.
pub fn run(args: &SampleArgs, console: &Console) -> Result<Exit, Failure> {
    let size = SampleSize {
        resources: args.resources,
        attachments: args.attachments,
        attachment_bytes: args.attachment_bytes,
    };
    let (form, extension) = match args.form {
        Form::Bundle => (SampleForm::TransactionBundle, "json"),
        Form::Ndjson => (SampleForm::Ndjson, "ndjson"),
    };
    let generator = Generator::new(args.seed);
    let mut written = Vec::new();
    if args.patients > 1 {
        std::fs::create_dir_all(&args.out).map_err(|e| cannot(&args.out, e))?;
    }
    for index in 0..args.patients {
        let patient = generator.patient(index, size);
        let file =
            if args.patients > 1 { args.out.join(format!("{}.{extension}", patient.id())) } else { args.out.clone() };
        written.push(write(&patient, form, file)?);
    }
    for one in &written {
        console.say(format!(
            "{}: {} resources and {} shared ones in {}",
            one.patient,
            one.resources,
            one.shared,
            one.file.display()
        ));
    }
    console.json(&written);
    Ok(Exit::Success)
}

fn write(patient: &SamplePatient, form: SampleForm, file: PathBuf) -> Result<Written, Failure> {
    let mut sink = BufWriter::new(File::create_new(&file).map_err(|e| cannot(&file, e))?);
    let counts = patient.write(form, &mut sink).and_then(|counts| sink.flush().map(|()| counts));
    let counts = counts.map_err(|e| cannot(&file, e))?;
    Ok(Written { patient: patient.id(), file, resources: counts.own, shared: counts.shared })
}

fn cannot(file: &Path, error: std::io::Error) -> Failure {
    let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
        "choose another name"
    } else {
        "check folder and free space"
    };
    Failure::environment(format!("cannot write {}", file.display()), error).hint(hint)
}
