//! What can be typed to the authority and to the services it certifies: witness and relay.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServeArgs;

/// `waybill authority ...`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Make the root, issuing, proof-signing, lodgement and log keys in an empty folder.
    Init {
        /// The folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
    },
    /// Write authority.toml: where to listen, which witnesses and relays.
    Configure {
        /// The authority's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The authority's name; as its certificates say it unless given.
        #[arg(long)]
        name: Option<String>,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// The name (`host` or `host:port`) under which others reach it; repeatable.
        #[arg(long, value_name = "HOST")]
        public_host: Vec<String>,
        /// A witness: its URL and its verifier key. Repeatable.
        #[arg(long, value_names = ["URL", "KEY"], num_args = 2, required = true)]
        witness: Vec<String>,
        /// How many witnesses must cosign.
        #[arg(long, default_value_t = 1)]
        quorum: usize,
        /// A relay at which patients may be answered (`https://host[:port]/`). Repeatable.
        #[arg(long, value_name = "URL", required = true)]
        relay: Vec<String>,
    },
    /// Have the root sign another certificate for the issuing key, before its five years end or after: the key stays, and with it all
    /// that it signed. Needs the folder's root.pem and issuing/issuing.pem, and no network.
    IssueIssuing {
        /// The authority's folder, or a copy of the two files.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The root key, from its medium.
        #[arg(long, value_name = "PEM")]
        root_key: PathBuf,
    },
    /// Make key and certificate of a relay or a witness.
    IssueService {
        /// The authority's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The authority's name; as its certificates say it unless given.
        #[arg(long)]
        name: Option<String>,
        /// The service's name.
        #[arg(long)]
        service: String,
        /// Where to put tls.pem, tls.key and root.pem.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Certify a hospital from its two certificate requests, and enter it into the running authority's registry.
    EnrolHospital(EnrolArgs),
    /// Stop a hospital from taking part, at once and also in open cases: no key is released to it or for it until it is resumed.
    SuspendHospital(OneHospital),
    /// Let a suspended hospital take part again.
    ResumeHospital(OneHospital),
    /// End a hospital's part: its standing, and every certificate it has, on a fresh revocation list.
    RevokeHospital(OneHospital),
    /// Sign a fresh revocation list (valid for 7 days).
    Crl {
        /// The authority's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The authority's name; as its certificates say it unless given.
        #[arg(long)]
        name: Option<String>,
        /// Revoke the certificate in this file as well; its key is never certified again. Repeatable.
        #[arg(long, value_name = "PEM")]
        revoke: Vec<PathBuf>,
        /// Revoke every certificate that this holder ever got as well: a hospital whose keys were stolen, without ending its name.
        #[arg(long, value_name = "NAME")]
        revoke_all_of: Option<String>,
    },
    /// The desk's daily work: sign the renewals that hospitals asked for, a fresh revocation list, and the authority's own certificates
    /// where a third of their life is over. Run it from cron, or with --watch.
    Renew(RenewArgs),
    /// Show what is so now: log, witnesses, revocation list, certificates, hospitals, cases by state.
    Status {
        /// The authority's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Read the public log as anybody can, and with --verify check all of it.
    Log(LogArgs),
    /// Look into folders for what an authority, a relay or a witness must not hold, and for what links two delegations.
    Inspect(InspectArgs),
    /// Write network.toml, which tells hospitals and wallets whom to believe, and show the fingerprint to compare in person.
    Network {
        /// The authority's folder; it must be running.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where to write.
        #[arg(long, value_name = "FILE", default_value = "network.toml")]
        out: PathBuf,
        /// The relay for patients' mailboxes (`host[:port]`); the first one of authority.toml unless given.
        #[arg(long, value_name = "HOST")]
        relay: Option<String>,
    },
    /// Copy the running authority's data, keys and configuration to a new folder; the offline root is never copied.
    Backup {
        /// The authority's folder.
        folder: PathBuf,
        /// The new folder.
        to: PathBuf,
        /// Copy the desk's issuing key and memory, too.
        #[arg(long)]
        with_desk: bool,
    },
    /// Run the authority.
    Serve(ServeArgs),
}

const ENROL_HELP: &str = "What is certified is shown and asked about: the hospital reads the same thumbprints to you, in person \
(`waybill hospital init` and `change-keys` show them). A key of which a certificate was ever revoked is refused, and so is the name of \
a revoked hospital. A replacement changes no standing: who is suspended stays suspended.";

/// `waybill authority enrol-hospital`.
#[derive(Debug, Args)]
#[command(after_help = ENROL_HELP)]
pub struct EnrolArgs {
    /// The authority's folder.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The authority's name; as its certificates say it unless given.
    #[arg(long)]
    pub name: Option<String>,
    /// The folder that holds tls.csr and signing.csr; the chains are put beside them.
    #[arg(long, value_name = "DIR")]
    pub requests: PathBuf,
    /// The hospital's mailbox URL.
    #[arg(long, value_name = "URL")]
    pub mailbox: String,
    /// The hospital that the requests must be of.
    #[arg(long, value_name = "NAME")]
    pub hospital: Option<String>,
    /// Let the requests take the place of a hospital that is enrolled under this name: new keys, or another mailbox.
    #[arg(long)]
    pub replace: bool,
    /// Do not ask: the thumbprints were compared.
    #[arg(long)]
    pub yes: bool,
}

/// A hospital of a running authority.
#[derive(Debug, Args)]
pub struct OneHospital {
    /// The hospital's name.
    pub hospital: String,
    /// The authority's folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}

/// `waybill authority renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The authority's folder.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// A folder with tls.pem and tls.key of a relay or a witness on this machine, to be renewed as well. Repeatable.
    #[arg(long, value_name = "DIR")]
    pub service: Vec<PathBuf>,
    /// Renew what is not due yet, too.
    #[arg(long)]
    pub force: bool,
    /// Go on, one pass every so many minutes.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub watch: Option<u64>,
}

/// `waybill authority log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The authority's folder, from which URL, root and keys are taken; an independent reader gives them instead.
    #[arg(default_value = ".", conflicts_with = "url")]
    pub folder: PathBuf,
    /// The authority's URL (`https://host[:port]`).
    #[arg(long, value_name = "URL", requires_all = ["root", "log", "witness"])]
    pub url: Option<String>,
    /// The authority's root certificate (PEM).
    #[arg(long, value_name = "PEM", requires = "url")]
    pub root: Option<PathBuf>,
    /// The verifier key of the log.
    #[arg(long, value_name = "VKEY", requires = "url")]
    pub log: Option<String>,
    /// The verifier key of a witness. Repeatable.
    #[arg(long, value_name = "VKEY", requires = "url")]
    pub witness: Vec<String>,
    /// How many of the witnesses must have cosigned; without it, all.
    #[arg(long, value_name = "N", requires = "url")]
    pub quorum: Option<usize>,
    /// Fetch every leaf and every tile, recompute the root, verify signature and cosignatures.
    #[arg(long)]
    pub verify: bool,
    /// Verify that the log extends the checkpoint saved in this file.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub since: Option<PathBuf>,
    /// Save the verified checkpoint to this file, for --since of the next time.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub save: Option<PathBuf>,
    /// List the leaves from this index on.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// How many leaves to list.
    #[arg(long, default_value_t = 20)]
    pub count: u64,
}

const INSPECT_HELP: &str = "The search proves something only if it can find: --control names a folder that does hold the record (the receiving \
hospital's), and every kind of term must be found there. Ends with 1 when anything is found where it must not be, when the control finds \
nothing, or when two cases are linked.

  waybill authority inspect authority --also relay --also witness --search --record source.ndjson --control hospital-b";

/// `waybill authority inspect`.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_HELP)]
pub struct InspectArgs {
    /// A folder to inspect: an authority's, or a backup of it.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// Another folder or file to inspect: a relay's, a witness', logs, backups. Repeatable.
    #[arg(long, value_name = "PATH")]
    pub also: Vec<PathBuf>,
    /// Search for terms of a record.
    #[arg(long, requires = "control")]
    pub search: bool,
    /// A record to take the terms from: NDJSON, a Bundle, or one resource. Repeatable.
    #[arg(long, value_name = "FILE", requires = "search")]
    pub record: Vec<PathBuf>,
    /// A term. Repeatable.
    #[arg(long, value_name = "TEXT", requires = "search")]
    pub term: Vec<String>,
    /// A file with one term a line.
    #[arg(long, value_name = "FILE", requires = "search")]
    pub terms_file: Option<PathBuf>,
    /// A hospital's folder, whose patients' pseudonyms are searched for as well. Repeatable.
    #[arg(long, value_name = "DIR", requires = "search")]
    pub pseudonyms_of: Vec<PathBuf>,
    /// A folder in which the terms must be found. Repeatable.
    #[arg(long, value_name = "DIR", requires = "search")]
    pub control: Vec<PathBuf>,
    /// Show the terms themselves, which are health data, and not only their kinds and numbers.
    #[arg(long, requires = "search")]
    pub show_terms: bool,
    /// Two cases (hex) known to be of one patient, to be compared with --other instead of all cases with each other.
    #[arg(long, value_names = ["CASE1", "CASE2"], num_args = 2, requires = "other")]
    pub link: Vec<String>,
    /// A case (hex) known to be of another patient.
    #[arg(long, value_name = "CASE3", requires = "link")]
    pub other: Option<String>,
}

/// `waybill witness ...`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make the witness' key and write witness.toml.
    Init {
        /// The folder; tls.pem, tls.key and root.pem come from `authority issue-service`.
        folder: PathBuf,
        /// The witness' name; as its certificate says it unless given.
        #[arg(long)]
        name: Option<String>,
        /// The verifier key of a log to witness (`name+id+base64`). Repeatable.
        #[arg(long, value_name = "KEY", required = true)]
        log: Vec<String>,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Run the witness.
    Serve(ServeArgs),
    /// Show what the witness has seen of each log.
    Status {
        /// The witness' folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}

/// `waybill relay ...`.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Write relay.toml.
    Init {
        /// The folder; tls.pem, tls.key and root.pem come from `authority issue-service`.
        folder: PathBuf,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// The name (`host` or `host:port`) under which others reach it; repeatable.
        #[arg(long, value_name = "HOST")]
        public_host: Vec<String>,
    },
    /// Run the relay.
    Serve(ServeArgs),
    /// Show how much waits in the mailboxes.
    Status {
        /// The relay's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}
