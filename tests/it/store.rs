//! `taskd store backup|verify|export|import`.

use super::harness::{Node, Setup};
use super::with;

const OK: &str = "[tasks.ok]\ncommand = \"echo ran\"\n";

#[test]
fn a_backup_taken_under_load_is_whole() {
    let node = Node::start(&with(OK));
    let done = node.enqueue_many("ok", 50);
    let copy = node.path().join("copy.db");
    node.ok(&["store", "backup", copy.to_str().unwrap()]);
    node.ok(&["store", "verify"]);
    let left = std::fs::read_dir(node.state_dir()).unwrap().map(|f| f.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
    let db = rusqlite::Connection::open(&copy).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    node.all_finished(&done);
    node.taskd(&["store", "backup", "/nonexistent/dir/copy.db"]).fails().one_clear_line();
}

#[test]
fn waiting_messages_move_from_one_store_to_another() {
    let mut old = Node::start(&with(OK));
    old.ok(&["pause", "default"]);
    let waiting = old.enqueue_many("ok", 20);
    let later = old.enqueue(&["ok", "--in", "1h", "--priority", "7"]);
    let text = old.ok(&["store", "export"]);
    assert_eq!(text.lines().count(), 21);
    assert_eq!(old.stop(), 0);
    let file = old.path().join("export.jsonl");
    std::fs::write(&file, &text).unwrap();

    let new = Node::start_with(Setup::new(&with(OK)));
    new.ok(&["store", "import", file.to_str().unwrap()]);
    new.ok(&["store", "import", file.to_str().unwrap()]); // a repeat changes nothing
    for id in &waiting {
        let view = new.finished(id);
        assert_eq!((view["state"].as_str(), view["attempt"].as_u64()), (Some("SUCCESS"), Some(1)), "{view}");
    }
    let view = new.view(&later);
    assert_eq!((view["state"].as_str(), view["priority"].as_u64()), (Some("SCHEDULED"), Some(7)), "{view}");
}

#[test]
fn a_message_of_a_queue_that_is_not_declared_is_refused_by_its_line() {
    let node = Node::start(&with(OK));
    node.ok(&["pause", "default"]);
    let id = node.enqueue(&["ok"]);
    let line = node.ok(&["store", "export"]);
    let gone = line.replace(&id, "other").replace("\"queue\":\"default\"", "\"queue\":\"gone\"");
    let file = node.path().join("export.jsonl");
    std::fs::write(&file, format!("{line}{gone}")).unwrap();
    let ran = node.taskd(&["store", "import", file.to_str().unwrap()]).fails();
    ran.says(&["line 2", "gone", "[queues.gone]"]);
    node.taskd(&["status", "other"]).code(69);
}

#[test]
fn an_export_leaves_no_workflow_out_unasked() {
    let node = Node::start(&with("[tasks.t]\ncommand = 'true'\n"));
    node.ok(&["pause", "default"]);
    node.ok(&["enqueue", "t"]);
    node.ok(&["chain", "--id", "w", "t", "--", "t"]);
    let refused = node.taskd(&["store", "export"]).code(73);
    assert!(refused.err.contains("1 workflow is not over") && refused.out.is_empty(), "{}", refused.err);
    assert_eq!(node.ok(&["store", "export", "--leave-workflows"]).lines().count(), 2);
    node.ok(&["cancel", "w"]);
    assert_eq!(node.ok(&["store", "export"]).lines().count(), 1);
}
