//! Seeded fault simulation: the engine and the model store under drawn faults, with the promises as
//! invariants. `SEED=n` plays one seed and prints its trace, `RUNS=n` plays so many.
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod children;
mod clients;
mod ledger;
mod limits;
mod notices;
mod planted;
mod replacing;
mod rng;
mod scenario;
mod schedules;
mod storage;
mod unique;
mod workflows;
mod world;

use std::collections::BTreeMap;

use planted::Planted;
use world::play;

const RUNS: u64 = 20_000;

/// So many seeds may pass before a planted bug is caught.
const CATCH_WITHIN: u64 = 8_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays a seed again with its trace and says what is wrong.
fn explain(seed: u64, bug: Option<Planted>) -> String {
    explain_story(seed, bug, limits::Story::Everything)
}

fn explain_story(seed: u64, bug: Option<Planted>, story: limits::Story) -> String {
    let told = world::tell(seed, bug, true, story);
    let n = number("TRACE").unwrap_or(60) as usize;
    let from = told.lines.len().saturating_sub(n);
    let verdict = match told.result {
        Ok(()) => "went well".to_owned(),
        Err(v) => format!("{}: {}", v.name, v.detail),
    };
    format!("{}\nseed {seed}: {verdict}\nplay it again: SEED={seed} make test", told.lines[from..].join("\n"))
}

#[test]
fn promises_hold_under_faults() {
    if let Some(seed) = number("SEED") {
        let text = explain(seed, None);
        println!("{text}");
        assert!(play(seed, None, false).result.is_ok(), "{text}");
        return;
    }
    let runs = number("RUNS").unwrap_or(RUNS);
    let (mut steps, mut starts, mut windows) = (0, 0, 0);
    let mut states = BTreeMap::new();
    let mut scheduled = [0; 3];
    for seed in 0..runs {
        let told = play(seed, None, false);
        assert!(told.result.is_ok(), "{}", explain(seed, None));
        steps += told.steps;
        windows += told.windows;
        starts += told.ledger.stories.values().map(|s| u64::from(s.starts)).sum::<u64>();
        for (sum, n) in scheduled.iter_mut().zip(told.ledger.scheduled) {
            *sum += n;
        }
        for (state, n) in told.ledger.states {
            *states.entry(state).or_insert(0) += n;
        }
    }
    println!(
        "{runs} seeds, {steps} steps, {starts} starts, {windows} windows of rates, {states:?}, fires, skips, held: {scheduled:?}"
    );
    // A simulation in which something never happens proves nothing about it.
    if runs >= RUNS {
        assert!(scheduled.iter().all(|n| *n > 0), "schedules did nothing: {scheduled:?}");
        use taskd::model::state::State;
        for state in [State::Success, State::Failure, State::Revoked, State::Expired, State::Dead] {
            assert!(states.contains_key(&state), "no message ever became {state}");
        }
    }
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in 0..200 {
        let (a, b) = (play(seed, None, false), play(seed, None, false));
        assert_eq!((a.hash, a.steps), (b.hash, b.steps), "seed {seed} is not repeatable");
        assert_ne!(a.hash, play(seed + 1, None, false).hash);
    }
}

#[test]
fn planted_bugs_are_caught() {
    let mut missed = Vec::new();
    for bug in planted::ALL {
        let caught = (0..CATCH_WITHIN).find_map(|seed| {
            let told = play(seed, Some(bug), false);
            told.result.err().map(|v| (seed, v))
        });
        match caught {
            Some((seed, v)) => println!("| {bug:?} | {} | {} |", v.name, seed + 1),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not caught within {CATCH_WITHIN} seeds: {missed:?}");
}
