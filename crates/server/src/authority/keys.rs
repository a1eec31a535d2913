//! The authority's online keys, with the signed description of them, replaced as a whole when a certificate was renewed.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use waybill_protocol::authority::AuthorityKeys;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::log::NoteKey;
use waybill_protocol::messages::{AuthorityStatement, AuthorityStatementBody, SUITE};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::trust::Ctx;

use super::ceremony::Folder;
use crate::files;
use crate::party::{Party, read_crl};
use crate::shell::StartError;

/// Keys and their description, of one moment.
pub struct Current {
    /// The keys.
    pub keys: AuthorityKeys,
    /// What everybody is told of them.
    pub statement: AuthorityStatementBody,
}

/// The keys that answer online.
#[derive(Clone)]
pub struct OnlineKeys(Arc<RwLock<Arc<Current>>>);

impl OnlineKeys {
    /// Begins with these.
    #[must_use]
    pub fn new(current: Current) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(current))))
    }

    /// The keys for whatever is done next.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.0.read().expect("nobody panics while holding the keys").clone()
    }

    fn replace(&self, current: Current) {
        *self.0.write().expect("nobody panics while holding the keys") = Arc::new(current);
    }
}

/// Where the online files lie, and of whom they are.
#[derive(Debug, Clone)]
pub struct OnlineFiles {
    /// The folder that `authority init` made.
    pub folder: Folder,
    /// The authority.
    pub name: HospitalId,
    /// The key of its log.
    pub log: NoteKey,
}

impl OnlineFiles {
    /// The revocation list.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.folder.crl()
    }

    /// Reads the keys and describes them.
    ///
    /// # Errors
    /// [`StartError`] naming the file.
    pub fn read(&self, ctx: &Ctx<'_>) -> Result<Current, StartError> {
        let keys = AuthorityKeys {
            proof_signing: files::read_signing_key(&self.folder.join("online/proof-signing.key"))?,
            lodgement: files::read_hpke_key(&self.folder.join("online/lodgement.key"))?,
            chain: files::read_chain(&self.folder.join("online/proof-signing.pem"))?,
        };
        let statement = describe(ctx, &self.name, &keys, &self.log);
        Ok(Current { keys, statement })
    }

    /// Puts a renewed proof-signing certificate and a renewed revocation list in place, as they lie on disk.
    ///
    /// # Errors
    /// [`StartError`]; what was in use stays in use.
    pub fn reload(&self, party: &Party, online: &OnlineKeys) -> Result<(), StartError> {
        let now = party.ctx().now;
        let chain = online.current().keys.chain.clone();
        let pem = files::read(&self.crl())?;
        let crl = party.with_trust(|t| read_crl(party.backend.as_ref(), now, t.anchor(), &pem, &chain))?;
        party.renew_crl(crl);
        let chain_on_disk = files::read_chain(&self.folder.join("online/proof-signing.pem"))?;
        if chain_on_disk == chain {
            return Ok(());
        }
        let fresh = self.read(&party.ctx())?;
        let held = online.current();
        let same = fresh.keys.proof_signing.public() == held.keys.proof_signing.public()
            && fresh.keys.lodgement.public() == held.keys.lodgement.public();
        if !same {
            return Err(StartError::Config("the online keys on disk are other ones: restart the authority".to_owned()));
        }
        let mut trust = party.trust.write().expect("nobody panics while holding trust");
        trust
            .accept_statement(&party.ctx(), &fresh.statement)
            .map_err(|e| StartError::Config(format!("the renewed proof-signing certificate is refused: {e}")))?;
        drop(trust);
        online.replace(fresh);
        tracing::info!("the proof-signing certificate was renewed");
        Ok(())
    }
}

fn describe(ctx: &Ctx<'_>, name: &HospitalId, keys: &AuthorityKeys, log: &NoteKey) -> AuthorityStatementBody {
    let statement = AuthorityStatement {
        suite: SUITE,
        authority: name.clone(),
        lodgement_key: *keys.lodgement.public(),
        log_origin: log.name().as_str().to_owned(),
        log_key: *log.public_key(),
        time: ctx.now,
    };
    let signed = Signed::sign(ctx.backend, &keys.proof_signing, statement);
    AuthorityStatementBody { statement: SignedBytes::from(&signed), chain: keys.chain.clone() }
}
