//! Workflows: steps that follow one another.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use taskd::model::message::{MAX_BYTES, Message};
use taskd::model::name::MessageId;
use taskd::model::op::{Flowed, Op, Published, Reply, Retention, Settle};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;
use taskd::model::time::Wall;
use taskd::model::unique::{Claim, Holds, OnConflict};
use taskd::model::workflow::{Fallout, Look, OnError, Seen, Stage, Step, When, Workflow, mark_sinks};

use crate::harness::*;

/// A step of queue `q` after these.
fn step(after: &[u32]) -> Step {
    let message = Message { id: MessageId::default(), args: vec![json!("own")], ..msg("") };
    Step { message, after: after.to_vec(), ..Step::default() }
}

fn failing(after: &[u32]) -> Step {
    Step { when: When::Failure, ..step(after) }
}

fn going_on(after: &[u32]) -> Step {
    Step { on_error: OnError::Continue, ..step(after) }
}

fn workflow(name: &str, mut steps: Vec<Step>) -> Workflow {
    mark_sinks(&mut steps);
    Workflow { keep_ms: 1_000, ..Workflow::new(id(name), "graph", Some(7), steps).unwrap() }
}

fn launch_op(w: Workflow) -> Op {
    Op::Launch { workflow: Box::new(w), max_length: BTreeMap::new(), now: at(0) }
}

/// Launches a workflow; the ids of its steps.
fn launch(h: &mut dyn Harness, name: &str, steps: Vec<Step>) -> Vec<String> {
    let w = workflow(name, steps);
    let ids = w.steps.iter().map(|s| s.message.id.0.clone()).collect();
    assert_eq!(h.ok(launch_op(w)), Reply::Launched(None));
    ids
}

/// Leases everything; ids with their arguments.
fn taken(h: &mut dyn Harness) -> BTreeMap<String, (taskd::model::message::Token, Vec<Value>)> {
    let all = deliveries(h.ok(lease_at(1_000, 100)));
    all.into_iter().map(|d| (d.message.id.0, (d.token, d.message.args))).collect()
}

fn fallout(reply: Reply) -> Fallout {
    match reply {
        Reply::With(_, fallout) => *fallout,
        _ => Fallout::default(),
    }
}

/// Ends a leased step.
fn over(h: &mut dyn Harness, name: &str, state: State, result: Value) -> Fallout {
    let record = get(h, name).unwrap();
    let outcome = Outcome { result: Some(result), ..success() };
    let s = Settle { outcome, now: at(5), ..settle(name, record.token.unwrap(), state) };
    fallout(h.one(Op::Settle(Box::new(s))).unwrap())
}

fn succeed(h: &mut dyn Harness, name: &str, result: Value) -> Fallout {
    over(h, name, State::Success, result)
}

fn fail(h: &mut dyn Harness, name: &str) -> Fallout {
    over(h, name, State::Failure, Value::Null)
}

fn seen(h: &mut dyn Harness, name: &str) -> Seen {
    let look = Look { id: id(name), from: 0, limit: 1_000, results: false };
    let Reply::Seen(Some(seen)) = h.ok(Op::Look(look)) else { panic!("no workflow {name}") };
    *seen
}

fn stages(h: &mut dyn Harness, name: &str) -> Vec<Stage> {
    seen(h, name).steps.into_iter().map(|s| s.stage).collect()
}

const WELL: Stage = Stage::Ended(State::Success);

fn flowed(reply: Reply) -> Flowed {
    let Reply::Flowed(flowed) = reply else { panic!("{reply:?}") };
    flowed
}

fn cause(h: &mut dyn Harness, name: &str) -> Cause {
    get(h, name).unwrap().outcome.unwrap().cause
}

/// Sweeps until nothing is left to be told.
fn settle_all(h: &mut dyn Harness) -> Fallout {
    let mut all = Fallout { more: true, ..Fallout::default() };
    let mut rounds = 0;
    while all.more {
        all.more = false;
        let op = Op::Sweep { now: at(6), retention: keep() };
        all.join(fallout(h.one(op).unwrap()));
        rounds += 1;
        assert!(rounds < 10_000, "it never ends");
    }
    all
}

pub fn a_result_goes_before_the_arguments_of_the_next_step(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[0]), Step { immutable: true, ..step(&[1]) }]);
    assert_eq!(taken(h).keys().collect::<Vec<_>>(), [&ids[0]]);
    let told = succeed(h, &ids[0], json!({"n": 1}));
    assert_eq!((told.queues, told.ended.len(), told.over.len()), (vec!["q".to_owned()], 0, 0));
    h.restart();
    assert_eq!(taken(h)[&ids[1]].1, [json!({"n": 1}), json!("own")]);
    succeed(h, &ids[1], json!(2));
    assert_eq!(taken(h)[&ids[2]].1, [json!("own")]);
    assert_eq!(seen(h, "w").head.state(), State::Running);
    let told = succeed(h, &ids[2], json!(3));
    assert_eq!(told.over, [(id("w"), State::Success)]);
    let look = Look { id: id("w"), from: 0, limit: 9, results: true };
    let Reply::Seen(Some(result)) = h.ok(Op::Look(look)) else { panic!() };
    assert_eq!(result.steps.len(), 1);
    assert_eq!(result.steps[0].outcome.as_ref().unwrap().result, Some(json!(3)));
    assert_eq!(h.ok(Op::Look(Look { id: id("x"), from: 0, limit: 1, results: false })), Reply::Seen(None));
}

pub fn a_body_runs_once_with_the_results_in_order(h: &mut dyn Harness) {
    let mut steps = vec![step(&[]); 12];
    steps.push(step(&(0..12).collect::<Vec<_>>()));
    let ids = launch(h, "w", steps);
    taken(h);
    for n in (0..12).rev() {
        assert_eq!(get(h, &ids[12]), None, "the body before its members");
        succeed(h, &ids[n], json!(n));
        // A repeat of the end changes nothing.
        let token = taskd::model::message::Token(n as i64 + 1);
        assert!(!end(h, settle(&ids[n], token, State::Success)).0);
        h.restart();
    }
    let body = taken(h).remove(&ids[12]).unwrap();
    assert_eq!(body.1, [json!((0..12).collect::<Vec<_>>()), json!("own")]);
    assert_eq!(taken(h).len(), 0);
}

pub fn a_list_of_one_is_a_list(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), Step { gather: true, ..step(&[0]) }]);
    taken(h);
    succeed(h, &ids[0], json!("a"));
    assert_eq!(taken(h)[&ids[1]].1, [json!(["a"]), json!("own")]);
}

pub fn a_failed_member_fails_what_comes_after_it(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), step(&[0, 1]), step(&[2]), going_on(&[1, 2])]);
    taken(h);
    let told = fail(h, &ids[0]);
    assert_eq!(told.ended, [(id(&ids[2]), State::Failure), (id(&ids[3]), State::Failure)]);
    assert_eq!(cause(h, &ids[2]), Cause::Upstream { id: id(&ids[0]), step: 0 });
    assert_eq!(cause(h, &ids[3]), Cause::Upstream { id: id(&ids[2]), step: 2 });
    assert_eq!(seen(h, "w").head.state(), State::Running);
    succeed(h, &ids[1], json!(1));
    assert_eq!(taken(h)[&ids[4]].1, [json!([1, null]), json!("own")], "null for what failed");
    let told = succeed(h, &ids[4], json!(0));
    assert_eq!(told.over, [(id("w"), State::Failure)], "step 3 is one of those that give its result");
    let head = seen(h, "w").head;
    assert_eq!((head.open, head.failed, head.lost), (0, 3, 1));
}

pub fn a_handler_of_errors_gets_the_failed_id_and_is_skipped_otherwise(h: &mut dyn Harness) {
    let steps = || vec![step(&[]), step(&[0]), failing(&[0, 1]), step(&[2])];
    let ids = launch(h, "bad", steps());
    taken(h);
    fail(h, &ids[0]);
    let run = taken(h);
    assert_eq!(run.len(), 1, "once, whatever else fails");
    assert_eq!(run[&ids[2]].1, [json!(ids[0]), json!("own")]);
    succeed(h, &ids[2], json!("handled"));
    assert_eq!(taken(h)[&ids[3]].1, [json!("handled"), json!("own")]);
    let ids = launch(h, "good", steps());
    taken(h);
    succeed(h, &ids[0], json!(0));
    taken(h);
    let told = succeed(h, &ids[1], json!(1));
    assert_eq!(stages(h, "good"), [WELL, WELL, Stage::Skipped, Stage::Skipped]);
    assert_eq!(told.over, [(id("good"), State::Success)]);
    assert_eq!(get(h, &ids[2]), None);
}

pub fn whatever_ends_a_member_is_told(h: &mut dyn Harness) {
    let mut member = step(&[]);
    member.message.queue = "aside".to_owned();
    let mut expiring = step(&[]);
    expiring.expires_ms = Some(10);
    for (name, root) in [("revoked", step(&[])), ("purged", member), ("expired", expiring)] {
        let ids = launch(h, name, vec![root, step(&[0])]);
        let told = match name {
            "revoked" => h.one(Op::Revoke { id: id(&ids[0]), now: at(1) }),
            "purged" => h.one(Op::Purge { queue: "aside".to_owned(), now: at(1) }),
            _ => h.one(Op::Sweep { now: at(50), retention: keep() }),
        };
        let told = fallout(told.unwrap());
        assert_eq!(told.ended, [(id(&ids[1]), State::Failure)], "{name}");
        assert_eq!(told.over, [(id(name), State::Failure)], "{name}");
        h.restart();
        assert_eq!(cause(h, &ids[1]), Cause::Upstream { id: id(&ids[0]), step: 0 });
    }
}

pub fn a_known_workflow_is_not_launched_again(h: &mut dyn Harness) {
    launch(h, "w", vec![step(&[])]);
    let Reply::Launched(Some(head)) = h.ok(launch_op(workflow("w", vec![step(&[]); 3]))) else { panic!() };
    assert_eq!((head.steps, head.launched), (1, at(0)));
    assert_eq!(taken(h).len(), 1);
}

pub fn an_id_names_a_message_or_a_workflow(h: &mut dyn Harness) {
    launch(h, "w", vec![step(&[])]);
    let Reply::Published(each) = h.ok(publish(vec![msg("a"), msg("w"), msg("b")])) else { panic!() };
    assert_eq!([&each[0], &each[2]], [&Published::New; 2], "the others of the batch are stored");
    assert!(matches!(&each[1], Published::Workflow(head) if head.id == id("w") && head.steps == 1));
    assert!(get(h, "w").is_none());
    // Bounds and keys are judged on another way to the same answer.
    let bounded = Op::Publish { messages: vec![msg("w")], max_length: vec![Some(9)], now: at(0) };
    assert!(matches!(h.ok(bounded), Reply::Published(each) if matches!(each[0], Published::Workflow(_))));
    h.restart();
    assert!(
        matches!(h.ok(publish(vec![msg("w")])), Reply::Published(e) if matches!(e[0], Published::Workflow(_)))
    );
    let there = h.ok(launch_op(workflow("a", vec![step(&[])])));
    assert!(matches!(there, Reply::Record(Some(r)) if r.message.id == id("a") && r.state == State::Waiting));
    let look = Look { id: id("a"), from: 0, limit: 1, results: false };
    assert_eq!(h.ok(Op::Look(look)), Reply::Seen(None));
    // Also that of one that is over.
    let all = deliveries(h.ok(lease_at(5, 9)));
    let token = all.iter().find(|d| d.message.id == id("a")).unwrap().token;
    h.ok(Op::Settle(Box::new(settle("a", token, State::Success))));
    let there = h.ok(launch_op(workflow("a", vec![step(&[])])));
    assert!(matches!(there, Reply::Record(Some(r)) if r.state == State::Success));
}

/// A message that holds the key `k`, with what follows its end.
fn linked(name: &str, on_conflict: OnConflict) -> Workflow {
    let claim = Claim { key: "k".to_owned(), holds: Holds::Both, period_ms: None, on_conflict };
    let first = Step { message: Message { unique: Some(claim), ..msg(name) }, ..Step::default() };
    Workflow { linked: true, ..workflow(&format!("w-{name}"), vec![first, step(&[0])]) }
}

pub fn a_linked_message_whose_key_is_held_is_answered_as_one_alone(h: &mut dyn Harness) {
    let return_it = |name: &str| launch_op(linked(name, OnConflict::Return));
    assert_eq!(h.ok(return_it("a")), Reply::Published(vec![Published::New]));
    let told = h.ok(return_it("b"));
    assert!(
        matches!(told, Reply::Published(each) if matches!(&each[0], Published::Held(r) if r.message.id == id("a")))
    );
    let told = h.ok(launch_op(linked("c", OnConflict::Error)));
    assert!(matches!(told, Reply::Taken { of, holder, .. } if of == id("c") && holder == id("a")));
    let look = |name: &str| Op::Look(Look { id: id(name), from: 0, limit: 1, results: false });
    for refused in ["w-b", "w-c"] {
        assert_eq!(h.ok(look(refused)), Reply::Seen(None), "nothing of it is stored");
    }
    let told = h.ok(return_it("a"));
    assert!(
        matches!(told, Reply::Published(each) if matches!(&each[0], Published::Known(r) if r.message.id == id("a")))
    );
    let told = h.ok(launch_op(linked("d", OnConflict::Replace)));
    assert_eq!(told, Reply::Published(vec![Published::Replaced(id("a"))]));
    assert_eq!(get(h, "a").unwrap().state, State::Revoked);
    assert_eq!(stages(h, "w-d"), [Stage::Published, Stage::Pending]);
}

pub fn a_full_queue_launches_nothing(h: &mut dyn Harness) {
    let bound = |steps: usize| Op::Launch {
        workflow: Box::new(workflow("w", vec![step(&[]); steps])),
        max_length: BTreeMap::from([("q".to_owned(), 2)]),
        now: at(0),
    };
    let full = Reply::QueueFull { queue: "q".to_owned(), max_length: 2 };
    assert_eq!(h.ok(bound(3)), full);
    assert_eq!(count(h).0, 0);
    assert_eq!(h.ok(bound(2)), Reply::Launched(None));
    assert!(matches!(h.ok(bound(2)), Reply::Launched(Some(_))), "a repeat does not count again");
}

pub fn an_id_that_is_taken_fails_its_step_and_nothing_hangs(h: &mut dyn Harness) {
    let w = workflow("w", vec![step(&[]), step(&[]), step(&[0, 1])]);
    let ids: Vec<String> = w.steps.iter().map(|s| s.message.id.0.clone()).collect();
    h.ok(publish(vec![Message { queue: "elsewhere".to_owned(), ..msg(&ids[0]) }]));
    let told = fallout(h.one(launch_op(w)).unwrap());
    assert_eq!(told.ended, [(id(&ids[0]), State::Failure), (id(&ids[2]), State::Failure)]);
    assert_eq!(get(h, &ids[0]).unwrap().message.queue, "elsewhere");
    taken(h);
    assert_eq!(succeed(h, &ids[1], json!(0)).over, [(id("w"), State::Failure)]);
}

pub fn what_is_too_large_for_a_message_fails_the_body(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), step(&[0, 1]), step(&[0])]);
    taken(h);
    let large = Value::from("x".repeat(MAX_BYTES / 2));
    succeed(h, &ids[0], large.clone());
    let told = succeed(h, &ids[1], large);
    assert_eq!(told.ended, [(id(&ids[2]), State::Failure)]);
    assert_eq!(cause(h, &ids[2]), Cause::Rejected);
    assert_eq!(taken(h)[&ids[3]].1.len(), 2, "alone it fits");
}

pub fn what_takes_long_goes_on_in_sweeps(h: &mut dyn Harness) {
    let mut steps = vec![step(&[])];
    steps.extend((0..2_500).map(|n| if n < 1_500 { step(&[0]) } else { step(&[n]) }));
    let ids = launch(h, "w", steps.clone());
    taken(h);
    let mut told = fail(h, &ids[0]);
    assert!(told.more && told.ended.len() <= 1_000, "{}", told.ended.len());
    h.restart();
    told.join(settle_all(h));
    assert_eq!(told.ended.len(), 2_500);
    assert_eq!(told.over, [(id("w"), State::Failure)]);
    let ids = launch(h, "x", steps);
    taken(h);
    let told = succeed(h, &ids[0], json!(1));
    assert!(told.more);
    // The end of one comes while the others are still being told.
    let first = taken(h).keys().next().unwrap().clone();
    succeed(h, &first, json!(2));
    h.restart();
    settle_all(h);
    assert_eq!(taken(h).len(), 500, "a lease hands out a thousand");
}

pub fn a_member_that_is_retried_revives_what_failed_because_of_it(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), step(&[0, 1]), step(&[2]), going_on(&[0, 1])]);
    taken(h);
    fail(h, &ids[0]);
    fail(h, &ids[1]);
    taken(h);
    let over = succeed(h, &ids[4], json!(0)).over;
    assert_eq!(over, [(id("w"), State::Failure)]);
    h.ok(Op::Requeue { id: id(&ids[0]), now: at(9) });
    // The other one failed too.
    assert_eq!(cause(h, &ids[2]), Cause::Upstream { id: id(&ids[1]), step: 1 });
    assert_eq!(seen(h, "w").head.state(), State::Running);
    taken(h);
    succeed(h, &ids[0], json!("a"));
    h.restart();
    h.ok(Op::Requeue { id: id(&ids[1]), now: at(9) });
    assert_eq!(stages(h, "w"), [WELL, Stage::Published, Stage::Pending, Stage::Pending, WELL]);
    assert_eq!((get(h, &ids[2]), get(h, &ids[3])), (None, None));
    taken(h);
    succeed(h, &ids[1], json!("b"));
    assert_eq!(taken(h)[&ids[2]].1, [json!(["a", "b"]), json!("own")]);
    succeed(h, &ids[2], json!("c"));
    assert_eq!(taken(h)[&ids[3]].1, [json!("c"), json!("own")]);
    assert_eq!(succeed(h, &ids[3], json!("d")).over, [(id("w"), State::Success)]);
}

pub fn a_member_that_is_retried_is_waited_for_again(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), going_on(&[0, 1])]);
    taken(h);
    fail(h, &ids[0]);
    h.ok(Op::Requeue { id: id(&ids[0]), now: at(9) });
    succeed(h, &ids[1], json!(1));
    assert_eq!(get(h, &ids[2]), None, "it waits for the new life");
    taken(h);
    succeed(h, &ids[0], json!(0));
    assert_eq!(taken(h)[&ids[2]].1[0], json!([0, 1]));
}

pub fn what_never_ran_has_no_life_to_repeat(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[0])]);
    taken(h);
    fail(h, &ids[0]);
    let refused = h.one(Op::Requeue { id: id(&ids[1]), now: at(9) });
    assert!(matches!(refused, Err(taskd::model::op::Fault::Refused(_))), "{refused:?}");
    assert_eq!(get(h, &ids[1]).unwrap().state, State::Failure);
}

pub fn a_canceled_workflow_publishes_nothing_more(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), step(&[0, 1]), failing(&[0])]);
    let token = lease(h, 1)[0].token;
    let reply = h.one(Op::CancelFlow { id: id("w"), from: 0, now: at(3) }).unwrap();
    let told = fallout(reply.clone());
    let Reply::With(inner, _) = reply else { panic!() };
    let done = flowed(*inner);
    assert_eq!((done.steps, done.next), (3, None));
    assert_eq!(done.leased, [id(&ids[0])], "the node's to end");
    assert_eq!(told.ended, [(id(&ids[2]), State::Revoked), (id(&ids[3]), State::Revoked)]);
    h.restart();
    let s = Settle { now: at(5), ..settle(&ids[0], token, State::Revoked) };
    assert_eq!(fallout(h.one(Op::Settle(Box::new(s))).unwrap()).over, [(id("w"), State::Revoked)]);
    assert_eq!(stages(h, "w"), [Stage::Ended(State::Revoked); 4]);
    assert_eq!(count(h), (0, 0, 0, 0));
    assert_eq!(flowed(h.ok(Op::CancelFlow { id: id("none"), from: 0, now: at(3) })), Flowed::default());
}

pub fn a_retry_of_a_workflow_keeps_what_succeeded(h: &mut dyn Harness) {
    let ids = launch(h, "w", vec![step(&[]), step(&[]), step(&[0, 1]), step(&[2]), failing(&[2])]);
    taken(h);
    succeed(h, &ids[0], json!("kept"));
    h.ok(Op::CancelFlow { id: id("w"), from: 0, now: at(3) });
    let s = get(h, &ids[1]).unwrap().token.unwrap();
    end(h, settle(&ids[1], s, State::Revoked));
    assert_eq!(seen(h, "w").head.state(), State::Revoked);
    let reply = h.ok(Op::RetryFlow { id: id("w"), from: 0, now: at(9) });
    let done = flowed(reply);
    assert_eq!((done.gone, done.next), (0, None));
    let waiting = [WELL, Stage::Published, Stage::Pending, Stage::Pending, Stage::Pending];
    assert_eq!(stages(h, "w"), waiting);
    h.restart();
    taken(h);
    succeed(h, &ids[1], json!("new"));
    assert_eq!(taken(h)[&ids[2]].1[0], json!(["kept", "new"]));
    fail(h, &ids[2]);
    assert_eq!(taken(h)[&ids[4]].1[0], json!(ids[2]));
    succeed(h, &ids[4], json!(0));
    h.ok(Op::RetryFlow { id: id("w"), from: 0, now: at(9) });
    assert_eq!(stages(h, "w"), [WELL, WELL, Stage::Published, Stage::Pending, WELL]);
    taken(h);
    succeed(h, &ids[2], json!(1));
    taken(h);
    assert_eq!(succeed(h, &ids[3], json!(1)).over, [(id("w"), State::Success)]);
}

pub fn large_workflows_are_canceled_and_retried_in_parts(h: &mut dyn Harness) {
    let mut steps = vec![step(&[]); 1_200];
    steps.push(step(&(0..1_200).collect::<Vec<_>>()));
    let ids = launch(h, "w", steps);
    let parts = |h: &mut dyn Harness, retry: bool| {
        let (mut from, mut n, mut rounds) = (0, 0, 0);
        loop {
            let (name, now) = (id("w"), at(4));
            let op = if retry {
                Op::RetryFlow { id: name, from, now }
            } else {
                Op::CancelFlow { id: name, from, now }
            };
            let done = flowed(h.ok(op));
            (n, rounds) = (n + done.steps, rounds + 1);
            match done.next {
                Some(next) => from = next,
                None => return (n, rounds),
            }
        }
    };
    // The body is revoked with the first member's end.
    assert_eq!(parts(h, false), (1_201, 3));
    assert_eq!(seen(h, "w").head.state(), State::Revoked);
    assert_eq!(parts(h, true).0, 1_201);
    settle_all(h);
    h.restart();
    for _ in 0..2 {
        for (name, _) in taken(h) {
            succeed(h, &name, json!(name));
        }
    }
    assert_eq!(taken(h)[&ids[1_200]].1[0], json!(ids[..1_200]));
}

pub fn a_workflow_is_forgotten_after_its_time(h: &mut dyn Harness) {
    let day = 86_400_000;
    let done = launch(h, "done", vec![step(&[]); 3]);
    taken(h);
    done.iter().for_each(|name| drop(succeed(h, name, json!(1))));
    launch(h, "open", vec![step(&[])]);
    let retention = Retention { age_ms: u64::MAX / 4, count: 1_000, ..keep() };
    sweep_keeping(h, day - 1, retention);
    seen(h, "done");
    let mut more = true;
    while more {
        more = sweep_keeping(h, day + 10, retention).more;
    }
    let look = |name: &str| Op::Look(Look { id: id(name), from: 0, limit: 1, results: false });
    assert_eq!(h.ok(look("done")), Reply::Seen(None));
    assert!(matches!(h.ok(look("open")), Reply::Seen(Some(_))));
    h.restart();
    // Its ids are known longer here: what ran is not run again.
    let again = launch_op(workflow("done", vec![step(&[]); 3]));
    let told = fallout(h.one(again).unwrap());
    assert_eq!(told.over, [(id("done"), State::Success)]);
}

pub fn workflows_of_too_many_steps_go_before_their_time(h: &mut dyn Harness) {
    for n in 0..5 {
        for name in launch(h, &format!("w{n}"), vec![step(&[]); 10]) {
            taken(h);
            succeed(h, &name, json!(1));
        }
    }
    let retention = Retention { age_ms: u64::MAX / 4, count: 2, ..keep() };
    while sweep_keeping(h, 10, retention).more {}
    h.restart();
    for (n, there) in [(0, false), (2, false), (3, true), (4, true)] {
        let look = Op::Look(Look { id: id(&format!("w{n}")), from: 0, limit: 1, results: false });
        assert_eq!(matches!(h.ok(look), Reply::Seen(Some(_))), there, "w{n}");
    }
}

pub fn a_step_may_wait_and_expire(h: &mut dyn Harness) {
    let later = Step { delay_ms: Some(100), expires_ms: Some(50), ..step(&[0]) };
    let ids = launch(h, "w", vec![step(&[]), later]);
    taken(h);
    let told = succeed(h, &ids[0], json!(1));
    assert_eq!(told.next, Some(at(105)));
    let record = get(h, &ids[1]).unwrap();
    assert_eq!((record.state, record.due), (State::Scheduled, Some(at(105))));
    assert_eq!(record.message.expires, Some(Wall(at(155).0)));
}
