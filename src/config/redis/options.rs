//! What may stand behind the `?` of an address. The names are Celery's, kombu's and redis-py's where they have one.

use std::path::PathBuf;
use std::time::Duration;

use super::hidden::{Hidden, MARK, decoded};
use super::{Password, Place, Tls, Verify, refused};
use crate::config::keys::suggest;
use crate::config::values::{self, Wrong};

/// Every option with what it is, as the manual tells it.
pub const OPTIONS: &[(&str, &str)] = &[
    ("db", "number of the database, where the path does not say it"),
    ("virtual_host", "the same, in kombu's word for it"),
    ("password_file", "file whose text is the password, read at each connection"),
    ("master", "name of the master that the sentinels watch; required with them"),
    ("master_name", "the same, in kombu's word for it"),
    ("sentinel_username", "user of the sentinels"),
    ("sentinel_password", "password of the sentinels"),
    ("ssl_cert_reqs", "\"required\" (the default), or \"none\": whoever answers is trusted"),
    ("ssl_check_hostname", "whether the certificate must be of this host; true by default"),
    ("ssl_ca_certs", "PEM file of authorities that are trusted beside the system's"),
    ("ssl_certfile", "PEM file of the client's own certificate"),
    ("ssl_keyfile", "PEM file of the key of that; by default the same file"),
    ("global_keyprefix", "what stands before each key and channel"),
    (
        "visibility_timeout",
        "seconds, or a duration, after which what Celery workers took and did not finish is given to others; 1h by default",
    ),
    ("socket_timeout", "seconds to wait for an answer; 5 by default"),
    ("socket_connect_timeout", "seconds to wait for a connection; 3 by default"),
];

/// Options of Celery, kombu and redis-py that say nothing to taskd, and why not.
const NEEDLESS: &[(&str, &str)] = &[
    ("socket_keepalive", "taskd always has keepalive on"),
    ("socket_keepalive_options", "taskd always has keepalive on"),
    ("health_check_interval", "taskd looks after its connections itself"),
    ("retry_on_timeout", "taskd always goes on trying"),
    ("retry_on_error", "taskd always goes on trying"),
    ("max_connections", "taskd has a fixed, small number of connections"),
    ("socket_read_size", "taskd reads as much as there is"),
    ("client_name", "taskd names its connections after the node"),
    ("protocol", "taskd speaks RESP3"),
    ("decode_responses", "this is an option of redis-py's interface"),
    ("encoding", "this is an option of redis-py's interface"),
    ("encoding_errors", "this is an option of redis-py's interface"),
    ("min_other_sentinels", "taskd asks the server itself whether it is the master"),
    ("queue_order_strategy", "order between queues is `weight` and `strict` of [queues.NAME]"),
    ("polling_interval", "taskd does not poll"),
];

/// Options of kombu with which its clients would write elsewhere than taskd reads.
const FIXED: &[&str] = &[
    "priority_steps",
    "sep",
    "fanout_prefix",
    "fanout_patterns",
    "unacked_key",
    "unacked_index_key",
    "unacked_mutex_key",
    "unacked_mutex_expire",
];

/// Longest wait for a connection or an answer, in seconds.
const LONGEST_WAIT: f64 = 300.0;

/// What the options say.
#[derive(Default)]
pub(super) struct Options {
    pub(super) db: Option<u32>,
    password_file: Option<PathBuf>,
    pub(super) master: Option<String>,
    pub(super) sentinel_user: Option<String>,
    pub(super) sentinel_password: Option<Hidden>,
    verify: Option<Verify>,
    check_hostname: Option<bool>,
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    pub(super) prefix: String,
    pub(super) visibility_timeout: Option<Duration>,
    pub(super) reply: Option<Duration>,
    pub(super) connect: Option<Duration>,
    /// The first that needs TLS.
    of_tls: Option<&'static str>,
    /// The first that needs sentinels.
    of_sentinels: Option<&'static str>,
}

impl Options {
    /// Reads `a=b&c=d`. `before`: how many references to credentials stand before it.
    pub(super) fn parse(query: &str, names: &[String], mut before: usize) -> Result<Self, Wrong> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = OPTIONS.iter().map(|(name, _)| *name).find(|name| *name == written) else {
                return Err(unknown(written));
            };
            if seen.contains(&name) {
                return refused(format!("has the option `{name}` twice"), "remove one of the two");
            }
            seen.push(name);
            if name == "sentinel_password" {
                let hidden = Hidden::of(value, names, before).filter(|_| !value.is_empty());
                options.sentinel_password = Some(hidden.ok_or_else(|| encoding(name))?);
                options.of_sentinels.get_or_insert(name);
            } else if value.contains(MARK) {
                return refused(
                    format!("has a credential in its option `{name}`"),
                    "only passwords of an address can be credentials",
                );
            } else {
                let value = decoded(value).ok_or_else(|| encoding(name))?;
                options.take(name, value)?;
            }
            before += pair.matches(MARK).count();
        }
        Ok(options)
    }

    fn take(&mut self, name: &'static str, value: String) -> Result<(), Wrong> {
        if value.is_empty() {
            let help = format!("write {name}=VALUE or remove it");
            return refused(format!("has the option `{name}` without a value"), help);
        }
        if name.starts_with("ssl_") {
            self.of_tls.get_or_insert(name);
        }
        match name {
            "db" | "virtual_host" => {
                let db = super::database(value.strip_prefix('/').unwrap_or(&value))?;
                if self.db.is_some_and(|known| known != db) {
                    return refused("names two databases", "remove one of the two");
                }
                self.db = Some(db);
            }
            "password_file" => self.password_file = Some(path(name, value)?),
            "master" | "master_name" => {
                self.of_sentinels.get_or_insert(name);
                self.master = Some(value);
            }
            "sentinel_username" => {
                self.of_sentinels.get_or_insert(name);
                self.sentinel_user = Some(value);
            }
            "ssl_cert_reqs" => self.verify = Some(verify(&value)?),
            "ssl_check_hostname" => self.check_hostname = Some(flag(name, &value)?),
            "ssl_ca_certs" => self.authorities = Some(path(name, value)?),
            "ssl_certfile" => self.certificate = Some(path(name, value)?),
            "ssl_keyfile" => self.key = Some(path(name, value)?),
            "global_keyprefix" => self.prefix = value,
            "visibility_timeout" => self.visibility_timeout = Some(period(name, &value)?),
            "socket_timeout" => self.reply = Some(wait(name, &value)?),
            "socket_connect_timeout" => self.connect = Some(wait(name, &value)?),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// What they say of TLS, where it is spoken.
    pub(super) fn tls(&mut self, spoken: bool) -> Result<Option<Tls>, Wrong> {
        if !spoken {
            return match self.of_tls {
                Some(name) => {
                    refused(format!("has the option `{name}` and no TLS"), "write rediss:// for TLS")
                }
                None => Ok(None),
            };
        }
        let verify = match (self.verify, self.check_hostname) {
            (Some(Verify::Nothing), _) => Verify::Nothing,
            (_, Some(false)) => Verify::Authority,
            _ => Verify::Host,
        };
        let own = match (self.certificate.take(), self.key.take()) {
            (Some(certificate), key) => Some((certificate.clone(), key.unwrap_or(certificate))),
            (None, Some(_)) => {
                let help = "add ssl_certfile=/path/of/the/certificate";
                return refused("has `ssl_keyfile` without `ssl_certfile`", help);
            }
            (None, None) => None,
        };
        Ok(Some(Tls { verify, authorities: self.authorities.take(), own }))
    }

    /// The password: the written one, or where it stands.
    pub(super) fn password(&mut self, written: Option<Hidden>) -> Result<Password, Wrong> {
        match (written, self.password_file.take()) {
            (Some(_), Some(_)) => refused("has a password and `password_file`", "remove one of the two"),
            (Some(written), None) => Ok(Password::Written(written)),
            (None, Some(file)) => Ok(Password::File(file)),
            (None, None) => Ok(Password::None),
        }
    }

    /// Options of sentinels need some.
    pub(super) fn fit(&self, place: &Place) -> Result<(), Wrong> {
        match (place, self.of_sentinels) {
            (Place::Tcp { .. } | Place::Unix(_), Some(name)) => refused(
                format!("has the option `{name}` and names no sentinels"),
                "write redis+sentinel://HOST:PORT,HOST:PORT/DB?master=NAME",
            ),
            _ => Ok(()),
        }
    }
}

fn unknown(name: &str) -> Wrong {
    if let Some((name, why)) = NEEDLESS.iter().find(|(known, _)| *known == name) {
        return Wrong {
            message: format!("has the option `{name}`, which is not taskd's"),
            help: format!("remove it: {why}"),
        };
    }
    if FIXED.contains(&name) {
        return Wrong {
            message: format!("has the option `{name}`, and taskd keeps to kombu's default of it"),
            help: "remove it here and in broker_transport_options of the Celery apps".to_owned(),
        };
    }
    let help = match suggest(name, OPTIONS.iter().map(|(known, _)| *known)) {
        Some(near) => format!("did you mean `{near}`?"),
        // What is no word may be the rest of a password with a `?` in it.
        None if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') => {
            return Wrong {
                message: "has behind its ? what is no option".to_owned(),
                help: "write NAME=VALUE&NAME=VALUE there; a ? of a password is %3F".to_owned(),
            };
        }
        None => {
            let known: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
            format!("the options are {}", known.join(", "))
        }
    };
    Wrong { message: format!("has the unknown option `{name}`"), help }
}

fn encoding(name: &str) -> Wrong {
    Wrong {
        message: format!("has the option `{name}` with nothing, or with a % that begins no percent-encoding"),
        help: "write %25 for a %".to_owned(),
    }
}

fn path(name: &str, value: String) -> Result<PathBuf, Wrong> {
    if value.starts_with('/') {
        return Ok(value.into());
    }
    refused(format!("has the option `{name}` with a path that is not absolute"), "begin it with /")
}

fn flag(name: &str, value: &str) -> Result<bool, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => refused(format!("has the option `{name}` with neither true nor false"), "write true or false"),
    }
}

fn verify(value: &str) -> Result<Verify, Wrong> {
    // For a client Python's `ssl` does the same with "optional" and "required" (docs.python.org, ssl.CERT_OPTIONAL).
    match value.to_ascii_lowercase().trim_start_matches("cert_") {
        "required" | "optional" => Ok(Verify::Host),
        "none" => Ok(Verify::Nothing),
        _ => {
            refused("has the option `ssl_cert_reqs` with a value that is not known", "write required or none")
        }
    }
}

fn period(name: &str, value: &str) -> Result<Duration, Wrong> {
    let ms = match value.parse::<u64>() {
        Ok(seconds) => Some(seconds.saturating_mul(1_000)),
        Err(_) => values::duration(value).ok(),
    };
    match ms.filter(|ms| (1_000..=31_536_000_000).contains(ms)) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => refused(
            format!("has the option `{name}` with a time that is not between 1 s and a year"),
            "write seconds, as 3600, or a duration, as 1h",
        ),
    }
}

fn wait(name: &str, value: &str) -> Result<Duration, Wrong> {
    match value.parse::<f64>().ok().filter(|s| (0.01..=LONGEST_WAIT).contains(s)) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => refused(
            format!("has the option `{name}` with a time that is not between 0.01 and 300 seconds"),
            "write seconds, as 5 or 0.5",
        ),
    }
}
