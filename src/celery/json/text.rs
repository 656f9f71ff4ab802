//! Strings: Python's escapes read and written.

/// The units of a quoted string: characters, and the halves of surrogate pairs that have no other half.
pub fn units(quoted: &str) -> impl Iterator<Item = Result<char, u16>> + '_ {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut chars = inner.chars();
    // Of `\ud800\u0041` the first is a lone half and the second a character: it is kept for the next turn.
    let mut kept: Option<u16> = None;
    std::iter::from_fn(move || {
        let unit = match kept.take() {
            Some(unit) => unit,
            None => match escaped(&mut chars)? {
                Ok(plain) => return Some(Ok(plain)),
                Err(unit) => unit,
            },
        };
        if !(0xd800..0xdc00).contains(&unit) {
            return Some(char::from_u32(u32::from(unit)).ok_or(unit));
        }
        let ahead = chars.clone();
        match escaped(&mut chars) {
            Some(Err(low)) if (0xdc00..0xe000).contains(&low) => {
                let code = 0x10000 + ((u32::from(unit) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                Some(char::from_u32(code).ok_or(unit))
            }
            Some(Err(other)) => {
                kept = Some(other);
                Some(Err(unit))
            }
            _ => {
                chars = ahead;
                Some(Err(unit))
            }
        }
    })
}

/// The next character, or the 16 bits of a `\u` escape.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<Result<char, u16>> {
    let c = chars.next()?;
    if c != '\\' {
        return Some(Ok(c));
    }
    Some(match chars.next()? {
        'u' => {
            let mut unit = 0_u16;
            for _ in 0..4 {
                let digit = chars.next().and_then(|d| d.to_digit(16)).unwrap_or(0);
                unit = (unit << 4) | u16::try_from(digit).unwrap_or(0);
            }
            Err(unit)
        }
        'b' => Ok('\u{8}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        same => Ok(same),
    })
}

/// The string in quotes, and whether it is whole: U+FFFD stands for lone halves of surrogate pairs.
#[must_use]
pub fn decode(quoted: &str) -> (String, bool) {
    let mut whole = true;
    let text = units(quoted)
        .map(|unit| {
            unit.unwrap_or_else(|_| {
                whole = false;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    (text, whole)
}

/// The string in quotes, in ASCII as Python writes it.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => push_escaped(&mut out, c),
        }
    }
    out.push('"');
    out
}

/// JSON text with every character outside ASCII escaped: it can stand in strings only.
#[must_use]
pub fn to_ascii(json: &str) -> String {
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() * 2);
    for c in json.chars() {
        if c.is_ascii() { out.push(c) } else { push_escaped(&mut out, c) }
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_python_reads_them() {
        for (quoted, text, whole) in [
            (r#""a\"\\\/\b\f\n\r\tb""#, "a\"\\/\u{8}\u{c}\n\r\tb", true),
            (r#""\u00e9\ud83d\ude00""#, "é\u{1f600}", true),
            (r#""\ud800""#, "\u{fffd}", false),
            (r#""\ud800\u0041""#, "\u{fffd}A", false),
            (r#""\ud800x\ude00""#, "\u{fffd}x\u{fffd}", false),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}", false),
            (r#""\ud800\n""#, "\u{fffd}\n", false),
            ("\"é\"", "é", true),
            ("\"\"", "", true),
        ] {
            assert_eq!(decode(quoted), (text.to_owned(), whole), "{quoted}");
        }
    }

    #[test]
    fn what_is_written_is_ascii_and_reads_back() {
        for text in ["", "a\"\\\u{0}\u{1f}\u{7f}é\u{1f600}\u{2028}", "\n\r\t"] {
            let quoted = encode(text);
            assert!(quoted.is_ascii());
            assert_eq!(decode(&quoted), (text.to_owned(), true));
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
        assert_eq!(to_ascii("[\"é\"]"), "[\"\\u00e9\"]");
    }
}
