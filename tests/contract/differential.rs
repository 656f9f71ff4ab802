//! Random operations, the same answers: the embedded store and the one on Redis against the model, with restarts in
//! between.

use proptest::prelude::*;
use taskd::model::letters::{LetterAct, LetterFilter, LetterStep};
use taskd::model::limit::Take;
use taskd::model::message::{Message, Token};
use taskd::model::name::MessageId;
use taskd::model::op::{Filter, Memo, MemoryRetry, Op, Reply, Retention, Settle, Takes};
use taskd::model::outcome::{Cause, NewCall, Outcome};
use taskd::model::schedule::{Change, Fired, Fires, Overlap, Tick, fire_id};
use taskd::model::state::{self, State};
use taskd::model::unique::{Claim, Holds, OnConflict};
use taskd::model::workflow::{Look, OnError, Step as FlowStep, When, Workflow, mark_sinks};

use crate::harness::*;

/// One step of a run. Tokens are named by how long ago they were given: only a running store knows them.
#[derive(Clone, Debug)]
enum Step {
    Op(Box<Op>),
    /// With the token of the latest lease of this message, or the one before.
    Start(u8, bool, Takes),
    Aside(u8, Option<String>, Vec<Take>),
    Settle {
        m: u8,
        old: bool,
        state: State,
        lost: bool,
        due: i64,
        expires_ms: Option<u64>,
        follow: Vec<u8>,
        /// More memory, and perhaps in another queue.
        memory: Option<Option<String>>,
    },
    Defer {
        m: u8,
        old: bool,
        until: Option<i64>,
        counted: bool,
        lost: bool,
    },
    Move {
        m: u8,
        token: bool,
        unknown: bool,
    },
    Extend(Vec<u8>),
    Restart,
}

/// Ids from here on are those of fires.
const PLAIN: u8 = 24;

const QUEUES: [&str; 3] = ["q", "r", "s"];

fn name(m: u8) -> String {
    if m >= PLAIN {
        return fire(m - PLAIN).0;
    }
    // Every other id is a UUID, which is stored differently.
    if m.is_multiple_of(2) { format!("m{m}") } else { format!("0198f1a2-7b3c-7d4e-8f50-0000000000{m:02x}") }
}

fn queue() -> impl Strategy<Value = String> {
    (0..QUEUES.len()).prop_map(|n| QUEUES[n].to_owned())
}

fn message() -> impl Strategy<Value = Message> {
    let maybe = || proptest::option::weighted(0.3, 0..400_i64);
    let claim = (0..3_u8, 0..3_usize, 0..3_usize, proptest::option::of(0..300_u64));
    let claim = proptest::option::weighted(0.5, claim);
    (0..24_u8, queue(), 0..=9_u8, maybe(), maybe(), 0..400_i64, any::<bool>(), (claim, lane())).prop_map(
        |(m, queue, priority, eta, expires, enqueued, long, (claim, lane))| Message {
            unique: claim.map(|(key, holds, on_conflict, period_ms)| Claim {
                key: format!("key{key}"),
                holds: [Holds::Queued, Holds::Running, Holds::Both][holds],
                on_conflict: [OnConflict::Return, OnConflict::Error, OnConflict::Replace][on_conflict],
                period_ms,
            }),
            queue,
            lane,
            priority,
            task: format!("t{}", m % 3),
            eta: eta.map(at),
            expires: expires.map(at),
            enqueued: at(enqueued),
            uid: (m % 5 != 0).then_some(u32::from(m % 4)),
            args: vec![serde_json::json!(if long { "x".repeat(2_000) } else { String::new() })],
            ..msg(&name(m))
        },
    )
}

fn lane() -> impl Strategy<Value = Option<String>> {
    proptest::option::weighted(0.6, 0..4_u8)
        .prop_map(|n| n.map(|n| if n == 0 { String::new() } else { format!("u={n}") }))
}

/// Limits of whole tasks and of single values, some of which are soon used up.
fn takes() -> impl Strategy<Value = Vec<Take>> {
    let key = |n: u8, kind: &str| match n {
        0 => format!("{kind}:task:t0"),
        n => format!("{kind}:task:t0 u={n}"),
    };
    let rate = (0..3_u8, 1..3_u32).prop_map(move |(n, burst)| Take::Rate {
        key: key(n, "rate"),
        interval_us: 20_000,
        burst,
    });
    let place = (0..3_u8, 1..3_u32).prop_map(move |(n, limit)| Take::Place { key: key(n, "run"), limit });
    (proptest::option::of(rate), proptest::option::of(place))
        .prop_map(|(rate, place)| rate.into_iter().chain(place).collect())
}

fn one_rate(m: u8) -> Vec<Take> {
    vec![Take::Rate { key: format!("rate:task:t0 u={}", m % 3), interval_us: 20_000, burst: 1 }]
}

fn memo() -> impl Strategy<Value = Memo> {
    (0..4_usize, proptest::option::of(0..3_u8)).prop_map(|(key, value)| Memo {
        key: ["k0", "k1", "k1a", "l"][key].to_owned(),
        value: value.map(|n| n.to_string()),
    })
}

/// Ids are those of the store: the fires of a few schedules, and of a few planned times.
fn fire(n: u8) -> MessageId {
    fire_id(&format!("s{}", n % 2), at(i64::from(n / 2 % 5)), u32::from(n / 10))
}

fn tick() -> impl Strategy<Value = Op> {
    let days = prop_oneof![4 => Just(0_i64), 1 => Just(3 * 86_400_000_i64)];
    let overlap =
        (0..4_usize).prop_map(|n| [Overlap::Skip, Overlap::Queue, Overlap::Allow, Overlap::Replace][n]);
    let bounds = (proptest::option::weighted(0.2, 1..4_u32), proptest::option::weighted(0.1, 0..5_u64));
    let fires = (message(), proptest::option::weighted(0.5, workflow()));
    (0..2_u8, 0..5_i64, days, fires, overlap, bounds, 0..400_i64).prop_map(
        |(s, planned, days, (message, workflow), overlap, (pause_after, max_length), now)| {
            let message = || Fires::Message(Box::new(Message { eta: None, ..message.clone() }));
            Op::Tick(Box::new(Tick {
                schedule: format!("s{s}"),
                planned: at(planned + days),
                fires: workflow.map_or_else(message, |w| Fires::Workflow(Box::new(w))),
                overlap,
                pause_after,
                max_length: max_length.into_iter().flat_map(|n| QUEUES.map(|q| (q.to_owned(), n))).collect(),
                now: at(now),
            }))
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    (0..2_u8, 0..5_u8, any::<bool>(), -2..6_i64).prop_map(|(s, kind, paused, ms)| {
        let name = format!("s{s}");
        match kind {
            0 => Change::Plan { name, rule: if paused { "a" } else { "" }.to_owned(), until: at(ms) },
            1 => Change::Missed { name, until: at(ms) },
            2 => Change::Pause { name, paused: paused && ms > 3, until: at(ms) },
            3 => Change::Rewind { name, to: at(ms) },
            _ => Change::Forget { name },
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let ms = || (-100..400_i64).prop_map(at);
    let mid = || (0..44_u8).prop_map(|m| id(&name(m)));
    let filter = (
        proptest::collection::vec(0..state::ALL.len(), 0..3),
        proptest::option::of(0..3_u8),
        proptest::option::of(queue()),
        proptest::option::of(0..400_i64),
        proptest::option::of(0..4_u32),
        0..20_u32,
    );
    prop_oneof![
        6 => (proptest::collection::vec(message(), 1..4), proptest::option::weighted(0.3, 0..6_u64), ms()).prop_map(
            |(messages, bound, now)| {
                let max_length = bound.map_or_else(Vec::new, |b| messages.iter().map(|_| Some(b)).collect());
                Op::Publish { messages, max_length, now }
            }
        ),
        8 => (queue(), 1..6_u32, ms(), proptest::option::weighted(0.2, 0..3_u8)).prop_map(|(queue, credit, now, skip)| {
            Op::Lease { queue, credit, now, skip: skip.map(|t| format!("t{t}")).into_iter().collect() }
        }),
        1 => (mid(), ms()).prop_map(|(id, now)| Op::Revoke { id, now }),
        1 => (mid(), ms()).prop_map(|(id, now)| Op::Requeue { id, now }),
        1 => mid().prop_map(|id| Op::Get { id }),
        1 => filter.prop_map(|(states, task, queue, since, uid, limit)| Op::List(Filter {
            states: states.into_iter().map(|s| state::ALL[s]).collect(),
            task: task.map(|t| format!("t{t}")),
            queue,
            since: since.map(at),
            uid,
            letters: None,
            limit,
        })),
        1 => (queue(), ms()).prop_map(|(queue, now)| Op::Purge { queue, now }),
        1 => (proptest::collection::vec(0..4_u8, 0..3), ms()).prop_map(|(tasks, now)| Op::Known {
            // 3 is a pattern over all of them.
            tasks: tasks.into_iter().map(|t| if t == 3 { "t*".to_owned() } else { format!("t{t}") }).collect(),
            now
        }),
        3 => (ms(), prop_oneof![Just(86_400_000_i64), 0..400_i64], 0..400_u64, 0..6_u64, 0..3_u8).prop_map(
            |(now, later, age_ms, count, far)| Op::Sweep {
                now: if far == 0 { at(now.0 - T0 + later) } else { now },
                retention: Retention { age_ms, count, dead_age_ms: age_ms + 50, dead_count: count + 1 },
            }
        ),
        2 => letters().prop_map(|step| Op::Letters(Box::new(step))),
        1 => Just(Op::Recover),
        1 => (queue(), any::<bool>()).prop_map(|(queue, paused)| Op::QueueState { queue, paused }),
        1 => proptest::option::of(0..3_u8).prop_map(|task| Op::Open { task: task.map(|t| format!("t{t}")) }),
        1 => proptest::collection::vec(memo(), 1..3).prop_map(Op::Remember),
        1 => (0..3_u8, 0..3_u8).prop_map(|(prefix, after)| Op::Recall {
            prefix: ["", "k", "k1"][usize::from(prefix)].to_owned(),
            after: ["", "k0", "k1a"][usize::from(after)].to_owned(),
        }),
        6 => tick(),
        1 => proptest::collection::vec(change(), 1..3).prop_map(Op::Schedule),
        1 => (0..3_u8).prop_map(|after| Op::Schedules { after: ["", "s0", "s1"][usize::from(after)].to_owned() }),
    ]
}

fn letters() -> impl Strategy<Value = LetterStep> {
    let ms = || (-100..400_i64).prop_map(at);
    let ids = proptest::collection::vec((0..24_u8).prop_map(|m| id(&name(m))), 1..4);
    let filter = (
        any::<bool>(),
        proptest::option::weighted(
            0.3,
            (0..4_u8).prop_map(|t| if t == 3 { "t*".to_owned() } else { format!("t{t}") }),
        ),
        proptest::option::weighted(0.2, queue()),
        proptest::option::weighted(0.2, ms()),
        proptest::option::weighted(0.2, ms()),
        proptest::option::weighted(0.2, ids),
    );
    let retry = (proptest::option::of(ms()), proptest::option::of(queue()));
    let act = prop_oneof![
        Just(LetterAct::Count),
        Just(LetterAct::Purge),
        retry.prop_map(|(due, queue)| LetterAct::Retry { due, queue }),
    ];
    (filter, act, prop_oneof![Just(u64::MAX), 0..3_u64], ms()).prop_map(|(filter, act, most, now)| {
        let (failed, task, queue, since, until, ids) = filter;
        let mut ids = ids.unwrap_or_default();
        ids.sort();
        ids.dedup();
        let filter = LetterFilter { failed, task, queue, since, until, cause: None, ids };
        LetterStep { filter, act, from: None, most, now }
    })
}

/// A workflow whose steps have ids of the other messages', so that they meet.
fn workflow() -> impl Strategy<Value = Workflow> {
    let step = (
        0..24_u8,
        queue(),
        any::<[bool; 5]>(),
        any::<[bool; 3]>(),
        proptest::option::weighted(0.2, 0..99_u64),
    );
    (0..4_u8, proptest::collection::vec(step, 1..6), 0..400_u64).prop_map(|(w, drawn, keep_ms)| {
        let steps = (0_u32..).zip(drawn).map(|(no, (m, queue, after, kind, delay_ms))| {
            let after: Vec<u32> =
                (0_u32..).zip(after).filter(|(n, yes)| *yes && *n < no).map(|(n, _)| n).collect();
            FlowStep {
                message: Message { queue, ..msg(&name(m)) },
                when: if kind[0] && kind[1] && !after.is_empty() { When::Failure } else { When::Success },
                on_error: if kind[1] { OnError::Continue } else { OnError::Fail },
                immutable: kind[2],
                delay_ms,
                after,
                ..FlowStep::default()
            }
        });
        let mut steps: Vec<FlowStep> = steps.collect();
        mark_sinks(&mut steps);
        Workflow { keep_ms, linked: w == 2, ..Workflow::new(flow(w), "drawn", Some(1), steps).unwrap() }
    })
}

/// Those that clients launch, the last of which has the id of a message, and those that schedules may.
fn flow(w: u8) -> MessageId {
    match w {
        3 => id(&name(23)),
        0..=2 => id(&name(100 + w)),
        _ => fire(w - 4),
    }
}

/// What is asked of workflows.
fn flow_op() -> impl Strategy<Value = Op> {
    let ms = || (-100..400_i64).prop_map(at);
    prop_oneof![
        4 => (workflow(), proptest::option::weighted(0.3, 0..4_u64), ms(), proptest::option::weighted(0.3, 0..2_u8)).prop_map(|(w, bound, now, by)| {
            let by = by.map(|s| Fired { schedule: format!("s{s}"), planned: None, held: false });
            let w = Workflow { fired: by, ..w };
            let max_length = bound.map(|b| ("q".to_owned(), b)).into_iter().collect();
            Op::Launch { workflow: Box::new(w), max_length, now }
        }),
        2 => (0..24_u8, ms()).prop_map(|(w, now)| Op::CancelFlow { id: flow(w), from: 0, now }),
        3 => (0..24_u8, ms()).prop_map(|(w, now)| Op::RetryFlow { id: flow(w), from: 0, now }),
        2 => (0..24_u8, 0..3_u32, any::<bool>()).prop_map(|(w, from, results)| {
            Op::Look(Look { id: flow(w), from, limit: 9, results })
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop_oneof![
        Just(State::Success),
        Just(State::Failure),
        Just(State::Revoked),
        Just(State::Dead),
        Just(State::Retry),
        Just(State::Retry),
        Just(State::Waiting),
    ];
    let old = || proptest::bool::weighted(0.1);
    let settle = (
        0..44_u8,
        old(),
        ends,
        any::<bool>(),
        0..400_i64,
        proptest::option::of(0..400_u64),
        proptest::collection::vec(0..24_u8, 0..3),
        proptest::option::weighted(0.3, proptest::option::of(queue())),
    );
    prop_oneof![
        12 => op().prop_map(|op| Step::Op(Box::new(op))),
        4 => flow_op().prop_map(|op| Step::Op(Box::new(op))),
        9 => (0..44_u8, old(), takes(), any::<bool>())
            .prop_map(|(m, old, list, sure)| Step::Start(m, old, Takes { list, sure })),
        4 => (0..44_u8, lane(), takes()).prop_map(|(m, lane, blocked)| Step::Aside(m, lane, blocked)),
        9 => settle.prop_map(|(m, old, state, lost, due, expires_ms, follow, memory)| {
            Step::Settle { m, old, state, lost, due, expires_ms, follow, memory }
        }),
        3 => (0..44_u8, old(), proptest::option::of(0..400_i64), any::<bool>(), any::<bool>())
            .prop_map(|(m, old, until, counted, lost)| Step::Defer { m, old, until, counted, lost }),
        2 => (0..44_u8, any::<bool>(), any::<bool>())
            .prop_map(|(m, token, unknown)| Step::Move { m, token, unknown }),
        1 => proptest::collection::vec(0..24_u8, 0..4).prop_map(Step::Extend),
        1 => Just(Step::Restart),
    ]
}

/// The latest two tokens of each message.
#[derive(Default)]
struct Tokens(std::collections::BTreeMap<String, (Token, Token)>);

impl Tokens {
    fn of(&self, m: u8, old: bool) -> Token {
        let (latest, before) = self.0.get(&name(m)).copied().unwrap_or((Token(0), Token(0)));
        if old { before } else { latest }
    }

    fn learn(&mut self, answer: &Answer) {
        if let Ok(Reply::Deliveries(deliveries) | Reply::Leased { deliveries, .. }) = answer {
            for d in deliveries {
                let tokens = self.0.entry(d.message.id.0.clone()).or_insert((Token(0), Token(0)));
                if tokens.0 != d.token {
                    *tokens = (d.token, tokens.0);
                }
            }
        }
    }
}

fn op_of(step: Step, tokens: &Tokens, now: i64) -> Option<Op> {
    let now = at(now);
    Some(match step {
        Step::Restart => return None,
        Step::Op(op) => *op,
        Step::Start(m, old, takes) => Op::Start { id: id(&name(m)), token: tokens.of(m, old), now, takes },
        Step::Aside(m, lane, blocked) => {
            Op::Aside { id: id(&name(m)), token: tokens.of(m, false), lane, blocked, now }
        }
        Step::Settle { m, old, state, lost, due, expires_ms, follow, memory } => {
            Op::Settle(Box::new(Settle {
                memory: memory.map(|queue| MemoryRetry { queue }),
                call: (m % 5 == 1).then(|| Box::new(NewCall { args: vec![m.into()], ..NewCall::default() })),
                due: (due % 7 != 0).then_some(at(due)),
                lost,
                expires_ms,
                follow_ups: follow.into_iter().map(|f| msg(&name(f))).collect(),
                takes: one_rate(m),
                memos: vec![Memo { key: "k1".to_owned(), value: Some(m.to_string()) }],
                outcome: Outcome {
                    result: (m % 3 > 0).then(|| serde_json::json!({"n": m})),
                    ..Outcome::of_cause(Cause::Exit { code: i32::from(m) }, "it ended")
                },
                now,
                ..settle(&name(m), tokens.of(m, old), state)
            }))
        }
        Step::Defer { m, old, until, counted, lost } => Op::Defer {
            id: id(&name(m)),
            token: tokens.of(m, old),
            until: until.map(at),
            counted,
            lost,
            now,
            takes: one_rate(m),
        },
        Step::Move { m, token, unknown } => {
            Op::Move { id: id(&name(m)), token: token.then(|| tokens.of(m, false)), unknown, now }
        }
        Step::Extend(ms) => {
            Op::Extend { leases: ms.into_iter().map(|m| (id(&name(m)), tokens.of(m, false))).collect() }
        }
    })
}

fn everything() -> Filter {
    Filter { limit: 10_000, ..Filter::default() }
}

fn compare(mut store: impl Harness, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = InMemory::new();
    let mut tokens = Tokens::default();
    for (now, step) in (0..).zip(steps) {
        let Some(op) = op_of(step.clone(), &tokens, now) else {
            store.restart();
            continue;
        };
        let (expected, answer) = (model.one(op.clone()), store.one(op));
        tokens.learn(&expected);
        prop_assert_eq!(&answer, &expected, "to {:?}", step);
    }
    for m in 0..44 {
        let op = Op::Get { id: id(&name(m)) };
        prop_assert_eq!(store.one(op.clone()), model.one(op));
    }
    for w in 0..24 {
        let op = Op::Look(Look { id: flow(w), from: 0, limit: 99, results: false });
        prop_assert_eq!(store.one(op.clone()), model.one(op));
    }
    for op in [Op::Count, Op::Recover, Op::List(everything()), Op::Schedules { after: String::new() }] {
        prop_assert_eq!(store.one(op.clone()), model.one(op));
    }
    Ok(())
}

/// Runs of this many cases; `CASES=n` for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_store_answers_as_the_model(steps in proptest::collection::vec(step(), 1..150)) {
        compare(Embedded::fast(), steps)?;
    }

    #[test]
    fn the_store_on_redis_answers_as_the_model(steps in proptest::collection::vec(step(), 1..150)) {
        compare(crate::redis::Shared::new(), steps)?;
    }
}
