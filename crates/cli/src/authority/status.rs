//! `waybill authority status`: what is so now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use waybill_crypto::certificate::VerifiedCertificate;
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
/// The same for the issuing certificate, under which nothing is issued that would outlive it.
const ISSUING_SOON_DAYS: u64 = 180;

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
    /// The thumbprint of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether a later certificate of the same key for the same use and holder is good as well.
    superseded: bool,
}

impl Certificate {
    fn of(leaf: &VerifiedCertificate) -> Self {
        let key = Some(leaf.public_key.thumbprint().to_string());
        Self { key, ..Self::new(&leaf.subject, leaf.profile.as_str(), leaf.not_after) }
    }

    fn new(holder: &str, purpose: &str, until: u64) -> Self {
        Self {
            holder: holder.to_owned(),
            purpose: purpose.to_owned(),
            until,
            days_left: until.saturating_sub(now()) / 86_400,
            key: None,
            superseded: false,
        }
    }
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

/// Root, issuing and online certificates, and everything the desk issued that is still good: also what nobody expects to be there.
fn certificates(folder: &Path) -> Result<Vec<Certificate>, Failure> {
    let place = Folder::new(folder);
    let anchor = desk::anchor(&place).map_err(ceremony_failure)?;
    let mut found = vec![Certificate::new(anchor.name().as_str(), "root", anchor.not_after())];
    if let Ok(der) = files::read_certificate(&place.join("issuing/issuing.pem"))
        && let Ok(issuer) = anchor.verify_issuer(&der, now())
    {
        found.push(Certificate::new(issuer.name().as_str(), "issuing", issuer.not_after()));
    }
    let mut serials = Vec::new();
    for stem in ["online/tls.pem", "online/proof-signing.pem"] {
        let leaf = files::read(&place.join(stem)).ok().and_then(|pem| read_leaf(&Native, &anchor, &pem, now()));
        let leaf = leaf.ok_or_else(|| {
            Failure::failed(format!("{} is no good certificate any more", place.join(stem).display()))
                .hint("waybill authority renew")
        })?;
        found.push(Certificate::of(&leaf));
        serials.push(leaf.serial);
    }
    // Without the desk's memory here, only what lies in the folder is known.
    if let Ok(desk) = Desk::open(&place, &named(folder, None)?, &Native) {
        let mut issued = desk.issued(None, now()).map_err(ceremony_failure)?;
        issued.retain(|leaf| !serials.contains(&leaf.serial));
        // The newest of a key first, as it came; those of one holder together.
        issued.sort_by(|a, b| (&a.subject, a.profile.as_str()).cmp(&(&b.subject, b.profile.as_str())));
        for leaf in &issued {
            let of = Certificate::of(leaf);
            let same = |c: &Certificate| (&c.holder, &c.purpose, &c.key) == (&of.holder, &of.purpose, &of.key);
            let superseded = found.iter().any(same);
            found.push(Certificate { superseded, ..of });
        }
    }
    Ok(found)
}

/// Holders with good certificates of more than one key for one use: a change of keys, or somebody else.
fn several_keys(certificates: &[Certificate]) -> Vec<String> {
    let mut keys = BTreeMap::<_, BTreeSet<_>>::new();
    for certificate in certificates {
        keys.entry((&certificate.holder, &certificate.purpose)).or_default().extend(&certificate.key);
    }
    let several = keys.into_iter().filter(|(_, keys)| keys.len() > 1);
    let said = several.map(|((holder, purpose), keys)| {
        format!(
            "{holder} has good certificates of {} keys ({purpose}): is it a change of keys that you know of?",
            keys.len()
        )
    });
    said.collect()
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
    said.extend(several_keys(certificates));
    let soon = |c: &Certificate| if c.purpose == "issuing" { ISSUING_SOON_DAYS } else { SOON_DAYS };
    for certificate in certificates.iter().filter(|c| c.days_left < soon(c) && !c.superseded) {
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
    let mut certificates = console::table(["certificate of", "for", "days left", "key"]);
    for certificate in &status.certificates {
        // Enough to tell two keys apart; JSON has all of it.
        let key = certificate.key.as_deref().unwrap_or_default().chars().take(16).collect();
        let days = certificate.days_left.to_string();
        certificates.add_row([certificate.holder.clone(), certificate.purpose.clone(), days, key]);
    }
    console.say(certificates.to_string());
    for line in &status.attention {
        console.say(format!("! {line}"));
    }
}
