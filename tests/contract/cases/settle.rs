//! The end of an attempt, in one step.

use serde_json::json;
use taskd::model::message::Message;
use taskd::model::op::{Fault, MemoryRetry, Op, Settle, Takes};
use taskd::model::outcome::{NewCall, Outcome};
use taskd::model::state::State;

use crate::harness::*;

pub fn the_end_is_one_step_with_everything_that_follows(h: &mut dyn Harness) {
    let token = held(h, "a");
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    let next = Message { queue: "other".to_owned(), ..msg("next") };
    let later = Message { eta: Some(at(99)), ..msg("later") };
    let s = Settle { follow_ups: vec![next, later], now: at(7), ..settle("a", token, State::Success) };
    assert_eq!(end(h, s), (true, None));
    h.restart();
    let record = get(h, "a").unwrap();
    assert_eq!((record.state, record.token, record.due), (State::Success, None, None));
    assert_eq!((record.started, record.finished), (Some(at(1)), Some(at(7))));
    assert_eq!(record.outcome, Some(success()));
    assert_eq!(get(h, "next").unwrap().state, State::Waiting);
    assert_eq!(get(h, "later").unwrap().state, State::Scheduled);
    assert_eq!(count(h), (0, 1, 0, 0));
}

pub fn a_final_record_is_written_once(h: &mut dyn Harness) {
    let token = held(h, "a");
    assert!(end(h, settle("a", token, State::Success)).0);
    let first = get(h, "a");
    let second = Settle {
        outcome: Outcome { result: Some(json!("other")), ..success() },
        follow_ups: vec![msg("never")],
        ..settle("a", token, State::Failure)
    };
    assert_eq!(end(h, second), (false, first.clone()));
    assert_eq!((get(h, "a"), get(h, "never")), (first, None));
}

pub fn a_retry_keeps_its_id_and_counts(h: &mut dyn Harness) {
    for round in 1..=3_u32 {
        if round == 1 {
            h.ok(publish(vec![msg("a")]));
        }
        let ms = i64::from(round) * 100;
        let d = deliveries(h.ok(lease_at(1, ms)));
        assert_eq!((d[0].attempt, d[0].message.retries), (round, round - 1));
        let s = Settle { due: Some(at(ms + 50)), ..settle("a", d[0].token, State::Retry) };
        assert!(end(h, s).0);
        h.restart();
        let record = get(h, "a").unwrap();
        assert_eq!((record.state, record.due, record.token), (State::Retry, Some(at(ms + 50)), None));
        assert_eq!((record.message.retries, record.finished), (round, None));
        assert_eq!(record.outcome, Some(success()), "of the latest attempt");
        assert_eq!(count(h), (0, 1, 0, 0));
        assert_eq!(leased_ids(h, 1, ms), Vec::<String>::new());
        assert_eq!(sweep(h, ms + 50).queues, ["q"]);
    }
}

pub fn a_retry_may_be_called_otherwise(h: &mut dyn Harness) {
    // A long message stands elsewhere than a short one: from one to the other, and back.
    let call = |text: &str| {
        let kwargs = json!({"note": text}).as_object().cloned().unwrap();
        Box::new(NewCall { args: vec![json!(text)], kwargs })
    };
    h.ok(publish(vec![Message { args: vec![json!("first")], ..msg("a") }]));
    for (n, text) in ["short".to_owned(), "long ".repeat(1_000), "short again".to_owned()].iter().enumerate()
    {
        let token = lease(h, 1)[0].token;
        let retry = Settle { due: Some(at(0)), call: Some(call(text)), ..settle("a", token, State::Retry) };
        assert!(end(h, retry).0);
        h.restart();
        let message = get(h, "a").unwrap().message;
        assert_eq!((&message.args, &message.kwargs["note"]), (&vec![json!(text)], &json!(text)));
        assert_eq!((message.retries as usize, message.memory_retries), (n + 1, 0));
        assert_eq!(sweep(h, 0).queues, ["q"]);
    }
    let d = lease(h, 1);
    assert_eq!(d[0].message.args, [json!("short again")], "the attempt is called so");
    let ended = Settle { call: Some(call("x")), ..settle("a", d[0].token, State::Failure) };
    assert!(matches!(h.one(Op::Settle(Box::new(ended))), Err(Fault::Refused(_))), "nothing comes after it");
}

pub fn a_retry_with_more_memory_is_counted_apart_and_may_change_its_queue(h: &mut dyn Harness) {
    // A long message stands elsewhere than a short one.
    for (name, text) in [("a", "short".to_owned()), ("b", "long ".repeat(1_000))] {
        h.ok(publish(vec![Message { args: vec![json!(text)], ..msg(name) }]));
        let token = lease(h, 1)[0].token;
        let again = |queue: Option<&str>| Some(MemoryRetry { queue: queue.map(str::to_owned) });
        let retry = |token| Settle { due: Some(at(0)), ..settle(name, token, State::Retry) };
        assert!(end(h, Settle { memory: again(Some("big")), ..retry(token) }).0);
        h.restart();
        let record = get(h, name).unwrap();
        assert_eq!((record.state, record.message.queue.as_str()), (State::Retry, "big"));
        assert_eq!((record.message.memory_retries, record.message.retries), (1, 0));
        assert_eq!(record.message.args, [json!(text)]);
        assert_eq!(count(h), (0, 0, 0, 0), "it left its queue");
        assert_eq!(sweep(h, 0).queues, ["big"]);
        let d =
            deliveries(h.ok(Op::Lease { queue: "big".to_owned(), credit: 1, now: at(0), skip: Vec::new() }));
        assert_eq!((d[0].attempt, d[0].message.memory_retries), (2, 1));
        assert!(end(h, Settle { memory: again(None), ..retry(d[0].token) }).0);
        let record = get(h, name).unwrap();
        assert_eq!((record.message.queue.as_str(), record.message.memory_retries), ("big", 2));
        sweep(h, 0);
        let d =
            deliveries(h.ok(Op::Lease { queue: "big".to_owned(), credit: 1, now: at(0), skip: Vec::new() }));
        assert!(end(h, retry(d[0].token)).0);
        let message = get(h, name).unwrap().message;
        assert_eq!((message.memory_retries, message.retries), (2, 1), "a plain retry counts as such");
        sweep(h, 0);
        let d =
            deliveries(h.ok(Op::Lease { queue: "big".to_owned(), credit: 1, now: at(0), skip: Vec::new() }));
        let ended = Settle { memory: again(None), ..settle(name, d[0].token, State::Failure) };
        assert!(matches!(h.one(Op::Settle(Box::new(ended))), Err(Fault::Refused(_))));
        assert!(end(h, settle(name, d[0].token, State::Failure)).0);
        h.ok(Op::Requeue { id: id(name), now: at(1) });
        let message = get(h, name).unwrap().message;
        assert_eq!((message.memory_retries, message.retries), (0, 0), "a new life begins at zero");
        h.ok(Op::Revoke { id: id(name), now: at(2) });
    }
}

pub fn losses_are_counted(h: &mut dyn Harness) {
    let token = held(h, "a");
    h.ok(Op::Defer {
        id: id("a"),
        token,
        until: None,
        counted: true,
        lost: true,
        now: at(0),
        takes: Vec::new(),
    });
    let d = lease(h, 1);
    assert_eq!(d[0].losses, 1);
    let s = Settle { lost: true, due: Some(at(1)), ..settle("a", d[0].token, State::Retry) };
    end(h, s);
    sweep(h, 1);
    let d = deliveries(h.ok(lease_at(1, 1)));
    assert_eq!((d[0].losses, d[0].attempt), (2, 3));
    assert!(end(h, Settle { lost: true, ..settle("a", d[0].token, State::Dead) }).0);
    assert_eq!(get(h, "a").unwrap().losses, 3);
}

pub fn an_end_that_is_none_is_refused(h: &mut dyn Harness) {
    let token = held(h, "a");
    for state in [State::Retry, State::Waiting, State::Running, State::Scheduled] {
        let refused = h.one(Op::Settle(Box::new(settle("a", token, state))));
        assert!(matches!(refused, Err(Fault::Refused(_))), "{state}: {refused:?}");
    }
    assert_eq!(get(h, "a").unwrap().token, Some(token));
}

pub fn a_known_follow_up_changes_nothing(h: &mut dyn Harness) {
    finish(h, "there", 0, None);
    let before = get(h, "there");
    let token = held(h, "a");
    let s = Settle { follow_ups: vec![msg("there"), msg("a")], ..settle("a", token, State::Success) };
    assert!(end(h, s).0);
    assert_eq!(get(h, "there"), before);
    assert_eq!(count(h), (0, 0, 0, 0));
}
