//! The connection of the store's thread, the scripts that the server knows, and what can go wrong with one.

use redis::{RedisError, Value};

use super::Options;
use super::args::Args;
use super::script::{self, Full};
use crate::link::redis::fault::Ask;
use crate::link::redis::{Connection, LinkError, Timeouts, classify, inspect};
use crate::model::op::Fault;

/// A connection and the script that its server knows.
pub(super) struct Link {
    pub(super) c: Connection,
    /// What is run however full the server is.
    script: Script,
    /// What is refused when it is full.
    careful: Script,
    /// The express way.
    express: Script,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Every operation.
    Ops(Full),
    /// The express way.
    Express,
}

/// A script as the server knows it.
struct Script {
    sha: String,
    text: String,
}

impl Script {
    fn load(text: String, c: &mut Connection) -> Result<Self, RedisError> {
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(&text).query(c)?;
        Ok(Self { sha, text })
    }
}

/// What went wrong with a script.
pub(super) enum Trouble {
    /// The connection: whether it took place is not known.
    Lost(String),
    /// The server says no, for now: it did not take place.
    Again(String),
    /// The server says no.
    Refused(String),
}

impl Trouble {
    pub(super) fn of(e: &RedisError) -> Self {
        let fault = classify(e);
        let text = fault.to_string();
        match fault.ask() {
            _ if fault.ends_connection() => Self::Lost(text),
            Ask::Reconnect => Self::Lost(text),
            Ask::Again | Ask::NoScript => Self::Again(text),
            // A person can mend it, and then it goes on: nothing that waits is given up for it.
            Ask::Refused => Self::Lost(text),
            Ask::Wrong => Self::Refused(text),
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Lost(text) => Fault::Reconnect(text.clone()),
            Self::Again(text) => Fault::Again(text.clone()),
            Self::Refused(text) => Fault::Refused(format!("Redis: {text}")),
        }
    }
}

impl Link {
    /// Opens a connection, looks at the server, and makes the script known to it.
    pub(super) fn open(options: &Options) -> Result<Self, LinkError> {
        let mut c =
            crate::link::redis::open(&options.address, Timeouts::of(&options.address), &options.node)?;
        let server = inspect(&mut c, options.allow_eviction)?;
        for warning in server.warnings() {
            tracing::warn!("{}: {warning}", options.address.shown());
        }
        let major: u32 = server.version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut load = |text| Script::load(text, &mut c);
        let loaded = (|| {
            let (script, careful) =
                (script::text(major >= 7, Full::Runs), script::text(major >= 7, Full::Refused));
            Ok((load(script)?, load(careful)?, load(script::express(major >= 7))?))
        })();
        let (script, careful, express) =
            loaded.map_err(|e| LinkError::new(options.address.shown(), classify(&e)))?;
        Ok(Self { c, script, careful, express })
    }

    pub(super) fn eval(&mut self, which: Which, args: &Args) -> Result<Value, RedisError> {
        let script = match which {
            Which::Ops(Full::Runs) => &self.script,
            Which::Ops(Full::Refused) => &self.careful,
            Which::Express => &self.express,
        };
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.sha).arg(0);
        for arg in args.iter() {
            cmd.arg(arg);
        }
        // `query` makes an error of an error reply; whoever takes the bare reply takes it for an answer.
        match cmd.query(&mut self.c) {
            Err(e) if classify(&e).ask() == Ask::NoScript => {
                // A restarted server, or SCRIPT FLUSH: nothing took place.
                redis::cmd("SCRIPT").arg("LOAD").arg(&script.text).exec(&mut self.c)?;
                cmd.query(&mut self.c)
            }
            answer => answer,
        }
    }
}
