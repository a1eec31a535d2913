//! What became of records: `receipt`, `history`, `evidence`.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;
use waybill_crypto::certificate::TrustAnchor;
use waybill_protocol::ids::Timestamp;
use waybill_server::files;
use waybill_wallet::{CaseNumber, Summary};

use super::disclosures::{Looks, who_looked};
use super::paper::printed_at;
use super::session::{Session, wallet_failure, write_private};
use super::words::OpenView;
use crate::failure::{Exit, Failure};
use crate::network_file::{NetworkFile, fingerprint};
use crate::verify::{ROOT_FILE, VerdictReport, judge_bytes};
use crate::when::{day, moment};

/// Width of the printed page. Units: characters.
const WIDTH: usize = 80;

/// A receipt as `--json` prints it.
#[derive(Serialize)]
struct ReceiptView<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    looked: Option<&'a Looks>,
    verdict: Option<&'a VerdictReport>,
}

/// `waybill patient receipt`.
///
/// # Errors
/// [`Failure`]; a hospital that does not say who looked is named, and no failure.
pub async fn show(session: &mut Session, case: Option<&str>, print: bool, offline: bool) -> Result<Exit, Failure> {
    let number = session.closed_case(case)?.number;
    if !offline {
        super::stopped::ask(session, number).await?;
    }
    let closed = session.closed_case(case)?;
    let (number, summary) = (closed.number, Summary::of(closed));
    let at = [closed.source.hospital.clone(), closed.destination.hospital.clone()];
    let begun = closed.begun;
    let looks = if offline { None } else { Some(who_looked(session, &at, begun, summary.proof.as_deref()).await?) };
    let verdict = judged(session, number)?;
    session.console.json(&ReceiptView { summary: &summary, looked: looks.as_ref(), verdict: verdict.as_ref() });
    let page = if print {
        page(session, &summary, looks.as_ref(), verdict.as_ref())
    } else {
        short(&summary, looks.as_ref(), verdict.as_ref())
    };
    session.console.say(page.trim_end());
    match verdict {
        Some(verdict) if !verdict.holds => Err(Failure::failed("a signature of this case does not hold")
            .hint("keep the wallet, and show `waybill patient evidence` to somebody who can judge it")),
        _ => Ok(Exit::Success),
    }
}

/// Judges what the wallet holds, anew and offline, under the wallet's own choice of root, log and witnesses.
fn judged(session: &Session, number: CaseNumber) -> Result<Option<VerdictReport>, Failure> {
    let (Some(evidence), Some(trust)) = (session.wallet.evidence(number), session.wallet.trust_settings()) else {
        return Ok(None);
    };
    let anchor = TrustAnchor::from_der(&trust.root)
        .map_err(|e| Failure::failed("the wallet's root certificate is none").caused_by(e))?;
    Ok(Some(judge_bytes(&evidence.to_bytes(), &anchor, Some(&trust.log))))
}

fn short(summary: &Summary, looks: Option<&Looks>, verdict: Option<&VerdictReport>) -> String {
    let mut out = summary.text();
    if let Some(looks) = looks {
        let _ = writeln!(out, "Who looked:");
        looks.write(&mut out);
    }
    let _ = writeln!(out, "{}", verdict_line(verdict));
    out
}

fn verdict_line(verdict: Option<&VerdictReport>) -> String {
    match verdict {
        None => "There was no proof, so there is nothing signed to judge.".to_owned(),
        Some(verdict) if verdict.holds => {
            let proven = verdict.sentences.iter().filter(|sentence| sentence.finding == "proven").count();
            format!("Signatures: judged anew just now; {proven} statements hold, none fails.")
        }
        Some(verdict) => format!("Signatures: check `{}` FAILS.", verdict.failed_check.unwrap_or("proof")),
    }
}

/// The page for paper: no line is longer than the page is wide, and none begins or ends with what a printer would not show.
fn page(session: &Session, summary: &Summary, looks: Option<&Looks>, verdict: Option<&VerdictReport>) -> String {
    let rule = "-".repeat(WIDTH);
    let mut out = String::new();
    let _ = writeln!(out, "WAYBILL\nReceipt for a health record\n");
    let _ = writeln!(out, "From      {}\nTo        {}", summary.source, summary.destination);
    let (begun, ended) = (moment(Timestamp(summary.begun)), moment(Timestamp(summary.ended)));
    let _ = writeln!(out, "Begun     {begun}\nEnded     {ended}");
    let _ = writeln!(out, "Case      {}", summary.proof.as_deref().unwrap_or("(none: it never came to a proof)"));
    let _ = writeln!(out, "Printed   {}\n{rule}", printed_at());
    // The summary's first line names the two hospitals again; the last one the case.
    let text = summary.text();
    for line in text.lines().skip(1).filter(|line| !line.starts_with("Case ")) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "{rule}\nWho looked");
    match looks {
        Some(looks) => looks.write(&mut out),
        None => {
            let _ = writeln!(out, "  not asked (printed without a network)");
        }
    }
    let _ = writeln!(out, "{rule}\n{}", verdict_line(verdict));
    for sentence in verdict.iter().flat_map(|verdict| &verdict.sentences).filter(|s| s.finding != "absent") {
        let mark = if sentence.finding == "proven" { "ok" } else { "NO" };
        let _ = writeln!(out, "  [{mark}] {}\n       shown by {}", sentence.text, sentence.signer);
    }
    if let Some(trust) = session.wallet.trust_settings() {
        let _ = writeln!(out, "  under the root of {}, whose fingerprint is", trust.authority);
        let _ = writeln!(out, "       {}", fingerprint(&trust.root));
    }
    let _ = writeln!(
        out,
        "Anybody can check this again: `waybill patient evidence` writes the messages of the case, and `waybill verify` judges them."
    );
    out.lines().map(|line| wrapped(line) + "\n").collect()
}

/// Breaks a line that is wider than the page, at spaces; what follows is indented as the line is, and a little more.
fn wrapped(line: &str) -> String {
    let indent =
        line.chars().take_while(|c| *c == ' ').count() + if line.trim_start().starts_with('[') { 5 } else { 2 };
    let mut out = String::new();
    let mut width = 0;
    for (index, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && width + 1 + length > WIDTH && width > indent {
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            width = indent;
        } else if index > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out
}

/// One line of the history.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Open(Box<OpenView>),
    Closed(Box<Summary>),
}

/// `waybill patient history`.
///
/// # Errors
/// None at present.
pub fn history(session: &Session) -> Result<Exit, Failure> {
    let closed = session.wallet.closed().iter().map(|case| Entry::Closed(Box::new(Summary::of(case))));
    let open = session.wallet.cases().iter().map(|case| Entry::Open(Box::new(OpenView::of(case, &[]))));
    let entries: Vec<Entry> = closed.chain(open).collect();
    session.console.json(&entries);
    if entries.is_empty() {
        session.console.say("This wallet has had no case yet.");
        return Ok(Exit::Success);
    }
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["case", "begun", "from", "to", "outcome", "moved", "id"]);
    for entry in &entries {
        let id = |proof: &Option<String>| proof.as_ref().and_then(|p| p.get(..8)).unwrap_or_default().to_owned();
        let row = match entry {
            Entry::Open(open) => [
                open.case.to_string(),
                day(Timestamp(open.begun)),
                open.source.clone(),
                open.destination.clone(),
                format!("open: {}", open.stage),
                String::new(),
                id(&open.proof),
            ],
            Entry::Closed(closed) => [
                closed.case.to_string(),
                day(Timestamp(closed.begun)),
                closed.source.clone(),
                closed.destination.clone(),
                closed.outcome.to_owned(),
                closed.receipt.as_ref().map(|receipt| receipt.filed.to_string()).unwrap_or_default(),
                id(&closed.proof),
            ],
        };
        table.add_row(row);
    }
    session.console.say(table.to_string());
    Ok(Exit::Success)
}

/// `waybill patient evidence`.
///
/// # Errors
/// [`Failure`]; nothing is overwritten.
pub fn evidence(session: &Session, case: Option<&str>, out: &Path) -> Result<Exit, Failure> {
    let closed = session.closed_case(case)?;
    let evidence = session
        .wallet
        .evidence(closed.number)
        .ok_or_else(|| Failure::failed("this case never came to a proof, so there is no evidence of it"))?;
    let trust = session.wallet.trust_settings().ok_or_else(|| wallet_failure(waybill_wallet::WalletError::NoTrust))?;
    let bytes = evidence.to_bytes();
    write_private(out, &bytes)?;
    let root = out.with_file_name(ROOT_FILE);
    files::write_public(&root, NetworkFile::root_to_pem(&trust.root)?.as_bytes())
        .map_err(|e| Failure::environment("the root certificate cannot be written", e))?;
    session.console.say(format!("{} bytes of evidence are in {}. Judge them with:", bytes.len(), out.display()));
    session.console.say(format!("  waybill verify {}", out.display()));
    session.console.say("It holds your receipt: whoever reads it learns how much of what kind moved.");
    session.console.json(&json!({
        "case": closed.number.ordinal(), "evidence": out, "bytes": bytes.len(), "root": root,
    }));
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_nothing_is_lost() {
        let line = format!("  [ok] {}", "several words in a row ".repeat(12).trim_end());
        let text = wrapped(&line);
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("       s") || line.starts_with("       ")), "{text}");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), line.split_whitespace().collect::<Vec<_>>());
        let short = "From      hospital-a.example";
        assert_eq!(wrapped(short), short);
        let long = "x".repeat(WIDTH + 20);
        assert_eq!(wrapped(&long), long, "what has no space is not broken");
    }
}
