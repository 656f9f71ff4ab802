//! The parts that this program plays. The daemon is a puppet: it tells the test every packet and does what
//! the test says; a runner does what comes down its socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use taskd::config::settings::Settings;
use taskd::observe::log::Target;
use taskd::process::launch::{ChildId, RunnerAsk, RunnerTold, ToDaemon, ToLauncher};
use taskd::process::launcher::{
    self, Hierarchy, LauncherOptions, Limits, Program, RunnerStart, daemon_start, runner_start,
};
use taskd::process::memfd::read_sealed;
use taskd::process::packet::Packets;
use taskd::process::title;

pub fn play(part: &str) -> i32 {
    // What Rust's own start would have done by now.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.unwrap();
    match part {
        "@launcher" => i32::from(launcher::serve(options(2))),
        "@upgrade-check" => check_upgrade(),
        "@daemon" => play_daemon(),
        "@dying-daemon" => 3,
        "@runner" => play_runner(),
        "@log" => super::journal::play(),
        _ => 64,
    }
}

/// As the new program that is tried: `@upgrade-check @launcher FILE`.
fn check_upgrade() -> i32 {
    match launcher::upgrade_check(&options(3)) {
        Ok(answer) => {
            let _ = writeln!(std::io::stdout(), "{answer}");
            0
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            78
        }
    }
}

/// `@launcher FILE`: options as the rig wrote them.
fn options(place: usize) -> LauncherOptions {
    let file = std::env::args().nth(place).unwrap();
    let told: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let settings = told["settings"].as_str().unwrap().to_owned();
    let gate = told["gate"].as_str().unwrap().to_owned();
    let load = Box::new(move || {
        // A named pipe here holds the launcher until the test opens its other end.
        if std::path::Path::new(&gate).exists() {
            let _ = std::fs::read(&gate);
        }
        let text = std::fs::read_to_string(&settings).map_err(|e| e.to_string())?;
        serde_json::from_str::<Settings>(&text).map_err(|_| text)
    });
    let diff = Box::new(|old: &Settings, new: &Settings| {
        if old.taskd.node == new.taskd.node {
            Ok(vec!["changed".to_owned()])
        } else {
            Err(vec!["node".to_owned()])
        }
    });
    let mut options = LauncherOptions::new(load, diff, Target::Stderr);
    if let Some(files) = told["open_files"].as_u64() {
        use nix::sys::resource::{Resource, setrlimit};
        setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
    }
    let time = |name: &str, default| told[name].as_u64().map_or(default, Duration::from_millis);
    let usual = Limits::default();
    options.limits = Limits {
        watchdog: told["watchdog"].as_u64().map(Duration::from_millis).or(options.limits.watchdog),
        finish_margin: time("finish_margin", usual.finish_margin),
        kill_after: time("kill_after", usual.kill_after),
        same_wish: time("same_wish", usual.same_wish),
        gone_within: time("gone_within", usual.gone_within),
        steady: time("steady", usual.steady),
        trial: time("trial", usual.trial),
        hand_over: time("hand_over", usual.hand_over),
        ..usual
    };
    options.daemon = Program::this(told["daemon"].as_str().unwrap_or("@daemon"));
    options.runner = Program::this("@runner");
    match told["cgroup"].as_str() {
        Some("real") => {}
        Some(path) => options.groups = Hierarchy { own: Ok(path.into()), kernel: super::cgroup::kernel() },
        // Wherever the tests themselves are is not theirs.
        None => options.groups.own = Err("a test".to_owned()),
    }
    if let Some(path) = told["installed"].as_str() {
        options.origin.path = path.into();
    }
    options
}

#[derive(Clone)]
struct Tell(Arc<Mutex<UnixStream>>);

impl Tell {
    fn line(&self, value: &Value) {
        // The test may be over.
        let _ = writeln!(self.0.lock().unwrap(), "{value}");
    }
}

fn play_daemon() -> i32 {
    let packets = Arc::new(daemon_start().unwrap().0);
    let first = packets.recv::<ToDaemon>(None).unwrap();
    let mut fds = first.fds.into_iter();
    let settings: Settings = serde_json::from_slice(&read_sealed(fds.next().unwrap()).unwrap()).unwrap();
    let listener = fds.next().map(UnixListener::from);
    // Where the rig waits is told in a field that nothing else looks at here.
    let stream = UnixStream::connect(&settings.taskd.node).unwrap();
    let tell = Tell(Arc::new(Mutex::new(stream.try_clone().unwrap())));
    tell.line(&json!({ "start": first.message, "settings": settings, "me": me() }));
    let children = Arc::new(Mutex::new(BTreeMap::new()));
    let receiver = (Arc::clone(&packets), tell.clone(), Arc::clone(&children));
    std::thread::spawn(move || receive(&receiver.0, &receiver.1, &receiver.2));
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let command: Value = serde_json::from_str(&line).unwrap();
        obey(&command, &packets, &tell, &children, listener.as_ref());
    }
    0
}

/// Shared, not duplicated: a test that leaves few descriptors counts them here too.
type Sockets = Arc<Mutex<BTreeMap<ChildId, Arc<UnixStream>>>>;

fn receive(packets: &Packets, tell: &Tell, children: &Sockets) {
    loop {
        match packets.recv::<ToDaemon>(None) {
            Ok(packet) => {
                let count = packet.fds.len();
                let mut line = json!({ "packet": packet.message, "fds": count });
                match (&packet.message, packet.fds.into_iter().next()) {
                    (ToDaemon::Child(child), Some(fd)) => {
                        let socket = Arc::new(UnixStream::from(fd));
                        children.lock().unwrap().insert(child.child, Arc::clone(&socket));
                        let (tell, id) = (tell.clone(), child.child);
                        std::thread::spawn(move || forward(&socket, id, &tell));
                    }
                    (ToDaemon::Settings { .. }, Some(fd)) => line["settings"] = settings_in(fd),
                    // As a daemon whose queues are all empty.
                    (ToDaemon::ReloadAsked, _) => {
                        let reload = ToLauncher::Reload { keep: Vec::new() };
                        packets.send(&reload, &[], Duration::from_secs(20)).unwrap();
                    }
                    _ => {}
                }
                tell.line(&line);
            }
            Err(error) => return tell.line(&json!({ "launcher_gone": error.to_string() })),
        }
    }
}

fn settings_in(fd: OwnedFd) -> Value {
    serde_json::from_slice(&read_sealed(fd).unwrap()).unwrap()
}

fn forward(socket: &UnixStream, id: ChildId, tell: &Tell) {
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        tell.line(&json!({ "child": id, "said": serde_json::from_str::<Value>(&line).unwrap() }));
    }
}

fn obey(
    command: &Value,
    packets: &Arc<Packets>,
    tell: &Tell,
    children: &Sockets,
    listener: Option<&UnixListener>,
) {
    if let Ok(message) = serde_json::from_value::<ToLauncher>(command["say"].clone()) {
        let _ = packets.send(&message, &[], Duration::from_secs(20));
    } else if let Some(text) = command["garbage"].as_str() {
        let _ = packets.send(&text, &[], Duration::from_secs(20));
    } else if let Some(text) = command["raw"].as_str() {
        raw(packets, text.as_bytes());
    } else if let Some(length) = command["oversized"].as_u64() {
        raw(packets, &vec![b' '; usize::try_from(length).unwrap()]);
    } else if let Some(count) = command["with_fds"].as_u64() {
        let fds = vec![std::io::stderr().as_raw_fd(); usize::try_from(count).unwrap()];
        let text = serde_json::to_vec(&command["text"]).unwrap();
        let rights = [ControlMessage::ScmRights(&fds)];
        let _ = sendmsg::<()>(packets.as_raw_fd(), &[IoSlice::new(&text)], &rights, MsgFlags::empty(), None);
    } else if let Some(millis) = command["alive_every"].as_u64() {
        let packets = Arc::clone(packets);
        std::thread::spawn(move || {
            while packets.send(&ToLauncher::Alive, &[], Duration::from_secs(20)).is_ok() {
                std::thread::sleep(Duration::from_millis(millis));
            }
        });
    } else if let Some(id) = command["child"].as_u64() {
        let children = children.lock().unwrap();
        let _ = writeln!(children[&ChildId(id)].as_ref(), "{}", command["line"].as_str().unwrap());
    } else if command["accept"] == true {
        let listener = listener.unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        writeln!(client, "accepted by {}", std::process::id()).unwrap();
        tell.line(&json!({ "accepted": true }));
    } else if let Some(code) = command["exit"].as_i64() {
        std::process::exit(i32::try_from(code).unwrap());
    }
}

/// What `Packets` would never send.
fn raw(packets: &Packets, bytes: &[u8]) {
    let _ = nix::sys::socket::send(packets.as_raw_fd(), bytes, MsgFlags::empty());
}

/// Asks the launcher; tells its answer and what came with it.
fn ask(asks: &Packets, door: &mut Option<OwnedFd>, asked: &RunnerAsk) -> Value {
    asks.send(asked, &[], Duration::from_secs(20)).unwrap();
    let Ok(packet) = asks.recv::<RunnerTold>(None) else { return json!({ "told": { "op": "gone" } }) };
    let count = packet.fds.len();
    *door = packet.fds.into_iter().next();
    let path = door.as_ref().map(|fd| {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().to_str().unwrap().to_owned()
    });
    json!({ "told": packet.message, "fds": count, "door": path })
}

/// Runs a script in the leaf, the way a runner would.
fn run_in(door: Option<&OwnedFd>, script: &str) -> Value {
    let fd = door.map_or(-1, AsRawFd::as_raw_fd);
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    unsafe {
        command.pre_exec(move || {
            let done = fd < 0 || nix::libc::write(fd, c"0".as_ptr().cast(), 1) == 1;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    match command.output() {
        Ok(out) => {
            use std::os::unix::process::ExitStatusExt;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            let (code, signal) = (out.status.code(), out.status.signal());
            json!({ "ran": { "code": code, "signal": signal, "out": text(&out.stdout), "err": text(&out.stderr) } })
        }
        Err(error) => json!({ "ran": { "failed": error.to_string() } }),
    }
}

/// Who and what this process is.
fn me() -> Value {
    use nix::unistd::{Uid, getgroups, getresgid, getresuid, setresuid};
    let (uids, gids) = (getresuid().unwrap(), getresgid().unwrap());
    let root = Uid::from_raw(0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    json!({
        "pid": std::process::id(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "uids": [uids.real.as_raw(), uids.effective.as_raw(), uids.saved.as_raw()],
        "gids": [gids.real.as_raw(), gids.effective.as_raw(), gids.saved.as_raw()],
        "groups": getgroups().unwrap().iter().map(|g| g.as_raw()).collect::<Vec<_>>(),
        "can_be_root": setresuid(root, root, root).is_ok(),
        "dumpable": nix::sys::prctl::get_dumpable().unwrap(),
        "death_signal": nix::sys::prctl::get_pdeathsig().unwrap().map(|s| s as i32),
        "no_new_privileges": nix::sys::prctl::get_no_new_privs().unwrap(),
        "open_files": nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().0,
        "most_open_files": nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1,
        "nice": unsafe { nix::libc::getpriority(nix::libc::PRIO_PROCESS, 0) },
        "io_class": unsafe { nix::libc::syscall(nix::libc::SYS_ioprio_get, 1, 0) } >> 13,
        "environment": environment,
        "blocked": status.lines().find(|l| l.starts_with("SigBlk")).unwrap(),
        "fds": std::fs::read_dir("/proc/self/fd").unwrap().count(),
    })
}

fn play_runner() -> i32 {
    let RunnerStart { part, held, socket, launcher: asks } = match runner_start() {
        Ok(started) => started,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "runner: {error}");
            return 71;
        }
    };
    let mut me = me();
    me["part"] = serde_json::to_value(&part).unwrap();
    let values = held.secrets.iter().map(|(n, s)| (n, String::from_utf8_lossy(s.expose()).into_owned()));
    me["secrets"] = json!(values.collect::<BTreeMap<_, _>>());
    me["directory"] = json!(held.directory);
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let socket = UnixStream::from(socket);
    let say = |value: &Value| writeln!(&socket, "{value}").unwrap();
    say(&me);
    let mut door = None;
    for line in BufReader::new(socket.as_fd().try_clone_to_owned().map(UnixStream::from).unwrap()).lines() {
        let line = line.unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "exit" => std::process::exit(rest.parse().unwrap()),
            "abort" => std::process::abort(),
            "title" => {
                title::set(rest);
                say(&json!({ "titled": true }));
            }
            "deaf" => {
                unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.unwrap();
                say(&json!({ "deaf": true }));
            }
            // A sleeper in a session of its own whose parent is gone, three processes deep.
            "orphan" => {
                let script = "setsid sh -c 'sh -c \"sleep 600; true\" & echo $!; wait' & ";
                let mut sh = Command::new("sh");
                let sh = sh.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
                let mut out = BufReader::new(sh.spawn().unwrap().stdout.unwrap());
                let mut pid = String::new();
                out.read_line(&mut pid).unwrap();
                say(&json!({ "orphan": pid.trim().parse::<u32>().unwrap() }));
            }
            // One that goes to the launcher, because this one does not keep it.
            "escape" => {
                nix::sys::prctl::set_child_subreaper(false).unwrap();
                let script = "sleep 600 >/dev/null 2>&1 & echo $!";
                let out = Command::new("sh").args(["-c", script]).env_clear().output().unwrap();
                say(
                    &json!({ "escaped": String::from_utf8(out.stdout).unwrap().trim().parse::<u32>().unwrap() }),
                );
            }
            "ask" => say(&ask(asks.as_ref().unwrap(), &mut door, &serde_json::from_str(rest).unwrap())),
            "ask_raw" => {
                raw(asks.as_ref().unwrap(), rest.as_bytes());
                say(&json!({ "asked": true }));
            }
            "ask_fd" => {
                asks.as_ref().unwrap().send(&RunnerAsk::Done, &[socket.as_fd()], Duration::ZERO).unwrap();
                say(&json!({ "asked": true }));
            }
            "door" => {
                let mut door = std::fs::File::from(door.as_ref().unwrap().try_clone().unwrap());
                say(&json!({ "wrote": door.write_all(rest.as_bytes()).map_err(|e| e.to_string()) }));
            }
            "run" => say(&run_in(door.as_ref(), rest)),
            "echo" => say(&json!({ "echo": rest })),
            _ => return 64,
        }
    }
    0
}
