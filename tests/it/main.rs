//! The real binary, command by command: one file a command, and the two tests that kill and starve it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

mod harness;

mod cancel;
mod celery_app;
mod chain;
mod check;
mod chord;
mod completion;
mod config;
mod container;
mod crashes;
mod credentials;
mod dead;
mod drain;
mod enqueue;
mod exec;
mod faults;
mod graph;
mod group;
mod homes;
mod import;
mod kill;
mod ledger;
mod list;
mod logs;
mod manual;
mod notify;
mod openapi;
mod pause;
mod purge;
mod queues;
mod rate;
mod reload;
mod resident;
mod result;
mod retry;
mod run;
mod schedules;
mod show;
mod status;
mod stop;
mod store;
mod tasks;
mod unique;
mod upgrade;
mod why;
mod workflow;

/// Two runners, a short grace: what most tests start with.
const TWO_RUNNERS: &str = "[taskd]\nshutdown_grace = \"10s\"\n[pools.default]\nprocesses = 2\n";

/// A config of [`TWO_RUNNERS`] and these tables.
fn with(tables: &str) -> String {
    format!("{TWO_RUNNERS}{tables}")
}

/// A task `hold` that writes its id to the pipe `up` and goes on when `go` lets it.
const HOLD: &str = "[tasks.hold]\ncommand = \"echo $TASKD_ID >{dir}/up; read x <{dir}/go\"\n";
