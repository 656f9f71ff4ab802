//! How fast the embedded store is, for the eye: `cargo test --release --test contract throughput -- --ignored --nocapture`.
//!
//! 64 publishes are in flight at any time, then 64 cycles of lease, start and settle. `N=n` messages,
//! `WAITING=n` more that wait in the queue meanwhile; `DRAIN=1` only takes from those.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use taskd::broker::sqlite::{Options, Sqlite};
use taskd::broker::{Broker, Completion};
use taskd::model::message::{Delivery, Message};
use taskd::model::op::{Op, Reply, Takes, Ticket};
use taskd::model::state::State;

use crate::harness::*;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(us.unsigned_abs())
}

/// Proportional set size of this process, in KiB.
fn pss() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|l| l.starts_with("Pss:")).unwrap_or("Pss: 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn body(version: char) -> Message {
    let id = if version == '7' { uuid::Uuid::now_v7() } else { uuid::Uuid::new_v4() };
    Message { args: vec![serde_json::json!("x".repeat(300))], ..msg(&id.to_string()) }
}

struct Run {
    store: Sqlite,
    done: Receiver<Completion>,
    ticket: u64,
}

impl Run {
    fn submit(&mut self, ops: Vec<Op>) {
        let ticketed = ops.into_iter().map(|op| {
            self.ticket += 1;
            (Ticket(self.ticket), op)
        });
        let ops = ticketed.collect();
        self.store.submit(ops);
    }

    fn answers(&self) -> Vec<Reply> {
        let first = self.done.recv().unwrap().1.unwrap();
        std::iter::once(first).chain(self.done.try_iter().map(|(_, r)| r.unwrap())).collect()
    }

    /// Keeps 64 publishes in flight.
    fn publish(&mut self, n: usize, version: char) {
        let (mut sent, mut answered) = (0, 0);
        while answered < n {
            let room = 64_usize.saturating_sub(sent - answered).min(n - sent);
            if room > 0 {
                self.submit((0..room).map(|_| publish(vec![body(version)])).collect());
                sent += room;
            }
            answered += self.answers().len();
        }
    }

    /// Leases `credit` at a time and takes each to its end, `credit` in flight.
    fn drain(&mut self, n: usize, credit: u32) {
        let mut ended = 0;
        while ended < n {
            self.submit(vec![lease_at(credit, 0)]);
            let leased: Vec<Delivery> = self.answers().into_iter().flat_map(deliveries).collect();
            let token = |d: &Delivery| (d.message.id.clone(), d.token);
            self.submit(
                leased
                    .iter()
                    .map(token)
                    .map(|(id, token)| Op::Start { id, token, now: at(0), takes: Takes::default() })
                    .collect(),
            );
            let mut waits = leased.len();
            while waits > 0 {
                waits -= self.answers().len();
            }
            self.submit(
                leased
                    .iter()
                    .map(|d| Op::Settle(Box::new(settle(&d.message.id.0, d.token, State::Success))))
                    .collect(),
            );
            let mut waits = leased.len();
            ended += waits;
            while waits > 0 {
                waits -= self.answers().len();
            }
        }
    }

    fn timed(&mut self, what: &str, n: usize, f: impl FnOnce(&mut Self)) {
        let (stats, wall, used) = (self.store.stats(), Instant::now(), cpu());
        f(self);
        let (wall, used, after) = (wall.elapsed(), cpu().saturating_sub(used), self.store.stats());
        println!(
            "{what:<28} {:>9.0} /s {:>7.1} us CPU each {:>8} fsyncs, {} KiB PSS",
            n as f64 / wall.as_secs_f64(),
            used.as_secs_f64() * 1e6 / n as f64,
            after.durable_commits - stats.durable_commits,
            pss(),
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let (n, waiting) = (number("N", 50_000), number("WAITING", 0));
    let place = std::env::var("PLACE").unwrap_or_else(|_| "/tmp".to_owned());
    let dir = tempfile::tempdir_in(place).unwrap();
    let (store, done) = open(dir.path(), Options::default());
    let mut run = Run { store, done, ticket: 0 };
    println!("empty: {} KiB PSS", pss());
    for _ in 0..waiting.div_ceil(500) {
        run.submit(vec![publish((0..500).map(|_| body('7')).collect())]);
        run.answers();
    }
    if waiting < n || std::env::var_os("DRAIN").is_none() {
        run.timed("publish, ids of version 7", n, |r| r.publish(n, '7'));
        run.timed("publish, random ids", n, |r| r.publish(n, '4'));
    }
    run.timed("lease + start + settle, 64", n, |r| r.drain(n, 64));
    run.timed("lease + start + settle, 2", n / 10, |r| r.drain(n / 10, 2));
    let started = Instant::now();
    run.store.close();
    println!("close: {:?}", started.elapsed());
    let started = Instant::now();
    let (store, _done) = open(dir.path(), Options::default());
    println!("open: {:?}", started.elapsed());
    store.close();
}
