//! Follows a case at both hospitals while the wallet waits for its end.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use waybill_protocol::ids::ProofId;

use super::network::Network;
use super::report::Stage;
use crate::admin::Admin;
use crate::console::Progress;
use crate::failure::{Exit, Failure};

/// How often the hospitals are looked at.
const EVERY: Duration = Duration::from_millis(40);
/// How long nothing may change before the case counts as stuck.
const STUCK: Duration = Duration::from_secs(300);

/// A case as a hospital's admin socket shows it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CaseView {
    /// Its durable state.
    pub state: String,
    /// The catalogue's code, when something was refused.
    pub code: Option<String>,
    /// The long work under way.
    pub stage: Option<Work>,
    /// The manifest in numbers.
    pub manifest: Option<ManifestView>,
    /// The receipt in numbers.
    pub receipt: Option<ReceiptView>,
    /// The signed end.
    pub ended: Option<String>,
}

/// Long work under way.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Work {
    /// `freezing`, `staging`, `receiving`, `filing`.
    pub name: String,
    /// Resources handled.
    pub resources: u64,
    /// Bytes handled.
    pub bytes: u64,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
}

/// A manifest in numbers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ManifestView {
    /// Resources that travel.
    pub offered: u64,
    /// Counts and bytes by type.
    pub inventory: std::collections::BTreeMap<String, Tally>,
    /// Length of the stream.
    pub stream_bytes: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Short digest of what travels.
    pub digest_scope: String,
    /// Short digest of all that could.
    pub digest_full: String,
    /// Full state of the first.
    pub digest_scope_state: String,
    /// Full state of the second.
    pub digest_full_state: String,
}

/// Count and bytes of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A receipt in numbers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReceiptView {
    /// What was sent.
    pub offered: u64,
    /// What was filed.
    pub filed: u64,
    /// What waits for a person.
    pub quarantined: u64,
    /// Short digest of what arrived.
    pub digest: String,
    /// Why nothing was filed.
    pub code: Option<String>,
}

/// Reads a case; `None` while the hospital knows none.
///
/// # Errors
/// [`Failure`] when the hospital does not answer.
pub async fn case(admin: &Admin, proof: &ProofId) -> Result<Option<CaseView>, Failure> {
    admin.find(&format!("/cases/{proof}")).await
}

/// What has been seen of a case so far.
pub struct Watcher<'a> {
    network: &'a Network,
    proof: ProofId,
    begun: Instant,
    progress: &'a Progress,
    /// The stages reached, in order.
    pub stages: Vec<Stage>,
    /// A records officer had to release it.
    pub reviewed: bool,
}

impl<'a> Watcher<'a> {
    /// Watches a case that began at `begun`.
    #[must_use]
    pub fn new(network: &'a Network, proof: ProofId, begun: Instant, progress: &'a Progress) -> Self {
        Self { network, proof, begun, progress, stages: Vec::new(), reviewed: false }
    }

    fn reached(&mut self, name: String) {
        if self.stages.iter().all(|stage| stage.name != name) {
            self.stages.push(Stage { name, seconds: self.begun.elapsed().as_secs_f64() });
        }
    }

    /// Follows the case until dropped, and releases it when a person must compare the two patients.
    ///
    /// # Errors
    /// [`Failure`] when a hospital refuses, or nothing moves any more.
    pub async fn follow(&mut self) -> Result<Infallible, Failure> {
        let parties = ["hospital-a", "hospital-b"].map(|party| (party, self.network.admin(party)));
        let mut last = (Vec::new(), Instant::now());
        loop {
            let mut seen = Vec::with_capacity(parties.len());
            for (party, admin) in &parties {
                let view = match case(admin, &self.proof).await {
                    Ok(Some(view)) => view,
                    // A hospital that is down may come back; if it does not, nothing moves.
                    Ok(None) | Err(Failure { exit: Exit::Environment, .. }) => continue,
                    Err(failure) => return Err(failure),
                };
                if view.state == "awaiting-review" && !self.reviewed {
                    self.reviewed = true;
                    admin.post::<Value>(&format!("/cases/{}/approve", self.proof), &json!({})).await?;
                }
                self.reached(format!("{party} {}", view.state));
                if let Some(work) = &view.stage {
                    self.reached(format!("{party} {}", work.name));
                    self.progress.update(describe(party, work));
                }
                seen.push(view);
            }
            if last.0 != seen {
                last = (seen, Instant::now());
            } else if last.1.elapsed() > STUCK {
                return Err(Failure::failed("nothing has moved for five minutes")
                    .hint("look at the logs of the hospitals; the demo keeps them with --out"));
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn describe(party: &str, work: &Work) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let of = work.total_bytes.map(|total| format!(" of {:.1}", mib(total))).unwrap_or_default();
    format!("{party} is {}: {} resources, {:.1}{of} MiB", work.name, work.resources, mib(work.bytes))
}
