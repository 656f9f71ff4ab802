//! `--user`: a taskd of one's own, run by an ordinary user.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::notify::Notify;
use super::harness::{PATIENCE, Ran, node::TASKD, procs, until};

/// Who the user is where the test is root: nobody.
const NOBODY: u32 = 65_534;

/// A user with a home and a session.
struct Ada {
    dir: tempfile::TempDir,
    binary: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Ada {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("taskd-it-").tempdir().unwrap();
        let binary = if is_root() { dir.path().join("taskd") } else { TASKD.into() };
        if is_root() {
            // Where it was built may be closed to others.
            std::fs::copy(TASKD, &binary).unwrap();
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let ada = Self { binary, variables: Vec::new(), dir };
        for name in ["home", "run"] {
            ada.folder(name);
        }
        let variables = vec![("HOME", ada.path("home")), ("XDG_RUNTIME_DIR", ada.path("run"))];
        Self { variables, ..ada }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory of hers, with all above it.
    fn folder(&self, name: &str) {
        let mut path = self.dir.path().to_owned();
        for part in Path::new(name) {
            path.push(part);
            if std::fs::create_dir(&path).is_ok() && is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
    }

    fn write(&self, name: &str, text: &str) {
        self.folder(Path::new(name).parent().unwrap().to_str().unwrap());
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env_clear().current_dir("/").stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(n, v)| (n, v)));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    #[track_caller]
    fn taskd(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args), PATIENCE)
    }

    /// `taskd --user run`, until it is ready.
    #[track_caller]
    fn run(&self) -> Own {
        let mut notify = Notify::new(self.dir.path());
        std::fs::set_permissions(notify.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(&["--user", "run"]);
        command.env("NOTIFY_SOCKET", notify.path()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        until("READY=1", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{status}: {}", std::fs::read_to_string(self.path("log")).unwrap());
            }
            notify.read(std::time::Duration::from_millis(100));
            notify.seen.contains(&"READY=1".to_owned()).then_some(())
        });
        Own { child, notify }
    }
}

/// A running taskd of a user.
struct Own {
    child: Child,
    notify: Notify,
}

impl Own {
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let (child, notify) = (&mut self.child, &mut self.notify);
        until("the launcher's end", || {
            notify.read(std::time::Duration::from_millis(1));
            child.try_wait().unwrap()
        })
        .code()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let pid = self.child.id().cast_signed();
        let all = procs::below(pid);
        self.child.kill().ok();
        all.into_iter().for_each(procs::kill9);
        self.child.wait().ok();
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

/// Whether this machine has a taskd of its own: then what answers without `--user` is that one.
fn has_system_taskd() -> bool {
    std::os::unix::net::UnixStream::connect("/run/taskd/taskd.sock").is_ok()
}

#[test]
fn a_users_own_taskd_lives_in_the_home_and_every_command_finds_it() {
    let ada = Ada::new();
    ada.write("home/.config/taskd.toml", "[tasks.who]\ncommand = \"id -u\"\n");
    ada.write("home/.config/taskd.d/more.toml", "[tasks.more]\ncommand = \"echo more\"\n");
    let mut own = ada.run();
    let uid = std::fs::metadata(ada.path("home")).unwrap().uid();
    let state = ada.path("home/.local/state/taskd");
    assert_eq!(std::fs::metadata(&state).unwrap().uid(), uid);
    for made in ["home/.local", "home/.local/state", "home/.local/state/taskd", "run/taskd"] {
        assert_eq!(mode(&ada.path(made)), 0o700, "{made}");
    }
    let ran = ada.taskd(&["--user", "enqueue", "who", "--wait"]).code(0);
    assert_eq!(ran.out.trim(), uid.to_string());
    assert_eq!(ada.taskd(&["enqueue", "more", "--wait", "--user"]).code(0).out.trim(), "more");
    assert!(state.join("instance").exists());
    ada.taskd(&["--user", "status"]).code(0);
    assert!(ada.taskd(&["--user", "check"]).code(0).out.contains("more.toml: no faults"));
    assert_eq!(ada.taskd(&["--user", "exec", "more"]).code(0).out.trim(), "more");
    ada.write("home/.config/taskd.d/more.toml", "[tasks.other]\ncommand = \"echo other\"\n");
    ada.taskd(&["--user", "reload"]).code(0);
    assert_eq!(ada.taskd(&["--user", "enqueue", "other", "--wait"]).code(0).out.trim(), "other");
    if !has_system_taskd() {
        ada.taskd(&["enqueue", "who"]).code(69).says(&["not running", "taskd --user"]);
    }
    // What names a socket goes before.
    ada.taskd(&["--user", "--socket", "/nonexistent/s", "status"]).code(69).says(&["/nonexistent/s"]);
    let mut named = ada.command(&["--user", "status"]);
    Ran::of(named.env("TASKD_SOCKET", "/nonexistent/t"), PATIENCE).code(69).says(&["/nonexistent/t"]);
    ada.taskd(&["--user", "stop"]).code(0);
    assert_eq!(own.ended(), Some(0));
    assert!(!ada.path("run/taskd/taskd.sock").exists());
    if !has_system_taskd() {
        ada.taskd(&["--user", "status"]).code(69).says(&["not running", "systemctl --user start taskd"]);
    }
}

#[test]
fn nobody_else_is_let_in_by_default() {
    let ada = Ada::new();
    let shown = ada.taskd(&["--user", "config"]).code(0).out;
    let value = |key: &str| {
        let line = shown
            .lines()
            .find(|l| l.split_whitespace().next() == Some(key))
            .unwrap_or_else(|| panic!("{shown}"));
        line.split_once('=').unwrap().1.trim().to_owned()
    };
    assert_eq!((value("read"), value("enqueue")), ("[]".to_owned(), "[]".to_owned()));
    assert_eq!(value("socket"), format!("{:?}", ada.path("run/taskd/taskd.sock")));
    ada.write("home/.config/taskd.toml", "[access]\nread = [\"root\"]\n[taskd]\nstate_dir = \"/x\"\n");
    let shown = ada.taskd(&["--user", "config"]).code(0).out;
    assert!(shown.contains("[\"root\"]") && shown.contains("\"/x\""), "{shown}");
}

#[test]
fn without_a_runtime_directory_it_is_said_what_to_set() {
    let mut ada = Ada::new();
    ada.variables.retain(|(name, _)| *name == "HOME");
    let words = ["XDG_RUNTIME_DIR", "loginctl enable-linger", "--socket"];
    ada.taskd(&["--user", "enqueue", "x"]).code(64).says(&words);
    ada.taskd(&["--user", "run"]).code(78).says(&words);
    // What needs no socket goes on.
    ada.taskd(&["--user", "check"]).code(0).says(&["XDG_RUNTIME_DIR"]);
    let socket = ada.path("run/s");
    ada.taskd(&["--user", "--socket", socket.to_str().unwrap(), "status"]).code(69).says(&["run/s"]);
}

#[test]
fn an_ordinary_user_is_not_let_start_the_systems_taskd() {
    let ada = Ada::new();
    let ran = ada.taskd(&["run"]).code(78).says(&["system's taskd", "taskd --user run", "taskd.toml"]);
    assert!(ran.err.lines().count() <= 2, "{}", ran.err);
    // Whoever names a config means it.
    let config = ada.path("home/t.toml");
    ada.write("home/t.toml", "");
    let ran = ada.taskd(&["run", "--config", config.to_str().unwrap()]).fails();
    assert!(!ran.err.contains("the system's taskd, and"), "{}", ran.err);
}

#[test]
fn roots_taskd_is_the_systems() {
    if is_root() {
        let ran = Ran::of(Command::new(TASKD).args(["--user", "status"]), PATIENCE);
        ran.code(64).says(&["--user", "ordinary user"]);
    }
}
