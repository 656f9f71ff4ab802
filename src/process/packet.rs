//! One JSON text a packet over a `SOCK_SEQPACKET` socket, file descriptors beside it: how the launcher and
//! the daemon talk. Works from `poll(2)` and from tokio's `AsyncFd` alike.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, getsockopt, recv,
    recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use super::launch::MAX_PACKET;

/// Most descriptors that travel with one packet.
pub const MAX_FDS: usize = 4;

/// Most that the kernel sends with one packet (SCM_MAX_FD). There is room for all of them, or those that fit
/// would stay open here for nobody.
const SENT_AT_MOST: usize = 253;

/// One end of a packet socket. Never blocks but in [`Packets::send`] and [`Packets::recv`].
#[derive(Debug)]
pub struct Packets {
    fd: OwnedFd,
}

/// What came.
#[derive(Debug)]
pub struct Packet<T> {
    /// The text, parsed.
    pub message: T,
    /// The descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl Packets {
    /// Both ends of a new socket, close-on-exec.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Takes over one end that this process was given.
    ///
    /// # Errors
    /// When it is no packet socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a SOCK_SEQPACKET socket"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd })
    }

    /// For a tokio runtime: `async_io(Interest::READABLE, |p| p.try_recv())` and the like. To be called
    /// inside of one.
    ///
    /// # Errors
    /// When there is no room in the event loop's set of descriptors.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: `fd` is owned, never replaced, and what `as_raw_fd` tells for all of this value's life.
        unsafe { Ok(AsyncFd::register(self)?) }
    }

    /// Sends one packet, or says [`ErrorKind::WouldBlock`] and sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] above [`MAX_PACKET`] bytes or [`MAX_FDS`] descriptors;
    /// [`ErrorKind::BrokenPipe`] when the other end is gone.
    pub fn try_send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MAX_PACKET || fds.len() > MAX_FDS {
            let why = format!("a packet of {} bytes and {} descriptors is too large", text.len(), fds.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { rights.get(..0) } else { rights.get(..) };
        let sent = sendmsg::<()>(
            self.fd.as_raw_fd(),
            &[IoSlice::new(&text)],
            control.unwrap_or_default(),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // A packet socket sends all or nothing; anything else would be a kernel without SOCK_SEQPACKET.
        if sent == text.len() { Ok(()) } else { Err(io::Error::new(ErrorKind::WriteZero, "packet was cut")) }
    }

    /// Takes the next packet, or says [`ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] when the other end is gone and nothing is left to read;
    /// [`ErrorKind::InvalidData`] for a packet that is too large, was cut or does not parse.
    pub fn try_recv<T: DeserializeOwned>(&self) -> io::Result<Packet<T>> {
        let length = self.next_length()?;
        if length > MAX_PACKET {
            // Taken off the socket, so that the caller may go on if it wants to.
            let mut byte = [0_u8];
            self.receive(&mut byte)?;
            let why = format!("a packet of {length} bytes, more than {MAX_PACKET}");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let mut text = vec![0_u8; length];
        let (taken, cut, fds) = self.receive(&mut text)?;
        if taken == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end is gone"));
        }
        if cut {
            return Err(io::Error::new(ErrorKind::InvalidData, "a packet was cut"));
        }
        let message = serde_json::from_slice(&text)
            .map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("a packet does not parse: {e}")))?;
        Ok(Packet { message, fds })
    }

    /// [`Packets::try_send`] that waits at most this long for room.
    ///
    /// # Errors
    /// As there; [`ErrorKind::TimedOut`].
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            match self.try_send(message, fds) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT, Some(until))?,
                done => return done,
            }
        }
    }

    /// [`Packets::try_recv`] that waits, at most this long if given.
    ///
    /// # Errors
    /// As there; [`ErrorKind::TimedOut`].
    pub fn recv<T: DeserializeOwned>(&self, patience: Option<Duration>) -> io::Result<Packet<T>> {
        let until = patience.map(|p| Instant::now() + p);
        loop {
            match self.try_recv() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN, until)?,
                done => return done,
            }
        }
    }

    fn wait(&self, what: PollFlags, until: Option<Instant>) -> io::Result<()> {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                // Rounded up, or the last millisecond would be spent spinning.
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(self.fd.as_fd(), what)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Length of the next packet. An end that died with unread packets makes the kernel report ECONNRESET
    /// once, before what it had sent; that is no reason to lose those last words.
    fn next_length(&self) -> io::Result<usize> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        for _ in 0..4 {
            match recv(self.fd.as_raw_fd(), &mut [], flags) {
                Err(Errno::ECONNRESET | Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
                Ok(length) => return Ok(length),
            }
        }
        Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end is gone"))
    }

    fn receive(&self, text: &mut [u8]) -> io::Result<(usize, bool, Vec<OwnedFd>)> {
        let mut control = nix::cmsg_space!([RawFd; SENT_AT_MOST]);
        let mut parts = [IoSliceMut::new(text)];
        let got = recvmsg::<()>(
            self.fd.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )?;
        let mut cut = got.flags.contains(MsgFlags::MSG_TRUNC);
        let mut fds = Vec::new();
        match got.cmsgs() {
            Ok(messages) => {
                for message in messages {
                    if let ControlMessageOwned::ScmRights(raw) = message {
                        // SAFETY: the kernel just made these descriptors for this process; nobody else
                        // knows their numbers.
                        fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
            }
            Err(_) => cut = true,
        }
        cut |= fds.len() > MAX_FDS;
        Ok((got.bytes, cut, fds))
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Packets {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn packets_keep_their_bounds_and_descriptors() {
        let (a, b) = Packets::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through").unwrap();
        file.rewind().unwrap();
        a.try_send(&"one", &[file.as_fd()]).unwrap();
        a.try_send(&"two", &[]).unwrap();
        let one = b.try_recv::<String>().unwrap();
        assert_eq!((one.message.as_str(), one.fds.len()), ("one", 1));
        let mut text = String::new();
        std::fs::File::from(one.fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(b.try_recv::<String>().unwrap().message, "two");
        assert_eq!(b.try_recv::<String>().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn descriptors_arrive_close_on_exec() {
        let (a, b) = Packets::pair().unwrap();
        a.try_send(&1, &[a.as_fd()]).unwrap();
        let got = b.try_recv::<u8>().unwrap().fds.pop().unwrap();
        assert_eq!(fcntl(&got, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn the_end_is_told_after_the_last_words() {
        let (a, b) = Packets::pair().unwrap();
        a.try_send(&"last words", &[]).unwrap();
        b.try_send(&"never read", &[]).unwrap();
        drop(a);
        assert_eq!(b.try_recv::<String>().unwrap().message, "last words");
        assert_eq!(b.try_recv::<String>().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn too_large_too_many_and_garbage_are_errors_that_leave_the_socket_usable() {
        let (a, b) = Packets::pair().unwrap();
        let long = "x".repeat(MAX_PACKET);
        assert_eq!(a.try_send(&long, &[]).unwrap_err().kind(), ErrorKind::InvalidInput);
        let many = [a.as_fd(); MAX_FDS + 1];
        assert_eq!(a.try_send(&1, &many).unwrap_err().kind(), ErrorKind::InvalidInput);
        let raw = |bytes: &[u8]| nix::sys::socket::send(a.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        raw(&vec![b' '; MAX_PACKET + 1]);
        assert_eq!(b.try_recv::<String>().unwrap_err().kind(), ErrorKind::InvalidData);
        raw(b"{\"op\":");
        assert_eq!(b.try_recv::<String>().unwrap_err().kind(), ErrorKind::InvalidData);
        let (reader, writer) = std::io::pipe().unwrap();
        for many in [MAX_FDS + 1, SENT_AT_MOST] {
            let fds = vec![writer.as_raw_fd(); many];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(a.as_raw_fd(), &[IoSlice::new(b"1")], &rights, MsgFlags::empty(), None).unwrap();
            assert_eq!(b.try_recv::<u8>().unwrap_err().kind(), ErrorKind::InvalidData);
        }
        drop(writer);
        let mut all = Vec::new();
        let mut reader = reader;
        assert_eq!(reader.read_to_end(&mut all).unwrap(), 0, "none of them stayed open");
        a.try_send(&"fine", &[]).unwrap();
        assert_eq!(b.try_recv::<String>().unwrap().message, "fine");
    }

    #[test]
    fn a_full_socket_would_block_and_patience_ends() {
        let (a, b) = Packets::pair().unwrap();
        let text = "x".repeat(32 << 10);
        let full = (0..1_000).find_map(|_| a.try_send(&text, &[]).err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let late = a.send(&text, &[], Duration::from_millis(5)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert_eq!(b.recv::<String>(None).unwrap().message, text);
    }

    #[test]
    fn only_packet_sockets_are_taken_over() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Packets::from_fd(a.into()).is_err());
        let (a, _b) = Packets::pair().unwrap();
        assert!(Packets::from_fd(a.fd).is_ok());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tokio_waits_for_packets() {
        let (a, b) = Packets::pair().unwrap();
        let runtime = b.into_async().unwrap();
        let wait = runtime.async_io(tokio::io::Interest::READABLE, |p| p.try_recv::<u32>());
        let (got, ()) = tokio::join!(wait, async { a.try_send(&7, &[]).unwrap() });
        assert_eq!(got.unwrap().message, 7);
    }
}
