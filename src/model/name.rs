//! Names and ids: one rule for all of them, so that none can become a path, a key or a command.

use serde::{Deserialize, Serialize};

/// Longest name or id, in bytes.
pub const MAX_LEN: usize = 128;

/// Why a string is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The string is empty.
    #[error("is empty")]
    Empty,
    /// The string is longer than [`MAX_LEN`] bytes.
    #[error("is longer than {MAX_LEN} bytes")]
    TooLong,
    /// A character outside `[A-Za-z0-9_.:-]` stands at this byte offset.
    #[error("has the character {0:?}; allowed are letters, digits and _ . : -")]
    Char(char),
    /// The first character is not a letter, digit or underscore.
    #[error("must begin with a letter, a digit or _")]
    Start,
}

/// Checks a task, queue, pool or schedule name, or a message id: `[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}`.
///
/// # Errors
/// The first rule that the string breaks.
pub fn check(s: &str) -> Result<(), NameError> {
    let first = s.chars().next().ok_or(NameError::Empty)?;
    if s.len() > MAX_LEN {
        return Err(NameError::TooLong);
    }
    if let Some(c) = s.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-'))) {
        return Err(NameError::Char(c));
    }
    if first.is_ascii_alphanumeric() || first == '_' { Ok(()) } else { Err(NameError::Start) }
}

/// The longest pattern among these that matches a task name; names without a wildcard are not looked at.
#[must_use]
pub fn longest_pattern<'a>(declared: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    declared.filter(|d| d.contains(['*', '?']) && glob_matches(d, name)).max_by_key(|d| d.len())
}

/// Whether a glob of `[[routes]]` matches a task name: `*` is any run of characters (dots too), `?` any one.
#[must_use]
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let (mut g, mut n) = (glob.chars(), name.chars());
    // Where to go on when a later character does not fit: after the latest `*`, one character further.
    let mut back: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let at_n = n.clone();
        match (g.next(), n.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                n = at_n.clone();
                back = Some((g.clone(), at_n));
            }
            (Some('?'), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => {
                let Some((after_star, mut from)) = back.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                g = after_star.clone();
                n = from.clone();
                back = Some((after_star, from));
            }
        }
    }
}

/// The id of a message: a UUIDv7 made by the client, or whatever a client gave that [`check`] accepts.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct MessageId(pub String);

impl MessageId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a follow-up message: UUIDv5 over (parent id, kind, index), the same at every redo.
    #[must_use]
    pub fn follow_up(&self, kind: &str, index: u32) -> Self {
        let name = format!("{}\0{kind}\0{index}", self.0);
        Self(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string())
    }

    /// The ids of the steps of this workflow.
    #[must_use]
    pub fn steps(&self) -> StepIds {
        let mut bytes =
            uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{}\0step", self.0).as_bytes())
                .into_bytes();
        let timed = uuid::Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7);
        if let Some(id) = timed {
            // The time of an UUIDv7 (RFC 9562): steps stand behind the messages before them.
            for (byte, of) in bytes.iter_mut().zip(id.as_bytes()).take(6) {
                *byte = *of;
            }
        }
        StepIds(bytes)
    }
}

/// The ids of a workflow's steps: UUIDv8, the same whenever they are made, and in the order of the steps. An index over
/// ids gets those of a large workflow side by side, where UUIDv5 would change another page of it for each.
#[derive(Clone, Copy, Debug)]
pub struct StepIds([u8; 16]);

impl StepIds {
    /// The id of the step with this number.
    #[must_use]
    pub fn id(&self, no: u32) -> MessageId {
        let mut bytes = self.0;
        for (byte, of) in bytes.iter_mut().skip(12).zip(no.to_be_bytes()) {
            *byte = of;
        }
        MessageId(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_or_keys_are_refused() {
        for bad in ["", "../x", "a/b", "a b", "é", "-x", ".x", "a\0", &"x".repeat(129)] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "payment.capture", "_x", "0198-ab:c", &"x".repeat(128)] {
            assert_eq!(check(good), Ok(()), "{good:?} was refused");
        }
    }

    #[test]
    fn globs_cross_dots_and_back_up() {
        for (glob, name, fits) in [
            ("payment.*", "payment.capture.card", true),
            ("payment.*", "payments", false),
            ("*", "", true),
            ("*.card", "payment.card.card", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(glob_matches(glob, name), fits, "{glob} {name}");
        }
    }

    #[test]
    fn follow_up_ids_are_stable_and_distinct() {
        let id = MessageId("parent".into());
        assert_eq!(id.follow_up("chain", 0), id.follow_up("chain", 0));
        assert_ne!(id.follow_up("chain", 0), id.follow_up("chain", 1));
        assert_ne!(id.follow_up("chain", 0), id.follow_up("link", 0));
    }

    #[test]
    fn ids_of_steps_are_stable_and_in_order() {
        let ids: Vec<MessageId> = (0..300).map(|no| MessageId("w".into()).steps().id(no)).collect();
        assert_eq!(ids[7], MessageId("w".into()).steps().id(7));
        assert!(ids.is_sorted() && ids[0] != ids[1]);
        assert_ne!(ids[0], MessageId("v".into()).steps().id(0));
        let timed = MessageId("0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f".into());
        let id = timed.steps().id(1).0;
        assert!(id.starts_with("0198f0aa-7c1e-8") && id.ends_with("00000001"), "{id}");
    }
}
