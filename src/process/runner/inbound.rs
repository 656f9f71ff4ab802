//! Lines from the daemon, put together from whatever pieces the socket gives.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::process::protocol::{MAX_LINE, ToChild};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// What a read brought.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Complete lines that are part of the protocol, in order.
    pub lines: Vec<ToChild>,
    /// Lines that are not, for the log: the reason and the beginning.
    pub garbage: Vec<String>,
    /// Nothing comes any more.
    pub closed: bool,
}

/// The receiving side.
#[derive(Debug)]
pub struct Inbound {
    chunk: Vec<u8>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The rest of the line is thrown away: it is longer than the protocol allows.
    skipping: bool,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { chunk: vec![0; CHUNK], partial: Vec::new(), skipping: false }
    }
}

impl Inbound {
    /// Reads once, without waiting.
    pub fn read(&mut self, socket: BorrowedFd<'_>) -> Arrived {
        let mut arrived = Arrived::default();
        match recv(socket.as_raw_fd(), &mut self.chunk, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => arrived.closed = true,
            Ok(n) => {
                let chunk = std::mem::take(&mut self.chunk);
                self.take(chunk.get(..n).unwrap_or_default(), &mut arrived);
                self.chunk = chunk;
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => arrived.closed = true,
        }
        arrived
    }

    fn take(&mut self, mut bytes: &[u8], arrived: &mut Arrived) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (end, rest) = bytes.split_at(at);
            bytes = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.is_empty() {
                parse(end, arrived);
            } else {
                self.partial.extend_from_slice(end);
                // The memory of a long line is given back.
                parse(&std::mem::take(&mut self.partial), arrived);
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() >= MAX_LINE {
            self.partial = Vec::new();
            self.skipping = true;
            arrived.garbage.push(format!("a line of more than {MAX_LINE} bytes"));
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }
}

/// An empty line is what precedes each `hello`; a torn one before it is garbage like any other.
fn parse(line: &[u8], arrived: &mut Arrived) {
    if line.is_empty() {
        return;
    }
    match serde_json::from_slice(line) {
        Ok(parsed) => arrived.lines.push(parsed),
        Err(e) => {
            let start: String = String::from_utf8_lossy(line).chars().take(60).collect();
            arrived.garbage.push(format!("{e}: {start:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(inbound: &mut Inbound, bytes: &[u8]) -> (usize, usize) {
        let mut arrived = Arrived::default();
        for piece in bytes.chunks(CHUNK) {
            inbound.take(piece, &mut arrived);
        }
        (arrived.lines.len(), arrived.garbage.len())
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut inbound = Inbound::default();
        let text =
            b"torn{\n{\"op\":\"hello\",\"v\":1,\"epoch\":2}\n\n{\"op\":\"settled\",\"run\":\"r\"}\n{\"op\"";
        assert_eq!(feed(&mut inbound, text), (2, 1));
        let mut inbound = Inbound::default();
        let mut got = (0, 0);
        for byte in text {
            let (lines, garbage) = feed(&mut inbound, &[*byte]);
            got = (got.0 + lines, got.1 + garbage);
        }
        assert_eq!(got, (2, 1));
    }

    #[test]
    fn a_line_without_end_is_thrown_away_and_costs_no_memory() {
        let mut inbound = Inbound::default();
        assert_eq!(feed(&mut inbound, &vec![b'x'; 3 * MAX_LINE]), (0, 1));
        assert!(inbound.partial.capacity() == 0);
        assert_eq!(feed(&mut inbound, b"rest\n{\"op\":\"settled\",\"run\":\"r\"}\n"), (1, 0));
    }
}
