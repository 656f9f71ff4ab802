//! 64 concurrent enqueues over the socket: the rate beside a bare group commit, the number of fsyncs, and
//! the rate where every fsync takes 5 ms beside one fsync each.
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

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bench::harness::http;
use bench::{Better, Figure, Node, Setup, TRUE, bare, figure, setting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SYNCS: &str = "fsync,fdatasync";

/// 64 connections, each with one request under way; enqueues per second.
fn enqueue(socket: &Path, n: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(tokio::net::UnixStream::connect(socket).await.unwrap());
        }
        let start = Instant::now();
        let each = clients.into_iter().map(|stream| tokio::spawn(one_client(stream, n / 64)));
        for client in each.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        (n / 64 * 64) as f64 / start.elapsed().as_secs_f64()
    })
}

async fn one_client(mut stream: tokio::net::UnixStream, n: usize) {
    let mut buffer = vec![0; 16 << 10];
    for _ in 0..n {
        let body = format!("[{{\"task\":\"true\",\"id\":\"{}\"}}]", uuid::Uuid::now_v7());
        stream.write_all(http::request("POST", "/v1/messages", &body).as_bytes()).await.unwrap();
        let mut have = 0;
        while !whole(&buffer[..have]) {
            let read = stream.read(&mut buffer[have..]).await.unwrap();
            assert!(read > 0, "the connection was closed");
            have += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..have]));
    }
}

/// Whether an answer with a `content-length` is all there.
fn whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    answer.len() >= head + 4 + length.unwrap_or(0)
}

/// A node with a paused queue: what runs would take the processor from what is measured.
fn node(wrapper: Vec<OsString>) -> Node {
    let mut setup = Setup::new(TRUE);
    setup.wrapper = wrapper;
    let node = Node::start_with(setup);
    node.ok(&["pause", "default"]);
    node
}

fn strace(output: &Path, more: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["strace", "-f", "--seccomp-bpf", "-qq", "-e"].map(Into::into).to_vec();
    words.push(format!("trace={SYNCS}").into());
    words.extend(more.iter().map(OsString::from));
    words.push("-o".into());
    words.push(output.into());
    words
}

fn syncs(output: &Path) -> usize {
    let text = std::fs::read_to_string(output).unwrap();
    text.lines().filter(|l| l.contains("fsync(") || l.contains("fdatasync(")).count()
}

fn rate(rounds: usize, n: usize) -> bool {
    let node = node(Vec::new());
    let body = [b'x'; 200];
    // 12,000 a second where the bare group commit reaches 15,000.
    let limit = Some((Better::Higher, 0.8));
    let what = "64 concurrent enqueues over the socket";
    let mut figure = Figure::new("enqueue_concurrent", what, "/s", "bare group commit", limit);
    enqueue(&node.socket(), n / 10);
    for _ in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        figure.round(bare::group_commit(dir.path(), n, &body), enqueue(&node.socket(), n));
    }
    figure.end()
}

fn fsyncs(rounds: usize, n: usize) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("strace");
    let node = node(strace(&output, &[]));
    let limit = Some((Better::Lower, 1.0 / 16.0));
    let mut figure =
        Figure::new("enqueue_fsyncs", "fsyncs of 64 concurrent enqueues", "calls", "enqueues", limit);
    for _ in 0..rounds {
        let before = syncs(&output);
        enqueue(&node.socket(), n);
        figure.round(n as f64, (syncs(&output) - before) as f64);
    }
    figure.end()
}

fn slow_disk(rounds: usize, n: usize) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let inject = format!("inject={SYNCS}:delay_enter=5000");
    let words = strace(&dir.path().join("strace"), &["-e", &inject]);
    let node = node(words.clone());
    let limit = Some((Better::Higher, 20.0));
    let what = "64 concurrent enqueues, 5 ms per fsync";
    let mut figure = Figure::new("enqueue_slow_disk", what, "/s", "one fsync each", limit);
    for round in 0..rounds {
        let own = dir.path().join(round.to_string());
        std::fs::create_dir(&own).unwrap();
        let mut each = Command::new(&words[0]);
        each.args(&words[1..words.len() - 1]).arg("/dev/null").arg(std::env::current_exe().unwrap());
        let out = each.arg("one-fsync-each").arg(&own).arg("200").output().unwrap();
        let each: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
        figure.round(each, enqueue(&node.socket(), n));
    }
    figure.end()
}

fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args().collect();
    if let [_, what, dir, n] = args.as_slice()
        && what == "one-fsync-each"
    {
        println!("{}", bare::one_fsync_each(Path::new(dir), n.parse().unwrap(), &[b'x'; 200]));
        return std::process::ExitCode::SUCCESS;
    }
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 64_000));
    figure::exit(&[rate(rounds, n), fsyncs(rounds, n / 10), slow_disk(rounds, n / 10)])
}
