//! The server of the control API: accepts on a unix socket, never on a network, and hands calls to
//! whoever answers them.
//!
//! Everything a peer can hold is bounded: connections (in total and per uid), the time for a request's
//! head and body, idle time, unread answers, body sizes and the sum of bodies in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::access::Policy;
use super::api::{Call, Error, ErrorKind, Peer};
use super::server_answer::Connection;
use crate::link::stream::{Listener, Stream};

/// Reads a peer's supplementary groups; the daemon passes `process::peer::groups` (this room may not use
/// that one).
pub type GroupsOf = fn(BorrowedFd<'_>) -> io::Result<Vec<u32>>;

/// What peers may hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of everybody; default 1,024.
    pub connections: usize,
    /// Connections of one uid, administrators excepted; default 256.
    pub per_uid: usize,
    /// Of `connections`, how many only administrators get; default 32.
    pub reserved: usize,
    /// Time for the head of a request, from its first byte (or from the connection); default 5 s.
    pub head: Duration,
    /// Time for the body of a request; default 30 s.
    pub body: Duration,
    /// Time without a request; default 60 s.
    pub idle: Duration,
    /// Time without a byte of the answer being taken; default 60 s.
    pub unread: Duration,
    /// Sum of all request bodies in memory, in bytes; default 64 MiB.
    pub bodies: usize,
    /// Time for answers under way when the server stops; default 2 s.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            per_uid: 256,
            reserved: 32,
            head: Duration::from_secs(5),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            unread: Duration::from_secs(60),
            bodies: 64 << 20,
            farewell: Duration::from_secs(2),
        }
    }
}

/// Connections that are told why they are refused at the same time; more are closed without a word.
const REFUSALS: usize = 64;

/// What all connections share.
pub(super) struct Shared {
    pub(super) policy: watch::Receiver<Arc<Policy>>,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) limits: Limits,
    pub(super) bodies: Arc<Mutex<usize>>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    total: usize,
    refusals: usize,
    by_uid: BTreeMap<u32, usize>,
}

/// A place among the connections; given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    /// Absent: a place among the refusals.
    uid: Option<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(uid) = self.uid else {
            places.refusals = places.refusals.saturating_sub(1);
            return;
        };
        places.total = places.total.saturating_sub(1);
        if let Some(n) = places.by_uid.get_mut(&uid) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                places.by_uid.remove(&uid);
            }
        }
    }
}

impl Shared {
    /// A place for this peer, with the error it gets if it is only refused politely; none at all: close.
    fn admit(self: &Arc<Self>, peer: &Peer) -> Option<(Place, Option<Error>)> {
        let admin = self.policy.borrow().rights(peer).admin;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if admin {
            self.limits.connections
        } else {
            self.limits.connections.saturating_sub(self.limits.reserved)
        };
        let mine = places.by_uid.get(&peer.uid).copied().unwrap_or(0);
        let refusal = if places.total >= most {
            Some(Error::new(
                ErrorKind::Unavailable,
                format!("taskd has {} connections already", places.total),
            ))
        } else if !admin && mine >= self.limits.per_uid {
            Some(Error::new(
                ErrorKind::Full,
                format!("uid {} has {mine} connections already, the most that one user gets", peer.uid),
            ))
        } else {
            None
        };
        if refusal.is_some() {
            if places.refusals >= REFUSALS {
                return None;
            }
            places.refusals += 1;
        } else {
            places.total += 1;
            *places.by_uid.entry(peer.uid).or_default() += 1;
        }
        drop(places);
        let place =
            Place { shared: Arc::clone(self), uid: if refusal.is_some() { None } else { Some(peer.uid) } };
        Some((place, refusal.map(|e| e.hint("close some, or try again"))))
    }
}

/// Serves until `stop` is ready, then lets answers under way finish (at most [`Limits::farewell`]) and
/// returns. Every call comes out of `calls`' other end; its rights are by the `policy` of that moment.
///
/// # Errors
/// The listener cannot be registered with the runtime. A failing accept(2) is waited out, never returned.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    policy: watch::Receiver<Arc<Policy>>,
    calls: mpsc::Sender<Call>,
    groups: GroupsOf,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = Listener::new(listener)?;
    let farewell = limits.farewell;
    let shared = Arc::new(Shared {
        policy,
        calls,
        limits,
        bodies: Arc::new(Mutex::new(0)),
        places: Mutex::new(Places::default()),
    });
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut accepting = Accepting::default();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            stream = accepting.next(&listener) => {
                let Some(peer) = peer_of(&stream, groups) else { continue };
                let Some((place, refusal)) = shared.admit(&peer) else { continue };
                // Where the event queue has no room for it, the peer sees its connection end.
                let Ok(stream) = Stream::new(stream) else { continue };
                let connection = Connection::new(Arc::clone(&shared), peer, refusal);
                let closing = closing.clone();
                connections.spawn(async move {
                    connection.serve(stream, closing).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    // Nobody waits for this: it only tells; and connections that are gone already cannot hear it.
    let _ = close.send(true);
    let _ = tokio::time::timeout(farewell, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The peer of a connection, as the kernel noted it at connect(2); none where it cannot be said, which
/// closes the connection.
fn peer_of(stream: &UnixStream, groups: GroupsOf) -> Option<Peer> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    Some(Peer {
        uid: credentials.uid(),
        gid: credentials.gid(),
        // Without the list its groups open nothing.
        groups: groups(stream.as_fd()).unwrap_or_default(),
        pid: credentials.pid(),
    })
}

/// accept(2) that waits out its failures.
#[derive(Default)]
struct Accepting {
    failures: u32,
}

impl Accepting {
    /// The next connection. Dropping the future loses none.
    async fn next(&mut self, listener: &Listener) -> UnixStream {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    if self.failures > 0 {
                        tracing::info!(failures = self.failures, "accepting on the control socket again");
                        self.failures = 0;
                    }
                    return stream;
                }
                // The peer went away between connect(2) and accept(2).
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                // EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the backlog, and accept(2)
                // would fail again at once.
                Err(e) => {
                    if self.failures == 0 {
                        tracing::error!(error = %e, "cannot accept on the control socket; trying again");
                    }
                    let wait = Duration::from_millis(10 << self.failures.min(7)).min(Duration::from_secs(1));
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Access;
    use crate::control::access::System;

    fn shared(connections: usize, per_uid: usize, reserved: usize) -> Arc<Shared> {
        let access = Access {
            read: Vec::new(),
            enqueue: Vec::new(),
            admin: Vec::new(),
            celery_control: Default::default(),
        };
        let (_, policy) = watch::channel(Arc::new(Policy::new(&access, [], 900, &System)));
        Arc::new(Shared {
            policy,
            calls: mpsc::channel(1).0,
            limits: Limits { connections, per_uid, reserved, ..Limits::default() },
            bodies: Arc::default(),
            places: Mutex::default(),
        })
    }

    fn kind(shared: &Arc<Shared>, uid: u32, held: &mut Vec<Place>) -> Option<Option<ErrorKind>> {
        let (place, refusal) = shared.admit(&Peer { uid, ..Peer::default() })?;
        held.push(place);
        Some(refusal.map(|e| e.kind))
    }

    #[test]
    fn one_user_does_not_take_the_places_of_others_nor_all_users_the_administrators() {
        let shared = shared(6, 3, 1);
        let mut held = Vec::new();
        let mut ask = |uid| kind(&shared, uid, &mut held).unwrap();
        for uid in [1, 1, 1, 2] {
            assert_eq!(ask(uid), None);
        }
        assert_eq!(ask(1), Some(ErrorKind::Full));
        assert_eq!(ask(2), None);
        assert_eq!(ask(2), Some(ErrorKind::Unavailable), "the reserved place");
        assert_eq!(ask(900), None);
        assert_eq!(ask(0), Some(ErrorKind::Unavailable));
        held.clear();
        for uid in [900; 6] {
            assert_eq!(kind(&shared, uid, &mut held), Some(None), "an administrator has no share");
        }
        assert_eq!(shared.places.lock().unwrap().by_uid.len(), 1);
    }

    #[test]
    fn refusals_are_bounded_and_every_place_comes_back() {
        let shared = shared(0, 1, 0);
        let mut held = Vec::new();
        for _ in 0..REFUSALS {
            assert_eq!(kind(&shared, 1, &mut held), Some(Some(ErrorKind::Unavailable)));
        }
        assert_eq!(kind(&shared, 1, &mut held), None);
        held.clear();
        let places = shared.places.lock().unwrap();
        assert_eq!((places.total, places.refusals, places.by_uid.len()), (0, 0, 0));
    }
}
