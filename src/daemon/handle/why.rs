//! `why`: why a message does not run yet, in a sentence.

use super::{Asker, mismatch, no_such_message, store_error};
use crate::control::api::WhyView;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;
use crate::model::op::{Op, Reply};

/// Whoever may see it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    d.read(
        Op::Get { id: MessageId(id.clone()) },
        Box::new(move |d, reply| match reply {
            Ok(Reply::Record(Some(record))) if asker.may_see(&record) => {
                d.ask(Ask::Why(MessageId(id.clone())), Box::new(move |_, told| answer(asker, id, told)));
            }
            Ok(Reply::Record(_)) => asker.error(no_such_message(&id)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

fn answer(asker: Asker, id: String, told: Told) {
    match told {
        Told::Why(Some((state, why))) => asker.json(&WhyView { id, state, why }),
        Told::Why(None) => asker.error(no_such_message(&id)),
        Told::Fault(fault) => asker.error(store_error(&fault)),
        _ => asker.error(mismatch()),
    }
}
