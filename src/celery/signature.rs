//! Signatures: calls that are planned inside a call, plain ones and containers of others.

use super::fault::{Wrong, kind};
use super::json::build::{Object, list};
use super::json::{Fields, Json, Kind, Raw};

/// Deepest nesting of containers that is expanded.
pub const MAX_NESTING: usize = 64;

/// A planned call. Members that are not listed here are carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The task's name; a container's is one of Celery's own.
    pub task: String,
    /// Positional arguments: an array.
    pub args: Raw,
    /// Keyword arguments: an object.
    pub kwargs: Raw,
    /// How it is sent: `task_id`, `queue`, `link`, and so on.
    pub options: Fields,
    /// It is not given the result of what comes before it.
    pub immutable: bool,
    /// The other members: `subtask_type`, and `chord_size` of Celery up to 4.
    pub other: Fields,
}

/// What a signature stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One call.
    Call,
    /// `celery.group`: its tasks at once.
    Group,
    /// `celery.chain`: its tasks one after the other.
    Chain,
    /// `celery.chord`: a header at once, then a body with all results.
    Chord,
    /// `celery.chunks`: a list in parts, each a `celery.starmap`.
    Chunks,
}

impl Signature {
    /// A plain call.
    #[must_use]
    pub fn new(task: &str, args: Raw, kwargs: Raw) -> Self {
        Self {
            task: task.to_owned(),
            args,
            kwargs,
            options: Fields::default(),
            immutable: false,
            other: [("subtask_type".to_owned(), Raw::null())].into_iter().collect(),
        }
    }

    /// Reads a signature. Its tasks, where it is a container, are read when it is expanded.
    ///
    /// # Errors
    /// It is no object with a task's name, or a member is of another kind than it must be.
    pub fn read(json: Json<'_>) -> Result<Self, Wrong> {
        let mut other = Fields::of(json).ok_or_else(|| kind("a signature", "an object"))?;
        let task = other.take("task").and_then(|task| task.json().as_text());
        let task = task.filter(|task| !task.is_empty()).ok_or(Wrong::Missing("a signature's task"))?;
        let mut member = |name: &str, want: Kind, empty: Raw| match other.take(name) {
            Some(value) if value.json().kind() == want => Ok(value),
            None => Ok(empty),
            Some(value) if value.json().is_null() => Ok(empty),
            Some(_) => Err(kind(&format!("{name} of a signature"), want.word())),
        };
        let args = member("args", Kind::List, Raw::empty_list())?;
        let kwargs = member("kwargs", Kind::Object, Raw::empty_object())?;
        let options = member("options", Kind::Object, Raw::empty_object())?;
        let immutable = other.take("immutable").and_then(|said| said.json().as_bool()).unwrap_or(false);
        let options = Fields::of(options.json()).unwrap_or_default();
        Ok(Self { task, args, kwargs, options, immutable, other })
    }

    /// Reads a list of signatures: an array, one alone, or null.
    ///
    /// # Errors
    /// As [`Signature::read`].
    pub fn read_list(json: Json<'_>) -> Result<Option<Vec<Self>>, Wrong> {
        match json.kind() {
            Kind::Null => Ok(None),
            Kind::List => {
                let items = json.items().unwrap_or_default();
                items.into_iter().map(Self::read).collect::<Result<_, _>>().map(Some)
            }
            _ => Ok(Some(vec![Self::read(json)?])),
        }
    }

    /// The signature as it stands in messages.
    #[must_use]
    pub fn write(&self) -> Raw {
        let mut object = Object::new()
            .text("task", &self.task)
            .with("args", &self.args)
            .with("kwargs", &self.kwargs)
            .with("options", &self.options.to_raw());
        for (name, value) in self.other.iter() {
            object = object.with(name, &value.to_raw());
        }
        object.bool("immutable", self.immutable).done()
    }

    /// What it stands for. Celery's readers go by `subtask_type`; its tasks of these names are the same thing.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let kind = self.other.text("subtask_type");
        match (kind.as_deref(), self.task.as_str()) {
            (Some("group"), _) | (None, "celery.group") => Shape::Group,
            (Some("chain"), _) | (None, "celery.chain") => Shape::Chain,
            (Some("chord"), _) | (None, "celery.chord") => Shape::Chord,
            (Some("chunks"), _) | (None, "celery.chunks") => Shape::Chunks,
            _ => Shape::Call,
        }
    }

    /// The tasks of a group or a chain.
    ///
    /// # Errors
    /// They are missing, or one of them is no signature.
    pub fn tasks(&self) -> Result<Vec<Self>, Wrong> {
        let tasks = self.kwargs.json().get("tasks").ok_or(Wrong::Missing("the tasks of a container"))?;
        // A group inside a group's place is one too.
        if tasks.kind() == Kind::Object {
            return match Self::read(tasks)? {
                inner if inner.shape() == Shape::Group => inner.tasks(),
                plain => Ok(vec![plain]),
            };
        }
        Ok(Self::read_list(tasks)?.unwrap_or_default())
    }

    /// The header of a chord: its tasks, and the group's id where it has one.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn header(&self) -> Result<(Vec<Self>, Option<String>), Wrong> {
        let header = self.kwargs.json().get("header").ok_or(Wrong::Missing("the header of a chord"))?;
        if header.kind() == Kind::Object {
            let inner = Self::read(header)?;
            let id = inner.options.text("task_id");
            return match inner.shape() {
                Shape::Group => Ok((inner.tasks()?, id)),
                _ => Ok((vec![inner], None)),
            };
        }
        Ok((Self::read_list(header)?.unwrap_or_default(), None))
    }

    /// The body of a chord.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn body(&self) -> Result<Self, Wrong> {
        let body = self.kwargs.json().get("body").ok_or(Wrong::Missing("the body of a chord"))?;
        Self::read(body)
    }

    /// The id that its sender gave it.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.options.text("task_id").filter(|id| !id.is_empty())
    }

    /// Its arguments behind those that it is given, unless it is immutable.
    #[must_use]
    pub fn args_after(&self, given: &[Raw]) -> Raw {
        if self.immutable || given.is_empty() {
            return self.args.clone();
        }
        let own: Vec<Raw> =
            self.args.json().items().unwrap_or_default().into_iter().map(Json::to_raw).collect();
        list(given.iter().chain(&own))
    }

    /// How many members of a chord it is: the calls whose ends are counted.
    ///
    /// # Errors
    /// A container is malformed or nested too deeply.
    pub fn chord_size(&self, depth: usize) -> Result<usize, Wrong> {
        if depth > MAX_NESTING {
            return Err(Wrong::Canvas { why: "is nested too deeply" });
        }
        match self.shape() {
            Shape::Call => Ok(1),
            Shape::Group => self
                .tasks()?
                .iter()
                .try_fold(0_usize, |sum, task| Ok(sum.saturating_add(task.chord_size(depth + 1)?))),
            Shape::Chain => {
                for task in self.tasks()?.iter().rev() {
                    let size = task.chord_size(depth + 1)?;
                    if size > 0 {
                        return Ok(size);
                    }
                }
                Ok(0)
            }
            Shape::Chord => self.body()?.chord_size(depth + 1),
            Shape::Chunks => Ok(self.chunks()?.len()),
        }
    }

    /// The parts of `celery.chunks`: a `celery.starmap` for each.
    ///
    /// # Errors
    /// Its arguments are not those of chunks.
    pub fn chunks(&self) -> Result<Vec<Self>, Wrong> {
        let kwargs = self.kwargs.json();
        let task = kwargs.get("task").ok_or(Wrong::Missing("the task of celery.chunks"))?;
        let items =
            kwargs.get("it").and_then(Json::items).ok_or_else(|| kind("it of celery.chunks", "an array"))?;
        let size = kwargs.get("n").and_then(Json::as_i64).and_then(|n| usize::try_from(n).ok());
        let size = size.filter(|n| *n > 0).ok_or_else(|| kind("n of celery.chunks", "a positive integer"))?;
        let parts = items.chunks(size).map(|part| {
            let part: Vec<Raw> = part.iter().map(|item| item.to_raw()).collect();
            let kwargs = Object::new().with("task", &task.to_raw()).with("it", &list(&part)).done();
            let mut starmap = Self::new("celery.starmap", Raw::empty_list(), kwargs);
            starmap.options = self.options.filtered(|name| name != "task_id");
            starmap
        });
        Ok(parts.collect())
    }
}

/// The list of these, or null where there is none.
#[must_use]
pub fn write_list(signatures: Option<&[Signature]>) -> Raw {
    signatures.map_or_else(Raw::null, |them| list(&them.iter().map(Signature::write).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(text: &str) -> Result<Signature, Wrong> {
        Signature::read(Json::parse(text).unwrap())
    }

    #[test]
    fn a_signature_is_written_as_it_was() {
        let text = r#"{"task": "a", "args": [NaN], "kwargs": {"k": 1e400}, "options": {"task_id": "x", "my": 1}, "subtask_type": null, "chord_size": 2, "immutable": true}"#;
        assert_eq!(signature(text).unwrap().write().text(), text);
    }

    #[test]
    fn broken_ones_are_refused() {
        for text in [
            "1",
            "{}",
            r#"{"task": 1}"#,
            r#"{"task": "a", "args": {}}"#,
            r#"{"task": "a", "kwargs": []}"#,
            r#"{"task": "a", "options": 1}"#,
        ] {
            assert!(signature(text).is_err(), "{text}");
        }
    }

    #[test]
    fn chords_count_what_ends() {
        let group = r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [{"task": "a"}, {"task": "b"}]}}"#;
        let empty = r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": []}}"#;
        let chain = format!(
            r#"{{"task": "celery.chain", "subtask_type": "chain", "kwargs": {{"tasks": [{{"task": "a"}}, {group}, {empty}]}}}}"#
        );
        let chord = format!(
            r#"{{"task": "celery.chord", "subtask_type": "chord", "kwargs": {{"header": [{chain}], "body": {group}}}}}"#
        );
        for (text, size) in [(group, 2), (empty, 0), (chain.as_str(), 2), (chord.as_str(), 2)] {
            assert_eq!(signature(text).unwrap().chord_size(0), Ok(size), "{text}");
        }
        let chunks = signature(r#"{"task": "celery.chunks", "subtask_type": "chunks", "kwargs": {"task": {"task": "a"}, "it": [[1], [2], [3]], "n": 2}}"#).unwrap();
        assert_eq!(chunks.chord_size(0), Ok(2));
        assert_eq!(chunks.chunks().unwrap()[1].kwargs.text(), r#"{"task": {"task": "a"}, "it": [[3]]}"#);
    }
}
