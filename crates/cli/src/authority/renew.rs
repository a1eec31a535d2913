//! The desk's daily work: renewals that hospitals asked for, the revocation list, the authority's own certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::{CeremonyError, Folder};
use waybill_server::authority::desk::{self, Desk, read_leaf};
use waybill_server::authority::renewal::{DeskAnswer, WaitingRenewal};
use waybill_server::files;

use super::status::crl_on_disk;
use super::{admin, ceremony_failure, named, now};
use crate::args::RenewArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// How old a revocation list may become before the daily work signs another. Units: seconds.
const CRL_AGE_SECONDS: u64 = 20 * 3600;

/// What one pass did.
#[derive(Debug, Default, Serialize)]
struct Pass {
    /// Renewals answered.
    hospitals: Vec<Answered>,
    /// The number of a new revocation list.
    crl: Option<u64>,
    /// Own certificates.
    own: Vec<OwnCertificate>,
}

#[derive(Debug, Serialize)]
struct Answered {
    hospital: String,
    renewed: bool,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct OwnCertificate {
    file: PathBuf,
    renewed: bool,
    days_left: u64,
}

/// One pass, or one after the other.
pub(super) async fn run(args: &RenewArgs, console: &Console) -> Result<Exit, Failure> {
    let Some(minutes) = args.watch else {
        let pass = pass(args).await?;
        tell(&pass, console);
        console.json(&pass);
        let refused = pass.hospitals.iter().any(|answered| !answered.renewed);
        return Ok(if refused { Exit::Failed } else { Exit::Success });
    };
    loop {
        match pass(args).await {
            Ok(pass) => tell(&pass, console),
            Err(failure) => console.say(format!("this pass did not end: {failure}")),
        }
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
    }
}

fn tell(pass: &Pass, console: &Console) {
    for answered in &pass.hospitals {
        console.say(match &answered.reason {
            None => format!("{}: certificates renewed", answered.hospital),
            Some(reason) => format!("{}: refused: {reason}", answered.hospital),
        });
    }
    if let Some(number) = pass.crl {
        console.say(format!("revocation list {number} signed"));
    }
    for own in &pass.own {
        let what = if own.renewed { "renewed" } else { "not due" };
        console.say(format!("{}: {what}, {} days left", own.file.display(), own.days_left));
    }
    if pass.hospitals.is_empty() {
        console.say("no hospital asked for a renewal");
    }
}

async fn pass(args: &RenewArgs) -> Result<Pass, Failure> {
    let folder = &args.folder;
    let (place, name) = (Folder::new(folder), named(folder, None)?);
    let desk = Desk::open(&place, &name, &Native).map_err(ceremony_failure)?;
    let mut pass = Pass::default();
    // The desk's own part needs no server: it comes first, so that a server that is down does not let the list go stale.
    let crl = crl_on_disk(folder)?;
    if args.force || crl.this_update + CRL_AGE_SECONDS <= now() {
        pass.crl = Some(desk.renew_crl(&[], now()).map_err(ceremony_failure)?.0);
    }
    let own = ["online/tls", "online/proof-signing"].map(|stem| folder.join(stem));
    for stem in own.into_iter().chain(args.service.iter().map(|service| service.join("tls"))) {
        pass.own.push(renew_own(&desk, &place, &stem, args.force)?);
    }
    let admin = admin(folder);
    admin.post::<serde_json::Value>("/reload", &json!({})).await?;
    for waiting in admin.read::<Vec<WaitingRenewal>>("/renewals").await? {
        let answer = answer(&desk, &waiting);
        let reason = match &answer {
            DeskAnswer::Issued { .. } => None,
            DeskAnswer::Refused { reason } => Some(reason.clone()),
        };
        admin.post::<serde_json::Value>(&format!("/renewals/{}", waiting.hospital), &answer).await?;
        pass.hospitals.push(Answered { hospital: waiting.hospital, renewed: reason.is_none(), reason });
    }
    Ok(pass)
}

/// The desk's decision about one request: in good standing, and the keys it has certified before.
fn answer(desk: &Desk<'_>, waiting: &WaitingRenewal) -> DeskAnswer {
    if waiting.standing != "active" {
        return DeskAnswer::Refused { reason: format!("its standing is {}", waiting.standing) };
    }
    let request = &waiting.request;
    match desk.renew_hospital(&waiting.hospital, request.tls.as_bytes(), request.signing.as_bytes(), now()) {
        Ok(made) => DeskAnswer::Issued { tls: made.tls, signing: made.signing },
        Err(error) => DeskAnswer::Refused { reason: error.to_string() },
    }
}

fn renew_own(desk: &Desk<'_>, place: &Folder, stem: &Path, force: bool) -> Result<OwnCertificate, Failure> {
    let file = stem.with_extension("pem");
    let anchor = desk::anchor(place).map_err(ceremony_failure)?;
    let text = files::read(&file).map_err(|e| Failure::environment("a certificate cannot be read", e))?;
    let lapsed = || {
        ceremony_failure(CeremonyError::Lapsed(file.display().to_string()))
            .hint("waybill authority issue-service makes a new one for a service; see docs/OPERATIONS.md for the authority's own")
    };
    let held = read_leaf(&Native, &anchor, &text, now()).ok_or_else(lapsed)?;
    let left = held.not_after.saturating_sub(now());
    let due = left <= held.profile.max_lifetime_seconds() / 3 * 2;
    let until = if due || force { desk.renew_file(stem, now()).map_err(ceremony_failure)? } else { held.not_after };
    Ok(OwnCertificate { file, renewed: due || force, days_left: until.saturating_sub(now()) / 86_400 })
}
