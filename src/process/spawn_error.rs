//! Why a program was not started: the step that failed, and the sentence for it.

use std::fmt;

use nix::errno::Errno;

/// What could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Find the program in PATH.
    Resolve = 1,
    /// Make a pipe.
    Pipe,
    /// Make a process.
    Clone,
    /// Begin a session.
    Session,
    /// Tie it to our life.
    ParentDeath,
    /// Enter its control group.
    Cgroup,
    /// Limit its open files.
    Nofile,
    /// Set its class of disk access.
    IoClass,
    /// Build its sandbox.
    Sandbox,
    /// Set its nice value.
    Nice,
    /// Go to its working directory.
    Directory,
    /// Set its standard descriptors.
    Redirect,
    /// Execute the program.
    Exec,
}

impl Stage {
    pub(super) fn from_number(n: u32) -> Self {
        [
            Self::Resolve,
            Self::Pipe,
            Self::Clone,
            Self::Session,
            Self::ParentDeath,
            Self::Cgroup,
            Self::Nofile,
            Self::IoClass,
            Self::Sandbox,
            Self::Nice,
            Self::Directory,
            Self::Redirect,
        ]
        .into_iter()
        .find(|s| *s as u32 == n)
        .unwrap_or(Self::Exec)
    }
}

/// Why a program was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SpawnError {
    /// What was tried.
    pub stage: Stage,
    /// The kernel's answer.
    pub errno: Errno,
    /// On what: the program or the directory; for [`Stage::Sandbox`] the whole sentence.
    pub subject: String,
}

impl SpawnError {
    /// Whether the same may well succeed a little later: processes, memory or descriptors ran out.
    #[must_use]
    pub fn again(&self) -> bool {
        // A sandbox fails for what it is, not for what is short: ENOSPC and the like are limits that stay.
        self.stage != Stage::Sandbox
            && matches!(
                self.errno,
                Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY
            )
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, errno, subject } = self;
        match (stage, errno) {
            (Stage::Resolve, _) => write!(f, "{subject:?} was not found in PATH"),
            (Stage::Exec, Errno::ENOENT) => {
                write!(f, "{subject} does not exist, or the interpreter its first line names does not")
            }
            (Stage::Exec, Errno::EACCES) => write!(f, "{subject} may not be executed by this user"),
            (Stage::Exec, Errno::ENOEXEC) => {
                write!(f, "{subject} is no program; a script needs a first line such as #!/bin/sh")
            }
            (Stage::Exec, Errno::E2BIG) => {
                write!(f, "the arguments and the environment of {subject} are too long together")
            }
            (Stage::Exec, Errno::ETXTBSY) => write!(f, "{subject} is being written by another process"),
            (Stage::Exec, _) => write!(f, "{subject} could not be executed: {}", errno.desc()),
            (Stage::Directory, Errno::ENOENT) => write!(f, "working directory {subject} does not exist"),
            (Stage::Directory, Errno::ENOTDIR) => {
                write!(f, "working directory {subject} is not a directory")
            }
            (Stage::Directory, Errno::EACCES) => {
                write!(f, "working directory {subject} may not be entered by this user")
            }
            (Stage::Directory, _) => write!(f, "working directory {subject}: {}", errno.desc()),
            (Stage::Clone, Errno::EAGAIN) => {
                f.write_str("no new process: the limit of processes (RLIMIT_NPROC or pids.max) is reached")
            }
            (Stage::Clone, _) => write!(f, "no new process: {}", errno.desc()),
            (Stage::Pipe, _) => write!(f, "no pipe: {}", errno.desc()),
            (Stage::Nofile, _) => write!(
                f,
                "limit_nofile could not be set: {} (above the hard limit only root may go)",
                errno.desc()
            ),
            (Stage::Nice, _) => {
                write!(f, "nice could not be set: {} (only root may lower it)", errno.desc())
            }
            (Stage::IoClass, _) => {
                write!(f, "io_class could not be set: {} (only root may use realtime)", errno.desc())
            }
            (Stage::Sandbox, _) => f.write_str(subject),
            (Stage::Cgroup, _) => write!(f, "its control group could not be entered: {}", errno.desc()),
            (Stage::Session | Stage::ParentDeath | Stage::Redirect, _) => {
                write!(f, "{stage:?} of {subject}: {}", errno.desc())
            }
        }
    }
}
