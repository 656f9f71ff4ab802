//! One command that ran to its end, bounded in time.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub what: String,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Runs it with nothing on stdin; kills it and panics when it takes longer than `limit`.
    pub fn of(command: &mut Command, limit: Duration) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let what = format!("{command:?}");
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send(child.wait_with_output()));
        let Ok(ended) = told.recv_timeout(limit) else {
            kill(pid, Signal::SIGKILL).ok();
            panic!("{what} did not end within {limit:?}");
        };
        let ended = ended.unwrap();
        Self {
            what,
            code: ended.status.code().unwrap_or_else(|| 128 + ended.status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&ended.stdout).into_owned(),
            err: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.what, self.out, self.err);
        self
    }

    /// Asserts that it failed, whatever the code.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.code != 0, "{} succeeded\nstdout: {}", self.what, self.out);
        self
    }

    /// Asserts that stderr holds each of these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{}\nno {word:?} in stderr: {}", self.what, self.err);
        }
        self
    }

    /// Asserts that stdout holds each of these words.
    #[track_caller]
    pub fn shows(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "{}\nno {word:?} in stdout: {}", self.what, self.out);
        }
        self
    }

    /// Asserts that an error is short: at most three lines (what, hint, more), the first not empty.
    #[track_caller]
    pub fn one_clear_line(self) -> Self {
        let lines: Vec<_> = self.err.lines().collect();
        assert!(
            (1..=3).contains(&lines.len()) && !self.err.contains("panicked"),
            "{}: {}",
            self.what,
            self.err
        );
        self
    }

    /// Asserts that everything on stdout fits a terminal of 80 columns.
    #[track_caller]
    pub fn fits_80_columns(self) -> Self {
        for line in self.out.lines() {
            assert!(line.chars().count() <= 80, "{}: {} columns: {line}", self.what, line.chars().count());
            assert!(!line.contains('\u{1b}'), "{}: colors without a terminal: {line:?}", self.what);
        }
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{}: {e}\nstdout: {}\nstderr: {}", self.what, self.out, self.err))
    }
}
