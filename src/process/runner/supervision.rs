//! `memory_max` and `tasks_max` where no control group enforces them: the attempt's whole family is looked at
//! again and again, and ended once it is beyond a limit.
//!
//! What it cannot see: memory that belongs to no process (files in a `tmpfs`), and a peak between two looks.

use std::time::{Duration, Instant};

use crate::process::descendants;
use crate::process::memory::Family;

/// Between two looks during an attempt's first second.
const YOUNG: Duration = Duration::from_millis(50);

/// Between two looks after it.
const SETTLED: Duration = Duration::from_millis(200);

/// How long an attempt is young.
const YOUTH: Duration = Duration::from_secs(1);

/// What was found beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// `memory_max`, in bytes.
    Memory {
        /// What is allowed.
        limit: u64,
        /// What was measured.
        found: u64,
    },
    /// `tasks_max`, processes and threads.
    Tasks {
        /// What is allowed.
        limit: u64,
        /// How many were counted, which ended beyond the limit.
        found: u64,
    },
}

/// The limits of one attempt and the next look at it.
#[derive(Clone, Copy, Debug)]
pub struct Supervision {
    memory_max: Option<u64>,
    tasks_max: Option<u64>,
    begun: Instant,
    next: Instant,
}

impl Supervision {
    /// From now on; `None` where nothing is limited.
    #[must_use]
    pub fn new(memory_max: Option<u64>, tasks_max: Option<u64>, now: Instant) -> Option<Self> {
        (memory_max.is_some() || tasks_max.is_some()).then_some(Self {
            memory_max,
            tasks_max,
            begun: now,
            next: now + YOUNG,
        })
    }

    /// When [`Self::look`] is to be called.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Looks at all descendants of this process: they must all be the attempt's.
    pub fn look(&mut self, now: Instant) -> Option<Excess> {
        let pause = if now.saturating_duration_since(self.begun) < YOUTH { YOUNG } else { SETTLED };
        self.next = now + pause;
        if let Some(limit) = self.tasks_max {
            let found = descendants::tasks(limit);
            if found > limit {
                return Some(Excess::Tasks { limit, found });
            }
        }
        let limit = self.memory_max?;
        Family::below_this_one().beyond(limit).map(|found| Excess::Memory { limit, found })
    }
}
