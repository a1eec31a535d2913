//! Configuration files: TOML, unknown keys refused, paths relative to the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::mailbox::{MailboxSettings, Quota};
use crate::net::tls::{IdentityFiles, TlsFiles};
use crate::telemetry::LogFormat;

/// Largest configuration file. Units: bytes.
const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// A configuration file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML of the expected shape; the source names line and key.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// It is larger than any configuration should be.
    #[error("the configuration {path} is larger than {MAX_CONFIG_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// A configuration whose relative paths can be anchored.
pub trait Anchored {
    /// Makes every relative path relative to `folder`.
    fn anchor(&mut self, folder: &Path);
}

/// The configuration file of one kind of server.
pub trait ConfigFile: Anchored {
    /// Its usual name in the server's folder.
    const FILE: &'static str;
}

/// Reads a configuration file and anchors its paths in the file's folder.
pub fn load<T: DeserializeOwned + Anchored>(path: &Path) -> Result<T, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let mut config: T =
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.to_owned(), source: Box::new(error) })?;
    config.anchor(path.parent().unwrap_or(Path::new(".")));
    Ok(config)
}

/// The `[server]` table of every server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The names (`host` or `host:port`) in URLs that lead here; the listening address itself when empty.
    #[serde(default)]
    pub public_hosts: Vec<String>,
    /// Folder of the database, the objects and the admin socket.
    pub data: PathBuf,
    /// The authority's root certificate.
    pub root: PathBuf,
    /// Own certificate chain.
    pub certificate: PathBuf,
    /// Own private key.
    pub key: PathBuf,
    /// Revocation list; none is checked without it.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// Admin socket; `admin.sock` in the data folder when absent.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
}

impl ServerConfig {
    /// The TLS files.
    pub fn tls_files(&self) -> TlsFiles {
        let identity = IdentityFiles { certificate: self.certificate.clone(), key: self.key.clone() };
        TlsFiles { root: self.root.clone(), identity: Some(identity), crl: self.crl.clone() }
    }

    /// Where the admin socket is.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| self.data.join("admin.sock"))
    }
}

impl Anchored for ServerConfig {
    fn anchor(&mut self, folder: &Path) {
        for path in [&mut self.data, &mut self.root, &mut self.certificate, &mut self.key] {
            *path = folder.join(&*path);
        }
        for path in [&mut self.crl, &mut self.admin_socket].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// The `[log]` table of every server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info".to_owned() }
    }
}

/// The `[mailboxes]` table of a server that hosts mailboxes; everything has a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailboxConfig {
    /// Quota of mailboxes made without a certificate.
    pub small: Option<Quota>,
    /// Quota of mailboxes made by a party with a certificate.
    pub large: Option<Quota>,
    /// How long a small mailbox lives.
    pub small_lifetime_days: Option<u32>,
    /// How long a message or blob waits.
    pub retention_days: Option<u32>,
    /// Most mailboxes in all.
    pub max_mailboxes: Option<u64>,
    /// Most mailboxes of one party.
    pub max_per_party: Option<u64>,
}

impl MailboxConfig {
    /// The settings of a host reached as `hosts`.
    pub fn settings(&self, hosts: Vec<String>) -> MailboxSettings {
        let base = MailboxSettings::for_hosts(hosts);
        let seconds = |days: Option<u32>, otherwise| days.map_or(otherwise, |days| u64::from(days) * 86_400);
        MailboxSettings {
            small: self.small.unwrap_or(base.small),
            large: self.large.unwrap_or(base.large),
            small_lifetime_seconds: seconds(self.small_lifetime_days, base.small_lifetime_seconds),
            retention_seconds: seconds(self.retention_days, base.retention_seconds),
            max_mailboxes: self.max_mailboxes.unwrap_or(base.max_mailboxes),
            max_per_party: self.max_per_party.unwrap_or(base.max_per_party),
            ..base
        }
    }
}

/// How often certificate files are looked at for changes.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::RelayConfig;

    const TEXT: &str = "[server]\nlisten = \"127.0.0.1:0\"\ndata = \"data\"\nroot = \"/etc/root.pem\"\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";

    fn load_text(text: &str) -> Result<RelayConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        std::fs::write(&path, text).unwrap();
        let mut config: RelayConfig = load(&path)?;
        // The folder's name changes with every run.
        config.server.data = config.server.data.strip_prefix(folder.path()).unwrap().to_owned();
        Ok(config)
    }

    #[test]
    fn paths_are_relative_to_the_file_and_the_rest_has_defaults() {
        let config = load_text(TEXT).unwrap();
        assert_eq!(config.server.data, Path::new("data"));
        assert_eq!(config.server.root, Path::new("/etc/root.pem"));
        let settings = config.mailboxes.settings(vec!["relay.example".to_owned()]);
        assert_eq!(settings.large, MailboxSettings::for_hosts(Vec::new()).large);
        let config = load_text(&format!("{TEXT}[mailboxes]\nretention_days = 2\n")).unwrap();
        assert_eq!(config.mailboxes.settings(Vec::new()).retention_seconds, 172_800);
    }

    #[test]
    fn unknown_keys_and_missing_files_are_named() {
        let error = load_text(&format!("{TEXT}colour = \"red\"\n")).unwrap_err();
        let ConfigError::Parse { source, .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("colour"));
        assert!(matches!(load::<RelayConfig>(Path::new("/nowhere/relay.toml")), Err(ConfigError::Read { .. })));
    }
}
