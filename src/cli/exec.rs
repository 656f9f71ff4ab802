//! `taskd exec`: a declared task once, in the foreground, to debug it.

use std::process::ExitCode;

use super::arguments::Arguments;
use super::output::{self, Ending, Failure};
use super::{ConfigFile, Context, check, ending};
use crate::config::settings::{Identity, Settings};
use crate::config::{CredentialSource, Secrets, Source, credential};
use crate::control::api::{Error, ErrorKind};
use crate::daemon::clock;
use crate::daemon::handle::enqueue::suggestion;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::outcome::{Cause, Failure as Stated};
use crate::model::params::bind;
use crate::model::task::Task;
use crate::process::held::Held;
use crate::process::private_files::PrivateDirectory;
use crate::process::privileges::{self, Account};
use crate::process::runner::{TASKS_MAX, run_once};

/// Options of `taskd exec`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd exec clean_logs
  taskd exec send_email user_id=42 --config ./taskd.toml
  taskd exec resize -- photo.jpg 800

Binds the arguments, the environment, the directory and the limits as a runner does; output goes to
this terminal. Nothing is enqueued or stored, and no retry follows. stdout is the task's alone: with
--json the outcome is the last line of stderr.

EXIT CODES
  0-255    the task's own code
  128+n    it died of signal n
  124      a time limit ended it
  126      its program could not be started
  64, 65   an argument cannot be understood, or does not fit the task
  66       a file cannot be read
  69       no such task
  77       this user may not become the task's user, or cannot read its credentials
  78       the config has faults")]
pub struct Args {
    /// The task's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: Arguments,
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args, context: &Context) -> ExitCode {
    output::ended(exec(args, context), context.json)
}

fn exec(args: Args, context: &Context) -> Ending {
    let values = args.arguments.values()?;
    let settings = check::load(&Source::find(args.config.config, &context.home), context)?.settings;
    let Some(task) = settings.tasks.get(&args.name) else {
        return Err(unknown(&args.name, settings.tasks.keys().map(String::as_str)).into());
    };
    let queue = settings.route(task).to_owned();
    bind(task, &values.args, &values.kwargs).map_err(|faults| {
        let mut error =
            Error::new(ErrorKind::BadArguments, format!("task {}: its arguments do not fit", task.name));
        error.details = faults;
        Failure::from(error)
    })?;
    let secrets = secrets(task)?;
    if let Some(pool) = settings.pool_of(&queue) {
        become_user(&Settings::identity(pool, Some(task)))?;
    }
    let internal = |why: String| Failure::internal(why);
    let files = !task.surroundings.credentials.is_empty();
    let directory = files.then(PrivateDirectory::make).transpose().map_err(internal)?;
    let held = Held { secrets, directory: directory.as_ref().map(|d| d.path().to_owned()) };
    if !held.secrets.is_empty() {
        // After the last change of user, which undoes it.
        privileges::not_dumpable().map_err(|e| internal(e.to_string()))?;
    }
    let message = Message {
        id: MessageId(uuid::Uuid::now_v7().to_string()),
        task: task.name.clone(),
        queue,
        args: values.args,
        kwargs: values.kwargs,
        priority: task.priority,
        enqueued: clock::now().wall,
        ..Message::default()
    };
    let outcome = run_once(task, &message, &settings.taskd.node, "exec", &held);
    // Not at the end: what follows may find that nobody listens any more.
    drop(directory);
    let usage = &outcome.usage;
    if context.json {
        let json = serde_json::to_string(&outcome).map_err(|e| Failure::internal(e.to_string()))?;
        output::complain(&format!("{json}\n"))?;
    } else {
        output::note(format_args!(
            "{}: {} after {} ms, CPU {} ms, peak memory {} KiB",
            task.name,
            outcome.cause,
            usage.wall_ms,
            (usage.user_us + usage.system_us) / 1000,
            usage.max_rss / 1024
        ));
        // An exit code says it all; what taskd did or could not do needs its sentence.
        let by_taskd = |failure: &&Stated| {
            matches!(outcome.cause, Cause::SpawnFailed | Cause::Memory | Cause::WorkerLost)
                || failure.kind == TASKS_MAX
        };
        if let Some(failure) = outcome.failure.as_ref().filter(by_taskd) {
            output::note(&failure.message);
        }
    }
    Ok(ending::code_of(&outcome.cause, outcome.success))
}

/// The error for a name that no task has.
fn unknown<'a>(name: &str, declared: impl Iterator<Item = &'a str>) -> Error {
    let declared: Vec<&str> = declared.collect();
    let error = Error::new(ErrorKind::UnknownTask, format!("no task is named {name}"));
    error.hint(match suggestion(name, declared.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if declared.is_empty() => "the config declares no task".to_owned(),
        None => format!("the config declares {}", declared.join(", ")),
    })
}

/// The values that the task needs, where this process can read them.
fn secrets(task: &Task) -> Result<Secrets, Failure> {
    let needed = credential::needed_by(&task.surroundings);
    CredentialSource::of_this_process().read_all(&needed).map_err(|why| {
        let name = needed.first().copied().unwrap_or_default();
        let error = Error::new(ErrorKind::Forbidden, format!("task {}: {why}", task.name));
        Failure::from(error.hint(format!(
            "as root: systemd-run --pty -p LoadCredential={name}:/path/of/the/file taskd exec {}",
            task.name
        )))
    })
}

fn become_user(identity: &Identity) -> Result<(), Failure> {
    let refuse = |why: String| Failure::from(Error::new(ErrorKind::Forbidden, why));
    let Some(account) = Account::find(identity).map_err(|e| refuse(e.to_string()))? else { return Ok(()) };
    if privileges::is_already(&account, identity) {
        return Ok(());
    }
    privileges::become_user(&account).map_err(|e| refuse(e.to_string()).hint("root may run it as that user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_probably_meant_is_told() {
        let hint = |names: &[&str]| unknown("clean_log", names.iter().copied()).hint.unwrap();
        assert_eq!(hint(&["mail", "clean_logs"]), "did you mean clean_logs?");
        assert_eq!(hint(&["mail"]), "the config declares mail");
        assert_eq!(hint(&[]), "the config declares no task");
    }
}
