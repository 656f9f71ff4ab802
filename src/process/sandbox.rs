//! The sandbox keys of a task: planned here, done by the new process itself before it executes the program.
//!
//! `no_new_privileges` is one prctl(2). The others are a mount or a network namespace: made directly where
//! this process is root, else inside a user namespace in which only its own uid and gid exist. There files of
//! other users show as those of `nobody`, set-user-id programs give nothing, and `no_new_privileges` is on.
//! No pid namespace is made, so the ways to find and kill what an attempt leaves behind stay the same.
//! A program that runs as root can undo its mounts; these keys are no wall against root.

use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use super::privileges::Account;
use super::sandbox_step::{Action, Kept, MAX_KEPT};
use super::spawn;
use crate::model::task::{ProtectSystem, Sandbox};

/// What `protect_system = true` covers beside `/usr`, where it exists and is no symbolic link into it.
const SYSTEM: [&str; 8] = ["/boot", "/efi", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What `protect_system = "strict"` leaves as it is: the kernel's own file systems.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Directories of `private_tmp`.
const TEMPORARY: [(&CStr, &str); 2] = [(c"/tmp", "/tmp"), (c"/var/tmp", "/var/tmp")];

/// A directory of `private_tmp` holds at most this part of the machine's memory where nothing else is said.
const TMP_PERCENT: u64 = 25;

/// The steps that build a sandbox, with every text that they need: doing them is system calls only.
#[derive(Debug)]
pub struct Prepared {
    steps: Vec<Step>,
    kept: Kept,
    own_memory: bool,
}

#[derive(Debug)]
struct Step {
    action: Action,
    /// The key that asks for it.
    key: &'static str,
    /// What it does, for "KEY: could not … ".
    what: String,
}

impl Prepared {
    /// Plans a sandbox for a process of this user; `None` where nothing is asked for. `tmp_max` bounds each
    /// directory of `private_tmp`, in bytes; absent: a quarter of the machine's memory.
    ///
    /// # Errors
    /// A sentence that names the key: a path that does not exist, or too many of them.
    pub fn new(sandbox: &Sandbox, uid: u32, gid: u32, tmp_max: Option<u64>) -> Result<Option<Self>, String> {
        let protects = sandbox.protect_system != ProtectSystem::No;
        let mounts = protects || sandbox.private_tmp;
        let mut plan = Self { steps: Vec::new(), kept: Kept::default(), own_memory: false };
        if mounts || sandbox.private_network {
            plan.namespaces(sandbox, mounts, uid, gid)?;
        }
        if mounts {
            // As systemd does: what the host mounts or unmounts later happens here too, nothing goes back.
            plan.step(first_key(sandbox), "part with the host's mounts", Action::Slave);
        }
        if protects {
            plan.protect(sandbox)?;
        }
        for (slot, path) in sandbox_paths(sandbox).into_iter().enumerate() {
            let what = format!("leave {} as it is", path.name);
            plan.step(path.key(), what, Action::PutBack { path: text(path.name)?, slot });
        }
        if sandbox.private_tmp {
            // After the rest, or a path that stays as it is could bring back what is to be hidden.
            for (path, name) in TEMPORARY.into_iter().filter(|(_, name)| Path::new(name).is_dir()) {
                let size = tmp_max.map_or_else(|| format!("{TMP_PERCENT}%"), |max| max.to_string());
                let options = text(&format!("mode=1777,size={size}"))?;
                let action = Action::Tmpfs { path: path.to_owned(), options };
                plan.step("private_tmp", format!("mount an empty {name}"), action);
            }
        }
        if sandbox.private_network {
            plan.step("private_network", "bring up its loopback", Action::Loopback);
        }
        if sandbox.no_new_privileges || plan.own_memory {
            plan.step("no_new_privileges", "give up new privileges", Action::NoNewPrivileges);
        }
        Ok((!plan.steps.is_empty()).then_some(plan))
    }

    fn step(&mut self, key: &'static str, what: impl Into<String>, action: Action) {
        self.steps.push(Step { action, key, what: what.into() });
    }

    fn namespaces(&mut self, sandbox: &Sandbox, mounts: bool, uid: u32, gid: u32) -> Result<(), String> {
        let key = first_key(sandbox);
        let mut flags = 0;
        if mounts {
            flags |= libc::CLONE_NEWNS;
        }
        if sandbox.private_network {
            flags |= libc::CLONE_NEWNET;
        }
        if uid == 0 {
            self.step(key, "get a namespace of its own", Action::Unshare(flags));
            return Ok(());
        }
        // The files of /proc/self belong to root in a process that changed its user and executed nothing
        // since; being "dumpable" mends that. It is said of a memory, so the process must have its own.
        self.own_memory = true;
        self.step(key, "become dumpable", Action::Dumpable);
        self.step(key, NO_USER_NAMESPACE, Action::Unshare(flags | libc::CLONE_NEWUSER));
        // In this order: a group may be mapped without privileges only once setgroups(2) is out of reach.
        for (file, line) in [
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/gid_map", format!("{gid} {gid} 1")),
            (c"/proc/self/uid_map", format!("{uid} {uid} 1")),
        ] {
            self.step(key, NO_USER_NAMESPACE, Action::Write { file, text: text(&line)? });
        }
        Ok(())
    }

    /// What stays writable is set aside, everything else made read-only, then it is put back by the end of
    /// [`Self::new`].
    fn protect(&mut self, sandbox: &Sandbox) -> Result<(), String> {
        for (slot, path) in sandbox_paths(sandbox).into_iter().enumerate() {
            if slot >= MAX_KEPT {
                return Err(format!("read_write_paths: more than {} paths", MAX_KEPT - KERNEL.len()));
            }
            if path.listed && fs::metadata(path.name).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
            {
                return Err(format!("read_write_paths: {} does not exist", path.name));
            }
            if sandbox.private_tmp
                && let Some((_, tmp)) =
                    TEMPORARY.iter().find(|(_, tmp)| Path::new(path.name).starts_with(tmp))
            {
                return Err(format!(
                    "read_write_paths: {} would be hidden by private_tmp, which makes {tmp} \
                                    writable anyway",
                    path.name
                ));
            }
            let what = format!("set {} aside", path.name);
            self.step(path.key(), what, Action::Keep { path: text(path.name)?, slot });
        }
        if sandbox.protect_system == ProtectSystem::Strict {
            let action = Action::ReadOnly { path: c"/".to_owned(), bind: false };
            self.step("protect_system", "make / read-only", action);
            return Ok(());
        }
        let etc = (sandbox.protect_system == ProtectSystem::Full).then_some("/etc");
        let own = |path: &&str| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
        for path in ["/usr"].into_iter().chain(SYSTEM).chain(etc).filter(own) {
            let action = Action::ReadOnly { path: text(path)?, bind: true };
            self.step("protect_system", format!("make {path} read-only"), action);
        }
        Ok(())
    }

    /// Whether the process that does it must not share its parent's memory.
    #[must_use]
    pub fn needs_own_memory(&self) -> bool {
        self.own_memory
    }

    /// Builds the sandbox around the calling process: one thread, system calls only, so it may be called
    /// between fork and exec.
    ///
    /// # Errors
    /// The number of the step that failed, for [`Self::explain`]; errno is the kernel's answer.
    pub fn enter(&self) -> Result<(), u32> {
        for (number, step) in (0..).zip(&self.steps) {
            if !step.action.run(&self.kept) {
                return Err(number);
            }
        }
        Ok(())
    }

    /// A sentence for a step that failed: key, step and reason.
    #[must_use]
    pub fn explain(&self, step: u32, errno: Errno) -> String {
        let failed = usize::try_from(step).ok().and_then(|n| self.steps.get(n));
        let Some(Step { key, what, action }) = failed else {
            return format!("its sandbox: {}", errno.desc());
        };
        match action {
            Action::Unshare(_) if !self.own_memory => format!(
                "{key}: the kernel gives root no namespace of its own: {} (a container without \
                 CAP_SYS_ADMIN? {DROP_IN})",
                errno.desc()
            ),
            _ if *what == NO_USER_NAMESPACE => format!(
                "{key}: needs a user namespace, which the kernel refuses to this user: {} (see the sysctls \
                 user.max_user_namespaces, kernel.unprivileged_userns_clone and \
                 kernel.apparmor_restrict_unprivileged_userns; {DROP_IN})",
                errno.desc()
            ),
            _ => format!("{key}: could not {what}: {}", errno.desc()),
        }
    }
}

/// What an administrator does whose unit is the shipped one.
const DROP_IN: &str = "the shipped systemd unit forbids namespaces: see sandbox.conf in \
                       /usr/share/doc/taskd/examples/drop-ins";

/// Marks the steps that fail where user namespaces are refused.
const NO_USER_NAMESPACE: &str = "make a user namespace";

/// A path that stays as it is.
#[derive(Clone, Copy)]
struct Spared<'a> {
    name: &'a str,
    /// It stands in `read_write_paths`.
    listed: bool,
}

impl Spared<'_> {
    fn key(self) -> &'static str {
        if self.listed { "read_write_paths" } else { "protect_system" }
    }
}

/// What stays as it is, parents before what lies below them.
fn sandbox_paths(sandbox: &Sandbox) -> Vec<Spared<'_>> {
    let mut paths = Vec::new();
    if sandbox.protect_system == ProtectSystem::No {
        return paths;
    }
    if sandbox.protect_system == ProtectSystem::Strict {
        paths.extend(KERNEL.map(|name| Spared { name, listed: false }));
    }
    paths.extend(sandbox.read_write_paths.iter().map(|name| Spared { name, listed: true }));
    paths.sort_by_key(|path| path.name.len());
    paths
}

/// The key to blame where a namespace cannot be had.
fn first_key(sandbox: &Sandbox) -> &'static str {
    if sandbox.protect_system != ProtectSystem::No {
        "protect_system"
    } else if sandbox.private_tmp {
        "private_tmp"
    } else {
        "private_network"
    }
}

fn text(s: &str) -> Result<CString, String> {
    CString::new(s).map_err(|_| format!("{s:?} has a NUL byte"))
}

/// Tries a sandbox for real, in a process of its own that executes nothing, as this process's user or as
/// `user` (only root may name another one).
///
/// # Errors
/// A sentence that names the key and what the kernel refused.
pub fn probe(sandbox: &Sandbox, user: Option<&Account>) -> Result<(), String> {
    let (uid, gid) = user.map_or_else(|| (geteuid().as_raw(), getegid().as_raw()), |u| (u.uid, u.gid));
    match Prepared::new(sandbox, uid, gid, None)? {
        None => Ok(()),
        Some(prepared) => {
            let user = user.filter(|u| u.uid != geteuid().as_raw());
            spawn::try_sandbox(&prepared, user).map_err(|e| e.to_string())
        }
    }
}
