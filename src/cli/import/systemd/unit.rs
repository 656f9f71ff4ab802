//! Unit files as systemd.syntax(7) says: sections, assignments, lines that go on, comments.

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section, without brackets.
    pub section: String,
    /// Its name.
    pub key: String,
    /// Its value, lines that go on joined by blanks.
    pub value: String,
    /// It was overridden by a later one, or taken back by an empty one.
    pub gone: bool,
}

impl Setting {
    /// As it is written.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}={}", self.key, self.value)
    }
}

/// A unit: its own file, then its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Every assignment, in order.
    pub settings: Vec<Setting>,
    /// Lines that are none, and lines outside of a section.
    pub odd: Vec<String>,
}

/// Settings that may be given many times, each adding to those before it.
const LISTS: &[&str] = &[
    "OnCalendar",
    "OnActiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "ExecStart",
    "ExecStartPre",
    "ExecStartPost",
    "ExecCondition",
    "ExecReload",
    "ExecStop",
    "ExecStopPost",
    "Environment",
    "EnvironmentFile",
    "PassEnvironment",
    "ReadWritePaths",
    "SuccessExitStatus",
    "SupplementaryGroups",
    "OnFailure",
    "OnSuccess",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
];

/// Settings whose own list is emptied by an empty value.
fn is_list(key: &str) -> bool {
    LISTS.contains(&key) || key.starts_with("Condition") || key.starts_with("Assert")
}

impl Unit {
    /// Reads a file and lays it over what is there.
    pub fn read(&mut self, text: &str) {
        let mut section = String::new();
        let mut joined = String::new();
        for raw in text.lines() {
            let line = raw.trim_matches([' ', '\t', '\r']);
            // A comment within a line that goes on is passed over.
            if line.starts_with(['#', ';']) || (line.is_empty() && joined.is_empty()) {
                continue;
            }
            if let Some(start) = line.strip_suffix('\\') {
                joined.push_str(start);
                joined.push(' ');
                continue;
            }
            let whole = format!("{joined}{line}");
            joined.clear();
            self.line(whole.trim(), &mut section);
        }
        if !joined.is_empty() {
            self.line(joined.trim(), &mut section);
        }
    }

    fn line(&mut self, line: &str, section: &mut String) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(section);
            return;
        }
        match line.split_once('=') {
            Some((key, value)) if !section.is_empty() && !key.trim().is_empty() => {
                self.set(section, key.trim(), value.trim());
            }
            _ => self.odd.push(line.to_owned()),
        }
    }

    fn set(&mut self, section: &str, key: &str, value: &str) {
        // On…Sec= and OnCalendar= are one list: an empty one of them takes all of them back.
        let timer = |k: &str| k == "OnCalendar" || (k.starts_with("On") && k.ends_with("Sec"));
        let empties = value.is_empty();
        for old in self.settings.iter_mut().filter(|s| s.section == section) {
            let same = old.key == key || (empties && timer(key) && timer(&old.key));
            old.gone |= same && (empties || !is_list(key));
        }
        let setting =
            Setting { section: section.into(), key: key.into(), value: value.into(), gone: empties };
        self.settings.push(setting);
    }

    /// The last value of a setting.
    #[must_use]
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        let of = |s: &&Setting| !s.gone && s.section == section && s.key == key;
        self.settings.iter().rfind(of).map(|s| s.value.as_str())
    }

    /// Every value of a setting.
    pub fn all<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a Setting> {
        self.settings.iter().filter(move |s| !s.gone && s.section == section && s.key == key)
    }
}

/// `yes`, `true`, `on`, `1` and their opposites.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lines_that_go_on_and_drop_ins() {
        let mut unit = Unit::default();
        unit.read("# c\n[Timer]\nOnCalendar=daily\n OnBootSec = 5min\n; c\n[Service]\nExecStart=/a \\\n# c\n  b \\\n c\nnonsense\nNice=1\n");
        assert_eq!(unit.get("Service", "ExecStart"), Some("/a  b  c"));
        assert_eq!(unit.odd, ["nonsense"]);
        unit.read("[Timer]\nOnCalendar=\nOnCalendar=hourly\nOnCalendar=weekly\n[Service]\nNice=2\n");
        let times: Vec<&str> = unit.all("Timer", "OnCalendar").map(|s| s.value.as_str()).collect();
        assert_eq!(times, ["hourly", "weekly"]);
        assert_eq!(unit.get("Timer", "OnBootSec"), None);
        assert_eq!(unit.get("Service", "Nice"), Some("2"));
        assert_eq!((boolean("Yes"), boolean("off"), boolean("strict")), (Some(true), Some(false), None));
    }
}
