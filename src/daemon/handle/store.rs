//! `store`: backup, verify, export, import. They may take long, so they run on a thread of their own, with
//! connections of their own; the loop goes on.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::Asker;
use crate::control::api::{self, Answer, Done, Error, ErrorKind, Exported};
use crate::daemon::state::Daemon;
use crate::daemon::{clock, plan};
use crate::engine::event::Event;
use crate::model::message::Message;

/// Version of the export's lines.
const EXPORT_VERSION: u32 = 1;

/// Lines gathered into one piece of an export.
const PIECE: usize = 64;

/// Writes a consistent copy while work goes on.
pub fn backup(d: &Daemon, asker: Asker, path: String) {
    if !Path::new(&path).is_absolute() {
        let e = Error::new(ErrorKind::BadRequest, format!("{path} is not an absolute path"));
        return asker.error(e.hint("the daemon writes the file: name it from the root"));
    }
    let admin = d.store.admin();
    tokio::task::spawn_blocking(move || match admin.backup(&PathBuf::from(&path)) {
        Ok(()) => asker.json(&Done { message: format!("the store was copied to {path}"), ..Done::default() }),
        Err(e) => asker.error(
            Error::new(ErrorKind::Conflict, format!("no copy was made: {e}"))
                .hint("the daemon's own user writes the file, and never over one that is there"),
        ),
    });
}

/// Checks the file and what must hold between its rows.
pub fn verify(d: &Daemon, asker: Asker) {
    let admin = d.store.admin();
    tokio::task::spawn_blocking(move || {
        let found = admin.verify();
        if found.is_empty() {
            asker.json(&Done { message: "the store is sound".to_owned(), ..Done::default() });
        } else {
            let mut e = Error::new(ErrorKind::Internal, format!("the store has {} faults", found.len()));
            e.details = found;
            asker.error(e.hint("stop taskd, keep a copy of state_dir, and restore a backup"));
        }
    });
}

/// Streams every message that is not final.
pub fn export(d: &Daemon, asker: Asker) {
    let admin = d.store.admin();
    let (pieces, stream) = mpsc::channel(4);
    let _ = asker.answer.send(Answer::Stream(stream));
    tokio::task::spawn_blocking(move || {
        let mut piece = String::new();
        let mut lines = 0;
        let result = admin.export(&mut |record| {
            let Ok(message) = serde_json::to_value(&record.message) else { return true };
            let line = Exported { v: EXPORT_VERSION, message, attempt: record.attempt };
            piece.push_str(&serde_json::to_string(&line).unwrap_or_default());
            piece.push('\n');
            lines += 1;
            // The client left: stop reading.
            lines % PIECE != 0 || pieces.blocking_send(std::mem::take(&mut piece)).is_ok()
        });
        match result {
            Ok(_) if !piece.is_empty() => {
                let _ = pieces.blocking_send(piece);
            }
            Ok(_) => {}
            // The stream has begun, so the fault is its last line; it is no message, so an import stops there.
            Err(fault) => {
                let error = serde_json::json!({ "error": super::store_error(&fault) });
                let _ = pieces.blocking_send(format!("{piece}{error}\n"));
            }
        }
    });
}

/// Stores messages of another store; known ids change nothing.
pub fn import(d: &Daemon, asker: Asker, list: Vec<Exported>) {
    let mut messages = Vec::with_capacity(list.len());
    for (n, line) in list.into_iter().enumerate() {
        let refuse = |why: String| Error::new(ErrorKind::BadRequest, format!("line {}: {why}", n + 1));
        if line.v != EXPORT_VERSION {
            return asker.error(refuse(format!("version {} of the export is not known here", line.v)));
        }
        let message = match serde_json::from_value::<Message>(line.message) {
            Ok(message) => message,
            Err(e) => return asker.error(refuse(e.to_string())),
        };
        if crate::model::name::check(message.id.as_str()).is_err() {
            return asker.error(refuse(format!("{:?} is no id", message.id.0)));
        }
        // Nobody would take it off that queue, and nobody would say so.
        if !d.settings.queues.contains_key(&message.queue) {
            let queue = &message.queue;
            let e = refuse(format!("no queue is named {queue:?}"));
            return asker.error(e.hint(format!("declare [queues.{queue}] in the config and reload it")));
        }
        messages.push((message, line.attempt));
    }
    let admin = d.store.admin();
    let total = messages.len();
    let now = clock::now().wall;
    let later = d.imported.clone();
    tokio::task::spawn_blocking(move || match admin.import(messages, now) {
        Ok(new) => {
            // The engine learns of what it did not publish itself by looking.
            later.notify_one();
            let message = format!("{new} of {} imported", api::count(total as u64, "message"));
            asker.json(&Done { message, count: Some(new), ..Done::default() });
        }
        Err(fault) => asker.fault(&fault),
    });
}

/// Messages came into the store past the engine: taking its plan anew makes it look at every queue.
pub fn imported(d: &mut Daemon) {
    let plan = std::sync::Arc::new(plan::plan(&d.settings));
    d.step(Event::Plan(plan));
}
