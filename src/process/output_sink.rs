//! Where lines of output go: each to the journal or to stderr, a copy to the daemon at a bounded rate.
//! Nothing here ever waits; what does not fit is dropped and counted.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::launch::Slot;
use super::output::Line;
use super::protocol::Stream;
use crate::observe::journal::{Entry, Journal};

/// Writes up to this many bytes to a pipe are taken whole where poll(2) says that it is writable
/// (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;

/// More than this of the same unprintable byte in a row are shown as one and their number.
const MANY: usize = 4;

/// The attempt that a line belongs to.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The message's id.
    pub id: String,
    /// The task.
    pub task: String,
    /// The queue.
    pub queue: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Its main process.
    pub pid: u32,
}

/// How often at most it is said that lines were lost, while more are.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// The journal, or stderr where there is none; counts what neither takes, and says so when it is taken again.
#[derive(Debug)]
pub struct Sink {
    to: To,
    /// Lines that were lost and not told of.
    missed: u64,
    said: Option<Instant>,
}

#[derive(Debug)]
enum To {
    /// One entry a line.
    Journal(Journal),
    /// `task id stream | text`, with everything escaped that a terminal would obey.
    Stderr(Plain),
}

impl Sink {
    /// The journal if `journal` says so and a socket can be made, else stderr.
    #[must_use]
    pub fn new(journal: bool) -> Self {
        let to = match journal.then(|| Journal::open(None)) {
            Some(Ok(journal)) => To::Journal(journal),
            _ => To::Stderr(Plain::new()),
        };
        Self { to, missed: 0, said: None }
    }

    /// Passes a line on. False: it was dropped, at least in part.
    pub fn line(&mut self, source: &Source, stream: Stream, line: Line<'_>) -> bool {
        let taken = self.pass(source, stream, line);
        self.counted(taken)
    }

    /// A line was not even offered, because the one before it was not taken.
    pub fn skip(&mut self) {
        self.missed += 1;
    }

    /// Says how many lines were lost since that was said last, if any were and it can be said.
    pub fn tell_missed(&mut self) {
        if self.missed == 0 {
            return;
        }
        let (missed, place) = (
            self.missed,
            match self.to {
                To::Journal(_) => "the journal",
                To::Stderr(_) => "stderr",
            },
        );
        let text = format!("{missed} lines of output are lost: {place} did not take them");
        let pid = std::process::id();
        let told = match &mut self.to {
            To::Journal(journal) => journal.send(&Entry {
                message: text.as_bytes(),
                priority: 4,
                id: "",
                task: "",
                queue: "",
                attempt: 0,
                stream: "stderr",
                pid,
                place: ("", ""),
                cut: false,
                lost: missed,
            }),
            To::Stderr(plain) => plain.write("taskd", text.as_bytes(), false),
        };
        if told {
            self.missed = 0;
            self.said = Some(Instant::now());
        }
    }

    fn counted(&mut self, taken: bool) -> bool {
        if !taken {
            self.missed += 1;
        } else if self.missed > 0 && self.said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.tell_missed();
        }
        taken
    }

    fn pass(&mut self, source: &Source, stream: Stream, line: Line<'_>) -> bool {
        let (priority, message) = prefixed(line.bytes, stream);
        let name = stream_name(stream);
        match &mut self.to {
            To::Journal(journal) => journal.send(&Entry {
                message,
                priority,
                id: &source.id,
                task: &source.task,
                queue: &source.queue,
                attempt: source.attempt,
                stream: name,
                pid: source.pid,
                place: ("", ""),
                cut: line.cut,
                lost: 0,
            }),
            To::Stderr(plain) => plain.write(&[&source.task, &source.id, name].join(" "), message, line.cut),
        }
    }

    /// Passes on a line of a resident worker that belongs to no one message. False: it was dropped, at least
    /// in part.
    pub fn slot_line(&mut self, slot: &Slot, pid: u32, stream: Stream, line: Line<'_>) -> bool {
        let (priority, message) = prefixed(line.bytes, stream);
        let name = stream_name(stream);
        let place = slot.to_string();
        let taken = match &mut self.to {
            To::Journal(journal) => journal.send(&Entry {
                message,
                priority,
                id: "",
                task: "",
                queue: "",
                attempt: 0,
                stream: name,
                pid,
                place: (&slot.pool, &place),
                cut: line.cut,
                lost: 0,
            }),
            To::Stderr(plain) => plain.write(&["worker", &place, name].join(" "), message, line.cut),
        };
        self.counted(taken)
    }

    /// A line of the runner itself: what it refused or could not read.
    pub fn note(&mut self, text: &str) {
        match &mut self.to {
            To::Journal(_) => {
                let source = Source { pid: std::process::id(), ..Source::default() };
                self.line(&source, Stream::Stderr, Line { bytes: text.as_bytes(), cut: false });
            }
            To::Stderr(plain) => {
                plain.write("taskd", text.as_bytes(), false);
            }
        }
    }
}

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// The priority of a line and the line without its `<N>` (sd-daemon(3)): info on stdout, warning on stderr.
fn prefixed(bytes: &[u8], stream: Stream) -> (u8, &[u8]) {
    if let [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] = bytes {
        return (digit - b'0', rest);
    }
    let default = match stream {
        Stream::Stdout => 6,
        Stream::Stderr => 4,
    };
    (default, bytes)
}

/// Lines for people on our stderr. It may be a terminal that was stopped or a pipe that nobody reads, and
/// it is shared with others, so it cannot be made non-blocking: each piece asks first whether it fits.
#[derive(Debug)]
pub struct Plain {
    /// A copy of stderr; none where it is closed.
    out: Option<OwnedFd>,
    /// The last line was written in part: the next begins on a line of its own.
    torn: bool,
    text: Vec<u8>,
}

impl Plain {
    fn new() -> Self {
        let out = std::io::stderr().as_fd().try_clone_to_owned().ok();
        Self { out, torn: false, text: Vec::new() }
    }

    fn write(&mut self, head: &str, message: &[u8], cut: bool) -> bool {
        let Some(out) = &self.out else { return false };
        self.text.clear();
        if self.torn {
            self.text.push(b'\n');
        }
        escape(&mut self.text, head.as_bytes());
        self.text.extend_from_slice(b" | ");
        escape(&mut self.text, message);
        self.text.extend_from_slice(if cut { b" \xe2\x80\xa6\n" } else { b"\n" });
        for piece in self.text.chunks(ATOMIC) {
            let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
            let fits = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
                && fds.first().and_then(PollFd::revents).is_some_and(|r| r.contains(PollFlags::POLLOUT));
            if !fits || nix::unistd::write(out, piece) != Ok(piece.len()) {
                // A first piece that was not written tore nothing.
                self.torn |= !std::ptr::eq(piece.as_ptr(), self.text.as_ptr());
                return false;
            }
        }
        self.torn = false;
        true
    }
}

/// Copies `bytes` so that a terminal shows them and obeys none: control characters but the tab, and bytes
/// that are not UTF-8, become `\x1b`, and many of the same in a row one with their number, `\x00{4096}`.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let plain = rest.iter().position(|b| !matches!(b, b' '..=b'~' | b'\t')).unwrap_or(rest.len());
        let (shown, after) = rest.split_at(plain);
        out.extend_from_slice(shown);
        rest = after;
        if plain > 0 {
            continue;
        }
        let (code, length) = match character(rest) {
            // Also U+0080 to U+009F: some terminals take them as escape sequences.
            Some(c) if c.is_control() => (u32::from(c), c.len_utf8()),
            Some(c) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
                continue;
            }
            None => (u32::from(first), 1),
        };
        let (unit, _) = rest.split_at(length);
        // The last of equal bytes that are no character may begin one.
        let no_other =
            |at| first < 0x80 || length > 1 || character(rest.get(at..).unwrap_or_default()).is_none();
        let mut count = 1;
        while rest.get(length * count..length * (count + 1)) == Some(unit) && no_other(count) {
            count += 1;
        }
        rest = rest.get(length * count..).unwrap_or_default();
        if count > MANY {
            let _ = write!(out, "\\x{code:02x}{{{count}}}");
            count = 0;
        }
        for _ in 0..count {
            let _ = write!(out, "\\x{code:02x}");
        }
    }
}

/// The character that these bytes begin with; none where they do not begin with one.
fn character(bytes: &[u8]) -> Option<char> {
    let length = match bytes.first()? {
        0..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    std::str::from_utf8(bytes.get(..length)?).ok()?.chars().next()
}

/// A token bucket over bytes: at most `rate` a second, and a second's worth at once.
#[derive(Debug)]
pub struct Rate {
    per_second: u64,
    /// May fall below zero: a line that begins within the bound is passed whole.
    tokens: i64,
    at: Instant,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, tokens: i64::try_from(per_second).unwrap_or(i64::MAX), at: now }
    }

    /// Whether `bytes` more may pass now; takes them if so.
    pub fn allows(&mut self, bytes: usize, now: Instant) -> bool {
        let past = now.saturating_duration_since(self.at);
        let fresh = u128::from(self.per_second) * past.as_micros() / 1_000_000;
        if fresh > 0 {
            self.at = now;
            let full = i64::try_from(self.per_second).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(i64::try_from(fresh).unwrap_or(i64::MAX)).min(full);
        }
        if self.tokens <= 0 {
            return false;
        }
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_prefix_sets_the_priority() {
        assert_eq!(prefixed(b"<3>bad", Stream::Stdout), (3, b"bad".as_slice()));
        assert_eq!(prefixed(b"<8>bad", Stream::Stdout), (6, b"<8>bad".as_slice()));
        assert_eq!(prefixed(b"x", Stream::Stderr), (4, b"x".as_slice()));
    }

    #[test]
    fn a_terminal_is_told_nothing_to_obey() {
        let mut out = Vec::new();
        escape(&mut out, "a\tb\x1b[31m\r\u{9b}1mé\u{7f}".as_bytes());
        escape(&mut out, b"\xff\0");
        assert_eq!(String::from_utf8(out).unwrap(), "a\tb\\x1b[31m\\x0d\\x9b1mé\\x7f\\xff\\x00");
        let mut out = Vec::new();
        escape(&mut out, &[b"a".repeat(9), vec![0; 4], vec![0xff; 5], "\u{9b}".repeat(6).into()].concat());
        assert_eq!(out, b"aaaaaaaaa\\x00\\x00\\x00\\x00\\xff{5}\\x9b{6}");
        let mut out = Vec::new();
        escape(&mut out, b"\xe2\x82\xe2\xe2\x82\xac\xf0\x9f\xf0");
        assert_eq!(String::from_utf8(out).unwrap(), "\\xe2\\x82\\xe2\u{20ac}\\xf0\\x9f\\xf0");
    }

    #[test]
    fn a_stderr_that_nobody_reads_is_a_drop_and_never_a_wait() {
        let (read, write) = std::io::pipe().unwrap();
        let mut plain = Plain { out: Some(write.into()), torn: false, text: Vec::new() };
        let taken = (0..100).take_while(|_| plain.write("t id stdout", &[b'x'; CUT_TEST], false)).count();
        assert!(taken < 100);
        let mut all = Vec::new();
        let mut read = read;
        let mut buffer = [0; 1 << 16];
        let n = read.read(&mut buffer).unwrap();
        all.extend_from_slice(&buffer[..n]);
        assert!(plain.write("t id stdout", b"again", false));
        drop(plain);
        read.read_to_end(&mut all).unwrap();
        assert!(all.ends_with(b"\nt id stdout | again\n"), "the torn line was not ended");
    }

    const CUT_TEST: usize = 40_000;

    #[test]
    fn the_rate_holds_over_any_second() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        let mut passed = 0;
        for ms in 0..10_000 {
            if rate.allows(10, start + Duration::from_millis(ms)) {
                passed += 10;
            }
        }
        assert!((10_000..=11_010).contains(&passed), "{passed}");
    }
}
