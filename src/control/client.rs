//! The client of the control API that every command uses.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::api::{Error, ErrorKind};
use super::route::Method;

/// Where the socket is when nobody says otherwise.
pub use crate::config::DEFAULT_SOCKET;

/// Longest answer that is taken, and longest line of a stream, in bytes: more is not taskd.
const MAX_ANSWER: usize = 256 << 20;
const MAX_LINE: usize = 16 << 20;

/// Between two questions to a daemon that is ending.
const ENDING: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket is there.
    #[error("not running: there is no socket {}", .0.display())]
    NoSocket(PathBuf),
    /// A socket is there, nobody listens.
    #[error("not running: nobody listens on {}", .0.display())]
    NotListening(PathBuf),
    /// The socket may not be used.
    #[error("no permission to connect to {}", .0.display())]
    Denied(PathBuf),
    /// connect(2) failed otherwise.
    #[error("cannot connect to {}: {source}", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The connection ended before the answer did; whether it took effect is not known.
    #[error("the connection to taskd broke before the answer came ({0})")]
    Broken(String),
    /// taskd answered with an error.
    #[error(transparent)]
    Api(#[from] Error),
    /// What answered is not taskd, or not this version.
    #[error("the answer cannot be understood: {0}")]
    Strange(String),
}

impl ClientError {
    /// The exit code of a command that ends with this.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NoSocket(_) | Self::NotListening(_) | Self::Connect { .. } => 69,
            Self::Denied(_) => 77,
            Self::Timeout(_) | Self::Broken(_) => 75,
            Self::Api(error) => error.kind.exit_code(),
            Self::Strange(_) => 76,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSocket(_) | Self::NotListening(_) => Some(
                "start it with `systemctl start taskd` or `taskd run`; --socket or $TASKD_SOCKET names \
                 another socket"
                    .to_owned(),
            ),
            Self::Denied(_) => Some("the directory or the socket is closed to this user".to_owned()),
            Self::Timeout(_) => Some("--timeout sets another bound".to_owned()),
            Self::Broken(_) => Some("`taskd status` says whether it is there again".to_owned()),
            Self::Strange(_) => {
                Some("is the daemon of another version, or the socket not taskd's?".to_owned())
            }
            Self::Connect { .. } => None,
            Self::Api(error) => error.hint.clone(),
        }
    }

    /// Whether a new connection may help: the daemon is being replaced.
    const fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    /// Whether a daemon that is ending said so: the next one answers.
    fn is_ending(&self) -> bool {
        matches!(self, Self::Api(error) if error.kind == ErrorKind::Stopping)
    }
}

/// A connection to taskd, made at the first call and again after it broke.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
    listener: Option<i32>,
}

impl Client {
    /// A client of this socket that waits at most `timeout` for each answer.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { socket: socket.into(), timeout, sender: None, listener: None }
    }

    /// The bound of each answer.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Process id of who made the socket (the launcher, or systemd), once connected.
    #[must_use]
    pub const fn listener(&self) -> Option<i32> {
        self.listener
    }

    /// Asks and reads the answer. A GET is asked once more on a new connection when the first one broke,
    /// as is a POST with `repeatable`: one that carries ids, so that its repeat is answered with what is
    /// there. From a daemon that says that it is ending, either goes to the next one, for as long as somebody holds
    /// the socket (systemd does over a restart) and an answer is waited for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        repeatable: bool,
    ) -> Result<T, ClientError> {
        let text = self.text(method, path, body, repeatable, Duration::ZERO).await?;
        serde_json::from_slice(&text).map_err(|e| ClientError::Strange(e.to_string()))
    }

    /// The same, with the answer as JSON text, for an answer that the daemon itself delays by up to `delay`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        repeatable: bool,
        delay: Duration,
    ) -> Result<Bytes, ClientError> {
        let bound = self.timeout.saturating_add(delay);
        let deadline = Instant::now() + bound;
        let asking = async {
            let again = repeatable || method == Method::Get;
            let mut broken = false;
            loop {
                match self.exchange(method, path, body.clone()).await {
                    Err(e) if e.is_broken() && again && !broken => broken = true,
                    Err(e) if e.is_ending() && again => {
                        self.sender = None;
                        tokio::time::sleep(ENDING).await;
                    }
                    other => return other,
                }
            }
        };
        let answer = timeout_at(deadline, asking).await;
        answer.unwrap_or_else(|_| {
            self.sender = None;
            Err(ClientError::Timeout(bound))
        })
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, ClientError> {
        let response = self.send(method, path, body).await?;
        let good = response.status().is_success();
        let status = response.status();
        let text = match http_body_util::Limited::new(response.into_body(), MAX_ANSWER).collect().await {
            Ok(text) => text.to_bytes(),
            Err(e) => {
                self.sender = None;
                return Err(ClientError::Broken(e.to_string()));
            }
        };
        if good {
            return Ok(text);
        }
        Err(serde_json::from_slice(&text)
            .map_or_else(|_| ClientError::Strange(format!("HTTP status {status}")), ClientError::Api))
    }

    /// Asks for a stream of lines (GET only). The head of the answer has the bound of every answer; each
    /// line has none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&mut self, path: &str) -> Result<Lines, ClientError> {
        let bound = self.timeout;
        let asking = async {
            let response = match self.send(Method::Get, path, None).await {
                Err(e) if e.is_broken() => self.send(Method::Get, path, None).await?,
                other => other?,
            };
            if response.status().is_success() {
                return Ok(Lines { body: response.into_body(), buffer: Vec::new(), scanned: 0 });
            }
            let status = response.status();
            let text = response.into_body().collect().await;
            let text = text.map_err(|e| ClientError::Broken(e.to_string()))?.to_bytes();
            Err(serde_json::from_slice(&text)
                .map_or_else(|_| ClientError::Strange(format!("HTTP status {status}")), ClientError::Api))
        };
        let answer = tokio::time::timeout(bound, asking).await;
        // The stream occupies this connection to its end; the next call makes a new one.
        self.sender = None;
        answer.unwrap_or(Err(ClientError::Timeout(bound)))
    }

    /// Waits until the daemon ends this connection; at once without one.
    pub async fn wait_closed(&mut self) {
        let Some(sender) = self.sender.take() else { return };
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut sender = match self.sender.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let uri: Uri = path.parse().map_err(|_| {
            Error::new(ErrorKind::BadRequest, format!("{path:?} is not a path that can be asked for"))
        })?;
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.uri_mut() = uri;
        *request.method_mut() = match method {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
        };
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("taskd"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let broken = |e: hyper::Error| {
            if e.is_parse() {
                ClientError::Strange(e.to_string())
            } else {
                ClientError::Broken(e.to_string())
            }
        };
        sender.ready().await.map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        self.sender = Some(sender);
        Ok(response)
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = dial(&self.socket).await?;
        self.listener = stream.peer_cred().ok().and_then(|c| c.pid());
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| ClientError::Broken(e.to_string()))?;
        tokio::spawn(async move {
            // Its end shows at the sender.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// connect(2); a full backlog (the daemon is being replaced) is waited out, the caller has the deadline.
async fn dial(socket: &Path) -> Result<UnixStream, ClientError> {
    loop {
        let source = match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::WouldBlock => tokio::time::sleep(Duration::from_millis(5)).await,
            io::ErrorKind::NotFound => return Err(ClientError::NoSocket(socket)),
            io::ErrorKind::ConnectionRefused => return Err(ClientError::NotListening(socket)),
            io::ErrorKind::PermissionDenied => return Err(ClientError::Denied(socket)),
            _ => return Err(ClientError::Connect { socket, source }),
        }
    }
}

/// A streamed answer, line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no newline.
    scanned: usize,
}

impl Lines {
    /// The next line, without its newline; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the stream broke off, [`ClientError::Strange`] when it is no text of lines.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(self.scanned + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.scanned = 0;
                return text_of(line).map(Some);
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::Strange(format!("a line of more than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => return Err(ClientError::Broken(e.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.scanned = 0;
                    return text_of(std::mem::take(&mut self.buffer)).map(Some);
                }
            }
        }
    }
}

fn text_of(line: Vec<u8>) -> Result<String, ClientError> {
    /// The line that ends a stream which is not whole.
    #[derive(serde::Deserialize)]
    struct BrokenOff {
        error: Error,
    }
    if line.starts_with(b"{\"error\":")
        && let Ok(BrokenOff { error }) = serde_json::from_slice(&line)
    {
        return Err(ClientError::Api(error));
    }
    String::from_utf8(line).map_err(|_| ClientError::Strange("a line that is not UTF-8".to_owned()))
}
