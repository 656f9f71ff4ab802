//! The part of `--help` behind the options, cut into what it says.

/// A part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Command lines.
    Examples(Vec<String>),
    /// Exit codes under their heading, each with what it means.
    Codes(String, Vec<(String, String)>),
    /// Anything else, without its heading.
    Text(String),
}

/// Its parts, in order.
#[must_use]
pub fn parts(help: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        let mut indented = || {
            let mut all: Vec<&str> = Vec::new();
            while let Some(next) = lines.next_if(|l| l.starts_with("  ")) {
                all.push(next);
            }
            all
        };
        if line == "EXAMPLES" {
            let own = |l: &str| l.get(2..).unwrap_or_default().to_owned();
            parts.push(Part::Examples(indented().into_iter().map(own).collect()));
        } else if line.starts_with("EXIT CODES") {
            parts.push(Part::Codes(line.to_owned(), indented().into_iter().map(code).collect()));
        } else if is_heading(line) {
            parts.push(Part::Text(format!("{line}: {}", indented().join(" "))));
        } else if !line.trim().is_empty() {
            let mut text = line.to_owned();
            while let Some(next) = lines.next_if(|l| !l.trim().is_empty() && !is_heading(l)) {
                text.push(' ');
                text.push_str(next);
            }
            parts.push(Part::Text(text));
        }
    }
    parts
}

fn is_heading(line: &str) -> bool {
    line.starts_with("EXIT CODES")
        || (line.len() > 3 && line.chars().all(|c| c.is_ascii_uppercase() || c == ' '))
}

/// `  64, 65   what it means`.
fn code(line: &str) -> (String, String) {
    let line = line.trim();
    let (code, text) = line.split_once("  ").unwrap_or((line, ""));
    (code.to_owned(), text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found() {
        let help = "EXAMPLES\n  a b\n  c\n\nSome text\ngoes on.\n\nSTATES\n  x, y\n\nEXIT CODES\n  0       fine\n  64, 65  not\nEXIT CODES WITH --wait\n  1  no\n`x` says more.\n\nEnd.";
        let text = |t: &str| Part::Text(t.to_owned());
        let own = |c: &str, t: &str| (c.to_owned(), t.to_owned());
        assert_eq!(
            parts(help),
            [
                Part::Examples(vec!["a b".to_owned(), "c".to_owned()]),
                text("Some text goes on."),
                text("STATES:   x, y"),
                Part::Codes("EXIT CODES".to_owned(), vec![own("0", "fine"), own("64, 65", "not")]),
                Part::Codes("EXIT CODES WITH --wait".to_owned(), vec![own("1", "no")]),
                text("`x` says more."),
                text("End."),
            ]
        );
    }
}
