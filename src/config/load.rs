//! Files -> [`Loaded`], or every fault at once.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::build::{self, Builder};
use super::check::Check;
use super::env::Env;
use super::origin::{Origin, Origins, show as show_origins};
use super::report::{Fault, FaultKind, File, Place, Report};
use super::settings::Settings;
use super::source::Source;
use super::tree::{self, At, Table, quote};

/// A config without a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The settings; their generation is 1.
    pub settings: Settings,
    /// Every effective value and where it came from.
    pub origins: Vec<Origin>,
    /// What is no fault and yet worth saying, a sentence each.
    pub notes: Vec<String>,
    /// The files that were read, in order.
    pub files: Vec<String>,
}

/// Reads and checks the config.
///
/// # Errors
/// Every fault at once: files, syntax, keys, values, references.
pub fn load(source: &Source, env: &Env) -> Result<Loaded, Report> {
    let mut faults = Vec::new();
    let mut notes = Vec::new();
    let files = source.read(env, &mut faults, &mut notes);
    let mut loaded = finish(files, faults, notes, env)?;
    let mut faults = Vec::new();
    settle(&mut loaded, source, &mut faults);
    let taskd = &mut loaded.settings.taskd;
    for (flag, key, value, place) in [
        ("--state-dir", "state_dir", &source.state_dir, &mut taskd.state_dir),
        ("--socket", "socket", &source.socket, &mut taskd.socket),
    ] {
        let Some(path) = value else { continue };
        if let Some(fault) = flag_fault(flag, key, path) {
            faults.push(fault);
        }
        place.clone_from(path);
        if let Some(o) = loaded.origins.iter_mut().find(|o| o.table == "[taskd]" && o.key == key) {
            o.value = quote(&path.display().to_string());
            o.file = Some(flag.to_owned());
            o.line = None;
        }
    }
    if faults.is_empty() { Ok(loaded) } else { Err(Report { files: Vec::new(), faults }) }
}

/// What a user's own taskd has where no file says otherwise: its places, and nobody's access but its owner's.
fn settle(loaded: &mut Loaded, source: &Source, faults: &mut Vec<Fault>) {
    if !source.home.is_user() {
        return;
    }
    let unsaid = |loaded: &mut Loaded, table: &str, key: &str, value: String| {
        let found = loaded.origins.iter_mut().find(|o| o.table == table && o.key == key);
        let Some(origin) = found.filter(|o| o.file.is_none()) else { return false };
        origin.value = value;
        true
    };
    let text = |path: &Path| quote(&path.display().to_string());
    let state_dir = source.home.state_dir();
    if unsaid(loaded, "[taskd]", "state_dir", text(state_dir)) {
        state_dir.clone_into(&mut loaded.settings.taskd.state_dir);
    }
    match source.home.socket() {
        Ok(socket) => {
            if unsaid(loaded, "[taskd]", "socket", text(socket)) {
                socket.clone_into(&mut loaded.settings.taskd.socket);
            }
        }
        Err(why) => {
            // The value of the system's is no place for this one, and is shown nowhere.
            let from_file = |o: &Origin| o.table == "[taskd]" && o.key == "socket" && o.file.is_some();
            if source.socket.is_none() && !loaded.origins.iter().any(from_file) {
                loaded.origins.retain(|o| o.table != "[taskd]" || o.key != "socket");
                if source.serves {
                    let place = Place::Outside("--user".to_owned());
                    faults.push(Fault::somewhere(FaultKind::Value, place, "taskd.socket", why));
                } else {
                    loaded.notes.push(why.to_owned());
                }
            }
        }
    }
    // The group of the system's taskd has no business with a user's.
    if unsaid(loaded, "[access]", "read", "[]".to_owned()) {
        loaded.settings.access.read.clear();
    }
    if unsaid(loaded, "[access]", "enqueue", "[]".to_owned()) {
        loaded.settings.access.enqueue.clear();
    }
}

/// Checks texts as if they were files of these names, later ones over earlier ones.
///
/// # Errors
/// Every fault at once.
pub fn load_texts(texts: &[(&str, &str)], env: &Env) -> Result<Loaded, Report> {
    let files = texts.iter().map(|(name, text)| File::new((*name).to_owned(), (*text).to_owned()));
    finish(files.collect(), Vec::new(), Vec::new(), env)
}

/// The effective values as TOML text; with `show_origin` each with where it came from.
#[must_use]
pub fn show(loaded: &Loaded, show_origin: bool) -> String {
    show_origins(&loaded.origins, show_origin)
}

/// The same as JSON: a list of `{table, key, value, file, line}`, the value as TOML text.
#[must_use]
pub fn show_json(loaded: &Loaded) -> serde_json::Value {
    serde_json::to_value(&loaded.origins).unwrap_or_default()
}

/// Why a path of the command line cannot be used.
fn flag_fault(flag: &str, key: &str, path: &Path) -> Option<Fault> {
    let message = if !path.is_absolute() {
        format!("{flag} is not an absolute path: {}", path.display())
    } else if key == "socket" && path.as_os_str().len() > super::kind::MAX_SOCKET_PATH {
        let bytes = path.as_os_str().len();
        let most = super::kind::MAX_SOCKET_PATH;
        format!("{flag} is too long: the path of a socket has at most {most} bytes, this one has {bytes}")
    } else {
        return None;
    };
    let place = Place::Outside(flag.to_owned());
    Some(Fault::somewhere(FaultKind::Value, place, format!("taskd.{key}"), message))
}

fn finish(files: Vec<File>, faults: Vec<Fault>, notes: Vec<String>, env: &Env) -> Result<Loaded, Report> {
    let mut check = Check { env, faults, unseen: BTreeSet::new() };
    let whole = check.faults.is_empty();
    let mut merged = Table::default();
    let mut broken: Vec<(usize, usize)> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let (table, syntax) = parse(file, index);
        for fault in &syntax {
            if let Place::At(at) = &fault.place {
                broken.push((index, file.line_column(at.span.start).0));
            }
        }
        check.faults.extend(syntax);
        merged.lay_over(table);
    }
    let parsed = check.faults.len();
    let built_in = build::built_in(&mut check);
    let sections = check.sections(&merged);
    if !broken.is_empty() {
        // The parser guesses what a broken line meant: what is wrong with its guess helps nobody.
        let on_broken_line = |f: &Fault| match &f.place {
            Place::At(at) => files
                .get(at.file)
                .is_some_and(|file| broken.contains(&(at.file, file.line_column(at.span.start).0))),
            Place::File(_) | Place::Outside(_) => false,
        };
        let mut index = 0;
        check.faults.retain(|f| {
            index += 1;
            index <= parsed || !on_broken_line(f)
        });
    }
    let mut built = None;
    // Names that a broken or unreadable file declares would be missed in vain.
    if broken.is_empty() && whole {
        let origins = Origins { files: &files, list: Vec::new() };
        let mut builder =
            Builder { check: &mut check, sections: &sections, built_in: &built_in, origins, notes };
        built = builder.settings().map(|s| (s, builder.origins.list, builder.notes));
    }
    let unseen = check.unseen_note();
    let mut report = Report { faults: check.faults, files };
    report.sort();
    if built.is_none() && report.is_empty() {
        // Only a broken list of keys leads here; a report without a fault would say nothing at all.
        let place = Place::Outside("taskd".to_owned());
        report.faults.push(Fault::somewhere(
            FaultKind::File,
            place,
            "",
            "the list of keys is broken: please report this",
        ));
    }
    match built {
        Some((settings, origins, mut notes)) if report.is_empty() => {
            notes.extend(unseen);
            let files = report.files.into_iter().map(|f| f.name).collect();
            Ok(Loaded { settings, origins, notes, files })
        }
        _ => Err(report),
    }
}

fn parse(file: &File, index: usize) -> (Table, Vec<Fault>) {
    let (table, errors) = toml::de::DeTable::parse_recoverable(&file.text);
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|e| {
            let end = file.text.len();
            let at = At { file: index, span: e.span().unwrap_or(end..end) };
            Fault::new(FaultKind::Syntax, &at, "", e.message())
        })
        .collect();
    let (table, deep) = tree::from_toml(table.get_ref(), index);
    faults.extend(deep.iter().map(|at| Fault::new(FaultKind::Syntax, at, "", "nested too deeply")));
    (table, faults)
}
