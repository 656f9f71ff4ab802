//! The client: what it says when something is wrong, and when it asks again.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hyper::body::Bytes;
use taskd::control::api::{Answer, Error, ErrorKind, StatusView};
use taskd::control::client::{Client, ClientError};
use taskd::control::route::Method;
use taskd::control::server::Limits;

use crate::fake::Fake;

const LONG: Duration = Duration::from_secs(20);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ask(socket: &Path, timeout: Duration) -> Result<Bytes, ClientError> {
    let mut client = Client::new(socket, timeout);
    block_on(client.text(Method::Get, "/v1/status", None, true, Duration::ZERO))
}

/// A socket whose n-th connection is treated by `each(n, request, stream)`; the requests come out.
fn listen(
    each: impl Fn(usize, &mut UnixStream) + Send + 'static,
) -> (tempfile::TempDir, PathBuf, mpsc::Receiver<String>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (sent, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap_or(0) > 0 {}
            let length = request.lines().find_map(|l| l.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            request.push_str(&String::from_utf8(body).unwrap());
            if sent.send(request).is_err() {
                return;
            }
            each(n, &mut stream);
        }
    });
    (dir, socket, requests)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";

#[test]
fn a_daemon_that_is_not_there_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let e = ask(&none, LONG).unwrap_err();
    assert!(matches!(e, ClientError::NoSocket(_)), "{e:?}");
    assert!(e.to_string().contains("not running") && e.hint().unwrap().contains("systemctl start taskd"));

    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let e = ask(&dead, LONG).unwrap_err();
    assert!(matches!(e, ClientError::NotListening(_)), "{e:?}");

    let e = ask(&dir.path().join("x".repeat(200)), LONG).unwrap_err();
    assert!(matches!(e, ClientError::Connect { .. }), "{e:?}");

    let e = ask(dir.path(), LONG).unwrap_err();
    assert!(matches!(e, ClientError::NotListening(_) | ClientError::Connect { .. }), "{e:?}");
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let (held, holds) = mpsc::channel();
    let fake = Fake::start_calls(Limits::default(), move |call| held.send(call).unwrap());
    let e = ask(&fake.socket, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(e, ClientError::Timeout(_)), "{e:?}");
    assert!(e.to_string().contains("100ms"), "{e}");
    drop(holds);
}

#[test]
fn a_full_backlog_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    // As many as it takes, of a daemon that does not accept.
    let mut waiting = Vec::new();
    loop {
        let fd = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap();
        let address = nix::sys::socket::UnixAddr::new(&socket).unwrap();
        match nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => waiting.push(fd),
            Err(e) => {
                assert_eq!(e, nix::errno::Errno::EAGAIN);
                break;
            }
        }
    }
    assert!(matches!(ask(&socket, Duration::from_millis(100)), Err(ClientError::Timeout(_))));
    let accepting = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            if line == "\r\n" {
                stream.write_all(OK).unwrap();
                return;
            }
        }
    });
    drop(waiting);
    assert_eq!(ask(&socket, LONG).unwrap(), "[]");
    accepting.join().unwrap();
}

#[test]
fn what_may_be_repeated_is_repeated_once_with_the_same_words() {
    let (_dir, socket, requests) = listen(|n, stream| {
        if n > 0 {
            stream.write_all(OK).unwrap();
        }
    });
    let mut client = Client::new(&socket, LONG);
    let body = Bytes::from_static(b"{\"task\":\"t\",\"id\":\"one\"}");
    let answer: Vec<u8> = block_on(client.call(Method::Post, "/v1/messages", Some(body), true)).unwrap();
    assert!(answer.is_empty());
    let (first, second) = (requests.recv().unwrap(), requests.recv().unwrap());
    assert!(first.contains("\"id\":\"one\""), "{first}");
    assert_eq!(first, second);
}

#[test]
fn a_daemon_that_is_ending_sends_to_the_next_one() {
    let body = serde_json::to_string(&Error::new(ErrorKind::Stopping, "taskd is stopping")).unwrap();
    let (_dir, socket, requests) = listen(move |n, stream| {
        let head = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = if n < 3 { format!("{head}{body}").into_bytes() } else { OK.to_vec() };
        stream.write_all(&answer).unwrap();
    });
    let mut client = Client::new(&socket, LONG);
    let body = Bytes::from_static(b"{\"task\":\"t\",\"id\":\"one\"}");
    let answer: Vec<u8> = block_on(client.call(Method::Post, "/v1/messages", Some(body), true)).unwrap();
    assert!(answer.is_empty());
    let asked: Vec<String> = requests.try_iter().collect();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|r| *r == asked[0]), "the same words on each connection");
}

#[test]
fn a_daemon_that_is_ending_is_not_told_twice_what_has_no_id() {
    let body = serde_json::to_string(&Error::new(ErrorKind::Stopping, "taskd is stopping")).unwrap();
    let (_dir, socket, requests) = listen(move |_, stream| {
        let head = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    });
    let mut client = Client::new(&socket, LONG);
    let e = block_on(client.call::<()>(Method::Post, "/v1/stop", None, false)).unwrap_err();
    assert!(matches!(e, ClientError::Api(_)), "{e:?}");
    drop(client);
    assert_eq!(requests.try_iter().count(), 1);
}

#[test]
fn what_may_not_be_repeated_is_not_and_nothing_is_repeated_twice() {
    let (_dir, socket, requests) = listen(|_, _| {});
    let mut client = Client::new(&socket, LONG);
    let e = block_on(client.call::<()>(Method::Post, "/v1/stop", None, false)).unwrap_err();
    assert!(matches!(e, ClientError::Broken(_)), "{e:?}");
    let e = block_on(client.call::<()>(Method::Get, "/v1/status", None, false)).unwrap_err();
    assert!(matches!(e, ClientError::Broken(_)), "{e:?}");
    drop(client);
    assert_eq!(requests.try_iter().count(), 3);
}

#[test]
fn who_does_not_speak_http_or_json_is_not_taskd() {
    for answer in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops",
    ] {
        let (_dir, socket, _requests) = listen(move |_, stream| stream.write_all(answer).unwrap());
        let mut client = Client::new(&socket, LONG);
        let e = block_on(client.call::<StatusView>(Method::Get, "/v1/status", None, true)).unwrap_err();
        assert!(matches!(e, ClientError::Strange(_)), "{e:?}");
        assert_eq!(e.exit_code(), 76);
    }
}

#[test]
fn an_error_of_the_daemon_comes_whole() {
    let error = Error {
        kind: ErrorKind::UnknownTask,
        message: "no task mial".into(),
        details: vec!["a".into()],
        hint: Some("did you mean mail?".into()),
    };
    let sent = error.clone();
    let fake = Fake::start(Limits::default(), move |_| Some(Answer::Error(sent.clone())));
    let Err(ClientError::Api(got)) = ask(&fake.socket, LONG) else { panic!("no error") };
    assert_eq!(got, error);
}

/// The lines of a stream up to its end or its error.
fn lines_of(socket: &Path) -> (Vec<String>, Option<ClientError>) {
    block_on(async {
        let mut client = Client::new(socket, LONG);
        let mut lines = client.lines("/v1/store/export").await.unwrap();
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => all.push(line),
                Ok(None) => return (all, None),
                Err(e) => return (all, Some(e)),
            }
        }
    })
}

#[test]
fn lines_are_lines_however_they_are_cut() {
    let (_dir, socket, _requests) = listen(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for chunk in ["one\ntw", "o", "\n\n", "three\nfour"] {
            stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let (lines, e) = lines_of(&socket);
    assert!(e.is_none(), "{e:?}");
    assert_eq!(lines, ["one", "two", "", "three", "four"]);
}

#[test]
fn a_stream_that_breaks_off_is_not_taken_for_its_end() {
    let (_dir, socket, _requests) = listen(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n").unwrap();
    });
    let (lines, e) = lines_of(&socket);
    assert_eq!(lines, ["one"]);
    assert!(matches!(e, Some(ClientError::Broken(_))), "{e:?}");
}

#[test]
fn a_stream_can_end_with_an_error() {
    let fake = Fake::start(Limits::default(), |_| {
        let (lines, stream) = tokio::sync::mpsc::channel(4);
        let error = Error::new(ErrorKind::Unavailable, "the store went away");
        lines.try_send("{\"v\":1}".into()).unwrap();
        lines.try_send(format!("{{\"error\":{}}}\n", serde_json::to_string(&error).unwrap())).unwrap();
        Some(Answer::Stream(stream))
    });
    let (lines, e) = lines_of(&fake.socket);
    assert_eq!(lines, ["{\"v\":1}"]);
    assert!(matches!(e, Some(ClientError::Api(e)) if e.message == "the store went away"));
}

#[test]
fn the_end_of_the_daemon_is_seen() {
    let mut fake = Fake::start(Limits::default(), |_| Some(Answer::Json("null".into())));
    block_on(async {
        let mut client = Client::new(&fake.socket, LONG);
        client.call::<()>(Method::Post, "/v1/stop", None, false).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), client.wait_closed()).await;
        assert!(early.is_err(), "it is still there");
    });
    block_on(async {
        let mut client = Client::new(&fake.socket, LONG);
        client.call::<()>(Method::Post, "/v1/stop", None, false).await.unwrap();
        assert_eq!(client.listener(), i32::try_from(std::process::id()).ok());
        fake.stop();
        tokio::time::timeout(LONG, client.wait_closed()).await.expect("its end is not seen");
    });
}
