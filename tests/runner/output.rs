//! Output is read without waiting and without growing.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use taskd::model::outcome::{CancelReason, Cause};
use taskd::model::task::{ResultKind, Task};
use taskd::process::protocol::{FromChild, Stream};

use crate::driver::{Driver, command, once, part, within};

/// Gigabytes of the floods: 2, or what `TASKD_TEST_FLOOD_GB` says.
fn flood() -> u64 {
    std::env::var("TASKD_TEST_FLOOD_GB").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Runs a flood and checks that the runner did not grow by more than 8 MiB.
fn stays_small(text: &str, journal: bool, dropped: u64) {
    let mut settings = part(vec![command(text), Task { name: "small".into(), ..command("echo x") }]);
    settings.journal = journal;
    let mut driver = Driver::start(&settings, |c| c.stderr(std::process::Stdio::null()).spawn().unwrap());
    driver.hello(1);
    driver.run("small", &[], Value::Null);
    let before = driver.memory("VmRSS");
    let run = driver.order("t", &[], Value::Null);
    let (outcome, _) = driver.outcome(&run);
    let grown = driver.memory("VmHWM").saturating_sub(before);
    assert!(outcome.success, "{outcome:?}");
    assert!(outcome.truncated && outcome.usage.dropped_output > dropped, "{:?}", outcome.usage);
    assert!(grown < 8 << 10, "the runner grew by {grown} KiB");
}

#[test]
fn gigabytes_without_a_newline() {
    stays_small(&format!("head -c {}G /dev/zero | tr '\\0' x", flood()), true, 1 << 30);
}

#[test]
fn gigabytes_of_zeros_and_of_lines() {
    stays_small(&format!("head -c {}G /dev/zero", flood()), true, 1 << 30);
    stays_small("yes 'a line of some length' | head -c 64M", true, 1 << 20);
    stays_small("yes 'a line of some length' | head -c 16M", false, 1 << 20);
}

#[test]
fn a_daemon_that_does_not_read_stops_nothing() {
    let mut driver = Driver::new(vec![command("yes 'some line' | head -c 200M; echo; echo end")]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    // The task ends although nobody reads: seen from its process, not from the socket.
    let pid = driver.pid();
    within(|| {
        let titles = std::fs::read_to_string(driver.dir.path().join("titles")).unwrap();
        (titles.lines().count() == 3).then_some(())
    });
    assert!(driver.memory("VmRSS") < 64 << 10, "runner {pid}");
    let (outcome, printed) = driver.outcome(&run);
    assert!(outcome.success && outcome.usage.dropped_output > 100 << 20);
    let bytes: usize = printed.iter().map(|(_, l)| l.len() + 1).sum();
    assert!(bytes < 8 << 20, "{bytes} bytes were copied");
}

#[test]
fn the_copy_keeps_its_rate() {
    let mut settings =
        part(vec![command("for i in 1 2 3 4 5 6 7 8; do head -c 100K /dev/zero | tr '\\0' x; echo; done")]);
    settings.output_rate = 200 << 10;
    let mut driver = Driver::start(&settings, |c| c.spawn().unwrap());
    driver.hello(1);
    let run = driver.order("t", &[], Value::Null);
    let (outcome, printed) = driver.outcome(&run);
    let copied: usize = printed.iter().map(|(_, l)| l.len()).sum();
    // A second's worth, what is earned while it runs, and the line that began within the bound.
    let earned = usize::try_from((outcome.usage.wall_ms + 100) * 200).unwrap() * 1024 / 1000;
    assert!(copied <= (200 << 10) + earned + (48 << 10), "{copied} bytes were copied");
    assert!(outcome.usage.dropped_output > 0 && copied > 100 << 10);
    // The result is not the copy: it is whole up to its own bound.
    assert!(outcome.result.unwrap().as_str().unwrap().len() == 65_536);
}

#[test]
fn bytes_that_are_no_text_come_as_base64_and_do_not_hurt_the_result() {
    let mut driver = Driver::new(vec![command(
        "printf 'ok\\n\\377\\000\\n'; printf 'e\\342\\202\\254\\n' >&2; printf 'no newline'",
    )]);
    let run = driver.order("t", &[], Value::Null);
    let (outcome, printed) = driver.outcome(&run);
    let data = base64::engine::general_purpose::STANDARD.encode(b"\xff\0");
    let on =
        |stream| printed.iter().filter(|(s, _)| *s == stream).map(|(_, l)| l.clone()).collect::<Vec<_>>();
    assert_eq!(on(Stream::Stdout), ["ok".to_owned(), data, "no newline".to_owned()]);
    assert_eq!(on(Stream::Stderr), ["e€"]);
    assert_eq!(outcome.result, Some(json!("ok\n\u{fffd}\0\nno newline")));
}

#[test]
fn streams_closed_early_end_nothing() {
    let task = Task { result: ResultKind::None, ..command("echo x; exec >&- 2>&-; sleep 0.2; exit 7") };
    let outcome = once(task, &[], json!({}));
    assert_eq!(outcome.cause, Cause::Exit { code: 7 });
    assert!(outcome.usage.wall_ms >= 200);
}

#[test]
fn a_flood_keeps_no_cancel_waiting() {
    let mut driver = Driver::new(vec![command("yes & yes >&2 & wait")]);
    let run = driver.order("t", &[], Value::Null);
    driver.printed("y");
    let at = Instant::now();
    driver.cancel(&run, CancelReason::Revoked);
    assert_eq!(driver.outcome(&run).0.cause, Cause::Revoked);
    assert!(at.elapsed() < Duration::from_secs(4));
}

#[test]
fn each_line_is_an_entry_of_the_journal() {
    let mut driver = Driver::new(vec![command("echo '<3>bad'; echo plain; sleep 0.05; echo err >&2")]);
    let run = driver.order("t", &[], Value::Null);
    let pid = driver.started(&run);
    let (_, printed) = driver.outcome(&run);
    assert_eq!(printed[0].1, "<3>bad", "the copy is what was printed");
    driver.journal.set_read_timeout(Some(crate::driver::PATIENCE)).unwrap();
    for (message, priority, stream) in [("bad", 3, "stdout"), ("plain", 6, "stdout"), ("err", 4, "stderr")] {
        let mut buffer = [0; 4096];
        let n = driver.journal.recv(&mut buffer).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&buffer[..n]),
            format!(
                "MESSAGE={message}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=taskd\nTASKD_ID=0198abcd-1\n\
                 TASKD_TASK=t\nTASKD_QUEUE=mail\nTASKD_ATTEMPT=3\nTASKD_STREAM={stream}\nTASKD_PID={pid}\n"
            )
        );
    }
}

#[test]
fn without_a_journal_lines_go_to_stderr_and_command_no_terminal() {
    let mut settings = part(vec![command("printf '\\033[31mred\\a\\n'")]);
    settings.journal = false;
    let mut driver = Driver::start(&settings, |c| c.stderr(std::process::Stdio::piped()).spawn().unwrap());
    driver.hello(1);
    driver.run("t", &[], Value::Null);
    let mut stderr = driver.process.stderr.take().unwrap();
    driver.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(text, "t 0198abcd-1 stdout | \\x1b[31mred\\x07\n");
}

#[test]
fn a_long_line_is_marked_where_it_was_cut() {
    let mut driver = Driver::new(vec![command("head -c 60000 /dev/zero | tr '\\0' x; echo; echo next")]);
    let run = driver.order("t", &[], Value::Null);
    driver.started(&run);
    let mut marks = Vec::new();
    loop {
        match driver.next() {
            FromChild::Output { line: Some(line), cut, .. } => marks.push((line.len(), cut)),
            FromChild::Success { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(marks, [(48 << 10, true), (60_000 - (48 << 10), false), (4, false)]);
}
