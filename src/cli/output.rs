//! The one place that writes: results to stdout, everything else to stderr, errors in one form.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::control::api::{Error, ErrorKind};
use crate::control::client::ClientError;

/// Exit code of a reader of stdout that went away: 128 + SIGPIPE, as a shell shows it of others.
pub const BROKEN_PIPE: u8 = 141;

/// Exit code where no taskd answers; with another kind of error it means that something is unknown.
const NOT_RUNNING: u8 = 69;

/// How a command ends that does not end well.
#[derive(Debug)]
pub enum Failure {
    /// Said to the user.
    Told {
        /// The exit code.
        code: u8,
        /// The words.
        error: Box<Error>,
    },
    /// Nothing more to say.
    Quiet(u8),
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told { error, .. } => f.write_str(&error.message),
            Self::Quiet(code) => write!(f, "exit code {code}"),
        }
    }
}

/// What a command ends with: its exit code.
pub type Ending = Result<u8, Failure>;

impl Failure {
    /// A command line that cannot be understood: exit 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::BadRequest, message))
    }

    /// Data that cannot be understood: exit 65.
    pub fn data(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::BadArguments, message))
    }

    /// A file that cannot be read: exit 66.
    pub fn no_input(message: impl Into<String>) -> Self {
        Self::Told { code: 66, error: Box::new(Error::new(ErrorKind::BadRequest, message)) }
    }

    /// A file that cannot be made: exit 73.
    pub fn no_output(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::Conflict, message))
    }

    /// Not now: exit 75.
    pub fn later(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::Unavailable, message))
    }

    /// A config or a start that cannot work as it is: exit 78.
    pub fn config(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::Config, message))
    }

    /// A fault of taskd: exit 70.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::from(Error::new(ErrorKind::Internal, message))
    }

    /// The same with another hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Told { error, .. } = &mut self {
            error.hint = Some(hint.into());
        }
        self
    }

    /// The same with words before its message.
    #[must_use]
    pub fn context(mut self, before: impl Display) -> Self {
        if let Self::Told { error, .. } = &mut self {
            error.message = format!("{before}: {}", error.message);
        }
        self
    }

    /// Whether it says that no taskd answers.
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::Told { code: NOT_RUNNING, error } if error.kind == ErrorKind::Unavailable)
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Told { code, .. } | Self::Quiet(code) => *code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told { code: error.kind.exit_code(), error: Box::new(error) }
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        let (code, hint) = (e.exit_code(), e.hint());
        let mut error = match e {
            ClientError::Api(error) => error,
            ClientError::Denied(_) => Error::new(ErrorKind::Forbidden, e.to_string()),
            ClientError::Strange(_) => Error::new(ErrorKind::Internal, e.to_string()),
            _ => Error::new(ErrorKind::Unavailable, e.to_string()),
        };
        error.hint = hint;
        Self::Told { code, error: Box::new(error) }
    }
}

/// A failed write to stdout or stderr.
fn unwritten(e: &io::Error) -> Failure {
    if e.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Quiet(BROKEN_PIPE);
    }
    let error = Error::new(ErrorKind::Internal, format!("cannot write the output: {e}"));
    Failure::Told { code: 74, error: Box::new(error) }
}

/// When output is colored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Makes it hold for this process.
    pub fn set(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Prints text with its styles, where they are wanted, to stdout.
///
/// # Errors
/// stdout cannot be written; quiet where its reader went away.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| unwritten(&e))
}

/// Prints one line of JSON, as taskd gave it.
///
/// # Errors
/// As [`print`].
pub fn json(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text)
        .and_then(|()| if text.ends_with(b"\n") { Ok(()) } else { out.write_all(b"\n") })
        .and_then(|()| out.flush())
        .map_err(|e| unwritten(&e))
}

/// Prints a task's bytes as they are.
///
/// # Errors
/// As [`print`].
pub fn bytes(to_stderr: bool, bytes: &[u8]) -> Result<(), Failure> {
    let write = |out: &mut dyn Write| out.write_all(bytes).and_then(|()| out.flush());
    if to_stderr { write(&mut io::stderr().lock()) } else { write(&mut io::stdout().lock()) }
        .map_err(|e| unwritten(&e))
}

/// A remark on stderr; one that cannot be written is not worth an end.
pub fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "taskd: {text}");
}

/// Prints text with its styles, where they are wanted, to stderr.
///
/// # Errors
/// As [`print`].
pub fn complain(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stderr().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| unwritten(&e))
}

/// The exit code of a command that asks no daemon; a failure is said first.
#[must_use]
pub fn ended(ending: Ending, json: bool) -> ExitCode {
    match ending {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, json),
    }
}

/// Says why a command failed, in words or as the API's error JSON, and gives its exit code.
#[must_use]
pub fn report(failure: &Failure, json: bool) -> ExitCode {
    if let Failure::Told { error, .. } = failure {
        let text = if json { serde_json::to_string(error).unwrap_or_default() + "\n" } else { words(error) };
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }
    ExitCode::from(failure.code())
}

/// One clear line, the other faults below it, a hint at the end.
fn words(error: &Error) -> String {
    let mut text = format!("{RED}taskd: {}{RESET}\n", clean(&error.message));
    for line in error.details.iter().flat_map(|d| d.lines()) {
        text.push_str(&format!("  {}\n", clean(line)));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("{DIM}hint: {}{RESET}\n", clean(hint)));
    }
    text
}

/// Style: something failed.
pub const RED: &str = "\x1b[31m";
/// Style: something succeeded.
pub const GREEN: &str = "\x1b[32m";
/// Style: something to look at.
pub const YELLOW: &str = "\x1b[33m";
/// Style: a heading.
pub const BOLD: &str = "\x1b[1m";
/// Style: less important.
pub const DIM: &str = "\x1b[2m";
/// End of a style.
pub const RESET: &str = "\x1b[0m";

/// Text from elsewhere without what a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_line_its_faults_and_a_hint() {
        let error = Error {
            kind: ErrorKind::BadArguments,
            message: "send_email: 2 arguments do not fit".into(),
            details: vec!["user_id: missing".into(), "n: \x1b]0;x".into()],
            hint: Some("taskd tasks".into()),
        };
        let plain = anstream::adapter::strip_str(&words(&error)).to_string();
        assert_eq!(
            plain,
            "taskd: send_email: 2 arguments do not fit\n  user_id: missing\n  n: \\u{1b}]0;x\nhint: taskd tasks\n"
        );
    }

    #[test]
    fn every_client_error_has_its_exit_code() {
        let socket = std::path::PathBuf::from("/x");
        for (e, code) in [
            (ClientError::NoSocket(socket.clone()), 69),
            (ClientError::NotListening(socket.clone()), 69),
            (ClientError::Denied(socket), 77),
            (ClientError::Timeout(std::time::Duration::from_secs(30)), 75),
            (ClientError::Broken("x".into()), 75),
            (ClientError::Strange("x".into()), 76),
            (ClientError::Api(Error::new(ErrorKind::Full, "x")), 75),
            (ClientError::Api(Error::new(ErrorKind::UnknownTask, "x")), 69),
        ] {
            assert_eq!(Failure::from(e).code(), code);
        }
    }
}
