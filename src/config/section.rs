//! One table of the file with its values checked and typed.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::params::Param;
use crate::model::task::Raise;

use super::keys::TableSpec;
use super::tree::{At, quote_key};
use super::workflow::StepSet;

/// A typed value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    /// Text, names, paths, choices.
    Text(String),
    /// Whole numbers, milliseconds, bytes, signals, masks.
    Number(i64),
    Flag(bool),
    /// So many in so many milliseconds.
    Rate(u32, u64),
    /// Lists of texts, each with its place.
    Many(Vec<(String, At)>),
    Codes(Vec<i32>),
    /// Environment.
    Map(BTreeMap<String, String>),
    /// Parameters, each with its place.
    Params(Vec<(Param, At)>),
    /// Anything that JSON can say.
    List(Vec<serde_json::Value>),
    Dict(serde_json::Map<String, serde_json::Value>),
    /// A table within a value.
    Table(BTreeMap<&'static str, Parsed>),
    /// A size, or a multiple of one.
    Raise(Raise),
    /// Minutes since midnight, ascending, each once.
    Times(Vec<u32>),
    /// Steps of a workflow.
    Steps(Vec<StepSet>),
}

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) value: Parsed,
    pub(super) at: At,
    pub(super) key_at: At,
    /// As TOML.
    pub(super) shown: String,
}

/// One table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) spec: &'static TableSpec,
    /// Its own name, for `[pools.NAME]` and the like; empty otherwise.
    pub(super) name: String,
    /// Its header.
    pub(super) at: At,
    pub(super) values: BTreeMap<&'static str, Set>,
    /// Keys that are there and have a fault: neither missing nor usable.
    pub(super) faulty: BTreeSet<&'static str>,
}

impl Section {
    /// A value of this table.
    pub(super) fn get(&self, key: &str) -> Option<&Set> {
        self.values.get(key)
    }

    /// Whether the key is there, with or without a fault.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key) || self.faulty.contains(key)
    }

    /// Where to point when the key is what a fault is about.
    pub(super) fn place(&self, key: &str) -> &At {
        self.values.get(key).map_or(&self.at, |s| &s.at)
    }

    /// Its header, as it is written in the file.
    pub(super) fn header(&self) -> String {
        if self.name.is_empty() { self.spec.header() } else { format!("[{}]", self.path("")) }
    }

    /// The path of one of its keys, as it would be written in a file.
    pub(super) fn path(&self, key: &str) -> String {
        let mut path = self.spec.name.to_owned();
        for part in [self.name.as_str(), key] {
            if !part.is_empty() {
                path.push('.');
                path.push_str(&quote_key(part));
            }
        }
        path
    }
}

impl Set {
    pub(super) fn text(&self) -> Option<&str> {
        if let Parsed::Text(s) = &self.value { Some(s) } else { None }
    }

    pub(super) fn number(&self) -> Option<i64> {
        if let Parsed::Number(n) = self.value { Some(n) } else { None }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        if let Parsed::Flag(b) = self.value { Some(b) } else { None }
    }

    pub(super) fn rate(&self) -> Option<(u32, u64)> {
        if let Parsed::Rate(count, ms) = self.value { Some((count, ms)) } else { None }
    }

    pub(super) fn many(&self) -> Option<&[(String, At)]> {
        if let Parsed::Many(m) = &self.value { Some(m) } else { None }
    }

    pub(super) fn codes(&self) -> Option<&[i32]> {
        if let Parsed::Codes(c) = &self.value { Some(c) } else { None }
    }

    pub(super) fn map(&self) -> Option<&BTreeMap<String, String>> {
        if let Parsed::Map(m) = &self.value { Some(m) } else { None }
    }

    pub(super) fn table(&self) -> Option<&BTreeMap<&'static str, Parsed>> {
        if let Parsed::Table(t) = &self.value { Some(t) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[serde_json::Value]> {
        if let Parsed::List(list) = &self.value { Some(list) } else { None }
    }

    pub(super) fn dict(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        if let Parsed::Dict(map) = &self.value { Some(map) } else { None }
    }

    pub(super) fn params(&self) -> Option<&[(Param, At)]> {
        if let Parsed::Params(p) = &self.value { Some(p) } else { None }
    }
}
