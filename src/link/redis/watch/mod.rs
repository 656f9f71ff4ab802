//! Being told of what changes in Redis, without polling and without taking anything: a connection of its own, in a
//! thread of its own.
//!
//! Keys are watched by RESP3's `CLIENT TRACKING`: a key that was read is told of once when it changes, so it is read
//! again (`LLEN`) after each change. What is told is that a list has something in it; a list that became empty is no
//! news. A blocking pop would be told too, and would lose what it popped if its answer got lost.

mod session;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Address, Backoff, LinkError, Timeouts, open};
use session::Session;

/// A connection from which nothing is heard for so long is asked whether it lives; it must answer within the
/// [`Timeouts`].
pub const QUIET: Duration = Duration::from_secs(5);

/// A key that changes all the time is looked at this often at most: a change is told at once after a pause, and
/// within this time otherwise.
pub const PACE: Duration = Duration::from_millis(10);

/// What is told, in the watch's own thread; whoever is told must not take long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The connection stands, with this server. Each key that has something in it is told next, since it may have
    /// changed unseen; what was published meanwhile is lost.
    Up(String),
    /// There is no connection, and why; told again when it is for another reason. It is tried again.
    Down(LinkError),
    /// This list was empty and has something in it; how much is told next, where it is still there.
    Filled {
        /// The key, as it was given.
        key: String,
    },
    /// This list has something in it.
    Key {
        /// The key, as it was given.
        key: String,
        /// How many elements it had.
        length: u64,
    },
    /// Something was published.
    Message {
        /// Where.
        channel: String,
        /// What.
        payload: Vec<u8>,
    },
}

/// What is to be watched.
#[derive(Clone, Default)]
struct Wanted {
    keys: BTreeSet<String>,
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
    /// Raised at each change of them.
    version: u64,
}

struct Shared {
    wanted: Mutex<Wanted>,
    wake: EventFd,
    stop: AtomicBool,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until there is something for this thread, or to read.
    fn wait(&self, connection: Option<&super::Connection>, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let rounded = if left.is_zero() { 0 } else { left.as_millis().saturating_add(1) };
        let timeout = PollTimeout::from(u16::try_from(rounded).unwrap_or(u16::MAX));
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if let Some(connection) = connection {
            fds.push(PollFd::new(connection.fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                // It counts: one read takes all.
                match self.wake.read() {
                    Ok(_) | Err(Errno::EAGAIN) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// The watch. It goes on through every loss of the connection until it is dropped; what is being told at that moment
/// may still be told.
pub struct Watch {
    shared: Arc<Shared>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.shared.wanted();
        f.debug_struct("Watch").field("keys", &wanted.keys).field("channels", &wanted.channels).finish()
    }
}

impl Watch {
    /// Begins to watch nothing. The credentials of the address must have been resolved.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(
        address: Address,
        timeouts: Timeouts,
        node: &str,
        mut tell: impl FnMut(Told) + Send + 'static,
    ) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let shared = Arc::new(Shared { wanted: Mutex::default(), wake, stop: AtomicBool::new(false) });
        let (ours, node) = (shared.clone(), node.to_owned());
        let thread = std::thread::Builder::new().name("redis-watch".to_owned());
        thread.spawn(move || run(&ours, &address, timeouts, &node, &mut tell))?;
        Ok(Self { shared })
    }

    /// Watches these lists too. Each that has something in it is told once it is watched.
    pub fn add_keys<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        self.change(|wanted| wanted.keys.extend(keys.into_iter().map(str::to_owned)));
    }

    /// Watches this list no more.
    pub fn remove_key(&self, key: &str) {
        self.change(|wanted| _ = wanted.keys.remove(key));
    }

    /// Takes what is published there too.
    pub fn subscribe(&self, channel: &str) {
        self.change(|wanted| _ = wanted.channels.insert(channel.to_owned()));
    }

    /// Takes what is published on channels that match this pattern too, as PSUBSCRIBE reads it. None is dropped again.
    pub fn subscribe_pattern(&self, pattern: &str) {
        self.change(|wanted| _ = wanted.patterns.insert(pattern.to_owned()));
    }

    /// Takes what is published there no more.
    pub fn unsubscribe(&self, channel: &str) {
        self.change(|wanted| _ = wanted.channels.remove(channel));
    }

    fn change(&self, how: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.shared.wanted();
        how(&mut wanted);
        wanted.version += 1;
        drop(wanted);
        self.wake();
    }

    fn wake(&self) {
        // It can only fail where 2^64 - 2 wakes were not taken: then there is one.
        let _ = self.shared.wake.write(1);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// The thread: connects, watches, and connects again.
fn run(shared: &Shared, address: &Address, timeouts: Timeouts, node: &str, tell: &mut dyn FnMut(Told)) {
    let mut backoff = Backoff::default();
    let mut down: Option<LinkError> = None;
    while !shared.stopped() {
        let ended = match open(address, timeouts, node) {
            Ok(connection) => {
                backoff.opened(Instant::now());
                Session::new(connection, timeouts.reply).run(shared, &mut |told| {
                    if matches!(told, Told::Up(_)) {
                        down = None;
                    }
                    if !shared.stopped() {
                        tell(told);
                    }
                })
            }
            Err(error) => error,
        };
        if shared.stopped() {
            return;
        }
        if down.as_ref() != Some(&ended) {
            tell(Told::Down(ended.clone()));
            down = Some(ended);
        }
        let until = Instant::now() + backoff.wait(Instant::now());
        while !shared.stopped() && Instant::now() < until {
            // Nothing but the time can end this wait early: what is wanted is looked at once there is a connection.
            if shared.wait(None, until).is_err() {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
        }
    }
}
