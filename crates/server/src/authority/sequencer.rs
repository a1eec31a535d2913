//! The log: gathers new leaves, extends the tree, signs a checkpoint, has it cosigned, and only then sends the answers.
//!
//! Group commit: while one checkpoint is being cosigned, the leaves of the next one gather. Source: docs/PROTOCOL.md section 7.

use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};
use tokio_util::sync::CancellationToken;
use waybill_crypto::keys::Digest;
use waybill_crypto::metered::scope;
use waybill_protocol::authority::Authority;
use waybill_protocol::log::tiles::{LogEdge, TileId, TileKind, TileSet, tiles_for_consistency, tiles_for_inclusion};
use waybill_protocol::log::{Checkpoint, LogError, LogEvidence, NoteSigner};
use waybill_protocol::migration::{Effect, Leaf, Post, Recipient};
use waybill_protocol::rejection::Rejection;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_store::{Area, Batch, Expect, Key, Op, Space};

use super::engine::{Engine, answer_row, read};
use crate::party::ServiceError;
use crate::party::effects::operations;
use crate::witness::{Cosigner, WitnessAnswer, WitnessClientError};
use waybill_protocol::log::witness::{AddCheckpoint, judge_conflict};

/// Most leaves of one checkpoint.
const LEAVES: usize = 1024;
/// Most answers of one batch, and about how many bytes of them. Units: answers, bytes.
const ANSWERS: usize = 64;
const ANSWERS_BYTES: usize = 16 * 1024 * 1024;
/// The largest answer: three recipients and a copy of it fit one batch. Units: bytes.
const MAX_ANSWER_BYTES: usize = 3 * 1024 * 1024;

/// The log's durable state: what is in the tree, and up to where answers were sent.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(array)]
pub struct LogRow {
    /// The tree's right edge.
    #[n(0)]
    pub edge: LogEdge,
    /// Leaves below this index have been answered.
    #[n(1)]
    pub answered: u64,
    /// The newest cosigned checkpoint: size and note.
    #[n(2)]
    pub cosigned: Option<Cosigned>,
}

/// A checkpoint with enough cosignatures.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
pub struct Cosigned {
    /// Its size.
    #[n(0)]
    pub size: u64,
    /// The note.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub note: Vec<u8>,
}

/// What went out for one leaf, kept so that it can go out again: one parcel, its recipients.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
pub struct Sent {
    #[n(0)]
    to: Vec<Recipient>,
    #[n(1)]
    parcel: minicbor::bytes::ByteVec,
}

impl Sent {
    pub(super) fn into_posts(self) -> Vec<Post> {
        self.to.into_iter().map(|to| Post { to, parcel: self.parcel.to_vec(), awaits: None }).collect()
    }
}

/// The operations that send one answer.
struct Answered {
    ops: Vec<Op>,
    size_bytes: usize,
}

/// The sequencer.
pub struct Sequencer {
    /// The authority.
    pub engine: Engine,
    /// The log's signing key.
    pub signer: NoteSigner,
    /// The witnesses.
    pub witnesses: Vec<Arc<dyn Cosigner>>,
    /// How long to gather leaves.
    pub gather: Duration,
}

fn log_row() -> Key {
    Key::build().text("log").done()
}

/// The row of a tile: its widest version.
#[must_use]
pub fn tile_row(id: &TileId) -> Key {
    let level = match id.kind {
        TileKind::Hashes(level) => u64::from(level),
        TileKind::Entries => u64::MAX,
    };
    Key::build().number(level).number(id.index).done()
}

impl Sequencer {
    /// Asks every witness whether it has seen more than this store holds. Until that is answered, the authority must not serve.
    ///
    /// # Errors
    /// [`StartError::LogBehindWitness`] with both sizes when the store was restored from an old copy; otherwise when too few witnesses answer.
    pub async fn verify_not_rolled_back(&self) -> Result<(), StartError> {
        let row = self.load().await.map_err(StartError::Service)?.0;
        let note = self.note(&row.edge);
        let from = row.cosigned.as_ref().map_or(0, |c| c.size);
        let needed = self.engine.party.with_trust(|t| t.log().quorum());
        let (mut answered, mut last) = (0, None);
        for witness in &self.witnesses {
            match self.cosign(witness.as_ref(), &row.edge, &note, from).await {
                Ok(_) => answered += 1,
                Err(CosignError::Refused(LogError::RolledBack { seen, offered })) => {
                    return Err(StartError::LogBehindWitness { own: offered, seen });
                }
                Err(error) => last = Some(error),
            }
        }
        if answered >= needed {
            Ok(())
        } else {
            Err(StartError::NoQuorum { answered, needed, last: last.map(|e| e.to_string()) })
        }
    }

    /// Runs until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut changed = self.engine.party.store.changed(Area::Leaves);
        loop {
            changed.borrow_and_update();
            let pause = match self.round().await {
                Ok(true) => continue,
                Ok(false) => Duration::from_secs(30),
                Err(error) => {
                    tracing::warn!(%error, "no cosigned checkpoint; answers wait");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changed.changed() => tokio::time::sleep(self.gather).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One checkpoint. `false`: there was nothing to do.
    pub(super) async fn round(&self) -> Result<bool, ServiceError> {
        let (mut row, version) = self.load().await?;
        let leaves = self.engine.party.store.leaves(row.edge.size(), LEAVES).await?;
        let cosigned_size = row.cosigned.as_ref().map_or(0, |c| c.size);
        if leaves.is_empty() && row.answered == row.edge.size() && cosigned_size == row.edge.size() {
            return Ok(false);
        }
        let entries: Vec<[u8; 32]> = leaves.iter().map(|leaf| leaf.entry).collect();
        let appended = scope("log", || row.edge.append(&entries));
        let mut batch = Batch::new("log-extend");
        for (path, bytes) in appended.tiles {
            batch = batch.put(Space::Tile, tile_row(&path.id), bytes, Expect::Any);
        }
        row.edge = appended.edge;
        let version = if entries.is_empty() { version } else { self.store(&row, version, batch).await? };
        if cosigned_size < row.edge.size() {
            row.cosigned = Some(Cosigned { size: row.edge.size(), note: self.gather_cosignatures(&row).await? });
        }
        let version = self.store(&row, version, Batch::new("log-cosigned")).await?;
        self.answer(row, version).await?;
        Ok(true)
    }

    async fn gather_cosignatures(&self, row: &LogRow) -> Result<Vec<u8>, ServiceError> {
        let mut note = self.note(&row.edge);
        let from = row.cosigned.as_ref().map_or(0, |c| c.size);
        let needed = self.engine.party.with_trust(|t| t.log().quorum());
        let (mut cosigned, mut last) = (0, None);
        for witness in &self.witnesses {
            // The client verifies each cosignature before it adds it, so that counting them is enough.
            match self.cosign(witness.as_ref(), &row.edge, &note, from).await {
                Ok(with_line) => (note, cosigned) = (with_line, cosigned + 1),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if cosigned < needed => Err(ServiceError::unavailable("the witness quorum", error)),
            _ => Ok(note),
        }
    }

    /// Asks one witness, first from the size we believe it has seen, then from the size it names.
    async fn cosign(
        &self,
        witness: &dyn Cosigner,
        edge: &LogEdge,
        note: &[u8],
        from: u64,
    ) -> Result<Vec<u8>, CosignError> {
        let mut old_size = from;
        for _ in 0..3 {
            let proof = self.consistency(old_size, edge.size()).await?;
            let request = AddCheckpoint { old_size, proof, note: note.to_vec() };
            match witness.add_checkpoint(&request).await? {
                WitnessAnswer::Cosigned(note) => return Ok(note),
                WitnessAnswer::Conflict(answer) => old_size = judge_conflict(edge.size(), &answer)?,
            }
        }
        Err(CosignError::Unsettled)
    }

    /// Sends what waits below the cosigned size, a bounded batch at a time.
    async fn answer(&self, mut row: LogRow, mut version: u64) -> Result<(), ServiceError> {
        let Some(cosigned) = row.cosigned.clone() else { return Ok(()) };
        while row.answered < cosigned.size {
            let count = ANSWERS.min(usize::try_from(cosigned.size - row.answered).unwrap_or(ANSWERS));
            let leaves = self.engine.party.store.leaves(row.answered, count).await?;
            let (mut batch, mut size_bytes) = (Batch::new("log-answers"), 0);
            for leaf in &leaves {
                match self.answer_leaf(leaf, &cosigned).await {
                    Ok(answer) => {
                        size_bytes += answer.size_bytes;
                        batch.ops.extend(answer.ops);
                    }
                    // One answer that cannot be made must not keep all others waiting: its case runs into its deadline.
                    Err(error @ (ServiceError::Rejected(_) | ServiceError::Corrupt(_))) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            index = leaf.index,
                            "an answer cannot be made"
                        );
                    }
                    Err(error) => return Err(error),
                }
                row.answered += 1;
                if size_bytes > ANSWERS_BYTES {
                    break;
                }
            }
            version = self.store(&row, version, batch).await?;
        }
        Ok(())
    }

    async fn answer_leaf(&self, stored: &waybill_store::Leaf, cosigned: &Cosigned) -> Result<Answered, ServiceError> {
        let leaf: Leaf =
            from_cbor("leaf", &stored.note, MAX_PARCEL_BYTES).map_err(|_| ServiceError::Corrupt("leaf"))?;
        let case = leaf.case;
        let path = self.inclusion(stored.index, cosigned.size).await?;
        let consistency = match leaf.answer.known_log_size() {
            // A source that claims to know more than there is gets no proof; it will refuse the grant, as it should.
            Some(known) if known > 0 && known <= cosigned.size => self.consistency(known, cosigned.size).await?,
            _ => Vec::new(),
        };
        let evidence =
            LogEvidence { index: stored.index, nonce: leaf.nonce.0, path, checkpoint: cosigned.note.clone() };
        let engine = &self.engine;
        let online = engine.keys.current();
        let posts = engine.party.with_trust(|trust| {
            let role = Authority { ctx: engine.party.ctx(), trust, keys: &online.keys };
            scope("answer", || role.finish(leaf.answer, evidence, consistency))
        })?;
        let Some(first) = posts.first() else { return Ok(Answered { ops: Vec::new(), size_bytes: 0 }) };
        if first.parcel.len() > MAX_ANSWER_BYTES {
            return Err(ServiceError::Corrupt("answer"));
        }
        let kind = Parcel::parse(&first.parcel).map_err(Rejection::from)?.kind;
        let sent = Sent { to: posts.iter().map(|p| p.to.clone()).collect(), parcel: first.parcel.clone().into() };
        let size_bytes = first.parcel.len() * (posts.len() + 1);
        let key = answer_row(&case, kind);
        let mut ops = vec![Op::Put { space: Space::Evidence, key, value: to_cbor(&sent), expect: Expect::Any }];
        let effects = posts.into_iter().map(Effect::Post).collect();
        ops.extend(operations(&case.0, effects, &engine.registry, engine.party.clock.now_ms()).await?);
        Ok(Answered { ops, size_bytes })
    }

    fn note(&self, edge: &LogEdge) -> Vec<u8> {
        let origin = self.signer.public().name().clone();
        let checkpoint = Checkpoint { origin, size: edge.size(), root: edge.root() };
        scope("log", || checkpoint.sign(self.engine.party.backend.as_ref(), &self.signer))
    }

    async fn tiles(&self, ids: Vec<TileId>) -> Result<TileSet, ServiceError> {
        let mut set = TileSet::new();
        for id in ids {
            let tile = self
                .engine
                .party
                .store
                .load(Space::Tile, &tile_row(&id))
                .await?
                .ok_or(ServiceError::Corrupt("log tile"))?;
            set.insert(id, &tile.value).map_err(|_| ServiceError::Corrupt("log tile"))?;
        }
        Ok(set)
    }

    async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, ServiceError> {
        let tiles = self.tiles(tiles_for_inclusion(index, size)).await?;
        tiles.prove_inclusion(index, size).map_err(|_| ServiceError::Corrupt("log tile"))
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, ServiceError> {
        if old == 0 || old >= new {
            return Ok(Vec::new());
        }
        let tiles = self.tiles(tiles_for_consistency(old, new)).await?;
        tiles.prove_consistency(old, new).map_err(|_| ServiceError::Corrupt("log tile"))
    }

    /// The log's state and its row's version.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn load(&self) -> Result<(LogRow, u64), ServiceError> {
        load_log(&self.engine).await
    }

    async fn store(&self, row: &LogRow, version: u64, batch: Batch) -> Result<u64, ServiceError> {
        let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
        let batch = batch.put(Space::Log, log_row(), to_cbor(row), expect);
        self.engine.party.store.commit(batch).await?;
        let written = self.engine.party.store.load(Space::Log, &log_row()).await?;
        Ok(written.ok_or(ServiceError::Corrupt("log"))?.version)
    }
}

/// The log's state and its row's version (0: none yet).
pub(super) async fn load_log(engine: &Engine) -> Result<(LogRow, u64), ServiceError> {
    match engine.party.store.load(Space::Log, &log_row()).await? {
        Some(found) => Ok((read(&found, "log")?, found.version)),
        None => Ok((LogRow::default(), 0)),
    }
}

/// Why a witness' cosignature could not be had.
#[derive(Debug, thiserror::Error)]
enum CosignError {
    #[error("the own store cannot be read")]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Client(#[from] WitnessClientError),
    #[error(transparent)]
    Refused(#[from] LogError),
    #[error("the witness names another size each time")]
    Unsettled,
}

/// Why an authority refuses to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store was restored from an old copy, or somebody cut the log.
    #[error(
        "log-behind-witness: this store's log has {own} leaves, a witness has seen {seen}; restore the newest store, never serve this one"
    )]
    LogBehindWitness {
        /// Our size.
        own: u64,
        /// The witness' size.
        seen: u64,
    },
    /// Too few witnesses answered.
    #[error("{answered} of {needed} needed witnesses answered{}", last.as_deref().map(|l| format!(" ({l})")).unwrap_or_default())]
    NoQuorum {
        /// How many did.
        answered: usize,
        /// How many must.
        needed: usize,
        /// The last failure.
        last: Option<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Service(ServiceError),
}
