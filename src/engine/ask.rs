//! What clients ask: each is answered exactly once, also while the store fails.

use super::Engine;
use super::command::{Command, Note, Told};
use super::event::{Ask, AskKey};
use super::held::Stage;
use super::letters::Lettering;
use super::rate::{Limited, NewRate, rate_memo};
use super::store::{Pending, backoff};
use super::workflow::{LOOK_AGAIN_MS, Walk};
use crate::model::message::{Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Reply};
use crate::model::schedule::Change;
use crate::model::state::State;
use crate::model::time::{Mono, Wall};
use crate::model::workflow::Workflow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So long an ask is tried again while the store fails it, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// A client that waits.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) work: Work,
    pub(super) until: Mono,
    pub(super) tries: u32,
    pub(super) at: Mono,
    under_way: bool,
}

/// What is to be done next for a client.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Publish {
        messages: Vec<Message>,
        max_length: Vec<Option<u64>>,
        now: Wall,
    },
    Launch {
        workflow: Box<Workflow>,
        max_length: BTreeMap<String, u64>,
        now: Wall,
    },
    Walk(Walk),
    /// Find out where the message is and end it there.
    Cancel(MessageId),
    /// End it in the store.
    Revoke {
        id: MessageId,
        now: Wall,
    },
    /// Its attempt was told to end; look it up for the answer.
    Canceled(MessageId),
    /// It is being settled; then [`Work::Cancel`] again.
    AwaitClose(MessageId),
    Retry(MessageId),
    Requeue {
        id: MessageId,
        now: Wall,
    },
    /// Something is done with dead letters, step by step.
    Letters(Box<Lettering>),
    Why(MessageId),
    WhyCount(Box<Record>),
    Pause {
        queue: String,
        paused: bool,
    },
    Purge {
        queue: String,
        now: Wall,
        here: u64,
    },
    Schedule(Change),
    Rate {
        whose: Limited,
        rate: NewRate,
        keep: bool,
    },
}

impl Work {
    fn op(&self) -> Option<Op> {
        Some(match self.clone() {
            Self::Publish { messages, max_length, now } => Op::Publish { messages, max_length, now },
            Self::Launch { workflow, max_length, now } => Op::Launch { workflow, max_length, now },
            Self::Walk(walk) => walk.op(),
            Self::Revoke { id, now } => Op::Revoke { id, now },
            Self::Canceled(id) | Self::Retry(id) | Self::Why(id) => Op::Get { id },
            Self::Requeue { id, now } => Op::Requeue { id, now },
            Self::Letters(lettering) => lettering.op(),
            Self::WhyCount(_) => Op::Count,
            Self::Pause { queue, paused } => Op::QueueState { queue, paused },
            Self::Purge { queue, now, .. } => Op::Purge { queue, now },
            Self::Schedule(change) => Op::Schedule(vec![change]),
            Self::Rate { whose, rate, .. } => Op::Remember(vec![rate_memo(&whose, rate)]),
            Self::Cancel(_) | Self::AwaitClose(_) => return None,
        })
    }
}

impl Engine {
    pub(super) fn ask(&mut self, key: AskKey, ask: Ask, out: &mut Vec<Command>) {
        if self.stop.as_ref().is_some_and(|s| s.finished) {
            out.push(Command::Answer { key, answer: Told::Stopping });
            return;
        }
        let now = self.now.wall;
        let work = match ask {
            Ask::Enqueue(messages) => match self.publication(messages) {
                Ok(work) => work,
                Err(answer) => {
                    out.push(Command::Answer { key, answer });
                    return;
                }
            },
            Ask::Launch(workflow) => match self.launching(workflow) {
                Ok(work) => work,
                Err(answer) => {
                    out.push(Command::Answer { key, answer });
                    return;
                }
            },
            Ask::CancelWorkflow(id) => Work::Walk(Walk::new(id, false, now)),
            Ask::RetryWorkflow(id) => Work::Walk(Walk::new(id, true, now)),
            Ask::Cancel(id) => Work::Cancel(id),
            Ask::Retry(id) => Work::Retry(id),
            Ask::Letters(order) => Work::Letters(Box::new(Lettering::new(*order, now))),
            Ask::Why(id) => Work::Why(id),
            Ask::Pause { queue, paused } => {
                // Held back from now on; told when the store has it.
                self.set_paused(&queue, paused, out);
                Work::Pause { queue, paused }
            }
            Ask::Purge { queue } => {
                let here = self.purge_window(&queue, out);
                Work::Purge { queue, now, here }
            }
            Ask::Schedule(change) => Work::Schedule(change),
            Ask::Rate { whose, rate, keep } => {
                if self.rate(&whose).is_none() || !self.is_rate_stored(&whose, rate, keep) {
                    self.set_rate(&whose, rate, keep, out);
                    let answer = Told::Rate(self.rate(&whose));
                    out.push(Command::Answer { key, answer });
                    return;
                }
                Work::Rate { whose, rate, keep }
            }
            Ask::TimeLimit { task, hard_ms, soft_ms } => {
                // What runs keeps the plan that it started with.
                if let Some(task) = Arc::make_mut(&mut self.plan).tasks.get_mut(&task) {
                    (task.time_limit_ms, task.soft_time_limit_ms) = (hard_ms, soft_ms);
                }
                out.push(Command::Answer { key, answer: Told::Done });
                return;
            }
            Ask::Drain { on } => {
                self.draining = on;
                if on {
                    self.give_back_all(out);
                } else {
                    self.raise_all();
                }
                out.push(Command::Answer { key, answer: Told::Done });
                return;
            }
        };
        self.begin_ask(key, work, out);
    }

    /// Begins to work for a client, or for a schedule.
    pub(super) fn begin_ask(&mut self, key: AskKey, work: Work, out: &mut Vec<Command>) {
        let mono = self.now.mono;
        let until = mono.plus(PATIENCE_MS);
        self.asks.insert(key, Asking { work, until, tries: 0, at: mono, under_way: false });
        self.perform(key, out);
    }

    /// Does the next thing for a client.
    fn perform(&mut self, key: AskKey, out: &mut Vec<Command>) {
        let Some(asking) = self.asks.get_mut(&key) else { return };
        if let Work::Cancel(id) = &asking.work {
            let id = id.clone();
            self.cancel(key, &id, out);
        }
        // What ends just now must be over before it can begin anew.
        if let Some(Work::Walk(walk)) = self.asks.get(&key).map(|a| &a.work)
            && (walk.retry && walk.from == 0 && self.is_settling(&walk.id) || !self.is_live())
        {
            return self.again_after(key, LOOK_AGAIN_MS);
        }
        let Some(asking) = self.asks.get_mut(&key) else { return };
        if let Some(op) = asking.work.op() {
            asking.under_way = true;
            self.submit(Pending::Ask(key), op, out);
        }
    }

    /// Goes on with other work for the same client.
    pub(super) fn go_on(&mut self, key: AskKey, work: Work, out: &mut Vec<Command>) {
        self.turn_to(key, work);
        self.perform(key, out);
    }

    /// Sets what is next for a client.
    pub(super) fn turn_to(&mut self, key: AskKey, work: Work) {
        let now = self.now.mono;
        if let Some(asking) = self.asks.get_mut(&key) {
            asking.work = work;
            asking.at = now;
        }
    }

    /// Does what is next for a client after this many milliseconds.
    pub(super) fn again_after(&mut self, key: AskKey, ms: u64) {
        let at = self.now.mono.plus(ms);
        if let Some(asking) = self.asks.get_mut(&key) {
            asking.at = at;
        }
    }

    pub(super) fn answer(&mut self, key: AskKey, answer: Told, out: &mut Vec<Command>) {
        if self.asks.remove(&key).is_some() && !self.replacement_answered(key, &answer) {
            out.push(Command::Answer { key, answer });
        }
    }

    pub(super) fn ask_answered(&mut self, key: AskKey, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let Some(asking) = self.asks.get_mut(&key) else { return };
        asking.under_way = false;
        let reply = match result {
            Ok(reply) => reply,
            Err(fault) => {
                asking.at = now.plus(backoff(asking.tries));
                asking.tries = asking.tries.saturating_add(1);
                let again = matches!(fault, Fault::Again(_) | Fault::Reconnect(_));
                if !again || asking.at > asking.until {
                    self.give_up(key, fault, out);
                }
                return;
            }
        };
        match (asking.work.clone(), reply) {
            (work, reply @ (Reply::Taken { .. } | Reply::InHand { .. })) => {
                self.key_is_held(key, work, reply, out);
            }
            (Work::Letters(lettering), Reply::Letters(tally)) => self.lettered(key, lettering, *tally, out),
            (Work::Publish { messages, .. }, reply) => self.published(key, messages, reply, out),
            (Work::Launch { workflow, now, .. }, reply) => self.launched(key, (&workflow, now), reply, out),
            (Work::Walk(walk), Reply::Flowed(done)) => self.walked(key, walk, done, out),
            (Work::Revoke { id, now }, Reply::Record(record)) => self.revoked(key, id, now, record, out),
            (Work::Canceled(_), Reply::Record(record)) => {
                let too_late =
                    record.as_ref().is_some_and(|r| r.state.is_final() && r.state != State::Revoked);
                self.answer(key, Told::Canceled { record, ending: true, too_late }, out);
            }
            (Work::Retry(id), Reply::Record(record)) => match record {
                Some(r) if r.state.is_final() && !self.by_id.contains_key(&id) => {
                    self.go_on(key, Work::Requeue { id, now: self.now.wall }, out);
                }
                record => {
                    let not_final = record.is_some();
                    self.answer(key, Told::Retried { record, not_final }, out);
                }
            },
            (Work::Requeue { .. }, Reply::Record(record)) => {
                if let Some(r) = &record {
                    // A new life runs at once, whatever `eta` the old one had.
                    self.note_times(&r.message.queue, r.due, r.message.expires);
                }
                self.answer(key, Told::Retried { record, not_final: false }, out);
            }
            (Work::Why(_), Reply::Record(None)) => self.answer(key, Told::Why(None), out),
            (Work::Why(_), Reply::Record(Some(record))) => match self.why(&record) {
                Some(sentence) => {
                    let sentence = super::unique::told_of(&record, sentence);
                    self.answer(key, Told::Why(Some((record.state, sentence))), out);
                }
                None => self.go_on(key, Work::WhyCount(record), out),
            },
            (Work::WhyCount(record), Reply::Counts(counts)) => {
                let sentence = super::unique::told_of(&record, self.why_waiting(&record, &counts));
                self.answer(key, Told::Why(Some((record.state, sentence))), out);
            }
            (Work::Pause { queue, paused }, Reply::Done) => {
                if !paused {
                    self.raise(&queue);
                }
                self.answer(key, Told::Done, out);
            }
            (Work::Purge { here, .. }, Reply::Purged(n)) => {
                self.sweep.finished(now);
                self.doubt_schedules();
                self.answer(key, Told::Purged(n + here), out);
            }
            (Work::Schedule(change), Reply::Done) => {
                self.schedule_changed(&change, out);
                self.answer(key, Told::Done, out);
            }
            (Work::Rate { whose, rate, keep }, Reply::Done) => {
                self.set_rate(&whose, rate, keep, out);
                let answer = Told::Rate(self.rate(&whose));
                self.answer(key, answer, out);
            }
            (_, reply) => {
                let fault = Fault::Refused(format!("the store answered something else: {reply:?}"));
                self.give_up(key, fault, out);
            }
        }
    }

    fn give_up(&mut self, key: AskKey, fault: Fault, out: &mut Vec<Command>) {
        if let Some(Work::Pause { queue, .. }) = self.asks.get(&key).map(|a| a.work.clone()) {
            // Whether it is paused is the store's to say: a lease of a paused queue brings nothing.
            self.set_paused(&queue, false, out);
            self.raise(&queue);
        }
        self.answer(key, Told::Fault(fault), out);
    }

    /// Something new may wait in this queue, now or later.
    pub(super) fn note_times(&mut self, queue: &str, eta: Option<Wall>, expires: Option<Wall>) {
        match eta {
            Some(eta) if eta > self.now.wall => self.sweep.note(eta),
            _ => self.raise(queue),
        }
        if let Some(expires) = expires {
            self.sweep.note(expires);
        }
    }

    fn set_paused(&mut self, queue: &str, paused: bool, out: &mut Vec<Command>) {
        if self.plan.queues.contains_key(queue) {
            self.queues.entry(queue.to_owned()).or_default().paused = paused;
        }
        if paused {
            self.give_back(queue, out);
        }
    }

    /// Ends what this node took of the queue and did not start; how many.
    fn purge_window(&mut self, queue: &str, out: &mut Vec<Command>) -> u64 {
        let Some(q) = self.queues.get_mut(queue) else { return 0 };
        q.purged = q.leasing;
        let tokens: Vec<Token> = q.window.drain(..).collect();
        for token in &tokens {
            self.revoke_waiting(*token, out);
        }
        tokens.len() as u64
    }

    pub(super) fn pump_asks(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let due = |a: &Asking| !a.under_way && a.wakes_at() <= now;
        let due: Vec<AskKey> = self.asks.iter().filter(|(_, a)| due(a)).map(|(k, _)| *k).collect();
        for key in due {
            let late = self.asks.get(&key).is_some_and(|a| a.until <= now && a.is_parked());
            if late {
                let why = self.store.fault.clone().unwrap_or_else(|| "the message is being moved".to_owned());
                self.give_up(key, Fault::Again(why), out);
            } else {
                self.perform(key, out);
            }
        }
    }

    pub(super) fn asks_deadline(&self) -> Option<Mono> {
        self.asks.values().filter(|a| !a.under_way).map(Asking::wakes_at).min()
    }

    /// A message was canceled that is held nowhere else.
    pub(super) fn note_dropped(&mut self, id: &MessageId, state: State, out: &mut Vec<Command>) {
        self.sweep.finished(self.now.mono);
        out.push(Command::Note(Note::Dropped { id: id.clone(), state }));
    }

    /// The stage of the newest lease of a message.
    pub(super) fn stage_of(&mut self, id: &MessageId) -> Option<(Token, &mut Stage)> {
        let token = *self.by_id.get(id)?;
        self.held.get_mut(&token).map(|h| (token, &mut h.stage))
    }
}

impl Asking {
    fn is_parked(&self) -> bool {
        matches!(self.work, Work::Cancel(_) | Work::AwaitClose(_) | Work::Walk(_))
    }

    fn wakes_at(&self) -> Mono {
        if let Work::AwaitClose(_) = self.work { self.until } else { self.at }
    }
}
