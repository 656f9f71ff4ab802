use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::task::{Program, RetryPolicy};

fn task() -> Task {
    let retry = RetryPolicy { retry_on: vec![3, 4], success_on: vec![4, 5], ..RetryPolicy::default() };
    Task { retry, result_expires_ms: 0, ..Task::new("t", Program::Exec(vec!["/bin/true".into()])) }
}

fn facts() -> Facts {
    Facts {
        ending: None,
        status: None,
        usage: Usage::default(),
        started: Wall(5),
        stuck: false,
        leaf: None,
        memory_max: None,
    }
}

fn ended(task: &Task, ending: Option<Ending>, status: Status, stdout: &str) -> Outcome {
    let facts = Facts { ending, status: Some(status), ..facts() };
    let printed =
        Printed { stdout: stdout.into(), truncated: false, stderr: "last words".into(), dropped: 7 };
    outcome(task, facts, printed)
}

#[test]
fn exit_codes_decide_as_declared() {
    let by_code = |code| {
        let outcome = ended(&task(), None, Status::Exited(code), "out");
        (outcome.success, outcome.retry.is_some())
    };
    assert_eq!(by_code(0), (true, false));
    assert_eq!(by_code(1), (false, false));
    assert_eq!(by_code(3), (false, true), "retry_on");
    assert_eq!(by_code(4), (true, false), "success_on goes before retry_on");
    assert_eq!(by_code(75), (false, true), "EX_TEMPFAIL");
    let failed = ended(&task(), None, Status::Exited(1), "out");
    assert_eq!(failed.failure.unwrap().traceback, "last words");
    assert_eq!((failed.usage.dropped_output, failed.started), (7, Some(Wall(5))));
}

#[test]
fn what_taskd_did_is_the_cause_whatever_the_exit_code() {
    let by = |ending| ended(&task(), Some(ending), Status::Exited(0), "").cause;
    assert_eq!(by(Ending::Soft), Cause::TimeLimit { soft: true });
    assert_eq!(by(Ending::Hard), Cause::TimeLimit { soft: false });
    assert_eq!(by(Ending::Canceled(CancelReason::Revoked)), Cause::Revoked);
    assert_eq!(by(Ending::Canceled(CancelReason::Interrupted)), Cause::Interrupted);
    let killed = ended(&task(), None, Status::Signaled { signal: 9, core: false }, "");
    assert_eq!(killed.cause, Cause::Signal { signal: 9, core: false });
    assert_eq!(killed.failure.unwrap().message, "killed by SIGKILL (9)");
}

#[test]
fn a_result_is_text_or_json_as_declared() {
    let result = |kind, stdout| {
        let outcome = ended(&Task { result: kind, ..task() }, None, Status::Exited(0), stdout);
        (outcome.success, outcome.result)
    };
    assert_eq!(result(ResultKind::Stdout, "{}"), (true, Some(json!("{}"))));
    assert_eq!(result(ResultKind::Json, "{\"a\":[1]}"), (true, Some(json!({"a": [1]}))));
    assert_eq!(result(ResultKind::Json, "{"), (false, None));
    assert_eq!(result(ResultKind::Json, ""), (false, None));
    assert_eq!(result(ResultKind::None, "x"), (true, None));
    let ignoring = Task { ignore_result: true, ..task() };
    assert_eq!(ended(&ignoring, None, Status::Exited(0), "x").result, None);
}

#[test]
fn no_outcome_is_longer_than_a_line_may_be() {
    let long = "\0".repeat(4 << 20);
    let bytes = line("r", ended(&task(), None, Status::Exited(0), &long));
    assert!(bytes.len() <= MAX_LINE);
    let (_, back) = serde_json::from_slice::<FromChild>(&bytes).unwrap().into_outcome().unwrap();
    assert!(back.success && back.truncated && back.result.is_none());
}

#[test]
fn memory_is_the_cause_only_where_it_was_counted_and_nothing_else_ended_it() {
    let killed = Status::Signaled { signal: 9, core: false };
    let by = |ending, status, out_of_memory| {
        let leaf = LeafUsage { out_of_memory, memory_peak: Some(64 << 20), ..LeafUsage::default() };
        let facts =
            Facts { ending, status: Some(status), leaf: Some(leaf), memory_max: Some(64 << 20), ..facts() };
        outcome(&task(), facts, Printed::default())
    };
    let beyond = by(None, killed, true);
    assert_eq!(beyond.cause, Cause::Memory);
    let failure = beyond.failure.unwrap();
    assert_eq!(failure.kind, "MemoryLimitExceeded");
    assert_eq!(failure.message, "memory_max of 64 MiB: killed by the kernel after 0.000 s (peak 64 MiB)");
    assert_eq!(by(None, killed, false).cause, Cause::Signal { signal: 9, core: false });
    assert_eq!(by(None, Status::Exited(137), true).cause, Cause::Memory, "a shell tells of its child");
    assert!(by(None, Status::Exited(0), true).success, "a leftover");
    assert_eq!(by(Some(Ending::Hard), killed, true).cause, Cause::TimeLimit { soft: false });
    let canceled = Some(Ending::Canceled(CancelReason::Revoked));
    assert_eq!(by(canceled, killed, true).cause, Cause::Revoked);
}

#[test]
fn a_limit_found_exceeded_is_told_with_both_figures() {
    let killed = Status::Signaled { signal: 9, core: false };
    let by = |excess| ended(&task(), Some(Ending::Beyond(excess)), killed, "");
    let memory = by(Excess::Memory { limit: 100 << 20, found: 123 << 20 });
    assert_eq!(memory.cause, Cause::Memory);
    let message = memory.failure.unwrap().message;
    assert_eq!(message, "memory_max: killed after 0.000 s, 123 MiB in use where 100 MiB are allowed");
    let tasks = by(Excess::Tasks { limit: 8, found: 30 });
    assert_eq!(tasks.cause, Cause::Signal { signal: 9, core: false });
    assert_eq!(tasks.failure.unwrap().kind, TASKS_MAX);
}

#[test]
fn what_a_control_group_counted_goes_before_what_was_waited_for() {
    let own = Usage { user_us: 5, system_us: 5, killed_leftovers: 3, ..Usage::default() };
    let by = |leaf| Facts { usage: own.clone(), leaf, ..facts() }.usage();
    let counted =
        LeafUsage { user_us: 70, tasks_peak: Some(4), killed: 1, read_bytes: 9, ..LeafUsage::default() };
    let usage = by(Some(counted));
    assert_eq!((usage.user_us, usage.system_us, usage.killed_leftovers), (70, 0, 3));
    assert_eq!((usage.tasks_peak, usage.read_bytes), (Some(4), 9));
    assert_eq!(by(Some(LeafUsage::default())).user_us, 5, "a kernel that counts nothing");
    assert_eq!(by(None), own);
}

proptest! {
    /// What the daemon reads is what the runner found.
    #[test]
    fn a_line_says_the_whole_outcome(code in 0_i32..256, kind in 0_u8..5, text in ".{0,20}") {
        let ending = [None, None, Some(Ending::Soft), Some(Ending::Hard), Some(Ending::Canceled(CancelReason::Revoked))];
        let outcome = ended(&task(), ending[usize::from(kind)], Status::Exited(code), &text);
        let line = line("the run", outcome.clone());
        let (run, back) = serde_json::from_slice::<FromChild>(&line).unwrap().into_outcome().unwrap();
        prop_assert_eq!(run, "the run");
        prop_assert_eq!(back, outcome);
    }
}
