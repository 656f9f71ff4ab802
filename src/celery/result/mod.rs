//! Results as Celery's stores keep them: one JSON object for each task.

pub mod chord;
pub mod exception;
mod meta;

pub use meta::{Extended, Meta, Status, child};

/// The key of a task's result, which is also the channel where it is announced.
#[must_use]
pub fn meta_key(id: &str) -> String {
    format!("celery-task-meta-{id}")
}
