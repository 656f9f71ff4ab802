//! Every table and key of the config file, once: what is parsed, what is suggested for a misspelt key, what
//! `taskd config` shows, the JSON Schema and the defaults are all read from here.

mod daemon;
mod schedule;
mod task;
mod workflow;

pub use workflow::STEP;

/// Whether a key does something in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It does.
    Now,
    /// It is known and checked; using it is a fault that says "not available yet in this version".
    Later,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text without NUL.
    Text,
    /// A name of a task, queue, pool or parameter.
    Name,
    /// A pattern over task names (`*`, `?`).
    Glob,
    /// An absolute path.
    Path,
    /// The path of a socket: absolute, and short enough for `bind`.
    SocketPath,
    /// A name of the time zone database.
    Zone,
    /// A user of this machine.
    User,
    /// A group of this machine.
    GroupName,
    /// Groups of this machine.
    Groups,
    /// Users and `@groups`.
    People,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int(i64, i64),
    /// A number within bounds.
    Number(f64, f64),
    /// An angle of at most so many degrees either way.
    Degrees(f64),
    /// A duration within bounds, in milliseconds.
    Duration(u64, u64),
    /// A size within bounds, in bytes.
    Size(u64, u64),
    /// A rate as `10/m`.
    Rate,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words; an address with one of these schemes is for later.
    Address(&'static [&'static str], &'static [&'static str]),
    /// A program and its arguments.
    Argv,
    /// A list of texts.
    Texts,
    /// A list of names.
    Names,
    /// A list of absolute paths.
    Paths,
    /// A list of exit codes.
    Codes,
    /// A signal's name.
    Signal,
    /// A file mode mask as octal text.
    Umask,
    /// A table of environment variables.
    Environment,
    /// A list of names of environment variables.
    EnvironmentNames,
    /// A list of names of credentials.
    Credentials,
    /// Declared parameters.
    Params,
    /// A crontab(5) expression.
    Cron,
    /// A time of day as `06:00`, or a list of some.
    TimesOfDay,
    /// A program by its absolute path, and its arguments.
    Program,
    /// An http or https address, in which credentials may stand.
    Webhook,
    /// A text that is a credential.
    Secret,
    /// A mail address.
    Mail,
    /// A mail address, or a list of some.
    Mails,
    /// A share as `50%`.
    Percent,
    /// A size, or a multiple as `2x`.
    SizeOrTimes,
    /// `true`, `false` or one of these words.
    BoolOr(&'static [&'static str]),
    /// A list of anything that JSON can say.
    List,
    /// A table of anything that JSON can say.
    Dict,
    /// A table of these keys.
    Table(&'static [Key]),
    /// `true`, `false`, or a table of these keys.
    BoolOrTable(&'static [Key]),
    /// A table of these keys, or `false`.
    TableOrFalse(&'static [Key]),
    /// The steps of a workflow: a list of tables of [`STEP`].
    Steps,
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Whether it does something yet.
    pub when: When,
    /// The default as TOML; empty where there is none or where it depends on the machine.
    pub default: &'static str,
    /// One sentence on what it does.
    pub doc: &'static str,
}

/// How often a table may stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `[table]`
    One,
    /// `[table.NAME]`
    Named,
    /// `[[table]]`
    List,
}

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec {
    /// Its name.
    pub name: &'static str,
    /// How often it may stand there.
    pub shape: Shape,
    /// Its keys.
    pub keys: &'static [Key],
    /// Keys that must be there.
    pub required: &'static [&'static str],
    /// Keys of which exactly one must be there.
    pub one_of: &'static [&'static str],
    /// Whether it does something yet.
    pub when: When,
    /// Whether keys that are not listed are let through (tables of a later version).
    pub open: bool,
    /// One sentence on what it is.
    pub doc: &'static str,
}

impl TableSpec {
    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// Its header, as it is written in a file.
    #[must_use]
    pub fn header(&self) -> String {
        match self.shape {
            Shape::One => format!("[{}]", self.name),
            Shape::Named => format!("[{}.NAME]", self.name),
            Shape::List => format!("[[{}]]", self.name),
        }
    }
}

macro_rules! keys {
    ($($name:literal: $kind:expr, $when:ident, $default:literal, $doc:literal;)*) => {
        &[$(crate::config::keys::Key {
            name: $name,
            kind: $kind,
            when: crate::config::keys::When::$when,
            default: $default,
            doc: $doc,
        }),*]
    };
}
pub(super) use keys;

const NONE: &[&str] = &[];

const fn table(name: &'static str, shape: Shape, keys: &'static [Key], doc: &'static str) -> TableSpec {
    TableSpec { name, shape, keys, required: NONE, one_of: NONE, when: When::Now, open: false, doc }
}

const fn later(name: &'static str, shape: Shape, keys: &'static [Key], doc: &'static str) -> TableSpec {
    TableSpec { name, shape, keys, required: NONE, one_of: NONE, when: When::Later, open: true, doc }
}

/// `[taskd]`.
pub const TASKD: TableSpec = table("taskd", Shape::One, daemon::TASKD, "The node itself.");
/// `[results]`.
pub const RESULTS: TableSpec =
    table("results", Shape::One, daemon::RESULTS, "What is kept of finished messages.");
/// `[dead]`.
pub const DEAD: TableSpec =
    table("dead", Shape::One, daemon::DEAD, "What is kept of messages that were given up on (DEAD).");
/// `[access]`.
pub const ACCESS: TableSpec = table("access", Shape::One, daemon::ACCESS, "Who may do what on the socket.");
/// `[pools.NAME]`.
pub const POOLS: TableSpec = table("pools", Shape::Named, daemon::POOL, "A set of equal child processes.");
/// `[queues.NAME]`.
pub const QUEUES: TableSpec = table("queues", Shape::Named, daemon::QUEUE, "A queue, drained by one pool.");
/// `[[routes]]`.
pub const ROUTES: TableSpec = TableSpec {
    required: &["task", "queue"],
    ..table("routes", Shape::List, daemon::ROUTE, "Which queue a task goes to; the first match wins.")
};
/// `[defaults]`.
pub const DEFAULTS: TableSpec =
    table("defaults", Shape::One, task::TASK, "Values for the keys that a task does not set itself.");
/// `[tasks.NAME]`.
pub const TASKS: TableSpec = table("tasks", Shape::Named, task::TASK, "A declared unit of work.");
/// `[schedules.NAME]`.
pub const SCHEDULES: TableSpec = TableSpec {
    one_of: &["task", "workflow"],
    ..table("schedules", Shape::Named, schedule::SCHEDULE, "When a task or a workflow runs by itself.")
};
/// `[workflows.NAME]`.
pub const WORKFLOWS: TableSpec = TableSpec {
    required: &["steps"],
    ..table("workflows", Shape::Named, workflow::WORKFLOW, "Tasks that follow one another.")
};
/// `[web]`.
pub const WEB: TableSpec = later("web", Shape::One, &[], "The dashboard.");
/// `[notify]`.
pub const NOTIFY: TableSpec = table(
    "notify",
    Shape::One,
    task::NOTIFY,
    "Who is told of failures, for every task that does not say it itself.",
);

/// Every table of the file, in the order in which it is shown.
pub const TABLES: &[TableSpec] = &[
    TASKD, RESULTS, DEAD, ACCESS, POOLS, QUEUES, ROUTES, DEFAULTS, TASKS, SCHEDULES, WORKFLOWS, WEB, NOTIFY,
];

/// What other programs call a key, and its name here.
const ALIASES: &[(&str, &str)] = &[
    ("args", "params"),
    ("autoretry", "max_retries"),
    ("cmd", "command"),
    ("concurrency", "processes"),
    ("cwd", "working_directory"),
    ("dir", "working_directory"),
    ("directory", "working_directory"),
    ("env", "environment"),
    ("env_file", "environment_file"),
    ("envfile", "environment_file"),
    ("interval", "every"),
    ("max_len", "max_length"),
    ("max_retry", "max_retries"),
    ("maxsize", "max_length"),
    ("numprocs", "processes"),
    ("parallel", "processes"),
    ("retries", "max_retries"),
    ("retry", "max_retries"),
    ("run", "command"),
    ("script", "command"),
    ("shell", "command"),
    ("timeout", "time_limit"),
    ("tz", "timezone"),
    ("workers", "processes"),
];

/// What a misspelt name was probably meant to be.
#[must_use]
pub fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let plain = wrong.to_lowercase().replace('-', "_");
    let alias = ALIASES.iter().find(|(from, _)| *from == plain).map(|(_, to)| *to);
    if let Some(found) = known.clone().find(|k| *k == plain || Some(*k) == alias) {
        return Some(found);
    }
    // Fewest slips of the finger first: likeness alone finds `rate_limit` in `tme_limit`.
    known
        .map(|k| (strsim::damerau_levenshtein(&plain, k), strsim::jaro_winkler(&plain, k), k))
        .filter(|(_, likeness, _)| *likeness > 0.8)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_and_foreign_names_find_their_key() {
        let keys = || TASKS.keys.iter().map(|k| k.name);
        for (wrong, right) in [
            ("max_retires", "max_retries"),
            ("tme_limit", "time_limit"),
            ("retries", "max_retries"),
            ("time-limit", "time_limit"),
            ("timeout", "time_limit"),
            ("Command", "command"),
            ("env", "environment"),
        ] {
            assert_eq!(suggest(wrong, keys()), Some(right), "{wrong}");
        }
        assert_eq!(suggest("xyzzy", keys()), None);
        assert_eq!(suggest("workers", POOLS.keys.iter().map(|k| k.name)), Some("processes"));
    }

    #[test]
    fn names_are_unique_and_every_key_says_what_it_does() {
        for t in TABLES {
            for (i, k) in t.keys.iter().enumerate() {
                assert!(k.doc.ends_with('.') && k.doc.len() > 10, "{} {}", t.name, k.name);
                assert!(t.keys.iter().skip(i + 1).all(|o| o.name != k.name), "{} {} twice", t.name, k.name);
            }
            assert!(t.required.iter().chain(t.one_of).all(|r| t.key(r).is_some()), "{}", t.name);
        }
    }
}
