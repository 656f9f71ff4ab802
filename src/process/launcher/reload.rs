//! Reading the config again: all of it checked before any of it counts.

use std::rc::Rc;

use super::core::{Core, seal};
use super::users::{self, Machine};
use super::{LauncherOptions, groups, sandboxes, vault};
use crate::config::settings::Settings;
use crate::observe::fields;
use crate::process::launch::{MAX_PACKET, ToDaemon};

/// Bytes of a text that surely fit into a packet, whatever JSON makes of them (`\u0000` at worst).
const MAX_TEXT: usize = MAX_PACKET / 8;

impl Core<'_> {
    /// SIGHUP. The daemon knows which queues hold messages, so it is asked first; one that is not ready yet
    /// is asked when it is. Wishes that come before the config is read are one.
    pub(super) fn wish_to_reload(&mut self) {
        if !self.phase.is_serving() {
            tracing::info!("no reload while stopping");
        } else if !std::mem::replace(&mut self.reload_wanted, true)
            && self.daemon.as_ref().is_some_and(|d| d.ready)
        {
            self.tell(ToDaemon::ReloadAsked, Vec::new());
        }
    }

    /// Reads the config and swaps the settings, or says why not. `keep`: queues that cannot go.
    pub(super) fn reload(&mut self, keep: &[String]) {
        self.reload_wanted = false;
        if !self.phase.is_serving() {
            tracing::info!("no reload while stopping");
            return self.refuse("taskd is stopping".to_owned());
        }
        if self.ready {
            self.notify.reloading();
        }
        match self.read_again(keep) {
            Ok(changes) => {
                let generation = self.settings.generation;
                tracing::info!(
                    MESSAGE_ID = fields::RELOADED,
                    TASKD_GENERATION = generation,
                    "settings reloaded, {} changes",
                    changes.len()
                );
                let changes = fitting(changes);
                self.tell(ToDaemon::Settings { generation, changes }, vec![Rc::clone(&self.sealed)]);
            }
            Err(report) => {
                tracing::error!(
                    MESSAGE_ID = fields::RELOAD_REFUSED,
                    "reload refused, nothing changed: {report}"
                );
                self.refuse(report);
            }
        }
        if self.ready {
            self.notify.ready();
        }
    }

    fn refuse(&mut self, report: String) {
        self.tell(ToDaemon::SettingsRefused { report: cut(report) }, Vec::new());
    }

    /// Swaps, or changes nothing. An unchanged config keeps its generation, so that no runner is replaced.
    fn read_again(&mut self, keep: &[String]) -> Result<Vec<String>, String> {
        let next = next(&self.options, &self.loaded, keep)?;
        let secrets = vault::read(next.as_ref().map_or(&self.loaded, |(loaded, _)| loaded))?;
        // New values are reason enough for new runners.
        let values = || secrets.differing(&self.store.secrets);
        let (loaded, changes) = match next {
            Some(next) => next,
            None if secrets == self.store.secrets => return Ok(Vec::new()),
            None => {
                let next = Settings { generation: self.loaded.generation + 1, ..self.loaded.clone() };
                (next, values().iter().map(|name| format!("credential {name} changed")).collect())
            }
        };
        let (settings, sentence) = users::resolve(&loaded, &self.who, &Machine::real())?;
        groups::check(&settings, self.groups.as_ref())?;
        sandboxes::check(&settings)?;
        let sealed = seal(&settings, &secrets).map_err(|e| format!("cannot hand over the settings: {e}"))?;
        self.open_vault(&settings)?;
        self.store.secrets = secrets;
        self.apply_level(&settings);
        self.loaded = loaded;
        self.settings = Rc::new(settings);
        self.sealed = Rc::new(sealed);
        self.users = sentence;
        self.look_at_parents();
        Ok(changes)
    }

    fn apply_level(&self, settings: &Settings) {
        if let Err(error) = self.log.set_level(&settings.taskd.log_level) {
            tracing::warn!("{error}");
        }
    }
}

/// What the config says now as the generation after `old`, with what changes; nothing where it is the same.
/// `keep`: queues that cannot go.
pub(super) fn next(
    options: &LauncherOptions,
    old: &Settings,
    keep: &[String],
) -> Result<Option<(Settings, Vec<String>)>, String> {
    let mut loaded = (options.load)()?;
    loaded.generation = old.generation;
    if loaded == *old {
        return Ok(None);
    }
    let changes = (options.diff)(old, &loaded)
        .map_err(|keys| format!("these need a restart of taskd: {}", keys.join(", ")))?;
    let gone = |queue: &&String| old.queues.contains_key(*queue) && !loaded.queues.contains_key(*queue);
    let lost: Vec<String> = keep.iter().filter(gone).map(|q| format!("[queues.{q}]")).collect();
    if !lost.is_empty() {
        return Err(format!(
            "messages are in {}, which the new config does not have: let them run or `taskd purge` them \
             first, or keep the queue",
            lost.join(", ")
        ));
    }
    loaded.generation += 1;
    Ok(Some((loaded, changes)))
}

/// The beginning of a text that surely fits into a packet.
pub(super) fn cut(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// As many lines as surely fit into a packet.
fn fitting(changes: Vec<String>) -> Vec<String> {
    let mut room = MAX_TEXT;
    changes
        .into_iter()
        .take_while(|line| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 8);
            fits
        })
        .collect()
}
