//! The config room from outside: shipped files, reports, drop-ins, users, and input that is no config.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what only tests call may fail like a test"
)]

mod brokers;
mod credentials;
mod drop_ins;
mod faults;
mod never_panics;
mod origins;
mod settings;
mod shipped;
mod users;

use taskd::config::{Env, Loaded, Report, load_texts};

/// A server with the users of the package and of the examples, taskd started as root.
fn server() -> Env {
    let users = [
        ("taskd", 990),
        ("taskd-run", 991),
        ("www-data", 33),
        ("postgres", 110),
        ("shop", 1001),
        ("legacy", 1002),
        ("alice", 1003),
    ];
    Env::made("root", 0, &users)
}

/// A clone on the machine of an ordinary user.
fn laptop() -> Env {
    Env::made("ada", 1000, &[("root", 0), ("bob", 1001)])
}

fn load(text: &str, env: &Env) -> Result<Loaded, Report> {
    load_texts(&[("taskd.toml", text)], env)
}

/// A config that must be good.
fn good(text: &str) -> Loaded {
    load(text, &laptop()).unwrap_or_else(|report| panic!("{}", report.render(false)))
}

/// The messages of a config that must be bad, each with its key.
fn faults(text: &str) -> Vec<String> {
    faults_on(text, &laptop())
}

fn faults_on(text: &str, env: &Env) -> Vec<String> {
    let report = load(text, env).expect_err("the config was accepted");
    report.faults().iter().map(|f| format!("{}: {}", f.key, f.message)).collect()
}
