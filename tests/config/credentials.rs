//! Where credentials may stand, and what is told of those that cannot be had.

use std::path::Path;

use taskd::config::{CredentialSource, Env, show, show_json};

use super::{laptop, load};

const MARKER: &str = "hunter2-is-the-value";

/// A machine where systemd gave these to a taskd that starts.
fn given(dir: &Path) -> Env {
    let mut env = laptop().starting();
    env.credentials = CredentialSource::Directory(dir.to_owned());
    env
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("smtp", format!("{MARKER}\n").as_bytes());
    write("redis", MARKER.as_bytes());
    write("binary", &[0xff, 0xfe]);
    write("nul", b"a\0b");
    write("large", &vec![b'x'; (1 << 20) + 1]);
    dir
}

fn faults(text: &str, env: &Env) -> Vec<String> {
    let report = load(text, env).expect_err(text);
    let all = format!("{}{}{}", report.render(false), report.render(true), report.to_json());
    assert!(!all.contains(MARKER), "{all}");
    let list = report.to_json();
    list.as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{}:{} {} | {}", f["line"], f["column"], f["message"].as_str().unwrap(), f["help"]))
        .collect()
}

#[test]
fn they_stand_in_lists_and_in_values_of_the_environment() {
    let dir = directory();
    let text = "[defaults]\ncredentials = ['redis']\n[tasks.a]\ncommand = 'x'\ncredentials = ['smtp', 'binary']\n\
                environment = { URL = 'smtp://me:${credential:smtp}@h', HOME2 = '$HOME ${X} $$ $${credential:no}' }\n\
                [tasks.b]\ncommand = 'x'\n[pools.w]\nworker = ['/bin/w']\ncredentials = ['smtp']\n\
                environment = { KEY = '${credential:redis}' }\n";
    let loaded = load(text, &given(dir.path())).unwrap_or_else(|r| panic!("{}", r.render(false)));
    let of = |task: &str| loaded.settings.tasks[task].surroundings.credentials.clone();
    assert_eq!((of("a"), of("b")), (vec!["smtp".into(), "binary".into()], vec!["redis".into()]));
    let worker = loaded.settings.pools["w"].worker.as_ref().unwrap();
    assert_eq!(worker.surroundings.credentials, ["smtp"]);
    let environment = &loaded.settings.tasks["a"].surroundings.environment;
    assert_eq!(environment["URL"], "smtp://me:${credential:smtp}@h", "as it is written");
    let shown = format!("{}{}{:?}", show(&loaded, true), show_json(&loaded), loaded);
    assert!(shown.contains("${credential:smtp}") && !shown.contains(MARKER), "{shown}");
    assert_eq!(loaded.notes, Vec::<String>::new());
    let sent = serde_json::to_string(&loaded.settings).unwrap();
    assert!(!sent.contains(MARKER), "what the daemon gets");
}

#[test]
fn every_other_place_is_refused_with_what_to_do() {
    let dir = directory();
    for (text, place, why) in [
        ("[tasks.a]\ncommand = 'mail ${credential:smtp}'\n", "2:11", "can be read by every user"),
        ("[tasks.a]\nexec = ['/bin/x', '--key=${credential:smtp}']\n", "2:19", "can be read by every user"),
        ("[pools.p]\nworker = ['/bin/x', '${credential:smtp}']\n", "2:21", "can be read by every user"),
        ("[tasks.a]\ncommand = 'x'\nworking_directory = '/${credential:smtp}'\n", "3:21", "logs and answers"),
        (
            "[tasks.a]\ncommand = 'x'\nparams.p = { type = 'string', default = '${credential:smtp}' }\n",
            "3:41",
            "logs and answers",
        ),
    ] {
        let found = faults(text, &given(dir.path()));
        let fault =
            found.iter().find(|f| f.starts_with(place)).unwrap_or_else(|| panic!("{text}: {found:?}"));
        assert!(fault.contains("cannot hold a credential") && fault.contains(why), "{fault}");
        assert!(
            fault.contains("credentials = [") && fault.contains("$CREDENTIALS_DIRECTORY/smtp"),
            "{fault}"
        );
    }
}

#[test]
fn an_address_of_a_later_version_shows_the_reference_alone() {
    let dir = directory();
    let text = "[taskd]\nbroker = 'redis://me:old${credential:redis}x${credential:gone}@host/0'\n\
                results = 'redis://:${credential:a/b}@host'\n";
    let found = faults(text, &given(dir.path()));
    let has = |what: &str| assert!(found.iter().any(|f| f.contains(what)), "{what}: {found:#?}");
    has("2:10 there is no credential `gone`");
    has("3:11 \"${credential:a/b}\" is no file name");
    let shown = load(text, &given(dir.path())).unwrap_err().render(false);
    assert!(shown.contains("redis://******${credential:redis}*${credential:gone}@host"), "{shown}");
    assert!(!shown.contains("old"), "{shown}");
}

#[test]
fn what_cannot_be_had_is_told_with_its_place() {
    let dir = directory();
    for (value, place, why) in [
        ("credentials = ['gone']", "3:16", "there is no credential `gone`"),
        ("credentials = ['smtp', 'large']", "3:24", "larger than 1 MiB"),
        ("credentials = ['../smtp']", "3:16", "no file name"),
        ("credentials = ['']", "3:16", "is empty"),
        ("credentials = ['a:b']", "3:16", "systemd does not take"),
        ("credentials = ['smtp', 'smtp']", "3:24", "named twice"),
        ("credentials = 'smtp'", "3:15", "must be a list"),
        ("environment = { A = '${credential:binary}' }", "3:21", "not UTF-8"),
        ("environment = { A = 'x', B = 'y${credential:nul}' }", "3:30", "NUL"),
        ("environment = { A = '${credential:gone}' }", "3:21", "there is no credential `gone`"),
        ("environment = { A = '${credential:}' }", "3:21", "is empty"),
        ("environment = { A = '${credential:smtp' }", "3:21", "has no } that ends it"),
        ("pass_environment = ['CREDENTIALS_DIRECTORY']", "3:21", "cannot be passed on"),
    ] {
        let found = faults(&format!("[tasks.a]\ncommand = 'x'\n{value}\n"), &given(dir.path()));
        assert!(
            found.len() == 1 && found[0].starts_with(place) && found[0].contains(why),
            "{value}: {found:?}"
        );
    }
    let missing = faults("[tasks.a]\ncommand = 'x'\ncredentials = ['gone']\n", &given(dir.path()));
    assert!(missing[0].contains("LoadCredential=gone:"), "{missing:?}");
}

#[test]
fn a_task_of_a_worker_is_sent_to_its_pool_and_a_pool_without_one_to_its_tasks() {
    let dir = directory();
    let pool = "[pools.w]\nworker = ['/bin/w']\n[queues.w]\npool = 'w'\n";
    let found =
        faults(&format!("{pool}[tasks.a]\nqueue = 'w'\ncredentials = ['smtp']\n"), &given(dir.path()));
    assert!(found[0].contains("put it under [pools.w]"), "{found:?}");
    let found = faults("[pools.default]\ncredentials = ['smtp']\n", &given(dir.path()));
    assert!(found[0].contains("this pool has neither"), "{found:?}");
}

#[test]
fn in_a_terminal_names_and_places_are_checked_and_values_are_left_to_the_start() {
    let text = "[tasks.a]\ncommand = 'x'\ncredentials = ['smtp', 'imap']\nenvironment = { A = '${credential:smtp}' }\n";
    let loaded = load(text, &laptop()).unwrap();
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
    let note = &loaded.notes[0];
    assert!(note.contains("`imap`, `smtp`") && note.contains("not started by systemd"), "{note}");
    let found = faults("[tasks.a]\ncommand = '${credential:smtp}'\ncredentials = ['a/b']\n", &laptop());
    assert_eq!(found.len(), 2, "{found:?}");
    // A start has nothing to look at them later.
    let found = faults(text, &laptop().starting());
    assert!(found.len() == 3 && found[0].contains("$CREDENTIALS_DIRECTORY is not set"), "{found:?}");
    assert_eq!(load("[tasks.a]\ncommand = 'x'\n", &laptop().starting()).unwrap().notes.len(), 0);
    let mut empty = laptop();
    empty.credentials = CredentialSource::Unusable("it is empty");
    assert!(faults(text, &empty)[0].contains("it is empty"));
}
