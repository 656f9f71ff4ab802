//! The file that an importer writes: tables, comments, and a count of what could not be carried over.

use crate::config::{self, Env, FaultKind};

use super::toml_value::{self, Toml};

/// What stands before every line that was not carried over.
pub const LEFT: &str = "NOT CARRIED OVER";

/// Longest line of prose.
const WIDTH: usize = 100;

/// What an importer made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The file.
    pub text: String,
    /// How many entries the source has.
    pub entries: usize,
    /// How many things of the source stand in the file as comments only.
    pub left: usize,
    /// One sentence about it.
    pub summary: String,
    /// What the user probably meant otherwise.
    pub hint: Option<String>,
}

/// A table of the written file.
#[derive(Clone, Debug)]
pub struct Table {
    kind: &'static str,
    name: String,
    lines: Vec<Line>,
    essential: &'static [&'static str],
}

#[derive(Clone, Debug)]
enum Line {
    Comment(String),
    Key { name: String, value: Toml, said: String },
}

impl Table {
    /// `[kind.name]`; without a name `[kind]`.
    pub fn new(kind: &'static str, name: &str) -> Self {
        let essential: &[&str] = match kind {
            "tasks" => &["command", "exec", "user", "group", "queue", ""],
            "schedules" => {
                &["task", "cron", "every", "align", "solar", "latitude", "longitude", "timezone", ""]
            }
            "routes" => &["task", "queue", ""],
            "pools" => &["worker", "user", "group", ""],
            _ => &["pool", ""],
        };
        Self { kind, name: name.to_owned(), lines: Vec::new(), essential }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Adds a key.
    pub fn set(&mut self, name: &str, value: Toml) {
        self.say(name, value, "");
    }

    /// Adds a key with a remark beside it.
    pub fn say(&mut self, name: &str, value: Toml, said: impl Into<String>) {
        self.lines.push(Line::Key { name: name.to_owned(), value, said: said.into() });
    }

    /// Gives a key another value; adds it where it is not there.
    pub fn replace(&mut self, wanted: &str, new: Toml, why: impl Into<String>) {
        let found = self.lines.iter_mut().find(|l| matches!(l, Line::Key { name, .. } if name == wanted));
        if let Some(Line::Key { value, said, .. }) = found {
            *value = new;
            *said = why.into();
        } else {
            self.say(wanted, new, why);
        }
    }

    /// Adds a remark on a line of its own.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Comment(text.into()));
    }

    /// Whether a key stands in it.
    #[must_use]
    pub fn has(&self, wanted: &str) -> bool {
        self.lines.iter().any(|l| matches!(l, Line::Key { name, .. } if name == wanted))
    }

    /// The text of a key.
    #[must_use]
    pub fn text_of(&self, wanted: &str) -> Option<&str> {
        self.lines.iter().find_map(|l| match l {
            Line::Key { name, value: Toml::Text(text), .. } if name == wanted => Some(text.as_str()),
            _ => None,
        })
    }

    /// The truth of a key.
    #[must_use]
    pub fn flag(&self, wanted: &str) -> Option<bool> {
        self.lines.iter().find_map(|l| match l {
            Line::Key { name, value: Toml::Bool(b), .. } if name == wanted => Some(*b),
            _ => None,
        })
    }

    /// The keys and values, to see whether two tables say the same.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Toml)> {
        let pair = |l: &Line| match l {
            Line::Key { name, value, .. } => Some((name.clone(), value.clone())),
            Line::Comment(_) => None,
        };
        self.lines.iter().filter_map(pair).collect()
    }

    /// Why the table would mean nothing to taskd, if it would not.
    #[must_use]
    pub fn refused(&self, around: &str) -> Option<String> {
        let faults = self.faults(around);
        faults
            .into_iter()
            .find(|(key, _)| self.essential.contains(&key.as_str()) || !self.has(key))
            .map(|(_, why)| why)
    }

    /// The table as it stands in the file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        self.show(&self.name, &mut lines);
        lines.join("\n")
    }

    fn header(&self, name: &str) -> String {
        match self.kind {
            "routes" => "[[routes]]".to_owned(),
            kind if name.is_empty() => format!("[{kind}]"),
            kind => format!("[{kind}.{}]", toml_value::key(name)),
        }
    }

    fn show(&self, name: &str, out: &mut Vec<String>) {
        out.push(self.header(name));
        for line in &self.lines {
            match line {
                Line::Comment(text) => {
                    out.extend(text.lines().map(|l| format!("# {}", toml_value::comment(l))))
                }
                Line::Key { name, value, said } if said.is_empty() => {
                    out.push(format!("{} = {}", toml_value::key(name), value.show()));
                }
                Line::Key { name, value, said } => {
                    let said = toml_value::comment(said);
                    out.push(format!("{} = {}  # {said}", toml_value::key(name), value.show()));
                }
            }
        }
    }

    /// What taskd's own check says of it, by key; what a later version brings is no fault of it.
    fn faults(&self, around: &str) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        self.show(&self.name, &mut lines);
        let text = format!("{}\n{around}", lines.join("\n"));
        let Err(report) = config::load_texts(&[("imported", &text)], &Env::elsewhere()) else {
            return Vec::new();
        };
        let prefix = match self.name.as_str() {
            "" => self.kind.to_owned(),
            name => format!("{}.{}", self.kind, toml_value::key(name)),
        };
        let of = |key: &str| -> Option<String> {
            let rest = key.strip_prefix(&prefix)?;
            let rest = rest.trim_start_matches(|c: char| c == '[' || c == ']' || c.is_ascii_digit());
            Some(rest.trim_start_matches('.').split('.').next().unwrap_or("").to_owned())
        };
        let faults = report.faults().iter().filter(|f| f.kind != FaultKind::NotYet);
        faults
            .map(|f| {
                let help = f.help.as_deref().filter(|h| !h.is_empty());
                let help = help.map(|h| format!("; {h}")).unwrap_or_default();
                (of(&f.key).unwrap_or_default(), format!("{}{help}", f.message))
            })
            .collect()
    }
}

/// The file being written.
#[derive(Clone, Debug)]
pub struct Document {
    command: &'static str,
    source: String,
    what: (&'static str, &'static str),
    remarks: Vec<String>,
    body: Vec<String>,
    entries: usize,
    left: usize,
}

impl Document {
    /// A file that `taskd import COMMAND` writes of a source; `what` is an entry, and several.
    pub fn new(command: &'static str, source: &str, what: (&'static str, &'static str)) -> Self {
        let source = source.to_owned();
        Self { command, source, what, remarks: Vec::new(), body: Vec::new(), entries: 0, left: 0 }
    }

    /// Counts an entry of the source.
    pub fn entry(&mut self) {
        self.entries += 1;
    }

    /// How many entries were counted.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// A sentence of the head of the file; said once.
    pub fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    /// A comment, line by line.
    pub fn comment(&mut self, text: &str) {
        if text.is_empty() {
            self.body.push("#".to_owned());
        }
        self.body.extend(text.lines().map(|l| format!("# {}", toml_value::comment(l)).trim_end().to_owned()));
    }

    /// A comment of the source, which has its own `#`.
    pub fn own_comment(&mut self, text: &str) {
        self.body.extend(text.lines().map(toml_value::comment));
    }

    /// An empty line, but never two.
    pub fn blank(&mut self) {
        if self.body.last().is_some_and(|l| !l.is_empty()) {
            self.body.push(String::new());
        }
    }

    /// Says of a part of the source that it was not carried over, and why. Counts it.
    pub fn left(&mut self, source: &str, why: &str) {
        self.left += 1;
        let mut lines = source.lines();
        let first = toml_value::comment(lines.next().unwrap_or_default());
        self.body.push(format!("# {LEFT}: {first}").trim_end().to_owned());
        for line in lines {
            self.body.push(format!("#   {}", toml_value::comment(line)).trim_end().to_owned());
        }
        self.body.extend(why.lines().map(|l| format!("#   why: {}", toml_value::comment(l))));
    }

    /// Writes a table as far as taskd's own check accepts it; `around` are tables that it speaks of. A key with a
    /// fault stands in a comment; where the table means nothing without it, the whole table does: then `false`.
    pub fn table(&mut self, table: &Table, around: &str) -> bool {
        let mut table = table.clone();
        let mut dropped: Vec<(String, String)> = Vec::new();
        loop {
            let faults = table.faults(around);
            let Some((key, why)) = faults.first().cloned() else { break };
            let position =
                table.lines.iter().position(|l| matches!(l, Line::Key { name, .. } if *name == key));
            let essential = table.essential.contains(&key.as_str());
            match position {
                Some(at) if !essential => {
                    let line = table.lines.remove(at);
                    if let Line::Key { name, value, said } = line {
                        let said = if said.is_empty() { String::new() } else { format!("  # {said}") };
                        dropped.push((format!("{name} = {}{said}", value.show()), why));
                    }
                }
                _ => {
                    self.left(&table.text(), &why);
                    for (line, why) in dropped {
                        self.left(&line, &why);
                    }
                    return false;
                }
            }
        }
        table.show(&table.name, &mut self.body);
        for (line, why) in dropped {
            self.left(&line, &why);
        }
        true
    }

    /// The finished file.
    #[must_use]
    pub fn finish(self) -> Imported {
        let (one, many) = self.what;
        let what = if self.entries == 1 { one } else { many };
        let rest = match self.left {
            0 => "everything was carried over".to_owned(),
            1 => format!("1 thing was not carried over: look for {LEFT:?}"),
            n => format!("{n} things were not carried over: look for {LEFT:?}"),
        };
        let summary = format!("{}: {} {what}; {rest}", self.source, self.entries);
        let mut head: Vec<String> = Vec::new();
        let first = format!("Written by `taskd import {}` from {}", self.command, self.source);
        head.extend(prose(&format!("{}: {} {what}; {rest}.", toml_value::comment(&first), self.entries)));
        for remark in &self.remarks {
            head.push("#".to_owned());
            head.extend(prose(remark));
        }
        let mut body = self.body;
        while body.last().is_some_and(String::is_empty) {
            body.pop();
        }
        if !body.is_empty() {
            head.push(String::new());
        }
        let text = format!("{}\n", head.into_iter().chain(body).collect::<Vec<_>>().join("\n"));
        Imported { text, entries: self.entries, left: self.left, summary, hint: None }
    }
}

/// A comment of several lines, none of them long.
fn prose(text: &str) -> Vec<String> {
    let mut lines = vec!["#".to_owned()];
    for word in toml_value::comment(text).split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
                lines.push(format!("# {word}"));
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_taskd_refuses_becomes_a_comment() {
        let mut doc = Document::new("crontab", "x", ("entry", "entries"));
        let mut table = Table::new("tasks", "a");
        table.set("command", Toml::text("true"));
        table.say("nice", Toml::Int(99), "nice -n 99");
        assert!(doc.table(&table, ""));
        let mut table = Table::new("tasks", "b");
        table.set("command", Toml::text("a\0b"));
        assert!(!doc.table(&table, ""));
        let done = doc.finish();
        assert_eq!(done.left, 2);
        assert!(
            done.text.contains("# NOT CARRIED OVER: nice = 99  # nice -n 99\n#   why: `nice` must be"),
            "{}",
            done.text
        );
        assert!(done.text.contains("# NOT CARRIED OVER: [tasks.b]\n#   command"), "{}", done.text);
        assert!(done.text.parse::<toml::Table>().is_ok());
    }

    #[test]
    fn the_head_counts() {
        let mut doc = Document::new("crontab", "/etc/crontab", ("entry", "entries"));
        doc.entry();
        doc.left("* * *", "too short");
        let done = doc.finish();
        assert_eq!(
            done.summary,
            "/etc/crontab: 1 entry; 1 thing was not carried over: look for \"NOT CARRIED OVER\""
        );
        assert!(done.text.lines().all(|l| l.chars().count() <= WIDTH), "{}", done.text);
    }
}
