//! `result` and `status ID`: a record, at once or when it is final.

use std::time::Duration;

use super::{Asker, with_record};
use crate::control::api::{Answer, Call, Error, ErrorKind, Request};
use crate::daemon::state::Daemon;
use crate::daemon::view;

/// Answers with the record; waits for its end first, at most `wait_ms`.
pub fn handle(d: &mut Daemon, asker: Asker, id: String, wait_ms: u64) {
    // Registered before the store is asked: an end in between is not missed.
    let ended = (wait_ms > 0).then(|| d.waiters.wait(&id)).flatten();
    with_record(d, asker, &id.clone(), move |d, asker, record| match ended {
        Some(ended) if !record.state.is_final() => wait(d, asker, id, wait_ms, ended),
        _ => asker.json(&view::message(d, &record)),
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
