//! One step of a sandbox as system calls: made in a new process between fork and exec, so nothing here
//! allocates, locks or decides.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::mem::{MaybeUninit, size_of};
use std::sync::atomic::{AtomicI32, Ordering};

/// Most paths that can be set aside.
pub const MAX_KEPT: usize = 64;

/// Mounts that were set aside: a descriptor each, of the new process.
#[derive(Debug)]
pub struct Kept([AtomicI32; MAX_KEPT]);

impl Default for Kept {
    fn default() -> Self {
        Self([const { AtomicI32::new(-1) }; MAX_KEPT])
    }
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    /// Lets the files of /proc/self belong to the process's own user.
    Dumpable,
    /// unshare(2) with these flags.
    Unshare(c_int),
    /// Writes a text to a file in one write.
    Write {
        /// The file.
        file: &'static CStr,
        /// The text.
        text: CString,
    },
    /// Mounts go on arriving from the host and none goes there.
    Slave,
    /// Sets a mount and all below it aside as it is now.
    Keep {
        /// The path.
        path: CString,
        /// Where its descriptor is kept.
        slot: usize,
    },
    /// Makes a mount and all below it read-only.
    ReadOnly {
        /// The path.
        path: CString,
        /// It may be no mount yet: make it one.
        bind: bool,
    },
    /// Mounts an empty file system in memory.
    Tmpfs {
        /// Where.
        path: CString,
        /// Its options.
        options: CString,
    },
    /// Puts back what was set aside.
    PutBack {
        /// The path.
        path: CString,
        /// Where its descriptor is kept.
        slot: usize,
    },
    /// Brings up the loopback interface.
    Loopback,
    /// No set-user-id program gives anything any more.
    NoNewPrivileges,
}

impl Action {
    /// Does it; false with errno set where the kernel refuses.
    #[must_use]
    pub fn run(&self, kept: &Kept) -> bool {
        // SAFETY: every pointer is to a text or a structure that lives through the call.
        unsafe {
            match self {
                Self::Dumpable => libc::prctl(libc::PR_SET_DUMPABLE, 1 as c_ulong, 0, 0, 0) == 0,
                Self::Unshare(flags) => libc::unshare(*flags) == 0,
                Self::Write { file, text } => write(file, text),
                Self::Slave => mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC, None),
                Self::Keep { path, slot } => {
                    let flags =
                        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.cast_unsigned();
                    let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
                    let (Some(place), Ok(fd)) = (kept.0.get(*slot), i32::try_from(fd)) else { return false };
                    place.store(fd, Ordering::Relaxed);
                    fd >= 0
                }
                Self::ReadOnly { path, bind } => {
                    (!bind || mount(Some(path), path, None, libc::MS_BIND | libc::MS_REC, None))
                        && read_only(path)
                }
                Self::Tmpfs { path, options } => {
                    let flags = libc::MS_NOSUID | libc::MS_NODEV;
                    mount(Some(c"tmpfs"), path, Some(c"tmpfs"), flags, Some(options))
                }
                Self::PutBack { path, slot } => {
                    let Some(place) = kept.0.get(*slot) else { return false };
                    let fd = place.load(Ordering::Relaxed);
                    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS;
                    let to = (libc::AT_FDCWD, path.as_ptr());
                    libc::syscall(libc::SYS_move_mount, fd, c"".as_ptr(), to.0, to.1, flags) == 0
                }
                Self::Loopback => loopback(),
                Self::NoNewPrivileges => libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0, 0, 0) == 0,
            }
        }
    }
}

fn pointer(text: Option<&CStr>) -> *const libc::c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    options: Option<&CStr>,
) -> bool {
    // SAFETY: texts that live through the call, or null where mount(2) takes that.
    unsafe {
        let options = pointer(options).cast();
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, options) == 0
    }
}

fn read_only(path: &CStr) -> bool {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path and the structure live through the call; the size is the structure's.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        ) == 0
    }
}

fn write(file: &CStr, text: &CStr) -> bool {
    // SAFETY: both texts live through the calls; the descriptor is ours.
    unsafe {
        let fd = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        let bytes = text.to_bytes();
        // Left open where it fails, so that errno stays: the process leaves then.
        libc::write(fd, bytes.as_ptr().cast(), bytes.len()) == bytes.len().cast_signed()
            && libc::close(fd) == 0
    }
}

fn loopback() -> bool {
    // SAFETY: zeroed is a valid ifreq; the name fits and stays NUL-ended; the structure lives through the call.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return false;
        }
        let mut request: libc::ifreq = MaybeUninit::zeroed().assume_init();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
        libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) == 0 && libc::close(fd) == 0
    }
}
