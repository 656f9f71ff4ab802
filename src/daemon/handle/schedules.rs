//! `schedules`: what is planned, a fire by hand, a pause, a rewind.

use std::collections::BTreeMap;

use super::enqueue::{self, Asked, call, suggestion};
use super::{Asker, mismatch, stopping, store_error};
use crate::config::settings::Schedule;
use crate::config::values::show_duration;
use crate::control::api::{
    self, Done, Enqueued, Error, ErrorKind, LastFire, PlannedView, ScheduleView, SchedulesView,
};
use crate::cron::{Planned, Timing};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;
use crate::model::schedule::{CatchUp, Change, Fires, Overlap, Pause, Row};
use crate::model::state::State;
use crate::model::time::Wall;

/// Planned times that a rewind counts at most.
const COUNTED: usize = 1_000;

/// Every declared schedule.
pub fn list(d: &mut Daemon, asker: Asker) {
    let views: Vec<ScheduleView> = d.settings.schedules.values().map(|s| view(d, s)).collect();
    asker.json(&views);
}

/// The schedules at a glance; absent where none is declared.
#[must_use]
pub fn summary(d: &Daemon) -> Option<SchedulesView> {
    if d.settings.schedules.is_empty() {
        return None;
    }
    let (_, paused, next) = d.engine.schedules_summary();
    Some(SchedulesView {
        count: d.settings.schedules.len() as u64,
        paused: paused as u64,
        next: next.map(|(at, _)| at.0),
        next_name: next.map(|(_, name)| name.to_owned()),
    })
}

fn view(d: &Daemon, s: &Schedule) -> ScheduleView {
    let seen = d.engine.schedule_view(&s.name);
    let row = seen.row.unwrap_or_default();
    let (when, timezone) = words(d, s);
    ScheduleView {
        name: s.name.clone(),
        task: s.task.clone(),
        workflow: s.workflow.clone(),
        when,
        timezone,
        next: seen.next.map(|at| at.0),
        offset_ms: d.engine.planned_times(&s.name, Wall(0), 0).1,
        enabled: d.settings.fires(s),
        paused: row.paused.map(|why| match why {
            Pause::Asked => "asked".to_owned(),
            Pause::Failures => "failures".to_owned(),
        }),
        failures: row.failures,
        live: row.live,
        held: row.held,
        overlap: if s.align || s.every_ms.is_none() { s.overlap } else { Overlap::Skip }.name().to_owned(),
        catch_up: match s.catch_up {
            CatchUp::None => "none",
            CatchUp::Last => "last",
            CatchUp::All { .. } => "all",
        }
        .to_owned(),
        last: last(d, &row),
    }
}

fn last(d: &Daemon, row: &Row) -> Option<LastFire> {
    let (planned, id) = (row.fired?.0, row.id.clone()?);
    let open = || match d.engine.run_info(&id) {
        None if row.workflow && row.held == 0 => State::Running,
        None => State::Waiting,
        Some(_) => State::Running,
    };
    Some(LastFire { planned, state: row.state.unwrap_or_else(open), workflow: row.workflow, id: id.0 })
}

/// When, in words; and the zone of an expression.
fn words(d: &Daemon, s: &Schedule) -> (String, Option<String>) {
    let every = s.every_ms.map(show_duration).unwrap_or_default();
    match s.timing(d.settings.taskd.timezone.as_deref()) {
        Ok(Some(Timing::Cron { expr, zone })) => (expr.words(), Some(zone.name().to_owned())),
        Ok(Some(Timing::Every { .. })) => (format!("every {every}"), None),
        Ok(Some(Timing::Solar { event, latitude, longitude })) => {
            (format!("{} at {latitude}, {longitude}", event.name().replace('_', " ")), None)
        }
        Ok(None) => (format!("{every} after the last end"), None),
        Err(e) => (format!("never: its time {}", e.message), None),
    }
}

/// The schedule of this name.
fn known<'d>(d: &'d Daemon, name: &str) -> Result<&'d Schedule, Error> {
    d.settings.schedules.get(name).ok_or_else(|| {
        let e = Error::new(ErrorKind::UnknownSchedule, format!("no schedule is named {name}"));
        match suggestion(name, d.settings.schedules.keys().map(String::as_str)) {
            Some(near) => e.hint(format!("did you mean {near}?")),
            None => e.hint("`taskd schedules` lists them"),
        }
    })
}

/// Why a schedule lets its planned times pass, if it does.
fn held_back(d: &Daemon, s: &Schedule) -> Option<&'static str> {
    if !d.settings.fires(s) {
        return Some("disabled");
    }
    Some(match d.engine.schedule_view(&s.name).row?.paused? {
        Pause::Asked => "asked",
        Pause::Failures => "failures",
    })
}

/// The next planned times, of one or of all that fire.
pub fn planned(d: &mut Daemon, asker: Asker, name: Option<&str>, most: usize) {
    let now = clock::now().wall;
    let zone = |s: &Schedule| words(d, s).1;
    let one = |name: &str, timezone: &Option<String>, p: &Planned, offset: u64| PlannedView {
        schedule: name.to_owned(),
        at: p.at.0,
        fires_at: p.at.plus(offset).0,
        timezone: timezone.clone(),
        held_back: d.settings.schedules.get(name).and_then(|s| held_back(d, s)).map(str::to_owned),
        edge: p.edge.as_ref().map(ToString::to_string),
    };
    // What is planned before now and fires later, for its splay, is still to come.
    let after = |name: &str| {
        let offset = d.engine.planned_times(name, now, 0).1;
        Wall(now.0.saturating_sub_unsigned(offset))
    };
    if let Some(name) = name {
        let schedule = match known(d, name) {
            Ok(schedule) => schedule,
            Err(e) => return asker.error(e),
        };
        let timezone = zone(schedule);
        let (times, offset) = d.engine.planned_times(name, after(name), most);
        let views: Vec<PlannedView> = times.iter().map(|p| one(name, &timezone, p, offset)).collect();
        return asker.json(&views);
    }
    // The next of each, and then the one after that of whichever is first.
    let next = |name: &str, after: Wall| {
        let (times, offset) = d.engine.planned_times(name, after, 1);
        times.into_iter().next().map(|p| ((p.at.plus(offset), name.to_owned()), (p, offset)))
    };
    let all = d.settings.schedules.values().filter(|s| held_back(d, s).is_none());
    let mut coming: BTreeMap<(Wall, String), (Planned, u64)> =
        all.filter_map(|s| next(&s.name, after(&s.name))).collect();
    let mut views = Vec::new();
    while views.len() < most
        && let Some(((_, name), (p, offset))) = coming.pop_first()
    {
        let schedule = d.settings.schedules.get(&name);
        views.push(one(&name, &schedule.and_then(zone), &p, offset));
        // One that follows its own ends has no time after the next.
        if schedule.is_some_and(|s| s.every_ms.is_none() || s.align) {
            coming.extend(next(&name, p.at));
        }
    }
    asker.json(&views);
}

/// Enqueues or launches what the schedule does, for whoever may enqueue its task, or every task of its workflow.
pub fn run(d: &mut Daemon, asker: Asker, name: &str, id: Option<String>) {
    let runs = |task: &str| enqueue::runnable(d, &asker, task).map(drop);
    let may = known(d, name).and_then(|s| d.settings.tasks_of(s).try_for_each(runs));
    if let Err(e) = may {
        return asker.error(e);
    }
    let id = MessageId(id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()));
    match d.engine.fire_by_hand(name, id, asker.peer.uid) {
        // Its zone went away after the check: the log says so.
        None => {
            let e = Error::new(ErrorKind::Conflict, format!("schedule {name} cannot be planned"));
            asker.error(e.hint("the daemon's log says why"));
        }
        Some(Fires::Message(message)) => {
            let asked = vec![Asked { state: State::Waiting, call: call(d, &message) }];
            d.ask(
                Ask::Enqueue(vec![*message]),
                Box::new(move |d, told| enqueue::answer(asker, told, asked, &|m| call(d, m))),
            );
        }
        Some(Fires::Workflow(workflow)) => d.ask(
            Ask::Launch(workflow),
            Box::new(move |_, told| match told {
                Told::Launched { id, known } => asker.json(&[Enqueued {
                    id: id.0,
                    state: known.as_ref().map_or(State::Running, |head| head.state()),
                    queue: String::new(),
                    workflow: true,
                    known: known.is_some(),
                    differs: false,
                    unique: false,
                    replaced: None,
                }]),
                other => super::workflow::refused(asker, other),
            }),
        ),
    }
}

/// Pauses, or goes on with what is planned from now on.
pub fn pause(d: &mut Daemon, asker: Asker, name: String, paused: bool) {
    if let Err(e) = known(d, &name) {
        return asker.error(e);
    }
    let Some(change) = d.engine.pause_change(&name, paused) else { return asker.error(mismatch()) };
    let message = if paused {
        format!("schedule {name} paused: planned times pass, what runs goes on")
    } else {
        format!("schedule {name} resumed: it goes on with what is planned from now on")
    };
    changed(d, asker, change, Done { message, ..Done::default() });
}

/// Forgets fires after a time, so that `catch_up` applies from there.
pub fn rewind(d: &mut Daemon, asker: Asker, name: String, to: Wall, dry: bool) {
    let done = match rewound(d, &name, to, dry) {
        Ok(done) => done,
        Err(e) => return asker.error(e),
    };
    if dry {
        return asker.json(&done);
    }
    changed(d, asker, Change::Rewind { name, to }, done);
}

fn rewound(d: &Daemon, name: &str, to: Wall, dry: bool) -> Result<Done, Error> {
    let schedule = known(d, name)?;
    let conflict = |what: String, hint: String| Err(Error::new(ErrorKind::Conflict, what).hint(hint));
    let now = clock::now().wall;
    if to >= now || to.0 < 0 {
        let e = Error::new(ErrorKind::BadArguments, "a rewind goes to a time that is past");
        return Err(e.hint("what is planned later fires anyway"));
    }
    if schedule.every_ms.is_some() && !schedule.align {
        return conflict(
            format!("schedule {name} follows its own ends: it misses nothing"),
            format!("taskd schedules run {name} runs it now"),
        );
    }
    let row = d.engine.schedule_view(name).row;
    if !schedule.enabled || row.is_none_or(|row| row.paused.is_some()) {
        return conflict(
            format!("schedule {name} does not fire now"),
            format!("taskd schedules resume {name}, or enabled = true and a reload, come first"),
        );
    }
    let most = match schedule.catch_up {
        CatchUp::None => {
            return conflict(
                format!("schedule {name} has catch_up = \"none\": nothing would fire"),
                format!("set catch_up in [schedules.{name}], or run it: taskd schedules run {name}"),
            );
        }
        CatchUp::Last => 1,
        CatchUp::All { max } => max as usize,
    };
    let times = d.engine.planned_since(name, to, COUNTED).len();
    let more = if times == COUNTED { "at least " } else { "" };
    let fire = times.min(most);
    let verb = if dry { "would fire" } else { "fire" };
    let message = format!(
        "schedule {name}: {more}{} since then, {fire} of them {verb} (catch_up)",
        api::count(times as u64, "planned time")
    );
    Ok(Done { message, count: Some(fire as u64), ..Done::default() })
}

fn changed(d: &mut Daemon, asker: Asker, change: Change, done: Done) {
    d.ask(
        Ask::Schedule(change),
        Box::new(move |_, told| match told {
            Told::Done => asker.json(&done),
            Told::Fault(fault) => asker.error(store_error(&fault)),
            Told::Stopping => asker.error(stopping()),
            _ => asker.error(mismatch()),
        }),
    );
}
