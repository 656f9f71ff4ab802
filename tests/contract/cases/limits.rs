//! Limits: what a start takes, and lanes.

use taskd::model::limit::Take;
use taskd::model::message::{Delivery, Message, Token};
use taskd::model::op::{Op, Reply, Takes};
use taskd::model::state::State;
use taskd::model::time::Wall;

use crate::harness::*;

/// One a second, so many at once.
fn rate(key: &str, burst: u32) -> Take {
    Take::Rate { key: key.to_owned(), interval_us: 1_000_000, burst }
}

fn place(key: &str, limit: u32) -> Take {
    Take::Place { key: key.to_owned(), limit }
}

/// The key of a limit on one value.
fn value(lane: &str) -> String {
    format!("rate:task:t {lane}")
}

fn in_lane(name: &str, lane: &str) -> Message {
    Message { lane: Some(lane.to_owned()), ..msg(name) }
}

fn start(name: &str, token: Token, list: Vec<Take>, ms: i64) -> Op {
    Op::Start { id: id(name), token, now: at(ms), takes: Takes { list, sure: false } }
}

fn sure(name: &str, token: Token, list: Vec<Take>, ms: i64) -> Op {
    Op::Start { id: id(name), token, now: at(ms), takes: Takes { list, sure: true } }
}

fn aside(name: &str, token: Token, lane: &str, blocked: Vec<Take>, ms: i64) -> Op {
    Op::Aside { id: id(name), token, lane: Some(lane.to_owned()), blocked, now: at(ms) }
}

fn closed(key: &str, until: Option<i64>) -> Reply {
    Reply::Closed { key: key.to_owned(), until: until.map(at) }
}

fn tat(ms: i64) -> i64 {
    at(ms).0 * 1_000
}

fn leased(h: &mut dyn Harness, credit: u32, ms: i64, skip: &[&str]) -> (Vec<Delivery>, Option<Wall>) {
    let skip = skip.iter().map(|s| (*s).to_owned()).collect();
    let op = Op::Lease { queue: "q".to_owned(), credit, now: at(ms), skip };
    let Reply::Leased { deliveries, opens } = h.ok(op) else { panic!() };
    (deliveries, opens)
}

/// Names and tokens of what a lease brings.
fn names(h: &mut dyn Harness, credit: u32, ms: i64) -> Vec<String> {
    leased(h, credit, ms, &[]).0.into_iter().map(|d| d.message.id.0).collect()
}

/// Leases one message.
fn one(h: &mut dyn Harness, name: &str, ms: i64) -> Token {
    let (deliveries, _) = leased(h, 1, ms, &[]);
    assert_eq!(deliveries.iter().map(|d| d.message.id.0.as_str()).collect::<Vec<_>>(), [name]);
    deliveries[0].token
}

pub fn a_start_takes_all_or_nothing(h: &mut dyn Harness) {
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=1"), in_lane("c", "u=2")]));
    let list = || vec![rate(&value("u=1"), 1), place("run:task:t", 2)];
    let a = one(h, "a", 0);
    assert_eq!(h.ok(start("a", a, list(), 0)), Reply::Took(vec![tat(1_000)]));
    assert_eq!(get(h, "a").unwrap().state, State::Running);
    // The other lane first: its turn is older.
    let c = one(h, "c", 0);
    let b = one(h, "b", 0);
    assert_eq!(h.ok(start("b", b, list(), 400)), closed(&value("u=1"), Some(1_000)));
    let back = get(h, "b").unwrap();
    assert_eq!((back.state, back.token, back.attempt), (State::Waiting, None, 1));
    // It took no place.
    assert_eq!(h.ok(start("c", c, vec![place("run:task:t", 2)], 400)), Reply::Took(vec![]));
    assert_eq!(counts(h)[0].waiting, 1);
    // Given back uncounted: the next lease is the same attempt.
    let (again, _) = leased(h, 9, 1_000, &[]);
    assert_eq!((again[0].message.id.0.as_str(), again[0].attempt), ("b", 1));
    assert_eq!(h.ok(start("b", again[0].token, list(), 1_000)), closed("run:task:t", None));
    assert_eq!(names(h, 9, 1_000), ["b"], "a limit on the whole task closes no lane");
}

pub fn a_start_that_was_decided_is_recorded_whatever_the_limits_say(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b"), msg("c")]));
    let d = leased(h, 3, 0, &[]).0;
    let list = || vec![rate("rate:task:t", 1), place("run:task:t", 1)];
    assert_eq!(h.ok(sure("a", d[0].token, list(), 0)), Reply::Took(vec![tat(1_000)]));
    assert_eq!(h.ok(sure("b", d[1].token, list(), 0)), Reply::Took(vec![tat(2_000)]));
    assert!(end(h, settle("a", d[0].token, State::Success)).0);
    assert_eq!(h.ok(start("c", d[2].token, list(), 3_000)), closed("run:task:t", None), "b holds it");
}

pub fn a_repeated_start_takes_nothing_more(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let d = leased(h, 2, 0, &[]).0;
    let list = || vec![rate("rate:task:t", 2), place("run:task:t", 2)];
    h.ok(start("a", d[0].token, list(), 0));
    assert!(applied(h.ok(start("a", d[0].token, list(), 0))).0);
    assert!(applied(h.ok(sure("a", d[0].token, list(), 0))).0);
    assert_eq!(h.ok(start("b", d[1].token, list(), 0)), Reply::Took(vec![tat(2_000)]));
    assert!(!applied(h.ok(start("b", d[0].token, list(), 0))).0, "under another token");
}

pub fn a_place_is_free_when_the_attempt_ends_however_it_ends(h: &mut dyn Harness) {
    let names = ["a", "b", "c", "d", "e"];
    h.ok(publish(names.iter().map(|n| msg(n)).collect()));
    let held: Vec<Token> = leased(h, 9, 0, &[]).0.iter().map(|d| d.token).collect();
    let take = |name: &str, n: usize| start(name, held[n], vec![place("run:task:t", 1)], 0);
    let free = |h: &mut dyn Harness, name: &str, n: usize| {
        assert_eq!(h.ok(take(name, n)), Reply::Took(vec![]), "{name}");
    };
    free(h, "a", 0);
    assert!(end(h, settle("a", held[0], State::Failure)).0);
    free(h, "b", 1);
    let retry = taskd::model::op::Settle { due: Some(at(99)), ..settle("b", held[1], State::Retry) };
    assert!(end(h, retry).0);
    free(h, "c", 2);
    h.ok(defer("c", held[2]));
    free(h, "d", 3);
    h.ok(Op::Move { id: id("d"), token: Some(held[3]), unknown: true, now: at(0) });
    free(h, "e", 4);
    let last = h.one(take("e", 4));
    assert!(applied(last.unwrap()).0);
}

pub fn places_and_rates_outlive_a_restart(h: &mut dyn Harness) {
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=1")]));
    let d = leased(h, 2, 0, &[]).0;
    h.ok(start("a", d[0].token, vec![rate(&value("u=1"), 1), place("run:task:t u=1", 1)], 0));
    h.restart();
    assert_eq!(
        h.ok(start("b", d[1].token, vec![place("run:task:t u=1", 1)], 0)),
        closed("run:task:t u=1", None)
    );
    h.restart();
    assert_eq!(names(h, 9, 0), Vec::<String>::new(), "its lane is closed still");
    assert!(end(h, settle("a", d[0].token, State::Success)).0);
    let b = one(h, "b", 1);
    assert_eq!(h.ok(start("b", b, vec![rate(&value("u=1"), 1)], 500)), closed(&value("u=1"), Some(1_000)));
    h.restart();
    assert_eq!(leased(h, 9, 999, &[]), (vec![], Some(at(1_000))));
    assert_eq!(names(h, 9, 1_000), ["b"]);
}

pub fn an_end_counts_what_its_start_could_not(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b"), msg("c"), msg("d")]));
    let d = leased(h, 4, 0, &[]).0;
    let takes = || vec![rate("rate:task:t", 1), place("run:task:t", 1)];
    let s = taskd::model::op::Settle { takes: takes(), ..settle("a", d[0].token, State::Success) };
    assert!(end(h, s).0);
    let back = Op::Defer {
        id: id("b"),
        token: d[1].token,
        until: None,
        counted: true,
        lost: true,
        takes: takes(),
        now: at(0),
    };
    assert!(applied(h.ok(back)).0);
    // Its start was recorded: it was counted then.
    h.ok(sure("c", d[2].token, takes(), 0));
    let s = taskd::model::op::Settle { takes: takes(), ..settle("c", d[2].token, State::Success) };
    assert!(end(h, s).0);
    assert_eq!(h.ok(sure("d", d[3].token, takes(), 0)), Reply::Took(vec![tat(4_000)]), "a, b, c and d");
}

pub fn a_closed_lane_opens_in_time_and_others_pass(h: &mut dyn Harness) {
    h.ok(publish((0..4).map(|n| in_lane(&format!("a{n}"), "u=1")).collect()));
    let d = leased(h, 2, 0, &[]).0;
    let list = || vec![rate(&value("u=1"), 1)];
    assert_eq!(h.ok(start("a0", d[0].token, list(), 0)), Reply::Took(vec![tat(1_000)]));
    assert_eq!(h.ok(aside("a1", d[1].token, "u=1", list(), 10)), closed(&value("u=1"), Some(1_000)));
    h.ok(publish(vec![in_lane("b", "u=2"), msg("plain"), in_lane("a4", "u=1")]));
    let (d, opens) = leased(h, 9, 500, &[]);
    assert_eq!(d.iter().map(|d| d.message.id.0.as_str()).collect::<Vec<_>>(), ["plain", "b"]);
    assert_eq!(opens, Some(at(1_000)));
    assert_eq!(names(h, 9, 1_000), ["a1", "a2", "a3", "a4"], "in their order");
    assert_eq!(leased(h, 9, 1_000, &[]), (vec![], None));
}

pub fn a_lane_that_waits_for_a_place_opens_when_it_is_released(h: &mut dyn Harness) {
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=1"), in_lane("c", "u=1")]));
    let d = leased(h, 2, 0, &[]).0;
    let key = "run:task:t u=1";
    h.ok(start("a", d[0].token, vec![place(key, 1)], 0));
    assert_eq!(h.ok(aside("b", d[1].token, "u=1", vec![place(key, 1)], 0)), closed(key, None));
    assert_eq!(leased(h, 9, 1_000_000, &[]), (vec![], None), "not by time");
    assert_eq!(counts(h)[0].waiting, 2);
    assert!(end(h, settle("a", d[0].token, State::Success)).0);
    assert_eq!(names(h, 9, 0), ["b", "c"]);
}

pub fn a_lane_is_not_closed_for_what_is_free_again(h: &mut dyn Harness) {
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=1")]));
    let d = leased(h, 2, 0, &[]).0;
    let key = "run:task:t u=1";
    let answers = h.all(vec![
        start("a", d[0].token, vec![place(key, 1)], 0),
        Op::Settle(Box::new(settle("a", d[0].token, State::Success))),
        aside("b", d[1].token, "u=1", vec![place(key, 1)], 0),
    ]);
    assert!(applied(answers[2].clone().unwrap()).0);
    assert_eq!(names(h, 9, 0), ["b"]);
}

pub fn a_clock_that_goes_back_opens_what_was_closed_later(h: &mut dyn Harness) {
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=1")]));
    let d = leased(h, 2, 0, &[]).0;
    h.ok(start("a", d[0].token, vec![rate(&value("u=1"), 1)], 7_200_000));
    assert_eq!(
        h.ok(start("b", d[1].token, vec![rate(&value("u=1"), 1)], 7_200_000)),
        closed(&value("u=1"), Some(7_201_000))
    );
    let b = one(h, "b", 10);
    assert_eq!(
        h.ok(start("b", b, vec![rate(&value("u=1"), 1)], 10)),
        closed(&value("u=1"), Some(1_010)),
        "one interval from now, not two hours"
    );
    let b = one(h, "b", 1_010);
    assert_eq!(h.ok(start("b", b, vec![rate(&value("u=1"), 1)], 1_010)), Reply::Took(vec![tat(2_010)]));
}

pub fn lanes_take_turns(h: &mut dyn Harness) {
    for (lane, n) in [("u=1", 8), ("u=2", 1), ("u=3", 3)] {
        h.ok(publish((0..n).map(|i| in_lane(&format!("{}{i}", &lane[2..]), lane)).collect()));
    }
    assert_eq!(names(h, 6, 0), ["10", "20", "30", "11", "31", "12"], "an equal share each");
    h.ok(publish(vec![in_lane("40", "u=4")]));
    assert_eq!(names(h, 1, 0), ["13"], "the first of those served by the same lease");
    assert_eq!(names(h, 2, 0), ["32", "40"], "an empty one costs nobody a turn");
    h.restart();
    assert_eq!(names(h, 9, 0), ["14", "15", "16", "17"], "one lane alone gets all");
}

pub fn lanes_and_the_rest_are_merged_by_rank(h: &mut dyn Harness) {
    for n in 0..3 {
        let two = vec![msg(&format!("p{n}")), in_lane(&format!("l{n}"), "u=1")];
        h.ok(Op::Publish { messages: two, max_length: vec![], now: at(n) });
    }
    assert_eq!(names(h, 4, 9), ["p0", "l0", "p1", "l1"]);
    assert_eq!(names(h, 4, 9), ["p2", "l2"]);
}

pub fn tasks_are_passed_over(h: &mut dyn Harness) {
    let other = Message { task: "o".to_owned(), ..in_lane("o", "") };
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", ""), other, msg("plain")]));
    let (d, opens) = leased(h, 9, 0, &["t"]);
    let mut got: Vec<&str> = d.iter().map(|d| d.message.id.0.as_str()).collect();
    got.sort_unstable();
    assert_eq!((got, opens), (vec!["o", "plain"], None));
    let mut rest = names(h, 9, 0);
    rest.sort_unstable();
    assert_eq!(rest, ["a", "b"]);
}

pub fn an_expired_message_does_not_hold_its_lane_up(h: &mut dyn Harness) {
    let stale = Message { expires: Some(at(5)), ..in_lane("stale", "u=1") };
    h.ok(publish(vec![stale, in_lane("fresh", "u=1")]));
    assert_eq!(names(h, 1, 6), ["fresh"]);
    sweep(h, 6);
    assert_eq!(get(h, "stale").unwrap().state, State::Expired);
}

pub fn a_message_changes_its_lane(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let d = leased(h, 2, 0, &[]).0;
    assert!(applied(h.ok(aside("a", d[0].token, "u=1", vec![], 0))).0);
    let long = Message { args: vec![serde_json::json!("x".repeat(4_000))], ..msg("long") };
    h.ok(publish(vec![long]));
    let l = leased(h, 9, 0, &["t"]).0;
    assert_eq!(l.iter().map(|d| d.message.id.0.as_str()).collect::<Vec<_>>(), ["long"]);
    assert!(applied(h.ok(aside("long", l[0].token, "u=2", vec![], 0))).0);
    h.restart();
    let back = leased(h, 9, 0, &[]).0;
    let lanes: Vec<_> =
        back.iter().map(|d| (d.message.id.0.as_str(), d.message.lane.as_deref(), d.attempt)).collect();
    assert_eq!(lanes, [("a", Some("u=1"), 1), ("long", Some("u=2"), 1)]);
    let out = Op::Aside { id: id("a"), token: back[0].token, lane: None, blocked: vec![], now: at(0) };
    assert!(applied(h.ok(out)).0);
    assert_eq!(leased(h, 9, 0, &["t"]).0[0].message.lane, None);
    assert!(!applied(h.ok(aside("b", Token(1), "u=1", vec![], 0))).0, "an old token");
    let b = d[1].token;
    h.ok(Op::Start { id: id("b"), token: b, now: at(0), takes: Takes::default() });
    assert!(!applied(h.ok(aside("b", b, "u=1", vec![], 0))).0, "it runs");
}

pub fn everything_waits_in_its_lane_again_however_it_came(h: &mut dyn Harness) {
    let later = Message { eta: Some(at(50)), ..in_lane("later", "u=1") };
    h.ok(publish(vec![later, in_lane("back", "u=2"), in_lane("set-aside", "u=3"), in_lane("again", "u=4")]));
    let d = leased(h, 9, 0, &[]).0;
    let token = |name: &str| d.iter().find(|d| d.message.id.0 == name).unwrap().token;
    assert_eq!(names(h, 9, 0), Vec::<String>::new(), "the lanes are empty and dropped");
    h.ok(defer("back", token("back")));
    h.ok(Op::Move { id: id("set-aside"), token: Some(token("set-aside")), unknown: true, now: at(0) });
    assert!(end(h, settle("again", token("again"), State::Failure)).0);
    assert_eq!(names(h, 9, 0), ["back"]);
    h.ok(Op::Known { tasks: vec!["t".to_owned()], now: at(0) });
    assert_eq!(names(h, 9, 0), ["set-aside"]);
    h.ok(Op::Requeue { id: id("again"), now: at(1) });
    assert_eq!(names(h, 9, 1), ["again"]);
    sweep(h, 50);
    assert_eq!(names(h, 9, 50), ["later"]);
}

pub fn a_purge_empties_lanes(h: &mut dyn Harness) {
    h.ok(publish((0..200).map(|n| in_lane(&format!("m{n}"), &format!("u={n}"))).collect()));
    assert_eq!(h.ok(Op::Purge { queue: "q".to_owned(), now: at(0) }), Reply::Purged(200));
    h.ok(publish(vec![in_lane("new", "u=new")]));
    let mut got = Vec::new();
    for _ in 0..30 {
        got.extend(names(h, 1, 0));
    }
    assert_eq!(got, ["new"]);
}

pub fn closed_lanes_are_opened_when_limits_change(h: &mut dyn Harness) {
    let other = Message { task: "o".to_owned(), queue: "p".to_owned(), ..in_lane("o", "u=1") };
    h.ok(publish(vec![in_lane("a", "u=1"), in_lane("b", "u=2"), other]));
    let mut all = leased(h, 9, 0, &[]).0;
    all.extend(deliveries(h.ok(Op::Lease { queue: "p".to_owned(), credit: 1, now: at(0), skip: vec![] })));
    let slow = |lane: &str| Take::Place { key: value(lane), limit: 0 };
    for d in &all {
        let lane = d.message.lane.clone().unwrap();
        h.ok(aside(&d.message.id.0, d.token, &lane, vec![slow(&lane)], 0));
    }
    assert_eq!(names(h, 9, 0), Vec::<String>::new());
    let swept = |queues: &[&str]| Reply::Swept {
        queues: queues.iter().map(|q| (*q).to_owned()).collect(),
        expired: vec![],
        next: None,
        more: false,
    };
    assert_eq!(h.ok(Op::Open { task: Some("t".to_owned()) }), swept(&["q"]));
    assert_eq!(names(h, 9, 0), ["a", "b"]);
    assert_eq!(h.ok(Op::Open { task: None }), swept(&["p"]));
    assert_eq!(h.ok(Op::Open { task: None }), swept(&[]));
}

pub fn a_rate_is_forgotten_when_it_is_past(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), msg("b")]));
    let d = leased(h, 2, 0, &[]).0;
    h.ok(start("a", d[0].token, vec![rate("rate:task:t", 1)], 0));
    sweep(h, 999);
    assert_eq!(
        h.ok(start("b", d[1].token, vec![rate("rate:task:t", 1)], 999)),
        closed("rate:task:t", Some(1_000))
    );
    sweep(h, 1_000);
    let b = one(h, "b", 1_000);
    assert_eq!(h.ok(start("b", b, vec![rate("rate:task:t", 1)], 1_000)), Reply::Took(vec![tat(2_000)]));
}
