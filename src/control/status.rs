//! What `GET /v1/status` answers: this node, its pools, its children.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// taskd's version.
    pub version: String,
    /// This node.
    pub node: String,
    /// `running`, `draining`, `stopping`, or `paused: why`.
    pub state: String,
    /// When the launcher started, milliseconds since the epoch.
    pub since: i64,
    /// Which start of the daemon under this launcher.
    pub epoch: u64,
    /// Generation of the settings.
    pub generation: u64,
    /// How often taskd's program was replaced while it ran.
    #[serde(default)]
    pub upgrades: u64,
    /// Why the program could not be replaced when it was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_failure: Option<String>,
    /// The store.
    pub broker: String,
    /// How processes are kept together.
    pub supervision: String,
    /// How users are separated.
    pub users: String,
    /// How the kernel confines the daemon; absent where it has no AppArmor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<String>,
    /// Pools.
    pub pools: Vec<PoolView>,
    /// The nodes that share the store, this one among them, in order of their names; empty where the store is this
    /// node's own. A node that ended or vanished is among them for a day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeView>,
    /// Schedules; absent: none is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedules: Option<super::schedules::SchedulesView>,
    /// Messages by state, of what is not final, and finished since the start.
    pub counts: CountsView,
    /// Settings that have no effect, faults that go on: a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One node of a shared store, as it told of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// It is the one that answers.
    pub this: bool,
    /// Its version of taskd.
    pub version: String,
    /// The name of its machine.
    pub host: String,
    /// As in [`StatusView::state`]; `stopped` of one that ended in order, `gone` of one that said nothing for 30 seconds.
    pub state: String,
    /// When its launcher started, by its own clock, milliseconds since the epoch.
    pub since: i64,
    /// When it was heard of last, by the clock of the node that answers, milliseconds since the epoch.
    pub seen: i64,
    /// Its pools.
    pub pools: Vec<NodePoolView>,
}

/// One pool of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodePoolView {
    /// Its name.
    pub name: String,
    /// Slots.
    pub processes: u32,
    /// Slots that run something.
    pub busy: u32,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Slots.
    pub processes: u32,
    /// Slots that run something.
    pub busy: u32,
    /// Children.
    pub children: Vec<ChildView>,
    /// Children that were replaced since the daemon started.
    #[serde(default)]
    pub replaced: ReplacedView,
    /// Why it is not whole, and when that is tried to be mended; absent: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

/// How many children of a pool were replaced since the daemon started, by what the config says, and for faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplacedView {
    /// They had all the runs that they may have.
    pub max_tasks_per_child: u64,
    /// A run left them above this.
    pub max_memory_per_child: u64,
    /// They were older.
    pub max_child_age: u64,
    /// They had nothing to do for longer.
    pub max_child_idle: u64,
    /// They died, were killed, or broke the protocol.
    pub faults: u64,
}

impl ReplacedView {
    /// Those that were replaced though nothing was wrong with them.
    #[must_use]
    pub const fn recycled(&self) -> u64 {
        self.max_tasks_per_child + self.max_memory_per_child + self.max_child_age + self.max_child_idle
    }
}

/// How far a child is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// It did not say yet that it is ready.
    #[default]
    Starting,
    /// Likewise; it is to take the place of another child that is still there.
    Successor,
    /// It takes runs.
    Ready,
    /// It takes no more runs and goes when it has ended those it holds.
    Leaving,
}

impl std::fmt::Display for ChildState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Successor => "successor",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
        })
    }
}

/// One child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChildView {
    /// Its place, `pool/index`.
    pub slot: String,
    /// Its process id.
    pub pid: u32,
    /// Its user; empty: whoever runs taskd.
    #[serde(default)]
    pub user: String,
    /// How far it is.
    #[serde(default)]
    pub state: ChildState,
    /// Runs it was given (of a child that lived before the daemon: by this daemon).
    #[serde(default)]
    pub runs: u64,
    /// How long it has lived, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Memory of it and of all below it, in bytes, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What it runs: (id, task, milliseconds since it started).
    #[serde(default)]
    pub running: Vec<RunningView>,
}

/// One running attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningView {
    /// The message.
    pub id: String,
    /// Its task.
    pub task: String,
    /// Milliseconds since it was handed to the child.
    pub for_ms: u64,
}

/// Totals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountsView {
    /// Waiting in the store.
    pub waiting: u64,
    /// Scheduled and retry.
    pub scheduled: u64,
    /// Running here.
    pub running: u64,
    /// In the `unknown` sets.
    pub unknown: u64,
    /// Dead letters in the store.
    #[serde(default)]
    pub dead: u64,
    /// Attempts that ended in success since the daemon started.
    pub succeeded: u64,
    /// Attempts that ended otherwise since the daemon started.
    pub failed: u64,
}
