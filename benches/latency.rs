//! From the call that enqueues to the first instruction of the child, idle daemon, beside a bare spawn plus
//! one fsync.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what is wrong by panicking"
)]
#![allow(unreachable_pub, reason = "the harness is shared with the tests")]

#[path = "harness/mod.rs"]
mod bench;

use std::ffi::CString;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::{Better, Figure, Node, Setup, bare, figure, setting};
use nix::time::{ClockId, clock_gettime};

/// The clock that the child reads too, in nanoseconds.
fn now_ns() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as f64 * 1e9 + now.tv_nsec() as f64
}

/// Compiles the child: static, so that what it measures is the start and not the dynamic linker.
fn compile(dir: &Path) -> PathBuf {
    let (source, program) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/stamp.c"), dir.join("stamp"));
    let status =
        Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(status.success());
    program
}

/// When the child began, in nanoseconds of the same clock.
fn stamp(socket: &UnixDatagram) -> f64 {
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer).unwrap();
    std::str::from_utf8(&buffer[..n]).unwrap().trim().parse().unwrap()
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 100));
    let mut node = Node::prepare(Setup::new(""));
    let program = compile(node.path());
    let path = node.path().join("stamps");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (program, path) = (program.to_str().unwrap(), path.to_str().unwrap());
    let (bare_program, bare_path) = (CString::new(program).unwrap(), [CString::new(path).unwrap()]);
    let task = format!("[tasks.stamp]\nexec = [\"{program}\", \"{path}\"]\n");
    node.write_config(&format!("[pools.default]\nprocesses = 2\n{task}"));
    node.launch();

    let mut durable = bare::Durable::new(node.path());
    let mut http = node.http();
    let body = serde_json::json!([{"task": "stamp"}]);
    let limit = Some((Better::Lower, 2.0));
    let mut middle =
        Figure::new("latency", "enqueue to first instruction, p50", "ms", "fsync + spawn", limit);
    let mut tail =
        Figure::new("latency_p99", "enqueue to first instruction, p99", "ms", "fsync + spawn", None);
    for round in 0..=rounds {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let start = now_ns();
            durable.write();
            let child = bare::spawn(&bare_program, &bare_path);
            theirs.push((stamp(&socket) - start) / 1e6);
            bare::finish(child);
            let start = now_ns();
            let ids = http.enqueue(&body);
            ours.push((stamp(&socket) - start) / 1e6);
            node.finished(&ids[0]);
            // Idle means idle: what follows the end of a task is over.
            std::thread::sleep(Duration::from_millis(5));
        }
        if round > 0 {
            middle.round(figure::percentile(&theirs, 50), figure::percentile(&ours, 50));
            tail.round(figure::percentile(&theirs, 99), figure::percentile(&ours, 99));
        }
    }
    tail.end();
    figure::exit(&[middle.end()])
}
