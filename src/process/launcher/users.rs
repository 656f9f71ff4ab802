//! Who runs as whom: decided here from the settings and from who started the launcher, filled into the
//! settings that the daemon gets, and checked again at each request of the daemon.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{getegid, getgroups};

use crate::config::settings::{Identity, Pool, Settings};
use crate::model::task::{Program, Task};
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
}

impl Machine<'_> {
    /// The real one.
    pub(super) fn real() -> Self {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard).ok();
        let hard_nofile = hard.filter(|h| *h != nix::sys::resource::RLIM_INFINITY);
        Self { user: &Account::lookup, group: &privileges::group_id, hard_nofile }
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
    let tasks = tasks_of(settings, pool, key);
    let of_pool = Settings::identity(pool, None);
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
mod tests {
    use super::*;
    use crate::config::settings::{Access, Queue, Results, Taskd};

    fn task(name: &str, user: Option<&str>, queue: Option<&str>) -> (String, Task) {
        let task = Task {
            queue: queue.map(str::to_owned),
            user: user.map(str::to_owned),
            ..Task::new(name, Program::Command("true".to_owned()))
        };
        (name.to_owned(), task)
    }

    fn pool(name: &str, user: Option<&str>) -> (String, Pool) {
        (name.to_owned(), Pool { user: user.map(str::to_owned), ..Pool::new(name, 2) })
    }

    fn queue(name: &str) -> (String, Queue) {
        let pool = name.to_owned();
        let queue = Queue {
            name: name.to_owned(),
            pool,
            weight: 1,
            strict: false,
            concurrency: None,
            max_length: None,
        };
        (name.to_owned(), queue)
    }

    fn settings(pools: Vec<(String, Pool)>, tasks: Vec<(String, Task)>) -> Settings {
        Settings {
            generation: 1,
            taskd: Taskd {
                node: "n".to_owned(),
                broker: "embedded".to_owned(),
                results: "broker".to_owned(),
                state_dir: "/nowhere".into(),
                socket: "/nowhere/s".into(),
                timezone: None,
                max_memory_pressure: None,
                shutdown_grace_ms: 0,
                log_level: "info".to_owned(),
                user: None,
            },
            results: Results {
                expires_ms: 0,
                max_size: 0,
                max_records: 0,
                output_max_size: 0,
                output_rate: 0,
            },
            access: Access { read: Vec::new(), enqueue: Vec::new(), admin: Vec::new() },
            queues: pools.iter().map(|(name, _)| queue(name)).collect(),
            pools: pools.into_iter().collect(),
            routes: Vec::new(),
            tasks: tasks.into_iter().collect(),
            hard_nofile: None,
        }
    }

    /// [`super::resolve`] on a machine on which these users exist, each with a group of its name.
    fn resolve(
        loaded: &Settings,
        who: &Who,
        names: &'static [(&'static str, u32)],
    ) -> Result<(Settings, String), String> {
        let user = |name: &str| {
            let found = names.iter().find(|(known, _)| *known == name);
            let (name, uid) = found.ok_or_else(|| PrivilegeFault::Unknown(name.to_owned()))?;
            Ok(Account {
                name: (*name).to_owned(),
                uid: *uid,
                gid: *uid,
                groups: vec![*uid],
                home: "/".into(),
                shell: "/bin/sh".into(),
            })
        };
        let group = |name: &str| {
            user(name).map(|account| account.gid).map_err(|_| PrivilegeFault::UnknownGroup(name.to_owned()))
        };
        super::resolve(loaded, who, &Machine { user: &user, group: &group, hard_nofile: Some(4096) })
    }

    fn who(uid: u32, name: &str, groups: &[u32]) -> Who {
        Who { uid, name: name.to_owned(), gid: uid, groups: groups.to_vec() }
    }

    fn root() -> Who {
        who(0, "root", &[0])
    }

    #[test]
    fn the_packages_users_are_the_default_where_they_exist() {
        let loaded =
            settings(vec![pool("default", None), pool("web", Some("www"))], vec![task("t", None, None)]);
        let (filled, sentence) =
            resolve(&loaded, &root(), &[("taskd", 100), ("taskd-run", 101), ("www", 33)]).unwrap();
        assert_eq!(filled.taskd.user.as_deref(), Some("taskd"));
        assert_eq!(filled.pools["default"].user.as_deref(), Some("taskd-run"));
        assert_eq!(filled.pools["web"].user.as_deref(), Some("www"));
        assert_eq!(sentence, "the daemon runs as taskd, tasks as taskd-run or www");
        let loaded = settings(vec![pool("default", None)], vec![task("t", None, None)]);
        let (filled, sentence) = resolve(&loaded, &root(), &[]).unwrap();
        assert_eq!((&filled.taskd.user, &filled.pools["default"].user), (&None, &None));
        assert!(sentence.starts_with("everything runs as root"), "{sentence}");
    }

    #[test]
    fn all_faults_come_at_once_and_shared_uids_are_one() {
        let tasks = vec![
            task("a", Some("taskd"), None),
            task("b", Some("ghost"), None),
            task("c", Some("twin"), None),
        ];
        let loaded = settings(vec![pool("default", None)], tasks);
        let fault = resolve(&loaded, &root(), &[("taskd", 100), ("twin", 100)]).unwrap_err();
        assert_eq!(fault.lines().count(), 3, "{fault}");
        assert!(
            fault.contains("[tasks.a]") && fault.contains("ghost") && fault.contains("[tasks.c]"),
            "{fault}"
        );
    }

    #[test]
    fn an_ordinary_user_runs_all_and_refuses_others() {
        let me = who(1000, "me", &[1000]);
        let loaded = settings(vec![pool("default", Some("me"))], vec![task("t", Some("me"), None)]);
        let (filled, sentence) = resolve(&loaded, &me, &[]).unwrap();
        assert_eq!((&filled.pools["default"].user, &filled.tasks["t"].user), (&None, &None));
        assert_eq!(sentence, "everything runs as me, who started taskd");
        let loaded = settings(vec![pool("default", Some("root"))], vec![]);
        assert!(resolve(&loaded, &me, &[]).unwrap_err().contains("[pools.default]"));
    }

    #[test]
    fn a_runner_gets_the_tasks_of_its_pool_and_user_only() {
        let pools =
            vec![pool("default", Some("low")), pool("admin", Some("high")), pool("more", Some("low"))];
        let tasks = vec![
            task("plain", None, None),
            task("own", Some("high"), None),
            task("routed", None, Some("admin")),
        ];
        let settings = settings(pools, tasks);
        let of = |pool: &str, user: &str| {
            tasks_of(&settings, &settings.pools[pool], user).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(of("default", "low"), ["plain"]);
        assert_eq!(of("default", "high"), ["own"], "`routed` has no user of its own: here it would be low");
        assert_eq!(of("admin", "high"), ["own", "routed"], "`plain` must not become high by its queue");
        assert_eq!(of("more", "low"), ["plain"], "the same user: a message may be sent there");
        assert!(of("default", "").is_empty());
        let slot = |pool: &str, index| Slot { pool: pool.to_owned(), index };
        assert!(admit(&settings, &slot("more", 1), "low").is_ok());
        assert!(admit(&settings, &slot("more", 2), "low").is_err());
        assert!(admit(&settings, &slot("more", 0), "").is_err());
        assert!(admit(&settings, &slot("none", 0), "low").is_err());
    }

    fn grouped(name: &str, group: Option<&str>, more: &[&str]) -> (String, Task) {
        let (key, mut made) = task(name, None, None);
        made.group = group.map(str::to_owned);
        made.supplementary_groups = more.iter().map(|g| (*g).to_owned()).collect();
        (key, made)
    }

    #[test]
    fn groups_must_exist_and_part_runners() {
        let tasks = vec![
            task("plain", None, None),
            grouped("web", Some("www"), &[]),
            grouped("more", None, &["www", "adm"]),
        ];
        let loaded = settings(vec![pool("default", Some("low"))], tasks);
        let fault = resolve(&loaded, &root(), &[("low", 7), ("www", 33)]).unwrap_err();
        assert!(fault.contains("[tasks.more]: the group \"adm\" does not exist"), "{fault}");
        let (filled, _) = resolve(&loaded, &root(), &[("low", 7), ("www", 33), ("adm", 4)]).unwrap();
        let slot = Slot { pool: "default".to_owned(), index: 0 };
        for (key, name, group, more) in [
            ("low", "plain", None, &[][..]),
            ("low:www", "web", Some("www"), &[]),
            ("low:+www+adm", "more", None, &["www", "adm"]),
        ] {
            let admitted = admit(&filled, &slot, key).unwrap();
            assert_eq!(admitted.tasks.keys().collect::<Vec<_>>(), [name]);
            let identity = admitted.identity;
            assert_eq!((identity.user.as_deref(), identity.group.as_deref()), (Some("low"), group));
            assert_eq!(identity.supplementary_groups, more);
        }
        assert!(admit(&filled, &slot, "low:adm").is_err());
        assert!(admit(&filled, &slot, "low:www+adm").is_err());
    }

    #[test]
    fn an_ordinary_user_has_its_own_groups_only() {
        let loaded =
            |group, more: &[&str]| settings(vec![pool("default", None)], vec![grouped("t", group, more)]);
        let machine: &[(&str, u32)] = &[("me", 1000), ("adm", 4), ("tty", 5)];
        let me = who(1000, "me", &[1000, 4]);
        let (filled, _) = resolve(&loaded(Some("me"), &["adm"]), &me, machine).unwrap();
        assert_eq!(filled.tasks["t"].group, None);
        assert!(filled.tasks["t"].supplementary_groups.is_empty());
        let fault = |group, more: &[&str]| resolve(&loaded(group, more), &me, machine).unwrap_err();
        assert!(fault(None, &["tty"]).contains("only root can run things in the group tty"));
        assert!(fault(Some("adm"), &[]).contains("primary group adm"), "a member, but not by default");
        assert!(fault(None, &["none"]).contains("does not exist"));
    }

    #[test]
    fn what_needs_root_first_has_a_runner_of_its_own() {
        let (name, mut hasty) = task("hasty", None, None);
        hasty.surroundings.nice = Some(-5);
        let (other, mut open) = task("open", None, None);
        open.surroundings.limit_nofile = Some(5_000);
        let tasks = vec![(name, hasty), (other, open), task("plain", None, None)];
        let (filled, _) =
            resolve(&settings(vec![pool("default", Some("low"))], tasks), &root(), &[("low", 7)]).unwrap();
        let slot = Slot { pool: "default".to_owned(), index: 0 };
        let alone = |key: &str| {
            let admitted = admit(&filled, &slot, key).unwrap();
            (admitted.tasks.into_keys().collect::<Vec<_>>(), admitted.alone)
        };
        assert_eq!(alone("low#hasty"), (vec!["hasty".to_owned()], Some("hasty".to_owned())));
        assert_eq!(alone("low#open"), (vec!["open".to_owned()], Some("open".to_owned())));
        assert_eq!(alone("low"), (vec!["plain".to_owned()], None));
        assert!(admit(&filled, &slot, "low#plain").is_err());
        assert!(admit(&filled, &slot, "root#hasty").is_err());
    }
}
