//! What a child that runs a Celery app is told of the message of a client beside arguments and names: the headers, the
//! properties and what follows the call, from which its `self.request` is made.
//!
//! It is made of the envelope when a run begins, not when a message is taken in: what runs as a program of its own
//! has no use for it, and in the store it would be there twice.

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::call::{Call, Protocol, Sending, Taking};
use super::envelope::Envelope;
use super::json::{Raw, value};

/// Largest body of an envelope that is read, in bytes.
const MAX_BODY: usize = 4 << 20;

/// `headers`, `properties` and `embed` of a client's message, whose envelope this is. Absent where it cannot be read,
/// which was seen when it was taken in.
#[must_use]
pub fn of(envelope: &str) -> Option<Value> {
    let envelope = Envelope::read(envelope.as_bytes()).ok()?;
    let taking = Taking { max_body: MAX_BODY, zone: TimeZone::system() };
    let call = Call::read(&envelope, &taking).ok()?;
    let embed = call.embed();
    // A message of protocol 1 has no headers to speak of: Celery's workers make those of protocol 2, too.
    let envelope = match call.protocol {
        Protocol::Two => envelope,
        Protocol::One => call.write(Sending {
            tag: &envelope.properties.text("delivery_tag").unwrap_or_default(),
            origin: &call.origin.clone().unwrap_or_default(),
            expiration_ms: None,
        }),
    };
    let convert = |raw: Raw| value::of(raw.json()).map(|converted| converted.value).ok();
    let mut given = Map::new();
    given.insert("headers".to_owned(), convert(envelope.headers.to_raw())?);
    given.insert("properties".to_owned(), convert(envelope.properties.to_raw())?);
    given.insert("embed".to_owned(), convert(embed)?);
    Some(Value::Object(given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(protocol: Protocol) -> Call {
        let mut call = Call::new("shop.add", "i");
        call.protocol = protocol;
        call.args = Raw::parse("[1, 2]").unwrap();
        call.chain = Some(vec![super::super::signature::Signature::new(
            "shop.mul",
            Raw::empty_list(),
            Raw::empty_object(),
        )]);
        call.time_limit_ms = Some(9_000);
        call.headers.set("tenant", Raw::of_text("x"));
        call
    }

    #[test]
    fn headers_properties_and_what_follows_are_told() {
        let sent = call(Protocol::Two).write(Sending { tag: "t", origin: "gen1@h", expiration_ms: None });
        let given = of(sent.write().text()).unwrap();
        assert_eq!(given["headers"]["tenant"], "x");
        assert_eq!(given["headers"]["timelimit"], json!([9, null]));
        assert_eq!(given["headers"]["origin"], "gen1@h");
        assert_eq!(given["properties"]["correlation_id"], "i");
        assert_eq!(given["embed"]["chain"][0]["task"], "shop.mul");
        assert_eq!((&given["embed"]["callbacks"], &given["embed"]["chord"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn what_is_no_envelope_tells_nothing() {
        assert_eq!(of("{"), None);
        assert_eq!(of("{}"), None);
    }
}
