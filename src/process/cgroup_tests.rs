//! The groups of a directory of plain files.

use super::*;

/// Every file that the code may find in a group.
const FILES: [&str; 17] = [
    "cgroup.controllers",
    "cgroup.events",
    "cgroup.kill",
    "cgroup.procs",
    "cgroup.subtree_control",
    "cgroup.type",
    "cpu.max",
    "cpu.stat",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.max",
    "memory.oom.group",
    "memory.peak",
    "memory.stat",
    "memory.swap.max",
    "pids.max",
];

fn kernel() -> Kernel {
    Kernel {
        make: |path| {
            fs::create_dir(path)?;
            FILES.iter().try_for_each(|file| fs::write(path.join(file), ""))?;
            fs::write(path.join("cgroup.type"), "domain\n")?;
            fs::write(path.join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma\n")?;
            fs::write(path.join("cgroup.events"), "populated 0\nfrozen 0\n")
        },
        remove: |path| {
            let busy = fs::read_to_string(path.join("cgroup.events"))?.starts_with("populated 1");
            let below = fs::read_dir(path)?.flatten().any(|e| e.path().is_dir());
            if busy || below { Err(nix::errno::Errno::EBUSY.into()) } else { fs::remove_dir_all(path) }
        },
    }
}

/// A group that was delegated.
fn delegated(dir: &Path) -> PathBuf {
    let root = dir.join("own");
    (kernel().make)(&root).unwrap();
    root
}

fn take(root: &Path) -> Result<Tree, String> {
    Tree::take(root.to_owned(), kernel(), Duration::from_millis(20))
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_own_group_is_found_under_any_mount() {
    let mount = |root: &str, point: &str| {
        format!(
            "31 23 0:28 / /sys rw - sysfs sysfs rw\n41 31 0:38 {root} {point} rw shared:9 - cgroup2 cgroup2 rw\n"
        )
    };
    let usual = "0::/system.slice/taskd.service\n";
    let found = |cgroup: &str, root: &str, point: &str| place(cgroup, &mount(root, point));
    assert_eq!(
        found(usual, "/", "/sys/fs/cgroup").unwrap(),
        Path::new("/sys/fs/cgroup/system.slice/taskd.service")
    );
    let hybrid = "9:name=systemd:/x\n4:memory:/x\n0::/\n";
    assert_eq!(found(hybrid, "/", "/sys/fs/cgroup/unified").unwrap(), Path::new("/sys/fs/cgroup/unified/"));
    // A container that was shown a part of the host's.
    assert_eq!(found("0::/box/1/in\n", "/box/1", "/cg").unwrap(), Path::new("/cg/in"));
    assert_eq!(found("0::/box/1\n", "/box/1", "/my\\040cg").unwrap(), Path::new("/my cg/"));
    assert!(found("0::/box/12\n", "/box/1", "/cg").unwrap_err().contains("mounted"), "another's");
    assert!(found("4:memory:/x\n", "/", "/cg").unwrap_err().contains("no cgroup v2"));
    assert!(place(usual, "31 23 0:28 / /sys rw - sysfs sysfs rw\n").is_err());
}

#[test]
fn a_delegated_group_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = delegated(dir.path());
    let tree = take(&root).unwrap();
    assert_eq!(content(&root.join("supervisor/cgroup.procs")), "0");
    for group in [root.clone(), root.join("slots")] {
        assert_eq!(content(&group.join("cgroup.subtree_control")), "+memory +pids +cpu +io");
    }
    let said = tree.sentence();
    assert!(said.contains("control groups (v2)") && said.contains(root.to_str().unwrap()), "{said}");
    assert!(said.ends_with("memory, pids, cpu, io"), "{said}");
}

#[test]
fn what_cannot_be_taken_over_is_left_as_it_is() {
    let refused = |spoil: &dyn Fn(&Path), why: &str| {
        let dir = tempfile::tempdir().unwrap();
        let root = delegated(dir.path());
        spoil(&root);
        let error = take(&root).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert!(!root.join("supervisor").exists() && !root.join("slots").exists(), "{why}");
    };
    let missing = |file: &'static str| move |root: &Path| fs::remove_file(root.join(file)).unwrap();
    let with =
        |file: &'static str, text: &'static str| move |root: &Path| fs::write(root.join(file), text).unwrap();
    refused(&missing("cgroup.type"), "root of all groups");
    refused(&with("cgroup.type", "threaded\n"), "threaded");
    refused(&missing("cgroup.controllers"), "cgroup.controllers: No such file");
    refused(&with("cgroup.controllers", "cpu memory\n"), "no pids controller");
    refused(&with("cgroup.controllers", "hugetlb\n"), "no memory controller");
    refused(&missing("cgroup.kill"), "cgroup.kill");
    refused(&with("cgroup.procs", "1\n"), "other processes");
    refused(&missing("cgroup.procs"), "cgroup.procs: No such file");
    let gone = tempfile::tempdir().unwrap().path().join("gone");
    assert!(take(&gone).is_err());
}

#[test]
fn a_controller_that_the_kernel_refuses_later_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = delegated(dir.path());
    // The directory for `slots` cannot be made: it is there as a file.
    fs::write(root.join("slots"), "").unwrap();
    assert!(take(&root).unwrap_err().contains("hand controllers on"));
    assert!(!root.join("supervisor").exists());
    assert_eq!(content(&root.join("cgroup.procs")), "0", "it went back");
    assert!(content(&root.join("cgroup.subtree_control")).starts_with("-memory -pids"));
}

#[test]
fn groups_of_an_earlier_life_are_killed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = delegated(dir.path());
    let first = take(&root).unwrap();
    let slot = first.slot("default-0.1").unwrap();
    slot.leaf("a1").unwrap().leaf("of a task").unwrap();
    let again = take(&root).unwrap();
    assert!(!slot.path().exists());
    assert!(root.join("supervisor").exists() && root.join("slots").exists());
    drop(again);
    let stuck = take(&root).unwrap().slot("default-0.1").unwrap();
    fs::write(root.join("slots/cgroup.events"), "populated 1\n").unwrap();
    let error = take(&root).unwrap_err();
    assert!(error.contains("do not end"), "{error}");
    assert_eq!(content(&root.join("slots/cgroup.kill")), "1");
    assert!(stuck.path().exists());
}

#[test]
fn a_slot_has_a_place_for_its_child_and_fresh_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let root = delegated(dir.path());
    let tree = take(&root).unwrap();
    let slot = tree.slot("pool:x/../y-0.7").unwrap();
    assert_eq!(slot.path(), root.join("slots/pool%3ax%2f..%2fy-0.7"));
    assert!(slot.main().path().is_dir());
    assert!(tree.slot("pool:x/../y-0.7").is_err(), "never the same one twice");
    let leaf = slot.leaf("a1").unwrap();
    assert!(slot.leaf("a1").is_err());
    let mut door = File::from(leaf.door().unwrap());
    door.write_all(b"0").unwrap();
    assert_eq!(content(&leaf.path().join("cgroup.procs")), "0");
    assert!(io::Read::read(&mut door, &mut [0]).is_err(), "for writing only");
    fs::write(leaf.path().join("cgroup.events"), "populated 1\n").unwrap();
    assert!(slot.remove().is_err());
    fs::write(leaf.path().join("cgroup.events"), "populated 0\n").unwrap();
    slot.remove().unwrap();
    assert!(!slot.path().exists());
    slot.remove().unwrap();
}

#[test]
fn limits_are_what_the_kernel_reads_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tree = take(&delegated(dir.path())).unwrap();
    let slot = tree.slot("p-0.1").unwrap();
    let leaf = slot.leaf("a1").unwrap();
    leaf.limit(Limit { memory: Some(1 << 20), cpu: Some(150), tasks: Some(9) }).unwrap();
    let set = |file: &str| content(&leaf.path().join(file));
    assert_eq!(
        (set("memory.max"), set("memory.swap.max"), set("memory.oom.group")),
        ("1048576".into(), "0".into(), "1".into())
    );
    assert_eq!((set("cpu.max"), set("pids.max")), ("150000 100000".into(), "9".into()));
    let none = slot.leaf("a2").unwrap();
    none.limit(Limit::default()).unwrap();
    assert_eq!(content(&none.path().join("memory.max")), "");
    for file in ["memory.swap.max", "memory.oom.group"] {
        fs::remove_file(none.path().join(file)).unwrap();
    }
    none.limit(Limit { memory: Some(1), ..Limit::default() }).unwrap();
    for (file, limit) in [
        ("memory.max", Limit { memory: Some(1), ..Limit::default() }),
        ("cpu.max", Limit { cpu: Some(1), ..Limit::default() }),
        ("pids.max", Limit { tasks: Some(1), ..Limit::default() }),
    ] {
        fs::remove_file(none.path().join(file)).unwrap();
        let error = none.limit(limit).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn usage_is_read_and_what_is_missing_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let tree = take(&delegated(dir.path())).unwrap();
    let leaf = tree.slot("p-0.1").unwrap().leaf("a1").unwrap();
    let put = |file: &str, text: &str| fs::write(leaf.path().join(file), text).unwrap();
    put("cpu.stat", "usage_usec 35\nuser_usec 30\nsystem_usec 5\nnice_usec 9\n");
    put("memory.peak", "4096\n");
    put("pids.peak", "3\n");
    put("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n");
    put("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\noom_group_kill 0\n");
    let usage = leaf.usage();
    assert_eq!((usage.user_us, usage.system_us, usage.read_bytes, usage.written_bytes), (30, 5, 11, 22));
    assert_eq!((usage.memory_peak, usage.tasks_peak, usage.out_of_memory), (Some(4096), Some(3), false));
    put("memory.events", "oom 1\noom_kill 2\n");
    assert!(leaf.usage().out_of_memory);
    put("memory.current", "1000\n");
    put("memory.stat", "anon 400\nfile 500\nactive_file 100\ninactive_file 300\n");
    assert_eq!(leaf.memory(), Some(600));
    put("memory.peak", "max\n");
    for file in ["cpu.stat", "pids.peak", "io.stat", "memory.events", "memory.current"] {
        fs::remove_file(leaf.path().join(file)).unwrap();
    }
    assert_eq!((leaf.usage(), leaf.memory()), (LeafUsage::default(), None));
}

#[test]
fn a_kill_counts_what_it_found_everywhere_below() {
    let dir = tempfile::tempdir().unwrap();
    let tree = take(&delegated(dir.path())).unwrap();
    let leaf = tree.slot("p-0.1").unwrap().leaf("a1").unwrap();
    let deep = leaf.leaf("x").unwrap().leaf("y").unwrap();
    fs::write(leaf.path().join("cgroup.procs"), "10\n11\n").unwrap();
    fs::write(deep.path().join("cgroup.procs"), "12\n").unwrap();
    assert_eq!(leaf.kill().unwrap(), 3);
    assert_eq!(content(&leaf.path().join("cgroup.kill")), "1");
    fs::write(leaf.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    assert!(leaf.is_populated());
    let watch = leaf.watch().unwrap();
    assert!(!watch.wait(Instant::now() + Duration::from_millis(5)), "the wait is bounded");
    fs::write(leaf.path().join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    assert!(!watch.is_populated());
}
