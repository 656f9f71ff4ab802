//! `expected_by`: a task that had no success since the time before by which one was expected is told as missed,
//! once, whoever was down at that time.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::Engine;
use super::command::Command;
use super::store::{Pending, backoff};
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::notice::{Kind, Notice};
use crate::model::op::{Fault, Op, Reply};
use crate::model::time::{Mono, Wall};

/// The times around an instant by which a success is or was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The one before `start`.
    before: Wall,
    /// The latest one that is not in the future.
    start: Wall,
    /// The next one.
    end: Wall,
}

/// The window of `now`. A time of day that a change of the clocks leaves out comes as much later, one that comes
/// twice counts the first time. Absent at the ends of the calendar, and without any time.
pub(super) fn window(minutes: &[u32], zone: &TimeZone, now: Wall) -> Option<Window> {
    let today = Timestamp::from_millisecond(now.0).ok()?.to_zoned(zone.clone()).date();
    let mut times = Vec::with_capacity(minutes.len() * 4);
    for days in -2_i64..=2 {
        let date = today.checked_add(days.days()).ok()?;
        for minute in minutes {
            let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
            let at = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?;
            times.push(Wall(at.timestamp().as_millisecond()));
        }
    }
    times.sort_unstable();
    times.dedup();
    let next = times.partition_point(|t| *t <= now);
    Some(Window {
        before: *times.get(next.checked_sub(2)?)?,
        start: *times.get(next.checked_sub(1)?)?,
        end: *times.get(next)?,
    })
}

/// One task's alarm.
#[derive(Debug)]
struct Alarm {
    window: Option<Window>,
    /// What is under way or failed: the time, how many targets are done, and when it is tried again.
    telling: Option<Telling>,
}

#[derive(Clone, Copy, Debug)]
struct Telling {
    window: Window,
    target: usize,
    tries: u32,
    /// Not under way: submitted at this time.
    at: Option<Mono>,
}

/// Every task that is expected.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    tasks: BTreeMap<String, Alarm>,
    /// Nothing is to be looked at while the wall clock is in here.
    quiet: Option<(Wall, Wall)>,
}

impl Engine {
    /// Takes over which tasks are expected when.
    pub(super) fn plan_alarms(&mut self) {
        let plan = std::sync::Arc::clone(&self.plan);
        let now = self.now.wall;
        self.tell.alarms.quiet = None;
        let mut old = std::mem::take(&mut self.tell.alarms.tasks);
        for (name, task) in plan.tasks.iter().filter(|(_, t)| !t.tell.expected_by.is_empty()) {
            let telling = old.remove(name).and_then(|a| a.telling);
            let window = window(&task.tell.expected_by, &plan.zone, now);
            self.tell.alarms.tasks.insert(name.clone(), Alarm { window, telling });
            if self.tell.is_loaded() {
                let mut streak = self.tell.streak(name);
                if streak.checked.is_none() {
                    // Known from now on: what was before its declaration was not missed.
                    streak.checked = Some(now);
                    streak.touched = now;
                    self.tell.set(name, streak);
                }
            }
        }
    }

    /// Whether a success now is the first one since the latest time by which one was expected.
    pub(super) fn is_first_success(&self, task: &str, last: Option<Wall>) -> bool {
        let window = self.tell.alarms.tasks.get(task).and_then(|a| a.window);
        window.is_some_and(|w| last.is_none_or(|last| last < w.start || last > self.now.wall))
    }

    /// Looks at what should have come by now.
    pub(super) fn pump_alarms(&mut self, out: &mut Vec<Command>) {
        if !self.tell.is_loaded() || !self.is_live() || self.stop.is_some() {
            return;
        }
        let now = self.now.wall;
        let alarms = &mut self.tell.alarms;
        if alarms.tasks.is_empty() || alarms.quiet.is_some_and(|(from, until)| from <= now && now < until) {
            return;
        }
        let over = |a: &Alarm| a.window.is_none_or(|w| w.end <= now || now < w.start);
        let due: Vec<String> = self.tell.alarms.tasks.keys().cloned().collect();
        for name in due {
            let Some(task) = self.plan.tasks.get(&name) else { continue };
            let Some(alarm) = self.tell.alarms.tasks.get_mut(&name) else { continue };
            if over(alarm) {
                alarm.window = window(&task.tell.expected_by, &self.plan.zone, now);
            }
            match (alarm.telling, alarm.window) {
                (Some(Telling { at: Some(at), .. }), _) if at <= self.now.mono => {
                    self.submit_alarm(&name, out)
                }
                (None, Some(window)) => self.look(&name, window, out),
                _ => {}
            }
        }
        let alarms = &mut self.tell.alarms;
        let open = alarms.tasks.values().any(|a| a.telling.is_some());
        let until = alarms.tasks.values().filter_map(|a| a.window).map(|w| w.end).min();
        alarms.quiet = until.filter(|_| !open).map(|until| (now, until));
    }

    /// Whether a success came in the window before this one.
    fn look(&mut self, name: &str, window: Window, out: &mut Vec<Command>) {
        let mut streak = self.tell.streak(name);
        if streak.checked.is_none_or(|checked| checked >= window.start) {
            return;
        }
        if streak.succeeded.is_some_and(|at| at >= window.before) {
            // Found again after a restart: nothing is written.
            streak.checked = Some(window.start);
            self.tell.found(name, streak);
            return;
        }
        let telling = Telling { window, target: 0, tries: 0, at: None };
        if let Some(alarm) = self.tell.alarms.tasks.get_mut(name) {
            alarm.telling = Some(telling);
        }
        self.submit_alarm(name, out);
    }

    fn submit_alarm(&mut self, name: &str, out: &mut Vec<Command>) {
        let Some(alarm) = self.tell.alarms.tasks.get_mut(name) else { return };
        let Some(telling) = &mut alarm.telling else { return };
        telling.at = None;
        let (window, n) = (telling.window, telling.target);
        let rule = self.plan.tasks.get(name).and_then(|t| t.tell.rule(Kind::Missed));
        let Some(target) = rule.and_then(|r| r.targets.get(n)).cloned() else {
            alarm.telling = None;
            self.missed(name, window);
            return;
        };
        // One tick for each who is told.
        let schedule = format!("expected:{name}:{n}");
        let message = alarm_message(name, target, window, &schedule, self.now.wall);
        let op = Op::Once { key: schedule, at: window.start, message };
        self.submit(Pending::Alarm(name.to_owned()), op, out);
    }

    pub(super) fn alarm_answered(
        &mut self,
        name: &str,
        result: &Result<Reply, Fault>,
        out: &mut Vec<Command>,
    ) {
        let now = self.now.mono;
        let Some(telling) = self.tell.alarms.tasks.get_mut(name).and_then(|a| a.telling.as_mut()) else {
            return;
        };
        if let Err(Fault::Again(_) | Fault::Reconnect(_)) = result {
            telling.at = Some(now.plus(backoff(telling.tries)));
            telling.tries = telling.tries.saturating_add(1);
            return;
        }
        telling.target += 1;
        telling.tries = 0;
        self.tell.alarms.quiet = None;
        self.raise(crate::model::notice::NOTIFY);
        self.submit_alarm(name, out);
    }

    /// Everybody was told that this task did not run.
    fn missed(&mut self, name: &str, window: Window) {
        let mut streak = self.tell.streak(name);
        streak.checked = Some(window.start);
        streak.touched = self.now.wall;
        // Its next success is told, unless it came meanwhile.
        streak.told |= streak.succeeded.is_none_or(|at| at < window.start);
        self.tell.set(name, streak);
    }

    pub(super) fn alarms_deadline(&self) -> Option<Mono> {
        if !self.tell.is_loaded() || !self.is_live() || self.stop.is_some() {
            return None;
        }
        if let Some((_, until)) = self.tell.alarms.quiet {
            return Some(self.now.mono.plus(until.since(self.now.wall).max(1)));
        }
        let at = |a: &Alarm| match a.telling {
            Some(telling) => telling.at,
            None => a.window.map(|w| self.now.mono.plus(w.end.since(self.now.wall).max(1))),
        };
        self.tell.alarms.tasks.values().filter_map(at).min()
    }
}

fn alarm_message(name: &str, target: String, window: Window, schedule: &str, now: Wall) -> Message {
    let notice = Notice {
        target,
        kind: Kind::Missed,
        task: name.to_owned(),
        at: now,
        test: false,
        subject: None,
        failures: 0,
        since: None,
        kept_back: 0,
        expected: Some(window.start),
        missing_since: Some(window.before),
        output: Vec::new(),
    };
    let planned = window.start.0.to_string();
    notice.message(MessageId(schedule.to_owned()).follow_up(&planned, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(text: &str) -> Wall {
        Wall(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn around(minutes: &[u32], zone: &str, now: &str) -> [String; 3] {
        let w = window(minutes, &TimeZone::get(zone).unwrap(), wall(now)).unwrap();
        [w.before, w.start, w.end].map(|t| Timestamp::from_millisecond(t.0).unwrap().to_string())
    }

    #[test]
    fn windows_follow_the_local_clock() {
        assert_eq!(
            around(&[360], "UTC", "2026-03-01T05:59:59Z"),
            ["2026-02-27T06:00:00Z", "2026-02-28T06:00:00Z", "2026-03-01T06:00:00Z"]
        );
        assert_eq!(around(&[360], "UTC", "2026-03-01T06:00:00Z")[1], "2026-03-01T06:00:00Z");
        assert_eq!(
            around(&[360, 1_080], "Asia/Shanghai", "2026-03-01T00:00:00Z"),
            ["2026-02-28T10:00:00Z", "2026-02-28T22:00:00Z", "2026-03-01T10:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_is_left_out_comes_later_and_one_that_comes_twice_counts_once() {
        // 2026-03-29 in Berlin: 02:00 to 03:00 is not there; 2026-10-25: it is there twice.
        assert_eq!(
            around(&[150], "Europe/Berlin", "2026-03-29T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            around(&[150], "Europe/Berlin", "2026-10-25T01:00:00Z"),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }
}
