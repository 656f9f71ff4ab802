//! A launcher in a process of its own, with everything around it in a temporary directory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use taskd::config::settings::{Access, Pool, Queue, Results, Settings, Taskd};
use taskd::model::task::{Program, Task};
use taskd::process::launch::{self, Slot, ToLauncher};

/// Longer than anything takes, however busy the machine; only failures wait for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub settings: Settings,
    /// Options of the fake launcher.
    pub options: Value,
    pub environment: BTreeMap<String, String>,
    /// What plays the launcher.
    pub program: PathBuf,
    puppets: UnixListener,
    pub launcher: Option<Child>,
    pub notifications: Option<UnixDatagram>,
}

/// A fake daemon, from the test's side.
pub struct Daemon {
    pub start: launch::Start,
    pub settings: Settings,
    pub me: Value,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    out: UnixStream,
}

pub fn task(name: &str) -> Task {
    Task::new(name, Program::Command("true".to_owned()))
}

pub fn pool(name: &str, processes: u32) -> Pool {
    Pool::new(name, processes)
}

pub fn queue(name: &str, pool: &str) -> Queue {
    let (name, pool) = (name.to_owned(), pool.to_owned());
    Queue {
        name,
        pool,
        weight: 1,
        strict: false,
        concurrency: None,
        max_length: None,
        rate: None,
        shared: false,
    }
}

pub fn settings(dir: &Path) -> Settings {
    Settings {
        generation: 0,
        taskd: Taskd {
            node: dir.join("puppets").to_str().unwrap().to_owned(),
            broker: "embedded".to_owned(),
            results: "broker".to_owned(),
            allow_eviction: false,
            state_dir: dir.join("state"),
            socket: dir.join("run/taskd.sock"),
            timezone: None,
            max_memory_pressure: None,
            shutdown_grace_ms: 60_000,
            log_level: "debug".to_owned(),
            user: None,
        },
        results: Results {
            expires_ms: 1,
            max_size: 1,
            max_records: 1,
            output_max_size: 1,
            output_rate: 262_144,
        },
        dead: taskd::config::settings::Dead::default(),
        workflows: std::collections::BTreeMap::new(),
        schedules: std::collections::BTreeMap::new(),
        access: Access::default(),
        pools: [("default".to_owned(), pool("default", 2))].into(),
        queues: [("default".to_owned(), queue("default", "default"))].into(),
        routes: Vec::new(),
        tasks: [("clean".to_owned(), task("clean"))].into(),
        notify: taskd::config::settings::Notify::default(),
        hard_nofile: None,
    }
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Other users play a part in some tests.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let puppets = UnixListener::bind(dir.path().join("puppets")).unwrap();
        std::fs::set_permissions(dir.path().join("puppets"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let settings = settings(dir.path());
        let options = json!({
            "settings": dir.path().join("settings.json"),
            "gate": dir.path().join("gate"),
        });
        let (environment, program) = (BTreeMap::new(), std::env::current_exe().unwrap());
        Self { dir, settings, options, environment, program, puppets, launcher: None, notifications: None }
    }

    /// With a service manager that listens.
    pub fn with_notify(mut self) -> Self {
        let path = self.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.environment.insert("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned());
        self.notifications = Some(socket);
        self
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write_settings(&self) {
        std::fs::write(self.file("settings.json"), serde_json::to_vec(&self.settings).unwrap()).unwrap();
    }

    /// The command that starts the launcher.
    pub fn command(&self) -> Command {
        self.write_settings();
        std::fs::write(self.file("launcher.json"), self.options.to_string()).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("@launcher").arg(self.file("launcher.json"));
        self.dress(&mut command);
        command
    }

    pub fn dress(&self, command: &mut Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.file("log")).unwrap();
        command.stderr(log).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").envs(&self.environment);
    }

    pub fn launch(&mut self) {
        self.launcher = Some(self.command().spawn().unwrap());
    }

    /// Started, and its first daemon there.
    pub fn started(&mut self) -> Daemon {
        self.launch();
        self.daemon()
    }

    /// In a control group of plain files, made to look like one that was delegated.
    pub fn with_groups(mut self) -> Self {
        let root = self.dir.path().join("cgroup");
        (crate::cgroup::kernel().make)(&root).unwrap();
        self.options["cgroup"] = json!(root);
        self
    }

    /// Started, and READY.
    pub fn ready(&mut self) -> Daemon {
        let mut daemon = self.started();
        daemon.hear_packet("go");
        daemon.say(&ToLauncher::Ready);
        daemon.say(&ToLauncher::Recovered);
        daemon
    }

    /// The next daemon that the launcher starts.
    pub fn daemon(&mut self) -> Daemon {
        use std::os::fd::AsFd;
        let poll = &mut [nix::poll::PollFd::new(self.puppets.as_fd(), nix::poll::PollFlags::POLLIN)];
        let until = nix::poll::PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(nix::poll::poll(poll, until), Ok(1), "no daemon came; log:\n{}", self.log());
        let (out, _) = self.puppets.accept().unwrap();
        let (send, lines) = channel();
        let reader = BufReader::new(out.try_clone().unwrap());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if send.send(serde_json::from_str::<Value>(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let first = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no start; log:\n{}", self.log()));
        let mut start = first["start"].clone();
        start.as_object_mut().unwrap().remove("op");
        Daemon {
            start: serde_json::from_value(start).unwrap(),
            settings: serde_json::from_value(first["settings"].clone()).unwrap(),
            me: first["me"].clone(),
            lines,
            seen: Vec::new(),
            out,
        }
    }

    pub fn pid(&self) -> u32 {
        self.launcher.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Waits until the log, which a thread writes, holds this so often.
    pub fn logged(&self, text: &str, times: usize) {
        let until = Instant::now() + PATIENCE;
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < until, "{text:?} is not logged {times} times:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the launcher's end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut launcher = self.launcher.take().unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = launcher.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > until {
                let _ = launcher.kill();
                panic!("the launcher does not end; log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The next notification.
    pub fn notification(&self) -> String {
        let mut text = [0; 4096];
        let socket = self.notifications.as_ref().unwrap();
        let length =
            socket.recv(&mut text).unwrap_or_else(|_| panic!("no notification; log:\n{}", self.log()));
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    /// Takes notifications until one holds this line; all of them.
    pub fn notified(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let text = self.notification();
            let found = text.lines().any(|l| l == line);
            all.push(text);
            if found {
                return all;
            }
            assert!(all.len() < 1_000, "{line} is not among {all:?}");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            let _ = launcher.kill();
            let _ = launcher.wait();
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the launcher's log:\n{}", self.log());
        }
    }
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        u32::try_from(self.me["pid"].as_u64().unwrap()).unwrap()
    }

    pub fn say(&mut self, message: &ToLauncher) {
        self.command(&json!({ "say": message }));
    }

    pub fn command(&mut self, command: &Value) {
        writeln!(self.out, "{command}").unwrap();
    }

    /// Waits for what this finds something in; what is passed over stays for later.
    pub fn hear<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        if let Some(at) = self.seen.iter().position(|v| find(v).is_some()) {
            return find(&self.seen.remove(at)).unwrap();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(value) => match find(&value) {
                    Some(found) => return found,
                    None => self.seen.push(value),
                },
                Err(_) => panic!("{what} was not heard, but {:#?}", self.seen),
            }
        }
    }

    /// Everything that was heard and not taken.
    pub fn rest(&mut self) -> Vec<Value> {
        self.seen.extend(self.lines.try_iter());
        std::mem::take(&mut self.seen)
    }

    /// What was passed over so far.
    pub fn passed_over(&self) -> &[Value] {
        &self.seen
    }

    /// The next packet of this kind, whole line.
    pub fn hear_packet(&mut self, op: &str) -> Value {
        self.hear(op, |v| (v["packet"]["op"] == op).then(|| v.clone()))
    }

    pub fn spawn(&mut self, pool: &str, index: u32, user: &str) {
        let slot = Slot { pool: pool.to_owned(), index };
        self.say(&ToLauncher::Spawn { slot, user: user.to_owned() });
    }

    /// A child of this place: its id and what it says of itself.
    pub fn child(&mut self, pool: &str, index: u32, user: &str) -> (u64, Value) {
        self.spawn(pool, index, user);
        let packet = self.hear_packet("child");
        let id = packet["packet"]["child"].as_u64().unwrap();
        (id, self.said(id, "part"))
    }

    /// Has a child do something.
    pub fn order(&mut self, child: u64, line: &str) {
        self.command(&json!({ "child": child, "line": line }));
    }

    /// Has a runner ask the launcher something; the answer.
    pub fn ask(&mut self, child: u64, asked: &Value) -> Value {
        self.order(child, &format!("ask {asked}"));
        self.said(child, "told")
    }

    /// What a child says that has this key.
    pub fn said(&mut self, child: u64, key: &str) -> Value {
        self.hear(key, |v| (v["child"] == child && !v["said"][key].is_null()).then(|| v["said"].clone()))
    }
}

pub fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Lives, and is no zombie.
pub fn lives(pid: u32) -> bool {
    taskd::process::instance::parent(pid).is_some_and(|(_, zombie)| !zombie)
}

/// Waits for the end of a process of somebody else.
pub fn wait_gone(pid: u32) {
    let until = Instant::now() + PATIENCE;
    while lives(pid) {
        assert!(Instant::now() < until, "{pid} lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// True, with a note, where a test needs root and this is not.
pub fn not_root(test: &str) -> bool {
    let skipped = !nix::unistd::geteuid().is_root();
    if skipped {
        println!("skipped: {test} needs root");
    }
    skipped
}
