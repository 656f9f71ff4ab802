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
