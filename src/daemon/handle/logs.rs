//! `logs`: the output of a message's attempts from the spool, and the way into it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::sync::{mpsc, oneshot};

use super::{Asker, with_record};
use crate::control::api::{Answer, LogLine};
use crate::daemon::clock;
use crate::daemon::spool::Spool;
use crate::daemon::state::Daemon;
use crate::process::protocol::Stream;

/// Pieces of up to 64 KiB on their way to one client; it reads at its own pace, the spool waits for nobody.
const PIECES: usize = 4;

/// Streams what there is; with `follow` goes on until the message is final.
pub fn handle(d: &mut Daemon, asker: Asker, id: String, follow: bool) {
    // Registered before the store is asked: an end in between is not missed.
    let ended = follow.then(|| d.waiters.wait(&id)).flatten();
    with_record(d, asker, &id.clone(), move |d, asker, record| {
        let (pieces, stream) = mpsc::channel(PIECES);
        let ended = ended.filter(|_| !record.state.is_final());
        tokio::task::spawn_local(send(Arc::clone(&d.spool), id, ended, pieces));
        let _ = asker.answer.send(Answer::Stream(stream));
    });
}

async fn send(
    spool: Arc<Spool>,
    id: String,
    mut ended: Option<oneshot::Receiver<()>>,
    pieces: mpsc::Sender<String>,
) {
    let mut reader = spool.reader(&id);
    let mut grew = spool.grew();
    loop {
        // What was appended up to the end of the message is on its way to the file: wait for the thread.
        let last = ended.is_none();
        if last {
            let spool = Arc::clone(&spool);
            let _ = tokio::task::spawn_blocking(move || spool.sync()).await;
        }
        grew.mark_unchanged();
        loop {
            let text = match reader.piece() {
                Ok(text) => text,
                Err(e) => {
                    let why = LogLine {
                        attempt: 0,
                        at: clock::now().wall.0,
                        stream: "taskd".into(),
                        line: format!("the output cannot be read: {e}"),
                        data: None,
                        cut: false,
                    };
                    let _ = pieces.send(serde_json::to_string(&why).unwrap_or_default() + "\n").await;
                    return;
                }
            };
            if text.is_empty() {
                break;
            }
            if pieces.send(text).await.is_err() {
                return;
            }
        }
        let Some(end) = &mut ended else { return };
        let over = tokio::select! {
            changed = grew.changed() => changed.is_err(),
            ended = end => {
                if ended.is_err() {
                    // The client asks the next daemon for the rest.
                    let error = serde_json::json!({ "error": super::handing_over() });
                    let _ = pieces.send(format!("{error}\n")).await;
                    return;
                }
                true
            }
            () = pieces.closed() => return,
        };
        if over {
            ended = None;
        }
    }
}

/// A line of these bytes, as it stands in the spool.
#[must_use]
pub fn line(attempt: u32, stream: Stream, bytes: Vec<u8>, cut: bool) -> LogLine {
    match String::from_utf8(bytes) {
        Ok(text) => made(attempt, stream, text, None, cut),
        Err(e) => {
            let shown = String::from_utf8_lossy(e.as_bytes()).into_owned();
            made(attempt, stream, shown, Some(BASE64.encode(e.as_bytes())), cut)
        }
    }
}

fn made(attempt: u32, stream: Stream, line: String, data: Option<String>, cut: bool) -> LogLine {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    LogLine { attempt, at: clock::now().wall.0, stream: stream.to_owned(), line, data, cut }
}

/// Lines of one child, gathered into one write per attempt.
#[derive(Default)]
pub struct Batch {
    id: String,
    attempt: u32,
    lines: Vec<LogLine>,
}

impl Batch {
    /// Adds a line; output of a run that nobody knows (any more) is dropped.
    pub fn push(
        &mut self,
        d: &mut Daemon,
        run: String,
        stream: Stream,
        line: Option<String>,
        data: Option<String>,
        cut: bool,
    ) {
        let Some(info) = d.runs.get_mut(&run) else { return };
        info.printed = true;
        let attempt = info.attempt;
        if self.id != info.id || self.attempt != attempt {
            let id = info.id.clone();
            self.write(d);
            self.id = id;
            self.attempt = attempt;
        }
        // Bytes that are not UTF-8 are shown as well as they can be, and kept as they are.
        let shown = line.unwrap_or_else(|| {
            let bytes = data.as_deref().and_then(|d| BASE64.decode(d).ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        self.lines.push(made(attempt, stream, shown, data, cut));
    }

    /// Hands what was gathered to the spool.
    pub fn write(&mut self, d: &Daemon) {
        if !self.lines.is_empty() {
            d.spool.append(&self.id, self.attempt, &self.lines);
            self.lines.clear();
        }
    }
}
