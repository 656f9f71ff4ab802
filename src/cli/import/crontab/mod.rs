//! `taskd import crontab`: crontab(5), a user's own or one with a column of users.

mod line;
mod timing;
mod user_column;
mod wrapper;

use std::collections::BTreeMap;

use super::document::{Document, Imported, Table};
use super::naming::Names;
use super::toml_value::Toml;
use super::{program_name, shell};
use line::{Line, When, percent, word};
use timing::{Timing, timing};
use user_column::{Column, owner};

/// How the file is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Every entry names a user after its time.
    pub system: bool,
    /// The user whose crontab it is.
    pub run_as: Option<String>,
    /// It was cronie that ran it, which keeps to CRON_TZ; Debian's cron does not.
    pub cronie: bool,
    /// Whether the machine has such a user.
    pub is_user: Option<fn(&str) -> bool>,
}

/// Translates a crontab.
#[must_use]
pub fn import(source: &str, text: &str, reading: &Reading) -> Imported {
    let column = match (reading.system, &reading.run_as) {
        (true, _) => Column::Asked,
        (false, Some(_)) => Column::None,
        (false, None) => Column::of(source, text),
    };
    let mut doc = Document::new("crontab", source, ("entry", "entries"));
    let user = reading.run_as.clone().or_else(|| owner(source).map(str::to_owned));
    head(&mut doc, column, user.as_deref());
    let exists = |name: &str| reading.is_user.is_some_and(|is| is(name));
    let hint = (column == Column::None && reading.run_as.is_none())
        .then(|| user_column::likely(text, &exists))
        .flatten()
        .map(|(line, name)| {
            format!(
                "line {line} looks like one of a system's crontab: {name} is a user, and a command follows. If it is \
                 /etc/crontab or a file of /etc/cron.d, read it again with --system; if {name} is a program, all is well."
            )
        });
    if let Some(hint) = &hint {
        doc.remark(hint.clone());
    }
    let mut file = File {
        doc,
        column,
        user,
        variables: Vec::new(),
        mail: None,
        zone: None,
        cronie: reading.cronie,
        splay: None,
        shell: "/bin/sh".to_owned(),
        tasks: Names::default(),
        schedules: Names::default(),
        written: BTreeMap::new(),
        locks: locks(text),
    };
    for line in text.lines() {
        file.line(line);
    }
    if file.doc.entries() > 0 {
        file.doc.remark(
            "What differs from cron: output goes to the journal and to `taskd logs` instead of to mail, a task starts in / \
             and not in the home directory. overlap = \"allow\" is what cron does; without it a run waits for no other and is left out \
             instead. catch_up = \"last\" makes up for a time that passed while taskd was down.",
        );
    }
    Imported { hint, ..file.doc.finish() }
}

fn head(doc: &mut Document, column: Column, user: Option<&str>) {
    match (column, user) {
        (Column::Asked, _) => doc.remark("Read with a column of users, as --system asks."),
        (Column::Place, _) => doc.remark("Read with a column of users, as crontabs of that place have."),
        (Column::Seen, _) => doc.remark(
            "Read with a column of users, since a user's name follows the time in every entry; if these are commands, \
             say whose crontab it is with --run-as USER.",
        ),
        (Column::None, Some(user)) => doc.remark(format!("Read as the crontab of {user}.")),
        (Column::None, None) => doc.remark(
            "Read as the crontab of one user. The tasks run as the user of their pool; --run-as USER writes the owner's \
             name to each. (--system reads a column of users.)",
        ),
    }
}

/// How many lines name each lock file of a `flock`.
fn locks(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|l| l.contains("flock") && !l.trim_start().starts_with('#')) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.sort_unstable();
        words.dedup();
        for word in words {
            *found.entry(word.to_owned()).or_insert(0) += 1;
        }
    }
    found
}

/// What has been read so far: an assignment holds for the entries after it.
struct File {
    doc: Document,
    column: Column,
    user: Option<String>,
    variables: Vec<(String, String)>,
    mail: Option<String>,
    zone: Option<String>,
    cronie: bool,
    splay: Option<u64>,
    shell: String,
    tasks: Names,
    schedules: Names,
    /// Tasks that were written, by what they say: the same command at two times is one task.
    written: BTreeMap<String, String>,
    locks: BTreeMap<String, usize>,
}

impl File {
    fn line(&mut self, text: &str) {
        match line::parse(text) {
            Line::Blank => self.doc.blank(),
            Line::Comment(comment) => self.doc.own_comment(comment),
            Line::Assignment(name, value) => self.assignment(text, name, value),
            Line::Wrong(why) => self.doc.left(text, why),
            Line::Entry(when, rest) => {
                self.doc.entry();
                if text.contains('\u{fffd}') {
                    self.doc.left(text, "it is not UTF-8");
                } else {
                    self.entry(text, when, rest);
                }
                self.doc.blank();
            }
        }
    }

    fn assignment(&mut self, text: &str, name: &str, value: &str) {
        let said = match name {
            "SHELL" => {
                value.clone_into(&mut self.shell);
                if value == "/bin/sh" { "taskd's own shell" } else { "the commands below name it" }.to_owned()
            }
            "MAILTO" if value.is_empty() => {
                self.mail = None;
                "no mail, as without this line".to_owned()
            }
            "MAILTO" => {
                self.mail = Some(value.to_owned());
                "cron mails all output; on_failure mails when a task fails".to_owned()
            }
            "CRON_TZ" if !self.cronie => {
                self.variable(name, value);
                self.doc.remark(
                    "Debian's cron keeps to the system's clock whatever TZ and CRON_TZ say, and so do the schedules below. cronie \
                     keeps to CRON_TZ: if it was cronie, read the file again with --cronie.",
                );
                "in the environment of the tasks below; the times are the system's".to_owned()
            }
            "CRON_TZ" => {
                self.zone = Some(value.to_owned()).filter(|v| !v.is_empty());
                "timezone of the schedules below".to_owned()
            }
            "RANDOM_DELAY" => {
                self.splay = value.parse::<u64>().ok();
                match self.splay {
                    Some(_) => "splay of the schedules below".to_owned(),
                    None => return self.doc.left(text, "it is no number of minutes"),
                }
            }
            "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING" | "NO_MAIL_OUTPUT" => {
                "for the mails of cron, of which there are none here".to_owned()
            }
            "LOGNAME" | "USER" => "set by taskd for the user a task runs as".to_owned(),
            name if name.starts_with("TASKD_") => {
                return self.doc.left(text, "names that begin with TASKD_ are taskd's own");
            }
            "TZ" => {
                self.variable(name, value);
                "in the environment of the tasks below; the times are the system's, for cron keeps to that"
                    .to_owned()
            }
            name => {
                self.variable(name, value);
                let dollar = if value.contains('$') {
                    "; cron does not replace $ in it, and taskd does not either"
                } else {
                    ""
                };
                format!("in the environment of the tasks below{dollar}")
            }
        };
        self.doc.comment(&format!("{}  ({said})", text.trim()));
    }

    /// Every task below has it.
    fn variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    fn entry(&mut self, text: &str, when: When<'_>, rest: &str) {
        let (user, rest) = match self.column {
            Column::None => (self.user.clone(), rest),
            _ => {
                let (user, rest) = word(rest);
                // FreeBSD and Debian: user:group, user/class.
                (Some(user.to_owned()), rest)
            }
        };
        if rest.is_empty() {
            return self.doc.left(text, "there is no command after the user");
        }
        let (keys, mut said) = match timing(when) {
            Timing::Keys(keys, said) => (Some(keys), said),
            Timing::Reboot => (None, Vec::new()),
            Timing::No(why) => return self.doc.left(text, &why),
        };
        let (command, stdin) = percent(rest);
        if command.is_empty() {
            return self.doc.left(text, "the command is empty");
        }
        if stdin.is_some() && shell::pieces(&command).is_none() {
            let why = "the first % that is not written \\% ends the command, and what stands before it is no whole command: cron fails here too";
            return self.doc.left(text, why);
        }
        if stdin.is_some() && self.shell.ends_with("fish") | self.shell.ends_with("csh") {
            return self.doc.left(
                text,
                "what follows the first % is its stdin, which this shell has no here-document for",
            );
        }
        let locks = &self.locks;
        let once = |file: &str| locks.get(file).is_none_or(|n| *n < 2);
        let unwrapped = wrapper::unwrap(&command, &once);
        said.extend(unwrapped.said);
        let name = program_name::of(&unwrapped.command);
        let command = self.with_home(unwrapped.command, &mut said);
        let command = match stdin {
            Some(stdin) => {
                said.push("what follows the first % is its stdin".to_owned());
                with_stdin(&command, &stdin)
            }
            None => command,
        };
        let mut task = Table::new("tasks", "");
        if self.program(&mut task, &command).is_none() {
            let why = format!("SHELL={} is no shell that takes its text after -c", self.shell);
            return self.doc.left(text, &why);
        }
        if let Some(user) = user {
            task.set("user", Toml::text(user));
        }
        if !self.variables.is_empty() {
            let pairs = self.variables.iter().map(|(n, v)| (n.clone(), Toml::text(v)));
            task.set("environment", Toml::Map(pairs.collect()));
        }
        for (key, value) in unwrapped.task {
            task.set(key, value);
        }
        if let Some(mail) = &self.mail {
            let mut all: Vec<Toml> =
                mail.split([',', ' ']).filter(|m| !m.is_empty()).map(Toml::text).collect();
            let whom = if all.len() == 1 { all.remove(0) } else { Toml::List(all) };
            task.set("on_failure", Toml::Map(vec![("mail".to_owned(), whom)]));
        }
        let schedule = keys.map(|keys| self.schedule(keys, unwrapped.schedule));
        if let Some(why) = schedule.as_ref().and_then(|s| s.refused(&around("x"))) {
            return self.doc.left(text, &why);
        }
        self.doc.comment(text.trim());
        for sentence in &said {
            self.doc.comment(&format!("  {sentence}"));
        }
        let Some(task) = self.task(&name, &task) else { return };
        match schedule {
            None => self.doc.left(
                "@reboot",
                &format!("nothing fires when taskd starts: `taskd enqueue {task}` in a unit after taskd.service does it"),
            ),
            Some(mut table) => {
                table.replace("task", Toml::text(&task), "");
                let name = self.schedules.give(&task);
                self.doc.blank();
                self.doc.table(&table.named(&name), &around(&task));
            }
        }
    }

    /// Writes a task, or finds the one that says the same; none where taskd would refuse it.
    fn task(&mut self, wanted: &str, table: &Table) -> Option<String> {
        let says = format!("{:?}", table.keys());
        if let Some(name) = self.written.get(&says) {
            self.doc.comment(&format!("  the task is {name}, as above"));
            return Some(name.clone());
        }
        let name = self.tasks.give(wanted);
        if !self.doc.table(&table.named(&name), "") {
            return None;
        }
        self.written.insert(says, name.clone());
        Some(name)
    }

    /// The schedule of an entry, for the task `x`.
    fn schedule(&self, keys: Vec<(&'static str, Toml)>, more: Vec<(&'static str, Toml)>) -> Table {
        let mut table = Table::new("schedules", "x");
        table.set("task", Toml::text("x"));
        for (key, value) in keys {
            table.set(key, value);
        }
        if let Some(zone) = self.zone.as_ref().filter(|_| table.has("cron")) {
            table.set("timezone", Toml::text(zone));
        }
        for (key, value) in more {
            table.set(key, value);
        }
        if let Some(minutes) = self.splay.filter(|m| *m > 0 && !table.has("splay")) {
            table.set("splay", Toml::text(format!("{minutes}m")));
        }
        // A schedule that counts from the end of a run has none beside it.
        if !table.has("overlap") && table.flag("align") != Some(false) {
            table.set("overlap", Toml::text("allow"));
        }
        table
    }

    /// cron starts in the home directory: a command that needs it goes there itself.
    fn with_home(&self, command: String, said: &mut Vec<String>) -> String {
        if !is_relative(&command) {
            return command;
        }
        said.push("`cd` was put before it: cron starts it in the home directory".to_owned());
        format!("cd && {command}")
    }

    /// `command`, or `exec` where another shell is wanted.
    fn program(&self, task: &mut Table, command: &str) -> Option<()> {
        let name = self.shell.rsplit('/').next().unwrap_or_default();
        if self.shell == "/bin/sh" {
            task.set("command", Toml::text(command));
            return Some(());
        }
        let shells = ["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "busybox", "fish", "tcsh", "csh"];
        if !shells.contains(&name) || !self.shell.starts_with('/') {
            return None;
        }
        // Braces are placeholders of `exec`: doubled they are themselves.
        let text = command.replace('{', "{{").replace('}', "}}");
        task.set("exec", Toml::texts([self.shell.as_str(), "-c", &text]));
        Some(())
    }
}

/// The task that a schedule speaks of, for taskd's check.
fn around(task: &str) -> String {
    format!("[tasks.{}]\ncommand = \"true\"\n", super::toml_value::key(task))
}

/// Whether a command names a file below the directory it starts in, as far as can be seen.
fn is_relative(command: &str) -> bool {
    let Some(pieces) = shell::pieces(command) else { return false };
    let first = pieces.first().map(shell::Piece::text).unwrap_or_default();
    if first == "cd" || first == "exec" && pieces.get(1).is_some_and(|p| p.text() == "cd") {
        return false;
    }
    let mut target = false;
    for (i, piece) in pieces.iter().enumerate() {
        if piece.operator {
            target = piece.raw.ends_with(['>', '<']);
            continue;
        }
        let text = piece.text();
        let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        let path =
            text.contains('/') && !text.contains("://") && !text.contains([':', '=', '@', ' ', ',', '\\']);
        let bare = i > 0 && has_extension(text) && !text.contains([' ', '=', '@', ':', ',', '\\']);
        if plain && (target || path || bare) && !is_place(text) {
            return true;
        }
        target = false;
    }
    false
}

/// `numbers.txt`, `job.py`; no number.
fn has_extension(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(name, end)| {
        !name.is_empty() && end.starts_with(|c: char| c.is_ascii_alphabetic()) && end.len() <= 5
    })
}

/// A word with a slash that is no file: a fraction, a MIME type, a date.
fn is_place(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '/' || c == '.')
        && text.contains('/')
        && !text.starts_with('.')
}

/// A command that reads this text from its stdin.
fn with_stdin(command: &str, text: &str) -> String {
    let mut word = "END".to_owned();
    while text.lines().any(|l| l == word) {
        word.push('_');
    }
    // cron ends the last line where the text does not.
    let text = if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    format!("{{ {command}\n}} <<'{word}'\n{text}{word}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> toml::Table {
        let done = import("crontab", text, &Reading::default());
        done.text.parse().unwrap_or_else(|e| panic!("{e}\n{}", done.text))
    }

    #[test]
    fn the_same_command_twice_is_one_task_with_two_schedules() {
        let t = tables("0 1 * * * /opt/a.sh\n0 2 * * 7 /opt/a.sh\n0 3 * * * /opt/a.sh x\n");
        assert_eq!(t["tasks"].as_table().unwrap().keys().collect::<Vec<_>>(), ["a", "a-2"]);
        assert_eq!(t["schedules"].as_table().unwrap().keys().collect::<Vec<_>>(), ["a", "a-2", "a-2-2"]);
        assert_eq!(t["schedules"]["a-2"]["task"].as_str(), Some("a"));
    }

    #[test]
    fn variables_hold_from_their_line_on() {
        let t = tables(
            "A=1\n0 1 * * * /a\nA=2\nMAILTO=me@example.org\nSHELL=/bin/bash\n0 1 * * * /b ${x}\nCRON_TZ=UTC\n0 1 * * * /c\n",
        );
        assert_eq!(t["tasks"]["a"]["environment"]["A"].as_str(), Some("1"));
        assert_eq!(t["tasks"]["b"]["environment"]["A"].as_str(), Some("2"));
        assert_eq!(t["tasks"]["b"]["exec"][2].as_str(), Some("/b ${{x}}"));
        assert_eq!(t["tasks"]["b"]["on_failure"]["mail"].as_str(), Some("me@example.org"));
        // Debian's cron keeps to the system's clock.
        assert!(t["schedules"]["c"].get("timezone").is_none());
        assert_eq!(t["tasks"]["c"]["environment"]["CRON_TZ"].as_str(), Some("UTC"));
        let reading = Reading { cronie: true, ..Reading::default() };
        let t: toml::Table =
            import("crontab", "0 1 * * * /b\nCRON_TZ=UTC\n0 1 * * * /c\n", &reading).text.parse().unwrap();
        assert!(t["schedules"]["b"].get("timezone").is_none());
        assert_eq!(t["schedules"]["c"]["timezone"].as_str(), Some("UTC"));
    }

    #[test]
    fn stdin_ends_with_one_newline() {
        for line in ["* * * * * cmd%hello%", "* * * * * cmd%hello"] {
            let t = tables(line);
            assert_eq!(
                t["tasks"]["cmd"]["command"].as_str(),
                Some("{ cmd\n} <<'END'\nhello\nEND\n"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_likely_column_of_users_is_told() {
        let text = "0 1 * * * /opt/own\n0 2 * * * shop /opt/shop/report\n";
        let reading = Reading { is_user: Some(|name| name == "shop"), ..Reading::default() };
        let hint = import("-", text, &reading).hint.unwrap();
        assert!(hint.contains("line 2") && hint.contains("shop") && hint.contains("--system"), "{hint}");
        assert!(import("-", text, &Reading { run_as: Some("me".into()), ..reading.clone() }).hint.is_none());
        assert!(import("-", text, &Reading::default()).hint.is_none(), "nobody knows a user shop");
        assert!(import("-", "0 1 * * * shop --all\n", &reading).hint.is_none());
        assert!(import("-", "0 1 * * * /a\n0 1 * * * root /a\n", &Reading::default()).hint.is_some());
    }

    #[test]
    fn stdin_and_reboot() {
        let done = import("c", "@reboot /a\n0 0 * * * mail -s x me%Hi%END%\n", &Reading::default());
        assert_eq!(done.left, 1);
        let t: toml::Table = done.text.parse().unwrap();
        assert_eq!(
            t["tasks"]["mail"]["command"].as_str(),
            Some("{ mail -s x me\n} <<'END_'\nHi\nEND\nEND_\n")
        );
        assert!(t["schedules"].get("a").is_none() && t["tasks"].get("a").is_some());
    }

    #[test]
    fn a_relative_command_goes_home_first() {
        for (command, relative) in [
            ("./x.sh", true),
            ("bin/backup --to /srv", true),
            ("python3 job.py", true),
            ("/a > log.txt", true),
            ("/a >> /var/log/x 2>&1", false),
            ("cd /srv && ./x", false),
            ("curl -s http://x/y", false),
            ("date +%d/%m/%Y", false),
            ("find / -name '*.sh'", false),
            ("rsync host:a/b /c", false),
            ("echo 1/2", false),
            ("~/bin/x", false),
            ("backup", false),
            ("awk '{ s += $1 }' numbers.txt", true),
            ("sleep 0.5", false),
        ] {
            assert_eq!(is_relative(command), relative, "{command}");
        }
    }

    #[test]
    fn every_line_is_there() {
        let text = "# c\nA=b\n0 1 * * * x\nnonsense\n61 * * * * y\n@reboot z\nTASKD_A=1\n0 0 * * fri-mon w\n";
        let done = import("c", text, &Reading::default());
        for line in text.lines() {
            assert!(done.text.contains(line), "{line} is missing in\n{}", done.text);
        }
        assert_eq!((done.entries, done.left), (4, 5), "{}", done.text);
    }
}
