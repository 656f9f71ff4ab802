//! Values in Python's words: `repr`, and the shortened one that Celery puts into messages and events.

use super::json::{Json, Kind, Raw, text};

/// Characters of a call's arguments that Celery writes into a message.
pub const MAX_ARGS: usize = 1024;

/// Containers inside containers that the shortened form opens.
const MAX_LEVELS: usize = 3;

/// Python's `repr` of a value.
#[must_use]
pub fn full(json: Json<'_>) -> String {
    let mut out = String::new();
    push_full(json, &mut out);
    out
}

// As deep as the value, which the reader of JSON bounds.
fn push_full(json: Json<'_>, out: &mut String) {
    match json.kind() {
        Kind::Text => push_quoted(json, out),
        Kind::List => {
            out.push('[');
            for (i, item) in json.items().unwrap_or_default().into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push_full(item, out);
            }
            out.push(']');
        }
        Kind::Object => {
            out.push('{');
            for (i, (name, value)) in json.entries().unwrap_or_default().into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push_quoted(Raw::of_text(&name).json(), out);
                out.push_str(": ");
                push_full(value, out);
            }
            out.push('}');
        }
        _ => out.push_str(&scalar(json)),
    }
}

fn push_quoted(json: Json<'_>, out: &mut String) {
    let units: Vec<_> = text::units(json.text()).collect();
    let quote = if units.contains(&Ok('\'')) && !units.contains(&Ok('"')) { '"' } else { '\'' };
    out.push(quote);
    for unit in units {
        match unit {
            Err(half) => out.push_str(&format!("\\u{half:04x}")),
            Ok('\\') => out.push_str("\\\\"),
            Ok('\n') => out.push_str("\\n"),
            Ok('\r') => out.push_str("\\r"),
            Ok('\t') => out.push_str("\\t"),
            Ok(c) if c == quote => out.extend(['\\', c]),
            Ok(c) if printable(c) => out.push(c),
            Ok(c) => out.push_str(&match u32::from(c) {
                code @ 0..0x100 => format!("\\x{code:02x}"),
                code @ 0x100..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// Whether Python shows the character as it is. A combining one it does, so it is asked behind a letter.
fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    c != '\u{a0}' && ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// `repr` of what is neither a string nor a container.
fn scalar(json: Json<'_>) -> String {
    match (json.kind(), json.text()) {
        (Kind::Null, _) => "None".to_owned(),
        (Kind::Bool, text) => if text == "true" { "True" } else { "False" }.to_owned(),
        (_, "-0") => "0".to_owned(),
        (_, text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => text.to_owned(),
        _ => float(json.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16.
#[must_use]
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => format!("{value:?}"),
        exponent => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
        }
    }
}

/// The shortened form of a value.
#[must_use]
pub fn short(json: Json<'_>, max: usize) -> String {
    let mut short = Short::of(max);
    short.value(json);
    short.out
}

/// The shortened form of an array as Python shows positional arguments: a tuple.
#[must_use]
pub fn arguments(args: Json<'_>, max: usize) -> String {
    let mut short = Short::of(max);
    let items = args.items().unwrap_or_default();
    let close = if items.len() == 1 { ",)" } else { ")" };
    short.sequence("(", close, &items);
    short.out
}

/// The shortened form in the making: tokens are counted as Celery counts them, so that it is cut in the same place.
struct Short {
    out: String,
    /// Characters left; what closes a bracket behind the end is not counted.
    left: i64,
    /// What closes the brackets that are open.
    open: Vec<&'static str>,
    cut: bool,
}

impl Short {
    fn of(max: usize) -> Self {
        Self {
            out: String::new(),
            left: i64::try_from(max).unwrap_or(i64::MAX),
            open: Vec::new(),
            cut: false,
        }
    }

    /// Whether there is no room: what was open is closed then, once.
    fn full(&mut self) -> bool {
        if !self.cut && self.left <= 0 {
            self.cut = true;
            self.out.push_str(", ...");
            while let Some(close) = self.open.pop() {
                self.out.push_str(close);
            }
        }
        self.cut
    }

    fn token(&mut self, text: &str) {
        if !self.full() {
            self.out.push_str(text);
            self.left -= i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        }
    }

    fn enter(&mut self, open: &'static str, close: &'static str) {
        if !self.full() {
            self.token(open);
            self.open.push(close);
        }
    }

    fn leave(&mut self) {
        if self.cut {
            return;
        }
        let Some(close) = self.open.pop() else { return };
        if self.left > 0 { self.token(close) } else { self.out.push_str(close) }
    }

    fn sequence(&mut self, open: &'static str, close: &'static str, items: &[Json<'_>]) {
        self.enter(open, close);
        for (i, item) in items.iter().enumerate() {
            if self.cut {
                return;
            }
            if i > 0 {
                self.token(", ");
            }
            self.value(*item);
        }
        self.leave();
    }

    fn value(&mut self, json: Json<'_>) {
        let container = matches!(json.kind(), Kind::List | Kind::Object);
        if container && self.open.len() >= MAX_LEVELS {
            return self.token(if json.kind() == Kind::List { "[...]" } else { "{...}" });
        }
        match json.kind() {
            Kind::List => self.sequence("[", "]", &json.items().unwrap_or_default()),
            Kind::Object => {
                self.enter("{", "}");
                for (i, (name, value)) in json.entries().unwrap_or_default().into_iter().enumerate() {
                    if self.cut {
                        return;
                    }
                    if i > 0 {
                        self.token(", ");
                    }
                    self.text(&name);
                    self.token(": ");
                    self.value(value);
                }
                self.leave();
            }
            Kind::Text => self.text(&json.as_text().unwrap_or_default()),
            _ => {
                let cut = truncated(&scalar(json), self.left);
                self.token(&cut);
            }
        }
    }

    /// A string: quoted, but with nothing escaped but the quote, as Celery does it.
    fn text(&mut self, text: &str) {
        if !self.full() {
            self.token(&format!("'{}'", truncated(text, self.left).replace('\'', "\\'")));
        }
    }
}

/// The text, or what of it fits, cut at a space where there is one.
fn truncated(text: &str, max: i64) -> String {
    let max = usize::try_from(max).unwrap_or(0);
    if max == 0 || text.chars().take(max).count() < max {
        return text.to_owned();
    }
    let head: String = text.chars().take(max).collect();
    head.rsplit_once(' ').map_or(head.as_str(), |(words, _)| words).to_owned() + "..."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json<'_> {
        Json::parse(text).unwrap()
    }

    #[test]
    fn values_read_as_python_shows_them() {
        for (text, shown) in [
            (r#"[1, "a", null, true, {"k": 2.50}]"#, "[1, 'a', None, True, {'k': 2.5}]"),
            (r#""it's""#, r#""it's""#),
            (r#""it's \"x\"""#, r#"'it\'s "x"'"#),
            (
                r#""\n\t\\\u0000\u00e9\u200b\ud800\u00a0\u0301""#,
                "'\\n\\t\\\\\\x00é\\u200b\\ud800\\xa0\u{301}'",
            ),
            ("[NaN, Infinity, -Infinity, 1e400, -0, -0.0]", "[nan, inf, -inf, inf, 0, -0.0]"),
            (
                "[1e15, 1e16, 1.5e-5, 0.0001, 1e+308, 1.0]",
                "[1000000000000000.0, 1e+16, 1.5e-05, 0.0001, 1e+308, 1.0]",
            ),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("{}", "{}"),
        ] {
            assert_eq!(full(json(text)), shown, "{text}");
        }
    }

    #[test]
    fn arguments_are_a_tuple() {
        for (text, shown) in
            [("[]", "()"), ("[1]", "(1,)"), ("[1, \"b\"]", "(1, 'b')"), ("[[1], {}]", "([1], {})")]
        {
            assert_eq!(arguments(json(text), MAX_ARGS), shown);
        }
    }

    #[test]
    fn what_is_long_or_deep_is_cut_where_celery_cuts() {
        // Each taken from Celery 5.7's own function.
        for (text, max, shown) in [
            (r#"{"a": {"b": {"c": {"d": 1}}}}"#, 1024, "{'a': {'b': {'c': {...}}}}"),
            ("[[[[1]]]]", 1024, "[[[[...]]]]"),
            ("[1, 2, 3]", 4, "[1, , ...]"),
            (r#"["aaa bbb ccc", 2]"#, 8, "['aaa...', ...]"),
            (r#"{"key": "v"}"#, 3, "{'ke...', ...}"),
        ] {
            assert_eq!(short(json(text), max), shown, "{text} {max}");
        }
    }
}
