//! The house rules, kept by a test: floors, file lengths, forbidden names, unsafe code, the state diagram,
//! one file name per command. Every rule is a function over text, so that each can be shown to fail.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rooms of `src/` and the floor each stands on; a room imports only from floors below its own.
const FLOORS: &[(&str, u32)] = &[
    ("model", 0),
    ("cron", 0),
    ("engine", 1),
    ("celery", 1),
    ("config", 1),
    ("link", 2),
    ("observe", 2),
    ("broker", 3),
    ("process", 3),
    ("control", 3),
    ("web", 4),
    ("daemon", 5),
    ("cli", 6),
];

/// The one import within a floor: planned times are points on the model's clock, and the model names no cron.
const BESIDE: &[(&str, &str)] = &[("cron", "model")];

/// Only these rooms may import the engine.
const ENGINE_USERS: &[&str] = &["daemon"];

/// Longest source file, in lines.
const MAX_LINES: usize = 600;

/// Module names that say nothing about what stands in them.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "types", "misc", "errors"];

/// What makes a pure room impure.
const IMPURE: &[&str] = &[
    "tokio",
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "rand",
    "RandomState",
    "now_v7",
    "new_v4",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
];

/// Commands with a file in each room.
const WHOLE: &str = "workflow show enqueue result status list logs cancel retry dead queues rate pause purge \
                     reload drain stop why tasks schedules notify store";

/// Commands and the rooms in which they have no file of their own, with the reason.
const PARTIAL: &[(&str, &[&str])] = &[
    ("run", &["handle"]),        // starts the daemon instead of asking it
    ("check", &["handle"]),      // reads the file only
    ("config", &["handle"]),     // reads the file only
    ("exec", &["handle"]),       // runs without the daemon
    ("import", &["handle"]),     // reads other programs' files, writes text
    ("openapi", &["handle"]),    // prints a text that is compiled in
    ("completion", &["handle"]), // prints a text that is compiled in; what it asks are other commands' questions
    ("chain", &["handle"]),      // launches a workflow, as the next two do: the request is workflow's
    ("group", &["handle"]),
    ("chord", &["handle"]),
    ("graph", &["handle"]),        // draws what show and workflow answer
    ("resume", &["handle", "it"]), // pause's other half: the same request with `paused = false`
];

/// Every command with the rooms in which it has no file.
fn commands() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    WHOLE.split_whitespace().map(|name| (name, &[][..])).chain(PARTIAL.iter().copied())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files under `dir` (relative to the clone) that are part of the project, with their text.
fn files(dir: &str, keep: &dyn Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(dir)];
    while let Some(at) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            if matches!(name.as_str(), "target" | ".git" | ".cache") {
                continue;
            }
            if path.is_dir() {
                todo.push(path);
            } else if keep(&path)
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

fn rust_files(dir: &str) -> Vec<(String, String)> {
    files(dir, &|p| p.extension().is_some_and(|e| e == "rs"))
}

/// The code of a Rust file: comments, strings and characters are blanked, line breaks stay.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut i = 0;
    while i < chars.len() {
        let word_before = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..).find(|&j| matches!(at(j), '\n' | '\0')).unwrap(),
            ('/', '*') => {
                let (mut depth, mut j) = (1, i + 2);
                while depth > 0 && j < chars.len() {
                    match (at(j), at(j + 1)) {
                        ('/', '*') => (depth, j) = (depth + 1, j + 2),
                        ('*', '/') => (depth, j) = (depth - 1, j + 2),
                        _ => j += 1,
                    }
                }
                j
            }
            ('r', '"' | '#') if !word_before => {
                let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
                if at(i + 1 + hashes) == '"' {
                    let mut j = i + 2 + hashes;
                    while j < chars.len() && !(at(j) == '"' && (1..=hashes).all(|h| at(j + h) == '#')) {
                        j += 1;
                    }
                    j + 1 + hashes
                } else {
                    i // a raw identifier
                }
            }
            ('"', _) => {
                let mut j = i + 1;
                while j < chars.len() && at(j) != '"' {
                    j += if at(j) == '\\' { 2 } else { 1 };
                }
                j + 1
            }
            ('\'', '\\') => (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            out.push(at(i));
            i += 1;
        } else {
            out.extend((i..end.min(chars.len())).map(|j| if at(j) == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// Identifiers, `::` and single punctuation marks of code, each with its line number.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    for (n, line) in code.lines().enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if c.is_alphanumeric() || c == '_' {
                let mut word = String::from(c);
                while let Some(&d) = chars.peek().filter(|d| d.is_alphanumeric() || **d == '_') {
                    word.push(d);
                    chars.next();
                }
                out.push((n + 1, word));
            } else if c == ':' && chars.peek() == Some(&':') {
                chars.next();
                out.push((n + 1, "::".into()));
            } else if !c.is_whitespace() {
                out.push((n + 1, c.into()));
            }
        }
    }
    out
}

/// First path elements below the crate's root that a file names, with their lines: `crate::a::b`,
/// `crate::{a, b::c}`, `use taskd::a`, and `super::` chains that reach the root.
fn rooms_named(file: &str, text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(&code_of(text));
    let word = |i: usize| tokens.get(i).map_or("", |t| t.1.as_str());
    // How deep the file's module stands: src/model/state.rs is model::state.
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let file_depth = if inside == "lib" || inside == "main" { 0 } else { inside.split('/').count() };
    let (mut braces, mut mods, mut out) = (0_usize, Vec::new(), Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        let start = i;
        match word(i) {
            "{" => {
                braces += 1;
                if i >= 2 && word(i - 2) == "mod" {
                    mods.push(braces);
                }
            }
            "}" => {
                if mods.last() == Some(&braces) {
                    mods.pop();
                }
                braces = braces.saturating_sub(1);
            }
            "super" => {
                let mut supers = 1;
                while word(i + 1) == "::" && word(i + 2) == "super" {
                    (supers, i) = (supers + 1, i + 2);
                }
                if supers >= file_depth + mods.len() && word(i + 1) == "::" {
                    out.extend(first_elements(&tokens, i + 2));
                }
            }
            "crate" | "taskd" if word(i + 1) == "::" && (start == 0 || word(start - 1) != "::") => {
                out.extend(first_elements(&tokens, i + 2));
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// The first element, or those of a `{…}` group, at token `i`.
fn first_elements(tokens: &[(usize, String)], i: usize) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    match tokens.get(i) {
        Some((_, t)) if t == "{" => {
            let (mut depth, mut j, mut fresh) = (1, i + 1, true);
            while depth > 0 {
                let Some((line, t)) = tokens.get(j) else { break };
                match t.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    "," if depth == 1 => fresh = true,
                    name if depth == 1 && fresh => {
                        fresh = false;
                        out.push((*line, name.to_owned()));
                    }
                    _ => {}
                }
                j += 1;
            }
        }
        Some(t) => out.push(t.clone()),
        None => {}
    }
    out
}

fn floor_of(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Imports that go up or sideways.
fn floor_faults(file: &str, text: &str) -> Vec<String> {
    let inside = file.trim_start_matches("src/");
    let Some((room, _)) = inside.split_once('/') else {
        // The top level: the library only declares rooms, the binary only enters the uppermost.
        return rooms_named(file, text)
            .into_iter()
            .filter(|(_, to)| to != "cli")
            .map(|(line, to)| format!("{file}:{line}: the top level may only enter cli, not {to}"))
            .collect();
    };
    let Some(floor) = floor_of(room) else {
        return vec![format!("{file}: room {room} stands on no floor; add it to FLOORS")];
    };
    let mut faults = Vec::new();
    for (line, to) in rooms_named(file, text) {
        match floor_of(&to) {
            _ if to == room || BESIDE.contains(&(room, to.as_str())) => {}
            Some(below) if below >= floor => {
                faults.push(format!("{file}:{line}: {room} (F{floor}) imports {to} (F{below})"));
            }
            Some(_) if to == "engine" && !ENGINE_USERS.contains(&room) => {
                faults.push(format!("{file}:{line}: only {ENGINE_USERS:?} may import the engine"));
            }
            Some(_) => {}
            None => {
                faults.push(format!("{file}:{line}: {to} is no room: nothing stands at the crate's root"))
            }
        }
    }
    faults
}

/// Whether `needle` (words joined by `::`) stands in code as whole words.
fn names(text: &str, needle: &str) -> Option<usize> {
    let tokens = tokens(&code_of(text));
    let wanted: Vec<String> = self::tokens(needle).into_iter().map(|t| t.1).collect();
    tokens
        .windows(wanted.len())
        .find(|w| w.iter().map(|t| &t.1).eq(wanted.iter()))
        .and_then(|w| w.first())
        .map(|t| t.0)
}

fn purity_faults(file: &str, text: &str) -> Vec<String> {
    IMPURE
        .iter()
        .filter_map(|word| names(text, word).map(|n| format!("{file}:{n}: {word} in a pure room")))
        .collect()
}

fn unsafe_faults(file: &str, text: &str) -> Vec<String> {
    if file.starts_with("src/process/") {
        return Vec::new();
    }
    // `unsafe_code` is another word, so lib.rs may deny it.
    let allowed = names(text, "allow(unsafe_code)").or_else(|| names(text, "unsafe"));
    allowed.map(|n| format!("{file}:{n}: unsafe code stands only in src/process/")).into_iter().collect()
}

fn name_faults(file: &str) -> Option<String> {
    let bad = file.trim_end_matches(".rs").split('/').find(|part| EMPTY_NAMES.contains(part))?;
    Some(format!("{file}: {bad} says nothing about what stands in it"))
}

fn length_faults(file: &str, text: &str) -> Option<String> {
    let n = text.lines().count();
    (n > MAX_LINES).then(|| format!("{file}: {n} lines, at most {MAX_LINES}; split it by noun"))
}

/// Words that must not leave a workshop. Written apart, so that this file does not name them.
fn forbidden() -> Vec<String> {
    [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["/wo", "rk/"],
        ["/tmp", "/wt"],
        ["../sha", "red"],
        ["/root", "/."],
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["registry.npm", "js"],
        ["files.python", "hosted"],
        ["proxy.gol", "ang"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect()
}

fn word_faults(file: &str, text: &str, words: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (n, line) in text.lines().enumerate() {
        faults.extend(
            words.iter().filter(|w| line.contains(*w)).map(|w| format!("{file}:{}: names {w}", n + 1)),
        );
    }
    faults
}

/// The moves a fenced block of `A -> B` lines draws, with every name in it.
fn diagram(markdown: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut moves, mut names, mut fenced) = (BTreeSet::new(), BTreeSet::new(), false);
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let upper = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_uppercase());
        if fenced && let Some((from, to)) = line.split_once("->") {
            let (from, to) = (from.trim(), to.split_whitespace().next().unwrap_or(""));
            if upper(from) && upper(to) {
                moves.insert((from.to_owned(), to.to_owned()));
                names.extend([from.to_owned(), to.to_owned()]);
            }
        }
    }
    (moves, names)
}

/// Paths of this repository that a text names between backticks or as a link's target.
fn paths_named(markdown: &str) -> Vec<String> {
    const TOPS: &[&str] = &["src/", "config/", "packaging/", "systemd/", "tests/", "benches/", ".ci/"];
    let links = markdown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let spans = markdown.split('`').skip(1).step_by(2);
    links
        .chain(spans.flat_map(str::split_whitespace))
        .map(|p| p.trim_start_matches("./").trim_end_matches(['.', ',', ';', ':']))
        .filter(|p| TOPS.iter().any(|top| p.starts_with(top)) && !p.contains(['*', '<', '…', '$']))
        .map(str::to_owned)
        .collect()
}

/// The commands that a help text lists.
fn commands_of_help(help: &str) -> BTreeSet<String> {
    let body = help.split("Commands:\n").nth(1).unwrap_or("");
    body.lines()
        .take_while(|l| !l.trim().is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_go_down() {
    assert_none(rust_files("src").iter().flat_map(|(f, t)| floor_faults(f, t)).collect());
}

#[test]
fn rooms_and_files_have_names_and_sizes() {
    let all: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|d| rust_files(d)).collect();
    assert!(all.len() > 10, "the walk found nothing");
    assert_none(
        all.iter().flat_map(|(f, t)| name_faults(f).into_iter().chain(length_faults(f, t))).collect(),
    );
}

#[test]
fn pure_rooms_are_pure() {
    let pure = ["src/model", "src/cron", "src/engine", "src/celery"]
        .iter()
        .flat_map(|d| rust_files(d))
        .collect::<Vec<_>>();
    assert_none(pure.iter().flat_map(|(f, t)| purity_faults(f, t)).collect());
}

#[test]
fn unsafe_code_stands_in_one_room() {
    assert_none(rust_files("src").iter().flat_map(|(f, t)| unsafe_faults(f, t)).collect());
}

#[test]
fn nothing_names_a_workshop() {
    let words = forbidden();
    let text = files("", &|p| p.file_name().is_some_and(|n| n != "Cargo.lock"));
    assert_none(text.iter().flat_map(|(f, t)| word_faults(f, t, &words)).collect());
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    assert_none(
        lock.lines().filter(|l| l.starts_with("source") && *l != source).map(str::to_owned).collect(),
    );
}

#[test]
fn the_map_shows_every_room_and_the_diagram_every_move() {
    let Ok(map) = std::fs::read_to_string(root().join("src/ARCHITECTURE.md")) else {
        return println!("src/ARCHITECTURE.md is not written yet");
    };
    let mut faults = Vec::new();
    for (file, _) in rust_files("src") {
        for dir in Path::new(&file).ancestors().skip(1).filter(|d| d.components().count() > 1) {
            let name = format!("{}/", dir.strip_prefix("src").unwrap().display());
            if !map.contains(&name) {
                faults.push(format!("{name} is not on the map"));
            }
        }
    }
    let (moves, drawn) = diagram(&map);
    let model: BTreeSet<_> =
        taskd::model::state::MOVES.iter().map(|(a, b)| (a.name().to_owned(), b.name().to_owned())).collect();
    let named: BTreeSet<_> = taskd::model::state::ALL.iter().map(|s| s.name().to_owned()).collect();
    faults.extend(model.difference(&moves).map(|(a, b)| format!("{a} -> {b} is not drawn")));
    faults.extend(moves.difference(&model).map(|(a, b)| format!("{a} -> {b} is drawn and does not exist")));
    faults.extend(named.symmetric_difference(&drawn).map(|s| format!("{s} stands in only one of the two")));
    faults.sort();
    faults.dedup();
    assert_none(faults);
}

#[test]
fn one_command_has_one_name_everywhere() {
    if !root().join("src/cli/run.rs").exists() {
        return println!("the commands are not written yet");
    }
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_taskd")).arg("--help").output().unwrap();
    let shown = commands_of_help(&String::from_utf8_lossy(&out.stdout));
    let listed: BTreeSet<_> = commands().map(|(name, _)| name.to_owned()).collect();
    let mut faults: Vec<_> = shown
        .symmetric_difference(&listed)
        .map(|c| format!("{c}: only in --help or only in tests/tidy.rs"))
        .collect();
    for (room, dir) in [("cli", "src/cli"), ("handle", "src/daemon/handle"), ("it", "tests/it")] {
        for (name, without) in commands() {
            let there = [format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")]
                .iter()
                .any(|p| root().join(p).exists());
            match (there, without.contains(&room)) {
                (false, false) => faults.push(format!("{dir}/{name}.rs is missing")),
                (true, true) => faults.push(format!("{dir}/{name}.rs exists and tests/tidy.rs excepts it")),
                _ => {}
            }
        }
    }
    assert_none(faults);
}

#[test]
fn the_readme_names_paths_that_exist() {
    let Ok(readme) = std::fs::read_to_string(root().join("README.md")) else {
        return println!("README.md is not written yet");
    };
    assert_none(paths_named(&readme).into_iter().filter(|p| !root().join(p).exists()).collect());
}

#[cfg(test)]
mod checkers {
    use super::*;

    #[test]
    fn an_import_upwards_or_sideways_is_found_wherever_it_hides() {
        for (file, text) in [
            ("src/model/a.rs", "use crate::engine::event::Event;"),
            ("src/engine/a.rs", "use crate::config::settings::Settings;"),
            ("src/process/a.rs", "fn f() { let x: crate::control::api::Peer; }"),
            ("src/model/a.rs", "use crate::cron::Timing;"),
            ("src/process/a.rs", "use crate::{model::task::Task, control::{api::Peer, server}};"),
            ("src/broker/sqlite.rs", "use super::super::daemon::x;"),
            ("src/broker/mod.rs", "use super::daemon;"),
            ("src/broker/sqlite/a.rs", "mod tests { use super::super::super::super::cli; }"),
            ("src/control/a.rs", "use crate::engine::command::Told;"),
            ("src/attic/a.rs", ""),
            ("src/cli/a.rs", "use crate::Thing;"),
            ("src/main.rs", "fn main() { taskd::daemon::main() }"),
        ] {
            assert!(!floor_faults(file, text).is_empty(), "{file}: {text}");
        }
        for (file, text) in [
            ("src/daemon/a.rs", "use crate::engine::event::Event; use crate::control::api;"),
            ("src/control/a.rs", "// use crate::daemon;\nconst X: &str = \"crate::daemon\"; use super::api;"),
            ("src/model/a.rs", "mod tests { use super::super::name; }"),
            ("src/cron/a.rs", "use crate::model::time::Wall;"),
            ("src/broker/sqlite.rs", "use crate::{model::{op::Op, state}, broker::model};"),
            ("src/main.rs", "fn main() { taskd::cli::main() }"),
        ] {
            assert_eq!(floor_faults(file, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn text_is_told_from_code() {
        let text = "a /* x /* y */ z */ b \"s\\\"t\" c r#\"u\"v\"# d '\"' e '\\'' f<'l> // g\nh r#type";
        assert_eq!(
            code_of(text).split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "c", "d", "e", "f<'l>", "h", "r#type"]
        );
    }

    #[test]
    fn impure_and_unsafe_code_is_found() {
        assert_eq!(purity_faults("f", "use std::collections::HashMap;").len(), 1);
        assert_eq!(purity_faults("f", "let t = std::time::Instant::now(); std::fs::read(p)").len(), 2);
        assert_eq!(purity_faults("f", "// HashMap\nlet operand = \"rand\";"), Vec::<String>::new());
        assert_eq!(unsafe_faults("src/cli/a.rs", "fn f() { unsafe { g() } }").len(), 1);
        assert_eq!(unsafe_faults("src/cli/a.rs", "#![allow(unsafe_code)]").len(), 1);
        assert!(unsafe_faults("src/lib.rs", "#![deny(unsafe_code)]").is_empty());
        assert!(unsafe_faults("src/process/a.rs", "unsafe { g() }").is_empty());
    }

    #[test]
    fn names_sizes_and_words_are_found() {
        assert!(name_faults("src/model/utils.rs").is_some() && name_faults("src/common/mod.rs").is_some());
        assert!(name_faults("src/model/task.rs").is_none());
        assert!(length_faults("f", &"\n".repeat(601)).is_some());
        assert!(length_faults("f", &"\n".repeat(600)).is_none());
        for word in forbidden() {
            assert_eq!(word_faults("f", &format!("ok\nx {word} y"), &forbidden()).len(), 1, "{word}");
        }
    }

    #[test]
    fn diagrams_paths_and_help_are_read() {
        let (moves, names) = diagram("A -> B\n```text\nRETRY -> WAITING  its time came\nx -> y\n```\nC -> D");
        assert_eq!(moves.into_iter().collect::<Vec<_>>(), [("RETRY".to_owned(), "WAITING".to_owned())]);
        assert_eq!(names.len(), 2);
        assert_eq!(
            paths_named(
                "see `src/model/state.rs`, [x](tests/tidy.rs), `target/x`, `config/*.toml` `ls ./systemd/`"
            ),
            ["tests/tidy.rs", "src/model/state.rs", "systemd/"]
        );
        let help = "taskd\n\nCommands:\n  run      start\n  enqueue  add\n           more\n  help  x\n\nOptions:\n  -h";
        assert_eq!(commands_of_help(help).into_iter().collect::<Vec<_>>(), ["enqueue", "run"]);
    }
}
