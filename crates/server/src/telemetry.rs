//! Structured logs on standard error.
//!
//! Security: logs hold route patterns, codes, counts and party names; never bodies, query strings, keys, pseudonyms or health data.

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Logging could not start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter expression does not parse.
    #[error("the log filter does not parse; use for example `info` or `waybill_server=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Some other part of the process has already started logging.
    #[error("logging has already been started in this process")]
    AlreadyStarted,
}

/// Starts logging for the whole process; `WAYBILL_LOG` overrides `filter`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = match std::env::var("WAYBILL_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text)?,
        _ => EnvFilter::try_new(filter)?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let started = match format {
        LogFormat::Human => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError::AlreadyStarted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_filter_is_named() {
        assert!(matches!(init(LogFormat::Human, "waybill=loudest"), Err(TelemetryError::Filter(_))));
    }
}
