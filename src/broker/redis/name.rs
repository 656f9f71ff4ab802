//! Whose the node's name is. A name belongs to one process at a time, or two of them would hold each other's leases.
//!
//! A process is known by what only it can have ([`super::Options::identity`]), so one that is started again at the same
//! place goes on at once. Where another one has the name, its lease decides: while it is renewed the name is refused,
//! and when it runs out the name is free (a machine that was cut off, a container that was made anew).

use std::time::{Duration, Instant};

use super::args::Args;
use super::steps::fault;
use super::store::Store;
use super::{Shared, Woken};
use crate::model::op::Fault;

/// How often it is asked whether a name has become free.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);

/// How far this node is with its name.
#[derive(Debug)]
pub(super) struct Name {
    /// Who this process is.
    identity: String,
    /// It has the name.
    mine: bool,
    /// It had it before, in this life.
    had: bool,
    /// Until when another one has it, by the server's clock, as it was seen first.
    seen: Option<String>,
}

/// What is said of a name.
pub(super) enum Said {
    /// It is this node's; what it held may have been taken over.
    Mine {
        /// It was.
        lapsed: bool,
        /// It was not this node's until now.
        new: bool,
    },
    /// Another one has it, and it may become free.
    Waits,
    /// Another one has it and lives: in a sentence.
    Clash(String),
}

impl Name {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, mine: false, had: false, seen: None }
    }

    /// Whether anything may be done under it.
    pub(super) fn is_mine(&self) -> bool {
        self.mine
    }

    /// Who this process is.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Another one has it until then.
    fn held(&mut self, node: &str, until: String, left_ms: u64, told: &str, shared: &Shared) -> Said {
        self.mine = false;
        let host = serde_json::from_str::<serde_json::Value>(told).ok();
        let host = host.as_ref().and_then(|told| told.get("host")?.as_str()).map(str::to_owned);
        let place = host.map(|host| format!(" on {host}")).unwrap_or_default();
        if self.seen.get_or_insert_with(|| until.clone()) != &until {
            return Said::Clash(format!(
                "another taskd{place} is called {node:?} on this broker and lives: two nodes of one broker need names \
                 of their own; set another one with `node` in [taskd]"
            ));
        }
        let left = left_ms.div_ceil(1_000);
        shared.set_undecided(true);
        shared.set_trouble(Some(format!(
            "a taskd{place} that was called {node:?} did not say goodbye: if it does not say that it lives, this node \
             begins in {left} s"
        )));
        Said::Waits
    }

    fn granted(&mut self, lapsed: bool, shared: &Shared) -> Said {
        let new = !std::mem::replace(&mut self.mine, true);
        self.had = true;
        self.seen = None;
        if new {
            shared.set_undecided(false);
            shared.set_trouble(None);
        }
        Said::Mine { lapsed, new }
    }
}

impl Store {
    /// Says that this node lives, under its name.
    ///
    /// # Errors
    /// The server's; then it is said again later.
    pub(super) fn say_alive(&mut self) -> Result<Said, Fault> {
        let mut args = Args::default();
        args.num(u64::try_from(self.lease().as_millis()).unwrap_or(u64::MAX));
        args.flag(!self.name.had).text(self.name.identity());
        let mut said = self.ask("alive", args)?;
        let word = said.text().map_err(fault)?;
        if word != "held" {
            return Ok(self.name.granted(word == "lost", &self.shared));
        }
        let (until, left) = (said.text().map_err(fault)?, said.num().map_err(fault)?);
        let told = said.text().map_err(fault)?;
        let node = self.node().to_owned();
        Ok(self.name.held(&node, until, left, &told, &self.shared))
    }

    /// Says that this node lives and makes known what that leads to; when it is to be said again, from now on.
    pub(super) fn live(&mut self, every: Duration) -> Instant {
        let now = Instant::now();
        match self.say_alive() {
            Ok(Said::Mine { lapsed, new }) => {
                if lapsed {
                    self.express.forget();
                    self.wake.call(Woken::Lapsed);
                }
                if new {
                    self.fresh = true;
                    // What was refused until now is asked for again.
                    self.wake.call(Woken::All);
                    self.done.wake();
                }
                now + every
            }
            Ok(Said::Waits) => {
                self.done.wake();
                now + ASK_EVERY
            }
            Ok(Said::Clash(why)) => {
                self.shared.set_trouble(Some(why.clone()));
                self.wake.call(Woken::Clash(why));
                now + ASK_EVERY
            }
            // A connection that was lost is opened again first; anything else is over soon, or lasts.
            Err(_) => now + ASK_EVERY,
        }
    }

    /// Others take over at once what this node held.
    pub(super) fn say_goodbye(&mut self) {
        if self.name.is_mine() && !self.shared.stays() {
            let mut args = Args::default();
            args.text(self.name.identity());
            let _ = self.ask("gone", args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_waited_for_until_its_holder_says_that_it_lives() {
        let shared = Shared::default();
        let mut name = Name::new("me".to_owned());
        let told = r#"{"host":"db2"}"#;
        assert!(matches!(name.held("web", "100".into(), 29_400, told, &shared), Said::Waits));
        let trouble = shared.trouble().unwrap();
        assert!(trouble.contains("db2") && trouble.contains("30 s") && shared.undecided(), "{trouble}");
        assert!(matches!(name.held("web", "100".into(), 10, "", &shared), Said::Waits), "it did not move");
        let Said::Clash(why) = name.held("web", "105".into(), 30_000, told, &shared) else {
            panic!("it was renewed")
        };
        assert!(why.contains("\"web\"") && why.contains("on db2"), "{why}");
        assert!(!name.is_mine());
        assert!(matches!(name.granted(false, &shared), Said::Mine { lapsed: false, new: true }));
        assert!(name.is_mine() && shared.trouble().is_none() && !shared.undecided());
        assert!(matches!(name.granted(true, &shared), Said::Mine { lapsed: true, new: false }));
    }
}
