//! Who runs as whom: decided here from the settings and from who started the launcher, filled into the
//! settings that the daemon gets, and checked again at each request of the daemon.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::settings::{Pool, Settings};
use crate::model::task::{Program, Task};
use crate::process::launch::Slot;
use crate::process::privileges::{Account, PrivilegeFault};

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
}

/// Looks users up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Result<Account, PrivilegeFault>;

impl Who {
    pub(super) fn now() -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        Self { uid, name: Account::name_of(uid) }
    }
}

/// Fills every default user into the settings and says in a sentence how users are separated.
///
/// # Errors
/// Every user that does not exist, that this launcher cannot become, or that tasks must not have.
pub(super) fn resolve(
    loaded: &Settings,
    who: &Who,
    lookup: Lookup<'_>,
) -> Result<(Settings, String), String> {
    let mut settings = loaded.clone();
    let faults =
        if who.uid == 0 { fill_as_root(&mut settings, lookup) } else { fill_as_user(&mut settings, who) };
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    let sentence = sentence(&settings, who);
    Ok((settings, sentence))
}

fn fill_as_root(settings: &mut Settings, lookup: Lookup<'_>) -> Vec<String> {
    let exists = |name: &str| lookup(name).is_ok();
    if settings.taskd.user.is_none() && exists(DAEMON) {
        settings.taskd.user = Some(DAEMON.to_owned());
    }
    let default = exists(TASKS).then(|| TASKS.to_owned());
    for pool in settings.pools.values_mut().filter(|p| p.user.is_none()) {
        pool.user.clone_from(&default);
    }
    let mut faults = Vec::new();
    let mut find = |user: &str, whose: &str| match lookup(user) {
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
    faults
}

fn fill_as_user(settings: &mut Settings, who: &Who) -> Vec<String> {
    let strange: Vec<(String, String)> = settings
        .taskd
        .user
        .iter()
        .map(|u| (u.clone(), "[taskd] user".to_owned()))
        .chain(task_users(settings).into_iter().map(|(u, whose)| (u.to_owned(), whose)))
        .filter(|(user, _)| *user != who.name)
        .collect();
    // One's own name is the same as none.
    settings.taskd.user = None;
    settings.pools.values_mut().for_each(|p| p.user = None);
    settings.tasks.values_mut().for_each(|t| t.user = None);
    let me = &who.name;
    strange
        .into_iter()
        .map(|(user, whose)| {
            format!("{whose}: only root can run things as {user}, and taskd was started by {me}; start it as root or remove `user`")
        })
        .collect()
}

/// Every user that a pool or a task names, once, and where.
fn task_users(settings: &Settings) -> Vec<(&str, String)> {
    let mut seen = BTreeSet::new();
    let pools = settings.pools.values().map(|p| (p.user.as_deref(), format!("[pools.{}]", p.name)));
    let tasks = settings.tasks.values().map(|t| (t.user.as_deref(), format!("[tasks.{}]", t.name)));
    pools.chain(tasks).filter_map(|(u, whose)| Some((u?, whose))).filter(|(u, _)| seen.insert(*u)).collect()
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

/// The user of a task in this pool; empty: whoever runs taskd.
fn user_in<'a>(pool: &'a Pool, task: &'a Task) -> &'a str {
    task.user.as_deref().or(pool.user.as_deref()).unwrap_or_default()
}

/// The tasks that a runner of this pool and user may run: those whose user it is in this pool and in the
/// pool that they are routed to. So a message that was sent to another queue still runs, but a task without
/// a user of its own never gets the rights of another pool's user that way.
pub(super) fn tasks_of(settings: &Settings, pool: &Pool, user: &str) -> BTreeMap<String, Task> {
    let at_home =
        |task: &Task| settings.pool_of(settings.route(task)).map(|home| user_in(home, task) == user);
    settings
        .tasks
        .iter()
        .filter(|(_, task)| !matches!(task.program, Program::Worker))
        .filter(|(_, task)| user_in(pool, task) == user && at_home(task) == Some(true))
        .map(|(name, task)| (name.clone(), task.clone()))
        .collect()
}

/// The tasks of a child that the daemon asks for.
///
/// # Errors
/// Why the config does not declare such a child.
pub(super) fn admit(settings: &Settings, slot: &Slot, user: &str) -> Result<BTreeMap<String, Task>, String> {
    let Some(pool) = settings.pools.get(&slot.pool) else {
        return Err(format!("no pool {:?} is declared", slot.pool));
    };
    if slot.index >= pool.processes {
        return Err(format!(
            "the pool {} has {} processes, there is no slot {slot}",
            pool.name, pool.processes
        ));
    }
    if pool.worker.is_some() {
        // One program as one user, whatever the tasks say.
        let own = pool.user.as_deref().unwrap_or_default();
        let refused = || format!("the worker of the pool {} runs as {own:?}, not as {user:?}", pool.name);
        return if own == user { Ok(BTreeMap::new()) } else { Err(refused()) };
    }
    let tasks = tasks_of(settings, pool, user);
    if tasks.is_empty() && pool.user.as_deref().unwrap_or_default() != user {
        return Err(format!("no task of the pool {} runs as {user:?}", pool.name));
    }
    Ok(tasks)
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
        }
    }

    /// A machine on which these users exist.
    fn machine(names: &'static [(&'static str, u32)]) -> impl Fn(&str) -> Result<Account, PrivilegeFault> {
        move |name| {
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
        }
    }

    fn root() -> Who {
        Who { uid: 0, name: "root".to_owned() }
    }

    #[test]
    fn the_packages_users_are_the_default_where_they_exist() {
        let loaded =
            settings(vec![pool("default", None), pool("web", Some("www"))], vec![task("t", None, None)]);
        let packaged = machine(&[("taskd", 100), ("taskd-run", 101), ("www", 33)]);
        let (filled, sentence) = resolve(&loaded, &root(), &packaged).unwrap();
        assert_eq!(filled.taskd.user.as_deref(), Some("taskd"));
        assert_eq!(filled.pools["default"].user.as_deref(), Some("taskd-run"));
        assert_eq!(filled.pools["web"].user.as_deref(), Some("www"));
        assert_eq!(sentence, "the daemon runs as taskd, tasks as taskd-run or www");
        let loaded = settings(vec![pool("default", None)], vec![task("t", None, None)]);
        let (filled, sentence) = resolve(&loaded, &root(), &machine(&[])).unwrap();
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
        let fault = resolve(&loaded, &root(), &machine(&[("taskd", 100), ("twin", 100)])).unwrap_err();
        assert_eq!(fault.lines().count(), 3, "{fault}");
        assert!(
            fault.contains("[tasks.a]") && fault.contains("ghost") && fault.contains("[tasks.c]"),
            "{fault}"
        );
    }

    #[test]
    fn an_ordinary_user_runs_all_and_refuses_others() {
        let me = Who { uid: 1000, name: "me".to_owned() };
        let loaded = settings(vec![pool("default", Some("me"))], vec![task("t", Some("me"), None)]);
        let (filled, sentence) = resolve(&loaded, &me, &machine(&[])).unwrap();
        assert_eq!((&filled.pools["default"].user, &filled.tasks["t"].user), (&None, &None));
        assert_eq!(sentence, "everything runs as me, who started taskd");
        let loaded = settings(vec![pool("default", Some("root"))], vec![]);
        assert!(resolve(&loaded, &me, &machine(&[])).unwrap_err().contains("[pools.default]"));
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

    #[test]
    fn a_worker_runs_as_its_pools_user_and_as_no_other() {
        let (name, mut resident) = pool("resident", Some("low"));
        resident.worker = Some(crate::config::settings::Worker {
            argv: vec!["/bin/worker".to_owned()],
            surroundings: crate::model::task::Surroundings::default(),
            limits: crate::model::task::Limits::default(),
        });
        let settings = settings(vec![(name, resident)], vec![task("own", Some("high"), Some("resident"))]);
        let slot = |index| Slot { pool: "resident".to_owned(), index };
        assert_eq!(admit(&settings, &slot(1), "low"), Ok(BTreeMap::new()));
        assert!(admit(&settings, &slot(1), "high").is_err(), "a task's user is not the worker's");
        assert!(admit(&settings, &slot(1), "").is_err());
        assert!(admit(&settings, &slot(2), "low").is_err());
    }
}
