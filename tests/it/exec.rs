//! `taskd exec`: a declared task in the foreground, without a daemon.

use super::harness::{Node, Setup};
use super::with;

const TASKS: &str = r#"
[tasks.greet]
exec = ["/bin/sh", "-c", "echo hello $1; echo note >&2; exit 5", "sh", "{name}"]
params.name = "string"
[tasks.surroundings]
command = "pwd; umask; echo ${SECRET-unset} $GIVEN $TASKD_TASK $TASKD_ATTEMPT"
working_directory = "/usr"
umask = "027"
environment = { GIVEN = "given" }
[tasks.slow]
command = "sleep 600"
time_limit = "300ms"
"#;

#[test]
fn it_runs_as_the_daemon_would_run_it() {
    let node = Node::prepare(Setup::new(&with(TASKS)));
    let config = node.config_file();
    let config = config.to_str().unwrap();
    let ran = node.taskd(&["exec", "--config", config, "greet", "name=you"]).code(5);
    ran.shows(&["hello you"]).says(&["note"]);
    let mut command = node.command(&["exec", "--config", config, "surroundings"]);
    let ran = super::harness::Ran::of(command.env("SECRET", "x"), super::harness::PATIENCE).code(0);
    ran.shows(&["/usr\n", "0027\n", "unset given surroundings 1"]);
    node.taskd(&["exec", "--config", config, "slow"]).fails().says(&["time limit"]);
    node.taskd(&["exec", "--config", config, "gret"]).code(69).one_clear_line().says(&["greet"]);
    node.taskd(&["exec", "--config", config, "greet"]).code(65).says(&["name"]);
}
