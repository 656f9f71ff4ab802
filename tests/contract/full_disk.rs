//! A disk that is really full: a small tmpfs, where this machine lets us mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use taskd::broker::sqlite::Options;
use taskd::model::message::Message;
use taskd::model::op::{Fault, Published, Reply};
use taskd::model::state::State;

use crate::harness::*;

/// A mounted tmpfs, unmounted when it is dropped.
struct Small {
    dir: Option<tempfile::TempDir>,
}

impl Small {
    fn mount(size: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|o| o.status.success()).then_some(Self { dir: Some(dir) })
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn ballast(small: &Small) -> PathBuf {
    small.path().join("ballast")
}

#[test]
fn a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space_again() {
    let Some(small) = Small::mount("40m") else {
        eprintln!("skipped: mounting a tmpfs needs root and the permission to mount");
        return;
    };
    let state = tempfile::Builder::new().prefix("state").tempdir_in(small.path()).unwrap();
    let mut h = Embedded::within(state, Options::default());
    assert!(h.dir.path().join("reserve").exists());
    h.ok(publish((0..100).map(|n| msg(&format!("run{n}"))).collect()));
    let held = lease(&mut h, 100);

    let big =
        |n: usize| Message { args: vec![serde_json::json!("x".repeat(200_000))], ..msg(&format!("m{n}")) };
    let mut accepted = 0;
    let why = loop {
        match h.one(publish(vec![big(accepted)])) {
            Ok(Reply::Published(r)) if r == [Published::New] => accepted += 1,
            Err(Fault::Again(why)) => break why,
            other => panic!("{other:?}"),
        }
        assert!(accepted < 1_000);
    };
    assert!(why.starts_with("no space left on"), "{why}");
    // Something else takes what the reserve had left, but for a little.
    assert!(!h.dir.path().join("reserve").exists());

    for d in &held {
        assert!(end(&mut h, settle(&d.message.id.0, d.token, State::Success)).0, "the ends have room");
    }
    assert!(matches!(h.one(publish(vec![msg("small")])), Err(Fault::Again(_))), "still tight");
    assert_eq!(count(&mut h), (accepted as u64, 0, 0, 0));

    // The disk is taken to the last byte: nothing can be written, and nothing breaks.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", ballast(&small).display()))
        .output();
    let answer = h.one(lease_at(1, 0));
    assert!(matches!(answer, Ok(_) | Err(Fault::Again(_))), "{answer:?}");
    std::fs::remove_file(ballast(&small)).unwrap();

    // Space again: the purge makes room inside the file, the mount is made larger.
    let grown = Command::new("mount").args(["-o", "remount,size=200m"]).arg(small.path()).output().unwrap();
    assert!(grown.status.success());
    assert_eq!(h.ok(publish(vec![msg("small")])), Reply::Published(vec![Published::New]));
    assert!(h.dir.path().join("reserve").exists());
    h.restart();
    let n = h.store().export(&mut |_| true).unwrap();
    assert_eq!(n as usize, accepted + 1);
    drop(h);
}

#[test]
fn a_disk_without_any_space_refuses_to_open() {
    let Some(small) = Small::mount("64k") else {
        eprintln!("skipped: mounting a tmpfs needs root and the permission to mount");
        return;
    };
    std::fs::write(small.path().join("ballast"), vec![0_u8; 60_000]).unwrap();
    let _ = std::fs::write(small.path().join("rest"), vec![0_u8; 8_000]);
    let e =
        taskd::broker::sqlite::Sqlite::open(small.path(), Options::default(), Box::new(|_| {})).unwrap_err();
    assert!(matches!(e, taskd::broker::sqlite::OpenError::NoSpace { .. }), "{e:?}: {e}");
}

#[test]
fn a_read_only_file_system_is_named() {
    let Some(small) = Small::mount("1m") else {
        eprintln!("skipped: mounting a tmpfs needs root and the permission to mount");
        return;
    };
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(small.path()).output().unwrap();
    assert!(remounted.status.success());
    let e =
        taskd::broker::sqlite::Sqlite::open(small.path(), Options::default(), Box::new(|_| {})).unwrap_err();
    assert!(matches!(e, taskd::broker::sqlite::OpenError::ReadOnly { .. }), "{e:?}: {e}");
}
