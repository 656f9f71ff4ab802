//! What a program finds around it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;
use taskd::model::params::{Param, ParamType};
use taskd::model::task::Task;

use crate::driver::{Driver, command, exec, once, result};

/// The environment of a task, read by a program that changes none of it.
fn environment(task: Task) -> BTreeMap<String, String> {
    let text = result(task, &[]);
    let lines = text.as_str().unwrap().lines();
    lines.map(|l| l.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

#[test]
fn the_environment_is_exactly_what_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    fs::write(&file, "FROM_FILE='a b'\nOVER=file\nTASKD_ID=forged\n").unwrap();
    let mut task = exec(&["env"]);
    task.surroundings.pass_environment = vec!["PASSED_ON".into(), "UNSET_ANYWAY".into()];
    task.surroundings.environment_file = Some(file.display().to_string());
    task.surroundings.environment =
        BTreeMap::from([("OVER".into(), "task".into()), ("OWN".into(), "1".into())]);
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
    let mut want: BTreeMap<String, String> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", user.dir.to_str().unwrap()),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", user.shell.to_str().unwrap()),
        ("TASKD_ID", "0198abcd-1"),
        ("TASKD_TASK", "t"),
        ("TASKD_QUEUE", "mail"),
        ("TASKD_ATTEMPT", "3"),
        ("TASKD_NODE", "web1"),
        ("TASKD_INSTANCE", "inst-1"),
        ("PASSED_ON", "yes"),
        ("FROM_FILE", "a b"),
        ("OVER", "task"),
        ("OWN", "1"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    if let Ok(lang) = std::env::var("LANG") {
        want.insert("LANG".into(), lang);
    }
    assert_eq!(environment(task), want);
}

#[test]
fn parameters_of_a_command_are_variables() {
    let param = Param {
        name: "user_id".into(),
        kind: ParamType::Int,
        default: None,
        one_of: vec![],
        min: None,
        max: None,
        max_length: None,
    };
    let task = Task { params: vec![param], ..command("echo \"$user_id $1\"") };
    assert_eq!(once(task, &[], json!({"user_id": "7"})).result, Some(json!("7 7")));
}

#[test]
fn it_gets_its_directory_mask_nice_value_and_limits() {
    let mut task = command("pwd; umask; nice; ulimit -n; ulimit -Hn");
    task.surroundings.working_directory = Some("/usr".into());
    task.surroundings.umask = Some(0o027);
    task.surroundings.nice = Some(7);
    task.surroundings.limit_nofile = Some(99);
    assert_eq!(result(task, &[]), "/usr\n0027\n7\n99\n99");
    assert_eq!(result(command("pwd; umask"), &[]), "/\n0022");
}

#[test]
fn it_leads_its_own_session_and_group() {
    // Of /proc/PID/stat: state, ppid, pgrp, session, behind the name.
    let stat = result(exec(&["cat", "/proc/self/stat"]), &[]);
    let numbers: Vec<&str> = stat.as_str().unwrap().split_ascii_whitespace().collect();
    assert_eq!((numbers[0], numbers[0]), (numbers[4], numbers[5]));
}

#[test]
fn no_signal_is_blocked_or_ignored_and_no_descriptor_is_inherited() {
    let mut driver = Driver::new(vec![command("cat /proc/self/status; ls /proc/$$/fd")]);
    let outcome = driver.run("t", &[], json!({}));
    let text = outcome.result.unwrap();
    let mut lines = text.as_str().unwrap().lines();
    for name in ["SigBlk:", "SigIgn:"] {
        let line = lines.find(|l| l.starts_with(name)).unwrap();
        assert_eq!(line.split_once('\t').unwrap().1, "0000000000000000", "{name}");
    }
    let fds: Vec<&str> = lines.skip_while(|l| *l != "0").collect();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn a_writer_to_a_closed_pipe_dies_of_it() {
    // Rust programs ignore SIGPIPE; inherited, every pipeline would end with complaints instead.
    let mut driver = Driver::new(vec![command("{ yes; echo \"status $?\" >&2; } | head -n 1")]);
    let run = driver.order("t", &[], json!({}));
    let (_, printed) = driver.outcome(&run);
    assert!(printed.iter().any(|(_, line)| line == "status 141"), "{printed:?}");
}
