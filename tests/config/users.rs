//! Who may run as whom.

use taskd::config::Env;

use super::{faults_on, laptop, load, server};

const TASK: &str = "[tasks.a]\ncommand = 'x'\n";

fn settings(text: &str, env: &Env) -> taskd::config::settings::Settings {
    load(text, env).unwrap_or_else(|r| panic!("{}", r.render(false))).settings
}

#[test]
fn the_package_users_are_the_default_where_root_starts_it() {
    let s = settings(TASK, &server());
    assert_eq!(s.taskd.user.as_deref(), Some("taskd"));
    assert_eq!(s.pools["default"].user.as_deref(), Some("taskd-run"));
    assert_eq!((s.tasks["a"].user.as_deref(), s.tasks["a"].remote), (None, true));
}

#[test]
fn without_them_everything_runs_as_who_started_it_and_that_is_said() {
    let bare = Env::made("root", 0, &[]);
    let loaded = load(TASK, &bare).unwrap();
    assert_eq!((loaded.settings.taskd.user, loaded.settings.pools["default"].user.clone()), (None, None));
    assert!(loaded.notes[0].contains("run as root"), "{:?}", loaded.notes);
    let loaded = load(TASK, &laptop()).unwrap();
    assert_eq!((loaded.settings.taskd.user, loaded.settings.pools["default"].user.clone()), (None, None));
}

#[test]
fn tasks_never_become_root_by_accident() {
    let half = Env::made("root", 0, &[("taskd", 990)]);
    let found = faults_on(TASK, &half);
    assert!(found[0].contains("would run as root: there is no user `taskd-run`"), "{found:?}");
    assert!(load("", &half).is_ok(), "without a task there is nothing to run");
    assert!(load("[tasks.a]\ncommand = 'x'\nuser = 'root'", &half).is_ok(), "asked for by name");
}

#[test]
fn a_task_of_root_is_open_to_root_only() {
    let s = settings("[tasks.a]\ncommand = 'x'\nuser = 'root'", &server());
    let a = &s.tasks["a"];
    assert_eq!(a.user.as_deref(), Some("root"));
    assert_eq!((a.allow.as_deref(), a.remote), (Some(&["root".to_owned()][..]), false));
    let s = settings("[tasks.a]\ncommand = 'x'\nuser = 'root'\nallow = ['alice']\nremote = true", &server());
    assert_eq!((s.tasks["a"].allow.as_deref(), s.tasks["a"].remote), (Some(&["alice".to_owned()][..]), true));
    // By way of its pool it is a task of root as well.
    let s = settings("[pools.default]\nuser = 'root'\n[tasks.a]\ncommand = 'x'", &server());
    assert!(!s.tasks["a"].remote && s.tasks["a"].allow.is_some());
}

#[test]
fn nobody_runs_as_the_daemon() {
    for text in [
        "[tasks.a]\ncommand = 'x'\nuser = 'taskd'",
        "[pools.default]\nuser = 'taskd'",
        "[defaults]\nuser = 'taskd'\n[tasks.a]\ncommand = 'x'",
        "[taskd]\nuser = 'shop'\n[pools.default]\nuser = 'shop'",
    ] {
        let found = faults_on(text, &server());
        assert!(found[0].contains("which is the daemon's own user"), "{text}: {found:?}");
    }
    // Two names of one uid are one user.
    let alias = Env::made("root", 0, &[("taskd", 990), ("toor", 990), ("taskd-run", 991)]);
    assert!(!faults_on("[tasks.a]\ncommand = 'x'\nuser = 'toor'", &alias).is_empty());
}

#[test]
fn an_unknown_user_is_a_fault_for_root_and_any_other_for_everybody_else() {
    for text in
        ["[taskd]\nuser = 'nope'", "[pools.default]\nuser = 'nope'", "[tasks.a]\ncommand='x'\nuser = 'nope'"]
    {
        assert!(faults_on(text, &server())[0].contains("there is no user `nope`"), "{text}");
        let found = faults_on(&text.replace("nope", "bob"), &laptop());
        assert!(found[0].contains("taskd was started as `ada` and cannot run"), "{text}: {found:?}");
        assert!(load(&text.replace("nope", "ada"), &laptop()).is_ok(), "{text}");
    }
}

#[test]
fn who_does_not_exist_opens_no_door_and_is_noted() {
    let loaded =
        load("[access]\nread = ['nobody-here', 'ada']\n[tasks.a]\ncommand='x'\nallow=['ghost']", &laptop())
            .unwrap();
    assert_eq!(
        loaded.notes,
        ["access.read: there is no user `nobody-here`", "tasks.a.allow: there is no user `ghost`"]
    );
}
