//! `waybill authority status`: what is so now.

use std::path::Path;

use serde::Serialize;
use waybill_crypto::native::Native;
use waybill_protocol::ids::Timestamp;
use waybill_server::authority::ceremony::Folder;
use waybill_server::authority::desk::{self, Desk, read_leaf};
use waybill_server::authority::operator::Overview;
use waybill_server::files;
use waybill_server::party::read_crl;

use super::{admin, ceremony_failure, named, now};
use crate::console::{self, Console};
use crate::failure::{Exit, Failure};

/// Days below which something is pointed out.
const SOON_DAYS: u64 = 14;

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    server: Overview,
    certificates: Vec<Certificate>,
    /// What should be looked at.
    attention: Vec<String>,
}

/// A certificate and how long it is still good.
#[derive(Debug, Serialize)]
struct Certificate {
    holder: String,
    #[serde(rename = "use")]
    purpose: String,
    until: u64,
    days_left: u64,
}

/// The revocation list in the folder.
#[derive(Debug)]
pub(super) struct CrlFacts {
    pub this_update: u64,
}

/// Reads and verifies the revocation list in the folder.
pub(super) fn crl_on_disk(folder: &Path) -> Result<CrlFacts, Failure> {
    let place = Folder::new(folder);
    let anchor = desk::anchor(&place).map_err(ceremony_failure)?;
    let cannot = |e| Failure::environment("the revocation list cannot be read", e);
    let pem = files::read(&place.crl()).map_err(cannot)?;
    let issuing = files::read_certificate(&place.join("issuing/issuing.pem")).map_err(cannot)?;
    let chain = waybill_protocol::messages::Chain::new([Vec::new(), issuing]);
    let crl = read_crl(&Native, Timestamp(now()), &anchor, &pem, &chain)
        .map_err(|e| Failure::failed("the revocation list on disk is not one of this authority").caused_by(e))?;
    Ok(CrlFacts { this_update: crl.this_update() })
}

/// Shows everything.
pub(super) async fn run(folder: &Path, console: &Console) -> Result<Exit, Failure> {
    let server: Overview = admin(folder).read("/overview").await?;
    let certificates = certificates(folder)?;
    let attention = attention(&server, &certificates);
    let status = Status { server, certificates, attention };
    console.json(&status);
    tell(&status, console);
    Ok(Exit::Success)
}

/// Root, issuing and online certificates, and what the desk issued that is still good.
fn certificates(folder: &Path) -> Result<Vec<Certificate>, Failure> {
    let place = Folder::new(folder);
    let anchor = desk::anchor(&place).map_err(ceremony_failure)?;
    let certificate = |holder: &str, purpose: &str, until: u64| Certificate {
        holder: holder.to_owned(),
        purpose: purpose.to_owned(),
        until,
        days_left: until.saturating_sub(now()) / 86_400,
    };
    let mut found = vec![certificate(anchor.name().as_str(), "root", anchor.not_after())];
    if let Ok(der) = files::read_certificate(&place.join("issuing/issuing.pem"))
        && let Ok(issuer) = anchor.verify_issuer(&der, now())
    {
        found.push(certificate(issuer.name().as_str(), "issuing", issuer.not_after()));
    }
    for stem in ["online/tls.pem", "online/proof-signing.pem"] {
        let leaf = files::read(&place.join(stem)).ok().and_then(|pem| read_leaf(&Native, &anchor, &pem, now()));
        let leaf = leaf.ok_or_else(|| {
            Failure::failed(format!("{} is no good certificate any more", place.join(stem).display()))
                .hint("waybill authority renew")
        })?;
        found.push(certificate(&leaf.subject, leaf.profile.as_str(), leaf.not_after));
    }
    // Without the desk's memory here, only what lies in the folder is known.
    if let Ok(desk) = Desk::open(&place, &named(folder, None)?, &Native) {
        let mut seen = std::collections::BTreeSet::new();
        let own = found.last().map(|own| own.holder.clone()).unwrap_or_default();
        for leaf in desk.issued(None, now()).map_err(ceremony_failure)? {
            if leaf.subject != own && seen.insert((leaf.subject.clone(), leaf.profile)) {
                found.push(certificate(&leaf.subject, leaf.profile.as_str(), leaf.not_after));
            }
        }
    }
    Ok(found)
}

fn attention(server: &Overview, certificates: &[Certificate]) -> Vec<String> {
    let mut said = Vec::new();
    let reachable = server.witnesses.iter().filter(|w| w.unreachable.is_none()).count();
    if reachable < server.quorum {
        said.push(format!("{reachable} of {} needed witnesses answer: answers wait until they do", server.quorum));
    }
    let crl_days = server.crl.until.saturating_sub(server.now) / 86_400;
    if crl_days < 3 {
        said.push(format!("the revocation list ends in {crl_days} days: waybill authority renew"));
    }
    for certificate in certificates.iter().filter(|c| c.days_left < SOON_DAYS) {
        said.push(format!("{} ({}) ends in {} days", certificate.holder, certificate.purpose, certificate.days_left));
    }
    if server.log.leaves > server.log.cosigned_size {
        said.push(format!("{} leaves wait for a cosigned checkpoint", server.log.leaves - server.log.cosigned_size));
    }
    if server.renewals_waiting > 0 {
        said.push(format!("{} renewals wait for the desk: waybill authority renew", server.renewals_waiting));
    }
    said
}

fn tell(status: &Status, console: &Console) {
    let server = &status.server;
    let age = |at: u64| server.now.saturating_sub(at);
    console.say(format!("{}, running for {} s", server.name, age(server.started)));
    let cosigned = server.log.cosigned_at.map_or("never cosigned".to_owned(), |at| {
        format!("checkpoint of {} cosigned {} s ago", server.log.cosigned_size, age(at))
    });
    console.say(format!("log        {} leaves, {} answered; {cosigned}", server.log.leaves, server.log.answered));
    for witness in &server.witnesses {
        let state = witness.unreachable.as_deref().unwrap_or("reachable");
        console.say(format!("witness    {} {state}", witness.name));
    }
    console.say(format!(
        "revoked    list {}, {} days left",
        server.crl.number,
        server.crl.until.saturating_sub(server.now) / 86_400
    ));
    let cases: Vec<String> = server.cases.iter().map(|(state, count)| format!("{count} {state}")).collect();
    console.say(format!("cases      {}", if cases.is_empty() { "none".to_owned() } else { cases.join(", ") }));
    console.say(format!("outbox     {} letters; {} renewals wait", server.outbox, server.renewals_waiting));
    if !server.hospitals.is_empty() {
        let mut hospitals = console::table(["hospital", "standing"]);
        for hospital in &server.hospitals {
            hospitals.add_row([&hospital.id, &hospital.standing]);
        }
        console.say(hospitals.to_string());
    }
    let mut certificates = console::table(["certificate of", "for", "days left"]);
    for certificate in &status.certificates {
        certificates.add_row([&certificate.holder, &certificate.purpose, &certificate.days_left.to_string()]);
    }
    console.say(certificates.to_string());
    for line in &status.attention {
        console.say(format!("! {line}"));
    }
}
