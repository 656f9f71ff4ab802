//! Python's tokens, in logical lines.

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A name or keyword.
    Name(String),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A string whose text is known.
    Text(String),
    /// Bytes, an f-string with braces, an imaginary number, anything else that is a value but not known.
    Unknown,
    /// An operator or bracket.
    Op(&'static str),
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its line, from 1.
    pub line: usize,
}

/// A file in tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// Logical lines, each with the width of its indentation.
    pub lines: Vec<(usize, Vec<Token>)>,
    /// Comments that stand alone on their line, with it.
    pub comments: Vec<(usize, String)>,
}

const OPERATORS: &[&str] = &[
    "**=", "//=", ">>=", "<<=", "...", "**", "//", ">>", "<<", "<=", ">=", "==", "!=", "->", "+=", "-=",
    "*=", "/=", "%=", "&=", "|=", "^=", "@=", ":=", "(", ")", "[", "]", "{", "}", ",", ":", ".", ";", "@",
    "=", "+", "-", "*", "/", "%", "&", "|", "^", "~", "<", ">",
];

/// Cuts a text into tokens. What Python would refuse is passed over, so that the rest can still be read.
#[must_use]
pub fn tokens(text: &str) -> Tokens {
    let mut reader =
        Reader { text, at: 0, line: 1, depth: 0, out: Tokens::default(), now: Vec::new(), indent: 0 };
    reader.run();
    reader.out
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    depth: usize,
    out: Tokens,
    now: Vec<Token>,
    indent: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn end_line(&mut self) {
        if !self.now.is_empty() {
            self.out.lines.push((self.indent, std::mem::take(&mut self.now)));
        }
    }

    fn run(&mut self) {
        let mut fresh = true;
        while let Some(c) = self.peek() {
            match c {
                '\n' => {
                    self.at += 1;
                    self.line += 1;
                    if self.depth == 0 {
                        self.end_line();
                    }
                    fresh = true;
                }
                '\\' if self.rest().starts_with("\\\n") || self.rest().starts_with("\\\r\n") => {
                    self.at += if self.rest().starts_with("\\\r") { 3 } else { 2 };
                    self.line += 1;
                }
                '#' => {
                    let end = self.rest().find('\n').unwrap_or(self.rest().len());
                    if fresh {
                        let comment = self.rest().get(..end).unwrap_or_default().trim_end().to_owned();
                        self.out.comments.push((self.line, comment));
                    }
                    self.at += end;
                }
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => {
                    if self.now.is_empty() {
                        let begin = self.text.get(..self.at).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
                        self.indent = self.at - begin;
                    }
                    fresh = false;
                    self.token(c);
                }
            }
        }
        self.end_line();
    }

    fn push(&mut self, kind: Kind, start: usize, line: usize) {
        self.now.push(Token { kind, start, end: self.at, line });
    }

    fn token(&mut self, c: char) {
        let (start, line) = (self.at, self.line);
        if c.is_ascii_digit() || (c == '.' && self.rest().chars().nth(1).is_some_and(|d| d.is_ascii_digit()))
        {
            let kind = self.number();
            return self.push(kind, start, line);
        }
        if matches!(c, '"' | '\'') {
            let kind = self.string("");
            return self.push(kind, start, line);
        }
        if c.is_alphabetic() || c == '_' {
            let len =
                self.rest().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest().len());
            let name = self.rest().get(..len).unwrap_or_default();
            self.at += len;
            let prefix = name.len() <= 2 && name.chars().all(|c| "rRbBuUfF".contains(c));
            let kind = if prefix && self.peek().is_some_and(|c| matches!(c, '"' | '\'')) {
                self.string(&name.to_lowercase())
            } else {
                Kind::Name(name.to_owned())
            };
            return self.push(kind, start, line);
        }
        match OPERATORS.iter().find(|op| self.rest().starts_with(**op)) {
            Some(op) => {
                self.at += op.len();
                match *op {
                    "(" | "[" | "{" => self.depth += 1,
                    ")" | "]" | "}" => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.push(Kind::Op(op), start, line);
                if *op == ";" && self.depth == 0 {
                    self.now.pop();
                    self.end_line();
                }
            }
            // Nothing that Python has.
            None => self.at += c.len_utf8(),
        }
    }

    fn number(&mut self) -> Kind {
        let mut len = 0;
        let mut last = ' ';
        for c in self.rest().chars() {
            let sign = matches!(c, '+' | '-') && matches!(last, 'e' | 'E') && !self.rest().starts_with("0x");
            if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || sign) {
                break;
            }
            len += 1;
            last = c;
        }
        let raw: String = self.rest().chars().take(len).filter(|c| *c != '_').collect();
        self.at += len;
        let based = ["0x", "0o", "0b"].iter().zip([16, 8, 2]).find_map(|(prefix, radix)| {
            let digits = raw.to_lowercase().strip_prefix(prefix)?.to_owned();
            i64::from_str_radix(&digits, radix).ok()
        });
        match (based, raw.parse::<i64>(), raw.parse::<f64>()) {
            (Some(n), ..) | (None, Ok(n), _) => Kind::Int(n),
            (None, Err(_), Ok(f)) if f.is_finite() && raw.contains(['.', 'e', 'E']) => Kind::Float(f),
            _ => Kind::Unknown,
        }
    }

    fn string(&mut self, prefix: &str) -> Kind {
        let rest = self.rest();
        let quote = rest.get(..1).unwrap_or_default();
        let triple = rest.get(..3) == Some(quote.repeat(3).as_str());
        let close = if triple { quote.repeat(3) } else { quote.to_owned() };
        self.at += close.len();
        let raw = prefix.contains('r');
        let mut known = !prefix.contains('b');
        let mut out = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(&close) {
                self.at += close.len();
                break;
            }
            let Some(c) = rest.chars().next() else {
                known = false;
                break;
            };
            if c == '\n' {
                if !triple {
                    // Not closed on its line: no string of Python.
                    known = false;
                    break;
                }
                self.line += 1;
            }
            self.at += c.len_utf8();
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some(next) = self.peek() else { continue };
            self.at += next.len_utf8();
            self.line += usize::from(next == '\n');
            if raw {
                out.extend(['\\', next]);
            } else {
                known &= self.escape(next, &mut out);
            }
        }
        let braces = prefix.contains('f') && out.contains(['{', '}']);
        if known && !braces { Kind::Text(out) } else { Kind::Unknown }
    }

    /// An escape after its backslash; `false` where it is none that is known here.
    fn escape(&mut self, c: char, out: &mut String) -> bool {
        let mut digits = |n: usize, radix: u32, first: &str| {
            let text: String = self.rest().chars().take(n).take_while(|c| c.is_digit(radix)).collect();
            self.at += text.len();
            u32::from_str_radix(&format!("{first}{text}"), radix).ok().and_then(char::from_u32)
        };
        let found = match c {
            '\n' => return true,
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' | '\'' | '"' => Some(c),
            'x' => digits(2, 16, ""),
            'u' => digits(4, 16, ""),
            'U' => digits(8, 16, ""),
            '0'..='7' => digits(2, 8, &c.to_string()),
            'N' => None,
            other => {
                out.push('\\');
                Some(other)
            }
        };
        out.extend(found);
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Vec<Kind>> {
        tokens(text).lines.into_iter().map(|(_, line)| line.into_iter().map(|t| t.kind).collect()).collect()
    }

    #[test]
    fn strings_numbers_and_lines() {
        let text = |t: &str| Kind::Text(t.to_owned());
        assert_eq!(
            kinds("'a' \"b\\n\" r'\\d' u'é' '''x\ny''' b'z' f'{q}' f'w'")[0],
            [
                text("a"),
                text("b\n"),
                text("\\d"),
                text("é"),
                text("x\ny"),
                Kind::Unknown,
                Kind::Unknown,
                text("w")
            ]
        );
        assert_eq!(
            kinds("1_000 0x10 1.5 1e3 .5 3j 99999999999999999999")[0],
            [
                Kind::Int(1_000),
                Kind::Int(16),
                Kind::Float(1.5),
                Kind::Float(1_000.0),
                Kind::Float(0.5),
                Kind::Unknown,
                Kind::Unknown
            ]
        );
        assert_eq!(kinds("a = (1,\n 2) # c\nb; c\\\n d").len(), 3);
        let found = tokens("# one\nx = 1  # two\n  # three\n  y\n");
        assert_eq!(found.comments, [(1, "# one".to_owned()), (3, "# three".to_owned())]);
        assert_eq!(found.lines.iter().map(|l| l.0).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn what_is_no_python_is_passed_over() {
        for odd in ["'", "\"\"\"", "'\\", "'\\x", "?$`", "'\\N{X}'", "((((", "))))", "\\", "é'", "0x", "1e"]
        {
            let _ = tokens(odd);
        }
    }
}
