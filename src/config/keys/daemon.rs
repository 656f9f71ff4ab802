//! Keys of `[taskd]`, `[results]`, `[access]`, `[pools.NAME]`, `[queues.NAME]` and `[[routes]]`.

use super::{Key, Kind, keys};

const WEEK: u64 = 604_800_000;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// The longest a finished record may be kept: ten years.
pub(super) const LONGEST: u64 = 520 * WEEK;
/// The largest result: with every byte escaped it still fits a line of the child protocol (16 MiB).
pub(super) const LARGEST_RESULT: u64 = 2 << 20;

/// Schemes of what messages can wait in: those of Redis ([`crate::config::redis::SCHEMES`]), and others.
const BROKERS: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+socket",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "sentinel",
    "amqp",
    "amqps",
    "postgres",
];

/// Schemes of what results can be kept in.
const STORES: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+socket",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "sentinel",
    "memcached",
    "postgres",
];

pub(super) const TASKD: &[Key] = keys! {
    "node": Kind::Name, Now, "", "This node's name; by default the host name. Two nodes of one broker cannot have the same one: the second is refused.";
    "broker": Kind::Address(&["embedded"], BROKERS), Now,
        "\"embedded\"", "Where messages wait: the embedded store, or a broker that nodes share. Its password may be ${credential:NAME}, or stand in the file that ?password_file= names.";
    "results": Kind::Address(&["broker", "none"], STORES), Now,
        "\"broker\"", "Where results are kept: in the broker's own store, or (none) nowhere, as if every task had ignore_result.";
    "state_dir": Kind::Path, Now, "\"/var/lib/taskd\"", "Directory of the embedded store and of the output of tasks; with --user $XDG_STATE_HOME/taskd.";
    "socket": Kind::SocketPath, Now, "\"/run/taskd/taskd.sock\"", "The control socket; under systemd `ListenStream=` of taskd.socket decides, and this must say the same; with --user $XDG_RUNTIME_DIR/taskd/taskd.sock.";
    "timezone": Kind::Zone, Now, "", "Time zone of times given without one; by default the system's.";
    "shutdown_grace": Kind::Duration(0, WEEK), Now, "\"30s\"", "What running attempts get at a warm shutdown.";
    "log_level": Kind::Choice(&["error", "warn", "info", "debug", "trace"]), Now, "\"info\"", "How much taskd logs.";
    "user": Kind::User, Now, "", "The daemon's user; by default `taskd` where taskd is started as root and that user exists.";
    "max_memory_pressure": Kind::Number(0.0, 100.0), Now, "", "Nothing new starts while memory pressure (PSI, `some avg10` in percent) is above this.";
    "allow_eviction": Kind::Bool, Now, "false", "Use a Redis server that may drop keys when its memory is full.";
};

pub(super) const RESULTS: &[Key] = keys! {
    "expires": Kind::Duration(1_000, LONGEST), Now, "\"1d\"", "How long a finished record is kept.";
    "max_size": Kind::Size(0, LARGEST_RESULT), Now, "\"64K\"", "Bound of one result; what is longer is cut.";
    "max_records": Kind::Int(1, 1_000_000_000), Now, "100_000", "How many finished records are kept at most.";
    "output_max_size": Kind::Size(0, GIB), Now, "\"1M\"", "Bound of the kept output of one attempt.";
    "output_rate": Kind::Size(KIB, GIB), Now, "\"256K\"", "Bytes of output a second that a child may pass on.";
};

pub(super) const DEAD: &[Key] = keys! {
    "expires": Kind::Duration(1_000, LONGEST), Now, "\"30d\"", "How long a dead letter is kept, whatever its task's result_expires says.";
    "max_records": Kind::Int(1, 1_000_000_000), Now, "10_000", "How many dead letters are kept at most; the oldest go first.";
};

pub(super) const ACCESS: &[Key] = keys! {
    "read": Kind::People, Now, "[\"@taskd-users\"]", "Who may read everything: users and @groups; with --user nobody but whoever runs it.";
    "enqueue": Kind::People, Now, "[\"@taskd-users\"]", "Who may enqueue; whoever enqueued a message may also read and cancel it. With --user nobody but whoever runs it.";
    "admin": Kind::People, Now, "[\"root\"]", "Who may do everything.";
    "celery_control": Kind::BoolOr(&["read"]), Now, "true", "What `celery inspect`, `celery control` and Flower may do on a broker that Celery shares: everything, only look (\"read\"), or nothing: then the node does not answer them.";
};

pub(super) const POOL: &[Key] = keys! {
    "processes": Kind::Int(1, 1_000), Now, "", "Number of children; by default the number of CPUs.";
    "user": Kind::User, Now, "", "Default user of this pool's tasks; by default `taskd-run` where taskd is started as root and that user exists.";
    "group": Kind::GroupName, Now, "", "Default group of this pool's tasks.";
    "supplementary_groups": Kind::Groups, Now, "", "Groups of this pool's tasks beside those of their user.";
    "max_tasks_per_child": Kind::Int(1, 1_000_000_000), Now, "", "A child is replaced after this many tasks.";
    "max_memory_per_child": Kind::Size(1 << 20, 1 << 50), Now, "", "A child is replaced after the attempt that leaves it and all below it above this.";
    "max_child_age": Kind::Duration(1_000, LONGEST), Now, "", "A child is replaced when it is older.";
    "max_child_idle": Kind::Duration(1_000, LONGEST), Now, "", "A child that has run something is replaced when it had nothing to do for so long.";
    "worker": Kind::Argv, Now, "", "A program of yours that is kept alive and runs many tasks.";
    "environment": Kind::Environment, Now, "", "Environment variables of the worker; ${credential:NAME} as for a task.";
    "environment_file": Kind::Path, Now, "", "A file of the worker's environment variables as systemd's EnvironmentFile=, read at each start.";
    "pass_environment": Kind::EnvironmentNames, Now, "", "Environment variables that the worker takes over from taskd's own environment.";
    "credentials": Kind::Credentials, Now, "", "systemd credentials that the worker sees as files in $CREDENTIALS_DIRECTORY while it lives.";
    "working_directory": Kind::Path, Now, "", "The directory the worker starts in; by default /.";
    "umask": Kind::Umask, Now, "", "The worker's file mode mask, in octal; by default 022.";
    "nice": Kind::Int(-20, 19), Now, "", "The worker's scheduling priority as nice(1); below 0 only where taskd is started as root.";
    "limit_nofile": Kind::Int(8, 1 << 30), Now, "", "How many files the worker may have open.";
    "io_class": Kind::Choice(super::task::IO_CLASSES), Now, "", "Scheduling class of the worker's I/O as ionice(1); realtime only where taskd is started as root.";
    "memory_max": Kind::Size(1 << 20, 1 << 50), Now, "", "Hard limit of the memory of one worker and all below it.";
    "cpu_quota": Kind::Percent, Now, "", "Hard limit of the CPU time of one worker; 200% is two CPUs.";
    "tasks_max": Kind::Int(1, 1 << 22), Now, "", "How many processes and threads one worker may have.";
    "no_new_privileges": Kind::Bool, Now, "", "The worker can gain no privileges, as for a task.";
    "private_tmp": Kind::Bool, Now, "", "The worker has an empty /tmp and /var/tmp of its own.";
    "protect_system": Kind::BoolOr(&["full", "strict"]), Now, "", "What is read-only for the worker, as for a task.";
    "private_network": Kind::Bool, Now, "", "The worker has no network but a loopback of its own.";
    "read_write_paths": Kind::Paths, Now, "", "Files and directories that the worker may write though protect_system says otherwise.";
    "celery_app": Kind::Text, Now, "", "A Celery app whose tasks this pool runs, named as for `celery -A`: shop.celery:app. It is looked for in working_directory first; what follows its tasks and their results is taskd's to keep.";
    "python": Kind::Text, Now, "", "The Python that runs celery_app, with Celery installed: that of the app's virtualenv, as /srv/shop/venv/bin/python; by default python3.";
    "preload": Kind::Bool, Now, "", "Load celery_app once, in a process of its own, and fork the children from it: they start at once and share the memory of what was loaded. That process is replaced when the config is reloaded. What memory_max bounds is then what a child uses beyond what it shares.";
};

pub(super) const QUEUE: &[Key] = keys! {
    "pool": Kind::Name, Now, "\"default\"", "The pool that drains it.";
    "weight": Kind::Int(1, 1_000), Now, "1", "Its share of the slots while several queues of a pool wait.";
    "strict": Kind::Bool, Now, "false", "Goes before every queue of its pool that is not strict.";
    "concurrency": Kind::Int(1, 1_000_000), Now, "", "How many of its messages run at once at most, over all nodes that share the broker.";
    "max_length": Kind::Int(1, 1_000_000_000), Now, "", "How many messages may wait in it; then enqueue is refused.";
    "rate_limit": Kind::Rate, Now, "", "How many of its messages start in a period at most, as \"10/m\" (/s, /m, /h, /d), over all nodes that share the broker: evenly spaced, but for rate_limit_burst. What has to wait for it stays in the store.";
    "rate_limit_burst": Kind::Int(1, 1_000_000), Now, "1", "How many may start at once under rate_limit after a time without any.";
    "shared": Kind::Bool, Now, "false", "Celery workers drain it too: messages for tasks that are not declared here go back to its end, and what taskd itself puts into it is a message of Celery, for whoever takes it first. Needs a broker on Redis.";
};

pub(super) const ROUTE: &[Key] = keys! {
    "task": Kind::Glob, Now, "", "Pattern over task names: `*` is any run of characters, `?` any one.";
    "queue": Kind::Name, Now, "", "The queue of the tasks that match.";
};
