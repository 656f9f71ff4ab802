//! What the launcher and the daemon say to each other: one JSON text a packet over a `SOCK_SEQPACKET`
//! socketpair, file descriptors beside it with SCM_RIGHTS.
//!
//! The trust boundary: the daemon can ask for nothing but what stands in [`ToLauncher`].

use serde::{Deserialize, Serialize};

/// Largest packet, in bytes (the default socket buffer takes more).
pub const MAX_PACKET: usize = 128 << 10;

/// A place in a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The pool's name.
    pub pool: String,
    /// From 0.
    pub index: u32,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.index)
    }
}

/// A child of the launcher, never used twice in a life of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(pub u64);

/// A living child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its id.
    pub child: ChildId,
    /// Its place.
    pub slot: Slot,
    /// Its runner key: who it runs as, and for which tasks (`Settings::runner_key`).
    pub user: String,
    /// The generation of the settings it was given.
    pub generation: u64,
    /// Its process id.
    pub pid: u32,
    /// How long it has lived, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// A resident worker: the read ends of its stdout and stderr come beside its socket.
    #[serde(default)]
    pub worker: bool,
}

/// From the launcher to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ToDaemon {
    /// First packet. Descriptors: the settings (sealed memfd, JSON of `Settings`), the listening control
    /// socket.
    Start(Box<Start>),
    /// A child to adopt (before [`ToDaemon::Go`]) or one that was asked for. Descriptor: its socket; of a
    /// resident worker also the read ends of its stdout and stderr.
    Child(Child),
    /// Every child to adopt was named.
    Go,
    /// A child that was asked for could not be started.
    SpawnFailed {
        /// The place.
        slot: Slot,
        /// errno's name and what was tried.
        error: String,
        /// Whether it is worth trying again (EAGAIN, ENOMEM, EMFILE).
        again: bool,
    },
    /// A child ended and what it left behind was killed.
    Exited {
        /// Its id.
        child: ChildId,
        /// Exit code, or 128 + signal.
        code: i32,
        /// The signal it died of, 0 if none.
        signal: i32,
        /// The kernel ended it, or something it ran, because its control group was out of memory.
        #[serde(default)]
        out_of_memory: bool,
    },
    /// The answer to [`ToLauncher::Measure`].
    Measured {
        /// The child.
        child: ChildId,
        /// Memory of it and of everything below it now, in bytes.
        bytes: u64,
    },
    /// SIGHUP came: answer with [`ToLauncher::Reload`].
    ReloadAsked,
    /// The settings were read again and are good. Descriptor: the settings.
    Settings {
        /// Their generation.
        generation: u64,
        /// What changed, a line each.
        changes: Vec<String>,
    },
    /// The settings were read again and have faults; nothing changed.
    SettingsRefused {
        /// The faults, rendered.
        report: String,
    },
    /// The program is not replaced ([`ToLauncher::Reexec`]), and nothing changed.
    ReexecRefused {
        /// Why, with what the new program printed.
        report: String,
    },
    /// The new program is good: answer whom you can, bring what is under way to the store, say
    /// [`ToLauncher::HandedOver`], and end.
    HandOver {
        /// Version of the new program.
        version: String,
    },
    /// SIGTERM (warm) or a second one (now) came.
    Stop {
        /// Do not wait for running attempts.
        now: bool,
    },
}

/// What a daemon starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// From 1; above 1 it replaces a daemon that died.
    pub epoch: u64,
    /// The store's `TASKD_INSTANCE`.
    pub instance: String,
    /// Whether a journal takes the logs.
    pub journal: bool,
    /// How often the launcher wants [`ToLauncher::Alive`], in milliseconds; absent: never.
    pub alive_every_ms: Option<u64>,
    /// How processes are kept together: `cgroup` or `process group`, a sentence for `taskd status`.
    pub supervision: String,
    /// How users are separated, a sentence for `taskd status`.
    pub users: String,
    /// Uid of who started the launcher: may always do everything on the socket.
    pub owner: u32,
    /// A child ended since the daemon before this one started: what it held may not have been recorded, so
    /// its run cannot be told from one that was never sent.
    pub children_lost: bool,
    /// When the launcher started, milliseconds since the epoch.
    pub since: i64,
    /// How often the launcher's program was replaced while it ran.
    pub upgrades: u64,
    /// Why it could not be replaced when it was tried last, after the daemon had handed over already.
    pub upgrade_failure: Option<String>,
    /// Start nothing new: the daemon before this one was told so and handed it over.
    pub draining: bool,
}

/// From the daemon to the launcher: all that it may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ToLauncher {
    /// Config, socket, local store and pools are up.
    Ready,
    /// The store has the end of every run that ended while no daemon lived: another daemon after this one need
    /// not ask about them.
    Recovered,
    /// STATUS= for systemd, one line.
    Status {
        /// The line.
        text: String,
    },
    /// A real round of the daemon's loop was made.
    Alive,
    /// Start a child for this place, at most two at once; the key must be that of the pool or of a declared task
    /// in it.
    Spawn {
        /// The place.
        slot: Slot,
        /// The runner key (`Settings::runner_key`).
        user: String,
    },
    /// End a child with all it started: SIGTERM to it, or SIGKILL to everything.
    End {
        /// The child.
        child: ChildId,
        /// SIGKILL at once.
        kill: bool,
    },
    /// Measure the memory of a child and of everything below it; answered by [`ToDaemon::Measured`] unless it
    /// is gone.
    Measure {
        /// The child.
        child: ChildId,
    },
    /// Read the config again.
    Reload {
        /// Queues that hold messages: settings without one of them are refused.
        #[serde(default)]
        keep: Vec<String>,
    },
    /// Replace this program by the one that is installed now; answered by [`ToDaemon::HandOver`] or
    /// [`ToDaemon::ReexecRefused`].
    Reexec {
        /// As for [`ToLauncher::Reload`].
        keep: Vec<String>,
    },
    /// Everything that this daemon was told before [`ToDaemon::HandOver`] is in the store; it ends now.
    HandedOver {
        /// Nothing new was to be started (`taskd drain`): the next daemon goes on so.
        draining: bool,
    },
    /// Running attempts are being waited for; keep systemd patient this much longer.
    Draining {
        /// Milliseconds.
        extend_ms: u64,
        /// How many still run.
        running: u32,
    },
    /// All is settled: end everything, exit 0.
    Finished,
    /// A fault of the store that a fresh daemon may mend, or that needs a person: exit with this code.
    Failed {
        /// Exit code of the launcher.
        code: u8,
        /// What happened.
        message: String,
    },
}

/// What the launcher gives a runner (sealed memfd): only what it may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerPart {
    /// Its place, for its title and logs.
    pub slot: Slot,
    /// The user that it was made; empty: whoever runs taskd.
    pub user: String,
    /// This node's name (`TASKD_NODE`).
    pub node: String,
    /// `TASKD_INSTANCE`.
    pub instance: String,
    /// The settings' generation.
    pub generation: u64,
    /// Declared tasks of this (pool, user); any other name is refused.
    pub tasks: std::collections::BTreeMap<String, crate::model::task::Task>,
    /// Send each line of output to the journal; else to stderr.
    pub journal: bool,
    /// Bytes a second of output copied to the daemon.
    pub output_rate: u64,
    /// Control groups are in force: a third descriptor is a `SOCK_SEQPACKET` socket to the launcher, where a
    /// leaf is asked for before each attempt ([`RunnerAsk`]).
    #[serde(default)]
    pub leaves: bool,
}

/// What the launcher gives the process that becomes a resident worker (sealed memfd).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPart {
    /// Its place.
    pub slot: Slot,
    /// Who it becomes.
    pub identity: crate::config::settings::Identity,
    /// This node's name (`TASKD_NODE`).
    pub node: String,
    /// `TASKD_INSTANCE`.
    pub instance: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// It is a Python that is given taskd's own module as its script.
    #[serde(default)]
    pub script: bool,
    /// What surrounds it.
    pub surroundings: crate::model::task::Surroundings,
    /// Its `memory_max`, in bytes, which also bounds what `private_tmp` holds.
    pub memory_max: Option<u64>,
}

/// What a runner asks of the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum RunnerAsk {
    /// A fresh leaf below the slot's control group, limited as the config says for this task. A leaf that is
    /// there already is removed first.
    Leaf {
        /// The task, one of the runner's own.
        task: String,
        /// How often `on_memory` was applied to the message.
        memory_retries: u32,
    },
    /// The attempt is over: kill what is left in the leaf, measure it, remove it.
    Done,
}

/// What the launcher answers to a runner, one packet for each [`RunnerAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum RunnerTold {
    /// The leaf is made. Descriptor: its `cgroup.procs`, open for writing.
    Leaf,
    /// It could not be made.
    Refused {
        /// Why.
        error: String,
    },
    /// It is gone, and this is what was used in it.
    Done(LeafUsage),
}

/// What an attempt used, as its control group counted it; 0 or absent where the kernel does not count it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafUsage {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// `memory.peak`, in bytes.
    pub memory_peak: Option<u64>,
    /// `pids.peak`.
    pub tasks_peak: Option<u64>,
    /// `io.stat` rbytes of all devices.
    pub read_bytes: u64,
    /// `io.stat` wbytes of all devices.
    pub written_bytes: u64,
    /// `memory.events` counted an OOM kill.
    pub out_of_memory: bool,
    /// Processes that were still there and were killed.
    pub killed: u32,
}
