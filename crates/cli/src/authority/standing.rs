//! Suspending, resuming, revoking.

use serde_json::json;
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::Folder;
use waybill_server::authority::desk::Desk;
use waybill_server::authority::http::DirectoryEntry;
use waybill_server::authority::operator::StandingChange;

use super::{admin, ceremony_failure, named, now};
use crate::args::OneHospital;
use crate::console::Console;
use crate::failure::{Exit, Failure};

async fn change(one: &OneHospital, standing: &str) -> Result<DirectoryEntry, Failure> {
    let path = format!("/hospitals/{}/standing", one.hospital);
    admin(&one.folder).post(&path, &StandingChange { standing: standing.to_owned() }).await
}

/// Suspends a hospital.
pub(super) async fn suspend(one: &OneHospital, console: &Console) -> Result<Exit, Failure> {
    let entry = change(one, "suspended").await?;
    console.say(format!("{} is suspended, at once: no proof, no grant and no key, also in open cases.", entry.id));
    console.say(format!("  waybill authority resume-hospital {}   lets it take part again", entry.id));
    console.json(&entry);
    Ok(Exit::Success)
}

/// Lets a suspended hospital take part again.
pub(super) async fn resume(one: &OneHospital, console: &Console) -> Result<Exit, Failure> {
    let entry = change(one, "active").await?;
    console.result(&entry, format!("{} takes part again", entry.id));
    Ok(Exit::Success)
}

/// Revokes a hospital: its standing first, which is effective at once, then its certificates.
pub(super) async fn revoke(one: &OneHospital, console: &Console) -> Result<Exit, Failure> {
    let entry = change(one, "revoked").await?;
    let place = Folder::new(&one.folder);
    let list = || -> Result<_, Failure> {
        let name = named(&one.folder, None)?;
        let desk = Desk::open(&place, &name, &Native).map_err(ceremony_failure)?;
        let serials = desk.serials_of(&one.hospital).map_err(ceremony_failure)?;
        Ok((desk.renew_crl(&serials, now()).map_err(ceremony_failure)?, serials.len()))
    };
    let ((number, revoked), certificates) = list().map_err(|failure| {
        Failure::environment(
            format!("{} takes no part any more, but its certificates are not revoked yet", entry.id),
            failure,
        )
        .hint("run this at the desk, where the issuing key is")
    })?;
    admin(&one.folder).post::<serde_json::Value>("/reload", &json!({})).await?;
    console.say(format!(
        "{} is revoked: no part in anything, and revocation list {number} names its {certificates} certificates.",
        entry.id
    ));
    console.json(&json!({
        "id": entry.id, "standing": entry.standing, "certificates": certificates, "crl": number, "revoked": revoked,
    }));
    Ok(Exit::Success)
}
