//! What resident workers print. The daemon reads their stdout and stderr itself: a line belongs to the run
//! that is in flight in that child if there is exactly one, else to the child's place only.
//!
//! Nothing here waits, and a worker that floods costs a bounded share of the loop: what is beyond
//! `output_rate` is dropped and counted, and beyond [`PACE`] its pipe is left alone for a moment.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::clock;
use super::handle::logs;
use super::state::{Daemon, Living, RunInfo};
use crate::engine::event::ChildKey;
use crate::link::stream::registered;
use crate::model::time::Mono;
use crate::process::output::{CUT, Channel, Line, Read};
use crate::process::output_sink::{Rate, Sink, Source};
use crate::process::protocol::Stream;

/// Bytes a second that are taken off one worker's pipes; then they are left alone for [`PAUSE_MS`].
const PACE: u64 = 16 << 20;

/// See [`PACE`], in milliseconds.
const PAUSE_MS: u64 = 50;

/// Reads of 64 KiB in a row, of each stream: what a pipe holds, and a little more.
const READS: usize = 2;

/// The last line on stderr explains an end that follows within this time.
const EXPLAINS: Duration = Duration::from_secs(5);

/// Longest explanation, in characters.
const MAX_LAST: usize = 200;

/// Both streams of one worker.
#[derive(Debug)]
pub struct Printed {
    sides: [Side; 2],
    rate: Rate,
    pace: Rate,
    /// Nothing is read before this time.
    paused: Option<Mono>,
    /// Bytes of no run that were dropped.
    lost: u64,
    last: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Side {
    stream: Stream,
    /// A second descriptor of the pipe, for the event loop; absent after the end of the stream.
    watch: Option<AsyncFd<OwnedFd>>,
    channel: Channel,
}

/// A line that is passed on.
struct Taken {
    stream: Stream,
    bytes: Vec<u8>,
    cut: bool,
}

impl Printed {
    /// Takes over the read ends of both pipes; `rate`: bytes a second that are passed on.
    ///
    /// # Errors
    /// No descriptor left, or no room in the event loop.
    pub fn open(stdout: OwnedFd, stderr: OwnedFd, rate: u64) -> io::Result<Self> {
        let side = |stream, pipe: OwnedFd| {
            let watch = registered(pipe.try_clone()?, Interest::READABLE)?;
            let mut channel = Channel::default();
            channel.open(Some(pipe));
            io::Result::Ok(Side { stream, watch: Some(watch), channel })
        };
        let now = Instant::now();
        Ok(Self {
            sides: [side(Stream::Stdout, stdout)?, side(Stream::Stderr, stderr)?],
            rate: Rate::new(rate, now),
            pace: Rate::new(PACE, now),
            paused: None,
            lost: 0,
            last: None,
        })
    }

    /// Ready when there is something to read; the task of `cx` is woken when there is. While it is paused
    /// nothing wakes it: the loop looks again at [`Printed::paused`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = self.paused {
            if clock::now().mono < until {
                return Poll::Pending;
            }
            self.paused = None;
        }
        // Both are asked, or only one of them would wake the task.
        let ready = |side: &Side| side.watch.as_ref().is_some_and(|w| w.poll_read_ready(cx).is_ready());
        if self.sides.iter().map(ready).fold(false, |a, b| a | b) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// When it may be read again, where it was left alone.
    #[must_use]
    pub fn paused(&self) -> Option<Mono> {
        self.paused
    }

    /// Reads what there is, bounded; the lines to pass on, and how many bytes were dropped.
    fn read(&mut self, reads: usize, now: Instant) -> (Vec<Taken>, u64) {
        let Self { sides, rate, pace, last, .. } = self;
        let (mut lines, mut dropped, mut bytes) = (Vec::new(), 0, 0);
        for Side { stream, watch, channel } in sides {
            for _ in 0..reads {
                let mut take = |line: Line<'_>| {
                    let Line { bytes, cut } = line;
                    if *stream == Stream::Stderr && !bytes.trim_ascii().is_empty() {
                        let text = String::from_utf8_lossy(bytes.get(..MAX_LAST * 4).unwrap_or(bytes));
                        *last = Some((now, text.trim().chars().take(MAX_LAST).collect()));
                    }
                    if rate.allows(bytes.len() + 1, now) {
                        lines.push(Taken { stream: *stream, bytes: bytes.to_vec(), cut });
                    } else {
                        dropped += bytes.len() as u64;
                    }
                };
                match channel.read(|raw| bytes += raw.len(), &mut take) {
                    Read::Some => {}
                    Read::Empty => {
                        // Tells the event loop that it is empty, so that it wakes for the next byte.
                        if let Some(watch) = watch {
                            let empty: io::Result<()> = Err(io::ErrorKind::WouldBlock.into());
                            let _ = watch.try_io(Interest::READABLE, |_| empty);
                        }
                        break;
                    }
                    Read::Closed => {
                        *watch = None;
                        break;
                    }
                }
            }
        }
        if bytes > 0 && !pace.allows(bytes, now) {
            self.paused = Some(clock::now().mono.plus(PAUSE_MS));
        }
        (lines, dropped)
    }
}

/// Reads what a worker printed so far and passes it on. To be called before anything changes that decides
/// whose output it is: a run handed over, an end. `ends`: this run does; what it printed without a newline is
/// its last line.
pub fn drain(d: &mut Daemon, child: ChildKey, ends: Option<&str>) {
    let Daemon { children, runs, spool, sink, .. } = d;
    let Some(living) = children.get_mut(&child) else { return };
    let Some(printed) = living.printed.as_mut() else { return };
    let (mut lines, dropped) = printed.read(READS, Instant::now());
    let alone = |run: &str| {
        let own = |r: &RunInfo| r.child == child && !r.ended;
        runs.get(run).is_some_and(own) && runs.values().filter(|r| own(r)).count() == 1
    };
    if ends.is_some_and(alone) {
        for Side { stream, channel, .. } in &mut printed.sides {
            channel.cut_here(|l| lines.push(Taken { stream: *stream, bytes: l.bytes.to_vec(), cut: false }));
        }
    }
    if lines.is_empty() && dropped == 0 {
        return;
    }
    pass(living, only_run(runs, child), lines, dropped, sink, spool);
}

/// The end of a worker's output; its last words on stderr, where they may explain the end of the worker.
pub fn finish(d: &mut Daemon, child: ChildKey) -> Option<String> {
    drain(d, child, None);
    let Daemon { children, runs, spool, sink, totals, .. } = d;
    let living = children.get_mut(&child)?;
    let printed = living.printed.as_mut()?;
    totals.dropped_output += printed.lost;
    let mut rest = Vec::new();
    for side in &mut printed.sides {
        let stream = side.stream;
        side.channel.finish(|l| rest.push(Taken { stream, bytes: l.bytes.to_vec(), cut: l.cut }));
        side.watch = None;
    }
    let last = printed.last.take().filter(|(at, _)| at.elapsed() < EXPLAINS).map(|(_, text)| text);
    if printed.lost > 0 {
        let (slot, lost) = (&living.child.slot, printed.lost);
        tracing::warn!(
            TASKD_SLOT = %slot,
            "worker {slot}: {lost} bytes of output were dropped: it printed faster than results.output_rate"
        );
    }
    pass(living, only_run(runs, child), rest, 0, sink, spool);
    last
}

/// A worker's own word for what a run printed.
pub struct Said {
    /// The run.
    pub run: String,
    /// Where.
    pub stream: Stream,
    /// As text.
    pub line: Option<String>,
    /// As bytes, base64.
    pub data: Option<String>,
    /// It goes on in the next one.
    pub cut: bool,
}

/// Passes on an `output` line of a worker.
pub fn said(d: &mut Daemon, child: ChildKey, said: Said) {
    let Daemon { children, runs, spool, sink, .. } = d;
    let Some(living) = children.get_mut(&child) else { return };
    let Some(printed) = living.printed.as_mut() else { return };
    let Some(info) = runs.get_mut(&said.run).filter(|r| r.child == child) else { return };
    let bytes = said.line.map_or_else(
        || said.data.and_then(|d| BASE64.decode(d).ok()).unwrap_or_default(),
        String::into_bytes,
    );
    let (mut lines, mut dropped) = (Vec::new(), 0);
    let now = Instant::now();
    let pieces = bytes.chunks(CUT).count();
    for (n, piece) in bytes.chunks(CUT).enumerate() {
        if printed.rate.allows(piece.len() + 1, now) {
            let cut = said.cut || n + 1 < pieces;
            lines.push(Taken { stream: said.stream, bytes: piece.to_vec(), cut });
        } else {
            dropped += piece.len() as u64;
        }
    }
    if bytes.is_empty() {
        lines.push(Taken { stream: said.stream, bytes, cut: said.cut });
    }
    pass(living, Some(info), lines, dropped, sink, spool);
}

/// The run in flight in this child, if there is exactly one.
fn only_run(runs: &mut BTreeMap<String, RunInfo>, child: ChildKey) -> Option<&mut RunInfo> {
    let mut own = runs.values_mut().filter(|r| r.child == child && !r.ended);
    let first = own.next()?;
    if own.next().is_some() { None } else { Some(first) }
}

fn pass(
    living: &mut Living,
    run: Option<&mut RunInfo>,
    lines: Vec<Taken>,
    mut dropped: u64,
    sink: &mut Sink,
    spool: &super::spool::Spool,
) {
    let (slot, pid) = (&living.child.slot, living.child.pid);
    let Some(info) = run else {
        for line in &lines {
            let (stream, bytes, cut) = (line.stream, line.bytes.as_slice(), line.cut);
            if !sink.slot_line(slot, pid, stream, Line { bytes, cut }) {
                dropped += bytes.len() as u64;
            }
        }
        if let Some(printed) = living.printed.as_mut() {
            printed.lost += dropped;
        }
        return;
    };
    let source = Source {
        id: info.id.clone(),
        task: info.task.clone(),
        queue: info.queue.clone(),
        attempt: info.attempt,
        pid,
    };
    let mut kept = Vec::with_capacity(lines.len());
    for Taken { stream, bytes, cut } in lines {
        if !sink.line(&source, stream, Line { bytes: &bytes, cut }) {
            dropped += bytes.len() as u64;
        }
        kept.push(logs::line(info.attempt, stream, bytes, cut));
    }
    info.dropped += dropped;
    if !kept.is_empty() {
        info.printed = true;
        spool.append(&info.id, info.attempt, &kept);
    }
}
