//! Celery apps in a pool of taskd. They need Celery: `bash tests/needs.sh test` puts it into target/venv-celery.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Http, Node, PATIENCE, Ran, Setup, procs, until};

/// An app as it stands in a shop: nothing in it knows of taskd. `up` is a named pipe where a test needs it.
const APP: &str = r#"
import os, time
from celery import Celery, Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

# Nobody is there: whatever Celery itself would send or store is an error or a hang.
app = Celery("shop", broker="redis://127.0.0.1:1/0", backend="file:///nonexistent")

class OutOfStock(Exception):
    def __init__(self, item, left):
        super().__init__(item, left)

class Noted(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print("on_failure", type(exc).__name__, flush=True)

def up(*words):
    with open("up", "w") as pipe:
        pipe.write(" ".join(map(str, words)) + "\n")

@app.task
def add(a, b):
    return a + b

@app.task(bind=True)
def about(self):
    r = self.request
    return [r.id, r.retries, r.hostname, r.delivery_info["routing_key"], r.delivery_info["redelivered"], os.getcwd()]

@app.task(bind=True, max_retries=3)
def again(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=0.05, exc=OSError("not yet"))
    return self.request.retries

@app.task(bind=True)
def counts_down(self, n, note="first"):
    if n > 0:
        raise self.retry(args=[n - 1], kwargs={"note": f"after {n}"}, countdown=0)
    return [n, note, self.request.retries]

@app.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.05, retry_kwargs={"countdown": 0.05})
def auto():
    raise ConnectionError("down")

@app.task(base=Noted)
def sells():
    raise OutOfStock("shoe", 3)

@app.task(soft_time_limit=1)
def soft():
    try:
        time.sleep(300)
    except SoftTimeLimitExceeded:
        return "cleaned up"

@app.task(soft_time_limit=0.5, time_limit=1)
def hard():
    while True:
        try:
            time.sleep(300)
        except SoftTimeLimitExceeded:
            pass

@app.task(soft_time_limit=0.2)
def passes():
    time.sleep(300)

@app.task
def ignored():
    raise Ignore()

@app.task(bind=True)
def rejected(self, requeue):
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not here", requeue=requeue)
    return "the second time"

@app.task(bind=True)
def held(self):
    up(os.getpid(), self.request.delivery_info["redelivered"])
    with open("go") as go:
        go.readline()
    return self.request.delivery_info["redelivered"]

@app.task
def around():
    import sys
    import taskd_worker
    return {"fds": sorted(os.listdir("/proc/self/fd")), "argv": sys.argv, "path": sys.path, "python": sys.executable,
            "module": taskd_worker.__file__}
"#;

/// The interpreter with Celery.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv-celery/bin/python");
    assert!(python.exists(), "there is no Celery for the tests: run `bash tests/needs.sh test`");
    python
}

/// A node whose pool `shop` runs the app; `pool` and `task` are more keys of it and of its tasks.
fn prepared(pool: &str, task: &str) -> Node {
    let config = format!(
        "[pools.default]\nprocesses = 1\n[pools.shop]\nprocesses = 1\ncelery_app = \"shop.celery:app\"\npython = \"{}\"\n\
         working_directory = \"{{dir}}\"\n{pool}\n[queues.shop]\npool = \"shop\"\n\
         [tasks.\"shop.*\"]\nqueue = \"shop\"\n{task}\n",
        python().display()
    );
    let node = Node::prepare(Setup::new(&config));
    std::fs::create_dir(node.path().join("shop")).unwrap();
    std::fs::write(node.path().join("shop/__init__.py"), "").unwrap();
    std::fs::write(node.path().join("shop/celery.py"), APP).unwrap();
    node
}

fn started(pool: &str, task: &str) -> Node {
    let mut node = prepared(pool, task);
    node.launch();
    node
}

fn enqueue(node: &Node, task: &str, args: Value) -> String {
    node.http().enqueue(&json!([{"task": format!("shop.celery.{task}"), "args": args}])).remove(0)
}

fn outcome(node: &Node, task: &str, args: Value) -> Value {
    node.finished(&enqueue(node, task, args))
}

fn pool(node: &Node) -> Value {
    let status = node.http().get("/v1/status");
    status["pools"].as_array().unwrap().iter().find(|p| p["name"] == "shop").unwrap().clone()
}

fn failure(done: &Value) -> (&str, &str) {
    let failure = &done["outcome"]["failure"];
    (failure["type"].as_str().unwrap_or_default(), failure["message"].as_str().unwrap_or_default())
}

#[test]
fn the_module_passes_its_tests_with_celery() {
    let mut command = Command::new(python());
    command.args(["-m", "unittest", "tests.with_celery"]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ran::of(&mut command, PATIENCE * 3).code(0);
}

#[test]
fn tasks_of_an_app_run_as_they_are() {
    let node = started("", "");
    let added = node.enqueue(&["shop.celery.add", "a:=2", "b:=3"]);
    assert_eq!(node.finished(&added)["outcome"]["result"], 5);
    assert_eq!(node.ok(&["result", &added]).trim(), "5");
    let id = enqueue(&node, "about", json!([]));
    let done = node.finished(&id);
    let result = done["outcome"]["result"].as_array().unwrap().clone();
    let directory = node.path().canonicalize().unwrap();
    assert_eq!(result[..2], [json!(id), json!(0)]);
    assert_eq!(result[3..], [json!("shop"), json!(false), json!(directory.to_str().unwrap())], "{done}");
    let sold = outcome(&node, "sells", json!([]));
    assert_eq!(failure(&sold), ("shop.celery.OutOfStock", "('shoe', 3)"), "{sold}");
    let raised = json!({"module": "shop.celery", "type": "OutOfStock", "args": ["shoe", 3]});
    assert_eq!(sold["outcome"]["celery"]["exception"], raised);
    let printed = node.ok(&["logs", sold["id"].as_str().unwrap()]);
    assert!(printed.contains("on_failure OutOfStock"), "{printed}");
    let ignored = outcome(&node, "ignored", json!([]));
    assert_eq!((&ignored["state"], &ignored["outcome"]["result"]), (&json!("SUCCESS"), &Value::Null));
    let unknown = outcome(&node, "typo", json!([]));
    assert_eq!(
        (&unknown["state"], failure(&unknown).0),
        (&json!("FAILURE"), "celery.exceptions.NotRegistered")
    );
    assert_eq!(pool(&node)["children"].as_array().unwrap().len(), 1, "one child did all of that");
}

#[test]
fn nothing_of_taskd_need_be_installed_and_nothing_of_it_is_in_the_way() {
    let node = started("", "");
    let result = outcome(&node, "around", json!([]))["outcome"]["result"].clone();
    assert_eq!(result["module"], "taskd/taskd_worker/__init__.py");
    assert_eq!(result["argv"], json!(["taskd_worker", "--celery", "shop.celery:app"]));
    // Standard ones, the socket, and the directory that is being read.
    assert_eq!(result["fds"], json!(["0", "1", "2", "3", "4"]), "{result}");
    let path = result["path"].as_array().unwrap();
    assert_eq!(path[0], node.path().canonicalize().unwrap().to_str().unwrap(), "{path:?}");
    assert!(path.iter().all(|p| !p.as_str().unwrap().contains("/proc/")), "{path:?}");
    assert!(result["python"].as_str().unwrap().ends_with("venv-celery/bin/python"), "{result}");
}

#[test]
fn retries_are_the_apps_own_whatever_max_retries_says() {
    let node = started("", "");
    let done = outcome(&node, "again", json!([3]));
    assert_eq!((&done["state"], &done["outcome"]["result"]), (&json!("SUCCESS"), &json!(3)), "{done}");
    assert_eq!((&done["retries"], &done["attempt"]), (&json!(3), &json!(4)));
    let done = outcome(&node, "again", json!([9]));
    assert_eq!(
        (&done["state"], &done["retries"], failure(&done)),
        (&json!("FAILURE"), &json!(3), ("OSError", "not yet"))
    );
    let done = outcome(&node, "counts_down", json!([2]));
    assert_eq!(done["outcome"]["result"], json!([0, "after 1", 2]), "{done}");
    assert_eq!(
        (&done["args"], &done["kwargs"]["note"]),
        (&json!([0]), &json!("after 1")),
        "the message has them"
    );
    let done = outcome(&node, "auto", json!([]));
    assert_eq!(
        (&done["state"], &done["retries"], failure(&done).0),
        (&json!("FAILURE"), &json!(2), "ConnectionError")
    );
}

#[test]
fn what_the_app_gave_up_is_not_retried_and_other_failures_are_as_the_task_says() {
    let node = started("", "max_retries = 1\nretry_delay = \"10ms\"");
    let done = outcome(&node, "auto", json!([]));
    assert_eq!((&done["state"], &done["retries"]), (&json!("FAILURE"), &json!(2)), "{done}");
    let done = outcome(&node, "sells", json!([]));
    assert_eq!((&done["state"], &done["retries"]), (&json!("FAILURE"), &json!(1)), "{done}");
}

#[test]
fn rejected_messages_come_back_or_are_failures() {
    let node = started("", "");
    let done = outcome(&node, "rejected", json!([true]));
    assert_eq!(
        (&done["state"], &done["outcome"]["result"]),
        (&json!("SUCCESS"), &json!("the second time")),
        "{done}"
    );
    assert_eq!((&done["retries"], &done["attempt"]), (&json!(0), &json!(2)));
    let done = outcome(&node, "rejected", json!([false]));
    assert_eq!((&done["state"], failure(&done).0), (&json!("FAILURE"), "celery.exceptions.Reject"), "{done}");
}

#[test]
fn limits_of_the_app_hold_beside_those_of_the_task() {
    let node = started("", "");
    assert_eq!(outcome(&node, "soft", json!([]))["outcome"]["result"], "cleaned up");
    let done = outcome(&node, "passes", json!([]));
    assert_eq!(done["outcome"]["cause"], json!({"kind": "time_limit", "soft": true}), "{done}");
    let before = pool(&node)["children"][0]["pid"].clone();
    let done = outcome(&node, "hard", json!([]));
    assert_eq!((&done["state"], &done["attempt"]), (&json!("FAILURE"), &json!(1)), "{done}");
    assert_eq!(done["outcome"]["cause"], json!({"kind": "time_limit", "soft": false}), "{done}");
    assert_eq!(outcome(&node, "add", json!([1, 1]))["outcome"]["result"], 2);
    assert_ne!(pool(&node)["children"][0]["pid"], before, "its child was killed");
    let node = started("", "soft_time_limit = \"200ms\"\ntime_limit = \"1m\"");
    let done = outcome(&node, "soft", json!([]));
    assert!(done["outcome"]["usage"]["wall_ms"].as_u64().unwrap() < 950, "the sooner one holds: {done}");
}

#[test]
fn a_killed_child_is_replaced_and_its_task_runs_again() {
    let mut node = prepared("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    let first = up.line();
    let (pid, redelivered) = first.split_once(' ').unwrap();
    assert_eq!(redelivered, "False");
    procs::kill9(pid.parse().unwrap());
    let second = up.line();
    assert!(second.ends_with("True") && !second.starts_with(pid), "{second}");
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["outcome"]["result"]), (&json!("SUCCESS"), &json!(true)), "{done}");
    assert_eq!((&done["attempt"], &done["retries"]), (&json!(2), &json!(0)));
}

#[test]
fn a_daemon_that_dies_interrupts_no_task_of_an_app() {
    let mut node = prepared("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    up.line();
    procs::kill9(node.daemon());
    until("a new daemon", || {
        let status = Http::connect(&node.socket()).ok()?.ask("GET", "/v1/status", "").ok()?;
        (status.status == 200 && status.json()["epoch"] == 2).then_some(())
    });
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["attempt"]), (&json!("SUCCESS"), &json!(1)), "{done}");
}

#[test]
fn a_canceled_task_is_revoked() {
    let mut node = prepared("", "");
    let mut up = node.fifo("up");
    let _go = node.fifo("go");
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    up.line();
    node.ok(&["cancel", &id]);
    assert_eq!(node.finished(&id)["state"], "REVOKED");
    assert_eq!(outcome(&node, "add", json!([1, 2]))["outcome"]["result"], 3);
}

/// Says when and where it is loaded.
const LOADS: &str = "
import os
with open('loads', 'a') as loads:
    loads.write(f'{os.getpid()}\\n')
print('printed while it was loaded')
";

/// A node whose children are forked from one that loaded the app.
fn preloaded(pool: &str, task: &str) -> Node {
    let node = prepared(&format!("preload = true\n{pool}"), task);
    std::fs::write(node.path().join("shop/celery.py"), format!("{LOADS}{APP}")).unwrap();
    node
}

/// The processes that loaded the app, in their order.
fn loads(node: &Node) -> Vec<i32> {
    let text = std::fs::read_to_string(node.path().join("loads")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn children(node: &Node) -> Vec<i64> {
    pool(node)["children"].as_array().unwrap().iter().map(|c| c["pid"].as_i64().unwrap()).collect()
}

fn two_children(node: &Node) -> Vec<i64> {
    until("two children", || Some(children(node)).filter(|there| there.len() == 2))
}

#[test]
fn a_preloaded_app_is_loaded_once_and_its_children_are_the_launchers() {
    let mut node = preloaded("max_tasks_per_child = 3", "");
    let text = std::fs::read_to_string(node.config_file()).unwrap();
    let two = text.replace("[pools.shop]\nprocesses = 1", "[pools.shop]\nprocesses = 2");
    std::fs::write(node.config_file(), two).unwrap();
    node.launch();
    let first = two_children(&node);
    for child in &first {
        let (_, parent) = procs::state_and_parent(i32::try_from(*child).unwrap()).unwrap();
        assert_eq!(parent, node.launcher(), "as every child");
    }
    for n in 0..20 {
        assert_eq!(outcome(&node, "add", json!([n, n]))["outcome"]["result"], 2 * n);
    }
    let now = two_children(&node);
    assert!(now.iter().all(|pid| !first.contains(pid)), "they were recycled: {first:?} {now:?}");
    let loaded = loads(&node);
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    assert!(node.log().contains("printed while it was loaded"), "{}", node.log());
    let killed = i32::try_from(now[0]).unwrap();
    procs::kill9(killed);
    until("another one", || {
        let there = children(&node);
        (there.len() == 2 && !there.contains(&now[0])).then_some(())
    });
    assert_eq!(loads(&node).len(), 1);
    assert_eq!(node.stop(), 0);
    assert!(!procs::lives(loaded[0]), "the parent is gone with the launcher");
}

#[test]
fn limits_and_kills_reach_children_that_were_forked() {
    let mut node = preloaded("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let done = outcome(&node, "hard", json!([]));
    assert_eq!(done["outcome"]["cause"], json!({"kind": "time_limit", "soft": false}), "{done}");
    assert_eq!(outcome(&node, "soft", json!([]))["outcome"]["result"], "cleaned up");
    let id = enqueue(&node, "held", json!([]));
    let first = up.line();
    procs::kill9(first.split_once(' ').unwrap().0.parse().unwrap());
    assert!(up.line().ends_with("True"));
    go.release(1);
    assert_eq!(node.finished(&id)["outcome"]["result"], true);
    assert_eq!(loads(&node).len(), 1);
    // Nothing of the parent's is open in them, and they are what others are.
    let around = outcome(&node, "around", json!([]))["outcome"]["result"].clone();
    assert_eq!(around["fds"], json!(["0", "1", "2", "3", "4"]), "{around}");
}

#[test]
fn children_outlive_their_parent_and_the_daemon() {
    let mut node = preloaded("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    up.line();
    procs::kill9(loads(&node)[0]);
    procs::kill9(node.daemon());
    until("a new daemon", || {
        let status = Http::connect(&node.socket()).ok()?.ask("GET", "/v1/status", "").ok()?;
        (status.status == 200 && status.json()["epoch"] == 2).then_some(())
    });
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["attempt"]), (&json!("SUCCESS"), &json!(1)), "{done}");
    procs::kill9(i32::try_from(children(&node)[0]).unwrap());
    assert_eq!(outcome(&node, "add", json!([1, 1]))["outcome"]["result"], 2, "another parent was started");
    assert_eq!(loads(&node).len(), 2);
}

#[test]
fn a_reload_loads_the_app_again_and_the_old_parent_goes_with_its_last_child() {
    let mut node = preloaded("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    up.line();
    let old = loads(&node)[0];
    let text = std::fs::read_to_string(node.config_file()).unwrap();
    std::fs::write(node.config_file(), text.replace("preload = true", "preload = true\nnice = 1")).unwrap();
    node.ok(&["reload"]);
    assert!(procs::lives(old), "a child of it runs something");
    go.release(1);
    assert_eq!(node.finished(&id)["attempt"], 1);
    assert_eq!(outcome(&node, "add", json!([1, 1]))["outcome"]["result"], 2);
    assert_eq!(loads(&node).len(), 2);
    until("the end of the old parent", || (!procs::lives(old)).then_some(()));
}

#[test]
fn what_runs_in_a_forked_child_goes_on_when_the_program_is_replaced() {
    let mut node = preloaded("", "");
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = enqueue(&node, "held", json!([]));
    up.line();
    node.ok(&["reload", "--binary"]);
    go.release(1);
    let done = node.finished(&id);
    assert_eq!((&done["state"], &done["attempt"]), (&json!("SUCCESS"), &json!(1)), "{done}");
    assert_eq!(outcome(&node, "add", json!([1, 1]))["outcome"]["result"], 2);
    let old = loads(&node)[0];
    until("the end of the old parent", || (!procs::lives(old)).then_some(()));
    assert_eq!(node.stop(), 0);
}

/// A parent that names a process which is not its child's; `victim` has the number.
const LIAR: &str = "#!/usr/bin/env python3
import json, os, socket
sock = socket.socket(fileno=int(os.environ['TASKD_FD']))
sock.setblocking(True)
say = lambda **said: sock.sendall(json.dumps(said).encode())
say(op='ready')
while True:
    packet, fds, _, _ = socket.recv_fds(sock, 65536, 3)
    if not packet:
        break
    said = json.loads(packet)
    if said['op'] == 'fork':
        say(op='forked', child=said['child'], pid=int(open('victim').read()))
    else:
        say(op='born', child=said['child'])
";

#[test]
fn a_parent_that_lies_about_its_children_harms_nobody() {
    let mut node = preloaded("", "");
    let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(node.path().join("victim"), victim.id().to_string()).unwrap();
    let liar = node.path().join("liar");
    std::fs::write(&liar, LIAR).unwrap();
    std::fs::set_permissions(&liar, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = std::fs::read_to_string(node.config_file()).unwrap();
    let python = python();
    std::fs::write(node.config_file(), text.replace(python.to_str().unwrap(), liar.to_str().unwrap()))
        .unwrap();
    node.launch();
    let why = until("the reason", || {
        let children = pool(&node);
        let text = children.to_string();
        text.contains("is no child of taskd's").then_some(text)
    });
    assert!(why.contains(&victim.id().to_string()), "{why}");
    assert_eq!(node.stop(), 0);
    assert!(victim.try_wait().unwrap().is_none(), "it was nobody's to end");
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn a_preloaded_app_that_cannot_be_loaded_is_told_in_the_status() {
    let mut node = preloaded("", "");
    std::fs::write(node.path().join("shop/celery.py"), "import nowhere\n").unwrap();
    node.launch();
    let why = "cannot load the Celery app shop.celery:app: ModuleNotFoundError: No module named 'nowhere'";
    let degraded = until("the reason", || pool(&node)["degraded"].as_str().map(str::to_owned));
    assert!(degraded.contains(why), "{degraded}");
    assert!(node.log().contains("Traceback"), "all of it is in the log: {}", node.log());
    std::fs::write(node.path().join("shop/celery.py"), APP).unwrap();
    assert_eq!(outcome(&node, "add", json!([1, 1]))["outcome"]["result"], 2, "it is tried again");
}

#[test]
fn an_app_that_cannot_be_loaded_is_told_in_the_status() {
    for (text, why) in [
        (
            "import nowhere\n",
            "cannot load the Celery app shop.celery:app: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("app = 3\n", "shop.celery:app is no Celery app but a int"),
    ] {
        let mut node = prepared("", "");
        std::fs::write(node.path().join("shop/celery.py"), text).unwrap();
        node.launch();
        let degraded = until("the reason", || pool(&node)["degraded"].as_str().map(str::to_owned));
        assert!(degraded.contains(why), "{degraded}");
        // For people it may be broken into lines.
        let shown = node.ok(&["status"]).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            shown.contains("cannot load the Celery app") || shown.contains("is no Celery app"),
            "{shown}"
        );
    }
}
