//! `taskd import`: what other programs run tasks by, as a config file of taskd. Text in, TOML out; no daemon is asked.
//!
//! One folder a source. [`document`] writes: it lets taskd's own check judge every table before it stands in the file, so
//! what is printed can be used, and counts what could only be written as a comment.

pub mod celery;
pub mod crontab;
pub mod document;
pub mod naming;
pub mod program_name;
pub mod shell;
pub mod supervisor;
pub mod systemd;
pub mod toml_value;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Context;
use super::output::{self, Ending, Failure};
use document::Imported;

/// Largest file that is read.
const LARGEST: u64 = 4 << 20;

/// Exit code where something could not be carried over.
const PARTLY: u8 = 1;

/// Exit codes of where the config goes.
const TARGET_CODES: &str = "\
  73   the file of -o is there already
  74   the output cannot be written";

/// Those of a command that reads a file.
const FILE_CODES: &str = "\
  66   the file cannot be read
  73   the file of -o is there already
  74   the output cannot be written";

/// Options of `taskd import`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  crontab -l | taskd import crontab - > crontab.toml
  taskd import crontab /etc/crontab -o /etc/taskd.d/crontab.toml
  taskd import celery-beat shop/celery.py
  taskd import systemd-timer backup

Nothing is changed but the file of -o: what runs now goes on until you end it there. Every line of the source that
could not be carried over stands in a comment with the reason; look for \"NOT CARRIED OVER\". Then run `taskd check`.

EXIT CODES
  0    everything was carried over
  1    it was printed, and something stands in it as a comment only
  65   the file is not what the command reads, or too large
  66   the file or unit cannot be read
{TARGET_CODES}"))]
pub struct Args {
    /// Where it comes from.
    #[command(subcommand)]
    pub source: Source,
}

/// Where the config goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// Write to this new file (mode 0600) instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What can be imported.
#[derive(Clone, Debug, Subcommand)]
pub enum Source {
    /// A crontab: a user's own, /etc/crontab, or a file of /etc/cron.d
    #[command(after_help = format!("\
EXAMPLES
  crontab -l | taskd import crontab --run-as alice -
  taskd import crontab /etc/cron.d/backup
  cat /etc/cron.d/* | taskd import crontab --system -

SHELL, PATH and other variables, MAILTO, % and \\% are carried over. `timeout`, `flock -n`, `nice`, `ionice`,
`chronic` and sleeping for a random time become keys where they wrap the whole command; a comment says so.
Debian's cron keeps to the system's clock whatever TZ and CRON_TZ say: they are in the environment of the tasks, no more.

EXIT CODES
  0    every line was carried over
  1    some lines stand as comments only
  65   the file is too large
{FILE_CODES}"))]
    Crontab {
        /// The file; - is stdin
        #[arg(value_name = "FILE")]
        file: String,
        /// Each entry names a user after its time (known by itself for /etc/crontab and /etc/cron.d)
        #[arg(long, conflicts_with = "run_as")]
        system: bool,
        /// Whose crontab it is: each task gets this `user`
        #[arg(long, value_name = "USER")]
        run_as: Option<String>,
        /// It was cronie that ran it: CRON_TZ is the time zone of the schedules
        #[arg(long)]
        cronie: bool,
        /// Where it goes.
        #[command(flatten)]
        target: Target,
    },
    /// Periodic tasks, routes, limits and settings of a Celery app
    #[command(after_help = format!("\
EXAMPLES
  taskd import celery-beat shop/celery.py
  taskd import celery-beat shop/settings.py
  python manage.py dumpdata django_celery_beat | taskd import celery-beat -

Nothing of the program is run: literals, constants of the module and simple arithmetic are understood, the rest stands
in comments. JSON is the same settings as an object, or Django's fixtures.

EXIT CODES
  0    everything was carried over
  1    something stands as a comment only (the workers always: a pool runs another program)
  65   nothing of Celery's is in it; too large
{FILE_CODES}"))]
    CeleryBeat {
        /// A module of Python, or JSON; - is stdin
        #[arg(value_name = "FILE")]
        file: String,
        /// Where it goes.
        #[command(flatten)]
        target: Target,
    },
    /// Programs of supervisord
    #[command(after_help = format!("\
EXAMPLES
  taskd import supervisor /etc/supervisor/conf.d/shop.conf

A Celery worker becomes a pool with its queues, a program that runs once a task. Any other daemon is no task: it stays
a comment, with the systemd unit that it would be.

EXIT CODES
  0    everything was carried over
  1    something stands as a comment only
  65   nothing of supervisord's is in it; too large
{FILE_CODES}"))]
    Supervisor {
        /// The file; - is stdin
        #[arg(value_name = "FILE")]
        file: String,
        /// Where it goes.
        #[command(flatten)]
        target: Target,
    },
    /// A timer of systemd and the service it starts
    #[command(after_help = format!("\
EXAMPLES
  taskd import systemd-timer backup
  taskd import systemd-timer pg_dump@shop.timer
  taskd import systemd-timer ./backup.timer --service ./backup.service

A name is looked up in /etc, /run, /usr/local/lib, /lib and /usr/lib/systemd/system with its drop-ins; what has a slash
is a file, whose service is looked for beside it.

EXIT CODES
  0    everything was carried over
  1    some settings stand as comments only
  65   the file is no timer, or what --service names is no service
  66   the unit cannot be found or read
{TARGET_CODES}"))]
    SystemdTimer {
        /// The timer's name, or the path of its file
        #[arg(value_name = "UNIT")]
        unit: String,
        /// The service's file
        #[arg(long, value_name = "FILE")]
        service: Option<PathBuf>,
        /// Where it goes.
        #[command(flatten)]
        target: Target,
    },
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written; there is nothing in it.
pub fn run(args: &Args, context: &Context) -> Ending {
    let done = import(&args.source)?;
    let (Source::Crontab { target, .. }
    | Source::CeleryBeat { target, .. }
    | Source::Supervisor { target, .. }
    | Source::SystemdTimer { target, .. }) = &args.source;
    match &target.output {
        Some(path) => create(path, &done.text)?,
        None if context.json => {}
        None => output::bytes(false, done.text.as_bytes())?,
    }
    if context.json {
        let answer = serde_json::json!({
            "entries": done.entries, "not_carried_over": done.left, "toml": done.text, "hint": done.hint,
        });
        output::json(answer.to_string().as_bytes())?;
    } else {
        output::note(output::clean(&done.summary));
        if let Some(hint) = &done.hint {
            output::note(format_args!("hint: {}", output::clean(hint)));
        }
    }
    Ok(if done.left == 0 { 0 } else { PARTLY })
}

fn import(source: &Source) -> Result<Imported, Failure> {
    Ok(match source {
        Source::Crontab { file, system, run_as, cronie, .. } => {
            let is_user: fn(&str) -> bool = |name| matches!(nix::unistd::User::from_name(name), Ok(Some(_)));
            let (system, cronie) = (*system, *cronie);
            let reading = crontab::Reading { system, run_as: run_as.clone(), cronie, is_user: Some(is_user) };
            crontab::import(&shown(file), &read(file)?, &reading)
        }
        Source::CeleryBeat { file, .. } => celery::import(&shown(file), &read(file)?)
            .map_err(|why| Failure::data(format!("{file}: {why}")))?,
        Source::Supervisor { file, .. } => {
            let text = read(file)?;
            supervisor::check(&text).map_err(|why| Failure::data(format!("{file}: {why}")))?;
            supervisor::import(&shown(file), &text)
        }
        Source::SystemdTimer { unit, service, .. } => {
            let pair = systemd::find::pair(Path::new("/"), unit, service.as_deref())?;
            pair.check().map_err(Failure::data)?;
            systemd::import(unit, &pair)
        }
    })
}

/// A file's name in the words of the written file.
fn shown(file: &str) -> String {
    if file == "-" { "standard input".to_owned() } else { file.to_owned() }
}

/// The text of a file, or of stdin for `-`; bytes that are no UTF-8 are replaced.
fn read(name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let done = if name == "-" {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        File::open(name).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    match done {
        Ok(n) if n as u64 > LARGEST => Err(Failure::data(format!("{name} is larger than 4 MiB"))),
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()),
        Err(e) => Err(Failure::no_input(format!("cannot read {name}: {e}"))),
    }
}

/// A new file: commands may hold secrets, so it is its owner's alone.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let fail = |e: io::Error| {
        let failure = Failure::no_output(format!("cannot write {}: {e}", path.display()));
        if e.kind() == io::ErrorKind::AlreadyExists {
            failure.hint("a file that is there is never written over: remove it, or name another")
        } else {
            failure
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    if let Err(e) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a config is worse than none.
        let _ = std::fs::remove_file(path);
        return Err(fail(e));
    }
    Ok(())
}
