//! `network.toml`: one small file that says whom wallets and hospitals of a network believe.
//!
//! ```toml
//! name = "authority.example"
//! url = "https://authority.example"
//! mailbox = "https://authority.example/mailbox/<64 hex digits>"     # may be left out: it is asked for then
//! relay = "relay.example"
//! log = "authority.example/log+<id>+<base64>"
//! witnesses = ["witness.example+<id>+<base64>"]
//! quorum = 1
//! root = "-----BEGIN CERTIFICATE----- ..."
//! ```
//!
//! Security: nothing in here is secret, and all of it must be right: whoever can change the file on its way chooses whom its reader
//! believes. Compare [`NetworkFile::fingerprint`] with one that was obtained another way.

use std::path::Path;

use serde::{Deserialize, Serialize};
use waybill_crypto::certificate::TrustAnchor;
use waybill_crypto::certificate::files::{PemLabel, from_pem, to_pem};
use waybill_crypto::digest::{Digest, sha256};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::log::{CheckpointPolicy, NoteKey};
use waybill_server::files;
use waybill_server::mailbox::MailboxUrl;
use waybill_wallet::{RelayHost, TrustSettings};

use crate::failure::Failure;

/// The file's usual name.
pub const NETWORK_FILE: &str = "network.toml";

/// What the file says. Every field was checked when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// The authority's name.
    pub name: String,
    /// Its URL (`https://host[:port]`).
    pub url: String,
    /// Its mailbox; whoever needs it and does not find it here asks the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// The relay that keeps patients' reply mailboxes (`host[:port]`).
    pub relay: String,
    /// The verifier key of the authority's log.
    pub log: String,
    /// The verifier keys of the witnesses to believe.
    pub witnesses: Vec<String>,
    /// How many of them must have cosigned.
    pub quorum: usize,
    /// The authority's root certificate, PEM.
    pub root: String,
}

/// Whatever is wrong with a network file is wrong with an input.
fn unusable(what: &str) -> Failure {
    Failure::usage(format!("the network file cannot be used: {what}"))
        .hint("ask the authority or your hospital for the file again")
}

impl NetworkFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Failure`]: exit code 3 when it cannot be read, 2 for anything in it that is not as it should be.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = files::read(path).map_err(|e| {
            Failure::environment("the network file cannot be read", e)
                .hint("it comes from the authority or from your hospital, and is named with --network")
        })?;
        Self::parse(std::str::from_utf8(&bytes).map_err(|_| unusable("it is not text"))?)
    }

    /// Checks a text.
    ///
    /// # Errors
    /// [`Failure`] with exit code 2.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let file: Self = toml::from_str(text).map_err(|e| unusable("it has another shape").caused_by(e))?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), Failure> {
        let host = self.url.strip_prefix("https://").map(|host| host.trim_end_matches('/'));
        if host.is_none_or(|host| host.parse::<RelayHost>().is_err()) {
            return Err(unusable("`url` is not of the form https://host[:port]"));
        }
        if self.mailbox.as_ref().is_some_and(|mailbox| mailbox.parse::<MailboxUrl>().is_err()) {
            return Err(unusable("`mailbox` is not the URL of a mailbox"));
        }
        self.relay_host()?;
        self.trust().map(|_| ())
    }

    /// The file's text, which [`Self::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let fields = toml::to_string_pretty(self).expect("a network file is texts and a number");
        format!(
            "# Whom to believe in this network. Compare the fingerprint of the root with somebody of the authority, in person:\n\
             # {}\n{fields}",
            self.fingerprint().unwrap_or_default()
        )
    }

    /// Writes the file, replacing what was there.
    ///
    /// # Errors
    /// [`Failure`] when it is not complete, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        self.check()?;
        files::write_public(path, self.to_text().as_bytes())
            .map_err(|e| Failure::environment("the network file cannot be written", e))
    }

    /// A file around a root certificate in DER.
    ///
    /// # Errors
    /// [`Failure`] for bytes that do not fit into PEM.
    pub fn root_to_pem(der: &[u8]) -> Result<String, Failure> {
        let pem = to_pem(PemLabel::Certificate, der).map_err(|e| unusable("`root`").caused_by(e))?;
        Ok(pem.to_string())
    }

    /// The root certificate, DER.
    ///
    /// # Errors
    /// [`Failure`] for a text that is no root certificate.
    pub fn root_der(&self) -> Result<Vec<u8>, Failure> {
        let der = from_pem(PemLabel::Certificate, self.root.as_bytes())
            .map_err(|e| unusable("`root` is no certificate in PEM").caused_by(e))?;
        TrustAnchor::from_der(&der)
            .map_err(|e| unusable("`root` is no root certificate of an authority").caused_by(e))?;
        Ok(der.to_vec())
    }

    /// SHA-256 of the root certificate, as people compare it: groups of four hex digits.
    ///
    /// # Errors
    /// As [`Self::root_der`].
    pub fn fingerprint(&self) -> Result<String, Failure> {
        Ok(fingerprint(&self.root_der()?))
    }

    /// The log and the witnesses to believe.
    ///
    /// # Errors
    /// [`Failure`] for a key that is none, or a quorum that cannot be met.
    pub fn policy(&self) -> Result<CheckpointPolicy, Failure> {
        let key = |text: &String| {
            text.parse::<NoteKey>().map_err(|e| unusable("`log` or `witnesses` is no verifier key").caused_by(e))
        };
        let witnesses = self.witnesses.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        CheckpointPolicy::new(key(&self.log)?, witnesses, self.quorum)
            .map_err(|e| unusable("log, witnesses and quorum do not fit").caused_by(e))
    }

    /// The relay.
    ///
    /// # Errors
    /// [`Failure`] for a text that is no host.
    pub fn relay_host(&self) -> Result<RelayHost, Failure> {
        self.relay.parse().map_err(|e| unusable("`relay`").caused_by(e))
    }

    /// What a wallet pins. An unknown mailbox stays empty until the authority was asked.
    ///
    /// # Errors
    /// [`Failure`] for anything that is not as it should be.
    pub fn trust(&self) -> Result<TrustSettings, Failure> {
        let name = HospitalId::parse(&self.name).map_err(|e| unusable("`name` is no name").caused_by(e))?;
        let mailbox = self.mailbox.clone().unwrap_or_default();
        let url = self.url.trim_end_matches('/').to_owned();
        Ok(TrustSettings::new(name, mailbox, self.root_der()?, self.policy()?).with_url(url))
    }
}

/// SHA-256 of a certificate, in groups of four hex digits.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    grouped(&sha256(&[der]))
}

/// A digest in groups of four hex digits, as people compare it.
#[must_use]
pub fn grouped(digest: &Digest) -> String {
    let digits = hex::encode(digest.0);
    let groups: Vec<&str> = (0..digits.len()).step_by(4).filter_map(|at| digits.get(at..at + 4)).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::{authority, witness};

    /// A file around real keys.
    fn made(folder: &Path) -> NetworkFile {
        let desk = folder.join("authority");
        let log = authority::make_keys(&desk, "authority.example").unwrap();
        authority::issue_service(&desk, "authority.example", "witness.example", &folder.join("witness")).unwrap();
        let witness =
            witness::init(&folder.join("witness"), "witness.example", std::slice::from_ref(&log), "127.0.0.1:0");
        NetworkFile {
            name: "authority.example".to_owned(),
            url: "https://authority.example:8443/".to_owned(),
            mailbox: None,
            relay: "relay.example".to_owned(),
            log,
            witnesses: vec![witness.unwrap()],
            quorum: 1,
            root: std::fs::read_to_string(desk.join("root.pem")).unwrap(),
        }
    }

    #[test]
    fn what_is_written_reads_back_and_shows_the_roots_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let file = made(folder.path());
        let path = folder.path().join(NETWORK_FILE);
        file.write(&path).unwrap();
        assert_eq!(NetworkFile::read(&path).unwrap(), file);
        let print = file.fingerprint().unwrap();
        assert_eq!((print.len(), print.split(' ').count()), (79, 16));
        assert!(std::fs::read_to_string(&path).unwrap().contains(&print));
        let again = NetworkFile { root: NetworkFile::root_to_pem(&file.root_der().unwrap()).unwrap(), ..file };
        assert_eq!(again.fingerprint().unwrap(), print);
    }

    #[test]
    fn every_field_is_checked_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = made(folder.path());
        let bad = [
            (NetworkFile { name: "no name".to_owned(), ..good.clone() }, "`name`"),
            (NetworkFile { url: "http://authority.example".to_owned(), ..good.clone() }, "`url`"),
            (NetworkFile { url: "https://u@authority.example".to_owned(), ..good.clone() }, "`url`"),
            (NetworkFile { mailbox: Some("https://x/".to_owned()), ..good.clone() }, "`mailbox`"),
            (NetworkFile { relay: "https://relay".to_owned(), ..good.clone() }, "`relay`"),
            (NetworkFile { log: "nothing".to_owned(), ..good.clone() }, "`log`"),
            (NetworkFile { witnesses: vec![good.log.clone()], ..good.clone() }, "do not fit"),
            (NetworkFile { quorum: 2, ..good.clone() }, "do not fit"),
            (NetworkFile { root: "none".to_owned(), ..good.clone() }, "`root`"),
        ];
        for (file, named) in bad {
            let failure = NetworkFile::parse(&file.to_text()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{failure}");
            assert!(failure.to_string().contains(named), "{failure}");
        }
        let failure = NetworkFile::parse("surprise = 1").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(NetworkFile::read(&folder.path().join("nothing")).unwrap_err().exit, Exit::Environment);
    }
}
