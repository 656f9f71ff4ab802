//! A daemon played by a closure: the real server in a thread of its own, and a bare HTTP client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use taskd::config::settings::Access;
use taskd::control::access::{Policy, System};
use taskd::control::api::{Answer, Call, Request};
use taskd::control::server::{Limits, serve};
use tokio::sync::{mpsc, oneshot, watch};

/// A running server; it stops and is waited for when dropped.
pub struct Fake {
    pub dir: tempfile::TempDir,
    pub socket: PathBuf,
    /// What reached the handler.
    pub seen: Arc<Mutex<Vec<Request>>>,
    pub policy: watch::Sender<Arc<Policy>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Rules that name nobody; `owner` may do everything.
pub fn nobody_but(owner: u32) -> Policy {
    let access = Access {
        read: Vec::new(),
        enqueue: Vec::new(),
        admin: Vec::new(),
        celery_control: Default::default(),
    };
    Policy::new(&access, [], owner, &System)
}

impl Fake {
    /// A server whose every call is answered by `handler`; one that gives nothing drops the call.
    pub fn start(
        limits: Limits,
        mut handler: impl FnMut(&Request) -> Option<Answer> + Send + 'static,
    ) -> Self {
        Self::start_calls(limits, move |call| {
            if let Some(answer) = handler(&call.request) {
                let _ = call.answer.send(answer);
            }
        })
    }

    /// The same with the whole call.
    pub fn start_calls(limits: Limits, mut handler: impl FnMut(Call) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("taskd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (policy, rules) = watch::channel(Arc::new(nobody_but(own_uid())));
        let (stop, stopped) = oneshot::channel::<()>();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (calls, mut called) = mpsc::channel::<Call>(64);
                let groups = taskd::process::peer::groups;
                let serving = serve(listener, rules, calls, groups, limits, async {
                    let _ = stopped.await;
                });
                let mut serving = std::pin::pin!(serving);
                loop {
                    tokio::select! {
                        done = &mut serving => return done,
                        Some(call) = called.recv() => {
                            noted.lock().unwrap().push(call.request.clone());
                            handler(call);
                        }
                    }
                }
            })
        });
        Self { dir, socket, seen, policy, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it and waits until it is gone.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    pub fn connect(&self) -> Bare {
        Bare(BufReader::new(UnixStream::connect(&self.socket).unwrap()))
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let mut bare = self.connect();
        bare.ask(method, path, body);
        bare.reply().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client without manners.
pub struct Bare(pub BufReader<UnixStream>);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn error(&self) -> taskd::control::api::Error {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Bare {
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: taskd\r\ncontent-length: {}\r\n\r\n", body.len());
        // A server that refuses by the head alone does not read the body: its answer is there all the same.
        let _ = self.send(&[head.as_bytes(), body].concat());
    }

    /// The next answer; none at the end of the connection.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).ok().filter(|n| *n > 0).is_none() {
                assert!(head.is_empty(), "broke off in the head: {head:?}");
                return None;
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Some(Reply { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// Waits until the server ends the connection.
    pub fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A connection that ends with unread bytes of ours in it is reset.
        let _ = self.0.read_to_end(&mut rest);
        rest.is_empty()
    }
}
