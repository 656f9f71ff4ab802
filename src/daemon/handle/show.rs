//! `show`: a workflow with the states of its steps.

use super::{Asker, workflow};
use crate::daemon::state::Daemon;
use crate::model::workflow::Look;

/// Whoever may see it.
pub fn handle(d: &mut Daemon, asker: Asker, look: Look) {
    workflow::look(d, asker, look, |_, asker, seen| asker.json(&workflow::view(*seen)));
}
