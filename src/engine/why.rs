//! Why a message is not running yet, in a sentence.

use super::Engine;
use super::held::Stage;
use crate::model::message::{Message, Record};
use crate::model::op::QueueCount;
use crate::model::state::State;

/// A length of time for people.
pub(super) fn span(ms: u64) -> String {
    match ms / 1_000 {
        0 => format!("{ms} ms"),
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

impl Engine {
    /// The sentence, where the store need not be asked how its queue stands.
    pub(super) fn why(&mut self, record: &Record) -> Option<String> {
        let message = &record.message;
        let now = self.now.wall;
        match record.state {
            State::Running => {
                let since = record.started.map_or(0, |s| now.since(s));
                return Some(format!("it has been running for {} (attempt {})", span(since), record.attempt));
            }
            State::Scheduled if let Some(fired) = message.fired.as_ref().filter(|_| record.due.is_none()) => {
                let schedule = &fired.schedule;
                return Some(format!("it waits for the end of what the schedule {schedule} fired before"));
            }
            State::Scheduled | State::Retry => {
                let due = record.due.map_or(0, |d| d.since(now));
                let what = if record.state == State::Retry { "its next attempt is" } else { "it is" };
                let times = message.memory_retries;
                let memory = match times {
                    0 => String::new(),
                    1 => " (its task's on_memory rule was applied once)".to_owned(),
                    n => format!(" (its task's on_memory rule was applied {n} times)"),
                };
                let served = self.unserved(message).map(|why| format!("; {why}")).unwrap_or_default();
                return Some(format!("{what} due in {}{memory}{served}", span(due)));
            }
            state if state.is_final() => {
                let cause = record.outcome.as_ref().map(|o| format!(" ({})", o.cause)).unwrap_or_default();
                return Some(format!("it is over: {state}{cause}"));
            }
            _ => {}
        }
        if let Some((_, stage)) = self.stage_of(&message.id) {
            match stage {
                Stage::Running(_) | Stage::Starting { .. } => return Some("it is being started".to_owned()),
                Stage::Closing(_) => return Some("the end of its lease is being recorded".to_owned()),
                Stage::Waiting => {}
            }
        }
        if self.plan.task(&message.task).is_none() {
            let task = &message.task;
            return Some(format!(
                "no task {task} is declared; it waits in the queue's unknown set for a reload"
            ));
        }
        if self.is_external(&message.task) {
            let queue = &message.queue;
            return Some(if record.token.is_some() {
                format!("it was sent to Celery's queue {queue}, and no Celery worker has told of its end yet")
            } else {
                format!("it is about to be sent to Celery's queue {queue}")
            });
        }
        if !self.plan.queues.contains_key(&message.queue) {
            return Some(format!("no queue {} is declared any more", message.queue));
        }
        None
    }

    /// The sentence for a message that waits in its queue.
    pub(super) fn why_waiting(&mut self, record: &Record, counts: &[QueueCount]) -> String {
        let message = &record.message;
        let name = &message.queue;
        let count = counts.iter().find(|c| c.queue == *name);
        if self.stop.is_some() {
            return "taskd is stopping; it runs after the next start".to_owned();
        }
        if self.draining {
            return "taskd is draining: it takes nothing new (`taskd drain --off` ends that)".to_owned();
        }
        if count.is_some_and(|c| c.paused) {
            return format!("the queue {name} is paused (`taskd resume {name}` ends that)");
        }
        if !self.is_live() {
            return "the children of an earlier daemon are being taken over".to_owned();
        }
        if let Some(fault) = &self.store.fault {
            return format!("the store fails: {fault}");
        }
        if let Some(pressure) = self.pressure {
            return self.pressed(pressure);
        }
        if self.is_clogged() {
            return "too many outcomes wait for the store; nothing new is started until it takes them"
                .to_owned();
        }
        if let Some(why) = self.why_limited(message) {
            return why;
        }
        let Some(plan) = self.plan.queues.get(name) else { return format!("no queue {name} is declared") };
        let running = self.queues.get(name).map_or(0, |q| q.running);
        if let Some(limit) = plan.concurrency.filter(|c| running >= *c) {
            return format!("the queue {name} runs {running} of at most {limit} at once{}", ahead(count));
        }
        let (slots, busy) = self.slots_in(&plan.pool);
        if let Some(why) = self.unserved(message) {
            return why;
        }
        if let Some(trouble) = self.trouble(&plan.pool).filter(|_| busy < slots) {
            return format!("the pool {} is degraded: {trouble}", plan.pool);
        }
        if busy >= slots {
            let tasks = self.tasks_in(&plan.pool);
            return format!(
                "all {slots} slots of the pool {} are busy with {tasks}{}",
                plan.pool,
                ahead(count)
            );
        }
        "it is about to be started".to_owned()
    }

    /// That nothing starts, for memory pressure.
    fn pressed(&self, pressure: u32) -> String {
        let percent = |n: u32| format!("{}.{:02} %", n / 100, n % 100);
        let bound = self.plan.max_memory_pressure.map(percent).unwrap_or_default();
        let now = percent(pressure);
        format!(
            "memory pressure is {now}: nothing new starts before it is below max_memory_pressure = {bound}"
        )
    }

    /// That no child of its pool serves its task, if that is so.
    fn unserved(&self, message: &Message) -> Option<String> {
        let pool = &self.plan.queues.get(&message.queue)?.pool;
        let task = &message.task;
        let waits = self.plan.pools.get(pool)?.worker && !self.is_served(pool, task);
        waits.then(|| format!("no worker of the pool {pool} says that it serves {task}"))
    }

    /// What runs in a pool, by task.
    fn tasks_in(&self, pool: &str) -> String {
        let mut tasks = std::collections::BTreeMap::new();
        for held in self.held.values() {
            let of_pool = self.plan.queues.get(&held.message.queue).is_some_and(|q| q.pool == pool);
            if of_pool && matches!(held.stage, Stage::Running(_) | Stage::Starting { .. }) {
                *tasks.entry(held.message.task.as_str()).or_insert(0_u32) += 1;
            }
        }
        let mut named: Vec<String> = tasks
            .iter()
            .take(3)
            .map(|(t, n)| if *n == 1 { (*t).to_owned() } else { format!("{n} {t}") })
            .collect();
        if tasks.len() > 3 {
            named.push("others".to_owned());
        }
        if named.is_empty() { "other queues".to_owned() } else { named.join(", ") }
    }
}

fn ahead(count: Option<&QueueCount>) -> String {
    match count.map_or(0, |c| c.waiting + c.leased) {
        0 | 1 => String::new(),
        n => format!("; {n} wait or run in this queue"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use crate::engine::command::Told;
    use crate::engine::event::Ask;
    use crate::model::name::MessageId;

    fn why(bed: &mut Bed, id: &str) -> String {
        match bed.ask(Ask::Why(MessageId(id.into()))) {
            Some(Told::Why(Some((_, sentence)))) => sentence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_sentence_names_the_reason() {
        let mut bed = Bed::with(|p| {
            p.pools.get_mut("default").unwrap().processes = 1;
            p.queues.insert(
                "one".into(),
                crate::engine::plan::QueuePlan { concurrency: Some(1), ..p.queues["default"].clone() },
            );
        });
        bed.enqueue_in("a", "one");
        bed.enqueue_in("b", "one");
        bed.enqueue("c");
        bed.enqueue_at("d", Some(bed.wall().plus(90_000)));
        assert!(why(&mut bed, "a").starts_with("it has been running"));
        assert!(why(&mut bed, "b").contains("1 of at most 1"));
        assert!(why(&mut bed, "c").contains("all 1 slots of the pool default are busy with t"));
        assert!(why(&mut bed, "d").contains("due in 90 s"));
        assert_eq!(bed.ask(Ask::Why(MessageId("x".into()))), Some(Told::Why(None)));
        bed.ask(Ask::Pause { queue: "default".into(), paused: true });
        assert!(why(&mut bed, "c").contains("paused"));
        bed.ask(Ask::Drain { on: true });
        assert!(why(&mut bed, "c").contains("draining"));
    }
}
