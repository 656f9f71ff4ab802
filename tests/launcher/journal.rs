//! Logs towards journald, with a journald of our own behind its well-known path: in a mount namespace.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use taskd::observe::fields;
use taskd::observe::log::{self, Target};

const SOCKET: &str = "/run/systemd/journal/socket";

#[test]
fn entries_have_their_fields_and_a_stalled_journald_stalls_nobody() {
    let script = format!("mount -t tmpfs none /run && mkdir -p $(dirname {SOCKET}) && exec \"$0\" @log");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    let out = command.arg(std::env::current_exe().unwrap()).stdin(Stdio::null()).output();
    let Ok(out) = out else { return println!("skipped: unshare is not there") };
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        return println!("skipped: no mount namespace here: {said}");
    }
    assert!(out.status.success(), "{said}");
}

/// `@log`, inside of it.
pub fn play() -> i32 {
    let journald = UnixDatagram::bind(SOCKET).unwrap();
    journald.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let log = log::init("info", Target::Journal).unwrap();
    assert_eq!(log.target(), Target::Journal);
    tracing::debug!("not this");
    tracing::warn!(MESSAGE_ID = fields::FAILED, TASKD_ID = "x-1", TASKD_ATTEMPT = 2, "two\nlines");
    let entry = next(&journald);
    let want = [
        ("MESSAGE", "two\nlines"),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "taskd"),
        ("MESSAGE_ID", fields::FAILED),
        ("TASKD_ID", "x-1"),
        ("TASKD_ATTEMPT", "2"),
    ];
    for (name, value) in want {
        assert_eq!(entry.get(name).map(String::as_str), Some(value), "{entry:?}");
    }
    let known: Vec<_> = fields::FIELDS.iter().map(|f| f.name).collect();
    let unknown: Vec<_> =
        entry.keys().filter(|n| n.starts_with("TASKD_") && !known.contains(&n.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    tracing::info!("plain");
    assert_eq!(next(&journald).get("PRIORITY").map(String::as_str), Some("6"));
    // Nobody reads any more.
    let begun = Instant::now();
    for n in 0..20_000 {
        tracing::info!(n, "burst");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "the log was waited for");
    assert!(log.dropped() > 0);
    let begun = Instant::now();
    drop(log);
    assert!(begun.elapsed() < Duration::from_secs(10), "the end is bounded");
    0
}

/// The next entry that is not empty (an empty one is a probe).
fn next(journald: &UnixDatagram) -> BTreeMap<String, String> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = journald.recv(&mut bytes).unwrap();
        if length > 0 {
            return parse(&bytes[..length]);
        }
    }
}

/// The native protocol: `NAME=value\n`, or `NAME\n`, eight bytes of length, value, `\n`.
fn parse(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
        let line = String::from_utf8(bytes[..end].to_vec()).unwrap();
        bytes = &bytes[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            continue;
        }
        let (length, rest) = bytes.split_at(8);
        let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
        fields.insert(line, String::from_utf8(rest[..length].to_vec()).unwrap());
        bytes = &rest[length + 1..];
    }
    fields
}
