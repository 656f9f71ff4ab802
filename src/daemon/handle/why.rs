//! `why`: why a message does not run yet, in a sentence; of a workflow, why its next step does not.

use super::workflow::{Found, find, look_up};
use super::{Asker, mismatch, no_such_message, store_error};
use crate::control::api::{WhyView, count};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;
use crate::model::workflow::{Head, Look, Seen, Stage, StepSeen};

/// Steps that are looked through at a time.
const PART: u32 = 1_000;

/// Whoever may see it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    find(d, asker, id.clone(), move |d, asker, found| match found {
        Found::Message(_) => {
            d.ask(Ask::Why(MessageId(id.clone())), Box::new(move |_, told| answer(asker, id, told)));
        }
        Found::Workflow(seen) if seen.head.finished.is_some() => {
            let Seen { head, .. } = *seen;
            let failed = match head.failed {
                0 => String::new(),
                n => format!("; {} did not end well", count(u64::from(n), "step")),
            };
            let why =
                format!("the workflow {} is over{failed}: `taskd show {id}` prints its steps", head.name);
            asker.json(&WhyView { id, state: head.state(), why });
        }
        Found::Workflow(_) => workflow(d, asker, id, 0),
    });
}

/// Finds the first step that was published and is not over: what comes after it waits for that.
fn workflow(d: &mut Daemon, asker: Asker, id: String, from: u32) {
    let look = Look { id: MessageId(id.clone()), from, limit: PART, results: false };
    look_up(d, asker, look, move |d, asker, seen| {
        let Some(seen) = seen else { return asker.error(no_such_message(&id)) };
        let Seen { head, steps, next } = *seen;
        match (steps.into_iter().find(|s| s.stage == Stage::Published), next) {
            (Some(step), _) => {
                let ask = Ask::Why(step.id.clone());
                d.ask(ask, Box::new(move |_, told| answer_workflow(asker, id, &head, &step, told)));
            }
            (None, Some(next)) => workflow(d, asker, id, next),
            (None, None) => {
                let why = format!("{}: what follows the last end is being published", open(&head));
                asker.json(&WhyView { id, state: head.state(), why });
            }
        }
    });
}

/// How much of it is left.
fn open(head: &Head) -> String {
    let steps = count(u64::from(head.steps), "step");
    format!("the workflow {} is {}, {} of its {steps} not over", head.name, head.state(), head.open)
}

fn answer_workflow(asker: Asker, id: String, head: &Head, step: &StepSeen, told: Told) {
    let because = match told {
        Told::Why(Some((state, why))) => format!("is {state}: {why}"),
        Told::Why(None) => "is just ending".to_owned(),
        other => return answer(asker, id, other),
    };
    let named =
        if step.name.is_empty() { step.task.clone() } else { format!("{} ({})", step.name, step.task) };
    let why = format!(
        "{}; step {} {named}, {}, {because}. `taskd show {id}` prints all steps",
        open(head),
        step.no,
        step.id
    );
    asker.json(&WhyView { id, state: head.state(), why });
}

fn answer(asker: Asker, id: String, told: Told) {
    match told {
        Told::Why(Some((state, why))) => asker.json(&WhyView { id, state, why }),
        Told::Why(None) => asker.error(no_such_message(&id)),
        Told::Fault(fault) => asker.error(store_error(&fault)),
        _ => asker.error(mismatch()),
    }
}
