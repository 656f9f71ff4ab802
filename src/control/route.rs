//! The one table of what can be asked: method, path, the right it needs, how it is read. What is not in
//! it does not exist. The server, the OpenAPI text and the test of all routes against all roles use it.

use schemars::{Schema, SchemaGenerator};

use super::access::Policy;
use super::api::{Error, ErrorKind, Peer, Request, Rights};
use super::route_input::Input;
pub use super::route_input::check_json;
pub use super::route_table::ROUTES;

/// Largest body that holds one message: the message's own bound and its envelope.
pub const SINGLE: usize = crate::model::message::MAX_BYTES + (64 << 10);

/// Largest body that holds many messages (bulk enqueue, import).
pub const BULK: usize = 8 << 20;

/// The method of a route; no other is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads; never changes anything.
    Get,
    /// Changes something.
    Post,
}

impl Method {
    /// As HTTP writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// The right that a route needs before its body is even read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `[access] read`.
    Read,
    /// `[access] enqueue` or a place in some task's `allow`; the handler checks each task.
    Enqueue,
    /// Any right at all; the handler lets pass who may read everything, or whose message it is.
    Own,
    /// `[access] admin`.
    Admin,
}

impl Need {
    /// Whether this peer may use a route of this need.
    #[must_use]
    pub fn permits(self, policy: &Policy, peer: &Peer, rights: &Rights) -> bool {
        match self {
            Self::Read => rights.read,
            Self::Enqueue => policy.may_enqueue_something(peer, rights),
            Self::Own => rights.read || policy.may_enqueue_something(peer, rights),
            Self::Admin => rights.admin,
        }
    }
}

/// A parameter of the query string.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// Its JSON type: `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// A schema, by the generator of the whole document.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route takes as its body.
#[derive(Clone, Copy)]
pub struct Body {
    /// Largest size, in bytes.
    pub limit: usize,
    /// Whether it may be left out.
    pub optional: bool,
    /// Its schema.
    pub schema: SchemaOf,
}

/// What a route answers.
#[derive(Clone, Copy)]
pub enum Shape {
    /// One JSON value.
    Json(SchemaOf),
    /// One JSON value a line.
    Lines(SchemaOf),
}

/// One row of the table.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; `{id}`, `{queue}` or `{task}` as a whole segment takes a name.
    pub path: &'static str,
    /// The right it needs.
    pub need: Need,
    /// The OpenAPI `operationId`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What its query string may hold.
    pub query: &'static [Query],
    /// Its body, if it takes one.
    pub body: Option<Body>,
    /// Its answer.
    pub answer: Shape,
    pub(super) parse: fn(&Input<'_>) -> Result<Request, Error>,
}

/// What a path leads to.
pub enum Found<'a> {
    /// A route and the name in its path.
    Route(&'static Route, Option<&'a str>),
    /// Other methods are served at this path.
    OtherMethod,
    /// Nothing.
    Nothing,
}

/// Finds the route of a method and a path (without its query string).
#[must_use]
pub fn find<'a>(method: &str, path: &'a str) -> Found<'a> {
    let mut other = false;
    for route in ROUTES {
        let Some(capture) = fits(route.path, path) else { continue };
        if route.method.name() == method {
            return Found::Route(route, capture);
        }
        other = true;
    }
    if other { Found::OtherMethod } else { Found::Nothing }
}

/// Whether a path is of this pattern, and the segment that stands where the pattern has `{…}`.
fn fits<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let (mut p, mut s) = (pattern.split('/'), path.split('/'));
    let mut capture = None;
    loop {
        match (p.next(), s.next()) {
            (None, None) => return Some(capture),
            (Some(want), Some(have)) if want == have => {}
            (Some(want), Some(have)) if want.starts_with('{') && !have.is_empty() => capture = Some(have),
            _ => return None,
        }
    }
}

impl Route {
    /// Reads a request of this route. `capture` is the name in its path, `query` the text after `?`.
    ///
    /// # Errors
    /// What is wrong with the name, the query or the body, in one line.
    pub fn request(&self, capture: Option<&str>, query: &str, body: &[u8]) -> Result<Request, Error> {
        let input = Input::new(self, capture, query, body)?;
        (self.parse)(&input)
    }

    /// The answer to a peer without the right.
    #[must_use]
    pub fn forbidden(&self, peer: &Peer) -> Error {
        let (what, lists, add) = match (self.need, self.method) {
            (Need::Read, _) => ("read", "[access] read does not name", "[access] read"),
            (Need::Enqueue, _) => (
                "enqueue",
                "neither [access] enqueue nor the allow of a task names",
                "[access] enqueue, or to the allow of a task",
            ),
            (Need::Own, Method::Get) => (
                "read",
                "neither [access] read nor [access] enqueue names",
                "[access] read, or for one's own messages to [access] enqueue",
            ),
            (Need::Own, Method::Post) => (
                "change messages",
                "neither [access] enqueue nor [access] admin names",
                "[access] admin, or for one's own messages to [access] enqueue",
            ),
            (Need::Admin, _) => ("administer", "[access] admin does not name", "[access] admin"),
        };
        let message = format!("you may not {what} here: {lists} you (uid {})", peer.uid);
        let hint = format!("add the user, or @ and one of its groups, to {add} in taskd's config");
        Error::new(ErrorKind::Forbidden, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_whole_or_not_at_all() {
        for (method, path, name, capture) in [
            ("POST", "/v1/messages", "enqueue", None),
            ("GET", "/v1/messages", "list", None),
            ("GET", "/v1/messages/abc", "message", Some("abc")),
            ("GET", "/v1/messages/abc/why", "why", Some("abc")),
            ("POST", "/v1/queues/mail/purge", "purge", Some("mail")),
        ] {
            let Found::Route(route, seen) = find(method, path) else { panic!("{path} not found") };
            assert_eq!((route.name, seen), (name, capture));
        }
        for path in ["", "/", "/v1", "/v1/messages/", "/v1/messages//why", "/v1/messages/a/b", "/v1/status/"]
        {
            assert!(matches!(find("GET", path), Found::Nothing), "{path}");
        }
        assert!(matches!(find("DELETE", "/v1/status"), Found::OtherMethod));
        assert!(matches!(find("POST", "/v1/status"), Found::OtherMethod));
    }

    #[test]
    fn every_get_only_reads_and_every_change_needs_more_than_read() {
        for route in ROUTES {
            if route.method == Method::Get {
                assert!(route.body.is_none(), "{} takes a body", route.path);
            } else {
                assert_ne!(route.need, Need::Read, "{} changes something", route.path);
            }
            let twins = ROUTES.iter().filter(|r| (r.method, r.path) == (route.method, route.path)).count();
            assert_eq!(twins, 1, "{} stands twice", route.path);
        }
    }

    #[test]
    fn who_may_not_is_told_what_and_which_list_decides() {
        let peer = Peer { uid: 7, gid: 7, groups: Vec::new(), pid: 1 };
        for (method, path, what, list) in [
            ("GET", "/v1/status", "read", "[access] read"),
            ("POST", "/v1/messages", "enqueue", "[access] enqueue"),
            ("GET", "/v1/messages/i/result", "read", "[access] read"),
            ("POST", "/v1/messages/i/cancel", "change messages", "[access] admin"),
            ("POST", "/v1/reload", "administer", "[access] admin"),
        ] {
            let Found::Route(route, _) = find(method, path) else { panic!("{path} not found") };
            let e = route.forbidden(&peer);
            assert!(e.message.starts_with(&format!("you may not {what} here: ")), "{e}");
            assert!(e.message.contains(list) && e.hint.unwrap().contains(list), "{path}");
        }
    }
}
