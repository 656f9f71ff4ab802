//! The units that are shipped, and the drop-ins beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DROP_INS: [&str; 3] = ["administer", "sandbox", "tight"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn analyze_is_there() -> bool {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !there {
        println!("skipped: systemd-analyze is not there");
    }
    there
}

/// The units as they are installed in this directory, with these drop-ins, and a program that exists.
fn install(dir: &Path, drop_ins: &[&str], program: &str) {
    fs::create_dir_all(dir.join("taskd.service.d")).unwrap();
    install_from(&source(), dir, program);
    for name in drop_ins {
        let file = format!("{name}.conf");
        fs::copy(source().join("drop-ins").join(&file), dir.join("taskd.service.d").join(&file)).unwrap();
    }
}

fn install_from(source: &Path, dir: &Path, program: &str) {
    for name in ["taskd.service", "taskd.socket"] {
        let text = fs::read_to_string(source.join(name)).unwrap().replace("/usr/bin/taskd", program);
        fs::write(dir.join(name), text).unwrap();
    }
}

/// systemd-analyze exits 0 for keys it does not know: nothing at all must be said.
#[test]
fn the_units_verify_without_a_word_also_with_each_drop_in() {
    if !analyze_is_there() {
        return;
    }
    let sets = [&[][..], &["administer"], &["sandbox"], &["tight"]];
    for set in sets {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), set, "/bin/true");
        let units = [dir.path().join("taskd.service"), dir.path().join("taskd.socket")];
        let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
        let said = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        assert!(out.status.success() && said.is_empty(), "{set:?}: {said}");
    }
    let dir = tempfile::tempdir().unwrap();
    install_from(&source().join("user"), dir.path(), "/bin/true");
    let units = [dir.path().join("taskd.service"), dir.path().join("taskd.socket")];
    // What stands for %t and %h of a user's manager.
    let home = [("XDG_RUNTIME_DIR", dir.path()), ("HOME", dir.path())];
    let mut analyze = Command::new("systemd-analyze");
    let out = analyze.args(["verify", "--user", "--man=no"]).args(&units).envs(home).output().unwrap();
    let said = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(out.status.success() && said.is_empty(), "a user's: {said}");
}

#[test]
fn every_drop_in_is_looked_at() {
    let mut found: Vec<_> = fs::read_dir(source().join("drop-ins"))
        .unwrap()
        .map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, DROP_INS);
}

/// What `systemd-analyze security` says, in tenths: 0 is the best, 100 the worst. cron, atd and Supervisor have 96.
fn exposure(drop_ins: &[&str]) -> u32 {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    install(&units, drop_ins, "/bin/true");
    fs::create_dir_all(root.path().join("bin")).unwrap();
    fs::copy("/bin/true", root.path().join("bin/true")).unwrap();
    let out = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--root"])
        .arg(root.path())
        .arg("taskd.service")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let line =
        said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    let score = line.split(": ").nth(1).unwrap().split(' ').next().unwrap();
    score.replace('.', "").parse().unwrap()
}

#[test]
fn the_units_expose_no_more_than_promised() {
    if !analyze_is_there() {
        return;
    }
    let (default, tight) = (exposure(&[]), exposure(&["tight"]));
    let (sandbox, administer) = (exposure(&["sandbox"]), exposure(&["administer"]));
    println!(
        "exposure: default {default}, tight {tight}, sandbox {sandbox}, administer {administer} (tenths)"
    );
    assert!(default <= 45, "the unit as shipped: {default}");
    assert!(tight <= 17, "with tight.conf: {tight}");
    // Else the drop-in is not applied, and nothing above says anything.
    assert!(default < sandbox && sandbox < administer, "{sandbox}, {administer}");
}

#[test]
fn the_users_are_what_sysusers_takes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sysusers.d/taskd.conf");
    let text = fs::read_to_string(&file).unwrap();
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
