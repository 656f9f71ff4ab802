//! Programs that crontabs put around a command for what taskd has keys for: `timeout`, `flock -n`, `nice`,
//! `ionice`, `chronic`, and sleeping for a random time.

use crate::cli::import::shell::{self, Piece};
use crate::cli::import::toml_value::Toml;

/// What wrappers became.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unwrapped {
    /// The command without them.
    pub command: String,
    /// Keys of the task.
    pub task: Vec<(&'static str, Toml)>,
    /// Keys of the schedule.
    pub schedule: Vec<(&'static str, Toml)>,
    /// What was done, a sentence each.
    pub said: Vec<String>,
}

/// Takes wrappers off as long as it is clear what they do. `locked_once` says whether a lock file is named by no
/// other line.
#[must_use]
pub fn unwrap(command: &str, locked_once: &dyn Fn(&str) -> bool) -> Unwrapped {
    let mut out = Unwrapped { command: command.to_owned(), ..Unwrapped::default() };
    sleep(&mut out);
    // Each round takes one wrapper off; there cannot be more of them than characters.
    while let Some(shorter) = one(&mut out, locked_once).filter(|c| c.len() < out.command.len()) {
        out.command = shorter;
    }
    out
}

/// `sleep $((RANDOM % 600)); command`, `perl -e 'sleep int(rand(3600))' && command`.
fn sleep(out: &mut Unwrapped) {
    let Some(pieces) = shell::pieces(&out.command) else { return };
    let mut from = 0;
    loop {
        let rest = pieces.get(from..).unwrap_or_default();
        let Some(length) = rest.iter().position(|p| p.operator && matches!(p.raw.as_str(), ";" | "&&"))
        else {
            return;
        };
        let head = rest.get(..length).unwrap_or_default();
        let (Some(first), Some(end)) = (head.first(), rest.get(length)) else { return };
        if head.iter().any(|p| p.operator) {
            return;
        }
        if let Some(seconds) = slept(head) {
            let cut = |from: usize, to: usize| out.command.get(from..to).unwrap_or_default().trim();
            let taken = cut(first.start, end.end).to_owned();
            let (before, after) = (cut(0, first.start), cut(end.end, out.command.len()));
            out.command = format!("{before} {after}").trim().to_owned();
            out.schedule.push(("splay", Toml::text(duration(seconds))));
            out.said.push(format!("`{taken}` became splay, which shifts by the same part of it each time"));
            return;
        }
        // What only asks may stand before it.
        if !(matches!(first.text(), "test" | "[") && end.raw == "&&") {
            return;
        }
        from += length + 1;
    }
}

/// The longest time that a command sleeps, where it draws it.
fn slept(command: &[Piece]) -> Option<u64> {
    let texts: Vec<&str> = command.iter().map(Piece::text).collect();
    let seconds = match texts.as_slice() {
        [program, arithmetic] if *program == "sleep" || program.ends_with("/sleep") => {
            random(arithmetic, &["$RANDOM%", "RANDOM%", "${RANDOM}%"])
        }
        [program, "-e", text] if *program == "perl" || program.ends_with("/perl") => {
            let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != ';').collect();
            text.strip_prefix("sleepint(rand(")
                .or_else(|| text.strip_prefix("sleepintrand("))
                .and_then(|n| n.trim_end_matches(')').parse().ok())
        }
        _ => None,
    };
    seconds.filter(|n| *n > 0)
}

/// The bound of `$((RANDOM % N))` and its kin, in seconds.
fn random(word: &str, forms: &[&str]) -> Option<u64> {
    let inner: String = word.chars().filter(|c| !c.is_whitespace()).collect();
    let inner = inner
        .strip_prefix("$((")
        .and_then(|t| t.strip_suffix("))"))
        .or_else(|| inner.strip_prefix("$[").and_then(|t| t.strip_suffix(']')))?;
    let inner = inner.trim_matches(|c| c == '(' || c == ')');
    forms.iter().find_map(|f| inner.strip_prefix(f)).and_then(|n| n.parse().ok())
}

/// The command without the wrapper that it begins with.
fn one(out: &mut Unwrapped, locked_once: &dyn Fn(&str) -> bool) -> Option<String> {
    let pieces = shell::pieces(&out.command)?;
    // What wraps the first of several commands does not wrap the whole of them.
    if pieces.iter().any(Piece::separates) {
        return None;
    }
    let words: Vec<&Piece> = pieces.iter().take_while(|p| !p.operator).collect();
    let mut options = Options { words: &words, next: 1 };
    let program = words.first()?.word.as_deref()?;
    match program.rsplit('/').next()? {
        "timeout" => timeout(out, &mut options),
        "flock" => flock(out, &mut options, locked_once),
        "nice" => nice(out, &mut options),
        "ionice" => ionice(out, &mut options),
        "chronic" | "cronic" => options.rest(&out.command).inspect(|_| {
            out.said.push(format!(
                "`{program}` was taken off: output is kept, and somebody is told of failures only"
            ));
        }),
        _ => None,
    }
}

/// The words of a wrapper, one after the other.
struct Options<'a> {
    words: &'a [&'a Piece],
    next: usize,
}

impl Options<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.next)?.word.as_deref()
    }

    fn take(&mut self) -> Option<String> {
        let word = self.peek()?.to_owned();
        self.next += 1;
        Some(word)
    }

    /// The value of an option that is written as `-n 5`, `-n5`, `--name=5` or `--name 5`.
    fn value(&mut self, short: &str, long: &str) -> Option<String> {
        let word = self.peek()?;
        if let Some(value) = word.strip_prefix(long).and_then(|v| v.strip_prefix('=')) {
            let value = value.to_owned();
            self.next += 1;
            return Some(value);
        }
        if word == short || word == long {
            self.next += 1;
            return self.take();
        }
        let value = word.strip_prefix(short).filter(|v| !v.is_empty() && !word.starts_with("--"))?.to_owned();
        self.next += 1;
        Some(value)
    }

    fn flag(&mut self, names: &[&str]) -> bool {
        let found = self.peek().is_some_and(|w| names.contains(&w));
        self.next += usize::from(found);
        found
    }

    /// What is left, as it is written; none where the next word is an option that was not understood.
    fn rest(&self, command: &str) -> Option<String> {
        let first = self.words.get(self.next).filter(|w| !w.raw.starts_with('-'))?;
        command.get(first.start..).map(|c| c.trim().to_owned())
    }
}

fn has(out: &Unwrapped, key: &str) -> bool {
    out.task.iter().chain(&out.schedule).any(|(k, _)| *k == key)
}

fn timeout(out: &mut Unwrapped, options: &mut Options<'_>) -> Option<String> {
    let (mut kill, mut signal) = (None, None);
    loop {
        if let Some(value) = options.value("-k", "--kill-after") {
            kill = Some(span(&value)?);
        } else if let Some(value) = options.value("-s", "--signal") {
            signal = Some(value);
        } else if !options.flag(&["--foreground", "--preserve-status", "-v", "--verbose"]) {
            break;
        }
    }
    let limit = span(&options.take()?)?;
    let rest = options.rest(&out.command)?;
    if limit == 0 || has(out, "time_limit") {
        return None;
    }
    let taken = out.command.get(..out.command.len() - rest.len()).unwrap_or_default().trim().to_owned();
    match kill {
        Some(after) if after > 0 => {
            out.task.push(("soft_time_limit", Toml::text(duration(limit))));
            if let Some(signal) = signal.filter(|s| !matches!(s.as_str(), "TERM" | "SIGTERM" | "15")) {
                out.task.push(("soft_signal", Toml::text(signal)));
            }
            out.task.push(("time_limit", Toml::text(duration(limit.saturating_add(after)))));
            out.said.push(format!("`{taken}` became soft_time_limit and time_limit"));
        }
        _ => {
            out.task.push(("time_limit", Toml::text(duration(limit))));
            out.said.push(format!(
                "`{taken}` became time_limit, which kills; for a signal first set soft_time_limit below it"
            ));
        }
    }
    Some(rest)
}

fn flock(
    out: &mut Unwrapped,
    options: &mut Options<'_>,
    locked_once: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let mut now = false;
    let mut code = None;
    loop {
        if options.flag(&["-n", "--nb", "--nonblock", "-xn", "-nx", "-en", "-ne"]) {
            now = true;
        } else if let Some(value) = options.value("-E", "--conflict-exit-code") {
            code = Some(value);
        } else if !options.flag(&["-x", "-e", "--exclusive", "-o", "--close", "-F", "--no-fork", "--verbose"])
        {
            break;
        }
    }
    let file = options.words.get(options.next)?.raw.clone();
    options.next += 1;
    if !now || has(out, "overlap") || file.starts_with('-') {
        return None;
    }
    out.schedule.push(("overlap", Toml::text("skip")));
    if !locked_once(&file) {
        out.said.push(format!(
            "`flock -n {file}` stays, since other lines use that lock; its runs do not overlap in any case"
        ));
        return None;
    }
    let _ = code;
    let rest = if options.flag(&["-c", "--command"]) {
        let text = options.words.get(options.next).and_then(|w| w.word.clone())?;
        // Only where nothing comes after the quoted command.
        let whole = options.words.len() == options.next + 1;
        whole.then(|| format!("{text}{}", redirections(&out.command, options)))?
    } else {
        options.rest(&out.command)?
    };
    out.said.push(format!(
        "`flock -n {file}` became overlap = \"skip\"; keep flock where others use that lock too"
    ));
    Some(rest)
}

/// What stands after the last word: ` >/dev/null 2>&1`.
fn redirections<'a>(command: &'a str, options: &Options<'_>) -> &'a str {
    let end = options.words.last().map_or(command.len(), |w| w.end);
    command.get(end..).unwrap_or_default()
}

fn nice(out: &mut Unwrapped, options: &mut Options<'_>) -> Option<String> {
    let level: i64 = match options.value("-n", "--adjustment") {
        Some(value) => value.parse().ok()?,
        None => match options.peek().and_then(|w| w.strip_prefix('-')).map(str::parse) {
            Some(Ok(level)) => {
                options.next += 1;
                level
            }
            Some(Err(_)) => return None,
            None => 10,
        },
    };
    let rest = options.rest(&out.command)?;
    if has(out, "nice") {
        return None;
    }
    out.task.push(("nice", Toml::Int(level.clamp(-20, 19))));
    out.said.push(format!("`nice` became nice = {}", level.clamp(-20, 19)));
    Some(rest)
}

fn ionice(out: &mut Unwrapped, options: &mut Options<'_>) -> Option<String> {
    let (mut class, mut level) = (None, false);
    loop {
        if let Some(value) = options.value("-c", "--class") {
            class = Some(value);
        } else if options.value("-n", "--classdata").is_some() {
            level = true;
        } else if !options.flag(&["-t", "--ignore"]) {
            break;
        }
    }
    let rest = options.rest(&out.command)?;
    // taskd has no levels within a class.
    let class = match class.as_deref()? {
        "3" | "idle" => "idle",
        "2" | "best-effort" if !level => "best-effort",
        _ => return None,
    };
    if has(out, "io_class") {
        return None;
    }
    out.task.push(("io_class", Toml::text(class)));
    out.said.push(format!("`ionice` became io_class = \"{class}\""));
    Some(rest)
}

/// Seconds of `60`, `5m`, `1.5h` as timeout(1) reads them, rounded up.
fn span(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 's') => (text.get(..at)?, 1.0),
        (at, 'm') => (text.get(..at)?, 60.0),
        (at, 'h') => (text.get(..at)?, 3_600.0),
        (at, 'd') => (text.get(..at)?, 86_400.0),
        _ => (text, 1.0),
    };
    let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    // The cast saturates; taskd's own check refuses what is too long.
    (seconds < 1e15).then(|| seconds.ceil() as u64)
}

/// Seconds as a duration of the config file.
fn duration(seconds: u64) -> String {
    crate::config::values::show_duration(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: &str) -> String {
        let u = unwrap(command, &|lock| lock != "/shared");
        let keys = u.task.iter().chain(&u.schedule).map(|(k, v)| format!("{k}={}", v.show()));
        let keys: Vec<String> = keys.collect();
        assert_eq!(u.said.is_empty(), keys.is_empty() && u.command == command, "{command}: {:?}", u.said);
        format!("{} | {}", keys.join(" "), u.command)
    }

    #[test]
    fn wrappers_become_keys() {
        for (command, wanted) in [
            ("timeout 60 a b >/dev/null 2>&1", "time_limit=\"1m\" | a b >/dev/null 2>&1"),
            (
                "timeout -k 10 -s INT 1.5h a",
                "soft_time_limit=\"1h 30m\" soft_signal=\"INT\" time_limit=\"1h 30m 10s\" | a",
            ),
            (
                "/usr/bin/flock -n /run/x.lock nice -n 5 ionice -c3 /a",
                "nice=5 io_class=\"idle\" overlap=\"skip\" | /a",
            ),
            ("flock -xn /x -c 'cd /a && b' >/dev/null", "overlap=\"skip\" | cd /a && b >/dev/null"),
            ("flock -n /shared a", "overlap=\"skip\" | flock -n /shared a"),
            ("chronic /a", " | /a"),
            ("nice a", "nice=10 | a"),
            ("nice -19 a", "nice=19 | a"),
            ("sleep $((RANDOM % 600)); a && b", "splay=\"10m\" | a && b"),
            ("perl -e 'sleep int(rand(3600))' && certbot -q renew", "splay=\"1h\" | certbot -q renew"),
            ("test -x /a && perl -e 'sleep int(rand(60))' && /a", "splay=\"1m\" | test -x /a && /a"),
        ] {
            assert_eq!(shown(command), wanted);
        }
    }

    #[test]
    fn what_is_not_clear_stays() {
        for command in [
            "timeout 60 a; b",
            "timeout 60 a | b",
            "timeout $T a",
            "flock /x a",
            "flock -w 10 /x a",
            "nice",
            "timeout 0 a",
            "ionice -c2 -n7 a",
            "sleep 30; a",
            "sleep 5 && a",
            "a timeout 60",
            "'",
        ] {
            assert_eq!(shown(command), format!(" | {command}"), "{command}");
        }
    }
}
