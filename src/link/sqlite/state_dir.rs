//! The directory of the embedded store: who may use it, that only one does, and that what was there once
//! is still there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::OpenError;

/// Bytes held back on the disk, so that the ends of running attempts can be written when it is full.
pub const RESERVE: u64 = 8 << 20;

/// At the start, the reserve is taken only where this much more is free.
pub const HEADROOM: u64 = 8 << 20;

/// After the disk was full, work goes on only where this much is free beside the reserve: the log that was
/// kept meanwhile moves into the file.
pub const RECOVERED: u64 = 32 << 20;

/// A process that was killed may hold the lock this much longer: it gives its files back last.
const DYING: Duration = Duration::from_millis(500);

/// File systems that other machines share: magic numbers of statfs(2).
const NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x7461_636f, "OCFS2"),
];

/// The directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child that another thread has just forked holds it too,
        // until its exec.
        let _ = self.lock.unlock();
    }
}

/// How the store was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There was none.
    Never,
    /// Closed in order.
    Clean,
    /// Its process ended without closing it, the kernel that held its writes lives on.
    Killed,
    /// The machine went down with it.
    Crashed,
}

impl StateDir {
    /// Checks the directory and locks it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let failed = |what| move |e: io::Error| OpenError::of_io(dir, what, e);
        let meta = match fs::metadata(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { dir: dir.to_owned() });
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::NotADirectory { dir: dir.to_owned() });
            }
            other => other.map_err(failed("look at"))?,
        };
        if !meta.is_dir() {
            return Err(OpenError::NotADirectory { dir: dir.to_owned() });
        }
        let me = nix::unistd::geteuid().as_raw();
        if meta.uid() != me {
            return Err(OpenError::Owner { dir: dir.to_owned(), owner: meta.uid(), me });
        }
        let kind = nix::sys::statfs::statfs(dir).map_err(|e| failed("look at")(e.into()))?.filesystem_type();
        // The kernel's type is signed on some architectures: compare the 32 bits that the magic has.
        let magic = (kind.0 as u64) & 0xffff_ffff;
        if let Some((_, kind)) = NETWORK.iter().find(|(m, _)| *m == magic) {
            return Err(OpenError::Network { dir: dir.to_owned(), kind });
        }
        Ok(Self { dir: dir.to_owned(), lock: lock(dir)? })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The store's file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join("queue.db")
    }

    /// The file that says which store stands here.
    #[must_use]
    pub fn marker(&self) -> PathBuf {
        self.dir.join("store.id")
    }

    fn unclean(&self) -> PathBuf {
        self.dir.join("store.unclean")
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Looks at the store's file before SQLite does: SQLite makes a new store of an empty file.
    ///
    /// # Errors
    /// [`OpenError`] where a store was here and is gone, cut off, or something else.
    pub fn look(&self) -> Result<Left, OpenError> {
        let (file, marker) = (self.file(), self.marker());
        let size = match fs::metadata(&file) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(OpenError::of_io(&file, "look at", e)),
        };
        if size == 0 {
            if marker.exists() {
                return Err(OpenError::Vanished { file, marker });
            }
            // The file itself is made here, for its mode: the log and the shared memory take it over.
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file)
                .map_err(|e| OpenError::of_io(&file, "create", e))?;
            return Ok(Left::Never);
        }
        check_header(&file, size)?;
        match fs::read_to_string(self.unclean()) {
            Ok(boot) if boot.trim() == boot_id() && !boot.trim().is_empty() => Ok(Left::Killed),
            Ok(_) => Ok(Left::Crashed),
            Err(_) => Ok(Left::Clean),
        }
    }

    /// The id of the store that stood here last.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn id(&self) -> Result<Option<String>, OpenError> {
        match fs::read_to_string(self.marker()) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(OpenError::of_io(&self.marker(), "read", e)),
        }
    }

    /// Writes down which store stands here and that it is open, all of it on the disk at return.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn opened(&self, id: &str) -> Result<(), OpenError> {
        for (path, text) in [(self.marker(), id), (self.unclean(), boot_id().as_str())] {
            let write = || -> io::Result<()> {
                let mut f =
                    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
                f.write_all(text.as_bytes())?;
                f.sync_all()
            };
            write().map_err(|e| OpenError::of_io(&path, "write", e))?;
        }
        // SQLite ignores a failing fsync of the directory; without it the files may be gone after a crash.
        self.sync().map_err(|e| OpenError::of_io(&self.dir, "sync", e))
    }

    /// The store was closed in order.
    pub fn closed(&self) {
        // A leftover file costs one check at the next start.
        let _ = fs::remove_file(self.unclean());
        let _ = self.sync();
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Takes the reserve, where `headroom` bytes are free beside it. True: it is there.
    #[must_use]
    pub fn take_reserve(&self, headroom: u64) -> bool {
        let path = self.reserve();
        if fs::metadata(&path).is_ok_and(|m| m.len() >= RESERVE) {
            return true;
        }
        // What cannot be asked is not refused: the write itself will tell.
        let Ok(stat) = nix::sys::statvfs::statvfs(&self.dir) else { return true };
        if stat.blocks_available().saturating_mul(stat.fragment_size()) < RESERVE + headroom {
            return false;
        }
        let write = || -> io::Result<()> {
            let f = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            nix::fcntl::posix_fallocate(&f, 0, RESERVE as libc::off_t)?;
            f.sync_all()
        };
        let taken = write().is_ok();
        if !taken {
            let _ = fs::remove_file(&path);
        }
        taken
    }

    /// Gives the reserve up. True: it was there.
    #[must_use]
    pub fn free_reserve(&self) -> bool {
        fs::remove_file(self.reserve()).is_ok()
    }
}

/// Takes the lock and writes our pid into it.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("store.lock");
    let mut f = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| OpenError::of_io(&path, "open", e))?;
    let until = Instant::now() + DYING;
    let locked = loop {
        match f.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(DYING / 50),
            other => break other,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = f.read_to_string(&mut text);
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(e)) => return Err(OpenError::of_io(&path, "lock", e)),
    }
    let write = |f: &mut File| -> io::Result<()> {
        f.set_len(0)?;
        f.rewind()?;
        writeln!(f, "{}", std::process::id())
    };
    // The pid only words an error: a full disk must not keep a store closed.
    let _ = write(&mut f);
    Ok(f)
}

/// The kernel's id of this boot; empty where there is none.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The file must be an SQLite file of the length that it says (<https://sqlite.org/fileformat2.html>).
fn check_header(file: &Path, size: u64) -> Result<(), OpenError> {
    let mut header = [0_u8; 100];
    let read = File::open(file).and_then(|mut f| f.read_exact(&mut header));
    match read {
        Ok(()) if header.starts_with(b"SQLite format 3\0") => {}
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(OpenError::of_io(file, "read", e)),
        _ => {
            let why = "it does not begin like an SQLite file".to_owned();
            return Err(OpenError::NotAStore { file: file.to_owned(), why });
        }
    }
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    if fs::metadata(wal).is_ok_and(|m| m.len() > 0) {
        // A crash during a checkpoint leaves it short; the log has the rest.
        return Ok(());
    }
    let be = |at: usize, n: usize| {
        header.iter().skip(at).take(n).fold(0_u64, |all, byte| (all << 8) | u64::from(*byte))
    };
    let page = if be(16, 2) == 1 { 65_536 } else { be(16, 2) };
    let wants = if be(24, 4) == be(92, 4) { page * be(28, 4) } else { 0 };
    if size < wants {
        return Err(OpenError::Truncated { file: file.to_owned(), has: size, wants });
    }
    Ok(())
}
