//! `waybill authority enrol-hospital`: whom a certificate names is found out in person, and a name that is taken is not given to
//! somebody else in silence.

use std::path::Path;

use serde_json::json;
use waybill_crypto::digest::Digest;
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::Folder;
use waybill_server::authority::desk::{Desk, HospitalRequests, read_request_pair};
use waybill_server::authority::http::DirectoryEntry;
use waybill_server::authority::operator::{EnrolmentMade, EnrolmentRequest};
use waybill_server::files;

use super::{admin, ceremony_failure, copy, named, now};
use crate::args::EnrolArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::network_file::grouped;

/// The files of a folder of requests.
const REQUESTS: [&str; 2] = ["tls.csr", "signing.csr"];

/// Shows, asks, enters, certifies.
pub(super) async fn run(args: &EnrolArgs, console: &Console) -> Result<Exit, Failure> {
    let authority = named(&args.folder, args.name.clone())?;
    let desk = Desk::open(&Folder::new(&args.folder), &authority, &Native).map_err(ceremony_failure)?;
    let requests = read(&desk, &args.requests)?;
    let name = requests.name();
    if let Some(expected) = args.hospital.as_deref().filter(|expected| *expected != name) {
        return Err(Failure::failed(format!("the requests are of {name}, not of {expected}"))
            .hint("ask the hospital for its own requests, and certify nothing until then"));
    }
    let enrolled: Vec<DirectoryEntry> = admin(&args.folder).read("/hospitals").await?;
    let held = enrolled.into_iter().find(|entry| entry.id == name);
    console.say(format!("To be certified by {authority}:"));
    console.say(format!("  hospital  {name}\n  mailbox   {}", args.mailbox));
    say_thumbprints(&requests.thumbprints(), *console);
    if let Some(held) = &held {
        console.say(format!("It takes the place of the hospital enrolled as {name}, which is {}:", held.standing));
        console.say(format!("  mailbox   {}", held.mailbox));
    }
    // What the registry will refuse is not asked about; the refusal says what to do.
    let may = held.as_ref().is_none_or(|held| args.replace && held.standing != "revoked");
    let instead = "add --yes when the thumbprints were compared with the hospital, in person";
    if may && !args.yes && !console.confirm("Did the hospital show you these thumbprints, in person?", instead)? {
        return Err(Failure::failed("nothing was certified").hint("compare them first, with the hospital itself"));
    }
    let made = carry_out(&args.folder, &desk, &requests, args).await?;
    let [tls, signing] = requests.thumbprints().map(|thumbprint| thumbprint.to_string());
    console.json(&json!({
        "hospital": name, "mailbox": args.mailbox, "standing": made.hospital.standing,
        "thumbprints": { "tls": tls, "signing": signing }, "replaced": made.replaced,
    }));
    if made.replaced.is_none() {
        console.say(format!("{name} is certified and enrolled"));
    } else if made.hospital.standing == "active" {
        console
            .say(format!("{name} is certified again; its older certificates stay good until they end or are revoked"));
    } else {
        console.say(format!("{name} is certified again, and stays {}:", made.hospital.standing));
        console.say(format!("  waybill authority resume-hospital {name}   lets it take part again"));
    }
    Ok(Exit::Success)
}

/// Certifies a hospital whose name is new, and enters it into the running authority's registry, without asking anybody.
///
/// # Errors
/// [`Failure`].
pub async fn enrol_hospital(folder: &Path, name: &str, requests: &Path, mailbox: &str) -> Result<(), Failure> {
    let desk = Desk::open(&Folder::new(folder), name, &Native).map_err(ceremony_failure)?;
    let args = EnrolArgs {
        folder: folder.to_owned(),
        name: Some(name.to_owned()),
        requests: requests.to_owned(),
        mailbox: mailbox.to_owned(),
        hospital: None,
        replace: false,
        yes: true,
    };
    carry_out(folder, &desk, &read(&desk, requests)?, &args).await.map(|_| ())
}

/// The registry decides first: nothing is signed for whom it refuses.
async fn carry_out(
    folder: &Path,
    desk: &Desk<'_>,
    requests: &HospitalRequests,
    args: &EnrolArgs,
) -> Result<EnrolmentMade, Failure> {
    let (id, mailbox) = (requests.name().to_owned(), args.mailbox.clone());
    let asked = EnrolmentRequest { id, mailbox, replace: args.replace };
    let entered: EnrolmentMade = admin(folder).post("/hospitals", &asked).await?;
    let made = desk.certify_hospital(requests, now()).map_err(ceremony_failure)?;
    for (file, text) in [("tls.pem", &made.tls), ("signing.pem", &made.signing)] {
        let written = files::write_public(&args.requests.join(file), text.as_bytes());
        written.map_err(|e| Failure::environment("a certificate cannot be written", e))?;
    }
    copy(&Folder::new(folder).crl(), &args.requests.join("crl.pem"))?;
    Ok(entered)
}

fn read_files(requests: &Path) -> Result<[Vec<u8>; 2], Failure> {
    let read = |file: &str| {
        let bytes = files::read(&requests.join(file));
        bytes.map(|bytes| bytes.to_vec()).map_err(|e| Failure::environment("a certificate request cannot be read", e))
    };
    Ok([read(REQUESTS[0])?, read(REQUESTS[1])?])
}

fn read(desk: &Desk<'_>, requests: &Path) -> Result<HospitalRequests, Failure> {
    let [tls, signing] = read_files(requests)?;
    desk.read_hospital(&tls, &signing).map_err(ceremony_failure)
}

/// The thumbprints of the TLS and of the signing key in a hospital's folder of requests, as the hospital itself reads them.
///
/// # Errors
/// [`Failure`].
pub fn thumbprints(requests: &Path) -> Result<[Digest; 2], Failure> {
    let [tls, signing] = read_files(requests)?;
    let (tls, signing) = read_request_pair(&Native, &tls, &signing).map_err(ceremony_failure)?;
    Ok([tls.public_key.thumbprint(), signing.public_key.thumbprint()])
}

/// Shows two thumbprints, the same way to both who compare them.
pub fn say_thumbprints([tls, signing]: &[Digest; 2], console: Console) {
    console.say(format!("  TLS key      {}\n  signing key  {}", grouped(tls), grouped(signing)));
}
