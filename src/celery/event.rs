//! Events: what Flower, `celery events` and other workers listen to.
//!
//! There is no `utcoffset` in them: receivers shift the timestamp by the difference to their own, which makes it
//! wrong for every sender whose process and clock differ in zone (measured; without it all of them are right).

use super::call::Call;
use super::envelope::{Address, Envelope};
use super::json::build::{Object, list};
use super::json::{Fields, Json, Kind, Raw};
use super::moment::unix;
use super::repr;
use super::result::exception::Exception;
use crate::model::time::Wall;

/// The exchange of events.
pub const EXCHANGE: &str = "celeryev";

/// The routing key of task events, which are sent many at a time.
pub const TASKS: &str = "task.multi";

/// Who speaks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The node: `name@host`.
    pub node: &'a str,
    /// Its process.
    pub pid: u32,
    /// Its logical clock ([`super::control::clock`]).
    pub clock: u64,
    /// The time.
    pub at: Wall,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vitals<'a> {
    /// Seconds between heartbeats; a receiver believes it dead after twice as many without one.
    pub freq: f64,
    /// Attempts running.
    pub active: u64,
    /// Attempts done since it started.
    pub processed: u64,
    /// The system's load over 1, 5 and 15 minutes.
    pub loadavg: [f64; 3],
    /// The program.
    pub ident: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// The worker started.
    Online(Vitals<'a>),
    /// It lives.
    Heartbeat(Vitals<'a>),
    /// It ends.
    Offline(Vitals<'a>),
    /// A client or a worker sent a call to a queue.
    Sent {
        /// The call.
        call: &'a Call,
        /// The queue.
        queue: &'a str,
    },
    /// A call was taken in. Sent before every other of its events: without it Flower has no name for it.
    Received(&'a Call),
    /// It was started.
    Started(&'a str),
    /// It succeeded.
    Succeeded {
        /// The call's id.
        id: &'a str,
        /// Its result.
        result: &'a Raw,
        /// How long it ran, in seconds.
        runtime: f64,
    },
    /// It failed.
    Failed {
        /// The call's id.
        id: &'a str,
        /// With what.
        exception: &'a Exception,
        /// Text for people.
        traceback: Option<&'a str>,
    },
    /// It will be tried again.
    Retried {
        /// The call's id.
        id: &'a str,
        /// Why.
        exception: &'a Exception,
        /// Text for people.
        traceback: Option<&'a str>,
    },
    /// It was canceled, or expired.
    Revoked {
        /// The call's id.
        id: &'a str,
        /// While it ran.
        terminated: bool,
        /// By this signal.
        signum: Option<i32>,
        /// Because it was too late.
        expired: bool,
    },
    /// It was refused.
    Rejected {
        /// The call's id.
        id: &'a str,
        /// And went back to its queue.
        requeue: bool,
    },
    /// The answer to another worker's `worker-elect`.
    ElectAck(&'a str),
}

impl Event<'_> {
    /// Its type.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Online(_) => "worker-online",
            Self::Heartbeat(_) => "worker-heartbeat",
            Self::Offline(_) => "worker-offline",
            Self::Sent { .. } => "task-sent",
            Self::Received(_) => "task-received",
            Self::Started(_) => "task-started",
            Self::Succeeded { .. } => "task-succeeded",
            Self::Failed { .. } => "task-failed",
            Self::Retried { .. } => "task-retried",
            Self::Revoked { .. } => "task-revoked",
            Self::Rejected { .. } => "task-rejected",
            Self::ElectAck(_) => "worker-elect-ack",
        }
    }

    /// The routing key of one that is sent alone.
    #[must_use]
    pub fn routing_key(&self) -> String {
        self.word().replace('-', ".")
    }

    /// Whether it is about a task, so that it may go with others ([`TASKS`]).
    #[must_use]
    pub fn is_task(&self) -> bool {
        self.word().starts_with("task-")
    }

    /// The event's object.
    #[must_use]
    pub fn write(&self, source: Source<'_>) -> Raw {
        let clock = i64::try_from(source.clock).unwrap_or(i64::MAX);
        let object =
            Object::new().text("hostname", source.node).int("pid", i64::from(source.pid)).int("clock", clock);
        self.own(object).float("timestamp", unix(source.at)).text("type", self.word()).done()
    }

    fn own(&self, object: Object) -> Object {
        match *self {
            Self::Online(vitals) | Self::Heartbeat(vitals) | Self::Offline(vitals) => {
                let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                object
                    .float("freq", vitals.freq)
                    .int("active", count(vitals.active))
                    .int("processed", count(vitals.processed))
                    .with("loadavg", &list(&vitals.loadavg.map(Raw::of_float)))
                    .text("sw_ident", vitals.ident)
                    .text("sw_ver", vitals.version)
                    .text("sw_sys", "Linux")
            }
            Self::Sent { call, queue } => described(object, call)
                .text("queue", queue)
                .text("exchange", &call.address.exchange)
                .text("routing_key", &call.address.routing_key),
            Self::Received(call) => described(object, call),
            Self::Started(id) => object.text("uuid", id),
            Self::Succeeded { id, result, runtime } => object
                .text("uuid", id)
                .text("result", &repr::short(result.json(), repr::MAX_ARGS))
                .float("runtime", runtime),
            Self::Failed { id, exception, traceback } | Self::Retried { id, exception, traceback } => {
                let object = object.text("uuid", id).text("exception", &exception.repr());
                match traceback {
                    Some(text) => object.text("traceback", text),
                    None => object,
                }
            }
            Self::Revoked { id, terminated, signum, expired } => {
                let signum = signum.map_or_else(Raw::null, |signal| Raw::of_int(i64::from(signal)));
                object
                    .text("uuid", id)
                    .bool("terminated", terminated)
                    .with("signum", &signum)
                    .bool("expired", expired)
            }
            Self::Rejected { id, requeue } => object.text("uuid", id).bool("requeue", requeue),
            Self::ElectAck(id) => object.text("id", id),
        }
    }
}

fn described(object: Object, call: &Call) -> Object {
    let shown = |own: &Option<String>, other: String| own.clone().unwrap_or(other);
    let args = shown(&call.args_repr, repr::arguments(call.args.json(), repr::MAX_ARGS));
    let kwargs = shown(&call.kwargs_repr, repr::short(call.kwargs.json(), repr::MAX_ARGS));
    object
        .text("uuid", &call.id)
        .text("name", call.shown())
        .text("args", &args)
        .text("kwargs", &kwargs)
        .text("root_id", call.root())
        .option("parent_id", call.parent_id.as_deref())
        .int("retries", i64::from(call.retries))
        .option("eta", call.eta.as_ref().map(|eta| eta.text.as_str()))
        .option("expires", call.expires.as_ref().map(|expires| expires.text.as_str()))
}

/// The message of one event, to its own routing key.
#[must_use]
pub fn one(event: &Event<'_>, source: Source<'_>, tag: &str) -> Envelope {
    sent(&event.write(source), source.node, &event.routing_key(), tag)
}

/// The message of several task events, written before.
#[must_use]
pub fn several(events: &[Raw], node: &str, tag: &str) -> Envelope {
    sent(&list(events), node, TASKS, tag)
}

fn sent(body: &Raw, node: &str, routing_key: &str, tag: &str) -> Envelope {
    let address = Address { exchange: EXCHANGE.to_owned(), routing_key: routing_key.to_owned() };
    let headers = [("hostname".to_owned(), Raw::of_text(node))].into_iter().collect();
    Envelope::new(body, headers, Envelope::properties_to(&address, tag, false))
}

/// An event of another worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its type.
    pub word: String,
    /// Who sent it.
    pub node: String,
    /// Its logical clock; 0 where it says none.
    pub clock: u64,
    /// All of it.
    pub fields: Fields,
}

/// The events of a message; what is none is left out, as there is nobody to tell.
#[must_use]
pub fn heard(envelope: &Envelope, max_body: usize) -> Vec<Heard> {
    let Ok(text) = envelope.text(max_body) else { return Vec::new() };
    let Ok(body) = Json::parse(&text) else { return Vec::new() };
    let events = if body.kind() == Kind::Object { vec![body] } else { body.items().unwrap_or_default() };
    let one = |event: Json<'_>| {
        let fields = Fields::of(event)?;
        let clock = fields.get("clock").and_then(Json::as_i64).and_then(|clock| u64::try_from(clock).ok());
        Some(Heard {
            word: fields.text("type")?,
            node: fields.text("hostname")?,
            clock: clock.unwrap_or(0),
            fields,
        })
    };
    events.into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_says_an_offset_and_each_says_what_is_mandatory() {
        let call = Call::new("t", "i");
        let vitals = Vitals {
            freq: 2.0,
            active: 1,
            processed: 2,
            loadavg: [0.5, 1.0, 0.0],
            ident: "taskd",
            version: "1",
        };
        let exception = Exception::not_registered("t");
        let result = Raw::of_int(5);
        for event in [
            Event::Online(vitals),
            Event::Sent { call: &call, queue: "q" },
            Event::Received(&call),
            Event::Started("i"),
            Event::Succeeded { id: "i", result: &result, runtime: 0.5 },
            Event::Failed { id: "i", exception: &exception, traceback: None },
            Event::Revoked { id: "i", terminated: true, signum: Some(15), expired: false },
            Event::Rejected { id: "i", requeue: false },
            Event::ElectAck("e"),
        ] {
            let source = Source { node: "n@h", pid: 7, clock: 9, at: Wall(1500) };
            let envelope = one(&event, source, "tag");
            let heard = heard(&envelope, 10_000);
            let [heard] = heard.as_slice() else { panic!("{event:?}") };
            assert_eq!((heard.word.as_str(), heard.node.as_str(), heard.clock), (event.word(), "n@h", 9));
            assert_eq!(heard.fields.get("timestamp").unwrap().text(), "1.5");
            assert!(heard.fields.get("utcoffset").is_none());
            assert_eq!(event.is_task(), heard.fields.get("uuid").is_some());
        }
    }
}
