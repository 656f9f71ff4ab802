//! What the runner hears from the daemon and answers.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::attempt::{Attempt, StartError};
use super::leaves::{Leaves, PATIENCE, Told};
use super::outbound::encode;
use super::verdict;
use super::{HUSH, Leaf, Phase, Runner, Work};
use crate::model::outcome::{CancelReason, Cause, Outcome, SPAWN_AGAIN};
use crate::model::task::Program;
use crate::process::launch::RunnerAsk;
use crate::process::output_sink::Source;
use crate::process::protocol::{FromChild, Run, ToChild, VERSION};
use crate::process::spawn::Stdio;

/// Outcomes that are held for a daemon to commit; beyond it no run is taken.
const MAX_UNSETTLED: usize = 64;

/// First and last pause before the kernel is asked again for a process; after that the run is given back.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1600));

impl Runner<'_> {
    /// Reads the socket once and does what is said.
    pub(super) fn hear(&mut self, now: Instant) {
        let Some(socket) = &self.socket else { return };
        let arrived = self.inbound.read(socket.as_fd());
        for text in arrived.garbage {
            // A daemon that died in the middle of a line leaves one behind; nothing hangs on it.
            self.printing.note(&format!("{}: ignored a line that is not the protocol: {text}", self.name));
        }
        for line in arrived.lines {
            match line {
                ToChild::Hello { v, epoch } => self.hello(v, epoch),
                ToChild::Run(run) => self.order(run, now),
                ToChild::Cancel { run, reason } => self.cancel(&run, reason, now),
                ToChild::Settled { run } => self.unsettled.retain(|(held, _)| *held != run),
            }
        }
        if arrived.closed {
            self.socket = None;
        }
    }

    /// A daemon, the first or a new one, learns what is held here.
    fn hello(&mut self, v: u32, epoch: u64) {
        if v != VERSION {
            self.printing.note(&format!("{}: the daemon speaks version {v}, not {VERSION}", self.name));
            self.finishing = true;
        }
        self.outbound.restart();
        if epoch > 1 {
            // It throws away what it reads up to the first newline: let that be nothing.
            self.outbound.urgent(b"\n".to_vec());
        }
        self.tell(&FromChild::Ready {
            v: VERSION,
            capacity: 1,
            tasks: self.tasks.keys().cloned().collect(),
            resume: true,
        });
        if let Some(work) = &self.work {
            let run = work.run.run.clone();
            let pid = if let Phase::Running(attempt) = &work.phase { Some(attempt.pid()) } else { None };
            self.tell(&FromChild::Running { run: run.clone() });
            if let Some(pid) = pid {
                // A new daemon does not know it.
                self.tell(&FromChild::started(run, pid));
            }
        }
        for (_, line) in &self.unsettled {
            self.outbound.urgent(line.clone());
        }
        self.tell(&FromChild::Resumed {});
    }

    fn tell(&mut self, line: &FromChild) {
        self.outbound.urgent(encode(line));
    }

    fn order(&mut self, run: Box<Run>, now: Instant) {
        if self.work.as_ref().is_some_and(|w| w.run.run == run.run) {
            return;
        }
        if let Some((_, line)) = self.unsettled.iter().find(|(held, _)| *held == run.run) {
            self.outbound.urgent(line.clone());
            return;
        }
        let task = match self.acceptable(&run) {
            Ok(task) => task,
            Err(why) => {
                self.tell(&FromChild::Refused { run: run.run, why });
                return;
            }
        };
        let phase = Phase::Waiting { at: now };
        self.work = Some(Work { run, task, received: now, pause: AGAIN.0, phase, leaf: Leaf::None });
        self.begin(now);
    }

    fn acceptable(&self, run: &Run) -> Result<Arc<crate::model::task::Task>, String> {
        if self.finishing {
            return Err("this runner is ending".to_owned());
        }
        if let Some(work) = &self.work {
            return Err(format!("busy with run {}", work.run.run));
        }
        if self.unsettled.len() >= MAX_UNSETTLED {
            return Err(format!("{MAX_UNSETTLED} outcomes are not settled yet"));
        }
        let Some(task) = self.tasks.get(&run.task) else {
            return Err(format!(
                "task {:?} is not declared for this pool and user (settings generation {}, ordered with {})",
                run.task, self.generation, run.generation
            ));
        };
        if task.program == Program::Worker {
            return Err(format!("task {:?} is one for a resident worker", run.task));
        }
        if run.passes && task.ignore_result {
            return Ok(Arc::new(crate::model::task::Task { ignore_result: false, ..(**task).clone() }));
        }
        Ok(Arc::clone(task))
    }

    /// Starts the program of the run that was taken, in a control group of its own where there are any, or
    /// ends the run.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(work) = &mut self.work else { return };
        // Before the program can look.
        (self.title)(&format!("{} {} {}", self.name, work.run.task, work.run.id));
        if let (Some(leaves), Leaf::None) = (&mut self.leaves, &work.leaf) {
            let ask =
                RunnerAsk::Leaf { task: work.run.task.clone(), memory_retries: work.run.memory_retries };
            match leaves.ask(&ask) {
                Ok(number) => {
                    work.leaf = Leaf::Asked(number);
                    work.phase = Phase::Waiting { at: now + PATIENCE };
                }
                Err(e) => {
                    self.fail(Cause::SpawnFailed, format!("asking the launcher for a control group: {e}"))
                }
            }
            return;
        }
        let procs = match &work.leaf {
            Leaf::Made(procs) => Some(procs.as_fd()),
            Leaf::Asked(_) => {
                let seconds = PATIENCE.as_secs();
                return self.no_room(format!("the launcher made no control group within {seconds} s"), false);
            }
            _ => None,
        };
        match Attempt::start(&self.kit, &work.task, &work.run, work.received, Stdio::Pipe, procs) {
            Ok((mut attempt, pipes)) => {
                // From here on the program must not find it open anywhere.
                work.leaf = if procs.is_some() { Leaf::Used } else { Leaf::None };
                let (run, pid) = (work.run.run.clone(), attempt.pid());
                let source = Source {
                    id: work.run.id.clone(),
                    task: work.run.task.clone(),
                    queue: work.run.queue.clone(),
                    attempt: work.run.attempt,
                    pid,
                };
                self.printing.open(&run, &work.task, source, pipes);
                attempt.feed();
                work.phase = Phase::Running(Box::new(attempt));
                let line = encode(&FromChild::started(run, pid));
                self.hush = now.checked_add(HUSH).map(|until| (until, line));
            }
            Err(StartError::Spawn(e)) if e.again() => {
                if work.pause > AGAIN.1 {
                    self.no_room(e.to_string(), e.errno == Errno::ETXTBSY);
                } else if let Some(at) = now.checked_add(work.pause) {
                    work.phase = Phase::Waiting { at };
                    work.pause *= 2;
                }
            }
            Err(StartError::Spawn(e)) => self.fail(Cause::SpawnFailed, e.to_string()),
            Err(StartError::Environment(why)) => self.fail(Cause::SpawnFailed, why),
            Err(StartError::Arguments(faults)) => self.fail(Cause::Rejected, faults.join("; ")),
        }
    }

    /// The launcher answered: an attempt can begin, or is counted.
    pub(super) fn hear_launcher(&mut self, now: Instant) {
        while let Some((number, told)) = self.leaves.as_mut().and_then(Leaves::hear) {
            let Some(work) = &mut self.work else { continue };
            match (&work.leaf, told) {
                (Leaf::Asked(asked), Told::Leaf(procs)) if *asked == number => {
                    work.leaf = Leaf::Made(procs);
                    self.begin(now);
                }
                (Leaf::Asked(asked), Told::Refused(why)) if *asked == number => {
                    self.fail(Cause::SpawnFailed, why);
                }
                (Leaf::Leaving { asked, .. }, told) if *asked == number => {
                    work.leaf = Leaf::None;
                    match (told, &mut work.phase) {
                        (Told::Done(usage), Phase::Running(attempt)) => attempt.counted(usage),
                        (Told::Refused(why), _) => self.printing.note(&format!("{}: {why}", self.name)),
                        _ => {}
                    }
                }
                // The answer for a run that was canceled or given back meanwhile.
                _ => {}
            }
        }
    }

    /// The main process ended: the launcher is to kill what is left in its control group, and to count.
    pub(super) fn leave(&mut self, now: Instant) {
        let Some(Work { leaf, phase: Phase::Running(attempt), .. }) = &mut self.work else { return };
        match leaf {
            Leaf::Used if attempt.ended_at().is_some() => {
                let asked = self.leaves.as_mut().and_then(|l| l.ask(&RunnerAsk::Done).ok());
                *leaf = asked.map_or(Leaf::None, |asked| Leaf::Leaving { asked, until: now + PATIENCE });
            }
            Leaf::Leaving { until, .. } if *until <= now => {
                *leaf = Leaf::None;
                let seconds = PATIENCE.as_secs();
                self.printing.note(&format!("{}: the launcher did not count within {seconds} s", self.name));
            }
            _ => {}
        }
    }

    /// A run ends that never began: its control group, made or asked for, is not needed.
    fn give_up_leaf(&mut self, work: &Work) {
        if let (Some(leaves), Leaf::Made(_) | Leaf::Asked(_)) = (&mut self.leaves, &work.leaf) {
            // Its answer is one that nobody waits for; unsaid, the leaf is removed before the next attempt.
            let _ = leaves.ask(&RunnerAsk::Done);
        }
    }

    /// The run goes back: not its fault, and (but for a `busy` program, one that is being written) not this
    /// runner's.
    fn no_room(&mut self, why: String, busy: bool) {
        let Some(work) = self.work.take() else { return };
        (self.title)(&self.name);
        self.give_up_leaf(&work);
        let run = work.run.run;
        if busy {
            return self.tell(&FromChild::Refused { run, why });
        }
        let mut outcome = Outcome::of_cause(Cause::SpawnFailed, why);
        if let Some(failure) = &mut outcome.failure {
            SPAWN_AGAIN.clone_into(&mut failure.kind);
        }
        self.report(run, outcome);
    }

    fn cancel(&mut self, run: &str, reason: CancelReason, now: Instant) {
        let Some(work) = self.work.as_mut().filter(|w| w.run.run == run) else { return };
        match &mut work.phase {
            Phase::Running(attempt) => attempt.cancel(reason, now),
            Phase::Waiting { .. } => {
                let cause = match reason {
                    CancelReason::Revoked => Cause::Revoked,
                    CancelReason::Interrupted => Cause::Interrupted,
                    CancelReason::TimeLimit => Cause::TimeLimit { soft: false },
                };
                self.fail(cause, "ended before its program could be started".to_owned());
            }
        }
    }

    /// The run ends without a program.
    fn fail(&mut self, cause: Cause, message: String) {
        if let Some(work) = self.work.take() {
            (self.title)(&self.name);
            self.give_up_leaf(&work);
            self.report(work.run.run, Outcome::of_cause(cause, message));
        }
    }

    /// The attempt is over and its output is read: it becomes an outcome.
    pub(super) fn conclude(&mut self, now: Instant) {
        let Some(Work { run, phase: Phase::Running(attempt), .. }) = self.work.take() else { return };
        // A process that does not die would be the next attempt's too: this runner takes no more.
        self.finishing |= attempt.is_stuck();
        let printed = self.printing.take(&mut self.outbound, now);
        // What it printed goes before its outcome as far as the socket takes it, behind it otherwise.
        self.say();
        self.report(run.run, attempt.outcome(printed));
        (self.title)(&self.name);
    }

    fn report(&mut self, run: String, outcome: Outcome) {
        let line = verdict::line(&run, outcome);
        self.end_hush();
        self.outbound.urgent(line.clone());
        self.unsettled.push_back((run, line));
    }
}
