//! The hidden command `taskd manual`: pages that man shows without a complaint, and examples in them that work.

use std::io::Write;
use std::process::{Command, Stdio};

use super::harness::node::TASKD;
use super::harness::{Node, PATIENCE, Ran, Setup};

const PAGES: [&str; 3] = ["taskd.1", "taskd.toml.5", "taskd-worker.7"];

fn page(name: &str) -> String {
    let mut command = Command::new(TASKD);
    command.args(["manual", name]).env("SOURCE_DATE_EPOCH", "1700000000");
    Ran::of(&mut command, PATIENCE).code(0).out
}

/// Stdout and stderr of a program that reads the page.
fn through(page: &str, program: &str, args: &[&str]) -> (String, String) {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, page) = (child.stdin.take().unwrap(), page.to_owned());
    let writing = std::thread::spawn(move || stdin.write_all(page.as_bytes()));
    let out = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr))
}

#[test]
fn no_formatter_complains() {
    let broken = ".TH X 1\n.SH NAME\nx \\- y\n.RS\n.PP\n.XX\n";
    for (name, text) in
        PAGES.map(|name| (name, page(name))).into_iter().chain([("broken", broken.to_owned())])
    {
        let (shown, groff) = through(&text, "groff", &["-man", "-Tutf8", "-ww", "-Kutf8"]);
        let (mandoc, _) = through(&text, "mandoc", &["-T", "lint", "-W", "warning"]);
        let quiet = groff.is_empty() && mandoc.is_empty();
        assert_eq!(quiet, name != "broken", "{name}\n{groff}\n{mandoc}");
        assert!(!shown.is_empty());
    }
}

#[test]
fn it_reads_as_a_user_expects() {
    for (name, words) in [
        (
            "taskd.1",
            &["NAME", "taskd - a task queue", "taskd store backup", "--state-dir DIR", "141", "TASKD_SOCKET"]
                [..],
        ),
        (
            "taskd.toml.5",
            &["[queues.NAME]", "shutdown_grace = duration, 0 to 1w", "Default: \"30s\".", "on_memory.max"],
        ),
        ("taskd-worker.7", &["TASKD_FD", "16777216 bytes", "{\"op\":\"resumed\"}", "adopt", "#!/bin/sh"]),
    ] {
        // Without bold and underline.
        let (shown, _) = through(&page(name), "groff", &["-man", "-Tutf8", "-Kutf8", "-P-cbou"]);
        for word in words {
            assert!(shown.contains(word), "{name}: no {word}\n{shown}");
        }
        assert!(!shown.contains("\\[u") && !shown.contains('`'), "{name}: markup is shown");
        assert!(!shown.contains('\u{2010}'), "{name}: a word is hyphenated, or something typed has a hyphen");
    }
}

#[test]
fn it_depends_on_nothing_but_the_program_and_the_date_it_is_told() {
    for name in PAGES {
        let text = page(name);
        assert!(text.contains("\"2023-11-14\"") && text == page(name), "{name}");
        let ran = |epoch: Option<&str>| {
            let mut command = Command::new(TASKD);
            command.args(["manual", name]).env_remove("SOURCE_DATE_EPOCH").env("TZ", "Asia/Shanghai");
            command.envs(epoch.map(|e| ("SOURCE_DATE_EPOCH", e)));
            Ran::of(&mut command, PATIENCE).code(0).out
        };
        let without = text.replace("\"2023-11-14\"", "\"\"");
        assert!(ran(None) == without && ran(Some("soon")) == without, "{name}");
    }
    Ran::of(Command::new(TASKD).args(["manual", "taskd.8"]), PATIENCE).code(64);
    let help = Ran::of(Command::new(TASKD).arg("--help"), PATIENCE).code(0).out;
    assert!(!help.contains("manual"), "it is for who builds a package");
}

#[test]
fn the_shortest_workers_work() {
    let config = "[taskd]\nshutdown_grace = \"5s\"\n[pools.default]\nprocesses = 1\n\
        [pools.sh]\nprocesses = 1\nworker = [\"/bin/sh\", \"{dir}/worker.sh\"]\n[queues.sh]\npool = \"sh\"\n\
        [pools.py]\nprocesses = 1\nworker = [\"python3\", \"{dir}/worker.py\"]\n[queues.py]\npool = \"py\"\n\
        [tasks.\"sh.*\"]\nqueue = \"sh\"\n[tasks.\"calc.*\"]\nqueue = \"py\"\n";
    let mut node = Node::prepare(Setup::new(config));
    let (shown, _) =
        through(&page("taskd-worker.7"), "groff", &["-man", "-Tutf8", "-Kutf8", "-rLL=200n", "-P-cbou"]);
    for (first, file) in [("#!/bin/sh", "worker.sh"), ("#!/usr/bin/env python3", "worker.py")] {
        // As somebody would copy it from a terminal.
        let lines: Vec<&str> = shown.lines().skip_while(|l| l.trim() != first).collect();
        let margin = lines[0].len() - first.len();
        let own = |l: &&&str| l.is_empty() || l.len() - l.trim_start().len() >= margin;
        let text: Vec<&str> =
            lines.iter().take_while(own).map(|l| l.get(margin..).unwrap_or_default()).collect();
        std::fs::write(node.path().join(file), text.join("\n") + "\n").unwrap();
    }
    node.launch();
    for round in 0..3 {
        let id = node.enqueue(&["sh.any", "--", "a \"quoted\" word"]);
        assert_eq!(node.finished(&id)["state"], "SUCCESS", "{round}");
        assert!(node.ok(&["logs", &id]).contains("asked for: {\"op\":\"run\""), "{round}");
    }
    let sum = node.enqueue(&["calc.sum", "--json-args", "[2, 40]"]);
    assert_eq!(node.finished(&sum)["outcome"]["result"], 42);
    let wrong = node.enqueue(&["calc.sum", "--", "x"]);
    let wrong = node.finished(&wrong);
    assert_eq!(
        (&wrong["state"], &wrong["outcome"]["failure"]["type"]),
        (&"FAILURE".into(), &"TypeError".into())
    );
}
