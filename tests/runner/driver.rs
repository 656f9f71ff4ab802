//! Plays the daemon: starts a runner process and speaks the child protocol with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect};
use serde_json::{Value, json};
use taskd::config::{Secret, Secrets};
use taskd::model::message::Message;
use taskd::model::name::MessageId;
use taskd::model::outcome::{CancelReason, Outcome};
use taskd::model::task::{Program, Task};
use taskd::model::time::Wall;
use taskd::process::held::Held;
use taskd::process::launch::{RunnerPart, Slot};
use taskd::process::packet::Packets;
use taskd::process::protocol::{FromChild, Run, Stream, ToChild};

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A task with every default, by the name `t`.
pub fn task(program: Program) -> Task {
    Task { remote: false, ..Task::new("t", program) }
}

/// A `command` task.
pub fn command(text: &str) -> Task {
    task(Program::Command(text.into()))
}

/// An `exec` task.
pub fn exec(argv: &[&str]) -> Task {
    task(Program::Exec(argv.iter().map(|s| (*s).to_owned()).collect()))
}

pub fn part(tasks: Vec<Task>) -> RunnerPart {
    RunnerPart {
        slot: Slot { pool: "default".into(), index: 2 },
        user: String::new(),
        node: "web1".into(),
        instance: "inst-1".into(),
        generation: 1,
        tasks: tasks.into_iter().map(|t| (t.name.clone(), t)).collect::<BTreeMap<_, _>>(),
        journal: true,
        output_rate: 256 << 10,
        leaves: false,
    }
}

/// What the runner is given of secrets: a test puts them into `held.json`, names and values and `""` for the
/// directory.
fn held(dir: &Path) -> Held {
    let Ok(text) = fs::read(dir.join("held.json")) else { return Held::default() };
    let mut values: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap();
    let directory = values.remove("").map(PathBuf::from);
    let mut secrets = Secrets::default();
    for (name, value) in values {
        secrets.insert(&name, Secret::new(value.into_bytes()));
    }
    Held { secrets, directory }
}

/// The process that [`Driver`] starts; see `main.rs`.
pub fn be_the_runner() {
    let Some(dir) = std::env::var_os("TASKD_TEST_DIR").map(PathBuf::from) else { return };
    if let Ok(once) = fs::read(dir.join("once.json")) {
        let (task, message): (Task, Message) = serde_json::from_slice(&once).unwrap();
        let outcome = taskd::process::runner::run_once(&task, &message, "web1", "inst-1", &held(&dir));
        fs::write(dir.join("outcome.json"), serde_json::to_vec(&outcome).unwrap()).unwrap();
        return;
    }
    let part: RunnerPart = serde_json::from_slice(&fs::read(dir.join("part.json")).unwrap()).unwrap();
    let socket = UnixStream::connect(dir.join("socket")).unwrap();
    let leaves = part.leaves.then(|| {
        let socket =
            nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
                .unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(&dir.join("launcher")).unwrap()).unwrap();
        Packets::from_fd(socket).unwrap()
    });
    // Opened once: some tests leave the runner without a descriptor to spare.
    let mut titles = fs::OpenOptions::new().append(true).create(true).open(dir.join("titles")).unwrap();
    let mut title = |text: &str| writeln!(titles, "{text}").unwrap();
    let code = taskd::process::runner::serve(part, held(&dir), socket.into(), leaves, &mut title);
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

/// The command that starts this test binary as a runner in `dir`. The harness runs it on a thread of its
/// own, so the signals must be blocked for its main thread too: env(1) hands that down.
pub fn process(dir: &Path, binary: &Path) -> Command {
    let mut command = Command::new("env");
    command
        .arg("--block-signal=CHLD,TERM,INT,HUP")
        .arg(binary)
        .args(["runner_process", "--exact", "--nocapture", "--test-threads=1"])
        .env("TASKD_TEST_DIR", dir)
        .env("TASKD_JOURNAL_SOCKET", dir.join("journal"))
        .env("PASSED_ON", "yes")
        .env("NOT_PASSED_ON", "no")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A runner process and the daemon's end of its socket.
pub struct Driver {
    pub dir: tempfile::TempDir,
    pub process: Child,
    pub journal: UnixDatagram,
    pub socket: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Driver {
    /// Starts a runner with these tasks and greets it as the first daemon.
    pub fn new(tasks: Vec<Task>) -> Self {
        let mut driver = Self::start(&part(tasks), |c| c.spawn().unwrap());
        driver.hello(1);
        driver
    }

    /// Starts a runner and says nothing yet.
    pub fn start(part: &RunnerPart, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        Self::start_binary(part, &std::env::current_exe().unwrap(), spawn)
    }

    pub fn start_binary(part: &RunnerPart, binary: &Path, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), part, binary, spawn)
    }

    pub fn start_in(
        dir: tempfile::TempDir,
        part: &RunnerPart,
        binary: &Path,
        spawn: impl FnOnce(&mut Command) -> Child,
    ) -> Self {
        // One test runs it as another user.
        let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path(), open.clone()).unwrap();
        fs::write(dir.path().join("part.json"), serde_json::to_vec(part).unwrap()).unwrap();
        let journal = UnixDatagram::bind(dir.path().join("journal")).unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        for name in ["journal", "socket"] {
            fs::set_permissions(dir.path().join(name), open.clone()).unwrap();
        }
        let process = spawn(&mut process(dir.path(), binary));
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(socket.try_clone().unwrap());
        Self { dir, process, journal, socket, lines }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, line: &ToChild) {
        let mut bytes = serde_json::to_vec(line).unwrap();
        bytes.push(b'\n');
        self.raw(&bytes);
    }

    /// The next line, without those that are empty.
    pub fn next(&mut self) -> FromChild {
        self.try_next().expect("the runner closed its socket")
    }

    pub fn try_next(&mut self) -> Option<FromChild> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the runner says nothing")
                }
                Err(e) => panic!("{e}"),
            }
            if line != "\n" {
                return Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")));
            }
        }
    }

    /// Greets, and returns all that the runner says it holds.
    pub fn hello(&mut self, epoch: u64) -> Vec<FromChild> {
        self.raw(b"\n");
        self.send(&ToChild::Hello { v: 1, epoch });
        while !matches!(self.next(), FromChild::Ready { capacity: 1, resume: true, v: 1, .. }) {}
        let mut held = Vec::new();
        loop {
            match self.next() {
                FromChild::Resumed {} => return held,
                line => held.push(line),
            }
        }
    }

    /// Orders a run of `task`; returns its key.
    pub fn order(&mut self, task: &str, args: &[Value], kwargs: Value) -> String {
        self.order_with(task, args, kwargs, |_| {})
    }

    pub fn order_with(
        &mut self,
        task: &str,
        args: &[Value],
        kwargs: Value,
        change: impl FnOnce(&mut Run),
    ) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let run = format!("run-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut order = Run {
            run: run.clone(),
            generation: 1,
            id: "0198abcd-1".into(),
            task: task.into(),
            queue: "mail".into(),
            args: args.to_vec(),
            kwargs: kwargs.as_object().cloned().unwrap_or_default(),
            attempt: 3,
            deadline_ms: None,
            soft_deadline_ms: None,
            memory_retries: 0,
            passes: false,
            retries: 0,
            headers: serde_json::Map::new(),
            celery: None,
        };
        change(&mut order);
        self.send(&ToChild::Run(Box::new(order)));
        run
    }

    /// The process of a run that was just ordered.
    pub fn started(&mut self, run: &str) -> u32 {
        match self.next() {
            FromChild::Started { run: of, pid, .. } if of == run => pid,
            other => panic!("expected the start of {run}, got {other:?}"),
        }
    }

    pub fn cancel(&mut self, run: &str, reason: CancelReason) {
        self.send(&ToChild::Cancel { run: run.into(), reason });
    }

    /// Waits until the run has printed this line.
    pub fn printed(&mut self, text: &str) {
        loop {
            match self.next() {
                FromChild::Output { line: Some(line), .. } if line == text => return,
                FromChild::Output { .. } | FromChild::Started { .. } => {}
                other => panic!("expected {text:?}, got {other:?}"),
            }
        }
    }

    /// The outcome of a run, which is then settled, and what it printed before.
    pub fn outcome(&mut self, run: &str) -> (Outcome, Vec<(Stream, String)>) {
        let mut printed = Vec::new();
        loop {
            let line = self.next();
            assert!(line.run().is_none_or(|r| r == run), "expected {run}, got {line:?}");
            match line {
                FromChild::Output { stream, line, data, .. } => {
                    printed.push((stream, line.or(data).unwrap()));
                }
                FromChild::Refused { why, .. } => panic!("refused: {why}"),
                FromChild::Started { .. } => {}
                line => {
                    let (_, outcome) = line.into_outcome().expect("neither output nor an outcome");
                    self.send(&ToChild::Settled { run: run.into() });
                    return (outcome, printed);
                }
            }
        }
    }

    /// Orders and waits.
    pub fn run(&mut self, task: &str, args: &[Value], kwargs: Value) -> Outcome {
        let run = self.order(task, args, kwargs);
        self.outcome(&run).0
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A line of /proc/PID/status of the runner, in KiB.
    pub fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits for the runner to exit by itself.
    pub fn exit(&mut self) {
        let status = within(|| self.process.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// Runs one task in a fresh runner.
pub fn once(task: Task, args: &[Value], kwargs: Value) -> Outcome {
    let name = task.name.clone();
    Driver::new(vec![task]).run(&name, args, kwargs)
}

/// The result of a task that must succeed.
pub fn result(task: Task, args: &[Value]) -> Value {
    let outcome = once(task, args, json!({}));
    assert!(outcome.success, "{outcome:?}");
    outcome.result.unwrap()
}

/// Asks until there is an answer: for what tells nobody that it happened.
pub fn within<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process lives (a zombie does not).
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Reads a number that a task wrote to a file.
pub fn number(path: &Path) -> u32 {
    within(|| fs::read_to_string(path).ok()?.trim_end_matches('\n').parse().ok())
}

pub fn message(task: &Task) -> Message {
    Message {
        id: MessageId("0198abcd-1".into()),
        task: task.name.clone(),
        queue: "mail".into(),
        args: vec![],
        enqueued: Wall(0),
        ..Message::default()
    }
}
