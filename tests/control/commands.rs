//! The commands as processes, against a daemon that a closure plays.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use taskd::control::api::{Answer, Error, ErrorKind, Request};
use taskd::control::server::Limits;

use crate::fake::{Fake, own_uid};

const ID: &str = "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f";

fn taskd(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskd"));
    command.args(args).env("TASKD_SOCKET", socket).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        let text = |b| String::from_utf8(b).unwrap();
        Self { code: o.status.code(), out: text(o.stdout), err: text(o.stderr) }
    }
}

fn run(fake: &Fake, args: &[&str]) -> Ran {
    taskd(&fake.socket, args).output().unwrap().into()
}

fn run_with_input(fake: &Fake, args: &[&str], input: &str) -> Ran {
    let mut child = taskd(&fake.socket, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn stream(lines: &[Value]) -> Answer {
    let (sender, stream) = tokio::sync::mpsc::channel(lines.len().max(1));
    for line in lines {
        sender.try_send(line.to_string()).unwrap();
    }
    Answer::Stream(stream)
}

fn view(state: &str, outcome: &Value) -> Answer {
    let mut view = json!({
        "id": ID, "task": "mail", "queue": "default", "state": state, "priority": 0, "attempt": 1,
        "retries": 0, "losses": 0, "enqueued": 0,
    });
    if !outcome.is_null() {
        view["outcome"] = outcome.clone();
    }
    Answer::Json(view.to_string())
}

fn exit(code: i32) -> Value {
    json!({"cause": {"kind": "exit", "code": code}, "success": code == 0})
}

/// A daemon that takes every message and ends it with `outcome` after it printed something.
fn daemon(state: &'static str, outcome: Value) -> Fake {
    Fake::start(Limits::default(), move |request| {
        Some(match request {
            Request::Enqueue(messages) => Answer::Json(
                Value::from_iter(messages.iter().map(
                    |m| json!({"id": m.id, "state": "WAITING", "queue": "default", "known": m.task == "old"}),
                ))
                .to_string(),
            ),
            Request::Logs { .. } => stream(&[
                json!({"attempt": 1, "at": 1, "stream": "stdout", "line": "out "}),
                json!({"attempt": 1, "at": 1, "stream": "stderr", "line": "err"}),
                json!({"attempt": 1, "at": 2, "stream": "stdout", "line": "", "data": "/wA=", "cut": true}),
            ]),
            Request::Result { .. } | Request::Message { .. } => view(state, &outcome),
            Request::Cancel { id } if id == "gone" => {
                Answer::Error(Error::new(ErrorKind::UnknownMessage, "no message gone"))
            }
            Request::Cancel { id } if id == "final" => {
                Answer::Error(Error::new(ErrorKind::Conflict, "final is SUCCESS already"))
            }
            Request::Export { .. } => {
                stream(&[json!({"v": 1, "message": {}, "attempt": 0}), json!({"v": 1})])
            }
            Request::Backup if state == "SUCCESS" => stream(&[json!({"data": "YWJj"}), json!({"bytes": 3})]),
            Request::Backup => stream(&[json!({"data": "YWJj"})]),
            Request::Import(all) => Answer::Json(json!({"message": "x", "count": all.len()}).to_string()),
            Request::List(_) => {
                let Answer::Json(one) = view(state, &outcome) else { return None };
                Answer::Json(format!("[{}]", vec![one; 3000].join(",")))
            }
            Request::Reload { .. } => Answer::Error(Error {
                kind: ErrorKind::Config,
                message: "the config has 2 faults".into(),
                details: vec!["taskd.toml:3:1: unknown key".into(), "taskd.toml:9:5: no such queue".into()],
                hint: None,
            }),
            _ => Answer::Json(json!({"message": "done", "details": ["one", "two"]}).to_string()),
        })
    })
}

#[test]
fn enqueue_prints_the_id_it_made() {
    let fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["enqueue", "mail", "user=1", "n:=2", "--", "-x"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let id = ran.out.strip_suffix('\n').unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    let Some(Request::Enqueue(seen)) = fake.seen.lock().unwrap().pop() else { panic!("nothing came") };
    assert_eq!(seen[0].id.as_deref(), Some(id));
    assert_eq!((json!(seen[0].kwargs), json!(seen[0].args)), (json!({"user": "1", "n": 2}), json!(["-x"])));

    let ran = run(&fake, &["--json", "enqueue", "old", "--id", "i-1"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.out).unwrap(),
        json!({"id": "i-1", "state": "WAITING", "queue": "default", "known": true})
    );
    assert!(ran.err.contains("was enqueued before"), "{}", ran.err);
}

#[test]
fn wait_is_as_if_the_task_had_been_run_here() {
    for (state, outcome, code) in [
        ("SUCCESS", exit(0), 0),
        ("FAILURE", exit(3), 3),
        ("FAILURE", json!({"cause": {"kind": "signal", "signal": 9, "core": false}, "success": false}), 137),
        ("FAILURE", json!({"cause": {"kind": "time_limit", "soft": false}, "success": false}), 124),
        ("REVOKED", Value::Null, 69),
    ] {
        let fake = daemon(state, outcome);
        let output = taskd(&fake.socket, &["enqueue", "mail", "--wait"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{state}");
        assert_eq!(output.stdout, b"out \n\xff\0");
        assert!(output.stderr.starts_with(b"err\n"), "{:?}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stderr == b"err\n", state == "SUCCESS");
    }
}

#[test]
fn a_wait_has_a_bound_when_it_is_given() {
    let fake = daemon("RUNNING", Value::Null);
    let ran = run(&fake, &["result", ID, "--wait", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(75));
    assert!(ran.err.contains("not final after 200ms") && ran.err.contains("hint: "), "{}", ran.err);
    let ran = run(&fake, &["result", ID]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(75), ""));
    assert!(ran.err.contains("mail") && ran.err.contains("is RUNNING"), "{}", ran.err);
}

#[test]
fn wait_goes_on_over_a_daemon_that_is_replaced() {
    let mut answers = 0;
    let fake = Fake::start(Limits::default(), move |request| {
        answers += 1;
        match request {
            // Dropped, as by a daemon that dies: 503.
            _ if answers % 2 == 0 => None,
            Request::Logs { .. } => Some(stream(&[
                json!({"attempt": 1, "at": 1, "stream": "stdout", "line": "once"}),
                json!({"error": {"kind": "unavailable", "message": "stopping"}}),
            ])),
            Request::Enqueue(m) => Some(Answer::Json(
                json!([{"id": m[0].id, "state": "WAITING", "queue": "default"}]).to_string(),
            )),
            _ => Some(view("SUCCESS", &exit(0))),
        }
    });
    let ran = run(&fake, &["enqueue", "mail", "--wait", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["state"], "SUCCESS");
}

#[test]
fn results_are_printed_as_what_they_are() {
    for (result, out) in
        [(json!("two\nlines"), "two\nlines\n"), (json!({"a": [1]}), "{\"a\":[1]}\n"), (Value::Null, "")]
    {
        let mut outcome = exit(0);
        outcome["result"] = result;
        let ran = run(&daemon("SUCCESS", outcome), &["result", ID]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), out, ""));
    }
    let mut outcome = exit(4);
    outcome["failure"] = json!({"type": "ExitCode", "message": "exit code 4", "traceback": "no disk\n"});
    let ran = run(&daemon("FAILURE", outcome), &["result", ID]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""));
    assert!(ran.err.contains("is FAILURE: exit code 4") && ran.err.ends_with("no disk\n"), "{}", ran.err);
}

#[test]
fn a_batch_goes_in_bounded_requests() {
    let fake = daemon("SUCCESS", exit(0));
    let input: String = (0..2500).map(|n| format!("{{\"task\":\"t\",\"args\":[{n}]}}\n")).collect();
    let ran = run_with_input(&fake, &["enqueue", "--batch", "-"], &input);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let ids: std::collections::BTreeSet<&str> = ran.out.lines().collect();
    assert_eq!(ids.len(), 2500);
    let seen = fake.seen.lock().unwrap();
    let counts: Vec<usize> =
        seen.iter().map(|r| if let Request::Enqueue(m) = r { m.len() } else { 0 }).collect();
    assert!(counts.len() >= 3 && counts.iter().sum::<usize>() == 2500, "{counts:?}");
    drop(seen);
    let ran = run_with_input(&fake, &["enqueue", "--batch", "-"], "{\"task\":\"t\"}\n\n{\"tusk\":1}\n");
    assert_eq!(ran.code, Some(65));
    assert!(ran.err.contains("stdin, line 3: unknown field `tusk`"), "{}", ran.err);
}

#[test]
fn the_worst_of_several_ids_decides() {
    let fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["cancel", "a", "gone", "final", "b"]);
    assert_eq!(ran.code, Some(73));
    assert_eq!(ran.out.matches("done").count(), 2);
    assert!(ran.err.contains("gone: no message gone") && ran.err.contains("final: "), "{}", ran.err);
    assert_eq!(run(&fake, &["cancel", "gone"]).code, Some(69));
    assert_eq!(run(&fake, &["retry", "a", "b"]).code, Some(0));
    assert_eq!(run(&fake, &["cancel", "a", "../b"]).code, Some(64));
}

#[test]
fn errors_are_lines_with_a_hint_or_json() {
    let fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["reload"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(78), ""));
    assert_eq!(
        ran.err,
        "taskd: the config has 2 faults\n  taskd.toml:3:1: unknown key\n  taskd.toml:9:5: no such queue\n"
    );
    let ran = run(&fake, &["reload", "--json"]);
    assert_eq!(serde_json::from_str::<Error>(&ran.err).unwrap().kind, ErrorKind::Config);

    let ran: Ran = taskd(Path::new("/nonexistent/taskd.sock"), &["status"]).output().unwrap().into();
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.starts_with("taskd: not running: there is no socket /nonexistent/taskd.sock\n"));
    assert!(ran.err.lines().count() == 2 && ran.err.contains("hint: start it with"), "{}", ran.err);
    for line in [&["statsu"][..], &[], &["enqueue"], &["pause"], &["status", "--timeout", "1M"]] {
        let ran = run(&fake, line);
        assert_eq!((ran.code, ran.out.as_str()), (Some(64), ""), "{line:?}: {}", ran.err);
    }
    assert_eq!(run(&fake, &["--help"]).code, Some(0));
    assert_eq!(run(&fake, &["--version"]).code, Some(0));
}

#[test]
fn a_reader_that_went_away_ends_it_quietly() {
    let fake = daemon("SUCCESS", exit(0));
    for args in [&["list"][..], &["list", "--json"], &["openapi"], &["--help"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let ran: Ran = taskd(&fake.socket, args).stdout(write).output().unwrap().into();
        assert!(matches!(ran.code, Some(0 | 141)), "{args:?}: {:?}", ran.code);
        assert_eq!(ran.err, "", "{args:?}");
    }
}

#[test]
fn colors_are_for_terminals() {
    let fake = daemon("FAILURE", exit(1));
    for (args, colored) in [
        (&["list", "--limit", "1"][..], false),
        (&["list", "--limit", "1", "--color", "always"], true),
        (&["list", "--limit", "1", "--color", "never"], false),
    ] {
        let ran = run(&fake, args);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out.contains('\x1b'), colored, "{args:?}");
        assert!(ran.out.lines().take(3).all(|l| colored || l.chars().count() <= 80));
    }
}

#[test]
fn json_is_what_the_api_gave() {
    let fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["status", ID, "--json"]);
    let Answer::Json(given) = view("SUCCESS", &exit(0)) else { panic!() };
    assert_eq!(ran.out, given + "\n");
    let ran = run(&fake, &["logs", ID, "--json"]);
    assert_eq!(ran.out.lines().filter(|l| serde_json::from_str::<Value>(l).is_ok()).count(), 3);
}

#[test]
fn what_was_exported_can_be_imported() {
    let fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["store", "export"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 2));
    let good = ran.out.lines().next().unwrap().to_owned() + "\n";
    let file = fake.dir.path().join("export");
    std::fs::write(&file, good.repeat(1500)).unwrap();
    let ran = run(&fake, &["store", "import", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1500 of 1500 messages imported\n"));
    assert_eq!(run_with_input(&fake, &["store", "import", "-"], "{}\n").code, Some(65));
    assert_eq!(run(&fake, &["store", "import", "/nonexistent"]).code, Some(66));
    let ran: Ran = taskd(&fake.socket, &["store", "backup", "b.db"])
        .current_dir(fake.dir.path())
        .output()
        .unwrap()
        .into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "the store was copied to b.db\n"));
    let copy = fake.dir.path().join("b.db");
    assert_eq!(std::fs::read(&copy).unwrap(), b"abc");
    assert_eq!(run(&fake, &["store", "backup", "-"]).out, "abc");
    // Nothing is written over, and half a copy is none.
    assert_eq!(run(&fake, &["store", "backup", copy.to_str().unwrap()]).code, Some(73));
    let fake = daemon("FAILURE", exit(1));
    let half = fake.dir.path().join("half.db");
    let ran = run(&fake, &["store", "backup", half.to_str().unwrap()]);
    assert!(ran.code != Some(0) && ran.err.contains("not whole"), "{}", ran.err);
    assert!(!half.exists());
}

#[test]
fn stop_returns_when_the_daemon_is_gone() {
    let mut fake = daemon("SUCCESS", exit(0));
    let ran = run(&fake, &["stop", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(75));
    assert!(ran.err.contains("still shutting down"), "{}", ran.err);
    let mut child = taskd(&fake.socket, &["stop"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"done\n");
    assert!(child.try_wait().unwrap().is_none(), "it does not wait");
    fake.stop();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stranger_is_told_what_he_lacks() {
    if own_uid() != 0 {
        // Another uid can only be had as root; `routes::a_new_policy_holds_…` shows the rest.
        return;
    }
    let fake = daemon("SUCCESS", exit(0));
    // A copy where everybody can reach it, wherever this tree stands.
    let program = fake.dir.path().join("taskd");
    std::fs::copy(env!("CARGO_BIN_EXE_taskd"), &program).unwrap();
    let as_stranger = |args: &[&str]| -> Ran {
        Command::new(&program)
            .args(args)
            .arg("--socket")
            .arg(&fake.socket)
            .uid(54321)
            .gid(54321)
            .output()
            .unwrap()
            .into()
    };
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(fake.dir.path(), 0o755);
    mode(&fake.socket, 0o600);
    let ran = as_stranger(&["status"]);
    assert_eq!(ran.code, Some(77), "{}", ran.err);
    assert!(ran.err.contains("no permission to connect"), "{}", ran.err);
    mode(&fake.socket, 0o666);
    for (args, key) in [(&["status"][..], "read"), (&["enqueue", "mail"], "enqueue"), (&["stop"], "admin")] {
        let ran = as_stranger(args);
        assert_eq!(ran.code, Some(77), "{}", ran.err);
        assert!(ran.err.contains(&format!("[access] {key}")) && ran.err.contains("54321"), "{}", ran.err);
    }
    assert!(fake.seen.lock().unwrap().is_empty());
}
