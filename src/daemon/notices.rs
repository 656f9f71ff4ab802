//! What only the daemon has of a notice: the last lines that the attempt printed.

use std::time::Duration;

use serde_json::Value;

use super::state::Daemon;
use crate::model::message::Message;
use crate::model::notice::{MAX_OUTPUT, NOTIFY, Notice};
use crate::model::op::Settle;

/// The loop waits at most so long for a disk that is slow: then the notice goes without its last lines.
const PATIENCE: Duration = Duration::from_millis(200);

/// Puts the output into the notices that follow from this end.
pub fn fill(d: &Daemon, settle: &mut Settle) {
    if d.settings.notify.output_lines == 0 || settle.follow_ups.iter().all(|m| m.task != NOTIFY) {
        return;
    }
    let attempt = settle.follow_ups.iter().find_map(attempt);
    let lines = output(d, settle.id.as_str(), attempt.unwrap_or(0));
    for message in settle.follow_ups.iter_mut().filter(|m| m.task == NOTIFY) {
        message.kwargs.insert("output".to_owned(), Value::from(lines.clone()));
    }
}

fn attempt(message: &Message) -> Option<u32> {
    if message.task != NOTIFY {
        return None;
    }
    Notice::of(message.kwargs.clone()).ok()?.subject.map(|s| s.attempt)
}

fn output(d: &Daemon, id: &str, attempt: u32) -> Vec<String> {
    let most = usize::try_from(d.settings.notify.output_lines).unwrap_or(usize::MAX);
    let lines = d.spool.tail(id, attempt, (most, MAX_OUTPUT), PATIENCE);
    lines.into_iter().map(|line| line.line).collect()
}
