//! The least that draining a kombu queue asks of a Redis: plain commands, sent together, no script and no checks.

use redis::{Connection, Pipeline};

use super::messages::{Drained, QUEUE, Template, let_go, metered};
use super::redis::Redis;

/// What a result holds, in Celery's words.
fn result(id: &str) -> String {
    format!(
        r#"{{"status": "SUCCESS", "result": null, "traceback": null, "children": [], "date_done": "2026-01-01T00:00:00.000000+00:00", "task_id": "{id}"}}"#
    )
}

/// The text between `"KEY": "` and the next quote.
fn field<'a>(raw: &'a str, key: &str) -> &'a str {
    let from = raw.find(key).unwrap() + key.len();
    raw[from..].split('"').nth(1).unwrap()
}

/// Takes a batch off the queue and registers it; (tag, id) of each.
fn take(to: &mut Connection, batch: usize) -> Vec<(String, String)> {
    let mut pop = Pipeline::with_capacity(batch);
    for _ in 0..batch {
        pop.rpop(QUEUE, None);
    }
    let popped: Vec<Option<String>> = pop.query(to).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let mut register = Pipeline::with_capacity(2 * batch);
    let mut taken = Vec::with_capacity(batch);
    for raw in popped.into_iter().flatten() {
        let (tag, id) = (field(&raw, "\"delivery_tag\""), field(&raw, "\"id\""));
        register.hset("unacked", tag, format!("[{raw}, \"\", \"{QUEUE}\"]")).ignore();
        register.zadd("unacked_index", tag, now).ignore();
        taken.push((tag.to_owned(), id.to_owned()));
    }
    if !taken.is_empty() {
        register.exec(to).unwrap();
    }
    taken
}

/// Drains `n` staged messages of Celery's in batches: each is popped, registered in `unacked`, its result is written
/// (with its time to live) and it is acknowledged; one round trip for each of the three.
pub fn drains(dir: &std::path::Path, n: usize, batch: usize) -> Drained {
    let redis = Redis::start(dir).expect("redis-server");
    let ids = Template::of_celery(&redis).stage(&redis, n);
    let (mut to, mut other) = (redis.connection(), redis.connection());
    let work = || {
        let_go(&mut other);
        loop {
            let taken = take(&mut to, batch);
            if taken.is_empty() {
                return;
            }
            let mut settle = Pipeline::with_capacity(3 * batch);
            for (tag, id) in &taken {
                settle.set_ex(format!("celery-task-meta-{id}"), result(id), 86_400).ignore();
                settle.hdel("unacked", tag).ignore();
                settle.zrem("unacked_index", tag).ignore();
            }
            settle.exec(&mut to).unwrap();
        }
    };
    let mut third = redis.connection();
    metered(&redis, n, || 0, work, || true, || super::messages::all_have_results(&mut third, &ids))
}
