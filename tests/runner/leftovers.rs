//! Nothing survives its attempt.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskd::model::outcome::{CancelReason, Cause};

use crate::driver::{Driver, command, lives, number, within};

/// A shell text that leaves three processes behind: in its group, double-forked into a session of its own,
/// and one that also ignores SIGTERM and has a child. Each writes its number to a file.
fn leaving(dir: &Path) -> String {
    let f = |n: u32| dir.join(n.to_string()).display().to_string();
    format!(
        "sh -c 'echo $$ >{a}; exec sleep 600' & \
         setsid sh -c 'sh -c \"echo \\$\\$ >{b}; exec sleep 600\" & exit 0'; \
         setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >{c}; sh -c \"echo \\$\\$ >{d}; sleep 600\"; sleep 600' & \
         while ! [ -s {a} -a -s {b} -a -s {c} -a -s {d} ]; do sleep 0.01; done",
        a = f(1),
        b = f(2),
        c = f(3),
        d = f(4)
    )
}

fn pids(dir: &Path) -> Vec<u32> {
    (1..=4).map(|n| number(&dir.join(n.to_string()))).collect()
}

#[test]
fn descendants_die_with_an_attempt_that_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new(vec![command(&format!("{}; echo done", leaving(dir.path())))]);
    let outcome = driver.run("t", &[], json!({}));
    assert_eq!((outcome.success, outcome.result), (true, Some(json!("done"))));
    // Before the outcome was told, not some time after it.
    for pid in pids(dir.path()) {
        assert!(!lives(pid), "{pid} survived");
    }
    assert!(outcome.usage.killed_leftovers >= 4, "{:?}", outcome.usage);
}

#[test]
fn descendants_die_with_an_attempt_that_is_ended() {
    for kill_main in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut driver =
            Driver::new(vec![command(&format!("{}; echo ready; sleep 600", leaving(dir.path())))]);
        let run = driver.order("t", &[], Value::Null);
        let main = driver.started(&run);
        driver.printed("ready");
        if kill_main {
            let pid = nix::unistd::Pid::from_raw(main.cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        } else {
            driver.cancel(&run, CancelReason::Revoked);
        }
        let (outcome, _) = driver.outcome(&run);
        let cause = if kill_main { Cause::Signal { signal: 9, core: false } } else { Cause::Revoked };
        assert_eq!(outcome.cause, cause);
        for pid in pids(dir.path()) {
            assert!(!lives(pid), "{pid} survived");
        }
    }
}

#[test]
fn a_process_that_forks_all_the_time_is_caught() {
    let text = "setsid sh -c 'trap \"\" TERM; while :; do (sleep 0.001 & exit 0) & wait; done' & sleep 0.1";
    let mut driver = Driver::new(vec![command(text)]);
    let outcome = driver.run("t", &[], json!({}));
    assert!(outcome.success, "{outcome:?}");
    let pid = driver.pid();
    let children = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
    assert_eq!(children.collect::<String>(), "", "something is still below the runner");
}

#[test]
fn orphans_are_reaped_while_the_attempt_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orphan");
    let text = format!("(setsid sh -c 'echo $$ >{f}' & exit 0); echo ready; sleep 600", f = file.display());
    let mut driver = Driver::new(vec![command(&text)]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    let orphan = number(&file);
    within(|| (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));
    driver.printed("ready");
    driver.cancel(&run, CancelReason::Revoked);
    driver.outcome(&run);
}

#[test]
fn a_task_dies_with_its_runner() {
    let mut driver = Driver::new(vec![command("exec sleep 600")]);
    let run = driver.order("t", &[], Value::Null);
    let pid = driver.started(&run);
    driver.process.kill().unwrap();
    within(|| (!lives(pid)).then_some(()));
}

#[test]
fn a_pipe_held_outside_the_attempt_delays_its_end_by_a_second_at_most() {
    // A process that is no descendant of ours gets the pipe: it opens the task's stdout by its path.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let text = format!("echo $$ >{f}; echo said; while [ -s {f} ]; do sleep 0.01; done", f = file.display());
    let mut driver = Driver::new(vec![command(&text)]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    let held = fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", number(&file))).unwrap();
    fs::write(&file, "").unwrap();
    let at = Instant::now();
    let (outcome, printed) = driver.outcome(&run);
    let took = at.elapsed();
    drop(held);
    assert_eq!(outcome.result, Some(json!("said")));
    assert_eq!(printed.len(), 1);
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    // And the next ones are as quick as ever: one at least, on a machine that has other things to do.
    let quick = (0..10).any(|_| {
        let at = Instant::now();
        let run = driver.order("t", &[], Value::Null);
        driver.started(&run);
        number(&file);
        fs::write(&file, "").unwrap();
        driver.outcome(&run);
        at.elapsed() < Duration::from_millis(900)
    });
    assert!(quick);
}
