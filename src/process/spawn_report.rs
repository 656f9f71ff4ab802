//! How a new process tells the one that made it which of its first steps failed.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::spawn_error::Stage;

/// What the new process tells us: the step that failed, or nothing.
#[derive(Debug, Default)]
pub struct Report {
    /// The step, as a number of [`Stage`].
    pub stage: AtomicU32,
    /// The kernel's answer; 0: nothing failed.
    pub errno: AtomicI32,
    /// Which step of the sandbox.
    pub step: AtomicU32,
}

impl Report {
    /// What failed, if anything did.
    #[must_use]
    pub fn get(&self) -> Option<(Stage, Errno)> {
        let errno = self.errno.load(Ordering::Acquire);
        (errno != 0).then(|| (Stage::from_number(self.stage.load(Ordering::Acquire)), Errno::from_raw(errno)))
    }
}

/// A [`Report`] that two processes share although their memories differ.
#[derive(Debug)]
pub struct SharedReport(std::ptr::NonNull<Report>);

impl SharedReport {
    /// Nothing failed yet.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Report>(), protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        std::ptr::NonNull::new(at.cast::<Report>()).map(Self).ok_or(Errno::ENOMEM)
    }
}

impl std::ops::Deref for SharedReport {
    type Target = Report;

    fn deref(&self) -> &Report {
        // SAFETY: mapped until dropped, page-aligned, and all zeros is a valid report of atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedReport {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size, and nobody refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Report>()) };
    }
}
