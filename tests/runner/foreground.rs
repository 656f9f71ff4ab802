//! `run_once`, the way of `taskd exec`.

use std::fs;
use std::process::{Child, Stdio};

use taskd::model::outcome::{Cause, Outcome};
use taskd::model::task::Task;

use crate::driver::{command, lives, message, number, process, within};

fn start(task: &Task) -> (tempfile::TempDir, Child) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("once.json"), serde_json::to_vec(&(task, message(task))).unwrap()).unwrap();
    let mut command = process(dir.path(), &std::env::current_exe().unwrap());
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    (dir, child)
}

fn finish(dir: &tempfile::TempDir, child: Child) -> (Outcome, String) {
    let output = child.wait_with_output().unwrap();
    let outcome = fs::read(dir.path().join("outcome.json")).unwrap();
    (serde_json::from_slice(&outcome).unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn it_prints_to_our_streams_and_tells_the_outcome() {
    let (dir, child) = start(&command("echo \"hello $TASKD_TASK\"; exit 3"));
    let (outcome, stdout) = finish(&dir, child);
    assert!(stdout.contains("hello t\n"), "{stdout}");
    assert_eq!((outcome.cause, outcome.result), (Cause::Exit { code: 3 }, None));
}

#[test]
fn limits_hold_and_leftovers_die() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let text = format!("setsid sh -c 'echo $$ >{}; exec sleep 600' & sleep 600", file.display());
    let (at, child) = start(&Task { time_limit_ms: Some(500), ..command(&text) });
    let (outcome, _) = finish(&at, child);
    assert_eq!(outcome.cause, Cause::TimeLimit { soft: false });
    assert!(!lives(number(&file)));
}

#[test]
fn an_interrupt_cancels_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (at, child) = start(&command(&format!("echo $$ >{}; exec sleep 600", file.display())));
    let pid = number(&file);
    let parent = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGINT).unwrap();
    let (outcome, _) = finish(&at, child);
    assert_eq!(outcome.cause, Cause::Revoked);
    within(|| (!lives(pid)).then_some(()));
}

/// A task with a descendant in a session of its own, which writes its number to `file`.
fn escaping(file: &std::path::Path) -> Task {
    command(&format!("setsid sh -c 'echo $$ >{}; exec sleep 600' & sleep 600", file.display()))
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn nothing_survives_the_one_that_was_called() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (_at, mut child) = start(&escaping(&file));
    let pid = number(&file);
    child.kill().unwrap();
    child.wait().unwrap();
    within(|| (!lives(pid)).then_some(()));
}

#[test]
fn nothing_survives_the_one_that_looks_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (at, child) = start(&escaping(&file));
    let pid = number(&file);
    let task = format!("/proc/{}/task", child.id());
    let children: String = fs::read_dir(task)
        .unwrap()
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap())
        .collect();
    kill(children.trim().parse().unwrap());
    let (outcome, _) = finish(&at, child);
    assert_eq!(outcome.cause, Cause::WorkerLost);
    assert!(!lives(pid));
}
