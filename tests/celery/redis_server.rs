//! A Redis of a test's own, on a port that was free.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// It; killed when dropped.
pub struct Redis {
    child: Option<Child>,
    dir: tempfile::TempDir,
    durable: bool,
    /// Its port.
    pub port: u16,
}

/// Waits for something to be there.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(there) = probe() {
            return there;
        }
        assert!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn launch(dir: &Path, port: u16, durable: bool) -> Option<Child> {
    let append = if durable { ["yes", "--appendfsync", "always"] } else { ["no", "--appendfsync", "no"] };
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly"])
        .args(append)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is there (tests/needs.sh installs it)");
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    until("redis-server", || {
        if let Some(status) = child.try_wait().unwrap() {
            // Somebody else was faster to take the port.
            return Some(Err(status));
        }
        client.get_connection().ok().map(|_| Ok(()))
    })
    .ok()?;
    Some(child)
}

impl Redis {
    /// A new one, empty.
    pub fn start() -> Self {
        Self::started(false)
    }

    /// One that keeps what it answered for, however it ends.
    pub fn durable() -> Self {
        Self::started(true)
    }

    fn started(durable: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (child, port) = until("a port that stays free", || {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            Some((launch(dir.path(), port, durable)?, port))
        });
        Self { child: Some(child), dir, durable, port }
    }

    /// A database of it.
    pub fn url(&self, db: u8) -> String {
        format!("redis://127.0.0.1:{}/{db}", self.port)
    }

    pub fn connection(&self, db: u8) -> redis::Connection {
        redis::Client::open(self.url(db)).unwrap().get_connection().unwrap()
    }

    /// Kills it; what it held is gone, unless it is durable.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, empty unless it is durable.
    pub fn revive(&mut self) {
        let (port, durable) = (self.port, self.durable);
        self.child = Some(until("the port", || launch(self.dir.path(), port, durable)));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
