//! Named pipes between a test and its tasks: a task tells the test that it runs, the test lets it go on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// A named pipe, held open both ways so that neither side ever waits to open it.
pub struct Fifo {
    path: PathBuf,
    file: File,
    rest: Vec<u8>,
}

impl Fifo {
    /// Makes it.
    pub fn new(dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o666)).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open(&path)
            .unwrap();
        Self { path, file, rest: Vec::new() }
    }

    /// Its path, for a task's command.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `n` tasks that `read` a line from it go on.
    pub fn release(&mut self, n: usize) {
        self.file.write_all("go\n".repeat(n).as_bytes()).unwrap();
    }

    /// Writes a line.
    pub fn tell(&mut self, line: &str) {
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line that a task wrote.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.line_within(super::PATIENCE.as_millis().try_into().unwrap())
            .unwrap_or_else(|| panic!("no task wrote to {}", self.path.display()))
    }

    /// The next line, if one comes within so many milliseconds.
    pub fn line_within(&mut self, ms: u16) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::from(ms)).unwrap() == 0 {
                return None;
            }
            let mut buffer = [0; 4096];
            let n = self.file.read(&mut buffer).unwrap();
            self.rest.extend_from_slice(&buffer[..n]);
        }
    }
}
