//! What an error of Redis asks for, in words that a person can act on. The codes are those of Redis 6.2 to 8 and
//! Valkey (`shared` in server.c, and the replies of acl.c, cluster.c and script.c of their sources).

use std::fmt;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The same again, later, on the same connection.
    Again,
    /// The same again, on a new connection.
    Reconnect,
    /// Nothing will do until a person changes something. Who wants to notice that opens a new connection now and then.
    Refused,
    /// The script is not there: send it whole.
    NoScript,
    /// This command with these values cannot work.
    Wrong,
}

/// Why a command or a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The server reads its data set from disk.
    Loading,
    /// A script of somebody runs too long.
    Busy,
    /// A key is being moved, or a replica has lost its master.
    TryAgain,
    /// Fewer replicas are there than `min-replicas-to-write` wants.
    NoReplicas,
    /// The memory that `maxmemory` allows is used up.
    OutOfMemory,
    /// The last snapshot or append failed, so writes are refused.
    Disk,
    /// The server takes no more clients.
    Full,
    /// The server has become a replica.
    ReadOnly,
    /// The sentinels named a server that is not the master, or name none.
    NoMaster,
    /// Nothing accepts connections there.
    Unreachable,
    /// The connection broke.
    Lost,
    /// No answer came in time.
    Silent,
    /// What answers speaks another language.
    Protocol,
    /// The server wants a password.
    NoAuth,
    /// The user or the password is wrong.
    WrongPass,
    /// The user may not do this.
    NoPerm,
    /// The server is in protected mode.
    Protected,
    /// The password cannot be had.
    Password,
    /// The server's certificate is not trusted.
    Certificate,
    /// TLS came to nothing otherwise.
    Tls,
    /// There is no database of this number.
    Database,
    /// The server is too old.
    Version,
    /// The server drops keys when its memory is full.
    Evicts,
    /// The server belongs to a cluster.
    Cluster,
    /// The server is a sentinel.
    Sentinel,
    /// The server runs no scripts.
    NoScripts,
    /// The script is not in the server's cache.
    NoScript,
    /// The command cannot work.
    Wrong,
}

/// An error, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// What the server or the system said, without passwords.
    pub said: String,
}

impl Reason {
    /// What to do next.
    #[must_use]
    pub fn ask(self) -> Ask {
        match self {
            Self::Loading
            | Self::Busy
            | Self::TryAgain
            | Self::NoReplicas
            | Self::OutOfMemory
            | Self::Disk => Ask::Again,
            Self::Full
            | Self::ReadOnly
            | Self::NoMaster
            | Self::Unreachable
            | Self::Lost
            | Self::Silent
            | Self::Protocol => Ask::Reconnect,
            Self::NoScript => Ask::NoScript,
            Self::Wrong => Ask::Wrong,
            _ => Ask::Refused,
        }
    }

    /// The sentence of `STATUS=`, without what the server said.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Loading => "Redis is still loading its data",
            Self::Busy => "Redis is busy with a script",
            Self::TryAgain => "Redis cannot answer at the moment",
            Self::NoReplicas => {
                "Redis refuses writes: too few replicas are connected (min-replicas-to-write)"
            }
            Self::OutOfMemory => "Redis is out of memory (maxmemory), so nothing can be enqueued",
            Self::Disk => "Redis refuses writes because it cannot save to its disk",
            Self::Full => "Redis takes no more clients (maxclients)",
            Self::ReadOnly => "Redis has become a read-only replica",
            Self::NoMaster => "the sentinels name no server that is the master",
            Self::Unreachable => "Redis cannot be reached",
            Self::Lost => "the connection to Redis broke",
            Self::Silent => "Redis does not answer",
            Self::Protocol => "what answers there is not Redis",
            Self::NoAuth => "Redis wants a password",
            Self::WrongPass => "Redis refuses the user or the password",
            Self::NoPerm => "Redis does not permit this user what taskd needs",
            Self::Protected => "Redis is in protected mode",
            Self::Password => "the password for Redis cannot be had",
            Self::Certificate => "the certificate of Redis is not trusted",
            Self::Tls => "no TLS with Redis came about",
            Self::Database => "Redis has no database of this number",
            Self::Version => "Redis is too old: taskd needs 6.2 or later, or Valkey",
            Self::Evicts => "Redis drops keys when its memory is full, and messages are keys",
            Self::Cluster => "this is a Redis Cluster, which cannot be the broker",
            Self::Sentinel => "this is a sentinel, not a server",
            Self::NoScripts => "Redis runs no scripts here, and taskd moves messages by scripts",
            Self::NoScript => "Redis has lost its scripts",
            Self::Wrong => "Redis refuses a command",
        }
    }

    /// What a person can do; empty where there is nothing but to wait.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Loading | Self::TryAgain | Self::NoScript | Self::Lost => "",
            Self::Busy => "`redis-cli SCRIPT KILL` ends it, if it has written nothing",
            Self::NoReplicas => "look at `redis-cli INFO replication`",
            Self::OutOfMemory => "raise maxmemory, or remove what fills it: `redis-cli --bigkeys` finds it",
            Self::Disk => {
                "look at the log of Redis and the space on its disk; `redis-cli INFO persistence` has the last results"
            }
            Self::Full => "raise maxclients, or see with `redis-cli CLIENT LIST` who has them",
            Self::ReadOnly => {
                "behind a failover use redis+sentinel://…?master=NAME, which finds the new master"
            }
            Self::NoMaster => {
                "`redis-cli -p 26379 SENTINEL masters` lists what the sentinels watch; its name is the option master"
            }
            Self::Unreachable => "see that it runs and listens there, and that no firewall is in between",
            Self::Silent => {
                "it may be stopped, swapping, or in CLIENT PAUSE; or a firewall drops what is sent"
            }
            Self::Protocol => "is the port right? Where the server wants TLS write rediss://",
            Self::NoAuth => {
                "write redis://:PASSWORD@HOST, redis://:${credential:NAME}@HOST, or ?password_file=/path"
            }
            Self::WrongPass => {
                "compare `broker` with requirepass, or with `redis-cli ACL GETUSER`; a reload does not change the \
                 address, but a password_file is read at each connection"
            }
            Self::NoPerm => {
                "give the user of `broker` these rules: ACL SETUSER NAME ~* &* +@all -@dangerous +info +role"
            }
            Self::Protected => "set a password or `bind` in redis.conf",
            Self::Password => {
                "see that the file or the credential is there and that taskd's user may read it"
            }
            Self::Certificate => {
                "name the authority that signed it with ssl_ca_certs=/path, and write the host as the certificate does"
            }
            Self::Tls => {
                "see that this port speaks TLS; where it wants a certificate of the client, name it with ssl_certfile"
            }
            Self::Database => "`databases` of redis.conf says how many there are",
            Self::Version => "install a newer Redis, or Valkey",
            Self::Evicts => {
                "set `maxmemory-policy noeviction` in redis.conf (redis-cli CONFIG SET maxmemory-policy noeviction), \
                 or allow_eviction = true in [taskd] where losing messages is well"
            }
            Self::Cluster => {
                "use a server of its own, or redis+sentinel://…?master=NAME for one that takes over"
            }
            Self::Sentinel => "write redis+sentinel://HOST:PORT/DB?master=NAME",
            Self::NoScripts => "permit EVAL: ACL SETUSER NAME +@scripting; it must not be renamed either",
            Self::Wrong => "this is a bug of taskd, or somebody else writes to its keys",
        }
    }
}

impl Fault {
    /// With what was said.
    #[must_use]
    pub fn new(reason: Reason, said: impl Into<String>) -> Self {
        Self { reason, said: said.into() }
    }

    /// What to do next.
    #[must_use]
    pub fn ask(&self) -> Ask {
        self.reason.ask()
    }

    /// Whether the connection it came from is of no use any more.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        self.ask() == Ask::Reconnect || matches!(self.reason, Reason::NoAuth | Reason::WrongPass)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.sentence())?;
        if self.said.is_empty() { Ok(()) } else { write!(f, ": {}", self.said) }
    }
}

/// Understands an error.
#[must_use]
pub fn classify(error: &RedisError) -> Fault {
    // The errors of a pipeline: the first says why.
    if let Some(errors) = error.clone().into_server_errors()
        && let Some((_, first)) = errors.first()
    {
        return of_server(first.code(), first.details().unwrap_or_default());
    }
    if let Some(io) = io_of(error) {
        return of_io(io);
    }
    match error.kind() {
        ErrorKind::Parse => Fault::new(Reason::Protocol, error.detail().map(first_line).unwrap_or_default()),
        ErrorKind::AuthenticationFailed => Fault::new(Reason::WrongPass, ""),
        ErrorKind::Io => Fault::new(Reason::Lost, error.to_string()),
        _ => Fault::new(Reason::Wrong, error.to_string()),
    }
}

/// The error of the socket below an error; the crate keeps it behind a pointer.
fn io_of(error: &RedisError) -> Option<&io::Error> {
    let source = std::error::Error::source(error)?;
    let shared = || source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?.downcast_ref();
    source.downcast_ref().or_else(shared)
}

/// Understands an error of a socket.
pub(super) fn of_io(error: &io::Error) -> Fault {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let reason = match tls {
            rustls::Error::InvalidCertificate(_) => Reason::Certificate,
            _ => Reason::Tls,
        };
        return Fault::new(reason, tls.to_string());
    }
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Fault::new(Reason::Silent, ""),
        io::ErrorKind::UnexpectedEof => Fault::new(Reason::Lost, "it was closed at the other end"),
        _ => Fault::new(Reason::Lost, error.to_string()),
    }
}

/// Understands an error reply.
pub(super) fn of_server(code: &str, detail: &str) -> Fault {
    let said = || first_line(&format!("{code} {detail}"));
    if let Some(reason) = of_code(code) {
        return Fault::new(reason, said());
    }
    // Redis 6.2 wraps what a script met: "ERR Error running script (call to f_…): @user_script:1: -OOM command …".
    let in_script = detail.contains("Error running script") || detail.contains("@user_script");
    let inner = detail
        .split([' ', ':', '-'])
        .filter(|word| word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase()))
        .find_map(of_code);
    let reason = match inner {
        Some(reason) if in_script && reason != Reason::NoScript => reason,
        _ if detail.contains("can't run this command") => Reason::NoPerm,
        _ if detail.starts_with("max number of clients") => Reason::Full,
        _ if detail.contains("DB index is out of range") || detail.contains("invalid DB index") => {
            Reason::Database
        }
        // Without a user's name the default user has no password, and one was given.
        _ if detail.contains("called without any password configured") => Reason::WrongPass,
        _ => Reason::Wrong,
    };
    Fault::new(reason, said())
}

/// Understands what a script caught of an error inside it.
#[must_use]
pub fn of_script(text: &str) -> Fault {
    let fault = of_server("ERR", &format!("@user_script: {text}"));
    Fault::new(fault.reason, first_line(text))
}

fn of_code(code: &str) -> Option<Reason> {
    Some(match code {
        "LOADING" => Reason::Loading,
        "BUSY" => Reason::Busy,
        "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => Reason::TryAgain,
        "NOREPLICAS" | "NOGOODSLAVE" => Reason::NoReplicas,
        "OOM" => Reason::OutOfMemory,
        "MISCONF" => Reason::Disk,
        // UNBLOCKED: what waited was sent away, because the server became a replica.
        "READONLY" | "UNBLOCKED" => Reason::ReadOnly,
        "NOAUTH" => Reason::NoAuth,
        "WRONGPASS" => Reason::WrongPass,
        "NOPERM" => Reason::NoPerm,
        "DENIED" => Reason::Protected,
        "MOVED" | "ASK" | "CROSSSLOT" => Reason::Cluster,
        "NOSCRIPT" => Reason::NoScript,
        "NOPROTO" => Reason::Version,
        _ => return None,
    })
}

/// What a server says may have several lines (protected mode has a whole page).
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reply: &str) -> Fault {
        let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        classify(&value.extract_error().unwrap_err())
    }

    #[test]
    fn each_reply_asks_for_the_right_thing() {
        for (reply, ask, reason) in [
            ("LOADING Redis is loading the dataset in memory", Ask::Again, Reason::Loading),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", Ask::Again, Reason::Busy),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Ask::Again, Reason::TryAgain),
            ("MASTERDOWN Link with MASTER is down", Ask::Again, Reason::TryAgain),
            ("CLUSTERDOWN The cluster is down", Ask::Again, Reason::TryAgain),
            ("NOREPLICAS Not enough good replicas to write.", Ask::Again, Reason::NoReplicas),
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:1.",
                Ask::Again,
                Reason::OutOfMemory,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
                Ask::Again,
                Reason::Disk,
            ),
            ("READONLY You can't write against a read only replica.", Ask::Reconnect, Reason::ReadOnly),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed",
                Ask::Reconnect,
                Reason::ReadOnly,
            ),
            ("ERR max number of clients reached", Ask::Reconnect, Reason::Full),
            ("NOAUTH Authentication required.", Ask::Refused, Reason::NoAuth),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Ask::Refused,
                Reason::WrongPass,
            ),
            ("NOPERM User shop has no permissions to run the 'eval' command", Ask::Refused, Reason::NoPerm),
            ("DENIED Redis is running in protected mode because", Ask::Refused, Reason::Protected),
            ("MOVED 3999 127.0.0.1:6381", Ask::Refused, Reason::Cluster),
            ("ASK 3999 127.0.0.1:6381", Ask::Refused, Reason::Cluster),
            ("CROSSSLOT Keys in request don't hash to the same slot", Ask::Refused, Reason::Cluster),
            ("ERR DB index is out of range", Ask::Refused, Reason::Database),
            ("NOSCRIPT No matching script. Please use EVAL.", Ask::NoScript, Reason::NoScript),
            ("ERR wrong number of arguments for 'get' command", Ask::Wrong, Reason::Wrong),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Ask::Wrong, Reason::Wrong),
            ("ERR", Ask::Wrong, Reason::Wrong),
            // What Redis 6.2 makes of an error inside a script.
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                Ask::Again,
                Reason::OutOfMemory,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write",
                Ask::Reconnect,
                Reason::ReadOnly,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: -MISCONF Redis is",
                Ask::Again,
                Reason::Disk,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: The user executing the \
                 script can't run this command or subcommand",
                Ask::Refused,
                Reason::NoPerm,
            ),
            ("ERR Error running script (call to f_1): @user_script:1: boom", Ask::Wrong, Reason::Wrong),
        ] {
            let fault = told(reply);
            assert_eq!((fault.ask(), fault.reason), (ask, reason), "{reply}");
            assert!(fault.to_string().starts_with(reason.sentence()), "{fault}");
        }
    }

    #[test]
    fn errors_that_a_script_caught() {
        for (text, reason) in [
            ("settle: OOM command not allowed when used memory > 'maxmemory'.", Reason::OutOfMemory),
            (
                "lease: @user_script: 12: -OOM command not allowed when used memory > 'maxmemory'.",
                Reason::OutOfMemory,
            ),
            (
                "publish: @user_script: 3: -READONLY You can't write against a read only replica.",
                Reason::ReadOnly,
            ),
            ("tick: MISCONF Redis is configured to save RDB snapshots", Reason::Disk),
            ("count: user_script:7: attempt to index a nil value", Reason::Wrong),
        ] {
            let fault = of_script(text);
            assert_eq!(fault.reason, reason, "{text}");
        }
    }

    #[test]
    fn errors_of_sockets_and_of_the_protocol() {
        let of = |kind: io::ErrorKind| classify(&RedisError::from(io::Error::from(kind)));
        assert_eq!(of(io::ErrorKind::TimedOut).reason, Reason::Silent);
        assert_eq!(of(io::ErrorKind::WouldBlock).reason, Reason::Silent);
        assert_eq!(of(io::ErrorKind::UnexpectedEof).reason, Reason::Lost);
        assert_eq!(of(io::ErrorKind::BrokenPipe).ask(), Ask::Reconnect);
        let garbage = redis::parse_redis_value(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
        assert_eq!(classify(&garbage).reason, Reason::Protocol);
        let distrust = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let fault = of_io(&io::Error::other(distrust));
        assert_eq!((fault.reason, fault.ask()), (Reason::Certificate, Ask::Refused));
    }

    #[test]
    fn a_page_of_text_becomes_a_line() {
        let fault = of_server("DENIED", &format!("Redis {}\nsecond line", "x".repeat(1_000)));
        assert!(fault.said.chars().count() <= 301 && !fault.said.contains("second"), "{}", fault.said);
    }
}
