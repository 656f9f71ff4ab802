//! Runs that a daemon before this one handed over: the store says which there are, their children say which
//! of these they hold, and either may come first.

use std::collections::BTreeMap;

use super::state::RunInfo;
use crate::engine::event::ChildKey;

/// What one side said and the other did not yet. Bounded by the slots; forgotten once the engine has made
/// its own match.
#[derive(Debug, Default)]
pub struct Adopted {
    found: BTreeMap<String, RunInfo>,
    named: BTreeMap<String, (ChildKey, Option<u32>)>,
}

impl Adopted {
    /// The store has this run. Back with its child, if that named it already.
    pub fn found(&mut self, run: &str, mut info: RunInfo) -> Option<RunInfo> {
        if let Some((child, pid)) = self.named.remove(run) {
            (info.child, info.pid) = (child, pid);
            return Some(info);
        }
        self.found.insert(run.to_owned(), info);
        None
    }

    /// A child names this run (and its process, which it tells last).
    pub fn named(&mut self, run: &str, child: ChildKey, pid: Option<u32>) -> Option<RunInfo> {
        if let Some(mut info) = self.found.remove(run) {
            (info.child, info.pid) = (child, pid);
            return Some(info);
        }
        self.named.insert(run.to_owned(), (child, pid));
        None
    }

    /// What is not matched by now never will be.
    pub fn clear(&mut self) {
        self.found.clear();
        self.named.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{Mono, Wall};

    fn info() -> RunInfo {
        RunInfo {
            id: "m".into(),
            task: "t".into(),
            queue: "q".into(),
            attempt: 1,
            passes: false,
            child: ChildKey(0),
            pid: None,
            since: Mono(0),
            began: Wall(0),
            begun: true,
            canceled: None,
            printed: true,
            dropped: 0,
            progress: None,
            ended: false,
        }
    }

    #[test]
    fn store_and_child_may_come_in_any_order() {
        let mut adopted = Adopted::default();
        assert!(adopted.named("1", ChildKey(7), None).is_none());
        assert!(adopted.named("1", ChildKey(7), Some(42)).is_none());
        let run = adopted.found("1", info()).unwrap();
        assert_eq!((run.child, run.pid), (ChildKey(7), Some(42)));
        assert!(adopted.found("2", info()).is_none());
        let run = adopted.named("2", ChildKey(8), None).unwrap();
        assert_eq!((run.child, run.pid), (ChildKey(8), None));
        assert!(adopted.found("3", info()).is_none());
        adopted.clear();
        assert!(adopted.named("3", ChildKey(9), None).is_none());
    }
}
