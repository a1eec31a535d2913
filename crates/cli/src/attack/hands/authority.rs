//! The authority's keys in the attacker's hands, together with its witness's: more than any claim of the protocol assumes.

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::{Issuer, KeySigner, PartyName, Profile, Subject};
use waybill_crypto::keys::{Digest, SigningKey, VerifyingKey};
use waybill_crypto::native::Native;
use waybill_protocol::authority::AuthorityKeys;
use waybill_protocol::ids::{MessageId, Nonce};
use waybill_protocol::log::tiles::{LogEdge, TileKind, TileSet};
use waybill_protocol::log::{Checkpoint, LeafKind, LogEvidence, NoteSigner, leaf_entry};
use waybill_protocol::messages::{Chain, MigrationProof, ProofBundle, SUITE, Terms};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_server::authority::ceremony::{self, Folder};
use waybill_server::{files, witness};

use crate::attack::scene::{OrFail as _, Scene, id};
use crate::courier::now;
use crate::demo::network::{AUTHORITY, WITNESS};
use crate::failure::Failure;

/// Every key of the authority and of its witness.
pub struct Authority {
    /// Signs proofs, grants, releases and statements; opens lodgements.
    pub keys: AuthorityKeys,
    log: NoteSigner,
    witness: NoteSigner,
    issuing_key: SigningKey,
    issuing: Vec<u8>,
    crl_url: String,
}

/// A log of our own making under the authority's real log key.
pub struct ForgedLog {
    edge: LogEdge,
    tiles: TileSet,
}

impl Default for ForgedLog {
    fn default() -> Self {
        Self { edge: LogEdge::empty(), tiles: TileSet::new() }
    }
}

impl Authority {
    /// Reads the keys from the folders; the processes run on.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn take(scene: &Scene) -> Result<Self, Failure> {
        let (place, online) = (scene.folder("authority"), scene.folder("authority").join("online"));
        let keys = AuthorityKeys {
            proof_signing: files::read_signing_key(&online.join("proof-signing.key"))
                .or_fail("no proof-signing key")?,
            lodgement: files::read_hpke_key(&online.join("lodgement.key")).or_fail("no lodgement key")?,
            chain: files::read_chain(&online.join("proof-signing.pem")).or_fail("no proof-signing chain")?,
        };
        let issuing = place.join("issuing");
        Ok(Self {
            keys,
            log: ceremony::log_signer(&Folder::new(&place), AUTHORITY).or_fail("no log key")?,
            witness: witness::load_key(&scene.folder("witness").join("witness.key"), WITNESS)
                .or_fail("no witness key")?,
            issuing_key: files::read_signing_key(&issuing.join("issuing.key")).or_fail("no issuing key")?,
            issuing: files::read_certificate(&issuing.join("issuing.pem")).or_fail("no issuing certificate")?,
            crl_url: ceremony::crl_url(AUTHORITY),
        })
    }

    /// Certifies any key under any name.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn certify(&self, name: &str, profile: Profile, key: &VerifyingKey) -> Result<Chain, Failure> {
        let signer = KeySigner { backend: &Native, key: &self.issuing_key };
        let issuer = Issuer::new(&Native, &signer, &self.issuing, &self.crl_url).or_fail("no issuer")?;
        let name = PartyName::parse(name).or_fail("no name")?;
        let subject = Subject { profile, name: &name, public_key: key, loopback: false };
        let issued = issuer.issue(&subject, now().0, 20 * 86_400).or_fail("a certificate cannot be issued")?;
        Ok(Chain::new([issued.der, self.issuing.clone()]))
    }

    /// A fresh key with a certificate of a hospital's name.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn impostor(&self, name: &str) -> Result<(SigningKey, Chain), Failure> {
        let key = Native.generate_signing_key();
        let chain = self.certify(name, Profile::HospitalSigning, key.public())?;
        Ok((key, chain))
    }

    /// A revocation list made at any time over any serial numbers, as PEM.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn revocation_list(
        &self,
        revoked: &[waybill_crypto::certificate::Revoked],
        number: u64,
        at: u64,
    ) -> Result<Vec<u8>, Failure> {
        let signer = KeySigner { backend: &Native, key: &self.issuing_key };
        let issuer = Issuer::new(&Native, &signer, &self.issuing, &self.crl_url).or_fail("no issuer")?;
        let der = issuer.issue_crl(revoked, number, at).or_fail("no revocation list")?;
        let pem = waybill_crypto::certificate::files::to_pem(waybill_crypto::certificate::files::PemLabel::Crl, &der);
        Ok(pem.or_fail("no revocation list")?.as_bytes().to_vec())
    }

    /// Appends a decision to a forged log; cosigned by the witness's real key, or by nobody.
    #[must_use]
    pub fn log(&self, log: &mut ForgedLog, kind: LeafKind, message: MessageId, cosigned: bool) -> LogEvidence {
        let mut nonce = [0; 16];
        Native.random(&mut nonce);
        let index = log.edge.size();
        let appended = log.edge.append(&[leaf_entry(kind, &message.0, &nonce)]);
        log.edge = appended.edge;
        for (path, bytes) in appended.tiles {
            if path.id.kind != TileKind::Entries {
                log.tiles.insert(path.id, &bytes).expect("a tile that was just made has its width");
            }
        }
        let root = log.edge.root();
        let checkpoint = Checkpoint { origin: self.log.public().name().clone(), size: log.edge.size(), root };
        let mut note = checkpoint.sign(&Native, &self.log);
        if cosigned {
            note.extend(self.witness.sign(&Native, &checkpoint.to_text(), now()).into_bytes());
        }
        let path = log.tiles.prove_inclusion(index, log.edge.size()).expect("the leaf was just appended");
        LogEvidence { index, nonce, path, checkpoint: note }
    }

    /// A consistency proof of a forged log with itself.
    #[must_use]
    pub fn consistency(&self, log: &ForgedLog, from: u64) -> Vec<Digest> {
        log.tiles.prove_consistency(from, log.edge.size()).unwrap_or_default()
    }

    /// A proof over any terms, signed with the real key, in a forged log.
    #[must_use]
    pub fn prove(&self, terms: Terms, delegation: MessageId, cosigned: bool) -> ProofBundle {
        let proof = MigrationProof { suite: SUITE, authority: id(AUTHORITY), delegation, terms, issued_at: now() };
        let proof = Signed::sign(&Native, &self.keys.proof_signing, proof);
        let evidence = self.log(&mut ForgedLog::default(), LeafKind::PROOF, proof.id(), cosigned);
        ProofBundle { proof: SignedBytes::from(&proof), chain: self.keys.chain.clone(), evidence }
    }
}

/// A random nonce.
#[must_use]
pub fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    Native.random(&mut bytes);
    Nonce(bytes)
}
