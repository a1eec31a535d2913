//! What can be typed to the authority and to the services it certifies: witness and relay.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

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
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
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
    /// Make key and certificate of a relay or a witness.
    IssueService {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// The service's name.
        #[arg(long)]
        service: String,
        /// Where to put tls.pem, tls.key and root.pem.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Certify a hospital from its two certificate requests, and enter it into the running authority's registry.
    EnrolHospital {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// The folder that holds tls.csr and signing.csr; the chains are put beside them.
        #[arg(long, value_name = "DIR")]
        requests: PathBuf,
        /// The hospital's mailbox URL.
        #[arg(long, value_name = "URL")]
        mailbox: String,
    },
    /// Sign a fresh revocation list.
    Crl {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// Revoke the certificate in this file as well. Repeatable.
        #[arg(long, value_name = "PEM")]
        revoke: Vec<PathBuf>,
    },
    /// Run the authority.
    Serve(ServeArgs),
}

/// `waybill witness ...`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make the witness' key and write witness.toml.
    Init {
        /// The folder; tls.pem, tls.key and root.pem come from `authority issue-service`.
        folder: PathBuf,
        /// The witness' name.
        #[arg(long)]
        name: String,
        /// The verifier key of a log to witness (`name+id+base64`). Repeatable.
        #[arg(long, value_name = "KEY", required = true)]
        log: Vec<String>,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Run the witness.
    Serve(ServeArgs),
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
}
