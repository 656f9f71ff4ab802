//! Life-cycle entries: one journal entry each, with the fields and the MESSAGE_ID of `observe::fields`.

use crate::engine::command::{About, Note, Raised};
use crate::model::outcome::{Cause, Outcome};
use crate::model::schedule::Skip;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::observe::fields;

/// Writes the entry of a note.
pub fn log(note: &Note) {
    match note {
        Note::Received { id, task, queue, state } => tracing::info!(
            MESSAGE_ID = fields::RECEIVED,
            TASKD_ID = %id,
            TASKD_TASK = task,
            TASKD_QUEUE = queue,
            "{task} {id} received, {state}"
        ),
        Note::Started { id, task, queue, attempt, pid } => tracing::info!(
            MESSAGE_ID = fields::STARTED,
            TASKD_ID = %id,
            TASKD_TASK = task,
            TASKD_QUEUE = queue,
            TASKD_ATTEMPT = attempt,
            TASKD_PID = pid,
            "{task} {id} started, attempt {attempt}"
        ),
        Note::Ended { id, task, queue, attempt, state, outcome, waited_ms, retry_in_ms, raised } => {
            let text = ended_text(*state, outcome, *retry_in_ms, raised.as_ref());
            ended(&Ended {
                id: id.as_str(),
                task,
                queue,
                attempt: *attempt,
                state: *state,
                outcome,
                waited_ms: *waited_ms,
                text: &text,
            });
        }
        Note::Launched { id, name, steps } => tracing::info!(
            MESSAGE_ID = fields::RECEIVED,
            TASKD_ID = %id,
            "workflow {id} ({name}, {} steps) received",
            steps
        ),
        Note::Workflow { id, state: state @ (State::Success | State::Revoked) } => tracing::info!(
            MESSAGE_ID = if *state == State::Success { fields::SUCCEEDED } else { fields::REVOKED },
            TASKD_ID = %id,
            TASKD_STATE = state.name(),
            "workflow {id} is over: {state}"
        ),
        Note::Workflow { id, state } => tracing::warn!(
            MESSAGE_ID = fields::FAILED,
            TASKD_ID = %id,
            TASKD_STATE = state.name(),
            "workflow {id} is over: {state}"
        ),
        Note::Dropped { id, state: State::Failure } => tracing::warn!(
            MESSAGE_ID = fields::FAILED,
            TASKD_ID = %id,
            TASKD_STATE = State::Failure.name(),
            "{id} failed before it started: it cannot run after what came before it in its workflow"
        ),
        Note::Dropped { id, state } => tracing::info!(
            MESSAGE_ID = if *state == State::Expired { fields::EXPIRED } else { fields::REVOKED },
            TASKD_ID = %id,
            TASKD_STATE = state.name(),
            "{id} {state} before it started"
        ),
        Note::Over { id, state: state @ (State::Success | State::Revoked | State::Expired) } => {
            tracing::info!(
                MESSAGE_ID = match state {
                    State::Success => fields::SUCCEEDED,
                    State::Expired => fields::EXPIRED,
                    _ => fields::REVOKED,
                },
                TASKD_ID = %id,
                TASKD_STATE = state.name(),
                "{id} is over: {state}, says its Celery worker"
            )
        }
        Note::Over { id, state } => tracing::warn!(
            MESSAGE_ID = fields::FAILED,
            TASKD_ID = %id,
            TASKD_STATE = state.name(),
            "{id} is over: {state}, says its Celery worker"
        ),
        Note::Unknown { id, task, queue } => tracing::warn!(
            MESSAGE_ID = fields::UNKNOWN,
            TASKD_ID = %id,
            TASKD_TASK = task,
            TASKD_QUEUE = queue,
            "{task} {id} set aside: no task of this name is declared (it comes back when one is)"
        ),
        Note::Child { slot, text, fault } => {
            let place = format!("{}/{}", slot.pool, slot.index);
            if *fault {
                tracing::warn!(MESSAGE_ID = fields::CHILD_LOST, TASKD_SLOT = place, "child {place}: {text}");
            } else {
                tracing::info!(MESSAGE_ID = fields::CHILD_LOST, TASKD_SLOT = place, "child {place}: {text}");
            }
        }
        Note::Schedule { name, what } => schedule(name, what),
        Note::Recycled { .. } => recycled(note, None),
        Note::Store(Some(why)) => {
            tracing::error!(MESSAGE_ID = fields::STORE_FAULT, "work is paused: {why}");
        }
        Note::Store(None) => {
            tracing::info!(MESSAGE_ID = fields::STORE_FAULT, "the store takes writes again, work goes on")
        }
    }
}

/// A planned time in words: in UTC, as the journal's readers are anywhere.
fn instant(at: Wall) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| at.to_string())
}

/// The planned time of what was fired, and what keeps it from beginning at that time.
fn coming(planned: Wall, late_ms: u64, held: bool) -> String {
    let late = if late_ms >= 1_000 { format!(", {} late", duration(late_ms)) } else { String::new() };
    let held = if held { "; it waits for the run before" } else { "" };
    format!("{}{late}{held}", instant(planned))
}

/// Writes what is worth telling of a schedule.
fn schedule(name: &str, what: &About) {
    match what {
        About::Fired { planned, late_ms, id, task, queue, held } => {
            tracing::info!(
                MESSAGE_ID = fields::SCHEDULE_FIRED,
                TASKD_SCHEDULE = name,
                TASKD_PLANNED = planned.0,
                TASKD_ID = %id,
                TASKD_TASK = task,
                TASKD_QUEUE = queue,
                "schedule {name} fired {task} {id} for {}",
                coming(*planned, *late_ms, *held)
            );
        }
        About::Launched { planned, late_ms, id, workflow, held } => {
            tracing::info!(
                MESSAGE_ID = fields::SCHEDULE_FIRED,
                TASKD_SCHEDULE = name,
                TASKD_PLANNED = planned.0,
                TASKD_ID = %id,
                "schedule {name} launched workflow {workflow} {id} for {}",
                coming(*planned, *late_ms, *held)
            );
        }
        About::Skipped { planned, why } => {
            let reason = match why {
                Skip::Running(id) => format!("{id} of it has not ended (overlap = \"skip\")"),
                Skip::KeyHeld => "what it fires is unique, and another message holds the key".to_owned(),
                Skip::TooMany => "too many of it wait already (overlap = \"queue\")".to_owned(),
                Skip::QueueFull { queue, max_length } => {
                    format!("queue {queue} is full: {max_length} messages wait (max_length)")
                }
            };
            macro_rules! entry {
                ($level:ident) => {
                    tracing::$level!(
                        MESSAGE_ID = fields::SCHEDULE_SKIPPED,
                        TASKD_SCHEDULE = name,
                        TASKD_PLANNED = planned.0,
                        "schedule {name} skips {}: {reason}",
                        instant(*planned)
                    )
                };
            }
            // What the config asks for is no fault.
            if matches!(why, Skip::Running(_) | Skip::KeyHeld) { entry!(info) } else { entry!(warn) }
        }
        About::Missed { count, more, latest } => {
            let than = if *more { "more than " } else { "" };
            let times = crate::control::api::count(*count as u64, "planned time");
            tracing::warn!(
                MESSAGE_ID = fields::SCHEDULE_MISSED,
                TASKD_SCHEDULE = name,
                TASKD_PLANNED = latest.0,
                "schedule {name} missed {than}{times}, the latest at {} (catch_up says what becomes of them)",
                instant(*latest)
            );
        }
        About::Paused { failures } => tracing::error!(
            MESSAGE_ID = fields::SCHEDULE_PAUSED,
            TASKD_SCHEDULE = name,
            "schedule {name} is paused after {} in a row (go on: taskd schedules resume {name})",
            crate::control::api::count(u64::from(*failures), "failure")
        ),
        About::Refused { planned, why } => tracing::error!(
            MESSAGE_ID = fields::SCHEDULE_SKIPPED,
            TASKD_SCHEDULE = name,
            TASKD_PLANNED = planned.0,
            "schedule {name} could not fire for {}: the store refuses it: {why}",
            instant(*planned)
        ),
    }
}

/// Writes the entry of a child that is replaced though nothing is wrong with it.
pub fn recycled(note: &Note, pid: Option<u32>) {
    let Note::Recycled { slot, reason, runs, age_ms, memory, .. } = note else { return };
    let place = format!("{}/{}", slot.pool, slot.index);
    let memory_text = memory.map(|n| format!(", {} of memory", bytes(n))).unwrap_or_default();
    tracing::info!(
        MESSAGE_ID = fields::RECYCLED,
        TASKD_SLOT = place,
        TASKD_PID = pid,
        TASKD_REASON = reason.key(),
        TASKD_RUNS = runs,
        TASKD_AGE_MS = age_ms,
        TASKD_MEMORY = memory,
        "child {place} is replaced, {}: {runs} runs in {}{memory_text}",
        reason.key(),
        duration(*age_ms)
    );
}

struct Ended<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    attempt: u32,
    state: State,
    outcome: &'a Outcome,
    waited_ms: u64,
    text: &'a str,
}

fn ended(e: &Ended<'_>) {
    let usage = &e.outcome.usage;
    let (exit, signal) = match e.outcome.cause {
        Cause::Exit { code } => (Some(code), None),
        Cause::Signal { signal, .. } => (None, Some(signal)),
        _ => (None, None),
    };
    // tracing's levels are constants of the call site: one macro body, three levels.
    macro_rules! entry {
        ($level:ident, $message_id:expr) => {
            tracing::$level!(
                MESSAGE_ID = $message_id,
                TASKD_ID = e.id,
                TASKD_TASK = e.task,
                TASKD_QUEUE = e.queue,
                TASKD_ATTEMPT = e.attempt,
                TASKD_STATE = e.state.name(),
                TASKD_CAUSE = e.outcome.cause.word(),
                TASKD_EXIT = exit,
                TASKD_SIGNAL = signal,
                TASKD_WAIT_MS = e.waited_ms,
                TASKD_RUN_MS = usage.wall_ms,
                TASKD_CPU_MS = (usage.user_us + usage.system_us) / 1000,
                TASKD_MEMORY_PEAK = usage.max_rss,
                "{} {} {}",
                e.task,
                e.id,
                e.text
            )
        };
    }
    match e.state {
        State::Success => entry!(info, fields::SUCCEEDED),
        State::Retry => entry!(warn, fields::RETRIED),
        State::Revoked => entry!(info, fields::REVOKED),
        State::Expired => entry!(warn, fields::EXPIRED),
        State::Dead => entry!(error, fields::DEAD),
        State::Failure => entry!(warn, fields::FAILED),
        State::Waiting | State::Scheduled | State::Running => entry!(warn, fields::GIVEN_BACK),
    }
}

fn ended_text(state: State, outcome: &Outcome, retry_in_ms: Option<u64>, raised: Option<&Raised>) -> String {
    let usage = &outcome.usage;
    let mut text = match state {
        State::Success if !usage.is_measured() => format!("succeeded in {}", duration(usage.wall_ms)),
        State::Success => format!(
            "succeeded in {}, CPU {}, peak memory {}",
            duration(usage.wall_ms),
            duration((usage.user_us + usage.system_us) / 1000),
            bytes(usage.max_rss)
        ),
        State::Retry => format!("to be retried: {}", outcome.reason()),
        State::Waiting | State::Scheduled => format!("goes back to its queue: {}", outcome.reason()),
        State::Revoked => "canceled".to_owned(),
        State::Dead => format!("is DEAD: its attempts kept killing their child ({})", outcome.reason()),
        _ => format!("failed: {}", outcome.reason()),
    };
    if !matches!(state, State::Success | State::Revoked)
        && let Some(failure) = &outcome.failure
        && !failure.message.is_empty()
        && failure.message != outcome.reason()
        && !matches!(outcome.cause, Cause::Interrupted)
    {
        text.push_str(": ");
        text.push_str(failure.message.lines().next().unwrap_or_default());
    }
    if let Some(raised) = raised {
        let limit = raised.memory_max.map(|n| format!(", memory_max = {}", bytes(n))).unwrap_or_default();
        let Raised { times, max, queue, .. } = raised;
        text.push_str(&format!(", again at once by on_memory ({times} of {max}{limit}, queue {queue})"));
    } else if let Some(ms) = retry_in_ms {
        text.push_str(&format!(", again in {}", duration(ms)));
    }
    text
}

fn duration(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

fn bytes(n: u64) -> String {
    format!("{:.1} MiB", n as f64 / f64::from(1 << 20))
}
