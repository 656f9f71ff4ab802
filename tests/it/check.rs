//! `taskd check`: every fault at once.

use std::process::Command;

use super::harness::node::TASKD;
use super::harness::{Node, Setup};

const BROKEN: &str = "\
[taskd]
nod = \"x\"
shutdown_grace = \"3 fortnights\"
[tasks.both]
command = \"true\"
exec = [\"true\"]
[tasks.late]
command = \"true\"
tme_limit = \"1s\"
[queues.q]
pool = \"nowhere\"
";

#[test]
fn what_only_the_unit_can_grant_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taskd.toml");
    std::fs::write(&file, "[tasks.a]\nexec = [\"/bin/true\"]\ncpu_quota = \"50%\"\n").unwrap();
    let check = || Command::new(TASKD).args(["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(check().stderr).unwrap();
    assert!(said.contains("cpu_quota") && said.contains("systemctl reload taskd"), "{said}");
    std::fs::write(&file, "[tasks.a]\nexec = [\"/bin/true\"]\nno_new_privileges = true\n").unwrap();
    let said = String::from_utf8(check().stderr).unwrap();
    assert!(!said.contains("systemctl"), "{said}");
}

#[test]
fn all_faults_come_at_once_with_their_places() {
    let node = Node::prepare(Setup::new(BROKEN));
    let file = node.config_file();
    let file = file.to_str().unwrap();
    let ran = node.taskd(&["check", file]).code(78);
    let said = format!("{}{}", ran.out, ran.err);
    for word in
        ["taskd.toml:2", "node", "3 fortnights", "exclude each other", "tme_limit", "time_limit", "nowhere"]
    {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    std::fs::write(node.config_file(), "[taskd\n").unwrap();
    let ran = node.taskd(&["check", file]).code(78);
    assert!(format!("{}{}", ran.out, ran.err).contains("taskd.toml:1"), "{ran:?}");
}

#[test]
fn an_empty_file_is_valid_and_what_is_shipped_too() {
    let node = Node::prepare(Setup::new(""));
    let file = node.config_file();
    node.taskd(&["check", file.to_str().unwrap()]).code(0);
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/config/quickstart.toml");
    node.taskd(&["check", quickstart]).code(0);
    node.taskd(&["config", "--config", "/nonexistent.toml"]).code(66).says(&["/nonexistent.toml"]);
    node.taskd(&["check", "/nonexistent.toml"]).code(66).one_clear_line().says(&["/nonexistent.toml"]);
}

#[test]
fn a_table_of_a_later_version_is_never_silent() {
    let node = Node::prepare(Setup::new("[web]\n"));
    let file = node.config_file();
    let ran = node.taskd(&["check", file.to_str().unwrap()]).code(78);
    assert!(format!("{}{}", ran.out, ran.err).contains("not available yet"), "{ran:?}");
}

#[test]
fn a_worker_or_program_that_is_not_there_is_said_and_no_fault() {
    let node = Node::prepare(Setup::new(
        "[pools.app]\nworker = [\"/nonexistent/worker\"]\n[tasks.a]\nexec = [\"/nonexistent/a\"]\n\
         [tasks.b]\nexec = [\"/bin/sh\", \"-c\", \"true\"]\n",
    ));
    let file = node.config_file();
    let ran = node.taskd(&["check", file.to_str().unwrap()]).code(0);
    assert!(!ran.err.contains("tasks.b"), "{}", ran.err);
    ran.says(&[
        "pools.app.worker: /nonexistent/worker does not exist",
        "tasks.a.exec: /nonexistent/a does not exist",
    ]);
}
