//! Files and values of secrets, for the attempt of the task that lists them and nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use taskd::model::outcome::Cause;
use taskd::model::task::Task;

use crate::driver::{Driver, command, part, within};

const MARKER: &str = "hunter2-is-the-value";

/// A runner that holds `smtp` and `key`, with a directory for their files.
fn driver(tasks: Vec<Task>) -> (Driver, tempfile::TempDir) {
    let vault = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let held = BTreeMap::from([
        ("", vault.path().to_str().unwrap().to_owned()),
        ("smtp", format!("{MARKER}\n")),
        ("key", "k".repeat(100_000)),
    ]);
    fs::write(dir.path().join("held.json"), serde_json::to_vec(&held).unwrap()).unwrap();
    let binary = std::env::current_exe().unwrap();
    let mut driver = Driver::start_in(dir, &part(tasks), &binary, |c| c.spawn().unwrap());
    driver.hello(1);
    (driver, vault)
}

fn with(names: &[&str], mut task: Task) -> Task {
    task.surroundings.credentials = names.iter().map(|n| (*n).to_owned()).collect();
    task
}

fn is_empty(vault: &Path) -> bool {
    fs::read_dir(vault).unwrap().next().is_none()
}

#[test]
fn an_attempt_has_files_of_its_own_while_it_runs() {
    let text = "cd \"$CREDENTIALS_DIRECTORY\" && ls && stat -c '%a %u' . smtp key && cat smtp && wc -c <key";
    let mut other = with(&["smtp"], command("ls \"$CREDENTIALS_DIRECTORY\"; echo $CREDENTIALS_DIRECTORY"));
    other.name = "other".to_owned();
    let mut none = command("echo ${CREDENTIALS_DIRECTORY-unset}");
    none.name = "none".to_owned();
    let (mut driver, vault) = driver(vec![with(&["smtp", "key"], command(text)), other, none]);
    let uid = nix::unistd::getuid();
    let outcome = driver.run("t", &[], json!({}));
    let wanted = format!("key\nsmtp\n500 {uid}\n400 {uid}\n400 {uid}\n{MARKER}\n100000");
    assert_eq!(outcome.result, Some(json!(wanted)), "{outcome:?}");
    assert!(is_empty(vault.path()), "told when the files are gone");
    let one = driver.run("other", &[], json!({})).result.unwrap();
    let (names, path) = one.as_str().unwrap().split_once('\n').unwrap();
    assert_eq!(names, "smtp");
    let two = driver.run("other", &[], json!({})).result.unwrap();
    assert!(!two.as_str().unwrap().ends_with(path), "nobody can be waiting at its name");
    assert_eq!(driver.run("none", &[], json!({})).result, Some(json!("unset")));
}

#[test]
fn values_stand_in_the_environment() {
    let mut task = command("echo \"$A|$B\"");
    task.surroundings.environment = BTreeMap::from([
        ("A".to_owned(), "smtp://me:${credential:smtp}@h".to_owned()),
        ("B".to_owned(), "$HOME $${credential:smtp}".to_owned()),
    ]);
    let (mut driver, _vault) = driver(vec![task]);
    let wanted = format!("smtp://me:{MARKER}@h|$HOME ${{credential:smtp}}");
    assert_eq!(driver.run("t", &[], json!({})).result, Some(json!(wanted)));
}

#[test]
fn what_is_not_there_fails_the_attempt_without_a_trace() {
    let mut value = command("true");
    value.name = "value".to_owned();
    value.surroundings.environment = BTreeMap::from([("A".to_owned(), "${credential:gone}".to_owned())]);
    let mut program = with(&["smtp"], crate::driver::exec(&["/no/such/program"]));
    program.name = "program".to_owned();
    let (mut driver, vault) = driver(vec![with(&["smtp", "gone"], command("true")), value, program]);
    for (task, why) in [("t", "gone"), ("value", "gone"), ("program", "/no/such/program")] {
        let outcome = driver.run(task, &[], json!({}));
        assert_eq!(outcome.cause, Cause::SpawnFailed, "{task}");
        let said = serde_json::to_string(&outcome).unwrap();
        assert!(said.contains(why) && !said.contains(MARKER), "{said}");
        assert!(is_empty(vault.path()), "{task}");
    }
}

#[test]
fn what_a_task_plants_is_removed_and_what_it_leads_to_is_not() {
    let precious = tempfile::tempdir().unwrap();
    fs::write(precious.path().join("keep"), "x").unwrap();
    let text = format!(
        "cd \"$CREDENTIALS_DIRECTORY\"; chmod 700 .; ln -s {0} link; mkdir -p a/b/c; ln -s {0} a/b/link; chmod 0 a/b; \
         echo more >file",
        precious.path().display()
    );
    let (mut driver, vault) = driver(vec![with(&["smtp"], command(&text))]);
    driver.run("t", &[], json!({}));
    assert!(is_empty(vault.path()));
    assert_eq!(fs::read_to_string(precious.path().join("keep")).unwrap(), "x");
}

#[test]
fn they_are_gone_after_a_limit_and_a_cancel_too() {
    let slow = Task { time_limit_ms: Some(300), ..with(&["smtp"], command("sleep 600")) };
    let (mut driver, vault) = driver(vec![slow]);
    assert_eq!(driver.run("t", &[], json!({})).cause, Cause::TimeLimit { soft: false });
    assert!(is_empty(vault.path()));
}

#[test]
fn a_runner_that_holds_secrets_is_closed_to_its_own_user() {
    let (mut driver, vault) = driver(vec![with(&["smtp"], command("sleep 600"))]);
    driver.order("t", &[], json!({}));
    within(|| (!is_empty(vault.path())).then_some(()));
    let pid = driver.process.id();
    // Of root's own process the files of /proc belong to root either way; only root may look then.
    if !nix::unistd::geteuid().is_root() {
        let looked = fs::read(format!("/proc/{pid}/environ"));
        assert_eq!(looked.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/mem")).unwrap());
    assert_eq!(owner, 0);
}
