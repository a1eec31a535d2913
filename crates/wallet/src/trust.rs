//! Whom the wallet believes: one authority's root, its log and the witnesses of it, chosen when the wallet is made.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::certificate::{Crl, MAX_CRL_BYTES, TrustAnchor};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::CheckpointPolicy;
use waybill_protocol::messages::AuthorityStatementBody;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};

use crate::error::WalletError;
use crate::wallet::Wallet;

/// What pins an authority. The root never changes in a wallet; the newest revocation list and statement ride along.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TrustSettings {
    /// The authority's name.
    #[n(0)]
    pub authority: HospitalId,
    /// Its mailbox; empty until it is known.
    #[n(1)]
    pub authority_mailbox: String,
    /// Its root certificate, DER.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub root: Vec<u8>,
    /// Its log, and how many of which witnesses must have seen it: the reader's own choice.
    #[n(3)]
    pub log: CheckpointPolicy,
    #[n(4)]
    pub(crate) current: Option<Current>,
    /// Where it publishes revocation list and statement: `https://host[:port]`.
    #[n(5)]
    pub url: Option<String>,
}

impl fmt::Debug for TrustSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustSettings({})", self.authority)
    }
}

/// What the authority renews.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Current {
    #[cbor(n(0), with = "minicbor::bytes")]
    crl: Vec<u8>,
    #[n(1)]
    statement: AuthorityStatementBody,
}

impl TrustSettings {
    /// Pins an authority.
    #[must_use]
    pub fn new(authority: HospitalId, authority_mailbox: String, root: Vec<u8>, log: CheckpointPolicy) -> Self {
        Self { authority, authority_mailbox, root, log, current: None, url: None }
    }

    /// Says where the authority publishes what it renews.
    #[must_use]
    pub fn with_url(self, url: String) -> Self {
        Self { url: Some(url), ..self }
    }

    /// The newest statement of its online keys.
    pub(crate) fn statement(&self) -> Option<&AuthorityStatementBody> {
        self.current.as_ref().map(|current| &current.statement)
    }

    /// Verifies all of it, from the root down: issuing certificate, revocation list, statement of the online keys.
    fn build(&self, ctx: &Ctx<'_>, current: &Current) -> Result<(Trust, u64), WalletError> {
        let anchor = TrustAnchor::from_der(&self.root).map_err(|_| WalletError::TrustInvalid("root certificate"))?;
        let chain = current.statement.chain.certificates();
        let chain = chain.map_err(|_| WalletError::TrustInvalid("certificate chain"))?;
        let issuing = chain.get(1).ok_or(WalletError::TrustInvalid("certificate chain"))?;
        let issuer = anchor.verify_issuer(issuing, ctx.now.0);
        let issuer = issuer.map_err(|_| WalletError::TrustInvalid("issuing certificate"))?;
        let crl = Crl::parse_and_verify(ctx.backend, &current.crl, &issuer);
        let crl = crl.map_err(|_| WalletError::TrustInvalid("revocation list"))?;
        let number = crl.number();
        let mut trust = Trust::new(self.authority.clone(), anchor, self.log.clone(), crl);
        trust.accept_statement(ctx, &current.statement)?;
        Ok((trust, number))
    }
}

impl Wallet {
    /// The pinned authority.
    #[must_use]
    pub fn trust_settings(&self) -> Option<&TrustSettings> {
        self.state.trust.as_ref()
    }

    /// Pins the authority, or changes its mailbox or the choice of witnesses.
    ///
    /// # Errors
    /// [`WalletError::OtherAuthority`] for another name or root than the one pinned, [`WalletError::TrustInvalid`] for a root
    /// that is none, [`crate::FileError`].
    pub fn set_trust(&mut self, settings: TrustSettings) -> Result<(), WalletError> {
        TrustAnchor::from_der(&settings.root).map_err(|_| WalletError::TrustInvalid("root certificate"))?;
        let pinned = self.state.trust.as_ref();
        if pinned.is_some_and(|known| known.authority != settings.authority || known.root != settings.root) {
            return Err(WalletError::OtherAuthority);
        }
        let current = settings.current.clone().or_else(|| pinned.and_then(|known| known.current.clone()));
        self.commit(|state| state.trust = Some(TrustSettings { current, ..settings }))?;
        self.trust = None;
        Ok(())
    }

    /// Takes a newer revocation list (DER) and the authority's statement of its online keys (CBOR).
    ///
    /// # Errors
    /// [`WalletError::NoTrust`]; [`WalletError::TrustInvalid`] and [`WalletError::Rejected`] for anything not under the pinned
    /// root, out of date, or older than what is known; [`crate::FileError`].
    pub fn renew_trust(&mut self, now: Timestamp, crl: &[u8], statement: &[u8]) -> Result<(), WalletError> {
        if crl.len() > MAX_CRL_BYTES {
            return Err(WalletError::TrustInvalid("revocation list"));
        }
        let statement: AuthorityStatementBody = from_cbor("authority statement", statement, MAX_PARCEL_BYTES)
            .map_err(|_| WalletError::TrustInvalid("authority statement"))?;
        let current = Current { crl: crl.to_vec(), statement };
        let settings = self.state.trust.as_ref().ok_or(WalletError::NoTrust)?;
        let ctx = Ctx { now, backend: &*self.backend };
        let (trust, number) = settings.build(&ctx, &current)?;
        // A list from before a revocation would bring the revoked back.
        let known = settings.current.as_ref().and_then(|known| settings.build(&ctx, known).ok());
        if known.is_some_and(|(_, known)| number < known) {
            return Err(WalletError::TrustInvalid("revocation list, older than the one known"));
        }
        self.commit(|state| {
            if let Some(settings) = &mut state.trust {
                settings.current = Some(current);
            }
        })?;
        self.trust = Some(trust);
        Ok(())
    }

    /// Whether what the file holds is good enough to judge proofs and statements by: an authority that cannot be reached for a
    /// while must not stop the patient.
    pub fn has_usable_trust(&mut self, now: Timestamp) -> bool {
        self.ready_trust(now).is_ok()
    }

    /// Makes [`Wallet::trust`] ready from what the file holds.
    pub(crate) fn ready_trust(&mut self, now: Timestamp) -> Result<(), WalletError> {
        if self.trust.is_none() {
            let settings = self.state.trust.as_ref().ok_or(WalletError::NoTrust)?;
            let current = settings.current.as_ref().ok_or(WalletError::TrustInvalid("it was never fetched"))?;
            self.trust = Some(settings.build(&Ctx { now, backend: &*self.backend }, current)?.0);
        }
        Ok(())
    }
}
