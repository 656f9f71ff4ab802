//! Keys of `[schedules.NAME]`.

use super::{Key, Kind, keys};

const YEAR: u64 = 366 * 86_400_000;

pub(super) const SCHEDULE: &[Key] = keys! {
    "task": Kind::Name, Now, "", "The task that is enqueued.";
    "workflow": Kind::Name, Now, "", "The workflow that is launched, instead of a task. It is one run until its last step has ended, for overlap, every with align = false and pause_after_failures; canceling it, as overlap = \"replace\" does, cancels every step.";
    "cron": Kind::Cron, Now, "", "When, as in crontab(5), with a field for seconds before the five where there are six; or @hourly, @daily, @weekly, @monthly, @yearly.";
    "every": Kind::Duration(1_000, YEAR), Now, "", "How often, instead of cron.";
    "align": Kind::Bool, Now, "true", "With every: at multiples of the interval since 1970-01-01T00:00Z, whenever taskd was started. false: at once, and then so long after the last run ended, as OnUnitInactiveSec= of systemd.timer(5); such runs never overlap, and none is missed.";
    "solar": Kind::Text, Now, "", "When the sun does this at latitude and longitude, instead of cron: dawn_astronomical, dawn_nautical, dawn_civil, sunrise, solar_noon, sunset, dusk_civil, dusk_nautical or dusk_astronomical.";
    "latitude": Kind::Degrees(90.0), Now, "", "Where the sun is looked at, degrees north.";
    "longitude": Kind::Degrees(180.0), Now, "", "Where the sun is looked at, degrees east.";
    "timezone": Kind::Zone, Now, "", "The time zone of cron; by default that of [taskd], else the system's.";
    "overlap": Kind::Choice(&["skip", "queue", "allow", "replace"]), Now, "\"skip\"", "What happens at a planned time while a run of the schedule has not ended: the time is left out; its run waits for those before it, 100 of them at most; it runs beside them; or what waits is revoked, what runs is canceled, and it runs after that. With catch_up = \"all\" the default is queue.";
    "catch_up": Kind::Choice(&["none", "last", "all"]), Now, "\"none\"", "What happens to planned times that passed while taskd was down: they are left out, the latest of them fires, or all do. One that is found out less than a minute late fires in any case. What passed while the schedule was paused, disabled or not declared was not planned.";
    "catch_up_max": Kind::Int(1, 1_000), Now, "100", "With catch_up = \"all\": only the latest so many fire.";
    "splay": Kind::Duration(0, YEAR), Now, "\"0s\"", "It fires later than planned by a part of this, the same part each time on a node and another one on others.";
    "args": Kind::List, Now, "[]", "Positional arguments of the task.";
    "kwargs": Kind::Dict, Now, "{}", "Keyword arguments of the task.";
    "queue": Kind::Name, Now, "", "Another queue than the task's.";
    "priority": Kind::Int(0, 9), Now, "", "Another priority than the task's.";
    "expires": Kind::Duration(1, YEAR), Now, "", "Its messages are dropped as EXPIRED if they have not started so long after they were stored; by default as the task says.";
    "enabled": Kind::Bool, Now, "true", "Whether it fires.";
    "pause_after_failures": Kind::Int(1, 1_000_000), Now, "", "It pauses when so many of its runs failed one after the other, until `taskd schedules resume`.";
};
