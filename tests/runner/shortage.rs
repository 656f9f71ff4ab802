//! When the kernel has nothing to give: the run waits a little, then goes back, and work goes on once there
//! is something again.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};
use taskd::process::protocol::{FromChild, ToChild};

use crate::driver::{Driver, exec, part};

/// Sets a limit of a running process, as the user it runs as (root may lack CAP_SYS_RESOURCE).
fn limit(pid: u32, what: &str) {
    let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap();
    let mut command = Command::new("prlimit");
    if owner.uid() != nix::unistd::getuid().as_raw() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let status = command.arg(format!("--pid={pid}")).arg(what).status().unwrap();
    assert!(status.success());
}

fn refused_then_runs(mut driver: Driver, short: &str, enough: &str, why_part: &str) {
    driver.hello(1);
    assert!(driver.run("t", &[], Value::Null).success);
    limit(driver.pid(), short);
    let run = driver.order("t", &[], Value::Null);
    // It goes back uncounted, and its pool is given time to breathe.
    let (of, outcome) = driver.next().into_outcome().unwrap();
    let failure = outcome.failure.unwrap();
    assert_eq!((&of, failure.kind.as_str()), (&run, taskd::model::outcome::SPAWN_AGAIN));
    driver.send(&ToChild::Settled { run });
    assert!(failure.message.contains(why_part), "{failure:?} does not say {why_part:?}");
    // Enough comes back while the run waits: it is started as if nothing had been.
    let run = driver.order("t", &[], Value::Null);
    assert_eq!(driver.hello(2), [FromChild::Running { run: run.clone() }]);
    limit(driver.pid(), enough);
    let (outcome, _) = driver.outcome(&run);
    assert!(outcome.success, "{outcome:?}");
    // And a run that waits can be canceled.
    limit(driver.pid(), short);
    let run = driver.order("t", &[], Value::Null);
    driver.cancel(&run, taskd::model::outcome::CancelReason::Revoked);
    let (outcome, _) = driver.outcome(&run);
    assert_eq!(outcome.cause, taskd::model::outcome::Cause::Revoked);
    limit(driver.pid(), enough);
    assert_eq!(driver.run("t", &[], json!({})).result, Some(json!("")));
}

#[test]
fn without_descriptors() {
    let driver = Driver::start(&part(vec![exec(&["/bin/true"])]), |c| c.spawn().unwrap());
    refused_then_runs(driver, "--nofile=6:1024", "--nofile=1024:1024", "no pipe: Too many open files");
}

#[test]
fn without_processes() {
    let why = "the limit of processes";
    if !nix::unistd::getuid().is_root() {
        let driver = Driver::start(&part(vec![exec(&["/bin/true"])]), |c| c.spawn().unwrap());
        refused_then_runs(driver, "--nproc=1:", "--nproc=4096:", why);
        return;
    }
    // The limit does not hold for root: run it as nobody, from a place nobody can reach.
    let dir = tempfile::tempdir().unwrap();
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let binary = dir.path().join("runner");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let driver = Driver::start_binary(&part(vec![exec(&["/bin/true"])]), &binary, |c| {
        c.uid(65_534).gid(65_534).spawn().unwrap()
    });
    refused_then_runs(driver, "--nproc=1:", "--nproc=4096:", why);
}
