//! `[pools.NAME]`.

use std::collections::BTreeMap;

use super::build::{Builder, Layers, with_default};
use super::limits::POOL_TOO;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::{Pool, Recycle, Worker};
use super::tree::{quote, quote_key};
use super::users::Users;

/// Keys that a pool of runners has as well.
const OF_EVERY_POOL: [&str; 3] = ["user", "group", "supplementary_groups"];

impl<'a> Builder<'a, '_> {
    /// Every pool, and `default`.
    pub(super) fn pools(&mut self, users: &Users) -> Option<BTreeMap<String, Pool>> {
        let built_in = self.built_in.get("pools")?;
        let mut pools = BTreeMap::new();
        let named = self.all("pools").map(|s| (s.name.clone(), Some(s)));
        for (name, own) in with_default(named.collect()) {
            let at = Layers { own, base: None, built_in };
            let processes = at.small("processes").unwrap_or_else(|| self.check.env.cpus.clamp(1, 1_000));
            let user = match (own, at.set("user")) {
                (Some(section), Some(set)) => users.of(self.check, set, &section.path("user")),
                _ => users.tasks.clone(),
            };
            let shown = user.as_deref().map(quote).unwrap_or_default();
            let header = format!("[pools.{}]", quote_key(&name));
            self.origins.table(&header, &at, &[("processes", processes.to_string()), ("user", shown)]);
            let (group, supplementary_groups) = self.groups(&at);
            let recycle = Recycle {
                max_tasks: at.number("max_tasks_per_child"),
                max_memory: at.number("max_memory_per_child"),
                max_age_ms: at.number("max_child_age"),
                max_idle_ms: at.number("max_child_idle"),
            };
            let worker = self.worker(own, &at);
            let pool =
                Pool { name: name.clone(), processes, user, group, supplementary_groups, recycle, worker };
            pools.insert(name, pool);
        }
        Some(pools)
    }

    fn worker(&mut self, own: Option<&Section>, at: &Layers<'a>) -> Option<Worker> {
        let argv = at.set("worker").and_then(Set::many);
        let Some(argv) = argv else {
            // A worker that has a fault of its own is there all the same.
            let runners = own.filter(|s| !s.has("worker") && !s.has("celery_app"));
            if let Some(section) = runners {
                for key in POOL_TOO.iter().filter(|k| !OF_EVERY_POOL.contains(k)) {
                    let Some(set) = section.get(key) else { continue };
                    let message = format!("`{key}` of a pool is for its `worker`, and this pool has none");
                    let fault = Fault::new(FaultKind::Reference, &set.key_at, section.path(key), message);
                    self.check
                        .fault(fault.help("put it under [tasks.NAME], or under [defaults] for every task"));
                }
            }
            return None;
        };
        let argv = argv.iter().map(|(s, _)| s.clone()).collect();
        Some(Worker { argv, surroundings: self.surroundings(at), limits: self.hard_limits(at) })
    }
}
