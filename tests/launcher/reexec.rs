//! Replacing the launcher's program in place: the process, its children and its sockets stay, or nothing
//! changes at all.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use taskd::config::settings::Queue;
use taskd::process::launch::ToLauncher;

use crate::rig::{Daemon, Rig, lives, not_root, send_signal, task, wait_gone};

/// A copy of this program under this name. By `cp`: a file that this process itself had open for writing
/// could not be executed while another test's fork still holds it.
fn install(from: &Path, to: &Path) {
    let next = to.with_extension("next");
    assert!(std::process::Command::new("cp").arg(from).arg(&next).status().unwrap().success());
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&next, to).unwrap();
}

/// A launcher that was started from a file that can be replaced.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.program = rig.file("taskd");
    install(&std::env::current_exe().unwrap(), &rig.program);
    rig
}

fn ask(daemon: &mut Daemon) {
    daemon.say(&ToLauncher::Reexec { keep: Vec::new() });
}

/// Hands over as a daemon does.
fn hand_over(daemon: &mut Daemon) {
    assert_eq!(daemon.hear_packet("hand_over")["packet"]["version"], env!("CARGO_PKG_VERSION"));
    daemon.say(&ToLauncher::HandedOver { draining: false });
    daemon.command(&json!({ "exit": 0 }));
}

/// One whole replacement, up to the new daemon's READY.
fn replace(rig: &mut Rig, daemon: &mut Daemon) -> Daemon {
    ask(daemon);
    hand_over(daemon);
    let mut next = rig.daemon();
    next.hear_packet("go");
    next.say(&ToLauncher::Ready);
    next
}

fn inode(pid: u32) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

fn refused(daemon: &mut Daemon, words: &[&str]) {
    let packet = daemon.hear_packet("reexec_refused");
    let report = packet["packet"]["report"].as_str().unwrap();
    for word in words {
        assert!(report.contains(word), "no {word:?} in: {report}");
    }
}

#[test]
fn the_process_and_its_children_live_on_in_the_new_program() {
    let mut rig = rig().with_notify();
    let mut old = rig.ready();
    rig.notified("READY=1");
    let (id, runner) = old.child("default", 0, "");
    let pid = u32::try_from(runner["pid"].as_u64().unwrap()).unwrap();
    install(&std::env::current_exe().unwrap(), &rig.file("taskd"));
    let installed = std::fs::metadata(rig.file("taskd")).unwrap().ino();
    assert_ne!(inode(rig.pid()), installed);

    let mut new = replace(&mut rig, &mut old);
    assert_eq!((inode(rig.pid()), inode(new.pid())), (installed, installed));
    assert_ne!(inode(pid), installed, "the child was not touched");
    let start = (new.start.epoch, new.start.upgrades, new.start.children_lost, &new.start.instance);
    assert_eq!(start, (2, 1, false, &old.start.instance));
    assert_eq!((new.start.since, new.settings.generation), (old.start.since, 2));
    let adopted = new.hear_packet("child");
    assert_eq!((&adopted["packet"]["child"], &adopted["packet"]["pid"]), (&json!(id), &runner["pid"]));
    assert_eq!(adopted["packet"]["generation"], 1);
    new.order(id, "echo still here");
    assert_eq!(new.said(id, "echo")["echo"], "still here");
    let told = rig.notified("READY=1");
    assert!(told.iter().any(|t| t.contains("RELOADING=1")), "{told:?}");

    // What a new child gets is what one of the old program got.
    let (_, later) = new.child("default", 1, "");
    for same in ["fds", "open_files", "blocked", "death_signal", "environment"] {
        assert_eq!(later[same], runner[same], "{same}");
    }
    let environment = std::fs::read(format!("/proc/{}/environ", new.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("TAKE_OVER"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
    assert!(status.starts_with("Name:\ttaskd\n"), "{status}");
    // The lock is still held.
    let second = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running as pid"), "{second:?}");
    // It still is the parent of what loses its own.
    new.order(id, "escape");
    let escaped = u32::try_from(new.said(id, "escaped")["escaped"].as_u64().unwrap()).unwrap();
    new.order(id, "exit 0");
    new.hear_packet("exited");
    wait_gone(escaped);
    new.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(!rig.settings.taskd.socket.exists(), "its socket is removed at the end as ever");
}

#[test]
fn many_replacements_leak_nothing() {
    let mut rig = rig();
    let mut daemon = rig.ready();
    let (id, _) = daemon.child("default", 0, "");
    daemon = replace(&mut rig, &mut daemon);
    let open = |pid: u32| {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let all = all.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        // Ordinary files come and go: /proc when leftovers are looked for, the time zone for the log.
        all.filter(|to| to.to_string_lossy().contains(':')).collect::<Vec<_>>()
    };
    let (before, pid) = (open(rig.pid()), rig.pid());
    for round in 2..8 {
        daemon = replace(&mut rig, &mut daemon);
        assert_eq!((daemon.start.upgrades, daemon.settings.generation), (round, round + 1));
    }
    daemon.order(id, "echo here");
    daemon.said(id, "echo");
    let after = open(pid);
    assert!(after.len() <= before.len(), "{after:#?}, at first {before:#?}");
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&title).contains("@launcher"), "the arguments are those of the start");
}

#[test]
fn control_groups_change_hands_with_their_leaves_and_their_limits() {
    let mut rig = rig().with_groups();
    let mut heavy = task("heavy");
    heavy.limits.memory_max = Some(1000);
    rig.settings.tasks.insert("heavy".to_owned(), heavy);
    let mut old = rig.ready();
    let (id, _) = old.child("default", 0, "");
    let slot = rig.file(&format!("cgroup/slots/default-0.{id}"));
    let wanted = json!({ "op": "leaf", "task": "heavy", "memory_retries": 0 });
    let group = |told: &Value| Path::new(told["door"].as_str().unwrap()).parent().unwrap().to_owned();
    let first = group(&old.ask(id, &wanted));
    // The new limit is for those who start later.
    rig.settings.tasks.get_mut("heavy").unwrap().limits.memory_max = Some(5000);
    rig.write_settings();
    let mut new = replace(&mut rig, &mut old);
    new.hear_packet("child");
    assert_eq!(new.start.supervision, old.start.supervision);
    assert!(first.exists() && slot.exists(), "what an earlier life left is not what this one took over");
    let done = new.ask(id, &json!({ "op": "done" }));
    assert_eq!((&done["told"]["op"], first.exists()), (&json!("done"), false), "{done}");
    let next = group(&new.ask(id, &wanted));
    assert!(next.starts_with(&slot) && next != first, "a name is never used twice");
    assert_eq!(std::fs::read_to_string(next.join("memory.max")).unwrap(), "1000");
    let (later, _) = new.child("default", 1, "");
    let next = group(&new.ask(later, &wanted));
    assert_eq!(std::fs::read_to_string(next.join("memory.max")).unwrap(), "5000");
    new.order(id, "exit 0");
    new.hear_packet("exited");
    assert!(!slot.exists());
}

#[test]
fn the_new_program_dies_with_its_children_like_the_old_one() {
    let mut rig = rig();
    let mut old = rig.ready();
    let (_, runner) = old.child("default", 0, "");
    let new = replace(&mut rig, &mut old);
    rig.signal(Signal::SIGKILL);
    rig.ended();
    wait_gone(new.pid());
    wait_gone(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap());
}

#[test]
fn a_launcher_that_is_killed_meanwhile_takes_everything_with_it() {
    let mut rig = rig();
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    ask(&mut daemon);
    daemon.hear_packet("hand_over");
    rig.signal(Signal::SIGKILL);
    rig.ended();
    wait_gone(daemon.pid());
    wait_gone(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap());
    // And the next one starts as ever.
    assert_eq!(rig.ready().start.upgrades, 0);
}

#[test]
fn children_that_die_meanwhile_are_told() {
    let mut rig = rig();
    let mut old = rig.ready();
    let (id, runner) = old.child("default", 0, "");
    ask(&mut old);
    old.hear_packet("hand_over");
    rig.signal(Signal::SIGSTOP);
    send_signal(old.pid(), Signal::SIGKILL);
    send_signal(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap(), Signal::SIGKILL);
    rig.signal(Signal::SIGCONT);
    let mut new = rig.daemon();
    assert_eq!(new.start.upgrades, 1);
    assert!(new.start.children_lost || new.hear_packet("exited")["packet"]["child"] == id);
}

#[test]
fn only_a_daemon_that_stored_everything_makes_earlier_ends_forgotten() {
    for clean in [true, false] {
        let mut rig = rig();
        let mut old = rig.ready();
        let (id, _) = old.child("default", 0, "");
        old.order(id, "exit 0");
        old.hear_packet("exited");
        ask(&mut old);
        old.hear_packet("hand_over");
        if clean {
            old.say(&ToLauncher::HandedOver { draining: true });
        }
        old.command(&json!({ "exit": 0 }));
        let new = rig.daemon();
        assert_eq!((new.start.children_lost, new.start.draining), (!clean, clean));
    }
}

#[test]
fn a_program_that_is_not_fit_changes_nothing() {
    let mut rig = rig();
    let installed = rig.file("installed");
    rig.options["installed"] = json!(installed);
    let mut daemon = rig.ready();
    let (id, _) = daemon.child("default", 0, "");
    ask(&mut daemon);
    refused(&mut daemon, &["cannot open", "installed"]);
    std::fs::write(&installed, "an interrupted download").unwrap();
    std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o755)).unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["cannot execute", "installed", "ormat"]);
    std::fs::write(&installed, "#!/bin/sh\nexit 0\n").unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["installed is a script"]);
    for (program, words) in [
        ("false", &["cannot take over", "exit code 1"][..]),
        ("true", &["did not say", "no taskd"]),
        // Never ends, and prints all the time.
        ("yes", &["cannot take over"]),
    ] {
        install(&Path::new("/usr/bin").join(program), &installed);
        ask(&mut daemon);
        refused(&mut daemon, words);
    }
    std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o644)).unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["cannot execute", "ermission"]);
    // All the same process, daemon and child.
    daemon.order(id, "echo here");
    daemon.said(id, "echo");
    assert!(rig.launcher.as_mut().unwrap().try_wait().unwrap().is_none());
    rig.logged("nothing changed", 1);
}

#[test]
fn a_program_that_does_not_answer_is_ended() {
    let mut rig = rig();
    rig.options["trial"] = json!(300);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    // Reading the config waits here for ever.
    let gate = rig.file("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    ask(&mut daemon);
    ask(&mut daemon);
    refused(&mut daemon, &["another replacement"]);
    refused(&mut daemon, &["did not answer within 300ms"]);
    std::fs::remove_file(gate).unwrap();
    assert!(lives(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap()));
    replace(&mut rig, &mut daemon);
}

#[test]
fn what_the_config_says_now_must_be_good_for_the_new_program() {
    let mut rig = rig();
    let side = rig.settings.queues.values().next().cloned().unwrap();
    rig.settings.queues.insert("side".to_owned(), Queue { name: "side".to_owned(), ..side });
    let mut daemon = rig.ready();
    std::fs::write(rig.file("settings.json"), "error: bad at line 4").unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["error: bad at line 4"]);
    rig.settings.queues.remove("side");
    rig.write_settings();
    daemon.say(&ToLauncher::Reexec { keep: vec!["side".to_owned()] });
    refused(&mut daemon, &["[queues.side]"]);
    let node = std::mem::replace(&mut rig.settings.taskd.node, "other".to_owned());
    rig.write_settings();
    ask(&mut daemon);
    refused(&mut daemon, &["restart", "node"]);
    // What may change is in force afterwards.
    rig.settings.taskd.node = node;
    rig.settings.taskd.shutdown_grace_ms = 7_000;
    rig.write_settings();
    let next = replace(&mut rig, &mut daemon);
    assert_eq!((next.settings.generation, next.settings.taskd.shutdown_grace_ms), (2, 7_000));
    assert!(!next.settings.queues.contains_key("side"));
}

#[test]
fn a_config_that_breaks_in_the_last_moment_leaves_the_old_settings() {
    let mut rig = rig();
    let mut daemon = rig.ready();
    ask(&mut daemon);
    daemon.hear_packet("hand_over");
    std::fs::write(rig.file("settings.json"), "error: bad at line 4").unwrap();
    daemon.command(&json!({ "exit": 0 }));
    let next = rig.daemon();
    assert_eq!((next.start.upgrades, next.settings.generation), (1, 2));
    assert_eq!(next.settings.tasks, rig.settings.tasks);
}

#[test]
fn an_execution_that_fails_after_all_starts_a_daemon_of_the_old_program() {
    let mut rig = rig().with_notify();
    let mut old = rig.ready();
    rig.notified("READY=1");
    let (id, runner) = old.child("default", 0, "");
    install(&std::env::current_exe().unwrap(), &rig.file("taskd"));
    ask(&mut old);
    old.hear_packet("hand_over");
    std::fs::set_permissions(rig.file("taskd"), std::fs::Permissions::from_mode(0o644)).unwrap();
    old.say(&ToLauncher::HandedOver { draining: false });
    old.command(&json!({ "exit": 0 }));
    let mut new = rig.daemon();
    assert_eq!((new.start.epoch, new.start.upgrades, new.settings.generation), (2, 0, 1));
    let failure = new.start.upgrade_failure.clone().unwrap();
    assert!(failure.contains("could not be executed") && failure.contains("ermission"), "{failure}");
    new.hear_packet("go");
    new.hear_packet("child");
    new.say(&ToLauncher::Ready);
    rig.notified("READY=1");
    new.order(id, "echo still here");
    new.said(id, "echo");
    let (_, later) = new.child("default", 1, "");
    assert_eq!(later["fds"], runner["fds"], "what was left open for the new program reaches no child");
    // Once it is mended, it works.
    std::fs::set_permissions(rig.file("taskd"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let next = replace(&mut rig, &mut new);
    assert_eq!((next.start.upgrades, next.start.upgrade_failure.is_none()), (1, true));
}

#[test]
fn a_stop_goes_before_a_replacement() {
    let mut rig = rig();
    let mut old = rig.ready();
    ask(&mut old);
    old.hear_packet("hand_over");
    rig.signal(Signal::SIGTERM);
    old.hear_packet("stop");
    // It was past hearing that: the next one is told.
    old.command(&json!({ "exit": 0 }));
    let mut new = rig.daemon();
    assert_eq!((new.start.epoch, new.start.upgrades), (2, 0));
    new.hear_packet("stop");
    ask(&mut new);
    refused(&mut new, &["stopping"]);
    new.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn a_daemon_that_does_not_hand_over_is_ended_in_time() {
    let mut rig = rig();
    rig.options["hand_over"] = json!(200);
    let mut old = rig.ready();
    ask(&mut old);
    old.hear_packet("hand_over");
    let new = rig.daemon();
    assert_eq!((new.start.epoch, new.start.upgrades), (2, 1));
    wait_gone(old.pid());
    rig.logged("did not hand over in time", 1);
}

#[test]
fn replacements_are_no_deaths() {
    let mut rig = rig();
    let mut daemon = rig.ready();
    for _ in 0..6 {
        daemon = replace(&mut rig, &mut daemon);
    }
    let gone: Vec<Value> = daemon.rest().into_iter().filter(|v| v["packet"]["op"] == "stop").collect();
    assert_eq!(gone, [] as [Value; 0]);
    assert!(lives(daemon.pid()));
}

#[test]
fn root_executes_nothing_that_others_can_write() {
    if not_root("the check of the program's owner") {
        return;
    }
    let mut rig = rig();
    let mut daemon = rig.ready();
    let program = rig.file("taskd");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o775)).unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["refusing", "can be written by others"]);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&program, Some(12_345), None).unwrap();
    ask(&mut daemon);
    refused(&mut daemon, &["refusing", "12345"]);
}
