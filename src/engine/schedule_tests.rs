use super::*;
use crate::cron::Timing;
use crate::engine::event::{Ask, Event};
use crate::engine::plan::{Plan, Target};
use crate::engine::testbed::Bed;
use crate::model::outcome::{Cause, Outcome};
use crate::model::schedule::{CatchUp, Pause};

const MINUTE: u64 = 60_000;
/// When the bed begins, and the first whole minute after it.
const T0: i64 = 1_700_000_000_000;
const FIRST: i64 = 1_700_000_040_000;

fn plan() -> SchedulePlan {
    SchedulePlan {
        when: When::At(Timing::Every { ms: MINUTE }),
        rule: "r".into(),
        target: Target::Task("t".into()),
        args: Vec::new(),
        kwargs: serde_json::Map::new(),
        queue: None,
        priority: None,
        expires_ms: None,
        overlap: Overlap::Allow,
        catch_up: CatchUp::None,
        offset_ms: 0,
        pause_after: None,
        enabled: true,
    }
}

fn with(change: impl FnOnce(&mut SchedulePlan)) -> impl FnOnce(&mut Plan) {
    let mut s = plan();
    change(&mut s);
    move |p: &mut Plan| {
        p.pools.get_mut("default").unwrap().processes = 9;
        p.schedules.insert("s".into(), s);
    }
}

/// Planned times that the store was told of, in milliseconds after the first.
fn ticks(bed: &Bed) -> Vec<i64> {
    bed.ticks.iter().map(|t| t.planned.0 - FIRST).collect()
}

fn missed(bed: &mut Bed) -> Vec<usize> {
    let count = |c| match c {
        Command::Note(Note::Schedule { what: About::Missed { count, .. }, .. }) => Some(count),
        _ => None,
    };
    bed.take().into_iter().filter_map(count).collect()
}

#[test]
fn it_wakes_at_the_planned_time_and_not_before() {
    let mut bed = Bed::with(with(|_| {}));
    assert_eq!(bed.schedules["s"].until, Wall(T0), "it begins when it is first seen");
    assert_eq!(bed.engine.next_deadline(), Some(bed.mono().plus(40_000)));
    bed.pass(39_999);
    assert_eq!(ticks(&bed), Vec::<i64>::new());
    bed.pass(1);
    assert_eq!(ticks(&bed), [0]);
    assert_eq!(bed.running().len(), 1, "it starts at once");
    bed.pass(2 * MINUTE);
    assert_eq!(ticks(&bed), [0, 60_000, 120_000]);
    assert_eq!(bed.engine.next_deadline(), Some(bed.mono().plus(MINUTE)));
}

#[test]
fn splay_delays_the_fire_and_not_the_planned_time() {
    let mut bed = Bed::with(with(|s| s.offset_ms = 7_000));
    bed.pass(46_999);
    assert_eq!(ticks(&bed), Vec::<i64>::new());
    bed.pass(1);
    assert_eq!(ticks(&bed), [0]);
}

/// A daemon that starts `down` milliseconds after the first minute was done.
fn after(down: u64, change: impl FnOnce(&mut SchedulePlan)) -> Bed {
    let mut bed = Bed::booting(with(change));
    let row = Row { rule: "r".into(), ..Row::new("s", Wall(FIRST)) };
    bed.schedules.insert("s".into(), row);
    bed.jump(down + 40_000);
    bed.step(Event::Adopt { children_lost: false, fresh: true });
    bed
}

#[test]
fn what_was_missed_follows_catch_up_and_what_is_late_does_not() {
    let mut bed = after(90_000, |_| {});
    assert_eq!((ticks(&bed), missed(&mut bed)), (vec![60_000], vec![]), "half a minute late");
    let mut bed = after(10 * MINUTE + 30_000, |_| {});
    assert_eq!((ticks(&bed), missed(&mut bed)), (vec![600_000], vec![9]));
    let mut bed = after(12 * MINUTE, |s| s.when = When::At(Timing::Every { ms: 4 * MINUTE }));
    assert_eq!((ticks(&bed), missed(&mut bed)), (vec![], vec![3]));
    assert_eq!(bed.schedules["s"].until, Wall(FIRST + 600_000), "and that is recorded");
    let bed = after(10 * MINUTE + 30_000, |s| s.catch_up = CatchUp::All { max: 3 });
    assert_eq!(ticks(&bed), [480_000, 540_000, 600_000]);
    let bed = after(12 * MINUTE, |s| {
        s.when = When::At(Timing::Every { ms: 4 * MINUTE });
        s.catch_up = CatchUp::Last;
    });
    assert_eq!(ticks(&bed), [600_000]);
}

#[test]
fn a_changed_or_new_or_enabled_schedule_begins_now() {
    let mut bed = after(10 * MINUTE, |s| {
        s.rule = "other".into();
        s.catch_up = CatchUp::All { max: 100 };
    });
    assert_eq!((ticks(&bed), missed(&mut bed)), (vec![], vec![]));
    bed.reload(|p| p.schedules.get_mut("s").unwrap().enabled = false);
    assert_eq!(bed.schedules["s"].rule, "");
    bed.pass(10 * MINUTE);
    bed.reload(|p| p.schedules.get_mut("s").unwrap().enabled = true);
    assert_eq!(ticks(&bed), Vec::<i64>::new());
    bed.reload(|p| _ = p.schedules.remove("s"));
    bed.pass(10 * MINUTE);
    assert_eq!(bed.engine.next_deadline(), None);
    assert_eq!(ticks(&bed), Vec::<i64>::new());
}

#[test]
fn a_failing_store_is_told_again_and_what_comes_meanwhile_is_late_or_missed() {
    let mut bed = Bed::with(with(|_| {}));
    bed.pass(39_999);
    bed.fail_after(1_000_000);
    bed.pass(1);
    let tries = |bed: &Bed| bed.ticks.len();
    assert_eq!(tries(&bed), 1);
    bed.pass(5 * MINUTE + 30_000);
    assert!(bed.ticks.iter().all(|t| t.planned == Wall(FIRST)), "one after the other");
    assert!(tries(&bed) > 50);
    bed.fail_after(0);
    bed.pass(4_000);
    let rest: Vec<i64> = ticks(&bed).into_iter().filter(|ms| *ms > 0).collect();
    assert_eq!((rest, missed(&mut bed)), (vec![300_000], vec![4]));
}

#[test]
fn a_clock_that_is_set_back_asks_again_and_goes_on() {
    let mut bed = Bed::with(with(|_| {}));
    bed.pass(40_000 + 3 * MINUTE);
    assert_eq!(ticks(&bed).len(), 4);
    bed.jump_back(3 * MINUTE);
    bed.step(Event::Tick);
    bed.pass(5 * MINUTE);
    // What fired is asked for once more, and the store knows it; the latest is known here, too.
    assert_eq!(ticks(&bed)[4..], [60_000, 120_000, 240_000, 300_000]);
    assert_eq!(bed.schedules["s"].until, Wall(FIRST + 300_000));
    assert_eq!(missed(&mut bed), Vec::<usize>::new());
}

#[test]
fn a_clock_that_is_set_ahead_misses_what_it_jumps_over() {
    let mut bed = Bed::with(with(|_| {}));
    bed.jump(10 * MINUTE);
    bed.step(Event::Tick);
    assert_eq!((ticks(&bed), missed(&mut bed)), (vec![540_000], vec![9]));
}

#[test]
fn one_that_follows_its_ends_runs_at_once_and_then_so_long_after() {
    let mut bed = Bed::with(with(|s| s.when = When::After { ms: 30_000 }));
    assert_eq!(bed.running().len(), 1, "at once");
    bed.pass(10 * MINUTE);
    assert_eq!(ticks(&bed).len(), 1, "never beside itself");
    let run = bed.running().pop().unwrap();
    bed.succeed(&run);
    let ended = bed.mono();
    assert_eq!(bed.engine.next_deadline(), Some(ended.plus(30_000)));
    bed.pass(30_000);
    assert_eq!((ticks(&bed).len(), bed.running().len()), (2, 1));
}

#[test]
fn failures_in_a_row_pause_it_and_resume_begins_now() {
    let mut bed = Bed::with(with(|s| s.pause_after = Some(2)));
    for _ in 0..2 {
        bed.pass(MINUTE);
        let run = bed.running().pop().unwrap();
        bed.end(&run, Outcome::of_cause(Cause::Exit { code: 1 }, "x"));
    }
    let paused =
        |c: &Command| matches!(c, Command::Note(Note::Schedule { what: About::Paused { failures: 2 }, .. }));
    assert_eq!(bed.take().iter().filter(|c| paused(c)).count(), 1);
    bed.pass(10 * MINUTE);
    assert_eq!(ticks(&bed).len(), 2);
    assert_eq!(bed.engine.schedule_view("s").row.unwrap().paused, Some(Pause::Failures));
    let change = bed.engine.pause_change("s", false).unwrap();
    bed.ask(Ask::Schedule(change));
    assert_eq!((ticks(&bed).len(), missed(&mut bed)), (2, vec![]));
    bed.pass(MINUTE);
    assert_eq!(ticks(&bed).len(), 3);
}

#[test]
fn a_rewind_catches_up_from_there() {
    let mut bed = Bed::with(with(|s| s.catch_up = CatchUp::All { max: 100 }));
    bed.pass(5 * MINUTE);
    let told = ticks(&bed).len();
    let to = Wall(FIRST + 60_000);
    assert_eq!(bed.engine.planned_since("s", to, 100).len(), told - 2);
    bed.ask(Ask::Schedule(Change::Rewind { name: "s".into(), to }));
    assert_eq!(ticks(&bed)[told..], [120_000, 180_000, 240_000][..told - 2]);
}

#[test]
fn a_stop_ends_firing_and_a_drain_does_not() {
    let mut bed = Bed::with(with(|_| {}));
    bed.ask(Ask::Drain { on: true });
    bed.pass(MINUTE);
    assert_eq!((ticks(&bed).len(), bed.running().len()), (1, 0));
    bed.step(Event::Stop { now: false });
    bed.pass(10 * MINUTE);
    assert_eq!(ticks(&bed).len(), 1);
}

#[test]
fn many_at_once_are_told_in_bounded_lots() {
    let mut bed = Bed::with(|p| {
        for n in 0..1_000 {
            p.schedules.insert(format!("s{n:04}"), plan());
        }
    });
    bed.pass(40_000);
    assert_eq!(bed.ticks.len(), 1_000);
    // Answers come one by one: what goes out before the first of them is the lot.
    let is_tick = |c: &Command| matches!(c, Command::Broker(_, Op::Tick(_)));
    let lot = bed.log().iter().skip_while(|c| !is_tick(c)).take_while(|c| is_tick(c)).count();
    assert_eq!(lot, TICKS);
}
