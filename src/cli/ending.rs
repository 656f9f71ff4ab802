//! What a message's end means for the exit code of whoever waited for it.

use crate::control::api::MessageView;
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;

use super::output::clean;

/// The part of `--help` that lists what waiting exits with.
pub const CODES: &str =
    "  0-255    the task's own exit code, whether its declaration calls it a success or not
  128+n    it died of signal n; 137: it went beyond memory_max
  65       its output is not the JSON that its declaration promises
  69       it never ran to its end: canceled, expired, arguments that do not fit, a failed step before it
  70       DEAD: its attempts kept killing their child
  75       it is not final after --timeout; it goes on
  124      a time limit ended it
  126      its program could not be started";

/// The exit code of a final message; 75 while it is not final.
#[must_use]
pub fn exit_code(view: &MessageView) -> u8 {
    if !view.state.is_final() {
        return 75;
    }
    let Some(outcome) = &view.outcome else {
        // A final state without an attempt, or one of a task that keeps no result.
        return match view.state {
            State::Success => 0,
            State::Failure => 1,
            State::Dead => 70,
            _ => 69,
        };
    };
    match view.state {
        State::Revoked | State::Expired => 69,
        State::Dead => 70,
        state => code_of(&outcome.cause, state == State::Success),
    }
}

/// The exit code of an attempt that ended so; `success` is what the task's declaration calls it.
#[must_use]
pub fn code_of(cause: &Cause, success: bool) -> u8 {
    match cause {
        Cause::Exit { code: 0 } if !success => 65,
        Cause::Exit { code } => low_byte(*code),
        Cause::Error { .. } => 1,
        Cause::Signal { signal, .. } => low_byte(128_i32.saturating_add(*signal)),
        Cause::TimeLimit { .. } => 124,
        Cause::Memory => 137,
        Cause::SpawnFailed => 126,
        Cause::Revoked | Cause::Expired | Cause::Rejected | Cause::Upstream { .. } => 69,
        Cause::WorkerLost | Cause::Interrupted => 70,
    }
}

/// Exit codes have 8 bits; one beyond them is shown as a failure at least.
fn low_byte(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

/// One line about a message that did not succeed; none for a success.
#[must_use]
pub fn sentence(view: &MessageView) -> Option<String> {
    let success = view.state == State::Success;
    (!success).then(|| ended(&view.task, &view.id, view.state, view.outcome.as_ref(), view.attempt))
}

/// The same of its parts.
#[must_use]
pub fn ended(task: &str, id: &str, state: State, outcome: Option<&Outcome>, attempt: u32) -> String {
    let mut text = format!("{} {} is {state}", clean(task), clean(id));
    if let Some(outcome) = outcome.filter(|_| state.is_final() && state != State::Success) {
        let cause = clean(&outcome.reason());
        text.push_str(&format!(": {cause}"));
        let message = outcome.failure.as_ref().map(|f| f.message.trim());
        if let Some(message) = message.filter(|m| !m.is_empty() && *m != cause) {
            text.push_str(&format!(" ({})", clean(message)));
        }
    }
    if attempt > 1 {
        text.push_str(&format!(", attempt {attempt}"));
    }
    text
}

/// One line about output that nobody copied; none where all of it was.
#[must_use]
pub fn dropped(view: &MessageView) -> Option<String> {
    let bytes = view.outcome.as_ref().map_or(0, |o| o.usage.dropped_output);
    (bytes > 0).then(|| {
        format!("{bytes} bytes of output were dropped: the task printed faster than results.output_rate or than the journal took it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: State, cause: Option<Cause>) -> MessageView {
        let success = state == State::Success;
        let outcome = cause.map(|c| Outcome { success, ..Outcome::of_cause(c, "why") });
        let json = serde_json::json!({
            "id": "i", "task": "t", "queue": "q", "state": state, "priority": 0, "attempt": 2, "retries": 0,
            "losses": 0, "enqueued": 0, "outcome": outcome,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_end_has_its_code() {
        let exit = |code| Some(Cause::Exit { code });
        for (state, cause, code) in [
            (State::Success, exit(0), 0),
            (State::Success, exit(3), 3),
            (State::Success, None, 0),
            (State::Failure, exit(3), 3),
            (State::Failure, exit(255), 255),
            (State::Failure, exit(300), 1),
            (State::Failure, exit(0), 65),
            (State::Failure, None, 1),
            (State::Failure, Some(Cause::Signal { signal: 9, core: false }), 137),
            (State::Failure, Some(Cause::Signal { signal: 64, core: true }), 192),
            (State::Failure, Some(Cause::TimeLimit { soft: true }), 124),
            (State::Failure, Some(Cause::Memory), 137),
            (State::Failure, Some(Cause::SpawnFailed), 126),
            (State::Failure, Some(Cause::Rejected), 69),
            (State::Revoked, None, 69),
            (State::Revoked, Some(Cause::Revoked), 69),
            // Canceled between two attempts: the end of the first one is not the end of the message.
            (State::Revoked, exit(1), 69),
            (State::Expired, Some(Cause::Expired), 69),
            (State::Dead, Some(Cause::WorkerLost), 70),
            (State::Retry, exit(1), 75),
            (State::Waiting, None, 75),
            (State::Running, None, 75),
        ] {
            assert_eq!(exit_code(&view(state, cause.clone())), code, "{state} {cause:?}");
        }
    }

    #[test]
    fn an_end_that_is_no_success_is_told() {
        assert_eq!(sentence(&view(State::Success, None)), None);
        let told = sentence(&view(State::Failure, Some(Cause::Exit { code: 3 })));
        assert_eq!(told.as_deref(), Some("t i is FAILURE: exit code 3 (why), attempt 2"));
        let mut twice = view(State::Failure, Some(Cause::Exit { code: 3 }));
        twice.outcome.as_mut().unwrap().failure.as_mut().unwrap().message = "exit code 3".into();
        assert_eq!(sentence(&twice).as_deref(), Some("t i is FAILURE: exit code 3, attempt 2"));
        assert_eq!(sentence(&view(State::Running, None)).as_deref(), Some("t i is RUNNING, attempt 2"));
    }

    #[test]
    fn dropped_output_is_told() {
        let mut view = view(State::Success, Some(Cause::Exit { code: 0 }));
        assert_eq!(dropped(&view), None);
        view.outcome.as_mut().unwrap().usage.dropped_output = 812;
        assert!(dropped(&view).unwrap().starts_with("812 bytes of output were dropped"));
    }
}
