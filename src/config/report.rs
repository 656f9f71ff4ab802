//! Everything that is wrong with a config, at once, each fault with its place.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

use super::credential::{self, Piece};
use super::tree::At;

/// More faults than this are counted, not shown: the file is no config then.
const MAX_SHOWN: usize = 500;

/// Class of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A file is missing or cannot be read.
    Unreadable,
    /// A file is not safe or not fit to be used.
    File,
    /// Not TOML.
    Syntax,
    /// No such key.
    UnknownKey,
    /// A value of the wrong type, form or range, or one that is missing.
    Value,
    /// Two settings that do not fit together, or a name of something that does not exist.
    Reference,
    /// A key or value whose function comes in a later version.
    NotYet,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its class.
    pub kind: FaultKind,
    /// The key's path, as `tasks.mail.time_limit`; empty where it is about no key.
    pub key: String,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// A word or two under the place.
    pub(super) label: String,
    pub(super) place: Place,
    /// Another place that has to do with it, and what.
    pub(super) also: Option<(At, String)>,
}

/// Where a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Somewhere in the text of a file.
    At(At),
    /// A file as a whole.
    File(String),
    /// No file: a flag, or what the machine lacks.
    Outside(String),
}

impl Fault {
    /// A fault at a place.
    pub(super) fn new(kind: FaultKind, at: &At, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::somewhere(kind, Place::At(at.clone()), key, message)
    }

    /// A fault at any [`Place`].
    pub(super) fn somewhere(
        kind: FaultKind,
        place: Place,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            key: key.into(),
            message: message.into(),
            help: None,
            label: String::new(),
            place,
            also: None,
        }
    }

    /// The same with advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with a word under the place.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same with a second place.
    pub(super) fn also(mut self, at: &At, what: impl Into<String>) -> Self {
        self.also = Some((at.clone(), what.into()));
        self
    }
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its name, as it is shown.
    pub(super) name: String,
    pub(super) text: String,
    /// Where each line but the first begins: every key is asked for its line.
    lines: Vec<usize>,
}

impl File {
    pub(super) fn new(name: String, text: String) -> Self {
        let lines = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Self { name, text, lines }
    }

    /// Line and column, from 1; the column counts characters.
    pub(super) fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.clamp(offset);
        let before = self.lines.partition_point(|start| *start <= offset);
        let start = before.checked_sub(1).and_then(|last| self.lines.get(last)).copied().unwrap_or(0);
        let on_line = self.text.get(start..offset).unwrap_or_default();
        (before + 1, on_line.chars().count() + 1)
    }

    /// The nearest character boundary at or before `offset`.
    fn clamp(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }

    /// The line that holds `offset`, without its newline.
    fn line(&self, offset: usize) -> Range<usize> {
        let offset = self.clamp(offset);
        let start = self.text.get(..offset).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let end = self.text.get(offset..).and_then(|t| t.find('\n')).map_or(self.text.len(), |i| offset + i);
        start..end.max(start)
    }

    /// One line of the file with what is marked on it; of a longer span only its first line.
    fn snippet(
        &self,
        span: &Range<usize>,
        kind: AnnotationKind,
        label: &str,
    ) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let line = self.line(span.start);
        let start = self.clamp(span.start).clamp(line.start, line.end);
        let end = self.clamp(span.end).clamp(start, line.end);
        let mark = kind.span(start - line.start..end - line.start);
        let mark = if label.is_empty() { mark } else { mark.label(label.to_owned()) };
        Snippet::source(mask(self.text.get(line.clone()).unwrap_or_default()))
            .line_start(self.line_column(line.start).0)
            .path(self.name.as_str())
            .annotation(mark)
    }
}

/// The line with the user and password of an address as asterisks, byte for byte so that places stay; the name of
/// a credential that stands for one is no secret.
fn mask(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("://") {
        let (head, tail) = rest.split_at(start + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(tail.len());
        let (address, after) = tail.split_at(end);
        let secret = address.rfind('@').unwrap_or(0);
        let hidden = address.get(..secret).unwrap_or_default();
        let pieces = credential::pieces(hidden).unwrap_or_else(|_| vec![Piece::Text(hidden)]);
        // An escaped reference is a text of another length than it is written in: all of it is hidden.
        let written: usize = pieces.iter().map(written_length).sum();
        if written == hidden.len() {
            for piece in pieces {
                match piece {
                    Piece::Text(text) => out.push_str(&"*".repeat(text.len())),
                    Piece::Credential(name) => out.push_str(&format!("${{credential:{name}}}")),
                }
            }
        } else {
            out.push_str(&"*".repeat(hidden.len()));
        }
        out.push_str(&mask_option(address.get(secret..).unwrap_or_default()));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The rest of an address with the password of the sentinels as asterisks.
fn mask_option(rest: &str) -> String {
    const OPTION: &str = "sentinel_password=";
    let Some((before, after)) = rest.split_once(OPTION) else { return rest.to_owned() };
    let (password, after) = after.find('&').map_or((after, ""), |end| after.split_at(end));
    let is_reference = password.starts_with("${credential:") && password.ends_with('}');
    let shown = if is_reference { password.to_owned() } else { "*".repeat(password.len()) };
    format!("{before}{OPTION}{shown}{after}")
}

fn written_length(piece: &Piece<'_>) -> usize {
    match piece {
        Piece::Text(text) => text.len(),
        Piece::Credential(name) => "${credential:}".len() + name.len(),
    }
}

/// Every fault of a config; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub(super) files: Vec<File>,
    pub(super) faults: Vec<Fault>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults, by file and line.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether every fault is a key or value that comes in a later version.
    #[must_use]
    pub fn is_only_not_yet(&self) -> bool {
        self.faults.iter().all(|f| f.kind == FaultKind::NotYet)
    }

    /// Whether a file is missing or cannot be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.faults.iter().any(|f| f.kind == FaultKind::Unreadable)
    }

    /// Orders the faults as a reader meets them, without repeats.
    pub(super) fn sort(&mut self) {
        self.faults.sort_by_key(|f| match &f.place {
            Place::At(at) => (at.file, at.span.start),
            Place::File(_) | Place::Outside(_) => (usize::MAX, 0),
        });
        self.faults.dedup();
    }

    /// All faults for people, each with its file, line, column, the line itself and what to do; ends with
    /// a newline. With `color`, ANSI escapes.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for fault in self.faults.iter().take(MAX_SHOWN) {
            out.push_str(&self.render_fault(fault, &renderer));
            out.push_str("\n\n");
        }
        let count = self.faults.len();
        if count > MAX_SHOWN {
            out.push_str(&format!("… and {} more\n\n", count - MAX_SHOWN));
        }
        match count {
            0 => out.push_str("no faults\n"),
            // One is seen without being counted.
            1 => drop(out.pop()),
            n => out.push_str(&format!("{n} faults\n")),
        }
        out
    }

    fn render_fault(&self, fault: &Fault, renderer: &Renderer) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(fault.message.as_str()));
        match &fault.place {
            Place::At(at) => {
                if let Some(file) = self.files.get(at.file) {
                    group = group.element(file.snippet(&at.span, AnnotationKind::Primary, &fault.label));
                }
            }
            // A message that names its place needs no line that names it again.
            Place::File(name) | Place::Outside(name) if fault.message.contains(name.as_str()) => {}
            Place::File(name) | Place::Outside(name) => group = group.element(Origin::path(name.as_str())),
        }
        if let Some((at, what)) = &fault.also
            && let Some(file) = self.files.get(at.file)
        {
            group = group.element(file.snippet(&at.span, AnnotationKind::Context, what));
        }
        if let Some(help) = &fault.help {
            group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }

    /// The faults as a list of `{file, line, column, key, message, help}`; what is unknown is null.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let list = self.faults.iter().map(|f| {
            let (file, place) = match &f.place {
                Place::At(at) => {
                    let file = self.files.get(at.file);
                    (file.map(|x| x.name.as_str()), file.map(|x| x.line_column(at.span.start)))
                }
                Place::File(name) => (Some(name.as_str()), None),
                Place::Outside(_) => (None, None),
            };
            json!({
                "file": file,
                "line": place.map(|p| p.0),
                "column": place.map(|p| p.1),
                "key": if f.key.is_empty() { Value::Null } else { f.key.clone().into() },
                "message": f.message,
                "help": f.help,
            })
        });
        Value::Array(list.collect())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, span: Range<usize>) -> Report {
        let at = At { file: 0, span };
        Report {
            files: vec![File::new("f.toml".into(), text.into())],
            faults: vec![Fault::new(FaultKind::Value, &at, "a.b", "is wrong").label("here").help("mend it")],
        }
    }

    #[test]
    fn a_fault_shows_its_line_and_what_to_do() {
        let r = report("x = 1\nü = \"öß\"\n", 11..17);
        assert_eq!(
            r.render(false),
            "error: is wrong\n --> f.toml:2:5\n  |\n2 | ü = \"öß\"\n  |     ^^^^ here\n  |\n  = help: mend it\n"
        );
        assert_eq!(
            r.to_json(),
            json!([{"file": "f.toml", "line": 2, "column": 5, "key": "a.b", "message": "is wrong", "help": "mend it"}])
        );
        assert!(r.render(true).contains("\u{1b}["));
    }

    #[test]
    fn no_span_is_too_wild_to_be_shown() {
        for (text, span) in
            [("", 0..0), ("", 7..9), ("ab\n", 3..3), ("ü", 1..1), ("a\nb\nc", 0..5), ("\n\n", 1..2)]
        {
            let r = report(text, span.clone());
            assert!(r.render(false).contains("f.toml"), "{text:?} {span:?}");
            let _ = r.to_json();
        }
    }
}
