//! Several nodes on one Redis: killed and started again, with Redis killed under them. Promises 1, 2 and 5.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use taskd::celery::call::{Call, Sending};
use taskd::celery::envelope::Address;

use crate::harness::{Node, Setup, until};
use crate::redis_server::Redis;

/// Where messages are enqueued.
const PATH: &str = "/v1/messages";

/// Attempts of one node whose end may not be recorded when it is killed.
const UNRECORDED: usize = 16;

/// A task that writes its id and the number of its attempt into one file of all nodes, in one write.
fn config(name: &str, redis: &Redis, ledger: &std::path::Path) -> String {
    format!(
        r#"
[taskd]
node = "{name}"
broker = "{}"
[pools.default]
processes = 2
[queues.default]
[tasks.note]
command = "echo $TASKD_ID $TASKD_ATTEMPT $TASKD_NODE >> {ledger}"
max_retries = 0
[tasks.long]
command = "echo $TASKD_ID $TASKD_ATTEMPT $TASKD_NODE >> {ledger}; exec sleep ${{1:-0}}"
[tasks.tick]
command = "true"
[schedules.often]
task = "tick"
every = "1s"
overlap = "allow"
"#,
        redis.url(0),
        ledger = ledger.display(),
    )
}

fn start(name: &str, redis: &Redis, ledger: &std::path::Path) -> Node {
    Node::start_with(Setup::new(&config(name, redis, ledger)))
}

/// What ran, by id: how often.
fn runs(ledger: &std::path::Path) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let mut runs = BTreeMap::new();
    for id in text.lines().filter_map(|line| line.split(' ').next()) {
        *runs.entry(id.to_owned()).or_default() += 1;
    }
    runs
}

/// Enqueues under ids of the test's own, again where the answer was none: a known id is not stored twice.
fn enqueue(node: &Node, ids: &[String]) {
    let list: Vec<_> = ids.iter().map(|id| json!({"task": "note", "id": id})).collect();
    until("the messages are accepted", || {
        let answer = node.http().ask("POST", PATH, &json!(list).to_string());
        answer.is_ok_and(|answer| answer.status < 300).then_some(())
    });
}

/// Draws the faults (splitmix64); the same seed draws the same.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

#[test]
fn nothing_is_lost_or_run_twice_while_nodes_and_redis_are_killed() {
    let total: usize = std::env::var("MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let mut redis = Redis::durable();
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let names = ["n1", "n2", "n3"];
    let mut nodes: Vec<Node> = names.iter().map(|name| start(name, &redis, &ledger)).collect();
    let ids: Vec<String> = (0..total).map(|n| format!("m-{n}")).collect();
    let (mut kills, mut redis_kills) = (0_usize, 0_usize);
    let seed = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut drawn = Drawn(seed);
    let rounds = (total / 500).clamp(10, 100);
    let since = Instant::now();
    for (round, part) in ids.chunks(total.div_ceil(rounds).max(1)).enumerate() {
        enqueue(&nodes[round % 3], part);
        if drawn.below(3) == 0 {
            redis.kill();
            std::thread::sleep(Duration::from_millis(drawn.below(500)));
            redis.revive();
            redis_kills += 1;
        }
        let victim = &mut nodes[usize::try_from(drawn.below(3)).unwrap()];
        std::thread::sleep(Duration::from_millis(drawn.below(100)));
        victim.kill_launcher();
        victim.launch();
        kills += 1;
    }
    // As long as it goes on: how fast is for the benches.
    let (mut ran, mut at) = (0, Instant::now());
    while ran < total {
        std::thread::sleep(Duration::from_millis(200));
        let now = runs(&ledger).len();
        assert!(now > ran || at.elapsed() < crate::harness::PATIENCE, "{now} of {total} ran, and no more do");
        if now > ran {
            (ran, at) = (now, Instant::now());
        }
    }
    let mut http = nodes[0].http();
    for id in &ids {
        let ended = http.get(&format!("{PATH}/{id}"));
        if ended["state"] != "SUCCESS" {
            nodes[0].in_state(id, "SUCCESS");
        }
    }
    println!("{total} messages, seed {seed}, {redis_kills} kills of Redis, {:?}", since.elapsed());
    // What ran when its node was killed may have run again, and what had ended within the moment in which ends wait for
    // others to share a commit with: nothing else.
    let twice = runs(&ledger).values().filter(|n| **n > 1).count();
    println!("{twice} of {total} ran twice, with {kills} kills of nodes");
    assert!(twice <= kills * UNRECORDED, "{twice} of {total} ran twice, with {kills} kills of nodes");
    // A planned time fires once, whoever fires it.
    let fired = nodes[0].json(&["list", "--task", "tick", "--limit", "1000"]);
    let mut planned = BTreeMap::new();
    for message in fired.as_array().unwrap() {
        let at = message["planned"].to_string();
        *planned.entry(at).or_insert(0) += 1;
    }
    assert!(planned.values().all(|n| *n == 1), "{planned:?}");
}

/// Messages as Celery's clients send them: handed out without being rows. Nodes are killed; Redis is not, since what
/// sends here does not wait for its disk.
#[test]
fn nothing_that_clients_sent_is_lost_or_run_twice_while_nodes_are_killed() {
    let total: usize = std::env::var("MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let redis = Redis::durable();
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let names = ["n1", "n2", "n3"];
    let mut nodes: Vec<Node> = names.iter().map(|name| start(name, &redis, &ledger)).collect();
    let mut beside = ::redis::Client::open(redis.url(0)).unwrap().get_connection().unwrap();
    let ids: Vec<String> = (0..total).map(|n| format!("c-{n}")).collect();
    let mut kills = 0_usize;
    for (round, part) in ids.chunks(total.div_ceil(10).max(1)).enumerate() {
        let mut send = ::redis::pipe();
        for id in part {
            let mut call = Call::new("note", id);
            call.address = Address::queue("default");
            let envelope =
                call.write(Sending { tag: &format!("tag-{id}"), origin: "gen@h", expiration_ms: None });
            send.lpush("default", envelope.write().text());
        }
        send.exec(&mut beside).unwrap();
        let victim = &mut nodes[round % 3];
        let before = runs(&ledger).len();
        until("some of it runs", || (runs(&ledger).len() > before).then_some(()));
        victim.kill_launcher();
        victim.launch();
        kills += 1;
    }
    until("every message has ended", || {
        let runs = runs(&ledger);
        ids.iter().all(|id| runs.contains_key(id)).then_some(())
    });
    for id in &ids {
        assert_eq!(nodes[0].in_state(id, "SUCCESS")["state"], "SUCCESS");
        let meta: String =
            ::redis::cmd("GET").arg(format!("celery-task-meta-{id}")).query(&mut beside).unwrap();
        assert!(meta.contains("SUCCESS"), "{meta}");
    }
    let twice = runs(&ledger).values().filter(|n| **n > 1).count();
    println!("{twice} of {total} of clients ran twice, with {kills} kills of nodes");
    assert!(twice <= kills * UNRECORDED, "{twice} of {total} ran twice, with {kills} kills of nodes");
    let hands =
        ["unacked", "unacked_index", "default", "taskd.flying", "taskd.in:n1", "taskd.in:n2", "taskd.in:n3"];
    until("nothing is in anybody's hand", || {
        let left: usize = ::redis::cmd("EXISTS").arg(&hands).query(&mut beside).unwrap();
        (left == 0).then_some(())
    });
}

/// What one node runs and holds is canceled and purged from another one.
#[test]
fn what_a_node_holds_is_ended_from_another_one() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    // The other one must not take what waits: it only asks.
    let asker = start("asker", &redis, &ledger);
    asker.taskd(&["drain"]).code(0);
    let holder = start("holder", &redis, &ledger);
    let mut beside = redis.connection(0);
    let mut send = |ids: &[&str]| {
        for id in ids {
            let mut call = Call::new("long", id);
            call.args = taskd::celery::json::Raw::parse("[\"600\"]").unwrap();
            call.address = Address::queue("default");
            let envelope = call.write(Sending { tag: id, origin: "gen@h", expiration_ms: None });
            ::redis::cmd("LPUSH").arg("default").arg(envelope.write().text()).exec(&mut beside).unwrap();
        }
    };
    send(&["c-1", "c-2", "c-3"]);
    let list: Vec<_> =
        ["r-1", "r-2"].iter().map(|id| json!({"task": "long", "id": id, "args": ["600"]})).collect();
    assert!(holder.http().ask("POST", PATH, &json!(list).to_string()).unwrap().status < 300);
    until("it runs two", || (runs(&ledger).len() == 2).then_some(()));
    for id in ["c-1", "c-2", "c-3"] {
        asker.taskd(&["cancel", id]).code(0);
        assert_eq!(asker.in_state(id, "REVOKED")["state"], "REVOKED");
    }
    for id in ["r-1", "r-2"] {
        asker.in_state(id, "RUNNING");
    }
    let waiting = ["c-4", "c-5", "c-6"];
    send(&waiting);
    asker.taskd(&["purge", "default"]).code(0);
    for id in waiting {
        assert_eq!(asker.in_state(id, "REVOKED")["state"], "REVOKED");
        assert!(!runs(&ledger).contains_key(id), "{id} ran");
    }
}

#[test]
fn a_node_that_vanishes_has_its_work_taken_over() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let mut gone = start("gone", &redis, &ledger);
    let ids: Vec<String> = (0..6).map(|n| format!("l-{n}")).collect();
    let list: Vec<_> = ids.iter().map(|id| json!({"task": "long", "id": id, "args": ["600"]})).collect();
    assert!(gone.http().ask("POST", PATH, &json!(list).to_string()).unwrap().status < 300);
    until("it runs two", || (runs(&ledger).len() == 2).then_some(()));
    // It holds the others as well: a node leases a little more than it runs.
    let there = start("there", &redis, &ledger);
    gone.kill_launcher();
    let since = Instant::now();
    let mut canceled = std::collections::BTreeSet::new();
    until("each of them runs elsewhere", || {
        let text = std::fs::read_to_string(&ledger).unwrap_or_default();
        let here = text.lines().filter(|line| line.ends_with(" there"));
        // Each runs for ten minutes: canceled where it runs, it makes room for the next.
        for id in here.filter_map(|line| line.split(' ').next()) {
            if canceled.insert(id.to_owned()) {
                there.taskd(&["cancel", id]);
            }
        }
        (canceled.len() == ids.len()).then_some(())
    });
    let took = since.elapsed();
    println!("taken over and begun after {took:?}");
    assert!(took < Duration::from_secs(40), "{took:?}");
}
