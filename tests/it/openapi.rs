//! `taskd openapi`: the API's description, and that the API is what it says.

use super::harness::{Node, Setup};
use super::with;

#[test]
fn every_path_it_names_is_served() {
    let node = Node::start_with(Setup::new(&with("")));
    let text = node.taskd(&["openapi"]).code(0).json();
    assert!(text["openapi"].as_str().unwrap().starts_with("3."), "{}", text["openapi"]);
    let mut http = node.http();
    let mut served = 0;
    for (path, verbs) in text["paths"].as_object().unwrap() {
        if verbs.get("get").is_none() {
            continue;
        }
        let named = |part: &str| match part {
            "{queue}" => "default".to_owned(),
            part if part.starts_with('{') => "nobody".to_owned(),
            part => part.to_owned(),
        };
        let path = path.split('/').map(named).collect::<Vec<_>>().join("/");
        let answer = http.ask("GET", &path, "").unwrap();
        // A message or a schedule that does not exist is an error of the API's own kind, not an unknown path.
        let known = answer.status == 200 || answer.json()["kind"].as_str().unwrap().starts_with("unknown_");
        assert!(known, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        served += 1;
    }
    assert!(served >= 8, "{served} paths");
}
