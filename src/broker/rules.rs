//! Rules and numbers that every store keeps alike, so that none of them drifts from the model.

use crate::model::message::{Message, Record};
use crate::model::op::{Fault, Reply, Settle};
use crate::model::outcome::{Cause, Outcome};
use crate::model::schedule::{Fired, Tick, fire_id};
use crate::model::state::State;
use crate::model::time::Wall;

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

/// The message that a planned time stores.
#[must_use]
pub fn fired(tick: &Tick, lap: u32) -> Message {
    Message {
        id: fire_id(&tick.schedule, tick.planned, lap),
        fired: Some(Fired { schedule: tick.schedule.clone(), planned: Some(tick.planned) }),
        ..tick.message.clone()
    }
}

/// The outcome of a message that gave way to the next one of its schedule.
#[must_use]
pub fn replaced() -> Outcome {
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

/// What stays of a finished record whose retention is over: enough to answer a repeat of its id.
#[must_use]
pub fn slim(mut record: Record) -> Record {
    record.message.args = Vec::new();
    record.message.kwargs = serde_json::Map::new();
    record.message.headers = serde_json::Map::new();
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

/// Refuses a settle that is neither an end nor a planned retry.
///
/// # Errors
/// [`Fault::Refused`] naming what does not fit.
pub fn check_settle(s: &Settle) -> Result<(), Fault> {
    if s.memory.is_some() && s.state != State::Retry {
        return Err(Fault::Refused(format!("{}: {} is no retry with more memory", s.id, s.state)));
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

/// The refusal of a new life for a message whose arguments are gone.
#[must_use]
pub fn arguments_gone(id: &crate::model::name::MessageId) -> Fault {
    Fault::Refused(format!(
        "the arguments of {id} are not kept any more (the retention of its record is over); enqueue it anew"
    ))
}

/// The message of the next attempt, where the latest had not memory enough. `None`: it was something else.
#[must_use]
pub fn with_more_memory(settle: &Settle, mut message: Message) -> Option<Message> {
    let again = settle.memory.as_ref()?;
    message.memory_retries = message.memory_retries.saturating_add(1);
    if let Some(queue) = &again.queue {
        queue.clone_into(&mut message.queue);
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
