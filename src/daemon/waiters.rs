//! Who waits for the end of a message: bounded, woken by the engine's notes.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// At most this many calls wait at once; more are answered at once with the state as it is.
pub const MAX: usize = 4096;

/// Waiting calls by message id.
#[derive(Debug, Default)]
pub struct Waiters {
    by_id: BTreeMap<String, Vec<oneshot::Sender<()>>>,
    count: usize,
    closed: bool,
}

impl Waiters {
    /// Resolves when the message is final; with an error when nobody may wait here any longer (the daemon
    /// hands over to another one). None: too many wait already.
    pub fn wait(&mut self, id: &str) -> Option<oneshot::Receiver<()>> {
        if self.closed {
            return Some(oneshot::channel().1);
        }
        if self.count >= MAX {
            self.forget_gone();
            if self.count >= MAX {
                return None;
            }
        }
        let (tx, rx) = oneshot::channel();
        self.by_id.entry(id.to_owned()).or_default().push(tx);
        self.count += 1;
        Some(rx)
    }

    /// Whether somebody waits for this message.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Wakes everybody who waits for this message.
    pub fn wake(&mut self, id: &str) {
        for tx in self.by_id.remove(id).unwrap_or_default() {
            self.count -= 1;
            let _ = tx.send(());
        }
    }

    /// Everybody who waits, now or from now on, is to ask the next daemon.
    pub fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    fn forget_gone(&mut self) {
        self.by_id.retain(|_, list| {
            list.retain(|tx| !tx.is_closed());
            !list.is_empty()
        });
        self.count = self.by_id.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_all_who_wait_and_forgets_who_left() {
        let mut w = Waiters::default();
        let mut a = w.wait("x").unwrap();
        let mut b = w.wait("x").unwrap();
        let mut other = w.wait("y").unwrap();
        w.wake("x");
        assert!(a.try_recv().is_ok() && b.try_recv().is_ok());
        assert!(other.try_recv().is_err());
        let many: Vec<_> = (0..MAX - 1).map(|_| w.wait("z").unwrap()).collect();
        assert!(w.wait("z").is_none(), "the bound is not kept");
        drop(many);
        assert!(w.wait("z").is_some(), "those who left still count");
        w.close();
        assert!(other.try_recv().is_err() && other.is_terminated());
        assert!(w.wait("y").unwrap().try_recv().is_err() && !w.has("y"));
    }
}
