//! A shell's command line in pieces: enough to find the program in it and to take a wrapper off. What is not
//! understood is left as it is.

/// A piece of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What the shell would make of it; absent where only the shell knows (`$x`, `` `…` ``, patterns).
    pub word: Option<String>,
    /// As it is written.
    pub raw: String,
    /// `;`, `&&`, `|`, `(`, `>` and the like, newlines too.
    pub operator: bool,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Piece {
    /// What the shell would make of a word; as it is written where only the shell knows.
    #[must_use]
    pub fn text(&self) -> &str {
        self.word.as_deref().unwrap_or(&self.raw)
    }

    /// Whether it ends one command and begins the next.
    #[must_use]
    pub fn separates(&self) -> bool {
        self.operator && !self.raw.contains(['<', '>'])
    }
}

/// The pieces of a command line; `None` where a quote is not closed.
#[must_use]
pub fn pieces(line: &str) -> Option<Vec<Piece>> {
    let mut out: Vec<Piece> = Vec::new();
    let mut chars = line.char_indices().peekable();
    let mut word: Option<Word> = None;
    while let Some((at, c)) = chars.next() {
        let after = at + c.len_utf8();
        match c {
            ' ' | '\t' => finish(&mut word, at, line, &mut out),
            '#' if word.is_none() => {
                // A comment reaches to the end of the line.
                while chars.next_if(|(_, c)| *c != '\n').is_some() {}
            }
            '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => {
                // `2>` is one operator with the descriptor before it.
                let number = matches!(c, '<' | '>')
                    && word.as_ref().is_some_and(|w| w.plain && w.text.chars().all(|c| c.is_ascii_digit()));
                let start = if number { word.take().map_or(at, |w| w.start) } else { at };
                finish(&mut word, at, line, &mut out);
                let mut end = after;
                while let Some((i, n)) = chars.peek().copied() {
                    let together = match c {
                        '<' | '>' => matches!(n, '<' | '>' | '&' | '|') && end - at < 3,
                        '&' => n == '&' || n == '>',
                        '|' => n == '|' || n == '&',
                        ';' => n == ';',
                        _ => false,
                    };
                    if !together || (end - at >= 2 && !matches!(c, '<' | '>')) {
                        break;
                    }
                    end = i + n.len_utf8();
                    chars.next();
                }
                let raw = line.get(start..end)?.to_owned();
                // `>&2`: the descriptor belongs to it.
                if raw.ends_with('&') && raw.contains(['<', '>']) {
                    while let Some((i, n)) = chars.next_if(|(_, n)| n.is_ascii_digit() || *n == '-') {
                        end = i + n.len_utf8();
                    }
                }
                let raw = line.get(start..end)?.to_owned();
                out.push(Piece { word: None, raw, operator: true, start, end });
            }
            '\\' => {
                let (_, n) = chars.next()?;
                let w = word.get_or_insert_with(|| Word::at(at));
                w.plain = false;
                if n != '\n' {
                    w.text.push(n);
                }
            }
            '\'' => {
                let w = word.get_or_insert_with(|| Word::at(at));
                w.plain = false;
                loop {
                    match chars.next()? {
                        (_, '\'') => break,
                        (_, c) => w.text.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_with(|| Word::at(at)))?,
            '$' | '`' => {
                let w = word.get_or_insert_with(|| Word::at(at));
                w.known = false;
                expansion(c, &mut chars, w)?;
            }
            _ => {
                let w = word.get_or_insert_with(|| Word::at(at));
                w.known &= !(matches!(c, '*' | '?' | '[') || c == '~' && w.text.is_empty());
                w.text.push(c);
            }
        }
    }
    finish(&mut word, line.len(), line, &mut out);
    Some(out)
}

#[derive(Debug)]
struct Word {
    text: String,
    known: bool,
    plain: bool,
    start: usize,
}

impl Word {
    const fn at(start: usize) -> Self {
        Self { text: String::new(), known: true, plain: true, start }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

fn finish(word: &mut Option<Word>, end: usize, line: &str, out: &mut Vec<Piece>) {
    if let Some(w) = word.take() {
        let raw = line.get(w.start..end).unwrap_or_default().to_owned();
        out.push(Piece { word: w.known.then_some(w.text), raw, operator: false, start: w.start, end });
    }
}

fn double_quoted(chars: &mut Chars<'_>, w: &mut Word) -> Option<()> {
    w.plain = false;
    loop {
        match chars.next()?.1 {
            '"' => return Some(()),
            '\\' => {
                let (_, c) = chars.next()?;
                if !matches!(c, '"' | '\\' | '$' | '`' | '\n') {
                    w.text.push('\\');
                }
                w.text.push(c);
            }
            c @ ('$' | '`') => {
                w.known = false;
                expansion(c, chars, w)?;
            }
            c => w.text.push(c),
        }
    }
}

/// Passes over `$(…)`, `${…}` and `` `…` ``, so that what stands in them is no operator.
fn expansion(first: char, chars: &mut Chars<'_>, w: &mut Word) -> Option<()> {
    w.text.push(first);
    let close = match (first, chars.peek().map(|(_, c)| *c)) {
        ('`', _) => '`',
        (_, Some('(')) => ')',
        (_, Some('{')) => '}',
        _ => return Some(()),
    };
    let open = match close {
        ')' => '(',
        '}' => '{',
        _ => '\0',
    };
    let mut depth = usize::from(close == '`');
    loop {
        let (_, c) = chars.next()?;
        w.text.push(c);
        if c == '\\' {
            w.text.push(chars.next()?.1);
        } else if c == '\'' && close != '}' {
            loop {
                let (_, c) = chars.next()?;
                w.text.push(c);
                if c == '\'' {
                    break;
                }
            }
        } else if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// A word as a shell takes it for exactly this text.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The words of a command line that no shell reads, as Python's shlex splits it: quotes and backslashes count,
/// nothing else does. `None` where a quote is not closed.
#[must_use]
pub fn split(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut chars = line.chars();
    let mut word: Option<String> = None;
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => out.extend(word.take()),
            '\'' | '"' => {
                let w = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => match chars.next()? {
                            escaped @ ('"' | '\\') => w.push(escaped),
                            other => w.extend(['\\', other]),
                        },
                        other => w.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    out.extend(word);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(line: &str) -> Vec<String> {
        let pieces = pieces(line).unwrap_or_else(|| panic!("{line}"));
        pieces.iter().map(|p| if p.operator { format!("<{}>", p.raw) } else { p.text().to_owned() }).collect()
    }

    #[test]
    fn words_and_operators() {
        assert_eq!(shown("a 'b c' \"d e\" f\\ g"), ["a", "b c", "d e", "f g"]);
        assert_eq!(
            shown("a>b 2>&1 >>/c&&d||e;f|g&"),
            [
                "a", "<>>", "b", "<2>&1>", "<>>>", "/c", "<&&>", "d", "<||>", "e", "<;>", "f", "<|>", "g",
                "<&>"
            ]
        );
        assert_eq!(shown("x $((RANDOM % 60)); y"), ["x", "$((RANDOM % 60))", "<;>", "y"]);
        assert_eq!(
            shown("a `b ; c` \"$(d; e)\" ${f:-g h} # no | more"),
            ["a", "`b ; c`", "\"$(d; e)\"", "${f:-g h}"]
        );
        assert_eq!(pieces("a 'b"), None);
        assert_eq!(pieces("a \"b"), None);
        assert_eq!(pieces("$(x"), None);
    }

    #[test]
    fn what_only_the_shell_knows_is_no_word() {
        let words = |line| pieces(line).unwrap().into_iter().map(|p| p.word).collect::<Vec<_>>();
        assert_eq!(
            words("*.log $x ~/y 'a*' a~"),
            [None, None, None, Some("a*".to_owned()), Some("a~".to_owned())]
        );
    }

    #[test]
    fn words_that_no_shell_reads() {
        assert_eq!(split("a 'b c' \"d\\\"e\\n\" $x;y \\ z").unwrap(), ["a", "b c", "d\"e\\n", "$x;y", " z"]);
        assert_eq!(split("a 'b"), None);
        assert_eq!(split("''").unwrap(), [""]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_places_are_true(line in "[ -~\\n\u{e9}]{0,40}") {
            for p in pieces(&line).unwrap_or_default() {
                prop_assert_eq!(&line[p.start..p.end], p.raw.as_str());
            }
        }

        #[test]
        fn what_is_quoted_is_one_word(text in "[^\u{0}]{0,20}") {
            let found = pieces(&quote(&text)).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].text(), text.as_str());
        }
    }
}
