//! Replies as clients expect them.

use super::request::Request;
use crate::celery::envelope::{Address, Envelope};
use crate::celery::json::build::Object;
use crate::celery::json::{Fields, Raw};
use crate::celery::repr;

/// A node's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done; what to say of it.
    Done(String),
    /// It was not; why.
    Error(String),
    /// What was asked for.
    Data(Raw),
}

impl Reply {
    /// Nothing is said, as of a heartbeat or a hello to oneself.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Data(Raw::null())
    }

    /// The reply's value.
    #[must_use]
    pub fn write(&self) -> Raw {
        match self {
            Self::Done(text) => Object::new().text("ok", text).done(),
            Self::Error(text) => Object::new().text("error", text).done(),
            Self::Data(data) => data.clone(),
        }
    }

    /// To a ping.
    #[must_use]
    pub fn pong() -> Self {
        Self::Done("pong".to_owned())
    }

    /// These are revoked.
    #[must_use]
    pub fn revoked<S: AsRef<str>>(ids: impl IntoIterator<Item = S>) -> Self {
        let ids: Vec<String> =
            ids.into_iter().map(|id| repr::full(Raw::of_text(id.as_ref()).json())).collect();
        let set = if ids.is_empty() { "set()".to_owned() } else { format!("{{{}}}", ids.join(", ")) };
        Self::Done(format!("tasks {set} flagged as revoked"))
    }

    /// These were running and are ended.
    #[must_use]
    pub fn terminated<S: AsRef<str>>(ids: impl IntoIterator<Item = S>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        Self::Done(if ids.is_empty() {
            "terminate: tasks unknown".to_owned()
        } else {
            format!("terminate: {}", ids.join(", "))
        })
    }

    /// What has these stamps is revoked; with `terminate`, whether any was running.
    #[must_use]
    pub fn revoked_by_stamps(stamps: &Fields, terminate: bool, ended: bool) -> Self {
        let stamps = repr::full(stamps.to_raw().json());
        Self::Done(match (terminate, ended) {
            (false, _) => format!("headers {stamps} flagged as revoked, but not terminated"),
            (true, false) => format!("headers {stamps} were not terminated"),
            (true, true) => format!("headers {stamps} revoked"),
        })
    }

    /// A rate limit is set, or lifted.
    #[must_use]
    pub fn rate_limited(limited: bool) -> Self {
        let text =
            if limited { "new rate limit set successfully" } else { "rate limit disabled successfully" };
        Self::Done(text.to_owned())
    }

    /// That is no rate.
    #[must_use]
    pub fn no_rate(rate: &str) -> Self {
        let number = repr::full(Raw::of_text(rate).json());
        let text = format!("could not convert string to float: {number}");
        let text = repr::full(Raw::of_text(&text).json());
        Self::Error(format!("Invalid rate limit string: ValueError({text})"))
    }

    /// No task of this name.
    #[must_use]
    pub fn unknown_task() -> Self {
        Self::Error("unknown task".to_owned())
    }

    /// Time limits are set.
    #[must_use]
    pub fn time_limited() -> Self {
        Self::Done("time limits set successfully".to_owned())
    }

    /// A queue is read from now on.
    #[must_use]
    pub fn consuming(queue: &str) -> Self {
        Self::Done(format!("add consumer {queue}"))
    }

    /// It was before.
    #[must_use]
    pub fn consuming_already(queue: &str) -> Self {
        Self::Done(format!("already consuming from {}", repr::full(Raw::of_text(queue).json())))
    }

    /// A queue is read no longer.
    #[must_use]
    pub fn not_consuming(queue: &str) -> Self {
        Self::Done(format!("no longer consuming from {queue}"))
    }

    /// The pool grows or shrinks.
    #[must_use]
    pub fn pool_will(grow: bool) -> Self {
        Self::Done(if grow { "pool will grow" } else { "pool will shrink" }.to_owned())
    }

    /// Events are sent, or not; `already`: before it was asked.
    #[must_use]
    pub fn events(enabled: bool, already: bool) -> Self {
        let word = if enabled { "enabled" } else { "disabled" };
        Self::Done(format!("task events {}{word}", if already { "already " } else { "" }))
    }

    /// Something that a node does not do, as Celery refuses it: with a `ValueError`.
    #[must_use]
    pub fn refused(why: &str) -> Self {
        Self::Error(format!("ValueError({})", repr::full(Raw::of_text(why).json())))
    }
}

/// The message of a reply; absent where nobody waits for one. `clock` is the node's, counted up.
#[must_use]
pub fn message(request: &Request, node: &str, reply: &Reply, clock: u64, tag: &str) -> Option<Envelope> {
    let (to, ticket) = (request.reply_to.as_ref()?, request.ticket.as_ref()?);
    let body = Object::new().with(node, &reply.write()).done();
    let clock = Raw::of_int(i64::try_from(clock).unwrap_or(i64::MAX));
    let headers = [("ticket".to_owned(), Raw::of_text(ticket)), ("clock".to_owned(), clock)];
    let address = Address { exchange: to.exchange.clone(), routing_key: to.routing_key.clone() };
    Some(Envelope::new(&body, headers.into_iter().collect(), Envelope::properties_to(&address, tag, false)))
}

/// The list of Redis in which a client looks for replies.
#[must_use]
pub fn queue(to: &super::ReplyTo) -> String {
    format!("{}.{}", to.routing_key, to.exchange)
}
