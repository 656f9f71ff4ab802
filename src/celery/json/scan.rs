//! Where a value ends: the one reading of JSON text, without recursion.

/// Deepest nesting that is read: Python's own reader gives up near this.
pub const MAX_DEPTH: usize = 1000;

/// A text that is not JSON in Python's reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no JSON at byte {at}: {why}")]
pub struct NotJson {
    /// Bytes before the place.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// The one value that the text is, without the white space around it.
pub(super) fn whole(text: &str) -> Result<&str, NotJson> {
    let bytes = text.as_bytes();
    let start = blank(bytes, 0);
    let end = value(bytes, start)?;
    let rest = blank(bytes, end);
    if rest < bytes.len() {
        return Err(NotJson { at: rest, why: "something stands behind the value" });
    }
    Ok(text.get(start..end).unwrap_or_default())
}

/// The elements of a checked array.
pub(super) fn items(text: &str) -> Vec<&str> {
    let (bytes, mut at, mut found) = (text.as_bytes(), 1, Vec::new());
    loop {
        at = blank(bytes, at);
        let Ok(end) = value(bytes, at) else { return found };
        found.extend(text.get(at..end));
        at = blank(bytes, end) + 1;
    }
}

/// The members of a checked object: the name with its quotes, and the value.
pub(super) fn entries(text: &str) -> Vec<(&str, &str)> {
    let (bytes, mut at, mut found) = (text.as_bytes(), 1, Vec::new());
    loop {
        at = blank(bytes, at);
        let Ok(name_end) = string(bytes, at) else { return found };
        let from = blank(bytes, blank(bytes, name_end) + 1);
        let Ok(end) = value(bytes, from) else { return found };
        found.extend(text.get(at..name_end).zip(text.get(from..end)));
        at = blank(bytes, end) + 1;
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn blank(bytes: &[u8], mut at: usize) -> usize {
    while matches!(byte(bytes, at), b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

/// The end of the value that begins at `at`.
fn value(bytes: &[u8], mut at: usize) -> Result<usize, NotJson> {
    // Which brackets are open; true: an object.
    let mut open: Vec<bool> = Vec::new();
    loop {
        at = blank(bytes, at);
        let opened = match byte(bytes, at) {
            b'"' => {
                at = string(bytes, at)?;
                false
            }
            bracket @ (b'{' | b'[') => {
                if open.len() == MAX_DEPTH {
                    return Err(NotJson { at, why: "nested too deeply" });
                }
                open.push(bracket == b'{');
                at = blank(bytes, at + 1);
                true
            }
            _ => {
                at = scalar(bytes, at)?;
                false
            }
        };
        // Behind a bracket an element may come at once; behind a value brackets close or a comma stands.
        let mut fresh = opened;
        loop {
            let Some(&object) = open.last() else { return Ok(at) };
            at = blank(bytes, at);
            let close = if object { b'}' } else { b']' };
            match byte(bytes, at) {
                b if b == close => {
                    open.pop();
                    at += 1;
                    fresh = false;
                    continue;
                }
                b',' if !fresh => at = blank(bytes, at + 1),
                _ if fresh => {}
                _ => return Err(NotJson { at, why: "a comma or a closing bracket is missing" }),
            }
            if object {
                at = blank(bytes, string(bytes, at)?);
                if byte(bytes, at) != b':' {
                    return Err(NotJson { at, why: "a colon is missing" });
                }
                at += 1;
            }
            break;
        }
    }
}

/// The end of the string whose quote stands at `at`.
fn string(bytes: &[u8], at: usize) -> Result<usize, NotJson> {
    if byte(bytes, at) != b'"' {
        return Err(NotJson { at, why: "a string is missing" });
    }
    let mut i = at + 1;
    loop {
        match bytes.get(i) {
            None => return Err(NotJson { at, why: "a string does not end" }),
            Some(b'"') => return Ok(i + 1),
            Some(b'\\') => match byte(bytes, i + 1) {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => i += 2,
                b'u' if (2..6).all(|d| byte(bytes, i + d).is_ascii_hexdigit()) => i += 6,
                _ => return Err(NotJson { at: i, why: "an unknown escape" }),
            },
            Some(0..0x20) => return Err(NotJson { at: i, why: "a control character in a string" }),
            Some(_) => i += 1,
        }
    }
}

fn scalar(bytes: &[u8], at: usize) -> Result<usize, NotJson> {
    for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
        if bytes.get(at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Ok(at + word.len());
        }
    }
    number(bytes, at)
}

fn number(bytes: &[u8], at: usize) -> Result<usize, NotJson> {
    let digits = |mut i: usize| {
        let from = i;
        while byte(bytes, i).is_ascii_digit() {
            i += 1;
        }
        (i > from).then_some(i)
    };
    let first = if byte(bytes, at) == b'-' { at + 1 } else { at };
    let whole = if byte(bytes, first) == b'0' { Some(first + 1) } else { digits(first) };
    let mut end = whole.ok_or(NotJson { at, why: "no value" })?;
    if byte(bytes, end) == b'.'
        && let Some(fraction) = digits(end + 1)
    {
        end = fraction;
    }
    if matches!(byte(bytes, end), b'e' | b'E') {
        let sign = usize::from(matches!(byte(bytes, end + 1), b'+' | b'-'));
        if let Some(exponent) = digits(end + 1 + sign) {
            end = exponent;
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_text_is_refused_where_it_breaks() {
        for (text, at) in [
            ("", 0),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[,1]", 1),
            ("{\"a\" 1}", 5),
            ("{1: 2}", 1),
            ("{\"a\": 1,}", 8),
            ("\"ab", 0),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("\"a\u{1}\"", 2),
            ("01", 1),
            ("1.", 1),
            ("nul", 0),
            ("[1]]", 3),
            ("[", 1),
            ("{", 1),
            ("-", 0),
            ("{\"a\":", 5),
        ] {
            assert_eq!(whole(text).unwrap_err().at, at, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(whole(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(whole(&deep(MAX_DEPTH + 1)).unwrap_err().why, "nested too deeply");
        assert!(whole(&"[".repeat(1 << 20)).is_err());
    }

    #[test]
    fn what_serde_takes_is_taken() {
        for text in
            ["[]", "{}", " [ ] ", "[[],{}]", "{\"a\":{},\"b\":[1,-2.5e-3]}", "\"\\\"\\\\\"", "0", "-0"]
        {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
            assert!(whole(text).is_ok(), "{text}");
        }
        assert_eq!(items("[ 1 , \"a,]\" ,[2,3] ]"), ["1", "\"a,]\"", "[2,3]"]);
        assert_eq!(entries("{ \"a\" : 1, \"b\":{\"c\":[]} }"), [("\"a\"", "1"), ("\"b\"", "{\"c\":[]}")]);
        assert!(items("[]").is_empty() && entries("{}").is_empty());
    }
}
