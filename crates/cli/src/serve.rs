//! The server processes: read the configuration, start, say that we are ready, run until told to stop.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_crypto::metered::{Meter, Metered};
use waybill_crypto::native::Native;
use waybill_server::authority::sequencer::StartError as LogError;
use waybill_server::clock::SystemClock;
use waybill_server::config::{self, ConfigError, ConfigFile, LogConfig};
use waybill_server::costs;
use waybill_server::net::server::{BindError, Drain};
use waybill_server::shell::StartError;
use waybill_server::telemetry;

use crate::args::ServeArgs;
use crate::failure::{Exit, Failure};

/// The one line a server prints on standard output when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Where it listens; absent for a party that only dials out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Its admin socket.
    pub admin: String,
}

/// What every server is given.
pub struct Run {
    /// Cryptography, counted.
    pub backend: Arc<dyn Backend>,
    /// The counters.
    pub meter: Meter,
    /// The clock.
    pub clock: Arc<SystemClock>,
    /// Ends the server.
    pub shutdown: CancellationToken,
}

/// Reads a server's configuration and starts its log.
///
/// # Errors
/// [`Failure`].
pub fn prepare<C>(args: &ServeArgs, log: impl FnOnce(&C) -> &LogConfig) -> Result<(C, Run), Failure>
where
    C: serde::de::DeserializeOwned + ConfigFile,
{
    let file = args.config.clone().unwrap_or_else(|| args.folder.join(C::FILE));
    let config: C = config::load(&file).map_err(config_failure)?;
    let settings = log(&config);
    telemetry::init(settings.format, &settings.filter)
        .map_err(|e| Failure::usage("the log cannot start").caused_by(e))?;
    let meter = Meter::new(costs::thread_cpu_ns);
    let backend: Arc<dyn Backend> = Arc::new(Metered::new(Native, meter.clone()));
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone()).map_err(|e| Failure::environment("signals cannot be watched", e))?;
    if args.supervised {
        stop_with_standard_input(shutdown.clone());
    }
    Ok((config, Run { backend, meter, clock: Arc::new(SystemClock), shutdown }))
}

fn config_failure(error: ConfigError) -> Failure {
    match error {
        ConfigError::Read { .. } => Failure::environment("the configuration cannot be read", error)
            .hint("run the `init` command of this server first (`authority configure` for an authority), then name its folder or, with --config, the file"),
        other => Failure::usage("the configuration cannot be used").caused_by(other),
    }
}

/// Why a server does not start, with what to do about it.
#[must_use]
pub fn start_failure(error: StartError) -> Failure {
    let hint = match &error {
        StartError::Bind(BindError::InUse(_)) => {
            "stop the process that uses the port, or set another `listen` (port 0 takes a free one)"
        }
        StartError::Store(_) => "another process may use this data folder, or the disk is full or read-only",
        StartError::Tls(_) | StartError::File(_) => {
            "run the set-up commands again for what is missing; never copy keys between parties"
        }
        StartError::Config(_) => "correct the configuration file",
        StartError::Log(LogError::LogBehindWitness { .. }) => {
            let hint = "this store is an old copy: serve the newest one; docs/OPERATIONS.md says what to do when there is none";
            return Failure::failed("the server refuses to start").caused_by(error).hint(hint);
        }
        StartError::Log(_) => "start the witnesses, or check their URLs and keys in the configuration file",
        _ => "look at the log on standard error",
    };
    Failure::environment("the server cannot start", error).hint(hint)
}

fn stop_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// A pipe from the parent closes however the parent ends, also when it is killed.
fn stop_with_standard_input(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut buffer), Ok(read) if read > 0) {}
        shutdown.cancel();
    });
}

/// Says that the server is ready.
pub fn announce(listen: Option<SocketAddr>, admin: &Path) {
    let ready = Ready { ready: true, listen, admin: admin.display().to_string() };
    let line = serde_json::to_string(&ready).expect("an address and a path are JSON");
    println!("{line}");
}

/// How a server ended.
#[must_use]
pub fn ended(drain: Drain) -> Exit {
    if drain == Drain::Complete { Exit::Success } else { Exit::Failed }
}
