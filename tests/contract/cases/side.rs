//! Counts, lists, facts and nodes; and what is stored once for a time.

use taskd::model::message::{Message, Token};
use taskd::model::op::{Filter, Memo, Op, QueueCount, Reply, Settle};
use taskd::model::state::State;

use crate::harness::*;

pub fn counts_follow_every_move(h: &mut dyn Harness) {
    assert_eq!(counts(h), []);
    let later = Message { eta: Some(at(100)), ..msg("later") };
    let elsewhere = Message { queue: "b".to_owned(), ..msg("elsewhere") };
    h.ok(publish(vec![msg("a"), later, elsewhere]));
    let count_of = |queue: &str, waiting, scheduled| QueueCount {
        queue: queue.to_owned(),
        waiting,
        scheduled,
        ..QueueCount::default()
    };
    assert_eq!(counts(h), [count_of("b", 1, 0), count_of("q", 1, 1)]);
    h.restart();
    assert_eq!(counts(h), [count_of("b", 1, 0), count_of("q", 1, 1)]);
    let token = lease(h, 1)[0].token;
    end(h, settle("a", token, State::Success));
    sweep(h, 100);
    assert_eq!(counts(h), [count_of("b", 1, 0), count_of("q", 1, 0)]);
}

pub fn list_is_newest_first_and_filters(h: &mut dyn Harness) {
    finish(h, "done", 0, None);
    let other = Message {
        task: "other".to_owned(),
        uid: Some(7),
        enqueued: at(5),
        queue: "o".to_owned(),
        ..msg("other")
    };
    let elsewhere = Message { queue: "e".to_owned(), ..msg("elsewhere") };
    let later = Message { eta: Some(at(100)), ..msg("later") };
    h.ok(publish(vec![other, elsewhere, later]));
    finish(h, "wins", 0, None);
    let limit = 10;
    let all = || Filter { limit, ..Filter::default() };
    h.restart();
    assert_eq!(list(h, all()), ["wins", "later", "elsewhere", "other", "done"]);
    assert_eq!(list(h, Filter { limit: 2, ..all() }), ["wins", "later"]);
    assert_eq!(list(h, Filter { limit: 0, ..all() }), ["wins"]);
    assert_eq!(list(h, Filter { states: vec![State::Success], ..all() }), ["wins", "done"]);
    assert_eq!(
        list(h, Filter { states: vec![State::Scheduled, State::Success], limit: 2, ..all() }),
        ["wins", "later"]
    );
    assert_eq!(list(h, Filter { queue: Some("e".to_owned()), ..all() }), ["elsewhere"]);
    assert_eq!(list(h, Filter { queue: Some("nothing".to_owned()), ..all() }), Vec::<String>::new());
    assert_eq!(list(h, Filter { task: Some("other".to_owned()), ..all() }), ["other"]);
    assert_eq!(list(h, Filter { uid: Some(7), ..all() }), ["other"]);
    assert_eq!(list(h, Filter { since: Some(at(5)), ..all() }), ["other"]);
}

pub fn list_keeps_its_place_in_the_order_of_operations(h: &mut dyn Harness) {
    for n in 0..50 {
        let name = format!("m{n}");
        let limit = Filter { limit: 1, ..Filter::default() };
        let answers = h.all(vec![publish(vec![msg(&name)]), Op::List(limit)]);
        let Ok(Reply::Records(records)) = &answers[1] else { panic!() };
        assert_eq!(records[0].message.id.0, name);
    }
}

pub fn a_schedule_fires_once_for_a_planned_time(h: &mut dyn Harness) {
    let tick = |ms, name: &str| Op::Once { key: "s".to_owned(), at: at(ms), message: msg(name) };
    assert_eq!(h.ok(tick(0, "a")), Reply::Once(true));
    h.restart();
    assert_eq!(h.ok(tick(0, "b")), Reply::Once(false));
    assert_eq!(h.ok(tick(60_000, "c")), Reply::Once(true));
    assert_eq!(h.ok(tick(120_000, "c")), Reply::Once(true), "a known message changes nothing");
    assert_eq!(leased_ids(h, 10, 0), ["a", "c"]);
}

pub fn ticks_of_long_ago_count_as_fired(h: &mut dyn Harness) {
    let tick = |n: i64| Op::Once { key: "s".to_owned(), at: at(n), message: msg("m") };
    h.all((1..=1_025).map(tick).collect());
    assert_eq!(h.ok(tick(0)), Reply::Once(false));
    assert_eq!(h.ok(tick(1)), Reply::Once(false), "forgotten, but fired");
    assert_eq!(h.ok(tick(2)), Reply::Once(false));
    assert_eq!(h.ok(tick(1_026)), Reply::Once(true));
}

pub fn nodes_know_each_other_for_a_day(h: &mut dyn Harness) {
    let mut node = |name: &str, ms| {
        let op = Op::Node { name: name.to_owned(), announce: format!("{{\"at\":{ms}}}"), now: at(ms) };
        let Reply::Nodes(nodes) = h.ok(op) else { panic!() };
        nodes.into_iter().map(|(name, announce, at)| (name, announce, at.0 - T0)).collect::<Vec<_>>()
    };
    let told = |name: &str, ms: i64| (name.to_owned(), format!("{{\"at\":{ms}}}"), ms);
    assert_eq!(node("b", 0), [told("b", 0)]);
    assert_eq!(node("a", 5), [told("a", 5), told("b", 0)]);
    assert_eq!(node("b", 7), [told("a", 5), told("b", 7)]);
    assert_eq!(node("b", 86_400_006), [told("b", 86_400_006)]);
}

pub fn facts_are_kept_until_they_are_withdrawn(h: &mut dyn Harness) {
    let memo = |key: &str, value: Option<&str>| Memo { key: key.to_owned(), value: value.map(str::to_owned) };
    let recall = |h: &mut dyn Harness, prefix: &str, after: &str| {
        let op = Op::Recall { prefix: prefix.to_owned(), after: after.to_owned() };
        let Reply::Memos(memos) = h.ok(op) else { panic!() };
        memos.into_iter().map(|m| (m.key, m.value.unwrap())).collect::<Vec<_>>()
    };
    let known = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let first = vec![memo("rate:a", Some("1")), memo("rate:b", Some("2")), memo("ratex", Some("3"))];
    assert_eq!(h.ok(Op::Remember(first)), Reply::Done);
    h.ok(Op::Remember(vec![memo("rate:a", Some("4")), memo("rate:b", None), memo("rate:c", Some("5"))]));
    h.restart();
    assert_eq!(recall(h, "rate:", ""), [known("rate:a", "4"), known("rate:c", "5")]);
    assert_eq!(recall(h, "rate:", "rate:a"), [known("rate:c", "5")]);
    assert_eq!(recall(h, "nothing", ""), []);
    // With the end of an attempt, and only where that took place.
    let token = held(h, "a");
    let settled = |token| Settle { memos: vec![memo("s", Some("1"))], ..settle("a", token, State::Success) };
    assert!(!end(h, settled(Token(token.0 + 1))).0);
    assert_eq!(recall(h, "s", ""), []);
    assert!(end(h, settled(token)).0);
    assert_eq!(recall(h, "s", ""), [known("s", "1")]);
}
