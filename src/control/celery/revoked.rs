//! Ids and stamps that were revoked: what a message that arrives later is held against. Celery keeps as many, as long,
//! but only in memory; here the daemon keeps them in its store too.

use std::collections::{BTreeMap, VecDeque};

use crate::celery::call::Call;
use crate::celery::json::{Fields, Kind};
use crate::model::time::Wall;

/// Most ids; the oldest go first. Celery's own number.
pub const MAX_IDS: usize = 50_000;

/// Most sets of stamps.
pub const MAX_STAMPS: usize = 1_000;

/// How long they are remembered, in milliseconds: three hours, as in Celery.
pub const KEPT_MS: u64 = 3 * 3_600_000;

/// What was revoked.
#[derive(Debug, Default)]
pub struct Revoked {
    ids: BTreeMap<String, Wall>,
    /// In the order of the times; what was revoked again has an entry whose time is not that of `ids`.
    order: VecDeque<(Wall, String)>,
    stamps: VecDeque<(Wall, Fields)>,
    /// What went because there were too many, and was not told yet.
    gone: Vec<String>,
}

impl Revoked {
    /// Adds an id; false where it was there.
    pub fn add(&mut self, id: &str, at: Wall) -> bool {
        let new = self.ids.insert(id.to_owned(), at).is_none();
        self.order.push_back((at, id.to_owned()));
        while self.ids.len() > MAX_IDS || self.order.len() > 2 * MAX_IDS {
            self.pop();
        }
        new
    }

    /// Adds stamps: a call with any of these values under any of these names is revoked.
    pub fn add_stamps(&mut self, stamps: &Fields, at: Wall) {
        self.stamps.push_back((at, stamps.clone()));
        if self.stamps.len() > MAX_STAMPS {
            self.stamps.pop_front();
        }
    }

    fn pop(&mut self) {
        let Some((at, id)) = self.order.pop_front() else { return };
        if self.ids.get(&id) == Some(&at) {
            self.ids.remove(&id);
            self.gone.push(id);
        }
    }

    /// Whether an id was revoked.
    #[must_use]
    pub fn has(&self, id: &str, now: Wall) -> bool {
        self.ids.get(id).is_some_and(|at| now.since(*at) < KEPT_MS)
    }

    /// Whether a call was revoked, by its id or a stamp.
    #[must_use]
    pub fn means(&self, call: &Call, now: Wall) -> bool {
        let stamped = |stamps: &Fields| {
            stamps.iter().any(|(name, values)| {
                let list = values.kind() == Kind::List;
                let values = if list { values.items().unwrap_or_default() } else { vec![values] };
                call.stamped(name, &values)
            })
        };
        self.has(&call.id, now)
            || self.stamps.iter().any(|(at, stamps)| now.since(*at) < KEPT_MS && stamped(stamps))
    }

    /// The ids, by name.
    pub fn ids(&self, now: Wall) -> impl Iterator<Item = &str> {
        self.ids.iter().filter(move |(_, at)| now.since(**at) < KEPT_MS).map(|(id, _)| id.as_str())
    }

    /// Drops what is too old, and says which ids are not remembered any more, those that had to go before included.
    #[must_use]
    pub fn drain_old(&mut self, now: Wall) -> Vec<String> {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) >= KEPT_MS) {
            self.pop();
        }
        while self.stamps.front().is_some_and(|(at, _)| now.since(*at) >= KEPT_MS) {
            self.stamps.pop_front();
        }
        std::mem::take(&mut self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::json::Raw;

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let mut revoked = Revoked::default();
        for n in 0..MAX_IDS + 10 {
            assert!(revoked.add(&n.to_string(), Wall(0)));
        }
        assert_eq!(revoked.ids(Wall(0)).count(), MAX_IDS);
        assert!(!revoked.has("9", Wall(0)) && revoked.has("10", Wall(0)));
        assert!(!revoked.add("10", Wall(5)));
        assert_eq!(revoked.drain_old(Wall(1)), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        let end = Wall(0).plus(KEPT_MS);
        assert!(!revoked.has("11", end) && revoked.has("10", end), "it was revoked again, later");
        assert_eq!(revoked.drain_old(end).len(), MAX_IDS - 1);
        // The same id for ever must not grow it.
        for n in 0..200_000 {
            revoked.add("x", Wall(n));
        }
        assert!(revoked.order.len() <= 2 * MAX_IDS && revoked.has("x", Wall(200_000)));
    }

    #[test]
    fn a_stamp_revokes_what_comes_with_it() {
        let mut revoked = Revoked::default();
        let stamps = |text: &str| Fields::of(Raw::parse(text).unwrap().json()).unwrap();
        revoked.add_stamps(&stamps(r#"{"customer": [7, "eight"]}"#), Wall(0));
        let call = |stamp: &str| {
            let mut call = Call::new("t", "i");
            call.stamped_headers = Some(vec!["customer".to_owned()]);
            call.stamps = stamps(stamp);
            call
        };
        assert!(revoked.means(&call(r#"{"customer": "eight"}"#), Wall(1)));
        assert!(revoked.means(&call(r#"{"customer": [1, 7]}"#), Wall(1)));
        assert!(!revoked.means(&call(r#"{"customer": 8}"#), Wall(1)));
        assert!(!revoked.means(&call(r#"{"customer": 7}"#), Wall(0).plus(KEPT_MS)));
        let mut call = Call::new("t", "i");
        assert!(!revoked.means(&call, Wall(1)));
        call.id = "gone".into();
        revoked.add("gone", Wall(0));
        assert!(revoked.means(&call, Wall(1)));
    }
}
