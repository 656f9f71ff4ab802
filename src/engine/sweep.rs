//! What time brings: due and expired messages, retention. Never polls: it wakes at the next known time.

use super::Engine;
use super::command::{Command, Note};
use super::store::{Job, Pending};
use crate::model::op::{Fault, Op, Reply};
use crate::model::state::State;
use crate::model::time::{Mono, Wall};

/// How long after a message finished retention is looked after, in milliseconds.
const RETENTION_EVERY_MS: u64 = 600_000;

/// How often a store that nodes share is looked at for what others left: messages that are due, nodes that are
/// gone, in milliseconds.
const LOOK_MS: u64 = 2_000;

/// Every so many looks all queues are asked, in case that a word of them got lost.
const LOOKS: u32 = 5;

/// When to sweep.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) job: Job,
    /// The earliest due or expiry time known, on the wall clock.
    next: Option<Wall>,
    /// When retention is looked after; none while nothing finished since.
    retention_at: Option<Mono>,
    /// Looks at a store that is shared.
    looks: u32,
}

impl Sweep {
    /// Something is due or expires then.
    pub(super) fn note(&mut self, at: Wall) {
        self.next = Some(self.next.map_or(at, |n| n.min(at)));
    }

    /// A message reached a final state.
    pub(super) fn finished(&mut self, now: Mono) {
        self.retention_at.get_or_insert(now.plus(RETENTION_EVERY_MS));
    }

    fn is_due(&self, wall: Wall, mono: Mono) -> bool {
        self.next.is_some_and(|n| n <= wall) || self.retention_at.is_some_and(|at| at <= mono)
    }
}

impl Engine {
    fn may_sweep(&self) -> bool {
        self.is_live() && self.stop.is_none()
    }

    pub(super) fn pump_sweep(&mut self, out: &mut Vec<Command>) {
        if !self.may_sweep() {
            return;
        }
        if self.store.known.is_due(self.now.mono) {
            self.store.known.submitted();
            let tasks = self.plan.tasks.keys().cloned().collect();
            self.submit(Pending::Known, Op::Known { tasks, now: self.now.wall }, out);
        }
        if !self.sweep.job.is_open() && self.sweep.is_due(self.now.wall, self.now.mono) {
            self.sweep.job.want();
        }
        if self.sweep.job.is_due(self.now.mono) {
            self.sweep.job.submitted();
            // What becomes known from now on is not in the answer, unless it is noted again.
            self.sweep.next = None;
            self.sweep.retention_at = None;
            let op = Op::Sweep { now: self.now.wall, retention: self.plan.retention };
            self.submit(Pending::Sweep, op, out);
        }
    }

    pub(super) fn swept(&mut self, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        self.sweep.job.answered(self.now.mono, result.is_err());
        self.look_again();
        let Ok(Reply::Swept { queues, expired, next, more }) = result else { return };
        for queue in queues {
            self.raise(&queue);
        }
        if !expired.is_empty() {
            self.doubt_schedules();
        }
        for id in expired {
            self.sweep.finished(self.now.mono);
            out.push(Command::Note(Note::Dropped { id, state: State::Expired }));
        }
        if let Some(next) = next {
            self.sweep.note(next);
        }
        if more {
            self.sweep.job.want();
        }
    }

    /// A store that others write to is looked at again soon.
    fn look_again(&mut self) {
        if self.plan.shared {
            self.sweep.retention_at = Some(self.now.mono.plus(LOOK_MS));
            self.sweep.looks = self.sweep.looks.wrapping_add(1);
            if self.sweep.looks.is_multiple_of(LOOKS) {
                self.raise_all();
            }
        }
    }

    pub(super) fn known_answered(&mut self, result: Result<Reply, Fault>) {
        self.store.known.answered(self.now.mono, result.is_err());
        let Ok(Reply::Swept { queues, next, more, .. }) = result else { return };
        for queue in queues {
            self.raise(&queue);
        }
        if let Some(next) = next {
            self.sweep.note(next);
        }
        if more {
            self.store.known.want();
        }
    }

    pub(super) fn sweep_deadline(&self) -> Option<Mono> {
        if !self.may_sweep() {
            return None;
        }
        let timed = if self.sweep.job.is_open() {
            self.sweep.job.deadline()
        } else {
            let wall = self.sweep.next.map(|n| self.now.mono.plus(n.since(self.now.wall)));
            wall.into_iter().chain(self.sweep.retention_at).min()
        };
        timed.into_iter().chain(self.store.known.deadline()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::event::Event;

    fn sweeps(commands: &[Command]) -> usize {
        commands.iter().filter(|c| matches!(c, Command::Broker(_, Op::Sweep { .. }))).count()
    }

    #[test]
    fn it_sweeps_when_the_next_message_is_due_and_not_before() {
        let mut bed = Bed::live();
        bed.enqueue_at("later", Some(bed.wall().plus(60_000)));
        let idle = bed.take();
        assert_eq!(sweeps(&idle), 0);
        assert_eq!(bed.engine.next_deadline(), Some(bed.mono().plus(60_000)));
        bed.pass(59_000);
        assert_eq!(sweeps(&bed.take()), 0);
        bed.pass(1_000);
        assert_eq!(sweeps(&bed.take()), 1);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_makes_it_due_at_the_next_step() {
        let mut bed = Bed::live();
        bed.enqueue_at("later", Some(bed.wall().plus(3_600_000)));
        bed.take();
        bed.jump(3_600_000);
        bed.step(Event::Tick);
        assert_eq!(sweeps(&bed.take()), 1);
    }

    #[test]
    fn an_idle_engine_has_no_deadline() {
        let mut bed = Bed::live();
        bed.take();
        assert_eq!(bed.engine.next_deadline(), None);
    }
}
