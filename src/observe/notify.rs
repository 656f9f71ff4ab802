//! sd_notify(3), for the launcher: the only process that systemd listens to (`NotifyAccess=main`).

use std::time::Duration;

use sd_notify::NotifyState;

/// Longest STATUS=, in bytes; systemd cuts nothing, people do.
const MAX_STATUS: usize = 512;

/// The way to the service manager; says nothing where there is none.
#[derive(Debug, Default)]
pub struct Notify {
    connected: bool,
    status: String,
}

impl Notify {
    /// From `NOTIFY_SOCKET`, which stays in this process's environment and is in no child's.
    #[must_use]
    pub fn from_env() -> Self {
        Self { connected: std::env::var_os("NOTIFY_SOCKET").is_some(), status: String::new() }
    }

    /// Whether a service manager listens.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected
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

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if !self.connected {
            return;
        }
        // Nothing depends on it: a service manager that misses this asks again by its own time-outs.
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager cannot be reached");
        }
    }
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
    fn without_a_service_manager_nothing_happens() {
        let mut notify = Notify::default();
        notify.status("x");
        notify.ready();
        assert!(!notify.connected());
    }
}
