//! Runs of a resident worker: their limits, their cancels, their want of memory.

use crate::engine::command::{Command, Told};
use crate::engine::event::{Ask, ChildKey, Event, OwnLimits};
use crate::engine::testbed::{Bed, task};
use crate::model::name::MessageId;
use crate::model::op::Op;
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::state::State;

/// A pool of one program of the user's that takes three runs at once; `soft` and `hard` limits of task `t`.
fn worker(soft: Option<u64>, hard: Option<u64>) -> Bed {
    let mut bed = Bed::bare(|p| {
        let pool = p.pools.get_mut("default").unwrap();
        (pool.processes, pool.worker) = (1, true);
        let t = p.tasks.get_mut("t").unwrap();
        (t.soft_time_limit_ms, t.time_limit_ms) = (soft, hard);
        p.tasks.insert("free".into(), task("free"));
    });
    bed.capacity = 3;
    bed.come(1, 0);
    bed.take();
    bed
}

fn run_of(bed: &Bed, id: &str) -> String {
    bed.running().into_iter().find(|r| bed.message_of(r) == id).unwrap()
}

fn failed() -> Outcome {
    Outcome::of_cause(Cause::Exit { code: 0 }, "it says")
}

fn settled(log: &[Command]) -> Vec<Cause> {
    let of = |c: &Command| match c {
        Command::Broker(_, Op::Settle(s)) => Some(s.outcome.cause.clone()),
        _ => None,
    };
    log.iter().filter_map(of).collect()
}

fn told(log: &[Command]) -> Vec<CancelReason> {
    log.iter()
        .filter_map(|c| if let Command::Cancel { reason, .. } = c { Some(*reason) } else { None })
        .collect()
}

fn killed(log: &[Command]) -> bool {
    log.iter().any(|c| matches!(c, Command::End { kill: true, .. }))
}

#[test]
fn limits_of_a_workers_own_hold_beside_those_of_the_task() {
    let say = |bed: &mut Bed, id: &str, soft_ms, hard_ms| {
        let limits = OwnLimits { soft_ms, hard_ms };
        let (run, child) = (run_of(bed, id), ChildKey(1));
        bed.step(Event::Started { child, run, pid: 7, limits });
    };
    let mut bed = worker(Some(1_000), Some(2_000));
    bed.enqueue("sooner");
    say(&mut bed, "sooner", Some(300), Some(500));
    bed.pass(300);
    assert_eq!(told(&bed.take()), [CancelReason::TimeLimit]);
    // Told again, to a new daemon say, it is not canceled twice.
    say(&mut bed, "sooner", Some(1), Some(200));
    bed.pass(199);
    let log = bed.take();
    assert!(told(&log).is_empty() && !killed(&log));
    bed.pass(1);
    assert!(killed(&bed.take()));
    let mut bed = worker(Some(1_000), None);
    bed.enqueue("later");
    say(&mut bed, "later", Some(5_000), None);
    bed.pass(1_000);
    assert_eq!(told(&bed.take()), [CancelReason::TimeLimit], "the sooner one counts");
    let mut bed = worker(None, None);
    bed.enqueue("own");
    say(&mut bed, "own", None, Some(400));
    bed.pass(400);
    assert!(killed(&bed.take()));
}

#[test]
fn a_resident_worker_is_told_of_the_soft_limit_and_its_failure_is_that_limits() {
    let mut bed = worker(Some(1_000), Some(2_000));
    bed.enqueue("m");
    bed.pass(999);
    assert_eq!(told(&bed.take()), []);
    bed.pass(1);
    assert_eq!(told(&bed.take()), [CancelReason::TimeLimit]);
    bed.pass(500);
    let run = run_of(&bed, "m");
    bed.end(&run, failed());
    let log = bed.take();
    assert_eq!(settled(&log), [Cause::TimeLimit { soft: true }]);
    let took = log.iter().find_map(|c| match c {
        Command::Broker(_, Op::Settle(s)) => Some(s.outcome.usage.wall_ms),
        _ => None,
    });
    assert_eq!(took, Some(1_500));
    bed.enqueue("n");
    bed.pass(1_000);
    let run = run_of(&bed, "n");
    bed.succeed(&run);
    assert_eq!(bed.state("n"), State::Success, "what it reached in spite of it stands");
}

#[test]
fn the_hard_limit_ends_the_worker_and_what_ran_beside_goes_back_uncounted_as_a_loss() {
    let mut bed = worker(None, Some(2_000));
    bed.enqueue("late");
    bed.enqueue_task("beside", "free");
    bed.pass(1_999);
    assert!(!killed(&bed.take()));
    bed.pass(1);
    assert!(killed(&bed.take()));
    bed.kill_children();
    let log = bed.take();
    assert_eq!(settled(&log), [Cause::TimeLimit { soft: false }]);
    assert_eq!((bed.state("late"), bed.state("beside")), (State::Failure, State::Waiting));
    assert_eq!(bed.losses("beside"), 0);
    let back =
        log.iter().any(|c| matches!(c, Command::Broker(_, Op::Defer { counted: true, lost: false, .. })));
    assert!(back);
}

#[test]
fn a_cancel_that_a_worker_does_not_follow_ends_it() {
    let mut bed = worker(None, None);
    bed.enqueue("m");
    bed.enqueue("beside");
    bed.ask(Ask::Cancel(MessageId("m".into())));
    assert_eq!(told(&bed.take()), [CancelReason::Revoked]);
    bed.pass(10_000);
    assert!(killed(&bed.take()));
    bed.kill_children();
    assert_eq!(settled(&bed.take()), [Cause::Revoked]);
    assert_eq!(
        (bed.state("m"), bed.state("beside"), bed.losses("beside")),
        (State::Revoked, State::Waiting, 0)
    );
}

#[test]
fn what_a_worker_says_of_a_run_that_it_was_told_to_end_is_known_by_its_reason() {
    let mut bed = worker(None, None);
    bed.enqueue("canceled");
    bed.ask(Ask::Cancel(MessageId("canceled".into())));
    let run = run_of(&bed, "canceled");
    bed.end(&run, failed());
    assert_eq!((bed.state("canceled"), settled(&bed.take())), (State::Revoked, vec![Cause::Revoked]));
    bed.enqueue("stopped");
    bed.step(Event::Stop { now: true });
    let run = run_of(&bed, "stopped");
    bed.end(&run, failed());
    assert_eq!(bed.state("stopped"), State::Waiting, "it runs again after the restart");
}

#[test]
fn a_worker_that_ran_out_of_memory_takes_all_its_runs_along_and_the_rule_applies_to_each() {
    let mut bed = worker(None, None);
    bed.reload(|p| {
        let rule = crate::model::task::OnMemory { memory_max: None, queue: Some("big".into()), max: 1 };
        p.tasks.get_mut("t").unwrap().limits.on_memory = Some(rule);
        p.queues.insert("big".into(), p.queues["default"].clone());
    });
    bed.come(2, 0);
    bed.enqueue("a");
    bed.enqueue_task("b", "free");
    bed.take();
    bed.step(Event::ChildDown { child: ChildKey(2), how: "signal 9".into(), out_of_memory: true });
    let log = bed.take();
    assert_eq!(settled(&log), [Cause::Memory, Cause::Memory]);
    assert_eq!((bed.state("a"), bed.state("b")), (State::Retry, State::Failure));
    let raised = log.iter().find_map(|c| match c {
        Command::Note(crate::engine::command::Note::Ended { raised: Some(r), .. }) => Some(r.clone()),
        _ => None,
    });
    let raised = raised.unwrap();
    assert_eq!((raised.times, raised.max, raised.queue.as_str()), (1, 1, "big"));
    assert_eq!(bed.message("a").queue, "big");
    assert_eq!((bed.message("a").memory_retries, bed.message("a").retries), (1, 0));
}

#[test]
fn limits_set_while_taskd_runs_are_for_what_starts_after_and_end_with_a_reload() {
    let mut bed = worker(None, None);
    bed.enqueue("before");
    let limits = Ask::TimeLimit { task: "t".into(), hard_ms: Some(5_000), soft_ms: Some(1_000) };
    assert_eq!(bed.ask(limits), Some(Told::Done));
    bed.enqueue("after");
    bed.enqueue_task("other", "free");
    let run = run_of(&bed, "after");
    bed.take();
    bed.pass(1_000);
    let told: Vec<String> = bed
        .take()
        .into_iter()
        .filter_map(|c| if let Command::Cancel { run, .. } = c { Some(run) } else { None })
        .collect();
    assert_eq!(told, std::slice::from_ref(&run));
    bed.end(&run, failed());
    bed.reload(|_| {});
    bed.enqueue("late");
    bed.take();
    bed.pass(10_000);
    assert!(
        !bed.take().iter().any(|c| matches!(c, Command::Cancel { .. } | Command::End { kill: true, .. }))
    );
}
