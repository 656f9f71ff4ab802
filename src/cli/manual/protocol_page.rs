//! taskd-worker(7): the child protocol for whoever writes a resident worker. Numbers are the constants of the
//! code that keeps them; a test looks that each line and each field of the protocol is told.

use super::roff::Page;
use crate::daemon::child::{CANCEL_MS, END_MS, MAX_LOSSES, NAMING_MS, READY_MS};
use crate::daemon::round::CLOSED_MS;
use crate::daemon::worker_end::{MAX_CELERY, MAX_KIND, MAX_MESSAGE, MAX_TRACEBACK};
use crate::process::output::CUT;
use crate::process::protocol::{FD, MAX_LINE, VERSION};

/// The shortest workers; a test runs them.
const SHELL: &str = include_str!("../../../packaging/man/shortest_worker.sh");
const PYTHON: &str = include_str!("../../../packaging/man/shortest_worker.py");

/// The page.
#[must_use]
pub fn page(date: &str) -> String {
    let mut page = Page::new("taskd-worker", 7, date, "how a resident worker speaks with taskd");
    for (title, text) in [
        ("DESCRIPTION", description()),
        ("START", start()),
        ("LINES", lines()),
        ("FROM TASKD TO THE WORKER", to_worker()),
        ("FROM THE WORKER TO TASKD", from_worker()),
        ("OUTPUT", output()),
        ("CANCELING AND LIMITS", limits()),
        ("A NEW DAEMON", adoption()),
        ("THE END", end()),
    ] {
        page.section(title);
        page.prose(&text);
    }
    page.section("EXAMPLES");
    page.paragraph(
        "The shortest worker in POSIX shell. It does not parse JSON, which is enough for what it does:",
    );
    page.example(SHELL.lines());
    page.paragraph("The shortest one in Python, whose every task adds up its arguments:");
    page.example(PYTHON.lines());
    page.paragraph("Declared in taskd.toml(5), with all tasks whose names begin with `calc.`:");
    page.example([
        "[pools.calc]",
        "worker = [\"/usr/local/bin/calc-worker\"]",
        "[queues.calc]",
        "pool = \"calc\"",
        "[tasks.\"calc.*\"]",
        "queue = \"calc\"",
    ]);
    page.paragraph(
        "The Python module `taskd_worker` does all of this page for you, with threads, coroutines and \
         adoption by a new daemon. A pool with `celery_app` runs that module itself, with the tasks of a Celery app.",
    );
    page.section("SEE ALSO");
    page.paragraph("taskd(1), taskd.toml(5)");
    page.into_text()
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms / 1_000)
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes >> 10)
}

fn description() -> String {
    "\
A pool with a `worker` in taskd.toml(5) runs its tasks in programs of yours that stay alive: each child of the pool is \
one process of that program, and takes one run after another over a socket, or several at once. What a task does, and \
which tasks there are, is the program's own matter. taskd starts it, hands runs to it, tells it when one is to end, bounds \
it, and replaces it."
        .to_owned()
}

fn start() -> String {
    format!(
        "\
The program is executed as the pool's user, in `working_directory`, in a session of its own, with standard input from \
/dev/null, and standard output and error for whatever it wants to print. File descriptor {FD} is a connected stream \
socket, the only other one that is open. Programs that the worker starts should not inherit it.

In its environment, beside `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL` and what the pool's keys add, are

* `TASKD_FD` :: The number of the socket, {FD}.
* `TASKD_POOL`, `TASKD_SLOT` :: The pool, and the child's place in it.
* `TASKD_NODE`, `TASKD_INSTANCE` :: The node's name, and a value by which leftovers are found; leave it alone.

taskd says `hello`; the worker answers with `ready` and `resumed`, and has {ready} from its start for that, or it is \
killed.",
        ready = seconds(READY_MS)
    )
}

fn lines() -> String {
    format!(
        "\
Each line is one JSON object and ends with a newline; it has at most {max} bytes, {mib} MiB, in either direction. Empty lines \
mean nothing. `op` says what a line is, and `run` which run it is about: an opaque text, another one for each attempt, so \
that what comes late is never taken for a later attempt.

In lines of taskd `op` comes first and `run`, if there is one, second, there is no white space between tokens, and a quote \
inside of a text is escaped: a worker without a JSON parser can tell them apart by how they begin. The worker's own lines \
may be written in any way that is JSON.

A worker passes over fields and values of `op` that it does not know; a later taskd may say more. taskd passes over fields \
that it does not know, and kills a worker that says anything else than these lines: what it ran is delivered again. So each \
line must be written whole, one writer at a time.",
        max = MAX_LINE,
        mib = MAX_LINE >> 20
    )
}

fn to_worker() -> String {
    format!(
        "\
* `{{\"op\":\"hello\",\"v\":{VERSION},\"epoch\":1}}` :: A daemon is there, the first or a new one. `v` is the version of this \
protocol, {VERSION}. `epoch` is 1 for the first daemon and grows with each one after it. A newline comes before it, which ends \
a line that an earlier daemon did not write to its end: what cannot be parsed before `hello` is to be passed over.
* `{{\"op\":\"run\",\"run\":\"…\",…}}` :: Run a task. `id` is the message's id, `task` the task's name, `queue` the queue it came \
from; `args` is the list of positional arguments, `kwargs` the object of keyword arguments; `attempt` counts from 1. \
`deadline_ms` and `soft_deadline_ms` are the task's `time_limit` and `soft_time_limit` in milliseconds from now, and are \
absent where there are none. `generation` numbers the settings that were in force; `memory_retries`, absent if 0, says how \
often `on_memory` was applied, and `retries` how often the message was retried for other reasons. `headers` are what its \
client attached, `passes` says that a later step of its workflow is given the result, and `celery` has `headers`, \
`properties` and `embed` of the call where a Celery client sent it; each is absent where there is nothing to say. There are never more runs at once than `capacity`.
* `{{\"op\":\"cancel\",\"run\":\"…\",\"reason\":\"…\"}}` :: End this run. `reason` is `revoked` (somebody canceled it), \
`interrupted` (taskd shuts down; the message is run again) or `time_limit` (the soft limit passed).
* `{{\"op\":\"settled\",\"run\":\"…\"}}` :: The end of this run is stored; the worker may forget it."
    )
}

fn from_worker() -> String {
    format!(
        "\
    * `{{\"op\":\"ready\",\"v\":{VERSION},\"capacity\":1,\"tasks\":[],\"resume\":false}}` :: The answer to `hello`. `v` is required. \
    `capacity` is how many runs it takes at once, 1 if it is absent. `tasks` are the names, or patterns with `*` and `?`, of the \
    tasks it serves; empty or absent: whatever it is sent. A message that no worker of the pool serves waits, and `taskd why` says \
so. `resume` says whether a new daemon may go on with it, `false` if it is absent.
* `{{\"op\":\"running\",\"run\":\"…\"}}` :: Behind `ready`, for each run that it holds and has not ended.
* `{{\"op\":\"resumed\"}}` :: Behind these and the ends that are not settled: nothing else is held.
* `{{\"op\":\"started\",\"run\":\"…\",\"pid\":0}}` :: The run begins now: its time is counted from here, without it from when the \
    run was handed over. `pid`, the process of the run if it has one of its own, may be absent. \
    `soft_time_limit_ms` and `time_limit_ms` are limits of the worker's own for this run, in milliseconds from this line on: taskd \
keeps them as it does those of the task, whichever comes first. Told again to a new daemon they are what is left.
* `{{\"op\":\"progress\",\"run\":\"…\",\"current\":1,\"total\":3,\"message\":\"…\"}}` :: How far it is; `taskd status` shows it. All \
three may be absent; `message` is cut at {message}.
* `{{\"op\":\"output\",\"run\":\"…\",\"stream\":\"stdout\",\"line\":\"…\"}}` :: A line that this run printed, without its newline, \
    `stream` being `stdout` or `stderr`. In place of `line` there may be `data`, bytes in base64 that are not UTF-8. `cut` set to \
`true` says that the line goes on in the next one.
* `{{\"op\":\"success\",\"run\":\"…\",\"result\":…}}` :: The run succeeded. `result` is any JSON, `null` if it is absent. A text \
is cut at the task's `result_max_size`; of anything else that is larger the run is a failure, `ResultTooLarge`.
* `{{\"op\":\"failure\",\"run\":\"…\",\"type\":\"…\",\"message\":\"…\"}}` :: It failed. `type` (the class of the error) and \
    `message` (one line) are required, `traceback` is not; they are cut at {kind} bytes, {message} and {traceback}. `retry` set to \
    `false` means that there is no other attempt, to `true` that there is one as long as `max_retries` lasts; if it is absent the \
task's policy decides.
* `{{\"op\":\"retry\",\"run\":\"…\",\"delay_ms\":5000}}` :: Run it again, after so many milliseconds, or as the task's policy says \
    if `delay_ms` is absent. It counts against `max_retries`. `failure` may be an object of `type`, `message` and `traceback` that \
    tells why. `own` set to `true` says that the worker counts retries itself, by `retries` of the run: `max_retries` is not \
    asked. `args` and `kwargs` are what the next attempt is called with; if one of them is there, both are replaced. `back` set to \
`true` puts the message back as it is, which is an attempt but no retry (of a task with `acks = \"early\"` it is a failure).
* `{{\"op\":\"refused\",\"run\":\"…\",\"why\":\"…\"}}` :: The worker does not run this. The message goes back, uncounted, and the \
worker is replaced once nothing runs in it.

`detail`, in `success`, `failure` and `retry`, is for taskd's own children; of a worker it is passed over. `celery` in these \
    three lines is for what a Celery client's result has beyond them: `exception`, an object of `module`, `type` and `args`; `children`, \
    the tasks that were sent, as Celery writes them; `errbacks`, the indices of those that were called already; `ignored`. Arguments \
    and children of more than {celery} are not kept.",
        celery = kib(MAX_CELERY),
        kind = MAX_KIND,
        message = kib(MAX_MESSAGE),
        traceback = kib(MAX_TRACEBACK)
    )
}

fn output() -> String {
    format!(
        "\
What the worker prints on standard output and error goes to the journal and, while exactly one run is in flight, to that \
run's output: a worker of capacity 1 just prints. One of more capacity says `output` where it matters whose line it is. Lines \
are cut at {}; what is beyond `output_rate` of `[results]` is dropped and counted. Lines that were printed before an end is told \
belong to that run if they were flushed.",
        kib(CUT)
    )
}

fn limits() -> String {
    format!(
        "\
At `soft_time_limit` the worker is told to `cancel` the run, with the reason `time_limit`; at `time_limit` it is killed. A \
run that was canceled with the reason `revoked` must end within {cancel}, or the worker is killed; at a shutdown the same holds \
for `interrupted`. How it ends is told by `success` if it was done after all, else by `failure`, whose cause is then the \
reason. Killing a worker for one of its runs ends the others too: these are run again, and that is not counted.

`memory_max`, `cpu_quota` and `tasks_max` of the pool bound the whole process with all that it starts.",
        cancel = seconds(CANCEL_MS)
    )
}

fn adoption() -> String {
    format!(
        "\
The daemon may be replaced while the worker runs something: by an upgrade, or because it died. The socket stays the same \
one, and what was said to nobody is read by the next daemon. That one says `hello` with a higher `epoch`; the worker answers as \
at the first time, within {naming}: `ready`, `running` for each run that it holds, every end that is not `settled` once more, \
`resumed`. A run that it does not name is taken for one that never arrived and is handed out again; one that is not known any \
more is canceled.

This asks of a worker with `\"resume\":true` that it keeps each end until `settled` comes. With `\"resume\":false` a new daemon \
ends it, and what it ran is lost (`worker_lost`) and run again; a message that is lost {MAX_LOSSES} times is given up as DEAD.",
        naming = seconds(NAMING_MS)
    )
}

fn end() -> String {
    format!(
        "\
The end of file on the socket means: finish what is at hand, tell it, and exit. It comes when the worker is to be replaced \
(`max_tasks_per_child`, `max_memory_per_child`, `max_child_age`, a reload), which happens while nothing runs in it, and it then \
has {end}. When taskd ends, SIGTERM comes too and SIGKILL soon after it. If taskd's own process dies, the worker is killed with \
it.

A worker that closes the socket has {closed} to exit. One that exits or dies while runs are in flight loses them: the cause is \
`worker_lost`, or `memory` if the kernel killed it for want of memory, and they are run again. Its exit code and the last line it \
printed on standard error are shown by `taskd status`. A new one is started in its place, after a growing pause if they do not \
stay.",
        end = seconds(END_MS),
        closed = seconds(CLOSED_MS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::manual::roff::typed;
    use crate::model::outcome::CancelReason;
    use crate::process::protocol::{FromChild, Stream, ToChild};
    use serde_json::{Value, json};

    /// One line of each kind, with every field; the compiler knows when one is missing.
    fn every_line() -> Vec<Value> {
        let own = String::new;
        let celery = || Some(Box::default());
        let run = json!({"run": "", "generation": 1, "id": "", "task": "", "queue": "", "attempt": 1,
            "deadline_ms": 1, "soft_deadline_ms": 1, "memory_retries": 1, "passes": true, "retries": 1,
            "headers": {"a": 1}, "celery": {}});
        let to = [
            ToChild::Hello { v: 1, epoch: 1 },
            ToChild::Run(serde_json::from_value(run).unwrap()),
            ToChild::Cancel { run: own(), reason: CancelReason::Revoked },
            ToChild::Settled { run: own() },
        ];
        for line in &to {
            match line {
                ToChild::Hello { .. }
                | ToChild::Run(_)
                | ToChild::Cancel { .. }
                | ToChild::Settled { .. } => {}
            }
        }
        let failure =
            crate::model::outcome::Failure { kind: own(), message: own(), traceback: "x".to_owned() };
        let from = [
            FromChild::Ready { v: 1, capacity: 1, tasks: vec![], resume: true },
            FromChild::Running { run: own() },
            FromChild::Resumed {},
            FromChild::Started { run: own(), pid: 1, soft_time_limit_ms: Some(1), time_limit_ms: Some(1) },
            FromChild::Progress { run: own(), current: 1, total: 1, message: own() },
            FromChild::Output {
                run: own(),
                stream: Stream::Stdout,
                line: Some(own()),
                data: Some(own()),
                cut: true,
            },
            FromChild::Success { run: own(), result: None, detail: None, celery: celery() },
            FromChild::Failure {
                run: own(),
                kind: own(),
                message: own(),
                traceback: own(),
                retry: Some(true),
                detail: None,
                celery: celery(),
            },
            FromChild::Retry {
                run: own(),
                delay_ms: None,
                detail: None,
                failure: Some(failure),
                own: true,
                back: true,
                args: Some(vec![]),
                kwargs: Some(serde_json::Map::new()),
                celery: celery(),
            },
            FromChild::Refused { run: own(), why: own() },
        ];
        for line in &from {
            match line {
                FromChild::Ready { .. }
                | FromChild::Running { .. }
                | FromChild::Resumed {}
                | FromChild::Started { .. }
                | FromChild::Progress { .. }
                | FromChild::Output { .. }
                | FromChild::Success { .. }
                | FromChild::Failure { .. }
                | FromChild::Retry { .. }
                | FromChild::Refused { .. } => {}
            }
        }
        let to = to.iter().map(|l| serde_json::to_value(l).unwrap());
        to.chain(from.iter().map(|l| serde_json::to_value(l).unwrap())).collect()
    }

    /// What of these lines the page does not tell in the item of their `op`.
    fn missing(lines: &[Value], text: &str) -> Vec<String> {
        let mut missing = Vec::new();
        for line in lines {
            let op = line["op"].as_str().unwrap();
            let begins = typed(&format!("{{\"op\":\"{op}\""));
            let Some(item) = text.split("\n.TP\n").find(|i| i.starts_with(&format!("\\fB{begins}"))) else {
                missing.push(op.to_owned());
                continue;
            };
            // What is told for several lines at once stands behind them.
            let shared = ["op", "celery"];
            let told_once = op != "run";
            for field in line
                .as_object()
                .unwrap()
                .keys()
                .filter(|f| *f != "op" && !(told_once && shared.contains(&f.as_str())))
            {
                let told = item.contains(&format!("\\fB{}\\fR", typed(field)))
                    || item.contains(&typed(&format!("\"{field}\":")));
                if !told {
                    missing.push(format!("{op}.{field}"));
                }
            }
        }
        missing
    }

    #[test]
    fn every_line_and_field_is_in_the_page() {
        let text = page("");
        assert!(text.contains(&format!("\\fB{}\\fR", typed("celery"))));
        let mut lines = every_line();
        assert_eq!(missing(&lines, &text), Vec::<String>::new());
        lines.push(json!({"op": "brand", "new": 1}));
        lines.push(json!({"op": "refused", "run": "", "new": 1}));
        assert_eq!(missing(&lines, &text), ["brand", "refused.new"]);
    }

    #[test]
    fn words_for_reasons_are_those_of_the_protocol() {
        let text = page("");
        for reason in [CancelReason::Revoked, CancelReason::Interrupted, CancelReason::TimeLimit] {
            let word = serde_json::to_value(reason).unwrap();
            assert!(text.contains(&format!("\\fB{}\\fR", word.as_str().unwrap())), "{word}");
        }
    }
}
