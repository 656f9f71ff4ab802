//! Schedules: planned times, and what their messages do to one another.

use std::collections::BTreeMap;

use taskd::model::message::{Message, Token};
use taskd::model::name::MessageId;
use taskd::model::op::{Op, Reply, Settle};
use taskd::model::schedule::{
    Became, Change, Fired, Fires, MAX_HELD, Overlap, Pause, Row, Skip, Tick, Ticked, fire_id,
};
use taskd::model::state::State;

use crate::harness::*;

fn tick_of(ms: i64, overlap: Overlap) -> Tick {
    Tick {
        schedule: "s".to_owned(),
        planned: at(ms),
        fires: Fires::Message(Box::new(Message { uid: None, ..msg("") })),
        overlap,
        pause_after: None,
        max_length: Default::default(),
        now: at(ms),
    }
}

fn send(h: &mut dyn Harness, tick: Tick) -> Ticked {
    let Reply::Ticked(ticked) = h.ok(Op::Tick(Box::new(tick))) else { panic!() };
    *ticked
}

fn tick(h: &mut dyn Harness, ms: i64, overlap: Overlap) -> Became {
    send(h, tick_of(ms, overlap)).became
}

fn fired(ms: i64) -> String {
    fire_id("s", at(ms), 0).0
}

fn row(h: &mut dyn Harness) -> Row {
    let Reply::Schedules(rows) = h.ok(Op::Schedules { after: "q".to_owned() }) else { panic!() };
    rows.into_iter().find(|row| row.name == "s").unwrap()
}

fn change(h: &mut dyn Harness, change: Change) {
    assert_eq!(h.ok(Op::Schedule(vec![change])), Reply::Done);
}

fn state(h: &mut dyn Harness, ms: i64) -> State {
    get(h, &fired(ms)).unwrap().state
}

/// Leases the one message that can be leased now.
fn take(h: &mut dyn Harness, ms: i64) -> Token {
    let ready = deliveries(h.ok(lease_at(10, ms)));
    assert_eq!(ready.iter().map(|d| d.message.id.0.clone()).collect::<Vec<_>>(), [fired(ms)]);
    ready[0].token
}

fn settled(h: &mut dyn Harness, ms: i64, token: Token, state: State) {
    let s = Settle { now: at(ms), ..settle(&fired(ms), token, state) };
    assert!(end(h, s).0);
}

pub fn a_planned_time_fires_once(h: &mut dyn Harness) {
    let first = send(h, tick_of(0, Overlap::Allow));
    assert_eq!((first.id, first.became), (fire_id("s", at(0), 0), Became::Fired));
    h.restart();
    let again = send(h, Tick { now: at(50), ..tick_of(0, Overlap::Allow) });
    assert_eq!((again.id, again.became), (fire_id("s", at(0), 0), Became::Known));
    assert_eq!(tick(h, 60_000, Overlap::Allow), Became::Fired);
    let ready = deliveries(h.ok(lease_at(10, 0)));
    let from = ready.iter().map(|d| d.message.fired.clone().unwrap()).collect::<Vec<_>>();
    let of = |ms| Fired { schedule: "s".to_owned(), planned: Some(at(ms)), held: false };
    assert_eq!(from, [of(0), of(60_000)]);
    let row = row(h);
    assert_eq!((row.until, row.fired, row.live), (at(60_000), Some(at(60_000)), 2));
}

pub fn fires_of_long_ago_count_as_fired(h: &mut dyn Harness) {
    let now = |n: i64| Op::Tick(Box::new(Tick { now: at(2_000), ..tick_of(n, Overlap::Skip) }));
    h.all((1..=1_025).map(now).collect());
    for n in [0, 1, 2] {
        let Reply::Ticked(ticked) = h.ok(now(n)) else { panic!() };
        assert_eq!(ticked.became, Became::Known, "{n} is forgotten, but fired");
    }
    let Reply::Ticked(ticked) = h.ok(now(1_026)) else { panic!() };
    assert_eq!(ticked.became, Became::Skipped(Skip::Running(fire_id("s", at(1), 0))));
}

pub fn a_clock_that_was_a_day_ahead_silences_nothing(h: &mut dyn Harness) {
    const AHEAD: i64 = 400 * 86_400_000;
    h.all((1..=1_100).map(|n| Op::Tick(Box::new(tick_of(AHEAD + n, Overlap::Skip)))).collect());
    for n in 0..3 {
        let fresh = send(h, tick_of(n, Overlap::Allow));
        assert_eq!(fresh.became, Became::Fired, "{n}");
        assert_eq!(tick(h, n, Overlap::Allow), Became::Known, "{n} again");
    }
    assert_eq!(row(h).until, at(2), "a restart goes on from here");
    assert_eq!(tick(h, AHEAD + 200, Overlap::Allow), Became::Known, "what fired then does not fire again");
}

pub fn skip_stores_nothing_beside_what_runs(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Skip), Became::Fired);
    let running = Became::Skipped(Skip::Running(fire_id("s", at(0), 0)));
    assert_eq!(tick(h, 1, Overlap::Skip), running, "it waits");
    let token = take(h, 0);
    assert_eq!(tick(h, 2, Overlap::Skip), running, "it runs");
    h.restart();
    let retry = Settle { due: Some(at(50)), ..settle(&fired(0), token, State::Retry) };
    assert!(end(h, retry).0);
    assert_eq!(tick(h, 3, Overlap::Skip), running, "it runs again later");
    sweep(h, 50);
    let token = deliveries(h.ok(lease_at(1, 50)))[0].token;
    settled(h, 0, token, State::Success);
    assert_eq!(tick(h, 4, Overlap::Skip), Became::Fired);
    assert_eq!(tick(h, 1, Overlap::Skip), Became::Known, "a time that was skipped is done with");
    assert_eq!(get(h, &fired(1)), None);
    assert_eq!(row(h).fired, Some(at(4)));
}

pub fn queue_releases_the_next_at_every_kind_of_end(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Queue), Became::Fired);
    for ms in 1..=6 {
        assert_eq!(tick(h, ms, Overlap::Queue), Became::Held);
    }
    assert_eq!((row(h).live, row(h).held), (7, 6));
    assert_eq!(count(h), (1, 6, 0, 0));
    assert_eq!(state(h, 1), State::Scheduled);
    sweep(h, 1_000);
    h.restart();
    // A success, a failure, a revoked one, one that expires, a requeued one.
    let token = take(h, 0);
    assert_eq!(leased_ids(h, 10, 0), Vec::<String>::new());
    settled(h, 0, token, State::Success);
    let token = take(h, 1);
    settled(h, 1, token, State::Dead);
    let Reply::Record(Some(revoked)) = h.ok(Op::Revoke { id: fire_id("s", at(2), 0), now: at(9) }) else {
        panic!()
    };
    assert_eq!(revoked.state, State::Revoked);
    let Reply::Record(Some(held)) = h.ok(Op::Revoke { id: fire_id("s", at(4), 0), now: at(9) }) else {
        panic!()
    };
    assert_eq!((held.state, count(h)), (State::Revoked, (1, 2, 0, 0)), "one that was held frees nobody");
    let token = take(h, 3);
    h.ok(Op::Defer {
        id: fire_id("s", at(3), 0),
        token,
        until: None,
        counted: true,
        lost: true,
        takes: Default::default(),
        now: at(9),
    });
    let token = take(h, 3);
    settled(h, 3, token, State::Failure);
    let Reply::Record(Some(again)) = h.ok(Op::Requeue { id: fire_id("s", at(3), 0), now: at(9) }) else {
        panic!()
    };
    assert_eq!(again.state, State::Waiting, "a new life waits for nobody");
    assert_eq!(row(h).live, 3);
    assert_eq!(h.ok(Op::Purge { queue: "q".to_owned(), now: at(9) }), Reply::Purged(3));
    assert_eq!((row(h).live, row(h).held, count(h)), (0, 0, (0, 0, 0, 0)));
    // What expires while it is held, and while it waits.
    let expiring = |ms, expires: i64| Tick {
        fires: Fires::Message(Box::new(Message { expires: Some(at(expires)), ..msg("") })),
        ..tick_of(ms, Overlap::Queue)
    };
    for (ms, expires) in [(20, 100), (21, 50), (22, 1_000)] {
        send(h, expiring(ms, expires));
    }
    assert_eq!(sweep(h, 60).expired, [fire_id("s", at(21), 0)]);
    assert_eq!(state(h, 22), State::Scheduled);
    assert_eq!(sweep(h, 100).expired, [fire_id("s", at(20), 0)]);
    assert_eq!(take(h, 22).0 > 0, state(h, 22) == State::Waiting);
}

pub fn queue_is_bounded(h: &mut dyn Harness) {
    for ms in 0..=MAX_HELD as i64 {
        let expected = if ms == 0 { Became::Fired } else { Became::Held };
        assert_eq!(tick(h, ms, Overlap::Queue), expected);
    }
    assert_eq!(tick(h, 1_000, Overlap::Queue), Became::Skipped(Skip::TooMany));
    assert_eq!(row(h).until, at(1_000));
}

pub fn replace_revokes_what_waits_and_waits_for_what_runs(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Replace), Became::Fired);
    let second = send(h, tick_of(1, Overlap::Replace));
    assert_eq!((second.became, second.revoked, second.running), (Became::Fired, vec![id(&fired(0))], vec![]));
    assert_eq!(get(h, &fired(0)).unwrap().outcome.unwrap().cause.word(), "revoked");
    let token = take(h, 1);
    h.ok(Op::Start { id: id(&fired(1)), token, takes: Default::default(), now: at(1) });
    let third = send(h, tick_of(2, Overlap::Replace));
    assert_eq!((third.became, third.revoked, third.running), (Became::Held, vec![], vec![id(&fired(1))]));
    let fourth = send(h, tick_of(3, Overlap::Replace));
    assert_eq!((fourth.became, fourth.revoked), (Became::Held, vec![id(&fired(2))]));
    assert_eq!(state(h, 1), State::Running, "what runs is the engine's to end");
    settled(h, 1, token, State::Revoked);
    take(h, 3);
}

pub fn a_repeated_replacement_names_what_still_runs(h: &mut dyn Harness) {
    tick(h, 0, Overlap::Replace);
    let token = take(h, 0);
    send(h, tick_of(1, Overlap::Replace));
    let again = send(h, tick_of(1, Overlap::Replace));
    assert_eq!((again.became, again.running), (Became::Known, vec![id(&fired(0))]));
    settled(h, 0, token, State::Revoked);
    assert_eq!(send(h, tick_of(1, Overlap::Replace)).running, []);
}

pub fn allow_stores_whatever_runs(h: &mut dyn Harness) {
    for ms in 0..3 {
        assert_eq!(tick(h, ms, Overlap::Allow), Became::Fired);
    }
    assert_eq!(leased_ids(h, 10, 0), [fired(0), fired(1), fired(2)]);
}

fn bound(max: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("q".to_owned(), max)])
}

pub fn a_full_queue_takes_no_fire(h: &mut dyn Harness) {
    h.ok(publish(vec![msg("a")]));
    let full = send(h, Tick { max_length: bound(1), ..tick_of(0, Overlap::Allow) });
    assert_eq!(full.became, Became::Skipped(Skip::QueueFull { queue: "q".to_owned(), max_length: 1 }));
    assert_eq!(tick(h, 0, Overlap::Allow), Became::Known, "the time is done with");
    let fits = send(h, Tick { max_length: bound(2), ..tick_of(1, Overlap::Allow) });
    assert_eq!(fits.became, Became::Fired);
}

pub fn failures_in_a_row_pause(h: &mut dyn Harness) {
    let mut run = |ms, state| {
        let ticked = send(h, Tick { pause_after: Some(2), ..tick_of(ms, Overlap::Skip) });
        if ticked.became == Became::Fired {
            let token = take(h, ms);
            settled(h, ms, token, state);
        }
        let row = row(h);
        (ticked.became, row.failures, row.paused)
    };
    assert_eq!(run(0, State::Failure), (Became::Fired, 1, None));
    assert_eq!(run(1, State::Success), (Became::Fired, 0, None));
    assert_eq!(run(2, State::Dead), (Became::Fired, 1, None));
    assert_eq!(run(3, State::Failure), (Became::Fired, 2, Some(Pause::Failures)));
    assert_eq!(run(4, State::Success), (Became::Paused, 2, Some(Pause::Failures)));
    let row = row(h);
    assert_eq!((row.until, row.state, row.ended), (at(3), Some(State::Failure), Some(at(3))));
}

pub fn a_pause_lasts_until_it_is_ended(h: &mut dyn Harness) {
    let pause = |paused, ms| Change::Pause { name: "s".to_owned(), paused, until: at(ms) };
    change(h, Change::Plan { name: "s".to_owned(), rule: "r".to_owned(), until: at(0) });
    change(h, pause(true, 5));
    h.restart();
    assert_eq!(tick(h, 6, Overlap::Allow), Became::Paused);
    assert_eq!((row(h).paused, row(h).rule), (Some(Pause::Asked), "r".to_owned()));
    change(h, pause(false, 10));
    assert_eq!((row(h).paused, row(h).until), (None, at(10)));
    assert_eq!(tick(h, 6, Overlap::Allow), Became::Fired, "nothing was recorded meanwhile");
}

pub fn a_rewind_fires_again_under_other_ids(h: &mut dyn Harness) {
    for ms in 0..4 {
        tick(h, ms, Overlap::Allow);
    }
    change(h, Change::Rewind { name: "s".to_owned(), to: at(1) });
    assert_eq!((row(h).until, row(h).lap), (at(1), 1));
    assert_eq!(tick(h, 1, Overlap::Allow), Became::Known);
    let again = send(h, tick_of(2, Overlap::Allow));
    assert_eq!((again.id.clone(), again.became), (fire_id("s", at(2), 1), Became::Fired));
    assert_ne!(again.id.0, fired(2));
    assert_eq!(leased_ids(h, 10, 10).len(), 5);
}

pub fn rows_come_in_pages_and_are_forgotten_when_idle(h: &mut dyn Harness) {
    let plan = |n: usize| Change::Plan { name: format!("p{n:04}"), rule: "r".to_owned(), until: at(0) };
    h.ok(Op::Schedule((0..1_500).map(plan).collect()));
    h.restart();
    let mut after = String::new();
    let mut sizes = Vec::new();
    loop {
        let Reply::Schedules(rows) = h.ok(Op::Schedules { after: after.clone() }) else { panic!() };
        let Some(last) = rows.last() else { break };
        sizes.push(rows.len());
        after.clone_from(&last.name);
    }
    assert_eq!(sizes, [1_000, 500]);
    tick(h, 0, Overlap::Allow);
    let forget = || Change::Forget { name: "s".to_owned() };
    change(h, forget());
    assert_eq!(row(h).live, 1, "one that has a message is kept");
    let token = take(h, 0);
    settled(h, 0, token, State::Success);
    change(h, forget());
    let Reply::Schedules(rows) = h.ok(Op::Schedules { after: "p1499".to_owned() }) else { panic!() };
    assert_eq!(rows, []);
}

pub fn a_fire_by_hand_counts_as_a_run(h: &mut dyn Harness) {
    let by_hand = Fired { schedule: "s".to_owned(), planned: None, held: false };
    h.ok(publish(vec![Message { fired: Some(by_hand), ..msg("hand") }]));
    let running = Became::Skipped(Skip::Running(MessageId("hand".to_owned())));
    assert_eq!(tick(h, 0, Overlap::Skip), running);
    assert_eq!(tick(h, 1, Overlap::Queue), Became::Held);
    let token = lease(h, 1)[0].token;
    assert!(end(h, settle("hand", token, State::Failure)).0);
    assert_eq!((row(h).failures, row(h).state), (1, None), "its state is not that of the plan's latest");
    take(h, 1);
}
