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
    assert!(found.iter().all(|f| f.contains("needs a broker that Celery workers read")), "{found:?}");
    let found = faults("[tasks.a]\nexternal = false");
    assert!(found.iter().any(|f| f.contains("neither `command` nor `exec`")), "{found:?}");
    let found = faults("[access]\ncelery_control = 'write'");
    assert!(found.iter().any(|f| f.contains("celery_control")), "{found:?}");
    let settings = good("").settings;
    assert_eq!(settings.access.celery_control, CeleryControl::Yes);
    assert!(!settings.taskd.allow_eviction && !settings.queues["default"].shared);
}

/// A config on Redis.
fn on_redis(text: &str) -> String {
    format!("[taskd]\nbroker = 'redis://h'\n{text}")
}

#[test]
fn an_external_task_goes_to_a_queue_of_celery_workers() {
    let settings = good(&on_redis(
        "[queues.both]\nshared = true\n[[routes]]\ntask = 'shop.mail'\nqueue = 'mail'\n\
         [tasks.'shop.*']\nexternal = true\n[tasks.'shop.mail']\nexternal = true\n\
         [tasks.named]\nexternal = true\nqueue = 'both'\n\
         [schedules.s]\ntask = 'named'\nevery = '1h'\nqueue = 'mail'\n",
    ))
    .settings;
    let route = |name: &str| settings.route(settings.task(name).unwrap()).to_owned();
    assert_eq!(
        (route("shop.mail"), route("shop.x"), route("named")),
        ("mail".into(), "celery".into(), "both".into())
    );
    assert_eq!(settings.outside().into_iter().collect::<Vec<_>>(), ["both", "celery", "mail"]);
    assert!(settings.takes_outside("both") && !settings.takes_outside("default"));
    for (text, wanted) in [
        (
            "[tasks.a]\nexternal = true\nqueue = 'default'",
            "goes to the queue `default`, which the pool `default` of taskd drains",
        ),
        ("[tasks.a]\nexternal = true\nmax_retries = 3", "`max_retries` has no effect on an external task"),
        ("[tasks.a]\nexternal = true\non_failure = false", "`on_failure` has no effect on an external task"),
        (
            "[tasks.a]\nexternal = true\n[schedules.s]\ntask = 'a'\nevery = '1h'\nqueue = 'none'",
            "there is no queue `none`",
        ),
        ("[[routes]]\ntask = 'b.*'\nqueue = 'none'\n[tasks.a]\nexternal = true", "there is no queue `none`"),
        (
            "[queues.q]\n[[routes]]\ntask = 'a.b'\nqueue = 'q'\n[tasks.'a.*']\nexternal = true",
            "which the pool `default` of taskd drains",
        ),
    ] {
        let found = faults(&on_redis(text));
        assert!(found.iter().any(|f| f.contains(wanted)), "{text}: {found:#?}");
    }
    let found = faults("[queues.q]\nshared = true");
    assert!(found.iter().any(|f| f.contains("a shared queue needs a broker")), "{found:?}");
}

#[test]
fn results_are_where_messages_are_or_nowhere() {
    let found = faults(&on_redis("results = 'redis://other'"));
    assert!(found.iter().any(|f| f.contains("is not available yet in this version")), "{found:?}");
    let none = good("[taskd]\nresults = 'none'\n[tasks.a]\ncommand = 'x'").settings;
    assert!(none.tasks["a"].ignore_result);
}
