//! Names that say what a thing does, each once.

use std::collections::BTreeSet;

/// Longest name that is made; `-2` and so on come to it.
const LONGEST: usize = 60;

/// The names that are taken.
#[derive(Clone, Debug, Default)]
pub struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// A name like this text that is not taken yet: `backup`, `backup-2`, …
    pub fn give(&mut self, wanted: &str) -> String {
        let base = slug(wanted);
        let mut name = base.clone();
        let mut n = 1_usize;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{base}-{n}");
        }
        name
    }

    /// Takes a name as it is, if taskd accepts it and it is free.
    pub fn take(&mut self, name: &str) -> bool {
        crate::model::name::check(name).is_ok() && self.taken.insert(name.to_owned())
    }
}

/// Letters, digits, `_` and `-` of a text, the rest as single `-`; `task` where nothing is left.
#[must_use]
pub fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        if !(c == '-' && out.ends_with('-')) {
            out.push(c);
        }
        if out.len() >= LONGEST {
            break;
        }
    }
    let trimmed = out.trim_matches('-');
    if trimmed.is_empty() { "task".to_owned() } else { trimmed.to_owned() }
}

/// A queue of Celery's under the name that it has here: taskd's own `default` is for commands, and a worker that
/// drained it would take them.
#[must_use]
pub fn queue(name: &str) -> &str {
    if name == "default" { "celery-default" } else { name }
}

/// What there is to say where [`queue`] changed a name.
pub const RENAMED: &str =
    "The queue `default` is `celery-default` here: taskd's own queue of that name is for commands.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legible_and_unique() {
        let mut names = Names::default();
        assert_eq!(names.give("backup"), "backup");
        assert_eq!(names.give("backup"), "backup-2");
        assert_eq!(names.give("backup-2"), "backup-2-2");
        assert_eq!(names.give("Ünïcode & more!"), "n-code-more");
        assert_eq!(names.give("***"), "task");
        assert!(names.take("shop.add") && !names.take("shop.add") && !names.take("a b"));
        assert!(crate::model::name::check(&names.give(&"x".repeat(500))).is_ok());
    }
}
