//! A page in the man(7) macros that groff and mandoc both know.

/// A page being written.
#[derive(Debug)]
pub struct Page {
    text: String,
}

/// Letters that stand for something else in roff when they are to be typed as they are.
const TYPED: &[(char, &str)] =
    &[('-', "\\-"), ('\'', "\\(aq"), ('`', "\\(ga"), ('^', "\\(ha"), ('~', "\\(ti"), ('"', "\\(dq")];

impl Page {
    /// A page with its header and its first section.
    #[must_use]
    pub fn new(name: &str, section: u8, date: &str, about: &str) -> Self {
        let title = name.to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Self { text: String::new() };
        page.line(
            ".\\\" Printed by `taskd manual`; its sources are --help, the table of keys and the protocol.",
        );
        page.line(&format!(
            ".TH {} {section} \"{date}\" \"taskd {version}\" \"taskd manual\"",
            typed(&title)
        ));
        page.section("NAME");
        page.line(&format!("{} \\- {}", typed(name), inline(about)));
        page
    }

    /// The roff text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A line of text: one that begins like a request is none.
    fn put(&mut self, text: &str) {
        if text.starts_with(['.', '\'']) {
            self.text.push_str("\\&");
        }
        self.line(text);
    }

    /// A section.
    pub fn section(&mut self, title: &str) {
        self.line(&format!(".SH {}", title.to_uppercase()));
    }

    /// A part of one.
    pub fn part(&mut self, title: &str) {
        self.line(&format!(".SS {}", inline(title)));
    }

    /// A paragraph; `words` between backticks are bold, to be typed as they are.
    pub fn paragraph(&mut self, text: &str) {
        self.line(".PP");
        self.put(&inline(text));
    }

    /// A term and what it is.
    pub fn item(&mut self, term: &str, text: &str) {
        self.line(".TP");
        self.put(&inline(term));
        self.put(&inline(text));
    }

    /// Lines as they are.
    pub fn example<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        self.line(".PP");
        self.line(".RS 4");
        self.line(".EX");
        for line in lines {
            let text = typed(line);
            self.put(&text);
        }
        self.line(".EE");
        self.line(".RE");
    }

    /// What follows stands further in, until [`Page::out`].
    pub fn inside(&mut self) {
        self.line(".RS 4");
    }

    /// The end of [`Page::inside`].
    pub fn out(&mut self) {
        self.line(".RE");
    }

    /// Blocks between empty lines: `* TERM :: TEXT` is an item (lines that follow belong to it), lines that begin
    /// with four spaces are an example, everything else is a paragraph.
    pub fn prose(&mut self, text: &str) {
        for block in text.trim_matches('\n').split("\n\n").filter(|b| !b.trim().is_empty()) {
            if block.lines().all(|l| l.starts_with("    ")) {
                self.example(block.lines().map(|l| l.get(4..).unwrap_or_default()));
            } else if block.starts_with("* ") {
                for item in format!("\n{block}").split("\n* ").filter(|i| !i.is_empty()) {
                    let (term, text) = item.split_once(" :: ").unwrap_or((item, ""));
                    self.item(term, text);
                }
            } else {
                self.paragraph(block);
            }
        }
    }
}

/// Text that is to be typed, or is code: every character is itself.
#[must_use]
pub fn typed(text: &str) -> String {
    escape(text, |c, _| TYPED.iter().find(|(from, _)| *from == c).map(|(_, to)| *to))
}

/// Prose on one line; what stands between backticks is bold and typed.
#[must_use]
pub fn inline(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A backtick without its partner is one.
    let whole = text.matches('`').count() / 2 * 2;
    let mut out = String::new();
    for (n, part) in text.split('`').enumerate() {
        let inside = n % 2 == 1 && n <= whole;
        match (inside, n) {
            (true, _) => out.push_str(&format!("\\fB{}\\fR", typed(part))),
            (false, 0) => out.push_str(&plain(part)),
            (false, _) if n > whole => out.push_str(&format!("\\(ga{}", plain(part))),
            (false, _) => out.push_str(&plain(part)),
        }
    }
    out
}

/// A hyphen is a hyphen inside of a word, and to be typed at the beginning of one: `--wait`.
fn plain(text: &str) -> String {
    escape(text, |c, before| {
        let begins = before.is_none_or(|b| !b.is_alphanumeric() && b != ')');
        (c == '-' && begins).then_some("\\-")
    })
}

fn escape(text: &str, own: impl Fn(char, Option<char>) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    for c in text.chars() {
        match own(c, before) {
            Some(to) => out.push_str(to),
            None if c == '\\' => out.push_str("\\(rs"),
            None if c.is_ascii() => out.push(c),
            None => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
        before = Some(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_typed_means_anything_to_roff() {
        assert_eq!(typed("a-b 'c' \\n ~^`\"é"), "a\\-b \\(aqc\\(aq \\(rsn \\(ti\\(ha\\(ga\\(dq\\[u00E9]");
        assert_eq!(inline("well-known --wait, `x-y` (-f)"), "well-known \\-\\-wait, \\fBx\\-y\\fR (\\-f)");
        assert_eq!(inline("a ` b"), "a \\(ga b");
        assert_eq!(inline("`a` ` b"), "\\fBa\\fR \\(ga b");
    }

    #[test]
    fn lines_that_look_like_requests_are_text() {
        let mut page = Page::new("x", 1, "", "about");
        page.paragraph(".SH no");
        page.item("'tis", "a\nb");
        page.example([".TH", "'", "plain"]);
        let text = page.into_text();
        assert!(text.contains("\n\\&.SH no\n") && text.contains("\n\\&'tis\na b\n"), "{text}");
        assert!(text.contains("\n\\&.TH\n\\(aq\nplain\n"), "{text}");
    }

    #[test]
    fn prose_has_paragraphs_items_and_examples() {
        let mut page = Page::new("x", 1, "", "about");
        page.prose("one\ntwo\n\n* `a` :: b\nc\n* d :: e\n\n    code\n      more");
        let text = page.into_text();
        let body = text.split("about\n").nth(1).unwrap();
        assert_eq!(
            body,
            ".PP\none two\n.TP\n\\fBa\\fR\nb c\n.TP\nd\ne\n.PP\n.RS 4\n.EX\ncode\n  more\n.EE\n.RE\n"
        );
    }
}
