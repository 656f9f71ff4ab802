//! A server that says what a test wants it to say, command by command.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What becomes of a command.
pub enum Say {
    /// It is answered with these bytes.
    Reply(String),
    /// It is never answered.
    Nothing,
    /// It is answered with these bytes, and then the connection is closed.
    Cut(String),
}

impl Say {
    /// A reply with its line break.
    pub fn line(text: &str) -> Self {
        Self::Reply(format!("{text}\r\n"))
    }
}

/// The server, on a free port.
pub struct Fake {
    /// Its port.
    pub port: u16,
    /// Connections that were accepted.
    pub accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    /// `answer` gets the number of the connection, from 0, and the words of the command.
    pub fn start(answer: impl Fn(usize, &[String]) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended, answer) = (accepted.clone(), stop.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::AcqRel);
                let (stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || serve(stream, |words| answer(number, words)));
            }
        });
        Self { port, accepted, stop }
    }

    /// `redis://127.0.0.1:PORT/1`: the database makes SELECT one of the commands.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // It waits for one more connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, answer: impl Fn(&[String]) -> Say) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = &stream;
    while let Some(words) = command(&mut reader) {
        match answer(&words) {
            Say::Reply(bytes) if writer.write_all(bytes.as_bytes()).is_ok() => {}
            Say::Nothing => {}
            Say::Reply(_) => return,
            Say::Cut(bytes) => {
                let _ = writer.write_all(bytes.as_bytes());
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// The words of a command: an array of bulk strings.
fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |kind: char, reader: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().strip_prefix(kind)?.parse().ok()
    };
    let count = number('*', reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number('$', reader)?;
        let mut bytes = vec![0; length + 2];
        reader.read_exact(&mut bytes).ok()?;
        bytes.truncate(length);
        words.push(String::from_utf8(bytes).ok()?);
    }
    Some(words)
}

/// What INFO of a good server says.
pub const INFO: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\nmaxmemory_policy:noeviction\r\n\
    loading:0\r\naof_enabled:1\r\nevicted_keys:0\r\nrole:master\r\ncluster_enabled:0\r\n";

/// A bulk string.
pub fn bulk(text: &str) -> Say {
    Say::Reply(format!("${}\r\n{text}\r\n", text.len()))
}

/// The answers of a good server.
pub fn good(words: &[String]) -> Say {
    match words[0].as_str() {
        "HELLO" => Say::line("%1\r\n+server\r\n+redis"),
        "INFO" => bulk(INFO),
        "SCRIPT" => bulk("e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
        "EVALSHA" | "EVAL" => Say::line(":1"),
        "PING" => Say::line("+PONG"),
        "LLEN" => Say::line(":0"),
        _ => Say::line("+OK"),
    }
}
