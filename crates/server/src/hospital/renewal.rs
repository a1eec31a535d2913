//! The hospital keeps its certificates good while it runs: asked for from the tenth day on, fetched, verified, and put in place
//! without a restart. The keys stay the same; a change of keys is another matter (`key_change`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use waybill_crypto::certificate::files::{PemLabel, chain_from_pem, to_pem};
use waybill_crypto::certificate::{
    CertificateError, PartyName, Profile, RequestError, VerifiedCertificate, create_csr, verify_chain,
    verify_chain_offline,
};
use waybill_crypto::keys::SigningKey;
use waybill_protocol::messages::{AuthorityStatementBody, Chain};
use waybill_protocol::wire::from_cbor;

use super::engine::Engine;
use crate::authority::renewal::{RenewalRequest, RenewalState};
use crate::files::{self, FileError};
use crate::net::client::{ClientError, Exchange, HttpClient};
use crate::net::tls::{ClientTls, TlsError};
use crate::problem::Problem;

/// How often is looked whether something is due, or was answered.
const INTERVAL: Duration = Duration::from_secs(3600);
/// A certificate of 30 days is renewed from its tenth day on: then at most this much is left of it. Units: seconds.
const DUE_SECONDS: u64 = 20 * 86_400;
const EXCHANGE: Exchange = Exchange { timeout: Duration::from_secs(30), max_response: 2 * 1024 * 1024 };

/// Why certificates were not renewed this time. It is tried again; the old ones serve until their end.
#[derive(Debug, Error)]
pub enum RenewalError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority did not answer, or refuses.
    #[error("the authority cannot be asked")]
    Exchange(#[from] ClientError),
    /// A request could not be made.
    #[error("no certificate request could be made")]
    Request(#[from] RequestError),
    /// What came back is not a certificate for our name and key.
    #[error("the chain that came back is refused")]
    Certificate(#[from] CertificateError),
    /// What came back is for another name or key, ends no later, or is no answer at all.
    #[error("the authority's answer is not ours: {0}")]
    Answer(&'static str),
    /// The new certificate does not fit the key.
    #[error("the renewed certificate cannot be used for TLS")]
    Tls(#[from] TlsError),
}

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "renewal", rename_all = "kebab-case")]
pub enum Outcome {
    /// Both certificates are good for long.
    NotDue {
        /// The earlier end. Units: unix seconds.
        until: u64,
    },
    /// The desk was asked, and has not answered yet.
    Asked,
    /// The desk refuses; a person must look.
    Refused {
        /// Why.
        reason: String,
    },
    /// New certificates are in use.
    Renewed {
        /// The earlier end. Units: unix seconds.
        until: u64,
    },
}

/// Everything a renewal touches.
pub(super) struct Renewal {
    pub engine: Engine,
    pub http: HttpClient,
    pub tls: Arc<ClientTls>,
    /// The folder with `tls.*` and `signing.*`.
    pub keys: PathBuf,
    /// The authority's URL.
    pub authority: String,
}

/// Looks every hour until shutdown.
pub(super) async fn run(renewal: Arc<Renewal>, shutdown: CancellationToken) {
    loop {
        match renewal.look(false).await {
            Ok(Outcome::Refused { reason }) => tracing::error!(reason, "the desk refuses to renew the certificates"),
            Ok(Outcome::Renewed { until }) => tracing::info!(until, "certificates were renewed"),
            Ok(Outcome::NotDue { .. } | Outcome::Asked) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "certificates were not renewed; it is tried again"
                );
            }
        }
        if let Err(error) = renewal.renew_statement().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the authority's statement was not renewed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// `POST /renewal` of the hospital's admin socket: looks now, due or not.
pub(super) fn router(renewal: Arc<Renewal>) -> Router {
    let look = move || {
        let renewal = renewal.clone();
        async move {
            renewal.look(true).await.map(Json).map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "certificates were not renewed");
                Problem::unavailable().with_detail(super::chain(&error))
            })
        }
    };
    Router::new().route("/renewal", post(look))
}

impl Renewal {
    /// Takes the next step: nothing when nothing is due (unless forced), else asks, or takes what was answered.
    ///
    /// # Errors
    /// [`RenewalError`]; what was in use stays in use.
    pub async fn look(&self, force: bool) -> Result<Outcome, RenewalError> {
        let held = [self.held("tls", Profile::HospitalTls)?, self.held("signing", Profile::HospitalSigning)?];
        let until = held.iter().map(|leaf| leaf.not_after).min().unwrap_or_default();
        if !force && until > self.engine.party.clock.now_seconds() + DUE_SECONDS {
            return Ok(Outcome::NotDue { until });
        }
        let state: RenewalState =
            serde_json::from_slice(&self.exchange(Request::get(self.url("/renewal")), Bytes::new()).await?)
                .map_err(|_| RenewalError::Answer("not of the expected form"))?;
        match state {
            RenewalState::Waiting { .. } => Ok(Outcome::Asked),
            // Fresh ones, not those of the last time.
            RenewalState::Issued { tls, signing } if self.is_newer(&tls, &held[0]) => {
                self.install(&tls, &signing, &held).map(|until| Outcome::Renewed { until })
            }
            // Asked again all the same: what the desk refused today, a suspension for example, may be over tomorrow.
            RenewalState::Refused { reason } if !force => {
                self.ask().await?;
                Ok(Outcome::Refused { reason })
            }
            RenewalState::None | RenewalState::Issued { .. } | RenewalState::Refused { .. } => {
                self.ask().await?;
                Ok(Outcome::Asked)
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.authority.trim_end_matches('/'))
    }

    async fn exchange(&self, request: axum::http::request::Builder, body: Bytes) -> Result<Bytes, ClientError> {
        let request = request.body(body).map_err(|_| ClientError::Url)?;
        Ok(self.http.send(request, EXCHANGE).await?.body)
    }

    fn key(&self, stem: &str) -> Result<SigningKey, FileError> {
        files::read_signing_key(&self.keys.join(stem).with_extension("key"))
    }

    fn held(&self, stem: &str, profile: Profile) -> Result<VerifiedCertificate, RenewalError> {
        let party = &self.engine.party;
        let chain = files::read_chain(&self.keys.join(stem).with_extension("pem"))?;
        let chain = chain.certificates().map_err(|_| RenewalError::Answer("the chain on disk is none"))?;
        let (backend, now) = (party.backend.as_ref(), party.clock.now_seconds());
        Ok(party.with_trust(|t| verify_chain_offline(backend, t.anchor(), &chain, profile, now))?)
    }

    fn is_newer(&self, pem: &str, held: &VerifiedCertificate) -> bool {
        self.verified(pem, held.profile)
            .is_ok_and(|leaf| leaf.serial != held.serial && leaf.not_after >= held.not_after)
    }

    fn verified(&self, pem: &str, profile: Profile) -> Result<VerifiedCertificate, RenewalError> {
        let party = &self.engine.party;
        let chain = chain_from_pem(pem.as_bytes()).map_err(|_| RenewalError::Answer("not a chain in PEM"))?;
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let (backend, now) = (party.backend.as_ref(), party.clock.now_seconds());
        Ok(party.with_trust(|t| verify_chain(backend, t.anchor(), &chain, profile, now, t.crl()))?)
    }

    /// Asks for both certificates, for the keys that we have.
    async fn ask(&self) -> Result<(), RenewalError> {
        let backend = self.engine.party.backend.as_ref();
        let name = PartyName::parse(self.engine.identities.current().id.as_str())
            .map_err(|_| RenewalError::Answer("our own name is none"))?;
        let request = |stem: &str, profile| -> Result<String, RenewalError> {
            let csr = create_csr(backend, &self.key(stem)?, &name, profile, false)?;
            let pem = to_pem(PemLabel::Request, &csr).map_err(|_| RequestError::Malformed)?;
            Ok(pem.to_string())
        };
        let asked = RenewalRequest {
            tls: request("tls", Profile::HospitalTls)?,
            signing: request("signing", Profile::HospitalSigning)?,
        };
        let body = serde_json::to_vec(&asked).expect("two texts are JSON");
        self.exchange(Request::post(self.url("/renewal")), body.into()).await?;
        Ok(())
    }

    /// Puts both chains in place: on disk, each in one step, then in the running server. Gives the earlier end.
    fn install(&self, tls: &str, signing: &str, held: &[VerifiedCertificate; 2]) -> Result<u64, RenewalError> {
        let fresh = [self.verified(tls, Profile::HospitalTls)?, self.verified(signing, Profile::HospitalSigning)?];
        for (new, old) in fresh.iter().zip(held) {
            if new.subject != old.subject || new.public_key != old.public_key {
                return Err(RenewalError::Answer("for another name or another key"));
            }
            if new.not_after < old.not_after {
                return Err(RenewalError::Answer("it ends before the one held"));
            }
        }
        write(&self.keys.join("signing.pem"), signing)?;
        write(&self.keys.join("tls.pem"), tls)?;
        let chain = files::read_chain(&self.keys.join("signing.pem"))?;
        self.take_into_use(&chain);
        self.tls.reload()?;
        Ok(fresh[0].not_after.min(fresh[1].not_after))
    }

    fn take_into_use(&self, chain: &Chain) {
        let current = self.engine.identities.current();
        self.engine.identities.renew_chain(&current.keys().thumb(), chain);
    }

    /// The authority's own proof-signing certificate is renewed, too: its statement brings the new one.
    async fn renew_statement(&self) -> Result<(), RenewalError> {
        let page = self.exchange(Request::get(self.url("/statement")), Bytes::new()).await?;
        let statement: AuthorityStatementBody = from_cbor("authority statement", &page, EXCHANGE.max_response)
            .map_err(|_| RenewalError::Answer("not an authority's statement"))?;
        let party = &self.engine.party;
        let mut trust = party.trust.write().expect("nobody panics while holding trust");
        trust.accept_statement(&party.ctx(), &statement).map_err(|_| RenewalError::Answer("its statement is refused"))
    }
}

fn write(path: &Path, pem: &str) -> Result<(), FileError> {
    files::write_public(path, pem.as_bytes())
}
