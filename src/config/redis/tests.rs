//! Addresses as people write them, and what must never be shown.

use super::*;
use crate::config::secret::Secret;

fn read(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|wrong| panic!("{text}: {} ({})", wrong.message, wrong.help))
}

fn tcp(host: &str, port: u16) -> Place {
    Place::Tcp { host: host.to_owned(), port }
}

fn password(address: &Address) -> String {
    match &address.password {
        Password::Written(hidden) => hidden.expose(&Secrets::default()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn places() {
    for (text, place, db) in [
        ("redis://", tcp("127.0.0.1", 6379), 0),
        ("redis:///3", tcp("127.0.0.1", 6379), 3),
        ("redis://shop", tcp("shop", 6379), 0),
        ("redis://shop:7000/2", tcp("shop", 7000), 2),
        ("redis://shop/", tcp("shop", 6379), 0),
        ("redis://shop?db=4", tcp("shop", 6379), 4),
        ("redis://shop/4?db=4", tcp("shop", 6379), 4),
        ("valkey://[::1]:7000/1", tcp("::1", 7000), 1),
        ("redis://[fe80::1]", tcp("fe80::1", 6379), 0),
        ("unix:///run/redis.sock?db=2", Place::Unix("/run/redis.sock".into()), 2),
        ("redis+socket:///run/a%20b?virtual_host=5", Place::Unix("/run/a b".into()), 5),
        ("redis+socket:///run/r?virtual_host=/5", Place::Unix("/run/r".into()), 5),
    ] {
        let address = read(text);
        assert_eq!((&address.place, address.db), (&place, db), "{text}");
        assert_eq!((&address.tls, &address.password), (&None, &Password::None), "{text}");
        assert_eq!(address.shown(), text);
    }
}

#[test]
fn sentinels_in_every_spelling() {
    for text in [
        "redis+sentinel://a:1,b,[::1]:3/7?master=main",
        "sentinel://a:1/7;sentinel://b/7;sentinel://[::1]:3/7?master_name=main",
        "sentinel://a:1;sentinel://b;sentinel://[::1]:3/7?master_name=main",
    ] {
        let address = read(text);
        let Place::Sentinel { sentinels, master, user: None, password: None } = &address.place else {
            panic!("{address:?}");
        };
        let all: Vec<_> = sentinels.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!((all, master.as_str()), (vec![("a", 1), ("b", 26379), ("::1", 3)], "main"), "{text}");
        assert_eq!((address.db, address.shown()), (7, text));
    }
    let address = read(
        "rediss+sentinel://u:one@a/0?master=m&sentinel_username=s&sentinel_password=t%26wo&ssl_ca_certs=/ca.pem",
    );
    assert_eq!((address.user.as_deref(), password(&address).as_str()), (Some("u"), "one"));
    let Place::Sentinel { user, password: Some(theirs), .. } = &address.place else { panic!("{address:?}") };
    assert_eq!((user.as_deref(), theirs.expose(&Secrets::default())), (Some("s"), Ok("t&wo".to_owned())));
    assert_eq!(address.tls.as_ref().unwrap().authorities, Some("/ca.pem".into()));
    assert_eq!(
        address.shown(),
        "rediss+sentinel://u:***@a/0?master=m&sentinel_username=s&sentinel_password=***&ssl_ca_certs=/ca.pem"
    );
}

#[test]
fn passwords_are_read_and_never_shown() {
    for (text, user, secret, shown) in [
        ("redis://:hunter2@h/0", None, "hunter2", "redis://:***@h/0"),
        ("redis://me:hunter2@h", Some("me"), "hunter2", "redis://me:***@h"),
        ("redis://me:a%2Fb%40c%3A%25@h", Some("me"), "a/b@c:%", "redis://me:***@h"),
        ("redis://:a@b@h:1", None, "a@b", "redis://:***@h:1"),
        ("redis://:a:b@h:1", None, "a:b", "redis://:***@h:1"),
        ("redis://:a;b@h:1", None, "", ""),
        ("unix://me:pw@/run/r", Some("me"), "pw", "unix://me:***@/run/r"),
        ("redis://:%C3%A9@h", None, "é", "redis://:***@h"),
    ] {
        if shown.is_empty() {
            assert!(Address::parse(text).is_err());
            continue;
        }
        let address = read(text);
        assert_eq!((address.user.as_deref(), password(&address).as_str()), (user, secret), "{text}");
        assert_eq!(address.shown(), shown);
        assert!(!format!("{address:?}").contains(secret), "{address:?}");
    }
    let file = read("redis://me@h/0?password_file=/run/secrets/redis");
    assert_eq!(file.password, Password::File("/run/secrets/redis".into()));
}

#[test]
fn credentials_stand_for_passwords() {
    let text = "redis+sentinel://me:${credential:a@b/c?d}@h/1?master=m&sentinel_password=x${credential:s}y";
    assert!(Address::parse(text).is_err(), "a name with a slash");
    let text = "redis+sentinel://me:${credential:a@b?d&e#}@h/1?master=m&sentinel_password=x${credential:s}y";
    let address = read(text);
    assert_eq!(address.credentials(), ["a@b?d&e#", "s"].into());
    assert_eq!(
        address.shown(),
        "redis+sentinel://me:${credential:a@b?d&e#}@h/1?master=m&sentinel_password=***"
    );
    let mut secrets = Secrets::default();
    assert!(address.resolve(&secrets).unwrap_err().contains("a@b?d&e#"));
    secrets.insert("a@b?d&e#", Secret::new(b"%41:@/${credential:s}\n".to_vec()));
    secrets.insert("s", Secret::new(b"two".to_vec()));
    let whole = address.resolve(&secrets).unwrap();
    // A value is the password itself: nothing in it is decoded or looked up again.
    assert_eq!(password(&whole), "%41:@/${credential:s}");
    let Place::Sentinel { password: Some(theirs), .. } = &whole.place else { panic!() };
    assert_eq!(theirs.expose(&secrets).as_deref(), Ok("xtwoy"));
    assert!(whole.credentials().is_empty() && whole.shown() == address.shown());
    assert!(!format!("{whole:?}").contains("two"));
    // The first reference is not the second one's name.
    let both = read("redis+sentinel://:${credential:a}@h?master=m&sentinel_password=${credential:b}");
    let mut secrets = Secrets::default();
    secrets.insert("a", Secret::new(b"1".to_vec()));
    secrets.insert("b", Secret::new(b"2".to_vec()));
    let whole = both.resolve(&secrets).unwrap();
    assert_eq!(password(&whole), "1");
    let Place::Sentinel { password: Some(theirs), .. } = &whole.place else { panic!() };
    assert_eq!(theirs.expose(&secrets).as_deref(), Ok("2"));
}

#[test]
fn options_of_tls_and_of_time() {
    let plain = read("rediss://h/0").tls.unwrap();
    assert_eq!(plain, Tls { verify: Verify::Host, authorities: None, own: None });
    for (query, verify) in [
        ("ssl_cert_reqs=CERT_REQUIRED", Verify::Host),
        ("ssl_cert_reqs=optional", Verify::Host),
        ("ssl_cert_reqs=CERT_NONE", Verify::Nothing),
        ("ssl_cert_reqs=none&ssl_check_hostname=true", Verify::Nothing),
        ("ssl_check_hostname=False", Verify::Authority),
    ] {
        assert_eq!(read(&format!("rediss://h/0?{query}")).tls.unwrap().verify, verify, "{query}");
    }
    let own = read("valkeys://h?ssl_certfile=/c.pem").tls.unwrap().own;
    assert_eq!(own, Some(("/c.pem".into(), "/c.pem".into())));
    let own = read("rediss://h?ssl_certfile=/c.pem&ssl_keyfile=/k.pem").tls.unwrap().own;
    assert_eq!(own, Some(("/c.pem".into(), "/k.pem".into())));
    let address = read(
        "redis://h?global_keyprefix=shop%3A&visibility_timeout=7200&socket_timeout=0.5&socket_connect_timeout=2",
    );
    assert_eq!(address.prefix, "shop:");
    assert_eq!(address.visibility_timeout, Duration::from_secs(7_200));
    assert_eq!(read("redis://h?visibility_timeout=12h").visibility_timeout, Duration::from_secs(43_200));
    assert_eq!(read("redis://h").visibility_timeout, DEFAULT_VISIBILITY_TIMEOUT);
    assert_eq!(address.reply, Some(Duration::from_millis(500)));
    assert_eq!(address.connect, Some(Duration::from_secs(2)));
}

#[test]
fn what_is_wrong_is_told_without_the_password() {
    for (text, message, help) in [
        ("redis:/h", "is no address", "redis://HOST"),
        ("http://h", "scheme", "redis://"),
        ("redis+cluster://a,b", "Redis Cluster", "different servers"),
        ("redis://a,b", "several servers", "sentinel"),
        ("redis://a;redis://b", "several servers", "sentinel"),
        ("redis://h/main", "no number of a database", "%2F"),
        ("redis://h/-1", "no number of a database", ""),
        ("redis://h/4294967295", "no number of a database", ""),
        ("redis://h/1?db=2", "two databases", "remove"),
        ("redis://h:0", "port", "65535"),
        ("redis://h:65536", "port", ""),
        ("redis://:hun/ter2@h/0", "port", "%2F"),
        ("redis://:hun?ter2@h/0", "port", "%3F"),
        ("redis://h?ter2@h/0", "no option", "%3F"),
        ("redis://:hunter2#@h/0", "#", "%23"),
        ("redis://[::1", "host", "[ ]"),
        ("redis://[hunter2]", "host", "[ ]"),
        ("redis://ho st", "host", ""),
        ("redis://h\n", "character", "%0A"),
        ("redis://:hunter2%zz@h", "%", "%25"),
        ("redis://hunter2@h", "user and no password", "redis://:PASSWORD@HOST"),
        ("redis://${credential:x}@h", "credential as its user", ""),
        ("redis://${credential:x}/0", "where the server is named", ""),
        ("redis://:${credential:}@h", "empty", "${credential:NAME}"),
        ("redis://h?ssl_ca_certs=/a", "no TLS", "rediss://"),
        ("rediss://h?ssl_ca_certs=a", "not absolute", "begin it with /"),
        ("rediss://h?ssl_keyfile=/a", "without `ssl_certfile`", "ssl_certfile"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs", "required or none"),
        ("redis://h?ssl_ca_cert=/a", "unknown option `ssl_ca_cert`", "`ssl_ca_certs`"),
        ("redis://h?zzz=1", "unknown option `zzz`", "the options are"),
        ("redis://h?socket_keepalive=1", "not taskd's", "always has keepalive"),
        ("redis://h?priority_steps=1", "kombu's default", "broker_transport_options"),
        ("redis://h?db=1&db=1", "twice", "remove"),
        ("redis://h?db=", "without a value", "db=VALUE"),
        ("redis://h?socket_timeout=0", "0.01", "seconds"),
        ("redis://h?visibility_timeout=soon", "visibility_timeout", "3600"),
        ("redis://h?global_keyprefix=${credential:x}", "credential in its option", "only"),
        ("redis://:hunter2@h?password_file=/a", "and `password_file`", "remove"),
        ("redis://h?master=m", "names no sentinels", "redis+sentinel://"),
        ("redis+sentinel://h/0", "no master", "?master=NAME"),
        ("redis+sentinel://:hunter2@a;:hunter3@b?master=m", "several passwords", "sentinel_password"),
        ("redis+sentinel://a/0?master=m&sentinel_username=u", "no `sentinel_password`", ""),
        ("unix://run/redis", "names no socket", "three slashes"),
        ("unix:///", "names no socket", "three slashes"),
    ] {
        let wrong = Address::parse(text).expect_err(text);
        assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
        assert!(wrong.help.contains(help), "{text}: {}", wrong.help);
        for part in ["hunter2", "hunter3", "ter2", "hun/"] {
            assert!(!format!("{wrong:?}{}", shown(text)).contains(part), "{text}: {wrong:?}");
        }
    }
}

#[test]
fn any_text_is_an_address_or_refused() {
    use proptest::prelude::*;
    proptest!(|(text in "(rediss?|unix|redis\\+sentinel|sentinel)://[a-z:@/?&=;,%#\\[\\]${}0-9é]{0,40}")| {
        match Address::parse(&text) {
            Ok(address) => prop_assert_eq!(Address::parse(&text).ok(), Some(address)),
            Err(wrong) => prop_assert!(!wrong.message.is_empty()),
        }
    });
    proptest!(|(secret in "[a-zA-Z0-9]{8,20}", host in "[a-g]{1,3}")| {
        let text = format!("redis://me:{secret}@{host}/1");
        let address = Address::parse(&text).unwrap();
        let told = format!("{address:?} {}", address.shown());
        prop_assert!(!told.contains(&secret));
    });
}
