//! Limits of resident workers where no control group keeps them: looked at again and again, only while there
//! is such a worker.

use std::time::{Duration, Instant};

use super::core::Core;
use crate::model::task::Limits;
use crate::process::launch::ChildId;
use crate::process::memory::Family;

/// How often.
const INTERVAL: Duration = Duration::from_millis(200);

impl Core<'_> {
    /// When to look at the workers again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.supervised().next()?;
        Some(self.looked_at + INTERVAL)
    }

    fn supervised(&self) -> impl Iterator<Item = (ChildId, u32, &Limits)> {
        self.children.iter().filter(|(_, c)| c.child.worker && c.cell.is_none()).filter_map(|(id, c)| {
            let limits = &c.settings.pools.get(&c.child.slot.pool)?.worker.as_ref()?.limits;
            (limits.memory_max.is_some() || limits.tasks_max.is_some()).then_some((*id, c.child.pid, limits))
        })
    }

    /// Kills every worker that went beyond its limits.
    pub(super) fn supervise(&mut self) {
        self.looked_at = Instant::now();
        let mut beyond = Vec::new();
        for (id, pid, limits) in self.supervised() {
            let family = Family::of(pid);
            if let Some(most) = limits.memory_max.filter(|most| family.beyond(*most).is_some()) {
                beyond.push((id, true, format!("it uses more than memory_max = {most} bytes")));
            } else if let Some(most) = limits.tasks_max.filter(|most| family.tasks() > *most) {
                beyond.push((
                    id,
                    false,
                    format!("it has more than tasks_max = {most} processes and threads"),
                ));
            }
        }
        for (id, memory, why) in beyond {
            if let Some(living) = self.children.get_mut(&id) {
                living.out_of_memory |= memory;
                let child = &living.child;
                tracing::warn!(TASKD_SLOT = %child.slot, TASKD_PID = child.pid, "a worker is killed: {why}");
            }
            self.end_child(id, true);
        }
    }
}
