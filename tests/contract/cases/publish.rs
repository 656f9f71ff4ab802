//! Accepting messages.

use serde_json::json;
use taskd::model::message::Message;
use taskd::model::op::{Fault, Op, Published, Reply, Takes};
use taskd::model::state::State;

use crate::harness::*;

fn bounded(messages: Vec<Message>, bound: u64) -> Op {
    let max_length = messages.iter().map(|_| Some(bound)).collect();
    Op::Publish { messages, max_length, now: at(0) }
}

fn full(bound: u64) -> Reply {
    Reply::QueueFull { queue: "q".to_owned(), max_length: bound }
}

pub fn a_batch_is_stored_and_known_ids_are_answered_with_what_is_there(h: &mut dyn Harness) {
    let later = Message { eta: Some(at(5_000)), ..msg("later") };
    let past = Message { eta: Some(at(0)), ..msg("past") };
    let all = vec![msg("a"), later.clone(), past];
    assert_eq!(h.ok(publish(all)), Reply::Published(vec![Published::New; 3]));
    assert_eq!(get(h, "a").unwrap().state, State::Waiting);
    assert_eq!(get(h, "past").unwrap().state, State::Waiting);
    let scheduled = get(h, "later").unwrap();
    assert_eq!((scheduled.state, scheduled.due, &scheduled.message), (State::Scheduled, later.eta, &later));

    let other = Message { args: vec![json!("other")], ..msg("a") };
    let Reply::Published(replies) = h.ok(publish(vec![msg("new"), other])) else { panic!() };
    assert_eq!(replies[0], Published::New);
    let Published::Known(known) = &replies[1] else { panic!() };
    assert_eq!((&known.message, known.state), (&msg("a"), State::Waiting));

    lease(h, 10);
    finish(h, "z", 0, None);
    h.restart();
    let known = h.ok(publish(vec![msg("z")]));
    let Reply::Published(replies) = known else { panic!() };
    let Published::Known(known) = &replies[0] else { panic!("a finished id is known") };
    assert_eq!((known.state, known.outcome.clone()), (State::Success, Some(success())));
}

pub fn a_duplicate_inside_one_batch_is_known(h: &mut dyn Harness) {
    let second = Message { args: vec![json!(2)], ..msg("a") };
    let Reply::Published(replies) = h.ok(publish(vec![msg("a"), second])) else { panic!() };
    assert_eq!(replies[0], Published::New);
    assert!(matches!(&replies[1], Published::Known(r) if r.message == msg("a")));
    assert_eq!(count(h), (1, 0, 0, 0));
}

pub fn a_full_queue_stores_nothing_of_a_batch(h: &mut dyn Harness) {
    let later = Message { eta: Some(at(1)), ..msg("b") };
    h.ok(bounded(vec![msg("a"), later], 3));
    assert_eq!(h.ok(bounded(vec![msg("c"), msg("d")], 3)), full(3));
    assert_eq!(get(h, "c"), None);
    assert_eq!(count(h), (1, 1, 0, 0));
    let elsewhere = Message { queue: "other".to_owned(), ..msg("e") };
    let mixed =
        Op::Publish { messages: vec![msg("c"), elsewhere], max_length: vec![Some(3), Some(1)], now: at(0) };
    assert_eq!(h.ok(mixed), Reply::Published(vec![Published::New; 2]));
    assert_eq!(h.ok(bounded(vec![msg("d")], 3)), full(3));
    // No bound: it goes in.
    assert_eq!(h.ok(publish(vec![msg("d")])), Reply::Published(vec![Published::New]));
}

pub fn known_ids_do_not_fill_a_queue(h: &mut dyn Harness) {
    h.ok(bounded(vec![msg("a"), msg("a"), msg("b")], 2));
    assert_eq!(count(h).0, 2);
    let again = h.ok(bounded(vec![msg("b"), msg("a")], 2));
    assert!(matches!(again, Reply::Published(r) if r.iter().all(|p| matches!(p, Published::Known(_)))));
}

pub fn what_is_leased_fills_its_queue_until_it_starts(h: &mut dyn Harness) {
    h.ok(bounded(vec![msg("a")], 1));
    let token = lease(h, 1)[0].token;
    assert_eq!(h.ok(bounded(vec![msg("b")], 1)), full(1));
    h.restart();
    assert_eq!(h.ok(bounded(vec![msg("b")], 1)), full(1));
    for _ in 0..2 {
        h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    }
    h.restart();
    assert_eq!(h.ok(bounded(vec![msg("b")], 1)), Reply::Published(vec![Published::New]));
    assert_eq!(h.ok(bounded(vec![msg("c")], 1)), full(1));
    assert_eq!(count(h), (1, 0, 1, 0));
    // What comes back after its start waits again, beyond the bound if need be.
    h.ok(defer("a", token));
    assert_eq!(h.ok(bounded(vec![msg("c")], 2)), full(2));
    assert_eq!(count(h), (2, 0, 0, 0));
}

pub fn bounds_that_do_not_fit_are_refused(h: &mut dyn Harness) {
    let op = Op::Publish { messages: vec![msg("a"), msg("b")], max_length: vec![None], now: at(0) };
    assert!(matches!(h.one(op), Err(Fault::Refused(_))));
    assert_eq!(get(h, "a"), None);
}

pub fn ids_of_every_spelling_come_back_as_given(h: &mut dyn Harness) {
    let spellings = [
        "0198f1a2-7b3c-7d4e-8f50-123456789abc",
        "0198F1A2-7B3C-7D4E-8F50-123456789ABC",
        "0198f1a27b3c7d4e8f50123456789abc",
        "order:17",
        "x",
    ];
    h.ok(publish(spellings.iter().map(|s| msg(s)).collect()));
    h.restart();
    for s in spellings {
        assert_eq!(get(h, s).unwrap().message.id.0, s);
    }
    assert_eq!(leased_ids(h, 10, 0), spellings);
}

pub fn long_messages_come_back_whole(h: &mut dyn Harness) {
    let long = Message { args: vec![json!("x".repeat(300_000))], ..msg("long") };
    h.ok(publish(vec![long.clone()]));
    assert_eq!(get(h, "long").unwrap().message, long);
    let d = lease(h, 1);
    assert_eq!(d[0].message, long);
    h.restart();
    assert!(end(h, settle("long", d[0].token, State::Failure)).0);
    assert_eq!(get(h, "long").unwrap().message, long);
    h.ok(Op::Requeue { id: id("long"), now: at(1) });
    assert_eq!(lease(h, 1)[0].message, long);
}
