//! kombu's envelope: one JSON object around a message, as it lies in a Redis list and goes over pub/sub.
//!
//! A message of AMQP has the same parts in other places (celery's headers are the field table, the properties its
//! own, the body is bare); [`Envelope::new`] takes them.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::content;
use super::fault::{Fault, Known, Wrong, kind};
use super::json::build::{Object, list};
use super::json::{Fields, Json, Kind, Raw};

/// Python's decoder takes what its encoder never writes; so does this one.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How the body stands in the envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEncoding {
    /// As base64; kombu's default.
    #[default]
    Base64,
    /// As it is: it is text.
    Plain,
}

/// A message with its envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The body's bytes, serialized and maybe compressed.
    pub body: Vec<u8>,
    /// How they stand in the envelope.
    pub encoding: BodyEncoding,
    /// The headers; a task's description in protocol 2.
    pub headers: Fields,
    /// The properties, `delivery_info` among them.
    pub properties: Fields,
    /// The other members: content type and encoding, and what else a peer put there.
    pub other: Fields,
}

/// Where a message is sent: kombu's exchange and routing key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The exchange; empty: the queue is named by the routing key.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

impl Address {
    /// A queue, named directly.
    #[must_use]
    pub fn queue(name: &str) -> Self {
        Self { exchange: String::new(), routing_key: name.to_owned() }
    }
}

impl Envelope {
    /// A message of these parts, with JSON as its body.
    #[must_use]
    pub fn new(body: &Raw, headers: Fields, properties: Fields) -> Self {
        let other = [("content-encoding", "utf-8"), ("content-type", content::JSON)];
        Self {
            body: body.text().as_bytes().to_vec(),
            encoding: BodyEncoding::Base64,
            headers,
            properties,
            other: other.map(|(name, value)| (name.to_owned(), Raw::of_text(value))).into_iter().collect(),
        }
    }

    /// The properties of a message to this address. `tag` is its key while it is not acknowledged, unique for each
    /// sending; without it a Celery worker takes the message and loses it. `durable`: kept over a broker's restart
    /// (AMQP only).
    #[must_use]
    pub fn properties_to(address: &Address, tag: &str, durable: bool) -> Fields {
        let info = Object::new()
            .text("exchange", &address.exchange)
            .text("routing_key", &address.routing_key)
            .done();
        [
            ("delivery_mode", Raw::of_int(if durable { 2 } else { 1 })),
            ("delivery_info", info),
            ("priority", Raw::of_int(0)),
            ("body_encoding", Raw::of_text("base64")),
            ("delivery_tag", Raw::of_text(tag)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// It is no object of the known shape, or its body is not what `body_encoding` says; what could be read of
    /// its owner is in the fault. The body itself is not looked at.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "envelope" }.alone())?;
        let json = Json::parse(text).map_err(|source| Wrong::Json { part: "envelope", source }.alone())?;
        Self::of(json)
    }

    fn of(json: Json<'_>) -> Result<Self, Fault> {
        let mut other = Fields::of(json).ok_or_else(|| kind("the envelope", "an object").alone())?;
        let mut envelope = Self::default();
        let headers = other.take("headers");
        let properties = other.take("properties");
        envelope.headers = object("headers", headers.as_ref()).map_err(Wrong::alone)?;
        // What the headers say is known even where the rest is broken.
        envelope.properties =
            object("properties", properties.as_ref()).map_err(|wrong| wrong.of(&envelope.known()))?;
        let body = other.take("body");
        envelope.other = other;
        let (body, encoding) = envelope.decode(body).map_err(|wrong| wrong.of(&envelope.known()))?;
        Ok(Self { body, encoding, ..envelope })
    }

    fn decode(&self, body: Option<Raw>) -> Result<(Vec<u8>, BodyEncoding), Wrong> {
        let body = body.ok_or(Wrong::Missing("the body"))?;
        let body = body.json().as_text().ok_or_else(|| kind("the body", "a string"))?;
        match self.properties.text("body_encoding").as_deref() {
            Some("base64") => {
                // Line ends are what Python's decoder leaves out.
                let dense: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                let bytes = LENIENT.decode(dense).map_err(|_| Wrong::Base64)?;
                Ok((bytes, BodyEncoding::Base64))
            }
            _ => Ok((body.into_bytes(), BodyEncoding::Plain)),
        }
    }

    /// Whose it is, as far as headers and properties say.
    #[must_use]
    pub fn known(&self) -> Known {
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        Known {
            id: named(self.headers.text("id")).or_else(|| named(self.properties.text("correlation_id"))),
            task: named(self.headers.text("task")),
            reply_to: self.reply_to(),
            delivery_tag: self.delivery_tag(),
        }
    }

    /// kombu's key of the delivery; absent in a broken message, and with AMQP.
    #[must_use]
    pub fn delivery_tag(&self) -> Option<String> {
        self.properties.text("delivery_tag").filter(|tag| !tag.is_empty())
    }

    /// Where a client of `rpc://` waits for the result.
    #[must_use]
    pub fn reply_to(&self) -> Option<String> {
        self.properties.text("reply_to").filter(|to| !to.is_empty())
    }

    /// The priority as it stands on the wire, 0 to 9 (which of them goes first, the broker decides: see
    /// [`super::call::Order`]). Celery 3.1 puts it beside the routing key. Absent or no number: 0.
    #[must_use]
    pub fn priority(&self) -> u8 {
        let own = self.properties.some("priority").and_then(Json::as_f64);
        let priority = own.or_else(|| self.info()?.get("priority")?.as_f64()).unwrap_or(0.0);
        // In range after the clamp; NaN becomes 0.
        priority.clamp(0.0, 9.0) as u8
    }

    /// Where it was sent.
    #[must_use]
    pub fn address(&self) -> Address {
        let part = |name| self.info().and_then(|info| info.get(name)?.as_text()).unwrap_or_default();
        Address { exchange: part("exchange"), routing_key: part("routing_key") }
    }

    /// Whether a peer had it before and gave it back.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        let said = |json: Option<Json<'_>>| json.and_then(Json::as_bool).unwrap_or(false);
        said(self.info().and_then(|info| info.get("redelivered"))) || said(self.headers.get("redelivered"))
    }

    /// Marks it as given back, in the two places where kombu does.
    pub fn mark_redelivered(&mut self) {
        self.headers.set("redelivered", Raw::of_bool(true));
        let mut info = self.info().and_then(Fields::of).unwrap_or_default();
        info.set("redelivered", Raw::of_bool(true));
        self.properties.set("delivery_info", info.to_raw());
    }

    fn info(&self) -> Option<Json<'_>> {
        self.properties.some("delivery_info")
    }

    /// The content type.
    #[must_use]
    pub fn content_type(&self) -> Option<String> {
        self.other.text("content-type")
    }

    /// The body as text, decompressed: at most `limit` bytes.
    ///
    /// # Errors
    /// A serializer, a compression or a size that is not taken; broken data.
    pub fn text(&self, limit: usize) -> Result<String, Wrong> {
        if self.body.len() > limit {
            return Err(Wrong::TooLarge { limit });
        }
        let (content_type, encoding) = (self.content_type(), self.other.text("content-encoding"));
        let compression = self.headers.text("compression").filter(|name| !name.is_empty());
        let inflated = match &compression {
            // A refused serializer is named as such even where its compression would be refused too.
            Some(name) => {
                content::text(b"", content_type.as_deref(), encoding.as_deref())?;
                Some(content::decompress(name, &self.body, limit)?)
            }
            None => None,
        };
        let bytes = inflated.as_deref().unwrap_or(&self.body);
        content::text(bytes, content_type.as_deref(), encoding.as_deref()).map(str::to_owned)
    }

    /// The envelope as it lies in a list: one JSON object in ASCII.
    #[must_use]
    pub fn write(&self) -> Raw {
        let plain = std::str::from_utf8(&self.body).ok().filter(|_| self.encoding == BodyEncoding::Plain);
        let (body, word) = match plain {
            Some(text) => (Raw::of_text(text), self.properties.text("body_encoding")),
            None => (Raw::of_text(&STANDARD.encode(&self.body)), Some("base64".to_owned())),
        };
        let mut properties = self.properties.clone();
        if let Some(word) = word {
            properties.set("body_encoding", Raw::of_text(&word));
        }
        let mut object = Object::new().with("body", &body);
        for (name, value) in self.other.iter() {
            object = object.with(name, &value.to_raw());
        }
        object.with("headers", &self.headers.to_raw()).with("properties", &properties.to_raw()).done()
    }
}

fn object(name: &'static str, value: Option<&Raw>) -> Result<Fields, Wrong> {
    match value {
        None => Ok(Fields::default()),
        Some(value) if value.json().is_null() => Ok(Fields::default()),
        Some(value) => Fields::of(value.json()).ok_or_else(|| kind(name, "an object")),
    }
}

/// A field of kombu's `unacked` hash: a message that somebody holds, and where it goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacked {
    /// The message.
    pub envelope: Envelope,
    /// Where it goes back to.
    pub address: Address,
}

impl Unacked {
    /// Reads an entry.
    ///
    /// # Errors
    /// It is no array of envelope, exchange and routing key.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "entry" }.alone())?;
        let json = Json::parse(text).map_err(|source| Wrong::Json { part: "entry", source }.alone())?;
        let items = json.items().unwrap_or_default();
        let [envelope, exchange, routing_key] = items.as_slice() else {
            return Err(kind("the entry", "an array of three").alone());
        };
        let envelope = Envelope::of(*envelope)?;
        let part = |json: &Json<'_>| match json.kind() {
            Kind::Null => Ok(String::new()),
            _ => {
                json.as_text().ok_or_else(|| kind("the entry's address", "two strings").of(&envelope.known()))
            }
        };
        let address = Address { exchange: part(exchange)?, routing_key: part(routing_key)? };
        Ok(Self { envelope, address })
    }

    /// The entry.
    #[must_use]
    pub fn write(&self) -> Raw {
        let (exchange, routing_key) =
            (Raw::of_text(&self.address.exchange), Raw::of_text(&self.address.routing_key));
        list([&self.envelope.write(), &exchange, &routing_key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Envelope, Fault> {
        Envelope::read(text.as_bytes())
    }

    #[test]
    fn a_broken_envelope_says_what_and_whose() {
        for (text, said, id) in [
            ("", "no JSON at byte 0", None),
            ("[]", "an object", None),
            (r#"{"body": "", "headers": 3}"#, "headers must be an object", None),
            (r#"{"headers": {"id": "a"}, "properties": []}"#, "properties must be an object", Some("a")),
            (r#"{"headers": {"id": "a"}}"#, "the body is missing", Some("a")),
            (r#"{"properties": {"correlation_id": "b"}, "body": 1}"#, "the body must be a string", Some("b")),
            (
                r#"{"properties": {"body_encoding": "base64"}, "headers": {"id": "a"}, "body": "?"}"#,
                "not base64",
                Some("a"),
            ),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.to_string().contains(said), "{text}: {fault}");
            assert_eq!(fault.known.id.as_deref(), id, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_forwarded() {
        let text = r#"{"body": "[1]", "content-type": "application/json", "new": [NaN], "headers": {"x": 1e400}, "properties": {"y": "\ud800"}}"#;
        let envelope = read(text).unwrap();
        assert_eq!(envelope.write().text(), text);
        assert_eq!(envelope.text(100).unwrap(), "[1]");
    }

    #[test]
    fn a_priority_is_found_where_each_version_puts_it() {
        for (properties, priority) in [
            ("{}", 0),
            (r#"{"priority": null}"#, 0),
            (r#"{"priority": 6}"#, 6),
            (r#"{"priority": 12}"#, 9),
            (r#"{"priority": -1}"#, 0),
            (r#"{"priority": NaN}"#, 0),
            (r#"{"delivery_info": {"priority": 3}}"#, 3),
            (r#"{"delivery_info": 5, "priority": "x"}"#, 0),
        ] {
            let text = format!(r#"{{"body": "", "properties": {properties}}}"#);
            assert_eq!(read(&text).unwrap().priority(), priority, "{properties}");
        }
    }
}
