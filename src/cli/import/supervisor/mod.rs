//! `taskd import supervisor`: supervisord's programs. A worker of Celery becomes a pool; a daemon that has nothing to
//! do with tasks stays a comment, with the systemd unit that it would be.

mod celery_worker;
mod ini;

use std::collections::BTreeSet;

use super::document::{Document, Imported, Table};
use super::naming::{self, Names};
use super::shell;
use super::toml_value::{self, Toml};
use celery_worker::{Kind, Worker, kind};
use ini::{Key, Section};

/// Whether this is supervisord's configuration at all.
///
/// # Errors
/// It is not: a sentence.
pub fn check(text: &str) -> Result<(), String> {
    const KINDS: [&str; 5] = ["program", "group", "eventlistener", "fcgi-program", "rpcinterface"];
    const NAMES: [&str; 5] =
        ["supervisord", "supervisorctl", "unix_http_server", "inet_http_server", "include"];
    let is_one = |s: &Section| match s.name.split_once(':') {
        Some((kind, _)) => KINDS.contains(&kind),
        None => NAMES.contains(&s.name.as_str()),
    };
    if ini::parse(text).0.iter().any(is_one) {
        return Ok(());
    }
    Err("it has no [program:NAME] and no other section of supervisord's".to_owned())
}

/// Translates a configuration file.
#[must_use]
pub fn import(source: &str, text: &str) -> Imported {
    let (sections, odd) = ini::parse(text);
    let mut file = File {
        doc: Document::new("supervisor", source, ("program", "programs")),
        names: Names::default(),
        queues: BTreeSet::new(),
        patterns: BTreeSet::new(),
    };
    for line in &odd {
        if line.starts_with([';', '#']) {
            file.doc.comment(line);
        } else {
            file.doc.left(line, "it is neither a section nor key=value");
        }
    }
    for section in &sections {
        file.doc.blank();
        for comment in &section.comments {
            file.doc.comment(comment);
        }
        match section.name.split_once(':') {
            Some(("program", name)) => file.program(section, name),
            Some(("eventlistener" | "fcgi-program", _)) => {
                file.doc.entry();
                let why =
                    "it speaks a protocol of supervisord's: as a service of its own it is a systemd unit";
                file.doc.left(&whole(section), why);
            }
            Some(("group", _)) => {
                file.explain(section, "pause and resume are for queues, with `taskd pause QUEUE`")
            }
            _ if section.name == "include" => {
                file.doc.left(&whole(section), "other files are not read: import each of them");
            }
            _ => file.explain(section, "supervisord's own; taskd's are in [taskd] and in its unit"),
        }
    }
    file.doc.finish()
}

/// The line of the command.
fn command_line(section: &Section) -> String {
    section.keys.iter().rfind(|k| k.name == "command").map(|k| k.source.clone()).unwrap_or_default()
}

/// A section as it stands in the file.
fn whole(section: &Section) -> String {
    let mut lines = vec![format!("[{}]", section.name)];
    lines.extend(section.keys.iter().map(|k| k.source.clone()));
    lines.join("\n")
}

struct File {
    doc: Document,
    names: Names,
    queues: BTreeSet<String>,
    patterns: BTreeSet<String>,
}

impl File {
    fn explain(&mut self, section: &Section, why: &str) {
        self.doc.comment(&format!("{}\n  ({why})", whole(section)));
    }

    fn program(&mut self, section: &Section, name: &str) {
        self.doc.entry();
        let Some(command) = section.get("command") else {
            return self.doc.left(&whole(section), "it has no command");
        };
        let Some(words) = shell::split(command).filter(|w| !w.is_empty()) else {
            return self.doc.left(&whole(section), "a quote of its command is not closed");
        };
        let once = section.get("autorestart").is_some_and(|v| is(v, false))
            && section.get("startsecs").is_some_and(|v| v == "0");
        match kind(&words) {
            Kind::Worker(worker) => self.pool(section, name, &worker),
            Kind::Resident => self.resident(section, name, &words),
            Kind::Beat => {
                let why = "taskd has schedules of its own: taskd import celery-beat MODULE.py, with the module that has beat_schedule";
                self.doc.left(&whole(section), why);
            }
            Kind::Other(other) if other == "flower" => {
                self.doc.left(&whole(section), "Flower watches Celery: `taskd status`, `taskd list` and `taskd queues` show what it shows");
            }
            Kind::Other(other) => {
                self.doc.left(&whole(section), &format!("`celery {other}` has no counterpart here"));
            }
            Kind::Plain if once => self.task(section, name, words),
            Kind::Plain => {
                self.doc.left(
                    &whole(section),
                    "it runs all the time, and a task ends: it is a systemd unit, about like this:",
                );
                self.doc.comment(&unit(section, name, command));
            }
        }
    }

    /// A program that runs once and ends.
    fn task(&mut self, section: &Section, name: &str, words: Vec<String>) {
        let name = self.names.give(name);
        let mut table = Table::new("tasks", &name);
        let command = command_line(section);
        let mut left = Vec::new();
        let argv = words.iter().map(|w| expand(w, &name).map(|w| w.replace('{', "{{").replace('}', "}}")));
        match argv.collect::<Result<Vec<_>, _>>() {
            Ok(argv) => table.say("exec", Toml::texts(argv), command),
            Err(why) => return self.doc.left(&whole(section), &why),
        }
        self.doc
            .comment(&format!("[{}]: it runs once and ends; `taskd enqueue {name}` runs it", section.name));
        for key in &section.keys {
            match key.name.as_str() {
                "command" => {}
                "autostart" if is(&key.value, false) => {
                    self.doc.comment(&format!("{}  (a task)", key.source))
                }
                "autostart" => {
                    let why = format!(
                        "nothing runs when taskd starts: `taskd enqueue {name}` in a unit after taskd.service does it"
                    );
                    left.push((key.source.clone(), why));
                }
                "startsecs" | "autorestart" => self.doc.comment(&format!("{}  (a task)", key.source)),
                "stopwaitsecs" => {
                    self.doc.comment(&format!("{}  (shutdown_grace of [taskd] is for all)", key.source))
                }
                "exitcodes" => {
                    let codes =
                        key.value.split(',').filter_map(|c| c.trim().parse::<i64>().ok()).filter(|c| *c != 0);
                    let codes: Vec<Toml> = codes.map(Toml::Int).collect();
                    if !codes.is_empty() {
                        table.say("success_on", Toml::List(codes), key.source.clone());
                    }
                }
                _ => self.surrounding(key, &name, &mut table, &mut left),
            }
        }
        self.doc.table(&table, "");
        self.remains(left);
    }

    /// A pool of taskd_worker already.
    fn resident(&mut self, section: &Section, name: &str, words: &[String]) {
        let name = self.names.give(name);
        let mut table = Table::new("pools", &name);
        let mut left = Vec::new();
        self.doc.comment(&format!("[{}]", section.name));
        match words.iter().map(|w| expand(w, &name)).collect::<Result<Vec<_>, _>>() {
            Ok(argv) => table.say("worker", Toml::texts(argv), command_line(section)),
            Err(why) => return self.doc.left(&whole(section), &why),
        }
        self.of_pool(section, &name, 1, &mut table, &mut left);
        self.doc.table(&table, "");
        self.remains(left);
    }

    /// A Celery worker.
    fn pool(&mut self, section: &Section, name: &str, worker: &Worker) {
        let name = self.names.give(name);
        let mut table = Table::new("pools", &name);
        let mut left = Vec::new();
        self.doc.comment(&format!("[{}]", section.name));
        let app = worker.app.clone().unwrap_or_else(|| "tasks".to_owned());
        let package = package_of(&app);
        let module = if worker.app.is_some() { format!("{package}.tasks") } else { package.clone() };
        let argv = [worker.python.as_str(), "-m", "taskd_worker", &module];
        table.say("worker", Toml::texts(argv), format!("in place of the Celery app {app}"));
        let (processes, said) = worker.processes.clone().unwrap_or((0, String::new()));
        if processes > 0 {
            table.say("processes", Toml::Int(processes), said);
        }
        if let Some(n) = worker.max_tasks {
            table.say("max_tasks_per_child", Toml::Int(n), "--max-tasks-per-child");
        }
        if let Some(kib) = worker.max_memory {
            table.say("max_memory_per_child", Toml::text(format!("{kib}K")), "--max-memory-per-child");
        }
        if let Some(directory) = &worker.directory {
            table.say("working_directory", Toml::text(directory), "--workdir");
        }
        self.of_pool(section, &name, processes, &mut table, &mut left);
        let command = command_line(section);
        let why = format!(
            "a pool runs a program that speaks taskd's protocol, not a Celery app. Below is one with the module taskd_worker \
             (packaging/python): give the functions its @task, and check that their module is {module:?}"
        );
        self.doc.left(&command, &why);
        if !self.doc.table(&table, "") {
            return self.remains(left);
        }
        self.remains(left);
        for (option, why) in &worker.left {
            self.doc.left(option, why);
        }
        self.queues(&name, &package, worker);
    }

    /// The queues of a worker, and the tasks that go there.
    fn queues(&mut self, pool: &str, package: &str, worker: &Worker) {
        let given = if worker.queues.is_empty() { vec!["celery".to_owned()] } else { worker.queues.clone() };
        let queues: Vec<String> = given.iter().map(|q| naming::queue(q).to_owned()).collect();
        if queues != given {
            self.doc.remark(naming::RENAMED);
        }
        let mut first = None;
        for queue in &queues {
            if queue.contains("%(") {
                self.doc.left(&format!("-Q {queue}"), "its name is made up when supervisord starts");
                continue;
            }
            if !self.queues.insert(queue.clone()) {
                let why = "another program above has it: a queue is drained by one pool";
                self.doc.left(&format!("-Q {queue}"), why);
                continue;
            }
            let mut table = Table::new("queues", queue);
            table.set("pool", Toml::text(pool));
            self.doc.blank();
            let around = format!("[pools.{}]\nworker = [\"true\"]\n", toml_value::key(pool));
            if crate::model::name::check(queue).is_err() {
                self.doc.left(&format!("-Q {queue}"), "a queue's name has letters, digits and _ . : - only");
            } else if self.doc.table(&table, &around) {
                first.get_or_insert_with(|| queue.clone());
            }
        }
        let pattern = format!("{package}.*");
        let Some(queue) = first.filter(|_| self.patterns.insert(pattern.clone())) else { return };
        let mut table = Table::new("tasks", &pattern);
        table.say(
            "queue",
            Toml::text(&queue),
            if queues.len() > 1 { "the others by `queue` of a task or by [[routes]]" } else { "" },
        );
        let seconds = |s: &String| Toml::text(format!("{s}s"));
        if let Some(limit) = &worker.soft_time_limit {
            table.say("soft_time_limit", seconds(limit), "--soft-time-limit");
        }
        if let Some(limit) = &worker.time_limit {
            table.say("time_limit", seconds(limit), "--time-limit");
        }
        let around =
            format!("[queues.{}]\npool = \"w\"\n[pools.w]\nworker = [\"true\"]\n", toml_value::key(&queue));
        self.doc.blank();
        self.doc.table(&table, &around);
    }

    /// Keys of a program that is a pool; `processes` is what each of its processes has.
    fn of_pool(
        &mut self,
        section: &Section,
        name: &str,
        processes: i64,
        table: &mut Table,
        left: &mut Vec<(String, String)>,
    ) {
        for key in &section.keys {
            match key.name.as_str() {
                "command" => {}
                "numprocs" => match key.value.parse::<i64>() {
                    Ok(n) if n > 1 && processes > 0 => {
                        let all = processes.saturating_mul(n);
                        table.replace(
                            "processes",
                            Toml::Int(all),
                            format!("{} times {processes}", key.source),
                        );
                    }
                    Ok(1) => self.doc.comment(&format!("{}  (as a pool)", key.source)),
                    Ok(n) if n > 1 => left.push((
                        key.source.clone(),
                        "`processes` of the pool is the number of CPUs: multiply it yourself".to_owned(),
                    )),
                    _ => left.push((key.source.clone(), "it is no number".to_owned())),
                },
                "autostart" if !is(&key.value, false) => {
                    self.doc.comment(&format!("{}  (as a pool)", key.source))
                }
                "autostart" => left.push((
                    key.source.clone(),
                    "a pool starts with taskd; `taskd pause QUEUE` holds its queues".to_owned(),
                )),
                "autorestart" | "startretries" | "startsecs" | "exitcodes" | "numprocs_start" => {
                    self.doc.comment(&format!("{}  (a worker that ends is always replaced)", key.source));
                }
                "stopwaitsecs" => self.doc.comment(&format!("{}  (shutdown_grace of [taskd])", key.source)),
                _ => self.surrounding(key, name, table, left),
            }
        }
    }

    /// Keys that mean the same for every program.
    fn surrounding(&mut self, key: &Key, name: &str, table: &mut Table, left: &mut Vec<(String, String)>) {
        let source = key.source.clone();
        if matches!(key.name.as_str(), "process_name" | "priority") {
            return self.doc.comment(&format!("{source}  (taskd starts everything at once and names it)"));
        }
        let value = match expand(&key.value, name) {
            Ok(value) => value,
            Err(why) => return left.push((source, why)),
        };
        match key.name.as_str() {
            "user" => table.say("user", Toml::text(value), source),
            "directory" if table.has("working_directory") => {
                table.replace("working_directory", Toml::text(value), source)
            }
            "directory" => table.say("working_directory", Toml::text(value), source),
            "umask" => table.say("umask", Toml::text(value), source),
            "environment" => match ini::environment(&value) {
                Ok(pairs) => {
                    let (own, kept): (Vec<_>, Vec<_>) =
                        pairs.into_iter().partition(|(n, _)| n.starts_with("TASKD_"));
                    for (name, _) in own {
                        left.push((name, "names that begin with TASKD_ are taskd's own".to_owned()));
                    }
                    let text = |v: String| Toml::text(v.replace("${credential:", "$${credential:"));
                    let map = kept.into_iter().map(|(n, v)| (n, text(v))).collect();
                    self.doc.comment(&format!("{source}  (environment)"));
                    table.set("environment", Toml::Map(map));
                }
                Err(why) => left.push((source, why)),
            },
            "stopsignal" if matches!(value.as_str(), "TERM" | "SIGTERM") => {
                self.doc.comment(&format!("{source}  (as taskd)"))
            }
            "stopsignal" => {
                left.push((source, "a worker is told to end by the end of its socket and SIGTERM".to_owned()))
            }
            "stopasgroup" | "killasgroup" => {
                self.doc.comment(&format!("{source}  (nothing outlives a task or worker)"))
            }
            "redirect_stderr" => {
                self.doc.comment(&format!("{source}  (the journal has both, and says which is which)"))
            }
            name if name.starts_with("stdout_") || name.starts_with("stderr_") => {
                self.doc.comment(&format!("{source}  (output goes to the journal and to `taskd logs`)"));
            }
            "serverurl" => self.doc.comment(&format!("{source}  (supervisord's own)")),
            _ => left.push((source, "taskd has no such setting".to_owned())),
        }
    }

    fn remains(&mut self, left: Vec<(String, String)>) {
        for (source, why) in left {
            self.doc.left(&source, &why);
        }
    }
}

/// Whether a value of supervisor's is this truth; `unexpected` is neither.
fn is(value: &str, wanted: bool) -> bool {
    let known = match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
        _ => None,
    };
    known == Some(wanted)
}

/// `shop.celery:app` is of the package `shop`.
fn package_of(app: &str) -> String {
    let module = app.split([':', '/']).next().unwrap_or(app);
    let ends = [".celery", ".celery_app", ".celeryapp", ".celery_worker", ".app", ".tasks", ".worker"];
    let cut = ends.iter().find_map(|e| module.strip_suffix(e)).filter(|m| !m.is_empty());
    let package: String = cut
        .unwrap_or(module)
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        .collect();
    if package.is_empty() { "tasks".to_owned() } else { package }
}

/// Replaces `%(program_name)s` and `%%`.
///
/// # Errors
/// An expression that only supervisord can resolve.
fn expand(value: &str, name: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('%') {
            out.push('%');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix("(program_name)s") {
            out.push_str(name);
            rest = tail;
        } else if let Some(variable) = after.strip_prefix('(').and_then(|a| a.split(')').next()) {
            let what = match variable.strip_prefix("ENV_") {
                Some(variable) => format!("of supervisord's own environment ({variable})"),
                None => format!("of supervisord ({variable})"),
            };
            return Err(format!("it has a value {what}: write it out"));
        } else {
            out.push('%');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The unit that a daemon would be.
fn unit(section: &Section, name: &str, command: &str) -> String {
    let mut lines =
        vec![format!("  /etc/systemd/system/{}.service", naming::slug(name)), "  [Service]".to_owned()];
    let mut add = |key: &str, value: &str| lines.push(format!("  {key}={}", value.replace('\n', " ")));
    add("ExecStart", command);
    for (key, systemd) in [
        ("directory", "WorkingDirectory"),
        ("user", "User"),
        ("umask", "UMask"),
        ("stopsignal", "KillSignal"),
        ("stopwaitsecs", "TimeoutStopSec"),
    ] {
        match section.get(key) {
            Some(value) if key == "stopsignal" && !value.starts_with("SIG") => {
                add(systemd, &format!("SIG{value}"))
            }
            Some(value) => add(systemd, value),
            None => {}
        }
    }
    for (name, value) in section.get("environment").and_then(|e| ini::environment(e).ok()).unwrap_or_default()
    {
        add("Environment", &format!("\"{name}={value}\""));
    }
    match section.get("autorestart") {
        Some(value) if is(value, false) => {}
        Some(value) if is(value, true) => add("Restart", "always"),
        _ => add("Restart", "on-failure"),
    }
    if section.get("autostart").is_none_or(|v| !is(v, false)) {
        lines.push("  [Install]".to_owned());
        lines.push("  WantedBy=multi-user.target".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_celery_worker_is_a_pool_with_queues() {
        let done = import(
            "x",
            "[program:shop]\ncommand=/v/bin/celery -A shop.celery worker -c 4 -Q mail,slow --time-limit=60\nuser=shop\nnumprocs=2\ndirectory=/srv/shop\nenvironment=A=\"1\"\n",
        );
        let t: toml::Table = done.text.parse().unwrap_or_else(|e| panic!("{e}\n{}", done.text));
        let pool = &t["pools"]["shop"];
        assert_eq!((pool["processes"].as_integer(), pool["user"].as_str()), (Some(8), Some("shop")));
        assert_eq!(t["queues"]["mail"]["pool"].as_str(), Some("shop"));
        assert_eq!(t["tasks"]["shop.*"]["time_limit"].as_str(), Some("60s"));
        assert_eq!(done.left, 1, "{}", done.text);
    }

    #[test]
    fn a_daemon_is_a_comment_with_its_unit() {
        let done = import("x", "[program:web]\ncommand=gunicorn shop.wsgi\nuser=www-data\nstopsignal=QUIT\n");
        assert!(done.text.parse::<toml::Table>().unwrap().is_empty());
        assert!(
            done.text.contains("#   User=www-data") && done.text.contains("#   KillSignal=SIGQUIT"),
            "{}",
            done.text
        );
        assert_eq!((done.entries, done.left), (1, 1));
    }

    #[test]
    fn what_ends_is_a_task() {
        let done = import(
            "x",
            "[program:migrate]\ncommand=/m --x {a}\nautorestart=false\nstartsecs=0\nexitcodes=0,2\n",
        );
        let t: toml::Table = done.text.parse().unwrap();
        assert_eq!(t["tasks"]["migrate"]["exec"][2].as_str(), Some("{{a}}"));
        assert_eq!(t["tasks"]["migrate"]["success_on"][0].as_integer(), Some(2));
        assert_eq!(done.left, 0, "{}", done.text);
    }

    #[test]
    fn what_supervisord_would_resolve_is_said() {
        assert_eq!(expand("a%%b %(program_name)s", "p").unwrap(), "a%b p");
        assert!(expand("%(ENV_HOME)s", "p").unwrap_err().contains("HOME"));
        assert_eq!(package_of("shop.celery:app"), "shop");
        assert_eq!(package_of("config.celery_app"), "config");
    }
}
