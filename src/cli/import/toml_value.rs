//! Values as TOML text, in the form that a person would write.

use serde_json::Value as Json;

/// A value of the written file.
#[derive(Clone, Debug, PartialEq)]
pub enum Toml {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    List(Vec<Toml>),
    /// An inline table, in this order.
    Map(Vec<(String, Toml)>),
}

impl Toml {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A list of strings.
    pub fn texts(list: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(list.into_iter().map(Self::text).collect())
    }

    /// What JSON says.
    ///
    /// # Errors
    /// What TOML has no word for: null, and whole numbers beyond 64 bits with a sign.
    pub fn of_json(json: &Json) -> Result<Self, String> {
        Ok(match json {
            Json::Null => return Err("TOML has no null".to_owned()),
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.is_f64(), n.as_f64()) {
                (Some(i), ..) => Self::Int(i),
                (None, true, Some(f)) if f.is_finite() => Self::Float(f),
                _ => return Err(format!("the number {n} does not fit into 64 bits")),
            },
            Json::String(s) => Self::Text(s.clone()),
            Json::Array(list) => Self::List(list.iter().map(Self::of_json).collect::<Result<_, _>>()?),
            Json::Object(map) => Self::Map(
                map.iter().map(|(k, v)| Ok((k.clone(), Self::of_json(v)?))).collect::<Result<_, String>>()?,
            ),
        })
    }

    /// As it stands in a file.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Text(s) => string(s),
            Self::Int(n) => n.to_string(),
            // Debug always has a dot or an exponent, which TOML asks for.
            Self::Float(f) => format!("{f:?}"),
            Self::Bool(b) => b.to_string(),
            Self::List(list) => {
                format!("[{}]", list.iter().map(Self::show).collect::<Vec<_>>().join(", "))
            }
            Self::Map(map) if map.is_empty() => "{}".to_owned(),
            Self::Map(map) => {
                let inner: Vec<String> =
                    map.iter().map(|(k, v)| format!("{} = {}", key(k), v.show())).collect();
                format!("{{ {} }}", inner.join(", "))
            }
        }
    }
}

/// A key, quoted where it must be.
#[must_use]
pub fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { basic(name) }
}

/// A string with the fewest escapes: what a shell is given stays as it was written.
fn string(text: &str) -> String {
    // A literal string takes every character but these; the parser would also change a lone carriage return.
    let odd = text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    let lines = text.contains('\n');
    if odd || text.contains("'''") || (lines && text.ends_with('\'')) {
        return basic(text);
    }
    if lines {
        // The newline after the opening quotes is not part of the string.
        return format!("'''\n{text}'''");
    }
    match (text.contains(['"', '\\']), text.contains('\'')) {
        _ if text.contains('\t') && text.contains('\'') && !text.ends_with('\'') => format!("'''{text}'''"),
        (false, _) if !text.contains('\t') => format!("\"{text}\""),
        (_, false) => format!("'{text}'"),
        // Two quotes at its end would close the string too early.
        _ if text.ends_with('\'') => basic(text),
        _ => format!("'''{text}'''"),
    }
}

/// A string with escapes. JSON's are TOML's, but for DEL, which TOML wants escaped.
fn basic(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// Text that can stand in a comment: TOML allows no control character there but the tab.
#[must_use]
pub fn comment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> toml::Value {
        let table: toml::Table = format!("x = {text}\n").parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        table["x"].clone()
    }

    #[test]
    fn a_string_is_written_as_a_person_would() {
        for (text, written) in [
            ("echo hi", "\"echo hi\""),
            ("it's", "\"it's\""),
            ("echo \"x\"", "'echo \"x\"'"),
            ("a\\;b", "'a\\;b'"),
            ("sed 's/a/\\n/' x", "'''sed 's/a/\\n/' x'''"),
            ("sed 's/a/\\n/'", "\"sed 's/a/\\\\n/'\""),
            ("a\nb\n", "'''\na\nb\n'''"),
            ("", "\"\""),
        ] {
            assert_eq!(string(text), written);
        }
    }

    #[test]
    fn json_that_toml_cannot_say_is_refused() {
        assert!(Toml::of_json(&Json::Null).is_err());
        assert!(Toml::of_json(&serde_json::json!({"a": [u64::MAX]})).is_err());
        assert_eq!(
            Toml::of_json(&serde_json::json!([1, 1.0, {"a b": true}])).unwrap().show(),
            "[1, 1.0, { \"a b\" = true }]"
        );
    }

    proptest! {
        #[test]
        fn every_string_and_key_is_read_back(text in "(?s)[\\x00-\\x7f'\"\\\\\u{80}-\u{300}]{0,20}") {
            let again = read(&string(&text));
            prop_assert_eq!(again.as_str(), Some(text.as_str()));
            let table: toml::Table = format!("{} = 1", key(&text)).parse().unwrap();
            prop_assert!(table.contains_key(&text));
            let commented = format!("# {}\n", comment(&text));
            prop_assert!(commented.parse::<toml::Table>().is_ok());
        }
    }
}
