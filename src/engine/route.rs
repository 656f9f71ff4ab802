//! Which queue a message goes to.

use super::plan::Plan;
use crate::model::name::glob_matches;

/// The queue that takes what nothing else claims.
pub(super) const DEFAULT: &str = "default";

/// The queue of a call of this task that names none: the task's own, else the first route whose glob
/// matches, else `default`.
#[must_use]
pub fn route<'a>(plan: &'a Plan, task: &str) -> &'a str {
    if let Some(queue) = plan.task(task).and_then(|t| t.queue.as_deref()) {
        return queue;
    }
    plan.routes.iter().find(|(glob, _)| glob_matches(glob, task)).map_or(DEFAULT, |(_, queue)| queue.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{plan, task};
    use super::*;

    #[test]
    fn the_tasks_own_queue_then_the_first_route_then_default() {
        let mut p = plan();
        p.tasks.insert("own".into(), crate::model::task::Task { queue: Some("mine".into()), ..task("own") });
        p.routes = vec![("pay.*".into(), "high".into()), ("p*".into(), "low".into())];
        for (name, queue) in [("own", "mine"), ("pay.card", "high"), ("print", "low"), ("other", "default")] {
            assert_eq!(route(&p, name), queue, "{name}");
        }
    }
}
