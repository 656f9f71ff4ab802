//! Becoming another user, for good.
//!
//! Order: supplementary groups, gid, uid, then proof. Everything that asks the name service is done before,
//! as root, by [`Account::lookup`]. `no_new_privs` is left as it was: with it `sudo` or `ping` inside a task
//! would fail, and a task runs as a user that the administrator chose, with exactly that user's rights;
//! `no_new_privileges` is a task's own key.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, geteuid, getppid, getresgid, getresuid, setgroups, setresgid, setresuid};

/// Most groups asked for: the kernel's own bound (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// A user with all that is needed to become it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups, the primary one included.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: PathBuf,
    /// Its shell.
    pub shell: PathBuf,
}

/// Why a process is not the user that it should be. It must end: it may be half-way.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeFault {
    /// Nobody has this name.
    #[error("the user {0:?} does not exist; create it or change `user`")]
    Unknown(String),
    /// The name service failed.
    #[error("looking up the user {name:?} failed: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A process that is not root wants to be someone else.
    #[error("only root can become {wanted:?}; this process has uid {uid}")]
    NotRoot {
        /// The name.
        wanted: String,
        /// Who asks.
        uid: u32,
    },
    /// A system call failed.
    #[error("{call} failed while becoming {wanted:?}: {source}")]
    Call {
        /// Which.
        call: &'static str,
        /// The name.
        wanted: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel says this is still not (only) the wanted user.
    #[error("the change to {wanted:?} did not hold: {what}")]
    NotHeld {
        /// The name.
        wanted: String,
        /// What was found.
        what: String,
    },
}

impl Account {
    /// Looks a user up by name, its groups included.
    ///
    /// # Errors
    /// [`PrivilegeFault::Unknown`] or [`PrivilegeFault::Lookup`].
    pub fn lookup(name: &str) -> Result<Self, PrivilegeFault> {
        let failed = |source: Errno| PrivilegeFault::Lookup { name: name.to_owned(), source: source.into() };
        let user = User::from_name(name).map_err(failed)?;
        let user = user.ok_or_else(|| PrivilegeFault::Unknown(name.to_owned()))?;
        let groups = group_list(name, user.gid.as_raw()).map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups,
            home: user.dir,
            shell: user.shell,
        })
    }

    /// The name of this uid, or the uid as a text where it has none.
    #[must_use]
    pub fn name_of(uid: u32) -> String {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name)
    }
}

/// getgrouplist(3) tells how many groups there are when its array was too small, and some name services
/// tell too few at first: ask until it fits.
fn group_list(name: &str, gid: u32) -> Result<Vec<u32>, Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut room: usize = 64;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let mut count = libc::c_int::try_from(room).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `groups` holds `count` entries, `name` is NUL-ended, both outlive the call.
        let done = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let told = usize::try_from(count).unwrap_or(0);
        if done >= 0 {
            groups.truncate(told);
            return Ok(groups);
        }
        if room >= MAX_GROUPS {
            return Err(Errno::ENOMEM);
        }
        room = told.max(room * 2).min(MAX_GROUPS);
    }
}

/// Becomes this user, for good and provably. Does nothing when that is already so and this process is not
/// root.
///
/// # Errors
/// See [`PrivilegeFault`]; the process may then be half-way and must end without doing anything else.
pub fn become_user(account: &Account) -> Result<(), PrivilegeFault> {
    let wanted = || account.name.clone();
    let call = |call| move |e: Errno| PrivilegeFault::Call { call, wanted: wanted(), source: e.into() };
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if !geteuid().is_root() {
        let ids = getresuid().map_err(call("getresuid"))?;
        if [ids.real, ids.effective, ids.saved].iter().all(|u| *u == uid) {
            return Ok(());
        }
        return Err(PrivilegeFault::NotRoot { wanted: wanted(), uid: geteuid().as_raw() });
    }
    let groups: Vec<Gid> = account.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    setgroups(&groups).map_err(call("setgroups"))?;
    setresgid(gid, gid, gid).map_err(call("setresgid"))?;
    setresuid(uid, uid, uid).map_err(call("setresuid"))?;
    prove(account, uid, gid)
}

fn prove(account: &Account, uid: Uid, gid: Gid) -> Result<(), PrivilegeFault> {
    let not_held = |what: String| PrivilegeFault::NotHeld { wanted: account.name.clone(), what };
    let uids = getresuid().map_err(|e| not_held(e.to_string()))?;
    let gids = getresgid().map_err(|e| not_held(e.to_string()))?;
    if [uids.real, uids.effective, uids.saved].iter().any(|u| *u != uid) {
        return Err(not_held(format!("uids are {uids:?}")));
    }
    if [gids.real, gids.effective, gids.saved].iter().any(|g| *g != gid) {
        return Err(not_held(format!("gids are {gids:?}")));
    }
    let root = Uid::from_raw(0);
    if !uid.is_root() && setresuid(root, root, root).is_ok() {
        return Err(not_held("it could become root again (CAP_SETUID was kept)".to_owned()));
    }
    Ok(())
}

/// Has the kernel kill this process when its parent dies. To be called after the last change of user, which
/// clears it, and from the main thread of a process that was forked by the parent's main thread.
/// `parent` is who it should be: if that one is gone already, nobody will tell us any more.
///
/// # Errors
/// When the parent is gone.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let now = getppid().as_raw();
    if u32::try_from(now).is_ok_and(|now| now == parent) {
        return Ok(());
    }
    Err(io::Error::other(format!("the launcher (pid {parent}) is gone")))
}

/// Keeps other processes of the same user from reading this one's memory and descriptors (and from a core
/// dump that would hold secrets).
///
/// # Errors
/// None known.
pub fn not_dumpable() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_has_its_group() {
        let root = Account::lookup("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(Account::name_of(0), "root");
    }

    #[test]
    fn an_unknown_user_is_told_by_name() {
        let fault = Account::lookup("no-such-user-here").unwrap_err();
        assert!(matches!(fault, PrivilegeFault::Unknown(_)), "{fault}");
        assert!(fault.to_string().contains("no-such-user-here"));
        assert!(Account::lookup("a\0b").is_err());
    }

    #[test]
    fn an_unknown_uid_shows_as_a_number() {
        assert_eq!(Account::name_of(4_294_000_001), "4294000001");
    }
}
