//! What cryptography has cost and what went over the wire, on the admin socket.

use std::sync::Arc;

use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use waybill_crypto::metered::Meter;

use crate::mailbox::journal::Journal;
use crate::net::counters::WireCounters;

/// The cost of one operation under one label since the process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// What it was for: a message's name, or `log`, `mailbox`, `record`, `other`.
    pub label: String,
    /// Which primitive.
    pub operation: String,
    /// How often.
    pub count: u64,
    /// CPU time. Units: nanoseconds.
    pub cpu_ns: u64,
}

/// Everything counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// Cryptography, by label and operation.
    pub crypto: Vec<Cost>,
    /// Bytes this process sent as a client, TLS included.
    pub sent_bytes: u64,
    /// Bytes this process received as a client, TLS included.
    pub received_bytes: u64,
}

/// Reads a meter.
#[must_use]
pub fn read(meter: &Meter) -> Vec<Cost> {
    let cost = |c: waybill_crypto::metered::Count| Cost {
        label: c.label.to_owned(),
        operation: c.operation.name().to_owned(),
        count: c.count,
        cpu_ns: c.cpu_ns,
    };
    meter.snapshot().into_iter().map(cost).collect()
}

/// CPU time of the calling thread. Units: nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `GET /costs`.
pub fn router(meter: Meter, clients: Vec<Arc<WireCounters>>) -> Router {
    let costs = move || {
        let counts: Vec<_> = clients.iter().map(|c| c.counts()).collect();
        let costs = Costs {
            crypto: read(&meter),
            sent_bytes: counts.iter().map(|c| c.sent_bytes).sum(),
            received_bytes: counts.iter().map(|c| c.received_bytes).sum(),
        };
        async move { Json(costs) }
    };
    Router::new().route("/costs", get(costs))
}

/// Which parcels to list.
#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

/// `GET /parcels?after=SEQ`: what this process posted lately, by kind and size.
pub fn parcels(journal: Arc<Journal>) -> Router {
    let list = move |Query(asked): Query<After>| {
        let posted = journal.after(asked.after);
        async move { Json(posted) }
    };
    Router::new().route("/parcels", get(list))
}
