//! Daemons come and go; what runs goes on and no outcome is lost.

use serde_json::{Value, json};
use taskd::model::outcome::{CancelReason, Cause};
use taskd::process::protocol::{FromChild, ToChild};

use crate::driver::{Driver, command, exec, part, within};

#[test]
fn a_new_daemon_is_told_what_runs() {
    let mut driver = Driver::new(vec![exec(&["/bin/sleep", "600"])]);
    assert!(driver.hello(2).is_empty());
    let run = driver.order("t", &[], Value::Null);
    let pid = driver.started(&run);
    let held = [FromChild::Running { run: run.clone() }, FromChild::started(run.clone(), pid)];
    assert_eq!(driver.hello(3), held);
    driver.cancel(&run, CancelReason::Interrupted);
    assert_eq!(driver.outcome(&run).0.cause, Cause::Interrupted);
    assert!(driver.hello(4).is_empty(), "a settled outcome is told again");
}

#[test]
fn an_outcome_is_told_until_it_is_settled() {
    let mut driver = Driver::new(vec![command("echo $1")]);
    let mut runs = Vec::new();
    for i in 0..3 {
        let run = driver.order("t", &[json!(i)], Value::Null);
        while driver.next().into_outcome().is_none() {}
        runs.push(run);
    }
    for epoch in 2..5 {
        let held: Vec<_> = driver.hello(epoch).into_iter().map(|l| l.into_outcome().unwrap()).collect();
        for (i, ((run, outcome), want)) in held.iter().zip(&runs).enumerate() {
            assert_eq!((run, &outcome.result), (want, &Some(json!(i.to_string()))));
        }
        assert_eq!(held.len(), 3);
    }
    driver.send(&ToChild::Settled { run: runs.remove(1) });
    let held: Vec<_> = driver.hello(5).into_iter().map(|l| l.into_outcome().unwrap().0).collect();
    assert_eq!(held, runs);
}

#[test]
fn an_outcome_that_comes_while_no_daemon_lives_is_kept() {
    let mut driver = Driver::new(vec![command("sleep 0.1; echo done")]);
    // The old daemon ordered it and died: nobody reads until the new one greets.
    let run = driver.order("t", &[], Value::Null);
    within(|| {
        let titles = std::fs::read_to_string(driver.dir.path().join("titles")).unwrap();
        (titles.lines().count() == 3).then_some(())
    });
    let held = driver.hello(2);
    let outcomes: Vec<_> = held.into_iter().filter_map(FromChild::into_outcome).collect();
    assert_eq!(outcomes.len(), 1);
    assert_eq!((&outcomes[0].0, &outcomes[0].1.result), (&run, &Some(json!("done"))));
}

#[test]
fn a_torn_line_and_garbage_harm_nothing() {
    let mut driver = Driver::start(&part(vec![command("echo fine")]), |c| c.spawn().unwrap());
    driver.raw(b"{\"op\":\"run\",\"run\":\"torn");
    assert!(driver.hello(2).is_empty());
    driver.raw(b"\n\n\xff\xfe garbage\n{\"op\":\"unknown\"}\n[1]\n{\"op\":\"settled\"}\n");
    assert_eq!(driver.run("t", &[], Value::Null).result, Some(json!("fine")));
}

#[test]
fn a_new_daemon_can_throw_away_everything_up_to_the_first_newline() {
    use std::io::{BufRead, BufReader};
    let mut driver = Driver::new(vec![command("echo x")]);
    driver.raw(b"\n{\"op\":\"hello\",\"v\":1,\"epoch\":2}\n");
    let mut lines = BufReader::new(driver.socket.try_clone().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "\n");
    line.clear();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"op\":\"ready\""), "{line}");
}

#[test]
fn end_of_file_means_finish_and_exit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("done");
    let text = format!("sleep 0.3; echo yes >{}", file.display());
    let mut driver = Driver::new(vec![command(&text)]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    driver.socket.shutdown(std::net::Shutdown::Write).unwrap();
    driver.exit();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "yes\n");
}

#[test]
fn an_idle_runner_exits_at_end_of_file() {
    let mut driver = Driver::new(vec![exec(&["/bin/true"])]);
    driver.socket.shutdown(std::net::Shutdown::Both).unwrap();
    driver.exit();
}

#[test]
fn sigterm_means_finish_settle_and_exit() {
    let mut driver = Driver::new(vec![command("sleep 0.3; echo done")]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    let pid = nix::unistd::Pid::from_raw(driver.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let (outcome, _) = driver.outcome(&run);
    assert_eq!(outcome.result, Some(json!("done")));
    driver.exit();
    assert!(driver.try_next().is_none());
}

#[test]
fn an_idle_runner_sleeps() {
    let mut driver = Driver::new(vec![exec(&["/bin/true"])]);
    driver.run("t", &[], Value::Null);
    let switches = |driver: &Driver| {
        let mut total = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", driver.pid())).unwrap().flatten() {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
            let line = status.lines().find(|l| l.starts_with("voluntary_ctxt")).unwrap();
            total += line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
        total
    };
    // It answers a hello, so everything before it is done.
    driver.hello(2);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let before = switches(&driver);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(switches(&driver), before, "it woke up although nothing happened");
}
