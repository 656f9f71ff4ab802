//! Limits in the engine: what it decides by itself, what it asks, what it puts aside.

use crate::engine::command::{Command, Told};
use crate::engine::event::Ask;
use crate::engine::plan::Plan;
use crate::engine::rate::{InForce, Limited, NewRate, Origin};
use crate::engine::testbed::Bed;
use crate::model::limit::{RateLimit, Throttle};
use crate::model::name::MessageId;
use crate::model::op::Op;
use crate::model::state::State;

fn rate(count: u32, burst: u32) -> RateLimit {
    RateLimit { count, period_ms: 1_000, burst }
}

fn limited(rate: Option<RateLimit>, concurrency: Option<u32>) -> impl FnOnce(&mut Plan) {
    move |p| {
        p.pools.get_mut("default").unwrap().processes = 4;
        p.tasks.get_mut("t").unwrap().throttle = Throttle { rate, concurrency, ..Throttle::default() };
    }
}

/// Of each start since the last look: whether the store may not refuse it.
fn starts(bed: &mut Bed) -> Vec<bool> {
    let sure = |c: &Command| match c {
        Command::Broker(_, Op::Start { takes, .. }) => Some(takes.sure),
        _ => None,
    };
    bed.take().iter().filter_map(sure).collect()
}

#[test]
fn it_asks_once_and_decides_by_itself_from_then_on() {
    let mut bed = Bed::with(limited(Some(rate(100, 3)), None));
    for id in ["a", "b", "c"] {
        bed.enqueue(id);
    }
    assert_eq!(starts(&mut bed), [false, true, true]);
    assert_eq!(bed.running().len(), 3);
    bed.enqueue("d");
    assert_eq!(bed.running().len(), 3, "the burst is used up");
    bed.pass(9);
    assert_eq!(bed.running().len(), 3);
    bed.pass(1);
    assert_eq!(bed.running().len(), 4);
}

#[test]
fn a_slow_rate_is_asked_of_each_time_and_what_waits_for_it_is_put_aside() {
    let mut bed = Bed::with(limited(Some(rate(1, 2)), None));
    for id in ["a", "b", "c"] {
        bed.enqueue(id);
    }
    assert_eq!(starts(&mut bed), [false, false]);
    assert_eq!((bed.running().len(), bed.engine.held()), (2, 2), "the third waits in the store");
    bed.pass(999);
    assert_eq!(bed.running().len(), 2);
    bed.pass(1);
    assert_eq!(starts(&mut bed), [false]);
    assert_eq!(bed.running().len(), 3);
}

#[test]
fn a_place_is_given_on_when_an_attempt_ends() {
    let mut bed = Bed::with(limited(None, Some(2)));
    for id in ["a", "b", "c", "d"] {
        bed.enqueue(id);
    }
    assert_eq!((bed.running().len(), bed.engine.held()), (2, 2));
    let run = bed.running().remove(0);
    bed.succeed(&run);
    assert_eq!(bed.running().len(), 2);
    assert_eq!(["a", "b", "c", "d"].iter().filter(|id| bed.state(id) == State::Success).count(), 1);
    assert!(!starts(&mut bed).contains(&false), "who holds places is known here");
}

#[test]
fn what_comes_to_another_queue_while_its_task_is_closed_starts_when_it_is_open() {
    let mut bed = Bed::with(|p| {
        limited(Some(rate(1, 1)), None)(p);
        let queue = p.queues["default"].clone();
        p.queues.insert("other".into(), queue);
    });
    bed.enqueue("a");
    bed.enqueue("b");
    bed.enqueue_in("c", "other");
    bed.pass(1_000);
    bed.pass(1_000);
    assert_eq!(bed.running().len(), 3);
}

#[test]
fn a_shared_store_is_asked_of_everything() {
    let mut bed = Bed::with(|p| {
        limited(Some(rate(100, 9)), Some(9))(p);
        p.shared = true;
    });
    for id in ["a", "b", "c"] {
        bed.enqueue(id);
    }
    assert_eq!(starts(&mut bed), [false, false, false]);
}

#[test]
fn why_says_which_limit_and_when() {
    let mut bed = Bed::with(limited(Some(RateLimit { count: 10, period_ms: 60_000, burst: 1 }), None));
    bed.enqueue("a");
    bed.enqueue("b");
    let why = |bed: &mut Bed| match bed.ask(Ask::Why(MessageId("b".into()))) {
        Some(Told::Why(Some((_, why)))) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&mut bed), "it waits for the rate_limit 10/m of the task t: its next start is in 6.0 s");
    bed.pass(2_500);
    assert_eq!(why(&mut bed), "it waits for the rate_limit 10/m of the task t: its next start is in 3.5 s");
    let mut bed = Bed::with(limited(None, Some(1)));
    bed.enqueue("a");
    bed.enqueue("b");
    assert_eq!(why(&mut bed), "it waits for a place: the task t runs 1 of at most 1 at once (concurrency)");
}

#[test]
fn a_changed_rate_holds_at_once_and_a_reload_ends_it() {
    let mut bed = Bed::with(limited(Some(RateLimit { count: 1, period_ms: 86_400_000, burst: 1 }), None));
    for id in ["a", "b", "c"] {
        bed.enqueue(id);
    }
    assert_eq!(bed.running().len(), 1);
    let whose = || Limited::Task("t".into());
    let set = |bed: &mut Bed, rate, keep| bed.ask(Ask::Rate { whose: whose(), rate, keep });
    let Some(Told::Rate(Some(InForce { rate: None, origin: Origin::Now, .. }))) =
        set(&mut bed, NewRate::None, false)
    else {
        panic!("not told");
    };
    assert_eq!(bed.running().len(), 3, "what waited starts");
    bed.reload(|_| {});
    assert_eq!(bed.engine.rate(&whose()).unwrap().origin, Origin::Config);
    set(&mut bed, NewRate::Rate(rate(5, 2)), true);
    bed.reload(|_| {});
    let kept = bed.engine.rate(&whose()).unwrap();
    assert_eq!((kept.rate, kept.origin), (Some(rate(5, 2)), Origin::Kept));
    assert!(bed.take().iter().any(|c| matches!(c, Command::Broker(_, Op::Remember(_)))));
    set(&mut bed, NewRate::Default, false);
    assert_eq!(bed.engine.rate(&whose()).unwrap().origin, Origin::Config);
    assert_eq!(
        bed.ask(Ask::Rate { whose: Limited::Queue("x".into()), rate: NewRate::None, keep: true }),
        Some(Told::Rate(None))
    );
}

#[test]
fn a_limit_that_a_reload_brings_counts_what_runs() {
    let mut bed = Bed::with(limited(None, None));
    bed.enqueue("a");
    bed.enqueue("b");
    bed.reload(limited(None, Some(2)));
    bed.enqueue("c");
    assert_eq!(bed.running().len(), 2);
    let run = bed.running().remove(0);
    bed.succeed(&run);
    assert_eq!(bed.running().len(), 2);
}

#[test]
fn what_is_known_of_rates_is_bounded() {
    let mut limits = super::Limits::default();
    for n in 0..10_000 {
        let take = || vec![super::Take::Rate { key: format!("k{n}"), interval_us: 1_000, burst: 1 }];
        limits.commit(&take(), super::Wall(0), true);
        let grip = super::Grip { takes: super::Takes { list: take(), sure: true }, open: true };
        limits.answered(&grip, &[], false);
    }
    assert!(limits.rates.len() <= super::KEYS + 1 && limits.used.len() <= super::KEYS + 1);
    assert!(limits.rates.contains_key("k9999") && !limits.rates.contains_key("k0"));
}
