//! `waybill authority log`: the public log, read and checked as anybody can.
//!
//! The verifier takes nothing from the authority but what everybody is served: checkpoint, leaves, tiles. It recomputes the rest.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use waybill_crypto::keys::Digest;
use waybill_crypto::merkle::{TreeBuilder, leaf_hash};
use waybill_crypto::native::Native;
use waybill_protocol::log::tiles::{LogEdge, TILE_WIDTH, TileId, TileKind, TilePath, parse_bundle};
use waybill_protocol::log::{Checkpoint, CheckpointPolicy, NoteKey, open_signed};
use waybill_server::authority::AuthorityConfig;
use waybill_server::authority::operator::Overview;
use waybill_server::config;
use waybill_server::files;
use waybill_server::net::client::{ClientOptions, Exchange, HttpClient};
use waybill_server::net::tls::{ClientTls, TlsFiles};

use super::{CONFIG, admin};
use crate::args::LogArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// The largest page of the log: a full bundle of leaves, a checkpoint with many signatures. Units: bytes.
const PAGE: Exchange = Exchange { timeout: std::time::Duration::from_secs(20), max_response: 64 * 1024 };
/// The most leaves that are verified in memory.
const MAX_LEAVES: u64 = 50_000_000;

/// A reader of the public pages.
struct Reader {
    http: HttpClient,
    url: String,
    policy: CheckpointPolicy,
}

/// What was verified.
#[derive(Debug, Serialize)]
struct Verified {
    origin: String,
    size: u64,
    root: String,
    cosigned_at: u64,
    cosignatures_needed: usize,
    tiles_compared: usize,
    since: Option<u64>,
    saved: Option<String>,
}

#[derive(Debug, Serialize)]
struct Leaf {
    index: u64,
    entry: String,
    leaf_hash: String,
}

/// Lists leaves, or verifies all of the log.
pub(super) async fn run(args: &LogArgs, console: &Console) -> Result<Exit, Failure> {
    let reader = Reader::open(args).await?;
    if args.verify { verify(&reader, args, console).await } else { list(&reader, args, console).await }
}

fn key(text: &str) -> Result<NoteKey, Failure> {
    text.parse().map_err(|e: waybill_protocol::log::LogError| {
        Failure::usage(format!("{text} is not a verifier key of a log or witness")).caused_by(e)
    })
}

impl Reader {
    /// From the command line, or else from the folder of an authority that runs.
    async fn open(args: &LogArgs) -> Result<Self, Failure> {
        let (url, root, log, witnesses, quorum) = match (&args.url, &args.root, &args.log) {
            (Some(url), Some(root), Some(log)) => {
                let quorum = args.quorum.unwrap_or(args.witness.len());
                (url.clone(), root.clone(), log.clone(), args.witness.clone(), quorum)
            }
            _ => Self::from_folder(&args.folder).await?,
        };
        let witnesses = witnesses.iter().map(|w| key(w)).collect::<Result<_, _>>()?;
        let policy = CheckpointPolicy::new(key(&log)?, witnesses, quorum)
            .map_err(|e| Failure::usage("these keys are no choice of witnesses").caused_by(e))?;
        let tls = ClientTls::load(TlsFiles { root, identity: None, crl: None })
            .map_err(|e| Failure::environment("the root certificate cannot be used", e))?;
        let http = HttpClient::new(tls, ClientOptions::default());
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), policy })
    }

    async fn from_folder(folder: &Path) -> Result<(String, std::path::PathBuf, String, Vec<String>, usize), Failure> {
        let (config, url, log) = public_view(folder).await?;
        let witnesses = config.authority.witnesses.iter().map(|w| w.key.clone()).collect();
        Ok((url, config.server.root, log, witnesses, config.authority.quorum))
    }

    async fn page(&self, path: &str) -> Result<Bytes, Failure> {
        let request = Request::get(format!("{}/{path}", self.url)).body(Bytes::new());
        let request = request.map_err(|e| Failure::usage(format!("{} is no URL", self.url)).caused_by(e))?;
        let answer = self.http.send(request, PAGE).await;
        answer.map(|answer| answer.body).map_err(|e| {
            Failure::environment(format!("{path} cannot be fetched"), e).hint("check that the authority is running")
        })
    }

    /// The newest checkpoint with everybody's signatures verified; nothing when the log has none yet.
    async fn checkpoint(&self) -> Result<(Vec<u8>, Checkpoint, u64), Failure> {
        let note = self.page("checkpoint").await?;
        let verified = self
            .policy
            .verify(&Native, &note)
            .map_err(|e| Failure::failed("checkpoint: the signatures do not hold under the given keys").caused_by(e))?;
        Ok((note.to_vec(), verified.checkpoint().clone(), verified.cosigned_at().0))
    }

    async fn tile(&self, kind: TileKind, index: u64, size: u64) -> Result<Bytes, Failure> {
        let id = TileId { kind, index };
        self.page(&TilePath { id, width: id.width(size) }.to_string()).await
    }

    /// The leaves from `from` up to `to`, of a log of `size`.
    async fn entries(&self, from: u64, to: u64, size: u64) -> Result<Vec<[u8; 32]>, Failure> {
        let mut entries = Vec::new();
        for bundle in from / TILE_WIDTH as u64..to.div_ceil(TILE_WIDTH as u64) {
            let bytes = self.tile(TileKind::Entries, bundle, size).await?;
            let parsed = parse_bundle(&bytes)
                .map_err(|e| Failure::failed(format!("tile: bundle {bundle} is none")).caused_by(e))?;
            let first = bundle * TILE_WIDTH as u64;
            let inside = |index: &u64| (from..to).contains(index);
            let numbered = (first..).zip(parsed).filter(|(index, _)| inside(index));
            entries.extend(numbered.map(|(_, entry)| entry));
        }
        Ok(entries)
    }
}

/// The configuration, the URL and the log's verifier key of an authority that runs from a folder.
pub(super) async fn public_view(folder: &Path) -> Result<(AuthorityConfig, String, String), Failure> {
    let config: AuthorityConfig = config::load(&folder.join(CONFIG))
        .map_err(|e| Failure::environment("the configuration cannot be read", e).hint("name the authority's folder"))?;
    let door = admin(folder);
    let overview: Overview = door.read("/overview").await?;
    let status: serde_json::Value = door.read("/status").await?;
    let host = match config.server.public_hosts.first() {
        Some(host) => host.clone(),
        None => status["address"].as_str().unwrap_or_default().to_owned(),
    };
    Ok((config, format!("https://{host}"), overview.log.key))
}

async fn list(reader: &Reader, args: &LogArgs, console: &Console) -> Result<Exit, Failure> {
    let (_, checkpoint, _) = reader.checkpoint().await?;
    let to = args.from.saturating_add(args.count).min(checkpoint.size);
    let entries = if args.from < to { reader.entries(args.from, to, checkpoint.size).await? } else { Vec::new() };
    let leaf = |(index, entry): (u64, &[u8; 32])| Leaf {
        index,
        entry: hex::encode(entry),
        leaf_hash: leaf_hash(entry).to_string(),
    };
    let leaves: Vec<Leaf> = (args.from..).zip(&entries).map(leaf).collect();
    console.say(format!("{}: {} leaves", checkpoint.origin, checkpoint.size));
    for leaf in &leaves {
        console.say(format!("{:>8}  {}", leaf.index, leaf.entry));
    }
    console.json(&serde_json::json!({
        "origin": checkpoint.origin.as_str(), "size": checkpoint.size, "leaves": leaves,
    }));
    Ok(Exit::Success)
}

async fn verify(reader: &Reader, args: &LogArgs, console: &Console) -> Result<Exit, Failure> {
    let (note, checkpoint, cosigned_at) = reader.checkpoint().await?;
    if checkpoint.size > MAX_LEAVES {
        return Err(Failure::failed(format!(
            "{} leaves are more than this command verifies in memory",
            checkpoint.size
        )));
    }
    let since = args.since.as_deref().map(|file| read_saved(reader, file)).transpose()?;
    if let Some(saved) = since.as_ref().filter(|saved| saved.size > checkpoint.size) {
        let said =
            format!("rolled-back: the saved checkpoint has {} leaves, the log shows {}", saved.size, checkpoint.size);
        return Err(Failure::failed(said));
    }
    let entries = reader.entries(0, checkpoint.size, checkpoint.size).await?;
    let tiles_compared = recompute(reader, &checkpoint, &entries).await?;
    if let Some(saved) = &since {
        let begin = usize::try_from(saved.size).unwrap_or(usize::MAX);
        if root_of(&entries[..begin]) != saved.root {
            let said =
                format!("log-inconsistent: the first {} leaves are not those of the saved checkpoint", saved.size);
            return Err(
                Failure::failed(said).hint("keep both checkpoints: together they prove that the log was forked")
            );
        }
    }
    let mut saved = None;
    if let Some(file) = &args.save {
        files::write_public(file, &note).map_err(|e| Failure::environment("the checkpoint cannot be saved", e))?;
        saved = Some(file.display().to_string());
    }
    let verified = Verified {
        origin: checkpoint.origin.to_string(),
        size: checkpoint.size,
        root: checkpoint.root.to_string(),
        cosigned_at,
        cosignatures_needed: reader.policy.quorum(),
        tiles_compared,
        since: since.map(|saved| saved.size),
        saved,
    };
    console.say(format!("{}: {} leaves hash to the signed root {}", verified.origin, verified.size, verified.root));
    console.say(format!(
        "signed by the log, cosigned by at least {} of {} witnesses, {tiles_compared} tiles as recomputed",
        verified.cosignatures_needed,
        reader.policy.witnesses().len()
    ));
    if let Some(size) = verified.since {
        console.say(format!("extends the saved checkpoint of {size} leaves"));
    }
    console.json(&verified);
    Ok(Exit::Success)
}

/// Rebuilds the tree from the leaves: the root must be the signed one, and every tile served the one that follows from the leaves.
async fn recompute(reader: &Reader, checkpoint: &Checkpoint, entries: &[[u8; 32]]) -> Result<usize, Failure> {
    let appended = LogEdge::empty().append(entries);
    if appended.root != checkpoint.root || appended.edge.size() != checkpoint.size {
        return Err(Failure::failed("root: the leaves do not hash to the signed root"));
    }
    let hashes: Vec<_> = appended.tiles.iter().filter(|(path, _)| path.id.kind != TileKind::Entries).collect();
    for (path, bytes) in &hashes {
        if reader.page(&path.to_string()).await? != bytes.as_slice() {
            return Err(Failure::failed(format!("tile: {path} is not what follows from the leaves")));
        }
    }
    Ok(hashes.len())
}

fn root_of(entries: &[[u8; 32]]) -> Digest {
    let mut builder = TreeBuilder::new();
    entries.iter().for_each(|entry| builder.append(leaf_hash(entry)));
    builder.root()
}

fn read_saved(reader: &Reader, file: &Path) -> Result<Checkpoint, Failure> {
    let note = files::read(file).map_err(|e| Failure::environment("the saved checkpoint cannot be read", e))?;
    let opened = open_signed(&Native, reader.policy.log_key(), &note)
        .map_err(|e| Failure::usage(format!("{} is no checkpoint of this log", file.display())).caused_by(e))?;
    Ok(opened.0)
}
