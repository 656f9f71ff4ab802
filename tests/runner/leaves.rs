//! Control groups as the runner asks for them: the test plays the launcher, with files for groups.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket};
use serde_json::Value;
use taskd::model::outcome::{CancelReason, Cause, SPAWN_AGAIN};
use taskd::model::task::{Limits, Task};
use taskd::process::launch::{LeafUsage, RunnerAsk, RunnerTold};
use taskd::process::packet::Packets;
use taskd::process::protocol::ToChild;

use crate::driver::{Driver, PATIENCE, command, exec, lives, part};

/// The launcher's end.
struct Launcher {
    packets: Packets,
    procs: PathBuf,
}

fn start(tasks: Vec<Task>) -> (Driver, Launcher) {
    let dir = tempfile::tempdir().unwrap();
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&dir.path().join("launcher")).unwrap()).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let procs = dir.path().join("cgroup.procs");
    let part = taskd::process::launch::RunnerPart { leaves: true, ..part(tasks) };
    let binary = std::env::current_exe().unwrap();
    let mut driver = Driver::start_in(dir, &part, &binary, |c| c.spawn().unwrap());
    // SAFETY is the kernel's: a descriptor that it just made for us.
    let accepted = accept(listener.as_raw_fd()).unwrap();
    let packets = Packets::from_fd(own(accepted)).unwrap();
    driver.hello(1);
    (driver, Launcher { packets, procs })
}

#[allow(unsafe_code, reason = "accept(2) gives a bare number")]
fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Launcher {
    fn asked(&self) -> RunnerAsk {
        self.packets.recv::<RunnerAsk>(Some(PATIENCE)).unwrap().message
    }

    fn make(&self) {
        let procs = fs::File::create(&self.procs).unwrap();
        self.packets.try_send(&RunnerTold::Leaf, &[procs.as_fd()]).unwrap();
    }

    fn done(&self, usage: LeafUsage) {
        self.packets.try_send(&RunnerTold::Done(usage), &[]).unwrap();
    }
}

fn leaf(memory_retries: u32) -> RunnerAsk {
    RunnerAsk::Leaf { task: "t".into(), memory_retries }
}

#[test]
fn an_attempt_runs_in_its_leaf_and_tells_what_was_used_there() {
    let (mut driver, launcher) = start(vec![exec(&["/bin/true"])]);
    for round in 0..3 {
        let run = driver.order_with("t", &[], Value::Null, |run| run.memory_retries = round);
        assert_eq!(launcher.asked(), leaf(round));
        launcher.make();
        assert_eq!(launcher.asked(), RunnerAsk::Done);
        // The program moved itself, before it was the program.
        assert_eq!(fs::read(&launcher.procs).unwrap(), b"0");
        let used = LeafUsage {
            user_us: 7_000,
            memory_peak: Some(123),
            tasks_peak: Some(5),
            written_bytes: 9,
            killed: 2,
            ..LeafUsage::default()
        };
        launcher.done(used);
        let (outcome, _) = driver.outcome(&run);
        assert!(outcome.success, "{outcome:?}");
        let usage = outcome.usage;
        assert_eq!((usage.user_us, usage.system_us, usage.memory_peak), (7_000, 0, Some(123)));
        assert_eq!((usage.tasks_peak, usage.written_bytes, usage.killed_leftovers), (Some(5), 9, 2));
    }
}

#[test]
fn the_kernel_s_own_count_says_that_memory_was_the_cause() {
    let limits = Limits { memory_max: Some(64 << 20), ..Limits::default() };
    let (mut driver, launcher) = start(vec![Task { limits, ..command("kill -9 $$") }]);
    for out_of_memory in [true, false] {
        let run = driver.order("t", &[], Value::Null);
        assert_eq!(launcher.asked(), leaf(0));
        launcher.make();
        assert_eq!(launcher.asked(), RunnerAsk::Done);
        launcher.done(LeafUsage { out_of_memory, ..LeafUsage::default() });
        let cause = driver.outcome(&run).0.cause;
        let signal = Cause::Signal { signal: 9, core: false };
        assert_eq!(cause, if out_of_memory { Cause::Memory } else { signal });
    }
}

#[test]
fn a_leaf_that_is_refused_is_the_end_of_the_attempt() {
    let (mut driver, launcher) = start(vec![exec(&["/bin/true"])]);
    let run = driver.order("t", &[], Value::Null);
    launcher.asked();
    launcher.packets.try_send(&RunnerTold::Refused { error: "no room for groups".into() }, &[]).unwrap();
    let (outcome, _) = driver.outcome(&run);
    assert_eq!(outcome.cause, Cause::SpawnFailed);
    assert_eq!(outcome.failure.unwrap().message, "no room for groups");
}

#[test]
fn a_launcher_that_does_not_answer_gives_the_run_back() {
    let (mut driver, launcher) = start(vec![exec(&["/bin/true"])]);
    let run = driver.order("t", &[], Value::Null);
    launcher.asked();
    let (outcome, _) = driver.outcome(&run);
    assert_eq!((outcome.cause, outcome.failure.unwrap().kind), (Cause::SpawnFailed, SPAWN_AGAIN.into()));
    // The late answer is not taken for the next one's.
    assert_eq!(launcher.asked(), RunnerAsk::Done);
    launcher.packets.try_send(&RunnerTold::Refused { error: "late".into() }, &[]).unwrap();
    launcher.done(LeafUsage::default());
    let run = driver.order("t", &[], Value::Null);
    assert_eq!(launcher.asked(), leaf(0));
    launcher.make();
    assert_eq!(launcher.asked(), RunnerAsk::Done);
    launcher.done(LeafUsage::default());
    assert!(driver.outcome(&run).0.success);
}

#[test]
fn one_that_is_canceled_before_it_began_never_starts() {
    let (mut driver, launcher) = start(vec![exec(&["/bin/true"])]);
    let run = driver.order("t", &[], Value::Null);
    launcher.asked();
    driver.cancel(&run, CancelReason::Revoked);
    assert_eq!(driver.outcome(&run).0.cause, Cause::Revoked);
    launcher.make();
    assert_eq!(launcher.asked(), RunnerAsk::Done);
    launcher.done(LeafUsage::default());
    let next = driver.order("t", &[], Value::Null);
    assert_eq!(launcher.asked(), leaf(0));
    assert!(fs::read(&launcher.procs).unwrap().is_empty(), "it was started in a leaf that is no more");
    launcher.make();
    assert_eq!(launcher.asked(), RunnerAsk::Done);
    launcher.done(LeafUsage::default());
    assert!(driver.outcome(&next).0.success);
}

#[test]
fn a_launcher_that_does_not_count_costs_only_the_figures() {
    let (mut driver, launcher) = start(vec![command("sleep 600 & echo $!")]);
    let run = driver.order("t", &[], Value::Null);
    launcher.asked();
    launcher.make();
    assert_eq!(launcher.asked(), RunnerAsk::Done);
    let (outcome, _) = driver.outcome(&run);
    assert!(outcome.success && outcome.usage.memory_peak.is_none(), "{outcome:?}");
    assert!(!lives(outcome.result.unwrap().as_str().unwrap().parse().unwrap()));
    // What runs goes on being heard while the launcher is silent.
    driver.send(&ToChild::Settled { run });
}
