//! What taskd tells: the journal, logs, systemd notifications.

pub mod journal;
