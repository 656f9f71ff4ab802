//! What a server is, and whether it can be the broker: looked at at the start and after each reconnect.

use std::collections::BTreeMap;
use std::fmt;

use redis::RedisError;

use super::connection::Connection;
use super::error::LinkError;
use super::fault::{Fault, Reason, classify};

/// The oldest version: `LMOVE`, `ZRANGE … BYSCORE` and `ZADD GT` (kombu 5.7 needs it too).
pub const OLDEST: (u32, u32) = (6, 2);

/// What answers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Redis, or something that calls itself so.
    Redis,
    /// Valkey.
    Valkey,
}

/// A server that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it is.
    pub product: Product,
    /// Its version; of Valkey its own, not the one of Redis that it claims to be.
    pub version: String,
    /// Drawn by each start of a server: another one is another server, or one that was restarted.
    pub run_id: String,
    /// What it does when its memory is full.
    pub policy: String,
    /// Bytes that it may use; zero: as many as there are.
    pub maxmemory: u64,
    /// Keys that it dropped for want of memory since it was started. Where that grows, messages may be gone.
    pub evicted_keys: u64,
    /// Whether it appends each write to a file.
    pub appends: bool,
    /// Replicas that are connected.
    pub replicas: u32,
}

impl Server {
    /// What a person should know of it, in sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut told = Vec::new();
        if !self.appends {
            told.push(
                "Redis has `appendonly no`: a crash or a restart loses what was enqueued since its last snapshot; set \
                 `appendonly yes` in redis.conf"
                    .to_owned(),
            );
        }
        if self.evicts() {
            told.push(format!(
                "Redis has `maxmemory-policy {}`: when its memory is full it drops {}, and taskd is not told",
                self.policy,
                if self.policy.starts_with("volatile") { "results" } else { "messages" }
            ));
        }
        if self.evicted_keys > 0 {
            told.push(format!(
                "Redis has dropped {} keys for want of memory: messages or results may be gone",
                self.evicted_keys
            ));
        }
        told
    }

    /// Whether it may drop keys.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.policy != "noeviction"
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = match self.product {
            Product::Redis => "Redis",
            Product::Valkey => "Valkey",
        };
        write!(f, "{product} {}", self.version)
    }
}

/// Looks at the server behind a connection.
///
/// # Errors
/// Why it cannot be the broker, or not now: too old, a cluster, a replica, a sentinel, it drops keys (unless
/// `allow_eviction`), runs no scripts, is loading, or does not let this user look.
pub fn inspect(connection: &mut Connection, allow_eviction: bool) -> Result<Server, LinkError> {
    let shown = connection.server().to_owned();
    let because = |fault: Fault| LinkError::new(&shown, fault);
    let server = look(connection, allow_eviction)?;
    // As the scripts are run: loaded, by their digest, and whole where they are gone.
    let script = "return 1";
    let loaded: Result<String, RedisError> = redis::cmd("SCRIPT").arg("LOAD").arg(script).query(connection);
    let digest = loaded.map_err(|e| because(denied(&e, "script|load")))?;
    for (command, what) in [("EVALSHA", digest.as_str()), ("EVAL", script)] {
        let ran: Result<i64, RedisError> = redis::cmd(command).arg(what).arg(0).query(connection);
        match ran.map_err(|e| because(denied(&e, &command.to_ascii_lowercase())))? {
            1 => {}
            other => {
                let said = format!("a script that answers 1 answered {other}");
                return Err(because(Fault::new(Reason::NoScripts, said)));
            }
        }
    }
    Ok(server)
}

/// Looks at the server alone, not at what it permits.
///
/// # Errors
/// As [`inspect`].
pub fn look(connection: &mut Connection, allow_eviction: bool) -> Result<Server, LinkError> {
    let shown = connection.server().to_owned();
    let because = |fault: Fault| LinkError::new(&shown, fault);
    let info: String = redis::cmd("INFO").query(connection).map_err(|e| because(denied(&e, "info")))?;
    judge(&read(&info), allow_eviction).map_err(because)
}

/// Why a command that everything hangs on failed.
fn denied(error: &RedisError, command: &str) -> Fault {
    let fault = classify(error);
    let rule = format!("the rule +{command} is missing ({})", fault.said);
    match fault.reason {
        Reason::NoPerm if command == "info" => Fault::new(Reason::NoPerm, rule),
        Reason::NoPerm => Fault::new(Reason::NoScripts, rule),
        Reason::Wrong if fault.said.contains("unknown command") => {
            let reason = if command == "info" { Reason::Protocol } else { Reason::NoScripts };
            Fault::new(reason, fault.said)
        }
        _ => fault,
    }
}

/// The lines of INFO.
fn read(info: &str) -> BTreeMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

fn judge(info: &BTreeMap<&str, &str>, allow_eviction: bool) -> Result<Server, Fault> {
    let text = |key: &str| info.get(key).copied().unwrap_or_default();
    let number = |key: &str| text(key).parse::<u64>().unwrap_or(0);
    let claimed = text("redis_version");
    if text("redis_mode") == "sentinel" {
        return Err(Fault::new(Reason::Sentinel, ""));
    }
    if number("loading") != 0 {
        let eta = text("loading_eta_seconds");
        let said = if eta.is_empty() { String::new() } else { format!("{eta} s are left") };
        return Err(Fault::new(Reason::Loading, said));
    }
    if text("cluster_enabled") == "1" || text("redis_mode") == "cluster" {
        return Err(Fault::new(Reason::Cluster, ""));
    }
    let mut parts = claimed.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < OLDEST {
        let said = if claimed.is_empty() { "it does not say its version" } else { claimed };
        return Err(Fault::new(Reason::Version, said));
    }
    if !matches!(text("role"), "master" | "") {
        return Err(Fault::new(
            Reason::ReadOnly,
            format!("its master is {}:{}", text("master_host"), text("master_port")),
        ));
    }
    let valkey = text("valkey_version");
    let server = Server {
        product: if valkey.is_empty() { Product::Redis } else { Product::Valkey },
        version: if valkey.is_empty() { claimed } else { valkey }.to_owned(),
        run_id: text("run_id").to_owned(),
        policy: Some(text("maxmemory_policy")).filter(|p| !p.is_empty()).unwrap_or("noeviction").to_owned(),
        maxmemory: number("maxmemory"),
        evicted_keys: number("evicted_keys"),
        appends: text("aof_enabled") != "0",
        replicas: u32::try_from(number("connected_slaves")).unwrap_or(u32::MAX),
    };
    if server.evicts() && !allow_eviction {
        return Err(Fault::new(Reason::Evicts, format!("maxmemory-policy is {}", server.policy)));
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n# Memory\r\n\
        maxmemory:0\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\naof_enabled:1\r\n# Stats\r\n\
        evicted_keys:0\r\n# Replication\r\nrole:master\r\nconnected_slaves:2\r\n# Cluster\r\ncluster_enabled:0\r\n";

    fn with(from: &str, to: &str) -> Result<Server, Fault> {
        assert!(GOOD.contains(from), "{from}");
        judge(&read(&GOOD.replace(from, to)), false)
    }

    #[test]
    fn servers_that_can_and_cannot_be_used() {
        let good = with("redis_version", "redis_version").unwrap();
        assert_eq!((good.to_string().as_str(), good.run_id.as_str()), ("Redis 7.0.15", "abc"));
        assert!(good.warnings().is_empty() && good.replicas == 2);
        let valkey = with("redis_version:7.0.15", "redis_version:7.2.4\r\nvalkey_version:8.1.0").unwrap();
        assert_eq!(valkey.to_string(), "Valkey 8.1.0");
        assert!(with("7.0.15", "6.2.0").is_ok() && with("7.0.15", "10.0").is_ok());
        for (from, to, reason, said) in [
            ("7.0.15", "6.0.16", Reason::Version, "6.0.16"),
            ("redis_version:7.0.15", "x:y", Reason::Version, "does not say"),
            ("standalone", "sentinel", Reason::Sentinel, ""),
            ("standalone", "cluster", Reason::Cluster, ""),
            ("cluster_enabled:0", "cluster_enabled:1", Reason::Cluster, ""),
            ("loading:0", "loading:1\r\nloading_eta_seconds:7", Reason::Loading, "7 s"),
            ("role:master", "role:slave\r\nmaster_host:a\r\nmaster_port:1", Reason::ReadOnly, "a:1"),
            ("noeviction", "allkeys-lru", Reason::Evicts, "allkeys-lru"),
            ("noeviction", "volatile-ttl", Reason::Evicts, "volatile-ttl"),
        ] {
            let fault = with(from, to).unwrap_err();
            assert_eq!(fault.reason, reason, "{to}");
            assert!(fault.said.contains(said), "{fault}");
        }
    }

    #[test]
    fn what_is_allowed_is_warned_of() {
        let lossy = GOOD.replace("noeviction", "allkeys-lfu").replace("aof_enabled:1", "aof_enabled:0");
        let lossy = lossy.replace("evicted_keys:0", "evicted_keys:12");
        let told = judge(&read(&lossy), true).unwrap().warnings().join("\n");
        for part in ["appendonly", "allkeys-lfu", "drops messages", "12 keys"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
