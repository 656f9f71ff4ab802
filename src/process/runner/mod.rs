//! The runner: taskd's own child, which runs `command` and `exec` tasks one at a time and speaks the child
//! protocol with whatever daemon lives. Single-threaded, one poll(2), no tokio; idle it sleeps.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::attempt::{Attempt, Kit};
use self::inbound::Inbound;
use self::leaves::Leaves;
use self::outbound::Outbound;
use self::printing::Printing;
use super::held::Held;
use super::launch::RunnerPart;
use super::output::Read;
use super::output_sink::Sink;
use super::packet::Packets;
use super::protocol::{Run, Stream};
use super::signals::Signals;
use crate::model::task::Task;

mod attempt;
mod dialogue;
mod environment;
mod environment_file;
mod foreground;
mod inbound;
mod leaves;
mod outbound;
mod printing;
mod supervision;
mod verdict;

pub use environment::{Identity, PATH};
pub use foreground::run_once;
pub use verdict::TASKS_MAX;

/// A process outside the attempt may hold its pipes: they are read this long after its end.
const DRAIN: Duration = Duration::from_secs(1);

/// A program that ends within this time costs two wake-ups: its order and its end. Its start is told with its
/// end, and its output is read then.
const HUSH: Duration = Duration::from_millis(4);

/// A stream is read this often in a row at the most once its program ended.
const DRAIN_READS: usize = 32;

/// Runs what the daemon on `socket` orders until it says no more: end of file or SIGTERM mean "finish what
/// runs, then exit". `held` is what tasks may be given of secrets. `launcher` is where leaves are asked for
/// ([`RunnerPart::leaves`]). `title` gets the whole process title at each change.
pub fn serve(
    part: RunnerPart,
    held: Held,
    socket: OwnedFd,
    launcher: Option<Packets>,
    title: &mut dyn FnMut(&str),
) -> ExitCode {
    let mut sink = Sink::new(part.journal);
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            sink.note(&format!("runner {}: no signal descriptor: {e}", part.slot));
            return ExitCode::FAILURE;
        }
    };
    let kit = match Kit::new(&part.node, &part.instance, held) {
        Ok(kit) => kit,
        Err(e) => {
            sink.note(&format!("runner {}: cannot start: {e}", part.slot));
            return ExitCode::FAILURE;
        }
    };
    let now = Instant::now();
    let mut runner = Runner {
        name: format!("taskd: runner {}", part.slot),
        generation: part.generation,
        tasks: part.tasks.into_iter().map(|(name, task)| (name, Arc::new(task))).collect(),
        socket: Some(socket),
        inbound: Inbound::default(),
        outbound: Outbound::default(),
        leaves: launcher.map(Leaves::new),
        signals,
        kit,
        printing: Printing::new(sink, part.output_rate, now),
        work: None,
        hush: None,
        unsettled: VecDeque::new(),
        finishing: false,
        title,
    };
    (runner.title)(&runner.name);
    runner.live()
}

/// What a runner is and does.
struct Runner<'t> {
    /// Its title while idle.
    name: String,
    generation: u64,
    tasks: BTreeMap<String, Arc<Task>>,
    /// Absent after end of file.
    socket: Option<OwnedFd>,
    inbound: Inbound,
    outbound: Outbound,
    /// Where control groups are in force.
    leaves: Option<Leaves>,
    signals: Signals,
    kit: Kit,
    printing: Printing,
    work: Option<Work>,
    /// A program started: until then its output is left in the pipes and this line is kept back.
    hush: Option<(Instant, Vec<u8>)>,
    /// Outcomes that no daemon has committed yet, oldest first: the run and its line.
    unsettled: VecDeque<(String, Vec<u8>)>,
    /// Takes nothing new, exits once all is settled.
    finishing: bool,
    title: &'t mut dyn FnMut(&str),
}

/// The run that was taken.
struct Work {
    run: Box<Run>,
    task: Arc<Task>,
    received: Instant,
    /// Before the kernel is asked once more for a process, where it had none to give.
    pause: Duration,
    phase: Phase,
    leaf: Leaf,
}

/// The control group of the run.
enum Leaf {
    /// None, or none any more.
    None,
    /// It was asked for.
    Asked(u64),
    /// Its `cgroup.procs`.
    Made(OwnedFd),
    /// The program is in it.
    Used,
    /// It is being emptied and counted.
    Leaving { asked: u64, until: Instant },
}

enum Phase {
    /// The kernel had no process left to give, or a control group was asked for; tried again at this time.
    Waiting { at: Instant },
    /// It runs, or what it left behind is being ended.
    Running(Box<Attempt>),
}

/// What poll(2) found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    socket_in: bool,
    launcher: bool,
    signals: bool,
    output: [bool; 2],
    feed: bool,
}

impl Runner<'_> {
    fn live(&mut self) -> ExitCode {
        loop {
            let found = self.wait();
            let now = Instant::now();
            if found.signals {
                let came = self.signals.take();
                self.finishing |= came.terminate;
                if came.child
                    && let Some(Work { phase: Phase::Running(attempt), .. }) = &mut self.work
                {
                    attempt.on_child(now);
                }
            }
            if found.socket_in {
                self.hear(now);
            }
            if found.launcher {
                self.hear_launcher(now);
            }
            if self.hush.as_ref().is_some_and(|(until, _)| *until <= now) {
                self.end_hush();
            }
            self.work_on(found, now);
            self.say();
            if self.is_done() {
                return ExitCode::SUCCESS;
            }
        }
    }

    /// Nobody listens any more and nothing runs; or all that was taken is settled and nothing more will be.
    fn is_done(&self) -> bool {
        self.work.is_none()
            && (self.socket.is_none()
                || (self.finishing && self.unsettled.is_empty() && !self.outbound.waits()))
    }

    /// Writes what the socket takes; a broken one is the same as end of file.
    fn say(&mut self) {
        if let Some(socket) = &self.socket
            && self.outbound.waits()
            && self.outbound.flush(socket.as_fd()).is_err()
        {
            self.socket = None;
        }
    }

    /// Sleeps until something is to be done; without an attempt that has a limit, for ever.
    fn wait(&self) -> Found {
        let mut fds = Vec::with_capacity(6);
        let mut what = Vec::with_capacity(6);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        what.push(Watched::Signals);
        if let Some(socket) = &self.socket {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, self.outbound.waits());
            fds.push(PollFd::new(socket.as_fd(), events));
            what.push(Watched::Socket);
        }
        if let Some(launcher) = self.leaves.as_ref().and_then(Leaves::awaited) {
            fds.push(PollFd::new(launcher, PollFlags::POLLIN));
            what.push(Watched::Launcher);
        }
        for (i, pipe) in self.printing.pipes().into_iter().enumerate() {
            if let Some(pipe) = pipe.filter(|_| self.hush.is_none()) {
                fds.push(PollFd::new(pipe, PollFlags::POLLIN));
                what.push(Watched::Output(i));
            }
        }
        if let Some(pipe) = self.attempt().and_then(Attempt::feed_pipe) {
            fds.push(PollFd::new(pipe, PollFlags::POLLOUT));
            what.push(Watched::Feed);
        }
        let mut found = Found::default();
        // EINTR finds nothing, like a time that passed.
        let hush = self.hush.as_ref().map(|(until, _)| *until);
        let deadline = self.deadline().into_iter().chain(hush).min();
        if poll(&mut fds, timeout(deadline)).is_err() {
            return found;
        }
        for (fd, what) in fds.iter().zip(what) {
            let Some(came) = fd.revents().filter(|r| !r.is_empty()) else { continue };
            match what {
                Watched::Signals => found.signals = true,
                Watched::Socket => found.socket_in = came.intersects(!PollFlags::POLLOUT),
                Watched::Launcher => found.launcher = true,
                Watched::Output(i) => {
                    if let Some(flag) = found.output.get_mut(i) {
                        *flag = true;
                    }
                }
                Watched::Feed => found.feed = true,
            }
        }
        found
    }

    /// What was kept back is told, and output is read from now on.
    fn end_hush(&mut self) {
        if let Some((_, line)) = self.hush.take() {
            self.outbound.urgent(line);
        }
    }

    fn attempt(&self) -> Option<&Attempt> {
        match &self.work {
            Some(Work { phase: Phase::Running(attempt), .. }) => Some(attempt),
            _ => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let work = self.work.as_ref()?;
        match &work.phase {
            Phase::Waiting { at } => Some(*at),
            Phase::Running(attempt) if attempt.is_over() => match &work.leaf {
                // Until then it is not concluded, whatever else is done.
                Leaf::Leaving { until, .. } => Some(*until),
                _ => attempt.ended_at().and_then(|at| at.checked_add(DRAIN)),
            },
            Phase::Running(attempt) => attempt.deadline(),
        }
    }

    /// The control group of the run has not been counted yet.
    fn is_counting(&self) -> bool {
        self.work.as_ref().is_some_and(|work| matches!(work.leaf, Leaf::Leaving { .. }))
    }

    /// Brings the run that was taken as far as it goes now.
    fn work_on(&mut self, found: Found, now: Instant) {
        let over = match &mut self.work {
            None => return,
            Some(Work { phase: Phase::Waiting { at }, .. }) => {
                if *at <= now {
                    self.begin(now);
                }
                return;
            }
            Some(Work { phase: Phase::Running(attempt), .. }) => {
                if found.feed {
                    attempt.feed();
                }
                attempt.tick(now);
                attempt.is_over()
            }
        };
        self.leave(now);
        if over {
            // Its start goes before what it printed.
            self.end_hush();
        }
        for (i, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            // One read a round while it runs, so that no flood keeps the socket or a limit waiting.
            let reads = if over {
                DRAIN_READS
            } else {
                usize::from(found.output.get(i).copied().unwrap_or_default())
            };
            for _ in 0..reads {
                if self.printing.read(stream, &mut self.outbound, now) != Read::Some {
                    break;
                }
            }
        }
        if over
            && !self.is_counting()
            && (self.printing.is_closed() || self.deadline().is_none_or(|at| at <= now))
        {
            self.conclude(now);
        }
    }
}

#[derive(Clone, Copy)]
enum Watched {
    Signals,
    Socket,
    Launcher,
    Output(usize),
    Feed,
}

/// Milliseconds for poll(2), rounded up: waking early would only mean waking twice.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(at) = deadline else { return PollTimeout::NONE };
    let left = at.saturating_duration_since(Instant::now());
    let ms = left.as_micros().div_ceil(1000);
    PollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}
