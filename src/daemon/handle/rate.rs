//! `rate`: how often messages of a task or a queue start at most, shown and changed.

use super::enqueue::suggestion;
use super::{Asker, mismatch, store_error};
use crate::config::values;
use crate::control::api::{Error, ErrorKind, RateBody, RateView};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::engine::rate::{InForce, Limited, NewRate, Origin};
use crate::model::limit::RateLimit;

/// Shows a rate, or sets it.
pub fn handle(d: &mut Daemon, asker: Asker, name: String, queue: bool, body: Option<RateBody>) {
    let whose = match whose(d, &name, queue) {
        Ok(whose) => whose,
        Err(e) => return asker.error(e),
    };
    let Some(body) = body else {
        return match d.engine.rate(&whose) {
            Some(rate) => asker.json(&view(name, &rate)),
            None => asker.error(mismatch()),
        };
    };
    let rate = match parsed(d, &whose, &body) {
        Ok(rate) => rate,
        Err(e) => return asker.error(e),
    };
    let by = asker.peer.uid;
    d.ask(
        Ask::Rate { whose, rate, keep: body.keep },
        Box::new(move |_, told| match told {
            Told::Rate(Some(rate)) => {
                let view = view(name, &rate);
                let shown = view.rate.as_deref().unwrap_or("none");
                tracing::info!("uid {by} set the rate of {} to {shown} ({})", view.name, view.from);
                asker.json(&view);
            }
            Told::Fault(fault) => asker.error(store_error(&fault)),
            _ => asker.error(mismatch()),
        }),
    );
}

/// The declaration that a name means: a task may be declared by a pattern.
fn whose(d: &Daemon, name: &str, queue: bool) -> Result<Limited, Error> {
    if queue {
        super::pause::known(d, name)?;
        return Ok(Limited::Queue(name.to_owned()));
    }
    if let Some(task) = d.settings.task(name) {
        return Ok(Limited::Task(task.name.clone()));
    }
    let mut e = Error::new(ErrorKind::UnknownTask, format!("no task is named {name}"));
    let near = suggestion(name, d.settings.tasks.keys().map(String::as_str));
    e.hint = Some(match near {
        Some(near) => format!("did you mean {near}?"),
        None if d.settings.queues.contains_key(name) => "it is a queue's name: add --queue".to_owned(),
        None => "`taskd tasks` lists them".to_owned(),
    });
    Err(e)
}

fn parsed(d: &Daemon, whose: &Limited, body: &RateBody) -> Result<NewRate, Error> {
    match body.rate.as_str() {
        "none" => return Ok(NewRate::None),
        "default" => return Ok(NewRate::Default),
        _ => {}
    }
    let (count, period_ms) = values::rate(&body.rate).map_err(|wrong| {
        Error::new(ErrorKind::BadRequest, format!("the rate {}", wrong.message)).hint(wrong.help)
    })?;
    let configured = d.engine.rate(whose).and_then(|rate| rate.config).map_or(1, |rate| rate.burst);
    Ok(NewRate::Rate(RateLimit { count, period_ms, burst: body.burst.unwrap_or(configured).max(1) }))
}

fn view(name: String, rate: &InForce) -> RateView {
    let shown = |rate: &Option<RateLimit>| rate.as_ref().map(ToString::to_string);
    let from = match rate.origin {
        Origin::Config => "config",
        Origin::Now => "now",
        Origin::Kept => "kept",
    };
    let then = shown(&rate.then).unwrap_or_else(|| "no limit".to_owned());
    let (each, config) = (rate.each.clone(), shown(&rate.config));
    RateView { name, rate: shown(&rate.rate), from: from.to_owned(), config, then, each }
}
