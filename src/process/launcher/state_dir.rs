//! The state directory: there, owned by who must write it, ours alone, and with a name of its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::StartFault;
use crate::process::privileges::{Account, PrivilegeFault};

/// Held for the launcher's whole life.
const LOCK: &str = "taskd.lock";

/// A child that a killed launcher was just starting holds the lock until its exec.
const DYING: Duration = Duration::from_millis(500);

/// Holds the store's `TASKD_INSTANCE`.
const INSTANCE: &str = "instance";

/// A locked state directory.
#[derive(Debug)]
pub(super) struct StateDir {
    /// `TASKD_INSTANCE` of this store.
    pub(super) instance: String,
    lock: Flock<File>,
}

impl StateDir {
    /// Makes it where it is missing (owned by `owner`, 0700), checks that it belongs to `owner`, locks it.
    pub(super) fn open(path: &Path, owner: &Owner) -> Result<Self, StartFault> {
        make(path, owner)?;
        check(path, owner)?;
        let lock = lock(path, owner)?;
        let instance = instance(path, owner)?;
        Ok(Self { instance, lock })
    }

    /// One that an earlier program of this process opened: the lock belongs to the open file and is still held.
    pub(super) fn taken_over(instance: String, lock: File) -> Result<Self, StartFault> {
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| StartFault::busy(format!("the lock of the state directory was lost: {e}")))?;
        Ok(Self { instance, lock })
    }

    /// The locked file.
    pub(super) fn lock(&self) -> &File {
        &self.lock
    }
}

/// Who must own the state directory: the daemon's user.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Its name.
    pub(super) name: String,
    /// Its uid.
    pub(super) uid: u32,
    /// Its group, where it is another user than the launcher's.
    pub(super) gid: Option<u32>,
}

impl Owner {
    /// The user of this name, or whoever runs the launcher.
    pub(super) fn of(name: Option<&str>, launcher: u32) -> Result<Self, PrivilegeFault> {
        let Some(name) = name else {
            return Ok(Self { name: Account::name_of(launcher), uid: launcher, gid: None });
        };
        let account = Account::lookup(name)?;
        Ok(Self { name: account.name, uid: account.uid, gid: Some(account.gid) })
    }
}

fn make(path: &Path, owner: &Owner) -> Result<(), StartFault> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => {
            let path = path.display();
            return Err(StartFault::config(format!(
                "cannot make the state directory {path}: {e}; make it for {}, or set another `state_dir`",
                owner.name
            )));
        }
    }
    // New and empty: giving it away cannot give away anything else.
    let (uid, gid) = (owner.gid.map(|_| owner.uid), owner.gid);
    chown(path, uid, gid).map_err(|e| StartFault::config(format!("cannot chown {}: {e}", path.display())))
}

fn check(path: &Path, owner: &Owner) -> Result<(), StartFault> {
    let shown = path.display();
    let found = std::fs::metadata(path)
        .map_err(|e| StartFault::config(format!("cannot look at the state directory {shown}: {e}")))?;
    if !found.is_dir() {
        return Err(StartFault::config(format!("`state_dir` {shown} is not a directory")));
    }
    if found.uid() != owner.uid {
        let (has, wants) = (Account::name_of(found.uid()), &owner.name);
        return Err(StartFault::config(format!(
            "the state directory {shown} belongs to {has} (uid {}), but the daemon runs as {wants} (uid {}): \
             run `chown -R {wants}: {shown}`, or set `user` in [taskd] or another `state_dir`",
            found.uid(),
            owner.uid,
        )));
    }
    if found.mode() & 0o002 != 0 {
        return Err(StartFault::config(format!(
            "everybody may write into the state directory {shown}: run `chmod o-w {shown}`"
        )));
    }
    Ok(())
}

/// The directory belongs to the daemon's user, the launcher may be root: a link put there must not make it
/// write into another file.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() == 1 {
        return Ok(file);
    }
    Err(io::Error::other("it is a link or no ordinary file; remove it"))
}

/// Gives a file of root's to the owner of the directory, so that a launcher that is no longer root (drop-in
/// `tight.conf`) can open it. Only once it holds what taskd wrote: who owns the directory may have put anything there
/// under that name.
fn give(file: &File, owner: &Owner) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() && file.metadata()?.uid() != owner.uid {
        fchown(file, Some(owner.uid), owner.gid)?;
    }
    Ok(())
}

fn lock(dir: &Path, owner: &Owner) -> Result<Flock<File>, StartFault> {
    let path = dir.join(LOCK);
    let mut file = open(&path).map_err(cannot_open(&path, owner))?;
    let until = Instant::now() + DYING;
    let locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((again, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => file = again,
            other => break other,
        }
        std::thread::sleep(DYING / 50);
    };
    let mut lock = match locked {
        Ok(lock) => lock,
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            // The message is good without the number, too.
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let pid = if pid.is_empty() { "unknown" } else { pid };
            return Err(StartFault::busy(format!(
                "already running as pid {pid} on the state directory {}; stop it, or set another `state_dir`",
                dir.display()
            )));
        }
        Err((_, e)) => return Err(cannot("lock", &path)(e.into())),
    };
    rewrite(&mut lock, &std::process::id().to_string())
        .and_then(|()| give(&lock, owner))
        .map_err(cannot("write", &path))?;
    Ok(lock)
}

fn instance(dir: &Path, owner: &Owner) -> Result<String, StartFault> {
    let path = dir.join(INSTANCE);
    let mut file = open(&path).map_err(cannot_open(&path, owner))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(cannot("read", &path))?;
    if let Ok(id) = uuid::Uuid::try_parse(text.trim()) {
        give(&file, owner).map_err(cannot("give away", &path))?;
        return Ok(id.to_string());
    }
    if !text.trim().is_empty() {
        return Err(StartFault::config(format!("{} holds no id; remove it", path.display())));
    }
    let id = uuid::Uuid::new_v4().to_string();
    rewrite(&mut file, &id)
        .and_then(|()| file.sync_all())
        .and_then(|()| give(&file, owner))
        .map_err(cannot("write", &path))?;
    Ok(id)
}

fn rewrite(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{text}")
}

/// The directory is the owner's, so what the owner cannot open in it was left by another user.
fn cannot_open(path: &Path, owner: &Owner) -> impl FnOnce(io::Error) -> StartFault {
    let (path, name) = (path.to_owned(), owner.name.clone());
    move |e| {
        let dir = path.parent().unwrap_or(&path).display();
        let remedy = match e.kind() {
            ErrorKind::PermissionDenied => format!("; run `chown -R {name}: {dir}`"),
            _ => String::new(),
        };
        StartFault::busy(format!("cannot open {}: {e}{remedy}", path.display()))
    }
}

fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartFault {
    let path: PathBuf = path.to_owned();
    move |e| StartFault::busy(format!("cannot {what} {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn me() -> Owner {
        Owner::of(None, nix::unistd::geteuid().as_raw()).unwrap()
    }

    #[test]
    fn the_instance_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::open(&path, &me()).unwrap().instance;
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(StateDir::open(&path, &me()).unwrap().instance, first);
        std::fs::write(path.join(INSTANCE), "nonsense").unwrap();
        assert!(StateDir::open(&path, &me()).unwrap_err().message.contains("holds no id"));
    }

    #[test]
    fn a_second_one_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let _held = StateDir::open(dir.path(), &me()).unwrap();
        let fault = StateDir::open(dir.path(), &me()).unwrap_err();
        assert!(fault.message.contains(&format!("already running as pid {}", std::process::id())));
        assert_eq!(fault.code, super::super::EXIT_BUSY);
    }

    #[test]
    fn a_wrong_owner_is_told_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let other = Owner { name: "someone".to_owned(), uid: 4_000_000, gid: None };
        let fault = StateDir::open(dir.path(), &other).unwrap_err();
        let wanted = format!("chown -R someone: {}", dir.path().display());
        assert!(fault.message.contains(&wanted), "{}", fault.message);
        assert_eq!(fault.code, super::super::EXIT_CONFIG);
    }

    #[test]
    fn what_root_left_belongs_to_the_owner_afterwards() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let owner = Owner { name: "someone".to_owned(), uid: 4_000_000, gid: Some(4_000_001) };
        for left in [false, true] {
            if left {
                chown(state.join(LOCK), Some(0), Some(0)).unwrap();
                chown(state.join(INSTANCE), Some(0), Some(0)).unwrap();
            }
            drop(StateDir::open(&state, &owner).unwrap());
            for name in [LOCK, INSTANCE] {
                let found = std::fs::metadata(state.join(name)).unwrap();
                assert_eq!((found.uid(), found.gid()), (4_000_000, 4_000_001), "{name}");
            }
        }
        // What the owner put there of root's files stays root's.
        std::fs::write(dir.path().join("precious"), "secret").unwrap();
        std::fs::rename(dir.path().join("precious"), state.join(INSTANCE)).unwrap();
        assert!(StateDir::open(&state, &owner).is_err());
        assert_eq!(std::fs::metadata(state.join(INSTANCE)).unwrap().uid(), 0);
    }

    #[test]
    fn links_files_and_open_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "keep").unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        symlink(&target, state.join(LOCK)).unwrap();
        assert!(StateDir::open(&state, &me()).is_err());
        std::fs::remove_file(state.join(LOCK)).unwrap();
        std::fs::hard_link(&target, state.join(LOCK)).unwrap();
        assert!(StateDir::open(&state, &me()).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
        assert!(StateDir::open(&target, &me()).unwrap_err().message.contains("not a directory"));
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(StateDir::open(&state, &me()).unwrap_err().message.contains("o-w"));
        let fault = StateDir::open(&dir.path().join("a/b"), &me()).unwrap_err();
        assert!(fault.message.contains("cannot make"), "{}", fault.message);
    }
}
