//! Backup, verify, export and import of the embedded store.

use taskd::broker::sqlite::Options;
use taskd::model::message::Message;
use taskd::model::op::Op;
use taskd::model::state::State;

use crate::harness::*;

#[test]
fn a_backup_is_a_store() {
    let mut h = Embedded::new();
    h.ok(publish((0..500).map(|n| msg(&format!("m{n}"))).collect()));
    let token = lease(&mut h, 1)[0].token;
    end(&mut h, settle("m0", token, State::Success));
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("queue.db");
    h.store().backup(&copy).unwrap();
    h.ok(publish(vec![msg("after")]));
    assert!(h.store().backup(&copy).is_err(), "it does not overwrite");

    let mut restored = Embedded::within(elsewhere, Options::default());
    assert_eq!(count(&mut restored), (499, 0, 0, 0));
    assert_eq!(get(&mut restored, "m0").unwrap().state, State::Success);
    assert_eq!(get(&mut restored, "after"), None);
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    let h = Embedded::new();
    let nowhere = h.dir.path().join("nothing/copy.db");
    let e = h.store().backup(&nowhere).unwrap_err().to_string();
    assert!(e.contains("nothing/copy.db"), "{e}");
}

#[test]
fn work_goes_on_during_a_backup() {
    let mut h = Embedded::fast();
    h.ok(publish((0..2_000).map(|n| msg(&format!("m{n}"))).collect()));
    let admin = h.store().admin();
    let copy = h.dir.path().join("copy.db");
    let backup = std::thread::spawn(move || admin.backup(&copy));
    for n in 0..200 {
        h.ok(publish(vec![msg(&format!("n{n}"))]));
    }
    backup.join().unwrap().unwrap();
}

#[test]
fn export_and_import_move_what_is_not_final() {
    let mut h = Embedded::new();
    finish(&mut h, "done", 0, None);
    let long = Message { args: vec![serde_json::json!("x".repeat(5_000))], ..msg("long") };
    h.ok(publish(vec![msg("a"), long, Message { eta: Some(at(100)), ..msg("later") }]));
    h.ok(publish((0..300).map(|n| msg(&format!("m{n}"))).collect()));
    lease(&mut h, 1);
    let mut records = Vec::new();
    let n = h.store().export(&mut |r| {
        records.push((r.message, r.attempt));
        true
    });
    assert_eq!(n, Ok(303));
    assert_eq!((records[0].0.id.clone(), records[0].1), (id("a"), 1));
    let mut first = 0;
    h.store()
        .export(&mut |_| {
            first += 1;
            false
        })
        .unwrap();
    assert_eq!(first, 1, "it stops when it is told to");

    let mut other = Embedded::new();
    let admin = other.store().admin();
    assert_eq!(admin.import(records.clone(), at(0)), Ok(303));
    assert_eq!(admin.import(records, at(0)), Ok(0), "a repeat changes nothing");
    assert_eq!(count(&mut other), (302, 1, 0, 0));
    let d = lease(&mut other, 2);
    assert_eq!((d[0].message.id.clone(), d[0].attempt), (id("a"), 2), "attempts never fall");
    assert_eq!(d[1].message, h_long(&mut h));
}

fn h_long(h: &mut Embedded) -> Message {
    get(h, "long").unwrap().message
}

#[test]
fn verify_names_what_is_wrong() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a"), msg("b"), msg("c")]));
    h.assert_sound();
    let behind = rusqlite::Connection::open(h.dir.path().join("queue.db")).unwrap();
    behind.execute("UPDATE live SET message = 'no JSON' WHERE seq = 1", []).unwrap();
    behind.execute("DELETE FROM live WHERE seq = 2", []).unwrap();
    behind.execute("UPDATE live SET state = 2 WHERE seq = 3", []).unwrap();
    drop(behind);
    let found = h.store().verify().join("\n");
    for word in ["row 1 cannot be understood", "c: RUNNING without a lease", "queue q: counted"] {
        assert!(found.contains(word), "{word:?} is missing in:\n{found}");
    }
    h.store.take();
}

#[test]
fn a_message_that_cannot_be_understood_does_not_stop_its_queue() {
    let mut h = Embedded::new();
    h.ok(publish(vec![msg("a"), msg("b")]));
    let behind = rusqlite::Connection::open(h.dir.path().join("queue.db")).unwrap();
    behind.execute("UPDATE live SET message = '{}' WHERE seq = 1", []).unwrap();
    drop(behind);
    assert_eq!(leased_ids(&mut h, 10, 0), ["b"]);
    assert_eq!(count(&mut h), (0, 0, 1, 1), "it is set aside and counted");
    let answer = h.one(Op::Get { id: id("a") });
    assert!(matches!(answer, Err(taskd::model::op::Fault::Poison(_))), "{answer:?}");
    h.store.take();
}

#[test]
fn a_closed_store_says_so() {
    let mut h = Embedded::new();
    let admin = h.store().admin();
    h.store.take().unwrap().close();
    assert_eq!(admin.verify().len(), 1);
    assert!(admin.import(vec![(msg("a"), 0)], at(0)).is_err());
}
