//! One taskd, from its start to the last of its processes.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::notify::Notify;
use super::{Fifo, Http, PATIENCE, Ran, procs, until};

/// The binary under test.
pub const TASKD: &str = env!("CARGO_BIN_EXE_taskd");

/// What a node is started with.
pub struct Setup {
    /// The config file's text; `{dir}` stands for the node's directory.
    pub config: String,
    /// Words before the binary (`strace …`, `prlimit …`).
    pub wrapper: Vec<OsString>,
    /// Environment besides `NOTIFY_SOCKET`.
    pub env: Vec<(String, String)>,
    /// How long until READY=1.
    pub patience: Duration,
    /// Another copy of the binary.
    pub binary: Option<PathBuf>,
    /// The state directory; default `DIR/state`.
    pub state_dir: Option<PathBuf>,
    /// The socket; default `DIR/sock`.
    pub socket: Option<PathBuf>,
}

impl Setup {
    /// With this config and nothing special.
    pub fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            wrapper: Vec::new(),
            env: Vec::new(),
            patience: PATIENCE,
            binary: None,
            state_dir: None,
            socket: None,
        }
    }

    /// Through these words.
    pub fn wrapped(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }
}

/// A running (or killed) taskd and its directory.
pub struct Node {
    /// Its directory; removed at the end.
    pub dir: tempfile::TempDir,
    /// What systemd would have been told.
    pub notify: Notify,
    /// How it is started.
    pub setup: Setup,
    started: Option<Child>,
}

impl Node {
    /// Starts one and waits for READY=1.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(Setup::new(config))
    }

    /// The same with more to say.
    #[track_caller]
    pub fn start_with(setup: Setup) -> Self {
        let mut node = Self::prepare(setup);
        node.launch();
        node
    }

    /// A directory with a config, nothing started.
    pub fn prepare(setup: Setup) -> Self {
        let dir = tempfile::Builder::new().prefix("taskd-it-").tempdir().unwrap();
        // Where taskd runs tasks as another user, that user must be able to reach the directory.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let notify = Notify::new(dir.path());
        let node = Self { dir, notify, setup, started: None };
        node.write_config(&node.setup.config);
        node
    }

    /// Writes the config file (for a reload, or before the next launch).
    pub fn write_config(&self, config: &str) {
        let text = config.replace("{dir}", &self.path().to_string_lossy());
        std::fs::write(self.config_file(), text).unwrap();
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its config file.
    pub fn config_file(&self) -> PathBuf {
        self.path().join("taskd.toml")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.setup.state_dir.clone().unwrap_or_else(|| self.path().join("state"))
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.setup.socket.clone().unwrap_or_else(|| self.path().join("sock"))
    }

    /// A named pipe in its directory.
    pub fn fifo(&self, name: &str) -> Fifo {
        Fifo::new(self.path(), name)
    }

    /// `taskd run` as this node would do it, not yet spawned.
    pub fn run_command(&self) -> Command {
        let mut words = self.setup.wrapper.clone();
        words.push(self.setup.binary.clone().map_or_else(|| TASKD.into(), PathBuf::into_os_string));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("--config").arg(self.config_file());
        command.arg("--state-dir").arg(self.state_dir()).arg("--socket").arg(self.socket());
        command.env("NOTIFY_SOCKET", self.notify.path()).env_remove("JOURNAL_STREAM");
        command.env_remove("TASKD_CONFIG").env_remove("TASKD_SOCKET");
        command.envs(self.setup.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts it (again) and waits for READY=1.
    #[track_caller]
    pub fn launch(&mut self) {
        self.spawn();
        let end = Instant::now() + self.setup.patience;
        loop {
            if self.notify.read(Duration::from_millis(100)).iter().any(|l| l == "READY=1") {
                return;
            }
            if let Some(status) = self.started.as_mut().unwrap().try_wait().unwrap() {
                panic!("taskd ended before it was ready ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < end, "not ready in time:\n{}", self.log());
        }
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) {
        self.notify.forget();
        let log = File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut command = self.run_command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.started = Some(command.spawn().unwrap());
    }

    /// Runs `taskd run` to its end: for starts that must be refused.
    #[track_caller]
    pub fn refused(&self) -> Ran {
        Ran::of(&mut self.run_command(), PATIENCE)
    }

    /// What it wrote to stdout and stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// A `taskd` command with this node's socket, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TASKD);
        command.args(args).env("TASKD_SOCKET", self.socket()).env("TASKD_CONFIG", self.config_file());
        // What fits a terminal is looked at through a pipe.
        command.env("COLUMNS", "80");
        command.env_remove("NOTIFY_SOCKET").current_dir(self.path());
        command
    }

    /// Runs a `taskd` command.
    #[track_caller]
    pub fn taskd(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args), PATIENCE)
    }

    /// Runs a `taskd` command that must succeed; its stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.taskd(args).code(0).out
    }

    /// Runs a `taskd` command with `--json` that must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let (command, rest) = args.split_first().unwrap();
        let args: Vec<_> = [command, "--json"].into_iter().chain(rest.iter().copied()).collect();
        self.taskd(&args).code(0).json()
    }

    /// A connection to its API.
    #[track_caller]
    pub fn http(&self) -> Http {
        Http::connect(&self.socket()).unwrap()
    }

    /// Enqueues by the command; the id.
    #[track_caller]
    pub fn enqueue(&self, args: &[&str]) -> String {
        let all: Vec<_> = ["enqueue"].into_iter().chain(args.iter().copied()).collect();
        let answer = self.json(&all);
        let one = answer.as_array().map_or(&answer, |a| &a[0]);
        one["id"].as_str().unwrap_or_else(|| panic!("no id in {answer}")).to_owned()
    }

    /// Enqueues `n` of a task over the API, at most 500 at a time; the ids in order.
    #[track_caller]
    pub fn enqueue_many(&self, task: &str, n: usize) -> Vec<String> {
        let mut http = self.http();
        let mut ids = Vec::with_capacity(n);
        while ids.len() < n {
            let batch: Vec<_> = (ids.len()..n.min(ids.len() + 500)).map(|_| json!({"task": task})).collect();
            ids.extend(http.enqueue(&Value::Array(batch)));
        }
        ids
    }

    /// Everything the API knows of a message.
    #[track_caller]
    pub fn view(&self, id: &str) -> Value {
        self.http().get(&format!("/v1/messages/{id}"))
    }

    /// Waits until the message is in this state; its view.
    #[track_caller]
    pub fn in_state(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} {state}"), || Some(self.view(id)).filter(|v| v["state"] == state))
    }

    /// Waits for the final state; the message's view.
    #[track_caller]
    pub fn finished(&self, id: &str) -> Value {
        let mut http = self.http();
        until(&format!("{id} final"), || {
            http.ask("GET", &format!("/v1/messages/{id}/result?wait_ms=20000"), "").ok()?;
            let view = self.view(id);
            is_final(view["state"].as_str()?).then_some(view)
        })
    }

    /// Waits for the final states of all of them; their views, in order.
    #[track_caller]
    pub fn all_finished<S: AsRef<str>>(&self, ids: &[S]) -> Vec<Value> {
        ids.iter().map(|id| self.finished(id.as_ref())).collect()
    }

    /// One queue of `GET /v1/queues`.
    #[track_caller]
    pub fn queue(&self, name: &str) -> Value {
        let all = self.http().get("/v1/queues");
        let found = all.as_array().unwrap().iter().find(|q| q["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("no queue {name} in {all}"))
    }

    /// The launcher's process id (the wrapper's child, where there is a wrapper).
    #[track_caller]
    pub fn launcher(&self) -> i32 {
        let pid = self.started.as_ref().unwrap().id().cast_signed();
        if self.setup.wrapper.is_empty() || procs::title(pid).starts_with("taskd") {
            return pid;
        }
        until("the launcher below its wrapper", || procs::children(pid).first().copied())
    }

    /// The daemon's process id.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let launcher = self.launcher();
        until("a daemon", || procs::children(launcher).into_iter().find(|p| has_role(*p, "daemon")))
    }

    /// The runners' process ids.
    pub fn runners(&self) -> Vec<i32> {
        let children = procs::children(self.launcher());
        children.into_iter().filter(|p| has_role(*p, "runner")).collect()
    }

    /// Sends a signal to the launcher.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.launcher()), signal).unwrap();
    }

    /// Waits for the launcher's end; its exit code.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let child = self.started.as_mut().unwrap();
        let notify = &mut self.notify;
        let status = until("the launcher's end", || {
            // As systemd does: a full notify socket would hold the launcher up.
            notify.read(Duration::from_millis(1));
            child.try_wait().unwrap()
        });
        self.started = None;
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Stops it as a person would; the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// SIGKILL to the launcher, and waits for its end.
    pub fn kill_launcher(&mut self) {
        procs::kill9(self.launcher());
        self.ended();
    }
}

/// Whether a process is taskd in this role, by its title (or its arguments, before it set one).
fn has_role(pid: i32, role: &str) -> bool {
    let title = procs::title(pid);
    title.contains("taskd") && title.split([' ', '@']).any(|word| word == role)
}

/// Whether a state's name is that of a final one.
pub fn is_final(state: &str) -> bool {
    taskd::model::state::State::parse(state).is_some_and(taskd::model::state::State::is_final)
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let tail = log.get(from..).unwrap_or(&log);
            eprintln!("--- end of taskd's log\n{tail}\n---");
        }
        if let Some(mut child) = self.started.take() {
            let pid = child.id().cast_signed();
            let all = procs::below(pid);
            procs::kill9(pid);
            all.into_iter().for_each(procs::kill9);
            child.wait().ok();
        }
    }
}
