//! `store`: backup, verify, export, import. They may take long, so they run on a thread of their own, with
//! connections of their own; the loop goes on.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::sync::mpsc;

use super::Asker;
use crate::control::api::{self, Answer, BackupPiece, Done, Error, ErrorKind, Exported};
use crate::daemon::state::Daemon;
use crate::daemon::{clock, plan};
use crate::engine::event::Event;
use crate::model::letters::LetterFilter;
use crate::model::message::Message;
use crate::model::op::Fault;

/// How the files of copies under way are named.
const PARTIAL: &str = "backup.partial.";

/// Bytes of a copy in one line.
const BLOCK: usize = 48 << 10;

/// Version of the export's lines.
const EXPORT_VERSION: u32 = 1;

/// Lines gathered into one piece of an export.
const PIECE: usize = 64;

/// Streams a consistent copy while work goes on. It is made beside the store first, so that a slow client holds up
/// nobody; whoever asked writes the file where it wants it, with its own rights.
pub fn backup(d: &Daemon, asker: Asker) {
    let Some(admin) = d.store.admin() else { return asker.error(not_here()) };
    let (pieces, stream) = mpsc::channel(4);
    let _ = asker.answer.send(Answer::Stream(stream));
    let path = partial(&d.settings.taskd.state_dir);
    tokio::task::spawn_blocking(move || {
        let copied = admin.backup(&path).map_err(|e| e.to_string());
        let file = copied.and_then(|()| File::open(&path).map_err(|e| format!("{}: {e}", path.display())));
        // What is open can still be read, and nothing is left however this ends.
        let _ = fs::remove_file(&path);
        let sent = file.and_then(|mut file| {
            pass_on(&mut file, &mut |piece| pieces.blocking_send(line(&piece)).is_ok())
                .map_err(|e| format!("{}: {e}", path.display()))
        });
        if let Err(why) = sent {
            let error = Error::new(ErrorKind::Conflict, format!("no copy was made: {why}"))
                .hint("the copy is made in state_dir first: there must be room for it");
            let _ = pieces.blocking_send(format!("{}\n", serde_json::json!({ "error": error })));
        }
    });
}

/// A broker that nodes share is nobody's file.
fn not_here() -> Error {
    let what = "the messages are on a broker that nodes share, not in a file of this one";
    let hint = "copy and move what a Redis server has with its own tools (BGSAVE, its append-only file)";
    Error::new(ErrorKind::Conflict, what.to_owned()).hint(hint)
}

/// A file for a copy that is being made.
fn partial(state_dir: &Path) -> PathBuf {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    state_dir.join(format!("{PARTIAL}{}.{number}", std::process::id()))
}

/// Removes the copies that an earlier daemon was making when it died.
pub fn sweep(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
            // What cannot be removed takes room and does no other harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn line(piece: &BackupPiece) -> String {
    serde_json::to_string(piece).unwrap_or_default() + "\n"
}

/// Hands the whole of a file to `take`, and its length at the end. A client that left ends it early.
fn pass_on(file: &mut impl Read, take: &mut dyn FnMut(BackupPiece) -> bool) -> io::Result<()> {
    let mut bytes = 0;
    loop {
        let mut piece = Vec::with_capacity(BLOCK);
        let read = file.by_ref().take(BLOCK as u64).read_to_end(&mut piece)?;
        if read == 0 {
            take(BackupPiece::Bytes(bytes));
            return Ok(());
        }
        bytes += read as u64;
        if !take(BackupPiece::Data(BASE64_STANDARD.encode(&piece))) {
            return Ok(());
        }
    }
}

/// Checks the file and what must hold between its rows.
pub fn verify(d: &Daemon, asker: Asker) {
    let Some(admin) = d.store.admin() else { return asker.error(not_here()) };
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

/// Streams every message that is not final. What is to follow the steps of workflows is not among them, and nobody
/// loses that unasked.
pub fn export(d: &Daemon, asker: Asker, leave_workflows: bool) {
    let Some(admin) = d.store.admin() else { return asker.error(not_here()) };
    tokio::task::spawn_blocking(move || {
        match admin.open_workflows() {
            Ok(n) if n > 0 && !leave_workflows => {
                let what = format!(
                    "{} not over, and an export has messages only: what is to follow them would be left out",
                    if n == 1 { "1 workflow is".to_owned() } else { format!("{n} workflows are") }
                );
                let hint = "wait for them or cancel them; --leave-workflows exports their messages without what \
                            follows; `taskd store backup` copies everything";
                return asker.error(Error::new(ErrorKind::Conflict, what).hint(hint));
            }
            Err(fault) => return asker.fault(&fault),
            Ok(_) => {}
        }
        stream(asker, move |cb| admin.export(&mut |record| cb(&record.message, record.attempt)));
    });
}

/// Streams dead letters, oldest first, each as it would begin a new life.
pub fn export_letters(d: &Daemon, asker: Asker, filter: LetterFilter, most: u64) {
    let Some(admin) = d.store.admin() else { return asker.error(not_here()) };
    stream(asker, move |cb| admin.export_letters(&filter, most, &mut |message| cb(&message, 0)));
}

/// Gathers messages into lines of an export until the client leaves.
fn stream(
    asker: Asker,
    export: impl FnOnce(&mut dyn FnMut(&Message, u32) -> bool) -> Result<u64, Fault> + Send + 'static,
) {
    let (pieces, stream) = mpsc::channel(4);
    let _ = asker.answer.send(Answer::Stream(stream));
    tokio::task::spawn_blocking(move || {
        let mut piece = String::new();
        let mut lines = 0;
        let result = export(&mut |message, attempt| {
            let Ok(message) = serde_json::to_value(message) else { return true };
            let line = Exported { v: EXPORT_VERSION, message, attempt };
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
    let Some(admin) = d.store.admin() else { return asker.error(not_here()) };
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
