//! Requests as commands: arguments bound, what is missing said in Celery's words.

use super::reply::Reply;
use super::request::Request;
use crate::celery::call::read::{seconds, texts};
use crate::celery::json::{Fields, Json, Kind, Raw};
use crate::celery::repr;

/// A command of remote control.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Does it live?
    Ping,
    /// Attempts that run; with `safe`, arguments as text.
    Active {
        /// As text.
        safe: bool,
    },
    /// Messages held and not started.
    Reserved,
    /// Messages held for a later time.
    Scheduled,
    /// Tasks, with these properties of each.
    Registered(Vec<String>),
    /// Figures.
    Stats,
    /// Queues that are read.
    ActiveQueues,
    /// Settings.
    Conf {
        /// Those that nobody set too.
        with_defaults: bool,
    },
    /// A report for people.
    Report,
    /// Ids that were revoked.
    Revoked,
    /// The logical clock.
    Clock,
    /// Where these ids are.
    QueryTask(Vec<String>),
    /// A worker starts and exchanges revoked ids.
    Hello {
        /// Its name.
        from_node: String,
        /// Ids that it knows as revoked.
        revoked: Vec<String>,
    },
    /// Cancel these; with `terminate`, those too that run.
    Revoke {
        /// Their ids.
        ids: Vec<String>,
        /// Those too that run.
        terminate: bool,
        /// By this signal, a name or a number; absent: SIGTERM.
        signal: Option<String>,
    },
    /// Cancel what has a stamp of one of these values.
    RevokeByStamps {
        /// Stamps and their values.
        stamps: Fields,
        /// Those too that run.
        terminate: bool,
        /// By this signal.
        signal: Option<String>,
    },
    /// At most so many starts of a task: `10/m`, 0 for no limit.
    RateLimit {
        /// The task.
        task: String,
        /// The rate as it came, in Python's words.
        rate: String,
    },
    /// Other time limits of a task, in milliseconds.
    TimeLimit {
        /// The task.
        task: String,
        /// Hard.
        hard_ms: Option<u64>,
        /// Soft.
        soft_ms: Option<u64>,
    },
    /// Read another queue.
    AddConsumer(Consumer),
    /// Read a queue no longer.
    CancelConsumer(String),
    /// More child processes.
    PoolGrow(u32),
    /// Fewer.
    PoolShrink(u32),
    /// Their least and their most.
    Autoscale {
        /// The most.
        max: Option<u32>,
        /// The least.
        min: Option<u32>,
    },
    /// New child processes.
    PoolRestart,
    /// Send task events.
    EnableEvents,
    /// Send none.
    DisableEvents,
    /// Say at once that it lives.
    Heartbeat,
    /// End. There is no reply.
    Shutdown,
    /// Who of several does something; taskd leaves it to its store and takes no part.
    Election {
        /// Of what.
        id: String,
    },
    /// Figures of a Python process's memory (`memsample`, `memdump`, `objgraph`); there is none here.
    Memory,
}

/// A queue to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub queue: String,
    /// The exchange that it is bound to.
    pub exchange: Option<String>,
    /// That one's type.
    pub exchange_type: String,
    /// The key it is bound by.
    pub routing_key: Option<String>,
}

impl Request {
    /// The command.
    ///
    /// # Errors
    /// The reply to an unknown method, and to arguments that are missing or of another kind, as Celery words them.
    pub fn command(&self) -> Result<Command, Reply> {
        let bound = Bound { method: &self.method, arguments: &self.arguments };
        Ok(match self.method.as_str() {
            "ping" => Command::Ping,
            "active" | "dump_active" => Command::Active { safe: bound.flag("safe") },
            "reserved" | "dump_reserved" => Command::Reserved,
            "scheduled" | "dump_schedule" => Command::Scheduled,
            "registered" | "dump_tasks" => Command::Registered(bound.names("taskinfoitems")?),
            "stats" => Command::Stats,
            "active_queues" => Command::ActiveQueues,
            "conf" | "dump_conf" => Command::Conf { with_defaults: bound.flag("with_defaults") },
            "report" => Command::Report,
            "revoked" | "dump_revoked" => Command::Revoked,
            "clock" => Command::Clock,
            "query_task" => {
                bound.need(&["ids"])?;
                Command::QueryTask(bound.names("ids")?)
            }
            "hello" => {
                bound.need(&["from_node"])?;
                // Ids are the keys where it is an object with the times.
                let revoked = match bound.arguments.some("revoked") {
                    Some(ids) if ids.kind() == Kind::Object => {
                        ids.entries().unwrap_or_default().into_iter().map(|(id, _)| id).collect()
                    }
                    _ => bound.names("revoked")?,
                };
                Command::Hello { from_node: bound.text("from_node")?, revoked }
            }
            "revoke" | "terminate" => {
                let need: &[&str] =
                    if self.method == "revoke" { &["task_id"] } else { &["task_id", "signal"] };
                bound.need(need)?;
                let terminate = self.method == "terminate" || bound.flag("terminate");
                Command::Revoke { ids: bound.names("task_id")?, terminate, signal: bound.signal() }
            }
            "revoke_by_stamped_headers" => {
                bound.need(&["headers"])?;
                let stamps = bound.arguments.some("headers").and_then(stamps);
                let stamps =
                    stamps.ok_or_else(|| bound.wrong("headers", "an object, or a list of NAME=VALUE"))?;
                Command::RevokeByStamps { stamps, terminate: bound.flag("terminate"), signal: bound.signal() }
            }
            "rate_limit" => {
                bound.need(&["task_name", "rate_limit"])?;
                let rate = bound.arguments.get("rate_limit");
                let rate = rate.map(|rate| rate.as_text().unwrap_or_else(|| repr::full(rate)));
                Command::RateLimit { task: bound.text("task_name")?, rate: rate.unwrap_or_default() }
            }
            "time_limit" => {
                bound.need(&["task_name"])?;
                let limit = |name| {
                    let value = bound.arguments.get(name);
                    seconds(value, name).map_err(|_| bound.wrong(name, "seconds"))
                };
                Command::TimeLimit {
                    task: bound.text("task_name")?,
                    hard_ms: limit("hard")?,
                    soft_ms: limit("soft")?,
                }
            }
            "add_consumer" => {
                bound.need(&["queue"])?;
                Command::AddConsumer(Consumer {
                    queue: bound.text("queue")?,
                    exchange: bound.arguments.text("exchange"),
                    exchange_type: bound
                        .arguments
                        .text("exchange_type")
                        .unwrap_or_else(|| "direct".to_owned()),
                    routing_key: bound.arguments.text("routing_key"),
                })
            }
            "cancel_consumer" => {
                bound.need(&["queue"])?;
                Command::CancelConsumer(bound.text("queue")?)
            }
            "pool_grow" => Command::PoolGrow(bound.number("n")?.unwrap_or(1)),
            "pool_shrink" => Command::PoolShrink(bound.number("n")?.unwrap_or(1)),
            "autoscale" => Command::Autoscale { max: bound.number("max")?, min: bound.number("min")? },
            "pool_restart" => Command::PoolRestart,
            "enable_events" => Command::EnableEvents,
            "disable_events" => Command::DisableEvents,
            "heartbeat" => Command::Heartbeat,
            "shutdown" => Command::Shutdown,
            "election" => {
                bound.need(&["id", "topic"])?;
                Command::Election { id: bound.text("id")? }
            }
            "memsample" | "memdump" | "objgraph" => Command::Memory,
            unknown => {
                let name = repr::full(Raw::of_text(&crate::celery::content::shown(unknown)).json());
                return Err(Reply::Error(format!("KeyError({name})")));
            }
        })
    }
}

/// Stamps and their values: an object, or `NAME=VALUE` each, as the command line sends them.
fn stamps(headers: Json<'_>) -> Option<Fields> {
    if headers.kind() != Kind::List {
        return Fields::of(headers);
    }
    let pair = |text: &String| {
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), Raw::of_text(value)))
    };
    texts(headers)?.iter().map(pair).collect()
}

/// A method's arguments.
struct Bound<'a> {
    method: &'a str,
    arguments: &'a Fields,
}

impl Bound<'_> {
    /// Python's own words where some are missing.
    fn need(&self, names: &[&str]) -> Result<(), Reply> {
        let missing: Vec<String> = names
            .iter()
            .filter(|name| self.arguments.get(name).is_none())
            .map(|name| format!("'{name}'"))
            .collect();
        let listed = match missing.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            [one, two] => format!("{one} and {two}"),
            [before @ .., last] => format!("{}, and {last}", before.join(", ")),
        };
        let count = missing.len();
        let plural = if count == 1 { "" } else { "s" };
        let text =
            format!("{}() missing {count} required positional argument{plural}: {listed}", self.method);
        Err(Reply::Error(format!("TypeError({})", repr::full(Raw::of_text(&text).json()))))
    }

    fn wrong(&self, name: &str, want: &str) -> Reply {
        let text = format!("{}() argument '{name}' must be {want}", self.method);
        Reply::Error(format!("TypeError({})", repr::full(Raw::of_text(&text).json())))
    }

    fn flag(&self, name: &str) -> bool {
        let Some(value) = self.arguments.some(name) else { return false };
        value.as_bool().unwrap_or_else(|| !matches!(value.text(), "0" | "\"\"" | "[]" | "{}"))
    }

    fn text(&self, name: &str) -> Result<String, Reply> {
        self.arguments.text(name).ok_or_else(|| self.wrong(name, "a string"))
    }

    /// Strings of an array, or one; none where it is missing or null.
    fn names(&self, name: &str) -> Result<Vec<String>, Reply> {
        let Some(value) = self.arguments.some(name) else { return Ok(Vec::new()) };
        texts(value).ok_or_else(|| self.wrong(name, "a string or a list of strings"))
    }

    fn number(&self, name: &str) -> Result<Option<u32>, Reply> {
        let Some(value) = self.arguments.some(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| value.as_text()?.parse().ok());
        let number = number.and_then(|n| u32::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.wrong(name, "a number from 0"))
    }

    fn signal(&self) -> Option<String> {
        let signal: Json<'_> = self.arguments.some("signal")?;
        signal.as_text().or_else(|| signal.as_i64().map(|n| n.to_string())).filter(|text| !text.is_empty())
    }
}
