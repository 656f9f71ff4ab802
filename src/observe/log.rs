//! Logs: to journald with their fields, or readable to stderr. Neither ever stalls its writer.
//!
//! tracing-journald (and a pipe or terminal that nobody reads) blocks the thread that logs, and a daemon
//! that waits for its log misses its deadlines. So events are handed to a thread of their own over a bounded
//! queue ([`relay`]); what does not fit is dropped, counted, and told as soon as there is room.

mod relay;

use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;

/// Events that wait for the log's thread; above it they are dropped and counted.
const QUEUE: usize = 4_096;

/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// Where logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// journald, with fields.
    Journal,
    /// Stderr, readable; colored on a terminal.
    Stderr,
}

impl Target {
    /// The journal where systemd connected stderr to it (`JOURNAL_STREAM` names its device and inode),
    /// stderr elsewhere, also after a redirection of it.
    #[must_use]
    pub fn detect() -> Self {
        let told = std::env::var("JOURNAL_STREAM").ok();
        let stderr = std::fs::metadata("/proc/self/fd/2").ok();
        match (told, stderr) {
            (Some(told), Some(file)) if told == format!("{}:{}", file.dev(), file.ino()) => Self::Journal,
            _ => Self::Stderr,
        }
    }
}

/// Keeps the log's thread; dropping it writes what is left, for a second at most.
#[must_use = "dropping it ends the log"]
#[derive(Debug)]
pub struct Log {
    relay: Arc<relay::Relay>,
    target: Target,
}

impl Log {
    /// Where logs really go: stderr where the journal was asked for but does not answer.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Changes what is logged from now on (a reload may change `log_level`).
    ///
    /// # Errors
    /// When this is no level.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.relay.set_level(parse(level)?);
        Ok(())
    }

    /// Waits until what was logged so far is written, for a second at most.
    pub fn flush(&self) {
        self.relay.flush(FLUSH);
    }

    /// Lines dropped so far because the log was not read fast enough.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.relay.dropped()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts logging, once in a process. To be called while no other thread runs.
///
/// # Errors
/// When this is no level, when logging was started before, or when there is no thread for it.
pub fn init(level: &str, target: Target) -> Result<Log, String> {
    let level = parse(level)?;
    let (relay, front) = relay::Relay::new(QUEUE, level);
    let (target, trouble) = match (target, journal()) {
        (Target::Journal, Ok(journal)) => {
            relay.start(tracing_subscriber::registry().with(journal), journald_listens, || {})?;
            (Target::Journal, None)
        }
        (wanted, journal) => {
            let gathered = Gathered::default();
            let lines = gathered.clone();
            relay.start(stderr(move || lines.clone()), || true, move || gathered.write_out())?;
            let trouble = if wanted == Target::Journal { journal.err() } else { None };
            (Target::Stderr, trouble)
        }
    };
    tracing_subscriber::registry().with(relay.gate()).with(front).try_init().map_err(|e| e.to_string())?;
    if let Some(error) = trouble {
        tracing::warn!(%error, "journald cannot be reached, logs go to stderr");
    }
    Ok(Log { relay, target })
}

/// One line for a person, before logs were started or where they cannot be.
pub fn say(text: &str) {
    // Nobody is left to be told that stderr does not work.
    let _ = writeln!(std::io::stderr(), "taskd: {text}");
}

fn parse(level: &str) -> Result<LevelFilter, String> {
    level.parse().map_err(|_| format!("{level:?} is no log level: error, warn, info, debug or trace"))
}

/// No prefix: `TASKD_ID` is to be found as `journalctl TASKD_ID=…`. The default mapping would make every
/// info a notice.
fn journal() -> std::io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    Ok(tracing_journald::layer()?
        .with_field_prefix(None)
        .with_syslog_identifier("taskd".to_owned())
        .with_priority_mappings(priorities))
}

/// Whether journald is there: while it is restarted its socket is not, or nobody listens on it, and what
/// tracing-journald sends then is lost without a word.
fn journald_listens() -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(super::journal::SOCKET).is_ok())
}

/// Lines of a burst, for one write(2).
#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<Vec<u8>>>);

impl Gathered {
    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To stderr; nobody is left to be told that it does not work.
    fn write_out(&self) {
        let mut lines = self.lines();
        let _ = std::io::stderr().write_all(&lines);
        lines.clear();
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lines().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn stderr(lines: impl Fn() -> Gathered + Send + Sync + 'static) -> impl Subscriber + Send + Sync {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .with_timer(Clock)
        .fmt_fields(Readable);
    tracing_subscriber::registry().with(layer)
}

/// Local time, to the millisecond.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.3f"))
    }
}

/// Fields that the words of a life-cycle entry say already, in other units.
const WORDED: [&str; 7] = [
    "TASKD_STATE",
    "TASKD_CAUSE",
    "TASKD_EXIT",
    "TASKD_SIGNAL",
    "TASKD_RUN_MS",
    "TASKD_CPU_MS",
    "TASKD_MEMORY_PEAK",
];

/// The message, then `name=value` of what it does not say itself: the journal's own fields are lower-cased,
/// without their prefix, and ids of events are left out.
struct Readable;

impl<'writer> tracing_subscriber::fmt::FormatFields<'writer> for Readable {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut visit = ReadableVisit::default();
        fields.record(&mut visit);
        write!(writer, "{}", visit.message)?;
        for (name, value) in visit.rest.iter().filter(|(name, value)| !visit.says(name, value)) {
            let name = name.strip_prefix("TASKD_").unwrap_or(name).to_ascii_lowercase();
            write!(writer, " {name}={value}")?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct ReadableVisit {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl ReadableVisit {
    /// Whether the message has this value as a word, or says it in its own way.
    fn says(&self, name: &str, value: &str) -> bool {
        let bounds = |at: usize| {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
            let before = self.message.get(..at).and_then(|t| t.chars().next_back());
            let after = self.message.get(at + value.len()..).and_then(|t| t.chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        };
        value.is_empty()
            || WORDED.contains(&name)
            || self.message.match_indices(value).any(|(at, _)| bounds(at))
    }
}

impl tracing::field::Visit for ReadableVisit {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            super::fields::MESSAGE_ID => {}
            name => self.rest.push((name, format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        assert_eq!(parse("warn").unwrap(), LevelFilter::WARN);
        assert!(parse("loud").unwrap_err().contains("loud"));
    }

    #[test]
    fn a_readable_line_says_nothing_twice() {
        let visit = ReadableVisit { message: "hold 0198-7 started, attempt 1".into(), rest: Vec::new() };
        for (name, value) in [("TASKD_ID", "0198-7"), ("TASKD_ATTEMPT", "1"), ("TASKD_CPU_MS", "12")] {
            assert!(visit.says(name, value), "{name}");
        }
        for (name, value) in [("TASKD_PID", "7"), ("TASKD_QUEUE", "old"), ("TASKD_PID", "0198")] {
            assert!(!visit.says(name, value), "{name} {value}");
        }
    }

    #[test]
    fn stderr_is_the_journal_only_when_systemd_says_so() {
        // The variable is not set under a test.
        assert_eq!(Target::detect(), Target::Stderr);
    }
}
