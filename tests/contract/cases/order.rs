//! Who goes first.

use taskd::model::message::Message;
use taskd::model::op::{Op, Takes};

use crate::harness::*;

fn urgent(name: &str, priority: u8) -> Message {
    Message { priority, ..msg(name) }
}

pub fn priority_first_then_order_of_acceptance(h: &mut dyn Harness) {
    h.ok(publish(vec![urgent("a0", 0), urgent("b9", 9), urgent("c5", 5), urgent("d9", 9), urgent("e0", 0)]));
    h.restart();
    assert_eq!(leased_ids(h, 10, 0), ["b9", "d9", "c5", "a0", "e0"]);
}

pub fn a_minute_of_waiting_is_worth_a_step_of_priority(h: &mut dyn Harness) {
    h.ok(publish_at(vec![urgent("old", 0)], 0));
    h.ok(publish_at(vec![urgent("just before", 3)], 3 * 60_000 - 1));
    h.ok(publish_at(vec![urgent("same", 3)], 3 * 60_000));
    h.ok(publish_at(vec![urgent("after", 3)], 3 * 60_000 + 1));
    assert_eq!(leased_ids(h, 10, 0), ["just before", "old", "same", "after"]);
}

pub fn a_clock_that_goes_back_reorders_nothing(h: &mut dyn Harness) {
    h.ok(publish_at(vec![msg("first")], 0));
    h.ok(publish_at(vec![msg("second")], -3_600_000));
    h.restart();
    h.ok(publish_at(vec![msg("third")], -7_200_000));
    assert_eq!(leased_ids(h, 10, 0), ["first", "second", "third"]);
}

pub fn an_empty_store_follows_the_clock_back(h: &mut dyn Harness) {
    // A wrong clock a day ahead, once, must not put priority out of force for a day.
    finish(h, "ahead", 0, None);
    h.ok(publish_at(vec![msg("far")], 86_400_000));
    let d = lease(h, 1);
    h.ok(Op::Settle(Box::new(settle("far", d[0].token, taskd::model::state::State::Success))));
    h.ok(publish_at(vec![urgent("a", 0)], 0));
    h.ok(publish_at(vec![urgent("b", 1)], 59_000));
    h.ok(publish_at(vec![urgent("c", 1)], 61_000));
    assert_eq!(leased_ids(h, 10, 0), ["b", "a", "c"]);
}

pub fn given_back_uncounted_it_keeps_its_place(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let d = lease(h, 1);
    let back = Op::Defer {
        id: id("a"),
        token: d[0].token,
        until: None,
        counted: false,
        lost: false,
        now: at(9),
        takes: Vec::new(),
    };
    assert!(applied(h.ok(back)).0);
    h.restart();
    let d = lease(h, 2);
    assert_eq!(d[0].message.id, id("a"));
    assert_eq!((d[0].attempt, d[1].attempt), (1, 1), "uncounted: the attempt is the same one");
    let back = Op::Defer {
        id: id("a"),
        token: d[0].token,
        until: None,
        counted: true,
        lost: false,
        now: at(9),
        takes: Vec::new(),
    };
    h.ok(back);
    assert_eq!(lease(h, 1)[0].attempt, 2);
}

pub fn given_back_counted_it_keeps_its_place(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let token = lease(h, 1)[0].token;
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    let back = Op::Defer {
        id: id("a"),
        token,
        until: None,
        counted: true,
        lost: false,
        now: at(9),
        takes: Vec::new(),
    };
    assert!(applied(h.ok(back)).0);
    h.restart();
    let d = lease(h, 2);
    assert_eq!((d[0].message.id.0.as_str(), d[0].attempt, d[0].losses), ("a", 2, 0));
    assert_eq!((d[1].message.id.0.as_str(), d[1].attempt), ("b", 1));
}

pub fn given_back_lost_it_goes_behind(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let d = lease(h, 1);
    let back = Op::Defer {
        id: id("a"),
        token: d[0].token,
        until: None,
        counted: true,
        lost: true,
        now: at(9),
        takes: Vec::new(),
    };
    assert!(applied(h.ok(back)).0);
    let d = lease(h, 2);
    assert_eq!((d[0].message.id.0.as_str(), d[0].attempt), ("b", 1));
    assert_eq!((d[1].message.id.0.as_str(), d[1].attempt), ("a", 2));
}

pub fn a_deferred_one_gets_its_place_back_when_due(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("kept"), msg("lost")]));
    let d = lease(h, 2);
    h.ok(publish_at(vec![msg("later")], 10));
    for (d, counted) in d.iter().zip([false, true]) {
        let (id, token) = (d.message.id.clone(), d.token);
        h.ok(Op::Defer {
            id,
            token,
            until: Some(at(100)),
            counted,
            lost: false,
            now: at(20),
            takes: Vec::new(),
        });
    }
    assert_eq!(count(h), (1, 2, 0, 0));
    assert_eq!(sweep(h, 99).queues, Vec::<String>::new());
    assert_eq!(sweep(h, 100).queues, ["q"]);
    assert_eq!(leased_ids(h, 10, 100), ["kept", "later", "lost"]);
}
