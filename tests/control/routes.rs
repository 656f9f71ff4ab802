//! Every route: who may use it, what becomes of it, what is refused.

use std::sync::Arc;

use serde_json::json;
use taskd::config::settings::Access;
use taskd::control::access::{Policy, Resolver};
use taskd::control::api::{
    Answer, DeadBody, DeadQuery, Enqueue, ErrorKind, Exported, ListQuery, NotifyBody, Peer, RateBody, Request,
};
use taskd::control::route::{Found, ROUTES, find};
use taskd::control::server::Limits;
use taskd::model::notice::Kind;

use crate::fake::{Fake, nobody_but, own_uid};

struct Names;

impl Resolver for Names {
    fn uid(&self, user: &str) -> Option<u32> {
        ["owner", "reader", "enqueuer", "allowed", "admin"]
            .iter()
            .position(|n| *n == user)
            .map(|at| 1000 + u32::try_from(at).unwrap())
    }

    fn gid(&self, _: &str) -> Option<u32> {
        None
    }
}

fn named(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// For every route the roles that may use it, said a second time: a change of the table must be meant.
const MAY: &[(&str, &[&str])] = &[
    ("enqueue", &["enqueuer", "allowed", "admin"]),
    ("result", &["reader", "enqueuer", "allowed", "admin"]),
    ("message", &["reader", "enqueuer", "allowed", "admin"]),
    ("logs", &["reader", "enqueuer", "allowed", "admin"]),
    ("why", &["reader", "enqueuer", "allowed", "admin"]),
    ("cancel", &["reader", "enqueuer", "allowed", "admin"]),
    ("retry", &["reader", "enqueuer", "allowed", "admin"]),
    ("list", &["reader", "admin"]),
    ("dead", &["reader", "admin"]),
    ("dead_export", &["reader", "admin"]),
    ("dead_retry", &["admin"]),
    ("dead_purge", &["admin"]),
    ("launch", &["enqueuer", "allowed", "admin"]),
    ("workflows", &["reader", "admin"]),
    ("show", &["reader", "enqueuer", "allowed", "admin"]),
    ("cancel_workflow", &["reader", "enqueuer", "allowed", "admin"]),
    ("retry_workflow", &["reader", "enqueuer", "allowed", "admin"]),
    ("status", &["reader", "admin"]),
    ("queues", &["reader", "admin"]),
    ("tasks", &["reader", "admin"]),
    ("task_rate", &["reader", "admin"]),
    ("set_task_rate", &["admin"]),
    ("queue_rate", &["reader", "admin"]),
    ("set_queue_rate", &["admin"]),
    ("pause", &["admin"]),
    ("resume", &["admin"]),
    ("purge", &["admin"]),
    ("schedules", &["reader", "admin"]),
    ("next", &["reader", "admin"]),
    ("next_of_schedule", &["reader", "admin"]),
    ("run_schedule", &["enqueuer", "allowed", "admin"]),
    ("pause_schedule", &["admin"]),
    ("resume_schedule", &["admin"]),
    ("rewind_schedule", &["admin"]),
    ("notify", &["admin"]),
    ("reload", &["admin"]),
    ("drain", &["admin"]),
    ("stop", &["admin"]),
    ("backup", &["admin"]),
    ("verify", &["admin"]),
    ("export", &["admin"]),
    ("import", &["admin"]),
];

#[test]
fn every_route_lets_in_exactly_its_roles() {
    let access = Access {
        read: named("reader"),
        enqueue: named("enqueuer"),
        admin: named("admin"),
        celery_control: Default::default(),
    };
    let allow = named("allowed");
    let policy = Policy::new(&access, [allow.as_slice()], 1000, &Names);
    assert_eq!(ROUTES.len(), MAY.len());
    for route in ROUTES {
        let (_, may) = MAY.iter().find(|(name, _)| *name == route.name).expect(route.name);
        for role in ["root", "owner", "reader", "enqueuer", "allowed", "admin", "stranger"] {
            let uid = if role == "root" { 0 } else { Names.uid(role).unwrap_or(4242) };
            // Groups with the numbers of the users: they must not open anything.
            let peer = Peer { uid, gid: 1004, groups: vec![0, 1000, 1001, 1002, 1003], pid: 1 };
            let rights = policy.rights(&peer);
            let expected = matches!(role, "root" | "owner") || may.contains(&role);
            assert_eq!(route.need.permits(&policy, &peer, &rights), expected, "{role}: {}", route.name);
        }
    }
}

fn echo() -> Fake {
    Fake::start(Limits::default(), |_| Some(Answer::Json("null".into())))
}

fn rate(name: &str, queue: bool, set: Option<(&str, Option<u32>)>) -> Request {
    let body = set.map(|(rate, burst)| RateBody { rate: rate.into(), burst, keep: false });
    Request::Rate { name: name.into(), queue, body }
}

#[test]
fn every_route_reaches_the_handler_as_what_was_asked() {
    let fake = echo();
    let message = || Enqueue { task: "mail".into(), ..Enqueue::default() };
    let exported = Exported { v: 1, message: json!({"id": "i"}), attempt: 2 };
    let cases: Vec<(&str, &str, String, Request)> = vec![
        ("POST", "/v1/messages", json!({"task": "mail"}).to_string(), Request::Enqueue(vec![message()])),
        (
            "POST",
            "/v1/messages",
            json!([{"task": "mail"}, {"task": "b", "id": "x", "args": [1, "\u{1f600}"], "kwargs": {"k": null},
                "queue": "q", "priority": 9, "eta": 5, "expires": 6, "headers": {"h": 1}}])
            .to_string(),
            Request::Enqueue(vec![
                message(),
                Enqueue {
                    task: "b".into(),
                    id: Some("x".into()),
                    args: vec![json!(1), json!("\u{1f600}")],
                    kwargs: json!({"k": null}).as_object().unwrap().clone(),
                    queue: Some("q".into()),
                    priority: Some(9),
                    delay_ms: None,
                    eta: Some(5),
                    expires: Some(6),
                    headers: json!({"h": 1}).as_object().unwrap().clone(),
                    ..Enqueue::default()
                },
            ]),
        ),
        (
            "POST",
            "/v1/workflows",
            json!({"id": "w", "chain": [{"task": "a"}, {"group": [{"task": "b", "args": [1]}]}]}).to_string(),
            Request::Launch(Box::new(
                serde_json::from_value(
                    json!({"id": "w", "chain": [{"task": "a"}, {"group": [{"task": "b", "args": [1]}]}]}),
                )
                .unwrap(),
            )),
        ),
        (
            "GET",
            "/v1/workflows/w?from=3&limit=9&results",
            String::new(),
            Request::Show { id: "w".into(), from: 3, limit: 9, results: true },
        ),
        ("GET", "/v1/workflows", String::new(), Request::Workflows),
        ("POST", "/v1/workflows/w/cancel", String::new(), Request::CancelWorkflow { id: "w".into() }),
        ("POST", "/v1/workflows/w/retry", String::new(), Request::RetryWorkflow { id: "w".into() }),
        ("GET", "/v1/messages/i-1", String::new(), Request::Message { id: "i-1".into() }),
        ("GET", "/v1/messages/i/result", String::new(), Request::Result { id: "i".into(), wait_ms: 0 }),
        (
            "GET",
            "/v1/messages/i/result?wait_ms=99999999",
            String::new(),
            Request::Result { id: "i".into(), wait_ms: 60_000 },
        ),
        ("GET", "/v1/messages/i/logs", String::new(), Request::Logs { id: "i".into(), follow: false }),
        ("GET", "/v1/messages/i/logs?follow", String::new(), Request::Logs { id: "i".into(), follow: true }),
        ("GET", "/v1/messages/i/why", String::new(), Request::Why { id: "i".into() }),
        ("POST", "/v1/messages/i/cancel", String::new(), Request::Cancel { id: "i".into() }),
        ("POST", "/v1/messages/i/retry", String::new(), Request::Retry { id: "i".into() }),
        ("GET", "/v1/messages", String::new(), Request::List(ListQuery::default())),
        (
            "GET",
            "/v1/messages?state=failure%2C+DEAD&task=a.b&queue=q&since=-5&limit=10000",
            String::new(),
            Request::List(ListQuery {
                state: Some("failure, DEAD".into()),
                task: Some("a.b".into()),
                queue: Some("q".into()),
                since: Some(-5),
                limit: Some(10_000),
            }),
        ),
        (
            "GET",
            "/v1/dead?failed=true&task=shop.%2A&cause=exit&until=7&limit=5",
            String::new(),
            Request::Dead(DeadQuery {
                failed: true,
                task: Some("shop.*".into()),
                cause: Some("exit".into()),
                until: Some(7),
                limit: Some(5),
                ..DeadQuery::default()
            }),
        ),
        ("GET", "/v1/dead/export", String::new(), Request::DeadExport(DeadQuery::default())),
        (
            "POST",
            "/v1/dead/retry",
            json!({"dry": true, "to_queue": "q", "delay_ms": 5}).to_string(),
            Request::DeadRetry(DeadBody {
                dry: true,
                to_queue: Some("q".into()),
                delay_ms: Some(5),
                ..DeadBody::default()
            }),
        ),
        (
            "POST",
            "/v1/dead/purge",
            json!({"ids": ["i"]}).to_string(),
            Request::DeadPurge(DeadBody { ids: vec!["i".into()], ..DeadBody::default() }),
        ),
        ("GET", "/v1/status", String::new(), Request::Status),
        ("GET", "/v1/queues", String::new(), Request::Queues),
        ("GET", "/v1/tasks", String::new(), Request::Tasks),
        ("GET", "/v1/tasks/t/rate", String::new(), rate("t", false, None)),
        ("POST", "/v1/tasks/t/rate", json!({"rate": "none"}).to_string(), rate("t", false, Some(("none", None)))),
        ("GET", "/v1/queues/q/rate", String::new(), rate("q", true, None)),
        (
            "POST",
            "/v1/queues/q/rate",
            json!({"rate": "5/s", "burst": 2, "keep": false}).to_string(),
            rate("q", true, Some(("5/s", Some(2)))),
        ),
        ("POST", "/v1/queues/q/pause", String::new(), Request::Pause { queue: "q".into(), paused: true }),
        ("POST", "/v1/queues/q/resume", String::new(), Request::Pause { queue: "q".into(), paused: false }),
        ("POST", "/v1/queues/q/purge", String::new(), Request::Purge { queue: "q".into() }),
        ("GET", "/v1/schedules", String::new(), Request::Schedules),
        ("GET", "/v1/schedules/next", String::new(), Request::Planned { name: None, most: 20 }),
        ("GET", "/v1/schedules/s/next?n=3", String::new(), Request::Planned { name: Some("s".into()), most: 3 }),
        ("POST", "/v1/schedules/s/run", String::new(), Request::RunSchedule { name: "s".into(), id: None }),
        (
            "POST",
            "/v1/schedules/s/run",
            json!({"id": "i"}).to_string(),
            Request::RunSchedule { name: "s".into(), id: Some("i".into()) },
        ),
        ("POST", "/v1/schedules/s/pause", String::new(), Request::PauseSchedule { name: "s".into(), paused: true }),
        ("POST", "/v1/schedules/s/resume", String::new(), Request::PauseSchedule { name: "s".into(), paused: false }),
        (
            "POST",
            "/v1/schedules/s/rewind",
            json!({"to": 5}).to_string(),
            Request::Rewind { name: "s".into(), to: 5, dry: false },
        ),
        (
            "POST",
            "/v1/notify",
            json!({"task": "t", "kind": "dead"}).to_string(),
            Request::Notify(NotifyBody { task: "t".into(), kind: Kind::Dead }),
        ),
        ("POST", "/v1/reload", String::new(), Request::Reload { binary: false }),
        ("POST", "/v1/reload", json!({"binary": true}).to_string(), Request::Reload { binary: true }),
        ("POST", "/v1/drain", String::new(), Request::Drain { off: false }),
        ("POST", "/v1/drain", json!({"off": true}).to_string(), Request::Drain { off: true }),
        ("POST", "/v1/stop", String::new(), Request::Stop { now: false }),
        ("POST", "/v1/stop", json!({"now": true}).to_string(), Request::Stop { now: true }),
        ("GET", "/v1/store/backup", String::new(), Request::Backup),
        ("POST", "/v1/store/verify", String::new(), Request::Verify),
        ("GET", "/v1/store/export", String::new(), Request::Export { leave_workflows: false }),
        ("GET", "/v1/store/export?leave_workflows=true", String::new(), Request::Export { leave_workflows: true }),
        (
            "POST",
            "/v1/store/import",
            serde_json::to_string(&[&exported]).unwrap(),
            Request::Import(vec![exported]),
        ),
    ];
    for route in ROUTES {
        let asked = cases.iter().any(|(method, path, _, _)| {
            matches!(find(method, path.split('?').next().unwrap()), Found::Route(r, _) if r.name == route.name)
        });
        assert!(asked, "{} is not asked", route.name);
    }
    // All on one connection: every answer leaves it in order.
    let mut bare = fake.connect();
    for (method, path, body, request) in cases {
        bare.ask(method, path, body.as_bytes());
        let reply = bare.reply().expect(path);
        assert_eq!((reply.status, reply.body.as_str()), (200, "null"), "{path}");
        assert_eq!(fake.seen.lock().unwrap().pop(), Some(request), "{path}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_the_handler() {
    let fake = echo();
    let deep = format!("{{\"task\":\"t\",\"args\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let many = format!("[{}]", vec!["{\"task\":\"t\"}"; 10_001].join(","));
    let cases: &[(&str, &str, &str, &str)] = &[
        ("POST", "/v1/messages", "", "no body"),
        ("POST", "/v1/messages", "{", "not what is expected"),
        ("POST", "/v1/messages", "{}", "missing field `task`"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"cron\":1}", "unknown field `cron`"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"task\":\"u\"}", "duplicate field"),
        ("POST", "/v1/messages", "{\"task\":\"../t\"}", "the task name"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"id\":\"a b\"}", "the id"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"queue\":\"\"}", "the queue name"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"priority\":10}", "priority 10"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"eta\":1,\"delay_ms\":1}", "exclude each other"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"eta\":2,\"expires\":2}", "expire before"),
        ("POST", "/v1/messages", "[{\"task\":\"t\"},{\"task\":\"\"}]", "message 1: the task name"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"args\":[NaN]}", "not what is expected"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"args\":[1e999]}", "out of range"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"args\":[18446744073709551617]}", "64 bits"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"args\":[-9223372036854775809]}", "64 bits"),
        ("POST", "/v1/messages", "{\"task\":\"t\",\"args\":[\"\\ud800\"]}", "not what is expected"),
        ("POST", "/v1/messages", &deep, "nests deeper"),
        ("POST", "/v1/tasks/t/rate", "{}", "missing field `rate`"),
        ("POST", "/v1/tasks/t/rate", "{\"rate\":\"1/s\",\"burst\":0}", "burst"),
        ("POST", "/v1/messages", &many, "more than 10000"),
        ("GET", "/v1/schedules/next?n=0", "", "n=0"),
        ("GET", "/v1/schedules/next?n=1001", "", "n=1001"),
        ("POST", "/v1/schedules/s/run", "{\"id\":\"a b\"}", "the id"),
        ("POST", "/v1/schedules/s/rewind", "", "no body"),
        ("GET", "/v1/messages/..%2F..", "", "the name"),
        ("GET", "/v1/messages/a%00", "", "the name"),
        ("GET", "/v1/messages?state=failed", "", "not a state"),
        ("GET", "/v1/messages?limit=0", "", "limit is 1"),
        ("GET", "/v1/messages?limit=10001", "", "limit is 1"),
        ("GET", "/v1/messages?limit=x", "", "whole number"),
        ("GET", "/v1/messages?task=%ff", "", "percent-encoded"),
        ("GET", "/v1/messages?task=%zz", "", "percent-encoded"),
        ("GET", "/v1/messages?limit=1&limit=2", "", "twice"),
        ("GET", "/v1/status?callback=x", "", "unknown query parameter"),
        ("GET", "/v1/messages/i/logs?follow=maybe", "", "neither true nor false"),
        ("POST", "/v1/stop", "{\"now\":1}", "not what is expected"),
        ("POST", "/v1/store/import", "{}", "an array"),
    ];
    for (method, path, body, why) in cases {
        let reply = fake.ask(method, path, body.as_bytes());
        assert_eq!(reply.status, 400, "{path} {body:.80}: {reply:?}");
        let error = reply.error();
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert!(error.message.contains(why), "{why}: {error}");
    }
    for number in ["18446744073709551615", "-9223372036854775808", "1.8446744073709551617e19", "-0"] {
        let body = format!("{{\"task\":\"t\",\"args\":[{number},\"99999999999999999999 [[[\\\"\"]}}");
        assert_eq!(fake.ask("POST", "/v1/messages", body.as_bytes()).status, 200, "{number}");
    }
    assert_eq!(fake.seen.lock().unwrap().len(), 4);
}

#[test]
fn what_is_not_in_the_table_does_not_exist() {
    let fake = echo();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/messages/i/logs/x", 404),
        ("GET", "/v1/../v1/status", 404),
        ("GET", "/V1/status", 404),
        ("GET", "//v1/status", 404),
        ("HEAD", "/v1/status", 405),
        ("DELETE", "/v1/messages/i", 405),
        ("GET", "/v1/stop", 405),
        ("OPTIONS", "/v1/messages", 405),
    ] {
        let mut bare = fake.connect();
        bare.ask(method, path, b"");
        if method == "HEAD" {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut bare.0, &mut line).unwrap();
            assert!(line.contains("405"), "{line}");
            continue;
        }
        let reply = bare.reply().unwrap();
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.error().kind, ErrorKind::BadRequest);
    }
    assert!(fake.seen.lock().unwrap().is_empty());
}

#[test]
fn a_new_policy_holds_for_connections_that_are_there() {
    if own_uid() == 0 {
        // Root may do everything; `commands::a_stranger_is_told_what_he_lacks` goes the same way as another user.
        return;
    }
    let fake = echo();
    let mut bare = fake.connect();
    bare.ask("GET", "/v1/status", b"");
    assert_eq!(bare.reply().unwrap().status, 200);
    fake.policy.send(Arc::new(nobody_but(0))).unwrap();
    bare.ask("GET", "/v1/status", b"");
    let reply = bare.reply().unwrap();
    assert_eq!((reply.status, reply.error().kind), (403, ErrorKind::Forbidden));
}
