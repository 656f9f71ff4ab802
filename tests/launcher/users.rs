//! Who runs as whom.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::json;

use crate::rig::{Rig, not_root, task};

#[test]
fn root_hands_everything_over_for_good() {
    if not_root("dropping privileges") {
        return;
    }
    let mut rig = Rig::new();
    // Both exist on every Debian: uid 65534 and uid 5.
    rig.settings.taskd.user = Some("nobody".to_owned());
    let mut games = task("games");
    games.user = Some("games".to_owned());
    rig.settings.tasks.insert("games".to_owned(), games);
    rig.settings.pools.get_mut("default").unwrap().user = Some("www-data".to_owned());
    let mut daemon = rig.ready();
    assert_eq!(daemon.me["uids"], json!([65_534, 65_534, 65_534]));
    assert_eq!(daemon.me["gids"], json!([65_534, 65_534, 65_534]));
    assert_eq!(daemon.me["groups"], json!([65_534]));
    assert_eq!(daemon.me["can_be_root"], false);
    assert_eq!((&daemon.me["dumpable"], &daemon.me["death_signal"]), (&json!(false), &json!(9)));
    assert!(daemon.start.users.contains("nobody") && daemon.start.users.contains("www-data"));
    assert_eq!(daemon.start.owner, 0);
    assert_eq!(std::fs::metadata(rig.file("state")).unwrap().uid(), 65_534);
    for (index, user, uid, tasks) in [(0, "games", 5, ["games"]), (1, "www-data", 33, ["clean"])] {
        let (_, runner) = daemon.child("default", index, user);
        assert_eq!(runner["uids"], json!([uid, uid, uid]), "{user}");
        assert_eq!(runner["groups"].as_array().unwrap()[0], runner["gids"][0]);
        assert!(!runner["groups"].as_array().unwrap().contains(&json!(0)), "root's groups are gone");
        assert_eq!(runner["can_be_root"], false);
        assert_eq!(runner["death_signal"], 9, "set after the change, which clears it");
        assert_eq!(runner["no_new_privileges"], false);
        let names: Vec<_> = runner["part"]["tasks"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, tasks);
    }
    daemon.spawn("default", 0, "root");
    assert_eq!(daemon.hear_packet("spawn_failed")["packet"]["again"], false);
    daemon.spawn("default", 0, "");
    assert_eq!(daemon.hear_packet("spawn_failed")["packet"]["again"], false, "that would be root");
}

#[test]
fn a_runner_has_the_groups_that_are_declared_and_no_others() {
    if not_root("groups") {
        return;
    }
    let mut rig = Rig::new();
    let pool = rig.settings.pools.get_mut("default").unwrap();
    pool.user = Some("games".to_owned());
    pool.supplementary_groups = vec!["tty".to_owned()];
    let mut own = task("own");
    own.group = Some("www-data".to_owned());
    own.supplementary_groups = vec!["adm".to_owned(), "tty".to_owned()];
    rig.settings.tasks.insert("own".to_owned(), own);
    let mut daemon = rig.ready();
    // On every Debian: games is 5 with the group 60, tty 5, adm 4, www-data 33.
    for (index, key, gid, groups, task) in [
        (0, "games:+tty", 60, vec![5, 60], "clean"),
        (1, "games:www-data+adm+tty", 33, vec![4, 5, 33], "own"),
    ] {
        let (_, runner) = daemon.child("default", index, key);
        assert_eq!(runner["uids"], json!([5, 5, 5]), "{key}");
        assert_eq!(runner["gids"], json!([gid, gid, gid]), "{key}");
        let mut has: Vec<u64> =
            runner["groups"].as_array().unwrap().iter().map(|g| g.as_u64().unwrap()).collect();
        has.sort_unstable();
        assert_eq!(has, groups, "{key}");
        assert_eq!(runner["can_be_root"], false);
        let tasks: Vec<_> = runner["part"]["tasks"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(tasks, [task]);
    }
    for key in ["games", "games:adm", "games:root", "games:www-data+adm+tty+root"] {
        daemon.spawn("default", 0, key);
        assert_eq!(daemon.hear_packet("spawn_failed")["packet"]["again"], false, "{key}");
    }
}

#[test]
fn what_only_root_sets_up_is_set_up_for_that_task_alone() {
    if not_root("negative nice, the realtime class, more open files than the hard limit") {
        return;
    }
    let mut rig = Rig::new();
    rig.settings.pools.get_mut("default").unwrap().user = Some("games".to_owned());
    let mut hasty = task("hasty");
    hasty.surroundings.nice = Some(-3);
    hasty.surroundings.io_class = Some(taskd::model::task::IoClass::Realtime);
    let raises = has_capability(24);
    if raises {
        hasty.surroundings.limit_nofile = Some(2_048);
    }
    rig.settings.tasks.insert("hasty".to_owned(), hasty);
    rig.options["open_files"] = json!(1_024);
    let mut daemon = rig.ready();
    assert_eq!(daemon.settings.hard_nofile, Some(1_024));
    let (_, alone) = daemon.child("default", 0, "games#hasty");
    assert_eq!((&alone["nice"], &alone["io_class"]), (&json!(-3), &json!(1)));
    let most = if raises { 2_048 } else { 1_024 };
    assert_eq!((&alone["open_files"], &alone["most_open_files"]), (&json!(1_024), &json!(most)));
    assert_eq!((&alone["uids"], &alone["can_be_root"]), (&json!([5, 5, 5]), &json!(false)));
    let tasks: Vec<_> = alone["part"]["tasks"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(tasks, ["hasty"]);
    let (_, usual) = daemon.child("default", 1, "games");
    assert_eq!((&usual["nice"], &usual["io_class"]), (&json!(0), &json!(0)));
    assert_eq!(usual["most_open_files"], 1_024);
    assert!(usual["part"]["tasks"]["hasty"].is_null());
}

/// Root of a container may lack some (24: CAP_SYS_RESOURCE).
fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & (1 << bit) != 0
}

#[test]
fn a_group_that_does_not_exist_is_a_fault_at_start_and_at_reload() {
    if not_root("groups that do not exist") {
        return;
    }
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    rig.settings.tasks.get_mut("clean").unwrap().supplementary_groups = vec!["no-such-group".to_owned()];
    rig.write_settings();
    daemon.say(&taskd::process::launch::ToLauncher::Reload { keep: Vec::new() });
    let report = daemon.hear_packet("settings_refused")["packet"]["report"].clone();
    assert!(report.as_str().unwrap().contains("[tasks.clean]: the group \"no-such-group\""), "{report}");
    let mut rig = Rig::new();
    rig.settings.pools.get_mut("default").unwrap().group = Some("no-such-group".to_owned());
    let said = refused(&rig);
    assert!(said.contains("[pools.default]") && said.contains("no-such-group"), "{said}");
}

fn refused(rig: &Rig) -> String {
    let out = rig.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(78));
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn tasks_never_share_the_daemons_user() {
    if not_root("a task with the daemon's user") {
        return;
    }
    let mut rig = Rig::new();
    rig.settings.taskd.user = Some("nobody".to_owned());
    rig.settings.tasks.get_mut("clean").unwrap().user = Some("nobody".to_owned());
    let said = refused(&rig);
    assert!(said.contains("[tasks.clean]") && said.contains("daemon's own user"), "{said}");
}

#[test]
fn every_user_that_does_not_exist_is_named_at_once() {
    if not_root("users that do not exist") {
        return;
    }
    let mut rig = Rig::new();
    rig.settings.taskd.user = Some("no-such-daemon".to_owned());
    rig.settings.tasks.get_mut("clean").unwrap().user = Some("no-such-runner".to_owned());
    let said = refused(&rig);
    assert!(said.contains("no-such-daemon") && said.contains("no-such-runner"), "{said}");
}

#[test]
fn without_root_everything_runs_as_who_started_it() {
    use std::os::unix::process::CommandExt;
    if not_root("playing an ordinary user") {
        return;
    }
    let mut rig = Rig::new();
    // All files of the rig are for nobody then; naming oneself is the same as naming none.
    std::os::unix::fs::chown(rig.dir.path(), Some(65_534), Some(65_534)).unwrap();
    rig.settings.pools.get_mut("default").unwrap().user = Some("nobody".to_owned());
    rig.launcher = Some(rig.command().uid(65_534).gid(65_534).spawn().unwrap());
    let mut daemon = rig.daemon();
    assert!(daemon.start.users.contains("everything runs as nobody"), "{}", daemon.start.users);
    assert_eq!((daemon.start.owner, daemon.me["uids"][0].as_u64()), (65_534, Some(65_534)));
    let (_, runner) = daemon.child("default", 0, "");
    assert_eq!(runner["uids"][1], 65_534);
    drop(rig);

    let mut rig = Rig::new();
    rig.settings.tasks.get_mut("clean").unwrap().user = Some("games".to_owned());
    let out = rig.command().uid(65_534).gid(65_534).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(78));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("only root can run things as games") && said.contains("nobody"), "{said}");
}
