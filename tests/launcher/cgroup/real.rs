//! Real control groups: that the kernel does what the launcher asks of it. They need root (or a delegated
//! group) and the controllers memory and pids; `TASKD_TEST_CGROUP=1` makes their absence a failure, and allows
//! to move the processes beside this one out of the way.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use taskd::model::task::{Limits, Program, Task};
use taskd::process::cgroup;
use taskd::process::launch::{ChildId, ToLauncher};

use super::{content, group_of, leaf};
use crate::rig::{Daemon, PATIENCE, Rig, lives, task};

/// A group in which groups with the controllers memory and pids can be made.
fn base() -> Result<&'static Path, &'static str> {
    static BASE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BASE.get_or_init(|| prepare(std::env::var_os("TASKD_TEST_CGROUP").is_some())) {
        Ok(path) => Ok(path),
        Err(why) => Err(why),
    }
}

fn prepare(forced: bool) -> Result<PathBuf, String> {
    let own = cgroup::own()?;
    let says = |file: &str, word: &str| {
        std::fs::read_to_string(own.join(file)).is_ok_and(|t| t.split_ascii_whitespace().any(|w| w == word))
    };
    let on = || ["memory", "pids"].iter().all(|c| says("cgroup.subtree_control", c));
    if !["memory", "pids"].iter().all(|c| says("cgroup.controllers", c)) {
        return Err(format!("{} lacks the memory or the pids controller", own.display()));
    }
    let told = |e: std::io::Error| format!("{}: {e}", own.display());
    if !on() && !forced {
        return Err(format!("{} does not hand memory and pids on", own.display()));
    }
    if !on() && own.join("cgroup.type").exists() {
        // No process may be in a group that hands controllers on, unless it is the root.
        let aside = own.join("beside-the-tests");
        std::fs::create_dir(&aside).map_err(told)?;
        for pid in content(&own.join("cgroup.procs")).lines() {
            std::fs::write(aside.join("cgroup.procs"), pid).map_err(told)?;
        }
    }
    if !on() {
        for controller in ["+memory", "+pids", "+cpu", "+io"] {
            let done = std::fs::write(own.join("cgroup.subtree_control"), controller).map_err(told);
            if matches!(controller, "+memory" | "+pids") {
                done?;
            }
        }
    }
    Ok(own)
}

/// A rig whose launcher is alone in a group of its own; absent where that cannot be.
fn rig(name: &str) -> Option<(Rig, Group)> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let base = match base() {
        Ok(base) => base,
        Err(why) => {
            assert!(std::env::var_os("TASKD_TEST_CGROUP").is_none(), "no control group to test with: {why}");
            println!("skipped: {name} needs a delegated cgroup v2 ({why})");
            return None;
        }
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let group = base.join(format!("taskd-test-{}-{number}", std::process::id()));
    std::fs::create_dir(&group).unwrap();
    let mut rig = Rig::new();
    rig.options["cgroup"] = json!("real");
    Some((rig, Group(group)))
}

/// Removed at the end of the test, with all that is in it.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let until = Instant::now() + PATIENCE;
        while !remove(&self.0) && Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn remove(group: &Path) -> bool {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) && !remove(&entry.path()) {
            return false;
        }
    }
    std::fs::remove_dir(group).is_ok()
}

/// The launcher goes into the group before it is one.
fn ready(rig: &mut Rig, group: &Group) -> Daemon {
    use std::os::unix::process::CommandExt;
    let mut command = rig.command();
    let procs = std::ffi::CString::new(group.0.join("cgroup.procs").to_str().unwrap()).unwrap();
    unsafe {
        command.pre_exec(move || {
            use nix::libc;
            let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let done = fd >= 0 && libc::write(fd, c"0".as_ptr().cast(), 1) == 1;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    rig.launcher = Some(command.spawn().unwrap());
    let mut daemon = rig.daemon();
    daemon.hear_packet("go");
    daemon.say(&ToLauncher::Ready);
    daemon
}

fn limited(limits: Limits) -> Task {
    Task { limits, ..task("limited") }
}

/// Runs a script in a fresh leaf for this task; what came of it, what was used, and where.
fn attempt(daemon: &mut Daemon, child: u64, task: &str, script: &str) -> (Value, Value) {
    let group = group_of(&daemon.ask(child, &leaf(task, 0)));
    daemon.order(child, &format!("run {script}"));
    let ran = daemon.said(child, "ran")["ran"].clone();
    let done = daemon.ask(child, &json!({ "op": "done" }))["told"].clone();
    assert_eq!(done["op"], "done", "{done}");
    assert!(!group.exists(), "{} stays", group.display());
    (ran, done)
}

/// A shell word that takes this many MiB and holds them for a moment.
const EAT: &str = "head -c 64m /dev/zero | tail -c 64m | wc -c";

#[test]
fn the_launcher_takes_its_group_over_and_gives_it_back_empty() {
    let Some((mut rig, group)) = rig("taking a group over") else { return };
    let mut daemon = ready(&mut rig, &group);
    assert!(daemon.start.supervision.contains("control groups (v2)"), "{}", daemon.start.supervision);
    let (id, runner) = daemon.child("default", 0, "");
    let of = |pid: &Value| content(Path::new(&format!("/proc/{pid}/cgroup")));
    assert!(of(&json!(rig.pid())).trim_end().ends_with("/supervisor"));
    assert!(of(&daemon.me["pid"]).trim_end().ends_with("/supervisor"));
    assert!(of(&runner["pid"]).trim_end().ends_with(&format!("/slots/default-0.{id}/main")));
    daemon.say(&ToLauncher::Measure { child: ChildId(id) });
    assert!(daemon.hear_packet("measured")["packet"]["bytes"].as_u64().unwrap() > 64 << 10);
    daemon.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(!group.0.join("slots").exists());
}

#[test]
fn memory_beyond_the_limit_ends_the_attempt_and_is_told() {
    let Some((mut rig, group)) = rig("memory_max") else { return };
    let limits = Limits { memory_max: Some(16 << 20), ..Limits::default() };
    rig.settings.tasks.insert("limited".to_owned(), limited(limits));
    let mut daemon = ready(&mut rig, &group);
    let (id, runner) = daemon.child("default", 0, "");
    let (ran, done) = attempt(&mut daemon, id, "limited", EAT);
    assert_eq!(ran["signal"], 9, "the whole group went, its shell too: {ran}");
    assert_eq!(done["out_of_memory"], true, "{done}");
    assert!(done["memory_peak"].as_u64().is_none_or(|peak| peak > 8 << 20 && peak <= 16 << 20), "{done}");
    let (ran, done) = attempt(&mut daemon, id, "limited", "true");
    assert_eq!((&ran["code"], &done["out_of_memory"]), (&json!(0), &json!(false)), "its own count: {done}");
    let (ran, _) = attempt(&mut daemon, id, "clean", EAT);
    assert_eq!((&ran["code"], &ran["out"]), (&json!(0), &json!("67108864")), "no limit, no harm: {ran}");
    assert!(lives(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap()));
}

#[test]
fn a_fork_bomb_is_bounded_and_gone_with_its_attempt() {
    let Some((mut rig, group)) = rig("tasks_max") else { return };
    let limits = Limits { tasks_max: Some(20), ..Limits::default() };
    rig.settings.tasks.insert("limited".to_owned(), limited(limits));
    let mut daemon = ready(&mut rig, &group);
    let (id, runner) = daemon.child("default", 0, "");
    let bomb = "bomb() { setsid sh -c 'trap \"\" TERM; sleep 600' & bomb; }; bomb >/dev/null 2>&1 & sleep 1; echo over";
    let (ran, done) = attempt(&mut daemon, id, "limited", &format!("{bomb} >/dev/null; true"));
    assert!(ran["code"].is_number() || ran["signal"].is_number(), "{ran}");
    let peak = done["tasks_peak"].as_u64();
    assert!(peak.is_none_or(|n| (5..=20).contains(&n)), "{done}");
    assert!(done["killed"].as_u64().unwrap() <= 20, "{done}");
    assert!(lives(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap()));
}

#[test]
fn nothing_of_an_attempt_is_left_wherever_it_hid() {
    let Some((mut rig, group)) = rig("leftovers") else { return };
    let mut daemon = ready(&mut rig, &group);
    let (id, _) = daemon.child("default", 0, "");
    // Double-forked, in sessions of their own, deaf, without the environment by which they are found elsewhere.
    let hide = "for i in 1 2 3; do setsid env -i sh -c 'trap \"\" TERM HUP; sleep 600 & echo $!; (sleep 601 & echo $!) ; wait' & done; sleep 0.5";
    let hide = format!("({hide}) 2>/dev/null > /dev/null & sleep 0.2; cat /proc/self/cgroup");
    let group_path = group_of(&daemon.ask(id, &leaf("clean", 0)));
    daemon.order(id, &format!("run {hide}"));
    let ran = daemon.said(id, "ran");
    assert!(ran["ran"]["out"].as_str().unwrap().trim_end().ends_with("/a1"), "{ran}");
    let until = Instant::now() + PATIENCE;
    let mut members: Vec<u32> = Vec::new();
    while members.len() < 9 {
        members = content(&group_path.join("cgroup.procs")).lines().map(|p| p.parse().unwrap()).collect();
        assert!(Instant::now() < until, "{members:?}");
        std::thread::yield_now();
    }
    let done = daemon.ask(id, &json!({ "op": "done" }))["told"].clone();
    assert!(done["killed"].as_u64().unwrap() >= 9, "{done}");
    assert!(members.iter().all(|pid| !lives(*pid)), "something is left");
    assert!(!group_path.exists());
}

#[test]
fn usage_is_what_the_kernel_counted() {
    let Some((mut rig, group)) = rig("usage") else { return };
    let mut daemon = ready(&mut rig, &group);
    let (id, _) = daemon.child("default", 0, "");
    let (ran, done) = attempt(
        &mut daemon,
        id,
        "clean",
        &format!("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; {EAT}"),
    );
    assert_eq!(ran["code"], 0, "{ran}");
    assert!(done["user_us"].as_u64().unwrap() > 0 && done["system_us"].as_u64().unwrap() > 0, "{done}");
    assert!(done["memory_peak"].as_u64().is_none_or(|n| n > 60 << 20), "{done}");
    assert!(done["tasks_peak"].as_u64().is_none_or(|n| n >= 3), "{done}");
    assert_eq!((&done["out_of_memory"], &done["killed"]), (&json!(false), &json!(0)), "{done}");
}

#[test]
fn cpu_time_is_rationed() {
    let Some((mut rig, group)) = rig("cpu_quota") else { return };
    if !group.0.join("cpu.max").exists() {
        assert!(std::env::var_os("TASKD_TEST_CGROUP").is_none(), "no cpu controller");
        return println!("skipped: cpu_quota needs the cpu controller");
    }
    let limits = Limits { cpu_quota: Some(10), ..Limits::default() };
    rig.settings.tasks.insert("limited".to_owned(), limited(limits));
    let mut daemon = ready(&mut rig, &group);
    let (id, _) = daemon.child("default", 0, "");
    let begun = Instant::now();
    let (_, done) = attempt(&mut daemon, id, "limited", "timeout 2 sh -c 'while :; do :; done'");
    let used = done["user_us"].as_u64().unwrap() + done["system_us"].as_u64().unwrap();
    let wall = u64::try_from(begun.elapsed().as_micros()).unwrap();
    assert!(used * 5 < wall, "10 % of one CPU were allowed, {used} µs of {wall} were used");
}

#[test]
fn an_unprivileged_task_cannot_change_its_limits_nor_leave() {
    if crate::rig::not_root("an unprivileged task in a group of root") {
        return;
    }
    let Some((mut rig, group)) = rig("limits that hold") else { return };
    rig.settings.pools.get_mut("default").unwrap().user = Some("games".to_owned());
    let limits = Limits { memory_max: Some(16 << 20), tasks_max: Some(30), ..Limits::default() };
    let script = "true".to_owned();
    rig.settings
        .tasks
        .insert("limited".to_owned(), Task { program: Program::Command(script), ..limited(limits) });
    let mut daemon = ready(&mut rig, &group);
    let (id, runner) = daemon.child("default", 0, "games");
    assert_eq!(runner["uids"], json!([5, 5, 5]));
    let path = group_of(&daemon.ask(id, &leaf("limited", 0)));
    let at = path.display();
    for script in [
        format!("echo max > {at}/memory.max"),
        format!("echo max > {at}/pids.max"),
        format!("echo 0 > {at}/memory.oom.group"),
        format!("mkdir {at}/mine"),
        format!("echo 0 > {at}/../main/cgroup.procs"),
        format!("echo 0 > {at}/../../../supervisor/cgroup.procs"),
        format!("echo 0 > {at}/../../../../cgroup.procs"),
        format!("echo {} > {at}/cgroup.procs", rig.pid()),
    ] {
        daemon.order(id, &format!("run {script}"));
        let ran = daemon.said(id, "ran")["ran"].clone();
        assert_ne!(ran["code"], 0, "{script}: {ran}");
    }
    assert_eq!(content(&path.join("memory.max")).trim(), (16_u32 << 20).to_string());
    // What came with the leaf is for processes of this slot only.
    for pid in [rig.pid(), daemon.pid(), std::process::id()] {
        daemon.order(id, &format!("door {pid}"));
        assert!(daemon.said(id, "wrote")["wrote"]["Err"].is_string(), "{pid}");
    }
    daemon.order(id, &format!("run {EAT}"));
    assert_eq!(daemon.said(id, "ran")["ran"]["signal"], 9);
    assert_eq!(daemon.ask(id, &json!({ "op": "done" }))["told"]["out_of_memory"], true);
}

#[test]
fn a_runner_that_dies_takes_everything_of_its_slot_with_it() {
    let Some((mut rig, group)) = rig("the end of a runner") else { return };
    let mut daemon = ready(&mut rig, &group);
    let (id, _) = daemon.child("default", 0, "");
    let (bystander, _) = daemon.child("default", 1, "");
    let path = group_of(&daemon.ask(id, &leaf("clean", 0)));
    daemon.order(id, "run setsid env -i sleep 600 >/dev/null 2>&1 & true");
    daemon.said(id, "ran");
    let members: Vec<u32> = content(&path.join("cgroup.procs")).lines().map(|p| p.parse().unwrap()).collect();
    assert_eq!(members.len(), 1);
    daemon.say(&ToLauncher::End { child: ChildId(id), kill: true });
    let exited = daemon.hear_packet("exited");
    assert_eq!((&exited["packet"]["child"], &exited["packet"]["out_of_memory"]), (&json!(id), &json!(false)));
    assert!(!lives(members[0]) && !path.parent().unwrap().exists());
    daemon.order(bystander, "echo here");
    daemon.said(bystander, "echo");
}
