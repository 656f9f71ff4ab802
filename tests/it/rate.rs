//! Limits over the real thing: rates over restarts, one customer that does not hold up the others, places, a
//! backlog behind a limit, and `taskd rate`.

use serde_json::{Value, json};

use super::harness::{Node, procs, until};
use super::with;

/// The times at which these were started, in order, as taskd recorded them (milliseconds).
fn starts(node: &Node, ids: &[String]) -> Vec<i64> {
    let mut starts: Vec<i64> =
        node.all_finished(ids).iter().map(|view| view["started"].as_i64().unwrap()).collect();
    starts.sort_unstable();
    starts
}

/// So long a process may take to start once it is decided, in milliseconds: the machine may be busy.
const LATE: i64 = 300;

/// No window of these has more than its share of one per interval, in milliseconds, and one.
#[track_caller]
fn apart(starts: &[i64], interval: i64) {
    for (i, from) in starts.iter().enumerate() {
        for (n, to) in (0_i64..).zip(&starts[i..]) {
            assert!(to - from >= n * interval - LATE, "{} starts in {} ms: {starts:?}", n + 1, to - from);
        }
    }
}

/// Enqueues one of a task with this customer for each of the list.
fn of_customers(node: &Node, task: &str, customers: &[u32]) -> Vec<String> {
    let batch = customers.iter().map(|c| json!({"task": task, "kwargs": {"customer": c}}));
    node.http().enqueue(&Value::Array(batch.collect()))
}

const PER_CUSTOMER: &str = "[tasks.mail]\ncommand = \"true\"\nparams.customer = \"int\"\n\
rate_limit = \"1/h\"\nrate_limit_key = \"customer\"\n";

const BY_CUSTOMER: &str = "[tasks.sync]\ncommand = \"echo $customer >{dir}/up; read x <{dir}/go\"\n\
params.customer = \"int\"\nconcurrency = 1\nconcurrency_key = \"customer\"\n";

#[test]
fn a_rate_holds_also_while_daemons_and_launchers_die() {
    let mut node = Node::start(&with("[tasks.tick]\ncommand = \"true\"\nrate_limit = \"2/s\"\n"));
    let ids = node.enqueue_many("tick", 12);
    node.finished(&ids[2]);
    let daemon = node.daemon();
    procs::kill9(daemon);
    until("the next daemon", || (node.daemon() != daemon).then_some(()));
    node.finished(&ids[5]);
    node.kill_launcher();
    node.launch();
    node.finished(&ids[8]);
    assert_eq!(node.stop(), 0);
    node.launch();
    apart(&starts(&node, &ids), 500);
}

#[test]
fn a_slow_rate_is_on_the_disk_before_its_start() {
    let mut node = Node::start(&with("[tasks.once]\ncommand = \"true\"\nrate_limit = \"1/d\"\n"));
    let ids = node.enqueue_many("once", 2);
    node.finished(&ids[0]);
    node.kill_launcher();
    node.launch();
    let why = node.json(&["why", &ids[1]])["why"].as_str().unwrap().to_owned();
    assert!(why.contains("rate_limit 1/d of the task once"), "{why}");
    assert_eq!(node.view(&ids[1])["state"], "WAITING");
}

#[test]
fn one_customer_that_is_blocked_does_not_hold_up_the_others() {
    let node = Node::start(&with(PER_CUSTOMER));
    let blocked = of_customers(&node, "mail", &[1; 40]);
    let others = of_customers(&node, "mail", &[2, 3, 4, 5]);
    node.all_finished(&others);
    node.finished(&blocked[0]);
    assert_eq!(node.queue("default")["waiting"], 39);
    let said = until("the reason", || {
        let said = node.json(&["why", &blocked[20]])["why"].as_str().unwrap().to_owned();
        said.contains("rate_limit").then_some(said)
    });
    assert!(said.contains("1/h of the task mail (customer = 1): its next start is in"), "{said}");
    // By name or by position, as a number or a text: one customer.
    let same = node.enqueue(&["mail", "--", "2"]);
    until("it is turned away", || {
        let view = node.view(&same);
        (view["state"] == "WAITING" && node.queue("default")["waiting"] == 40).then_some(())
    });
}

#[test]
fn a_place_for_each_customer() {
    let node = Node::start(&with(BY_CUSTOMER));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let ids = of_customers(&node, "sync", &[7, 7, 7, 8]);
    let mut first = [up.line(), up.line()];
    first.sort();
    assert_eq!(first, ["7", "8"], "not two of 7");
    let why = until("the reason", || {
        let said = node.json(&["why", &ids[1]])["why"].as_str().unwrap().to_owned();
        said.contains("place").then_some(said)
    });
    assert!(why.contains("the task sync (customer = 7) runs 1 of at most 1 at once"), "{why}");
    let running = node.http().get("/v1/queues");
    assert_eq!(running[0]["running"], 2);
    go.release(1);
    go.release(1);
    assert_eq!(up.line(), "7");
    go.release(1);
    assert_eq!(up.line(), "7");
    go.release(1);
    node.all_finished(&ids);
}

#[test]
fn a_place_is_free_again_when_its_holder_is_killed() {
    let mut node = Node::start(&with(
        "[tasks.one]\ncommand = \"echo $TASKD_ID >{dir}/up; read x <{dir}/go\"\nconcurrency = 1\n",
    ));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let ids = node.enqueue_many("one", 2);
    assert_eq!(up.line(), ids[0]);
    node.kill_launcher();
    node.launch();
    let again = up.line();
    go.release(1);
    let last = up.line();
    assert_ne!(again, last);
    go.release(1);
    node.all_finished(&ids);
}

#[test]
fn a_rate_of_a_queue_holds_all_of_it_and_nothing_else() {
    let node = Node::start(&with(
        "[tasks.a]\ncommand = \"true\"\n[tasks.b]\ncommand = \"true\"\n[queues.slow]\nrate_limit = \"5/s\"\n",
    ));
    let slow: Vec<String> =
        ["a", "b", "a", "b"].iter().map(|task| node.enqueue(&[task, "--queue", "slow"])).collect();
    let free = node.enqueue_many("a", 20);
    node.all_finished(&free);
    apart(&starts(&node, &slow), 200);
    assert!(node.ok(&["queues"]).contains("slow: 5/s start at most"));
}

#[test]
fn rate_changes_what_waits_already_and_lasts_as_it_says() {
    let mut node = Node::start(&with(PER_CUSTOMER));
    let ids = of_customers(&node, "mail", &[1; 30]);
    node.finished(&ids[0]);
    assert_eq!(node.ok(&["rate", "mail"]).trim(), "mail: 1/h for each customer (from the config)");
    node.ok(&["rate", "mail", "100/s"]);
    node.all_finished(&ids);
    let shown = node.json(&["rate", "mail"]);
    assert_eq!((&shown["rate"], &shown["from"]), (&json!("100/s"), &json!("now")));
    assert!(node.ok(&["tasks"]).contains("mail: at most 100/s for each customer"));
    node.ok(&["reload"]);
    assert_eq!(node.json(&["rate", "mail"])["from"], "config");
    // Kept, it outlives both.
    node.ok(&["rate", "mail", "none", "--keep"]);
    node.ok(&["reload"]);
    node.kill_launcher();
    node.launch();
    let shown = node.json(&["rate", "mail"]);
    assert_eq!(
        (&shown["rate"], &shown["from"], &shown["config"]),
        (&Value::Null, &json!("kept"), &json!("1/h"))
    );
    let more = of_customers(&node, "mail", &[1; 10]);
    node.all_finished(&more);
    node.ok(&["rate", "mail", "default"]);
    assert_eq!(node.json(&["rate", "mail"])["from"], "config");
    assert_eq!(node.stop(), 0);
    node.launch();
    assert_eq!(node.json(&["rate", "mail"])["from"], "config");
}

#[test]
fn rate_says_what_it_does_not_understand() {
    let node = Node::start(&with("[tasks.mail]\ncommand = \"true\"\n[queues.side]\n"));
    node.taskd(&["rate", "mial"]).code(69).one_clear_line().says(&["mial", "mail"]);
    node.taskd(&["rate", "side"]).code(69).one_clear_line().says(&["--queue"]);
    node.taskd(&["rate", "sied", "--queue"]).code(69).one_clear_line().says(&["side"]);
    for bad in ["10", "0/s", "10/w", "fast"] {
        node.taskd(&["rate", "mail", bad]).code(64).one_clear_line();
    }
    node.taskd(&["rate", "mail", "none", "--burst", "3"]).code(64).one_clear_line();
    node.taskd(&["rate", "mail", "default", "--keep"]).code(64).one_clear_line();
    let shown = node.json(&["rate", "side", "5/m", "--burst", "3", "--queue"]);
    assert_eq!(shown["rate"], "5/m (burst 3)");
    assert_eq!(node.queue("side")["rate"], "5/m (burst 3)");
}

#[test]
fn a_long_line_of_blocked_messages_costs_others_nothing_and_no_memory() {
    const N: u32 = 20_000;
    let node = Node::start(&with(&format!("{PER_CUSTOMER}[tasks.free]\ncommand = \"true\"\n")));
    node.all_finished(&node.enqueue_many("free", 20)); // everything is up
    let daemon = node.daemon();
    let before = procs::pss(daemon);
    let mut ids = Vec::new();
    for customers in (0..N).collect::<Vec<_>>().chunks(500) {
        // Each has one that may start and one that may not.
        let twice: Vec<u32> = customers.iter().map(|c| c % 500).collect();
        ids.extend(of_customers(&node, "mail", &twice));
    }
    // The first of each customer runs; all the others are looked at once and put aside.
    node.all_finished(&ids[..500]);
    until("all but one of each customer are put aside", || {
        let free = node.enqueue_many("free", 1);
        let view = node.finished(&free[0]);
        let waited = view["waited_ms"].as_u64().unwrap();
        (waited < 1_000).then_some(())
    });
    assert_eq!(node.queue("default")["waiting"], N - 500);
    if let (Some(before), Some(after)) = (before, procs::pss(daemon)) {
        let grown = after.saturating_sub(before);
        assert!(grown < 20 << 20, "the daemon grew by {} KiB", grown >> 10);
    }
}
