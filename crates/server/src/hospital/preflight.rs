//! What an integrator wants to know before a hospital serves, and an operator every morning: whether something must be done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use bytes::Bytes;
use serde::Serialize;
use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::{Profile, TrustAnchor, verify_chain_offline};
use waybill_record::dates::Day;
use waybill_store::{DataFolder, Key, OpenError, Space, SqliteOptions, SqliteStore, Store};

use super::staff::{LocalUsers, Staff};
use super::{HospitalConfig, MAX_PAGE_BYTES};
use crate::clock::{Clock, ManualClock};
use crate::files;
use crate::mailbox::{Fill, MailboxClient, MailboxUrl};
use crate::net::client::{Answer, ClientError, ClientOptions, Exchange, HttpClient};
use crate::net::tls::{ClientTls, IdentityFiles, TlsFiles};
use crate::net::unix;
use crate::party::read_crl;

/// Remaining days of a certificate below which somebody should act. Units: days.
const RENEW_DAYS: u64 = 10;
/// How far our clock may lie from the authority's. Units: seconds.
const SKEW_SECONDS: u64 = 60;
/// Free disk below which a record of ordinary size may not fit. Units: bytes.
const LOW_DISK_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// From where on a mailbox is almost full. Units: percent.
const ALMOST_FULL_PERCENT: u64 = 80;
const PATIENCE: Exchange = Exchange { timeout: Duration::from_secs(10), max_response: MAX_PAGE_BYTES };

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing to do.
    Good,
    /// Something should be done soon.
    Soon,
    /// Something must be done.
    Act,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

fn good(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Good, found: found.into(), todo: None }
}

fn soon(name: &'static str, found: impl Into<String>, todo: &str) -> Check {
    Check { name, verdict: Verdict::Soon, found: found.into(), todo: Some(todo.to_owned()) }
}

fn act(name: &'static str, found: impl Into<String>, todo: &str) -> Check {
    Check { name, verdict: Verdict::Act, found: found.into(), todo: Some(todo.to_owned()) }
}

/// Every check, in the order in which one would put things right.
pub async fn preflight(config: &HospitalConfig, backend: Arc<dyn Backend>, clock: &dyn Clock) -> Vec<Check> {
    let mut checks = keys(config);
    checks.extend(certificates(config, backend.as_ref(), clock.now_seconds()));
    checks.push(one_time(config));
    checks.push(staff(config));
    checks.push(disk(&config.hospital.data));
    checks.push(records(config).await);
    checks.extend(network(config, backend, clock).await);
    checks
}

fn keys(config: &HospitalConfig) -> Vec<Check> {
    let folder = &config.hospital.keys;
    let signing = ["tls.key", "signing.key", "mailbox.key"]
        .map(|name| files::read_signing_key(&folder.join(name)).map(drop).map_err(|e| e.to_string()));
    let secret = files::read_secret(&folder.join("salts.key")).map(drop).map_err(|e| e.to_string());
    let consent = files::read_hpke_key(&folder.join("consent.key")).map(drop).map_err(|e| e.to_string());
    let failed: Vec<String> = signing.into_iter().chain([secret, consent]).filter_map(Result::err).collect();
    vec![if failed.is_empty() {
        good("keys", "every key reads back")
    } else {
        act("keys", failed.join("; "), "make keys with `hospital init`, or restore the folder of keys")
    }]
}

fn certificates(config: &HospitalConfig, backend: &dyn Backend, now: u64) -> Vec<Check> {
    let anchor = files::read_certificate(&config.authority.root)
        .map_err(|e| e.to_string())
        .and_then(|der| TrustAnchor::from_der(&der).map_err(|e| e.to_string()));
    let anchor = match anchor {
        Ok(anchor) => anchor,
        Err(error) => {
            return vec![act("root", error, "fetch the root certificate from the authority, and check it in person")];
        }
    };
    let one = |name, file: &str, profile| {
        let chain = match files::read_chain(&config.hospital.keys.join(file)) {
            Ok(chain) => chain,
            Err(error) => {
                return act(name, error.to_string(), "hand the requests to the authority, then run `hospital enrol`");
            }
        };
        let verified = chain
            .certificates()
            .map_err(|e| e.to_string())
            .and_then(|c| verify_chain_offline(backend, &anchor, &c, profile, now).map_err(|e| e.to_string()));
        match verified {
            Err(error) => act(name, error, "ask the authority for new certificates, then run `hospital enrol`"),
            Ok(leaf) if leaf.subject != config.hospital.name => {
                act(name, format!("it is of {}", leaf.subject), "use this hospital's own certificates")
            }
            Ok(leaf) => {
                let days = leaf.not_after.saturating_sub(now) / 86_400;
                let found = format!("{days} days left");
                if days > RENEW_DAYS { good(name, found) } else { soon(name, found, "renew it at the authority") }
            }
        }
    };
    vec![
        one("tls certificate", "tls.pem", Profile::HospitalTls),
        one("signing certificate", "signing.pem", Profile::HospitalSigning),
    ]
}

fn one_time(config: &HospitalConfig) -> Check {
    let (data, keys) = (&config.hospital.data, &config.hospital.one_time);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(keys).starts_with(real(data)) || real(data).starts_with(real(keys)) {
        return act(
            "one-time keys",
            "their folder lies in the data folder, so a backup would keep them",
            "set hospital.one_time to a folder of its own, which no backup holds",
        );
    }
    good("one-time keys", format!("in a folder of their own: {}", keys.display()))
}

fn staff(config: &HospitalConfig) -> Check {
    let staff = match Staff::new(&config.staff, LocalUsers::read(Path::new("/etc/passwd")), 0) {
        Ok(staff) => staff,
        Err(error) => return act("staff", error.to_string(), "correct the [staff] table"),
    };
    if !staff.has_table() {
        return good("staff", "no table: the owner of the socket has every role");
    }
    if config.admin_socket().starts_with(&config.hospital.data) {
        let todo = "set hospital.admin_socket to a path outside the data folder, which only its owner may enter";
        return act("staff", "the table names users who cannot reach the socket", todo);
    }
    good("staff", format!("{} users", config.staff.users.len()))
}

fn disk(data: &Path) -> Check {
    let place = data.ancestors().find(|path| path.exists()).unwrap_or(data);
    match rustix::fs::statvfs(place) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} MiB free", free / (1024 * 1024));
            if free > LOW_DISK_BYTES {
                good("disk", text)
            } else {
                soon("disk", text, "make room: a record is staged whole")
            }
        }
        Err(error) => act("disk", error.to_string(), "check the data folder's path"),
    }
}

/// A running server answers for its store; otherwise it is opened, to read only.
async fn records(config: &HospitalConfig) -> Check {
    let name = "records";
    let ready = Request::get("/health/ready").body(Bytes::new()).expect("the path is well formed");
    if let Ok((status, _)) = unix::request(&config.admin_socket(), ready, Duration::from_secs(10), 1024).await {
        return if status.is_success() {
            good(name, "the server runs and its store answers")
        } else {
            act(name, format!("the server answers {status}"), "look at the server's log")
        };
    }
    if !config.hospital.data.exists() {
        return good(name, "no records yet; the server does not run");
    }
    let read = async {
        let folder = DataFolder::open(&config.hospital.data)?;
        let store = SqliteStore::open(folder, SqliteOptions { read_only: true, ..SqliteOptions::default() }).await?;
        let patients = store.count(Space::Resource, &Key::build().text("local").text("Patient").done()).await;
        store.close().await;
        Ok::<_, OpenError>(patients)
    };
    match read.await {
        Ok(Ok(patients)) => good(name, format!("readable, {patients} patients; the server does not run")),
        Ok(Err(error)) => act(name, error.to_string(), "restore the data folder from a backup"),
        Err(error) => {
            act(name, error.to_string(), "stop the process that holds the folder, or restore it from a backup")
        }
    }
}

async fn network(config: &HospitalConfig, backend: Arc<dyn Backend>, clock: &dyn Clock) -> Vec<Check> {
    let keys = &config.hospital.keys;
    let tls = TlsFiles {
        root: config.authority.root.clone(),
        identity: Some(IdentityFiles { certificate: keys.join("tls.pem"), key: keys.join("tls.key") }),
        crl: None,
    };
    let http = match ClientTls::load(tls) {
        Ok(tls) => HttpClient::new(tls, ClientOptions::default()),
        Err(error) => return vec![act("network", error.to_string(), "put keys and certificates right first")],
    };
    let get = |url: String| {
        let http = http.clone();
        async move {
            let request = Request::get(url).body(Bytes::new()).map_err(|_| ClientError::Url)?;
            http.send(request, PATIENCE).await
        }
    };
    let mut checks = Vec::new();
    match get(format!("{}/crl", config.authority.url.trim_end_matches('/'))).await {
        Ok(answer) => {
            checks.push(good("authority", format!("{} answers", config.authority.url)));
            checks.push(clock_of(&answer, clock.now_seconds()));
            checks.push(crl(config, backend.as_ref(), clock.now_seconds(), &answer.body));
        }
        Err(error) => {
            let todo = "check authority.url, the network and the authority's own state";
            checks.push(act("authority", causes(&error), todo));
        }
    }
    let relay = config.hospital.mailbox.parse::<MailboxUrl>().map(|url| format!("https://{}/", url.host()));
    checks.push(mailbox(config, &http, backend.clone(), clock).await);
    checks.push(match relay {
        Err(_) => act("relay", "hospital.mailbox is no mailbox URL", "take the one that `hospital init` wrote"),
        Ok(url) => match get(url.clone()).await {
            Ok(_) => good("relay", format!("{url} answers")),
            // It has no page there; that it says so is enough.
            Err(error) if error.status().is_some() => good("relay", format!("{url} answers")),
            Err(error) => act("relay", causes(&error), "check hospital.mailbox, the network and the relay's own state"),
        },
    });
    checks
}

/// How full the own mailbox is: a full one takes no record, and only its host and we can tell.
async fn mailbox(config: &HospitalConfig, http: &HttpClient, backend: Arc<dyn Backend>, clock: &dyn Clock) -> Check {
    let name = "mailbox";
    let url = config.hospital.mailbox.parse::<MailboxUrl>();
    let key = files::read_signing_key(&config.hospital.keys.join("mailbox.key"));
    let (Ok(url), Ok(key)) = (url, key) else {
        return act(name, "its address or its key cannot be read", "put hospital.mailbox and the keys right first");
    };
    let client = MailboxClient::new(http.clone(), backend, Arc::new(ManualClock::new(clock.now_ms())));
    let found = async { client.fill(&url, &client.open_session(&url, &key).await?).await };
    match found.await {
        Ok(fill) => fullness(&fill),
        Err(error) if error.status() == Some(404) => good(name, "not made yet; the server makes it when it starts"),
        Err(error) => act(name, causes(&error), "check hospital.mailbox, the network and the relay's own state"),
    }
}

fn fullness(fill: &Fill) -> Check {
    let (held, most) = (&fill.held, &fill.most);
    let found = format!(
        "{} percent full: {} of {} messages, {} of {} chunks",
        fill.percent(),
        held.messages,
        most.messages,
        held.blobs,
        most.blobs
    );
    match fill.percent() {
        0..ALMOST_FULL_PERCENT => good("mailbox", found),
        ALMOST_FULL_PERCENT..100 => soon("mailbox", found, "see that the server runs: it empties the mailbox"),
        _ => act("mailbox", found, "no record can come in; look in the server's log for what it throws out, and whose"),
    }
}

fn crl(config: &HospitalConfig, backend: &dyn Backend, now: u64, pem: &[u8]) -> Check {
    let name = "revocation list";
    let read = || {
        let anchor =
            TrustAnchor::from_der(&files::read_certificate(&config.authority.root).map_err(|e| e.to_string())?)
                .map_err(|e| e.to_string())?;
        let chain = files::read_chain(&config.hospital.keys.join("signing.pem")).map_err(|e| e.to_string())?;
        read_crl(backend, waybill_protocol::ids::Timestamp(now), &anchor, pem, &chain).map_err(|e| e.to_string())
    };
    match read() {
        Ok(crl) if now > crl.next_update() => act(name, "it is out of date", "tell the authority to issue a new list"),
        Ok(crl) => {
            let (age, left) = (now.saturating_sub(crl.this_update()) / 3600, (crl.next_update() - now) / 3600);
            let found = format!("{age} hours old, good for {left} more");
            if left > 48 { good(name, found) } else { soon(name, found, "tell the authority to issue a new list") }
        }
        Err(error) => act(name, error, "tell the authority; until then nobody is believed"),
    }
}

/// Our clock against the `Date` of the authority's answer.
fn clock_of(answer: &Answer, now: u64) -> Check {
    let name = "clock";
    let date = answer.headers.get("date").and_then(|date| date.to_str().ok()).and_then(http_date);
    match date {
        None => soon(name, "the authority does not say what time it is", "compare the clocks by hand"),
        Some(theirs) if theirs.abs_diff(now) > SKEW_SECONDS => act(
            name,
            format!("{} seconds from the authority's", theirs.abs_diff(now)),
            "set this machine's clock; above five minutes no record moves",
        ),
        Some(theirs) => good(name, format!("{} seconds from the authority's", theirs.abs_diff(now))),
    }
}

/// The seconds of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7); none for what no clock shows.
#[must_use]
pub fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace().skip(1);
    // Read as small numbers, so that nothing below can overflow whatever the authority says.
    let day: u8 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u16 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u8>().ok().map(u64::from));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let (year, day) = (u64::from(year), u64::from(day));
    Day::from_number(u32::try_from(year * 10_000 + month * 100 + day).ok()?).ok()?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March, so that a leap day is the last of its year.
    let (year, month) = if month <= 2 { (year.checked_sub(1)?, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn causes(error: &dyn std::error::Error) -> String {
    super::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Quota;

    #[test]
    fn dates_of_answers_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(http_date("Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800), "a leap second");
        for wrong in [
            "yesterday",
            "Sun, 06 Nov 18446744073709551615 08:49:37 GMT",
            "Sun, 18446744073709551615 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 18446744073709551615:49:37 GMT",
            "Sun, 00 Mar 0000 00:00:00 GMT",
            "Sun, 30 Feb 2024 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
        ] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_mailbox_that_fills_is_told_before_it_is_full() {
        let most = Quota { messages: 100, message_bytes: 1000, blobs: 10, blob_bytes: 1000 };
        let with =
            |blobs| fullness(&Fill { held: Quota { messages: 1, message_bytes: 1, blobs, blob_bytes: 1 }, most });
        assert_eq!([7, 8, 10].map(|blobs| with(blobs).verdict), [Verdict::Good, Verdict::Soon, Verdict::Act]);
        assert!(with(10).found.contains("10 of 10 chunks"));
    }

    fn config(folder: &Path, one_time: &str, more: &str) -> HospitalConfig {
        let text = format!(
            "[hospital]\nname = \"hospital-a.example\"\nkeys = \"keys\"\ndata = \"data\"\none_time = \"{one_time}\"\nmailbox = \"x\"\nrelays = []\n{more}\n\
             [authority]\nname = \"authority.example\"\nurl = \"https://127.0.0.1:9\"\nroot = \"root.pem\"\nlog = \"l\"\nwitnesses = []\nquorum = 1\n"
        );
        std::fs::write(folder.join("hospital.toml"), text).unwrap();
        crate::config::load(&folder.join("hospital.toml")).unwrap()
    }

    #[tokio::test]
    async fn what_must_be_done_is_said_for_each_thing_that_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "data/one-time", "");
        let checks = preflight(&config, Arc::new(waybill_crypto::native::Native), &crate::clock::SystemClock).await;
        let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        for name in ["keys", "root", "one-time keys", "network"] {
            assert_eq!(of(name).verdict, Verdict::Act, "{name}");
            assert!(of(name).todo.is_some());
        }
        assert_eq!(of("staff").verdict, Verdict::Good);
        assert_eq!(of("records").verdict, Verdict::Good, "{:?}", of("records"));
    }

    #[test]
    fn one_time_keys_must_lie_outside_and_a_table_needs_a_socket_that_can_be_reached() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(one_time(&config(folder.path(), "one-time", "")).verdict, Verdict::Good);
        let table = "[staff.users]\nanna = [\"auditor\"]";
        assert_eq!(staff(&config(folder.path(), "one-time", table)).verdict, Verdict::Act);
        let outside = format!("admin_socket = \"run/admin.sock\"\n{table}");
        assert_eq!(staff(&config(folder.path(), "one-time", &outside)).verdict, Verdict::Good);
    }
}
