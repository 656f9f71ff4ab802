//! Remote control: what `celery inspect`, `celery control`, `app.control` and Flower ask, and the replies.

mod command;
mod matcher;
pub mod reply;
pub mod report;
mod request;

pub use command::{Command, Consumer};
pub use request::{ReplyTo, Request};

/// The exchange of requests: everybody hears them.
pub const EXCHANGE: &str = "celery.pidbox";

/// The next value of the logical clock: of one's own before something is sent, and after something came with the
/// other's.
#[must_use]
pub const fn clock(own: u64, other: u64) -> u64 {
    let greatest = if own > other { own } else { other };
    greatest.saturating_add(1)
}
