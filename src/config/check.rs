//! Walks the tree against the list of keys: unknown keys, wrong types, bad values, keys of later versions.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::name;
use crate::model::notice::RESERVED;

use super::env::Env;
use super::keys::{Key, Shape, TABLES, TableSpec, When, suggest};
use super::kind;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::tree::{At, Entry, Node, Table, Value, quote, quote_key};

/// What every key of a later version is answered with.
pub const NOT_YET: &str = "not available yet in this version";

/// Where faults go, and what they are judged by.
pub(super) struct Check<'a> {
    pub(super) env: &'a Env,
    pub(super) faults: Vec<Fault>,
    /// Credentials that are named and could not be looked at.
    pub(super) unseen: BTreeSet<String>,
}

impl Check<'_> {
    /// Notes a fault.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Notes a value that is wrong.
    pub(super) fn bad(&mut self, at: &At, key: &str, message: String, help: &str) {
        let fault = Fault::new(FaultKind::Value, at, key, message);
        self.faults.push(if help.is_empty() { fault } else { fault.help(help) });
    }

    /// Every section of the file, checked.
    pub(super) fn sections(&mut self, tree: &Table) -> Vec<Section> {
        let mut sections = Vec::new();
        for entry in &tree.entries {
            let Some(spec) = TABLES.iter().find(|t| t.name == entry.key) else {
                self.unknown_table(entry);
                continue;
            };
            match spec.shape {
                Shape::One => self.one(spec, "", &entry.key_at, &entry.node, &mut sections),
                Shape::Named => {
                    let Some(tables) = self.table(spec, spec.name, &entry.node) else { continue };
                    for named in &tables.entries {
                        self.name(spec, named);
                        self.one(spec, &named.key, &named.key_at, &named.node, &mut sections);
                    }
                }
                Shape::List => {
                    let Value::Array(items) = &entry.node.value else {
                        let message =
                            format!("`{}` is {}, not a list of tables", spec.name, entry.node.value.kind());
                        self.bad(
                            &entry.node.at,
                            spec.name,
                            message,
                            &format!("begin each with {}", spec.header()),
                        );
                        continue;
                    };
                    for item in items {
                        self.one(spec, "", &item.at, item, &mut sections);
                    }
                }
            }
        }
        sections
    }

    fn unknown_table(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        let message = match &entry.node.value {
            Value::Table(_) => format!("unknown table [{}]", quote_key(key)),
            _ => format!("unknown key `{}` outside any table", quote_key(key)),
        };
        let tables: Vec<String> = TABLES.iter().map(TableSpec::header).collect();
        let owner = TABLES.iter().find(|t| t.key(key).is_some());
        let help = match (suggest_table(key), owner) {
            (_, Some(t)) if !matches!(entry.node.value, Value::Table(_)) => {
                format!("`{key}` belongs under {}", t.header())
            }
            (Some(t), _) => format!("did you mean {}?", t.header()),
            _ => format!("the tables are {}", tables.join(", ")),
        };
        self.fault(Fault::new(FaultKind::UnknownKey, &entry.key_at, quote_key(key), message).help(help));
    }

    /// The table that must stand here.
    fn table<'t>(&mut self, spec: &TableSpec, path: &str, node: &'t Node) -> Option<&'t Table> {
        if let Value::Table(t) = &node.value {
            return Some(t);
        }
        let message = format!("`{path}` is {}, not a table", node.value.kind());
        self.bad(&node.at, path, message, &format!("write {}", spec.header()));
        None
    }

    /// The name of a `[pools.NAME]` and the like.
    fn name(&mut self, spec: &TableSpec, entry: &Entry) {
        let path = format!("{}.{}", spec.name, quote_key(&entry.key));
        let singular = spec.name.trim_end_matches('s');
        let is_pattern = entry.key.contains(['*', '?']);
        if spec.name == "tasks" && is_pattern && name::check(&entry.key.replace(['*', '?'], "x")).is_ok() {
            // Whether its pool has a worker is looked at when all pools are known.
        } else if let Err(why) = name::check(&entry.key) {
            self.bad(&entry.key_at, &path, format!("the {singular} name {} {why}", quote(&entry.key)), "");
        }
        if entry.key.starts_with(RESERVED) {
            let message = format!("names that begin with `{RESERVED}` are taskd's own");
            self.bad(&entry.key_at, &path, message, "choose another name");
        }
    }

    fn one(&mut self, spec: &'static TableSpec, name: &str, at: &At, node: &Node, into: &mut Vec<Section>) {
        let mut section = Section {
            spec,
            name: name.to_owned(),
            at: at.clone(),
            values: BTreeMap::new(),
            faulty: BTreeSet::new(),
        };
        let path = section.path("");
        let Some(table) = self.table(spec, &path, node) else { return };
        if spec.when == When::Later {
            self.not_yet(at, &path, &spec.header());
        }
        for entry in &table.entries {
            let path = section.path(&entry.key);
            let Some(key) = spec.key(&entry.key) else {
                if !spec.open {
                    self.unknown_key(&section, entry, &path);
                }
                continue;
            };
            if key.when == When::Later && spec.when == When::Now {
                self.not_yet(&entry.key_at, &path, &format!("`{}`", key.name));
            }
            if key.when == When::Now && spec.when == When::Now {
                self.credentials_of(key.kind, key.name, &path, &entry.node);
            }
            match kind::parse(self, key.kind, &path, &entry.node) {
                Some(value) => {
                    let (at, key_at) = (entry.node.at.clone(), entry.key_at.clone());
                    let shown = kind::shown(key.kind, &entry.node.value);
                    section.values.insert(key.name, Set { value, at, key_at, shown });
                }
                None => _ = section.faulty.insert(key.name),
            }
        }
        for key in spec.required.iter().filter(|k| !section.has(k)) {
            let message = format!("{} has no `{key}`", section.header());
            let doc = spec.key(key).map_or("", |k| k.doc);
            self.bad(at, &section.path(key), message, &format!("add `{key} = …`. {doc}"));
        }
        self.one_of(at, &section);
        into.push(section);
    }

    /// Exactly one of some keys is there.
    fn one_of(&mut self, at: &At, section: &Section) {
        let all = section.spec.one_of;
        let mut there = all.iter().filter(|k| section.has(k));
        let named = |keys: &[&str]| keys.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" or ");
        match (there.next(), there.next()) {
            (None, _) if !all.is_empty() => {
                let message = format!("{} has no {}", section.header(), named(all));
                let help = format!("add `{} = …`", all.join(" = …` or `"));
                self.bad(at, &section.path(""), message, &help);
            }
            (Some(first), Some(second)) => {
                let place = section.get(second).map_or(at, |set| &set.key_at);
                let message = format!("{} has both `{first}` and `{second}`", section.header());
                let fault = Fault::new(FaultKind::Reference, place, section.path(second), message);
                self.fault(fault.help("remove one of the two"));
            }
            _ => {}
        }
    }

    /// Notes a key that comes later.
    pub(super) fn not_yet(&mut self, at: &At, path: &str, what: &str) {
        let fault = Fault::new(FaultKind::NotYet, at, path, format!("{what} is {NOT_YET}"));
        self.fault(fault.help("remove it, or make it a comment until then"));
    }

    fn unknown_key(&mut self, section: &Section, entry: &Entry, path: &str) {
        let fault = unknown(&entry.key, &entry.key_at, path, section.spec.keys, &section.header());
        let elsewhere = TABLES.iter().find(|t| t.name != "defaults" && t.key(&entry.key).is_some());
        let fault = match (&fault.help, elsewhere) {
            (None, Some(t)) => {
                let help = format!("`{}` belongs under {}", entry.key, t.header());
                fault.help(help)
            }
            (None, None) => fault.help("`taskd config --schema` lists every key"),
            _ => fault,
        };
        self.fault(fault);
    }
}

/// The fault of a key that is not one of `keys`, with the one that was probably meant.
pub(super) fn unknown(key: &str, at: &At, path: &str, keys: &[Key], of: &str) -> Fault {
    let message = format!("unknown key `{}` in {of}", quote_key(key));
    let fault = Fault::new(FaultKind::UnknownKey, at, path, message);
    match suggest(key, keys.iter().map(|k| k.name)) {
        Some(meant) => fault.help(format!("did you mean `{meant}`?")),
        None => fault,
    }
}

fn suggest_table(key: &str) -> Option<&'static TableSpec> {
    // `[task.x]` and `[queue.x]` are the likeliest slips.
    let name = suggest(key, TABLES.iter().map(|t| t.name))?;
    TABLES.iter().find(|t| t.name == name)
}
