//! Several files, files that cannot be read, values of the command line.

use std::fs::{create_dir, write};
use std::path::PathBuf;

use taskd::config::{Home, Source, load};

use super::laptop;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        create_dir(dir.path("taskd.d")).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        write(self.path(name), text).unwrap();
        self
    }

    fn source(&self) -> Source {
        Source::find(Some(self.path("taskd.toml")), &Home::system())
    }
}

#[test]
fn later_files_win_by_key_and_their_routes_come_first() {
    let dir = Dir::new()
        .with("taskd.toml", "[tasks.a]\ncommand = 'a'\nnice = 1\n[queues.q]\n[queues.r]\n[[routes]]\ntask = '*'\nqueue = 'q'\n")
        .with("taskd.d/10-a.toml", "[tasks.a]\nnice = 2\nparams.second = 'int'\n[tasks.b]\ncommand = 'b'\n")
        .with("taskd.d/20-b.toml", "[tasks.a]\nnice = 3\nparams.first = 'int'\n[[routes]]\ntask = 'b'\nqueue = 'r'\n")
        .with("taskd.d/.hidden.toml", "nonsense")
        .with("taskd.d/readme.txt", "nonsense");
    let loaded = load(&dir.source(), &laptop()).unwrap();
    let s = &loaded.settings;
    assert_eq!(s.tasks["a"].surroundings.nice, Some(3));
    assert_eq!(s.tasks["a"].params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!((s.route(&s.tasks["a"]), s.route(&s.tasks["b"])), ("q", "r"));
    assert_eq!(loaded.files.len(), 3);
    let nice = loaded.origins.iter().find(|o| o.table == "[tasks.a]" && o.key == "nice").unwrap();
    assert!(nice.source().ends_with("20-b.toml:2"), "{}", nice.source());
}

#[test]
fn a_fault_is_told_with_the_file_it_is_in() {
    let dir = Dir::new()
        .with("taskd.toml", "[tasks.a]\ncommand = 'a'\n")
        .with("taskd.d/x.toml", "\n[tasks.a]\nexec = ['true']\n");
    let report = load(&dir.source(), &laptop()).unwrap_err();
    let rendered = report.render(false);
    assert!(rendered.contains("x.toml:3:1") && rendered.contains("taskd.toml:2:1"), "{rendered}");
}

#[test]
fn a_file_that_nobody_named_may_be_missing() {
    let dir = Dir::new();
    let mut source = dir.source();
    let report = load(&source, &laptop()).unwrap_err();
    assert!(report.faults()[0].message.contains("No such file"), "{}", report.render(false));
    source.named = false;
    let loaded = load(&source, &laptop()).unwrap();
    assert!(loaded.notes[0].contains("every setting has its default"), "{:?}", loaded.notes);
    assert!(loaded.settings.pools.contains_key("default") && loaded.settings.queues.contains_key("default"));
}

#[test]
fn what_cannot_be_read_is_a_fault() {
    let dir = Dir::new().with("taskd.toml", "").with("taskd.d/latin1.toml", b"# gr\n# gr\xfc\xdfe\n");
    create_dir(dir.path("taskd.d/directory.toml")).unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.path("taskd.d/link.toml")).unwrap();
    write(dir.path("taskd.d/huge.toml"), vec![b'#'; 5 << 20]).unwrap();
    let rendered = load(&dir.source(), &laptop()).unwrap_err().render(false);
    for wanted in
        ["line 2 is not UTF-8", "it is no regular file", "No such file", "larger than 4 MiB", "4 faults"]
    {
        assert!(rendered.contains(wanted), "{wanted}: {rendered}");
    }
}

#[test]
fn flags_go_before_the_files_and_are_checked() {
    let dir = Dir::new().with("taskd.toml", "[taskd]\nstate_dir = '/a'\nsocket = '/b'\n");
    let source = dir.source().with_flags(Some("/flag/state".into()), Some("/flag/s".into()));
    let loaded = load(&source, &laptop()).unwrap();
    assert_eq!(loaded.settings.taskd.state_dir, PathBuf::from("/flag/state"));
    assert_eq!(loaded.settings.taskd.socket, PathBuf::from("/flag/s"));
    let origin = loaded.origins.iter().find(|o| o.key == "socket").unwrap();
    assert_eq!((origin.value.as_str(), origin.source().as_str()), ("\"/flag/s\"", "--socket"));
    let long = source.with_flags(None, Some(format!("/{}", "x".repeat(107)).into()));
    let rendered = load(&long, &laptop()).unwrap_err().render(false);
    assert!(
        rendered
            .contains("--socket is too long: the path of a socket has at most 107 bytes, this one has 108"),
        "{rendered}"
    );
}

#[test]
fn where_owners_are_checked_a_file_of_somebody_else_is_refused() {
    let dir = Dir::new().with("taskd.toml", "");
    let mut env = laptop();
    env.check_ownership = true;
    let file = dir.path("taskd.toml");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let report = load(&dir.source(), &env).unwrap_err();
    let fault = &report.faults()[0];
    assert!(fault.message.starts_with("refusing "), "{}", fault.message);
    assert!(fault.help.as_deref().unwrap().contains("chown root"));
}

#[test]
fn a_program_that_others_can_write_is_not_run_by_root() {
    let dir = Dir::new().with("program", "#!/bin/sh\n");
    let program = dir.path("program");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut env = super::server();
    env.check_ownership = true;
    let text = format!("[tasks.a]\nexec = ['{}']\nuser = 'root'\n", program.display());
    let found = super::faults_on(&text, &env);
    assert!(found[0].starts_with("tasks.a.exec: root would run "), "{found:?}");
    assert!(super::load(&text.replace("'root'", "'shop'"), &env).is_ok());
    assert!(super::load("[tasks.a]\nexec = ['/bin/true']\nuser = 'root'\n", &env).is_ok());
}
