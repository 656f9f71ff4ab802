//! `taskd reload --binary`: another program takes over, and nobody who runs or waits notices.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::json;

use super::harness::node::TASKD;
use super::harness::{Http, Node, Setup, procs, until};
use super::ledger;

/// Four runners; a task that prints, tells that it runs, and prints again when it is let go.
const CONFIG: &str = "[taskd]\nshutdown_grace = \"10s\"\n[pools.default]\nprocesses = 4\n\
[tasks.hold]\ncommand = \"echo begin; echo $TASKD_ID >{dir}/up; read x <{dir}/go; echo done\"\n";

/// Puts a copy of a program into this place, as a package manager does: as another file. By `cp`, because a
/// file that this process had open for writing could not be executed while a fork of it lives.
pub fn install(from: &str, to: &Path) {
    let next = to.with_extension("next");
    assert!(Command::new("cp").arg(from).arg(&next).status().unwrap().success());
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&next, to).unwrap();
}

pub fn program(node: &Node) -> PathBuf {
    node.path().join("taskd")
}

/// A taskd that was started from a file of its own.
fn start(config: &str) -> Node {
    let mut node = Node::prepare(Setup::new(config));
    install(TASKD, &program(&node));
    node.setup.binary = Some(program(&node));
    node.launch();
    node
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn runs_what(pid: i32) -> u64 {
    inode(format!("/proc/{pid}/exe"))
}

/// A client that asks and asks on new connections: each must be answered, and with 200.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(socket: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let until_stop = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut ids = Vec::new();
            while !until_stop.load(Ordering::Relaxed) {
                let mut http = Http::connect(&socket).expect("the socket never refuses");
                ids.extend(http.enqueue(&json!([{"task": "note"}])));
                std::thread::sleep(std::time::Duration::from_millis(3)); // the load's pace, nothing waits for it
            }
            ids
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn background(node: &Node, args: &[&str]) -> Child {
    let mut command = node.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Code, stdout and stderr of a client.
fn ended(client: Child) -> (Option<i32>, String, String) {
    let out = client.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

#[test]
fn what_runs_and_who_waits_goes_on_in_the_new_program() {
    let mut node = start(&format!("{CONFIG}{}", ledger::TASK));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let first = node.enqueue(&["hold"]);
    assert_eq!(up.line(), first);
    let waits = background(&node, &["enqueue", "hold", "--id", "waits", "--wait"]);
    assert_eq!(up.line(), "waits");
    let follows = background(&node, &["logs", "-f", &first]);
    let result = background(&node, &["result", &first, "--wait"]);
    let load = Load::start(node.socket());
    until("some load", || (ledger::read(node.path()).len() > 3).then_some(()));
    let (launcher, daemon, runners) = (node.launcher(), node.daemon(), node.runners());
    install(TASKD, &program(&node));
    let installed = inode(program(&node));
    assert_ne!(runs_what(launcher), installed);

    node.ok(&["reload", "--binary"]);
    assert_eq!(node.launcher(), launcher);
    assert!(procs::lives(launcher) && !procs::lives(daemon));
    assert_eq!((runs_what(launcher), runs_what(node.daemon())), (installed, installed));
    let status = node.json(&["status"]);
    assert_eq!(
        (&status["upgrades"], &status["epoch"], &status["generation"]),
        (&1.into(), &2.into(), &2.into())
    );
    assert!(procs::title(launcher).starts_with("taskd: launcher"), "{}", procs::title(launcher));
    node.notify.has("RELOADING=1");
    // Runners that are idle are replaced; those that run something when they are done.
    until("new runners", || {
        let new = node.runners().into_iter().filter(|r| runs_what(*r) == installed).count();
        (new >= 2).then_some(())
    });

    node.ok(&["reload", "--binary"]);
    assert_eq!((node.launcher(), &node.json(&["status"])["upgrades"]), (launcher, &2.into()));
    let ids = load.end();
    node.notify.forget();
    go.release(2);
    for id in [&first, "waits"] {
        let view = node.finished(id);
        let what = (&view["state"], &view["attempt"], &view["losses"]);
        assert_eq!(what, (&"SUCCESS".into(), &1.into(), &0.into()), "{view}");
    }
    assert_eq!(ended(waits), (Some(0), "begin\ndone\n".to_owned(), String::new()));
    assert_eq!(ended(follows), (Some(0), "begin\ndone\n".to_owned(), String::new()));
    assert_eq!(ended(result), (Some(0), "begin\ndone\n".to_owned(), String::new()));
    for view in node.all_finished(&ids) {
        assert_eq!((&view["state"], &view["attempt"]), (&"SUCCESS".into(), &1.into()), "{view}");
    }
    let notes = ledger::read(node.path());
    for id in &ids {
        assert_eq!(notes[id].iter().filter(|n| n.start).count(), 1, "{id} ran more than once");
        assert_eq!(notes[id].iter().filter(|n| !n.start).count(), 1, "{id} was interrupted");
    }
    node.notify.forget();
    until("no runner of an old program", || {
        node.runners().into_iter().all(|r| runs_what(r) == installed && !runners.contains(&r)).then_some(())
    });
    let known: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(procs::of_messages(&known), []);
    assert_eq!(node.stop(), 0);
    assert!(!node.socket().exists());
}

#[test]
fn a_program_that_is_not_fit_is_refused_with_its_words() {
    let mut node = start(CONFIG);
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    let (launcher, daemon) = (node.launcher(), node.daemon());
    let refuses = |words: &[&str]| {
        node.taskd(&["reload", "--binary"]).code(78).says(&["was not replaced", "goes on"]).says(words);
    };
    std::fs::remove_file(program(&node)).unwrap();
    refuses(&["cannot open", "No such file"]);
    install("/usr/bin/false", &program(&node));
    refuses(&["cannot take over", "exit code 1"]);
    install("/usr/bin/true", &program(&node));
    refuses(&["no taskd"]);
    let text = node.path().join("text");
    std::fs::write(&text, "half a download").unwrap();
    install(text.to_str().unwrap(), &program(&node));
    refuses(&["cannot execute", "format"]);
    install(TASKD, &program(&node));
    std::fs::set_permissions(program(&node), std::fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&["cannot execute", "ermission"]);
    std::fs::set_permissions(program(&node), std::fs::Permissions::from_mode(0o755)).unwrap();
    // A good program, a faulty config.
    node.write_config("[taskd]\nnod = \"x\"\n");
    refuses(&["taskd.toml:2", "nod", "node"]);
    node.write_config(&CONFIG.replace("[taskd]\n", "[taskd]\nnode = \"other\"\n"));
    refuses(&["node", "restart"]);
    assert_eq!((node.launcher(), node.daemon()), (launcher, daemon));
    assert_eq!(node.json(&["status"])["upgrades"], 0);
    go.release(1);
    assert_eq!(node.finished(&id)["attempt"], 1);
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_was_paused_or_drained_stays_so() {
    let node = start(&format!("{CONFIG}[queues.side]\n[tasks.say]\ncommand = \"echo x\"\n"));
    node.ok(&["pause", "side"]);
    node.ok(&["drain"]);
    let (in_side, drained) = (node.enqueue(&["say", "--queue", "side"]), node.enqueue(&["say"]));
    node.ok(&["reload", "--binary"]);
    assert_eq!(node.json(&["status"])["state"], "draining");
    assert_eq!(
        (&node.view(&in_side)["state"], &node.view(&drained)["state"]),
        (&"WAITING".into(), &"WAITING".into())
    );
    node.ok(&["drain", "--off"]);
    assert_eq!(node.finished(&drained)["state"], "SUCCESS");
    assert_eq!(node.view(&in_side)["state"], "WAITING");
}

#[test]
fn a_stop_in_the_middle_of_it_is_a_stop() {
    for wait_ms in [0, 20, 60, 120] {
        let mut node = start(CONFIG);
        let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
        let id = node.enqueue(&["hold"]);
        up.line();
        let client = background(&node, &["reload", "--binary"]);
        std::thread::sleep(std::time::Duration::from_millis(wait_ms)); // another moment each time
        node.signal(Signal::SIGTERM);
        go.release(1);
        assert_eq!(node.ended(), 0, "{wait_ms} ms:\n{}", node.log());
        ended(client);
        node.launch();
        let view = node.view(&id);
        assert_eq!(
            (&view["state"], &view["attempt"]),
            (&"SUCCESS".into(), &1.into()),
            "{wait_ms} ms: {view}"
        );
    }
}
