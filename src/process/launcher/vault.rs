//! Where credentials become files: a directory in memory, below it one for each child that needs any, closed to
//! all but that child's user. A runner makes one for each attempt in its own; what it leaves is removed here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::core::Core;
use crate::config::settings::Settings;
use crate::config::{Secrets, credential, ownership_fault};
use crate::process::launch::ChildId;
use crate::process::private_files::{self, SHARED_MEMORY};
use crate::process::privileges::{self, with_files_of};

/// Where `private_tmp` puts something else.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The directory.
#[derive(Debug)]
pub(super) struct Vault {
    path: PathBuf,
    /// Whether this process is root and the children others.
    root: bool,
}

/// The directories in which it may be, best first.
#[derive(Debug)]
pub(super) struct Places {
    above: Vec<PathBuf>,
    /// As told by the store's name: two taskds never share one.
    name: String,
    root: bool,
}

impl Places {
    /// Those of this machine: what systemd made for the unit, where the socket is, where the user's own are.
    pub(super) fn new(instance: &str, socket: &Path, root: bool) -> Self {
        let listed = std::env::var("RUNTIME_DIRECTORY").unwrap_or_default();
        let mut above: Vec<PathBuf> =
            listed.split(':').filter(|p| p.starts_with('/')).map(PathBuf::from).collect();
        above.extend(socket.parent().map(Path::to_owned));
        if !root {
            above.extend(std::env::var_os("XDG_RUNTIME_DIR").filter(|p| !p.is_empty()).map(PathBuf::from));
        }
        above.push(PathBuf::from(SHARED_MEMORY));
        Self { above, name: format!("taskd-credentials.{instance}"), root }
    }

    /// Removes what an earlier life left, wherever it was.
    pub(super) fn clear(&self) {
        for path in self.above.iter().map(|above| above.join(&self.name)) {
            // One that belongs to somebody else is none of ours, whatever its name.
            if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir() && m.uid() == own_uid()) {
                Vault { path, root: self.root }.remove_all();
            }
        }
    }

    /// Makes the directory in the best place.
    ///
    /// # Errors
    /// Why none will do, place by place.
    pub(super) fn open(&self) -> Result<Vault, String> {
        let mut refused = Vec::new();
        for above in &self.above {
            match self.make(above) {
                Ok(vault) => return Ok(vault),
                Err(why) => refused.push(format!("{}: {why}", above.display())),
            }
        }
        refused.dedup();
        Err(format!(
            "credentials: there is no directory in memory for the files of tasks ({}); set RuntimeDirectory=taskd in \
             the unit",
            refused.join("; ")
        ))
    }

    fn make(&self, above: &Path) -> Result<Vault, String> {
        if !above.is_dir() {
            return Err("it is no directory".to_owned());
        }
        let real = above.canonicalize().map_err(|e| e.to_string())?;
        if TEMPORARY.iter().any(|tmp| real.starts_with(tmp)) {
            return Err("`private_tmp` would hide it".to_owned());
        }
        if !private_files::is_in_memory(&real) {
            return Err("it is on a disk".to_owned());
        }
        let closed = |p: &&Path| fs::metadata(p).is_ok_and(|m| m.mode() & 0o001 == 0);
        if let Some(closed) = real.ancestors().find(closed).filter(|_| self.root) {
            return Err(format!("users of tasks cannot pass {}", closed.display()));
        }
        let path = real.join(&self.name);
        match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(&path).map_err(|e| e.to_string())?;
                if !found.is_dir() || found.uid() != own_uid() {
                    return Err(format!("{} is somebody else's", path.display()));
                }
            }
            Err(e) => return Err(e.to_string()),
        }
        // Whatever the file mode mask of this process is.
        let mode = fs::Permissions::from_mode(if self.root { 0o711 } else { 0o700 });
        fs::set_permissions(&path, mode).map_err(|e| e.to_string())?;
        if let Some(why) = ownership_fault(&path).filter(|_| self.root) {
            // Empty, or left by an earlier life and cleared before.
            let _ = fs::remove_dir(&path);
            return Err(why);
        }
        Ok(Vault { path, root: self.root })
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

impl Vault {
    /// One that an earlier program of this process made.
    pub(super) fn taken_over(path: PathBuf, root: bool) -> Self {
        Self { path, root }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory for a child of this user (absent: this process's own).
    pub(super) fn make(&self, child: ChildId, user: Option<&str>) -> io::Result<PathBuf> {
        let path = self.of(child);
        // Of a life that counted the same and left it behind.
        self.remove(child);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let owner = user.filter(|_| self.root).map(|name| {
            privileges::uid_of(name).ok_or_else(|| io::Error::other(format!("there is no user {name:?}")))
        });
        // Empty, and closed to all others before and after.
        let given = owner.transpose().and_then(|uid| chown(&path, uid, None));
        given.inspect_err(|_| _ = fs::remove_dir(&path))?;
        Ok(path)
    }

    /// Removes the directory of a child that is gone, with all that it and its attempts left there.
    pub(super) fn remove(&self, child: ChildId) {
        self.remove_one(&self.of(child));
    }

    fn of(&self, child: ChildId) -> PathBuf {
        self.path.join(child.0.to_string())
    }

    /// What is in it is removed with no more rights than its owner has: it may have planted anything.
    fn remove_one(&self, path: &Path) {
        let Ok(found) = fs::symlink_metadata(path) else { return };
        let clear = || private_files::clear(path);
        let cleared = if !found.is_dir() {
            Ok(())
        } else if self.root && found.uid() != 0 {
            with_files_of(found.uid(), clear)
        } else {
            clear()
        };
        if let Err(error) = cleared.and_then(|()| private_files::remove(path)) {
            tracing::error!("credentials stay in {}: {error}", path.display());
        }
    }

    /// Removes everything.
    pub(super) fn remove_all(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            self.remove_one(&entry.path());
        }
        if let Err(error) = private_files::remove(&self.path) {
            tracing::error!("{} stays: {error}", self.path.display());
        }
    }
}

/// What the launcher holds of secrets.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Every one that the settings in force need.
    pub(super) secrets: Secrets,
    /// Where they become files, once something needs that.
    pub(super) vault: Option<Vault>,
}

/// The secrets that these settings need.
///
/// # Errors
/// What is wrong, a sentence without any value.
pub(super) fn read(settings: &Settings) -> Result<Secrets, String> {
    let names = credential::needed(settings);
    crate::config::CredentialSource::of_this_process().read_all(&names)
}

impl Core<'_> {
    /// A place for files, where these settings ask for any and there is none yet.
    pub(super) fn open_vault(&mut self, settings: &Settings) -> Result<(), String> {
        if self.store.vault.is_none() && credential::has_files(settings) {
            self.store.vault = Some(self.places().open()?);
        }
        Ok(())
    }

    pub(super) fn places(&self) -> Places {
        Places::new(&self.state.instance, &self.settings.taskd.socket, self.who.uid == 0)
    }

    /// Nothing of a child is left that could read its credentials.
    pub(super) fn forget_credentials(&self, child: ChildId) {
        if let Some(vault) = &self.store.vault {
            vault.remove(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn places(above: &Path) -> Places {
        Places { above: vec![above.to_owned()], name: "v".to_owned(), root: nix::unistd::geteuid().is_root() }
    }

    /// A directory in memory where there is one on this machine.
    fn memory() -> Option<tempfile::TempDir> {
        let dir =
            tempfile::tempdir_in(SHARED_MEMORY).ok().filter(|d| private_files::is_in_memory(d.path()))?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Some(dir)
    }

    #[test]
    fn a_disk_and_what_private_tmp_hides_will_not_do() {
        let told = places(Path::new("/proc/self/nothing")).open().unwrap_err();
        assert!(told.contains("no directory in memory") && told.contains("RuntimeDirectory="), "{told}");
        assert!(places(Path::new("/tmp")).open().unwrap_err().contains("private_tmp"));
        assert!(places(Path::new("/proc")).open().unwrap_err().contains("on a disk"));
    }

    #[test]
    fn each_child_has_its_own_and_what_it_planted_hurts_nobody() {
        let Some(dir) = memory() else { return };
        let vault = places(dir.path()).open().unwrap();
        let root = nix::unistd::geteuid().is_root();
        let user = root.then_some("nobody");
        let path = vault.make(ChildId(7), user).unwrap();
        let found = fs::metadata(&path).unwrap();
        let owner = user.map_or_else(own_uid, |u| privileges::uid_of(u).unwrap());
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, owner));
        assert_eq!(fs::metadata(vault.path()).unwrap().mode() & 0o7777, if root { 0o711 } else { 0o700 });
        let keep = dir.path().join("keep");
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("x"), "x").unwrap();
        fs::create_dir_all(path.join("a/b")).unwrap();
        symlink(&keep, path.join("a/link")).unwrap();
        for made in ["a", "a/b"] {
            chown(path.join(made), Some(owner), None).unwrap();
        }
        vault.remove(ChildId(7));
        assert!(!path.exists() && keep.join("x").exists());
        vault.remove(ChildId(7));
        // The directory itself was replaced.
        symlink(&keep, &path).unwrap();
        vault.remove(ChildId(7));
        assert!(fs::symlink_metadata(&path).is_err() && keep.join("x").exists());
        vault.make(ChildId(8), None).unwrap();
        let again = places(dir.path());
        again.clear();
        assert!(!vault.path().exists(), "left by an earlier life");
        again.clear();
    }

    #[test]
    fn a_place_of_somebody_else_is_neither_used_nor_touched() {
        let Some(dir) = memory() else { return };
        symlink("/", dir.path().join("v")).unwrap();
        places(dir.path()).clear();
        assert!(places(dir.path()).open().unwrap_err().contains("somebody else's"));
        if nix::unistd::geteuid().is_root() {
            fs::remove_file(dir.path().join("v")).unwrap();
            fs::create_dir(dir.path().join("v")).unwrap();
            chown(dir.path().join("v"), Some(12_345), None).unwrap();
            places(dir.path()).clear();
            assert!(places(dir.path()).open().unwrap_err().contains("somebody else's"));
            chown(dir.path(), Some(12_345), None).unwrap();
            fs::remove_dir(dir.path().join("v")).unwrap();
            assert!(places(dir.path()).open().unwrap_err().contains("12345"), "who could rename it");
        }
    }
}
