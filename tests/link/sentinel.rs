//! The master is whom the sentinels name, and only if it says so itself.

use taskd::link::redis::fault::{Ask, Reason};
use taskd::link::redis::inspect;

use super::fake::{Fake, Say, good};
use super::opened;
use super::redis_server::{Redis, Sentinel, free_port};

#[test]
fn after_a_failover_the_other_server_is_found() {
    let first = Redis::start(&[]);
    let second = Redis::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    let sentinel = Sentinel::watching(&first, "");
    let dead = free_port();
    let url = format!("redis+sentinel://127.0.0.1:{dead},127.0.0.1:{}/2?master=main", sentinel.port);
    let mut connection = opened(&url).unwrap();
    let before = inspect(&mut connection, false).unwrap();
    assert!(connection.server().contains(&format!(":{}", first.port)), "{}", connection.server());
    redis::cmd("SET").arg("a").arg(1).exec(&mut connection).unwrap();

    sentinel.fail_over();
    let mut connection = opened(&url).unwrap();
    let after = inspect(&mut connection, false).unwrap();
    assert!(connection.server().contains(&format!(":{}", second.port)), "{}", connection.server());
    assert_ne!(before.run_id, after.run_id);

    let unknown = opened(&url.replace("=main", "=other")).unwrap_err();
    assert_eq!((unknown.fault.reason, unknown.ask()), (Reason::NoMaster, Ask::Reconnect));
    assert!(unknown.fault.said.contains(&format!("127.0.0.1:{dead}")), "{unknown}");
    assert!(unknown.fault.said.contains("knows no master \"other\""), "{unknown}");
    // A sentinel is no server.
    let direct = opened(&format!("redis://127.0.0.1:{}", sentinel.port));
    let error = direct.and_then(|mut c| inspect(&mut c, false)).unwrap_err();
    assert!(matches!(error.fault.reason, Reason::Sentinel), "{error}");
}

#[test]
fn sentinels_and_servers_have_passwords_of_their_own() {
    let server = Redis::start(&["--requirepass", "one"]);
    let sentinel = Sentinel::watching(&server, "sentinel auth-pass main one\nrequirepass two");
    let at = |who: &str, theirs: &str| {
        opened(&format!("redis+sentinel://{who}127.0.0.1:{}?master=main{theirs}", sentinel.port))
    };
    inspect(&mut at(":one@", "&sentinel_password=two").unwrap(), false).unwrap();
    inspect(&mut at(":one@", "&sentinel_username=default&sentinel_password=two").unwrap(), false).unwrap();
    let reason = |who: &str, theirs: &str| at(who, theirs).unwrap_err().fault.reason;
    assert_eq!(reason(":one@", "&sentinel_password=one"), Reason::NoMaster);
    assert_eq!(reason(":one@", ""), Reason::NoMaster);
    assert_eq!(reason(":two@", "&sentinel_password=two"), Reason::WrongPass);
}

#[test]
fn a_server_that_knows_it_is_a_replica_is_not_used() {
    let replica = Fake::start(|_, words| match words[0].as_str() {
        "ROLE" => Say::line("*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$7\r\nconnect\r\n:-1"),
        _ => good(words),
    });
    let port = replica.port.to_string();
    let stale = Fake::start(move |_, words| match words[0].as_str() {
        "SENTINEL" => Say::line(&format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}", port.len())),
        _ => good(words),
    });
    let error = opened(&format!("sentinel://127.0.0.1:{}?master_name=m", stale.port)).unwrap_err();
    assert_eq!((error.fault.reason, error.ask()), (Reason::NoMaster, Ask::Reconnect));
    assert!(error.fault.said.contains("slave"), "{error}");
}
