//! `waybill attack`: the running system under attack, and the same without the attack.
//!
//! Every attack gets a fresh network of real processes. It may hold the keys of whole parties ([`hands`]), and must be refused by
//! the party, and with the code, that it declares; what it sees is held against that in [`outcome`].
//!
//! - [`asking`], [`sending`]: whoever asks A for too much, and an A that sends something else
//! - [`presenting`]: what B never asked for, and two patients' messages swapped
//! - [`deciding`]: the authority, its log and its lists
//! - [`counter`]: enrolment, login and the wallet
//! - [`privacy`]: what must stay unknown
//! - [`wire`]: bytes that are not what they claim
//! - [`replay`]: what was said before, in every state
//! - [`again`]: evidence, altered

pub mod again;
pub mod asking;
mod bytes;
mod collide;
pub mod counter;
pub mod deciding;
pub mod hands;
pub mod outcome;
pub mod presenting;
pub mod privacy;
pub mod replay;
pub mod scene;
pub mod sending;
pub mod wire;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde_json::json;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::args::AttackArgs;
use crate::console::{self, Console};
use crate::failure::{Exit, Failure};

use outcome::{Attack, Expectation, Measured, Row, judge};
use scene::Scene;

/// Longest attack: whatever hangs is a failure of the attack.
const LONGEST: Duration = Duration::from_secs(240);

/// Every attack, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    let tables = [
        asking::TABLE,
        sending::TABLE,
        presenting::TABLE,
        deciding::TABLE,
        counter::TABLE,
        privacy::TABLE,
        replay::TABLE,
        again::TABLE,
        wire::TABLE,
    ];
    tables.into_iter().flatten()
}

/// Plays one attack on a fresh network and judges what was seen.
pub async fn play(program: &Path, attack: &'static Attack, instead: Option<&Expectation>) -> Row {
    let begun = Instant::now();
    let finding = tokio::time::timeout(LONGEST, stage(program, attack)).await;
    let finding = finding.unwrap_or_else(|_| Err(Failure::failed("the attack took too long")));
    judge(attack, instead, finding, begun.elapsed())
}

async fn stage(program: &Path, attack: &'static Attack) -> Result<outcome::Finding, Failure> {
    let folder =
        TempDir::with_prefix("waybill-").map_err(|e| Failure::environment("no temporary folder can be made", e))?;
    let mut scene = Scene::open(program, folder.path()).await?;
    let mut finding = (attack.run)(&mut scene).await?;
    let elsewhere = scene.readable_elsewhere()?;
    match &mut finding.read {
        Some(read) => read.stolen += elsewhere,
        // What is found is told, whether or not the attack itself could have brought a record to anybody.
        None if elsewhere > 0 => finding.read = Some(Measured { stolen: elsewhere, control: 0 }),
        None => {}
    }
    scene.end()?;
    Ok(finding)
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with exit code 1 when an attack was not refused exactly as it declares, somebody read a byte, or a twin failed.
pub async fn run(args: AttackArgs, console: &Console) -> Result<Exit, Failure> {
    if args.names.iter().any(|name| name == "list") {
        list(console);
        return Ok(Exit::Success);
    }
    let chosen = choose(&args.names)?;
    let wanted = chosen.len();
    let program = std::env::current_exe().map_err(|e| Failure::environment("this program cannot find itself", e))?;
    let signals = |kind| signal(kind).map_err(|e| Failure::environment("signals cannot be watched", e));
    let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let progress = console.progress("attacking");
    let mut players = Players::start(program, chosen, args.expect.clone(), args.parallel, &stop);
    let mut rows: Vec<Row> = Vec::new();
    loop {
        tokio::select! {
            row = players.rows.recv() => match row {
                Some(row) => {
                    progress.update(format!("{} attacks played, last {}", rows.len() + 1, row.name));
                    rows.push(row);
                }
                None => break,
            },
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
    drop(progress);
    players.join().await;
    if stop.is_cancelled() {
        return Err(Failure::failed("interrupted; every server was stopped"));
    }
    let place = |row: &Row| all().position(|attack| attack.name == row.name);
    rows.sort_by_key(place);
    console.json(&rows);
    console.say(table(&rows).to_string());
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| !row.as_expected)
        .map(|row| format!("{}: {}", row.name, row.failure.as_deref().unwrap_or("not as declared")))
        .collect();
    if rows.len() < wanted {
        return Err(Failure::failed(format!("{} of {wanted} attacks were played to their end", rows.len())));
    }
    if failed.is_empty() {
        console.say(format!("{} attacks refused as declared; every twin succeeded.", rows.len()));
        Ok(Exit::Success)
    } else {
        Err(Failure::failed(failed.join("\n       ")))
    }
}

fn choose(names: &[String]) -> Result<VecDeque<&'static Attack>, Failure> {
    if names.iter().any(|name| name == "all") {
        return Ok(all().collect());
    }
    let find = |name: &String| {
        all().find(|attack| attack.name == name).ok_or_else(|| {
            Failure::usage(format!("there is no attack {name}")).hint("waybill attack list names them all")
        })
    };
    names.iter().map(find).collect()
}

fn list(console: &Console) {
    let rows: Vec<_> = all()
        .map(|attack| {
            let tries: Vec<_> =
                attack.tries.iter().map(|t| json!({ "what": t.what, "by": t.by, "code": t.code })).collect();
            json!({
                "name": attack.name,
                "what": attack.what,
                "attacker": attack.attacker,
                "stopped_by": attack.stopped_by,
                "tries": tries,
            })
        })
        .collect();
    console.json(&rows);
    let mut table = console::table(["attack", "what is tried", "who attacks", "what stops it"]);
    for attack in all() {
        table.add_row([attack.name, attack.what, attack.attacker, attack.stopped_by]);
    }
    console.say(table.to_string());
}

fn table(rows: &[Row]) -> Table {
    let mut table = console::table(["attack", "rejected", "by", "code", "stage", "bytes read", "twin", "as declared"]);
    let yes = |holds: bool| if holds { "yes" } else { "NO" }.to_owned();
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            yes(row.rejected),
            row.by.clone(),
            row.code.clone(),
            row.stage.clone(),
            row.record_bytes_read.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            yes(row.twin_succeeded),
            yes(row.as_expected),
        ]);
    }
    table
}

/// Threads that play attacks: each has a runtime of its own, because starting a network blocks.
struct Players {
    rows: mpsc::UnboundedReceiver<Row>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Players {
    fn start(
        program: PathBuf,
        attacks: VecDeque<&'static Attack>,
        instead: Option<Expectation>,
        parallel: usize,
        stop: &CancellationToken,
    ) -> Self {
        let (tell, rows) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(attacks));
        let player = |_| {
            let (queue, program, instead) = (queue.clone(), program.clone(), instead.clone());
            let (tell, stop) = (tell.clone(), stop.clone());
            std::thread::spawn(move || play_all(&queue, &program, instead.as_ref(), &tell, &stop))
        };
        Self { threads: (0..parallel.max(1)).map(player).collect(), rows }
    }

    async fn join(self) {
        // A thread that panicked has said so; its rows are missing and the command fails for that.
        let join = move || self.threads.into_iter().for_each(|thread| drop(thread.join()));
        drop(tokio::task::spawn_blocking(join).await);
    }
}

fn play_all(
    queue: &Mutex<VecDeque<&'static Attack>>,
    program: &Path,
    instead: Option<&Expectation>,
    tell: &mpsc::UnboundedSender<Row>,
    stop: &CancellationToken,
) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    loop {
        let next = queue.lock().expect("nobody panics while holding the queue").pop_front();
        let Some(attack) = next else { return };
        let row = runtime.block_on(async {
            tokio::select! {
                row = play(program, attack, instead) => Some(row),
                () = stop.cancelled() => None,
            }
        });
        let Some(row) = row else { return };
        if tell.send(row).is_err() {
            return;
        }
    }
}
