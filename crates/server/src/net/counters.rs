//! Counters of what crossed the wire, kept at the TCP stream so that TLS and HTTP overhead is included.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Monotonic counters of one server or one client.
#[derive(Debug, Default)]
pub struct WireCounters {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    connections: AtomicU64,
    refused_connections: AtomicU64,
    failed_handshakes: AtomicU64,
    requests: AtomicU64,
    failed_requests: AtomicU64,
    panics: AtomicU64,
}

/// One reading of [`WireCounters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Bytes read from TCP.
    pub received_bytes: u64,
    /// Bytes written to TCP.
    pub sent_bytes: u64,
    /// Connections opened (client) or accepted (server).
    pub connections: u64,
    /// Connections dropped because a limit was reached.
    pub refused_connections: u64,
    /// TLS handshakes that failed.
    pub failed_handshakes: u64,
    /// Requests handled or sent.
    pub requests: u64,
    /// Requests answered with a 5xx status (server) or without any answer (client).
    pub failed_requests: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

impl WireCounters {
    /// Fresh counters, shared.
    pub fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Reads all counters; each is exact, together they are not one instant.
    pub fn counts(&self) -> WireCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WireCounts {
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
            connections: read(&self.connections),
            refused_connections: read(&self.refused_connections),
            failed_handshakes: read(&self.failed_handshakes),
            requests: read(&self.requests),
            failed_requests: read(&self.failed_requests),
            panics: read(&self.panics),
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused_connection(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_request(&self) {
        self.failed_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

impl WireCounts {
    /// The counts in Prometheus text format, each labelled `endpoint="<endpoint>"`.
    pub fn prometheus(&self, endpoint: &str) -> String {
        let rows = [
            ("waybill_wire_received_bytes_total", self.received_bytes),
            ("waybill_wire_sent_bytes_total", self.sent_bytes),
            ("waybill_connections_total", self.connections),
            ("waybill_refused_connections_total", self.refused_connections),
            ("waybill_failed_handshakes_total", self.failed_handshakes),
            ("waybill_requests_total", self.requests),
            ("waybill_failed_requests_total", self.failed_requests),
            ("waybill_panics_total", self.panics),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            writeln!(text, "# TYPE {name} counter\n{name}{{endpoint=\"{endpoint}\"}} {value}")
                .expect("writing to a String cannot fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_what_was_counted() {
        let counters = WireCounters::default();
        counters.received(3);
        counters.sent(5);
        counters.sent(6);
        let counts = counters.counts();
        assert_eq!((counts.received_bytes, counts.sent_bytes), (3, 11));
        assert!(counts.prometheus("public").contains("waybill_wire_sent_bytes_total{endpoint=\"public\"} 11\n"));
    }
}
