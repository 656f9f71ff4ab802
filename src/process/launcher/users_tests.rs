//! On made-up machines.

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
        rate: None,
        shared: false,
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
            allow_eviction: false,
            state_dir: "/nowhere".into(),
            socket: "/nowhere/s".into(),
            timezone: None,
            max_memory_pressure: None,
            shutdown_grace_ms: 0,
            log_level: "info".to_owned(),
            user: None,
        },
        results: Results { expires_ms: 0, max_size: 0, max_records: 0, output_max_size: 0, output_rate: 0 },
        dead: crate::config::settings::Dead::default(),
        access: Access::default(),
        queues: pools.iter().map(|(name, _)| queue(name)).collect(),
        pools: pools.into_iter().collect(),
        routes: Vec::new(),
        tasks: tasks.into_iter().collect(),
        schedules: std::collections::BTreeMap::new(),
        workflows: std::collections::BTreeMap::new(),
        notify: crate::config::settings::Notify::default(),
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
    resolve_with(loaded, who, &user, &group, u64::MAX)
}

fn resolve_with(
    loaded: &Settings,
    who: &Who,
    user: &dyn Fn(&str) -> Result<Account, PrivilegeFault>,
    group: &dyn Fn(&str) -> Result<u32, PrivilegeFault>,
    capabilities: u64,
) -> Result<(Settings, String), String> {
    super::resolve(loaded, who, &Machine { user, group, hard_nofile: Some(4096), capabilities })
}

fn who(uid: u32, name: &str, groups: &[u32]) -> Who {
    Who { uid, name: name.to_owned(), gid: uid, groups: groups.to_vec() }
}

fn root() -> Who {
    who(0, "root", &[0])
}

#[test]
fn the_packages_users_are_the_default_where_they_exist() {
    let loaded = settings(vec![pool("default", None), pool("web", Some("www"))], vec![task("t", None, None)]);
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
    let tasks =
        vec![task("a", Some("taskd"), None), task("b", Some("ghost"), None), task("c", Some("twin"), None)];
    let loaded = settings(vec![pool("default", None)], tasks);
    let fault = resolve(&loaded, &root(), &[("taskd", 100), ("twin", 100)]).unwrap_err();
    assert_eq!(fault.lines().count(), 3, "{fault}");
    assert!(fault.contains("[tasks.a]") && fault.contains("ghost") && fault.contains("[tasks.c]"), "{fault}");
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
    let pools = vec![pool("default", Some("low")), pool("admin", Some("high")), pool("more", Some("low"))];
    let tasks =
        vec![task("plain", None, None), task("own", Some("high"), None), task("routed", None, Some("admin"))];
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
    let nobody = |name: &str| Err(PrivilegeFault::Unknown(name.to_owned()));
    let unnamed = Settings { pools: [pool("default", None)].into(), ..filled };
    let fault = resolve_with(&unnamed, &root(), &nobody, &|_| Ok(0), 1 << SYS_NICE.0).unwrap_err();
    assert_eq!(fault.lines().count(), 1, "{fault}");
    assert!(fault.contains("[tasks.open]") && fault.contains("CAP_SYS_RESOURCE"), "{fault}");
}

#[test]
fn a_worker_runs_as_its_pools_user_and_as_no_other() {
    let (name, mut resident) = pool("resident", Some("low"));
    resident.worker = Some(crate::config::settings::Worker {
        argv: vec!["/bin/worker".to_owned()],
        celery_app: None,
        preload: false,
        surroundings: crate::model::task::Surroundings::default(),
        limits: crate::model::task::Limits::default(),
    });
    let settings = settings(vec![(name, resident)], vec![task("own", Some("high"), Some("resident"))]);
    let slot = |index| Slot { pool: "resident".to_owned(), index };
    let low = admit(&settings, &slot(1), "low").unwrap();
    assert!(low.tasks.is_empty() && low.identity.user.as_deref() == Some("low"));
    assert!(admit(&settings, &slot(1), "high").is_err(), "a task's user is not the worker's");
    assert!(admit(&settings, &slot(1), "").is_err());
    assert!(admit(&settings, &slot(2), "low").is_err());
}
