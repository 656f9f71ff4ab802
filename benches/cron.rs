//! 2,000 drawn expressions in four zones, at every change of their clocks in two years, beside Debian's loop and
//! croner: how many differ, and why. Then what a start with 10,000 of them costs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench says what is wrong by panicking"
)]

#[path = "../tests/cron/compare.rs"]
mod compare;
#[path = "../tests/cron/debian.rs"]
mod debian;
#[path = "../tests/cron/draw.rs"]
mod draw;
#[path = "harness/figure.rs"]
#[allow(dead_code, reason = "only rounds with a limit are needed")]
mod figure;
#[path = "../tests/cron/reasons.rs"]
mod reasons;
#[path = "../tests/sim/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;

use std::collections::BTreeMap;
use std::time::Instant;

use debian::Window;
use figure::{Better, Figure};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reasons::Verdict;
use rng::Rng;
use taskd::cron::{Expr, Timing, Zone};
use taskd::model::time::Wall;

const ZONES: [&str; 4] = ["America/New_York", "Europe/Paris", "Australia/Lord_Howe", "Africa/Cairo"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The changes of these zones in 2026 and 2027, with the day before and after each.
fn windows() -> Vec<Window> {
    let from: Timestamp = "2026-01-01T00:00Z".parse().unwrap();
    let until: Timestamp = "2028-01-01T00:00Z".parse().unwrap();
    let changes = |zone: &'static str| {
        let tz = TimeZone::get(zone).unwrap();
        let all: Vec<i64> = tz
            .following(from)
            .map(|c| c.timestamp())
            .take_while(|at| *at < until)
            .map(|at| at.as_second())
            .collect();
        all.into_iter().map(move |at| Window::new(zone, at, 1600))
    };
    ZONES.into_iter().flat_map(changes).collect()
}

/// Prints the counts beside one of the two; how many are not named.
fn table(what: &str, counts: &BTreeMap<(String, Verdict), u64>) -> u64 {
    println!("\n| beside {what} | {} |\n|---|---|---|---|---|", ZONES.join(" | "));
    let mut verdicts: Vec<Verdict> = counts.keys().map(|(_, verdict)| *verdict).collect();
    verdicts.extend([Verdict::Same, Verdict::Unnamed]);
    verdicts.sort_unstable();
    verdicts.dedup();
    for verdict in &verdicts {
        let name = match verdict {
            Verdict::Same => "the same",
            Verdict::Named(reason) => reason,
            Verdict::Unnamed => "**not named**",
        };
        let cells = ZONES.map(|z| counts.get(&(z.to_owned(), *verdict)).unwrap_or(&0).to_string());
        println!("| {name} | {} |", cells.join(" | "));
    }
    counts.iter().filter(|((_, verdict), _)| *verdict == Verdict::Unnamed).map(|(_, n)| n).sum()
}

fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() -> std::process::ExitCode {
    let (seed, n, rounds) = (setting("SEED", 1), setting("N", 2000), setting("ROUNDS", 5));
    let windows = windows();
    let mut rng = Rng::new(seed);
    let (mut debian, mut croner) = (BTreeMap::new(), BTreeMap::new());
    let (mut expressions, mut planned) = (0, 0);
    while expressions < n {
        let drawn = draw::expression(&mut rng, false);
        // Days that never come are refused and do not count.
        if Expr::parse(&drawn.text()).is_err() {
            continue;
        }
        expressions += 1;
        for window in &windows {
            let timing = compare::timing(&drawn, window).unwrap();
            let ours = compare::ours(&timing, window.span());
            planned += ours.len();
            for (counts, (verdict, _)) in [
                (&mut debian, compare::with_debian(&drawn, &ours, window)),
                (&mut croner, compare::with_croner(&drawn, &ours, window)),
            ] {
                if verdict == Verdict::Unnamed {
                    println!("not named: {:?} in {} at {}", drawn.text(), window.zone, window.change);
                }
                *counts.entry((window.zone.clone(), verdict)).or_insert(0) += 1;
            }
        }
    }
    println!(
        "{expressions} expressions, {} zones, {} changes of clocks: {} cases, {planned} planned times",
        ZONES.len(),
        windows.len(),
        expressions as usize * windows.len()
    );
    let unnamed = table("Debian's loop", &debian) + table("croner", &croner);
    println!("\ndifferences that are not named: {unnamed}\n");
    let holds = [unnamed == 0, start(&mut rng, rounds)];
    figure::exit(&holds)
}

/// What a start with 10,000 schedules reads and asks for.
fn start(rng: &mut Rng, rounds: u64) -> bool {
    let texts: Vec<(String, Zone)> = std::iter::from_fn(|| Some(draw::expression(rng, false).text()))
        .filter(|text| Expr::parse(text).is_ok())
        .zip(ZONES.iter().cycle())
        .map(|(text, zone)| (text, Zone::named(zone).unwrap()))
        .take(10_000)
        .collect();
    let now = Wall(1_790_000_000_000);
    let mut whole = Figure::new(
        "cron_start",
        "10,000 schedules read and asked for their next time",
        "ms",
        "allowed",
        Some((Better::Lower, 1.0)),
    );
    let mut next = Figure::new("cron_next", "the next time of one of them", "µs", "croner", None);
    for round in 0..rounds {
        let before = resident_kb();
        let started = Instant::now();
        let timings: Vec<Timing> = texts
            .iter()
            .map(|(text, zone)| Timing::Cron { expr: Expr::parse(text).unwrap(), zone: zone.clone() })
            .collect();
        let read = started.elapsed();
        let asked = Instant::now();
        assert!(timings.iter().all(|t| t.next(now).is_some()));
        let asked = asked.elapsed();
        if round == 0 {
            println!("  {read:?} to read, {asked:?} to ask, {:.0} KB", resident_kb() - before);
        }
        whole.round(500.0, (read + asked).as_secs_f64() * 1e3);
        next.round(croner_next(&texts, now), asked.as_secs_f64() * 1e6 / timings.len() as f64);
    }
    next.end();
    whole.end()
}

/// The same of croner, µs each.
fn croner_next(texts: &[(String, Zone)], now: Wall) -> f64 {
    let some: Vec<_> = texts
        .iter()
        .step_by(10)
        .filter_map(|(text, zone)| Some((text.parse::<croner::Cron>().ok()?, zone.time_zone().clone())))
        .collect();
    let started = Instant::now();
    for (cron, tz) in &some {
        let now = Timestamp::from_millisecond(now.0).unwrap().to_zoned(tz.clone());
        // Croner gives up on days some years away.
        let _ = std::hint::black_box(cron.find_next_occurrence(&now, false));
    }
    started.elapsed().as_secs_f64() * 1e6 / some.len() as f64
}
