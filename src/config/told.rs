//! Values of the keys that say who is told.

use super::check::Check;
use super::credential::{self, Piece};
use super::keys::Kind;
use super::kind::{argv, by, last, mistyped, text};
use super::notify;
use super::section::Parsed;
use super::tree::{At, Node, Value, quote};
use super::values;

/// Most times of a day.
const MAX_TIMES: usize = 24;

/// Checks a value of one of these kinds; absent (and a fault noted) where it is wrong.
pub(super) fn parse(check: &mut Check<'_>, kind: Kind, path: &str, node: &Node) -> Option<Parsed> {
    match kind {
        Kind::TimesOfDay => times(check, path, node).map(Parsed::Times),
        Kind::Program => program(check, path, node).map(Parsed::Many),
        Kind::Webhook => {
            let url = text(check, path, node)?;
            match notify::url_fault(&url) {
                Some((why, help)) => refuse(check, path, node, why, help),
                None => Some(Parsed::Text(url)),
            }
        }
        Kind::Secret => {
            let secret = text(check, path, node)?;
            let pieces = credential::pieces(&secret).unwrap_or_default();
            if pieces.iter().any(|p| matches!(p, Piece::Credential(_))) || credential::is_in(&secret) {
                return Some(Parsed::Text(secret));
            }
            let help = "write \"${credential:NAME}\", and LoadCredential=NAME:/path/of/the/file in the unit";
            refuse(check, path, node, "must be a credential: the config can be read and is shown", help)
        }
        Kind::Mail => mail(check, path, node).map(|(address, _)| Parsed::Text(address)),
        Kind::Mails => match &node.value {
            Value::Array(items) if items.is_empty() => refuse(check, path, node, "is empty", "name somebody"),
            Value::Array(items) => {
                let good: Vec<_> = items.iter().filter_map(|n| mail(check, path, n)).collect();
                (good.len() == items.len()).then_some(Parsed::Many(good))
            }
            _ => mail(check, path, node).map(|one| Parsed::Many(vec![one])),
        },
        _ => None,
    }
}

fn refuse<T>(check: &mut Check<'_>, path: &str, node: &Node, why: &str, help: &str) -> Option<T> {
    check.bad(&node.at, path, format!("{} {why}", last(path)), help);
    None
}

fn mail(check: &mut Check<'_>, path: &str, node: &Node) -> Option<(String, At)> {
    let address = text(check, path, node)?;
    if notify::is_mail(&address) {
        return Some((address, node.at.clone()));
    }
    let help = "write the address alone, as \"ops@example.org\", or a user of this machine";
    check.bad(&node.at, path, format!("{} is no mail address", quote(&address)), help);
    None
}

fn program(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(String, At)>> {
    let argv = argv(check, path, node)?;
    let (first, at) = argv.first()?;
    if first.starts_with('/') {
        return Some(argv);
    }
    check.bad(at, path, format!("{} is not an absolute path", quote(first)), "begin it with /");
    None
}

fn times(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<u32>> {
    let one = |check: &mut Check<'_>, node: &Node| by(check, path, node, values::time_of_day);
    let mut times = match &node.value {
        Value::Text(_) => vec![one(check, node)?],
        Value::Array(items) if items.is_empty() || items.len() > MAX_TIMES => {
            return refuse(check, path, node, "must have 1 to 24 times", "give one, as \"06:00\"");
        }
        Value::Array(items) => {
            let good: Vec<u32> = items.iter().filter_map(|n| one(check, n)).collect();
            (good.len() == items.len()).then_some(good)?
        }
        _ => return mistyped(check, path, node, "a time of day as \"06:00\", or a list of some"),
    };
    times.sort_unstable();
    times.dedup();
    Some(times)
}
