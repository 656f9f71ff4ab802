//! What the embedded store does when the disk, the file or one operation fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use taskd::broker::sqlite::{Moment, Options};
use taskd::model::op::{Fault, Op, Published, Reply, Takes};
use taskd::model::state::State;

use crate::harness::*;

const IOERR_FSYNC: i32 = 1034;
const FULL: i32 = 13;
const CORRUPT: i32 = 11;
const READONLY: i32 = 8;
const BUSY: i32 = 5;
const TOOBIG: i32 = 18;

/// A script of faults: at each of these moments, in this order, this code.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Planned>>>);

type Planned = (Moment, Option<i32>);

impl Script {
    fn options(&self) -> Options {
        let script = Arc::clone(&self.0);
        Options {
            failpoint: Some(Box::new(move |moment| {
                let mut script = script.lock().unwrap();
                if script.front().is_some_and(|(m, _)| *m == moment) {
                    return script.pop_front().and_then(|(_, code)| code);
                }
                None
            })),
        }
    }

    fn next(&self, faults: &[Planned]) {
        self.0.lock().unwrap().extend(faults.iter().copied());
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

fn broken() -> (Script, Embedded) {
    let script = Script::default();
    let store = Embedded::with(script.options());
    (script, store)
}

#[test]
fn an_error_before_the_commit_stores_nothing_and_a_repeat_is_new() {
    let (script, mut h) = broken();
    h.ok(publish(vec![msg("before")]));
    script.next(&[(Moment::BeforeCommit, Some(IOERR_FSYNC))]);
    let answers = h.all(vec![publish(vec![msg("a")]), Op::Count]);
    assert!(answers.iter().all(|a| matches!(a, Err(Fault::Reconnect(_)))), "{answers:?}");
    assert_eq!(get(&mut h, "a"), None);
    assert_eq!(h.ok(publish(vec![msg("a")])), Reply::Published(vec![Published::New]));
    assert_eq!(leased_ids(&mut h, 10, 0), ["before", "a"]);
    assert_eq!(h.store().stats().reopened, 1);
    h.assert_sound();
}

#[test]
fn an_error_after_the_commit_is_stored_and_a_repeat_is_known() {
    let (script, mut h) = broken();
    script.next(&[(Moment::AfterCommit, Some(IOERR_FSYNC))]);
    let answer = h.one(publish(vec![msg("a")]));
    assert!(matches!(answer, Err(Fault::Reconnect(_))), "{answer:?}");
    let again = h.ok(publish(vec![msg("a")]));
    assert!(matches!(again, Reply::Published(r) if matches!(r[0], Published::Known(_))));
    assert_eq!(count(&mut h), (1, 0, 0, 0), "counted anew from what is stored");

    let token = lease(&mut h, 1)[0].token;
    script.next(&[(Moment::AfterCommit, Some(IOERR_FSYNC))]);
    let s = settle("a", token, State::Success);
    assert!(h.one(Op::Settle(Box::new(s.clone()))).is_err());
    let (applied, current) = end(&mut h, s);
    assert!(!applied);
    assert_eq!(current.unwrap().state, State::Success);
    h.assert_sound();
}

#[test]
fn a_store_that_cannot_be_reopened_answers_until_it_can() {
    let (script, mut h) = broken();
    h.ok(publish(vec![msg("a")]));
    script.next(&[(Moment::BeforeCommit, Some(IOERR_FSYNC)), (Moment::Reopen, Some(IOERR_FSYNC))]);
    assert!(matches!(h.one(Op::Count), Err(Fault::Reconnect(_))));
    // The failed attempt to open it, and the pause after it.
    let mut refused = 0;
    let answer = loop {
        match h.one(Op::Count) {
            Err(Fault::Reconnect(_)) => refused += 1,
            other => break other,
        }
    };
    assert!(refused > 0 && script.is_over());
    assert!(matches!(answer, Ok(Reply::Counts(c)) if c[0].waiting == 1));
}

#[test]
fn what_may_work_later_is_told_apart_from_what_never_will() {
    for (code, again) in [(BUSY, true), (READONLY, true), (CORRUPT, false)] {
        let (script, mut h) = broken();
        h.ok(publish(vec![msg("a")]));
        script.next(&[(Moment::BeforeCommit, Some(code))]);
        let answer = h.one(publish(vec![msg("b")]));
        let next = h.one(Op::Count);
        if again {
            assert!(matches!(answer, Err(Fault::Again(_))), "{code}: {answer:?}");
            assert!(next.is_ok(), "{code}: {next:?}");
        } else {
            assert!(matches!(&answer, Err(Fault::Refused(why)) if why.contains("backup")), "{answer:?}");
            assert!(matches!(next, Err(Fault::Refused(_))), "a damaged store stays closed: {next:?}");
            h.store.take().unwrap().close();
        }
    }
}

#[test]
fn one_operation_that_cannot_work_takes_no_other_with_it() {
    let (script, mut h) = broken();
    let no = |code| (Moment::BeforeCommit, code);
    // The batch, then each alone: the second one fails.
    script.next(&[no(Some(TOOBIG)), no(None), no(Some(TOOBIG)), no(None)]);
    let answers = h.all(vec![publish(vec![msg("a")]), publish(vec![msg("b")]), publish(vec![msg("c")])]);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(Fault::Refused(_))), "{answers:?}");
    assert_eq!(leased_ids(&mut h, 10, 0), ["a", "c"]);
    assert!(script.is_over());
    h.assert_sound();
}

#[test]
fn a_full_disk_refuses_what_is_new_and_records_what_ends() {
    let (script, mut h) = broken();
    let token = held(&mut h, "a");
    let reserve = h.dir.path().join("reserve");
    assert!(reserve.exists());
    script.next(&[(Moment::BeforeCommit, Some(FULL))]);
    let s = settle("a", token, State::Success);
    let answers = h.all(vec![publish(vec![msg("b")]), Op::Settle(Box::new(s))]);
    let place = h.dir.path().display().to_string();
    assert!(
        matches!(&answers[0], Err(Fault::Again(why)) if why.starts_with("no space left") && why.contains(&place)),
        "{answers:?}"
    );
    assert_eq!(applied(answers[1].clone().unwrap()), (true, None));
    // There is space after all: the reserve is taken again and all goes on.
    assert_eq!(h.ok(publish(vec![msg("b")])), Reply::Published(vec![Published::New]));
    assert!(reserve.exists());
    h.assert_sound();
}

#[test]
fn a_failed_transaction_leaves_the_counters_as_they_were() {
    let (script, mut h) = broken();
    h.ok(publish(vec![msg("a")]));
    script.next(&[(Moment::BeforeCommit, Some(BUSY))]);
    let other = taskd::model::message::Message { queue: "new queue".to_owned(), ..msg("b") };
    let pause = Op::QueueState { queue: "q".to_owned(), paused: true };
    h.all(vec![publish(vec![other.clone()]), lease_at(1, 0), pause]);
    assert_eq!(count(&mut h), (1, 0, 0, 0));
    assert_eq!(counts(&mut h).len(), 1);
    h.assert_sound();
    h.ok(publish(vec![other]));
    assert_eq!(leased_ids(&mut h, 1, 0), ["a"]);
    h.assert_sound();
}

#[test]
fn a_file_that_is_taken_away_is_noticed() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a")]));
    std::fs::rename(h.dir.path().join("queue.db"), h.dir.path().join("elsewhere.db")).unwrap();
    let answer = h.one(publish(vec![msg("b")]));
    assert!(matches!(&answer, Err(Fault::Refused(why)) if why.contains("removed or replaced")), "{answer:?}");
    h.store.take().unwrap().close();
}

#[test]
fn only_what_must_be_on_the_disk_waits_for_it() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a")]));
    let before = h.store().stats();
    let token = lease(&mut h, 1)[0].token;
    h.ok(Op::Start { id: id("a"), token, now: at(0), takes: Takes::default() });
    h.ok(Op::Extend { leases: vec![(id("a"), token)] });
    h.ok(Op::Count);
    let after = h.store().stats();
    assert_eq!(after.durable_commits, before.durable_commits);
    assert_eq!(after.commits, before.commits + 4);
    end(&mut h, settle("a", token, State::Success));
    assert_eq!(h.store().stats().durable_commits, before.durable_commits + 1);
}

#[test]
fn what_arrives_together_is_committed_together() {
    let mut h = Embedded::new();
    let before = h.store().stats();
    h.all((0..500).map(|n| publish(vec![msg(&format!("m{n}"))])).collect());
    assert_eq!(h.store().stats().durable_commits, before.durable_commits + 1);
}

#[test]
fn an_idle_store_empties_its_log_once_and_then_sleeps() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a")]));
    let wal = h.dir.path().join("queue.db-wal");
    assert!(std::fs::metadata(&wal).unwrap().len() > 0);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while h.store().stats().idle_checkpoints == 0 {
        assert!(std::time::Instant::now() < until, "the log was not emptied");
        std::thread::yield_now();
    }
    assert_eq!(std::fs::metadata(&wal).unwrap().len(), 0);
}

/// What a killed process leaves behind: the files as they are at that moment.
#[test]
fn a_killed_process_loses_nothing() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a"), msg("b")]));
    let token = lease(&mut h, 1)[0].token;
    h.ok(Op::Start { id: id("a"), token, now: at(1), takes: Takes::default() });
    let image = tempfile::tempdir().unwrap();
    for file in ["queue.db", "queue.db-wal", "store.id", "store.unclean"] {
        std::fs::copy(h.dir.path().join(file), image.path().join(file)).unwrap();
    }
    let mut after = Embedded::within(image, Options::default());
    let d = deliveries(after.ok(Op::Recover));
    assert_eq!((d[0].message.id.clone(), d[0].token, d[0].started), (id("a"), token, true));
    assert_eq!(leased_ids(&mut after, 10, 0), ["b"]);
}
