//! `result` and `status ID`: a record, at once or when it is final.

use std::time::Duration;

use super::Asker;
use super::workflow::{self, Found, find};
use crate::control::api::{Answer, Call, Error, ErrorKind, Request};
use crate::daemon::state::Daemon;
use crate::daemon::view;
use crate::model::name::MessageId;
use crate::model::workflow::{Look, Seen, StepSeen};

/// Answers with the record; waits for its end first, at most `wait_ms`.
pub fn handle(d: &mut Daemon, asker: Asker, id: String, wait_ms: u64) {
    // Registered before the store is asked: an end in between is not missed.
    let ended = (wait_ms > 0).then(|| d.waiters.wait(&id)).flatten();
    find(d, asker, id.clone(), move |d, asker, found| {
        let over = match &found {
            Found::Message(record) => record.state.is_final(),
            Found::Workflow(seen) => seen.head.finished.is_some(),
        };
        match (ended, found) {
            (Some(ended), _) if !over => wait(d, asker, id, wait_ms, ended),
            (_, Found::Message(record)) => asker.json(&view::message(d, &record)),
            (_, Found::Workflow(seen)) => whole(d, asker, seen.head.id, Vec::new()),
        }
    });
}

/// Bytes of results after which those of a workflow are cut.
const MAX_RESULTS: usize = 16 << 20;

/// The results of a workflow, in order: read a part at a time, told as those of a message.
fn whole(d: &mut Daemon, asker: Asker, id: MessageId, mut ends: Vec<StepSeen>) {
    let from = ends.last().map_or(0, |s| s.no.saturating_add(1));
    let look = Look { id, from, limit: u32::MAX, results: true };
    workflow::look(d, asker, look, move |d, asker, seen| {
        let Seen { head, steps, next } = *seen;
        ends.extend(steps);
        let size = |s: &StepSeen| {
            s.outcome.as_ref().and_then(|o| o.result.as_ref()).map_or(0, |r| r.to_string().len())
        };
        let full = ends.iter().map(size).sum::<usize>() > MAX_RESULTS;
        match next {
            Some(_) if !full => whole(d, asker, head.id, ends),
            more => asker.json(&view::workflow(&head, ends, more.is_some())),
        }
    });
}

/// Comes back to the loop as a question that does not wait.
fn wait(d: &Daemon, asker: Asker, id: String, wait_ms: u64, ended: tokio::sync::oneshot::Receiver<()>) {
    let later = d.later.clone();
    let Asker { peer, rights, mut answer } = asker;
    tokio::task::spawn_local(async move {
        tokio::select! {
            _ = ended => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            // The client left.
            () = answer.closed() => return,
        }
        let call = Call { request: Request::Message { id }, peer, rights, answer };
        if let Err(refused) = later.send(call).await {
            let gone = Error::new(ErrorKind::Stopping, "taskd is stopping");
            let _ = refused.0.answer.send(Answer::Error(gone));
        }
    });
}
