//! Handing out, under a token that guards every later write.

use taskd::model::message::{Message, Token};
use taskd::model::op::{Op, Reply, Takes};
use taskd::model::state::State;

use crate::harness::*;

pub fn a_lease_has_a_greater_token_and_counts_an_attempt(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b"), msg("c")]));
    let d = lease(h, 2);
    assert!(d[0].token < d[1].token);
    assert_eq!((d[0].attempt, d[0].losses, d[0].started), (1, 0, false));
    let record = get(h, "a").unwrap();
    assert_eq!((record.state, record.token, record.attempt), (State::Waiting, Some(d[0].token), 1));
    assert_eq!(count(h), (1, 0, 2, 0));
    assert_eq!(lease(h, 10).len(), 1);
    assert_eq!(lease(h, 10).len(), 0);
    let elsewhere = Op::Lease { queue: "nothing".to_owned(), credit: 1, now: at(0), skip: Vec::new() };
    assert_eq!(h.ok(elsewhere), Reply::Leased { deliveries: Vec::new(), opens: None });
}

pub fn an_expired_message_is_not_handed_out(h: &mut dyn Harness) {
    let expiring = |name, ms| Message { expires: Some(at(ms)), ..msg(name) };
    h.ok(publish(vec![expiring("a", 10), expiring("b", 11)]));
    assert_eq!(leased_ids(h, 10, 10), ["b"]);
    assert_eq!(get(h, "a").unwrap().state, State::Waiting, "only a sweep ends it");
}

pub fn a_paused_queue_hands_out_nothing_also_after_a_restart(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a")]));
    assert_eq!(h.ok(Op::QueueState { queue: "q".to_owned(), paused: true }), Reply::Done);
    h.restart();
    assert_eq!(leased_ids(h, 1, 0), Vec::<String>::new());
    assert!(counts(h)[0].paused);
    h.ok(Op::QueueState { queue: "never seen".to_owned(), paused: true });
    assert_eq!(counts(h).len(), 2);
    h.ok(Op::QueueState { queue: "never seen".to_owned(), paused: false });
    h.ok(Op::QueueState { queue: "q".to_owned(), paused: false });
    assert_eq!(counts(h).len(), 1);
    assert_eq!(leased_ids(h, 1, 0), ["a"]);
}

pub fn start_makes_it_running_and_a_repeat_changes_nothing(h: &mut dyn Harness) {
    let token = held(h, "a");
    for ms in [5, 6] {
        assert!(applied(h.ok(Op::Start { id: id("a"), token, now: at(ms), takes: Takes::default() })).0);
        let record = get(h, "a").unwrap();
        assert_eq!((record.state, record.started), (State::Running, Some(at(5))));
    }
    assert_eq!(count(h), (0, 0, 1, 0));
}

pub fn a_stale_token_changes_nothing(h: &mut dyn Harness) {
    let old = held(h, "a");
    h.ok(defer("a", old));
    let token = lease(h, 1)[0].token;
    let before = get(h, "a");
    for op in [
        Op::Start { id: id("a"), token: old, now: at(1), takes: Takes::default() },
        Op::Settle(Box::new(settle("a", old, State::Success))),
        defer("a", old),
        Op::Move { id: id("a"), token: Some(old), unknown: true, now: at(1) },
    ] {
        assert_eq!(applied(h.ok(op)), (false, before.clone()));
    }
    assert_eq!(get(h, "a"), before);
    assert_eq!(before.unwrap().token, Some(token));
    assert_eq!(end(h, settle("nobody", token, State::Success)), (false, None));
}

pub fn extend_names_what_is_gone(h: &mut dyn Harness) {
    let token = held(h, "a");
    let leases = vec![(id("a"), token), (id("b"), token), (id("a"), Token(token.0 + 1))];
    assert_eq!(h.ok(Op::Extend { leases }), Reply::Lost(vec![id("b"), id("a")]));
}

pub fn recover_finds_every_lease_after_a_restart(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b"), msg("c")]));
    let mut before = lease(h, 2);
    h.ok(Op::Start { id: id("b"), token: before[1].token, now: at(1), takes: Takes::default() });
    h.restart();
    before[1].started = true;
    assert_eq!(h.ok(Op::Recover), Reply::Deliveries(before.clone()));
    assert_eq!(count(h), (1, 0, 2, 0));
    assert!(end(h, settle("b", before[1].token, State::Success)).0, "the lease is still good");
}

pub fn tokens_grow_over_a_restart(h: &mut dyn Harness) {
    let first = held(h, "a");
    assert!(end(h, settle("a", first, State::Success)).0);
    h.restart();
    assert!(held(h, "b") > first);
}
