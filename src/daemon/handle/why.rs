//! `why`: why a message does not run yet, in a sentence.

use super::{Asker, mismatch, no_such_message, store_error, with_record};
use crate::control::api::WhyView;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;

/// Whoever may see it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    with_record(d, asker, &id.clone(), move |d, asker, _| {
        d.ask(Ask::Why(MessageId(id.clone())), Box::new(move |_, told| answer(asker, id, told)));
    });
}

fn answer(asker: Asker, id: String, told: Told) {
    match told {
        Told::Why(Some((state, why))) => asker.json(&WhyView { id, state, why }),
        Told::Why(None) => asker.error(no_such_message(&id)),
        Told::Fault(fault) => asker.error(store_error(&fault)),
        _ => asker.error(mismatch()),
    }
}
