//! The store on Redis: one server for all cases, each with keys of its own.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use taskd::broker::redis::celery::Peer;
use taskd::broker::redis::{Options, Redis};
use taskd::broker::{Broker, Completion};
use taskd::config::redis::Address;
use taskd::model::op::Op;

use crate::harness::{Answer, Harness, collect, ticketed};

/// Where the server listens: a socket in a directory that goes with this process.
pub fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        let (send, ready) = mpsc::channel();
        // The server's end is bound to the thread that started it, so that thread never ends.
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("redis.sock");
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "redis-server", "--port", "0", "--save", "", "--unixsocket"])
                .arg(&socket)
                .arg("--dir")
                .arg(dir.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server: `apt-get install redis-server`, or tests/needs.sh");
            let url = format!("unix://{}", socket.display());
            let client = ::redis::Client::open(url.as_str()).unwrap();
            while client.get_connection().and_then(|mut c| ::redis::cmd("PING").exec(&mut c)).is_err() {
                assert!(child.try_wait().unwrap().is_none(), "redis-server ended");
                std::thread::sleep(Duration::from_millis(5));
            }
            send.send(url).unwrap();
            let _ = child.wait();
        });
        ready.recv().unwrap()
    })
}

/// The store on Redis.
pub struct Shared {
    prefix: String,
    store: Option<Redis>,
    done: Receiver<Completion>,
    next: u64,
}

fn open(prefix: &str, node: &str) -> (Redis, Receiver<Completion>) {
    open_as(prefix, node, Duration::from_secs(30), None)
}

/// A store of a node that is a peer of Celery's, or is not.
pub fn open_as(
    prefix: &str,
    node: &str,
    lease: Duration,
    peer: Option<Peer>,
) -> (Redis, Receiver<Completion>) {
    let (send, done) = mpsc::channel();
    let on_done =
        move |completions: Vec<Completion>| completions.into_iter().for_each(|c| drop(send.send(c)));
    let address = Address::parse(&format!("{}?global_keyprefix={prefix}", server())).unwrap();
    let options = Options { address, allow_eviction: false, node: node.to_owned(), lease, peer };
    let store = Redis::open(options, Box::new(on_done), Box::new(|_| {})).unwrap();
    (store, done)
}

impl Shared {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("case{}.", NEXT.fetch_add(1, Ordering::Relaxed));
        let (store, done) = open(&prefix, "node");
        Self { prefix, store: Some(store), done, next: 0 }
    }
}

impl Harness for Shared {
    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer> {
        let (first, n) = (self.next + 1, ops.len());
        let ops = ticketed(&mut self.next, ops);
        self.store.as_mut().unwrap().submit(ops);
        collect(&self.done, first, n)
    }

    fn restart(&mut self) {
        self.store.take().unwrap().close();
        let (store, done) = open(&self.prefix, "node");
        (self.store, self.done) = (Some(store), done);
    }
}
