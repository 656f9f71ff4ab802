//! `taskd check`: every fault of the config at once.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::{self, Ending, Failure};
use super::{ConfigFile, Context};
use crate::config::{self, Env, Loaded, Source};
use crate::control::api::ErrorKind;
use crate::process::launcher::refused_sandboxes;

/// Options of `taskd check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd check
  taskd check ./taskd.toml

EXIT CODES
  0    the config has no fault
  66   the file cannot be read
  78   the config has faults; all of them are printed, with file, line and column")]
pub struct Args {
    /// The file to check instead of the one that taskd would use
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args, context: &Context) -> ExitCode {
    output::ended(check(args, context), context.json)
}

fn check(args: Args, context: &Context) -> Ending {
    let loaded = load(&Source::find(args.file.or(args.config.config), &context.home), context)?;
    let refused = refused_sandboxes(&loaded.settings);
    if !refused.is_empty() {
        if context.json {
            let faults: Vec<_> = refused.iter().map(|why| serde_json::json!({ "message": why })).collect();
            output::json(serde_json::json!({ "faults": faults }).to_string().as_bytes())?;
        } else {
            refused.iter().try_for_each(|why| output::complain(&format!("error: {why}\n")))?;
        }
        return Err(Failure::Quiet(ErrorKind::Config.exit_code()));
    }
    if context.json {
        output::json(br#"{"faults":[]}"#)?;
        return Ok(0);
    }
    for note in &loaded.notes {
        output::note(note);
    }
    output::print(&match loaded.files.as_slice() {
        [] => "no config file: every default holds, and that is no fault\n".to_owned(),
        files => format!("{}: no faults\n", files.join(", ")),
    })?;
    Ok(0)
}

/// Reads and checks the config; its faults are printed here, all at once.
///
/// # Errors
/// The config has faults: exit 78; one of its files cannot be read: exit 66.
pub fn load(source: &Source, context: &Context) -> Result<Loaded, Failure> {
    config::load(source, &Env::real()).or_else(|report| {
        if context.json {
            let faults = serde_json::json!({ "faults": report.to_json() });
            output::json(faults.to_string().as_bytes())?;
        } else {
            output::complain(&report.render(true))?;
        }
        // sysexits(3) EX_NOINPUT: as for every other file that a command line names.
        let code = if report.is_unreadable() { 66 } else { ErrorKind::Config.exit_code() };
        Err(Failure::Quiet(code))
    })
}
