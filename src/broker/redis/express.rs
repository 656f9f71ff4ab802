//! The express way (`lua/express.lua`): a plain message of a Celery client that is handed out at once, starts and
//! succeeds never becomes a row. Whatever else is asked of it makes it one first.
//!
//! What is held on this way is bounded by what was leased.

use std::collections::BTreeMap;

use super::app;
use super::args::Args;
use super::celery::{Came, RESULT_SECONDS};
use super::dial::{Trouble, Which};
use super::message::{self, Row};
use super::reply::Reader;
use super::steps::fault;
use super::store::{Store, wall};
use crate::broker::{Completion, rules};
use crate::celery::call::Call;
use crate::model::message::{Delivery, Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Reply, Settle, Ticket};
use crate::model::state::State;
use crate::model::time::Wall;

/// Operations of one script of the express way at most: each costs far less than one on rows.
const EXPRESS_MOST: usize = 256;

/// What is held on the express way, by id.
#[derive(Default)]
pub(super) struct Express {
    held: BTreeMap<MessageId, Ride>,
    /// Deliveries of leases that are answered with what waits as a row, too.
    ahead: BTreeMap<Ticket, Vec<Delivery>>,
}

/// One message on the express way.
struct Ride {
    tag: String,
    token: Token,
    /// Its number in the order of acceptance.
    seq: i64,
    rank: i64,
    queue: String,
    task: String,
    /// What a row of it would have.
    fields: Vec<Vec<u8>>,
    call: Call,
    started: Option<Wall>,
}

/// What one round of the express way is asked for.
#[derive(Default)]
struct Round {
    ends: Vec<(Ticket, Box<Settle>)>,
    starts: Vec<(Ticket, Op)>,
    leases: Vec<(Ticket, Op)>,
}

/// Whether nothing but its result follows a call, and nothing is to be waited for.
pub(super) fn is_plain(call: &Call) -> bool {
    let none = |list: &Option<Vec<_>>| list.as_ref().is_none_or(Vec::is_empty);
    call.eta.is_none()
        && call.expires.is_none()
        && none(&call.callbacks)
        && none(&call.errbacks)
        && none(&call.chain)
        && call.chord.is_none()
        && call.replaced_task_nesting == 0
}

/// Whether an end leaves nothing but a record and a result.
fn is_simple(settle: &Settle) -> bool {
    settle.state == State::Success
        && settle.follow_ups.is_empty()
        && settle.memos.is_empty()
        && settle.takes.is_empty()
        && settle.call.is_none()
        && !settle.lost
        // A task that put another one in its own place tells nothing.
        && !app::is_ignored(&settle.outcome)
}

impl Ride {
    /// As it stands in `in:NODE`.
    fn whose(&self, id: &MessageId) -> String {
        format!("{}\0{id}\0{}\0", self.queue, self.token.0)
    }
}

impl Express {
    /// The ids of this operation that are on the express way.
    fn named<'a>(&self, op: &'a Op) -> Vec<&'a MessageId> {
        let id = match op {
            Op::Start { id, .. }
            | Op::Aside { id, .. }
            | Op::Defer { id, .. }
            | Op::Revoke { id, .. }
            | Op::Requeue { id, .. }
            | Op::Get { id }
            | Op::Move { id, .. } => id,
            Op::Settle(settle) => &settle.id,
            _ => return Vec::new(),
        };
        if self.held.contains_key(id) { vec![id] } else { Vec::new() }
    }

    fn has(&self, id: &MessageId, token: Token) -> bool {
        self.held.get(id).is_some_and(|ride| ride.token == token)
    }

    /// Others took over what was held, or it became rows.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// This one became a row.
    pub(super) fn forget_one(&mut self, id: &MessageId) {
        self.held.remove(id);
    }

    /// What was handed out for this lease beside what its answer has.
    pub(super) fn ahead(&mut self, ticket: Ticket, answer: Result<Reply, Fault>) -> Result<Reply, Fault> {
        let Some(mut first) = self.ahead.remove(&ticket) else { return answer };
        match answer {
            Ok(Reply::Leased { deliveries, opens }) => {
                first.extend(deliveries);
                Ok(Reply::Leased { deliveries: first, opens })
            }
            // What was handed out is held; the rest is asked for again.
            _ => Ok(Reply::Leased { deliveries: first, opens: None }),
        }
    }
}

impl Store {
    /// Whether an operation goes on the express way: what came when a script was full waits for the next one.
    pub(super) fn is_express(&self, ticket: Ticket, op: &Op) -> bool {
        let express = &self.express;
        match op {
            Op::Settle(settle) => express.has(&settle.id, settle.token) && is_simple(settle),
            Op::Start { id, token, takes, .. } => express.has(id, *token) && takes.list.is_empty(),
            Op::Lease { queue, .. } => {
                let own = self.peer().is_some_and(|peer| peer.queues.contains(queue));
                own && !self.progress.rests(queue) && !express.ahead.contains_key(&ticket)
            }
            _ => false,
        }
    }

    /// Does what waits and can be done on the express way, in one script; the rest stays.
    pub(super) fn express(&mut self) {
        if self.peer().is_none() {
            return;
        }
        let mut round = Round::default();
        let mut rest = Vec::new();
        for (ticket, op) in std::mem::take(&mut self.waiting) {
            let full = round.ends.len() + round.starts.len() + round.leases.len() >= EXPRESS_MOST;
            if full || !self.is_express(ticket, &op) {
                rest.push((ticket, op));
                continue;
            }
            match op {
                Op::Settle(settle) => round.ends.push((ticket, settle)),
                Op::Start { id, token, now, takes } => {
                    if let Some(ride) = self.express.held.get_mut(&id) {
                        ride.started = Some(now);
                    }
                    round.starts.push((ticket, Op::Start { id, token, now, takes }));
                }
                op => round.leases.push((ticket, op)),
            }
        }
        self.waiting.extend(rest);
        if round.ends.is_empty() && round.starts.is_empty() && round.leases.is_empty() {
            return;
        }
        // What ends in the same step need not have started before.
        let ends: Vec<&MessageId> = round.ends.iter().map(|(_, settle)| &settle.id).collect();
        let told: Vec<bool> = round
            .starts
            .iter()
            .map(|(_, op)| matches!(op, Op::Start { id, .. } if !ends.contains(&id)))
            .collect();
        let mut args = Args::default();
        self.ends(&mut args, &round.ends);
        args.num(told.iter().filter(|told| **told).count());
        for ((_, op), _) in round.starts.iter().zip(&told).filter(|(_, told)| **told) {
            if let Op::Start { id, now, .. } = op
                && let Some(ride) = self.express.held.get(id)
            {
                args.text(ride.tag.as_str()).text(format!("{}{}", ride.whose(id), now.0));
            }
        }
        args.num(round.leases.len());
        for (_, op) in &round.leases {
            if let Op::Lease { queue, credit, .. } = op {
                args.text(queue.as_str()).num((*credit).clamp(1, rules::MAX_CREDIT));
            }
        }
        match self.eval_on(Which::Express, args) {
            Ok(said) => self.express_said(round, said),
            Err(trouble) => self.express_failed(round, &trouble),
        }
    }

    fn express_failed(&mut self, round: Round, trouble: &Trouble) {
        // It may have taken messages off the lists.
        self.left = true;
        let Round { ends, starts, leases } = round;
        let tickets = ends.into_iter().map(|(ticket, _)| ticket);
        let tickets = tickets.chain(starts.into_iter().chain(leases).map(|(ticket, _)| ticket));
        let failed = tickets.map(|ticket| (ticket, Err(trouble.fault()))).collect();
        self.done.call(failed);
    }

    fn express_said(&mut self, round: Round, mut said: Reader) {
        let word = said.text().unwrap_or_default();
        if word == "lapsed" {
            // What others took over is looked at first; then all of this is asked for as of rows.
            self.lapsed();
            self.again(round);
            return;
        }
        match (said.list(), said.list(), said.list()) {
            (Ok(settled), Ok(started), Ok(taken)) => self.express_done(round, settled, started, taken),
            (Err(odd), ..) | (_, Err(odd), _) | (.., Err(odd)) => {
                self.express_failed(round, &Trouble::Refused(odd.0));
            }
        }
    }

    /// Asks for all of this again, before what came since.
    fn again(&mut self, round: Round) {
        let ends = round.ends.into_iter().map(|(ticket, settle)| (ticket, Op::Settle(settle)));
        let mut all: Vec<_> = round.starts.into_iter().chain(ends).chain(round.leases).collect();
        all.extend(self.waiting.drain(..));
        self.waiting.extend(all);
    }

    fn express_done(&mut self, round: Round, settled: Reader, started: Reader, taken: Reader) {
        let mut answers: Vec<Completion> = Vec::with_capacity(EXPRESS_MOST);
        let mut as_rows = Vec::new();
        let mut started = started.each();
        let settled: Vec<bool> = settled.each().map(|said| said == redis::Value::Int(1)).collect();
        for (ticket, op) in round.starts {
            let Op::Start { id, .. } = &op else { continue };
            // What ended in the same step was not told of its start.
            let end = round.ends.iter().position(|(_, settle)| settle.id == *id);
            let done = match end {
                Some(place) => settled.get(place).copied().unwrap_or(false),
                None => started.next() == Some(redis::Value::Int(1)),
            };
            if done {
                answers.push((ticket, Ok(rules::applied())));
            } else {
                // It became a row, or somebody took it over.
                self.express.forget_one(id);
                as_rows.push((ticket, op));
            }
        }
        for ((ticket, settle), done) in round.ends.into_iter().zip(settled) {
            self.express.forget_one(&settle.id);
            if done {
                answers.push((ticket, Ok(rules::applied())));
            } else {
                // It became a row, or somebody took it over.
                as_rows.push((ticket, Op::Settle(settle)));
            }
        }
        for ((ticket, op), said) in round.leases.into_iter().zip(taken.each()) {
            let Op::Lease { queue, credit, now, skip } = op else { continue };
            match self.express_leased(&queue, now, said) {
                Ok((deliveries, true)) if deliveries.len() < credit as usize => {
                    let credit = credit.saturating_sub(u32::try_from(deliveries.len()).unwrap_or(u32::MAX));
                    self.express.ahead.insert(ticket, deliveries);
                    as_rows.push((ticket, Op::Lease { queue, credit, now, skip }));
                }
                Ok((deliveries, _)) => {
                    answers.push((ticket, Ok(Reply::Leased { deliveries, opens: None })));
                }
                Err(fault) => {
                    self.left = true;
                    answers.push((ticket, Err(fault)));
                }
            }
        }
        for entry in as_rows.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        self.done.call(answers);
    }

    /// What was taken off a queue's lists: what is handed out at once, and whether some waits as a row.
    fn express_leased(
        &mut self,
        queue: &str,
        now: Wall,
        said: redis::Value,
    ) -> Result<(Vec<Delivery>, bool), Fault> {
        let mut said = Reader::of(said).map_err(fault)?;
        let mixed = said.num::<u8>().map_err(fault)? == 1;
        let first: i64 = said.num().map_err(fault)?;
        let seq: i64 = said.num().map_err(fault)?;
        let mut list = said.list().map_err(fault)?;
        let has_app = self.has_app(queue);
        let (mut deliveries, mut rows, mut no) = (Vec::new(), Vec::new(), 0);
        while !list.is_empty() {
            let tag = list.text().map_err(fault)?;
            let id = list.text().map_err(fault)?;
            let raw = list.bytes().map_err(fault)?;
            no += 1;
            let came = Came::read(tag, queue, has_app, raw, now);
            let flies = came.plain().is_some_and(|(call, m)| call.id == id && self.may_fly(m));
            match came.taken(flies) {
                Ok((tag, call, message, raw)) => {
                    let token = Token(first + no);
                    let rank = rules::rank(now, message.priority);
                    let ride = Ride {
                        tag,
                        token,
                        seq: seq + no,
                        rank,
                        queue: queue.to_owned(),
                        task: message.task.clone(),
                        fields: message::fields(&message),
                        call,
                        started: None,
                    };
                    self.express.held.insert(message.id.clone(), ride);
                    deliveries.push(Delivery {
                        message: message::with_envelope(message, has_app.then_some(raw)),
                        token,
                        attempt: 1,
                        losses: 0,
                        started: false,
                        rank,
                    });
                }
                Err(came) => rows.push(*came),
            }
        }
        let some = mixed || !rows.is_empty();
        let stored = self.store_in(rows, now);
        if !deliveries.is_empty() {
            self.progress.found(queue);
        }
        if let Err(fault) = stored {
            // What is handed out is: the others are found by `left`.
            tracing::warn!("{fault}");
            self.left = true;
        }
        Ok((deliveries, some))
    }

    /// Whether it is not held here already.
    fn may_fly(&self, message: &Message) -> bool {
        !self.express.held.contains_key(&message.id) && self.belongs(&message.queue, &message.task).is_none()
    }

    fn ends(&self, args: &mut Args, ends: &[(Ticket, Box<Settle>)]) {
        args.num(ends.len());
        let peer = self.peer().filter(|peer| peer.results);
        let seconds = peer.map_or(RESULT_SECONDS, |peer| peer.result_seconds);
        for (_, settle) in ends {
            let Some(ride) = self.express.held.get(&settle.id) else { continue };
            let kept = settle.expires_ms.unwrap_or(0).max(rules::ID_KEPT_MS).div_ceil(1_000);
            args.text(ride.tag.as_str()).text(ride.whose(&settle.id)).text(settle.id.as_str());
            args.text(ride.packed(settle)).num(kept);
            args.num(ride.seq).text(format!("{:016x}:{}", ride.seq, settle.id));
            let meta = peer.and_then(|_| self.meta_of(ride, settle));
            args.num(seconds).text(meta.unwrap_or_default());
        }
    }

    /// The result that Celery's clients look for; absent: it is not kept.
    fn meta_of(&self, ride: &Ride, settle: &Settle) -> Option<String> {
        let mut outcome = settle.outcome.clone();
        let forgotten = settle.forget_result.then(|| outcome.result.take().unwrap_or_default());
        let row = Row {
            record: Record {
                message: Message { task: ride.task.clone(), ..Message::default() },
                state: State::Success,
                attempt: 1,
                losses: 0,
                token: None,
                due: None,
                started: ride.started,
                finished: Some(settle.now),
                outcome: Some(outcome),
            },
            rank: ride.rank,
            seq: ride.seq,
            slim: false,
            envelope: None,
            result: forgotten.map(|result| result.to_string().into_bytes()),
        };
        let told = self.told_of(&row, &ride.call, settle.now).ok()?;
        told.metas.first().map(|(_, meta)| meta.text().to_owned())
    }

    /// Makes rows of what this operation names on the express way, here or at another node, so that it finds them.
    pub(super) fn unfold_for(&mut self, op: &Op) -> Result<(), Fault> {
        if self.peer().is_none() {
            return Ok(());
        }
        match op {
            Op::Recover | Op::Extend { .. } => self.unfold("all", None),
            Op::List(_) | Op::Letters(_) => self.unfold("nodes", None),
            Op::Purge { queue, now } => {
                self.unfold("nodes", None)?;
                self.take_in_all(queue, *now)
            }
            op => {
                let named: Vec<MessageId> = self.express.named(op).into_iter().cloned().collect();
                named.iter().try_for_each(|id| self.unfold("all", Some(id)))
            }
        }
    }

    /// Whether this operation names what was on the express way of some node and is a row now.
    pub(super) fn unfold_named(&mut self, op: &Op) -> bool {
        let (Op::Get { id } | Op::Revoke { id, .. }) = op else { return false };
        self.take_in_left("nodes", Some((id, "")), wall()).is_ok_and(|found| found > 0)
    }

    /// Makes rows of what is on the express way, `all` of this node's or of all `nodes`; only this id, if one is given.
    pub(super) fn unfold(&mut self, what: &str, id: Option<&MessageId>) -> Result<(), Fault> {
        self.take_in_left(what, id.map(|id| (id, "")), wall()).map(drop)?;
        match id {
            Some(id) => self.express.forget_one(id),
            None => self.express.forget(),
        }
        Ok(())
    }
}

impl Ride {
    /// The record of its end: texts in a row, each behind its length.
    fn packed(&self, settle: &Settle) -> Vec<u8> {
        let mut outcome = std::borrow::Cow::Borrowed(&settle.outcome);
        if settle.forget_result {
            outcome.to_mut().result = None;
        }
        let mut all = Vec::with_capacity(512);
        let mut put = |bytes: &[u8]| {
            all.extend_from_slice(bytes.len().to_string().as_bytes());
            all.push(b':');
            all.extend_from_slice(bytes);
        };
        self.fields.iter().for_each(|field| put(field));
        let expires = settle.expires_ms.map(|ms| settle.now.plus(ms).0);
        let numbers = [
            ("sq", Some(self.seq)),
            ("rk", Some(self.rank)),
            ("n", Some(1)),
            ("lo", Some(0)),
            ("c", Some(1)),
            ("st", self.started.map(|at| at.0)),
            ("fi", Some(settle.now.0)),
            ("xa", expires),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                put(name.as_bytes());
                put(value.to_string().as_bytes());
            }
        }
        put(b"s");
        put(State::Success.name().as_bytes());
        put(b"o");
        // An outcome is made of what JSON has.
        put(&serde_json::to_vec(outcome.as_ref()).unwrap_or_default());
        all
    }
}
