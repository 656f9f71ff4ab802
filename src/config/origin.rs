//! The effective values and where each came from, and how they are shown.

use serde::Serialize;

use super::build::Layers;
use super::keys::When;
use super::report::File;
use super::section::Set;

/// One effective value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The table's header, as `[tasks.mail]`.
    pub table: String,
    /// The key.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// The file that says it, or the flag of the command line; absent: it is the default.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<usize>,
}

impl Origin {
    /// `FILE:LINE`, the flag, or `default`.
    #[must_use]
    pub fn source(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(flag), None) => flag.clone(),
            (None, _) => "default".to_owned(),
        }
    }
}

/// Collects [`Origin`]s.
pub(super) struct Origins<'a> {
    pub(super) files: &'a [File],
    pub(super) list: Vec<Origin>,
}

impl Origins<'_> {
    /// Every key of a table that has a value. `dynamic` says the defaults that depend on other settings or
    /// on the machine; an empty one has no value.
    pub(super) fn table(&mut self, header: &str, at: &Layers<'_>, dynamic: &[(&str, String)]) {
        for key in at.built_in.spec.keys.iter().filter(|k| k.when == When::Now) {
            let found = dynamic.iter().find(|(k, _)| *k == key.name).map(|(_, v)| v.clone());
            let fallback = || found.or_else(|| at.built_in.get(key.name).map(|s: &Set| s.shown.clone()));
            let (value, place) = match at.set(key.name) {
                Some(set) => (set.shown.clone(), Some(&set.key_at)),
                None => (fallback().unwrap_or_default(), None),
            };
            if value.is_empty() {
                continue;
            }
            let place =
                place.and_then(|p| self.files.get(p.file).map(|f| (f, f.line_column(p.span.start).0)));
            self.list.push(Origin {
                table: header.to_owned(),
                key: key.name.to_owned(),
                value,
                file: place.map(|(f, _)| f.name.clone()),
                line: place.map(|(_, line)| line),
            });
        }
    }

    /// Leaves out keys of a table that was just added: they mean nothing there, and would be refused if they were read back.
    pub(super) fn without(&mut self, header: &str, keys: &[&str]) {
        self.list.retain(|o| o.table != header || !keys.contains(&o.key.as_str()));
    }

    /// Leaves out all keys of a table that was just added but these.
    pub(super) fn without_but(&mut self, header: &str, keys: &[&str]) {
        self.list.retain(|o| o.table != header || keys.contains(&o.key.as_str()));
    }

    /// Another value for a key that was just added.
    pub(super) fn replace(&mut self, header: &str, key: &str, value: String) {
        if let Some(origin) = self.list.iter_mut().rev().find(|o| o.table == header && o.key == key) {
            origin.value = value;
        }
    }
}

/// The effective values as TOML, with where each came from as a comment beside it.
pub(super) fn show(origins: &[Origin], show_origin: bool) -> String {
    let name = origins.iter().map(|o| o.key.len()).max().unwrap_or(0);
    // One very long value must not push the comments of all others off the screen.
    let width = |o: &Origin| o.value.chars().count();
    let value = origins.iter().map(width).filter(|w| *w <= 40).max().unwrap_or(0);
    let mut out = String::new();
    let mut table = "";
    let mut seen = "";
    for o in origins {
        // Each `[[routes]]` begins anew where its first key comes again.
        if o.table != table || (o.table.starts_with("[[") && o.key == seen) {
            out.push_str(if out.is_empty() { "" } else { "\n" });
            out.push_str(&format!("{}\n", o.table));
            table = &o.table;
            seen = &o.key;
        }
        if show_origin {
            let pad = " ".repeat(value.saturating_sub(width(o)));
            out.push_str(&format!("{:name$} = {}{pad}  # {}\n", o.key, o.value, o.source()));
        } else {
            out.push_str(&format!("{:name$} = {}\n", o.key, o.value));
        }
    }
    out
}
