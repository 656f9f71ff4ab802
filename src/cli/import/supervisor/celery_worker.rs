//! The command line of `celery worker`, option by option.

/// What a program of supervisor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `celery … worker`
    Worker(Box<Worker>),
    /// `celery … beat`
    Beat,
    /// Flower, or another of Celery's subcommands.
    Other(String),
    /// A worker of taskd already.
    Resident,
    /// Anything else.
    Plain,
}

/// A Celery worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// `-A`
    pub app: Option<String>,
    /// The Python beside the `celery` program.
    pub python: String,
    /// `-c`, or the upper bound of `--autoscale`.
    pub processes: Option<(i64, String)>,
    /// `-Q`
    pub queues: Vec<String>,
    /// `--max-tasks-per-child`
    pub max_tasks: Option<i64>,
    /// `--max-memory-per-child`, in KiB.
    pub max_memory: Option<i64>,
    /// `--time-limit`, in seconds.
    pub time_limit: Option<String>,
    /// `--soft-time-limit`, in seconds.
    pub soft_time_limit: Option<String>,
    /// `--workdir`
    pub directory: Option<String>,
    /// Options that could not be carried over, with the reason.
    pub left: Vec<(String, &'static str)>,
}

/// Options with a value: the short and the long one.
const WITH_VALUE: &[(&str, &str)] = &[
    ("-A", "--app"),
    ("-b", "--broker"),
    ("-c", "--concurrency"),
    ("-Q", "--queues"),
    ("-X", "--exclude-queues"),
    ("-n", "--hostname"),
    ("-l", "--loglevel"),
    ("-f", "--logfile"),
    ("-P", "--pool"),
    ("-O", "--optimization"),
    ("-I", "--include"),
    ("-S", "--statedb"),
    ("-s", "--schedule"),
    ("", "--result-backend"),
    ("", "--loader"),
    ("", "--config"),
    ("", "--workdir"),
    ("", "--pidfile"),
    ("", "--autoscale"),
    ("", "--max-tasks-per-child"),
    ("", "--maxtasksperchild"),
    ("", "--max-memory-per-child"),
    ("", "--time-limit"),
    ("", "--soft-time-limit"),
    ("", "--prefetch-multiplier"),
    ("", "--heartbeat-interval"),
    ("", "--scheduler"),
    ("", "--uid"),
    ("", "--gid"),
    ("", "--umask"),
    ("", "--executable"),
    ("", "--settings"),
    ("", "--ini"),
    ("", "--ini-var"),
];

/// What a command line is.
#[must_use]
pub fn kind(words: &[String]) -> Kind {
    let base = |w: &str| w.rsplit('/').next().unwrap_or(w).to_owned();
    let module = |name: &str| words.windows(2).any(|w| matches!(w, [m, n] if m == "-m" && n == name));
    if module("taskd_worker") {
        return Kind::Resident;
    }
    // `newrelic-admin run-program celery …`, `python -m celery …`, `manage.py celery …`
    let Some(at) = words.iter().position(|w| matches!(base(w).as_str(), "celery" | "celeryd" | "celerybeat"))
    else {
        return Kind::Plain;
    };
    let (before, rest) = words.split_at(at);
    let program = rest.first().map(|w| w.as_str()).unwrap_or_default();
    let mut worker = Worker { python: python(program, before), ..Worker::default() };
    let mut subcommand = match base(program).as_str() {
        "celeryd" => Some("worker".to_owned()),
        "celerybeat" => Some("beat".to_owned()),
        _ => None,
    };
    let mut rest = rest.iter().skip(1);
    let mut pairs: Vec<(String, String, String)> = Vec::new();
    while let Some(word) = rest.next() {
        if !word.starts_with('-') {
            match &subcommand {
                None => subcommand = Some(word.clone()),
                Some(_) => worker.left.push((word.clone(), "it is no option of a worker")),
            }
            continue;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let found = WITH_VALUE.iter().find(|(short, long)| {
            *long == name
                || (!short.is_empty()
                    && (*short == name || (word.starts_with(short) && !word.starts_with("--"))))
        });
        match found {
            Some((short, long)) => {
                let glued = word
                    .strip_prefix(short)
                    .filter(|v| !short.is_empty() && !v.is_empty() && !word.starts_with("--"));
                let apart = attached.is_none() && glued.is_none();
                let value = match (attached, glued) {
                    (Some(value), _) => Some(value),
                    (None, Some(value)) => Some(value.trim_start_matches('=').to_owned()),
                    (None, None) => rest.next().cloned(),
                };
                let value = value.unwrap_or_default();
                let source = if apart { format!("{word} {value}") } else { word.clone() };
                pairs.push(((*long).to_owned(), value, source));
            }
            None => pairs.push((name.to_owned(), String::new(), word.clone())),
        }
    }
    match subcommand.as_deref() {
        Some("worker") => {}
        Some("beat") => return Kind::Beat,
        Some(other) => return Kind::Other(other.to_owned()),
        None => return Kind::Plain,
    }
    for (name, value, source) in pairs {
        option(&mut worker, &name, value, source);
    }
    Kind::Worker(Box::new(worker))
}

/// The interpreter: the one that runs it, or the one beside the program.
fn python(program: &str, before: &[String]) -> String {
    let named = before.iter().find(|w| w.rsplit('/').next().is_some_and(|b| b.starts_with("python")));
    match (named, program.rsplit_once('/')) {
        (Some(python), _) => python.clone(),
        (None, Some((directory, _))) => format!("{directory}/python"),
        (None, None) => "python3".to_owned(),
    }
}

fn option(worker: &mut Worker, name: &str, value: String, source: String) {
    let number = || value.parse::<i64>().ok();
    let mut left = |why| worker.left.push((source.clone(), why));
    match name {
        "--app" => worker.app = Some(value),
        "--concurrency" => match number() {
            Some(n) => worker.processes = Some((n, source)),
            None => left("it is no number"),
        },
        "--autoscale" => match value.split(',').filter_map(|n| n.parse::<i64>().ok()).max() {
            Some(n) => {
                left("a pool has a fixed number of processes: its upper bound was taken");
                worker.processes.get_or_insert((n, source));
            }
            None => left("it is no number"),
        },
        "--queues" => worker.queues = value.split(',').filter(|q| !q.is_empty()).map(str::to_owned).collect(),
        "--max-tasks-per-child" | "--maxtasksperchild" => worker.max_tasks = number(),
        "--max-memory-per-child" => worker.max_memory = number(),
        "--time-limit" => worker.time_limit = Some(value),
        "--soft-time-limit" => worker.soft_time_limit = Some(value),
        "--workdir" => worker.directory = Some(value),
        "--pool" => match value.as_str() {
            "prefork" | "processes" => {}
            "solo" => {
                worker.processes.get_or_insert((1, source));
            }
            _ => left(
                "a worker takes many at once with --capacity N, and `processes` counts processes, not threads",
            ),
        },
        "--broker" | "--result-backend" => {
            left("taskd has a store of its own; another broker is `broker` in [taskd]")
        }
        "--include" => left("name the module at the end of `worker`"),
        "--exclude-queues" => left("a queue is drained by the pool it names"),
        "-B" | "--beat" => left("schedules are taskd's own: taskd import celery-beat"),
        "--purge" | "--discard" => left("nothing is thrown away at the start; `taskd purge QUEUE` does it"),
        "--uid" | "--gid" | "--umask" => left("set user, group and umask of the pool"),
        "--hostname"
        | "--loglevel"
        | "--logfile"
        | "--pidfile"
        | "--optimization"
        | "--statedb"
        | "--schedule"
        | "--prefetch-multiplier"
        | "--heartbeat-interval"
        | "--scheduler"
        | "--executable"
        | "--loader"
        | "--without-gossip"
        | "--without-mingle"
        | "--without-heartbeat"
        | "--task-events"
        | "-E"
        | "--events"
        | "--quiet"
        | "-q"
        | "--no-color"
        | "-D"
        | "--detach"
        | "-Ofair" => {}
        _ => left("taskd has no such option"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Kind {
        kind(&crate::cli::import::shell::split(line).unwrap())
    }

    fn worker(line: &str) -> Worker {
        match of(line) {
            Kind::Worker(worker) => *worker,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_a_program_is() {
        assert_eq!(of("/v/bin/celery -A proj beat -l info"), Kind::Beat);
        assert_eq!(of("celery beat -A proj"), Kind::Beat);
        assert_eq!(of("celery --app=proj flower --port=5555"), Kind::Other("flower".into()));
        assert_eq!(of("gunicorn shop.wsgi"), Kind::Plain);
        assert_eq!(of("python -m taskd_worker shop"), Kind::Resident);
    }

    #[test]
    fn old_and_new_order_of_words() {
        let w = worker(
            "/v/bin/celery -A proj.celery worker -l info -c 4 -Q a,b --max-tasks-per-child=100 -n x@%h",
        );
        assert_eq!((w.app.as_deref(), w.python.as_str()), (Some("proj.celery"), "/v/bin/python"));
        assert_eq!(
            (w.processes.map(|p| p.0), w.max_tasks, w.queues),
            (Some(4), Some(100), vec!["a".into(), "b".into()])
        );
        assert_eq!(w.left, []);
        let w = worker("python3 -m celery worker --app=x -Ofair --autoscale=10,3 -B -P gevent");
        assert_eq!((w.python.as_str(), w.processes.map(|p| p.0), w.left.len()), ("python3", Some(10), 3));
        let w = worker("celery -Aproj worker -c2 --max-memory-per-child 200000 --strange");
        assert_eq!(
            (w.app.as_deref(), w.processes.map(|p| p.0), w.max_memory),
            (Some("proj"), Some(2), Some(200_000))
        );
        assert_eq!(w.left.len(), 1);
    }
}
