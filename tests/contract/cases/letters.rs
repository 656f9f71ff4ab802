//! Dead letters: kept apart, counted, brought back, forgotten.

use taskd::model::letters::{
    LETTER_ROWS, LetterAct, LetterFilter, LetterGroup, LetterPlace, LetterStep, LetterTally,
};
use taskd::model::message::Message;
use taskd::model::op::{Filter, Op, Reply, Retention};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;
use taskd::model::unique::{Holds, OnConflict};

use super::claims::claimed;
use crate::harness::*;

/// A message that ended so.
fn ended(h: &mut dyn Harness, m: Message, state: State, ms: i64) {
    let name = m.id.0.clone();
    h.ok(publish(vec![m]));
    let d = lease(h, 1);
    assert_eq!(d[0].message.id.0, name);
    let outcome = Outcome::of_cause(Cause::WorkerLost, "killed");
    let s = taskd::model::op::Settle {
        now: at(ms),
        outcome,
        lost: true,
        expires_ms: Some(1_000),
        ..settle(&name, d[0].token, state)
    };
    assert!(end(h, s).0);
}

fn dead(h: &mut dyn Harness, name: &str, ms: i64) {
    ended(h, msg(name), State::Dead, ms);
}

fn step(h: &mut dyn Harness, filter: LetterFilter, act: LetterAct, from: Option<LetterPlace>) -> LetterTally {
    let op = LetterStep { filter, act, from, most: u64::MAX, now: at(10) };
    match h.ok(Op::Letters(Box::new(op))) {
        Reply::Letters(tally) => *tally,
        other => panic!("{other:?}"),
    }
}

fn any() -> LetterFilter {
    LetterFilter::default()
}

const RETRY: LetterAct = LetterAct::Retry { due: None, queue: None };

fn dead_in_q(h: &mut dyn Harness) -> u64 {
    counts(h).iter().find(|c| c.queue == "q").map_or(0, |c| c.dead)
}

pub fn letters_have_a_retention_of_their_own(h: &mut dyn Harness) {
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        dead(h, name, n as i64);
    }
    ended(h, msg("failed"), State::Failure, 3);
    finish(h, "done", 4, None);
    let none = Retention { age_ms: 0, count: 10, dead_age_ms: 10_000, dead_count: 10 };
    sweep_keeping(h, 2_000, none);
    h.restart();
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), ["c", "b", "a"], "only letters are left");
    assert_eq!(get(h, "a").unwrap().message, msg("a"), "with all that was enqueued");
    assert_eq!(dead_in_q(h), 3);
    sweep_keeping(h, 2_000, Retention { dead_count: 2, ..none });
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), ["c", "b"]);
    sweep_keeping(h, 10_001, none);
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), ["c"]);
    assert_eq!(dead_in_q(h), 1);
    assert!(get(h, "a").unwrap().outcome.is_none(), "its id is known for a day");
}

pub fn letters_are_counted_by_kind(h: &mut dyn Harness) {
    dead(h, "a", 1);
    ended(h, Message { task: "u".to_owned(), ..msg("b") }, State::Dead, 2);
    dead(h, "c", 3);
    ended(h, msg("failed"), State::Failure, 4);
    let kind =
        |state, task: &str| LetterGroup { state, task: task.to_owned(), cause: "worker_lost".to_owned() };
    let tally = step(h, any(), LetterAct::Count, None);
    assert_eq!((tally.matched, tally.done, tally.next), (3, 0, None));
    assert_eq!(tally.groups, [(kind(State::Dead, "t"), 2), (kind(State::Dead, "u"), 1)]);
    let tally = step(h, LetterFilter { failed: true, ..any() }, LetterAct::Count, None);
    assert_eq!((tally.matched, tally.groups[0].clone()), (4, (kind(State::Failure, "t"), 1)));
    for (filter, n) in [
        (LetterFilter { task: Some("?".to_owned()), ..any() }, 3),
        (LetterFilter { task: Some("u".to_owned()), ..any() }, 1),
        (LetterFilter { queue: Some("other".to_owned()), ..any() }, 0),
        (LetterFilter { since: Some(at(2)), until: Some(at(3)), ..any() }, 1),
        (LetterFilter { cause: Some("exit".to_owned()), failed: true, ..any() }, 0),
    ] {
        assert_eq!(step(h, filter.clone(), LetterAct::Count, None).matched, n, "{filter:?}");
        let listed = Filter { letters: Some(filter), limit: 10, ..Filter::default() };
        assert_eq!(list(h, listed).len() as u64, n);
    }
}

pub fn a_letter_begins_a_new_life(h: &mut dyn Harness) {
    for name in ["a", "b", "c"] {
        dead(h, name, 1);
    }
    let named = LetterFilter { ids: vec![id("a"), id("nothing")], ..any() };
    let tally = step(h, named, RETRY, None);
    assert_eq!((tally.matched, tally.done, tally.missing), (1, 1, vec![id("nothing")]));
    assert_eq!(tally.queues, ["q"]);
    let record = get(h, "a").unwrap();
    assert_eq!((record.state, record.attempt, record.losses), (State::Waiting, 0, 0));
    assert_eq!((record.outcome, record.finished), (None, None));
    let later = LetterAct::Retry { due: Some(at(500)), queue: Some("other".to_owned()) };
    let tally = step(h, any(), later, None);
    assert_eq!((tally.done, tally.queues), (2, vec!["other".to_owned()]));
    h.restart();
    let record = get(h, "b").unwrap();
    assert_eq!((record.state, record.due), (State::Scheduled, Some(at(500))));
    assert_eq!(record.message.queue, "other");
    assert_eq!(dead_in_q(h), 0);
    assert_eq!(step(h, any(), LetterAct::Count, None).matched, 0);
    assert_eq!(leased_ids(h, 5, 0), ["a"]);
}

pub fn a_letter_whose_key_is_held_stays(h: &mut dyn Harness) {
    let both = |name| claimed(name, Holds::Both, OnConflict::Replace);
    ended(h, both("a"), State::Dead, 1);
    ended(h, both("b"), State::Dead, 2);
    let tally = step(h, any(), RETRY, None);
    assert_eq!((tally.matched, tally.done), (2, 1));
    assert_eq!(tally.held, [(id("b"), id("a"))]);
    assert_eq!(get(h, "b").unwrap().state, State::Dead);
}

pub fn a_purged_letter_is_forgotten(h: &mut dyn Harness) {
    dead(h, "a", 1);
    dead(h, "b", 2);
    ended(h, msg("failed"), State::Failure, 3);
    let tally = step(h, LetterFilter { until: Some(at(2)), ..any() }, LetterAct::Purge, None);
    assert_eq!((tally.matched, tally.done), (1, 1));
    assert!(get(h, "a").is_some_and(|r| r.outcome.is_none() && r.message.args.is_empty()));
    let tally = step(h, LetterFilter { failed: true, ..any() }, LetterAct::Purge, None);
    assert_eq!(tally.done, 2);
    h.restart();
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), Vec::<String>::new());
    assert_eq!(dead_in_q(h), 0);
}

pub fn a_bulk_goes_in_bounded_steps_and_meets_none_twice(h: &mut dyn Harness) {
    let all = LETTER_ROWS + 100;
    h.ok(publish((0..all).map(|n| msg(&format!("m{n}"))).collect()));
    let mut ops = Vec::new();
    for d in lease(h, 1_000) {
        let outcome = Outcome::of_cause(Cause::WorkerLost, "killed");
        let s = taskd::model::op::Settle { outcome, now: at(1), ..settle("", d.token, State::Dead) };
        ops.push(Op::Settle(Box::new(taskd::model::op::Settle { id: d.message.id, ..s })));
    }
    h.all(ops);
    let first = step(h, any(), RETRY, None);
    assert_eq!((first.done, first.next.is_some()), (LETTER_ROWS as u64, true));
    // One of them dies anew before the next step: the bulk has met it already.
    let token = lease(h, 1)[0].token;
    assert!(end(h, settle("m0", token, State::Dead)).0);
    let second = step(h, any(), RETRY, first.next);
    assert_eq!((second.done, second.next), (100, None));
    assert_eq!(dead_in_q(h), 1);
    let limited = LetterStep { filter: any(), act: RETRY, from: None, most: 0, now: at(1) };
    let Reply::Letters(none) = h.ok(Op::Letters(Box::new(limited))) else { panic!() };
    assert_eq!((none.matched, none.next), (0, None));
}
