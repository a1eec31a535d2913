//! Whether hospital A answers about an unknown patient as quickly as about a known one whose consent is bad.
//!
//! The asker is hospital B with genuine proofs for pseudonyms of its choice, over real processes: from its posting a request to A's signed
//! refusal in its mailbox. A third question, the known patient's a second time, shows how far two equal things lie apart here. Because the
//! way there and back takes a hundred times as long as a verification, the check itself is measured first, in this process.

use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::rejection::Code;
use waybill_protocol::wire::{Kind, Parcel};

use super::front_desk::{self, Checks};
use super::order;
use super::welch::{BOUND, Comparison, compare};
use crate::attack::asking::{set, stranger};
use crate::attack::hands::patient::seal_consent;
use crate::attack::hands::{Ask, Authority, Destination, Heard};
use crate::attack::scene::{PATIENCE, Scene};
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Rounds before anything counts: connections, caches, the store's first pages.
const WARM_UP: u32 = 10;

#[derive(Serialize)]
struct Figures {
    /// The check alone.
    check: Checks,
    rounds: u32,
    /// Unknown patient against known patient with a bad consent.
    unknown_and_known: Comparison,
    /// The known patient's question against the same one.
    known_and_known: Comparison,
    /// The bound on |t|.
    bound: f64,
    /// |t| of the first comparison is below the bound.
    alike: bool,
}

/// Runs the measurement.
///
/// # Errors
/// [`Failure`] when the network cannot be started or A does not refuse.
pub async fn run(checks: u32, rounds: u32, console: &Console) -> Result<Exit, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::environment("this program cannot find itself", e))?;
    let check = front_desk::measure(checks);
    let folder =
        TempDir::with_prefix("waybill-").map_err(|e| Failure::environment("no temporary folder can be made", e))?;
    let mut scene = Scene::open(&program, folder.path()).await?;
    let times = measure(&mut scene, rounds, console).await?;
    scene.end()?;
    let unknown_and_known = compare(&times[0], &times[1]);
    let known_and_known = compare(&times[1], &times[2]);
    let alike = unknown_and_known.t.abs() < BOUND;
    let figures = Figures { check, rounds, unknown_and_known, known_and_known, bound: BOUND, alike };
    console.json(&figures);
    figures.check.lines().into_iter().for_each(|line| console.say(line));
    console.say(format!("unknown patient against bad consent: {}", figures.unknown_and_known.sentence()));
    console.say(format!("bad consent against bad consent    : {}", figures.known_and_known.sentence()));
    let said = if alike { "not told apart" } else { "TOLD APART" };
    console.say(format!("{said} in {rounds} rounds (|t| {} {BOUND})", if alike { "below" } else { "not below" }));
    let shown = alike && figures.check.alike && figures.check.control_told_apart;
    Ok(if shown { Exit::Success } else { Exit::Failed })
}

/// Asks the three questions in turns, in a random order each time. Units: microseconds.
async fn measure(scene: &mut Scene, rounds: u32, console: &Console) -> Result<[Vec<f64>; 3], Failure> {
    let (patient, case, mut b) = set(scene).await?;
    let (nobody, unknown) = stranger(&Authority::take(scene)?, &patient)?;
    let known = seal_consent(patient.consent(&case), &Native.generate_signing_key(), &patient.a)?;
    let questions = [(&nobody, &unknown), (&case, &known), (&case, &known)];
    let progress = console.progress("asking");
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds + WARM_UP {
        progress.update(format!("asking, round {round} of {rounds}"));
        for which in order() {
            let (case, consent) = questions[which];
            let mut ask = Ask::honest(&b, &patient, case)?;
            ask.show_consent(consent.clone());
            let took = time(scene, &mut b, ask).await?;
            if round >= WARM_UP {
                times[which].push(took.as_secs_f64() * 1e6);
            }
        }
        b.mailbox.empty(scene).await?;
    }
    Ok(times)
}

async fn time(scene: &Scene, b: &mut Destination, ask: Ask) -> Result<Duration, Failure> {
    let session = ask.sign()?;
    let parcel = Parcel::pack(Kind::TransferRequest, &session.body);
    let address = scene.address("hospital-a")?;
    let asked = Instant::now();
    scene.post(&address, parcel).await?;
    match b.hear(scene, &session, PATIENCE).await? {
        Some(Heard::Refused(Code::ConsentRefused, _)) => Ok(asked.elapsed()),
        Some(Heard::Refused(code, _)) => Err(Failure::failed(format!("A refuses for another reason: {code}"))),
        _ => Err(Failure::failed("A did not refuse")),
    }
}
