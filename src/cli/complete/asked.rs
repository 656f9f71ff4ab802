//! Names that the running daemon knows: one question, a short wait, and nothing at all where there is no answer.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Candidate;
use super::place::Place;
use super::words::Typed;
use crate::cli::moment;
use crate::cli::output::clean;
use crate::config::Home;
use crate::control::api::{QueueView, ScheduleView, TaskView};
use crate::control::canvas::DeclaredView;
use crate::control::client::{Client, DEFAULT_SOCKET};
use crate::control::route::Method;
use crate::model::name;
use crate::model::state::State;

/// Nobody waits longer for a Tab.
const PATIENCE: Duration = Duration::from_millis(300);

/// Messages that are offered at most.
const MESSAGES: usize = 50;

/// Messages that are looked through when the beginning of an id was typed.
const LOOKED_THROUGH: usize = 500;

/// Longest text beside a name, in characters.
const ABOUT: usize = 60;

/// Longest value of a parameter that is offered, in bytes.
const VALUE: usize = 200;

/// Whom to ask.
#[derive(Debug)]
pub struct Asked {
    socket: PathBuf,
}

/// A declared parameter.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type, and its default.
    pub about: String,
    /// The only values, where there are such.
    pub one_of: Vec<String>,
}

impl Param {
    /// Whether any text may stand there.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.about.starts_with("string")
    }
}

/// What a message is shown by: nothing else of it is read.
#[derive(Debug, Deserialize)]
struct Message {
    id: String,
    task: String,
    state: State,
    enqueued: i64,
}

impl Asked {
    /// The daemon that the command would ask: `--socket`, then TASKD_SOCKET before the command, then that of
    /// the shell, then where it is by default: with --user in the user's own place.
    pub fn new(place: &Place<'_>, typed: &Typed) -> Self {
        let before = typed.environment.iter().rev().find(|(name, _)| name == "TASKD_SOCKET");
        let typed = place.value("socket").or(before.map(|(_, value)| value.as_str()));
        let socket = typed.map(at_home).or_else(|| std::env::var_os("TASKD_SOCKET").map(PathBuf::from));
        let home = || {
            let mine = place.used.contains("user").then(Home::mine);
            mine.and_then(|home| Some(home.ok()?.socket().ok()?.to_owned()))
        };
        let named = socket.filter(|s| !s.as_os_str().is_empty());
        Self { socket: named.or_else(home).unwrap_or_else(|| DEFAULT_SOCKET.into()) }
    }

    fn ask<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().ok()?;
        runtime.block_on(async {
            let mut client = Client::new(&self.socket, PATIENCE);
            let asking = client.call(Method::Get, path, None, true);
            tokio::time::timeout(PATIENCE, asking).await.ok()?.ok()
        })
    }

    fn views(&self) -> Vec<TaskView> {
        self.ask("/v1/tasks").unwrap_or_default()
    }

    /// Declared tasks; of a pattern the part before its first wildcard. `to_run`: those that may be.
    pub fn tasks(&self, to_run: bool) -> Vec<Candidate> {
        let shown = self.views().into_iter().filter(|t| t.enabled || !to_run);
        shown
            .filter_map(|t| {
                let about = short(&format!("{}, queue {}", t.kind, t.queue));
                match t.name.find(['*', '?']) {
                    None => is_name(&t.name).then(|| Candidate::new(t.name, about)),
                    Some(0) => None,
                    Some(at) => {
                        let begins = t.name.get(..at).filter(|b| is_name(b))?;
                        Some(Candidate::beginning(begins, short(&format!("{}: {about}", t.name))))
                    }
                }
            })
            .collect()
    }

    /// Declared workflows.
    pub fn workflows(&self) -> Vec<Candidate> {
        let all: Vec<DeclaredView> = self.ask("/v1/workflows").unwrap_or_default();
        let named = all.into_iter().filter(|w| is_name(&w.name));
        named
            .map(|w| Candidate::new(w.name, crate::control::api::count(w.steps.len() as u64, "step")))
            .collect()
    }

    /// The parameters of a task, that of its pattern where it is not declared by name.
    pub fn params(&self, task: &str) -> Vec<Param> {
        let views = self.views();
        let exact = views.iter().find(|t| t.name == task);
        let pattern = || {
            let longest = name::longest_pattern(views.iter().map(|t| t.name.as_str()), task)?;
            views.iter().find(|t| t.name == longest)
        };
        exact.or_else(pattern).map(params).unwrap_or_default()
    }

    /// Queues on which this command has something to do.
    pub fn queues(&self, command: &str) -> Vec<Candidate> {
        let all: Vec<QueueView> = self.ask("/v1/queues").unwrap_or_default();
        let fits = |q: &QueueView| match command {
            "pause" => !q.paused,
            "resume" => q.paused,
            _ => true,
        };
        let named = all.into_iter().filter(|q| is_name(&q.name) && fits(q));
        named
            .map(|q| {
                let paused = if q.paused { ", paused" } else { "" };
                let about = format!("{} waiting, {} running{paused}", q.waiting, q.running);
                Candidate::new(q.name, about)
            })
            .collect()
    }

    /// Schedules on which this command has something to do.
    pub fn schedules(&self, command: &str) -> Vec<Candidate> {
        let all: Vec<ScheduleView> = self.ask("/v1/schedules").unwrap_or_default();
        let fits = |s: &ScheduleView| match command {
            "pause" => s.paused.is_none(),
            "resume" => s.paused.is_some(),
            _ => true,
        };
        let named = all.into_iter().filter(|s| is_name(&s.name) && fits(s));
        named
            .map(|s| {
                Candidate::new(
                    s.name,
                    short(&format!("{}, {}", s.task.or(s.workflow).unwrap_or_default(), s.when)),
                )
            })
            .collect()
    }

    /// Messages to which this command can be done, newest first, those not that stand there already.
    pub fn messages(&self, place: &Place<'_>, begun: &str) -> Vec<Candidate> {
        const LIVE: &str = "&state=SCHEDULED,WAITING,RUNNING,RETRY";
        const ENDED: &str = "&state=SUCCESS,FAILURE,REVOKED,EXPIRED,DEAD";
        let states = match place.command.get_name() {
            "cancel" | "why" => LIVE,
            "retry" => "&state=FAILURE,REVOKED,EXPIRED,DEAD",
            "result" if !place.used.contains("wait") => ENDED,
            _ => "",
        };
        let limit = if begun.is_empty() { MESSAGES } else { LOOKED_THROUGH };
        let all: Vec<Message> = self.ask(&format!("/v1/messages?limit={limit}{states}")).unwrap_or_default();
        let now = moment::now();
        let fits =
            |m: &Message| m.id.starts_with(begun) && is_name(&m.id) && !place.positional.contains(&m.id);
        let shown = all.into_iter().filter(fits).take(MESSAGES);
        shown
            .map(|m| {
                let state = m.state.name().to_lowercase();
                let when = moment::relative(m.enqueued, now);
                Candidate::new(m.id, short(&format!("{}, {state}, enqueued {when}", m.task)))
            })
            .collect()
    }
}

/// `~/` as the shell will replace it.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// The parameters as `taskd tasks` shows them: `name=type, default x`.
fn params(task: &TaskView) -> Vec<Param> {
    let each = task.params.iter().filter_map(|text| {
        let (name, about) = text.split_once('=')?;
        if !is_name(name) {
            return None;
        }
        let values = task.one_of.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut one_of: Vec<String> = values.iter().filter_map(plain).collect();
        if about.starts_with("bool") && one_of.is_empty() {
            one_of = vec!["true".to_owned(), "false".to_owned()];
        }
        Some(Param { name: name.to_owned(), about: short(about), one_of })
    });
    each.collect()
}

/// A value as it is typed, if it can be.
fn plain(value: &Value) -> Option<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (text.len() <= VALUE && !text.contains(char::is_control)).then_some(text)
}

fn is_name(text: &str) -> bool {
    name::check(text).is_ok()
}

/// What a terminal can show beside a name.
fn short(text: &str) -> String {
    let text = clean(text);
    if text.chars().count() <= ABOUT {
        return text;
    }
    text.chars().take(ABOUT - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(params: &[&str], one_of: Value) -> TaskView {
        serde_json::from_value(serde_json::json!({
            "name": "t", "kind": "exec", "queue": "q", "enabled": true, "params": params, "one_of": one_of,
        }))
        .unwrap()
    }

    #[test]
    fn parameters_have_their_type_and_values() {
        let all = params(&view(
            &["n=int", "size=string, default \"small\"", "dry=bool"],
            serde_json::json!({"n": [1, 2], "size": ["small", "a b", "x\u{1b}[2J"]}),
        ));
        let of = |name: &str| all.iter().find(|p| p.name == name).unwrap();
        assert_eq!(of("n").one_of, ["1", "2"]);
        assert_eq!(of("size").one_of, ["small", "a b"]);
        assert_eq!(of("size").about, "string, default \"small\"");
        assert_eq!(of("dry").one_of, ["true", "false"]);
        assert!(of("size").is_text() && !of("n").is_text());
        assert!(params(&view(&["$(x)=int", "nothing"], serde_json::json!({}))).is_empty());
    }

    #[test]
    fn what_is_shown_beside_a_name_is_short_and_tame() {
        assert_eq!(short("a\tb\n\u{1b}[31m"), "a\\tb\\n\\u{1b}[31m");
        assert_eq!(short(&"é".repeat(99)).chars().count(), ABOUT);
    }
}
