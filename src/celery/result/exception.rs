//! Exceptions of Python: what `AsyncResult.get()` raises for the ends that taskd knows.

use crate::celery::json::build::{Object, list};
use crate::celery::json::{Json, Kind, Raw, value};
use crate::celery::repr;
use crate::model::outcome::{Cause, Failure, Outcome, Raised};

/// An exception: its class and what that is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The class's module. A client that has none of this name makes a class of its own in `celery.exceptions`;
    /// absent, it makes one even where the class is a builtin.
    pub module: Option<String>,
    /// The class.
    pub class: String,
    /// The constructor's arguments.
    pub args: Vec<Raw>,
}

/// What is known of the attempt beside its outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The hard time limit that was in force, in milliseconds.
    pub time_limit_ms: Option<u64>,
}

/// Python's builtin exceptions: the classes that a program may name without a module.
const BUILTINS: &[&str] = &[
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BaseException",
    "BlockingIOError",
    "BrokenPipeError",
    "BufferError",
    "BytesWarning",
    "ChildProcessError",
    "ConnectionAbortedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "DeprecationWarning",
    "EOFError",
    "Exception",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "FutureWarning",
    "ImportError",
    "ImportWarning",
    "IndentationError",
    "IndexError",
    "InterruptedError",
    "IOError",
    "IsADirectoryError",
    "KeyError",
    "LookupError",
    "MemoryError",
    "ModuleNotFoundError",
    "NameError",
    "NotADirectoryError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "PendingDeprecationWarning",
    "PermissionError",
    "ProcessLookupError",
    "RecursionError",
    "ReferenceError",
    "ResourceWarning",
    "RuntimeError",
    "RuntimeWarning",
    "StopAsyncIteration",
    "StopIteration",
    "SyntaxError",
    "SystemError",
    "TabError",
    "TimeoutError",
    "TypeError",
    "UnboundLocalError",
    "UnicodeError",
    "UserWarning",
    "ValueError",
    "Warning",
    "ZeroDivisionError",
];

/// The module of classes that are nobody's: clients have none of this name.
const NOBODY: &str = "taskd";

impl Exception {
    /// An exception that is called with these strings.
    #[must_use]
    pub fn new<const N: usize>(module: &str, class: &str, args: [String; N]) -> Self {
        let args = args.iter().map(|arg| Raw::of_text(arg)).collect();
        Self { module: Some(module.to_owned()), class: class.to_owned(), args }
    }

    /// The task is not declared here.
    #[must_use]
    pub fn not_registered(task: &str) -> Self {
        Self::new("celery.exceptions", "NotRegistered", [task.to_owned()])
    }

    /// A member of a chord failed: what its body gets.
    #[must_use]
    pub fn chord(id: &str, raised: &Self) -> Self {
        let message = format!("Dependency {id} raised {}", raised.repr());
        Self::new("celery.exceptions", "ChordError", [message])
    }

    /// The task was canceled: `revoked` before it ran, `terminated` while it did, `expired`.
    #[must_use]
    pub fn revoked(how: &str) -> Self {
        Self::new("celery.exceptions", "TaskRevokedError", [how.to_owned()])
    }

    /// What is raised for an outcome that is no success.
    #[must_use]
    pub fn of(outcome: &Outcome, about: About<'_>) -> Self {
        let failure = outcome.failure.clone().unwrap_or_default();
        let billiard = |class, args: Vec<Raw>| Self {
            module: Some("billiard.exceptions".to_owned()),
            class: String::from(class),
            args,
        };
        match &outcome.cause {
            Cause::Exit { code } => Self::process(i64::from(*code), about.task, &failure),
            // As `subprocess` says it: the signal's number, negative.
            Cause::Signal { signal, .. } => Self::process(-i64::from(*signal), about.task, &failure),
            Cause::Error { .. } => match outcome.celery.as_ref().and_then(|celery| celery.exception.as_ref())
            {
                Some(raised) => Self::raised(raised),
                None => Self::named(&failure),
            },
            Cause::TimeLimit { soft: true } => billiard("SoftTimeLimitExceeded", Vec::new()),
            Cause::TimeLimit { soft: false } => {
                let seconds = about.time_limit_ms.map(|ms| match i64::try_from(ms / 1000) {
                    Ok(whole) if ms % 1000 == 0 => Raw::of_int(whole),
                    _ => Raw::of_float(ms as f64 / 1000.0),
                });
                billiard("TimeLimitExceeded", seconds.into_iter().collect())
            }
            Cause::Memory => Self::new("builtins", "MemoryError", [failure.message]),
            Cause::Revoked => Self::revoked(if outcome.started.is_some() { "terminated" } else { "revoked" }),
            Cause::Expired => Self::revoked("expired"),
            Cause::WorkerLost | Cause::Interrupted => {
                billiard("WorkerLostError", vec![Raw::of_text(&failure.message)])
            }
            Cause::SpawnFailed => Self::new("builtins", "OSError", [failure.message]),
            // What Celery's workers raise for a call that does not fit its task.
            Cause::Rejected => Self::new("builtins", "TypeError", [failure.message]),
            Cause::Upstream { id, .. } => {
                let message = format!("Dependency {id} raised {}", failure.message);
                Self::new("celery.exceptions", "ChordError", [message])
            }
        }
    }

    /// `subprocess.CalledProcessError`: code, command, output, the tail of stderr. The command is the task's name;
    /// its command line is nobody's business who may only enqueue it.
    fn process(code: i64, task: &str, failure: &Failure) -> Self {
        let mut args = vec![Raw::of_int(code), Raw::of_text(task)];
        if !failure.traceback.is_empty() {
            args.extend([Raw::null(), Raw::of_text(&failure.traceback)]);
        }
        Self { module: Some("subprocess".to_owned()), class: "CalledProcessError".to_owned(), args }
    }

    /// What a task of a Celery app raised.
    fn raised(raised: &Raised) -> Self {
        let args = raised.args.iter().map(value::write).collect();
        Self { module: Some(raised.module.clone()), class: raised.class.clone(), args }
    }

    /// What a program itself named: `ValueError`, `shop.errors.Declined`.
    fn named(failure: &Failure) -> Self {
        let sound = |part: &str| {
            let mut chars = part.chars();
            chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && chars.all(|c| c.is_alphanumeric() || c == '_')
        };
        let kind = failure.kind.trim();
        let message = failure.message.clone();
        if kind.is_empty() || !kind.split('.').all(sound) {
            let message = if kind.is_empty() { message } else { format!("{kind}: {message}") };
            return Self::new("builtins", "RuntimeError", [message]);
        }
        match kind.rsplit_once('.') {
            Some((module, class)) => Self::new(module, class, [message]),
            None if BUILTINS.contains(&kind) => Self::new("builtins", kind, [message]),
            None => Self::new(NOBODY, kind, [message]),
        }
    }

    /// The exception as it stands in a meta.
    #[must_use]
    pub fn write(&self) -> Raw {
        Object::new()
            .text("exc_type", &self.class)
            .with("exc_message", &list(&self.args))
            .option("exc_module", self.module.as_deref())
            .done()
    }

    /// Reads one of a meta. What is no exception there is one without a class's name.
    #[must_use]
    pub fn read(json: Json<'_>) -> Self {
        let args = match json.get("exc_message") {
            Some(args) => args.items().unwrap_or_else(|| vec![args]).into_iter().map(Json::to_raw).collect(),
            None if json.is_null() => Vec::new(),
            None => vec![json.to_raw()],
        };
        let class = json.get("exc_type").and_then(Json::as_text).unwrap_or_else(|| "Exception".to_owned());
        Self { module: json.get("exc_module").and_then(Json::as_text), class, args }
    }

    /// Python's `repr`: `ValueError('bang')`.
    #[must_use]
    pub fn repr(&self) -> String {
        if let ("Reject", [reason, requeue]) = (self.class.as_str(), self.args.as_slice()) {
            // The one class here that has its own.
            let reason = reason.json().as_text().unwrap_or_else(|| repr::full(reason.json()));
            return format!("reject requeue={}: {reason}", repr::full(requeue.json()));
        }
        let args: Vec<String> = self.args.iter().map(|arg| repr::full(arg.json())).collect();
        format!("{}({})", self.class, args.join(", "))
    }

    /// Python's `str`: the one argument, or all of them.
    #[must_use]
    pub fn message(&self) -> String {
        match self.args.as_slice() {
            [] => String::new(),
            [one] if one.json().kind() == Kind::Text => one.json().as_text().unwrap_or_default(),
            [one] => repr::full(one.json()),
            _ => repr::arguments(list(&self.args).json(), repr::MAX_ARGS),
        }
    }

    /// The error that an exception of another worker is to taskd.
    #[must_use]
    pub fn failure(&self, traceback: Option<&str>) -> Failure {
        let kind = match self.module.as_deref() {
            None | Some("builtins" | "") => self.class.clone(),
            Some(module) => format!("{module}.{}", self.class),
        };
        Failure { kind, message: self.message(), traceback: traceback.unwrap_or_default().to_owned() }
    }

    /// Why an attempt of another worker ended with it, as far as the class says.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let number = || self.args.first().and_then(|arg| arg.json().as_i64());
        match (self.class.as_str(), number()) {
            ("CalledProcessError", Some(code)) => match i32::try_from(code) {
                Ok(code @ 0..) => Cause::Exit { code },
                Ok(code) => Cause::Signal { signal: code.saturating_neg(), core: false },
                Err(_) => Cause::Error { fatal: false },
            },
            ("TimeLimitExceeded", _) => Cause::TimeLimit { soft: false },
            ("SoftTimeLimitExceeded", _) => Cause::TimeLimit { soft: true },
            ("WorkerLostError", _) => Cause::WorkerLost,
            ("TaskRevokedError", _) if self.message() == "expired" => Cause::Expired,
            ("TaskRevokedError", _) => Cause::Revoked,
            _ => Cause::Error { fatal: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::MessageId;
    use crate::model::time::Wall;

    fn raised(cause: Cause, message: &str) -> (String, String) {
        let about = About { task: "clean", time_limit_ms: Some(1500) };
        let exception = Exception::of(&Outcome::of_cause(cause, message), about);
        (exception.module.clone().unwrap_or_default(), exception.repr())
    }

    #[test]
    fn every_end_has_a_class_that_clients_have() {
        let upstream = Cause::Upstream { id: MessageId("u".into()), step: 1 };
        for (cause, module, repr) in [
            (Cause::Exit { code: 3 }, "subprocess", "CalledProcessError(3, 'clean')"),
            (Cause::Signal { signal: 9, core: false }, "subprocess", "CalledProcessError(-9, 'clean')"),
            (Cause::TimeLimit { soft: true }, "billiard.exceptions", "SoftTimeLimitExceeded()"),
            (Cause::TimeLimit { soft: false }, "billiard.exceptions", "TimeLimitExceeded(1.5)"),
            (Cause::Memory, "builtins", "MemoryError('m')"),
            (Cause::Revoked, "celery.exceptions", "TaskRevokedError('revoked')"),
            (Cause::Expired, "celery.exceptions", "TaskRevokedError('expired')"),
            (Cause::WorkerLost, "billiard.exceptions", "WorkerLostError('m')"),
            (Cause::SpawnFailed, "builtins", "OSError('m')"),
            (Cause::Rejected, "builtins", "TypeError('m')"),
            (upstream, "celery.exceptions", "ChordError('Dependency u raised m')"),
        ] {
            assert_eq!(raised(cause.clone(), "m"), (module.to_owned(), repr.to_owned()), "{cause:?}");
        }
        let mut running = Outcome::of_cause(Cause::Revoked, "");
        running.started = Some(Wall(1));
        assert_eq!(Exception::of(&running, About::default()).repr(), "TaskRevokedError('terminated')");
    }

    #[test]
    fn what_a_program_names_is_raised_as_that() {
        for (kind, module, repr) in [
            ("ValueError", "builtins", "ValueError('m')"),
            ("shop.errors.Declined", "shop.errors", "Declined('m')"),
            ("Declined", "taskd", "Declined('m')"),
            ("", "builtins", "RuntimeError('m')"),
            ("os.system('x')", "builtins", "RuntimeError(\"os.system('x'): m\")"),
        ] {
            let mut outcome = Outcome::of_cause(Cause::Error { fatal: false }, "m");
            outcome.failure.as_mut().unwrap().kind = kind.into();
            let exception = Exception::of(&outcome, About::default());
            assert_eq!((exception.module.as_deref(), exception.repr()), (Some(module), repr.to_owned()));
            assert_eq!(Exception::read(exception.write().json()), exception);
        }
    }

    #[test]
    fn what_a_celery_task_raised_is_raised_with_its_own_arguments() {
        let mut outcome = Outcome::of_cause(Cause::Error { fatal: false }, "('shoe', 3)");
        let raised = Raised {
            module: "shop.errors".to_owned(),
            class: "Gone".to_owned(),
            args: vec!["shoe".into(), 3.into()],
        };
        outcome.celery = Some(Box::new(crate::model::outcome::CeleryEnd {
            exception: Some(raised),
            ..Default::default()
        }));
        let exception = Exception::of(&outcome, About::default());
        assert_eq!(
            (exception.module.as_deref(), exception.repr()),
            (Some("shop.errors"), "Gone('shoe', 3)".into())
        );
    }

    #[test]
    fn the_tail_of_stderr_goes_with_an_exit() {
        let mut outcome = Outcome::of_cause(Cause::Exit { code: 1 }, "m");
        outcome.failure.as_mut().unwrap().traceback = "no space".into();
        let exception = Exception::of(&outcome, About { task: "t", time_limit_ms: None });
        assert_eq!(exception.repr(), "CalledProcessError(1, 't', None, 'no space')");
        assert_eq!(exception.cause(), Cause::Exit { code: 1 });
    }

    #[test]
    fn broken_ones_are_exceptions_all_the_same() {
        for (text, repr) in [
            ("null", "Exception()"),
            ("\"boom\"", "Exception('boom')"),
            (r#"{"exc_type": "E", "exc_message": "one"}"#, "E('one')"),
            (r#"{"exc_type": 5}"#, "Exception({'exc_type': 5})"),
        ] {
            assert_eq!(Exception::read(Json::parse(text).unwrap()).repr(), repr, "{text}");
        }
    }
}
