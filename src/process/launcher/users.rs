//! Who runs as whom: decided here from the settings and from who started the launcher, filled into the
//! settings that the daemon gets, and checked again at each request of the daemon.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{getegid, getgroups};

use crate::config::settings::{Identity, Pool, Settings};
use crate::model::task::{IoClass, Program, Task};
use crate::process::launch::Slot;
use crate::process::privileges::{self, Account, PrivilegeFault};

/// The daemon's user where the launcher is root, the config names none and this one exists.
const DAEMON: &str = "taskd";

/// The tasks' user, likewise.
const TASKS: &str = "taskd-run";

/// Who runs the launcher.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// Effective uid.
    pub(super) uid: u32,
    /// Its name.
    pub(super) name: String,
    /// Its effective group.
    pub(super) gid: u32,
    /// All its groups.
    pub(super) groups: Vec<u32>,
}

/// The machine, as far as users are concerned.
pub(super) struct Machine<'a> {
    /// Looks a user up.
    pub(super) user: &'a dyn Fn(&str) -> Result<Account, PrivilegeFault>,
    /// Looks a group up.
    pub(super) group: &'a dyn Fn(&str) -> Result<u32, PrivilegeFault>,
    /// The hard limit of open files; absent: there is none.
    pub(super) hard_nofile: Option<u64>,
    /// Effective capabilities, a bit each: root in a container may lack some.
    pub(super) capabilities: u64,
}

/// Bits of capabilities(7), by `linux/capability.h`, and their names.
const SYS_NICE: (u32, &str) = (23, "CAP_SYS_NICE");
const SYS_RESOURCE: (u32, &str) = (24, "CAP_SYS_RESOURCE");

impl Machine<'_> {
    /// The real one.
    pub(super) fn real() -> Self {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard).ok();
        let hard_nofile = hard.filter(|h| *h != nix::sys::resource::RLIM_INFINITY);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = effective.and_then(|n| u64::from_str_radix(n.trim(), 16).ok()).unwrap_or(u64::MAX);
        Self { user: &Account::lookup, group: &privileges::group_id, hard_nofile, capabilities }
    }
}

impl Who {
    pub(super) fn now() -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        let groups = getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
        Self { uid, name: Account::name_of(uid), gid: getegid().as_raw(), groups }
    }
}

/// Fills every default user into the settings and says in a sentence how users are separated.
///
/// # Errors
/// Every user and group that does not exist, that this launcher cannot become, or that tasks must not have.
pub(super) fn resolve(
    loaded: &Settings,
    who: &Who,
    machine: &Machine<'_>,
) -> Result<(Settings, String), String> {
    let mut settings = loaded.clone();
    let faults = if who.uid == 0 {
        settings.hard_nofile = machine.hard_nofile;
        fill_as_root(&mut settings, machine)
    } else {
        fill_as_user(&mut settings, who, machine)
    };
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    let sentence = sentence(&settings, who);
    Ok((settings, sentence))
}

fn fill_as_root(settings: &mut Settings, machine: &Machine<'_>) -> Vec<String> {
    let exists = |name: &str| (machine.user)(name).is_ok();
    if settings.taskd.user.is_none() && exists(DAEMON) {
        settings.taskd.user = Some(DAEMON.to_owned());
    }
    let default = exists(TASKS).then(|| TASKS.to_owned());
    for pool in settings.pools.values_mut().filter(|p| p.user.is_none()) {
        pool.user.clone_from(&default);
    }
    let mut faults = Vec::new();
    let mut find = |user: &str, whose: &str| match (machine.user)(user) {
        Ok(account) => Some(account.uid),
        Err(fault) => {
            faults.push(format!("{whose}: {fault}"));
            None
        }
    };
    let daemon = settings.taskd.user.as_deref().and_then(|u| find(u, "[taskd] user"));
    let mut shared = Vec::new();
    for (user, whose) in task_users(settings) {
        let uid = find(user, &whose);
        // A task with the daemon's uid could kill it and read its secrets and its store.
        if uid.is_some() && uid == daemon && daemon != Some(0) {
            shared.push(format!("{whose}: tasks must not run as {user}, which is the daemon's own user"));
        }
    }
    faults.extend(shared);
    let unknown = |(group, whose): (&str, String)| {
        (machine.group)(group).err().map(|fault| format!("{whose}: {fault}"))
    };
    faults.extend(task_groups(settings).into_iter().filter_map(unknown));
    faults.extend(lacking(settings, machine));
    faults
}

/// What tasks ask for that root itself may not do here.
fn lacking(settings: &Settings, machine: &Machine<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for task in settings.tasks.values().filter(|t| settings.needs_root_before(t)) {
        let asked = &task.surroundings;
        let above = asked.limit_nofile.zip(settings.hard_nofile).is_some_and(|(n, hard)| n > hard);
        for (key, wanted, (bit, name)) in [
            ("a negative nice", asked.nice.is_some_and(|n| n < 0), SYS_NICE),
            ("io_class = \"realtime\"", asked.io_class == Some(IoClass::Realtime), SYS_NICE),
            ("limit_nofile above the hard limit of taskd", above, SYS_RESOURCE),
        ] {
            if wanted && machine.capabilities & (1 << bit) == 0 {
                let task = &task.name;
                faults.push(format!(
                    "[tasks.{task}]: {key} needs {name}, which taskd was started without; grant it or remove the key"
                ));
            }
        }
    }
    faults
}

fn fill_as_user(settings: &mut Settings, who: &Who, machine: &Machine<'_>) -> Vec<String> {
    let me = &who.name;
    let only_root = |what: &str, whose: &str, key: &str| {
        format!(
            "{whose}: only root can run things {what}, and taskd was started by {me}; start it as root or remove `{key}`"
        )
    };
    let mut faults: Vec<String> = settings
        .taskd
        .user
        .iter()
        .map(|u| (u.as_str(), "[taskd] user".to_owned()))
        .chain(task_users(settings))
        .filter(|(user, _)| *user != who.name)
        .map(|(user, whose)| only_root(&format!("as {user}"), &whose, "user"))
        .collect();
    for (group, whose) in task_groups(settings) {
        match (machine.group)(group) {
            Err(fault) => faults.push(format!("{whose}: {fault}")),
            Ok(gid) if gid == who.gid || who.groups.contains(&gid) => {}
            Ok(_) => faults.push(only_root(&format!("in the group {group}"), &whose, "group")),
        }
    }
    let other_primary = |group: &str| (machine.group)(group).is_ok_and(|gid| gid != who.gid);
    for (group, whose) in primary_groups(settings) {
        if faults.is_empty() && other_primary(group) {
            faults.push(only_root(&format!("with the primary group {group}"), &whose, "group"));
        }
    }
    // One's own name is the same as none, and one has one's groups anyway.
    settings.taskd.user = None;
    for pool in settings.pools.values_mut() {
        (pool.user, pool.group, pool.supplementary_groups) = (None, None, Vec::new());
    }
    for task in settings.tasks.values_mut() {
        (task.user, task.group, task.supplementary_groups) = (None, None, Vec::new());
    }
    faults
}

/// Every user that a pool or a task names, once, and where.
fn task_users(settings: &Settings) -> Vec<(&str, String)> {
    let mut seen = BTreeSet::new();
    let pools = settings.pools.values().map(|p| (p.user.as_deref(), format!("[pools.{}]", p.name)));
    let tasks = settings.tasks.values().map(|t| (t.user.as_deref(), format!("[tasks.{}]", t.name)));
    pools.chain(tasks).filter_map(|(u, whose)| Some((u?, whose))).filter(|(u, _)| seen.insert(*u)).collect()
}

/// Every primary group that a pool or a task names, once, and where.
fn primary_groups(settings: &Settings) -> Vec<(&str, String)> {
    let mut seen = BTreeSet::new();
    let pools = settings.pools.values().map(|p| (p.group.as_deref(), format!("[pools.{}]", p.name)));
    let tasks = settings.tasks.values().map(|t| (t.group.as_deref(), format!("[tasks.{}]", t.name)));
    pools.chain(tasks).filter_map(|(g, whose)| Some((g?, whose))).filter(|(g, _)| seen.insert(*g)).collect()
}

/// Every group that a pool or a task names, primary or not, once, and where.
fn task_groups(settings: &Settings) -> Vec<(&str, String)> {
    let pools = settings.pools.values().map(|p| (&p.supplementary_groups, format!("[pools.{}]", p.name)));
    let tasks = settings.tasks.values().map(|t| (&t.supplementary_groups, format!("[tasks.{}]", t.name)));
    let more = pools
        .chain(tasks)
        .flat_map(|(groups, whose)| groups.iter().map(move |g| (g.as_str(), whose.clone())));
    let mut seen = BTreeSet::new();
    primary_groups(settings).into_iter().chain(more).filter(|(g, _)| seen.insert(*g)).collect()
}

fn sentence(settings: &Settings, who: &Who) -> String {
    let me = &who.name;
    if who.uid != 0 {
        return format!("everything runs as {me}, who started taskd");
    }
    let daemon = settings.taskd.user.as_deref();
    let pools: BTreeSet<&str> = settings.pools.values().map(|p| p.user.as_deref().unwrap_or(me)).collect();
    let own = settings.tasks.values().any(|t| t.user.is_some());
    let pools: Vec<&str> = pools.into_iter().collect();
    match (daemon, pools.as_slice()) {
        (None, [one]) if one == me && !own => {
            format!(
                "everything runs as {me}, who started taskd: the users {DAEMON} and {TASKS} do not exist and the config names none"
            )
        }
        _ => {
            let daemon = daemon.unwrap_or(me);
            let rest = if own { " unless they name another user" } else { "" };
            format!("the daemon runs as {daemon}, tasks as {}{rest}", pools.join(" or "))
        }
    }
}

/// Whether a runner of this pool and key may run this task: its key is that in this pool and in the pool that
/// it is routed to. So a message that was sent to another queue still runs, but a task without a user of its
/// own never gets the rights of another pool's user that way.
pub(super) fn may_run(settings: &Settings, pool: &Pool, key: &str, task: &Task) -> bool {
    let at_home = || settings.pool_of(settings.route(task)).map(|home| settings.runner_key(home, task));
    !matches!(task.program, Program::Worker)
        && settings.runner_key(pool, task) == key
        && at_home().as_deref() == Some(key)
}

/// The tasks that a runner of this pool and key may run.
pub(super) fn tasks_of(settings: &Settings, pool: &Pool, key: &str) -> BTreeMap<String, Task> {
    let mine = settings.tasks.iter().filter(|(_, task)| may_run(settings, pool, key, task));
    mine.map(|(name, task)| (name.clone(), task.clone())).collect()
}

/// What a child that the daemon asks for is.
#[derive(Debug)]
pub(super) struct Admitted {
    /// The tasks that it may run.
    pub(super) tasks: BTreeMap<String, Task>,
    /// Who it is to be.
    pub(super) identity: Identity,
    /// The one task for which something is set up before root is given up.
    pub(super) alone: Option<String>,
}

/// What a child that the daemon asks for is, by the config alone.
///
/// # Errors
/// Why the config does not declare such a child.
pub(super) fn admit(settings: &Settings, slot: &Slot, key: &str) -> Result<Admitted, String> {
    let Some(pool) = settings.pools.get(&slot.pool) else {
        return Err(format!("no pool {:?} is declared", slot.pool));
    };
    if slot.index >= pool.processes {
        return Err(format!(
            "the pool {} has {} processes, there is no slot {slot}",
            pool.name, pool.processes
        ));
    }
    let of_pool = Settings::identity(pool, None);
    if pool.worker.is_some() {
        // One program as one user, whatever the tasks say.
        let refused =
            || format!("the worker of the pool {} runs as {:?}, not as {key:?}", pool.name, of_pool.key());
        let fits = of_pool.key() == key;
        let admitted = Admitted { tasks: BTreeMap::new(), identity: of_pool.clone(), alone: None };
        return if fits { Ok(admitted) } else { Err(refused()) };
    }
    let tasks = tasks_of(settings, pool, key);
    // All tasks of one key have the same identity: it is in the key.
    let identity = match tasks.values().next() {
        Some(task) => Settings::identity(pool, Some(task)),
        None if of_pool.key() == key => of_pool,
        None => return Err(format!("no task of the pool {} runs as {key:?}", pool.name)),
    };
    let alone = tasks.values().find(|t| settings.needs_root_before(t)).map(|t| t.name.clone());
    Ok(Admitted { tasks, identity, alone })
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
