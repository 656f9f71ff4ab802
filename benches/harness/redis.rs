//! A Redis of our own on a unix socket, nothing written to disk: what people have.

use std::process::{Child, Command, Stdio};

use super::until;

/// It, stopped when dropped.
pub struct Redis {
    child: Child,
    /// Its socket.
    pub socket: String,
}

impl Redis {
    /// Starts one; `None` where there is none.
    pub fn start(dir: &std::path::Path) -> Option<Self> {
        let socket = dir.join("redis").to_string_lossy().into_owned();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--unixsocket", &socket, "--save", "", "--appendonly", "no"]);
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().ok()?;
        until("redis", || std::os::unix::net::UnixStream::connect(&socket).ok());
        Some(Self { child, socket })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
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
