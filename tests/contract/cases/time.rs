//! What time does.

use taskd::model::message::Message;
use taskd::model::op::{Fault, Filter, Op, Published, Reply, Retention};
use taskd::model::outcome::Cause;
use taskd::model::state::State;

use crate::harness::*;

const DAY: i64 = 86_400_000;

fn known(h: &mut dyn Harness, name: &str) -> bool {
    matches!(h.ok(publish(vec![msg(name)])), Reply::Published(r) if r[0] != Published::New)
}

pub fn due_messages_wait_and_expired_ones_end(h: &mut dyn Harness) {
    h.ok(publish(vec![
        Message { eta: Some(at(10)), ..msg("a") },
        Message { eta: Some(at(10)), expires: Some(at(10)), ..msg("b") },
        Message { expires: Some(at(9)), queue: "other".to_owned(), ..msg("c") },
        Message { eta: Some(at(11)), ..msg("d") },
    ]));
    h.restart();
    let swept = sweep(h, 10);
    assert_eq!((swept.queues, swept.expired), (vec!["q".to_owned()], vec![id("c"), id("b")]));
    assert!(!swept.more);
    assert_eq!(count(h), (1, 1, 0, 0));
    let record = get(h, "b").unwrap();
    assert_eq!((record.state, record.finished, record.due), (State::Expired, Some(at(10)), None));
    assert_eq!(record.outcome.unwrap().cause, Cause::Expired);
    let record = get(h, "a").unwrap();
    assert_eq!((record.state, record.due), (State::Waiting, None));
}

pub fn sweep_tells_when_the_next_is(h: &mut dyn Harness) {
    assert_eq!(sweep(h, 0).next, None);
    h.ok(publish(vec![
        Message { eta: Some(at(10)), ..msg("a") },
        Message { expires: Some(at(20)), ..msg("b") },
    ]));
    assert_eq!(sweep(h, 0).next, Some(at(10)));
    assert_eq!(sweep(h, 10).next, Some(at(20)));
    assert_eq!(leased_ids(h, 2, 10).len(), 2);
    assert_eq!(sweep(h, 10).next, None, "what is leased does not expire");
}

pub fn a_sweep_is_bounded(h: &mut dyn Harness) {
    h.ok(publish((0..1_500).map(|n| Message { eta: Some(at(n)), ..msg(&format!("m{n}")) }).collect()));
    assert!(sweep(h, 2_000).more);
    assert_eq!(count(h), (1_001, 499, 0, 0), "m0 was never scheduled");
    assert!(!sweep(h, 2_000).more);
    assert_eq!(count(h), (1_500, 0, 0, 0));
}

pub fn outcomes_go_first_and_ids_are_kept_a_day(h: &mut dyn Harness) {
    finish(h, "own", 0, Some(1_000));
    finish(h, "default", 0, None);
    let retention = Retention { age_ms: 2_000, count: 100, ..Retention::default() };
    sweep_keeping(h, 999, retention);
    assert!(get(h, "own").unwrap().outcome.is_some());
    sweep_keeping(h, 1_000, retention);
    h.restart();
    let slim = get(h, "own").unwrap();
    assert_eq!((slim.state, slim.outcome, slim.message.args.len()), (State::Success, None, 0));
    assert_eq!((slim.message.task.as_str(), slim.message.uid), ("t", Some(1000)), "who may see it");
    assert!(get(h, "default").unwrap().outcome.is_some());
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), ["default"]);
    sweep_keeping(h, 2_000, retention);
    assert!(get(h, "default").unwrap().outcome.is_none());
    assert!(known(h, "own"));
    let again = h.one(Op::Requeue { id: id("own"), now: at(2_000) });
    assert!(matches!(again, Err(Fault::Refused(_))), "its arguments are gone: {again:?}");
    sweep_keeping(h, DAY - 1, retention);
    assert!(known(h, "own"));
    sweep_keeping(h, DAY, retention);
    assert_eq!(get(h, "own"), None);
    assert!(!known(h, "own"));
}

pub fn a_record_may_outlive_the_day(h: &mut dyn Harness) {
    finish(h, "a", 0, Some(3 * DAY as u64));
    sweep(h, 3 * DAY - 1);
    assert!(get(h, "a").unwrap().outcome.is_some());
    sweep(h, 3 * DAY);
    assert_eq!(get(h, "a"), None);
}

pub fn the_oldest_beyond_the_count_go_first(h: &mut dyn Harness) {
    for (name, ms, own) in [("c", 3, None), ("a", 1, Some(99_999)), ("d", 4, None), ("b", 2, None)] {
        finish(h, name, ms, own);
    }
    sweep_keeping(h, 10, Retention { age_ms: 86_400_000, count: 2, ..Retention::default() });
    assert_eq!(list(h, Filter { limit: 10, ..Filter::default() }), ["d", "c"]);
    assert!(get(h, "a").unwrap().outcome.is_none());
    assert!(known(h, "b"));
}

pub fn id_records_are_bounded_too(h: &mut dyn Harness) {
    for n in 0..25 {
        finish(h, &format!("m{n}"), n, None);
    }
    sweep_keeping(h, 100, Retention { age_ms: 86_400_000, count: 2, ..Retention::default() });
    assert_eq!(get(h, "m2"), None);
    assert!(get(h, "m3").is_some_and(|r| r.outcome.is_none()), "two records and twenty ids");
    assert!(get(h, "m23").is_some_and(|r| r.outcome.is_some()));
}
