//! Keys of `[schedules.NAME]`.

use super::{Key, Kind, keys};

const YEAR: u64 = 366 * 86_400_000;

pub(super) const SCHEDULE: &[Key] = keys! {
    "task": Kind::Name, Later, "", "The task that is enqueued.";
    "cron": Kind::Cron, Later, "", "When, as in crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly.";
    "every": Kind::Duration(1_000, YEAR), Later, "", "How often, instead of cron.";
    "align": Kind::Bool, Later, "", "With every: at multiples of the interval, not after the last end.";
    "solar": Kind::Text, Later, "", "A solar event, as sunset, instead of cron.";
    "latitude": Kind::Number(-90.0, 90.0), Later, "", "Where the sun is looked at, degrees north.";
    "longitude": Kind::Number(-180.0, 180.0), Later, "", "Where the sun is looked at, degrees east.";
    "timezone": Kind::Zone, Later, "", "The time zone of cron; by default that of [taskd].";
    "overlap": Kind::Choice(&["skip", "queue", "allow", "replace"]), Later, "", "What happens when the last run has not ended.";
    "catch_up": Kind::Choice(&["none", "last", "all"]), Later, "", "What happens to times that were missed.";
    "splay": Kind::Duration(0, YEAR), Later, "", "Shift by a part of this, the same for a node each time.";
    "args": Kind::List, Later, "", "Positional arguments.";
    "kwargs": Kind::Dict, Later, "", "Keyword arguments.";
    "enabled": Kind::Bool, Later, "", "Whether it fires.";
    "pause_after_failures": Kind::Int(1, 1_000_000), Later, "", "It pauses after this many failures in a row.";
};
