//! taskd as process 1 of a container: a process namespace of its own, no systemd.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::harness::{Fifo, Node, PATIENCE, Ran, Setup, procs, until};
use super::{HOLD, with};

/// What makes the namespaces; an ordinary user needs one of users, too.
fn unshare(mount: bool) -> Vec<&'static str> {
    let mut words = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if mount {
        words.extend(["--mount", "--propagation", "private"]);
    }
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-current-user"]);
    }
    words
}

/// Whether there can be none here; says so then.
fn refused(words: &[&str]) -> bool {
    let ran = Ran::of(Command::new(words[0]).args(&words[1..]).arg("true"), PATIENCE);
    if ran.code != 0 {
        println!("not tested: the kernel refuses {words:?}: {}", ran.err.trim());
    }
    ran.code != 0
}

/// Makes processes that lose their parent: as many as it reads, each with a line in `orphans` as its last
/// word; 0 makes one that stays.
const SIDECAR: &str = r#"cd "$0"; while read n <more; do
    [ "$n" = 0 ] && (sleep 1000 & echo $! >stays)
    while [ "$n" -gt 0 ]; do (sh -c 'echo x >>orphans' &); n=$((n-1)); done
done"#;

/// A container: an entry point that starts a sidecar, then becomes taskd.
struct Container {
    node: Node,
    more: Fifo,
}

impl Container {
    fn start(config: &str) -> Option<Self> {
        let words = unshare(false);
        if refused(&words) {
            return None;
        }
        let mut node = Node::prepare(Setup::new(config));
        let more = node.fifo("more");
        let dir = node.path().to_str().unwrap().to_owned();
        let entry = r#"sh -c "$0" "$1" </dev/null & shift; exec "$@""#;
        node.setup.wrapper =
            words.into_iter().chain(["sh", "-c", entry, SIDECAR, &dir]).map(Into::into).collect();
        node.launch();
        Some(Self { node, more })
    }

    /// Processes that are taskd's children by now, with their state.
    fn children(&self) -> Vec<(i32, char)> {
        let launcher = self.node.launcher();
        let of = |entry: std::fs::DirEntry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let (state, parent) = procs::state_and_parent(pid)?;
            (parent == launcher).then_some((pid, state))
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
    }

    /// Makes `n` orphans and waits until all of them ended and were reaped.
    fn orphans(&mut self, n: usize) {
        let file = self.node.path().join("orphans");
        let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
        let before = lines();
        self.more.tell(&n.to_string());
        until("the orphans' last words", || (lines() == before + n).then_some(()));
        until("no zombies", || self.children().iter().all(|(_, state)| *state != 'Z').then_some(()));
    }
}

#[test]
fn process_one_reaps_whatever_is_left_to_it_and_ends_as_it_is_told() {
    let Some(mut container) = Container::start(&with(HOLD)) else { return };
    let (mut up, mut go) = (container.node.fifo("up"), container.node.fifo("go"));
    assert_eq!(pid_inside(container.node.launcher()), "1");
    container.orphans(50);
    let id = container.node.enqueue(&["hold"]);
    assert_eq!(up.line(), id);
    let runs = running(&container.node, &id);
    // A killed daemon is replaced, and what runs goes on.
    let daemon = container.node.daemon();
    procs::kill9(daemon);
    until("another daemon", || (container.node.daemon() != daemon).then_some(()));
    assert_eq!(container.node.http().get("/v1/status")["state"], "running");
    container.orphans(20);
    // SIGHUP reloads.
    container.node.write_config(&with(&format!("{HOLD}[tasks.new]\ncommand = \"echo new\"\n")));
    container.node.signal(Signal::SIGHUP);
    let new = until("the reload", || {
        let ran = container.node.taskd(&["enqueue", "new", "--json"]);
        (ran.code == 0).then(|| ran.json()["id"].as_str().unwrap().to_owned())
    });
    assert_eq!(container.node.finished(&new)["state"], "SUCCESS");
    container.node.signal(Signal::SIGTERM);
    container.node.notify.has("STOPPING=1");
    // Also while it stops.
    container.orphans(20);
    assert!(procs::lives(runs));
    go.release(1);
    assert_eq!(container.node.ended(), 0);
    assert!(!procs::lives(runs));
    let log = container.node.log();
    assert!(log.contains("stopping") && log.contains("everything is settled"), "{log}");
    container.node.setup.wrapper.clear();
    container.node.launch();
    let view = container.node.view(&id);
    assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(1)), "{view}");
}

#[test]
fn what_taskd_did_not_start_is_left_alone() {
    let config = "[pools.default]\nprocesses = 1\nmax_tasks_per_child = 1\n[tasks.a]\ncommand = \"true\"\n";
    let Some(mut container) = Container::start(config) else { return };
    let sidecar = procs::children(container.node.launcher())
        .into_iter()
        .find(|pid| procs::title(*pid).starts_with("sh -c"))
        .expect("the sidecar");
    container.more.tell("0");
    let file = container.node.path().join("stays");
    let inside =
        until("the one that stays", || std::fs::read_to_string(&file).ok().filter(|s| s.ends_with('\n')));
    let stays = until("its number out here", || {
        container.children().into_iter().map(|(pid, _)| pid).find(|pid| pid_inside(*pid) == inside.trim())
    });
    // Children of taskd's own come and go beside them: what those left is looked for each time.
    for _ in 0..3 {
        let runner = container.node.runners();
        let id = container.node.enqueue(&["a"]);
        assert_eq!(container.node.finished(&id)["state"], "SUCCESS");
        until("another runner", || (container.node.runners() != runner).then_some(()));
    }
    procs::kill9(container.node.runners()[0]);
    let id = container.node.enqueue(&["a"]);
    assert_eq!(container.node.finished(&id)["state"], "SUCCESS");
    assert!(procs::lives(sidecar) && procs::lives(stays));
    container.orphans(5);
    // The end of process 1 is the end of all.
    assert_eq!(container.node.stop(), 0);
    assert!(!procs::lives(sidecar) && !procs::lives(stays));
}

#[test]
fn what_a_killed_runner_left_is_ended_however_it_hid() {
    let config = with(
        "[tasks.hide]\ncommand = \"setsid sh -c 'sh -c \\\"exec sleep 1000\\\" & wait' & echo $! >{dir}/hid; wait\"\n",
    );
    let Some(container) = Container::start(&config) else { return };
    let id = container.node.enqueue(&["hide"]);
    let file = container.node.path().join("hid");
    until("it hid", || std::fs::read_to_string(&file).ok().filter(|s| s.ends_with('\n')));
    let sleeper = || {
        let below = procs::below(container.node.launcher());
        below.into_iter().filter(|p| procs::title(*p) == "sleep 1000").collect::<Vec<_>>()
    };
    let first = until("the hidden one", || sleeper().first().copied());
    let runner = container.node.runners().into_iter().find(|r| procs::below(*r).contains(&first)).unwrap();
    procs::kill9(runner);
    until("it is gone", || (!procs::lives(first)).then_some(()));
    let _ = id;
}

#[test]
fn a_runner_that_died_of_a_real_time_signal_is_seen_to_be_gone() {
    let Some(container) = Container::start(&with(HOLD)) else { return };
    let (mut up, mut go) = (container.node.fifo("up"), container.node.fifo("go"));
    let id = container.node.enqueue(&["hold"]);
    assert_eq!(up.line(), id);
    let task = running(&container.node, &id);
    let runner = container.node.runners().into_iter().find(|r| procs::below(*r).contains(&task)).unwrap();
    Ran::of(Command::new("kill").args(["-40", &runner.to_string()]), PATIENCE).code(0);
    assert_eq!(up.line(), id);
    go.release(1);
    let view = container.node.finished(&id);
    assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(2)), "{view}");
}

#[test]
fn sigquit_and_a_broken_config_have_their_codes() {
    let Some(mut container) = Container::start(&with(HOLD)) else { return };
    let (mut up, _go) = (container.node.fifo("up"), container.node.fifo("go"));
    container.node.enqueue(&["hold"]);
    up.line();
    container.node.signal(Signal::SIGQUIT);
    assert_eq!(container.node.ended(), 1);
    container.node.write_config("[taskd\n");
    container.node.refused().code(78).says(&["taskd.toml:1"]);
}

#[test]
fn a_read_only_root_and_closed_descriptors_are_enough() {
    let mut words = unshare(true);
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@" <&- >&-"#;
    words.extend(["sh", "-c", script]);
    let mut node = Node::prepare(Setup::new("[tasks.a]\ncommand = \"echo done\"\n"));
    let dir = node.path().to_str().unwrap().to_owned();
    words.push(&dir);
    if refused(&words) {
        return;
    }
    let mut touch = Command::new(words[0]);
    Ran::of(touch.args(&words[1..]).args(["touch", "/probe"]), PATIENCE).fails();
    node.setup.wrapper = words.iter().map(Into::into).collect();
    // Neither the directory of the state nor that of the socket is there.
    node.setup.socket = Some(node.path().join("run/taskd.sock"));
    node.launch();
    let ran = node.taskd(&["enqueue", "a", "--wait"]).code(0);
    assert_eq!(ran.out.trim(), "done");
    assert!(Path::new(&dir).join("state/instance").exists());
    assert_eq!(node.stop(), 0);
    assert!(node.log().contains("ended"), "{}", node.log());
}

/// The process id that a process has in its own namespace.
fn pid_inside(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("NSpid:")).unwrap_or_default();
    line.split_whitespace().last().unwrap_or_default().to_owned()
}

/// The main process of an attempt of this message.
#[track_caller]
fn running(node: &Node, id: &str) -> i32 {
    until("its process", || {
        let below = procs::below(node.launcher());
        below.into_iter().find(|p| procs::variable(*p, "TASKD_ID").as_deref() == Some(id))
    })
}
