//! Opening a connection: to a server, or to the one that the sentinels name.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use redis::{ConnectionLike, Value};

use super::connection::Connection;
use super::error::LinkError;
use super::fault::{Fault, Reason, classify, of_io, of_server};
use super::wire::{Socket, Wire};
use super::{Address, tls};
use crate::config::Secrets;
use crate::config::redis::{Hidden, Password, Place};

/// Longest file of a password, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// A sentinel that does not answer must not use up the time of the next one.
const SENTINEL_PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To come about, with TLS and the password; behind sentinels again for each server that is asked.
    pub connect: Duration,
    /// For each answer, and each command on its way.
    pub reply: Duration,
}

impl Timeouts {
    /// 3 s to connect and 5 s for an answer, where the address says nothing else.
    #[must_use]
    pub fn of(address: &Address) -> Self {
        Self {
            connect: address.connect.unwrap_or(Duration::from_secs(3)),
            reply: address.reply.unwrap_or(Duration::from_secs(5)),
        }
    }
}

/// Opens a connection that speaks RESP3, is in the address's database and is called `taskd-NODE` in `CLIENT LIST`. The
/// credentials of the address must have been resolved. Sentinels are asked anew each time, and the server that they
/// name is asked whether it is the master.
///
/// # Errors
/// Why there is none; [`LinkError::ask`] says what to do.
pub fn open(address: &Address, timeouts: Timeouts, node: &str) -> Result<Connection, LinkError> {
    let shown = address.shown();
    let because = |fault: Fault| LinkError::new(shown, fault);
    let password = password(&address.password).map_err(because)?;
    let login = Login { user: address.user.as_deref(), password: password.as_deref() };
    match &address.place {
        Place::Tcp { host, port } => {
            let mut found = dial(address, host, *port, timeouts, shown)?;
            greet(&mut found, &login, address.db, node)?;
            Ok(found)
        }
        Place::Unix(path) => {
            let socket = Socket::unix(path, Instant::now() + timeouts.connect);
            let socket = socket.map_err(|e| because(refused(&e)))?;
            let mut found = Connection::new(Wire::Plain(socket), timeouts.reply, shown.to_owned());
            greet(&mut found, &login, address.db, node)?;
            Ok(found)
        }
        Place::Sentinel { sentinels, master, user, password } => {
            let theirs = password.as_ref().map(hidden).transpose().map_err(because)?;
            let theirs = Login { user: user.as_deref(), password: theirs.as_deref() };
            let ask = Timeouts {
                connect: timeouts.connect.min(SENTINEL_PATIENCE),
                reply: timeouts.reply.min(SENTINEL_PATIENCE),
            };
            let mut said = Vec::new();
            for (host, port) in sentinels {
                match ask_sentinel(address, host, *port, ask, &theirs, master) {
                    Ok((host, port)) => {
                        let shown = format!("{shown} (now {host}:{port})");
                        let mut found = dial(address, &host, port, timeouts, &shown)?;
                        greet(&mut found, &login, address.db, node)?;
                        is_master(&mut found)?;
                        return Ok(found);
                    }
                    Err(why) => said.push(format!("{host}:{port}: {why}")),
                }
            }
            Err(because(Fault::new(Reason::NoMaster, said.join("; "))))
        }
    }
}

/// Who to be.
struct Login<'a> {
    user: Option<&'a str>,
    password: Option<&'a str>,
}

/// The password of this address, read now where it is a file's.
///
/// # Errors
/// A sentence, without it.
pub fn password_of(address: &Address) -> Result<Option<String>, String> {
    password(&address.password).map_err(|fault| fault.to_string())
}

fn password(password: &Password) -> Result<Option<String>, Fault> {
    match password {
        Password::None => Ok(None),
        Password::Written(written) => hidden(written).map(Some),
        Password::File(file) => {
            let said = |why: String| Fault::new(Reason::Password, format!("{}: {why}", file.display()));
            read(file).map_err(said).map(Some)
        }
    }
}

fn hidden(hidden: &Hidden) -> Result<String, Fault> {
    hidden.expose(&Secrets::default()).map_err(|why| Fault::new(Reason::Password, why))
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(file).map_err(|e| e.to_string())?;
    if !opened.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    opened.take(MAX_PASSWORD + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err("it is larger than 64 KiB".to_owned());
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A failure to connect: a refusal is another thing than a loss.
fn refused(error: &std::io::Error) -> Fault {
    match error.kind() {
        ErrorKind::TimedOut => Fault::new(Reason::Unreachable, "it did not answer in time"),
        _ => Fault::new(Reason::Unreachable, error.to_string()),
    }
}

/// A connection over TCP, with TLS where the address says so, on which nothing was said yet.
fn dial(
    address: &Address,
    host: &str,
    port: u16,
    timeouts: Timeouts,
    shown: &str,
) -> Result<Connection, LinkError> {
    let because = |fault: Fault| LinkError::new(shown, fault);
    let until = Instant::now() + timeouts.connect;
    let socket = Socket::tcp(host, port, until).map_err(|e| because(refused(&e)))?;
    let wire = match &address.tls {
        None => Wire::Plain(socket),
        Some(tls) => {
            let session = tls::session(tls, host).map_err(because)?;
            Wire::tls(session, socket).map_err(|e| {
                let fault = of_io(&e);
                because(match fault.reason {
                    // A server without TLS waits for a whole line, closes, or answers with an error that is no TLS.
                    Reason::Silent => {
                        Fault::new(Reason::Silent, "no answer to the beginning of TLS: is it spoken there?")
                    }
                    Reason::Lost => Fault::new(Reason::Tls, fault.said),
                    _ => fault,
                })
            })?
        }
    };
    Ok(Connection::new(wire, timeouts.reply, shown.to_owned()))
}

/// What the first answer on a connection means.
fn greeting(connection: &Connection, value: redis::RedisResult<Value>) -> Result<Value, LinkError> {
    let because = |fault: Fault| LinkError::new(connection.server(), fault);
    match value {
        Err(error) => Err(because(classify(&error))),
        Ok(Value::ServerError(error)) => {
            let (code, said) = (error.code(), error.details().unwrap_or_default());
            Err(because(if said.contains("unknown command") {
                Fault::new(Reason::Version, format!("{code} {said}"))
            } else {
                of_server(code, said)
            }))
        }
        Ok(value) => Ok(value),
    }
}

/// RESP3, the user, the name and the database, in one round trip.
fn greet(connection: &mut Connection, login: &Login<'_>, db: u32, node: &str) -> Result<(), LinkError> {
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    if let Some(password) = login.password {
        hello.arg("AUTH").arg(login.user.unwrap_or("default")).arg(password);
    }
    hello.arg("SETNAME").arg(client_name(node));
    let mut packed = hello.get_packed_command();
    if db != 0 {
        packed.extend(redis::cmd("SELECT").arg(db).get_packed_command());
    }
    let sent = connection.send_packed_command(&packed).map(|()| Value::Nil);
    greeting(connection, sent)?;
    let hello = connection.recv_response();
    greeting(connection, hello)?;
    if db != 0 {
        let selected = connection.recv_response();
        greeting(connection, selected)?;
        connection.selected(db);
    }
    Ok(())
}

/// `taskd-NODE`, without what a client's name may not hold.
fn client_name(node: &str) -> String {
    let good = |c: char| if c.is_ascii_graphic() { c } else { '-' };
    format!("taskd-{}", node.chars().map(good).collect::<String>())
}

/// Asks a sentinel where the master is.
fn ask_sentinel(
    address: &Address,
    host: &str,
    port: u16,
    timeouts: Timeouts,
    login: &Login<'_>,
    master: &str,
) -> Result<(String, u16), Fault> {
    let mut sentinel = dial(address, host, port, timeouts, address.shown()).map_err(|e| e.fault)?;
    let mut ask = |command: &redis::Cmd| {
        let value = sentinel.req_command(command);
        greeting(&sentinel, value).map_err(|e| e.fault)
    };
    if let Some(password) = login.password {
        let mut auth = redis::cmd("AUTH");
        login.user.map(|user| auth.arg(user));
        ask(auth.arg(password))?;
    }
    let value = ask(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master))?;
    match redis::from_redis_value::<Option<(String, u16)>>(value) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Fault::new(Reason::NoMaster, format!("it knows no master {master:?}"))),
        Err(error) => Err(Fault::new(Reason::NoMaster, error.to_string())),
    }
}

/// Whether the server that a sentinel named takes itself for the master.
fn is_master(connection: &mut Connection) -> Result<(), LinkError> {
    let value = connection.req_command(&redis::cmd("ROLE"));
    let role = match greeting(connection, value)? {
        Value::Array(parts) => {
            parts.into_iter().next().and_then(|v| redis::from_redis_value::<String>(v).ok())
        }
        _ => None,
    };
    match role.as_deref() {
        Some("master") => Ok(()),
        role => Err(LinkError::because(
            connection.server(),
            Reason::NoMaster,
            format!("it says of itself that it is {}", role.unwrap_or("nothing")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_hold_nothing_that_a_server_refuses() {
        assert_eq!(client_name("web1"), "taskd-web1");
        assert_eq!(client_name("a b\né"), "taskd-a-b--");
    }

    #[test]
    fn a_password_is_a_files_text_without_its_newline() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        for (text, wanted) in
            [("hunter2\n", Ok("hunter2")), ("a\n\n", Ok("a\n")), ("\n", Err(())), ("", Err(()))]
        {
            std::fs::write(&file, text).unwrap();
            let got = password(&Password::File(file.clone()));
            assert_eq!(got.as_ref().map(|p| p.as_deref().unwrap()).map_err(|_| ()), wanted, "{text:?}");
        }
        std::fs::write(&file, vec![b'x'; 65_537]).unwrap();
        assert!(password(&Password::File(file)).unwrap_err().said.contains("64 KiB"));
        let gone = password(&Password::File(dir.path().join("gone"))).unwrap_err();
        assert!(gone.said.contains("gone") && gone.reason == Reason::Password, "{gone}");
        assert!(password(&Password::File(dir.path().to_owned())).is_err());
    }
}
