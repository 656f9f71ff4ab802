//! Lines to the daemon. Written as far as the socket takes them, never waited for: what matters goes before
//! output, and output beyond a bound is dropped.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::process::protocol::{FromChild, MAX_LINE};

/// Most bytes of output that wait for the socket, as lines of the protocol.
const MAX_OUTPUT: usize = 512 << 10;

/// Lines of output are put together up to this size for one write: what matters waits behind no more.
const BATCH: usize = 8 << 10;

/// The sending side.
#[derive(Debug, Default)]
pub struct Outbound {
    /// What is being written: it must be ended before anything else.
    current: Vec<u8>,
    written: usize,
    urgent: VecDeque<Vec<u8>>,
    output: VecDeque<Vec<u8>>,
    output_bytes: usize,
}

/// A line of the protocol, newline included.
#[must_use]
pub fn encode(line: &FromChild) -> Vec<u8> {
    // Strings, numbers and maps with string keys only: serialization has no way to fail.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

impl Outbound {
    /// Queues a line that goes before any output.
    pub fn urgent(&mut self, line: Vec<u8>) {
        debug_assert!(line.len() <= MAX_LINE);
        self.urgent.push_back(line);
    }

    /// Queues a line of output. False: there is no room, it was dropped.
    pub fn output(&mut self, line: Vec<u8>) -> bool {
        if self.output_bytes + line.len() > MAX_OUTPUT {
            return false;
        }
        self.output_bytes += line.len();
        self.output.push_back(line);
        true
    }

    /// A new daemon: what is queued beside output will be said again.
    pub fn restart(&mut self) {
        self.urgent.clear();
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.current.is_empty() || !self.urgent.is_empty() || !self.output.is_empty()
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The socket is broken: nobody will ever read.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        loop {
            if self.written >= self.current.len() && !self.next() {
                return Ok(());
            }
            let rest = self.current.get(self.written..).unwrap_or_default();
            match send(socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => self.written += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Loads the next lines to write; false where there are none.
    fn next(&mut self) -> bool {
        self.written = 0;
        self.current.clear();
        if self.current.capacity() > MAX_OUTPUT {
            self.current = Vec::new();
        }
        while let Some(line) = self.urgent.pop_front() {
            self.current.extend_from_slice(&line);
        }
        while self.current.len() < BATCH
            && let Some(line) = self.output.pop_front()
        {
            self.output_bytes -= line.len();
            self.current.extend_from_slice(&line);
        }
        !self.current.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_matters_overtakes_output_and_no_line_is_torn() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut out = Outbound::default();
        let line = |c: u8| {
            let mut line = vec![c; 40_000];
            line.push(b'\n');
            line
        };
        let taken =
            (0..1000).take_while(|_| out.output(line(b'o')) && out.flush(ours.as_fd()).is_ok()).count();
        assert!(taken < 1000 && out.output_bytes <= MAX_OUTPUT, "nobody reads, yet all was taken");
        out.urgent(b"urgent\n".to_vec());
        let mut got = Vec::new();
        while out.waits() {
            out.flush(ours.as_fd()).unwrap();
            let mut buffer = vec![0; 1 << 16];
            let n = theirs.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        drop(ours);
        theirs.read_to_end(&mut got).unwrap();
        let lines: Vec<&[u8]> = got.split(|b| *b == b'\n').collect();
        assert_eq!(lines.len(), taken + 2);
        assert!(lines.iter().all(|l| l.is_empty() || l == b"urgent" || l.len() == 40_000));
        let at = lines.iter().position(|l| l == b"urgent").unwrap();
        assert!(at < taken - 5, "the urgent line came as number {at} of {taken}");
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut out = Outbound::default();
        out.urgent(b"x\n".to_vec());
        assert_eq!(out.flush(ours.as_fd()), Err(Errno::EPIPE));
    }
}
