//! `kill -9` at random moments of, in turn, launcher, daemon, runner and child, under a steady load:
//! nothing accepted is lost, nothing is left behind, nothing runs twice without a reason.
//! `CYCLES=n` for more than 20, `SEED=n` to repeat the moments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::harness::node::is_final;
use super::harness::{Http, Node, procs, until};
use super::{ledger, with};

/// Longest time between the end of a task and the moment that this end is durable, on a busy machine.
const SETTLE_MS: i64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Launcher,
    Daemon,
    Runner,
    Child,
}

/// Moments of the kills, from a seed.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A client that never gives up: it makes the id, and repeats the request until it is answered.
pub struct Load {
    accepted: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    pub fn start(socket: PathBuf) -> Self {
        let (accepted, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (into, until_stop) = (Arc::clone(&accepted), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut connection = None;
            while !until_stop.load(Ordering::Relaxed) {
                let id = uuid::Uuid::now_v7().to_string();
                let body = json!([{"task": "note", "id": id}]).to_string();
                until("an answer to an enqueue", || {
                    let mut http = connection.take().or_else(|| Http::connect(&socket).ok())?;
                    let answer = http.ask("POST", "/v1/messages", &body).ok()?;
                    connection = Some(http);
                    // 503 while a new daemon starts is an answer too: not accepted, ask again.
                    (answer.status == 200).then_some(())
                });
                into.lock().unwrap().push(id);
                std::thread::sleep(Duration::from_millis(25)); // the load's pace, nothing waits for it
            }
        });
        Self { accepted, stop, thread: Some(thread) }
    }

    pub fn ids(&self) -> Vec<String> {
        self.accepted.lock().unwrap().clone()
    }

    pub fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.ids()
    }
}

/// What was seen of one kill.
struct Kill {
    target: Target,
    at: i64,
}

#[test]
fn nothing_is_lost_or_left_whatever_is_killed() {
    let seed = setting("SEED", u64::try_from(wall_ms()).unwrap() | 1);
    let cycles = setting("CYCLES", 20);
    println!("SEED={seed} CYCLES={cycles}");
    let mut draw = Draw(seed);
    let mut node = Node::start(&with(ledger::TASK));
    let load = Load::start(node.socket());
    let (mut kills, mut finals) = (Vec::new(), BTreeMap::new());
    for cycle in 0..cycles {
        std::thread::sleep(Duration::from_millis(50 + draw.below(400))); // the random moment
        let target = [Target::Launcher, Target::Daemon, Target::Runner, Target::Child][(cycle % 4) as usize];
        kills.push(strike(target, &mut node, &load, &mut draw));
        // A final state that was seen must be the one that is there at the end.
        for id in load.ids().into_iter().rev().take(20) {
            let Ok(mut http) = Http::connect(&node.socket()) else { continue };
            let Ok(answer) = http.ask("GET", &format!("/v1/messages/{id}"), "") else { continue };
            if answer.status == 200
                && let Some(state) = answer.json()["state"].as_str().filter(|s| is_final(s))
            {
                finals.insert(id, state.to_owned());
            }
        }
    }
    let ids = load.end();
    assert!(ids.len() as u64 > cycles * 3, "the load stood still: {} accepted", ids.len());
    let views = node.all_finished(&ids);
    let notes = ledger::read(node.path());
    let mut faults = Vec::new();
    for (id, view) in ids.iter().zip(&views) {
        faults.extend(faults_of(id, view, notes.get(id).map_or(&[], Vec::as_slice), &kills));
        if finals.get(id).is_some_and(|state| view["state"] != state.as_str()) {
            faults.push(format!("{id}: was {} and is {}", finals[id], view["state"]));
        }
    }
    assert!(faults.is_empty(), "SEED={seed}\n{}", faults.join("\n"));
    let known: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(procs::of_messages(&known), [], "SEED={seed}: processes of finished attempts");
    println!("{} accepted, {} kills", known.len(), kills.len());
}

fn strike(target: Target, node: &mut Node, load: &Load, draw: &mut Draw) -> Kill {
    let known = || load.ids().into_iter().collect::<BTreeSet<_>>();
    match target {
        Target::Launcher => {
            let at = wall_ms();
            node.kill_launcher();
            let orphans = procs::of_messages(&known());
            node.launch();
            for (pid, id) in orphans {
                let same = procs::lives(pid) && procs::variable(pid, "TASKD_ID").as_ref() == Some(&id);
                assert!(!same, "process {pid} of {id} outlived the next start");
            }
            Kill { target, at }
        }
        Target::Daemon => {
            let main = until("something that runs", || Some(mains(node, &known())).filter(|m| !m.is_empty()));
            let (old, at) = (node.daemon(), wall_ms());
            procs::kill9(old);
            for (pid, id) in main {
                until(&format!("the end of {id}, which ran while the daemon was killed"), || {
                    ledger::read(node.path()).get(&id)?.iter().find(|n| !n.start && n.pid == pid).map(drop)
                });
            }
            until("a new daemon", || (node.daemon() != old).then_some(()));
            Kill { target, at }
        }
        Target::Runner => {
            let runners = until("a runner", || Some(node.runners()).filter(|r| !r.is_empty()));
            let pick = runners[usize::try_from(draw.below(runners.len() as u64)).unwrap()];
            let at = wall_ms();
            procs::kill9(pick);
            Kill { target, at }
        }
        Target::Child => {
            let at = until("a task to kill", || {
                let (pid, _) = mains(node, &known()).into_iter().next()?;
                let at = wall_ms();
                procs::kill9(pid);
                Some(at)
            });
            Kill { target, at }
        }
    }
}

/// Main processes of running attempts; what they started themselves carries the same id.
fn mains(node: &Node, known: &BTreeSet<String>) -> Vec<(i32, String)> {
    let runners = node.runners();
    let below: BTreeSet<_> = runners.into_iter().flat_map(procs::children).collect();
    procs::of_messages(known).into_iter().filter(|(pid, _)| below.contains(pid)).collect()
}

/// What is wrong with one message.
fn faults_of(id: &str, view: &Value, notes: &[ledger::Entry], kills: &[Kill]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: &str| faults.push(format!("{id}: {what}\n  {view}\n  {notes:?}"));
    let (state, attempt) = (view["state"].as_str().unwrap_or(""), view["attempt"].as_u64().unwrap_or(0));
    let of_a_kill = view["outcome"]["cause"]["kind"] == "signal";
    match state {
        "SUCCESS" if notes.iter().any(|n| !n.start) => {}
        "SUCCESS" => fault("succeeded without having ended"),
        "FAILURE" if of_a_kill && kills.iter().any(|k| k.target == Target::Child) => {}
        _ => fault("ended in a state that no kill explains"),
    }
    let starts: Vec<_> = notes.iter().filter(|n| n.start).collect();
    if starts.iter().any(|n| n.attempt > attempt) {
        fault("ran more attempts than are counted");
    }
    for pair in starts.windows(2) {
        let ended = notes.iter().find(|n| !n.start && n.pid == pair[0].pid).map_or(i64::MAX, |n| n.at);
        let in_flight = |k: &Kill| {
            let interrupts = matches!(k.target, Target::Launcher | Target::Runner);
            interrupts
                && pair[0].at <= k.at + 50
                && k.at <= pair[1].at
                && k.at <= ended.saturating_add(SETTLE_MS)
        };
        if !kills.iter().any(in_flight) {
            fault("ran again though nothing that held it was killed");
        }
    }
    faults
}

#[test]
fn the_judge_of_this_test_is_not_blind() {
    let note = |start, attempt, pid, at| ledger::Entry { start, attempt, pid, at };
    let once = [note(true, 1, 10, 1_000), note(false, 1, 10, 1_030)];
    let twice = [once.to_vec(), vec![note(true, 2, 11, 9_000), note(false, 2, 11, 9_030)]].concat();
    let view = |state: &str, attempt: u64| json!({"state": state, "attempt": attempt, "outcome": {"cause": {"kind": "exit"}}});
    let kill = |target, at| [Kill { target, at }];
    let faults = |view: &Value, notes: &[_], kills: &[_]| faults_of("x", view, notes, kills).len();
    assert_eq!(faults(&view("SUCCESS", 1), &once, &[]), 0);
    assert_eq!(faults(&view("WAITING", 1), &once, &[]), 1, "not final");
    assert_eq!(faults(&view("FAILURE", 1), &once, &[]), 1, "nobody killed a child");
    assert_eq!(faults(&view("SUCCESS", 1), &once[..1], &[]), 1, "a success that never ended");
    assert_eq!(faults(&view("SUCCESS", 1), &twice, &kill(Target::Runner, 1_010)), 1, "uncounted attempt");
    assert_eq!(faults(&view("SUCCESS", 2), &twice, &kill(Target::Runner, 1_010)), 0);
    assert_eq!(
        faults(&view("SUCCESS", 2), &twice, &kill(Target::Launcher, 1_100)),
        0,
        "ended, not yet recorded"
    );
    assert_eq!(
        faults(&view("SUCCESS", 2), &twice, &kill(Target::Daemon, 1_010)),
        1,
        "a daemon's death is no reason"
    );
    assert_eq!(
        faults(&view("SUCCESS", 2), &twice, &kill(Target::Runner, 9_500)),
        1,
        "killed after the second start"
    );
    assert_eq!(
        faults(&view("SUCCESS", 2), &twice, &kill(Target::Runner, 8_000)),
        1,
        "killed long after the end"
    );
}
