//! Processes below the launcher that are not taskd's: what an entry point started before it executed taskd, and,
//! where the launcher is process 1 of a container, whatever lost its parent there (a shell of `docker exec`). They
//! are reaped like every child, and never taken for leftovers of a task.

use std::collections::BTreeSet;

use super::family;
use crate::process::descendants;
use crate::process::instance::is_of;

/// Those that are known.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// There may be more: elsewhere only taskd's own processes can lose their parent to the launcher.
    open: bool,
    pids: BTreeSet<u32>,
}

impl Foreign {
    /// Everything below a launcher that has started nothing yet.
    pub(super) fn there() -> Self {
        Self::taken_over(family::children())
    }

    /// Those that an earlier program of this process knew.
    pub(super) fn taken_over(pids: BTreeSet<u32>) -> Self {
        Self { open: std::process::id() == 1 || !pids.is_empty(), pids }
    }

    /// Their numbers.
    pub(super) fn pids(&self) -> &BTreeSet<u32> {
        &self.pids
    }

    /// Whether [`Foreign::take_in`] may find anybody.
    pub(super) fn may_grow(&self) -> bool {
        self.open
    }

    /// Takes in who lost its parent; what an ended child left must be gone. As long as all that taskd started
    /// live, these are nobody's: a runner keeps what it started below itself. (And one that says that it is of
    /// this instance is not foreign, whenever it is seen.)
    pub(super) fn take_in(&mut self, known: &BTreeSet<u32>, instance: &str) {
        let mut new = family::children();
        new.retain(|pid| !known.contains(pid) && !self.pids.contains(pid) && !is_of(*pid, instance));
        // Looked at last: the kernel gives away the children of one that ends in the same step as it says so.
        if !new.is_empty() && !known.iter().any(|pid| descendants::has_ended(pid.cast_signed())) {
            self.pids.append(&mut new);
        }
    }

    /// It was reaped: its number may be another process's.
    pub(super) fn reaped(&mut self, pid: u32) {
        self.pids.remove(&pid);
    }
}
