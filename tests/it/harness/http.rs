//! A bare HTTP/1.1 client over a unix socket, kept alive: what any program can do without taskd's own client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// One connection.
pub struct Http {
    stream: BufReader<UnixStream>,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// The text of a request.
pub fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: taskd\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// Those of the socket; an answer that is no HTTP is `InvalidData`.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        self.stream.get_mut().write_all(request(method, path, body).as_bytes())?;
        let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad(&line))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(n) = header.strip_prefix("content-length:") {
                length = n.trim().parse().map_err(|_| bad(&header))?;
            }
            chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                line.clear();
                self.stream.read_line(&mut line)?;
                let n = usize::from_str_radix(line.trim(), 16).map_err(|_| bad(&line))?;
                let mut chunk = vec![0; n + 2];
                self.stream.read_exact(&mut chunk)?;
                if n == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..n]);
            }
        } else {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        }
        Ok(Answer { status, body })
    }

    /// GET that must succeed.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Value {
        let answer = self.ask("GET", path, "").unwrap();
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Enqueues a batch that must be accepted; the ids in order.
    #[track_caller]
    pub fn enqueue(&mut self, messages: &Value) -> Vec<String> {
        let answer = self.ask("POST", "/v1/messages", &messages.to_string()).unwrap();
        assert_eq!(answer.status, 200, "enqueue: {}", String::from_utf8_lossy(&answer.body));
        let json = answer.json();
        let one = |v: &Value| v["id"].as_str().unwrap().to_owned();
        json.as_array().map_or_else(|| vec![one(&json)], |all| all.iter().map(one).collect())
    }
}
