//! `taskd tasks`: what is declared.

use super::harness::Node;
use super::with;

const TASKS: &str = r#"
[tasks.resize]
exec = ["/bin/true", "{width}", "{format}"]
params.width = "int"
params.format = { type = "string", default = "png" }
queue = "side"
[tasks.clean]
command = "true"
enabled = false
[queues.side]
"#;

#[test]
fn every_task_shows_its_kind_queue_and_parameters() {
    let node = Node::start(&with(TASKS));
    let all = node.json(&["tasks"]);
    let task = |name: &str| all.as_array().unwrap().iter().find(|t| t["name"] == name).cloned().unwrap();
    let resize = task("resize");
    assert_eq!((resize["kind"].as_str(), resize["queue"].as_str()), (Some("exec"), Some("side")));
    let params: Vec<_> = resize["params"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert!(params.iter().any(|p| p.starts_with("width=int")), "{params:?}");
    assert!(params.iter().any(|p| p.contains("format") && p.contains("png")), "{params:?}");
    assert_eq!(
        (task("clean")["kind"].as_str(), task("clean")["enabled"].as_bool()),
        (Some("command"), Some(false))
    );
    node.taskd(&["tasks"]).code(0).fits_80_columns().shows(&["resize", "clean", "width"]);
    // What is disabled is refused at enqueue.
    node.taskd(&["enqueue", "clean"]).fails().one_clear_line().says(&["clean"]);
}
