//! report.json: every name here is documented in docs/REPORT.md and stable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::verify::VerdictReport;

/// The format's name.
pub const FORMAT: &str = "waybill-demo-report/1";

/// Everything a demo found out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Every patient was filed and every invariant holds.
    pub ok: bool,
    /// What was delegated, in the words of `--scope`.
    pub scope: String,
    /// What the hospital reported of loading, context first.
    pub loads: Vec<Value>,
    /// One entry a patient.
    pub patients: Vec<PatientReport>,
    /// What went wrong, in words; empty when `ok`.
    pub failures: Vec<String>,
    /// What the published schemes claim, for comparison.
    pub published: Published,
    /// From the first key to the last check. Units: seconds.
    pub seconds: f64,
    /// With `--keep`: what is left running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// What `--keep` leaves running.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// Folders, keys and configurations.
    pub folder: String,
    /// The processes.
    pub servers: Vec<KeptServer>,
}

/// One process that is left running.
#[derive(Debug, Clone, Serialize)]
pub struct KeptServer {
    /// Its name.
    pub name: String,
    /// Its process id.
    pub pid: Option<u32>,
    /// Where it listens; `null` for a hospital, which only dials out.
    pub listen: Option<std::net::SocketAddr>,
    /// Its admin socket.
    pub admin: String,
    /// Its log.
    pub log: String,
}

/// The figures that published schemes claim for login to proof.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Published {
    /// CPU time from login to proof. Units: milliseconds.
    pub login_to_proof_cpu_ms: f64,
    /// What crosses the wire from login to proof. Units: bits.
    pub login_to_proof_bits: u64,
}

/// The claims that ours are shown beside.
pub const PUBLISHED: Published = Published { login_to_proof_cpu_ms: 7.7, login_to_proof_bits: 1_248 };

/// One patient's migration.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PatientReport {
    /// FHIR id at A.
    pub id: String,
    /// Local id at B.
    pub destination_id: String,
    /// The case's id.
    pub proof: Option<String>,
    /// `filed`, `rejected`, `unacknowledged`, `revoked`, `expired`, `refused`, `abandoned` or `failed`.
    pub outcome: String,
    /// The catalogue's code, where something was refused.
    pub code: Option<String>,
    /// Why the demo itself could not go on, in words.
    pub failure: Option<String>,
    /// A records officer had to release the case because the two patients were not certainly one person.
    pub reviewed: bool,
    /// Resources that A's closure reached.
    pub held: u64,
    /// Resources that travelled.
    pub offered: u64,
    /// Resources that are in B's store.
    pub filed: u64,
    /// Resources that scope or hides kept back.
    pub withheld: u64,
    /// Resources that may not travel with this patient.
    pub not_movable: u64,
    /// Resources that arrived and wait for a person.
    pub quarantined: u64,
    /// The counts by resource type.
    pub types: BTreeMap<String, TypeCounts>,
    /// Why something did not arrive: outcome, reason, number.
    pub reasons: BTreeMap<String, BTreeMap<String, u64>>,
    /// Bytes of the resources that travelled.
    pub record_bytes: u64,
    /// Length of the sealed stream before encryption, padding included.
    pub stream_bytes: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Digest of what travelled, computed and signed by A; short form, hexadecimal.
    pub digest_source: String,
    /// Digest of what was filed, computed and signed by B; short form, hexadecimal.
    pub digest_destination: String,
    /// Digest of all that could travel, signed by A; short form, hexadecimal.
    pub digest_full: String,
    /// The full states of the two digests that A signed, hexadecimal, so that digests of partial migrations can be added up.
    pub digest_states: DigestStates,
    /// When each stage was reached.
    pub stages: Vec<Stage>,
    /// From delegation to signed end. Units: seconds.
    pub seconds: f64,
    /// Every protocol message.
    pub messages: Vec<Message>,
    /// CPU time of the protocol's cryptography, all parties, from login to signed end. Units: microseconds.
    pub crypto_cpu_us: f64,
    /// Of that, from login to the proof that the wallet has verified. Units: microseconds.
    pub crypto_cpu_us_login_to_proof: f64,
    /// CPU time of both registrations, once in a patient's life at a hospital. Units: microseconds.
    pub crypto_cpu_us_registration: f64,
    /// CPU time of sealing and opening record bytes and files; not part of `crypto_cpu_us`. Units: microseconds.
    pub record_cpu_us: f64,
    /// CPU time of proving mailbox keys to hosts; not part of `crypto_cpu_us`. Units: microseconds.
    pub mailbox_cpu_us: f64,
    /// What `crypto_cpu_us` consists of.
    pub crypto: Vec<CryptoLine>,
    /// Bytes of the messages from login to proof.
    pub login_to_proof_bytes: u64,
    /// Bytes on the wire from login to signed end, each once, TLS included.
    pub wire_bytes: u64,
    /// Of that, by the party that opened the connection.
    pub wire: Vec<WireLine>,
    /// The evidence, verified offline.
    pub evidence: Option<EvidenceReport>,
    /// The same proof presented again.
    pub replay: Option<ReplayReport>,
    /// What must be so, and whether it is.
    pub invariants: Vec<Invariant>,
}

/// Counts of one resource type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeCounts {
    /// Reached at A.
    pub held: u64,
    /// In scope: travelled.
    pub offered: u64,
    /// In B's store.
    pub filed: u64,
    /// Kept back.
    pub withheld: u64,
    /// May not travel.
    pub not_movable: u64,
    /// Arrived, not filed.
    pub quarantined: u64,
}

/// Full states of digests, hexadecimal.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DigestStates {
    /// Of what travelled.
    pub scope: String,
    /// Of all that could.
    pub full: String,
}

/// A stage of a migration.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Since the delegation began. Units: seconds.
    pub seconds: f64,
}

/// A protocol message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The kind of message.
    pub name: String,
    /// `patient`, `authority`, `hospital-a` or `hospital-b`.
    pub from: String,
    /// Likewise.
    pub to: String,
    /// Size of the parcel.
    pub bytes: u64,
    /// `registration`, `migration` or `replay`.
    pub phase: &'static str,
}

/// Cost of one operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CryptoLine {
    /// Who.
    pub party: String,
    /// For which message.
    pub label: String,
    /// Which primitive.
    pub operation: String,
    /// How often.
    pub count: u64,
    /// CPU time. Units: microseconds.
    pub cpu_us: f64,
}

/// Traffic of one party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WireLine {
    /// Who dialled.
    pub party: String,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// The evidence of a case.
#[derive(Debug, Clone, Serialize)]
pub struct EvidenceReport {
    /// Its size.
    pub bytes: u64,
    /// Where it was written, with `--out`.
    pub file: Option<String>,
    /// What it proves.
    #[serde(flatten)]
    pub verdict: VerdictReport,
}

/// What became of presenting the proof again.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayReport {
    /// It was refused with a signature.
    pub refused: bool,
    /// Who refused.
    pub by: String,
    /// Why.
    pub code: String,
}

/// Something that must be so.
#[derive(Debug, Clone, Serialize)]
pub struct Invariant {
    /// Its stable name.
    pub name: &'static str,
    /// Whether it is so.
    pub holds: bool,
}

impl PatientReport {
    /// Notes an invariant.
    pub fn require(&mut self, name: &'static str, holds: bool) {
        self.invariants.push(Invariant { name, holds });
    }

    /// Filed, and everything that must be so is so.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.outcome == "filed" && !self.invariants.is_empty() && self.invariants.iter().all(|i| i.holds)
    }

    /// Why it is not good, in words.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if self.is_good() {
            return None;
        }
        let broken: Vec<&str> = self.invariants.iter().filter(|i| !i.holds).map(|i| i.name).collect();
        let code = self.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        let failure = self.failure.as_deref().map(|failure| format!(": {failure}")).unwrap_or_default();
        let broken = if broken.is_empty() { String::new() } else { format!("; broken: {}", broken.join(", ")) };
        Some(format!("patient {}: {}{code}{failure}{broken}", self.id, self.outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_good_only_when_filed_with_every_invariant() {
        let mut report = PatientReport { id: "x".to_owned(), outcome: "filed".to_owned(), ..PatientReport::default() };
        assert!(!report.is_good(), "nothing was checked");
        report.require("offered = filed + quarantined", true);
        assert!(report.is_good());
        report.require("digests are equal", false);
        assert_eq!(report.complaint().unwrap(), "patient x: filed; broken: digests are equal");
        let refused = PatientReport {
            outcome: "refused".to_owned(),
            code: Some("proof-spent".to_owned()),
            ..PatientReport::default()
        };
        assert!(refused.complaint().unwrap().contains("refused (proof-spent)"));
    }
}
