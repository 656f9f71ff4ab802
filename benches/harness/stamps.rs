//! When runs began: each start of the compiled no-op worker comes as one datagram.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where they come in.
pub struct Stamps {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Stamps {
    /// Listens in `dir`.
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("stamps");
        let socket = UnixDatagram::bind(&path).unwrap();
        // The worker may be another user.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        Self { socket, path }
    }

    /// What a worker's environment needs besides, as `, NAME = "VALUE"`.
    pub fn environment(&self) -> String {
        format!(", NOOP_STAMPS = {:?}", self.path.to_str().unwrap())
    }

    /// The next start, waited for: nanoseconds of the monotonic clock.
    pub fn next(&self) -> f64 {
        self.within(Duration::from_secs(60)).expect("no start within 60 s")
    }

    /// The next start, if there is one in this time.
    pub fn within(&self, time: Duration) -> Option<f64> {
        let mut buffer = [0; 64];
        self.socket.set_read_timeout(Some(time)).unwrap();
        let n = self.socket.recv(&mut buffer).ok()?;
        Some(std::str::from_utf8(&buffer[..n]).unwrap().parse().unwrap())
    }
}
