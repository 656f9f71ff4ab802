//! Where control groups are in force: the launcher makes a leaf for each attempt, and says at its end what
//! was used in it. Asked and answered over a packet socket, in order, without ever waiting.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::process::launch::{LeafUsage, RunnerAsk, RunnerTold};
use crate::process::packet::Packets;

/// The launcher answers within a millisecond or so; after this long an attempt goes on without its answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What was answered.
#[derive(Debug)]
pub enum Told {
    /// The leaf's `cgroup.procs`.
    Leaf(OwnedFd),
    /// Why there is none.
    Refused(String),
    /// It is gone.
    Done(LeafUsage),
}

/// The runner's end of the socket.
#[derive(Debug)]
pub struct Leaves {
    packets: Packets,
    asked: u64,
    answered: u64,
    broken: bool,
}

impl Leaves {
    /// Takes the socket over; nothing was asked yet.
    #[must_use]
    pub fn new(packets: Packets) -> Self {
        Self { packets, asked: 0, answered: 0, broken: false }
    }

    /// Asks, and returns the number that the answer will have.
    ///
    /// # Errors
    /// The launcher is gone, or has not read for long.
    pub fn ask(&mut self, ask: &RunnerAsk) -> io::Result<u64> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.packets.try_send(ask, &[])?;
        self.asked += 1;
        Ok(self.asked)
    }

    /// What to watch for an answer, while one is owed.
    #[must_use]
    pub fn awaited(&self) -> Option<BorrowedFd<'_>> {
        (!self.broken && self.answered < self.asked).then(|| self.packets.as_fd())
    }

    /// The next answer and its number. One that nobody waits for any more is told too.
    pub fn hear(&mut self) -> Option<(u64, Told)> {
        if self.broken {
            return None;
        }
        let told = match self.packets.try_recv::<RunnerTold>() {
            Ok(mut packet) => match (packet.message, packet.fds.pop()) {
                (RunnerTold::Leaf, Some(procs)) => Told::Leaf(procs),
                (RunnerTold::Leaf, None) => {
                    Told::Refused("its control group came without a descriptor".to_owned())
                }
                (RunnerTold::Refused { error }, _) => Told::Refused(error),
                (RunnerTold::Done(usage), _) => Told::Done(usage),
            },
            Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
            // An answer that cannot be read is still one; without a launcher there will be none.
            Err(e) => {
                self.broken = e.kind() != ErrorKind::InvalidData;
                Told::Refused(format!("asking the launcher for a control group: {e}"))
            }
        };
        self.answered += 1;
        Some((self.answered, told))
    }
}
