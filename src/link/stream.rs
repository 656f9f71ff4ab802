//! A connected unix socket in the event loop, registered for what is waited for and nothing else.
//!
//! tokio's own stream asks the kernel for both directions, so each message that the other end takes off the
//! socket wakes this process ("there is room") although nobody waits for room. Here reading is registered
//! from the start, and room only after a write found none.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// In the event loop for this alone.
///
/// # Errors
/// The event queue has no room for it.
#[allow(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor; std's do not"
)]
pub fn registered<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

/// The socket.
#[derive(Debug)]
pub struct Stream {
    io: AsyncFd<UnixStream>,
    /// A second descriptor of it, while a write waits for room.
    room: Option<AsyncFd<OwnedFd>>,
}

impl Stream {
    /// Registers a connected socket with the runtime that this is called in.
    ///
    /// # Errors
    /// It cannot be made non-blocking, or the event queue has no room for it.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { io: registered(socket, Interest::READABLE)?, room: None })
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        self.io.get_ref()
    }

    /// Reads what there is, or wakes the task once there is something; zero at the end of the stream.
    pub fn poll_take(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            match self.io.get_ref().read(buffer) {
                Ok(n) => {
                    // A buffer that was not filled shows that the socket is empty (epoll(7), "edge-triggered").
                    if n > 0 && n < buffer.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where it takes nothing; the kernel's otherwise.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.io.get_ref().write(bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Writes some of it, or wakes the task once there is room.
    pub fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |socket| (&*socket).write(bytes))
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = match &self.room {
                Some(room) => Some(ready!(room.poll_write_ready(cx))?),
                None => None,
            };
            match write(self.io.get_ref()) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => match &mut guard {
                    Some(guard) => guard.clear_ready(),
                    None => {
                        let second = self.io.get_ref().as_fd().try_clone_to_owned()?;
                        self.room = Some(registered(second, Interest::WRITABLE)?);
                    }
                },
                done => {
                    self.room = None;
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(self.poll_take(cx, buf.initialize_unfilled()))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_give(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(cx, |socket| (&*socket).write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket().shutdown(Shutdown::Write))
    }
}

/// Accepts connections as blocking-mode sockets, for [`Stream::new`].
#[derive(Debug)]
pub struct Listener(AsyncFd<std::os::unix::net::UnixListener>);

impl Listener {
    /// Registers a listening socket with the runtime that this is called in.
    ///
    /// # Errors
    /// As for [`Stream::new`].
    pub fn new(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(registered(socket, Interest::READABLE)?))
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        poll_fn(|cx| {
            loop {
                let mut guard = ready!(self.0.poll_read_ready(cx))?;
                match self.0.get_ref().accept() {
                    Ok((stream, _)) => return Poll::Ready(Ok(stream)),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn on_loop<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn what_was_sent_before_the_end_is_read_and_then_the_end() {
        on_loop(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut stream = Stream::new(ours).unwrap();
            theirs.write_all(b"last words").unwrap();
            drop(theirs);
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"last words");
        });
    }

    #[test]
    fn more_than_fits_is_written_as_the_other_end_reads() {
        on_loop(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut ours, mut theirs) = (Stream::new(ours).unwrap(), Stream::new(theirs).unwrap());
            let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
            let mut got = Vec::new();
            let (wrote, read) = tokio::join!(
                async {
                    ours.write_all(&sent).await?;
                    assert!(ours.room.is_none(), "room is still waited for");
                    ours.shutdown().await
                },
                theirs.read_to_end(&mut got)
            );
            wrote.unwrap();
            assert_eq!(read.unwrap(), sent.len());
            assert!(got == sent);
        });
    }

    #[test]
    fn connections_are_accepted_one_after_another() {
        on_loop(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let listener = Listener::new(std::os::unix::net::UnixListener::bind(&path).unwrap()).unwrap();
            let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
            for mut client in clients {
                let mut served = Stream::new(listener.accept().await.unwrap()).unwrap();
                client.write_all(b"x").unwrap();
                assert_eq!(served.read_u8().await.unwrap(), b'x');
            }
        });
    }
}
