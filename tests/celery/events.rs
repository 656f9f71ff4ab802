//! Events: what taskd sends is what Celery sends, without the offset.

use serde_json::{Value, json};
use taskd::celery::call::Call;
use taskd::celery::envelope::Address;
use taskd::celery::event::{Event, Source, Vitals, heard, one, several};
use taskd::celery::json::{Fields, Json, Raw};
use taskd::celery::moment::Moment;
use taskd::celery::result::exception::Exception;
use taskd::model::time::Wall;

use crate::fixtures::{all, envelope, of_amqp, plain};

/// `ValueError('bang')` as an exception.
fn exception(repr: &str) -> Exception {
    if let Some(reason) = repr.strip_prefix("reject requeue=False: ") {
        // As a task of an app raises it.
        let args = vec![Raw::of_text(reason), Raw::of_bool(false)];
        return Exception { module: Some("celery.exceptions".into()), class: "Reject".into(), args };
    }
    let (class, arg) = repr.split_once('(').unwrap();
    Exception::new("builtins", class, [arg.trim_end_matches(')').trim_matches('\'').to_owned()])
}

/// The same event as taskd writes it.
fn written(fields: &Fields) -> Raw {
    let text = |name: &str| fields.text(name).unwrap_or_default();
    let int = |name: &str| fields.get(name).and_then(Json::as_i64).unwrap_or_default();
    let (id, node, kind) = (text("uuid"), text("hostname"), text("type"));
    let seconds = fields.get("timestamp").and_then(Json::as_f64).unwrap();
    let source = Source {
        node: &node,
        pid: u32::try_from(int("pid")).unwrap(),
        clock: u64::try_from(int("clock")).unwrap(),
        at: Wall((seconds * 1000.0).round() as i64),
    };
    let load: Vec<f64> = fields
        .get("loadavg")
        .and_then(Json::items)
        .unwrap_or_default()
        .iter()
        .map(|load| load.as_f64().unwrap())
        .collect();
    let (ident, version) = (text("sw_ident"), text("sw_ver"));
    let vitals = Vitals {
        freq: fields.get("freq").and_then(Json::as_f64).unwrap_or_default(),
        active: u64::try_from(int("active")).unwrap(),
        processed: u64::try_from(int("processed")).unwrap(),
        loadavg: load.try_into().unwrap_or_default(),
        ident: &ident,
        version: &version,
    };
    let mut call = Call::new(&text("name"), &id);
    call.args_repr = fields.text("args");
    call.kwargs_repr = fields.text("kwargs");
    call.root_id = fields.text("root_id");
    call.parent_id = fields.text("parent_id");
    call.retries = u32::try_from(int("retries")).unwrap();
    call.eta = fields.text("eta").map(|text| Moment { at: Wall(0), text });
    call.expires = fields.text("expires").map(|text| Moment { at: Wall(0), text });
    call.address = Address { exchange: text("exchange"), routing_key: text("routing_key") };
    let (queue, traceback) = (text("queue"), fields.text("traceback"));
    let raised = fields.text("exception").map(|repr| exception(&repr));
    let flag = |name: &str| fields.get(name).and_then(Json::as_bool).unwrap_or_default();
    let result = Raw::parse(&fields.text("result").unwrap_or_else(|| "null".into())).unwrap();
    let elected = text("id");
    let signum = fields.some("signum").map(|n| i32::try_from(n.as_i64().unwrap()).unwrap());
    let event = match kind.as_str() {
        "worker-online" => Event::Online(vitals),
        "worker-heartbeat" => Event::Heartbeat(vitals),
        "worker-offline" => Event::Offline(vitals),
        "task-sent" => Event::Sent { call: &call, queue: &queue },
        "task-received" => Event::Received(&call),
        "task-started" => Event::Started(&id),
        "task-succeeded" => {
            let runtime = fields.get("runtime").and_then(Json::as_f64).unwrap();
            Event::Succeeded { id: &id, result: &result, runtime }
        }
        "task-failed" => {
            Event::Failed { id: &id, exception: raised.as_ref().unwrap(), traceback: traceback.as_deref() }
        }
        "task-retried" => {
            Event::Retried { id: &id, exception: raised.as_ref().unwrap(), traceback: traceback.as_deref() }
        }
        "task-revoked" => {
            Event::Revoked { id: &id, terminated: flag("terminated"), signum, expired: flag("expired") }
        }
        "task-rejected" => Event::Rejected { id: &id, requeue: flag("requeue") },
        "worker-elect-ack" => Event::ElectAck(&elected),
        other => panic!("{other}"),
    };
    assert_eq!(event.routing_key(), kind.replace('-', "."));
    event.write(source)
}

/// What must be equal: all but the offset, and the time to the millisecond.
fn comparable(json: Json<'_>) -> Value {
    let mut value = plain(json);
    let map = value.as_object_mut().unwrap();
    map.remove("utcoffset");
    let ms = (map["timestamp"].as_f64().unwrap() * 1000.0).round();
    map.insert("timestamp".into(), json!(ms));
    value
}

#[test]
fn every_event_is_written_as_celery_writes_it() {
    let mut envelopes: Vec<_> = all("event_")
        .into_iter()
        .map(|file| (file.name.clone(), envelope(&file.json().get("raw").unwrap().as_text().unwrap())))
        .collect();
    envelopes.extend(all("amqp_event").into_iter().map(|file| {
        let envelope = of_amqp(file.json().get("message").unwrap()).unwrap();
        (file.name, envelope)
    }));
    let mut compared = 0;
    for (name, envelope) in envelopes {
        let heard = heard(&envelope, 1 << 20);
        assert!(!heard.is_empty(), "{name}");
        for event in heard {
            if event.word == "worker-elect" {
                continue; // the question; taskd only answers it
            }
            let ours = written(&event.fields);
            assert!(ours.json().get("utcoffset").is_none());
            assert_eq!(comparable(ours.json()), comparable(event.fields.to_raw().json()), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared}");
}

#[test]
fn envelopes_of_events_are_those_of_celery() {
    for file in all("event_") {
        let want = envelope(&file.json().get("raw").unwrap().as_text().unwrap());
        let first = heard(&want, 1 << 20).remove(0);
        let tag = want.delivery_tag().unwrap();
        let source = Source { node: &first.node, pid: 0, clock: 0, at: Wall(0) };
        let key = want.address().routing_key;
        let ours = if key == "task.multi" {
            several(&[Raw::null()], &first.node, &tag)
        } else if first.word == "worker-elect-ack" {
            one(&Event::ElectAck(""), source, &tag)
        } else if first.word.starts_with("worker-") && first.word != "worker-elect" {
            let vitals =
                Vitals { freq: 2.0, active: 0, processed: 0, loadavg: [0.0; 3], ident: "", version: "" };
            let event = match first.word.as_str() {
                "worker-online" => Event::Online(vitals),
                "worker-offline" => Event::Offline(vitals),
                _ => Event::Heartbeat(vitals),
            };
            one(&event, source, &tag)
        } else {
            continue;
        };
        assert_eq!(plain(ours.headers.to_raw().json()), plain(want.headers.to_raw().json()), "{}", file.name);
        assert_eq!(
            plain(ours.properties.to_raw().json()),
            plain(want.properties.to_raw().json()),
            "{}",
            file.name
        );
        assert_eq!(plain(ours.other.to_raw().json()), plain(want.other.to_raw().json()), "{}", file.name);
    }
}
