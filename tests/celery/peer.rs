//! A node as a peer of Celery's tools on a real Redis: with the tools themselves (`tools.py`), and with a client of
//! the test's own where the server goes away, names clash, or rights are missing.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Connection;
use taskd::celery::control::reply::{self, Reply};
use taskd::celery::control::{ReplyTo, Request};
use taskd::celery::envelope::{Address, Envelope};
use taskd::celery::event::{self, Event};
use taskd::celery::json::Raw;
use taskd::config::settings::CeleryControl;
use taskd::control::celery::asked::Heard;
use taskd::control::celery::meet::meet;
use taskd::control::celery::server::Server;
use taskd::control::celery::{Peer, Setup, name};
use taskd::model::time::Wall;

use crate::redis_server::{Redis, until};
use crate::stand_in::StandIn;

const NODE: &str = "taskd@here";

fn setup(control: CeleryControl) -> Setup {
    Setup { node: NODE.to_owned(), control, meet: Duration::ZERO }
}

fn server(redis: &Redis) -> Server {
    Server::of_url(&redis.url(0), "").unwrap()
}

/// Asks as a client does: binds a queue for the reply, publishes, waits for it.
fn ask(
    connection: &mut Connection,
    prefix: &str,
    db: u8,
    method: &str,
    arguments: &str,
    wait_s: f64,
) -> Option<String> {
    let to =
        ReplyTo { exchange: "reply.celery.pidbox".into(), routing_key: uuid::Uuid::new_v4().to_string() };
    let queue = reply::queue(&to);
    let set = format!("{prefix}_kombu.binding.{}", to.exchange);
    let member = format!("{}\u{6}\u{16}\u{6}\u{16}{queue}", to.routing_key);
    redis::cmd("SADD").arg(&set).arg(&member).query::<()>(connection).unwrap();
    publish(connection, &format!("{prefix}/{db}.celery.pidbox"), method, arguments, &to);
    let popped: Option<(String, Vec<u8>)> =
        redis::cmd("BRPOP").arg(format!("{prefix}{queue}")).arg(wait_s).query(connection).unwrap();
    redis::cmd("SREM").arg(&set).arg(&member).query::<()>(connection).unwrap();
    Some(Envelope::read(&popped?.1).unwrap().text(1 << 20).unwrap())
}

fn publish(connection: &mut Connection, channel: &str, method: &str, arguments: &str, to: &ReplyTo) {
    let body = Request::write(method, &Raw::parse(arguments).unwrap(), to, "ticket");
    let properties = Envelope::properties_to(&Address::queue("x"), "tag", false);
    let message = Envelope::new(&body, std::iter::empty().collect(), properties).write();
    redis::cmd("PUBLISH").arg(channel).arg(message.text()).query::<()>(connection).unwrap();
}

fn pinged(connection: &mut Connection) -> Option<String> {
    ask(connection, "", 0, "ping", "{}", 0.2)
}

/// Waits until the node hears.
fn ready(redis: &Redis) -> Connection {
    let mut connection = redis.connection(0);
    until("the node", || pinged(&mut connection));
    connection
}

#[test]
fn celerys_tools_work() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv-celery/bin/python");
    assert!(python.exists(), "{} is not there: run `bash tests/celery/venv.sh`", python.display());
    let redis = Redis::start();
    let url = redis.url(2);
    let node = name("shop1");
    let setup = Setup { node: node.clone(), control: CeleryControl::Yes, meet: Duration::from_millis(200) };
    let _stand_in = StandIn::start(Server::of_url(&url, "").unwrap(), setup);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/celery/tools.py");
    let mut child = Command::new(python)
        .args([tools.as_os_str(), url.as_ref(), node.as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text)
    });
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    println!("{text}");
    assert!(status.success(), "{text}\n{}", errors.join().unwrap().unwrap());
}

#[test]
fn a_server_that_goes_away_is_found_again_within_two_seconds() {
    let mut redis = Redis::start();
    let (peer, _hears) = Peer::open(server(&redis), setup(CeleryControl::Yes)).unwrap();
    let mut connection = ready(&redis);
    ask(&mut connection, "", 0, "enable_events", "{}", 5.0).unwrap();
    redis.kill();
    until("a note of it", || Some(peer.notes()).filter(|notes| notes.len() >= 2));
    // Nobody waits for a server that is away, and what is too much goes.
    let began = Instant::now();
    for _ in 0..12_000 {
        peer.happened(&Event::Started("x"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(peer.notes().iter().any(|note| note.contains("dropped")), "{:?}", peer.notes());
    redis.revive();
    let back = Instant::now();
    let mut connection = redis.connection(0);
    until("the node again", || pinged(&mut connection));
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    until("no trouble", || peer.notes().iter().all(|note| note.contains("dropped")).then_some(()));
}

#[test]
fn a_server_that_says_nothing_holds_up_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", silent.local_addr().unwrap());
    let (peer, _hears) = Peer::open(Server::of_url(&url, "").unwrap(), setup(CeleryControl::Yes)).unwrap();
    until("both say so", || (peer.notes().len() == 2).then_some(()));
    let began = Instant::now();
    peer.close(Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_name_that_another_node_has_is_noticed() {
    let redis = Redis::start();
    assert_eq!(meet(&server(&redis), NODE, &[], 0, Duration::from_secs(5)).unwrap().nodes, [""; 0]);
    let (peer, _hears) = Peer::open(server(&redis), setup(CeleryControl::Yes)).unwrap();
    peer.remember([("old-one".to_owned(), now())]);
    let mut connection = ready(&redis);
    let same = meet(&server(&redis), NODE, &[], 0, Duration::from_secs(5)).unwrap();
    assert!(same.clash && same.nodes.is_empty());
    let other =
        meet(&server(&redis), "taskd@there", &["theirs".to_owned()], 0, Duration::from_secs(5)).unwrap();
    assert_eq!(
        (other.clash, other.nodes, other.revoked),
        (false, vec![NODE.to_owned()], vec!["old-one".to_owned()])
    );
    until("what the other knows", || peer.is_revoked("theirs").then_some(()));
    // A second node says so by itself, and nothing of the question is left.
    let setup = Setup { meet: Duration::from_secs(5), ..setup(CeleryControl::Yes) };
    let (_second, mut hears) = Peer::open(server(&redis), setup).unwrap();
    assert!(matches!(hears.blocking_recv(), Some(Heard::Clash { node }) if node == NODE));
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn what_may_be_done_is_what_the_setting_says() {
    let redis = Redis::start();
    let (peer, mut hears) = Peer::open(server(&redis), setup(CeleryControl::Read)).unwrap();
    let mut connection = ready(&redis);
    let refused = ask(&mut connection, "", 0, "revoke", r#"{"task_id": "a"}"#, 5.0).unwrap();
    assert!(refused.contains("celery_control"), "{refused}");
    assert!(!peer.is_revoked("a"));
    ask(&mut connection, "", 0, "hello", r#"{"from_node": "x@y", "revoked": ["b"]}"#, 5.0).unwrap();
    assert!(!peer.is_revoked("b"), "a hello that brings revokes is one of them");
    peer.permit(CeleryControl::No);
    assert_eq!(pinged(&mut connection), None);
    peer.permit(CeleryControl::Yes);
    let busy = std::thread::spawn(move || {
        let heard = hears.blocking_recv();
        let Some(Heard::Asked(asked)) = heard else { panic!("{heard:?}") };
        drop(asked);
        hears.blocking_recv()
    });
    let dropped = ask(&mut connection, "", 0, "revoke", r#"{"task_id": ["c", "no id"]}"#, 5.0).unwrap();
    assert!(dropped.contains("could not answer"), "one that is dropped is answered: {dropped}");
    assert!(peer.is_revoked("c") && !peer.is_revoked("no id"));
    // On the channel that all databases share, nothing ends this node.
    let to = ReplyTo { exchange: "reply.celery.pidbox".into(), routing_key: "nobody".into() };
    publish(&mut connection, "celery.pidbox", "shutdown", "{}", &to);
    publish(&mut connection, "celery.pidbox", "revoke", r#"{"task_id": "d"}"#, &to);
    let heard = busy.join().unwrap();
    assert!(
        matches!(heard, Some(Heard::Asked(ref asked)) if asked.command != taskd::celery::control::Command::Shutdown)
    );
    assert!(peer.is_revoked("d"));
}

#[test]
fn a_prefix_and_a_database_are_kept_to() {
    let redis = Redis::start();
    let server = Server::of_url(&redis.url(3), "app[1]:").unwrap();
    let (peer, _hears) = Peer::open(server, setup(CeleryControl::Yes)).unwrap();
    let mut connection = redis.connection(3);
    until("the node", || ask(&mut connection, "app[1]:", 3, "ping", "{}", 0.2));
    assert_eq!(ask(&mut connection, "", 3, "ping", "{}", 0.2), None);
    assert_eq!(ask(&mut redis.connection(0), "app[1]:", 0, "ping", "{}", 0.2), None);
    let mut listener = redis.connection(0);
    let mut channels = listener.as_pubsub();
    channels.psubscribe("*celeryev*").unwrap();
    peer.close(Duration::from_secs(5));
    let word = until("the goodbye", || {
        let message = channels.get_message().unwrap();
        assert!(message.get_channel_name().starts_with("app[1]:/3.celeryev/worker."));
        let envelope = Envelope::read(message.get_payload_bytes()).unwrap();
        event::heard(&envelope, 1 << 16).into_iter().map(|e| e.word).find(|word| word == "worker-offline")
    });
    assert_eq!(word, "worker-offline");
}

#[test]
fn task_events_go_many_in_a_message_and_in_order() {
    let redis = Redis::start();
    let (peer, _hears) = Peer::open(server(&redis), setup(CeleryControl::Yes)).unwrap();
    let mut connection = ready(&redis);
    peer.happened(&Event::Started("unwanted"));
    let enabled = ask(&mut connection, "", 0, "enable_events", "{}", 5.0).unwrap();
    assert!(enabled.contains("enabled"), "{enabled}");
    let mut listener = redis.connection(0);
    let mut channels = listener.as_pubsub();
    channels.subscribe("/0.celeryev/task.multi").unwrap();
    for n in 0..1_000 {
        peer.happened(&Event::Started(&n.to_string()));
    }
    let (mut seen, mut messages, mut clock) = (0, 0, 0);
    while seen < 1_000 {
        let message = channels.get_message().unwrap();
        messages += 1;
        for event in event::heard(&Envelope::read(message.get_payload_bytes()).unwrap(), 1 << 20) {
            assert_eq!(event.fields.text("uuid").unwrap(), seen.to_string());
            assert!(event.clock > clock);
            clock = event.clock;
            seen += 1;
        }
    }
    assert!(messages < 100, "{messages}");
    let disabled = ask(&mut connection, "", 0, "disable_events", "{}", 5.0).unwrap();
    assert!(disabled.contains("disabled") && !peer.wants_events());
    assert_eq!(Reply::events(false, true), Reply::Done("task events already disabled".into()));
}

fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Wall(i64::try_from(since.as_millis()).unwrap())
}
