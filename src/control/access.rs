//! Who may do what: `[access]` and a task's `allow`, against the peer of the socket. Deny by default.
//!
//! Names are exact: no patterns, no numbers. They are resolved once per (re)load, because a name service
//! can be slow or away, and a request must not wait for it.

use std::collections::BTreeMap;

use crate::config::settings::Access;

use super::api::{Peer, Rights};

/// Finds the numbers of users and groups.
pub trait Resolver {
    /// The uid of this user.
    fn uid(&self, user: &str) -> Option<u32>;
    /// The gid of this group.
    fn gid(&self, group: &str) -> Option<u32>;
}

/// The system's own: getpwnam(3), getgrnam(3). It may block; asked at start and at a reload only.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Resolver for System {
    fn uid(&self, user: &str) -> Option<u32> {
        nix::unistd::User::from_name(user).ok().flatten().map(|u| u.uid.as_raw())
    }

    fn gid(&self, group: &str) -> Option<u32> {
        nix::unistd::Group::from_name(group).ok().flatten().map(|g| g.gid.as_raw())
    }
}

/// Users and groups by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Set {
    fn add(&mut self, who: Who) {
        let (list, id) = match who {
            Who::User(uid) => (&mut self.uids, uid),
            Who::Group(gid) => (&mut self.gids, gid),
        };
        if !list.contains(&id) {
            list.push(id);
        }
    }

    fn has(&self, peer: &Peer) -> bool {
        self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
            || peer.groups.iter().any(|g| self.gids.contains(g))
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    User(u32),
    Group(u32),
}

/// The rules of one generation of the settings.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    owner: u32,
    read: Set,
    enqueue: Set,
    admin: Set,
    /// Everybody named in any task's `allow`.
    somewhere: Set,
    names: BTreeMap<String, Who>,
    unresolved: Vec<String>,
}

impl Policy {
    /// The rules of `[access]` and of every task's `allow` list (`allows`), resolved now. `owner` is the
    /// uid that started taskd: it and root may do everything.
    pub fn new<'a>(
        access: &Access,
        allows: impl IntoIterator<Item = &'a [String]>,
        owner: u32,
        resolver: &dyn Resolver,
    ) -> Self {
        let mut policy = Self { owner, ..Self::default() };
        policy.read = policy.resolve(&access.read, resolver);
        policy.enqueue = policy.resolve(&access.enqueue, resolver);
        policy.admin = policy.resolve(&access.admin, resolver);
        for allow in allows {
            for who in policy.resolve(allow, resolver).into_members() {
                policy.somewhere.add(who);
            }
        }
        policy
    }

    fn resolve(&mut self, names: &[String], resolver: &dyn Resolver) -> Set {
        let mut set = Set::default();
        for name in names {
            let known = self.names.get(name).copied().or_else(|| match name.strip_prefix('@') {
                Some(group) => resolver.gid(group).map(Who::Group),
                None => resolver.uid(name).map(Who::User),
            });
            match known {
                Some(who) => {
                    self.names.insert(name.clone(), who);
                    set.add(who);
                }
                None if self.unresolved.contains(name) => {}
                None => self.unresolved.push(name.clone()),
            }
        }
        set
    }

    /// Names that no user or group has: they allow nobody. For the log and `taskd status`.
    #[must_use]
    pub fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// What this peer may do by `[access]`.
    #[must_use]
    pub fn rights(&self, peer: &Peer) -> Rights {
        let admin = peer.uid == 0 || peer.uid == self.owner || self.admin.has(peer);
        Rights { read: admin || self.read.has(peer), enqueue: admin || self.enqueue.has(peer), admin }
    }

    /// Whether this peer may enqueue at least one task: `[access] enqueue` or any task's `allow`.
    #[must_use]
    pub fn may_enqueue_something(&self, peer: &Peer, rights: &Rights) -> bool {
        rights.admin || rights.enqueue || self.somewhere.has(peer)
    }

    /// Whether this peer may enqueue a task with this `allow`; without one `[access] enqueue` decides.
    #[must_use]
    pub fn may_enqueue(&self, task_allow: Option<&[String]>, peer: &Peer, rights: &Rights) -> bool {
        if rights.admin {
            return true;
        }
        let Some(allow) = task_allow else { return rights.enqueue };
        allow.iter().filter_map(|name| self.names.get(name)).any(|who| match who {
            Who::User(uid) => peer.uid == *uid,
            Who::Group(gid) => peer.gid == *gid || peer.groups.contains(gid),
        })
    }
}

impl Set {
    fn into_members(self) -> impl Iterator<Item = Who> {
        self.uids.into_iter().map(Who::User).chain(self.gids.into_iter().map(Who::Group))
    }
}

/// Whether a peer may read a message that `owner` enqueued: by `read`, or because it is his own.
#[must_use]
pub fn may_read_message(owner: Option<u32>, peer: &Peer, rights: &Rights) -> bool {
    rights.read || rights.admin || owner == Some(peer.uid)
}

/// Whether a peer may cancel a message that `owner` enqueued: as an administrator, or because it is his own.
#[must_use]
pub fn may_change_message(owner: Option<u32>, peer: &Peer, rights: &Rights) -> bool {
    rights.admin || owner == Some(peer.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Resolver for Fake {
        fn uid(&self, user: &str) -> Option<u32> {
            match user {
                "root" => Some(0),
                "alice" => Some(1001),
                "bob" => Some(1002),
                _ => None,
            }
        }

        fn gid(&self, group: &str) -> Option<u32> {
            match group {
                "web" => Some(50),
                // The number of a user must not open a door meant for a group, nor the other way round.
                "staff" => Some(1002),
                _ => None,
            }
        }
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, groups: groups.to_vec(), pid: 1 }
    }

    fn policy(read: &[&str], enqueue: &[&str], admin: &[&str], allow: &[&str]) -> Policy {
        let access = Access {
            read: names(read),
            enqueue: names(enqueue),
            admin: names(admin),
            celery_control: Default::default(),
        };
        Policy::new(&access, [names(allow).as_slice()], 900, &Fake)
    }

    #[test]
    fn nobody_named_means_only_root_and_the_owner() {
        let p = policy(&[], &[], &[], &[]);
        let all = Rights { read: true, enqueue: true, admin: true };
        assert_eq!(p.rights(&peer(0, 0, &[])), all);
        assert_eq!(p.rights(&peer(900, 900, &[])), all);
        assert_eq!(p.rights(&peer(1001, 0, &[0, 900])), Rights::default());
        assert!(!p.may_enqueue_something(&peer(1001, 0, &[0]), &Rights::default()));
    }

    #[test]
    fn users_match_by_uid_and_groups_by_primary_or_supplementary_gid() {
        let p = policy(&["@web"], &["alice"], &["bob"], &[]);
        assert_eq!(p.rights(&peer(7, 50, &[])), Rights { read: true, ..Rights::default() });
        assert_eq!(p.rights(&peer(7, 7, &[1, 50])), Rights { read: true, ..Rights::default() });
        assert_eq!(p.rights(&peer(1001, 7, &[])), Rights { enqueue: true, ..Rights::default() });
        assert!(p.rights(&peer(1002, 7, &[])).admin);
        assert_eq!(p.rights(&peer(50, 7, &[1001, 1002])), Rights::default());
    }

    #[test]
    fn a_name_without_a_user_allows_nobody_and_is_told() {
        let p = policy(&["carol", "@carols", "1003", "*"], &["carol"], &[], &[]);
        assert_eq!(p.rights(&peer(1003, 1003, &[1003])), Rights::default());
        assert_eq!(p.unresolved(), names(&["carol", "@carols", "1003", "*"]));
    }

    #[test]
    fn allow_replaces_access_enqueue() {
        let p = policy(&[], &["alice"], &[], &["bob", "@web"]);
        let allow = names(&["bob", "@web"]);
        for (who, with_allow, without) in [
            (peer(1001, 7, &[]), false, true),
            (peer(1002, 7, &[]), true, false),
            (peer(7, 7, &[50]), true, false),
            (peer(7, 7, &[1002]), false, false),
            (peer(0, 0, &[]), true, true),
            (peer(900, 0, &[]), true, true),
        ] {
            let rights = p.rights(&who);
            assert_eq!(p.may_enqueue(Some(&allow), &who, &rights), with_allow, "{who:?}");
            assert_eq!(p.may_enqueue(None, &who, &rights), without, "{who:?}");
            assert_eq!(p.may_enqueue_something(&who, &rights), with_allow || without, "{who:?}");
            // A list that nobody resolved is a list of nobody.
            assert_eq!(p.may_enqueue(Some(&[]), &who, &rights), rights.admin);
        }
    }

    #[test]
    fn his_own_message_may_be_read_and_canceled() {
        let none = Rights::default();
        let read = Rights { read: true, ..none };
        let alice = peer(1001, 1, &[]);
        assert!(may_read_message(Some(1001), &alice, &none) && may_change_message(Some(1001), &alice, &none));
        assert!(!may_read_message(Some(1002), &alice, &none) && !may_read_message(None, &alice, &none));
        assert!(may_read_message(None, &alice, &read) && !may_change_message(None, &alice, &read));
    }
}
