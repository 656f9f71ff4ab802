//! Signals of a process that supervises: taken off a descriptor, never by a handler.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// A child changed its state (SIGCHLD; several count as one).
    pub child: bool,
    /// SIGTERM.
    pub terminate: bool,
    /// SIGINT.
    pub interrupt: bool,
}

/// SIGCHLD, SIGTERM, SIGINT, SIGHUP and SIGPIPE of this process, blocked and readable until dropped.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals for this thread (call it before any other thread exists) and opens the descriptor.
    ///
    /// # Errors
    /// The kernel's answer (no descriptors or memory left).
    pub fn new() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        // SIGPIPE and SIGHUP are read and forgotten: a broken pipe is seen by the write itself, and a
        // terminal that goes away is the launcher's business.
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
            set.add(signal);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { fd, before })
    }

    /// What came since the last call; never blocks.
    #[must_use]
    pub fn take(&self) -> Came {
        let mut came = Came::default();
        while let Ok(Some(info)) = self.fd.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => came.child = true,
                Ok(Signal::SIGTERM) => came.terminate = true,
                Ok(Signal::SIGINT) => came.interrupt = true,
                _ => {}
            }
        }
        came
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Cannot fail with a set that was the mask before.
        let _ = self.before.thread_set_mask();
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
