//! Real servers: who gets in, over what, and which of them can be the broker.

use std::time::{Duration, Instant};

use redis::ConnectionLike;
use taskd::config::{Secret, Secrets};
use taskd::link::redis::fault::{Ask, Reason};
use taskd::link::redis::{Timeouts, classify, inspect, open};

use super::certificates::Authority;
use super::redis_server::{Redis, free_port};
use super::{TIMEOUTS, address, opened};

fn reason(url: &str) -> Reason {
    let error = opened(url).and_then(|mut c| inspect(&mut c, false)).expect_err(url);
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    error.fault.reason
}

#[test]
fn a_connection_is_in_its_database_and_has_a_name() {
    let server = Redis::start(&[]);
    for url in [format!("{}/3", server.url()), format!("unix://{}?db=3", server.socket().display())] {
        let mut connection = opened(&url).unwrap();
        let found = inspect(&mut connection, false).unwrap();
        assert!(found.to_string().starts_with("Redis "), "{found}");
        assert!(found.warnings()[0].contains("appendonly"), "{:?}", found.warnings());
        assert_eq!(found.run_id.len(), 40);
        let info: String = redis::cmd("CLIENT").arg("INFO").query(&mut connection).unwrap();
        for part in [" name=taskd-node1 ", " db=3 ", " resp=3 "] {
            assert!(format!("{} ", info.trim()).contains(part), "{part}: {info}");
        }
        let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
        let n: i64 = script.key("n").invoke(&mut connection).unwrap();
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection).unwrap();
        assert_eq!(script.key("n").invoke::<i64>(&mut connection).unwrap(), n + 1);
        let big = vec![b'x'; 4 << 20];
        redis::cmd("SET").arg("big").arg(&big).exec(&mut connection).unwrap();
        assert!(redis::cmd("GET").arg("big").query::<Vec<u8>>(&mut connection).unwrap() == big);
    }
    assert_eq!(reason(&format!("{}/16", server.url())), Reason::Database);
}

#[test]
fn passwords_from_everywhere() {
    let server = Redis::start(&["--requirepass", "hunter2"]);
    let at = |who: &str| format!("redis://{who}127.0.0.1:{}/0", server.port);
    assert!(opened(&at(":hunter2@")).is_ok());
    assert_eq!(reason(&at("")), Reason::NoAuth);
    assert_eq!(reason(&at(":hunter22@")), Reason::WrongPass);
    assert_eq!(reason(&at("nobody:hunter2@")), Reason::WrongPass);
    // A file, read each time: a new password needs no restart.
    let file = server.path().join("password");
    let by_file = format!("{}?password_file={}", at(""), file.display());
    assert_eq!(reason(&by_file), Reason::Password);
    std::fs::write(&file, "hunter2\n").unwrap();
    let mut admin = opened(&by_file).unwrap();
    for command in ["CONFIG SET requirepass other", "ACL SETUSER shop on >hunter2 ~* &* +@all"] {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = cmd.arg(word));
        cmd.exec(&mut admin).unwrap();
    }
    assert_eq!(reason(&by_file), Reason::WrongPass);
    std::fs::write(&file, "other").unwrap();
    assert!(opened(&by_file).is_ok());
    assert!(opened(&at("shop:hunter2@")).is_ok());
    // A credential.
    let referring = address(&at("shop:${credential:redis}@"));
    let unresolved = open(&referring, TIMEOUTS, "n").unwrap_err();
    assert_eq!(unresolved.fault.reason, Reason::Password);
    let mut secrets = Secrets::default();
    secrets.insert("redis", Secret::new(b"hunter2\n".to_vec()));
    assert!(open(&referring.resolve(&secrets).unwrap(), TIMEOUTS, "n").is_ok());
}

#[test]
fn users_without_what_taskd_needs() {
    let server = Redis::start(&[]);
    let user = |rules: &str| {
        let _: () = server.tell(&format!("ACL SETUSER shop reset on >hunter2 {rules}"));
        let url = format!("redis://shop:hunter2@127.0.0.1:{}/1", server.port);
        opened(&url).and_then(|mut c| inspect(&mut c, false))
    };
    user("~* &* +@all -@dangerous +info +role").unwrap();
    let said = |rules: &str| {
        let error = user(rules).unwrap_err();
        assert_eq!(error.ask(), Ask::Refused);
        (error.fault.reason, error.fault.said)
    };
    let (reason, text) = said("~* &* +@all -@dangerous");
    assert!(reason == Reason::NoPerm && text.contains("+info"), "{reason:?} {text}");
    let (reason, text) = said("~* &* +@all -eval");
    assert!(reason == Reason::NoScripts && text.contains("+eval "), "{reason:?} {text}");
    let (reason, _) = said("~* &* +@all -@scripting");
    assert_eq!(reason, Reason::NoScripts);
    assert_eq!(said("~* &* +@all -select").0, Reason::NoPerm);
}

#[test]
fn servers_that_cannot_be_the_broker() {
    let evicts = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(reason(&evicts.url()), Reason::Evicts);
    let allowed = inspect(&mut opened(&evicts.url()).unwrap(), true).unwrap();
    assert!(allowed.evicts() && allowed.maxmemory == 100 << 20);
    assert!(allowed.warnings().iter().any(|w| w.contains("allkeys-lru")), "{:?}", allowed.warnings());
    let _: () = evicts.tell("CONFIG SET maxmemory-policy noeviction");
    assert!(inspect(&mut opened(&evicts.url()).unwrap(), false).is_ok());

    let cluster = Redis::start(&["--cluster-enabled", "yes"]);
    assert_eq!(reason(&cluster.url()), Reason::Cluster);

    let replica = Redis::start(&["--replicaof", "127.0.0.1", &evicts.port.to_string()]);
    assert_eq!(reason(&replica.url()), Reason::ReadOnly);
    let mut direct = opened(&replica.url()).unwrap();
    let write = redis::cmd("SET").arg("a").arg(1).exec(&mut direct).unwrap_err();
    assert_eq!(classify(&write).ask(), Ask::Reconnect);
}

#[test]
fn full_memory_is_told_by_commands_and_by_scripts() {
    let server = Redis::start(&["--maxmemory", "2mb"]);
    let mut connection = opened(&server.url()).unwrap();
    let filled =
        (0..200).find_map(|n| redis::cmd("SET").arg(n).arg(vec![b'x'; 100_000]).exec(&mut connection).err());
    assert_eq!(classify(&filled.unwrap()).reason, Reason::OutOfMemory);
    let script = redis::Script::new("return redis.call('SET', KEYS[1], ARGV[1])");
    let by_script = script.key("k").arg("x").invoke::<()>(&mut connection).unwrap_err();
    assert_eq!(classify(&by_script).reason, Reason::OutOfMemory);
    assert!(connection.is_open());
    let _: () = server.tell("CONFIG SET maxmemory 0");
    redis::cmd("SET").arg("k").arg(1).exec(&mut connection).unwrap();
}

#[test]
fn tls_trusts_whom_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let ca = authority.file().display().to_string();
    let here = Redis::with_tls(&authority.certify("here", "here"), &authority.file(), "no");
    let elsewhere = Redis::with_tls(&authority.certify("elsewhere", "elsewhere"), &authority.file(), "no");
    let at = |port: u16, query: &str| format!("rediss://127.0.0.1:{port}/1?{query}");
    let trusting = format!("ssl_ca_certs={ca}");
    let mut connection = opened(&at(here.port, &trusting)).unwrap();
    inspect(&mut connection, false).unwrap();
    let big = vec![b'x'; 4 << 20];
    redis::cmd("SET").arg("big").arg(&big).exec(&mut connection).unwrap();
    assert!(redis::cmd("GET").arg("big").query::<Vec<u8>>(&mut connection).unwrap() == big);
    assert!(opened(&format!("rediss://localhost:{}?{trusting}", here.port)).is_ok());
    assert_eq!(reason(&at(here.port, "")), Reason::Certificate);
    assert_eq!(reason(&at(elsewhere.port, &trusting)), Reason::Certificate);
    assert!(opened(&at(elsewhere.port, &format!("{trusting}&ssl_check_hostname=false"))).is_ok());
    assert_eq!(reason(&at(elsewhere.port, "ssl_check_hostname=false")), Reason::Certificate);
    assert!(opened(&at(elsewhere.port, "ssl_cert_reqs=none")).is_ok());
    // TLS to a port without it, and the other way round.
    let plain = Redis::start(&[]);
    let short = Timeouts { connect: Duration::from_millis(500), ..TIMEOUTS };
    let silent = open(&address(&at(plain.port, &trusting)), short, "n").unwrap_err();
    assert!(silent.fault.reason == Reason::Silent && silent.fault.said.contains("TLS"), "{silent}");
    let wrong = opened(&format!("redis://127.0.0.1:{}", here.port)).unwrap_err();
    assert!(matches!(wrong.fault.reason, Reason::Lost | Reason::Protocol), "{wrong}");
    // Files that are none.
    assert_eq!(reason(&at(here.port, "ssl_ca_certs=/nowhere/ca.pem")), Reason::Tls);
    let key = dir.path().join("ca.key").display().to_string();
    assert_eq!(reason(&at(here.port, &format!("ssl_ca_certs={key}"))), Reason::Certificate);
}

#[test]
fn a_client_shows_its_own_certificate_where_the_server_wants_one() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let server = Redis::with_tls(&authority.certify("here", "here"), &authority.file(), "yes");
    let own = authority.certify("me", "client").display().to_string();
    let at = format!("rediss://127.0.0.1:{}?ssl_ca_certs={}", server.port, authority.file().display());
    let whole = format!("{at}&ssl_certfile={own}.pem&ssl_keyfile={own}.key");
    inspect(&mut opened(&whole).unwrap(), false).unwrap();
    assert_eq!(reason(&at), Reason::Tls);
    assert_eq!(reason(&format!("{at}&ssl_certfile={own}.pem")), Reason::Tls);
}

#[test]
fn nobody_there_and_nobody_answering() {
    assert_eq!(reason(&format!("redis://127.0.0.1:{}", free_port())), Reason::Unreachable);
    assert_eq!(reason("unix:///nowhere/redis.sock"), Reason::Unreachable);
    assert_eq!(reason("redis://taskd-test.invalid"), Reason::Unreachable);
    let server = Redis::start(&[]);
    let short = Timeouts { reply: Duration::from_millis(200), ..TIMEOUTS };
    let mut connection = open(&address(&server.url()), short, "n").unwrap();
    // CLIENT PAUSE: commands time out, and no later one gets their answers.
    let _: () = server.tell("CLIENT PAUSE 60000 ALL");
    let begun = Instant::now();
    let paused = redis::cmd("PING").exec(&mut connection).unwrap_err();
    assert_eq!(classify(&paused).reason, Reason::Silent);
    assert!(begun.elapsed() < Duration::from_secs(10) && !connection.is_open());
    let again = open(&address(&server.url()), short, "n").unwrap_err();
    assert_eq!((again.fault.reason, again.ask()), (Reason::Silent, Ask::Reconnect));
    // Stopped: the kernel still accepts.
    let stopped = Redis::start(&[]);
    stopped.freeze();
    let frozen = open(&address(&stopped.url()), short, "n").unwrap_err();
    assert_eq!(frozen.fault.reason, Reason::Silent);
    stopped.thaw();
    assert!(opened(&stopped.url()).is_ok());
}

#[test]
fn a_restarted_server_is_another_one() {
    let mut server = Redis::durable();
    let mut connection = opened(&server.url()).unwrap();
    let before = inspect(&mut connection, false).unwrap();
    assert!(before.warnings().is_empty(), "{:?}", before.warnings());
    server.kill();
    let lost = redis::cmd("PING").exec(&mut connection).unwrap_err();
    assert_eq!(classify(&lost).ask(), Ask::Reconnect);
    server.start_again();
    let after = inspect(&mut opened(&server.url()).unwrap(), false).unwrap();
    assert_ne!(before.run_id, after.run_id);
}

#[test]
fn a_killed_client_is_lost() {
    let server = Redis::start(&[]);
    let mut connection = opened(&server.url()).unwrap();
    let killed: i64 = server.tell("CLIENT KILL TYPE normal SKIPME yes");
    assert!(killed >= 1);
    let lost = redis::cmd("PING").exec(&mut connection).unwrap_err();
    assert_eq!(classify(&lost).reason, Reason::Lost);
}
