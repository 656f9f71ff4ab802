//! Accepting messages: routed, bounded, durable before the client hears of it.

use super::Engine;
use super::ask::Work;
use super::command::{Command, Note, Told};
use super::event::AskKey;
use super::route;
use crate::model::message::Message;
use crate::model::op::{Fault, Published, Reply};
use crate::model::state::State;

impl Engine {
    /// Gives every message its queue.
    pub(super) fn publication(&self, mut messages: Vec<Message>) -> Result<Work, Told> {
        let mut max_length = Vec::with_capacity(messages.len());
        for message in &mut messages {
            max_length.push(self.routed(message)?);
            super::unique::claim(&self.plan, message);
            message.lane = self.lane_of(message);
        }
        if messages.is_empty() {
            return Err(Told::Published(Vec::new()));
        }
        if max_length.iter().all(Option::is_none) {
            max_length.clear();
        }
        Ok(Work::Publish { messages, max_length, now: self.now.wall })
    }

    /// Gives a message its queue; the bound of that.
    pub(super) fn routed(&self, message: &mut Message) -> Result<Option<u64>, Told> {
        if message.queue.is_empty() {
            route(&self.plan, &message.task).clone_into(&mut message.queue);
        }
        match self.plan.queues.get(&message.queue) {
            Some(queue) => Ok(queue.max_length),
            // Celery workers drain it: whoever asked has seen that it is one of theirs.
            None if self.is_external(&message.task) => Ok(None),
            None => Err(Told::NoSuchQueue(message.queue.clone())),
        }
    }

    pub(super) fn published(
        &mut self,
        key: AskKey,
        messages: Vec<Message>,
        reply: Reply,
        out: &mut Vec<Command>,
    ) {
        let told = match reply {
            Reply::Published(each) if each.len() == messages.len() => {
                let repeated = self.asks.get(&key).is_some_and(|a| a.tries > 0);
                let mut told = Vec::with_capacity(each.len());
                for (message, became) in messages.into_iter().zip(each) {
                    told.push(self.accepted(message, became, repeated, out));
                }
                Told::Published(told)
            }
            Reply::QueueFull { queue, max_length } => Told::QueueFull { queue, max_length },
            other => Told::Fault(Fault::Refused(format!("the store answered something else: {other:?}"))),
        };
        self.answer(key, told, out);
    }

    fn accepted(
        &mut self,
        message: Message,
        became: Published,
        repeated: bool,
        out: &mut Vec<Command>,
    ) -> (crate::model::name::MessageId, String, Published) {
        let became = match became {
            // The failed try had taken place: to the client it is as new as it was to the store.
            Published::Known(r) if repeated && r.message == message => Published::New,
            other => other,
        };
        if let Published::Replaced(ended) = &became {
            self.note_dropped(ended, State::Revoked, out);
        }
        if matches!(became, Published::New | Published::Replaced(_)) {
            let later = message.eta.is_some_and(|eta| eta > self.now.wall);
            let state = if later { State::Scheduled } else { State::Waiting };
            self.note_times(&message.queue, message.eta, message.expires);
            if !later {
                self.overtake(&message.queue, message.priority);
            }
            let (id, task, queue) = (message.id.clone(), message.task.clone(), message.queue.clone());
            out.push(Command::Note(Note::Received { id, task, queue, state }));
            self.fire_began(&message);
        }
        (message.id, message.queue, became)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use crate::engine::command::Told;
    use crate::model::op::{Fault, Published};

    #[test]
    fn a_queue_that_is_not_there_is_an_answer() {
        let mut bed = Bed::live();
        assert_eq!(bed.enqueue_in("m", "nowhere"), Some(Told::NoSuchQueue("nowhere".into())));
    }

    #[test]
    fn a_failed_publish_that_took_place_is_answered_as_new() {
        let mut bed = Bed::live();
        bed.fail_after(1);
        assert_eq!(bed.enqueue("m"), None, "no answer while it is not known");
        bed.pass(100);
        let Some(Told::Published(told)) = bed.last_answer() else { panic!("no answer") };
        assert_eq!(told[0].2, Published::New);
        assert_eq!(bed.running().len(), 1);
    }

    #[test]
    fn a_store_that_keeps_failing_is_told_to_the_client_in_time() {
        let mut bed = Bed::live();
        bed.fail_after(1_000);
        bed.enqueue("m");
        let since = bed.mono();
        while bed.last_answer().is_none() {
            bed.pass(50);
        }
        assert_eq!(bed.last_answer(), Some(Told::Fault(Fault::Again("full".into()))));
        assert!(bed.mono().since(since) <= 5_000);
    }
}
