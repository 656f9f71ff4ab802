//! The sandbox keys as a program sees them: as whoever runs the tests, and where that is root as an ordinary
//! user too, because the two ways differ.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::task::{ProtectSystem, Sandbox, Surroundings, Task};
use taskd::process::privileges::Account;
use taskd::process::sandbox::probe;

use crate::driver::{Driver, command, lives, part};

/// An ordinary user that every system has.
const NOBODY: u32 = 65_534;

/// Runs a command in a sandbox as every user that can be had.
fn each(sandbox: &Sandbox, text: &str, check: impl Fn(&Outcome, u32)) {
    let sandboxed = Surroundings { sandbox: sandbox.clone(), ..Surroundings::default() };
    let task = Task { surroundings: sandboxed, ..command(text) };
    let own = nix::unistd::geteuid().as_raw();
    let mut users = vec![own];
    if own == 0 {
        users.push(NOBODY);
    }
    for user in users {
        let account = Account::lookup("nobody").ok().filter(|a| a.uid == user);
        if let Err(why) = probe(sandbox, account.as_ref()) {
            // Said, not passed over: this machine refuses what the test is about.
            eprintln!("not tested as uid {user}: {why}");
            continue;
        }
        // The build directory may be closed to others.
        let home = tempfile::tempdir().unwrap();
        let binary = copy_of_this(&home);
        let mut driver = Driver::start_binary(&part(vec![task.clone()]), &binary, |c| {
            if user != own { c.uid(user).gid(NOBODY) } else { c }.spawn().unwrap()
        });
        driver.hello(1);
        let outcome = driver.run("t", &[], Value::Null);
        check(&outcome, user);
    }
}

fn copy_of_this(home: &tempfile::TempDir) -> PathBuf {
    let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(home.path(), open.clone()).unwrap();
    let copy = home.path().join("runner");
    // By another process: were it open for writing here, a fork of a test beside could keep it so.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&copy, open).unwrap();
    copy
}

fn prints(sandbox: &Sandbox, text: &str, expected: &str) {
    each(sandbox, text, |outcome, user| {
        assert_eq!(outcome.result, Some(json!(expected)), "as uid {user}: {outcome:?}");
    });
}

fn protect(protect_system: ProtectSystem) -> Sandbox {
    Sandbox { protect_system, ..Sandbox::default() }
}

/// Tells whether directories are on read-only mounts, whoever asks.
const MOUNTED: &str = r#"for d in /usr /etc / /dev /proc /sys; do
    case ",$(findmnt -n -o VFS-OPTIONS -T $d | tail -n 1)," in *,ro,*) echo -n "$d ";; esac; done"#;

#[test]
fn no_new_privileges_stands_in_the_kernel_s_own_words() {
    let text = "grep NoNewPrivs /proc/self/status | tr '\\t' ' '";
    prints(&Sandbox { no_new_privileges: true, ..Sandbox::default() }, text, "NoNewPrivs: 1");
    prints(&Sandbox::default(), text, "NoNewPrivs: 0");
}

#[test]
fn protect_system_makes_read_only_what_systemd_would() {
    prints(&protect(ProtectSystem::Yes), MOUNTED, "/usr");
    prints(&protect(ProtectSystem::Full), MOUNTED, "/usr /etc");
    prints(&protect(ProtectSystem::Strict), MOUNTED, "/usr /etc /");
}

#[test]
fn strict_leaves_the_paths_that_are_named_and_the_kernel_s_own() {
    let outside = tempfile::tempdir().unwrap();
    let open = outside.path().join("open");
    let below = outside.path().join("open/below");
    let closed = outside.path().join("closed");
    let anybody: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    for dir in [&open, &below, &closed] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, anybody.clone()).unwrap();
    }
    fs::set_permissions(outside.path(), anybody).unwrap();
    let list = |dirs: &[&PathBuf]| dirs.iter().map(|d| d.display().to_string()).collect();
    let sandbox = Sandbox { read_write_paths: list(&[&below, &open]), ..protect(ProtectSystem::Strict) };
    let text = format!(
        "cd {}; for f in open/a open/below/b closed/c d; do rm -f $f; echo x 2>/dev/null >$f && echo -n \"$f \"; done; \
         echo x >/dev/null && echo -n null",
        outside.path().display()
    );
    prints(&sandbox, &text, "open/a open/below/b null");
    assert!(open.join("a").exists() && below.join("b").exists(), "it was written to a copy");
}

#[test]
fn a_private_tmp_is_empty_bounded_and_gone_afterwards() {
    let text = "ls -A /tmp /var/tmp; echo x >/tmp/taskd-test-private; mkdir /var/tmp/taskd-test-private; stat -c %a /tmp; \
                findmnt -n -o FSTYPE,SIZE /tmp";
    let sandbox = Sandbox { private_tmp: true, ..Sandbox::default() };
    each(&sandbox, text, |outcome, user| {
        let shown = outcome.result.clone().unwrap();
        let shown = shown.as_str().unwrap();
        assert!(shown.starts_with("/tmp:\n\n/var/tmp:\n1777\ntmpfs"), "as uid {user}: {shown}");
    });
    assert!(!PathBuf::from("/var/tmp/taskd-test-private").exists());
    assert!(!PathBuf::from("/tmp/taskd-test-private").exists());
}

#[test]
fn a_private_network_has_a_loopback_that_is_up_and_nothing_else() {
    let text = "ls /proc/sys/net/ipv4/conf | tr '\\n' ' '; \
                bash -c 'exec 3<>/dev/udp/127.0.0.1/9 && echo up'";
    prints(&Sandbox { private_network: true, ..Sandbox::default() }, text, "all default lo up");
}

#[test]
fn everything_at_once_and_what_it_leaves_behind_dies() {
    let sandbox = Sandbox {
        no_new_privileges: true,
        private_tmp: true,
        protect_system: ProtectSystem::Strict,
        private_network: true,
        read_write_paths: vec!["/var".into()],
    };
    let text = "setsid sleep 600 >/dev/null 2>&1 & echo $!; touch /tmp/taskd-test-all /var/tmp/taskd-test-all && id -u";
    each(&sandbox, text, |outcome, user| {
        let shown = outcome.result.clone().unwrap();
        let (pid, id) = shown.as_str().unwrap().split_once('\n').unwrap();
        assert_eq!(id, user.to_string());
        assert!(!lives(pid.parse().unwrap()));
        assert_eq!(outcome.usage.killed_leftovers, 1);
        assert!(!PathBuf::from("/var/tmp/taskd-test-all").exists());
    });
}

#[test]
fn what_cannot_be_had_is_an_error_that_names_its_key() {
    let missing =
        Sandbox { read_write_paths: vec!["/nonexistent/place".into()], ..protect(ProtectSystem::Strict) };
    each_error(&missing, "read_write_paths: /nonexistent/place does not exist");
    let hidden = Sandbox {
        private_tmp: true,
        read_write_paths: vec!["/tmp/x".into()],
        ..protect(ProtectSystem::Strict)
    };
    each_error(&hidden, "read_write_paths: /tmp/x would be hidden by private_tmp");
}

fn each_error(sandbox: &Sandbox, message: &str) {
    let told = probe(sandbox, None).unwrap_err();
    assert!(told.starts_with(message), "{told}");
    let sandboxed = Surroundings { sandbox: sandbox.clone(), ..Surroundings::default() };
    let mut driver = Driver::new(vec![Task { surroundings: sandboxed, ..command("echo ran") }]);
    let outcome = driver.run("t", &[], Value::Null);
    assert_eq!(outcome.cause, Cause::SpawnFailed);
    assert_eq!(outcome.failure.unwrap().message, told);
}

/// Where no user namespace can be had (here: in one whose own bound is 0), the attempt does not run without
/// its sandbox.
#[test]
fn a_kernel_that_refuses_is_an_error_and_never_ignored() {
    let bounded = "echo 0 >/proc/sys/user/max_user_namespaces || exit 1; \"$@\"";
    let inside = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", bounded, "sh"]);
        command
    };
    if !inside().arg("true").status().is_ok_and(|s| s.success()) {
        eprintln!("not tested: no user namespace to be had here");
        return;
    }
    let sandbox = Sandbox { private_tmp: true, ..Sandbox::default() };
    let sandboxed = Surroundings { sandbox, ..Surroundings::default() };
    let task = Task { surroundings: sandboxed, ..command("echo ran") };
    let mut driver = Driver::start(&part(vec![task]), |c| {
        let mut wrapped = inside();
        wrapped.arg(c.get_program()).args(c.get_args());
        wrapped.envs(c.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped.stdout(Stdio::null()).spawn().unwrap()
    });
    driver.hello(1);
    let outcome = driver.run("t", &[], Value::Null);
    assert_eq!((outcome.cause, outcome.result), (Cause::SpawnFailed, None));
    let message = outcome.failure.unwrap().message;
    assert!(
        message.starts_with("private_tmp: needs a user namespace, which the kernel refuses"),
        "{message}"
    );
}
