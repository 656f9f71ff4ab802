//! What taskd tells: the journal, logs, systemd notifications.

pub mod fields;
pub mod journal;
pub mod log;
pub mod notify;
