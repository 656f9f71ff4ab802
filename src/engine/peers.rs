//! Other nodes that share the store: what they make known, and what becomes of leases that they took over.

use super::Engine;
use super::command::{Command, Note};
use super::held::{Stage, run_key};
use super::store::Pending;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Reply};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

impl Engine {
    /// Other nodes put messages into queues, or stored one for later; where the store failed, it is there again.
    pub(super) fn woken(&mut self, queues: &[String], due: Option<Wall>) {
        self.store_is_back();
        for queue in queues {
            self.raise(queue);
        }
        if let Some(due) = due {
            self.sweep.note(due);
        }
    }

    /// Whether Celery workers run it.
    pub(super) fn is_external(&self, task: &str) -> bool {
        self.plan.task(task).is_some_and(|t| t.external)
    }

    /// Messages ended that were with Celery workers; what else that did.
    pub(super) fn over(&mut self, ended: Vec<(MessageId, State)>, fallout: Fallout, out: &mut Vec<Command>) {
        self.fell_out(fallout, out);
        self.doubt_schedules();
        for (id, state) in ended {
            self.sweep.finished(self.now.mono);
            out.push(Command::Note(Note::Over { id, state }));
        }
    }

    /// Others may have taken over what this node holds: it is asked for, and everything is looked at anew.
    pub(super) fn lapsed(&mut self) {
        self.store.extend.want();
        self.raise_all();
        self.sweep.job.want();
        self.doubt_schedules();
    }

    /// Asks which leases are still this node's.
    pub(super) fn pump_extend(&mut self, out: &mut Vec<Command>) {
        if self.is_live() && self.store.extend.is_due(self.now.mono) {
            self.store.extend.submitted();
            let leases = self.held.iter().map(|(token, held)| (held.message.id.clone(), *token)).collect();
            self.submit(Pending::Extend, Op::Extend { leases }, out);
        }
    }

    /// What others took over is not to be done here: a second attempt of it may run already.
    pub(super) fn extended(&mut self, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        self.store.extend.answered(self.now.mono, result.is_err());
        if let Ok(Reply::Lost(ids)) = result {
            ids.iter().for_each(|id| self.lose_lease(id, out));
        }
    }

    fn lose_lease(&mut self, id: &MessageId, out: &mut Vec<Command>) {
        let Some(token) = self.by_id.get(id).copied() else { return };
        let child = match self.held.get(&token).map(|held| &held.stage) {
            Some(Stage::Waiting) => None,
            Some(Stage::Starting { child, .. }) => Some(*child),
            Some(Stage::Running(run)) => Some(run.child),
            // The store refuses its end, and that is told where it is heard.
            Some(Stage::Closing(_)) | None => return,
        };
        self.free(token);
        if let Some(child) = child {
            self.evict(child, run_key(token), out);
        } else if let Some(q) = self.held.get(&token).and_then(|h| self.queues.get_mut(&h.message.queue)) {
            q.window.retain(|t| *t != token);
        }
        self.forget(token);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use crate::engine::command::Command;
    use crate::engine::event::Event;
    use crate::model::name::MessageId;

    #[test]
    fn an_end_elsewhere_is_told_and_wakes_what_follows() {
        use crate::engine::command::Note;
        use crate::model::op::Op;
        use crate::model::state::State;
        use crate::model::workflow::Fallout;
        let mut bed = Bed::live();
        bed.take();
        let fallout = Fallout { queues: vec!["default".into()], ..Fallout::default() };
        let ended = vec![(MessageId("a".into()), State::Success)];
        bed.step(Event::Over { ended, fallout: Box::new(fallout) });
        let told = bed.take();
        let over = |c: &Command| matches!(c, Command::Note(Note::Over { state: State::Success, .. }));
        assert!(told.iter().any(over), "{told:?}");
        assert!(told.iter().any(|c| matches!(c, Command::Broker(_, Op::Lease { .. }))), "{told:?}");
    }

    #[test]
    fn what_others_took_over_is_ended_and_the_slot_is_free() {
        let mut bed = Bed::live();
        bed.enqueue("a");
        let run = bed.running().remove(0);
        bed.taken_over = vec![MessageId("a".into())];
        bed.take();
        bed.step(Event::Lapsed);
        let ended = bed.take();
        assert!(ended.iter().any(|c| matches!(c, Command::Cancel { run: r, .. } if *r == run)), "{ended:?}");
        assert_eq!(bed.engine.running(), 0);
    }
}
