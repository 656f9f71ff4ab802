//! What people ask of schedules: what they do, a fire by hand, a pause, a rewind.

use super::Engine;
use super::plan::When;
use super::schedule::beginning;
use crate::cron::Planned;
use crate::model::schedule::{Change, Row};
use crate::model::time::Wall;

/// A schedule of the plan, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleView {
    /// What the store knows of it; absent until that was recalled.
    pub row: Option<Row>,
    /// The next planned time that it waits for.
    pub next: Option<Wall>,
}

impl Engine {
    /// A schedule of the plan.
    #[must_use]
    pub fn schedule_view(&self, name: &str) -> ScheduleView {
        let entry = self.schedules.entries.get(name);
        ScheduleView { row: entry.map(|e| e.row.clone()), next: entry.and_then(|e| e.next) }
    }

    /// How many schedules wait for their time, how many are paused, and which is next, with when it fires.
    #[must_use]
    pub fn schedules_summary(&self) -> (usize, usize, Option<(Wall, &str)>) {
        let paused = self.schedules.entries.values().filter(|e| e.row.paused.is_some()).count();
        (self.schedules.entries.len(), paused, self.schedules.next_fire())
    }

    /// The change that pauses a schedule, or lets it go on with what is planned from now on.
    #[must_use]
    pub fn pause_change(&self, name: &str, paused: bool) -> Option<Change> {
        let plan = self.plan.schedules.get(name)?;
        Some(Change::Pause { name: name.to_owned(), paused, until: beginning(plan, self.now.wall) })
    }

    /// At most so many planned times after `after`, with how much later each fires here, in milliseconds. Of a
    /// schedule that follows its own ends only the next one is known.
    #[must_use]
    pub fn planned_times(&self, name: &str, after: Wall, most: usize) -> (Vec<Planned>, u64) {
        let Some(plan) = self.plan.schedules.get(name) else { return (Vec::new(), 0) };
        let times = match &plan.when {
            When::At(timing) => {
                let next = |at: &Planned| timing.next(at.at);
                std::iter::successors(timing.next(after), next).take(most).collect()
            }
            When::After { .. } => {
                let next = self.schedules.entries.get(name).and_then(|e| e.next);
                next.into_iter().map(|at| Planned { at, edge: None }).take(most).collect()
            }
        };
        (times, plan.offset_ms)
    }

    /// The planned times in `(to, now]`, at most so many: what a rewind to there would make missed.
    #[must_use]
    pub fn planned_since(&self, name: &str, to: Wall, most: usize) -> Vec<Wall> {
        let Some(When::At(timing)) = self.plan.schedules.get(name).map(|p| &p.when) else {
            return Vec::new();
        };
        timing.between(to, self.now.wall, most).into_iter().map(|planned| planned.at).collect()
    }
}
