//! A resident worker that does nothing, as fast as it can: every run is a success without a result. For the
//! benches and the soak test, and a picture of the child protocol in one page.
//!
//! `NOOP_CAPACITY` is how many runs it takes at once (default 1). Where `NOOP_STAMPS` names a datagram socket, it is told
//! the time of each start, nanoseconds of the monotonic clock.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Where taskd puts the socket (`TASKD_FD`).
const SOCKET: i32 = 3;

fn main() -> nix::Result<()> {
    let capacity = std::env::var("NOOP_CAPACITY").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(1);
    let stamps = std::env::var_os("NOOP_STAMPS").map(|path| {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).map(|()| socket)
    });
    let stamps = stamps.transpose().map_err(|e| e.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))?;
    let mut worker = Noop { capacity, stamps, unsettled: BTreeSet::new(), answers: Vec::new() };
    let (mut chunk, mut rest) = (vec![0; 64 << 10], Vec::new());
    loop {
        let n = recv(SOCKET, &mut chunk, MsgFlags::empty())?;
        if n == 0 {
            return Ok(());
        }
        rest.extend_from_slice(chunk.get(..n).unwrap_or_default());
        let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in rest.drain(..whole).collect::<Vec<_>>().split(|b| *b == b'\n') {
            // A line that is none, such as a torn one, is not for us.
            if let Ok(said) = serde_json::from_slice::<Value>(line) {
                worker.hear(&said);
            }
        }
        // One write for all that was asked at once.
        let mut answers = worker.answers.as_slice();
        while !answers.is_empty() {
            let n = send(SOCKET, answers, MsgFlags::MSG_NOSIGNAL)?;
            answers = answers.get(n..).unwrap_or_default();
        }
        worker.answers.clear();
    }
}

struct Noop {
    capacity: u32,
    stamps: Option<UnixDatagram>,
    /// What the store does not have yet is said again to a new daemon.
    unsettled: BTreeSet<String>,
    answers: Vec<u8>,
}

impl Noop {
    fn hear(&mut self, said: &Value) {
        let run = said.get("run").and_then(Value::as_str).unwrap_or_default();
        match said.get("op").and_then(Value::as_str) {
            Some("hello") => {
                // The newline ends a line that the death of a daemon may have torn.
                self.answers.push(b'\n');
                self.say(&json!({"op": "ready", "v": 1, "capacity": self.capacity, "resume": true}));
                for run in self.unsettled.clone() {
                    self.say(&json!({"op": "success", "run": run}));
                }
                self.say(&json!({"op": "resumed"}));
            }
            Some("run") => {
                self.stamp();
                self.say(&json!({"op": "success", "run": run}));
                self.unsettled.insert(run.to_owned());
            }
            Some("settled") => drop(self.unsettled.remove(run)),
            _ => {}
        }
    }

    /// Says that a run begins now.
    fn stamp(&self) {
        if let Some(socket) = &self.stamps
            && let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC)
        {
            let nanoseconds = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
            // Whoever listened may be gone; the run is not worse for it.
            socket.send(nanoseconds.to_string().as_bytes()).ok();
        }
    }

    fn say(&mut self, line: &Value) {
        self.answers.extend_from_slice(line.to_string().as_bytes());
        self.answers.push(b'\n');
    }
}
