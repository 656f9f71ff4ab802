//! The daemon's end of one child's socket: lines out without ever waiting, lines in as a bounded stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::engine::event::ChildKey;
use crate::process::protocol::{FromChild, MAX_LINE, ToChild};

/// What a child's reader tells the loop.
#[derive(Debug)]
pub enum Heard {
    /// Lines, in order.
    Lines(ChildKey, Vec<FromChild>),
    /// The child broke the protocol; it is to be ended.
    Broken(ChildKey, String),
}

/// One child's connection.
#[derive(Debug)]
pub struct Link {
    stream: Rc<UnixStream>,
    /// What the socket did not take yet. Bounded by what the engine hands to one child at once.
    backlog: Rc<RefCell<VecDeque<u8>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// Takes over a connected socket: says `hello` and reads on until the child is gone.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn open(
        child: ChildKey,
        socket: std::os::unix::net::UnixStream,
        epoch: u64,
        heard: mpsc::Sender<Heard>,
    ) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        let stream = Rc::new(UnixStream::from_std(socket)?);
        let reading = Rc::clone(&stream);
        let reader = tokio::task::spawn_local(async move {
            read(child, &reading, epoch > 1, &heard).await;
        });
        let link = Self { stream, backlog: Rc::default(), reader };
        link.write(b"\n");
        link.send(&ToChild::Hello { v: crate::process::protocol::VERSION, epoch });
        Ok(link)
    }

    /// Sends one line.
    pub fn send(&self, line: &ToChild) {
        // Strings, numbers and JSON values with string keys: cannot fail to serialize.
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        self.write(&text);
    }

    /// No more runs: the child finishes what it holds and exits. The launcher holds a duplicate of this
    /// socket, so closing it would say nothing; shutdown(2) acts on the socket itself.
    pub fn finish(&self) {
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&*self.stream),
            nix::sys::socket::Shutdown::Write,
        );
    }

    fn write(&self, bytes: &[u8]) {
        let mut backlog = self.backlog.borrow_mut();
        if !backlog.is_empty() {
            backlog.extend(bytes);
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // The child is gone: the launcher will say so.
                Err(_) => return,
            }
        }
        if rest.is_empty() {
            return;
        }
        backlog.extend(rest);
        let (stream, backlog) = (Rc::clone(&self.stream), Rc::clone(&self.backlog));
        tokio::task::spawn_local(async move { flush(&stream, &backlog).await });
    }
}

async fn flush(stream: &UnixStream, backlog: &RefCell<VecDeque<u8>>) {
    loop {
        if stream.writable().await.is_err() {
            return;
        }
        let mut bytes = backlog.borrow_mut();
        let (head, _) = bytes.as_slices();
        match stream.try_write(head) {
            Ok(n) => {
                bytes.drain(..n);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => bytes.clear(),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

async fn read(child: ChildKey, stream: &UnixStream, mut torn: bool, heard: &mpsc::Sender<Heard>) {
    let mut buffer: Vec<u8> = Vec::new();
    let mut scanned = 0;
    loop {
        if stream.ready(Interest::READABLE).await.is_err() {
            return;
        }
        buffer.reserve(16 << 10);
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(at) = buffer.get(scanned..).and_then(|b| b.iter().position(|c| *c == b'\n')) {
            let end = scanned + at;
            let line = buffer.get(start..end).unwrap_or_default();
            start = end + 1;
            scanned = start;
            // A new daemon may come in the middle of a line that was meant for the old one.
            if std::mem::take(&mut torn) || line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<FromChild>(line) {
                Ok(parsed) => lines.push(parsed),
                Err(e) => {
                    if !lines.is_empty() {
                        let _ = heard.send(Heard::Lines(child, lines)).await;
                    }
                    let shown = String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned();
                    let why = format!("a line that is not of the child protocol ({e}): {shown}");
                    let _ = heard.send(Heard::Broken(child, why)).await;
                    return;
                }
            }
        }
        buffer.drain(..start);
        scanned = buffer.len();
        if buffer.len() > MAX_LINE {
            let why = format!("a line of more than {MAX_LINE} bytes");
            let _ = heard.send(Heard::Broken(child, why)).await;
            return;
        }
        if buffer.is_empty() && buffer.capacity() > 64 << 10 {
            buffer.shrink_to(16 << 10);
        }
        if !lines.is_empty() && heard.send(Heard::Lines(child, lines)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream as Std;

    use super::*;
    use crate::process::protocol::Run;

    fn on_loop(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test());
    }

    #[test]
    fn says_hello_and_hears_lines_whatever_their_pieces() {
        on_loop(async || {
            let (ours, mut theirs) = Std::pair().unwrap();
            let (tx, mut rx) = mpsc::channel(4);
            let _link = Link::open(ChildKey(7), ours, 1, tx).unwrap();
            let reader = BufReader::new(theirs.try_clone().unwrap());
            let reading =
                std::thread::spawn(move || reader.lines().take(2).map(|l| l.unwrap()).collect::<Vec<_>>());
            while !reading.is_finished() {
                tokio::task::yield_now().await;
            }
            let said = reading.join().unwrap();
            assert_eq!(said, ["", "{\"op\":\"hello\",\"v\":1,\"epoch\":1}"], "a torn line is ended first");
            theirs.write_all(b"{\"op\":\"rea").unwrap();
            tokio::task::yield_now().await;
            theirs.write_all(b"dy\",\"v\":1,\"resume\":true}\n{\"op\":\"resumed\"}\n{\"op\":").unwrap();
            let Some(Heard::Lines(ChildKey(7), lines)) = rx.recv().await else { panic!("nothing heard") };
            assert!(matches!(lines.first(), Some(FromChild::Ready { capacity: 1, resume: true, .. })));
            assert_eq!(lines.get(1), Some(&FromChild::Resumed {}));
            theirs.write_all(b"nonsense}\n").unwrap();
            assert!(matches!(rx.recv().await, Some(Heard::Broken(ChildKey(7), _))));
        });
    }

    #[test]
    fn a_line_torn_by_the_death_of_the_daemon_before_is_skipped() {
        on_loop(async || {
            let (ours, mut theirs) = Std::pair().unwrap();
            let (tx, mut rx) = mpsc::channel(4);
            theirs.write_all(b"rt of a line\n{\"op\":\"running\",\"run\":\"3\"}\n").unwrap();
            let _link = Link::open(ChildKey(1), ours, 2, tx).unwrap();
            let Some(Heard::Lines(_, lines)) = rx.recv().await else { panic!("nothing heard") };
            assert_eq!(lines, vec![FromChild::Running { run: "3".into() }]);
        });
    }

    #[test]
    fn a_child_that_does_not_read_stops_nobody_and_gets_every_line_later() {
        on_loop(async || {
            let (ours, theirs) = Std::pair().unwrap();
            let (tx, _rx) = mpsc::channel(4);
            let link = Link::open(ChildKey(1), ours, 1, tx).unwrap();
            let big = "x".repeat(100_000);
            for n in 0..40 {
                link.send(&ToChild::Run(Box::new(Run {
                    run: n.to_string(),
                    generation: 1,
                    id: big.clone(),
                    task: "t".into(),
                    queue: "q".into(),
                    args: vec![],
                    kwargs: serde_json::Map::new(),
                    attempt: 1,
                    deadline_ms: None,
                    soft_deadline_ms: None,
                })));
            }
            let reading = std::thread::spawn(move || {
                BufReader::new(theirs).lines().skip(2).take(40).map(|l| l.unwrap()).collect::<Vec<_>>()
            });
            while !reading.is_finished() {
                tokio::task::yield_now().await;
            }
            let lines = reading.join().unwrap();
            for (n, line) in lines.iter().enumerate() {
                assert!(
                    line.starts_with(&format!("{{\"op\":\"run\",\"run\":\"{n}\",")),
                    "line {n} is out of order"
                );
            }
        });
    }
}
