//! Hospital A in the attacker's hands: takes B's request, redeems the proof, and sends whatever it likes.

use std::time::Instant;

use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::{Digest, HpkeSecretKey, SigningKey};
use waybill_crypto::native::Native;
use waybill_crypto::stream::{CHUNK_SIZE, RecordKey, StreamKeys, merkle_root, seal_chunk};
use waybill_protocol::ids::{ManifestId, Nonce, ProofId, SessionId};
use waybill_protocol::messages::{
    Chain, KeyLodgement, LodgementBody, Manifest, ManifestBody, ManifestPlain, Redeem, RedeemBody, RefusalBody,
    TransferBody, TransferRequest, TypeCount,
};
use waybill_protocol::registrar::HospitalIdentity;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::digest::RecordTally;
use waybill_record::frame::{FrameWriter, Salt};
use waybill_record::loss::LossReport;
use waybill_record::resource::Resource;
use waybill_store::Address;

use super::identity;
use super::patient::seal;
use crate::attack::scene::{Mailbox, OrFail as _, PATIENCE, Scene};
use crate::courier::now;
use crate::failure::Failure;

/// Hospital A with its real keys; its process is stopped.
pub struct Source {
    /// Its keys.
    pub identity: HospitalIdentity,
    /// Its mailbox.
    pub mailbox: Mailbox,
}

/// A request of B's that came in.
pub struct Asked {
    /// The case.
    pub proof: ProofId,
    /// The session.
    pub session: SessionId,
    /// What was signed.
    pub request: TransferRequest,
    /// The whole of it.
    pub body: TransferBody,
}

/// A record staged by hand: sealed chunks and the manifest over them.
pub struct Shipment {
    /// The manifest; any field may be another.
    pub manifest: Manifest,
    /// The key it commits to.
    pub key: RecordKey,
    /// The sealed chunks.
    pub chunks: Vec<Vec<u8>>,
    /// Opens A's copy of the receipt.
    pub reply: HpkeSecretKey,
}

/// A fresh record key.
#[must_use]
pub fn record_key() -> RecordKey {
    let mut key = [0; 32];
    Native.random(&mut key);
    RecordKey::from_bytes(key)
}

/// Resources in the order in which they travel.
///
/// # Errors
/// [`Failure`] for bytes that are no resource.
pub fn in_order(lines: &[Vec<u8>]) -> Result<Vec<Resource>, Failure> {
    let mut resources =
        lines.iter().map(|line| Resource::parse_exact(line)).collect::<Result<Vec<_>, _>>().or_fail("no resource")?;
    resources.sort_by(|one, other| one.key().cmp(other.key()));
    Ok(resources)
}

impl Shipment {
    /// Stages resources for a session as an honest source would.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn of(asked: &Asked, lines: &[Vec<u8>]) -> Result<Self, Failure> {
        let mut tally = RecordTally::new();
        let mut writer = FrameWriter::new(Vec::new()).or_fail("no stream")?;
        for resource in in_order(lines)? {
            let mut salt = [0; 16];
            Native.random(&mut salt);
            let salt = Salt::from_bytes(salt);
            writer
                .push(resource.key(), resource.version(), salt, resource.bytes())
                .or_fail("a resource has no frame")?;
            tally.add(resource.key(), resource.version(), salt, resource.bytes());
        }
        let (stream, totals) = writer.finish().or_fail("no stream")?;
        let key = record_key();
        let chunks = seal_stream(&key, &asked.session, &stream)?;
        let inventory = tally.inventory().iter().map(|(name, tally)| TypeCount {
            resource_type: name.as_str().to_owned(),
            count: tally.count,
            size_bytes: tally.bytes,
        });
        let reply = Native.generate_hpke_key();
        let mut manifest = Manifest {
            proof: asked.proof,
            session: asked.session,
            snapshot_at: now(),
            inventory: inventory.collect(),
            stream_bytes: totals.padded_bytes,
            chunk_bytes: u32::try_from(CHUNK_SIZE).expect("a chunk has 1 MiB"),
            chunk_count: chunks.len() as u64,
            leaf_list: Digest([0; 32]),
            merkle_root: Digest([0; 32]),
            key_commitment: StreamKeys::derive(&asked.session.0, &key).commitment(),
            digest_scope: tally.digest().clone(),
            digest_full: tally.digest().clone(),
            // What stays behind; what travels is counted by the destination.
            loss: to_cbor(&LossReport::new()),
            reply_key: *reply.public(),
        };
        list_chunks(&mut manifest, &chunks);
        Ok(Self { manifest, key, chunks, reply })
    }
}

/// Names other chunks in a manifest.
pub fn list_chunks(manifest: &mut Manifest, chunks: &[Vec<u8>]) {
    let leaves: Vec<Digest> = chunks.iter().map(|chunk| waybill_crypto::stream::leaf(chunk)).collect();
    let list: Vec<u8> = leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
    manifest.leaf_list = Digest(*Address::of(&list).as_bytes());
    manifest.merkle_root = merkle_root(&leaves);
}

fn seal_stream(key: &RecordKey, session: &SessionId, stream: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let keys = StreamKeys::derive(&session.0, key);
    let pieces: Vec<&[u8]> = stream.chunks(CHUNK_SIZE).collect();
    let seal = |(index, piece): (usize, &&[u8])| {
        let (last, mut buffer) = (index + 1 == pieces.len(), piece.to_vec());
        let blob = seal_chunk(&Native, &keys, &session.0, index as u64, last, &mut buffer);
        blob.map(waybill_crypto::stream::Blob::into_bytes).or_fail("a chunk cannot be sealed")
    };
    pieces.iter().enumerate().map(seal).collect()
}

impl Source {
    /// Stops A's process and takes its keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn take(scene: &mut Scene) -> Result<Self, Failure> {
        scene.servant("hospital-a").kill()?;
        Ok(Self { identity: identity(scene, "hospital-a")?, mailbox: scene.mailbox_of("hospital-a").await? })
    }

    /// Waits for B's request of a case.
    ///
    /// # Errors
    /// [`Failure`] when none comes.
    pub async fn asked(&mut self, scene: &Scene, proof: ProofId) -> Result<Asked, Failure> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(letter) = self.mailbox.next(scene, deadline.saturating_duration_since(Instant::now())).await? {
            let parcel = Parcel::parse(&letter).or_fail("a letter is no parcel")?;
            if parcel.kind != Kind::TransferRequest {
                continue;
            }
            let body: TransferBody = parcel.open(Kind::TransferRequest, "request").or_fail("no request")?;
            let unverified = body.request.parse().or_fail("a request does not parse")?;
            if unverified.peek().proof == proof {
                let (session, request) = (SessionId(unverified.message_id().0), unverified.peek().clone());
                return Ok(Asked { proof, session, request, body });
            }
        }
        Err(Failure::failed("B asks for nothing"))
    }

    /// Redeems the proof at the authority for a session.
    ///
    /// # Errors
    /// [`Failure`] when the authority refuses.
    pub async fn redeem(&mut self, scene: &Scene, asked: &Asked) -> Result<(), Failure> {
        let mut nonce = [0; 16];
        Native.random(&mut nonce);
        let redeem = Redeem {
            proof: asked.proof,
            session: asked.session,
            nonce: Nonce(nonce),
            attempt: asked.request.attempt,
            known_log_size: 0,
        };
        let redeem = Signed::sign(&Native, &self.identity.signing, redeem);
        let body = RedeemBody { redeem: SignedBytes::from(&redeem), chain: self.identity.chain.clone() };
        scene.post(&scene.address("authority")?, Parcel::pack(Kind::Redeem, &body)).await?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(letter) = self.mailbox.next(scene, deadline.saturating_duration_since(Instant::now())).await? {
            let parcel = Parcel::parse(&letter).or_fail("a letter is no parcel")?;
            match parcel.kind {
                Kind::Grant => return Ok(()),
                Kind::Refusal => {
                    let body: RefusalBody = parcel.open(Kind::Refusal, "refusal").or_fail("no refusal")?;
                    let code = body.refusal.parse().or_fail("a refusal does not parse")?.peek().code;
                    return Err(Failure::failed(format!("the authority refuses the redemption: {code}")));
                }
                _ => {}
            }
        }
        Err(Failure::failed("the authority does not answer the redemption"))
    }

    /// Takes the request of a presented case and redeems its proof.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn begin(&mut self, scene: &Scene, proof: ProofId) -> Result<Asked, Failure> {
        let asked = self.asked(scene, proof).await?;
        self.redeem(scene, &asked).await?;
        Ok(asked)
    }

    /// Puts chunks and leaf list into B's mailbox.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put_chunks(&self, scene: &Scene, chunks: &[Vec<u8>]) -> Result<(), Failure> {
        let to = scene.address("hospital-b")?;
        let list: Vec<u8> = chunks.iter().flat_map(|c| *waybill_crypto::stream::leaf(c).as_bytes()).collect();
        let client = scene.client_of("hospital-a")?;
        for blob in chunks.iter().chain([&list]) {
            let put = client.put_blob(&to, &Address::of(blob), blob.clone().into()).await;
            put.or_fail("a chunk cannot be put")?;
        }
        Ok(())
    }

    /// Signs a manifest, seals it to the session and posts it; gives its id.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, scene: &Scene, asked: &Asked, shipment: &Shipment) -> Result<ManifestId, Failure> {
        self.put_chunks(scene, &shipment.chunks).await?;
        let (key, chain) = (&self.identity.signing, &self.identity.chain);
        let (id, parcel) = pack_manifest(shipment.manifest.clone(), key, chain, asked)?;
        scene.post(&scene.address("hospital-b")?, parcel).await?;
        Ok(id)
    }

    /// Lodges a record key for a manifest at the authority.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn lodge(&self, scene: &Scene, asked: &Asked, hm: ManifestId, key: &RecordKey) -> Result<(), Failure> {
        let lodgement = lodgement(asked, hm, key)?;
        let signed = Signed::sign(&Native, &self.identity.signing, lodgement);
        let parcel = pack_lodgement(scene, asked.proof, signed.bytes()).await?;
        scene.post(&scene.address("authority")?, parcel).await
    }

    /// Sends and lodges a record as an honest source would.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ship(&self, scene: &Scene, asked: &Asked, shipment: &Shipment) -> Result<(), Failure> {
        let hm = self.send(scene, asked, shipment).await?;
        self.lodge(scene, asked, hm, &shipment.key).await
    }
}

/// A manifest signed by any key, sealed to a session; with its id.
///
/// # Errors
/// [`Failure`].
pub fn pack_manifest(
    manifest: Manifest,
    key: &SigningKey,
    chain: &Chain,
    asked: &Asked,
) -> Result<(ManifestId, Vec<u8>), Failure> {
    let signed = Signed::sign(&Native, key, manifest);
    let parcel = seal_manifest(SignedBytes::from(&signed), chain, asked)?;
    Ok((ManifestId(signed.id().0), parcel))
}

/// A manifest that somebody signed, sealed to a session.
///
/// # Errors
/// [`Failure`].
pub fn seal_manifest(manifest: SignedBytes<Manifest>, chain: &Chain, asked: &Asked) -> Result<Vec<u8>, Failure> {
    let plain = ManifestPlain { manifest, chain: chain.clone() };
    let bound = asked.session.as_bytes();
    let sealed = seal(&asked.request.session_key, SealPurpose::Manifest, bound, &to_cbor(&plain))?;
    Ok(Parcel::pack(Kind::Manifest, &ManifestBody { session: asked.session, sealed }))
}

/// A lodgement of a key for a manifest.
///
/// # Errors
/// [`Failure`].
pub fn lodgement(asked: &Asked, hm: ManifestId, key: &RecordKey) -> Result<KeyLodgement, Failure> {
    let sealed_key = seal(&asked.request.session_key, SealPurpose::RecordKey, hm.as_bytes(), key.expose())?;
    Ok(KeyLodgement { proof: asked.proof, manifest: hm, session: asked.session, sealed_key })
}

/// Signed bytes sealed to the authority's lodgement key.
///
/// # Errors
/// [`Failure`].
pub async fn pack_lodgement(scene: &Scene, proof: ProofId, signed: &[u8]) -> Result<Vec<u8>, Failure> {
    Ok(Parcel::pack(Kind::KeyLodgement, &LodgementBody { proof, sealed: seal_lodgement(scene, proof, signed).await? }))
}

/// The outer seal of a lodgement.
///
/// # Errors
/// [`Failure`].
pub async fn seal_lodgement(scene: &Scene, proof: ProofId, signed: &[u8]) -> Result<SealedBytes, Failure> {
    let trust = scene.trust().await?;
    let to = trust.lodgement_key().or_fail("the authority names no lodgement key")?;
    seal(to, SealPurpose::KeyLodgement, proof.as_bytes(), signed)
}
