//! When crontab(5) expressions fire, beside two implementations that share nothing with ours: Debian's own loop,
//! and the crate croner. `SEED=n` draws other expressions, `RUNS=n` so many for each change of the clocks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what is wrong by panicking"
)]

mod calendar;
mod compare;
mod debian;
mod draw;
mod reasons;
#[path = "../sim/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;
mod zones;

use std::collections::BTreeMap;

use debian::Window;
use reasons::Verdict;
use rng::Rng;
use taskd::model::time::Wall;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Counts of verdicts; every difference that is not named is kept.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<Verdict, u64>,
    faults: Vec<String>,
}

impl Tally {
    fn take(
        &mut self,
        what: &str,
        text: &str,
        window: &Window,
        verdict: Verdict,
        ours: &[i64],
        theirs: &[i64],
    ) {
        *self.counts.entry(verdict).or_default() += 1;
        if verdict == Verdict::Unnamed && self.faults.len() < 10 {
            let only = |a: &[i64], b: &[i64]| {
                a.iter().copied().filter(|at| !b.contains(at)).take(5).collect::<Vec<_>>()
            };
            self.faults.push(format!(
                "{text:?} in {} around {} (by {} s), beside {what}: only ours {:?}, only theirs {:?}, {} and {}",
                window.zone,
                window.change,
                window.jump,
                only(ours, theirs),
                only(theirs, ours),
                ours.len(),
                theirs.len(),
            ));
        }
    }

    fn end(&self, what: &str) {
        println!("{what}: {:?}", self.counts);
        assert!(self.faults.is_empty(), "beside {what}:\n{}", self.faults.join("\n"));
    }
}

#[test]
fn every_zone_and_change_agrees_with_two_others() {
    let (seed, runs) = (number("SEED", 1), number("RUNS", 3));
    let mut rng = Rng::new(seed);
    let (mut debian, mut croner) = (Tally::default(), Tally::default());
    let zones = zones::changing();
    assert!(zones.len() > 100, "the system's tzdata was not found: {} zones change", zones.len());
    println!("{} zones, {} changes", zones.len(), zones.iter().map(|(_, c)| c.len()).sum::<usize>());
    for (zone, changes) in &zones {
        for change in changes {
            let wide = rng.chance(100);
            let window = Window::new(zone, *change, if wide { 1600 } else { 300 });
            for _ in 0..runs {
                let six = rng.chance(50) && !wide;
                let drawn = draw::expression(&mut rng, six);
                let Some(timing) = compare::timing(&drawn, &window) else { continue };
                let (text, ours) = (drawn.text(), compare::ours(&timing, window.span()));
                let (verdict, theirs) = compare::with_debian(&drawn, &ours, &window);
                debian.take("Debian", &text, &window, verdict, &ours, &theirs);
                let (verdict, theirs) = compare::with_croner(&drawn, &ours, &window);
                croner.take("croner", &text, &window, verdict, &ours, &theirs);
                jumps(&mut rng, &timing, &ours, window.span());
            }
        }
    }
    debian.end("Debian");
    croner.end("croner");
}

/// Whoever asks from the middle is told the same as who came from the front; and so of the last ones.
fn jumps(rng: &mut Rng, timing: &taskd::cron::Timing, all: &[i64], (from, until): (i64, i64)) {
    for _ in 0..4 {
        let a = rng.between(from as u64 * 1000, until as u64 * 1000) as i64;
        let b = rng.between(a as u64, until as u64 * 1000) as i64;
        let next = all.iter().copied().find(|at| at * 1000 > a).map(|at| at * 1000);
        if let Some(next) = next {
            assert_eq!(timing.next(Wall(a)).map(|p| p.at.0), Some(next), "next after {a} of {timing:?}");
        }
        let within: Vec<i64> = all.iter().map(|at| at * 1000).filter(|at| *at > a && *at <= b).collect();
        let latest = timing.latest(Wall(a), Wall(b)).map(|p| p.at.0);
        assert_eq!(latest, within.last().copied(), "latest in ({a}, {b}] of {timing:?}");
        let most = rng.below(5) as usize;
        let last: Vec<i64> = timing.between(Wall(a), Wall(b), most).iter().map(|p| p.at.0).collect();
        assert_eq!(
            last,
            within[within.len().saturating_sub(most)..],
            "the last {most} in ({a}, {b}] of {timing:?}"
        );
    }
}

/// A named difference is worth its name only where it occurs: one case of each, and what ours says there.
#[test]
fn every_reason_has_a_case() {
    use draw::{Drawn, Field};
    let field =
        |text: &str, values: Vec<u32>| Field { text: text.to_owned(), values: values.into_iter().collect() };
    let all = |from: u32, to: u32| field("*", (from..=to).collect());
    let daily = |minute: Field, hour: Field| Drawn {
        second: None,
        minute,
        hour,
        day: all(1, 31),
        month: all(1, 12),
        weekday: all(0, 6),
    };
    let at = |minute: u32, hour: u32| {
        daily(field(&minute.to_string(), vec![minute]), field(&hour.to_string(), vec![hour]))
    };
    // 29 March 2026 in Paris, at 01:00Z, and 30 March 2025 in Nuuk, where the 29th ends an hour early.
    let (paris, nuuk) =
        (Window::new("Europe/Paris", 1_774_746_000, 1600), Window::new("America/Nuuk", 1_743_296_400, 1600));
    let twice = daily(field("15,45", vec![15, 45]), field("2", vec![2]));
    let saturdays = Drawn { weekday: field("6", vec![6]), ..at(30, 23) };
    let steps =
        Drawn { day: field("*/2", (1..=31).step_by(2).collect()), weekday: field("1", vec![1]), ..at(0, 12) };
    let sunday = Drawn { weekday: field("sun-sun", vec![0]), ..at(0, 12) };
    for (drawn, window, debian, croner) in [
        (
            &twice,
            &paris,
            Verdict::Named(reasons::ONCE_AT_THE_CHANGE),
            Verdict::Named(reasons::LISTS_ARE_WILD),
        ),
        (&saturdays, &nuuk, Verdict::Same, Verdict::Named(reasons::GAP_OVER_MIDNIGHT)),
        (&steps, &paris, Verdict::Same, Verdict::Named(reasons::STAR_STEP_DAYS)),
        (&sunday, &paris, Verdict::Same, Verdict::Named(reasons::SUNDAY_ENDS)),
    ] {
        let ours = compare::ours(&compare::timing(drawn, window).unwrap(), window.span());
        assert_eq!(compare::with_debian(drawn, &ours, window).0, debian, "{}", drawn.text());
        assert_eq!(compare::with_croner(drawn, &ours, window).0, croner, "{}", drawn.text());
    }
}
