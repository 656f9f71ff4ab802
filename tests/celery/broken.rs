//! Nothing that a peer sends makes taskd panic: captured messages, cut and changed at random.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use taskd::celery::call::{Call, Order};
use taskd::celery::canvas::builtin::Builtin;
use taskd::celery::canvas::{check, failed, joined, member, not_joined, succeeded};
use taskd::celery::control::Request;
use taskd::celery::envelope::{Envelope, Unacked};
use taskd::celery::event::heard;
use taskd::celery::json::{Json, Raw, value};
use taskd::celery::repr;
use taskd::celery::result::Meta;
use taskd::celery::result::chord::{Part, Tree};
use taskd::model::time::Wall;

use crate::fixtures::{all, plain, taking};

const LIMIT: usize = 1 << 16;

/// Everything that may come in over a connection, tried on these bytes.
fn take(bytes: &[u8]) {
    let _ = (Unacked::read(bytes), Part::read(bytes).map(|part| part.write()), Tree::read(bytes));
    if let Ok(meta) = Meta::read(bytes, LIMIT) {
        let _ = (meta.write(), meta.modeled(), meta.exception().map(|e| (e.repr(), e.message())));
    }
    let Ok(envelope) = Envelope::read(bytes) else { return };
    let written = envelope.write();
    assert_eq!(Envelope::read(written.text().as_bytes()).as_ref().map(|e| &e.body), Ok(&envelope.body));
    let _ = (envelope.priority(), envelope.known(), heard(&envelope, LIMIT));
    if let Ok(request) = Request::read(&envelope, LIMIT) {
        let _ = (request.command(), request.is_for("w1@lab"));
    }
    match Call::read(&envelope, &taking()) {
        Err(fault) => drop((fault.to_string(), fault.wrong.exception().write())),
        Ok(call) => {
            let _ = call.model("q", Wall(0), Order::LowFirst).map_err(|fault| fault.to_string());
            let _ = (Builtin::of(&call), call.retried(Wall(i64::MAX)));
            let checked = check(&call);
            let followed = succeeded(&call, &Raw::null(), Wall(i64::MAX)).is_ok()
                && failed(&call, Wall(0)).is_ok()
                && member(&call).is_none_or(|member| {
                    joined(&member, &[], &call, Wall(0)).is_ok()
                        && not_joined(&member, &call, Wall(0)).is_ok()
                });
            assert_eq!(checked.is_ok(), followed, "what is checked can be sent");
        }
    }
}

/// The captured texts: messages, events, requests, replies, metas.
fn texts() -> Vec<String> {
    let mut found = Vec::new();
    for file in all("") {
        let mut todo = vec![file.json()];
        while let Some(json) = todo.pop() {
            for (name, inner) in json.entries().unwrap_or_default() {
                match (name.as_str(), inner.as_text()) {
                    ("raw" | "body", Some(text)) => found.push(text),
                    _ => todo.push(inner),
                }
            }
            todo.extend(json.items().unwrap_or_default());
        }
    }
    assert!(found.len() > 150, "{}", found.len());
    found
}

/// Values that stand where they do not belong.
const ODD: &[&str] = &[
    "null",
    "0",
    "-1",
    "1e400",
    "NaN",
    "true",
    "\"\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "99999999999999999999",
    "{\"task\": \"celery.group\", \"subtask_type\": \"group\", \"kwargs\": {\"tasks\": []}}",
    "{\"task\": \"celery.chain\", \"subtask_type\": \"chain\", \"kwargs\": {\"tasks\": [{\"task\": \"a\"}, {\"task\": \"celery.group\", \"subtask_type\": \"group\", \"kwargs\": {\"tasks\": [{\"task\": \"b\"}]}}]}}",
];

/// The value with the `at`-th of its inner ones replaced.
fn replaced(json: Json<'_>, at: &mut usize, odd: &str) -> String {
    if *at == 0 {
        *at = usize::MAX;
        return odd.to_owned();
    }
    *at -= 1;
    if let Some(items) = json.items() {
        let items: Vec<String> = items.into_iter().map(|item| replaced(item, at, odd)).collect();
        return format!("[{}]", items.join(", "));
    }
    if let Some(entries) = json.entries() {
        let entries: Vec<String> = entries
            .into_iter()
            .map(|(name, inner)| format!("{}: {}", Raw::of_text(&name), replaced(inner, at, odd)))
            .collect();
        return format!("{{{}}}", entries.join(", "));
    }
    json.text().to_owned()
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The envelope of these parts, its body plain, so that changes reach the inside.
fn opened(text: &str) -> String {
    let Ok(envelope) = Envelope::read(text.as_bytes()) else { return text.to_owned() };
    let mut plain = envelope;
    if let Ok(body) = plain.text(LIMIT) {
        plain.headers.take("compression");
        plain.body = body.into_bytes();
        plain.encoding = taskd::celery::envelope::BodyEncoding::Plain;
        plain.properties.set("body_encoding", Raw::of_text("utf-8"));
    }
    plain.write().text().to_owned()
}

#[test]
fn a_value_in_the_wrong_place_is_refused_or_taken() {
    // Each place of each message once, with one of the odd values in turn.
    let mut tried = 0;
    for text in texts() {
        let text = opened(&text);
        let Ok(json) = Json::parse(&text) else { continue };
        let body = json.get("body").and_then(Json::as_text);
        for at in 0..count(&plain(json)) {
            let mut place = at;
            take(replaced(json, &mut place, ODD[at % ODD.len()]).as_bytes());
            tried += 1;
        }
        let Some(inner) = body.as_deref().and_then(|body| Json::parse(body).ok()) else { continue };
        let mut envelope = Envelope::read(text.as_bytes()).unwrap();
        for at in 0..count(&plain(inner)) {
            let mut place = at;
            envelope.body = replaced(inner, &mut place, ODD[(at + 7) % ODD.len()]).into_bytes();
            take(envelope.write().text().as_bytes());
            tried += 1;
        }
    }
    assert!(tried > 5000, "{tried}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(which: Index, edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6), cut: Option<Index>) {
        thread_local!(static TEXTS: Vec<String> = texts());
        let mut bytes = TEXTS.with(|texts| opened(&texts[which.index(texts.len())]).into_bytes());
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        take(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        take(&bytes);
    }

    #[test]
    fn json_is_read_as_serde_reads_it(text in "[\\[\\]{}:,\"\\\\ 0-9eE.+a-u-]{0,12}") {
        // What serde takes is taken, and is the same; what it refuses is refused but for Python's own words.
        match serde_json::from_str::<Value>(&text) {
            Ok(want) => {
                let json = Json::parse(&text).unwrap();
                prop_assert_eq!(value::of(json).unwrap().value, want);
                let _ = (repr::full(json), repr::short(json, 5));
            }
            Err(_) => if let Ok(json) = Json::parse(&text) {
                prop_assert!(!value::of(json).unwrap().exact || text.contains('"'), "{}", text);
            }
        }
    }
}
