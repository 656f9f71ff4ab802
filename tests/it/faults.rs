//! What the machine does to taskd: directories, disks, descriptors, processes. Each fault gives a clear
//! error or a pause that says why; nothing is lost, and work goes on when the cause is gone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::harness::{Http, Node, Setup, procs, until};
use super::with;

const OK: &str =
    "[tasks.ok]\ncommand = \"true\"\n[tasks.take]\ncommand = \"cat >/dev/null\"\nstdin = \"json\"\n";

/// Whether this test may change owners, mounts and limits; says so where it may not.
fn root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not tested without root: {what}");
    }
    root
}

fn store_file(node: &Node) -> PathBuf {
    let files = std::fs::read_dir(node.state_dir()).unwrap().flatten().map(|e| e.path());
    let stores: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "db")).collect();
    assert_eq!(stores.len(), 1, "{stores:?}");
    stores[0].clone()
}

#[test]
fn a_state_directory_is_made_but_not_its_parents() {
    let mut setup = Setup::new(&with(OK));
    let node = Node::start_with(Setup::new(&with(OK)));
    let mode = std::fs::metadata(node.state_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}: others may not read messages");
    setup.state_dir = Some(PathBuf::from("/nonexistent/deep/state"));
    Node::prepare(setup).refused().fails().one_clear_line().says(&["/nonexistent/deep"]);
}

#[test]
fn a_state_directory_that_is_a_file_is_refused() {
    let node = Node::prepare(Setup::new(&with(OK)));
    std::fs::write(node.state_dir(), "").unwrap();
    node.refused().fails().one_clear_line().says(&["state"]);
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    if !root("an owner that is wrong") {
        return;
    }
    let node = Node::prepare(Setup::new(&with(OK)));
    std::fs::create_dir(node.state_dir()).unwrap();
    std::os::unix::fs::chown(node.state_dir(), Some(65534), Some(65534)).unwrap();
    node.refused().fails().one_clear_line().says(&["state", "own"]);
}

#[test]
fn a_store_that_cannot_be_written_is_refused() {
    if !root("a file system that is read-only") {
        return;
    }
    let mut node = Node::start(&with(OK));
    node.ok(&["pause", "default"]);
    let id = node.enqueue(&["ok"]);
    assert_eq!(node.stop(), 0);
    let script = format!(
        "d={}; mount --bind $d $d && mount -o remount,ro,bind $d && exec \"$@\"",
        node.state_dir().display()
    );
    node.setup.wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"].map(Into::into).to_vec();
    node.refused().fails().one_clear_line().says(&["state", "Read-only"]);
    node.setup.wrapper.clear();
    node.launch();
    node.ok(&["resume", "default"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
}

#[test]
fn a_corrupt_store_and_a_newer_one_are_refused_and_left_alone() {
    let mut node = Node::start(&with(OK));
    node.finished(&node.enqueue(&["ok"]));
    assert_eq!(node.stop(), 0);
    let file = store_file(&node);
    let good = std::fs::read(&file).unwrap();

    let mut bad = good.clone();
    bad[..100].fill(0x5a);
    std::fs::write(&file, &bad).unwrap();
    node.refused().fails().says(&[file.file_name().unwrap().to_str().unwrap()]);
    assert!(std::fs::read(&file).unwrap() == bad, "a store that is not understood was written to");

    std::fs::write(&file, &good).unwrap();
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 9999).unwrap();
    node.refused().fails().says(&["newer"]);

    std::fs::write(&file, &good).unwrap();
    node.launch();
    assert_eq!(node.finished(&node.enqueue(&["ok"]))["state"], "SUCCESS");
}

#[test]
fn a_socket_path_beyond_what_the_kernel_takes_is_refused() {
    let mut setup = Setup::new(&with(OK));
    setup.socket = Some(PathBuf::from(format!("/tmp/{}/sock", "long/".repeat(30))));
    Node::prepare(setup).refused().fails().one_clear_line().says(&["socket", "long"]);
}

#[test]
fn a_second_instance_is_refused_and_harms_nothing() {
    let first = Node::start(&with(OK));
    let mut setup = Setup::new(&with(OK));
    setup.state_dir = Some(first.state_dir());
    Node::prepare(setup).refused().fails().one_clear_line().says(&["state"]);
    // The same socket, another store: the first one keeps it.
    let mut setup = Setup::new(&with(OK));
    setup.socket = Some(first.socket());
    Node::prepare(setup).refused().fails().one_clear_line().says(&["sock"]);
    assert_eq!(first.finished(&first.enqueue(&["ok"]))["state"], "SUCCESS");
}

#[test]
fn a_full_disk_refuses_with_its_reason_and_recovers() {
    if !root("a disk that is full") {
        return;
    }
    let mut node = Node::prepare(Setup::new(&with(OK)));
    std::fs::create_dir(node.state_dir()).unwrap();
    let script = format!(
        "d={}; mount -t tmpfs -o size=96m,mode=0700 none $d && exec \"$@\"",
        node.state_dir().display()
    );
    node.setup.wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"].map(Into::into).to_vec();
    node.launch();
    node.ok(&["pause", "default"]);
    // The tmpfs is mounted in taskd's namespace only; /proc shows it from here.
    let inside = Path::new("/proc").join(node.launcher().to_string()).join("root");
    let filler = inside.join(node.state_dir().strip_prefix("/").unwrap()).join("filler");
    let mut http = node.http();
    let before = http.enqueue(&json!([{"task": "ok"}, {"task": "ok"}]));
    std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap()).unwrap_err();

    let big = json!([{"task": "take", "kwargs": {"x": "y".repeat(500_000)}}]).to_string();
    let refused = until("no space", || {
        let answer = http.ask("POST", "/v1/messages", &big).unwrap();
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 503);
    let said = refused.json()["message"].as_str().unwrap().to_lowercase();
    assert!(said.contains("full") || said.contains("space"), "{said}");
    let status = node.json(&["status"]);
    let told = format!("{} {}", status["state"], status["notes"]).to_lowercase();
    assert!(told.contains("full") || told.contains("space"), "{status}");

    let status = node.notify.has("STATUS=paused");
    assert!(status.contains("space"), "{status}");

    std::fs::remove_file(&filler).unwrap();
    // Nobody has to ask for it.
    node.notify.next("STATUS=running");
    until("room again", || (node.taskd(&["enqueue", "ok"]).code == 0).then_some(()));
    node.ok(&["resume", "default"]);
    for view in node.all_finished(&before) {
        assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(1)));
    }
    assert_eq!(node.json(&["status"])["epoch"], 1, "the daemon died of a full disk");
}

#[test]
fn more_clients_than_descriptors_only_wait() {
    let node = Node::start_with(Setup::new(&with(OK)).wrapped(&["prlimit", "--nofile=64:64"]));
    let crowd: Vec<_> = (0..200).map_while(|_| Http::connect(&node.socket()).ok()).collect();
    assert!(crowd.len() > 64);
    drop(crowd);
    let id = until("an answer", || {
        let mut http = Http::connect(&node.socket()).ok()?;
        let answer = http.ask("POST", "/v1/messages", r#"[{"task": "ok"}]"#).ok()?;
        (answer.status == 200).then(|| answer.json()[0]["id"].as_str().unwrap().to_owned())
    });
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    assert_eq!(node.json(&["status"])["epoch"], 1, "the daemon died of a crowd");
}

#[test]
fn a_fork_that_fails_is_tried_again_and_not_a_failure() {
    if !root("a limit on processes") {
        return;
    }
    // RLIMIT_NPROC does not bind root: all of taskd runs as nobody, from a copy it can reach.
    let mut node = Node::prepare(Setup::new(&with(OK)));
    let copy = node.path().join("taskd");
    std::fs::copy(super::harness::node::TASKD, &copy).unwrap();
    std::os::unix::fs::chown(node.path(), Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(node.notify.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    node.setup.binary = Some(copy);
    let drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    node.setup.wrapper = drop.map(Into::into).to_vec();
    node.launch();
    node.all_finished(&node.enqueue_many("ok", 4)); // both runners are up
    let limit = |n: &str| {
        for pid in [vec![node.launcher()], node.runners()].concat() {
            // As the same user: a container's root may not be allowed to set limits of others.
            let mut set = Command::new("setpriv");
            set.args(&drop[1..]).args(["prlimit", "--pid", &pid.to_string(), &format!("--nproc={n}:4096")]);
            assert!(set.status().unwrap().success());
        }
    };
    limit("1");
    let id = node.enqueue(&["ok"]);
    // It must be tried at least once under the limit: taskd says so.
    until("a word about it", || {
        let said = format!("{}{}", node.log(), node.json(&["status"])).to_lowercase();
        said.contains("limit of processes").then_some(())
    });
    assert!(!super::harness::node::is_final(node.view(&id)["state"].as_str().unwrap()));
    let why = until("a pool that starts nothing", || {
        node.json(&["status"])["pools"][0]["degraded"].as_str().map(str::to_owned)
    });
    assert!(why.contains("limit of processes"), "{why}");
    assert_eq!(node.runners().len(), 2, "a runner was given up for what it is not to blame for");
    limit("4096");
    let view = node.finished(&id);
    assert!(node.json(&["status"])["pools"][0]["degraded"].is_null());
    assert_eq!((view["state"].as_str(), view["retries"].as_u64()), (Some("SUCCESS"), Some(0)), "{view}");

    // The same where the launcher cannot replace a runner: the other one goes on, status says why.
    limit("1");
    procs::kill9(node.runners()[0]);
    let degraded = || node.json(&["status"])["pools"][0]["degraded"].as_str().map(str::to_owned);
    until("a degraded pool", || degraded().filter(|why| why.contains("EAGAIN")));
    node.taskd(&["status"]).code(0).fits_80_columns().shows(&["cannot start a child"]);
    limit("4096");
    until("a whole pool", || degraded().is_none().then_some(()));
    assert_eq!(node.runners().len(), 2);
    node.all_finished(&node.enqueue_many("ok", 4));
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_what_runs_goes_on() {
    let mut node = Node::prepare(Setup::new(&with(super::HOLD)));
    node.setup.env.push(("WATCHDOG_USEC".into(), "2000000".into()));
    node.launch();
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    let old = node.daemon();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGSTOP).unwrap();
    until("a new daemon", || (!procs::lives(old) && node.daemon() != old).then_some(()));
    go.release(1);
    let view = node.finished(&id);
    assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(1)), "{view}");
    node.notify.has("WATCHDOG=1");
}
