//! Workflows of more than one way through: what meets again, what is ended half way, what begins late, what is large.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use taskd::model::message::{Message, Token};
use taskd::model::name::MessageId;
use taskd::model::op::{Op, Reply, Settle};
use taskd::model::outcome::Outcome;
use taskd::model::schedule::{Became, Fires, Overlap, Tick, fire_id};
use taskd::model::state::State;
use taskd::model::workflow::{Fallout, Look, Stage, Step, Workflow, mark_sinks};

use crate::harness::*;

fn step(after: &[u32]) -> Step {
    let message = Message { id: MessageId::default(), args: Vec::new(), ..msg("") };
    Step { message, after: after.to_vec(), ..Step::default() }
}

fn launch(h: &mut dyn Harness, mut steps: Vec<Step>) -> Vec<String> {
    mark_sinks(&mut steps);
    let w = Workflow { keep_ms: 1_000, ..Workflow::new(id("w"), "graph", Some(7), steps).unwrap() };
    let ids = w.steps.iter().map(|s| s.message.id.0.clone()).collect();
    let op = Op::Launch { workflow: Box::new(w), max_length: BTreeMap::new(), now: at(0) };
    assert_eq!(h.ok(op), Reply::Launched(None));
    ids
}

/// Leases all that waits at this time: tokens and arguments by id.
fn taken(h: &mut dyn Harness, ms: i64) -> BTreeMap<String, (Token, Vec<Value>)> {
    let all = deliveries(h.ok(lease_at(1_000, ms)));
    all.into_iter().map(|d| (d.message.id.0, (d.token, d.message.args))).collect()
}

/// Ends a leased step; what followed.
fn over(h: &mut dyn Harness, name: &str, state: State, result: Value) -> Fallout {
    let token = get(h, name).unwrap().token.unwrap();
    let s = Settle {
        outcome: Outcome { result: Some(result), ..success() },
        now: at(5),
        ..settle(name, token, state)
    };
    match h.one(Op::Settle(Box::new(s))).unwrap() {
        Reply::With(_, fallout) => *fallout,
        _ => Fallout::default(),
    }
}

fn stages(h: &mut dyn Harness, name: &MessageId) -> Vec<Stage> {
    let look = Look { id: name.clone(), from: 0, limit: 1_000, results: false };
    let Reply::Seen(Some(seen)) = h.ok(Op::Look(look)) else { panic!("no workflow {name:?}") };
    seen.steps.into_iter().map(|s| s.stage).collect()
}

/// One step, two behind it, and one behind both; in each order in which the two can end.
pub fn a_diamond_meets_once_behind_both_sides(h: &mut dyn Harness) {
    let sides = || vec![step(&[]), step(&[0]), step(&[0]), step(&[1, 2])];
    let ids = launch(h, sides());
    taken(h, 0);
    over(h, &ids[0], State::Success, json!("top"));
    let both = taken(h, 5);
    assert_eq!(both.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&ids[1], &ids[2]]));
    assert!(both.values().all(|(_, args)| *args == [json!("top")]), "each side is given the one before it");
    // The later one ends first: the results are in the order of the steps all the same.
    over(h, &ids[2], State::Success, json!("right"));
    assert!(taken(h, 5).is_empty(), "one side is not enough");
    h.restart();
    let told = over(h, &ids[1], State::Success, json!("left"));
    assert_eq!(told.queues, ["q"]);
    let last = taken(h, 5);
    assert_eq!(last.len(), 1);
    assert_eq!(last[&ids[3]].1, [json!(["left", "right"])]);
    // What ended is told again after a lost answer: nothing begins twice.
    let s = Settle { now: at(6), ..settle(&ids[1], both[&ids[1]].0, State::Success) };
    assert!(matches!(h.ok(Op::Settle(Box::new(s))), Reply::Applied { applied: false, .. }));
    assert!(taken(h, 6).is_empty());
    assert_eq!(over(h, &ids[3], State::Success, json!(1)).over, [(id("w"), State::Success)]);
}

/// One side is over and the other one runs: what is behind both never begins, also when the side that ran ends well.
pub fn a_diamond_canceled_half_way_ends_with_what_ran(h: &mut dyn Harness) {
    let ids = launch(h, vec![step(&[]), step(&[0]), step(&[0]), step(&[1, 2])]);
    taken(h, 0);
    over(h, &ids[0], State::Success, json!(0));
    taken(h, 5);
    over(h, &ids[1], State::Success, json!(1));
    let reply = h.ok(Op::CancelFlow { id: id("w"), from: 0, now: at(5) });
    let Reply::Flowed(done) = reply else { panic!("{reply:?}") };
    assert_eq!((done.leased, done.next), (vec![id(&ids[2])], None));
    h.restart();
    // It ended before it heard that it should not.
    over(h, &ids[2], State::Success, json!(2));
    assert!(taken(h, 6).is_empty(), "nothing of a canceled workflow begins");
    let well = Stage::Ended(State::Success);
    assert_eq!(stages(h, &id("w")), [well, well, well, Stage::Ended(State::Revoked)]);
    let look = Look { id: id("w"), from: 0, limit: 9, results: false };
    let Reply::Seen(Some(seen)) = h.ok(Op::Look(look)) else { panic!() };
    assert_eq!(seen.head.state(), State::Revoked);
}

/// A step with a delay begins so long after what it waits for, not after the launch.
pub fn what_meets_may_begin_late(h: &mut dyn Harness) {
    let late = Step { delay_ms: Some(100), ..step(&[0, 1]) };
    let ids = launch(h, vec![step(&[]), step(&[]), late, step(&[2])]);
    taken(h, 0);
    over(h, &ids[0], State::Success, json!(0));
    assert_eq!(get(h, &ids[2]), None, "it is not there before both ended");
    let told = over(h, &ids[1], State::Success, json!(1));
    assert_eq!(told.next, Some(at(105)));
    h.restart();
    let swept = |h: &mut dyn Harness, ms| {
        h.ok(Op::Sweep { now: at(ms), retention: keep() });
        taken(h, ms)
    };
    assert!(swept(h, 104).is_empty());
    let begun = swept(h, 105);
    assert_eq!(begun[&ids[2]].1, [json!([0, 1])]);
    over(h, &ids[2], State::Success, json!(2));
    assert_eq!(taken(h, 106)[&ids[3]].1, [json!(2)]);
}

/// A workflow that waits for the one before it, with more first steps than one part does.
pub fn a_large_workflow_that_was_held_begins_whole(h: &mut dyn Harness) {
    let tick = |planned: i64, n: u32| {
        let mut steps = vec![step(&[]); n as usize];
        steps.push(step(&(0..n).collect::<Vec<_>>()));
        steps.iter_mut().for_each(|s| s.message.uid = None);
        mark_sinks(&mut steps);
        let workflow = Workflow { name: "nightly".into(), keep_ms: 1_000, steps, ..Workflow::default() };
        Op::Tick(Box::new(Tick {
            schedule: "s".to_owned(),
            planned: at(planned),
            fires: Fires::Workflow(Box::new(workflow)),
            overlap: Overlap::Queue,
            pause_after: None,
            max_length: BTreeMap::new(),
            now: at(planned),
        }))
    };
    let became = |reply: Reply| match reply {
        Reply::Ticked(ticked) => ticked.became,
        other => panic!("{other:?}"),
    };
    assert_eq!(became(h.ok(tick(0, 1))), Became::Fired);
    assert_eq!(became(h.ok(tick(1, 1_200))), Became::Held);
    let (first, held) = (fire_id("s", at(0), 0).steps(), fire_id("s", at(1), 0).steps());
    assert_eq!(taken(h, 2).into_keys().collect::<Vec<_>>(), [first.id(0).0]);
    over(h, first.id(0).as_str(), State::Success, json!(0));
    assert_eq!(taken(h, 5).into_keys().collect::<Vec<_>>(), [first.id(1).0], "the held one waits on");
    h.restart();
    over(h, first.id(1).as_str(), State::Success, json!(0));
    let mut begun = BTreeSet::new();
    for round in 0.. {
        for (name, (_, args)) in taken(h, 6) {
            if name == held.id(1_200).0 {
                assert_eq!((begun.len(), &args[0]), (1_200, &json!(vec![1; 1_200])), "behind all of them");
            }
            over(h, &name, State::Success, json!(1));
            assert!(begun.insert(name), "a step begins once");
        }
        if begun.len() == 1_201 {
            break;
        }
        assert!(round < 10_000, "{} of 1,201 began", begun.len());
        h.ok(Op::Sweep { now: at(6), retention: keep() });
    }
    let look = Look { id: fire_id("s", at(1), 0), from: 0, limit: 1, results: false };
    let Reply::Seen(Some(seen)) = h.ok(Op::Look(look)) else { panic!() };
    assert_eq!(seen.head.state(), State::Success);
}
