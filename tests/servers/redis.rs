//! A redis-server of a test's own: started on a free port and a unix socket in a directory of its own, killed, stopped
//! and started again, and gone with the test, whatever becomes of that. Included by every test binary that needs one.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running process of redis-server, as a server or as a sentinel.
struct Process {
    child: Child,
    /// Behind a lock, so that several threads of a test can share the server.
    lines: Mutex<Receiver<String>>,
}

impl Process {
    /// Starts it. setpriv(1) has it end with the thread that started it: a test that is killed leaves nothing.
    fn start(dir: &Path, arguments: &[String]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]).args(arguments).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("setpriv and redis-server (tests/needs.sh installs them)");
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        // The pipe must be read whether or not anybody wants the lines.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines: Mutex::new(lines) }
    }

    /// Waits for a line of its log; absent where it ended before.
    fn line(&self, with: &str) -> Option<String> {
        let (mut before, lines) = (Vec::new(), self.lines.lock().unwrap());
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(with) => return Some(line),
                Ok(line) => before.push(line),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no {with:?} in {before:#?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server.
pub struct Redis {
    dir: tempfile::TempDir,
    process: Process,
    arguments: Vec<String>,
    /// Its port; of TLS where it was started with [`Redis::with_tls`].
    pub port: u16,
}

impl Redis {
    /// One that keeps nothing on disk, with these arguments beside.
    pub fn start(arguments: &[&str]) -> Self {
        Self::on("--port", &["--save", ""], arguments)
    }

    /// One that has each write on disk before it answers: a kill loses nothing.
    pub fn durable() -> Self {
        Self::on("--port", &["--appendonly", "yes", "--appendfsync", "always", "--save", ""], &[])
    }

    /// One that speaks TLS at its port, and none at its unix socket. `own`: PREFIX.pem and PREFIX.key.
    pub fn with_tls(own: &Path, authority: &Path, clients: &str) -> Self {
        let own = own.display();
        let (certificate, key) = (format!("{own}.pem"), format!("{own}.key"));
        let authority = authority.display().to_string();
        Self::on(
            "--tls-port",
            &["--save", "", "--port", "0"],
            &[
                "--tls-cert-file",
                &certificate,
                "--tls-key-file",
                &key,
                "--tls-ca-cert-file",
                &authority,
                "--tls-auth-clients",
                clients,
            ],
        )
    }

    fn on(port_key: &str, first: &[&str], then: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Somebody else may take the port before it does: then another one.
        for _ in 0..20 {
            let port = free_port();
            let mut arguments: Vec<String> = first.iter().map(|a| (*a).to_owned()).collect();
            arguments.extend([port_key.to_owned(), port.to_string()]);
            arguments.extend(["--bind", "127.0.0.1", "--unixsocket", "redis.sock"].map(str::to_owned));
            arguments.extend(then.iter().map(|a| (*a).to_owned()));
            let process = Process::start(dir.path(), &arguments);
            if process.line("Ready to accept connections").is_some() {
                return Self { dir, process, arguments, port };
            }
        }
        panic!("redis-server does not start with {then:?}");
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("redis.sock")
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of another client than taskd's, over the unix socket.
    pub fn client(&self) -> redis::Connection {
        let url = format!("redis+unix://{}", self.socket().display());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// One command of another client.
    pub fn tell<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = cmd.arg(word));
        cmd.query(&mut self.client()).unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same place, and waits until it serves.
    pub fn start_again(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.socket());
        self.process = Process::start(self.dir.path(), &self.arguments);
        assert!(self.process.line("Ready to accept connections").is_some(), "it does not start again");
    }

    /// SIGSTOP: it is there and says nothing.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

/// A sentinel that watches a master alone, under the name `main`.
pub struct Sentinel {
    _dir: tempfile::TempDir,
    process: Process,
    /// Its port.
    pub port: u16,
}

impl Sentinel {
    /// Watches this server; `more` are lines of its configuration.
    pub fn watching(master: &Redis, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let port = free_port();
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n{more}\n",
                master.port
            );
            std::fs::write(dir.path().join("sentinel.conf"), text).unwrap();
            let process = Process::start(dir.path(), &["sentinel.conf".into(), "--sentinel".into()]);
            if process.line("+monitor master main").is_some() {
                return Self { _dir: dir, process, port };
            }
        }
        panic!("no sentinel starts");
    }

    /// Makes the replica of its master the master, and waits until it is.
    pub fn fail_over(&self) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut admin = client.get_connection().unwrap();
        let end = Instant::now() + PATIENCE;
        // It refuses until it has seen that the replica is in order.
        while let Err(error) = redis::cmd("SENTINEL").arg("FAILOVER").arg("main").exec(&mut admin) {
            assert!(error.code() == Some("NOGOODSLAVE") && Instant::now() < end, "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process.line("+switch-master").expect("the sentinel ended");
    }
}
