//! What is wrong with a text that was to be an expression or a zone.

use std::ops::Range;

/// Why a text cannot be used, where in it, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong: a phrase that follows the name of what was read, as `has 4 fields, not 5`.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// The bytes of the text that are wrong, where it is not the whole.
    pub span: Option<Range<usize>>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), span: None }
    }

    /// The same about these bytes.
    pub(super) fn at(mut self, start: usize, part: &str) -> Self {
        self.span = Some(start..start.saturating_add(part.len()));
        self
    }
}
