//! Who the daemon and the tasks run as, and whether the machine and the rules allow it.

use super::check::Check;
use super::env::{DAEMON_USER, Env, TASK_USER};
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};

/// The users of a config.
pub(super) struct Users {
    /// The daemon's own; absent: whoever started taskd.
    pub(super) daemon: Option<String>,
    /// The daemon's uid, where it is not simply that of whoever started taskd.
    pub(super) daemon_uid: Option<u32>,
    /// What tasks run as where neither they nor their pool say it; absent: whoever started taskd.
    pub(super) tasks: Option<String>,
}

impl Users {
    /// Reads `[taskd] user` and the machine.
    pub(super) fn new(check: &mut Check<'_>, taskd: Option<&Section>) -> Self {
        let mut users = Self { daemon: None, daemon_uid: None, tasks: None };
        let named = taskd.and_then(|s| s.get("user").map(|set| (s, set)));
        users.daemon = match named {
            Some((section, set)) => users.known(check, set, &section.path("user"), "the daemon"),
            None if check.env.is_root() && check.env.uid_of(DAEMON_USER).is_some() => {
                Some(DAEMON_USER.to_owned())
            }
            None => None,
        };
        users.daemon_uid = users.daemon.as_deref().and_then(|n| check.env.uid_of(n));
        let free = check.env.uid_of(TASK_USER).is_some_and(|uid| Some(uid) != users.daemon_uid);
        users.tasks = (check.env.is_root() && free).then(|| TASK_USER.to_owned());
        users
    }

    /// The user that a pool or task names; absent where that is whoever started taskd anyway, or a fault.
    pub(super) fn of(&self, check: &mut Check<'_>, set: &Set, path: &str) -> Option<String> {
        let name = self.known(check, set, path, "tasks")?;
        if self.daemon_uid.is_some() && check.env.uid_of(&name) == self.daemon_uid {
            let message = format!("tasks cannot run as `{name}`, which is the daemon's own user");
            let help =
                "a task could kill the daemon and read its store: give tasks another user, as `taskd-run`";
            check.fault(Fault::new(FaultKind::Reference, &set.at, path, message).help(help));
            return None;
        }
        Some(name)
    }

    fn known(&self, check: &mut Check<'_>, set: &Set, path: &str, who: &str) -> Option<String> {
        let name = set.text()?;
        let env = check.env;
        if !env.is_root() {
            if name != env.user {
                let message = format!("taskd was started as `{}` and cannot run {who} as `{name}`", env.user);
                let help = "start taskd as root, or remove `user`";
                check.fault(Fault::new(FaultKind::Reference, &set.at, path, message).help(help));
            }
            return None;
        }
        if env.uid_of(name).is_none() {
            let help = format!("create it, as with `useradd --system {name}`, or name another");
            let fault = Fault::new(FaultKind::Reference, &set.at, path, format!("there is no user `{name}`"));
            check.fault(fault.help(help));
            return None;
        }
        Some(name.to_owned())
    }

    /// What there is to say about how users are separated.
    pub(super) fn notes(&self, env: &Env) -> Option<String> {
        let who = &env.user;
        match (&self.daemon, &self.tasks, env.is_root()) {
            (_, _, false) => None,
            (None, None, true) => Some(format!(
                "there are no users `{DAEMON_USER}` and `{TASK_USER}`: the daemon, and tasks without `user`, run as {who}"
            )),
            (None, Some(_), true) => {
                Some(format!("there is no user `{DAEMON_USER}`: the daemon runs as {who}"))
            }
            (Some(_), _, true) => None,
        }
    }
}
