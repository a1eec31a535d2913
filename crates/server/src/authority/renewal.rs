//! The queue between hospitals that need their certificates renewed and the desk that signs: hospitals post requests over their
//! mutual-TLS identity, the desk reads and answers over the admin socket, hospitals fetch the chains.
//!
//! The server signs nothing here and admits little: who asks has shown the TLS key in the handshake, is in good standing, and proves
//! both keys. Whether they are the keys it had before, the desk decides by its own memory.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use waybill_crypto::certificate::{Profile, verify_chain};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::messages::Standing;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Space};

use super::desk::read_request_pair;
use super::engine::Engine;
use crate::limits::{BodyLimit, read_body};
use crate::net::peer::Peer;
use crate::party::ServiceError;
use crate::problem::Problem;

/// Two requests in PEM, or two chains, in JSON.
const BODY: BodyLimit = BodyLimit { max_bytes: 32 * 1024, timeout: Duration::from_secs(10) };
/// Least time between two requests of one hospital. Units: seconds.
const PAUSE_SECONDS: u64 = 60;
/// Most requests shown to the desk at once; the rest follows when these are answered.
const PAGE: usize = 1000;

/// What a hospital asks to have certified again: two requests in PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// For the key of its TLS certificate.
    pub tls: String,
    /// For the key of its signing certificate.
    pub signing: String,
}

/// What `GET /renewal` says to the hospital that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RenewalState {
    /// Nothing was asked.
    None,
    /// The desk has not answered yet.
    Waiting {
        /// When it was asked. Units: unix seconds.
        since: u64,
    },
    /// Two chains in PEM, leaf first.
    Issued {
        /// For TLS.
        tls: String,
        /// For messages.
        signing: String,
    },
    /// The desk refuses; a person must look.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// A request as the desk sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingRenewal {
    /// Who asks, by its TLS certificate.
    pub hospital: String,
    /// Its standing now: `active`, `suspended`, `revoked`.
    pub standing: String,
    /// When it asked. Units: unix seconds.
    pub since: u64,
    /// What it asks.
    pub request: RenewalRequest,
}

/// The desk's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum DeskAnswer {
    /// Two chains in PEM, leaf first.
    Issued {
        /// For TLS.
        tls: String,
        /// For messages.
        signing: String,
    },
    /// No.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// A hospital's row in the queue.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    hospital: HospitalId,
    #[n(1)]
    since: Timestamp,
    /// The requests.
    #[n(2)]
    asked: (String, String),
    /// The chains.
    #[n(3)]
    issued: Option<(String, String)>,
    #[n(4)]
    refused: Option<String>,
}

impl Row {
    fn is_waiting(&self) -> bool {
        self.issued.is_none() && self.refused.is_none()
    }
}

fn prefix() -> Key {
    Key::build().text("renewal").done()
}

fn row_of(id: &HospitalId) -> Key {
    Key::build().text("renewal").text(id.as_str()).done()
}

/// The queue over the authority's store.
#[derive(Clone)]
pub struct Renewals {
    engine: Engine,
}

impl Renewals {
    /// The queue of an authority.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn load(&self, id: &HospitalId) -> Result<Option<Row>, ServiceError> {
        let Some(found) = self.engine.party.store.load(Space::Certificate, &row_of(id)).await? else { return Ok(None) };
        from_cbor("renewal", &found.value, 2 * BODY.max_bytes).map(Some).map_err(|_| ServiceError::Corrupt("renewal"))
    }

    async fn put(&self, row: &Row) -> Result<(), ServiceError> {
        let batch = Batch::new("renewal").put(Space::Certificate, row_of(&row.hospital), to_cbor(row), Expect::Any);
        self.engine.party.store.commit(batch).await?;
        Ok(())
    }

    /// Takes a hospital's request. `chain` is the certificate chain that it showed in the TLS handshake.
    ///
    /// # Errors
    /// A [`Problem`]: not a hospital of ours in good standing, a request that proves nothing, another key than that of the handshake,
    /// or too soon after the last.
    pub async fn ask(&self, chain: &[&[u8]], request: RenewalRequest) -> Result<(), Problem> {
        let id = self.hospital(chain).await?;
        let party = &self.engine.party;
        let now = party.ctx().now;
        let refused = |why: String| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "renewal-refused", "the renewal cannot be queued")
                .with_detail(why)
        };
        let pair = read_request_pair(party.backend.as_ref(), request.tls.as_bytes(), request.signing.as_bytes());
        let (tls, _) = pair.map_err(|e| refused(e.to_string()))?;
        let held = self.verify(chain).ok_or_else(stranger)?;
        if tls.name.as_str() != id.as_str() || tls.public_key != held.public_key {
            return Err(refused("the requests are not for the name and the key of the TLS certificate".to_owned()));
        }
        if let Some(row) = self.load(&id).await.map_err(|e| failed(&e))? {
            let next = row.since.plus(PAUSE_SECONDS);
            if now < next {
                return Err(Problem::too_many(next.0 - now.0));
            }
        }
        let asked = (request.tls, request.signing);
        let row = Row { hospital: id, since: now, asked, issued: None, refused: None };
        self.put(&row).await.map_err(|e| failed(&e))
    }

    /// What became of a hospital's request.
    ///
    /// # Errors
    /// A [`Problem`] as for [`Self::ask`].
    pub async fn state(&self, chain: &[&[u8]]) -> Result<RenewalState, Problem> {
        let id = self.hospital(chain).await?;
        Ok(match self.load(&id).await.map_err(|e| failed(&e))? {
            None => RenewalState::None,
            Some(Row { issued: Some((tls, signing)), .. }) => RenewalState::Issued { tls, signing },
            Some(Row { refused: Some(reason), .. }) => RenewalState::Refused { reason },
            Some(Row { since, .. }) => RenewalState::Waiting { since: since.0 },
        })
    }

    /// What waits for the desk.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn waiting(&self) -> Result<Vec<WaitingRenewal>, ServiceError> {
        let rows = self.engine.party.store.scan(Space::Certificate, &prefix(), None, PAGE).await?;
        let mut waiting = Vec::new();
        for (_, stored) in rows {
            let row: Row = from_cbor("renewal", &stored.value, 2 * BODY.max_bytes)
                .map_err(|_| ServiceError::Corrupt("renewal"))?;
            if !row.is_waiting() {
                continue;
            }
            let standing = self.engine.registry.find(&row.hospital).await?.map(|h| h.standing);
            waiting.push(WaitingRenewal {
                hospital: row.hospital.to_string(),
                standing: standing.map_or("unknown", super::operator::standing_word).to_owned(),
                since: row.since.0,
                request: RenewalRequest { tls: row.asked.0, signing: row.asked.1 },
            });
        }
        Ok(waiting)
    }

    /// Puts the desk's answer where the hospital finds it; `false` when nothing waits for one.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn answer(&self, id: &HospitalId, answer: DeskAnswer) -> Result<bool, ServiceError> {
        let Some(row) = self.load(id).await?.filter(Row::is_waiting) else { return Ok(false) };
        let answered = match answer {
            DeskAnswer::Issued { tls, signing } => Row { issued: Some((tls, signing)), ..row },
            DeskAnswer::Refused { reason } => Row { refused: Some(reason), ..row },
        };
        self.put(&answered).await?;
        Ok(true)
    }

    fn verify(&self, chain: &[&[u8]]) -> Option<waybill_crypto::certificate::VerifiedCertificate> {
        let party = &self.engine.party;
        let now = party.ctx().now.0;
        let backend = party.backend.as_ref();
        party.with_trust(|t| verify_chain(backend, t.anchor(), chain, Profile::HospitalTls, now, t.crl()).ok())
    }

    /// The enrolled hospital in good standing that showed this chain. Everybody else gets one answer.
    async fn hospital(&self, chain: &[&[u8]]) -> Result<HospitalId, Problem> {
        let held = self.verify(chain).ok_or_else(stranger)?;
        let id = HospitalId::parse(&held.subject).map_err(|_| stranger())?;
        let enrolled = self.engine.registry.find(&id).await.map_err(|e| failed(&e))?;
        match enrolled {
            Some(hospital) if hospital.standing == Standing::Active => Ok(id),
            _ => Err(stranger()),
        }
    }
}

fn stranger() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "not-enrolled", "only an enrolled hospital in good standing may ask")
}

fn failed(error: &ServiceError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "the renewal queue failed");
    Problem::unavailable()
}

/// The hospitals' side, on the public listener.
pub(super) fn public(renewals: Renewals) -> Router {
    Router::new().route("/renewal", post(ask).get(state)).layer(DefaultBodyLimit::disable()).with_state(renewals)
}

/// The desk's side, on the admin socket only.
pub(super) fn admin(renewals: Renewals) -> Router {
    Router::new().route("/renewals", get(waiting)).route("/renewals/{id}", post(answer)).with_state(renewals)
}

fn shown(peer: &Peer) -> Vec<&[u8]> {
    peer.party.iter().flat_map(|party| party.chain.iter().map(|der| der.as_ref())).collect()
}

async fn ask(
    State(renewals): State<Renewals>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<StatusCode, Problem> {
    if peer.party.is_none() {
        return Err(stranger());
    }
    let body = read_body(body, BODY).await?;
    let request =
        serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected tls and signing, each in PEM"))?;
    renewals.ask(&shown(&peer), request).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn state(State(renewals): State<Renewals>, Extension(peer): Extension<Peer>) -> Result<Response, Problem> {
    Ok(Json(renewals.state(&shown(&peer)).await?).into_response())
}

async fn waiting(State(renewals): State<Renewals>) -> Result<Json<Vec<WaitingRenewal>>, Problem> {
    renewals.waiting().await.map(Json).map_err(|e| failed(&e))
}

async fn answer(
    State(renewals): State<Renewals>,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Result<StatusCode, Problem> {
    let id = HospitalId::parse(&id).map_err(|_| Problem::not_found())?;
    let answer =
        serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected tls and signing, or a reason"))?;
    match renewals.answer(&id, answer).await.map_err(|e| failed(&e))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}
