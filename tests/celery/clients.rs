//! Unmodified clients of Celery against the real program: `clients.py` says what they do.

use std::process::Command;

use crate::harness::{Node, PATIENCE, Ran, Setup};
use crate::redis_server::Redis;

/// Tasks of a shop, as commands.
const TASKS: &str = r#"
[pools.default]
processes = 3
[queues.celery]
[defaults]
result = "json"
queue = "celery"
dash_dash = false
[tasks."shop.add"]
exec = ["sh", "-c", "echo $(($1 + $2))", "sh"]
[tasks."shop.named"]
exec = ["python3", "-c", "import json,sys; print(json.dumps(json.load(sys.stdin)['kwargs']))"]
stdin = "json"
[tasks."shop.fail"]
exec = ["sh", "-c", "exit 3", "sh"]
[tasks."shop.sum"]
exec = ["python3", "-c", "import json,sys; print(sum(json.load(sys.stdin)['args'][0]))"]
stdin = "json"
[tasks."shop.flat"]
exec = ["python3", "-c", "import json,sys; f=lambda x: sum(map(f,x)) if isinstance(x,list) else x; print(f(json.load(sys.stdin)['args']))"]
stdin = "json"
[tasks."shop.echo"]
exec = ["sh", "-c", "printf '\"%s\"' \"$1\"", "sh"]
[tasks."shop.sleep"]
exec = ["sleep"]
"#;

fn node(redis: &Redis) -> Node {
    let config = format!("[taskd]\nbroker = \"{}\"\n{TASKS}", redis.url(0));
    Node::start_with(Setup::new(&config))
}

#[test]
fn a_client_gets_what_it_would_get_of_celery() {
    holds_for(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv-celery/bin/python"));
}

#[test]
fn so_does_one_of_celery_5_2() {
    holds_for(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv-celery-5.2/bin/python"));
}

fn holds_for(python: &str) {
    let redis = Redis::start();
    let node = node(&redis);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/celery/clients.py");
    let ran = Ran::of(Command::new(python).arg(script).arg(redis.url(0)), 3 * PATIENCE);
    assert!(ran.code == 0, "{}\n{}\n--- the node:\n{}", ran.out, ran.err, node.log());
}
