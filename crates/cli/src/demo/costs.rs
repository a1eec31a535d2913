//! What a migration costs: differences of counters that every process keeps.

use std::collections::BTreeMap;

use waybill_crypto::metered::Meter;
use waybill_server::costs::{Cost, Costs, read};

use super::network::Network;
use super::report::{CryptoLine, WireLine};
use crate::courier::Courier;
use crate::failure::Failure;

/// Whose counters are read.
const PARTIES: [&str; 5] = ["authority", "witness", "relay", "hospital-a", "hospital-b"];
/// The patient's name among the parties.
pub const PATIENT: &str = "patient";

/// All counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading(BTreeMap<String, Costs>);

impl Reading {
    /// Reads every process' counters and the wallet's.
    ///
    /// # Errors
    /// [`Failure`] when a process does not answer.
    pub async fn take(network: &Network, wallet: &Meter, courier: &Courier) -> Result<Self, Failure> {
        let mut parties = BTreeMap::new();
        for party in PARTIES {
            parties.insert(party.to_owned(), network.admin(party).read::<Costs>("/costs").await?);
        }
        let (sent_bytes, received_bytes) = courier.wire_bytes();
        parties.insert(PATIENT.to_owned(), Costs { crypto: read(wallet), sent_bytes, received_bytes });
        Ok(Self(parties))
    }

    /// What happened between an earlier reading and this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Spent {
        let mut spent = Spent::default();
        for (party, costs) in &self.0 {
            let before = earlier.0.get(party).cloned().unwrap_or_default();
            let wire = WireLine {
                party: party.clone(),
                sent_bytes: costs.sent_bytes.saturating_sub(before.sent_bytes),
                received_bytes: costs.received_bytes.saturating_sub(before.received_bytes),
            };
            if wire.sent_bytes + wire.received_bytes > 0 {
                spent.wire.push(wire);
            }
            let known: BTreeMap<_, _> = before.crypto.iter().map(|c| ((&c.label, &c.operation), c)).collect();
            for cost in &costs.crypto {
                let old = known.get(&(&cost.label, &cost.operation));
                let count = cost.count - old.map_or(0, |c| c.count.min(cost.count));
                let cpu_ns = cost.cpu_ns - old.map_or(0, |c| c.cpu_ns.min(cost.cpu_ns));
                if count > 0 {
                    spent.note(party, cost, count, cpu_ns);
                }
            }
        }
        spent
    }
}

/// What happened between two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spent {
    /// The protocol's cryptography.
    pub protocol: Vec<CryptoLine>,
    /// Sealing and opening record bytes and files. Units: microseconds.
    pub record_us: f64,
    /// Proving mailbox keys, and what only watching costs. Units: microseconds.
    pub mailbox_us: f64,
    /// Traffic by the party that dialled.
    pub wire: Vec<WireLine>,
}

impl Spent {
    fn note(&mut self, party: &str, cost: &Cost, count: u64, cpu_ns: u64) {
        let cpu_us = cpu_ns as f64 / 1000.0;
        match kind_of(party, &cost.label, &cost.operation) {
            CostKind::Record => self.record_us += cpu_us,
            CostKind::Mailbox => self.mailbox_us += cpu_us,
            CostKind::Protocol => self.protocol.push(CryptoLine {
                party: party.to_owned(),
                label: cost.label.clone(),
                operation: cost.operation.clone(),
                count,
                cpu_us,
            }),
        }
    }

    /// The protocol's cryptography in all. Units: microseconds.
    #[must_use]
    pub fn protocol_us(&self) -> f64 {
        self.protocol.iter().map(|line| line.cpu_us).sum()
    }

    /// Bytes on the wire, each once: everybody dials servers, so the diallers' counters are all there is.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.wire.iter().map(|line| line.sent_bytes + line.received_bytes).sum()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum CostKind {
    Protocol,
    Record,
    Mailbox,
}

/// Symmetric bulk encryption is only ever used on record chunks and on the wallet's file. What runs outside a message's label is
/// the proof of a mailbox key to its host, except at the witness, whose only work is to cosign.
fn kind_of(party: &str, label: &str, operation: &str) -> CostKind {
    match (label, operation) {
        (_, "aead_seal" | "aead_open" | "hash") | ("record", _) => CostKind::Record,
        ("other", _) if party == "witness" => CostKind::Protocol,
        ("other" | "mailbox" | "status", _) => CostKind::Mailbox,
        _ => CostKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(lines: &[(&str, &str, u64, u64)]) -> Costs {
        let crypto = lines.iter().map(|(label, operation, count, cpu_ns)| Cost {
            label: (*label).to_owned(),
            operation: (*operation).to_owned(),
            count: *count,
            cpu_ns: *cpu_ns,
        });
        Costs { crypto: crypto.collect(), sent_bytes: 10, received_bytes: 20 }
    }

    fn reading(party: &str, costs: Costs) -> Reading {
        Reading(BTreeMap::from([(party.to_owned(), costs)]))
    }

    #[test]
    fn record_bytes_and_mailboxes_are_kept_apart_from_the_protocol() {
        let before = reading("hospital-a", costs(&[("Grant", "verify", 1, 1_000)]));
        let mut after = costs(&[
            ("Grant", "verify", 3, 5_000),
            ("Manifest", "aead_seal", 9, 7_000),
            ("other", "sign", 1, 2_000),
            ("status", "verify", 1, 1_000),
        ]);
        after.sent_bytes = 110;
        let spent = reading("hospital-a", after).since(&before);
        assert_eq!(spent.protocol.len(), 1);
        assert_eq!((spent.protocol[0].count, spent.protocol_us()), (2, 4.0));
        assert_eq!((spent.record_us, spent.mailbox_us, spent.wire_bytes()), (7.0, 3.0, 100));
    }

    #[test]
    fn a_restarted_process_counts_from_zero_without_wrapping() {
        let before = reading("hospital-b", costs(&[("Grant", "verify", 5, 5_000)]));
        let spent = reading("hospital-b", costs(&[("Grant", "verify", 2, 2_000)])).since(&before);
        assert_eq!(spent.protocol, []);
        assert_eq!(kind_of("witness", "other", "ed25519_sign"), CostKind::Protocol);
    }
}
