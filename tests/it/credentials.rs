//! Credentials: who sees them, and that nobody else does, wherever one looks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;

use super::harness::node::TASKD;
use super::harness::{Fifo, Node, PATIENCE, Ran, Setup, procs, until};
use super::{upgrade, with};

/// What must not be found, as it is and as it travels.
const MARKER: &str = "hunter2-0123456789abcdef";

/// `hold` tells where its files are and reads them again when it is let go.
const TASKS: &str = r#"
[tasks.hold]
command = "cat $CREDENTIALS_DIRECTORY/smtp | md5sum; echo $CREDENTIALS_DIRECTORY >{dir}/up; read x <{dir}/go; md5sum <$CREDENTIALS_DIRECTORY/smtp"
credentials = ["smtp"]
USER
[tasks.keyed]
command = "printf %s $KEY | md5sum; echo ${CREDENTIALS_DIRECTORY-unset} ${THEIRS-unset}"
environment = { KEY = "${credential:key}" }
USER
[tasks.spy]
command = "head -c 1 /proc/$PPID/mem >/dev/null; head -c 1 /proc/$PPID/environ >/dev/null; true"
USER
[tasks.closed]
command = "md5sum <$CREDENTIALS_DIRECTORY/smtp; stat -c '%a' $CREDENTIALS_DIRECTORY"
credentials = ["smtp"]
private_tmp = true
protect_system = "strict"
USER
"#;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The tasks, as a user of their own where that can be.
fn tasks() -> String {
    let user = if is_root() { "user = \"games\"" } else { "" };
    with(&TASKS.replace("USER", user))
}

/// A directory as systemd makes one.
fn given() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("smtp"), format!("{MARKER}-smtp\n")).unwrap();
    fs::write(dir.path().join("key"), format!("{MARKER}-key\n")).unwrap();
    dir
}

fn setup(config: &str, given: &Path) -> Setup {
    let mut setup = Setup::new(config);
    setup.env = vec![("CREDENTIALS_DIRECTORY".to_owned(), given.to_str().unwrap().to_owned())];
    setup
}

/// A pipe that every user may use.
fn pipe(node: &Node, name: &str) -> Fifo {
    let pipe = node.fifo(name);
    fs::set_permissions(pipe.path(), fs::Permissions::from_mode(0o666)).unwrap();
    pipe
}

fn sum(text: &str) -> String {
    let out = Command::new("sh").args(["-c", "printf %s \"$1\" | md5sum", "sh", text]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(MARKER);
    for secret in [MARKER, &encoded[..24]] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "the secret is in {what}: {}", String::from_utf8_lossy(bytes));
    }
}

fn clean_tree(dir: &Path) -> usize {
    let mut looked = 0;
    let mut at = vec![dir.to_owned()];
    while let Some(dir) = at.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                at.push(entry.path());
            } else if kind.is_file() {
                clean(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
                looked += 1;
            }
        }
    }
    looked
}

#[test]
fn nobody_but_the_attempt_ever_sees_a_value() {
    let given = given();
    let mut node = Node::start_with(setup(&tasks(), given.path()));
    let (mut up, mut go) = (pipe(&node, "up"), pipe(&node, "go"));
    let hold = node.enqueue(&["hold"]);
    let files = PathBuf::from(up.line());
    assert_eq!(fs::read(files.join("smtp")).unwrap(), format!("{MARKER}-smtp\n").as_bytes());
    let found = fs::metadata(files.join("smtp")).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o400);
    assert_eq!(fs::metadata(&files).unwrap().mode() & 0o7777, 0o500);

    // While it runs: every process of taskd, and the attempt, whose secret is a file.
    let launcher = node.launcher();
    let all: Vec<i32> = [launcher].into_iter().chain(procs::below(launcher)).collect();
    assert!(all.len() >= 4, "{all:?}");
    for pid in &all {
        for file in ["cmdline", "environ", "comm"] {
            // Those that are closed to their own user cannot be read by it, which is the point.
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            clean(&format!("/proc/{pid}/{file} ({})", procs::title(*pid)), &text);
        }
    }
    let runner = node.runners().into_iter().find(|r| !procs::children(*r).is_empty()).unwrap();
    for pid in [launcher, node.daemon(), runner] {
        let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
        assert_eq!(owner, 0, "{} is open to its own user", procs::title(pid));
    }
    if is_root() {
        let look = |user: u32, what: &str| {
            let out = Command::new("head").args(["-c", "1", what]).uid(user).gid(user).output().unwrap();
            out.status.success()
        };
        let smtp = files.join("smtp");
        assert!(look(5, smtp.to_str().unwrap()), "games, who it is for");
        assert!(!look(33, smtp.to_str().unwrap()), "www-data");
        for file in ["mem", "environ"] {
            assert!(!look(5, &format!("/proc/{runner}/{file}")), "the runner's {file} by its own user");
        }
        assert!(!look(5, given.path().join("smtp").to_str().unwrap()), "what systemd gave");
    }

    go.release(1);
    let view = node.finished(&hold);
    let twice = sum(&format!("{MARKER}-smtp\n"));
    assert_eq!(view["outcome"]["result"], format!("{twice}\n{twice}"), "{view}");
    assert!(!files.exists(), "told when they are gone");
    let keyed = node.finished(&node.enqueue(&["keyed"]));
    assert_eq!(keyed["outcome"]["result"], format!("{}\nunset unset", sum(&format!("{MARKER}-key"))));
    let closed = node.finished(&node.enqueue(&["closed"]));
    assert_eq!(closed["outcome"]["result"], format!("{twice}\n500"), "{closed}");
    let spy = node.enqueue(&["spy"]);
    assert_eq!(node.finished(&spy)["state"], "SUCCESS");
    let told = node.taskd(&["logs", &spy]).code(0);
    let refused = format!("{}{}", told.out, told.err).matches("Permission denied").count();
    assert_eq!(refused, 2, "a task looks into its own runner: {told:?}");

    for path in ["/v1/status", "/v1/tasks", "/v1/queues", "/v1/messages", "/v1/openapi.json"] {
        if let Ok(answer) = node.http().ask("GET", path, "") {
            clean(path, format!("{answer:?}").as_bytes());
        }
    }
    clean("its view", node.view(&hold).to_string().as_bytes());
    let config = node.config_file();
    let config = config.to_str().unwrap();
    for args in [
        &["config", "--config", config][..],
        &["config", "--config", config, "--show-origin", "--json"],
        &["check", config],
        &["status"],
        &["status", "--json"],
        &["tasks"],
        &["tasks", "--json"],
        &["list"],
        &["why", &hold],
        &["result", &hold],
        &["logs", &hold],
        &["reload"],
    ] {
        let mut command = node.command(args);
        let ran = Ran::of(command.env("CREDENTIALS_DIRECTORY", given.path()), PATIENCE).code(0);
        clean(&ran.what, format!("{}{}", ran.out, ran.err).as_bytes());
    }
    let shown = node.ok(&["config", "--config", config]);
    assert!(shown.contains("${credential:key}"), "{shown}");
    let said = node.taskd(&["check", config]).code(0);
    assert!(format!("{}{}", said.out, said.err).contains("not started by systemd"), "{said:?}");

    assert_eq!(node.stop(), 0);
    while !node.notify.read(std::time::Duration::from_millis(1)).is_empty() {}
    clean("its notifications", node.notify.seen.join("\n").as_bytes());
    assert!(clean_tree(&node.state_dir()) > 2);
    clean_tree(node.path());
    assert!(!files.parent().unwrap().parent().unwrap().exists(), "nothing is left");
}

#[test]
fn nothing_is_left_after_kill_9() {
    let given = given();
    let mut node = Node::start_with(setup(&tasks(), given.path()));
    let (mut up, mut go) = (pipe(&node, "up"), pipe(&node, "go"));
    let id = node.enqueue(&["hold"]);
    let files = PathBuf::from(up.line());
    let runner = node.runners().into_iter().find(|r| !procs::children(*r).is_empty()).unwrap();
    procs::kill9(runner);
    until("the files of a killed runner are gone", || (!files.parent().unwrap().exists()).then_some(()));
    let files = PathBuf::from(up.line());
    assert!(files.join("smtp").exists(), "the next attempt");
    node.kill_launcher();
    node.launch();
    assert!(!files.exists(), "before READY");
    let again = PathBuf::from(up.line());
    assert_ne!(again, files);
    go.release(1);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    assert!(!again.exists());
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_reload_brings_new_values_and_a_new_program_keeps_the_files() {
    let given = given();
    let mut node = Node::prepare(setup(&tasks(), given.path()));
    upgrade::install(TASKD, &upgrade::program(&node));
    node.setup.binary = Some(upgrade::program(&node));
    node.launch();
    let (mut up, mut go) = (pipe(&node, "up"), pipe(&node, "go"));
    let old = node.enqueue(&["hold"]);
    let files = PathBuf::from(up.line());
    fs::write(given.path().join("smtp"), "new\n").unwrap();
    let said = node.ok(&["reload"]);
    assert!(said.contains("credential smtp changed"), "{said}");
    upgrade::install(TASKD, &upgrade::program(&node));
    node.ok(&["reload", "--binary"]);
    assert!(files.join("smtp").exists(), "what runs is not touched");
    go.release(1);
    let (before, after) = (sum(&format!("{MARKER}-smtp\n")), sum("new\n"));
    assert_eq!(node.finished(&old)["outcome"]["result"], format!("{before}\n{before}"));
    let new = node.enqueue(&["hold"]);
    let path = up.line();
    go.release(1);
    assert_eq!(node.finished(&new)["outcome"]["result"], format!("{after}\n{after}"));
    assert!(!files.exists() && !Path::new(&path).exists());
    // What is gone refuses both, and nothing changes.
    fs::remove_file(given.path().join("smtp")).unwrap();
    let told = node.taskd(&["reload"]).fails();
    assert!(format!("{}{}", told.out, told.err).contains("no credential `smtp`"), "{told:?}");
    let told = node.taskd(&["reload", "--binary"]).fails();
    assert!(format!("{}{}", told.out, told.err).contains("no credential `smtp`"), "{told:?}");
    let last = node.enqueue(&["hold"]);
    up.line();
    go.release(1);
    assert_eq!(node.finished(&last)["outcome"]["result"], format!("{after}\n{after}"));
    assert_eq!(node.stop(), 0);
    clean_tree(node.path());
}

#[test]
fn a_resident_worker_has_its_files_as_long_as_it_lives() {
    let given = given();
    let script = "md5sum <$CREDENTIALS_DIRECTORY/smtp >{dir}/seen.new; printf %s $KEY | md5sum >>{dir}/seen.new; \
                  echo $CREDENTIALS_DIRECTORY >>{dir}/seen.new; mv {dir}/seen.new {dir}/seen; exec sleep 600";
    let config = format!(
        "[pools.w]\nprocesses = 1\nworker = [\"/bin/sh\", \"-c\", \"{script}\"]\ncredentials = [\"smtp\"]\n\
         environment = {{ KEY = \"${{credential:key}}\" }}\nprivate_tmp = false\n"
    );
    let mut node = Node::prepare(setup(&config, given.path()));
    node.spawn();
    let seen = until("the worker looked", || fs::read_to_string(node.path().join("seen")).ok());
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], [sum(&format!("{MARKER}-smtp\n")), sum(&format!("{MARKER}-key"))]);
    let files = PathBuf::from(lines[2]);
    let names: BTreeSet<_> = fs::read_dir(&files).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!((names.len(), fs::metadata(&files).unwrap().mode() & 0o7777), (1, 0o500));
    assert!(files.join("smtp").exists());
    node.kill_launcher();
    fs::write(node.config_file(), "").unwrap();
    node.launch();
    assert!(!files.parent().unwrap().exists(), "a config without any cleans up, too");
}

#[test]
fn exec_gives_what_it_can_read_and_says_what_it_cannot() {
    let given = given();
    let node = Node::prepare(Setup::new(&with(
        "[tasks.files]\ncommand = \"md5sum <$CREDENTIALS_DIRECTORY/smtp; echo $CREDENTIALS_DIRECTORY\"\n\
         credentials = [\"smtp\"]\n",
    )));
    let config = node.config_file();
    let args = ["exec", "--config", config.to_str().unwrap(), "files"];
    let mut command = node.command(&args);
    let ran = Ran::of(command.env("CREDENTIALS_DIRECTORY", given.path()), PATIENCE).code(0);
    ran.out.lines().next().map(|l| assert_eq!(l, sum(&format!("{MARKER}-smtp\n")))).unwrap();
    let files = Path::new(ran.out.lines().nth(1).unwrap());
    assert!(!files.exists() && !files.parent().unwrap().exists());
    let mut command = node.command(&args);
    command.env_remove("CREDENTIALS_DIRECTORY");
    let told = Ran::of(&mut command, PATIENCE).code(77).one_clear_line();
    told.says(&["$CREDENTIALS_DIRECTORY is not set", "systemd-run", "LoadCredential=smtp:"]);
}

#[test]
fn a_start_without_them_is_refused_with_the_line() {
    let mut node = Node::prepare(setup(&tasks(), Path::new("/nonexistent")));
    let ran = node.refused().code(78);
    ran.says(&["taskd.toml:", "there is no credential `smtp` in /nonexistent", "LoadCredential=smtp:"]);
    node.setup.env.clear();
    let ran = Ran::of(node.run_command().env_remove("CREDENTIALS_DIRECTORY"), PATIENCE).code(78);
    ran.says(&["$CREDENTIALS_DIRECTORY is not set"]);
}
