//! The bytes of a connection, over TCP, a unix socket or TLS, with a time by which each read and write must be done.
//! The socket never blocks; whoever may wait does so in poll(2).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use rustls::{ClientConnection, StreamOwned};

/// How long the kernel waits before it asks a silent peer, in seconds, and between asking again.
const KEEPALIVE: (u32, u32) = (15, 5);

/// After so many milliseconds without an acknowledgement of what was sent the kernel gives a connection up.
const UNACKNOWLEDGED_MS: u32 = 20_000;

/// A connected socket with patience.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    /// Until when to wait; absent: not at all.
    pub(super) until: Option<Instant>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to one of a host's addresses before `until`. Looking the name up is the system's matter and takes as
    /// long as resolv.conf(5) says.
    pub(super) fn tcp(host: &str, port: u16, until: Instant) -> io::Result<Self> {
        let all: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let mut failed = io::Error::new(ErrorKind::NotFound, "the host has no address");
        for (n, address) in all.iter().enumerate() {
            // The last one may have all of the time, one before it its share.
            let left = u32::try_from(all.len() - n).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(Instant::now()) / left;
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(stream) => return Self::of_tcp(stream, until),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn of_tcp(stream: TcpStream, until: Instant) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        socket::setsockopt(&stream, sockopt::KeepAlive, &true)?;
        socket::setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE.0)?;
        socket::setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE.1)?;
        socket::setsockopt(&stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
        Ok(Self { kind: Kind::Tcp(stream), until: Some(until) })
    }

    /// Connects to a socket in the file system. It does not wait for a server that accepts nothing.
    pub(super) fn unix(path: &Path, until: Instant) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
        Ok(Self { kind: Kind::Unix(fd.into()), until: Some(until) })
    }

    /// Waits until it can be read or written, or says that it may not wait.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let Some(until) = self.until else { return Err(ErrorKind::WouldBlock.into()) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            // One more, since a fraction of a millisecond would make it a loop that waits for nothing.
            let ms = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), what)], PollTimeout::from(ms)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.kind {
                Kind::Tcp(stream) => stream.read(buffer),
                Kind::Unix(stream) => stream.read(buffer),
            };
            match read {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match &mut self.kind {
                Kind::Tcp(stream) => stream.write(bytes),
                Kind::Unix(stream) => stream.write(bytes),
            };
            match written {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket, or TLS on one.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Wire {
    /// TLS on a connected socket: the handshake is done before its time.
    pub(super) fn tls(mut session: ClientConnection, mut socket: Socket) -> io::Result<Self> {
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// Until when reads and writes wait; absent: not at all.
    pub(super) fn patience(&mut self, until: Option<Instant>) {
        match self {
            Self::Plain(socket) => socket.until = until,
            Self::Tls(stream) => stream.sock.until = until,
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
