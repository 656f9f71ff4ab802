//! A connection's socket with its deadlines: a peer that stops in the middle is not waited for.
//!
//! One timer serves all phases of a connection; moving a deadline to a later time costs next to nothing,
//! so that a busy keep-alive connection pays nothing for its bounds.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::server::Limits;
use crate::link::stream::Stream;

/// What a connection waits for.
#[derive(Clone, Debug)]
pub(super) struct Phase(Arc<AtomicU8>);

const HEAD: u8 = 0;
const CALL: u8 = 1;
const IDLE: u8 = 2;
/// Idle without a bound: the peer asked for a stop and waits for our end.
const KEPT: u8 = 3;
/// Never a phase: the deadline belongs to none.
const UNSET: u8 = 4;

impl Phase {
    /// A fresh connection: its first request is due.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(HEAD)))
    }

    /// A request's head has been read: its body has a bound of its own, its answer none.
    pub(super) fn call(&self) -> Calling {
        let kept = self.0.swap(CALL, Ordering::Relaxed) == KEPT;
        Calling { phase: self.clone(), kept }
    }

    /// Whether a request is awaited, or its head: the first one, or one that has begun to come.
    pub(super) fn is_head(&self) -> bool {
        self.get() == HEAD
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call under way; dropping it (with the end of the answer) makes the connection idle.
#[derive(Debug)]
pub(super) struct Calling {
    phase: Phase,
    kept: bool,
}

impl Calling {
    /// Keeps the connection open from now on, however long it is idle.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.phase.0.store(if self.kept { KEPT } else { IDLE }, Ordering::Relaxed);
    }
}

/// What a peer gets that does not finish the head of its request; it is closed then.
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: \
application/json\r\ncontent-length: 79\r\n\r\n\
{\"kind\":\"bad_request\",\"message\":\"the head of the request did not come in time\"}";

/// The socket.
pub(super) struct Watched {
    stream: Stream,
    phase: Phase,
    limits: Limits,
    /// When the current phase ends, and the phase it was set for.
    deadline: Pin<Box<Sleep>>,
    set_for: u8,
    /// Present while the peer takes nothing of what it is sent.
    unread: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(stream: Stream, phase: Phase, limits: Limits) -> Self {
        let deadline = Box::pin(tokio::time::sleep(limits.head));
        Self { stream, phase, limits, deadline, set_for: HEAD, unread: None }
    }

    /// Nothing came: ready with the error once the peer had its time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.phase.get();
        if phase != self.set_for {
            self.set_for = phase;
            match phase {
                HEAD => self.deadline.as_mut().reset(Instant::now() + self.limits.head),
                IDLE => self.deadline.as_mut().reset(Instant::now() + self.limits.idle),
                _ => {}
            }
        }
        if matches!(phase, CALL | KEPT) {
            return Poll::Pending;
        }
        ready!(self.deadline.as_mut().poll(cx));
        if phase == HEAD {
            // As much of it as the socket takes now; the peer is closed either way.
            let _ = self.stream.try_write(TIMEOUT);
        }
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn poll_unread<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.unread = None;
            return done;
        }
        let limit = self.limits.unread;
        let unread = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(unread.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(done) => {
                // The first bytes after an idle time begin a head.
                if this.phase.0.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    // The deadline is set when the rest of the head has to be waited for, which is rare.
                    this.set_for = UNSET;
                }
                Poll::Ready(done)
            }
            Poll::Pending => this.poll_deadline(cx).map(Err),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.poll_unread(cx, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.poll_unread(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_answer_says_its_own_length() {
        let text = std::str::from_utf8(TIMEOUT).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        assert!(serde_json::from_str::<super::super::api::Error>(body).is_ok());
    }
}
