//! Taking an address apart. Nothing that may be a password gets into a message.

use std::path::PathBuf;

use super::hidden::{Hidden, MARK, Marked, decoded, shown};
use super::options::Options;
use super::{Address, DEFAULT_VISIBILITY_TIMEOUT, Password, Place, SCHEMES, database, refused};
use crate::config::values::Wrong;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const SEVERAL: &str =
    "one server is the broker; for one that takes over write redis+sentinel://…?master=NAME";

/// The address as far as it was read, and the references that were met.
struct Reader<'a> {
    names: &'a [String],
    /// How many references the text before had.
    met: usize,
    scheme: &'a str,
    user: Option<String>,
    password: Option<Hidden>,
    hosts: Vec<(String, u16)>,
    socket: Option<PathBuf>,
    db: Option<u32>,
    shown: String,
}

/// See [`Address::parse`].
pub(super) fn address(text: &str) -> Result<Address, Wrong> {
    if text.chars().any(|c| c.is_control() || c == MARK) {
        return refused("holds a character that no address has", "percent-encode it, as %0A");
    }
    let marked = match Marked::of(text) {
        Ok(marked) => marked,
        Err(why) => return refused(format!("is no address: {why}"), "write ${credential:NAME}"),
    };
    let Some((scheme, rest)) = marked.text.split_once("://") else {
        return refused("is no address", "write redis://HOST:PORT/DB");
    };
    check_scheme(scheme)?;
    if rest.contains('#') {
        return refused("has a #", "write %23 for one in a password");
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut reader = Reader {
        names: &marked.names,
        met: 0,
        scheme,
        user: None,
        password: None,
        hosts: Vec::new(),
        socket: None,
        db: None,
        shown: format!("{scheme}://"),
    };
    reader.servers(before)?;
    reader.finish(query)
}

fn check_scheme(scheme: &str) -> Result<(), Wrong> {
    if matches!(scheme, "redis+cluster" | "rediss+cluster" | "redis-cluster") {
        return refused(
            "names a Redis Cluster, which cannot be the broker",
            "taskd's scripts move messages between keys that a cluster keeps on different servers, and Celery has no \
             transport for it either; write the address of one server, or redis+sentinel://…?master=NAME",
        );
    }
    if SCHEMES.contains(&scheme) {
        return Ok(());
    }
    let known: Vec<String> = SCHEMES.iter().map(|s| format!("{s}://")).collect();
    refused("has a scheme that is not known", format!("the schemes are {}", known.join(", ")))
}

impl Reader<'_> {
    fn is_sentinel(&self) -> bool {
        self.scheme.ends_with("sentinel")
    }

    /// All between the scheme and the options. Celery's lists of sentinels repeat the scheme:
    /// `sentinel://a:26379/0;sentinel://b:26379/0`.
    fn servers(&mut self, text: &str) -> Result<(), Wrong> {
        for (n, part) in text.split(';').enumerate() {
            if n > 0 {
                if !self.is_sentinel() {
                    return refused("names several servers", SEVERAL);
                }
                self.shown.push(';');
            }
            let rest = match part.split_once("://") {
                Some((scheme, rest)) if n > 0 && scheme == self.scheme => {
                    self.shown.push_str(&format!("{scheme}://"));
                    rest
                }
                _ => part,
            };
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let hosts = match authority.rsplit_once('@') {
                Some((who, hosts)) => {
                    self.who(who)?;
                    self.shown.push('@');
                    hosts
                }
                None => authority,
            };
            if hosts.contains(MARK) || path.contains(MARK) {
                return refused(
                    "has a credential where the server is named",
                    "only passwords of an address can be credentials",
                );
            }
            self.place(hosts, path)?;
            self.shown.push_str(&format!("{hosts}{path}"));
        }
        Ok(())
    }

    /// `USER:PASSWORD`.
    fn who(&mut self, text: &str) -> Result<(), Wrong> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.contains(MARK) {
            return refused(
                "has a credential as its user",
                "write the user itself: only passwords of an address can be credentials",
            );
        }
        self.shown.push_str(user);
        if !user.is_empty() {
            self.user = Some(decoded(user).ok_or_else(encoding)?);
        }
        if password.is_empty() {
            return Ok(());
        }
        self.shown.push_str(&format!(":{}", shown(password, self.names, self.met)));
        let hidden = Hidden::of(password, self.names, self.met).ok_or_else(encoding)?;
        self.met += password.matches(MARK).count();
        if self.password.as_ref().is_some_and(|known| *known != hidden) {
            return refused(
                "has several passwords",
                "one is that of the server; that of the sentinels is the option sentinel_password",
            );
        }
        self.password = Some(hidden);
        Ok(())
    }

    fn place(&mut self, hosts: &str, path: &str) -> Result<(), Wrong> {
        if matches!(self.scheme, "redis+socket" | "unix") {
            let path = decoded(path).ok_or_else(encoding)?;
            if !hosts.is_empty() || path.len() < 2 || path.ends_with('/') {
                let help = format!("write {}:///path/of/the/socket, with three slashes", self.scheme);
                return refused("names no socket", help);
            }
            self.socket = Some(path.into());
            return Ok(());
        }
        if hosts.contains(',') && !self.is_sentinel() {
            return refused("names several servers", SEVERAL);
        }
        let port = if self.is_sentinel() { SENTINEL_PORT } else { PORT };
        for host in hosts.split(',') {
            self.hosts.push(host_and_port(host, port)?);
        }
        match path.trim_matches('/') {
            "" => Ok(()),
            path => self.database(database(path)?),
        }
    }

    fn database(&mut self, db: u32) -> Result<(), Wrong> {
        if self.db.is_some_and(|known| known != db) {
            return refused("names two databases", "remove one of the two");
        }
        self.db = Some(db);
        Ok(())
    }

    /// With the options.
    fn finish(mut self, query: &str) -> Result<Address, Wrong> {
        let mut options = Options::parse(query, self.names, self.met)?;
        if let Some(db) = options.db {
            self.database(db)?;
        }
        let password = options.password(self.password.take())?;
        if self.user.is_some() && password == Password::None {
            return refused(
                "has a user and no password",
                "write redis://USER:PASSWORD@HOST; for a password alone redis://:PASSWORD@HOST",
            );
        }
        let sentinels = self.is_sentinel();
        let place = match (self.socket.take(), std::mem::take(&mut self.hosts)) {
            (Some(path), _) => Place::Unix(path),
            (None, hosts) if sentinels => Place::Sentinel {
                sentinels: hosts,
                master: options.master.take().ok_or_else(no_master)?,
                user: options.sentinel_user.take(),
                password: options.sentinel_password.take(),
            },
            (None, hosts) => match hosts.into_iter().next() {
                Some((host, port)) => Place::Tcp { host, port },
                None => return refused("names no host", "write redis://HOST:PORT/DB"),
            },
        };
        options.fit(&place)?;
        if let Place::Sentinel { user: Some(_), password: None, .. } = &place {
            return refused(
                "has `sentinel_username` and no `sentinel_password`",
                "add sentinel_password=PASSWORD",
            );
        }
        let tls = options.tls(matches!(self.scheme, "rediss" | "valkeys" | "rediss+sentinel"))?;
        self.show(query);
        Ok(Address {
            place,
            user: self.user,
            password,
            db: self.db.unwrap_or(0),
            tls,
            prefix: options.prefix,
            visibility_timeout: options.visibility_timeout.unwrap_or(DEFAULT_VISIBILITY_TIMEOUT),
            reply: options.reply,
            connect: options.connect,
            shown: self.shown,
        })
    }

    /// Shows the options.
    fn show(&mut self, query: &str) {
        for (n, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            self.shown.push(if n == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some(("sentinel_password", value)) => {
                    let value = shown(value, self.names, self.met);
                    self.shown.push_str(&format!("sentinel_password={value}"));
                }
                _ => self.shown.push_str(pair),
            }
            self.met += pair.matches(MARK).count();
        }
    }
}

/// `HOST`, `HOST:PORT`, `[V6]:PORT`; this machine where no host is named.
fn host_and_port(text: &str, port: u16) -> Result<(String, u16), Wrong> {
    let bad = || {
        refused(
            "has a host that is none",
            "write redis://HOST:PORT/DB, an IPv6 address in [ ]; / ? # and @ of a password are %2F %3F %23 and %40",
        )
    };
    let (host, rest) = match text.strip_prefix('[').map(|inner| inner.split_once(']')) {
        Some(Some((host, rest))) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, rest),
        Some(_) => return bad(),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => port,
        None => return bad(),
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => {
                return refused(
                    "has a port that is none",
                    "write a number from 1 to 65535 behind the host; : / and ? of a password are %3A %2F and %3F",
                );
            }
        },
    };
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')) {
        return bad();
    }
    Ok((if host.is_empty() { "127.0.0.1" } else { host }.to_owned(), port))
}

fn no_master() -> Wrong {
    Wrong {
        message: "names sentinels and no master".to_owned(),
        help: "add ?master=NAME, the name in `sentinel monitor NAME …` of sentinel.conf".to_owned(),
    }
}

fn encoding() -> Wrong {
    Wrong {
        message: "has a % that begins no percent-encoding".to_owned(),
        help: "write %25 for a % of a user or a password".to_owned(),
    }
}
