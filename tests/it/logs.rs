//! `taskd logs`: what a task printed, as it prints it and later.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::harness::Node;
use super::{HOLD, with};

#[test]
fn output_is_kept_by_attempt_and_stream() {
    let tasks = "[tasks.twice]\ncommand = \"echo out $TASKD_ATTEMPT; echo err $TASKD_ATTEMPT >&2; [ $TASKD_ATTEMPT = 2 ]\"\nmax_retries = 1\nretry_delay = \"10ms\"\nretry_jitter = false\n";
    let node = Node::start(&with(tasks));
    let id = node.enqueue(&["twice"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    let ran = node.taskd(&["logs", &id]).code(0);
    for line in ["out 1", "err 1", "out 2", "err 2"] {
        assert!(ran.out.contains(line) || ran.err.contains(line), "{line}: {ran:?}");
    }
    let lines = node.taskd(&["logs", "--json", &id]).code(0).out;
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let found = lines.iter().any(|l| l["attempt"] == 2 && l["stream"] == "stderr" && l["line"] == "err 2");
    assert!(found, "{lines:?}");
}

#[test]
fn follow_shows_lines_as_they_come_and_ends_with_the_message() {
    let tasks = "[tasks.talk]\ncommand = \"echo one; echo up >{dir}/up; read x <{dir}/go; echo two\"\n";
    let node = Node::start(&with(tasks));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["talk"]);
    up.line();
    let mut follow = node.command(&["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("one"), "before the task ended");
    go.release(1);
    assert!(lines.next().unwrap().contains("two"));
    assert_eq!(lines.find(|l| !l.is_empty()), None);
    assert!(follow.wait().unwrap().success());
}

#[test]
fn a_flood_neither_blocks_nor_fills_the_disk() {
    let tasks = "[tasks.flood]\ncommand = \"head -c 200000000 /dev/zero; echo end >&2\"\nresult = \"none\"\n";
    let node = Node::start(&with(tasks));
    let id = node.enqueue(&["flood"]);
    let view = node.finished(&id);
    assert_eq!(view["state"], "SUCCESS", "{view}");
    assert!(view["outcome"]["usage"]["dropped_output"].as_u64().unwrap() > 100_000_000, "{view}");
    let mut size = 0;
    let mut at = vec![node.state_dir()];
    while let Some(dir) = at.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { at.push(entry.path()) } else { size += meta.len() }
        }
    }
    assert!(size < 20_000_000, "{size} bytes of state");
}

#[test]
fn nothing_printed_and_nobody_known() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    assert_eq!(node.ok(&["logs", &id]), "");
    go.release(1);
    node.taskd(&["logs", "nobody"]).code(69).one_clear_line();
}
