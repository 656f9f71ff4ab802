//! Becoming another user, for good.
//!
//! Order: what only root can set up ([`Setup`]), supplementary groups, gid, uid, then proof. Everything that
//! asks the name service is done before, as root, by [`Account::lookup`]. `no_new_privs` is left as it was: with it `sudo` or `ping` inside a task
//! would fail, and a task runs as a user that the administrator chose, with exactly that user's rights;
//! `no_new_privileges` is a task's own key.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgroups, getppid, getresgid, getresuid, setfsuid, setgroups,
    setresgid, setresuid,
};
use serde::{Deserialize, Serialize};

use super::spawn::{IOPRIO_WHO_PROCESS, io_priority};
use crate::config::settings::Identity;
use crate::model::task::{IoClass, Surroundings};

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
    /// No group has this name.
    #[error("the group {0:?} does not exist; create it or change `group` or `supplementary_groups`")]
    UnknownGroup(String),
    /// What only root can set up was refused.
    #[error("{what} cannot be set: {source}")]
    Setup {
        /// The key and its value.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The name service failed.
    #[error("looking up {name:?} failed: {source}")]
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
        let user = find_user(name).map_err(failed)?;
        let user = user.ok_or_else(|| PrivilegeFault::Unknown(name.to_owned()))?;
        Self::of(user, None, &[])
    }

    /// Looks up everything that an identity names; absent where it names nothing. As with systemd's `Group=`,
    /// a group that is named takes the place of the user's own primary group.
    ///
    /// # Errors
    /// As for [`Account::lookup`], and [`PrivilegeFault::UnknownGroup`].
    pub fn find(identity: &Identity) -> Result<Option<Self>, PrivilegeFault> {
        let Identity { user, group, supplementary_groups } = identity;
        if user.is_none() && group.is_none() && supplementary_groups.is_empty() {
            return Ok(None);
        }
        let name = user.clone().unwrap_or_else(|| Self::name_of(geteuid().as_raw()));
        let failed = |source: Errno| PrivilegeFault::Lookup { name: name.clone(), source: source.into() };
        let user = find_user(&name).map_err(failed)?;
        let user = user.ok_or_else(|| PrivilegeFault::Unknown(name.clone()))?;
        let gid = group.as_deref().map(group_id).transpose()?;
        let more = supplementary_groups.iter().map(|g| group_id(g)).collect::<Result<Vec<_>, _>>()?;
        Self::of(user, gid, &more).map(Some)
    }

    fn of(user: User, gid: Option<u32>, more: &[u32]) -> Result<Self, PrivilegeFault> {
        let gid = gid.unwrap_or(user.gid.as_raw());
        let failed =
            |source: Errno| PrivilegeFault::Lookup { name: user.name.clone(), source: source.into() };
        let mut groups = group_list(&user.name, gid).map_err(failed)?;
        for group in more {
            if !groups.contains(group) {
                groups.push(*group);
            }
        }
        Ok(Self { uid: user.uid.as_raw(), gid, groups, home: user.dir, shell: user.shell, name: user.name })
    }

    /// The name of this uid, or the uid as a text where it has none.
    #[must_use]
    pub fn name_of(uid: u32) -> String {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name)
    }
}

/// A NUL would end the process inside nix: a name that holds one is nobody's.
fn find_user(name: &str) -> Result<Option<User>, Errno> {
    if name.contains('\0') { Ok(None) } else { User::from_name(name) }
}

/// The gid of the group of this name.
///
/// # Errors
/// [`PrivilegeFault::UnknownGroup`] or [`PrivilegeFault::Lookup`].
pub fn group_id(name: &str) -> Result<u32, PrivilegeFault> {
    let unknown = || PrivilegeFault::UnknownGroup(name.to_owned());
    if name.contains('\0') {
        return Err(unknown());
    }
    let found = Group::from_name(name)
        .map_err(|e| PrivilegeFault::Lookup { name: name.to_owned(), source: e.into() })?;
    Ok(found.ok_or_else(unknown)?.gid.as_raw())
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

/// Whether this process has this user's uid and every group that the identity names.
#[must_use]
pub fn is_already(account: &Account, identity: &Identity) -> bool {
    let groups = getgroups().unwrap_or_default();
    let has = |group: &String| group_id(group).is_ok_and(|gid| groups.contains(&Gid::from_raw(gid)));
    geteuid().as_raw() == account.uid
        && (identity.group.is_none() || getegid().as_raw() == account.gid)
        && identity.supplementary_groups.iter().all(has)
}

/// The uid of the user of this name, where there is one.
#[must_use]
pub fn uid_of(name: &str) -> Option<u32> {
    find_user(name).ok().flatten().map(|user| user.uid.as_raw())
}

/// Does something with files as this user would (setfsuid(2)): what is opened meanwhile has that user's rights,
/// also where the kernel asks for the rights of who opened it. Of this thread only, and only where it is root.
pub fn with_files_of<T>(uid: u32, action: impl FnOnce() -> T) -> T {
    struct Back(Uid);
    impl Drop for Back {
        fn drop(&mut self) {
            setfsuid(self.0);
        }
    }
    let back = Back(geteuid());
    setfsuid(Uid::from_raw(uid));
    let done = action();
    drop(back);
    done
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
    let sorted = |groups: &mut dyn Iterator<Item = u32>| {
        let mut all: Vec<u32> = groups.collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let groups = getgroups().map_err(|e| not_held(e.to_string()))?;
    let groups = sorted(&mut groups.iter().map(|g| g.as_raw()));
    if groups != sorted(&mut account.groups.iter().copied()) {
        return Err(not_held(format!("its groups are {groups:?}")));
    }
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    if !uid.is_root() && setresuid(root.0, root.0, root.0).is_ok() {
        return Err(not_held("it could become root again (CAP_SETUID was kept)".to_owned()));
    }
    if !uid.is_root() && gid != root.1 && setresgid(root.1, root.1, root.1).is_ok() {
        return Err(not_held("it could take root's group again (CAP_SETGID was kept)".to_owned()));
    }
    Ok(())
}

/// What is set before root is given up, because nobody else may; children inherit it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// `nice`.
    pub nice: Option<i32>,
    /// `io_class`.
    pub io_class: Option<IoClass>,
    /// `limit_nofile`.
    pub limit_nofile: Option<u64>,
}

impl Setup {
    /// All of what a task asks for.
    #[must_use]
    pub fn of(asked: &Surroundings) -> Self {
        Self { nice: asked.nice, io_class: asked.io_class, limit_nofile: asked.limit_nofile }
    }

    /// Sets it for this process and all that it starts. Only the hard limit of open files is raised: the soft
    /// one is for the program itself.
    ///
    /// # Errors
    /// [`PrivilegeFault::Setup`] names the key.
    pub fn apply(&self) -> Result<(), PrivilegeFault> {
        let fault = |what: String, source: io::Error| PrivilegeFault::Setup { what, source };
        if let Some(nice) = self.nice {
            // SAFETY: a plain system call with integers.
            let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            Errno::result(done).map_err(|e| fault(format!("nice = {nice}"), e.into()))?;
        }
        if let Some(class) = self.io_class {
            set_io_class(class).map_err(|e| fault(format!("io_class {class:?}"), e))?;
        }
        if let Some(files) = self.limit_nofile {
            let told = |e: Errno| fault(format!("limit_nofile = {files}"), e.into());
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(told)?;
            if files > hard {
                setrlimit(Resource::RLIMIT_NOFILE, soft, files).map_err(told)?;
            }
        }
        Ok(())
    }
}

/// Sets the I/O scheduling class of this process, at the middle one of its levels.
fn set_io_class(class: IoClass) -> io::Result<()> {
    // SAFETY: ioprio_set(2) takes three integers and touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, io_priority(class)) };
    Errno::result(done)?;
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
    fn groups_that_are_named_take_the_place_of_the_users_own() {
        let find = |user: Option<&str>, group: Option<&str>, more: &[&str]| {
            Account::find(&Identity {
                user: user.map(str::to_owned),
                group: group.map(str::to_owned),
                supplementary_groups: more.iter().map(|g| (*g).to_owned()).collect(),
            })
        };
        assert_eq!(find(None, None, &[]).unwrap(), None);
        // On every Debian: daemon is uid and gid 1, bin is gid 2, sys is gid 3.
        let made = find(Some("daemon"), Some("bin"), &["sys", "bin"]).unwrap().unwrap();
        assert_eq!((made.uid, made.gid, made.groups.as_slice()), (1, 2, [2, 3].as_slice()));
        let fault = find(Some("daemon"), None, &["no-such-group"]).unwrap_err();
        assert!(matches!(&fault, PrivilegeFault::UnknownGroup(name) if name == "no-such-group"), "{fault}");
        assert!(find(Some("daemon"), Some("b\0n"), &[]).is_err());
        assert!(find(Some("no-such-user-here"), None, &[]).is_err());
    }

    #[test]
    fn an_unknown_uid_shows_as_a_number() {
        assert_eq!(Account::name_of(4_294_000_001), "4294000001");
    }
}
