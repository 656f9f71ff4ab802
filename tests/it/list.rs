//! `taskd list`: filters, order, width.

use serde_json::Value;

use super::harness::Node;
use super::with;

const TASKS: &str = r#"
[tasks.good]
command = "true"
[tasks.bad]
command = "exit 1"
[queues.side]
[tasks."a_task_with_quite_a_long_name_that_does_not_fit_into_a_column.at_all"]
command = "true"
queue = "side"
"#;

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap()).collect()
}

#[test]
fn filters_select_and_the_newest_comes_first() {
    let node = Node::start(&with(TASKS));
    let good = node.enqueue(&["good"]);
    let bad = node.enqueue(&["bad"]);
    let long = node.enqueue(&["a_task_with_quite_a_long_name_that_does_not_fit_into_a_column.at_all"]);
    node.all_finished(&[&good, &bad, &long]);
    assert_eq!(ids(&node.json(&["list"])), [&long, &bad, &good]);
    assert_eq!(ids(&node.json(&["list", "--state", "failure"])), [&bad]);
    assert_eq!(ids(&node.json(&["list", "--state", "SUCCESS,FAILURE", "--queue", "default"])), [&bad, &good]);
    assert_eq!(ids(&node.json(&["list", "--task", "good"])), [&good]);
    assert_eq!(ids(&node.json(&["list", "--queue", "side"])), [&long]);
    assert_eq!(ids(&node.json(&["list", "--since", "1h"])).len(), 3);
    assert_eq!(ids(&node.json(&["list", "--since", "2100-01-01T00:00:00Z"])).len(), 0);
    node.taskd(&["list"]).code(0).fits_80_columns().shows(&["good", "SUCCESS", "FAILURE"]);
    node.taskd(&["list", "--state", "SUCESS"]).fails().one_clear_line().says(&["SUCESS", "SUCCESS"]);
}
