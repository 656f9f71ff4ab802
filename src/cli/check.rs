//! `taskd check`: every fault of the config at once.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{self, Ending, Failure};
use super::{ConfigFile, Context};
use crate::config::settings::Settings;
use crate::config::{self, Env, Loaded, Source};
use crate::control::api::ErrorKind;
use crate::model::task::{Program, Surroundings};
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
    let unit = if context.home.is_user() { None } else { of_the_unit(&loaded.settings) };
    for note in loaded.notes.iter().chain(&programs(&loaded.settings)).chain(&unit) {
        output::note(note);
    }
    output::print(&match loaded.files.as_slice() {
        [] => "no config file: every default holds, and that is no fault\n".to_owned(),
        files => format!("{}: no faults\n", files.join(", ")),
    })?;
    Ok(0)
}

/// Keys that were tried here, and that the unit in which taskd runs may refuse all the same; to be said where somebody
/// would otherwise restart a service that then does not start.
fn of_the_unit(settings: &Settings) -> Option<String> {
    let (mut sandbox, mut quota, mut files) = (false, false, false);
    for (_, around, limits) in settings.surroundings() {
        sandbox |= around.sandbox.needs_namespaces();
        quota |= limits.cpu_quota.is_some();
        files |= around.limit_nofile.is_some();
    }
    let words = [
        (
            sandbox,
            "private_tmp, private_network, protect_system and read_write_paths (the unit needs sandbox.conf of \
                   /usr/share/doc/taskd/examples/drop-ins for them)",
        ),
        (quota, "cpu_quota"),
        (files, "limit_nofile"),
    ];
    let named: Vec<&str> = words.iter().filter(|(used, _)| *used).map(|(_, words)| *words).collect();
    (!named.is_empty()).then(|| {
        let all = named.join(", ");
        format!("only `systemctl reload taskd` knows whether the unit grants {all}: use it before a restart")
    })
}

/// Programs that are not there. No fault: they may be installed later, and a reload must not wait for that.
fn programs(settings: &Settings) -> Vec<String> {
    let workers = settings.pools.values().filter_map(|p| {
        let worker = p.worker.as_ref()?;
        let key = if worker.celery_app.is_some() { "python" } else { "worker" };
        Some((format!("pools.{}.{key}", p.name), worker.argv.first()?, &worker.surroundings))
    });
    let tasks = settings.tasks.values().filter_map(|t| match &t.program {
        Program::Exec(argv) => Some((format!("tasks.{}.exec", t.name), argv.first()?, &t.surroundings)),
        Program::Command(_) | Program::Worker => None,
    });
    let missing = |(path, program, around): (String, &String, &Surroundings)| {
        let directory = around.working_directory.as_deref().unwrap_or("/");
        let own = around.environment.get("PATH").cloned().or_else(|| std::env::var("PATH").ok());
        Some(format!("{path}: {}", missing(program, directory, &own.unwrap_or_default())?))
    };
    workers.chain(tasks).filter_map(missing).collect()
}

/// Why this program cannot be started in this directory and with this `PATH`; to be seen where it cannot be
/// looked at.
fn missing(program: &str, directory: &str, path: &str) -> Option<String> {
    let is_there = |file: &Path| match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => Err("is a directory"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Err("is not executable"),
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err("does not exist")
        }
        Err(_) => Ok(()),
    };
    if program.contains('/') {
        // Absolute as it is.
        let file = Path::new(directory).join(program);
        return is_there(&file).err().map(|why| format!("{} {why}", file.display()));
    }
    let found = std::env::split_paths(path).any(|dir| is_there(&dir.join(program)).is_ok());
    (!found).then(|| format!("there is no program {program} in PATH ({path})"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_started_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("text"), "").unwrap();
        assert!(missing("/nonexistent/x", "/", "").unwrap().ends_with("does not exist"));
        assert!(missing("./text", here, "").unwrap().ends_with("is not executable"));
        assert!(missing(here, "/", "").unwrap().ends_with("is a directory"));
        assert!(missing("text", "/", here).unwrap().contains("PATH"));
        assert_eq!(missing("sh", "/", "/nonexistent:/bin"), None);
        assert_eq!(missing("../bin/sh", "/bin", ""), None);
    }
}
