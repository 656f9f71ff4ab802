//! Command lines of `ExecStart=` and its kin: prefixes, quotes, `$variables`, specifiers (systemd.service(5)).

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `-`: its failure counts for nothing.
    pub may_fail: bool,
    /// `+`, `!`, `!!`: with root's rights, whatever `User=` says.
    pub as_root: bool,
    /// `@`: the second word is what the program is told as its own name.
    pub own_name: bool,
    /// `|`: through the user's shell.
    pub by_shell: bool,
    /// Its words.
    pub words: Vec<Word>,
}

/// A word, in the pieces that it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Text and variables, in order.
    pub parts: Vec<Part>,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Text(String),
    /// `${NAME}`: its value, always one word; `$NAME` as a whole word: split at blanks.
    Variable {
        /// Its name.
        name: String,
        /// Whether its value is split at blanks.
        split: bool,
    },
}

impl Word {
    /// The text of a word without variables.
    #[must_use]
    pub fn plain(&self) -> Option<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable { .. } => return None,
            }
        }
        Some(out)
    }

    /// As a shell takes it.
    #[must_use]
    pub fn for_shell(&self) -> String {
        let part = |p: &Part| match p {
            Part::Text(t) => crate::cli::import::shell::quote(t),
            Part::Variable { name, split: true } => format!("${name}"),
            Part::Variable { name, split: false } => format!("\"${{{name}}}\""),
        };
        let all: String = self.parts.iter().map(part).collect();
        if all.is_empty() { "''".to_owned() } else { all }
    }
}

impl Line {
    /// The words, where none has a variable.
    #[must_use]
    pub fn plain(&self) -> Option<Vec<String>> {
        self.words.iter().map(Word::plain).collect()
    }

    /// As a shell takes it.
    #[must_use]
    pub fn for_shell(&self) -> String {
        self.words.iter().map(Word::for_shell).collect::<Vec<_>>().join(" ")
    }
}

/// Reads the value of an `Exec…=`: its lines, which ` ; ` separates.
///
/// # Errors
/// What is wrong with it, or cannot be known here.
pub fn lines(value: &str, unit: &str) -> Result<Vec<Line>, String> {
    let mut rest = value.trim();
    let mut line = Line::default();
    let mut variables = true;
    loop {
        match rest.chars().next() {
            Some('-') => line.may_fail = true,
            Some('+' | '!') => line.as_root = true,
            Some('@') => line.own_name = true,
            Some(':') => variables = false,
            Some('|') => line.by_shell = true,
            _ => break,
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    let mut out = Vec::new();
    let mut at = 0;
    for (text, quoted, end) in words_at(rest)? {
        let raw = rest.get(at..end).unwrap_or_default().trim();
        at = end;
        if raw == ";" && !quoted {
            // What follows has prefixes of its own.
            let after = rest.get(end..).unwrap_or_default();
            out.push(line);
            out.extend(lines(after, unit)?);
            return Ok(out);
        }
        line.words.push(word(&text, variables, unit)?);
    }
    if line.own_name && line.words.len() > 1 {
        line.words.remove(1);
    }
    if line.words.is_empty() {
        return Err("it has no program".to_owned());
    }
    out.push(line);
    Ok(out)
}

/// The words of a value: blanks separate, quotes keep together, C escapes are resolved. Whether a quote was in it.
///
/// # Errors
/// A quote that is not closed, an escape that is none.
pub fn words(text: &str) -> Result<Vec<(String, bool)>, String> {
    Ok(words_at(text)?.into_iter().map(|(word, quoted, _)| (word, quoted)).collect())
}

/// The same, with the place of each word's end in bytes.
fn words_at(text: &str) -> Result<Vec<(String, bool, usize)>, String> {
    let mut out: Vec<(String, bool, usize)> = Vec::new();
    let mut chars = text.chars();
    let mut word: Option<(String, bool)> = None;
    let mut left = text.len();
    while let Some(c) = chars.next() {
        let end = text.len() - left;
        match c {
            ' ' | '\t' => out.extend(word.take().map(|(w, q)| (w, q, end))),
            '"' | '\'' => {
                let w = word.get_or_insert_with(Default::default);
                w.1 = true;
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        end if end == c => break,
                        '\\' => escape(&mut chars, &mut w.0)?,
                        other => w.0.push(other),
                    }
                }
            }
            '\\' => {
                let w = word.get_or_insert_with(Default::default);
                w.1 = true;
                escape(&mut chars, &mut w.0)?;
            }
            other => word.get_or_insert_with(Default::default).0.push(other),
        }
        left = chars.as_str().len();
    }
    out.extend(word.map(|(w, q)| (w, q, text.len())));
    Ok(out)
}

fn escape(chars: &mut std::str::Chars<'_>, out: &mut String) -> Result<(), String> {
    let c = chars.next().ok_or("a backslash stands at the end")?;
    let mut digits = |n: usize, radix: u32| {
        let text: String = chars.clone().take(n).take_while(|c| c.is_digit(radix)).collect();
        // Digits are of one byte each.
        *chars = chars.as_str().get(text.len()..).unwrap_or_default().chars();
        let code = u32::from_str_radix(&text, radix).ok().and_then(char::from_u32);
        code.filter(|c| *c != '\0').ok_or_else(|| "an escape is no character".to_owned())
    };
    let found = match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        '\\' | '"' | '\'' | ';' | ' ' => c,
        'x' => digits(2, 16)?,
        'u' => digits(4, 16)?,
        'U' => digits(8, 16)?,
        // systemd keeps what is no escape, as `\.` in a pattern.
        other => {
            out.push('\\');
            other
        }
    };
    out.push(found);
    Ok(())
}

fn word(text: &str, variables: bool, unit: &str) -> Result<Word, String> {
    let text = specifiers(text, unit)?;
    let mut parts = Vec::new();
    let mut plain = String::new();
    let is_name = |n: &str| {
        n.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(name) = text.strip_prefix('$').filter(|n| variables && is_name(n)) {
        return Ok(Word { parts: vec![Part::Variable { name: name.to_owned(), split: true }] });
    }
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$').filter(|_| variables) {
        plain.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        let braced = after.strip_prefix('{').and_then(|t| t.split_once('}')).filter(|(n, _)| is_name(n));
        if let Some((name, tail)) = braced {
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable { name: name.to_owned(), split: false });
            rest = tail;
        } else {
            // `$$` is one.
            plain.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(Word { parts })
}

/// Replaces the specifiers that the unit's name answers; `%%` is a percent sign.
///
/// # Errors
/// A specifier that only the running system could answer.
pub fn specifiers(text: &str, unit: &str) -> Result<String, String> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('n') => out.push_str(unit),
            Some('N') => out.push_str(stem),
            Some('p' | 'P') => out.push_str(prefix),
            Some('i') => out.push_str(instance),
            Some('I') => out.push_str(&instance.replace('-', "/")),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('T') => out.push_str("/tmp"),
            Some('V') => out.push_str("/var/tmp"),
            Some(c) => return Err(format!("only systemd knows what %{c} is; write its value")),
            None => out.push('%'),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        let lines = lines(value, "pg@15-main.service").unwrap_or_else(|e| panic!("{value}: {e}"));
        lines
            .iter()
            .map(|l| {
                let flags = [(l.may_fail, "-"), (l.as_root, "+"), (l.own_name, "@")];
                let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, f)| *f).collect();
                format!("{flags}{}", l.for_shell())
            })
            .collect()
    }

    #[test]
    fn lines_of_exec() {
        for (value, wanted) in [
            ("/a b 'c d' \"e\\tf\"", "/a b 'c d' 'e\tf'"),
            ("-/a", "-/a"),
            ("@/bin/sh sh -c 'x y'", "@/bin/sh -c 'x y'"),
            ("+-/a", "-+/a"),
            ("/a $OPTS ${X}.log $$HOME cost$5", "/a $OPTS \"${X}\".log '$HOME' 'cost$5'"),
            (":/a $OPTS", "/a '$OPTS'"),
            ("/a %i %p %N %% x%%y", "/a 15-main pg pg@15-main % x%y"),
            ("/bin/sh -c 'echo \"$${X}\"'", "/bin/sh -c 'echo \"${X}\"'"),
            ("/a \\x41 '\\.x'", "/a A '\\.x'"),
        ] {
            assert_eq!(shown(value), [wanted], "{value}");
        }
        assert_eq!(shown("/a b ; -/c"), ["/a b", "-/c"]);
        for bad in ["", "-", "/a 'b", "/a \\", "/a %h", "/a '\\x00'"] {
            assert!(lines(bad, "x.service").is_err(), "{bad:?}");
        }
    }
}
