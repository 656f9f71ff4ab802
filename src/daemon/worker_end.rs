//! What a resident worker says of the end of a run, held against what the task declares and what is known
//! here: bounds, the cause, and the figures that only the daemon can measure.

use serde_json::Value;

use super::clock;
use super::state::RunInfo;
use crate::config::settings::Settings;
use crate::model::message::{MAX_BYTES, json_len};
use crate::model::outcome::{CancelReason, Cause, CeleryEnd, Failure, NewCall, Outcome, Usage};
use crate::model::task::{ResultKind, Task};
use crate::process::protocol::FromChild;

/// Longest `type` of a failure, in bytes.
pub const MAX_KIND: usize = 256;

/// Longest `message` of a failure or of a progress report, in bytes.
pub const MAX_MESSAGE: usize = 4 << 10;

/// Longest `traceback`, in bytes; the end of it is kept.
pub const MAX_TRACEBACK: usize = 64 << 10;

/// Most bytes of JSON that an exception's arguments have, and the children of a call; what is beyond is not kept.
pub const MAX_CELERY: usize = 64 << 10;

/// The outcome that a worker's `success`, `failure` or `retry` states. `detail` is a runner's and is not
/// believed here. A result beyond `result_max_size` is cut where it is a text, and turns the run into a
/// failure where it is anything else, as a runner's do. `info` is absent for an end that a child tells a new
/// daemon before the store has told it of the run: then it has no figures and the bound of `[results]`.
#[must_use]
pub fn outcome(line: FromChild, info: Option<&RunInfo>, settings: &Settings) -> Option<Outcome> {
    let task = info.and_then(|i| settings.task(&i.task));
    let fatal = matches!(line, FromChild::Failure { retry: Some(false), .. });
    let retry = matches!(line, FromChild::Retry { .. });
    let (_, mut outcome) = line.into_outcome()?;
    outcome.truncated = false;
    if let Some(celery) = &mut outcome.celery {
        bound_celery(celery);
    }
    let size = |call: &NewCall| {
        call.args.iter().map(|arg| json_len(arg) + 1).sum::<usize>()
            + call.kwargs.iter().map(|(name, arg)| name.len() + json_len(arg) + 4).sum::<usize>()
    };
    let call = outcome.retry.as_ref().and_then(|asked| asked.call.as_ref());
    let large = call.map(|call| size(call)).filter(|size| *size > MAX_BYTES);
    let fatal = fatal || large.is_some();
    if let Some(size) = large {
        outcome.retry = None;
        outcome.failure = Some(Failure {
            kind: "RetryTooLarge".to_owned(),
            message: format!(
                "the task asked to be run again with arguments of {size} bytes of JSON, more than the {MAX_BYTES} bytes of a message"
            ),
            traceback: String::new(),
        });
    }
    outcome.usage = info.map_or_else(Usage::default, |i| Usage {
        wall_ms: clock::now().mono.since(i.since),
        dropped_output: i.dropped,
        ..Usage::default()
    });
    outcome.started = info.map(|i| i.began);
    if outcome.success {
        outcome.cause = Cause::Exit { code: 0 };
        let ignored = |t: &Task| t.ignore_result && !info.is_some_and(|i| i.passes);
        if task.is_some_and(|t| ignored(t) || t.result == ResultKind::None) {
            outcome.result = None;
        }
        outcome.bound_result(task.map_or(settings.results.max_size, |t| t.result_max_size));
        return Some(outcome);
    }
    let mut failure = outcome.failure.take().unwrap_or_else(|| Failure {
        kind: "Retry".to_owned(),
        message: "the task asked to be run again".to_owned(),
        traceback: String::new(),
    });
    failure.kind = cut(failure.kind, MAX_KIND);
    failure.message = cut(failure.message, MAX_MESSAGE);
    failure.traceback = tail(failure.traceback, MAX_TRACEBACK);
    outcome.failure = Some(failure);
    outcome.cause = match info.and_then(|i| i.canceled) {
        Some(CancelReason::Revoked) if !retry => Cause::Revoked,
        Some(CancelReason::Interrupted) if !retry => Cause::Interrupted,
        Some(CancelReason::TimeLimit) if !retry => Cause::TimeLimit { soft: true },
        _ => Cause::Error { fatal },
    };
    Some(outcome)
}

fn bound_celery(celery: &mut CeleryEnd) {
    let size = |values: &[Value]| values.iter().map(|value| json_len(value) + 1).sum::<usize>();
    if celery
        .exception
        .as_ref()
        .is_some_and(|e| size(&e.args) > MAX_CELERY || e.module.len() > MAX_KIND || e.class.len() > MAX_KIND)
    {
        celery.exception = None;
    }
    if size(&celery.children) > MAX_CELERY {
        celery.children = Vec::new();
    }
    celery.errbacks.truncate(MAX_CELERY / 8);
}

/// At most `most` bytes from the beginning, no character cut.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let at = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(at);
    }
    text
}

/// At most `most` bytes from the end, no character cut.
fn tail(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let from = text.len() - most;
    let at = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(at..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::event::ChildKey;
    use crate::model::task::{Program, Task};
    use crate::model::time::{Mono, Wall};

    fn info(canceled: Option<CancelReason>) -> RunInfo {
        RunInfo {
            id: "m".into(),
            task: "t".into(),
            queue: "q".into(),
            attempt: 1,
            passes: false,
            child: ChildKey(1),
            pid: None,
            since: Mono(0),
            began: Wall(7),
            begun: true,
            canceled,
            printed: false,
            dropped: 3,
            progress: None,
            ended: false,
        }
    }

    fn ended(line: Value, task: &Task, canceled: Option<CancelReason>) -> Outcome {
        let env = crate::config::Env::made("me", 1000, &[]);
        let mut settings = crate::config::load_texts(&[("f", "")], &env).unwrap().settings;
        settings.tasks.insert("t".to_owned(), task.clone());
        outcome(serde_json::from_value(line).unwrap(), Some(&info(canceled)), &settings).unwrap()
    }

    fn task(change: impl FnOnce(&mut Task)) -> Task {
        let mut task = Task::new("t", Program::Worker);
        change(&mut task);
        task
    }

    #[test]
    fn results_are_any_json_within_the_bound() {
        let small = task(|t| t.result_max_size = 10);
        let success =
            |result: Value| ended(json!({"op": "success", "run": "1", "result": result}), &small, None);
        let good = success(json!({"a": 1}));
        assert!(good.success && good.result == Some(json!({"a": 1})));
        assert_eq!((good.started, good.usage.dropped_output), (Some(Wall(7)), 3));
        let text = success(json!("ééééééé"));
        assert!(text.success && text.truncated && text.result == Some(json!("ééééé")));
        let large = success(json!({"abcdefgh": 1}));
        assert!(!large.success && large.result.is_none());
        assert_eq!(large.failure.unwrap().kind, "ResultTooLarge");
        let ignored = task(|t| t.ignore_result = true);
        let line = json!({"op": "success", "run": "1", "result": [1]});
        assert_eq!(ended(line, &ignored, None).result, None);
    }

    #[test]
    fn a_failure_is_bounded_and_its_cause_is_not_the_workers_to_say() {
        let line = json!({"op": "failure", "run": "1", "type": "E".repeat(999), "message": "é".repeat(9999),
            "traceback": "x".repeat(99_999) + "end",
            "detail": {"cause": {"kind": "memory"}, "usage": {"wall_ms": 1, "user_us": 1, "system_us": 1, "max_rss": 1}}});
        let failed = ended(line, &task(|_| ()), None);
        assert_eq!((failed.cause, failed.retry), (Cause::Error { fatal: false }, None));
        let failure = failed.failure.unwrap();
        assert_eq!((failure.kind.len(), failure.message.len()), (MAX_KIND, MAX_MESSAGE));
        assert!(failure.traceback.len() == MAX_TRACEBACK && failure.traceback.ends_with("end"));
    }

    #[test]
    fn what_celery_adds_is_kept_within_its_bounds() {
        let exception = json!({"module": "shop", "type": "Gone", "args": ["shoe", 3]});
        let line = |args: Value, children: Value| {
            json!({"op": "failure", "run": "1", "type": "shop.Gone", "message": "m",
                "celery": {"exception": {"module": "shop", "type": "Gone", "args": args}, "children": children, "errbacks": [1]}})
        };
        let kept = ended(line(json!(["shoe", 3]), json!([1])), &task(|_| ()), None).celery.unwrap();
        assert_eq!(serde_json::to_value(kept.exception.unwrap()).unwrap(), exception);
        assert_eq!((kept.children.len(), kept.errbacks), (1, vec![1]));
        let large = json!(["x".repeat(MAX_CELERY)]);
        let kept = ended(line(large.clone(), large), &task(|_| ()), None).celery.unwrap();
        assert_eq!((kept.exception, kept.children.len()), (None, 0));
    }

    #[test]
    fn other_arguments_are_taken_unless_no_message_could_have_them() {
        let line =
            |arg: String| json!({"op": "retry", "run": "1", "own": true, "delay_ms": 3, "args": [arg]});
        let asked = ended(line("a".into()), &task(|_| ()), None).retry.unwrap();
        assert!(asked.own && !asked.back);
        assert_eq!(asked.call.unwrap().args, [json!("a")]);
        let failed = ended(line("x".repeat(MAX_BYTES)), &task(|_| ()), None);
        assert_eq!((failed.retry, failed.cause), (None, Cause::Error { fatal: true }));
        assert_eq!(failed.failure.unwrap().kind, "RetryTooLarge");
    }

    #[test]
    fn what_a_worker_asks_for_is_kept_and_what_it_was_told_is_the_cause() {
        let t = task(|_| ());
        let failure =
            |retry: Value| json!({"op": "failure", "run": "1", "type": "E", "message": "m", "retry": retry});
        assert_eq!(ended(failure(json!(false)), &t, None).cause, Cause::Error { fatal: true });
        assert!(ended(failure(json!(true)), &t, None).retry.is_some());
        let asked = ended(json!({"op": "retry", "run": "1", "delay_ms": 5}), &t, None);
        assert_eq!(asked.retry.unwrap().delay_ms, Some(5));
        for (reason, cause) in [
            (CancelReason::Revoked, Cause::Revoked),
            (CancelReason::Interrupted, Cause::Interrupted),
            (CancelReason::TimeLimit, Cause::TimeLimit { soft: true }),
        ] {
            assert_eq!(ended(failure(Value::Null), &t, Some(reason)).cause, cause);
        }
        let done = ended(json!({"op": "success", "run": "1"}), &t, Some(CancelReason::Revoked));
        assert!(done.success, "it was done before it heard of the cancel");
    }
}
