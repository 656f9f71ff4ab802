//! Where the cursor is in the grammar of the command line: clap's own description of it is walked along.

use std::collections::BTreeSet;

use clap::builder::ValueRange;
use clap::{Arg, ArgAction, Command};

/// Where the cursor is.
#[derive(Debug)]
pub struct Place<'a> {
    /// The command, or the subcommand, that was typed.
    pub command: &'a Command,
    /// What is wanted here.
    pub wanted: Wanted<'a>,
    /// Options that were given, by their ids.
    pub used: BTreeSet<&'a str>,
    /// Values of options, by the ids of these.
    pub values: Vec<(&'a str, String)>,
    /// Positional values before the cursor.
    pub positional: Vec<String>,
}

/// What is wanted where the cursor is.
#[derive(Debug)]
pub enum Wanted<'a> {
    /// The value of this argument; this much of the word stands before it (`--state=`).
    Value(&'a Arg, String),
    /// A subcommand.
    Subcommand,
    /// An option.
    Option,
    /// Nothing that is known.
    Nothing,
}

impl Place<'_> {
    /// The value of an option.
    #[must_use]
    pub fn value(&self, id: &str) -> Option<&str> {
        self.values.iter().rev().find(|(of, _)| *of == id).map(|(_, value)| value.as_str())
    }

    /// Whether an option can stand here: it was not given yet, and goes with those that were.
    #[must_use]
    pub fn takes(&self, arg: &Arg) -> bool {
        let many = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
        let against = |a: &Arg, b: &str| {
            self.command.get_arg_conflicts_with(a).iter().any(|c| c.get_id().as_str() == b)
        };
        let id = arg.get_id().as_str();
        let given = || self.command.get_arguments().filter(|a| self.used.contains(a.get_id().as_str()));
        !arg.is_hide_set()
            && (many || !self.used.contains(id))
            && given().all(|g| !against(g, id) && !against(arg, g.get_id().as_str()))
    }
}

/// Walks along the words to the cursor.
#[must_use]
pub fn find<'a>(root: &'a Command, words: &[String], current: &str) -> Place<'a> {
    let mut place = Place {
        command: root,
        wanted: Wanted::Nothing,
        used: BTreeSet::new(),
        values: Vec::new(),
        positional: Vec::new(),
    };
    let mut waiting: Option<&'a Arg> = None;
    let mut only_positional = false;
    for word in words {
        if let Some(arg) = waiting.take() {
            place.values.push((arg.get_id().as_str(), word.clone()));
        } else if only_positional {
            place.positional.push(word.clone());
        } else if word == "--" {
            only_positional = true;
        } else if word.starts_with('-') && word.len() > 1 {
            waiting = option(&mut place, word);
        } else if let Some(sub) = subcommand(&place, word) {
            place.command = sub;
        } else {
            place.positional.push(word.clone());
        }
    }
    place.wanted = wanted(&place, waiting, only_positional, current);
    place
}

fn subcommand<'a>(place: &Place<'a>, word: &str) -> Option<&'a Command> {
    let command: &'a Command = place.command;
    place.positional.is_empty().then(|| command.find_subcommand(word)).flatten()
}

/// Takes an option in; itself, where the next word is its value.
fn option<'a>(place: &mut Place<'a>, word: &str) -> Option<&'a Arg> {
    let command: &'a Command = place.command;
    let (arg, value) = if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
        (command.get_arguments().find(|a| a.get_long() == Some(name))?, value)
    } else {
        // Of several short ones only the last may take a value.
        let last = word.chars().next_back()?;
        (command.get_arguments().find(|a| a.get_short() == Some(last))?, None)
    };
    place.used.insert(arg.get_id().as_str());
    match value {
        Some(value) => {
            place.values.push((arg.get_id().as_str(), value.to_owned()));
            None
        }
        None => takes_value(arg).then_some(arg),
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn wanted<'a>(
    place: &Place<'a>,
    waiting: Option<&'a Arg>,
    only_positional: bool,
    current: &str,
) -> Wanted<'a> {
    let command: &'a Command = place.command;
    if let Some(arg) = waiting {
        return Wanted::Value(arg, String::new());
    }
    if only_positional {
        let last = command.get_positionals().find(|a| a.is_last_set());
        let next = last.or_else(|| positional(command, place.positional.len()));
        return next.map_or(Wanted::Nothing, |arg| Wanted::Value(arg, String::new()));
    }
    if current.starts_with('-') {
        let Some((name, _)) = current.strip_prefix("--").and_then(|long| long.split_once('=')) else {
            return Wanted::Option;
        };
        let arg = command.get_arguments().find(|a| a.get_long() == Some(name) && takes_value(a));
        return arg.map_or(Wanted::Nothing, |arg| Wanted::Value(arg, format!("--{name}=")));
    }
    if place.positional.is_empty() && command.has_subcommands() {
        return Wanted::Subcommand;
    }
    match positional(command, place.positional.len()) {
        Some(arg) => Wanted::Value(arg, String::new()),
        // There is nothing else that could follow.
        None => Wanted::Option,
    }
}

/// The positional argument at this place, from 0; the last one may take many.
fn positional(command: &Command, at: usize) -> Option<&Arg> {
    let plain = || command.get_positionals().filter(|a| !a.is_last_set());
    let many = |a: &&Arg| {
        matches!(a.get_action(), ArgAction::Append)
            || a.get_num_args().is_some_and(|n: ValueRange| n.max_values() > 1)
    };
    plain().nth(at).or_else(|| plain().last().filter(many))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn at(words: &str, current: &str) -> String {
        let mut root = Cli::command();
        root.build();
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let place = find(&root, &words, current);
        let wanted = match &place.wanted {
            Wanted::Value(arg, before) => format!("{}{before}", arg.get_id()),
            Wanted::Subcommand => "a subcommand".to_owned(),
            Wanted::Option => "an option".to_owned(),
            Wanted::Nothing => "nothing".to_owned(),
        };
        format!("{}: {wanted}", place.command.get_name())
    }

    #[test]
    fn the_cursor_is_found() {
        for (words, current, wanted) in [
            ("", "", "taskd: a subcommand"),
            ("--socket /x", "", "taskd: a subcommand"),
            ("--socket", "", "taskd: socket"),
            ("store", "", "store: a subcommand"),
            ("store verify", "", "verify: an option"),
            ("store import", "", "import: file"),
            ("enqueue", "", "enqueue: name"),
            ("enqueue", "--q", "enqueue: an option"),
            ("enqueue mail", "", "enqueue: pairs"),
            ("enqueue mail a=b c=d", "e", "enqueue: pairs"),
            ("enqueue mail --in", "", "enqueue: delay"),
            ("enqueue --in 10m", "", "enqueue: name"),
            ("enqueue mail --", "", "enqueue: positional"),
            ("enqueue mail", "--queue=x", "enqueue: queue--queue="),
            ("enqueue mail", "--nothing=x", "enqueue: nothing"),
            ("logs -f", "", "logs: id"),
            ("cancel one two", "", "cancel: ids"),
            ("status one", "", "status: an option"),
            ("help", "", "help: a subcommand"),
            ("no-such-command", "", "taskd: an option"),
        ] {
            assert_eq!(at(words, current), wanted, "{words} {current}");
        }
    }

    #[test]
    fn options_are_offered_once_and_not_against_each_other() {
        let mut root = Cli::command();
        root.build();
        let words: Vec<String> = ["enqueue", "mail", "--in", "1m", "--wait"].map(str::to_owned).to_vec();
        let place = find(&root, &words, "--");
        let offered: Vec<&str> =
            place.command.get_arguments().filter(|a| place.takes(a)).filter_map(|a| a.get_long()).collect();
        assert!(offered.contains(&"queue") && offered.contains(&"socket"), "{offered:?}");
        for not in ["in", "wait", "at", "batch"] {
            assert!(!offered.contains(&not), "{not} in {offered:?}");
        }
        assert_eq!(place.value("delay"), Some("1m"));
    }
}
