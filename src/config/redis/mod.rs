//! Addresses of Redis and Valkey: text -> [`Address`]. Pure: nothing is looked up and nothing opened, so that the
//! check of the config and who connects read them by the same rules.

mod hidden;
mod options;
mod parse;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secrets;
use super::values::Wrong;

pub use hidden::Hidden;
pub use options::OPTIONS;

/// The schemes that are read here.
pub const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+socket",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "sentinel",
];

/// When kombu gives what a vanished worker took to others, unless it is told otherwise.
pub const DEFAULT_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Where a server is, and how it is spoken to. Made by [`Address::parse`]; `Debug` and [`Address::shown`] show no
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it is.
    pub place: Place,
    /// Its user; absent: `default`.
    pub user: Option<String>,
    /// The password of that.
    pub password: Password,
    /// Number of the database.
    pub db: u32,
    /// How TLS is spoken; absent: it is not.
    pub tls: Option<Tls>,
    /// Stands before each key and channel, as kombu's `global_keyprefix`.
    pub prefix: String,
    /// When what Celery workers took is given to others.
    pub visibility_timeout: Duration,
    /// How long an answer is waited for; absent: as long as taskd does by itself.
    pub reply: Option<Duration>,
    /// How long a connection is waited for; absent: as long as taskd does by itself.
    pub connect: Option<Duration>,
    shown: String,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a port of a host.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a unix socket.
    Unix(PathBuf),
    /// Where the sentinels say.
    Sentinel {
        /// Hosts and ports of them, in the order in which they are asked; at least one.
        sentinels: Vec<(String, u16)>,
        /// The name of the master that they watch.
        master: String,
        /// Their user.
        user: Option<String>,
        /// Their password.
        password: Option<Hidden>,
    },
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// There is none.
    None,
    /// It stands in the address, or is a credential.
    Written(Hidden),
    /// It is the text of this file, without a newline at its end.
    File(PathBuf),
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// What is asked of the server's certificate.
    pub verify: Verify,
    /// A PEM file of authorities that are trusted beside the system's.
    pub authorities: Option<PathBuf>,
    /// PEM files of the client's own certificate and of its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It is of a trusted authority and of this host.
    Host,
    /// It is of a trusted authority.
    Authority,
    /// Nothing: whoever answers is trusted.
    Nothing,
}

impl Address {
    /// Reads an address. References to credentials stay what they are; see [`Address::resolve`].
    ///
    /// # Errors
    /// What is wrong with it, to follow the key's name, and what to do; never with a password.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        parse::address(text)
    }

    /// The address without its passwords: `***` stands for them, and references to credentials for themselves.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The names of the credentials that it refers to.
    #[must_use]
    pub fn credentials(&self) -> BTreeSet<&str> {
        self.hidden().flat_map(Hidden::credentials).collect()
    }

    /// The address with the values of its credentials in it.
    ///
    /// # Errors
    /// The credential that is not there or cannot stand in a text; a sentence without any value.
    pub fn resolve(&self, secrets: &Secrets) -> Result<Self, String> {
        let mut out = self.clone();
        if let Password::Written(hidden) = &mut out.password {
            *hidden = Hidden::known(&hidden.expose(secrets)?);
        }
        if let Place::Sentinel { password: Some(hidden), .. } = &mut out.place {
            *hidden = Hidden::known(&hidden.expose(secrets)?);
        }
        Ok(out)
    }

    fn hidden(&self) -> impl Iterator<Item = &Hidden> {
        let own = match &self.password {
            Password::Written(hidden) => Some(hidden),
            Password::None | Password::File(_) => None,
        };
        let theirs = match &self.place {
            Place::Sentinel { password, .. } => password.as_ref(),
            Place::Tcp { .. } | Place::Unix(_) => None,
        };
        own.into_iter().chain(theirs)
    }
}

/// An address without its passwords, also one that cannot be read or is not Redis's; a word is itself.
#[must_use]
pub fn shown(text: &str) -> String {
    match Address::parse(text) {
        Ok(address) => address.shown,
        Err(_) => match text.split_once("://") {
            Some((scheme, _)) if SCHEMES.contains(&scheme) => format!("{scheme}://…"),
            Some(_) => "…".to_owned(),
            None => text.to_owned(),
        },
    }
}

fn refused<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), help: help.into() })
}

/// The number of a database.
fn database(text: &str) -> Result<u32, Wrong> {
    match text.parse::<u32>() {
        // Redis holds the number in an int.
        Ok(db) if text.bytes().all(|b| b.is_ascii_digit()) && i32::try_from(db).is_ok() => Ok(db),
        _ => refused(
            "has a path that is no number of a database",
            "write /0, /1 and so on behind the host; / ? # and @ of a password are %2F %3F %23 and %40",
        ),
    }
}

#[cfg(test)]
mod tests;
