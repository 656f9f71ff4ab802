//! Baselines: the least that anybody must do for the same effect.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use taskd::process::spawn::{Spawn, Stdio};

/// A program that was spawned, with our ends of its output.
pub struct Spawned {
    child: taskd::process::spawn::Spawned,
    stdout: File,
    stderr: File,
}

/// Spawns a program by the call that runners use, with pipes for its output.
pub fn spawn(program: &CStr, args: &[CString]) -> Spawned {
    // Ends that block: the baseline reads to the end in the least number of calls.
    let (stdout, out) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (stderr, err) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let argv: Vec<CString> = std::iter::once(program.to_owned()).chain(args.iter().cloned()).collect();
    let child = Spawn {
        program,
        argv: &argv,
        envp: &[],
        cwd: None,
        umask: None,
        nice: None,
        io_class: None,
        sandbox: None,
        nofile: None,
        cgroup_procs: None,
        stdin: Stdio::Inherit,
        stdout: Stdio::Fd(out.as_fd()),
        stderr: Stdio::Fd(err.as_fd()),
    };
    Spawned { child: child.start().unwrap(), stdout: stdout.into(), stderr: stderr.into() }
}

/// Reads what it prints to the end and waits for it.
pub fn finish(mut spawned: Spawned) {
    let mut sink = [0; 4096];
    while spawned.stdout.read(&mut sink).unwrap() > 0 {}
    while spawned.stderr.read(&mut sink).unwrap() > 0 {}
    let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.child.pid), None).unwrap();
    assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)), "{ended:?}");
}

/// `/bin/true`, `n` times from two threads; runs per second.
pub fn true_loop(n: usize) -> f64 {
    let (left, start) = (AtomicUsize::new(n), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    finish(spawn(c"/bin/true", &[]));
                }
            });
        }
    });
    n as f64 / start.elapsed().as_secs_f64()
}

/// A store that does nothing but keep messages: SQLite, WAL, synchronous=FULL, ids that sort by time.
pub struct Store(rusqlite::Connection);

impl Store {
    /// Makes it in `dir`.
    pub fn new(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("bare.db")).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
             CREATE TABLE message(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, queue INTEGER NOT NULL,
                                  state INTEGER NOT NULL, body BLOB NOT NULL);
             CREATE INDEX ready ON message(queue, n) WHERE state = 0;",
        )
        .unwrap();
        Self(db)
    }

    /// Stores these in one transaction.
    pub fn insert(&mut self, ids: &[uuid::Uuid], body: &[u8]) {
        let tx = self.0.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        {
            let sql = "INSERT INTO message(id, queue, state, body) VALUES (?1, 1, 0, ?2)";
            let mut insert = tx.prepare_cached(sql).unwrap();
            for id in ids {
                insert.execute((&id.as_bytes()[..], body)).unwrap();
            }
        }
        tx.commit().unwrap();
    }
}

/// Group commit of `n` messages by 64 producers that each wait for their own to be durable; per second.
pub fn group_commit(dir: &Path, n: usize, body: &[u8]) -> f64 {
    use tokio::sync::{mpsc, oneshot};
    let mut store = Store::new(dir);
    let (tell, mut told) = mpsc::channel::<(uuid::Uuid, oneshot::Sender<()>)>(1024);
    let body = body.to_vec();
    let writer = std::thread::spawn(move || {
        let (mut ids, mut answers) = (Vec::new(), Vec::new());
        while let Some((id, answer)) = told.blocking_recv() {
            ids.push(id);
            answers.push(answer);
            while let Ok((id, answer)) = told.try_recv() {
                ids.push(id);
                answers.push(answer);
            }
            store.insert(&ids, &body);
            ids.clear();
            for answer in answers.drain(..) {
                answer.send(()).unwrap();
            }
        }
    });
    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let producers: Vec<_> = (0..64)
            .map(|_| {
                let tell = tell.clone();
                tokio::spawn(async move {
                    for _ in 0..n / 64 {
                        let (answer, stored) = oneshot::channel();
                        assert!(tell.send((uuid::Uuid::now_v7(), answer)).await.is_ok());
                        stored.await.unwrap();
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.await.unwrap();
        }
    });
    drop(tell);
    let rate = (n / 64 * 64) as f64 / start.elapsed().as_secs_f64();
    writer.join().unwrap();
    rate
}

/// One transaction, one fsync, `n` times after one another; per second.
pub fn one_fsync_each(dir: &Path, n: usize, body: &[u8]) -> f64 {
    let mut store = Store::new(dir);
    let start = Instant::now();
    for _ in 0..n {
        store.insert(&[uuid::Uuid::now_v7()], body);
    }
    n as f64 / start.elapsed().as_secs_f64()
}

/// A file that one durable write after another is appended to.
pub struct Durable(File);

impl Durable {
    /// Makes it in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self(File::options().create(true).append(true).open(dir.join("durable")).unwrap())
    }

    /// Appends 400 bytes and waits until they are on disk.
    pub fn write(&mut self) {
        self.0.write_all(&[b'x'; 400]).unwrap();
        self.0.sync_data().unwrap();
    }
}
