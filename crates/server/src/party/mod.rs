//! What authority and hospital share: the shell around the roles. Load, call the role, commit, send.

pub mod deadlines;
pub mod effects;
pub mod sweep;

use std::path::Path;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{PemLabel, from_pem};
use waybill_crypto::certificate::{Crl, TrustAnchor};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::CheckpointPolicy;
use waybill_protocol::messages::Chain;
use waybill_protocol::migration::Recipient;
use waybill_protocol::rejection::Rejection;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_store::{CommitError, ObjectError, Objects, Store, StoreError};

use crate::clock::Clock;
use crate::files;
use crate::mailbox::{Disposal, Letter, LetterHandler};
use crate::shell::StartError;

/// Storage, time, primitives and trust of one party.
#[derive(Clone)]
pub struct Party {
    /// Rows, outbox, timers, leaves.
    pub store: Arc<dyn Store>,
    /// Large bytes by content.
    pub objects: Arc<dyn Objects>,
    /// The only clock.
    pub clock: Arc<dyn Clock>,
    /// Primitives and randomness.
    pub backend: Arc<dyn Backend>,
    /// Whom this party believes.
    pub trust: Arc<RwLock<Trust>>,
}

impl Party {
    /// Time and primitives for one handler.
    #[must_use]
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx { now: Timestamp(self.clock.now_seconds()), backend: self.backend.as_ref() }
    }

    /// Puts a newer revocation list in place; an older one than the one held is not taken.
    pub fn renew_crl(&self, crl: Crl) {
        let mut trust = self.trust.write().expect("nobody panics while holding trust");
        if crl.number() >= trust.crl().number() {
            trust.renew_crl(crl);
        } else {
            tracing::error!("a revocation list older than the one held was refused");
        }
    }

    /// Runs something under the trust of this moment.
    pub fn with_trust<T>(&self, run: impl FnOnce(&Trust) -> T) -> T {
        run(&self.trust.read().expect("nobody panics while holding trust"))
    }
}

/// Finds mailboxes. Security: addresses of hospitals come from the authority's registry, never from a peer's message.
#[async_trait]
pub trait AddressBook: Send + Sync {
    /// The mailbox URL of a recipient; `None` when there is none that may be posted to.
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError>;
}

/// Why handling a parcel did not come to an end: the peer's fault, the environment's, or a race to run again.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The peer broke a rule. Final for this parcel.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Somebody changed the same row first: run again.
    #[error("another handler changed the row first")]
    Raced,
    /// The environment failed: run again later. The parcel stays where it is.
    #[error("{what} is not available")]
    Unavailable {
        /// Which resource.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Stored bytes do not read back: halt this case, never guess.
    #[error("a stored row does not read back: {0}")]
    Corrupt(&'static str),
}

impl ServiceError {
    /// Whether running again may help.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Raced | Self::Unavailable { .. })
    }

    /// Wraps a failure of the environment.
    pub fn unavailable(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { what, source: Box::new(source) }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::unavailable("the store", error)
    }
}

impl From<ObjectError> for ServiceError {
    fn from(error: ObjectError) -> Self {
        Self::unavailable("the object store", error)
    }
}

impl From<CommitError> for ServiceError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Raced,
            CommitError::Invalid(_) => Self::Corrupt("batch"),
            other => Self::unavailable("the store", other),
        }
    }
}

/// How often a handler is run again after losing a race before the parcel goes back to the mailbox.
const RACES: usize = 8;

/// Runs a handler again while it loses races.
///
/// # Errors
/// The handler's last error.
pub async fn run_again<T, F>(mut handler: impl FnMut() -> F) -> Result<T, ServiceError>
where
    F: Future<Output = Result<T, ServiceError>>,
{
    for _ in 1..RACES {
        match handler().await {
            Err(ServiceError::Raced) => tokio::task::yield_now().await,
            result => return result,
        }
    }
    handler().await
}

/// Relay addresses as prefixes that end at a path: `https://relay.example` must not admit `https://relay.example.evil`.
#[must_use]
pub fn below(relays: Vec<String>) -> Vec<String> {
    relays.into_iter().map(|relay| format!("{}/", relay.trim_end_matches('/'))).collect()
}

/// Hands letters to whoever handles parcels: a rejection is final, everything else is tried again.
pub struct Letters<H>(pub H);

/// Somebody who handles parcels.
#[async_trait]
pub trait ParcelHandler: Send + Sync {
    /// Handles one parcel.
    async fn handle_parcel(&self, bytes: &[u8]) -> Result<(), ServiceError>;

    /// Whether a parcel may take long, so that it is handled beside the others and in no order with them.
    fn takes_long(&self, _bytes: &[u8]) -> bool {
        false
    }
}

#[async_trait]
impl<H: ParcelHandler> LetterHandler for Letters<H> {
    fn takes_long(&self, letter: &Letter) -> bool {
        self.0.takes_long(&letter.body)
    }

    async fn handle(&self, letter: &Letter) -> Disposal {
        match self.0.handle_parcel(&letter.body).await {
            Ok(()) => Disposal::Done,
            Err(ServiceError::Rejected(rejection)) => {
                tracing::info!(code = %rejection.code, stage = rejection.code.stage().as_str(), "a parcel was refused");
                Disposal::Done
            }
            Err(error) if error.retryable() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a parcel waits");
                Disposal::Later
            }
            Err(error) => {
                // Its case is halted; the other cases go on.
                tracing::error!(error = &error as &dyn std::error::Error, "a parcel cannot be handled");
                Disposal::Done
            }
        }
    }
}

/// Trust from files: the pinned root, the newest revocation list, the log policy.
///
/// # Errors
/// [`StartError`] naming the file.
pub fn read_trust(
    backend: &dyn Backend,
    ctx_now: Timestamp,
    authority: HospitalId,
    root: &Path,
    crl: &[u8],
    chain: &Chain,
    policy: CheckpointPolicy,
) -> Result<Trust, StartError> {
    let anchor = TrustAnchor::from_der(&files::read_certificate(root)?)
        .map_err(|e| StartError::Config(format!("{} is not a root certificate: {e}", root.display())))?;
    let crl = read_crl(backend, ctx_now, &anchor, crl, chain)?;
    Ok(Trust::new(authority, anchor, policy, crl))
}

/// Verifies a revocation list in PEM under the issuing certificate of a chain.
///
/// # Errors
/// [`StartError::Config`] saying what is wrong with it.
pub fn read_crl(
    backend: &dyn Backend,
    now: Timestamp,
    anchor: &TrustAnchor,
    pem: &[u8],
    chain: &Chain,
) -> Result<Crl, StartError> {
    let bad = |what: &dyn std::fmt::Display| StartError::Config(format!("the revocation list cannot be used: {what}"));
    let certificates = chain.certificates().map_err(|e| bad(&e))?;
    let issuing = certificates.get(1).ok_or_else(|| bad(&"the chain has no issuing certificate"))?;
    let issuer = anchor.verify_issuer(issuing, now.0).map_err(|e| bad(&e))?;
    let der = from_pem(PemLabel::Crl, pem).map_err(|e| bad(&e))?;
    Crl::parse_and_verify(backend, &der, &issuer).map_err(|e| bad(&e))
}
