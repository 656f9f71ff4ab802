//! How programs end, and what becomes of it.

use serde_json::{Value, json};
use taskd::model::outcome::Cause;
use taskd::model::task::{ResultKind, RetryPolicy, Stdin, Task};
use taskd::process::protocol::{FromChild, ToChild};

use crate::driver::{Driver, command, exec, once, result};

#[test]
fn exit_codes_become_success_retry_or_failure() {
    let retry = RetryPolicy { retry_on: vec![9], success_on: vec![3], ..RetryPolicy::default() };
    let mut driver = Driver::new(vec![Task { retry, ..command("echo out; echo bad >&2; exit $1") }]);
    for (code, success, asks) in
        [(0, true, false), (3, true, false), (75, false, true), (9, false, true), (1, false, false)]
    {
        let outcome = driver.run("t", &[json!(code)], json!({}));
        assert_eq!(outcome.cause, Cause::Exit { code });
        assert_eq!((outcome.success, outcome.retry.is_some()), (success, asks), "exit {code}");
        if success {
            assert_eq!(outcome.result, Some(json!("out")));
        } else {
            let failure = outcome.failure.unwrap();
            assert_eq!((failure.kind.as_str(), failure.traceback.as_str()), ("ExitCode", "bad"));
        }
    }
}

#[test]
fn a_signal_from_outside_is_the_cause() {
    let mut driver = Driver::new(vec![exec(&["/bin/sleep", "600"])]);
    for signal in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGUSR1] {
        let run = driver.order("t", &[], json!({}));
        let pid = driver.started(&run);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
        let (outcome, _) = driver.outcome(&run);
        assert_eq!(outcome.cause, Cause::Signal { signal: signal as i32, core: false });
        assert!(!outcome.success);
    }
}

#[test]
fn usage_is_measured() {
    let outcome = once(command("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"), &[], json!({}));
    assert!(outcome.usage.user_us > 10_000, "{:?}", outcome.usage);
    assert!(outcome.usage.max_rss > 100 << 10, "{:?}", outcome.usage);
    assert!(outcome.usage.wall_ms > 5 && outcome.started.unwrap().0 > 1_600_000_000_000);
    assert_eq!(outcome.usage.killed_leftovers, 0);
}

#[test]
fn arguments_reach_a_program_as_they_are() {
    let args = [json!("a b"), json!("$(id)"), json!("-x"), json!("\"'\n"), json!(7), json!("")];
    let shown = "a b|$(id)|-x|\"'\n|7||";
    let printf = "printf '%s|' \"$@\"";
    assert_eq!(result(exec(&["/bin/sh", "-c", "shift; printf '%s|' \"$@\"", "x"]), &args), shown);
    assert_eq!(result(command(printf), &args), shown);
}

#[test]
fn a_json_result_is_parsed_and_anything_else_is_a_failure() {
    let json = |text: &str| Task { result: ResultKind::Json, ..command(text) };
    assert_eq!(result(json("echo '{\"a\": [1, null]}'"), &[]), json!({"a": [1, null]}));
    let outcome = once(json("echo oops"), &[], json!({}));
    assert_eq!((outcome.success, outcome.cause), (false, Cause::Exit { code: 0 }));
    assert!(outcome.failure.unwrap().message.contains("stdout is not JSON"));
    let small = Task { result_max_size: 4, ..json("echo '[1,2,3]'") };
    assert!(once(small, &[], json!({})).failure.unwrap().message.contains("longer than the 4 bytes"));
}

#[test]
fn a_text_result_is_cut_at_its_bound() {
    let outcome = once(Task { result_max_size: 5, ..command("echo ' 123456 '") }, &[], json!({}));
    assert_eq!((outcome.result, outcome.truncated), (Some(json!("12345")), true));
    let outcome = once(Task { ignore_result: true, ..command("echo x") }, &[], json!({}));
    assert_eq!((outcome.success, outcome.result), (true, None));
}

#[test]
fn stdin_is_one_json_object_or_nothing() {
    assert_eq!(result(exec(&["/bin/cat"]), &[]), "");
    let reads = Task { stdin: Stdin::Json, result: ResultKind::Json, ..exec(&["/bin/cat"]) };
    let reads = Task { name: "reads".into(), ..reads };
    // /bin/cat gets no positional argument, so what it prints is what it read.
    let outcome = once(reads, &[], json!({"big": "x".repeat(900_000), "deep": [{}]}));
    let read = outcome.result;
    // 900 kB is beyond what is kept of a result.
    assert!(read.is_none() && outcome.failure.unwrap().message.contains("longer"));
    let reads = Task {
        stdin: Stdin::Json,
        result: ResultKind::Json,
        result_max_size: 4 << 20,
        ..exec(&["/bin/cat"])
    };
    let outcome = once(reads, &[], json!({"big": "x".repeat(900_000), "deep": [{}]}));
    let read = outcome.result.unwrap();
    assert_eq!(read["kwargs"]["deep"], json!([{}]));
    assert_eq!(read["kwargs"]["big"].as_str().unwrap().len(), 900_000);
    assert_eq!(
        [&read["id"], &read["task"], &read["queue"], &read["attempt"], &read["args"]],
        [&json!("0198abcd-1"), &json!("t"), &json!("mail"), &json!(3), &json!([])]
    );
}

#[test]
fn a_program_need_not_read_its_stdin() {
    let kwargs = json!({"big": "x".repeat(1 << 20)});
    for text in ["sleep 0.05; echo fine", "exec <&-; sleep 0.05; echo fine"] {
        let outcome = once(Task { stdin: Stdin::Json, ..command(text) }, &[], kwargs.clone());
        assert_eq!(outcome.result, Some(json!("fine")), "{text}");
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let cases: [(Task, &str); 6] = [
        (exec(&["/nonexistent/program"]), "/nonexistent/program does not exist"),
        (exec(&["no-such-program-here"]), "\"no-such-program-here\" was not found in PATH"),
        (exec(&["/etc/passwd"]), "/etc/passwd may not be executed"),
        (with_directory("/nonexistent"), "working directory /nonexistent does not exist"),
        (with_directory("/etc/passwd"), "working directory /etc/passwd is not a directory"),
        (with_file("/nonexistent"), "environment_file /nonexistent: No such file"),
    ];
    for (task, why) in cases {
        let outcome = once(task, &[], json!({}));
        assert_eq!(outcome.cause, Cause::SpawnFailed);
        let message = outcome.failure.unwrap().message;
        assert!(message.contains(why), "{message:?} does not say {why:?}");
    }
}

fn with_directory(path: &str) -> Task {
    let mut task = exec(&["/bin/true"]);
    task.surroundings.working_directory = Some(path.into());
    task
}

fn with_file(path: &str) -> Task {
    let mut task = exec(&["/bin/true"]);
    task.surroundings.environment_file = Some(path.into());
    task
}

#[test]
fn arguments_that_do_not_fit_any_more_are_rejected() {
    let outcome = once(exec(&["/bin/true"]), &[], json!({"k": 1}));
    assert_eq!((outcome.cause, outcome.started), (Cause::Rejected, None));
}

#[test]
fn runs_it_must_not_take_are_refused() {
    let mut driver = Driver::new(vec![exec(&["/bin/sleep", "600"])]);
    let refused = |driver: &mut Driver, run: &str| match driver.next() {
        FromChild::Refused { run: of, why } if of == run => why,
        other => panic!("{other:?}"),
    };
    let run = driver.order("other", &[], Value::Null);
    let why = refused(&mut driver, &run);
    assert!(why.contains("\"other\" is not declared for this pool and user"), "{why}");
    // An order with another generation is fine as long as the task is there.
    let busy = driver.order_with("t", &[], Value::Null, |r| r.generation = 7);
    driver.started(&busy);
    let run = driver.order("t", &[], Value::Null);
    assert!(refused(&mut driver, &run).contains("busy"));
    // The same order twice is one run.
    driver.order_with("t", &[], Value::Null, |r| r.run.clone_from(&busy));
    driver.send(&ToChild::Cancel { run: busy.clone(), reason: taskd::model::outcome::CancelReason::Revoked });
    assert_eq!(driver.outcome(&busy).0.cause, Cause::Revoked);
}

#[test]
fn the_title_says_what_runs() {
    let mut driver = Driver::new(vec![exec(&["/bin/true"])]);
    driver.run("t", &[], Value::Null);
    let titles = crate::driver::within(|| {
        let text = std::fs::read_to_string(driver.dir.path().join("titles")).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    assert_eq!(
        titles,
        "taskd: runner default/2\ntaskd: runner default/2 t 0198abcd-1\ntaskd: runner default/2\n"
    );
}
