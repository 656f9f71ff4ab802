//! Uniqueness: what a task declares, what a message claims, and the text that stands for its arguments.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::Message;
use super::params;
use super::task::Task;

/// Keys longer than this, in bytes, are kept as a hash: every claim is a row of an index.
const LONGEST_KEY: usize = 200;

/// While what a message holds its key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// From its acceptance to the start of its first attempt.
    Queued,
    /// While an attempt of it runs.
    Running,
    /// From its acceptance to its final state.
    #[default]
    Both,
}

impl Holds {
    /// The word of the config file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Both => "both",
        }
    }
}

/// What becomes of a message whose key is held by another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It is not stored; the answer is the holder.
    #[default]
    Return,
    /// It is refused, with all that was enqueued with it.
    Error,
    /// A holder that waits is ended (REVOKED) and it is stored; one that runs is answered as by `Return`.
    Replace,
}

impl OnConflict {
    /// The word of the config file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Return => "return",
            Self::Error => "error",
            Self::Replace => "replace",
        }
    }
}

/// What a task declares with `unique`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The parameters whose values must differ; empty: all arguments.
    pub key: Vec<String>,
    /// `while`.
    pub holds: Holds,
    /// A key is held at most this long after its message was accepted, in milliseconds.
    pub period_ms: Option<u64>,
    /// `on_conflict`.
    pub on_conflict: OnConflict,
}

/// What a message claims, by the settings at the time when it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The task and the values that must differ.
    pub key: String,
    /// While what it holds the key.
    #[serde(rename = "while")]
    pub holds: Holds,
    /// At most this long after its acceptance, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_ms: Option<u64>,
    /// What becomes of it where another message holds the key.
    pub on_conflict: OnConflict,
}

impl Unique {
    /// What a message of this task claims.
    #[must_use]
    pub fn claim(&self, task: &Task, message: &Message) -> Claim {
        Claim {
            key: self.key_of(task, message),
            holds: self.holds,
            period_ms: self.period_ms,
            on_conflict: self.on_conflict,
        }
    }

    fn key_of(&self, task: &Task, message: &Message) -> String {
        let mut call = named(task, &message.args, &message.kwargs);
        if !self.key.is_empty() {
            call = match call {
                Value::Object(values) => {
                    // What is not given counts as a value too: null.
                    let of = |name: &String| values.get(name).cloned().unwrap_or(Value::Null);
                    Value::Object(self.key.iter().map(|name| (name.clone(), of(name))).collect())
                }
                other => other,
            };
        }
        // Not the declaration's name, which may be a pattern.
        let key = format!("{} {call}", message.task);
        if key.len() <= LONGEST_KEY {
            return key;
        }
        let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes());
        format!("{} #{}", message.task, hash.simple())
    }
}

/// The arguments of a call by name, in their declared types and with their defaults, so that two ways to write one
/// call are the same; positional arguments beyond the declared parameters stand as a list under the empty name.
fn named(task: &Task, args: &[Value], kwargs: &Map<String, Value>) -> Value {
    let (args, kwargs) = match params::bind(task, args, kwargs) {
        Ok(bound) => (bound.args, bound.kwargs),
        // It does not fit the declaration (any more): what it says stands for itself.
        Err(_) => (args.to_vec(), kwargs.clone()),
    };
    let mut all = kwargs;
    let mut rest = Vec::new();
    for (i, value) in args.into_iter().enumerate() {
        match task.params.get(i) {
            Some(param) => drop(all.insert(param.name.clone(), value)),
            None => rest.push(value),
        }
    }
    if !rest.is_empty() {
        all.insert(String::new(), Value::Array(rest));
    }
    Value::Object(all)
}

/// A text that is the same for two calls of the same task with the same arguments, however they were written.
#[must_use]
pub fn call(task: &Task, name: &str, args: &[Value], kwargs: &Map<String, Value>) -> String {
    format!("{name} {}", named(task, args, kwargs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Param, ParamType};
    use crate::model::task::{Program, Stdin};
    use serde_json::json;

    fn task() -> Task {
        let param = |name: &str, kind, default| Param {
            name: name.to_owned(),
            kind,
            default,
            one_of: Vec::new(),
            min: None,
            max: None,
            max_length: None,
        };
        let mut task = Task::new("mail", Program::Exec(vec!["x".to_owned()]));
        task.params = vec![
            param("user_id", ParamType::Int, None),
            param("template", ParamType::String, Some(json!("welcome"))),
        ];
        task
    }

    fn message(args: Value, kwargs: Value) -> Message {
        Message {
            task: "mail".to_owned(),
            args: args.as_array().unwrap().clone(),
            kwargs: kwargs.as_object().unwrap().clone(),
            ..Message::default()
        }
    }

    fn key(names: &[&str], args: Value, kwargs: Value) -> String {
        let key = names.iter().map(|n| (*n).to_owned()).collect();
        Unique { key, ..Unique::default() }.claim(&task(), &message(args, kwargs)).key
    }

    #[test]
    fn the_same_call_has_one_key_however_it_is_written() {
        let first = key(&[], json!([42]), json!({}));
        assert_eq!(first, r#"mail {"template":"welcome","user_id":42}"#);
        for (args, kwargs) in [
            (json!(["42"]), json!({})),
            (json!([42, "welcome"]), json!({})),
            (json!([]), json!({"user_id": "42"})),
            (json!([]), json!({"template": "welcome", "user_id": 42})),
        ] {
            assert_eq!(key(&[], args, kwargs), first);
        }
        assert_ne!(key(&[], json!([43]), json!({})), first);
        assert_ne!(key(&[], json!([42, "reset"]), json!({})), first);
        assert_eq!(key(&["user_id"], json!([42, "reset"]), json!({})), r#"mail {"user_id":42}"#);
        assert_eq!(
            key(&["user_id"], json!([42]), json!({})),
            key(&["user_id"], json!(["42", "x"]), json!({}))
        );
    }

    #[test]
    fn without_parameters_names_and_places_count() {
        let mut task = Task::new("shop.*", Program::Worker);
        task.stdin = Stdin::Json;
        let claim = |names: &[&str], args, kwargs| {
            let unique = Unique { key: names.iter().map(|n| (*n).to_owned()).collect(), ..Unique::default() };
            unique.claim(&task, &Message { task: "shop.mail".to_owned(), ..message(args, kwargs) }).key
        };
        assert_eq!(claim(&[], json!([1, 2]), json!({"a": [3]})), r#"shop.mail {"":[1,2],"a":[3]}"#);
        assert_eq!(claim(&["a"], json!([1]), json!({"a": 1, "b": 2})), r#"shop.mail {"a":1}"#);
        assert_eq!(claim(&["a"], json!([]), json!({})), r#"shop.mail {"a":null}"#);
    }

    #[test]
    fn a_long_key_is_a_hash_and_still_its_own() {
        let of = |n: usize| key(&[], json!([1, "x".repeat(n)]), json!({}));
        assert!(of(1_000).len() < LONGEST_KEY && of(1_000).starts_with("mail #"), "{}", of(1_000));
        assert_ne!(of(1_000), of(1_001));
        assert_eq!(of(1_000), of(1_000));
    }
}
