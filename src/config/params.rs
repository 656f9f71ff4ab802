//! Declared parameters: `params.x = "int"`, or a table that says more.

use serde_json::Value as Json;

use crate::model::params::{Param, ParamType};

use super::check::{Check, unknown};
use super::keys::{Key, Kind, keys};
use super::kind;
use super::report::{Fault, FaultKind};
use super::tree::{At, Node, Value, quote, quote_key};

const TYPES: &[(&str, ParamType)] = &[
    ("string", ParamType::String),
    ("int", ParamType::Int),
    ("float", ParamType::Float),
    ("bool", ParamType::Bool),
];

/// Names of the types, for the schema.
pub(super) const TYPE_NAMES: &[&str] = &["string", "int", "float", "bool"];

/// Longest parameter name, in bytes: it becomes the name of an environment variable.
const MAX_NAME: usize = 64;

/// Keys of a parameter that is written as a table; their values depend on its type.
pub const PARAM: &[Key] = keys! {
    "type": Kind::Choice(TYPE_NAMES), Now, "", "Its type.";
    "default": Kind::Text, Now, "", "Used when it is not given; without one it must be given.";
    "one_of": Kind::Texts, Now, "", "The only values allowed.";
    "min": Kind::Number(f64::MIN, f64::MAX), Now, "", "Least value, for int and float.";
    "max": Kind::Number(f64::MIN, f64::MAX), Now, "", "Greatest value, for int and float.";
    "max_length": Kind::Int(0, 1 << 20), Now, "", "Most characters, for string.";
};

/// Parameters in the order of the file.
pub(super) fn parse(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<(Param, At)>> {
    let table = kind::table(check, path, node)?;
    let mut out = Vec::new();
    for entry in &table.entries {
        let path = format!("{path}.{}", quote_key(&entry.key));
        if !is_name(&entry.key) {
            let message = format!("{} is no name of a parameter", quote(&entry.key));
            let help = "a lower-case letter, then lower-case letters, digits and _; at most 64";
            check.bad(&entry.key_at, &path, message, help);
            continue;
        }
        if let Some(param) = one(check, &path, &entry.key, &entry.node) {
            out.push((param, entry.key_at.clone()));
        }
    }
    (out.len() == table.entries.len()).then_some(out)
}

/// Whether a placeholder and an environment variable can have this name.
pub(super) fn is_name(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && s.len() <= MAX_NAME
}

fn one(check: &mut Check<'_>, path: &str, name: &str, node: &Node) -> Option<Param> {
    let blank = |kind| Param {
        name: name.to_owned(),
        kind,
        default: None,
        one_of: Vec::new(),
        min: None,
        max: None,
        max_length: None,
    };
    let table = match &node.value {
        Value::Text(_) => return type_of(check, path, node).map(blank),
        Value::Table(t) => t,
        _ => return kind::mistyped(check, path, node, "a type as \"int\", or a table with a `type`"),
    };
    let faults = check.faults.len();
    let Some(kind_entry) = table.entries.iter().find(|e| e.key == "type") else {
        let help = format!("add type = one of {}", TYPE_NAMES.join(", "));
        check.bad(&node.at, path, format!("the parameter `{name}` has no `type`"), &help);
        return None;
    };
    let mut param = blank(type_of(check, &format!("{path}.type"), &kind_entry.node)?);
    for entry in &table.entries {
        let path = format!("{path}.{}", quote_key(&entry.key));
        let node = &entry.node;
        let numeric = matches!(param.kind, ParamType::Int | ParamType::Float);
        match entry.key.as_str() {
            "type" => {}
            "default" => param.default = value(check, &path, node, param.kind),
            "one_of" => match &node.value {
                Value::Array(items) if !items.is_empty() => {
                    param.one_of = items.iter().filter_map(|n| value(check, &path, n, param.kind)).collect();
                }
                _ => kind::mistyped(check, &path, node, "a list of at least one value").unwrap_or_default(),
            },
            "min" if numeric => param.min = kind::number(check, &path, node, f64::MIN, f64::MAX),
            "max" if numeric => param.max = kind::number(check, &path, node, f64::MIN, f64::MAX),
            "max_length" if param.kind == ParamType::String => {
                param.max_length =
                    kind::int(check, &path, node, 0, 1 << 20).and_then(|n| u64::try_from(n).ok());
            }
            "min" | "max" | "max_length" => {
                let fits = if entry.key == "max_length" { "strings" } else { "numbers" };
                check.bad(&entry.key_at, &path, format!("`{}` is for {fits} only", entry.key), "remove it");
            }
            _ => check.fault(unknown(
                &entry.key,
                &entry.key_at,
                &path,
                PARAM,
                &format!("the parameter `{name}`"),
            )),
        }
    }
    if check.faults.len() > faults {
        return None;
    }
    consistent(check, path, &node.at, &param).then_some(param)
}

fn type_of(check: &mut Check<'_>, path: &str, node: &Node) -> Option<ParamType> {
    let s = kind::text(check, path, node)?;
    if let Some((_, kind)) = TYPES.iter().find(|(n, _)| *n == s) {
        return Some(*kind);
    }
    let meant = match s.as_str() {
        "str" | "text" => "did you mean \"string\"? ",
        "integer" | "number" => "did you mean \"int\"? ",
        "boolean" => "did you mean \"bool\"? ",
        "double" | "real" => "did you mean \"float\"? ",
        _ => "",
    };
    let help = format!("{meant}the types are {}", TYPE_NAMES.join(", "));
    check.bad(&node.at, path, format!("{} is not a type of parameter", quote(&s)), &help);
    None
}

/// A value of this type.
fn value(check: &mut Check<'_>, path: &str, node: &Node, kind: ParamType) -> Option<Json> {
    let wanted = match (kind, &node.value) {
        (ParamType::String, Value::Text(s)) if !s.contains('\0') => return Some(s.clone().into()),
        (ParamType::Int, Value::Int(Some(n))) => return Some((*n).into()),
        (ParamType::Float, Value::Float(Some(n))) => return Some((*n).into()),
        (ParamType::Float, Value::Int(Some(n))) => return Some((*n as f64).into()),
        (ParamType::Bool, Value::Bool(b)) => return Some((*b).into()),
        (ParamType::String, _) => "a string without NUL, as the parameter's type says",
        (ParamType::Int, _) => "a whole number of 64 bits, as the parameter's type says",
        (ParamType::Float, _) => "a finite number, as the parameter's type says",
        (ParamType::Bool, _) => "true or false, as the parameter's type says",
    };
    kind::mistyped(check, path, node, wanted)
}

/// Whether bounds, choices and default agree.
fn consistent(check: &mut Check<'_>, path: &str, at: &At, param: &Param) -> bool {
    let name = &param.name;
    let mut bad = |what: String| {
        check.fault(Fault::new(FaultKind::Reference, at, path, what));
        false
    };
    if let (Some(min), Some(max)) = (param.min, param.max)
        && min > max
    {
        return bad(format!("`min` of the parameter `{name}` is above its `max`"));
    }
    for value in param.one_of.iter().chain(&param.default) {
        let n = value.as_f64();
        let outside = n.is_some_and(|n| param.min.is_some_and(|m| n < m) || param.max.is_some_and(|m| n > m));
        let long = value.as_str().zip(param.max_length).is_some_and(|(s, m)| s.chars().count() as u64 > m);
        if outside || long {
            return bad(format!("the parameter `{name}` has the value {value}, which its own bounds refuse"));
        }
    }
    match &param.default {
        Some(d) if !param.one_of.is_empty() && !param.one_of.contains(d) => {
            bad(format!("the default {d} of the parameter `{name}` is not in its `one_of`"))
        }
        _ => true,
    }
}
