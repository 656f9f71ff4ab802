//! What can stand at a place: words of the grammar, values that go by their names in `--help`, and names that
//! the running daemon knows.

use clap::{Arg, Command};

use super::asked::{Asked, Param};
use super::place::{Place, Wanted};
use super::words::Typed;
use super::{Answer, Candidate};
use crate::model::state;

/// Durations that are worth offering; any other one may be typed.
const DURATIONS: &[&str] = &["30s", "1m", "5m", "10m", "30m", "1h", "6h", "1d", "1w"];

/// Causes of an end that a dead letter may have.
const CAUSES: &[&str] =
    &["worker_lost", "exit", "signal", "error", "time_limit", "memory", "spawn_failed", "rejected"];
/// Rates that are worth offering, and the words that stand for one.
const RATES: &[&str] = &["none", "default", "1/s", "10/s", "1/m", "10/m", "100/h", "1000/d"];

/// What a value is, by its name in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Task,
    /// A task, and what belongs to its step.
    Steps,
    Workflow,
    Queue,
    Schedule,
    Message,
    State,
    Cause,
    Duration,
    Zone,
    /// Arguments of the task that was named.
    Pair,
    /// A number of a message's priority.
    Priority,
    /// How often something starts.
    Rate,
    File,
    Directory,
    /// Nobody knows what.
    Free,
}

/// The names of values that clap does not know the words of; a test looks that none is missing.
fn kind(arg: &Arg) -> Option<Kind> {
    let name = arg.get_value_names().and_then(|n| n.first()).map(|n| n.as_str())?;
    Some(match name {
        "NAME" | "TASK" => Kind::Task,
        "STEPS" => Kind::Steps,
        "WORKFLOW" | "WORKFLOW|ID" => Kind::Workflow,
        "QUEUE" => Kind::Queue,
        "SCHEDULE" => Kind::Schedule,
        // As an option it is the id of something new.
        "ID" if arg.is_positional() => Kind::Message,
        "STATE" => Kind::State,
        "CAUSE" => Kind::Cause,
        "DURATION" | "DURATION|TIME" => Kind::Duration,
        "ZONE" => Kind::Zone,
        "KEY=VALUE" => Kind::Pair,
        "N" if arg.get_id() == "priority" => Kind::Priority,
        "RATE" => Kind::Rate,
        "PATH" | "FILE" | "POSITIONAL" | "UNIT" => Kind::File,
        "DIR" => Kind::Directory,
        "ID" | "TIME" | "JSON" | "N" | "EXPR" | "USER" => Kind::Free,
        _ => return None,
    })
}

/// What fits this place.
pub fn at(place: &Place<'_>, typed: &Typed) -> Answer {
    match &place.wanted {
        Wanted::Value(arg, before) => value(place, typed, arg, before),
        Wanted::Subcommand => Answer::Values(subcommands(place.command)),
        Wanted::Option => Answer::Values(options(place, &typed.current)),
        Wanted::Nothing => Answer::Values(Vec::new()),
    }
}

fn subcommands(command: &Command) -> Vec<Candidate> {
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    shown.map(|c| Candidate::new(c.get_name(), text(c.get_about()))).collect()
}

/// Its own options first, then those of every command.
fn options(place: &Place<'_>, current: &str) -> Vec<Candidate> {
    let mut offered: Vec<&Arg> = place.command.get_opts().chain(flags(place.command)).collect();
    offered.retain(|a| place.takes(a));
    offered.sort_by_key(|a| (a.get_id() == "help" || a.get_id() == "version", a.is_global_set()));
    let mut all: Vec<Candidate> = Vec::new();
    for arg in offered {
        let about = text(arg.get_help());
        if let Some(long) = arg.get_long() {
            all.push(Candidate::new(format!("--{long}"), about));
        } else if let Some(short) = arg.get_short() {
            all.push(Candidate::new(format!("-{short}"), about));
        }
    }
    // A short one that is there already is complete as it is.
    let is_short = |a: &&Arg| a.get_short().is_some_and(|s| current == format!("-{s}"));
    if let Some(arg) = place.command.get_arguments().find(is_short) {
        all.push(Candidate::new(current, text(arg.get_help())));
    }
    all
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|a| !a.is_positional() && !a.get_action().takes_values())
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled.map(|s| s.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn value(place: &Place<'_>, typed: &Typed, arg: &Arg, before: &str) -> Answer {
    let possible: Vec<Candidate> = arg
        .get_possible_values()
        .iter()
        .filter(|v| !v.is_hide_set())
        .map(|v| Candidate::new(v.get_name(), text(v.get_help())))
        .collect();
    let mut values = if possible.is_empty() {
        let ask = || Asked::new(place, typed);
        match kind(arg).unwrap_or(Kind::Free) {
            Kind::Task if place.command.get_name() == "rate" && place.used.contains("queue") => {
                ask().queues("rate")
            }
            Kind::Task => ask().tasks(matches!(place.command.get_name(), "enqueue" | "exec")),
            Kind::Steps if begins_step(place, typed) => ask().tasks(true),
            Kind::Steps => Vec::new(),
            Kind::Workflow => ask().workflows(),
            Kind::Queue => ask().queues(place.command.get_name()),
            Kind::Schedule => ask().schedules(place.command.get_name()),
            Kind::Message => ask().messages(place, &typed.current),
            Kind::Pair => return pairs(place, typed, ask),
            Kind::State => states(typed.current.strip_prefix(before).unwrap_or_default()),
            Kind::Cause => CAUSES.iter().map(|c| Candidate::new(*c, "")).collect(),
            Kind::Duration => DURATIONS.iter().map(|d| Candidate::new(*d, "")).collect(),
            Kind::Zone => zones(),
            Kind::Priority => (0..=9).rev().map(|n| Candidate::new(n.to_string(), "")).collect(),
            Kind::Rate => RATES.iter().map(|r| Candidate::new(*r, "")).collect(),
            Kind::File => return Answer::Files,
            Kind::Directory => return Answer::Directories,
            Kind::Free => Vec::new(),
        }
    } else {
        possible
    };
    for value in &mut values {
        value.value.insert_str(0, before);
    }
    Answer::Values(values)
}

/// Whether a task stands here: the first of the steps, what a separator ends or `--body` begins, and what is linked.
fn begins_step(place: &Place<'_>, typed: &Typed) -> bool {
    let before = typed.words.last().map(String::as_str);
    place.positional.is_empty() || matches!(before, Some("--" | "--body" | "--link" | "--link-error"))
}

/// States, of which several may stand behind commas; in whatever case they are begun.
fn states(current: &str) -> Vec<Candidate> {
    let (before, begun) = current.rsplit_once(',').map_or(("", current), |(b, c)| (b, c));
    let before = if before.is_empty() { String::new() } else { format!("{before},") };
    let upper = begun.starts_with(|c: char| c.is_ascii_uppercase());
    let given: Vec<String> = before.split(',').map(str::to_lowercase).collect();
    let names = state::ALL.iter().map(|s| (s.name().to_lowercase(), s.is_final()));
    let left = names.filter(|(name, _)| !given.contains(name));
    left.map(|(name, is_final)| {
        let name = if upper { name.to_uppercase() } else { name };
        Candidate::new(format!("{before}{name}"), if is_final { "final" } else { "" })
    })
    .collect()
}

fn zones() -> Vec<Candidate> {
    jiff::tz::db().available().map(|name| Candidate::new(name.as_str(), "")).collect()
}

/// `name=`, or what stands behind it.
fn pairs(place: &Place<'_>, typed: &Typed, ask: impl Fn() -> Asked) -> Answer {
    let Some(task) = place.positional.first() else { return Answer::Values(Vec::new()) };
    let params = ask().params(task);
    let Some((name, _)) = typed.current.split_once('=') else {
        let given = |p: &Param| {
            let mut names = place.positional.iter().filter_map(|w| w.split_once('='));
            names.any(|(name, _)| name.trim_end_matches(':') == p.name)
        };
        let left = params.iter().filter(|p| !given(p));
        return Answer::Values(
            left.map(|p| Candidate::beginning(format!("{}=", p.name), p.about.clone())).collect(),
        );
    };
    let Some(param) = params.iter().find(|p| p.name == name.trim_end_matches(':')) else {
        // A task without declared parameters takes anything, a path for example.
        return if params.is_empty() { Answer::Files } else { Answer::Values(Vec::new()) };
    };
    // Behind := stands JSON, where a text has quotes of its own.
    let as_json = name.ends_with(':');
    if param.one_of.is_empty() && param.is_text() && !as_json {
        return Answer::Files;
    }
    let fits = param.one_of.iter().filter(|v| !as_json || !param.is_text() || v.starts_with('"'));
    Answer::Values(fits.map(|v| Candidate::new(format!("{name}={v}"), "")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn offered(line: &str) -> Vec<String> {
        let typed = super::super::words::of_line(line, "");
        match super::super::answer(&typed) {
            Answer::Values(all) => all.into_iter().map(|c| c.value).collect(),
            Answer::Files => vec![":files".to_owned()],
            Answer::Directories => vec![":directories".to_owned()],
        }
    }

    #[test]
    fn every_value_of_the_command_line_is_of_a_known_kind() {
        let mut root = Cli::command();
        root.build();
        let mut all = vec![root];
        let mut seen = 0;
        while let Some(command) = all.pop() {
            for arg in command.get_arguments().filter(|a| a.get_action().takes_values()) {
                let known = !arg.get_possible_values().is_empty() || kind(arg).is_some();
                let is_help = command.get_name() == "help";
                assert!(
                    known || is_help,
                    "{} {}: {:?}",
                    command.get_name(),
                    arg.get_id(),
                    arg.get_value_names()
                );
                seen += 1;
            }
            all.extend(command.get_subcommands().cloned());
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn commands_options_and_words() {
        assert_eq!(offered("taskd can"), ["cancel"]);
        assert!(
            offered("taskd ").contains(&"store".to_owned())
                && !offered("taskd ").contains(&"manual".to_owned())
        );
        assert_eq!(offered("taskd store ve"), ["verify"]);
        assert_eq!(offered("taskd enqueue --pri"), ["--priority"]);
        assert_eq!(
            offered("taskd reload "),
            ["--binary", "--socket", "--timeout", "--color", "--user", "--json", "--help"]
        );
        assert_eq!(offered("taskd logs -f"), ["-f"]);
        assert_eq!(offered("taskd list --color "), ["auto", "always", "never"]);
        assert_eq!(offered("taskd list --color=a"), ["--color=auto", "--color=always"]);
        assert_eq!(offered("taskd completion z"), ["zsh"]);
        assert_eq!(offered("taskd list --state waiting,s"), ["waiting,scheduled", "waiting,success"]);
        assert_eq!(offered("taskd list --state=RE"), ["--state=RETRY", "--state=REVOKED"]);
        assert_eq!(offered("taskd list --state=success,ru"), ["--state=success,running"]);
        assert_eq!(
            offered("taskd enqueue x --in 1"),
            ["1m", "10m", "1h", "1d", "1w"]
                .map(|d| d.to_owned())
                .iter()
                .filter(|d| d.starts_with('1'))
                .cloned()
                .collect::<Vec<_>>()
        );
        assert_eq!(offered("taskd enqueue x --timezone Europe/Berl"), ["Europe/Berlin"]);
        assert_eq!(offered("taskd enqueue x --priority=9"), ["--priority=9"]);
        assert_eq!(offered("taskd run --config "), [":files"]);
        assert_eq!(offered("taskd run --state-dir=/v"), [":directories"]);
        assert_eq!(offered("taskd enqueue x -- "), [":files"]);
        assert_eq!(offered("taskd store export > "), [":files"]);
        assert_eq!(offered("taskd rate t 10"), ["10/s", "10/m", "100/h", "1000/d"]);
        assert!(offered("taskd enqueue x --id ").is_empty());
    }
}
