//! The config file: text -> checked -> [`settings::Settings`], with every fault at once.

pub mod settings;
