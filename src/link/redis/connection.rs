//! A connection that commands go over.
//!
//! It is not the crate's own: that has no descriptor to wait on together with others, hides what the server says to
//! a wrong password, and goes on after an answer that came too late. This one is as good for `redis::cmd`,
//! pipelines and scripts, which want [`ConnectionLike`] and nothing else.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, Parser, RedisError, RedisResult, Value};

use super::wire::Wire;

/// An open connection. Once an answer is late or makes no sense it is closed for good, so that no later command
/// can get another one's answer.
pub struct Connection {
    wire: Wire,
    parser: Parser,
    reply: Duration,
    db: u32,
    server: String,
    open: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).field("open", &self.open).finish()
    }
}

impl Connection {
    pub(super) fn new(wire: Wire, reply: Duration, server: String) -> Self {
        Self { wire, parser: Parser::new(), reply, db: 0, server, open: true }
    }

    /// The address without passwords; behind sentinels with the server that they named.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// From now on each answer, and each command on its way, may take so long.
    pub fn set_reply_timeout(&mut self, reply: Duration) {
        self.reply = reply;
    }

    /// The socket, to be polled for something to read. What was read and not yet taken does not show there: take with
    /// [`Connection::arrived`] until there is nothing.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    pub(super) fn selected(&mut self, db: u32) {
        self.db = db;
    }

    /// Sends what is packed, and waits for no answer.
    ///
    /// # Errors
    /// It is closed, or was lost.
    pub fn send_packed_command(&mut self, bytes: &[u8]) -> RedisResult<()> {
        self.check()?;
        self.wire.patience(Some(Instant::now() + self.reply));
        let sent = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
        sent.map_err(|error| self.lost(error.into()))
    }

    /// The next value: an answer (also an error, as a value) or a push.
    ///
    /// # Errors
    /// It is closed, was lost, or nothing came in time; then it is closed.
    pub fn recv_value(&mut self) -> RedisResult<Value> {
        self.check()?;
        self.wire.patience(Some(Instant::now() + self.reply));
        self.parser.parse_value(&mut self.wire).map_err(|error| self.lost(error))
    }

    /// The next value, if a whole one has arrived.
    ///
    /// # Errors
    /// It is closed, or was lost.
    pub fn arrived(&mut self) -> RedisResult<Option<Value>> {
        self.check()?;
        self.wire.patience(None);
        match self.parser.parse_value(&mut self.wire) {
            Ok(value) => Ok(Some(value)),
            // The parser keeps what it has of a value.
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// The next answer. Pushes are nobody's here: who wants them takes them with [`Connection::arrived`].
    ///
    /// # Errors
    /// As [`Connection::recv_value`].
    pub fn recv_response(&mut self) -> RedisResult<Value> {
        let until = Instant::now() + self.reply;
        loop {
            match self.recv_value()? {
                Value::Push { .. } if Instant::now() < until => {}
                Value::Push { .. } => {
                    return Err(self.lost(io::Error::from(ErrorKind::TimedOut).into()));
                }
                value => return Ok(value),
            }
        }
    }

    fn check(&self) -> RedisResult<()> {
        if self.open {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::NotConnected, "the connection was given up").into())
    }

    fn lost(&mut self, error: RedisError) -> RedisError {
        self.open = false;
        error
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, cmd: &[u8]) -> RedisResult<Value> {
        self.send_packed_command(cmd)?;
        self.recv_response()
    }

    fn req_command(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let packed = cmd.get_packed_command();
        if !cmd.is_no_response() {
            return self.req_packed_command(&packed);
        }
        self.send_packed_command(&packed)?;
        Ok(Value::Nil)
    }

    /// The first `offset` answers are those of MULTI and what it queued: an error among them is the error of all.
    fn req_packed_commands(&mut self, cmd: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.send_packed_command(cmd)?;
        let mut queued = None;
        let mut values = Vec::with_capacity(count);
        for n in 0..offset + count {
            match self.recv_response()? {
                Value::ServerError(error) if n < offset => _ = queued.get_or_insert(error),
                _ if n < offset => {}
                value => values.push(value),
            }
        }
        queued.map_or(Ok(values), |error| Err(error.into()))
    }

    fn get_db(&self) -> i64 {
        self.db.into()
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.open
    }
}
