//! How late a schedule's child begins, beside a bare spawn at a timer; and what 10,000 schedules cost.
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
use std::time::{Duration, Instant};

use bench::{Better, Figure, Node, Setup, TRUE, bare, figure, procs, setting, until};
use nix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> i64 {
    let now = clock_gettime(clock).unwrap();
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

/// What the wall clock is ahead of the monotonic one that the child reads, in nanoseconds.
fn ahead() -> i64 {
    ns(ClockId::CLOCK_REALTIME) - ns(ClockId::CLOCK_MONOTONIC)
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

/// When a child began, in nanoseconds of the wall clock.
fn stamp(socket: &UnixDatagram) -> i64 {
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer).unwrap();
    std::str::from_utf8(&buffer[..n]).unwrap().trim().parse::<i64>().unwrap() + ahead()
}

/// Sleeps until a time of the wall clock, as a timer of the kernel's would wake.
fn sleep_until(at: i64) {
    let left = at - ns(ClockId::CLOCK_REALTIME);
    std::thread::sleep(Duration::from_nanos(left.max(0).unsigned_abs()));
}

/// Fires at each whole second, and a bare spawn at each half.
fn lateness() -> Vec<bool> {
    const SECOND: i64 = 1_000_000_000;
    let count = setting("COUNT", 300);
    let mut node = Node::prepare(Setup::new(""));
    let program = compile(node.path());
    let (ours_path, theirs_path) = (node.path().join("ours"), node.path().join("theirs"));
    let bind = |path: &Path| {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    };
    let (ours_socket, theirs_socket) = (bind(&ours_path), bind(&theirs_path));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    node.write_config(&format!(
        "[pools.default]\nprocesses = 2\n[tasks.stamp]\nexec = [\"{}\", \"{}\"]\n\
         [schedules.tick]\ntask = \"stamp\"\nevery = \"1s\"\n",
        text(&program),
        text(&ours_path)
    ));
    node.launch();
    let (bare_program, bare_path) =
        (CString::new(text(&program)).unwrap(), [CString::new(text(&theirs_path)).unwrap()]);
    stamp(&ours_socket); // the first run of a runner is slower
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while ours.len() < count {
        let at = ns(ClockId::CLOCK_REALTIME) / SECOND * SECOND + SECOND / 2;
        if at < ns(ClockId::CLOCK_REALTIME) {
            // What the second before did is over in the first half of this one; it was not this time.
            stamp(&ours_socket);
            continue;
        }
        sleep_until(at);
        let child = bare::spawn(&bare_program, &bare_path);
        theirs.push((stamp(&theirs_socket) - at) as f64 / 1e6);
        bare::finish(child);
        let began = stamp(&ours_socket);
        ours.push((began % SECOND) as f64 / 1e6);
    }
    let limit = Some((Better::Lower, 1.0));
    let mut middle = Figure::new(
        "schedule_late",
        "planned time to first instruction, p50",
        "ms",
        "a timer and a spawn",
        None,
    );
    middle.round(figure::percentile(&theirs, 50), figure::percentile(&ours, 50));
    let mut tail = Figure::new(
        "schedule_late_p99",
        "planned time to first instruction, p99",
        "ms",
        "a timer and a spawn, and 10 ms",
        limit,
    );
    tail.round(figure::percentile(&theirs, 99) + 10.0, figure::percentile(&ours, 99));
    vec![middle.end(), tail.end()]
}

/// What a node with these tables costs: milliseconds to READY, to the first answer with every plan, megabytes, and
/// milliseconds of processor time in a minute.
fn cost(tables: &str, schedules: usize, seconds: usize) -> (f64, f64, f64, f64) {
    let mut node = Node::prepare(Setup::new(&format!("{TRUE}{tables}")));
    // Twice: at the first start every schedule is new to the store.
    node.launch();
    let planned = |node: &Node| {
        let all = node.http().get("/v1/schedules");
        let all = all.as_array().unwrap();
        (all.len() == schedules && all.iter().all(|s| s["next"].is_i64())).then_some(())
    };
    until("the first plan", || planned(&node));
    node.stop();
    let start = Instant::now();
    node.launch();
    let ready = start.elapsed().as_secs_f64() * 1e3;
    until("the plan", || planned(&node));
    let whole = start.elapsed().as_secs_f64() * 1e3;
    node.all_finished(&node.enqueue_many("true", 20));
    std::thread::sleep(Duration::from_secs(5)); // what follows work is over
    let all = [vec![node.launcher()], procs::below(node.launcher())].concat();
    let used = || all.iter().map(|p| procs::cpu_ns(*p)).sum::<u64>();
    let before = used();
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let cpu = (used() - before) as f64 / 1e6 * 60.0 / seconds as f64;
    let memory: u64 = all.iter().map(|p| procs::pss(*p).expect("smaps_rollup needs root")).sum();
    (ready, whole, memory as f64 / 1e6, cpu)
}

fn many() -> Vec<bool> {
    let (n, seconds) = (setting("SCHEDULES", 10_000), setting("SECONDS", 60));
    let one = |n: usize| {
        let (minute, hour, day) = (n % 60, n / 60 % 24, n / 1_440 % 28 + 1);
        // A day in January: none of them fires while it is measured, in most months.
        format!("[schedules.s{n}]\ntask = \"true\"\ncron = \"{minute} {hour} {day} 1 *\"\n")
    };
    let tables: String = (0..n).map(one).collect();
    let (ready, whole, memory, cpu) = cost("", 0, seconds);
    let with = cost(&tables, n, seconds);
    println!(
        "  without: READY after {ready:.0} ms; with {n}: {:.0} ms, planned after {:.0} ms",
        with.0, with.1
    );
    let limit = Some((Better::Lower, 1.0));
    let mut start =
        Figure::new("schedules_start", "start with 10,000 schedules", "ms", "without any, and 1 s", limit);
    start.round(ready.max(whole) + 1_000.0, with.0.max(with.1));
    let mut size =
        Figure::new("schedules_memory", "PSS with 10,000 schedules", "MB", "without any, and 20 MB", limit);
    size.round(memory + 20.0, with.2);
    let mut idle = Figure::new(
        "schedules_cpu",
        "CPU time of all, idle, with 10,000 schedules",
        "ms/minute",
        "without any, and 300 ms a minute",
        limit,
    );
    idle.round(cpu + 300.0, with.3);
    vec![start.end(), size.end(), idle.end()]
}

fn main() -> std::process::ExitCode {
    let mut holds = many();
    holds.extend(lateness());
    figure::exit(&holds)
}
