//! Supervisor's configuration file: sections, `key = value`, values over several lines.

/// A section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets; empty before the first one.
    pub name: String,
    /// Comments above it.
    pub comments: Vec<String>,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, in lower case as configparser has it.
    pub name: String,
    /// Its value, without a comment behind it; lines that go on are joined by newlines.
    pub value: String,
    /// As it stands in the file.
    pub source: String,
}

impl Section {
    /// The last value of a key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.keys.iter().rfind(|k| k.name == name).map(|k| k.value.as_str())
    }
}

/// The sections of a file, and lines that are nothing.
#[must_use]
pub fn parse(text: &str) -> (Vec<Section>, Vec<String>) {
    let mut sections: Vec<Section> = Vec::new();
    let mut odd = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    for raw in text.lines() {
        let line = raw.trim_end();
        let trimmed = line.trim_start();
        if trimmed.is_empty() {
            continue;
        }
        if trimmed.starts_with([';', '#']) {
            comments.push(trimmed.to_owned());
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.split_once(']')).map(|(n, _)| n) {
            let comments = std::mem::take(&mut comments);
            sections.push(Section { name: name.trim().to_owned(), comments, keys: Vec::new() });
            continue;
        }
        let indented = line.len() > trimmed.len();
        let open = sections.last_mut();
        if indented && let Some(key) = open.and_then(|s| s.keys.last_mut()) {
            let more = uncommented(trimmed);
            if !key.value.is_empty() {
                key.value.push('\n');
            }
            key.value.push_str(more);
            key.source.push('\n');
            key.source.push_str(line);
            continue;
        }
        let split =
            trimmed.find(['=', ':']).and_then(|at| Some((trimmed.get(..at)?, trimmed.get(at + 1..)?)));
        match (split, sections.last_mut()) {
            (Some((name, value)), Some(section)) if !name.trim().is_empty() => {
                // A comment between keys stays with the section.
                section.comments.append(&mut comments);
                section.keys.push(Key {
                    name: name.trim().to_lowercase(),
                    value: uncommented(value.trim()).to_owned(),
                    source: trimmed.to_owned(),
                });
            }
            _ => odd.push(trimmed.to_owned()),
        }
    }
    if let Some(section) = sections.last_mut() {
        section.comments.append(&mut comments);
    }
    odd.extend(comments);
    (sections, odd)
}

/// A value without the comment that begins at ` ;`.
fn uncommented(value: &str) -> &str {
    if value.starts_with(';') {
        return "";
    }
    value.find(" ;").or_else(|| value.find("\t;")).and_then(|at| value.get(..at)).unwrap_or(value).trim()
}

/// `A="1",B='2',C=3` as pairs.
///
/// # Errors
/// What is no such pair.
pub fn environment(value: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("{rest:?} is no NAME=\"value\""))?;
        let after = after.trim_start();
        let (text, tail) = match after.chars().next() {
            Some(q @ ('"' | '\'')) => {
                let inner = after.get(1..).unwrap_or_default();
                inner.split_once(q).ok_or_else(|| format!("a quote of {name} is not closed"))?
            }
            _ => after.split_at(after.find([',', '\n']).unwrap_or(after.len())),
        };
        let name = name.trim();
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good {
            return Err(format!("{name:?} is no name of a variable"));
        }
        out.push((name.to_owned(), text.trim_end().to_owned()));
        rest = tail.trim_start_matches([',', '\n', ' ', '\t']);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_comments() {
        let (sections, odd) = parse(
            "x\n; top\n[program:a]\nCommand = /a -x ; comment\nenvironment=A=\"1\",\n    B='2;3'\n# c\nuser=bob\n[b]\n",
        );
        assert_eq!(odd, ["x"]);
        assert_eq!(sections.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["program:a", "b"]);
        let a = &sections[0];
        assert_eq!((a.get("command"), a.get("user")), (Some("/a -x"), Some("bob")));
        assert_eq!(a.comments, ["; top", "# c"]);
        let pairs = environment(a.get("environment").unwrap()).unwrap();
        assert_eq!(pairs, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2;3".to_owned())]);
    }

    #[test]
    fn environments() {
        assert_eq!(environment("A=1, B=\"x,y\" ").unwrap().len(), 2);
        assert_eq!(environment("").unwrap().len(), 0);
        for bad in ["A", "A=\"x", "1A=2", "A=1,B"] {
            assert!(environment(bad).is_err(), "{bad}");
        }
    }
}
