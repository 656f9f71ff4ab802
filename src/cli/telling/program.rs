//! A program that is told: the notice as JSON on stdin, the main facts in its environment.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use super::{Body, PATIENCE, Untold};
use crate::config::notify::TARGET;

/// Starts the program and waits for its end. What it prints is the output of the notice's message.
pub(super) fn tell(argv: &[String], body: &Body) -> Result<String, Untold> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Untold::Never("the target names no program".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).envs(variables(body));
    hide_targets(&mut command);
    let status = run(command, &body.json()).map_err(|why| Untold::Later(format!("{program}: {why}")))?;
    if status.success() {
        Ok(format!("{program} was told"))
    } else {
        Err(Untold::Later(format!("{program}: {status}")))
    }
}

/// The targets are nobody's business but ours: they may hold secrets.
pub(super) fn hide_targets(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with(TARGET)) {
            command.env_remove(name);
        }
    }
}

/// Runs it to its end, with this on stdin. Whatever it leaves behind the runner ends.
pub(super) fn run(mut command: Command, stdin: &[u8]) -> Result<ExitStatus, String> {
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let pipe = child.stdin.take();
    let (done, waited) = mpsc::channel();
    let text = stdin.to_vec();
    // One that does not read what it is given must not hold us up, nor one that does not end.
    std::thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            let _ = pipe.write_all(&text);
        }
    });
    std::thread::spawn(move || done.send(end_of(&mut child)));
    match waited.recv_timeout(PATIENCE) {
        Ok(ended) => ended.map_err(|e| e.to_string()),
        Err(_) => Err(format!("it did not end in {} s", PATIENCE.as_secs())),
    }
}

fn end_of(child: &mut Child) -> std::io::Result<ExitStatus> {
    child.wait()
}

/// The main facts, for programs that read no JSON.
fn variables(body: &Body) -> Vec<(&'static str, String)> {
    let state = body.state.map(|s| s.to_string()).unwrap_or_default();
    let cause = body.cause.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        ("TASKD_NOTICE_KIND", body.kind.name().to_owned()),
        ("TASKD_NOTICE_TASK", body.task.clone()),
        ("TASKD_NOTICE_ID", body.id.clone().unwrap_or_default()),
        ("TASKD_NOTICE_NODE", body.node.clone()),
        ("TASKD_NOTICE_STATE", state),
        ("TASKD_NOTICE_CAUSE", cause),
        ("TASKD_NOTICE_FAILURES", body.failures.to_string()),
        ("TASKD_NOTICE_SUMMARY", body.summary.clone()),
        ("TASKD_NOTICE_TEST", u8::from(body.test).to_string()),
    ]
}
