//! Chords on Redis: how their members are counted, and what they are joined to.

use super::exception::Exception;
use super::meta::Status;
use crate::celery::fault::{Wrong, kind};
use crate::celery::json::build::list;
use crate::celery::json::{Json, Raw};
use crate::celery::signature::MAX_NESTING;

/// The key of a saved group: nested groups in a header are joined after it.
#[must_use]
pub fn group_key(group: &str) -> String {
    format!("celery-taskset-meta-{group}")
}

/// The sorted set of members that ended: their place as score, a [`Part`] as member.
#[must_use]
pub fn parts_key(group: &str) -> String {
    group_key(group) + ".j"
}

/// How much the size changed while it ran: a member put several in its place.
#[must_use]
pub fn change_key(group: &str) -> String {
    group_key(group) + ".t"
}

/// How many members there are.
#[must_use]
pub fn size_key(group: &str) -> String {
    group_key(group) + ".s"
}

/// Which members were counted: a set of `id:score`, so that none is counted twice.
#[must_use]
pub fn seen_key(group: &str) -> String {
    group_key(group) + ".d"
}

/// Who sends the body: a token while it is done, then `done`.
#[must_use]
pub fn claim_key(group: &str) -> String {
    group_key(group) + ".c"
}

/// The score of a place; members without one stand behind all others, in the order of their text.
#[must_use]
pub fn score(index: Option<i64>) -> String {
    index.map_or_else(|| "+inf".to_owned(), |index| index.to_string())
}

/// A member that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its id.
    pub id: String,
    /// Its state.
    pub status: Status,
    /// Its result, or its exception.
    pub result: Raw,
}

/// What the members come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Joined {
    /// All succeeded: their results in order.
    Results(Vec<Raw>),
    /// One did not: what the body gets.
    Failed(Exception),
}

impl Part {
    /// The entry: `[1, id, state, result]`.
    #[must_use]
    pub fn write(&self) -> Raw {
        list([&Raw::of_int(1), &Raw::of_text(&self.id), &Raw::of_text(self.status.word()), &self.result])
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// It is no such array.
    pub fn read(bytes: &[u8]) -> Result<Self, Wrong> {
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "chord's part" })?;
        let json = Json::parse(text).map_err(|source| Wrong::Json { part: "chord's part", source })?;
        let wrong = || kind("a chord's part", "[1, id, state, result]");
        let items = json.items().unwrap_or_default();
        let [_, id, status, result] = items.as_slice() else { return Err(wrong()) };
        Ok(Self {
            id: id.as_text().ok_or_else(wrong)?,
            status: Status::of(&status.as_text().ok_or_else(wrong)?),
            result: result.to_raw(),
        })
    }
}

/// Joins the members, in the order of their places.
#[must_use]
pub fn join(parts: &[Part]) -> Joined {
    match parts.iter().find(|part| matches!(part.status, Status::Failure | Status::Revoked)) {
        Some(part) => Joined::Failed(Exception::chord(&part.id, &Exception::read(part.result.json()))),
        None => Joined::Results(parts.iter().map(|part| part.result.clone()).collect()),
    }
}

/// A saved group: ids, and groups inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A task.
    Task(String),
    /// A group, with what is in it.
    Group(String, Vec<Tree>),
}

impl Tree {
    /// Reads what stands under [`group_key`].
    ///
    /// # Errors
    /// It is no result tuple, or nested too deeply.
    pub fn read(bytes: &[u8]) -> Result<Self, Wrong> {
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "group" })?;
        let json = Json::parse(text).map_err(|source| Wrong::Json { part: "group", source })?;
        Self::of(json.get("result").ok_or(Wrong::Missing("the group's result"))?, 0)
    }

    fn of(json: Json<'_>, depth: usize) -> Result<Self, Wrong> {
        if depth > MAX_NESTING {
            return Err(Wrong::Canvas { why: "is nested too deeply" });
        }
        let wrong = || kind("a result tuple", "[[id, parent], members]");
        let items = json.items().unwrap_or_default();
        let [own, members] = items.as_slice() else { return Err(wrong()) };
        let id = match own.items() {
            Some(own) => own.first().and_then(|id| id.as_text()),
            None => own.as_text(),
        };
        let id = id.ok_or_else(wrong)?;
        match members.items() {
            None => Ok(Self::Task(id)),
            Some(members) => {
                let members = members.into_iter().map(|member| Self::of(member, depth + 1));
                Ok(Self::Group(id, members.collect::<Result<_, _>>()?))
            }
        }
    }

    /// The group as it is saved.
    #[must_use]
    pub fn write(&self) -> Raw {
        crate::celery::json::build::Object::new().with("result", &self.tuple()).done()
    }

    fn tuple(&self) -> Raw {
        let (id, members) = match self {
            Self::Task(id) => (id, Raw::null()),
            Self::Group(id, members) => (id, list(&members.iter().map(Self::tuple).collect::<Vec<_>>())),
        };
        list([&list([&Raw::of_text(id), &Raw::null()]), &members])
    }

    /// The results in the tree's shape. Absent: one is missing.
    pub fn gather(&self, find: &mut dyn FnMut(&str) -> Option<Raw>) -> Option<Raw> {
        match self {
            Self::Task(id) => find(id),
            Self::Group(_, members) => {
                let results: Option<Vec<Raw>> = members.iter().map(|member| member.gather(find)).collect();
                results.map(|results| list(&results))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_in_order_or_say_who_failed() {
        let part = |text: &str| Part::read(text.as_bytes()).unwrap();
        let (one, two) = (part(r#"[1, "a", "SUCCESS", NaN]"#), part(r#"[1, "b", "SUCCESS", {"x": 1}]"#));
        assert_eq!(one.write().text(), r#"[1, "a", "SUCCESS", NaN]"#);
        let Joined::Results(results) = join(&[one.clone(), two]) else { panic!() };
        assert_eq!(list(&results).text(), r#"[NaN, {"x": 1}]"#);
        let bad = part(
            r#"[1, "c", "FAILURE", {"exc_type": "ValueError", "exc_message": ["bang"], "exc_module": "builtins"}]"#,
        );
        let Joined::Failed(error) = join(&[one, bad]) else { panic!() };
        assert_eq!(error.repr(), r#"ChordError("Dependency c raised ValueError('bang')")"#);
        assert!(Part::read(b"[1, 2]").is_err());
    }

    #[test]
    fn a_saved_group_keeps_its_shape() {
        let text =
            r#"{"result": [["g", null], [[["a", null], null], [["h", null], [[["b", null], null]]]]]}"#;
        let tree = Tree::read(text.as_bytes()).unwrap();
        assert_eq!(tree.write().text(), text);
        let gathered = tree.gather(&mut |id| Some(Raw::of_text(id))).unwrap();
        assert_eq!(gathered.text(), r#"["a", ["b"]]"#);
        assert_eq!(tree.gather(&mut |id| (id == "a").then(Raw::null)), None);
        let deep = format!("{{\"result\": {}{}}}", "[[\"g\", null], [".repeat(100), "]]".repeat(100));
        assert!(Tree::read(deep.as_bytes()).is_err());
    }
}
