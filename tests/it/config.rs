//! `taskd config`: effective values, their origin, the schema.

use super::harness::{Node, Setup};
use super::with;

#[test]
fn values_origins_and_schema_are_shown() {
    let node = Node::prepare(Setup::new(&with("[tasks.a]\ncommand = \"true\"\n")));
    let file = node.config_file();
    let file = file.to_str().unwrap();
    node.taskd(&["config", "--config", file]).code(0).shows(&["shutdown_grace", "10s", "[tasks.a]"]);
    let ran = node.taskd(&["config", "--config", file, "--show-origin"]).code(0);
    let line = ran.out.lines().find(|l| l.contains("shutdown_grace")).unwrap();
    assert!(line.contains("taskd.toml:2"), "{line}");
    assert!(ran.out.lines().any(|l| l.contains("state_dir") && l.contains("default")), "{}", ran.out);
    let schema = node.taskd(&["config", "--schema"]).code(0).json();
    assert!(schema["properties"]["tasks"].is_object(), "{schema}");
}
