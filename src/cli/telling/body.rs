//! What a notice says: as JSON for programs and webhooks, as text for people.

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::output::clean;
use crate::cli::{ending, moment};
use crate::model::notice::{Kind, Notice};
use crate::model::outcome::{Cause, Failure, Usage};
use crate::model::state::State;

/// Longest summary, in characters: it is the subject of a mail.
const SUMMARY: usize = 160;

/// The JSON that an `exec` target reads on stdin and a `webhook` gets as its body. Times are milliseconds since
/// the epoch. Later versions may add members.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Body {
    /// Version of this form: 1.
    pub v: u32,
    /// What is told.
    pub kind: Kind,
    /// Somebody tries whether notices arrive (`taskd notify test`): nothing of it happened.
    pub test: bool,
    /// The task.
    pub task: String,
    /// The node.
    pub node: String,
    /// One line: what happened.
    pub summary: String,
    /// All of it for people, as a mail has it. Some chat services show this member of a webhook as it is.
    pub text: String,
    /// When it was decided.
    pub at: i64,
    /// The message; absent with `missed`, as are the members about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// How many attempts it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why it ended, as `taskd result` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// Why the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What went wrong in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the message was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enqueued: Option<i64>,
    /// When its last attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// Its positional arguments; absent where they were too long, or not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Value>>,
    /// Its keyword arguments, as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kwargs: Option<Map<String, Value>>,
    /// Failures of the task in a row; with `recovery` those before it.
    pub failures: u32,
    /// When the first of them was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Failures that `at_most` kept back since the notice before.
    pub kept_back: u32,
    /// With `missed`: by when it was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<i64>,
    /// With `missed`: since when there was no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<i64>,
    /// The last lines of the attempt's output.
    pub output: Vec<String>,
}

/// The JSON Schema of [`Body`].
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(Body).to_value()
}

impl Body {
    /// What this notice says on this node, to people in this zone.
    #[must_use]
    pub fn new(notice: &Notice, node: &str, zone: &TimeZone) -> Self {
        let subject = notice.subject.as_deref();
        let outcome = subject.map(|s| &s.outcome);
        let called = subject.and_then(|s| s.called.as_ref()).filter(|c| !c.cut);
        let sentence =
            subject.map(|s| ending::ended(&notice.task, s.id.as_str(), s.state, Some(&s.outcome), s.attempt));
        let mut body = Self {
            v: 1,
            kind: notice.kind,
            test: notice.test,
            task: notice.task.clone(),
            node: node.to_owned(),
            summary: one_line(&summary(notice, node, zone)),
            text: String::new(),
            at: notice.at.0,
            id: subject.map(|s| s.id.0.clone()),
            queue: subject.map(|s| s.queue.clone()),
            state: subject.map(|s| s.state),
            attempt: subject.map(|s| s.attempt),
            sentence,
            cause: outcome.map(|o| o.cause.clone()),
            failure: outcome.and_then(|o| o.failure.clone()),
            usage: outcome.map(|o| o.usage.clone()),
            enqueued: subject.map(|s| s.enqueued.0),
            started: outcome.and_then(|o| o.started).map(|t| t.0),
            args: called.map(|c| c.args.clone()),
            kwargs: called.map(|c| c.kwargs.clone()),
            failures: notice.failures,
            since: notice.since.map(|t| t.0),
            kept_back: notice.kept_back,
            expected: notice.expected.map(|t| t.0),
            missing_since: notice.missing_since.map(|t| t.0),
            output: notice.output.clone(),
        };
        body.text = body.words(zone);
        body
    }

    /// As JSON on one line.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    fn words(&self, zone: &TimeZone) -> String {
        let mut text = format!("{}\n\n", self.summary);
        if self.test {
            text.push_str("This is a test of the notices: nothing of it happened.\n\n");
        }
        let time = |ms: i64| moment::local(ms, zone);
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                text.push_str(&format!("{name:<10} {value}\n"));
            }
        };
        line("task", Some(clean(&self.task)));
        line("node", Some(clean(&self.node)));
        line("message", self.id.as_deref().map(clean));
        line("state", self.state.map(|s| s.to_string()));
        line("attempts", self.attempt.map(|n| n.to_string()));
        line("enqueued", self.enqueued.map(time));
        line("started", self.started.map(time));
        line("told", Some(time(self.at)));
        if let Some(usage) = self.usage.as_ref().filter(|_| self.started.is_some()) {
            let cpu = usage.user_us.saturating_add(usage.system_us) / 1_000;
            let memory = crate::cli::table::size(usage.memory_peak.unwrap_or(usage.max_rss));
            let used = format!("{}, CPU {}, memory {memory}", moment::span(usage.wall_ms), moment::span(cpu));
            line("ran", Some(used));
        }
        let call = self.args.as_ref().filter(|a| !a.is_empty()).map(|a| Value::from(a.clone()).to_string());
        line("args", call.as_deref().map(clean));
        let call = self.kwargs.as_ref().filter(|k| !k.is_empty()).map(|k| Value::from(k.clone()).to_string());
        line("kwargs", call.as_deref().map(clean));
        if self.failures > 1 || self.kept_back > 0 {
            let since = self.since.map(|t| format!(" since {}", time(t))).unwrap_or_default();
            let more = match self.kept_back {
                0 => String::new(),
                n => format!("; {n} more since the notice before this one"),
            };
            line("failures", Some(format!("{} in a row{since}{more}", self.failures)));
        }
        if let Some(sentence) = self.sentence.as_ref().filter(|_| self.kind != Kind::Recovery) {
            text.push_str(&format!("\n{sentence}\n"));
        }
        let traceback = self.failure.as_ref().map(|f| f.traceback.trim_end()).filter(|t| !t.is_empty());
        if let Some(traceback) = traceback {
            text.push_str(&format!("\nWhat it said last:\n{}\n", lines(traceback)));
        }
        if !self.output.is_empty() {
            text.push_str("\nThe last lines of its output:\n");
            for printed in &self.output {
                text.push_str(&format!("{}\n", lines(printed)));
            }
        }
        if let Some(id) = self.id.as_ref().filter(|_| !self.test) {
            text.push_str(&format!("\nMore: taskd result {0}; taskd logs {0}\n", clean(id)));
        }
        text
    }
}

/// Text of several lines, indented, without what a terminal or a mail reader would obey.
fn lines(text: &str) -> String {
    text.lines().map(|l| format!("    {}", clean(&l.replace('\t', "    ")))).collect::<Vec<_>>().join("\n")
}

fn summary(notice: &Notice, node: &str, zone: &TimeZone) -> String {
    let test = if notice.test { "test: " } else { "" };
    let task = &notice.task;
    let why = || {
        let subject = notice.subject.as_deref();
        let outcome = subject.map(|s| &s.outcome);
        outcome.map_or_else(String::new, |o| match o.failure.as_ref().map(|f| f.message.trim()) {
            Some(message) if !message.is_empty() => format!(": {message}"),
            _ => format!(": {}", o.reason()),
        })
    };
    let more = match notice.kept_back {
        0 => String::new(),
        n => format!(" (and {n} more since)"),
    };
    match notice.kind {
        Kind::Failure => format!("{test}{task} failed on {node}{}{more}", why()),
        Kind::Dead => format!("{test}{task} is dead on {node}{}{more}", why()),
        Kind::Recovery => {
            let span =
                notice.since.map(|t| format!(", {}", moment::span(notice.at.since(t)))).unwrap_or_default();
            let after = match notice.failures {
                0 => " after it was missed".to_owned(),
                1 => format!(" after 1 failure{span}"),
                n => format!(" after {n} failures{span}"),
            };
            format!("{test}{task} succeeds again on {node}{after}")
        }
        Kind::Missed => {
            let by = notice.expected.map(|t| moment::local(t.0, zone)).unwrap_or_default();
            let since = notice
                .missing_since
                .map(|t| format!(": no success since {}", moment::local(t.0, zone)))
                .unwrap_or_default();
            format!("{test}{task} did not run by {by} on {node}{since}")
        }
    }
}

/// One line of bounded length, whatever it was.
fn one_line(text: &str) -> String {
    let line = clean(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if line.chars().count() <= SUMMARY {
        return line;
    }
    line.chars().take(SUMMARY - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Wall;

    fn body(kind: Kind, change: impl FnOnce(&mut Notice)) -> Body {
        let mut notice = Notice::sample("mail:x".to_owned(), kind, "t", Wall(1_700_000_000_000));
        notice.test = false;
        change(&mut notice);
        Body::new(&notice, "web1", &TimeZone::UTC)
    }

    #[test]
    fn it_says_what_happened_in_one_line() {
        let failed = body(Kind::Failure, |n| {
            n.kept_back = 7;
            n.subject.as_mut().unwrap().outcome.failure.as_mut().unwrap().message = "exit code 3".to_owned();
        });
        assert_eq!(failed.summary, "t failed on web1: exit code 3 (and 7 more since)");
        assert_eq!(failed.sentence.as_deref(), Some("t test is FAILURE: exit code 1 (exit code 3)"));
        let again = body(Kind::Recovery, |n| {
            n.failures = 3;
            n.since = Some(Wall(n.at.0 - 7_500_000));
        });
        assert_eq!(again.summary, "t succeeds again on web1 after 3 failures, 2h 5m");
        let missed = body(Kind::Missed, |n| n.missing_since = Some(Wall(n.at.0 - 86_400_000)));
        assert_eq!(
            missed.summary,
            "t did not run by 2023-11-14 22:13:20 on web1: no success since 2023-11-13 22:13:20"
        );
    }

    #[test]
    fn what_a_program_printed_cannot_break_out_of_its_line() {
        let evil = body(Kind::Failure, |n| {
            n.subject.as_mut().unwrap().outcome.failure.as_mut().unwrap().message =
                "a\r\nBcc: b@c\r\n\r\n\u{1b}]0;x".to_owned() + &"y".repeat(500);
            n.output = vec!["x\u{1b}[2Jy\rz".to_owned()];
        });
        assert!(!evil.summary.contains(char::is_control) && evil.summary.chars().count() <= SUMMARY);
        assert!(!evil.text.contains(['\u{1b}', '\r']), "{:?}", evil.text);
    }

    #[test]
    fn the_schema_names_every_member() {
        let schema = schema();
        let Value::Object(body) = serde_json::to_value(body(Kind::Failure, |_| {})).unwrap() else {
            panic!()
        };
        for name in body.keys() {
            assert!(schema["properties"].get(name).is_some(), "{name}");
        }
    }
}
