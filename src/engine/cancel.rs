//! Canceling a message, wherever it is: in the store, in a window, in a child, or on its way.

use super::Engine;
use super::ask::Work;
use super::command::{Command, Told};
use super::event::AskKey;
use super::held::Stage;
use crate::model::message::{Record, Token};
use crate::model::name::MessageId;
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::state::State;
use crate::model::time::Wall;

/// Where a message is.
enum Where {
    Window(Token),
    /// Whether its child is still to be told.
    Child(Token, bool),
    Closing(Token),
    Store,
}

/// A message that is on its way between store and node is looked for again after this, in milliseconds,
/// unless it is found before.
const LOOK_AGAIN_MS: u64 = 50;

impl Engine {
    /// Ends a message that is leased and not started.
    pub(super) fn revoke_waiting(&mut self, token: Token, out: &mut Vec<Command>) {
        let outcome = Outcome::of_cause(Cause::Revoked, "canceled before it started");
        self.settle_waiting(token, State::Revoked, outcome, out);
    }

    /// Decides how to end it; sets what is next for the client.
    pub(super) fn cancel(&mut self, key: AskKey, id: &MessageId, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let place = match self.stage_of(id) {
            Some((token, Stage::Waiting)) => Where::Window(token),
            Some((token, Stage::Starting { .. })) => {
                self.free(token);
                Where::Window(token)
            }
            Some((token, Stage::Running(run))) => {
                // A child that does not answer is killed: a task can stop its own runner.
                Where::Child(token, Self::revoke_running(run, now))
            }
            Some((token, Stage::Closing(_))) => Where::Closing(token),
            None => Where::Store,
        };
        match place {
            Where::Window(token) => {
                for q in self.queues.values_mut() {
                    q.window.retain(|t| *t != token);
                }
                self.revoke_waiting(token, out);
                self.await_close(key, token, id);
            }
            Where::Child(token, first) => {
                if first {
                    self.tell_cancel(token, CancelReason::Revoked, out);
                }
                self.turn_to(key, Work::Canceled(id.clone()));
            }
            Where::Closing(token) => self.await_close(key, token, id),
            Where::Store if self.is_live() => {
                let now = self.now.wall;
                self.turn_to(key, Work::Revoke { id: id.clone(), now });
            }
            Where::Store => self.park(key),
        }
    }

    /// Looks again when its end is committed; one that was given up is answered by the ask's own patience.
    fn await_close(&mut self, key: AskKey, token: Token, id: &MessageId) {
        self.turn_to(key, Work::AwaitClose(id.clone()));
        if let Some(held) = self.held.get_mut(&token) {
            held.cancels.push(key);
        }
    }

    /// The lease that a cancel waited for is over.
    pub(super) fn cancel_again(&mut self, key: AskKey) {
        if let Some(Work::AwaitClose(id)) = self.asks.get(&key).map(|a| a.work.clone()) {
            self.turn_to(key, Work::Cancel(id));
        }
    }

    fn park(&mut self, key: AskKey) {
        let at = self.now.mono.plus(LOOK_AGAIN_MS);
        if let Some(asking) = self.asks.get_mut(&key) {
            asking.at = at;
        }
    }

    /// A message arrived that somebody may be looking for.
    pub(super) fn unpark(&mut self, id: &MessageId) {
        let now = self.now.mono;
        for asking in self.asks.values_mut() {
            if matches!(&asking.work, Work::Cancel(i) if i == id) {
                asking.at = now;
            }
        }
    }

    pub(super) fn revoked(
        &mut self,
        key: AskKey,
        id: MessageId,
        asked: Wall,
        record: Option<Box<Record>>,
        out: &mut Vec<Command>,
    ) {
        match &record {
            // A Celery worker has it: the store sends the word, and its answer is the end.
            Some(r)
                if !r.state.is_final()
                    && !self.by_id.contains_key(&id)
                    && self.is_external(&r.message.task) =>
            {
                self.answer(key, Told::Canceled { record, ending: true, too_late: false }, out);
            }
            // Another node runs it, and was asked to end it.
            Some(r) if r.state == State::Running && !self.by_id.contains_key(&id) => {
                self.answer(key, Told::Canceled { record, ending: true, too_late: false }, out);
            }
            Some(r) if !r.state.is_final() => {
                // Leased, and not known here (or it became known meanwhile): it is on its way.
                let here = self.by_id.contains_key(&id);
                self.turn_to(key, Work::Cancel(id));
                if !here {
                    self.park(key);
                }
            }
            _ => {
                if record.as_ref().is_some_and(|r| r.state == State::Revoked && r.finished == Some(asked)) {
                    self.note_dropped(&id, State::Revoked, out);
                    if let Some(record) = &record {
                        self.fire_ended(&record.message, State::Revoked, asked, out);
                    }
                }
                let too_late = record.as_ref().is_some_and(|r| r.state != State::Revoked);
                self.answer(key, Told::Canceled { record, ending: false, too_late }, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::event::{Ask, Event};
    use crate::model::op::Op;

    fn canceled(bed: &mut Bed, id: &str) -> (Option<State>, bool, bool) {
        match bed.ask(Ask::Cancel(MessageId(id.into()))) {
            Some(Told::Canceled { record, ending, too_late }) => (record.map(|r| r.state), ending, too_late),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_ends_a_message_wherever_it_is() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        bed.enqueue("runs");
        bed.enqueue("window");
        bed.enqueue_at("store", Some(bed.wall().plus(9_000)));
        assert_eq!(canceled(&mut bed, "nowhere"), (None, false, false));
        assert_eq!(canceled(&mut bed, "window"), (Some(State::Revoked), false, false));
        assert_eq!(canceled(&mut bed, "store"), (Some(State::Revoked), false, false));
        let run = bed.running().pop().unwrap();
        assert_eq!(canceled(&mut bed, "runs"), (Some(State::Running), true, false));
        bed.end(&run, Outcome::of_cause(Cause::Revoked, "told to"));
        assert_eq!(bed.state("runs"), State::Revoked);
        bed.enqueue("done");
        let run = bed.running().pop().unwrap();
        bed.succeed(&run);
        assert_eq!(canceled(&mut bed, "done"), (Some(State::Success), false, true));
    }

    #[test]
    fn a_canceled_attempt_that_is_lost_does_not_come_back() {
        let mut bed = Bed::live();
        bed.enqueue("m");
        canceled(&mut bed, "m");
        bed.kill_children();
        assert_eq!(bed.state("m"), State::Revoked);
    }

    fn killed(log: &[Command]) -> bool {
        log.iter().any(|c| matches!(c, Command::End { kill: true, .. }))
    }

    fn cause(log: &[Command]) -> Option<Cause> {
        log.iter().find_map(|c| match c {
            Command::Broker(_, Op::Settle(s)) => Some(s.outcome.cause.clone()),
            _ => None,
        })
    }

    #[test]
    fn a_child_that_does_not_answer_a_cancel_is_killed() {
        let mut bed = Bed::with(|p| p.tasks.get_mut("t").unwrap().time_limit_ms = Some(60_000));
        bed.enqueue("m");
        bed.take();
        canceled(&mut bed, "m");
        assert_eq!(bed.engine.next_deadline(), Some(bed.mono().plus(10_000)));
        bed.pass(9_000);
        canceled(&mut bed, "m");
        bed.pass(999);
        assert!(!killed(&bed.log()), "a second word does not give it more time");
        bed.pass(1);
        assert!(killed(&bed.log()));
        bed.kill_children();
        assert_eq!((bed.state("m"), cause(&bed.take())), (State::Revoked, Some(Cause::Revoked)));
    }

    #[test]
    fn a_hard_limit_that_comes_first_still_ends_what_was_canceled() {
        let mut bed = Bed::with(|p| p.tasks.get_mut("t").unwrap().time_limit_ms = Some(60_000));
        bed.enqueue("m");
        bed.pass(60_000);
        canceled(&mut bed, "m");
        bed.take();
        bed.pass(4_999);
        assert!(!killed(&bed.log()));
        bed.pass(1);
        assert!(killed(&bed.log()));
        bed.kill_children();
        assert_eq!((bed.state("m"), cause(&bed.take())), (State::Revoked, Some(Cause::Revoked)));
    }

    #[test]
    fn a_canceled_run_is_not_saved_by_a_stop_that_kills_its_child() {
        let mut bed = Bed::live();
        bed.enqueue("m");
        bed.step(Event::Stop { now: true });
        bed.pass(5_000);
        canceled(&mut bed, "m");
        bed.pass(5_000);
        bed.kill_children();
        assert_eq!((bed.state("m"), cause(&bed.take())), (State::Revoked, Some(Cause::Revoked)));
    }
}
