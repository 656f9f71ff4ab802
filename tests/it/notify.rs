//! `taskd notify`, and who is told of what becomes of a task: by a program, a webhook and a mail.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Node, Setup, procs, until};
use super::with;

mod https;

const NOTIFY: &str = "taskd.notify";

/// A script that everybody may execute, in a directory that everybody may write to.
fn script(node: &Node, name: &str, text: &str) {
    let dir = node.path();
    let path = dir.join(name);
    std::fs::write(&path, text.replace("{dir}", &dir.to_string_lossy())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let told = dir.join("told");
    std::fs::create_dir_all(&told).unwrap();
    std::fs::set_permissions(&told, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// Writes each notice into a file of its own: what was there before is never written over.
const KEEP: &str = "#!/bin/sh\nset -e\ncat >{dir}/told/$TASKD_ID.part\n\
    { echo; env | sort; } >>{dir}/told/$TASKD_ID.part\nmv {dir}/told/$TASKD_ID.part {dir}/told/$TASKD_ID.$TASKD_NOTICE_KIND\n\
    echo kept\n";

/// What was told so far: the JSON and the environment.
fn told(node: &Node) -> Vec<(Value, String)> {
    let Ok(entries) = std::fs::read_dir(node.path().join("told")) else { return Vec::new() };
    let mut all: Vec<(Value, String)> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_none_or(|e| e != "part"))
        .map(|p| {
            let text = std::fs::read_to_string(p).unwrap();
            let (json, env) = text.split_once("\n\n").unwrap();
            (serde_json::from_str(json).unwrap(), env.to_owned())
        })
        .collect();
    all.sort_by_key(|(json, _)| json["at"].as_i64());
    all
}

fn kinds(node: &Node) -> Vec<String> {
    told(node).iter().map(|(json, _)| json["kind"].as_str().unwrap().to_owned()).collect()
}

/// Nothing is on its way any more: every message of the store is final.
fn quiet(node: &Node) {
    until("every notice told", || {
        let list = node.json(&["list", "--task", NOTIFY]);
        let all = list.as_array().unwrap();
        all.iter().all(|m| super::harness::node::is_final(m["state"].as_str().unwrap())).then_some(())
    });
}

fn run(node: &Node, task: &str) -> Value {
    node.finished(&node.enqueue(&[task]))
}

fn prepared(config: &str) -> Node {
    let node = Node::prepare(Setup::new(&with(config)));
    script(&node, "keep", KEEP);
    node
}

const FLAKY: &str =
    "[tasks.flaky]\ncommand = \"for n in $(seq 60); do echo line $n; done; test -e {dir}/good || exit 3\"\n";

#[test]
fn a_program_is_told_of_a_failure_with_its_last_lines_and_of_the_end_of_it() {
    let mut node = prepared(&format!(
        "[notify]\non_failure = {{ exec = [\"{{dir}}/keep\"] }}\non_recovery = {{ exec = [\"{{dir}}/keep\"] }}\n\
         [tasks.quiet]\ncommand = \"exit 1\"\non_failure = false\non_recovery = false\n{FLAKY}"
    ));
    node.launch();
    let id = node.enqueue(&["flaky"]);
    assert_eq!(node.finished(&id)["state"], "FAILURE");
    run(&node, "quiet");
    let (json, env) = until("a notice", || told(&node).pop());
    assert_eq!(
        (&json["kind"], &json["task"], &json["id"], &json["state"], &json["failures"]),
        (&json!("failure"), &json!("flaky"), &json!(id), &json!("FAILURE"), &json!(1)),
    );
    assert_eq!(json["cause"], json!({"kind": "exit", "code": 3}));
    // The same words as those of `taskd result`.
    let said = node.taskd(&["result", &id]).code(3).err;
    assert!(said.contains(json["sentence"].as_str().unwrap()), "{said} {}", json["sentence"]);
    let output = json["output"].as_array().unwrap();
    assert_eq!((output.len(), &output[0], &output[49]), (50, &json!("line 11"), &json!("line 60")));
    for word in ["TASKD_NOTICE_TASK=flaky", &format!("TASKD_NOTICE_ID={id}"), "TASKD_NOTICE_STATE=FAILURE"] {
        assert!(env.contains(word), "no {word} in\n{env}");
    }
    assert!(!env.contains("TASKD_TARGET_"), "targets are shown:\n{env}");
    std::fs::write(node.path().join("good"), "").unwrap();
    assert_eq!(run(&node, "flaky")["state"], "SUCCESS");
    assert_eq!(run(&node, "flaky")["state"], "SUCCESS");
    until("the recovery", || kinds(&node).contains(&"recovery".to_owned()).then_some(()));
    quiet(&node);
    assert_eq!(kinds(&node), ["failure", "recovery"]);
    // What tells is a message as every other one; nobody can enqueue it, and no list of tasks has it.
    let notices = node.json(&["list", "--task", NOTIFY]);
    assert!(notices.as_array().unwrap().iter().all(|m| m["state"] == "SUCCESS"), "{notices}");
    assert!(!node.ok(&["tasks"]).contains(NOTIFY));
    node.taskd(&["enqueue", NOTIFY]).code(69).one_clear_line();
    assert_eq!(node.stop(), 0);
}

#[test]
fn rows_and_rates_hold_over_a_killed_daemon_and_a_restart() {
    let rule = "{ exec = [\"{dir}/keep\"], after = 2, at_most = \"1/d\" }";
    let mut node = prepared(&format!("[tasks.bad]\ncommand = \"exit 1\"\non_failure = {rule}\n"));
    node.launch();
    run(&node, "bad");
    procs::kill9(node.daemon());
    run(&node, "bad");
    let (json, _) = until("a notice", || told(&node).pop());
    assert_eq!((&json["failures"], &json["kept_back"]), (&json!(2), &json!(0)));
    node.stop();
    node.launch();
    for _ in 0..3 {
        run(&node, "bad");
    }
    quiet(&node);
    assert_eq!(told(&node).len(), 1, "at_most was forgotten");
    // A new life of the same message is told anew, or counted; a test takes no place.
    let out = node.ok(&["notify", "test", "bad"]);
    assert!(out.contains("told: ") && out.starts_with("exec:"), "{out}");
    let (json, _) = told(&node).pop().unwrap();
    assert_eq!((&json["test"], &json["task"]), (&json!(true), &json!("bad")));
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_notice_that_is_on_its_way_when_everything_dies_is_told_once() {
    let mut node = prepared(&format!("[notify]\non_failure = {{ exec = [\"{{dir}}/keep\"] }}\n{FLAKY}"));
    node.launch();
    let ids: Vec<String> = (0..20).map(|_| node.enqueue(&["flaky"])).collect();
    let failed = |n: usize| until("failures", || (told(&node).len() >= n).then_some(()));
    failed(2);
    procs::kill9(node.daemon());
    failed(8);
    node.kill_launcher();
    node.launch();
    node.all_finished(&ids);
    quiet(&node);
    let mut of: Vec<String> = told(&node).iter().map(|(j, _)| j["id"].as_str().unwrap().to_owned()).collect();
    of.sort();
    let mut all = ids;
    all.sort();
    assert_eq!(of, all, "each failure is told, and none twice");
    assert_eq!(node.stop(), 0);
}

/// What a server was asked: its headers and its body.
struct Posted {
    head: Vec<String>,
    body: Vec<u8>,
}

/// A web server that gives these answers one after the other, the last one for ever.
fn server(answers: &'static [&'static str]) -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
    let (send, posts) = channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                head.push(line.trim_end().to_lowercase());
            }
            let length = head.iter().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            let answer = answers[n.min(answers.len() - 1)];
            let _ = write!(
                stream.get_mut(),
                "HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
            );
            if send.send(Posted { head, body }).is_err() {
                return;
            }
        }
    });
    (url, posts)
}

fn next(posts: &Receiver<Posted>) -> Posted {
    posts.recv_timeout(super::harness::PATIENCE).expect("no request came")
}

#[test]
fn a_webhook_is_tried_again_and_signed() {
    let (url, posts) = server(&["503 Busy", "429 Slow", "204 Fine"]);
    let credentials = tempfile::tempdir().unwrap();
    std::fs::set_permissions(credentials.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(credentials.path().join("hook"), "k3y\n").unwrap();
    let mut setup = Setup::new(&with(&format!(
        "[notify]\nretry_delay = \"20ms\"\n\
         [tasks.bad]\ncommand = \"exit 1\"\n\
         on_failure = {{ webhook = \"{url}\", webhook_secret = \"${{credential:hook}}\" }}\n"
    )));
    let given = credentials.path().to_str().unwrap().to_owned();
    setup.env = vec![("CREDENTIALS_DIRECTORY".to_owned(), given)];
    let mut node = Node::start_with(setup);
    let id = run(&node, "bad")["id"].as_str().unwrap().to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"k3y");
    for _ in 0..3 {
        let post = next(&posts);
        assert_eq!(post.head[0], "post /hook?x=1 http/1.1");
        assert!(post.head.contains(&"content-type: application/json".to_owned()), "{:?}", post.head);
        let signed = post.head.iter().find_map(|l| l.strip_prefix("x-taskd-signature: sha256=")).unwrap();
        let tag: Vec<u8> = (0..signed.len())
            .step_by(2)
            .map(|n| u8::from_str_radix(&signed[n..n + 2], 16).unwrap())
            .collect();
        ring::hmac::verify(&key, &post.body, &tag).expect("a wrong signature");
        let json: Value = serde_json::from_slice(&post.body).unwrap();
        assert_eq!((&json["id"], &json["kind"]), (&json!(id), &json!("failure")));
        assert!(json["text"].as_str().unwrap().contains("bad failed on"), "{json}");
    }
    quiet(&node);
    let notices = node.json(&["list", "--task", NOTIFY]);
    let notice = &notices.as_array().unwrap()[0];
    assert_eq!((&notice["state"], &notice["attempt"]), (&json!("SUCCESS"), &json!(3)), "{notices}");
    assert!(posts.try_recv().is_err(), "told again");
    // The secret is nowhere to be read.
    for text in [node.ok(&["config"]), notices.to_string(), node.log()] {
        assert!(!text.contains("k3y"), "{text}");
    }
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_cannot_be_told_ends_and_is_told_to_nobody_else() {
    let (gone, posts) = server(&["404 Gone"]);
    let mut node = prepared(&format!(
        "[notify]\nretry_delay = \"20ms\"\nmax_retries = 2\n\
         [tasks.bad]\ncommand = \"exit 1\"\non_failure = {{ webhook = \"{gone}\" }}\n\
         [tasks.worse]\ncommand = \"exit 1\"\non_failure = {{ exec = [\"{{dir}}/refuse\"] }}\n"
    ));
    script(&node, "refuse", "#!/bin/sh\necho went wrong >&2\nexit 9\n");
    node.launch();
    run(&node, "bad");
    run(&node, "worse");
    next(&posts);
    until("both to end", || {
        let list = node.json(&["list", "--task", NOTIFY]);
        (list.as_array().unwrap().iter().filter(|m| m["state"] == "FAILURE").count() == 2).then_some(())
    });
    let list = node.json(&["list", "--task", NOTIFY]);
    let attempts = |word: &str| {
        let all = list.as_array().unwrap();
        all.iter().find(|m| m["kwargs"]["target"].as_str().unwrap().starts_with(word)).unwrap()["attempt"]
            .clone()
    };
    assert_eq!((attempts("webhook:"), attempts("exec:")), (json!(1), json!(3)), "{list}");
    assert_eq!(list.as_array().unwrap().len(), 2, "a failed notice led to another one");
    let said = node.taskd(&["notify", "test", "worse"]).code(1);
    assert!(said.out.contains("not told") && said.out.contains("went wrong"), "{}", said.out);
    node.taskd(&["notify", "test", "worse", "--kind", "recovery"])
        .code(73)
        .one_clear_line()
        .says(&["on_recovery"]);
    node.taskd(&["notify", "test", "nobody"]).code(69).one_clear_line();
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_mail_goes_through_sendmail() {
    let mut node = prepared(
        "[notify]\nsendmail = \"{dir}/sendmail\"\nfrom = \"taskd@example.org\"\n\
         on_failure = { mail = [\"ops@example.org\", \"root\"] }\n\
         [tasks.bad]\ncommand = \"printf 'Bcc: x@y.z\\n\\né\\n'; exit 1\"\n",
    );
    script(
        &node,
        "sendmail",
        "#!/bin/sh\n{ echo \"$@\"; cat; } >{dir}/told/mail.part; mv {dir}/told/mail.part {dir}/told/mail\n",
    );
    node.launch();
    run(&node, "bad");
    let file = node.path().join("told/mail");
    let mail = until("a mail", || std::fs::read_to_string(&file).ok());
    let (arguments, mail) = mail.split_once('\n').unwrap();
    assert_eq!(arguments, "-t -i");
    let (head, body) = mail.split_once("\n\n").unwrap();
    for line in
        ["From: taskd@example.org", "To: ops@example.org,\n root", "Content-Transfer-Encoding: base64"]
    {
        assert!(head.contains(line), "no {line:?} in\n{head}");
    }
    assert!(head.contains("Subject: [taskd] bad failed on ") && !head.contains("Bcc"), "{head}");
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.decode(body.replace('\n', "")).unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("    Bcc: x@y.z\n") && body.contains("    é\n"), "{body}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_flood_of_work_and_a_paused_queue_hold_up_no_notice() {
    let mut node = prepared(
        "[tasks.hold]\ncommand = \"echo up >{dir}/up; read x <{dir}/go\"\n\
         [tasks.bad]\ncommand = \"exit 1\"\non_failure = { exec = [\"{dir}/keep\"] }\nqueue = \"side\"\n\
         [queues.side]\npool = \"side\"\n[pools.side]\nprocesses = 1\n",
    );
    node.launch();
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let held: Vec<String> = (0..2).map(|_| node.enqueue(&["hold"])).collect();
    up.line();
    up.line();
    node.enqueue_many("hold", 50);
    node.ok(&["pause", "default"]);
    run(&node, "bad");
    until("a notice", || told(&node).pop());
    node.ok(&["purge", "default"]);
    go.release(2);
    node.all_finished(&held);
    assert_eq!(node.stop(), 0);
}

/// A time of day in UTC.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60)
}

#[test]
fn a_run_that_did_not_come_by_its_time_is_told_once() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The next full minute that is not too near.
    let by = (now + 5).div_ceil(60) * 60;
    let task = |name: &str| {
        format!(
            "[tasks.{name}]\ncommand = \"true\"\nexpected_by = \"{}\"\non_failure = {{ exec = [\"{{dir}}/keep\"] }}\n\
             on_recovery = {{ exec = [\"{{dir}}/keep\"] }}\n",
            clock(by)
        )
    };
    let mut node = prepared(&format!("{}{}", task("late"), task("early")));
    let text = node.setup.config.replace("[taskd]\n", "[taskd]\ntimezone = \"UTC\"\n");
    node.write_config(&text);
    node.launch();
    assert_eq!(run(&node, "early")["state"], "SUCCESS");
    // A daemon that dies before the time does not forget it, one that dies at it does not tell it twice.
    procs::kill9(node.daemon());
    let end = Instant::now() + Duration::from_secs(120);
    while told(&node).is_empty() {
        assert!(Instant::now() < end, "no alarm");
        std::thread::sleep(Duration::from_millis(50));
    }
    procs::kill9(node.daemon());
    node.stop();
    node.launch();
    quiet(&node);
    let all = told(&node);
    assert_eq!(all.len(), 1, "{all:?}");
    let json = &all[0].0;
    assert_eq!((&json["kind"], &json["task"]), (&json!("missed"), &json!("late")));
    assert_eq!(json["expected"], json!(by * 1_000));
    assert_eq!(run(&node, "late")["state"], "SUCCESS");
    until("the recovery", || kinds(&node).contains(&"recovery".to_owned()).then_some(()));
    assert_eq!(node.stop(), 0);
    missed_while_down(&mut node, by);
}

/// A time passed while no taskd lived: the store says that it was looked at two days ago. It is another time of day,
/// since that of before was told already.
fn missed_while_down(node: &mut Node, by: u64) {
    let store = std::fs::read_dir(node.state_dir()).unwrap().map(|e| e.unwrap().path());
    let store = store.into_iter().find(|p| p.extension().is_some_and(|e| e == "db")).expect("a store");
    let old = (by - 2 * 86_400) * 1_000;
    let memo = json!({"checked": old, "succeeded": old, "touched": old}).to_string();
    remember(&store, "tell:late", &memo);
    let text = std::fs::read_to_string(node.config_file()).unwrap();
    node.write_config(&text.replace(&clock(by), &clock(by - 60)));
    node.launch();
    until("an alarm at the start", || {
        (kinds(node).iter().filter(|k| *k == "missed").count() == 2).then_some(())
    });
    quiet(node);
    assert_eq!(kinds(node), ["missed", "recovery", "missed"]);
    assert_eq!(node.stop(), 0);
}

fn remember(store: &Path, key: &str, value: &str) {
    let db = rusqlite::Connection::open(store).unwrap();
    let n = db.execute("UPDATE memo SET value = ?2 WHERE key = ?1", (key, value)).unwrap();
    assert_eq!(n, 1, "no fact {key}");
}
