//! The daemon's end of one child's socket: lines out without ever waiting, lines in as a bounded stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::task::{Context, Poll};

use crate::engine::event::ChildKey;
/// How long a child may take for what: told in taskd-worker(7).
pub use crate::engine::{CANCEL_MS, END_MS, MAX_LOSSES, NAMING_MS, READY_MS};
use crate::link::stream::Stream;
use crate::process::protocol::{FromChild, MAX_LINE, ToChild};

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// What a child said.
#[derive(Debug)]
pub enum Heard {
    /// Lines, in order.
    Lines(ChildKey, Vec<FromChild>),
    /// The child broke the protocol; it is to be ended.
    Broken(ChildKey, String),
    /// The child closed its end.
    Closed(ChildKey),
    /// A resident worker printed something that waits to be read.
    Printed(ChildKey),
}

/// One child's connection.
#[derive(Debug)]
pub struct Link {
    child: ChildKey,
    stream: RefCell<Stream>,
    /// What the socket did not take yet. Bounded by what the engine hands to one child at once.
    backlog: RefCell<VecDeque<u8>>,
    /// Lines that go with the next one.
    kept: RefCell<Vec<u8>>,
    /// It was told that nothing more comes.
    finished: std::cell::Cell<bool>,
    inbound: Inbound,
}

/// Lines being put together.
#[derive(Debug)]
struct Inbound {
    /// Filled to `length`; what is behind it is room.
    buffer: Vec<u8>,
    length: usize,
    /// How much of it is known to hold no newline.
    scanned: usize,
    /// A new daemon may come in the middle of a line that was meant for the old one.
    torn: bool,
    /// Nothing comes any more, or nothing is to be believed.
    over: bool,
}

impl Link {
    /// Takes over a connected socket and says `hello`. `adopted`: an earlier daemon read from it.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn open(
        child: ChildKey,
        socket: std::os::unix::net::UnixStream,
        epoch: u64,
        adopted: bool,
    ) -> std::io::Result<Self> {
        let link = Self {
            child,
            stream: RefCell::new(Stream::new(socket)?),
            backlog: RefCell::default(),
            kept: RefCell::default(),
            finished: std::cell::Cell::default(),
            inbound: Inbound { buffer: Vec::new(), length: 0, scanned: 0, torn: adopted, over: false },
        };
        link.write(b"\n");
        link.send(&ToChild::Hello { v: crate::process::protocol::VERSION, epoch });
        Ok(link)
    }

    /// Sends one line, and those that waited for it.
    pub fn send(&self, line: &ToChild) {
        self.later(line);
        self.flush();
    }

    /// Keeps a line until the next one is sent, or [`Link::flush`]: a busy child is not woken for it.
    pub fn later(&self, line: &ToChild) {
        let mut kept = self.kept.borrow_mut();
        let before = kept.len();
        // Strings, numbers and JSON values with string keys: cannot fail to serialize.
        if serde_json::to_writer(&mut *kept, line).is_ok() {
            kept.push(b'\n');
        } else {
            kept.truncate(before);
        }
    }

    /// Sends what was kept.
    pub fn flush(&self) {
        let mut kept = self.kept.borrow_mut();
        if !kept.is_empty() {
            self.write(&kept);
            kept.clear();
            kept.shrink_to(4 << 10);
        }
    }

    /// No more runs: the child finishes what it holds and exits. The launcher holds a duplicate of this
    /// socket, so closing it would say nothing; shutdown(2) acts on the socket itself.
    pub fn finish(&self) {
        self.flush();
        self.finished.set(true);
        let _ = self.stream.borrow().socket().shutdown(std::net::Shutdown::Write);
    }

    /// Whether [`Link::finish`] was called.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    fn write(&self, bytes: &[u8]) {
        let mut backlog = self.backlog.borrow_mut();
        let mut rest = bytes;
        // What waits already goes first; the loop looks after it.
        while backlog.is_empty() && !rest.is_empty() {
            match self.stream.borrow().try_write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // The child is gone: the launcher will say so.
                Err(_) => return,
            }
        }
        backlog.extend(rest);
    }

    /// Writes what waits as far as there is room, and takes what the child said; the task of `cx` is woken
    /// when there is more of either.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let backlog = self.backlog.get_mut();
        while !backlog.is_empty() {
            let (head, _) = backlog.as_slices();
            match self.stream.get_mut().poll_give(cx, head) {
                Poll::Ready(Ok(n)) => drop(backlog.drain(..n)),
                Poll::Ready(Err(_)) => backlog.clear(),
                Poll::Pending => break,
            }
        }
        if backlog.is_empty() && backlog.capacity() > CHUNK {
            *backlog = VecDeque::new();
        }
        self.inbound.poll(cx, self.child, self.stream.get_mut())
    }
}

impl Inbound {
    fn poll(&mut self, cx: &mut Context<'_>, child: ChildKey, stream: &Stream) -> Poll<Heard> {
        while !self.over {
            if self.buffer.len() < self.length + CHUNK {
                self.buffer.resize(self.length + CHUNK, 0);
            }
            let room = self.buffer.get_mut(self.length..).unwrap_or_default();
            match stream.poll_take(cx, room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.over = true;
                    return Poll::Ready(Heard::Closed(child));
                }
                Poll::Ready(Ok(n)) => {
                    self.length += n;
                    match self.lines() {
                        Ok(lines) if lines.is_empty() => {}
                        Ok(lines) => return Poll::Ready(Heard::Lines(child, lines)),
                        Err(why) => {
                            self.over = true;
                            return Poll::Ready(Heard::Broken(child, why));
                        }
                    }
                }
            }
        }
        Poll::Pending
    }

    /// The complete lines of the buffer; the error says what broke the protocol.
    fn lines(&mut self) -> Result<Vec<FromChild>, String> {
        let filled = self.buffer.get(..self.length).unwrap_or_default();
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(at) = filled.get(self.scanned..).and_then(|b| b.iter().position(|c| *c == b'\n')) {
            let end = self.scanned + at;
            let line = filled.get(start..end).unwrap_or_default();
            start = end + 1;
            self.scanned = start;
            // Of a line that the old daemon began to read there is a tail here, which means nothing; a child that was
            // silent then begins with a whole one.
            let torn = std::mem::take(&mut self.torn);
            match serde_json::from_slice(line) {
                _ if line.is_empty() => {}
                Ok(said) => lines.push(said),
                Err(_) if torn => {}
                Err(e) => {
                    let shown = String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned();
                    return Err(format!("a line that is not of the child protocol ({e}): {shown:?}"));
                }
            }
        }
        self.buffer.copy_within(start..self.length, 0);
        self.length -= start;
        self.scanned = self.length;
        if self.length > MAX_LINE {
            return Err(format!("a line of more than {MAX_LINE} bytes"));
        }
        if self.length == 0 && self.buffer.len() > 64 << 10 {
            self.buffer = Vec::new();
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream as Std;

    use super::*;
    use crate::process::protocol::Run;

    fn on_loop(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test());
    }

    #[test]
    fn says_hello_and_hears_lines_whatever_their_pieces() {
        on_loop(async || {
            let (ours, mut theirs) = Std::pair().unwrap();
            let mut link = Link::open(ChildKey(7), ours, 1, false).unwrap();
            let reader = BufReader::new(theirs.try_clone().unwrap());
            let reading =
                std::thread::spawn(move || reader.lines().take(2).map(|l| l.unwrap()).collect::<Vec<_>>());
            while !reading.is_finished() {
                tokio::task::yield_now().await;
            }
            let said = reading.join().unwrap();
            assert_eq!(said, ["", "{\"op\":\"hello\",\"v\":1,\"epoch\":1}"], "a torn line is ended first");
            theirs.write_all(b"{\"op\":\"rea").unwrap();
            assert!(poll_fn(|cx| Poll::Ready(link.poll(cx))).await.is_pending());
            theirs.write_all(b"dy\",\"v\":1,\"resume\":true}\n{\"op\":\"resumed\"}\n{\"op\":").unwrap();
            let Heard::Lines(ChildKey(7), lines) = poll_fn(|cx| link.poll(cx)).await else {
                panic!("nothing heard")
            };
            assert!(matches!(lines.first(), Some(FromChild::Ready { capacity: 1, resume: true, .. })));
            assert_eq!(lines.get(1), Some(&FromChild::Resumed {}));
            theirs.write_all(b"nonsense}\n").unwrap();
            assert!(matches!(poll_fn(|cx| link.poll(cx)).await, Heard::Broken(ChildKey(7), _)));
        });
    }

    #[test]
    fn a_line_torn_by_the_death_of_the_daemon_before_is_skipped() {
        on_loop(async || {
            let (ours, mut theirs) = Std::pair().unwrap();
            theirs.write_all(b"rt of a line\n{\"op\":\"running\",\"run\":\"3\"}\n").unwrap();
            let mut link = Link::open(ChildKey(1), ours, 2, true).unwrap();
            let Heard::Lines(_, lines) = poll_fn(|cx| link.poll(cx)).await else { panic!("nothing heard") };
            assert_eq!(lines, vec![FromChild::Running { run: "3".into() }]);
        });
    }

    #[test]
    fn a_child_that_was_silent_when_the_daemon_died_loses_no_line() {
        on_loop(async || {
            let (ours, mut theirs) = Std::pair().unwrap();
            let mut link = Link::open(ChildKey(1), ours, 2, true).unwrap();
            theirs.write_all(b"{\"op\":\"ready\",\"v\":1}\n{\"op\":\"resumed\"}\n").unwrap();
            let Heard::Lines(_, lines) = poll_fn(|cx| link.poll(cx)).await else { panic!("nothing heard") };
            assert_eq!(lines.len(), 2, "{lines:?}");
            // Only what the old daemon left is forgiven: a new child of a later daemon has no such excuse.
            let (ours, mut theirs) = Std::pair().unwrap();
            let mut link = Link::open(ChildKey(2), ours, 2, false).unwrap();
            theirs.write_all(b"rubbish\n").unwrap();
            assert!(matches!(poll_fn(|cx| link.poll(cx)).await, Heard::Broken(ChildKey(2), _)));
        });
    }

    #[test]
    fn a_child_that_does_not_read_stops_nobody_and_gets_every_line_later() {
        on_loop(async || {
            let (ours, theirs) = Std::pair().unwrap();
            let mut link = Link::open(ChildKey(1), ours, 1, false).unwrap();
            let big = "x".repeat(100_000);
            for n in 0..40 {
                link.send(&ToChild::Run(Box::new(Run {
                    run: n.to_string(),
                    generation: 1,
                    id: big.clone(),
                    task: "t".into(),
                    queue: "q".into(),
                    args: vec![],
                    kwargs: serde_json::Map::new(),
                    attempt: 1,
                    deadline_ms: None,
                    soft_deadline_ms: None,
                    memory_retries: 0,
                    passes: false,
                    retries: 0,
                    headers: serde_json::Map::new(),
                    celery: None,
                })));
            }
            let reading = std::thread::spawn(move || {
                BufReader::new(theirs).lines().skip(2).take(40).map(|l| l.unwrap()).collect::<Vec<_>>()
            });
            while !reading.is_finished() {
                // The other side may have closed its end already.
                let heard = poll_fn(|cx| Poll::Ready(link.poll(cx))).await;
                assert!(matches!(heard, Poll::Pending | Poll::Ready(Heard::Closed(_))), "{heard:?}");
                tokio::task::yield_now().await;
            }
            let lines = reading.join().unwrap();
            for (n, line) in lines.iter().enumerate() {
                assert!(
                    line.starts_with(&format!("{{\"op\":\"run\",\"run\":\"{n}\",")),
                    "line {n} is out of order"
                );
            }
        });
    }
}
