//! The end: nothing new, patience, no patience, done.

use super::Engine;
use super::command::Command;
use super::event::ChildKey;
use super::held::{Held, Killed, Stage};
use crate::model::outcome::CancelReason;
use crate::model::time::Mono;

/// From the order to end until the children are killed, in milliseconds.
const KILL_AFTER_MS: u64 = 10_000;

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Stop {
    cancel_at: Mono,
    kill_at: Mono,
    canceled: bool,
    killed: bool,
    /// [`Command::Finished`] was said.
    pub(super) finished: bool,
}

impl Engine {
    /// Begins a shutdown, or makes a warm one impatient.
    pub(super) fn stop(&mut self, now: bool, out: &mut Vec<Command>) {
        let at = self.now.mono;
        let grace = if now { 0 } else { self.plan.shutdown_grace_ms };
        match &mut self.stop {
            None => {
                let cancel_at = at.plus(grace);
                let kill_at = cancel_at.plus(KILL_AFTER_MS);
                self.stop =
                    Some(Stop { cancel_at, kill_at, canceled: false, killed: false, finished: false });
                self.give_back_all(out);
                self.hurry_refused();
            }
            Some(stop) if now && !stop.canceled => {
                stop.cancel_at = at;
                stop.kill_at = at.plus(KILL_AFTER_MS);
            }
            Some(_) => {}
        }
    }

    pub(super) fn pump_shutdown(&mut self, out: &mut Vec<Command>) {
        if !self.is_live() {
            return;
        }
        let now = self.now.mono;
        let Some(stop) = &mut self.stop else { return };
        if !stop.canceled && stop.cancel_at <= now {
            stop.canceled = true;
            let mut tell = Vec::new();
            for (token, held) in &mut self.held {
                let Stage::Running(run) = &mut held.stage else { continue };
                if !std::mem::replace(&mut run.interrupted, true) && !run.revoked {
                    tell.push(*token);
                }
            }
            for token in tell {
                self.tell_cancel(token, CancelReason::Interrupted, out);
            }
        }
        let Some(stop) = &mut self.stop else { return };
        if stop.canceled && !stop.killed && stop.kill_at <= now {
            stop.killed = true;
            let busy: Vec<ChildKey> =
                self.children.iter().filter(|(_, c)| !c.is_idle() || c.unnamed).map(|(k, _)| *k).collect();
            for child in busy {
                self.kill(child, Killed::Shutdown, "it did not end its run for the shutdown", out);
            }
        }
    }

    pub(super) fn pump_finish(&mut self, out: &mut Vec<Command>) {
        let done = self.is_live()
            && self.held.values().all(Held::is_given_up)
            && self.asks.is_empty()
            && !self.store.leasing()
            && !self.store.recover.is_open();
        if let Some(stop) = &mut self.stop
            && done
            && !stop.finished
        {
            stop.finished = true;
            out.push(Command::Finished);
        }
    }

    pub(super) fn shutdown_deadline(&self) -> Option<Mono> {
        let stop = self.stop.as_ref().filter(|_| self.is_live())?;
        if !stop.canceled {
            return Some(stop.cancel_at);
        }
        (!stop.killed).then_some(stop.kill_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::event::Event;
    use crate::model::op::Op;
    use crate::model::outcome::{Cause, Outcome};
    use crate::model::state::State;

    fn has(log: &[Command], what: &Command) -> bool {
        log.contains(what)
    }

    /// Whether what was given back counts as an attempt.
    fn counted(log: &[Command]) -> Vec<bool> {
        let of = |c: &Command| match c {
            Command::Broker(_, Op::Defer { counted, lost: false, .. }) => Some(*counted),
            _ => None,
        };
        log.iter().filter_map(of).collect()
    }

    #[test]
    fn what_never_started_goes_back_uncounted() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        for id in ["a", "b"] {
            bed.enqueue(id);
        }
        let run = bed.running().pop().unwrap();
        bed.take();
        bed.step(Event::Stop { now: true });
        assert_eq!(counted(&bed.take()), [false], "b");
        bed.end(&run, Outcome::of_cause(Cause::Interrupted, "before its program could be started"));
        assert_eq!(counted(&bed.take()), [false], "a");
    }

    #[test]
    fn a_warm_stop_waits_then_interrupts_and_finishes_once() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        for id in ["a", "b"] {
            bed.enqueue(id);
        }
        let run = bed.running().pop().unwrap();
        bed.take();
        bed.step(Event::Stop { now: false });
        assert_eq!(bed.state("b"), State::Waiting);
        assert!(!has(&bed.log(), &Command::Finished));
        bed.pass(30_000);
        assert!(
            bed.take().iter().any(|c| matches!(c, Command::Cancel { reason: CancelReason::Interrupted, .. }))
        );
        let started = Some(bed.wall());
        bed.end(&run, Outcome { started, ..Outcome::of_cause(Cause::Interrupted, "told to") });
        assert_eq!(counted(&bed.log()), [true], "b was given back before");
        assert!(has(&bed.take(), &Command::Finished));
        assert_eq!(bed.state("a"), State::Waiting);
        bed.step(Event::Stop { now: true });
        assert!(!has(&bed.take(), &Command::Finished));
    }

    fn with_result() -> Outcome {
        let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
        (outcome.success, outcome.failure, outcome.result) = (true, None, Some("long".into()));
        outcome
    }

    fn settled(log: &[Command]) -> bool {
        log.iter().any(|c| matches!(c, Command::Settled { .. }))
    }

    #[test]
    fn what_the_store_refuses_for_ever_does_not_hold_a_stop_up() {
        let mut bed = Bed::live();
        bed.enqueue("a");
        let run = bed.running().pop().unwrap();
        bed.refuse_ends(u32::MAX);
        bed.end(&run, with_result());
        bed.pass(300_000);
        bed.take();
        bed.step(Event::Stop { now: false });
        let log = bed.take();
        assert!(has(&log, &Command::Finished), "its result was dropped before: nothing is left to try");
        assert!(!settled(&log), "the child must not forget it");
        assert_eq!(bed.state("a"), State::Running, "the next start finds it");
        bed.pass(300_000);
        assert!(!bed.take().iter().any(|c| matches!(c, Command::Broker(_, Op::Settle(_)))), "given up");
    }

    #[test]
    fn an_end_is_tried_without_its_result_before_a_stop_gives_it_up() {
        let mut bed = Bed::live();
        bed.enqueue("a");
        let run = bed.running().pop().unwrap();
        bed.step(Event::Stop { now: false });
        bed.refuse_ends(1);
        bed.end(&run, with_result());
        assert!(!has(&bed.log(), &Command::Finished));
        bed.pass(100);
        let log = bed.take();
        assert!(has(&log, &Command::Finished) && settled(&log));
        assert_eq!(bed.state("a"), State::Success);
    }

    #[test]
    fn a_child_that_does_not_end_is_killed_and_its_message_goes_back() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        bed.enqueue("a");
        bed.step(Event::Stop { now: true });
        bed.pass(10_000);
        assert!(bed.take().iter().any(|c| matches!(c, Command::End { kill: true, .. })));
        bed.kill_children();
        assert_eq!(counted(&bed.log()), [true], "it may have run");
        assert!(has(&bed.take(), &Command::Finished));
        assert_eq!((bed.state("a"), bed.losses("a")), (State::Waiting, 0));
    }
}
