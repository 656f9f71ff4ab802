//! One line of a crontab.

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing.
    Blank,
    /// `# …`
    Comment(&'a str),
    /// `NAME = value`, without the quotes around the value.
    Assignment(&'a str, &'a str),
    /// Five fields or a word that begins with `@`, and the rest of the line.
    Entry(When<'a>, &'a str),
    /// Nothing that cron understands: why.
    Wrong(&'static str),
}

/// The time of an entry, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When<'a> {
    /// `@daily` and the like.
    Word(&'a str),
    /// `@every 5m`, which some other programs know.
    Every(&'a str),
    /// Minute, hour, day of month, month, day of week.
    Fields([&'a str; 5]),
}

/// Reads a line as crontab(5) says: an assignment comes first, everything else is an entry.
#[must_use]
pub fn parse(line: &str) -> Line<'_> {
    let text = line.trim_matches([' ', '\t', '\r']);
    if text.is_empty() {
        return Line::Blank;
    }
    if text.starts_with('#') {
        return Line::Comment(text);
    }
    if let Some((name, value)) = assignment(text) {
        return Line::Assignment(name, value);
    }
    let (first, rest) = word(text);
    if let Some(nickname) = first.strip_prefix('@') {
        if rest.is_empty() {
            return Line::Wrong("there is no command after the time");
        }
        if nickname.eq_ignore_ascii_case("every") {
            let (interval, rest) = word(rest);
            return Line::Entry(When::Every(interval), rest);
        }
        return Line::Entry(When::Word(first), rest);
    }
    let mut fields = [first; 5];
    let mut rest = rest;
    for field in fields.iter_mut().skip(1) {
        (*field, rest) = word(rest);
    }
    match fields.last() {
        Some(last) if !last.is_empty() && !rest.is_empty() => Line::Entry(When::Fields(fields), rest),
        Some(last) if !last.is_empty() => Line::Wrong("there is no command after the five fields"),
        _ => Line::Wrong("it has neither five fields and a command nor the form NAME=value"),
    }
}

/// The first word and what follows it, without the blanks between them.
#[must_use]
pub fn word(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    (first, rest.trim_start_matches([' ', '\t']))
}

/// `NAME=value`, `NAME = "value"`, `"NAME"='value'`.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.chars().next()? {
        quote @ ('"' | '\'') => text.get(1..)?.split_once(quote)?,
        _ => text.split_at(text.find([' ', '\t', '='])?),
    };
    let value = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?.trim_matches([' ', '\t']);
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (plain && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .then(|| (name, unquoted(value)))
}

fn unquoted(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value)
}

/// The command of an entry and what it gets on stdin: the first `%` ends the command, those after it are
/// newlines, `\%` is a percent sign.
#[must_use]
pub fn percent(rest: &str) -> (String, Option<String>) {
    let (mut command, mut stdin) = (String::new(), None);
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        let percent = c == '\\' && chars.next_if_eq(&'%').is_some();
        match (&mut stdin, percent, c) {
            (None, true, _) => command.push('%'),
            (None, false, '%') => stdin = Some(String::new()),
            (None, false, '\\') => {
                // What is escaped here cannot escape what follows it.
                command.push('\\');
                command.extend(chars.next());
            }
            (None, false, c) => command.push(c),
            (Some(text), true, _) => text.push('%'),
            (Some(text), false, '%') => text.push('\n'),
            (Some(text), false, c) => text.push(c),
        }
    }
    (command.trim_end().to_owned(), stdin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(parse("  \t"), Line::Blank);
        assert_eq!(parse(" # x"), Line::Comment("# x"));
        assert_eq!(parse("MAILTO=\"\""), Line::Assignment("MAILTO", ""));
        assert_eq!(parse("PATH = /usr/bin:/bin"), Line::Assignment("PATH", "/usr/bin:/bin"));
        assert_eq!(parse("\"A\"='b c' "), Line::Assignment("A", "b c"));
        assert_eq!(
            parse("*/5\t*  * * 1-5  root  x=1 y"),
            Line::Entry(When::Fields(["*/5", "*", "*", "*", "1-5"]), "root  x=1 y")
        );
        assert_eq!(parse("@daily x"), Line::Entry(When::Word("@daily"), "x"));
        assert_eq!(parse("@every 5m x y"), Line::Entry(When::Every("5m"), "x y"));
        for bad in ["0 5 * *", "0 5 * * *", "@daily", "hello"] {
            assert!(matches!(parse(bad), Line::Wrong(_)), "{bad}");
        }
    }

    #[test]
    fn percent_signs() {
        let is = |command: &str, stdin: Option<&str>| (command.to_owned(), stdin.map(str::to_owned));
        assert_eq!(percent("date +\\%F"), is("date +%F", None));
        assert_eq!(percent("mail -s x joe%Joe,%%Where \\%?"), is("mail -s x joe", Some("Joe,\n\nWhere %?")));
        assert_eq!(percent("cat%"), is("cat", Some("")));
        assert_eq!(percent("a \\\\%b"), is("a \\\\", Some("b")));
        assert_eq!(percent("a \\"), is("a \\", None));
    }
}
