//! `taskd import`: files in, a config out, exit codes. What each source becomes, tests/import/ looks at.

use std::path::Path;
use std::process::Command;

use super::harness::node::TASKD;
use super::harness::{PATIENCE, Ran};

fn taskd(args: &[&str]) -> Ran {
    // Without any taskd to ask.
    let mut command = Command::new(TASKD);
    command.args(args).env("TASKD_SOCKET", "/nonexistent/socket").env_remove("TASKD_CONFIG");
    Ran::of(&mut command, PATIENCE)
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_crontab_becomes_a_config_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let crontab = file(dir.path(), "tab", "0 3 * * * /usr/local/bin/backup\n");
    let ran = taskd(&["import", "crontab", &crontab]).code(0);
    let table: toml::Table = ran.out.parse().unwrap();
    assert_eq!(table["schedules"]["backup"]["cron"].as_str(), Some("0 3 * * *"));
    assert!(ran.err.contains("1 entry; everything was carried over"), "{}", ran.err);
    let ran = taskd(&["import", "crontab", "--run-as", "ada", &crontab]).code(0);
    assert!(ran.out.contains("user = \"ada\""), "{}", ran.out);
    let ran = taskd(&["import", "crontab", &crontab, "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((json["entries"].as_u64(), json["not_carried_over"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn what_was_not_carried_over_is_exit_1() {
    let dir = tempfile::tempdir().unwrap();
    let crontab = file(dir.path(), "tab", "@reboot /x\n");
    let ran = taskd(&["import", "crontab", &crontab]).code(1);
    assert!(ran.err.contains("1 thing was not carried over"), "{}", ran.err);
    assert!(ran.out.contains("# NOT CARRIED OVER: @reboot"), "{}", ran.out);
}

#[test]
fn a_file_is_never_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let crontab = file(dir.path(), "tab", "0 3 * * * x\n");
    let out = dir.path().join("out.toml").display().to_string();
    let ran = taskd(&["import", "crontab", "-o", &out, &crontab]).code(0);
    assert_eq!(ran.out, "");
    let written = std::fs::read_to_string(&out).unwrap();
    assert!(written.contains("[schedules.x]"));
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let ran = taskd(&["import", "crontab", &crontab, "-o", &out]).code(73);
    assert!(ran.err.contains("never written over"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), written);
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().unwrap();
    taskd(&["import", "crontab", "/nonexistent/tab"]).code(66);
    taskd(&["import", "supervisor", dir.path().to_str().unwrap()]).code(66);
    taskd(&["import", "systemd-timer", "no-such-timer-anywhere"]).code(66);
    let python = file(dir.path(), "x.py", "print(1)\n");
    let ran = taskd(&["import", "celery-beat", &python]).code(65);
    assert!(ran.err.contains("no beat_schedule"), "{}", ran.err);
    taskd(&["import", "crontab", "--system", "--run-as", "x", &python]).code(64);
    taskd(&["import", "crontab", &python, "--user"]).code(64);
    taskd(&["import"]).code(64);
    let large = file(dir.path(), "large", &"#\n".repeat((4 << 20) / 2 + 1));
    taskd(&["import", "crontab", &large]).code(65);
}

#[test]
fn bytes_that_are_no_text_are_a_comment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tab");
    std::fs::write(&path, b"0 3 * * * /bin/\xff\xfe\n0 4 * * * /bin/good\n").unwrap();
    let ran = taskd(&["import", "crontab", path.to_str().unwrap()]).code(1);
    let table: toml::Table = ran.out.parse().unwrap();
    assert_eq!(table["schedules"].as_table().unwrap().len(), 1);
}

#[test]
fn the_other_sources_have_their_commands() {
    let dir = tempfile::tempdir().unwrap();
    let conf = file(dir.path(), "s.conf", "[program:x]\ncommand=celery -A shop worker -c 2\n");
    assert!(taskd(&["import", "supervisor", &conf]).code(1).out.contains("processes = 2"));
    let python = file(dir.path(), "c.py", "beat_schedule = {'a': {'task': 't.a', 'schedule': 5}}\n");
    assert!(taskd(&["import", "celery-beat", &python]).code(1).out.contains("every = \"5s\""));
    let timer = file(dir.path(), "t.timer", "[Timer]\nOnCalendar=daily\n");
    file(dir.path(), "t.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    assert!(taskd(&["import", "systemd-timer", &timer]).code(0).out.contains("cron = \"0 0 * * *\""));
}

#[test]
fn a_file_of_another_format_is_wrong_data() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = file(dir.path(), "wrong.timer", "[Unit]\nDescription=nothing of either\n");
    assert!(taskd(&["import", "supervisor", &wrong]).code(65).err.contains("no [program:NAME]"));
    assert!(taskd(&["import", "systemd-timer", &wrong]).code(65).err.contains("is no timer"));
    let timer = file(dir.path(), "right.timer", "[Timer]\nOnCalendar=daily\n");
    let ran = taskd(&["import", "systemd-timer", &timer, "--service", &wrong]).code(65);
    assert!(ran.err.contains("is no service"), "{}", ran.err);
    assert!(taskd(&["import", "celery-beat", &wrong]).code(65).out.is_empty());
}

#[test]
fn a_likely_column_of_users_is_told_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let tab = file(dir.path(), "tab", "0 3 * * * /own\n0 4 * * * root /usr/local/bin/backup\n");
    let ran = taskd(&["import", "crontab", &tab]).code(0);
    assert!(ran.err.contains("hint: line 2") && ran.err.contains("--system"), "{}", ran.err);
    assert!(!taskd(&["import", "crontab", "--run-as", "ada", &tab]).code(0).err.contains("hint"));
}
