//! Whether the sandboxes that the config asks for can be had here: tried for real, before anything is started.

use crate::config::settings::{Identity, Settings};
use crate::model::task::Sandbox;
use crate::process::privileges::Account;
use crate::process::sandbox;

/// Every task and every resident worker whose sandbox the kernel refuses, a sentence each that names the key. The
/// same sandbox of the same user is tried once.
#[must_use]
pub fn refused_sandboxes(settings: &Settings) -> Vec<String> {
    let tasks = settings.tasks.values().filter_map(|task| {
        let pool = settings.pool_of(settings.route(task))?;
        let whose = format!("[tasks.{}]", task.name);
        Some((whose, &task.surroundings.sandbox, Settings::identity(pool, Some(task))))
    });
    let workers = settings.pools.values().filter_map(|pool| {
        let worker = pool.worker.as_ref()?;
        Some((format!("[pools.{}]", pool.name), &worker.surroundings.sandbox, Settings::identity(pool, None)))
    });
    let mut tried: Vec<(&Sandbox, Identity, Result<(), String>)> = Vec::new();
    let mut refused = Vec::new();
    for (whose, sandbox, identity) in tasks.chain(workers).filter(|(_, sandbox, _)| !sandbox.is_empty()) {
        let known = tried.iter().find(|(s, i, _)| *s == sandbox && *i == identity).map(|(_, _, r)| r.clone());
        let result = known.unwrap_or_else(|| {
            let result = probe(sandbox, &identity);
            tried.push((sandbox, identity, result.clone()));
            result
        });
        if let Err(why) = result {
            refused.push(format!("{whose}: {why}"));
        }
    }
    refused
}

fn probe(wanted: &Sandbox, identity: &Identity) -> Result<(), String> {
    // Who does not exist is told by others.
    let Ok(account) = Account::find(identity) else { return Ok(()) };
    // Another's sandbox can be tried by root only; an ordinary user's config names no other.
    let account = account.filter(|_| nix::unistd::geteuid().is_root());
    sandbox::probe(wanted, account.as_ref())
}

/// The same for a start or a reload.
///
/// # Errors
/// All of them.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    let refused = refused_sandboxes(settings);
    if refused.is_empty() { Ok(()) } else { Err(refused.join("\n")) }
}
