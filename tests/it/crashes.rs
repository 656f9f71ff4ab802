//! `kill -9` of the daemon alone, again and again at random moments, under load with running attempts: no
//! attempt is interrupted, none runs twice, none is lost. `CRASHES=n` for more than 10, `SEED=n` to repeat
//! the moments.
//!
//! The launcher gives up a daemon that dies 5 times within a minute before it was ready for a second, so the
//! moments lie behind that second, but for one in four: fewer than the launcher bears.

use std::time::{Duration, Instant};

use super::harness::{Node, procs, until};
use super::kill::{Draw, Load, setting, wall_ms};
use super::ledger;

/// Four runners; beside the short task of the load one that outlives a daemon or two.
const CONFIG: &str = "[taskd]\nshutdown_grace = \"10s\"\n[pools.default]\nprocesses = 4\n[queues.long]\n\
[tasks.long]\nqueue = \"long\"\ncommand = '''\n\
echo \"start $TASKD_ID $TASKD_ATTEMPT $$ 0\" >>{dir}/ledger\nsleep 3\n\
echo \"end $TASKD_ID $TASKD_ATTEMPT $$ 0\" >>{dir}/ledger\n'''\n";

/// Early deaths that are dared within [`WINDOW`]: the launcher bears four, and a busy machine may make
/// another death early.
const DARED: usize = 2;

/// A little more than the minute in which the launcher counts.
const WINDOW: Duration = Duration::from_secs(65);

#[test]
fn no_attempt_notices_that_daemons_die() {
    let seed = setting("SEED", u64::try_from(wall_ms()).unwrap() | 1);
    let crashes = setting("CRASHES", 10);
    println!("SEED={seed} CRASHES={crashes}");
    let mut draw = Draw(seed);
    let mut node = Node::start(&format!("{CONFIG}{}", ledger::TASK));
    let launcher = node.launcher();
    let load = Load::start(node.socket());
    let (mut long, mut early, mut struck) = (Vec::new(), Vec::<Instant>::new(), 0_usize);
    for crash in 1..=crashes {
        let daemon = node.daemon();
        // As systemd does: a full notify socket would hold the launcher up.
        node.notify.forget();
        early.retain(|at| at.elapsed() < WINDOW);
        let moment = if draw.below(4) == 0 && early.len() < DARED {
            early.push(Instant::now());
            draw.below(300)
        } else {
            // An answer comes from a daemon that is ready, or is about to be.
            long.extend(node.enqueue_many("long", 2));
            1_500 + draw.below(700)
        };
        std::thread::sleep(Duration::from_millis(moment)); // the random moment
        let accepted = load.ids().into_iter().chain(long.iter().cloned()).collect();
        struck += procs::of_messages(&accepted).len();
        procs::kill9(daemon);
        until("the next daemon", || (node.daemon() != daemon).then_some(()));
        assert!(procs::lives(launcher), "SEED={seed}: the launcher gave up at crash {crash}");
    }
    let ids = [load.end(), long].concat();
    assert!(struck as u64 >= crashes, "hardly anything ran: {struck} processes");
    let views = node.all_finished(&ids);
    let notes = ledger::read(node.path());
    let mut faults = Vec::new();
    for (id, view) in ids.iter().zip(&views) {
        let of = notes.get(id).map_or(&[][..], Vec::as_slice);
        let (starts, ends) = (of.iter().filter(|n| n.start).count(), of.iter().filter(|n| !n.start).count());
        if (starts, ends) != (1, 1) || view["state"] != "SUCCESS" || view["attempt"] != 1 {
            faults.push(format!("{id}: {starts} starts, {ends} ends\n  {view}\n  {of:?}"));
        }
    }
    assert!(faults.is_empty(), "SEED={seed}\n{}", faults.join("\n"));
    assert_eq!(node.launcher(), launcher);
    println!("{} attempts, {struck} processes ran while a daemon was killed", ids.len());
}
