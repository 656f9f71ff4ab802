//! Addresses of brokers in the config: what is wrong is told at its place, and no password is shown anywhere.

use taskd::config::keys::{Kind, TASKD};
use taskd::config::redis::SCHEMES;
use taskd::config::settings::{CeleryControl, Settings};
use taskd::config::{changes, credential};

use super::{faults, good, laptop, load};

/// The faults of a broker's address: `LINE:COLUMN MESSAGE`, and what the report looks like.
fn told(value: &str) -> (Vec<String>, String) {
    let text = format!("[taskd]\nbroker = \"{value}\"\n");
    let report = load(&text, &laptop()).unwrap_err();
    let all = report.to_json();
    let line = |f: &serde_json::Value| {
        format!("{}:{} {} | {}", f["line"], f["column"], f["message"].as_str().unwrap(), f["help"])
    };
    (all.as_array().unwrap().iter().map(line).collect(), report.render(false) + &all.to_string())
}

#[test]
fn what_is_wrong_with_an_address_is_told_at_its_place() {
    for (value, wanted) in [
        ("redis://h/main", "2:10 `broker` has a path that is no number of a database"),
        (
            "redis://h?ssl_ca_cert=/a",
            "2:10 `broker` has the unknown option `ssl_ca_cert` | \"did you mean `ssl_ca_certs`?\"",
        ),
        ("redis+cluster://a,b", "2:10 `broker` names a Redis Cluster"),
        ("redis+sentinel://a,b", "2:10 `broker` names sentinels and no master"),
        ("amqp://h", "2:10 broker = \"amqp://…\" is not available yet"),
        ("postgres://h", "2:10 broker = \"postgres://…\" is not available yet"),
        ("redis://:hunter2@h:x", "2:10 `broker` has a port that is none"),
        ("redis+sentinel://a?sentinel_password=hunter2&db=x", "2:10 `broker` has a path"),
    ] {
        let (found, shown) = told(value);
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{value}: {found:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn every_scheme_is_offered() {
    for name in ["broker", "results"] {
        let key = TASKD.keys.iter().find(|key| key.name == name).unwrap();
        let Kind::Address(_, offered) = key.kind else { panic!("{name}") };
        assert!(SCHEMES.iter().all(|scheme| offered.contains(scheme)), "{name}: {offered:?}");
    }
}

/// Settings as they are once an address is served.
fn with_broker(address: &str) -> Settings {
    let mut settings = good("").settings;
    settings.taskd.broker = address.to_owned();
    settings
}

#[test]
fn a_reload_names_an_address_without_its_password() {
    let refused =
        |from: &str, to: &str| changes(&with_broker(from), &with_broker(to)).unwrap_err().join("\n");
    let moved = refused("redis://:hunter2@a", "redis://:hunter3@b");
    assert_eq!(moved, "[taskd] broker: redis://:***@a -> redis://:***@b needs a restart");
    let changed = refused("redis://:hunter2@a", "redis://:hunter3@a");
    assert_eq!(changed, "[taskd] broker: another password of redis://:***@a needs a restart");
}

#[test]
fn credentials_and_addresses_of_the_broker_are_named() {
    let mut settings = with_broker("redis://:${credential:redis}@a/1");
    settings.taskd.results = "redis://:${credential:other}@a/2".to_owned();
    assert_eq!(credential::needed(&settings), ["other", "redis"].into());
    let found = settings.taskd.addresses();
    assert_eq!(found.iter().map(|a| a.db).collect::<Vec<_>>(), [1, 2]);
    settings.taskd.results = settings.taskd.broker.clone();
    assert_eq!(settings.taskd.addresses().len(), 1);
    assert!(good("").settings.taskd.addresses().is_empty());
}

#[test]
fn an_external_task_has_no_program() {
    let found = faults("[tasks.a]\nexternal = true\ncommand = 'x'");
    assert!(
        found.iter().any(|f| f.starts_with("tasks.a.command: `external` and `command` exclude")),
        "{found:?}"
    );
    let found = faults("[defaults]\ncommand = 'x'\n[tasks.a]\nexternal = true");
    assert!(found.iter().all(|f| f.contains("not available yet")), "{found:?}");
    let found = faults("[tasks.a]\nexternal = false");
    assert!(found.iter().any(|f| f.contains("neither `command` nor `exec`")), "{found:?}");
    let found = faults("[access]\ncelery_control = 'write'");
    assert!(found.iter().any(|f| f.contains("celery_control")), "{found:?}");
    let settings = good("").settings;
    assert_eq!(settings.access.celery_control, CeleryControl::Yes);
    assert!(!settings.taskd.allow_eviction && !settings.queues["default"].shared);
}
