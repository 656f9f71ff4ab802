//! Lines that tasks print, sent to the journal in its native protocol
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL) over a socket that never blocks: what does not fit is dropped and
//! counted.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Names another socket, for tests.
pub const SOCKET_VARIABLE: &str = "TASKD_JOURNAL_SOCKET";

/// One line of output.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The line, any bytes.
    pub message: &'a [u8],
    /// 0 (emerg) to 7 (debug), as syslog(3).
    pub priority: u8,
    /// The message's id; empty for a line of taskd itself, which gets no field of a message.
    pub id: &'a str,
    /// The task.
    pub task: &'a str,
    /// The queue.
    pub queue: &'a str,
    /// The attempt, from 1.
    pub attempt: u32,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The attempt's main process.
    pub pid: u32,
    /// The pool and the place (`pool/index`) of a resident worker, with a line of no one message; else empty.
    pub place: (&'a str, &'a str),
    /// The line goes on in the next entry (`TASKD_CUT=1`).
    pub cut: bool,
    /// Lines that were lost, where this one says that (`TASKD_DROPPED`); else 0.
    pub lost: u64,
}

/// A sender that outlives restarts of journald: it connects at no time.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// The datagram being built; kept, so that a line costs no allocation.
    buffer: Vec<u8>,
}

impl Journal {
    /// A sender to `path`; absent: [`SOCKET_VARIABLE`], else [`SOCKET`].
    ///
    /// # Errors
    /// No socket could be made. That nobody listens is no error: it may start later.
    pub fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let path = path
            .or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(SOCKET));
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, buffer: Vec::with_capacity(1024) })
    }

    /// Sends one entry. False: it was dropped (journald is full, away, or refuses it).
    pub fn send(&mut self, entry: &Entry<'_>) -> bool {
        self.buffer.clear();
        encode(&mut self.buffer, entry);
        match self.socket.send_to(&self.buffer, &self.path) {
            Ok(_) => true,
            Err(e) if e.raw_os_error() == Some(nix::libc::EMSGSIZE) => self.send_memfd().is_ok(),
            Err(_) => false,
        }
    }

    /// The way for what no datagram holds: a sealed file instead of the bytes.
    fn send_memfd(&self) -> io::Result<()> {
        let fd = memfd_create("taskd-journal", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(&self.buffer)?;
        let seals =
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let to = UnixAddr::new(&self.path)?;
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&[])],
            &[ControlMessage::ScmRights(&[file.as_raw_fd()])],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&to),
        )?;
        Ok(())
    }
}

fn encode(out: &mut Vec<u8>, entry: &Entry<'_>) {
    field(out, "MESSAGE", entry.message);
    field(out, "PRIORITY", &[b'0' + entry.priority.min(7)]);
    field(out, "SYSLOG_IDENTIFIER", b"taskd");
    // A line of taskd itself belongs to no message.
    if !entry.id.is_empty() {
        field(out, "TASKD_ID", entry.id.as_bytes());
        field(out, "TASKD_TASK", entry.task.as_bytes());
        field(out, "TASKD_QUEUE", entry.queue.as_bytes());
        // Writing to a vector cannot fail.
        let _ = writeln!(out, "TASKD_ATTEMPT={}", entry.attempt);
        field(out, "TASKD_STREAM", entry.stream.as_bytes());
    }
    if let (pool @ &[_, ..], slot) = (entry.place.0.as_bytes(), entry.place.1) {
        field(out, "TASKD_POOL", pool);
        field(out, "TASKD_SLOT", slot.as_bytes());
        field(out, "TASKD_STREAM", entry.stream.as_bytes());
    }
    let _ = writeln!(out, "TASKD_PID={}", entry.pid);
    if entry.cut {
        out.extend_from_slice(b"TASKD_CUT=1\n");
    }
    if entry.lost > 0 {
        let _ = writeln!(out, "TASKD_DROPPED={}", entry.lost);
    }
}

/// `NAME=value`, or the form with a length where the value has a newline: a value must not be able to
/// begin another field.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read, Seek};

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    fn entry(message: &[u8]) -> Entry<'_> {
        Entry {
            message,
            priority: 6,
            id: "0198",
            task: "clean_logs",
            queue: "default",
            attempt: 2,
            stream: "stdout",
            pid: 42,
            place: ("", ""),
            cut: false,
            lost: 0,
        }
    }

    fn pair() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let server = UnixDatagram::bind(&path).unwrap();
        (dir, server, Journal::open(Some(path)).unwrap())
    }

    #[test]
    fn a_line_carries_the_fields_people_search_by() {
        let (_dir, server, mut journal) = pair();
        assert!(journal.send(&entry(b"hello")));
        let mut buffer = [0; 1024];
        let n = server.recv(&mut buffer).unwrap();
        assert_eq!(
            std::str::from_utf8(&buffer[..n]).unwrap(),
            "MESSAGE=hello\nPRIORITY=6\nSYSLOG_IDENTIFIER=taskd\nTASKD_ID=0198\nTASKD_TASK=clean_logs\n\
             TASKD_QUEUE=default\nTASKD_ATTEMPT=2\nTASKD_STREAM=stdout\nTASKD_PID=42\n"
        );
    }

    #[test]
    fn a_line_of_no_message_carries_its_place() {
        let mut out = Vec::new();
        encode(&mut out, &Entry { id: "", place: ("django", "django/1"), ..entry(b"hello") });
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "MESSAGE=hello\nPRIORITY=6\nSYSLOG_IDENTIFIER=taskd\nTASKD_POOL=django\nTASKD_SLOT=django/1\n\
             TASKD_STREAM=stdout\nTASKD_PID=42\n"
        );
    }

    #[test]
    fn no_value_can_begin_a_field() {
        let (_dir, server, mut journal) = pair();
        assert!(journal.send(&Entry { cut: true, ..entry(b"a\nPRIORITY=0") }));
        let mut buffer = [0; 1024];
        let n = server.recv(&mut buffer).unwrap();
        assert!(buffer[..n].starts_with(b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nPRIORITY=6\n"));
        assert!(buffer[..n].ends_with(b"TASKD_CUT=1\n"));
    }

    #[test]
    fn a_full_or_missing_journal_is_a_drop_and_never_a_wait() {
        let (dir, server, mut journal) = pair();
        let sent = (0..100_000).take_while(|_| journal.send(&entry(b"x"))).count();
        assert!(sent < 100_000, "nobody reads, yet all was taken");
        drop(server);
        assert!(!journal.send(&entry(b"x")));
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        assert!(!journal.send(&entry(b"x")));
        // It comes back without being told.
        let server = UnixDatagram::bind(dir.path().join("journal")).unwrap();
        assert!(journal.send(&entry(b"x")));
        assert!(server.recv(&mut [0; 64]).unwrap() > 0);
    }

    #[test]
    fn what_no_datagram_holds_goes_as_a_sealed_file() {
        let (_dir, server, mut journal) = pair();
        let big = vec![b'y'; 4 << 20];
        assert!(journal.send(&entry(&big)));
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut byte = [0; 1];
        let mut iov = [IoSliceMut::new(&mut byte)];
        let got = recvmsg::<()>(server.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::empty()).unwrap();
        let fd = got
            .cmsgs()
            .unwrap()
            .find_map(|c| match c {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            })
            .unwrap();
        let path = format!("/proc/self/fd/{fd}");
        let mut file = std::fs::File::open(path).unwrap();
        file.rewind().unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        assert!(text.starts_with(b"MESSAGE=yyyy") && text.len() > 4 << 20);
    }
}
