//! `[Service]`: what.

use super::Pair;
use super::exec::{self, Line};
use super::span::{Span, span};
use super::timer::beside;
use super::unit::{Setting, Unit, boolean};
use crate::cli::import::document::{Document, Table};
use crate::cli::import::toml_value::Toml;

/// How long systemd waits between SIGTERM and SIGKILL where nothing is said.
const STOP_MS: u64 = 90_000;

/// What a setting became.
enum Done {
    /// These keys.
    Keys(Vec<(&'static str, Toml)>),
    /// Nothing, and that is right: why.
    Fine(&'static str),
    /// It could not be carried over: why.
    No(String),
}

/// Writes the task of a service; `false` where there is none.
pub(super) fn translate(doc: &mut Document, pair: &Pair, service: &Unit, name: &str) -> bool {
    let unit = pair.service_name.as_str();
    let mut table = Table::new("tasks", name);
    let mut left: Vec<(String, String)> = Vec::new();
    let program = program(service, unit, &mut left);
    for line in &service.odd {
        left.push((line.clone(), "it is no assignment of a section".to_owned()));
    }
    let mut environment: Vec<(String, Toml)> = Vec::new();
    let mut root = pair.of_user;
    match &program {
        Ok(program) => {
            root |= program.as_root;
            let said = program.said.clone();
            match &program.exec {
                Some(argv) => table.say("exec", Toml::texts(argv.iter().map(|word| braces(word))), said),
                None => table.say("command", Toml::text(&program.command), said),
            }
            if program.as_root && !pair.of_user {
                table.say("user", Toml::text("root"), "+ or ! before the program");
            }
        }
        Err(why) => left.push((exec_lines(service), why.clone())),
    }
    if !root && service.get("Service", "User").is_none() && !dynamic(service) {
        table.say("user", Toml::text("root"), "no User=");
    }
    for setting in service.settings.iter().filter(|s| !s.value.is_empty()) {
        let source = setting.source();
        if setting.gone {
            doc.comment(&format!("{source}  (overridden below)"));
        } else if setting.section != "Service" {
            if (setting.section.as_str(), setting.key.as_str()) == ("Unit", "OnFailure") {
                on_failure(setting, unit, &mut table, &mut left);
            } else {
                beside(doc, setting);
            }
        } else if setting.key == "Environment" {
            match assignments(setting, unit) {
                Ok(pairs) => {
                    doc.comment(&format!("{source}  (environment)"));
                    for (name, value) in pairs {
                        environment.retain(|(n, _)| *n != name);
                        environment.push((name, Toml::text(value)));
                    }
                }
                Err(why) => left.push((source, why)),
            }
        } else if setting.key.starts_with("Exec") {
            // Written above, all together.
        } else {
            match one(setting, service, unit, root) {
                Done::Keys(keys) if keys.is_empty() => doc.comment(&format!("{source}  (as taskd)")),
                Done::Keys(keys) => {
                    for (key, value) in keys {
                        if table.has(key) {
                            left.push((source.clone(), format!("`{key}` can be said once only")));
                        } else if setting.value.starts_with('-') && key == "environment_file" {
                            table.say(key, value, format!("{source}, which must be there for a task"));
                        } else {
                            table.say(key, value, source.clone());
                        }
                    }
                }
                Done::Fine(why) => doc.comment(&format!("{source}  ({why})")),
                Done::No(why) => left.push((source, why)),
            }
        }
    }
    if !environment.is_empty() {
        table.set("environment", Toml::Map(environment));
    }
    let written = match &program {
        Ok(_) => doc.table(&table, ""),
        Err(_) => {
            // What it would have been says more than nothing.
            doc.comment(&table.text());
            false
        }
    };
    for (source, why) in left {
        doc.left(&source, &why);
    }
    written
}

fn dynamic(service: &Unit) -> bool {
    service.get("Service", "DynamicUser").and_then(boolean) == Some(true)
}

/// A text in which no brace is a placeholder.
fn braces(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

struct Program {
    exec: Option<Vec<String>>,
    command: String,
    as_root: bool,
    said: String,
}

fn exec_lines(service: &Unit) -> String {
    let exec = |s: &&Setting| !s.gone && s.section == "Service" && s.key.starts_with("Exec");
    let lines: Vec<String> = service.settings.iter().filter(exec).map(Setting::source).collect();
    if lines.is_empty() { "[Service]".to_owned() } else { lines.join("\n") }
}

/// One program, or several as a shell's text.
fn program(service: &Unit, unit: &str, left: &mut Vec<(String, String)>) -> Result<Program, String> {
    let kind = service.get("Service", "Type").unwrap_or("simple");
    if matches!(kind, "forking" | "dbus" | "notify" | "notify-reload") {
        return Err(format!(
            "Type={kind} is a daemon: a task is a program that does its work and ends; leave it a unit"
        ));
    }
    for key in ["ExecStopPost", "ExecStop", "ExecReload", "ExecCondition"] {
        for setting in service.all("Service", key) {
            let why = if key == "ExecCondition" {
                "let the command look first, and exit 0"
            } else {
                "a task has no such step; put it into the command"
            };
            left.push((setting.source(), why.to_owned()));
        }
    }
    let mut all: Vec<Line> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    for key in ["ExecStartPre", "ExecStart", "ExecStartPost"] {
        for setting in service.all("Service", key) {
            all.extend(
                exec::lines(&setting.value, unit).map_err(|why| format!("{}: {why}", setting.source()))?,
            );
            said.push(setting.source());
        }
    }
    if service.all("Service", "ExecStart").next().is_none() {
        return Err("it has no ExecStart=".to_owned());
    }
    let as_root = all.iter().any(|l| l.as_root);
    if as_root
        && all.iter().any(|l| !l.as_root)
        && service.get("Service", "User").is_some_and(|u| u != "root")
    {
        return Err(
            "some of its programs run as root and some as User=: make it tasks of their own".to_owned()
        );
    }
    if all.iter().any(|l| l.by_shell) {
        return Err("| runs it through the user's login shell; name the shell".to_owned());
    }
    let said = said.join(" ");
    if let [line] = all.as_slice()
        && !line.may_fail
        && let Some(argv) = line.plain()
    {
        return Ok(Program { exec: Some(argv), command: String::new(), as_root, said });
    }
    let last = all.len().saturating_sub(1);
    let commands: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(i, line)| match (line.may_fail, i == last) {
            (true, true) if all.len() == 1 => format!("{} || true", line.for_shell()),
            (true, _) => format!("{{ {} || true; }}", line.for_shell()),
            (false, true) => format!("exec {}", line.for_shell()),
            (false, false) => line.for_shell(),
        })
        .collect();
    Ok(Program { exec: None, command: commands.join(" && "), as_root, said })
}

/// `Environment=A=b "C=d e"`.
fn assignments(setting: &Setting, unit: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for (word, _) in exec::words(&setting.value)? {
        let word = exec::specifiers(&word, unit)?;
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is no NAME=value"))?;
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with("TASKD_");
        if !good || value.contains('\0') {
            return Err(format!("{name:?} is no name of a variable that a task can have"));
        }
        // A reference to a credential is a text of taskd's own there.
        out.push((name.to_owned(), value.replace("${credential:", "$${credential:")));
    }
    Ok(out)
}

/// `OnFailure=notify@%n.service`: a program that starts the unit.
fn on_failure(setting: &Setting, unit: &str, table: &mut Table, left: &mut Vec<(String, String)>) {
    match exec::specifiers(&setting.value, unit) {
        Ok(units) if !table.has("on_failure") => {
            let argv = ["/bin/systemctl", "start", "--no-block"].into_iter().chain(units.split_whitespace());
            let exec = ("exec".to_owned(), Toml::texts(argv));
            table.say("on_failure", Toml::Map(vec![exec]), setting.source());
        }
        Ok(_) => left.push((setting.source(), "`on_failure` can be said once only".to_owned())),
        Err(why) => left.push((setting.source(), why)),
    }
}

fn one(setting: &Setting, service: &Unit, unit: &str, root: bool) -> Done {
    let value = match exec::specifiers(&setting.value, unit) {
        Ok(value) => value,
        Err(why) => return Done::No(why),
    };
    let value = value.as_str();
    let key = |name: &'static str, value: Toml| Done::Keys(vec![(name, value)]);
    let number = |name: &'static str| match value.parse::<i64>() {
        Ok(n) => key(name, Toml::Int(n)),
        Err(_) => Done::No("it is no whole number".to_owned()),
    };
    let flag = |name: &'static str| match boolean(value) {
        Some(true) => key(name, Toml::Bool(true)),
        Some(false) => Done::Fine("as taskd"),
        None => Done::No("it is neither yes nor no".to_owned()),
    };
    match setting.key.as_str() {
        "Type" => Done::Fine("a task ends when its program does"),
        "User" if root => Done::Fine("the program runs as root all the same"),
        "User" => key("user", Toml::text(value)),
        "Group" => key("group", Toml::text(value)),
        "SupplementaryGroups" => key("supplementary_groups", Toml::texts(value.split_whitespace())),
        "DynamicUser" if boolean(value) == Some(true) => Done::No(
            "taskd makes up no users: it runs as the user of its pool; name one with `user`".to_owned(),
        ),
        "DynamicUser" => Done::Fine("as taskd"),
        "EnvironmentFile" => match value.strip_prefix('-') {
            Some(file) => Done::Keys(vec![("environment_file", Toml::text(file))]),
            None => key("environment_file", Toml::text(value)),
        },
        "PassEnvironment" => key("pass_environment", Toml::texts(value.split_whitespace())),
        "WorkingDirectory" => match value.strip_prefix('-').unwrap_or(value) {
            "~" => Done::No("write the home directory of its user as `working_directory`".to_owned()),
            directory => key("working_directory", Toml::text(directory)),
        },
        "TimeoutStartSec" | "TimeoutSec" | "RuntimeMaxSec" => limit(setting, service),
        "TimeoutStopSec" => Done::Fine("between soft_time_limit and time_limit"),
        "KillSignal" => match toml_signal(service, value) {
            true => key("soft_signal", Toml::text(value)),
            false => Done::Fine("without a time limit nothing sends it"),
        },
        "Nice" => number("nice"),
        "IOSchedulingClass" => key(
            "io_class",
            Toml::text(match value {
                "0" => "none",
                "1" => "realtime",
                "2" => "best-effort",
                "3" => "idle",
                other => other,
            }),
        ),
        "MemoryMax" | "MemoryLimit" if value == "infinity" => Done::Fine("as taskd"),
        "MemoryMax" | "MemoryLimit" => key("memory_max", Toml::text(value)),
        "CPUQuota" => key("cpu_quota", Toml::text(value)),
        "TasksMax" if value == "infinity" => Done::Fine("as taskd"),
        "TasksMax" => number("tasks_max"),
        "LimitNOFILE" => match value.rsplit(':').next().map(str::parse::<i64>) {
            Some(Ok(n)) => key("limit_nofile", Toml::Int(n)),
            _ => Done::No("it is no number of files".to_owned()),
        },
        "UMask" => key("umask", Toml::text(value)),
        "PrivateTmp" => flag("private_tmp"),
        "NoNewPrivileges" => flag("no_new_privileges"),
        "PrivateNetwork" => flag("private_network"),
        "ProtectSystem" => match (boolean(value), value) {
            (Some(true), _) => key("protect_system", Toml::Bool(true)),
            (Some(false), _) => Done::Fine("as taskd"),
            (None, "full" | "strict") => key("protect_system", Toml::text(value)),
            _ => Done::No("it is none of yes, no, full and strict".to_owned()),
        },
        "ReadWritePaths" | "ReadWriteDirectories" => {
            let paths = value.split_whitespace().map(|p| p.trim_start_matches(['-', '+']));
            key("read_write_paths", Toml::texts(paths))
        }
        "SuccessExitStatus" => success(value),
        "StandardOutput" | "StandardError"
            if matches!(value, "journal" | "inherit" | "journal+console" | "syslog") =>
        {
            Done::Fine("output goes to the journal")
        }
        "StandardOutput" | "StandardError" => {
            Done::No("output goes to the journal and to `taskd logs`".to_owned())
        }
        "StandardInput" if value == "null" => Done::Fine("as taskd"),
        "SyslogIdentifier" => Done::Fine("entries of the journal have TASKD_TASK"),
        "RemainAfterExit" if boolean(value) == Some(false) => Done::Fine("as taskd"),
        "KillMode" if value == "control-group" || value == "mixed" => Done::Fine("nothing outlives a task"),
        "KillMode" => Done::No("nothing outlives a task".to_owned()),
        "Restart" if value == "no" => Done::Fine("as taskd"),
        "Restart" | "RestartSec" => {
            Done::No(format!("for a task that failed set max_retries and retry_delay ({value})"))
        }
        "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" => Done::No(
            "write it to taskd.service (`systemctl edit taskd`), and `credentials = [\"NAME\"]` here"
                .to_owned(),
        ),
        "RuntimeDirectory" | "StateDirectory" | "CacheDirectory" | "LogsDirectory" => {
            Done::No("taskd makes no directories: let the command or tmpfiles.d make it".to_owned())
        }
        name if name.starts_with("Protect")
            || name.starts_with("Restrict")
            || name.starts_with("Private")
            || name.starts_with("SystemCall")
            || matches!(
                name,
                "CapabilityBoundingSet"
                    | "AmbientCapabilities"
                    | "LockPersonality"
                    | "MemoryDenyWriteExecute"
                    | "ReadOnlyPaths"
                    | "InaccessiblePaths"
                    | "DevicePolicy"
                    | "DeviceAllow"
                    | "BindPaths"
                    | "RemoveIPC"
            ) =>
        {
            Done::No("not among the sandbox keys of a task; taskd.service bounds all tasks alike".to_owned())
        }
        _ => Done::No("taskd has no such setting".to_owned()),
    }
}

/// Whether `KillSignal=` has a time limit that sends it.
fn toml_signal(service: &Unit, value: &str) -> bool {
    limited(service).is_some() && !matches!(value, "SIGKILL" | "SIGTERM" | "15" | "9")
}

/// The setting that ends the service by time, and when: a oneshot's start, else its run.
fn limited(service: &Unit) -> Option<(&'static str, u64)> {
    let oneshot = service.get("Service", "Type") == Some("oneshot");
    let keys: &[&'static str] = if oneshot { &["TimeoutStartSec", "TimeoutSec"] } else { &["RuntimeMaxSec"] };
    keys.iter().find_map(|key| match service.get("Service", key).and_then(span) {
        Some(Span::Millis(ms)) if ms > 0 => Some((*key, ms)),
        _ => None,
    })
}

fn limit(setting: &Setting, service: &Unit) -> Done {
    let Some(found) = span(&setting.value) else { return Done::No("it is no time span".to_owned()) };
    let Some((key, ms)) = limited(service) else {
        return Done::Fine(if found == Span::Infinity || found == Span::Millis(0) {
            "without a limit, as taskd"
        } else {
            "for a service of this type it does not bound the run"
        });
    };
    if key != setting.key {
        return Done::Fine("another setting bounds the run");
    }
    let stop = match service.get("Service", "TimeoutStopSec").and_then(span) {
        Some(Span::Millis(ms)) => Some(ms),
        Some(Span::Infinity) => None,
        None => Some(STOP_MS),
    };
    let text = |ms: u64| Toml::text(crate::config::values::show_duration(ms));
    let mut keys = Vec::new();
    if stop != Some(0) {
        keys.push(("soft_time_limit", text(ms)));
    }
    keys.extend(stop.map(|stop| ("time_limit", text(ms.saturating_add(stop)))));
    Done::Keys(keys)
}

/// Exit codes by number, or by the names that systemd.exec(5) has for those of sysexits.h.
fn success(value: &str) -> Done {
    const NAMES: [&str; 15] = [
        "USAGE",
        "DATAERR",
        "NOINPUT",
        "NOUSER",
        "NOHOST",
        "UNAVAILABLE",
        "SOFTWARE",
        "OSERR",
        "OSFILE",
        "CANTCREAT",
        "IOERR",
        "TEMPFAIL",
        "PROTOCOL",
        "NOPERM",
        "CONFIG",
    ];
    let mut codes = Vec::new();
    for word in value.split_whitespace() {
        let named = NAMES.iter().position(|n| *n == word).and_then(|i| i64::try_from(i + 64).ok());
        match word.parse::<i64>().ok().or(named) {
            Some(0) => {}
            Some(n) => codes.push(Toml::Int(n)),
            None => {
                return Done::No(format!("{word} is no exit code; an end by a signal is always a failure"));
            }
        }
    }
    Done::Keys(if codes.is_empty() { Vec::new() } else { vec![("success_on", Toml::List(codes))] })
}
