//! What the keys become.

use taskd::config::settings::Settings;
use taskd::model::params::ParamType;
use taskd::model::task::{Acks, IoClass, Program, ProtectSystem, Raise, ResultKind, RetryPolicy, Stdin};

use super::good;

fn settings(text: &str) -> Settings {
    good(text).settings
}

#[test]
fn an_empty_file_has_every_default() {
    let s = settings("");
    assert_eq!(
        (s.taskd.node.as_str(), s.taskd.broker.as_str(), s.taskd.results.as_str()),
        ("testhost", "embedded", "broker")
    );
    assert_eq!(s.taskd.state_dir.to_str(), Some("/var/lib/taskd"));
    assert_eq!(s.taskd.socket.to_str(), Some("/run/taskd/taskd.sock"));
    assert_eq!(
        (s.taskd.shutdown_grace_ms, s.taskd.log_level.as_str(), s.taskd.timezone),
        (30_000, "info", None)
    );
    assert_eq!(
        (s.results.expires_ms, s.results.max_size, s.results.max_records),
        (86_400_000, 65_536, 100_000)
    );
    assert_eq!((s.results.output_max_size, s.results.output_rate), (1 << 20, 256 << 10));
    assert_eq!(
        (s.access.read, s.access.enqueue, s.access.admin),
        (vec!["@taskd-users".to_owned()], vec!["@taskd-users".to_owned()], vec!["root".to_owned()])
    );
    assert_eq!(s.pools["default"].processes, 2);
    let q = &s.queues["default"];
    assert_eq!(
        (q.pool.as_str(), q.weight, q.strict, q.concurrency, q.max_length),
        ("default", 1, false, None, None)
    );
    assert!(s.tasks.is_empty() && s.routes.is_empty());
}

#[test]
fn a_task_without_more_has_the_defaults_of_the_model() {
    let s = settings("[tasks.a]\ncommand = 'x'");
    let a = &s.tasks["a"];
    assert_eq!(a.retry, RetryPolicy::default());
    assert_eq!((a.soft_time_limit_ms, a.time_limit_ms, a.soft_signal), (None, None, 15));
    assert_eq!((a.acks, a.result, a.stdin), (Acks::Late, ResultKind::Stdout, Stdin::None));
    assert_eq!((a.result_max_size, a.result_expires_ms, a.expires_ms), (65_536, 86_400_000, None));
    assert_eq!(
        (a.allow_dash, a.dash_dash, a.enabled, a.remote, a.ignore_result),
        (false, true, true, true, false)
    );
    assert_eq!((a.queue.clone(), a.user.clone(), a.allow.clone(), a.priority), (None, None, None, 0));
    assert_eq!(a.surroundings, Default::default());
}

#[test]
fn every_key_reaches_the_settings() {
    let s = settings(
        r#"
[results]
max_size = "1K"
[queues.q]
weight = 7
strict = true
concurrency = 3
rate_limit = "5/h"
rate_limit_burst = 2
max_length = 1_000
[tasks.a]
exec = ["/bin/x", "{b}", "lit{{b}}"]
params.b = "int"
params.a = { type = "float", default = 1, min = 0, max = 2.5 }
params.c = { type = "string", one_of = ["x", "y"], max_length = 1 }
queue = "q"
priority = 9
max_retries = 3
retry_delay = "1s"
retry_backoff = true
retry_backoff_max = "1h"
retry_jitter = false
retry_on = [75, 1]
success_on = [2]
soft_time_limit = "30s"
time_limit = "40s"
soft_signal = "INT"
acks = "early"
ignore_result = true
result = "json"
result_expires = "1h"
result_max_size = 2048
expires = "1h"
stdin = "json"
environment = { LANG = "C" }
environment_file = "/etc/x"
pass_environment = ["HOME"]
working_directory = "/srv"
umask = "077"
nice = 5
limit_nofile = 100
rate_limit = "10/m"
concurrency = 4
concurrency_key = "b"
allow = ["@web", "ada"]
allow_dash = true
dash_dash = false
enabled = false
remote = false
"#,
    );
    let q = &s.queues["q"];
    assert_eq!((q.weight, q.strict, q.concurrency, q.max_length), (7, true, Some(3), Some(1_000)));
    let a = &s.tasks["a"];
    assert_eq!(q.rate.map(|r| (r.count, r.period_ms, r.burst)), Some((5, 3_600_000, 2)));
    let t = &a.throttle;
    assert_eq!(t.rate.map(|r| (r.count, r.period_ms, r.burst)), Some((10, 60_000, 1)));
    assert_eq!(
        (t.rate_each, t.concurrency, t.concurrency_each, t.key.as_deref()),
        (false, Some(4), true, Some("b"))
    );
    assert_eq!(a.program, Program::Exec(vec!["/bin/x".into(), "{b}".into(), "lit{{b}}".into()]));
    assert_eq!(
        a.params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["b", "a", "c"],
        "declared order"
    );
    assert_eq!(
        (a.params[1].kind, a.params[1].min, a.params[1].max),
        (ParamType::Float, Some(0.0), Some(2.5))
    );
    assert_eq!(a.params[1].default, Some(1.0.into()));
    assert_eq!((a.params[2].one_of.len(), a.params[2].max_length), (2, Some(1)));
    assert_eq!(
        a.retry,
        RetryPolicy {
            max_retries: 3,
            delay_ms: 1_000,
            backoff: true,
            backoff_max_ms: 3_600_000,
            jitter: false,
            retry_on: vec![75, 1],
            success_on: vec![2],
        }
    );
    assert_eq!((a.soft_time_limit_ms, a.time_limit_ms, a.soft_signal), (Some(30_000), Some(40_000), 2));
    assert_eq!((a.acks, a.result, a.stdin), (Acks::Early, ResultKind::Json, Stdin::Json));
    assert_eq!((a.result_max_size, a.result_expires_ms, a.expires_ms), (2_048, 3_600_000, Some(3_600_000)));
    assert_eq!(
        (a.allow_dash, a.dash_dash, a.enabled, a.remote, a.ignore_result),
        (true, false, false, false, true)
    );
    assert_eq!((a.queue.as_deref(), a.priority), (Some("q"), 9));
    assert_eq!(a.allow.as_deref(), Some(&["@web".to_owned(), "ada".to_owned()][..]));
    let p = &a.surroundings;
    assert_eq!(p.environment["LANG"], "C");
    assert_eq!(
        (p.environment_file.as_deref(), p.working_directory.as_deref()),
        (Some("/etc/x"), Some("/srv"))
    );
    assert_eq!(
        (p.pass_environment.clone(), p.umask, p.nice, p.limit_nofile),
        (vec!["HOME".to_owned()], Some(0o077), Some(5), Some(100))
    );
}

#[test]
fn defaults_stand_below_every_task() {
    let s = settings(
        "[defaults]\ntime_limit = '1h'\nmax_retries = 2\nexec = ['/bin/run']\nenvironment = { A = 'base', B = 'base' }\n\
         [tasks.a]\ntime_limit = '5s'\nenvironment = { B = 'own', C = 'own' }\n[tasks.b]\ncommand = 'x'\n",
    );
    let (a, b) = (&s.tasks["a"], &s.tasks["b"]);
    assert_eq!((a.time_limit_ms, b.time_limit_ms), (Some(5_000), Some(3_600_000)));
    assert_eq!((a.retry.max_retries, b.retry.max_retries), (2, 2));
    assert_eq!(a.program, Program::Exec(vec!["/bin/run".into()]));
    assert_eq!(b.program, Program::Command("x".into()), "its own command replaces the exec of [defaults]");
    let joined: Vec<_> = a.surroundings.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(joined, [("A", "base"), ("B", "own"), ("C", "own")]);
}

#[test]
fn settings_without_effect_are_noted() {
    for (text, wanted) in [
        (
            "[tasks.a]\ncommand='x'\nretry_delay='1s'",
            "tasks.a.retry_delay: has no effect while max_retries is 0",
        ),
        (
            "[tasks.a]\ncommand='x'\nsoft_signal='INT'",
            "tasks.a.soft_signal: has no effect without soft_time_limit",
        ),
        (
            "[tasks.a]\ncommand='echo {p}'\nparams.p='int'",
            "tasks.a.params.p: in `command` {p} is not replaced; write \"$p\"",
        ),
        (
            "[tasks.a]\nexec=['x','{p}']\nparams.p='int'\nparams.q='int'",
            "tasks.a.params.q: reaches the program neither",
        ),
        (
            "[[routes]]\ntask='*'\nqueue='default'\n[[routes]]\ntask='a'\nqueue='default'",
            "routes: \"a\" never matches, since \"*\"",
        ),
        ("[defaults]\nqueue='default'\n[[routes]]\ntask='*'\nqueue='default'", "routes: none applies"),
    ] {
        let notes = good(text).notes;
        assert!(notes.len() == 1 && notes[0].starts_with(wanted), "{text:?} gave {notes:?}");
    }
    assert_eq!(
        good("[tasks.a]\ncommand='echo ${p}'\nparams.p='int'").notes,
        [""; 0],
        "the shell's own braces"
    );
}

#[test]
fn limits_of_an_attempt_and_what_follows_one_that_ran_into_them() {
    let s = settings(
        "[queues.big]\n[defaults]\ntasks_max = 64\n[tasks.a]\ncommand = 'x'\nmemory_max = '512M'\ncpu_quota = '150%'\n\
         io_class = 'best-effort'\non_memory = { memory_max = '1.5x', queue = 'big', max = 2 }",
    );
    let a = &s.tasks["a"];
    let limits = &a.limits;
    assert_eq!(
        (limits.memory_max, limits.cpu_quota, limits.tasks_max),
        (Some(512 << 20), Some(150), Some(64))
    );
    let rule = limits.on_memory.as_ref().unwrap();
    assert_eq!(
        (rule.memory_max, rule.queue.as_deref(), rule.max),
        (Some(Raise::Percent(150)), Some("big"), 2)
    );
    assert_eq!(limits.memory_at(1), Some(768 << 20));
    assert_eq!(a.surroundings.io_class, Some(IoClass::BestEffort));
}

#[test]
fn what_a_task_is_kept_from() {
    let of = |text: &str| {
        settings(&format!("[tasks.a]\ncommand = 'x'\n{text}")).tasks["a"].surroundings.sandbox.clone()
    };
    assert!(of("").is_empty() && of("protect_system = false").is_empty());
    assert_eq!(of("protect_system = true").protect_system, ProtectSystem::Yes);
    assert_eq!(of("protect_system = 'full'").protect_system, ProtectSystem::Full);
    let all = of("protect_system = 'strict'\nread_write_paths = ['/srv/a', '/srv/b']\nprivate_tmp = true\n\
                  private_network = true\nno_new_privileges = true");
    assert_eq!(all.protect_system, ProtectSystem::Strict);
    assert_eq!(all.read_write_paths, ["/srv/a", "/srv/b"]);
    assert!(all.private_tmp && all.private_network && all.no_new_privileges);
}

#[test]
fn a_pool_of_resident_workers() {
    let s = settings(
        "[taskd]\nmax_memory_pressure = 12.5\n[pools.w]\nworker = ['python3', '-m', 'shop']\nenvironment = { A = 'b' }\n\
         memory_max = '1G'\nworking_directory = '/srv'\nmax_tasks_per_child = 10\nmax_memory_per_child = '300M'\n\
         max_child_age = '12h'\nmax_child_idle = '5m'\n[queues.q]\npool = 'w'\n[[routes]]\ntask = 'shop.*'\nqueue = 'q'\n\
         [tasks.'shop.*']\nmax_retries = 2\n[tasks.'shop.mail']\nmax_retries = 5",
    );
    assert_eq!(s.taskd.max_memory_pressure, Some(1250));
    let pool = &s.pools["w"];
    assert_eq!((pool.recycle.max_tasks, pool.recycle.max_memory), (Some(10), Some(300 << 20)));
    assert_eq!((pool.recycle.max_age_ms, pool.recycle.max_idle_ms), (Some(43_200_000), Some(300_000)));
    let worker = pool.worker.as_ref().unwrap();
    assert_eq!(worker.argv, ["python3", "-m", "shop"]);
    assert_eq!(worker.surroundings.environment["A"], "b");
    assert_eq!(worker.surroundings.working_directory.as_deref(), Some("/srv"));
    assert_eq!(worker.limits.memory_max, Some(1 << 30));
    assert_eq!(s.tasks["shop.*"].program, Program::Worker);
    let retries = |name| s.task(name).map(|t| t.retry.max_retries);
    assert_eq!((retries("shop.x"), retries("shop.mail"), retries("other")), (Some(2), Some(5), None));
}

#[test]
fn a_pool_of_a_celery_app() {
    let s = settings(
        "[pools.plain]\ncelery_app = 'shop.celery:app'\n[pools.venv]\ncelery_app = 'shop'\npython = '/srv/venv/bin/python'\n\
         working_directory = '/srv'\n[queues.q]\npool = 'plain'\n[tasks.'shop.*']\nqueue = 'q'",
    );
    let plain = s.pools["plain"].worker.as_ref().unwrap();
    assert_eq!(plain.argv, ["python3", taskd::config::SCRIPT, "--celery", "shop.celery:app"]);
    assert_eq!(plain.celery_app.as_deref(), Some("shop.celery:app"));
    let venv = s.pools["venv"].worker.as_ref().unwrap();
    assert_eq!(venv.argv, ["/srv/venv/bin/python", taskd::config::SCRIPT, "--celery", "shop"]);
    assert_eq!(venv.surroundings.working_directory.as_deref(), Some("/srv"));
    assert_eq!(s.tasks["shop.*"].program, Program::Worker);
}

#[test]
fn schedules_and_their_defaults() {
    use taskd::model::schedule::{CatchUp, Overlap};
    let s = settings(
        "[taskd]\ntimezone = 'Asia/Shanghai'\n[queues.q]\n[tasks.a]\ncommand = 'x'\nparams.n = 'int'\nparams.d = { type = \
         'string', default = 'x' }\n[schedules.plain]\ntask = 'a'\ncron = '0 3 * * *'\nargs = [1]\n[schedules.full]\ntask = \
         'a'\nevery = '90s'\nalign = true\noverlap = 'queue'\ncatch_up = 'all'\ncatch_up_max = 7\nsplay = '2m'\nkwargs = { n = \
         5, d = 'y' }\nqueue = 'q'\npriority = 3\nexpires = '1h'\nenabled = false\npause_after_failures = 4\n\
         [schedules.sun]\ntask = 'a'\nargs = [1]\nsolar = 'sunset'\nlatitude = 52.5163\nlongitude = -0.1\n",
    );
    let plain = &s.schedules["plain"];
    assert_eq!(
        (plain.cron.as_deref(), plain.timezone.as_deref()),
        (Some("0 3 * * *"), Some("Asia/Shanghai"))
    );
    assert_eq!(
        (plain.overlap, plain.catch_up, plain.splay_ms, plain.enabled),
        (Overlap::Skip, CatchUp::None, 0, true)
    );
    assert_eq!((plain.args.clone(), plain.align), (vec![1.into()], true));
    let full = &s.schedules["full"];
    assert_eq!(
        (full.every_ms, full.overlap, full.catch_up),
        (Some(90_000), Overlap::Queue, CatchUp::All { max: 7 })
    );
    assert_eq!((full.splay_ms, full.queue.as_deref(), full.priority), (120_000, Some("q"), Some(3)));
    assert_eq!((full.expires_ms, full.enabled, full.pause_after_failures), (Some(3_600_000), false, Some(4)));
    assert_eq!(full.kwargs["d"], "y");
    // A place is kept as exactly as it is written.
    assert_eq!(s.schedules["sun"].latitude.as_deref(), Some("52.5163"));
    for s in s.schedules.values() {
        assert!(s.timing(None).unwrap().is_some());
    }
}

#[test]
fn what_is_unique_and_how_long_dead_letters_are_kept() {
    use taskd::model::unique::{Holds, OnConflict, Unique};
    let s = settings(
        "[dead]\nexpires = '2w'\nmax_records = 5\n[tasks.all]\ncommand = 'x'\nunique = true\n\
         [tasks.none]\ncommand = 'x'\nunique = false\n\
         [tasks.some]\ncommand = 'x'\nparams.user = 'int'\n\
         unique = { key = ['user'], while = 'queued', period = '1h', on_conflict = 'replace' }\n",
    );
    assert_eq!((s.dead.expires_ms, s.dead.max_records), (14 * 86_400_000, 5));
    assert_eq!(settings("").dead, taskd::config::settings::Dead::default());
    assert_eq!(s.tasks["all"].unique, Some(Unique::default()));
    assert_eq!(s.tasks["none"].unique, None);
    let some = Unique {
        key: vec!["user".to_owned()],
        holds: Holds::Queued,
        period_ms: Some(3_600_000),
        on_conflict: OnConflict::Replace,
    };
    assert_eq!(s.tasks["some"].unique, Some(some));
}
