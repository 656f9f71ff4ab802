//! Control groups: what the launcher does with them, in directories of plain files; that the kernel then does
//! what is meant, in real ones ([`real`]).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use taskd::model::task::{OnMemory, Raise};
use taskd::process::cgroup::Kernel;
use taskd::process::launch::{ChildId, ToLauncher};

use crate::rig::{PATIENCE, Rig, task};

mod real;

/// A directory of plain files that looks like a group.
pub fn kernel() -> Kernel {
    Kernel {
        make: |path| {
            std::fs::create_dir(path)?;
            let files = [
                ("cgroup.type", "domain\n"),
                ("cgroup.controllers", "cpu io memory pids\n"),
                ("cgroup.events", "populated 0\nfrozen 0\n"),
                ("cpu.stat", "user_usec 11\nsystem_usec 22\n"),
                ("memory.peak", "4096\n"),
                ("memory.current", "8192\n"),
                ("memory.events", "oom_kill 0\n"),
            ];
            let empty = [
                "cgroup.procs",
                "cgroup.kill",
                "cgroup.subtree_control",
                "memory.max",
                "cpu.max",
                "pids.max",
            ]
            .map(|name| (name, ""));
            files.into_iter().chain(empty).try_for_each(|(name, text)| std::fs::write(path.join(name), text))
        },
        remove: |path| {
            let busy = std::fs::read_to_string(path.join("cgroup.events"))?.starts_with("populated 1");
            let below = std::fs::read_dir(path)?.flatten().any(|e| e.path().is_dir());
            if busy || below { Err(nix::errno::Errno::EBUSY.into()) } else { std::fs::remove_dir_all(path) }
        },
    }
}

fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn leaf(task: &str, memory_retries: u32) -> Value {
    json!({ "op": "leaf", "task": task, "memory_retries": memory_retries })
}

fn group_of(told: &Value) -> PathBuf {
    assert_eq!(told["told"]["op"], "leaf", "{told}");
    assert_eq!(told["fds"], 1);
    Path::new(told["door"].as_str().unwrap()).parent().unwrap().to_owned()
}

fn limited() -> Rig {
    let mut rig = Rig::new().with_groups();
    let mut heavy = task("heavy");
    heavy.limits.memory_max = Some(1000);
    heavy.limits.cpu_quota = Some(50);
    heavy.limits.tasks_max = Some(7);
    heavy.limits.on_memory = Some(OnMemory { memory_max: Some(Raise::Percent(200)), queue: None, max: 2 });
    rig.settings.tasks.insert("heavy".to_owned(), heavy);
    rig
}

#[test]
fn launcher_and_daemon_leave_the_group_that_they_hand_on() {
    let mut rig = limited();
    let daemon = rig.ready();
    let root = rig.file("cgroup");
    assert!(daemon.start.supervision.contains("control groups (v2) under"), "{}", daemon.start.supervision);
    assert!(daemon.start.supervision.contains(root.to_str().unwrap()), "{}", daemon.start.supervision);
    assert_eq!(content(&root.join("supervisor/cgroup.procs")), "0");
}

#[test]
fn an_attempt_gets_a_fresh_leaf_with_the_limits_of_the_config() {
    let mut rig = limited();
    let mut daemon = rig.ready();
    let (id, runner) = daemon.child("default", 1, "");
    assert_eq!(runner["part"]["leaves"], true);
    // 0, 1, 2, two sockets, and the one by which it counts.
    assert_eq!(runner["fds"], 6);
    let slot = rig.file(&format!("cgroup/slots/default-1.{id}"));
    assert_eq!(content(&slot.join("main/cgroup.procs")), "0", "the runner went there itself");
    let mut last = PathBuf::new();
    for (retries, memory) in [(0, "1000"), (1, "2000"), (2, "4000"), (9, "4000")] {
        let group = group_of(&daemon.ask(id, &leaf("heavy", retries)));
        assert!(group.starts_with(&slot) && group != last, "{}", group.display());
        assert_eq!(content(&group.join("memory.max")), memory);
        assert_eq!(
            (content(&group.join("cpu.max")), content(&group.join("pids.max"))),
            ("50000 100000".into(), "7".into())
        );
        let done = daemon.ask(id, &json!({ "op": "done" }));
        assert_eq!(done["told"]["op"], "done", "{done}");
        assert_eq!((&done["told"]["user_us"], &done["told"]["system_us"]), (&json!(11), &json!(22)));
        assert_eq!(
            (&done["told"]["memory_peak"], &done["told"]["out_of_memory"]),
            (&json!(4096), &json!(false))
        );
        assert!(!group.exists());
        last = group;
    }
    let group = group_of(&daemon.ask(id, &leaf("clean", 0)));
    assert_eq!(content(&group.join("memory.max")), "", "no limit is declared");
    // A second question before `done`: the old one is gone then.
    let next = group_of(&daemon.ask(id, &leaf("clean", 0)));
    assert!(next != group && next.exists() && !group.exists());
    daemon.order(id, "exit 0");
    daemon.hear_packet("exited");
    assert!(!slot.exists());
}

#[test]
fn a_runner_gets_leaves_for_its_own_tasks_only() {
    let mut rig = limited();
    let mut daemon = rig.ready();
    let (id, _) = daemon.child("default", 0, "");
    for name in ["no-such-task", "", "../heavy", "heavy "] {
        let told = daemon.ask(id, &leaf(name, 0));
        assert_eq!(told["told"]["op"], "refused", "{told}");
        assert_eq!(told["fds"], 0);
    }
    let told = daemon.ask(id, &json!({ "op": "done" }));
    assert!(told["told"]["error"].as_str().unwrap().contains("no leaf"), "{told}");
    group_of(&daemon.ask(id, &leaf("heavy", 0)));
    rig.logged("is no task of this runner", 4);
}

#[test]
fn a_runner_gets_no_leaf_for_a_task_of_another_user() {
    if crate::rig::not_root("tasks of two users") {
        return;
    }
    let mut rig = limited();
    let mut games = task("games");
    games.user = Some("games".to_owned());
    rig.settings.tasks.insert("games".to_owned(), games);
    let mut daemon = rig.ready();
    let (own, _) = daemon.child("default", 0, "");
    let (other, _) = daemon.child("default", 1, "games");
    assert_eq!(daemon.ask(own, &leaf("games", 0))["told"]["op"], "refused");
    assert_eq!(daemon.ask(other, &leaf("heavy", 0))["told"]["op"], "refused");
    group_of(&daemon.ask(own, &leaf("heavy", 0)));
    group_of(&daemon.ask(other, &leaf("games", 0)));
}

#[test]
fn a_runner_that_sends_what_it_never_sends_is_ended_and_nobody_else() {
    let mut rig = limited();
    let mut daemon = rig.ready();
    let (bystander, _) = daemon.child("default", 1, "");
    for order in ["ask_raw {\"op\":", "ask_raw {\"op\":\"spawn\"}", "ask_fd"] {
        let (id, _) = daemon.child("default", 0, "");
        daemon.order(id, order);
        let exited = daemon.hear_packet("exited");
        assert_eq!(
            (&exited["packet"]["child"], &exited["packet"]["signal"]),
            (&json!(id), &json!(9)),
            "{order}"
        );
    }
    daemon.order(bystander, "echo here");
    daemon.said(bystander, "echo");
    rig.logged("a runner is killed", 3);
}

#[test]
fn what_does_not_end_is_waited_for_without_holding_anybody_up() {
    let mut rig = limited();
    rig.options["gone_within"] = json!(1_000);
    let mut daemon = rig.ready();
    let (id, _) = daemon.child("default", 0, "");
    let (other, _) = daemon.child("default", 1, "");
    let group = group_of(&daemon.ask(id, &leaf("heavy", 0)));
    std::fs::write(group.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    std::fs::write(group.join("cgroup.procs"), "70\n71\n").unwrap();
    daemon.order(id, &format!("ask {}", json!({ "op": "done" })));
    // Killed, and not gone: the loop serves the others meanwhile.
    let until = std::time::Instant::now() + PATIENCE;
    while content(&group.join("cgroup.kill")) != "1" {
        assert!(std::time::Instant::now() < until);
        std::thread::yield_now();
    }
    group_of(&daemon.ask(other, &leaf("heavy", 0)));
    assert!(!daemon.passed_over().iter().any(|v| v["child"] == id && v["said"]["told"].is_object()));
    // Plain files tell no change: it is seen when the time is over.
    std::fs::write(group.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    let done = daemon.said(id, "told");
    assert_eq!((&done["told"]["op"], &done["told"]["killed"]), (&json!("done"), &json!(2)));
    assert!(!group.exists());
}

#[test]
fn a_child_that_died_for_want_of_memory_is_told_so() {
    let mut rig = limited();
    let mut daemon = rig.ready();
    // The kernel ended something the third one ran, and that one lived on to its own end.
    let ends = [("oom_kill 1\n", true, true), ("oom_kill 0\n", true, false), ("oom_kill 1\n", false, false)];
    for (oom_kill, killed, expected) in ends {
        let (id, _) = daemon.child("default", 0, "");
        let slot = rig.file(&format!("cgroup/slots/default-0.{id}"));
        std::fs::write(slot.join("main/memory.events"), oom_kill).unwrap();
        if killed {
            daemon.say(&ToLauncher::End { child: ChildId(id), kill: true });
        } else {
            daemon.order(id, "exit 3");
        }
        let exited = daemon.hear_packet("exited");
        assert_eq!(exited["packet"]["out_of_memory"], expected);
        assert!(!slot.exists());
    }
}

#[test]
fn a_slot_is_measured_by_its_group_and_without_one_by_its_processes() {
    for (mut rig, counted) in [(limited(), true), (Rig::new(), false)] {
        let mut daemon = rig.ready();
        let (id, runner) = daemon.child("default", 0, "");
        daemon.say(&ToLauncher::Measure { child: ChildId(id) });
        let measured = daemon.hear_packet("measured");
        let bytes = measured["packet"]["bytes"].as_u64().unwrap();
        let resident = content(Path::new(&format!("/proc/{}/statm", runner["pid"])));
        let resident: u64 = resident.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096;
        assert_eq!(bytes == 8192, counted);
        assert!(counted || (bytes > 64 << 10 && bytes <= resident + (4 << 20)), "{bytes} of {resident}");
    }
}

#[test]
fn groups_of_an_earlier_life_are_gone_before_the_daemon_starts() {
    let mut rig = limited();
    let old = rig.file("cgroup/slots");
    (kernel().make)(&old).unwrap();
    (kernel().make)(&old.join("default-0.3")).unwrap();
    let _daemon = rig.started();
    assert!(old.exists() && !old.join("default-0.3").exists());
}

#[test]
fn a_quota_that_nothing_can_keep_is_refused_at_start_and_at_reload() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    assert!(
        daemon.start.supervision.contains("no cgroup v2 is delegated here"),
        "{}",
        daemon.start.supervision
    );
    rig.settings.tasks.get_mut("clean").unwrap().limits.cpu_quota = Some(50);
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let report = daemon.hear_packet("settings_refused")["packet"]["report"].as_str().unwrap().to_owned();
    assert!(report.contains("[tasks.clean]") && report.contains("cpu_quota"), "{report}");
    drop(daemon);
    let mut rig = Rig::new();
    rig.settings.tasks.get_mut("clean").unwrap().limits.cpu_quota = Some(50);
    rig.launch();
    assert_eq!(rig.ended().code(), Some(78));
    assert!(rig.log().contains("[tasks.clean]") && rig.log().contains("Delegate=yes"), "{}", rig.log());
}
