//! Which queue a message goes to.

use super::plan::Plan;
use crate::model::name::glob_matches;
use crate::model::task::OUTSIDE;

/// The queue that takes what nothing else claims.
pub(super) const DEFAULT: &str = "default";

/// The queue of a call of this task that names none: the task's own, else the first route whose glob
/// matches, else `default`, or for an external task Celery's own.
#[must_use]
pub fn route<'a>(plan: &'a Plan, task: &str) -> &'a str {
    let declared = plan.task(task);
    if let Some(queue) = declared.and_then(|t| t.queue.as_deref()) {
        return queue;
    }
    let default = if declared.is_some_and(|t| t.external) { OUTSIDE } else { DEFAULT };
    plan.routes.iter().find(|(glob, _)| glob_matches(glob, task)).map_or(default, |(_, queue)| queue.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{plan, task};
    use super::*;

    #[test]
    fn the_tasks_own_queue_then_the_first_route_then_default() {
        let mut p = plan();
        p.tasks.insert("far".into(), crate::model::task::Task { external: true, ..task("far") });
        p.tasks.insert("own".into(), crate::model::task::Task { queue: Some("mine".into()), ..task("own") });
        p.routes = vec![("pay.*".into(), "high".into()), ("p*".into(), "low".into())];
        for (name, queue) in
            [("own", "mine"), ("pay.card", "high"), ("print", "low"), ("other", "default"), ("far", "celery")]
        {
            assert_eq!(route(&p, name), queue, "{name}");
        }
    }
}
