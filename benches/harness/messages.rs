//! Messages of Celery's client in a Redis, and how long and at what cost somebody drains them.

use std::time::{Duration, Instant};

use super::peers;
use super::redis::Redis;

/// The queue that everybody drains.
pub const QUEUE: &str = "celery";

/// Where messages lie until they are let go.
const STAGED: &str = "staged";

/// Longest drain that is waited for.
const PATIENCE: Duration = Duration::from_mins(30);

/// What Celery's own client sent for the no-op task, with the two ids that differ from message to message cut out.
pub struct Template(Vec<Part>);

#[derive(Clone)]
enum Part {
    Text(String),
    Id,
    Tag,
}

impl Template {
    /// Lets the client send one message and takes it off the queue again.
    pub fn of_celery(redis: &Redis) -> Self {
        let mut to = redis.connection();
        redis::cmd("DEL").arg(QUEUE).exec(&mut to).unwrap();
        peers::celery_sends_one(redis);
        let raw: String = redis::cmd("RPOP").arg(QUEUE).query(&mut to).unwrap();
        let read: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let cut = |parts: Vec<Part>, word: &str, part: Part| -> Vec<Part> {
            let mut all = Vec::new();
            for one in parts {
                let Part::Text(text) = one else {
                    all.push(one);
                    continue;
                };
                for (n, between) in text.split(word).enumerate() {
                    if n > 0 {
                        all.push(part.clone());
                    }
                    all.push(Part::Text(between.to_owned()));
                }
            }
            all
        };
        let id = read["headers"]["id"].as_str().unwrap().to_owned();
        let tag = read["properties"]["delivery_tag"].as_str().unwrap().to_owned();
        Self(cut(cut(vec![Part::Text(raw)], &id, Part::Id), &tag, Part::Tag))
    }

    /// One message under this id.
    pub fn message(&self, id: &str) -> String {
        let tag = uuid::Uuid::now_v7().to_string();
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Id => id,
            Part::Tag => &tag,
        });
        parts.collect()
    }

    /// Sends `n` to a list, as the client does (LPUSH), many in one command; their ids in order.
    pub fn send(&self, redis: &Redis, list: &str, n: usize) -> Vec<String> {
        let (mut to, mut ids) = (redis.connection(), Vec::with_capacity(n));
        while ids.len() < n {
            let some: Vec<String> =
                (ids.len()..n.min(ids.len() + 500)).map(|_| uuid::Uuid::now_v7().to_string()).collect();
            let mut push = redis::cmd("LPUSH");
            push.arg(list);
            for id in &some {
                push.arg(self.message(id));
            }
            push.exec(&mut to).unwrap();
            ids.extend(some);
        }
        ids
    }

    /// Sends `n` to where nobody takes them, until [`let_go`].
    pub fn stage(&self, redis: &Redis, n: usize) -> Vec<String> {
        self.send(redis, STAGED, n)
    }

    /// Sends `n` to the queue and waits for their results.
    pub fn warm(&self, redis: &Redis, n: usize) {
        let ids = self.send(redis, QUEUE, n);
        have_results(&mut redis.connection(), &ids);
    }
}

/// Puts the staged messages in the place of the (empty) queue, in one step: a consumer that waits for it is woken.
pub fn let_go(to: &mut redis::Connection) {
    let moved: i64 = redis::cmd("RENAMENX").arg(STAGED).arg(QUEUE).query(to).unwrap();
    assert_eq!(moved, 1, "the queue is not empty");
}

/// Takes what still waits in the queue away from its consumers; how many.
pub fn withdraw(to: &mut redis::Connection) -> usize {
    redis::cmd("RENAME").arg(QUEUE).arg(STAGED).exec(to).unwrap();
    redis::cmd("LLEN").arg(STAGED).query(to).unwrap()
}

/// Whether each of these has its result.
pub fn all_have_results(to: &mut redis::Connection, ids: &[String]) -> bool {
    ids.chunks(1000).all(|some| {
        let mut exists = redis::cmd("EXISTS");
        for id in some {
            exists.arg(format!("celery-task-meta-{id}"));
        }
        exists.query::<usize>(to).unwrap() == some.len()
    })
}

/// Waits until each of these has its result.
pub fn have_results(to: &mut redis::Connection, ids: &[String]) {
    wait(|| all_have_results(to, ids));
}

/// Looks every 20 ms.
pub fn wait(mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < PATIENCE, "not drained within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What draining cost.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// CPU time of everybody but Redis, microseconds (user and system) a task.
    pub cpu: f64,
    /// The same of Redis.
    pub redis: f64,
    /// Tasks per second.
    pub rate: f64,
}

/// Runs `begin` and puts down what was used (`used`: CPU nanoseconds of the consumer) until it is over: `seems` is asked
/// every 20 ms and must cost little, `is` is asked when it said yes, after everything was read off.
pub fn metered(
    redis: &Redis,
    n: usize,
    used: impl Fn() -> u64,
    begin: impl FnOnce(),
    mut seems: impl FnMut() -> bool,
    mut is: impl FnMut() -> bool,
) -> Drained {
    let (start, before, server) = (Instant::now(), used(), redis.cpu_ns());
    begin();
    loop {
        wait(&mut seems);
        let (taken, after, served) = (start.elapsed().as_secs_f64(), used(), redis.cpu_ns());
        if is() {
            let each = |ns: u64| ns as f64 / 1000.0 / n as f64;
            return Drained {
                cpu: each(after - before),
                redis: each(served - server),
                rate: n as f64 / taken,
            };
        }
        assert!(start.elapsed() < PATIENCE, "not drained within {PATIENCE:?}");
    }
}

/// Lets the staged messages go and meters until the queue and kombu's `unacked` are empty and each has its result.
/// Meanwhile only the last few results are asked for: to look for all of them is work of Redis's too.
pub fn drained(redis: &Redis, ids: &[String], used: impl Fn() -> u64) -> Drained {
    let (mut first, mut second, mut third) = (redis.connection(), redis.connection(), redis.connection());
    let last = &ids[ids.len().saturating_sub(32)..];
    let seems = || {
        let (waiting, unacked): (usize, usize) =
            redis::pipe().llen(QUEUE).hlen("unacked").query(&mut second).unwrap();
        waiting + unacked == 0 && all_have_results(&mut second, last)
    };
    metered(redis, ids.len(), used, || let_go(&mut first), seems, || all_have_results(&mut third, ids))
}
