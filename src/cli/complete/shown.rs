//! An answer as each shell takes it.

use super::words::Typed;
use super::{Answer, Candidate};

/// readline's kind of completion that only lists: there a value may have its explanation beside it.
const LISTS: &str = "63";

/// Lines for COMPREPLY. bash takes them as they are and replaces what stands behind its last word break, so
/// each is cut there, quoted, and has the space that is to follow it.
pub fn bash(answer: &Answer, typed: &Typed, kind: &str) -> String {
    let values = match answer {
        Answer::Files => return ":files\n".to_owned(),
        Answer::Directories => return ":directories\n".to_owned(),
        Answer::Values(values) => values,
    };
    let rest = |c: &Candidate| c.value.get(typed.kept..).map(str::to_owned);
    let width = values.iter().filter_map(rest).map(|v| v.chars().count()).filter(|n| *n <= 40).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for candidate in values {
        let Some(rest) = rest(candidate) else { continue };
        let Some(quoted) = quoted(&rest, typed.quote) else { continue };
        if kind == LISTS && values.len() > 1 && !candidate.about.is_empty() {
            text.push_str(&format!("{rest:width$}  ({})\n", candidate.about));
            continue;
        }
        text.push_str(&quoted);
        // Where a quote is open readline closes it.
        if !candidate.goes_on && typed.quote.is_none() {
            text.push(' ');
        }
        text.push('\n');
    }
    text
}

/// A value as bash reads it where this quote is open; absent where it cannot stand there.
fn quoted(value: &str, open: Option<char>) -> Option<String> {
    match open {
        Some('\'') => (!value.contains('\'')).then(|| value.to_owned()),
        Some(_) => (!value.contains(['"', '\\', '$', '`', '!'])).then(|| value.to_owned()),
        None => {
            let mut text = String::with_capacity(value.len());
            for c in value.chars() {
                let plain = c.is_alphanumeric()
                    || matches!(c, '_' | '-' | '.' | ':' | '/' | '=' | '@' | '%' | '+' | ',');
                if !plain {
                    text.push('\\');
                }
                text.push(c);
            }
            Some(text)
        }
    }
}

/// A value, a tab, what it is; a space behind the value of a whole word. zsh quotes by itself.
pub fn zsh(answer: &Answer) -> String {
    lines(answer, |c| if c.goes_on { c.value.clone() } else { format!("{} ", c.value) }, true)
}

/// A value, and behind a tab what it is. fish quotes by itself, and sees at a final `=` or `.` that more is
/// to come.
pub fn fish(answer: &Answer) -> String {
    lines(answer, |c| c.value.clone(), false)
}

fn lines(answer: &Answer, value: impl Fn(&Candidate) -> String, tab: bool) -> String {
    match answer {
        Answer::Files => ":files\n".to_owned(),
        Answer::Directories => ":directories\n".to_owned(),
        Answer::Values(values) => values
            .iter()
            .map(|c| match (c.about.as_str(), tab) {
                ("", false) => format!("{}\n", value(c)),
                (about, _) => format!("{}\t{about}\n", value(c)),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::complete::words::of_line;

    const BREAKS: &str = " \t\n\"'><=;|&(:";

    fn said(line: &str, values: &[Candidate], kind: &str) -> String {
        bash(&Answer::Values(values.to_vec()), &of_line(line, BREAKS), kind)
    }

    #[test]
    fn bash_gets_the_rest_of_the_word_quoted() {
        let pair = [Candidate::new("size=a b;$(rm)\\'*é", "")];
        assert_eq!(said("taskd enqueue t size=", &pair, "9"), "a\\ b\\;\\$\\(rm\\)\\\\\\'\\*é \n");
        assert_eq!(said("taskd enqueue t 'size=", &pair, "9"), "");
        assert_eq!(said("taskd enqueue t \"size=a", &pair, "9"), "");
        let plain = [Candidate::new("size=a b", "")];
        assert_eq!(said("taskd enqueue t size='a", &plain, "9"), "a b\n");
        assert_eq!(said("taskd enqueue t size=\"", &plain, "9"), "a b\n");
        assert_eq!(said("taskd enqueue a:", &[Candidate::new("a:b", "")], "9"), "b \n");
        assert_eq!(said("taskd enqueue t s", &[Candidate::beginning("size=", "int")], "9"), "size=\n");
    }

    #[test]
    fn explanations_stand_where_bash_only_lists() {
        let two = [Candidate::new("aa", "one"), Candidate::new("b", "two")];
        assert_eq!(said("taskd enqueue ", &two, "63"), "aa  (one)\nb   (two)\n");
        assert_eq!(said("taskd enqueue ", &two, "9"), "aa \nb \n");
        assert_eq!(said("taskd enqueue ", &two[..1], "63"), "aa \n");
    }

    #[test]
    fn zsh_and_fish_get_values_with_explanations() {
        let answer = Answer::Values(vec![Candidate::new("a", "one"), Candidate::beginning("b=", "")]);
        assert_eq!(zsh(&answer), "a \tone\nb=\t\n");
        assert_eq!(fish(&answer), "a\tone\nb=\n");
        assert_eq!(fish(&Answer::Files), ":files\n");
    }
}
