//! Signals, as something to poll for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// `si_code` of a signal that the kernel itself sent: SIGHUP with it means that the terminal is gone.
const SI_KERNEL: i32 = 0x80;

/// What the launcher waits for instead of being interrupted.
pub(super) struct Signals {
    fd: SignalFd,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// SIGTERM, SIGINT, or a terminal that hung up.
    pub stop: bool,
    /// SIGQUIT: at once.
    pub quit: bool,
    /// SIGHUP, however many.
    pub reload: bool,
    /// SIGCHLD.
    pub reap: bool,
}

impl Signals {
    /// From here on these signals wait until they are read. SIGUSR1 and SIGUSR2 are among them and mean
    /// nothing: they must not end a queue because someone mistook its pid. Children start with none blocked
    /// ([`super::exec::start`] sees to that).
    pub(super) fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGCHLD,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd })
    }

    /// All that came, each once.
    pub(super) fn read(&self) -> Wishes {
        let mut wishes = Wishes::default();
        while let Ok(Some(info)) = self.fd.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => wishes.stop = true,
                Ok(Signal::SIGHUP) if info.ssi_code == SI_KERNEL => wishes.stop = true,
                Ok(Signal::SIGHUP) => wishes.reload = true,
                Ok(Signal::SIGQUIT) => wishes.quit = true,
                Ok(Signal::SIGCHLD) => wishes.reap = true,
                _ => {}
            }
        }
        wishes
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
