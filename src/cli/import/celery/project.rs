//! What a source says to Celery, whatever it is written in.

use super::python::value::Value;
use super::settings::Known;

/// A value, or why it is not known.
pub type Maybe = Result<Value, String>;

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// Periodic tasks.
    pub entries: Vec<Entry>,
    /// Routes, exact names before patterns.
    pub routes: Vec<Part>,
    /// Annotations by task.
    pub annotations: Vec<Part>,
    /// Functions that are tasks.
    pub tasks: Vec<Task>,
    /// Other settings.
    pub settings: Vec<(Known, Part)>,
    /// What of it was said before and does not count any more, or was put together: sentences.
    pub notes: Vec<String>,
    /// What could not be read.
    pub odd: Vec<(String, String)>,
}

/// A named value and its place.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Maybe,
    /// As it stands there.
    pub source: String,
}

/// A periodic task.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Comments above it.
    pub comments: Vec<String>,
    /// `task`, `schedule`, `args`, `kwargs`, `options` and so on.
    pub fields: Vec<(String, Maybe)>,
    /// As it stands there.
    pub source: String,
}

impl Entry {
    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Maybe> {
        self.fields.iter().rfind(|(n, _)| n == name).map(|(_, v)| v)
    }
}

/// A function that is a task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its whole name.
    pub name: String,
    /// The name was put together from the file's and the function's.
    pub guessed: bool,
    /// The decorator's options.
    pub options: Vec<(String, Maybe)>,
    /// The decorator.
    pub source: String,
}

impl Project {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.routes.is_empty()
            && self.annotations.is_empty()
            && self.tasks.is_empty()
            && self.settings.is_empty()
            && self.odd.is_empty()
    }
}
