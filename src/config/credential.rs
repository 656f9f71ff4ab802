//! Names of credentials, and `${credential:NAME}` inside a text.

use std::collections::BTreeSet;

use super::secret::Secrets;
use super::settings::Settings;
use crate::model::task::Surroundings;

/// How a reference begins.
const OPEN: &str = "${credential:";

/// Longest name, in bytes (a file name of Linux).
const MAX_NAME: usize = 255;

/// Whether this can be the name of a credential: systemd's rules (systemd.exec(5): a file name in ASCII that
/// can also stand before a colon).
///
/// # Errors
/// Why not, to follow the name in a sentence.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_NAME {
        return Err("is longer than 255 bytes");
    }
    if matches!(name, "." | "..") || name.contains('/') {
        return Err("is no file name: a credential is one file, so no / and neither . nor ..");
    }
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b':') {
        return Err(
            "has a character that systemd does not take: ASCII without : and control characters only",
        );
    }
    Ok(())
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Itself.
    Text(&'a str),
    /// The value of the credential of this name.
    Credential(&'a str),
}

/// A reference that cannot be one: what stands there, and why, to follow it in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// As it is written.
    pub written: String,
    /// Why.
    pub why: &'static str,
}

/// The pieces of a text. Only the exact form `${credential:NAME}` is a reference; `$${credential:` is the
/// text `${credential:`, and every other `$` is itself.
///
/// # Errors
/// The first reference without an end, or with a name that no credential can have.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Malformed> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        if let Some(before) = before.strip_suffix('$') {
            found.extend([Piece::Text(before), Piece::Text(OPEN)]);
            rest = after;
            continue;
        }
        let Some((name, tail)) = after.split_once('}') else {
            return Err(Malformed { written: OPEN.to_owned(), why: "has no } that ends it" });
        };
        check_name(name).map_err(|why| Malformed { written: format!("{OPEN}{name}}}"), why })?;
        found.extend([Piece::Text(before), Piece::Credential(name)]);
        rest = tail;
    }
    found.push(Piece::Text(rest));
    Ok(found)
}

/// The names of the credentials that a text refers to; none where it is malformed.
#[must_use]
pub fn names(text: &str) -> Vec<&str> {
    let found = pieces(text).unwrap_or_default();
    found
        .into_iter()
        .filter_map(|p| if let Piece::Credential(name) = p { Some(name) } else { None })
        .collect()
}

/// Whether a text holds a reference, well-formed or not.
#[must_use]
pub fn is_in(text: &str) -> bool {
    pieces(text).map_or(true, |found| found.iter().any(|p| matches!(p, Piece::Credential(_))))
}

/// The text with the values in it.
///
/// # Errors
/// The credential that is not there or cannot stand in a text; a sentence without any value.
pub fn expand(text: &str, secrets: &Secrets) -> Result<String, String> {
    let pieces = pieces(text).map_err(|bad| format!("{} {}", bad.written, bad.why))?;
    let mut out = String::with_capacity(text.len());
    for piece in pieces {
        out.push_str(match piece {
            Piece::Text(text) => text,
            Piece::Credential(name) => {
                let secret =
                    secrets.get(name).ok_or_else(|| format!("the credential {name:?} is not there"))?;
                secret.text().map_err(|why| format!("the credential {name:?} cannot be used: {why}"))?
            }
        });
    }
    Ok(out)
}

/// The text of a URL with the values in it, percent-encoded (RFC 3986, section 2.1): no character of a password means
/// anything there.
///
/// # Errors
/// As [`expand`].
pub fn expand_in_url(text: &str, secrets: &Secrets) -> Result<String, String> {
    let pieces = pieces(text).map_err(|bad| format!("{} {}", bad.written, bad.why))?;
    let mut out = String::with_capacity(text.len());
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Credential(name) => {
                for byte in expand(&format!("${{credential:{name}}}"), secrets)?.bytes() {
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                        out.push(char::from(byte));
                    } else {
                        out.push_str(&format!("%{byte:02X}"));
                    }
                }
            }
        }
    }
    Ok(out)
}

/// The credentials that a process with these surroundings needs: those whose files it sees, and those in the
/// values of its environment.
#[must_use]
pub fn needed_by(surroundings: &Surroundings) -> BTreeSet<&str> {
    let files = surroundings.credentials.iter().map(String::as_str);
    files.chain(surroundings.environment.values().flat_map(|value| names(value))).collect()
}

/// Every credential that these settings need.
#[must_use]
pub fn needed(settings: &Settings) -> BTreeSet<&str> {
    let addresses = [&settings.taskd.broker, &settings.taskd.results];
    let tasks = settings.surroundings().flat_map(|(_, around, _)| needed_by(around));
    tasks.chain(addresses.into_iter().flat_map(|text| names(text))).collect()
}

/// Whether a task or a worker of these settings sees credentials as files.
#[must_use]
pub fn has_files(settings: &Settings) -> bool {
    settings.surroundings().any(|(_, around, _)| !around.credentials.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_reference() {
        for plain in [
            "",
            "$HOME",
            "${HOME}",
            "$$",
            "{credential:a}",
            "$credential:a",
            "${credentials:a}",
            "${ credential:a}",
        ] {
            assert!(!is_in(plain), "{plain}");
            assert_eq!(expand(plain, &Secrets::default()).unwrap(), plain);
        }
        let mut secrets = Secrets::default();
        secrets.insert("a b}"[..3].trim_end(), Secret::new(b"one\n".to_vec()));
        secrets.insert("x", Secret::new(b"${credential:a b}".to_vec()));
        for (text, wanted) in [
            ("${credential:x}", "${credential:a b}"),
            ("pre ${credential:a b} $HOME", "pre one $HOME"),
            ("$${credential:x}", "${credential:x}"),
            ("$${credential:", "${credential:"),
            ("a$$${credential:x}", "a$${credential:x}"),
            ("${credential:a b}${credential:a b}", "oneone"),
        ] {
            assert_eq!(expand(text, &secrets).as_deref(), Ok(wanted), "{text}");
        }
        assert!(expand("${credential:gone}", &secrets).unwrap_err().contains("gone"));
        assert_eq!(names("${credential:x}, ${credential:y} $${credential:z}"), ["x", "y"]);
    }

    #[test]
    fn what_is_meant_as_a_reference_and_is_none_is_told() {
        for (text, why) in [
            ("${credential:", "no }"),
            ("${credential:}", "empty"),
            ("${credential:../passwd}", "file name"),
            ("${credential:..}", "file name"),
            ("${credential:a:b}", "systemd"),
            ("${credential:é}", "systemd"),
            (&format!("${{credential:{}}}", "x".repeat(256)), "255"),
        ] {
            assert!(is_in(text));
            assert!(pieces(text).unwrap_err().why.contains(why), "{text}");
        }
        assert!(pieces(&format!("${{credential:{}}}", "x".repeat(255))).is_ok());
    }

    #[test]
    fn names_are_collected_from_lists_and_values() {
        let mut surroundings =
            Surroundings { credentials: vec!["smtp".to_owned()], ..Surroundings::default() };
        surroundings.environment.insert("A".to_owned(), "x${credential:key}".to_owned());
        surroundings.environment.insert("B".to_owned(), "$${credential:no}".to_owned());
        assert_eq!(needed_by(&surroundings), ["key", "smtp"].into());
    }
}
