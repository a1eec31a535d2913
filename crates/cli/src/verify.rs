//! `waybill verify`: evidence, read aloud.

use std::path::{Path, PathBuf};

use comfy_table::Table;
use serde::Serialize;
use waybill_crypto::certificate::TrustAnchor;
use waybill_crypto::native::Native;
use waybill_protocol::evidence::{Evidence, Finding, MAX_EVIDENCE_BYTES, Verdict, judge};
use waybill_protocol::log::{CheckpointPolicy, NoteKey};
use waybill_server::files;

use crate::args::VerifyArgs;
use crate::console::{self, Console};
use crate::failure::{Exit, Failure};

/// The name under which the demo leaves the root certificate.
pub const ROOT_FILE: &str = "authority-root.pem";

/// The check that bytes are an evidence file at all.
const FORMAT: &str = "format";

/// A verdict as reports show it; the names are stable.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictReport {
    /// Nothing failed and the proof itself holds.
    pub holds: bool,
    /// The signed end of the case, when proven.
    pub end: Option<&'static str>,
    /// Who is shown to have lied, if anybody.
    pub liar: Option<String>,
    /// The name of the first check that failed.
    pub failed_check: Option<&'static str>,
    /// The sentences in the order of the case.
    pub sentences: Vec<SentenceReport>,
}

/// One sentence.
#[derive(Debug, Clone, Serialize)]
pub struct SentenceReport {
    /// The check's stable name.
    pub check: &'static str,
    /// `proven`, `failed` or `absent`.
    pub finding: &'static str,
    /// Whose signature shows it.
    pub signer: String,
    /// The sentence.
    pub text: String,
}

impl VerdictReport {
    fn of(verdict: &Verdict) -> Self {
        let sentences = verdict.sentences.iter().map(|sentence| SentenceReport {
            check: sentence.check,
            finding: match sentence.finding {
                Finding::Proven => "proven",
                Finding::Failed => "failed",
                Finding::Absent => "absent",
            },
            signer: sentence.signer.clone(),
            text: sentence.text.clone(),
        });
        Self {
            holds: verdict.holds(),
            end: verdict.end.map(|end| end.as_str()),
            liar: verdict.liar.clone(),
            failed_check: verdict.first_failure().map(|sentence| sentence.check),
            sentences: sentences.collect(),
        }
    }

    fn unreadable(why: &str) -> Self {
        let text = format!("The file is evidence of a case: {why}.");
        let sentence = SentenceReport { check: FORMAT, finding: "failed", signer: "nobody".to_owned(), text };
        Self { holds: false, end: None, liar: None, failed_check: Some(FORMAT), sentences: vec![sentence] }
    }

    /// The sentences as a table.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = console::table(["check", "finding", "shown by", "sentence"]);
        for sentence in &self.sentences {
            table.add_row([sentence.check, sentence.finding, &sentence.signer, &sentence.text]);
        }
        table
    }
}

/// Judges evidence under a root and, where given, a choice of log and witnesses; bytes that are no evidence fail the check
/// `format`.
#[must_use]
pub fn judge_bytes(evidence: &[u8], root: &TrustAnchor, policy: Option<&CheckpointPolicy>) -> VerdictReport {
    match Evidence::parse(evidence) {
        Ok(parsed) => VerdictReport::of(&judge(&Native, root, policy, &parsed)),
        Err(error) => VerdictReport::unreadable(&error.to_string()),
    }
}

/// Reads a root certificate.
///
/// # Errors
/// [`Failure`].
pub fn read_root(path: &Path) -> Result<TrustAnchor, Failure> {
    let der =
        files::read_certificate(path).map_err(|e| Failure::environment("the root certificate cannot be used", e))?;
    TrustAnchor::from_der(&der).map_err(|e| {
        Failure::usage(format!("{} is not a root certificate of an authority", path.display())).caused_by(e)
    })
}

fn find_root(args: &VerifyArgs) -> Result<PathBuf, Failure> {
    if let Some(root) = &args.root {
        return Ok(root.clone());
    }
    let beside = args.evidence.parent().unwrap_or(Path::new(""));
    let candidates = [beside.join(ROOT_FILE), beside.join("..").join(ROOT_FILE)];
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Failure::usage("a root certificate is required: a file that named its own root would prove nothing")
            .hint(format!("waybill verify EVIDENCE --root {ROOT_FILE}"))
    })
}

/// The log and the witnesses asked for on the command line; without `--log`, the file's own are taken and named.
fn read_policy(args: &VerifyArgs) -> Result<Option<CheckpointPolicy>, Failure> {
    let Some(log) = &args.log else { return Ok(None) };
    let key = |text: &String| {
        let key = text.parse::<NoteKey>();
        key.map_err(|e| Failure::usage(format!("{text} is not a verifier key of a log or witness")).caused_by(e))
    };
    let witnesses = args.witness.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    let quorum = args.quorum.unwrap_or(witnesses.len());
    let policy = CheckpointPolicy::new(key(log)?, witnesses, quorum);
    policy.map(Some).map_err(|e| Failure::usage("these keys are no choice of witnesses").caused_by(e))
}

fn read_evidence(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |e| Failure::environment(format!("cannot read {}", path.display()), e);
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > MAX_EVIDENCE_BYTES as u64 {
        return Err(Failure::failed(format!("check `format` failed: {} is larger than any evidence", path.display())));
    }
    std::fs::read(path).map_err(cannot)
}

/// Judges a file, prints every sentence, and fails with the first check that does.
///
/// # Errors
/// [`Failure`].
pub fn run(args: &VerifyArgs, console: &Console) -> Result<Exit, Failure> {
    let root = read_root(&find_root(args)?)?;
    let verdict = judge_bytes(&read_evidence(&args.evidence)?, &root, read_policy(args)?.as_ref());
    console.json(&verdict);
    console.say(verdict.table().to_string());
    if let Some(end) = verdict.end {
        console.say(format!("The case ended: {end}."));
    }
    if let Some(liar) = &verdict.liar {
        console.say(format!("Shown to have lied: {liar}."));
    }
    if verdict.holds {
        console.say("The evidence holds.");
        return Ok(Exit::Success);
    }
    let check = verdict.failed_check.unwrap_or("proof");
    Err(Failure::failed(format!("check `{check}` failed: the evidence does not hold")))
}
