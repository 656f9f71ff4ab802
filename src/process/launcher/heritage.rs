//! The launcher's side of [`super::inherit`]: its state for the next program, and a launcher made of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::child::{Ended, Living};
use super::core::{Core, seal};
use super::exec::OpenFiles;
use super::family::End;
use super::foreign::Foreign;
use super::groups::Cell;
use super::inherit::{self, FORMAT, Heir, Inherited, State};
use super::signals::Signals;
use super::state_dir::StateDir;
use super::users::{self, Machine, Who};
use super::vault::{self, Vault};
use super::worker::Starting;
use super::{LauncherOptions, StartFault};
use crate::config::Secrets;
use crate::config::settings::Settings;
use crate::observe::fields;
use crate::observe::log::Log;
use crate::process::cgroup::Tree;
use crate::process::held::Held;
use crate::process::listen::ControlSocket;
use crate::process::packet::Packets;

impl<'log> Core<'log> {
    /// What the next program gets. `keep`: queues that hold messages.
    pub(super) fn state(&self, keep: Vec<String>, secrets: Secrets) -> io::Result<State> {
        let directory = self.store.vault.as_ref().map(|vault| vault.path().to_owned());
        let now = Instant::now();
        let ago = |at: &Instant| u64::try_from(now.duration_since(*at).as_millis()).unwrap_or(u64::MAX);
        let heir = |c: &Living| Heir {
            child: c.child.clone(),
            age_ms: ago(&c.since),
            descriptors: c.descriptors.iter().map(|fd| fd.as_raw_fd()).collect(),
            starting: c.starting.as_ref().map(|s| s.pipe().as_raw_fd()),
            cell: c.cell.as_ref().map(Cell::keep),
            out_of_memory: c.out_of_memory,
            parent: c.parent,
        };
        let mut generations = BTreeMap::new();
        for living in self.children.values() {
            if let Entry::Vacant(place) = generations.entry(living.child.generation) {
                place.insert(serde_json::to_value(&*living.settings)?);
            }
        }
        Ok(State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            loaded: serde_json::to_value(&self.loaded)?,
            keep,
            instance: self.state.instance.clone(),
            lock: self.state.lock().as_raw_fd(),
            listener: self.listener.as_raw_fd(),
            bound: self.control.bound().cloned(),
            open_files: self.open_files.numbers(),
            epoch: self.epoch,
            deaths: self.deaths.iter().map(ago).collect(),
            last_child: self.last_child,
            children: self.children.values().map(heir).collect(),
            parents: self.parents.keep(),
            generations,
            ended: self.ended.iter().map(Ended::keep).collect(),
            foreign: self.foreign.pids().clone(),
            tree: self.groups.as_ref().map(Tree::kept),
            supervision: self.supervision.clone(),
            children_lost: self.children_lost || self.told_an_end,
            since: self.since,
            reload_wanted: self.reload_wanted,
            draining: self.reexec.draining,
            upgrades: self.reexec.done + 1,
            held: Held { secrets, directory }.seal(),
        })
    }

    /// Goes on with what the program before this one left, up to the start of a daemon.
    pub(super) fn take_over(
        options: LauncherOptions,
        signals: Signals,
        loaded: Settings,
        log: &'log Log,
        mut inherited: Inherited,
    ) -> Result<Self, StartFault> {
        // The kernel calls a program that was executed by descriptor after that; `taskd stop` looks at it.
        let _ = nix::sys::prctl::set_name(c"taskd");
        let (lock, listener) = (inherited.state.lock, inherited.state.listener);
        let lock = File::from(inherited.take(lock).map_err(StartFault::busy)?);
        let listener = inherited.take(listener).map_err(StartFault::busy)?;
        let who = Who::now();
        let (settings, users) =
            users::resolve(&loaded, &who, &Machine::real()).map_err(StartFault::config)?;
        let state = &mut inherited.state;
        let open_files = OpenFiles::found(state.open_files);
        let control = ControlSocket::taken_over(listener, state.bound.take());
        let directory = StateDir::taken_over(std::mem::take(&mut state.instance), lock)?;
        let tree = state.tree.take().map(|kept| Tree::taken_over(kept, options.groups.kernel));
        let (settings, groups) = ((settings, users), (tree, std::mem::take(&mut state.supervision)));
        let mut core = Self::build(
            options, signals, log, who, open_files, directory, control, loaded, settings, groups,
        )?;
        let ago = |ms: &u64| Instant::now().checked_sub(Duration::from_millis(*ms));
        core.epoch = state.epoch;
        core.deaths = state.deaths.iter().filter_map(ago).collect();
        core.last_child = state.last_child;
        core.children_lost = state.children_lost;
        core.since = state.since;
        core.reload_wanted = state.reload_wanted;
        core.reexec.done = state.upgrades;
        core.reexec.draining = state.draining;
        for kept in std::mem::take(&mut state.ended) {
            core.ended.push(Ended::taken_over(core.groups.as_ref(), kept));
        }
        core.foreign = Foreign::taken_over(std::mem::take(&mut state.foreign));
        core.inherit_children(&mut inherited).map_err(StartFault::busy)?;
        core.inherit_parents(&mut inherited).map_err(StartFault::busy)?;
        let held = std::mem::take(&mut inherited.state.held).open().map_err(StartFault::busy)?;
        core.inherit_secrets(held).map_err(StartFault::config)?;
        core.sealed = Rc::new(seal(&core.settings, &core.store.secrets).map_err(StartFault::config)?);
        tracing::info!(
            MESSAGE_ID = fields::UPGRADED,
            TASKD_GENERATION = core.settings.generation,
            "taskd {} was replaced by taskd {}, {} children live on",
            inherited.state.version,
            env!("CARGO_PKG_VERSION"),
            core.children.len()
        );
        core.notify.status("the program was replaced; running tasks go on");
        core.start_daemon();
        // Whatever ended during the replacement: its signal may have been taken by the old program.
        core.reap_all();
        Ok(core)
    }

    /// Those of now; those of before where they cannot be read any more, so that what was accepted goes on.
    fn inherit_secrets(&mut self, held: Held) -> Result<(), String> {
        self.store.vault = held.directory.map(|path| Vault::taken_over(path, self.who.uid == 0));
        let settings = Rc::clone(&self.settings);
        self.store.secrets = vault::read(&settings).unwrap_or_else(|why| {
            tracing::error!("{why}; the old credentials stay in force");
            held.secrets
        });
        self.open_vault(&settings)
    }

    fn inherit_children(&mut self, inherited: &mut Inherited) -> Result<(), String> {
        let mut strange = Vec::new();
        for heir in std::mem::take(&mut inherited.state.children) {
            let (id, pid) = (heir.child.child, heir.child.pid);
            // Their own format may have changed: those of now are the next best then.
            let settings = inherited.state.generations.get(&heir.child.generation);
            let settings = settings.and_then(|s| serde_json::from_value(s.clone()).ok()).map(Rc::new);
            let settings = settings.unwrap_or_else(|| Rc::clone(&self.settings));
            let living = self.adopt(heir, settings, inherited)?;
            self.children.insert(id, living);
            if !inherit::is_child(pid) {
                strange.push(id);
            }
        }
        for id in strange {
            // Nobody but this process can have reaped it, so this cannot be; its runs must not be waited for.
            let signal = Signal::SIGKILL as i32;
            self.child_ended(id, End { code: 128 + signal, signal });
        }
        Ok(())
    }

    /// One child with its descriptors and its control group.
    fn adopt(&self, heir: Heir, settings: Rc<Settings>, inherited: &mut Inherited) -> Result<Living, String> {
        let now = Instant::now();
        let Heir { child, age_ms, descriptors, starting, cell, out_of_memory, parent } = heir;
        let since = now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(now);
        let mut take = |number: RawFd| inherited.take(number);
        let descriptors =
            descriptors.into_iter().map(|n| Ok(Rc::new(take(n)?))).collect::<Result<Vec<_>, String>>()?;
        let starting = starting.map(&mut take).transpose()?.map(Starting::taken_over);
        let asks = cell.as_ref().and_then(|c| c.asks).map(&mut take).transpose()?;
        let asks = asks.map(Packets::from_fd).transpose().map_err(|e| e.to_string())?;
        let until = now + self.options.limits.gone_within;
        let tree = self.groups.as_ref();
        let cell = tree.zip(cell).map(|(tree, kept)| Cell::taken_over(tree, kept, asks, until));
        Ok(Living { child, since, descriptors, starting, parent, settings, cell, out_of_memory })
    }
}
