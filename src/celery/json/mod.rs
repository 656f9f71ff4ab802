//! JSON as Python writes and reads it, kept as text.
//!
//! Python's `json` emits what no strict parser takes (`NaN`, `Infinity`), what loses its value in a 64-bit number
//! (integers of any length, `1e400`) and what no Rust string can hold (`"\ud800"`). What travels through taskd must
//! come out as it went in, so a value stays the text that it was ([`Raw`], [`Json`]) and is only cut where taskd has
//! to look inside. The text is checked once, without recursion and with bounded depth; only [`value`] makes
//! `serde_json` values of it, and says where that loses something.

pub mod build;
mod fields;
mod scan;
pub mod text;
pub mod value;

pub use fields::Fields;
pub use scan::{MAX_DEPTH, NotJson};

/// One JSON value as checked text, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// One JSON value as checked text, owned. Equal when the text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(Box<str>);

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, `NaN` and the infinities among them.
    Number,
    /// A string.
    Text,
    /// An array.
    List,
    /// An object.
    Object,
}

impl Kind {
    /// What a person calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a truth value",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "an array",
            Self::Object => "an object",
        }
    }
}

impl<'a> Json<'a> {
    /// Checks a text that must be exactly one value; white space around it is left out.
    ///
    /// # Errors
    /// Where it stops being JSON (in Python's reading), and why.
    pub fn parse(text: &'a str) -> Result<Self, NotJson> {
        scan::whole(text).map(Self)
    }

    /// The value as it was written.
    #[must_use]
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Object,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then_some(self.0 == "true")
    }

    /// The integer, if it is one of at most 64 bits. Python's `1.0` is not.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        if self.kind() == Kind::Number { self.0.parse().ok() } else { None }
    }

    /// The number as a float: nearest where it has more digits, infinite where it is too large.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match (self.kind(), self.0) {
            (Kind::Number, "NaN") => Some(f64::NAN),
            (Kind::Number, "Infinity") => Some(f64::INFINITY),
            (Kind::Number, "-Infinity") => Some(f64::NEG_INFINITY),
            (Kind::Number, text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The string, if it is one; U+FFFD stands for each half of a broken surrogate pair.
    #[must_use]
    pub fn as_text(self) -> Option<String> {
        (self.kind() == Kind::Text).then(|| text::decode(self.0).0)
    }

    /// The elements, if it is an array.
    #[must_use]
    pub fn items(self) -> Option<Vec<Json<'a>>> {
        (self.kind() == Kind::List).then(|| scan::items(self.0).into_iter().map(Json).collect())
    }

    /// The members in their order, if it is an object. A name that stands twice is in it twice: Python takes the
    /// last, as [`Json::get`] and [`Fields`] do.
    #[must_use]
    pub fn entries(self) -> Option<Vec<(String, Json<'a>)>> {
        (self.kind() == Kind::Object).then(|| {
            scan::entries(self.0).into_iter().map(|(key, value)| (text::decode(key).0, Json(value))).collect()
        })
    }

    /// The member of this name, if it is an object that has one.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.entries()?.into_iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The value with text of its own.
    #[must_use]
    pub fn to_raw(self) -> Raw {
        Raw(self.0.into())
    }
}

impl Raw {
    /// Checks a text that must be exactly one value.
    ///
    /// # Errors
    /// Where it stops being JSON (in Python's reading), and why.
    pub fn parse(text: &str) -> Result<Self, NotJson> {
        Json::parse(text).map(Json::to_raw)
    }

    /// `null`
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// `[]`
    #[must_use]
    pub fn empty_list() -> Self {
        Self("[]".into())
    }

    /// `{}`
    #[must_use]
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// A string.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(text::encode(text).into())
    }

    /// A truth value.
    #[must_use]
    pub fn of_bool(value: bool) -> Self {
        Self(if value { "true" } else { "false" }.into())
    }

    /// An integer.
    #[must_use]
    pub fn of_int(value: i64) -> Self {
        Self(value.to_string().into())
    }

    /// A float, in Python's words where JSON has none. Always with a fraction or an exponent, as Python reads an
    /// integer where there is neither.
    #[must_use]
    pub fn of_float(value: f64) -> Self {
        let text = if value.is_nan() {
            "NaN".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        } else {
            format!("{value:?}")
        };
        Self(text.into())
    }

    /// The string, or `null`.
    #[must_use]
    pub fn of_option(text: Option<&str>) -> Self {
        text.map_or_else(Self::null, Self::of_text)
    }

    /// The value, borrowed, to look into.
    #[must_use]
    pub fn json(&self) -> Json<'_> {
        Json(&self.0)
    }

    /// The value as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_kept_to_the_letter() {
        let text =
            r#"[NaN, -Infinity, 123456789012345678901234567890, 1e400, "\ud800", {"a": {"b": []}}, -0.0]"#;
        let json = Json::parse(text).unwrap();
        let items = json.items().unwrap();
        assert_eq!(
            items.iter().map(|i| i.text()).collect::<Vec<_>>(),
            [
                "NaN",
                "-Infinity",
                "123456789012345678901234567890",
                "1e400",
                r#""\ud800""#,
                r#"{"a": {"b": []}}"#,
                "-0.0"
            ]
        );
        assert!(items[0].as_f64().unwrap().is_nan());
        assert_eq!(items[3].as_f64(), Some(f64::INFINITY));
        assert_eq!(items[2].as_i64(), None);
        assert_eq!(items[4].as_text().unwrap(), "\u{fffd}");
        assert_eq!(items[5].get("a").unwrap().get("b").unwrap().kind(), Kind::List);
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let json = Json::parse(r#" {"a":1,"\u0061":2} "#).unwrap();
        assert_eq!(json.get("a").unwrap().as_i64(), Some(2));
        assert_eq!(json.entries().unwrap().len(), 2);
    }

    #[test]
    fn floats_stay_floats() {
        for (value, text) in [(1.0, "1.0"), (0.1, "0.1"), (1e300, "1e300"), (f64::NAN, "NaN")] {
            assert_eq!(Raw::of_float(value).text(), text);
            Raw::parse(text).unwrap();
        }
    }
}
