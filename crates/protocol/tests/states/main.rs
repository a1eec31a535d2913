//! Every reachable state of a case: the real role functions in the shell's order of steps, explored by stateright over a network that
//! loses, repeats and reorders, with crashes, clocks that jump, restored backups and people who change their minds.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod bench;
mod hospitals;
mod model;
mod properties;
mod things;
mod twins;

use std::sync::Arc;
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _, Property};

use bench::Bench;
use model::{Bounds, CALM, Waybill};
use properties::{invariants, sometimes};

fn explore(name: &str, bounds: Bounds, possible: Vec<Property<Waybill>>, least: usize) {
    let began = Instant::now();
    let bench = Arc::new(Bench::new(name.contains("doubt")));
    let properties = invariants().into_iter().chain(possible).collect();
    let model = Waybill::new(&bench, bounds, None, properties);
    // Sometimes-properties are found early; only a failure may end the exploration.
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    let (steps, asked) = (checker.state_count(), bench.asked());
    println!("states: {name}: {unique} states, {steps} steps, depth {depth}, {asked} role calls, {:.1?}", began.elapsed());
    checker.assert_properties();
    assert!(unique >= least, "{name}: {unique} states are fewer than the {least} there were");
}

#[test]
fn probe() {
    use model::Clock::*;
    let all: Vec<(&str, Bounds)> = vec![
        ("passes", Bounds { clock: Passes, ..CALM }),
        ("passes+revoc", Bounds { clock: Passes, revocation: true, ..CALM }),
        ("passes+reject", Bounds { clock: Passes, rejection: true, ..CALM }),
        ("passes+staff", Bounds { clock: Passes, staff: true, ..CALM }),
        ("passes+lost", Bounds { clock: Passes, lost_key: true, ..CALM }),
        ("passes+lost2", Bounds { clock: Passes, lost_key: true, attempts: 2, ..CALM }),
        ("suspend", Bounds { suspension: true, ..CALM }),
        ("revoc+staff", Bounds { revocation: true, staff: true, rejection: true, suspension: true, ..CALM }),
        ("revoc+staff2", Bounds { revocation: true, staff: true, lost_key: true, attempts: 2, ..CALM }),
        ("forge", Bounds { forgery: true, ..CALM }),
        ("slow", Bounds { slow: true, ..CALM }),
        ("slow+revoc", Bounds { slow: true, revocation: true, rejection: true, ..CALM }),
        ("restore1", Bounds { restores: 1, ..CALM }),
        ("restore2", Bounds { restores: 2, ..CALM }),
        ("restore1+slow", Bounds { restores: 1, slow: true, ..CALM }),
        ("calm", CALM),
        ("jumps", Bounds { clock: Jumps, ..CALM }),
        ("doubt", Bounds { clock: Passes, revocation: true, ..CALM }),
        ("lost2", Bounds { lost_key: true, attempts: 2, ..CALM }),
        ("slow+restore2", Bounds { slow: true, restores: 2, ..CALM }),
        ("all1", Bounds { clock: Passes, revocation: true, rejection: true, staff: true, suspension: true, ..CALM }),
    ];
    let pick = std::env::var("PICK").unwrap_or_default();
    for (name, b) in all {
        if pick.split(',').any(|p| p == name) { explore(name, b, vec![], 10); }
    }
}
