//! Every journal field that taskd writes and the ids of its life-cycle events.
//!
//! `tracing` wants field names written out where an event is made; a test compares what was sent with this
//! list. An id never changes its meaning: `journalctl MESSAGE_ID=…` and catalogs depend on it.

/// A journal field: its name and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// As in `journalctl NAME=value`.
    pub name: &'static str,
    /// What it holds.
    pub about: &'static str,
}

/// A life-cycle event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happens, as `taskd` words it.
    pub name: &'static str,
    /// `MESSAGE_ID`: 128 bits, drawn once.
    pub id: &'static str,
}

macro_rules! fields {
    ($($konst:ident $about:literal),* $(,)?) => {
        $(#[doc = $about] pub const $konst: &str = stringify!($konst);)*
        /// All of them.
        pub const FIELDS: &[Field] = &[$(Field { name: $konst, about: $about }),*];
    };
}

macro_rules! events {
    ($($konst:ident $name:literal $id:literal),* $(,)?) => {
        $(#[doc = concat!("`MESSAGE_ID` of: ", $name, ".")] pub const $konst: &str = $id;)*
        /// All of them.
        pub const EVENTS: &[Event] = &[$(Event { name: $name, id: $id }),*];
    };
}

fields! {
    MESSAGE_ID "Which life-cycle event this is.",
    TASKD_ID "The message's id.",
    TASKD_TASK "The task's name.",
    TASKD_QUEUE "The queue it came from.",
    TASKD_ATTEMPT "Number of the attempt, from 1.",
    TASKD_NODE "The node's name.",
    TASKD_INSTANCE "The store's instance id.",
    TASKD_STREAM "`stdout` or `stderr`, with a line that a task printed.",
    TASKD_SCHEDULE "The schedule's name.",
    TASKD_PLANNED "The planned time of a schedule, milliseconds since 1970-01-01T00:00:00Z.",
    TASKD_PID "Process id of the task's main process, or of the process that the event is about.",
    TASKD_POOL "The pool of a resident worker, with a line of it that belongs to no single message.",
    TASKD_SLOT "The place of a child, as `pool/index`.",
    TASKD_USER "The user a child or task runs as.",
    TASKD_CAUSE "Why an attempt ended: `exit`, `signal`, `error`, `time_limit`, `memory`, `revoked`, `worker_lost`, `spawn_failed`, `interrupted`.",
    TASKD_EXIT "Exit code.",
    TASKD_SIGNAL "Number of the signal that ended a process.",
    TASKD_STATE "The message's state after the event.",
    TASKD_WAIT_MS "Milliseconds between being due and being started.",
    TASKD_RUN_MS "Milliseconds of the run.",
    TASKD_CPU_MS "Milliseconds of CPU time that the run used.",
    TASKD_MEMORY_PEAK "Peak memory of the run, in bytes.",
    TASKD_RETRIES "Retries so far.",
    TASKD_DELAY_MS "Milliseconds until the retry.",
    TASKD_EPOCH "Which start of the daemon under this launcher.",
    TASKD_GENERATION "Generation of the settings.",
    TASKD_REASON "The key of the config by which a child is replaced.",
    TASKD_RUNS "Runs that a child had.",
    TASKD_AGE_MS "How long a child lived, in milliseconds.",
    TASKD_MEMORY "Memory of a child and of all below it when it was measured last, in bytes.",
    TASKD_DROPPED "Lines that were lost because the journal, or who reads the log, did not take them.",
}

events! {
    RECEIVED "a message was accepted" "df463997d09a4a0b84bc335f0fa7c879",
    STARTED "an attempt started" "e26165756e5f4c62b41a31820e85f066",
    SUCCEEDED "a message succeeded" "ac547516f78245bd9e426eec4cf47b69",
    RETRIED "an attempt failed and is retried" "943f466775544613acf2d25a4d059b6f",
    FAILED "a message failed" "43934a131c9f40939b3f63a7c0d2ea59",
    REVOKED "a message was revoked" "81c02a91ab60444f994256abe1ee9d3e",
    EXPIRED "a message expired" "8f96a4c64dac4d09ab64305772dc86ea",
    DEAD "a message is dead after too many losses" "2d196bf33d9044e69636ec374063e339",
    CHILD_LOST "a child ended unexpectedly" "96809040d2bf42f899f7f1730222527b",
    RECYCLED "a child was replaced though nothing was wrong with it" "c134b97f414c4013b4f9adb84f5bcc4b",
    DAEMON_REPLACED "the daemon was replaced" "eac2dc9ea6f74c5daaa8c57997a50e10",
    STORE_FAULT "the store has a fault" "f9fd7c442f9f414698c2c186066dca98",
    UNKNOWN "a message of an undeclared task was set aside" "3c1de0ab50ea4b7a9b1f0b7ad6d1b9a3",
    GIVEN_BACK "an attempt was interrupted and its message goes back to its queue" "5f0f4e5f4a414b52a0ce3c7f9ef0cb5e",
    SCHEDULE_FIRED "a schedule fired" "6f0c2f4b8a1d4f0bb1d9a0f3f7a5c2e1",
    SCHEDULE_SKIPPED "a planned time of a schedule stored no message" "a1e55c7a5b3e49d39f6e2d7d70c14b52",
    SCHEDULE_MISSED "planned times of a schedule were missed" "3b6f0e2c94d14c50a3c8f6e1b27d9a04",
    SCHEDULE_PAUSED "a schedule was paused after failures" "d47b9e0152c84f6cbbf3a86f0e9d1c37",
    RELOADED "the settings were reloaded" "819877a4ae7f4db5a512ecd5764cbaac",
    RELOAD_REFUSED "a reload was refused" "98da1271e12049bfa44720aaa0aaf4ca",
    UPGRADED "the program was replaced while it ran" "c849f4e9321c40d4a8d0f3d45cf33852",
    UPGRADE_REFUSED "a replacement of the program was refused" "a2a8dbf6141f44ab8976a88c88cb83b2",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_what_journald_takes_and_unique() {
        let names: BTreeSet<_> = FIELDS.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), FIELDS.len());
        for name in names {
            assert!(name.len() <= 64, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!(!name.starts_with('_'), "journald drops {name}");
        }
    }

    #[test]
    fn event_ids_are_128_bits_and_unique() {
        let ids: BTreeSet<_> = EVENTS.iter().map(|e| e.id).collect();
        assert_eq!(ids.len(), EVENTS.len());
        for id in ids {
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()), "{id}");
        }
    }
}
