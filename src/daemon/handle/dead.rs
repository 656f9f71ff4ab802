//! `dead`: messages that were given up on, listed, exported, and in bulk retried or purged.

use super::{Asker, mismatch, stopping, store_error};
use crate::control::api::{self, DeadBody, DeadDone, DeadHeld, DeadKind, DeadQuery, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::daemon::{clock, view};
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::engine::letters::{LetterOrder, LetterSum};
use crate::model::letters::{LetterAct, LetterFilter};
use crate::model::name::MessageId;
use crate::model::op::{Filter, Op, Reply};
use crate::model::time::Wall;

/// Letters of a list, unless the query says otherwise.
const DEFAULT_LIMIT: u32 = 100;

fn filter(query: &DeadQuery) -> LetterFilter {
    LetterFilter {
        failed: query.failed,
        task: query.task.clone(),
        queue: query.queue.clone(),
        since: query.since.map(Wall),
        until: query.until.map(Wall),
        cause: query.cause.clone(),
        ids: Vec::new(),
    }
}

/// Answers with those that match, the latest accepted first.
pub fn list(d: &mut Daemon, asker: Asker, query: &DeadQuery) {
    let letters = filter(query);
    let filter = Filter {
        states: letters.states(),
        queue: letters.queue.clone(),
        letters: Some(letters),
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
        ..Filter::default()
    };
    d.read(
        Op::List(filter),
        Box::new(move |d, reply| match reply {
            Ok(Reply::Records(list)) => {
                asker.json(&list.iter().map(|r| view::message(d, r)).collect::<Vec<_>>());
            }
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

/// Streams those that match, as messages of a new life.
pub fn export(d: &Daemon, asker: Asker, query: &DeadQuery) {
    let most = query.limit.map_or(u64::MAX, u64::from);
    super::store::export_letters(d, asker, filter(query), most);
}

/// A new life for each of them.
pub fn retry(d: &mut Daemon, asker: Asker, body: DeadBody) {
    let now = clock::now().wall;
    if let Some(queue) = body.to_queue.as_ref().filter(|q| !d.settings.queues.contains_key(*q)) {
        let mut e = Error::new(ErrorKind::UnknownQueue, format!("no queue is named {queue}"));
        let names = d.settings.queues.keys().map(String::as_str);
        e.hint = super::enqueue::suggestion(queue, names).map(|s| format!("did you mean {s}?"));
        return asker.error(e);
    }
    let due = body.delay_ms.filter(|ms| *ms > 0).map(|ms| now.plus(ms));
    let act = LetterAct::Retry { due, queue: body.to_queue.clone() };
    order(d, asker, body, act, "put back into their queues");
}

/// Forgets each of them.
pub fn purge(d: &mut Daemon, asker: Asker, body: DeadBody) {
    order(d, asker, body, LetterAct::Purge, "forgotten");
}

fn order(d: &mut Daemon, asker: Asker, body: DeadBody, act: LetterAct, verb: &'static str) {
    let mut ids = body.ids;
    ids.sort_unstable();
    ids.dedup();
    let filter = LetterFilter {
        failed: body.failed,
        task: body.task,
        queue: body.queue,
        since: body.since.map(Wall),
        until: body.until.map(Wall),
        cause: body.cause,
        ids: ids.into_iter().map(MessageId).collect(),
    };
    let dry = body.dry;
    let act = if dry { LetterAct::Count } else { act };
    let order = LetterOrder { filter, act, most: body.limit.unwrap_or(u64::MAX) };
    d.ask(
        Ask::Letters(Box::new(order)),
        Box::new(move |_, told| match told {
            Told::Letters(sum) => asker.json(&done(*sum, dry, verb)),
            Told::Fault(fault) => {
                let mut e = store_error(&fault);
                if !dry {
                    e.hint = Some("what was done stays done; repeat it for the rest".to_owned());
                }
                asker.error(e);
            }
            Told::Stopping => asker.error(stopping()),
            _ => asker.error(mismatch()),
        }),
    );
}

fn done(sum: LetterSum, dry: bool, verb: &str) -> DeadDone {
    let what = |n| api::count(n, "dead letter");
    let message = if dry {
        format!("{} would be {verb}", what(sum.matched))
    } else {
        format!("{} {verb}", what(sum.done))
    };
    DeadDone {
        message,
        dry,
        matched: sum.matched,
        done: sum.done,
        kinds: sum
            .groups
            .into_iter()
            .map(|(g, count)| DeadKind { state: g.state, task: g.task, cause: g.cause, count })
            .collect(),
        others: sum.others,
        missing: sum.missing.into_iter().map(|id| id.0).collect(),
        held: sum.held.into_iter().map(|(id, holder)| DeadHeld { id: id.0, holder: holder.0 }).collect(),
        held_count: sum.held_count,
    }
}
