//! What the check needs to know of the machine, handed in so that the check itself stays pure.

use std::collections::BTreeMap;

use nix::unistd::{Group, User, geteuid};

use super::credential_source::CredentialSource;
use crate::model::name;

/// The user that the daemon runs as where the launcher is root and the config names none.
pub const DAEMON_USER: &str = "taskd";
/// The user that tasks run as where the launcher is root and the config names none.
pub const TASK_USER: &str = "taskd-run";

/// A question about a name.
type Lookup<T> = Box<dyn Fn(&str) -> T + Send + Sync>;

/// The machine, as far as a config can speak of it.
pub struct Env {
    /// The host name, made a valid node name.
    pub node: String,
    /// Number of CPUs, at least 1.
    pub cpus: u32,
    /// The effective uid that taskd was started with.
    pub uid: u32,
    /// That user's name; its number where it has none.
    pub user: String,
    /// Whether config files must belong to root and be writable by nobody else.
    pub check_ownership: bool,
    /// Where credentials are.
    pub credentials: CredentialSource,
    /// Whether taskd starts with (or reloads) what is read: then every credential must be there. Else one that
    /// cannot be looked at from here is no fault.
    pub starts: bool,
    users: Lookup<Option<u32>>,
    groups: Lookup<bool>,
    zones: Lookup<bool>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("node", &self.node)
            .field("cpus", &self.cpus)
            .field("uid", &self.uid)
            .field("user", &self.user)
            .field("check_ownership", &self.check_ownership)
            .field("credentials", &self.credentials)
            .field("starts", &self.starts)
            .finish_non_exhaustive()
    }
}

impl Env {
    /// This machine. Files are checked for their owner where taskd runs as root.
    #[must_use]
    pub fn real() -> Self {
        let uid = geteuid();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name);
        Self {
            node: node_name(host.trim()),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            uid: uid.as_raw(),
            user,
            check_ownership: uid.is_root(),
            credentials: CredentialSource::of_this_process(),
            starts: false,
            // NUL ends the process inside nix: a name that holds one is nobody's.
            users: Box::new(|n| {
                if n.contains('\0') {
                    return None;
                }
                User::from_name(n).ok().flatten().map(|u| u.uid.as_raw())
            }),
            groups: Box::new(|n| !n.contains('\0') && Group::from_name(n).ok().flatten().is_some()),
            zones: Box::new(|n| jiff::tz::TimeZone::get(n).is_ok()),
        }
    }

    /// A machine made of what is given, for tests: two CPUs, the host `testhost`, every group, the zones
    /// `UTC`, `Asia/Shanghai` and `Europe/Berlin`, no check of file owners, no credentials.
    #[must_use]
    pub fn made(user: &str, uid: u32, users: &[(&str, u32)]) -> Self {
        let mut known: BTreeMap<String, u32> = users.iter().map(|(n, u)| ((*n).to_owned(), *u)).collect();
        known.insert(user.to_owned(), uid);
        Self {
            node: "testhost".to_owned(),
            cpus: 2,
            uid,
            user: user.to_owned(),
            check_ownership: false,
            credentials: CredentialSource::None,
            starts: false,
            users: Box::new(move |n| known.get(n).copied()),
            groups: Box::new(|_| true),
            zones: Box::new(|n| matches!(n, "UTC" | "Asia/Shanghai" | "Europe/Berlin")),
        }
    }

    /// Another machine of which nothing is known, taskd started as root: every user, group and time zone that
    /// this machine's database could name is taken to be there. For files that are written for it.
    #[must_use]
    pub fn elsewhere() -> Self {
        // Any uid but root's and the daemon's: which one is of no matter.
        let uid_of = |name: &str| match name {
            "root" => Some(0),
            DAEMON_USER => Some(1),
            _ => Some(2),
        };
        Self {
            users: Box::new(uid_of),
            zones: Box::new(|n| jiff::tz::TimeZone::get(n).is_ok()),
            ..Self::made("root", 0, &[])
        }
    }

    /// The same for a start of taskd: see [`Env::starts`].
    #[must_use]
    pub fn starting(mut self) -> Self {
        self.starts = true;
        self
    }

    /// Whether taskd runs as root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The uid of the user of this name.
    #[must_use]
    pub fn uid_of(&self, name: &str) -> Option<u32> {
        (self.users)(name)
    }

    /// Whether a group of this name exists.
    #[must_use]
    pub fn has_group(&self, name: &str) -> bool {
        (self.groups)(name)
    }

    /// Whether the time zone database knows this name.
    #[must_use]
    pub fn has_zone(&self, name: &str) -> bool {
        (self.zones)(name)
    }
}

/// A valid node name out of whatever the host is called.
fn node_name(host: &str) -> String {
    let kept: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' })
        .take(name::MAX_LEN)
        .collect();
    let kept = kept.trim_start_matches(['.', '-']);
    if kept.is_empty() { "localhost".to_owned() } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_gives_a_valid_node_name() {
        for host in ["web1", "web1.example.org", "", "-x", "häst", "a b", &"x".repeat(300), ".."] {
            assert_eq!(name::check(&node_name(host)), Ok(()), "{host:?}");
        }
    }

    #[test]
    fn the_real_machine_knows_root_and_nobody_with_a_nul() {
        let env = Env::real();
        assert_eq!(env.uid_of("root"), Some(0));
        assert_eq!(env.uid_of("ro\0ot"), None);
        assert!(!env.has_group("ro\0ot"));
        assert!(env.cpus >= 1);
    }
}
