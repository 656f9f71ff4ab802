//! Children: what they are given, what is refused, and that nothing of theirs is left when their end is told.

use nix::sys::signal::Signal;
use serde_json::json;
use taskd::process::launch::{ChildId, ToLauncher};

use crate::rig::{Rig, lives, pool, queue, send_signal, task, wait_gone};

fn pid(value: &serde_json::Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn a_runner_gets_its_part_and_nothing_else() {
    let mut rig = Rig::new().with_notify();
    let mut passed = task("passed");
    passed.surroundings.pass_environment =
        vec!["WANTED".to_owned(), "LD_PRELOAD".to_owned(), "NOTIFY_SOCKET".to_owned()];
    rig.settings.tasks.insert("passed".to_owned(), passed);
    rig.environment.insert("WANTED".to_owned(), "yes".to_owned());
    rig.environment.insert("SECRET".to_owned(), "x".to_owned());
    let mut daemon = rig.ready();
    let (first, runner) = daemon.child("default", 1, "");
    let part = &runner["part"];
    assert_eq!(part["slot"], json!({ "pool": "default", "index": 1 }));
    assert_eq!((&part["generation"], &part["journal"]), (&json!(1), &json!(false)));
    assert_eq!(part["instance"], daemon.start.instance.as_str());
    assert_eq!(part["output_rate"], 262_144);
    let tasks: Vec<_> = part["tasks"].as_object().unwrap().keys().collect();
    assert_eq!(tasks, ["clean", "passed"]);
    let environment = runner["environment"].as_object().unwrap();
    let names: Vec<_> = environment.keys().map(String::as_str).collect();
    let allowed = ["LANG", "PATH", "RUST_BACKTRACE", "TASKD_FD", "TASKD_INSTANCE", "TZ", "WANTED"];
    assert!(names.iter().all(|n| allowed.contains(n)), "{names:?}");
    assert_eq!((&environment["TASKD_FD"], &environment["WANTED"]), (&json!("3"), &json!("yes")));
    // 0, 1, 2, the socket, and the one by which it counts.
    assert_eq!(runner["fds"], 5);
    assert_eq!(runner["pgid"], runner["pid"]);
    assert_eq!(runner["death_signal"], 9);
    assert_eq!(runner["blocked"], "SigBlk:\t0000000000000000");
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().0;
    assert_eq!(runner["open_files"], own, "the launcher's own raised limit is not for tasks");
    let (second, _) = daemon.child("default", 0, "");
    assert!(second > first);
}

#[test]
fn the_title_shows_in_the_command_line_and_the_environment_stays() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (id, runner) = daemon.child("default", 0, "");
    let shown = || std::fs::read_to_string(format!("/proc/{}/cmdline", runner["pid"])).unwrap();
    assert_eq!(shown().trim_end_matches('\0'), "taskd: runner default/0");
    let long = format!("taskd: runner default/0 clean_logs {}", "x".repeat(1_000));
    for title in ["taskd: runner default/0 clean_logs 0198", &long, "short"] {
        daemon.order(id, &format!("title {title}"));
        daemon.said(id, "titled");
        let shown = shown();
        let shown = shown.trim_end_matches('\0');
        assert!(title.starts_with(shown) && shown.len() >= title.len().min(200), "{shown}");
    }
    let environment = std::fs::read(format!("/proc/{}/environ", runner["pid"])).unwrap();
    let wanted = format!("TASKD_INSTANCE={}", daemon.start.instance);
    assert!(environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes()));
}

#[test]
fn what_the_config_does_not_declare_is_refused() {
    let mut rig = Rig::new();
    rig.settings.pools.insert("other".to_owned(), pool("other", 1));
    let mut daemon = rig.ready();
    for (pool, index, user, why) in [
        ("nowhere", 0, "", "no pool"),
        ("default", 2, "", "2 processes"),
        ("default", u32::MAX, "", "2 processes"),
        ("default", 0, "root", "runs as"),
        ("other", 0, "nobody", "runs as"),
        ("../etc", 0, "", "no pool"),
    ] {
        daemon.spawn(pool, index, user);
        let refused = daemon.hear_packet("spawn_failed");
        let (error, again) = (&refused["packet"]["error"], &refused["packet"]["again"]);
        assert!(error.as_str().unwrap().contains(why), "{pool}/{index} {user}: {error}");
        assert_eq!(again, false);
    }
    // A pool without tasks of its own may have its runners: they can run nothing.
    let (_, idle) = daemon.child("other", 0, "");
    assert_eq!(idle["part"]["tasks"].as_object().unwrap().len(), 1, "`clean` has the same user there");
}

#[test]
fn a_task_never_gets_the_user_of_a_pool_that_it_is_not_routed_to() {
    if crate::rig::not_root("a task and the user of another pool") {
        return;
    }
    let mut rig = Rig::new();
    let mut admin = pool("admin", 1);
    admin.user = Some("games".to_owned());
    rig.settings.pools.insert("admin".to_owned(), admin);
    rig.settings.queues.insert("admin".to_owned(), queue("admin", "admin"));
    let mut routed = task("routed");
    routed.queue = Some("admin".to_owned());
    rig.settings.tasks.insert("routed".to_owned(), routed);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("admin", 0, "games");
    let tasks: Vec<_> = runner["part"]["tasks"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(tasks, ["routed"]);
    assert_eq!(runner["uids"], json!([5, 5, 5]));
}

#[test]
fn nothing_of_a_child_is_left_when_its_end_is_told() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    for (order, code, signal) in [("exit 7", 7, 0), ("abort", 134, 6), ("exit 0", 0, 0)] {
        let (id, runner) = daemon.child("default", 0, "");
        daemon.order(id, "orphan");
        let orphan = pid(&daemon.said(id, "orphan")["orphan"]);
        assert!(lives(orphan));
        daemon.order(id, order);
        let exited = daemon.hear_packet("exited");
        assert!(!lives(orphan), "the end was told while an orphan lived");
        assert!(!lives(pid(&runner["pid"])));
        let told = &exited["packet"];
        assert_eq!(
            (&told["child"], &told["code"], &told["signal"]),
            (&json!(id), &json!(code), &json!(signal))
        );
    }
}

#[test]
fn a_stranger_that_ends_up_with_the_launcher_is_killed() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (id, runner) = daemon.child("default", 0, "");
    daemon.order(id, "escape");
    let stranger = pid(&daemon.said(id, "escaped")["escaped"]);
    // It came when a shell that was the launcher's for a moment ended; the next end is seen at the latest.
    let (other, _) = daemon.child("default", 1, "");
    daemon.order(other, "exit 0");
    wait_gone(stranger);
    assert!(lives(pid(&runner["pid"])));
}

#[test]
fn a_child_is_ended_softly_or_at_once() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (deaf, _) = daemon.child("default", 0, "");
    daemon.order(deaf, "deaf");
    daemon.said(deaf, "deaf");
    let (soft, _) = daemon.child("default", 1, "");
    for child in [deaf, soft] {
        daemon.say(&ToLauncher::End { child: ChildId(child), kill: false });
    }
    let exited = daemon.hear_packet("exited");
    assert_eq!((&exited["packet"]["child"], &exited["packet"]["signal"]), (&json!(soft), &json!(15)));
    daemon.say(&ToLauncher::End { child: ChildId(deaf), kill: true });
    let exited = daemon.hear_packet("exited");
    assert_eq!((&exited["packet"]["child"], &exited["packet"]["signal"]), (&json!(deaf), &json!(9)));
    // One that is gone, and one that never was: nothing happens.
    daemon.say(&ToLauncher::End { child: ChildId(deaf), kill: true });
    daemon.say(&ToLauncher::End { child: ChildId(999), kill: false });
    daemon.child("default", 0, "");
}

#[test]
fn no_room_for_a_child_is_an_answer() {
    let mut rig = Rig::new();
    // The limit is counted from descriptor 0; what the harness leaves open is close-on-exec.
    rig.options["open_files"] = json!(24);
    rig.settings.pools.insert("default".to_owned(), pool("default", 100));
    let mut daemon = rig.ready();
    let mut children = Vec::new();
    let refused = (0..100).find_map(|index| {
        daemon.spawn("default", index, "");
        let answer = daemon.hear("an answer", |v| {
            matches!(v["packet"]["op"].as_str(), Some("child" | "spawn_failed")).then(|| v.clone())
        });
        if answer["packet"]["op"] == "child" {
            children.push(answer["packet"]["child"].as_u64().unwrap());
            return None;
        }
        Some(answer)
    });
    let refused = refused.unwrap();
    assert_eq!(refused["packet"]["again"], true, "{refused}");
    assert!(refused["packet"]["error"].as_str().unwrap().contains("EMFILE"), "{refused}");
    // Once one is gone there is room again.
    daemon.say(&ToLauncher::End { child: ChildId(children[0]), kill: true });
    daemon.hear_packet("exited");
    daemon.child("default", 0, "");
}

#[test]
fn signals_that_mean_nothing_do_nothing() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        send_signal(rig.pid(), signal);
    }
    daemon.child("default", 0, "");
}
