//! The operator's door, on the admin socket only: hospitals and their standing, the state of everything, backups, reloading.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::CheckpointPolicy;
use waybill_protocol::messages::Standing;
use waybill_protocol::migration::AuthorityState;
use waybill_store::{Key, Objects, Space, SqliteStore};

use super::engine::{Engine, read};
use super::http::DirectoryEntry;
use super::keys::OnlineFiles;
use super::registry::{Enrolled, RegistryError};
use super::renewal::Renewals;
use super::sequencer::load_log;
use crate::backup;
use crate::party::ServiceError;
use crate::problem::Problem;
use crate::witness::WitnessClient;

/// Rows of one page.
const PAGE: usize = 1000;

/// What the operator's routes need.
pub(super) struct Operator {
    pub engine: Engine,
    pub files: OnlineFiles,
    pub witnesses: Vec<WitnessClient>,
    pub store: Arc<SqliteStore>,
    pub objects: Arc<dyn Objects>,
    /// When the process began.
    pub started: Timestamp,
}

type Shared = State<Arc<Operator>>;

/// The operator's router.
pub(super) fn router(operator: Operator) -> Router {
    let engine = operator.engine.clone();
    Router::new()
        .route("/hospitals", post(enrol).get(hospitals))
        .route("/hospitals/{id}/standing", post(change_standing))
        .route("/overview", get(overview))
        .route("/backup", post(make_backup))
        .route("/reload", post(reload))
        .with_state(Arc::new(operator))
        .merge(super::renewal::admin(Renewals::new(engine)))
}

/// A standing as the registry's pages say it.
pub(super) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Suspended => "suspended",
        Standing::Revoked => "revoked",
    }
}

fn parse_standing(word: &str) -> Result<Standing, Problem> {
    match word {
        "active" => Ok(Standing::Active),
        "suspended" => Ok(Standing::Suspended),
        "revoked" => Ok(Standing::Revoked),
        _ => Err(Problem::malformed("standing is active, suspended or revoked")),
    }
}

/// Where a case stands, in a stable word.
#[must_use]
pub fn state_word(state: AuthorityState) -> &'static str {
    match state {
        AuthorityState::Issued => "issued",
        AuthorityState::Redeemed => "redeemed",
        AuthorityState::Lodged => "lodged",
        AuthorityState::KeyReleased => "key-released",
        AuthorityState::Ended(end) => end.as_str(),
    }
}

/// A hospital as the registry's pages say it.
pub(super) fn entry(hospital: &Enrolled) -> DirectoryEntry {
    let standing = standing_word(hospital.standing).to_owned();
    DirectoryEntry { id: hospital.id.to_string(), mailbox: hospital.mailbox.clone(), standing }
}

/// A hospital to be enrolled, or, with `replace`, to be enrolled again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// Its name.
    pub id: String,
    /// Its mailbox.
    pub mailbox: String,
    /// Whether it may take the place of one that is enrolled under this name.
    #[serde(default)]
    pub replace: bool,
}

/// What an enrolment did.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrolmentMade {
    /// The hospital as the registry has it now.
    pub hospital: DirectoryEntry,
    /// As the registry had it before, when it was replaced.
    pub replaced: Option<DirectoryEntry>,
}

async fn enrol(State(operator): Shared, body: Bytes) -> Result<Json<EnrolmentMade>, Problem> {
    let asked: EnrolmentRequest =
        serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected id, mailbox, replace"))?;
    let id = HospitalId::parse(&asked.id).map_err(|_| Problem::malformed("the id is not a hospital id"))?;
    let change = operator.engine.registry.enrol(&id, asked.mailbox, asked.replace).await.map_err(refused)?;
    let (now, before) = (&change.now, change.before.as_ref());
    match before {
        None => tracing::info!(hospital = %id, "a hospital was enrolled"),
        Some(before) => tracing::warn!(
            hospital = %id, mailbox_changed = before.mailbox != now.mailbox, standing = standing_word(now.standing),
            "an enrolled hospital was replaced: it is certified again"
        ),
    }
    Ok(Json(EnrolmentMade { hospital: entry(now), replaced: before.map(entry) }))
}

async fn hospitals(State(operator): Shared) -> Result<Json<Vec<DirectoryEntry>>, Problem> {
    let all = operator.engine.registry.all().await.map_err(|e| failed(&e))?;
    Ok(Json(all.iter().map(entry).collect()))
}

/// A new standing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingChange {
    /// `active`, `suspended` or `revoked`.
    pub standing: String,
}

/// Changes a standing, also of open cases: it is asked again at each step, last before a key is released.
async fn change_standing(
    State(operator): Shared,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<DirectoryEntry>, Problem> {
    let id = HospitalId::parse(&id).map_err(|_| Problem::not_found())?;
    let asked: StandingChange = serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected standing"))?;
    let standing = parse_standing(&asked.standing)?;
    let changed = operator.engine.registry.change_standing(&id, standing).await.map_err(refused)?.now;
    tracing::warn!(hospital = %changed.id, standing = standing_word(standing), "the standing of a hospital was changed");
    Ok(Json(entry(&changed)))
}

/// Why the registry stays as it is, for the operator.
fn refused(error: RegistryError) -> Problem {
    match error {
        RegistryError::Service(error) => failed(&error),
        RegistryError::Unknown(_) => {
            Problem::new(StatusCode::NOT_FOUND, "not-enrolled", "no hospital of this name is enrolled")
                .with_detail("see `authority status` for the names")
        }
        RegistryError::Enrolled(id) => {
            Problem::new(StatusCode::CONFLICT, "enrolled", "a hospital of this name is enrolled already").with_detail(
                format!(
                    "if {id} itself has other keys or another mailbox, and both were compared in person: --replace"
                ),
            )
        }
        RegistryError::Revoked(id) => Problem::new(StatusCode::CONFLICT, "revoked", "a revocation is for good")
            .with_detail(format!(
                "{id} stays revoked; whoever runs it makes new keys and is enrolled under another name"
            )),
    }
}

/// What `GET /overview` says: facts of this moment, counts only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    /// The authority.
    pub name: String,
    /// When the process began. Units: unix seconds.
    pub started: u64,
    /// The server's clock. Units: unix seconds.
    pub now: u64,
    /// The log.
    pub log: LogOverview,
    /// The witnesses, asked just now.
    pub witnesses: Vec<WitnessOverview>,
    /// How many of them must cosign.
    pub quorum: usize,
    /// The revocation list in force.
    pub crl: CrlOverview,
    /// The proof-signing certificate's end. Units: unix seconds.
    pub proof_signing_until: Option<u64>,
    /// Hospitals with their standing.
    pub hospitals: Vec<DirectoryEntry>,
    /// Cases by state.
    pub cases: BTreeMap<String, u64>,
    /// Letters that wait to be sent or to be answered.
    pub outbox: u64,
    /// Renewals that wait for the desk.
    pub renewals_waiting: usize,
}

/// The log of an [`Overview`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogOverview {
    /// The verifier key.
    pub key: String,
    /// Leaves stored, also those that no checkpoint covers yet.
    pub leaves: u64,
    /// Leaves in the tree.
    pub size: u64,
    /// Leaves whose answer was sent.
    pub answered: u64,
    /// The size of the newest cosigned checkpoint; 0 when there is none.
    pub cosigned_size: u64,
    /// When a quorum had seen it, by the witnesses' clocks. Units: unix seconds.
    pub cosigned_at: Option<u64>,
}

/// A witness of an [`Overview`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WitnessOverview {
    /// Its name.
    pub name: String,
    /// Its verifier key.
    pub key: String,
    /// Its URL.
    pub url: String,
    /// Why it cannot be reached, if it cannot.
    pub unreachable: Option<String>,
}

/// The revocation list of an [`Overview`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CrlOverview {
    /// Its number.
    pub number: u64,
    /// Until when it may be used. Units: unix seconds.
    pub until: u64,
}

async fn overview(State(operator): Shared) -> Result<Json<Overview>, Problem> {
    operator.overview().await.map(Json).map_err(|e| failed(&e))
}

impl Operator {
    async fn overview(&self) -> Result<Overview, ServiceError> {
        let party = &self.engine.party;
        let (policy, name, crl) = party.with_trust(|t| {
            let crl = CrlOverview { number: t.crl().number(), until: t.crl().next_update() };
            (t.log().clone(), t.authority().to_string(), crl)
        });
        let asked = self.witnesses.iter().map(|witness| async move {
            WitnessOverview {
                name: witness.key().name().to_string(),
                key: witness.key().to_string(),
                url: witness.url().to_owned(),
                unreachable: witness.reach().await.err().map(|e| chain(&e)),
            }
        });
        let (witnesses, log, cases) =
            tokio::join!(futures::future::join_all(asked), self.log_overview(&policy), self.case_counts());
        let hospitals = self.engine.registry.all().await?;
        Ok(Overview {
            name,
            started: self.started.0,
            now: party.clock.now_seconds(),
            log: log?,
            witnesses,
            quorum: policy.quorum(),
            crl,
            proof_signing_until: self.proof_signing_until(),
            hospitals: hospitals.iter().map(entry).collect(),
            cases: cases?,
            outbox: party.store.outbox_count().await?,
            renewals_waiting: Renewals::new(self.engine.clone()).waiting().await?.len(),
        })
    }

    async fn log_overview(&self, policy: &CheckpointPolicy) -> Result<LogOverview, ServiceError> {
        let party = &self.engine.party;
        let (row, _) = load_log(&self.engine).await?;
        let verified = row.cosigned.as_ref().and_then(|c| policy.verify(party.backend.as_ref(), &c.note).ok());
        Ok(LogOverview {
            key: policy.log_key().to_string(),
            leaves: party.store.leaf_count().await?,
            size: row.edge.size(),
            answered: row.answered,
            cosigned_size: row.cosigned.as_ref().map_or(0, |c| c.size),
            cosigned_at: verified.map(|v| v.cosigned_at().0),
        })
    }

    async fn case_counts(&self) -> Result<BTreeMap<String, u64>, ServiceError> {
        let (mut counts, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.engine.party.store.scan(Space::Case, &Key::empty(), after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(counts) };
            after = Some(last.clone());
            for (_, row) in &page {
                let case: AuthorityCase = read(row, "case")?;
                *counts.entry(state_word(case.state).to_owned()).or_insert(0) += 1;
            }
        }
    }

    fn proof_signing_until(&self) -> Option<u64> {
        let party = &self.engine.party;
        let keys = self.engine.keys.current();
        let chain = keys.keys.chain.certificates().ok()?;
        let profile = waybill_crypto::certificate::Profile::ProofSigning;
        let (backend, now) = (party.backend.as_ref(), party.clock.now_seconds());
        let verified = party.with_trust(|t| {
            waybill_crypto::certificate::verify_chain_offline(backend, t.anchor(), &chain, profile, now)
        });
        verified.ok().map(|certificate| certificate.not_after)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    to: PathBuf,
}

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupMade {
    /// Leaves of the log in the copy: it may be restored only while no witness has seen more.
    pub leaves: u64,
    /// Objects copied.
    pub objects: u64,
}

async fn make_backup(State(operator): Shared, body: Bytes) -> Result<Json<BackupMade>, Problem> {
    let asked: BackupRequest =
        serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected to: a folder"))?;
    let unusable = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "backup-failed", "the backup was not made").with_detail(detail)
    };
    if !asked.to.is_absolute() {
        return Err(unusable("the folder's path must be absolute".to_owned()));
    }
    let leaves = operator.engine.party.store.leaf_count().await.map_err(|e| failed(&e.into()))?;
    let objects = backup::copy(&operator.store, operator.objects.as_ref(), &asked.to).await;
    let objects = objects.map_err(|e| unusable(chain(&e)))?;
    Ok(Json(BackupMade { leaves, objects }))
}

async fn reload(State(operator): Shared) -> Result<StatusCode, Problem> {
    operator.files.reload(&operator.engine.party, &operator.engine.keys).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-reloaded", "what lies on disk is refused")
            .with_detail(chain(&error))
    })?;
    Ok(StatusCode::NO_CONTENT)
}

fn failed(error: &ServiceError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "an operator's request failed");
    Problem::unavailable()
}

/// An error with its causes, for the operator.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
