//! `list`: records, newest first; who may not read everything sees his own.

use super::{Asker, mismatch};
use crate::control::api::{Error, ErrorKind, ListQuery};
use crate::daemon::state::Daemon;
use crate::daemon::view;
use crate::model::op::{Filter, Op, Reply};
use crate::model::state::{self, State};
use crate::model::time::Wall;

/// Records of an answer, unless the query says otherwise.
const DEFAULT_LIMIT: u32 = 100;

/// Most records of an answer.
const MAX_LIMIT: u32 = 10_000;

/// Answers with what matches.
pub fn handle(d: &mut Daemon, asker: Asker, query: &ListQuery) {
    let mut states = Vec::new();
    for name in query.state.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|s| !s.is_empty())
    {
        let Some(state) = State::parse(name) else {
            let names: Vec<&str> = state::ALL.iter().map(|s| s.name()).collect();
            let e = Error::new(ErrorKind::BadRequest, format!("no state is named {name}"));
            return asker.error(e.hint(format!("states are {}", names.join(", "))));
        };
        states.push(state);
    }
    let all = asker.rights.read || asker.rights.admin;
    let filter = Filter {
        states,
        task: query.task.clone(),
        queue: query.queue.clone(),
        since: query.since.map(Wall),
        uid: (!all).then_some(asker.peer.uid),
        letters: None,
        limit: query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT),
    };
    d.read(
        Op::List(filter),
        Box::new(move |d, reply| match reply {
            Ok(Reply::Records(list)) => {
                asker.json(&list.iter().map(|r| view::message(d, r)).collect::<Vec<_>>());
            }
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}
