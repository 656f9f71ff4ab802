//! Before READY: the lock, what an earlier life left, the socket, what the daemon is given.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::rig::{Rig, lives, not_root};

#[test]
fn a_second_launcher_on_the_same_state_is_told_who_runs() {
    let mut rig = Rig::new();
    let _daemon = rig.started();
    let second = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(75));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("already running as pid {}", rig.pid())), "{said}");
    assert!(rig.settings.taskd.socket.exists(), "the first one's socket stays");
}

#[test]
fn processes_of_an_earlier_life_are_gone_before_the_daemon_starts() {
    let mut rig = Rig::new();
    let state = rig.file("state");
    std::fs::create_dir(&state).unwrap();
    let instance = uuid::Uuid::new_v4().to_string();
    std::fs::write(state.join("instance"), &instance).unwrap();
    let sleeper = |instance: &str| {
        let script = "echo up; exec sleep 600";
        let mut sleeper = Command::new("setsid");
        let sleeper = sleeper.args(["sh", "-c", script]).env("TASKD_INSTANCE", instance);
        let mut sleeper = sleeper.stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(sleeper.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        sleeper
    };
    let (mut left, mut other) = (sleeper(&instance), sleeper("other"));
    let daemon = rig.started();
    assert!(!lives(left.id()));
    assert!(lives(other.id()));
    assert_eq!(daemon.start.instance, instance);
    other.kill().unwrap();
    other.wait().unwrap();
    left.wait().unwrap();
}

#[test]
fn the_daemon_is_told_everything_and_starts_clean() {
    let mut rig = Rig::new().with_notify();
    rig.environment.insert("SECRET".to_owned(), "x".to_owned());
    rig.environment.insert("TZ".to_owned(), "Asia/Shanghai".to_owned());
    let daemon = rig.started();
    let start = &daemon.start;
    assert_eq!((start.epoch, start.journal, start.children_lost), (1, false, false));
    assert_eq!(start.owner, nix::unistd::geteuid().as_raw());
    assert!(start.supervision.contains("sub-reaper"));
    assert!(!start.users.is_empty() && start.since > 1_600_000_000_000);
    assert_eq!(start.alive_every_ms, None, "nobody watches");
    assert_eq!(daemon.settings.generation, 1);
    let names: Vec<_> = daemon.me["environment"].as_object().unwrap().keys().cloned().collect();
    let allowed = ["LANG", "PATH", "RUST_BACKTRACE", "TASKD_DAEMON_STATE", "TASKD_INSTANCE", "TZ"];
    assert!(names.iter().all(|n| allowed.contains(&n.as_str())), "{names:?}");
    assert_eq!(daemon.me["environment"]["TASKD_INSTANCE"], start.instance.as_str());
    assert_eq!(daemon.me["environment"]["TZ"], "Asia/Shanghai");
    assert_eq!(daemon.me["dumpable"], false);
    assert_eq!(daemon.me["death_signal"], 9);
    assert_eq!(daemon.me["pgid"], daemon.me["pid"], "a terminal's Ctrl-C is not for it");
    assert_eq!(daemon.me["blocked"], "SigBlk:\t0000000000000000");
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    assert_eq!(title.trim_end_matches('\0'), "taskd: daemon");
    let kept = std::fs::read_to_string(rig.file("state/instance")).unwrap();
    assert_eq!(kept.trim(), start.instance);
}

#[test]
fn clients_wait_in_the_backlog_until_a_daemon_accepts() {
    let mut rig = Rig::new();
    let mut daemon = rig.started();
    let client = UnixStream::connect(&rig.settings.taskd.socket).unwrap();
    daemon.command(&json!({ "exit": 1 }));
    let mut next = rig.daemon();
    next.command(&json!({ "accept": true }));
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), format!("accepted by {}", next.pid()));
}

#[test]
fn a_faulty_config_is_printed_and_exits_78() {
    let rig = Rig::new();
    let mut command = rig.command();
    std::fs::write(rig.file("settings.json"), "error: unknown key `taks` at line 3").unwrap();
    let out = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(78));
    assert!(String::from_utf8(out.stderr).unwrap().contains("unknown key `taks` at line 3"));
}

#[test]
fn a_socket_that_another_process_listens_on_is_in_the_way_for_now() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.settings.taskd.socket.parent().unwrap()).unwrap();
    let _held = UnixListener::bind(&rig.settings.taskd.socket).unwrap();
    let out = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(75));
}

#[test]
fn a_socket_path_that_is_too_long_is_told_with_the_limit() {
    let mut rig = Rig::new();
    rig.settings.taskd.socket = rig.file(&"x".repeat(120));
    let out = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(78));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("107") && said.contains("shorter"), "{said}");
}

#[test]
fn a_state_directory_of_another_user_is_refused_with_the_remedy() {
    if not_root("a state directory of another user") {
        return;
    }
    let rig = Rig::new();
    std::fs::create_dir(rig.file("state")).unwrap();
    std::os::unix::fs::chown(rig.file("state"), Some(1), Some(1)).unwrap();
    let out = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(78));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("chown -R") && said.contains("state"), "{said}");
}

#[test]
fn the_socket_that_systemd_holds_is_taken_and_outlives_the_launcher() {
    let mut rig = Rig::new();
    std::fs::create_dir(rig.file("run")).unwrap();
    let held = UnixListener::bind(&rig.settings.taskd.socket).unwrap();
    let inner = rig.command();
    // LISTEN_PID is the pid after exec, which only a shell can know in time.
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(inner.get_program()).args(inner.get_args());
    rig.dress(&mut command);
    let fd = held.as_raw_fd();
    unsafe {
        command.pre_exec(move || {
            // Close-on-exec is not copied; where it is 3 already it must be taken away.
            if fd == 3 {
                nix::libc::fcntl(3, nix::libc::F_SETFD, 0);
            } else {
                nix::libc::dup2(fd, 3);
            }
            Ok(())
        });
    }
    rig.launcher = Some(command.spawn().unwrap());
    let mut daemon = rig.daemon();
    let client = UnixStream::connect(&rig.settings.taskd.socket).unwrap();
    daemon.command(&json!({ "accept": true }));
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), format!("accepted by {}", daemon.pid()));
    daemon.say(&taskd::process::launch::ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(rig.settings.taskd.socket.exists(), "it is systemd's");
}
