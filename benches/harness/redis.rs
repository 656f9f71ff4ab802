//! A Redis of our own on a unix socket: in memory alone, which is what people have, or keeping all that it answered for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::procs;

/// It, stopped when dropped.
pub struct Redis {
    child: Child,
    dir: PathBuf,
    durable: bool,
    /// Its socket.
    pub socket: String,
}

fn spawn(dir: &Path, socket: &str, durable: bool) -> Option<Child> {
    let append = if durable { ["yes", "--appendfsync", "always"] } else { ["no", "--appendfsync", "no"] };
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly"]).args(append);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().ok()
}

impl Redis {
    /// Starts one that writes nothing to disk; `None` where there is none.
    pub fn start(dir: &Path) -> Option<Self> {
        Self::started(dir, false)
    }

    /// Starts one that keeps what it answered for, however it ends (`appendfsync always`).
    pub fn durable(dir: &Path) -> Option<Self> {
        Self::started(dir, true)
    }

    fn started(dir: &Path, durable: bool) -> Option<Self> {
        let socket = dir.join("redis").to_string_lossy().into_owned();
        let child = spawn(dir, &socket, durable)?;
        let redis = Self { child, dir: dir.to_owned(), durable, socket };
        redis.answers();
        Some(redis)
    }

    /// Asks until it answers PING with PONG (and not with LOADING); when that was.
    fn answers(&self) -> Instant {
        let patience = Instant::now();
        loop {
            let pong = redis::Client::open(self.url()).unwrap().get_connection();
            if pong.and_then(|mut to| redis::cmd("PING").query::<String>(&mut to)).is_ok() {
                return Instant::now();
            }
            assert!(patience.elapsed().as_secs() < 60, "redis-server does not answer");
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Kills it: what it held is gone, unless it is durable.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Redis::kill`]; the moment of its first PONG.
    pub fn revive(&mut self) -> Instant {
        // The socket's name outlives a killed server; a connection to it would only be refused.
        std::fs::remove_file(&self.socket).ok();
        self.child = spawn(&self.dir, &self.socket, self.durable).unwrap();
        self.answers()
    }

    /// Its address as taskd and redis-rs write it; kombu puts `redis+socket` in the place of `unix`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket)
    }

    /// A connection.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// CPU time that it used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        procs::cpu_ns(self.pid())
    }

    /// Counts its commands from now on.
    pub fn count(&self) {
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut self.connection()).unwrap();
    }

    /// Prints which commands took it longest since [`Redis::count`], for each of `n` tasks: what a script calls is
    /// counted by itself, and in the script's time too.
    pub fn print_commands(&self, n: usize) {
        let said: String = redis::cmd("INFO").arg("commandstats").query(&mut self.connection()).unwrap();
        let mut all = Vec::new();
        for line in said.lines() {
            let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let mut figures = rest.split(',').filter_map(|f| f.split_once('=')?.1.parse::<f64>().ok());
            if let (Some(calls), Some(time)) = (figures.next(), figures.next()) {
                all.push((time / n as f64, calls / n as f64, name));
            }
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let shown: Vec<String> = all
            .iter()
            .take(10)
            .map(|(time, calls, name)| format!("{name} {calls:.2} calls, {time:.1} µs"))
            .collect();
        println!("  Redis, a task: {}", shown.join("; "));
    }

    /// A number that it answers.
    pub fn number(&self, words: &[&str]) -> u64 {
        let out = Command::new("redis-cli").args(["-s", &self.socket]).args(words).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
