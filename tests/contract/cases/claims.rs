//! Uniqueness: who holds a key, and what becomes of who comes second.

use taskd::model::message::Message;
use taskd::model::op::{Op, Published, Reply, Settle, Takes};
use taskd::model::outcome::Cause;
use taskd::model::state::State;
use taskd::model::unique::{Claim, Holds, OnConflict};

use crate::harness::*;

pub fn claimed(name: &str, holds: Holds, on_conflict: OnConflict) -> Message {
    let claim = Claim { key: "t {}".to_owned(), holds, period_ms: None, on_conflict };
    Message { unique: Some(claim), ..msg(name) }
}

fn both(name: &str) -> Message {
    claimed(name, Holds::Both, OnConflict::Return)
}

fn published(h: &mut dyn Harness, messages: Vec<Message>) -> Vec<Published> {
    published_at(h, messages, 0)
}

fn published_at(h: &mut dyn Harness, messages: Vec<Message>, ms: i64) -> Vec<Published> {
    match h.ok(publish_at(messages, ms)) {
        Reply::Published(each) => each,
        other => panic!("{other:?}"),
    }
}

/// Who holds the key, found out by enqueuing; what is stored by it is ended again.
fn holder(h: &mut dyn Harness, ms: i64) -> Option<String> {
    let probe = claimed("probe", Holds::Both, OnConflict::Return);
    match published_at(h, vec![probe], ms).remove(0) {
        Published::Held(record) => Some(record.message.id.0),
        Published::New => {
            h.ok(Op::Revoke { id: id("probe"), now: at(ms) });
            let requeued = h.ok(Op::Requeue { id: id("probe"), now: at(ms) });
            assert!(matches!(requeued, Reply::Record(_)), "it is free again");
            h.ok(Op::Revoke { id: id("probe"), now: at(ms) });
            // Its id is to be new at the next look.
            forget(h);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn forget(h: &mut dyn Harness) {
    use taskd::model::op::Retention;
    let none = Retention { age_ms: 0, count: 0, ..Retention::default() };
    sweep_keeping(h, 200_000_000, none);
    sweep_keeping(h, 200_000_000, none);
}

pub fn the_second_is_answered_with_the_first(h: &mut dyn Harness) {
    assert_eq!(published(h, vec![both("a")]), [Published::New]);
    h.restart();
    let told = published(h, vec![both("b"), msg("c")]);
    assert!(matches!(&told[0], Published::Held(r) if r.message == both("a") && r.state == State::Waiting));
    assert_eq!(told[1], Published::New);
    assert_eq!((get(h, "b"), count(h).0), (None, 2));
    // The same id again is what it is, whoever holds the key.
    assert!(matches!(&published(h, vec![both("a")])[0], Published::Known(_)));
    let token = lease(h, 1)[0].token;
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    assert!(matches!(&published(h, vec![both("b")])[0], Published::Held(r) if r.state == State::Running));
    assert!(end(h, settle("a", token, State::Success)).0);
    h.restart();
    assert_eq!(published(h, vec![both("b")]), [Published::New]);
}

pub fn one_that_may_not_be_second_is_refused_with_its_batch(h: &mut dyn Harness) {
    published(h, vec![both("a")]);
    let error = |name| claimed(name, Holds::Both, OnConflict::Error);
    let Reply::Taken { of, holder, record } = h.ok(publish(vec![msg("x"), error("b")])) else { panic!() };
    assert_eq!((of, holder, record.unwrap().message), (id("b"), id("a"), both("a")));
    assert_eq!(get(h, "x"), None, "all or none");
    // Two of one batch stand in each other's way too.
    h.ok(Op::Revoke { id: id("a"), now: at(0) });
    let answer = h.ok(publish(vec![error("b"), error("c")]));
    assert_eq!(answer, Reply::Taken { of: id("c"), holder: id("b"), record: None });
    assert_eq!((get(h, "b"), count(h)), (None, (0, 0, 0, 0)));
}

pub fn duplicates_inside_a_batch_stand_in_each_others_way(h: &mut dyn Harness) {
    let told = published(h, vec![both("a"), both("b"), both("a")]);
    assert_eq!(told[0], Published::New);
    assert!(matches!(&told[1], Published::Held(r) if r.message.id == id("a")));
    assert!(matches!(&told[2], Published::Known(r) if r.message.id == id("a")));
    h.ok(Op::Revoke { id: id("a"), now: at(0) });
    let replace = |name| claimed(name, Holds::Queued, OnConflict::Replace);
    let told = published(h, vec![replace("c"), replace("d"), replace("e")]);
    assert_eq!(told, [Published::New, Published::Replaced(id("c")), Published::Replaced(id("d"))]);
    assert_eq!(get(h, "d").unwrap().state, State::Revoked);
    assert_eq!(count(h).0, 1);
}

pub fn what_waits_is_replaced_in_one_step(h: &mut dyn Harness) {
    let later = Message { eta: Some(at(5_000)), ..both("a") };
    published(h, vec![later]);
    let replace = |name| claimed(name, Holds::Both, OnConflict::Replace);
    assert_eq!(published(h, vec![replace("b")]), [Published::Replaced(id("a"))]);
    h.restart();
    let gone = get(h, "a").unwrap();
    assert_eq!((gone.state, gone.finished), (State::Revoked, Some(at(0))));
    let outcome = gone.outcome.unwrap();
    assert_eq!(outcome.cause, Cause::Revoked);
    assert!(outcome.failure.unwrap().message.contains("b has the same key"));
    assert_eq!(count(h), (1, 0, 0, 0));
    // What a node took and did not start must come back first.
    let token = lease(h, 1)[0].token;
    let leased = Reply::InHand { holder: id("b"), key: "t {}".to_owned() };
    assert_eq!(h.ok(publish(vec![msg("x"), replace("c")])), leased);
    assert_eq!(get(h, "x"), None, "nothing was stored");
    let answers = h.all(vec![defer("b", token), publish(vec![replace("c")])]);
    assert_eq!(answers[1], Ok(Reply::Published(vec![Published::Replaced(id("b"))])));
    // What runs stays.
    let token = lease(h, 1)[0].token;
    h.ok(Op::Start { id: id("c"), token, now: at(1), takes: Takes::default() });
    assert!(matches!(&published(h, vec![replace("d")])[0], Published::Held(r) if r.message.id == id("c")));
    // Between two attempts it waits.
    let retry = Settle { due: Some(at(100)), ..settle("c", token, State::Retry) };
    assert!(end(h, retry).0);
    assert_eq!(published(h, vec![replace("d")]), [Published::Replaced(id("c"))]);
}

pub fn a_replaced_message_makes_room_in_its_queue(h: &mut dyn Harness) {
    let bounded = |m: Message| Op::Publish { messages: vec![m], max_length: vec![Some(1)], now: at(0) };
    h.ok(bounded(both("a")));
    let replace = claimed("b", Holds::Both, OnConflict::Replace);
    assert_eq!(h.ok(bounded(replace)), Reply::Published(vec![Published::Replaced(id("a"))]));
    assert!(matches!(h.ok(bounded(both("c"))), Reply::Published(r) if matches!(r[0], Published::Held(_))));
    assert!(matches!(h.ok(bounded(msg("d"))), Reply::QueueFull { .. }));
}

pub fn a_key_is_held_for_as_long_as_was_asked(h: &mut dyn Harness) {
    for (holds, while_leased, while_running, in_retry) in [
        (Holds::Queued, true, false, false),
        (Holds::Running, false, true, false),
        (Holds::Both, true, true, true),
    ] {
        let name = holds.word();
        published(h, vec![claimed(name, holds, OnConflict::Return)]);
        let token = lease(h, 1)[0].token;
        let held = |yes: bool| yes.then(|| name.to_owned());
        assert_eq!(holder(h, 1), held(while_leased), "{name}, leased");
        h.ok(Op::Start { id: id(name), token, now: at(1), takes: Takes::default() });
        h.ok(Op::Start { id: id(name), token, now: at(1), takes: Takes::default() });
        h.restart();
        assert_eq!(holder(h, 1), held(while_running), "{name}, running");
        let s = Settle { due: Some(at(100)), ..settle(name, token, State::Retry) };
        assert!(end(h, s).0);
        assert_eq!(holder(h, 1), held(in_retry), "{name}, between attempts");
        sweep(h, 100);
        let token = deliveries(h.ok(lease_at(1, 100)))[0].token;
        h.ok(Op::Start { id: id(name), token, now: at(100), takes: Takes::default() });
        assert_eq!(holder(h, 101), held(while_running), "{name}, running again");
        h.ok(Op::Defer {
            id: id(name),
            token,
            until: None,
            counted: true,
            lost: false,
            now: at(101),
            takes: Vec::new(),
        });
        assert_eq!(holder(h, 101), held(in_retry), "{name}, given back");
        h.ok(Op::Revoke { id: id(name), now: at(101) });
        h.restart();
        assert_eq!(holder(h, 102), None, "{name}, over");
    }
}

pub fn who_claims_for_its_run_waits_beside_others(h: &mut dyn Harness) {
    let running = |name| claimed(name, Holds::Running, OnConflict::Return);
    assert_eq!(published(h, vec![running("a"), running("b")]), [Published::New, Published::New]);
    let token = lease(h, 1)[0].token;
    assert_eq!(published(h, vec![running("c")]), [Published::New]);
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    assert!(matches!(&published(h, vec![running("d")])[0], Published::Held(r) if r.message.id == id("a")));
    h.ok(Op::Move { id: id("a"), token: Some(token), unknown: true, now: at(1) });
    assert_eq!(published(h, vec![running("d")]), [Published::New], "what was put aside runs no more");
}

pub fn a_period_bounds_the_hold_from_acceptance(h: &mut dyn Harness) {
    let for_a_second = |name| {
        let mut m = both(name);
        m.unique.as_mut().unwrap().period_ms = Some(1_000);
        m
    };
    published_at(h, vec![for_a_second("a")], 100);
    h.restart();
    assert!(matches!(published_at(h, vec![both("b")], 1_099)[0], Published::Held(_)));
    assert_eq!(published_at(h, vec![both("b")], 1_100), [Published::New]);
    // The first one has lost it for good, and its end frees nothing of the second's.
    h.ok(Op::Revoke { id: id("a"), now: at(1_200) });
    assert!(matches!(&published_at(h, vec![both("c")], 0)[0], Published::Held(r) if r.message.id == id("b")));
    h.ok(Op::Revoke { id: id("b"), now: at(1_200) });
    // A final state frees the key before the period is over.
    published_at(h, vec![for_a_second("d")], 2_000);
    h.ok(Op::Revoke { id: id("d"), now: at(2_001) });
    assert_eq!(published_at(h, vec![both("e")], 2_002), [Published::New]);
}

pub fn every_end_of_a_life_frees_its_key(h: &mut dyn Harness) {
    // Purged, expired, expired in the unknown set, rejected, purged while it is set aside.
    published(h, vec![both("purged")]);
    h.ok(Op::Purge { queue: "q".to_owned(), now: at(0) });
    let expiring = |name| Message { expires: Some(at(10)), ..both(name) };
    assert_eq!(published(h, vec![expiring("expired")]), [Published::New]);
    sweep(h, 10);
    assert_eq!(published(h, vec![expiring("aside")]), [Published::New]);
    h.ok(Op::Move { id: id("aside"), token: None, unknown: true, now: at(0) });
    assert!(
        matches!(published(h, vec![both("x")])[0], Published::Held(_)),
        "what is set aside holds its key"
    );
    sweep(h, 10);
    assert_eq!(published(h, vec![both("rejected")]), [Published::New]);
    let token = lease(h, 1)[0].token;
    assert!(end(h, settle("rejected", token, State::Failure)).0);
    assert_eq!(published(h, vec![both("dead")]), [Published::New]);
    let token = lease(h, 1)[0].token;
    assert!(end(h, settle("dead", token, State::Dead)).0);
    assert_eq!(published(h, vec![both("last")]), [Published::New]);
}

pub fn a_new_life_claims_again_or_is_refused(h: &mut dyn Harness) {
    published(h, vec![both("a")]);
    h.ok(Op::Revoke { id: id("a"), now: at(0) });
    published(h, vec![claimed("b", Holds::Both, OnConflict::Replace)]);
    let again = |h: &mut dyn Harness, name: &str| h.ok(Op::Requeue { id: id(name), now: at(5) });
    let Reply::Taken { of, holder, record } = again(h, "a") else { panic!() };
    assert_eq!((of, holder, record.unwrap().state), (id("a"), id("b"), State::Waiting));
    assert_eq!(get(h, "a").unwrap().state, State::Revoked);
    h.ok(Op::Revoke { id: id("b"), now: at(5) });
    assert!(matches!(again(h, "a"), Reply::Record(Some(r)) if r.state == State::Waiting));
    // A new life replaces nobody, whatever its message would do.
    assert!(matches!(again(h, "b"), Reply::Taken { holder, .. } if holder == id("a")));
    assert!(matches!(published(h, vec![both("c")])[0], Published::Held(_)));
}

pub fn what_nobody_waits_for_is_told_by_its_record(h: &mut dyn Harness) {
    published(h, vec![both("a")]);
    let tick = |name, planned| Op::Once { key: "s".to_owned(), at: at(planned), message: both(name) };
    assert_eq!(h.ok(tick("tick", 1)), Reply::Once(true));
    let record = get(h, "tick").unwrap();
    assert_eq!(record.state, State::Revoked);
    assert!(record.outcome.unwrap().failure.unwrap().message.contains("a held its key"));
    let follow_up = claimed("next", Holds::Both, OnConflict::Return);
    let token = lease(h, 1)[0].token;
    let s = Settle { follow_ups: vec![follow_up], ..settle("a", token, State::Success) };
    assert!(end(h, s).0);
    assert_eq!(get(h, "next").unwrap().state, State::Waiting, "the end of its parent frees the key first");
    assert_eq!(h.ok(tick("tick", 2)), Reply::Once(true));
    let replace = Op::Once {
        key: "s".to_owned(),
        at: at(3),
        message: claimed("new", Holds::Both, OnConflict::Replace),
    };
    h.ok(replace);
    let states = ["next", "new"].map(|name| get(h, name).unwrap().state);
    assert_eq!(states, [State::Revoked, State::Waiting]);
}
