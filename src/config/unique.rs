//! `unique`: at most one message with the same arguments, and what its keys must have to do with each other.

use std::collections::BTreeMap;

use crate::model::params::Param;
use crate::model::unique::{Holds, OnConflict, Unique};

use super::build::{Builder, Layers};
use super::keys::suggest;
use super::report::{Fault, FaultKind};
use super::section::{Parsed, Set};
use super::tree::At;

impl<'a> Builder<'a, '_> {
    /// What a task declares; absent: its messages are not unique.
    pub(super) fn unique(&mut self, at: &Layers<'a>, params: &[Param]) -> Option<Unique> {
        let set = at.set("unique")?;
        let Some(table) = set.table() else {
            return set.flag()?.then(Unique::default);
        };
        let word = |key: &str| match table.get(key) {
            Some(Parsed::Text(word)) => Some(word.as_str()),
            _ => None,
        };
        let holds = match word("while") {
            Some("queued") => Holds::Queued,
            Some("running") => Holds::Running,
            _ => Holds::Both,
        };
        let on_conflict = match word("on_conflict") {
            Some("error") => OnConflict::Error,
            Some("replace") => OnConflict::Replace,
            _ => OnConflict::Return,
        };
        let period_ms = match table.get("period") {
            Some(Parsed::Number(ms)) => u64::try_from(*ms).ok(),
            _ => None,
        };
        if holds == Holds::Running && period_ms.is_some() {
            let message =
                "`period` has no effect with while = \"running\": what holds a key ends with its attempt";
            self.unique_fault(at, &set.at, message, "remove it; `time_limit` bounds an attempt");
        }
        if holds == Holds::Running && on_conflict == OnConflict::Replace {
            let message = "on_conflict = \"replace\" replaces nothing with while = \"running\": a message that runs is never replaced";
            let help = "use while = \"queued\" or \"both\", or another on_conflict";
            self.unique_fault(at, &set.at, message, help);
        }
        let key = self.unique_key(at, set, table, params);
        Some(Unique { key, holds, period_ms, on_conflict })
    }

    fn unique_key(
        &mut self,
        at: &Layers<'a>,
        set: &Set,
        table: &BTreeMap<&'static str, Parsed>,
        params: &[Param],
    ) -> Vec<String> {
        let Some(Parsed::Many(names)) = table.get("key") else { return Vec::new() };
        let program = at.set("command").or_else(|| at.set("exec")).is_some();
        let unnamed = params.is_empty() && program && at.text("stdin").as_deref() != Some("json");
        if unnamed && !names.is_empty() {
            let message = "`key` names parameters, and the task declares none";
            let help = "declare params.NAME, or leave `key` out: then all arguments count";
            self.unique_fault(at, &set.at, message, help);
        }
        for (name, place) in names {
            if params.is_empty() || params.iter().any(|p| p.name == *name) {
                continue;
            }
            let known = params.iter().map(|p| p.name.as_str());
            let help = match suggest(name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its parameters are {}", known.collect::<Vec<_>>().join(", ")),
            };
            self.unique_fault(at, place, &format!("the task has no parameter `{name}`"), &help);
        }
        names.iter().map(|(name, _)| name.clone()).collect()
    }

    fn unique_fault(&mut self, at: &Layers<'a>, place: &At, message: &str, help: &str) {
        self.check.fault(Fault::new(FaultKind::Reference, place, at.path("unique"), message).help(help));
    }
}
