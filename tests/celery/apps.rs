//! A Celery app in a pool of the real program, called by an unmodified client over Redis: `apps.py` says how.

use std::process::Command;

use crate::harness::{Node, PATIENCE, Ran, Setup};
use crate::redis_server::Redis;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/celery");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv-celery/bin/python");

fn node(redis: &Redis, preload: bool) -> Node {
    let url = redis.url(0);
    Node::start_with(Setup::new(&format!(
        "[taskd]\nbroker = \"{url}\"\n[pools.default]\nprocesses = 1\n[pools.shop]\nprocesses = 2\npreload = {preload}\n\
         celery_app = \"shopapp:app\"\npython = \"{PYTHON}\"\nworking_directory = \"{HERE}\"\n\
         environment = {{ SHOP_URL = \"{url}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n\
         [queues.shop]\npool = \"shop\"\n[queues.plain]\n[tasks.\"shopapp.*\"]\nqueue = \"shop\"\n"
    )))
}

fn served(preload: bool) {
    let redis = Redis::start();
    let node = node(&redis, preload);
    let mut client = Command::new(PYTHON);
    client.arg(format!("{HERE}/apps.py")).arg(redis.url(0)).env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = Ran::of(&mut client, 4 * PATIENCE);
    assert!(ran.code == 0, "{}\n{}\n--- the node:\n{}", ran.out, ran.err, node.log());
}

#[test]
fn an_app_does_what_it_does_under_celery_worker() {
    served(false);
}

#[test]
fn an_app_that_is_loaded_once_does_the_same() {
    served(true);
}
