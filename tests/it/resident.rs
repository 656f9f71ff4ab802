//! Resident workers, with the Python module, the example in shell, the one that does nothing, and some that
//! break the rules. `MESSAGES=n` for more than 20,000 in the soak test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::harness::{Node, PATIENCE, Ran, procs, until};

/// What the tests' Python tasks do. `up` and `go` are named pipes where a test needs them.
const TASKS: &str = r#"
import asyncio, os, sys, time
from taskd_worker import Canceled, current, retry, task

@task
def add(a, b):
    return {"sum": a + b}

@task
def fail():
    raise ValueError("the reason")

@task
def again():
    if current().attempt < 3:
        retry(delay=0.05)
    return current().attempt

@task
def surroundings():
    mask = os.umask(0)
    return {
        "environment": dict(os.environ), "directory": os.getcwd(), "umask": mask, "uid": os.getuid(),
        "session": os.getsid(0) == os.getpid(), "descriptors": sorted(os.listdir("/proc/self/fd")),
        "nice": os.nice(0), "stdin": os.readlink("/proc/self/fd/0"),
    }

@task
def hold():
    current().progress(1, 2, "half way")
    print("before", flush=True)
    with open("up", "w") as up:
        up.write(current().id + "\n")
    with open("go") as go:
        go.readline()
    print("after")
    return os.getpid()

@task
def sleep():
    with open("up", "w") as up:
        up.write(str(os.getpid()) + "\n")
    time.sleep(300)

@task
def pid():
    return os.getpid()

@task
def large(n):
    return ["x" * n]

@task
def flood(n):
    print("a line of a flood\n" * (n // 18))

@task
async def wait():
    print("waits", current().id)
    with open("up", "w") as up:
        up.write(current().id + "\n")
    while not os.path.exists("open"):
        await asyncio.sleep(0.02)
    return current().id
"#;

/// A node with a pool `py` of Python workers and a queue `py` that all `shop.*` go to. `pool` and `task` are
/// more keys of that pool and of these tasks; `more` are further tables.
fn python(pool: &str, task: &str, capacity: u32, more: &str) -> String {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/python");
    format!(
        "[pools.default]\nprocesses = 1\n[pools.py]\nworking_directory = \"{{dir}}\"\n\
         worker = [\"python3\", \"-m\", \"taskd_worker\", \"shop\", \"--capacity\", \"{capacity}\"]\n\
         environment = {{ PYTHONPATH = \"{}:{{dir}}\" }}\n{pool}\n[queues.py]\npool = \"py\"\n\
         [tasks.\"shop.*\"]\nqueue = \"py\"\n{task}\n{more}",
        module.display()
    )
}

fn prepared(config: &str) -> Node {
    let node = Node::prepare(super::harness::Setup::new(config));
    std::fs::write(node.path().join("shop.py"), TASKS).unwrap();
    node
}

fn started(config: &str) -> Node {
    let mut node = prepared(config);
    node.launch();
    node
}

fn enqueue(node: &Node, task: &str, args: Value) -> String {
    node.http().enqueue(&json!([{"task": task, "args": args}])).remove(0)
}

fn outcome(node: &Node, task: &str, args: Value) -> Value {
    node.finished(&enqueue(node, task, args))
}

fn pool(node: &Node, name: &str) -> Value {
    let status = node.http().get("/v1/status");
    status["pools"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone()
}

/// The process of the only child of a pool.
fn worker(node: &Node, name: &str) -> i32 {
    until("a worker", || pool(node, name)["children"][0]["pid"].as_i64()).try_into().unwrap()
}

fn printed(node: &Node, id: &str) -> Vec<String> {
    node.ok(&["logs", id]).lines().map(str::to_owned).collect()
}

#[test]
fn results_failures_and_retries_are_as_the_program_says() {
    let node = started(&python("processes = 1", "max_retries = 5\nretry_delay = \"10ms\"", 1, ""));
    let done = outcome(&node, "shop.add", json!([2, 40]));
    assert_eq!((&done["state"], &done["outcome"]["result"]), (&json!("SUCCESS"), &json!({"sum": 42})));
    assert!(done["started"].is_i64() && done["outcome"]["usage"]["wall_ms"].is_u64(), "{done}");
    let again = outcome(&node, "shop.again", json!([]));
    assert_eq!((&again["outcome"]["result"], &again["retries"]), (&json!(3), &json!(2)));
    let failed = outcome(&node, "shop.fail", json!([]));
    assert_eq!((&failed["state"], &failed["retries"]), (&json!("FAILURE"), &json!(5)));
    let failure = &failed["outcome"]["failure"];
    assert_eq!((&failure["type"], &failure["message"]), (&json!("ValueError"), &json!("the reason")));
    assert!(failure["traceback"].as_str().unwrap().contains("raise ValueError"), "{failed}");
    assert_eq!(failed["outcome"]["cause"]["kind"], "error");
    let unknown = outcome(&node, "shop.typo", json!([]));
    assert_eq!((&unknown["state"], &unknown["retries"]), (&json!("FAILURE"), &json!(0)), "{unknown}");
    let large = outcome(&node, "shop.large", json!([100_000]));
    assert_eq!(large["outcome"]["failure"]["type"], "ResultTooLarge", "{large}");
    let said = node.taskd(&["result", failed["id"].as_str().unwrap()]);
    assert!(said.fails().err.contains("ValueError"));
}

#[test]
fn it_starts_clean_in_the_surroundings_that_the_config_says() {
    let keys = "processes = 1\numask = \"027\"\nnice = 5\nlimit_nofile = 200\npass_environment = [\"PASSED\"]\n\
                environment_file = \"{dir}/env\"";
    let mut node = prepared(&python(keys, "", 1, ""));
    std::fs::write(node.path().join("env"), "FROM_FILE=\"a b\"\n").unwrap();
    for (name, value) in [("PASSED", "yes"), ("SECRET", "no")] {
        node.setup.env.push((name.to_owned(), value.to_owned()));
    }
    node.launch();
    let result = outcome(&node, "shop.surroundings", json!([]))["outcome"]["result"].clone();
    let variables = &result["environment"];
    for (name, value) in [
        ("PASSED", "yes"),
        ("FROM_FILE", "a b"),
        ("TASKD_POOL", "py"),
        ("TASKD_SLOT", "py/0"),
        ("PATH", taskd::process::runner::PATH),
    ] {
        assert_eq!(variables[name], value, "{name} in {result}");
    }
    for name in ["SECRET", "NOTIFY_SOCKET", "TASKD_ID"] {
        assert!(variables[name].is_null(), "{name} in {result}");
    }
    for name in ["TASKD_INSTANCE", "TASKD_NODE", "HOME", "USER", "SHELL"] {
        assert!(variables[name].is_string(), "no {name} in {result}");
    }
    assert_eq!(result["directory"], node.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!((&result["umask"], &result["nice"]), (&json!(0o27), &json!(5)));
    assert_eq!((&result["session"], &result["stdin"]), (&json!(true), &json!("/dev/null")));
    // Standard ones, the socket, and the directory that is being read.
    assert_eq!(result["descriptors"], json!(["0", "1", "2", "3", "4"]), "{result}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker(&node, "py"))).unwrap();
    let files: Vec<_> =
        limits.lines().find(|l| l.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["200", "200"]);
}

#[test]
fn its_sandbox_is_the_one_of_the_config() {
    let script = "ls -A /tmp | wc -l >&2; grep NoNewPrivs /proc/self/status >&2; exit 7";
    let node = Node::start(&format!(
        "[pools.sh]\nprocesses = 1\nprivate_tmp = true\nno_new_privileges = true\nworker = [\"/bin/sh\", \"-c\", \"{script}\"]\n"
    ));
    until("its words", || {
        let log = node.log();
        (log.contains("sh/0 stderr | 0\n") && log.contains("sh/0 stderr | NoNewPrivs:\t1\n")).then_some(())
    });
}

#[test]
fn it_runs_as_its_pools_user() {
    if !nix::unistd::geteuid().is_root() {
        println!("not tested without root: another user");
        return;
    }
    let node = started(&python("processes = 1\nuser = \"nobody\"", "", 1, ""));
    let result = outcome(&node, "shop.surroundings", json!([]))["outcome"]["result"].clone();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(result["uid"], nobody.uid.as_raw(), "{result}");
    assert_eq!(result["environment"]["USER"], "nobody");
}

#[test]
fn progress_and_output_are_seen_while_it_runs() {
    let mut node = prepared(&python("processes = 1", "", 1, ""));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "shop.hold", json!([]));
    assert_eq!(up.line(), id);
    until("progress", || {
        Some(node.view(&id))
            .filter(|v| v["progress"] == json!({"current": 1, "total": 2, "message": "half way"}))
    });
    until("output", || (printed(&node, &id) == ["before"]).then_some(()));
    assert_eq!(node.view(&id)["pid"], worker(&node, "py"));
    go.release(1);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    assert_eq!(printed(&node, &id), ["before", "after"]);
}

#[test]
fn a_flood_of_output_is_dropped_and_counted_and_stops_nobody() {
    let node = started(&python("processes = 1", "", 1, "[tasks.ok]\ncommand = \"true\"\n"));
    let id = enqueue(&node, "shop.flood", json!([30_000_000]));
    assert_eq!(outcome(&node, "ok", json!([]))["state"], "SUCCESS");
    let done = node.finished(&id);
    assert_eq!(done["state"], "SUCCESS", "{done}");
    let dropped = done["outcome"]["usage"]["dropped_output"].as_u64().unwrap();
    assert!((25_000_000..30_000_000).contains(&dropped), "{dropped}");
}

#[test]
fn many_coroutines_share_one_worker() {
    let mut node = prepared(&python("processes = 1", "", 100, ""));
    let mut up = node.fifo("up");
    node.launch();
    let ids: Vec<String> = (0..50).map(|_| enqueue(&node, "shop.wait", json!([]))).collect();
    let mut waiting: Vec<String> = (0..50).map(|_| up.line()).collect();
    waiting.sort();
    let mut wanted = ids.clone();
    wanted.sort();
    assert_eq!(waiting, wanted, "all are under way at once");
    assert_eq!(node.queue("py")["running"], 50);
    std::fs::write(node.path().join("open"), "").unwrap();
    for (id, view) in ids.iter().zip(node.all_finished(&ids)) {
        assert_eq!(view["outcome"]["result"], *id);
        assert_eq!(printed(&node, id), [format!("waits {id}")], "each line belongs to its run");
    }
}

#[test]
fn a_cancel_and_a_soft_limit_end_the_run_and_not_the_worker() {
    let limited = "[tasks.\"shop.sleep\"]\nqueue = \"py\"\nsoft_time_limit = \"1s\"\ntime_limit = \"1m\"\n";
    let mut node = prepared(&python("processes = 1", "", 1, limited));
    let (mut up, _go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let first = worker(&node, "py");
    let id = enqueue(&node, "shop.hold", json!([]));
    up.line();
    node.ok(&["cancel", &id]);
    let canceled = node.finished(&id);
    assert_eq!(
        (&canceled["state"], &canceled["outcome"]["cause"]["kind"]),
        (&json!("REVOKED"), &json!("revoked"))
    );
    let limited = outcome(&node, "shop.sleep", json!([]));
    assert_eq!(limited["outcome"]["cause"], json!({"kind": "time_limit", "soft": true}), "{limited}");
    assert_eq!(limited["outcome"]["failure"]["type"], "SoftTimeLimitExceeded");
    assert_eq!(outcome(&node, "shop.pid", json!([]))["outcome"]["result"], first);
}

#[test]
fn a_killed_worker_is_replaced_and_its_message_delivered_again() {
    let mut node = prepared(&python("processes = 1", "", 1, ""));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let first = worker(&node, "py");
    let id = enqueue(&node, "shop.hold", json!([]));
    up.line();
    procs::kill9(first);
    assert_eq!(up.line(), id);
    assert_eq!(node.view(&id)["losses"], 1);
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["attempt"]), (&json!("SUCCESS"), &json!(2)));
    assert!(done["outcome"]["result"] != first);
}

#[test]
fn a_daemon_that_dies_interrupts_nothing() {
    let mut node = prepared(&python("processes = 1", "", 1, ""));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let first = worker(&node, "py");
    let id = enqueue(&node, "shop.hold", json!([]));
    up.line();
    until("output", || (printed(&node, &id) == ["before"]).then_some(()));
    let daemon = node.daemon();
    procs::kill9(daemon);
    until("a new daemon", || {
        let status = super::harness::Http::connect(&node.socket()).ok()?.ask("GET", "/v1/status", "").ok()?;
        (status.status == 200 && status.json()["epoch"] == 2).then_some(())
    });
    node.in_state(&id, "RUNNING");
    until("its child", || (node.view(&id)["pid"] == first).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(50)); // the run lasts longer than its new daemon has lived
    go.release(1);
    let done = node.finished(&id);
    assert_eq!(
        (&done["state"], &done["attempt"], &done["losses"]),
        (&json!("SUCCESS"), &json!(1), &json!(0))
    );
    assert_eq!(done["outcome"]["result"], first);
    assert_eq!(printed(&node, &id), ["before", "after"]);
    let since = done["finished"].as_i64().unwrap() - done["started"].as_i64().unwrap();
    let wall = done["outcome"]["usage"]["wall_ms"].as_i64().unwrap();
    assert!(
        (since - wall).abs() < 1000 && wall > 40,
        "the time before the new daemon counts: {wall} of {since} ms"
    );
}

#[test]
fn a_new_program_interrupts_nothing() {
    let mut node = prepared(&python("processes = 1", "", 1, ""));
    super::upgrade::install(super::harness::node::TASKD, &super::upgrade::program(&node));
    node.setup.binary = Some(super::upgrade::program(&node));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let first = worker(&node, "py");
    let id = enqueue(&node, "shop.hold", json!([]));
    up.line();
    until("output", || (printed(&node, &id) == ["before"]).then_some(()));
    super::upgrade::install(super::harness::node::TASKD, &super::upgrade::program(&node));
    node.ok(&["reload", "--binary"]);
    node.in_state(&id, "RUNNING");
    until("its child", || (node.view(&id)["pid"] == first).then_some(()));
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["attempt"]), (&json!("SUCCESS"), &json!(1)), "{done}");
    assert_eq!(done["outcome"]["result"], first);
    assert_eq!(printed(&node, &id), ["before", "after"]);
    // It is of an older generation now, and is replaced by one that works as well.
    until("another worker", || {
        (outcome(&node, "shop.pid", json!([]))["outcome"]["result"] != first).then_some(())
    });
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_worker_that_cannot_resume_is_ended_when_the_daemon_was_replaced() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/worker.sh");
    let config = format!(
        "[pools.default]\nprocesses = 1\n[pools.shell]\nprocesses = 1\nworker = [\"{}\"]\n[queues.shell]\npool = \"shell\"\n\
         [tasks.\"shell.*\"]\nqueue = \"shell\"\n",
        script.display()
    );
    let node = Node::start(&config);
    let sum = outcome(&node, "shell.add", json!([1, 2, 39]));
    assert_eq!((&sum["state"], &sum["outcome"]["result"]), (&json!("SUCCESS"), &json!(42)), "{sum}");
    let hello = outcome(&node, "shell.hello", json!(["you"]));
    assert_eq!(hello["outcome"]["result"], "hello, you");
    assert_eq!(printed(&node, hello["id"].as_str().unwrap()), ["greeting \"you\""]);
    let bad = outcome(&node, "shell.add", json!(["$(id)"]));
    assert_eq!(bad["outcome"]["failure"]["type"], "TypeError");
    let first = worker(&node, "shell");
    let id = enqueue(&node, "shell.steps", json!([]));
    until("progress", || node.view(&id)["progress"]["current"].as_u64());
    procs::kill9(node.daemon());
    let done = node.finished(&id);
    // It answers the new daemon between two runs only: what it held then is lost, or was just done.
    assert_eq!(done["state"], "SUCCESS", "{done}");
    until("another worker", || (worker(&node, "shell") != first).then_some(()));
    // That one works, and so does the next one after the death of a daemon while nothing ran.
    for name in ["two", "three"] {
        let again = outcome(&node, "shell.hello", json!([name]));
        assert_eq!(again["outcome"]["result"], format!("hello, {name}"), "{again}");
        let old = node.daemon();
        procs::kill9(old);
        until("a new daemon", || (node.daemon() != old).then_some(()));
    }
    let last = outcome(&node, "shell.hello", json!(["four"]));
    assert_eq!(last["outcome"]["result"], "hello, four");
}

#[test]
fn breaking_the_protocol_ends_that_child_and_says_so() {
    let pools = [
        ("garbage", "printf 'this is no JSON\\n' >&3; sleep 300", "broke the protocol"),
        ("long", "exec head -c 18000000 /dev/zero >&3; sleep 300", "more than 16777216 bytes"),
        ("version", "echo '{\\\"op\\\":\\\"ready\\\",\\\"v\\\":9}' >&3; sleep 300", "version 9"),
        ("exits", "echo there is no such module >&2; exit 3", "exited with 3: there is no such module"),
        ("deaf", "exec 3>&-; sleep 300", "closed its socket"),
    ];
    let mut config = "[tasks.ok]\ncommand = \"true\"\n".to_owned();
    for (name, script, _) in pools {
        config += &format!("[pools.{name}]\nprocesses = 1\nworker = [\"/bin/sh\", \"-c\", \"{script}\"]\n");
    }
    config += "[pools.missing]\nworker = [\"/nonexistent/worker\"]\n[pools.nowhere]\nworker = [\"/bin/true\"]\n\
               working_directory = \"/nonexistent\"\n[pools.path]\nworker = [\"no-such-program\"]\n";
    let node = Node::start(&config);
    let more = [
        ("missing", "/nonexistent/worker does not exist"),
        ("nowhere", "working directory /nonexistent does not exist"),
        ("path", "\"no-such-program\" was not found in PATH"),
    ];
    for (name, why) in pools.into_iter().map(|(name, _, why)| (name, why)).chain(more) {
        until(&format!("{name}: {why}"), || {
            let degraded = pool(&node, name)["degraded"].clone();
            degraded.as_str().is_some_and(|d| d.contains(why)).then_some(())
        });
    }
    assert_eq!(outcome(&node, "ok", json!([]))["state"], "SUCCESS", "other pools work");
    assert!(pool(&node, "default")["degraded"].is_null());
    super::harness::until("what it printed", || {
        node.log().contains("worker exits/0 stderr | there is no such module").then_some(())
    });
}

/// Breaks the protocol in the first attempt of each message.
const ODD: &str = r#"
while IFS= read -r line <&3; do
    case $line in
    *'"op":"hello"'*) echo '{"op":"ready","v":1}' >&3 ;;
    *'"attempt":1'*) echo nonsense >&3 ;;
    *'"op":"run"'*) run=${line#*'"run":"'}; echo '{"op":"success","run":"'"${run%%\"*}"'"}' >&3 ;;
    esac
done
"#;

#[test]
fn garbage_in_the_middle_of_a_run_delivers_its_message_again() {
    let mut node = Node::prepare(super::harness::Setup::new(
        "[pools.odd]\nprocesses = 1\nworker = [\"/bin/sh\", \"{dir}/odd.sh\"]\n[queues.odd]\npool = \"odd\"\n\
         [tasks.odd]\nqueue = \"odd\"\n",
    ));
    std::fs::write(node.path().join("odd.sh"), ODD).unwrap();
    node.launch();
    let done = outcome(&node, "odd", json!([]));
    assert_eq!(
        (&done["state"], &done["losses"], &done["attempt"]),
        (&json!("SUCCESS"), &json!(1), &json!(2)),
        "{done}"
    );
    // The log has a thread of its own.
    super::harness::until("the reason in the log", || {
        node.log().contains("broke the protocol").then_some(())
    });
}

#[test]
fn a_worker_is_recycled_after_its_tasks_and_nothing_is_lost() {
    let node = started(&python("processes = 1\nmax_tasks_per_child = 3", "", 1, ""));
    let ids: Vec<String> = (0..12).map(|_| enqueue(&node, "shop.pid", json!([]))).collect();
    let views = node.all_finished(&ids);
    let mut seen = std::collections::BTreeMap::<i64, u32>::new();
    for view in &views {
        assert_eq!((&view["state"], &view["attempt"]), (&json!("SUCCESS"), &json!(1)), "{view}");
        *seen.entry(view["outcome"]["result"].as_i64().unwrap()).or_default() += 1;
    }
    assert!(seen.values().all(|n| *n <= 3) && seen.len() >= 4, "{seen:?}");
    assert!(pool(&node, "py")["replaced"]["max_tasks_per_child"].as_u64().unwrap() >= 3);
}

#[test]
fn the_python_module_passes_its_own_tests() {
    let mut command = Command::new("python3");
    command
        .args(["-m", "unittest"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ran::of(&mut command, PATIENCE * 3).code(0);
}

/// The worker that does nothing, built if it must be: `cargo test --test it` builds no examples.
fn noop_worker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        cargo.args(["build", "--quiet", "--example", "noop_worker"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        Ran::of(&mut cargo, PATIENCE * 10).code(0);
        target.join("examples/noop_worker")
    })
}

#[test]
fn many_messages_through_one_pool_leave_nothing_in_daemon_and_launcher() {
    const WAVE: usize = 2_000;
    let wanted: usize = std::env::var("MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let config = format!(
        "[taskd]\nlog_level = \"warn\"\n[results]\nmax_records = 1000\n[pools.noop]\nprocesses = 2\nworker = [\"{}\"]\n\
         environment = {{ NOOP_CAPACITY = \"16\" }}\n[queues.noop]\npool = \"noop\"\n[tasks.noop]\nqueue = \"noop\"\n",
        noop_worker().display()
    );
    let node = Node::start(&config);
    let (launcher, daemon) = (node.launcher(), node.daemon());
    let memory = || [procs::pss(daemon), procs::pss(launcher)].map(|pss| pss.unwrap_or(0));
    let waves = wanted.div_ceil(WAVE);
    let mut first = [0; 2];
    for wave in 0..waves {
        node.enqueue_many("noop", WAVE);
        until("an empty queue", || {
            let queue = node.queue("noop");
            (queue["waiting"] == 0 && queue["running"] == 0).then_some(())
        });
        if wave == waves / 10 {
            first = memory();
        }
    }
    let last = memory();
    let totals = node.http().get("/v1/status")["counts"].clone();
    assert_eq!((&totals["succeeded"], &totals["failed"]), (&json!(waves * WAVE), &json!(0)));
    println!("PSS of daemon and launcher: {first:?} after a tenth, {last:?} after {} messages", waves * WAVE);
    for (first, last) in first.into_iter().zip(last) {
        // The store's page cache fills during the first 20,000 messages or so; after that nothing may grow.
        let room = if wanted < 200_000 { 12 << 20 } else { (1 << 20) + first / 10 };
        assert!(last <= first + room, "grew from {first} to {last} bytes");
    }
    assert_eq!(node.daemon(), daemon);
}

#[test]
fn a_worker_that_is_silent_towards_a_new_daemon_holds_nobody_else_up() {
    let node = prepared(&python("processes = 1", "", 1, "[tasks.quick]\ncommand = \"echo done\"\n"));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let mut node = node;
    node.launch();
    let held = enqueue(&node, "shop.hold", json!([]));
    assert_eq!(up.line(), held);
    let pid = nix::unistd::Pid::from_raw(worker(&node, "py"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let daemon = node.daemon();
    procs::kill9(daemon);
    until("the next daemon", || (node.daemon() != daemon).then_some(()));
    let begun = std::time::Instant::now();
    let quick = enqueue(&node, "quick", json!([]));
    assert_eq!(node.finished(&quick)["state"], "SUCCESS");
    // Its silence would end it after 10 s: the other pool worked before.
    assert!(procs::lives(pid.as_raw()), "after {:?}", begun.elapsed());
    assert_eq!(node.view(&held)["state"], "RUNNING");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    go.release(1);
    let view = node.finished(&held);
    assert_eq!((&view["state"], &view["attempt"]), (&json!("SUCCESS"), &json!(1)), "{view}");
}
