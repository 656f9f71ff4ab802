//! The role `@notify`: a runner starts it for a message of `taskd.notify`, as the pool's user. It reads the notice
//! on stdin, finds the target in its environment (which comes from the config, never from the message), and tells
//! it. It is the only part of taskd that opens a connection to another machine.

mod body;
mod mail;
mod program;
mod webhook;

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::notify::{SECRET, TARGET, TRY_AGAIN, Target, URL, Way};
use crate::model::notice::{NOTIFY, Notice};
use crate::observe::log;

pub use body::{Body, schema};

/// What one way of telling may take: below the time limit of the notice's message.
const PATIENCE: Duration = Duration::from_secs(60);

/// `EX_DATAERR`: trying again would change nothing.
const FOR_GOOD: u8 = 65;

/// Why somebody was not told.
#[derive(Debug, PartialEq, Eq)]
enum Untold {
    /// It may work later.
    Later(String),
    /// It will not.
    Never(String),
}

/// The call, as a task with `stdin = "json"` reads it.
#[derive(serde::Deserialize)]
struct Call {
    id: String,
    kwargs: Map<String, Value>,
}

/// Plays the role.
#[must_use]
pub fn play() -> ExitCode {
    let mut text = Vec::new();
    let read = std::io::stdin().read_to_end(&mut text).map_err(|e| format!("stdin: {e}"));
    let call = read.and_then(|_| serde_json::from_slice::<Call>(&text).map_err(|e| format!("stdin: {e}")));
    let notice = call.and_then(|call| Ok((Notice::of(call.kwargs)?, call.id)));
    let (notice, id) = match notice {
        Ok(read) => read,
        Err(why) => {
            log::say(&format!("{why} (taskd starts @notify itself, for messages of {NOTIFY})"));
            return ExitCode::from(FOR_GOOD);
        }
    };
    let told = target(&notice.target, &|name| std::env::var(name).ok()).and_then(|found| {
        let node = std::env::var("TASKD_NODE").unwrap_or_default();
        let body =
            Body::new(&notice, &node, &crate::cli::moment::zone(None).unwrap_or(jiff::tz::TimeZone::UTC));
        tell(&found, &body, &id)
    });
    match told {
        Ok(how) => {
            let _ = crate::cli::output::print(&format!("{how}\n"));
            ExitCode::SUCCESS
        }
        Err(Untold::Never(why)) => {
            log::say(&format!("{} was not told: {why}", notice.target));
            ExitCode::from(FOR_GOOD)
        }
        Err(Untold::Later(why)) => {
            log::say(&format!("{} was not told: {why}", notice.target));
            // Who tries it waits for the answer.
            let code = if notice.test { FOR_GOOD } else { u8::try_from(TRY_AGAIN).unwrap_or(FOR_GOOD) };
            ExitCode::from(code)
        }
    }
}

/// A target with what stands beside it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    way: Way,
    url: Option<String>,
    secret: Option<String>,
}

/// The target of this name, among the variables that the config made.
fn target(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Found, Untold> {
    for n in 0..crate::config::notify::MAX_TARGETS {
        let key = format!("{TARGET}{n}");
        let Some(text) = variable(&key) else { break };
        let Ok(target) = serde_json::from_str::<Target>(&text) else { continue };
        if target.name == name {
            let beside = |end: &str| variable(&format!("{key}{end}"));
            return Ok(Found { way: target.way, url: beside(URL), secret: beside(SECRET) });
        }
    }
    Err(Untold::Never("the config does not name this target any more".to_owned()))
}

fn tell(found: &Found, body: &Body, id: &str) -> Result<String, Untold> {
    match &found.way {
        Way::Exec(argv) => program::tell(argv, body),
        Way::Webhook => {
            let url = found.url.as_deref().unwrap_or_default();
            webhook::tell(url, found.secret.as_deref(), body, id)
        }
        Way::Mail { to, from, sendmail } => mail::tell(&mail::Envelope { to, from, sendmail, id }, body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_found_by_its_name_in_what_the_config_made() {
        let one = Target { name: "webhook:h#1".to_owned(), way: Way::Webhook };
        let two = Target { name: "exec:/x#2".to_owned(), way: Way::Exec(vec!["/x".to_owned()]) };
        let variables = std::collections::BTreeMap::from([
            ("TASKD_TARGET_0".to_owned(), serde_json::to_string(&two).unwrap()),
            ("TASKD_TARGET_1".to_owned(), serde_json::to_string(&one).unwrap()),
            ("TASKD_TARGET_1_URL".to_owned(), "http://h/".to_owned()),
        ]);
        let find = |name: &str| target(name, &|v| variables.get(v).cloned());
        let url = Some("http://h/".to_owned());
        assert_eq!(find("webhook:h#1"), Ok(Found { way: Way::Webhook, url, secret: None }));
        assert!(matches!(find("exec:/x#2"), Ok(Found { way: Way::Exec(_), url: None, .. })));
        assert!(matches!(find("mail:root#3"), Err(Untold::Never(_))));
    }
}
