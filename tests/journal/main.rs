//! taskd and a real journald: what an administrator finds with `journalctl TASKD_…=`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

#[path = "../it/harness/mod.rs"]
mod harness;
mod journald;

use harness::{Node, Setup};
use journald::Journald;
use serde_json::Value;
use taskd::observe::fields;

const TASKS: &str = r#"
[pools.default]
processes = 2
[tasks.talk]
command = "echo to stdout; echo to stderr >&2; echo '<3>marked'; printf 'bad \\377 byte\\n'"
[tasks.fail]
command = "exit 4"
[tasks.steps]
command = "for i in 1 2 3; do echo step $i; echo up >{dir}/up; read x <{dir}/go; done; echo last"
[tasks.flood]
command = "head -c 3000000 /dev/zero | tr '\\0' '\\n'; echo over"
result = "none"
"#;

fn start() -> Option<(Journald, Node)> {
    match Journald::start() {
        Err(why) => {
            println!("not tested: {why}");
            None
        }
        Ok(journal) => {
            let words = journal.connected();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let node = Node::start_with(Setup::new(TASKS).wrapped(&words));
            Some((journal, node))
        }
    }
}

fn field<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_else(|| panic!("no {name} in {entry}"))
}

#[test]
fn every_printed_line_is_an_entry_with_its_fields() {
    let Some((journal, node)) = start() else { return };
    let id = node.enqueue(&["talk"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    let of = format!("TASKD_ID={id}");
    let line = journal.entry(&[&of, "TASKD_STREAM=stdout", "MESSAGE=to stdout"]);
    assert_eq!(field(&line, "TASKD_TASK"), "talk");
    assert_eq!(field(&line, "TASKD_QUEUE"), "default");
    assert_eq!(field(&line, "TASKD_ATTEMPT"), "1");
    assert_eq!(field(&line, "PRIORITY"), "6");
    assert!(field(&line, "TASKD_PID").parse::<u32>().unwrap() > 1);
    let line = journal.entry(&[&of, "TASKD_STREAM=stderr"]);
    assert_eq!((field(&line, "MESSAGE"), field(&line, "PRIORITY")), ("to stderr", "4"));
    let line = journal.entry(&[&of, "MESSAGE=marked"]);
    assert_eq!(field(&line, "PRIORITY"), "3");
    // Bytes that are no text reach the journal as they are.
    let all = journal.entries(&[&of, "TASKD_STREAM=stdout"]);
    let raw = all.iter().find_map(|e| e["MESSAGE"].as_array()).unwrap();
    let raw: Vec<u64> = raw.iter().filter_map(Value::as_u64).collect();
    assert_eq!(raw, b"bad \xff byte".iter().map(|b| u64::from(*b)).collect::<Vec<_>>());
}

#[test]
fn a_life_is_told_by_entries_with_message_ids() {
    let Some((journal, node)) = start() else { return };
    let (good, bad) = (node.enqueue(&["talk"]), node.enqueue(&["fail"]));
    node.all_finished(&[&good, &bad]);
    let told = |id: &str, event: &str| {
        let entry = journal.entry(&[&format!("TASKD_ID={id}"), &format!("MESSAGE_ID={event}")]);
        for name in ["TASKD_TASK", "TASKD_QUEUE", "MESSAGE"] {
            assert!(!field(&entry, name).is_empty());
        }
        entry
    };
    told(&good, fields::RECEIVED);
    let started = told(&good, fields::STARTED);
    assert_eq!(field(&started, "TASKD_ATTEMPT"), "1");
    assert!(field(&started, "TASKD_PID").parse::<u32>().unwrap() > 1);
    let ended = told(&good, fields::SUCCEEDED);
    for figure in ["TASKD_RUN_MS", "TASKD_CPU_MS", "TASKD_WAIT_MS"] {
        field(&ended, figure).parse::<u64>().unwrap();
    }
    let ended = told(&bad, fields::FAILED);
    assert_eq!((field(&ended, "TASKD_CAUSE"), field(&ended, "TASKD_EXIT")), ("exit", "4"));
    // Every field of ours stands in the one list.
    let known: Vec<_> = fields::FIELDS.iter().map(|f| f.name).collect();
    for entry in journal.entries(&["_COMM=taskd"]) {
        for name in entry.as_object().unwrap().keys().filter(|k| k.starts_with("TASKD_")) {
            assert!(known.contains(&name.as_str()), "{name} is not in observe::fields");
        }
    }
}

#[test]
fn a_journal_that_does_not_read_stalls_nothing() {
    let Some((journal, node)) = start() else { return };
    journal.stall(true);
    let flood = node.enqueue(&["flood"]);
    let view = node.finished(&flood);
    journal.stall(false);
    assert_eq!(view["state"], "SUCCESS", "{view}");
    assert!(view["outcome"]["usage"]["dropped_output"].as_u64().unwrap() > 0, "{view}");
}

#[test]
fn a_journal_that_is_killed_and_restarted_loses_no_result_and_is_found_again() {
    let Some((mut journal, node)) = start() else { return };
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["steps"]);
    let of = format!("TASKD_ID={id}");
    up.line();
    journal.entry(&[&of, "MESSAGE=step 1"]);
    journal.kill();
    go.release(1);
    up.line();
    // A result that comes while nobody takes the log is a result.
    let other = node.enqueue(&["talk"]);
    assert_eq!(node.finished(&other)["state"], "SUCCESS");
    journal.start_again();
    // What taskd itself said meanwhile waited for it.
    journal.entry(&[&format!("TASKD_ID={other}"), &format!("MESSAGE_ID={}", fields::SUCCEEDED)]);
    go.release(1);
    up.line();
    journal.entry(&[&of, "MESSAGE=step 3"]);
    go.release(1);
    let view = node.finished(&id);
    assert_eq!(
        (view["state"].as_str(), view["outcome"]["result"].as_str()),
        (Some("SUCCESS"), Some("step 1\nstep 2\nstep 3\nlast")),
        "{view}"
    );
    // Journals are by boot: both lie in the same directory.
    assert!(journal.entries(&[&of, "MESSAGE=step 2"]).is_empty());
    assert!(view["outcome"]["usage"]["dropped_output"].as_u64().unwrap() > 0, "{view}");
    let told = journal.entry(&["TASKD_DROPPED=1"]);
    assert!(field(&told, "MESSAGE").contains("lost"), "{told}");
    let status = node.ok(&["status"]);
    assert!(status.contains("bytes of output were lost"), "{status}");
}
