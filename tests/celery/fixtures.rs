//! The captured messages.

use jiff::tz::TimeZone;
use serde_json::Value;
use taskd::celery::call::{Call, Taking};
use taskd::celery::envelope::Envelope;
use taskd::celery::json::{Fields, Json, Raw, value};

/// One captured file.
pub struct Fixture {
    pub name: String,
    pub text: Raw,
}

/// Every file whose name begins with this, by name.
pub fn all(prefix: &str) -> Vec<Fixture> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/celery/golden");
    let mut found: Vec<Fixture> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| Fixture {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            text: Raw::parse(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        })
        .filter(|fixture| fixture.name.starts_with(prefix))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!found.is_empty(), "no {prefix}*");
    found
}

pub fn one(name: &str) -> Fixture {
    all(name).into_iter().find(|fixture| fixture.name == name).unwrap()
}

impl Fixture {
    pub fn json(&self) -> Json<'_> {
        self.text.json()
    }

    /// Which Celery sent it.
    pub fn version(&self) -> String {
        self.json().get("versions").and_then(|v| v.get("celery")?.as_text()).unwrap()
    }

    /// The messages as they lay in Redis.
    pub fn raws(&self) -> Vec<String> {
        let messages = self.json().get("messages").and_then(Json::items).unwrap_or_default();
        messages.iter().filter_map(|m| m.get("raw")?.as_text()).collect()
    }

    /// The messages as calls.
    pub fn calls(&self) -> Vec<Call> {
        self.raws().iter().map(|raw| call(&envelope(raw))).collect()
    }
}

pub fn envelope(raw: &str) -> Envelope {
    Envelope::read(raw.as_bytes()).unwrap()
}

pub fn taking() -> Taking {
    Taking { max_body: 1 << 20, zone: TimeZone::UTC }
}

pub fn call(envelope: &Envelope) -> Call {
    Call::read(envelope, &taking()).unwrap()
}

/// The envelope of a message that was captured on AMQP.
pub fn of_amqp(message: Json<'_>) -> Option<Envelope> {
    let props = message.get("properties").or_else(|| message.get("props"))?;
    let body = message.get("body_raw").or_else(|| message.get("body"))?.as_text()?;
    let decoded = message.get("body_decoded")?;
    let mut envelope = Envelope::new(
        &Raw::null(),
        props.get("headers").and_then(Fields::of).unwrap_or_default(),
        Fields::of(props)?,
    );
    envelope.body = match decoded.get("__hex__").and_then(Json::as_text) {
        Some(hex) => unhex(&hex),
        None => body.into_bytes(),
    };
    Some(envelope)
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// A value to compare by; members that are null may be left out with `dense`.
pub fn plain(json: Json<'_>) -> Value {
    value::of(json).unwrap().value
}

pub fn dense(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(dense).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, v)| (name, dense(v))).collect(),
        ),
        other => other,
    }
}

/// Headers, properties and body of an envelope, to compare; the body as a value.
pub fn parts(envelope: &Envelope) -> (Value, Value, Value) {
    let body = envelope.text(1 << 20).unwrap();
    let body = Json::parse(&body).unwrap();
    (plain(envelope.headers.to_raw().json()), plain(envelope.properties.to_raw().json()), plain(body))
}

#[test]
fn no_fixture_names_a_machine() {
    for fixture in all("") {
        for word in ["/home/", "/root/", "/usr/", "/tmp/", "/srv/", "/opt/"] {
            assert!(!fixture.text.text().contains(word), "{}: {word}", fixture.name);
        }
    }
}
