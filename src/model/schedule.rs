//! A schedule as a store keeps it, and what a store does at a planned time and at the end of what it fired.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::Message;
use super::name::MessageId;
use super::state::State;
use super::time::Wall;
use super::workflow::Workflow;

/// Most messages of one schedule that wait for one another (`overlap = "queue"`).
pub const MAX_HELD: usize = 100;

/// Most rows of one [`super::op::Op::Schedules`].
pub const MAX_ROWS: usize = 1_000;

/// Most messages that one [`Ticked`] names.
pub const MAX_RUNNING: usize = 100;

/// What happens at a planned time while a message of the schedule is not final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Nothing is stored.
    #[default]
    Skip,
    /// It waits for the end of those before it, at most [`MAX_HELD`] of them.
    Queue,
    /// It runs beside.
    Allow,
    /// What waits is revoked, what runs is to be canceled, and the new one waits for the end of that.
    Replace,
}

impl Overlap {
    /// As the config writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Allow => "allow",
            Self::Replace => "replace",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Skip, Self::Queue, Self::Allow, Self::Replace].into_iter().find(|o| o.name() == name)
    }
}

/// What happens to planned times that passed while nobody could fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    None,
    /// The latest of them fires.
    Last,
    /// The latest so many of them fire, oldest first.
    All {
        /// How many.
        max: u32,
    },
}

/// Where a message, or a workflow, comes from that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// The schedule.
    pub schedule: String,
    /// The planned time; absent: it was fired by hand, beside the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Wall>,
    /// To be stored so that it waits for those before it. Only on its way into a store, never in one.
    #[serde(skip)]
    pub held: bool,
}

/// What a planned time stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Fires {
    /// A message. Its id is the store's to set ([`fire_id`]), and its `fired`.
    Message(Box<Message>),
    /// A workflow, which counts as one run, until its last step ended. Its id, those of its steps and its `fired` are
    /// the store's to set.
    Workflow(Box<Workflow>),
}

impl Fires {
    /// The messages that wait to run as soon as it is stored.
    pub fn first(&self) -> impl Iterator<Item = &Message> {
        let (message, workflow) = match self {
            Self::Message(message) => (Some(message.as_ref()), None),
            Self::Workflow(workflow) => (None, Some(workflow.roots().map(|step| &step.message))),
        };
        message.into_iter().chain(workflow.into_iter().flatten())
    }
}

/// A planned time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The schedule.
    pub schedule: String,
    /// The planned time: together with the schedule's name it is the name of the fire.
    pub planned: Wall,
    /// What to store.
    pub fires: Fires,
    /// What happens while something of the schedule is not over.
    pub overlap: Overlap,
    /// The schedule pauses after so many failures in a row.
    pub pause_after: Option<u32>,
    /// The bounds of queues that have one.
    pub max_length: BTreeMap<String, u64>,
    /// The wall clock.
    pub now: Wall,
}

/// What became of a planned time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticked {
    /// The id of its message or workflow, stored or not.
    pub id: MessageId,
    /// What became of it.
    pub became: Became,
    /// With [`Overlap::Replace`]: leased messages of the schedule before this one, which it replaces. At most
    /// [`MAX_RUNNING`].
    pub running: Vec<MessageId>,
    /// The same of workflows of which a step is not over. They are marked as canceled, so that no step of them is
    /// published any more.
    pub flows: Vec<MessageId>,
    /// Waiting messages that were revoked in its favor.
    pub revoked: Vec<MessageId>,
}

/// See [`Ticked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// Its message waits to run, or the first steps of its workflow do.
    Fired,
    /// It is stored and waits for the end of those before it.
    Held,
    /// It was recorded before: nothing was done.
    Known,
    /// The schedule is paused: nothing was recorded.
    Paused,
    /// It is recorded, and no message was stored.
    Skipped(Skip),
}

/// Why a planned time stored no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// This message or workflow of the schedule is not over.
    Running(MessageId),
    /// [`MAX_HELD`] wait already.
    TooMany,
    /// The queue is at its `max_length`.
    QueueFull {
        /// The queue.
        queue: String,
        /// Its bound.
        max_length: u64,
    },
    /// Its task is unique, and another message holds its key: it was revoked at once.
    KeyHeld,
}

/// Why a schedule is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Somebody paused it.
    Asked,
    /// So many failures in a row.
    Failures,
}

/// What a store knows of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it was planned by when it was looked at last; empty: it was not declared, or not enabled.
    #[serde(default)]
    pub rule: String,
    /// Planned times up to this one are done with: fired, skipped or missed.
    pub until: Wall,
    /// The planned time that stored a message last.
    #[serde(default)]
    pub fired: Option<Wall>,
    /// That message, or that workflow.
    #[serde(default)]
    pub id: Option<MessageId>,
    /// It is a workflow.
    #[serde(default)]
    pub workflow: bool,
    /// How it ended, once it did.
    #[serde(default)]
    pub state: Option<State>,
    /// When a message of it ended last.
    #[serde(default)]
    pub ended: Option<Wall>,
    /// Messages of it that failed one after the other up to now.
    #[serde(default)]
    pub failures: u32,
    /// It pauses after so many.
    #[serde(default)]
    pub pause_after: Option<u32>,
    /// Whether it is paused.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// How often its fires were forgotten by a rewind: part of the ids of its messages.
    #[serde(default)]
    pub lap: u32,
    /// Messages and workflows of it that are not over. Counted when it is read, not kept.
    #[serde(skip)]
    pub live: u64,
    /// Those of them that wait for the others.
    #[serde(skip)]
    pub held: u64,
    /// Workflows of it that were canceled and are not over yet, at most [`MAX_RUNNING`]. Looked up when it is read.
    #[serde(skip)]
    pub ending: Vec<MessageId>,
}

impl Row {
    /// A schedule that nothing is known of: it begins at this time.
    #[must_use]
    pub fn new(name: &str, until: Wall) -> Self {
        Self { name: name.to_owned(), until, ..Self::default() }
    }

    /// A message or a workflow of it ended.
    pub fn end(&mut self, id: &MessageId, state: State, now: Wall) {
        self.ended = Some(now);
        if self.id.as_ref() == Some(id) {
            self.state = Some(state);
        }
        match state {
            State::Success => self.failures = 0,
            State::Failure | State::Dead => {
                self.failures = self.failures.saturating_add(1);
                if self.pause_after.is_some_and(|most| self.failures >= most) {
                    self.paused.get_or_insert(Pause::Failures);
                }
            }
            _ => {}
        }
    }

    /// A planned time is done with; `stored` where something was, and whether that is a workflow.
    pub fn tick(&mut self, planned: Wall, pause_after: Option<u32>, stored: Option<(MessageId, bool)>) {
        // A clock that was set back goes on from here, wherever it had been.
        self.until = planned;
        self.pause_after = pause_after;
        if let Some((id, workflow)) = stored {
            (self.fired, self.id, self.workflow, self.state) = (Some(planned), Some(id), workflow, None);
        }
    }
}

/// A change of a schedule's row; a row that is not there is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is planned by this rule from now on: later than `until` only.
    Plan {
        /// Its name.
        name: String,
        /// The rule; empty: not declared, or not enabled.
        rule: String,
        /// Planned times up to this one are done with.
        until: Wall,
    },
    /// Planned times up to this one were missed, and stay so.
    Missed {
        /// Its name.
        name: String,
        /// The latest of them.
        until: Wall,
    },
    /// Pause it, or end the pause: it goes on with what is planned after `until`, its failures forgotten.
    Pause {
        /// Its name.
        name: String,
        /// On or off.
        paused: bool,
        /// Planned times up to this one are done with.
        until: Wall,
    },
    /// Forget that it fired after this time.
    Rewind {
        /// Its name.
        name: String,
        /// The time.
        to: Wall,
    },
    /// Forget it, unless a message of it is not final.
    Forget {
        /// Its name.
        name: String,
    },
}

impl Change {
    /// The schedule.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Plan { name, .. }
            | Self::Missed { name, .. }
            | Self::Pause { name, .. }
            | Self::Rewind { name, .. }
            | Self::Forget { name } => name,
        }
    }

    /// Makes the change of a row. Forgetting, and what a rewind forgets beside the row, is the store's.
    pub fn apply(&self, row: &mut Row) {
        match self {
            Self::Plan { rule, until, .. } => {
                rule.clone_into(&mut row.rule);
                row.until = *until;
            }
            Self::Missed { until, .. } => row.until = *until,
            Self::Pause { paused, until, .. } => {
                // Whoever pauses what paused by itself meant it: a resume is theirs, too.
                row.paused = paused.then_some(Pause::Asked);
                row.until = *until;
                row.failures = 0;
            }
            Self::Rewind { to, .. } => {
                row.until = *to;
                row.lap = row.lap.saturating_add(1);
            }
            Self::Forget { .. } => {}
        }
    }
}

/// The id of the message, or the workflow, of a fire: the same whoever asks, another one after a rewind.
#[must_use]
pub fn fire_id(schedule: &str, planned: Wall, lap: u32) -> MessageId {
    let name = format!("{schedule}\0{}\0{lap}", planned.0);
    MessageId(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_after_failures_in_a_row_and_a_success_begins_anew() {
        let mut row = Row { pause_after: Some(2), ..Row::new("s", Wall(0)) };
        row.tick(Wall(5), Some(2), Some((MessageId("a".into()), false)));
        let id = MessageId("a".into());
        row.end(&id, State::Failure, Wall(6));
        row.end(&id, State::Revoked, Wall(7));
        assert_eq!((row.failures, row.paused, row.state), (1, None, Some(State::Revoked)));
        row.end(&id, State::Success, Wall(7));
        row.end(&MessageId("other".into()), State::Dead, Wall(8));
        assert_eq!((row.failures, row.paused, row.state), (1, None, Some(State::Success)));
        row.end(&id, State::Failure, Wall(9));
        assert_eq!((row.failures, row.paused, row.ended), (2, Some(Pause::Failures), Some(Wall(9))));
        Change::Pause { name: "s".into(), paused: false, until: Wall(20) }.apply(&mut row);
        assert_eq!((row.failures, row.paused, row.until), (0, None, Wall(20)));
    }

    #[test]
    fn a_fire_has_one_id_until_it_is_rewound() {
        assert_eq!(fire_id("s", Wall(1), 0), fire_id("s", Wall(1), 0));
        let others = [fire_id("s", Wall(2), 0), fire_id("t", Wall(1), 0), fire_id("s", Wall(1), 1)];
        assert!(others.iter().all(|o| *o != fire_id("s", Wall(1), 0)));
    }
}
