//! `environment_file`, read as systemd reads `EnvironmentFile=` (systemd.exec(5)).

use std::fs;
use std::io::Read;

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Reads the file at `path`; a `-` before the path makes a missing file an empty one.
///
/// # Errors
/// It is missing, unreadable, too large or not UTF-8; a sentence that names it.
pub fn read(path: &str) -> Result<Vec<(String, String)>, String> {
    let (file, optional) = path.strip_prefix('-').map_or((path, false), |p| (p, true));
    let fail = |why: &dyn std::fmt::Display| format!("environment_file {file}: {why}");
    let opened = match fs::File::open(file) {
        Err(e) if optional && e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| fail(&e))?,
    };
    let mut text = String::new();
    opened.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| fail(&e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(fail(&"is larger than 1 MiB"));
    }
    Ok(parse(&text))
}

/// The assignments of a file's text in their order. Lines that are none are passed over, as systemd does:
/// such files are often shared with shells.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.peek().copied() {
        if c.is_whitespace() {
            chars.next();
        } else if c == '#' || c == ';' {
            skip_comment(&mut chars);
        } else if let Some((name, value)) = assignment(&mut chars) {
            found.push((name, value));
        }
    }
    found
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// To the end of the line; a backslash before it continues the comment.
fn skip_comment(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '\n' => return,
            _ => {}
        }
    }
}

/// One `NAME=value`; `None` where the line is something else (it is used up).
fn assignment(chars: &mut Chars<'_>) -> Option<(String, String)> {
    let mut name = String::new();
    loop {
        match chars.next()? {
            '\n' => return None,
            '=' => break,
            c => name.push(c),
        }
    }
    let value = value(chars);
    let name = name.trim_end();
    let valid = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (valid && !value.contains('\0')).then(|| (name.to_owned(), value))
}

/// A value to the end of its line: white space around it goes, quotes keep theirs, a backslash continues
/// the line or takes the next character as it is.
fn value(chars: &mut Chars<'_>) -> String {
    let mut value = String::new();
    // Length up to which nothing is trimmed: what was quoted or escaped stays.
    let mut kept = 0;
    while let Some(c) = chars.next() {
        match c {
            '\n' => break,
            '\\' => {
                match chars.next() {
                    None | Some('\n') => {}
                    Some(next) => value.push(next),
                }
                kept = value.len();
            }
            '\'' | '"' => {
                quoted(chars, c, &mut value);
                kept = value.len();
            }
            c if c.is_whitespace() && value.is_empty() && kept == 0 => {}
            c => value.push(c),
        }
    }
    let end = value.trim_end().len().max(kept);
    value.truncate(end);
    value
}

/// To the closing quote, over lines. Between double quotes a backslash takes `"`, `\`, `` ` `` and `$` as
/// they are, continues the line, and stays before anything else.
fn quoted(chars: &mut Chars<'_>, quote: char, value: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return,
            '\\' if quote == '"' => match chars.next() {
                None | Some('\n') => {}
                Some(next) => {
                    if !matches!(next, '"' | '\\' | '`' | '$') {
                        value.push('\\');
                    }
                    value.push(next);
                }
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        let text = "# comment \\\nstill=comment\n; other\n\n A = 1 \nB=\"a b\\\"\\n$x\"\nC='it\\s\n two'\n\
                    export D=1\nE=a\\\nb\\ \n1F=x\nG=\nH=\"x\"y' z'\nnothing\nI=#no comment\nJ=last";
        let want = [
            ("A", "1"),
            ("B", "a b\"\\n$x"),
            ("C", "it\\s\n two"),
            ("E", "ab "),
            ("G", ""),
            ("H", "xy z"),
            ("I", "#no comment"),
            ("J", "last"),
        ];
        let got = parse(text);
        assert_eq!(got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_missing_file_is_named_unless_it_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none").display().to_string();
        assert!(read(&path).unwrap_err().contains(&path));
        assert_eq!(read(&format!("-{path}")), Ok(vec![]));
        std::fs::write(&path, vec![b'x'; (MAX_FILE + 1) as usize]).unwrap();
        assert!(read(&path).unwrap_err().contains("larger"));
    }
}
