//! Checked sections -> [`Settings`], with everything that only the whole file can show: names of things
//! that do not exist, settings that do not fit together, defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::check::Check;
use super::keys::{self, Shape, TABLES, TableSpec, suggest};
use super::origin::Origins;
use super::report::{Fault, FaultKind};
use super::section::{Parsed, Section, Set};
use super::settings::{Access, CeleryControl, DEFAULT, Dead, Pool, Queue, Results, Route, Settings, Taskd};
use super::tree::{At, Table, quote};
use super::users::Users;

/// The values of one table, looked up in order: its own, those of `[defaults]`, the built-in ones.
#[derive(Clone)]
pub(super) struct Layers<'a> {
    pub(super) own: Option<&'a Section>,
    pub(super) base: Option<&'a Section>,
    pub(super) built_in: &'a Section,
}

impl<'a> Layers<'a> {
    /// The layers that stand in a file.
    pub(super) fn written(&self) -> impl Iterator<Item = &'a Section> + use<'a> {
        self.own.into_iter().chain(self.base)
    }

    /// The value of a file; absent where no file says it.
    pub(super) fn set(&self, key: &str) -> Option<&'a Set> {
        self.written().find(|s| s.has(key)).and_then(|s| s.get(key))
    }

    /// The value, built-in where no file says it.
    pub(super) fn get(&self, key: &str) -> Option<&'a Set> {
        self.set(key).or_else(|| self.built_in.get(key))
    }

    /// The path of a key, in the table where it stands.
    pub(super) fn path(&self, key: &str) -> String {
        let found = self.written().find(|s| s.has(key)).or(self.own);
        found.map(|s| s.path(key)).unwrap_or_default()
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(Set::text).map(str::to_owned)
    }

    /// A number that the checks have kept at or above zero.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Set::number).and_then(|n| u64::try_from(n).ok())
    }

    pub(super) fn small(&self, key: &str) -> Option<u32> {
        self.number(key).and_then(|n| u32::try_from(n).ok())
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Set::flag).unwrap_or(false)
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let many = self.get(key).and_then(Set::many).unwrap_or_default();
        many.iter().map(|(s, _)| s.clone()).collect()
    }
}

/// `broker` of a node that shares its store with nobody.
const EMBEDDED: &str = "embedded";

/// What is being built.
pub(super) struct Builder<'a, 'e> {
    pub(super) check: &'a mut Check<'e>,
    pub(super) sections: &'a [Section],
    pub(super) built_in: &'a BTreeMap<&'static str, Section>,
    pub(super) origins: Origins<'a>,
    pub(super) notes: Vec<String>,
}

/// The defaults of every table, read by the same rules as a file.
pub(super) fn built_in(check: &mut Check<'_>) -> BTreeMap<&'static str, Section> {
    let at = At { file: usize::MAX, span: 0..0 };
    let empty = |spec| Section {
        spec,
        name: String::new(),
        at: at.clone(),
        values: BTreeMap::new(),
        faulty: BTreeSet::new(),
    };
    TABLES
        .iter()
        .map(|spec| {
            let lines: Vec<String> = spec
                .keys
                .iter()
                .filter(|k| !k.default.is_empty())
                .map(|k| format!("{} = {}\n", k.name, k.default))
                .collect();
            let text = format!("{}\n{}", header(spec), lines.concat());
            let (tree, _) = toml::de::DeTable::parse_recoverable(&text);
            let (tree, _): (Table, _) = super::tree::from_toml(tree.get_ref(), usize::MAX);
            // Required keys have no default: what the check says of that is of no interest.
            let faults = check.faults.len();
            let section = check.sections(&tree).pop();
            check.faults.truncate(faults);
            (spec.name, section.unwrap_or_else(|| empty(spec)))
        })
        .collect()
}

fn header(spec: &TableSpec) -> String {
    match spec.shape {
        Shape::Named => format!("[{}.{DEFAULT}]", spec.name),
        Shape::One | Shape::List => spec.header(),
    }
}

impl<'a> Builder<'a, '_> {
    /// The sections of a table.
    pub(super) fn all(&self, table: &str) -> impl Iterator<Item = &'a Section> + use<'a> {
        let table = table.to_owned();
        self.sections.iter().filter(move |s| s.spec.name == table)
    }

    fn one(&self, spec: &TableSpec) -> Option<Layers<'a>> {
        Some(Layers { own: self.all(spec.name).next(), base: None, built_in: self.built_in.get(spec.name)? })
    }

    /// The settings; absent only where the list of keys itself is broken.
    pub(super) fn settings(&mut self) -> Option<Settings> {
        let users = Users::new(self.check, self.all("taskd").next());
        self.notes.extend(users.notes(self.check.env));
        let taskd = self.taskd(&users)?;
        let results = self.results()?;
        let dead = self.dead()?;
        let access = self.access(&taskd)?;
        let pools = self.pools(&users)?;
        let queues = self.queues(&pools)?;
        self.shared_queues(&queues, &taskd.broker);
        let routes = self.routes(&queues)?;
        let mut settings = Settings {
            generation: 1,
            taskd,
            results,
            dead,
            access,
            pools,
            queues,
            routes,
            tasks: BTreeMap::new(),
            schedules: BTreeMap::new(),
            workflows: BTreeMap::new(),
            notify: super::settings::Notify::default(),
            hard_nofile: None,
        };
        self.tasks(&mut settings, &users)?;
        self.workflows(&mut settings)?;
        self.schedules(&mut settings)?;
        self.notices(&mut settings)?;
        Some(settings)
    }

    fn taskd(&mut self, users: &Users) -> Option<Taskd> {
        let at = self.one(&keys::TASKD)?;
        let node = at.text("node").unwrap_or_else(|| self.check.env.node.clone());
        let user = users.daemon.as_deref().map(quote).unwrap_or_default();
        self.origins.table("[taskd]", &at, &[("node", quote(&node)), ("user", user)]);
        Some(Taskd {
            node,
            broker: at.text("broker")?,
            results: at.text("results")?,
            allow_eviction: at.flag("allow_eviction"),
            state_dir: PathBuf::from(at.text("state_dir")?),
            socket: PathBuf::from(at.text("socket")?),
            timezone: at.text("timezone"),
            max_memory_pressure: at.small("max_memory_pressure"),
            shutdown_grace_ms: at.number("shutdown_grace")?,
            log_level: at.text("log_level")?,
            user: users.daemon.clone(),
        })
    }

    fn results(&mut self) -> Option<Results> {
        let at = self.one(&keys::RESULTS)?;
        self.origins.table("[results]", &at, &[]);
        Some(Results {
            expires_ms: at.number("expires")?,
            max_size: at.number("max_size")?,
            max_records: at.number("max_records")?,
            output_max_size: at.number("output_max_size")?,
            output_rate: at.number("output_rate")?,
        })
    }

    fn dead(&mut self) -> Option<Dead> {
        let at = self.one(&keys::DEAD)?;
        self.origins.table("[dead]", &at, &[]);
        Some(Dead { expires_ms: at.number("expires")?, max_records: at.number("max_records")? })
    }

    fn access(&mut self, taskd: &Taskd) -> Option<Access> {
        let at = self.one(&keys::ACCESS)?;
        self.origins.table("[access]", &at, &[]);
        for key in ["read", "enqueue", "admin"] {
            self.people(&format!("access.{key}"), at.set(key));
        }
        if let Some(section) =
            at.own.filter(|s| s.get("celery_control").is_some() && taskd.broker == EMBEDDED)
        {
            let path = section.path("celery_control");
            self.notes
                .push(format!("{path}: has no effect with the embedded store, which Celery cannot reach"));
        }
        let celery_control = match at.set("celery_control").map(|s| &s.value) {
            Some(Parsed::Flag(false)) => CeleryControl::No,
            Some(Parsed::Text(_)) => CeleryControl::Read,
            _ => CeleryControl::Yes,
        };
        let (read, enqueue, admin) = (at.list("read"), at.list("enqueue"), at.list("admin"));
        Some(Access { read, enqueue, admin, celery_control })
    }

    /// Notes users and groups that do not exist: they open no door, so they are no fault.
    pub(super) fn people(&mut self, path: &str, set: Option<&Set>) {
        for (who, _) in set.and_then(Set::many).unwrap_or_default() {
            let missing = match who.strip_prefix('@') {
                Some(group) if !self.check.env.has_group(group) => format!("group `{group}`"),
                None if self.check.env.uid_of(who).is_none() => format!("user `{who}`"),
                _ => continue,
            };
            self.notes.push(format!("{path}: there is no {missing}"));
        }
    }

    fn queues(&mut self, pools: &BTreeMap<String, Pool>) -> Option<BTreeMap<String, Queue>> {
        let built_in = self.built_in.get("queues")?;
        let mut queues = BTreeMap::new();
        let named = self.all("queues").map(|s| (s.name.clone(), Some(s)));
        for (name, own) in with_default(named.collect()) {
            let at = Layers { own, base: None, built_in };
            let pool = at.text("pool")?;
            if let (Some(section), false) = (own, pools.contains_key(&pool)) {
                self.missing(section, "pool", "pool", &pool, pools.keys());
            }
            let header = format!("[queues.{}]", super::tree::quote_key(&name));
            self.origins.table(&header, &at, &[]);
            let queue = Queue {
                pool,
                weight: at.small("weight").unwrap_or(1),
                strict: at.flag("strict"),
                concurrency: at.small("concurrency"),
                rate: super::throttle::rate(&at),
                max_length: at.number("max_length"),
                shared: at.flag("shared"),
                name: name.clone(),
            };
            if let Some(section) = own.filter(|s| s.get("rate_limit_burst").is_some() && queue.rate.is_none())
            {
                self.notes
                    .push(format!("{}: has no effect without rate_limit", section.path("rate_limit_burst")));
            }
            queues.insert(name, queue);
        }
        Some(queues)
    }

    fn routes(&mut self, queues: &BTreeMap<String, Queue>) -> Option<Vec<Route>> {
        let built_in = self.built_in.get("routes")?;
        let mut routes: Vec<Route> = Vec::new();
        for section in self.all("routes") {
            let at = Layers { own: Some(section), base: None, built_in };
            self.origins.table("[[routes]]", &at, &[]);
            let (Some(task), Some(queue)) = (at.text("task"), at.text("queue")) else { continue };
            if !queues.contains_key(&queue) && !self.leads_outside(&task) {
                self.missing(section, "queue", "queue", &queue, queues.keys());
            }
            if let Some(earlier) = routes.iter().find(|r| r.task == task || r.task == "*") {
                let earlier = &earlier.task;
                self.notes.push(format!("routes: {task:?} never matches, since {earlier:?} comes before it"));
            }
            routes.push(Route { task, queue });
        }
        if let Some(all) = self.all("defaults").next().and_then(|d| d.get("queue")).and_then(Set::text)
            && !routes.is_empty()
        {
            self.notes.push(format!("routes: none applies, since [defaults] sends every task to {all:?}"));
        }
        Some(routes)
    }

    /// Notes the name of something that does not exist.
    pub(super) fn missing<'k>(
        &mut self,
        section: &Section,
        key: &str,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'k String> + Clone,
    ) {
        let message = format!("there is no {what} `{name}`");
        let declare = format!("declare it with [{what}s.{}]", super::tree::quote_key(name));
        let help = match suggest(name, known.clone().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? Or {declare}"),
            None => {
                let known: Vec<&str> = known.take(8).map(String::as_str).collect();
                let there = if known.is_empty() {
                    "there is none".to_owned()
                } else {
                    format!("there is {}", known.join(", "))
                };
                format!("{declare}; {there}")
            }
        };
        let path = section.path(key);
        self.check.fault(Fault::new(FaultKind::Reference, section.place(key), path, message).help(help));
    }
}

/// The named tables and `default`, which always exists.
pub(super) fn with_default(mut named: Vec<(String, Option<&Section>)>) -> Vec<(String, Option<&Section>)> {
    if named.iter().all(|(n, _)| n != DEFAULT) {
        named.push((DEFAULT.to_owned(), None));
    }
    named
}
