//! What a schedule fires: the message or the workflow as it is now, and what the store made of it.

use std::collections::BTreeMap;

use super::Engine;
use super::command::{About, Command, Note};
use super::plan::{SchedulePlan, Target, When};
use super::schedule_replace::Replaced;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::schedule::{Became, Fired, Fires, Skip, Ticked};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{Declared, Step, Workflow};

impl Engine {
    /// What a schedule fires, as it is now; without ids. Absent: there is no such schedule.
    pub(super) fn firing(&self, name: &str, planned: Option<Wall>) -> Option<Fires> {
        let plan = self.plan.schedules.get(name)?;
        let fired = Fired { schedule: name.to_owned(), planned, held: false };
        Some(match &plan.target {
            Target::Task(task) => Fires::Message(Box::new(self.fired_message(plan, task, fired))),
            Target::Workflow(declared) => Fires::Workflow(Box::new(self.fired_workflow(declared, fired))),
        })
    }

    fn fired_message(&self, plan: &SchedulePlan, task: &str, fired: Fired) -> Message {
        let declared = self.plan.task(task);
        let queue = plan.queue.clone().unwrap_or_else(|| super::route(&self.plan, task).to_owned());
        let expires_ms = plan.expires_ms.or_else(|| declared.and_then(|t| t.expires_ms));
        let mut message = Message {
            task: task.to_owned(),
            queue,
            args: plan.args.clone(),
            kwargs: plan.kwargs.clone(),
            priority: plan.priority.or_else(|| declared.map(|t| t.priority)).unwrap_or(0),
            expires: expires_ms.map(|ms| self.now.wall.plus(ms)),
            enqueued: self.now.wall,
            fired: Some(fired),
            ..Message::default()
        };
        super::unique::claim(&self.plan, &mut message);
        message.lane = self.lane_of(&message);
        message
    }

    fn fired_workflow(&self, declared: &Declared, fired: Fired) -> Workflow {
        let mut steps = declared.steps.clone();
        steps.iter_mut().for_each(|step| self.place_step(step));
        let (keep_ms, name) = (self.plan.retention.age_ms, declared.name.clone());
        Workflow { name, keep_ms, fired: Some(fired), steps, ..Workflow::default() }
    }

    /// Gives a step its queue and what it claims.
    pub(super) fn place_step(&self, step: &mut Step) {
        if step.message.queue.is_empty() {
            super::route(&self.plan, &step.message.task).clone_into(&mut step.message.queue);
        }
        super::unique::claim_of_step(&self.plan, step);
    }

    /// The bounds of the queues of what waits at once.
    pub(super) fn bounds_of(&self, fires: &Fires) -> BTreeMap<String, u64> {
        let bound = |m: &Message| Some((m.queue.clone(), self.plan.queues.get(&m.queue)?.max_length?));
        fires.first().filter_map(bound).collect()
    }

    /// The store took a planned time. `repeated`: it may have taken it before.
    pub(super) fn took_tick(
        &mut self,
        name: &str,
        planned: Wall,
        t: Ticked,
        repeated: bool,
        out: &mut Vec<Command>,
    ) {
        let Some(plan) = self.plan.schedules.get(name) else { return };
        let (pause_after, offset, is_after) =
            (plan.pause_after, plan.offset_ms, matches!(plan.when, When::After { .. }));
        let Some(fires) = self.firing(name, Some(planned)) else { return };
        let is_flow = matches!(fires, Fires::Workflow(_));
        let Some(entry) = self.schedules.entries.get_mut(name) else { return };
        let row = &mut entry.row;
        // What the answer does not say stands in the row.
        let mut doubt = is_after;
        let mut fired = false;
        match &t.became {
            Became::Fired | Became::Held => {
                fired = true;
                doubt = false;
                row.tick(planned, pause_after, Some((t.id.clone(), is_flow)));
                row.live += 1;
                row.held += u64::from(t.became == Became::Held);
            }
            Became::Known => {
                fired = repeated;
                doubt |= repeated;
            }
            Became::Paused => doubt = true,
            Became::Skipped(why) => {
                row.tick(planned, pause_after, None);
                // A workflow was over at once, and told as such.
                doubt |= is_flow && *why == Skip::KeyHeld;
                let what = About::Skipped { planned, why: why.clone() };
                out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
            }
        }
        if doubt {
            self.replan_schedules();
        }
        if fired {
            let held = t.became == Became::Held;
            self.note_fires(&fires, held);
            let late_ms = self.now.wall.since(planned.plus(offset));
            let id = t.id;
            let what = match fires {
                Fires::Message(m) => {
                    About::Fired { planned, late_ms, id, task: m.task, queue: m.queue, held }
                }
                Fires::Workflow(w) => About::Launched { planned, late_ms, id, workflow: w.name, held },
            };
            out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
        }
        for id in t.revoked {
            self.note_dropped(&id, State::Revoked, out);
            self.count_end(name, &id, State::Revoked, self.now.wall, out);
        }
        for id in t.running {
            self.replace(Replaced::Message(id), out);
        }
        for id in t.flows {
            self.replace(Replaced::Workflow(id), out);
        }
    }

    /// Something is stored; what waits at once may be leased.
    fn note_fires(&mut self, fires: &Fires, held: bool) {
        match fires {
            Fires::Message(message) => {
                if !held {
                    self.overtake(&message.queue, message.priority);
                    self.raise(&message.queue);
                }
                if let Some(expires) = message.expires {
                    self.sweep.note(expires);
                }
            }
            Fires::Workflow(workflow) if !held => self.note_roots(workflow),
            Fires::Workflow(_) => {}
        }
    }

    /// The message of a fire by hand, to be enqueued, or the workflow, to be launched. Absent: there is no such
    /// schedule.
    #[must_use]
    pub fn fire_by_hand(&self, name: &str, id: MessageId, uid: u32) -> Option<Fires> {
        Some(match self.firing(name, None)? {
            Fires::Message(m) => Fires::Message(Box::new(Message { id, uid: Some(uid), ..*m })),
            Fires::Workflow(w) => {
                let named = Workflow::new(id, &w.name, Some(uid), w.steps).ok()?;
                Fires::Workflow(Box::new(Workflow { fired: w.fired, ..named }))
            }
        })
    }
}
