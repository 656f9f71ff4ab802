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
    Child(Token, super::ChildKey),
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
        let place = match self.stage_of(id) {
            Some((token, Stage::Waiting)) => Where::Window(token),
            Some((token, Stage::Starting { .. })) => {
                self.free(token);
                Where::Window(token)
            }
            Some((token, Stage::Running(run))) => {
                let told = std::mem::replace(&mut run.revoked, true);
                let child = run.child;
                if told { Where::Child(token, super::ChildKey(u64::MAX)) } else { Where::Child(token, child) }
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
            Where::Child(token, child) => {
                if self.children.contains_key(&child) {
                    let run = super::run_key(token);
                    out.push(Command::Cancel { child, run, reason: CancelReason::Revoked });
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
    use crate::engine::event::Ask;

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
}
