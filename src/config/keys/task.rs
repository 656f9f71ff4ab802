//! Keys of `[tasks.NAME]`, which are those of `[defaults]` too.

use super::daemon::{LARGEST_RESULT, LONGEST};
use super::{Key, Kind, keys};

const YEAR: u64 = 366 * 86_400_000;
const MIB: u64 = 1 << 20;

pub(super) const IO_CLASSES: &[&str] = &["none", "realtime", "best-effort", "idle"];

pub(super) const TASK: &[Key] = keys! {
    "command": Kind::Text, Now, "", "A text for /bin/sh -c; arguments are \"$1\" \"$2\" and environment variables, never parsed by the shell.";
    "exec": Kind::Argv, Now, "", "A program and its arguments; {name} is replaced by a parameter inside its element.";
    "params": Kind::Params, Now, "", "Declared parameters, as `params.user_id = \"int\"`; positional arguments bind to them in this order.";
    "queue": Kind::Name, Now, "", "Its queue; by default what the routes say, else `default`.";
    "priority": Kind::Int(0, 9), Now, "0", "Priority of messages that name none; 9 goes first.";
    "max_retries": Kind::Int(0, 1_000_000), Now, "0", "How often a failed message is tried again.";
    "retry_delay": Kind::Duration(0, YEAR), Now, "\"10s\"", "How long after a failure it is tried again.";
    "retry_backoff": Kind::Bool, Now, "false", "Double the delay at each retry.";
    "retry_backoff_max": Kind::Duration(0, YEAR), Now, "\"10m\"", "The longest delay that doubling leads to.";
    "retry_jitter": Kind::Bool, Now, "true", "With retry_backoff: draw each delay between zero and what it would be.";
    "retry_on": Kind::Codes, Now, "[]", "Exit codes that ask for a retry; empty: any failure does.";
    "success_on": Kind::Codes, Now, "[]", "Exit codes that are a success, besides 0.";
    "soft_time_limit": Kind::Duration(1, YEAR), Now, "", "After this time the program is asked to end, by soft_signal. A shorter one that a Celery client sent with its call holds.";
    "time_limit": Kind::Duration(1, YEAR), Now, "", "After this time everything the attempt started is killed. A shorter one that a Celery client sent with its call holds.";
    "soft_signal": Kind::Signal, Now, "\"SIGTERM\"", "The signal of the soft limit.";
    "acks": Kind::Choice(&["late", "early"]), Now, "\"late\"", "When a message is done with: after its attempt (a lost one runs again) or before (it never runs twice).";
    "ignore_result": Kind::Bool, Now, "false", "Keep no result.";
    "result": Kind::Choice(&["stdout", "json", "none"]), Now, "\"stdout\"", "What becomes the result: the trimmed output, the output as JSON, or nothing.";
    "result_expires": Kind::Duration(1_000, LONGEST), Now, "", "How long its finished records are kept; by default [results] expires.";
    "result_max_size": Kind::Size(0, LARGEST_RESULT), Now, "", "Bound of its result; by default [results] max_size.";
    "expires": Kind::Duration(1, YEAR), Now, "", "Messages that have not started this long after they were accepted are dropped as EXPIRED.";
    "stdin": Kind::Choice(&["none", "json"]), Now, "\"none\"", "What the program reads on stdin: nothing, or the call as one JSON object.";
    "environment": Kind::Environment, Now, "", "Environment variables; joined with those of [defaults], name by name. ${credential:NAME} is the value of a systemd credential, without one newline at its end; $${credential: is that text itself.";
    "environment_file": Kind::Path, Now, "", "A file of environment variables as systemd's EnvironmentFile=, read at each start.";
    "pass_environment": Kind::EnvironmentNames, Now, "[]", "Environment variables that are taken over from taskd's own environment.";
    "working_directory": Kind::Path, Now, "\"/\"", "The directory it starts in.";
    "umask": Kind::Umask, Now, "\"022\"", "File mode mask, in octal.";
    "nice": Kind::Int(-20, 19), Now, "", "Scheduling priority as nice(1); below 0 only where taskd is started as root.";
    "limit_nofile": Kind::Int(8, 1 << 30), Now, "", "How many files it may have open.";
    "allow": Kind::People, Now, "", "Who may enqueue it: users and @groups; by default whoever [access] enqueue names, and root only where it runs as root.";
    "allow_dash": Kind::Bool, Now, "false", "Values may begin with - even where a placeholder begins its element.";
    "dash_dash": Kind::Bool, Now, "true", "Put -- between the program's own arguments and appended ones.";
    "enabled": Kind::Bool, Now, "true", "Whether it may be enqueued.";
    "user": Kind::User, Now, "", "The user it runs as; by default its pool's.";
    "remote": Kind::Bool, Now, "true", "Whether a message from a shared broker may run it; false by default where it runs as root.";
    "group": Kind::GroupName, Now, "", "The group it runs as; by default its pool's, else its user's own.";
    "supplementary_groups": Kind::Groups, Now, "", "Groups beside those of its user.";
    "rate_limit": Kind::Rate, Now, "", "How many of its messages start in a period at most, as \"10/m\" (/s, /m, /h, /d): evenly spaced, but for rate_limit_burst. It holds over all nodes that share the broker, where Celery's holds for each worker. What has to wait stays in the store and takes no slot. `taskd rate` changes it while taskd runs.";
    "rate_limit_burst": Kind::Int(1, 1_000_000), Now, "1", "How many may start at once under rate_limit after a time without any; no window of time has more starts than its share of the rate and this.";
    "rate_limit_key": Kind::Name, Now, "", "rate_limit counts for each value of this parameter (without declared parameters: of this argument by name); messages without it count together. Values take turns.";
    "unique": Kind::BoolOrTable(UNIQUE), Now, "", "At most one message with the same arguments: true for all arguments, while it waits and runs. What comes second is dealt with by on_conflict, in the same transaction, whoever enqueues it. `taskd retry` of a message whose key another one holds is refused.";
    "concurrency": Kind::Int(1, 1_000_000), Now, "", "How many of its messages run at once at most, over all nodes that share the broker.";
    "concurrency_key": Kind::Name, Now, "", "concurrency counts for each value of this parameter, as rate_limit_key; where both are set they name the same one.";
    "memory_max": Kind::Size(MIB, 1 << 50), Now, "", "Hard limit of the memory of one attempt.";
    "cpu_quota": Kind::Percent, Now, "", "Hard limit of its CPU time; 200% is two CPUs.";
    "tasks_max": Kind::Int(1, 1 << 22), Now, "", "How many processes and threads one attempt may have.";
    "io_class": Kind::Choice(IO_CLASSES), Now, "", "Scheduling class of its I/O as ionice(1).";
    "on_memory": Kind::Table(ON_MEMORY), Now, "", "What to do when an attempt ran into memory_max: run it again, with more or elsewhere, beside max_retries.";
    "on_failure": Kind::TableOrFalse(TELL), Now, "", "Who is told when a message of it ends in FAILURE; in place of that of [notify]. false: nobody.";
    "on_recovery": Kind::TableOrFalse(TELL), Now, "", "Who is told when it succeeds again after a failure that somebody was told of; in place of that of [notify].";
    "on_dead": Kind::TableOrFalse(TELL), Now, "", "Who is told when a message of it is DEAD; in place of that of [notify]. By default it is told as a failure.";
    "expected_by": Kind::TimesOfDay, Now, "", "A time of day in [taskd] timezone, or a list of some: whom on_failure names is told when the task had no success since the time before, which for a single one is that of the day before.";
    "credentials": Kind::Credentials, Now, "", "systemd credentials (LoadCredential= of the unit) that it sees, and nobody else, as files in $CREDENTIALS_DIRECTORY while it runs. systemd reads them when the unit starts: a changed one needs a restart, not a reload.";
    "external": Kind::Bool, Now, "false", "Celery workers run it, not taskd: what is enqueued, scheduled or follows in a workflow is sent to its queue as a message of Celery, and its result is read where they write it. Needs a broker on Redis. Without `queue` and routes it goes to `celery`, and without `priority` beside what Celery's own clients send, which is 9 here. time_limit and soft_time_limit go with the call; retries, rate limits and the rest are the Celery app's. `taskd cancel` takes a waiting message back and has a running one ended by remote control.";
    "no_new_privileges": Kind::Bool, Now, "", "Its processes can gain no privileges: no setuid program, so no sudo and no ping. Implied by the keys below where it does not run as root.";
    "private_tmp": Kind::Bool, Now, "", "It has an empty /tmp and /var/tmp of its own, gone with the attempt.";
    "protect_system": Kind::BoolOr(&["full", "strict"]), Now, "", "Read-only for it: true /usr and /boot, \"full\" also /etc, \"strict\" everything but /dev, /proc, /sys and read_write_paths.";
    "private_network": Kind::Bool, Now, "", "It has no network but a loopback of its own.";
    "read_write_paths": Kind::Paths, Now, "", "Files and directories that it may write though protect_system says otherwise.";
};

/// `[notify]`: what a task's `on_…` keys say, for every task.
pub(super) const NOTIFY: &[Key] = keys! {
    "on_failure": Kind::TableOrFalse(TELL), Now, "", "Who is told when a message ends in FAILURE.";
    "on_recovery": Kind::TableOrFalse(TELL), Now, "", "Who is told when a task succeeds again after a failure that somebody was told of.";
    "on_dead": Kind::TableOrFalse(TELL), Now, "", "Who is told when a message is DEAD; by default it is told as a failure.";
    "from": Kind::Mail, Now, "", "Who mails are from; by default taskd at this node.";
    "sendmail": Kind::Path, Now, "\"/usr/sbin/sendmail\"", "The program that takes mails, started with -t -i.";
    "max_retries": Kind::Int(0, 1_000), Now, "5", "How often a notice that could not be told is tried again.";
    "retry_delay": Kind::Duration(1, 3_600_000), Now, "\"20s\"", "How long after the first failure that is; each time doubles it, up to an hour.";
    "output_lines": Kind::Int(0, 1_000), Now, "50", "How many of the last lines of output a notice repeats; at most 16 KiB of them.";
};

const UNIQUE: &[Key] = keys! {
    "key": Kind::Names, Now, "", "The parameters that must be the same; by default all arguments.";
    "while": Kind::Choice(&["queued", "running", "both"]), Now, "\"both\"", "While what a message holds its key: \"queued\" from its acceptance to its first start, \"running\" while an attempt runs, \"both\" from its acceptance to its final state.";
    "period": Kind::Duration(1, YEAR), Now, "", "It holds its key at most this long after it was accepted, however long it waits and runs; a final state frees the key at once.";
    "on_conflict": Kind::Choice(&["return", "error", "replace"]), Now, "\"return\"", "What becomes of the second message: \"return\" answers with the first one, \"error\" refuses it (exit code 73), \"replace\" ends the first one as REVOKED while it waits and takes the second; a first one that runs is answered as by \"return\".";
};

const ON_MEMORY: &[Key] = keys! {
    "memory_max": Kind::SizeOrTimes, Now, "", "The limit of the next attempt: a size, or a multiple of the last one as \"2x\".";
    "queue": Kind::Name, Now, "", "The queue of the next attempt; by default the same.";
    "max": Kind::Int(1, 100), Now, "", "How often in the life of a message; by default once.";
};

const TELL: &[Key] = keys! {
    "exec": Kind::Program, Now, "", "A program that is started, with the notice as JSON on stdin and TASKD_NOTICE_* in its environment.";
    "webhook": Kind::Webhook, Now, "", "An http or https address that gets the notice as a POST of JSON; ${credential:NAME} may stand in it. Only a 2xx answer counts; redirects are not followed. With https the server's certificate must be from whom the machine trusts (update-ca-certificates(8)); SSL_CERT_FILE and SSL_CERT_DIR in taskd's own environment name others.";
    "webhook_secret": Kind::Secret, Now, "", "A credential, as \"${credential:NAME}\", with which each POST is signed: X-Taskd-Signature: sha256=… is the HMAC of its body.";
    "mail": Kind::Mails, Now, "", "A mail address, or a list of some; taken by [notify] sendmail.";
    "after": Kind::Int(1, 1_000_000), Now, "", "Only after this many failures in a row; by default 1.";
    "at_most": Kind::Rate, Now, "", "How many notices in any such period at most; those kept back are counted in the next one.";
};
