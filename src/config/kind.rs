//! One value against what it must be.

use std::collections::BTreeMap;

use crate::cron::Expr;
use crate::model::name;
use crate::model::task::Raise;

use super::check::{Check, unknown};
use super::credential;
use super::credential_source::DIRECTORY;
use super::keys::{Key, Kind};
use super::params;
use super::redis;
use super::report::{Fault, FaultKind};
use super::section::Parsed;
use super::told;
use super::tree::{At, Node, Table, Value, quote, quote_key};
use super::values::{self, Wrong};
use super::workflow;

/// Longest path that `bind` takes for a unix socket, in bytes (sun_path of unix(7), less its NUL).
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// The key whose addresses may be those of a Redis server.
const SERVED: &str = "`broker`";

/// Checks a value; absent (and a fault noted) where it is wrong.
pub(super) fn parse(check: &mut Check<'_>, kind: Kind, path: &str, node: &Node) -> Option<Parsed> {
    let at = &node.at;
    match kind {
        Kind::Text => text(check, path, node).map(Parsed::Text),
        Kind::Name => text(check, path, node).and_then(|s| named(check, path, at, s)).map(Parsed::Text),
        Kind::Glob => {
            let pattern = text(check, path, node)?;
            named(check, path, at, pattern.replace(['*', '?'], "x"))?;
            Some(Parsed::Text(pattern))
        }
        Kind::Path => absolute(check, path, node).map(Parsed::Text),
        Kind::SocketPath => socket(check, path, node).map(Parsed::Text),
        Kind::Zone => zone(check, path, node).map(Parsed::Text),
        Kind::User | Kind::GroupName => account(check, path, node).map(Parsed::Text),
        Kind::Groups => groups(check, path, node).map(Parsed::Many),
        Kind::People => people(check, path, node).map(Parsed::Many),
        Kind::Bool => match node.value {
            Value::Bool(b) => Some(Parsed::Flag(b)),
            _ => mistyped(check, path, node, "true or false"),
        },
        Kind::Int(min, max) => int(check, path, node, min, max).map(Parsed::Number),
        Kind::Number(min, max) => number(check, path, node, min, max).map(hundredths),
        Kind::Degrees(most) => number(check, path, node, -most, most).map(|n| Parsed::Text(n.to_string())),
        Kind::Duration(min, max) => duration(check, path, node, min, max).map(Parsed::Number),
        Kind::Size(min, max) => size(check, path, node, min, max).map(Parsed::Number),
        Kind::Rate => by(check, path, node, |s| values::rate(s).map(|(n, ms)| Parsed::Rate(n, ms))),
        Kind::Choice(words) => choice(check, path, node, words).map(Parsed::Text),
        Kind::Address(words, schemes) => address(check, path, node, words, schemes).map(Parsed::Text),
        Kind::Argv => argv(check, path, node).map(Parsed::Many),
        Kind::Texts => texts(check, path, node).map(Parsed::Many),
        Kind::Names => {
            let names = texts(check, path, node)?;
            let good = names.iter().filter(|(s, at)| named(check, path, at, s.clone()).is_some()).count();
            (good == names.len()).then_some(Parsed::Many(names))
        }
        Kind::Paths => {
            let items = items(check, path, node)?;
            let good: Vec<_> =
                items.iter().filter_map(|n| Some((absolute(check, path, n)?, n.at.clone()))).collect();
            (good.len() == items.len()).then_some(Parsed::Many(good))
        }
        Kind::Codes => codes(check, path, node).map(Parsed::Codes),
        Kind::Signal => by(check, path, node, |s| values::signal(s).map(|n| Parsed::Number(n.into()))),
        Kind::Umask => by(check, path, node, |s| values::umask(s).map(|n| Parsed::Number(n.into()))),
        Kind::Environment => environment(check, path, node).map(Parsed::Map),
        Kind::EnvironmentNames => {
            let names = texts(check, path, node)?;
            let good = names.iter().filter(|(s, at)| passable(check, path, at, s)).count();
            (good == names.len()).then_some(Parsed::Many(names))
        }
        Kind::Credentials => credentials(check, path, node).map(Parsed::Many),
        Kind::Params => params::parse(check, path, node).map(Parsed::Params),
        Kind::Cron => by(check, path, node, |s| match Expr::parse(s) {
            Ok(expr) => Ok(Parsed::Text(expr.text().to_owned())),
            Err(wrong) => Err(Wrong { message: wrong.message, help: wrong.help }),
        }),
        Kind::TimesOfDay | Kind::Program | Kind::Webhook | Kind::Secret | Kind::Mail | Kind::Mails => {
            told::parse(check, kind, path, node)
        }
        Kind::Percent => by(check, path, node, |s| values::percent(s).map(|n| Parsed::Number(n.into()))),
        Kind::SizeOrTimes => match &node.value {
            Value::Text(s) if s.ends_with('x') => {
                by(check, path, node, |s| values::times(s).map(|n| Parsed::Raise(Raise::Percent(n))))
            }
            _ => size(check, path, node, 1, i64::MAX as u64)
                .map(|n| Parsed::Raise(Raise::Bytes(n.unsigned_abs()))),
        },
        Kind::BoolOr(words) => match node.value {
            Value::Bool(b) => Some(Parsed::Flag(b)),
            _ => choice(check, path, node, words).map(Parsed::Text),
        },
        Kind::List => {
            let items = items(check, path, node)?;
            let good = items.iter().filter(|n| is_json(check, path, n)).count();
            (good == items.len()).then(|| Parsed::List(items.iter().map(|n| n.value.to_json()).collect()))
        }
        Kind::Dict => {
            let table = table(check, path, node)?;
            let good = table.entries.iter().filter(|e| is_json(check, path, &e.node)).count();
            let pair = |e: &super::tree::Entry| (e.key.clone(), e.node.value.to_json());
            (good == table.entries.len()).then(|| Parsed::Dict(table.entries.iter().map(pair).collect()))
        }
        Kind::Table(keys) => inner(check, path, node, keys),
        Kind::BoolOrTable(keys) => match node.value {
            Value::Bool(b) => Some(Parsed::Flag(b)),
            Value::Table(_) => inner(check, path, node, keys),
            _ => mistyped(check, path, node, "true, false or a table"),
        },
        Kind::TableOrFalse(keys) => match node.value {
            Value::Bool(false) => Some(Parsed::Flag(false)),
            Value::Bool(true) => mistyped(check, path, node, "a table, or false"),
            _ => inner(check, path, node, keys),
        },
        Kind::Steps => workflow::parse(check, path, node).map(Parsed::Steps),
    }
}

/// A value as it may be shown: an address without its password.
pub(super) fn shown(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Address(words, _), Value::Text(text)) if !words.contains(&text.as_str()) => {
            quote(&redis::shown(text))
        }
        _ => value.to_toml(),
    }
}

/// A number with two decimals, as settings keep it.
fn hundredths(n: f64) -> Parsed {
    // The bounds of every such key are far inside an i64; a cast saturates.
    Parsed::Number((n * 100.0).round() as i64)
}

/// Names of groups.
fn groups(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    let items = items(check, path, node)?;
    let good: Vec<_> = items.iter().filter_map(|n| Some((account(check, path, n)?, n.at.clone()))).collect();
    (good.len() == items.len()).then_some(good)
}

/// Notes a value of the wrong type.
pub(super) fn mistyped<T>(check: &mut Check<'_>, path: &str, node: &Node, wanted: &str) -> Option<T> {
    let fault = Fault::new(FaultKind::Value, &node.at, path, format!("{} must be {wanted}", last(path)));
    check.fault(fault.label(format!("this is {}", node.value.kind())));
    None
}

/// The key of a path, as it is called in a sentence.
pub(super) fn last(path: &str) -> String {
    // A quoted key may hold dots: what follows the last quote then is the key, or the quoted part is.
    let key = match path.strip_suffix('"').and_then(|p| p.rfind('"').and_then(|i| p.get(i + 1..))) {
        Some(quoted) => quoted,
        None => path.rsplit('.').next().unwrap_or(path),
    };
    format!("`{key}`")
}

/// Notes what one of the parsers of [`values`] found.
fn refuse<T>(check: &mut Check<'_>, path: &str, at: &At, wrong: Wrong) -> Option<T> {
    check.bad(at, path, format!("{} {}", last(path), wrong.message), &wrong.help);
    None
}

pub(super) fn by<T>(
    check: &mut Check<'_>,
    path: &str,
    node: &Node,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    let s = text(check, path, node)?;
    read(&s).map_or_else(|wrong| refuse(check, path, &node.at, wrong), Some)
}

/// A text that a program, a path or the environment can take: without NUL, not empty.
pub(super) fn text(check: &mut Check<'_>, path: &str, node: &Node) -> Option<String> {
    let Value::Text(s) = &node.value else {
        return mistyped(check, path, node, "a string");
    };
    if s.trim().is_empty() {
        check.bad(&node.at, path, format!("{} is empty", last(path)), "give a value, or remove the key");
        return None;
    }
    no_nul(check, path, &node.at, s).then(|| s.clone())
}

fn no_nul(check: &mut Check<'_>, path: &str, at: &At, s: &str) -> bool {
    if s.contains('\0') {
        check.bad(at, path, format!("{} holds a NUL character", last(path)), "no program can be given one");
    }
    !s.contains('\0')
}

fn named(check: &mut Check<'_>, path: &str, at: &At, s: String) -> Option<String> {
    match name::check(&s) {
        Ok(()) => Some(s),
        Err(why) => {
            check.bad(at, path, format!("the name {} {why}", quote(&s)), "");
            None
        }
    }
}

fn absolute(check: &mut Check<'_>, path: &str, node: &Node) -> Option<String> {
    let s = text(check, path, node)?;
    if s.starts_with('/') {
        return Some(s);
    }
    check.bad(&node.at, path, format!("{} is not an absolute path", last(path)), "begin it with /");
    None
}

fn socket(check: &mut Check<'_>, path: &str, node: &Node) -> Option<String> {
    let s = absolute(check, path, node)?;
    if s.len() <= MAX_SOCKET_PATH {
        return Some(s);
    }
    let message =
        format!("the path of a socket has at most {MAX_SOCKET_PATH} bytes, this one has {}", s.len());
    check.bad(&node.at, path, message, "choose a shorter directory, as /run/taskd/taskd.sock");
    None
}

fn zone(check: &mut Check<'_>, path: &str, node: &Node) -> Option<String> {
    let s = text(check, path, node)?;
    if check.env.has_zone(&s) {
        return Some(s);
    }
    let help =
        "write it as in /usr/share/zoneinfo, as \"Europe/Berlin\"; the package tzdata must be installed";
    check.bad(&node.at, path, format!("there is no time zone {}", quote(&s)), help);
    None
}

/// A user or group name as useradd(8) would take it; whether it exists is judged with all that it is for.
fn account(check: &mut Check<'_>, path: &str, node: &Node) -> Option<String> {
    let s = text(check, path, node)?;
    if is_account(&s) {
        return Some(s);
    }
    let help = if s.starts_with('@') { "a group cannot stand here" } else { "write a name of /etc/passwd" };
    check.bad(&node.at, path, format!("{} is no user or group name", quote(&s)), help);
    None
}

fn is_account(s: &str) -> bool {
    let mut chars = s.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && s.len() <= 64
}

fn people(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    let list = texts(check, path, node)?;
    let mut good = true;
    for (s, at) in &list {
        if !is_account(s.strip_prefix('@').unwrap_or(s)) {
            let message = format!("{} is neither a user nor a @group", quote(s));
            check.bad(at, path, message, "write users by name and groups as \"@name\"");
            good = false;
        }
    }
    good.then_some(list)
}

/// A whole number within bounds.
pub(super) fn int(check: &mut Check<'_>, path: &str, node: &Node, min: i64, max: i64) -> Option<i64> {
    let Value::Int(n) = node.value else {
        return mistyped(check, path, node, "a whole number");
    };
    match n {
        Some(n) if (min..=max).contains(&n) => Some(n),
        _ => {
            check.bad(&node.at, path, format!("{} must be between {min} and {max}", last(path)), "");
            None
        }
    }
}

/// A number within bounds.
pub(super) fn number(check: &mut Check<'_>, path: &str, node: &Node, min: f64, max: f64) -> Option<f64> {
    let n = match node.value {
        Value::Int(Some(n)) => n as f64,
        Value::Float(Some(n)) => n,
        Value::Int(None) | Value::Float(None) => f64::NAN,
        _ => return mistyped(check, path, node, "a number"),
    };
    if n >= min && n <= max {
        return Some(n);
    }
    let bounds = if min == f64::MIN { "finite".to_owned() } else { format!("between {min} and {max}") };
    check.bad(&node.at, path, format!("{} must be {bounds}", last(path)), "");
    None
}

fn duration(check: &mut Check<'_>, path: &str, node: &Node, min: u64, max: u64) -> Option<i64> {
    if let Value::Int(n) = node.value {
        let help = format!("write \"{}s\" for seconds, or another unit", n.unwrap_or(10).max(0));
        check.bad(&node.at, path, format!("{} has no unit", last(path)), &help);
        return None;
    }
    let Value::Text(_) = node.value else {
        return mistyped(check, path, node, "a duration, as \"90s\" or \"5m\"");
    };
    let ms = by(check, path, node, values::duration)?;
    bounded(check, path, node, ms, (min, max), values::show_duration)
}

fn size(check: &mut Check<'_>, path: &str, node: &Node, min: u64, max: u64) -> Option<i64> {
    let bytes = match &node.value {
        Value::Int(n) => n.and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX),
        Value::Text(_) => by(check, path, node, values::size)?,
        _ => return mistyped(check, path, node, "a size, as \"300M\""),
    };
    bounded(check, path, node, bytes, (min, max), values::show_size)
}

fn bounded(
    check: &mut Check<'_>,
    path: &str,
    node: &Node,
    n: u64,
    (min, max): (u64, u64),
    show: fn(u64) -> String,
) -> Option<i64> {
    if (min..=max).contains(&n) {
        return i64::try_from(n).ok();
    }
    let message = format!("{} must be between {} and {}", last(path), show(min), show(max));
    check.bad(&node.at, path, message, "");
    None
}

fn choice(check: &mut Check<'_>, path: &str, node: &Node, words: &[&str]) -> Option<String> {
    let s = text(check, path, node)?;
    if words.contains(&s.as_str()) {
        return Some(s);
    }
    let listed: Vec<String> = words.iter().map(|w| quote(w)).collect();
    let message = format!("{} cannot be {}", last(path), quote(&s));
    let near = super::keys::suggest(&s, words.iter().copied());
    let near = near.map(|w| format!("did you mean {}? ", quote(w))).unwrap_or_default();
    check.bad(&node.at, path, message, &format!("{near}it is one of {}", listed.join(", ")));
    None
}

fn address(
    check: &mut Check<'_>,
    path: &str,
    node: &Node,
    words: &[&str],
    schemes: &[&str],
) -> Option<String> {
    let s = text(check, path, node)?;
    if words.contains(&s.as_str()) {
        return Some(s);
    }
    let scheme = s.split_once("://").map(|(scheme, _)| scheme);
    let of_redis = |s: &str| redis::SCHEMES.contains(&s) || s.starts_with("redis") || s.starts_with("valkey");
    if scheme.is_some_and(of_redis) {
        // A reference that is none is told of where credentials are looked at.
        credential::pieces(&s).ok()?;
        if let Err(wrong) = redis::Address::parse(&s) {
            check.bad(&node.at, path, format!("{} {}", last(path), wrong.message), &wrong.help);
            return None;
        }
    }
    if last(path) == SERVED && scheme.is_some_and(|scheme| redis::SCHEMES.contains(&scheme)) {
        return Some(s);
    }
    // The rest of an address may hold a password: only its scheme is shown.
    if let Some(scheme) = scheme.filter(|scheme| schemes.contains(scheme)) {
        check.not_yet(&node.at, path, &format!("{} = \"{scheme}://…\"", last(path).trim_matches('`')));
        return None;
    }
    let mut known: Vec<String> = words.iter().map(|w| quote(w)).collect();
    known.extend(schemes.iter().map(|s| format!("\"{s}://…\"")));
    let message = format!("{} has a value that is not known", last(path));
    check.bad(&node.at, path, message, &format!("it is one of {}", known.join(", ")));
    None
}

pub(super) fn items<'n>(check: &mut Check<'_>, path: &str, node: &'n Node) -> Option<&'n [Node]> {
    match &node.value {
        Value::Array(items) => Some(items),
        _ => mistyped(check, path, node, "a list in [ ]"),
    }
}

/// Whether JSON can say this, and means the same.
fn is_json(check: &mut Check<'_>, path: &str, node: &Node) -> bool {
    match &node.value {
        Value::Int(None) | Value::Float(None) => {
            check.bad(&node.at, path, "a number that does not fit 64 bits".to_owned(), "write it as a text");
            false
        }
        Value::Time(text) => {
            let help = format!("write a text: {}", quote(text));
            check.bad(&node.at, path, "JSON has no dates and times".to_owned(), &help);
            false
        }
        Value::Array(items) => items.iter().filter(|n| is_json(check, path, n)).count() == items.len(),
        Value::Table(t) => {
            t.entries.iter().filter(|e| is_json(check, path, &e.node)).count() == t.entries.len()
        }
        Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::Float(_) => true,
    }
}

/// The table that must stand here.
pub(super) fn table<'n>(check: &mut Check<'_>, path: &str, node: &'n Node) -> Option<&'n Table> {
    match &node.value {
        Value::Table(t) => Some(t),
        _ => mistyped(check, path, node, "a table"),
    }
}

fn texts(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    let items = items(check, path, node)?;
    let good: Vec<_> = items.iter().filter_map(|n| Some((text(check, path, n)?, n.at.clone()))).collect();
    (good.len() == items.len()).then_some(good)
}

/// A program and its arguments: arguments may be empty, the program may not.
pub(super) fn argv(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    if let Value::Text(_) = node.value {
        let help =
            "write a list, as [\"/usr/bin/program\", \"argument\"], or use `command` for a shell's text";
        check.bad(&node.at, path, format!("{} must be a list of strings", last(path)), help);
        return None;
    }
    let items = items(check, path, node)?;
    if items.is_empty() {
        check.bad(&node.at, path, format!("{} is empty", last(path)), "its first element is the program");
        return None;
    }
    let mut out = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match &item.value {
            Value::Text(s) if i > 0 && no_nul(check, path, &item.at, s) => {
                out.push((s.clone(), item.at.clone()))
            }
            Value::Text(_) if i > 0 => {}
            _ => out.extend(text(check, path, item).map(|s| (s, item.at.clone()))),
        }
    }
    (out.len() == items.len()).then_some(out)
}

fn codes(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<i32>> {
    let items = items(check, path, node)?;
    let mut out = Vec::new();
    for item in items {
        let code = int(check, path, item, 1, 255).and_then(|n| i32::try_from(n).ok());
        out.extend(code);
    }
    (out.len() == items.len()).then_some(out)
}

fn environment(check: &mut Check<'_>, path: &str, node: &Node) -> Option<BTreeMap<String, String>> {
    let table = table(check, path, node)?;
    let mut out = BTreeMap::new();
    for entry in &table.entries {
        let path = format!("{path}.{}", quote_key(&entry.key));
        if !variable(check, &path, &entry.key_at, &entry.key) {
            continue;
        }
        let Value::Text(s) = &entry.node.value else {
            let help = format!(
                "environment variables are texts: write \"{}\"",
                entry.node.value.to_toml().replace('"', "")
            );
            check.bad(&entry.node.at, &path, format!("{} must be a string", last(&path)), &help);
            continue;
        };
        if no_nul(check, &path, &entry.node.at, s) {
            out.insert(entry.key.clone(), s.clone());
        }
    }
    (out.len() == table.entries.len()).then_some(out)
}

/// Whether this can be the name of an environment variable that is not taskd's own.
fn variable(check: &mut Check<'_>, path: &str, at: &At, s: &str) -> bool {
    let starts = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let message = format!("{} is no name of an environment variable", quote(s));
        check.bad(at, path, message, "letters, digits and _ make one");
        return false;
    }
    if s.starts_with("TASKD_") {
        check.bad(
            at,
            path,
            format!("`{s}` is set by taskd itself"),
            "choose a name that does not begin with TASKD_",
        );
        return false;
    }
    true
}

/// The same for a variable that is taken over: that of taskd's own credentials leads to what is not for tasks.
fn passable(check: &mut Check<'_>, path: &str, at: &At, s: &str) -> bool {
    if s == DIRECTORY {
        let message =
            format!("`{s}` of taskd itself cannot be passed on: it names the credentials of every task");
        check.bad(at, path, message, "write credentials = [\"NAME\"]: then the task has one of its own");
        return false;
    }
    variable(check, path, at, s)
}

/// Names of credentials, each once.
fn credentials(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    let names = texts(check, path, node)?;
    let mut good: Vec<(String, At)> = Vec::new();
    for (name, at) in &names {
        if let Err(why) = credential::check_name(name) {
            check.bad(at, path, format!("the credential name {} {why}", quote(name)), "");
        } else if good.iter().any(|(known, _)| known == name) {
            check.bad(
                at,
                path,
                format!("the credential {} is named twice", quote(name)),
                "remove one of them",
            );
        } else {
            good.push((name.clone(), at.clone()));
        }
    }
    (good.len() == names.len()).then_some(good)
}

/// A table with keys of its own, all of which come with it.
fn inner(check: &mut Check<'_>, path: &str, node: &Node, keys: &'static [Key]) -> Option<Parsed> {
    let table = table(check, path, node)?;
    let mut values = BTreeMap::new();
    for entry in &table.entries {
        let path = format!("{path}.{}", quote_key(&entry.key));
        match keys.iter().find(|k| k.name == entry.key) {
            Some(key) => {
                if let Some(value) = parse(check, key.kind, &path, &entry.node) {
                    values.insert(key.name, value);
                }
            }
            None => {
                let of = last(path.rsplit_once('.').map_or("", |(p, _)| p));
                check.fault(unknown(&entry.key, &entry.key_at, &path, keys, &of));
            }
        }
    }
    Some(Parsed::Table(values))
}
