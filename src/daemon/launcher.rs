//! The daemon's way to the launcher: packets out (never waiting), packets in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::launch::{ToDaemon, ToLauncher};
use crate::process::packet::Packets;

/// Packets that the socket did not take yet; the launcher reads them as fast as it can, so more than this
/// means that it is stopped, and systemd's watchdog will say so.
const MAX_BACKLOG: usize = 4096;

/// The socket to the launcher.
pub struct Launcher {
    socket: AsyncFd<Packets>,
    backlog: VecDeque<ToLauncher>,
}

impl Launcher {
    /// Registers the socket with the runtime.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or registered.
    pub fn new(packets: Packets) -> io::Result<Self> {
        Ok(Self { socket: AsyncFd::with_interest(packets, Interest::READABLE | Interest::WRITABLE)?, backlog: VecDeque::new() })
    }

    /// Sends one packet; what the socket does not take now goes with the next round.
    pub fn send(&mut self, packet: ToLauncher) {
        if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(packet);
        }
        self.flush();
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        while let Some(packet) = self.backlog.front() {
            match self.socket.get_ref().try_send(packet, &[]) {
                Ok(true) => {
                    self.backlog.pop_front();
                }
                // Not now, or the launcher is gone: PDEATHSIG ends this process.
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Something waits to be sent.
    #[must_use]
    pub fn behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The next packet.
    ///
    /// # Errors
    /// When the launcher is gone or sent something that is not of the protocol.
    pub async fn recv(&self) -> io::Result<(ToDaemon, Vec<OwnedFd>)> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.get_inner().try_recv::<ToDaemon>() {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => guard.clear_ready(),
                Err(e) => return Err(e),
            }
        }
    }
}
