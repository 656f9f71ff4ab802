//! From before a Celery message is pushed to an idle Redis until the resident worker hears of it, beside a bare
//! consumer that waits in BRPOP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what is wrong by panicking"
)]
#![allow(unreachable_pub, reason = "the harness is shared with the tests")]

#[path = "harness/mod.rs"]
mod bench;

use std::sync::mpsc;
use std::time::Duration;

use bench::messages::{QUEUE, Template};
use bench::redis::Redis;
use bench::stamps::Stamps;
use bench::{Better, Figure, figure, now_ns, redis_node, setting};

/// The bare consumer's list.
const BARE: &str = "bare";

/// Pops from the bare list until a text that is none of Celery's, and tells when each pop returned.
fn bare(redis: &Redis) -> mpsc::Receiver<f64> {
    let mut to = redis.connection();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((_, raw)) = redis::cmd("BRPOP").arg(BARE).arg(0).query::<(String, String)>(&mut to) {
            if !raw.starts_with('{') || tell.send(now_ns()).is_err() {
                return;
            }
        }
    });
    told
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 200));
    bench::peers::install();
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(dir.path()).expect("redis-server");
    let template = Template::of_celery(&redis);
    let stamps = Stamps::new(dir.path());
    let node = redis_node(&redis, 1, &stamps.environment());
    let told = bare(&redis);
    let mut to = redis.connection();
    let mut push = |list: &str| {
        let message = template.message(&uuid::Uuid::now_v7().to_string());
        let start = now_ns();
        redis::cmd("LPUSH").arg(list).arg(message).exec(&mut to).unwrap();
        start
    };
    let bound = "1.5 x BRPOP + 200 µs";
    let limit = Some((Better::Lower, 1.0));
    let mut middle = Figure::new("redis_latency", "enqueue on idle Redis to start, p50", "µs", bound, limit);
    let mut plain = Figure::new("redis_latency_p50", "the same", "µs", "BRPOP", None);
    let mut tail = Figure::new("redis_latency_p99", "the same, p99", "µs", "BRPOP", None);
    for round in 0..=rounds {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let start = push(BARE);
            theirs.push((told.recv_timeout(Duration::from_secs(30)).unwrap() - start) / 1e3);
            std::thread::sleep(Duration::from_millis(5));
            let start = push(QUEUE);
            ours.push((stamps.next() - start) / 1e3);
            // Idle means idle: what follows the end of a task is over.
            std::thread::sleep(Duration::from_millis(25));
        }
        if round > 0 {
            let (p50, p99) = (figure::percentile(&theirs, 50), figure::percentile(&theirs, 99));
            let own = figure::percentile(&ours, 50);
            middle.round(1.5 * p50 + 200.0, own);
            plain.round(p50, own);
            tail.round(p99, figure::percentile(&ours, 99));
        }
    }
    redis::cmd("LPUSH").arg(BARE).arg("end").exec(&mut redis.connection()).unwrap();
    drop(node);
    plain.end();
    tail.end();
    figure::exit(&[middle.end()])
}
