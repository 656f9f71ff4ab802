//! A fake notify socket: what systemd would be told.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The receiving end of `NOTIFY_SOCKET`.
pub struct Notify {
    path: PathBuf,
    socket: UnixDatagram,
    /// Every assignment received so far, in order (`READY=1`, `STATUS=…`).
    pub seen: Vec<String>,
}

impl Notify {
    /// Binds it in `dir`.
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("notify");
        std::fs::remove_file(&path).ok();
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { path, socket, seen: Vec::new() }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what comes within `wait` (or has come); the new assignments.
    pub fn read(&mut self, wait: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 8192];
        let Ok(n) = self.socket.recv(&mut buffer) else { return Vec::new() };
        let new: Vec<_> = String::from_utf8_lossy(&buffer[..n]).lines().map(str::to_owned).collect();
        self.seen.extend(new.iter().cloned());
        new
    }

    /// Waits until an assignment that begins so arrives (one that came before does not count).
    #[track_caller]
    pub fn next(&mut self, beginning: &str) -> String {
        super::until(beginning, || {
            self.read(Duration::from_millis(100)).into_iter().find(|l| l.starts_with(beginning))
        })
    }

    /// Waits until an assignment that begins so has arrived, now or before.
    #[track_caller]
    pub fn has(&mut self, beginning: &str) -> String {
        super::until(beginning, || {
            let found = self.seen.iter().find(|l| l.starts_with(beginning)).cloned();
            found.or_else(|| {
                self.read(Duration::from_millis(100));
                None
            })
        })
    }

    /// Forgets what arrived.
    pub fn forget(&mut self) {
        while !self.read(Duration::from_millis(1)).is_empty() {}
        self.seen.clear();
    }
}
