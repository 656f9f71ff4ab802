//! A server whose memory is full (`maxmemory` with `noeviction`): nothing new begins, and whatever is there goes on, since
//! only that frees memory. It is known by what the server says to the script that it may refuse.

use std::time::{Duration, Instant};

use super::args::Args;
use super::script::Full;
use super::store::Store;
use crate::link::redis::fault::Reason;
use crate::model::op::{Fault, Op};

/// How often it is asked whether there is room again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Whether there is room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The script that may be refused is to be used.
    pub(super) careful: bool,
    /// There is none; when it is asked for again.
    probe: Option<Instant>,
}

impl Room {
    /// Which script the next operations are for.
    pub(super) fn script(&self) -> Full {
        if self.careful { Full::Refused } else { Full::Runs }
    }

    /// Whether there is none.
    pub(super) fn is_full(&self) -> bool {
        self.probe.is_some()
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.probe
    }
}

/// Whether an operation puts something into the store that was not there.
pub(super) fn begins(op: &Op) -> bool {
    matches!(
        op,
        Op::Publish { .. }
            | Op::Requeue { .. }
            | Op::Once { .. }
            | Op::Tick { .. }
            | Op::Launch { .. }
            | Op::RetryFlow { .. }
    )
}

/// Whether this is what a full server says.
pub(super) fn says_full(fault: &Fault) -> bool {
    matches!(fault, Fault::Again(why) if why.starts_with(Reason::OutOfMemory.sentence()))
}

impl Store {
    /// The server said that it is full.
    pub(super) fn became_full(&mut self) {
        if !self.room.is_full() {
            let reason = Reason::OutOfMemory;
            self.shared.set_trouble(Some(format!("{}: {}", reason.sentence(), reason.help())));
            self.done.wake();
        }
        self.room.probe = Some(Instant::now() + PROBE_EVERY);
    }

    /// Something that needs memory was done.
    pub(super) fn has_room(&mut self) {
        if self.room.probe.take().is_some() {
            self.shared.set_trouble(None);
            self.wake.call(super::Woken::All);
            self.done.wake();
        }
    }

    /// Asks whether there is room again, where it is time to.
    pub(super) fn probe(&mut self) {
        if self.room.next().is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.room.careful = true;
        let asked = self.ask("probe", Args::default());
        self.room.careful = false;
        match asked {
            Ok(_) => self.has_room(),
            Err(fault) if says_full(&fault) => self.became_full(),
            // What is wrong otherwise has words of its own.
            Err(_) => self.room.probe = Some(Instant::now() + PROBE_EVERY),
        }
    }
}
