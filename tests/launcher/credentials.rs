//! Who gets which secret, where it becomes a file, and when that is gone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use taskd::model::task::Task;
use taskd::process::launch::ToLauncher;

use crate::rig::{Daemon, Rig, not_root, task, wait_gone};

const MARKER: &str = "hunter2-is-the-value";

fn with(name: &str, files: &[&str], value: Option<&str>) -> Task {
    let mut task = task(name);
    task.surroundings.credentials = files.iter().map(|n| (*n).to_owned()).collect();
    task.surroundings.environment.extend(value.map(|v| ("KEY".to_owned(), v.to_owned())));
    task
}

/// A rig to which systemd gave `smtp`, `key` and `other`, and a runtime directory in memory.
fn rig(tasks: Vec<Task>) -> (Rig, tempfile::TempDir) {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(memory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut rig = Rig::new();
    fs::create_dir(rig.file("given")).unwrap();
    for name in ["smtp", "key", "other"] {
        give(&rig, name, &format!("{MARKER}-{name}"));
    }
    let given = rig.file("given").to_str().unwrap().to_owned();
    rig.environment.insert("CREDENTIALS_DIRECTORY".to_owned(), given);
    rig.environment.insert("RUNTIME_DIRECTORY".to_owned(), memory.path().to_str().unwrap().to_owned());
    rig.settings.tasks.extend(tasks.into_iter().map(|t| (t.name.clone(), t)));
    (rig, memory)
}

fn give(rig: &Rig, name: &str, value: &str) {
    fs::write(rig.file("given").join(name), value).unwrap();
}

fn directory(child: &Value) -> PathBuf {
    PathBuf::from(child["directory"].as_str().unwrap_or_else(|| panic!("no directory in {child}")))
}

fn reload(rig: &Rig, daemon: &mut Daemon) -> Value {
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    daemon.hear_packet("settings")
}

#[test]
fn a_runner_holds_what_its_tasks_need_and_the_daemon_nothing() {
    let (mut rig, _memory) = rig(vec![with("mail", &["smtp"], Some("x${credential:key}"))]);
    let mut daemon = rig.ready();
    assert!(!format!("{} {:?}", daemon.me, daemon.settings).contains(MARKER));
    assert_eq!(daemon.me["environment"]["CREDENTIALS_DIRECTORY"], Value::Null);
    let (_, runner) = daemon.child("default", 0, "");
    let wanted = json!({ "smtp": format!("{MARKER}-smtp"), "key": format!("{MARKER}-key") });
    assert_eq!(runner["secrets"], wanted);
    assert_eq!(runner["environment"]["CREDENTIALS_DIRECTORY"], Value::Null);
    assert_eq!(runner["dumpable"], false);
    assert!(!runner["part"].to_string().contains(MARKER));
    let found = fs::metadata(directory(&runner)).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, nix::unistd::geteuid().as_raw()));
    // Closed to others, so its files in /proc are root's.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", rig.pid())).unwrap().uid(), 0);
}

#[test]
fn a_runner_whose_tasks_need_none_gets_none() {
    let (mut rig, _memory) = rig(vec![]);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    assert_eq!((&runner["secrets"], &runner["directory"]), (&json!({}), &Value::Null));
    assert_eq!(runner["dumpable"], true);
}

#[test]
fn each_user_has_its_own_and_cannot_read_that_of_another() {
    if not_root("each_user_has_its_own_and_cannot_read_that_of_another") {
        return;
    }
    let mut mail = with("mail", &["smtp"], None);
    mail.user = Some("games".to_owned());
    let mut shop = with("shop", &["key"], None);
    shop.user = Some("www-data".to_owned());
    let (mut rig, _memory) = rig(vec![mail, shop]);
    let mut daemon = rig.ready();
    let (_, games) = daemon.child("default", 0, "games");
    let (_, web) = daemon.child("default", 1, "www-data");
    assert_eq!(games["secrets"], json!({ "smtp": format!("{MARKER}-smtp") }));
    assert_eq!(web["secrets"], json!({ "key": format!("{MARKER}-key") }));
    for (one, other, uid) in [(&games, &web, 5), (&web, &games, 33)] {
        assert_eq!((&one["uids"][0], &one["dumpable"]), (&json!(uid), &json!(false)));
        assert_eq!(fs::metadata(directory(one)).unwrap().uid(), uid);
        let look = |path: PathBuf| {
            use std::os::unix::process::CommandExt;
            std::process::Command::new("ls").arg(path).uid(uid).gid(uid).output().unwrap().status.success()
        };
        assert!(look(directory(one)) && !look(directory(other)));
        assert!(!look(directory(one).parent().unwrap().to_owned()), "nobody sees who else is there");
    }
}

#[test]
fn directories_go_with_their_children_and_at_the_end() {
    let (mut rig, _memory) = rig(vec![with("mail", &["smtp"], None)]);
    let mut daemon = rig.ready();
    let (first, runner) = daemon.child("default", 0, "");
    let (_, second) = daemon.child("default", 1, "");
    fs::create_dir(directory(&runner).join("attempt")).unwrap();
    fs::write(directory(&runner).join("attempt/smtp"), MARKER).unwrap();
    daemon.say(&ToLauncher::End { child: taskd::process::launch::ChildId(first), kill: true });
    daemon.hear_packet("exited");
    assert!(!directory(&runner).exists() && directory(&second).exists());
    rig.signal(Signal::SIGTERM);
    daemon.hear_packet("stop");
    daemon.say(&ToLauncher::Finished);
    assert!(rig.ended().success());
    assert!(!directory(&second).parent().unwrap().exists());
}

#[test]
fn what_a_killed_launcher_left_is_gone_before_the_next_daemon() {
    let (mut rig, _memory) = rig(vec![with("mail", &["smtp"], None)]);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    fs::write(directory(&runner).join("smtp"), MARKER).unwrap();
    rig.signal(Signal::SIGKILL);
    rig.ended();
    wait_gone(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap());
    assert!(directory(&runner).exists());
    // Also where nothing needs one any more.
    rig.settings.tasks.remove("mail");
    rig.started();
    assert!(!directory(&runner).parent().unwrap().exists());
}

#[test]
fn a_new_value_is_a_change_and_reaches_the_next_children() {
    let (mut rig, _memory) = rig(vec![with("mail", &["smtp"], None)]);
    let mut daemon = rig.ready();
    let (_, old) = daemon.child("default", 0, "");
    let told = reload(&rig, &mut daemon);
    assert_eq!((&told["packet"]["generation"], &told["packet"]["changes"]), (&json!(1), &json!([])));
    give(&rig, "other", "of no interest");
    assert_eq!(reload(&rig, &mut daemon)["packet"]["generation"], 1);
    give(&rig, "smtp", "new");
    let told = reload(&rig, &mut daemon);
    assert_eq!(told["packet"]["changes"], json!(["credential smtp changed"]));
    assert_eq!((&told["packet"]["generation"], &told["settings"]["generation"]), (&json!(2), &json!(2)));
    let (_, new) = daemon.child("default", 1, "");
    assert_eq!(
        (&old["secrets"]["smtp"], &new["secrets"]["smtp"]),
        (&json!(format!("{MARKER}-smtp")), &json!("new"))
    );
    assert!(directory(&old).exists(), "what runs is not touched");
}

#[test]
fn what_cannot_be_had_refuses_a_reload_and_a_start() {
    let (mut rig, _memory) = rig(vec![]);
    let mut daemon = rig.ready();
    rig.settings.tasks.insert("mail".to_owned(), with("mail", &["gone"], None));
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let refused = daemon.hear_packet("settings_refused");
    assert!(refused["packet"]["report"].as_str().unwrap().contains("no credential `gone`"), "{refused}");
    rig.settings.tasks.insert("mail".to_owned(), with("mail", &["smtp"], None));
    assert_eq!(reload(&rig, &mut daemon)["packet"]["generation"], 2);
    let (_, runner) = daemon.child("default", 0, "");
    assert!(directory(&runner).exists(), "the first that needs one");
    rig.signal(Signal::SIGKILL);
    rig.ended();
    wait_gone(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap());
    fs::remove_file(rig.file("given/smtp")).unwrap();
    rig.launch();
    assert_eq!(rig.ended().code(), Some(78));
    rig.logged("there is no credential `smtp`", 1);
    rig.environment.insert("CREDENTIALS_DIRECTORY".to_owned(), String::new());
    rig.launch();
    assert_eq!(rig.ended().code(), Some(78));
    rig.logged("it is empty", 1);
    give(&rig, "smtp", "x");
    rig.environment
        .insert("CREDENTIALS_DIRECTORY".to_owned(), rig.file("given").to_str().unwrap().to_owned());
    rig.started();
    assert!(!directory(&runner).exists(), "what the killed one left is gone");
    assert!(!rig.log().contains(MARKER));
}
