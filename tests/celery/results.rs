//! Metas, exceptions and chord parts.

use taskd::celery::call::Call;
use taskd::celery::fault::Wrong;
use taskd::celery::json::Json;
use taskd::celery::result::exception::{About, Exception};
use taskd::celery::result::{Extended, Meta, Status, child};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;
use taskd::model::time::Wall;

use crate::fixtures::{all, one, plain, unhex};

const LIMIT: usize = 1 << 20;

fn metas() -> Vec<(String, String)> {
    let stored = all("result_").into_iter().flat_map(|file| {
        let stored = file.json().get("stored").and_then(Json::items).unwrap_or_default();
        let raws: Vec<String> = stored.iter().map(|s| s.get("raw").unwrap().as_text().unwrap()).collect();
        raws.into_iter().map(move |raw| (file.name.clone(), raw))
    });
    let rpc = all("amqp_rpc_result").into_iter().map(|file| {
        let body = file.json().get("message").and_then(|m| m.get("body")?.as_text()).unwrap();
        (file.name, body)
    });
    stored.chain(rpc).collect()
}

#[test]
fn every_meta_is_written_as_it_was() {
    let all = metas();
    assert!(all.len() > 30, "{}", all.len());
    for (name, raw) in all {
        let meta = Meta::read(raw.as_bytes(), LIMIT).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        // To the letter: members stand where Celery has them.
        assert_eq!(meta.write().text(), Json::parse(&raw).unwrap().text(), "{name}");
        let custom = matches!(meta.status, Status::Other(_));
        assert_eq!(meta.modeled().is_none(), custom, "{name}");
    }
}

/// The call that a captured meta is of, as far as the meta says.
fn call_of(meta: &Meta) -> Call {
    let mut call = Call::new("lab.add", &meta.id);
    (call.group, call.parent_id) = (meta.group_id.clone(), meta.parent_id.clone());
    if let Some(name) = meta.other.text("name") {
        call.task = name;
        call.args = meta.other.get("args").unwrap().to_raw();
        call.kwargs = meta.other.get("kwargs").unwrap().to_raw();
        call.retries = u32::try_from(meta.other.get("retries").unwrap().as_i64().unwrap()).unwrap();
        if let Some(names) = meta.other.get("stamped_headers") {
            let names = names.items().unwrap().into_iter().map(|n| n.as_text().unwrap());
            call.stamped_headers = Some(names.collect());
            for name in call.stamped_headers.iter().flatten() {
                call.stamps.set(name, meta.other.get(name).unwrap().to_raw());
            }
        }
    }
    call
}

#[test]
fn what_taskd_stores_is_what_celery_stores() {
    let time_limit = About { task: "", time_limit_ms: Some(1000) };
    let ran = |cause, message: &str| {
        let mut outcome = Outcome::of_cause(cause, message);
        outcome.started = Some(Wall(1));
        outcome
    };
    let error = |kind: &str, message: &str| {
        let mut outcome = ran(Cause::Error { fatal: false }, message);
        outcome.failure.as_mut().unwrap().kind = kind.into();
        outcome
    };
    let lost = "Worker exited prematurely: exitcode 3 Job: 9.";
    let mut compared = 0;
    for (name, raw) in metas() {
        let want = Meta::read(raw.as_bytes(), LIMIT).unwrap();
        let call = call_of(&want);
        let (state, outcome) = match (name.as_str(), &want.status) {
            (_, Status::Success) => {
                let mut outcome = ran(Cause::Exit { code: 0 }, "");
                outcome.result = Some(plain(want.result.json()));
                (State::Success, outcome)
            }
            ("result_failure_builtin" | "amqp_rpc_result_failure", _) => {
                (State::Failure, error("ValueError", "bang"))
            }
            (
                "result_failure_local_class" | "result_failure_odd_args" | "result_failure_custom",
                Status::Failure,
            ) => {
                continue;
            }
            ("result_retry" | "amqp_rpc_result_retry" | "result_maxretries", Status::Retry) => {
                let message = Exception::read(want.result.json()).message();
                (State::Retry, error("RuntimeError", &message))
            }
            ("result_maxretries", Status::Failure) => {
                let message = Exception::read(want.result.json()).message();
                (State::Failure, error("RuntimeError", &message))
            }
            ("result_expired", _) => (State::Expired, Outcome::of_cause(Cause::Expired, "")),
            ("result_revoked_terminated" | "amqp_rpc_result_revoked", _) => {
                (State::Revoked, ran(Cause::Revoked, ""))
            }
            ("result_revoked_scheduled", _) => (State::Revoked, Outcome::of_cause(Cause::Revoked, "")),
            ("result_time_limit_hard", Status::Failure) => {
                (State::Failure, ran(Cause::TimeLimit { soft: false }, ""))
            }
            ("result_time_limit_soft", Status::Failure) => {
                (State::Failure, ran(Cause::TimeLimit { soft: true }, ""))
            }
            ("result_worker_lost", Status::Failure) => (State::Failure, ran(Cause::WorkerLost, lost)),
            // Raised by the task itself: an app's own words, and not what taskd says of a call that does not fit.
            ("result_rejected", Status::Failure) => continue,
            (_, Status::Started) => {
                let pid = want.result.json().get("pid").unwrap().as_i64().unwrap();
                let meta = Meta::started(&call, u32::try_from(pid).unwrap(), "w1@lab");
                let extended = Extended { worker: "w1@lab".into(), queue: "celery".into() };
                assert_eq!(meta.extended(&call, &extended).write(), want.write(), "{name}");
                compared += 1;
                continue;
            }
            _ => continue,
        };
        let children = want.children.clone().unwrap_or_default();
        let mut meta = Meta::of_outcome(&call, state, &outcome, time_limit, children, Wall(0)).unwrap();
        if want.other.get("name").is_some() {
            meta = meta.extended(&call, &Extended { worker: "w1@lab".into(), queue: "celery".into() });
        }
        // Text for people and the time are not ours to compare; that there is a time is.
        assert_eq!(meta.date_done.is_some(), want.date_done.is_some(), "{name}");
        (meta.traceback, meta.date_done) = (want.traceback.clone(), want.date_done.clone());
        if want.children.is_none() {
            meta.children = None;
        }
        assert_eq!(meta.write().text(), want.write().text(), "{name}");
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn classes_are_those_of_the_captures() {
    let of = |name: &str| {
        let (_, raw) = metas().into_iter().rfind(|(n, _)| n == name).unwrap();
        Meta::read(raw.as_bytes(), LIMIT).unwrap().exception().unwrap()
    };
    assert_eq!(of("result_not_registered"), Exception::not_registered("nope.unknown"));
    let bang = Exception::new("builtins", "ValueError", ["bang".to_owned()]);
    assert_eq!(of("result_chord_error"), Exception::chord("3d29b807-4838-42ce-9282-c24c34af36fa", &bang));
    assert_eq!(of("result_failure_custom").repr(), "MyError(42, 'custom')");
    assert_eq!(of("result_failure_custom").failure(None).kind, "labapp.MyError");
}

#[test]
fn children_are_result_tuples() {
    let raw = metas().into_iter().find(|(name, _)| name == "result_with_children").unwrap().1;
    let meta = Meta::read(raw.as_bytes(), LIMIT).unwrap();
    assert_eq!(meta.children, Some(vec![child("ff3c0231-8815-4a05-b013-6b204316cde1")]));
}

#[test]
fn compressed_results_are_read_and_pickled_ones_refused() {
    let bytes = |name: &str| unhex(&one(name).json().get("raw_hex").unwrap().as_text().unwrap());
    let meta = Meta::read(&bytes("result_compressed_gzip"), LIMIT).unwrap();
    assert!(meta.status.is_ready());
    assert_eq!(Meta::read(&bytes("result_compressed_gzip"), 50), Err(Wrong::TooLarge { limit: 50 }));
    assert!(matches!(Meta::read(&bytes("result_pickle"), LIMIT), Err(Wrong::Pickle { .. })));
}
