//! Workflows that schedules launch: one run of their schedule each, from their first step to their last.

use serde_json::json;
use taskd::model::message::{Message, Token};
use taskd::model::name::MessageId;
use taskd::model::op::{Flowed, Op, Reply, Settle};
use taskd::model::outcome::Outcome;
use taskd::model::schedule::{
    Became, Change, Fired, Fires, MAX_HELD, Overlap, Pause, Row, Skip, Tick, Ticked, fire_id,
};
use taskd::model::state::State;
use taskd::model::unique::{Claim, Holds, OnConflict};
use taskd::model::workflow::{Fallout, Look, Seen, Step, When, Workflow, mark_sinks};

use crate::harness::*;

fn step(after: &[u32]) -> Step {
    let message = Message { id: MessageId::default(), uid: None, ..msg("") };
    Step { message, after: after.to_vec(), ..Step::default() }
}

/// Two steps that run first, and one behind both.
fn steps() -> Vec<Step> {
    let mut steps = vec![step(&[]), step(&[]), step(&[0, 1])];
    mark_sinks(&mut steps);
    steps
}

fn tick_of(ms: i64, overlap: Overlap) -> Tick {
    let workflow =
        Workflow { name: "nightly".to_owned(), keep_ms: 1_000, steps: steps(), ..Workflow::default() };
    Tick {
        schedule: "s".to_owned(),
        planned: at(ms),
        fires: Fires::Workflow(Box::new(workflow)),
        overlap,
        pause_after: Some(2),
        max_length: Default::default(),
        now: at(ms),
    }
}

fn message_tick(ms: i64, overlap: Overlap) -> Tick {
    Tick { fires: Fires::Message(Box::new(Message { uid: None, ..msg("") })), ..tick_of(ms, overlap) }
}

fn send(h: &mut dyn Harness, tick: Tick) -> Ticked {
    let Reply::Ticked(ticked) = h.ok(Op::Tick(Box::new(tick))) else { panic!() };
    *ticked
}

fn tick(h: &mut dyn Harness, ms: i64, overlap: Overlap) -> Became {
    send(h, tick_of(ms, overlap)).became
}

fn flow(ms: i64) -> MessageId {
    fire_id("s", at(ms), 0)
}

fn of_step(ms: i64, no: u32) -> MessageId {
    flow(ms).steps().id(no)
}

fn row(h: &mut dyn Harness) -> Row {
    let Reply::Schedules(rows) = h.ok(Op::Schedules { after: "q".to_owned() }) else { panic!() };
    rows.into_iter().find(|row| row.name == "s").unwrap()
}

fn seen(h: &mut dyn Harness, id: MessageId) -> Option<Box<Seen>> {
    let Reply::Seen(seen) = h.ok(Op::Look(Look { id, from: 0, limit: 1_000, results: false })) else {
        panic!()
    };
    seen
}

fn state(h: &mut dyn Harness, ms: i64) -> State {
    seen(h, flow(ms)).unwrap().head.state()
}

/// Leases all that can be leased: it is these steps.
fn take(h: &mut dyn Harness, expected: &[MessageId]) -> Vec<Token> {
    let ready = deliveries(h.ok(lease_at(10, 100)));
    assert_eq!(ready.iter().map(|d| d.message.id.clone()).collect::<Vec<_>>(), expected);
    ready.into_iter().map(|d| d.token).collect()
}

fn end_as(h: &mut dyn Harness, id: &MessageId, token: Token, state: State) -> Fallout {
    let outcome = Outcome { result: Some(json!(1)), ..success() };
    let s = Settle { outcome, now: at(200), ..settle(id.as_str(), token, state) };
    match h.one(Op::Settle(Box::new(s))).unwrap() {
        Reply::With(_, fallout) => *fallout,
        _ => Fallout::default(),
    }
}

/// Runs the workflow that can run now to its end: its first step ends as is said.
fn run(h: &mut dyn Harness, ms: i64, first: State) {
    let tokens = take(h, &[of_step(ms, 0), of_step(ms, 1)]);
    end_as(h, &of_step(ms, 0), tokens[0], first);
    end_as(h, &of_step(ms, 1), tokens[1], State::Success);
    if first == State::Success {
        let last = take(h, &[of_step(ms, 2)]);
        end_as(h, &of_step(ms, 2), last[0], State::Success);
    }
}

fn cancel(h: &mut dyn Harness, ms: i64) -> Flowed {
    let Reply::Flowed(done) = h.ok(Op::CancelFlow { id: flow(ms), from: 0, now: at(300) }) else { panic!() };
    done
}

pub fn a_planned_time_launches_once(h: &mut dyn Harness) {
    let first = send(h, tick_of(0, Overlap::Allow));
    assert_eq!((first.id, first.became), (flow(0), Became::Fired));
    h.restart();
    let again = send(h, Tick { now: at(50), ..tick_of(0, Overlap::Allow) });
    assert_eq!((again.id, again.became), (flow(0), Became::Known));
    let head = seen(h, flow(0)).unwrap().head;
    let fired = Fired { schedule: "s".to_owned(), planned: Some(at(0)), held: false };
    assert_eq!((head.name.as_str(), head.fired, head.uid), ("nightly", Some(fired), None));
    let ready = deliveries(h.ok(lease_at(10, 100)));
    let ids: Vec<MessageId> = ready.iter().map(|d| d.message.id.clone()).collect();
    assert_eq!(ids, [of_step(0, 0), of_step(0, 1)]);
    assert!(ready.iter().all(|d| d.message.fired.is_none()), "a step is no run of the schedule by itself");
    let row = row(h);
    assert_eq!((row.until, row.id, row.workflow, row.live, row.held), (at(0), Some(flow(0)), true, 1, 0));
}

pub fn it_runs_until_its_last_step_ended(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Skip), Became::Fired);
    let tokens = take(h, &[of_step(0, 0), of_step(0, 1)]);
    let running = Became::Skipped(Skip::Running(flow(0)));
    for (no, token) in (0..).zip(tokens) {
        assert_eq!(tick(h, i64::from(no) + 1, Overlap::Skip), running);
        end_as(h, &of_step(0, no), token, State::Success);
    }
    h.restart();
    assert_eq!(tick(h, 5, Overlap::Skip), running, "the last one waits");
    let last = take(h, &[of_step(0, 2)]);
    let told = end_as(h, &of_step(0, 2), last[0], State::Success);
    assert_eq!(told.fires, [("s".to_owned(), flow(0), State::Success)]);
    assert_eq!((row(h).live, row(h).state, row(h).ended), (0, Some(State::Success), Some(at(200))));
    assert_eq!(tick(h, 6, Overlap::Skip), Became::Fired);
    assert_eq!(seen(h, flow(1)), None, "a time that was skipped launched nothing");
}

pub fn one_that_waits_publishes_nothing_until_its_turn(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Queue), Became::Fired);
    assert_eq!(tick(h, 1, Overlap::Queue), Became::Held);
    assert_eq!(send(h, message_tick(2, Overlap::Queue)).became, Became::Held, "the schedule has a task now");
    assert_eq!(tick(h, 3, Overlap::Queue), Became::Held);
    assert_eq!((row(h).live, row(h).held, count(h)), (4, 3, (2, 1, 0, 0)));
    assert_eq!((state(h, 0), state(h, 1)), (State::Running, State::Scheduled));
    assert_eq!(get(h, of_step(1, 0).as_str()), None);
    sweep(h, 90);
    h.restart();
    run(h, 0, State::Success);
    assert_eq!((row(h).live, row(h).held, state(h, 1)), (3, 2, State::Running));
    run(h, 1, State::Failure);
    let token = take(h, &[flow(2)]);
    let told = end_as(h, &flow(2), token[0], State::Success);
    assert_eq!(told.queues, ["q"], "somebody must look at the queue of what was released");
    run(h, 3, State::Success);
    assert_eq!((row(h).live, row(h).state), (0, Some(State::Success)));
}

pub fn what_waits_is_bounded_and_canceled_like_any_other(h: &mut dyn Harness) {
    for ms in 0..=MAX_HELD as i64 {
        let expected = if ms == 0 { Became::Fired } else { Became::Held };
        assert_eq!(tick(h, ms, Overlap::Queue), expected);
    }
    assert_eq!(tick(h, 1_000, Overlap::Queue), Became::Skipped(Skip::TooMany));
    // One that waits, and then the one that they wait for.
    cancel(h, 1);
    assert_eq!((state(h, 1), row(h).live, row(h).held), (State::Revoked, 100, 99));
    assert_eq!(get(h, of_step(1, 0).as_str()).unwrap().state, State::Revoked);
    cancel(h, 0);
    assert_eq!((state(h, 0), state(h, 2)), (State::Revoked, State::Running));
    assert_eq!(row(h).failures, 0, "to be canceled is no failure");
    take(h, &[of_step(2, 0), of_step(2, 1)]);
    // A new life waits for nobody, as that of a message.
    h.ok(Op::RetryFlow { id: flow(1), from: 0, now: at(400) });
    assert_eq!((state(h, 1), row(h).live, row(h).held), (State::Running, 100, 98));
    take(h, &[of_step(1, 0), of_step(1, 1)]);
}

pub fn replace_cancels_what_runs_and_waits_for_its_last_step(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Replace), Became::Fired);
    let second = send(h, tick_of(1, Overlap::Replace));
    assert_eq!((second.became, second.flows), (Became::Fired, vec![]), "nothing of it was leased");
    assert_eq!(state(h, 0), State::Revoked);
    let tokens = take(h, &[of_step(1, 0), of_step(1, 1)]);
    end_as(h, &of_step(1, 0), tokens[0], State::Success);
    let third = send(h, tick_of(2, Overlap::Replace));
    assert_eq!((third.became, third.running, third.flows), (Became::Held, vec![], vec![flow(1)]));
    let fourth = send(h, tick_of(3, Overlap::Replace));
    assert_eq!((fourth.became, fourth.flows, state(h, 2)), (Became::Held, vec![flow(1)], State::Revoked));
    let again = send(h, tick_of(3, Overlap::Replace));
    assert_eq!((again.became, again.flows), (Became::Known, vec![flow(1)]));
    h.restart();
    assert_eq!(row(h).ending, [flow(1)], "an engine that begins finds what it is to end");
    end_as(h, &of_step(1, 1), tokens[1], State::Success);
    assert_eq!((state(h, 1), row(h).ending), (State::Revoked, vec![]), "its last step never ran");
    assert_eq!(send(h, tick_of(3, Overlap::Replace)).flows, []);
    take(h, &[of_step(3, 0), of_step(3, 1)]);
}

pub fn a_message_of_the_schedule_is_replaced_too(h: &mut dyn Harness) {
    send(h, message_tick(0, Overlap::Replace));
    let token = take(h, &[flow(0)]);
    let next = send(h, tick_of(1, Overlap::Replace));
    assert_eq!((next.became, next.running, next.flows), (Became::Held, vec![flow(0)], vec![]));
    let told = end_as(h, &flow(0), token[0], State::Revoked);
    assert_eq!((told.queues, state(h, 1)), (vec!["q".to_owned()], State::Running));
    take(h, &[of_step(1, 0), of_step(1, 1)]);
}

pub fn a_failed_workflow_is_one_failure(h: &mut dyn Harness) {
    assert_eq!(tick(h, 0, Overlap::Skip), Became::Fired);
    run(h, 0, State::Dead);
    assert_eq!((row(h).failures, row(h).state, state(h, 0)), (1, Some(State::Failure), State::Failure));
    tick(h, 1, Overlap::Skip);
    run(h, 1, State::Success);
    assert_eq!(row(h).failures, 0);
    for ms in [2, 3] {
        tick(h, ms, Overlap::Skip);
        run(h, ms, State::Failure);
    }
    assert_eq!((row(h).failures, row(h).paused), (2, Some(Pause::Failures)));
    assert_eq!(tick(h, 4, Overlap::Skip), Became::Paused);
    // Who paused it last is shown.
    h.ok(Op::Schedule(vec![Change::Pause { name: "s".to_owned(), paused: true, until: at(5) }]));
    assert_eq!(row(h).paused, Some(Pause::Asked));
}

pub fn a_new_life_of_a_workflow_is_a_run_again(h: &mut dyn Harness) {
    tick(h, 0, Overlap::Skip);
    run(h, 0, State::Failure);
    let Reply::With(_, told) = h.one(Op::RetryFlow { id: flow(0), from: 0, now: at(300) }).unwrap() else {
        panic!()
    };
    assert_eq!((told.reopened.as_slice(), row(h).live), (["s".to_owned()].as_slice(), 1));
    assert_eq!(tick(h, 1, Overlap::Skip), Became::Skipped(Skip::Running(flow(0))));
    h.restart();
    let token = take(h, &[of_step(0, 0)]);
    end_as(h, &of_step(0, 0), token[0], State::Success);
    let last = take(h, &[of_step(0, 2)]);
    end_as(h, &of_step(0, 2), last[0], State::Success);
    assert_eq!((row(h).live, row(h).state), (0, Some(State::Success)));
}

pub fn a_workflow_that_is_over_at_once_is_told_as_skipped(h: &mut dyn Harness) {
    let claim =
        Claim { key: "k".to_owned(), holds: Holds::Both, on_conflict: OnConflict::Return, period_ms: None };
    h.ok(publish(vec![Message { unique: Some(claim.clone()), ..msg("holder") }]));
    let mut alone = step(&[]);
    alone.message.unique = Some(claim);
    let mut steps = vec![alone];
    mark_sinks(&mut steps);
    let one = |ms, overlap| Tick {
        fires: Fires::Workflow(Box::new(Workflow { steps: steps.clone(), ..Workflow::default() })),
        ..tick_of(ms, overlap)
    };
    assert_eq!(send(h, one(0, Overlap::Skip)).became, Became::Skipped(Skip::KeyHeld));
    assert_eq!((row(h).live, state(h, 0)), (0, State::Failure), "a step that nobody runs fails its workflow");
    // The same of those that wait: each is over in its turn, and the next one goes on.
    tick(h, 1, Overlap::Queue);
    for ms in 2..6 {
        assert_eq!(send(h, one(ms, Overlap::Queue)).became, Became::Held);
    }
    assert_eq!(tick(h, 6, Overlap::Queue), Became::Held);
    cancel(h, 1);
    assert_eq!((row(h).live, row(h).held, state(h, 5), state(h, 6)), (1, 0, State::Failure, State::Running));
    assert_eq!(row(h).paused, Some(Pause::Failures));
}

pub fn first_steps_that_do_not_fit_launch_nothing(h: &mut dyn Harness) {
    let bounded = |ms, max: u64| Tick {
        max_length: [("q".to_owned(), max)].into_iter().collect(),
        ..tick_of(ms, Overlap::Allow)
    };
    let full = Became::Skipped(Skip::QueueFull { queue: "q".to_owned(), max_length: 1 });
    assert_eq!(send(h, bounded(0, 1)).became, full);
    assert_eq!((seen(h, flow(0)), row(h).until), (None, at(0)));
    assert_eq!(send(h, bounded(1, 2)).became, Became::Fired, "what comes later does not count");
    let wrong = Step { when: When::Failure, ..step(&[]) };
    let none = Workflow { steps: vec![wrong], ..Workflow::default() };
    let op =
        Op::Tick(Box::new(Tick { fires: Fires::Workflow(Box::new(none)), ..tick_of(2, Overlap::Allow) }));
    assert!(h.one(op).is_err());
    assert_eq!(row(h).until, at(1), "a refusal leaves nothing behind");
}

pub fn a_launch_by_hand_counts_as_a_run(h: &mut dyn Harness) {
    let by_hand = Fired { schedule: "s".to_owned(), planned: None, held: false };
    let hand =
        Workflow { fired: Some(by_hand), ..Workflow::new(id("hand"), "nightly", Some(7), steps()).unwrap() };
    let op = Op::Launch { workflow: Box::new(hand), max_length: Default::default(), now: at(0) };
    assert_eq!(h.ok(op), Reply::Launched(None));
    assert_eq!(tick(h, 1, Overlap::Skip), Became::Skipped(Skip::Running(id("hand"))));
    assert_eq!(tick(h, 2, Overlap::Queue), Became::Held);
    let head = seen(h, id("hand")).unwrap().head;
    assert_eq!((head.fired.unwrap().planned, head.uid), (None, Some(7)));
    h.ok(Op::CancelFlow { id: id("hand"), from: 0, now: at(3) });
    assert_eq!((row(h).state, row(h).live), (None, 1), "its state is not that of the plan's latest");
    take(h, &[of_step(2, 0), of_step(2, 1)]);
}

pub fn a_rewind_launches_again_under_another_id(h: &mut dyn Harness) {
    tick(h, 1, Overlap::Allow);
    h.ok(Op::Schedule(vec![Change::Rewind { name: "s".to_owned(), to: at(0) }]));
    let again = send(h, tick_of(1, Overlap::Allow));
    assert_eq!((again.id.clone(), again.became), (fire_id("s", at(1), 1), Became::Fired));
    let steps = seen(h, again.id.clone()).unwrap().steps;
    assert_eq!(steps[2].id, again.id.steps().id(2));
    assert_eq!(row(h).live, 2);
}
