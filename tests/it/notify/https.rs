//! Webhooks over https: whom they trust, and what is said of a certificate that is refused.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::super::harness::{Node, PATIENCE, Setup, until};
use super::super::with;
use super::{NOTIFY, run};

const OPENSSL: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = a test\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\n\
    [here]\nsubjectAltName = IP:127.0.0.1, DNS:localhost\n[elsewhere]\nsubjectAltName = DNS:elsewhere.example\n";

/// Certificates, and the keys of them, in a directory.
struct Authority<'a>(&'a Path);

impl Authority<'_> {
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let out = command.args(arguments.split(' ')).current_dir(self.0).output().expect("openssl");
        assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// One that signs others, in NAME.pem.
    fn sign_with(&self, name: &str) {
        std::fs::write(self.0.join("openssl.cnf"), OPENSSL).unwrap();
        self.openssl(&format!(
            "req -x509 -config openssl.cnf -extensions authority -subj /CN={name} -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.pem"
        ));
    }

    /// One of a server, in NAME.pem, signed by another one.
    fn certify(&self, name: &str, by: &str, extensions: &str) {
        self.openssl(&format!(
            "req -new -config openssl.cnf -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -days 2 -extfile openssl.cnf -extensions {extensions} -out {name}.pem"
        ));
    }
}

/// A server of another make than ours.
struct Server {
    process: Child,
    port: String,
    bodies: Receiver<String>,
}

impl Server {
    fn start(dir: &Path, name: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notify/tls_server.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(dir.join(format!("{name}.pem"))).arg(dir.join(format!("{name}.key")));
        let mut process = command.stdout(Stdio::piped()).spawn().expect("python3");
        let out = BufReader::new(process.stdout.take().unwrap());
        let (send, bodies) = channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                if line.map(|line| send.send(line).is_err()).unwrap_or(true) {
                    return;
                }
            }
        });
        let port = bodies.recv_timeout(PATIENCE).expect("no port");
        Self { process, port, bodies }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What became of the only notice about this message, and what it says itself.
fn notice_of(node: &Node, id: &Value) -> (Value, String) {
    let notice = until("an end of the notice", || {
        let list = node.json(&["list", "--task", NOTIFY]);
        let mut all: Vec<Value> = list.as_array().unwrap().clone();
        all.retain(|m| m["kwargs"]["subject"]["id"] == *id);
        assert!(all.len() < 2, "{list}");
        all.pop().filter(|m| m["finished"].is_i64())
    });
    let said = node.taskd(&["logs", notice["id"].as_str().unwrap()]);
    (notice, said.out + &said.err)
}

#[test]
fn a_webhook_goes_to_a_server_whose_certificate_is_trusted_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority(dir.path());
    authority.sign_with("ours");
    authority.sign_with("theirs");
    authority.certify("good", "ours", "here");
    // Of an authority with the name of ours and another key.
    std::fs::create_dir(dir.path().join("other")).unwrap();
    let other = Authority(&dir.path().join("other"));
    other.sign_with("ours");
    other.certify("false", "ours", "here");
    authority.certify("strange", "theirs", "here");
    authority.certify("misnamed", "ours", "elsewhere");
    let servers = ["good", "strange", "misnamed", "other/false"].map(|name| Server::start(dir.path(), name));
    let mut config = "[notify]\nretry_delay = \"20ms\"\nmax_retries = 1\n".to_owned();
    for (n, server) in servers.iter().enumerate() {
        config += &format!(
            "[tasks.bad{n}]\ncommand = \"exit 1\"\non_failure = {{ webhook = \"https://127.0.0.1:{}/hook\" }}\n",
            server.port
        );
    }
    let mut node = Node::prepare(Setup::new(&with(&config)));
    // Where whoever sends can read it, whatever user that is.
    let trusted = node.path().join("trusted.pem");
    std::fs::copy(dir.path().join("ours.pem"), &trusted).unwrap();
    node.setup.env = vec![("SSL_CERT_FILE".to_owned(), trusted.to_str().unwrap().to_owned())];
    node.launch();

    let id = run(&node, "bad0")["id"].clone();
    let body = servers[0].bodies.recv_timeout(PATIENCE).expect("nothing was posted");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], id);
    let (notice, said) = notice_of(&node, &id);
    assert_eq!((&notice["state"], &notice["attempt"]), (&json!("SUCCESS"), &json!(1)), "{said}");

    // An administrator who renews a certificate does not tell taskd: it is tried again as any other fault.
    for (task, why) in [
        ("bad1", "from nobody who is trusted here"),
        ("bad3", "from nobody who is trusted here"),
        ("bad2", "certificate of its server is refused: certificate not valid for name \"127.0.0.1\""),
    ] {
        let (notice, said) = notice_of(&node, &run(&node, task)["id"]);
        assert_eq!((&notice["state"], &notice["attempt"]), (&json!("FAILURE"), &json!(2)), "{said}");
        assert!(said.contains(why), "{task}: {said}");
    }
    let test = node.taskd(&["notify", "test", "bad1"]).code(1);
    assert!(test.out.contains("update-ca-certificates(8)"), "{}", test.out);

    // The machine's own list does not have the authority of this test.
    assert_eq!(node.stop(), 0);
    node.setup.env.clear();
    node.launch();
    let (notice, said) = notice_of(&node, &run(&node, "bad0")["id"]);
    assert_eq!(notice["state"], "FAILURE", "{said}");
    assert!(said.contains("trusted"), "{said}");
    assert!(servers.iter().all(|s| s.bodies.try_recv().is_err()), "a server that is not trusted was told");
    assert_eq!(node.stop(), 0);
}
