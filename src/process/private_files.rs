//! A directory with files that one user may read, made without a moment in which others could, and removed
//! without ever following what that user planted in it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::config::Secrets;

/// Opens a directory and nothing else.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// In memory on every Linux that mounts it, and open to every user as /tmp is.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// What systemd puts credentials on where it may (magic.h of the kernel).
const RAMFS: FsType = FsType(0x8584_58f6);

/// A directory is emptied so often: what is still writing into it then wins.
const ROUNDS: usize = 64;

/// Files of one attempt; removed with this value.
#[derive(Debug)]
pub struct PrivateFiles {
    path: PathBuf,
}

impl PrivateFiles {
    /// Makes a directory below `parent` (0500) with a file (0400) for each of `names`, of this process's user.
    /// Its name is one that nobody can have taken before.
    ///
    /// # Errors
    /// A sentence; nothing is left behind.
    pub fn make(parent: &Path, secrets: &Secrets, names: &[String]) -> Result<Self, String> {
        let path = parent.join(uuid::Uuid::new_v4().simple().to_string());
        let cannot = |e: io::Error| format!("credentials: cannot make the files in {}: {e}", path.display());
        nix::unistd::mkdir(&path, Mode::S_IRWXU).map_err(|e| cannot(e.into()))?;
        // From here on it is removed whatever happens.
        let made = Self { path: path.clone() };
        fill(&path, secrets, names).map_err(cannot)?;
        Ok(made)
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFiles {
    fn drop(&mut self) {
        // What cannot be removed here goes with the directory above it, at the end of the process.
        let _ = remove(&self.path);
    }
}

/// A directory of one process, in which [`PrivateFiles`] are made; removed with this value.
#[derive(Debug)]
pub struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    /// Makes one (0700) for this process's user, in memory: in `$XDG_RUNTIME_DIR`, else in `/dev/shm`.
    ///
    /// # Errors
    /// Why neither will do; a sentence.
    pub fn make() -> Result<Self, String> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
        let name = format!("taskd-exec.{}", uuid::Uuid::new_v4().simple());
        let mut refused = Vec::new();
        for above in own.into_iter().chain([PathBuf::from(SHARED_MEMORY)]) {
            let path = above.join(&name);
            let made = if is_in_memory(&above) {
                nix::unistd::mkdir(&path, Mode::S_IRWXU).map_err(|e| e.desc().to_owned())
            } else {
                Err("it is not in memory".to_owned())
            };
            match made {
                Ok(()) => return Ok(Self { path }),
                Err(why) => refused.push(format!("{}: {why}", above.display())),
            }
        }
        Err(format!("credentials: there is no directory in memory for their files ({})", refused.join("; ")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // Of this user, in memory, and nobody is there to be told.
        let _ = remove(&self.path);
    }
}

/// Writes the files into a directory of this process's user, which can only be read from then on.
///
/// # Errors
/// The kernel's answer; files may be left.
pub fn fill(directory: &Path, secrets: &Secrets, names: &[String]) -> io::Result<()> {
    let at = open(directory, DIRECTORY, Mode::empty())?;
    for name in names {
        let secret = secrets.get(name).ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("this process was not given the credential {name:?}"))
        })?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&at, name.as_str(), flags, Mode::S_IRUSR)?;
        File::from(file).write_all(secret.expose())?;
    }
    Ok(fchmod(&at, Mode::S_IRUSR | Mode::S_IXUSR)?)
}

/// Removes what stands at `path`, a directory with all that is in it or anything else. Links are removed, never
/// followed; it takes two descriptors whatever the depth.
///
/// # Errors
/// The kernel's answer. Something that is not there is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let parent = match open(parent, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let name = Path::new(name);
    for _ in 0..ROUNDS {
        match unlink(&parent, name)? {
            Gone::Yes => return Ok(()),
            Gone::Full => empty(&enter(&parent, name)?)?,
        }
    }
    Err(Errno::ENOTEMPTY.into())
}

/// Removes everything in a directory, and leaves the directory.
///
/// # Errors
/// As for [`remove`].
pub fn clear(path: &Path) -> io::Result<()> {
    match open(path, DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EACCES) => {
            fchmodat(nix::fcntl::AT_FDCWD, path, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            empty(&open(path, DIRECTORY, Mode::empty())?)
        }
        other => empty(&other?),
    }
}

enum Gone {
    Yes,
    /// A directory with something in it.
    Full,
}

fn unlink(at: &impl AsFd, name: &Path) -> io::Result<Gone> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(Gone::Yes),
        Err(Errno::EISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    match unlinkat(at, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Gone::Yes),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Gone::Full),
        Err(e) => Err(e.into()),
    }
}

/// Opens a directory that may have been closed to its owner.
fn enter(at: &impl AsFd, name: &Path) -> io::Result<OwnedFd> {
    match openat(at, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            // Should a link be there by now, this changes a file that this user could change anyway.
            fchmodat(at, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            Ok(openat(at, name, DIRECTORY, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// What is deeper is moved up first, so that a tree of any depth is a flat one.
fn empty(at: &OwnedFd) -> io::Result<()> {
    // Whoever owns it may do this; who does not is told by what follows.
    let _ = fchmod(at, Mode::S_IRWXU);
    for _ in 0..ROUNDS {
        let mut work = entries(at)?;
        if work.is_empty() {
            return Ok(());
        }
        while let Some(name) = work.pop() {
            if matches!(unlink(at, &name)?, Gone::Yes) {
                continue;
            }
            let below = enter(at, &name)?;
            let _ = fchmod(&below, Mode::S_IRWXU);
            for inner in entries(&below)? {
                if matches!(unlink(&below, &inner)?, Gone::Full) {
                    // To move a directory its own ".." is changed, which a closed one does not let.
                    drop(enter(&below, &inner).map(|dir| fchmod(&dir, Mode::S_IRWXU)));
                    let free = PathBuf::from(format!(".{}", uuid::Uuid::new_v4().simple()));
                    renameat(&below, &inner, at, &free)?;
                    work.push(free);
                }
            }
            // Where something came in meanwhile, the next round finds it.
            unlink(at, &name)?;
        }
    }
    Err(Errno::ENOTEMPTY.into())
}

fn entries(at: &OwnedFd) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", at.as_raw_fd()))? {
        found.push(PathBuf::from(entry?.file_name()));
    }
    Ok(found)
}

/// Whether files there are in memory and never on a disk.
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| [TMPFS_MAGIC, RAMFS].contains(&found.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn secrets() -> (Secrets, Vec<String>) {
        let mut secrets = Secrets::default();
        secrets.insert("a", Secret::new(b"one\n".to_vec()));
        secrets.insert("b", Secret::new(vec![0, 255]));
        (secrets, vec!["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn files_are_byte_exact_closed_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (secrets, names) = secrets();
        let made = PrivateFiles::make(dir.path(), &secrets, &names).unwrap();
        let path = made.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o500);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"one\n");
        assert_eq!(fs::read(path.join("b")).unwrap(), [0, 255]);
        assert_eq!(fs::metadata(path.join("b")).unwrap().mode() & 0o7777, 0o400);
        drop(made);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_this_process_was_not_given_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let told = PrivateFiles::make(dir.path(), &secrets().0, &["a".to_owned(), "gone".to_owned()]);
        assert!(told.unwrap_err().contains("gone"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(PrivateFiles::make(&dir.path().join("missing"), &secrets().0, &[]).is_err());
    }

    #[test]
    fn what_was_planted_goes_and_what_it_leads_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("keep"), "x").unwrap();
        let path = dir.path().join("tree");
        fs::create_dir_all(path.join("one/two")).unwrap();
        symlink(&precious, path.join("link")).unwrap();
        symlink(&precious, path.join("one/two/link")).unwrap();
        fs::set_permissions(path.join("one/two"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(path.join("one"), fs::Permissions::from_mode(0o100)).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
        // A link in the place of the directory itself.
        symlink(&precious, &path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(precious.join("keep")).unwrap(), "x");
        symlink(&precious, &path).unwrap();
        assert!(clear(&path).is_err());
        clear(&precious).unwrap();
        assert_eq!(fs::read_dir(&precious).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_of_any_depth_and_width_goes() {
        let memory = Path::new(SHARED_MEMORY);
        let dir = if is_in_memory(memory) { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let path = dir.path().join("tree");
        fs::create_dir(&path).unwrap();
        // Deeper than a path may be long, and than descriptors may be open.
        let mut at = open(&path, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..1_500 {
            nix::sys::stat::mkdirat(&at, "deeper", Mode::S_IRWXU).unwrap();
            nix::sys::stat::mkdirat(&at, "beside", Mode::S_IRWXU).unwrap();
            at = openat(&at, "deeper", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        assert!(!is_in_memory(Path::new("/proc")) && !is_in_memory(Path::new("/no/such/place")));
        let shm = Path::new("/dev/shm");
        assert!(!shm.is_dir() || is_in_memory(shm));
    }
}
