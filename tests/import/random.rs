//! Whatever the input is: no panic, and TOML that passes taskd's check.

use proptest::prelude::*;

use taskd::cli::import::{celery, crontab, supervisor, systemd};

use super::{check, here};

/// What inputs are put together from, beside pieces of the sources.
const PIECES: &[&str] = &[
    "\n",
    " ",
    "\t",
    "'",
    "\"",
    "\\",
    "%",
    "\\%",
    "=",
    ",",
    ":",
    ";",
    "#",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "$x",
    "${y}",
    "`",
    "&&",
    "||",
    "|",
    ">",
    "<",
    "*",
    "*/5",
    "1-5",
    "@daily ",
    "@reboot ",
    "0 0 * * * ",
    "root ",
    "MAILTO=",
    "CRON_TZ=UTC\n",
    "SHELL=/bin/bash\n",
    "flock -n /x ",
    "timeout 5 ",
    "nice -n ",
    "\u{0}",
    "\u{7f}",
    "\u{202e}",
    "é",
    "'''",
    "\r\n",
    "9999999999999999999999",
    "-1",
    "1e400",
    "beat_schedule = ",
    "crontab(",
    "timedelta(days=",
    "'task': 'a.b'",
    "'schedule': ",
    "task_routes = ",
    "@app.task(",
    "def f():\n",
    "app.conf.update(",
    "lambda: ",
    "**",
    "[program:x]\n",
    "command=",
    "celery ",
    "worker ",
    "-Q a,b ",
    "-c 4 ",
    "environment=",
    "numprocs=3\n",
    "user=",
    "%(ENV_X)s",
    "[Timer]\n",
    "[Service]\n",
    "OnCalendar=",
    "OnUnitActiveSec=5min\n",
    "ExecStart=",
    "ExecStart=/bin/a ",
    "User=",
    "TimeoutStartSec=",
    "MemoryMax=",
    "%i",
    "Mon..Fri ",
    "*-*-* ",
    "~",
    "infinity",
    "\u{fffd}",
];

fn sources() -> Vec<String> {
    let mut out = Vec::new();
    for folder in ["crontab", "celery", "supervisor", "systemd"] {
        for entry in std::fs::read_dir(here().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e != "toml") {
                out.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    out.sort();
    out
}

/// Pieces in any order, and sources with pieces put in and parts cut out.
fn inputs() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60).prop_map(|p| p.concat());
    let changes = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::sample::select(PIECES.to_vec()), 0..12_usize),
        0..6,
    );
    let changed = (prop::sample::select(sources()), changes).prop_map(|(mut text, changes)| {
        for (at, piece, cut) in changes {
            let start = text.floor_char_boundary(at.index(text.len().max(1)).min(text.len()));
            let end = text.floor_char_boundary((start + cut).min(text.len())).max(start);
            text.replace_range(start..end, piece);
        }
        text
    });
    let bytes =
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|b| String::from_utf8_lossy(&b).into_owned());
    prop_oneof![3 => pieces, 4 => changed, 1 => bytes]
}

fn everything(text: &str) {
    for (what, system) in [("crontab", false), ("crontab --system", true)] {
        let reading = crontab::Reading { system, ..crontab::Reading::default() };
        check(what, &crontab::import("x", text, &reading));
    }
    check("supervisor", &supervisor::import("x", text));
    for source in ["x.py", "x.json"] {
        if let Ok(done) = celery::import(source, text) {
            check(source, &done);
        }
    }
    let mut pair = systemd::Pair {
        timer_name: "x.timer".into(),
        service_name: "x.service".into(),
        ..Default::default()
    };
    pair.timer.read(text);
    let mut service = systemd::Unit::default();
    service.read(text);
    pair.service = Some(service);
    check("systemd-timer", &systemd::import("x", &pair));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_is_too_wild(text in inputs()) {
        everything(&text);
    }
}

#[test]
fn large_and_deep_inputs_end() {
    for piece in ["(", "[", "{", "'", "\\", "-", "a.", "$(", "[program:x]\n", "@a\n", "%", "x = [", "*,"] {
        everything(&piece.repeat(20_000));
    }
}
