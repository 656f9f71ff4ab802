//! wip
pub mod document;
pub mod celery;
pub mod crontab;
pub mod naming;
pub mod program_name;
pub mod shell;
pub mod supervisor;
pub mod systemd;
pub mod toml_value;
