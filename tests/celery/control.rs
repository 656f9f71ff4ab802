//! Remote control: every captured request is a command, and the replies are those of a worker.

use serde_json::{Value, json};
use taskd::celery::call::Call;
use taskd::celery::control::reply::{self, Reply};
use taskd::celery::control::report::{Broker, Held, Stats, hello, queue, registered};
use taskd::celery::control::{Command, Request};
use taskd::celery::envelope::Address;
use taskd::celery::json::build::list;
use taskd::celery::json::{Json, Raw};
use taskd::model::time::Wall;

use crate::fixtures::{Fixture, all, envelope, of_amqp, one, plain};

fn request(file: &Fixture) -> Request {
    let raw = file.json().get("request").and_then(|r| r.get("raw")?.as_text()).unwrap();
    Request::read(&envelope(&raw), 1 << 20).unwrap()
}

fn first_reply(file: &Fixture) -> Option<(String, String)> {
    let replies = file.json().get("replies")?.items()?;
    let first = replies.first()?;
    Some((first.get("raw")?.as_text()?, first.get("redis_key")?.as_text()?))
}

/// What a worker said, the node's name taken off.
fn said(file: &Fixture) -> Value {
    let (raw, _) = first_reply(file).unwrap();
    let body = envelope(&raw).text(1 << 20).unwrap();
    let mut said = plain(Json::parse(&body).unwrap())["w1@lab"].clone();
    // taskd's clock has milliseconds.
    for entry in said.as_array_mut().into_iter().flatten() {
        if let Some(at) = entry.get_mut("time_start").filter(|at| at.is_f64()) {
            *at = json!((at.as_f64().unwrap() * 1000.0).round() / 1000.0);
        }
    }
    said
}

fn held<'a>(call: &'a Call, of: &Value) -> Held<'a> {
    Held {
        call,
        node: "w1@lab",
        started: of["time_start"].as_f64().map(|s| Wall((s * 1000.0).round() as i64)),
        pid: of["worker_pid"].as_u64().map(|pid| u32::try_from(pid).unwrap()),
        acknowledged: of["acknowledged"].as_bool().unwrap(),
        redelivered: false,
    }
}

fn call_of(of: &Value) -> Call {
    let mut call = Call::new(of["name"].as_str().unwrap(), of["id"].as_str().unwrap());
    call.args = Raw::parse(&of["args"].to_string()).unwrap();
    call.kwargs = Raw::parse(&of["kwargs"].to_string()).unwrap();
    call.address = Address::queue("celery");
    call
}

/// The reply that taskd gives in the place of the worker; absent where it has no figures to give.
fn ours(command: &Command, said: &Value) -> Option<Reply> {
    Some(match command {
        Command::Ping => Reply::pong(),
        Command::Active { .. } | Command::Reserved => {
            let held: Vec<Raw> =
                said.as_array()?.iter().map(|of| held(&call_of(of), of).write(false)).collect();
            Reply::Data(list(&held))
        }
        Command::Scheduled => {
            let entries = said.as_array()?.iter().map(|of| {
                held(&call_of(&of["request"]), &of["request"]).scheduled(of["eta"].as_str().unwrap())
            });
            Reply::Data(list(&entries.collect::<Vec<_>>()))
        }
        Command::ActiveQueues => Reply::Data(list(&[queue("celery")])),
        Command::Hello { revoked, .. } => {
            let clock = said["clock"].as_u64()?;
            let known = said["revoked"].as_array()?.iter().map(|id| id.as_str().unwrap().to_owned());
            assert!(revoked.iter().all(|id| known.clone().any(|k| k == *id)));
            Reply::Data(hello(known, clock))
        }
        Command::Revoke { ids, terminate: false, .. } => Reply::revoked(ids),
        Command::Revoke { .. } => Reply::terminated::<&str>([]),
        Command::RevokeByStamps { stamps, terminate, .. } => {
            Reply::revoked_by_stamps(stamps, *terminate, false)
        }
        Command::RateLimit { task, .. } if task == "no.such" => Reply::unknown_task(),
        Command::RateLimit { rate, .. } if rate == "x" => Reply::no_rate(rate),
        Command::RateLimit { rate, .. } => Reply::rate_limited(rate != "0"),
        Command::TimeLimit { .. } => Reply::time_limited(),
        Command::AddConsumer(consumer) => Reply::consuming(&consumer.queue),
        Command::CancelConsumer(queue) => Reply::not_consuming(queue),
        Command::PoolGrow(_) => Reply::pool_will(true),
        Command::PoolShrink(_) => Reply::pool_will(false),
        Command::Autoscale { .. } => Reply::refused("Autoscale not enabled"),
        Command::PoolRestart => Reply::refused("Pool restarts not enabled"),
        Command::EnableEvents => Reply::events(true, true),
        Command::DisableEvents => Reply::events(false, true),
        Command::Heartbeat | Command::Election { .. } | Command::Memory => Reply::nothing(),
        _ => return None,
    })
}

#[test]
fn every_request_is_answered_as_a_worker_answers() {
    let (mut commands, mut compared) = (0, 0);
    for file in all("pidbox_") {
        let request = request(&file);
        assert_eq!(Some(request.method.as_str()), file.json().get("method").unwrap().as_text().as_deref());
        commands += 1;
        let Some((raw, key)) = first_reply(&file) else { continue };
        let said = said(&file);
        let reply = match request.command() {
            Ok(command) => ours(&command, &said),
            Err(reply) => Some(reply),
        };
        let to = request.reply_to.clone().unwrap();
        assert_eq!(reply::queue(&to), key, "{}", file.name);
        assert!(request.is_for("w1@lab"), "{}", file.name);
        let Some(reply) = reply else { continue };
        assert_eq!(plain(reply.write().json()), said, "{}", file.name);
        // The message around it too.
        let want = envelope(&raw);
        let clock = want.headers.get("clock").unwrap().as_i64().unwrap();
        let tag = want.delivery_tag().unwrap();
        let message =
            reply::message(&request, "w1@lab", &reply, u64::try_from(clock).unwrap(), &tag).unwrap();
        assert_eq!(plain(message.headers.to_raw().json()), plain(want.headers.to_raw().json()));
        assert_eq!(plain(message.properties.to_raw().json()), plain(want.properties.to_raw().json()));
        compared += 1;
    }
    assert!(commands > 45 && compared > 30, "{commands} {compared}");
    for file in all("amqp_pidbox_request") {
        let envelope = of_amqp(file.json().get("message").unwrap()).unwrap();
        let request = Request::read(&envelope, 1 << 20).unwrap();
        assert!(request.command().is_ok(), "{}", file.name);
    }
}

#[test]
fn a_request_is_for_those_whom_it_names() {
    let is_for = |name: &str| request(&one(name)).is_for("w1@lab");
    assert!(is_for("pidbox_ping_2"), "by name");
    assert!(!is_for("pidbox_ping_3"), "another's name");
    assert!(is_for("pidbox_ping_4") && !request(&one("pidbox_ping_4")).is_for("x1@lab"), "glob");
    assert!(is_for("pidbox_ping_5") && !request(&one("pidbox_ping_5")).is_for("xw1@lab"), "pcre");
    let cast = request(&one("pidbox_revoke"));
    assert!(cast.reply_to.is_none() && cast.expires.is_none());
    assert!(reply::message(&cast, "n", &Reply::pong(), 1, "t").is_none());
    assert!(request(&one("pidbox_ping")).expires.is_some());
}

#[test]
fn commands_have_their_arguments() {
    let command = |name: &str| request(&one(name)).command().unwrap();
    let Command::Revoke { ids, terminate, signal } = command("pidbox_revoke_3") else { panic!() };
    assert_eq!((ids, terminate, signal.as_deref()), (vec!["a1".into(), "a2".into()], true, Some("SIGKILL")));
    assert_eq!(
        command("pidbox_time_limit"),
        Command::TimeLimit { task: "lab.add".into(), hard_ms: Some(20_000), soft_ms: Some(10_000) }
    );
    assert_eq!(command("pidbox_autoscale"), Command::Autoscale { max: Some(3), min: Some(1) });
    assert_eq!(command("pidbox_active_3"), Command::Active { safe: true });
    assert_eq!(command("pidbox_shutdown"), Command::Shutdown);
    let Command::Registered(items) = command("pidbox_registered_3") else { panic!() };
    let said = said(&one("pidbox_registered_3"));
    let own: Vec<(&str, String)> =
        items.iter().map(String::as_str).zip(["json".to_owned(), "3".to_owned()]).collect();
    assert_eq!(registered("lab.add", &own).json().as_text().unwrap(), said[0].as_str().unwrap());
}

#[test]
fn figures_have_all_members_of_a_workers() {
    let said = said(&one("pidbox_stats"));
    let broker = Broker {
        host: "127.0.0.1",
        port: 6379,
        transport: "redis",
        virtual_host: "0",
        user: None,
        tls: false,
    };
    let stats = Stats {
        total: &[("lab.add", 14)],
        pid: 1,
        clock: 231,
        uptime: 5,
        processes: &[2, 3],
        concurrency: 2,
        max_tasks_per_child: None,
        prefetch: 8,
        broker,
        rusage: &[("utime", 0.5)],
    };
    let ours = plain(stats.write().json());
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&said));
    assert_eq!(names(&ours["pool"]), names(&said["pool"]));
    assert_eq!(names(&ours["broker"]), names(&said["broker"]));
    assert_eq!(ours["clock"], json!("231"));
}
