//! The parsed files as one tree of our own: every key and value knows its place, tables keep the order of
//! the file, and later files are laid over earlier ones.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// No key of the config stands deeper than this (arguments of schedules are the deepest); the parser
/// itself would allow several thousand levels.
const MAX_DEPTH: usize = 24;

/// Tables are laid over one another down to here: `tasks` / NAME / `environment` / NAME.
const MERGE_DEPTH: usize = 4;

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Index of the file.
    pub(super) file: usize,
    /// Bytes in its text.
    pub(super) span: Range<usize>,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// A whole number; absent where it does not fit 64 bits.
    Int(Option<i64>),
    /// A finite number; absent where it is infinite or none.
    Float(Option<f64>),
    Bool(bool),
    /// A date or time, as it was written.
    Time(String),
    Array(Vec<Node>),
    Table(Table),
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: At,
}

/// One `key = value`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: At,
    pub(super) node: Node,
}

/// Keys in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// Copies a parsed table; the second part names places that are nested too deeply.
pub(super) fn from_toml(table: &DeTable<'_>, file: usize) -> (Table, Vec<At>) {
    let mut deep = Vec::new();
    let table = copy_table(table, file, 0, &mut deep);
    (table, deep)
}

fn copy_table(table: &DeTable<'_>, file: usize, depth: usize, deep: &mut Vec<At>) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: At { file, span: key.span() },
            node: copy(value, file, depth + 1, deep),
        })
        .collect();
    // The parser sorts by name; people mean the order they wrote.
    entries.sort_by_key(|e| e.key_at.span.start);
    Table { entries }
}

fn copy(node: &Spanned<DeValue<'_>>, file: usize, depth: usize, deep: &mut Vec<At>) -> Node {
    let at = At { file, span: node.span() };
    let value = match node.get_ref() {
        DeValue::String(s) => Value::Text(s.to_string()),
        DeValue::Integer(i) => Value::Int(i64::from_str_radix(i.as_str(), i.radix()).ok()),
        DeValue::Float(f) => Value::Float(f.as_str().parse().ok().filter(|f: &f64| f.is_finite())),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::Time(d.to_string()),
        DeValue::Array(_) | DeValue::Table(_) if depth > MAX_DEPTH => {
            deep.push(at.clone());
            Value::Bool(false)
        }
        DeValue::Array(a) => Value::Array(a.iter().map(|v| copy(v, file, depth + 1, deep)).collect()),
        DeValue::Table(t) => Value::Table(copy_table(t, file, depth, deep)),
    };
    Node { value, at }
}

impl Table {
    /// Lays `over`, a later file, over this one: later wins by key.
    ///
    /// Tables are joined; any other value is replaced as a whole. An array of tables is put before the
    /// earlier one, so that `[[routes]]` of a later file win too (the first match counts).
    pub(super) fn lay_over(&mut self, over: Self) {
        self.lay(over, 1);
    }

    fn lay(&mut self, over: Self, depth: usize) {
        for new in over.entries {
            let Some(old) = self.entries.iter_mut().find(|e| e.key == new.key) else {
                self.entries.push(new);
                continue;
            };
            match (&mut old.node.value, new.node.value) {
                (Value::Table(a), Value::Table(b)) if depth < MERGE_DEPTH => a.lay(b, depth + 1),
                (Value::Array(a), Value::Array(mut b)) if depth == 1 && is_tables(a) && is_tables(&b) => {
                    b.append(a);
                    *a = b;
                }
                (place, value) => {
                    *place = value;
                    old.node.at = new.node.at;
                    old.key_at = new.key_at;
                }
            }
        }
    }
}

fn is_tables(nodes: &[Node]) -> bool {
    nodes.iter().all(|n| matches!(n.value, Value::Table(_)))
}

impl Value {
    /// What it is, for people.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Time(_) => "a date or time",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The value as TOML on one line.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::Text(s) => quote(s),
            Self::Int(i) => i.unwrap_or_default().to_string(),
            Self::Float(f) => format!("{:?}", f.unwrap_or_default()),
            Self::Bool(b) => b.to_string(),
            Self::Time(t) => t.clone(),
            Self::Array(a) => {
                let items: Vec<String> = a.iter().map(|n| n.value.to_toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(t) if t.entries.is_empty() => "{}".to_owned(),
            Self::Table(t) => {
                let items: Vec<String> = t
                    .entries
                    .iter()
                    .map(|e| format!("{} = {}", quote_key(&e.key), e.node.value.to_toml()))
                    .collect();
                format!("{{ {} }}", items.join(", "))
            }
        }
    }

    /// The value as JSON; a date or time as text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(s) | Self::Time(s) => s.clone().into(),
            Self::Int(i) => (*i).into(),
            Self::Float(f) => (*f).into(),
            Self::Bool(b) => (*b).into(),
            Self::Array(a) => a.iter().map(|n| n.value.to_json()).collect::<Vec<_>>().into(),
            Self::Table(t) => {
                let map: serde_json::Map<_, _> =
                    t.entries.iter().map(|e| (e.key.clone(), e.node.value.to_json())).collect();
                map.into()
            }
        }
    }
}

/// A TOML basic string.
pub(super) fn quote(s: &str) -> String {
    // JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    serde_json::Value::from(s).to_string().replace('\u{7f}', "\\u007F")
}

/// A TOML key, quoted where it must be.
pub(super) fn quote_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { quote(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str, file: usize) -> Table {
        from_toml(DeTable::parse(text).unwrap().get_ref(), file).0
    }

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let t = tree("z = 1\na = 2\nm.x = 3\nb = 4\n", 0);
        assert_eq!(t.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["z", "a", "m", "b"]);
    }

    #[test]
    fn later_wins_by_key_and_its_routes_come_first() {
        let mut a = tree("[tasks.x]\ncommand='a'\nnice=1\n[[routes]]\ntask='old'\n", 0);
        a.lay_over(tree("[[routes]]\ntask='new'\n[tasks.x]\ncommand='b'\n[tasks.y]\n", 1));
        assert_eq!(
            Value::Table(a).to_toml(),
            r#"{ tasks = { x = { command = "b", nice = 1 }, y = {} }, routes = [{ task = "new" }, { task = "old" }] }"#
        );
    }

    #[test]
    fn what_is_rendered_is_read_back_as_the_same() {
        let text = "a = \"q\\\"\\\\\\u0000\\u007f\\n\"\n\"b c\" = [1, 2.5, true, {x = 'y'}]\nd = 1979-05-27T07:32:00Z\n";
        let once = Value::Table(tree(text, 0)).to_toml();
        let again = tree(&format!("v = {once}"), 0).entries.remove(0).node.value.to_toml();
        assert_eq!(once, again);
    }
}
