//! Objects and arrays put together from values that are text already.

use super::{Raw, text};

/// An object in the making.
#[derive(Clone, Debug)]
pub struct Object {
    text: String,
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Object {
    /// An object without members.
    #[must_use]
    pub fn new() -> Self {
        Self { text: "{".to_owned() }
    }

    pub(super) fn put(&mut self, name: &str, value: &str) {
        if self.text.len() > 1 {
            self.text.push_str(", ");
        }
        self.text.push_str(&text::encode(name));
        self.text.push_str(": ");
        self.text.push_str(value);
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: &Raw) -> Self {
        self.put(name, value.text());
        self
    }

    /// Adds a string.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.with(name, &Raw::of_text(value))
    }

    /// Adds a string, or null.
    #[must_use]
    pub fn option(self, name: &str, value: Option<&str>) -> Self {
        self.with(name, &Raw::of_option(value))
    }

    /// Adds an integer.
    #[must_use]
    pub fn int(self, name: &str, value: i64) -> Self {
        self.with(name, &Raw::of_int(value))
    }

    /// Adds a float.
    #[must_use]
    pub fn float(self, name: &str, value: f64) -> Self {
        self.with(name, &Raw::of_float(value))
    }

    /// Adds a truth value.
    #[must_use]
    pub fn bool(self, name: &str, value: bool) -> Self {
        self.with(name, &Raw::of_bool(value))
    }

    /// Adds a null.
    #[must_use]
    pub fn null(self, name: &str) -> Self {
        self.with(name, &Raw::null())
    }

    /// The object.
    #[must_use]
    pub fn done(mut self) -> Raw {
        self.text.push('}');
        Raw(self.text.into())
    }
}

/// An array of these values.
#[must_use]
pub fn list<'a>(items: impl IntoIterator<Item = &'a Raw>) -> Raw {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(item.text());
    }
    text.push(']');
    Raw(text.into())
}

/// An array of strings.
#[must_use]
pub fn texts<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Raw {
    let raws: Vec<Raw> = items.into_iter().map(|item| Raw::of_text(item.as_ref())).collect();
    list(&raws)
}
