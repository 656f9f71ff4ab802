//! Tickets of submitted operations, and patience with a store that fails them.

use std::collections::BTreeMap;

use super::Engine;
use super::command::{Command, Note};
use super::event::AskKey;
use crate::model::message::Token;
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::time::Mono;

/// Whose operation it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Lease {
        queue: String,
        credit: u32,
    },
    Start(Token),
    Close(Token),
    Ask(AskKey),
    Sweep,
    Known,
    Recover,
    /// Which leases are still this node's.
    Extend,
    /// A planned time of this schedule.
    Tick(String),
    Schedules,
    Schedule,
    Reopen(Option<String>),
    Rates,
    TellRecall,
    TellRemember,
    Alarm(String),
}

/// What is under way at the store.
#[derive(Debug, Default)]
pub(super) struct Store {
    last: u64,
    pub(super) pending: BTreeMap<Ticket, Pending>,
    /// What the store last failed with, until it does something right.
    pub(super) fault: Option<String>,
    /// The ticket of what is being completed.
    pub(super) completing: u64,
    /// When it last failed.
    pub(super) failed_at: Option<Mono>,
    /// Operations up to this ticket were under way when it failed: their success says nothing.
    fault_until: u64,
    /// The leases as the store sees them must be looked at: at a start, and where a lease failed (it may
    /// have taken place).
    pub(super) recover: Job,
    /// Messages of tasks that became known must be brought back.
    pub(super) known: Job,
    /// Others may have taken over leases of this node.
    pub(super) extend: Job,
}

impl Store {
    pub(super) fn leasing(&self) -> bool {
        self.pending.values().any(|p| matches!(p, Pending::Lease { .. }))
    }
}

/// One operation of the engine's own that must be done, however often the store fails it.
#[derive(Debug, Default)]
pub(super) struct Job {
    wanted: bool,
    under_way: bool,
    tries: u32,
    at: Mono,
}

impl Job {
    /// It is to be done (again).
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// It is to be done after a pause: the store just failed something.
    pub(super) fn want_later(&mut self, now: Mono) {
        self.wanted = true;
        self.at = self.at.max(now.plus(backoff(self.tries)));
    }

    /// What it waits for is over: it is not left alone any longer.
    pub(super) fn hurry(&mut self) {
        self.tries = 0;
        self.at = Mono(0);
    }

    /// Whether it is to be submitted now.
    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.wanted && !self.under_way && self.at <= now
    }

    /// It was submitted.
    pub(super) fn submitted(&mut self) {
        self.wanted = false;
        self.under_way = true;
    }

    /// It was answered; `fault` wants it again, later.
    pub(super) fn answered(&mut self, now: Mono, fault: bool) {
        self.under_way = false;
        if fault {
            self.wanted = true;
            self.at = now.plus(backoff(self.tries));
            self.tries = self.tries.saturating_add(1);
        } else {
            self.tries = 0;
            self.at = Mono(0);
        }
    }

    /// Whether it is wanted or under way.
    pub(super) fn is_open(&self) -> bool {
        self.wanted || self.under_way
    }

    /// When it is to be submitted.
    pub(super) fn deadline(&self) -> Option<Mono> {
        (self.wanted && !self.under_way).then_some(self.at)
    }
}

/// How long to leave a failing store alone, in milliseconds: 100 ms to 3.2 s.
pub(super) fn backoff(tries: u32) -> u64 {
    100 << tries.min(5)
}

/// How long to leave a refused settle alone, in milliseconds: 100 ms to 30 s. Nothing but a person, or a
/// newer taskd, can mend what is refused again and again.
pub(super) fn refused_backoff(tries: u32) -> u64 {
    (100 << tries.min(9)).min(30_000)
}

impl Engine {
    /// Submits an operation.
    pub(super) fn submit(&mut self, pending: Pending, op: Op, out: &mut Vec<Command>) {
        self.store.last += 1;
        let ticket = Ticket(self.store.last);
        self.store.pending.insert(ticket, pending);
        out.push(Command::Broker(ticket, op));
    }

    /// The store says that it is there again: nothing that failed waits until its pause is over.
    pub(super) fn store_is_back(&mut self) {
        if self.store.fault.is_none() {
            return;
        }
        let now = self.now.mono;
        let jobs = [&mut self.store.recover, &mut self.store.known, &mut self.store.extend];
        jobs.into_iter().for_each(Job::hurry);
        self.sweep.job.hurry();
        self.hurry_refused();
        self.hurry_starts();
        self.asks.values_mut().for_each(|asking| asking.at = asking.at.min(now));
    }

    /// Routes a completion to who waits for it.
    pub(super) fn completed(&mut self, ticket: Ticket, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        let Some(pending) = self.store.pending.remove(&ticket) else { return };
        self.store.completing = ticket.0;
        self.note_health(ticket, &result, out);
        let result = match result {
            Ok(Reply::With(reply, fallout)) => {
                self.fell_out(*fallout, out);
                Ok(*reply)
            }
            other => other,
        };
        match pending {
            Pending::Lease { queue, credit } => self.leased(&queue, credit, result, out),
            Pending::Start(token) => self.start_answered(token, result, out),
            Pending::Close(token) => self.close_answered(token, result, out),
            Pending::Ask(key) => self.ask_answered(key, result, out),
            Pending::Sweep => self.swept(result, out),
            Pending::Known => self.known_answered(result),
            Pending::Recover => self.recovered(result, out),
            Pending::Extend => self.extended(result, out),
            Pending::Tick(name) => self.ticked(&name, result, out),
            Pending::Schedules => self.schedules_recalled(result, out),
            Pending::Schedule => self.schedules_changed(&result),
            Pending::Reopen(task) => self.reopened(task, result),
            Pending::Rates => self.rates_recalled(result),
            Pending::TellRecall => self.tell_recalled(result, out),
            Pending::TellRemember => self.tell_remembered(&result),
            Pending::Alarm(task) => self.alarm_answered(&task, &result, out),
        }
    }

    /// Says once that the store fails, and once that it does not any more.
    fn note_health(&mut self, ticket: Ticket, result: &Result<Reply, Fault>, out: &mut Vec<Command>) {
        match result {
            Err(Fault::Again(why) | Fault::Reconnect(why)) => {
                if self.store.fault.is_none() {
                    out.push(Command::Note(Note::Store(Some(why.clone()))));
                }
                self.store.fault = Some(why.clone());
                self.store.fault_until = self.store.last;
                self.store.failed_at = Some(self.now.mono);
                // A failed operation may have taken place: time and queues are looked at anew. This is
                // also the probe that finds a mended store when nothing else has to be done.
                self.sweep.job.want();
                self.raise_all();
                self.doubt_schedules();
            }
            Err(Fault::Poison(why)) => out.push(Command::Note(Note::Store(Some(why.clone())))),
            Err(Fault::Refused(_)) => {}
            Ok(_) => {
                if ticket.0 <= self.store.fault_until {
                    return;
                }
                if self.store.fault.take().is_some() {
                    out.push(Command::Note(Note::Store(None)));
                    self.raise_all();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_job_is_done_again_later_and_later() {
        let mut job = Job::default();
        job.want();
        let mut now = Mono(1_000);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(job.is_due(now));
            job.submitted();
            assert!(!job.is_due(now), "it is never under way twice");
            job.answered(now, true);
            let at = job.deadline().unwrap();
            waits.push(at.since(now));
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 3_200, 3_200]);
        job.submitted();
        job.answered(now, false);
        assert!(!job.is_open());
    }

    #[test]
    fn a_hurried_job_is_due_at_once_and_as_patient_as_at_first() {
        let mut job = Job::default();
        job.want();
        for _ in 0..5 {
            job.submitted();
            job.answered(Mono(1_000), true);
        }
        assert!(!job.is_due(Mono(1_500)));
        job.hurry();
        assert!(job.is_due(Mono(1_500)));
        job.submitted();
        job.answered(Mono(2_000), true);
        assert_eq!(job.deadline(), Some(Mono(2_100)));
    }

    #[test]
    fn wanting_a_job_while_it_is_under_way_does_it_once_more() {
        let mut job = Job::default();
        job.want();
        job.submitted();
        job.want();
        job.answered(Mono(5), false);
        assert!(job.is_due(Mono(5)));
    }
}
