//! What taskd tells: the journal, logs, systemd notifications.
