//! sd_notify(3), for the launcher: the only process that systemd listens to (`NotifyAccess=main`).
//!
//! Nothing here waits: a launcher that hangs because nobody reads its notifications could not look after its
//! children. What does not fit is sent later, the latest of each kind; a sign of life is worth nothing later.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Longest STATUS=, in bytes; systemd cuts nothing, people do.
const MAX_STATUS: usize = 512;

/// How soon what did not fit is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// Most notifications that wait: a reload has two, and those before the last one are of no interest any more.
const MOST: usize = 8;

/// The way to the service manager; says nothing where there is none.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    status: String,
    /// What did not fit yet, in order.
    waiting: Vec<String>,
    again: Option<Instant>,
}

impl Notify {
    /// From `NOTIFY_SOCKET`, which stays in this process's environment and is in no child's.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let to = open(&name);
        if let Err(error) = &to {
            tracing::warn!("NOTIFY_SOCKET={}: {error}; nobody is notified", name.display());
        }
        Self { to: to.ok(), ..Self::default() }
    }

    /// Whether a service manager listens.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.to.is_some()
    }

    /// `WatchdogSec=`, where it is set and meant for this process.
    #[must_use]
    pub fn watchdog_period() -> Option<Duration> {
        sd_notify::watchdog_enabled().filter(|d| !d.is_zero())
    }

    /// Start-up or a reload is done.
    pub fn ready(&mut self) {
        let status = self.status.clone();
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// A reload began; [`Notify::ready`] ends it. The time makes it good for `Type=notify-reload` too.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// The end began.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// What taskd is doing, in one line. Sent only when it changed.
    pub fn status(&mut self, text: &str) {
        let text = one_line(text);
        if text != self.status {
            self.send(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }

    /// Start or stop needs this much longer.
    pub fn extend(&mut self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// This process is not stalled.
    pub fn alive(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// When [`Notify::flush`] is wanted.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Sends what did not fit, as far as it does now.
    pub fn flush(&mut self) {
        while let Some(text) = self.waiting.first() {
            if !self.fits(text) {
                self.again = Some(Instant::now() + AGAIN);
                return;
            }
            self.waiting.remove(0);
        }
        self.again = None;
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if self.to.is_none() {
            return;
        }
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        self.flush();
        if self.waiting.is_empty() && self.fits(&text) {
            return;
        }
        if let [NotifyState::Watchdog] = states {
            return;
        }
        // Of a kind that is told again and again only the last is of interest.
        for kind in ["STATUS=", "EXTEND_TIMEOUT_USEC="] {
            if text.starts_with(kind) {
                self.waiting.retain(|other| !other.starts_with(kind));
            }
        }
        self.waiting.push(text);
        if self.waiting.len() > MOST {
            self.waiting.remove(0);
        }
        self.again.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Whether it was sent, or never can be.
    fn fits(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.to else { return true };
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => true,
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(nix::libc::ENOBUFS) =>
            {
                false
            }
            Err(error) => {
                // A service manager that misses it asks again by its own time-outs.
                tracing::debug!(%error, "the service manager cannot be reached");
                true
            }
        }
    }
}

/// A socket that never blocks, and where it sends to: a path, or with `@` an abstract name.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// A text may come from the daemon, and a newline would let it send any other notification.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_STATUS));
    for word in text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()) {
        if line.len() + 1 + word.len() > MAX_STATUS {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_whatever_it_holds() {
        assert_eq!(one_line("up\nREADY=1\r\n\0x\u{85}y"), "up READY=1 x y");
        assert_eq!(one_line(""), "");
        assert!(one_line(&"word ".repeat(1_000)).len() <= MAX_STATUS);
    }

    #[test]
    fn what_does_not_fit_is_sent_later_and_nothing_waits() {
        for name in ["path", "abstract"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let (name, reader) = if name == "path" {
                (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap())
            } else {
                let text = format!("taskd-test-{}", uuid::Uuid::new_v4());
                let address = SocketAddr::from_abstract_name(&text).unwrap();
                (format!("@{text}").into(), UnixDatagram::bind_addr(&address).unwrap())
            };
            let mut notify = Notify { to: Some(open(&name).unwrap()), ..Notify::default() };
            for n in 0..10_000 {
                notify.status(&format!("number {n}"));
            }
            assert!(notify.deadline().is_some(), "nobody reads, yet all was taken");
            notify.ready();
            notify.alive();
            notify.stopping();
            assert!(notify.waiting.len() <= 3, "{:?}", notify.waiting);
            reader.set_nonblocking(true).unwrap();
            let mut told = Vec::new();
            let mut buffer = [0; 1024];
            while notify.deadline().is_some() {
                while let Ok(n) = reader.recv(&mut buffer) {
                    told.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                }
                notify.flush();
            }
            while let Ok(n) = reader.recv(&mut buffer) {
                told.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
            let last = told.split_off(told.len() - 3);
            let want = ["STATUS=number 9999\n", "READY=1\nSTATUS=number 9999\n", "STOPPING=1\n"];
            assert_eq!(last, want);
        }
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let mut notify = Notify::default();
        notify.status("x");
        notify.ready();
        assert!(!notify.connected());
    }
}
