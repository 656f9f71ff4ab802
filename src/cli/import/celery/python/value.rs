//! What an expression stands for, as far as that is known without running anything.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::expression::{Expression, Node};
use crate::cli::import::toml_value::Toml;

/// How many values one expression may have: names that stand for lists of names multiply.
const MOST: usize = 100_000;
/// How many parts a dict may be put together of, and how many entries it may have.
const ENTRIES: usize = 20_000;
/// How far names lead to names.
const FURTHEST: usize = 40;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A truth.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A dict with strings as keys.
    Dict(Vec<(String, Value)>),
    /// A call of a function, by the last part of its name.
    Call(String, Vec<Value>, Vec<(String, Value)>),
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// A whole number.
    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// A truth.
    #[must_use]
    pub const fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// An entry of a dict.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Dict(map) => map.iter().rfind(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// As TOML writes it.
    ///
    /// # Errors
    /// What TOML has no word for.
    pub fn toml(&self) -> Result<Toml, String> {
        Ok(match self {
            Self::None => return Err("TOML has no word for None".to_owned()),
            Self::Bool(b) => Toml::Bool(*b),
            Self::Int(n) => Toml::Int(*n),
            Self::Float(f) => Toml::Float(*f),
            Self::Text(t) => Toml::text(t),
            Self::List(list) => Toml::List(list.iter().map(Self::toml).collect::<Result<_, _>>()?),
            Self::Dict(map) => {
                Toml::Map(map.iter().map(|(k, v)| Ok((k.clone(), v.toml()?))).collect::<Result<_, String>>()?)
            }
            Self::Call(name, ..) => return Err(format!("{name}(…) is no value of JSON")),
        })
    }
}

/// As Python would write it, about.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(n) => write!(f, "{n:?}"),
            Self::Text(t) => write!(f, "{t:?}"),
            Self::List(items) => write!(f, "[{}]", list(items.iter().map(ToString::to_string).collect())),
            Self::Dict(map) => {
                write!(f, "{{{}}}", list(map.iter().map(|(k, v)| format!("{k:?}: {v}")).collect()))
            }
            Self::Call(name, positional, named) => {
                let named = named.iter().map(|(k, v)| format!("{k}={v}"));
                write!(
                    f,
                    "{name}({})",
                    list(positional.iter().map(ToString::to_string).chain(named).collect())
                )
            }
        }
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => {
                n.as_i64().map_or_else(|| Self::Float(n.as_f64().unwrap_or(f64::MAX)), Self::Int)
            }
            Json::String(s) => Self::Text(s.clone()),
            Json::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            Json::Object(map) => Self::Dict(map.iter().map(|(k, v)| (k.clone(), Self::from(v))).collect()),
        }
    }
}

/// The names of a module: what was assigned to them, and what they were imported as.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Assignments; the last one counts.
    pub constants: BTreeMap<String, Expression>,
    /// `name -> module.name`.
    pub imports: BTreeMap<String, String>,
}

impl Names {
    /// The whole name of something that may have been imported.
    #[must_use]
    pub fn whole(&self, name: &str) -> String {
        let (first, rest) = name.split_once('.').map_or((name, None), |(f, r)| (f, Some(r)));
        match (self.imports.get(first), rest) {
            (Some(from), Some(rest)) => format!("{from}.{rest}"),
            (Some(from), None) => from.clone(),
            (None, _) => name.to_owned(),
        }
    }

    /// What was assigned to a name; `self.X` and `Config.X` are the class's that stands in this file.
    fn constant(&self, name: &str) -> Option<&Expression> {
        let (owner, last) = name.rsplit_once('.').unwrap_or(("", name));
        let of_class = !owner.contains('.') && last.chars().all(|c| !c.is_ascii_lowercase());
        self.constants.get(name).or_else(|| self.constants.get(last).filter(|_| of_class))
    }

    /// What an expression stands for.
    ///
    /// # Errors
    /// It is only known when the program runs: a sentence.
    pub fn value(&self, expression: &Expression) -> Result<Value, String> {
        let mut budget = MOST;
        self.value_within(expression, 0, &mut budget)
    }

    /// The entries of a dict, not yet valued: their keys, and where they stand.
    ///
    /// # Errors
    /// It is no dict that is written out.
    pub fn entries<'e>(
        &'e self,
        expression: &'e Expression,
    ) -> Result<Vec<(String, &'e Expression)>, String> {
        let mut out = Vec::new();
        let mut budget = ENTRIES;
        self.entries_within(expression, 0, &mut budget, &mut out)?;
        Ok(out)
    }

    fn entries_within<'e>(
        &'e self,
        expression: &'e Expression,
        depth: usize,
        budget: &mut usize,
        out: &mut Vec<(String, &'e Expression)>,
    ) -> Result<(), String> {
        *budget = budget.checked_sub(1).filter(|_| depth <= FURTHEST).ok_or("it has too many parts")?;
        match &expression.node {
            Node::Dict(entries) => {
                *budget = budget.checked_sub(entries.len()).ok_or("it has too many entries")?;
                for (key, value) in entries {
                    match key {
                        None => self.entries_within(value, depth + 1, budget, out)?,
                        Some(key) => match self.value(key)? {
                            Value::Text(name) => add(out, name, value),
                            _ => return Err("a key is no string".to_owned()),
                        },
                    }
                }
                Ok(())
            }
            Node::Call(name, positional, named) if name == "dict" => {
                for part in positional {
                    self.entries_within(part, depth + 1, budget, out)?;
                }
                for (name, value) in named {
                    if name == "**" {
                        self.entries_within(value, depth + 1, budget, out)?;
                    } else {
                        add(out, name.clone(), value);
                    }
                }
                Ok(())
            }
            Node::Binary("|", left, right) => {
                self.entries_within(left, depth + 1, budget, out)?;
                self.entries_within(right, depth + 1, budget, out)
            }
            Node::Name(name) => match self.constant(name) {
                Some(found) => self.entries_within(found, depth + 1, budget, out),
                None => Err(format!("{name} is not written out in this file")),
            },
            _ => Err("it is no dict that is written out".to_owned()),
        }
    }

    fn value_within(
        &self,
        expression: &Expression,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Value, String> {
        *budget = budget.checked_sub(1).ok_or("it has too many values")?;
        if depth > FURTHEST {
            return Err("it is nested too deeply".to_owned());
        }
        let mut inner = |e: &Expression| self.value_within(e, depth + 1, budget);
        Ok(match &expression.node {
            Node::Text(text) => Value::Text(text.clone()),
            Node::Int(n) => Value::Int(*n),
            Node::Float(f) => Value::Float(*f),
            Node::Name(name) => match name.as_str() {
                "None" => Value::None,
                "True" => Value::Bool(true),
                "False" => Value::Bool(false),
                _ => {
                    let found = self.constant(name);
                    let found = found.ok_or_else(|| format!("{name} is not written out in this file"))?;
                    inner(found)?
                }
            },
            Node::List(items) => Value::List(items.iter().map(&mut inner).collect::<Result<_, _>>()?),
            Node::Dict(entries) => {
                if entries.len() > ENTRIES {
                    return Err("it has too many entries".to_owned());
                }
                let mut map: Vec<(String, Value)> = Vec::new();
                for (key, value) in entries {
                    let value = inner(value)?;
                    match (key, value) {
                        (None, Value::Dict(more)) => map.extend(more),
                        (None, _) => return Err("** is not followed by a dict".to_owned()),
                        (Some(key), value) => {
                            let name = match inner(key)? {
                                Value::Text(name) => name,
                                Value::Int(n) => n.to_string(),
                                _ => return Err("a key is no string".to_owned()),
                            };
                            map.retain(|(n, _)| *n != name);
                            map.push((name, value));
                        }
                    }
                }
                Value::Dict(map)
            }
            Node::Call(name, positional, named) => {
                let whole = self.whole(name);
                let last = whole.rsplit('.').next().unwrap_or(&whole).to_owned();
                let positional: Vec<Value> = positional.iter().map(&mut inner).collect::<Result<_, _>>()?;
                let mut arguments = Vec::new();
                for (name, value) in named {
                    match (name.as_str(), inner(value)?) {
                        ("**", Value::Dict(more)) => arguments.extend(more),
                        ("**", _) => return Err("** is not followed by a dict".to_owned()),
                        (_, value) => arguments.push((name.clone(), value)),
                    }
                }
                call(last, positional, arguments)?
            }
            Node::Minus(inside) => match inner(inside)? {
                Value::Int(n) => Value::Int(n.checked_neg().ok_or("a number is too large")?),
                Value::Float(f) => Value::Float(-f),
                _ => return Err("- stands before what is no number".to_owned()),
            },
            Node::Binary(op, left, right) => binary(op, inner(left)?, inner(right)?)?,
            Node::Unknown => return Err("its value is only known when the program runs".to_owned()),
        })
    }
}

fn add<'e>(out: &mut Vec<(String, &'e Expression)>, name: String, value: &'e Expression) {
    match out.iter_mut().find(|(n, _)| *n == name) {
        Some(known) => known.1 = value,
        None => out.push((name, value)),
    }
}

/// Calls whose value is plain; the others stay calls.
fn call(name: String, positional: Vec<Value>, named: Vec<(String, Value)>) -> Result<Value, String> {
    match (name.as_str(), positional.as_slice()) {
        ("dict", []) => Ok(Value::Dict(named)),
        ("list" | "tuple" | "set" | "frozenset", [Value::List(list)]) if named.is_empty() => {
            Ok(Value::List(list.clone()))
        }
        ("float", [one]) if one.number().is_some() => Ok(Value::Float(one.number().unwrap_or_default())),
        ("int", [Value::Int(n)]) => Ok(Value::Int(*n)),
        ("str", [Value::Text(t)]) => Ok(Value::Text(t.clone())),
        ("range", bounds) if named.is_empty() => range(bounds),
        ("getenv" | "get" | "env" | "config" | "environ" | "int" | "str" | "bool" | "float", _) => {
            Err("its value comes from the environment or from elsewhere".to_owned())
        }
        _ => Ok(Value::Call(name, positional, named)),
    }
}

fn range(bounds: &[Value]) -> Result<Value, String> {
    let bounds: Option<Vec<i64>> = bounds.iter().map(Value::int).collect();
    let (from, to, step) = match bounds.as_deref() {
        Some([to]) => (0, *to, 1),
        Some([from, to]) => (*from, *to, 1),
        Some([from, to, step]) if *step > 0 => (*from, *to, *step),
        _ => return Err("a range(…) is not understood".to_owned()),
    };
    let mut out = Vec::new();
    let mut n = from;
    while n < to {
        out.push(Value::Int(n));
        if out.len() > 1_000 {
            return Err("a range(…) is too long".to_owned());
        }
        n = n.checked_add(step).ok_or("a number is too large")?;
    }
    Ok(Value::List(out))
}

fn binary(op: &str, left: Value, right: Value) -> Result<Value, String> {
    let large = || "a number is too large".to_owned();
    match (op, left, right) {
        ("+", Value::Text(a), Value::Text(b)) if a.len() + b.len() < 1 << 20 => Ok(Value::Text(a + &b)),
        ("+", Value::List(mut a), Value::List(b)) if a.len() + b.len() < MOST => {
            a.extend(b);
            Ok(Value::List(a))
        }
        ("|", Value::Dict(mut a), Value::Dict(b)) => {
            a.retain(|(n, _)| b.iter().all(|(m, _)| m != n));
            a.extend(b);
            Ok(Value::Dict(a))
        }
        ("+", Value::Int(a), Value::Int(b)) => a.checked_add(b).map(Value::Int).ok_or_else(large),
        ("-", Value::Int(a), Value::Int(b)) => a.checked_sub(b).map(Value::Int).ok_or_else(large),
        ("*", Value::Int(a), Value::Int(b)) => a.checked_mul(b).map(Value::Int).ok_or_else(large),
        ("//", Value::Int(a), Value::Int(b)) if a >= 0 && b > 0 => Ok(Value::Int(a / b)),
        ("%", Value::Int(a), Value::Int(b)) if a >= 0 && b > 0 => Ok(Value::Int(a % b)),
        // `'*/%d' % 5`, with one place for a value.
        ("%", Value::Text(form), value @ (Value::Int(_) | Value::Text(_)))
            if form.matches('%').count() == 1 =>
        {
            let shown = value.text().map_or_else(|| value.to_string(), str::to_owned);
            let found = ["%d", "%s"].into_iter().find(|place| form.contains(place));
            let place = found.ok_or("its value is only known when the program runs")?;
            Ok(Value::Text(form.replace(place, &shown)))
        }
        (op, a, b) => {
            let (a, b) = a.number().zip(b.number()).ok_or("its value is only known when the program runs")?;
            let n = match op {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                "/" if b != 0.0 => a / b,
                _ => return Err("its value is only known when the program runs".to_owned()),
            };
            if n.is_finite() { Ok(Value::Float(n)) } else { Err(large()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expression::Parser;
    use super::super::token::tokens;
    use super::*;

    fn of(text: &str, names: &Names) -> Result<Value, String> {
        let found = tokens(text);
        names.value(&Parser::new(&found.lines[0].1, 0).element(false))
    }

    fn expression(text: &str) -> Expression {
        let found = tokens(text);
        Parser::new(&found.lines[0].1, 0).element(false)
    }

    #[test]
    fn values() {
        let mut names = Names::default();
        names.constants.insert("HOUR".into(), expression("60 * 60"));
        names.constants.insert("LOOP".into(), expression("LOOP"));
        names.imports.insert("ct".into(), "celery.schedules.crontab".into());
        assert_eq!(of("2 * HOUR", &names), Ok(Value::Int(7_200)));
        assert_eq!(of("-1.5 / 2", &names), Ok(Value::Float(-0.75)));
        assert_eq!(of("'a' + 'b'", &names), Ok(Value::Text("ab".into())));
        assert_eq!(
            of("dict(a=1, **{'b': 2})", &names),
            Ok(Value::Dict(vec![("a".into(), Value::Int(1)), ("b".into(), Value::Int(2))]))
        );
        assert_eq!(
            of("ct(hour=3)", &names),
            Ok(Value::Call("crontab".into(), vec![], vec![("hour".into(), Value::Int(3))]))
        );
        assert_eq!(of("range(0, 6, 2)", &names).unwrap(), Value::List([0, 2, 4].map(Value::Int).to_vec()));
        for bad in [
            "LOOP",
            "X",
            "os.environ.get('a')",
            "9223372036854775807 + 1",
            "'a' * 3",
            "1 / 0",
            "x if y else z",
        ] {
            assert!(of(bad, &names).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_multiply_are_bounded() {
        let mut names = Names::default();
        names.constants.insert("a0".into(), expression("[1,1,1,1,1,1,1,1,1,1]"));
        for i in 1..20 {
            let text = format!("[{}]", vec![format!("a{}", i - 1); 10].join(","));
            names.constants.insert(format!("a{i}"), expression(&text));
        }
        assert!(of("a19", &names).is_err());
        names.constants.insert("d0".into(), expression("{'a': 1}"));
        for i in 1..60 {
            names.constants.insert(format!("d{i}"), expression(&format!("{{**d{}, **d{}}}", i - 1, i - 1)));
        }
        assert!(names.entries(&expression("d59")).is_err());
    }
}
