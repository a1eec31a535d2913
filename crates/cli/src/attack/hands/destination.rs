//! Hospital B in the attacker's hands: asks A for a record, and reads as much of it as it can.

use std::time::{Duration, Instant};

use waybill_crypto::backend::Backend as _;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, HpkeSecretKey, SigningKey};
use waybill_crypto::native::Native;
use waybill_crypto::stream::{RecordKey, StreamKeys, open_chunk};
use waybill_protocol::ids::{ManifestId, Nonce, ProofId, SessionId};
use waybill_protocol::messages::{
    Chain, DeliveryBody, DeliveryReceipt, Manifest, ManifestBody, ManifestPlain, ProofBundle, RefusalBody, ReleaseBody,
    TransferBody, TransferRequest,
};
use waybill_protocol::registrar::HospitalIdentity;
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_record::frame::{FrameReader, FramedResource};
use waybill_record::identity::Demographics;
use waybill_store::Address;

use super::patient::seal;
use super::{Case, Patient, identity};
use crate::attack::outcome::{Measured, Seen};
use crate::attack::scene::{Mailbox, OrFail as _, PATIENCE, Scene};
use crate::courier::now;
use crate::failure::Failure;

/// Hospital B with its real keys; its process is stopped.
pub struct Destination {
    /// Its keys.
    pub identity: HospitalIdentity,
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// Length of the letter that was heard last.
    pub last_bytes: usize,
    /// Bytes of records that were read, with their manifests.
    read_bytes: u64,
    /// How many of them for requests that had to be refused.
    stolen_bytes: u64,
}

/// Everything that goes into a transfer request, honest until something is altered.
pub struct Ask {
    /// The proof that is shown.
    pub proof: ProofBundle,
    /// The proof that the request names.
    pub proof_id: ProofId,
    /// The sealed consent that is shown.
    pub consent: SealedBytes,
    /// The consent that the request names.
    pub consent_hash: Digest,
    /// Who signs.
    pub signing: SigningKey,
    /// The keys that the request names.
    pub keys: HospitalKeys,
    /// The chain beside it.
    pub chain: Chain,
    /// The person whom B says it treats.
    pub claim: Demographics,
    /// To whom the claim is sealed.
    pub claim_to: HpkePublicKey,
    /// The one-time key.
    pub session_key: HpkeSecretKey,
    /// The attempt.
    pub attempt: u32,
}

/// One transfer request that was made.
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The case.
    pub proof: ProofId,
    /// The secret half of its one-time key.
    pub secret: HpkeSecretKey,
    /// What is posted.
    pub body: TransferBody,
}

/// A manifest that opened under a one-time key of ours.
pub struct Listed {
    /// Its id.
    pub id: ManifestId,
    /// What it says.
    pub said: Manifest,
    /// The signed bytes.
    pub signed: SignedBytes<Manifest>,
}

/// What comes back from A.
pub enum Heard {
    /// A signed manifest.
    Manifest(Box<Listed>),
    /// A refusal signed by A: its public code, and what is sealed in it to the counterpart.
    Refused(Code, Option<Code>),
}

impl Ask {
    /// The honest request of a case.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn honest(destination: &Destination, patient: &Patient, case: &Case) -> Result<Self, Failure> {
        let consent = patient.seal_consent(patient.consent(case))?;
        Ok(Self {
            proof: case.proof().clone(),
            proof_id: case.id(),
            consent_hash: consent.digest(),
            consent,
            signing: destination.identity.signing.clone(),
            keys: destination.identity.keys(),
            chain: destination.identity.chain.clone(),
            claim: patient.sample.demographics.clone(),
            claim_to: patient.a.keys.hpke,
            session_key: Native.generate_hpke_key(),
            attempt: 1,
        })
    }

    /// Shows another sealed consent, and names it.
    pub fn show_consent(&mut self, consent: SealedBytes) {
        (self.consent_hash, self.consent) = (consent.digest(), consent);
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn sign(self) -> Result<Session, Failure> {
        let mut nonce = [0; 16];
        Native.random(&mut nonce);
        let bound = sha256(&[self.proof_id.as_bytes(), &self.session_key.public().0]);
        let identity_claim = seal(&self.claim_to, SealPurpose::IdentityClaim, bound.as_bytes(), &to_cbor(&self.claim))?;
        let request = TransferRequest {
            proof: self.proof_id,
            consent: self.consent_hash,
            session_key: *self.session_key.public(),
            attempt: self.attempt,
            nonce: Nonce(nonce),
            time: now(),
            identity_claim,
            keys: self.keys,
        };
        let request = Signed::sign(&Native, &self.signing, request);
        let id = SessionId(request.id().0);
        let body = TransferBody {
            request: SignedBytes::from(&request),
            chain: self.chain,
            proof: self.proof,
            consent: self.consent,
        };
        Ok(Session { id, proof: self.proof_id, secret: self.session_key, body })
    }
}

impl Destination {
    /// Stops B's process and takes its keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn take(scene: &mut Scene) -> Result<Self, Failure> {
        scene.servant("hospital-b").kill()?;
        Ok(Self {
            identity: identity(scene, "hospital-b")?,
            mailbox: scene.mailbox_of("hospital-b").await?,
            last_bytes: 0,
            read_bytes: 0,
            stolen_bytes: 0,
        })
    }

    /// What was read for requests that had to be refused, beside what was read for honest ones.
    #[must_use]
    pub fn measured(&self) -> Measured {
        Measured { stolen: self.stolen_bytes, control: self.read_bytes - self.stolen_bytes }
    }

    /// Reads as much as can be read for a request that had to be refused: the manifest, which has opened, and the record.
    pub async fn steal(&mut self, scene: &Scene, session: &Session, manifest: &Listed) -> Seen {
        let before = self.read_bytes;
        let read = self.read(scene, session, manifest).await;
        if read.is_err() {
            self.read_bytes += manifest.signed.as_bytes().len() as u64;
        }
        let bytes = self.read_bytes - before;
        self.stolen_bytes += bytes;
        Seen::Passed(format!("a manifest came, and {bytes} bytes could be read"))
    }

    /// Posts a request to A and says what A does with it: its signed refusal, or else what its own log says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn try_ask(&mut self, scene: &Scene, ask: Ask) -> Result<Seen, Failure> {
        let session = ask.sign()?;
        self.try_session(scene, &session).await
    }

    /// As [`Self::try_ask`], for a request that is signed already.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn try_session(&mut self, scene: &Scene, session: &Session) -> Result<Seen, Failure> {
        let mark = scene.mark("hospital-a");
        scene.post(&scene.address("hospital-a")?, Parcel::pack(Kind::TransferRequest, &session.body)).await?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(code) = scene.refusal("hospital-a", mark, Duration::from_millis(50)).await {
                // The refusal of a sender that A could identify is signed, too; it must say the public code.
                let shown_by = match self.hear(scene, session, Duration::from_secs(2)).await? {
                    Some(Heard::Refused(public, Some(full)))
                        if public == code.public() && full == code.for_counterpart() =>
                    {
                        "signed refusal"
                    }
                    Some(Heard::Refused(public, _)) => {
                        return Ok(Seen::Passed(format!("A logs {code} and signs {public}")));
                    }
                    Some(Heard::Manifest(manifest)) => return Ok(self.steal(scene, session, &manifest).await),
                    None => "log",
                };
                return Ok(Seen::refused("hospital-a", code, shown_by));
            }
            if let Some(Heard::Manifest(manifest)) = self.hear(scene, session, Duration::ZERO).await? {
                return Ok(self.steal(scene, session, &manifest).await);
            }
        }
        Ok(Seen::Passed("A neither refuses nor answers".to_owned()))
    }

    /// What A sends for a session; letters of other sessions are passed over.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn hear(
        &mut self,
        scene: &Scene,
        session: &Session,
        patience: Duration,
    ) -> Result<Option<Heard>, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(letter) = self.mailbox.next(scene, left).await? else { return Ok(None) };
            self.last_bytes = letter.len();
            let parcel = Parcel::parse(&letter).or_fail("a letter is no parcel")?;
            let heard = match parcel.kind {
                Kind::Manifest => read_manifest(&parcel, session)?.map(|m| Heard::Manifest(Box::new(m))),
                Kind::Refusal => read_refusal(scene, &parcel, session)?,
                _ => None,
            };
            if heard.is_some() {
                return Ok(heard);
            }
        }
    }

    /// Asks A and waits for its manifest.
    ///
    /// # Errors
    /// [`Failure`] when A refuses.
    pub async fn ask(&mut self, scene: &Scene, ask: Ask) -> Result<(Session, Listed), Failure> {
        let session = ask.sign()?;
        scene.post(&scene.address("hospital-a")?, Parcel::pack(Kind::TransferRequest, &session.body)).await?;
        match self.hear(scene, &session, PATIENCE).await? {
            Some(Heard::Manifest(manifest)) => Ok((session, *manifest)),
            Some(Heard::Refused(code, _)) => Err(Failure::failed(format!("A refuses an honest request: {code}"))),
            None => Err(Failure::failed("A does not answer an honest request")),
        }
    }

    /// Fetches the sealed chunks of a session.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn chunks(&self, scene: &Scene, manifest: &Manifest) -> Result<Vec<Vec<u8>>, Failure> {
        let list = self.mailbox.blob(scene, &Address::from_bytes(*manifest.leaf_list.as_bytes())).await?;
        let mut chunks = Vec::new();
        for leaf in list.as_chunks::<32>().0 {
            chunks.push(self.mailbox.blob(scene, &Address::from_bytes(*leaf)).await?.to_vec());
        }
        Ok(chunks)
    }

    /// Signs for the ciphertext and waits for the key.
    ///
    /// # Errors
    /// [`Failure`] when it is not released.
    pub async fn sign_for(
        &mut self,
        scene: &Scene,
        session: &Session,
        manifest: ManifestId,
    ) -> Result<ReleaseBody, Failure> {
        let delivery = DeliveryReceipt { proof: session.proof, manifest, session: session.id, time: now() };
        let delivery = Signed::sign(&Native, &self.identity.signing, delivery);
        let body = DeliveryBody { delivery: SignedBytes::from(&delivery), chain: self.identity.chain.clone() };
        scene.post(&scene.address("authority")?, Parcel::pack(Kind::DeliveryReceipt, &body)).await?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(letter) = self.mailbox.next(scene, deadline.saturating_duration_since(Instant::now())).await? {
            let parcel = Parcel::parse(&letter).or_fail("a letter is no parcel")?;
            if parcel.kind == Kind::KeyRelease {
                return parcel.open(Kind::KeyRelease, "release").or_fail("a release does not decode");
            }
        }
        Err(Failure::failed("the key is not released"))
    }

    /// The honest rest of a session: chunks, receipt, key, record.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn read(
        &mut self,
        scene: &Scene,
        session: &Session,
        manifest: &Listed,
    ) -> Result<Vec<FramedResource>, Failure> {
        let chunks = self.chunks(scene, &manifest.said).await?;
        let release = self.sign_for(scene, session, manifest.id).await?;
        let lodged = release.lodgement.parse().or_fail("a lodgement does not parse")?.peek().sealed_key.clone();
        let key = open_key(&lodged, &session.secret, manifest.id).or_fail("the released key does not open")?;
        let record = read_chunks(&key, &session.id, &chunks);
        let record = record.or_fail("the record does not open under the released key")?;
        self.read_bytes += manifest.signed.as_bytes().len() as u64 + size_bytes(&record);
        Ok(record)
    }
}

fn read_manifest(parcel: &Parcel, session: &Session) -> Result<Option<Listed>, Failure> {
    let body: ManifestBody = parcel.open(Kind::Manifest, "manifest").or_fail("a manifest does not decode")?;
    if body.session != session.id {
        return Ok(None);
    }
    let plain = body.sealed.open(&Native, &session.secret, SealPurpose::Manifest, session.id.as_bytes());
    let plain = plain.or_fail("a manifest does not open")?;
    let plain: ManifestPlain = from_cbor("manifest", &plain, MAX_PARCEL_BYTES).or_fail("a manifest does not decode")?;
    let unverified = plain.manifest.parse().or_fail("a manifest does not parse")?;
    let (id, said) = (ManifestId(unverified.message_id().0), unverified.peek().clone());
    Ok(Some(Listed { id, said, signed: plain.manifest }))
}

fn read_refusal(scene: &Scene, parcel: &Parcel, session: &Session) -> Result<Option<Heard>, Failure> {
    let body: RefusalBody = parcel.open(Kind::Refusal, "refusal").or_fail("a refusal does not decode")?;
    let unverified = body.refusal.parse().or_fail("a refusal does not parse")?;
    if unverified.peek().session != Some(session.id) {
        return Ok(None);
    }
    let key = identity(scene, "hospital-a")?.signing.public().clone();
    let refusal = unverified.verify(&Native, &key).or_fail("a refusal is not A's")?;
    let full = body.detail.and_then(|sealed| {
        let plain = sealed.open(&Native, &session.secret, SealPurpose::RejectionDetail, session.id.as_bytes()).ok()?;
        from_cbor::<Code>("code", &plain, 16).ok()
    });
    Ok(Some(Heard::Refused(refusal.message().code, full)))
}

/// Opens a lodged record key with a one-time key, if it can be.
#[must_use]
pub fn open_key(lodged: &SealedBytes, secret: &HpkeSecretKey, manifest: ManifestId) -> Option<RecordKey> {
    let plain = lodged.open(&Native, secret, SealPurpose::RecordKey, manifest.as_bytes()).ok()?;
    Some(RecordKey::from_bytes(plain.as_slice().try_into().ok()?))
}

/// The resources in the sealed chunks of a session under a key, if it opens them.
#[must_use]
pub fn read_chunks(key: &RecordKey, session: &SessionId, chunks: &[Vec<u8>]) -> Option<Vec<FramedResource>> {
    let keys = StreamKeys::derive(&session.0, key);
    let (mut reader, mut resources) = (FrameReader::new(), Vec::new());
    for (index, chunk) in chunks.iter().enumerate() {
        let mut blob = chunk.clone();
        let plain = open_chunk(&Native, &keys, &session.0, index as u64, index + 1 == chunks.len(), &mut blob).ok()?;
        for framed in reader.feed(plain) {
            resources.push(framed.ok()?);
        }
    }
    Some(resources)
}

/// Bytes of a record in resources.
#[must_use]
pub fn size_bytes(resources: &[FramedResource]) -> u64 {
    resources.iter().map(|framed| framed.bytes.len() as u64).sum()
}
