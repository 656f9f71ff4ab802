//! The listening control socket: taken over from systemd (`taskd.socket`) or bound here, and kept open over
//! replacements of the daemon so that clients wait in its backlog instead of failing.
#![allow(unsafe_code)]

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockType, getsockopt, sockopt};

/// Longest path of a unix socket on Linux: `sun_path` holds 108 bytes, one of them the ending NUL.
pub const MAX_PATH: usize = 107;

/// A taskd that was killed may listen this much longer: a process that ends gives its files back last, when
/// it cannot be told any more whose it was.
const DYING: Duration = Duration::from_millis(500);

/// The listening socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    /// Path, device and inode of what was bound here; removed at the end if it is still that.
    bound: Option<(PathBuf, u64, u64)>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// The path does not fit into an address.
    #[error("the socket path {path} has {length} bytes, Linux allows {MAX_PATH}; set a shorter `socket`")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Somebody answers there.
    #[error("another process listens on {0}; stop it or set another `socket`")]
    InUse(PathBuf),
    /// Something that is no socket lies there.
    #[error("{0} exists and is not a socket; remove it or set another `socket`")]
    NotASocket(PathBuf),
    /// Its directory is not there and cannot be made.
    #[error("cannot create the directory {path}: {source}; make it, or set another `socket`")]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What systemd passed is of no use.
    #[error("systemd passed {0}; taskd.socket must have one ListenStream= with a path, Accept=no")]
    Passed(String),
}

impl ListenFault {
    /// Whether it can pass without a change of the config: somebody else has the path for now.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::InUse(_) => true,
            Self::System { source, .. } => source.kind() == ErrorKind::AddrInUse,
            _ => false,
        }
    }
}

impl ControlSocket {
    /// Takes the socket that systemd passed, or binds this path (mode 0666: who may do what is decided by
    /// peer credentials, not by the file's mode).
    ///
    /// # Errors
    /// See [`ListenFault`].
    pub fn open(path: &Path) -> Result<Self, ListenFault> {
        if let Some(listener) = passed()? {
            return Ok(Self { listener, bound: None });
        }
        bind(path)
    }

    /// One that an earlier program of this process opened, with what [`ControlSocket::bound`] said there.
    #[must_use]
    pub fn taken_over(listener: OwnedFd, bound: Option<(PathBuf, u64, u64)>) -> Self {
        Self { listener: listener.into(), bound }
    }

    /// Path, device and inode of the socket's file; none where systemd holds it too.
    #[must_use]
    pub fn bound(&self) -> Option<&(PathBuf, u64, u64)> {
        self.bound.as_ref()
    }

    /// The path clients connect to, as the kernel knows it.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
    }

    /// Whether systemd holds it too.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.bound.is_none()
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let Some((path, device, inode)) = &self.bound else { return };
        // A later taskd may have bound the same path: its socket stays.
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.dev() == *device && m.ino() == *inode) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Checks the protocol of sd_listen_fds(3): exactly one listening stream socket of the unix family.
fn passed() -> Result<Option<UnixListener>, ListenFault> {
    let mut numbers = sd_notify::listen_fds().map_err(|e| ListenFault::Passed(e.to_string()))?;
    let Some(number) = numbers.next() else { return Ok(None) };
    if numbers.len() > 0 {
        return Err(ListenFault::Passed(format!("{} sockets", numbers.len() + 1)));
    }
    // SAFETY: LISTEN_PID names this process, so the descriptor was opened for it by its parent, and this is
    // called once, before anything else is opened.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let listens = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
    let stream = getsockopt(&fd, sockopt::SockType).is_ok_and(|t| t == SockType::Stream);
    let listener = UnixListener::from(fd);
    if !listens || !stream || listener.local_addr().is_err() {
        return Err(ListenFault::Passed("something that is no listening unix stream socket".to_owned()));
    }
    unblock(&listener, Path::new("(the passed socket)"))?;
    Ok(Some(listener))
}

fn bind(path: &Path) -> Result<ControlSocket, ListenFault> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH {
        return Err(ListenFault::TooLong { path: path.to_owned(), length });
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        // One directory and no more: a path of which more is missing was mistyped.
        match std::fs::create_dir(parent) {
            Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                return Err(ListenFault::NoDirectory { path: parent.to_owned(), source });
            }
            _ => {}
        }
    }
    let until = Instant::now() + DYING;
    loop {
        match remove_stale(path) {
            Err(ListenFault::InUse(_)) if Instant::now() < until => std::thread::sleep(DYING / 50),
            other => break other?,
        }
    }
    let listener = UnixListener::bind(path).map_err(system("bind the socket", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(system("chmod", path))?;
    unblock(&listener, path)?;
    let file = std::fs::symlink_metadata(path).map_err(system("look at", path))?;
    Ok(ControlSocket { listener, bound: Some((path.to_owned(), file.dev(), file.ino())) })
}

/// A socket file that nobody listens on is left by a taskd that was killed.
fn remove_stale(path: &Path) -> Result<(), ListenFault> {
    let file = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(system("look at", path))?,
    };
    if !file.file_type().is_socket() {
        return Err(ListenFault::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(system("remove the stale socket", path))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(system("probe the socket", path)(e)),
        Ok(_) => Err(ListenFault::InUse(path.to_owned())),
    }
}

/// The daemon accepts from an event loop; the flag belongs to the open socket and reaches it too.
fn unblock(listener: &UnixListener, path: &Path) -> Result<(), ListenFault> {
    listener.set_nonblocking(true).map_err(system("unblock", path))
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenFault {
    let path = path.to_owned();
    move |source| ListenFault::System { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_bound_open_to_all_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/taskd.sock");
        let socket = ControlSocket::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(socket.path().unwrap(), path);
        UnixStream::connect(&path).unwrap();
        let fault = ControlSocket::open(&path).unwrap_err();
        assert!(matches!(fault, ListenFault::InUse(_)) && fault.passes(), "{fault}");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_but_never_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let socket = ControlSocket::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "keep").unwrap();
        assert!(matches!(ControlSocket::open(&path), Err(ListenFault::NotASocket(_))));
        drop(socket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep");
    }

    #[test]
    fn only_the_sockets_own_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let fault = ControlSocket::open(&dir.path().join("none/of/s")).unwrap_err();
        assert!(!fault.passes() && fault.to_string().contains("none/of"), "{fault}");
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_told_with_the_limit() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(MAX_PATH)));
        let fault = ControlSocket::open(&path).unwrap_err();
        assert!(!fault.passes(), "the config names it");
        let fault = fault.to_string();
        assert!(fault.contains("112 bytes") && fault.contains("107"), "{fault}");
    }

    #[test]
    fn the_longest_path_that_is_allowed_works() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let room = MAX_PATH - dir.path().as_os_str().len() - 1;
        ControlSocket::open(&dir.path().join("x".repeat(room))).unwrap();
    }
}
