//! Task messages: read as calls, written as they were.

use serde_json::{Value, json};
use taskd::celery::call::{Call, Order, Protocol, Sending};
use taskd::celery::envelope::{Envelope, Unacked};
use taskd::celery::fault::Wrong;
use taskd::celery::json::{Json, Raw};
use taskd::celery::repr;
use taskd::model::time::Wall;

use crate::fixtures::{all, call, dense, envelope, of_amqp, one, parts, plain, taking};

/// Files with messages that taskd refuses.
const REFUSED: &[&str] = &["task_bz2", "task_pickle", "v1_celery31_pickle"];

fn messages() -> Vec<(String, String, Envelope)> {
    let files = ["task_", "v1_", "worker_"].iter().flat_map(|prefix| all(prefix));
    files
        .flat_map(|file| {
            let version = if file.name.starts_with("v1_") { "v1".to_owned() } else { file.version() };
            file.raws()
                .into_iter()
                .map(|raw| (file.name.clone(), version.clone(), envelope(&raw)))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Written again as taskd would send it, with the envelope's own tag.
fn again(call: &Call, envelope: &Envelope) -> Envelope {
    let expiration = envelope.properties.text("expiration").and_then(|ms| ms.parse().ok());
    let tag = envelope.delivery_tag().unwrap();
    call.write(Sending { tag: &tag, origin: "", expiration_ms: expiration })
}

#[test]
fn every_envelope_is_written_as_it_was() {
    let all = messages();
    assert!(all.len() >= 70, "{}", all.len());
    for file in ["task_", "v1_", "worker_"].iter().flat_map(|prefix| all_raws(prefix)) {
        let (name, raw) = file;
        let written = envelope(&raw).write();
        assert_eq!(plain(written.json()), plain(Json::parse(&raw).unwrap()), "{name}");
        assert!(written.text().is_ascii());
    }
}

fn all_raws(prefix: &str) -> Vec<(String, String)> {
    all(prefix).into_iter().flat_map(|f| f.raws().into_iter().map(move |raw| (f.name.clone(), raw))).collect()
}

#[test]
fn every_call_is_read_and_written_as_celery_writes_it() {
    let mut equal = 0;
    for (name, version, envelope) in messages() {
        if REFUSED.contains(&name.as_str()) {
            continue;
        }
        let call = Call::read(&envelope, &taking()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let written = again(&call, &envelope);
        let (headers, properties, body) = parts(&written);
        assert_eq!(Call::read(&written, &taking()).unwrap().args, call.args, "{name}");
        if version == "v1" {
            assert_eq!(call.protocol, Protocol::One, "{name}");
            continue;
        }
        let (mut want_headers, mut want_properties, want_body) = parts(&envelope);
        // What is sent is not compressed; who retries names itself in a place that nobody reads.
        want_headers.as_object_mut().unwrap().remove("compression");
        want_properties.as_object_mut().unwrap().remove("origin");
        if version.starts_with('4') || version.starts_with("5.2") {
            for (key, value) in want_headers.as_object().unwrap() {
                assert_eq!(headers.get(key), Some(value), "{name}: {key}");
            }
        } else {
            assert_eq!(headers, want_headers, "{name}");
            equal += 1;
        }
        assert_eq!(dense(properties), dense(want_properties), "{name}");
        assert_eq!(body, want_body, "{name}");
    }
    assert!(equal > 50, "{equal}");
}

#[test]
fn what_is_refused_says_why_and_whose() {
    for name in REFUSED {
        for raw in one(name).raws() {
            let fault = Call::read(&envelope(&raw), &taking()).unwrap_err();
            match &fault.wrong {
                Wrong::Compression { compression } => assert_eq!(compression, "application/x-bz2"),
                Wrong::Pickle { .. } => assert!(name.contains("pickle")),
                other => panic!("{name}: {other}"),
            }
            let known = envelope(&raw).properties.text("correlation_id");
            assert!(known.is_some());
            assert_eq!(fault.known.id, known);
            assert!(fault.known.delivery_tag.is_some());
            assert_eq!(fault.wrong.exception().module.as_deref(), Some("kombu.exceptions"));
        }
    }
}

#[test]
fn arguments_are_shown_as_celery_shows_them() {
    let mut compared = 0;
    for (name, version, envelope) in messages() {
        // Where the client had tuples inside, dates or bytes, JSON does not say so.
        let lost = ["send_task", "map", "chunks", "unlock", "kwargs", "oddities"];
        if REFUSED.contains(&name.as_str()) || version == "v1" || lost.iter().any(|word| name.contains(word))
        {
            continue;
        }
        let call = call(&envelope);
        assert_eq!(Some(repr::arguments(call.args.json(), repr::MAX_ARGS)), call.args_repr, "{name}");
        assert_eq!(Some(repr::short(call.kwargs.json(), repr::MAX_ARGS)), call.kwargs_repr, "{name}");
        compared += 1;
    }
    assert!(compared > 45, "{compared}");
}

#[test]
fn what_no_strict_reader_takes_goes_through() {
    let file = one("task_json_oddities");
    let envelope = envelope(&file.raws()[0]);
    let call = call(&envelope);
    let items = call.args.json().items().unwrap();
    let texts: Vec<&str> = items.iter().take(5).map(|item| item.text()).collect();
    assert_eq!(texts, ["NaN", "Infinity", "1180591620717411303424", "-9223372036854775809", "1e+308"]);
    assert_eq!(items[5].text(), r#""\ud800 lone surrogate""#);
    // The shortened forms are those of the client, to the letter.
    assert_eq!(Some(repr::short(call.kwargs.json(), repr::MAX_ARGS)), call.kwargs_repr);
    let modeled = call.model("q", Wall(0), Order::LowFirst).unwrap();
    assert!(!modeled.exact);
    assert_eq!(modeled.message.args[0], json!("NaN"));
    assert_eq!(modeled.message.args[2], json!("1180591620717411303424"));
    assert_eq!(modeled.message.args[6], json!("\0nul"));
    // Forwarded, not a letter is lost.
    let (call_args, again) = (call.args.clone(), call.retried(Wall(0)));
    assert_eq!(again.args, call_args);
    let text = self::again(&again, &envelope).text(1 << 20).unwrap();
    assert!(text.starts_with(&format!("[{}", call_args.text())));
}

#[test]
fn every_field_is_read() {
    let call_of = |name: &str| one(name).calls().remove(0);
    let call = call_of("task_time_limits");
    assert!(call.time_limit_ms > call.soft_time_limit_ms && call.soft_time_limit_ms.is_some());
    let call = call_of("task_ignore_result");
    assert_eq!(
        (call.ignore_result, call.shadow.is_some(), call.headers.is_empty()),
        (Some(true), true, false)
    );
    assert_eq!(call_of("task_reply_to_send_task").ignore_result, None);
    assert_eq!(call_of("task_delay_args").ignore_result, Some(false));
    let call = call_of("task_stamped");
    assert_eq!(call.stamped_headers.as_deref(), Some(&["monitoring_id".to_owned(), "tags".to_owned()][..]));
    let value = Raw::of_text("b");
    assert!(call.stamped("tags", &[value.json()]) && !call.stamped("monitoring_id", &[value.json()]));
    assert!(!call.stamped("other", &[value.json()]));
    assert!(call_of("task_expires").expires.is_some());
    let naive = call_of("task_eta_naive").eta.unwrap();
    assert!(!naive.text.contains('+'), "{}", naive.text);
    assert_eq!(call_of("task_eta_aware").eta.unwrap().text.get(19..), Some("+02:00"));
    assert_eq!(call_of("task_priority").priority, 6);
    assert_eq!(call_of("task_queue").address.routing_key, "reports");
    assert_eq!(
        call_of("task_chord_celery44").chord.unwrap().other.get("chord_size").unwrap().as_i64(),
        Some(2)
    );
    let calls = one("worker_replaced").calls();
    assert_eq!(calls.last().unwrap().replaced_task_nesting, 1);
    let full = call_of("v1_full");
    assert_eq!((full.time_limit_ms, full.soft_time_limit_ms), (Some(9000), Some(8000)));
    assert_eq!((full.callbacks.unwrap().len(), full.errbacks.unwrap().len()), (1, 1));
    let chord = call_of("v1_chord");
    assert!(chord.group.is_some() && chord.group_index == Some(0) && chord.chord.is_some());
    let old = call_of("v1_celery31_chord");
    assert!(old.group.is_some() && old.group_index.is_none(), "3.1 sends no place");
}

#[test]
fn calls_become_messages_of_the_model() {
    for (name, _, envelope) in messages() {
        if REFUSED.contains(&name.as_str()) {
            continue;
        }
        let call = call(&envelope);
        let modeled =
            call.model("q", Wall(7), Order::LowFirst).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let message = modeled.message;
        assert_eq!((message.id.as_str(), message.task.as_str()), (call.id.as_str(), call.task.as_str()));
        assert_eq!(message.priority, 9 - call.priority);
        assert_eq!(json!(message.args), plain(call.args.json()), "{name}");
        assert_eq!(modeled.exact, name != "task_json_oddities", "{name}");
        let back = Call::of_message(&message, Order::LowFirst);
        assert_eq!(back.priority, call.priority);
        assert_eq!(plain(back.kwargs.json()), plain(call.kwargs.json()), "{name}");
    }
}

#[test]
fn a_retry_is_what_a_worker_sends() {
    let sent = one("worker_retry_resend").calls().remove(0);
    let mut first = sent.clone();
    (first.retries, first.eta, first.parent_id) = (0, None, None);
    let eta = sent.eta.clone().unwrap();
    let mut again = first.retried(eta.at);
    // Milliseconds are what the model has.
    assert!(again.eta.as_ref().unwrap().text.starts_with("2026-11-22T12:59:14.471"));
    again.eta = sent.eta.clone();
    assert_eq!(again, sent);
}

#[test]
fn messages_of_amqp_are_read_too() {
    let mut read = 0;
    for file in all("amqp_task_") {
        let json = file.json();
        let messages = json.get("messages").and_then(Json::items).unwrap_or_default();
        for message in messages.into_iter().chain(json.get("message")) {
            let call = call(&of_amqp(message).unwrap());
            assert!(call.task.starts_with("lab."), "{}", file.name);
            if file.name == "amqp_task_native_delayed" {
                assert!(call.eta.is_some() && call.headers.get("x-death").is_some());
                assert!(call.retried(Wall(0)).headers.is_empty());
            }
            read += 1;
        }
    }
    assert!(read >= 7, "{read}");
}

#[test]
fn an_entry_of_unacked_goes_there_and_back() {
    let file = one("redis_unacked_entry");
    let raw = file.json().get("raw").unwrap().as_text().unwrap();
    let entry = Unacked::read(raw.as_bytes()).unwrap();
    assert!(entry.envelope.redelivered());
    assert_eq!(entry.address.routing_key, "celery");
    assert_eq!(entry.envelope.delivery_tag(), file.json().get("field").unwrap().as_text());
    assert_eq!(plain(entry.write().json()), plain(Json::parse(&raw).unwrap()));
    // Marking one that was not gives the same.
    let strip = |value: &mut Value, at: &str| {
        value.pointer_mut(at).unwrap().as_object_mut().unwrap().remove("redelivered")
    };
    let mut fresh = plain(Json::parse(&raw).unwrap());
    strip(&mut fresh, "/0/headers");
    strip(&mut fresh, "/0/properties/delivery_info");
    let mut fresh = Unacked::read(fresh.to_string().as_bytes()).unwrap();
    assert!(!fresh.envelope.redelivered());
    fresh.envelope.mark_redelivered();
    assert_eq!(plain(fresh.write().json()), plain(Json::parse(&raw).unwrap()));
}
