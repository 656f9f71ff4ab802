//! `taskd completion`, in the shells themselves.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::harness::node::TASKD;
use super::harness::{Node, PATIENCE, Ran};
use super::with;

const TASKS: &str = r#"
[tasks.resize]
exec = ["/bin/true", "{width}", "{size}", "{dry}"]
params.width = "int"
params.size = { type = "string", default = "small", one_of = ["small", "a b;$(touch {dir}/pwned)"] }
params.dry = { type = "bool", default = false }
[tasks.reindex]
command = "true"
[tasks.old]
command = "true"
enabled = false
[queues.side]
"#;

/// A shell with the scripts, its own home and a socket.
struct Shell {
    home: tempfile::TempDir,
    socket: PathBuf,
}

impl Shell {
    fn new(socket: &Path) -> Self {
        let home = tempfile::Builder::new().prefix("taskd-it-").tempdir().unwrap();
        for (shell, name) in [("bash", "taskd.bash"), ("zsh", "_taskd"), ("fish", "taskd.fish")] {
            let script = Ran::of(Command::new(TASKD).args(["completion", shell]), PATIENCE).code(0).out;
            std::fs::write(home.path().join(name), script).unwrap();
        }
        Self { home, socket: socket.to_owned() }
    }

    fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) -> Ran {
        let bin = Path::new(TASKD).parent().unwrap().display();
        let mut command = Command::new(program);
        command.args(args).current_dir(self.home.path()).env_clear();
        command.env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin")).env("HOME", self.home.path());
        command.env("LANG", "C.UTF-8").env("TASKD_SOCKET", &self.socket);
        Ran::of(&mut command, PATIENCE)
    }

    /// What bash is given for this line, as it calls the function; `kind` is readline's kind of completion.
    fn bash_of(&self, line: &str, kind: &str) -> Vec<String> {
        const CALL: &str = "set -u; source \"$1\"; COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=$3\n\
             COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:' COMP_KEY=9\n_taskd taskd x y\n\
             [ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\\n' \"${COMPREPLY[@]}\"";
        let ran = self.run(
            "bash",
            &["--norc", "--noprofile", "-c", CALL, "bash", &self.file("taskd.bash"), line, kind],
        );
        silent(ran)
    }

    fn bash(&self, line: &str) -> Vec<String> {
        self.bash_of(line, "9").iter().map(|l| l.strip_suffix(' ').unwrap_or(l).to_owned()).collect()
    }

    /// What fish offers, each with its description.
    fn fish(&self, line: &str) -> Vec<String> {
        let call = "source $argv[1]; complete -C $argv[2]";
        silent(self.run("fish", &["--no-config", "-c", call, &self.file("taskd.fish"), line]))
    }

    /// The line after these keys in a terminal.
    fn keys(&self, shell: &str, script: &str, keys: &str) -> String {
        let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/press_tab.py");
        let ran = self.run("python3", &[&helper.display().to_string(), shell, &self.file(script), keys]);
        ran.code(0).out.trim_end_matches('\n').to_owned()
    }

    /// What zsh's completion function adds, each with what is shown for it.
    fn zsh(&self, line: &str) -> Vec<String> {
        // The builtins of a completion widget are replaced by what tells of them.
        const CALL: &str = "setopt extendedglob; compdef() {}; source $1\n\
             compset() { [[ $1 == -P ]] && PREFIX=${PREFIX#*=} }; _files() { print -r -- \":files $* $PREFIX\" }\n\
             compadd() { local -a v s; v=(\"${(@P)@[-1]}\") s=(\"${(@P)${@[(i)-d]:+$@[$@[(i)-d]+1]}}\")\n\
             local i; for (( i = 1; i <= $#v; i++ )); do print -r -- \"$v[i] | $s[i]\"; done }\n\
             words=(${(z)2}); [[ $2 == *' ' ]] && words+=(''); CURRENT=$#words PREFIX=$words[-1]; _taskd; :";
        silent(self.run("zsh", &["-f", "-c", CALL, "zsh", &self.file("_taskd"), line]))
    }
}

/// The lines of a shell that said nothing else.
#[track_caller]
fn silent(ran: Ran) -> Vec<String> {
    let ran = ran.code(0);
    assert_eq!(ran.err, "", "{}", ran.what);
    ran.out.lines().map(str::to_owned).collect()
}

/// The values alone, without what is shown beside them.
fn values(lines: Vec<String>) -> Vec<String> {
    let value = |l: String| l.split(['\t', '|']).next().unwrap_or_default().trim_end().to_owned();
    lines.into_iter().map(value).collect()
}

/// Each shell's answer to a line.
fn each(shell: &Shell, line: &str) -> [(&'static str, Vec<String>); 3] {
    [("bash", shell.bash(line)), ("zsh", values(shell.zsh(line))), ("fish", values(shell.fish(line)))]
}

#[test]
fn every_shell_offers_what_the_daemon_knows() {
    let node = Node::start(&with(TASKS));
    node.ok(&["pause", "side"]);
    let waits = node.enqueue(&["reindex", "--queue", "side"]);
    let done = node.enqueue(&["reindex"]);
    node.finished(&done);
    let shell = Shell::new(&node.socket());
    for (line, wanted) in [
        ("taskd enq", &["enqueue"][..]),
        ("taskd enqueue re", &["reindex", "resize"]),
        ("taskd list --task o", &["old"]),
        ("taskd chain re", &["reindex", "resize"]),
        ("taskd chain resize width=1 -- rei", &["reindex"]),
        ("taskd chain reindex -- reindex -- res", &["resize"]),
        ("taskd chord reindex --body res", &["resize"]),
        ("taskd enqueue resize w", &["width="]),
        ("taskd enqueue resize --priority 9 width=1 ", &["size=", "dry="]),
        ("taskd resume ", &["side"]),
        ("taskd pause ", &["default"]),
        ("taskd enqueue reindex --queue s", &["side"]),
        ("taskd cancel ", &[&waits]),
        ("taskd result ", &[&done]),
        ("taskd status ", &[&done, &waits]),
        ("taskd enqueue reindex --ti", &["--timezone", "--timeout"]),
        ("taskd completion f", &["fish"]),
    ] {
        for (name, offered) in each(&shell, line) {
            assert_eq!(offered, wanted, "{name}: {line}");
        }
    }
    // bash replaces what stands behind `=`; the others the whole word.
    assert_eq!(shell.bash("taskd enqueue resize dry="), ["true", "false"]);
    assert_eq!(values(shell.zsh("taskd enqueue resize dry=")), ["dry=true", "dry=false"]);
    assert_eq!(values(shell.fish("taskd enqueue resize dry=")), ["dry=true", "dry=false"]);
    // What it is stands beside it where there is room for that.
    let beside =
        [shell.bash_of("taskd status ", "63"), shell.zsh("taskd status "), shell.fish("taskd status ")];
    for lines in beside {
        assert!(lines[0].contains(&done) && lines[0].contains("reindex, success"), "{lines:?}");
    }
    // The socket that was typed goes before that of the environment.
    let elsewhere = Shell::new(Path::new("/nonexistent/socket"));
    let line = format!("taskd --socket {} resume ", node.socket().display());
    for (name, offered) in each(&elsewhere, &line) {
        assert_eq!(offered, ["side"], "{name}");
    }
    let line = format!("TASKD_SOCKET={} taskd resume ", node.socket().display());
    assert_eq!(values(elsewhere.fish(&line)), ["side"]);
}

#[test]
fn the_tab_key_completes_in_a_terminal() {
    let node = Node::start(&with(TASKS));
    let id = node.enqueue(&["reindex", "--in", "1h"]);
    let shell = Shell::new(&node.socket());
    for (name, script) in [("bash", "taskd.bash"), ("zsh", "_taskd")] {
        for (keys, line) in [
            ("taskd canc\\t", "taskd cancel "),
            ("taskd enqueue resi\\t", "taskd enqueue resize "),
            ("taskd enqueue resize wi\\t", "taskd enqueue resize width="),
            ("taskd enqueue resize dry=t\\t", "taskd enqueue resize dry=true "),
            ("taskd cancel \\t", &format!("taskd cancel {id} ")),
            ("taskd list --state=fai\\t", "taskd list --state=failure "),
            ("taskd check _ta\\t", "taskd check _taskd "),
            ("taskd check --config=_ta\\t", "taskd check --config=_taskd "),
        ] {
            assert_eq!(shell.keys(name, script, keys), line, "{name}: {keys}");
        }
        // A value that the shell would obey is quoted, whatever the shell likes best.
        let line = shell.keys(name, script, "taskd enqueue resize size=a\\t");
        let said =
            shell.run("bash", &["-c", &format!("taskd() {{ printf '%s\\n' \"$@\"; }}; {line}")]).code(0);
        let value = format!("size=a b;$(touch {}/pwned)", node.path().display());
        assert_eq!(said.out.lines().last(), Some(value.as_str()), "{name}: {line}");
    }
    assert!(!node.path().join("pwned").exists());
}

#[test]
fn without_a_daemon_there_is_what_needs_none() {
    let dir = tempfile::tempdir().unwrap();
    let shell = Shell::new(&dir.path().join("sock"));
    for (line, wanted) in [
        ("taskd dr", &["drain"][..]),
        ("taskd cancel ", &[]),
        ("taskd enqueue ", &[]),
        ("taskd enqueue x --ex", &["--expires"]),
        ("taskd list --color=n", &["--color=never"]),
    ] {
        for (name, offered) in each(&shell, line) {
            let bash = |w: &&str| {
                if name == "bash" { w.rsplit('=').next().unwrap().to_owned() } else { (*w).to_owned() }
            };
            assert_eq!(offered, wanted.iter().map(bash).collect::<Vec<_>>(), "{name}: {line}");
        }
    }
}

/// A socket on which every request is answered so; with no answer it is only taken.
fn impostor(dir: &Path, answer: Option<String>) -> PathBuf {
    let socket = dir.join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if let Some(answer) = &answer {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let length = answer.len();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}");
            }
            kept.push(stream);
        }
    });
    socket
}

#[test]
fn names_that_a_shell_would_obey_are_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    let odd = [
        "$(touch pwned)",
        "`touch pwned`",
        "a b",
        "x;y",
        "\u{1b}[2Jz",
        "two\nlines",
        "-rf",
        "tab\tbed",
        "é",
        "*",
        "good",
    ];
    let task = |name: &&str| serde_json::json!({"name": name, "kind": "\u{1b}]0;title\u{7}$(touch pwned)", "queue": "q\n\tx", "enabled": true, "params": []});
    let answer = serde_json::Value::from(odd.iter().map(task).collect::<Vec<_>>()).to_string();
    let shell = Shell::new(&impostor(dir.path(), Some(answer)));
    for (name, offered) in each(&shell, "taskd enqueue ") {
        assert_eq!(offered, ["good"], "{name}");
    }
    for lines in
        [shell.bash_of("taskd enqueue ", "63"), shell.zsh("taskd enqueue "), shell.fish("taskd enqueue ")]
    {
        assert!(lines.len() == 1 && !lines[0].contains(['\u{1b}', '\u{7}']), "{lines:?}");
    }
    assert_eq!(shell.keys("bash", "taskd.bash", "taskd enqueue \\t"), "taskd enqueue good ");
    assert_eq!(shell.keys("zsh", "_taskd", "taskd enqueue \\t"), "taskd enqueue good ");
    assert!(!shell.home.path().join("pwned").exists());
}

#[test]
fn nobody_waits_for_a_daemon_that_does_not_answer_or_talks_rubbish() {
    for answer in [None, Some("rubbish"), Some("{}"), Some("[{\"id\": 3}]"), Some("null")] {
        let dir = tempfile::tempdir().unwrap();
        let socket = impostor(dir.path(), answer.map(str::to_owned));
        let begun = Instant::now();
        let mut command = Command::new(TASKD);
        command.args(["@complete", "fish", "taskd", "cancel", ""]).env("TASKD_SOCKET", socket);
        let ran = Ran::of(&mut command, PATIENCE).code(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{answer:?}");
        // 300 ms of patience, and room for a busy machine; without a bound it would be the client's 30 s.
        assert!(begun.elapsed() < Duration::from_secs(10), "{answer:?}: {:?}", begun.elapsed());
    }
    for args in [
        &[][..],
        &["bash"],
        &["bash", "9"],
        &["tcsh", "x"],
        &["zsh"],
        &["fish", ""],
        &["bash", "", "", "'\""],
    ] {
        let ran = Ran::of(Command::new(TASKD).arg("@complete").args(args), PATIENCE).code(0);
        assert_eq!(ran.err, "", "{args:?}");
    }
}
