//! One connection: from an HTTP request to a [`Call`], and from its [`Answer`] to an HTTP response.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::api::{self, Answer, Call, Error, ErrorKind, Peer};
use super::route::{self, Found};
use super::route_input;
use super::server::Shared;
use super::server_io::{Calling, Phase, Watched};
use crate::link::stream::Stream;

/// Largest head of a request, in bytes: paths, queries and the few headers of a client.
const HEAD_BYTES: usize = 16 << 10;

/// A server that stops waits so long for the first request of a peer that has connected just before; less
/// than the time for all answers under way.
const FIRST: Duration = Duration::from_secs(1);

/// Most lines that are put into one chunk of a streamed answer, in bytes.
const CHUNK: usize = 64 << 10;

/// One connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    peer: Peer,
    /// Every request gets this: the peer has no place here.
    refusal: Option<Error>,
    phase: Phase,
}

/// A request that gets an error, and the status where the error's kind does not say it.
struct Refused {
    status: Option<StatusCode>,
    error: Error,
    /// What follows in the stream cannot be trusted to be a request.
    close: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { status: None, error, close: false }
    }
}

fn ending() -> Refused {
    Error::new(ErrorKind::Stopping, "taskd is starting or stopping and cannot answer this now")
        .hint("try again")
        .into()
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, peer: Peer, refusal: Option<Error>) -> Arc<Self> {
        Arc::new(Self { shared, peer, refusal, phase: Phase::new() })
    }

    /// Serves it until the peer or a deadline ends it, or (after the answer under way) `closing` says so.
    pub(super) async fn serve(self: Arc<Self>, stream: Stream, mut closing: watch::Receiver<bool>) {
        let io = TokioIo::new(Watched::new(stream, self.phase.clone(), self.shared.limits.clone()));
        let keep_alive = self.refusal.is_none();
        let phase = self.phase.clone();
        let service = service_fn(move |request| {
            let connection = Arc::clone(&self);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .auto_date_header(false)
                // The socket has deadlines of its own, for idle time too.
                .header_read_timeout(None)
                .max_buf_size(HEAD_BYTES)
                .keep_alive(keep_alive)
                .serve_connection(io, service)
        );
        // How a connection ends (closed, reset, timed out, not HTTP) is its peer's affair. What it sent already
        // is read first.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = closing.wait_for(|closing| *closing) => {}
        }
        // hyper would close a connection on which nothing came yet, and its peer, whom the kernel has told
        // that somebody listens, would be refused.
        let until = Instant::now() + FIRST;
        while phase.is_head() && Instant::now() < until {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = sleep(FIRST / 100) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Text> {
        let mut calling = self.phase.call();
        let answer = match &self.refusal {
            Some(error) => Err(Refused { status: None, error: error.clone(), close: true }),
            None => self.call(request, &mut calling).await,
        };
        match answer {
            Ok(Answer::Json(json)) => response(StatusCode::OK, Content::whole(json), calling),
            Ok(Answer::Stream(lines)) => {
                let mut response = response(StatusCode::OK, Content::Lines(lines), calling);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
                response
            }
            Ok(Answer::Error(error)) => refuse(error.into(), calling),
            Err(refused) => refuse(refused, calling),
        }
    }

    async fn call(&self, request: Request<Incoming>, calling: &mut Calling) -> Result<Answer, Refused> {
        let (head, body) = request.into_parts();
        // An error before the body has been read leaves it in the stream.
        let close = !body.is_end_stream();
        let (route, capture) = match route::find(head.method.as_str(), head.uri.path()) {
            Found::Route(route, capture) => (route, capture),
            Found::OtherMethod => {
                return Err(Refused {
                    status: Some(StatusCode::METHOD_NOT_ALLOWED),
                    error: Error::new(
                        ErrorKind::BadRequest,
                        format!("{} does not take {}", head.uri.path(), head.method),
                    ),
                    close,
                });
            }
            Found::Nothing => {
                return Err(Refused {
                    status: Some(StatusCode::NOT_FOUND),
                    error: Error::new(ErrorKind::BadRequest, "nothing is served at this path")
                        .hint("taskd openapi prints what there is"),
                    close,
                });
            }
        };
        let rights = {
            let policy = self.shared.policy.borrow();
            let rights = policy.rights(&self.peer);
            if !route.need.permits(&policy, &self.peer, &rights) {
                return Err(Refused { status: None, error: route.forbidden(&self.peer), close });
            }
            rights
        };
        let held;
        let bytes = match &route.body {
            Some(b) => {
                held = self.body(body, b.limit).await?;
                held.as_slice()
            }
            None => &[],
        };
        let asked = route.request(capture, head.uri.query().unwrap_or(""), bytes)?;
        if matches!(asked, api::Request::Stop { .. }) {
            calling.keep();
        }
        let (answer, answered) = oneshot::channel();
        let call = Call { request: asked, peer: self.peer.clone(), rights, answer };
        self.shared.calls.send(call).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())
    }

    /// The whole body, within its bounds of size and time.
    async fn body(&self, body: Incoming, limit: usize) -> Result<Held, Refused> {
        let too_large = || Refused { status: None, error: route_input::too_large(limit), close: true };
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let read = async {
            let mut body = body;
            let mut held = Held { bytes: Joined::None, size: 0, sum: Arc::clone(&self.shared.bodies) };
            while let Some(frame) = body.frame().await {
                let broken = |_| Refused {
                    status: None,
                    error: Error::new(ErrorKind::BadRequest, "the body of the request broke off"),
                    close: true,
                };
                // Trailers carry nothing that is asked for.
                let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
                if held.size + data.len() > limit {
                    return Err(too_large());
                }
                held.add(data, self.shared.limits.bodies)?;
            }
            Ok(held)
        };
        // The timer is touched only when the body does not come with the head.
        tokio::time::timeout(self.shared.limits.body, read).await.unwrap_or_else(|_| {
            Err(Refused {
                status: Some(StatusCode::REQUEST_TIMEOUT),
                error: Error::new(ErrorKind::BadRequest, "the body of the request did not come in time"),
                close: true,
            })
        })
    }
}

/// A body in memory, counted in the sum of all.
struct Held {
    bytes: Joined,
    size: usize,
    sum: Arc<Mutex<usize>>,
}

/// A body that came in one piece is not copied.
enum Joined {
    None,
    One(Bytes),
    Many(Vec<u8>),
}

impl Held {
    fn add(&mut self, data: Bytes, most: usize) -> Result<(), Refused> {
        {
            let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
            if *sum + data.len() > most {
                return Err(Refused {
                    status: None,
                    error: Error::new(ErrorKind::Unavailable, "too many large requests are under way")
                        .hint("try again"),
                    close: true,
                });
            }
            *sum += data.len();
        }
        self.size += data.len();
        self.bytes = match std::mem::replace(&mut self.bytes, Joined::None) {
            Joined::None => Joined::One(data),
            Joined::One(first) => {
                let mut all = Vec::with_capacity((first.len() + data.len()) * 2);
                all.extend_from_slice(&first);
                all.extend_from_slice(&data);
                Joined::Many(all)
            }
            Joined::Many(mut all) => {
                all.extend_from_slice(&data);
                Joined::Many(all)
            }
        };
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Joined::None => &[],
            Joined::One(bytes) => bytes,
            Joined::Many(bytes) => bytes,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.saturating_sub(self.size);
    }
}

fn response(status: StatusCode, content: Content, calling: Calling) -> Response<Text> {
    let mut response = Response::new(Text { content, _calling: calling });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(refused: Refused, calling: Calling) -> Response<Text> {
    let Refused { status, error, close } = refused;
    let status = status
        .or_else(|| StatusCode::from_u16(error.kind.status()).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // An error is strings only: it always has a JSON text.
    let json = serde_json::to_string(&error).unwrap_or_default();
    let mut response = response(status, Content::whole(json), calling);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of a response; its end is the end of the call.
struct Text {
    content: Content,
    _calling: Calling,
}

enum Content {
    Whole(Option<Bytes>),
    Lines(mpsc::Receiver<String>),
}

impl Content {
    fn whole(text: String) -> Self {
        Self::Whole(Some(Bytes::from(text)))
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.get_mut().content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Lines(lines) => {
                // Lines that are there already travel together.
                let mut chunk = String::new();
                loop {
                    match lines.poll_recv(cx) {
                        Poll::Ready(Some(line)) if chunk.is_empty() => chunk = line,
                        Poll::Ready(Some(line)) => chunk.push_str(&line),
                        Poll::Ready(None) if chunk.is_empty() => return Poll::Ready(None),
                        Poll::Pending if chunk.is_empty() => return Poll::Pending,
                        Poll::Ready(None) | Poll::Pending => break,
                    }
                    if !chunk.ends_with('\n') {
                        chunk.push('\n');
                    }
                    if chunk.len() >= CHUNK {
                        break;
                    }
                }
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Lines(_) => SizeHint::default(),
        }
    }
}
