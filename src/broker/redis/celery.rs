//! Celery as a peer: messages of its clients are taken in, results are written where they look for them, and what
//! follows a call is sent on. `lua/celery.lua` says in which order, so that nothing is lost on the way.

use std::sync::Arc;

use redis::Value;

use super::app;
use super::args::Args;
use super::express::is_plain;
use super::message::{self, Row, messages};
use super::reply::Reader;
use super::steps::fault;
use super::store::Store;
use crate::broker::rules;
use crate::celery::call::{Call, Order, Sending, Taking};
use crate::celery::canvas::{self, Failed, Follow, Member};
use crate::celery::envelope::{Address, Envelope, Unacked};
use crate::celery::fault::{Fault as Unfit, Wrong};
use crate::celery::json::{Json, Raw, value};
use crate::celery::result::chord::{self, Joined, Part, Tree};
use crate::celery::result::exception::{About, Exception};
use crate::celery::result::{Meta, Status};
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::Fault;
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;
use crate::model::time::Wall;

/// Largest body of a message that is taken in, in bytes.
const MAX_BODY: usize = 4 << 20;

/// Longest id under which a client is told why its message was refused, in bytes.
const MAX_ID: usize = 1 << 10;

/// Bytes of a message that cannot be read that are kept with its letter.
const MAX_KEPT: usize = 16 << 10;

/// How long results are kept where the settings say nothing, in seconds: Celery's own.
pub const RESULT_SECONDS: u64 = 86_400;

/// Messages that are stored in one go.
const TAKEN: usize = 200;

/// Ends told in one go.
const OUT: usize = 32;

/// The lists of kombu for a queue, as `life.lists` names them, without the prefix.
pub(super) fn lists(queue: &str) -> [String; 4] {
    ["", "\u{6}\u{16}3", "\u{6}\u{16}6", "\u{6}\u{16}9"].map(|step| format!("{queue}{step}"))
}

/// The queue of calls of a task; absent: the task is not declared.
pub type Route = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the store has to know of the settings to be Celery's peer.
#[derive(Clone)]
pub struct Peer {
    /// The queues whose lists are read.
    pub queues: Vec<String>,
    /// The queue of calls of a task that say nothing of where they go.
    pub route: Route,
    /// How long results are kept, in seconds; 0: for good.
    pub result_seconds: u64,
    /// Results are written at all.
    pub results: bool,
    /// The queues that are drained by a pool with a Celery app.
    pub apps: std::collections::BTreeSet<String>,
    /// What is left to Celery workers.
    pub outside: super::outside::Outside,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// A message that was taken off a list of kombu.
pub(super) struct Came {
    /// kombu's name for it.
    pub(super) tag: String,
    queue: String,
    /// The node that has it; empty: this one.
    node: String,
    /// Under which token it has that, `lost` if that node is gone, or nothing.
    token: String,
    /// When it started there, in milliseconds, or nothing.
    started: String,
    read: Result<(Call, Message), Unfit>,
    raw: Vec<u8>,
}

impl Came {
    /// Reads it; `has_app`: what drains its queue is a Celery app.
    pub(super) fn read(tag: String, queue: &str, has_app: bool, raw: Vec<u8>, now: Wall) -> Self {
        Self::of(tag, (queue, has_app), Envelope::read(&raw), raw, now)
    }

    fn of(
        tag: String,
        (queue, has_app): (&str, bool),
        envelope: Result<Envelope, Unfit>,
        raw: Vec<u8>,
        now: Wall,
    ) -> Self {
        let read = envelope.and_then(|envelope| {
            let call = Call::read(&envelope, &taking())?;
            canvas::check(&call).map_err(|wrong| wrong.of(&call.known()))?;
            app::is_for(&call, queue, has_app).map_err(|wrong| wrong.of(&call.known()))?;
            let message = call.model(queue, now, Order::LowFirst)?.message;
            Ok((call, message))
        });
        let (node, token, started) = (String::new(), String::new(), String::new());
        Self { tag, queue: queue.to_owned(), node, token, started, read, raw }
    }

    /// The call and its message, where nothing but its result follows it.
    pub(super) fn plain(&self) -> Option<&(Call, Message)> {
        self.read.as_ref().ok().filter(|(call, _)| is_plain(call))
    }

    /// Its tag, its call, its message and its envelope, where it is wanted and can be read.
    pub(super) fn taken(self, wanted: bool) -> Result<(String, Call, Message, Vec<u8>), Box<Self>> {
        match self.read {
            Ok((call, message)) if wanted => Ok((self.tag, call, message, self.raw)),
            read => Err(Box::new(Self { read, ..self })),
        }
    }
}

fn taking() -> Taking {
    Taking { max_body: MAX_BODY, zone: jiff::tz::TimeZone::system() }
}

/// What is written because of an end.
#[derive(Default)]
pub(super) struct Told {
    pub(super) metas: Vec<(String, Raw)>,
    chords: Vec<(String, usize)>,
    calls: Vec<Call>,
    members: Vec<(Member, Status, Raw)>,
}

impl Store {
    /// Takes all that waits in the lists of a queue into the store: it is to be ended there.
    pub(super) fn take_in_all(&mut self, queue: &str, now: Wall) -> Result<(), Fault> {
        if !self.peer().is_some_and(|peer| peer.queues.iter().any(|q| q == queue)) {
            return Ok(());
        }
        loop {
            let mut args = Args::default();
            args.text(queue).num(TAKEN);
            let list = self.ask("take_in", args)?;
            if list.is_empty() {
                return Ok(());
            }
            let mut came = Vec::with_capacity(list.len());
            for value in list.each() {
                let mut entry = Reader::of(value).map_err(fault)?;
                let (tag, raw) = (entry.text().map_err(fault)?, entry.bytes().map_err(fault)?);
                came.push(Came::read(tag, queue, self.has_app(queue), raw, now));
            }
            let own =
                |one: &Came| one.read.as_ref().map_or(true, |(_, m)| self.belongs(queue, &m.task).is_none());
            let some = came.iter().any(own);
            self.store_in(came, now)?;
            if !some {
                // Only what is not for this node is left, and goes round.
                return Ok(());
            }
        }
    }

    /// Stores what was taken off the lists and did not end: what nobody has in hand (`left`), or what is on the express
    /// way, `all` of this node's or of all `nodes`; only this id but for this tag, if they are given. Answers how many there
    /// were.
    pub(super) fn take_in_left(
        &mut self,
        what: &str,
        id: Option<(&MessageId, &str)>,
        now: Wall,
    ) -> Result<usize, Fault> {
        let mut args = Args::default();
        args.text(what).opt(id.map(|(id, _)| id.as_str()));
        let list = self.ask("taken_in", args)?;
        let mut came = Vec::with_capacity(list.len());
        for value in list.each() {
            let mut entry = Reader::of(value).map_err(fault)?;
            let node = entry.text().map_err(fault)?;
            let (tag, queue) = (entry.text().map_err(fault)?, entry.text().map_err(fault)?);
            let (token, started) = (entry.text().map_err(fault)?, entry.text().map_err(fault)?);
            if id.is_some_and(|(_, but)| but == tag) {
                continue;
            }
            let raw = entry.bytes().map_err(fault)?;
            let read = Unacked::read(&raw).map(|unacked| unacked.envelope);
            let raw = read.as_ref().map_or(raw, |envelope| envelope.write().text().as_bytes().to_vec());
            came.push(Came {
                node,
                token,
                started,
                ..Came::of(tag, (&queue, self.has_app(&queue)), read, raw, now)
            });
        }
        let found = came.len();
        self.store_in(came, now).map(|()| found)
    }

    /// Whether what drains this queue is a Celery app.
    pub(super) fn has_app(&self, queue: &str) -> bool {
        self.peer().is_some_and(|peer| peer.apps.contains(queue))
    }

    /// Makes rows of these.
    pub(super) fn store_in(&mut self, came: Vec<Came>, now: Wall) -> Result<(), Fault> {
        let (mut good, mut back, all) = (Vec::with_capacity(came.len()), Vec::new(), came.len());
        let queue = came.first().map(|one| one.queue.clone()).unwrap_or_default();
        for one in came {
            // What somebody has in hand is not for others.
            let free = one.token.is_empty();
            let to = one.read.as_ref().ok().and_then(|(_, m)| self.belongs(&one.queue, &m.task));
            if let Some(to) = to.filter(|_| free) {
                back.push((one.tag, to, one.raw));
                continue;
            }
            match one.read {
                Ok((call, message)) => {
                    let nesting = call.replaced_task_nesting;
                    if nesting > 0 && one.token.is_empty() {
                        // It stands in the place of one that may be on the express way: it is compared with a row.
                        self.take_in_left("nodes", Some((&message.id, &one.tag)), now)?;
                        self.express.forget_one(&message.id);
                    }
                    let mut fields = message::fields(&message);
                    fields.extend([b"ce".to_vec(), one.raw, b"cf".to_vec(), b"1".to_vec()]);
                    app::replacement(&mut fields, nesting);
                    good.push((one.tag, one.node, one.token, one.started, message.id, fields));
                }
                Err(unfit) => self.refuse_in(&one.queue, &one.tag, &unfit, &one.raw, now)?,
            }
        }
        self.put_back(&queue, &back, back.len() == all)?;
        let own = self.node().to_owned();
        while !good.is_empty() {
            let rest = good.split_off(good.len().min(TAKEN));
            let mut args = Args::default();
            args.num(now.0).num(good.len());
            for (tag, node, token, started, id, fields) in good {
                args.text(if node.is_empty() { own.clone() } else { node })
                    .text(tag)
                    .text(token)
                    .text(started);
                args.num(1).text(id.as_str()).text("").list(fields.into_iter());
            }
            self.ask("store_in", args)?;
            good = rest;
        }
        Ok(())
    }

    /// A message that cannot be taken is answered with a FAILURE where it says whose it is, and is a dead letter where
    /// it does not.
    fn refuse_in(
        &mut self,
        queue: &str,
        tag: &str,
        unfit: &Unfit,
        raw: &[u8],
        now: Wall,
    ) -> Result<(), Fault> {
        let why = format!("refused: {unfit}");
        let named = unfit.known.id.as_deref().filter(|id| crate::model::name::check(id).is_ok());
        let task = unfit.known.task.as_deref().filter(|task| crate::model::name::check(task).is_ok());
        let id = named.map_or_else(
            || uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, raw).to_string(),
            ToOwned::to_owned,
        );
        tracing::warn!("queue {queue}: a message of a Celery client cannot be taken in: {unfit} (id {id})");
        let kept = String::from_utf8_lossy(raw.get(..MAX_KEPT).unwrap_or(raw)).into_owned();
        let message = Message {
            id: MessageId(id.clone()),
            task: task.unwrap_or("celery.unreadable").to_owned(),
            queue: queue.to_owned(),
            enqueued: now,
            headers: [("celery_message".to_owned(), serde_json::Value::String(kept))].into_iter().collect(),
            ..Message::default()
        };
        let mut outcome = Outcome::of_cause(Cause::Rejected, why);
        let exception = unfit.wrong.exception();
        outcome.failure = Some(exception.failure(None));
        let state = if named.is_some() { State::Failure } else { State::Dead };
        let mut args = Args::default();
        args.num(now.0).text(tag).text(state.name()).text(serde_json::to_vec(&outcome).unwrap_or_default());
        args.num(rules::ID_KEPT_MS);
        messages(&mut args, std::iter::once((&message, None)));
        // Who sent it waits under the id that he gave, whether taskd can keep such a one or not.
        let given = unfit.known.id.as_deref().filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let meta = given.map(|id| {
            let call = Call::new(&message.task, id);
            Meta::raised(&call, Status::Failure, &exception, now).write()
        });
        self.metas(&mut args, &given.map(ToOwned::to_owned).zip(meta).into_iter().collect::<Vec<_>>());
        self.ask("refuse_in", args).map(drop)
    }

    fn metas(&self, args: &mut Args, metas: &[(String, Raw)]) {
        let peer = self.peer().filter(|peer| peer.results);
        let metas = if peer.is_some() { metas } else { &[] };
        let seconds = peer.map_or(RESULT_SECONDS, |peer| peer.result_seconds);
        args.num(metas.len());
        for (id, meta) in metas {
            args.text(id.as_str()).num(seconds).text(meta.text());
        }
    }

    /// Tells Celery what ended: results, and what follows. Whether there may be more.
    pub(super) fn tell(&mut self, now: Wall) -> Result<bool, Fault> {
        let mut args = Args::default();
        args.num(OUT);
        let list = self.ask("out", args)?;
        let more = list.len() == OUT;
        for value in list.each() {
            let mut entry = Reader::of(value).map_err(fault)?;
            let (id, value) = (entry.text().map_err(fault)?, entry.value().map_err(fault)?);
            self.tell_one(&id, value, now)?;
        }
        Ok(more)
    }

    fn tell_one(&mut self, id: &str, value: Value, now: Wall) -> Result<(), Fault> {
        let row = message::row(value).map_err(fault)?;
        let call = row.as_ref().and_then(|row| {
            let envelope = Envelope::read(row.envelope.as_deref()?).ok()?;
            Call::read(&envelope, &taking()).ok()
        });
        let (Some(row), Some(call)) = (row, call) else {
            // It was forgotten since, and with it whoever could ask.
            return self.told(id, Told::default(), now);
        };
        let told = match self.told_of(&row, &call, now) {
            Ok(told) => told,
            Err(wrong) => {
                tracing::error!("what follows {id} cannot be sent: {wrong}");
                Told::default()
            }
        };
        self.told(id, told, now)
    }

    /// What an end comes to.
    pub(super) fn told_of(&self, row: &Row, call: &Call, now: Wall) -> Result<Told, Wrong> {
        let record = &row.record;
        let Some(outcome) = &record.outcome else { return Ok(Told::default()) };
        if app::is_ignored(outcome) {
            return Ok(Told::default());
        }
        let call = &*app::without_called(call, outcome);
        let at = record.finished.unwrap_or(now);
        let mut told = Told::default();
        let keep = call.ignore_result != Some(true) && (row.result.is_none() || outcome.result.is_some());
        let about = About { task: &record.message.task, time_limit_ms: None };
        match record.state {
            State::Success => {
                let result = match (&outcome.result, &row.result) {
                    (Some(result), _) => value::write(result),
                    (None, Some(bytes)) => {
                        let text = String::from_utf8_lossy(bytes).into_owned();
                        Json::parse(&text).map_or_else(|_| Raw::null(), Json::to_raw)
                    }
                    (None, None) => Raw::null(),
                };
                let follow = canvas::succeeded(call, &result, now)?;
                if keep {
                    let children = app::children(outcome, &follow.children);
                    let meta = Meta::success(call, result.clone(), children, at);
                    told.metas.push((call.id.clone(), meta.write()));
                }
                told.follow(follow);
                if let Some(member) = canvas::member(call) {
                    told.members.push((member, Status::Success, result));
                }
            }
            State::Retry => {
                let meta = Meta::of_outcome(call, State::Retry, outcome, about, Vec::new(), at);
                told.metas.extend(meta.filter(|_| keep).map(|meta| (call.id.clone(), meta.write())));
            }
            state if state.is_final() => {
                let exception = Exception::of(outcome, about);
                let failed = canvas::failed(call, now)?;
                let errbacks = matches!(state, State::Failure | State::Dead);
                let children = if errbacks { failed.errbacks.children.as_slice() } else { &[] };
                let children = app::children(outcome, children);
                let meta = Meta::of_outcome(call, state, outcome, about, children, at);
                told.metas.extend(meta.filter(|_| keep).map(|meta| (call.id.clone(), meta.write())));
                let status = Status::of_state(state).unwrap_or(Status::Failure);
                if let Some(member) = canvas::member(call) {
                    told.members.push((member, status.clone(), exception.write()));
                }
                told.failed(call, failed, &status, &exception, errbacks, at);
            }
            _ => {}
        }
        Ok(told)
    }

    /// Writes it, and what the chords that it counts for come to.
    fn told(&mut self, id: &str, told: Told, now: Wall) -> Result<(), Fault> {
        let mut left = vec![told];
        while let Some(mut told) = left.pop() {
            let members = std::mem::take(&mut told.members);
            self.write(None, &told)?;
            for (member, status, result) in members {
                if let Some(more) = self.part(&member, status, result, now)? {
                    // Its parts are dropped once what it came to is written.
                    self.write(Some(&member.group), &more)?;
                    left.push(Told { members: more.members, ..Told::default() });
                }
            }
        }
        let mut args = Args::default();
        args.text(id).num(0).num(0).num(0);
        self.ask("tell", args).map(drop)
    }

    fn write(&mut self, group: Option<&str>, told: &Told) -> Result<(), Fault> {
        let mut args = Args::default();
        args.text("");
        self.metas(&mut args, &told.metas);
        args.num(told.chords.len());
        for (group, size) in &told.chords {
            args.text(group.as_str()).num(size);
        }
        args.num(told.calls.len());
        for call in &told.calls {
            let mut call = call.clone();
            if call.address.routing_key.is_empty() {
                let own = self.peer().and_then(|peer| (peer.route)(&call.task));
                call.address = Address::queue(own.as_deref().unwrap_or("celery"));
            }
            let tag = uuid::Uuid::new_v4().to_string();
            let origin = format!("taskd@{}", self.node());
            let envelope = call.write(Sending { tag: &tag, origin: &origin, expiration_ms: None });
            args.text(call.address.routing_key.as_str());
            args.num(1 + usize::from(call.priority.min(9)) / 3);
            args.text(envelope.write().text());
        }
        if !told.metas.is_empty() || !told.chords.is_empty() || !told.calls.is_empty() {
            self.ask("tell", args)?;
        }
        if let Some(group) = group {
            let mut args = Args::default();
            args.text(group);
            self.ask("parted", args)?;
        }
        Ok(())
    }

    /// A member of a chord has ended. What follows, where it was the last one and this node's to join.
    fn part(
        &mut self,
        member: &Member,
        status: Status,
        result: Raw,
        now: Wall,
    ) -> Result<Option<Told>, Fault> {
        let part = Part { id: member.id.clone(), status, result };
        let mut args = Args::default();
        args.text(member.group.as_str()).text(member.id.as_str()).text(chord::score(member.index));
        args.text(part.write().text()).opt_num(member.size());
        args.num(self.peer().map_or(RESULT_SECONDS, |peer| peer.result_seconds.max(60)));
        let mut list = self.ask("part", args)?;
        if list.is_empty() {
            return Ok(None);
        }
        let (entries, tree) = (list.list().map_err(fault)?, list.bytes().map_err(fault)?);
        let mut parts = Vec::with_capacity(entries.len());
        for value in entries.each() {
            if let Value::BulkString(bytes) = value {
                parts.extend(Part::read(&bytes));
            }
        }
        let last = Call { parent_id: None, ..Call::new(&member.body.task, &member.id) };
        let mut told = Told::default();
        let joined = match (chord::join(&parts), Tree::read(&tree)) {
            (Joined::Results(flat), Ok(tree)) => {
                self.gathered(&tree)?.map_or(Joined::Results(flat), Joined::Results)
            }
            (joined, _) => joined,
        };
        let done = match joined {
            Joined::Results(results) => {
                canvas::joined(member, &results, &last, now).map(|follow| told.follow(follow))
            }
            Joined::Failed(exception) => canvas::not_joined(member, &last, now)
                .map(|failed| told.failed(&last, failed, &Status::Failure, &exception, true, now)),
        };
        if let Err(wrong) = done {
            tracing::error!("the body of the chord {} cannot be sent: {wrong}", member.group);
        }
        Ok(Some(told))
    }

    /// The results of a group of groups in its shape; absent where one is missing.
    fn gathered(&mut self, tree: &Tree) -> Result<Option<Vec<Raw>>, Fault> {
        let mut ids = Vec::new();
        // Each is asked for once; which there are is seen by asking.
        tree.gather(&mut |id| {
            ids.push(id.to_owned());
            Some(Raw::null())
        });
        let mut args = Args::default();
        args.list(ids.iter().map(String::as_str));
        let list = self.ask("metas", args)?;
        let mut found = std::collections::BTreeMap::new();
        for (id, value) in ids.iter().zip(list.each()) {
            if let Value::BulkString(bytes) = value
                && let Ok(meta) = Meta::read(&bytes, MAX_BODY)
            {
                found.insert(id.clone(), meta.result);
            }
        }
        let Tree::Group(_, members) = tree else { return Ok(None) };
        Ok(members.iter().map(|member| member.gather(&mut |id| found.get(id).cloned())).collect())
    }
}

impl Told {
    fn follow(&mut self, follow: Follow) {
        self.chords.extend(follow.chords);
        self.calls.extend(follow.calls);
    }

    fn failed(
        &mut self,
        call: &Call,
        failed: Failed,
        status: &Status,
        exception: &Exception,
        errbacks: bool,
        at: Wall,
    ) {
        for planned in failed.also {
            let later = Call { group: planned.group, ..Call::new(&call.task, &planned.id) };
            let meta = Meta::raised(&later, Status::Failure, exception, at);
            self.metas.push((planned.id, meta.write()));
        }
        let part = |member| (member, status.clone(), exception.write());
        self.members.extend(failed.members.into_iter().map(part));
        if errbacks {
            self.follow(failed.errbacks);
        }
    }
}
