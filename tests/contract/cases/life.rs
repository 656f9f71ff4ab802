//! What people do to messages: cancel, run again, purge, forget to declare their task.

use taskd::model::message::Message;
use taskd::model::op::{Op, Reply, Takes};
use taskd::model::outcome::Cause;
use taskd::model::state::State;

use crate::harness::*;

fn revoke(h: &mut dyn Harness, name: &str) -> Option<State> {
    let Reply::Record(record) = h.ok(Op::Revoke { id: id(name), now: at(5) }) else { panic!() };
    record.map(|r| r.state)
}

fn set_aside(name: &str, token: Option<taskd::model::message::Token>, unknown: bool) -> Op {
    Op::Move { id: id(name), token, unknown, now: at(0) }
}

fn known(tasks: &[&str]) -> Op {
    Op::Known { tasks: tasks.iter().map(|t| (*t).to_owned()).collect(), now: at(0) }
}

pub fn revoke_ends_what_is_not_leased(h: &mut dyn Harness) {
    let later = Message { eta: Some(at(100)), ..msg("later") };
    let token = held(h, "leased");
    h.ok(publish(vec![msg("waiting"), later]));
    assert_eq!(revoke(h, "leased"), Some(State::Waiting));
    assert_eq!(revoke(h, "waiting"), Some(State::Revoked));
    assert_eq!(revoke(h, "later"), Some(State::Revoked));
    assert_eq!(revoke(h, "nobody"), None);
    assert_eq!(count(h), (0, 0, 1, 0));
    let record = get(h, "waiting").unwrap();
    assert_eq!((record.finished, record.outcome.unwrap().cause), (Some(at(5)), Cause::Revoked));
    assert!(end(h, settle("leased", token, State::Success)).0);
    assert_eq!(revoke(h, "leased"), Some(State::Success));
}

pub fn a_new_life_begins_at_zero(h: &mut dyn Harness) {
    let token = held(h, "a");
    let s = settle("a", token, State::Retry);
    end(h, taskd::model::op::Settle { due: Some(at(1)), lost: true, ..s });
    sweep(h, 1);
    let token = deliveries(h.ok(lease_at(1, 1)))[0].token;
    h.ok(Op::Start { id: id("a"), token, now: at(2), takes: Takes::default() });
    end(h, settle("a", token, State::Failure));
    h.ok(publish(vec![msg("b")]));
    let Reply::Record(Some(record)) = h.ok(Op::Requeue { id: id("a"), now: at(3) }) else { panic!() };
    assert_eq!((record.state, record.attempt, record.losses), (State::Waiting, 0, 0));
    assert_eq!((record.message.retries, record.started, record.finished), (0, None, None));
    assert_eq!(record.outcome, None);
    h.restart();
    let untouched = h.ok(Op::Requeue { id: id("a"), now: at(4) });
    assert_eq!(untouched, Reply::Record(Some(record)), "not final: untouched");
    assert_eq!(h.ok(Op::Requeue { id: id("nobody"), now: at(4) }), Reply::Record(None));
    let d = lease(h, 2);
    assert_eq!(d.iter().map(|d| d.attempt).collect::<Vec<_>>(), [1, 1]);
    assert!(end(h, settle("a", d[1].token, State::Success)).0);
    assert_eq!(count(h), (0, 0, 1, 0));
}

pub fn a_new_life_drops_an_expiry_that_has_passed(h: &mut dyn Harness) {
    h.ok(publish(vec![Message { expires: Some(at(10)), eta: Some(at(5)), ..msg("a") }]));
    assert_eq!(sweep(h, 10).expired, [id("a")]);
    h.ok(Op::Requeue { id: id("a"), now: at(11) });
    assert_eq!(leased_ids(h, 1, 11), ["a"]);
}

pub fn purge_ends_all_that_is_not_leased(h: &mut dyn Harness) {
    held(h, "leased");
    let token = held(h, "retry");
    let s = settle("retry", token, State::Retry);
    end(h, taskd::model::op::Settle { due: Some(at(100)), ..s });
    let token = held(h, "unknown");
    h.ok(set_aside("unknown", Some(token), true));
    let later = Message { eta: Some(at(100)), ..msg("later") };
    let elsewhere = Message { queue: "other".to_owned(), ..msg("elsewhere") };
    h.ok(publish(vec![msg("waiting"), later, elsewhere]));
    assert_eq!(count(h), (1, 2, 1, 1));
    assert_eq!(h.ok(Op::Purge { queue: "q".to_owned(), now: at(5) }), Reply::Purged(4));
    assert_eq!(count(h), (0, 0, 1, 0));
    for name in ["waiting", "later", "retry", "unknown"] {
        assert_eq!(get(h, name).unwrap().state, State::Revoked, "{name}");
    }
    assert_eq!(get(h, "elsewhere").unwrap().state, State::Waiting);
    assert_eq!(h.ok(Op::Purge { queue: "nothing".to_owned(), now: at(5) }), Reply::Purged(0));
}

pub fn a_long_purge_holds_leases_of_its_queue_back(h: &mut dyn Harness) {
    let many: Vec<Message> = (0..9_000).map(|n| msg(&format!("m{n}"))).collect();
    h.ok(publish(many));
    let elsewhere = Message { queue: "other".to_owned(), ..msg("elsewhere") };
    let answers = h.all(vec![
        Op::Purge { queue: "q".to_owned(), now: at(5) },
        publish(vec![msg("after"), elsewhere]),
        lease_at(10, 5),
        Op::Lease { queue: "other".to_owned(), credit: 1, now: at(5), skip: Vec::new() },
    ]);
    assert_eq!(answers[0], Ok(Reply::Purged(9_000)));
    let d = deliveries(answers[2].clone().unwrap());
    assert_eq!(d.iter().map(|d| d.message.id.0.as_str()).collect::<Vec<_>>(), ["after"]);
    assert_eq!(deliveries(answers[3].clone().unwrap()).len(), 1);
    assert_eq!(count(h), (0, 0, 1, 0));
}

pub fn unknown_tasks_are_set_aside_and_come_back(h: &mut dyn Harness) {
    let other = Message { task: "other".to_owned(), ..msg("b") };
    h.ok(publish(vec![msg("a"), other, msg("c")]));
    let d = lease(h, 2);
    for d in &d {
        assert!(applied(h.ok(set_aside(&d.message.id.0, Some(d.token), true))).0);
    }
    h.restart();
    assert_eq!(count(h), (1, 0, 0, 2));
    let record = get(h, "a").unwrap();
    assert_eq!((record.state, record.token), (State::Waiting, None));
    let Reply::Swept { queues, more, .. } = h.ok(known(&["nothing", "t?", "s*"])) else { panic!() };
    assert_eq!((queues, more), (Vec::new(), false));
    let Reply::Swept { queues, .. } = h.ok(known(&["t", "nothing"])) else { panic!() };
    assert_eq!(queues, ["q"]);
    assert_eq!(count(h), (2, 0, 0, 1));
    let d = lease(h, 10);
    assert_eq!(
        d.iter().map(|d| (d.message.id.0.as_str(), d.attempt)).collect::<Vec<_>>(),
        [("a", 1), ("c", 1)]
    );
    // A pattern declares it, too.
    let Reply::Swept { queues, .. } = h.ok(known(&["nothing", "oth*"])) else { panic!() };
    assert_eq!(queues, ["q"]);
    assert_eq!(count(h), (1, 0, 2, 0));
}

pub fn unknown_messages_expire(h: &mut dyn Harness) {
    h.ok(publish(vec![Message { expires: Some(at(10)), ..msg("a") }]));
    let token = lease(h, 1)[0].token;
    assert_eq!(sweep(h, 10).expired, [], "a leased one does not");
    h.ok(set_aside("a", Some(token), true));
    assert_eq!(sweep(h, 10).expired, [id("a")]);
    assert_eq!(count(h), (0, 0, 0, 0));
}

pub fn move_looks_at_token_and_state(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a"), Message { eta: Some(at(100)), ..msg("later") }]));
    assert!(!applied(h.ok(set_aside("later", None, true))).0);
    assert!(!applied(h.ok(set_aside("a", None, false))).0, "it is not in the set");
    assert_eq!(applied(h.ok(set_aside("nobody", None, true))), (false, None));
    assert!(applied(h.ok(set_aside("a", None, true))).0);
    assert!(applied(h.ok(set_aside("a", None, true))).0, "a repeat");
    assert_eq!(count(h), (0, 1, 0, 1));
    h.ok(set_aside("a", None, false));
    let token = lease(h, 1)[0].token;
    assert!(!applied(h.ok(set_aside("a", None, true))).0, "it is leased");
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    assert!(applied(h.ok(set_aside("a", Some(token), true))).0);
    assert_eq!(get(h, "a").unwrap().state, State::Waiting);
}
