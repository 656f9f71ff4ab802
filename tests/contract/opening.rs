//! Opening the embedded store: what is refused, and how it is said.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use taskd::broker::sqlite::{OpenError, Options, Sqlite};

use crate::harness::*;

fn refused(dir: &Path) -> OpenError {
    Sqlite::open(dir, Options::default(), Box::new(|_| {})).expect_err("it must not open")
}

/// Every refusal names the place and what to do.
fn assert_helps(e: &OpenError, words: &[&str]) {
    let text = e.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// A directory with a store of one message, closed.
fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, done) = open(dir.path(), Options::default());
    use taskd::broker::Broker;
    store.submit(vec![(taskd::model::op::Ticket(1), publish(vec![msg("a")]))]);
    done.recv().unwrap().1.unwrap();
    store.close();
    dir
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_store_in_order_opens_with_private_files() {
    let dir = closed();
    for file in ["queue.db", "store.id", "store.lock", "reserve"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert!(!dir.path().join("store.unclean").exists());
    assert!(!dir.path().join("queue.db-wal").exists(), "closed in order: nothing is left in the log");
    let mut h = Embedded::within(dir, Options::default());
    assert_eq!(count(&mut h), (1, 0, 0, 0));
}

#[test]
fn a_directory_that_is_not_there_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let e = refused(&dir.path().join("nothing"));
    assert!(matches!(e, OpenError::Missing { .. }), "{e:?}");
    assert_helps(&e, &["nothing", "does not exist", "install -d"]);
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(refused(&dir.path().join("file")), OpenError::NotADirectory { .. }));
    assert!(matches!(refused(&dir.path().join("file/deeper")), OpenError::NotADirectory { .. }));
}

#[test]
fn a_directory_of_somebody_else() {
    if !is_root() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let dir = closed();
    chown(dir.path(), Some(65_534), None).unwrap();
    let e = refused(dir.path());
    assert!(matches!(e, OpenError::Owner { owner: 65_534, .. }), "{e:?}");
    assert_helps(&e, &["65534", "chown"]);
}

#[test]
fn a_directory_without_permission() {
    if is_root() {
        eprintln!("skipped: root has every permission");
        return;
    }
    let dir = closed();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    fs::remove_file(dir.path().join("store.lock")).ok();
    let e = refused(dir.path());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(e, OpenError::Denied { .. } | OpenError::ReadOnly { .. }), "{e:?}");
}

#[test]
fn a_second_process_is_told_the_first_ones_pid() {
    let h = Embedded::new();
    let e = refused(h.dir.path());
    assert!(matches!(e, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{e:?}");
    assert_helps(&e, &["already open by pid"]);
}

#[test]
fn a_store_that_is_gone_or_empty_is_never_replaced_by_an_empty_one() {
    let dir = closed();
    fs::write(dir.path().join("queue.db"), "").unwrap();
    assert_helps(&refused(dir.path()), &["gone or empty", "store.id"]);
    fs::remove_file(dir.path().join("queue.db")).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Vanished { .. }));
    assert!(!dir.path().join("queue.db").exists());
    fs::remove_file(dir.path().join("store.id")).unwrap();
    let mut h = Embedded::within(dir, Options::default());
    assert_eq!(count(&mut h), (0, 0, 0, 0));
}

#[test]
fn a_store_that_is_cut_off() {
    let dir = closed();
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("queue.db")).unwrap();
    file.set_len(8_192).unwrap();
    let e = refused(dir.path());
    assert!(matches!(e, OpenError::Truncated { has: 8_192, .. }), "{e:?}");
    assert_helps(&e, &["damaged", "backup"]);
    file.set_len(50).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NotAStore { .. }));
}

#[test]
fn a_file_that_is_something_else() {
    let dir = closed();
    fs::write(dir.path().join("queue.db"), "x".repeat(10_000)).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NotAStore { .. }));
    fs::remove_file(dir.path().join("queue.db")).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    other.execute_batch("CREATE TABLE theirs(x)").unwrap();
    drop(other);
    let e = refused(dir.path());
    assert!(matches!(e, OpenError::NotAStore { .. }), "{e:?}");
    assert_helps(&e, &["another program"]);
}

#[test]
fn a_store_of_a_newer_version_stays_as_it_is() {
    let dir = closed();
    let newer = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    newer.execute_batch("PRAGMA user_version=99").unwrap();
    drop(newer);
    let e = refused(dir.path());
    assert!(matches!(e, OpenError::Newer { found: 99, .. }), "{e:?}");
    assert_helps(&e, &["newer", "backup"]);
}

#[test]
fn a_store_that_was_swapped() {
    let (one, other) = (closed(), closed());
    fs::copy(other.path().join("queue.db"), one.path().join("queue.db")).unwrap();
    assert!(matches!(refused(one.path()), OpenError::Replaced { .. }));
}

#[test]
fn damage_is_looked_for_after_the_machine_went_down() {
    let dir = closed();
    let path = dir.path().join("queue.db");
    let mut bytes = fs::read(&path).unwrap();
    // The roots of the indexes: every page but the first, which says what the file is.
    for byte in bytes.iter_mut().skip(4_096 * 4) {
        *byte = 0xa5;
    }
    fs::write(&path, bytes).unwrap();
    fs::write(dir.path().join("store.unclean"), "another boot").unwrap();
    let e = refused(dir.path());
    assert!(matches!(e, OpenError::Corrupt { .. }), "{e:?}");
    assert_helps(&e, &["damaged", "backup"]);
}

#[test]
fn random_damage_never_opens_as_something_else() {
    use proptest::test_runner::{Config, TestRunner};
    let dir = closed();
    let path = dir.path().join("queue.db");
    let sound = fs::read(&path).unwrap();
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let flips = proptest::collection::vec((0..sound.len(), 1..=255_u8), 1..200);
    TestRunner::new(config)
        .run(&flips, |flips| {
            let mut bytes = sound.clone();
            for (at, with) in flips {
                bytes[at] ^= with;
            }
            fs::write(&path, bytes).unwrap();
            fs::write(dir.path().join("store.unclean"), "another boot").unwrap();
            for log in ["queue.db-wal", "queue.db-shm"] {
                let _ = fs::remove_file(dir.path().join(log));
            }
            // Refused, or open with the message readable, or with the damage found by `verify`.
            if let Ok(store) = Sqlite::open(dir.path(), Options::default(), Box::new(|_| {})) {
                let mut found = Vec::new();
                let read = store.export(&mut |r| {
                    found.push(r.message);
                    true
                });
                // A flipped bit inside a value stays a value: SQLite keeps no checksums. A message that is
                // missing without a word is what must not be.
                let there = read.is_ok() && found.len() == 1;
                assert!(there || !store.verify().is_empty(), "silent damage: {found:?}");
            }
            Ok(())
        })
        .unwrap();
}
