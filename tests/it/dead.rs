//! `taskd dead`: letters listed, shown, retried, purged, exported.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Node, Setup};
use super::{kill, with};

/// `poison` ends the runner that runs it until it is mended.
const TASKS: &str = "[dead]\nmax_records = 1_000_000\n[queues.side]\n[tasks.poison]\n\
command = \"test -e {dir}/mended || { kill -9 $PPID; sleep 9; }\"\n\
[tasks.fails]\ncommand = \"echo on its way; exit 3\"\n[tasks.good]\ncommand = \"true\"\n";

fn letter(node: &Node) -> String {
    let id = node.enqueue(&["poison"]);
    assert_eq!(node.finished(&id)["state"], "DEAD");
    id
}

#[test]
fn a_letter_is_shown_and_begins_a_new_life() {
    let node = Node::start(&with(TASKS));
    assert_eq!(node.ok(&["dead", "list"]), "no dead letters\n");
    let id = letter(&node);
    let failed = node.enqueue(&["fails"]);
    node.finished(&failed);
    let listed = node.ok(&["dead", "list"]);
    assert!(listed.contains(&id) && listed.contains("worker_lost") && !listed.contains(&failed), "{listed}");
    assert!(node.ok(&["dead", "list", "--failed", "--task", "fa*", "--cause", "exit"]).contains(&failed));
    assert_eq!(node.ok(&["dead", "list", "--since", "2030-01-01 00:00"]), "no dead letters\n");
    let shown = node.ok(&["dead", "show", &id]);
    for word in ["poison", "3 lost", "worker_lost", &format!("taskd dead retry {id}")] {
        assert!(shown.contains(word), "{word:?} is missing in\n{shown}");
    }
    let shown = node.ok(&["dead", "show", &failed]);
    assert!(shown.contains("on its way") && shown.contains("dead retry --failed"), "{shown}");
    node.taskd(&["dead", "show", "nobody"]).code(69).one_clear_line();
    assert!(node.ok(&["queues"]).contains("default: 1 dead"));
    assert!(node.ok(&["status"]).contains("1 dead"));
    assert_eq!(node.queue("default")["dead"], 1);

    std::fs::write(node.path().join("mended"), "").unwrap();
    node.taskd(&["dead", "retry", &failed]).code(69).shows(&["no dead letter"]);
    node.ok(&["dead", "retry", &id, "--to-queue", "side", "--delay", "1s"]);
    let view = node.view(&id);
    assert_eq!((&view["state"], &view["queue"]), (&json!("SCHEDULED"), &json!("side")), "{view}");
    let view = node.finished(&id);
    let got = [&view["state"], &view["attempt"], &view["losses"]];
    assert_eq!(got, [&json!("SUCCESS"), &json!(1), &json!(0)]);
    assert_eq!(node.queue("default")["dead"], 0);
    node.taskd(&["dead", "show", &id]).code(73).one_clear_line();
    node.taskd(&["dead", "retry", "--yes", "--to-queue", "sid"]).code(69).says(&["side"]);
}

#[test]
fn a_bulk_counts_first_and_does_nothing_without_yes() {
    let node = Node::start(&with(TASKS));
    let letters: Vec<String> = (0..2).map(|_| letter(&node)).collect();
    let failed = node.enqueue(&["fails"]);
    node.finished(&failed);
    let dry = node.taskd(&["dead", "retry", "--failed"]).code(73);
    dry.shows(&[
        "3 dead letters would be put back",
        "2 DEAD of poison (worker_lost)",
        "1 FAILURE of fails (exit)",
    ])
    .says(&["--yes"]);
    assert_eq!(node.queue("default")["dead"], 2, "nothing was done");
    node.taskd(&["dead", "retry", "--task", "nothing*"]).code(0).shows(&["0 dead letters"]);
    let exported = node.ok(&["dead", "export"]);
    assert_eq!(exported.lines().count(), 2);
    node.taskd(&["dead", "purge", "--limit", "1"]).code(73).shows(&["1 dead letter would"]);
    node.taskd(&["dead", "purge", "--limit", "1", "--yes"]).code(0).shows(&["1 dead letter forgotten"]);
    std::fs::write(node.path().join("mended"), "").unwrap();
    node.ok(&["dead", "retry", "--yes"]);
    assert_eq!(node.finished(&letters[1])["state"], "SUCCESS");
    assert!(node.view(&letters[0])["outcome"].is_null(), "purged");

    // What was exported begins a new life elsewhere.
    let file = node.path().join("dead.ndjson");
    std::fs::write(&file, exported).unwrap();
    let other = Node::start_with(Setup::new(&with(TASKS)));
    std::fs::write(other.path().join("mended"), "").unwrap();
    other.ok(&["store", "import", file.to_str().unwrap()]);
    let view = other.finished(&letters[0]);
    assert_eq!((&view["state"], &view["attempt"]), (&json!("SUCCESS"), &json!(1)));
}

/// Puts so many letters into the store of a node that does not run. The last one is accepted as number n.
fn fill(node: &Node, n: u64) {
    let db = rusqlite::Connection::open(node.state_dir().join("queue.db")).unwrap();
    let outcome = json!({"cause": {"kind": "worker_lost"}, "success": false}).to_string();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
         INSERT INTO done(seq, id, queue, state, kept, attempt, losses, retries, started, finished, message, outcome) \
         SELECT 1000 + i, 'm' || i, (SELECT no FROM queue WHERE name = 'default'), 8, 3, 3, 3, 0, ?2, ?2 + i % 7, \
         CAST('{\"id\":\"m' || i || '\",\"task\":\"good\",\"queue\":\"default\",\"enqueued\":' || ?2 || '}' AS BLOB), \
         CAST(?3 AS BLOB) FROM n",
        (n.cast_signed(), kill::wall_ms(), outcome),
    )
    .unwrap();
    db.execute("UPDATE meta SET seq = ?1", [1_000 + n.cast_signed()]).unwrap();
}

/// `LETTERS=n` for more.
#[test]
fn a_bulk_of_many_holds_nobody_up() {
    let n = kill::setting("LETTERS", 20_000);
    let mut node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    let first = node.enqueue(&["good"]);
    node.ok(&["cancel", &first]);
    assert_eq!(node.stop(), 0);
    fill(&node, n);
    node.launch();
    assert_eq!(node.queue("default")["dead"], n);
    let mut bulk = node.command(&["dead", "retry", "--yes", "--json"]);
    let began = Instant::now();
    let bulk = std::thread::spawn(move || bulk.output().unwrap());
    let mut slowest = Duration::ZERO;
    let mut http = node.http();
    while !bulk.is_finished() {
        let asked = Instant::now();
        http.ask("POST", "/v1/messages", &json!({"task": "good"}).to_string()).unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    let done = bulk.join().unwrap();
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    println!("{n} letters in {:?}, the slowest enqueue beside it took {slowest:?}", began.elapsed());
    assert_eq!((&done["matched"], &done["done"]), (&json!(n), &json!(n)), "{done}");
    assert!(slowest < Duration::from_secs(2), "an enqueue waited for {slowest:?}");
    let queue = node.queue("default");
    assert_eq!(queue["dead"], 0);
    assert!(queue["waiting"].as_u64() >= Some(n), "{queue}");
    node.ok(&["store", "verify", "--timeout", "5m"]);
}
