//! What was typed: the words of a command up to the cursor, without their quotes.

/// A command line up to the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The words behind the program's name.
    pub words: Vec<String>,
    /// The word at the cursor up to there; empty for a new one.
    pub current: String,
    /// `NAME=VALUE` before the program's name.
    pub environment: Vec<(String, String)>,
    /// The word at the cursor is the target of a redirection.
    pub redirects: bool,
    /// What of `current` the shell leaves as it is: it replaces what stands behind this many bytes.
    pub kept: usize,
    /// The quote that is open at the cursor.
    pub quote: Option<char>,
}

/// Words as zsh and fish give them; fish's last one as it was typed (`raw`).
pub fn of_words(words: &[String], raw: bool) -> Typed {
    let Some((last, before)) = words.split_last() else { return Typed::default() };
    let mut typed = Typed { words: before.to_vec(), ..Typed::default() };
    typed.current = if raw { unquoted(last) } else { last.clone() };
    typed.leave_program();
    typed
}

fn unquoted(word: &str) -> String {
    let mut lexer = Lexer::new("");
    word.chars().for_each(|c| lexer.inside(c));
    lexer.word
}

/// The command of a line as bash gives it: quotes and all.
pub fn of_line(line: &str, breaks: &str) -> Typed {
    let mut lexer = Lexer::new(breaks);
    line.chars().for_each(|c| lexer.take(c));
    lexer.ended()
}

/// What a redirection was told so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirection {
    None,
    /// The word that follows is its target.
    Wanted,
    /// The word at hand is.
    Inside,
}

/// bash's way from characters to words, as far as a command line of taskd needs it.
struct Lexer<'a> {
    breaks: &'a str,
    words: Vec<String>,
    word: String,
    /// There is a word at hand, even an empty one.
    begun: bool,
    quote: Option<char>,
    escaped: bool,
    kept: usize,
    redirection: Redirection,
}

impl<'a> Lexer<'a> {
    fn new(breaks: &'a str) -> Self {
        let redirection = Redirection::None;
        Self {
            breaks,
            words: Vec::new(),
            word: String::new(),
            begun: false,
            quote: None,
            escaped: false,
            kept: 0,
            redirection,
        }
    }

    fn take(&mut self, c: char) {
        if self.quote.is_some() || self.escaped {
            return self.inside(c);
        }
        match c {
            ' ' | '\t' | '\n' => self.end_word(),
            '<' | '>' => {
                // The number before it is a descriptor, no word.
                if self.word.chars().all(|c| c.is_ascii_digit() || c == '&') {
                    self.drop_word();
                }
                self.end_word();
                self.redirection = Redirection::Wanted;
            }
            // bash gives one command; where it does not, a new one begins.
            ';' | '|' | '&' | '(' if self.redirection == Redirection::None => {
                self.drop_word();
                self.words.clear();
            }
            _ => self.inside(c),
        }
    }

    /// A character that belongs to the word at hand.
    fn inside(&mut self, c: char) {
        if !self.begun && self.redirection == Redirection::Wanted {
            self.redirection = Redirection::Inside;
        }
        self.begun = true;
        match (self.quote, c) {
            _ if self.escaped => {
                // Between double quotes a backslash stands for itself before most characters.
                if self.quote == Some('"') && !matches!(c, '"' | '\\' | '$' | '`') {
                    self.word.push('\\');
                }
                self.escaped = false;
                self.word.push(c);
            }
            (None | Some('"'), '\\') => self.escaped = true,
            (None, '\'' | '"') => {
                self.quote = Some(c);
                self.kept = self.word.len();
            }
            (Some(quote), c) if quote == c => self.quote = None,
            _ => {
                self.word.push(c);
                if self.quote.is_none() && self.breaks.contains(c) {
                    self.kept = self.word.len();
                }
            }
        }
    }

    fn drop_word(&mut self) {
        self.word.clear();
        (self.begun, self.kept) = (false, 0);
    }

    fn end_word(&mut self) {
        if !self.begun {
            return;
        }
        let word = std::mem::take(&mut self.word);
        if self.redirection == Redirection::Inside {
            self.redirection = Redirection::None;
        } else {
            self.words.push(word);
        }
        self.drop_word();
    }

    fn ended(self) -> Typed {
        let mut typed = Typed {
            words: self.words,
            current: self.word,
            environment: Vec::new(),
            redirects: self.redirection != Redirection::None,
            kept: self.kept,
            quote: self.quote,
        };
        typed.leave_program();
        typed
    }
}

impl Typed {
    /// Takes the program's name and what stands before it off the words.
    fn leave_program(&mut self) {
        let variable = |word: &str| -> Option<(String, String)> {
            let (name, value) = word.split_once('=')?;
            let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            named.then(|| (name.to_owned(), value.to_owned()))
        };
        let set: Vec<_> = self.words.iter().map_while(|w| variable(w)).collect();
        self.words.drain(..(set.len() + 1).min(self.words.len()));
        self.environment = set;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// bash's own, of its manual.
    const BREAKS: &str = " \t\n\"'><=;|&(:";

    fn line(text: &str) -> Typed {
        of_line(text, BREAKS)
    }

    #[test]
    fn words_lose_their_quotes() {
        let t = line(r#"taskd enqueue 'send email' "a\$b\c" x\ y can"#);
        assert_eq!((t.words.len(), t.current.as_str(), t.kept), (4, "can", 0));
        assert_eq!(t.words, ["enqueue", "send email", "a$b\\c", "x y"]);
        assert_eq!(line("taskd enqueue ").current, "");
        assert_eq!(line("taskd enqueue '' ").words, ["enqueue", ""]);
    }

    #[test]
    fn what_the_shell_keeps_ends_at_its_last_break() {
        let t = line("taskd enqueue mail template=wel");
        assert_eq!((t.current.as_str(), t.kept), ("template=wel", 9));
        assert_eq!(line("taskd enqueue a:b:c").kept, 4);
        assert_eq!(of_line("taskd enqueue a:b:c", " ").kept, 0);
        let t = line("taskd enqueue mail template='wel c");
        assert_eq!((t.current.as_str(), t.kept, t.quote), ("template=wel c", 9, Some('\'')));
        assert_eq!(line("taskd enqueue mail a\\=b").kept, 0);
    }

    #[test]
    fn what_stands_around_the_command_is_no_word_of_it() {
        let t = line("TASKD_SOCKET='/x y' taskd list --sta");
        assert_eq!((t.words.as_slice(), t.current.as_str()), (&["list".to_owned()][..], "--sta"));
        assert_eq!(t.environment, [("TASKD_SOCKET".to_owned(), "/x y".to_owned())]);
        assert!(line("taskd list > out").redirects && line("taskd list 2>").redirects);
        let t = line("taskd list >out 2>&1 --sta");
        assert_eq!(
            (t.words.as_slice(), t.current.as_str(), t.redirects),
            (&["list".to_owned()][..], "--sta", false)
        );
        assert_eq!(line("true && taskd queues; taskd list ").words, ["list"]);
    }

    #[test]
    fn words_of_other_shells_come_without_quotes_but_for_fishs_last() {
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let t = of_words(&own(&["A=b", "taskd", "list", "--sta"]), false);
        assert_eq!((t.words, t.current, t.environment.len()), (own(&["list"]), "--sta".to_owned(), 1));
        assert_eq!(of_words(&own(&["taskd", "'a b"]), true).current, "a b");
        assert_eq!(of_words(&own(&["taskd", "'a b"]), false).current, "'a b");
        assert_eq!(of_words(&[], true), Typed::default());
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_odd(text in "\\PC*", breaks in "\\PC{0,8}") {
            let t = of_line(&text, &breaks);
            proptest::prop_assert!(t.current.is_char_boundary(t.kept));
        }
    }
}
