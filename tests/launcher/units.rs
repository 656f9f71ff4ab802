//! The units that are shipped.

use std::path::Path;
use std::process::Command;

/// systemd-analyze exits 0 for keys it does not know: nothing at all must be said.
#[test]
fn the_units_verify_without_a_word() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: systemd-analyze is not there");
        return;
    }
    for (folder, manager) in [("systemd", "--system"), ("systemd/user", "--user")] {
        verify(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), manager);
    }
}

fn verify(source: &Path, manager: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["taskd.service", "taskd.socket"] {
        // The program is not installed here, and a program that is missing is a fault.
        let text = std::fs::read_to_string(source.join(name)).unwrap().replace("/usr/bin/taskd", "/bin/true");
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        units.push(path);
    }
    // What stands for %t and %h of a user's manager.
    let home = [("XDG_RUNTIME_DIR", dir.path()), ("HOME", dir.path())];
    let mut analyze = Command::new("systemd-analyze");
    let out = analyze.args(["verify", manager]).args(&units).envs(home).output().unwrap();
    let said = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(out.status.success() && said.is_empty(), "{manager}: {said}");
}

#[test]
fn the_users_are_what_sysusers_takes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sysusers.d/taskd.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    for line in ["u taskd ", "u taskd-run ", "g taskd-users "] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}");
    }
    let root = tempfile::tempdir().unwrap();
    match Command::new("systemd-sysusers").arg("--dry-run").arg("--root").arg(root.path()).arg(&file).output()
    {
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
        Err(_) => println!("skipped: systemd-sysusers is not there"),
    }
}
