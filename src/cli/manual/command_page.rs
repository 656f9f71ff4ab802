//! taskd(1), from clap's description of the command line.

use clap::{Arg, Command, CommandFactory};

use super::help::{Part, parts};
use super::roff::Page;
use crate::cli::Cli;

const DESCRIPTION: &str = "\
taskd runs declared tasks of a server: shell commands, programs, or calls of a worker of yours that stays alive. A \
message is one call of a task; it waits in a queue until a place in the queue's pool is free, and its result, its \
output and the reason of its end are kept. Messages are stored durably before `taskd enqueue` returns, and are run \
again if the machine or taskd dies before their end was stored.

Tasks, queues, pools and users are declared in taskd.toml(5). systemd starts `taskd run`; every other command is a \
client of its control socket, but for `check`, `config`, `exec`, `openapi` and `completion`, which need no running \
taskd. Who may do what on the socket is said by `[access]` in taskd.toml(5).";

const ENVIRONMENT: &str = "\
* `TASKD_SOCKET` :: The control socket, where `--socket` is not given.
* `TASKD_CONFIG` :: The config file, where `--config` is not given.
* `NO_COLOR` :: If it is set, there are no colors unless `--color always` asks for them.
* `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `JOURNAL_STREAM` :: Set by systemd for `taskd run`: see sd_notify(3) and \
systemd.exec(5).

What a task finds in its environment is in taskd.toml(5), what a worker finds in taskd-worker(7).";

const FILES: &str = "\
* `/etc/taskd.toml` :: The config file, see taskd.toml(5).
* `/etc/taskd.d/*.toml` :: More of it, read after it in the order of their names.
* `/run/taskd/taskd.sock` :: The control socket: HTTP over a unix socket, described by `taskd openapi`.
* `/var/lib/taskd/` :: The store, and the output of tasks as long as it is kept.";

const SIGNALS: &str = "\
* `SIGTERM`, `SIGINT` :: End `taskd run` as `taskd stop` does: running tasks get `[taskd] shutdown_grace`, and what is \
not done by then goes back to its queue.
* `SIGHUP` :: Read and check the config again, as `taskd reload` does. Faults go to the log and change nothing.";

/// The page.
#[must_use]
pub fn page(date: &str) -> String {
    let mut root = Cli::command();
    root.build();
    let about = about(&root);
    let mut page = Page::new("taskd", 1, date, about.trim_end_matches('.'));
    page.section("SYNOPSIS");
    page.paragraph("`taskd` [OPTIONS] COMMAND [ARGUMENTS]");
    page.section("DESCRIPTION");
    page.prose(DESCRIPTION);
    page.section("COMMANDS");
    for command in shown(&root) {
        one(&mut page, command);
    }
    page.section("OPTIONS");
    page.paragraph("These go with every command, before or behind its name.");
    for arg in root.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set()) {
        argument(&mut page, arg);
    }
    let after = parts(&after_help(&root));
    for part in &after {
        if let Part::Codes(_, codes) = part {
            page.section("EXIT STATUS");
            page.paragraph("What holds for every command; what a command says of its own is above.");
            for (code, text) in codes {
                page.item(code, text);
            }
        }
    }
    for part in &after {
        if let Part::Text(text) = part {
            page.paragraph(text);
        }
    }
    for (title, prose) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES), ("SIGNALS", SIGNALS)] {
        page.section(title);
        page.prose(prose);
    }
    for part in &after {
        if let Part::Examples(lines) = part {
            page.section("EXAMPLES");
            page.example(lines.iter().map(String::as_str));
        }
    }
    page.section("SEE ALSO");
    page.paragraph("taskd.toml(5), taskd-worker(7), systemctl(1), journalctl(1)");
    page.into_text()
}

/// The subcommands that `--help` shows, without clap's own `help`.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help")
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn after_help(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', ':', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn one(page: &mut Page, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ");
    let named: Vec<&str> =
        usage.split(' ').take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-')).collect();
    let name = named.join(" ");
    page.part(&name);
    let rest = usage.get(name.len()..).unwrap_or_default();
    page.paragraph(&format!("`{name}`{rest}"));
    page.paragraph(&sentence(&about(command)));
    for arg in command.get_arguments() {
        if !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help" {
            argument(page, arg);
        }
    }
    for part in parts(&after_help(command)) {
        match part {
            Part::Text(text) => page.paragraph(&text),
            Part::Examples(lines) => {
                page.paragraph(if lines.len() > 1 { "Examples:" } else { "Example:" });
                page.example(lines.iter().map(String::as_str));
            }
            Part::Codes(title, codes) => {
                let with = title.trim_start_matches("EXIT CODES").trim();
                page.paragraph(&if with.is_empty() {
                    "Exit codes:".to_owned()
                } else {
                    format!("Exit codes {}:", with.to_lowercase())
                });
                page.inside();
                for (code, text) in codes {
                    page.item(&code, &text);
                }
                page.out();
            }
        }
    }
    for sub in shown(command) {
        one(page, sub);
    }
}

fn argument(page: &mut Page, arg: &Arg) {
    let value =
        arg.get_value_names().map(|names| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" "));
    let value = value.filter(|_| arg.get_action().takes_values());
    let mut words = Vec::new();
    words.extend(arg.get_short().map(|c| format!("`-{c}`")));
    words.extend(arg.get_long().map(|l| format!("`--{l}`")));
    let mut term = words.join(", ");
    if let Some(value) = value {
        let many = arg.is_positional() && matches!(arg.get_action(), clap::ArgAction::Append);
        let dashes = if arg.is_last_set() { "`--` " } else { "" };
        let gap = if term.is_empty() { "" } else { " " };
        term = format!("{term}{gap}{dashes}{value}{}", if many { "..." } else { "" });
    }
    let mut text = sentence(&arg.get_help().map(ToString::to_string).unwrap_or_default());
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|v| !v.is_hide_set() && arg.get_action().takes_values())
        .map(|v| {
            let about = v.get_help().map(|h| format!(" ({})", h.to_string().trim_end_matches('.')));
            format!("`{}`{}", v.get_name(), about.unwrap_or_default())
        })
        .collect();
    if !possible.is_empty() {
        text.push_str(&format!(" It is one of {}.", possible.join(", ")));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        text.push_str(&format!(" Default: `{}`.", defaults.join(" ")));
    }
    if let Some(variable) = arg.get_env() {
        text.push_str(&format!(" Environment: `{}`.", variable.to_string_lossy()));
    }
    page.item(&term, &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::manual::roff::{inline, typed};

    /// What is in `--help` of any command and not in the page.
    fn missing(root: &Command, text: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |what: String| {
            if !text.contains(&what) {
                missing.push(what);
            }
        };
        let mut all: Vec<(String, &Command)> =
            shown(root).map(|c| (format!("taskd {}", c.get_name()), c)).collect();
        while let Some((name, command)) = all.pop() {
            need(format!("\n.SS {name}\n"));
            need(format!("\n{}\n", inline(&sentence(&about(command)))));
            for arg in command.get_arguments().filter(|a| a.get_id() != "help") {
                need(inline(&sentence(&arg.get_help().unwrap().to_string())));
                need(arg.get_long().map(|l| typed(&format!("--{l}"))).unwrap_or_default());
            }
            for part in parts(&after_help(command)) {
                match part {
                    Part::Codes(_, codes) => {
                        assert!(!codes.is_empty(), "{name}");
                        for (code, text) in codes {
                            assert!(!text.is_empty(), "{name}: {code}");
                            need(format!("\n.TP\n{}\n{}\n", inline(&code), inline(&text)));
                        }
                    }
                    Part::Examples(lines) => lines.iter().for_each(|l| need(format!("\n{}\n", typed(l)))),
                    Part::Text(text) => need(format!("\n{}\n", inline(&text))),
                }
            }
            all.extend(shown(command).map(|c| (format!("{name} {}", c.get_name()), c)));
        }
        missing
    }

    #[test]
    fn every_command_option_example_and_exit_code_is_in_the_page() {
        let text = page("");
        let mut root = Cli::command();
        root.build();
        assert_eq!(missing(&root, &text), Vec::<String>::new());
        let more = root
            .mut_subcommand("list", |c| c.arg(Arg::new("new").long("brand-new").help("Something new")))
            .subcommand(Command::new("other").about("Another command").after_help("EXIT CODES\n  99  odd"));
        let missing = missing(&more, &text);
        for what in ["\n.SS taskd other\n", "Something new.", "\\-\\-brand\\-new", "\n.TP\n99\nodd\n"] {
            assert!(missing.iter().any(|m| m == what), "{what:?} in {missing:?}");
        }
    }
}
