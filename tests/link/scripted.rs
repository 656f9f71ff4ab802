//! What a server says at each command of the way to a connection that can be used, and what taskd makes of it.

use std::time::{Duration, Instant};

use redis::ConnectionLike;
use taskd::link::redis::fault::{Ask, Reason};
use taskd::link::redis::{LinkError, Server, classify, inspect, open};

use super::fake::{Fake, INFO, Say, bulk, good};
use super::{SHORT, TIMEOUTS, address};

/// Opened and looked at.
fn used(url: &str) -> Result<Server, LinkError> {
    let mut connection = open(&address(url), TIMEOUTS, "node1")?;
    inspect(&mut connection, false)
}

const WAY: &[&str] = &["HELLO", "SELECT", "INFO", "SCRIPT", "EVALSHA", "EVAL"];

#[test]
fn each_error_at_each_command_is_understood() {
    let good_one = Fake::start(|_, words| good(words));
    assert_eq!(used(&good_one.url()).unwrap().run_id, "abc");
    for (reply, reason, ask) in [
        ("-LOADING Redis is loading the dataset in memory", Reason::Loading, Ask::Again),
        ("-BUSY Redis is busy running a script", Reason::Busy, Ask::Again),
        ("-TRYAGAIN later", Reason::TryAgain, Ask::Again),
        ("-MASTERDOWN Link with MASTER is down", Reason::TryAgain, Ask::Again),
        ("-CLUSTERDOWN The cluster is down", Reason::TryAgain, Ask::Again),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Reason::OutOfMemory, Ask::Again),
        ("-MISCONF Redis is configured to save RDB snapshots", Reason::Disk, Ask::Again),
        ("-READONLY You can't write against a read only replica.", Reason::ReadOnly, Ask::Reconnect),
        ("-ERR max number of clients reached", Reason::Full, Ask::Reconnect),
        ("-NOAUTH Authentication required.", Reason::NoAuth, Ask::Refused),
        ("-WRONGPASS invalid username-password pair", Reason::WrongPass, Ask::Refused),
        ("-DENIED Redis is running in protected mode", Reason::Protected, Ask::Refused),
        ("-MOVED 1 127.0.0.1:1", Reason::Cluster, Ask::Refused),
    ] {
        for command in WAY {
            let fake = Fake::start(
                move |_, words| {
                    if words[0] == *command { Say::line(reply) } else { good(words) }
                },
            );
            let error = used(&fake.url()).expect_err(reply);
            assert_eq!((error.fault.reason, error.ask()), (reason, ask), "{reply} at {command}: {error}");
            assert!(error.to_string().starts_with(&format!("{}: ", fake.url())), "{error}");
        }
    }
}

#[test]
fn connections_that_break_at_each_command() {
    for (cut, reason) in [("", Reason::Lost), ("+O", Reason::Lost), ("$100\r\nhalf", Reason::Lost)] {
        for command in WAY {
            let fake = Fake::start(
                move |_, words| {
                    if words[0] == *command { Say::Cut(cut.to_owned()) } else { good(words) }
                },
            );
            let error = used(&fake.url()).unwrap_err();
            assert_eq!((error.fault.reason, error.ask()), (reason, Ask::Reconnect), "{command}: {error}");
        }
    }
    for command in WAY {
        let fake = Fake::start(move |_, words| {
            if words[0] == *command { Say::line("HTTP/1.1 400 Bad Request") } else { good(words) }
        });
        let error = used(&fake.url()).unwrap_err();
        assert_eq!(error.fault.reason, Reason::Protocol, "{command}: {error}");
        assert!(error.help().contains("rediss://"));
    }
}

#[test]
fn a_server_that_is_silent_at_any_command_is_given_up_in_time() {
    for command in WAY {
        let fake = Fake::start(move |_, words| if words[0] == *command { Say::Nothing } else { good(words) });
        let begun = Instant::now();
        let ended = open(&address(&fake.url()), SHORT, "node1").and_then(|mut c| inspect(&mut c, false));
        let error = ended.unwrap_err();
        assert_eq!((error.fault.reason, error.ask()), (Reason::Silent, Ask::Reconnect), "{command}: {error}");
        assert!(begun.elapsed() >= SHORT.reply && begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_answer_that_comes_too_late_is_nobodys() {
    let fake = Fake::start(|_, words| match words[0].as_str() {
        "GET" => {
            std::thread::sleep(SHORT.reply * 2);
            bulk("of the first")
        }
        _ => good(words),
    });
    let mut connection = open(&address(&fake.url()), SHORT, "node1").unwrap();
    let first = redis::cmd("GET").arg("a").query::<String>(&mut connection).unwrap_err();
    assert_eq!(classify(&first).reason, Reason::Silent);
    assert!(!connection.is_open());
    let second = redis::cmd("PING").query::<String>(&mut connection).unwrap_err();
    assert_eq!(classify(&second).ask(), Ask::Reconnect, "{second}");
}

#[test]
fn what_is_missing_is_named() {
    for (command, reply, reason, said) in [
        ("HELLO", "-ERR unknown command 'HELLO'", Reason::Version, "unknown command"),
        ("SELECT", "-ERR DB index is out of range", Reason::Database, "out of range"),
        ("INFO", "-NOPERM this user has no permissions to run the 'info' command", Reason::NoPerm, "+info"),
        ("EVAL", "-NOPERM User x has no permissions to run the 'eval' command", Reason::NoScripts, "+eval "),
        (
            "EVALSHA",
            "-NOPERM User x has no permissions to run the 'evalsha' command",
            Reason::NoScripts,
            "+evalsha",
        ),
        (
            "SCRIPT",
            "-NOPERM User x has no permissions to run the 'script|load' command",
            Reason::NoScripts,
            "+script|load",
        ),
        ("EVAL", "-ERR unknown command 'EVAL', with args beginning with: ", Reason::NoScripts, "unknown"),
        ("EVAL", ":2", Reason::NoScripts, "answered 2"),
    ] {
        let fake =
            Fake::start(move |_, words| if words[0] == command { Say::line(reply) } else { good(words) });
        let error = used(&fake.url()).unwrap_err();
        assert_eq!((error.fault.reason, error.ask()), (reason, Ask::Refused), "{error}");
        assert!(error.fault.said.contains(said) && !error.help().is_empty(), "{error}");
    }
    let old = Fake::start(|_, words| match words[0].as_str() {
        "INFO" => bulk(&INFO.replace("7.0.15", "6.0.16")),
        _ => good(words),
    });
    let error = used(&old.url()).unwrap_err();
    assert_eq!(error.fault.reason, Reason::Version);
    assert!(error.to_string().contains("6.2 or later") && error.to_string().contains("6.0.16"), "{error}");
}

#[test]
fn a_password_is_in_no_error() {
    let fake = Fake::start(|_, words| {
        assert_eq!(words[2..5], ["AUTH", "me", "hunter2"]);
        Say::line("-WRONGPASS invalid username-password pair or user is disabled.")
    });
    let error = used(&format!("redis://me:hunter2@127.0.0.1:{}/1", fake.port)).unwrap_err();
    assert_eq!(error.fault.reason, Reason::WrongPass);
    assert!(!format!("{error} {error:?} {}", error.help()).contains("hunter2"), "{error:?}");
    assert!(error.to_string().contains("redis://me:***@127.0.0.1"), "{error}");
}

#[test]
fn pipelines_and_transactions_give_each_answer_to_its_command() {
    let fake = Fake::start(|_, words| match words[0].as_str() {
        // A push may come before any answer.
        "GET" => Say::Reply(format!(
            ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n${}\r\n{}\r\n",
            words[1].len(),
            words[1]
        )),
        "BAD" => Say::line("-ERR no"),
        "MULTI" => Say::line("+OK"),
        "SET" => Say::line("+QUEUED"),
        "EXEC" => Say::line("*2\r\n+OK\r\n+OK"),
        _ => good(words),
    });
    let mut connection = open(&address(&fake.url()), TIMEOUTS, "node1").unwrap();
    let mut pipe = redis::pipe();
    for n in 0..50 {
        pipe.cmd("GET").arg(format!("key{n}"));
    }
    let got: Vec<String> = pipe.query(&mut connection).unwrap();
    assert!(got.iter().enumerate().all(|(n, value)| *value == format!("key{n}")), "{got:?}");
    let mixed = redis::pipe().cmd("GET").arg("a").cmd("BAD").cmd("GET").arg("b").exec(&mut connection);
    assert_eq!(classify(&mixed.unwrap_err()).ask(), Ask::Wrong);
    assert_eq!(redis::cmd("GET").arg("after").query::<String>(&mut connection).unwrap(), "after");
    redis::pipe().atomic().cmd("SET").arg(1).cmd("SET").arg(2).exec(&mut connection).unwrap();
    let refused = redis::pipe().atomic().cmd("BAD").cmd("SET").arg(2).exec(&mut connection).unwrap_err();
    assert_eq!(classify(&refused).ask(), Ask::Wrong);
    assert_eq!(redis::cmd("GET").arg("last").query::<String>(&mut connection).unwrap(), "last");
}

#[test]
fn a_lost_script_is_sent_whole() {
    let fake = Fake::start(|_, words| match words[0].as_str() {
        "EVALSHA" => Say::line("-NOSCRIPT No matching script. Please use EVAL."),
        _ => good(words),
    });
    let mut connection = open(&address(&fake.url()), TIMEOUTS, "node1").unwrap();
    let error = redis::cmd("EVALSHA").arg("0").arg(0).query::<i64>(&mut connection).unwrap_err();
    assert_eq!(classify(&error).ask(), Ask::NoScript);
    assert!(connection.is_open());
}
