//! Rules and numbers that every store keeps alike, so that none of them drifts from the model.

use std::collections::BTreeMap;

use super::admission::{self, Holder, Judged};
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply, Settle};
use crate::model::outcome::{Cause, Outcome};
use crate::model::schedule::{Fired, Fires, Tick, fire_id};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::unique::{Claim, Holds};
use crate::model::workflow::{self, Fallout, Workflow};

/// One priority step is worth this many milliseconds of waiting. Ageing is exact and linear although the
/// index never changes: every waiting message ages alike, so only the difference of two ranks matters.
pub const AGEING_MS: i64 = 60_000;

/// Rows that one Sweep or Known changes at most; then it answers `more`.
pub const SWEEP_ROWS: usize = 1_000;

/// An id is known at least this long after its final state (promise 7), in milliseconds.
pub const ID_KEPT_MS: u64 = 24 * 3_600_000;

/// Id records (finished, without arguments and outcome) that are kept per record that
/// [`Retention::count`](crate::model::op::Retention) allows. A disk must be bounded: where more messages
/// than this finish within [`ID_KEPT_MS`], the oldest ids are forgotten earlier.
pub const IDS_PER_RECORD: u64 = 10;

/// Bytes of stored records after which one List stops, whatever its limit: an answer is held in memory.
pub const LIST_BYTES: usize = 16 << 20;

/// Planned times that are remembered per schedule; an older one counts as fired ([`is_forgotten`]).
pub const TICKS_KEPT: usize = 1_024;

/// A planned time that lies further ahead of the clock was recorded by a clock that was wrong, in milliseconds.
const WRONG_CLOCK_MS: u64 = 24 * 3_600_000;

/// A node that said nothing for this long is forgotten, in milliseconds.
pub const NODE_KEPT_MS: u64 = 24 * 3_600_000;

/// Most deliveries of one Lease.
pub const MAX_CREDIT: u32 = 1_000;

/// Most records of one List.
pub const MAX_LIST: u32 = 10_000;

/// How a lane is called within its queue: its task, a space (no name holds one), and the value.
#[must_use]
pub fn lane_name(message: &Message) -> Option<String> {
    message.lane.as_ref().map(|lane| format!("{} {lane}", message.task))
}

/// How often one Lease looks for lanes that are not empty, a credit of lanes at a time.
pub const LANE_PASSES: usize = 16;

/// What a lease takes of these lanes, which stand in the order of their turns: one of each, then another one
/// of each that has more, and so on.
#[must_use]
pub fn in_turn<T: Copy>(lanes: &[Vec<T>], credit: usize) -> Vec<T> {
    let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|n| lanes.iter().filter_map(move |lane| lane.get(n).copied()));
    rounds.take(credit).collect()
}

/// Merges what waits without a lane and what the lanes give, by rank; each keeps its own order.
pub fn merged<T>(plain: Vec<T>, laned: Vec<T>, credit: usize, rank: impl Fn(&T) -> i64) -> Vec<T> {
    let (mut plain, mut laned) = (plain.into_iter().peekable(), laned.into_iter().peekable());
    let mut all = Vec::new();
    while all.len() < credit {
        let first = match (plain.peek(), laned.peek()) {
            (Some(p), Some(l)) => rank(p) <= rank(l),
            (p, _) => p.is_some(),
        };
        let Some(next) = (if first { plain.next() } else { laned.next() }) else { break };
        all.push(next);
    }
    all
}

/// The place in its queue of a message that became ready at `ready` (the store's clock, which never goes
/// back): smaller goes first, ties by order of acceptance.
#[must_use]
pub const fn rank(ready: Wall, priority: u8) -> i64 {
    ready.0.saturating_sub((priority as i64).saturating_mul(AGEING_MS))
}

/// Whether a message that is given back goes behind the others: what was lost may be what breaks children,
/// all else keeps its place. One that is `due` later gets its place then.
#[must_use]
pub const fn goes_behind(lost: bool, due: Option<Wall>) -> bool {
    lost && due.is_none()
}

/// The state of a message that is stored at `now`, and when it is due.
#[must_use]
pub fn first_state(message: &Message, now: Wall) -> (State, Option<Wall>) {
    match message.eta {
        _ if is_held(message) => (State::Scheduled, None),
        Some(eta) if eta > now => (State::Scheduled, Some(eta)),
        _ => (State::Waiting, None),
    }
}

/// Whether a planned time that is not remembered counts as fired: it lies before all of as many as are
/// remembered. Not where those lie more than a day ahead: a clock was wrong, and its fires must not silence the
/// schedule until then.
#[must_use]
pub fn is_forgotten(remembered: usize, first: Option<Wall>, planned: Wall, now: Wall) -> bool {
    let wrong = now.plus(WRONG_CLOCK_MS);
    remembered >= TICKS_KEPT && first.is_some_and(|first| planned < first && first <= wrong)
}

/// Whether the last one remembered makes room for a new one, and not the first.
#[must_use]
pub fn drops_last(last: Wall, now: Wall) -> bool {
    last > now.plus(WRONG_CLOCK_MS)
}

/// Whether a message that is being stored is to wait for those that its schedule fired before.
#[must_use]
pub fn is_held(message: &Message) -> bool {
    message.fired.as_ref().is_some_and(|f| f.held)
}

/// What a planned time stores, under its own id.
///
/// # Errors
/// [`Fault::Refused`] for steps that make no workflow.
pub fn fired(tick: &Tick, lap: u32, held: bool) -> Result<Fires, Fault> {
    let id = fire_id(&tick.schedule, tick.planned, lap);
    let fired = Some(Fired { schedule: tick.schedule.clone(), planned: Some(tick.planned), held });
    Ok(match &tick.fires {
        Fires::Message(message) => {
            Fires::Message(Box::new(Message { id, fired, ..message.as_ref().clone() }))
        }
        Fires::Workflow(w) => {
            let named = Workflow::new(id, &w.name, w.uid, w.steps.clone());
            let named = named.map_err(|e| Fault::Refused(e.to_string()))?;
            Fires::Workflow(Box::new(Workflow { keep_ms: w.keep_ms, fired, ..named }))
        }
    })
}

/// Refuses a planned time whose steps make no workflow, before anything is written.
///
/// # Errors
/// [`Fault::Refused`].
pub fn check_tick(tick: &Tick) -> Result<(), Fault> {
    match &tick.fires {
        Fires::Message(_) => Ok(()),
        Fires::Workflow(w) => workflow::check(&w.steps).map_err(|e| Fault::Refused(e.to_string())),
    }
}

/// The outcome of a message that gave way to the next one of its schedule.
#[must_use]
pub fn superseded() -> Outcome {
    Outcome::of_cause(Cause::Revoked, "its schedule fired again (overlap = \"replace\")")
}

/// The outcome of a message whose `expires` passed before it started.
#[must_use]
pub fn expired() -> Outcome {
    Outcome::of_cause(Cause::Expired, "it had not started when its `expires` passed")
}

/// The outcome of a message that was canceled while it waited.
#[must_use]
pub fn revoked() -> Outcome {
    Outcome::of_cause(Cause::Revoked, "canceled before it started")
}

/// The outcome of a step whose definition cannot be read any more.
#[must_use]
pub fn no_definition() -> Outcome {
    Outcome::of_cause(Cause::Rejected, "the store has no definition of this step")
}

/// The outcome of a step whose id is that of another message.
#[must_use]
pub fn id_taken(id: &MessageId) -> Outcome {
    Outcome::of_cause(Cause::Rejected, format!("another message has the id {id} of this step"))
}

/// The refusal of a new life for a step that never ran.
#[must_use]
pub fn never_ran(id: &MessageId, no: u32, workflow: &MessageId) -> String {
    format!(
        "{id} never ran: it is step {no} of workflow {workflow}; retry that, or the step before it that failed"
    )
}

/// What stays of a finished record whose retention is over: enough to answer a repeat of its id.
#[must_use]
pub fn slim(mut record: Record) -> Record {
    record.message.args = Vec::new();
    record.message.kwargs = serde_json::Map::new();
    record.message.headers = serde_json::Map::new();
    record.message.unique = None;
    record.message.eta = None;
    record.message.expires = None;
    record.outcome = None;
    record
}

/// The message of a new life: as it was, `retries` and `memory_retries` from zero, without an `expires` that has passed (it
/// belonged to the life that ended; with it, the new one could never start).
#[must_use]
pub fn reborn(mut message: Message, now: Wall) -> Message {
    message.retries = 0;
    message.memory_retries = 0;
    message.expires = message.expires.filter(|e| *e > now);
    message
}

/// The message of a new life that begins at `due`, or in another queue.
#[must_use]
pub fn revived(message: Message, due: Option<Wall>, queue: Option<&str>, now: Wall) -> Message {
    let mut message = reborn(message, now);
    if let Some(due) = due.filter(|due| *due > now) {
        message.eta = Some(due);
        message.expires = message.expires.filter(|expires| *expires > due);
    }
    if let Some(queue) = queue {
        queue.clone_into(&mut message.queue);
    }
    message
}

/// The outcome of a message that another one replaced.
#[must_use]
pub fn replaced(by: &MessageId) -> Outcome {
    let why = format!("replaced before it started: {by} has the same key (on_conflict = \"replace\")");
    Outcome::of_cause(Cause::Revoked, why)
}

/// The outcome of a message that nobody waited for an answer about, where another one held its key.
#[must_use]
pub fn key_held(holder: &MessageId) -> Outcome {
    Outcome::of_cause(Cause::Revoked, format!("not run: {holder} held its key (unique)"))
}

/// Who keeps a message from a new life: one that holds its key. A new life replaces nobody.
#[must_use]
pub fn in_the_way(claim: &Claim, holder: Option<&Holder>) -> Option<MessageId> {
    match admission::judge(claim, holder) {
        Judged::Free => None,
        Judged::Held(id) | Judged::Replaces(id) | Judged::Leased(id) => Some(id),
    }
}

/// Until when a claim made at `from` holds its key at most.
#[must_use]
pub fn held_until(claim: &Claim, from: Wall) -> Option<Wall> {
    // What holds for a run ends with the run.
    claim.period_ms.filter(|_| claim.holds != Holds::Running).map(|ms| from.plus(ms))
}

/// Whether a message in this state has had a start.
#[must_use]
pub const fn has_begun(state: State) -> bool {
    matches!(state, State::Running | State::Retry)
}

/// Refuses a settle that is neither an end nor a planned retry.
///
/// # Errors
/// [`Fault::Refused`] naming what does not fit.
pub fn check_settle(s: &Settle) -> Result<(), Fault> {
    if s.memory.is_some() && s.state != State::Retry {
        return Err(Fault::Refused(format!("{}: {} is no retry with more memory", s.id, s.state)));
    }
    if s.call.is_some() && s.state != State::Retry {
        return Err(Fault::Refused(format!(
            "{}: {} has no next attempt to be called otherwise",
            s.id, s.state
        )));
    }
    match (s.state, s.due) {
        (State::Retry, None) => Err(Fault::Refused(format!("{}: RETRY without the time it is due", s.id))),
        (State::Retry, Some(_)) => Ok(()),
        (state, _) if state.is_final() => Ok(()),
        (state, _) => Err(Fault::Refused(format!("{}: {state} does not end an attempt", s.id))),
    }
}

/// Refuses a publish whose bounds do not go with its messages.
///
/// # Errors
/// [`Fault::Refused`].
pub fn check_bounds(messages: usize, bounds: usize) -> Result<(), Fault> {
    if bounds == 0 || bounds == messages {
        return Ok(());
    }
    Err(Fault::Refused(format!("{messages} messages with {bounds} queue bounds")))
}

/// An answer with what the operation did beside, if anything.
#[must_use]
pub fn with(reply: Reply, fallout: Fallout) -> Reply {
    if fallout.is_empty() { reply } else { Reply::With(Box::new(reply), Box::new(fallout)) }
}

/// The answer where these new messages would pass a bound of their queues, of which `length` says how many did
/// not start.
pub fn no_room<'a>(
    messages: impl Iterator<Item = &'a Message>,
    max_length: &BTreeMap<String, u64>,
    length: impl Fn(&str) -> u64,
) -> Option<Reply> {
    let mut added: BTreeMap<&str, u64> = BTreeMap::new();
    for message in messages {
        let Some(max_length) = max_length.get(&message.queue).copied() else { continue };
        let n = added.entry(&message.queue).or_default();
        *n += 1;
        if length(&message.queue) + *n > max_length {
            return Some(Reply::QueueFull { queue: message.queue.clone(), max_length });
        }
    }
    None
}

/// The refusal of a new life for a message whose arguments are gone.
#[must_use]
pub fn arguments_gone(id: &MessageId) -> Fault {
    Fault::Refused(format!(
        "the arguments of {id} are not kept any more (the retention of its record is over); enqueue it anew"
    ))
}

/// The message of the next attempt, where the latest had not memory enough. `None`: it was something else.
#[must_use]
pub fn for_next_attempt(settle: &Settle, mut message: Message) -> Option<Message> {
    if settle.memory.is_none() && settle.call.is_none() {
        return None;
    }
    if let Some(again) = &settle.memory {
        message.memory_retries = message.memory_retries.saturating_add(1);
        if let Some(queue) = &again.queue {
            queue.clone_into(&mut message.queue);
        }
    }
    if let Some(call) = &settle.call {
        (message.args, message.kwargs) = (call.args.clone(), call.kwargs.clone());
    }
    Some(message)
}

/// The answer to a write that took place.
#[must_use]
pub const fn applied() -> Reply {
    Reply::Applied { applied: true, current: None }
}

/// The answer to a write under a token that is not valid any more.
#[must_use]
pub fn stale(current: Option<Record>) -> Reply {
    Reply::Applied { applied: false, current: current.map(Box::new) }
}
