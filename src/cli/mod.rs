//! The commands, one file each; the only place where errors are worded for people.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hyper::body::Bytes;
use serde::Serialize;

use crate::config::Home;
use crate::control::client::Client;
use crate::control::route::Method;
use crate::model::name;

use home::Elsewhere;
use output::{Color, Ending, Failure};

pub mod arguments;
pub mod cancel;
pub mod chain;
pub mod check;
pub mod chord;
pub mod complete;
pub mod completion;
pub mod config;
pub mod dead;
pub mod drain;
pub mod ending;
pub mod enqueue;
pub mod exec;
pub mod follow;
pub mod graph;
pub mod group;
pub mod home;
pub mod import;
pub mod list;
pub mod logs;
pub mod manual;
pub mod moment;
pub mod ndjson;
pub mod notify;
pub mod openapi;
pub mod output;
pub mod pause;
pub mod purge;
pub mod queues;
pub mod rate;
pub mod reload;
pub mod result;
pub mod resume;
pub mod retry;
pub mod roles;
pub mod run;
pub mod schedules;
pub mod segments;
pub mod show;
pub mod status;
pub mod stop;
pub mod store;
pub mod table;
pub mod tasks;
pub mod telling;
pub mod why;
pub mod workflow;

/// How long an answer is waited for when `--timeout` is not given.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A task queue for a Linux server
#[derive(Debug, Parser)]
#[command(name = "taskd", version, max_term_width = 100, after_help = HELP)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Mean your own taskd, not the system's: its config, state and socket are in your home
    #[arg(long, global = true)]
    pub user: bool,
    /// taskd's control socket [env: TASKD_SOCKET] [default: /run/taskd/taskd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Longest wait for taskd's answer; with --wait or -f, for the end too when it is given [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = moment::duration)]
    pub timeout: Option<Duration>,
    /// Print JSON, as the control API gives it; errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = false)]
    pub color: Color,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run taskd in the foreground (what the systemd unit does)
    Run(run::Args),
    /// Check the config file and print every fault
    Check(check::Args),
    /// Print the effective settings, where each comes from, or the file's JSON Schema
    Config(config::Args),
    /// Enqueue a task
    Enqueue(enqueue::Args),
    /// Enqueue steps one after the other, each with the result of the one before
    Chain(chain::Args),
    /// Enqueue steps all at once, as one workflow
    Group(group::Args),
    /// Enqueue steps all at once, and one with the list of their results
    Chord(chord::Args),
    /// Launch or list the workflows that the config declares
    Workflow(workflow::Args),
    /// Show a workflow with the states of its steps
    Show(show::Args),
    /// Draw a workflow
    Graph(graph::Args),
    /// Print the result of a message or a workflow
    Result(result::Args),
    /// Show this node, or one message
    Status(status::Args),
    /// List messages, newest first
    List(list::Args),
    /// Print what a message's attempts printed
    Logs(logs::Args),
    /// Cancel messages and workflows, whether they wait or run
    Cancel(cancel::Args),
    /// Put finished messages back into their queues, begin what failed of a workflow anew
    Retry(retry::Args),
    /// List, retry, purge or export messages that were given up on
    Dead(dead::Args),
    /// Say in a sentence why a message is not running yet
    Why(why::Args),
    /// Show the queues
    Queues(queues::Args),
    /// Show the declared tasks
    Tasks(tasks::Args),
    /// Show, run, pause and rewind schedules; explain expressions of crontab(5)
    Schedules(schedules::Args),
    /// Show or change how often a task's or a queue's messages start
    Rate(rate::Args),
    /// Take nothing more off a queue
    Pause(pause::Args),
    /// Take messages off a paused queue again
    Resume(resume::Args),
    /// Revoke everything that waits in a queue
    Purge(purge::Args),
    /// Read and check the config again, and use it
    Reload(reload::Args),
    /// Take nothing new off any queue, let running tasks finish
    Drain(drain::Args),
    /// Shut taskd down and wait until it is gone
    Stop(stop::Args),
    /// Run a declared task once in the foreground, without the daemon
    Exec(exec::Args),
    /// Try whether people are told of failures
    Notify(notify::Args),
    /// Back up, check, export or import the store
    Store(store::Args),
    /// Turn a crontab, a Celery app, Supervisor's programs or a systemd timer into a config
    Import(import::Args),
    /// Print the control API as an OpenAPI document
    Openapi(openapi::Args),
    /// Print the completion script of a shell
    Completion(completion::Args),
    /// Print a manual page as roff
    #[command(hide = true)]
    Manual(manual::Args),
}

const HELP: &str = "\
EXAMPLES
  taskd enqueue clean_logs
  taskd enqueue send_email user_id=42 --in 10m
  taskd status

EXIT CODES
  0    done
  64   the command line or request cannot be understood
  65   arguments or data do not fit the task; too large
  66   a file named on the command line cannot be read
  69   no such task, message or queue; taskd is not running
  70   a fault of taskd
  73   not possible in this state
  74   the store or the output cannot be read or written
  75   not now: a full queue, no answer in time, not final yet; try again
  76   what answered is not this version of taskd
  77   not permitted
  78   the config has faults
  141  the reader of the output went away
`taskd enqueue --help` lists what --wait exits with.

The socket is --socket, else $TASKD_SOCKET, else /run/taskd/taskd.sock; with --user
$XDG_RUNTIME_DIR/taskd/taskd.sock. The config is --config, else $TASKD_CONFIG, else
/etc/taskd.toml; with --user ~/.config/taskd.toml.";

/// The config file of the commands that read it themselves.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The config file [default: /etc/taskd.toml; with --user ~/.config/taskd.toml]
    #[arg(long, value_name = "FILE", env = "TASKD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// The control socket; empty where there is none and none is needed.
    pub socket: PathBuf,
    /// Whose taskd is meant.
    pub home: Home,
    /// Nobody named the socket: the one of the other home may be meant.
    elsewhere: Option<Elsewhere>,
    /// `--socket`, if it was given.
    pub socket_flag: Option<PathBuf>,
    /// `--timeout`, if it was given.
    pub timeout: Option<Duration>,
    /// `--json`.
    pub json: bool,
}

impl Context {
    /// For a command that asks a daemon, or for one that does not.
    fn new(global: Global, asks: bool) -> Result<Self, Failure> {
        let home = home::of(global.user)?;
        let from_environment = || std::env::var_os("TASKD_SOCKET").filter(|s| !s.is_empty());
        let socket_flag = global.socket.clone();
        let named = global.socket.or_else(|| from_environment().map(PathBuf::from));
        let elsewhere = named.is_none().then(|| Elsewhere::than(&home));
        let socket = match (named, home.socket()) {
            (Some(named), _) => named,
            (None, Ok(socket)) => socket.to_owned(),
            (None, Err(why)) if asks => return Err(Failure::usage(why)),
            (None, Err(_)) => PathBuf::new(),
        };
        Ok(Self { socket, home, elsewhere, socket_flag, timeout: global.timeout, json: global.json })
    }

    /// A failure with a better hint, where the daemon that does not answer may not be the one that is meant.
    fn advise(&self, failure: Failure) -> Failure {
        match self.elsewhere.as_ref().filter(|_| failure.is_not_running()).and_then(Elsewhere::hint) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// A client of the socket; it connects at its first call.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.socket, self.timeout.unwrap_or(TIMEOUT))
    }

    /// Runs a command's future on this thread.
    ///
    /// # Errors
    /// The command's own, or the system gives no event queue.
    pub fn block_on(&self, future: impl Future<Output = Ending>) -> Ending {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        runtime.map_err(|e| Failure::later(format!("cannot wait for events: {e}")))?.block_on(future)
    }

    /// Prints an answer: its JSON as it came, or in words by `words`.
    ///
    /// # Errors
    /// The answer is not a `T`; stdout cannot be written.
    pub fn show<T: serde::de::DeserializeOwned>(
        &self,
        answer: &Bytes,
        words: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return output::json(answer);
        }
        output::print(&words(&parse(answer)?))
    }

    /// Asks and prints the sentence of a [`crate::control::api::Done`].
    ///
    /// # Errors
    /// What taskd or the connection says.
    pub async fn verb(&self, client: &mut Client, path: &str, body: Option<Bytes>) -> Result<(), Failure> {
        let answer = client.text(Method::Post, path, body, false, Duration::ZERO).await?;
        self.show(&answer, done_text)
    }
}

/// The words of a verb's answer.
fn done_text(done: &crate::control::api::Done) -> String {
    let mut text = format!("{}\n", output::clean(&done.message));
    for line in &done.details {
        text.push_str(&format!("  {}\n", output::clean(line)));
    }
    text
}

/// Reads an answer.
///
/// # Errors
/// It is not a `T`: the daemon is of another version.
pub fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer)
        .map_err(|e| crate::control::client::ClientError::Strange(e.to_string()).into())
}

/// A request's body.
///
/// # Errors
/// Never for the types of the API.
pub fn body_of(value: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Failure::internal(e.to_string()))
}

/// Checks a name of the command line (`what`: "id", "queue", …) before it becomes part of a path.
///
/// # Errors
/// It cannot be a name.
pub fn checked<'a>(what: &str, text: &'a str) -> Result<&'a str, Failure> {
    name::check(text).map_err(|e| Failure::usage(format!("the {what} {text:?} {e}")))?;
    Ok(text)
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    if let Some(role) = line.get(1).and_then(|a| a.to_str()).and_then(|a| a.strip_prefix('@')) {
        return roles::play(role);
    }
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(e) => {
            // What stdout or stderr does not take is lost either way.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 64 } else { 0 });
        }
    };
    cli.global.color.set();
    let json = cli.global.json;
    if let Some(failure) = unused(&cli) {
        return output::report(&failure, json);
    }
    let context = match Context::new(cli.global, alone(&cli.command).is_none()) {
        Ok(context) => context,
        Err(failure) => return output::report(&failure, json),
    };
    match dispatch(cli.command, &context) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => output::report(&context.advise(failure), json),
        Err(code) => code,
    }
}

/// The name of a command that asks no daemon.
const fn alone(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Run(_) => "run",
        Command::Check(_) => "check",
        Command::Config(_) => "config",
        Command::Exec(_) => "exec",
        Command::Import(_) => "import",
        Command::Schedules(args) if args.is_alone() => "schedules explain",
        Command::Openapi(_) => "openapi",
        Command::Completion(_) => "completion",
        Command::Manual(_) => "manual",
        _ => return None,
    })
}

/// Refuses options that a command without a daemon could only ignore.
fn unused(cli: &Cli) -> Option<Failure> {
    let command = alone(&cli.command)?;
    let option = match &cli.global {
        // For `run` it is where to listen.
        Global { socket: Some(_), .. } if command != "run" => "--socket",
        Global { timeout: Some(_), .. } => "--timeout",
        Global { user: true, .. } if matches!(command, "openapi" | "import") => "--user",
        _ => return None,
    };
    Some(Failure::usage(format!("taskd {command} asks no daemon: {option} has no meaning for it")))
}

/// Runs a command; those that do everything themselves give their exit code as the error.
fn dispatch(command: Command, context: &Context) -> Result<Ending, ExitCode> {
    Ok(match command {
        Command::Run(args) => return Err(run::run(args, context)),
        Command::Check(args) => return Err(check::run(args, context)),
        Command::Config(args) => return Err(config::run(args, context)),
        Command::Exec(args) => return Err(exec::run(args, context)),
        Command::Enqueue(args) => enqueue::run(args, context),
        Command::Chain(args) => chain::run(&args, context),
        Command::Group(args) => group::run(&args, context),
        Command::Chord(args) => chord::run(&args, context),
        Command::Workflow(args) => workflow::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Graph(args) => graph::run(&args, context),
        Command::Result(args) => result::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::List(args) => list::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::Cancel(args) => cancel::run(&args, context),
        Command::Retry(args) => retry::run(&args, context),
        Command::Dead(args) => dead::run(args, context),
        Command::Why(args) => why::run(&args, context),
        Command::Queues(args) => queues::run(&args, context),
        Command::Tasks(args) => tasks::run(&args, context),
        Command::Schedules(args) => schedules::run(&args, context),
        Command::Rate(args) => rate::run(&args, context),
        Command::Pause(args) => pause::run(&args, context),
        Command::Resume(args) => resume::run(&args, context),
        Command::Purge(args) => purge::run(&args, context),
        Command::Reload(args) => reload::run(&args, context),
        Command::Drain(args) => drain::run(&args, context),
        Command::Stop(args) => stop::run(&args, context),
        Command::Notify(args) => notify::run(args, context),
        Command::Store(args) => store::run(args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Openapi(args) => openapi::run(&args, context),
        Command::Completion(args) => completion::run(&args, context),
        Command::Manual(args) => manual::run(&args, context),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples_and_exit_codes() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let mut all: Vec<clap::Command> = vec![cli];
        while let Some(command) = all.pop() {
            if command.get_name() == "help" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(help.contains("EXAMPLES\n") && help.contains("EXIT CODES\n"), "{name} lacks them");
            assert!(command.get_about().is_some(), "{name} has no summary");
            all.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_socket_option_goes_before_and_after_the_command() {
        for line in [["taskd", "--socket", "/x", "status"], ["taskd", "status", "--socket", "/x"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(Context::new(cli.global, true).unwrap().socket, PathBuf::from("/x"));
        }
    }

    #[test]
    fn options_without_meaning_are_refused() {
        let cli = Cli::try_parse_from(["taskd", "check", "--timeout", "1s"]).unwrap();
        assert_eq!(unused(&cli).map(|f| f.code()), Some(64));
        let cli = Cli::try_parse_from(["taskd", "openapi", "--user"]).unwrap();
        assert_eq!(unused(&cli).map(|f| f.code()), Some(64));
        let cli = Cli::try_parse_from(["taskd", "status", "--timeout", "1s"]).unwrap();
        assert!(unused(&cli).is_none());
    }
}
