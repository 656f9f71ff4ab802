//! Everything that is wrong is told at once, each with its place and what to do.

use super::{faults, faults_on, laptop, load, server};

#[test]
fn a_dozen_faults_at_once() {
    let text = include_str!("bad.toml");
    let report = load(text, &laptop()).unwrap_err();
    let golden = include_str!("bad.report");
    let rendered = report.render(false);
    assert_eq!(rendered, golden, "\n--- the report is now ---\n{rendered}");
    // JSON says the same of each.
    let json = report.to_json();
    let list = json.as_array().unwrap();
    assert_eq!(list.len(), report.faults().len());
    assert_eq!(
        list[0],
        serde_json::json!({
            "file": "taskd.toml", "line": 2, "column": 1, "key": "taskd.brokr",
            "message": "unknown key `brokr` in [taskd]", "help": "did you mean `broker`?",
        })
    );
    for item in list {
        assert!(item["line"].is_u64() && item["column"].is_u64() && item["message"].is_string(), "{item}");
    }
}

#[test]
fn all_syntax_errors_are_told_and_what_is_wrong_elsewhere() {
    let text =
        "[pools.default]\nprocesses = \n[tasks.a\ncommand = 'x'\n[taskd]\nlog_level = 'loud'\nnode == 'x'\n";
    let report = load(text, &laptop()).unwrap_err();
    let lines: Vec<u64> =
        report.to_json().as_array().unwrap().iter().map(|f| f["line"].as_u64().unwrap()).collect();
    for line in [2, 3, 6, 7] {
        assert!(lines.contains(&line), "line {line} of:\n{}", report.render(false));
    }
}

#[test]
fn duplicate_keys_and_tables_are_refused() {
    for text in [
        "[tasks.a]\ncommand = 'x'\ncommand = 'y'\n",
        "[tasks.a]\ncommand = 'x'\n[tasks.a]\ncommand = 'y'\n",
        "[tasks.a]\ncommand = 'x'\nparams.p = 'int'\nparams.p = 'bool'\n",
    ] {
        let found = faults(text);
        assert!(found.iter().any(|f| f.contains("duplicate key")), "{found:?}");
    }
}

#[test]
fn every_kind_of_bad_value_is_refused_by_name() {
    for (text, wanted) in [
        ("[taskd]\nshutdown_grace = '1M'", "taskd.shutdown_grace: `shutdown_grace` has the unit `M`"),
        (
            "[taskd]\nshutdown_grace = '53w'",
            "taskd.shutdown_grace: `shutdown_grace` must be between 0s and 1w",
        ),
        ("[taskd]\nnode = 'a b'", "taskd.node: the name \"a b\" has the character ' '"),
        ("[taskd]\nstate_dir = 'x'", "taskd.state_dir: `state_dir` is not an absolute path"),
        ("[taskd]\nbroker = 'embeded'", "taskd.broker: `broker` has a value that is not known"),
        ("[taskd]\nbroker = 'amqp://:secret@h'", "taskd.broker: broker = \"amqp://…\" is not available yet"),
        ("[taskd]\nlog_level = ''", "taskd.log_level: `log_level` is empty"),
        ("[taskd]\nuser = 'a\\u0000b'", "is no user or group name"),
        ("[results]\nmax_size = '1X'", "results.max_size: `max_size` is not a size"),
        ("[results]\nmax_size = -1", "results.max_size: `max_size` must be between"),
        ("[results]\nmax_records = 99999999999999999999", "`max_records` must be between"),
        ("[access]\nread = 'root'", "access.read: `read` must be a list"),
        ("[access]\nread = ['@']", "\"@\" is neither a user nor a @group"),
        ("[pools.default]\nprocesses = 0", "`processes` must be between 1 and 1000"),
        ("[pools.x]\nprocesses = 1.5", "pools.x.processes: `processes` must be a whole number"),
        ("[pools]\nx = 5", "pools.x: `pools.x` is a whole number, not a table"),
        ("pools = 5", "pools: `pools` is a whole number, not a table"),
        ("routes = 5", "routes: `routes` is a whole number, not a list of tables"),
        ("[routes]\ntask = 'x'", "routes: `routes` is a table, not a list of tables"),
        ("[[routes]]\ntask = '*'", "routes.queue: [[routes]] has no `queue`"),
        ("[queues.'../x']", "the queue name \"../x\" has the character '/'"),
        ("node = 'x'", "node: unknown key `node` outside any table"),
        ("[tasks.a]\ncommand = ''", "tasks.a.command: `command` is empty"),
        ("[tasks.a]\ncommand = \"a\\u0000b\"", "`command` holds a NUL character"),
        ("[tasks.a]\nexec = 'true'", "tasks.a.exec: `exec` must be a list of strings"),
        ("[tasks.a]\nexec = []", "tasks.a.exec: `exec` is empty"),
        ("[tasks.a]\nexec = ['', 'x']", "tasks.a.exec: `exec` is empty"),
        ("[tasks.a]\nexec = ['x', 5]", "tasks.a.exec: `exec` must be a string"),
        (
            "[tasks.a]\nexec = ['{x}']\nparams.x = 'string'",
            "which program is run cannot depend on an argument",
        ),
        ("[tasks.a]\ncommand = 'x'\npriority = 10", "`priority` must be between 0 and 9"),
        (
            "[tasks.a]\ncommand = 'x'\nretry_on = [0]",
            "tasks.a.retry_on: `retry_on` must be between 1 and 255",
        ),
        ("[tasks.a]\ncommand = 'x'\nretry_on = [3]\nsuccess_on = [3]", "exit code 3 cannot both be"),
        (
            "[tasks.a]\ncommand = 'x'\nretry_backoff = true\nretry_delay = '2h'",
            "`retry_backoff_max` is below `retry_delay`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nsoft_time_limit = '5s'\ntime_limit = '5s'",
            "`soft_time_limit` is not below `time_limit`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nsoft_signal = 'SIGKILL'",
            "`soft_signal` is SIGKILL, which no program can catch",
        ),
        ("[tasks.a]\ncommand = 'x'\numask = 22", "tasks.a.umask: `umask` must be a string"),
        ("[tasks.a]\ncommand = 'x'\numask = '99'", "`umask` is not a file mode mask"),
        ("[tasks.a]\ncommand = 'x'\nnice = -5", "tasks.a.nice: nice -5 needs root"),
        ("[tasks.a]\ncommand = 'x'\nacks = 'never'", "`acks` cannot be \"never\""),
        ("[tasks.a]\ncommand = 'x'\nenabled = 'yes'", "`enabled` must be true or false"),
        ("[tasks.a]\ncommand = 'x'\nqueue = 'nowhere'", "tasks.a.queue: there is no queue `nowhere`"),
        (
            "[tasks.a]\ncommand = 'x'\nenvironment.'A B' = 'x'",
            "\"A B\" is no name of an environment variable",
        ),
        ("[tasks.a]\ncommand = 'x'\nenvironment.TASKD_ID = 'x'", "`TASKD_ID` is set by taskd itself"),
        ("[tasks.a]\ncommand = 'x'\nenvironment.A = 5", "tasks.a.environment.A: `A` must be a string"),
        ("[tasks.a]\ncommand = 'x'\nparams.A = 'int'", "\"A\" is no name of a parameter"),
        (
            "[tasks.a]\ncommand = 'x'\nparams.http_proxy = 'string'",
            "the parameter `http_proxy` would redirect",
        ),
        ("[tasks.a]\ncommand = 'x'\nparams.p = { default = 1 }", "the parameter `p` has no `type`"),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'int', default = 'x' }",
            "`default` must be a whole number",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'int', min = 5, max = 1 }",
            "`min` of the parameter `p` is above",
        ),
        ("[tasks.a]\ncommand = 'x'\nparams.p = { type = 'int', max = nan }", "`max` must be finite"),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'int', default = 9, max = 1 }",
            "which its own bounds refuse",
        ),
        ("[tasks.a]\ncommand = 'x'\nparams.p = { type = 'bool', min = 1 }", "`min` is for numbers only"),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'string', one_of = ['a'], default = 'b' }",
            "is not in its `one_of`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'int', mni = 1 }",
            "unknown key `mni` in the parameter `p`",
        ),
        ("[tasks.a]", "tasks.a: the task `a` has neither `command` nor `exec`"),
        ("[tasks.a]\ncommand = 'x'\nmemory_max = '1X'", "tasks.a.memory_max: `memory_max` is not a size"),
        (
            "[tasks.a]\nexternal = true",
            "tasks.a.external: an external task needs a broker that Celery workers read, and [taskd] broker is \"embedded\"",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nrate_limit = '1/s'\nrate_limit_key = 'user'",
            "tasks.a.rate_limit_key: the task declares no parameters, so it has no argument \"user\" to count by",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.user = 'int'\nconcurrency = 1\nconcurrency_key = 'usr'",
            "tasks.a.concurrency_key: the task has no parameter \"usr\" to count by",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.a = 'int'\nparams.b = 'int'\nrate_limit = '1/s'\n\
             rate_limit_key = 'a'\nconcurrency = 1\nconcurrency_key = 'b'",
            "a task counts by one parameter",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nrate_limit = '1/s'\nrate_limit_burst = 0",
            "must be between 1 and 1000000",
        ),
        ("[queues.a]\nrate_limit = '10'", "queues.a.rate_limit: `rate_limit` is not a rate"),
        ("[tasks.a]\ncommand = 'x'\nprotect_system = 'ful'", "tasks.a.protect_system: `protect_system`"),
        (
            "[tasks.a]\ncommand = 'x'\nmemory_max = '1G'\non_memory = { memory_max = '0.5x' }",
            "is not a multiple above one",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nmemory_max = '1G'\non_memory = { memory_max = '1G' }",
            "tasks.a.on_memory: the next limit, 1073741824 bytes, is not above `memory_max`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\non_memory = { memory_max = '2x' }",
            "tasks.a.on_memory: `on_memory` has no effect without `memory_max`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nmemory_max = '1G'\non_memory = { max = 2 }",
            "changes neither the limit nor the queue",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nmemory_max = '1G'\non_memory = { queue = 'big' }",
            "tasks.a.on_memory: there is no queue `big`",
        ),
        ("[tasks.a]\ncommand = 'x'\ngroup = 'adm'", "tasks.a.group: `group` needs root"),
        ("[tasks.a]\ncommand = 'x'\nio_class = 'realtime'", "io_class \"realtime\" needs root"),
        ("[tasks.'a.*']", "tasks.\"a.*\": the task `a.*` has neither"),
        ("[tasks.'a.*']\ncommand = 'x'", "`command` needs one task, and `a.*` is a pattern"),
        (
            "[pools.p]\nmemory_max = '1G'",
            "pools.p.memory_max: `memory_max` of a pool is for its `worker` or `celery_app`, and this pool has neither",
        ),
        (
            "[pools.p]\nworker = ['x']\ncelery_app = 'shop.celery:app'",
            "pools.p.celery_app: `worker` and `celery_app` exclude each other",
        ),
        (
            "[pools.p]\nworker = ['x']\npreload = true",
            "pools.p.preload: `preload` is for `celery_app`, and this pool has none",
        ),
        (
            "[pools.p]\npython = 'python3'",
            "pools.p.python: `python` is for `celery_app`, and this pool has none",
        ),
        ("[pools.p]\ncelery_app = '/srv/shop/celery.py'", "`/srv/shop/celery.py` names no module of Python"),
        ("[pools.p]\ncelery_app = '-A'", "`celery_app` is no name"),
        ("[pools.p]\ncelery_app = 'shop'\npython = '-m'", "`python` is no name"),
        (
            "[pools.p]\ncelery_app = 'shop.celery:app'\n[queues.q]\npool = 'p'\n[tasks.a]\nqueue = 'q'\nmemory_max = '1G'",
            "tasks.a.memory_max: `memory_max` has no effect: the task runs inside the worker of the pool `p`",
        ),
        (
            "[pools.p]\nworker = ['x']\n[queues.q]\npool = 'p'\n[tasks.a]\nqueue = 'q'\ncommand = 'x'",
            "tasks.a.command: `command` cannot run in the pool `p`",
        ),
        (
            "[pools.p]\nworker = ['x']\n[queues.q]\npool = 'p'\n[tasks.a]\nqueue = 'q'\nmemory_max = '1G'",
            "tasks.a.memory_max: `memory_max` has no effect: the task runs inside the worker of the pool `p`",
        ),
        ("[tasks.a]\ncommand = 'x'\nunique = { whle = 'both' }", "unknown key `whle` in `unique`"),
        ("[tasks.a]\ncommand = 'x'\nunique = 'yes'", "`unique` must be true, false or a table"),
        (
            "[tasks.a]\ncommand = 'x'\nunique = { key = ['user'] }",
            "`key` names parameters, and the task declares none",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.user = 'int'\nunique = { key = ['usr'] }",
            "the task has no parameter `usr`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nunique = { while = 'running', period = '1h' }",
            "`period` has no effect with while = \"running\"",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nunique = { while = 'running', on_conflict = 'replace' }",
            "replaces nothing with while = \"running\"",
        ),
        (
            "[schedules.s]\ntask = 'nobody'\ncron = '61 * * * *'",
            "schedules.s.cron: `cron` has \"61\" as minute",
        ),
        ("[schedules.s]\ntask = 'nobody'\nevery = '1h'", "schedules.s.task: there is no task `nobody`"),
        ("[schedules.s]\ntask = 'x'", "schedules.s: the schedule says no time"),
        ("[schedules.s]\nevery = '1h'", "schedules.s: [schedules.s] has no `task` or `workflow`"),
        (
            "[tasks.a]\ncommand = 'x'\n[workflows.w]\nsteps = [{ task = 'a' }]\n[schedules.s]\ntask = 'a'\nworkflow = 'w'\n\
             every = '1h'",
            "schedules.s.workflow: [schedules.s] has both `task` and `workflow`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[workflows.nightly]\nsteps = [{ task = 'a' }]\n[schedules.s]\nworkflow = \
             'nightyl'\nevery = '1h'",
            "schedules.s.workflow: there is no workflow `nightyl`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[workflows.w]\nsteps = [{ task = 'a' }]\n[schedules.s]\nworkflow = 'w'\n\
             every = '1h'\nargs = [1]",
            "schedules.s.args: `args` goes with `task`, and this schedule has `workflow`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\ncron = '@daily'",
            "schedules.s: the schedule says more than one time",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\ntimezone = 'UTC'",
            "schedules.s.timezone: `timezone` goes with `cron`, and this schedule has `every`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\ncron = '@daily'\nalign = false",
            "schedules.s.align: `align` goes with `every`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\nalign = false\ncatch_up = 'all'",
            "schedules.s.catch_up: `catch_up` has no meaning with align = false",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nsolar = 'sunset'\nlatitude = 52.5",
            "schedules.s.solar: `solar` needs `longitude`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nsolar = 'sunet'\nlatitude = 1\nlongitude = 1",
            "schedules.s.solar: the sun has no event \"sunet\"",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nsolar = 'sunset'\nlatitude = 91\nlongitude = 1",
            "schedules.s.latitude: `latitude` must be between -90 and 90",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\ncatch_up_max = 5",
            "schedules.s.catch_up_max: `catch_up_max` goes with catch_up = \"all\"",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\nqueue = 'nowhere'",
            "schedules.s.queue: there is no queue `nowhere`",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.n = 'int'\n[schedules.s]\ntask = 'a'\nevery = '1h'\nkwargs = { n = 'x' }",
            "schedules.s.kwargs: task a: ",
        ),
        (
            "[tasks.a]\ncommand = 'x'\nparams.n = 'int'\n[schedules.s]\ntask = 'a'\nevery = '1h'",
            "schedules.s.task: task a: ",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '1h'\nargs = [1979-05-27]",
            "schedules.s.args: JSON has no dates and times",
        ),
        (
            "[tasks.a]\ncommand = 'x'\n[schedules.s]\ntask = 'a'\nevery = '100ms'",
            "schedules.s.every: `every` must be between 1s and",
        ),
        ("[web]\nlisten = 'x'", "web: [web] is not available yet in this version"),
    ] {
        let found = faults(text);
        assert!(found.iter().any(|f| f.contains(wanted)), "{text:?} gave {found:#?}");
    }
}

#[test]
fn one_mistake_is_one_fault() {
    for text in [
        "[tasks.a]\ncommand = 5",
        "[tasks.a]\nexec = 5",
        "[tasks.a]\ncommand = 'x'\nqueue = 'nowhere'",
        "[defaults]\nqueue = 'nowhere'\n[tasks.a]\ncommand = 'x'\n[tasks.b]\ncommand = 'x'",
        "[defaults]\ntime_limit = 5\n[tasks.a]\ncommand = 'x'\n[tasks.b]\ncommand = 'x'",
        "[defaults]\ntime_limit = '5s'\nsoft_time_limit = '6s'\n[tasks.a]\ncommand = 'x'\n[tasks.b]\ncommand = 'x'",
        "[defaults]\nnice = -5\n[tasks.a]\ncommand = 'x'\n[tasks.b]\ncommand = 'x'",
        "[defaults]\nexec = ['x', '{p}']\n[tasks.a]\n[tasks.b]",
        "[queues.q]\npool = 5",
        "[[routes]]\ntask = 5\nqueue = 'default'",
        "[tasks.a]\nexec = ['x', '{p}']\nparams.p = 'int'\nparams.q = { type = 'string', default = 'x', one_of = ['y'] }",
    ] {
        assert_eq!(faults(text).len(), 1, "{text:?} gave {:#?}", faults(text));
    }
}

#[test]
fn a_password_in_an_address_is_not_repeated() {
    let report = load("[taskd]\nresults = 'redis://:secret@host'", &laptop()).unwrap_err();
    assert!(!report.to_json().to_string().contains("secret"));
    assert!(!report.render(false).contains("secret"), "{}", report.render(false));
}

#[test]
fn a_fault_of_two_keys_shows_both() {
    let text = "[defaults]\ntime_limit = '10s'\n\n[tasks.a]\ncommand = 'x'\nsoft_time_limit = '20s'\n";
    let rendered = load(text, &laptop()).unwrap_err().render(false);
    assert!(rendered.contains("2 | time_limit = '10s'"), "{rendered}");
    assert!(rendered.contains("6 | soft_time_limit = '20s'"), "{rendered}");
}

#[test]
fn keys_of_later_versions_are_never_silent() {
    use taskd::config::keys::{TABLES, When};
    for table in TABLES.iter().filter(|t| t.when == When::Now) {
        for key in table.keys.iter().filter(|k| k.when == When::Later) {
            let header = table.header().replace("NAME", "x");
            // Whatever its type: that it is not there yet is said.
            let found = faults_on(&format!("{header}\n{} = 1979-05-27\n", key.name), &server());
            let wanted = format!("`{}` is not available yet in this version", key.name);
            assert!(found.iter().any(|f| f.contains(&wanted)), "{header} {}: {found:?}", key.name);
            // … and so is that a date is no value for it.
            assert!(found.iter().any(|f| f.contains("must be")), "{header} {}: {found:?}", key.name);
        }
    }
}
