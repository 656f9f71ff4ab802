//! The output of the attempt that runs: read, passed on line by line, and what is kept of it.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attempt::Pipes;
use super::outbound::{Outbound, encode};
use super::verdict::Printed;
use crate::model::task::{ResultKind, Task};
use crate::process::output::{Channel, Head, Line, Read, Tail};
use crate::process::output_sink::{Rate, Sink, Source};
use crate::process::protocol::{FromChild, Stream};

/// Both streams. Buffers outlive the attempts: an attempt costs no allocation here.
#[derive(Debug)]
pub struct Printing {
    stdout: Channel,
    stderr: Channel,
    head: Head,
    tail: Tail,
    passing: Passing,
}

/// Where lines go.
#[derive(Debug)]
struct Passing {
    sink: Sink,
    rate: Rate,
    run: String,
    source: Source,
    dropped: u64,
    /// The sink was full: the rest of what was read at once is not offered to it, so that a flood of short
    /// lines costs no system call for each.
    full: bool,
}

impl Printing {
    /// Nothing is printed yet. `rate`: bytes a second that are copied to the daemon.
    #[must_use]
    pub fn new(sink: Sink, rate: u64, now: Instant) -> Self {
        Self {
            stdout: Channel::default(),
            stderr: Channel::default(),
            head: Head::default(),
            tail: Tail::default(),
            passing: Passing {
                sink,
                rate: Rate::new(rate, now),
                run: String::new(),
                source: Source::default(),
                dropped: 0,
                full: false,
            },
        }
    }

    /// A line of the runner itself.
    pub fn note(&mut self, text: &str) {
        self.passing.sink.note(text);
    }

    /// Begins with the output of a new attempt.
    pub fn open(&mut self, run: &str, task: &Task, source: Source, pipes: Pipes) {
        let wanted = !task.ignore_result && task.result != ResultKind::None;
        self.head.open(if wanted { usize::try_from(task.result_max_size).unwrap_or(usize::MAX) } else { 0 });
        self.tail.open();
        self.passing.run = run.to_owned();
        self.passing.source = source;
        self.passing.dropped = 0;
        self.stdout.open(pipes.stdout);
        self.stderr.open(pipes.stderr);
    }

    /// The pipes that are open.
    #[must_use]
    pub fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.stdout.pipe(), self.stderr.pipe()]
    }

    /// Whether both streams ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.stdout.pipe().is_none() && self.stderr.pipe().is_none()
    }

    /// Reads a stream once, at most 64 KiB, without waiting.
    pub fn read(&mut self, stream: Stream, out: &mut Outbound, now: Instant) -> Read {
        let passing = &mut self.passing;
        passing.full = false;
        match stream {
            Stream::Stdout => {
                let head = &mut self.head;
                self.stdout.read(|b| head.push(b), |l| passing.pass(Stream::Stdout, l, out, now))
            }
            Stream::Stderr => {
                let tail = &mut self.tail;
                self.stderr.read(|b| tail.push(b), |l| passing.pass(Stream::Stderr, l, out, now))
            }
        }
    }

    /// Ends both streams and tells what was kept.
    #[must_use]
    pub fn take(&mut self, out: &mut Outbound, now: Instant) -> Printed {
        let passing = &mut self.passing;
        self.stdout.finish(|l| passing.pass(Stream::Stdout, l, out, now));
        self.stderr.finish(|l| passing.pass(Stream::Stderr, l, out, now));
        passing.sink.tell_missed();
        let (stdout, truncated) = self.head.take();
        Printed { stdout, truncated, stderr: self.tail.text(), dropped: passing.dropped }
    }
}

impl Passing {
    fn pass(&mut self, stream: Stream, line: Line<'_>, out: &mut Outbound, now: Instant) {
        if self.full {
            self.sink.skip();
        } else {
            self.full = !self.sink.line(&self.source, stream, line);
        }
        let mut whole = !self.full;
        if self.rate.allows(line.bytes.len() + 1, now) {
            let text = std::str::from_utf8(line.bytes).ok();
            whole &= out.output(encode(&FromChild::Output {
                run: self.run.clone(),
                stream,
                line: text.map(str::to_owned),
                data: text.is_none().then(|| STANDARD.encode(line.bytes)),
                cut: line.cut,
            }));
        } else {
            whole = false;
        }
        if !whole {
            self.dropped += line.bytes.len() as u64;
        }
    }
}
