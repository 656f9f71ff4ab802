//! What the server may have lost behind taskd's back: keys that it dropped for want of memory, or all of them.

use std::time::{Duration, Instant};

use super::args::Args;
use super::steps::fault;
use super::store::Store;
use crate::link::redis::{LinkError, Server, fault::Reason};
use crate::model::op::Fault;

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Guard {
    next: Option<Instant>,
    /// Which start of the server, and what it had dropped when it was looked at first.
    dropped: Option<(String, u64)>,
    /// Dropped since then, by all starts of it.
    lost: u64,
    /// When taskd's keys began to be there.
    born: Option<String>,
    emptied: u32,
    /// It drops keys, which it did not when this node began.
    evicts: Option<String>,
}

impl Guard {
    /// What INFO says now; whether that is news.
    fn saw(&mut self, server: Result<Server, LinkError>) -> bool {
        match server {
            Ok(server) => {
                let before = match &self.dropped {
                    Some((run, before)) if *run == server.run_id => *before,
                    // Another start counts from nothing; what the first one dropped before was told at the start.
                    Some(_) => 0,
                    None => server.evicted_keys,
                };
                let new = server.evicted_keys.saturating_sub(before);
                self.lost += new;
                self.dropped = Some((server.run_id, server.evicted_keys));
                self.evicts.take().is_some() || new > 0
            }
            Err(error) if error.fault.reason == Reason::Evicts => {
                self.evicts.replace(format!("{} ({})", error.fault, error.help())).is_none()
            }
            Err(_) => false,
        }
    }

    /// When the keys began to be there; whether that is news.
    fn saw_born(&mut self, born: String) -> bool {
        let other = self.born.as_ref().is_some_and(|before| *before != born);
        self.emptied += u32::from(other);
        self.born = Some(born);
        other
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.evicts.iter().cloned().collect();
        if self.lost > 0 {
            notes.push(format!(
                "Redis dropped {} keys for want of memory since this daemon started: messages or results are gone; \
                 raise maxmemory and set `maxmemory-policy noeviction`",
                self.lost
            ));
        }
        if self.emptied > 0 {
            notes.push(format!(
                "all that taskd kept in Redis vanished {} since this daemon started: somebody emptied it, or it was \
                 started again without its data (`appendonly yes` keeps them)",
                if self.emptied == 1 { "once".to_owned() } else { format!("{} times", self.emptied) }
            ));
        }
        notes
    }
}

impl Store {
    /// Looks, where it is time to.
    pub(super) fn look_for_losses(&mut self) {
        if self.guard.next.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.guard.next = Some(Instant::now() + LOOK_EVERY);
        let Some(server) = self.look_at_server() else { return };
        let mut news = self.guard.saw(server);
        if let Ok(born) = self.born() {
            news |= self.guard.saw_born(born);
        }
        if news {
            let notes = self.guard.notes();
            notes.iter().for_each(|note| tracing::error!("{note}"));
            self.shared.set_notes(notes);
        }
    }

    fn born(&mut self) -> Result<String, Fault> {
        let mut told = self.ask("born", Args::default())?;
        told.text().map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::redis::server::Product;

    fn server(run_id: &str, evicted_keys: u64) -> Result<Server, LinkError> {
        Ok(Server {
            product: Product::Redis,
            version: "7.0.15".into(),
            run_id: run_id.into(),
            policy: "noeviction".into(),
            maxmemory: 0,
            evicted_keys,
            appends: true,
            replicas: 0,
        })
    }

    #[test]
    fn what_was_dropped_is_counted_over_restarts_of_the_server() {
        let mut guard = Guard::default();
        assert!(!guard.saw(server("a", 7)), "what was dropped before is told at the start");
        assert!(!guard.saw(server("a", 7)) && guard.notes().is_empty());
        assert!(guard.saw(server("a", 9)) && guard.saw(server("b", 3)));
        assert!(guard.notes()[0].contains("dropped 5 keys"), "{:?}", guard.notes());
        let evicts = || Err(LinkError::because("s", Reason::Evicts, "maxmemory-policy is allkeys-lru"));
        assert!(guard.saw(evicts()) && !guard.saw(evicts()));
        assert!(guard.notes()[0].contains("allkeys-lru"), "{:?}", guard.notes());
        assert!(guard.saw(server("b", 3)) && guard.notes().len() == 1, "it is mended");
    }

    #[test]
    fn keys_that_began_anew_were_gone() {
        let mut guard = Guard::default();
        assert!(!guard.saw_born("1".into()) && !guard.saw_born("1".into()));
        assert!(guard.saw_born("2".into()) && guard.notes()[0].contains("once"));
        assert!(guard.saw_born("3".into()) && guard.notes()[0].contains("2 times"));
    }
}
