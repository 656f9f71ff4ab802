//! Time limits and cancels.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskd::model::outcome::{CancelReason, Cause};
use taskd::model::task::Task;

use crate::driver::{Driver, command, exec, lives, number, once};

#[test]
fn a_soft_limit_asks_and_is_the_cause_even_of_exit_0() {
    let polite = command("trap 'echo cleaned; exit 0' TERM; sleep 600 & wait");
    let outcome = once(Task { soft_time_limit_ms: Some(100), ..polite }, &[], json!({}));
    assert_eq!((outcome.cause, outcome.success), (Cause::TimeLimit { soft: true }, false));
    let hup = command("trap 'exit 0' HUP; trap '' TERM; sleep 600 & wait");
    let task = Task { soft_time_limit_ms: Some(100), soft_signal: 1, ..hup };
    assert_eq!(once(task, &[], json!({})).cause, Cause::TimeLimit { soft: true });
}

#[test]
fn a_hard_limit_kills_what_ignores_the_soft_one() {
    let stubborn = command("trap '' TERM; while :; do sleep 600; done");
    let task = Task { soft_time_limit_ms: Some(50), time_limit_ms: Some(200), ..stubborn };
    let outcome = once(task, &[], json!({}));
    assert_eq!(outcome.cause, Cause::TimeLimit { soft: false });
    assert!((100..5000).contains(&outcome.usage.wall_ms), "{:?}", outcome.usage);
}

#[test]
fn an_order_tightens_a_limit_and_never_loosens_it() {
    let mut driver = Driver::new(vec![Task { time_limit_ms: Some(200), ..exec(&["/bin/sleep", "600"]) }]);
    for ms in [50, 600_000] {
        let run = driver.order_with("t", &[], Value::Null, |r| r.deadline_ms = Some(ms));
        let (outcome, _) = driver.outcome(&run);
        assert_eq!(outcome.cause, Cause::TimeLimit { soft: false });
        // A limit counts from the receipt of the order, the run time from the start.
        assert!((ms.min(200) / 2..5000).contains(&outcome.usage.wall_ms), "{ms}: {:?}", outcome.usage);
    }
}

#[test]
fn a_cancel_ends_a_run_for_its_reason() {
    let mut driver = Driver::new(vec![exec(&["/bin/sleep", "600"])]);
    for (reason, cause) in [
        (CancelReason::Revoked, Cause::Revoked),
        (CancelReason::Interrupted, Cause::Interrupted),
        (CancelReason::TimeLimit, Cause::TimeLimit { soft: false }),
    ] {
        let run = driver.order("t", &[], Value::Null);
        driver.started(&run);
        driver.cancel("another run", reason);
        driver.cancel(&run, reason);
        assert_eq!(driver.outcome(&run).0.cause, cause);
    }
    // A person's word is stronger than a shutdown's, not the other way round.
    for reasons in [
        [CancelReason::Revoked, CancelReason::Interrupted],
        [CancelReason::Interrupted, CancelReason::Revoked],
    ] {
        let run = driver.order("t", &[], Value::Null);
        driver.started(&run);
        driver.send_together(&run, reasons);
        assert_eq!(driver.outcome(&run).0.cause, Cause::Revoked);
    }
}

impl Driver {
    /// Two cancels in one write, so that no answer comes between.
    fn send_together(&mut self, run: &str, reasons: [CancelReason; 2]) {
        let mut bytes = Vec::new();
        for reason in reasons {
            let line = taskd::process::protocol::ToChild::Cancel { run: run.into(), reason };
            serde_json::to_writer(&mut bytes, &line).unwrap();
            bytes.push(b'\n');
        }
        self.raw(&bytes);
    }
}

#[test]
fn a_stopped_program_can_be_canceled() {
    let mut driver = Driver::new(vec![command("echo $$; kill -STOP $$; sleep 600")]);
    let run = driver.order("t", &[], Value::Null);
    let pid = driver.started(&run);
    crate::driver::within(|| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.starts_with(" T").then_some(())
    });
    let at = Instant::now();
    driver.cancel(&run, CancelReason::Revoked);
    assert_eq!(driver.outcome(&run).0.cause, Cause::Revoked);
    assert!(at.elapsed() < Duration::from_secs(4), "SIGTERM was not seen before the kill");
}

#[test]
fn a_cancel_kills_after_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let text = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >{f}; sleep 600' & while :; do sleep 1; done",
        f = file.display()
    );
    let mut driver = Driver::new(vec![command(&text)]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    let child = number(&file);
    let at = Instant::now();
    driver.cancel(&run, CancelReason::Interrupted);
    let (outcome, _) = driver.outcome(&run);
    assert_eq!(outcome.cause, Cause::Interrupted);
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
    assert!(!lives(child));
}

#[test]
fn what_ended_by_itself_keeps_its_outcome() {
    let mut driver = Driver::new(vec![exec(&["/bin/true"])]);
    for _ in 0..50 {
        let run = driver.order("t", &[], Value::Null);
        let pid = driver.started(&run);
        // Wait until it has ended, then cancel: it may be known or not, the result stands.
        crate::driver::within(|| (!lives(pid)).then_some(()));
        driver.cancel(&run, CancelReason::Revoked);
        assert_eq!(driver.outcome(&run).0.cause, Cause::Exit { code: 0 });
    }
}
