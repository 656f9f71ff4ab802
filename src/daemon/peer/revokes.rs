//! What was revoked, kept over restarts: as facts of the store under `revoked:`.

use crate::celery::json::{Fields, Raw};
use crate::control::celery::revoked::KEPT_MS;
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::model::op::{Fault, MAX_MEMOS, Memo, Op, Reply};
use crate::model::time::Wall;

/// What the keys of ids begin with.
const IDS: &str = "revoked:";

/// What the keys of stamps begin with; no id can, since none has an equals sign.
const STAMPS: &str = "revoked:=";

/// Reads what is kept, a part at a time, and drops what is too old.
pub(super) fn load(d: &mut Daemon, after: String) {
    d.read(
        Op::Recall { prefix: IDS.to_owned(), after: after.clone() },
        Box::new(|d, reply| match reply {
            Ok(Reply::Memos(memos)) => take_in(d, memos),
            Ok(_) => {}
            Err(Fault::Again(_) | Fault::Reconnect(_)) => {
                // A broker that is away is told of elsewhere; it is read on when that is back.
                if let Some(celery) = &mut d.celery {
                    celery.unread = Some(after);
                }
            }
            Err(fault) => {
                tracing::warn!("what Celery's tools revoked before this start is not known: {fault}")
            }
        }),
    );
}

fn take_in(d: &mut Daemon, memos: Vec<Memo>) {
    let now = clock::now().wall;
    let next = memos.last().filter(|_| memos.len() >= MAX_MEMOS).map(|memo| memo.key.clone());
    let mut old = Vec::new();
    let mut ids = Vec::new();
    for Memo { key, value } in memos {
        let (at, stamps) = read(value.as_deref().unwrap_or_default());
        if now.since(at) >= KEPT_MS {
            old.push(Memo { key, value: None });
        } else if let Some(stamps) = stamps {
            if let Some(celery) = &d.celery {
                celery.peer.remember_stamps(&stamps, at);
            }
        } else if let Some(id) = key.strip_prefix(IDS) {
            ids.push((id.to_owned(), at));
        }
    }
    if let Some(celery) = &d.celery {
        celery.peer.remember(ids);
    }
    remember(d, old);
    if let Some(after) = next {
        load(d, after);
    }
}

/// A fact's time, and the stamps that follow it, if any.
fn read(value: &str) -> (Wall, Option<Fields>) {
    let (at, stamps) = value.split_once(' ').map_or((value, None), |(at, stamps)| (at, Some(stamps)));
    let stamps = stamps.and_then(|text| Fields::of(Raw::parse(text).ok()?.json()));
    (Wall(at.parse().unwrap_or(0)), stamps)
}

/// Keeps these ids, and no longer those that are too old.
pub(super) fn keep(d: &mut Daemon, ids: &[String]) {
    let at = clock::now().wall.0.to_string();
    let gone = d.celery.as_ref().map(|celery| celery.peer.forget()).unwrap_or_default();
    let mut memos: Vec<Memo> =
        gone.iter().map(|id| Memo { key: format!("{IDS}{id}"), value: None }).collect();
    memos.extend(ids.iter().map(|id| Memo { key: format!("{IDS}{id}"), value: Some(at.clone()) }));
    remember(d, memos);
}

/// Keeps these stamps.
pub(super) fn keep_stamps(d: &mut Daemon, stamps: &Fields) {
    let text = stamps.to_raw().text().to_owned();
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes());
    let value = format!("{} {text}", clock::now().wall.0);
    remember(d, vec![Memo { key: format!("{STAMPS}{name}"), value: Some(value) }]);
}

fn remember(d: &mut Daemon, memos: Vec<Memo>) {
    for part in memos.chunks(MAX_MEMOS) {
        d.read(
            Op::Remember(part.to_vec()),
            Box::new(|_, reply| {
                if let Err(fault) = reply {
                    tracing::warn!("a revoke of Celery's tools holds only until the next restart: {fault}");
                }
            }),
        );
    }
}
