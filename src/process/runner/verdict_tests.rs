use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::task::{Program, RetryPolicy};

fn task() -> Task {
    let retry = RetryPolicy { retry_on: vec![3, 4], success_on: vec![4, 5], ..RetryPolicy::default() };
    Task { retry, result_expires_ms: 0, ..Task::new("t", Program::Exec(vec!["/bin/true".into()])) }
}

fn ended(task: &Task, ending: Option<Ending>, status: Status, stdout: &str) -> Outcome {
    let facts =
        Facts { ending, status: Some(status), usage: Usage::default(), started: Wall(5), stuck: false };
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
