//! Hard limits, what surrounds a process, and what it is kept from: keys that tasks and resident workers share.

use crate::model::task::{IoClass, Limits, OnMemory, ProtectSystem, Raise, Sandbox, Surroundings};

use super::build::{Builder, Layers};
use super::report::{Fault, FaultKind};
use super::section::{Parsed, Section, Set};
use super::settings::Settings;

impl<'a> Builder<'a, '_> {
    /// What surrounds the process.
    pub(super) fn surroundings(&mut self, at: &Layers<'a>) -> Surroundings {
        let nice = at.set("nice").and_then(|s| s.number().map(|n| (s, n)));
        if let Some((set, n)) = nice
            && n < 0
        {
            self.needs_root(
                set,
                &at.path("nice"),
                &format!("nice {n}"),
                "use 0 to 19, or start taskd as root",
            );
        }
        let io_class = at.set("io_class").and_then(|s| s.text().map(|t| (s, t)));
        if let Some((set, "realtime")) = io_class {
            let help = "use \"best-effort\", or start taskd as root";
            self.needs_root(set, &at.path("io_class"), "io_class \"realtime\"", help);
        }
        Surroundings {
            environment: super::task::environment(at),
            pass_environment: at.list("pass_environment"),
            environment_file: at.text("environment_file"),
            credentials: at.list("credentials"),
            working_directory: at.set("working_directory").and_then(Set::text).map(str::to_owned),
            umask: at.set("umask").and_then(Set::number).and_then(|n| u32::try_from(n).ok()),
            nice: nice.and_then(|(_, n)| i32::try_from(n).ok()),
            limit_nofile: at.number("limit_nofile"),
            io_class: io_class.map(|(_, class)| match class {
                "realtime" => IoClass::Realtime,
                "best-effort" => IoClass::BestEffort,
                "idle" => IoClass::Idle,
                _ => IoClass::None,
            }),
            sandbox: self.sandbox(at),
        }
    }

    fn needs_root(&mut self, set: &Set, path: &str, what: &str, help: &str) {
        if !self.check.env.is_root() {
            let message = format!("{what} needs root, and taskd was started as `{}`", self.check.env.user);
            self.check.fault(Fault::new(FaultKind::Reference, &set.at, path, message).help(help));
        }
    }

    fn sandbox(&mut self, at: &Layers<'a>) -> Sandbox {
        let protect_system = match at.set("protect_system").map(|s| &s.value) {
            Some(Parsed::Flag(true)) => ProtectSystem::Yes,
            Some(Parsed::Text(word)) if word == "full" => ProtectSystem::Full,
            Some(Parsed::Text(_)) => ProtectSystem::Strict,
            _ => ProtectSystem::No,
        };
        if protect_system == ProtectSystem::No && at.set("read_write_paths").is_some() {
            self.notes.push(format!("{}: has no effect without protect_system", at.path("read_write_paths")));
        }
        Sandbox {
            no_new_privileges: at.flag("no_new_privileges"),
            private_tmp: at.flag("private_tmp"),
            protect_system,
            private_network: at.flag("private_network"),
            read_write_paths: at.list("read_write_paths"),
        }
    }

    /// Limits of one attempt, or of one worker.
    pub(super) fn hard_limits(&mut self, at: &Layers<'a>) -> Limits {
        Limits {
            memory_max: at.number("memory_max"),
            cpu_quota: at.small("cpu_quota"),
            tasks_max: at.number("tasks_max"),
            on_memory: None,
        }
    }

    /// `on_memory`, which needs a limit to run into, a way to do better, and a queue that exists.
    pub(super) fn on_memory(
        &mut self,
        at: &Layers<'a>,
        memory_max: Option<u64>,
        settings: &Settings,
    ) -> Option<OnMemory> {
        let set = at.set("on_memory")?;
        let table = set.table()?;
        let path = at.path("on_memory");
        let mut refuse = |message: String, help: &str| {
            self.check.fault(Fault::new(FaultKind::Reference, &set.at, path.clone(), message).help(help));
        };
        let raise = match table.get("memory_max") {
            Some(Parsed::Raise(raise)) => Some(*raise),
            _ => None,
        };
        let queue = match table.get("queue") {
            Some(Parsed::Text(queue)) => Some(queue.clone()),
            _ => None,
        };
        let max = match table.get("max") {
            Some(Parsed::Number(n)) => u32::try_from(*n).unwrap_or(1),
            _ => 1,
        };
        match (memory_max, raise) {
            (None, _) => {
                refuse(
                    "`on_memory` has no effect without `memory_max`".to_owned(),
                    "add memory_max = \"512M\"",
                );
            }
            (Some(limit), Some(Raise::Bytes(bytes))) if bytes <= limit => {
                let message = format!("the next limit, {bytes} bytes, is not above `memory_max`");
                refuse(message, "raise it, or write a multiple as \"2x\"");
            }
            (Some(_), None) if queue.is_none() => {
                let message = "`on_memory` changes neither the limit nor the queue: it would fail again";
                refuse(message.to_owned(), "add memory_max = \"2x\", or a queue with a pool of its own");
            }
            _ => {}
        }
        if let Some(name) = &queue
            && !settings.queues.contains_key(name)
        {
            refuse(format!("there is no queue `{name}`"), "declare it, or remove `queue` from `on_memory`");
        }
        Some(OnMemory { memory_max: raise, queue, max })
    }

    /// `group` and `supplementary_groups`: they exist, and taskd may set them.
    pub(super) fn groups(&mut self, at: &Layers<'a>) -> (Option<String>, Vec<String>) {
        let named = ["group", "supplementary_groups"].into_iter().filter_map(|k| at.set(k).map(|s| (k, s)));
        for (key, set) in named {
            let path = at.path(key);
            if !self.check.env.is_root() {
                self.needs_root(set, &path, &format!("`{key}`"), "start taskd as root, or remove it");
                continue;
            }
            let names = set.many().unwrap_or_default().iter().map(|(n, at)| (n.as_str(), at));
            for (name, place) in set.text().map(|n| (n, &set.at)).into_iter().chain(names) {
                if !self.check.env.has_group(name) {
                    let fault =
                        Fault::new(FaultKind::Reference, place, &path, format!("there is no group `{name}`"));
                    self.check.fault(fault.help(format!("create it, as with `groupadd --system {name}`")));
                }
            }
        }
        (at.text("group"), at.list("supplementary_groups"))
    }

    /// Keys that act on a process of its own, which a task of a resident worker does not have.
    pub(super) fn worker_task(&mut self, section: &Section, pool: &str) {
        for key in POOL_TOO.iter().chain(&OF_A_PROCESS) {
            if let Some(set) = section.get(key) {
                let message =
                    format!("`{key}` has no effect: the task runs inside the worker of the pool `{pool}`");
                let fault = Fault::new(FaultKind::Reference, &set.key_at, section.path(key), message);
                let help = if POOL_TOO.contains(key) {
                    format!("put it under [pools.{}]", super::tree::quote_key(pool))
                } else {
                    "remove it".to_owned()
                };
                self.check.fault(fault.help(help));
            }
        }
    }
}

/// Keys of a task that need a process of its own, and that no pool has instead.
pub(super) const OF_A_PROCESS: [&str; 7] =
    ["stdin", "result", "retry_on", "success_on", "soft_signal", "allow_dash", "dash_dash"];

/// Keys of a task that need a process of its own; a pool with a worker has them for that.
pub(super) const POOL_TOO: &[&str] = &[
    "user",
    "group",
    "supplementary_groups",
    "memory_max",
    "cpu_quota",
    "tasks_max",
    "nice",
    "io_class",
    "limit_nofile",
    "umask",
    "working_directory",
    "environment",
    "environment_file",
    "pass_environment",
    "credentials",
    "no_new_privileges",
    "private_tmp",
    "protect_system",
    "private_network",
    "read_write_paths",
];
