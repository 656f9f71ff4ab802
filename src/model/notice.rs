//! Who is told of what becomes of a task: the rules of a task, and the notice that is one durable message of
//! taskd's own for each who is told.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::Message;
use super::name::MessageId;
use super::outcome::Outcome;
use super::state::State;
use super::time::Wall;

/// The task, the queue and the pool of notices.
pub const NOTIFY: &str = "taskd.notify";

/// Names that begin so are taskd's own: no config may declare one.
pub const RESERVED: &str = "taskd.";

/// A notice that could not even be tried for so long is dropped as EXPIRED, in milliseconds.
pub const EXPIRES_MS: u64 = 86_400_000;

/// Bound of the arguments that a notice repeats, in bytes of JSON; longer ones are left out.
pub const MAX_CALL: usize = 4 << 10;

/// Bound of the output in a notice, in bytes.
pub const MAX_OUTPUT: usize = 16 << 10;

/// Bound of the failure's message and of its traceback in a notice, in bytes each.
pub const MAX_FAILURE: usize = 8 << 10;

/// What is told.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It failed for good.
    Failure,
    /// It succeeds again.
    Recovery,
    /// A message of it is dead.
    Dead,
    /// It did not run by the time it was expected.
    Missed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failure, Self::Recovery, Self::Dead, Self::Missed];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Dead => "dead",
            Self::Missed => "missed",
        }
    }
}

/// `on_failure`, `on_recovery` or `on_dead`, with every target named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Names of targets; what they are stands in the config of whoever executes them.
    pub targets: Vec<String>,
    /// Only after this many failures in a row, 1 or more.
    pub after: u32,
    /// At most this many notices in any so many milliseconds.
    pub at_most: Option<(u32, u64)>,
}

/// Who is told of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tell {
    /// `on_failure`.
    pub on_failure: Option<Rule>,
    /// `on_recovery`.
    pub on_recovery: Option<Rule>,
    /// `on_dead`.
    pub on_dead: Option<Rule>,
    /// `expected_by`: minutes since midnight, ascending, each once; empty: never.
    pub expected_by: Vec<u32>,
}

impl Tell {
    /// Whether nobody is ever told anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.on_failure.is_none() && self.on_recovery.is_none() && self.on_dead.is_none()
    }

    /// The rule of a kind: a dead message is a failure where nobody in particular is told of it.
    #[must_use]
    pub fn rule(&self, kind: Kind) -> Option<&Rule> {
        match kind {
            Kind::Failure | Kind::Missed => self.on_failure.as_ref(),
            Kind::Recovery => self.on_recovery.as_ref(),
            Kind::Dead => self.on_dead.as_ref().or(self.on_failure.as_ref()),
        }
    }
}

/// What a message was called with, as far as a notice repeats it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map<String, Value>,
    /// There were more than [`MAX_CALL`] bytes of them, and all were left out.
    pub cut: bool,
}

impl Called {
    /// Those of a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let short =
            serde_json::to_string(&(&message.args, &message.kwargs)).is_ok_and(|s| s.len() <= MAX_CALL);
        if short {
            Self { args: message.args.clone(), kwargs: message.kwargs.clone(), cut: false }
        } else {
            Self { cut: true, ..Self::default() }
        }
    }
}

/// The message that a notice is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: String,
    /// Its final state.
    pub state: State,
    /// How many attempts it had.
    pub attempt: u32,
    /// How it ended, without its result.
    pub outcome: Outcome,
    /// When it was accepted.
    pub enqueued: Wall,
    /// What it was called with; absent where it was not known any more.
    pub called: Option<Called>,
}

/// One notice for one target: the keyword arguments of a message of [`NOTIFY`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Who is told.
    pub target: String,
    /// Of what.
    pub kind: Kind,
    /// Of which task.
    pub task: String,
    /// When it was decided.
    pub at: Wall,
    /// Somebody tries whether notices arrive: nothing of it happened.
    #[serde(default)]
    pub test: bool,
    /// The message whose end it is about; absent with [`Kind::Missed`].
    #[serde(default)]
    pub subject: Option<Box<Subject>>,
    /// Failures in a row; with [`Kind::Recovery`] those before it.
    #[serde(default)]
    pub failures: u32,
    /// When the first of them was.
    #[serde(default)]
    pub since: Option<Wall>,
    /// Failures since the notice before that `at_most` kept back.
    #[serde(default)]
    pub kept_back: u32,
    /// With [`Kind::Missed`]: by when it was expected.
    #[serde(default)]
    pub expected: Option<Wall>,
    /// With [`Kind::Missed`]: since when there was no success.
    #[serde(default)]
    pub missing_since: Option<Wall>,
    /// The last lines of the attempt's output; put in by whoever has it.
    #[serde(default)]
    pub output: Vec<String>,
}

impl Notice {
    /// The message that carries it.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Message {
        let kwargs = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        Message {
            id,
            task: NOTIFY.to_owned(),
            queue: NOTIFY.to_owned(),
            kwargs,
            priority: super::message::MAX_PRIORITY,
            expires: Some(self.at.plus(EXPIRES_MS)),
            enqueued: self.at,
            ..Message::default()
        }
    }

    /// What a message of [`NOTIFY`] carries.
    ///
    /// # Errors
    /// A sentence where its keyword arguments are none.
    pub fn of(kwargs: Map<String, Value>) -> Result<Self, String> {
        serde_json::from_value(Value::Object(kwargs)).map_err(|e| format!("this is no notice: {e}"))
    }

    /// A sample of what a task's rule would tell.
    #[must_use]
    pub fn sample(target: String, kind: Kind, task: &str, at: Wall) -> Self {
        use super::outcome::Cause;
        let state = match kind {
            Kind::Dead => State::Dead,
            Kind::Recovery => State::Success,
            Kind::Failure | Kind::Missed => State::Failure,
        };
        let cause = if kind == Kind::Dead { Cause::WorkerLost } else { Cause::Exit { code: 1 } };
        let mut outcome = Outcome::of_cause(cause, "this is a test: nothing failed");
        if kind == Kind::Recovery {
            outcome = Outcome { cause: Cause::Exit { code: 0 }, success: true, failure: None, ..outcome };
        }
        let subject = Subject {
            id: MessageId("test".to_owned()),
            queue: NOTIFY.to_owned(),
            state,
            attempt: 1,
            outcome,
            enqueued: at,
            called: Some(Called::default()),
        };
        let missed = kind == Kind::Missed;
        Self {
            target,
            kind,
            task: task.to_owned(),
            at,
            test: true,
            subject: (!missed).then(|| Box::new(subject)),
            failures: u32::from(!missed),
            since: Some(at),
            kept_back: 0,
            expected: missed.then_some(at),
            missing_since: None,
            output: vec!["This is a test of taskd's notices.".to_owned()],
        }
    }
}

/// An outcome as a notice carries it: without its result, and no longer than [`MAX_FAILURE`] in each part.
#[must_use]
pub fn bounded(outcome: &Outcome) -> Outcome {
    let mut outcome = Outcome { result: None, truncated: false, ..outcome.clone() };
    if let Some(failure) = &mut outcome.failure {
        keep_tail(&mut failure.traceback);
        let cut = failure.message.floor_char_boundary(MAX_FAILURE);
        failure.message.truncate(cut);
    }
    outcome
}

fn keep_tail(text: &mut String) {
    let from = text.ceil_char_boundary(text.len().saturating_sub(MAX_FAILURE));
    text.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_back_from_its_message() {
        for kind in Kind::ALL {
            let notice = Notice::sample("mail:x".to_owned(), kind, "t", Wall(5));
            let message = notice.message(MessageId("i".to_owned()));
            assert_eq!(Notice::of(message.kwargs), Ok(notice));
        }
    }

    #[test]
    fn what_a_notice_repeats_is_bounded() {
        let mut outcome = Outcome::of_cause(super::super::outcome::Cause::Memory, "ä".repeat(MAX_FAILURE));
        outcome.result = Some(Value::from("x"));
        if let Some(failure) = &mut outcome.failure {
            failure.traceback = format!("{}end", "ü".repeat(MAX_FAILURE));
        }
        let bounded = bounded(&outcome);
        let failure = bounded.failure.unwrap();
        assert_eq!(bounded.result, None);
        assert!(failure.message.len() <= MAX_FAILURE && failure.traceback.len() <= MAX_FAILURE);
        assert!(failure.traceback.ends_with("end"));
        let message = Message { args: vec![Value::from("x".repeat(MAX_CALL))], ..Message::default() };
        assert_eq!(Called::of(&message), Called { cut: true, ..Called::default() });
    }
}
