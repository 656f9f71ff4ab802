//! Children that come, stay, fail, and are replaced by a reload.

use super::*;
use crate::engine::event::Event;
use crate::engine::testbed::Bed;

#[test]
fn pauses_grow_to_their_bound() {
    assert_eq!([0, 1, 2, 3].map(|n| pause(n, true)), [0, 0, 100, 200]);
    assert_eq!([1, 2, 9, 10, 4_000_000].map(|n| pause(n, false)), [100, 200, 25_600, 30_000, 30_000]);
}

#[test]
fn a_slot_asks_for_one_child_and_waits_longer_after_each_failure() {
    let mut bed = Bed::bare(|p| p.pools.get_mut("default").unwrap().processes = 1);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let spawns = bed.take().iter().filter(|c| matches!(c, Command::Spawn { .. })).count();
        assert_eq!(spawns, 1);
        assert!(bed.engine.pools_up() != waits.is_empty(), "a failing pool does not hold READY for ever");
        let slot = SlotId { pool: "default".into(), index: 0 };
        bed.step(Event::SpawnFailed { slot, error: "no".into() });
        let at = bed.engine.next_deadline().unwrap();
        waits.push(at.since(bed.mono()));
        bed.pass(at.since(bed.mono()));
    }
    assert_eq!(waits, [100, 200, 400, 800]);
}

#[test]
fn a_slot_that_was_to_have_another_user_is_its_own_again_once_that_cannot_be_had() {
    let mut bed = Bed::bare(|p| {
        p.pools.get_mut("default").unwrap().processes = 1;
        let t = p.tasks.get("t").cloned().unwrap();
        p.tasks.insert("as-root".into(), crate::model::task::Task { user: Some("root".into()), ..t });
    });
    bed.come(1, 0);
    let spawned = |bed: &mut Bed| {
        let user = |c: Command| if let Command::Spawn { user, .. } = c { Some(user) } else { None };
        bed.take().into_iter().filter_map(user).collect::<Vec<_>>()
    };
    let own = spawned(&mut bed);
    bed.enqueue_task("m", "as-root");
    assert_eq!(spawned(&mut bed), ["root"]);
    // The child that makes room is still there when the other one fails.
    let slot = SlotId { pool: "default".into(), index: 0 };
    bed.step(Event::SpawnFailed { slot, error: "EAGAIN".into() });
    down(&mut bed, 1);
    bed.pass(100);
    assert_eq!(spawned(&mut bed), own);
}

fn degraded(bed: &Bed) -> Option<String> {
    bed.engine.view().pools.into_iter().find(|p| p.name == "default").unwrap().degraded
}

fn down(bed: &mut Bed, child: u64) {
    bed.step(Event::ChildDown { child: ChildKey(child), how: "exited with 3".into(), out_of_memory: false });
}

#[test]
fn children_that_do_not_stay_are_started_later_and_later_until_one_lasts() {
    let mut bed = Bed::bare(|p| p.pools.get_mut("default").unwrap().processes = 1);
    let mut waits = Vec::new();
    for child in 1..=4 {
        bed.come(child, 0);
        down(&mut bed, child);
        let at = bed.engine.next_deadline().map_or(0, |at| at.since(bed.mono()));
        waits.push(at);
        bed.pass(at);
    }
    assert_eq!(waits, [0, 100, 200, 400], "the first one is started at once");
    let trouble = degraded(&bed).unwrap();
    assert!(trouble.contains("children do not stay: exited with 3 (1 of 1 slots)"), "{trouble}");
    bed.come(5, 0);
    assert!(degraded(&bed).is_some(), "that it is ready proves nothing yet");
    bed.pass(SHORT_LIFE_MS);
    assert_eq!(degraded(&bed), None);
    let view = bed.engine.view();
    assert_eq!(view.pools[0].replaced.faults, 4);
}

#[test]
fn a_child_that_is_never_ready_or_breaks_the_protocol_is_killed_and_named() {
    let mut bed = Bed::bare(|p| p.pools.get_mut("default").unwrap().processes = 1);
    let slot = SlotId { pool: "default".into(), index: 0 };
    let (user, child) = ("run".to_owned(), ChildKey(1));
    bed.step(Event::ChildUp { child, slot, user, generation: 1, adopted: false, age_ms: 0 });
    bed.pass(READY_MS);
    let killed = |log: &[Command]| log.iter().any(|c| matches!(c, Command::End { kill: true, .. }));
    assert!(killed(&bed.take()));
    down(&mut bed, 1);
    assert!(degraded(&bed).unwrap().contains("did not say that it is ready within 60 s"));
    bed.come(2, 0);
    bed.pass(SHORT_LIFE_MS);
    assert_eq!(degraded(&bed), None);
    bed.take();
    bed.step(Event::Broken { child: ChildKey(2), why: "a line that is no JSON".into() });
    assert!(killed(&bed.log()));
    assert!(!bed.take().iter().any(|c| matches!(c, Command::Spawn { .. })), "not before it is gone");
    down(&mut bed, 2);
    assert!(degraded(&bed).unwrap().contains("a line that is no JSON"));
}

#[test]
fn a_lost_attempt_comes_back_and_the_third_makes_it_dead() {
    let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
    bed.enqueue("m");
    for _ in 0..3 {
        assert_eq!(bed.running().len(), 1);
        bed.kill_children();
        bed.pass(30_000);
    }
    assert_eq!(bed.state("m"), crate::model::state::State::Dead);
    assert!(bed.running().is_empty());
}

#[test]
fn a_reload_replaces_idle_children_at_once_and_busy_ones_after_their_attempt() {
    let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 2);
    bed.enqueue("m");
    bed.take();
    bed.reload(|_| {});
    let ended = |log: &[Command]| log.iter().filter(|c| matches!(c, Command::End { .. })).count();
    assert_eq!(ended(&bed.take()), 1, "the busy one goes on");
    let run = bed.running().pop().unwrap();
    bed.succeed(&run);
    assert_eq!(ended(&bed.take()), 1);
    assert_eq!(bed.state("m"), crate::model::state::State::Success);
    assert!(bed.engine.pools_up());
}
