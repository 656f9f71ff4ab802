//! A systemd-journald of our own: in a private mount namespace with its own `/run` and `/var/log`, so that
//! the machine's journal neither sees nor disturbs it.

#![allow(dead_code, reason = "the bench needs less of it than the test")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::harness::{PATIENCE, Ran, procs, until};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Mounts what journald must have for itself, then becomes it.
const SCRIPT: &str = "mount -t tmpfs -o mode=755 none /run && mount -t tmpfs none /var/log && \
    mkdir -p /run/systemd/journal && exec /lib/systemd/systemd-journald";

/// A running journald.
pub struct Journald {
    child: Child,
    /// Its mount namespace, which outlives it.
    namespace: File,
}

impl Journald {
    /// Starts one and waits for its sockets.
    ///
    /// # Errors
    /// Why there cannot be one here: a sentence.
    pub fn start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("a journald of our own needs root".into());
        }
        for needed in [JOURNALD, "/etc/machine-id"] {
            if !Path::new(needed).exists() {
                return Err(format!("there is no {needed}"));
            }
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("unshare: {e}"))?;
        let pid = child.id();
        let sockets = ["socket", "stdout"].map(|s| format!("/proc/{pid}/root/run/systemd/journal/{s}"));
        let up = until("journald's sockets", || {
            if child.try_wait().ok()?.is_some() {
                return Some(false);
            }
            sockets.iter().all(|s| Path::new(s).exists()).then_some(true)
        });
        if up {
            let namespace = File::open(format!("/proc/{pid}/ns/mnt")).map_err(|e| e.to_string())?;
            return Ok(Self { child, namespace });
        }
        let mut why = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut why).ok();
        Err(format!("no private mount namespace or no journald in it: {}", why.trim()))
    }

    /// Words that run a program in its namespace.
    pub fn inside(&self) -> Vec<String> {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
        vec!["nsenter".into(), format!("--mount={namespace}")]
    }

    /// Ends it as a crash would: its sockets lie there, and nobody listens.
    pub fn kill(&mut self) {
        procs::kill9(self.child.id().cast_signed());
        self.child.wait().unwrap();
    }

    /// Starts another one in its place, with sockets of its own.
    pub fn start_again(&mut self) {
        let inside = self.inside();
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).arg(JOURNALD);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = command.spawn().unwrap();
    }

    /// Words that run a program with its output connected to this journal, as systemd does for a unit.
    pub fn connected(&self) -> Vec<String> {
        let mut words = self.inside();
        // systemd names the stream to its units; its own systemd-cat does not.
        let name = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
        let through = ["systemd-cat", "--identifier=unit", "sh", "-c", name, "sh"];
        words.extend(through.map(str::to_owned));
        words
    }

    /// The entries that match, oldest first.
    #[track_caller]
    pub fn entries(&self, matches: &[&str]) -> Vec<Value> {
        let inside = self.inside();
        let run = |args: &[&str]| {
            let mut command = Command::new(&inside[0]);
            command.args(&inside[1..]).arg("journalctl").args(args);
            Ran::of(&mut command, PATIENCE)
        };
        // One that was started a moment ago takes lines before it takes this.
        until("journald to be in step", || (run(&["--sync"]).code == 0).then_some(()));
        let mut args =
            vec!["--directory=/run/log/journal", "--output=json", "--all", "--no-pager", "--quiet"];
        args.extend(matches);
        let text = run(&args).out;
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Waits for an entry that matches.
    #[track_caller]
    pub fn entry(&self, matches: &[&str]) -> Value {
        until(&format!("a journal entry {matches:?}"), || self.entries(matches).pop())
    }

    /// Stops it from reading (SIGSTOP), or lets it go on.
    pub fn stall(&self, stalled: bool) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        kill(pid, if stalled { Signal::SIGSTOP } else { Signal::SIGCONT }).unwrap();
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        procs::kill9(self.child.id().cast_signed());
        self.child.wait().ok();
    }
}
