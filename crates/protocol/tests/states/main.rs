//! Every reachable state of a case: the real role functions in the shell's order of steps, explored by stateright over a network that
//! loses, repeats and reorders, with crashes, clocks that jump, restored backups and people who change their minds.
//!
//! `WAYBILL_STATES=deep` explores larger bounds, too, one of them when it is named; about half an hour of one core.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod bench;
mod bounds;
mod hospitals;
mod model;
mod properties;
mod recovery;
mod state;
mod things;
mod twins;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _, Property};

use bench::Bench;
use bounds::Bounds;
use model::Waybill;
use properties::{invariants, sometimes};
use twins::CAUGHT;

static CERTAIN: LazyLock<Arc<Bench>> = LazyLock::new(|| Arc::new(Bench::new(false)));
static IN_DOUBT: LazyLock<Arc<Bench>> = LazyLock::new(|| Arc::new(Bench::new(true)));

fn bench(bounds: &Bounds) -> &'static Arc<Bench> {
    if bounds.doubt { &IN_DOUBT } else { &CERTAIN }
}

/// Visits every state within the bounds: no invariant may fail in any, everything that is possible must be found, and there must be as
/// many states as there were when the bounds were chosen.
fn explore(name: &str, bounds: Bounds, possible: Vec<Property<Waybill>>, least: usize) {
    let began = Instant::now();
    let properties = invariants().into_iter().chain(possible).collect();
    let model = Waybill::new(bench(&bounds), bounds, None, properties);
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("states: {name}: {unique} states, {steps} steps, depth {depth}, {:.0?}", began.elapsed());
    checker.assert_properties();
    assert!(unique >= least, "{name}: {unique} states are fewer than the {least} there were");
}

#[test]
fn patient() {
    let possible = vec![
        sometimes::filed(),
        sometimes::filed_late(),
        sometimes::rejected(),
        sometimes::revoked(),
        sometimes::revoked_delivered(),
        sometimes::expired(),
        sometimes::unacknowledged(),
    ];
    explore("patient", bounds::PATIENT, possible, 48_000);
}

#[test]
fn people() {
    explore("people", bounds::PEOPLE, vec![sometimes::filed(), sometimes::refused(), sometimes::revoked()], 9_900);
}

#[test]
fn clock() {
    explore("clock", bounds::CLOCK, vec![sometimes::filed(), sometimes::filed_late(), sometimes::expired()], 43_000);
}

#[test]
fn attempts() {
    let possible = vec![sometimes::filed(), sometimes::filed_again(), sometimes::unreadable()];
    explore("attempts", bounds::ATTEMPTS, possible, 62_000);
}

#[test]
fn slow() {
    explore("slow", bounds::SLOW, vec![sometimes::filed(), sometimes::rejected(), sometimes::revoked()], 6_900);
}

#[test]
fn slow_restored() {
    explore("slow-restored", bounds::SLOW_RESTORED, vec![sometimes::filed(), sometimes::halted()], 16_000);
}

#[test]
fn restored() {
    let possible = vec![sometimes::filed(), sometimes::halted(), sometimes::filed_restored()];
    explore("restored", bounds::RESTORED, possible, 120_000);
}

#[test]
fn doubt() {
    explore("doubt", bounds::DOUBT, vec![sometimes::filed(), sometimes::revoked(), sometimes::expired()], 11_000);
}

#[test]
fn forgery() {
    explore("forgery", bounds::FORGERY, vec![sometimes::filed(), sometimes::revoked()], 600);
}

#[test]
fn every_twin_is_caught_by_the_property_that_forbids_it() {
    for (twin, property, bounds) in CAUGHT {
        let (began, only) = (Instant::now(), |p: &Property<Waybill>| p.name == *property);
        let properties = invariants().into_iter().filter(only).collect();
        let model = Waybill::new(bench(bounds), *bounds, Some(*twin), properties);
        let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discovery(property);
        let steps = found.unwrap_or_else(|| panic!("{twin:?} is not caught by: {property}")).into_actions().len();
        println!("twin: {twin:?} is caught in {steps} steps: {property}, {:.0?}", began.elapsed());
    }
}

#[test]
fn every_invariant_has_a_twin() {
    let all: BTreeSet<_> = invariants().iter().map(|property| property.name).collect();
    let caught: BTreeSet<_> = CAUGHT.iter().map(|(_, property, _)| *property).collect();
    assert_eq!(all, caught);
}

#[test]
fn deep() {
    let all = [
        ("deep-one-attempt", bounds::DEEP_ONE_ATTEMPT),
        ("deep-attempts", bounds::DEEP_ATTEMPTS),
        ("deep-time", bounds::DEEP_TIME),
        ("deep-slow", bounds::DEEP_SLOW),
        ("deep-restored", bounds::DEEP_RESTORED),
        ("deep-restored-attempts", bounds::DEEP_RESTORED_ATTEMPTS),
    ];
    let asked = std::env::var("WAYBILL_STATES").unwrap_or_else(|_| "none".to_owned());
    let chosen: Vec<_> = all.into_iter().filter(|(name, _)| *name == asked || asked == "deep").collect();
    println!("states: {} of {} deep explorations (WAYBILL_STATES is {asked})", chosen.len(), all.len());
    assert!(asked == "none" || !chosen.is_empty(), "there is no exploration {asked}");
    for (name, bounds) in chosen {
        explore(name, bounds, vec![sometimes::filed()], 100_000);
    }
}
