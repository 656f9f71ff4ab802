//! A real taskd in a directory of its own: started, asked, watched, killed, cleaned up. Shared by the
//! integration tests, the journal test and the benches.
#![allow(dead_code, reason = "each user of the harness needs another part of it")]
#![allow(unused_imports, reason = "likewise")]

pub mod fifo;
pub mod http;
pub mod node;
pub mod notify;
pub mod procs;
pub mod ran;

pub use fifo::Fifo;
pub use http::Http;
pub use node::{Node, Setup};
pub use ran::Ran;

use std::time::{Duration, Instant};

/// How long anything that must happen may take on a busy machine before a test calls it missing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until `look` finds something; panics with `what` when it does not within [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
