//! Which Redis server, and the names of kombu's channels and keys on it.

use std::sync::Arc;
use std::time::Duration;

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisResult};

use crate::celery::control;
use crate::celery::event;

/// A server that does not take a connection in this time is away.
const CONNECT: Duration = Duration::from_secs(2);

/// What parts the three names of a binding.
const SEPARATOR: &str = "\u{6}\u{16}";

/// Makes a connection.
pub type Open = dyn Fn() -> RedisResult<Connection> + Send + Sync;

/// A server as `stats` and `conf` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its host, or the path of its socket.
    pub host: String,
    /// Its port; 0 of a socket.
    pub port: u16,
    /// The user, never the password.
    pub user: Option<String>,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
}

/// A Redis server, a database on it, and what stands before every key and channel.
#[derive(Clone)]
pub struct Server {
    open: Arc<Open>,
    shown: Shown,
    db: i64,
    prefix: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("shown", &self.shown).field("db", &self.db).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that is reached by whatever `open` does: the connections of the broker's own link, say.
    /// `prefix` is kombu's `global_keyprefix`.
    #[must_use]
    pub fn new(open: Arc<Open>, shown: Shown, db: i64, prefix: &str) -> Self {
        Self { open, shown, db, prefix: prefix.to_owned() }
    }

    /// The server of a URL.
    ///
    /// # Errors
    /// It is no URL of a Redis server.
    pub fn of_url(url: &str, prefix: &str) -> RedisResult<Self> {
        let info = url.into_connection_info()?;
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            ConnectionAddr::Unix(path) => (path.display().to_string(), 0, false),
            _ => (url.to_owned(), 0, false),
        };
        let user = info.redis_settings().username().map(str::to_owned);
        let db = info.redis_settings().db();
        let client = redis::Client::open(info)?;
        let open = move || client.get_connection_with_timeout(CONNECT);
        Ok(Self::new(Arc::new(open), Shown { host, port, user, tls }, db, prefix))
    }

    /// A new connection, whose writes and reads end in this time.
    pub(super) fn open(&self, read: Duration) -> RedisResult<Connection> {
        let connection = (self.open)()?;
        connection.set_write_timeout(Some(CONNECT))?;
        connection.set_read_timeout(Some(read))?;
        Ok(connection)
    }

    /// As people are shown it.
    #[must_use]
    pub const fn shown(&self) -> &Shown {
        &self.shown
    }

    /// The database.
    #[must_use]
    pub const fn db(&self) -> i64 {
        self.db
    }

    /// The URL, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        let Shown { host, port, user, tls } = &self.shown;
        let scheme = if *tls { "rediss" } else { "redis" };
        let user = user.as_ref().map(|user| format!("{user}:********@")).unwrap_or_default();
        match port {
            0 => format!("{scheme}+unix://{user}{host}?virtual_host={}", self.db),
            port => format!("{scheme}://{user}{host}:{port}/{}", self.db),
        }
    }

    /// The channel of requests.
    pub(super) fn pidbox(&self) -> String {
        format!("{}/{}.{}", self.prefix, self.db, control::EXCHANGE)
    }

    /// The channel of requests of Celery 3.1, which does not say the database; it knows no prefix either.
    pub(super) fn old_pidbox(&self) -> Option<&'static str> {
        self.prefix.is_empty().then_some(control::EXCHANGE)
    }

    /// The channel of the events with this routing key.
    pub(super) fn events(&self, routing_key: &str) -> String {
        format!("{}/{}.{}/{routing_key}", self.prefix, self.db, event::EXCHANGE)
    }

    /// The pattern of the channels of all that workers say of themselves.
    pub(super) fn workers(&self) -> String {
        let literal: String = self.prefix.chars().flat_map(escaped).collect();
        format!("{literal}/{}.{}/worker.*", self.db, event::EXCHANGE)
    }

    /// A key.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The key of an exchange's bindings.
    pub(super) fn bindings(&self, exchange: &str) -> String {
        self.key(&format!("_kombu.binding.{exchange}"))
    }
}

/// A queue's binding, as it stands in the set of the exchange.
pub(super) fn binding(routing_key: &str, queue: &str) -> String {
    [routing_key, "", queue].join(SEPARATOR)
}

/// A character of a pattern that means itself.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let special = matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    special.then_some('\\').into_iter().chain([c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kombu() {
        let server = Server::of_url("redis://me:secret@localhost:6380/3", "app[1]:").unwrap();
        assert_eq!(server.pidbox(), "app[1]:/3.celery.pidbox");
        assert_eq!(server.old_pidbox(), None);
        assert_eq!(server.events("task.multi"), "app[1]:/3.celeryev/task.multi");
        assert_eq!(server.workers(), "app\\[1\\]:/3.celeryev/worker.*");
        assert_eq!(server.bindings("reply.celery.pidbox"), "app[1]:_kombu.binding.reply.celery.pidbox");
        assert_eq!(binding("rk", "q"), "rk\u{6}\u{16}\u{6}\u{16}q");
        assert_eq!(server.url(), "redis://me:********@localhost:6380/3");
        assert!(!format!("{server:?}").contains("secret"));
        let plain = Server::of_url("redis://localhost", "").unwrap();
        assert_eq!((plain.old_pidbox(), plain.db()), (Some("celery.pidbox"), 0));
        assert!(Server::of_url("nonsense", "").is_err());
    }
}
