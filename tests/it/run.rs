//! `taskd run`: start, readiness, titles, end.

use nix::sys::signal::Signal;

use super::harness::{Node, Setup, procs, until};
use super::{HOLD, with};

#[test]
fn ready_means_that_the_socket_answers_and_the_titles_are_readable() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    assert_eq!(node.http().get("/v1/status")["state"], "running");
    assert!(
        procs::title(node.launcher()).starts_with("taskd: launcher"),
        "{}",
        procs::title(node.launcher())
    );
    assert!(procs::title(node.daemon()).starts_with("taskd: daemon"));
    let id = node.enqueue(&["hold"]);
    assert_eq!(up.line(), id);
    let titles = || node.runners().into_iter().map(procs::title).collect::<Vec<_>>();
    let busy = |t: &&String| t.contains("hold") && t.contains(&id);
    // The task may speak before its runner has changed its title.
    until("a runner that says what it runs", || (titles().iter().filter(busy).count() == 1).then_some(()));
    let titles = titles();
    assert!(titles.iter().all(|t| t.starts_with("taskd: runner default/")), "{titles:?}");
    go.release(1);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    node.notify.has("STATUS=");
}

#[test]
fn sigterm_is_a_warm_stop() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    node.signal(Signal::SIGTERM);
    node.notify.has("STOPPING=1");
    go.release(1);
    assert_eq!(node.ended(), 0);
    // What ran in the grace was recorded.
    node.launch();
    let view = node.view(&id);
    assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(1)), "{view}");
}

#[test]
fn ctrl_c_on_the_whole_process_group_is_a_warm_stop_too() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    for pid in [vec![node.launcher(), node.daemon()], node.runners()].concat() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT).unwrap();
    }
    node.notify.has("STOPPING=1");
    go.release(1);
    assert_eq!(node.ended(), 0);
    node.launch();
    assert_eq!(node.view(&id)["state"], "SUCCESS");
}

#[test]
fn what_outlasts_the_grace_goes_back_uncounted() {
    let config = with(HOLD).replace("\"10s\"", "\"200ms\"");
    let mut node = Node::start(&config);
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    assert_eq!(node.stop(), 0);
    node.launch();
    assert_eq!(up.line(), id, "it runs again");
    go.release(1);
    let view = node.finished(&id);
    assert_eq!(
        (view["state"].as_str(), view["retries"].as_u64(), view["losses"].as_u64()),
        (Some("SUCCESS"), Some(0), Some(0))
    );
}

#[test]
fn a_socket_left_by_a_kill_is_no_obstacle() {
    let mut node = Node::start(&with(""));
    node.kill_launcher();
    assert!(node.socket().exists());
    node.launch();
    node.ok(&["status"]);
}

#[test]
fn no_config_and_a_faulty_config_are_refused() {
    let node = Node::prepare(Setup::new("[taskd]\nnod = \"x\"\n"));
    node.refused().code(78).says(&["nod", "node", "taskd.toml:2"]);
    std::fs::remove_file(node.config_file()).unwrap();
    node.refused().fails().one_clear_line().says(&["taskd.toml"]);
}

#[test]
fn an_ordinary_user_may_run_it_but_not_as_another() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // The binary may stand where only root can read it: hand a copy to the other user.
    let node = Node::prepare(Setup::new(&with("[tasks.id]\ncommand = \"id -u\"\nuser = \"root\"\n")));
    let copy = node.path().join("taskd");
    std::fs::copy(super::harness::node::TASKD, &copy).unwrap();
    std::fs::create_dir(node.state_dir()).unwrap();
    std::os::unix::fs::chown(node.state_dir(), Some(65534), Some(65534)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).arg("run");
    command.arg("--config").arg(node.config_file()).arg("--state-dir").arg(node.state_dir());
    command.arg("--socket").arg(node.state_dir().join("sock"));
    super::harness::Ran::of(&mut command, super::harness::PATIENCE).code(78).says(&[
        "nobody",
        "root",
        "taskd.toml:7",
    ]);
}
