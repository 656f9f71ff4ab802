//! Mixed fleets: taskd sends calls to Celery's own, unmodified worker, reads how they ended, and shares a queue with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Setup, until};
use crate::redis_server::Redis;

/// Tasks that Celery workers run.
const EXTERNAL: &str = r#"
[pools.default]
processes = 2
[tasks."shop.*"]
external = true
time_limit = "50s"
soft_time_limit = "40s"
[tasks."shop.typed"]
external = true
params.n = "int"
params.m = { type = "int", default = 5 }
[tasks."shop.quiet"]
external = true
ignore_result = true
[tasks.local]
exec = ["sh", "-c", "echo got $1", "sh"]
dash_dash = false
"#;

/// A worker of Celery.
struct Worker {
    child: Child,
    ledger: PathBuf,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Worker {
    fn start(redis: &Redis, queue: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, log) = (dir.path().join("ledger"), dir.path().join("log"));
        std::fs::write(&ledger, "").unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(root.join("target/venv-celery/bin/python"))
            .args(["-m", "celery", "-A", "shop", "worker", "-c", "2", "-l", "INFO", "-Q", queue])
            .args(["--without-gossip", "-n", &format!("shop-{}@test", redis.port)])
            .current_dir(root.join("tests/celery"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SHOP_BROKER", redis.url(0))
            .env("SHOP_QUEUE", queue)
            .env("SHOP_LEDGER", &ledger)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .expect("run `bash tests/celery/venv.sh`");
        let worker = Self { child, ledger, log, _dir: dir };
        until("the worker is ready", || worker.logged().contains(" ready.").then_some(()));
        worker
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.ledger).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A warm shutdown: its children go with it.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

fn node(redis: &Redis, tasks: &str) -> Node {
    Node::start_with(Setup::new(&format!("[taskd]\nbroker = \"{}\"\n{tasks}", redis.url(0))))
}

/// How a call ended.
fn waited(node: &Node, args: &[&str]) -> Value {
    node.finished(&node.enqueue(args))
}

#[test]
fn celery_workers_run_what_is_external_and_its_end_is_known_here() {
    let redis = Redis::start();
    let node = node(&redis, EXTERNAL);
    // Sent while nobody is there: it waits in Celery's list.
    let early = node.enqueue(&["shop.add", "a:=20", "b:=22"]);
    let mut store = redis.connection(0);
    until("it is in the list", || {
        (redis::cmd("LLEN").arg("celery").query::<u64>(&mut store).unwrap() == 1).then_some(())
    });
    assert_eq!(node.json(&["status", &early])["state"], "WAITING");
    let worker = Worker::start(&redis, "celery");
    assert_eq!(node.in_state(&early, "SUCCESS")["outcome"]["result"], json!(42));
    let ran = node.taskd(&["enqueue", "shop.add", "--json-args", "[2, 3]", "--wait"]).code(0);
    assert_eq!(ran.out.trim(), "5", "{ran:?}");
    node.taskd(&["enqueue", "shop.fail", "--wait", "--", "no bread"]).fails().says(&["no bread"]);
    // Its own limits and priority reach it, and its retries are its own.
    let limits = waited(&node, &["shop.limits", "--priority", "3"]);
    assert_eq!(limits["outcome"]["result"]["timelimit"], json!([50, 40]), "{limits}");
    assert_eq!(limits["outcome"]["result"]["priority"], json!(6), "{limits}");
    assert_eq!(waited(&node, &["shop.again"])["outcome"]["result"], json!(2));
    // Declared types hold for it too.
    assert_eq!(waited(&node, &["shop.typed", "--", "37"])["outcome"]["result"], json!(42));
    node.taskd(&["enqueue", "shop.typed", "n=x"]).fails();
    // A result beyond the bound is said to be one.
    let big = waited(&node, &["shop.big", "n:=60000"]);
    assert_eq!(big["state"], "FAILURE");
    assert!(big["outcome"]["failure"].to_string().contains("ResultTooLarge"), "{big}");
    // Nobody waits for what keeps no result.
    assert_eq!(waited(&node, &["shop.quiet"])["state"], "SUCCESS");
    until("it ran", || worker.lines().contains(&"quiet".to_owned()).then_some(()));
}

#[test]
fn schedules_and_workflows_go_to_celery_workers() {
    let redis = Redis::start();
    let config = format!(
        "{EXTERNAL}\n[schedules.often]\ntask = \"shop.add\"\nevery = \"1s\"\nargs = [1, 1]\noverlap = \"skip\"\n\
         [workflows.both]\nsteps = [{{ task = \"shop.add\", args = [40, 2] }}, {{ task = \"local\", after = [\"shop.add\"] }}]\n"
    );
    let worker = Worker::start(&redis, "celery");
    let node = node(&redis, &config);
    until("it fires, again and again", || (worker.lines().len() >= 3).then_some(()));
    let fired = node.json(&["list", "--task", "shop.add"]);
    assert!(fired.as_array().unwrap().iter().any(|m| m["state"] == "SUCCESS"), "{fired}");
    let done = node.taskd(&["workflow", "run", "both", "--wait"]).code(0);
    assert!(done.out.contains("got 42"), "{done:?}");
}

#[test]
fn a_cancel_takes_back_what_waits_and_ends_what_runs() {
    let redis = Redis::start();
    let node = node(&redis, EXTERNAL);
    let waiting = node.enqueue(&["shop.sleep", "seconds:=600"]);
    let mut store = redis.connection(0);
    let mut length = || redis::cmd("LLEN").arg("celery").query::<u64>(&mut store).unwrap();
    until("it is in the list", || (length() == 1).then_some(()));
    node.taskd(&["cancel", &waiting]).code(0);
    assert_eq!(length(), 0);
    assert_eq!(node.in_state(&waiting, "REVOKED")["state"], "REVOKED");
    let worker = Worker::start(&redis, "celery");
    let running = node.enqueue(&["shop.sleep", "seconds:=601"]);
    until("it runs", || worker.lines().contains(&"sleep 601".to_owned()).then_some(()));
    assert!(!worker.lines().contains(&"sleep 600".to_owned()));
    node.taskd(&["cancel", &running]);
    node.in_state(&running, "REVOKED");
    // What waits longer than it may is dropped, and that is known too.
    let late = node.enqueue(&["shop.add", "a:=1", "--expires", "1h"]);
    node.in_state(&late, "SUCCESS");
}

#[test]
fn a_queue_is_shared_with_workers_that_know_other_tasks() {
    let redis = Redis::start();
    let tasks = r#"
[pools.default]
processes = 2
[queues.shop]
shared = true
[tasks.mine]
exec = ["sh", "-c", "echo mine $1", "sh"]
dash_dash = false
queue = "shop"
[tasks."shop.typed"]
external = true
queue = "shop"
"#;
    let first = node(&redis, tasks);
    // Nobody knows these yet: they go round, and are not set aside.
    let mut store = redis.connection(0);
    let send = |store: &mut redis::Connection, task: &str, n: u32| {
        let body = format!("[[{n}], {{}}, {{}}]");
        let message = json!({
            "body": body, "content-encoding": "utf-8", "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": format!("{task}-{n}"), "root_id": null, "parent_id": null, "group": null,
                        "retries": 0, "eta": null, "expires": null, "argsrepr": "", "kwargsrepr": "", "timelimit": [null, null]},
            "properties": {"correlation_id": "c", "delivery_mode": 2, "delivery_tag": format!("t-{task}-{n}"), "priority": 0,
                           "delivery_info": {"exchange": "", "routing_key": "shop"}},
        });
        redis::cmd("LPUSH").arg("shop").arg(message.to_string()).exec(store).unwrap();
    };
    for n in 0..20 {
        send(&mut store, "shop.add", n);
        send(&mut store, "mine", n);
    }
    for n in 0..20 {
        let id = format!("mine-{n}");
        until("it was taken off the list", || (first.taskd(&["status", &id]).code == 0).then_some(()));
        assert_eq!(first.in_state(&id, "SUCCESS")["outcome"]["result"], format!("mine {n}"));
    }
    until("the others are back in the list", || {
        (redis::cmd("LLEN").arg("shop").query::<u64>(&mut store).unwrap() == 20).then_some(())
    });
    let queues = first.json(&["queues"]);
    assert!(!queues.to_string().contains("\"unknown\":2"), "{queues}");
    let worker = Worker::start(&redis, "shop");
    until("the worker has run them", || (worker.lines().len() == 20).then_some(()));
    // What only the worker runs is never handed out by a node, be it the one where it was enqueued or another one that
    // heard of it: it would wait for long.
    let _other = node(&redis, &format!("node = \"other\"\n{tasks}"));
    for n in 0..10 {
        let began = Instant::now();
        let ran = first.taskd(&["enqueue", "shop.typed", "--wait", "n:=1", "m:=2"]).code(0);
        assert!(began.elapsed() < Duration::from_secs(8), "{n}: {:?} {ran:?}", began.elapsed());
    }
    // What taskd puts into it is a message of Celery, which this node takes itself here.
    let own = first.enqueue(&["mine", "--", "own"]);
    let ended = until("it has ended", || {
        let state = first.json(&["status", &own]);
        matches!(state["state"].as_str(), Some("SUCCESS" | "FAILURE")).then_some(state)
    });
    // The worker may have been faster, and knows no such task: it says so.
    if ended["state"] == "SUCCESS" {
        assert_eq!(ended["outcome"]["result"], "mine own");
    } else {
        assert!(ended.to_string().contains("NotRegistered"), "{ended}");
    }
}

#[test]
fn results_that_nobody_heard_of_are_found() {
    let redis = Redis::start();
    let mut node = node(&redis, EXTERNAL);
    let id = node.enqueue(&["shop.add", "a:=1", "b:=2"]);
    let mut store = redis.connection(0);
    until("it is in the list", || {
        (redis::cmd("LLEN").arg("celery").query::<u64>(&mut store).unwrap() == 1).then_some(())
    });
    node.kill_launcher();
    let worker = Worker::start(&redis, "celery");
    until("it ran", || (worker.lines() == ["add 1 2"]).then_some(()));
    node.launch();
    assert_eq!(node.in_state(&id, "SUCCESS")["outcome"]["result"], json!(3));
}
