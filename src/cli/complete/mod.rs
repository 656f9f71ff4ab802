//! The role `@complete`: what a shell asks when Tab is pressed. The scripts of `taskd completion` live on in
//! shells over an upgrade of this program, so this is kept as it is:
//!
//! - `taskd @complete bash TYPE BREAKS LINE`: readline's kind of completion, its word breaks, and the command
//!   up to the cursor as it was typed; each line of the answer goes into COMPREPLY.
//! - `taskd @complete zsh WORD…` and `taskd @complete fish WORD…`: the words up to the cursor, the last one
//!   perhaps empty; each line of the answer is a value, a tab, and what it is. In fish a value is a whole
//!   word, in zsh it is one if a space ends it.
//! - `:files` or `:directories` alone: the shell completes the path itself.
//!
//! Whatever goes wrong, there is no answer, nothing on stderr, and the exit code is 0.

mod asked;
mod place;
mod shown;
mod values;
mod words;

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use super::Cli;
use words::Typed;

/// Most values that are offered at once.
const MOST: usize = 1_000;

/// Something that can stand where the cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word.
    pub value: String,
    /// What it is, in a few words; may be empty.
    pub about: String,
    /// More is to be typed without a space: `user_id=`.
    pub goes_on: bool,
}

impl Candidate {
    /// A whole word.
    pub fn new(value: impl Into<String>, about: impl Into<String>) -> Self {
        Self { value: value.into(), about: about.into(), goes_on: false }
    }

    /// The beginning of one.
    pub fn beginning(value: impl Into<String>, about: impl Into<String>) -> Self {
        Self { value: value.into(), about: about.into(), goes_on: true }
    }
}

/// What can stand where the cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of these, in this order.
    Values(Vec<Candidate>),
    /// A path; the shell knows better.
    Files,
    /// A directory.
    Directories,
}

/// Plays the role; the arguments behind `@complete` follow in `args`.
#[must_use]
pub fn play(args: &[String]) -> ExitCode {
    let text = match args {
        [shell, kind, breaks, line] if shell == "bash" => {
            let typed = words::of_line(line, breaks);
            shown::bash(&answer(&typed), &typed, kind)
        }
        [shell, words @ ..] if shell == "zsh" => shown::zsh(&answer(&words::of_words(words, false))),
        [shell, words @ ..] if shell == "fish" => shown::fish(&answer(&words::of_words(words, true))),
        _ => String::new(),
    };
    // A shell that does not read any more wants no answer.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// What fits the word at the cursor.
fn answer(typed: &Typed) -> Answer {
    if typed.redirects {
        return Answer::Files;
    }
    let mut root = Cli::command();
    root.build();
    let place = place::find(&root, &typed.words, &typed.current);
    let mut answer = values::at(&place, typed);
    if let Answer::Values(values) = &mut answer {
        values.retain(|c| c.value.starts_with(&typed.current) && !c.value.contains(char::is_control));
        values.truncate(MOST);
    }
    answer
}
