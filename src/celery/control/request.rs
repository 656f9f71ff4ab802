//! Requests as they come.

use super::matcher;
use crate::celery::envelope::Envelope;
use crate::celery::fault::{Fault, Wrong, kind};
use crate::celery::json::build::Object;
use crate::celery::json::{Fields, Json, Raw};

/// Where a reply goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The exchange; `reply.celery.pidbox`.
    pub exchange: String,
    /// The client.
    pub routing_key: String,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked.
    pub method: String,
    /// With what.
    pub arguments: Fields,
    /// The nodes that it is for; absent: all of them.
    pub destination: Option<Vec<String>>,
    /// A pattern for their names, and how it is read: `glob` or `pcre`.
    pub pattern: Option<(String, String)>,
    /// Names the request in its replies.
    pub ticket: Option<String>,
    /// Where replies go; absent: nobody waits for one.
    pub reply_to: Option<ReplyTo>,
    /// The client's logical clock.
    pub clock: u64,
    /// Unix time after which nobody waits any more; absent: it does not expire.
    pub expires: Option<f64>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// A serializer or shape that is not taken. Nobody is told: the client counts answers.
    pub fn read(envelope: &Envelope, max_body: usize) -> Result<Self, Fault> {
        let known = envelope.known();
        let text = envelope.text(max_body).map_err(|wrong| wrong.of(&known))?;
        let json = Json::parse(&text).map_err(|source| Wrong::Json { part: "request", source }.of(&known))?;
        Self::of(json, &envelope.headers).map_err(|wrong| wrong.of(&known))
    }

    fn of(json: Json<'_>, headers: &Fields) -> Result<Self, Wrong> {
        let fields = Fields::of(json).ok_or_else(|| kind("the request", "an object"))?;
        let method = fields.text("method").ok_or(Wrong::Missing("the request's method"))?;
        let arguments = match fields.some("arguments") {
            None => Fields::default(),
            Some(arguments) => Fields::of(arguments).ok_or_else(|| kind("arguments", "an object"))?,
        };
        let destination = match fields.some("destination") {
            None => None,
            Some(nodes) => {
                let nodes = crate::celery::call::read::texts(nodes);
                Some(nodes.ok_or_else(|| kind("destination", "an array of names"))?)
            }
        };
        let reply_to = fields.some("reply_to").and_then(|to| {
            Some(ReplyTo {
                exchange: to.get("exchange")?.as_text()?,
                routing_key: to.get("routing_key")?.as_text()?,
            })
        });
        let clock = headers.get("clock").and_then(Json::as_i64).and_then(|clock| u64::try_from(clock).ok());
        Ok(Self {
            method,
            arguments,
            destination,
            pattern: fields.text("pattern").zip(fields.text("matcher")),
            ticket: fields.text("ticket"),
            reply_to,
            clock: clock.unwrap_or(0),
            expires: headers.get("expires").and_then(Json::as_f64).filter(|at| *at > 0.0),
        })
    }

    /// The body of a request to all nodes, for who asks others.
    #[must_use]
    pub fn write(method: &str, arguments: &Raw, reply_to: &ReplyTo, ticket: &str) -> Raw {
        let to = Object::new()
            .text("exchange", &reply_to.exchange)
            .text("routing_key", &reply_to.routing_key)
            .done();
        Object::new()
            .text("method", method)
            .with("arguments", arguments)
            .null("destination")
            .null("pattern")
            .null("matcher")
            .text("ticket", ticket)
            .with("reply_to", &to)
            .done()
    }

    /// Whether the node of this name is meant.
    #[must_use]
    pub fn is_for(&self, node: &str) -> bool {
        if self.destination.as_ref().is_some_and(|nodes| nodes.iter().any(|name| name == node)) {
            return true;
        }
        match &self.pattern {
            Some((pattern, how)) if how == "pcre" => matcher::expression(pattern, node),
            Some((pattern, how)) if how == "glob" => matcher::glob(pattern, node),
            // Celery knows no other either.
            Some(_) => false,
            None => self.destination.is_none(),
        }
    }
}
